//! What a build spent its time on, as a Chrome trace: `chrome://tracing`, Perfetto and Speedscope show it.
//!
//! The format is the "Trace Event Format": complete events (`"ph": "X"`), with times in microseconds since the start. The
//! phases of the command are one row, each thread that ran actions is another.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Instant;

use serde_json::{Value, json};

use crate::exec::{Event, Watch};

/// The row of the command's phases.
const PHASES: usize = 0;
/// The row of what needed no thread: nodes whose product was recorded.
const RECORDS: usize = 1;

/// Times, as they are measured.
pub(crate) struct Profile {
    start: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    spans: Vec<Span>,
    /// The actions that run: their row, and when they started.
    running: BTreeMap<u32, (usize, u128)>,
    /// The phase of the command, and when it began.
    phase: Option<(&'static str, u128)>,
    /// The rows of threads, and the names of rows.
    rows: BTreeMap<usize, (Option<ThreadId>, String)>,
}

struct Span {
    name: String,
    category: &'static str,
    row: usize,
    /// Microseconds since the start.
    start: u128,
    micros: u128,
    arguments: Value,
}

impl Profile {
    /// Starts to measure.
    pub(crate) fn start() -> Self {
        let rows = [(PHASES, "phases"), (RECORDS, "records")];
        let rows = rows.map(|(row, name)| (row, (None, name.to_owned())));
        Self {
            start: Instant::now(),
            state: Mutex::new(State {
                rows: BTreeMap::from(rows),
                ..State::default()
            }),
        }
    }

    fn now(&self) -> u128 {
        self.start.elapsed().as_micros()
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends the phase that was, and begins one.
    pub(crate) fn phase(&self, name: &'static str) {
        let now = self.now();
        self.change(|state| {
            state.end_phase(now);
            state.phase = Some((name, now));
        });
    }

    /// Ends the last phase, and returns the trace.
    pub(crate) fn finish(&self) -> Value {
        let now = self.now();
        self.change(|state| {
            state.end_phase(now);
            let names = state.rows.iter().map(|(row, (_, name))| {
                json!({"ph": "M", "pid": 1, "tid": row, "name": "thread_name", "args": {"name": name}})
            });
            let spans = state.spans.iter().map(|span| {
                json!({
                    "ph": "X",
                    "pid": 1,
                    "tid": span.row,
                    "name": span.name,
                    "cat": span.category,
                    "ts": span.start,
                    "dur": span.micros,
                    "args": span.arguments,
                })
            });
            let events: Vec<Value> = names.chain(spans).collect();
            json!({"traceEvents": events, "displayTimeUnit": "ms"})
        })
    }
}

impl State {
    fn end_phase(&mut self, now: u128) {
        if let Some((name, start)) = self.phase.take() {
            self.spans.push(Span {
                name: name.to_owned(),
                category: "phase",
                row: PHASES,
                start,
                micros: now - start,
                arguments: json!({}),
            });
        }
    }

    /// Returns the row of the present thread.
    fn row(&mut self) -> usize {
        let own = thread::current();
        let known = self.rows.iter().find(|(_, (id, _))| *id == Some(own.id()));
        if let Some((row, _)) = known {
            return *row;
        }
        let row = self.rows.len();
        // Threads that wait for hosts have no name.
        let name = own
            .name()
            .map_or_else(|| format!("net-{row}"), str::to_owned);
        self.rows.insert(row, (Some(own.id()), name));
        row
    }
}

impl Watch for Profile {
    fn event(&self, event: &Event<'_>) {
        let now = self.now();
        match event {
            Event::Start { node, .. } => self.change(|state| {
                let row = state.row();
                state.running.insert(node.0, (row, now));
            }),
            Event::Done {
                node,
                label,
                action,
                outcome,
                bytes,
                millis,
                ..
            } => self.change(|state| {
                let (row, start) = match state.running.remove(&node.0) {
                    Some(known) => known,
                    None => (RECORDS, now.saturating_sub(u128::from(*millis) * 1000)),
                };
                state.spans.push(Span {
                    name: format!("{action} {}", label.target),
                    category: outcome.word(),
                    row,
                    start,
                    micros: now.saturating_sub(start),
                    arguments: json!({
                        "rule": label.rule,
                        "platform": label.platform.as_ref().map(ToString::to_string),
                        "outcome": outcome.word(),
                        "bytes": bytes,
                    }),
                });
            }),
            Event::Progress { .. } | Event::Note(_) => {}
        }
    }
}
