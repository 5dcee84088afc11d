//! One header block of a tar, field by field. The only file that names the crate `tar`, which reads the fields.

use std::io;

/// The size of a tar block, in bytes.
pub(crate) const BLOCK: usize = 512;

/// A header block whose checksum is right.
pub(super) struct Block(::tar::Header);

/// Where the fields are that the crate does not read as they are meant here (POSIX.1-1988; GNU and star add to it).
mod field {
    use std::ops::Range;

    pub(super) const MODE: Range<usize> = 100..108;
    pub(super) const UID: Range<usize> = 108..116;
    pub(super) const GID: Range<usize> = 116..124;
    pub(super) const SIZE: Range<usize> = 124..136;
    pub(super) const MTIME: Range<usize> = 136..148;
    pub(super) const CHECKSUM: Range<usize> = 148..156;
    pub(super) const FLAG: usize = 156;
    pub(super) const MAGIC: Range<usize> = 257..263;
    pub(super) const USER: Range<usize> = 265..297;
    pub(super) const GROUP: Range<usize> = 297..329;
    pub(super) const MAJOR: Range<usize> = 329..337;
    pub(super) const MINOR: Range<usize> = 337..345;
    pub(super) const PREFIX: Range<usize> = 345..500;
    /// Where GNU tar keeps times of access and change.
    pub(super) const GNU_ATIME: Range<usize> = 345..357;
    pub(super) const GNU_CTIME: Range<usize> = 357..369;
    /// The prefix of star is shorter than that of ustar, and `STAR_END` stands at the end of its header.
    pub(super) const STAR_PREFIX: Range<usize> = 345..476;
    pub(super) const STAR_END: Range<usize> = 508..512;
}

impl Block {
    /// Takes a block of a tar for a header.
    pub(super) fn new(bytes: &[u8; BLOCK]) -> io::Result<Self> {
        let mut header = ::tar::Header::new_old();
        header.as_mut_bytes().copy_from_slice(bytes);
        let outside = |at: usize| !field::CHECKSUM.contains(&at);
        let fields = || bytes.iter().enumerate().filter(|(at, _)| outside(*at));
        // The checksum counts itself as blanks.
        let blanks = 8 * i64::from(b' ');
        let unsigned = blanks + fields().map(|(_, byte)| i64::from(*byte)).sum::<i64>();
        let signed = blanks
            + fields()
                .map(|(_, byte)| i64::from(byte.cast_signed()))
                .sum::<i64>();
        let said: i64 = number(&bytes[field::CHECKSUM])?;
        match said == unsigned || said == signed {
            true => Ok(Self(header)),
            false => Err(io::Error::other("a header has a wrong checksum")),
        }
    }

    fn bytes(&self) -> &[u8; BLOCK] {
        self.0.as_bytes()
    }

    /// Returns the type flag.
    pub(super) fn flag(&self) -> u8 {
        self.bytes()[field::FLAG]
    }

    /// Tells whether the header is one of POSIX: ustar, pax or star.
    fn is_posix(&self) -> bool {
        // Not the version behind it, which some tools leave empty and all readers pass over.
        &self.bytes()[field::MAGIC] == b"ustar\0"
    }

    /// Tells whether the header has what POSIX added to V7: names of owners, numbers of devices.
    fn is_extended(&self) -> bool {
        self.is_posix() || self.0.as_gnu().is_some()
    }

    /// Returns the path, with its prefix.
    pub(super) fn path(&self) -> Vec<u8> {
        let bytes = self.bytes();
        let name = text(&self.0.as_old().name);
        let prefix = match self.is_posix() {
            true if &bytes[field::STAR_END] == b"tar\0" => text(&bytes[field::STAR_PREFIX]),
            true => text(&bytes[field::PREFIX]),
            false => b"",
        };
        match prefix {
            b"" => name.to_vec(),
            prefix => [prefix, b"/", name].concat(),
        }
    }

    /// Tells whether Go would read a prefix where GNU tar keeps times: what stands there is no time.
    pub(super) fn has_doubtful_prefix(&self) -> bool {
        let bytes = self.bytes();
        let is_no_time = |field: &[u8]| field[0] != 0 && number::<i64>(field).is_err();
        self.0.as_gnu().is_some()
            && (is_no_time(&bytes[field::GNU_ATIME]) || is_no_time(&bytes[field::GNU_CTIME]))
    }

    /// Returns the target of a link, which may be empty.
    pub(super) fn link(&self) -> Vec<u8> {
        text(&self.0.as_old().linkname).to_vec()
    }

    /// Returns the names of the owner and the group, which may be empty.
    pub(super) fn names(&self) -> (Vec<u8>, Vec<u8>) {
        let name = |field| text(&self.bytes()[field]).to_vec();
        match self.is_extended() {
            true => (name(field::USER), name(field::GROUP)),
            false => Default::default(),
        }
    }

    /// Returns the mode, without the kind of file that some tools add.
    pub(super) fn mode(&self) -> io::Result<u32> {
        Ok(number::<u32>(&self.bytes()[field::MODE])? & 0o7777)
    }

    pub(super) fn uid(&self) -> io::Result<u64> {
        number(&self.bytes()[field::UID])
    }

    pub(super) fn gid(&self) -> io::Result<u64> {
        number(&self.bytes()[field::GID])
    }

    /// Returns the size of what follows, in bytes.
    pub(super) fn size(&self) -> io::Result<u64> {
        number(&self.bytes()[field::SIZE])
    }

    /// Returns the time of modification, in seconds since 1970.
    pub(super) fn mtime(&self) -> io::Result<i64> {
        number(&self.bytes()[field::MTIME])
    }

