//! Odd wheels that are right: each becomes the right tree.

use super::testing::*;
use super::zip_testing::{self, Entry, deflated};
use super::{Expected, Scheme, install};
use crate::layer::Kind;
use crate::oci::Digest;

#[test]
fn a_right_wheel() {
    let tree = right(&with(|_| {}), &[]);
    let record = record_of(&tree);
    let paths: Vec<&str> = record
        .lines()
        .map(|it| it.split(',').next().unwrap())
        .collect();
    assert_eq!(
        paths,
        [
            "pkg-1.0.dist-info/INSTALLER",
            "pkg-1.0.dist-info/METADATA",
            "pkg-1.0.dist-info/RECORD",
            "pkg-1.0.dist-info/WHEEL",
            "pkg/__init__.py",
            "pkg/data.bin",
        ]
    );
    assert!(!record.contains('\r'));
    let mut lines = Vec::new();
    tree.listing(|line| lines.push(line.to_owned()));
    assert_eq!(
        lines[0],
        format!("{:?} folder 0755 0:0 0", format!("{SITE}/pkg"))
    );
    assert_eq!(lines.len(), 8);
}

#[test]
fn records_that_are_healed() {
    let whole = record_of(&right(&with(|_| {}), &[]));
    let healed = |change: &dyn Fn(&str) -> String| {
        let bytes = record(|text| change(&text).into_bytes());
        assert_eq!(record_of(&right(&bytes, &[])), whole);
    };
    healed(&|text| text.lines().skip(1).map(|it| format!("{it}\n")).collect());
    healed(&|text| format!("{text}pkg/not_there.py,sha256=AAAA,1\n"));
    healed(&|text| format!("{text}../../outside,sha256=AAAA,1\n/etc/x,,\n"));
    healed(&|text| text.replace('\n', "\r\n"));
    healed(&|text| format!("\u{feff}{text}\n\n"));
    healed(&|text| text.trim_end().to_owned());
    healed(&|text| format!("{text}{}\n", text.lines().next().unwrap()));
    healed(&|text| text.replace(",6\n", "=,7\n"));
    healed(&|text| text.replace("sha256=", "md5="));
    healed(&|_| String::new());
    let mut lines = String::new();
    for line in whole.lines().take(2) {
        lines += line;
    }
    assert!(lines.contains("INSTALLER,sha256="));
}

#[test]
fn data_folders() {
    let data = |name: &str| plus(Entry::new(format!("pkg-1.0.data/{name}"), "x"));
    refused(
        &data("stdlib/x.py"),
        "`pkg-1.0.data/stdlib/x.py` has no place",
    );
    refused(&data("x.py"), "has no place");
    refused(&data("scripts"), "has no place");
    let foreign = plus(Entry::new("Pkg-1.0.data/purelib/x.py", "x"));
    refused(&foreign, "`Pkg-1.0.data` is not the wheel's data folder");
    right(&data("purelib/x.py"), &[("/x.py", 0o644)]);
    right(&data("platlib/y/x.so"), &[("/y/x.so", 0o644)]);
    right(
        &data("data/share/man/x.1"),
        &[("usr/local/share/man/x.1", 0o644)],
    );
    right(
        &data("headers/x.h"),
        &[("usr/local/include/python3.11/pkg/x.h", 0o644)],
    );
    right(&data("scripts/run"), &[("usr/local/bin/run", 0o755)]);
    // What looks like data below the top is none.
    let deep = plus(Entry::new("pkg/pkg-1.0.data/x", "x"));
    right(&deep, &[("/pkg/pkg-1.0.data/x", 0o644)]);
}

#[test]
fn odd_names_that_are_right() {
    for name in [
        "pkg./x.py",
        "pkg/ä ö/日本.py",
        "a,b/\"c\".py",
        "pkg/x y",
        "C:/x",
        "pkg/...",
        "x.dist-info",
    ] {
        for flags in [0, 1 << 11] {
            // Without the flag, others read it in code page 437.
            if flags == 0 && !name.is_ascii() {
                continue;
            }
            let entry = Entry {
                flags,
                ..Entry::new(name, "x")
            };
            let bytes = after(|entries| entries.push(entry));
            let tree = right(&bytes, &[(&format!("/{name}"), 0o644)]);
            let name = match name.contains([',', '"']) {
                true => format!("\"{}\"", name.replace('"', "\"\"")),
                false => name.to_owned(),
            };
            let line = format!("\n{name},sha256=LXEWQrcmsEQBYnyp-6wy9chTD7GQPMTbAiWHF5IaSIE,1\n");
            assert!(format!("\n{}", record_of(&tree)).contains(&line));
        }
    }
}

