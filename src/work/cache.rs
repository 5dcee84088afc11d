//! `cache`: what is in the cache, and looking after it.

use std::path::PathBuf;

use super::{Blame, Failed, Session};
use crate::runtime;
use crate::store::{Collected, Info, Store, StoreError, Verified};

/// What is in the cache.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn info(session: &Session) -> Result<(PathBuf, Info), Failed> {
    let root = session.cache()?;
    let store = Store::open(root).map_err(unusable)?;
    Ok((root.to_owned(), store.info().map_err(unusable)?))
}

/// Removes what was not used for the longest time, until no more than `max_size` bytes are left, and what `run` left.
/// Returns what was removed, and how many images unpacked to be run.
///
/// # Errors
/// When it cannot be used.
pub(crate) fn gc(session: &Session, max_size: u64) -> Result<(Collected, u64), Failed> {
    let store = alone(session)?;
    let gone = store.gc(max_size).map_err(unusable)?;
    Ok((gone, remove_leftovers(&store)?))
}

/// Hashes everything, and removes what is damaged.
///
/// # Errors
/// When it cannot be used, or the user stopped it.
pub(crate) fn verify(session: &Session) -> Result<Verified, Failed> {
    let go_on = |_: u64| !session.stop.is_asked();
    let verified = alone(session)?.verify(&go_on);
    session.go_on()?;
    verified.map_err(unusable)
}

/// Removes everything.
///
/// # Errors
/// When it cannot be used.
pub(crate) fn clear(session: &Session) -> Result<(), Failed> {
    let store = alone(session)?;
    store.clear().map_err(unusable)?;
    remove_leftovers(&store).map(drop)
}

fn alone(session: &Session) -> Result<Store, Failed> {
    Store::open_alone(session.cache()?).map_err(unusable)
}

/// Removes what `run` left there: it is unpacked again when it is needed.
fn remove_leftovers(store: &Store) -> Result<u64, Failed> {
    let removed = runtime::remove_leftovers(store);
    removed.map_err(|error| Failed::error(Blame::Build, "imgdecl::cache", &error, None))
}

fn unusable(error: StoreError) -> Failed {
    Failed::error(Blame::Build, error.code(), &error, None)
}
