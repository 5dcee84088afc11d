//! Hostile images: each is refused with a message, or what it does stays in its folder. Nothing else is touched.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::kit::{AMD64, GZIP, Head, Layer, Tar, ZSTD, list, write_layout, write_tars};
use crate::support::Space;

/// A space with a tree outside of the root that must stay as it is.
struct Arena {
    space: Space,
    /// The tree, as an image would name it.
    canary: String,
    before: BTreeMap<PathBuf, String>,
}

impl Arena {
    fn new() -> Self {
        let space = Space::new();
        space.write("canary/secret", "secret");
        space.write("canary/folder/file", "file");
        let canary = space.path().join("canary").display().to_string();
        let before = list(&space.path().join("canary"));
        Self {
            space,
            canary,
            before,
        }
    }

    fn out(&self) -> PathBuf {
        self.space.path().join("out")
    }

    /// Unpacks the image that was written. Returns the message where it is refused.
    #[track_caller]
    fn run(&self, options: &[&str]) -> Result<(), String> {
        let args = [&["unpack", "img", "out", AMD64], options].concat();
        let output = self.space.run(&args);
        let after = list(&self.space.path().join("canary"));
        assert_eq!(after, self.before, "the canary was touched");
        let times = |path: &Path| {
            let meta = fs::metadata(path).expect("the canary");
            (meta.mtime(), meta.mode(), meta.uid())
        };
        assert_eq!(times(&self.space.path().join("canary")).1 & 0o777, 0o755);
        let here = fs::read_dir(self.space.path()).expect("a folder");
        let mut here: Vec<String> = here
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        here.sort();
        match output.status {
            0 => assert_eq!(here, ["canary", "img", "out"]),
            1 => assert_eq!(
                here,
                ["canary", "img"],
                "something stays: {}",
                output.stderr
            ),
            other => panic!("exit {other}: {}", output.stderr),
        }
        match output.status {
            0 => {
                let _ = fs::remove_dir_all(self.out());
                Ok(())
            }
            _ => Err(output.stderr),
        }
    }

    /// The image must be refused, with a message that has `words`.
    #[track_caller]
    fn refused(&self, what: &str, tars: &[Tar], words: &str) {
        let tars: Vec<Vec<u8>> = tars.iter().cloned().map(Tar::end).collect();
        write_tars(&self.space, &tars);
        let message = self.run(&[]).expect_err(what);
        // Long lines are wrapped by nobody, but the frame has a margin.
        assert!(message.contains(words), "{what}: {message}");
        assert!(!message.contains(['\u{1b}', '\u{7}']), "{message:?}");
    }

    /// The image may be unpacked; then what `path` names in the root is a regular file, or what is below it.
    #[track_caller]
    fn contained(&self, what: &str, tars: &[Tar], path: &str) {
        let tars: Vec<Vec<u8>> = tars.iter().cloned().map(Tar::end).collect();
        write_tars(&self.space, &tars);
        let output = self.space.run(&["unpack", "img", "out", AMD64]);
        assert_eq!(output.status, 0, "{what}: {}", output.stderr);
        let found = list(&self.out());
        let path = Path::new(path.trim_start_matches('/'));
        assert!(
            found.contains_key(path),
            "{what}: {path:?} is not in {found:#?}"
        );
        fs::remove_dir_all(self.out()).expect("what was unpacked");
        self.run(&[]).expect(what);
    }
}

