//! Python packages: what is asked for, what fits a target, which versions go together, and what wheels become in an
//! image.
//!
//! Texts come in through traits and as strings; only [`wheel`] reads files, and nothing here opens a socket. Knows
//! nothing of rules or the graph.

mod export;
mod filename;
mod link;
mod lock;
mod metadata;
mod near;
mod place;
mod probe;
mod pylock;
mod pyproject;
mod requirements;
pub mod resolve;
mod table;
mod tags;
mod target;
mod uv_lock;
pub mod wheel;

pub use export::{Exported, ExportedWheel, WheelPlace, export};
pub use filename::WheelName;
pub use link::{Link, Requirement};
pub use lock::{LockSet, Locked, hashed};
pub use metadata::{Metadata, specifiers};
pub use near::{guesses, similar};
pub use place::{Files, InputError, Place, Source};
pub use probe::{Interpreter, Probe, Pythons};
pub use pylock::pylock;
pub use pyproject::pyproject;
pub use requirements::{Asked, Direct, Requested, read};
pub use tags::Tags;
pub use target::{Libc, Python, Target};
pub use uv_lock::{UvWanted, uv_lock};
