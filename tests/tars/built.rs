//! Odd archives through the program: the rule `tar`, bases, archives of images, `inspect` and `unpack` say the same.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::generate::{Head, about, pad, record};
use crate::support::{Output, Space, peer};
use crate::unpack::write_tars;

/// A manifest of one image on nothing, with the archive `a.tar`.
fn manifest(more: &str) -> String {
    format!(
        "[tar.a]\nsrc = \"a.tar\"\n{more}\n[image.x]\nbase = \"scratch\"\nplatforms = [\"linux/amd64\"]\nlayers = [\"a\"]\n"
    )
}

/// Builds an archive into the layout `out`.
fn build(space: &Space, tar: &[u8], more: &str) -> Output {
    space.write("a.tar", tar);
    space.write("image.toml", manifest(more));
    space.run(&["build", "--output", "oci:out"])
}

/// Builds an archive, which must succeed, and unpacks the image into `root`, which is emptied first.
#[track_caller]
fn built(space: &Space, tar: &[u8], more: &str) -> String {
    let output = build(space, tar, more);
    assert_eq!(output.status, 0, "{}", output.stderr);
    let _ = fs::remove_dir_all(space.path().join("root"));
    space.ok(&["unpack", "oci:out:x", "root"]);
    space.ok(&["inspect", "oci:out:x", "--files"]).stdout
}

/// Builds an archive, which must fail, and returns what is said.
#[track_caller]
fn refused(space: &Space, tar: &[u8], more: &str, words: &str) {
    let start = Instant::now();
    let output = build(space, tar, more);
    assert_eq!(output.status, 1, "{}", output.stderr);
    let said = output
        .stderr
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .replace("│ ", "");
    assert!(said.contains(words), "{said}");
    assert!(!output.stderr.contains(['\u{1b}', '\u{7}']), "{said:?}");
    assert!(start.elapsed() < Duration::from_secs(60), "{said}");
}

fn file(name: &str, body: &[u8]) -> Vec<u8> {
    [Head::new(name, b'0', body.len()).sum(), pad(body.to_vec())].concat()
}

fn link(name: &str, flag: u8, target: &str) -> Vec<u8> {
    let mut head = Head::new(name, flag, 0);
    head.put(157, target.as_bytes());
    head.sum()
}

fn end(entries: &[Vec<u8>]) -> Vec<u8> {
    [entries.concat(), vec![0; 1024]].concat()
}

#[test]
fn times_before_1970_are_kept_and_read_back() {
    let space = Space::new();
    let mut early = Head::new("f", b'0', 1);
    // Base-256: -100.
    early.put(136, &[0xff; 12]);
    early.put(147, &[0x9c]);
    let of_gnu = end(&[early.sum(), pad(b"x".to_vec())]);
    let of_pax = end(&[about(b'x', &record("mtime", b"-100")), file("f", b"x")]);
    for tar in [of_gnu, of_pax] {
        let files = built(&space, &tar, "keep_mtime = true");
        assert!(files.contains(" -100 f"), "{files}");
        let found = fs::metadata(space.path().join("root/f")).expect("a file");
        assert_eq!(found.mtime(), -100);
        let files = built(&space, &tar, "");
        assert!(files.contains("1970-01-01T00:00:00Z f"), "{files}");
    }
}

#[test]
fn folders_of_v7_and_hard_links_to_symlinks() {
    let space = Space::new();
    let mut folder = Head::new("d/", 0, 0);
    folder.put(257, &[0; 8]);
    let tar = end(&[
        folder.sum(),
        file("d/f", b"x"),
        link("a", b'2', "nowhere"),
        link("b", b'1', "a"),
        link("c", b'1', "./d/f"),
    ]);
    built(&space, &tar, "");
    let root = space.path().join("root");
    assert!(root.join("d").is_dir());
    assert_eq!(
        fs::read_link(root.join("b")).expect("a symlink"),
        Path::new("nowhere")
    );
    assert_eq!(fs::read(root.join("c")).expect("a file"), b"x");
    let odd = end(&[Head::new("d/", b'5', 0).sum(), link("b", b'1', "d")]);
    refused(&space, &odd, "", "/b in `a.tar` is a hard link to a folder");
    let none = end(&[link("b", b'1', "d")]);
    refused(&space, &none, "", "which does not stand before it");
}

