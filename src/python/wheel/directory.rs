//! The directory of a wheel: its members, and that the archive has no other reading (APPNOTE.TXT 6.3, section 4.3).
//!
//! A zip archive says most things twice, and readers differ in what they believe. Some read its directory, some the headers
//! before the members, some look for the end from behind, some go by what the end says. One file can so be several archives.
//! Here it has one meaning, or is refused. From its first to its last byte it must be
//!
//! ```text
//! header, name, extra, bytes of a member [sizes] │ the next member … │ directory │ [long end, locator] │ end, comment
//! ```
//!
//! | what | rule | what others make of it otherwise |
//! |---|---|---|
//! | bytes before, between, behind | none | whoever reads from the front, or searches, finds other members there |
//! | end | one, and the last one; the directory ends where it begins | the last end counts for some, any that fits for others |
//! | long end (zip64) | directly before the end; both agree | some look for it always, some where a field of the end is full |
//! | comments, extra fields | without signatures of zip records | they are found by whoever searches |
//! | local header | name, flags, method, sizes and CRC as in the directory | some believe the one, some the other |
//! | sizes behind the bytes | only of what is deflated, and the right ones | where stored bytes end, only the directory says |
//! | names | plain paths in ASCII, or marked as UTF-8; each once | code page 437; the first or the last of one name |
//! | folders | empty | what they hold is written, or passed over |
//!
//! Knows nothing of what a wheel holds, nor where its bytes come from.

use std::collections::BTreeSet;
use std::io::Read;

use flate2::Crc;
use flate2::read::DeflateDecoder;

use super::Problem;
use crate::layer::LayerPath;

/// The size of the record that ends an archive, without its comment, in bytes (4.3.16).
const END: u64 = 22;
/// How many bytes at the end of a file hold its end: with the longest comment.
pub(crate) const TAIL: u64 = END + 0xffff;
/// The size of the long record that ends an archive, and of its locator, in bytes (4.3.14, 4.3.15).
const LONG_END: u64 = 56;
const LOCATOR: u64 = 20;
/// The size of a header in the directory, and before a member, in bytes (4.3.12, 4.3.7).
const LISTED: usize = 46;
const LOCAL: u64 = 30;
/// How large a directory may be, in bytes: it is held in memory.
const LIMIT: u64 = 64 << 20;
/// How many more bytes than needed are read with a local header: it has fields that the directory does not tell of.
const SLACK: u64 = 128;
/// How much larger than the wheel its members may be together.
const RATIO: u64 = 200;
/// Below this size, in bytes, no ratio matters.
const SMALL: u64 = 64 << 20;
/// A field that is full: its number stands in an extra field (4.5.3).
const FULL: u64 = 0xffff_ffff;

/// Flags of members (4.4.4): encrypted, sizes behind the bytes, a patch, strongly encrypted, UTF-8, hidden headers.
const ENCRYPTED: u64 = 1 | 1 << 6 | 1 << 13;
const STREAMED: u64 = 1 << 3;
const PATCH: u64 = 1 << 5;
const UTF8: u64 = 1 << 11;
/// The methods of compression that wheels have (4.4.5).
const STORED: u64 = 0;
const DEFLATED: u64 = 8;
/// The newest version of the format that is known to readers (4.4.3), times ten.
const VERSION: u64 = 63;

/// The bits of a mode that say what a file is, and their values (POSIX, `sys/stat.h`); the bit of DOS for a folder.
const TYPE: u64 = 0o170_000;
const REGULAR: u64 = 0o100_000;
const FOLDER: u64 = 0o040_000;
const SYMLINK: u64 = 0o120_000;
const DOS_FOLDER: u64 = 0x10;

/// A wheel's bytes, which can be read in any order.
pub trait Bytes {
    /// Why they cannot be read, or what is wrong with them.
    type Error: From<Problem>;

    /// Returns how many there are.
    fn size(&self) -> u64;

    /// Reads `count` bytes from `at`; the caller asks for no others than there are.
    ///
    /// # Errors
    /// When they cannot be read.
    fn read(&mut self, at: u64, count: u64) -> Result<Vec<u8>, Self::Error>;
}

