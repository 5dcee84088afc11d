//! Python packages: what is asked for, what fits a target, which versions go together, and what wheels become in an
//! image.
//!
//! Texts come in through traits and as strings; only [`wheel`] reads files, and nothing here opens a socket. Knows
//! nothing of rules or the graph.

mod export;
mod filename;
mod foreign;
mod lock;
mod meaning;
mod metadata;
mod name_guesses;
mod pep508;
mod place;
mod probe;
pub(crate) mod project;
mod project_tools;
mod pylock;
mod pyproject;
mod requirements;
pub(crate) mod resolve;
mod table;
mod tags;
mod target;
mod uv_lock;
pub(crate) mod wheel;

pub(crate) use export::{Exported, ExportedWheel, WheelPlace, export};
pub use filename::WheelName;
pub(crate) use filename::wheel_version;
pub(crate) use foreign::folder as left_out_folder;
pub(crate) use foreign::{FileKind, LockWanted, file_kind, pdm_lock, pipfile_lock, poetry_lock};
pub use lock::hashed;
pub(crate) use lock::{LockSet, Locked, LockedProject};
pub(crate) use meaning::{meaning, one_way};
pub use metadata::Metadata;
pub(crate) use metadata::specifiers;
pub(crate) use name_guesses::{guesses, similar};
pub(crate) use pep508::{Requirement, WheelUrl};
pub(crate) use place::InputError;
pub use place::{Files, Place, Source};
pub(crate) use probe::{Interpreter, Probe, Pythons};
pub use pylock::pylock;
pub use pyproject::pyproject;
pub(crate) use pyproject::{Project, pyproject_unless};
pub use requirements::{Asked, read};
pub(crate) use requirements::{
    AskedFolder, Direct, NamedIndex, Names, Requested, Spoken, read_unless, without_login,
    without_secrets,
};
pub(crate) use tags::Tags;
pub use target::Target;
pub(crate) use target::{Libc, Python};
pub use uv_lock::{UvWanted, uv_lock};
