//! `image.lock`: what the names of a manifest were resolved to. Plain data and its text form.
//!
//! For each base in a registry: the digest that its reference named, and for each platform the manifest's digest and the
//! notable paths, so that layers can be placed without a byte of the base's own layers. For each base on disk that
//! packages are for, what it says about Python. Knows no rule, no network.

mod changes;
mod file;

pub(crate) use changes::changes;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::graph::SourceText;
use crate::layer::Facts;
use crate::oci::{Digest, Reference};
use crate::python::Pythons;

/// The name of the file, in the workspace's root.
pub(crate) const FILE: &str = "image.lock";

/// What the targets of a workspace are pinned to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Lock {
    /// The bases in registries, by target (`NAME` or `MEMBER:NAME`).
    pub bases: BTreeMap<String, BasePin>,
    /// The bases on disk that packages are for, by target.
    pub disks: BTreeMap<String, DiskPin>,
    /// The Python packages, by target.
    pub pips: BTreeMap<String, PipPin>,
}

/// What a base in a registry is pinned to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BasePin {
    /// The reference that was resolved, in full, as the manifest has it.
    pub image: Reference,
    /// The digest of the manifest or index that it named.
    pub digest: Digest,
    /// The image of each platform that something builds on, by platform.
    pub platforms: BTreeMap<String, PlatformPin>,
}

/// What a base is pinned to for one platform.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlatformPin {
    /// The digest of the platform's manifest.
    pub manifest: Digest,
    /// The notable facts: what decides the bytes of layers above.
    pub facts: Facts,
    /// What the base says about Python.
    pub pythons: Pythons,
}

/// What was found in a base on disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DiskPin {
    /// Which image of the layout or archive, where the manifest says it.
    pub reference: Option<String>,
    /// The digest of the archive, or of the entry of the layout's index.
    pub digest: Digest,
    /// What it says about Python, by platform.
    pub platforms: BTreeMap<String, Pythons>,
}

/// What a target of Python packages is pinned to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PipPin {
    /// The digest of what was asked for.
    pub inputs: Digest,
    /// The wheels for each target of Python, by [`crate::python::Target::name`].
    pub targets: BTreeMap<String, Wheels>,
}

/// Wheels, by file name.
pub(crate) type Wheels = BTreeMap<String, WheelPin>;

/// What a wheel is pinned to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct WheelPin {
    /// The digest of its bytes.
    pub sha256: Digest,
    /// Its size in bytes, where it is known.
    pub size: Option<u64>,
    /// Where it is, where the user said so: a URL, or a path in the workspace.
    pub url: Option<String>,
    /// The digest of the METADATA that it was chosen by, where an index or a server gave that and not the wheel's own bytes:
    /// the wheel must hold just that.
    pub metadata: Option<Digest>,
}

/// What stands before the digest of METADATA.
const METADATA: &str = "metadata=";

impl WheelPin {
    /// Tells whether it lies in the workspace.
    pub fn is_own(&self) -> bool {
        self.url.as_ref().is_some_and(|url| !url.contains("://"))
    }
}

/// `DIGEST SIZE metadata=DIGEST URL`, with `-` for a size that is not known; METADATA and URL only where there are such.
impl From<WheelPin> for String {
    fn from(pin: WheelPin) -> Self {
        let size = pin.size.map_or("-".to_owned(), |size| size.to_string());
        let url = pin.url.map_or(String::new(), |url| format!(" {url}"));
        let metadata = pin.metadata;
        let metadata = metadata.map_or(String::new(), |it| format!(" {METADATA}{it}"));
        format!("{} {size}{metadata}{url}", pin.sha256)
    }
}

