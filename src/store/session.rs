//! The temporary folder of one process. A process that died leaves its folder; the next one to come removes it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::StoreError;

/// A locked temporary folder: `NAME/`, and the lock file `NAME.lock` that says its process lives.
pub(super) struct Session {
    folder: PathBuf,
    lock: PathBuf,
    _held: File,
}

impl Session {
    pub(super) fn start(tmp: &Path) -> Result<Self, StoreError> {
        sweep(tmp);
        let fail = |path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::Io {
                doing: "write",
                path,
                source,
            }
        };
        loop {
            let lock = tempfile::Builder::new()
                .prefix("")
                .suffix(".lock")
                .tempfile_in(tmp)
                .map_err(fail(tmp))?;
            // Between its making and this call a sweep of another process may have taken the file.
            if lock.as_file().try_lock().is_err() || !lock.path().exists() {
                continue;
            }
            let (held, lock) = lock.keep().map_err(|error| fail(tmp)(error.error))?;
            let folder = lock.with_extension("");
            fs::create_dir(&folder).map_err(fail(&folder))?;
            return Ok(Self {
                folder,
                lock,
                _held: held,
            });
        }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
        let _ = fs::remove_file(&self.lock);
    }
}

/// Removes what dead processes left. Whatever fails is left to the next sweep.
fn sweep(tmp: &Path) {
    for entry in fs::read_dir(tmp).into_iter().flatten().flatten() {
        let lock = entry.path();
        if lock.extension().is_none_or(|extension| extension != "lock") {
            continue;
        }
        let Ok(file) = File::options().append(true).open(&lock) else {
            continue;
        };
        if file.try_lock().is_ok() {
            let _ = fs::remove_dir_all(lock.with_extension(""));
            let _ = fs::remove_file(&lock);
        }
    }
}
