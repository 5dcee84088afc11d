//! What people see of blobs that go to and come from registries: a bar for each on a terminal, lines elsewhere.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Progress, Show, line, seconds, size};
use crate::registry::{Direction, Ended, Monitor, Transfer};

/// The transfers that run.
#[derive(Default)]
pub(super) struct Transfers {
    next: AtomicU64,
    running: Mutex<BTreeMap<u64, Running>>,
    pulled: AtomicU64,
    pushed: AtomicU64,
}

struct Running {
    direction: Direction,
    what: String,
    size: u64,
    bytes: u64,
    start: Instant,
    told: Instant,
}

/// How often a transfer that goes on for long is told of where there is no terminal.
const TELL: Duration = Duration::from_secs(10);

impl Transfers {
    fn running(&self) -> MutexGuard<'_, BTreeMap<u64, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns how many bytes were pulled and pushed.
    pub(super) fn bytes(&self) -> (u64, u64) {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (get(&self.pulled), get(&self.pushed))
    }
}

impl Running {
    fn word(&self) -> &'static str {
        match self.direction {
            Direction::Pull => "pull",
            Direction::Push => "push",
        }
    }

    fn rate(&self) -> String {
        let time = self.start.elapsed().as_secs_f64().max(0.001);
        format!("{}/s", size((self.bytes as f64 / time) as u64))
    }
}

impl Monitor for Progress {
    fn start(&self, transfer: &Transfer<'_>) -> u64 {
        let number = self.transfers.next.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let running = Running {
            direction: transfer.direction,
            what: format!("{} of {}", transfer.what, transfer.repository),
            size: transfer.size,
            bytes: 0,
            start: now,
            told: now,
        };
        match &self.show {
            Show::Fancy(fancy) => {
                let name = format!("{:<7} {}", running.word(), running.what);
                fancy.start_transfer(number, &name, transfer.size);
            }
            Show::Json => line(
                &json!({
                    "event": "transfer", "number": number, "direction": running.word(), "what": transfer.what,
                    "repository": transfer.repository, "size": transfer.size,
                })
                .to_string(),
            ),
            Show::Plain | Show::None => {}
        }
        self.transfers.running().insert(number, running);
        number
    }

    fn more(&self, number: u64, bytes: u64) {
        let mut all = self.transfers.running();
        let Some(running) = all.get_mut(&number) else {
            return;
        };
        running.bytes += bytes;
        let count = match running.direction {
            Direction::Pull => &self.transfers.pulled,
            Direction::Push => &self.transfers.pushed,
        };
        count.fetch_add(bytes, Ordering::Relaxed);
        match &self.show {
            Show::Fancy(fancy) => fancy.transfer(number, bytes),
            Show::Plain if running.told.elapsed() >= TELL => {
                running.told = Instant::now();
                let (done, all) = (size(running.bytes), size(running.size));
                let (word, what, rate) = (running.word(), &running.what, running.rate());
                line(&format!("{word:<7} {what}  {done} of {all}  {rate}"));
            }
            Show::Json => {
                line(&json!({"event": "transferred", "number": number, "bytes": bytes}).to_string())
            }
            Show::Plain | Show::None => {}
        }
    }

    fn end(&self, number: u64, outcome: Ended) {
        let Some(running) = self.transfers.running().remove(&number) else {
            return;
        };
        let word = match (outcome, running.direction) {
            (Ended::Done, Direction::Pull) => "pulled",
            (Ended::Done, Direction::Push) => "pushed",
            (Ended::Mounted, _) => "mounted",
            (Ended::Skipped, _) => "there",
            (Ended::Failed, _) => "failed",
        };
        // What was there already is counted in the end, and no news by itself.
        let mut text = format!("{word:<7} {}", running.what);
        text.push_str(&match outcome {
            Ended::Done => {
                let time = seconds(running.start.elapsed());
                format!("  {}  {time}  {}", size(running.bytes), running.rate())
            }
            _ => format!("  {}", size(running.size)),
        });
        let is_news = !matches!(outcome, Ended::Skipped);
        match &self.show {
            Show::Fancy(fancy) => fancy.end_transfer(number, is_news.then_some(text.as_str())),
            Show::Plain if is_news => line(&text),
            Show::Json => line(
                &json!({
                    "event": "transfer_end", "number": number, "outcome": word, "bytes": running.bytes,
                    "millis": running.start.elapsed().as_millis() as u64,
                })
                .to_string(),
            ),
            Show::Plain | Show::None => {}
        }
    }

    fn note(&self, text: &str) {
        Self::note(self, text);
    }

    fn is_stopped(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }
}
