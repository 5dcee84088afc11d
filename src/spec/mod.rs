//! The language: `image.toml` files become a [`Spec`], with the place of every word kept for messages.
//!
//! Parses, checks keys and types, expands variables and resolves names. Knows no concrete rule: it is told their names
//! and keys.

mod document;
mod key;
mod load;
mod problem;
mod table;
mod vars;
mod workspace;

pub use key::{Key, Scope, Type};
pub use load::{LoadError, find_manifest};
pub use problem::{Problem, Problems, nearest, suggest};
pub use table::{LayerEntry, Table};
pub use vars::{Host, Part, Vars};
pub use workspace::{Defaults, MANIFEST, Member, Spec, Target, TargetId, top_level};
