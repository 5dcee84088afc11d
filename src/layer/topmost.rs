//! Looks for one file from the topmost layer down, so that no layer below the one that has it need be there.
//!
//! Where an entry lands is decided by the symlinks of the layers below it, which are not there. So what is found is taken only
//! where no entry that was seen can have landed elsewhere than its path says, or hidden what was found: in all other cases,
//! all layers must be merged.

use std::collections::BTreeSet;
use std::io::{self, Read};

use super::merged::{ContentAt, Item, ItemKind, xattrs};
use super::read::attrs;
use super::{Fact, Facts, LayerPath, ReadError, Tick};
use crate::tar::{Entries, Entry, Kind, Whiteout};

/// What a layer says of the file.
pub(crate) enum Look {
    /// It is here.
    File(Item),
    /// A symlink is here, and this is where it leads.
    Link(LayerPath),
    /// It is in a layer below, if anywhere.
    Lower,
    /// It cannot be told without the other layers.
    Doubt,
}

/// A file that is looked for.
pub(crate) struct Topmost<'a> {
    /// Its real path.
    path: LayerPath,
    /// The folders above it, the outermost first.
    above: Vec<LayerPath>,
    /// The folders above it that layers above name: what was there before they did is not known.
    touched: BTreeSet<LayerPath>,
    facts: &'a Facts,
}

/// What was found in one layer.
#[derive(Default)]
struct Found {
    /// The last entry of that path.
    here: Option<Here>,
    /// The folders above it that the layer names before it.
    made: BTreeSet<LayerPath>,
    /// Whether something cannot be told.
    is_doubtful: bool,
    /// Whether it hides what lower layers have there.
    hides: bool,
}

/// An entry of the path.
struct Here {
    item: Item,
    /// The folders above it that came before it.
    made: BTreeSet<LayerPath>,
    link: Option<String>,
}

impl<'a> Topmost<'a> {
    /// Begins to look for a path of an image with these facts; `None` where it is a folder or leads nowhere.
    pub(crate) fn new(path: &LayerPath, facts: &'a Facts) -> Option<Self> {
        let path = facts.real(path)?;
        if path.is_root() || matches!(facts.get(&path), Some(Fact::Folder(_))) {
            return None;
        }
        let mut above = Vec::new();
        let mut next = path.parent();
        while let Some(at) = next.filter(|it| !it.is_root()) {
            next = at.parent();
            above.push(at);
        }
        above.reverse();
        Some(Self {
            path,
            above,
            touched: BTreeSet::new(),
            facts,
        })
    }

    /// Looks into the next layer below, whose uncompressed tar `reader` gives.
    ///
    /// # Errors
    /// When it is no tar, or the user stopped.
    pub(crate) fn look(
        &mut self,
        layer: usize,
        reader: &mut dyn Read,
        tick: Tick<'_>,
    ) -> Result<Look, ReadError> {
        let mut found = Found::default();
        let mut tar = Entries::new(reader);
        let mut number = 0;
        while let Some(entry) = tar.next_entry()? {
            if !tick(0) {
                return Err(ReadError::Stopped);
            }
            let at = ContentAt {
                layer,
                entry: number,
            };
            number += 1;
            self.take(&entry, at, &mut found)?;
        }
        if found.is_doubtful {
            return Ok(Look::Doubt);
        }
        let Some(here) = found.here else {
            self.touched.extend(found.made);
            return Ok(match found.hides {
                true => Look::Doubt,
                false => Look::Lower,
            });
        };
        // A folder above it that a layer above names may have been a symlink before: then this landed elsewhere.
        if self.touched.iter().any(|it| !here.made.contains(it)) {
            return Ok(Look::Doubt);
        }
        // So may one that this layer names only later.
        if found.made.iter().any(|it| !here.made.contains(it)) {
            return Ok(Look::Doubt);
        }
        let Some(link) = here.link else {
            return Ok(Look::File(here.item));
        };
        let folder = self.path.parent().unwrap_or_default();
        let end = self.facts.end(&folder, &link);
        Ok(end.map_or(Look::Doubt, Look::Link))
    }