/// A member, as the directory tells of it.
#[derive(Debug)]
pub struct Entry {
    /// Its path.
    pub path: LayerPath,
    /// Whether it is a folder; then it is empty.
    pub is_folder: bool,
    /// Whether the archive sets any execute bit.
    pub executable: bool,
    /// Whether its bytes are deflated; else they are stored.
    pub is_deflated: bool,
    /// Its size in bytes.
    pub size: u64,
    /// The size of its bytes in the archive, in bytes.
    pub packed: u64,
    /// The CRC-32 of its bytes.
    pub crc: u32,
    flags: u64,
    /// Where its header begins.
    offset: u64,
    /// Where the next member or the directory begins.
    end: u64,
}

/// Where a directory is.
struct Place {
    offset: u64,
    size: u64,
    count: u64,
}

/// Reads the directory: all members, in the order of their bytes. What stands between them is checked by [`Entry::data`],
/// one by one.
///
/// # Errors
/// When the archive could be read in another way, or a member is not what a wheel may hold.
pub fn directory<B: Bytes>(bytes: &mut B) -> Result<Vec<Entry>, B::Error> {
    let place = end(bytes)?;
    let listing = bytes.read(place.offset, place.size)?;
    Ok(list(&listing, &place, bytes.size())?)
}

/// Makes the problem of an archive that is not sound.
fn unsound(why: impl Into<String>) -> Problem {
    Problem::Zip(why.into())
}

/// Reads a number of `count` bytes, the least first (4.4.1.1). `None` where there are fewer.
fn number(bytes: &[u8], at: usize, count: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(count)?)?;
    Some(
        bytes
            .iter()
            .rev()
            .fold(0, |number, byte| number << 8 | u64::from(*byte)),
    )
}

/// Tells whether bytes hold the signature of a zip record.
fn has_record(bytes: &[u8]) -> bool {
    let kinds: [[u8; 2]; 7] = [[1, 2], [3, 4], [5, 5], [5, 6], [6, 6], [6, 7], [7, 8]];
    let mut all = bytes.windows(4);
    all.any(|it| it[..2] == *b"PK" && kinds.iter().any(|kind| it[2..] == *kind))
}

/// Finds the directory: by the record that ends the archive, and the long one before it.
fn end<B: Bytes>(bytes: &mut B) -> Result<Place, B::Error> {
    let size = bytes.size();
    let count = size.min(TAIL);
    let tail = bytes.read(size - count, count)?;
    let is_end = |at: &usize| tail[*at..].starts_with(b"PK\x05\x06");
    let fits = |at: &usize| {
        let comment = number(&tail, at + 20, 2);
        comment.is_some_and(|it| *at as u64 + END + it == count)
    };
    let ends: Vec<usize> = (0..tail.len()).filter(is_end).collect();
    let fitting: Vec<usize> = ends.iter().copied().filter(fits).collect();
    let at = match (&fitting[..], ends.last()) {
        ([one], Some(last)) if one == last => *one,
        (_, None) => {
            let why = "it has no end: it is another kind of file, or cut short";
            return Err(unsound(why).into());
        }
        ([], _) => return Err(unsound("bytes follow its end, or it is cut short").into()),
        _ => return Err(unsound("it has two ends").into()),
    };
    let record = &tail[at..];
    let field = |at, count| number(record, at, count).unwrap_or_default();
    if has_record(&record[END as usize..]) {
        return Err(unsound("its comment holds a part of an archive").into());
    }
    if field(4, 2) > 0 || field(6, 2) > 0 || field(8, 2) != field(10, 2) {
        return Err(unsound("it is but one part of several").into());
    }
    let mut place = Place {
        count: field(10, 2),
        size: field(12, 4),
        offset: field(16, 4),
    };
    let mut stop = size - count + at as u64;
    let long = long_end(bytes, stop)?;
    if let Some(long) = long {
        let agrees = |short: u64, full: u64, long: u64| short == full || short == long;
        if !agrees(place.count, 0xffff, long.count)
            || !agrees(place.size, FULL, long.size)
            || !agrees(place.offset, FULL, long.offset)
        {
            return Err(unsound("its two ends disagree").into());
        }
        place = long;
        stop -= LOCATOR + LONG_END;
    }
    if place.size > LIMIT {
        return Err(Problem::Directory(place.size).into());
    }
    if place.offset.checked_add(place.size) != Some(stop) {
        let why = "its directory is not where its end says: bytes stand before it, or behind its directory";
        return Err(unsound(why).into());
    }
    Ok(place)
}

