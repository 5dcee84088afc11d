//! Compares what a walk comes by with what was there before, and gathers what changed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FileType, OFlags, fstat, readlinkat, statat};
use rustix::io::Errno;

use super::super::root::Folder;
use super::attributes::{Attributes, Reader};
use super::walk::{MAX_HELD, Names, Seen, Visitor, join, open, top};
use super::{Before, Changed, ChangedError, Changes, Found, LeftOut, Marks, Range};
use crate::layer::{Attrs, Content, Entry, Kind, LayerPath, Owner};
use crate::oci::Hasher;
use crate::tar::{WHITEOUT, shown};

/// How much content is copied at a time.
const BUFFER: usize = 256 << 10;

/// Gathers changes.
pub(super) struct Gather<'a> {
    changed: &'a Changed<'a>,
    before: Before<'a>,
    contents: &'a mut dyn Write,
    /// How many bytes went there.
    offset: u64,
    buffer: Vec<u8>,
    reader: Reader,
    /// The folders that we are in, outermost first.
    levels: Vec<Level<'a>>,
    /// Of an overlay, the lower folder at this place.
    lower: Option<Folder>,
    /// The last of the lower folders, while we are in a folder that it lacks.
    parked: Option<Folder>,
    /// The contents of files with several names, by their numbers.
    linked: BTreeMap<u64, Range>,
    /// The bytes of names and attributes in memory.
    held: usize,
    changes: Changes,
}

/// A folder that we are in.
struct Level<'a> {
    path: Vec<u8>,
    seen: Seen,
    /// The number of the lower folder at this place.
    lower: Option<u64>,
    /// What the snapshot has of it.
    known: Option<&'a BTreeMap<Vec<u8>, Seen>>,
    /// It is part of the changes. The root never is, and needs not be.
    is_noted: bool,
}

impl<'a> Gather<'a> {
    pub(super) fn new(
        changed: &'a Changed<'a>,
        before: Before<'a>,
        contents: &'a mut dyn Write,
    ) -> Result<Self, ChangedError> {
        let lower = match before {
            Before::Snapshot(_) => None,
            Before::Overlay { lower, .. } => {
                let fail = |source| ChangedError::Io {
                    what: lower.display().to_string(),
                    source,
                };
                Some(top(lower).map_err(fail)?)
            }
        };
        Ok(Self {
            changed,
            before,
            contents,
            offset: 0,
            buffer: vec![0; BUFFER],
            reader: Reader::new(),
            levels: Vec::new(),
            lower,
            parked: None,
            linked: BTreeMap::new(),
            held: 0,
            changes: Changes::default(),
        })
    }

    /// Returns what was gathered.
    pub(super) fn finish(self) -> Changes {
        let mut changes = self.changes;
        changes.left_out.sort_by(|a, b| a.path.cmp(&b.path));
        changes
    }

    fn marks(&self) -> Option<Marks> {
        match self.before {
            Before::Overlay { marks, .. } => Some(marks),
            Before::Snapshot(_) => None,
        }
    }

    /// Returns what had a name in the folder that we are in.
    fn before(&self, name: &[u8]) -> Result<Option<Seen>, ChangedError> {
        let Some(level) = self.levels.last() else {
            return self.root_before().map(Some);
        };
        let Some(lower) = &self.lower else {
            return Ok(level.known.and_then(|it| it.get(name)).copied());
        };
        match statat(&lower.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(Seen::of(&stat))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(ChangedError::io(&join(&level.path, name), error)),
        }
    }

    /// Returns what the root was.
    fn root_before(&self) -> Result<Seen, ChangedError> {
        match (self.before, &self.lower) {
            (Before::Snapshot(snapshot), _) => Ok(snapshot.top),
            (_, Some(lower)) => {
                let stat = fstat(&lower.fd);
                stat.map(|it| Seen::of(&it))
                    .map_err(|error| ChangedError::io(b"", error))
            }
            (_, None) => Err(ChangedError::Moved(String::new())),
        }
    }

