//! A folder that is there as a whole or not at all: it is filled beside its place, and moved there in the end.
//!
//! What a killed process left is removed by the next one that wants the same place.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FlockOperation, Mode, OFlags, fchmod, flock, fstat, mkdirat, openat, renameat, statat,
    unlinkat,
};
use rustix::io::Errno;

use super::ApplyError;
use super::root::{FOLDER, Folder, OURS, RemoveAll, visit};

/// A new folder that is not in its place yet. Dropped before that, it goes away.
pub(crate) struct StagingFolder {
    /// The folder that holds it.
    parent: Folder,
    /// The folder itself: open and locked as long as we write.
    own: Folder,
    /// Its name until it is whole.
    name: OsString,
    /// Its place.
    target: PathBuf,
    path: PathBuf,
    is_done: bool,
}

impl StagingFolder {
    /// Makes a folder for the place `target`, which must be free, or an empty folder.
    ///
    /// # Errors
    /// When something is there, the folder above is missing, or another process makes the same folder.
    pub(crate) fn new(target: &Path) -> Result<Self, ApplyError> {
        let fail = |what: &str, error: io::Error| {
            ApplyError::io(format!("{what} {}", target.display()), error)
        };
        let target = match fs::canonicalize(target) {
            Ok(real) => {
                let is_empty = fs::read_dir(&real).is_ok_and(|mut it| it.next().is_none());
                if !is_empty {
                    return Err(ApplyError::Exists(target.to_owned()));
                }
                real
            }
            Err(_) if fs::symlink_metadata(target).is_ok() => {
                return Err(ApplyError::Exists(target.to_owned()));
            }
            Err(_) => target.to_owned(),
        };
        let Some(own_name) = target.file_name() else {
            let why = "it has no name";
            return Err(ApplyError::Place { path: target, why });
        };
        let above = match target.parent() {
            Some(above) if !above.as_os_str().is_empty() => above.to_owned(),
            _ => PathBuf::from("."),
        };
        let mut name = OsString::from(".");
        name.push(own_name);
        name.push(".imgdecl-unpack");
        let flags = FOLDER.difference(OFlags::NOFOLLOW);
        let parent = rustix::fs::open(&above, flags, Mode::empty());
        let parent = parent.map_err(io::Error::from).and_then(Folder::new);
        let parent = parent.map_err(|error| fail("open the folder above", error))?;
        let path = above.join(&name);
        let own = claim(&parent, &name, &path, &target)?;
        Ok(Self {
            parent,
            own,
            name,
            target,
            path,
            is_done: false,
        })
    }

    /// Returns where the folder is until it is whole.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a folder in it, and returns where that is.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf, ApplyError> {
        let path = self.path.join(name);
        match mkdirat(&self.own.fd, name, OURS) {
            Ok(()) => Ok(path),
            Err(error) => Err(ApplyError::io(format!("make {}", path.display()), error)),
        }
    }

    /// Writes a file in it, which all may read.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), ApplyError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let write = || {
            let mut file = fs::File::from(openat(&self.own.fd, name, flags, Mode::RUSR)?);
            file.write_all(bytes)?;
            fchmod(&file, Mode::from_raw_mode(0o644))?;
            io::Result::Ok(())
        };
        let what = || format!("write {}", self.path.join(name).display());
        write().map_err(|error| ApplyError::io(what(), error))
    }

    /// Lets all read it, once it is in its place.
    ///
    /// # Errors
    /// When its mode cannot be set.
    pub(crate) fn open_to_all(&self) -> Result<(), ApplyError> {
        let what = || format!("set the mode of {}", self.path.display());
        fchmod(&self.own.fd, Mode::from_raw_mode(0o755))
            .map_err(|error| ApplyError::io(what(), error))
    }

    /// Puts the folder in its place.
    ///
    /// # Errors
    /// When something came there meanwhile, or it is a mount point.
    pub(crate) fn commit(mut self) -> Result<(), ApplyError> {
        let target = self.target.file_name().unwrap_or_default();
        match renameat(&self.parent.fd, &self.name, &self.parent.fd, target) {
            Ok(()) => {
                self.is_done = true;
                Ok(())
            }
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {
                Err(ApplyError::Exists(self.target.clone()))
            }
            Err(Errno::BUSY) => Err(ApplyError::Place {
                path: self.target.clone(),
                why: "something is mounted there; name a folder below it",
            }),
            Err(error) => {
                let what = format!("move what was unpacked to {}", self.target.display());
                Err(ApplyError::io(what, error))
            }
        }
    }
}

impl Drop for StagingFolder {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        // It may have lost its mode bits already. Where removing fails, the next process tries again.
        let _ = fchmod(&self.own.fd, OURS);
        let again = self.own.open(b".");
        if again.is_ok_and(|own| visit(own, &mut RemoveAll).is_ok()) {
            let _ = unlinkat(&self.parent.fd, &self.name, AtFlags::REMOVEDIR);
        }
    }
}

/// Makes the folder, or takes over what a killed process left; it is ours alone, empty and locked.
fn claim(
    parent: &Folder,
    name: &OsString,
    path: &Path,
    target: &Path,
) -> Result<Folder, ApplyError> {
    let fail = |error: io::Error| ApplyError::io(format!("make {}", path.display()), error);
    // Another process may move or remove its own between two steps: then there is a new one.
    for _ in 0..10 {
        match mkdirat(&parent.fd, name, OURS) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(fail(error.into())),
        }
        let own = match openat(&parent.fd, name, FOLDER, Mode::empty()) {
            Ok(fd) => Folder::new(fd).map_err(fail)?,
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(fail(error.into())),
        };
        let is_ours = fstat(&own.fd).map_err(|error| fail(error.into()))?.st_uid
            == rustix::process::geteuid().as_raw();
        if !is_ours {
            return Err(ApplyError::Place {
                path: path.to_owned(),
                why: "it belongs to someone else",
            });
        }
        match flock(&own.fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::AGAIN) => return Err(ApplyError::Busy(target.to_owned())),
            Err(error) => return Err(fail(error.into())),
        }
        match statat(&parent.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if stat.st_ino == own.inode => {}
            _ => continue,
        }
        fchmod(&own.fd, OURS).map_err(|error| fail(error.into()))?;
        let again = own.open(b".").map_err(fail)?;
        visit(again, &mut RemoveAll).map_err(fail)?;
        return Ok(own);
    }
    Err(ApplyError::Busy(target.to_owned()))
}
