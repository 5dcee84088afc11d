//! Archives that several readers would read as several ones: each is refused.

use super::testing::*;
use super::zip_testing::{self, Entry, commented};

/// Where the directory of an archive without a comment begins, and its end.
fn places(archive: &[u8]) -> (usize, usize) {
    let end = archive.len() - 22;
    let offset: [u8; 4] = archive[end + 16..end + 20].try_into().unwrap();
    (u32::from_le_bytes(offset) as usize, end)
}

/// Changes the number of four bytes at a place.
fn add(archive: &mut [u8], at: usize, more: usize) {
    let old: [u8; 4] = archive[at..at + 4].try_into().unwrap();
    let new = u32::from_le_bytes(old) as usize + more;
    archive[at..at + 4].copy_from_slice(&(new as u32).to_le_bytes());
}

/// Puts bytes into an archive where its directory begins, and tells its end of it.
fn before_directory(archive: &[u8], more: &[u8]) -> Vec<u8> {
    let (start, end) = places(archive);
    let mut bytes = archive.to_vec();
    add(&mut bytes, end + 16, more.len());
    bytes.splice(start..start, more.iter().copied());
    bytes
}

#[test]
fn two_archives_in_a_row() {
    let text = |name: &str, text: &str| {
        with(|entries| {
            entries.push(Entry::new(format!("pkg/{name}.py"), text));
        })
    };
    let (first, second) = (text("evil", "import os"), text("good", "import re"));
    assert_eq!(first.len(), second.len());
    // The offsets of the last one are right from the start of the file, where the first one's members lie.
    refused(
        &[&first[..], &second].concat(),
        "its directory is not where",
    );
    refused(
        &[&second[..], &first].concat(),
        "its directory is not where",
    );
    // With offsets that count the first one, too.
    let mut moved = [&first[..], &second].concat();
    let (start, end) = places(&second);
    let by = first.len();
    add(&mut moved, by + end + 16, by);
    let mut at = by + start;
    while moved[at..].starts_with(b"PK\x01\x02") {
        add(&mut moved, at + 42, by);
        let name = u16::from_le_bytes([moved[at + 28], moved[at + 29]]);
        at += 46 + usize::from(name);
    }
    refused(&moved, "bytes stand before its first member");
    // One in the other's comment.
    refused(&commented(&first, &second), "it has two ends");
    let mut hidden = commented(&first, &second);
    let length = hidden.len();
    hidden.truncate(length - 22);
    refused(&hidden, "cut short");
    let head = &second[..second.len() - 22];
    refused(
        &commented(&first, head),
        "its comment holds a part of an archive",
    );
}

#[test]
fn bytes_that_belong_to_no_member() {
    let good = with(|_| {});
    for more in [&b"\0"[..], b"PK\x03\x04", &good[..good.len() - 22]] {
        refused(
            &before_directory(&good, more),
            "bytes stand behind `pkg-1.0.dist-info/RECORD` that belong to no member",
        );
        let (_, end) = places(&good);
        let mut behind = good.clone();
        behind.splice(end..end, more.iter().copied());
        refused(&behind, "its directory is not where its end says");
        // As a part of the directory.
        let mut counted = behind.clone();
        add(&mut counted, end + more.len() + 12, more.len());
        refused(&counted, "its directory holds more than the members");
        refused(
            &[more, &good].concat(),
            "its directory is not where its end says",
        );
    }
    let mut less = good.clone();
    let end = less.len() - 22;
    (less[end + 8], less[end + 10]) = (4, 4);
    refused(&less, "its directory holds more than the members");
    (less[end + 8], less[end + 10]) = (6, 6);
    refused(&less, "its directory holds fewer members");
    (less[end + 8], less[end + 10]) = (4, 5);
    refused(&less, "it is but one part of several");
}

