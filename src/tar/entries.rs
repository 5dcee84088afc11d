//! The entries of a tar, one after the other. What its headers mean is said in mod.rs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use super::block::{self, BLOCK, Block};
use super::records::{Records, XATTR, telling_keys};
use super::shown;
use super::sparse::{self, Ahead, Form, MAX_MAP, Map};

/// How large a long name or a block of PAX records may be, in bytes.
const MAX_HEADER: u64 = 1 << 20;
/// How many headers may speak of one entry, or stand between two.
const MAX_HEADERS: usize = 64;
/// How many keys of global records are remembered.
const MAX_GLOBALS: usize = 16;
/// How many entries a tar may have: enough for every real one, and an end to made-up ones.
const MAX_ENTRIES: usize = 8_000_000;
/// How many bytes the paths, links and records of a tar may have in all.
const MAX_NAMES: usize = 512 << 20;

/// What an entry is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symlink.
    Symlink,
    /// A hard link.
    Hardlink,
    /// A character device.
    Character,
    /// A block device.
    Block,
    /// A named pipe.
    Fifo,
    /// Anything else, by its type flag.
    Other(u8),
}

impl Kind {
    /// Returns the word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Folder => "folder",
            Self::Symlink => "symlink",
            Self::Hardlink => "hard link",
            Self::Character => "character device",
            Self::Block => "block device",
            Self::Fifo => "fifo",
            Self::Other(_) => "unknown",
        }
    }

    /// Returns the letter by which `ls` shows it.
    pub fn letter(self) -> char {
        match self {
            Self::File => '-',
            Self::Folder => 'd',
            Self::Symlink => 'l',
            Self::Hardlink => 'h',
            Self::Character => 'c',
            Self::Block => 'b',
            Self::Fifo => 'p',
            Self::Other(_) => '?',
        }
    }
}

/// An entry: what its headers say. Nothing of it is to be trusted: it may have any path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The path, as it is written.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// The mode: permissions, set-id and sticky bits.
    pub mode: u32,
    /// The owner.
    pub uid: u64,
    /// The owner's group.
    pub gid: u64,
    /// The owner's name, which may be empty.
    pub user: Vec<u8>,
    /// The group's name, which may be empty.
    pub group: Vec<u8>,
    /// Seconds since 1970, which may be negative, and nanoseconds after them.
    pub mtime: (i64, u32),
    /// The size of the content, in bytes, holes and all.
    pub size: u64,
    /// How many bytes of the content are holes of a sparse file: they are not in the archive.
    pub holes: u64,
    /// What a symlink or hard link points to, as it is written.
    pub link: Option<Vec<u8>>,
    /// Major and minor number of a device.
    pub device: Option<(u32, u32)>,
    /// The PAX records, but those that say path, link and size, and those of sparse files.
    pub records: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Where the content begins in the tar, in bytes.
    pub offset: u64,
}

impl Entry {
    /// Returns the extended attributes: names and values.
    pub fn attributes(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let records = self.records.iter();
        records.filter_map(|(key, value)| Some((key.strip_prefix(XATTR)?, &value[..])))
    }

    /// Returns how many bytes its names and records take.
    fn names(&self) -> usize {
        let records = self.records.iter();
        let records: usize = records.map(|(key, value)| key.len() + value.len()).sum();
        self.path.len() + self.link.as_ref().map_or(0, Vec::len) + records
    }
}

/// A tar that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// It is cut off, or no tar, or cannot be read at all.
    #[error("it is damaged, or no tar archive")]
    Damaged(#[source] io::Error),
    /// It has an entry that readers would see in different ways.
    #[error("it has the entry `{}`, {why}", shown(path))]
    Refused {
        /// The path of the entry, as far as it is known.
        path: Vec<u8>,
        /// What is wrong with it: `which …`, `whose …` or `of …`.
        why: String,
    },
    /// It has more entries than any real one.
    #[error("it has more than {MAX_ENTRIES} entries")]
    TooMany,
    /// Its names would fill the memory.
    #[error("it has names and records of more than {MAX_NAMES} bytes")]
    TooLong,
}

impl From<io::Error> for TarError {
    fn from(error: io::Error) -> Self {
        Self::Damaged(error)
    }
}

fn damaged(why: impl Into<String>) -> TarError {
    TarError::Damaged(io::Error::other(why.into()))
}

/// Where a tar comes from.
pub trait Input: Read {
    /// Passes over `count` bytes.
    ///
    /// # Errors
    /// When there are not so many, or they cannot be read.
    fn skip(&mut self, count: u64) -> io::Result<()>;
}

/// A tar that is read from its beginning to its end.
pub struct Stream<R>(R);

