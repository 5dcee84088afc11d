//! Writes odd archives: sound wheels with a few things that are not as they should be.

use std::io::Write;

use flate2::write::DeflateEncoder;
use flate2::{Compression, Crc};

use crate::support::Random;

/// A member, with what the directory says of it and what its local header does.
#[derive(Clone, Default)]
struct Member {
    name: Vec<u8>,
    data: Vec<u8>,
    method: u16,
    flags: u16,
    mode: u32,
    dos: u32,
    version: u16,
    extra: Vec<u8>,
    comment: Vec<u8>,
    /// The numbers are long: in the directory, in the local header.
    long: [bool; 2],
    /// What stands behind the bytes: the sizes in this form.
    descriptor: Option<Form>,
    /// What follows it.
    gap: Vec<u8>,
    /// What follows its deflated bytes, as a part of them.
    tail: Vec<u8>,
    local: Local,
    /// How much further than it is the directory says it is.
    shift: i64,
    is_hidden: bool,
}

/// What the local header says otherwise.
#[derive(Clone, Default)]
struct Local {
    name: Option<Vec<u8>>,
    extra: Vec<u8>,
    flags: u16,
    method: u16,
    crc: u32,
    size: u32,
    packed: u32,
}

#[derive(Clone, Copy)]
enum Form {
    Plain,
    Signed,
    SignedLong,
    Wrong,
}

#[derive(Default)]
struct Archive {
    prefix: Vec<u8>,
    /// Whether offsets count the prefix.
    is_prefix_counted: bool,
    members: Vec<Member>,
    /// What stands behind the directory, and how much of that counts as a part of it.
    behind: Vec<u8>,
    counted: usize,
    long_end: Option<[u64; 3]>,
    is_end_full: bool,
    /// What the end says too much: members, bytes of the directory, where it is; the number of its disk.
    more: [i64; 3],
    disk: u16,
    comment: Vec<u8>,
    suffix: Vec<u8>,
}

fn text(name: &str, data: &[u8]) -> Member {
    Member {
        name: name.as_bytes().to_vec(),
        data: data.to_vec(),
        method: 8,
        flags: 1 << 11,
        mode: 0o100_644,
        version: 20,
        ..Member::default()
    }
}

/// Makes an archive: a wheel, with up to three odd things about it.
pub(super) fn archive(random: &mut Random) -> Vec<u8> {
    let length = random.below(300) as usize;
    let mut archive = Archive {
        members: vec![
            text("pkg/__init__.py", b"version = 1\n"),
            text("pkg/data.bin", &random.bytes(length)),
            text(
                "pkg-1.0.dist-info/METADATA",
                b"Metadata-Version: 2.1\nName: pkg\nVersion: 1.0\n",
            ),
            text(
                "pkg-1.0.dist-info/WHEEL",
                b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\n",
            ),
            text("pkg-1.0.dist-info/RECORD", b""),
        ],
        ..Archive::default()
    };
    for _ in 0..random.below(4) {
        let count = archive.members.len() as u64;
        let at = random.below(count) as usize;
        match random.below(5) {
            0 | 1 => fair(&mut archive.members[at], random),
            2 | 3 => foul(&mut archive, at, random),
            _ => frame(&mut archive, random),
        }
    }
    let mut bytes = archive.write();
    // Damage that nobody thought of.
    if random.below(5) == 0 {
        for _ in 0..=random.below(2) {
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << random.below(8);
        }
    }
    bytes
}

/// Something that is odd, and right.
fn fair(member: &mut Member, random: &mut Random) {
    match random.below(9) {
        0 => member.method = 0,
        1 => {
            member.flags |= 8;
            member.descriptor = Some([Form::Plain, Form::Signed][random.below(2) as usize]);
        }
        2 => member.long = [random.below(2) == 0, true],
        3 => member.long[0] = true,
        4 => member.comment = b"made by hand".to_vec(),
        5 => member.extra = b"UT\x05\0\x01\0\0\0\0".to_vec(),
        6 => member.local.extra = b"UT\x05\0\x01\0\0\0\0".to_vec(),
        7 => {
            member.flags |= 8;
            (member.long[1], member.descriptor) = (true, Some(Form::SignedLong));
        }
        _ => member.name = "pkg/ä ö.py".as_bytes().to_vec(),
    }
}

