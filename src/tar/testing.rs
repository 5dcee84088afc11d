//! Tars for unit tests, header by header, so that they can be as odd as a test wants.

use super::BLOCK;

/// A header of ustar, whose fields can be changed before it is written.
#[derive(Clone)]
pub(crate) struct HeaderBlock(pub(crate) [u8; BLOCK]);

impl HeaderBlock {
    /// Makes a header: 0644 and 0:0, at 0.
    pub(crate) fn new(path: &str, flag: u8, size: u64) -> Self {
        let mut made = Self([0; BLOCK]);
        made.put(0, path.as_bytes());
        for at in [100, 108, 116] {
            made.put(at, b"0000000\0");
        }
        made.put(100, b"0000644\0");
        made.put(124, format!("{size:011o}\0").as_bytes());
        made.put(136, b"00000000000\0");
        made.put(257, b"ustar\x0000");
        made.0[156] = flag;
        made
    }

    /// Sets bytes.
    pub(crate) fn put(&mut self, at: usize, bytes: &[u8]) -> &mut Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// Sets the target of a link.
    pub(crate) fn link(mut self, target: &str) -> Self {
        self.put(157, target.as_bytes());
        self
    }

    /// Makes it a header of GNU tar.
    pub(crate) fn gnu(mut self) -> Self {
        self.put(257, b"ustar  \0");
        self
    }

    /// Makes it a header of V7.
    pub(crate) fn v7(mut self) -> Self {
        self.put(257, &[0; 8]);
        self
    }

    /// Returns the block, with its checksum.
    pub(crate) fn block(mut self) -> Vec<u8> {
        self.put(148, b"        ");
        let sum: u32 = self.0.iter().map(|byte| u32::from(*byte)).sum();
        self.put(148, format!("{sum:06o}\0 ").as_bytes());
        self.0.to_vec()
    }
}

/// Makes a header, and content that is filled up to a block.
pub(crate) fn entry(path: &str, flag: u8, content: &[u8]) -> Vec<u8> {
    with(
        HeaderBlock::new(path, flag, content.len() as u64).block(),
        content,
    )
}

/// Makes a symlink or a hard link.
pub(crate) fn link(path: &str, flag: u8, target: &str) -> Vec<u8> {
    HeaderBlock::new(path, flag, 0).link(target).block()
}

/// Puts content behind a header, and fills it up to a block.
pub(crate) fn with(header: Vec<u8>, content: &[u8]) -> Vec<u8> {
    let mut all = [&header[..], content].concat();
    all.resize(all.len().next_multiple_of(BLOCK), 0);
    all
}

/// Makes a PAX record.
pub(crate) fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

/// Makes a header of PAX records.
pub(crate) fn records(records: &[(&str, &[u8])]) -> Vec<u8> {
    let body: Vec<u8> = records
        .iter()
        .flat_map(|(key, value)| record(key.as_bytes(), value))
        .collect();
    entry("pax", b'x', &body)
}

/// Ends an archive.
pub(crate) fn end() -> Vec<u8> {
    vec![0; 2 * BLOCK]
}

/// Takes PAX records apart.
pub(crate) fn all_of(bytes: &[u8]) -> std::collections::BTreeMap<Vec<u8>, Vec<u8>> {
    let records = super::records::Records::parse(bytes);
    records.map(|records| records.all).unwrap_or_default()
}
