//! What is in a layer: its entries and sizes, each digest checked.

use std::io;

use crate::graph::Stop;
use crate::oci::{DiffId, Digest, Hasher};
use crate::source::{LayerReader, Piece, Sizes, SourceError};
use crate::tar::{self, Entries, Entry, Kind, TarError};
use crate::work::Failed;

/// What is in a layer.
pub(crate) struct Contents {
    pub(crate) sizes: Sizes,
    /// The entries in the order of the tar, and the digest of each file's content if that was wanted.
    pub(crate) entries: Vec<(Entry, Option<Digest>)>,
}

/// How much memory the entries of an image may take that are held at once, in bytes: a small layer may list millions.
const BUDGET: usize = 1 << 30;

/// The memory that is left for entries.
pub(in crate::work) struct Budget(usize);

impl Default for Budget {
    fn default() -> Self {
        Self(BUDGET)
    }
}

impl Budget {
    fn take(&mut self, entry: &Entry) -> io::Result<()> {
        let records = entry.records.iter();
        let records: usize = records.map(|(key, value)| key.len() + value.len()).sum();
        let names = entry.path.len() + entry.link.as_ref().map_or(0, Vec::len);
        let cost = size_of::<(Entry, Option<Digest>)>() + 2 * (names + records) + 64;
        self.0 = self.0.checked_sub(cost).ok_or_else(|| {
            io::Error::other(format!(
                "its entries would take more than {BUDGET} bytes of memory"
            ))
        })?;
        Ok(())
    }
}

/// Opens a layer, to be read as long as `go_on` says so.
pub(in crate::work) fn open<'a>(
    piece: &'a Piece,
    go_on: &'a dyn Fn() -> bool,
) -> Result<LayerReader<'a>, Failed> {
    let reader = piece.open_layer();
    let reader = reader.map_err(|error| unreadable(error, go_on))?;
    Ok(reader.while_true(go_on))
}

impl Contents {
    /// Reads a layer, and checks it. `with_digests` says whether contents are hashed.
    pub(in crate::work) fn read(
        stop: &Stop,
        piece: &Piece,
        diff_id: DiffId,
        with_digests: bool,
        budget: &mut Budget,
    ) -> Result<Self, Failed> {
        let go_on = || !stop.is_asked();
        let mut reader = open(piece, &go_on)?;
        let listed = list(&mut Entries::new(&mut reader), with_digests, budget);
        // A wrong digest says more than the damage that it made.
        let sizes = reader.finish(Some(diff_id));
        let sizes = sizes.map_err(|error| unreadable(error, &go_on))?;
        let entries = listed.map_err(|error| no_tar(&piece.what, &error, &go_on))?;
        Ok(Self { sizes, entries })
    }
}

/// Lists the entries of a layer. The reader stops when the user does.
fn list<I: tar::Input>(
    tar: &mut Entries<I>,
    with_digests: bool,
    budget: &mut Budget,
) -> Result<Vec<(Entry, Option<Digest>)>, TarError> {
    let mut entries = Vec::new();
    while let Some(entry) = tar.next_entry()? {
        let digest = match with_digests && entry.kind == Kind::File {
            true => {
                let mut hasher = Hasher::default();
                io::copy(tar, &mut hasher)?;
                Some(hasher.finish())
            }
            false => None,
        };
        budget.take(&entry)?;
        entries.push((entry, digest));
    }
    Ok(entries)
}

/// Says why a layer cannot be read.
fn unreadable(error: SourceError, go_on: &dyn Fn() -> bool) -> Failed {
    match go_on() {
        true => Failed::from(error),
        false => Failed::Stopped,
    }
}

/// Says why a layer is no tar.
fn no_tar(what: &str, error: &TarError, go_on: &dyn Fn() -> bool) -> Failed {
    if !go_on() {
        return Failed::Stopped;
    }
    let cause = crate::graph::ActionError::of("imgdecl::image::damaged", error);
    let causes: Vec<String> = cause.causes.iter().map(|it| format!(": {it}")).collect();
    let message = format!(
        "{what} cannot be read as a layer: {error}{}",
        causes.concat()
    );
    let help = "the image is damaged: get it again from where it came";
    Failed::build("imgdecl::image::damaged", &message, Some(help.into()))
}
