//! The room of one run: a folder for its bundle, its root and the runtime's state. All of it goes when the run is over; a
//! run that was killed leaves it to the next one.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags};

use super::engine::{Engine, Handle};

/// A folder that belongs to one run.
pub(super) struct Room {
    path: PathBuf,
    /// The container's name, for the runtime.
    id: String,
    /// Held as long as the run lasts: the kernel lets go of it, whatever happens.
    _lock: File,
}

const LOCK: &str = "lock";
const ENGINE: &str = "engine";

impl Room {
    /// Makes a room in the folder of all runs, and removes those that were left behind.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub(super) fn new(runs: &Path) -> io::Result<Self> {
        fs::create_dir_all(runs)?;
        // A room without a lock is one that was left behind: so nobody looks while one is made.
        let all = File::options()
            .create(true)
            .append(true)
            .open(runs.join(LOCK))?;
        all.lock()?;
        sweep(runs)?;
        let folder = tempfile::Builder::new()
            .prefix("imgdecl-")
            .tempdir_in(runs)?;
        let lock = File::options()
            .create(true)
            .append(true)
            .open(folder.path().join(LOCK))?;
        lock.lock()?;
        let path = folder.keep();
        let id = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        Ok(Self {
            path,
            id,
            _lock: lock,
        })
    }

    /// Returns where the bundle is.
    pub(super) fn bundle(&self) -> PathBuf {
        self.path.join("bundle")
    }

    /// Returns where the container's root is.
    pub(super) fn root(&self) -> PathBuf {
        self.bundle().join("rootfs")
    }

    /// Returns where the process's number is written.
    pub(super) fn pid(&self) -> PathBuf {
        self.path.join("pid")
    }

    /// Calls `use_` with what the runtime is told of the container.
    pub(super) fn with<T>(&self, use_: impl FnOnce(Handle<'_>) -> T) -> T {
        with(&self.path, &self.id, use_)
    }

    /// Notes which runtime has the container, for whoever cleans up.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn note(&self, engine: &Engine) -> io::Result<()> {
        use std::os::unix::ffi::OsStrExt;
        let path = engine.path().as_os_str().as_bytes();
        #[expect(clippy::disallowed_methods, reason = "in a folder of this run alone")]
        fs::write(self.path.join(ENGINE), path)
    }

    /// Puts a folder that nobody changes below the container's root, so that what the container writes goes elsewhere.
    ///
    /// # Errors
    /// When the kernel or the file system cannot do it.
    pub(super) fn overlay(&self, below: &Path) -> io::Result<()> {
        use std::os::unix::ffi::OsStrExt;
        let (upper, work) = (self.path.join("upper"), self.path.join("work"));
        for folder in [&upper, &work, &self.root()] {
            fs::create_dir_all(folder)?;
        }
        // The root itself looks like the upper folder.
        let metadata = fs::metadata(below)?;
        fs::set_permissions(&upper, metadata.permissions())?;
        let (uid, gid) = {
            use std::os::unix::fs::MetadataExt;
            (metadata.uid(), metadata.gid())
        };
        std::os::unix::fs::chown(&upper, Some(uid), Some(gid))?;
        let mut data = Vec::new();
        for (name, folder) in [
            ("lowerdir=", below),
            (",upperdir=", &upper),
            (",workdir=", &work),
        ] {
            let path = folder.as_os_str().as_bytes();
            if path.iter().any(|byte| b",:\\\"".contains(byte)) {
                return Err(io::Error::other(
                    "the path has a character that mount options cannot hold",
                ));
            }
            data.extend_from_slice(name.as_bytes());
            data.extend_from_slice(path);
        }
        let data = std::ffi::CString::new(data)?;
        rustix::mount::mount(
            c"overlay",
            self.root(),
            c"overlay",
            MountFlags::empty(),
            data.as_c_str(),
        )?;
        Ok(())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // What cannot be removed now, the next run removes.
        let _ = clear(&self.path, &self.id);
    }
}

fn with<T>(path: &Path, id: &str, use_: impl FnOnce(Handle<'_>) -> T) -> T {
    let (state, log) = (path.join("state"), path.join("log"));
    use_(Handle {
        id,
        state: &state,
        log: &log,
    })
}

/// Removes the rooms of runs that are over.
fn sweep(runs: &Path) -> io::Result<()> {
    for entry in fs::read_dir(runs)? {
        let path = entry?.path();
        if !path.is_dir() {
            continue;
        }
        let lock = File::options().append(true).open(path.join(LOCK));
        // Someone runs there.
        if lock.as_ref().is_ok_and(|lock| lock.try_lock().is_err()) {
            continue;
        }
        let id = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let _ = clear(&path, &id);
    }
    Ok(())
}

/// Ends what runs in a room, and removes it.
fn clear(path: &Path, id: &str) -> io::Result<()> {
    use std::os::unix::ffi::OsStringExt;
    if let Ok(engine) = fs::read(path.join(ENGINE)) {
        let engine = Engine::at(std::ffi::OsString::from_vec(engine).into());
        let _ = with(path, id, |handle| engine.delete(handle));
    }
    // It is a mount for root alone; for everyone else this fails, as it may.
    let _ = rustix::mount::unmount(path.join("bundle/rootfs"), UnmountFlags::DETACH);
    remove(path)
}

/// Removes a folder and all in it, also where a container took its rights away.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_folders(path)?;
            fs::remove_dir_all(path)
        }
        done => done,
    }
}

fn open_folders(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_folders(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_goes_with_its_run_and_those_left_behind_with_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let runs = folder.path().join("runs");
        let rooms = || {
            let all = fs::read_dir(&runs).unwrap();
            all.filter(|it| it.as_ref().unwrap().path().is_dir())
                .count()
        };
        let room = Room::new(&runs).unwrap();
        fs::create_dir_all(room.root()).unwrap();
        let other = Room::new(&runs).unwrap();
        assert_eq!(rooms(), 2);
        drop(room);
        assert_eq!(rooms(), 1);
        // As after a kill: the lock is gone, the folder is not.
        fs::create_dir_all(runs.join("imgdecl-old/bundle/rootfs/a")).unwrap();
        fs::write(runs.join("imgdecl-old/lock"), "").unwrap();
        let third = Room::new(&runs).unwrap();
        assert_eq!(rooms(), 2);
        drop((other, third));
        assert_eq!(rooms(), 0);
    }
}