#[test]
fn one_archive_is_one_layer_however_it_is_compressed() {
    let (Some(xz), Some(bzip2), Some(gzip)) = (peer("xz"), peer("bzip2"), peer("gzip")) else {
        return;
    };
    let space = Space::new();
    let plain = end(&[file("f", &[b'x'; 5000]), link("l", b'2', "f")]);
    let expected = built(&space, &plain, "");
    let path = space.write("plain", &plain);
    for (program, options) in [
        (&xz, "-1"),
        (&xz, "-6e"),
        (&xz, "--check=sha256"),
        (&bzip2, "-9"),
        (&gzip, "-9"),
    ] {
        let run = Command::new(program)
            .args([options, "--stdout"])
            .arg(&path)
            .output();
        let packed = run.expect("a compressor").stdout;
        assert_eq!(
            built(&space, &packed, ""),
            expected,
            "{}",
            program.display()
        );
        let cut = &packed[..packed.len() - 4];
        refused(&space, cut, "", "cannot read the archive");
        if program == &gzip {
            let padded = [&packed[..], &[0; 512]].concat();
            assert_eq!(built(&space, &padded, ""), expected);
        } else if program == &xz {
            // Two streams, and padding between them.
            let two = [&packed[..], &[0; 8], &packed].concat();
            assert_eq!(built(&space, &two, ""), expected);
        }
    }
    for (bytes, words) in [
        (
            &b"PK\x03\x04rest of a zip archive"[..],
            "it is a zip archive",
        ),
        (
            b"!<arch>\ndebian-binary   ",
            "an ar archive, as Debian packages are",
        ),
        (b"<!DOCTYPE html><title>Log in</title>", "a page of HTML"),
        (b"some text", "get it again"),
    ] {
        refused(&space, bytes, "", words);
    }
    refused(
        &space,
        b"",
        "allow_empty = true",
        "the archive `a.tar` is empty",
    );
}

#[test]
fn sparse_files_are_filled_up_within_limits() {
    let Some(tar) = peer("tar") else { return };
    let space = Space::new();
    let path = space.path().join("sparse");
    let mut sparse = fs::File::create(&path).expect("a file");
    for at in [0, 1 << 20, 5 << 20] {
        sparse.seek(SeekFrom::Start(at)).expect("a place");
        sparse.write_all(b"data").expect("data");
    }
    sparse.set_len(6 << 20).expect("a length");
    let make = |options: &[&str]| {
        let mut command = Command::new(&tar);
        command
            .args(options)
            .args(["--create", "--file", "-", "sparse"]);
        let made = command.current_dir(space.path()).output().expect("tar");
        assert!(made.status.success());
        made.stdout
    };
    let expected = built(&space, &make(&["--format=ustar"]), "");
    for options in [
        &["--format=gnu"][..],
        &["--format=pax", "--sparse-version=0.0"],
        &["--format=pax", "--sparse-version=0.1"],
        &["--format=pax", "--sparse-version=1.0"],
    ] {
        let small = make(&[options, &["--sparse"]].concat());
        assert!(small.len() < 1 << 20, "{options:?}");
        assert_eq!(built(&space, &small, ""), expected, "{options:?}");
        // As a layer, it is unpacked to the same.
        write_tars(&space, &[small]);
        let _ = fs::remove_dir_all(space.path().join("layer"));
        space.ok(&["unpack", "img", "layer", "--platform=linux/amd64"]);
        let same = fs::read(&path).expect("a file")
            == fs::read(space.path().join("layer/sparse")).expect("a file");
        assert!(same, "{options:?}");
    }
    // Three files of 60 GB in all, in 5 KB.
    let bomb = |number: u64| {
        let size = 20_000_000_000u64 + number;
        let records = [
            record("GNU.sparse.major", b"1"),
            record("GNU.sparse.minor", b"0"),
            record("GNU.sparse.name", format!("bomb{number}").as_bytes()),
            record("GNU.sparse.realsize", size.to_string().as_bytes()),
        ];
        let body = pad(format!("1\n{size}\n0\n").into_bytes());
        [about(b'x', &records.concat()), file("x", &body)].concat()
    };
    let bombs = end(&[bomb(1), bomb(2), bomb(3)]);
    refused(&space, &bombs, "", "more than 200 times its size");
    write_tars(&space, &[bombs]);
    let output = space.run(&["unpack", "img", "bomb", "--platform=linux/amd64"]);
    assert_eq!(output.status, 1, "{}", output.stderr);
    assert!(output.stderr.contains("--max-ratio"), "{}", output.stderr);
}

