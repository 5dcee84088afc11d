//! The cache folder as a store of blobs: one file for each, which is sealed when it is whole, and read-only.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::blob::{Draft, hash, is_sealed, seal, unseal};
use super::read::Held;
use super::{BLOBS, Blob, BlobReader, BlobWriter, Blobs, Damage, Health, Later, Store, StoreError};
use crate::oci::Digest;

/// How many bytes are copied before it is asked whether to go on.
const STEP: usize = 1 << 20;

impl Blobs for Store {
    /// Goes by size and seal, and hashes where the seal is broken.
    fn check(&self, blob: &Blob) -> Health {
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

    fn find(&self, digest: &Digest) -> Option<Blob> {
        let size = fs::metadata(self.blob_path(digest)).ok()?.len();
        let blob = Blob {
            digest: *digest,
            size,
        };
        (self.check(&blob) == Health::Whole).then_some(blob)
    }

    fn open_blob(&self, blob: &Blob) -> Result<BlobReader, StoreError> {
        let file = self.open_whole(blob)?;
        Ok(BlobReader::new(blob, self.place(&blob.digest), file))
    }

    fn sound(&self, digest: &Digest) -> Result<bool, StoreError> {
        let path = self.blob_path(digest);
        if !path.exists() {
            return Ok(false);
        }
        if self.is_known_sound(digest) {
            return Ok(true);
        }
        let found = self
            .hash(&path)
            .map_err(|source| self.unreadable(digest, source))?;
        if found != *digest {
            if let Ok(file) = File::open(&path) {
                unseal(&file);
            }
            return Err(self.damaged(digest).into());
        }
        self.note_sound(*digest);
        Ok(true)
    }

    fn later(&self, digest: &Digest) -> Arc<dyn Later> {
        Arc::new(Sealed {
            digest: *digest,
            path: self.blob_path(digest),
        })
    }

    fn writer(&self) -> Result<BlobWriter<'_>, StoreError> {
        if let Some(refused) = self.refused() {
            return Err(self.unwritable(refused));
        }
        let file = tempfile::NamedTempFile::new_in(self.tmp())
            .map_err(|source| self.unwritable(source))?;
        Ok(BlobWriter::new(Unsealed { store: self, file }))
    }

    fn unwritable(&self, source: io::Error) -> StoreError {
        StoreError::Io {
            doing: "write",
            path: self.root.clone(),
            source,
        }
    }

    fn link_blob(&self, blob: &Blob, path: &Path) -> Result<bool, StoreError> {
        let source = self.open_whole(blob)?;
        if let Ok(target) = File::options().write(true).create_new(true).open(path) {
            if reflink(&source, &target) && seal_copy(&target).is_ok() {
                return Ok(true);
            }
            let _ = fs::remove_file(path);
        }
        Ok(fs::hard_link(self.blob_path(&blob.digest), path).is_ok())
    }

    /// It is the blob's own file, or it is sealed, and was so after the blob came into the store. A copy that is no younger
    /// may be one of a blob that was damaged, removed, and made again.
    fn vouches_for(&self, blob: &Blob, path: &Path) -> bool {
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

    fn local_path(&self, digest: &Digest) -> PathBuf {
        self.blob_path(digest)
    }
}

impl Store {
    /// Returns where the blob's bytes lie, if the folder has them.
    pub(super) fn blob_path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.root
            .join(BLOBS)
            .join("sha256")
            .join(&hex[..2])
            .join(&hex)
    }

    /// Returns what to call that place in messages.
    fn place(&self, digest: &Digest) -> String {
        self.blob_path(digest).display().to_string()
    }

    /// Says that a blob is damaged.
    fn damaged(&self, digest: &Digest) -> Damage {
        Damage {
            digest: *digest,
            place: self.place(digest),
        }
    }

    /// Makes the error for a failed read of a blob.
    fn unreadable(&self, digest: &Digest, source: io::Error) -> StoreError {
        StoreError::of_read(&self.place(digest), source)
    }

