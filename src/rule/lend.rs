//! What one store gives another for a build of its own: the bytes that `image.lock` names, and nothing that was made of
//! them.

use super::RULES;
use crate::graph::{ActionError, Parts};
use crate::lock::Lock;
use crate::store::Store;

/// A cache, and what is remembered in it.
pub(crate) type Cache<'a> = (&'a Store, &'a dyn Parts);

/// Gives `to` all that `from` has of what a lock names: documents and layers of bases, and packages. Each is hashed.
///
/// # Errors
/// When a store cannot be read or written, or something is damaged.
pub(crate) fn lend(lock: &Lock, from: Cache<'_>, to: Cache<'_>) -> Result<(), ActionError> {
    RULES.iter().try_for_each(|rule| rule.lend(lock, from, to))
}
