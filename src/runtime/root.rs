//! A folder that becomes the root of a container: finds folders in it as the container will, and never leaves it.
//!
//! Paths are resolved by the kernel, with `openat2` and RESOLVE_IN_ROOT; or name by name, where it lacks that. Walks
//! hold two folders open at most, however deep a tree is. Knows nothing of layers.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, fchmod, fstat, mkdirat, openat, openat2,
    readlinkat, statat,
};
use rustix::io::Errno;

use super::ApplyError;

/// How many symlinks one path may lead through, as in the kernel.
const MAX_LINKS: usize = 40;

/// How a folder is opened: to be read, and never through a symlink.
pub(super) const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// The mode of folders while they are filled.
pub(super) const OURS: Mode = Mode::RWXU;

/// An open folder.
pub(super) struct Folder {
    pub(super) fd: OwnedFd,
    /// Its number in the file system, by which we know it again.
    pub(super) inode: u64,
}

impl Folder {
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        let inode = fstat(&fd)?.st_ino;
        Ok(Self { fd, inode })
    }

    /// Opens the folder `name` in this one.
    pub(super) fn open(&self, name: &[u8]) -> io::Result<Self> {
        Self::new(openat(&self.fd, name, FOLDER, Mode::empty())?)
    }
}

/// A root.
pub(super) struct Root {
    top: Rc<Folder>,
    /// The kernel resolves paths in a root.
    resolves: Cell<bool>,
}

/// Told of each folder that is made on the way: the folder that it is in, its name, its number.
pub(super) type Made<'a> = &'a mut dyn FnMut(u64, &[u8], u64);

/// What a walk by names ends at.
enum End {
    Folder(Folder),
    /// A file or anything else that is neither folder nor symlink, in its folder.
    Other(Folder, Vec<u8>),
}

