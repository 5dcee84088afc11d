//! The entries of an archive, as a tree: where each goes, and whose content a hard link has.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use super::super::host::HostPath;
use super::super::patterns::Patterns;
use super::Unpack;
use crate::graph::{ActionError, Origin};
use crate::layer::{
    self, Attrs, Clash, Content, Entry, Kind, LayerPath, Owner, Source, Tick, Tree,
};
use crate::oci::{Digest, Hasher};
use crate::tar::{self, shown};

/// The content of a file of the archive: offset in the kept contents, size and digest.
type Range = (u64, u64, Digest);

/// What stands in the archive under a name: what a hard link to it becomes.
#[derive(Clone)]
enum Named {
    /// A file, the first name that it had, and what it holds.
    File(LayerPath, Attrs, Range),
    /// A symlink.
    Symlink(Entry),
    /// What no hard link can lead to: the word for it.
    Other(&'static str),
}

/// Gathers the entries of an archive.
pub(super) struct Listing<'a> {
    unpack: &'a Unpack,
    src: &'a HostPath,
    /// All entries of the archive by their own names, taken or not: hard links may name them.
    named: BTreeMap<LayerPath, Named>,
    entries: BTreeMap<LayerPath, (Entry, Option<Range>)>,
    /// How many bytes were kept.
    offset: u64,
    /// How many bytes may be unpacked yet.
    left: u64,
}

impl<'a> Listing<'a> {
    /// Begins the listing of an archive of `size` bytes.
    pub(super) fn new(unpack: &'a Unpack, src: &'a HostPath, size: u64) -> Self {
        Self {
            unpack,
            src,
            named: BTreeMap::new(),
            entries: BTreeMap::new(),
            offset: 0,
            left: layer::most_unpacked(size),
        }
    }

    fn fail(&self, message: String) -> ActionError {
        ActionError::new("imgdecl::tar::entry", message).at(&self.src.origin)
    }

