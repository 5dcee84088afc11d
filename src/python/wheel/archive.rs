//! A wheel as a zip archive: its members, checked. Knows nothing of what a wheel holds.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use libdeflater::Crc;
use zip::read::{ArchiveOffset, Config};
use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use super::Problem;
use crate::layer::{Container, ContentError, Damage, Deflated, LayerPath, Source, Tick};
use crate::oci::{Digest, Hasher};

/// How large a directory of members may be, in bytes: it is held in memory.
const DIRECTORY: u64 = 64 << 20;
/// The size of the record that ends an archive, without its comment, in bytes (APPNOTE 4.3.16).
const END: u64 = 22;
/// How much larger than the wheel its members may be together.
const RATIO: u64 = 200;
/// Below this size, in bytes, no ratio matters.
const SMALL: u64 = 64 << 20;
/// How much is read and hashed at a time, in bytes.
const CHUNK: usize = 256 << 10;

/// The bits of a mode that say what a file is, and their values (POSIX, `sys/stat.h`).
const TYPE: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;
const FOLDER: u32 = 0o040_000;
const SYMLINK: u32 = 0o120_000;

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
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        check_directory(&mut file, length)?;
        let config = Config {
            archive_offset: ArchiveOffset::Known(0),
        };
        let mut zip = ZipArchive::with_config(config, BufReader::new(file)).map_err(problem)?;
        // Readers differ in what they make of bytes behind the end: some find another end in them.
        let end = length.checked_sub(END + zip.comment().len() as u64);
        let mut signature = [0; 4];
        if let Some(end) = end {
            File::open(path)?.read_exact_at(&mut signature, end)?;
        }
        if signature != *b"PK\x05\x06" {
            return Err(Problem::Zip("bytes follow its end".to_owned()));
        }
        if zip.has_duplicate_names() {
            return Err(Problem::Zip(
                "its directory lists one name twice".to_owned(),
            ));
        }
        zip.validate_header_consistency().map_err(problem)?;
        let mut members = Vec::with_capacity(zip.len());
        let mut seen = BTreeSet::new();
        let mut total = 0u64;
        for index in 0..zip.len() {
            let entry = zip.by_index_raw(index).map_err(problem)?;
            let (path, is_folder) = checked_name(entry.name_raw())?;
            let member = path.to_string();
            let mode = entry.external_attributes() >> 16;
            let kind = match (mode & TYPE, is_folder) {
                (0, _) | (REGULAR, false) | (FOLDER, true) => None,
                (SYMLINK, _) => Some("symlink"),
                (FOLDER, false) => Some("folder without `/` at its end"),
                (REGULAR, true) => Some("file with a `/` at its end"),
                _ => Some("device, socket or pipe"),
            };
            if let Some(kind) = kind {
                return Err(Problem::Kind { member, kind });
            }
            if entry.encrypted() {
                return Err(Problem::Encrypted(member));
            }
            if is_folder {
                if entry.size() > 0 {
                    return Err(Problem::Kind {
                        member,
                        kind: "folder with content",
                    });
                }
                continue;
            }
            if !seen.insert(path.clone()) {
                return Err(Problem::Twice(member));
            }
            total = total.saturating_add(entry.size());
            if total > SMALL && total / RATIO > length {
                return Err(Problem::Bomb {
                    archive: length,
                    size: total,
                });
            }
            let offset = entry
                .data_start()
                .ok_or_else(|| Problem::Zip(format!("`{member}` has no place in it")))?;
            let source = match entry.compression() {
                CompressionMethod::STORE if entry.compressed_size() == entry.size() => {
                    Source::Range {
                        path: container.path.as_path().into(),
                        offset,
                    }
                }
                CompressionMethod::STORE => {
                    let text = format!("`{member}` is stored, but has two sizes");
                    return Err(Problem::Zip(text));
                }
                CompressionMethod::DEFLATE => Source::Deflated(Box::new(Deflated {
                    container: container.clone(),
                    member: member.into(),
                    offset,
                    length: entry.compressed_size(),
                    crc: entry.crc32(),
                })),
                method => {
                    let method = word(method);
                    return Err(Problem::Method { member, method });
                }
            };
            members.push(Member {
                path,
                executable: mode & 0o111 != 0,
                size: entry.size(),
                source,
                crc: entry.crc32(),
            });
        }
        members.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Self { container, members })
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

/// Refuses a directory that would not fit into memory: the sizes in the records that end the archive say how large it is.
fn check_directory(file: &mut File, length: u64) -> Result<(), Problem> {
    const COMMENT: u64 = 0xffff;
    const LOCATOR: u64 = 20; // APPNOTE 4.3.15
    const END64: u64 = 56; // APPNOTE 4.3.14
    let start = length.saturating_sub(END + COMMENT + LOCATOR + END64);
    let mut tail = Vec::new();
    file.seek(SeekFrom::Start(start))?;
    file.take(END + COMMENT + LOCATOR + END64)
        .read_to_end(&mut tail)?;
    let number = |at: usize, count: usize| -> Option<u64> {
        let bytes = tail.get(at..at + count)?;
        let push = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        Some(bytes.iter().rev().fold(0, push))
    };
    for at in 0..tail.len().saturating_sub(3) {
        let size = match tail[at..at + 4] {
            [b'P', b'K', 5, 6] => number(at + 12, 4).filter(|&size| size < 0xffff_ffff),
            [b'P', b'K', 6, 6] => number(at + 40, 8),
            _ => None,
        };
        if let Some(size) = size.filter(|&size| size > DIRECTORY && size <= length) {
            return Err(Problem::Directory(size));
        }
    }
    Ok(())
}

/// Checks the name of a member; tells whether it is a folder's.
fn checked_name(raw: &[u8]) -> Result<(LayerPath, bool), Problem> {
    let fail = |reason: &str| Problem::Name {
        member: String::from_utf8_lossy(raw).into_owned(),
        reason: reason.to_owned(),
    };
    let name = std::str::from_utf8(raw).map_err(|_| fail("has a name that is not UTF-8"))?;
    if name.starts_with('/') {
        return Err(fail("has an absolute path"));
    }
    if name.contains('\\') {
        return Err(fail("has a backslash in its name"));
    }
    if name.chars().any(char::is_control) {
        return Err(fail("has a control character in its name"));
    }
    let path = LayerPath::parse(name).map_err(|error| Problem::Name {
        member: name.to_owned(),
        reason: format!("has no path inside the wheel: {error}"),
    })?;
    if path.is_root() {
        return Err(fail("has no name"));
    }
    if path.as_str().split('/').any(|it| it.starts_with(".wh.")) {
        return Err(fail("would delete a file: runtimes read `.wh.` names so"));
    }
    let is_folder = name.ends_with('/');
    Ok((path, is_folder))
}

/// Names a method of compression (APPNOTE 4.4.5).
fn word(method: CompressionMethod) -> String {
    match method {
        CompressionMethod::BZIP2 => "bzip2".to_owned(),
        CompressionMethod::LZMA => "lzma".to_owned(),
        CompressionMethod::ZSTD => "zstd".to_owned(),
        CompressionMethod::XZ => "xz".to_owned(),
        CompressionMethod::DEFLATE64 => "deflate64".to_owned(),
        other => format!("a method that is not known ({other:?})"),
    }
}

/// Says what is wrong with the archive.
fn problem(error: ZipError) -> Problem {
    match error {
        ZipError::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            Problem::Zip("it ends too early".to_owned())
        }
        ZipError::Io(error) => Problem::Io(error),
        other => Problem::Zip(other.to_string()),
    }
}