    /// Opens the file of a blob that is whole, as far as its size and its seal say.
    fn open_whole(&self, blob: &Blob) -> Result<File, StoreError> {
        match self.check(blob) {
            Health::Damaged => return Err(self.damaged(&blob.digest).into()),
            // It may be that nobody found out.
            Health::Missing if !(self.go_on)() => {
                let stopped = io::Error::other("stopped");
                return Err(self.unreadable(&blob.digest, stopped));
            }
            Health::Missing | Health::Whole => {}
        }
        File::open(self.blob_path(&blob.digest))
            .map_err(|source| self.unreadable(&blob.digest, source))
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
            let count = read.map_err(|source| reader.unreadable(source))?;
            if count == 0 {
                break;
            }
            let written = writer.write_all(&buffer[..count]);
            written.map_err(|source| other.unwritable(source))?;
            if !(self.go_on)() {
                return Err(reader.unreadable(io::Error::other("stopped")));
            }
        }
        writer.complete_verified_as(blob, "a blob of another cache")?;
        Ok(true)
    }
}

impl Held for File {
    fn is_damaged(&self) {
        unseal(self);
    }
}

/// A blob of the folder, for later.
#[derive(Debug)]
struct Sealed {
    digest: Digest,
    path: PathBuf,
}

impl Later for Sealed {
    fn open(&self) -> io::Result<File> {
        // Before it is opened: a fifo would block.
        match fs::metadata(&self.path)?.is_file() {
            true => File::open(&self.path),
            false => Err(io::Error::other("it is no regular file")),
        }
    }

    fn damage(&self) -> Option<Damage> {
        let found = hash(&self.path).ok()?;
        if found == self.digest {
            return None;
        }
        if let Ok(file) = File::open(&self.path) {
            unseal(&file);
        }
        Some(Damage {
            digest: self.digest,
            place: self.place(),
        })
    }

    fn place(&self) -> String {
        self.path.display().to_string()
    }
}

/// A temporary file that becomes a blob.
struct Unsealed<'a> {
    store: &'a Store,
    file: tempfile::NamedTempFile,
}

impl Write for Unsealed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Not through the named file: its errors end in a random name, which helps nobody.
        self.file.as_file_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Draft for Unsealed<'_> {
    fn keep(self: Box<Self>, blob: &Blob) -> Result<(), StoreError> {
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
        permissions.set_mode(0o444);
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
        Ok(())
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
    use super::super::tests::rot;
    use super::*;

    #[test]
    fn a_blob_is_what_its_digest_says() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let blob = store.put_blob(b"hello").unwrap();
        let path = store.blob_path(&blob.digest);
        fs::remove_file(&path).unwrap();
        assert_eq!(store.check(&blob), Health::Missing);
        // A file without a seal is hashed.
        fs::write(&path, b"hullo").unwrap();
        assert_eq!(store.check(&blob), Health::Damaged);
        assert!(store.open_blob(&blob).is_err());
        fs::write(&path, b"hello").unwrap();
        assert_eq!(store.check(&blob), Health::Whole);
        fs::write(&path, b"hell").unwrap();
        assert_eq!(store.check(&blob), Health::Damaged);
    }

    #[test]
    fn a_seal_is_believed_until_somebody_reads() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let blob = store.put_blob(b"hello").unwrap();
        rot(&store.blob_path(&blob.digest), |bytes| bytes[0] = b'H');
        assert_eq!(store.check(&blob), Health::Whole);
        assert!(matches!(
            store.read_blob(&blob),
            Err(StoreError::Damaged(_))
        ));
        assert_eq!(store.check(&blob), Health::Damaged);
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
        assert!(store.sound_at(&path).unwrap());
        assert!(!store.sound_at(Path::new("/elsewhere")).unwrap());
        assert!(!store.sound(&Digest::of(b"absent")).unwrap());
        rot(&path, |bytes| bytes.reverse());
        let next = Store::open(folder.path()).unwrap();
        assert!(matches!(next.sound_at(&path), Err(StoreError::Damaged(_))));
        assert_eq!(next.check(&blob), Health::Damaged);
        assert!(next.later(&blob.digest).damage().is_some());
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