#[test]
fn names_that_lead_out() {
    let arena = Arena::new();
    // A `..` takes off what stands before it, and stops at the root.
    for (name, path) in [
        ("../evil", "evil"),
        ("a/../../evil", "evil"),
        ("/../evil", "evil"),
        ("b/a/..", "b"),
        ("./../canary/secret", "canary/secret"),
    ] {
        arena.contained(name, &[Tar::new().file(name, "x")], path);
    }
    let nothing = Tar::new().file("..", "x").file("a", "");
    arena.contained("the root", &[nothing], "a");
    arena.contained("folder", &[Tar::new().folder("../canary/")], "canary");
    let pax = Tar::new().records(&[("path", b"../evil")]).file("a", "");
    arena.contained("pax", &[pax], "evil");
    let long = Head {
        name: b"long",
        kind: b'L',
        size: 8,
        ..Head::default()
    };
    let gnu = Tar::new().raw(&long, b"../evil\0").file("a", "");
    arena.contained("gnu", &[gnu], "evil");
    arena.contained("absolute", &[Tar::new().file("/evil", "x")], "evil");
    arena.contained("absolute twice", &[Tar::new().file("//evil", "x")], "evil");
    let absolute = format!("{}/evil", arena.canary);
    arena.contained(
        "absolute canary",
        &[Tar::new().file(&absolute, "x")],
        &absolute,
    );
}

#[test]
fn symlinks_that_lead_out() {
    let arena = Arena::new();
    let canary = arena.canary.clone();
    let secret = format!("{canary}/secret");
    let link = || Tar::new().symlink("s", &canary);
    let inside = format!("{canary}/evil");
    arena.contained("write through", &[link().file("s/evil", "x")], &inside);
    arena.contained(
        "in the next layer",
        &[link(), Tar::new().file("s/evil", "x")],
        &inside,
    );
    arena.contained("folder through", &[link().folder("s/evil")], &inside);
    let relative = Tar::new().symlink("s", "../canary");
    arena.contained("relative", &[relative.file("s/evil", "x")], "canary/evil");
    let deep = Tar::new().symlink("s", "../../../../../../../../tmp");
    arena.contained("far up", &[deep.file("s/evil", "x")], "tmp/evil");
    let chain = Tar::new()
        .symlink("a", "b")
        .symlink("b", &canary)
        .file("a/evil", "x");
    arena.contained("a chain", &[chain], &inside);
    let magic = Tar::new()
        .symlink("s", "/proc/self/cwd")
        .file("s/evil", "x");
    arena.contained("magic links", &[magic], "proc/self/cwd/evil");
    let file = Tar::new().symlink("s", &secret).file("s", "evil");
    arena.contained("a file over a symlink", &[file], "s");
    let hard = Tar::new()
        .symlink("s", &secret)
        .hard_link("h", "s")
        .file("h", "evil");
    arena.contained("a hard link to a symlink", &[hard], "h");
    let folder = link().add(b'5', "s", "", 0o777).file("s/evil", "x");
    arena.contained("a folder over a symlink", &[folder], "s/evil");
    let again = link().add(b'5', "s/", "", 0o777);
    arena.contained("a folder over a symlink, with a slash", &[again], "s");
    let swapped = Tar::new()
        .file("d/a", "")
        .symlink("d", &canary)
        .file("d/evil", "x");
    arena.contained("a folder that becomes a symlink", &[swapped], &inside);
    let owner = Head {
        name: b"s",
        kind: b'2',
        link: b"canary/secret",
        uid: 1234,
        mode: 0o7777,
        ..Head::default()
    };
    arena.contained(
        "the owner of a symlink",
        &[Tar::new().raw(&owner, b"")],
        "s",
    );
    let attribute = Tar::new().records(&[
        ("SCHILY.xattr.user.evil", b"1"),
        ("linkpath", secret.as_bytes()),
    ]);
    arena.contained(
        "the attributes of a symlink",
        &[attribute.add(b'2', "s", "", 0o777)],
        "s",
    );
    let swap = Tar::new()
        .file("x/y", "")
        .file("s", "")
        .symlink("x", &canary)
        .file("x/secret", "evil");
    arena.contained("a name that is there", &[swap], &secret);
    let circle = Tar::new()
        .symlink("a", "b")
        .symlink("b", "a")
        .file("a/x", "");
    arena.refused("a circle", &[circle], "a circle of symlinks");
    // The root stays what it is, as with containerd; what is passed over is told.
    let roots = Tar::new().symlink("./", &canary).file(".", "evil");
    write_tars(&arena.space, &[roots.file("a", "").end()]);
    let output = arena.space.run(&["unpack", "img", "out", AMD64]);
    assert_eq!(output.status, 0, "{}", output.stderr);
    let told = "2 entries for the root were passed over";
    assert!(output.stderr.contains(told), "{}", output.stderr);
    assert_eq!(list(&arena.out()).len(), 1);
    fs::remove_dir_all(arena.out()).expect("what was unpacked");
    arena.refused(
        "no target",
        &[Tar::new().symlink("s", "")],
        "an impossible path",
    );
}

