//! The cache folder: blobs under their own digest, records of finished actions, stamps of host files, maps of the segments
//! of layers, locks.
//!
//! Any number of processes share a store. Every write goes to a temporary file and is renamed, so a kill at any
//! moment costs work and never correctness. Each bucket's name carries its format version. Knows nothing of rules,
//! layers or the graph.

mod blob;
mod gc;
mod lock;
mod record;
mod segments;
mod session;
mod stat;

pub use blob::{Blob, BlobWriter, Health, blob_of_file};
pub use gc::{Collected, Info, Verified};
pub use lock::KeyLock;
pub use record::Record;
pub use segments::Piece;
pub use stat::{Stat, Stats};

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::oci::Digest;

/// The cache folder, open.
pub struct Store {
    root: PathBuf,
    /// Keeps `gc` away while a build uses the store.
    _shared: Option<File>,
    session: session::Session,
    maps: segments::Maps,
}

/// A store that cannot be used, or a blob that is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The cache folder cannot be read or written.
    #[error("cannot {doing} {} in the cache", path.display())]
    Io {
        /// What was tried, as `write`.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The bytes have another size than was said.
    #[error("{what} has {found} bytes instead of {expected}")]
    Size {
        /// What was read.
        what: String,
        /// The size that was said.
        expected: u64,
        /// The size that was found.
        found: u64,
    },
    /// The bytes have another digest than was said.
    #[error("{what} has the digest {found} instead of {expected}")]
    Digest {
        /// What was read.
        what: String,
        /// The digest that was said.
        expected: Digest,
        /// The digest that was found.
        found: Digest,
    },
}

/// The buckets. A new format gets a new name, so that old and new programs share a folder.
const BLOBS: &str = "blobs-v1";
const RECORDS: &str = "records-v1";
const LAST: &str = "last-v1";
const STATS: &str = "stats-v1";
const SEGMENTS: &str = "segments-v1";
const LOCKS: &str = "locks-v1";
const TMP: &str = "tmp-v1";
/// Roots of images, unpacked; and the folders of containers that run.
const ROOTS: &str = "roots-v1";
const RUNS: &str = "runs-v1";

impl Store {
    /// Opens the cache folder at `root`, and makes it if it is not there.
    ///
    /// # Errors
    /// When the folder cannot be made or written.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        for bucket in [BLOBS, RECORDS, LAST, STATS, SEGMENTS, LOCKS, TMP] {
            let path = root.join(bucket);
            std::fs::create_dir_all(&path).map_err(|source| StoreError::Io {
                doing: "make",
                path,
                source,
            })?;
        }
        let path = root.join("lock");
        let shared = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .and_then(|file| file.lock_shared().map(|()| file))
            .map_err(|source| StoreError::Io {
                doing: "lock",
                path,
                source,
            })?;
        Ok(Self {
            session: session::Session::start(&root.join(TMP))?,
            root: root.to_owned(),
            _shared: Some(shared),
            maps: segments::Maps::default(),
        })
    }

    /// Returns the cache folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns a folder for temporary files of this process, on the file system of the store. It vanishes afterwards.
    pub fn tmp(&self) -> &Path {
        self.session.folder()
    }

    /// Returns the folder for containers that run: each has one of its own there.
    pub fn runs(&self) -> PathBuf {
        self.root.join(RUNS)
    }

    /// Returns the folder for the roots of images, unpacked.
    pub fn roots(&self) -> PathBuf {
        self.root.join(ROOTS)
    }

    /// Returns where the root of an image is, unpacked, or shall be.
    ///
    /// # Errors
    /// When the folder above cannot be made.
    pub fn root_path(&self, key: &Digest) -> Result<PathBuf, StoreError> {
        use std::os::unix::fs::PermissionsExt;
        let folder = self.roots();
        // Images have programs that make anyone root: on the host they are nobody's.
        let ours = std::fs::Permissions::from_mode(0o700);
        let made = std::fs::create_dir_all(&folder);
        match made.and_then(|()| std::fs::set_permissions(&folder, ours)) {
            Ok(()) => Ok(folder.join(key.hex())),
            Err(source) => Err(StoreError::Io {
                doing: "make",
                path: folder,
                source,
            }),
        }
    }

    /// Writes a small file at once: all of it or nothing.
    fn put(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let fail = |doing| {
            move |source| StoreError::Io {
                doing,
                path: path.to_owned(),
                source,
            }
        };
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(fail("make"))?;
        }
        let mut file = tempfile::NamedTempFile::new_in(self.tmp()).map_err(fail("write"))?;
        io::Write::write_all(file.as_file_mut(), bytes).map_err(fail("write"))?;
        file.persist(path)
            .map_err(|error| fail("write")(error.error))?;
        Ok(())
    }
}

/// Reads a file; `None` if it is not there.
fn read(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StoreError::Io {
            doing: "read",
            path: path.to_owned(),
            source,
        }),
    }
}
