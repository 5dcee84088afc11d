//! The files that the layers of an image make up together, by path, as a runtime would show them. Contents are not held: each
//! is known by its layer, and by its number there. Knows nothing of where layers come from.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::ops::Bound;
use std::sync::Arc;

use super::read::{Keep, attrs};
use super::{Attrs, Fact, FactsBuilder, LayerPath, ReadError, Tick};
use crate::tar;

/// How many names that no path can have are remembered.
const MAX_UNNAMED: usize = 1000;

/// Extended attributes by name.
pub(crate) type Xattrs = Arc<BTreeMap<String, Vec<u8>>>;

/// Which content a file has: hard links have the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct ContentAt {
    /// The number of the layer, the lowest first.
    pub(crate) layer: usize,
    /// The number of the entry in its tar.
    pub(crate) entry: usize,
}

/// What is at a path.
#[derive(Clone, Debug, Default)]
pub(crate) struct Item {
    /// What it is.
    pub(crate) kind: ItemKind,
    /// Its mode and owner.
    pub(crate) attrs: Option<Attrs>,
    /// Its extended attributes, as far as layers of ours can have them.
    pub(crate) xattrs: Option<Xattrs>,
}

/// What kind of thing is at a path.
#[derive(Clone, Debug)]
pub(crate) enum ItemKind {
    /// A folder.
    Folder,
    /// A file, and its content.
    File(ContentAt),
    /// A symlink, and its text.
    Symlink(String),
    /// What no layer of ours holds: the word for it.
    Other(&'static str),
}

/// A hard link to what is not there.
impl Default for ItemKind {
    fn default() -> Self {
        Self::Other("hard link to a file that is not there")
    }
}

/// An image, merged from its layers.
#[derive(Default)]
pub(crate) struct Merged {
    builder: FactsBuilder<Item>,
    /// How many layers were taken.
    layers: usize,
    /// The folders that hold names which no path of ours can have, and the names.
    unnamed: Vec<(LayerPath, Vec<u8>)>,
}

/// Keeps of each entry what it is.
struct KeepItems<'a> {
    layer: usize,
    unnamed: &'a mut Vec<(LayerPath, Vec<u8>)>,
}

impl Keep<Item> for KeepItems<'_> {
    fn show(&mut self, _: &LayerPath, _: &mut dyn Read) -> io::Result<()> {
        Ok(())
    }

    fn unnamed(&mut self, entry: &tar::Entry) {
        let path = &entry.path;
        let at = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        // Where not even its folder has a name, nobody can ask for it but with all that there is.
        let folder = LayerPath::clean(&path[..at]).unwrap_or_default();
        if self.unnamed.len() < MAX_UNNAMED {
            self.unnamed.push((folder, path.clone()));
        }
    }

    fn keep(&mut self, entry: &tar::Entry, number: usize) -> Option<Item> {
        let kind = match entry.kind {
            tar::Kind::Hardlink => return None,
            tar::Kind::Folder => ItemKind::Folder,
            // Its text is a fact.
            tar::Kind::Symlink => ItemKind::Symlink(String::new()),
            tar::Kind::File => {
                let layer = self.layer;
                ItemKind::File(ContentAt {
                    layer,
                    entry: number,
                })
            }
            tar::Kind::Character | tar::Kind::Block => ItemKind::Other("device"),
            other => ItemKind::Other(other.word()),
        };
        let attrs = attrs(entry).ok();
        let kind = match attrs {
            Some(_) => kind,
            None => ItemKind::Other("thing whose owner exceeds 32 bits"),
        };
        Some(Item {
            kind,
            attrs,
            xattrs: xattrs(entry),
        })
    }
}

/// Returns the extended attributes of an entry that layers of ours can have.
pub(crate) fn xattrs(entry: &tar::Entry) -> Option<Xattrs> {
    let kept = entry.attributes().filter(|(name, _)| is_kept_xattr(name));
    let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
    let kept: BTreeMap<_, _> = kept
        .map(|(name, value)| (text(name), value.to_vec()))
        .collect();
    (!kept.is_empty()).then(|| Arc::new(kept))
}

/// Tells whether an extended attribute is kept.
pub(crate) fn is_kept_xattr(name: &[u8]) -> bool {
    name.starts_with(b"user.") || name == b"security.capability"
}

impl Merged {
    /// Adds the next layer, whose uncompressed tar `reader` gives.
    ///
    /// # Errors
    /// When it is no tar, or holds what no image can hold, or the user stopped.
    pub(crate) fn add(&mut self, reader: &mut dyn Read, tick: Tick<'_>) -> Result<(), ReadError> {
        let mut keep = KeepItems {
            layer: self.layers,
            unnamed: &mut self.unnamed,
        };
        self.layers += 1;
        self.builder.take(reader, tick, &mut keep)
    }

    /// Follows all symlinks of a path, inside the image; `None` where that goes in circles.
    pub(crate) fn real(&self, path: &LayerPath) -> Option<LayerPath> {
        self.builder.facts.real(path)
    }

