//! The content of a layer, in the order in which it is written; and what the image is like above it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use super::{Attrs, Entry, Fact, Facts, Kind, LayerPath, Source};

/// A folder of a layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Folder {
    /// Mode and owner.
    pub attrs: Attrs,
    /// Modification time in seconds since 1970.
    pub mtime: i64,
}

/// The content of a layer, in the order in which it is written.
#[derive(Clone, Debug, Default)]
pub struct Changeset {
    /// Every folder of the layer.
    pub folders: BTreeMap<LayerPath, Folder>,
    /// The whiteouts of each folder: file names, sorted.
    pub whiteouts: BTreeMap<LayerPath, BTreeSet<String>>,
    /// Files and links by their real paths, one map for each part.
    pub parts: Vec<BTreeMap<LayerPath, Arc<Entry>>>,
    /// The notable facts below that decided something, sorted by path.
    pub used: Vec<(LayerPath, Fact)>,
    /// Paths that are gone from the image below, removed or replaced.
    pub(super) gone: BTreeSet<LayerPath>,
}

impl Changeset {
    /// Returns the files of the cache that contents lie in, and of each whether it must be checked before it is read:
    /// whether a content lies in it that has no checksum of its own there.
    pub fn containers(&self) -> BTreeMap<&Path, bool> {
        let mut found = BTreeMap::new();
        for entry in self.parts.iter().flat_map(BTreeMap::values) {
            let Kind::File { content, .. } = &entry.kind else {
                continue;
            };
            match &content.source {
                Source::Range { path, .. } => {
                    found.insert(&**path, true);
                }
                Source::Deflated(member) => {
                    found.entry(&*member.container.path).or_insert(false);
                }
                Source::Bytes(_) | Source::Host { .. } => {}
            }
        }
        found
    }

    /// Returns what the layer has at a real path, if that is no folder.
    pub fn find(&self, path: &LayerPath) -> Option<&Arc<Entry>> {
        self.parts.iter().find_map(|part| part.get(path))
    }

    /// Returns what the layer has in a folder itself: names and entries, but for folders.
    pub fn entries_in<'a>(
        &'a self,
        folder: &'a LayerPath,
    ) -> impl Iterator<Item = (&'a str, &'a Arc<Entry>)> + 'a {
        let prefix = folder.prefix();
        let parts = self.parts.iter().flat_map(move |part| {
            let from = (Bound::Included(&*prefix), Bound::Unbounded);
            let below: Vec<_> = part
                .range::<str, _>(from)
                .map_while(|(path, entry)| Some((path.as_str().strip_prefix(&*prefix)?, entry)))
                .collect();
            below
        });
        parts.filter(|(name, _)| !name.is_empty() && !name.contains('/'))
    }

    /// Tells whether the layer hides what lower layers have at a real path.
    pub fn hides(&self, path: &LayerPath) -> bool {
        let mut at = Some(path.clone());
        while let Some(path) = at.filter(|it| !it.is_root()) {
            if self.gone.contains(&path) || self.find(&path).is_some() {
                return true;
            }
            at = path.parent();
        }
        false
    }

    /// Returns the facts about the image with this layer on top of `below`.
    pub fn above(&self, below: &Facts) -> Facts {
        let mut facts = below.clone();
        for path in &self.gone {
            facts.remove(path);
        }
        for (path, folder) in &self.folders {
            facts.insert(path.clone(), Fact::Folder(folder.attrs));
        }
        for (path, entry) in self.parts.iter().flatten() {
            if facts.get(path).is_some() {
                facts.remove(path);
            }
            if let Kind::Symlink { target, .. } = &entry.kind {
                let (target, folder) = (target.clone(), false);
                facts.insert(path.clone(), Fact::Link { target, folder });
            }
        }
        // Only now are all folders and links there that these links may lead to.
        for (path, entry) in self.parts.iter().flatten() {
            if let Kind::Symlink { target, .. } = &entry.kind {
                let folder = facts.leads_to_folder(&path.parent().unwrap_or_default(), target);
                let target = target.clone();
                facts.insert(path.clone(), Fact::Link { target, folder });
            }
        }
        facts
    }
}
