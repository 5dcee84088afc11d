//! Reads the entries of a layer's tar (POSIX.1-2001 pax, ustar and GNU), strictly: what two readers could take for two
//! different things is refused. Knows nothing of folders or files.
//!
//! The `tar` crate reads single headers here, and no more: it splits PAX records at line feeds, which attributes of
//! files may hold.

use std::collections::BTreeSet;
use std::io::{self, Read};

use crate::layer::BLOCK;

/// How large a long name or a block of PAX records may be, in bytes.
const MAX_HEADER: u64 = 1 << 20;

/// What an entry is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Folder,
    Fifo,
}

/// An entry: what its headers say.
#[derive(Debug)]
pub(super) struct Entry {
    /// As it is written.
    pub(super) path: Vec<u8>,
    pub(super) kind: Kind,
    /// What a link leads to, as it is written.
    pub(super) target: Vec<u8>,
    pub(super) mode: u32,
    pub(super) uid: u64,
    pub(super) gid: u64,
    /// Seconds and nanoseconds since 1970.
    pub(super) mtime: (i64, u32),
    /// Extended attributes, in the order of the records.
    pub(super) attributes: Vec<(Vec<u8>, Vec<u8>)>,
    /// Major and minor number.
    pub(super) device: (u32, u32),
}

/// A tar that cannot be read.
#[derive(Debug)]
pub(super) enum TarError {
    /// It is cut off, or no tar.
    Damaged(io::Error),
    /// An entry is refused: its path as far as it is known, and why.
    Refused(Vec<u8>, String),
}

impl From<io::Error> for TarError {
    fn from(error: io::Error) -> Self {
        Self::Damaged(error)
    }
}

/// Reads a tar.
pub(super) struct Entries<'a> {
    reader: &'a mut dyn Read,
    /// Bytes of the last entry's content that were not read.
    left: u64,
    /// Bytes that fill up its last block.
    padding: u64,
    done: bool,
}

/// What stands before a header and speaks of it.
#[derive(Default)]
struct Ahead {
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    records: Option<Records>,
}

/// The PAX records of an entry that we know.
#[derive(Default)]
struct Records {
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, u32)>,
    attributes: Vec<(Vec<u8>, Vec<u8>)>,
    /// The names of the attributes.
    names: BTreeSet<Vec<u8>>,
}

impl<'a> Entries<'a> {
    /// Reads the tar that `reader` gives.
    pub(super) fn new(reader: &'a mut dyn Read) -> Self {
        Self {
            reader,
            left: 0,
            padding: 0,
            done: false,
        }
    }

