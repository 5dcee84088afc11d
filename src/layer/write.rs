//! Writes a layer: segments are read and compressed in parallel, hashed and written in order, in bounded memory.

use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use super::compress::compress;
use super::segment::{self, Item, Segment};
use super::{Changeset, ContentError};
use crate::oci::{Compression, DiffId, Hasher};

/// Called with each number of tar bytes that were written; returns false to stop.
pub type Tick<'a> = &'a (dyn Fn(u64) -> bool + Sync);

/// What is known of a layer once its tar is written. Digest and size of the blob are the sink's to know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Written {
    /// The digest of the tar.
    pub diff_id: DiffId,
    /// The size of the tar in bytes.
    pub size: u64,
}

/// A layer that was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A file could not be read, or changed.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// The blob could not be written.
    #[error("cannot write the layer")]
    Sink(#[source] io::Error),
    /// The tick said so.
    #[error("stopped")]
    Stopped,
}

/// How many layers are being written now in this process: they share the memory for segments in flight.
static ACTIVE: AtomicUsize = AtomicUsize::new(0);

struct Active;

impl Active {
    fn enter() -> Self {
        ACTIVE.fetch_add(1, Ordering::Relaxed);
        Self
    }

    /// How many segments to have in flight, here and now. Decides speed and memory, never bytes.
    fn segments(&self) -> usize {
        let threads = rayon::current_num_threads();
        (3 * threads / ACTIVE.load(Ordering::Relaxed).max(1)).clamp(2, 24)
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        ACTIVE.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Writes the layer that `changes` describes to `out`.
///
/// Works in rounds: while one round of segments is read and compressed by the threads of the current rayon pool, the
/// round before is hashed and written. So at most two rounds are in memory, however large the layer or a file is.
///
/// # Errors
/// When a file cannot be read or changed, `out` fails, or `tick` returns false.
pub fn write(
    changes: &Changeset,
    compression: Compression,
    out: &mut (dyn Write + Send),
    tick: Tick<'_>,
) -> Result<Written, WriteError> {
    let (items, starts) = segment::items(changes);
    let segments = segment::cut(&items, &starts);
    let active = Active::enter();
    let mut sequel = Sequel {
        hasher: Hasher::default(),
        size: 0,
        out,
    };
    let mut ready: Vec<Ready> = Vec::new();
    let mut rest = &segments[..];
    while !rest.is_empty() {
        let (round, later) = rest.split_at(active.segments().min(rest.len()));
        rest = later;
        let make = |segment: &Segment| Ready::make(segment, &items, compression);
        let (made, done) = rayon::join(
            || {
                round
                    .par_iter()
                    .map(make)
                    .collect::<Result<Vec<Ready>, ContentError>>()
            },
            || sequel.take(std::mem::take(&mut ready), tick),
        );
        done?;
        ready = made?;
    }
    sequel.take(ready, tick)?;
    Ok(Written {
        diff_id: DiffId(sequel.hasher.finish()),
        size: sequel.size,
    })
}

/// A segment that waits for its turn to be hashed and written.
struct Ready {
    tar: Vec<u8>,
    /// `None` if the tar itself is the blob.
    compressed: Option<Vec<u8>>,
}

impl Ready {
    fn make(
        segment: &Segment,
        items: &[Item<'_>],
        compression: Compression,
    ) -> Result<Self, ContentError> {
        let tar = segment.bytes(items)?;
        let compressed = (compression != Compression::None).then(|| compress(compression, &tar));
        Ok(Self { tar, compressed })
    }
}

/// What happens to segments in order.
struct Sequel<'a> {
    hasher: Hasher,
    size: u64,
    out: &'a mut (dyn Write + Send),
}

impl Sequel<'_> {
    /// Hashes the tar on one thread, writes (and so hashes) the blob on another.
    fn take(&mut self, round: Vec<Ready>, tick: Tick<'_>) -> Result<(), WriteError> {
        let Self { hasher, size, out } = self;
        let (go_on, written) = rayon::join(
            || {
                let mut bytes = 0;
                for ready in &round {
                    hasher.update(&ready.tar);
                    bytes += ready.tar.len() as u64;
                }
                *size += bytes;
                tick(bytes)
            },
            || {
                for ready in &round {
                    out.write_all(ready.compressed.as_ref().unwrap_or(&ready.tar))?;
                }
                Ok(())
            },
        );
        written.map_err(WriteError::Sink)?;
        if go_on {
            Ok(())
        } else {
            Err(WriteError::Stopped)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Attrs, Content, Entry, Facts, Kind, LayerPath, Owner, Tree, resolve};
    use super::*;
    use std::sync::Arc;

    fn changes() -> Changeset {
        let mut tree = Tree::default();
        for n in 0..300usize {
            let bytes: Vec<u8> = (0..n * 331).map(|i| (i * n % 251) as u8).collect();
            let attrs = Attrs {
                mode: 0o644,
                owner: Owner::default(),
            };
            let kind = Kind::File {
                attrs,
                content: Content::bytes(bytes),
            };
            tree.insert(
                LayerPath::parse(&format!("d{}/f{n}", n % 7)).unwrap(),
                Entry::new(kind),
            )
            .unwrap();
        }
        resolve(&[Arc::new(tree)], &Facts::default()).unwrap()
    }

    #[test]
    fn threads_do_not_change_bytes() {
        let changes = changes();
        for compression in [Compression::Gzip, Compression::Zstd, Compression::None] {
            let with = |threads| {
                let pool = rayon::ThreadPoolBuilder::new()
                    .num_threads(threads)
                    .build()
                    .unwrap();
                let mut out = Vec::new();
                let written = pool
                    .install(|| write(&changes, compression, &mut out, &|_| true))
                    .unwrap();
                (out, written)
            };
            let (one, sixteen) = (with(1), with(16));
            assert_eq!(one.1, sixteen.1);
            assert!(one.0 == sixteen.0);
        }
    }

    #[test]
    fn stops_when_told() {
        let result = write(&changes(), Compression::None, &mut Vec::new(), &|_| false);
        assert!(matches!(result, Err(WriteError::Stopped)));
    }
}
