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

pub use directory::{Bytes, TAIL};
pub use error::{Problem, WheelError};
pub use headers::{HeaderError, Headers};
pub use info::{METADATA, metadata, read_metadata};
pub use install::{Expected, install};
pub use join::{Part, join};
pub use scheme::{Scheme, SchemeError, Venv};
pub use split::{Split, Wheel, split};