impl Root {
    /// Opens the folder `path`.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = FOLDER.difference(OFlags::NOFOLLOW);
        let fd = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Self {
            top: Rc::new(Folder::new(fd)?),
            resolves: Cell::new(true),
        })
    }

    /// The root itself.
    pub(super) fn top(&self) -> Rc<Folder> {
        self.top.clone()
    }

    /// Finds the folder that `path` leads to, symlinks and all. `None` where there is none.
    pub(super) fn find(&self, path: &[u8]) -> io::Result<Option<Folder>> {
        match self.resolve(path, FOLDER.difference(OFlags::NOFOLLOW)) {
            Some(Ok(fd)) => return Folder::new(fd).map(Some),
            // The kernel ends at what is missing; a `..` behind it may lead back.
            Some(Err(Errno::NOENT)) | None => {}
            Some(Err(error)) => return Err(error.into()),
        }
        match self.walk(path, None)? {
            Some(End::Folder(folder)) => Ok(Some(folder)),
            Some(End::Other(..)) => Err(Errno::NOTDIR.into()),
            None => Ok(None),
        }
    }

    /// Finds the folder that `path` leads to, and makes it and those above it where they are missing.
    pub(super) fn make(&self, path: &[u8], made: Made<'_>) -> io::Result<Folder> {
        match self.resolve(path, FOLDER.difference(OFlags::NOFOLLOW)) {
            Some(Ok(fd)) => return Folder::new(fd),
            Some(Err(Errno::NOENT)) | None => {}
            Some(Err(error)) => return Err(error.into()),
        }
        match self.walk(path, Some(made))? {
            Some(End::Folder(folder)) => Ok(folder),
            Some(End::Other(..)) => Err(Errno::NOTDIR.into()),
            None => Err(Errno::NOENT.into()),
        }
    }

    /// Opens the regular file that `path` leads to. `None` where there is none.
    pub(super) fn file(&self, path: &[u8]) -> io::Result<Option<File>> {
        // A device of the image is one of the host: opening it may rewind a tape, or start a watchdog. So it is looked at
        // before it is opened.
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let fd = match self.resolve(path, flags) {
            Some(Err(Errno::NOENT | Errno::NOTDIR)) => return Ok(None),
            Some(fd) => fd?,
            None => match self.walk(path, None)? {
                Some(End::Other(folder, name)) => {
                    openat(&folder.fd, name, flags | OFlags::NOFOLLOW, Mode::empty())?
                }
                Some(End::Folder(folder)) => folder.fd,
                None => return Ok(None),
            },
        };
        if FileType::from_raw_mode(fstat(&fd)?.st_mode) != FileType::RegularFile {
            return Err(io::Error::other("it is no regular file"));
        }
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        File::open(path).map(Some)
    }

    /// Lets the kernel resolve a path. `None` where it cannot.
    fn resolve(&self, path: &[u8], flags: OFlags) -> Option<Result<OwnedFd, Errno>> {
        if !self.resolves.get() {
            return None;
        }
        let path = if path.is_empty() { b"." } else { path };
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        match openat2(&self.top.fd, path, flags, Mode::empty(), how) {
            // Old kernels lack it, and old sandboxes forbid it.
            Err(Errno::NOSYS | Errno::PERM) => {
                self.resolves.set(false);
                None
            }
            // Something was renamed meanwhile, anywhere on the machine.
            Err(Errno::AGAIN) => None,
            other => Some(other),
        }
    }

    /// Resolves a path name by name, as containerd does: a `..` takes the name before it off, be it there or not. Missing
    /// folders are made where `made` is given. `None` where something is missing.
    fn walk(&self, path: &[u8], made: Option<Made<'_>>) -> io::Result<Option<End>> {
        let names = |path: &[u8]| -> Vec<Vec<u8>> {
            let names = path.split(|byte| *byte == b'/');
            let names = names.filter(|name| !name.is_empty() && *name != b".");
            names.map(<[u8]>::to_vec).collect()
        };
        let top = || Folder::new(self.top.fd.try_clone()?);
        let mut ahead: VecDeque<Vec<u8>> = names(path).into();
        // The real names of the folder that was reached: none of them is a symlink.
        let mut real: Vec<Vec<u8>> = Vec::new();
        // The names below it that are not there.
        let mut missing: Vec<Vec<u8>> = Vec::new();
        let mut links = 0;
        let mut at = top()?;
        while let Some(name) = ahead.pop_front() {
            if !missing.is_empty() {
                match &name[..] {
                    b".." => drop(missing.pop()),
                    _ => missing.push(name),
                }
                continue;
            }
            if name == b".." {
                // The root is its own parent.
                real.pop();
                at = top()?;
                for name in &real {
                    at = at.open(name)?;
                }
                continue;
            }
            match at.open(&name) {
                Ok(next) => {
                    at = next;
                    real.push(name);
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    missing.push(name);
                    continue;
                }
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::LOOP | Errno::NOTDIR) => {}
                    _ => return Err(error),
                },
            }
            let target = match readlinkat(&at.fd, &name[..], Vec::new()) {
                Ok(target) => target.into_bytes(),
                Err(Errno::INVAL) if ahead.is_empty() => return Ok(Some(End::Other(at, name))),
                Err(Errno::INVAL) => return Err(Errno::NOTDIR.into()),
                Err(error) => return Err(error.into()),
            };
            links += 1;
            if links > MAX_LINKS {
                return Err(Errno::LOOP.into());
            }
            if target.starts_with(b"/") {
                real.clear();
                at = top()?;
            }
            for name in names(&target).into_iter().rev() {
                ahead.push_front(name);
            }
        }
        if !missing.is_empty() {
            let Some(made) = made else {
                return Ok(None);
            };
            for name in missing {
                mkdirat(&at.fd, &name[..], OURS)?;
                let next = at.open(&name)?;
                made(at.inode, &name, next.inode);
                at = next;
            }
        }
        Ok(Some(End::Folder(at)))
    }
}

/// Reads a file of a container's root, of at most `limit` bytes, as the container sees it. `None` where there is none.
///
/// # Errors
/// When it cannot be read, is too large, or is no regular file.
pub(crate) fn read_inside(
    root: &Path,
    path: &str,
    limit: u64,
) -> Result<Option<Vec<u8>>, ApplyError> {
    let read = || {
        let Some(file) = Root::open(root)?.file(path.as_bytes())? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        file.take(limit + 1).read_to_end(&mut bytes)?;
        match bytes.len() as u64 > limit {
            true => Err(io::Error::other(format!("it is larger than {limit} bytes"))),
            false => Ok(Some(bytes)),
        }
    };
    read().map_err(|error: io::Error| ApplyError::io(format!("read /{path} of the image"), error))
}

