//! Puts trees onto what lies below: finds the real place of every entry and the attributes of every folder.
//!
//! The result is a [`Changeset`], which decides the bytes of the layer together with the compression. Only the facts
//! that touch the layer's own folders are recorded as used, so the same tree is the same layer on most bases.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Attrs, Changeset, Clash, Entry, Fact, Facts, Folder, Kind, LayerPath, Tree};
use crate::tar::{OPAQUE, WHITEOUT};

/// How many symlinks a path may go through before it counts as a cycle (Linux: 40).
const MAX_LINKS: usize = 40;

/// Trees that cannot be put onto what lies below.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// Two entries land at one path.
    #[error(transparent)]
    Clash(#[from] Clash),
    /// An entry lies below something that is no folder in the same layer.
    #[error("/{below} cannot lie below /{path}, which is a {word} in the same layer")]
    NoFolder {
        /// The entry.
        below: LayerPath,
        /// What it lies below.
        path: LayerPath,
        /// What that is.
        word: &'static str,
    },
    /// An entry would replace a folder, or a symlink to one, of the image below.
    #[error("/{path} is a {below} in the image below; a {word} would replace it")]
    Replaces {
        /// The path.
        path: LayerPath,
        /// What it is below.
        below: String,
        /// What would come.
        word: &'static str,
    },
    /// A symlink of the image below leads in a circle, or out of the image.
    #[error("/{0} goes through a symlink of the image below that leads nowhere")]
    Links(LayerPath),
    /// The target of a hard link is no file of the same layer.
    #[error("/{link} is a hard link to /{target}, which is no file of the same layer")]
    Hardlink {
        /// The link.
        link: LayerPath,
        /// Its target.
        target: LayerPath,
    },
}

/// Puts `parts` onto the image that `below` describes. Each tree becomes one part of the layer.
///
/// # Errors
/// All entries that cannot be placed, at most one error for each.
pub fn resolve(parts: &[Arc<Tree>], below: &Facts) -> Result<Changeset, Vec<ResolveError>> {
    let mut resolver = Resolver {
        trees: parts,
        below,
        last: None,
        real: BTreeMap::new(),
        used: BTreeMap::new(),
        folders: BTreeMap::new(),
        firm: BTreeMap::new(),
        removed: BTreeSet::new(),
    };
    let mut errors = Vec::new();
    resolver
        .run(&mut errors)
        .filter(|_| errors.is_empty())
        .ok_or(errors)
}

struct Resolver<'a> {
    trees: &'a [Arc<Tree>],
    below: &'a Facts,
    /// The folder that was asked for last, and where it really lies.
    last: Option<(LayerPath, LayerPath)>,
    /// Where each folder that was asked for really lies.
    real: BTreeMap<LayerPath, LayerPath>,
    used: BTreeMap<LayerPath, Fact>,
    folders: BTreeMap<LayerPath, Folder>,
    /// The folders for which a firm entry spoke.
    firm: BTreeMap<LayerPath, Attrs>,
    removed: BTreeSet<LayerPath>,
}

