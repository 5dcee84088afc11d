//! What targets of Python packages are pinned to, and its form in `image.lock`.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::graph::WheelHome;
use crate::lock::{Move, Pin};
use crate::oci::Digest;
use crate::python::WheelName;

/// What a target of Python packages is pinned to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct PipPin {
    /// The digest of what was asked for, as it was written.
    pub(super) inputs: Digest,
    /// The digest of what that means; locks that were made before this was told do not have it.
    pub(super) means: Option<Digest>,
    /// The wheels for each target of Python, by [`crate::python::Target::name`].
    pub(super) targets: BTreeMap<String, Wheels>,
}

impl PipPin {
    /// Returns the normalised names of its packages.
    pub(super) fn packages(&self) -> BTreeSet<String> {
        let files = self.targets.values().flat_map(BTreeMap::keys);
        files.filter_map(|it| package(it)).collect()
    }

    /// Returns it without a package, and as one that is for something else.
    pub(super) fn without(&self, name: &str) -> Self {
        let mut pin = self.clone();
        for wheels in pin.targets.values_mut() {
            wheels.retain(|file, _| package(file).is_none_or(|it| it != name));
        }
        (pin.inputs, pin.means) = (Digest::of(b""), None);
        pin
    }
}

/// Returns the normalised name of the package of a wheel.
fn package(file: &str) -> Option<String> {
    let wheel = WheelName::parse(file).ok()?;
    Some(wheel.name.to_string())
}

/// Wheels, by file name.
pub(super) type Wheels = BTreeMap<String, WheelPin>;

/// What a wheel is pinned to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(super) struct WheelPin {
    /// The digest of its bytes.
    pub(super) sha256: Digest,
    /// Its size in bytes, where it is known.
    pub(super) size: Option<u64>,
    /// Where it is, where the user said so: a URL, or a path in the workspace.
    pub(super) url: Option<String>,
    /// Where it is listed, where a file of the user's names that place: it is taken from there alone.
    pub(super) home: Option<WheelHome>,
    /// The digest of the METADATA that it was chosen by, where an index or a server gave that and not the wheel's own bytes:
    /// the wheel must hold just that.
    pub(super) metadata: Option<Digest>,
}

/// What stands before the digest of METADATA.
const METADATA: &str = "metadata=";

/// What stands before the URL of an index, and before that of a page of links.
const INDEX: &str = "index=";
const PAGE: &str = "page=";

impl WheelPin {
    /// Tells whether it lies in the workspace.
    pub(super) fn is_own(&self) -> bool {
        self.url.as_ref().is_some_and(|url| !url.contains("://"))
    }

    /// Returns the URL that the user named.
    pub(super) fn hint(&self) -> Option<&str> {
        self.url.as_deref().filter(|_| !self.is_own())
    }
}

/// `DIGEST SIZE index=URL metadata=DIGEST URL`, with `-` for a size that is not known, and `page=URL` for a page of links.
/// What follows the size stands only where there is such.
impl From<WheelPin> for String {
    fn from(pin: WheelPin) -> Self {
        let size = pin.size.map_or("-".to_owned(), |size| size.to_string());
        let mut text = format!("{} {size}", pin.sha256);
        text += &match pin.home {
            None => String::new(),
            Some(WheelHome::Index(url)) => format!(" {INDEX}{url}"),
            Some(WheelHome::Page(url)) => format!(" {PAGE}{url}"),
        };
        let metadata = pin.metadata;
        text += &metadata.map_or(String::new(), |it| format!(" {METADATA}{it}"));
        text += &pin.url.map_or(String::new(), |url| format!(" {url}"));
        text
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
        let mut rest = parts.next();
        // A word with what it begins with taken off, and then goes on behind it.
        let mut word = |start: &str| {
            let after = rest.and_then(|it| it.strip_prefix(start))?;
            let (word, next) = match after.split_once(' ') {
                Some((word, next)) => (word, Some(next)),
                None => (after, None),
            };
            rest = next;
            Some(word.to_owned())
        };
        let index = word(INDEX).map(WheelHome::Index);
        let home = index.or_else(|| word(PAGE).map(WheelHome::Page));
        let metadata = word(METADATA).map(|it| it.parse()).transpose();
        let metadata = metadata.map_err(|_| "METADATA of a wheel has no digest")?;
        match (digest, size) {
            (Some(sha256), Some(size)) => Ok(Self {
                sha256,
                size,
                url: rest.map(str::to_owned),
                home,
                metadata,
            }),
            _ => Err("a wheel is pinned as `DIGEST SIZE`"),
        }
    }
}

/// The form of the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PipEntry {
    inputs: Digest,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    means: Option<Digest>,
    seal: Digest,
    #[serde(default)]
    target: BTreeMap<String, Wheels>,
}

