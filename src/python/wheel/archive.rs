//! A wheel as a zip archive: its members, checked. Knows nothing of what a wheel holds.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use libdeflater::Crc;

use super::Problem;
use super::directory::{Bytes, Entry, directory};
use crate::layer::{Container, Content, ContentError, Damage, Deflated, LayerPath, Source, Tick};
use crate::oci::{Digest, Hasher};

/// How much is read and hashed at a time, in bytes.
const CHUNK: usize = 256 << 10;

/// What any zip archive holds that has one reading, and is not compressed in odd ways.
pub(crate) struct Unzipped {
    /// The files, sorted by path: the path, whether the archive sets an execute bit, and the content.
    pub(crate) files: Vec<(LayerPath, bool, Content)>,
    /// The folders that it has entries for.
    pub(crate) folders: Vec<LayerPath>,
}

/// Opens a zip archive that is no wheel, whose bytes have the digest `digest`. `name` is what people call it. All contents are
/// read once, and checked.
///
/// # Errors
/// When it is no sound archive, or holds what is neither file nor folder, or the user stopped.
pub(crate) fn unzip(
    path: &Path,
    name: &str,
    digest: Digest,
    tick: Tick<'_>,
) -> Result<Unzipped, Problem> {
    let archive = Archive::open(path, name, digest)?;
    let mut files = Vec::new();
    for member in &archive.members {
        let content = Content {
            size: member.size,
            digest: archive.digest(member, tick)?,
            source: member.source.clone(),
        };
        files.push((member.path.clone(), member.executable, content));
    }
    let folders = archive.folders;
    Ok(Unzipped { files, folders })
}

/// A file in a wheel.
#[derive(Debug)]
pub(super) struct Member {
    /// Its path.
    pub(super) path: LayerPath,
    /// Whether the archive sets any execute bit.
    pub(super) executable: bool,
    /// Its size in bytes.
    pub(super) size: u64,
    /// Where its bytes are: a range of the wheel, or deflated in it.
    pub(super) source: Source,
    crc: u32,
}

/// A wheel whose headers are checked; its contents are not yet.
pub(super) struct Archive {
    pub(super) container: Arc<Container>,
    /// The files, sorted by path.
    pub(super) members: Vec<Member>,
    /// The folders that it has entries for, in the order of the archive.
    folders: Vec<LayerPath>,
}

/// A wheel on disk.
struct OnDisk {
    file: File,
    size: u64,
}

impl Bytes for OnDisk {
    type Error = Problem;

    fn size(&self) -> u64 {
        self.size
    }

    fn read(&mut self, at: u64, count: u64) -> Result<Vec<u8>, Problem> {
        let mut bytes = vec![0; usize::try_from(count).map_err(std::io::Error::other)?];
        self.file.read_exact_at(&mut bytes, at)?;
        Ok(bytes)
    }
}

impl Archive {
    /// Opens a wheel whose bytes have the digest `digest`.
    ///
    /// # Errors
    /// When it is no sound archive, or a member is not what a wheel may hold.
    pub(super) fn open(path: &Path, name: &str, digest: Digest) -> Result<Self, Problem> {
        let container = Arc::new(Container {
            path: path.to_owned(),
            digest,
            name: name.to_owned(),
        });
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        let mut file = OnDisk { file, size };
        let (mut members, mut folders) = (Vec::new(), Vec::new());
        for entry in directory(&mut file)? {
            let offset = entry.data(&mut file)?;
            if entry.is_folder {
                // Deflated, nothing has two bytes: who reads from the front goes on behind them.
                entry.read(&mut file, 2)?;
                folders.push(entry.path);
                continue;
            }
            members.push(member(&container, entry, offset));
        }
        members.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Self {
            container,
            members,
            folders,
        })
    }

    /// Finds a file by its path.
    pub(super) fn find(&self, path: &str) -> Option<&Member> {
        let found = self
            .members
            .binary_search_by(|member| member.path.as_str().cmp(path));
        found.ok().map(|index| &self.members[index])
    }

    /// Reads a file that may have at most `limit` bytes.
    pub(super) fn read(&self, member: &Member, limit: u64) -> Result<Vec<u8>, Problem> {
        if member.size > limit {
            return Err(Problem::Large {
                member: member.path.to_string(),
                size: member.size,
                limit,
            });
        }
        let mut out = Vec::new();
        self.stream(member, |bytes| {
            out.extend_from_slice(bytes);
            true
        })?;
        Ok(out)
    }

    /// Reads the first `count` bytes of a file, or all of a shorter one.
    pub(super) fn start(&self, member: &Member, count: usize) -> Result<Vec<u8>, Problem> {
        let mut out = Vec::new();
        self.stream(member, |bytes| {
            out.extend_from_slice(&bytes[..bytes.len().min(count)]);
            false
        })?;
        Ok(out)
    }

    /// Takes the digest of a file, and checks its size and CRC.
    pub(super) fn digest(&self, member: &Member, tick: Tick<'_>) -> Result<Digest, Problem> {
        let mut hasher = Hasher::default();
        let mut stopped = false;
        self.stream(member, |bytes| {
            hasher.update(bytes);
            stopped = !tick(bytes.len() as u64);
            !stopped
        })?;
        match stopped {
            true => Err(Problem::Stopped),
            false => Ok(hasher.finish()),
        }
    }

    /// Calls `take` with the bytes of a file, piece by piece, until it returns false; checks size and CRC at the end.
    fn stream(&self, member: &Member, mut take: impl FnMut(&[u8]) -> bool) -> Result<(), Problem> {
        let mut piece = Vec::new();
        let offset = match &member.source {
            Source::Deflated(deflated) => {
                let mut inflate = deflated.open(member.size)?;
                loop {
                    piece.clear();
                    inflate.append(&mut piece, CHUNK)?;
                    if piece.is_empty() || !take(&piece) {
                        return Ok(());
                    }
                }
            }
            Source::Range { offset, .. } => *offset,
            Source::Bytes(_) | Source::Host { .. } => {
                unreachable!("members lie in the wheel")
            }
        };
        let file = File::open(&self.container.path)?;
        let mut crc = Crc::new();
        let mut read = 0;
        while read < member.size {
            let count = usize::try_from(member.size - read).map_or(CHUNK, |left| left.min(CHUNK));
            piece.resize(count, 0);
            file.read_exact_at(&mut piece, offset + read)?;
            crc.update(&piece);
            read += count as u64;
            if !take(&piece) {
                return Ok(());
            }
        }
        match crc.sum() == member.crc {
            true => Ok(()),
            false => Err(Problem::Content(ContentError::Damaged {
                archive: self.container.name.clone(),
                member: member.path.to_string(),
                damage: Damage::Crc,
            })),
        }
    }
}

fn member(container: &Arc<Container>, entry: Entry, offset: u64) -> Member {
    let source = match entry.is_deflated {
        true => Source::Deflated(Box::new(Deflated {
            container: container.clone(),
            member: entry.path.as_str().into(),
            offset,
            length: entry.packed,
            crc: entry.crc,
        })),
        false => Source::Range {
            path: container.path.as_path().into(),
            offset,
        },
    };
    Member {
        path: entry.path,
        executable: entry.executable,
        size: entry.size,
        source,
        crc: entry.crc,
    }
}
