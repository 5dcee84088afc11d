//! Tests of layers that are written.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use super::*;
use crate::layer::compress::compress;
use crate::layer::{Anew, Attrs, Entry, Facts, Kind, LayerPath, Owner, Tree, deflated, resolve};
use crate::oci::Digest;

fn changes() -> Changeset {
    let mut tree = Tree::default();
    for n in 0..300usize {
        let bytes: Vec<u8> = (0..n * 331).map(|i| (i * n % 251) as u8).collect();
        let attrs = Attrs {
            mode: 0o644,
            owner: Owner::default(),
        };
        let kind = Kind::File {
            attrs,
            content: Content::bytes(bytes),
        };
        tree.insert(
            LayerPath::parse(&format!("d{}/f{n}", n % 7)).unwrap(),
            Entry::new(kind),
        )
        .unwrap();
    }
    resolve(&[Arc::new(tree)], &Facts::default()).unwrap()
}

#[test]
fn threads_do_not_change_bytes() {
    let changes = changes();
    for compression in [Compression::Gzip, Compression::Zstd, Compression::None] {
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            let mut out = Vec::new();
            let written = pool
                .install(|| write(&changes, compression, &Anew, &mut out, &|_| true))
                .unwrap();
            (out, written)
        };
        let (one, sixteen) = (with(1), with(16));
        assert_eq!(one.1, sixteen.1);
        assert!(one.0 == sixteen.0);
    }
}

/// Files that lie deflated in archives, the same files in memory, and the folder that holds the archives.
fn deflated() -> (Changeset, Changeset, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let (mut raw, mut plain) = (Tree::default(), Tree::default());
    let sizes = [
        1,
        65_535,
        65_536,
        65_537,
        1 << 20,
        (1 << 20) + 1,
        5_000_000,
        100,
    ];
    for (n, size) in sizes.into_iter().enumerate() {
        let bytes: Vec<u8> = (0..size)
            .map(|i: u32| (i.wrapping_mul(i) >> 11) as u8)
            .collect();
        let name = format!("f{n}");
        let content = deflated::tests::deflated(folder.path(), &name, &bytes);
        for (tree, content) in [(&mut raw, content), (&mut plain, Content::bytes(bytes))] {
            let attrs = Attrs {
                mode: 0o644,
                owner: Owner::default(),
            };
            tree.insert(
                LayerPath::parse(&name).unwrap(),
                Entry::new(Kind::File { attrs, content }),
            )
            .unwrap();
        }
    }
    let changes = |tree| resolve(&[Arc::new(tree)], &Facts::default()).unwrap();
    (changes(raw), changes(plain), folder)
}

fn written(changes: &Changeset, compression: Compression) -> (Vec<u8>, Written) {
    let mut out = Vec::new();
    let written = write(changes, compression, &Anew, &mut out, &|_| true).unwrap();
    (out, written)
}

#[test]
fn deflated_members_are_passed_on_to_gzip() {
    use std::io::Read;
    let (raw, plain, folder) = deflated();
    let (blob, facts) = written(&raw, Compression::Gzip);
    let (tar, plain_facts) = written(&plain, Compression::None);
    assert_eq!(
        (facts.diff_id, facts.size),
        (plain_facts.diff_id, plain_facts.size)
    );
    let mut inflated = Vec::new();
    flate2::read::MultiGzDecoder::new(&blob[..])
        .read_to_end(&mut inflated)
        .unwrap();
    assert!(inflated == tar);
    for n in 0..8 {
        let file = std::fs::read(folder.path().join(format!("f{n}"))).unwrap();
        let stream = &file[6..file.len() - 5];
        let mut member = GZIP_HEADER.to_vec();
        member.extend_from_slice(stream);
        let found = blob.windows(member.len()).any(|it| it == member);
        assert_eq!(found, (2..7).contains(&n), "f{n}");
    }
}

#[test]
fn deflated_members_are_as_others_without_gzip() {
    let (raw, plain, _folder) = deflated();
    for compression in [Compression::Zstd, Compression::None] {
        assert!(written(&raw, compression) == written(&plain, compression));
    }
}