    /// Returns the numbers of a device.
    pub(super) fn device(&self) -> io::Result<(u32, u32)> {
        match self.is_extended() {
            true => Ok((
                number(&self.bytes()[field::MAJOR])?,
                number(&self.bytes()[field::MINOR])?,
            )),
            false => Ok((0, 0)),
        }
    }

    /// Returns what an old GNU header says of a sparse file, and the size of the whole file in bytes.
    pub(super) fn sparse(&self) -> io::Result<(Extents, u64)> {
        let Some(gnu) = self.0.as_gnu() else {
            return Err(io::Error::other(
                "a sparse file has a header that is not GNU tar's",
            ));
        };
        let extents = Extents {
            list: extents(&gnu.sparse)?,
            has_more: gnu.isextended[0] != 0,
        };
        Ok((extents, number(&gnu.realsize)?))
    }
}

/// A part of the list of a sparse file's data, as old GNU headers have it.
pub(super) struct Extents {
    /// Offset and length of each piece, in bytes.
    pub(super) list: Vec<(u64, u64)>,
    /// Whether a block with more of them follows.
    pub(super) has_more: bool,
}

/// Reads a block that goes on an old GNU sparse header.
pub(super) fn sparse_more(bytes: &[u8; BLOCK]) -> io::Result<Extents> {
    let mut block = ::tar::GnuExtSparseHeader::new();
    block.as_mut_bytes().copy_from_slice(bytes);
    Ok(Extents {
        list: extents(block.sparse())?,
        has_more: block.isextended[0] != 0,
    })
}

/// Reads offsets and lengths up to the first empty one.
fn extents(fields: &[::tar::GnuSparseHeader]) -> io::Result<Vec<(u64, u64)>> {
    let mut found = Vec::new();
    for field in fields {
        match (field.offset[0], field.numbytes[0]) {
            (0, 0) => break,
            // Go looks at the one for the end of the list, GNU tar at the other.
            (0, _) | (_, 0) => {
                return Err(io::Error::other("a sparse file has a list without an end"));
            }
            _ => found.push((number(&field.offset)?, number(&field.numbytes)?)),
        }
    }
    Ok(found)
}

/// Returns what stands before the first NUL.
pub(super) fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Reads a number field: octal digits, GNU's binary form in two's complement, or nothing for 0.
fn number<N: TryFrom<i128>>(field: &[u8]) -> io::Result<N> {
    let bad = || {
        io::Error::other(format!(
            "a header has the number `{}`",
            field.escape_ascii()
        ))
    };
    let value = if field[0] & 0x80 != 0 {
        // The bit above the sign marks the form.
        let sign = if field[0] & 0x40 == 0 { 0 } else { -1 };
        let first = (sign << 6) | i128::from(field[0] & 0x3f);
        let rest = field[1..].iter();
        rest.fold(first, |sum, byte| (sum << 8) | i128::from(*byte))
    } else {
        let digits = text(field).trim_ascii();
        // Not `+7`, which Rust would take.
        match digits.iter().all(u8::is_ascii_digit) {
            true if digits.is_empty() => 0,
            true => std::str::from_utf8(digits)
                .ok()
                .and_then(|digits| i128::from_str_radix(digits, 8).ok())
                .ok_or_else(bad)?,
            false => return Err(bad()),
        }
    };
    N::try_from(value).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_three_forms() {
        assert_eq!(number::<u64>(b"0000644\0").unwrap(), 0o644);
        assert_eq!(number::<u64>(b"  644 \0 ").unwrap(), 0o644);
        assert_eq!(number::<u64>(&[0; 8]).unwrap(), 0);
        assert_eq!(number::<u64>(b"        ").unwrap(), 0);
        assert_eq!(number::<u64>(b"\x80\0\0\0\0\0\x01\x02").unwrap(), 258);
        assert_eq!(number::<i64>(&[0xff; 12]).unwrap(), -1);
        for bad in [
            &b"+7\0"[..],
            b"8\0",
            b"-1\0",
            b"6 4\0",
            &[0xff; 8],
            &[0x9f; 12],
        ] {
            assert!(number::<u64>(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn checksums_of_signed_bytes_are_right_too() {
        let mut bytes = [0; BLOCK];
        bytes[..3].copy_from_slice(
            "é".as_bytes()
                .get(..2)
                .map(|it| [it[0], it[1], b'a'])
                .unwrap()
                .as_ref(),
        );
        let sum = |signed: bool| {
            let value = |byte: &u8| match signed {
                true => i64::from(byte.cast_signed()),
                false => i64::from(*byte),
            };
            bytes.iter().map(value).sum::<i64>() + 8 * 32
        };
        for signed in [true, false] {
            let mut with = bytes;
            with[148..155].copy_from_slice(format!("{:06o}\0", sum(signed)).as_bytes());
            assert!(Block::new(&with).is_ok());
            with[0] ^= 1;
            assert!(Block::new(&with).is_err());
        }
    }

    #[test]
    fn the_prefix_of_star_is_shorter() {
        let mut header = ::tar::Header::new_ustar();
        let bytes = header.as_mut_bytes();
        bytes[..4].copy_from_slice(b"name");
        bytes[345..476].fill(b'p');
        bytes[476..488].copy_from_slice(b"00000000001 ");
        bytes[508..].copy_from_slice(b"tar\0");
        header.set_cksum();
        let path = Block::new(header.as_bytes()).unwrap().path();
        assert_eq!(
            path,
            ["p".repeat(131), "/name".to_owned()].concat().into_bytes()
        );
    }
}
