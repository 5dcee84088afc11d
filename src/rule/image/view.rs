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
    /// Its real path, as far as that leads.
    at: LayerPath,
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
                let what = What::Absent;
                return Found { what, link, at };
            };
            what = self.at(&next);
            match &what {
                What::Link(target) => {
                    let Some(less) = budget.checked_sub(1) else {
                        let what = What::Absent;
                        return Found { what, link, at };
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
                    let what = What::Absent;
                    return Found { what, link, at };
                }
                // Of a base, not all folders are known: what lies below says whether there is one.
                _ => at = next,
            }
        }
        Found { what, link, at }
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
        let folder = self.find(folder).at;
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
}

/// Returns the components of a path, the last one first.
fn components(path: &str) -> Vec<String> {
    let names = path.split('/').filter(|name| !matches!(*name, "" | "."));
    let mut names: Vec<String> = names.map(str::to_owned).collect();
    names.reverse();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::{Entry, Owner, Tree, resolve};

    fn path(text: &str) -> LayerPath {
        LayerPath::parse(text).unwrap()
    }

    /// A layer of files of a mode, and of symlinks, that removes some paths of what lies below.
    fn layer(files: &[(&str, u16)], links: &[(&str, &str)], removed: &[&str]) -> Arc<Changeset> {
        let mut tree = Tree::default();
        let owner = Owner::default();
        for (name, mode) in files {
            let attrs = Attrs { mode: *mode, owner };
            let content = Content::bytes(*b"x");
            let file = Entry::new(Kind::File { attrs, content });
            tree.insert(path(name), file).unwrap();
        }
        for (name, target) in links {
            let target = (*target).to_owned();
            let link = Entry::new(Kind::Symlink { target, owner });
            tree.insert(path(name), link).unwrap();
        }
        removed.iter().for_each(|name| tree.remove(path(name)));
        Arc::new(resolve(&[Arc::new(tree)], &Facts::default()).unwrap())
    }

    fn said(view: &View, path: &str) -> String {
        match view.find(path).what {
            What::Absent => "absent".to_owned(),
            What::Unknown => "unknown".to_owned(),
            What::Folder => "folder".to_owned(),
            What::Link(target) => format!("link to {target}"),
            What::File(attrs, _) => format!("file {:04o}", attrs.mode),
            What::Program => "program".to_owned(),
        }
    }

    #[test]
    fn paths_are_followed_through_layers() {
        let lower = layer(
            &[("usr/bin/tool", 0o755), ("usr/bin/plain", 0o644)],
            &[
                ("bin", "usr/bin"),
                ("loop", "loop"),
                ("up", "../../usr/bin/tool"),
            ],
            &[],
        );
        let upper = layer(&[("usr/bin/plain", 0o700)], &[], &["usr/bin/tool"]);
        let mut view = View {
            base: None,
            layers: vec![lower],
        };
        for (path, what) in [
            ("/bin/tool", "file 0755"),
            ("/bin/./../bin/plain", "file 0644"),
            ("/up", "file 0755"),
            ("/bin", "folder"),
            ("/", "folder"),
            ("/loop", "absent"),
            ("/bin/tool/x", "absent"),
            ("/nothing", "absent"),
        ] {
            assert_eq!(said(&view, path), what, "{path}");
        }
        assert_eq!(view.programs("/bin"), ["tool"]);
        view.layers.push(upper);
        assert_eq!(said(&view, "/bin/tool"), "absent");
        assert_eq!(said(&view, "/bin/plain"), "file 0700");
        assert_eq!(view.programs("/bin"), ["plain"]);
    }

    #[test]
    fn what_is_not_known_of_a_base_is_not_guessed() {
        let programs = Programs::parse("usr/bin/python3\tpython3.11\nusr/bin/python3.11\n");
        let view = |programs| View {
            base: Some(BaseFiles {
                facts: Arc::default(),
                programs,
            }),
            layers: vec![layer(&[], &[("bin", "usr/bin")], &["usr/sbin"])],
        };
        let known = view(programs);
        assert_eq!(said(&known, "/bin/python3"), "program");
        assert_eq!(said(&known, "/bin/python"), "absent");
        assert_eq!(known.programs("/bin"), ["python3", "python3.11"]);
        let unknown = view(None);
        assert_eq!(said(&unknown, "/bin/python3"), "unknown");
        assert_eq!(said(&unknown, "/usr/sbin/x"), "absent");
    }
}
