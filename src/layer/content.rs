//! The content of a file: its size and digest, known beforehand, and where its bytes are.

use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::Tick;
use super::deflated::{Damage, Deflated};
use crate::oci::{Digest, Hasher};

/// Files that changed less than this ago are not trusted to be unchanged because their stamp is:
/// a second write within the clock's granularity leaves no trace in it.
pub(super) const RECENT: Duration = Duration::from_secs(2);

/// Deflated content of at least this many bytes becomes a gzip member as it is.
const PASSED: u64 = 64 << 10;

/// The content of a file.
#[derive(Clone, Debug)]
pub struct Content {
    /// The size in bytes.
    pub size: u64,
    /// The digest of the bytes.
    pub digest: Digest,
    /// Where the bytes are.
    pub source: Source,
}

/// Where the bytes of a file are.
#[derive(Clone, Debug)]
pub enum Source {
    /// In memory.
    Bytes(Arc<[u8]>),
    /// In a file of the host, which must still have this stamp when it is read.
    Host {
        /// A folder, shared by many files.
        folder: Arc<Path>,
        /// The file's path below it.
        below: Box<str>,
        /// What the file looked like when its digest was taken. Boxed: it would make contents of all other kinds larger.
        stamp: Box<Stamp>,
    },
    /// In a part of a file of the cache, which nobody changes.
    Range {
        /// The file.
        path: Arc<Path>,
        /// Where the content starts, in bytes.
        offset: u64,
    },
    /// Deflated, in an archive of the cache.
    Deflated(Box<Deflated>),
}

/// What tells whether a file of the host changed: never part of a layer or a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stamp {
    /// The size in bytes.
    pub size: u64,
    /// The modification time, in nanoseconds since 1970.
    pub mtime: i64,
    /// The time of the last change of content or attributes, in nanoseconds since 1970.
    pub ctime: i64,
    /// The inode.
    pub inode: u64,
    /// The device of the file system.
    pub device: u64,
}

impl Stamp {
    /// Takes the stamp from what `stat` says.
    pub fn of(metadata: &Metadata) -> Self {
        let nanoseconds =
            |seconds: i64, rest: i64| seconds.saturating_mul(1_000_000_000).saturating_add(rest);
        Self {
            size: metadata.size(),
            mtime: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            ctime: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
            inode: metadata.ino(),
            device: metadata.dev(),
        }
    }

    /// Tells whether the file may still have the content that it had with the stamp `before`: it has, unless someone set
    /// its times back.
    fn may_be(&self, before: &Self) -> bool {
        let ctime = before.ctime;
        Self { ctime, ..*self } == *before
    }

    /// Waits until a change after this one must have another stamp: clocks of file systems tick every 4 to 10 ms.
    pub fn settle(&self) {
        const TICK: Duration = Duration::from_millis(20);
        #[expect(
            clippy::disallowed_methods,
            reason = "decides how long to wait, never what is written"
        )]
        let now = SystemTime::now();
        let changed = u64::try_from(self.mtime.max(self.ctime)).unwrap_or(0);
        let changed = SystemTime::UNIX_EPOCH + Duration::from_nanos(changed);
        let age = now.duration_since(changed).unwrap_or(TICK);
        std::thread::sleep(TICK.saturating_sub(age));
    }

    /// Tells whether the file changed so recently, seen from `now`, that it may change again unseen.
    pub fn is_recent(&self, now: SystemTime) -> bool {
        let now = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let limit = i64::try_from(now.saturating_sub(RECENT).as_nanos()).unwrap_or(i64::MAX);
        self.mtime.max(self.ctime) >= limit
    }
}

/// Content that could not be read, or that is not what it was.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file changed between the time its digest was taken and the time it was written.
    #[error("{} changed while it was read", .0.display())]
    Changed(PathBuf),
    /// The user stopped it.
    #[error("stopped")]
    Stopped,
    /// A member of an archive is not what the archive says.
    #[error("`{member}` in {archive} is damaged: {}", damage.words())]
    Damaged {
        /// The archive's name.
        archive: String,
        /// The member's name.
        member: String,
        /// What is wrong.
        damage: Damage,
    },
}

