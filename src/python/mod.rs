//! Python packages: what is asked for, what fits a target, and which versions go together.
//!
//! Texts come in through traits and as strings; this module reads no file and opens no socket of its own.

mod filename;
mod link;
mod lock;
mod metadata;
mod place;
mod pylock;
mod pyproject;
mod requirements;
pub mod resolve;
mod table;
mod tags;
mod target;
mod uv_lock;

pub use filename::{WheelName, WheelNameError};
pub use link::{Link, LinkError, Requirement};
pub use lock::{LockSet, Locked, LockedWheel, hashed};
pub use metadata::{Metadata, MetadataError, specifiers};
pub use place::{Files, InputError, Place, Source};
pub use pylock::pylock;
pub use pyproject::{Project, pyproject};
pub use requirements::{Asked, Direct, Options, Requested, Spoken, read};
pub use tags::Tags;
pub use target::{Libc, Python, Target, TargetError};
pub use uv_lock::{UvWanted, uv_lock};