/// Something about a member that readers could differ in.
fn foul(archive: &mut Archive, at: usize, random: &mut Random) {
    let member = &mut archive.members[at];
    match random.below(37) {
        0 => member.local.name = Some(b"pkg/other.py".to_vec()),
        1 => member.local.flags = [1, 8, 1 << 5, 1 << 11][random.below(4) as usize],
        2 => member.local.method = 8,
        3 => member.local.crc = 1,
        4 => member.local.size = 1,
        5 => member.local.packed = 1,
        6 => member.gap = random.bytes(9),
        7 => member.gap = b"PK\x03\x04".to_vec(),
        8 => member.is_hidden = true,
        9 => {
            let twin = member.clone();
            archive.members.push(twin);
        }
        10 => {
            let mut twin = member.clone();
            twin.data = b"other".to_vec();
            archive.members.insert(at, twin);
        }
        11 => member.tail = random.bytes(5),
        12 => {
            (member.method, member.flags) = (0, member.flags | 8);
            member.descriptor = Some(Form::Signed);
        }
        13 => {
            member.flags |= 8;
            member.descriptor = Some(Form::Wrong);
        }
        14 => member.name = "pkg/ü.py".as_bytes().to_vec(),
        15 => (member.name, member.flags) = ("pkg/ü.py".as_bytes().to_vec(), 0),
        16 => (member.name, member.flags) = (b"pkg/\xff.py".to_vec(), 0),
        17 => {
            let names: [&[u8]; 7] = [
                b"./pkg/x",
                b"pkg//x",
                b"pkg/../x",
                b"/x",
                b"pkg\\x",
                b"pkg/x\0y",
                b"pkg/.wh.x",
            ];
            member.name = names[random.below(7) as usize].to_vec();
        }
        18 => member.mode = [0o120_777, 0o020_644, 0o040_755][random.below(3) as usize],
        19 => (member.mode, member.dos) = (0, 0x10),
        20 => (member.name, member.mode) = (b"pkg/folder/".to_vec(), 0o040_755),
        21 => {
            let folder = Member {
                mode: [0o040_755, 0o100_644][random.below(2) as usize],
                method: [0, 8][random.below(2) as usize],
                ..text("pkg/folder/", b"")
            };
            archive.members.insert(at, folder);
        }
        22 => (member.method, member.data) = (12, bzip2().to_vec()),
        23 => member.flags |= [1, 1 << 5, 1 << 6, 1 << 13][random.below(4) as usize],
        24 => member.version = 64,
        25 => member.comment = b"..PK\x05\x06..".to_vec(),
        26 => member.extra = b"zz\x04\0PK\x03\x04".to_vec(),
        27 => member.extra = b"zz\x04\0PK".to_vec(),
        28 => member.extra = b"zz\0".to_vec(),
        29 => member.extra = unicode(b"pkg/evil.py"),
        30 => member.extra = [unicode(&member.name), unicode(&member.name)].concat(),
        31 => member.extra = [&[1, 0, 8, 0][..], &random.next().to_le_bytes()].concat(),
        32 => member.shift = random.below(40) as i64 - 20,
        33 => member.mode = 0o010_644,
        34 => member.local.extra = unicode(b"pkg/evil.py"),
        35 => member.flags |= 1 << (4 + random.below(12)),
        _ => {
            let mut twin = member.clone();
            (twin.is_hidden, twin.data) = (true, b"hidden".to_vec());
            archive.members.insert(at, twin);
        }
    }
}

/// Something about the archive as a whole.
fn frame(archive: &mut Archive, random: &mut Random) {
    let other = || {
        let mut evil = Archive::default();
        evil.members.push(text("pkg/evil.py", b"import os\n"));
        evil.write()
    };
    match random.below(19) {
        0 => archive.prefix = b"#!/bin/sh\n".to_vec(),
        1 => (archive.prefix, archive.is_prefix_counted) = (other(), true),
        2 => archive.prefix = other(),
        3 => archive.suffix = random.bytes(7),
        4 => archive.suffix = other(),
        5 => archive.comment = b"made by hand".to_vec(),
        6 => archive.comment = other(),
        7 => archive.comment = b"PK\x03\x04 is a signature".to_vec(),
        8 => archive.behind = random.bytes(9),
        9 => (archive.behind, archive.counted) = (b"PK\x05\x05\x02\0zz".to_vec(), 8),
        10 => archive.more[0] = random.below(5) as i64 - 2,
        11 => archive.more[1] = random.below(9) as i64 - 4,
        12 => archive.more[2] = random.below(9) as i64 - 4,
        13 => archive.disk = 1,
        14 => archive.long_end = Some([0; 3]),
        15 => (archive.long_end, archive.is_end_full) = (Some([0; 3]), true),
        16 => archive.long_end = Some([random.below(2), random.below(2), random.below(2)]),
        17 => {
            archive.long_end = Some([0; 3]);
            archive.more[0] = 1;
        }
        _ => {
            // A long end that is longer than it need be.
            archive.long_end = Some([u64::MAX; 3]);
        }
    }
}

/// A Unicode path (APPNOTE 4.6.9), without the CRC of the plain one.
fn unicode(name: &[u8]) -> Vec<u8> {
    let mut field = b"up".to_vec();
    field.extend((5 + name.len() as u16).to_le_bytes());
    field.push(1);
    field.extend(crc(name).to_le_bytes());
    field.extend(name);
    field
}

fn crc(data: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(data);
    crc.sum()
}

/// Nothing, as bzip2 packs it.
fn bzip2() -> &'static [u8] {
    b"BZh9\x17\x72\x45\x38\x50\x90\0\0\0\0"
}

