//! Reading blobs. Whoever reads one has it hashed on the way, and never gets the last bytes of a damaged one: a copy or an
//! upload of it cannot end well. Only a link, for which nothing is read, trusts the seal.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::blob::{hash, is_sealed, seal, unseal};
use super::{Blob, Health, Store, StoreError};
use crate::oci::{Digest, Hasher};

/// A blob of the cache that has other bytes than its name says: the disk, or somebody, changed them.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the cache is damaged: the blob {digest} is not what its name says ({})", path.display())]
pub struct Damage {
    /// The digest that it should have.
    pub digest: Digest,
    /// Its file.
    pub path: PathBuf,
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

/// Reads the bytes of a blob, and hashes them.
///
/// The last bytes come out only if size and digest are right. The error in their place holds a [`Damage`].
pub struct BlobReader {
    file: File,
    damage: Damage,
    hasher: Hasher,
    /// How many bytes are to come.
    left: u64,
    is_done: bool,
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || self.is_done {
            return Ok(0);
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let most = most.min(buffer.len());
        let count = self.file.read(&mut buffer[..most])?;
        self.hasher.update(&buffer[..count]);
        self.left -= count as u64;
        if self.left > 0 && count > 0 {
            return Ok(count);
        }
        if self.left > 0 || self.hasher.clone().finish() != self.damage.digest {
            unseal(&self.file);
            return Err(io::Error::other(self.damage.clone()));
        }
        self.is_done = true;
        Ok(count)
    }
}

/// Looks for the cause where something that was read from `path`, a file of the cache, made no sense: hashes it all.
pub(crate) fn damage(path: &Path, digest: Digest) -> Option<Damage> {
    let found = hash(path).ok()?;
    if found == digest {
        return None;
    }
    if let Ok(file) = File::open(path) {
        unseal(&file);
    }
    let path = path.to_owned();
    Some(Damage { digest, path })
}

/// How many bytes are copied before it is asked whether to go on.
const STEP: usize = 1 << 20;

impl Store {
    /// Opens the blob's bytes, to be read from the beginning.
    ///
    /// # Errors
    /// When the store does not have them, or other bytes.
    pub fn open_blob(&self, blob: &Blob) -> Result<BlobReader, StoreError> {
        let path = self.blob_path(&blob.digest);
        let damage = Damage {
            digest: blob.digest,
            path: path.clone(),
        };
        match self.check(blob) {
            Health::Damaged => return Err(damage.into()),
            // It may be that nobody found out.
            Health::Missing if !(self.go_on)() => {
                return Err(self.unreadable(blob, io::Error::other("stopped")));
            }
            Health::Missing | Health::Whole => {}
        }
        let file = File::open(&path).map_err(|source| self.unreadable(blob, source))?;
        Ok(BlobReader {
            file,
            damage,
            hasher: Hasher::default(),
            left: blob.size,
            is_done: false,
        })
    }

    /// Reads a blob whose size the caller has found small enough.
    ///
    /// # Errors
    /// As [`Store::open_blob`], and where its bytes are not what they should be.
    pub fn read_blob(&self, blob: &Blob) -> Result<Vec<u8>, StoreError> {
        let mut bytes = Vec::new();
        match self.open_blob(blob)?.read_to_end(&mut bytes) {
            Ok(_) => Ok(bytes),
            Err(error) => Err(self.unreadable(blob, error)),
        }
    }

    /// Makes the error for a failed read of a blob.
    fn unreadable(&self, blob: &Blob, source: io::Error) -> StoreError {
        match Damage::of(&source) {
            Some(damage) => damage.clone().into(),
            None => StoreError::Io {
                doing: "read",
                path: self.blob_path(&blob.digest),
                source,
            },
        }
    }

    /// Makes sure that the file of a blob may be read in any order: hashes it, unless this process did so before, or wrote
    /// it. Returns whether the store has it.
    ///
    /// # Errors
    /// When it cannot be read, or is damaged.
    pub fn sound(&self, digest: &Digest) -> Result<bool, StoreError> {
        let path = self.blob_path(digest);
        if !path.exists() {
            return Ok(false);
        }
        if self.is_known_sound(digest) {
            return Ok(true);
        }
        let found = self.hash(&path).map_err(|source| StoreError::Io {
            doing: "read",
            path: path.clone(),
            source,
        })?;
        if found != *digest {
            if let Ok(file) = File::open(&path) {
                unseal(&file);
            }
            let digest = *digest;
            return Err(Damage { digest, path }.into());
        }
        self.note_sound(*digest);
        Ok(true)
    }

