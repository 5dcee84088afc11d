//! The entries of an archive, as a tree: where each goes, and whose content a hard link has.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use super::{Archive, Unpack};
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
    /// A file, where its first name was placed, and what it holds.
    File(Option<LayerPath>, Attrs, Range),
    /// A symlink.
    Symlink(Arc<Entry>),
    /// What no hard link can lead to: the word for it.
    Other(&'static str),
}

/// Gathers the entries of an archive.
pub(super) struct Listing<'a> {
    unpack: &'a Unpack,
    src: &'a Archive<'a>,
    /// Entries of the archive by their own names, which hard links may name: those that are not found by their places,
    /// since they are left out, or since `strip` brings several names to one place.
    named: BTreeMap<LayerPath, Named>,
    entries: BTreeMap<LayerPath, Arc<Entry>>,
    /// What the hard links among the entries hold.
    linked: BTreeMap<LayerPath, Range>,
    /// Where contents lie until it is known.
    nowhere: Arc<Path>,
    /// How many bytes were kept.
    offset: u64,
    /// How many bytes may be unpacked yet.
    left: u64,
}

impl<'a> Listing<'a> {
    /// Begins the listing of an archive.
    pub(super) fn new(unpack: &'a Unpack, src: &'a Archive<'a>) -> Self {
        Self {
            unpack,
            src,
            named: BTreeMap::new(),
            entries: BTreeMap::new(),
            linked: BTreeMap::new(),
            nowhere: Path::new("").into(),
            offset: 0,
            left: layer::most_unpacked(src.size),
        }
    }

    fn fail(&self, message: String) -> ActionError {
        ActionError::new("imgdecl::tar::entry", message).at(self.src.origin)
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
            key => key
                .strip_prefix(b"SCHILY.xattr.")
                .is_none_or(layer::is_kept_xattr),
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
        let text = self.src.text;
        let name = LayerPath::parse_bytes(&found.path).map_err(|error| {
            self.fail(format!("`{text}` holds a path that no image can: {error}"))
                .help("leave it out when the archive is made")
        })?;
        if name.is_root() {
            return self.add_top(&found);
        }
        let attrs = self.attrs(&found)?;
        let place = self
            .unpack
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
                (Named::Symlink(Arc::new(made.clone())), made)
            }
            tar::Kind::Hardlink => {
                let named = self.linked(&found, &name)?;
                let made = match &named {
                    Named::Symlink(entry) => Entry::clone(entry),
                    Named::File(first, attrs, content) => {
                        range = Some(*content);
                        let is_there = |it: &&LayerPath| self.entries.contains_key(*it);
                        Entry::new(match first.as_ref().filter(is_there) {
                            Some(target) => Kind::Hardlink {
                                target: target.clone(),
                                attrs: *attrs,
                            },
                            None => self.file(*attrs, *content),
                        })
                    }
                    Named::Other(word) => {
                        let message = format!("/{name} in `{text}` is a hard link to a {word}");
                        return Err(self.fail(message));
                    }
                };
                (named, made)
            }
            tar::Kind::File => {
                let content = self.keep(&found, &name, reader, contents, tick)?;
                let made = Entry::new(self.file(attrs, content));
                (Named::File(place.clone(), attrs, content), made)
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
        // A link to what was left out is a file of its own, and not what other links lead to.
        let is_first = match &named {
            Named::File(first, ..) => first.is_some(),
            _ => true,
        };
        match self.unpack.strip == 0 && is_first && place.is_some() {
            true => drop(self.named.remove(&name)),
            false => drop(self.named.insert(name, named)),
        }
        if let Some(place) = place.filter(|place| !place.is_root()) {
            let made = match found.kind {
                // It has what the symlink has.
                tar::Kind::Hardlink if matches!(made.kind, Kind::Symlink { .. }) => made,
                _ => self.with_details(made, &found),
            };
            let is_link = matches!(made.kind, Kind::Hardlink { .. });
            match range.filter(|_| is_link) {
                Some(range) => self.linked.insert(place.clone(), range),
                None => self.linked.remove(&place),
            };
            self.entries.insert(place, Arc::new(made));
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
            self.entries.insert(dest.clone(), Arc::new(made));
        }
        Ok(())
    }

