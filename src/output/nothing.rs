//! `none`: nothing is written. Digests need no bytes.

use std::fmt;
use std::sync::Arc;

use super::{Kind, Needs, Output, OutputError, Place, Report, Sink, Supply};

/// The kind of sink.
pub(super) const KIND: Kind = Kind {
    word: "none",
    place: None,
    make: |_: Place| Arc::new(Nothing),
};

/// Writes nothing.
struct Nothing;

impl fmt::Display for Nothing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(KIND.word)
    }
}

impl Sink for Nothing {
    fn needs(&self) -> Needs {
        Needs::Digests
    }

    fn write(&self, _: &[Output], _: &Supply<'_>) -> Result<Vec<Report>, OutputError> {
        Ok(Vec::new())
    }
}