    /// Comes into a folder.
    fn folder(&mut self, at: &Folder, path: &[u8], seen: &Seen) -> Result<(), ChangedError> {
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
        let before = self.before(name)?;
        let attributes = self.attributes(&at.fd, path)?;
        // Else nothing that was there shows through.
        let joins = before.is_some_and(|it| it.is_folder()) && !attributes.is_opaque;
        let is_root = self.levels.is_empty();
        if is_root && !joins {
            return Err(ChangedError::entry(
                path,
                "hides all of the image below",
                "let nothing in it set attributes of overlays",
            ));
        }
        if before.is_some() && !joins {
            self.remove(path)?;
        }
        let known = match self.before {
            Before::Snapshot(snapshot) => snapshot.folders.get(path).filter(|_| joins),
            Before::Overlay { .. } => None,
        };
        self.go_down(name, joins && !is_root, path)?;
        if before != Some(*seen) {
            if attributes.has_acl {
                self.leave_out(path, ACL);
            }
            if !attributes.kept.is_empty() {
                self.leave_out(path, "the extended attributes of a folder");
            }
        }
        self.levels.push(Level {
            path: path.to_vec(),
            seen: *seen,
            lower: self.lower.as_ref().map(|it| it.inode),
            known,
            is_noted: is_root,
        });
        let has = |it: &Seen| (it.bits(), it.uid, it.gid);
        let is_same = before.is_some_and(|it| has(&it) == has(seen));
        let is_timed = before.is_some_and(|it| it.mtime.0 == seen.mtime.0);
        if is_root {
            if !is_same {
                self.leave_out(path, "mode and owner of the root itself");
            }
            return Ok(());
        }
        match joins && is_same && (is_timed || !self.changed.keep_mtime) {
            true => Ok(()),
            false => self.note_folders(),
        }
    }

    /// Goes down into the lower folder, if it shows through.
    fn go_down(&mut self, name: &[u8], joins: bool, path: &[u8]) -> Result<(), ChangedError> {
        if self.levels.is_empty() {
            return Ok(());
        }
        let Some(above) = self.lower.take() else {
            return Ok(());
        };
        if joins {
            let below = above.open(name);
            self.lower = Some(below.map_err(|error| ChangedError::io(path, error))?);
        } else {
            self.parked = Some(above);
        }
        Ok(())
    }

    /// Makes the folders that we are in part of the changes.
    fn note_folders(&mut self) -> Result<(), ChangedError> {
        // Where one is noted, so are those above it.
        let first = self.levels.iter().rposition(|it| it.is_noted);
        for number in first.map_or(0, |it| it + 1)..self.levels.len() {
            let level = &mut self.levels[number];
            level.is_noted = true;
            let (path, seen) = (level.path.clone(), level.seen);
            let attrs = self.attrs(&path, &seen)?;
            self.note(&path, Kind::Folder { attrs, firm: true }, &seen, |_| {})?;
        }
        Ok(())
    }

    /// Notes an entry, which `detail` completes.
    fn note(
        &mut self,
        path: &[u8],
        kind: Kind,
        seen: &Seen,
        detail: impl FnOnce(&mut Found),
    ) -> Result<(), ChangedError> {
        let mtime = match self.changed.keep_mtime {
            true => seen.mtime.0,
            false => 0,
        };
        let mut found = Found {
            entry: Entry {
                mtime,
                ..Entry::new(kind)
            },
            content: None,
            linked: None,
        };
        detail(&mut found);
        let attributes = found.entry.xattrs.iter().flat_map(|it| it.iter());
        let bytes = attributes.map(|(name, value)| name.len() + value.len());
        self.hold(path.len() + bytes.sum::<usize>())?;
        self.changes.entries.insert(layer_path(path)?, found);
        Ok(())
    }

    /// Notes that what was there before is gone.
    fn remove(&mut self, path: &[u8]) -> Result<(), ChangedError> {
        self.note_folders()?;
        self.hold(path.len())?;
        self.changes.removed.insert(layer_path(path)?);
        Ok(())
    }