#[test]
fn hard_links_that_lead_out() {
    let arena = Arena::new();
    let canary = arena.canary.clone();
    let secret = format!("{canary}/secret");
    let missing = "which is not there";
    arena.refused(
        "absolute",
        &[Tar::new().hard_link("h", &secret).file("h", "evil")],
        missing,
    );
    arena.refused(
        "relative",
        &[Tar::new().hard_link("h", "../canary/secret")],
        missing,
    );
    let through = Tar::new().symlink("s", &canary).hard_link("h", "s/secret");
    arena.refused("through a symlink", &[through], missing);
    arena.refused("nothing", &[Tar::new().hard_link("h", "")], missing);
    arena.refused("the root", &[Tar::new().hard_link("h", "/")], missing);
    arena.refused(
        "a folder",
        &[Tar::new().folder("d").hard_link("h", "d")],
        "a folder",
    );
    let over = Tar::new().file("d/f", "x").hard_link("d", "d/f");
    arena.refused("what it takes the place of", &[over], missing);
    let file = Tar::new().file("f", "").hard_link("h", "f/x");
    arena.refused("below a file", &[file], missing);
}

#[test]
fn whiteouts_that_lead_out() {
    let arena = Arena::new();
    let link = || Tar::new().symlink("s", &arena.canary).symlink("up", "..");
    let none = "a whiteout of no file";
    for name in [".wh...", ".wh..", ".wh.", "s/.wh...", "s/.wh."] {
        arena.refused(name, &[link(), Tar::new().file(name, "")], none);
    }
    arena.contained("below", &[Tar::new().file(".wh.x/y", "")], ".wh.x/y");
    for name in [
        "../.wh.canary",
        "s/.wh.secret",
        "s/.wh..wh..opq",
        "up/.wh.canary",
        "s/folder/.wh..wh..opq",
    ] {
        arena.contained(name, &[link(), Tar::new().file(name, "")], "s");
    }
    let itself = Tar::new().file(".wh.s", "").file("left", "");
    arena.contained("of the symlink", &[link(), itself], "left");
}

