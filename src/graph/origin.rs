//! The place in a manifest that asked for something. Plain data: knows nothing of TOML.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// The text of a manifest, and the name that messages give it.
#[derive(PartialEq, Eq, Debug)]
pub struct SourceText {
    /// The path, relative to the workspace.
    pub name: String,
    /// The text.
    pub text: String,
}

/// A place in a manifest.
#[derive(Clone, PartialEq, Eq)]
pub struct Origin {
    /// The manifest.
    pub source: Arc<SourceText>,
    /// The bytes of its text.
    pub span: Range<usize>,
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:?}", self.source.name, self.span)
    }
}
