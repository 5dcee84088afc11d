//! The content of a layer, in the order in which it is written; and what the image is like above it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Attrs, Entry, Fact, Facts, Kind, LayerPath};

/// A folder of a layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Folder {
    /// Mode and owner.
    pub attrs: Attrs,
    /// Modification time in seconds since 1970.
    pub mtime: u64,
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

/// Returns where the text of a symlink in `folder` leads; `None` if it is no path. `..` in the root stays in the root.
fn target_of(folder: &LayerPath, target: &str) -> Option<LayerPath> {
    let mut at = if target.starts_with('/') {
        LayerPath::root()
    } else {
        folder.clone()
    };
    for component in target.split('/') {
        at = match component {
            "" | "." => at,
            ".." => at.parent().unwrap_or_default(),
            name => at.join(name).ok()?,
        };
    }
    Some(at)
}

impl Changeset {
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
                let folder = path.parent().and_then(|parent| target_of(&parent, target));
                let folder = folder.is_some_and(|end| end.is_root() || facts.get(&end).is_some());
                facts.insert(
                    path.clone(),
                    Fact::Link {
                        target: target.clone(),
                        folder,
                    },
                );
            }
        }
        facts
    }
}