#[test]
fn names_and_numbers_of_headers() {
    let arena = Arena::new();
    let refused = |what: &str, tar: Tar, words: &str| arena.refused(what, &[tar], words);
    let pax = |records: &[(&str, &[u8])]| Tar::new().records(records).file("a", "");
    let out = arena.canary.clone().into_bytes();
    let contained = |what: &str, tar: Tar, path: &str| arena.contained(what, &[tar], path);
    contained("two paths", pax(&[("path", b"a"), ("path", b"../x")]), "x");
    let targets = Tar::new().records(&[("linkpath", b"a"), ("linkpath", &out)]);
    contained("two targets", targets.symlink("s", "b"), "s");
    refused("a bad size", pax(&[("size", b"-1")]), "`size` is damaged");
    refused(
        "a huge size",
        pax(&[("size", b"18446744073709551615")]),
        "`size` is damaged",
    );
    refused("NUL", pax(&[("path", b"a\0../../x")]), "`path` is damaged");
    refused(
        "sparse, by PAX",
        pax(&[("GNU.sparse.major", b"1")]),
        "sparse",
    );
    refused(
        "sparse, by GNU",
        Tar::new().add(b'S', "a", "", 0o644),
        "sparse",
    );
    refused(
        "an unknown type",
        Tar::new().add(b'Z', "a", "", 0o644),
        "the unknown type `Z`",
    );
    let label = Tar::new().add(b'V', "label", "", 0o644).file("a", "");
    contained("a label", label, "a");
    let long = |body: &[u8]| {
        let head = Head {
            name: b"l",
            kind: b'L',
            size: body.len() as u64,
            ..Head::default()
        };
        Tar::new().raw(&head, body)
    };
    contained("NUL in a long name", long(b"a\0b\0").file("c", ""), "a");
    let both = long(b"a\0").records(&[("path", b"b")]).file("c", "");
    refused("two names", both, "two names");
    let twice = Tar([long(b"a\0").0, long(b"b\0").0].concat());
    contained("two long names", twice.file("c", ""), "b");
    let sizes = [pax(&[("size", b"512")]).0, Tar::new().records(&[]).0];
    let sizes = Tar([&sizes[0][..1024], &sizes[1]].concat());
    refused("two sizes", sizes.file("c", ""), "two sizes");
    let path = vec!["a"; 2100].join("/");
    refused(
        "a long path",
        pax(&[("path", path.as_bytes())]),
        "4095 are the limit",
    );
    refused(
        "a long name",
        pax(&[("path", "a".repeat(256).as_bytes())]),
        "more than 255 bytes",
    );
    refused(
        "an owner",
        pax(&[("uid", b"4294967296")]),
        "exceeds 32 bits",
    );
    refused("nobody", pax(&[("gid", b"4294967295")]), "exceeds 32 bits");
    let content = Head {
        name: b"d",
        kind: b'5',
        size: 512,
        ..Head::default()
    };
    let hidden = Tar::new().file("hidden", "x");
    let tar = Tar::new().raw(&content, &hidden.0);
    contained("content of a folder", tar, "hidden");
    let link = Head {
        name: b"h",
        kind: b'1',
        link: b"f",
        size: 512,
        ..Head::default()
    };
    let tar = Tar::new().file("f", "").raw(&link, &hidden.0);
    contained("content of a hard link", tar, "hidden");
    let sized = Tar::new().records(&[("size", b"1024")]).raw(
        &Head {
            name: b"f",
            ..Head::default()
        },
        &hidden.0,
    );
    arena.contained("a size that hides an entry", &[sized], "f");
    refused(
        "an empty block between",
        Tar([Tar::new().file("a", "").0, vec![0; 512], hidden.0.clone()].concat()),
        "is damaged",
    );
    let mut sum = Tar::new().file("a", "");
    sum.0[0] = b'b';
    refused("a wrong checksum", sum, "is damaged");
    refused("text", Tar(b"no tar at all".repeat(100)), "is damaged");
    refused(
        "below a file",
        Tar::new().file("f", "").file("f/x", ""),
        "whose folder is no folder",
    );
    let fifo = || {
        Tar::new().raw(
            &Head {
                name: b"p",
                kind: b'6',
                ..Head::default()
            },
            b"",
        )
    };
    refused(
        "below a fifo",
        fifo().file("p/x", ""),
        "whose folder is no folder",
    );
    arena.contained("into a fifo", &[fifo().file("p", "x")], "p");
    let device = Head {
        name: b"disk",
        kind: b'4',
        device: (8, 0),
        mode: 0o666,
        ..Head::default()
    };
    arena.contained("a device", &[Tar::new().raw(&device, b"")], "disk");
    let into = Tar::new().raw(&device, b"").file("disk", "evil");
    arena.contained("into a device", &[into], "disk");
    let escape = Tar::new().folder("\u{1b}]0;evil\u{7}\n/../x");
    let long = escape.file(&format!("\u{1b}]0;evil\u{7}\n/{}", "a".repeat(80)), "");
    contained("a name for the terminal", long, "x");
    let escape = Tar::new().add(b'Z', "\u{1b}]0;evil\u{7}\n", "", 0o644);
    refused("a name for the terminal", escape, "unknown type");
}

