//! The way back from [`apply`](super::apply()): what was changed in a folder, as a tree that a layer can be made of.
//!
//! The upper folder of an overlay holds the changes alone: removals are devices 0/0, and a folder with the attribute
//! `opaque` hides all that lies below it (kernel, Documentation/filesystems/overlayfs.rst). Of any other folder a
//! [`Snapshot`] is taken before, and what is not as it was then has changed. Both are read without following a symlink or
//! entering what is mounted there. Contents go to one stream, one after the other, so that the caller can keep them
//! wherever it likes; [`Changes::tree`] is told where that was.
//!
//! What no layer can hold is told or refused, never passed over in silence: see [`ChangedError`] and
//! [`Changes::left_out`]. Layers keep the attributes `user.*` and `security.capability` of files; others are the host's.
//! Names of one symlink become symlinks of their own. A folder that was made to mount something in is taken for one that
//! was made by who ran there, unless it is in [`Changed::except`].

mod attributes;
mod error;
mod gather;
mod ids;
mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

pub use error::ChangedError;
pub use ids::{Ids, Span};

use super::Limits;
use crate::layer::{Clash, Content, Entry, Kind, LayerPath, Source, Stamp, Tick, Tree};
use crate::oci::Digest;
use attributes::sees_trusted;
use gather::Gather;
use walk::{Names, Seen, Visitor, walk};

/// A folder to read, and how. Nobody may write to it meanwhile; who does so is noticed where a file or folder shows it.
#[derive(Clone, Copy)]
pub struct Changed<'a> {
    /// The folder.
    pub root: &'a Path,
    /// Whom its owners are inside of what ran there.
    pub ids: &'a Ids,
    /// Paths that are not looked at, with all below them: what the runtime mounts, and makes to mount it.
    pub except: &'a BTreeSet<LayerPath>,
    /// Paths that alone are looked at, with all below them and the folders above; all, if nothing is said.
    pub only: Option<&'a BTreeSet<LayerPath>>,
    /// Keeps modification times, in whole seconds; else they are 0.
    pub keep_mtime: bool,
    /// Leaves out sockets, fifos and devices, and tells of it; else they are refused.
    pub skip_special: bool,
    /// How many entries are looked at, and how many bytes files may have.
    pub limits: &'a Limits,
    /// Asked for each entry and piece of content; returns false to stop.
    pub tick: Tick<'a>,
}

/// What the folder was before.
#[derive(Clone, Copy)]
pub enum Before<'a> {
    /// The folder is the upper one of an overlay, mounted without `redirect_dir` and `metacopy`, and not any more.
    Overlay {
        /// The lower folder.
        lower: &'a Path,
        /// How the overlay wrote its own attributes.
        marks: Marks,
    },
    /// The folder itself, as it was.
    Snapshot(&'a Snapshot),
}

/// The names of the attributes that an overlay writes for itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Marks {
    /// `trusted.overlay.*`, which only root of the host sees.
    Trusted,
    /// `user.overlay.*`, as with the mount option `userxattr`.
    User,
}

/// What a folder was at one time: what `stat` says of all that is in it, by folder and name.
#[derive(Debug)]
pub struct Snapshot {
    top: Seen,
    folders: BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Seen>>,
}

/// Something that changed, and that no layer shows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeftOut {
    /// Its path in the folder, escaped; empty for the folder itself.
    pub path: String,
    /// What is left out, as the end of a sentence: "a socket".
    pub what: String,
}

/// What changed.
#[derive(Debug, Default)]
pub struct Changes {
    entries: BTreeMap<LayerPath, Found>,
    removed: BTreeSet<LayerPath>,
    left_out: Vec<LeftOut>,
}

/// An entry of the changes. The content of a file does not say yet in which file it is kept.
#[derive(Debug)]
struct Found {
    entry: Entry,
    content: Option<Range>,
    /// The number of a file that has other names.
    linked: Option<u64>,
}

/// Where the content of a file is in the stream of all contents.
#[derive(Clone, Copy, Debug)]
struct Range {
    offset: u64,
    size: u64,
    digest: Digest,
}

