//! Include and exclude patterns. `*` never crosses `/`, `**` does; a pattern that matches a folder takes all of it.

use std::sync::atomic::{AtomicBool, Ordering};

use globset::{GlobBuilder, GlobMatcher};
use toml::Spanned;

use super::value::Collect;
use crate::graph::{KeyWriter, Origin};
use crate::spec::Table;

/// A list of patterns.
pub(super) struct Patterns(Vec<Pattern>);

struct Pattern {
    text: String,
    matcher: GlobMatcher,
    origin: Origin,
    used: AtomicBool,
}

impl Patterns {
    /// Compiles patterns; `${…}` are expanded already.
    pub(super) fn new(table: &Table, patterns: &[Spanned<String>], collect: &mut Collect) -> Self {
        let mut list = Vec::new();
        for pattern in patterns {
            let text = pattern.get_ref();
            let trimmed = text
                .strip_prefix("./")
                .unwrap_or(text)
                .trim_end_matches('/');
            match GlobBuilder::new(trimmed)
                .literal_separator(true)
                .backslash_escape(true)
                .build()
            {
                Ok(glob) => list.push(Pattern {
                    text: text.clone(),
                    matcher: glob.compile_matcher(),
                    origin: table.place(pattern.span()),
                    used: AtomicBool::new(false),
                }),
                Err(error) => {
                    let message = format!("`{text}` is no pattern: {}", error.kind());
                    collect.0.push(table.problem(
                        "imgdecl::value::pattern",
                        pattern.span(),
                        message,
                        "",
                    ));
                }
            }
        }
        Self(list)
    }

    /// Tells whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the patterns as they are written.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|pattern| pattern.text.as_str())
    }

    /// Adds the patterns to a key, in their order.
    pub(super) fn write_key(&self, label: &str, key: &mut dyn KeyWriter) {
        key.list(label, self.0.iter().map(|pattern| &pattern.text));
    }

    /// Tells whether some pattern matches; marks all that do as used.
    pub(super) fn matches(&self, path: &str) -> bool {
        let mut any = false;
        for pattern in &self.0 {
            if pattern.matcher.is_match(path) {
                pattern.used.store(true, Ordering::Relaxed);
                any = true;
            }
        }
        any
    }

    /// Tells whether some pattern matches, and marks none.
    pub(super) fn would_match(&self, path: &str) -> bool {
        self.0.iter().any(|pattern| pattern.matcher.is_match(path))
    }

    /// Returns the first pattern that matched nothing so far.
    pub(super) fn unused(&self) -> Option<(&str, &Origin)> {
        let pattern = self
            .0
            .iter()
            .find(|pattern| !pattern.used.load(Ordering::Relaxed))?;
        Some((&pattern.text, &pattern.origin))
    }
}
