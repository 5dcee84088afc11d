//! Wheels as they should not be: each is refused, with a message.

use super::testing::*;
use super::zip_testing::{self, Entry, deflated};
use super::{Expected, Scheme, install};

#[test]
fn names_that_lead_out() {
    let named = |name: &[u8]| plus(Entry::new(name, "x"));
    refused(&named(b"../evil"), "`../evil` has a `..`");
    refused(&named(b"pkg/../../evil"), "has a `..`");
    refused(&named(b"pkg-1.0.data/data/../../../evil"), "has a `..`");
    refused(&named(b"/etc/passwd"), "has an absolute path");
    refused(&named(b"pkg\\..\\evil"), "has a backslash");
    refused(&named(b"pkg/a\0b"), "control character");
    refused(&named(b"pkg/a\nb"), "control character");
    refused(&named(b"pkg/\xff.py"), "not UTF-8");
    refused(&named("x".repeat(300).as_bytes()), "too long");
    refused(&named("x/".repeat(2100).as_bytes()), "too long");
    refused(&named(b"pkg/.wh.__init__.py"), "would delete a file");
    refused(&named(b"pkg/.wh..wh..opq"), "would delete a file");
    refused(&named(b"./"), "has no name");
    // An installer that goes by the plain text would not find these where a reader of paths does.
    for name in [
        "./pkg/x",
        "pkg//x",
        "pkg/./x",
        "./pkg-1.0.data/purelib/x",
        "pkg/x//",
    ] {
        refused(
            &named(name.as_bytes()),
            "has `.` or an empty part in its path",
        );
    }
    let unmarked = Entry {
        flags: 0,
        ..Entry::new("pkg/ä.py", "x")
    };
    refused(&plus(unmarked), "neither ASCII nor marked as UTF-8");
}

#[test]
fn members_that_are_no_files() {
    let with_mode = |mode| plus(moded("pkg/x", mode));
    refused(&with_mode(0o120_777), "`pkg/x` is a symlink");
    refused(&with_mode(0o020_644), "is a device, socket or pipe");
    refused(&with_mode(0o010_644), "is a device, socket or pipe");
    refused(&with_mode(0o040_755), "folder without `/`");
    refused(&plus(moded("pkg/x/", 0o100_644)), "with a `/` at its end");
    refused(&plus(moded("pkg/x/", 0o040_755)), "folder with content");
    let folder = Entry {
        data: Vec::new(),
        ..moded("pkg/empty/", 0o040_755)
    };
    right(&plus(folder), &[]);
}

#[test]
fn members_that_are_there_twice() {
    let twice = |name: &str| plus(Entry::new(name, "other"));
    let named = "two members named `pkg/__init__.py`";
    refused(&twice("pkg/__init__.py"), named);
    refused(&plus(Entry::new("pkg/__init__.py", "x = 1\n")), named);
    let folder = Entry {
        data: Vec::new(),
        ..moded("pkg/__init__.py/", 0o040_755)
    };
    refused(&plus(folder), named);
    for folder in ["purelib", "platlib"] {
        let data = format!("pkg-1.0.data/{folder}/pkg/__init__.py");
        let text = format!(
            "`pkg/__init__.py` and `{data}` would both be /{SITE}/pkg/__init__.py, and their bytes differ"
        );
        refused(&twice(&data), &text);
    }
    let record = "pkg-1.0.data/purelib/pkg-1.0.dist-info/RECORD";
    refused(&twice(record), "RECORD: both are files");
    refused(&twice("pkg/data.bin/x"), "a file and a folder");
    refused(&twice("pkg-1.0.data/data/lib"), "a file and a folder");
    let clash = twice("pkg/__INIT__.py");
    right(&clash, &[("/pkg/__INIT__.py", 0o644)]);
}