    /// Returns what is at a path.
    pub(crate) fn get(&self, path: &LayerPath) -> Option<Item> {
        let kept = self.builder.files.get(path);
        let kind = match self.builder.facts.get(path) {
            None => return kept.cloned(),
            Some(Fact::Folder(_)) => ItemKind::Folder,
            Some(Fact::Link { target, .. }) => ItemKind::Symlink(target.clone()),
        };
        let fact = match self.builder.facts.get(path) {
            Some(Fact::Folder(attrs)) => Some(*attrs),
            _ => None,
        };
        // Runtimes make a folder that no layer has, also where a file was.
        let fits = |it: &&Item| !matches!(it.kind, ItemKind::File(_) | ItemKind::Other(_));
        let kept = kept.filter(fits).cloned().unwrap_or_default();
        Some(Item {
            kind,
            attrs: fact.or(kept.attrs),
            xattrs: kept.xattrs,
        })
    }

    /// Returns the paths below a folder, sorted.
    pub(crate) fn below(&self, folder: &LayerPath) -> Vec<LayerPath> {
        let prefix = folder.prefix();
        let from = (Bound::Included(&*prefix), Bound::Unbounded);
        let is_below = |path: &&LayerPath| !path.is_root() && path.as_str().starts_with(&prefix);
        let facts = self.builder.facts.from(&prefix);
        let files = self.builder.files.range::<str, _>(from);
        let mut paths: Vec<LayerPath> = facts.take_while(is_below).cloned().collect();
        paths.extend(files.map(|(path, _)| path).take_while(is_below).cloned());
        paths.sort_unstable();
        paths.dedup();
        paths
    }

    /// Returns a name below a folder, or of something that it could be in, which no path of ours can have.
    pub(crate) fn unnamed(&self, folder: &LayerPath) -> Option<&[u8]> {
        let is_below = |at: &LayerPath| {
            let real = self.real(at);
            real.is_none_or(|real| real.is_within(folder))
        };
        let mut all = self.unnamed.iter();
        all.find(|(at, _)| is_below(at))
            .map(|(_, name)| name.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::testing;

    fn path(text: &str) -> LayerPath {
        LayerPath::parse(text).unwrap()
    }

    fn merged(layers: &[Vec<Vec<u8>>]) -> Merged {
        let mut merged = Merged::default();
        for layer in layers {
            let bytes = [layer.concat(), testing::end()].concat();
            merged.add(&mut &bytes[..], &|_| true).unwrap();
        }
        merged
    }

    fn file(name: &str) -> Vec<u8> {
        testing::entry(name, b'0', name.as_bytes())
    }

    fn content(merged: &Merged, at: &str) -> Option<(usize, usize)> {
        match merged.get(&path(at))?.kind {
            ItemKind::File(at) => Some((at.layer, at.entry)),
            _ => None,
        }
    }

    #[test]
    fn the_topmost_file_counts_and_whiteouts_hide() {
        let merged = merged(&[
            vec![file("a/one"), file("a/two"), file("b/three"), file("c/x")],
            vec![file("a/one"), file("a/.wh.two"), file("b/.wh..wh..opq")],
            vec![file("b/four"), file(".wh.c"), file("c/y")],
        ]);
        assert_eq!(content(&merged, "a/one"), Some((1, 0)));
        assert_eq!(content(&merged, "a/two"), None);
        assert_eq!(content(&merged, "b/three"), None);
        assert_eq!(content(&merged, "b/four"), Some((2, 0)));
        assert_eq!(content(&merged, "c/y"), Some((2, 2)));
        let below = merged.below(&LayerPath::root());
        let below: Vec<&str> = below.iter().map(LayerPath::as_str).collect();
        assert_eq!(below, ["a", "a/one", "b", "b/four", "c", "c/y"]);
    }

    #[test]
    fn links_lead_to_what_there_was() {
        let merged = merged(&[
            vec![
                file("bin/tool"),
                testing::link("bin/name", b'1', "bin/tool"),
            ],
            vec![
                file("bin/tool"),
                testing::link("sbin", b'2', "/bin"),
                testing::link("lost", b'1', "nowhere"),
            ],
            // Lands in bin, by the symlink below.
            vec![file("sbin/more")],
        ]);
        assert_eq!(content(&merged, "bin/name"), Some((0, 0)));
        assert_eq!(content(&merged, "bin/tool"), Some((1, 0)));
        assert_eq!(content(&merged, "bin/more"), Some((2, 0)));
        assert_eq!(merged.real(&path("sbin/more")), Some(path("bin/more")));
        let lost = merged.get(&path("lost")).unwrap();
        assert!(matches!(lost.kind, ItemKind::Other(_)));
    }

    #[test]
    fn a_folder_takes_the_place_of_a_file() {
        let merged = merged(&[
            vec![file("a")],
            vec![testing::entry("a/", b'5', b""), file("a/b")],
            vec![
                testing::entry("q", b'0', b""),
                testing::entry("x/\u{e9}\n", b'0', b""),
            ],
        ]);
        assert!(matches!(
            merged.get(&path("a")).unwrap().kind,
            ItemKind::Folder
        ));
        assert_eq!(content(&merged, "a/b"), Some((1, 1)));
        assert_eq!(merged.unnamed(&path("a")), None);
    }
}
