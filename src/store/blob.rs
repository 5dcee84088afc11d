//! Blobs: bytes under their own verified digest.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::{BLOBS, Store, StoreError};
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

/// The modification time of every blob in the store. A blob whose time differs was touched by someone else, and is
/// hashed again before it is used.
const SEALED: Duration = Duration::from_secs(1);

impl Store {
    /// Returns where the blob's bytes lie, if the store has them. Nothing is read by this path alone: see
    /// [`Store::open_blob`] and [`Store::sound`].
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.root
            .join(BLOBS)
            .join("sha256")
            .join(&hex[..2])
            .join(&hex)
    }

    /// Tells whether the store can give the blob's bytes: by size and seal, and by hashing where the seal is broken.
    pub fn check(&self, blob: &Blob) -> Health {
        let path = self.blob_path(&blob.digest);
        let Ok(metadata) = fs::symlink_metadata(&path) else {
            return Health::Missing;
        };
        if !metadata.is_file() || metadata.len() != blob.size {
            return Health::Damaged;
        }
        if is_sealed(&metadata) {
            return Health::Whole;
        }
        match self.hash(&path) {
            Ok(digest) if digest == blob.digest => {
                let _ = File::open(&path).and_then(|file| seal(&file));
                Health::Whole
            }
            // Nothing was found out, and nobody goes on.
            Err(_) if !(self.go_on)() => Health::Missing,
            _ => Health::Damaged,
        }
    }

    /// Stores `bytes`.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn put_blob(&self, bytes: &[u8]) -> Result<Blob, StoreError> {
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
    pub fn writer(&self) -> Result<BlobWriter<'_>, StoreError> {
        if let Some(refused) = self.refused() {
            return Err(self.unwritable(refused));
        }
        let file = tempfile::NamedTempFile::new_in(self.tmp())
            .map_err(|source| self.unwritable(source))?;
        Ok(BlobWriter {
            store: self,
            file,
            hasher: Hasher::default(),
            size: 0,
        })
    }

    /// Makes the error for a failed write to the store.
    pub fn unwritable(&self, source: io::Error) -> StoreError {
        StoreError::Io {
            doing: "write",
            path: self.root.clone(),
            source,
        }
    }
}

/// A blob that is being written. Dropped before it is complete, it leaves nothing.
pub struct BlobWriter<'a> {
    store: &'a Store,
    file: tempfile::NamedTempFile,
    hasher: Hasher,
    size: u64,
}

impl BlobWriter<'_> {
    /// Ends the blob and stores it under its digest.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn complete(self) -> Result<Blob, StoreError> {
        let blob = Blob {
            digest: self.hasher.finish(),
            size: self.size,
        };
        let path = self.store.blob_path(&blob.digest);
        let fail = |source| StoreError::Io {
            doing: "write",
            path: path.clone(),
            source,
        };
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(fail)?;
        }
        let mut permissions = self.file.as_file().metadata().map_err(fail)?.permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o444);
        self.file
            .as_file()
            .set_permissions(permissions)
            .map_err(fail)?;
        seal(self.file.as_file()).map_err(fail)?;
        // What is replaced may be damaged, and lie in outputs, too: they take the new one.
        if let Ok(older) = File::open(&path) {
            unseal(&older);
        }
        self.file
            .persist(&path)
            .map_err(|error| fail(error.error))?;
        self.store.note_sound(blob.digest);
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
        // Not through the named file: its errors end in a random name, which helps nobody.
        let count = self.file.as_file_mut().write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_what_its_digest_says() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let blob = store.put_blob(b"hello").unwrap();
        assert_eq!(
            blob,
            Blob {
                digest: Digest::of(b"hello"),
                size: 5
            }
        );
        assert_eq!(store.check(&blob), Health::Whole);
        assert_eq!(store.read_blob(&blob).unwrap(), b"hello");

        let path = store.blob_path(&blob.digest);
        fs::remove_file(&path).unwrap();
        assert_eq!(store.check(&blob), Health::Missing);
        fs::write(&path, b"hullo").unwrap();
        assert_eq!(store.check(&blob), Health::Damaged);
        assert!(store.open_blob(&blob).is_err());
        fs::write(&path, b"hello").unwrap();
        assert_eq!(store.check(&blob), Health::Whole);
        fs::write(&path, b"hell").unwrap();
        assert_eq!(store.check(&blob), Health::Damaged);
    }

    #[test]
    fn verified_writes_refuse_other_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let write = |bytes: &[u8], expected: Blob| {
            let mut writer = store.writer().unwrap();
            writer.write_all(bytes).unwrap();
            writer.complete_verified_as(&expected, "x")
        };
        let expected = Blob {
            digest: Digest::of(b"abc"),
            size: 3,
        };
        assert!(matches!(
            write(b"abcd", expected),
            Err(StoreError::Size { .. })
        ));
        assert!(matches!(
            write(b"abd", expected),
            Err(StoreError::Digest { .. })
        ));
        assert_eq!(store.check(&expected), Health::Missing);
        write(b"abc", expected).unwrap();
        assert_eq!(fs::read_dir(store.tmp()).unwrap().count(), 0);
    }
}