#[test]
fn a_comment_of_the_archive_is_nothing() {
    right(&zip_testing::commented(&with(|_| {}), b"made by hand"), &[]);
}

#[test]
fn one_file_twice_with_the_same_bytes_is_one() {
    let twice = |name: &str, mode| {
        plus(Entry {
            mode,
            ..Entry::new(name, "x = 1\n")
        })
    };
    for folder in ["purelib", "platlib"] {
        let name = format!("pkg-1.0.data/{folder}/pkg/__init__.py");
        let tree = right(&twice(&name, 0o100_644), &[]);
        let record = record_of(&tree);
        assert_eq!(record.matches("pkg/__init__.py,").count(), 1);
        // The one of the data folder is written last.
        let tree = install_bytes(&twice(&name, 0o100_755), &scheme()).unwrap();
        assert_eq!(files(&tree)["/pkg/__init__.py"].0, 0o755);
    }
    let both = with(|entries| {
        for folder in ["purelib", "platlib"] {
            let name = format!("pkg-1.0.data/{folder}/x.py");
            entries.push(Entry::new(name, "x"));
        }
    });
    right(&both, &[("/x.py", 0o644)]);
}

#[test]
fn modes_are_two() {
    for (mode, expected) in [
        (0, 0o644),
        (0o100_600, 0o644),
        (0o100_664, 0o644),
        (0o600, 0o644),
        (0o755, 0o755),
        (0o100_711, 0o755),
        (0o104_755, 0o755),
        (0o100_001, 0o755),
    ] {
        right(&plus(moded("pkg/x", mode)), &[("/pkg/x", expected)]);
    }
    let script = plus(moded("pkg-1.0.data/scripts/x", 0o100_600));
    right(&script, &[("usr/local/bin/x", 0o755)]);
}

#[test]
fn what_is_left_out() {
    for name in [
        "pkg/__pycache__/__init__.cpython-311.pyc",
        "pkg-1.0.dist-info/RECORD.jws",
        "pkg-1.0.dist-info/RECORD.p7s",
        "pkg-1.0.dist-info/REQUESTED",
        "pkg-1.0.dist-info/INSTALLER",
        "pkg-1.0.dist-info/direct_url.json",
    ] {
        let tree = right(&plus(Entry::new(name, "theirs")), &[]);
        assert_eq!(record_of(&tree).lines().count(), 6, "{name}");
    }
    right(
        &plus(Entry::new("pkg/old.pyc", "x")),
        &[("/pkg/old.pyc", 0o644)],
    );
}

#[test]
fn scripts_name_the_interpreter() {
    let scripts = with(|entries| {
        let ini = "[console_scripts]\npkg = pkg:main\nother= pkg.b:C.d [x]\n";
        entries.push(Entry::new("pkg-1.0.dist-info/entry_points.txt", ini));
        for (name, text) in [
            ("tool", "#!python\nprint()\n"),
            ("tool-w", "#!pythonw -E\r\nprint()\n"),
            ("tool.sh", "#!/bin/sh\n"),
            ("pkg", "theirs"),
            ("pkg.exe", "theirs"),
            ("pkg-script.py", "theirs"),
            ("other.pya", "theirs"),
        ] {
            entries.push(Entry::new(format!("pkg-1.0.data/scripts/{name}"), text));
        }
    });
    let names = ["other", "pkg", "tool", "tool-w", "tool.sh"];
    let expected: Vec<(String, u16)> = names
        .map(|it| (format!("usr/local/bin/{it}"), 0o755))
        .into();
    let expected: Vec<(&str, u16)> = expected.iter().map(|(a, b)| (&**a, *b)).collect();
    let tree = right(&scripts, &expected);
    let files = files(&tree);
    let text = |name: &str| &*files[&format!("usr/local/bin/{name}")].1;
    assert_eq!(text("tool"), "#!/usr/local/bin/python3.11\nprint()\n");
    assert_eq!(text("tool-w"), "#!/usr/local/bin/python3.11\nprint()\n");
    assert_eq!(
        text("other"),
        "#!/usr/local/bin/python3.11\nimport sys\nfrom pkg.b import C\nif __name__ == '__main__':\n    sys.exit(C.d())\n"
    );
    assert!(record_of(&tree).starts_with("../../../bin/other,sha256="));
}

