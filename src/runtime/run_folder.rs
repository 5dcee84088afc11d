//! The folder of one run: for its bundle, its root and the runtime's state. All of it goes when the run is over; a
//! run that was killed leaves it to the next one.

use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::mount::{MountFlags, UnmountFlags};

use super::oci_runtime::{Handle, OciRuntime, REMOVAL};
use super::root::{FOLDER, Folder, OURS, RemoveAll, visit};
use crate::store::Store;

/// A folder that belongs to one run.
pub(super) struct RunFolder {
    path: PathBuf,
    /// The container's name, for the runtime.
    id: String,
    /// Held as long as the run lasts: the kernel lets go of it, whatever happens.
    _lock: File,
}

const LOCK: &str = "lock";
const RUNTIME: &str = "engine";

impl RunFolder {
    /// Makes a folder in the folder of all runs, and removes those that were left behind.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub(super) fn new(runs: &Path) -> io::Result<Self> {
        fs::create_dir_all(runs)?;
        // A folder without a lock is one that was left behind: so nobody looks while one is made.
        let _all = lock(runs)?;
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
    pub(super) fn note(&self, oci_runtime: &OciRuntime) -> io::Result<()> {
        use std::os::unix::ffi::OsStrExt;
        let path = oci_runtime.path().as_os_str().as_bytes();
        #[expect(clippy::disallowed_methods, reason = "in a folder of this run alone")]
        fs::write(self.path.join(RUNTIME), path)
    }

    /// Lets the runtime remove the container, with all that still runs in it.
    pub(super) fn remove_container(&self, time: Duration) {
        if let Ok(oci_runtime) = fs::read(self.path.join(RUNTIME)) {
            let oci_runtime = OciRuntime::at(std::ffi::OsString::from_vec(oci_runtime).into());
            let _ = self.with(|handle| oci_runtime.delete(handle, time));
            self.forget();
        }
    }

    /// Forgets the runtime: it was let clean up, and is not asked again.
    pub(super) fn forget(&self) {
        let _ = fs::remove_file(self.path.join(RUNTIME));
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
        // What changed is read in the upper folder: it must hold every change itself, and none by name.
        let plain = [&data[..], b",redirect_dir=off,metacopy=off,index=off"].concat();
        let mount = |data: Vec<u8>| -> io::Result<()> {
            let data = std::ffi::CString::new(data)?;
            let (root, options) = (self.root(), MountFlags::empty());
            rustix::mount::mount(c"overlay", root, c"overlay", options, data.as_c_str())?;
            Ok(())
        };
        mount(plain)
    }

    /// Returns the folder that holds what was changed on top of what [`Self::overlay`] put below.
    pub(super) fn upper(&self) -> PathBuf {
        self.path.join("upper")
    }

    /// Takes the container's root away again, so that its changes can be read.
    ///
    /// # Errors
    /// When someone still uses it.
    pub(super) fn unmount(&self) -> io::Result<()> {
        rustix::mount::unmount(self.root(), UnmountFlags::NOFOLLOW)?;
        Ok(())
    }
}

/// Removes what runs left in a store that nobody else uses: folders of runs that were killed, and the roots of images,
/// which are unpacked again when they are needed. Returns how many there were.
///
/// # Errors
/// When something cannot be removed.
pub(crate) fn remove_leftovers(store: &Store) -> io::Result<u64> {
    let folders = |path: &Path| match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        found => found?
            .map(|entry| entry.map(|entry| entry.path()))
            .filter(|path| path.as_ref().is_ok_and(|path| path.is_dir()))
            .collect::<io::Result<Vec<PathBuf>>>(),
    };
    let runs = store.runs();
    let run_folders = folders(&runs)?;
    if !run_folders.is_empty() {
        let _all = lock(&runs)?;
        sweep(&runs)?;
    }
    let roots = folders(&store.roots())?;
    roots.iter().try_for_each(|root| remove(root))?;
    Ok((run_folders.len() + roots.len()) as u64)
}

/// Keeps others from making and sweeping them.
fn lock(runs: &Path) -> io::Result<File> {
    let all = File::options()
        .create(true)
        .append(true)
        .open(runs.join(LOCK))?;
    all.lock()?;
    Ok(all)
}

