//! What one store gives another for a build of its own: the bytes that `image.lock` names, and nothing that was made of
//! them.

use super::base;
use crate::graph::{ActionError, Parts};
use crate::lock::Lock;
use crate::store::{Blob, Store};

/// A cache, and what is remembered in it.
pub(crate) type Cache<'a> = (&'a Store, &'a dyn Parts);

/// Gives `to` all that `from` has of what a lock names: documents and layers of bases, and wheels. Each is hashed.
///
/// # Errors
/// When a store cannot be read or written, or something is damaged.
pub(crate) fn lend(lock: &Lock, from: Cache<'_>, to: Cache<'_>) -> Result<(), ActionError> {
    for pin in lock.bases.values() {
        base::lend(pin, from, to)?;
    }
    for pin in lock.pips.values().flat_map(|pip| pip.targets.values()) {
        for wheel in pin.values() {
            // Without a size it cannot be told whether the store has it.
            if let Some(size) = wheel.size {
                let digest = wheel.sha256;
                from.0.lend(&Blob { digest, size }, to.0)?;
            }
        }
    }
    Ok(())
}