impl<R: Read> Read for Stream<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<R: Read> Input for Stream<R> {
    fn skip(&mut self, count: u64) -> io::Result<()> {
        let passed = io::copy(&mut (&mut self.0).take(count), &mut io::sink())?;
        match passed == count {
            true => Ok(()),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// A tar in a file, whose contents need not be read to come to the next header.
pub struct Seekable<'a> {
    file: &'a File,
    at: u64,
    length: u64,
}

impl Read for Seekable<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Input for Seekable<'_> {
    fn skip(&mut self, count: u64) -> io::Result<()> {
        // A file lets one seek past its end.
        let to = self.at.checked_add(count).filter(|to| *to <= self.length);
        let to = to.ok_or(io::ErrorKind::UnexpectedEof)?;
        self.at = self.file.seek(SeekFrom::Start(to))?;
        Ok(())
    }
}

/// Reads a tar. Its [`Read`] gives the content of the entry that was returned last.
pub struct Entries<I> {
    input: I,
    /// How many bytes were read or passed over.
    at: u64,
    /// Bytes of the last entry's content, as it is stored, that were not read.
    left: u64,
    /// Bytes that fill up its last block.
    padding: u64,
    /// Where its data lies, if it is sparse, and how much of the whole file was read.
    map: Option<(Map, u64)>,
    is_done: bool,
    is_blank: bool,
    globals: BTreeSet<Vec<u8>>,
    entries: usize,
    names: usize,
}

impl<R: Read> Entries<Stream<R>> {
    /// Reads the tar that `reader` gives.
    pub fn new(reader: R) -> Self {
        Self::of(Stream(reader))
    }
}

impl<'a> Entries<Seekable<'a>> {
    /// Reads the tar in a file, and passes over contents by seeking.
    ///
    /// # Errors
    /// When the file cannot be looked at.
    pub fn seekable(mut file: &'a File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        file.rewind()?;
        Ok(Self::of(Seekable {
            file,
            at: 0,
            length,
        }))
    }
}

/// What stands before a header and speaks of it.
#[derive(Default)]
struct Before {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    records: Option<Records>,
}

impl<I: Input> Entries<I> {
    fn of(input: I) -> Self {
        Self {
            input,
            at: 0,
            left: 0,
            padding: 0,
            map: None,
            is_done: false,
            is_blank: true,
            globals: BTreeSet::new(),
            entries: 0,
            names: 0,
        }
    }

    /// Tells whether the stream had no bytes at all. A sound archive without entries has two blocks of zeros.
    pub fn is_blank(&self) -> bool {
        self.is_done && self.is_blank
    }

    /// Returns keys of global PAX records, which this reader passes over, that another reader would heed.
    pub fn globals(&self) -> impl Iterator<Item = &[u8]> {
        self.globals.iter().map(Vec::as_slice)
    }

    /// Returns the next entry; `None` at the end. Content that was not read is passed over.
    ///
    /// # Errors
    /// When the tar is damaged, could be read in two ways, or exceeds a bound.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        let mut ahead = Before::default();
        for _ in 0..MAX_HEADERS {
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            let size = header.size()?;
            match header.flag() {
                b'L' => ahead.path = Some(block::text(&self.body(size)?).to_vec()),
                b'K' => ahead.link = Some(block::text(&self.body(size)?).to_vec()),
                b'x' => {
                    let records = Records::parse(&self.body(size)?);
                    let records = records.map_err(|why| refused(header.path(), why))?;
                    let last = ahead.records.replace(records);
                    // A reader that heeds the first one would see another end of the content.
                    let is_other = |last: Records| {
                        ahead
                            .records
                            .as_ref()
                            .is_some_and(|it| it.size != last.size)
                    };
                    if last.is_some_and(is_other) {
                        let why = "which has two headers that give it two sizes";
                        return Err(refused(header.path(), why.to_owned()));
                    }
                }
                // Records for all that follows: runtimes pass over them.
                b'g' => {
                    for key in telling_keys(&self.body(size)?) {
                        if self.globals.len() < MAX_GLOBALS {
                            self.globals.insert(key);
                        }
                    }
                }
                b'V' if size == 0 => {}
                _ => {
                    let entry = self.entry(&header, size, ahead)?;
                    self.entries += 1;
                    self.names += entry.names();
                    return match () {
                        () if self.entries > MAX_ENTRIES => Err(TarError::TooMany),
                        () if self.names > MAX_NAMES => Err(TarError::TooLong),
                        () => Ok(Some(entry)),
                    };
                }
            }
        }
        Err(damaged("it has headers that speak of no entry"))
    }

