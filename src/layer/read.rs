//! Reads layers and archives: decompresses them, and gathers the facts about the image they make up.

use std::collections::BTreeSet;
use std::io::{self, BufReader, Read};
use std::ops::Bound;

use super::{Attrs, Fact, Facts, HeaderGuard, LayerPath, OPAQUE, Owner, Tick, WHITEOUT};
use crate::oci::Compression;

/// How many entries a layer may have: enough for every real one, and an end to made-up ones.
pub(super) const MAX_ENTRIES: usize = 8_000_000;
/// How many bytes the paths and symlinks of an image may have in all, with the folders above them: they are held in memory.
pub(super) const MAX_NAMES: usize = 512 << 20;

/// A layer or archive that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is truncated, is not compressed as it says, or is no tar.
    #[error("it is damaged, or no tar archive")]
    Tar(#[source] io::Error),
    /// It has more entries than any real layer.
    #[error("it has more than {MAX_ENTRIES} entries")]
    TooMany,
    /// Its names would fill the memory.
    #[error("it has paths and symlinks of more than {MAX_NAMES} bytes, with the layers below it")]
    TooLong,
    /// The user stopped it.
    #[error("stopped")]
    Stopped,
    /// An entry has a path that no image can hold.
    #[error("it has an entry with a bad path")]
    Path(#[from] super::PathError),
}

/// Decompresses a stream: gzip with any number of members, zstd with any number of frames, or nothing at all.
///
/// # Errors
/// When a zstd decoder cannot be set up.
pub fn decoder<'a>(
    compression: Compression,
    reader: impl Read + Send + 'a,
) -> io::Result<Box<dyn Read + Send + 'a>> {
    Ok(match compression {
        Compression::None => Box::new(reader),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(
            BufReader::with_capacity(1 << 16, reader),
        )),
        Compression::Zstd => {
            let mut decoder = zstd::Decoder::new(reader)?;
            // 128 MiB: what zstd's own tool allows without being asked for more.
            decoder.window_log_max(27)?;
            Box::new(decoder)
        }
    })
}

/// A reader whose first bytes were looked at.
pub type Peeked<R> = io::Chain<io::Cursor<Vec<u8>>, R>;

/// Tells by the first bytes how a stream is compressed, and gives them back.
///
/// # Errors
/// When it cannot be read.
pub fn detect<R: Read>(mut reader: R) -> io::Result<(Compression, Peeked<R>)> {
    let mut magic = Vec::with_capacity(4);
    reader.by_ref().take(4).read_to_end(&mut magic)?;
    let compression = match magic[..] {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd] => Compression::Zstd,
        _ => Compression::None,
    };
    Ok((compression, io::Cursor::new(magic).chain(reader)))
}

