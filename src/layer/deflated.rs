//! Content that lies deflated in an archive: where it is, and how it is inflated and checked. Knows no archive format.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use flate2::{Decompress, FlushDecompress, Status};
use libdeflater::{Crc, Decompressor};

use super::ContentError;
use super::compress::{GZIP_HEADER, gzip_trailer};
use crate::oci::Digest;

/// How much of the stream is read at a time, in bytes.
const CHUNK: usize = 256 << 10;

/// Members up to this size are inflated in one go, in bytes.
pub(super) const WHOLE: u64 = 4 << 20;

/// An archive in the cache, which nobody changes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Container {
    /// Where it is.
    pub path: PathBuf,
    /// The digest of its bytes.
    pub digest: Digest,
    /// Its name for people: a wheel's file name.
    pub name: String,
}

/// A member of an archive, as one raw deflate stream (RFC 1951).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Deflated {
    /// The archive.
    pub container: Arc<Container>,
    /// The member's name, for messages.
    pub member: Box<str>,
    /// Where the stream starts in the archive, in bytes.
    pub offset: u64,
    /// The length of the stream in bytes.
    pub length: u64,
    /// The CRC-32 of the inflated bytes, as the archive gives it.
    pub crc: u32,
}

/// What is wrong with a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Damage {
    /// The bytes are no deflate stream.
    Stream,
    /// The stream ends too early, or the archive does.
    Short,
    /// The stream goes on after its size, or bytes follow it.
    Long,
    /// The CRC is another one.
    Crc,
}

impl Damage {
    /// Says it in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Stream => "its bytes are not deflated data",
            Self::Short => "it holds fewer bytes than the archive says",
            Self::Long => "it holds more bytes than the archive says",
            Self::Crc => "its CRC is not the one that the archive gives",
        }
    }
}

impl Deflated {
    /// Opens the member, whose inflated size is `size` bytes.
    ///
    /// # Errors
    /// When the archive cannot be opened.
    pub fn open(&self, size: u64) -> Result<Inflate<'_>, ContentError> {
        let file = File::open(&self.container.path).map_err(|source| self.unreadable(source))?;
        Ok(Inflate {
            member: self,
            raw: Raw {
                file,
                offset: self.offset,
                left: self.length,
            },
            input: Vec::new(),
            used: 0,
            stream: Decompress::new(false),
            ended: false,
            crc: Crc::new(),
            left: size,
        })
    }

    /// Inflates a member of `size` bytes in one go, onto the end of `out`: twice as fast as in pieces. Returns false, with
    /// nothing added, where that cannot be done: [`Deflated::open`] then says what is wrong, if anything is.
    ///
    /// Size and CRC are checked. But libdeflate takes streams that other readers refuse, so a member is judged by
    /// [`Deflated::open`] before it gets into a tree.
    ///
    /// # Errors
    /// When the archive cannot be read.
    pub fn append_whole(&self, size: u64, out: &mut Vec<u8>) -> Result<bool, ContentError> {
        if size == 0 || size.max(self.length) > WHOLE {
            return Ok(false);
        }
        // As a gzip member, its end is checked with its CRC and size.
        let trailer = gzip_trailer(self.crc, size);
        let (start, end) = (GZIP_HEADER.len(), GZIP_HEADER.len() + self.length as usize);
        let mut member = vec![0; end + trailer.len()];
        member[..start].copy_from_slice(&GZIP_HEADER);
        member[end..].copy_from_slice(&trailer);
        File::open(&self.container.path)
            .and_then(|file| file.read_exact_at(&mut member[start..end], self.offset))
            .map_err(|source| self.unreadable(source))?;
        // What follows the stream in the archive could be a trailer, too, and be taken for it.
        if memchr::memmem::find(&member[start..], &trailer) != Some(end - start) {
            return Ok(false);
        }
        let before = out.len();
        out.resize(before + size as usize, 0);
        let inflated = Decompressor::new().gzip_decompress(&member, &mut out[before..]);
        let is_whole = inflated.is_ok_and(|count| count as u64 == size);
        if !is_whole {
            out.truncate(before);
        }
        Ok(is_whole)
    }

    /// Opens the stream as it is.
    pub(super) fn open_raw(&self) -> Result<Raw, ContentError> {
        let file = File::open(&self.container.path).map_err(|source| self.unreadable(source))?;
        Ok(Raw {
            file,
            offset: self.offset,
            left: self.length,
        })
    }

    pub(super) fn unreadable(&self, source: io::Error) -> ContentError {
        if source.kind() == io::ErrorKind::UnexpectedEof {
            return self.damaged(Damage::Short);
        }
        ContentError::Io {
            path: self.container.path.clone(),
            source,
        }
    }

    fn damaged(&self, damage: Damage) -> ContentError {
        ContentError::Damaged {
            archive: self.container.name.clone(),
            member: self.member.to_string(),
            damage,
        }
    }
}