    /// Looks at what is no folder.
    fn other(
        &mut self,
        at: &Folder,
        name: &[u8],
        path: &[u8],
        seen: &Seen,
    ) -> Result<(), ChangedError> {
        let before = self.before(name)?;
        match self.before {
            Before::Overlay { .. } if seen.is_whiteout() => {
                return match before {
                    Some(_) => self.remove(path),
                    None => Ok(()),
                };
            }
            Before::Snapshot(_) if before == Some(*seen) => return Ok(()),
            _ => {}
        }
        if !matches!(seen.kind(), FileType::RegularFile | FileType::Symlink) {
            self.special(path, seen)?;
            return match before {
                Some(_) => self.remove(path),
                None => Ok(()),
            };
        }
        self.note_folders()?;
        if before.is_some_and(|it| it.is_folder()) {
            self.remove(path)?;
        }
        // It may have led to a folder, which a layer does not replace unasked.
        let replace = before.is_some_and(|it| it.kind() == FileType::Symlink);
        match seen.kind() {
            FileType::Symlink => self.symlink(at, name, path, seen, replace),
            _ => self.file(at, name, path, seen, replace),
        }
    }

    /// Refuses a socket, fifo or device, or leaves it out.
    fn special(&mut self, path: &[u8], seen: &Seen) -> Result<(), ChangedError> {
        let what = match seen.kind() {
            FileType::Socket => "a socket",
            FileType::Fifo => "a fifo",
            FileType::CharacterDevice | FileType::BlockDevice => "a device",
            _ => "of a kind that is not known",
        };
        if self.changed.skip_special {
            self.leave_out(path, what);
            return Ok(());
        }
        Err(ChangedError::entry(
            path,
            format!("is {what}"),
            "layers hold files, folders and links: remove it before the process ends",
        ))
    }

    fn symlink(
        &mut self,
        at: &Folder,
        name: &[u8],
        path: &[u8],
        seen: &Seen,
        replace: bool,
    ) -> Result<(), ChangedError> {
        let target = readlinkat(&at.fd, name, Vec::new()).map_err(|error| match error {
            Errno::INVAL | Errno::NOENT => ChangedError::Moved(shown(path)),
            error => ChangedError::io(path, error),
        })?;
        let target = target.into_string().ok();
        let Some(target) = target.filter(|it| (1..=4095).contains(&it.len())) else {
            return Err(ChangedError::entry(
                path,
                "is a symlink whose target is no UTF-8",
                "make it with another target",
            ));
        };
        let owner = self.attrs(path, seen)?.owner;
        self.hold(target.len())?;
        self.note(path, Kind::Symlink { target, owner }, seen, |found| {
            found.entry.replace = replace;
        })
    }

    fn file(
        &mut self,
        at: &Folder,
        name: &[u8],
        path: &[u8],
        seen: &Seen,
        replace: bool,
    ) -> Result<(), ChangedError> {
        // A fifo that came in its place would make us wait.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(open(at, name, flags, path)?);
        let is_same = |file: &File| {
            let stat = fstat(file).map_err(|error| ChangedError::io(path, error))?;
            match Seen::of(&stat) == *seen {
                true => Ok(()),
                false => Err(ChangedError::Moved(shown(path))),
            }
        };
        is_same(&file)?;
        let attributes = self.attributes(&file, path)?;
        if attributes.is_opaque {
            return Err(ChangedError::entry(
                path,
                "is a file with the mark of a folder of an overlay",
                "let nothing in it set attributes of overlays",
            ));
        }
        if attributes.has_acl {
            self.leave_out(path, ACL);
        }
        let attrs = self.attrs(path, seen)?;
        let linked = (seen.links > 1).then_some(seen.inode);
        let range = match linked.and_then(|inode| self.linked.get(&inode)) {
            Some(range) => *range,
            None => self.keep(&file, path, seen)?,
        };
        is_same(&file)?;
        if let Some(inode) = linked {
            self.linked.insert(inode, range);
        }
        let content = Content::bytes([]);
        self.note(path, Kind::File { attrs, content }, seen, |found| {
            found.entry.replace = replace;
            found.entry.set_xattrs(attributes.kept);
            found.content = Some(range);
            found.linked = linked;
        })
    }

