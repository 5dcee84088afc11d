//! ustar headers, and PAX headers for what ustar cannot hold (POSIX.1-2017, pax, "ustar Interchange Format").
//!
//! The one place that writes tar. `docs/format-1.md` gives every field.

use std::collections::BTreeMap;

use crate::tar::BLOCK;

/// The largest number that an 8-byte octal field holds.
const MAX_ID: u64 = 0o7_777_777;
/// The largest number that a 12-byte octal field holds: 8 GiB - 1.
const MAX_SIZE: u64 = 0o77_777_777_777;
/// The name of every PAX header block.
const PAX_NAME: &[u8] = b"././@PaxHeader";

/// Returns the header of a plain file (0644) or, with a `/` at the end of its path, of a folder (0755), as archives of
/// images have them.
pub fn plain_header(path: &str, size: u64) -> Vec<u8> {
    let (kind, mode) = if path.ends_with('/') {
        (b'5', 0o755)
    } else {
        (b'0', 0o644)
    };
    let mut out = Vec::new();
    Header {
        path: path.as_bytes(),
        kind,
        mode,
        size,
        ..Header::default()
    }
    .append(&mut out);
    out
}

/// What a header says.
#[derive(Default)]
pub(super) struct Header<'a> {
    /// The path; a folder's ends in `/`.
    pub(super) path: &'a [u8],
    /// The type flag: `0` file, `1` hard link, `2` symlink, `3` character device, `4` block device, `5` folder, `6` fifo.
    pub(super) kind: u8,
    pub(super) mode: u16,
    pub(super) uid: u64,
    pub(super) gid: u64,
    pub(super) size: u64,
    pub(super) mtime: i64,
    /// Nanoseconds after that.
    pub(super) nanos: u32,
    /// The target of a link, else empty.
    pub(super) link: &'a [u8],
    /// Major and minor number of a device.
    pub(super) device: (u32, u32),
    pub(super) xattrs: Option<&'a BTreeMap<String, Vec<u8>>>,
    /// PAX records as they are, of what was read from a tar.
    pub(super) records: Option<&'a BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl Header<'_> {
    /// Appends the header's blocks: a PAX header with its records where one is needed, then the ustar header.
    pub(super) fn append(&self, out: &mut Vec<u8>) {
        let mut records = self.records.cloned().unwrap_or_default();
        let split = split(self.path);
        if split.is_none() {
            records.insert(b"path".to_vec(), self.path.to_vec());
        }
        let link_fits = self.link.is_ascii() && self.link.len() <= 100;
        if !link_fits {
            records.insert(b"linkpath".to_vec(), self.link.to_vec());
        }
        for (key, value, limit) in [
            ("size", self.size, MAX_SIZE),
            ("uid", self.uid, MAX_ID),
            ("gid", self.gid, MAX_ID),
        ] {
            if value > limit {
                records.insert(key.as_bytes().to_vec(), value.to_string().into_bytes());
            }
        }
        let octal_time = u64::try_from(self.mtime).ok().filter(|it| *it <= MAX_SIZE);
        if octal_time.is_none() || self.nanos > 0 {
            // PAX alone holds times before 1970, far ones, and parts of a second.
            records.insert(b"mtime".to_vec(), time(self.mtime, self.nanos).into_bytes());
        }
        for (name, value) in self.xattrs.into_iter().flatten() {
            records.insert(format!("SCHILY.xattr.{name}").into_bytes(), value.clone());
        }
        if !records.is_empty() {
            let body: Vec<u8> = records
                .iter()
                .flat_map(|(key, value)| record(key, value))
                .collect();
            block(
                out,
                PAX_NAME,
                b"",
                b'x',
                0o644,
                [0, 0],
                body.len() as u64,
                0,
                b"",
                (0, 0),
            );
            out.extend_from_slice(&body);
            pad(out, body.len() as u64);
        }
        let fallback = plain(self.path);
        let (prefix, name) = split.unwrap_or((b"", &fallback));
        let link = if link_fits {
            self.link.to_vec()
        } else {
            plain(self.link)
        };
        let fit = |value, limit| if value > limit { 0 } else { value };
        block(
            out,
            name,
            prefix,
            self.kind,
            self.mode,
            [fit(self.uid, MAX_ID), fit(self.gid, MAX_ID)],
            fit(self.size, MAX_SIZE),
            octal_time.unwrap_or(0),
            &link,
            self.device,
        );
    }
}