impl Changed<'_> {
    /// Takes a snapshot: what changes after this returns shows in [`Changed::read`].
    ///
    /// # Errors
    /// When the folder cannot be read, holds too much, or something is mounted in it.
    pub fn snapshot(&self) -> Result<Snapshot, ChangedError> {
        let mut taken = Taken {
            snapshot: None,
            newest: 0,
        };
        walk(self, &mut taken)?;
        // A change within the same tick of the clock would leave no trace.
        let stamp = Stamp {
            ctime: taken.newest,
            ..Stamp::default()
        };
        stamp.settle();
        taken
            .snapshot
            .ok_or_else(|| ChangedError::Moved(String::new()))
    }

    /// Reads what changed, and writes what files hold to `contents`.
    ///
    /// # Errors
    /// When something cannot be read, is no part of a layer, or changes meanwhile; when `contents` cannot be written, a
    /// limit is exceeded, or the tick says stop.
    pub fn read(
        &self,
        before: Before<'_>,
        contents: &mut dyn Write,
    ) -> Result<Changes, ChangedError> {
        if let Before::Overlay {
            marks: Marks::Trusted,
            ..
        } = before
            && !sees_trusted()
        {
            return Err(ChangedError::Hidden);
        }
        let mut gather = Gather::new(self, before, contents)?;
        walk(self, &mut gather)?;
        Ok(gather.finish())
    }

    /// Returns what the folder was where nothing was in it: then all that is in it has changed.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn nothing(&self) -> Result<Snapshot, ChangedError> {
        let fail = |source| ChangedError::Io {
            what: self.root.display().to_string(),
            source,
        };
        let stat = rustix::fs::stat(self.root).map_err(|error| fail(error.into()))?;
        Ok(Snapshot {
            top: Seen::of(&stat),
            folders: BTreeMap::new(),
        })
    }

    /// Tells whether a path is not to be looked at.
    fn skips(&self, path: &[u8]) -> bool {
        let is_wanted = |only: &BTreeSet<LayerPath>| {
            only.iter().any(|it| {
                let it = it.as_str().as_bytes();
                is_within(path, it) || is_within(it, path)
            })
        };
        if self.only.is_some_and(|only| !is_wanted(only)) {
            return true;
        }
        std::str::from_utf8(path).is_ok_and(|path| self.except.contains(path))
    }
}

/// Tells whether a path is another one, or lies below it.
fn is_within(path: &[u8], folder: &[u8]) -> bool {
    path.strip_prefix(folder)
        .is_some_and(|rest| rest.is_empty() || rest[0] == b'/' || folder.is_empty())
}

impl Changes {
    /// Tells whether nothing changed that a layer could show.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.removed.is_empty()
    }

    /// Returns what changed and is left out, sorted by path.
    pub fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    /// Returns the changes as a tree, whose contents lie in the file `contents`. Of the names of one file, the first is the
    /// file, and the others are hard links to it.
    ///
    /// # Errors
    /// Never, as names that no tree can hold were refused.
    pub fn tree(self, contents: &Arc<Path>) -> Result<Tree, Clash> {
        let mut tree = Tree::default();
        let mut first: BTreeMap<u64, LayerPath> = BTreeMap::new();
        for (path, mut found) in self.entries {
            if let (Kind::File { attrs, content }, Some(range)) =
                (&mut found.entry.kind, found.content)
            {
                let name = found
                    .linked
                    .map(|inode| first.entry(inode).or_insert_with(|| path.clone()));
                match name.filter(|name| **name != path) {
                    Some(target) => {
                        found.entry.kind = Kind::Hardlink {
                            target: target.clone(),
                            attrs: *attrs,
                        };
                        // They are the file's.
                        found.entry.xattrs = None;
                    }
                    None => {
                        *content = Content {
                            size: range.size,
                            digest: range.digest,
                            source: Source::Range {
                                path: contents.clone(),
                                offset: range.offset,
                            },
                        };
                    }
                }
            }
            tree.insert(path, found.entry)?;
        }
        for path in self.removed {
            tree.remove(path);
        }
        Ok(tree)
    }
}

/// Takes a snapshot.
struct Taken {
    snapshot: Option<Snapshot>,
    /// The time of the last change of anything, in nanoseconds since 1970.
    newest: i64,
}

impl Visitor for Taken {
    fn enter(
        &mut self,
        _: &super::root::Folder,
        path: &[u8],
        seen: &Seen,
        names: &Names,
    ) -> Result<(), ChangedError> {
        let times = names.iter().map(|(_, seen)| seen.changed());
        self.newest = times.fold(self.newest.max(seen.changed()), i64::max);
        let snapshot = self.snapshot.get_or_insert_with(|| Snapshot {
            top: *seen,
            folders: BTreeMap::new(),
        });
        let all = names.iter().cloned().collect();
        snapshot.folders.insert(path.to_vec(), all);
        Ok(())
    }

    fn leave(&mut self) -> Result<(), ChangedError> {
        Ok(())
    }
}