#[test]
fn deep_trees() {
    let arena = Arena::new();
    let path = vec!["d"; 300].join("/");
    let deep = Tar::new()
        .records(&[("path", path.as_bytes())])
        .file("x", "");
    arena.contained("300 folders", &[deep], &path);
    // Deeper than any path: by symlinks to what is deep already.
    let step = vec!["d"; 1000].join("/");
    let mut tar = Tar::new();
    let mut at = String::new();
    for number in 0..4 {
        let path = format!("{at}{step}/x");
        let up = vec![".."; 1000].join("/");
        let link = format!("l{number}");
        tar = tar.records(&[("path", path.as_bytes())]).file("x", "");
        let target = format!("{at}{step}");
        tar = tar
            .records(&[("linkpath", target.as_bytes())])
            .add(b'2', &link, "", 0o777);
        assert!(up.len() < 4095);
        at = format!("{link}/");
    }
    write_tars(
        &arena.space,
        &[tar.clone().end(), Tar::new().file(".wh.d", "").end()],
    );
    arena.run(&[]).expect("a deep tree that is removed");
    write_tars(&arena.space, &[tar.file(".wh..", "").end()]);
    arena.run(&[]).expect_err("a deep tree that is refused");
}

#[test]
fn limits() {
    let arena = Arena::new();
    let zeros = vec![0; 300 << 20];
    let head = Head {
        name: b"bomb",
        size: zeros.len() as u64,
        ..Head::default()
    };
    let tar = Tar::new().raw(&head, &zeros).end();
    drop(zeros);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(&tar).expect("gzip");
    let gzip = gzip.finish().expect("gzip");
    let zstd = zstd::encode_all(&tar[..], 1).expect("zstd");
    let whole = Layer::plain(tar);
    for (blob, media_type) in [(gzip, GZIP), (zstd, ZSTD)] {
        let layer = Layer {
            blob,
            media_type,
            diff_id: whole.diff_id.clone(),
        };
        write_layout(&arena.space, &[layer], json!({}));
        let message = arena.run(&[]).expect_err(media_type);
        assert!(
            message.contains("more than the limit of 200 times"),
            "{message}"
        );
        assert!(message.contains("--max-ratio"), "{message}");
        arena
            .run(&["--max-ratio", "100000"])
            .expect("a higher limit");
        let message = arena.run(&["--max-size", "100MB"]).expect_err(media_type);
        assert!(
            message.contains("more than the limit of 100000000 bytes"),
            "{message}"
        );
    }
    let mut many = Tar::new();
    for number in 0..1001 {
        many = many.folder(&format!("d{number}"));
    }
    let half = |tar: &Tar, at: usize| Tar(tar.0[..at].to_vec()).end();
    let layers = [
        half(&many, 512 * 500),
        Tar(many.0[512 * 500..].to_vec()).end(),
    ];
    write_tars(&arena.space, &layers);
    let message = arena
        .run(&["--max-entries", "1000"])
        .expect_err("many entries");
    assert!(message.contains("more than the limit of 1000"), "{message}");
    arena
        .run(&["--max-entries", "1001"])
        .expect("as many as may be");
    let large = Head {
        name: b"x",
        kind: b'x',
        size: 2 << 20,
        ..Head::default()
    };
    let large = Tar::new().raw(&large, &vec![b'1'; 2 << 20]).file("a", "");
    arena.refused("a large header", &[large], "is damaged");
}

