//! What a store can do, whoever is behind it: records and blobs. The folder is one; what belongs to this machine alone
//! (stamps, pages, segments, last keys, locks, temporary files) is the folder's own.

use std::fmt::Debug;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Blob, BlobReader, BlobWriter, Damage, Health, Record, StoreError};
use crate::oci::Digest;

/// Records of what actions made, by key.
pub(crate) trait Records: Send + Sync {
    /// Returns the records under many keys, in the order of the keys: where each question costs time, all are one. What
    /// cannot be read as a record of its key counts as absent.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn records(&self, keys: &[Digest]) -> Result<Vec<Option<Record>>, StoreError>;

    /// Returns the record under `key`.
    ///
    /// # Errors
    /// The same.
    fn record(&self, key: &Digest) -> Result<Option<Record>, StoreError> {
        let mut found = self.records(std::slice::from_ref(key))?;
        Ok(found.pop().flatten())
    }

    /// Stores a record under `key`, in place of the one that is there.
    ///
    /// # Errors
    /// When the store cannot be written.
    fn put_record(&self, key: &Digest, record: &Record) -> Result<(), StoreError>;
}

/// Bytes under their own verified digest.
pub trait Blobs: Send + Sync {
    /// Tells whether the store can give the blob's bytes.
    fn check(&self, blob: &Blob) -> Health;

    /// Tells the same of many blobs, in their order: where each question costs time, all are one.
    fn check_all(&self, blobs: &[Blob]) -> Vec<Health> {
        blobs.iter().map(|blob| self.check(blob)).collect()
    }

    /// Returns the blob with a digest, if the store can give its bytes: for those who do not know its size.
    fn find(&self, digest: &Digest) -> Option<Blob>;

    /// Opens the blob's bytes, to be read from the beginning, and hashed on the way.
    ///
    /// # Errors
    /// When the store does not have them, or other bytes.
    fn open_blob(&self, blob: &Blob) -> Result<BlobReader, StoreError>;

    /// Reads a blob whose size the caller has found small enough.
    ///
    /// # Errors
    /// As [`Blobs::open_blob`], and where its bytes are not what they should be.
    fn read_blob(&self, blob: &Blob) -> Result<Vec<u8>, StoreError> {
        let mut reader = self.open_blob(blob)?;
        let mut bytes = Vec::new();
        match reader.read_to_end(&mut bytes) {
            Ok(_) => Ok(bytes),
            Err(error) => Err(reader.unreadable(error)),
        }
    }

    /// Makes sure that a blob may be read in any order: hashes it, unless this process did so before, or wrote it. Returns
    /// whether the store has it.
    ///
    /// # Errors
    /// When it cannot be read, or is damaged.
    fn sound(&self, digest: &Digest) -> Result<bool, StoreError>;

    /// Does the same for what [`Blobs::local_path`] named. Any other path is no blob's.
    ///
    /// # Errors
    /// The same.
    fn sound_at(&self, path: &Path) -> Result<bool, StoreError> {
        let name = path.file_name().and_then(|name| name.to_str());
        match name.and_then(|name| Digest::from_hex(name).ok()) {
            Some(digest) if self.local_path(&digest) == path => self.sound(&digest),
            _ => Ok(false),
        }
    }

    /// Returns the blob for whoever opens it later, without the store at hand. It need not be there.
    fn later(&self, digest: &Digest) -> Arc<dyn Later>;

    /// Stores `bytes`.
    ///
    /// # Errors
    /// When the store cannot be written.
    fn put_blob(&self, bytes: &[u8]) -> Result<Blob, StoreError> {
        let blob = Blob {
            digest: Digest::of(bytes),
            size: bytes.len() as u64,
        };
        // One that is damaged unseen is written anew.
        let is_sound = || self.sound(&blob.digest).unwrap_or(false);
        if self.check(&blob) == Health::Whole && is_sound() {
            return Ok(blob);
        }
        let mut writer = self.writer()?;
        writer
            .write_all(bytes)
            .map_err(|source| self.unwritable(source))?;
        writer.complete()
    }

    /// Starts a blob whose digest is not known yet.
    ///
    /// # Errors
    /// When the store cannot be written.
    fn writer(&self) -> Result<BlobWriter<'_>, StoreError>;

    /// Makes the error for a failed write to the store.
    fn unwritable(&self, source: io::Error) -> StoreError;

    /// Makes `path`, where nothing is, another name of the blob's file, or a file that shares its blocks. Nothing is read:
    /// the blob is trusted as it is. Returns whether that could be done; if not, the bytes have to be copied.
    ///
    /// # Errors
    /// When the store does not have the blob, or other bytes.
    fn link_blob(&self, blob: &Blob, path: &Path) -> Result<bool, StoreError>;

    /// Tells whether `path`, a file that was made of the blob once, can be taken for it without reading.
    fn vouches_for(&self, blob: &Blob, path: &Path) -> bool;

    /// Returns where the blob's bytes lie on this machine, if they are here. For contents of trees alone, and wheels that
    /// hold them: a layer has thousands, each a part of a blob, which are read by their places as the layer is written.
    /// Nothing is checked: see [`Blobs::sound`]. Whoever can reads a stream, or takes what [`Blobs::later`] returns.
    fn local_path(&self, digest: &Digest) -> PathBuf;
}

/// A blob for later: known without its store.
pub trait Later: Debug + Send + Sync {
    /// Opens the blob as a file, to be read in any order, or by those who hash it themselves: nothing is checked.
    ///
    /// # Errors
    /// When the store does not have it, or it cannot be read.
    fn open(&self) -> io::Result<File>;

    /// Looks for the cause where what was read makes no sense: hashes it all.
    fn damage(&self) -> Option<Damage>;

    /// Returns what to call the place where it lies, in messages.
    fn place(&self) -> String;
}
