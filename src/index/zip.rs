//! METADATA in a wheel, by as few reads as possible: the end of the archive, its directory, the member (APPNOTE 4.3).
//! Knows nothing of where the bytes are; nothing of them is trusted.

use std::io::Read;

use flate2::Crc;
use flate2::read::DeflateDecoder;
use pep508_rs::PackageName;

use super::error::IndexError;
use crate::python::WheelName;

/// The size of the record that ends an archive, in bytes.
const END: usize = 22;
/// How many bytes at the end are read first: the longest comment, and most directories.
pub(super) const TAIL: u64 = 0xffff + END as u64;
/// How large a directory may be, in bytes.
const DIRECTORY: u64 = 64 << 20;
/// How large METADATA may be, in bytes.
pub(super) const METADATA: u64 = 8 << 20;
/// How many more bytes than needed are read with a member: its header has fields that the directory does not tell of.
const SLACK: u64 = 512;

/// Bytes that can be read in any order.
pub(super) trait Bytes {
    /// Returns the size of the whole.
    fn size(&self) -> u64;

    /// Reads so many bytes from a place; they are within the whole.
    fn read(&mut self, at: u64, count: u64) -> Result<Vec<u8>, Trouble>;
}

impl From<IndexError> for Trouble {
    fn from(error: IndexError) -> Self {
        Self::Failed(Box::new(error))
    }
}

/// Why METADATA is not to be had.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The archive is not what it should be.
    Archive(String),
    /// The bytes cannot be read in this way.
    Unable,
    /// The bytes cannot be read at all.
    Failed(Box<IndexError>),
}

fn broken(why: impl Into<String>) -> Trouble {
    Trouble::Archive(why.into())
}

/// A member, as the directory tells of it.
struct Member {
    name: String,
    is_encrypted: bool,
    method: u64,
    crc: u64,
    packed: u64,
    size: u64,
    offset: u64,
}

/// Where the directory is.
struct Directory {
    offset: u64,
    size: u64,
    count: u64,
}

