//! The bytes of a blob on their way to a registry, from any place, and again: after a redirect, or for the next chunk.
//! Knows no request.

use std::io::{self, Read};

use super::error::RegistryError;

/// What opens the bytes anew, from their beginning.
pub(super) type Open<'a> = dyn Fn() -> Result<Box<dyn Read + Send + 'a>, RegistryError> + 'a;

/// Bytes that can be sent again.
pub(super) trait Rewind {
    /// Goes to a place: on from where it is, or from the beginning again. Whoever begins at zero gets a new reader, so that
    /// one that checks what it gives checks all of it.
    ///
    /// # Errors
    /// When the bytes cannot be opened. That they are too few is an error of the reading.
    fn from(&mut self, place: u64) -> Result<&mut dyn Read, RegistryError>;
}

/// Bytes that can be read again. What is read in order is opened once.
pub(super) struct UploadBody<'a> {
    open: &'a Open<'a>,
    reader: Option<Box<dyn Read + Send + 'a>>,
    /// Where the reader is.
    at: u64,
    /// Why it could not get there: the next reading says so.
    failed: Option<io::Error>,
}

impl<'a> UploadBody<'a> {
    pub(super) fn new(open: &'a Open<'a>) -> Self {
        Self {
            open,
            reader: None,
            at: 0,
            failed: None,
        }
    }
}

impl Rewind for UploadBody<'_> {
    fn from(&mut self, place: u64) -> Result<&mut dyn Read, RegistryError> {
        if self.reader.is_none() || self.at != place || place == 0 {
            let mut reader = (self.open)()?;
            let passed = io::copy(&mut reader.by_ref().take(place), &mut io::sink());
            self.failed = match passed {
                Ok(passed) if passed == place => None,
                Ok(_) => Some(io::ErrorKind::UnexpectedEof.into()),
                Err(error) => Some(error),
            };
            self.reader = Some(reader);
            self.at = place;
        }
        Ok(self)
    }
}

impl Read for UploadBody<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(error) = self.failed.take() {
            self.reader = None;
            return Err(error);
        }
        let Some(reader) = &mut self.reader else {
            return Ok(0);
        };
        let count = reader.read(buffer)?;
        self.at += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn bytes_are_opened_again_only_where_they_must_be() {
        let opened = Cell::new(0);
        let open = || {
            opened.set(opened.get() + 1);
            Ok(Box::new(&b"0123456789"[..]) as Box<dyn Read + Send>)
        };
        let mut body = UploadBody::new(&open);
        let mut read = |place, count: usize| {
            let mut bytes = vec![0; count];
            body.from(place).unwrap().read_exact(&mut bytes).unwrap();
            (String::from_utf8(bytes).unwrap(), opened.get())
        };
        assert_eq!(read(0, 4), ("0123".to_owned(), 1));
        assert_eq!(read(4, 4), ("4567".to_owned(), 1));
        assert_eq!(read(2, 4), ("2345".to_owned(), 2));
        assert_eq!(read(0, 1), ("0".to_owned(), 3));
        let mut byte = [0; 1];
        for place in [10, 11] {
            assert!(body.from(place).unwrap().read_exact(&mut byte).is_err());
        }
    }
}