/// Reads the long end that stands before the end at `at`; `None` where none does.
fn long_end<B: Bytes>(bytes: &mut B, at: u64) -> Result<Option<Place>, B::Error> {
    let count = at.min(LONG_END + LOCATOR);
    let before = bytes.read(at - count, count)?;
    let Some(locator) = before.len().checked_sub(LOCATOR as usize) else {
        return Ok(None);
    };
    let (record, locator) = before.split_at(locator);
    if !locator.starts_with(b"PK\x06\x07") {
        return Ok(None);
    }
    let field = |at, count| number(record, at, count).unwrap_or_default();
    let is_here = number(locator, 8, 8) == Some(at - count) && record.starts_with(b"PK\x06\x06");
    // A longer record has room for what nobody reads.
    if !is_here || record.len() as u64 != LONG_END || field(4, 8) != LONG_END - 12 {
        return Err(unsound("its long end is not where it must be").into());
    }
    let disks = [
        number(locator, 4, 4).unwrap_or_default(),
        field(16, 4),
        field(20, 4),
    ];
    let is_one = number(locator, 16, 4).is_some_and(|it| it <= 1);
    if disks != [0; 3] || !is_one || field(24, 8) != field(32, 8) {
        return Err(unsound("it is but one part of several").into());
    }
    Ok(Some(Place {
        count: field(32, 8),
        size: field(40, 8),
        offset: field(48, 8),
    }))
}

/// Reads the entries of a directory, and checks that their members fit before it.
fn list(listing: &[u8], place: &Place, size: u64) -> Result<Vec<Entry>, Problem> {
    let mut entries = Vec::new();
    let mut seen = BTreeSet::new();
    let mut total = 0u64;
    let mut rest = listing;
    for _ in 0..place.count {
        let entry;
        (entry, rest) = listed(rest)?;
        if !seen.insert(entry.path.clone()) {
            return Err(Problem::Twice(entry.path.to_string()));
        }
        total = total.saturating_add(entry.size);
        if total > SMALL && total / RATIO > size {
            return Err(Problem::Bomb {
                archive: size,
                size: total,
            });
        }
        entries.push(entry);
    }
    if !rest.is_empty() {
        return Err(unsound(
            "its directory holds more than the members that its end counts",
        ));
    }
    entries.sort_by_key(|it| it.offset);
    let first = entries.first().map_or(place.offset, |it| it.offset);
    if first > 0 {
        return Err(unsound("bytes stand before its first member"));
    }
    let ends: Vec<u64> = entries.iter().skip(1).map(|it| it.offset).collect();
    for (entry, end) in entries
        .iter_mut()
        .zip(ends.into_iter().chain([place.offset]))
    {
        let least = LOCAL + entry.name_length() as u64;
        let least = entry.packed.checked_add(entry.offset.saturating_add(least));
        if least.is_none_or(|it| it > end) {
            let text = format!("`{}` lies in what follows it", entry.path);
            return Err(unsound(text));
        }
        entry.end = end;
    }
    Ok(entries)
}

