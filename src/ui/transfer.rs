//! What people see of blobs that go to and come from registries: a bar for each on a terminal, lines elsewhere.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Progress, Show, event, line, seconds, size};
use crate::registry::{Direction, Ended, Monitor, Transfer};

/// The transfers that run.
#[derive(Default)]
pub(super) struct Transfers {
    next: AtomicU64,
    running: Mutex<BTreeMap<u64, Running>>,
    pulled: AtomicU64,
    pushed: AtomicU64,
    /// How many wheels came: a terminal shows them in sum.
    wheels: AtomicU64,
    /// When a step was told, or the first was heard of; `None` between two that belong together.
    stepped: Mutex<Option<Instant>>,
}

struct Running {
    direction: Direction,
    what: String,
    size: u64,
    bytes: u64,
    /// How many of the bytes no event told of yet.
    untold: u64,
    start: Instant,
    told: Instant,
}

/// How often a transfer that goes on for long is told of where there is no terminal.
const TELL: Duration = Duration::from_secs(10);

/// How often scripts are told of one.
const TELL_SCRIPTS: Duration = Duration::from_millis(100);

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

impl Transfers {
    /// Returns how many wheels came.
    pub(super) fn wheels(&self) -> u64 {
        self.wheels.load(Ordering::Relaxed)
    }
}

impl Transfers {
    /// Returns what is to be told of a step, where one goes on for long: that is told every so often.
    fn step<'a>(&self, progress: Option<&'a str>, every: Duration) -> Option<&'a str> {
        let mut stepped = self.stepped.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(text) = progress else {
            *stepped = None;
            return None;
        };
        let last = *stepped.get_or_insert_with(Instant::now);
        if last.elapsed() < every {
            return None;
        }
        *stepped = Some(Instant::now());
        Some(text)
    }
}

impl Running {
    /// Tells whether it is one package of many.
    fn is_wheel(&self) -> bool {
        let name = self.what.split(' ').next().unwrap_or_default();
        self.direction == Direction::Pull && name.ends_with(".whl")
    }

    /// Returns how many bytes there are to tell of, if that is long enough ago; they count as told then.
    fn news(&mut self, every: Duration) -> Option<u64> {
        if self.untold == 0 || self.told.elapsed() < every {
            return None;
        }
        self.told = Instant::now();
        Some(std::mem::take(&mut self.untold))
    }

    fn word(&self) -> &'static str {
        match self.direction {
            Direction::Pull => "pull",
            Direction::Push => "push",
            Direction::Load => "load",
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
            what: match transfer.direction {
                Direction::Load => format!("{} into {}", transfer.what, transfer.repository),
                _ => format!("{} of {}", transfer.what, transfer.repository),
            },
            size: transfer.size,
            bytes: 0,
            untold: 0,
            start: now,
            told: now,
        };
        match &self.show {
            Show::Fancy(fancy) => {
                let name = format!("{:<7} {}", running.word(), running.what);
                fancy.start_transfer(number, &name, transfer.size);
            }
            Show::Json => event(&json!({
                "event": "transfer", "number": number, "direction": running.word(), "what": transfer.what,
                "repository": transfer.repository, "size": transfer.size,
            })),
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
        running.untold += bytes;
        let count = match running.direction {
            Direction::Pull => Some(&self.transfers.pulled),
            Direction::Push => Some(&self.transfers.pushed),
            // It crosses no network, as a rule.
            Direction::Load => None,
        };
        if let Some(count) = count {
            count.fetch_add(bytes, Ordering::Relaxed);
        }
        match &self.show {
            Show::Fancy(fancy) => fancy.transfer(number, bytes),
            Show::Plain if running.news(TELL).is_some() => {
                let (done, all) = (size(running.bytes), size(running.size));
                let (word, what, rate) = (running.word(), &running.what, running.rate());
                line(&format!("{word:<7} {what}  {done} of {all}  {rate}"));
            }
            Show::Json => {
                if let Some(bytes) = running.news(TELL_SCRIPTS) {
                    event(&transferred(number, bytes));
                }
            }
            Show::Plain | Show::None => {}
        }
    }