    /// Does the same for a blob that is known by its file.
    ///
    /// # Errors
    /// The same.
    pub fn sound_file(&self, path: &Path) -> Result<bool, StoreError> {
        let name = path.file_name().and_then(|name| name.to_str());
        match name.and_then(|name| Digest::from_hex(name).ok()) {
            Some(digest) if self.blob_path(&digest) == path => self.sound(&digest),
            _ => Ok(false),
        }
    }

    /// Gives another store a blob, hashed on the way: as another name of the same file where that is possible. Returns
    /// whether this store has it.
    ///
    /// # Errors
    /// When a store cannot be read or written, or the blob is damaged.
    pub fn lend(&self, blob: &Blob, other: &Self) -> Result<bool, StoreError> {
        if self.check(blob) == Health::Missing || !self.sound(&blob.digest)? {
            return Ok(false);
        }
        let target = other.blob_path(&blob.digest);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(|source| other.unwritable(source))?;
        }
        let path = self.blob_path(&blob.digest);
        if other.check(blob) == Health::Whole || fs::hard_link(path, &target).is_ok() {
            return Ok(true);
        }
        let mut reader = self.open_blob(blob)?;
        let mut writer = other.writer()?;
        let mut buffer = vec![0; STEP];
        loop {
            let read = reader.read(&mut buffer);
            let count = read.map_err(|source| self.unreadable(blob, source))?;
            if count == 0 {
                break;
            }
            let written = writer.write_all(&buffer[..count]);
            written.map_err(|source| other.unwritable(source))?;
            if !(self.go_on)() {
                return Err(self.unreadable(blob, io::Error::other("stopped")));
            }
        }
        writer.complete_verified_as(blob, "a blob of another cache")?;
        Ok(true)
    }

    /// Makes `path`, where nothing is, another name of the blob's file, or a file that shares its blocks. Nothing is read:
    /// the blob is trusted by its seal. Returns whether the file system can do so.
    ///
    /// # Errors
    /// When the store does not have the blob, or other bytes.
    pub fn link_blob(&self, blob: &Blob, path: &Path) -> Result<bool, StoreError> {
        let own = self.blob_path(&blob.digest);
        let source = self.open_blob(blob)?.file;
        if let Ok(target) = File::options().write(true).create_new(true).open(path) {
            if reflink(&source, &target) && seal_copy(&target).is_ok() {
                return Ok(true);
            }
            let _ = fs::remove_file(path);
        }
        Ok(fs::hard_link(own, path).is_ok())
    }

    /// Tells whether `path`, a file that was made of the blob once, can be taken for it without reading: it is the blob's
    /// own file, or it is sealed, and was so after the blob came into the store. A copy that is no younger may be one of a blob
    /// that was damaged, removed, and made again.
    pub fn vouches_for(&self, blob: &Blob, path: &Path) -> bool {
        let own = fs::symlink_metadata(self.blob_path(&blob.digest));
        let (Ok(own), Ok(there)) = (own, fs::symlink_metadata(path)) else {
            return false;
        };
        let is_same = (own.dev(), own.ino()) == (there.dev(), there.ino());
        let changed = |it: &fs::Metadata| (it.ctime(), it.ctime_nsec());
        there.is_file()
            && there.len() == blob.size
            && is_sealed(&there)
            && (is_same || changed(&there) > changed(&own))
    }
}

/// Seals a file outside of the store that has all bytes of a blob, and makes it read-only.
///
/// # Errors
/// When the file system refuses it.
pub(crate) fn seal_copy(file: &File) -> io::Result<()> {
    let mut permissions = file.metadata()?.permissions();
    permissions.set_readonly(true);
    file.set_permissions(permissions)?;
    seal(file)
}

/// Lets two files share their blocks, where the file system can.
#[cfg(target_os = "linux")]
fn reflink(source: &File, target: &File) -> bool {
    rustix::fs::ioctl_ficlone(target, source).is_ok()
}

