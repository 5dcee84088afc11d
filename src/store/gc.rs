//! Looks after the cache folder: what it holds, what can go, what is damaged.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{
    BLOBS, Blob, LAST, LOCK, LOCKS, PAGES, RECORDS, RETIRED, Record, SEGMENTS, STATS, Store,
    StoreError, blob, blob_of_file, read, segments,
};
use crate::oci::Digest;

/// What a cache folder holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Info {
    /// Number of blobs.
    pub blobs: u64,
    /// Bytes in blobs.
    pub blob_bytes: u64,
    /// Number of records, and of pages of other hosts.
    pub records: u64,
    /// Bytes in everything else: records, stamps of host files, texts of keys, maps of segments.
    pub other_bytes: u64,
    /// Number of images that are unpacked, to be run.
    pub roots: u64,
}

/// What a collection removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Collected {
    /// Number of blobs.
    pub blobs: u64,
    /// Number of records.
    pub records: u64,
    /// Bytes freed.
    pub bytes: u64,
}

/// What a verification found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Verified {
    /// Number of blobs whose digest is right.
    pub whole: u64,
    /// Blobs that were damaged, and were removed.
    pub damaged: Vec<PathBuf>,
    /// Records that were damaged, and were removed.
    pub records: Vec<PathBuf>,
    /// What is damaged and could not be removed, and why.
    pub stuck: Vec<(PathBuf, String)>,
}

impl Verified {
    /// Removes a damaged file; returns its path if that succeeds.
    fn remove(&mut self, path: PathBuf) -> Option<PathBuf> {
        match fs::remove_file(&path) {
            Ok(()) => Some(path),
            Err(error) => {
                self.stuck.push((path, error.to_string()));
                None
            }
        }
    }
}

