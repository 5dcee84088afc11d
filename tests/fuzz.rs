//! Parsers against damaged input: seeded, bounded mutations of good input. Whatever comes, there is an answer or an error,
//! and no panic.

use std::collections::BTreeSet;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use imgdecl::parts::layer::{Facts, FactsBuilder, LayerPath, decoder, detect};
use imgdecl::parts::lock::Lock;
use imgdecl::parts::oci::{Config, Index, Manifest, Platform, Reference};
use imgdecl::parts::plan::{self, Request};
use imgdecl::parts::python::wheel;
use imgdecl::parts::python::{
    Asked, Files, Metadata, Place, Source, Target, UvWanted, WheelName, hashed, pylock, pyproject,
    read, uv_lock,
};
use imgdecl::parts::spec::{Host, Spec};

use crate::support::Random;
use crate::support::wheel::Recipe;

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
    fn variable(&self, _: &str) -> Option<String> {
        None
    }

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
        let names = imgdecl::parts::rule::names();
        let Ok(spec) = Spec::load(&path, &names, &[]) else {
            return;
        };
        let request = Request {
            except: Vec::new(),
            lock: &Lock::default(),
            with_bytes: true,
            is_locking: false,
            spec: &spec,
            host: &NoHost,
            targets: Vec::new(),
            platforms: Vec::new(),
            never: BTreeSet::new(),
            documents: Vec::new(),
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
        tar.extend(imgdecl::parts::layer::plain_header(
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

/// Gives every file the same text.
struct Same(String);

impl Files for Same {
    fn read(&self, _: &str) -> Result<String, String> {
        Ok(self.0.clone())
    }
}

#[test]
fn python_inputs() {
    let hash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let target = Target {
        arch: "amd64".to_owned(),
        libc: "glibc 2.36".parse().unwrap(),
        python: "3.11.9".parse().unwrap(),
    };
    let place = |text: &str| {
        let source = Arc::new(Source {
            name: "é.txt".to_owned(),
            text: text.to_owned(),
        });
        Place::new(&source, 0..text.len())
    };
    let requirements = format!(
        "# é\nflask[async] >=2,<3 ; python_version < '3.12' and os_name == \"posix\"\na==1 \\\n  --hash=sha256:{hash}\n\
         -i https://${{TOKEN}}@h/s --pre\nb @ https://h/b-1%2Bx-py3-none-any.whl#sha256={hash}\n./w/c-1-py3-none-any.whl[x]\n"
    );
    fuzz("requirements", requirements.as_bytes(), 4000, |bytes| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let file = [("r.txt".to_owned(), place("requirements"))];
        let lookup = |_: &str| Some("é".to_owned());
        match read(&file, &[], &Same(text.clone()), &lookup) {
            Ok(requested) => {
                let _ = hashed(&requested, &target);
                requested
                    .asked
                    .iter()
                    .for_each(|it| assert!(it.place.span.end <= text.len()));
            }
            Err(errors) => errors.iter().for_each(|it| {
                let _ = it.to_string();
                let span = &it.place.span;
                assert!(it.place.source.text.get(span.clone()).is_some(), "{span:?}");
            }),
        }
        let line = text.lines().nth(1).unwrap_or_default();
        let _ = Asked::parse(line, &place(line), "r.txt");
    });
    let package = format!(
        "name = \"a\"\nversion = \"1\"\nmarker = \"'x' in extras or os_name == 'posix'\"\nsource = {{ registry = \"https://h\" }}\n\
         dependencies = [{{ name = \"a\", extra = [\"x\"], marker = \"sys_platform == 'linux'\" }}]\n\
         wheels = [{{ url = \"https://h/a-1-py3-none-any.whl\", hash = \"sha256:{hash}\", hashes = {{ sha256 = \"{hash}\" }} }}]\n"
    );
    let lock = format!(
        "version = 1\nlock-version = \"1.0\"\nrequires-python = \">=3.8\"\n[[package]]\nname = \"p\"\nversion = \"1\"\n\
         source = {{ virtual = \".\" }}\ndependencies = [{{ name = \"a\" }}]\n[[package]]\n{package}[[packages]]\n{package}"
    );
    fuzz("locks", lock.as_bytes(), 3000, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let _ = uv_lock("uv.lock", &text, &UvWanted::default(), &target);
        if let Ok(set) = pylock("pylock.toml", &text, &[], None, &target) {
            let tags = target.tags();
            for package in set.packages {
                let _ = package.wheel(&target, &tags);
            }
        }
    });
    let project = "[project]\nname = 'p'\ndependencies = ['a>=1', 'é']\n[project.optional-dependencies]\nx = ['p[x]', 'b']\n\
                   [dependency-groups]\ng = ['c', {include-group = 'g'}]\n";
    fuzz("pyproject", project.as_bytes(), 2000, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let _ = pyproject("p", &text, &["x".to_owned()], &["g".to_owned()]);
    });
    let metadata = "Name: a\nVersion: 1.0\nRequires-Dist: b (>=1.9.*,!=2*) ; python_version < '3'\nRequires-Python: >=3\n c\n";
    fuzz("METADATA", metadata.as_bytes(), 3000, |bytes| {
        let _ = Metadata::parse(&String::from_utf8_lossy(bytes));
    });
    let name = "Foo_bar-1.0%2Bx-1a-cp311.py3-abi3.none-manylinux_2_17_x86_64.macosx_11_0_arm64.whl";
    fuzz("wheel names", name.as_bytes(), 3000, |bytes| {
        if let Ok(wheel) = WheelName::parse(&String::from_utf8_lossy(bytes)) {
            let _ = wheel.misfit(&target);
        }
    });
}

/// A wheel's bytes, which count what is read of them.
struct Counted {
    bytes: Vec<u8>,
    read: u64,
}

impl wheel::Bytes for Counted {
    type Error = wheel::Problem;

    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read(&mut self, at: u64, count: u64) -> Result<Vec<u8>, wheel::Problem> {
        self.read += count;
        let at = usize::try_from(at).expect("in memory");
        let count = usize::try_from(count).expect("in memory");
        Ok(self.bytes[at..at + count].to_vec())
    }
}

/// Damaged wheels are read or refused; and of none is more read than a few times its size.
#[test]
fn wheels() {
    let good = Recipe::new("pk", "1.0")
        .file("pk/data.txt", "text ".repeat(50))
        .make();
    let mut random = Random(7);
    let mut refused = 0;
    for _ in 0..4000 {
        let mut bytes = good.bytes.clone();
        mutate(&mut random, &mut bytes);
        let size = bytes.len() as u64;
        let mut counted = Counted { bytes, read: 0 };
        let read = || -> Result<(), wheel::Problem> {
            for entry in wheel::directory(&mut counted)? {
                entry.data(&mut counted)?;
                entry.read(&mut counted, 1 << 20)?;
            }
            wheel::read_metadata(&mut counted, |_, _, _| Ok(()))?;
            Ok(())
        };
        refused += u32::from({ read }().is_err());
        assert!(
            counted.read <= 12 * size + 4096,
            "{} of {size}",
            counted.read
        );
    }
    assert!(refused > 3000, "{refused}");
}
