//! Goes through a folder as it lies there: no symlink is followed, and no mount entered.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat, openat2, statat,
};
use rustix::io::Errno;

use super::super::root::{FOLDER, Folder};
use super::{Changed, ChangedError};
use crate::tar::shown;

/// The most bytes of names and attributes that are held in memory.
pub(super) const MAX_HELD: usize = 512 << 20;

/// What `stat` says of an entry, as far as changes show in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Seen {
    /// Kind and permission bits.
    mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) size: u64,
    pub(super) inode: u64,
    /// How many names it has.
    pub(super) links: u64,
    /// Which device it is.
    device: u64,
    /// In seconds and nanoseconds since 1970.
    pub(super) mtime: (i64, i64),
    ctime: (i64, i64),
}

impl Seen {
    #[allow(
        clippy::unnecessary_cast,
        clippy::useless_conversion,
        reason = "the types differ between architectures"
    )]
    pub(super) fn of(stat: &Stat) -> Self {
        Self {
            mode: stat.st_mode as u32,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: stat.st_size as u64,
            inode: stat.st_ino as u64,
            links: stat.st_nlink as u64,
            device: stat.st_rdev as u64,
            mtime: (stat.st_mtime as i64, stat.st_mtime_nsec as i64),
            ctime: (stat.st_ctime as i64, stat.st_ctime_nsec as i64),
        }
    }

    /// Returns the kind.
    pub(super) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.mode)
    }

    /// Tells whether it is a folder.
    pub(super) fn is_folder(&self) -> bool {
        self.kind() == FileType::Directory
    }

    /// Tells whether it is what an overlay writes in the place of what was removed.
    pub(super) fn is_whiteout(&self) -> bool {
        self.kind() == FileType::CharacterDevice && self.device == 0
    }

    /// Returns the permission bits, with setuid, setgid and sticky.
    pub(super) fn bits(&self) -> u16 {
        (self.mode & 0o7777) as u16
    }

    /// Returns the time of the last change of content or attributes, in nanoseconds since 1970.
    pub(super) fn changed(&self) -> i64 {
        let (seconds, rest) = self.ctime;
        seconds.saturating_mul(1_000_000_000).saturating_add(rest)
    }
}

/// What a folder holds, sorted by name.
pub(super) type Names = [(Vec<u8>, Seen)];

/// Sees what a walk comes by.
pub(super) trait Visitor {
    /// Comes into a folder; its path is empty for the first.
    fn enter(
        &mut self,
        at: &Folder,
        path: &[u8],
        seen: &Seen,
        names: &Names,
    ) -> Result<(), ChangedError>;

    /// Leaves the folder that it came into last.
    fn leave(&mut self) -> Result<(), ChangedError>;
}

/// A folder on the way.
struct Level {
    path: Vec<u8>,
    inode: u64,
    /// The folders in it that are still to be seen, the next one last.
    ahead: Vec<(Vec<u8>, Seen)>,
}

/// Walks through all that is in the folder, names in the order of their bytes. Holds two folders open, however deep it is.
pub(super) fn walk(changed: &Changed<'_>, visitor: &mut dyn Visitor) -> Result<(), ChangedError> {
    let fail = |source| ChangedError::Io {
        what: changed.root.display().to_string(),
        source,
    };
    let mut at = top(changed.root).map_err(fail)?;
    let mut counted = Counted::default();
    let mut enter = |at: &Folder, path: Vec<u8>, visitor: &mut dyn Visitor| {
        let seen = fstat(&at.fd).map_err(|error| ChangedError::io(&path, error))?;
        let names = counted.list(changed, at, &path)?;
        visitor.enter(at, &path, &Seen::of(&seen), &names)?;
        let folders = names.into_iter().filter(|(_, seen)| seen.is_folder());
        Ok(Level {
            path,
            inode: at.inode,
            ahead: folders.rev().collect(),
        })
    };
    let mut levels = vec![enter(&at, Vec::new(), visitor)?];
    while let Some(level) = levels.last_mut() {
        if let Some((name, seen)) = level.ahead.pop() {
            let path = join(&level.path, &name);
            let next = open(&at, &name, FOLDER, &path)?;
            let next = Folder::new(next).map_err(|error| ChangedError::io(&path, error))?;
            if next.inode != seen.inode {
                return Err(ChangedError::Moved(shown(&path)));
            }
            levels.push(enter(&next, path, visitor)?);
            at = next;
            continue;
        }
        visitor.leave()?;
        let Some(left) = levels.pop() else { break };
        let Some(above) = levels.last() else { break };
        let parent = at.open(b"..");
        let parent = parent.map_err(|error| ChangedError::io(&above.path, error))?;
        if parent.inode != above.inode {
            return Err(ChangedError::Moved(shown(&left.path)));
        }
        at = parent;
    }
    Ok(())
}

