//! Several wheels become the parts of a layer: what two of them bring is there once, or an error.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::layer::{Entry, Kind, LayerPath, Tree};

/// A wheel's part of a layer.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// The wheel's file name, for messages.
    pub wheel: String,
    /// What it brings.
    pub tree: Tree,
}

/// Two wheels that bring different things to one path.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{first} and {second} both bring /{path}, {how}")]
pub(crate) struct Conflict {
    /// The path.
    pub path: LayerPath,
    /// The wheel that comes first.
    pub first: String,
    /// The wheel that comes later.
    pub second: String,
    /// What differs, in words.
    pub how: &'static str,
}

impl Conflict {
    /// Says how to mend it.
    pub(crate) fn help(&self) -> &'static str {
        "drop one of the two packages, or say which one wins: `on_conflict = \"last\"` takes the file of the later one"
    }
}

/// Takes from each part what another one brings too, so that every path is there once. Where both bring the same content,
/// the first keeps it, executable if one of them says so. Where contents differ, the last wins if `last`.
///
/// # Errors
/// With all conflicts: different contents without `last`, and a file where another wheel has a folder.
pub(crate) fn join(mut parts: Vec<Part>, last: bool) -> Result<Vec<Part>, Vec<Conflict>> {
    // Who brings each path, and whether as a folder.
    let mut owners: BTreeMap<LayerPath, usize> = BTreeMap::new();
    let mut folders: BTreeMap<LayerPath, usize> = BTreeMap::new();
    let mut dropped: Vec<BTreeSet<LayerPath>> = vec![BTreeSet::new(); parts.len()];
    let mut executable: BTreeSet<LayerPath> = BTreeSet::new();
    let mut conflicts = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        for (path, entry) in part.tree.entries() {
            let mut above = match entry.kind {
                Kind::Folder { .. } => Some(path.clone()),
                _ => path.parent(),
            };
            // Up to the first folder that is known: those above it are known, too.
            while let Some(folder) = above.filter(|it| !folders.contains_key(it)) {
                above = folder.parent();
                folders.insert(folder, index);
            }
            if matches!(entry.kind, Kind::Folder { .. }) {
                continue;
            }
            let Some(&first) = owners.get(path) else {
                owners.insert(path.clone(), index);
                continue;
            };
            let other = &parts[first].tree.entries()[path];
            // Namespace packages and licence files come with many wheels: equal files are no conflict.
            if same(entry, other) {
                dropped[index].insert(path.clone());
                if is_executable(entry) || is_executable(other) {
                    executable.insert(path.clone());
                }
            } else if last {
                // The file that was executable is gone; what comes in its place says for itself whether it is.
                dropped[first].insert(path.clone());
                executable.remove(path);
                owners.insert(path.clone(), index);
            } else {
                conflicts.push(Conflict {
                    path: path.clone(),
                    first: parts[first].wheel.clone(),
                    second: part.wheel.clone(),
                    how: "with different contents",
                });
            }
        }
    }
    for (path, &file) in &owners {
        if let Some(&folder) = folders.get(path) {
            conflicts.push(Conflict {
                path: path.clone(),
                first: parts[file.min(folder)].wheel.clone(),
                second: parts[file.max(folder)].wheel.clone(),
                how: "one as a file and one as a folder",
            });
        }
    }
    if !conflicts.is_empty() {
        return Err(conflicts);
    }
    for (part, dropped) in parts.iter_mut().zip(&dropped) {
        let touched = |path: &LayerPath| dropped.contains(path) || executable.contains(path);
        // Most trees stay as they are: they are not made anew.
        if !part.tree.entries().keys().any(touched) {
            continue;
        }
        let kept = part
            .tree
            .entries()
            .iter()
            .filter(|(path, _)| !dropped.contains(*path));
        let mended = kept.map(|(path, entry)| {
            let mut entry = entry.clone();
            if executable.contains(path)
                && let Kind::File { attrs, .. } = &mut Arc::make_mut(&mut entry).kind
            {
                attrs.mode |= 0o111;
            }
            (path.clone(), entry)
        });
        part.tree = Tree::from_sorted(mended).expect("its paths were a tree's");
    }
    Ok(parts)
}

