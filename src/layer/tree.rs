//! What a rule brings into an image: a sorted map from path to entry.
//!
//! No field here can hold a fact of the host: no atime, no ctime, no user name, and an mtime only as the rule wrote it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Content, LayerPath, PathError, quote};
use crate::oci::Digest;
use crate::tar::WHITEOUT;

/// The numeric owner of an entry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// Permission bits (at most 07777) and owner.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Attrs {
    /// Permission bits, with setuid, setgid and sticky.
    pub mode: u16,
    /// Owner.
    pub owner: Owner,
}

impl Attrs {
    /// What a folder has that nobody said anything about: 0755, 0:0.
    pub const FOLDER: Self = Self {
        mode: 0o755,
        owner: Owner { uid: 0, gid: 0 },
    };
}

/// One entry of a tree.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// The modification time in seconds since 1970, as the rule says.
    pub mtime: i64,
    /// Whether it may replace a folder, or a symlink to one, of the image below.
    pub replace: bool,
    /// Extended attributes by name, from archives only. Apart from the entry: few have any.
    pub xattrs: Option<Arc<BTreeMap<String, Vec<u8>>>>,
}

/// What an entry is.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A folder.
    Folder {
        /// Its mode and owner.
        attrs: Attrs,
        /// Whether they hold even where the image below knows better.
        firm: bool,
    },
    /// A regular file.
    File {
        /// Its mode and owner.
        attrs: Attrs,
        /// Its content.
        content: Content,
    },
    /// A symbolic link.
    Symlink {
        /// The link's text.
        target: String,
        /// Its owner.
        owner: Owner,
    },
    /// A hard link to a regular file of the same layer.
    Hardlink {
        /// The file.
        target: LayerPath,
        /// Mode and owner of the file, repeated in the link's header.
        attrs: Attrs,
    },
}

impl Kind {
    /// Returns the word for messages.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Folder { .. } => "folder",
            Self::File { .. } => "file",
            Self::Symlink { .. } => "symlink",
            Self::Hardlink { .. } => "hard link",
        }
    }
}

impl Entry {
    /// Makes an entry with mtime 0 that replaces nothing.
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            mtime: 0,
            replace: false,
            xattrs: None,
        }
    }

    /// Gives the entry these extended attributes, and no others.
    pub fn set_xattrs(&mut self, xattrs: BTreeMap<String, Vec<u8>>) {
        self.xattrs = (!xattrs.is_empty()).then(|| Arc::new(xattrs));
    }
}

/// An entry that cannot join a tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Clash {
    /// Two entries claim one path.
    #[error("two entries claim /{path}: {}", claims(first, second))]
    Twice {
        /// The path.
        path: LayerPath,
        /// The word for the entry that was there.
        first: &'static str,
        /// The word for the entry that came.
        second: &'static str,
    },
    /// Two folders claim one path with different modes or owners.
    #[error("/{0} is asked for twice, with different modes or owners")]
    Attrs(LayerPath),
    /// A file name that a runtime would read as a deletion.
    #[error("/{0} would delete a file: runtimes read names that start with `.wh.` as deletions")]
    Whiteout(LayerPath),
    /// The path is no path.
    #[error(transparent)]
    Path(#[from] PathError),
}

/// Says what two entries are.
fn claims(first: &str, second: &str) -> String {
    match first == second {
        true => format!("both are {first}s"),
        false => format!("a {first} and a {second}"),
    }
}

/// What a rule brings: entries by path, and the paths that it removes.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    entries: BTreeMap<LayerPath, Arc<Entry>>,
    removed: BTreeSet<LayerPath>,
}

impl Tree {
    /// Returns the entries, sorted by the bytes of their paths.
    pub fn entries(&self) -> &BTreeMap<LayerPath, Arc<Entry>> {
        &self.entries
    }

    /// Returns the paths that are removed from the image below.
    pub fn removed(&self) -> &BTreeSet<LayerPath> {
        &self.removed
    }