#[test]
fn blobs_that_are_not_what_they_are_named() {
    let arena = Arena::new();
    let tar = || Tar::new().file("a", &"text".repeat(100_000)).end();
    let gzip = |tar: &[u8]| {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(tar).expect("gzip");
        gzip.finish().expect("gzip")
    };
    let refused = |what: &str, layer: Layer, words: &str| {
        write_layout(&arena.space, &[layer], json!({}));
        let message = arena.run(&[]).expect_err(what);
        assert!(message.contains(words), "{what}: {message}");
    };
    let other = imgdecl::parts::oci::Digest::of(b"other").to_string();
    refused(
        "diff_id",
        Layer {
            diff_id: other,
            ..Layer::plain(tar())
        },
        "the image's config says",
    );
    let whole = gzip(&tar());
    let cut = Layer {
        blob: whole[..whole.len() - 9].to_vec(),
        media_type: GZIP,
        ..Layer::plain(tar())
    };
    refused("cut off", cut, "is damaged");
    let more = Layer {
        blob: [&whole[..], b"junk"].concat(),
        media_type: GZIP,
        ..Layer::plain(tar())
    };
    refused("junk behind", more, "is damaged");
    let kind = Layer {
        media_type: "application/x-evil",
        ..Layer::plain(tar())
    };
    refused(
        "the media type",
        kind,
        "application/x-evil, which is no layer",
    );
    let plain = Layer {
        blob: tar(),
        media_type: GZIP,
        ..Layer::plain(tar())
    };
    refused("not compressed", plain, "is damaged");
    let behind = [tar(), b"hidden".to_vec()].concat();
    let behind = Layer {
        diff_id: Layer::plain(tar()).diff_id,
        ..Layer::plain(behind)
    };
    refused("bytes behind the tar", behind, "the image's config says");

    // Blobs that were changed in place.
    let layer = Layer {
        blob: whole,
        media_type: GZIP,
        ..Layer::plain(tar())
    };
    let name = imgdecl::parts::oci::Digest::of(&layer.blob).hex();
    write_layout(&arena.space, &[layer], json!({}));
    let path = arena.space.path().join("img/blobs/sha256").join(name);
    let good = fs::read(&path).expect("a blob");
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    for bad in [
        flipped,
        good[..good.len() - 1].to_vec(),
        [&good[..], b"x"].concat(),
        Vec::new(),
    ] {
        fs::write(&path, &bad).expect("a blob");
        let message = arena.run(&[]).expect_err("a changed blob");
        assert!(message.contains("it has the digest"), "{message}");
    }
    fs::remove_file(&path).expect("a blob");
    arena.run(&[]).expect_err("a missing blob");
    fs::create_dir(&path).expect("a folder");
    arena.run(&[]).expect_err("a folder in place of a blob");
    fs::remove_dir(&path).expect("a folder");
    fs::write(&path, &good).expect("a blob");
    arena.run(&[]).expect("the blob is whole again");
}

#[test]
fn layers_and_diff_ids_that_do_not_fit() {
    let arena = Arena::new();
    write_tars(&arena.space, &[Tar::new().file("a", "").end()]);
    let index = fs::read_to_string(arena.space.path().join("img/index.json")).expect("an index");
    let hex = index.split("sha256:").nth(1).expect("a digest")[..64].to_owned();
    let blobs = arena.space.path().join("img/blobs/sha256");
    let manifest = fs::read_to_string(blobs.join(&hex)).expect("a manifest");
    let mut manifest: serde_json::Value = serde_json::from_str(&manifest).expect("JSON");
    manifest["layers"] = json!([]);
    let bytes = manifest.to_string();
    let digest = imgdecl::parts::oci::Digest::of(bytes.as_bytes());
    fs::write(blobs.join(digest.hex()), &bytes).expect("a manifest");
    let mut index: serde_json::Value = serde_json::from_str(&index).expect("JSON");
    index["manifests"][0]["digest"] = digest.to_string().into();
    index["manifests"][0]["size"] = bytes.len().into();
    fs::write(arena.space.path().join("img/index.json"), index.to_string()).expect("an index");
    let message = arena.run(&[]).expect_err("a layer too few");
    assert!(
        message.contains("0 layers, and its config names 1"),
        "{message}"
    );
}