impl Store {
    /// Opens the cache folder for maintenance, alone; waits for nobody.
    ///
    /// # Errors
    /// When a build uses the store, or it cannot be opened.
    pub fn open_alone(root: &Path) -> Result<Self, StoreError> {
        let mut store = Self::open(root)?;
        let path = root.join(LOCK);
        let fail = |source| StoreError::Io {
            doing: "lock",
            path: path.clone(),
            source,
        };
        // The shared lock goes first: it is ours, and would stand in the way of the exclusive one.
        store._shared = None;
        let options = |is_read_only: bool| {
            let mut options = File::options();
            options.read(is_read_only).append(!is_read_only).to_owned()
        };
        let file = options(store.refused.is_some()).open(&path);
        let file = file.map_err(fail)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(fail(io::Error::other(
                    "another imgdecl is using it; try again when it is done",
                )));
            }
            Err(TryLockError::Error(error)) => return Err(fail(error)),
        }
        store._shared = Some(file);
        Ok(store)
    }

    /// Lists the files of records, and of pages, which are kept alike.
    fn records(&self) -> Result<Vec<Found>, StoreError> {
        let mut found = Vec::new();
        // One that cannot be written may lack what a newer release keeps.
        for folder in [RECORDS, PAGES].map(|bucket| self.root.join(bucket)) {
            if folder.exists() {
                found.extend(walk(&folder)?);
            }
        }
        Ok(found)
    }

    /// Counts what the store holds.
    ///
    /// # Errors
    /// When the cache folder cannot be read.
    pub fn info(&self) -> Result<Info, StoreError> {
        let blobs = walk(&self.root.join(BLOBS))?;
        let records = self.records()?;
        let mut info = Info {
            blobs: blobs.len() as u64,
            blob_bytes: blobs.iter().map(|file| file.size).sum(),
            records: records.len() as u64,
            other_bytes: records.iter().map(|file| file.size).sum(),
            // There may be none yet.
            roots: fs::read_dir(self.roots()).map_or(0, |it| it.count() as u64),
        };
        for bucket in [LAST, STATS, SEGMENTS] {
            info.other_bytes += walk(&self.root.join(bucket))?
                .iter()
                .map(|file| file.size)
                .sum::<u64>();
        }
        Ok(info)
    }

    /// Removes the records that were not used for the longest time, and then the blobs that no record needs, until the
    /// blobs take at most `max_size` bytes.
    ///
    /// # Errors
    /// When the cache folder cannot be read or written.
    pub fn gc(&self, max_size: u64) -> Result<Collected, StoreError> {
        let mut collected = Collected::default();
        let mut records = self.records()?;
        records.sort_by_key(|file| (std::cmp::Reverse(file.modified), file.path.clone()));
        let mut kept: BTreeSet<Digest> = BTreeSet::new();
        let (mut total, mut full) = (0, false);
        for file in records {
            let record = file.record()?;
            let blobs = record.map(|record| record.blobs);
            let more: BTreeMap<Digest, u64> = blobs
                .iter()
                .flatten()
                .filter(|blob| {
                    !kept.contains(&blob.digest) && self.blob_path(&blob.digest).exists()
                })
                .map(|Blob { digest, size }| (*digest, *size))
                .collect();
            let size: u64 = more.values().sum();
            full |= total + size > max_size;
            if full || blobs.is_none() {
                remove(&file.path)?;
                collected.records += 1;
                collected.bytes += file.size;
                continue;
            }
            total += size;
            kept.extend(more.into_keys());
        }
        for file in walk(&self.root.join(BLOBS))? {
            let digest = file.digest();
            if digest.is_none_or(|digest| !kept.contains(&digest)) {
                remove(&file.path)?;
                collected.blobs += 1;
                collected.bytes += file.size;
            }
        }
        // The map of a blob goes with it.
        for file in walk(&self.root.join(SEGMENTS))? {
            if file
                .digest()
                .is_none_or(|digest| !self.blob_path(&digest).exists())
            {
                remove(&file.path)?;
                collected.bytes += file.size;
            }
        }
        self.forget_old(&mut collected)?;
        Ok(collected)
    }

    /// Removes stamps and key texts that were not written for a month, what only earlier releases read, and locks that
    /// nobody holds.
    fn forget_old(&self, collected: &mut Collected) -> Result<(), StoreError> {
        #[expect(
            clippy::disallowed_methods,
            reason = "age decides what gc removes, never a byte"
        )]
        let now = SystemTime::now();
        for bucket in [LAST, STATS] {
            for file in walk(&self.root.join(bucket))? {
                let age = now.duration_since(file.modified).unwrap_or_default();
                if age.as_secs() > 30 * 24 * 3600 {
                    remove(&file.path)?;
                    collected.bytes += file.size;
                }
            }
        }
        for bucket in RETIRED {
            let folder = self.root.join(bucket);
            if !folder.exists() {
                continue;
            }
            for file in walk(&folder)? {
                remove(&file.path)?;
                collected.bytes += file.size;
            }
            // Only its empty folders are left.
            let _ = fs::remove_dir_all(&folder);
        }
        for file in walk(&self.root.join(LOCKS))? {
            let name = file
                .path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            if let Ok(key) = Digest::from_hex(name) {
                drop(self.try_lock(&key)?);
            }
        }
        Ok(())
    }

    /// Hashes every blob and reads every record and map of segments; removes the damaged ones, which the next build makes
    /// again. The seal of a damaged blob is broken before: the next build into an output that shares its file replaces it
    /// there, too.
    ///
    /// # Errors
    /// When the cache folder cannot be read, or `tick` says to stop: it hears of bytes that were hashed.
    pub fn verify(&self, tick: &dyn Fn(u64) -> bool) -> Result<Verified, StoreError> {
        let mut verified = Verified::default();
        for file in walk(&self.root.join(BLOBS))? {
            let fail = |source| StoreError::Io {
                doing: "read",
                path: file.path.clone(),
                source,
            };
            let found = blob_of_file(&file.path, tick).map_err(fail)?;
            if Some(found.digest) == file.digest() {
                verified.whole += 1;
            } else {
                File::open(&file.path).iter().for_each(blob::unseal);
                let removed = verified.remove(file.path);
                verified.damaged.extend(removed);
            }
        }
        for file in self.records()? {
            if file.record()?.is_none() {
                let removed = verified.remove(file.path);
                verified.records.extend(removed);
            }
        }
        for file in walk(&self.root.join(SEGMENTS))? {
            if segments::blob_of(&file.path).is_none() {
                let removed = verified.remove(file.path);
                verified.records.extend(removed);
            }
        }
        Ok(verified)
    }

    /// Removes all that the store holds.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn clear(&self) -> Result<(), StoreError> {
        for bucket in [RECORDS, PAGES, BLOBS, LAST, STATS, SEGMENTS, LOCKS] {
            let path = self.root.join(bucket);
            fs::remove_dir_all(&path)
                .and_then(|()| fs::create_dir(&path))
                .map_err(|source| StoreError::Io {
                    doing: "clear",
                    path,
                    source,
                })?;
        }
        Ok(())
    }
}

/// A file of a bucket.
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) size: u64,
    pub(super) modified: SystemTime,
}

impl Found {
    /// Returns the digest that the file's name says.
    fn digest(&self) -> Option<Digest> {
        Digest::from_hex(self.path.file_name()?.to_str()?).ok()
    }
}

impl Found {
    /// Reads the file as a record; `None` if it is damaged.
    fn record(&self) -> Result<Option<Record>, StoreError> {
        let bytes = read(&self.path)?;
        let found = self.digest().zip(bytes);
        Ok(found.and_then(|(key, bytes)| Record::parse(&key, &bytes)))
    }
}

