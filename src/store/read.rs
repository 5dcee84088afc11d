//! Reading blobs. Whoever reads one has it hashed on the way, and never gets the last bytes of a damaged one: a copy or an
//! upload of it cannot end well. Only a link, for which nothing is read, trusts the seal.

use std::io::{self, Read};

use super::{Blob, StoreError};
use crate::oci::{Digest, Hasher};

/// A blob of the cache that has other bytes than its name says: the disk, or somebody, changed them.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the cache is damaged: the blob {digest} is not what its name says ({place})")]
pub struct Damage {
    /// The digest that it should have.
    pub digest: Digest,
    /// What to call the place where it lies.
    pub place: String,
}

impl From<StoreError> for io::Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Damaged(damage) => Self::other(damage),
            error => Self::other(error),
        }
    }
}

impl Damage {
    /// Finds the damage that a [`BlobReader`], or whoever opened one, told of.
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

/// The bytes of a blob, as a store has them.
pub(super) trait Held: Read {
    /// Hears that they are not what they should be: they are not taken for whole any more.
    fn is_damaged(&self);
}

/// Reads the bytes of a blob, and hashes them.
///
/// The last bytes come out only if size and digest are right. The error in their place holds a [`Damage`].
pub struct BlobReader {
    bytes: Box<dyn Held + Send>,
    damage: Damage,
    hasher: Hasher,
    /// How many bytes are to come.
    left: u64,
    is_done: bool,
}

impl BlobReader {
    /// Reads a blob whose bytes should be `bytes`, and lie at `place`.
    pub(super) fn new(blob: &Blob, place: String, bytes: impl Held + Send + 'static) -> Self {
        Self {
            bytes: Box::new(bytes),
            damage: Damage {
                digest: blob.digest,
                place,
            },
            hasher: Hasher::default(),
            left: blob.size,
            is_done: false,
        }
    }

    /// Makes the error for a read that failed.
    pub fn unreadable(&self, source: io::Error) -> StoreError {
        StoreError::of_read(&self.damage.place, source)
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || self.is_done {
            return Ok(0);
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let most = most.min(buffer.len());
        let count = self.bytes.read(&mut buffer[..most])?;
        self.hasher.update(&buffer[..count]);
        self.left -= count as u64;
        if self.left > 0 && count > 0 {
            return Ok(count);
        }
        if self.left > 0 || self.hasher.clone().finish() != self.damage.digest {
            self.bytes.is_damaged();
            return Err(io::Error::other(self.damage.clone()));
        }
        self.is_done = true;
        Ok(count)
    }
}
