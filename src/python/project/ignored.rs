//! Patterns in git's grammar, as hatchling takes them, from one root.

use ::ignore::Match;
use ::ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::Ground;
use crate::python::place::InputError;

/// A list of patterns. A later one wins.
pub(super) struct Patterns(Option<Gitignore>);

impl Patterns {
    /// Reads patterns. Without one, nothing is matched.
    pub(super) fn new<'b>(
        ground: &Ground<'_>,
        lines: impl IntoIterator<Item = &'b str>,
    ) -> Result<Self, InputError> {
        let mut builder = GitignoreBuilder::new("");
        let mut count = 0;
        for line in lines {
            let added = builder.add_line(None, line);
            added.map_err(|error| ground.fail(format!("the pattern `{line}`: {error}")))?;
            count += 1;
        }
        let built = builder.build();
        let built = built.map_err(|error| ground.fail(error.to_string()))?;
        Ok(Self((count > 0).then_some(built)))
    }

    /// Tells whether there is no pattern.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Tells whether a file is matched, by itself or by a folder that it is in.
    pub(super) fn matches(&self, path: &str) -> bool {
        let Some(patterns) = &self.0 else {
            return false;
        };
        let found = patterns.matched_path_or_any_parents(path, false);
        matches!(found, Match::Ignore(_))
    }
}