    /// Returns mode and owner.
    fn attrs(&self, found: &tar::Entry) -> Result<Attrs, ActionError> {
        let id = |id: u64| {
            let text = self.src.text;
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
        Entry {
            mtime: if self.unpack.keep_mtime {
                found.mtime.0
            } else {
                0
            },
            xattrs: layer::xattrs(found),
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
        let found = match self.named.get(&target) {
            Some(named) => Some(named.clone()),
            None => self.placed(&target),
        };
        found.ok_or_else(|| {
            self.fail(format!(
                "/{name} in `{}` is a hard link to /{target}, which does not stand before it",
                self.src.text
            ))
            .help("the archive is not whole, or its order is wrong: make it again")
        })
    }

    /// Returns what an entry of that name became, where names and places go together.
    fn placed(&self, name: &LayerPath) -> Option<Named> {
        let place = self.unpack.dest.join(name.as_str()).ok()?;
        let entry = self
            .entries
            .get(&place)
            .filter(|_| self.unpack.strip == 0)?;
        Some(match &entry.kind {
            Kind::File { attrs, content } => Named::File(Some(place), *attrs, range_of(content)?),
            Kind::Hardlink { target, attrs } => {
                let range = self.linked.get(&place)?;
                Named::File(Some(target.clone()), *attrs, *range)
            }
            Kind::Symlink { .. } => Named::Symlink(entry.clone()),
            Kind::Folder { .. } => Named::Other("folder"),
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
        let text = self.src.text;
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

    /// Returns the tree, whose contents lie in the file `path`.
    pub(super) fn finish(self, path: &Arc<Path>, origin: &Origin) -> Result<Tree, ActionError> {
        drop(self.named);
        let held = |place: &LayerPath| match &self.entries.get(place)?.kind {
            Kind::File { content, .. } => range_of(content),
            Kind::Hardlink { .. } => self.linked.get(place).copied(),
            _ => None,
        };
        // Where the path of its file stands in the archive again, with another content, a hard link keeps what it had: it
        // becomes a file of its own.
        let mut alone: BTreeMap<LayerPath, Range> = BTreeMap::new();
        for (place, range) in &self.linked {
            let entry = self.entries.get(place).map(|entry| &entry.kind);
            if let Some(Kind::Hardlink { target, .. }) = entry
                && held(target) != Some(*range)
            {
                alone.insert(place.clone(), *range);
            }
        }
        let entries = self.entries.into_iter().map(|(place, mut entry)| {
            // Nobody else has it any more: nothing is copied.
            let it = Arc::make_mut(&mut entry);
            match &mut it.kind {
                Kind::File { content, .. } => content.source = source(path, content),
                Kind::Hardlink { attrs, .. } => {
                    if let Some(range) = alone.get(&place) {
                        it.kind = file(*attrs, *range, path.clone());
                    }
                }
                _ => {}
            }
            (place, entry)
        });
        Tree::from_sorted(entries).map_err(|clash| {
            let error = ActionError::of("imgdecl::tar::entry", &clash).at(origin);
            match clash {
                Clash::Whiteout(_) => error
                    .help("exclude it; `remove` of a files layer deletes paths of the image below"),
                _ => error,
            }
        })
    }

    fn file(&self, attrs: Attrs, range: Range) -> Kind {
        file(attrs, range, self.nowhere.clone())
    }
}

fn file(attrs: Attrs, (offset, size, digest): Range, path: Arc<Path>) -> Kind {
    Kind::File {
        attrs,
        content: Content {
            size,
            digest,
            source: Source::Range { path, offset },
        },
    }
}

/// Returns what a file of the archive holds.
fn range_of(content: &Content) -> Option<Range> {
    match &content.source {
        Source::Range { offset, .. } => Some((*offset, content.size, content.digest)),
        _ => None,
    }
}

/// Returns where a content lies in the file `path`.
fn source(path: &Arc<Path>, content: &Content) -> Source {
    match &content.source {
        Source::Range { offset, .. } => Source::Range {
            path: path.clone(),
            offset: *offset,
        },
        other => other.clone(),
    }
}

/// Keeps what is written, and hashes it.
pub(in crate::rule) struct Copy<'a> {
    pub(in crate::rule) contents: &'a mut (dyn Write + Send),
    pub(in crate::rule) hasher: Hasher,
    pub(in crate::rule) tick: Tick<'a>,
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
