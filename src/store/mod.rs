//! What is kept from build to build: records of finished actions, and blobs under their own digest. [`Records`] and
//! [`Blobs`] say what can be asked of them, wherever they are.
//!
//! The cache folder, [`Store`], holds both, and beside them what belongs to this machine alone: pages of other hosts, stamps
//! of host files, maps of the segments of layers, last keys, roots of images, locks. Any number of processes share it.
//! Every write goes to a temporary file and is renamed, so a kill at any moment costs work and never correctness. Each
//! bucket's name carries its format version. Knows nothing of rules, layers or the graph.

mod blob;
mod folder;
mod gc;
mod lock;
#[cfg(test)]
mod memory_testing;
mod port;
mod read;
mod record;
mod segments;
mod session;
mod stat;
#[cfg(test)]
mod tests;

pub use blob::{Blob, Health};
pub(crate) use blob::{BlobWriter, blob_of_file};
pub(crate) use folder::seal_copy;
pub(crate) use gc::{Collected, Info, Verified};
pub(crate) use lock::KeyLock;
#[cfg(test)]
pub(crate) use memory_testing::InMemory;
pub use port::Blobs;
pub(crate) use port::{Later, Records};
pub(crate) use read::{BlobReader, Damage};
pub(crate) use record::{Page, Record};
pub(crate) use segments::Piece;
pub(crate) use stat::{Stat, Stats};

use std::collections::BTreeSet;
use std::fs::{DirBuilder, File, TryLockError};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::oci::Digest;

/// The cache folder, open.
pub struct Store {
    root: PathBuf,
    /// Keeps `gc` away while a build uses the store.
    _shared: Option<File>,
    /// `None` where nothing can be written.
    session: Option<session::Session>,
    /// Why nothing can be written.
    refused: Option<io::ErrorKind>,
    maps: segments::Maps,
    /// The blobs that this process hashed or wrote.
    sound: Mutex<BTreeSet<Digest>>,
    go_on: GoOn,
}

/// Tells, now and then, whether to go on; false once the user asked to stop.
pub(crate) type GoOn = Arc<dyn Fn() -> bool + Send + Sync>;

/// How long to wait before the lock of a cache is tried again, which another process has for itself.
const WAIT: Duration = Duration::from_millis(20);

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
    /// A blob of the cache is not what it was.
    #[error(transparent)]
    Damaged(#[from] Damage),
}

impl StoreError {
    /// Makes the error for a read of a blob that failed: the blob is damaged, or cannot be read from its place.
    fn of_read(place: &str, source: io::Error) -> Self {
        match Damage::of(&source) {
            Some(damage) => damage.clone().into(),
            None => Self::Io {
                doing: "read",
                path: place.into(),
                source,
            },
        }
    }

    /// Returns the name of the kind of error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Damaged(_) => "imgdecl::cache::damaged",
            _ => "imgdecl::cache",
        }
    }

    /// Returns how to mend it.
    pub fn help(&self) -> &'static str {
        use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem, StorageFull};
        match self {
            Self::Io { source, .. } => match source.kind() {
                StorageFull => "free space, or name another folder with IMGDECL_CACHE_DIR",
                PermissionDenied | ReadOnlyFilesystem => {
                    "it cannot be written: name another folder with IMGDECL_CACHE_DIR"
                }
                _ => "name another folder with IMGDECL_CACHE_DIR",
            },
            _ => {
                "run `imgdecl cache verify`, which removes what is damaged, and then the build again"
            }
        }
    }
}

/// The buckets. A new format gets a new name, so that old and new programs share a folder.
const BLOBS: &str = "blobs-v1";
const RECORDS: &str = "records-v2";
const PAGES: &str = "pages-v1";
const LAST: &str = "last-v2";
const STATS: &str = "stats-v1";
const SEGMENTS: &str = "segments-v1";
const LOCKS: &str = "locks-v1";
const TMP: &str = "tmp-v1";
/// Held by whoever uses the folder.
const LOCK: &str = "lock";
/// Says that the folder was closed to other users once.
const PRIVATE: &str = "private-v1";
/// Roots of images, unpacked; and the folders of containers that run.
const ROOTS: &str = "roots-v1";
const RUNS: &str = "runs-v1";
/// Buckets of earlier formats, which nothing reads any more.
const RETIRED: [&str; 2] = ["records-v1", "last-v1"];

