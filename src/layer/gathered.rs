//! What is gathered about a base besides its facts: its programs, and the contents of a few small files.

use std::collections::BTreeMap;
use std::io::{self, Read};

use super::read::{Keep, attrs};
use super::{Attrs, Fact, Facts, FactsBuilder, LayerPath, Programs, ReadError, Tick};
use crate::tar;

/// A file whose content was wanted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct KeptFile {
    /// Its mode and owner.
    pub(crate) attrs: Attrs,
    /// Its content; `None` if that is larger than was wanted.
    pub(crate) content: Option<Vec<u8>>,
}

/// All that is gathered about an image.
pub(crate) struct Gathered {
    /// All folders, and all symlinks but those to files.
    pub(crate) facts: Facts,
    /// What can be started; `None` if there are too many files to say.
    pub(crate) programs: Option<Programs>,
    /// The files whose content was wanted, as far as there are regular files of these paths.
    pub(crate) kept: BTreeMap<LayerPath, KeptFile>,
}

/// What is kept of a file.
#[derive(Clone, Default)]
struct Seen {
    /// Whether it may be run.
    is_program: bool,
    /// Its content, if that was wanted.
    file: Option<KeptFile>,
}

/// Gathers all this from the layers of an image, bottom first.
pub(crate) struct Gatherer {
    builder: FactsBuilder<Seen>,
    /// Files whose content is wanted, by their paths in the image.
    wanted: &'static [&'static str],
    /// How many bytes of each are wanted at most.
    most: u64,
}

/// Looks at the files of one layer.
struct Look<'a, 'b> {
    wanted: &'static [&'static str],
    most: u64,
    /// The content of the file that was shown last, if it is wanted and not too large.
    content: Option<Vec<u8>>,
    show: &'a mut (dyn FnMut(&LayerPath, &mut dyn Read) -> io::Result<()> + 'b),
}

impl Look<'_, '_> {
    fn wants(&self, path: &LayerPath) -> bool {
        self.wanted.contains(&path.as_str())
    }
}

impl Keep<Seen> for Look<'_, '_> {
    fn show(&mut self, path: &LayerPath, content: &mut dyn Read) -> io::Result<()> {
        self.content = None;
        if !self.wants(path) {
            return (self.show)(path, content);
        }
        let mut bytes = Vec::new();
        content.take(self.most + 1).read_to_end(&mut bytes)?;
        (self.show)(path, &mut bytes.as_slice().chain(content))?;
        let fits = bytes.len() as u64 <= self.most;
        self.content = fits.then_some(bytes);
        Ok(())
    }

    fn keep(&mut self, entry: &tar::Entry, _: usize) -> Option<Seen> {
        let is_file = entry.kind == tar::Kind::File;
        match entry.kind {
            tar::Kind::Folder | tar::Kind::Symlink | tar::Kind::Hardlink => return None,
            _ => {}
        }
        let path = LayerPath::clean(&entry.path).filter(|path| is_file && self.wants(path));
        let file = path.and_then(|_| {
            let (attrs, content) = (attrs(entry).ok()?, self.content.take());
            Some(KeptFile { attrs, content })
        });
        Some(Seen {
            is_program: is_file && entry.mode & 0o111 != 0,
            file,
        })
    }
}

impl Gatherer {
    /// Makes one that keeps the content of the files at these paths, up to so many bytes each.
    pub(crate) fn keeping(wanted: &'static [&'static str], most: u64) -> Self {
        Self {
            builder: FactsBuilder::default(),
            wanted,
            most,
        }
    }

    /// Applies the next layer, whose uncompressed tar `reader` gives.
    ///
    /// # Errors
    /// When it is no tar, or holds what no image can hold, or the user stopped.
    pub(crate) fn apply(&mut self, reader: &mut dyn Read, tick: Tick<'_>) -> Result<(), ReadError> {
        self.apply_and_show(reader, tick, &mut |_, _| Ok(()))
    }

    /// Does the same, and shows each regular file on the way: its path as it is written, and its content.
    ///
    /// # Errors
    /// The same, and what `show` returns.
    pub(crate) fn apply_and_show(
        &mut self,
        reader: &mut dyn Read,
        tick: Tick<'_>,
        show: &mut dyn FnMut(&LayerPath, &mut dyn Read) -> io::Result<()>,
    ) -> Result<(), ReadError> {
        let mut look = Look {
            wanted: self.wanted,
            most: self.most,
            content: None,
            show,
        };
        self.builder.take(reader, tick, &mut look)
    }

    /// Returns all that was gathered.
    pub(crate) fn finish(self) -> Gathered {
        let files = || self.builder.files.iter();
        let programs = files().filter(|(_, seen)| seen.is_program);
        let links = self.builder.facts.iter();
        let links = links.filter_map(|(path, fact)| match fact {
            Fact::Link { target, .. } => Some((path.clone(), target.clone())),
            Fact::Folder(_) => None,
        });
        let programs = Programs::new(programs.map(|(path, _)| path.clone()), links);
        let kept = files().filter_map(|(path, seen)| Some((path.clone(), seen.file.clone()?)));
        Gathered {
            programs,
            kept: kept.collect(),
            facts: self.builder.finish(),
        }
    }
}
