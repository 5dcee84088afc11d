//! Python packages: what is asked for, what fits a target, and which versions go together.
//!
//! Texts come in through traits and as strings; this module reads no file and opens no socket of its own.

mod filename;
mod link;
mod metadata;
mod place;
mod requirements;
pub mod resolve;
mod tags;
mod target;

pub use filename::{WheelName, WheelNameError};
pub use link::{Link, LinkError, Requirement};
pub use metadata::{Metadata, MetadataError, specifiers};
pub use place::{Files, InputError, Place, Source};
pub use requirements::{Asked, Direct, Options, Requested, Spoken, read};
pub use tags::Tags;
pub use target::{Libc, Python, Target, TargetError};