#[test]
fn threads_do_not_change_passed_bytes() {
    let (raw, _, _folder) = deflated();
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.unwrap().install(|| written(&raw, Compression::Gzip))
    };
    assert!(with(1) == with(16));
}

#[test]
fn damage_is_found_while_writing() {
    let (raw, _, folder) = deflated();
    for n in [0, 3, 6] {
        let path = folder.path().join(format!("f{n}"));
        let good = std::fs::read(&path).unwrap();
        let mut bad = good.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 0x55;
        std::fs::write(&path, bad).unwrap();
        for compression in [Compression::Gzip, Compression::Zstd, Compression::None] {
            let error = write(&raw, compression, &Anew, &mut Vec::new(), &|_| true).unwrap_err();
            let WriteError::Content(ContentError::Damaged { member, .. }) = error else {
                panic!("{error}");
            };
            assert_eq!(member, format!("f{n}"));
        }
        std::fs::write(&path, good).unwrap();
    }
}

#[test]
fn stops_within_a_large_member() {
    let (raw, _, _folder) = deflated();
    // Only what is inflated in steps comes in pieces of this size.
    let tick = |bytes| bytes != STEP as u64;
    let result = write(&raw, Compression::Gzip, &Anew, &mut Vec::new(), &tick);
    assert!(matches!(result, Err(WriteError::Stopped)));
}

/// Gives the segments of one layer, and counts how many were taken; may lie.
struct One {
    blob: Vec<u8>,
    segments: Vec<Placed>,
    found: AtomicUsize,
    lie: fn(&mut Vec<u8>),
}

impl Reuse for One {
    fn find(&self, key: &Digest) -> Option<Vec<u8>> {
        let placed = self.segments.iter().find(|it| it.key == *key)?;
        let mut bytes = self.blob[placed.offset as usize..][..placed.length as usize].to_vec();
        assert!(placed.fits(&bytes));
        (self.lie)(&mut bytes);
        self.found.fetch_add(1, Ordering::Relaxed);
        Some(bytes)
    }
}

/// Some 3 MB in files and one large one; `changed` is another content of one of them.
fn many(changed: u8) -> Changeset {
    let mut tree = Tree::default();
    for n in 0..200u32 {
        let size = if n == 150 { 3 << 20 } else { 8000 };
        let byte = if n == 100 { changed } else { 0 };
        let bytes: Vec<u8> = (0..size).map(|i| (i * n / 7) as u8 ^ byte).collect();
        let attrs = Attrs {
            mode: 0o644,
            owner: Owner::default(),
        };
        let content = Content::bytes(bytes);
        let path = LayerPath::parse(&format!("f{n:03}")).unwrap();
        tree.insert(path, Entry::new(Kind::File { attrs, content }))
            .unwrap();
    }
    resolve(&[Arc::new(tree)], &Facts::default()).unwrap()
}

#[test]
fn segments_of_earlier_layers_are_copied_and_liars_cost_work_only() {
    let lies: [fn(&mut Vec<u8>); 4] = [
        |_| {},
        |bytes| bytes.truncate(bytes.len() / 2),
        |bytes| bytes.clear(),
        |bytes| *bytes = compress(Compression::Gzip, b"something else"),
    ];
    for compression in [Compression::Gzip, Compression::Zstd] {
        let mut blob = Vec::new();
        let before = write(&many(1), compression, &Anew, &mut blob, &|_| true).unwrap();
        let (expected, facts) = written(&many(2), compression);
        for lie in lies {
            let one = One {
                blob: blob.clone(),
                segments: before.segments.clone(),
                found: AtomicUsize::new(0),
                lie,
            };
            let mut out = Vec::new();
            let after = write(&many(2), compression, &one, &mut out, &|_| true).unwrap();
            assert!(out == expected);
            assert_eq!(after, facts);
            let (found, all) = (one.found.into_inner(), after.segments.len());
            assert!(found == all - 1, "{found} of {all}");
        }
    }
}

#[test]
fn stops_when_told() {
    let result = write(
        &changes(),
        Compression::None,
        &Anew,
        &mut Vec::new(),
        &|_| false,
    );
    assert!(matches!(result, Err(WriteError::Stopped)));
}
