//! What layers say is what becomes of them: whiteouts, replacements, modes, times, attributes, names.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::kit::{AMD64, GZIP, Head, Layer, Tar, ZSTD, attributes, list, write_layout, write_tars};
use crate::support::Space;

/// Unpacks layers, and returns the names of all that is there but `etc`, sorted.
#[track_caller]
fn names(layers: &[Tar]) -> Vec<String> {
    let space = Space::new();
    let tars: Vec<Vec<u8>> = layers.iter().cloned().map(Tar::end).collect();
    write_tars(&space, &tars);
    space.ok(&["unpack", "img", "out", AMD64]);
    let all = list(&space.path().join("out"));
    all.into_keys()
        .map(|path: PathBuf| path.display().to_string())
        .collect()
}

#[test]
fn whiteouts_hide_lower_layers_alone_wherever_they_stand() {
    let lower = || {
        Tar::new()
            .folder("a")
            .file("a/x", "1")
            .folder("a/d")
            .file("a/d/y", "2")
            .file("b", "3")
    };
    let hidden = ["b"];
    // Before and after what the layer itself brings.
    let upper = |tar: Tar| tar.folder("a").file("a/x", "new");
    let before = Tar::new().file("a/.wh.d", "").file("a/.wh.x", "");
    assert_eq!(names(&[lower(), upper(before)]), ["a", "a/x", "b"]);
    let after = upper(Tar::new()).file("a/.wh.x", "").file("a/.wh.d", "");
    assert_eq!(names(&[lower(), after]), ["a", "a/x", "b"]);
    // The folder itself, which the layer fills again.
    let before = Tar::new().file(".wh.a", "").file("a/z", "");
    assert_eq!(names(&[lower(), before]), ["a", "a/z", "b"]);
    let after = Tar::new().file("a/z", "").file(".wh.a", "");
    assert_eq!(names(&[lower(), after]), ["a", "a/z", "b"]);
    assert_eq!(names(&[lower(), Tar::new().file(".wh.a", "")]), hidden);
    // Opaque: everything below goes, and the layer's own stays.
    let opaque = "a/.wh..wh..opq";
    let before = Tar::new().folder("a").file(opaque, "").file("a/n/e/w", "");
    assert_eq!(
        names(&[lower(), before]),
        ["a", "a/n", "a/n/e", "a/n/e/w", "b"]
    );
    let after = Tar::new().file("a/d/own", "").file(opaque, "");
    assert_eq!(names(&[lower(), after]), ["a", "a/d", "a/d/own", "b"]);
    // Twice, of what is not there, and in the lowest layer: nothing happens.
    let nothing = Tar::new()
        .file(".wh.b", "")
        .file(".wh.b", "")
        .file("no/.wh.x", "")
        .file("no/.wh..wh..opq", "");
    assert_eq!(names(&[lower(), nothing]), ["a", "a/d", "a/d/y", "a/x"]);
    assert_eq!(names(&[Tar::new().file("x", "").file(".wh.x", "")]), ["x"]);
    // What only one union file system read.
    let meta = Tar::new()
        .folder(".wh..wh.plnk")
        .file(".wh..wh.plnk/1", "")
        .file(".wh..wh.aufs", "");
    assert_eq!(names(&[lower(), meta]), ["a", "a/d", "a/d/y", "a/x", "b"]);
}

#[test]
fn whiteouts_that_come_again_cost_nothing() {
    let mut upper = Tar::new();
    for number in 0..10_000 {
        upper = upper.file(&format!("d/{number}"), "");
    }
    for _ in 0..20_000 {
        upper = upper.file("d/.wh..wh..opq", "").file(".wh.d", "");
    }
    let start = std::time::Instant::now();
    let found = names(&[Tar::new().file("d/lower", ""), upper]);
    assert_eq!(found.len(), 10_001);
    // Each one would list all files: 400 million of them.
    assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
}

