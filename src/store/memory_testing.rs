//! A store in memory, for tests: what holds for the folder holds for it, too.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Cursor, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use tempfile::TempDir;

use super::blob::Draft;
use super::read::Held;
use super::{
    Blob, BlobReader, BlobWriter, Blobs, Damage, Health, Later, Record, Records, StoreError,
};
use crate::oci::Digest;

/// Bytes that several readers share.
type Bytes = Arc<[u8]>;

/// Records and blobs in memory.
pub(crate) struct InMemory {
    /// Each as it would lie in a file, so that damage is found.
    records: Mutex<BTreeMap<Digest, Vec<u8>>>,
    blobs: Mutex<BTreeMap<Digest, Bytes>>,
    /// The blobs whose place on this machine was asked for.
    local: TempDir,
}

/// What to call the place where all of it lies.
const PLACE: &str = "memory";

impl Default for InMemory {
    fn default() -> Self {
        Self {
            records: Mutex::default(),
            blobs: Mutex::default(),
            local: tempfile::tempdir().expect("a folder for temporary files"),
        }
    }
}

impl InMemory {
    /// Returns the records, for a test to look at or to damage.
    pub(crate) fn all_records(&self) -> MutexGuard<'_, BTreeMap<Digest, Vec<u8>>> {
        self.records.lock().expect("no test panics with it")
    }

    /// Returns the blobs, for a test to look at or to damage.
    pub(crate) fn all_blobs(&self) -> MutexGuard<'_, BTreeMap<Digest, Bytes>> {
        self.blobs.lock().expect("no test panics with it")
    }

    fn bytes(&self, digest: &Digest) -> Option<Bytes> {
        self.all_blobs().get(digest).cloned()
    }
}

fn absent() -> io::Error {
    io::ErrorKind::NotFound.into()
}

fn damaged(digest: &Digest) -> Damage {
    let place = PLACE.to_owned();
    Damage {
        digest: *digest,
        place,
    }
}

impl Records for InMemory {
    fn records(&self, keys: &[Digest]) -> Result<Vec<Option<Record>>, StoreError> {
        let records = self.all_records();
        let found = |key| records.get(key).and_then(|it| Record::parse(key, it));
        Ok(keys.iter().map(found).collect())
    }

    fn put_record(&self, key: &Digest, record: &Record) -> Result<(), StoreError> {
        self.all_records().insert(*key, record.to_bytes(key));
        Ok(())
    }
}

impl Blobs for InMemory {
    fn check(&self, blob: &Blob) -> Health {
        match self.bytes(&blob.digest) {
            None => Health::Missing,
            Some(bytes) if bytes.len() as u64 != blob.size => Health::Damaged,
            Some(bytes) if Digest::of(&bytes) != blob.digest => Health::Damaged,
            Some(_) => Health::Whole,
        }
    }

    fn find(&self, digest: &Digest) -> Option<Blob> {
        let blob = Blob {
            digest: *digest,
            size: self.bytes(digest)?.len() as u64,
        };
        (self.check(&blob) == Health::Whole).then_some(blob)
    }

    fn open_blob(&self, blob: &Blob) -> Result<BlobReader, StoreError> {
        // Damage is left to the reader to find, as far as the size lets it.
        let bytes = self.bytes(&blob.digest);
        let bytes = bytes.ok_or_else(|| StoreError::of_read(PLACE, absent()))?;
        if bytes.len() as u64 != blob.size {
            return Err(damaged(&blob.digest).into());
        }
        let place = PLACE.to_owned();
        Ok(BlobReader::new(blob, place, Shared(Cursor::new(bytes))))
    }

    fn sound(&self, digest: &Digest) -> Result<bool, StoreError> {
        match self.bytes(digest) {
            None => Ok(false),
            Some(bytes) if Digest::of(&bytes) == *digest => Ok(true),
            Some(_) => Err(damaged(digest).into()),
        }
    }

    fn later(&self, digest: &Digest) -> Arc<dyn Later> {
        Arc::new(Known {
            digest: *digest,
            bytes: self.bytes(digest),
        })
    }

    fn writer(&self) -> Result<BlobWriter<'_>, StoreError> {
        let bytes = Vec::new();
        Ok(BlobWriter::new(Unfinished { store: self, bytes }))
    }

    fn unwritable(&self, source: io::Error) -> StoreError {
        StoreError::Io {
            doing: "write",
            path: PLACE.into(),
            source,
        }
    }

    fn link_blob(&self, blob: &Blob, _: &Path) -> Result<bool, StoreError> {
        self.open_blob(blob).map(|_| false)
    }

    fn vouches_for(&self, _: &Blob, _: &Path) -> bool {
        false
    }

    fn local_path(&self, digest: &Digest) -> PathBuf {
        let path = self.local.path().join(digest.hex());
        if let Some(bytes) = self.bytes(digest) {
            std::fs::write(&path, bytes).expect("a temporary file can be written");
        }
        path
    }
}

/// Reads bytes that others have, too.
struct Shared(Cursor<Bytes>);

impl Read for Shared {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Held for Shared {
    /// Each check hashes: it need not be told.
    fn is_damaged(&self) {}
}

/// A blob for later, as it is now.
#[derive(Debug)]
struct Known {
    digest: Digest,
    bytes: Option<Bytes>,
}

impl Later for Known {
    fn open(&self) -> io::Result<File> {
        let mut file = tempfile::tempfile()?;
        file.write_all(self.bytes.as_ref().ok_or_else(absent)?)?;
        io::Seek::rewind(&mut file)?;
        Ok(file)
    }

    fn damage(&self) -> Option<Damage> {
        let found = Digest::of(self.bytes.as_ref()?);
        (found != self.digest).then(|| damaged(&self.digest))
    }

    fn place(&self) -> String {
        PLACE.to_owned()
    }
}

/// Bytes that become a blob.
struct Unfinished<'a> {
    store: &'a InMemory,
    bytes: Vec<u8>,
}

impl Write for Unfinished<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Draft for Unfinished<'_> {
    fn keep(self: Box<Self>, blob: &Blob) -> Result<(), StoreError> {
        let mut blobs = self.store.all_blobs();
        blobs.insert(blob.digest, self.bytes.into());
        Ok(())
    }
}
