//! Makes what is to be hashed and written of each segment: its bytes of the tar, and its bytes of the blob.

use std::io::{self, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::WriteError;
use super::pipeline::Work;
use crate::layer::compress::{GZIP_HEADER, compress, compressor_id, gzip_trailer};
use crate::layer::deflated::WHOLE;
use crate::layer::header::pad;
use crate::layer::reuse::{SMALLEST, holds};
use crate::layer::segment::{Item, Segment};
use crate::layer::{Content, ContentError, Deflated, Inflate, Reuse};
use crate::oci::{Compression, Digest};
use crate::tar::BLOCK;

/// How many bytes of the tar all layers that are being written may have in memory. Their compressed bytes come on top.
const BUDGET: u64 = 24 << 20;

/// How many layers are being written now in this process: they share the budget.
static ACTIVE: AtomicUsize = AtomicUsize::new(0);

/// A segment that waits for its turn to be hashed and written.
pub(super) enum Ready<'a> {
    Bytes {
        tar: Vec<u8>,
        /// `None` if the tar itself is the blob.
        compressed: Option<Vec<u8>>,
        /// The key of what is worth to be found again, and the CRC-32 of its compressed bytes.
        key: Option<(Digest, u32)>,
    },
    /// A content that is passed on, too large for memory.
    Passed {
        content: &'a Content,
        member: &'a Deflated,
    },
}

/// The segments of a layer.
pub(super) struct Segments<'a> {
    items: &'a [Item<'a>],
    segments: &'a [Segment],
    compression: Compression,
    reuse: &'a dyn Reuse,
    reading: Mutex<Option<Reading<'a>>>,
}

/// How far a large deflated content is inflated, which has only one way to be read.
struct Reading<'a> {
    item: usize,
    offset: u64,
    inflate: Inflate<'a>,
}

impl<'a> Segments<'a> {
    pub(super) fn new(
        items: &'a [Item<'a>],
        segments: &'a [Segment],
        compression: Compression,
        reuse: &'a dyn Reuse,
    ) -> Self {
        ACTIVE.fetch_add(1, Ordering::Relaxed);
        Self {
            items,
            segments,
            compression,
            reuse,
            reading: Mutex::new(None),
        }
    }

    /// Returns a deflated content that is passed on or read in slices.
    fn deflated(&self, item: usize) -> Option<(&'a Content, &'a Deflated)> {
        let content = self.items[item].content()?;
        Some((content, content.passable()?))
    }

    /// Inflates the bytes of a segment that is a slice of a deflated content.
    fn slice(&self, index: usize) -> Result<Vec<u8>, ContentError> {
        let Segment::Slice {
            item,
            offset,
            length,
        } = self.segments[index]
        else {
            unreachable!("only slices are read beforehand")
        };
        let (content, member) = self.deflated(item).expect("only of deflated contents");
        let mut reading = self.reading.lock().expect("a panic ends the build");
        let mut inflate = match reading.take() {
            Some(it) if (it.item, it.offset) == (item, offset) => it.inflate,
            _ if offset == 0 => member.open(content.size)?,
            _ => unreachable!("slices are read in order, and none after an error"),
        };
        let mut bytes = Vec::with_capacity(length + BLOCK);
        inflate.append(&mut bytes, length)?;
        let offset = offset + length as u64;
        match offset == content.size {
            true => pad(&mut bytes, content.size),
            false => {
                *reading = Some(Reading {
                    item,
                    offset,
                    inflate,
                });
            }
        }
        Ok(bytes)
    }

    /// Makes a segment whose content is deflated already.
    fn pass(&self, index: usize, item: usize) -> Result<Ready<'a>, ContentError> {
        let (content, member) = self
            .deflated(item)
            .expect("only deflated files are passed on");
        if content.size.max(member.length) > WHOLE {
            return Ok(Ready::Passed { content, member });
        }
        let mut compressed = Vec::with_capacity(member.length as usize + 18);
        pass(content, member, &mut compressed, &|| true)?
            .map_err(|source| member.unreadable(source))?;
        Ok(Ready::Bytes {
            tar: self.segments[index].bytes(self.items)?,
            compressed: Some(compressed),
            key: None,
        })
    }
}

impl Drop for Segments<'_> {
    fn drop(&mut self) {
        ACTIVE.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<'a> Work for Segments<'a> {
    type Item = Ready<'a>;
    type Early = Vec<u8>;
    type Error = WriteError;

    fn count(&self) -> usize {
        self.segments.len()
    }

    fn weight(&self, index: usize) -> u64 {
        match self.segments[index] {
            Segment::Items { size, .. } => size as u64,
            Segment::Slice { length, .. } => length as u64,
            Segment::Passed { item } => self.deflated(item).map_or(0, |(content, member)| {
                let size = content.size.max(member.length);
                if size > WHOLE { 0 } else { size }
            }),
            Segment::End => 0,
        }
    }

    /// Decides speed and memory, never bytes.
    fn budget(&self) -> u64 {
        BUDGET / ACTIVE.load(Ordering::Relaxed).max(1) as u64
    }

    fn is_serial(&self, index: usize) -> bool {
        match self.segments[index] {
            Segment::Slice { item, .. } => self.deflated(item).is_some(),
            _ => false,
        }
    }

    fn read(&self, index: usize) -> Result<Vec<u8>, WriteError> {
        Ok(self.slice(index)?)
    }

    fn make(&self, index: usize, early: Option<Vec<u8>>) -> Result<Ready<'a>, WriteError> {
        let segment = &self.segments[index];
        if let Segment::Passed { item } = segment {
            return Ok(self.pass(index, *item)?);
        }
        let tar = match early {
            Some(bytes) => bytes,
            None => segment.bytes(self.items)?,
        };
        if self.compression == Compression::None {
            return Ok(Ready::Bytes {
                tar,
                compressed: None,
                key: None,
            });
        }
        let key = match tar.len() < SMALLEST {
            true => None,
            false => segment.key(self.items, compressor_id(self.compression)),
        };
        let found = key.and_then(|key| self.reuse.find(&key));
        let found = found.filter(|found| holds(self.compression, found, &tar));
        let compressed = found.unwrap_or_else(|| compress(self.compression, &tar));
        Ok(Ready::Bytes {
            key: key.map(|key| (key, libdeflater::crc32(&compressed))),
            compressed: Some(compressed),
            tar,
        })
    }
}

/// Writes a deflated content as a gzip member, as far as `go_on` lets it. Fails on the outside if the content cannot be
/// read, on the inside if it cannot be written.
pub(super) fn pass(
    content: &Content,
    member: &Deflated,
    out: &mut (dyn Write + Send),
    go_on: &dyn Fn() -> bool,
) -> Result<io::Result<()>, ContentError> {
    let mut raw = member.open_raw()?;
    let mut piece = Vec::new();
    let mut written = out.write_all(&GZIP_HEADER);
    while written.is_ok() && go_on() {
        raw.next(&mut piece)
            .map_err(|source| member.unreadable(source))?;
        if piece.is_empty() {
            written = out.write_all(&gzip_trailer(member.crc, content.size));
            break;
        }
        written = out.write_all(&piece);
    }
    Ok(written)
}
