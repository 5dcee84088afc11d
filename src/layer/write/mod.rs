//! Writes a layer: segments are read and compressed in parallel, hashed and written in order, in bounded memory.

mod pipeline;
mod ready;

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use super::compress::GZIP_HEADER;
use super::{Changeset, Content, ContentError, Deflated, Placed, Reuse, segment};
use crate::oci::{Compression, DiffId, Hasher};
use ready::{Ready, Segments, pass};

/// Called with each number of tar bytes that were written; returns false to stop.
pub(crate) type Tick<'a> = &'a (dyn Fn(u64) -> bool + Sync);

/// What is known of a layer once its tar is written. Digest and size of the blob are the sink's to know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Written {
    /// The digest of the tar.
    pub diff_id: DiffId,
    /// The size of the tar in bytes.
    pub size: u64,
    /// The compressed segments that a later layer may copy, in the order of the blob.
    pub segments: Vec<Placed>,
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

/// How much of a streamed content is inflated and hashed at a time, in bytes.
const STEP: usize = 1 << 20;

/// Writes the layer that `changes` describes to `out`. What `reuse` has compressed already is copied.
///
/// The threads of the current rayon pool make segments; one of them hashes the tar and another one writes, and so hashes,
/// the blob, both in order. Only what is between the two is in memory, however large the layer or a file is.
///
/// # Errors
/// When a file cannot be read or changed, `out` fails, or `tick` returns false.
pub fn write(
    changes: &Changeset,
    compression: Compression,
    reuse: &dyn Reuse,
    out: &mut (dyn Write + Send),
    tick: Tick<'_>,
) -> Result<Written, WriteError> {
    let (items, starts) = segment::items(changes);
    let cut = segment::cut(&items, &starts, compression == Compression::Gzip);
    let segments = Segments::new(&items, &cut, compression, reuse);
    let stopped = AtomicBool::new(false);
    let mut tar = Tar {
        hasher: Hasher::default(),
        size: 0,
        tick,
    };
    let mut blob = Blob {
        out,
        written: 0,
        segments: Vec::new(),
    };
    pipeline::run(
        &segments,
        &mut |ready| {
            let hashed = tar.take(ready);
            stopped.store(hashed.is_err(), Ordering::Relaxed);
            hashed
        },
        // The tar may be done, and the blob of a large content far behind.
        &mut |ready| blob.take(ready, &|| !stopped.load(Ordering::Relaxed) && tick(0)),
    )?;
    Ok(Written {
        diff_id: DiffId(tar.hasher.finish()),
        size: tar.size,
        segments: blob.segments,
    })
}

/// The tar, which is hashed only.
struct Tar<'a> {
    hasher: Hasher,
    /// How many bytes it has so far.
    size: u64,
    tick: Tick<'a>,
}

impl Tar<'_> {
    fn take(&mut self, ready: &Ready<'_>) -> Result<(), WriteError> {
        match ready {
            Ready::Bytes { tar, .. } => {
                self.hasher.update(tar);
                self.tell(tar.len())
            }
            Ready::Passed { content, member } => self.inflate(content, member),
        }
    }

    /// Hashes a content while it is inflated.
    fn inflate(&mut self, content: &Content, member: &Deflated) -> Result<(), WriteError> {
        let mut inflate = member.open(content.size)?;
        let (mut now, mut next) = (Vec::new(), Vec::new());
        inflate.append(&mut now, STEP)?;
        while !now.is_empty() {
            next.clear();
            let (inflated, ()) = rayon::join(
                || inflate.append(&mut next, STEP),
                || self.hasher.update(&now),
            );
            inflated?;
            self.tell(now.len())?;
            std::mem::swap(&mut now, &mut next);
        }
        Ok(())
    }

    fn tell(&mut self, bytes: usize) -> Result<(), WriteError> {
        self.size += bytes as u64;
        match (self.tick)(bytes as u64) {
            true => Ok(()),
            false => Err(WriteError::Stopped),
        }
    }
}

/// The blob.
struct Blob<'a> {
    out: &'a mut (dyn Write + Send),
    /// How many bytes it has so far.
    written: u64,
    /// Where the segments lie that are worth to be found again.
    segments: Vec<Placed>,
}

impl Blob<'_> {
    /// Writes what a segment is in the blob, as far as `go_on` lets it.
    fn take(&mut self, ready: &Ready<'_>, go_on: &dyn Fn() -> bool) -> Result<(), WriteError> {
        let (written, length) = match ready {
            Ready::Bytes {
                tar, compressed, ..
            } => {
                let bytes = compressed.as_ref().unwrap_or(tar);
                (self.out.write_all(bytes), bytes.len() as u64)
            }
            // A member's header and trailer, and the stream as it is.
            Ready::Passed { content, member } => {
                let written = pass(content, member, self.out, go_on)?;
                if written.is_ok() && !go_on() {
                    return Err(WriteError::Stopped);
                }
                (written, GZIP_HEADER.len() as u64 + member.length + 8)
            }
        };
        written.map_err(WriteError::Sink)?;
        if let Ready::Bytes {
            key: Some((key, crc)),
            ..
        } = *ready
            && let Ok(length) = u32::try_from(length)
        {
            self.segments.push(Placed {
                key,
                offset: self.written,
                length,
                crc,
            });
        }
        self.written += length;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