#[test]
fn the_top_of_an_archive_is_a_folder() {
    let space = Space::new();
    for name in [".", "./", ""] {
        for odd in [
            file(name.trim_end_matches('/'), b"x"),
            link(name, b'2', "etc"),
        ] {
            refused(&space, &end(&[odd, file("f", b"")]), "", "its own top");
        }
    }
    let mut top = Head::new("./", b'5', 0);
    top.put(100, b"0000700\0");
    top.put(108, b"0000005\0");
    top.put(116, b"0000006\0");
    let tar = end(&[top.sum(), file("./f", b"x")]);
    let top = |files: String| {
        files
            .lines()
            .find(|line| line.ends_with("opt/x/"))
            .map(str::to_owned)
    };
    let files = built(&space, &tar, "dest = \"/opt/x\"\nowner = \"keep\"");
    let line = top(files).expect("the folder");
    assert!(line.contains("drwx------ 5:6"), "{line}");
    let line = top(built(&space, &tar, "dest = \"/opt/x\"")).expect("the folder");
    assert!(line.contains("drwxr-xr-x 0:0"), "{line}");
    // The root of an image is not a layer's to change.
    built(&space, &tar, "owner = \"keep\"");
}

#[test]
fn attributes_with_line_feeds_are_read_by_all_alike() {
    let space = Space::new();
    let capability = [
        1, 0, 0, 2, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let records = [
        record("SCHILY.xattr.security.capability", &capability),
        record("SCHILY.xattr.user.note", b"line1\nline2\n"),
        record("path", b"dir/a\nb"),
    ];
    let tar = end(&[about(b'x', &records.concat()), file("f", b"x")]);
    let files = built(&space, &tar, "");
    assert!(
        files.contains("SCHILY.xattr.security.capability"),
        "{files}"
    );
    write_tars(&space, &[tar]);
    let listed = space.ok(&["inspect", "img", "--files"]).stdout;
    assert!(listed.contains("SCHILY.xattr.user.note"), "{listed}");
    on_base(&space, 0);
}

/// Builds on the layout `img`, and expects an exit code.
#[track_caller]
fn on_base(space: &Space, status: i32) -> Output {
    space.write(
        "on.toml",
        "[base.b]\nlayout = \"img\"\n[image.y]\nbase = \"b\"\nplatforms = [\"linux/amd64\"]\nlayers = [{ files = { text = { \"/etc/x\" = \"x\" } } }]\n",
    );
    let output = space.run(&["build", "on.toml", "--output", "oci:on"]);
    assert_eq!(output.status, status, "{}", output.stderr);
    output
}

#[test]
fn nothing_is_hidden_from_one_reader_and_shown_to_another() {
    let space = Space::new();
    let inner = file("evil", b"evil");
    for flag in *b"1256" {
        let mut head = Head::new("x", flag, inner.len());
        head.put(157, b"first");
        let tar = end(&[
            file("first", b""),
            head.sum(),
            inner.clone(),
            file("after", b""),
        ]);
        if flag != b'6' {
            let files = built(&space, &tar, "");
            assert!(
                files.contains(" evil") && files.contains(" after"),
                "{files}"
            );
        }
        write_tars(&space, &[tar]);
        let files = space.ok(&["inspect", "img", "--files"]).stdout;
        assert!(
            files.contains(" evil") && files.contains(" after"),
            "{files}"
        );
        let _ = fs::remove_dir_all(space.path().join("layer"));
        space.ok(&["unpack", "img", "layer", "--platform=linux/amd64"]);
        assert!(space.path().join("layer/evil").is_file());
    }
    let twice = [
        record("size", b"0"),
        record("size", inner.len().to_string().as_bytes()),
    ];
    let head = Head::new("x", b'0', 0).sum();
    let tar = end(&[
        about(b'x', &twice.concat()),
        head,
        inner,
        file("after", b""),
    ]);
    let files = built(&space, &tar, "");
    assert!(
        !files.contains(" evil") && files.contains(" after"),
        "{files}"
    );
}

#[test]
fn what_no_path_of_ours_can_be_does_not_stop_a_build() {
    let space = Space::new();
    let raw = |bytes: &[u8]| {
        let mut head = Head::new("", b'0', 0);
        head.put(0, bytes);
        head.sum()
    };
    let long = record("path", "n".repeat(300).as_bytes());
    let tar = end(&[
        Head::new("etc/", b'5', 0).sum(),
        raw(b"data/file-with-german-umlaut-ae-\xe4"),
        [about(b'x', &long), file("cut", b"")].concat(),
        file("a/../b", b""),
        link("\u{e4}".repeat(20).as_str(), b'2', "etc"),
    ]);
    write_tars(&space, &[tar]);
    on_base(&space, 0);
    // In an archive of one's own, it is an error.
    refused(&space, &end(&[raw(b"\xe4")]), "", "is not UTF-8");
}

#[test]
fn headers_are_bounded_wherever_an_archive_is_read() {
    let space = Space::new();
    let path = space.path().join("a.tar");
    let mut archive = fs::File::create(&path).expect("an archive");
    // A name of 1 GiB, in a file of a few blocks.
    let mut head = Head::new("long", b'L', 0);
    head.put(124, format!("{:011o}\0", 1u64 << 30).as_bytes());
    archive.write_all(&head.sum()).expect("a header");
    archive.seek(SeekFrom::Current(1 << 30)).expect("a hole");
    archive
        .write_all(&end(&[file("f", b"")]))
        .expect("an entry");
    drop(archive);
    space.write("image.toml", manifest(""));
    space.write(
        "base.toml",
        "[base.b]\narchive = \"a.tar\"\n[image.y]\nbase = \"b\"\nlayers = [{ files = { text = { \"/x\" = \"x\" } } }]\n",
    );
    space.write(
        "plain.toml",
        "[image.z]\nbase = \"scratch\"\nlayers = [{ files = { text = { \"/x\" = \"x\" } } }]\n",
    );
    for (args, status) in [
        (&["build", "--output", "oci:out"][..], 1),
        (&["build", "base.toml", "--output", "oci:out"], 1),
        (&["inspect", "oci-archive:a.tar"], 1),
        (&["build", "plain.toml", "--output", "oci-archive:a.tar"], 2),
    ] {
        let start = Instant::now();
        let output = limited(&space, args);
        assert_eq!(output.status, status, "{args:?}: {}", output.stderr);
        assert!(start.elapsed() < Duration::from_secs(120), "{args:?}");
    }
}

/// Runs the binary with at most 1 GiB of address space: who holds the name in memory fails by a signal.
fn limited(space: &Space, args: &[&str]) -> Output {
    let inner = space.command(args);
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -v 1048576; exec \"$@\"", "sh"]);
    command.arg(inner.get_program()).args(inner.get_args());
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    if let Some(folder) = inner.get_current_dir() {
        command.current_dir(folder);
    }
    Output::of(&mut command)
}