    fn end(&self, number: u64, outcome: Ended) {
        let Some(mut running) = self.transfers.running().remove(&number) else {
            return;
        };
        let word = match (outcome, running.direction) {
            (Ended::Done, Direction::Pull) => "pulled",
            (Ended::Done, Direction::Push) => "pushed",
            (Ended::Done, Direction::Load) => "sent",
            (Ended::Mounted, _) => "mounted",
            (Ended::Skipped, _) => "there",
            (Ended::Failed, _) => "failed",
        };
        // What was there already is counted in the end, and no news by itself; that the user stopped it is none, either.
        let mut text = format!("{word:<7} {}", running.what);
        text.push_str(&match outcome {
            Ended::Done => {
                let time = seconds(running.start.elapsed());
                format!("  {}  {time}  {}", size(running.bytes), running.rate())
            }
            _ => format!("  {}", size(running.size)),
        });
        let is_stopped = matches!(outcome, Ended::Failed) && self.is_stopped();
        let is_news = !matches!(outcome, Ended::Skipped) && !is_stopped;
        let is_wheel = running.is_wheel() && matches!(outcome, Ended::Done);
        if is_wheel {
            self.transfers.wheels.fetch_add(1, Ordering::Relaxed);
        }
        match &self.show {
            Show::Fancy(fancy) => {
                let is_told = is_news && !is_wheel;
                fancy.end_transfer(number, is_told.then_some(text.as_str()));
            }
            Show::Plain if is_news => line(&text),
            Show::Json => {
                if let Some(bytes) = running.news(Duration::ZERO) {
                    event(&transferred(number, bytes));
                }
                event(&json!({
                    "event": "transfer_end", "number": number, "outcome": word, "bytes": running.bytes,
                    "millis": running.start.elapsed().as_millis() as u64,
                }));
            }
            Show::Plain | Show::None => {}
        }
    }

    fn note(&self, text: &str) {
        self.say(text);
    }

    fn step(&self, progress: Option<&str>) {
        match &self.show {
            Show::Fancy(fancy) => fancy.step(progress),
            Show::Plain => {
                if let Some(text) = self.transfers.step(progress, TELL) {
                    line(&format!("resolving: {text}"));
                }
            }
            Show::Json => {
                if let Some(text) = self.transfers.step(progress, TELL_SCRIPTS) {
                    event(&json!({"event": "resolving", "text": text}));
                }
            }
            Show::None => {}
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.is_asked()
    }
}

fn transferred(number: u64, bytes: u64) -> serde_json::Value {
    json!({"event": "transferred", "number": number, "bytes": bytes})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_small_steps_are_one_piece_of_news() {
        let now = Instant::now();
        let mut running = Running {
            direction: Direction::Pull,
            what: String::new(),
            size: 100,
            bytes: 0,
            untold: 30,
            start: now,
            told: now,
        };
        assert_eq!(running.news(Duration::from_secs(3600)), None);
        running.untold += 12;
        assert_eq!(running.news(Duration::ZERO), Some(42));
        assert_eq!(running.news(Duration::ZERO), None);
    }

    #[test]
    fn steps_are_told_every_so_often() {
        let transfers = Transfers::default();
        let hour = Duration::from_secs(3600);
        assert_eq!(transfers.step(Some("1"), hour), None);
        assert_eq!(transfers.step(Some("2"), Duration::ZERO), Some("2"));
        assert_eq!(transfers.step(Some("3"), hour), None);
        assert_eq!(transfers.step(None, Duration::ZERO), None);
        assert_eq!(transfers.step(Some("4"), hour), None);
    }

    #[test]
    fn wheels_are_told_in_sum() {
        let now = Instant::now();
        let of = |direction, what: &str| Running {
            direction,
            what: what.to_owned(),
            size: 1,
            bytes: 0,
            untold: 0,
            start: now,
            told: now,
        };
        assert!(
            of(
                Direction::Pull,
                "click-8.1.8-py3-none-any.whl of files.example.com"
            )
            .is_wheel()
        );
        assert!(
            !of(
                Direction::Push,
                "click-8.1.8-py3-none-any.whl of files.example.com"
            )
            .is_wheel()
        );
        assert!(!of(Direction::Pull, "sha256:aa of registry.example.com/a.whl").is_wheel());
    }
}