#[test]
fn contents_that_are_not_as_the_archive_says() {
    let data = |change: &dyn Fn(&mut Entry)| after(|entries| change(at(entries, "pkg/data.bin")));
    refused(
        &data(&|it| it.crc = Some(1)),
        "`pkg/data.bin` in pkg-1.0-py3-none-any.whl is damaged: its CRC",
    );
    refused(
        &data(&|it| (it.crc, it.method) = (Some(1), 0)),
        "`pkg/data.bin` in pkg-1.0-py3-none-any.whl is damaged: its CRC",
    );
    refused(&data(&|it| it.size = Some(99)), "holds more bytes");
    refused(&data(&|it| it.size = Some(0)), "holds more bytes");
    refused(&data(&|it| it.size = Some(101)), "holds fewer bytes");
    refused(
        &data(&|it| (it.size, it.method) = (Some(101), 0)),
        "has two sizes",
    );
    refused(
        &data(&|it| it.raw = Some(vec![0xff; 50])),
        "not deflated data",
    );
    refused(&data(&|it| it.raw = Some(Vec::new())), "holds fewer bytes");
    let long = |it: &mut Entry| it.raw = Some([&deflated(&it.data, 6)[..], &[0]].concat());
    refused(&data(&long), "holds more bytes");
    // A member that is only needed to read the wheel is checked too.
    let metadata = after(|entries| at(entries, "pkg-1.0.dist-info/METADATA").crc = Some(1));
    refused(
        &metadata,
        "METADATA` in pkg-1.0-py3-none-any.whl is damaged",
    );
}

#[test]
fn streams_that_not_everyone_can_read() {
    // 'a'; the length symbol 286, which RFC 1951 section 3.2.6 leaves unused, and distance 1; then bytes as they are.
    let tail = [b'b'; 65_400];
    let bits = concat!(
        "0", "10", "10010001", "11000110", "00000", "0000000", "1", "00"
    );
    let mut raw = vec![0_u8; bits.len().div_ceil(8)];
    for (at, bit) in bits.bytes().enumerate() {
        raw[at / 8] |= (bit - b'0') << (at % 8);
    }
    raw.extend_from_slice(&(tail.len() as u16).to_le_bytes());
    raw.extend_from_slice(&(!(tail.len() as u16)).to_le_bytes());
    raw.extend_from_slice(&tail);
    let data = [&[b'a'; 259][..], &tail].concat();
    let mut out = vec![0; data.len()];
    // One library takes it. Passed on as it is, it would be a layer that most runtimes cannot read.
    let inflated = libdeflater::Decompressor::new().deflate_decompress(&raw, &mut out);
    assert!(inflated == Ok(data.len()) && out == data);
    let entry = Entry {
        raw: Some(raw),
        ..Entry::new("pkg/odd.bin", data)
    };
    refused(&plus(entry), "its bytes are not deflated data");
}

#[test]
fn archives_that_are_not_sound() {
    let good = with(|_| {});
    refused(b"", "not a sound zip archive");
    refused(b"PK, but nothing more", "not a sound zip archive");
    refused(&good[..good.len() - 10], "not a sound zip archive");
    refused(&good[..good.len() / 2], "not a sound zip archive");
    refused(
        &[b"#!/bin/sh\n", &good[..]].concat(),
        "not a sound zip archive",
    );
    refused(&[&good[100..]].concat(), "not a sound zip archive");
    refused(&[&good[..], b"more"].concat(), "bytes follow its end");
    let other = Entry {
        local_name: Some(b"pkg/other.py".to_vec()),
        ..Entry::new("pkg/x.pyx.p", "x")
    };
    refused(&plus(other), "not a sound zip archive");
    let shared = Entry {
        shares: true,
        ..entries().remove(3)
    };
    let shared = Entry {
        name: b"pkg-1.0.dist-info/WHEEE".to_vec(),
        ..shared
    };
    refused(&plus(shared), "not a sound zip archive");
    let hidden = Entry {
        hidden: true,
        ..Entry::new("pkg/hidden.py", "x")
    };
    refused(&plus(hidden), "not a sound zip archive");
    let mut count = good.clone();
    let end = count.len() - 22;
    (count[end + 8], count[end + 10]) = (200, 200);
    refused(&count, "not a sound zip archive");
}

