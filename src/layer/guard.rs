//! Keeps a tar reader from taking in headers of any size: the reader holds long names and PAX records in memory.

use std::io::{self, Read};

/// How large a long name or a block of PAX records may be, in bytes.
const MAX_HEADER: u64 = 1 << 20;
const BLOCK: usize = 512;

/// Passes a tar on, and fails at a header that is larger than any real one.
pub struct HeaderGuard<R> {
    inner: R,
    state: State,
    block: Vec<u8>,
    /// The size of the next entry, where PAX records give it.
    size: Option<u64>,
}

enum State {
    /// Before or in a header.
    Header,
    /// In a block that goes on an old GNU sparse header; then so many bytes of content follow.
    Sparse(u64),
    /// In content, with so many bytes to come; of PAX records, with those so far.
    Body(u64, Option<Vec<u8>>),
}

impl<R> HeaderGuard<R> {
    /// Guards a tar.
    pub fn new(inner: R) -> Self {
        Self {
            inner,
            state: State::Header,
            block: Vec::with_capacity(BLOCK),
            size: None,
        }
    }

    fn feed(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if let State::Body(left, records) = &mut self.state {
                let count = bytes
                    .len()
                    .min(usize::try_from(*left).unwrap_or(usize::MAX));
                let (now, later) = bytes.split_at(count);
                bytes = later;
                *left -= count as u64;
                if let Some(records) = records {
                    records.extend_from_slice(now);
                }
                if *left == 0 {
                    if let Some(records) = records {
                        self.size = pax_size(records).or(self.size);
                    }
                    self.state = State::Header;
                }
                continue;
            }
            let count = bytes.len().min(BLOCK - self.block.len());
            let (now, later) = bytes.split_at(count);
            bytes = later;
            self.block.extend_from_slice(now);
            if self.block.len() == BLOCK {
                let block = std::mem::take(&mut self.block);
                self.block(&block)?;
                self.block = block;
                self.block.clear();
            }
        }
        Ok(())
    }

    fn block(&mut self, block: &[u8]) -> io::Result<()> {
        let padded = |size: u64| size.div_ceil(BLOCK as u64).saturating_mul(BLOCK as u64);
        let body = |size: u64, records: Option<Vec<u8>>| match padded(size) {
            0 => State::Header,
            left => State::Body(left, records),
        };
        if let State::Sparse(size) = self.state {
            if block[504] == 0 {
                self.state = body(size, None);
            }
            return Ok(());
        }
        if block.iter().all(|&byte| byte == 0) {
            return Ok(());
        }
        let size = number(&block[124..136]);
        self.state = match block[156] {
            b'L' | b'K' | b'x' | b'g' if size > MAX_HEADER => {
                let message = format!("a header of {size} bytes: {MAX_HEADER} are the limit");
                return Err(io::Error::other(message));
            }
            b'x' => body(size, Some(Vec::new())),
            b'L' | b'K' | b'g' => body(size, None),
            b'S' if block[482] != 0 => State::Sparse(self.size.take().unwrap_or(size)),
            _ => body(self.size.take().unwrap_or(size), None),
        };
        Ok(())
    }
}

impl<R: Read> Read for HeaderGuard<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.feed(&buffer[..count])?;
        Ok(count)
    }
}

/// Reads a number field: octal digits, or GNU's binary form.
fn number(field: &[u8]) -> u64 {
    if field[0] & 0x80 != 0 {
        let low = &field[field.len() - 8..];
        return u64::from_be_bytes(low.try_into().expect("eight bytes"));
    }
    let digits = field.iter().skip_while(|&&byte| byte == b' ');
    let digits = digits.take_while(|byte| (b'0'..=b'7').contains(byte));
    digits.fold(0, |sum, byte| sum * 8 + u64::from(byte - b'0'))
}

/// Returns the last `size` among PAX records.
fn pax_size(records: &[u8]) -> Option<u64> {
    let mut found = None;
    let mut rest = records;
    while let Some(space) = rest.iter().position(|&byte| byte == b' ') {
        let length: usize = std::str::from_utf8(&rest[..space]).ok()?.parse().ok()?;
        let record = rest.get(space + 1..length)?;
        if let Some(value) = record.strip_prefix(b"size=") {
            found = std::str::from_utf8(value).ok()?.trim_end().parse().ok();
        }
        rest = &rest[length..];
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::plain_header;
    use super::*;

    fn header(path: &str, kind: u8, size: u64) -> Vec<u8> {
        let mut header = plain_header(path, size);
        header[156] = kind;
        header
    }

    fn pass(tar: &[u8], step: usize) -> io::Result<Vec<u8>> {
        let mut guard = HeaderGuard::new(tar);
        let (mut out, mut buffer) = (Vec::new(), vec![0; step]);
        loop {
            match guard.read(&mut buffer)? {
                0 => return Ok(out),
                count => out.extend_from_slice(&buffer[..count]),
            }
        }
    }

    #[test]
    fn passes_real_archives_and_refuses_large_headers() {
        let mut tar = header("long", b'L', 600);
        tar.extend([b'x'; 1024]);
        // What looks like a large header within content is none.
        tar.extend(header("file", b'0', 1024));
        tar.extend(header("fake", b'L', 1 << 30));
        tar.extend([0; 512]);
        // PAX gives the size of what follows.
        tar.extend(header("pax", b'x', 13));
        let mut records = b"13 size=1024\n".to_vec();
        records.resize(512, 0);
        tar.extend(records);
        tar.extend(header("sized", b'0', 0));
        tar.extend(header("fake", b'x', 1 << 30));
        tar.extend([0; 512]);
        tar.extend([0; 1024]);
        for step in [1, 7, 512, 100_000] {
            assert!(pass(&tar, step).unwrap() == tar, "{step}");
        }
        for kind in *b"LKxg" {
            let large = [tar.clone(), header("large", kind, (1 << 20) + 1)].concat();
            assert!(pass(&large, 1000).is_err());
        }
    }
}
