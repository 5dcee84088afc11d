//! The wheel of the tests: it is right, and each test changes something about it.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;

use super::zip_testing::{self, Entry};
use super::{Expected, Scheme, WheelError, install};
use crate::layer::{Kind, LayerPath, Owner, Tree};
use crate::oci::Digest;

pub(super) const SITE: &str = "usr/local/lib/python3.11/site-packages";

pub(super) fn path(text: &str) -> LayerPath {
    LayerPath::parse(text).unwrap()
}

pub(super) fn scheme() -> Scheme {
    Scheme {
        prefix: path("usr/local"),
        site: path(SITE),
        platsite: None,
        interpreter: "/usr/local/bin/python3.11".to_owned(),
        python: (3, 11),
        owner: Owner::default(),
    }
}

/// The members of a wheel that is right, but for its RECORD.
pub(super) fn entries() -> Vec<Entry> {
    let wheel = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n";
    let metadata = "Metadata-Version: 2.1\nName: pkg\nVersion: 1.0\n";
    vec![
        Entry::new("pkg/__init__.py", "x = 1\n"),
        Entry::new("pkg/data.bin", vec![7; 100]),
        Entry::new("pkg-1.0.dist-info/METADATA", metadata),
        Entry::new("pkg-1.0.dist-info/WHEEL", wheel),
    ]
}

/// Adds the RECORD that belongs to the members.
pub(super) fn recorded(mut entries: Vec<Entry>) -> Vec<Entry> {
    let mut text = String::new();
    for entry in &entries {
        let hash = URL_SAFE.encode(Digest::of(&entry.data).bytes());
        let (name, hash) = (
            String::from_utf8_lossy(&entry.name),
            hash.trim_end_matches('='),
        );
        text += &format!("{name},sha256={hash},{}\n", entry.data.len());
    }
    text += "pkg-1.0.dist-info/RECORD,,\n";
    entries.push(Entry::new("pkg-1.0.dist-info/RECORD", text));
    entries
}

pub(super) fn expected() -> Expected {
    Expected {
        name: "pkg".parse().unwrap(),
        version: "1.0".parse().unwrap(),
        file: "pkg-1.0-py3-none-any.whl".to_owned(),
        digest: Digest::of(b"pkg"),
        size: None,
        url: None,
        metadata: None,
    }
}

pub(super) fn install_bytes(bytes: &[u8], scheme: &Scheme) -> Result<Tree, WheelError> {
    install_as(bytes, scheme, &expected())
}

pub(super) fn install_as(
    bytes: &[u8],
    scheme: &Scheme,
    expected: &Expected,
) -> Result<Tree, WheelError> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wheel");
    std::fs::write(&file, bytes).unwrap();
    let tree = install(&file, expected, scheme, &|_| true)?;
    // Whatever a wheel says, it stays where it may be, and every content can be read.
    for (path, entry) in tree.entries() {
        assert!(path.is_within(&scheme.prefix), "{path} leads out");
        match &entry.kind {
            Kind::File { content, attrs } => {
                assert!(matches!(attrs.mode, 0o644 | 0o755), "{path}");
                let mut bytes = Vec::new();
                content
                    .append(&mut bytes, 0, content.size as usize)
                    .unwrap();
                assert_eq!(Digest::of(&bytes), content.digest, "{path}");
            }
            Kind::Folder { attrs, firm: false } => assert_eq!(attrs.mode, 0o755),
            other => panic!("{path}: {}", other.word()),
        }
        assert_eq!(entry.mtime, 0);
    }
    Ok(tree)
}

/// Changes the members of a wheel before its RECORD is made.
pub(super) fn with(change: impl FnOnce(&mut Vec<Entry>)) -> Vec<u8> {
    let mut entries = entries();
    change(&mut entries);
    zip_testing::archive(&recorded(entries))
}

/// Changes the members of a wheel that has its RECORD.
pub(super) fn after(change: impl FnOnce(&mut Vec<Entry>)) -> Vec<u8> {
    let mut entries = recorded(entries());
    change(&mut entries);
    zip_testing::archive(&entries)
}