/// Reads the METADATA of a wheel.
pub(super) fn metadata(bytes: &mut dyn Bytes, wheel: &WheelName) -> Result<String, Trouble> {
    let directory = directory(bytes)?;
    let listing = bytes.read(directory.offset, directory.size)?;
    let member = find(&listing, directory.count, wheel)?;
    if member.is_encrypted {
        return Err(broken("its METADATA is encrypted"));
    }
    if member.size > METADATA || member.packed > METADATA {
        return Err(broken(format!(
            "its METADATA has {} bytes, and {METADATA} are the most",
            member.size.max(member.packed)
        )));
    }
    let packed = packed(bytes, &member, directory.offset)?;
    let mut out = Vec::new();
    let limit = member.size + 1;
    match member.method {
        0 => out = packed,
        8 => {
            let read = DeflateDecoder::new(&packed[..])
                .take(limit)
                .read_to_end(&mut out);
            read.map_err(|_| broken("its METADATA is no deflated stream"))?;
        }
        other => return Err(broken(format!("its METADATA is packed by method {other}"))),
    }
    let mut crc = Crc::new();
    crc.update(&out);
    if out.len() as u64 != member.size || u64::from(crc.sum()) != member.crc {
        return Err(broken("its METADATA is damaged"));
    }
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// Reads the bytes of a member, as they are packed.
fn packed(bytes: &mut dyn Bytes, member: &Member, end: u64) -> Result<Vec<u8>, Trouble> {
    let outside = || broken("its METADATA lies outside of it");
    let room = end.checked_sub(member.offset).ok_or_else(outside)?;
    let likely = 30 + member.name.len() as u64 + SLACK + member.packed;
    let block = bytes.read(member.offset, likely.min(room))?;
    if block.get(..4) != Some(b"PK\x03\x04") {
        return Err(broken("its METADATA is not where the directory says"));
    }
    let (Some(name), Some(extra)) = (number(&block, 26, 2), number(&block, 28, 2)) else {
        return Err(outside());
    };
    let start = 30 + name + extra;
    let stop = start + member.packed;
    if stop > room {
        return Err(outside());
    }
    let block = match stop > block.len() as u64 {
        true => bytes.read(member.offset, stop)?,
        false => block,
    };
    let range = usize::try_from(start).ok().zip(usize::try_from(stop).ok());
    let packed = range.and_then(|(start, stop)| block.get(start..stop));
    packed.map(<[u8]>::to_vec).ok_or_else(outside)
}

/// Finds the directory: by the record that ends the archive, or the longer one before it.
fn directory(bytes: &mut dyn Bytes) -> Result<Directory, Trouble> {
    let size = bytes.size();
    let count = size.min(TAIL);
    let tail = bytes.read(size - count, count)?;
    let is_end = |at: &usize| {
        let comment = number(&tail, at + 20, 2);
        tail[*at..].starts_with(b"PK\x05\x06")
            && comment.is_some_and(|it| (*at + END) as u64 + it == count)
    };
    let last = tail.len().saturating_sub(END - 1);
    let at = (0..last).rev().find(is_end);
    let at = at.ok_or_else(|| broken("it is no zip archive: it has no end record"))?;
    let field = |at: usize, count: usize| number(&tail, at, count).unwrap_or_default();
    let mut found = Directory {
        count: field(at + 10, 2),
        size: field(at + 12, 4),
        offset: field(at + 16, 4),
    };
    let place = size - count + at as u64;
    let mut end = place;
    if found.count == 0xffff || found.size == 0xffff_ffff || found.offset == 0xffff_ffff {
        let lost = || broken("its long end record is lost");
        let locator = place.checked_sub(20).ok_or_else(lost)?;
        let locator = bytes.read(locator, 20)?;
        let offset = number(&locator, 8, 8).filter(|_| locator.starts_with(b"PK\x06\x07"));
        let offset = offset.filter(|it| it.checked_add(56).is_some_and(|it| it <= place));
        end = offset.ok_or_else(lost)?;
        let record = bytes.read(end, 56)?;
        if !record.starts_with(b"PK\x06\x06") {
            return Err(lost());
        }
        let field = |at| number(&record, at, 8).unwrap_or_default();
        found = Directory {
            count: field(32),
            size: field(40),
            offset: field(48),
        };
    }
    if found.size > DIRECTORY {
        return Err(broken(format!(
            "its directory has {} bytes, and {DIRECTORY} are the most",
            found.size
        )));
    }
    match found.offset.checked_add(found.size) {
        Some(stop) if stop <= end => Ok(found),
        _ => Err(broken("its directory lies outside of it")),
    }
}

/// Finds METADATA in a directory: that of the wheel's own dist-info.
fn find(listing: &[u8], count: u64, wheel: &WheelName) -> Result<Member, Trouble> {
    let mut found: Vec<Member> = Vec::new();
    let mut at = 0;
    for _ in 0..count {
        let field = |offset: usize, count: usize| number(listing, at + offset, count);
        let cut = || broken("its directory ends too early");
        if listing.get(at..at + 4) != Some(b"PK\x01\x02") {
            return Err(cut());
        }
        let length = |offset| field(offset, 2).and_then(|it| usize::try_from(it).ok());
        let (Some(name), Some(extra), Some(comment)) = (length(28), length(30), length(32)) else {
            return Err(cut());
        };
        let start = at + 46;
        let bytes = listing.get(start..start + name).ok_or_else(cut)?;
        let more = listing
            .get(start + name..start + name + extra)
            .ok_or_else(cut)?;
        if let Ok(name) = std::str::from_utf8(bytes)
            && is_metadata(name, wheel)
        {
            let field = |offset, count| field(offset, count).ok_or_else(cut);
            let mut member = Member {
                name: name.to_owned(),
                is_encrypted: field(8, 2)? & 1 == 1,
                method: field(10, 2)?,
                crc: field(16, 4)?,
                packed: field(20, 4)?,
                size: field(24, 4)?,
                offset: field(42, 4)?,
            };
            lengthen(&mut member, more);
            found.push(member);
        }
        at = start + name + extra + comment;
    }
    let one = found.pop();
    match (one, found.is_empty()) {
        (Some(member), true) => Ok(member),
        (None, _) => Err(broken("it has no METADATA")),
        (Some(_), false) => Err(broken("it has more than one METADATA")),
    }
}

/// Tells whether a path is that of METADATA in the wheel's dist-info.
fn is_metadata(path: &str, wheel: &WheelName) -> bool {
    let folder = path.strip_suffix(".dist-info/METADATA");
    let name = folder.filter(|it| !it.contains('/'));
    // The version may be written in another way than in the name of the file.
    let name = name
        .and_then(|it| it.rsplit_once('-'))
        .map(|(name, _)| name);
    let name: Option<PackageName> = name.and_then(|it| it.parse().ok());
    name.is_some_and(|it| it == wheel.name)
}

/// Puts the numbers of a member in place that have no room in its record (APPNOTE 4.5.3).
fn lengthen(member: &mut Member, mut extra: &[u8]) {
    while let (Some(id), Some(length)) = (number(extra, 0, 2), number(extra, 2, 2)) {
        let end = usize::try_from(length + 4).unwrap_or(usize::MAX);
        let Some(data) = extra.get(4..end) else {
            return;
        };
        if id == 1 {
            let mut at = 0;
            for value in [&mut member.size, &mut member.packed, &mut member.offset] {
                if *value == 0xffff_ffff
                    && let Some(long) = number(data, at, 8)
                {
                    *value = long;
                    at += 8;
                }
            }
        }
        extra = &extra[end..];
    }
}

/// Reads a number, lowest byte first.
fn number(bytes: &[u8], at: usize, count: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(count)?)?;
    let push = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
    Some(bytes.iter().rev().fold(0, push))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::DeflateEncoder;

    use super::*;

    /// Bytes in memory, that keep what was read of them.
    struct Memory(Vec<u8>, Vec<(u64, u64)>);

    impl Bytes for Memory {
        fn size(&self) -> u64 {
            self.0.len() as u64
        }

        fn read(&mut self, at: u64, count: u64) -> Result<Vec<u8>, Trouble> {
            self.1.push((at, count));
            let (at, count) = (at as usize, count as usize);
            Ok(self.0[at..at + count].to_vec())
        }
    }

    /// Makes an archive of members, the last number of which is their method.
    fn archive(members: &[(&str, &str, u16)]) -> Vec<u8> {
        let (mut out, mut listing) = (Vec::new(), Vec::new());
        for (name, text, method) in members {
            let packed = match method {
                8 => {
                    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
                    encoder.write_all(text.as_bytes()).unwrap();
                    encoder.finish().unwrap()
                }
                _ => text.as_bytes().to_vec(),
            };
            let mut crc = Crc::new();
            crc.update(text.as_bytes());
            let mut common = [20, 0, 0, 0].to_vec();
            common.extend(method.to_le_bytes());
            common.extend([0; 4]);
            common.extend(crc.sum().to_le_bytes());
            common.extend((packed.len() as u32).to_le_bytes());
            common.extend((text.len() as u32).to_le_bytes());
            common.extend((name.len() as u16).to_le_bytes());
            let offset = (out.len() as u32).to_le_bytes();
            listing.extend(b"PK\x01\x02\x14\0");
            listing.extend(&common);
            listing.extend([0; 12]);
            listing.extend(offset);
            listing.extend(name.as_bytes());
            // A header may have more than the directory tells of.
            out.extend(b"PK\x03\x04");
            out.extend(&common);
            out.extend(1000u16.to_le_bytes());
            out.extend(name.as_bytes());
            out.extend([0; 1000]);
            out.extend(packed);
        }
        let offset = (out.len() as u32).to_le_bytes();
        out.extend(&listing);
        let count = (members.len() as u16).to_le_bytes();
        out.extend(b"PK\x05\x06\0\0\0\0");
        out.extend([count, count].concat());
        out.extend((listing.len() as u32).to_le_bytes());
        out.extend(offset);
        out.extend(b"\x03\0end");
        out
    }

    fn wheel() -> WheelName {
        WheelName::parse("Foo_Bar-1.0-py3-none-any.whl").unwrap()
    }

    fn read(bytes: Vec<u8>) -> Result<String, String> {
        metadata(&mut Memory(bytes, Vec::new()), &wheel()).map_err(|trouble| match trouble {
            Trouble::Archive(why) => why,
            other => panic!("{other:?}"),
        })
    }

    const TEXT: &str = "Metadata-Version: 2.1\nName: foo-bar\nVersion: 1.0\n";

    #[test]
    fn finds_the_own_metadata() {
        let bytes = archive(&[
            ("foo_bar/x-1.dist-info/METADATA", "no", 8),
            ("vendored-2.dist-info/METADATA", "no", 8),
            ("foo.bar-1.0.dist-info/METADATA", TEXT, 8),
            ("y", &"y".repeat(100_000), 0),
        ]);
        let mut memory = Memory(bytes.clone(), Vec::new());
        assert_eq!(metadata(&mut memory, &wheel()).unwrap(), TEXT);
        // The end, the directory, the member; and all of it, since its header is long.
        assert_eq!(memory.1.len(), 4);
        assert!(
            read(archive(&[("x", "y", 8)]))
                .unwrap_err()
                .contains("no METADATA")
        );
        let twice = [
            ("foo_bar-1.0.dist-info/METADATA", TEXT, 8),
            ("Foo.Bar-1.0.dist-info/METADATA", TEXT, 8),
        ];
        assert!(read(archive(&twice)).unwrap_err().contains("more than one"));
    }

    #[test]
    fn no_damage_is_trusted_and_none_panics() {
        let stored = archive(&[("foo_bar-1.0.dist-info/METADATA", TEXT, 0)]);
        assert_eq!(read(stored).unwrap(), TEXT);
        let strange = archive(&[("foo_bar-1.0.dist-info/METADATA", TEXT, 12)]);
        assert!(read(strange).unwrap_err().contains("method 12"));
        let bytes = archive(&[("foo_bar-1.0.dist-info/METADATA", TEXT, 8)]);
        assert_eq!(read(bytes.clone()).unwrap(), TEXT);
        for end in 0..bytes.len() {
            assert!(read(bytes[..end].to_vec()).is_err(), "{end}");
        }
        let mut wrong = 0;
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] = value;
                match read(damaged) {
                    Ok(text) => assert_eq!(text, TEXT, "byte {at}"),
                    Err(_) => wrong += 1,
                }
            }
        }
        assert!(wrong > 100, "{wrong}");
    }
}