    /// Reads at most so many bytes.
    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.input.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.at += filled as u64;
        Ok(filled)
    }

    /// Passes over what is left of the last entry.
    fn pass(&mut self) -> io::Result<()> {
        self.map = None;
        let left = std::mem::take(&mut self.left);
        if left > 0 {
            self.input.skip(left)?;
            self.at += left;
        }
        // Some tools leave out the padding of the last entry.
        let padding = std::mem::take(&mut self.padding) as usize;
        self.fill(&mut [0; BLOCK][..padding]).map(drop)
    }

    /// Reads a block. `None` at the end of the stream.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let mut block = [0; BLOCK];
        match self.fill(&mut block)? {
            0 => Ok(None),
            BLOCK => Ok(Some(block)),
            _ => Err(damaged("it ends within a header")),
        }
    }

    /// Reads the next header. `None` at the end of the archive.
    fn header(&mut self) -> Result<Option<Block>, TarError> {
        if self.is_done {
            return Ok(None);
        }
        self.pass()?;
        let Some(block) = self.block()? else {
            self.is_done = true;
            return Ok(None);
        };
        self.is_blank = false;
        if is_zero(&block) {
            self.is_done = true;
            // One empty block alone is the end for some readers, and none for others.
            return match self.block()? {
                Some(next) if !is_zero(&next) => Err(damaged("it goes on after an empty block")),
                _ => Ok(None),
            };
        }
        Ok(Some(Block::new(&block)?))
    }

    /// Reads the body of a header that speaks of another one.
    fn body(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        if size > MAX_HEADER {
            let why = format!("it has a header of {size} bytes: {MAX_HEADER} are the limit");
            return Err(damaged(why));
        }
        let mut body = vec![0; usize::try_from(size).unwrap_or_default()];
        if self.fill(&mut body)? < body.len() {
            return Err(damaged("it ends within a header"));
        }
        self.padding = padding(size);
        Ok(body)
    }

    /// Puts together what the headers of an entry say.
    fn entry(&mut self, header: &Block, size: u64, ahead: Before) -> Result<Entry, TarError> {
        let records = ahead.records.unwrap_or_default();
        let sparse = records.sparse.get(&b"name"[..]).cloned();
        let path = one_of(ahead.path, sparse.or_else(|| records.path.clone()));
        let link = one_of(ahead.link, records.link.clone());
        let (Ok(path), Ok(link)) = (path, link) else {
            let why = "which has two names: one of GNU tar, and one of PAX";
            return Err(refused(header.path(), why.to_owned()));
        };
        if path.is_none() && header.has_doubtful_prefix() {
            let why =
                "whose header of GNU tar has a prefix, which some readers put before its name";
            return Err(refused(header.path(), why.to_owned()));
        }
        let path = path.unwrap_or_else(|| header.path());
        let fail = |why: &str| refused(path.clone(), why.to_owned());
        let stored = records.size.unwrap_or(size);
        let kind = match header.flag() {
            b'0' | 0 | b'7' if path.ends_with(b"/") => match stored {
                0 => Kind::Folder,
                _ => return Err(fail("which has content, and the name of a folder")),
            },
            b'0' | 0 | b'7' | b'S' => Kind::File,
            b'1' => Kind::Hardlink,
            b'2' => Kind::Symlink,
            b'3' => Kind::Character,
            b'4' => Kind::Block,
            b'5' => Kind::Folder,
            b'6' => Kind::Fifo,
            b'V' => return Err(fail("a volume label that has content")),
            flag @ (b'X' | b'M' | b'N' | b'D') => {
                let flag = char::from(flag);
                return Err(fail(&format!(
                    "of the type `{flag}`, which readers take for different things"
                )));
            }
            flag => Kind::Other(flag),
        };
        let (user, group) = header.names();
        let mut entry = Entry {
            kind,
            link: match kind {
                Kind::Symlink | Kind::Hardlink => Some(link.unwrap_or_else(|| header.link())),
                _ => None,
            },
            mode: header.mode()?,
            uid: records.uid.map_or_else(|| header.uid(), Ok)?,
            gid: records.gid.map_or_else(|| header.gid(), Ok)?,
            user: records.user.clone().unwrap_or(user),
            group: records.group.clone().unwrap_or(group),
            mtime: match records.mtime {
                Some(mtime) => mtime,
                None => (header.mtime()?, 0),
            },
            device: match kind {
                Kind::Character | Kind::Block => Some(header.device()?),
                _ => None,
            },
            size: 0,
            holes: 0,
            offset: self.at,
            path,
            records: BTreeMap::new(),
        };
        if matches!(kind, Kind::File | Kind::Other(_)) {
            self.content(header, stored, &records, &mut entry)?;
        }
        entry.records = records.all;
        Ok(entry)
    }

    /// Finds out where the content of an entry lies, of which `stored` bytes are in the archive.
    fn content(
        &mut self,
        header: &Block,
        stored: u64,
        records: &Records,
        entry: &mut Entry,
    ) -> Result<(), TarError> {
        let fail = |why: String| refused(entry.path.clone(), why);
        let form = sparse::form(records).map_err(fail)?;
        let (map, data) = match (header.flag(), form) {
            (b'S', None) => (Some(self.old_map(header, &entry.path)?), stored),
            (b'0' | 0 | b'7', Some(Form::Known(map))) => (Some(map), stored),
            (b'0' | 0 | b'7', Some(Form::Ahead(size))) => self
                .map_ahead(size, stored, &entry.path)
                .map(|(map, data)| (Some(map), data))?,
            (_, None) => (None, stored),
            (_, Some(_)) => {
                return Err(fail("which is sparse in two ways".to_owned()));
            }
        };
        entry.offset = self.at;
        (self.left, self.padding) = (data, padding(stored));
        entry.size = map.as_ref().map_or(data, |map| map.size);
        if let Some(map) = map {
            if map.data() != data {
                return Err(fail("whose list of data does not fit its size".to_owned()));
            }
            entry.holes = map.size - data;
            self.map = Some((map, 0));
        }
        Ok(())
    }

    /// Reads the map of an old GNU header, which goes on in blocks behind it.
    fn old_map(&mut self, header: &Block, path: &[u8]) -> Result<Map, TarError> {
        let (mut extents, size) = header.sparse()?;
        let mut list = extents.list;
        let mut blocks = 0;
        while extents.has_more {
            blocks += BLOCK as u64;
            if blocks > MAX_MAP {
                return Err(refused(
                    path.to_vec(),
                    "which is sparse, in too many pieces".to_owned(),
                ));
            }
            let block = self.block()?;
            let block = block.ok_or_else(|| damaged("it ends within a header"))?;
            extents = block::sparse_more(&block)?;
            list.append(&mut extents.list);
        }
        Map::new(list, size).map_err(|why| refused(path.to_vec(), why))
    }

    /// Reads the map that stands before the data of a sparse file of `size` bytes. Returns it, and how many bytes of data
    /// follow of the `stored` ones.
    fn map_ahead(&mut self, size: u64, stored: u64, path: &[u8]) -> Result<(Map, u64), TarError> {
        let fail = |why: &str| refused(path.to_vec(), why.to_owned());
        let mut ahead = Ahead::new();
        let mut read = 0;
        loop {
            read += BLOCK as u64;
            if read > stored {
                return Err(fail("whose list of data does not end"));
            }
            if read > MAX_MAP {
                return Err(fail("which is sparse, in too many pieces"));
            }
            let block = self.block()?;
            let block = block.ok_or_else(|| damaged("it ends within a file"))?;
            if ahead.take(&block).map_err(|why| fail(&why))? {
                let map = ahead.finish(size).map_err(|why| fail(&why))?;
                return Ok((map, stored - read));
            }
        }
    }
}