    /// Copies what a file holds.
    fn keep(&mut self, mut file: &File, path: &[u8], seen: &Seen) -> Result<Range, ChangedError> {
        let limit = self.changed.limits.bytes;
        if self.offset.saturating_add(seen.size) > limit {
            return Err(ChangedError::Limit {
                what: "holds more than anyone would expect",
                limit: format!("{limit} bytes"),
            });
        }
        let mut hasher = Hasher::default();
        let mut size = 0;
        loop {
            let count = match file.read(&mut self.buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(ChangedError::io(path, error)),
            };
            let bytes = &self.buffer[..count];
            size += bytes.len() as u64;
            // It grows: no matter, as somebody writes to it.
            if size > seen.size {
                return Err(ChangedError::Moved(shown(path)));
            }
            if bytes.is_empty() {
                break;
            }
            hasher.update(bytes);
            let written = self.contents.write_all(bytes);
            written.map_err(ChangedError::Contents)?;
            if !(self.changed.tick)(bytes.len() as u64) {
                return Err(ChangedError::Stopped);
            }
        }
        let range = Range {
            offset: self.offset,
            size,
            digest: hasher.finish(),
        };
        self.offset += size;
        Ok(range)
    }

    fn attributes(&mut self, fd: impl AsFd, path: &[u8]) -> Result<Attributes, ChangedError> {
        self.reader.read(fd, path, self.marks(), self.changed.ids)
    }

    /// Returns mode and owner, as they are inside.
    fn attrs(&self, path: &[u8], seen: &Seen) -> Result<Attrs, ChangedError> {
        let ids = self.changed.ids;
        let (Some(uid), Some(gid)) = (ids.user(seen.uid), ids.group(seen.gid)) else {
            return Err(ChangedError::entry(
                path,
                format!(
                    "belongs to {}:{} of the host, whom nobody is inside",
                    seen.uid, seen.gid
                ),
                "let it belong to a user of the container",
            ));
        };
        Ok(Attrs {
            mode: seen.bits(),
            owner: Owner { uid, gid },
        })
    }

    fn leave_out(&mut self, path: &[u8], what: &str) {
        self.changes.left_out.push(LeftOut {
            path: shown(path),
            what: what.to_owned(),
        });
    }

    /// Counts what is held in memory.
    fn hold(&mut self, bytes: usize) -> Result<(), ChangedError> {
        self.held += bytes;
        match self.held > MAX_HELD {
            true => Err(ChangedError::Limit {
                what: "has names and attributes of too many bytes",
                limit: format!("{MAX_HELD} bytes"),
            }),
            false => Ok(()),
        }
    }
}

impl Visitor for Gather<'_> {
    fn enter(
        &mut self,
        at: &Folder,
        path: &[u8],
        seen: &Seen,
        names: &Names,
    ) -> Result<(), ChangedError> {
        self.folder(at, path, seen)?;
        for (name, seen) in names.iter().filter(|(_, seen)| !seen.is_folder()) {
            self.other(at, name, &join(path, name), seen)?;
        }
        let known = self.levels.last().and_then(|level| level.known);
        let is_there = |name: &[u8]| names.binary_search_by(|(it, _)| (**it).cmp(name)).is_ok();
        for name in known.into_iter().flat_map(BTreeMap::keys) {
            let path = join(path, name);
            if !is_there(name) && !self.changed.skips(&path) {
                self.remove(&path)?;
            }
        }
        Ok(())
    }

    fn leave(&mut self) -> Result<(), ChangedError> {
        self.levels.pop();
        let Some(level) = self.levels.last() else {
            return Ok(());
        };
        match (&self.lower, level.lower) {
            (Some(lower), Some(inode)) => {
                let parent = lower.open(b"..");
                let parent = parent.map_err(|error| ChangedError::io(&level.path, error))?;
                if parent.inode != inode {
                    return Err(ChangedError::Moved(shown(&level.path)));
                }
                self.lower = Some(parent);
            }
            (None, Some(_)) => self.lower = self.parked.take(),
            (_, None) => {}
        }
        Ok(())
    }
}

/// What access rights for single users are called.
const ACL: &str = "access rights of single users or groups (ACL)";

/// Returns the path of an entry in a layer.
fn layer_path(path: &[u8]) -> Result<LayerPath, ChangedError> {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
    if name.starts_with(WHITEOUT.as_bytes()) {
        return Err(ChangedError::entry(
            path,
            "has a name that starts with `.wh.`: in a layer it would delete a file",
            "give it another name",
        ));
    }
    LayerPath::parse_bytes(path).map_err(|_| {
        ChangedError::entry(
            path,
            "has a name that no layer can hold: it is no UTF-8, or too long",
            "give it another name",
        )
    })
}
