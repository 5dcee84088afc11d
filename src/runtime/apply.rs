//! Applies layers, in order, into an empty folder (image-spec, layer.md, "Applying Changesets").
//!
//! Folders are ours alone, 0700, until the end: modes, owners and times of folders come last, when nothing is written any
//! more. They are known by their numbers in the file system, which no symlink changes. Knows nothing of where layers are
//! from, or of what is made of the folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Stat, XattrFlags, chmodat, chownat, linkat, lsetxattr,
    makedev, mkdirat, mknodat, openat, statat, symlinkat, utimensat,
};
use rustix::io::Errno;

use super::layer_reader::{LayerReader, name};
use super::metadata::{FolderMetadata, Metadata, apply_metadata, attributes, owner, unmapped};
use super::remove_lower::{Key, RemoveLower};
use super::root::{Folder, OURS, Root, Visit, visit};
use super::{Applied, ApplyError, Image, Limits};
use crate::layer::Tick;
use crate::source::{Piece, SourceError};
use crate::tar::{Entries, Entry, EntryPath, Kind, Stream, TarError, Whiteout, entry_path, shown};

/// The most bytes of names and attributes that are held in memory.
const MAX_HELD: usize = 512 << 20;
/// How much content is copied at a time.
const BUFFER: usize = 256 << 10;

/// Applies the layers of an image to the empty folder `dir`, and checks them.
///
/// On failure, what was written so far stays: see [`super::Stage`].
///
/// # Errors
/// When a layer is not what its descriptor and the config say, holds what no folder should hold, or exceeds a limit; and
/// when the folder cannot be written.
pub(crate) fn apply(
    image: &Image<'_>,
    dir: &Path,
    limits: &Limits,
    tick: Tick<'_>,
) -> Result<Applied, ApplyError> {
    apply_to(image, dir, limits, tick).map_err(|error| match error {
        ApplyError::Stopped | ApplyError::Io { .. } => error,
        // Whatever it is: a layer of the cache that is damaged is the better explanation.
        _ => match image.layers.iter().find_map(Piece::damage) {
            Some(damage) => ApplyError::Source(SourceError::Cache(damage)),
            None => error,
        },
    })
}

fn apply_to(
    image: &Image<'_>,
    dir: &Path,
    limits: &Limits,
    tick: Tick<'_>,
) -> Result<Applied, ApplyError> {
    let diff_ids = image.config.diff_ids()?;
    if diff_ids.len() != image.layers.len() {
        return Err(ApplyError::Count {
            layers: image.layers.len(),
            diff_ids: diff_ids.len(),
        });
    }
    let root = Root::open(dir);
    let root = root.map_err(|error| ApplyError::io(format!("open {}", dir.display()), error))?;
    let mut applier = Applier {
        folders: BTreeMap::from([(root.top().inode, Metadata::IMPLICIT)]),
        root,
        limits: *limits,
        tick,
        is_root: rustix::process::geteuid().is_root(),
        written: BTreeSet::new(),
        hidden: BTreeSet::new(),
        is_lowest: true,
        last: None,
        applied: Applied::default(),
        held: 0,
        buffer: vec![0; BUFFER],
        layer: String::new(),
        size: None,
        holes: 0,
        own_holes: 0,
    };
    std::thread::scope(|scope| {
        let mut reader = LayerReader::start(scope, image.layers, *limits);
        for (number, (layer, diff_id)) in image.layers.iter().zip(diff_ids).enumerate() {
            applier.layer = name(number, layer);
            applier.written.clear();
            applier.hidden.clear();
            applier.is_lowest = number == 0;
            applier.size = layer.expected.map(|blob| blob.size);
            applier.own_holes = 0;
            if let Err(error) = applier.entries(&mut Entries::new(&mut reader)) {
                return Err(reader.failure().unwrap_or(error));
            }
            reader.finish(&applier.layer, diff_id, tick)?;
        }
        applier.applied.bytes = reader.bytes_read() + applier.holes;
        Ok(())
    })?;
    applier.apply_folder_metadata(dir)?;
    Ok(applier.applied)
}

