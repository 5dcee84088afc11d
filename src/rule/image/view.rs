//! The files of an image, as far as they are known: those of layers that are built here, and the programs of the base. Paths
//! are followed as the kernel follows them.

use std::sync::Arc;

use crate::layer::{Attrs, Changeset, Content, Fact, Facts, Kind, LayerPath, Programs};

/// How many symlinks a path may go through (Linux: 40).
const MAX_LINKS: usize = 40;

/// What is known of the files of a base.
pub(super) struct BaseFiles {
    /// Its folders and symlinks; where its layers were never here, only those that decide bytes of layers.
    pub(super) facts: Arc<Facts>,
    /// Its programs, if they are known.
    pub(super) programs: Option<Programs>,
}

/// The files of an image.
pub(super) struct View {
    /// The base, if there is one.
    pub(super) base: Option<BaseFiles>,
    /// The layers above it, bottom first.
    pub(super) layers: Vec<Arc<Changeset>>,
}

/// What is at a path.
pub(super) enum What<'a> {
    /// Nothing.
    Absent,
    /// That is not known.
    Unknown,
    /// A folder.
    Folder,
    /// A symlink with this text.
    Link(String),
    /// A file of a layer.
    File(Attrs, &'a Content),
    /// A program of the base.
    Program,
}

/// What is at the end of a path.
pub(super) struct Found<'a> {
    /// What it is; never a symlink.
    pub(super) what: What<'a>,
    /// The symlink that was followed last, and its text.
    pub(super) link: Option<(LayerPath, String)>,
}

impl View {
    /// Finds what is at the end of an absolute path, through all symlinks.
    pub(super) fn find(&self, path: &str) -> Found<'_> {
        let mut link = None;
        let mut budget = MAX_LINKS;
        let mut at = LayerPath::root();
        // The components that are left, the next one last.
        let mut left = components(path);
        let mut what = What::Folder;
        while let Some(name) = left.pop() {
            if name == ".." {
                at = at.parent().unwrap_or_default();
                what = What::Folder;
                continue;
            }
            let Ok(next) = at.join(&name) else {
                return Found {
                    what: What::Absent,
                    link,
                };
            };
            what = self.at(&next);
            match &what {
                What::Link(target) => {
                    let Some(less) = budget.checked_sub(1) else {
                        return Found {
                            what: What::Absent,
                            link,
                        };
                    };
                    budget = less;
                    link = Some((next.clone(), target.clone()));
                    if target.starts_with('/') {
                        at = LayerPath::root();
                    }
                    left.extend(components(target));
                    what = What::Folder;
                }
                // No file has anything below it.
                What::File(..) | What::Program if !left.is_empty() => {
                    return Found {
                        what: What::Absent,
                        link,
                    };
                }
                // Of a base, not all folders are known: what lies below says whether there is one.
                _ => at = next,
            }
        }
        Found { what, link }
    }

    /// Returns what is at a path whose folder is no symlink.
    fn at(&self, path: &LayerPath) -> What<'_> {
        for changes in self.layers.iter().rev() {
            if let Some(entry) = changes.find(path) {
                return match &entry.kind {
                    Kind::File { attrs, content } => What::File(*attrs, content),
                    Kind::Symlink { target, .. } => What::Link(target.clone()),
                    Kind::Folder { .. } => What::Folder,
                    Kind::Hardlink { target, attrs } => {
                        match changes.find(target).map(|it| &it.kind) {
                            Some(Kind::File { content, .. }) => What::File(*attrs, content),
                            _ => What::Unknown,
                        }
                    }
                };
            }
            if changes.folders.contains_key(path) {
                return What::Folder;
            }
            if changes.hides(path) {
                return What::Absent;
            }
        }
        let Some(base) = &self.base else {
            return What::Absent;
        };
        match base.facts.get(path) {
            Some(Fact::Folder(_)) => return What::Folder,
            Some(Fact::Link { target, .. }) => return What::Link(target.clone()),
            None => {}
        }
        match base.programs.as_ref().map(|it| it.get(path)) {
            None => What::Unknown,
            Some(None) => What::Absent,
            Some(Some(None)) => What::Program,
            Some(Some(Some(target))) => What::Link(target.to_owned()),
        }
    }

    /// Returns the names of what may be run in a folder, sorted.
    pub(super) fn programs(&self, folder: &str) -> Vec<String> {
        let Some(folder) = self.real(folder) else {
            return Vec::new();
        };
        let base = self.base.iter().filter_map(|base| base.programs.as_ref());
        let mut names: Vec<String> = base
            .flat_map(|it| it.names(&folder))
            .map(str::to_owned)
            .collect();
        for changes in &self.layers {
            let entries = changes.entries_in(&folder);
            names.extend(entries.map(|(name, _)| name.to_owned()));
        }
        names.sort();
        names.dedup();
        names.retain(|name| {
            let found = self.find(&format!("/{folder}/{name}")).what;
            matches!(found, What::Program | What::Unknown)
                || matches!(found, What::File(attrs, _) if attrs.mode & 0o111 != 0)
        });
        names
    }

    /// Returns the path of a folder, through all symlinks.
    fn real(&self, path: &str) -> Option<LayerPath> {
        let mut at = LayerPath::root();
        let mut left = components(path);
        let mut budget = MAX_LINKS;
        while let Some(name) = left.pop() {
            if name == ".." {
                at = at.parent().unwrap_or_default();
                continue;
            }
            let next = at.join(&name).ok()?;
            match self.at(&next) {
                What::Link(target) => {
                    budget = budget.checked_sub(1)?;
                    if target.starts_with('/') {
                        at = LayerPath::root();
                    }
                    left.extend(components(&target));
                }
                _ => at = next,
            }
        }
        Some(at)
    }
}

/// Returns the components of a path, the last one first.
fn components(path: &str) -> Vec<String> {
    let names = path.split('/').filter(|name| !matches!(*name, "" | "."));
    let mut names: Vec<String> = names.map(str::to_owned).collect();
    names.reverse();
    names
}