/// Gathers the facts about an image from its layers, bottom first.
#[derive(Default)]
pub struct FactsBuilder {
    facts: Facts,
    /// What is neither folder nor symlink: a symlink to it is no fact that a layer above could depend on.
    files: BTreeSet<LayerPath>,
    /// How many bytes the names have that were taken in.
    names: usize,
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
        let mut changes: Vec<(LayerPath, Option<Fact>)> = Vec::new();
        let mut archive = tar::Archive::new(HeaderGuard::new(Padded { reader, read: 0 }));
        for (count, entry) in archive.entries().map_err(ReadError::Tar)?.enumerate() {
            if count > MAX_ENTRIES {
                return Err(ReadError::TooMany);
            }
            let mut entry = entry.map_err(ReadError::Tar)?;
            let path = LayerPath::parse_bytes(&entry.path_bytes())?;
            if entry.header().entry_type().is_file() {
                show(&path, &mut entry).map_err(ReadError::Tar)?;
            }
            let name = path.name();
            if let (Some(hidden), Some(parent)) = (name.strip_prefix(WHITEOUT), path.parent()) {
                // Whiteouts hide what lower layers hold, never what this one does, wherever they stand in it.
                if name == OPAQUE {
                    let real = self.facts.real(&parent).unwrap_or(parent);
                    let own = self.facts.get(&real).cloned();
                    self.remove(&real);
                    own.into_iter()
                        .for_each(|own| self.facts.insert(real.clone(), own));
                } else if let Ok(hidden) = parent.join(hidden) {
                    self.remove(&self.place(&hidden));
                }
                continue;
            }
            let header = entry.header();
            let fact = match header.entry_type() {
                tar::EntryType::Directory => {
                    Some(Fact::Folder(attrs(header).map_err(ReadError::Tar)?))
                }
                tar::EntryType::Symlink => {
                    let target = entry.link_name_bytes().unwrap_or_default();
                    let target = String::from_utf8_lossy(&target).into_owned();
                    Some(Fact::Link {
                        target,
                        folder: false,
                    })
                }
                _ => None,
            };
            let target = match &fact {
                Some(Fact::Link { target, .. }) => target.len(),
                _ => 0,
            };
            self.count(path.as_str().len() + target)?;
            changes.push((path, fact));
        }
        for (path, fact) in changes {
            if !tick(0) {
                return Err(ReadError::Stopped);
            }
            let place = self.place(&path);
            if place.is_root() {
                continue;
            }
            // A folder joins a folder; everything else takes the place of what was there.
            if !matches!(
                (self.facts.get(&place), &fact),
                (None | Some(Fact::Folder(_)), Some(Fact::Folder(_)))
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
            match fact {
                Some(fact) => self.facts.insert(place, fact),
                None => {
                    self.files.insert(place);
                }
            }
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
        let below = below.take_while(|it| it.as_str().starts_with(&prefix));
        let gone: Vec<LayerPath> = below.cloned().collect();
        gone.iter().for_each(|path| {
            self.files.remove(path);
        });
    }

    /// Returns what was gathered: all folders, and all symlinks but those to files.
    pub fn finish(self) -> Facts {
        let mut facts = Facts::default();
        for (path, fact) in self.facts.iter() {
            let mut fact = fact.clone();
            if let Fact::Link { target, folder } = &mut fact {
                let parent = path.parent().unwrap_or_default();
                *folder = self.facts.leads_to_folder(&parent, target);
                let end = self.facts.end(&parent, target);
                if end.is_some_and(|end| self.files.contains(&end)) {
                    continue;
                }
            }
            facts.insert(path.clone(), fact);
        }
        facts
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

/// Fills up the last block of a tar that ends with the last byte of its last file, as some tools write it.
pub(super) struct Padded<'a> {
    pub(super) reader: &'a mut dyn Read,
    pub(super) read: u64,
}

impl Read for Padded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut count = self.reader.read(buffer)?;
        if count == 0 {
            let missing = (self.read.next_multiple_of(512) - self.read) as usize;
            count = missing.min(buffer.len());
            buffer[..count].fill(0);
        }
        self.read += count as u64;
        Ok(count)
    }
}

/// Reads mode and owner from a header.
fn attrs(header: &tar::Header) -> io::Result<Attrs> {
    let id = |id: u64| u32::try_from(id).map_err(|_| io::Error::other("an id exceeds 32 bits"));
    Ok(Attrs {
        mode: (header.mode()? & 0o7777) as u16,
        owner: Owner {
            uid: id(header.uid()?)?,
            gid: id(header.gid()?)?,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Anew, Content, Entry, Kind, Tree, resolve, write};
    use super::*;
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
        let mut builder = tar::Builder::new(Vec::new());
        for (name, target) in all {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            builder.append_link(&mut header, name, target).unwrap();
        }
        builder.into_inner().unwrap()
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
        let siblings = (0..40_000).map(|n| (format!("a-{n}"), "x".to_owned()));
        let again = (0..8_000).map(|_| ("a".to_owned(), "x".to_owned()));
        let bytes = links(siblings.chain(again));
        let start = std::time::Instant::now();
        let mut builder = FactsBuilder::default();
        builder.apply(&mut &bytes[..], &|_| true).unwrap();
        assert!(start.elapsed() < std::time::Duration::from_secs(10));
        assert_eq!(builder.finish().iter().count(), 40_001);
    }

    #[test]
    fn members_frames_and_plain() {
        let data: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
        for compression in [Compression::Gzip, Compression::Zstd, Compression::None] {
            let blob: Vec<u8> = data
                .chunks(70_000)
                .flat_map(|chunk| super::super::compress::compress(compression, chunk))
                .collect();
            let (found, peeked) = detect(&blob[..]).unwrap();
            assert_eq!(found, compression);
            let mut out = Vec::new();
            decoder(found, peeked)
                .unwrap()
                .read_to_end(&mut out)
                .unwrap();
            assert!(out == data);
            if compression != Compression::None {
                let cut = &blob[..blob.len() - 5];
                assert!(
                    decoder(compression, cut)
                        .unwrap()
                        .read_to_end(&mut Vec::new())
                        .is_err()
                );
            }
        }
    }
}