/// Reads one entry of a directory; returns it with what follows.
fn listed(bytes: &[u8]) -> Result<(Entry, &[u8]), Problem> {
    let cut = || unsound("its directory holds fewer members than its end counts");
    if bytes.len() < LISTED || !bytes.starts_with(b"PK\x01\x02") {
        return Err(cut());
    }
    let field = |at, count| number(bytes, at, count).unwrap_or_default();
    let (name, rest) = split(&bytes[LISTED..], field(28, 2)).ok_or_else(cut)?;
    let (extra, rest) = split(rest, field(30, 2)).ok_or_else(cut)?;
    let (comment, rest) = split(rest, field(32, 2)).ok_or_else(cut)?;
    let flags = field(8, 2);
    let (path, is_folder) = checked_name(name, flags & UTF8 > 0)?;
    let member = path.to_string();
    let extra = Extra::read(extra, name, &member)?;
    if has_record(comment) {
        let text = format!("the comment of `{member}` holds a part of an archive");
        return Err(unsound(text));
    }
    let fields = [field(24, 4), field(20, 4), field(42, 4)];
    let [size, packed, offset] = extra
        .numbers(fields)
        .filter(|_| matches!(field(34, 2), 0 | 0xffff))
        .ok_or_else(|| unsound(format!("the sizes of `{member}` are in doubt")))?;
    if flags & ENCRYPTED > 0 {
        return Err(Problem::Encrypted(member));
    }
    if flags & PATCH > 0 || field(6, 1) > VERSION {
        let text = format!("`{member}` is packed in a way that is not known");
        return Err(unsound(text));
    }
    let attributes = field(38, 4);
    let mode = attributes >> 16;
    let kind = match (mode & TYPE, is_folder) {
        (0, false) if attributes & DOS_FOLDER > 0 => Some("folder without `/` at its end"),
        (0, _) | (REGULAR, false) | (FOLDER, true) => None,
        (SYMLINK, _) => Some("symlink"),
        (FOLDER, false) => Some("folder without `/` at its end"),
        (REGULAR, true) => Some("file with a `/` at its end"),
        _ => Some("device, socket or pipe"),
    };
    // A deflated nothing has two bytes.
    let is_empty = size == 0 && (packed == 0 || packed == 2 && field(10, 2) == DEFLATED);
    let kind = kind.or((is_folder && !is_empty).then_some("folder with content"));
    if let Some(kind) = kind {
        return Err(Problem::Kind { member, kind });
    }
    let is_deflated = match field(10, 2) {
        DEFLATED => true,
        STORED if packed != size => {
            return Err(unsound(format!("`{member}` is stored, but has two sizes")));
        }
        STORED if flags & STREAMED > 0 && size > 0 => {
            let text = format!("`{member}` is stored, and its size stands behind it");
            return Err(unsound(text));
        }
        STORED => false,
        method => {
            let method = word(method);
            return Err(Problem::Method { member, method });
        }
    };
    let entry = Entry {
        path,
        is_folder,
        executable: mode & 0o111 > 0,
        is_deflated,
        size,
        packed,
        crc: u32::try_from(field(16, 4)).unwrap_or_default(),
        flags,
        offset,
        end: offset,
    };
    Ok((entry, rest))
}

fn split(bytes: &[u8], at: u64) -> Option<(&[u8], &[u8])> {
    bytes.split_at_checked(usize::try_from(at).ok()?)
}

impl Entry {
    /// Returns how long its name is, in bytes.
    fn name_length(&self) -> usize {
        self.path.as_str().len() + usize::from(self.is_folder)
    }

    /// Returns where its header begins and how many bytes belong to it, as far as the directory tells.
    pub fn extent(&self) -> (u64, u64) {
        (self.offset, self.end - self.offset)
    }