impl Pin for PipPin {
    const RULE: &'static str = "pip";

    type Entry = PipEntry;

    fn entry(&self) -> PipEntry {
        PipEntry {
            inputs: self.inputs,
            means: self.means,
            seal: Digest::of(b""),
            target: self.targets.clone(),
        }
    }

    fn of_entry(entry: PipEntry) -> Option<Self> {
        Some(Self {
            inputs: entry.inputs,
            means: entry.means,
            targets: entry.target,
        })
    }

    fn seal(entry: &mut PipEntry) -> &mut Digest {
        &mut entry.seal
    }

    fn sealed(entry: &PipEntry) -> Vec<u8> {
        let text = match entry.means {
            // As it was before entries had it.
            None => serde_json::to_vec(&(entry.inputs, &entry.target)),
            Some(means) => serde_json::to_vec(&(entry.inputs, means, &entry.target)),
        };
        text.expect("entries have string keys only")
    }

    fn changes(moves: &[Move<'_, Self>]) -> Vec<String> {
        let mut lines = Vec::new();
        let none = BTreeMap::new();
        for Move {
            target: name,
            was,
            is,
        } in moves
        {
            let targets = |pin: &Option<&'_ Self>| pin.map(|pin| pin.targets.clone());
            let (was, is) = (targets(was), targets(is));
            let (was, is) = (was.unwrap_or_default(), is.unwrap_or_default());
            for target in was.keys().chain(is.keys()).collect::<BTreeSet<_>>() {
                let was = was.get(target).unwrap_or(&none);
                let is = is.get(target).unwrap_or(&none);
                if was == is {
                    continue;
                }
                let mut files = Vec::new();
                let gone = was.keys().filter(|file| !is.contains_key(*file));
                files.extend(gone.map(|file| format!("    - {file}")));
                // What else is known of the same bytes is no change.
                let is_same = |file, pin: &WheelPin| {
                    let was: Option<&WheelPin> = was.get(file);
                    was.is_some_and(|was| {
                        (was.sha256, &was.url, &was.home) == (pin.sha256, &pin.url, &pin.home)
                    })
                };
                let come = is.iter().filter(|(file, pin)| !is_same(*file, pin));
                files.extend(come.map(|(file, _)| format!("    + {file}")));
                if !files.is_empty() {
                    lines.push(format!("{name}: {target}"));
                    lines.extend(files);
                }
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(means: Option<Digest>) -> PipPin {
        let wheel = WheelPin {
            sha256: Digest::of(b"wheel"),
            size: Some(1),
            url: None,
            home: None,
            metadata: None,
        };
        let files = ["A_b-1-py3-none-any.whl", "c-2-py3-none-any.whl"];
        let wheels = files.map(|it| (it.to_owned(), wheel.clone()));
        PipPin {
            inputs: Digest::of(b"inputs"),
            means,
            targets: BTreeMap::from([("target".to_owned(), BTreeMap::from(wheels))]),
        }
    }

    #[test]
    fn a_package_is_forgotten() {
        let pin = pin(Some(Digest::of(b"means")));
        assert_eq!(Vec::from_iter(pin.packages()), ["a-b", "c"]);
        let other = pin.without("a-b");
        assert_eq!(Vec::from_iter(other.packages()), ["c"]);
        assert!(other.inputs != pin.inputs && other.means.is_none());
    }

    #[test]
    fn seals_of_locks_without_a_meaning_stay() {
        let old = pin(None).entry();
        let text = serde_json::to_vec(&(old.inputs, &old.target)).unwrap();
        assert_eq!(PipPin::sealed(&old), text);
        let new = pin(Some(Digest::of(b"means"))).entry();
        let other = pin(Some(Digest::of(b"other"))).entry();
        assert!(PipPin::sealed(&new) != text && PipPin::sealed(&new) != PipPin::sealed(&other));
    }

    #[test]
    fn wheels_are_pinned_in_a_line() {
        let (wheel, text) = (Digest::of(b"wheel"), Digest::of(b"METADATA"));
        let url = "https://h.example/a b.whl".to_owned();
        let homes = [
            None,
            Some(WheelHome::Index("https://i.example/simple/".to_owned())),
            Some(WheelHome::Page("https://p.example/w.html".to_owned())),
        ];
        let metadata = [None, Some(text)].into_iter();
        for (metadata, home) in metadata.flat_map(|it| homes.iter().map(move |home| (it, home))) {
            for url in [None, Some(url.clone())] {
                for size in [None, Some(5)] {
                    let pin = WheelPin {
                        sha256: wheel,
                        size,
                        url: url.clone(),
                        home: home.clone(),
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
}