    /// Makes a tree of entries that are sorted by path and whose paths differ. It takes less memory than one whose entries
    /// came one by one.
    ///
    /// # Errors
    /// When a name is a whiteout's, or an entry is the root.
    pub fn from_sorted(
        entries: impl IntoIterator<Item = (LayerPath, Arc<Entry>)>,
    ) -> Result<Self, Clash> {
        let entries: BTreeMap<_, _> = entries.into_iter().collect();
        if let Some(path) = entries.keys().find(|path| is_whiteout(path)) {
            return Err(Clash::Whiteout(path.clone()));
        }
        if let Some((path, entry)) = entries.first_key_value().filter(|it| it.0.is_root()) {
            return Err(Clash::Twice {
                path: path.clone(),
                first: "folder",
                second: entry.kind.word(),
            });
        }
        Ok(Self {
            entries,
            removed: BTreeSet::new(),
        })
    }

    /// Adds an entry. Two folders at one path are one, if they agree.
    ///
    /// # Errors
    /// When the path is taken, or the name is a whiteout's.
    pub fn insert(&mut self, path: LayerPath, entry: Entry) -> Result<(), Clash> {
        if is_whiteout(&path) {
            return Err(Clash::Whiteout(path));
        }
        if path.is_root() {
            return match entry.kind {
                Kind::Folder { firm: false, .. } => Ok(()),
                _ => Err(Clash::Twice {
                    path,
                    first: "folder",
                    second: entry.kind.word(),
                }),
            };
        }
        let Some(present) = self.entries.get(&path) else {
            self.entries.insert(path, Arc::new(entry));
            return Ok(());
        };
        match (&present.kind, &entry.kind) {
            (
                Kind::Folder {
                    attrs: a,
                    firm: first,
                },
                Kind::Folder {
                    attrs: b,
                    firm: second,
                },
            ) => {
                if a != b && first == second {
                    return Err(Clash::Attrs(path));
                }
                if *second && !first {
                    self.entries.insert(path, Arc::new(entry));
                }
                Ok(())
            }
            (a, b) => Err(Clash::Twice {
                first: a.word(),
                second: b.word(),
                path,
            }),
        }
    }

    /// Removes `path`, and everything below it, from the image below.
    pub fn remove(&mut self, path: LayerPath) {
        self.removed.insert(path);
    }

    /// Adds all of `other`.
    ///
    /// # Errors
    /// As [`Tree::insert`].
    pub fn merge(&mut self, other: Self) -> Result<(), Clash> {
        if self.entries.is_empty() {
            self.entries = other.entries;
        } else {
            for (path, entry) in other.entries {
                self.insert(path, Arc::unwrap_or_clone(entry))?;
            }
        }
        self.removed.extend(other.removed);
        Ok(())
    }

    /// Calls `line` with one line of text for each removal and entry: all that decides the bytes of the layer,
    /// and nothing of the host.
    pub fn listing(&self, mut line: impl FnMut(&str)) {
        let mut text = String::new();
        for path in &self.removed {
            text.clear();
            quote(path.as_str(), &mut text);
            text.push_str(" remove");
            line(&text);
        }
        for (path, entry) in &self.entries {
            text.clear();
            entry.describe(path, &mut text);
            line(&text);
        }
    }

    /// Returns the digest of the listing.
    pub fn digest(&self) -> Digest {
        let mut hasher = crate::oci::Hasher::default();
        self.listing(|line| {
            hasher.update(&(line.len() as u64).to_le_bytes());
            hasher.update(line.as_bytes());
        });
        hasher.finish()
    }
}