impl TryFrom<String> for WheelPin {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let mut parts = text.splitn(3, ' ');
        let digest = parts.next().and_then(|it| it.parse().ok());
        let size = match parts.next() {
            Some("-") => Some(None),
            Some(size) => size.parse().ok().map(Some),
            None => None,
        };
        let rest = parts.next();
        let (metadata, url) = match rest.and_then(|it| it.strip_prefix(METADATA)) {
            Some(rest) => {
                let (digest, url) = match rest.split_once(' ') {
                    Some((digest, url)) => (digest, Some(url)),
                    None => (rest, None),
                };
                let digest = digest.parse();
                let digest = digest.map_err(|_| "METADATA of a wheel has no digest")?;
                (Some(digest), url)
            }
            None => (None, rest),
        };
        let url = url.map(str::to_owned);
        match (digest, size) {
            (Some(sha256), Some(size)) => Ok(Self {
                sha256,
                size,
                url,
                metadata,
            }),
            _ => Err("a wheel is pinned as `DIGEST SIZE`"),
        }
    }
}

/// A lock that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct LockError {
    /// What is wrong.
    pub message: String,
    /// What stands at the place.
    pub label: String,
    /// How to mend it.
    pub help: String,
    /// The file.
    pub source_text: Arc<SourceText>,
    /// The place.
    pub span: Range<usize>,
}