impl Resolver<'_> {
    fn run(&mut self, errors: &mut Vec<ResolveError>) -> Option<Changeset> {
        let mut changes = Changeset::default();
        let mut places = BTreeSet::new();
        for path in self.trees.iter().flat_map(|tree| tree.removed()) {
            let parent = path.parent().unwrap_or_default();
            match self.follow(&parent, 0) {
                Ok(real) => drop(places.insert(real.child(path.name()))),
                Err(error) => errors.push(error),
            }
        }
        // What lies in another removed place goes with it.
        let is_outer = |place: &&LayerPath| !ancestors(place).any(|above| places.contains(&above));
        let removed: BTreeSet<LayerPath> = places.iter().filter(is_outer).cloned().collect();
        for place in &removed {
            self.folder(&place.parent().unwrap_or_default())
                .map_err(|error| errors.push(error))
                .ok();
        }
        // Removals were placed through the links below; everything else must not see what they remove.
        self.removed = removed;
        self.real.clear();
        self.last = None;

        for tree in self.trees {
            let mut part = BTreeMap::new();
            for (path, entry) in tree.entries() {
                if let Err(error) = self.add(path, entry, &mut part, &changes.parts) {
                    errors.push(error);
                }
            }
            changes.parts.push(part);
        }
        self.check_links(&changes.parts, errors);
        self.whiteouts(&mut changes);
        changes.folders = std::mem::take(&mut self.folders);
        for part in &changes.parts {
            for (path, entry) in part {
                if changes.folders.contains_key(path) {
                    let folders = changes.folders.keys();
                    let others = changes.parts.iter().flat_map(BTreeMap::keys);
                    let mut below = others
                        .chain(folders)
                        .filter(|it| it.is_within(path) && *it != path);
                    errors.push(ResolveError::NoFolder {
                        below: below.next().unwrap_or(path).clone(),
                        path: path.clone(),
                        word: entry.kind.word(),
                    });
                }
            }
        }
        changes.used = std::mem::take(&mut self.used).into_iter().collect();
        Some(changes)
    }

    fn add(
        &mut self,
        path: &LayerPath,
        entry: &Arc<Entry>,
        part: &mut BTreeMap<LayerPath, Arc<Entry>>,
        earlier: &[BTreeMap<LayerPath, Arc<Entry>>],
    ) -> Result<(), ResolveError> {
        if let Kind::Folder { attrs, firm } = entry.kind {
            let place = self.folder(path)?;
            let known =
                matches!(self.below(&place), Some(fact @ Fact::Folder(_)) if fact.is_notable());
            let first = self.firm.get(&place).copied();
            if firm {
                if first.is_some_and(|first| first != attrs) {
                    return Err(Clash::Attrs(place).into());
                }
                self.firm.insert(place.clone(), attrs);
            }
            if (firm || (!known && first.is_none()))
                && let Some(folder) = self.folders.get_mut(&place)
            {
                *folder = Folder {
                    attrs,
                    mtime: entry.mtime,
                };
            }
            return Ok(());
        }
        let place = self.place(path)?;
        let word = entry.kind.word();
        if !entry.replace {
            let below = match (self.below(&place), &entry.kind) {
                (Some(Fact::Folder(_)), _) => Some("folder".to_owned()),
                (Some(Fact::Link { target: below, .. }), Kind::Symlink { target, .. })
                    if below == target =>
                {
                    None
                }
                (
                    Some(Fact::Link {
                        target,
                        folder: true,
                    }),
                    _,
                ) => Some(format!("symlink to {target}")),
                _ => None,
            };
            if let Some(below) = below {
                return Err(ResolveError::Replaces {
                    path: place,
                    below,
                    word,
                });
            }
        }
        let taken = part
            .get(&place)
            .or_else(|| earlier.iter().find_map(|part| part.get(&place)));
        if let Some(first) = taken {
            let first = first.kind.word();
            return Err(Clash::Twice {
                path: place,
                first,
                second: word,
            }
            .into());
        }
        let entry = match &entry.kind {
            Kind::Hardlink { target, attrs } => {
                let kind = Kind::Hardlink {
                    target: self.place(target)?,
                    attrs: *attrs,
                };
                Arc::new(Entry {
                    kind,
                    ..Entry::clone(entry)
                })
            }
            _ => entry.clone(),
        };
        part.insert(place, entry);
        Ok(())
    }

    /// Returns the real path of an entry that is no folder: its folder is followed, its own name is not.
    fn place(&mut self, path: &LayerPath) -> Result<LayerPath, ResolveError> {
        let Some((parent, name)) = path.split() else {
            return Ok(path.clone());
        };
        // Entries come sorted: most lie in the folder of the one before.
        if let Some((known, real)) = &self.last
            && known.as_str() == parent
        {
            return Ok(placed(path, known, real, name));
        }
        let parent = path.parent().unwrap_or_default();
        let real = self.folder(&parent)?;
        let place = placed(path, &parent, &real, name);
        self.last = Some((parent, real));
        Ok(place)
    }

    /// Returns the real path of a folder, and makes it, and all above it, folders of the layer.
    fn folder(&mut self, path: &LayerPath) -> Result<LayerPath, ResolveError> {
        let real = self.follow(path, 0)?;
        let mut up = Some(real.clone());
        while let Some(at) = up.filter(|at| !at.is_root() && !self.folders.contains_key(at)) {
            let attrs = match self.below(&at) {
                Some(Fact::Folder(attrs)) => *attrs,
                _ => Attrs::FOLDER,
            };
            if attrs != Attrs::FOLDER {
                self.used.insert(at.clone(), Fact::Folder(attrs));
            }
            up = at.parent();
            self.folders.insert(at, Folder { attrs, mtime: 0 });
        }
        Ok(real)
    }

    /// Follows the symlinks of the image below on the way to a folder, the last one too.
    fn follow(&mut self, path: &LayerPath, links: usize) -> Result<LayerPath, ResolveError> {
        if let Some(real) = self.real.get(path) {
            return Ok(real.clone());
        }
        let Some(parent) = path.parent() else {
            return Ok(LayerPath::root());
        };
        let lost = || ResolveError::Links(path.clone());
        let parent = self.follow(&parent, links)?;
        let place = parent.child(path.name());
        let real = match self.below(&place).cloned() {
            Some(Fact::Link { target, folder }) => {
                if links >= MAX_LINKS {
                    return Err(lost());
                }
                let mut at = if target.starts_with('/') {
                    LayerPath::root()
                } else {
                    parent
                };
                for component in target.split('/') {
                    at = match component {
                        "" | "." => at,
                        ".." => at.parent().unwrap_or_default(),
                        name => {
                            let next = at.join(name).map_err(|_| lost())?;
                            self.follow(&next, links + 1).map_err(|_| lost())?
                        }
                    };
                }
                self.used.insert(place, Fact::Link { target, folder });
                at
            }
            _ => place,
        };
        self.real.insert(path.clone(), real.clone());
        Ok(real)
    }

    /// Returns the fact about a path of the image below, unless this layer removes it.
    fn below(&self, path: &LayerPath) -> Option<&Fact> {
        let is_removed = |path: &LayerPath| self.removed.contains(path);
        if !self.removed.is_empty()
            && (is_removed(path) || ancestors(path).any(|above| is_removed(&above)))
        {
            return None;
        }
        self.below.get(path)
    }

    fn check_links(
        &self,
        parts: &[BTreeMap<LayerPath, Arc<Entry>>],
        errors: &mut Vec<ResolveError>,
    ) {
        for (link, entry) in parts.iter().flatten() {
            let Kind::Hardlink { target, .. } = &entry.kind else {
                continue;
            };
            let found = parts.iter().find_map(|part| part.get(target));
            if !found.is_some_and(|entry| matches!(entry.kind, Kind::File { .. })) {
                let (link, target) = (link.clone(), target.clone());
                errors.push(ResolveError::Hardlink { link, target });
            }
        }
    }

    /// A removed path becomes a whiteout; where this layer brings a folder of that name, the folder becomes opaque, as
    /// not every runtime applies a whiteout and a new folder of one name in one layer; a new file needs neither.
    fn whiteouts(&mut self, changes: &mut Changeset) {
        for path in &self.removed {
            let Some(parent) = path.parent() else {
                continue;
            };
            let (folder, name) = if self.folders.contains_key(path) {
                (path.clone(), OPAQUE.to_owned())
            } else if changes.parts.iter().any(|part| part.contains_key(path)) {
                continue;
            } else {
                (parent, format!("{WHITEOUT}{}", path.name()))
            };
            changes.whiteouts.entry(folder).or_default().insert(name);
        }
        changes.gone.clone_from(&self.removed);
    }
}