    /// Returns where its bytes begin; checks that its local header says what the directory says, and that nothing follows
    /// but the next member.
    ///
    /// # Errors
    /// When it does not, or something does.
    pub fn data<B: Bytes>(&self, bytes: &mut B) -> Result<u64, B::Error> {
        let member = &self.path;
        let room = self.end - self.offset;
        let likely = LOCAL + self.name_length() as u64;
        let mut head = bytes.read(self.offset, room.min(likely + SLACK))?;
        if !head.starts_with(b"PK\x03\x04") {
            let text = format!("`{member}` is not where its directory says");
            return Err(unsound(text).into());
        }
        let field = |head: &[u8], at, count| number(head, at, count).unwrap_or_default();
        let start = LOCAL + field(&head, 26, 2) + field(&head, 28, 2);
        let outside = || unsound(format!("`{member}` lies in what follows it"));
        let rest = room.checked_sub(start.saturating_add(self.packed));
        let rest = rest.ok_or_else(outside)?;
        if (head.len() as u64) < start {
            head = bytes.read(self.offset, start)?;
        }
        let name = split(&head[LOCAL as usize..], field(&head, 26, 2));
        let (name, extra) = name.ok_or_else(outside)?;
        let extra = split(extra, field(&head, 28, 2)).map(|it| it.0);
        let is_named = match self.is_folder {
            true => name.strip_suffix(b"/"),
            false => Some(name),
        };
        let disagrees = |what: &str| {
            let text = format!("`{member}` has {what} in its directory than before its bytes");
            unsound(text)
        };
        if is_named != Some(self.path.as_str().as_bytes()) {
            return Err(disagrees("another name").into());
        }
        let same = ENCRYPTED | STREAMED | PATCH | UTF8;
        let method = if self.is_deflated { DEFLATED } else { STORED };
        if (field(&head, 6, 2) ^ self.flags) & same > 0 || field(&head, 8, 2) != method {
            return Err(disagrees("other flags, or another method,").into());
        }
        let extra = Extra::read(extra.unwrap_or_default(), name, self.path.as_str())?;
        let is_streamed = self.flags & STREAMED > 0;
        let is_it = |found: u64, right: u64| found == right || is_streamed && found == 0;
        let sizes = extra.numbers([field(&head, 22, 4), field(&head, 18, 4)]);
        let sizes = sizes.filter(|it| is_it(it[0], self.size) && is_it(it[1], self.packed));
        if sizes.is_none() || !is_it(field(&head, 14, 4), u64::from(self.crc)) {
            return Err(disagrees("other sizes, or another CRC,").into());
        }
        let behind = self.offset + start + self.packed;
        let is_right = match is_streamed {
            true => {
                let found = bytes.read(behind, rest.min(25))?;
                self.is_descriptor(&found, extra.long.is_some())
            }
            false => rest == 0,
        };
        if !is_right {
            let text = format!("bytes stand behind `{member}` that belong to no member");
            return Err(unsound(text).into());
        }
        Ok(self.offset + start)
    }

    /// Tells whether bytes are the sizes and the CRC of the member, as they may stand behind it (4.3.9).
    fn is_descriptor(&self, bytes: &[u8], is_long: bool) -> bool {
        let plain = bytes.strip_prefix(b"PK\x07\x08");
        // Without a signature, the CRC must not be taken for one.
        let fields = match (plain, bytes.len()) {
            (Some(fields), 16 | 24) => fields,
            (None, 12 | 20) => bytes,
            _ => return false,
        };
        let width = (fields.len() - 4) / 2;
        let is_wide = width == 8;
        let needs_wide = self.size >= FULL || self.packed >= FULL;
        is_wide == (is_long || needs_wide)
            && number(fields, 0, 4) == Some(u64::from(self.crc))
            && number(fields, 4, width) == Some(self.packed)
            && number(fields, 4 + width, width) == Some(self.size)
    }

    /// Reads a small member whole, and checks its size and CRC.
    ///
    /// # Errors
    /// When it has more than `limit` bytes, or others than the directory says.
    pub fn read<B: Bytes>(&self, bytes: &mut B, limit: u64) -> Result<Vec<u8>, B::Error> {
        let size = self.size.max(self.packed);
        if size > limit {
            let member = self.path.to_string();
            return Err(Problem::Large {
                member,
                size,
                limit,
            }
            .into());
        }
        let data = self.data(bytes)?;
        let packed = bytes.read(data, self.packed)?;
        let damaged = || unsound(format!("`{}` in it is damaged", self.path));
        let mut out = packed;
        if self.is_deflated {
            let mut inflated = Vec::new();
            let mut decoder = DeflateDecoder::new(&out[..]);
            let mut limited = (&mut decoder).take(self.size + 1);
            let read = limited.read_to_end(&mut inflated);
            read.map_err(|_| damaged())?;
            if decoder.total_in() != self.packed {
                return Err(damaged().into());
            }
            out = inflated;
        }
        let mut crc = Crc::new();
        crc.update(&out);
        match out.len() as u64 == self.size && crc.sum() == self.crc {
            true => Ok(out),
            false => Err(damaged().into()),
        }
    }
}

