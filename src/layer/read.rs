//! Reads layers, and gathers the facts about the image that they make up.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::ops::Bound;

use super::{Attrs, Fact, Facts, LayerPath, Owner, Tick};
use crate::tar::{self, Entries, TarError, WHITEOUT, Whiteout};

/// How many bytes the paths and symlinks of an image may have in all, with the folders above them: they are held in memory.
const MAX_NAMES: usize = 512 << 20;

/// A layer that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is no tar, or has more than any real layer.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// The names of the image would fill the memory.
    #[error("it has paths and symlinks of more than {MAX_NAMES} bytes, with the layers below it")]
    TooLong,
    /// The user stopped it.
    #[error("stopped")]
    Stopped,
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Tar(error.into())
    }
}

/// Gathers the facts about an image from its layers, bottom first; with what is kept of each file besides.
#[derive(Default)]
pub struct FactsBuilder<F = ()> {
    pub(super) facts: Facts,
    /// What is neither folder nor symlink: a symlink to it is no fact that a layer above could depend on. Who keeps something
    /// of folders and symlinks has it here, too.
    pub(super) files: BTreeMap<LayerPath, F>,
    /// How many bytes the names have that were taken in.
    names: usize,
}

/// Says what is kept of the entries of layers, besides the facts.
pub(super) trait Keep<F> {
    /// Is shown each regular file on the way, whiteouts too: its path as it is written, and its content.
    fn show(&mut self, path: &LayerPath, content: &mut dyn Read) -> io::Result<()>;

    /// Is shown an entry whose name no path of ours can have.
    fn unnamed(&mut self, _entry: &tar::Entry) {}

    /// Returns what is kept of an entry, if anything; of a hard link, what is kept of its file is kept else. `number` is that
    /// of the entry in its layer.
    fn keep(&mut self, entry: &tar::Entry, number: usize) -> Option<F>;
}

/// Keeps nothing, and shows each file.
struct ShowAll<'a>(&'a mut dyn FnMut(&LayerPath, &mut dyn Read) -> io::Result<()>);

impl Keep<()> for ShowAll<'_> {
    fn show(&mut self, path: &LayerPath, content: &mut dyn Read) -> io::Result<()> {
        (self.0)(path, content)
    }

    fn keep(&mut self, entry: &tar::Entry, _: usize) -> Option<()> {
        (!matches!(entry.kind, tar::Kind::Folder | tar::Kind::Symlink)).then_some(())
    }
}

/// What an entry changes.
enum Change<F> {
    /// It is a folder or a symlink.
    Fact(Fact, Option<F>),
    /// It is anything else.
    File(F),
    /// It is one more name of a file, whose path is given if it is one of ours.
    Name(Option<LayerPath>),
}

impl FactsBuilder {
    /// Applies the next layer, whose uncompressed tar `reader` gives.
    ///
    /// # Errors
    /// When it is no tar, or holds what no image can hold, or the user stopped.
    pub fn apply(&mut self, reader: &mut dyn Read, tick: Tick<'_>) -> Result<(), ReadError> {
        self.apply_and_show(reader, tick, &mut |_, _| Ok(()))
    }

    /// Does the same, and shows each regular file on the way: its path as it is written, and its content.
    ///
    /// # Errors
    /// The same, and what `show` returns.
    pub fn apply_and_show(
        &mut self,
        reader: &mut dyn Read,
        tick: Tick<'_>,
        show: &mut dyn FnMut(&LayerPath, &mut dyn Read) -> io::Result<()>,
    ) -> Result<(), ReadError> {
        self.take(reader, tick, &mut ShowAll(show))
    }
}

