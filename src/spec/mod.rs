//! The language: `image.toml` files become a [`Spec`], with the place of every word kept for messages.
//!
//! Parses, checks keys and types, expands variables and resolves names. Knows no concrete rule: it is told their names
//! and keys.

mod chosen;
mod document;
mod foreign_words;
mod key;
mod load;
mod problem;
mod table;
mod vars;
mod words;
mod workspace;

pub(crate) use chosen::Chosen;
pub(crate) use foreign_words::rule as advice_on_rule;
pub(crate) use key::{Key, Scope, Type};
pub(crate) use load::{LoadError, find_manifest};
pub(crate) use problem::{Problem, Problems, nearest, suggest};
pub(crate) use table::{LayerEntry, Table};
pub use vars::Host;
pub(crate) use vars::{Part, Vars};
pub(crate) use words::Words;
pub use workspace::Spec;
pub(crate) use workspace::{Defaults, MANIFEST, Member, Target, TargetId, top_level};