/// Tells whether two entries are the same file, or the same link.
fn same(a: &Entry, b: &Entry) -> bool {
    match (&a.kind, &b.kind) {
        (Kind::File { content: a, .. }, Kind::File { content: b, .. }) => {
            (a.size, a.digest) == (b.size, b.digest)
        }
        (Kind::Symlink { target: a, .. }, Kind::Symlink { target: b, .. }) => a == b,
        _ => false,
    }
}

fn is_executable(entry: &Entry) -> bool {
    matches!(&entry.kind, Kind::File { attrs, .. } if attrs.mode & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::{Attrs, Content, Owner};

    fn part(wheel: &str, files: &[(&str, u16, &str)]) -> Part {
        let mut tree = Tree::default();
        for (path, mode, text) in files {
            let attrs = Attrs {
                mode: *mode,
                owner: Owner::default(),
            };
            let content = Content::bytes(text.as_bytes());
            let path = LayerPath::parse(path).unwrap();
            tree.insert(path, Entry::new(Kind::File { attrs, content }))
                .unwrap();
        }
        let wheel = wheel.to_owned();
        Part { wheel, tree }
    }

    fn show(parts: &[Part]) -> Vec<Vec<(String, u16, u64)>> {
        let entry = |(path, entry): (&LayerPath, &std::sync::Arc<Entry>)| match &entry.kind {
            Kind::File { attrs, content } => (path.to_string(), attrs.mode, content.size),
            other => panic!("{}", other.word()),
        };
        parts
            .iter()
            .map(|part| part.tree.entries().iter().map(entry).collect())
            .collect()
    }

    fn row(path: &str, mode: u16, size: u64) -> (String, u16, u64) {
        (path.to_owned(), mode, size)
    }

    #[test]
    fn equal_contents_are_one_file() {
        let parts = vec![
            part(
                "a",
                &[("ns/__init__.py", 0o644, ""), ("ns/a.py", 0o644, "a")],
            ),
            part(
                "b",
                &[("ns/__init__.py", 0o755, ""), ("ns/b.py", 0o644, "bb")],
            ),
        ];
        assert_eq!(
            show(&join(parts, false).unwrap()),
            [
                vec![row("ns/__init__.py", 0o755, 0), row("ns/a.py", 0o644, 1)],
                vec![row("ns/b.py", 0o644, 2)],
            ]
        );
    }

    #[test]
    fn different_contents_name_both() {
        let parts = || {
            vec![
                part("a", &[("x", 0o644, "a"), ("y", 0o755, "y")]),
                part("b", &[("z", 0o644, "")]),
                part("c", &[("x", 0o644, "ccc"), ("y", 0o644, "other")]),
            ]
        };
        let conflicts = join(parts(), false).unwrap_err();
        let texts: Vec<String> = conflicts.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "a and c both bring /x, with different contents",
                "a and c both bring /y, with different contents",
            ]
        );
        assert_eq!(
            show(&join(parts(), true).unwrap()),
            [
                vec![],
                vec![row("z", 0o644, 0)],
                vec![row("x", 0o644, 3), row("y", 0o644, 5)],
            ]
        );
    }

    #[test]
    fn a_file_is_no_folder() {
        for swap in [false, true] {
            let mut parts = vec![
                part("a", &[("x", 0o644, "")]),
                part("b", &[("x/y", 0o644, "")]),
            ];
            if swap {
                parts.reverse();
            }
            for last in [false, true] {
                let conflicts = join(parts.clone(), last).unwrap_err();
                assert_eq!(conflicts.len(), 1);
                assert_eq!(conflicts[0].path.as_str(), "x");
                assert_ne!(conflicts[0].first, conflicts[0].second);
            }
        }
    }
}
