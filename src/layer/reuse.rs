//! Compressed segments that an earlier layer holds already: they are copied, not compressed again. Knows no store.

use super::compress::{GZIP_HEADER, gzip_trailer};
use crate::oci::{Compression, Digest};
use crate::tar::BLOCK;

/// Segments with fewer bytes of tar are compressed again: that is as quick as to look them up.
pub(super) const SMALLEST: usize = 32 * BLOCK;

/// A compressed segment of a layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placed {
    /// Names what the segment holds and how it was compressed; equal keys stand for equal bytes.
    pub key: Digest,
    /// Where it starts in the layer's blob, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub length: u32,
    /// The CRC-32 of its compressed bytes.
    pub crc: u32,
}

impl Placed {
    /// Tells whether `bytes` may be the segment.
    pub fn fits(&self, bytes: &[u8]) -> bool {
        bytes.len() == self.length as usize && libdeflater::crc32(bytes) == self.crc
    }
}

/// Where compressed segments of earlier layers can be found.
pub trait Reuse: Sync {
    /// Returns the compressed bytes that `key` names, if a layer has them. They are checked before they are used.
    fn find(&self, key: &Digest) -> Option<Vec<u8>>;
}

/// Finds nothing: every segment is compressed.
pub struct Anew;

impl Reuse for Anew {
    fn find(&self, _: &Digest) -> Option<Vec<u8>> {
        None
    }
}

/// Tells whether a compressed segment holds `tar`: gzip says so by the CRC-32 and the size at its end, zstd is
/// decompressed. So an index that lies costs work, and never a wrong layer.
pub(super) fn holds(compression: Compression, compressed: &[u8], tar: &[u8]) -> bool {
    match compression {
        Compression::None => compressed == tar,
        Compression::Gzip => {
            let trailer = gzip_trailer(libdeflater::crc32(tar), tar.len() as u64);
            compressed.starts_with(&GZIP_HEADER) && compressed.ends_with(&trailer)
        }
        Compression::Zstd => {
            zstd::bulk::decompress(compressed, tar.len()).is_ok_and(|found| found == tar)
        }
    }
}
