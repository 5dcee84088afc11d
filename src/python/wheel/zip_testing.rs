//! A little writer of zip archives for tests: it writes whatever it is told, right or wrong.

use std::io::Write;

use flate2::Crc;
use flate2::write::DeflateEncoder;

/// A member as it is to be written.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: Vec<u8>,
    /// The name in the local header, where it differs.
    pub(super) local_name: Option<Vec<u8>>,
    pub(super) data: Vec<u8>,
    /// The bytes in the archive, where they are not made from `data`.
    pub(super) raw: Option<Vec<u8>>,
    pub(super) method: u16,
    pub(super) mode: u32,
    pub(super) flags: u16,
    pub(super) crc: Option<u32>,
    pub(super) size: Option<u32>,
    pub(super) zip64: bool,
    /// Sizes and CRC follow the data.
    pub(super) descriptor: bool,
    /// Stands in the archive, but not in its directory.
    pub(super) hidden: bool,
    /// Has the same place as the member before it.
    pub(super) shares: bool,
}

impl Entry {
    pub(super) fn new(name: impl AsRef<[u8]>, data: impl AsRef<[u8]>) -> Self {
        Self {
            name: name.as_ref().to_vec(),
            local_name: None,
            data: data.as_ref().to_vec(),
            raw: None,
            method: 8,
            mode: 0o100_644,
            flags: 1 << 11,
            crc: None,
            size: None,
            zip64: false,
            descriptor: false,
            hidden: false,
            shares: false,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        if let Some(raw) = &self.raw {
            return raw.clone();
        }
        if self.method != 8 {
            return self.data.clone();
        }
        deflated(&self.data, 6)
    }
}

/// Deflates data at a level.
pub(super) fn deflated(data: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), flate2::Compression::new(level));
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// Writes an archive (APPNOTE 4.3).
pub(super) fn archive(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut directory = Vec::new();
    let mut count = 0u16;
    let mut before = 0;
    for entry in entries {
        let bytes = entry.bytes();
        let mut crc = Crc::new();
        crc.update(&entry.data);
        let crc = entry.crc.unwrap_or_else(|| crc.sum());
        let (size, packed) = (
            entry.size.unwrap_or(entry.data.len() as u32),
            bytes.len() as u32,
        );
        let flags = entry.flags | if entry.descriptor { 1 << 3 } else { 0 };
        let common = |out: &mut Vec<u8>, local: bool, name: &[u8]| {
            let nothing = local && entry.descriptor;
            let number = |it: u32| match (nothing, entry.zip64) {
                (true, _) => 0,
                (_, true) => u32::MAX,
                _ => it,
            };
            let version = if entry.zip64 { 45u16 } else { 20 };
            out.extend(version.to_le_bytes());
            out.extend(flags.to_le_bytes());
            out.extend(entry.method.to_le_bytes());
            out.extend([0, 0, 0x21, 0]); // 1980-01-01
            out.extend(if nothing { 0 } else { crc }.to_le_bytes());
            out.extend(number(packed).to_le_bytes());
            out.extend(number(size).to_le_bytes());
            out.extend((name.len() as u16).to_le_bytes());
            out.extend(if entry.zip64 { 20u16 } else { 0 }.to_le_bytes());
        };
        let extra = |out: &mut Vec<u8>| {
            if entry.zip64 {
                out.extend([1, 0, 16, 0]);
                out.extend(u64::from(size).to_le_bytes());
                out.extend(u64::from(packed).to_le_bytes());
            }
        };
        let start = if entry.shares { before } else { out.len() };
        before = start;
        if !entry.shares {
            let name = entry.local_name.as_ref().unwrap_or(&entry.name);
            out.extend(b"PK\x03\x04");
            common(&mut out, true, name);
            out.extend(name);
            extra(&mut out);
            out.extend(&bytes);
            if entry.descriptor {
                out.extend(b"PK\x07\x08");
                out.extend(crc.to_le_bytes());
                out.extend(packed.to_le_bytes());
                out.extend(size.to_le_bytes());
            }
        }
        if entry.hidden {
            continue;
        }
        count += 1;
        directory.extend(b"PK\x01\x02");
        directory.extend([45, 3]); // made by Unix
        common(&mut directory, false, &entry.name);
        directory.extend([0; 6]); // comment, disk, internal attributes
        directory.extend((entry.mode << 16).to_le_bytes());
        directory.extend((start as u32).to_le_bytes());
        directory.extend(&entry.name);
        extra(&mut directory);
    }
    let start = out.len() as u32;
    out.extend(&directory);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend(count.to_le_bytes());
    out.extend(count.to_le_bytes());
    out.extend((directory.len() as u32).to_le_bytes());
    out.extend(start.to_le_bytes());
    out.extend([0, 0]);
    out
}

/// Gives an archive that has no comment one (APPNOTE 4.3.16).
pub(super) fn commented(archive: &[u8], comment: &[u8]) -> Vec<u8> {
    let mut bytes = archive[..archive.len() - 2].to_vec();
    bytes.extend((comment.len() as u16).to_le_bytes());
    bytes.extend(comment);
    bytes
}