impl<F: Clone + Default> FactsBuilder<F> {
    /// Returns what was gathered: all folders, and all symlinks but those to files. Nothing may be kept of
    /// folders and symlinks.
    pub fn finish(self) -> Facts {
        let mut facts = Facts::default();
        for (path, fact) in self.facts.iter() {
            let mut fact = fact.clone();
            if let Fact::Link { target, folder } = &mut fact {
                let parent = path.parent().unwrap_or_default();
                *folder = self.facts.leads_to_folder(&parent, target);
                let end = self.facts.end(&parent, target);
                if end.is_some_and(|end| self.files.contains_key(&end)) {
                    continue;
                }
            }
            facts.insert(path.clone(), fact);
        }
        facts
    }

    /// Applies the next layer, and keeps of it what `keep` says.
    pub(super) fn take(
        &mut self,
        reader: &mut dyn Read,
        tick: Tick<'_>,
        keep: &mut dyn Keep<F>,
    ) -> Result<(), ReadError> {
        let mut changes: Vec<(LayerPath, Change<F>)> = Vec::new();
        let mut tar = Entries::new(reader);
        let mut next = 0..;
        while let Some(entry) = tar.next_entry()? {
            let number = next.next().unwrap_or_default();
            if !tick(0) {
                return Err(ReadError::Stopped);
            }
            // What has a name that no path of ours can have is nothing that a layer above could depend on.
            let Some(path) = LayerPath::clean(&entry.path) else {
                keep.unnamed(&entry);
                continue;
            };
            if entry.kind == tar::Kind::File {
                keep.show(&path, &mut tar)?;
            }
            match (Whiteout::of(path.name().as_bytes()), path.parent()) {
                (Whiteout::None, _) | (_, None) => {}
                // Whiteouts hide what lower layers hold, never what this one does, wherever they stand in it.
                (Whiteout::Opaque, Some(parent)) => {
                    let real = self.facts.real(&parent).unwrap_or(parent);
                    let own = self.facts.get(&real).cloned();
                    self.remove(&real);
                    own.into_iter()
                        .for_each(|own| self.facts.insert(real.clone(), own));
                    continue;
                }
                (Whiteout::Name(_), Some(parent)) => {
                    let hidden = path.name().strip_prefix(WHITEOUT).unwrap_or_default();
                    self.remove(&self.place(&parent.child(hidden)));
                    continue;
                }
                (Whiteout::Meaningless | Whiteout::Invalid, _) => continue,
            }
            let kept = keep.keep(&entry, number);
            let change = match (entry.kind, kept) {
                (tar::Kind::Folder, kept) => Change::Fact(Fact::Folder(attrs(&entry)?), kept),
                (tar::Kind::Symlink, kept) => {
                    let target = entry.link.unwrap_or_default();
                    let target = String::from_utf8_lossy(&target).into_owned();
                    let folder = false;
                    Change::Fact(Fact::Link { target, folder }, kept)
                }
                (_, Some(kept)) => Change::File(kept),
                (_, None) => Change::Name(LayerPath::clean(&entry.link.unwrap_or_default())),
            };
            let target = match &change {
                Change::Fact(Fact::Link { target, .. }, _) => target.len(),
                Change::Name(Some(target)) => target.as_str().len(),
                _ => 0,
            };
            self.count(path.as_str().len() + target)?;
            changes.push((path, change));
        }
        for (path, change) in changes {
            if !tick(0) {
                return Err(ReadError::Stopped);
            }
            self.change(&path, change)?;
        }
        Ok(())
    }

