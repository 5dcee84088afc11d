//! Blobs: bytes under their own verified digest.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::oci::{Descriptor, Digest, Hasher};

/// A blob: its digest and its size in bytes. The bytes themselves may be absent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Blob {
    /// The digest of the bytes.
    pub digest: Digest,
    /// The size in bytes.
    pub size: u64,
}

impl From<&Descriptor> for Blob {
    fn from(descriptor: &Descriptor) -> Self {
        Self {
            digest: descriptor.digest,
            size: descriptor.size,
        }
    }
}

/// Whether the store can give a blob's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Health {
    /// It can.
    Whole,
    /// It never had them, or lost them.
    Missing,
    /// It has other bytes.
    Damaged,
}

/// The modification time of every blob in the folder. A blob whose time differs was touched by someone else, and is
/// hashed again before it is used.
const SEALED: Duration = Duration::from_secs(1);

/// What takes the bytes of a blob that is being written, and is dropped where they are not to be kept.
pub(super) trait Draft: Write {
    /// Keeps them under the digest that they have.
    fn keep(self: Box<Self>, blob: &Blob) -> Result<(), StoreError>;
}

/// A blob that is being written, and hashed. Dropped before it is complete, it leaves nothing.
pub struct BlobWriter<'a> {
    draft: Box<dyn Draft + Send + 'a>,
    hasher: Hasher,
    size: u64,
}

impl<'a> BlobWriter<'a> {
    /// Starts a blob whose bytes `draft` takes.
    pub(super) fn new(draft: impl Draft + Send + 'a) -> Self {
        Self {
            draft: Box::new(draft),
            hasher: Hasher::default(),
            size: 0,
        }
    }

    /// Ends the blob and stores it under its digest.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn complete(self) -> Result<Blob, StoreError> {
        let blob = Blob {
            digest: self.hasher.finish(),
            size: self.size,
        };
        self.draft.keep(&blob)?;
        Ok(blob)
    }

    /// Ends the blob and stores it, if it is the one that was expected. `what` names it in errors.
    ///
    /// # Errors
    /// When size or digest differ, or the store cannot be written.
    pub fn complete_verified_as(self, expected: &Blob, what: &str) -> Result<Blob, StoreError> {
        if self.size != expected.size {
            let (what, found) = (what.to_owned(), self.size);
            return Err(StoreError::Size {
                what,
                expected: expected.size,
                found,
            });
        }
        let found = self.hasher.clone().finish();
        if found != expected.digest {
            let (what, expected) = (what.to_owned(), expected.digest);
            return Err(StoreError::Digest {
                what,
                expected,
                found,
            });
        }
        self.complete()
    }
}

impl Write for BlobWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.draft.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.draft.flush()
    }
}

/// Marks a file as whole: its bytes were hashed, and nobody wrote it since.
pub(super) fn seal(file: &File) -> io::Result<()> {
    file.set_modified(SystemTime::UNIX_EPOCH + SEALED)
}

/// Tells whether a file is marked as whole.
pub(super) fn is_sealed(metadata: &fs::Metadata) -> bool {
    metadata
        .modified()
        .is_ok_and(|time| time == SystemTime::UNIX_EPOCH + SEALED)
}

/// Takes the mark from a file that is damaged, under all its names: outputs that share it with the store do not take it
/// for whole any more either. Where that may not be done, it is found damaged each time.
pub(super) fn unseal(file: &File) {
    let _ = file.set_modified(SystemTime::UNIX_EPOCH);
}

/// Returns the digest and size of a file. `tick` hears how many bytes were read, and says whether to go on.
///
/// # Errors
/// When it cannot be read, or `tick` says to stop.
pub(crate) fn blob_of_file(path: &Path, tick: &dyn Fn(u64) -> bool) -> io::Result<Blob> {
    let mut file = File::open(path)?;
    let (mut hasher, mut size) = (Hasher::default(), 0);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => {
                let digest = hasher.finish();
                return Ok(Blob { digest, size });
            }
            count => {
                hasher.update(&buffer[..count]);
                size += count as u64;
                if !tick(count as u64) {
                    return Err(io::Error::other("stopped"));
                }
            }
        }
    }
}

/// Hashes a file.
pub(super) fn hash(path: &Path) -> io::Result<Digest> {
    blob_of_file(path, &|_| true).map(|blob| blob.digest)
}
