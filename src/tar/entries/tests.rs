//! What headers mean, one by one. tests/tars.rs compares with other readers.

use super::super::testing::{HeaderBlock, end, entry, link, records, with};
use super::*;

/// Reads all entries, with their contents.
fn read(tar: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, TarError> {
    let mut entries = Entries::new(tar);
    let mut found = Vec::new();
    while let Some(entry) = entries.next_entry()? {
        let mut content = Vec::new();
        entries.read_to_end(&mut content)?;
        assert_eq!(content.len() as u64, entry.size);
        found.push((entry, content));
    }
    Ok(found)
}

/// Returns paths and kinds.
fn names(tar: &[u8]) -> Vec<(String, Kind)> {
    let name = |(entry, _): &(Entry, _)| {
        let path = String::from_utf8_lossy(&entry.path).into_owned();
        (path, entry.kind)
    };
    read(tar).unwrap().iter().map(name).collect()
}

fn file() -> Vec<u8> {
    entry("f", b'0', b"")
}

fn why(tar: &[u8]) -> String {
    match read(tar) {
        Err(TarError::Refused { why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn names_sizes_and_attributes_of_records() {
    let value = b"a\n20 path=elsewhere\n\0\xff";
    let tar = [
        records(&[
            ("SCHILY.xattr.user.x", value),
            ("path", "é/x".as_bytes()),
            ("size", b"3"),
            ("mtime", b"-1.25"),
            ("uid", b"3000000000"),
            ("uname", "jö".as_bytes()),
        ]),
        with(HeaderBlock::new("short", b'0', 0).block(), b"abc"),
        entry("long", b'L', b"a/b\0"),
        entry("g", b'g', b"junk"),
        HeaderBlock::new("short", b'5', 0).block(),
        end(),
        b"anything".to_vec(),
    ]
    .concat();
    let entries = read(&tar).unwrap();
    let [(first, content), (second, _)] = &entries[..] else {
        panic!("{entries:?}");
    };
    assert_eq!(
        (&first.path[..], &content[..]),
        ("é/x".as_bytes(), &b"abc"[..])
    );
    assert_eq!((first.uid, first.mtime), (3_000_000_000, (-2, 750_000_000)));
    assert_eq!(first.user, "jö".as_bytes());
    let attributes: Vec<_> = first.attributes().collect();
    assert_eq!(attributes, [(&b"user.x"[..], &value[..])]);
    assert_eq!(first.offset, 3 * BLOCK as u64);
    assert_eq!((&second.path[..], second.kind), (&b"a/b"[..], Kind::Folder));
}

#[test]
fn a_size_means_nothing_where_no_content_is() {
    for flag in *b"123456" {
        let tar = [HeaderBlock::new("x", flag, 1024).block(), file(), end()].concat();
        assert_eq!(names(&tar).len(), 2, "{}", char::from(flag));
        let tar = [
            records(&[("size", b"512")]),
            HeaderBlock::new("x", flag, 0).block(),
            file(),
        ];
        assert_eq!(names(&tar.concat()).len(), 2, "{}", char::from(flag));
    }
}

#[test]
fn folders_of_v7() {
    for flag in [0, b'0', b'7'] {
        let tar = [HeaderBlock::new("d/", flag, 0).v7().block(), file()].concat();
        assert_eq!(names(&tar)[0], ("d/".to_owned(), Kind::Folder));
        assert!(why(&entry("d/", flag, b"x")).contains("content"));
    }
    // A symlink may have such a name: it is none to a folder.
    assert_eq!(names(&link("l/", b'2', "x"))[0].1, Kind::Symlink);
}

#[test]
fn the_last_of_several_headers_counts() {
    let tar = [
        entry("l", b'L', b"first\0"),
        entry("l", b'L', b"second\0more\0"),
        entry("k", b'K', b"to\0"),
        link("x", b'2', "y"),
        records(&[("path", b"first"), ("comment", b"1")]),
        records(&[("path", b"third")]),
        file(),
    ]
    .concat();
    let entries = read(&tar).unwrap();
    assert_eq!(entries[0].0.path, b"second");
    assert_eq!(entries[0].0.link.as_deref(), Some(&b"to"[..]));
    assert_eq!(entries[1].0.path, b"third");
    assert!(entries[1].0.records.is_empty());
    // One that gives another size would move the end of the content.
    for other in [&[("size", &b"512"[..])][..], &[]] {
        let tar = [records(&[("size", b"0")]), records(other), file()].concat();
        assert!(why(&tar).contains("two sizes"));
    }
}

#[test]
fn names_of_gnu_and_of_pax_must_agree() {
    let both = |gnu: &[u8]| [entry("l", b'L', gnu), records(&[("path", b"same")]), file()].concat();
    assert_eq!(names(&both(b"same\0"))[0].0, "same");
    assert!(why(&both(b"other\0")).contains("two names"));
    let links = [
        entry("k", b'K', b"a\0"),
        records(&[("linkpath", b"b")]),
        link("l", b'2', "c"),
    ];
    assert!(why(&links.concat()).contains("two names"));
}

#[test]
fn a_prefix_that_go_alone_reads_is_refused() {
    let mut header = HeaderBlock::new("f", b'0', 0).gnu();
    header.put(345, b"00000000001 00000000002 ");
    assert_eq!(names(&header.clone().block())[0].0, "f");
    header.put(345, b"folder\0\0\0\0\0\0");
    assert!(why(&header.clone().block()).contains("prefix"));
    // The name counts that stands before it.
    let tar = [entry("l", b'L', b"long\0"), header.block()].concat();
    assert_eq!(names(&tar)[0].0, "long");
}

#[test]
fn labels_are_passed_over_and_types_of_one_tool_refused() {
    let tar = [
        HeaderBlock::new("label", b'V', 0).gnu().block(),
        file(),
        end(),
    ]
    .concat();
    assert_eq!(names(&tar).len(), 1);
    for flag in *b"XMND" {
        assert!(why(&entry("x", flag, b"")).contains("type"), "{flag}");
    }
    let tar = [entry("x", b'Z', b"abc"), file()].concat();
    assert_eq!(names(&tar)[0].1, Kind::Other(b'Z'));
    assert_eq!(read(&tar).unwrap()[0].1, b"abc");
}

#[test]
fn global_records_are_passed_over_and_named() {
    let global = |records: &[u8]| entry("g", b'g', records);
    let tar = [
        global(b"52 comment=0123456789012345678901234567890123456789\n"),
        file(),
    ]
    .concat();
    let mut entries = Entries::new(&tar[..]);
    while entries.next_entry().unwrap().is_some() {}
    assert_eq!(entries.globals().count(), 0);
    let tar = [global(b"11 path=xy\n"), file()].concat();
    let mut entries = Entries::new(&tar[..]);
    assert_eq!(entries.next_entry().unwrap().unwrap().path, b"f");
    assert_eq!(entries.globals().collect::<Vec<_>>(), [b"path"]);
}

#[test]
fn sparse_files_of_old_gnu() {
    let mut header = HeaderBlock::new("s", b'S', 4).gnu();
    // Two pieces: "ab" at 1, "cd" at 1000.
    for (at, offset) in [(386, 1u32), (410, 1000)] {
        header.put(at, format!("{offset:011o}\0").as_bytes());
        header.put(at + 12, format!("{:011o}\0", 2).as_bytes());
    }
    header.put(483, format!("{:011o}\0", 1100).as_bytes());
    let tar = [with(header.clone().block(), b"abcd"), file()].concat();
    let entries = read(&tar).unwrap();
    let (first, content) = &entries[0];
    assert_eq!((first.size, first.holes, entries.len()), (1100, 1096, 2));
    assert_eq!(
        (&content[1..3], &content[1000..1002]),
        (&b"ab"[..], &b"cd"[..])
    );
    assert_eq!(content.iter().filter(|byte| **byte != 0).count(), 4);
    // A list that has an offset and no length, or that does not fit the size.
    let mut odd = header.clone();
    odd.put(434, b"00000000010\0");
    assert!(read(&with(odd.block(), b"abcd")).is_err());
    let mut odd = header;
    odd.put(124, b"00000000003\0");
    assert!(why(&with(odd.block(), b"abc")).contains("fit"));
}

#[test]
fn sparse_files_of_pax() {
    let sizes: [(&str, &[u8]); 3] = [
        ("GNU.sparse.name", b"real"),
        ("GNU.sparse.size", b"10"),
        ("GNU.sparse.numblocks", b"1"),
    ];
    let form_00 = [
        &sizes[..],
        &[("GNU.sparse.offset", b"3"), ("GNU.sparse.numbytes", b"2")],
    ];
    let form_01 = [&sizes[..], &[("GNU.sparse.map", &b"3,2"[..])]];
    for form in [form_00.concat(), form_01.concat()] {
        let tar = [
            records(&form),
            entry("GNUSparseFile.1/real", b'0', b"ab"),
            file(),
        ]
        .concat();
        let entries = read(&tar).unwrap();
        assert_eq!(entries[0].0.path, b"real");
        assert_eq!(entries[0].1, b"\0\0\0ab\0\0\0\0\0");
        assert_eq!(entries.len(), 2);
    }
    let form_10: [(&str, &[u8]); 4] = [
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"real"),
        ("GNU.sparse.realsize", b"10"),
    ];
    let mut body = b"1\n3\n2\n".to_vec();
    body.resize(BLOCK, 0);
    body.extend(b"ab");
    let tar = [records(&form_10), entry("x", b'0', &body), file()].concat();
    let entries = read(&tar).unwrap();
    assert_eq!(entries[0].1, b"\0\0\0ab\0\0\0\0\0");
    assert_eq!((entries[0].0.holes, entries.len()), (8, 2));
    // A list of more pieces than it has, of too few bytes, of an unknown form, and on what is no file.
    let bad = [
        [
            records(&[
                sizes[1],
                ("GNU.sparse.map", b"3,2"),
                ("GNU.sparse.numblocks", b"2"),
            ]),
            file(),
        ],
        [records(&form_10), entry("x", b'0', b"1\n3\n2\n")],
        [records(&[("GNU.sparse.major", b"2"), sizes[1]]), file()],
        [records(&[("GNU.sparse.size", b"1")]), file()],
        [
            records(&form_01.concat()),
            HeaderBlock::new("s", b'S', 0).gnu().block(),
        ],
    ];
    for (number, tar) in bad.iter().enumerate() {
        assert!(read(&tar.concat()).is_err(), "{number}");
    }
}

#[test]
fn where_a_tar_ends() {
    let whole = [entry("f", b'0', b"abc"), end()].concat();
    assert_eq!(names(&whole).len(), 1);
    // Without its end, without its padding, with headers that name nothing.
    for tar in [
        whole[..2 * BLOCK].to_vec(),
        whole[..BLOCK + 3].to_vec(),
        [
            whole[..2 * BLOCK].to_vec(),
            records(&[("path", b"a")]),
            end(),
        ]
        .concat(),
        [whole[..2 * BLOCK].to_vec(), entry("l", b'L', b"a\0")].concat(),
        whole[..3 * BLOCK].to_vec(),
    ] {
        assert_eq!(names(&tar).len(), 1);
    }
    for tar in [
        whole[..BLOCK + 2].to_vec(),
        whole[..100].to_vec(),
        [vec![0; BLOCK], file()].concat(),
        HeaderBlock::new("x", b'x', 2 << 20).block(),
        HeaderBlock::new("x", b'g', 3 << 30).block(),
        entry("g", b'g', b"x").repeat(100),
        records(&[("path", b"a")])[..515].to_vec(),
    ] {
        assert!(
            matches!(read(&tar), Err(TarError::Damaged(_))),
            "{}",
            tar.len()
        );
    }
    for (tar, is_blank) in [(vec![], true), (end(), false), (whole, false)] {
        let mut entries = Entries::new(&tar[..]);
        while entries.next_entry().unwrap().is_some() {}
        assert_eq!(entries.is_blank(), is_blank);
    }
}

#[test]
fn a_file_is_passed_over_by_seeking_and_its_end_is_seen() {
    use std::io::Write as _;
    let mut file = tempfile::tempfile().unwrap();
    let tar = [
        entry("a", b'0', &[b'x'; 5000]),
        entry("b", b'0', b"y"),
        end(),
    ]
    .concat();
    file.write_all(&tar).unwrap();
    let mut entries = Entries::seekable(&file).unwrap();
    let mut offsets = Vec::new();
    while let Some(entry) = entries.next_entry().unwrap() {
        offsets.push((entry.offset, entry.size));
    }
    assert_eq!(offsets, [(512, 5000), (512 + 5120 + 512, 1)]);
    file.set_len(1000).unwrap();
    let mut entries = Entries::seekable(&file).unwrap();
    entries.next_entry().unwrap();
    assert!(entries.next_entry().is_err());
}

#[test]
fn many_attributes_are_read_in_time() {
    let names: Vec<String> = (0..38_000).map(|n| format!("SCHILY.xattr.{n:x}")).collect();
    let names: Vec<(&str, &[u8])> = names.iter().map(|it| (&**it, &b""[..])).collect();
    let tar = [records(&names), file()].concat();
    assert!((800 << 10..1 << 20).contains(&tar.len()), "{}", tar.len());
    let start = std::time::Instant::now();
    let entries = read(&tar).unwrap();
    assert!(start.elapsed() < std::time::Duration::from_secs(2));
    assert_eq!(entries[0].0.attributes().count(), names.len());
}