    /// Returns the next entry. Content that was not read is passed over.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, TarError> {
        let mut ahead = Ahead::default();
        // Four headers at most: a long name, a long target, records, and the entry's own; and global records.
        for _ in 0..64 {
            let Some(header) = self.header()? else {
                return match ahead.is_empty() {
                    true => Ok(None),
                    false => Err(cut("its last header speaks of an entry that is not there")),
                };
            };
            let bytes = header.as_bytes();
            let path = || header.path_bytes().into_owned();
            let size = number(&bytes[124..136])?;
            match bytes[156] {
                b'L' => set(&mut ahead.path, name(self.body(size)?)?, path)?,
                b'K' => set(&mut ahead.target, name(self.body(size)?)?, path)?,
                b'x' => {
                    let records = Records::parse(&self.body(size)?);
                    let records = records.map_err(|why| TarError::Refused(path(), why))?;
                    set(&mut ahead.records, records, path)?;
                }
                // Records for all that follows: what other tools make of them differs, and runtimes pass over them.
                b'g' => {
                    self.body(size)?;
                }
                _ => return self.entry(&header, size, ahead).map(Some),
            }
        }
        Err(cut("it has headers that speak of no entry"))
    }

    /// Reads the content of the entry that was returned last.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let most = most.min(buffer.len());
        let count = self.reader.read(&mut buffer[..most])?;
        if count == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= count as u64;
        Ok(count)
    }

    /// Passes over the rest of the content.
    fn pass(&mut self) -> io::Result<()> {
        let mut buffer = [0; 8192];
        while self.left > 0 {
            self.read(&mut buffer)?;
        }
        // Some tools leave out the padding of the last entry.
        let padding = std::mem::take(&mut self.padding);
        io::copy(&mut self.reader.take(padding), &mut io::sink()).map(drop)
    }

    /// Reads a block. `None` at the end of the stream.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.reader.read(&mut block[filled..])? {
                0 if filled == 0 => return Ok(None),
                0 => return Err(cut("it ends within a header")),
                count => filled += count,
            }
        }
        Ok(Some(block))
    }

    /// Reads the next header. `None` at the end of the archive.
    fn header(&mut self) -> Result<Option<tar::Header>, TarError> {
        if self.done {
            return Ok(None);
        }
        self.pass()?;
        let Some(block) = self.block()? else {
            self.done = true;
            return Ok(None);
        };
        if is_zero(&block) {
            self.done = true;
            // One empty block alone is the end for some readers, and none for others.
            return match self.block()? {
                Some(next) if !is_zero(&next) => Err(cut("it goes on after an empty block")),
                _ => Ok(None),
            };
        }
        let mut header = tar::Header::new_old();
        header.as_mut_bytes().copy_from_slice(&block);
        let sum: u32 = block[..148]
            .iter()
            .chain(&block[156..])
            .map(|byte| u32::from(*byte))
            .sum();
        match header.cksum()? == sum + 8 * u32::from(b' ') {
            true => Ok(Some(header)),
            false => Err(cut("a header has a wrong checksum")),
        }
    }

    /// Reads the body of a header that speaks of another one.
    fn body(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        if size > MAX_HEADER {
            let why = format!("it has a header of {size} bytes: {MAX_HEADER} are the limit");
            return Err(TarError::Damaged(io::Error::other(why)));
        }
        (self.left, self.padding) = (size, padding(size));
        let mut body = vec![0; usize::try_from(size).unwrap_or_default()];
        let mut filled = 0;
        while filled < body.len() {
            filled += self.read(&mut body[filled..])?;
        }
        Ok(body)
    }

    fn entry(&mut self, header: &tar::Header, size: u64, ahead: Ahead) -> Result<Entry, TarError> {
        let records = ahead.records.unwrap_or_default();
        let bytes = header.as_bytes();
        let own = header.path_bytes().into_owned();
        let refused = |why: &str| TarError::Refused(own.clone(), why.to_owned());
        if ahead.path.is_some() && records.path.is_some()
            || ahead.target.is_some() && records.target.is_some()
        {
            return Err(refused(
                "which has two names: one of GNU tar, and one of PAX",
            ));
        }
        let path = records.path.or(ahead.path).unwrap_or_else(|| own.clone());
        let refused = |why: &str| TarError::Refused(path.clone(), why.to_owned());
        let target = records.target.or(ahead.target);
        let target = target.or_else(|| header.link_name_bytes().map(|it| it.into_owned()));
        let kind = match bytes[156] {
            b'0' | 0 | b'7' if path.ends_with(b"/") => Kind::Folder,
            b'0' | 0 | b'7' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharDevice,
            b'4' => Kind::BlockDevice,
            b'5' => Kind::Folder,
            b'6' => Kind::Fifo,
            b'S' => return Err(refused("which is sparse: layers hold whole files")),
            other => {
                let kind = char::from(other).escape_default();
                return Err(refused(&format!("of the unknown type `{kind}`")));
            }
        };
        let size = records.size.unwrap_or(size);
        if kind != Kind::File && size != 0 {
            // Some readers pass over so many bytes, others take them for headers.
            return Err(refused("which has content, and is no file"));
        }
        let device = match kind {
            Kind::CharDevice | Kind::BlockDevice => {
                (number(&bytes[329..337])?, number(&bytes[337..345])?)
            }
            _ => (0, 0),
        };
        (self.left, self.padding) = (size, padding(size));
        Ok(Entry {
            kind,
            target: target.unwrap_or_default(),
            // Some tools write the kind of file, too.
            mode: number::<u32>(&bytes[100..108])? & 0o7777,
            uid: records.uid.map_or_else(|| number(&bytes[108..116]), Ok)?,
            gid: records.gid.map_or_else(|| number(&bytes[116..124]), Ok)?,
            mtime: match records.mtime {
                Some(mtime) => mtime,
                None => (number(&bytes[136..148])?, 0),
            },
            attributes: records.attributes,
            device,
            path,
        })
    }
}