impl<I: Input> Read for Entries<I> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut most = buffer.len();
        if let Some((map, at)) = &mut self.map {
            let (run, is_data) = map.run(*at);
            most = most.min(usize::try_from(run).unwrap_or(usize::MAX));
            if !is_data {
                buffer[..most].fill(0);
                *at += most as u64;
                return Ok(most);
            }
        }
        most = most.min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if most == 0 {
            // Some decompressors take an empty read for the end of their stream.
            return Ok(0);
        }
        let count = self.input.read(&mut buffer[..most])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some((_, at)) = &mut self.map {
            *at += count as u64;
        }
        self.left -= count as u64;
        self.at += count as u64;
        Ok(count)
    }
}

fn refused(path: Vec<u8>, why: String) -> TarError {
    TarError::Refused { path, why }
}

/// Returns the one name there is, or the same one twice.
fn one_of(gnu: Option<Vec<u8>>, pax: Option<Vec<u8>>) -> Result<Option<Vec<u8>>, ()> {
    match (gnu, pax) {
        (Some(gnu), Some(pax)) if gnu != pax => Err(()),
        (gnu, pax) => Ok(gnu.or(pax)),
    }
}

fn is_zero(block: &[u8]) -> bool {
    block.iter().all(|byte| *byte == 0)
}

fn padding(size: u64) -> u64 {
    let block = BLOCK as u64;
    (block - size % block) % block
}

#[cfg(test)]
mod tests;