/// What extra fields say (4.5).
struct Extra<'a> {
    /// The long numbers.
    long: Option<&'a [u8]>,
}

impl<'a> Extra<'a> {
    /// Reads the extra fields of a member with the name `name`.
    fn read(extra: &'a [u8], name: &[u8], member: &str) -> Result<Self, Problem> {
        const LONG: u64 = 1;
        const UNICODE_PATH: u64 = 0x7075;
        let doubt = |what: &str| unsound(format!("the extra fields of `{member}` {what}"));
        if has_record(extra) {
            return Err(doubt("hold a part of an archive"));
        }
        let (mut long, mut path) = (None, None);
        let mut rest = extra;
        while !rest.is_empty() {
            let cut = || doubt("are cut short");
            let id = number(rest, 0, 2).ok_or_else(cut)?;
            let length = number(rest, 2, 2).ok_or_else(cut)?;
            let value;
            (value, rest) = split(&rest[4..], length).ok_or_else(cut)?;
            let slot = match id {
                LONG => &mut long,
                UNICODE_PATH => &mut path,
                _ => continue,
            };
            if slot.replace(value).is_some() {
                return Err(doubt("say one thing twice"));
            }
        }
        // Version, CRC of the plain name, name (4.6.9).
        if path.is_some_and(|it: &[u8]| it.get(5..) != Some(name)) {
            return Err(doubt("give it another name"));
        }
        Ok(Self { long })
    }

    /// Puts the long numbers in the place of fields that are full: size, packed size, offset. `None` where one lacks, or
    /// where those who count from the start of the field would read others.
    fn numbers<const N: usize>(&self, fields: [u64; N]) -> Option<[u64; N]> {
        let long = self.long.unwrap_or_default();
        let (eights, rest) = long.as_chunks::<8>();
        let eights: Vec<u64> = eights.iter().map(|it| u64::from_le_bytes(*it)).collect();
        // The number of a disk: there is but one.
        if !rest.is_empty() && rest != [0; 4] {
            return None;
        }
        let mut next = eights.iter();
        let mut numbers = fields;
        for number in numbers.iter_mut().filter(|it| **it == FULL) {
            *number = *next.next()?;
        }
        let is_alike = eights.len() <= N && eights.iter().zip(&numbers).all(|(a, b)| a == b);
        (next.next().is_none() || is_alike).then_some(numbers)
    }
}

/// Checks the name of a member; tells whether it is a folder's.
fn checked_name(raw: &[u8], is_utf8: bool) -> Result<(LayerPath, bool), Problem> {
    let fail = |reason: &str| Problem::Name {
        member: String::from_utf8_lossy(raw).into_owned(),
        reason: reason.to_owned(),
    };
    let name = std::str::from_utf8(raw).map_err(|_| fail("has a name that is not UTF-8"))?;
    if !is_utf8 && !name.is_ascii() {
        return Err(fail(
            "has a name that is neither ASCII nor marked as UTF-8: others read another name",
        ));
    }
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
    let plain = name.strip_suffix('/');
    if plain.unwrap_or(name) != path.as_str() {
        return Err(fail("has `.` or an empty part in its path"));
    }
    if path.as_str().split('/').any(|it| it.starts_with(".wh.")) {
        return Err(fail("would delete a file: runtimes read `.wh.` names so"));
    }
    Ok((path, plain.is_some()))
}

/// Names a method of compression (4.4.5).
fn word(method: u64) -> String {
    match method {
        9 => "deflate64".to_owned(),
        12 => "bzip2".to_owned(),
        14 => "lzma".to_owned(),
        93 => "zstd".to_owned(),
        95 => "xz".to_owned(),
        other => format!("a method that is not known ({other})"),
    }
}