impl Lock {
    /// Tells whether nothing is pinned.
    pub fn is_empty(&self) -> bool {
        self.bases.is_empty() && self.disks.is_empty() && self.pips.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::{Attrs, Fact, LayerPath, Owner};
    use crate::python::{Interpreter, Libc};

    #[test]
    fn wheels_are_pinned_in_a_line() {
        let (wheel, text) = (Digest::of(b"wheel"), Digest::of(b"METADATA"));
        let url = "https://h.example/a b.whl".to_owned();
        for metadata in [None, Some(text)] {
            for url in [None, Some(url.clone())] {
                for size in [None, Some(5)] {
                    let pin = WheelPin {
                        sha256: wheel,
                        size,
                        url: url.clone(),
                        metadata,
                    };
                    let line = String::from(pin.clone());
                    assert_eq!(WheelPin::try_from(line), Ok(pin));
                }
            }
        }
        let line = format!("{wheel} 5 metadata={text}");
        let pin = WheelPin::try_from(line).unwrap();
        assert_eq!((pin.metadata, pin.url), (Some(text), None));
        for bad in [
            "metadata=",
            "metadata=sha256:00",
            "metadata=x https://h.example/",
        ] {
            assert!(
                WheelPin::try_from(format!("{wheel} 5 {bad}")).is_err(),
                "{bad}"
            );
        }
    }

    fn example() -> Lock {
        let mut facts = Facts::default();
        let path = |text: &str| LayerPath::parse(text).unwrap();
        let link = |target: &str, folder| Fact::Link {
            target: target.into(),
            folder,
        };
        facts.insert(path("bin"), link("usr/bin", true));
        facts.insert(path("etc/mtab"), link("../proc/mounts", false));
        facts.insert(
            path("tmp"),
            Fact::Folder(Attrs {
                mode: 0o1777,
                owner: Owner { uid: 0, gid: 7 },
            }),
        );
        let platform = PlatformPin {
            manifest: Digest::of(b"manifest"),
            facts,
            pythons: Pythons::new(
                vec![Interpreter {
                    path: "/usr/bin/python3.11".into(),
                    version: "3.11.2".parse().unwrap(),
                    prefix: "/usr/local".into(),
                    site: "/usr/local/lib/python3.11/dist-packages".into(),
                    platsite: None,
                    installed: vec!["six-1.16.0.dist-info".into()],
                }],
                Some(Libc::Glibc { minor: 36 }),
            ),
        };
        let wheel = WheelPin {
            sha256: Digest::of(b"wheel"),
            size: Some(5),
            url: None,
            metadata: None,
        };
        let wheels = BTreeMap::from([("a-1-py3-none-any.whl".to_owned(), wheel)]);
        let pip = PipPin {
            inputs: Digest::of(b"inputs"),
            targets: BTreeMap::from([("linux-x86_64-glibc2.36-cp311".to_owned(), wheels)]),
        };
        let pin = BasePin {
            image: "python:3.11-slim".parse().unwrap(),
            digest: Digest::of(b"index"),
            platforms: BTreeMap::from([("linux/amd64".to_owned(), platform)]),
        };
        let disk = DiskPin {
            reference: Some("bookworm".to_owned()),
            digest: Digest::of(b"archive"),
            platforms: BTreeMap::from([(
                "linux/amd64".to_owned(),
                pin.platforms["linux/amd64"].pythons.clone(),
            )]),
        };
        Lock {
            bases: BTreeMap::from([("python".to_owned(), pin.clone()), ("a:b".to_owned(), pin)]),
            disks: BTreeMap::from([("debian".to_owned(), disk)]),
            pips: BTreeMap::from([("deps".to_owned(), pip)]),
        }
    }

    #[test]
    fn text_round_trip() {
        let lock = example();
        let text = lock.to_text();
        assert!(text.contains("\"/tmp\" = \"1777 0:7\""), "{text}");
        assert!(text.contains("\"/bin\" = \"usr/bin\""), "{text}");
        assert_eq!(Lock::parse(&text).unwrap(), lock);
        assert_eq!(Lock::parse(&text).unwrap().to_text(), text);
        assert_eq!(
            Lock::parse(&Lock::default().to_text()).unwrap(),
            Lock::default()
        );
    }

    #[test]
    fn edits_conflicts_and_other_versions_are_told() {
        let text = example().to_text();
        let error = |text: &str| Lock::parse(text).unwrap_err().to_string();
        assert!(error(&text.replace("1777", "0777")).contains("`a:b` in image.lock was edited"));
        let torn = text.replace("[base.python]", "<<<<<<< ours\n[base.python]\n=======");
        assert!(error(&torn).contains("merge conflict"));
        assert!(error(&text.replace("version = 1", "version = 2")).contains("version 2"));
        let other = text.replace("ref = \"bookworm\"", "ref = \"trixie\"");
        assert!(error(&other).contains("`debian` in image.lock was edited"));
        assert!(error("version = 1\nbase = 3").contains("cannot be read"));
        assert!(error("version = 1\n[base.x]\nimage = \"y\"").contains("missing field"));

        let edited = text.replacen("usr/bin", "usr/sbin", 1);
        let left = Lock::parse_without_edited(&edited).unwrap();
        assert_eq!(left.bases.keys().collect::<Vec<_>>(), ["python"]);
    }

    #[test]
    fn says_what_moved() {
        let old = example();
        let mut new = old.clone();
        let pin = new.bases.get_mut("python").unwrap();
        pin.digest = Digest::of(b"other");
        let platform = pin.platforms.get_mut("linux/amd64").unwrap();
        platform.manifest = Digest::of(b"new");
        platform.facts.remove(&LayerPath::parse("tmp").unwrap());
        let moved = changes(&old, &new);
        assert_eq!(moved.len(), 4, "{moved:?}");
        assert!(moved[1].contains(" → "), "{moved:?}");
        assert_eq!(moved[3], "    - /tmp  1777 0:7");
        let mut replaced = old.clone();
        let disk = replaced.disks.get_mut("debian").unwrap();
        disk.digest = Digest::of(b"other archive");
        let moved = changes(&old, &replaced);
        assert_eq!(moved.len(), 2, "{moved:?}");
        assert_eq!(moved[0], "debian: on disk");
        assert!(moved[1].contains(" → "), "{moved:?}");
        replaced.disks.clear();
        assert_eq!(changes(&old, &replaced), ["debian: removed, was on disk"]);
        assert_eq!(changes(&old, &old), Vec::<String>::new());
        assert_eq!(
            changes(&Lock::default(), &old)[0],
            "a:b: new, docker.io/library/python:3.11-slim"
        );
    }
}