    /// Refuses records for all entries that would change what this rule keeps: tools differ in whether they heed them.
    pub(super) fn check_globals<'k>(
        &self,
        keys: impl Iterator<Item = &'k [u8]>,
    ) -> Result<(), ActionError> {
        let counts = |key: &&[u8]| match *key {
            b"uid" | b"gid" => self.unpack.owner.is_none(),
            b"mtime" => self.unpack.keep_mtime,
            b"uname" | b"gname" => false,
            key => key.strip_prefix(b"SCHILY.xattr.").is_none_or(is_kept),
        };
        let keys: Vec<String> = keys
            .filter(counts)
            .map(|key| format!("`{}`", shown(key)))
            .collect();
        if keys.is_empty() {
            return Ok(());
        }
        let message = format!(
            "`{}` has the PAX records {} for all of its entries, which some tools heed and others do not",
            self.src.text,
            keys.join(", ")
        );
        Err(self.fail(message).help("make the archive without them"))
    }

    /// Adds an entry, whose content `reader` gives.
    pub(super) fn add(
        &mut self,
        found: tar::Entry,
        reader: &mut dyn Read,
        contents: &mut (dyn Write + Send),
        tick: Tick<'_>,
    ) -> Result<(), ActionError> {
        let text = &self.src.text;
        let name = LayerPath::parse_bytes(&found.path).map_err(|error| {
            self.fail(format!("`{text}` holds a path that no image can: {error}"))
                .help("leave it out when the archive is made")
        })?;
        if name.is_root() {
            return self.add_top(&found);
        }
        let attrs = self.attrs(&found)?;
        let place = self
            .place(&name)
            .map_err(|error| self.fail(error.to_string()))?;
        let mut range = None;
        let (named, made) = match found.kind {
            tar::Kind::Folder => (
                Named::Other("folder"),
                Entry::new(Kind::Folder { attrs, firm: true }),
            ),
            tar::Kind::Symlink => {
                let made = Entry::new(Kind::Symlink {
                    target: self.link(&found, &name)?,
                    owner: attrs.owner,
                });
                let made = self.with_details(made, &found);
                (Named::Symlink(made.clone()), made)
            }
            tar::Kind::Hardlink => {
                let named = self.linked(&found, &name)?;
                let made = match &named {
                    Named::Symlink(entry) => entry.clone(),
                    Named::File(first, attrs, content) => {
                        range = Some(*content);
                        let first = self.place(first);
                        let first = first.map_err(|error| self.fail(error.to_string()))?;
                        Entry::new(match first.filter(|it| self.entries.contains_key(it)) {
                            Some(target) => Kind::Hardlink {
                                target,
                                attrs: *attrs,
                            },
                            None => file(*attrs, *content, None),
                        })
                    }
                    Named::Other(word) => {
                        return Err(
                            self.fail(format!("/{name} in `{text}` is a hard link to a {word}"))
                        );
                    }
                };
                (named, made)
            }
            tar::Kind::File => {
                let content = self.keep(&found, &name, reader, contents, tick)?;
                range = Some(content);
                (
                    Named::File(name.clone(), attrs, content),
                    Entry::new(file(attrs, content, None)),
                )
            }
            other => {
                if place.is_some() {
                    let word = match other {
                        tar::Kind::Other(flag) => {
                            format!(
                                "of the unknown type `{}`",
                                char::from(flag).escape_default()
                            )
                        }
                        tar::Kind::Character | tar::Kind::Block => "a device".to_owned(),
                        other => format!("a {}", other.word()),
                    };
                    return Err(self.fail(format!("/{name} in `{text}` is {word}")).help(
                        "layers hold files, folders and links: leave it out with `exclude`",
                    ));
                }
                self.named.insert(name, Named::Other(other.word()));
                return Ok(());
            }
        };
        self.named.insert(name, named);
        if let Some(place) = place.filter(|place| !place.is_root()) {
            let made = match found.kind {
                // It has what the symlink has.
                tar::Kind::Hardlink if matches!(made.kind, Kind::Symlink { .. }) => made,
                _ => self.with_details(made, &found),
            };
            self.entries.insert(place, (made, range));
        }
        Ok(())
    }

    /// Adds the entry for the archive's own top, as `tar -C folder .` writes it.
    fn add_top(&mut self, found: &tar::Entry) -> Result<(), ActionError> {
        if found.kind != tar::Kind::Folder {
            let message = format!(
                "`{}` has an entry for its own top, `{}`, that is a {} and no folder",
                self.src.text,
                shown(&found.path),
                found.kind.word()
            );
            return Err(self.fail(message).help("make the archive again without it"));
        }
        let dest = &self.unpack.dest;
        let is_wanted = self.unpack.owner.is_none() && self.unpack.include.is_none();
        if is_wanted && self.unpack.strip == 0 && !dest.is_root() {
            let attrs = self.attrs(found)?;
            let made = self.with_details(Entry::new(Kind::Folder { attrs, firm: true }), found);
            self.entries.insert(dest.clone(), (made, None));
        }
        Ok(())
    }

    /// Returns mode and owner.
    fn attrs(&self, found: &tar::Entry) -> Result<Attrs, ActionError> {
        let id = |id: u64| {
            let text = &self.src.text;
            let entry = shown(&found.path);
            let message =
                || format!("`{entry}` in `{text}` has the owner {id}, which exceeds 32 bits");
            u32::try_from(id).map_err(|_| self.fail(message()))
        };
        let owner = match self.unpack.owner {
            Some(owner) => owner,
            None => Owner {
                uid: id(found.uid)?,
                gid: id(found.gid)?,
            },
        };
        Ok(Attrs {
            mode: found.mode as u16,
            owner,
        })
    }

    /// Adds time and attributes to what was made of an entry.
    fn with_details(&self, made: Entry, found: &tar::Entry) -> Entry {
        let attributes = found.attributes().filter(|(name, _)| is_kept(name));
        let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
        Entry {
            mtime: if self.unpack.keep_mtime {
                found.mtime.0
            } else {
                0
            },
            xattrs: attributes
                .map(|(name, value)| (text(name), value.to_vec()))
                .collect(),
            ..made
        }
    }

    /// Returns what a link leads to.
    fn link(&self, found: &tar::Entry, name: &LayerPath) -> Result<String, ActionError> {
        let text = found
            .link
            .clone()
            .and_then(|bytes| String::from_utf8(bytes).ok());
        let fits = |text: &String| (1..=4095).contains(&text.len()) && !text.contains('\0');
        text.filter(fits).ok_or_else(|| {
            let what = "a target that no link can have: empty, too long, or not UTF-8";
            self.fail(format!("/{name} in `{}` has {what}", self.src.text))
        })
    }

    /// Returns what a hard link leads to.
    fn linked(&self, found: &tar::Entry, name: &LayerPath) -> Result<Named, ActionError> {
        let target = LayerPath::parse(&self.link(found, name)?);
        let target = target.map_err(|error| self.fail(error.to_string()))?;
        self.named.get(&target).cloned().ok_or_else(|| {
            self.fail(format!(
                "/{name} in `{}` is a hard link to /{target}, which does not stand before it",
                self.src.text
            ))
            .help("the archive is not whole, or its order is wrong: make it again")
        })
    }

    /// Keeps the content of a file.
    fn keep(
        &mut self,
        found: &tar::Entry,
        name: &LayerPath,
        reader: &mut dyn Read,
        contents: &mut (dyn Write + Send),
        tick: Tick<'_>,
    ) -> Result<Range, ActionError> {
        let text = &self.src.text;
        let damaged = |error: io::Error| {
            self.fail(format!("/{name} in `{text}` cannot be read"))
                .because(&error)
        };
        let Some(left) = self.left.checked_sub(found.size) else {
            return Err(damaged(layer::too_large()).help(
                "if it is to be so, unpack it, and make an archive that is not compressed and has no sparse files",
            ));
        };
        let mut sink = Copy {
            contents,
            hasher: Hasher::default(),
            tick,
        };
        let size = io::copy(reader, &mut sink).map_err(damaged)?;
        let content = (self.offset, size, sink.hasher.finish());
        self.offset += size;
        self.left = left;
        Ok(content)
    }

    /// Returns where an entry goes; `None` if it is left out.
    fn place(&self, name: &LayerPath) -> Result<Option<LayerPath>, layer::PathError> {
        let rest: Vec<&str> = name.as_str().split('/').skip(self.unpack.strip).collect();
        let rest = rest.join("/");
        if rest.is_empty() {
            return Ok(None);
        }
        // A pattern that matches a folder takes all of it.
        let any = |patterns: &Patterns| {
            let ends = rest
                .match_indices('/')
                .map(|(at, _)| at)
                .chain([rest.len()]);
            // Each pattern that matches anywhere on the way counts as used: no short cut.
            ends.filter(|&end| patterns.matches(&rest[..end])).count() > 0
        };
        if any(&self.unpack.exclude) || !self.unpack.include.as_ref().is_none_or(any) {
            return Ok(None);
        }
        self.unpack.dest.join(&rest).map(Some)
    }

    /// Returns the tree, whose contents lie in the file `path`.
    pub(super) fn finish(self, path: &Arc<Path>, origin: &Origin) -> Result<Tree, ActionError> {
        let mut tree = Tree::default();
        let ranges: BTreeMap<LayerPath, Option<Range>> = self
            .entries
            .iter()
            .map(|(place, (_, range))| (place.clone(), *range))
            .collect();
        for (place, (mut entry, range)) in self.entries {
            match (&entry.kind, range) {
                // Where the path of its file stands in the archive again, with another content, a hard link keeps
                // what it had: it becomes a file of its own.
                (Kind::Hardlink { target, .. }, _) if ranges.get(target) == Some(&range) => {}
                (Kind::File { attrs, .. } | Kind::Hardlink { attrs, .. }, Some(range)) => {
                    entry.kind = file(*attrs, range, Some(path));
                }
                _ => {}
            }
            tree.insert(place, entry).map_err(|clash| {
                let error = ActionError::of("imgdecl::tar::entry", &clash).at(origin);
                match clash {
                    Clash::Whiteout(_) => error.help(
                        "exclude it; `remove` of a files layer deletes paths of the image below",
                    ),
                    _ => error,
                }
            })?;
        }
        Ok(tree)
    }
}

fn file(attrs: Attrs, (offset, size, digest): Range, path: Option<&Arc<Path>>) -> Kind {
    let path = path.cloned().unwrap_or_else(|| Path::new("").into());
    Kind::File {
        attrs,
        content: Content {
            size,
            digest,
            source: Source::Range { path, offset },
        },
    }
}

/// Tells whether an extended attribute is kept.
fn is_kept(name: &[u8]) -> bool {
    name.starts_with(b"user.") || name == b"security.capability"
}

/// Keeps what is written, and hashes it.
struct Copy<'a> {
    contents: &'a mut (dyn Write + Send),
    hasher: Hasher,
    tick: Tick<'a>,
}

impl Write for Copy<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !(self.tick)(bytes.len() as u64) {
            return Err(io::Error::other("stopped"));
        }
        self.contents.write_all(bytes)?;
        self.hasher.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
