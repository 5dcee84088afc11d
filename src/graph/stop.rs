//! The wish of the user to stop, as all see it that works for one command.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Set once the user asks to stop. Clones are the same wish. Whoever works for long asks at least every 100 ms.
#[derive(Clone, Default, Debug)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Asks to stop. Returns whether that was asked for before.
    pub(crate) fn ask(&self) -> bool {
        self.0.swap(true, Ordering::Relaxed)
    }

    /// Tells whether the user asked to stop.
    pub(crate) fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