    /// Changes what is at a path.
    fn change(&mut self, path: &LayerPath, change: Change<F>) -> Result<(), ReadError> {
        let place = self.place(path);
        if place.is_root() {
            return Ok(());
        }
        // Before its own place is cleared: it may be that of its file.
        let change = match change {
            Change::Name(target) => {
                let file = target.and_then(|it| self.files.get(&self.place(&it)));
                Change::File(file.cloned().unwrap_or_default())
            }
            other => other,
        };
        // A folder joins a folder; everything else takes the place of what was there.
        if !matches!(
            (self.facts.get(&place), &change),
            (
                None | Some(Fact::Folder(_)),
                Change::Fact(Fact::Folder(_), _)
            )
        ) {
            self.remove(&place);
        }
        // Some archives have files alone: runtimes make the folders above them.
        let mut above = place.parent();
        while let Some(folder) = above.filter(|it| !it.is_root()) {
            if self.facts.get(&folder).is_some() {
                break;
            }
            above = folder.parent();
            self.count(folder.as_str().len())?;
            self.facts.insert(folder, Fact::Folder(Attrs::FOLDER));
        }
        match change {
            Change::Fact(fact, kept) => {
                if let Some(kept) = kept {
                    self.files.insert(place.clone(), kept);
                }
                self.facts.insert(place, fact);
            }
            Change::File(kept) => drop(self.files.insert(place, kept)),
            Change::Name(_) => {}
        }
        Ok(())
    }

    /// Counts the bytes of a name.
    fn count(&mut self, bytes: usize) -> Result<(), ReadError> {
        self.names += bytes;
        match self.names > MAX_NAMES {
            true => Err(ReadError::TooLong),
            false => Ok(()),
        }
    }

    /// Forgets a path and all below it.
    fn remove(&mut self, path: &LayerPath) {
        self.facts.remove(path);
        self.files.remove(path);
        let prefix = path.prefix();
        let below = (Bound::Included(&*prefix), Bound::Unbounded);
        let below = self.files.range::<str, _>(below);
        let below = below.map(|(path, _)| path);
        let below = below.take_while(|it| it.as_str().starts_with(&prefix));
        let gone: Vec<LayerPath> = below.cloned().collect();
        gone.iter().for_each(|path| {
            self.files.remove(path);
        });
    }

    /// Returns the real path of an entry: its folder is followed, its own name is not. A circle is left as it is.
    fn place(&self, path: &LayerPath) -> LayerPath {
        match path.parent() {
            Some(parent) => self
                .facts
                .real(&parent)
                .unwrap_or(parent)
                .child(path.name()),
            None => path.clone(),
        }
    }
}