impl Store {
    /// Opens the cache folder at `root`, and makes it if it is not there: for its user alone. One that cannot be written,
    /// but read, is opened too: what it holds is found, and nothing is remembered.
    ///
    /// # Errors
    /// When the folder cannot be made or used.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        Self::open_while(root, Arc::new(|| true))
    }

    /// The same, as long as `go_on` says so: another process may have the cache for itself. What is hashed later goes on as
    /// long, too.
    ///
    /// # Errors
    /// When the folder cannot be made or used, or the user asked to stop.
    pub fn open_while(root: &Path, go_on: GoOn) -> Result<Self, StoreError> {
        let opened = Self::open_to_write(root, &go_on);
        match &opened {
            Err(StoreError::Io { source, .. }) if root.join(BLOBS).is_dir() => {
                use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
                match source.kind() {
                    PermissionDenied | ReadOnlyFilesystem => Ok(Self {
                        // The lock of another user need not be readable: then there is nobody to keep away.
                        _shared: File::open(root.join(LOCK))
                            .and_then(|file| lock_shared(&file, &go_on).map(|()| file))
                            .ok(),
                        session: None,
                        refused: Some(source.kind()),
                        ..Self::at(root, go_on)
                    }),
                    _ => opened,
                }
            }
            _ => opened,
        }
    }

    fn open_to_write(root: &Path, go_on: &GoOn) -> Result<Self, StoreError> {
        let fail = |doing, path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::Io {
                doing,
                path,
                source,
            }
        };
        let mut private = DirBuilder::new();
        private.recursive(true).mode(0o700);
        // The folders above are made as all folders are.
        let above = root.parent().map_or(Ok(()), std::fs::create_dir_all);
        above
            .and_then(|()| private.create(root))
            .map_err(fail("make", &root.join(BLOBS)))?;
        for bucket in [BLOBS, RECORDS, PAGES, LAST, STATS, SEGMENTS, LOCKS, TMP] {
            let path = root.join(bucket);
            private.create(&path).map_err(fail("make", &path))?;
        }
        let path = root.join(LOCK);
        let shared = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .and_then(|file| lock_shared(&file, go_on).map(|()| file))
            .map_err(fail("lock", &path))?;
        close_once(root).map_err(fail("close", root))?;
        Ok(Self {
            _shared: Some(shared),
            session: Some(session::Session::start(&root.join(TMP))?),
            ..Self::at(root, go_on.clone())
        })
    }

    fn at(root: &Path, go_on: GoOn) -> Self {
        Self {
            root: root.to_owned(),
            _shared: None,
            session: None,
            refused: None,
            maps: segments::Maps::default(),
            sound: Mutex::default(),
            go_on,
        }
    }

    /// Hashes a file, until the user asks to stop.
    fn hash(&self, path: &Path) -> io::Result<Digest> {
        let tick = |_: u64| (self.go_on)();
        blob_of_file(path, &tick).map(|blob| blob.digest)
    }

    /// Returns why nothing can be written, where that is so.
    fn refused(&self) -> Option<io::Error> {
        self.refused.map(io::Error::from)
    }

    fn is_known_sound(&self, digest: &Digest) -> bool {
        self.sound.lock().is_ok_and(|it| it.contains(digest))
    }

    fn note_sound(&self, digest: Digest) {
        if let Ok(mut sound) = self.sound.lock() {
            sound.insert(digest);
        }
    }

    /// Returns the cache folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns a folder for temporary files of this process, on the file system of the store. It vanishes afterwards.
    /// Where the store cannot be written, nothing can be put there.
    pub fn tmp(&self) -> &Path {
        self.session.as_ref().map_or(&self.root, |it| it.folder())
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

    /// Writes a small file at once: all of it or nothing. A store that cannot be written remembers nothing.
    fn put(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        self.put_with(path, &|out| out.write_all(bytes))
    }

    /// Writes a file at once, as [`Store::put`] does, with what `write` writes.
    fn put_with(
        &self,
        path: &Path,
        write: &dyn Fn(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), StoreError> {
        if self.refused.is_some() {
            return Ok(());
        }
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
        let file = tempfile::NamedTempFile::new_in(self.tmp()).map_err(fail("write"))?;
        let mut out = BufWriter::new(file);
        write(&mut out).map_err(fail("write"))?;
        let file = out.into_inner().map_err(|error| error.into_error());
        file.map_err(fail("write"))?
            .persist(path)
            .map_err(|error| fail("write")(error.error))?;
        Ok(())
    }
}

/// Closes the cache folder to other users, if it is ours, and was not closed before: an older version made it, or it was
/// there already. Whoever opens it to others afterwards means to. Blobs keep modes that everyone may read: outputs share
/// them, and the folder above keeps others away.
fn close_once(root: &Path) -> io::Result<()> {
    let mark = root.join(PRIVATE);
    if mark.exists() {
        return Ok(());
    }
    let there = std::fs::metadata(root)?;
    let mode = there.mode() & 0o7777;
    if there.uid() == rustix::process::geteuid().as_raw() && mode & 0o077 != 0 {
        // File systems without modes refuse this, and have nothing to close.
        let _ = std::fs::set_permissions(root, std::fs::Permissions::from_mode(mode & !0o077));
    }
    File::options().create(true).append(true).open(mark)?;
    Ok(())
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

/// Waits for a lock that others may have, too.
fn lock_shared(file: &File, go_on: &GoOn) -> io::Result<()> {
    loop {
        match file.try_lock_shared() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if go_on() => std::thread::sleep(WAIT),
            Err(TryLockError::WouldBlock) => return Err(io::Error::other("stopped")),
        }
    }
}