impl Drop for RunFolder {
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

/// Removes the folders of runs that are over.
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

/// Ends what runs in the folder of a run, and removes it.
fn clear(path: &Path, id: &str) -> io::Result<()> {
    use std::os::unix::ffi::OsStringExt;
    if let Ok(oci_runtime) = fs::read(path.join(RUNTIME)) {
        let oci_runtime = OciRuntime::at(std::ffi::OsString::from_vec(oci_runtime).into());
        let _ = with(path, id, |handle| oci_runtime.delete(handle, REMOVAL));
    }
    detach(path)?;
    remove(path)
}

/// How many mounts of one run are detached.
const MAX_MOUNTS: usize = 100_000;

/// Detaches all that is mounted in the folder of a run: its own root, and what a process without a mount namespace put
/// there. What is mounted does not belong to the run, and must not be removed with it.
fn detach(path: &Path) -> io::Result<()> {
    let path = fs::canonicalize(path)?;
    for _ in 0..MAX_MOUNTS {
        // The last one may stand on those before it.
        let Some(point) = mounts(&path)?.pop() else {
            return Ok(());
        };
        rustix::mount::unmount(point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
    }
    Err(io::Error::other("too much is mounted there"))
}

/// Returns where something is mounted below a folder, in the order of mounting (proc(5), `/proc/PID/mountinfo`).
fn mounts(folder: &Path) -> io::Result<Vec<PathBuf>> {
    use std::os::unix::ffi::OsStringExt;
    let table = fs::read("/proc/self/mountinfo")?;
    let points = table.split(|byte| *byte == b'\n').filter_map(|line| {
        let point = line.split(|byte| *byte == b' ').nth(4)?;
        Some(PathBuf::from(std::ffi::OsString::from_vec(plain(point))))
    });
    Ok(points.filter(|point| point.starts_with(folder)).collect())
}

/// Takes the escapes out of a path of a table of mounts: `\040` is a space.
fn plain(escaped: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(escaped.len());
    let mut rest = escaped;
    while let [byte, after @ ..] = rest {
        let code = match (byte, after) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..]) => {
                Some(((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'))
            }
            _ => None,
        };
        plain.push(code.unwrap_or(*byte));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    plain
}

/// Removes a folder and all in it: also where a container took its rights away, and however deep it nested folders.
fn remove(path: &Path) -> io::Result<()> {
    rustix::fs::chmodat(rustix::fs::CWD, path, OURS, rustix::fs::AtFlags::empty())?;
    let top = Folder::new(rustix::fs::open(path, FOLDER, rustix::fs::Mode::empty())?)?;
    visit(top, &mut RemoveAll)?;
    fs::remove_dir(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_folder_goes_with_its_run_and_those_left_behind_with_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let runs = folder.path().join("runs");
        let run_folders = || {
            let all = fs::read_dir(&runs).unwrap();
            all.filter(|it| it.as_ref().unwrap().path().is_dir())
                .count()
        };
        let run_folder = RunFolder::new(&runs).unwrap();
        fs::create_dir_all(run_folder.root()).unwrap();
        let other = RunFolder::new(&runs).unwrap();
        assert_eq!(run_folders(), 2);
        drop(run_folder);
        assert_eq!(run_folders(), 1);
        // As after a kill: the lock is gone, the folder is not.
        fs::create_dir_all(runs.join("imgdecl-old/bundle/rootfs/a")).unwrap();
        fs::write(runs.join("imgdecl-old/lock"), "").unwrap();
        let third = RunFolder::new(&runs).unwrap();
        assert_eq!(run_folders(), 2);
        drop((other, third));
        assert_eq!(run_folders(), 0);
    }

    #[test]
    fn what_is_mounted_in_a_run_folder_is_not_removed_with_it() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let host = folder.path().join("of the host");
        fs::create_dir(&host).unwrap();
        fs::write(host.join("file"), "precious").unwrap();
        let runs = folder.path().join("runs");
        let run_folder = RunFolder::new(&runs).unwrap();
        let inside = run_folder.root().join("a b");
        fs::create_dir_all(&inside).unwrap();
        // As a process does that runs by chroot, in our own mount namespace.
        let mounted = rustix::mount::mount_bind(&host, &inside);
        let is_mounted = mounted.is_ok() && inside.join("file").exists();
        drop(run_folder);
        assert_eq!(fs::read_to_string(host.join("file")).unwrap(), "precious");
        assert_eq!(mounts(&fs::canonicalize(&runs).unwrap()).unwrap().len(), 0);
        assert_eq!(fs::read_dir(&runs).unwrap().count(), 1, "{is_mounted}");
    }

    #[test]
    fn a_run_folder_goes_however_deep_its_folders_are() {
        let folder = tempfile::tempdir().unwrap();
        let run_folder = RunFolder::new(folder.path()).unwrap();
        fs::create_dir_all(run_folder.root()).unwrap();
        let open = |path: &Path| rustix::fs::open(path, FOLDER, rustix::fs::Mode::empty());
        let mut at = open(&run_folder.root()).unwrap();
        // More than a process may have open, as a rule; and more than fits into a path.
        for _ in 0..5000 {
            rustix::fs::mkdirat(&at, "d", rustix::fs::Mode::RWXU).unwrap();
            at = rustix::fs::openat(&at, "d", FOLDER, rustix::fs::Mode::empty()).unwrap();
        }
        let path = run_folder.path.clone();
        drop(run_folder);
        assert!(!path.exists());
    }

    #[test]
    fn a_store_that_nobody_uses_is_tidied_up() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        assert_eq!(remove_leftovers(&store).unwrap(), 0);
        let root = store.root_path(&crate::oci::Digest::of(b"x")).unwrap();
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::set_permissions(root.join("a"), fs::Permissions::from_mode(0o000)).unwrap();
        fs::set_permissions(&root, fs::Permissions::from_mode(0o555)).unwrap();
        // Programs of images that make anyone root are nobody's on the host.
        let mode = fs::metadata(store.roots()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        assert_eq!(store.info().unwrap().roots, 1);
        fs::create_dir_all(store.runs().join("imgdecl-old/bundle")).unwrap();
        let held = RunFolder::new(&store.runs()).unwrap();
        assert_eq!(remove_leftovers(&store).unwrap(), 2);
        assert!(held.path.exists() && !root.exists());
    }

    #[test]
    fn paths_of_mounts() {
        for (escaped, expected) in [
            ("/a", "/a"),
            ("/a\\040b\\134", "/a b\\"),
            ("/\\9", "/\\9"),
            ("\\04", "\\04"),
        ] {
            assert_eq!(plain(escaped.as_bytes()), expected.as_bytes());
        }
    }
}
