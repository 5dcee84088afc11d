//! Locks by action key, so that equal actions of several processes run once.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::{LOCKS, Store, StoreError};
use crate::oci::Digest;

/// The right to run an action. The lock file vanishes with it; the kernel frees the lock of a process that died.
///
/// In a store that cannot be written it keeps nobody away: there is nothing to be written twice.
pub struct KeyLock(Option<(PathBuf, File)>);

impl Store {
    /// Takes the lock for `key`; `None` if another process, or another thread, holds it.
    ///
    /// # Errors
    /// When the lock file cannot be made.
    pub fn try_lock(&self, key: &Digest) -> Result<Option<KeyLock>, StoreError> {
        if self.refused.is_some() {
            return Ok(Some(KeyLock(None)));
        }
        let path = self.root.join(LOCKS).join(key.hex());
        let fail = |source| StoreError::Io {
            doing: "lock",
            path: path.clone(),
            source,
        };
        loop {
            let file = File::options()
                .create(true)
                .append(true)
                .open(&path)
                .map_err(fail)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(fail(error)),
            }
            // The one who held the lock removed the file before letting go. A lock on a removed file locks nothing.
            let locked = file.metadata().map_err(fail)?.ino();
            match fs::metadata(&path) {
                Ok(metadata) if metadata.ino() == locked => {
                    return Ok(Some(KeyLock(Some((path, file)))));
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(fail(error)),
            }
        }
    }
}

impl Drop for KeyLock {
    fn drop(&mut self) {
        if let Some((path, _)) = &self.0 {
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let key = Digest::of(b"key");
        let held = store.try_lock(&key).unwrap().unwrap();
        assert!(store.try_lock(&key).unwrap().is_none());
        assert!(store.try_lock(&Digest::of(b"other")).unwrap().is_some());
        drop(held);
        drop(store.try_lock(&key).unwrap().unwrap());
        assert_eq!(fs::read_dir(folder.path().join(LOCKS)).unwrap().count(), 0);
    }
}
