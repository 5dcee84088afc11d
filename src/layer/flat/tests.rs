//! Tests of roots that several layers make.

use std::io::Cursor;

use super::*;
use crate::tar::testing::{end, entry, link, records};

/// Flattens layers of raw tars.
fn flat(layers: &[Vec<u8>]) -> Result<Vec<u8>, String> {
    let open = |number: usize| -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(Cursor::new(layers[number].clone())))
    };
    let root = FlatRoot::read(layers.len(), &open, &|_| true).map_err(|it| it.to_string())?;
    let mut out = Vec::new();
    root.write(&open, &mut out, &|_| true).unwrap();
    Ok(out)
}

/// Lists a tar: a line for each entry, with the content of files.
fn list(tar: &[u8]) -> Vec<String> {
    let mut entries = Entries::new(tar);
    let mut lines = Vec::new();
    while let Some(entry) = entries.next_entry().unwrap() {
        let mut content = String::new();
        entries.read_to_string(&mut content).unwrap();
        let link = entry.link.unwrap_or_default();
        let path = String::from_utf8_lossy(&entry.path).into_owned();
        let letter = entry.kind.letter();
        let more = [content, String::from_utf8_lossy(&link).into_owned()].concat();
        lines.push(format!("{letter} {path} {more}").trim().to_owned());
    }
    lines
}

#[track_caller]
fn assert_flat(layers: &[&[Vec<u8>]], expected: &[&str]) {
    let layers: Vec<Vec<u8>> = layers
        .iter()
        .map(|entries| [entries.concat(), end()].concat())
        .collect();
    let tar = flat(&layers).unwrap();
    assert_eq!(list(&tar), expected);
    assert!(tar.len().is_multiple_of(BLOCK) && tar == flat(&layers).unwrap());
}

fn file(path: &str, content: &str) -> Vec<u8> {
    entry(path, b'0', content.as_bytes())
}

fn folder(path: &str) -> Vec<u8> {
    entry(path, b'5', b"")
}

#[test]
fn whiteouts_hide_what_is_below_and_nothing_of_their_layer() {
    let lower = [
        folder("etc/"),
        file("etc/old", "old"),
        file("etc/same", "1"),
        file("opaque/a/b", "gone"),
        file("opaque/c", "gone"),
        file("gone/x", "gone"),
        file(".wh.nothing", ""),
    ];
    let upper = [
        file("etc/same", "2"),
        file("etc/.wh.old", ""),
        file("etc/.wh.same", ""),
        file("opaque/a/new", "new"),
        file("opaque/.wh..wh..opq", ""),
        file(".wh.gone", ""),
        file(".wh..wh.plnk", ""),
    ];
    let expected = [
        "- etc/same 2",
        "- opaque/a/new new",
        "d opaque/a/",
        "d opaque/",
        "d etc/",
    ];
    assert_flat(&[&lower, &upper], &expected);
}

#[test]
fn what_takes_a_place_takes_all_of_it() {
    let lower = [
        file("a/x", "a folder that becomes a file"),
        file("b", "a file that becomes a folder"),
        folder("c/"),
        file("c/kept", "kept"),
    ];
    let upper = [
        file("a", "file"),
        folder("b/"),
        file("b/y", "y"),
        folder("c/"),
    ];
    let expected = ["- c/kept kept", "- a file", "- b/y y", "d c/", "d b/"];
    assert_flat(&[&lower, &upper], &expected);
}

#[test]
fn links_hold_what_they_lead_to() {
    let lower = [
        file("first", "one"),
        link("second", b'1', "first"),
        file("other", "two"),
        link("lib", b'2', "usr/lib"),
        folder("usr/lib/"),
        link("way", b'2', "/usr/../usr/lib"),
        link("sym", b'2', "first"),
    ];
    // The name that held the content goes, and the content stays.
    let upper = [
        file(".wh.first", ""),
        link("third", b'1', "second"),
        file("other", "new"),
        file("lib/through", "a parent that is a symlink"),
        file("way/too", "one more"),
        link("symsym", b'1', "sym"),
    ];
    let expected = [
        "l lib usr/lib",
        "l sym first",
        "h symsym sym",
        "l way /usr/../usr/lib",
        "- second one",
        "h third second",
        "- other new",
        "- usr/lib/through a parent that is a symlink",
        "- usr/lib/too one more",
        "d usr/lib/",
        "d usr/",
    ];
    assert_flat(&[&lower, &upper], &expected);
}

#[test]
fn paths_stay_in_the_root() {
    let odd = [
        file("../../etc/x", "x"),
        file("/abs", "y"),
        link("up", b'2', "../../.."),
        file("up/z", "z"),
    ];
    let expected = ["l up ../../..", "d etc/", "- abs y", "- etc/x x", "- z z"];
    let mut tar = list(&flat(&[[odd.concat(), end()].concat()]).unwrap());
    tar.sort();
    let mut expected = expected.map(str::to_owned);
    expected.sort();
    assert_eq!(tar, expected);
}

#[test]
fn headers_keep_all_that_is_said() {
    let long = "n/".repeat(80) + "é";
    let lower = [
        records(
            &[
                ("path", long.as_str()),
                ("mtime", "-1.5"),
                ("uid", "4000000000"),
                ("SCHILY.xattr.user.a", "1\n2"),
                ("SCHILY.xattr.trusted.overlay.x", "y"),
            ]
            .map(|(key, value)| (key, value.as_bytes())),
        ),
        file("short", "content"),
        entry("fifo", b'6', b""),
    ];
    let tar = flat(&[[lower.concat(), end()].concat()]).unwrap();
    let mut entries = Entries::new(&tar[..]);
    let mut last = None;
    let mut kinds = Vec::new();
    while let Some(entry) = entries.next_entry().unwrap() {
        kinds.push(entry.kind);
        if entry.kind == Kind::File && entry.path != b"short" {
            last = Some(entry);
        }
    }
    assert!(kinds.contains(&Kind::Fifo));
    let last = last.unwrap();
    assert_eq!(last.path, long.as_bytes());
    assert_eq!((last.mtime, last.uid), ((-2, 500_000_000), 4_000_000_000));
    let attributes: Vec<_> = last.attributes().collect();
    assert_eq!(attributes, [(&b"user.a"[..], &b"1\n2"[..])]);
}

#[test]
fn what_has_no_place_is_refused() {
    let refused = |entries: &[Vec<u8>]| flat(&[[entries.concat(), end()].concat()]).unwrap_err();
    let missing = refused(&[link("a", b'1', "nowhere")]);
    let expected = "layer 1 has the entry `a`, a hard link to `nowhere`, which is not there";
    assert_eq!(missing, expected);
    let circle = refused(&[link("a", b'2', "b"), link("b", b'2', "a"), file("a/x", "")]);
    assert!(
        circle.ends_with("whose folder is a circle of symlinks"),
        "{circle}"
    );
    let below = refused(&[file("a", ""), file("a/b", "")]);
    assert!(below.ends_with("whose folder is no folder"), "{below}");
    let cut = [file("a", "content")].concat();
    let error = flat(&[cut[..BLOCK + 3].to_vec()]).unwrap_err();
    assert_eq!(error, "layer 1 cannot be read");
}