/// What a walk through a tree does.
pub(super) trait Visit {
    /// Comes into a folder; `entries` are what it holds, and whether each is a folder. Returns the folders to go on to.
    fn enter(&mut self, at: &Folder, entries: Vec<(Vec<u8>, bool)>) -> io::Result<Vec<Vec<u8>>>;

    /// Leaves a folder for `parent`, in which it has the name `name`.
    fn leave(&mut self, at: Folder, parent: &Folder, name: &[u8]) -> io::Result<()>;
}

/// Walks through all that is below a folder, and returns it. Folders that may not be entered are opened up.
pub(super) fn visit(top: Folder, visitor: &mut dyn Visit) -> io::Result<Folder> {
    struct Level {
        name: Vec<u8>,
        inode: u64,
        ahead: Vec<Vec<u8>>,
    }
    let ahead = visitor.enter(&top, entries(&top)?)?;
    let mut levels = vec![Level {
        name: Vec::new(),
        inode: top.inode,
        ahead,
    }];
    let mut at = top;
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.ahead.pop() {
            at = enter(&at, &name)?;
            let ahead = visitor.enter(&at, entries(&at)?)?;
            levels.push(Level {
                name,
                inode: at.inode,
                ahead,
            });
            continue;
        }
        let Some(Level { name, .. }) = levels.pop() else {
            break;
        };
        let Some(above) = levels.last() else { break };
        let parent = at.open(b"..")?;
        if parent.inode != above.inode {
            return Err(io::Error::other("a folder was moved meanwhile"));
        }
        visitor.leave(at, &parent, &name)?;
        at = parent;
    }
    Ok(at)
}

/// Opens a folder, which may have lost its mode bits for us. One on which something is mounted is not ours.
fn enter(at: &Folder, name: &[u8]) -> io::Result<Folder> {
    let open = || match openat2(
        &at.fd,
        name,
        FOLDER,
        Mode::empty(),
        ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS,
    ) {
        // As above: not every system has it.
        Err(Errno::NOSYS | Errno::PERM | Errno::AGAIN) => at.open(name),
        other => Folder::new(other?),
    };
    let folder = match open() {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            // It is a folder: whoever lists it says so, and nobody else writes here.
            rustix::fs::chmodat(&at.fd, name, OURS, AtFlags::empty())?;
            open()?
        }
        other => other?,
    };
    let mode = Mode::from_raw_mode(fstat(&folder.fd)?.st_mode);
    if !mode.contains(OURS) {
        fchmod(&folder.fd, OURS)?;
    }
    Ok(folder)
}

/// Lists a folder: names, and whether each is a folder.
fn entries(at: &Folder) -> io::Result<Vec<(Vec<u8>, bool)>> {
    let mut found = Vec::new();
    for entry in Dir::read_from(&at.fd)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => {
                let stat = statat(&at.fd, name, AtFlags::SYMLINK_NOFOLLOW)?;
                FileType::from_raw_mode(stat.st_mode)
            }
            known => known,
        };
        found.push((name.to_vec(), kind == FileType::Directory));
    }
    Ok(found)
}

/// Removes all that a folder holds.
pub(super) struct RemoveAll;

impl Visit for RemoveAll {
    fn enter(&mut self, at: &Folder, entries: Vec<(Vec<u8>, bool)>) -> io::Result<Vec<Vec<u8>>> {
        let mut folders = Vec::new();
        for (name, is_folder) in entries {
            match is_folder {
                true => folders.push(name),
                false => rustix::fs::unlinkat(&at.fd, name, AtFlags::empty())?,
            }
        }
        Ok(folders)
    }