#[test]
fn members_that_are_packed_otherwise() {
    let packed = |method, flags| {
        plus(Entry {
            method,
            flags,
            ..Entry::new("pkg/x", "x")
        })
    };
    refused(&packed(12, 1 << 11), "`pkg/x` is compressed with bzip2");
    refused(&packed(14, 1 << 11), "compressed with lzma");
    refused(&packed(93, 1 << 11), "compressed with zstd");
    refused(&packed(77, 1 << 11), "method that is not known");
    refused(&packed(8, 1), "`pkg/x` is encrypted");
    right(&packed(0, 1 << 11), &[("/pkg/x", 0o644)]);
    let zip64 = Entry {
        zip64: true,
        ..Entry::new("pkg/x", "x")
    };
    right(&plus(zip64), &[("/pkg/x", 0o644)]);
    let descriptor = Entry {
        descriptor: true,
        ..Entry::new("pkg/x", "x")
    };
    right(&plus(descriptor), &[("/pkg/x", 0o644)]);
    right(&plus(Entry::new("pkg/empty", "")), &[("/pkg/empty", 0o644)]);
}

#[test]
fn bombs() {
    let bomb = plus(Entry::new("pkg/zeros", vec![0; 70 << 20]));
    refused(&bomb, "no real wheel is compressed like that");
    let lie = Entry {
        size: Some(u32::MAX - 1),
        ..Entry::new("pkg/zeros", "x")
    };
    refused(&plus(lie), "no real wheel is compressed like that");
    let text = vec![b'a'; (16 << 20) + 1];
    refused(&metadata(&text), "METADATA` has 16777217 bytes");
}

#[test]
fn records_that_lie() {
    let init = |text: &str| text.lines().next().unwrap().to_owned();
    let wrong = record(|text| {
        let other = text
            .lines()
            .nth(1)
            .unwrap()
            .replace("pkg/data.bin", "pkg/__init__.py");
        text.replace(&init(&text), &other).into_bytes()
    });
    refused(&wrong, "`pkg/__init__.py` has the hash");
    refused(
        &record(|text| text.replace("sha256=", "sha256=!").into_bytes()),
        "and RECORD says !",
    );
    refused(
        &after(|entries| drop(entries.pop())),
        "has no `pkg-1.0.dist-info/RECORD`",
    );
    refused(
        &record(|text| format!("a,b,c,d\n{text}").into_bytes()),
        "RECORD, line 1: it has more than three columns: `a,b,c,d`",
    );
    refused(
        &record(|text| format!("{text}\"a,b,c\n").into_bytes()),
        "line 6: a quote is not closed",
    );
    refused(
        &record(|text| [b"a,,\n\xff,,\n", text.as_bytes()].concat()),
        "line 2: it is not UTF-8",
    );
    refused(
        &record(|text| format!("{text}pkg/data.bin,sha256=AAAA,1\n").into_bytes()),
        "gives another hash than a line before",
    );
}

#[test]
fn dist_infos_that_are_not_as_expected() {
    let renamed = |from: &'static str, to: &'static str| {
        let mut entries = recorded(entries());
        for entry in &mut entries {
            let name = String::from_utf8(entry.name.clone()).unwrap();
            entry.name = name.replace(from, to).into_bytes();
        }
        zip_testing::archive(&entries)
    };
    refused(
        &renamed("pkg-1.0.dist-info/", "pkg-1.0.egg-info/"),
        "has no folder",
    );
    refused(
        &renamed("pkg-1.0.dist-info/", "x/pkg-1.0.dist-info/"),
        "has no folder",
    );
    refused(
        &renamed("pkg-1.0.dist-info", "other-1.0.dist-info"),
        "gives the name `other`",
    );
    refused(
        &renamed("pkg-1.0.dist-info", "pkg-2.0.dist-info"),
        "gives the version `2.0`",
    );
    refused(
        &renamed("pkg-1.0.dist-info", "pkg.dist-info"),
        "gives the version ``",
    );
    let second = plus(Entry::new("other-1.dist-info/METADATA", "x"));
    refused(
        &second,
        "several dist-info folders: other-1.dist-info, pkg-1.0.dist-info",
    );
    // Names that are one name, and versions that are one version.
    right(&renamed("pkg-1.0.dist-info", "Pkg-1.dist-info"), &[]);
    for name in ["METADATA", "WHEEL"] {
        let name = format!("pkg-1.0.dist-info/{name}");
        let lacking = after(|entries| entries.retain(|it| it.name != name.as_bytes()));
        refused(&lacking, &format!("has no `{name}`"));
    }
}

