//! What is in a layer: its entries and sizes, each digest checked.

use std::io::{self, Read};
use std::sync::atomic::Ordering;

use super::explain;
use crate::cli::exit::Exit;
use crate::cli::{CANCEL, report};
use crate::layer::{self, ReadError, TarEntry, TarKind};
use crate::oci::{DiffId, Digest, Hasher};
use crate::source::{Piece, Sizes, SourceError};

/// What is in a layer.
pub(in crate::cli) struct Contents {
    pub(in crate::cli) sizes: Sizes,
    /// The entries in the order of the tar, and the digest of each file's content if that was wanted.
    pub(in crate::cli) entries: Vec<(TarEntry, Option<Digest>)>,
}

impl Contents {
    /// Reads a layer, and checks it. What is wrong with it is reported. `with_digests` says whether contents are hashed.
    pub(in crate::cli) fn read(
        piece: &Piece,
        diff_id: DiffId,
        with_digests: bool,
    ) -> Result<Self, Exit> {
        let mut reader = piece.open_layer().map_err(|error| unreadable(&error))?;
        let mut entries = Vec::new();
        let tick = |_: u64| !CANCEL.load(Ordering::Relaxed);
        let mut show = |entry: TarEntry, content: &mut dyn Read| -> io::Result<()> {
            let digest = match with_digests && entry.kind == TarKind::File {
                true => {
                    let mut hasher = Hasher::default();
                    io::copy(content, &mut hasher)?;
                    Some(hasher.finish())
                }
                false => None,
            };
            entries.push((entry, digest));
            Ok(())
        };
        let listed = layer::entries(&mut reader, &tick, &mut show);
        if matches!(listed, Err(ReadError::Stopped)) {
            return Err(Exit::Stopped);
        }
        // A wrong digest says more than the damage that it made.
        let sizes = reader.finish(Some(diff_id));
        let sizes = sizes.map_err(|error| unreadable(&error))?;
        listed.map_err(|error| no_tar(&piece.what, &error))?;
        Ok(Self { sizes, entries })
    }
}

/// Reports a layer that cannot be read.
fn unreadable(error: &SourceError) -> Exit {
    match CANCEL.load(Ordering::Relaxed) {
        true => Exit::Stopped,
        false => explain(error),
    }
}

/// Reports a layer that is no tar.
fn no_tar(what: &str, error: &ReadError) -> Exit {
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