    fn leave(&mut self, _: Folder, parent: &Folder, name: &[u8]) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&parent.fd, name, AtFlags::REMOVEDIR)?)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// Resolves by the kernel and by names: both must say the same.
    fn both(path: &Path, check: impl Fn(&Root)) {
        for resolves in [true, false] {
            let root = Root::open(path).unwrap();
            root.resolves.set(resolves);
            check(&root);
        }
    }

    #[test]
    fn paths_stay_in_the_root() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::create_dir_all(root.join("usr/lib")).unwrap();
        fs::write(folder.path().join("secret"), "secret").unwrap();
        fs::create_dir(folder.path().join("usr")).unwrap();
        fs::write(root.join("usr/file"), "inside").unwrap();
        for (target, name) in [
            ("usr/lib", "lib"),
            ("/usr/lib", "absolute"),
            ("../../../..", "up"),
            ("../secret", "out"),
            ("/usr/file", "file"),
            ("loop", "loop"),
            ("nowhere", "dangling"),
        ] {
            symlink(target, root.join(name)).unwrap();
        }
        let top = fs::metadata(&root).unwrap();
        let lib = fs::metadata(root.join("usr/lib")).unwrap();
        use std::os::unix::fs::MetadataExt;
        both(&root, |it| {
            let find = |path: &str| it.find(path.as_bytes()).unwrap().map(|it| it.inode);
            for path in ["lib", "absolute", "up/usr/lib", "usr/lib/../../../usr/lib"] {
                assert_eq!(find(path), Some(lib.ino()), "{path}");
            }
            for path in ["", "up", "up/up", "usr/.."] {
                assert_eq!(find(path), Some(top.ino()), "{path}");
            }
            for path in ["nowhere", "dangling", "out", "lib/x"] {
                assert_eq!(find(path), None, "{path}");
            }
            for path in ["loop", "file", "usr/file"] {
                assert!(it.find(path.as_bytes()).is_err(), "{path}");
            }
            assert!(it.file(b"out").unwrap().is_none());
            assert!(it.file(b"up/up/secret").unwrap().is_none());
            assert!(it.file(b"usr").is_err());
            let mut text = String::new();
            let file = it.file(b"file").unwrap().unwrap();
            { file }.read_to_string(&mut text).unwrap();
            assert_eq!(text, "inside");
        });
    }

    #[test]
    fn devices_are_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("device");
        // No driver has this number: opening it says so.
        let device = rustix::fs::makedev(511, 4_095);
        let kind = FileType::CharacterDevice;
        let made = rustix::fs::mknodat(rustix::fs::CWD, &path, kind, OURS, device);
        if made.is_err() || File::open(&path).unwrap_err().raw_os_error() != Some(6) {
            return;
        }
        both(folder.path(), |it| {
            let error = it.file(b"device").unwrap_err();
            assert_eq!(error.to_string(), "it is no regular file");
        });
    }

    #[test]
    fn missing_folders_are_made_in_the_root() {
        let folder = tempfile::tempdir().unwrap();
        for (number, resolves) in [true, false].into_iter().enumerate() {
            let root = folder.path().join(number.to_string());
            fs::create_dir(&root).unwrap();
            symlink("/opt/../../../srv", root.join("link")).unwrap();
            let it = Root::open(&root).unwrap();
            it.resolves.set(resolves);
            let mut count = 0;
            it.make(b"link/a/b", &mut |_, _, _| count += 1).unwrap();
            // What `..` leads back from is not made.
            assert!(root.join("srv/a/b").is_dir() && !root.join("opt").exists());
            assert_eq!(count, 3);
            assert_eq!(
                it.find(b"none/../srv/./a").unwrap().unwrap().inode,
                it.make(b"srv/a", &mut |_, _, _| {}).unwrap().inode
            );
            assert!(it.find(b"srv/none").unwrap().is_none());
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), number + 1);
        }
    }

    #[test]
    fn trees_of_any_depth_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let mut at = Folder::new(
            Root::open(folder.path())
                .unwrap()
                .top()
                .fd
                .try_clone()
                .unwrap(),
        );
        for _ in 0..1000 {
            let here = at.unwrap();
            mkdirat(&here.fd, "d", OURS).unwrap();
            at = here.open(b"d");
        }
        fchmod(&at.unwrap().fd, Mode::empty()).unwrap();
        let top = Folder::new(
            Root::open(folder.path())
                .unwrap()
                .top()
                .fd
                .try_clone()
                .unwrap(),
        );
        visit(top.unwrap(), &mut RemoveAll).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