struct Applier<'a> {
    root: Root,
    limits: Limits,
    tick: Tick<'a>,
    is_root: bool,
    /// What folders get in the end, by their numbers: of all that there are.
    folders: BTreeMap<u64, Metadata>,
    /// What this layer wrote: its own whiteouts do not hide that, wherever they stand in it.
    written: BTreeSet<Key>,
    /// What this layer hid: once is enough, as lower layers bring nothing more.
    hidden: BTreeSet<Key>,
    /// There is nothing below, so nothing can be hidden.
    is_lowest: bool,
    /// The folder that was found last, and by which path.
    last: Option<(Vec<u8>, Rc<Folder>)>,
    applied: Applied,
    /// The bytes of names and attributes in memory.
    held: usize,
    buffer: Vec<u8>,
    /// What messages call the layer.
    layer: String,
    /// The size of its blob, where it is known.
    size: Option<u64>,
    /// The bytes of holes of all sparse files, and of those of this layer: they are not in the tar.
    holes: u64,
    own_holes: u64,
}

/// The tar of a layer, as it is read here.
type Tar<'a> = Entries<Stream<&'a mut LayerReader>>;

impl Applier<'_> {
    fn entries(&mut self, entries: &mut Tar<'_>) -> Result<(), ApplyError> {
        loop {
            let entry = match entries.next_entry() {
                Ok(Some(entry)) => entry,
                Ok(None) => return Ok(()),
                Err(TarError::Damaged(source)) => return Err(self.damaged(source)),
                Err(TarError::Refused { path, why }) => return Err(self.refused(&path, why)),
                Err(error) => return Err(self.damaged(io::Error::other(error))),
            };
            if !(self.tick)(0) {
                return Err(ApplyError::Stopped);
            }
            self.applied.entries += 1;
            if self.applied.entries > self.limits.entries {
                let what = "has, with those below it, more entries than anyone would expect";
                return Err(self.limit(what, format!("{}", self.limits.entries), "--max-entries"));
            }
            self.entry(entry, entries)?;
        }
    }

    fn entry(&mut self, mut entry: Entry, entries: &mut Tar<'_>) -> Result<(), ApplyError> {
        let path = std::mem::take(&mut entry.path);
        let place = entry_path(&path, self.limits.path).map_err(|why| self.refused(&path, why))?;
        let meta = self.meta(&path, &entry)?;
        let (parent, name) = match place {
            EntryPath::Root if entry.kind == Kind::Folder => {
                self.folders.insert(self.root.top().inode, meta);
                return Ok(());
            }
            EntryPath::Root => {
                self.applied.roots += 1;
                return Ok(());
            }
            EntryPath::Ignored => return Ok(()),
            EntryPath::At(parent, name) => (parent, name),
        };
        match Whiteout::of(&name) {
            Whiteout::None => {}
            Whiteout::Name(hidden) => return self.whiteout(&path, &parent, Some(hidden)),
            Whiteout::Opaque => return self.whiteout(&path, &parent, None),
            // `place` has ignored the one that means nothing.
            Whiteout::Invalid | Whiteout::Meaningless => {
                return Err(self.refused(&path, "a whiteout of no file".to_owned()));
            }
        }
        let parent = self.parent(&path, &parent)?;
        self.hold(name.len())?;
        match entry.kind {
            Kind::Folder => {
                let inode = self.folder(&parent, &name);
                let inode = inode.map_err(fail_of(&self.layer, &path))?;
                self.folders.insert(inode, meta);
            }
            Kind::File => {
                self.count_holes(entry.holes)?;
                self.file(&path, &parent, &name, &meta, entries)?;
            }
            Kind::Hardlink => {
                let target = entry.link.take().unwrap_or_default();
                self.hard_link(&path, &target, &parent, &name)?;
            }
            Kind::Other(flag) => {
                let flag = char::from(flag).escape_default();
                return Err(self.refused(&path, format!("of the unknown type `{flag}`")));
            }
            Kind::Symlink => {
                let target = entry.link.take().unwrap_or_default();
                if target.is_empty() || target.contains(&0) || target.len() > self.limits.path {
                    return Err(self.refused(&path, "a symlink to an impossible path".to_owned()));
                }
                let make = |at: &Folder, name: &[u8]| symlinkat(&target[..], &at.fd, name);
                self.create(&parent, &name, make)
                    .and_then(|()| self.apply_link_metadata(&parent, &name, &meta))
                    .map_err(fail_of(&self.layer, &path))?;
            }
            Kind::Fifo | Kind::Character | Kind::Block => {
                let made = self.special(&entry, &parent, &name, &meta);
                made.map_err(fail_of(&self.layer, &path))?;
            }
        }
        if !self.is_lowest {
            self.written.insert((parent.inode, name.into()));
        }
        Ok(())
    }

    /// Takes what an entry's headers say of mode, owner, time and attributes.
    fn meta(&mut self, path: &[u8], entry: &Entry) -> Result<Metadata, ApplyError> {
        // The largest number means nobody to the kernel.
        let id = |id: u64| u32::try_from(id).ok().filter(|id| *id != u32::MAX);
        let (Some(uid), Some(gid)) = (id(entry.uid), id(entry.gid)) else {
            let owner = format!("{}:{}", entry.uid, entry.gid);
            return Err(self.refused(path, format!("whose owner {owner} exceeds 32 bits")));
        };
        if !self.is_root && (uid, gid) != (0, 0) {
            self.applied.owners += 1;
        }
        // These speak of a mount that is not ours, and could turn one that is made of the folder.
        let is_overlay = |name: &[u8]| {
            name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
        };
        let attributes = entry.attributes();
        let attributes: Vec<_> = attributes
            .filter(|(name, _)| !is_overlay(name))
            .map(|(name, value)| (name.to_vec(), value.to_vec()))
            .collect();
        if entry.kind == Kind::Folder {
            let bytes = attributes
                .iter()
                .map(|(name, value)| name.len() + value.len());
            self.hold(bytes.sum())?;
        }
        Ok(Metadata {
            mode: entry.mode,
            uid,
            gid,
            mtime: entry.mtime,
            attributes,
        })
    }

    /// Finds or makes the folder of an entry.
    fn parent(&mut self, path: &[u8], parent: &[u8]) -> Result<Rc<Folder>, ApplyError> {
        if let Some((last, folder)) = &self.last
            && last == parent
        {
            return Ok(folder.clone());
        }
        let (folders, written) = (&mut self.folders, &mut self.written);
        let mut held = 0;
        let mut made = |above: u64, name: &[u8], inode: u64| {
            folders.insert(inode, Metadata::IMPLICIT);
            written.insert((above, name.into()));
            held += name.len();
        };
        let folder = match parent {
            [] => self.root.top(),
            parent => match self.root.make(parent, &mut made) {
                Ok(folder) => Rc::new(folder),
                Err(error) => {
                    return Err(match Errno::from_io_error(&error) {
                        Some(Errno::NOTDIR) => {
                            self.refused(path, "whose folder is no folder".to_owned())
                        }
                        Some(Errno::LOOP) => {
                            self.refused(path, "whose folder is a circle of symlinks".to_owned())
                        }
                        _ => explain(&self.layer, path, error),
                    });
                }
            },
        };
        self.hold(held)?;
        self.last = Some((parent.to_vec(), folder.clone()));
        Ok(folder)
    }

    /// Hides what lower layers hold: what has a name in a folder, or all that is in it.
    fn whiteout(
        &mut self,
        path: &[u8],
        parent: &[u8],
        hidden: Option<&[u8]>,
    ) -> Result<(), ApplyError> {
        if self.is_lowest {
            return Ok(());
        }
        let folder = match self.root.find(parent) {
            Ok(Some(folder)) => folder,
            // What is not there need not be hidden.
            Ok(None) => return Ok(()),
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::NOTDIR | Errno::LOOP) => return Ok(()),
                _ => return Err(explain(&self.layer, path, error)),
            },
        };
        let what = hidden.unwrap_or_default();
        self.hold(what.len())?;
        if !self.hidden.insert((folder.inode, what.into())) {
            return Ok(());
        }
        let done = match hidden {
            None => {
                self.last = None;
                visit(folder, &mut self.remover(true)).map(drop)
            }
            Some(hidden) => self.remove(&folder, hidden, true),
        };
        done.map_err(|error| explain(&self.layer, path, error))
    }

    fn remover(&mut self, keep: bool) -> RemoveLower<'_> {
        RemoveLower {
            written: &mut self.written,
            folders: &mut self.folders,
            keep,
        }
    }

    /// Removes what has a name, with all below it; with `keep`, but for what this layer wrote.
    fn remove(&mut self, at: &Folder, name: &[u8], keep: bool) -> io::Result<()> {
        let Some(stat) = stat(at, name)? else {
            return Ok(());
        };
        self.last = None;
        let mut remover = self.remover(keep);
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let below = visit(at.open(name)?, &mut remover)?;
                remover.leave(below, at, name)
            }
            _ => remover.file(at, name.to_vec()),
        }
    }

    /// Makes something new, in the place of what was there.
    fn create<T>(
        &mut self,
        at: &Folder,
        name: &[u8],
        make: impl Fn(&Folder, &[u8]) -> Result<T, Errno>,
    ) -> io::Result<T> {
        match make(at, name) {
            Err(Errno::EXIST) => {
                self.remove(at, name, false)?;
                Ok(make(at, name)?)
            }
            made => Ok(made?),
        }
    }

    /// Makes a folder, or finds it: a folder joins a folder. Returns its number.
    fn folder(&mut self, at: &Folder, name: &[u8]) -> io::Result<u64> {
        let found = stat(at, name)?;
        if let Some(stat) = found
            && FileType::from_raw_mode(stat.st_mode) == FileType::Directory
        {
            return Ok(stat.st_ino);
        }
        self.create(at, name, |at, name| mkdirat(&at.fd, name, OURS))?;
        Ok(at.open(name)?.inode)
    }

    fn file(
        &mut self,
        path: &[u8],
        at: &Folder,
        name: &[u8],
        meta: &Metadata,
        entries: &mut Tar<'_>,
    ) -> Result<(), ApplyError> {
        let file = self
            .create(at, name, new_file)
            .map_err(fail_of(&self.layer, path))?;
        let mut file = File::from(file);
        loop {
            let count = match entries.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(source) => return Err(self.damaged(source)),
            };
            let written = file.write_all(&self.buffer[..count]);
            written.map_err(fail_of(&self.layer, path))?;
            if !(self.tick)(count as u64) {
                return Err(ApplyError::Stopped);
            }
        }
        let refused = apply_metadata(&file, meta, self.is_root);
        self.applied.attributes += refused.map_err(fail_of(&self.layer, path))?;
        Ok(())
    }

    fn hard_link(
        &mut self,
        path: &[u8],
        target: &[u8],
        at: &Folder,
        name: &[u8],
    ) -> Result<(), ApplyError> {
        let shown = target.escape_ascii().to_string();
        let missing = || format!("a hard link to `{shown}`, which is not there");
        let (folder, target) = match entry_path(target, self.limits.path) {
            Ok(EntryPath::At(folder, target)) => (folder, target),
            Ok(_) => return Err(self.refused(path, missing())),
            Err(why) => {
                return Err(self.refused(path, format!("a hard link to `{shown}`, {why}")));
            }
        };
        let fail = |error| explain(&self.layer, path, error);
        let folder = match self.root.find(&folder) {
            Ok(Some(folder)) => folder,
            Ok(None) => return Err(self.refused(path, missing())),
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::NOTDIR | Errno::LOOP) => return Err(self.refused(path, missing())),
                _ => return Err(fail(error)),
            },
        };
        let Some(found) = stat(&folder, &target).map_err(fail)? else {
            return Err(self.refused(path, missing()));
        };
        if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
            return Err(self.refused(path, format!("a hard link to `{shown}`, a folder")));
        }
        // To itself, or again: removing what is there would take the target away.
        let there = stat(at, name).map_err(fail_of(&self.layer, path))?;
        if there.is_some_and(|it| it.st_ino == found.st_ino) {
            return Ok(());
        }
        let make = |at: &Folder, name: &[u8]| {
            linkat(&folder.fd, &target[..], &at.fd, name, AtFlags::empty())
        };
        match self.create(at, name, make) {
            // It was below what the link takes the place of.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(self.refused(path, missing()))
            }
            made => made.map_err(fail_of(&self.layer, path)),
        }
    }

    /// Makes a fifo or a device; where the kernel refuses a device, an empty file.
    fn special(
        &mut self,
        entry: &Entry,
        at: &Folder,
        name: &[u8],
        meta: &Metadata,
    ) -> io::Result<()> {
        let kind = match entry.kind {
            Kind::Character => FileType::CharacterDevice,
            Kind::Block => FileType::BlockDevice,
            _ => FileType::Fifo,
        };
        let (major, minor) = entry.device.unwrap_or_default();
        let device = makedev(major, minor);
        let mode = Mode::RUSR | Mode::WUSR;
        let make = |at: &Folder, name: &[u8]| mknodat(&at.fd, name, kind, mode, device);
        match self.create(at, name, make) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                self.applied.devices += 1;
                let file = self.create(at, name, new_file)?;
                self.applied.attributes += apply_metadata(&File::from(file), meta, self.is_root)?;
                Ok(())
            }
            Err(error) => Err(error),
            Ok(()) => {
                self.apply_named_metadata(at, name, meta)?;
                chmodat(
                    &at.fd,
                    name,
                    Mode::from_raw_mode(meta.mode),
                    AtFlags::empty(),
                )?;
                Ok(utimensat(
                    &at.fd,
                    name,
                    &meta.times(),
                    AtFlags::SYMLINK_NOFOLLOW,
                )?)
            }
        }
    }

    fn apply_link_metadata(&mut self, at: &Folder, name: &[u8], meta: &Metadata) -> io::Result<()> {
        self.apply_named_metadata(at, name, meta)?;
        Ok(utimensat(
            &at.fd,
            name,
            &meta.times(),
            AtFlags::SYMLINK_NOFOLLOW,
        )?)
    }

    /// Gives owner and attributes to what cannot be opened.
    fn apply_named_metadata(
        &mut self,
        at: &Folder,
        name: &[u8],
        meta: &Metadata,
    ) -> io::Result<()> {
        if self.is_root {
            let (uid, gid) = owner(meta);
            let given = chownat(&at.fd, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW);
            given.map_err(|error| unmapped(meta, error))?;
        }
        if meta.attributes.is_empty() {
            return Ok(());
        }
        // The kernel sets them by path alone. This one leads into a folder that is open, and to nowhere else.
        let mut path = format!("/proc/self/fd/{}/", at.fd.as_raw_fd()).into_bytes();
        path.extend_from_slice(name);
        self.applied.attributes += attributes(meta, |name, value| {
            lsetxattr(&path[..], name, value, XattrFlags::empty())
        })?;
        Ok(())
    }

    /// Gives all folders their modes, owners, attributes and times: those below before those above.
    fn apply_folder_metadata(&mut self, dir: &Path) -> Result<(), ApplyError> {
        let mut metadata = FolderMetadata {
            folders: &self.folders,
            is_root: self.is_root,
            attributes: 0,
            tick: self.tick,
        };
        let top = self.root.top();
        let done = (|| {
            let top = visit(Folder::new(top.fd.try_clone()?)?, &mut metadata)?;
            metadata.folder(&top)
        })();
        if !(self.tick)(0) {
            return Err(ApplyError::Stopped);
        }
        let what = || format!("give the folders of {} their modes", dir.display());
        done.map_err(|error| ApplyError::io(what(), error))?;
        self.applied.attributes += metadata.attributes;
        Ok(())
    }

    /// Counts the holes of a sparse file: they unpack to bytes that no decompressor has counted.
    fn count_holes(&mut self, holes: u64) -> Result<(), ApplyError> {
        self.holes = self.holes.saturating_add(holes);
        self.own_holes = self.own_holes.saturating_add(holes);
        if self.holes > self.limits.bytes {
            let bytes = format!("{} bytes", self.limits.bytes);
            let what = "and those below it unpack to more than anyone would expect";
            return Err(self.limit(what, bytes, "--max-size"));
        }
        let times = self.own_holes / self.limits.ratio.max(1);
        if self.own_holes > self.limits.grace && self.size.is_some_and(|size| times > size) {
            let ratio = format!("{} times its compressed size", self.limits.ratio);
            return Err(self.limit("unpacks to far more than it is", ratio, "--max-ratio"));
        }
        Ok(())
    }

    /// Counts what is held in memory.
    fn hold(&mut self, bytes: usize) -> Result<(), ApplyError> {
        self.held += bytes;
        match self.held > MAX_HELD {
            true => {
                let what = "has, with those below it, names and attributes of too many bytes";
                Err(self.limit(what, format!("{MAX_HELD} bytes"), ""))
            }
            false => Ok(()),
        }
    }

    fn refused(&self, path: &[u8], why: String) -> ApplyError {
        ApplyError::Entry {
            layer: self.layer.clone(),
            entry: shown(path),
            why,
        }
    }

    fn damaged(&self, source: io::Error) -> ApplyError {
        ApplyError::Damaged {
            layer: self.layer.clone(),
            source,
        }
    }

    fn limit(&self, what: &'static str, limit: String, option: &'static str) -> ApplyError {
        ApplyError::Limit {
            layer: self.layer.clone(),
            what,
            limit,
            option,
        }
    }
}

fn new_file(at: &Folder, name: &[u8]) -> Result<std::os::fd::OwnedFd, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(&at.fd, name, flags, Mode::RUSR | Mode::WUSR)
}

fn stat(at: &Folder, name: &[u8]) -> io::Result<Option<Stat>> {
    match statat(&at.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Explains why an entry cannot be written.
fn explain(layer: &str, path: &[u8], error: io::Error) -> ApplyError {
    ApplyError::io(format!("write `{}` of {layer}", shown(path)), error)
}

fn fail_of<'a>(layer: &'a str, path: &'a [u8]) -> impl Fn(io::Error) -> ApplyError + use<'a> {
    move |error| explain(layer, path, error)
}