#[test]
fn the_later_entry_wins() {
    let lower = || {
        Tar::new()
            .folder("d")
            .file("d/x", "")
            .file("f", "1")
            .symlink("l", "d")
    };
    // A folder joins a folder, and takes the place of all else; all else takes the place of a folder.
    assert_eq!(
        names(&[lower(), Tar::new().folder("d").folder("f").folder("l")]),
        ["d", "d/x", "f", "l"]
    );
    assert_eq!(
        names(&[lower(), Tar::new().file("d", "").symlink("f", "l")]),
        ["d", "f", "l"]
    );
    // A symlink to a folder is one on the way.
    assert_eq!(
        names(&[lower(), Tar::new().file("l/y", "")]),
        ["d", "d/x", "d/y", "f", "l"]
    );
    // Without entries for folders, they are made; also behind a symlink that leads to nowhere.
    let dangling = Tar::new().symlink("s", "/n/o").file("s/x/y", "");
    assert_eq!(names(&[dangling]), ["n", "n/o", "n/o/x", "n/o/x/y", "s"]);
    // A hard link to itself stays what it is.
    assert_eq!(
        names(&[
            lower(),
            Tar::new().hard_link("f", "f").hard_link("g", "./l")
        ]),
        ["d", "d/x", "f", "g", "l"]
    );
}

#[test]
fn headers_become_modes_times_and_attributes() {
    let space = Space::new();
    let long = format!("{}/{}", "n".repeat(200), "ä".repeat(100));
    let value = b"a\nb\0\xff";
    let tar = Tar::new()
        .add(b'5', "./", "", 0o711)
        .records(&[("mtime", b"5.25")])
        .add(b'5', "closed", "", 0o500)
        .file("closed/x", "x")
        .add(b'0', "setuid", "", 0o6755)
        .add(b'5', "sticky", "", 0o1777)
        .records(&[
            ("SCHILY.xattr.user.k", value),
            ("SCHILY.xattr.user.overlay.opaque", b"y"),
        ])
        .add(b'5', "attr", "", 0o755)
        .records(&[("SCHILY.xattr.user.k", value), ("path", long.as_bytes())])
        .file("short", "long")
        .raw(
            &Head {
                name: b"old",
                mtime: 77,
                ..Head::default()
            },
            b"",
        )
        .raw(
            &Head {
                name: b"raw\xff",
                ..Head::default()
            },
            b"",
        )
        .raw(
            &Head {
                name: b"fifo",
                kind: b'6',
                ..Head::default()
            },
            b"",
        );
    write_tars(&space, &[tar.end()]);
    space.ok(&["unpack", "img", "out", AMD64]);
    let out = space.path().join("out");
    let meta = |name: &str| fs::symlink_metadata(out.join(name)).expect(name);
    let mode = |name: &str| meta(name).mode() & 0o7777;
    assert_eq!(mode(""), 0o711);
    assert_eq!(
        (mode("closed"), mode("setuid"), mode("sticky")),
        (0o500, 0o6755, 0o1777)
    );
    let time = |name: &str| (meta(name).mtime(), meta(name).mtime_nsec());
    assert_eq!(time("closed"), (5, 250_000_000));
    assert_eq!((time("old"), time("")), ((77, 0), (1_000_000, 0)));
    assert_eq!(
        fs::read_to_string(out.join(&long)).expect("a long name"),
        "long"
    );
    for name in ["attr", &long] {
        let expected = [("user.k".to_owned(), value.to_vec())].into();
        assert_eq!(attributes(&out.join(name)), expected, "{name}");
    }
}

#[test]
fn every_compression_is_read() {
    use std::io::Write;
    let tar = Tar::new().file("x", &"text ".repeat(100_000)).end();
    let gzip = || {
        let mut all = Vec::new();
        for chunk in tar.chunks(70_000) {
            let mut encoder = flate2::write::GzEncoder::new(&mut all, flate2::Compression::fast());
            encoder.write_all(chunk).expect("gzip");
            encoder.finish().expect("gzip");
        }
        all
    };
    let zstd = || zstd::encode_all(&tar[..], 1).expect("zstd");
    for (blob, media_type) in [(gzip(), GZIP), (zstd(), ZSTD)] {
        let space = Space::new();
        let layer = Layer {
            blob,
            media_type,
            ..Layer::plain(tar.clone())
        };
        write_layout(&space, &[layer], serde_json::json!({}));
        space.ok(&["unpack", "img", "out", AMD64]);
        let text = fs::read_to_string(space.path().join("out/x")).expect("x");
        assert_eq!(text.len(), 500_000, "{media_type}");
    }
}
