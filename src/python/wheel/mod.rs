//! Wheels become trees of a layer: read in place, checked, laid out as an installer would (PyPA specifications, "Binary
//! distribution format"). Nothing is unpacked to disk.
//!
//! What a wheel becomes depends on the wheel and the [`Scheme`] alone: `docs/format-1.md` is exact about it. Knows nothing
//! of how wheels are chosen or fetched.

#[cfg(test)]
mod accepted_tests;
#[cfg(test)]
mod ambiguous_tests;
mod archive;
mod compiled;
mod directory;
mod entry_points;
mod error;
mod headers;
mod info;
mod install;
mod join;
mod record;
#[cfg(test)]
mod refused_tests;
mod scheme;
mod script;
mod split;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod zip_testing;

pub(crate) use archive::{Unzipped, unzip};
pub(crate) use compiled::{check_compiled, is_silent};
pub(crate) use directory::TAIL;
pub use directory::{Bytes, Entry, directory};
pub use error::{Problem, WheelError};
pub(crate) use headers::{HeaderError, Headers};
pub use info::read_metadata;
pub(crate) use info::{METADATA, metadata};
pub use install::{Expected, install};
pub(crate) use join::{Part, join};
pub use scheme::Scheme;
pub(crate) use scheme::{SchemeError, Venv};
pub(crate) use split::{Split, Wheel, split};