#[test]
fn metadata_that_is_not_as_expected() {
    refused(
        &metadata("Name: other\nVersion: 1.0\n"),
        "gives the name `other`, and `pkg` is expected",
    );
    refused(
        &metadata("Name: pkg\nVersion: 1.1\n"),
        "gives the version `1.1`",
    );
    refused(
        &metadata("Name: pkg\nVersion: 1.0+local\n"),
        "gives the version `1.0+local`",
    );
    refused(
        &metadata("Name: pkg\nVersion: one\n"),
        "gives the version `one`",
    );
    refused(&metadata("Version: 1.0\n"), "no header `Name`");
    refused(
        &metadata("Name: pkg\n\nVersion: 1.0\n"),
        "no header `Version`",
    );
    refused(
        &metadata("Name: pkg\nName: other\nVersion: 1.0\n"),
        "`Name` twice",
    );
    refused(&metadata(b"Name: pkg\xff\nVersion: 1.0\n"), "not UTF-8");
    refused(&metadata("Name pkg\n"), "line 1 is no header");
    right(
        &metadata("\u{feff}NAME: PKG\r\nversion: v1.0.0\r\n\r\ntext\n"),
        &[],
    );
    refused(
        &wheel("Wheel-Version: 2.0\nRoot-Is-Purelib: true\n"),
        "only versions 1.x",
    );
    refused(
        &wheel("Wheel-Version: one\n"),
        "is no version of the format",
    );
    refused(
        &wheel("Root-Is-Purelib: true\n"),
        "no header `Wheel-Version`",
    );
    right(&wheel("Wheel-Version: 1.9\n"), &[]);
}

#[test]
fn entry_points_that_are_wrong() {
    let scripts = |text: &str| entry_points(&format!("[console_scripts]\n{text}\n"));
    refused(&scripts("a = pkg"), "entry_points.txt, line 2: `a`");
    refused(&scripts("../a = pkg:f"), "cannot be the name of a script");
    refused(&scripts("a = pkg:f;import os"), "is no attribute of Python");
    refused(
        &scripts("python3 = pkg:f"),
        "/usr/local/bin/python3 is the interpreter's name",
    );
    refused(&scripts("python3.11 = pkg:f"), "is the interpreter's name");
    refused(
        &entry_points("[console_scripts\n"),
        "line 1: a section's name",
    );
    let data = |name: &str| plus(Entry::new(format!("pkg-1.0.data/{name}"), "x"));
    refused(&data("scripts/python"), "is the interpreter's name");
    refused(&data("data/bin/python3"), "is the interpreter's name");
}

#[test]
fn size_and_interpreter_are_checked_first() {
    let expected = Expected {
        size: Some(1),
        ..expected()
    };
    let error = install_as(&with(|_| {}), &scheme(), &expected).unwrap_err();
    assert!(error.to_string().contains("and 1 are expected"), "{error}");
    let scheme = Scheme {
        interpreter: "python3".to_owned(),
        ..scheme()
    };
    let error = install_bytes(&with(|_| {}), &scheme).unwrap_err();
    assert!(error.to_string().contains("`python3` cannot be"), "{error}");
}

#[test]
fn stops_when_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wheel");
    std::fs::write(&file, with(|_| {})).unwrap();
    let error = install(&file, &expected(), &scheme(), &|_| false).unwrap_err();
    assert!(matches!(error.problem, super::Problem::Stopped));
}

#[test]
fn threads_do_not_change_what_is_told() {
    let bytes = after(|entries| {
        for entry in entries.iter_mut().take(2) {
            entry.crc = Some(1);
        }
    });
    for threads in [1, 8] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let pool = pool.unwrap();
        pool.install(|| refused(&bytes, "`pkg/__init__.py` in"));
    }
}

#[test]
fn random_bytes_change_nothing_or_are_refused() {
    let good = with(|_| {});
    let whole = install_bytes(&good, &scheme()).unwrap();
    let mut state = 42u64;
    let mut refusals = 0;
    for _ in 0..500 {
        let mut bytes = good.clone();
        for _ in 0..2 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let at = (state >> 33) as usize % bytes.len();
            bytes[at] ^= 1 << (state >> 30 & 7);
        }
        match install_bytes(&bytes, &scheme()) {
            // What is left are bits without a meaning here: times, versions, execute bits.
            Ok(tree) => assert_eq!(tree.entries().len(), whole.entries().len()),
            Err(_) => refusals += 1,
        }
    }
    assert!(refusals > 375, "{refusals}");
}