#[cfg(not(target_os = "linux"))]
fn reflink(_: &File, _: &File) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Changes bytes of a blob and nothing else that can be seen.
    fn rot(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let before = fs::metadata(path).unwrap().modified().unwrap();
        let mode = fs::metadata(path).unwrap().permissions();
        let mut bytes = fs::read(path).unwrap();
        change(&mut bytes);
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        fs::write(path, bytes).unwrap();
        let file = File::options().append(true).open(path).unwrap();
        file.set_modified(before).unwrap();
        fs::set_permissions(path, mode).unwrap();
    }

    #[test]
    fn the_last_bytes_of_a_damaged_blob_never_come_out() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let bytes: Vec<u8> = (0..100_000u32).map(|it| it as u8).collect();
        let blob = store.put_blob(&bytes).unwrap();
        let path = store.blob_path(&blob.digest);
        for at in [0, 50_000, 99_999] {
            rot(&path, |bytes| bytes[at] ^= 1);
            assert_eq!(store.check(&blob), Health::Whole);
            let mut reader = store.open_blob(&blob).unwrap();
            // Whoever counts, and stops where the size is reached, has not got it either.
            let (mut got, mut piece) = (0, [0; 4096]);
            let error = loop {
                match reader.read(&mut piece) {
                    Ok(count) => got += count as u64,
                    Err(error) => break error,
                }
                assert!(got < blob.size);
            };
            assert_eq!(Damage::of(&error).unwrap().digest, blob.digest);
            // From now on nobody takes it for whole.
            assert_eq!(store.check(&blob), Health::Damaged);
            assert!(matches!(
                store.open_blob(&blob),
                Err(StoreError::Damaged(_))
            ));
            assert_eq!(store.put_blob(&bytes).unwrap(), blob);
            assert_eq!(store.read_blob(&blob).unwrap(), bytes);
        }
        let empty = store.put_blob(b"").unwrap();
        assert_eq!(store.read_blob(&empty).unwrap(), b"");
    }

    #[test]
    fn what_is_read_in_any_order_is_hashed_before() {
        let folder = tempfile::tempdir().unwrap();
        let blob = Store::open(folder.path())
            .unwrap()
            .put_blob(b"abc")
            .unwrap();
        let store = Store::open(folder.path()).unwrap();
        let path = store.blob_path(&blob.digest);
        assert!(store.sound_file(&path).unwrap());
        assert!(!store.sound_file(Path::new("/elsewhere")).unwrap());
        assert!(!store.sound(&Digest::of(b"absent")).unwrap());
        rot(&path, |bytes| bytes.reverse());
        let next = Store::open(folder.path()).unwrap();
        assert!(matches!(
            next.sound_file(&path),
            Err(StoreError::Damaged(_))
        ));
        assert_eq!(next.check(&blob), Health::Damaged);
        assert!(damage(&path, blob.digest).is_some());
    }

    #[test]
    fn what_is_written_again_mends_a_blob_that_looks_whole() {
        let folder = tempfile::tempdir().unwrap();
        let blob = Store::open(folder.path())
            .unwrap()
            .put_blob(b"abc")
            .unwrap();
        let store = Store::open(folder.path()).unwrap();
        rot(&store.blob_path(&blob.digest), |bytes| bytes[0] = b'x');
        store.put_blob(b"abc").unwrap();
        assert_eq!(store.read_blob(&blob).unwrap(), b"abc");
    }

    #[test]
    fn what_is_lent_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let blob = Store::open(&folder.path().join("a"))
            .and_then(|it| it.put_blob(b"hello"))
            .unwrap();
        let from = Store::open(&folder.path().join("a")).unwrap();
        let to = Store::open(&folder.path().join("b")).unwrap();
        let missing = Blob {
            digest: Digest::of(b""),
            size: 0,
        };
        assert!(!from.lend(&missing, &to).unwrap());
        assert!(from.lend(&blob, &to).unwrap());
        assert!(from.lend(&blob, &to).unwrap());
        assert_eq!(to.read_blob(&blob).unwrap(), b"hello");
        // Damage that keeps size and seal is found, because every byte is read.
        rot(&from.blob_path(&blob.digest), |bytes| bytes[0] = b'H');
        let from = Store::open(&folder.path().join("a")).unwrap();
        let to = Store::open(&folder.path().join("c")).unwrap();
        assert_eq!(from.check(&blob), Health::Whole);
        assert!(from.lend(&blob, &to).is_err());
        assert_eq!(to.check(&blob), Health::Missing);
    }

    #[test]
    fn a_copy_is_vouched_for_until_the_blob_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let blob = store.put_blob(b"hello").unwrap();
        let (link, copy) = (folder.path().join("link"), folder.path().join("copy"));
        assert!(store.link_blob(&blob, &link).unwrap());
        fs::copy(&link, &copy).unwrap();
        assert!(store.vouches_for(&blob, &link) && !store.vouches_for(&blob, &copy));
        // Clocks of file systems tick slowly.
        let tick = || std::thread::sleep(std::time::Duration::from_millis(20));
        tick();
        seal_copy(&File::open(&copy).unwrap()).unwrap();
        assert!(store.vouches_for(&blob, &copy));
        tick();
        fs::remove_file(store.blob_path(&blob.digest)).unwrap();
        store.put_blob(b"hello").unwrap();
        assert!(!store.vouches_for(&blob, &link) && !store.vouches_for(&blob, &copy));
        tick();
        seal_copy(&File::open(&copy).unwrap()).unwrap();
        assert!(store.vouches_for(&blob, &copy));
    }
}