/// Reads the stream of a member as it is.
pub(super) struct Raw {
    file: File,
    offset: u64,
    left: u64,
}

impl Raw {
    /// Replaces `out` by the next bytes; leaves it empty at the end.
    pub(super) fn next(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        let count = usize::try_from(self.left).map_or(CHUNK, |left| left.min(CHUNK));
        out.clear();
        out.resize(count, 0);
        self.file.read_exact_at(out, self.offset)?;
        self.offset += count as u64;
        self.left -= count as u64;
        Ok(())
    }
}

/// Inflates a member from its beginning to its end, and checks it on the way.
pub struct Inflate<'a> {
    member: &'a Deflated,
    raw: Raw,
    input: Vec<u8>,
    used: usize,
    stream: Decompress,
    ended: bool,
    crc: Crc,
    /// How many inflated bytes are still to come.
    left: u64,
}

impl Inflate<'_> {
    /// Appends the next `length` bytes to `out`, or fewer where the member ends. Whoever takes the last byte learns
    /// whether size and CRC were right.
    ///
    /// # Errors
    /// When the archive cannot be read or the member is damaged.
    pub fn append(&mut self, out: &mut Vec<u8>, length: usize) -> Result<(), ContentError> {
        let length = usize::try_from(self.left).map_or(length, |left| left.min(length));
        let start = out.len();
        out.resize(start + length, 0);
        let mut filled = start;
        while filled < out.len() {
            let count = self.step(&mut out[filled..])?;
            if count == 0 && self.ended {
                return Err(self.member.damaged(Damage::Short));
            }
            filled += count;
        }
        self.crc.update(&out[start..]);
        self.left -= length as u64;
        if self.left == 0 {
            self.finish()?;
        }
        Ok(())
    }

    /// Inflates some bytes into `out`; none for lack of input, or at the end.
    fn step(&mut self, out: &mut [u8]) -> Result<usize, ContentError> {
        if self.ended {
            return Ok(0);
        }
        if self.used == self.input.len() {
            self.raw
                .next(&mut self.input)
                .map_err(|source| self.member.unreadable(source))?;
            self.used = 0;
        }
        let (taken, made) = (self.stream.total_in(), self.stream.total_out());
        let status = self
            .stream
            .decompress(&self.input[self.used..], out, FlushDecompress::None);
        let status = status.map_err(|_| self.member.damaged(Damage::Stream))?;
        let taken = self.stream.total_in() - taken;
        let made = self.stream.total_out() - made;
        self.used += usize::try_from(taken).expect("no more than there was");
        self.ended = status == Status::StreamEnd;
        if taken == 0 && made == 0 && !self.ended {
            let short = self.input.is_empty();
            let damage = if short { Damage::Short } else { Damage::Stream };
            return Err(self.member.damaged(damage));
        }
        Ok(usize::try_from(made).expect("no more than fits"))
    }

    /// Checks that the stream ends where the bytes end.
    fn finish(&mut self) -> Result<(), ContentError> {
        while !self.ended {
            if self.step(&mut [0])? > 0 {
                return Err(self.member.damaged(Damage::Long));
            }
        }
        if self.used < self.input.len() || self.raw.left > 0 {
            return Err(self.member.damaged(Damage::Long));
        }
        match self.crc.sum() == self.member.crc {
            true => Ok(()),
            false => Err(self.member.damaged(Damage::Crc)),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::layer::{Content, Source};
    use std::io::Write;
    use std::path::Path;

    /// Writes `bytes` deflated into a file, after some other bytes, and returns them as a content.
    pub(in crate::layer) fn deflated(folder: &Path, name: &str, bytes: &[u8]) -> Content {
        let level = flate2::Compression::new(6);
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), level);
        encoder.write_all(bytes).unwrap();
        let stream = encoder.finish().unwrap();
        let mut crc = Crc::new();
        crc.update(bytes);
        let mut file = b"before".to_vec();
        file.extend_from_slice(&stream);
        file.extend_from_slice(b"after");
        std::fs::write(folder.join(name), &file).unwrap();
        Content {
            size: bytes.len() as u64,
            digest: Digest::of(bytes),
            source: Source::Deflated(Box::new(Deflated {
                container: Arc::new(Container {
                    path: folder.join(name),
                    digest: Digest::of(&file),
                    name: "a-1-py3-none-any.whl".to_owned(),
                }),
                member: name.into(),
                offset: 6,
                length: stream.len() as u64,
                crc: crc.sum(),
            })),
        }
    }

    fn read(content: &Content) -> Result<Vec<u8>, ContentError> {
        let mut out = Vec::new();
        content.append(&mut out, 0, content.size as usize)?;
        Ok(out)
    }

    #[test]
    fn reads_wholly_and_in_parts() {
        let folder = tempfile::tempdir().unwrap();
        for size in [1, 2, 70_000, 3 << 20] {
            let bytes: Vec<u8> = (0..size)
                .map(|n: u32| (n.wrapping_mul(n) >> 7) as u8)
                .collect();
            let content = deflated(folder.path(), "member", &bytes);
            assert_eq!(read(&content).unwrap(), bytes);
            let mut middle = Vec::new();
            content.append(&mut middle, u64::from(size / 2), 1).unwrap();
            assert_eq!(middle, [bytes[size as usize / 2]]);
        }
    }

    #[test]
    fn what_follows_a_stream_is_not_taken_for_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let mut content = deflated(folder.path(), "member", &[7; 1000]);
        let mut whole = b"kept".to_vec();
        let Source::Deflated(member) = &mut content.source else {
            unreachable!("it is deflated")
        };
        assert!(member.append_whole(1000, &mut whole).unwrap());
        assert_eq!(whole[..4], *b"kept");
        assert_eq!(whole[4..], [7; 1000]);
        // The stream, its CRC and size, and once more what a gzip member ends with.
        let mut file = std::fs::read(folder.path().join("member")).unwrap();
        file.truncate(6 + member.length as usize);
        file.extend_from_slice(&gzip_trailer(member.crc, 1000));
        std::fs::write(folder.path().join("member"), &file).unwrap();
        member.length += 8;
        assert!(!member.append_whole(1000, &mut whole).unwrap());
        assert_eq!(whole.len(), 1004);
        let error = read(&content).unwrap_err();
        let is_long = matches!(
            error,
            ContentError::Damaged {
                damage: Damage::Long,
                ..
            }
        );
        assert!(is_long, "{error}");
    }

    #[test]
    fn finds_each_damage() {
        let folder = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..100_000u32)
            .map(|n| (n.wrapping_mul(n) >> 9) as u8)
            .collect();
        let good = deflated(folder.path(), "member", &bytes);
        let damage = |change: &dyn Fn(&mut u64, &mut Deflated)| {
            let mut content = good.clone();
            let Source::Deflated(member) = &mut content.source else {
                unreachable!("it is deflated")
            };
            change(&mut content.size, member);
            match read(&content).unwrap_err() {
                ContentError::Damaged {
                    archive,
                    member,
                    damage,
                } => {
                    assert_eq!((&*archive, &*member), ("a-1-py3-none-any.whl", "member"));
                    damage
                }
                other => panic!("{other}"),
            }
        };
        assert_eq!(damage(&|_, member| member.crc ^= 1), Damage::Crc);
        assert_eq!(damage(&|size, _| *size += 1), Damage::Short);
        assert_eq!(damage(&|size, _| *size -= 1), Damage::Long);
        assert_eq!(damage(&|_, member| member.length -= 1), Damage::Short);
        assert_eq!(damage(&|_, member| member.length += 1), Damage::Long);
        assert_eq!(damage(&|_, member| member.length += 6), Damage::Short);
        assert_eq!(damage(&|_, member| member.offset -= 6), Damage::Stream);
    }
}
