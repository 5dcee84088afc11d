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
mod header;
mod path;
mod read;
mod resolve;
mod reuse;
mod segment;
mod text;
mod tree;
mod write;

pub use changeset::{Changeset, Folder};
pub use compress::compressor_id;
pub use content::{Content, ContentError, Source, Stamp};
pub use decompress::{Bounded, Packing, decoder, detect, most_unpacked, too_large};
pub use deflated::{Container, Damage, Deflated, Inflate};
pub use facts::{Fact, Facts};
pub use header::{padding, plain_header};
pub use path::{LayerPath, PathError};
pub use read::{FactsBuilder, ReadError};
pub use resolve::{ResolveError, resolve};
#[cfg(test)]
pub use reuse::Anew;
pub use reuse::{Placed, Reuse};
pub use text::{TEXTS, quote, quoted};
pub use tree::{Attrs, Clash, Entry, Kind, Owner, Tree};
pub use write::{Tick, WriteError, write};

/// The format whose bytes this module writes.
pub const FORMAT: u32 = 1;