impl Ahead {
    fn is_empty(&self) -> bool {
        self.path.is_none() && self.target.is_none() && self.records.is_none()
    }
}

impl Records {
    /// Parses PAX records: `LENGTH KEY=VALUE\n`, where the length counts itself and the line feed.
    fn parse(mut bytes: &[u8]) -> Result<Self, String> {
        let mut records = Self::default();
        let broken = || "whose PAX records are damaged".to_owned();
        while !bytes.is_empty() {
            let space = bytes
                .iter()
                .position(|byte| *byte == b' ')
                .ok_or_else(broken)?;
            let length = digits(&bytes[..space]).ok_or_else(broken)?;
            let length = usize::try_from(length).map_err(|_| broken())?;
            let record = bytes.get(space + 1..length).ok_or_else(broken)?;
            bytes = &bytes[length..];
            let record = record.strip_suffix(b"\n").ok_or_else(broken)?;
            let equals = record
                .iter()
                .position(|byte| *byte == b'=')
                .ok_or_else(broken)?;
            records.add(&record[..equals], &record[equals + 1..])?;
        }
        Ok(records)
    }

    fn add(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let twice = || format!("whose PAX records have `{}` twice", key.escape_ascii());
        let bad = || format!("whose PAX record `{}` is damaged", key.escape_ascii());
        let number = || digits(value).ok_or_else(bad);
        // A record without a value takes back one for all entries: there is none, for us.
        let fresh = match key {
            _ if key.starts_with(b"GNU.sparse.") => {
                return Err("which is sparse: layers hold whole files".to_owned());
            }
            _ if value.is_empty() && !key.starts_with(XATTR) => true,
            b"path" => self.path.replace(text(value).ok_or_else(bad)?).is_none(),
            b"linkpath" => self.target.replace(text(value).ok_or_else(bad)?).is_none(),
            b"size" => self.size.replace(number()?).is_none(),
            b"uid" => self.uid.replace(number()?).is_none(),
            b"gid" => self.gid.replace(number()?).is_none(),
            b"mtime" => self.mtime.replace(time(value).ok_or_else(bad)?).is_none(),
            _ => match key.strip_prefix(XATTR) {
                Some(name) if name.is_empty() || name.contains(&0) => return Err(bad()),
                Some(name) => {
                    self.attributes.push((name.to_vec(), value.to_vec()));
                    self.names.insert(name.to_vec())
                }
                None => true,
            },
        };
        match fresh {
            true => Ok(()),
            false => Err(twice()),
        }
    }
}

/// What the key of an extended attribute begins with.
const XATTR: &[u8] = b"SCHILY.xattr.";

fn is_zero(block: &[u8]) -> bool {
    block.iter().all(|byte| *byte == 0)
}

fn padding(size: u64) -> u64 {
    let block = BLOCK as u64;
    (block - size % block) % block
}

fn cut(why: &'static str) -> TarError {
    TarError::Damaged(io::Error::other(why))
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
        let end = field
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(field.len());
        let text = std::str::from_utf8(&field[..end]).map_err(|_| bad())?;
        match text.trim_matches(' ') {
            "" => 0,
            // Not `+7`, which Rust would take.
            digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                i128::from_str_radix(digits, 8).map_err(|_| bad())?
            }
            _ => return Err(bad()),
        }
    };
    N::try_from(value).map_err(|_| bad())
}