    /// Takes one entry.
    fn take(&self, entry: &Entry, at: ContentAt, found: &mut Found) -> io::Result<()> {
        let name = self.path.name();
        let is_above = |name: &str| self.above.iter().any(|it| it.name() == name);
        let Some(path) = LayerPath::clean(&entry.path) else {
            // Its folder may be another name of the file's.
            let last = entry.path.rsplit(|byte| *byte == b'/').next();
            let last = String::from_utf8_lossy(last.unwrap_or_default());
            found.is_doubtful |= last == name || is_above(&last) || last.starts_with(".wh.");
            return Ok(());
        };
        match Whiteout::of(path.name().as_bytes()) {
            Whiteout::None => {}
            Whiteout::Opaque => {
                let parent = path.parent().unwrap_or_default();
                match parent.is_root() || self.above.contains(&parent) {
                    true => found.hides = true,
                    false => found.is_doubtful = true,
                }
                return Ok(());
            }
            Whiteout::Name(hidden) => {
                let hidden = String::from_utf8_lossy(hidden).into_owned();
                let parent = path.parent().unwrap_or_default();
                let literal = parent.join(&hidden).ok();
                let is_own = |it: &LayerPath| *it == self.path || self.above.contains(it);
                match literal.as_ref().is_some_and(is_own) {
                    true => found.hides = true,
                    false => found.is_doubtful |= hidden == name || is_above(&hidden),
                }
                return Ok(());
            }
            Whiteout::Meaningless | Whiteout::Invalid => return Ok(()),
        }
        if path == self.path {
            found.here = None;
            match entry.kind {
                Kind::File | Kind::Symlink => {}
                // What a hard link leads to may be anywhere.
                _ => found.is_doubtful = true,
            }
            let link = match entry.kind {
                Kind::Symlink => match String::from_utf8(entry.link.clone().unwrap_or_default()) {
                    Ok(text) => Some(text),
                    Err(_) => {
                        found.is_doubtful = true;
                        None
                    }
                },
                _ => None,
            };
            let item = Item {
                kind: ItemKind::File(at),
                attrs: Some(attrs(entry)?),
                xattrs: xattrs(entry),
            };
            let made = found.made.clone();
            found.here = Some(Here { item, made, link });
            return Ok(());
        }
        if self.above.contains(&path) {
            match entry.kind {
                Kind::Folder => drop(found.made.insert(path)),
                _ => found.is_doubtful = true,
            }
            return Ok(());
        }
        // By a symlink of a lower layer, it may land on the file or on a folder above it.
        let mut parts = path.as_str().split('/');
        found.is_doubtful |=
            parts.any(|it| it == name) || entry.kind != Kind::Folder && is_above(path.name());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Merged;
    use super::*;
    use crate::tar::testing;

    fn path(text: &str) -> LayerPath {
        LayerPath::parse(text).unwrap()
    }

    fn file(name: &str) -> Vec<u8> {
        testing::entry(name, b'0', name.as_bytes())
    }

    fn folder(name: &str) -> Vec<u8> {
        testing::entry(name, b'5', b"")
    }

    fn bytes(layer: &[Vec<u8>]) -> Vec<u8> {
        [layer.concat(), testing::end()].concat()
    }

    /// Looks for a file; returns its layer and entry, and how many layers were looked into. What is found must be what the
    /// merged layers have.
    fn look(at: &str, layers: &[Vec<Vec<u8>>]) -> (Option<(usize, usize)>, usize) {
        let mut merged = Merged::default();
        let mut facts = super::super::FactsBuilder::<()>::default();
        for layer in layers {
            merged.add(&mut &bytes(layer)[..], &|_| true).unwrap();
            facts.apply(&mut &bytes(layer)[..], &|_| true).unwrap();
        }
        // Such as a lock has them.
        let facts = facts.finish().only_notable();
        let mut wanted = path(at);
        let mut count = 0;
        'links: loop {
            let Some(mut topmost) = Topmost::new(&wanted, &facts) else {
                return (None, count);
            };
            for (number, layer) in layers.iter().enumerate().rev() {
                count += 1;
                let look = topmost.look(number, &mut &bytes(layer)[..], &|_| true);
                match look.unwrap() {
                    Look::File(item) => {
                        let ItemKind::File(found) = item.kind else {
                            panic!("no file");
                        };
                        let real = merged.real(&path(at)).unwrap();
                        let merged = merged.get(&real).map(|it| it.kind);
                        assert!(
                            matches!(merged, Some(ItemKind::File(it)) if it == found),
                            "{merged:?}"
                        );
                        return (Some((found.layer, found.entry)), count);
                    }
                    Look::Link(to) => {
                        wanted = to;
                        continue 'links;
                    }
                    Look::Lower => {}
                    Look::Doubt => return (None, count),
                }
            }
            return (None, count);
        }
    }

    #[test]
    fn what_is_on_top_needs_nothing_below() {
        let below = vec![folder("usr/"), file("usr/x")];
        let layers = [
            below.clone(),
            vec![folder("usr/"), folder("usr/bin/"), file("usr/bin/uv")],
            vec![folder("etc/"), file("etc/a")],
        ];
        assert_eq!(look("usr/bin/uv", &layers), (Some((1, 2)), 2));
        let layers = [below, vec![file("uv")]];
        assert_eq!(look("uv", &layers), (Some((1, 0)), 1));
    }

    #[test]
    fn links_are_followed_by_the_facts() {
        let layers = [
            vec![
                folder("usr/"),
                folder("usr/bin/"),
                testing::link("bin", b'2', "usr/bin"),
            ],
            vec![
                testing::entry("usr/bin/tool-2", b'0', b"x"),
                testing::link("usr/bin/tool", b'2', "tool-2"),
            ],
        ];
        assert_eq!(look("bin/tool", &layers), (Some((1, 0)), 2));
    }

    #[test]
    fn what_a_link_moved_is_never_mistaken() {
        // The second layer's a/x lands in b/x; the third makes a folder of a.
        let layers = [
            vec![testing::link("a", b'2', "b"), folder("b/"), file("b/x")],
            vec![file("a/x")],
            vec![file(".wh.a"), folder("a/")],
        ];
        assert_eq!(look("b/x", &layers).0, None);
        assert_eq!(look("a/x", &layers).0, None);
        let layers = [
            vec![testing::link("a", b'2', "b"), folder("b/"), file("b/x")],
            vec![file("a/x")],
            vec![folder("a/")],
        ];
        assert_eq!(look("b/x", &layers).0, None);
        assert_eq!(look("a/x", &layers).0, None);
    }

    #[test]
    fn what_is_hidden_or_no_plain_file_is_in_doubt() {
        let hidden = [vec![file("a/x")], vec![file("a/.wh.x")]];
        assert_eq!(look("a/x", &hidden).0, None);
        let opaque = [vec![file("a/x")], vec![file("a/.wh..wh..opq")]];
        assert_eq!(look("a/x", &opaque).0, None);
        let again = [vec![file("a/x")], vec![file("a/.wh..wh..opq"), file("a/x")]];
        assert_eq!(look("a/x", &again), (Some((1, 1)), 1));
        let hard = [vec![file("y"), testing::link("x", b'1', "y")]];
        assert_eq!(look("x", &hard).0, None);
        let folder = [vec![file("x/y")]];
        assert_eq!(look("x", &folder).0, None);
    }
}