/// Returns mode and owner of an entry.
pub(super) fn attrs(entry: &tar::Entry) -> io::Result<Attrs> {
    let id = |id: u64| u32::try_from(id).map_err(|_| io::Error::other("an id exceeds 32 bits"));
    Ok(Attrs {
        mode: entry.mode as u16,
        owner: Owner {
            uid: id(entry.uid)?,
            gid: id(entry.gid)?,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Anew, Content, Entry, Kind, Tree, resolve, write};
    use super::*;
    use crate::oci::Compression;
    use crate::tar::testing;
    use std::sync::Arc;

    fn path(text: &str) -> LayerPath {
        LayerPath::parse(text).unwrap()
    }

    fn tar(entries: &[(&str, Kind)], removed: &[&str]) -> Vec<u8> {
        let mut tree = Tree::default();
        for (at, kind) in entries {
            tree.insert(path(at), Entry::new(kind.clone())).unwrap();
        }
        for at in removed {
            tree.remove(path(at));
        }
        let changes = resolve(&[Arc::new(tree)], &Facts::default()).unwrap();
        let mut out = Vec::new();
        write(&changes, Compression::None, &Anew, &mut out, &|_| true).unwrap();
        out
    }

    fn folder(mode: u16) -> Kind {
        let attrs = Attrs {
            mode,
            owner: Owner::default(),
        };
        Kind::Folder { attrs, firm: true }
    }

    fn link(target: &str) -> Kind {
        Kind::Symlink {
            target: target.into(),
            owner: Owner::default(),
        }
    }

    #[test]
    fn facts_of_a_stack_of_layers() {
        let file = Kind::File {
            attrs: Attrs {
                mode: 0o644,
                owner: Owner::default(),
            },
            content: Content::bytes(*b"x"),
        };
        let mut builder = FactsBuilder::default();
        let base = tar(
            &[
                ("usr/lib/x", file.clone()),
                ("lib", link("usr/lib")),
                ("lib64", link("/lib")),
                ("etc/mtab", link("/proc/mounts")),
                ("tmp", folder(0o1777)),
                ("old/deep/er", folder(0o700)),
                ("b", folder(0o711)),
            ],
            &[],
        );
        builder.apply(&mut &base[..], &|_| true).unwrap();
        let next = tar(&[("tmp/x", file.clone()), ("b", file)], &["old"]);
        builder.apply(&mut &next[..], &|_| true).unwrap();
        let facts = builder.finish();
        let text = facts.to_text();
        // The second tar was made without knowledge of the base, so its /tmp is 0755.
        let expected = "etc\tfolder\t755\t0\t0\netc/mtab\tmaybe\t/proc/mounts\nlib\tlink\tusr/lib\nlib64\tlink\t/lib\ntmp\tfolder\t755\t0\t0\nusr\tfolder\t755\t0\t0\nusr/lib\tfolder\t755\t0\t0\n";
        assert_eq!(text, expected);
    }

    /// Makes a tar of symlinks: their names and targets.
    fn links(all: impl Iterator<Item = (String, String)>) -> Vec<u8> {
        let one = |(name, target): (String, String)| {
            let long = |flag, text: &str| match text.len() {
                0..100 => Vec::new(),
                _ => testing::entry("long", flag, text.as_bytes()),
            };
            let short = |text: &str| text[..text.len().min(99)].to_owned();
            let headers = [long(b'L', &name), long(b'K', &target)].concat();
            let link = testing::link(&short(&name), b'2', &short(&target));
            [headers, link].concat()
        };
        all.flat_map(one).chain(testing::end()).collect()
    }

    #[test]
    fn names_that_would_fill_the_memory_are_refused() {
        let nearly_full = || FactsBuilder {
            names: MAX_NAMES - 1_000_000,
            ..FactsBuilder::default()
        };
        // 500 folders above it, of 500 bytes on average.
        let deep = vec!["a"; 500].join("/");
        let target = "x".repeat(250_000);
        let fold = |n: usize| links((0..n).map(|n| (format!("{n}/{deep}"), "x".to_owned())));
        let long = |n: usize| links((0..n).map(|n| (n.to_string(), target.clone())));
        for bytes in [fold(3), long(3)] {
            nearly_full().apply(&mut &bytes[..], &|_| true).unwrap();
        }
        for bytes in [fold(4), long(4)] {
            let error = nearly_full().apply(&mut &bytes[..], &|_| true);
            assert!(matches!(error, Err(ReadError::TooLong)));
        }
    }

    #[test]
    fn the_user_can_stop_it() {
        let bytes = links([("a".to_owned(), "b".to_owned())].into_iter());
        let stopped = FactsBuilder::default().apply(&mut &bytes[..], &|_| false);
        assert!(matches!(stopped, Err(ReadError::Stopped)));
    }

    #[test]
    fn siblings_do_not_slow_down_a_path_that_comes_again() {
        // The time beside that of as many paths of which none comes again: a walk over all siblings takes hundreds of times
        // as long.
        let take = |last: &dyn Fn(u32) -> String, expected: usize| {
            let siblings = (0..40_000).map(|n| (format!("a-{n}"), "x".to_owned()));
            let more = (0..8_000).map(|n| (last(n), "x".to_owned()));
            let bytes = links(siblings.chain(more));
            let start = std::time::Instant::now();
            let mut builder = FactsBuilder::default();
            builder.apply(&mut &bytes[..], &|_| true).unwrap();
            let time = start.elapsed();
            assert_eq!(builder.finish().iter().count(), expected);
            time
        };
        let new = take(&|n| format!("b-{n}"), 48_000);
        let again = take(&|_| "a".to_owned(), 40_001);
        assert!(again < 20 * new, "{again:?} and {new:?}");
    }
}
