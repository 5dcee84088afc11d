//! Format 1: how files become the bytes of a layer, and how a layer's bytes become files again.
//!
//! `docs/format-1.md` is the contract; this module is its one implementation. A [`Tree`] says what a rule brings,
//! [`Facts`] say what lies below, [`resolve`] puts the one onto the other and makes a [`Changeset`], and
//! [`write()`] turns that into a stream of compressed segments. Knows nothing of rules, the graph or the network.

mod changeset;
mod compress;
mod content;
mod decompress;
mod deflated;
mod facts;
mod flat;
mod gathered;
mod header;
mod merged;
mod path;
mod programs;
mod read;
mod resolve;
mod reuse;
mod segment;
mod text;
mod topmost;
mod tree;
mod write;

pub(crate) use changeset::{Changeset, Folder};
pub(crate) use compress::compressor_id;
pub(crate) use content::{Content, ContentError, Source, Stamp};
pub(crate) use decompress::{Bounded, Packing, most_unpacked, too_large};
pub use decompress::{decoder, detect};
pub(crate) use deflated::{Container, Damage, Deflated, Inflate};
pub(crate) use facts::Fact;
pub use facts::Facts;
pub(crate) use flat::{FlatError, FlatRoot};
pub(crate) use gathered::{Gathered, Gatherer};
pub(crate) use header::padding;
pub use header::plain_header;
pub(crate) use merged::{ContentAt, Item, ItemKind, Merged, is_kept_xattr, xattrs};
pub use path::LayerPath;
pub(crate) use path::PathError;
pub(crate) use programs::Programs;
pub use read::{FactsBuilder, ReadError};
pub(crate) use resolve::ResolveError;
pub use resolve::resolve;
pub use reuse::Anew;
pub(crate) use reuse::{Placed, Reuse};
pub(crate) use text::{TEXTS, quote, quoted};
pub(crate) use topmost::{Look, Topmost};
pub(crate) use tree::{Attrs, Clash, Entry};
pub use tree::{Kind, Owner, Tree};
pub use write::write;
pub(crate) use write::{Tick, WriteError};

/// The format whose bytes this module writes.
pub(crate) const FORMAT: u32 = 1;