pub(super) fn plus(entry: Entry) -> Vec<u8> {
    with(|entries| entries.push(entry))
}

pub(super) fn at<'a>(entries: &'a mut [Entry], name: &str) -> &'a mut Entry {
    let mut found = entries.iter_mut();
    found.find(|it| it.name == name.as_bytes()).unwrap()
}

pub(super) fn text(entries: &mut [Entry], name: &str, text: impl AsRef<[u8]>) {
    at(entries, name).data = text.as_ref().to_vec();
}

pub(super) fn record(change: impl FnOnce(String) -> Vec<u8>) -> Vec<u8> {
    after(|entries| {
        let record = at(entries, "pkg-1.0.dist-info/RECORD");
        record.data = change(String::from_utf8(record.data.clone()).unwrap());
    })
}

pub(super) fn metadata(change: impl AsRef<[u8]>) -> Vec<u8> {
    with(|entries| text(entries, "pkg-1.0.dist-info/METADATA", change))
}

pub(super) fn wheel(change: &str) -> Vec<u8> {
    with(|entries| text(entries, "pkg-1.0.dist-info/WHEEL", change))
}

pub(super) fn entry_points(text: &str) -> Vec<u8> {
    plus(Entry::new("pkg-1.0.dist-info/entry_points.txt", text))
}

pub(super) fn moded(name: &str, mode: u32) -> Entry {
    Entry {
        mode,
        ..Entry::new(name, "x")
    }
}

/// Paths and modes of the files below the prefix, with their contents as text, but for the dist-info folder.
pub(super) fn files(tree: &Tree) -> BTreeMap<String, (u16, String)> {
    let mut found = BTreeMap::new();
    for (path, entry) in tree.entries() {
        let Kind::File { attrs, content } = &entry.kind else {
            continue;
        };
        let path = path.as_str();
        let path = path.strip_prefix(SITE).unwrap_or(path);
        if !path.contains(".dist-info/") {
            // The wheel's file is gone by now; what was made is in memory.
            let text = match &content.source {
                crate::layer::Source::Bytes(bytes) => String::from_utf8_lossy(bytes).into(),
                _ => String::new(),
            };
            found.insert(path.to_owned(), (attrs.mode, text));
        }
    }
    found
}

/// Checks that a wheel is refused, with a message that holds `words`, names the wheel, and says how to mend it.
#[track_caller]
pub(super) fn refused(bytes: &[u8], words: &str) {
    match install_bytes(bytes, &scheme()) {
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains(words), "{text:?} lacks {words:?}");
            assert!(text.starts_with("pkg-1.0-py3-none-any.whl: "), "{text}");
            assert!(!error.help().is_empty());
            assert!(error.code().starts_with("imgdecl::wheel::"));
        }
        Ok(tree) => panic!("not refused: {:?}", files(&tree)),
    }
}

/// Checks that a wheel brings these files besides those that every wheel of this test has.
#[track_caller]
pub(super) fn right(bytes: &[u8], more: &[(&str, u16)]) -> Tree {
    let tree = match install_bytes(bytes, &scheme()) {
        Ok(tree) => tree,
        Err(error) => panic!("{error}"),
    };
    let found: Vec<(String, u16)> = files(&tree)
        .into_iter()
        .map(|(path, (mode, _))| (path, mode))
        .collect();
    let mut expected = vec![
        ("/pkg/__init__.py".to_owned(), 0o644),
        ("/pkg/data.bin".to_owned(), 0o644),
    ];
    expected.extend(more.iter().map(|(path, mode)| ((*path).to_owned(), *mode)));
    expected.sort();
    assert_eq!(found, expected);
    tree
}

/// Returns the RECORD of a tree.
pub(super) fn record_of(tree: &Tree) -> String {
    let path = format!("{SITE}/pkg-1.0.dist-info/RECORD");
    let entry = &tree.entries()[path.as_str()];
    let Kind::File { content, .. } = &entry.kind else {
        panic!("RECORD is a {}", entry.kind.word());
    };
    let mut bytes = Vec::new();
    content
        .append(&mut bytes, 0, content.size as usize)
        .unwrap();
    String::from_utf8(bytes).unwrap()
}
