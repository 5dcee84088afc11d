//! Wheels become trees of a layer: read in place, checked, laid out as an installer would (PyPA specifications, "Binary
//! distribution format"). Nothing is unpacked to disk.
//!
//! What a wheel becomes depends on the wheel and the [`Scheme`] alone: `docs/format-1.md` is exact about it. Knows nothing
//! of how wheels are chosen or fetched.

mod archive;
#[cfg(test)]
mod broken;
mod directory;
mod entry_points;
mod error;
#[cfg(test)]
mod fixture;
mod headers;
mod info;
mod install;
mod join;
#[cfg(test)]
mod made;
#[cfg(test)]
mod odd;
#[cfg(test)]
mod readings;
mod record;
mod scheme;
mod script;
mod split;

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