/// Splits a path into ustar's prefix (at most 155 bytes) and name (at most 100): at the first slash that leaves a name
/// that fits. `None` if no slash does, or the path is not ASCII.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if !path.is_ascii() {
        return None;
    }
    if path.len() <= 100 {
        return Some((b"", path));
    }
    let from = path.len() - 101;
    let slashes = &path[from..path.len() - 1];
    let slash = from + slashes.iter().position(|byte| *byte == b'/')?;
    (slash > 0 && slash <= 155).then(|| (&path[..slash], &path[slash + 1..]))
}

/// The first 100 bytes, with `?` for each that is not ASCII: what the ustar field says when PAX says it right.
fn plain(text: &[u8]) -> Vec<u8> {
    let start = text.iter().copied().take(100);
    start
        .map(|byte| if byte.is_ascii() { byte } else { b'?' })
        .collect()
}

/// A time as PAX writes it: seconds, and a fraction where there is one.
fn time(seconds: i64, nanos: u32) -> String {
    let (sign, seconds, nanos) = match (seconds, nanos) {
        (seconds, 0) => return seconds.to_string(),
        (0.., nanos) => ("", seconds, nanos),
        (_, nanos) => ("-", -(seconds + 1), 1_000_000_000 - nanos),
    };
    let text = format!("{sign}{seconds}.{nanos:09}");
    text.trim_end_matches('0').to_owned()
}

/// A PAX record: its own length in decimal, a space, `key=value` and a newline.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

/// Appends zeros up to the end of the block, for content of `size` bytes.
pub(super) fn pad(out: &mut Vec<u8>, size: u64) {
    out.resize(out.len() + padding(size), 0);
}

/// Returns how many zeros follow content of `size` bytes.
pub(crate) fn padding(size: u64) -> usize {
    (BLOCK - (size % BLOCK as u64) as usize) % BLOCK
}

