//! Modes of single files of a tree, by patterns.

use std::collections::BTreeMap;

use toml::Spanned;

use super::patterns::Patterns;
use super::value::{Collect, mode};
use crate::graph::{KeyWriter, Origin};
use crate::spec::Table;

/// Patterns with the modes of the files that they match, in the order of the manifest.
pub(super) struct Modes(Vec<(Patterns, u16)>);

impl Modes {
    /// Reads a table of them.
    pub(super) fn new(
        at: &Table,
        table: &BTreeMap<Spanned<String>, Spanned<String>>,
        collect: &mut Collect,
    ) -> Self {
        let mut all: Vec<_> = table.iter().collect();
        // Tables are sorted by name, and the last pattern that is written wins.
        all.sort_by_key(|(pattern, _)| pattern.span().start);
        let modes = all.into_iter().map(|(pattern, value)| {
            let patterns = Patterns::new(at, std::slice::from_ref(pattern), collect);
            (patterns, collect.take(mode(at, value)))
        });
        Self(modes.collect())
    }

    /// Tells whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the mode of a file: that of the last pattern which matches it, or a folder above it.
    pub(super) fn of(&self, path: &str) -> Option<u16> {
        let mut modes = self.0.iter().rev();
        let found = modes.find(|(patterns, _)| above(path).any(|it| patterns.would_match(it)));
        found.map(|(_, mode)| *mode)
    }

    /// Takes note that a file is there.
    pub(super) fn see(&self, path: &str) {
        for (patterns, _) in &self.0 {
            for at in above(path) {
                patterns.matches(at);
            }
        }
    }

    /// Returns the first pattern that matched no file so far.
    pub(super) fn unused(&self) -> Option<(&str, &Origin)> {
        self.0.iter().find_map(|(patterns, _)| patterns.unused())
    }

    /// Adds them to a key, if there are any.
    pub(super) fn write_key(&self, key: &mut dyn KeyWriter) {
        for (patterns, mode) in &self.0 {
            for text in patterns.texts() {
                key.field("mode of", &format!("{mode:04o} {text}"));
            }
        }
    }
}

/// Returns a path, and all folders above it.
fn above(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path), |path| {
        path.rsplit_once('/').map(|(folder, _)| folder)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_lies_in_all_folders_above_it() {
        let all: Vec<&str> = above("a/b/c").collect();
        assert_eq!(all, ["a/b/c", "a/b", "a"]);
    }
}