#[test]
fn long_ends_that_disagree() {
    /// Puts a long end before the end: count, size, offset.
    fn long(archive: &[u8], change: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let (start, end) = places(archive);
        let mut record = b"PK\x06\x06".to_vec();
        record.extend(44u64.to_le_bytes());
        record.extend([45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        record.extend([5u64.to_le_bytes(), 5u64.to_le_bytes()].concat());
        record.extend(((end - start) as u64).to_le_bytes());
        record.extend((start as u64).to_le_bytes());
        record.extend(b"PK\x06\x07\0\0\0\0");
        record.extend((end as u64).to_le_bytes());
        record.extend(1u32.to_le_bytes());
        change(&mut record);
        let mut bytes = archive.to_vec();
        bytes.splice(end..end, record);
        bytes
    }
    let good = with(|_| {});
    right(&long(&good, |_| {}), &[]);
    // Where the end is full, the long one counts.
    let mut full = good.clone();
    let (start, end) = places(&good);
    full[end + 8..end + 20].fill(0xff);
    full.truncate(full.len() - 22);
    full.extend(long(&good, |_| {})[end..].iter().copied());
    let at = full.len() - 22;
    full[at + 8..at + 20].fill(0xff);
    right(&full, &[]);
    let changed = |at: usize, byte: u8| long(&good, |record| record[at] = byte);
    refused(&changed(4, 45), "its long end is not where it must be");
    refused(&changed(64, (end + 1) as u8), "its long end is not where");
    refused(&changed(32, 4), "it is but one part of several");
    refused(&changed(40, 1), "its two ends disagree");
    refused(&changed(48, (start + 1) as u8), "its two ends disagree");
    refused(&changed(72, 2), "it is but one part of several");
    refused(&changed(0, b'Q'), "its long end is not where it must be");
    // Without its locator it is nothing but bytes.
    refused(
        &changed(56, b'Q'),
        "its directory is not where its end says",
    );
}

#[test]
fn headers_that_disagree() {
    let change = |at: usize, byte: u8| {
        let mut bytes = with(|_| {});
        bytes[at] ^= byte;
        bytes
    };
    let local = "than before its bytes";
    refused(&change(6, 1), "other flags");
    refused(&change(6, 8), "other flags");
    refused(&change(7, 8), "other flags");
    refused(&change(8, 8), "or another method");
    for at in [14, 18, 22] {
        refused(&change(at, 1), "other sizes, or another CRC");
    }
    refused(&change(30, 1), "another name");
    refused(&change(30, 1), local);
    refused(&change(3, 1), "is not where its directory says");
    refused(&change(29, 0x70), "lies in what follows it");
}

#[test]
fn sizes_behind_the_bytes() {
    let streamed = |method| {
        plus(Entry {
            descriptor: true,
            method,
            ..Entry::new("pkg/x", "some text")
        })
    };
    right(&streamed(8), &[("/pkg/x", 0o644)]);
    refused(&streamed(0), "is stored, and its size stands behind it");
    let good = streamed(8);
    let at = good.windows(4).position(|it| it == b"PK\x07\x08").unwrap();
    for more in [0, 4, 8, 12] {
        let mut bytes = good.clone();
        bytes[at + more] ^= 1;
        refused(
            &bytes,
            "bytes stand behind `pkg/x` that belong to no member",
        );
    }
    // Without their signature they are right, too; and then nothing else may stand there.
    let cut = |count: usize| {
        let mut bytes = good.clone();
        bytes.drain(at..at + count);
        let (start, end) = places(&good);
        let back = 0usize.wrapping_sub(count);
        let mut entry = start - count;
        while bytes[entry..].starts_with(b"PK\x01\x02") {
            let offset: [u8; 4] = bytes[entry + 42..entry + 46].try_into().unwrap();
            if u32::from_le_bytes(offset) as usize > at {
                let new = u32::from_le_bytes(offset) - count as u32;
                bytes[entry + 42..entry + 46].copy_from_slice(&new.to_le_bytes());
            }
            let name = u16::from_le_bytes([bytes[entry + 28], bytes[entry + 29]]);
            entry += 46 + usize::from(name);
        }
        let offset = start.wrapping_add(back) as u32;
        bytes[end - count + 16..end - count + 20].copy_from_slice(&offset.to_le_bytes());
        bytes
    };
    right(&cut(4), &[("/pkg/x", 0o644)]);
    refused(&cut(16), "bytes stand behind `pkg/x`");
    refused(&cut(8), "bytes stand behind `pkg/x`");
}

#[test]
fn extra_fields_and_comments() {
    /// Gives the first entry of the directory an extra field or a comment.
    fn first(at: usize, more: &[u8]) -> Vec<u8> {
        let mut bytes = with(|_| {});
        let (start, end) = places(&bytes);
        let name = usize::from(u16::from_le_bytes([bytes[start + 28], bytes[start + 29]]));
        bytes[start + at] = more.len() as u8;
        add(&mut bytes, end + 12, more.len());
        let place = start + 46 + name;
        bytes.splice(place..place, more.iter().copied());
        bytes
    }
    const EXTRA: usize = 30;
    const COMMENT: usize = 32;
    right(&first(COMMENT, b"made by hand"), &[]);
    refused(
        &first(COMMENT, b"..PK\x05\x06\0\0"),
        "the comment of `pkg/__init__.py` holds a part of an archive",
    );
    // A time, as Info-ZIP writes it.
    right(&first(EXTRA, b"UT\x05\0\x01\0\0\0\0"), &[]);
    refused(&first(EXTRA, b"UT\x05\0\x01\0\0"), "are cut short");
    refused(&first(EXTRA, b"UT\x05"), "are cut short");
    refused(
        &first(EXTRA, b"zz\x04\0PK\x03\x04"),
        "hold a part of an archive",
    );
    let unicode = |name: &[u8]| {
        let mut field = b"up".to_vec();
        field.extend((5 + name.len() as u16).to_le_bytes());
        field.extend([1, 0, 0, 0, 0]);
        field.extend(name);
        field
    };
    right(&first(EXTRA, &unicode(b"pkg/__init__.py")), &[]);
    refused(
        &first(EXTRA, &unicode(b"pkg/evil.py")),
        "give it another name",
    );
    refused(&first(EXTRA, &unicode(b"")), "give it another name");
    let twice = [unicode(b"pkg/__init__.py"), unicode(b"pkg/__init__.py")].concat();
    refused(&first(EXTRA, &twice), "say one thing twice");
    // Long numbers of fields that are not full are passed over by some, and read by others.
    let long = |numbers: &[u64]| {
        let mut field = b"\x01\0".to_vec();
        field.extend((8 * numbers.len() as u16).to_le_bytes());
        field.extend(numbers.iter().flat_map(|it| it.to_le_bytes()));
        field
    };
    right(&first(EXTRA, &long(&[])), &[]);
    right(&first(EXTRA, &long(&[6])), &[]);
    refused(
        &first(EXTRA, &long(&[7])),
        "the sizes of `pkg/__init__.py` are in doubt",
    );
    refused(&first(EXTRA, &long(&[6, 1])), "are in doubt");
    refused(&first(EXTRA, &long(&[6, 8, 0, 0])), "are in doubt");
}

#[test]
fn members_that_lie_in_each_other() {
    let good = with(|_| {});
    let (start, _) = places(&good);
    let mut at = start;
    let mut bytes = good.clone();
    // The second member begins in the first one.
    let name = u16::from_le_bytes([bytes[at + 28], bytes[at + 29]]);
    at += 46 + usize::from(name);
    bytes[at + 42..at + 46].copy_from_slice(&4u32.to_le_bytes());
    refused(&bytes, "`pkg/__init__.py` lies in what follows it");
    // It begins behind the directory.
    bytes[at + 42..at + 46].copy_from_slice(&(start as u32 + 1).to_le_bytes());
    refused(&bytes, "lies in what follows it");
    bytes[at + 42..at + 46].fill(0xff);
    refused(&bytes, "the sizes of `pkg/data.bin` are in doubt");
    let folder = Entry {
        data: Vec::new(),
        ..moded("pkg/folder/", 0o040_755)
    };
    right(&plus(folder.clone()), &[]);
    // Not nothing, but as long.
    let folder = Entry {
        raw: Some(b"\x03\x01".to_vec()),
        ..folder
    };
    refused(&plus(folder), "`pkg/folder` in it is damaged");
    let patched = Entry {
        flags: 1 << 11 | 1 << 5,
        ..Entry::new("pkg/x", "x")
    };
    refused(
        &plus(patched),
        "`pkg/x` is packed in a way that is not known",
    );
}

#[test]
fn members_that_are_left_out_are_sound_as_well() {
    let left = |change: &dyn Fn(&mut Entry)| {
        let mut entry = Entry::new("pkg/__pycache__/x.pyc", vec![1; 40]);
        change(&mut entry);
        plus(entry)
    };
    right(&left(&|_| {}), &[]);
    refused(&left(&|it| it.crc = Some(1)), "its CRC");
    let hidden = |it: &mut Entry| {
        it.raw = Some([zip_testing::deflated(&it.data, 6), b"hidden".to_vec()].concat());
    };
    refused(&left(&hidden), "holds more bytes");
}

#[test]
fn metadata_that_is_not_what_the_index_gave() {
    use super::Expected;
    use crate::oci::Digest;
    let bytes = metadata("Name: pkg\nVersion: 1.0\nRequires-Dist: needed\n");
    let said = |text: &str| {
        let expected = Expected {
            metadata: Some(Digest::of(text.as_bytes())),
            ..expected()
        };
        install_as(&bytes, &scheme(), &expected)
    };
    said("Name: pkg\nVersion: 1.0\nRequires-Dist: needed\n").unwrap();
    let error = said("Name: pkg\nVersion: 1.0\n").unwrap_err();
    assert_eq!(error.code(), "imgdecl::wheel::metadata");
    let text = error.to_string();
    for digest in [
        "Name: pkg\nVersion: 1.0\n",
        "Name: pkg\nVersion: 1.0\nRequires-Dist: needed\n",
    ] {
        assert!(
            text.contains(&Digest::of(digest.as_bytes()).to_string()),
            "{text}"
        );
    }
}