#[test]
fn pip_gets_the_names_of_its_interpreter() {
    let ini = "[console_scripts]\npip = pip:main\npip3 = pip:main\npip3.9 = pip:main\n";
    let mut entries = entries();
    for entry in &mut entries {
        let name = String::from_utf8(entry.name.clone()).unwrap();
        entry.name = name.replace("pkg-1.0", "pip-1.0").into_bytes();
    }
    text(
        &mut entries,
        "pip-1.0.dist-info/METADATA",
        "Name: pip\nVersion: 1.0\n",
    );
    entries.push(Entry::new("pip-1.0.dist-info/entry_points.txt", ini));
    entries.push(Entry::new("pip-1.0.dist-info/RECORD", ""));
    let expected = Expected {
        name: "pip".parse().unwrap(),
        ..expected()
    };
    let tree = install_as(&zip_testing::archive(&entries), &scheme(), &expected).unwrap();
    let scripts: Vec<String> = files(&tree)
        .into_keys()
        .filter(|it| it.contains("/bin/"))
        .collect();
    assert_eq!(
        scripts,
        [
            "usr/local/bin/pip",
            "usr/local/bin/pip3",
            "usr/local/bin/pip3.11"
        ]
    );
}

#[test]
fn a_direct_url_is_told_without_secrets() {
    let expected = Expected {
        url: Some("https://user:secret@host/pkg.whl#sha256=00".to_owned()),
        ..expected()
    };
    let tree = install_as(&with(|_| {}), &scheme(), &expected).unwrap();
    let path = format!("{SITE}/pkg-1.0.dist-info/direct_url.json");
    let Kind::File { content, .. } = &tree.entries()[path.as_str()].kind else {
        panic!("it is no file");
    };
    let mut bytes = Vec::new();
    content
        .append(&mut bytes, 0, content.size as usize)
        .unwrap();
    let hash = Digest::of(b"pkg").hex();
    assert_eq!(
        String::from_utf8(bytes).unwrap(),
        format!(
            r#"{{"archive_info":{{"hash":"sha256={hash}","hashes":{{"sha256":"{hash}"}}}},"url":"https://host/pkg.whl"}}"#
        )
    );
}

#[test]
fn libraries_of_a_platform_have_their_folder() {
    let scheme = Scheme {
        platsite: Some(path("usr/local/lib64/python3.11/site-packages")),
        ..scheme()
    };
    let pure = plus(Entry::new("pkg-1.0.data/platlib/x.so", "x"));
    let tree = install_bytes(&pure, &scheme).unwrap();
    assert!(
        tree.entries()
            .contains_key(&*format!("{SITE}/pkg/__init__.py"))
    );
    assert!(
        tree.entries()
            .contains_key("usr/local/lib64/python3.11/site-packages/x.so")
    );
    let line = "../../../lib64/python3.11/site-packages/x.so,";
    assert!(record_of(&tree).starts_with(line));
    let platform = wheel("Wheel-Version: 1.0\n");
    let tree = install_bytes(&platform, &scheme).unwrap();
    let folder = "usr/local/lib64/python3.11/site-packages";
    assert!(
        tree.entries()
            .contains_key(&*format!("{folder}/pkg-1.0.dist-info/RECORD"))
    );
}

#[test]
fn large_members_are_passed_on_to_gzip_layers() {
    use crate::layer::{Anew, Facts, resolve, write};
    use crate::oci::Compression;
    let large: Vec<u8> = (0..300_000u32)
        .map(|n| (n.wrapping_mul(n) >> 10) as u8)
        .collect();
    let packed = |level| {
        let entry = Entry {
            raw: Some(deflated(&large, level)),
            ..Entry::new("pkg/large.so", &large)
        };
        with(|entries| entries.push(entry))
    };
    let folder = tempfile::tempdir().unwrap();
    let mut digests = Vec::new();
    for level in [1, 9] {
        let bytes = packed(level);
        let file = folder.path().join(level.to_string());
        std::fs::write(&file, &bytes).unwrap();
        let expected = Expected {
            digest: Digest::of(&bytes),
            ..expected()
        };
        let tree = install(&file, &expected, &scheme(), &|_| true).unwrap();
        let digest = tree.digest();
        let changes = resolve(&[tree.into()], &Facts::default()).unwrap();
        let layer = |compression| {
            let mut out = Vec::new();
            let written = write(&changes, compression, &Anew, &mut out, &|_| true).unwrap();
            (out, written.diff_id)
        };
        let (gzip, diff_id) = layer(Compression::Gzip);
        let stream = deflated(&large, level);
        assert!(gzip.windows(stream.len()).any(|it| it == stream));
        assert_eq!(layer(Compression::None).1, diff_id);
        digests.push((diff_id, digest, layer(Compression::Zstd).0));
    }
    // One content in two forms: the tar is the same, the gzip layer is not, and the key of the layer knows it.
    assert_eq!(digests[0].0, digests[1].0);
    assert_ne!(digests[0].1, digests[1].1);
    assert!(digests[0].2 == digests[1].2);
}