/// Sets what must be set once.
fn set<T>(slot: &mut Option<T>, value: T, path: impl Fn() -> Vec<u8>) -> Result<(), TarError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(TarError::Refused(
            path(),
            "which has two headers of one kind".to_owned(),
        )),
    }
}

/// Returns a long name without the NUL that ends it.
fn name(mut bytes: Vec<u8>) -> Result<Vec<u8>, TarError> {
    let end = bytes
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(bytes.len());
    if !is_zero(&bytes[end..]) {
        let why = "which has a NUL in its name".to_owned();
        return Err(TarError::Refused(bytes, why));
    }
    bytes.truncate(end);
    Ok(bytes)
}

fn text(value: &[u8]) -> Option<Vec<u8>> {
    (!value.contains(&0)).then(|| value.to_vec())
}

fn digits(text: &[u8]) -> Option<u64> {
    let is_number = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    is_number.then(|| std::str::from_utf8(text).ok()?.parse().ok())?
}

/// Parses seconds with a fraction, as `-1.5`.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let dot = text
        .iter()
        .position(|byte| *byte == b'.')
        .unwrap_or(text.len());
    let seconds = i64::try_from(digits(&text[..dot])?).ok()?;
    let fraction = text.get(dot + 1..).unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digit = |at: usize| u32::from(fraction.get(at).map_or(0, |byte| byte - b'0'));
    let nanos = (0..9).fold(0, |sum, at| sum * 10 + digit(at));
    Some(match (negative, nanos) {
        (false, nanos) => (seconds, nanos),
        (true, 0) => (-seconds, 0),
        (true, nanos) => (-seconds - 1, 1_000_000_000 - nanos),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::plain_header;

    fn header(path: &str, kind: u8, size: u64) -> Vec<u8> {
        let mut header = tar::Header::new_old();
        header
            .as_mut_bytes()
            .copy_from_slice(&plain_header(path, size));
        header.as_mut_bytes()[156] = kind;
        header.set_cksum();
        header.as_bytes().to_vec()
    }

    fn with(header: Vec<u8>, body: &[u8]) -> Vec<u8> {
        let mut all = [&header[..], body].concat();
        all.resize(all.len().next_multiple_of(BLOCK), 0);
        all
    }

    fn records(records: &[(&str, &[u8])]) -> Vec<u8> {
        let mut body = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length += 1;
            }
            body.extend(format!("{length} {key}=").into_bytes());
            body.extend_from_slice(value);
            body.push(b'\n');
        }
        with(header("pax", b'x', body.len() as u64), &body)
    }

    fn read(tar: &[u8]) -> Result<Vec<Entry>, TarError> {
        let mut reader = tar;
        let mut entries = Entries::new(&mut reader);
        let mut found = Vec::new();
        while let Some(entry) = entries.next()? {
            found.push(entry);
        }
        Ok(found)
    }

    #[test]
    fn names_sizes_and_attributes_of_records() {
        let value = b"a\n20 path=elsewhere\n\0\xff";
        let tar = [
            records(&[
                ("SCHILY.xattr.user.x", value),
                ("path", "é/x".as_bytes()),
                ("size", b"3"),
                ("mtime", b"-1.25"),
                ("uid", b"3000000000"),
            ]),
            with(header("short", b'0', 0), b"abc"),
            with(header("long", b'L', 4), b"a/b\0"),
            with(header("g", b'g', 4), b"junk"),
            header("short", b'5', 0),
            vec![0; 1024],
            b"anything".to_vec(),
        ]
        .concat();
        let entries = read(&tar).unwrap();
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].path, "é/x".as_bytes());
        assert_eq!(entries[0].uid, 3_000_000_000);
        assert_eq!(entries[0].mtime, (-2, 750_000_000));
        assert_eq!(
            entries[0].attributes,
            [(b"user.x".to_vec(), value.to_vec())]
        );
        assert_eq!(
            (&entries[1].path[..], entries[1].kind),
            (&b"a/b"[..], Kind::Folder)
        );
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let file = header("f", b'0', 0);
        let two = |key, a: &[u8], b: &[u8]| [records(&[(key, a), (key, b)]), file.clone()].concat();
        let one = |key, value: &[u8]| [records(&[(key, value)]), file.clone()].concat();
        let refused: &[Vec<u8>] = &[
            two("path", b"a", b"b"),
            two("size", b"0", b"512"),
            two("SCHILY.xattr.user.a", b"1", b"2"),
            one("path", b"a\0b"),
            one("size", b"-1"),
            one("size", b"99999999999999999999999"),
            one("size", b" 1"),
            one("GNU.sparse.major", b"1"),
            one("SCHILY.xattr.", b"x"),
            [records(&[]), records(&[]), file.clone()].concat(),
            [with(header("l", b'L', 4), b"a\0b\0"), file.clone()].concat(),
            [
                with(header("l", b'L', 2), b"a\0"),
                records(&[("path", b"b")]),
                file.clone(),
            ]
            .concat(),
            [with(header("x", b'x', 9), b"7 path=a\n"), file.clone()].concat(),
            [with(header("x", b'x', 9), b"99 path=a"), file.clone()].concat(),
            header("s", b'S', 0),
            header("v", b'V', 0),
            with(header("d", b'5', 1), b"x"),
            with(header("l", b'1', 1), b"x"),
        ];
        for (number, tar) in refused.iter().enumerate() {
            assert!(matches!(read(tar), Err(TarError::Refused(..))), "{number}");
        }
        let mut wrong = file.clone();
        wrong[0] = b'g';
        let damaged: &[Vec<u8>] = &[
            wrong,
            file[..100].to_vec(),
            [vec![0; 512], file.clone()].concat(),
            header("f", b'0', 1),
            header("x", b'x', 2 << 20),
            records(&[("path", b"a")]),
            with(header("g", b'g', 1), b"x").repeat(100),
        ];
        for (number, tar) in damaged.iter().enumerate() {
            assert!(matches!(read(tar), Err(TarError::Damaged(_))), "{number}");
        }
    }

    #[test]
    fn numbers_of_three_forms() {
        assert_eq!(number::<u64>(b"0000644\0").unwrap(), 0o644);
        assert_eq!(number::<u64>(b"  644 \0 ").unwrap(), 0o644);
        assert_eq!(number::<u64>(&[0; 8]).unwrap(), 0);
        assert_eq!(number::<u64>(b"\x80\0\0\0\0\0\x01\x02").unwrap(), 258);
        assert_eq!(number::<i64>(&[0xff; 12]).unwrap(), -1);
        for bad in [&b"+7\0"[..], b"8\0", b"-1\0", &[0xff; 8], &[0x9f; 12]] {
            assert!(number::<u64>(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_tar_may_lack_its_end() {
        let tar = [header("f", b'0', 3), b"abc".to_vec()].concat();
        assert_eq!(read(&tar).unwrap().len(), 1);
        assert!(read(&[]).unwrap().is_empty());
    }

    #[test]
    fn many_attributes_are_read_in_time() {
        let names: Vec<String> = (0..38_000).map(|n| format!("SCHILY.xattr.{n:x}")).collect();
        let names: Vec<(&str, &[u8])> = names.iter().map(|it| (&**it, &b""[..])).collect();
        let tar = [records(&names), header("f", b'0', 0)].concat();
        assert!((800 << 10..1 << 20).contains(&tar.len()), "{}", tar.len());
        let start = std::time::Instant::now();
        let entries = read(&tar).unwrap();
        assert!(start.elapsed() < std::time::Duration::from_secs(2));
        assert_eq!(entries[0].attributes.len(), names.len());
    }
}