impl Archive {
    fn write(&self) -> Vec<u8> {
        let mut out = self.prefix.clone();
        let base = if self.is_prefix_counted {
            0
        } else {
            self.prefix.len()
        };
        let (mut listing, mut count) = (Vec::new(), 0i64);
        for member in &self.members {
            let offset = out.len() - base;
            let entry = member.write(&mut out, offset as i64 + member.shift);
            if !member.is_hidden {
                listing.extend(entry);
                count += 1;
            }
        }
        let start = (out.len() - base) as i64;
        out.extend(&listing);
        let size = (listing.len() + self.counted) as i64;
        out.extend(&self.behind);
        let numbers = [count, size, start];
        let at = out.len();
        if let Some(more) = self.long_end {
            let is_longer = more == [u64::MAX; 3];
            let long = |at: usize| {
                let more = if is_longer { 0 } else { more[at] };
                (numbers[at] as u64 + more).to_le_bytes()
            };
            out.extend(b"PK\x06\x06");
            out.extend((if is_longer { 52u64 } else { 44 }).to_le_bytes());
            out.extend([45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            out.extend([long(0), long(0), long(1), long(2)].concat());
            out.extend(if is_longer { &b"extended"[..] } else { &[] });
            out.extend(b"PK\x06\x07\0\0\0\0");
            out.extend((at as u64).to_le_bytes());
            out.extend(1u32.to_le_bytes());
        }
        let said = |at: usize| (numbers[at] + self.more[at]) as u32;
        out.extend(b"PK\x05\x06");
        out.extend([self.disk.to_le_bytes(), self.disk.to_le_bytes()].concat());
        let count = if self.is_end_full {
            0xffff
        } else {
            said(0) as u16
        };
        out.extend([count.to_le_bytes(), count.to_le_bytes()].concat());
        for at in [1, 2] {
            let number = if self.is_end_full { u32::MAX } else { said(at) };
            out.extend(number.to_le_bytes());
        }
        out.extend((self.comment.len() as u16).to_le_bytes());
        out.extend(&self.comment);
        out.extend(&self.suffix);
        out
    }
}

impl Member {
    /// Writes the member; returns its entry of the directory.
    fn write(&self, out: &mut Vec<u8>, offset: i64) -> Vec<u8> {
        let mut packed = match self.method {
            8 => {
                let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(&self.data).expect("memory");
                encoder.finish().expect("memory")
            }
            _ => self.data.clone(),
        };
        packed.extend(&self.tail);
        let data = if self.method == 12 {
            &[][..]
        } else {
            &self.data
        };
        let numbers = [crc(data), packed.len() as u32, data.len() as u32];
        let header = |local: bool, out: &mut Vec<u8>| {
            let Local {
                flags,
                method,
                crc,
                size,
                packed,
                ..
            } = if local {
                self.local.clone()
            } else {
                Local::default()
            };
            let nothing = local && self.descriptor.is_some();
            let is_long = self.long[usize::from(local)];
            let name = self.local.name.as_ref().filter(|_| local);
            let name = name.unwrap_or(&self.name);
            let mut extra = if local {
                self.local.extra.clone()
            } else {
                self.extra.clone()
            };
            let full = numbers.map(|it| if nothing { 0 } else { it });
            if is_long {
                extra.extend([1, 0, 16, 0]);
                extra.extend(u64::from(full[2]).to_le_bytes());
                extra.extend(u64::from(full[1]).to_le_bytes());
            }
            let short = |number: u32| if is_long { u32::MAX } else { number };
            out.extend(self.version.to_le_bytes());
            out.extend((self.flags ^ flags).to_le_bytes());
            out.extend((self.method ^ method).to_le_bytes());
            out.extend([0, 0, 0x21, 0]);
            out.extend((full[0] ^ crc).to_le_bytes());
            out.extend(short(full[1] ^ packed).to_le_bytes());
            out.extend(short(full[2] ^ size).to_le_bytes());
            out.extend((name.len() as u16).to_le_bytes());
            out.extend((extra.len() as u16).to_le_bytes());
            (name.clone(), extra)
        };
        out.extend(b"PK\x03\x04");
        let (name, extra) = header(true, out);
        out.extend([name, extra, packed].concat());
        if let Some(form) = self.descriptor {
            let is_signed = !matches!(form, Form::Plain);
            out.extend(if is_signed { &b"PK\x07\x08"[..] } else { &[] });
            let wrong = u32::from(matches!(form, Form::Wrong));
            out.extend(numbers[0].to_le_bytes());
            for number in [numbers[1], numbers[2] + wrong] {
                match form {
                    Form::SignedLong => out.extend(u64::from(number).to_le_bytes()),
                    _ => out.extend(number.to_le_bytes()),
                }
            }
        }
        out.extend(&self.gap);
        let mut entry = b"PK\x01\x02\x2d\x03".to_vec();
        let (name, extra) = header(false, &mut entry);
        entry.extend((self.comment.len() as u16).to_le_bytes());
        entry.extend([0; 4]);
        entry.extend((self.mode << 16 | self.dos).to_le_bytes());
        entry.extend((offset as u32).to_le_bytes());
        entry.extend([name, extra, self.comment.clone()].concat());
        entry
    }
}
