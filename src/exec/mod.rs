//! Runs a graph: one coordinator owns all state, jobs run on a pool of threads and send messages.
//!
//! Every action runs at most once for a key: in this process, and in all processes that share the store. Knows no rule,
//! no TOML, no network and no terminal.

mod again;
mod event;
mod job;
mod memory;
mod schedule;

pub(crate) use event::{Event, Outcome, Watch, Why};
pub(crate) use memory::{Caches, Memory};
pub(crate) use schedule::{NodeResult, Options, run};

#[cfg(test)]
mod tests;