/// Returns where the entry `path`, a `name` in the folder `asked`, lies if that folder is really `real`. Most folders are
/// what they are called: then the two share one text.
fn placed(path: &LayerPath, asked: &LayerPath, real: &LayerPath, name: &str) -> LayerPath {
    match asked == real {
        true => path.clone(),
        false => real.child(name),
    }
}

/// Returns the folders above a path, nearest first.
fn ancestors(path: &LayerPath) -> impl Iterator<Item = LayerPath> {
    std::iter::successors(path.parent(), LayerPath::parent)
}

#[cfg(test)]
mod tests {
    use super::super::{Content, Owner};
    use super::*;

    fn path(text: &str) -> LayerPath {
        LayerPath::parse(text).unwrap()
    }

    fn attrs(mode: u16) -> Attrs {
        Attrs {
            mode,
            owner: Owner::default(),
        }
    }

    fn file() -> Kind {
        Kind::File {
            attrs: attrs(0o644),
            content: Content::bytes(*b"x"),
        }
    }

    fn link(target: &str) -> Kind {
        Kind::Symlink {
            target: target.into(),
            owner: Owner::default(),
        }
    }

    fn tree(entries: impl IntoIterator<Item = (&'static str, Kind)>) -> Arc<Tree> {
        let mut tree = Tree::default();
        for (at, kind) in entries {
            tree.insert(path(at), Entry::new(kind)).unwrap();
        }
        Arc::new(tree)
    }

    /// A base as Debian's: merged /usr, /var/run, /tmp 1777, /root 0700.
    fn debian() -> Facts {
        let mut facts = Facts::default();
        for (at, mode) in [
            ("usr", 0o755),
            ("usr/lib", 0o755),
            ("var", 0o755),
            ("run", 0o755),
            ("tmp", 0o1777),
            ("root", 0o700),
        ] {
            facts.insert(path(at), Fact::Folder(attrs(mode)));
        }
        for (at, target) in [
            ("lib", "usr/lib"),
            ("var/run", "/run"),
            ("loop", "loop2"),
            ("loop2", "loop"),
        ] {
            facts.insert(
                path(at),
                Fact::Link {
                    target: target.into(),
                    folder: true,
                },
            );
        }
        facts
    }

    fn folders(changes: &Changeset) -> Vec<(String, u16)> {
        changes
            .folders
            .iter()
            .map(|(path, it)| (path.to_string(), it.attrs.mode))
            .collect()
    }

    #[test]
    fn entries_land_behind_symlinks_of_the_base() {
        let changes = resolve(
            &[tree([("lib/x", file()), ("var/run/y", file())])],
            &debian(),
        )
        .unwrap();
        let places: Vec<&str> = changes.parts[0].keys().map(LayerPath::as_str).collect();
        assert_eq!(places, ["run/y", "usr/lib/x"]);
        assert_eq!(
            folders(&changes),
            [
                ("run".into(), 0o755),
                ("usr".into(), 0o755),
                ("usr/lib".into(), 0o755)
            ]
        );
        let used: Vec<&str> = changes.used.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(used, ["lib", "var/run"]);
    }

    #[test]
    fn folders_keep_what_the_base_has() {
        let changes = resolve(
            &[tree([
                ("tmp/x", file()),
                ("root/y", file()),
                ("app/z", file()),
            ])],
            &debian(),
        )
        .unwrap();
        assert_eq!(
            folders(&changes),
            [
                ("app".into(), 0o755),
                ("root".into(), 0o700),
                ("tmp".into(), 0o1777)
            ]
        );
        let firm = Kind::Folder {
            attrs: attrs(0o750),
            firm: true,
        };
        let soft = Kind::Folder {
            attrs: attrs(0o750),
            firm: false,
        };
        let changes = resolve(&[tree([("tmp", firm), ("root", soft)])], &debian()).unwrap();
        assert_eq!(
            folders(&changes),
            [("root".into(), 0o700), ("tmp".into(), 0o750)]
        );
    }

    #[test]
    fn app_is_the_same_layer_on_every_base() {
        let tree = tree([("app/x", file())]);
        let tree = [tree];
        let bare = resolve(&tree, &Facts::default()).unwrap();
        let full = resolve(&tree, &debian()).unwrap();
        assert!(bare.used.is_empty() && full.used.is_empty());
        assert_eq!(bare.folders, full.folders);
    }

    #[test]
    fn replacing_a_folder_is_an_error() {
        for kind in [file(), link("x")] {
            let errors = resolve(&[tree([("usr/lib", kind.clone())])], &debian()).unwrap_err();
            assert!(matches!(&errors[..], [ResolveError::Replaces { .. }]));
            assert!(resolve(&[tree([("lib", kind)])], &debian()).is_err());
        }
        assert!(resolve(&[tree([("lib", link("usr/lib"))])], &debian()).is_ok());
        let mut tree = Tree::default();
        tree.insert(
            path("lib"),
            Entry {
                replace: true,
                ..Entry::new(file())
            },
        )
        .unwrap();
        assert!(resolve(&[Arc::new(tree)], &debian()).is_ok());
    }

    #[test]
    fn two_ways_to_one_path_are_one_path() {
        let errors = resolve(
            &[tree([("lib/x", file()), ("usr/lib/x", file())])],
            &debian(),
        )
        .unwrap_err();
        assert!(matches!(
            &errors[..],
            [ResolveError::Clash(Clash::Twice { .. })]
        ));
        let errors =
            resolve(&[tree([("a", file())]), tree([("a", file())])], &debian()).unwrap_err();
        assert!(matches!(
            &errors[..],
            [ResolveError::Clash(Clash::Twice { .. })]
        ));
        let errors = resolve(&[tree([("a", file()), ("a/b", file())])], &debian()).unwrap_err();
        assert!(matches!(&errors[..], [ResolveError::NoFolder { .. }]));
    }

    #[test]
    fn circles_are_found() {
        let errors = resolve(&[tree([("loop/x", file())])], &debian()).unwrap_err();
        assert!(matches!(&errors[..], [ResolveError::Links(_)]));
    }

    #[test]
    fn removals_are_whiteouts_opaque_folders_or_nothing() {
        let mut tree = Tree::default();
        for at in ["usr/lib/gone", "tmp", "etc/file"] {
            tree.remove(path(at));
        }
        tree.insert(path("tmp/new"), Entry::new(file())).unwrap();
        tree.insert(path("etc/file"), Entry::new(file())).unwrap();
        let changes = resolve(&[Arc::new(tree)], &debian()).unwrap();
        let whiteouts: Vec<String> = changes
            .whiteouts
            .iter()
            .flat_map(|(folder, names)| names.iter().map(move |name| format!("{folder}/{name}")))
            .collect();
        assert_eq!(whiteouts, ["tmp/.wh..wh..opq", "usr/lib/.wh.gone"]);
        // What was removed no longer lends its mode.
        assert_eq!(changes.folders[&path("tmp")].attrs, Attrs::FOLDER);
        assert_eq!(
            changes.above(&debian()).get(&path("tmp")),
            Some(&Fact::Folder(Attrs::FOLDER))
        );
    }

    #[test]
    fn a_removed_folder_takes_all_of_it() {
        let mut tree = Tree::default();
        for at in ["usr", "usr/lib/x"] {
            tree.remove(path(at));
        }
        let changes = resolve(&[Arc::new(tree)], &debian()).unwrap();
        assert!(changes.folders.is_empty());
        assert_eq!(changes.whiteouts[&LayerPath::root()].len(), 1);
    }

    #[test]
    fn a_removed_folder_takes_what_was_reached_by_a_link() {
        let mut tree = Tree::default();
        for at in ["lib/x", "usr/lib"] {
            tree.remove(path(at));
        }
        let changes = resolve(&[Arc::new(tree)], &debian()).unwrap();
        assert_eq!(changes.folders.len(), 1);
        assert!(changes.whiteouts[&path("usr")].contains(".wh.lib"));
    }

    #[test]
    fn firm_folders_win_whatever_way_they_are_named() {
        let at = |mode, firm| Kind::Folder {
            attrs: attrs(mode),
            firm,
        };
        for (link, real) in [
            (at(0o700, true), at(0o755, false)),
            (at(0o755, false), at(0o700, true)),
        ] {
            let changes = resolve(&[tree([("lib", link), ("usr/lib", real)])], &debian()).unwrap();
            assert_eq!(changes.folders[&path("usr/lib")].attrs.mode, 0o700);
        }
        let both = tree([("lib", at(0o700, true)), ("usr/lib", at(0o711, true))]);
        assert!(resolve(&[both], &debian()).is_err());
    }

    #[test]
    fn removals_go_through_symlinks_of_the_base() {
        let mut tree = Tree::default();
        tree.remove(path("lib/x"));
        let changes = resolve(&[Arc::new(tree)], &debian()).unwrap();
        assert!(changes.whiteouts[&path("usr/lib")].contains(".wh.x"));
    }

    #[test]
    fn layers_above_see_the_links_of_layers_below() {
        let first = resolve(
            &[tree([("opt/v2/x", file()), ("opt/current", link("v2"))])],
            &debian(),
        )
        .unwrap();
        let facts = first.above(&debian());
        let second = resolve(&[tree([("opt/current/y", file())])], &facts).unwrap();
        assert!(second.parts[0].contains_key(&path("opt/v2/y")));
        assert!(resolve(&[tree([("opt/current", file())])], &facts).is_err());
    }
}