impl Entry {
    fn describe(&self, path: &LayerPath, text: &mut String) {
        use std::fmt::Write as _;
        let (word, attrs) = match &self.kind {
            Kind::Folder { attrs, firm: true } => ("folder!", *attrs),
            Kind::Folder { attrs, firm: false } => ("folder", *attrs),
            Kind::File { attrs, .. } => ("file", *attrs),
            Kind::Symlink { owner, .. } => (
                "symlink",
                Attrs {
                    mode: 0o777,
                    owner: *owner,
                },
            ),
            Kind::Hardlink { attrs, .. } => ("hardlink", *attrs),
        };
        let Owner { uid, gid } = attrs.owner;
        quote(path.as_str(), text);
        let (mode, mtime) = (attrs.mode, self.mtime);
        let _ = write!(text, " {word} {mode:04o} {uid}:{gid} {mtime}");
        match &self.kind {
            Kind::File { content, .. } => {
                let _ = write!(text, " {} ", content.size);
                content.digest.push_hex(text);
                // It may be passed on as it is: then its deflated bytes decide those of the layer.
                if let Some(member) = content.passable() {
                    let _ = write!(text, " deflated {} {} ", member.offset, member.length);
                    member.container.digest.push_hex(text);
                }
            }
            Kind::Symlink { target, .. } => {
                text.push(' ');
                quote(target, text);
            }
            Kind::Hardlink { target, .. } => {
                text.push(' ');
                quote(target.as_str(), text);
            }
            Kind::Folder { .. } => {}
        }
        for (name, value) in self.xattrs.iter().flat_map(|it| it.iter()) {
            text.push(' ');
            quote(name, text);
            let _ = write!(text, "={}", Digest::of(value).hex());
        }
        if self.replace {
            text.push_str(" replace");
        }
    }
}

/// Tells whether some component of the path is the name of a whiteout.
fn is_whiteout(path: &LayerPath) -> bool {
    path.as_str().starts_with(WHITEOUT) || path.as_str().contains("/.wh.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> LayerPath {
        LayerPath::parse(text).unwrap()
    }

    fn file() -> Entry {
        Entry::new(Kind::File {
            attrs: Attrs {
                mode: 0o644,
                owner: Owner::default(),
            },
            content: Content::bytes(*b"x"),
        })
    }

    fn folder(mode: u16, firm: bool) -> Entry {
        let attrs = Attrs {
            mode,
            owner: Owner::default(),
        };
        Entry::new(Kind::Folder { attrs, firm })
    }

    #[test]
    fn one_path_one_entry() {
        let mut tree = Tree::default();
        tree.insert(path("a/b"), file()).unwrap();
        assert!(matches!(
            tree.insert(path("/a//b"), file()),
            Err(Clash::Twice { .. })
        ));
        tree.insert(path("c"), folder(0o755, false)).unwrap();
        tree.insert(path("c"), folder(0o755, false)).unwrap();
        tree.insert(path("c"), folder(0o700, true)).unwrap();
        tree.insert(path("c"), folder(0o755, false)).unwrap();
        assert!(matches!(
            tree.insert(path("c"), folder(0o750, true)),
            Err(Clash::Attrs(_))
        ));
        assert!(matches!(
            tree.insert(path("c"), file()),
            Err(Clash::Twice { .. })
        ));
        for name in [".wh.x", "a/.wh..wh..opq", "a/.wh.d/x"] {
            assert!(matches!(
                tree.insert(path(name), file()),
                Err(Clash::Whiteout(_))
            ));
        }
    }

    #[test]
    fn digest_sees_what_matters() {
        let mut one = Tree::default();
        one.insert(path("a"), file()).unwrap();
        let mut two = Tree::default();
        two.insert(path("a"), Entry { mtime: 1, ..file() }).unwrap();
        let mut three = one.clone();
        three.remove(path("b"));
        let mut four = Tree::default();
        four.insert(path("replace a"), file()).unwrap();
        let mut five = Tree::default();
        let replace = true;
        five.insert(path("a"), Entry { replace, ..file() }).unwrap();
        let trees = [one, two, three, four, five];
        let digests: BTreeSet<Digest> = trees.iter().map(Tree::digest).collect();
        assert_eq!(digests.len(), trees.len());
    }
}