impl Content {
    /// Makes the content of a file that exists in memory only.
    pub fn bytes(bytes: impl Into<Arc<[u8]>>) -> Self {
        let bytes = bytes.into();
        Self {
            size: bytes.len() as u64,
            digest: Digest::of(&bytes),
            source: Source::Bytes(bytes),
        }
    }

    /// Returns the deflated member that this content is, if it is large enough to be passed on as it is.
    pub(super) fn passable(&self) -> Option<&Deflated> {
        match &self.source {
            Source::Deflated(member) if self.size >= PASSED => Some(member),
            _ => None,
        }
    }

    /// Reads `length` bytes from `offset`, all of which lie within the content, onto the end of `out`.
    ///
    /// # Errors
    /// When the bytes cannot be read, or the host's file is not the one whose digest was taken.
    pub fn append(
        &self,
        out: &mut Vec<u8>,
        offset: u64,
        length: usize,
    ) -> Result<(), ContentError> {
        let (path, skip, stamp) = match &self.source {
            Source::Bytes(bytes) => {
                let start =
                    usize::try_from(offset).expect("content in memory fits the address space");
                out.extend_from_slice(&bytes[start..start + length]);
                return Ok(());
            }
            Source::Host {
                folder,
                below,
                stamp,
            } => (folder.join(&**below), 0, Some(stamp)),
            Source::Range { path, offset } => (path.to_path_buf(), *offset, None),
            Source::Deflated(member) => return self.inflate(member, out, offset, length),
        };
        let fail = |source| ContentError::Io {
            path: path.clone(),
            source,
        };
        let mut file = File::open(&path).map_err(fail)?;
        if skip + offset > 0 {
            file.seek(SeekFrom::Start(skip + offset)).map_err(fail)?;
        }
        let start = out.len();
        out.reserve(length);
        let read = (&file).take(length as u64).read_to_end(out);
        if read.map_err(fail)? < length {
            return Err(ContentError::Changed(path));
        }
        let (Source::Host { folder, below, .. }, Some(stamp)) = (&self.source, stamp) else {
            return Ok(());
        };
        let after = Stamp::of(&file.metadata().map_err(fail)?);
        if !after.may_be(stamp) {
            return Err(ContentError::Changed(path));
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "decides how much to check, never what is written"
        )]
        let now = SystemTime::now();
        // On file systems with coarse clocks a stamp this young cannot tell; and someone who makes a hard link changes
        // the stamp, but not the content. Then only the content can tell.
        if after != **stamp || stamp.is_recent(now) {
            let found = match offset == 0 && length as u64 == self.size {
                true => Digest::of(&out[start..]),
                false if after == **stamp => self.digest,
                false => Self::of_host(folder, below, after, &|_| true)?.digest,
            };
            if found != self.digest {
                return Err(ContentError::Changed(path));
            }
        }
        Ok(())
    }

    /// Inflates a slice; what stands before it is inflated too, and dropped.
    fn inflate(
        &self,
        member: &Deflated,
        out: &mut Vec<u8>,
        offset: u64,
        length: usize,
    ) -> Result<(), ContentError> {
        const STEP: u64 = 64 << 10;
        let is_all = offset == 0 && length as u64 == self.size;
        if is_all && member.append_whole(self.size, out)? {
            return Ok(());
        }
        let mut inflate = member.open(self.size)?;
        let mut skip = offset;
        let mut dropped = Vec::new();
        while skip > 0 {
            dropped.clear();
            inflate.append(&mut dropped, skip.min(STEP) as usize)?;
            skip -= skip.min(STEP);
        }
        inflate.append(out, length)
    }

    /// Takes the digest of the file of the host `below` a folder.
    ///
    /// # Errors
    /// When it cannot be read, changes meanwhile, or `tick` says to stop: it hears of bytes that were hashed.
    pub fn of_host(
        folder: &Arc<Path>,
        below: &str,
        stamp: Stamp,
        tick: Tick<'_>,
    ) -> Result<Self, ContentError> {
        let mut stamp = stamp;
        for _ in 0..3 {
            let (content, after) = Self::read_host(folder, below, stamp, tick)?;
            if after == stamp {
                return Ok(content);
            }
            // Only its links or attributes changed, as it seems: read again, to be sure.
            stamp = after;
        }
        Err(ContentError::Changed(folder.join(below)))
    }

    /// Reads a file of the host to its end; returns the stamp that it has then.
    fn read_host(
        folder: &Arc<Path>,
        below: &str,
        stamp: Stamp,
        tick: Tick<'_>,
    ) -> Result<(Self, Stamp), ContentError> {
        let path = folder.join(below);
        stamp.settle();
        let fail = |source| ContentError::Io {
            path: path.clone(),
            source,
        };
        let file = File::open(&path).map_err(fail)?;
        let mut hasher = Hasher::default();
        let mut buffer =
            vec![0; usize::try_from(stamp.size).map_or(1 << 20, |size| size.clamp(1, 1 << 20))];
        let mut offset = 0;
        loop {
            let count = file.read_at(&mut buffer, offset).map_err(fail)?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
            offset += count as u64;
            if offset > stamp.size {
                break;
            }
            if !tick(count as u64) {
                return Err(ContentError::Stopped);
            }
        }
        let after = Stamp::of(&file.metadata().map_err(fail)?);
        if offset != stamp.size || !after.may_be(&stamp) {
            return Err(ContentError::Changed(path));
        }
        let content = Self {
            size: stamp.size,
            digest: hasher.finish(),
            source: Source::Host {
                folder: folder.clone(),
                below: below.into(),
                stamp: Box::new(after),
            },
        };
        Ok((content, after))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn content(folder: &Path, bytes: &[u8]) -> Content {
        fs::write(folder.join("file"), bytes).unwrap();
        let stamp = Stamp::of(&fs::metadata(folder.join("file")).unwrap());
        Content::of_host(&folder.into(), "file", stamp, &|_| true).unwrap()
    }

    fn read(content: &Content) -> Result<Vec<u8>, ContentError> {
        let mut out = Vec::new();
        content.append(&mut out, 0, content.size as usize)?;
        Ok(out)
    }

    #[test]
    fn a_file_that_changed_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let first = content(folder.path(), b"hello");
        assert_eq!(read(&first).unwrap(), b"hello");
        for other in [&b"hullo"[..], b"hell", b"hello!"] {
            let first = content(folder.path(), b"hello");
            let time = fs::metadata(&path).unwrap().modified().unwrap();
            fs::write(&path, other).unwrap();
            assert!(matches!(read(&first), Err(ContentError::Changed(_))));
            // Also where someone sets the time back.
            File::options()
                .append(true)
                .open(&path)
                .unwrap()
                .set_modified(time)
                .unwrap();
            assert!(matches!(read(&first), Err(ContentError::Changed(_))));
        }
        fs::remove_file(&path).unwrap();
        assert!(matches!(read(&first), Err(ContentError::Io { .. })));
    }

    #[test]
    fn a_new_link_to_a_file_is_no_change() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = vec![7; 3000];
        let content = content(folder.path(), &bytes);
        std::thread::sleep(Duration::from_millis(30));
        fs::hard_link(folder.path().join("file"), folder.path().join("link")).unwrap();
        assert_eq!(read(&content).unwrap(), bytes);
        let mut slice = Vec::new();
        content.append(&mut slice, 1000, 1000).unwrap();
        assert_eq!(slice, &bytes[..1000]);
    }
}
