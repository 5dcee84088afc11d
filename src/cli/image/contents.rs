//! What is in a layer: its entries and sizes, each digest checked.

use std::io;
use std::sync::atomic::Ordering;

use super::explain;
use crate::cli::exit::Exit;
use crate::cli::{CANCEL, report};
use crate::oci::{DiffId, Digest, Hasher};
use crate::source::{LayerReader, Piece, Sizes, SourceError};
use crate::tar::{self, Entries, Entry, Kind, TarError};

/// What is in a layer.
pub(in crate::cli) struct Contents {
    pub(in crate::cli) sizes: Sizes,
    /// The entries in the order of the tar, and the digest of each file's content if that was wanted.
    pub(in crate::cli) entries: Vec<(Entry, Option<Digest>)>,
}

/// How much memory the entries of an image may take that are held at once, in bytes: a small layer may list millions.
const BUDGET: usize = 1 << 30;

/// The memory that is left for entries.
pub(in crate::cli) struct Budget(usize);

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

/// Opens a layer, to be read until the user stops.
pub(in crate::cli) fn open(piece: &Piece) -> Result<LayerReader<'_>, Exit> {
    let reader = piece.open_layer().map_err(|error| unreadable(&error))?;
    Ok(reader.while_true(&|| !CANCEL.load(Ordering::Relaxed)))
}

impl Contents {
    /// Reads a layer, and checks it. What is wrong with it is reported. `with_digests` says whether contents are hashed.
    pub(in crate::cli) fn read(
        piece: &Piece,
        diff_id: DiffId,
        with_digests: bool,
        budget: &mut Budget,
    ) -> Result<Self, Exit> {
        let mut reader = open(piece)?;
        let listed = list(&mut Entries::new(&mut reader), with_digests, budget);
        // A wrong digest says more than the damage that it made.
        let sizes = reader.finish(Some(diff_id));
        let sizes = sizes.map_err(|error| unreadable(&error))?;
        let entries = listed.map_err(|error| no_tar(&piece.what, &error))?;
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

/// Reports a layer that cannot be read.
fn unreadable(error: &SourceError) -> Exit {
    match CANCEL.load(Ordering::Relaxed) {
        true => Exit::Stopped,
        false => explain(error),
    }
}

/// Reports a layer that is no tar.
fn no_tar(what: &str, error: &TarError) -> Exit {
    if CANCEL.load(Ordering::Relaxed) {
        return Exit::Stopped;
    }
    let cause = crate::graph::ActionError::of("imgdecl::image::damaged", error);
    let causes: Vec<String> = cause.causes.iter().map(|it| format!(": {it}")).collect();
    let message = format!(
        "{what} cannot be read as a layer: {error}{}",
        causes.concat()
    );
    let help = "the image is damaged: get it again from where it came";
    report::plain("imgdecl::image::damaged", &message, Some(help.into()));
    Exit::Failed
}
