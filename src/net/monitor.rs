//! What receives the progress of transfers, and says whether to stop. Knows nothing of how it is shown.

/// Receives the progress of transfers, from several threads.
pub trait Monitor: Send + Sync {
    /// Hears that a transfer starts, and gives it a number for the calls below.
    fn start(&self, transfer: &Transfer<'_>) -> u64;
    /// Hears that so many bytes went over the wire.
    fn more(&self, number: u64, bytes: u64);
    /// Hears that a transfer ended.
    fn end(&self, number: u64, outcome: Ended);
    /// Hears a warning, or a wait worth telling.
    fn note(&self, text: &str);
    /// Hears how far something has come that is no transfer, often, in words that take the place of the last ones; `None` when
    /// it is over.
    fn step(&self, progress: Option<&str>) {
        let _ = progress;
    }
    /// Tells whether the user asked to stop: asked at least every 100 ms while something is waited for.
    fn is_stopped(&self) -> bool;
}

/// A blob or document that goes over the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transfer<'a> {
    /// Which way.
    pub direction: Direction,
    /// What it is, as `layer sha256:0123456789ab`.
    pub what: &'a str,
    /// The registry and repository, or the package index.
    pub repository: &'a str,
    /// The size in bytes.
    pub size: u64,
}

/// Which way a transfer goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// From the other side.
    Pull,
    /// To the registry.
    Push,
    /// To a daemon, of this machine as a rule.
    Load,
}

/// What became of a transfer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// The bytes went over the wire.
    Done,
    /// The registry took the blob from another of its repositories.
    Mounted,
    /// It was there already.
    Skipped,
    /// It failed.
    Failed,
}

/// A transfer under way. Dropped before it ended, it has failed.
pub(crate) struct Going<'a> {
    monitor: &'a dyn Monitor,
    number: u64,
    is_over: bool,
}

impl<'a> Going<'a> {
    pub(crate) fn start(monitor: &'a dyn Monitor, transfer: &Transfer<'_>) -> Self {
        Self {
            monitor,
            number: monitor.start(transfer),
            is_over: false,
        }
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn end(mut self, outcome: Ended) {
        self.is_over = true;
        self.monitor.end(self.number, outcome);
    }
}

impl Drop for Going<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.monitor.end(self.number, Ended::Failed);
        }
    }
}