/// Opens the folder that a walk begins with; its own path is the caller's to know.
pub(super) fn top(path: &Path) -> io::Result<Folder> {
    let flags = FOLDER.difference(OFlags::NOFOLLOW);
    Folder::new(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Returns the path of a name in a folder.
pub(super) fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    match folder {
        [] => name.to_vec(),
        folder => [folder, b"/", name].concat(),
    }
}

/// Opens what has a name in a folder, unless it is a symlink, or something is mounted there.
pub(super) fn open(
    at: &Folder,
    name: &[u8],
    flags: OFlags,
    path: &[u8],
) -> Result<OwnedFd, ChangedError> {
    let how = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    let fail = |error: Errno| match error {
        // It was none when the folder was listed.
        Errno::LOOP | Errno::NOTDIR | Errno::NOENT => ChangedError::Moved(shown(path)),
        Errno::XDEV => ChangedError::Mounted(shown(path)),
        error => ChangedError::io(path, error),
    };
    match openat2(&at.fd, name, flags, Mode::empty(), how) {
        // Old kernels lack it, and old sandboxes forbid it; or something was renamed meanwhile, anywhere on the machine.
        Err(Errno::NOSYS | Errno::PERM | Errno::AGAIN) => {
            let fd = openat(&at.fd, name, flags, Mode::empty()).map_err(fail)?;
            let devices = [&at.fd, &fd].map(|fd| fstat(fd).map(|stat| stat.st_dev));
            match devices {
                [Ok(above), Ok(own)] if above != own => Err(fail(Errno::XDEV)),
                [Err(error), _] | [_, Err(error)] => Err(fail(error)),
                _ => Ok(fd),
            }
        }
        opened => opened.map_err(fail),
    }
}

/// Counts what is looked at.
#[derive(Default)]
struct Counted {
    entries: u64,
    held: usize,
}

impl Counted {
    /// Lists a folder but for what is not to be looked at.
    fn list(
        &mut self,
        changed: &Changed<'_>,
        at: &Folder,
        path: &[u8],
    ) -> Result<Vec<(Vec<u8>, Seen)>, ChangedError> {
        let fail = |error: Errno| ChangedError::io(path, io::Error::from(error));
        let mut names = Vec::new();
        for entry in Dir::read_from(&at.fd).map_err(fail)? {
            if !(changed.tick)(0) {
                return Err(ChangedError::Stopped);
            }
            let entry = entry.map_err(fail)?;
            let name = entry.file_name().to_bytes();
            let own = join(path, name);
            if name == b"." || name == b".." || changed.skips(&own) {
                continue;
            }
            self.count(changed, own.len() + size_of::<Seen>())?;
            let stat = statat(&at.fd, name, AtFlags::SYMLINK_NOFOLLOW);
            let stat = stat.map_err(|error| match error {
                Errno::NOENT => ChangedError::Moved(shown(&own)),
                error => ChangedError::io(&own, error),
            })?;
            names.push((name.to_vec(), Seen::of(&stat)));
        }
        names.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        Ok(names)
    }

    fn count(&mut self, changed: &Changed<'_>, bytes: usize) -> Result<(), ChangedError> {
        self.entries += 1;
        self.held += bytes;
        let entries = changed.limits.entries;
        if self.entries > entries {
            return Err(ChangedError::Limit {
                what: "lies in a folder of more entries than anyone would expect",
                limit: entries.to_string(),
            });
        }
        match self.held > MAX_HELD {
            true => Err(ChangedError::Limit {
                what: "lies in a folder with names of too many bytes",
                limit: format!("{MAX_HELD} bytes"),
            }),
            false => Ok(()),
        }
    }
}
