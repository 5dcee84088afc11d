//! Parsers against damaged input: seeded, bounded mutations of good input. Whatever comes, there is an answer or an error,
//! and no panic.

use std::collections::BTreeSet;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use imgdecl::layer::{Facts, FactsBuilder, LayerPath, decoder, detect};
use imgdecl::lock::Lock;
use imgdecl::oci::{Config, Index, Manifest, Platform, Reference};
use imgdecl::plan::{self, Request};
use imgdecl::spec::{Host, Spec};

use crate::support::Random;

fn below(random: &mut Random, end: usize) -> usize {
    random.below(end as u64) as usize
}

/// Changes, removes, repeats or inserts a few bytes.
fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    const ODD: &[&[u8]] = &[
        b"\0",
        b"\xff",
        b"..",
        b"/",
        b"${",
        b"}",
        b"\"",
        b"[",
        b"=",
        b"\n",
        b"-",
        b"99999999999999999999",
        "é".as_bytes(),
    ];
    for _ in 0..=below(random, 4) {
        let at = below(random, bytes.len() + 1);
        let end = (at + below(random, 12)).min(bytes.len());
        match below(random, 5) {
            0 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = random.next() as u8;
                }
            }
            1 => drop(bytes.drain(at..end)),
            2 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            3 => bytes.truncate(at),
            _ => {
                let odd = ODD[below(random, ODD.len())];
                bytes.splice(at..at, odd.iter().copied());
            }
        }
    }
}

/// Calls `parse` with `count` mutations of `seed`.
fn fuzz(name: &str, seed: &[u8], count: u64, parse: impl Fn(&[u8])) {
    for number in 0..count {
        let mut random = Random(0x9E37_79B9_7F4A_7C15 ^ (number + 1));
        let mut bytes = seed.to_vec();
        mutate(&mut random, &mut bytes);
        let result = catch_unwind(AssertUnwindSafe(|| parse(&bytes)));
        assert!(
            result.is_ok(),
            "{name}: mutation {number} panics: {:?}",
            String::from_utf8_lossy(&bytes)
        );
    }
}

struct NoHost;

impl Host for NoHost {
    fn git(&self, _: &Path, _: &str) -> Result<String, String> {
        Err("there is no git here".into())
    }

    fn source_date_epoch(&self) -> Option<u64> {
        None
    }
}

#[test]
fn manifests() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.toml");
    let seed = include_str!("../image.toml.example");
    fuzz("image.toml", seed.as_bytes(), 1500, |bytes| {
        std::fs::write(&path, bytes).unwrap();
        let names = imgdecl::rule::names();
        let Ok(spec) = Spec::load(&path, &names, &[]) else {
            return;
        };
        let request = Request {
            lock: &Lock::default(),
            with_bytes: true,
            spec: &spec,
            host: &NoHost,
            targets: Vec::new(),
            platforms: Vec::new(),
            never: BTreeSet::new(),
        };
        if let Ok(plan) = plan::plan(&request) {
            let _ = plan::render(&plan, &|_, _| String::new());
        }
    });
}

#[test]
fn layers() {
    let mut tar = Vec::new();
    for path in [
        "usr/",
        "usr/lib/",
        "usr/lib/x",
        "a-very-long-name-é/",
        "a-very-long-name-é/.wh.gone",
        "tmp/.wh..wh..opq",
    ] {
        tar.extend(imgdecl::layer::plain_header(
            path,
            if path.ends_with('x') { 3 } else { 0 },
        ));
        if path.ends_with('x') {
            tar.extend([b'x'; 512]);
        }
    }
    tar.extend([0; 1024]);
    let read = |bytes: &[u8]| {
        let Ok((compression, peeked)) = detect(bytes) else {
            return;
        };
        let Ok(reader) = decoder(compression, peeked) else {
            return;
        };
        // A damaged size could ask for anything: what is read is bounded by what is there.
        let mut builder = FactsBuilder::default();
        let _ = builder.apply(&mut reader.take(1 << 22), &|_| true);
        let _ = builder.finish();
    };
    fuzz("tar", &tar, 4000, read);
    let zstd = zstd::bulk::compress(&tar, 3).unwrap();
    fuzz("tar.zst", &zstd, 2000, read);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut gzip, &tar).unwrap();
    fuzz("tar.gz", &gzip.finish().unwrap(), 2000, read);
}

#[test]
fn documents_and_names() {
    let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let config = format!(
        r#"{{"architecture":"arm64","os":"linux","variant":"v8","config":{{"Env":["PATH=/bin","X"]}},"rootfs":{{"type":"layers","diff_ids":["{digest}"]}},"history":[{{"empty_layer":true}},{{}}]}}"#
    );
    fuzz("config", config.as_bytes(), 4000, |bytes| {
        if let Ok(config) = Config::parse(bytes) {
            let _ = (config.history(), config.env(), config.to_bytes());
        }
    });
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"x","digest":"{digest}","size":1}},"layers":[],"manifests":[],"annotations":{{"a":"b"}}}}"#
    );
    fuzz("manifest", manifest.as_bytes(), 2000, |bytes| {
        let _ = serde_json::from_slice::<Manifest>(bytes).map(|manifest| manifest.to_bytes());
        let _ = serde_json::from_slice::<Index>(bytes).map(|index| index.to_bytes());
    });
    let reference = format!("registry.example:5000/team/app__x:v1.2@{digest}");
    fuzz("names", reference.as_bytes(), 8000, |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return;
        };
        if let Ok(reference) = text.parse::<Reference>() {
            assert_eq!(
                reference.to_string().parse::<Reference>().as_ref(),
                Ok(&reference)
            );
        }
        let _ = text.parse::<Platform>();
        if let Ok(path) = LayerPath::parse(text) {
            assert!(path.as_str().split('/').all(|it| it != ".."), "{text:?}");
            assert_eq!(LayerPath::parse(path.as_str()), Ok(path));
        }
        let _ = Facts::parse(text);
    });
    fuzz(
        "facts",
        b"usr\tfolder\t755\t0\t0\nlib\tlink\tusr/lib\n",
        4000,
        |bytes| {
            let Ok(text) = std::str::from_utf8(bytes) else {
                return;
            };
            if let Some(facts) = Facts::parse(text) {
                assert_eq!(Facts::parse(&facts.to_text()), Some(facts));
            }
        },
    );
}