/// Lists the files below a bucket, sorted by path.
pub(super) fn walk(folder: &Path) -> Result<Vec<Found>, StoreError> {
    let fail = |path: &Path| {
        let path = path.to_owned();
        move |source| StoreError::Io {
            doing: "read",
            path,
            source,
        }
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(fail(folder))? {
        let path = entry.map_err(fail(folder))?.path();
        let metadata = fs::symlink_metadata(&path).map_err(fail(&path))?;
        if metadata.is_dir() {
            found.extend(walk(&path)?);
        } else {
            let modified = metadata.modified().map_err(fail(&path))?;
            found.push(Found {
                size: metadata.len(),
                modified,
                path,
            });
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn remove(path: &Path) -> Result<(), StoreError> {
    fs::remove_file(path).map_err(|source| StoreError::Io {
        doing: "remove",
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Blobs as _, Records as _, TMP};
    use super::*;
    use std::time::Duration;

    fn store(folder: &Path) -> Store {
        Store::open(folder).unwrap()
    }

    fn put(store: &Store, name: &str, size: usize, age: u64) -> Blob {
        let mut bytes = name.as_bytes().to_vec();
        bytes.resize(size, b'x');
        let blob = store.put_blob(&bytes).unwrap();
        let key = Digest::of(name.as_bytes());
        store
            .put_record(&key, &Record::new(serde_json::Value::Null, vec![blob]))
            .unwrap();
        let path = walk(&store.root.join(RECORDS))
            .unwrap()
            .into_iter()
            .find(|file| file.digest() == Some(key))
            .unwrap()
            .path;
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000 - age);
        File::options()
            .append(true)
            .open(path)
            .unwrap()
            .set_modified(time)
            .unwrap();
        blob
    }

    #[test]
    fn gc_removes_the_oldest_first_and_what_nobody_needs() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        let (old, new) = (put(&store, "old", 100, 9), put(&store, "new", 100, 1));
        let stray = store.put_blob(b"stray").unwrap();
        assert_eq!(store.info().unwrap().blobs, 3);
        let collected = store.gc(150).unwrap();
        assert_eq!((collected.blobs, collected.records), (2, 1));
        use super::super::Health;
        assert_eq!(store.check(&new), Health::Whole);
        assert_eq!(store.check(&old), Health::Missing);
        assert_eq!(store.check(&stray), Health::Missing);
        assert_eq!(store.gc(0).unwrap().records, 1);
        assert_eq!(store.info().unwrap().blobs, 0);
    }

    #[test]
    fn gc_keeps_the_bytes_of_pages_and_removes_earlier_formats() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        let page = super::super::Page {
            body: store.put_blob(b"page").unwrap(),
            about: serde_json::Value::Null,
        };
        let key = Digest::of(b"page");
        store.put_page(&key, page.clone()).unwrap();
        let old = folder.path().join("records-v1/ab");
        fs::create_dir_all(&old).unwrap();
        fs::write(old.join("cd"), b"old").unwrap();
        assert_eq!(store.gc(1 << 30).unwrap().bytes, 3);
        assert_eq!(store.page(&key).unwrap(), Some(page));
        assert!(!folder.path().join("records-v1").exists());
    }

    #[test]
    fn verify_finds_damage() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        let blob = put(&store, "a", 10, 1);
        put(&store, "b", 10, 1);
        let path = store.blob_path(&blob.digest);
        fs::remove_file(&path).unwrap();
        fs::write(&path, b"axxxxxxxxy").unwrap();
        let verified = store.verify(&|_| true).unwrap();
        assert_eq!((verified.whole, verified.damaged), (1, vec![path]));
        assert_eq!(
            store.verify(&|_| true).unwrap(),
            Verified {
                whole: 1,
                ..Verified::default()
            }
        );
    }

    #[test]
    fn maintenance_waits_for_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let used = store(folder.path());
        assert!(Store::open_alone(folder.path()).is_err());
        drop(used);
        Store::open_alone(folder.path()).unwrap().clear().unwrap();
    }

    #[test]
    fn dead_processes_leave_nothing_for_long() {
        let folder = tempfile::tempdir().unwrap();
        let tmp = folder.path().join(TMP);
        fs::create_dir_all(tmp.join("dead")).unwrap();
        fs::write(tmp.join("dead/file"), b"x").unwrap();
        fs::write(tmp.join("dead.lock"), b"").unwrap();
        let first = store(folder.path());
        assert!(!tmp.join("dead").exists() && !tmp.join("dead.lock").exists());
        let second = store(folder.path());
        assert!(first.tmp().exists() && second.tmp().exists());
        drop((first, second));
        assert_eq!(fs::read_dir(&tmp).unwrap().count(), 0);
    }
}