#[test]
fn records_for_a_whole_archive_are_told() {
    let space = Space::new();
    let global = |key: &str, value: &[u8]| end(&[about(b'g', &record(key, value)), file("f", b"")]);
    built(&space, &global("comment", b"0123456789"), "");
    built(&space, &global("mtime", b"7"), "");
    built(&space, &global("uid", b"7"), "");
    for (key, more) in [
        ("path", ""),
        ("size", ""),
        ("mtime", "keep_mtime = true"),
        ("uid", "owner = \"keep\""),
        ("SCHILY.xattr.user.a", ""),
    ] {
        refused(&space, &global(key, b"7"), more, "for all of its entries");
    }
}

#[test]
fn no_name_of_an_archive_moves_the_cursor() {
    let space = Space::new();
    let name = "a\u{1b}[31mRED\u{7}";
    let mut bad = Head::new(name, b'0', 0);
    bad.put(124, b"zzzzzzzzzzz\0");
    refused(&space, &end(&[bad.sum()]), "", "cannot read the archive");
    refused(
        &space,
        &end(&[Head::new(name, b'3', 0).sum()]),
        "",
        "is a device",
    );
    refused(
        &space,
        &end(&[Head::new(name, b'X', 0).sum()]),
        "",
        "of the type `X`",
    );
    let mut owner = Head::new(name, b'0', 0);
    owner.put(108, b"\x80\0\0\x01\0\0\0\0");
    refused(
        &space,
        &end(&[owner.sum()]),
        "owner = \"keep\"",
        "exceeds 32 bits",
    );
}