#[expect(
    clippy::too_many_arguments,
    reason = "the fields of one header, each named at its place below"
)]
fn block(
    out: &mut Vec<u8>,
    name: &[u8],
    prefix: &[u8],
    kind: u8,
    mode: u16,
    ids: [u64; 2],
    size: u64,
    mtime: u64,
    link: &[u8],
    device: (u32, u32),
) {
    let mut block = [0; BLOCK];
    let mut put =
        |offset: usize, bytes: &[u8]| block[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(0, name);
    put(100, format!("{mode:07o}").as_bytes());
    put(108, format!("{:07o}", ids[0]).as_bytes());
    put(116, format!("{:07o}", ids[1]).as_bytes());
    put(124, format!("{size:011o}").as_bytes());
    put(136, format!("{mtime:011o}").as_bytes());
    put(148, b"        ");
    put(156, &[kind]);
    put(157, link);
    put(257, b"ustar\x0000");
    put(329, format!("{:07o}", device.0).as_bytes());
    put(337, format!("{:07o}", device.1).as_bytes());
    put(345, prefix);
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    out.extend_from_slice(&block);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header<'a>(path: &'a str, size: u64) -> Header<'a> {
        Header {
            path: path.as_bytes(),
            kind: b'0',
            mode: 0o644,
            size,
            ..Header::default()
        }
    }

    fn bytes(header: &Header<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        header.append(&mut out);
        out
    }

    /// Reads the headers back with an independent reader: path, size, uid and mtime.
    fn read(bytes: &[u8]) -> (Vec<u8>, u64, u64, i64) {
        use tar_core::parse::{ParseEvent, Parser};
        let mut parser = Parser::with_defaults();
        // It takes no time before 1970.
        parser.set_ignore_pax_errors(true);
        let event = parser.parse(bytes);
        let Ok(ParseEvent::Entry { consumed, entry }) = event else {
            panic!("{event:?}");
        };
        assert_eq!(consumed, bytes.len());
        let records = entry.pax.unwrap_or_default();
        let records = crate::tar::testing::all_of(records);
        let mtime = records.get(&b"mtime"[..]).map(|text| {
            let text = std::str::from_utf8(text).unwrap();
            text.parse().unwrap()
        });
        let mtime = mtime.unwrap_or_else(|| entry.mtime.cast_signed());
        (entry.path.to_vec(), entry.size, entry.uid, mtime)
    }

    #[test]
    fn paths_take_ustar_where_it_holds_them() {
        let component = |n: usize| "x".repeat(n);
        for (path, blocks) in [
            (component(99), 1),
            (component(100), 1),
            (component(101), 3),
            (format!("{}/{}", component(155), component(100)), 1),
            (format!("{}/{}", component(156), component(100)), 3),
            (format!("{}/{}", component(155), component(101)), 3),
            (
                format!("{}/{}/{}", component(99), component(55), component(100)),
                1,
            ),
            (
                format!("{}/{}/{}", component(100), component(54), component(99)),
                1,
            ),
            (
                format!("{}/{}/{}", component(100), component(55), component(99)),
                3,
            ),
            (
                format!("{}/{}/{}", component(100), component(100), component(53)),
                3,
            ),
            (format!("{}é", component(10)), 3),
        ] {
            let out = bytes(&header(&path, 0));
            assert_eq!(out.len(), blocks * BLOCK, "{} bytes: {path}", path.len());
            assert_eq!(read(&out).0, path.as_bytes());
        }
    }

    #[test]
    fn a_folder_never_splits_at_its_last_slash() {
        for length in [99, 100, 101, 154] {
            let path = format!("{}/", "x".repeat(length));
            let out = bytes(&Header {
                kind: b'5',
                ..header(&path, 0)
            });
            assert_eq!(read(&out).0, path.as_bytes());
            assert_eq!(out.len(), if length == 99 { BLOCK } else { 3 * BLOCK });
        }
    }

    #[test]
    fn sizes_of_8_gib_and_more_need_pax() {
        let limit = 8 << 30;
        assert_eq!(bytes(&header("a", limit - 1)).len(), BLOCK);
        let out = bytes(&header("a", 9 << 30));
        assert_eq!(out.len(), 3 * BLOCK);
        assert_eq!(&out[BLOCK..BLOCK + 19], b"19 size=9663676416\n");
        assert_eq!(&out[2 * BLOCK + 124..2 * BLOCK + 136], b"00000000000\0");
        assert_eq!(read(&out).1, 9 << 30);
        assert_eq!(bytes(&header("a", limit)).len(), 3 * BLOCK);
    }

    #[test]
    fn large_ids_need_pax() {
        let with = |uid| {
            bytes(&Header {
                uid,
                ..header("a", 0)
            })
        };
        assert_eq!(with(2_097_151).len(), BLOCK);
        assert_eq!(with(2_097_152).len(), 3 * BLOCK);
        assert_eq!(read(&with(4_000_000_000)).2, 4_000_000_000);
    }

    #[test]
    fn times_that_octal_cannot_hold_need_pax() {
        let with = |mtime| {
            bytes(&Header {
                mtime,
                ..header("a", 0)
            })
        };
        for (mtime, blocks) in [
            (0, 1),
            (8_589_934_591, 1),
            (8_589_934_592, 3),
            (-1, 3),
            (-100, 3),
        ] {
            let out = with(mtime);
            assert_eq!((out.len(), read(&out).3), (blocks * BLOCK, mtime));
        }
        assert_eq!(&with(-100)[BLOCK..BLOCK + 14], b"14 mtime=-100\n");
        for (seconds, nanos, expected) in [
            (7, 0, "7"),
            (7, 250_000_000, "7.25"),
            (0, 1, "0.000000001"),
            (-1, 500_000_000, "-0.5"),
            (-3, 900_000_000, "-2.1"),
        ] {
            assert_eq!(time(seconds, nanos), expected);
        }
    }

    #[test]
    fn record_lengths_count_themselves() {
        assert_eq!(record(b"path", b"x"), b"9 path=x\n");
        assert_eq!(record(b"path", b"xy"), b"11 path=xy\n");
        for length in 80..120 {
            let record = record(b"path", &vec![b'x'; length]);
            let written: usize = std::str::from_utf8(&record)
                .unwrap()
                .split(' ')
                .next()
                .unwrap()
                .parse()
                .unwrap();
            assert_eq!(written, record.len());
        }
    }

    #[test]
    fn records_are_sorted() {
        let xattrs = BTreeMap::from([
            ("user.b".to_owned(), b"\0\n".to_vec()),
            ("user.a".to_owned(), vec![]),
        ]);
        let out = bytes(&Header {
            xattrs: Some(&xattrs),
            uid: 1 << 31,
            ..header(&"é".repeat(3), 0)
        });
        let text = String::from_utf8_lossy(&out[BLOCK..2 * BLOCK]);
        let order: Vec<usize> = [
            "SCHILY.xattr.user.a",
            "SCHILY.xattr.user.b",
            "path=",
            "uid=",
        ]
        .iter()
        .map(|key| text.find(key).unwrap())
        .collect();
        assert!(order.is_sorted(), "{text}");
    }
}
