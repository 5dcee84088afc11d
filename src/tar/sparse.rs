//! Sparse files: where their data lies, and the zeros between. GNU tar writes them in four forms: one with its own header
//! (type `S`), and three with PAX records (GNU tar manual, "Storing Sparse Files").

use super::BLOCK;
use super::records::{Records, digits};

/// Where the data of a sparse file lies.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Map {
    /// Offset and length of each piece of data in the file, in order, without overlap.
    extents: Vec<(u64, u64)>,
    /// The size of the whole file.
    pub(super) size: u64,
}

/// What the records of an entry say of its being sparse.
pub(super) enum Form {
    /// The map is in the records (0.0 and 0.1).
    Known(Map),
    /// The map stands before the data (1.0); the size of the whole file is known.
    Ahead(u64),
}

/// How large the map of a sparse file may be, in bytes of the archive.
pub(super) const MAX_MAP: u64 = 1 << 20;

impl Map {
    /// Checks a map: sorted, without overlap, and of no more than the file holds.
    ///
    /// # Errors
    /// Says what is wrong, to follow upon the name of the entry.
    pub(super) fn new(extents: Vec<(u64, u64)>, size: u64) -> Result<Self, String> {
        let mut end = 0;
        for (offset, length) in &extents {
            let next = offset.checked_add(*length);
            match next {
                Some(next) if *offset >= end && next <= size => end = next,
                _ => return Err("whose list of data is out of order".to_owned()),
            }
        }
        Ok(Self { extents, size })
    }

    /// Returns how many bytes of data there are.
    pub(super) fn data(&self) -> u64 {
        self.extents.iter().map(|(_, length)| length).sum()
    }

    /// Returns how many bytes follow at `at` that are of one kind, and whether they are data.
    pub(super) fn run(&self, at: u64) -> (u64, bool) {
        // The pieces that end at or before `at` are done with; pieces without length mean nothing.
        let next = self
            .extents
            .partition_point(|(offset, length)| offset + length <= at);
        match self.extents[next..].iter().find(|(_, length)| *length > 0) {
            Some((offset, length)) if *offset <= at => (offset + length - at, true),
            Some((offset, _)) => (offset - at, false),
            None => (self.size - at, false),
        }
    }
}

/// Returns what the records say; `None` where the file is not sparse.
///
/// # Errors
/// Says what is wrong, to follow upon the name of the entry.
pub(super) fn form(records: &Records) -> Result<Option<Form>, String> {
    let known = |name: &[u8]| records.sparse.get(name).map(Vec::as_slice);
    let number = |name: &str| -> Result<Option<u64>, String> {
        let damaged = || format!("whose PAX record `GNU.sparse.{name}` is damaged");
        let text = known(name.as_bytes());
        text.map(|text| digits(text).ok_or_else(damaged))
            .transpose()
    };
    if records.sparse.is_empty() && records.map.is_none() {
        return Ok(None);
    }
    let size = match (number("size")?, number("realsize")?) {
        (Some(a), Some(b)) if a != b => {
            return Err("which is sparse and has two sizes".to_owned());
        }
        (a, b) => a.or(b),
    };
    let size = size.ok_or("which is sparse and lacks its size")?;
    match (known(b"major"), known(b"minor"), &records.map) {
        (Some(b"1"), Some(b"0"), None) => Ok(Some(Form::Ahead(size))),
        (None, None, Some(numbers)) | (Some(b"0"), Some(b"0" | b"1"), Some(numbers)) => {
            let count = number("numblocks")?;
            let (pairs, rest) = numbers.as_chunks::<2>();
            if !rest.is_empty() || count != Some(pairs.len() as u64) {
                return Err("whose list of data has another length than it says".to_owned());
            }
            let extents = pairs.iter().map(|[offset, length]| (*offset, *length));
            Map::new(extents.collect(), size).map(|map| Some(Form::Known(map)))
        }
        _ => Err("which is sparse in a form that is not known".to_owned()),
    }
}

/// Reads the map that stands before the data (form 1.0): decimal lines, the number of pieces first, filled up to a block.
pub(super) struct Ahead {
    numbers: Vec<u64>,
    digits: Vec<u8>,
}

impl Ahead {
    pub(super) fn new() -> Self {
        Self {
            numbers: Vec::new(),
            digits: Vec::new(),
        }
    }

    /// Takes a block. True where the map is whole: what is left of the block fills it up.
    ///
    /// # Errors
    /// Says what is wrong, to follow upon the name of the entry.
    pub(super) fn take(&mut self, block: &[u8; BLOCK]) -> Result<bool, String> {
        for byte in block {
            if self.is_whole() {
                return Ok(true);
            }
            match byte {
                b'\n' => {
                    let number = digits(&self.digits);
                    self.numbers.push(number.ok_or_else(damaged)?);
                    self.digits.clear();
                }
                b'0'..=b'9' if self.digits.len() < 20 => self.digits.push(*byte),
                _ => return Err(damaged()),
            }
        }
        Ok(self.is_whole())
    }

    fn is_whole(&self) -> bool {
        let count = self.numbers.first();
        count.is_some_and(|count| {
            self.numbers.len() as u64 == count.saturating_mul(2).saturating_add(1)
        })
    }

    /// Returns the map of a file of `size` bytes.
    pub(super) fn finish(self, size: u64) -> Result<Map, String> {
        let (pairs, _) = self.numbers[1..].as_chunks::<2>();
        let extents = pairs.iter().map(|[offset, length]| (*offset, *length));
        Map::new(extents.collect(), size)
    }
}

fn damaged() -> String {
    "whose list of data is damaged".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_data_and_of_zeros() {
        let map = Map::new(vec![(2, 3), (5, 0), (5, 1), (8, 0)], 10).unwrap();
        assert_eq!(map.data(), 4);
        let mut at = 0;
        let mut runs = Vec::new();
        while at < map.size {
            let (count, is_data) = map.run(at);
            runs.push((at, count, is_data));
            at += count;
        }
        assert_eq!(
            runs,
            [(0, 2, false), (2, 3, true), (5, 1, true), (6, 4, false)]
        );
    }

    #[test]
    fn maps_that_no_file_has() {
        for extents in [
            vec![(0, 2), (1, 2)],
            vec![(3, 1), (0, 1)],
            vec![(8, 3)],
            vec![(u64::MAX, 2)],
        ] {
            assert!(Map::new(extents, 10).is_err());
        }
        assert!(Map::new(vec![(10, 0)], 10).is_ok());
    }

    #[test]
    fn a_map_ahead_ends_within_a_block() {
        let mut block = [0; BLOCK];
        block[..12].copy_from_slice(b"1\n512\n1024\nx");
        let mut ahead = Ahead::new();
        assert_eq!(ahead.take(&block), Ok(true));
        let map = ahead.finish(4096).unwrap();
        assert_eq!((map.extents, map.size), (vec![(512, 1024)], 4096));
        let mut none = Ahead::new();
        let mut block = [0; BLOCK];
        block[..2].copy_from_slice(b"0\n");
        assert_eq!(none.take(&block), Ok(true));
        assert_eq!(none.finish(7).unwrap().run(0), (7, false));
        assert!(Ahead::new().take(&[b'x'; BLOCK]).is_err());
        assert!(Ahead::new().take(&[b'1'; BLOCK]).is_err());
    }
}
