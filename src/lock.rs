//! `image.lock`: what the names of a manifest were resolved to. Plain data and its text form.
//!
//! For each base in a registry: the digest that its reference named, and for each platform the manifest's digest and the
//! notable paths, so that layers can be placed without a byte of the base's own layers. Knows no rule, no network.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::graph::SourceText;
use crate::layer::{Attrs, Fact, Facts, LayerPath, Owner};
use crate::oci::{Digest, Reference};
use crate::python::{Interpreter, Libc, Pythons};

/// The name of the file, in the workspace's root.
pub const FILE: &str = "image.lock";

/// The version of the file's form.
const VERSION: u32 = 1;

const HEAD: &str = "\
# What the names in image.toml were resolved to. Made by `imgdecl lock`, and by `imgdecl build` where an entry is missing.
# Commit it. Do not edit it: `imgdecl lock --update` moves it forward.
";

/// What the targets of a workspace are pinned to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Lock {
    /// The bases in registries, by target (`NAME` or `MEMBER:NAME`).
    pub bases: BTreeMap<String, BasePin>,
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

/// What a target of Python packages is pinned to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PipPin {
    /// The digest of what was asked for.
    pub inputs: Digest,
    /// The wheels for each target of Python, by [`crate::python::Target::name`].
    pub targets: BTreeMap<String, Wheels>,
}

/// Wheels, by file name.
pub type Wheels = BTreeMap<String, WheelPin>;

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
}

/// `DIGEST SIZE URL`, with `-` for a size that is not known, and no URL where there is none.
impl From<WheelPin> for String {
    fn from(pin: WheelPin) -> Self {
        let size = pin.size.map_or("-".to_owned(), |size| size.to_string());
        let url = pin.url.map_or(String::new(), |url| format!(" {url}"));
        format!("{} {size}{url}", pin.sha256)
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
        let url = parts.next().map(str::to_owned);
        match (digest, size) {
            (Some(sha256), Some(size)) => Ok(Self { sha256, size, url }),
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

// The form of the file. Values come before tables, as TOML wants it.

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    base: BTreeMap<String, BaseEntry>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pip: BTreeMap<String, PipEntry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PipEntry {
    inputs: Digest,
    seal: Digest,
    #[serde(default)]
    target: BTreeMap<String, Wheels>,
}

impl PipEntry {
    fn new(pin: &PipPin) -> Self {
        let mut entry = Self {
            inputs: pin.inputs,
            seal: Digest::of(b""),
            target: pin.targets.clone(),
        };
        entry.seal = entry.own_digest();
        entry
    }

    fn own_digest(&self) -> Digest {
        let text = serde_json::to_vec(&(self.inputs, &self.target));
        Digest::of(&text.expect("entries have string keys only"))
    }

    fn pin(self) -> PipPin {
        PipPin {
            inputs: self.inputs,
            targets: self.target,
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BaseEntry {
    image: String,
    digest: Digest,
    /// The digest of the entry itself, so that an edit is seen.
    seal: Digest,
    #[serde(default)]
    platform: BTreeMap<String, PlatformEntry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlatformEntry {
    manifest: Digest,
    /// The C library, as `glibc 2.36`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    libc: Option<String>,
    /// The interpreters, by path.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    python: BTreeMap<String, PythonEntry>,
    /// Folders that are not 0755 0:0: mode and owner.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    folders: BTreeMap<String, String>,
    /// Symlinks to folders.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    links: BTreeMap<String, String>,
    /// Symlinks to what the image does not have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    dangling: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PythonEntry {
    version: String,
    prefix: String,
    site: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    platsite: Option<String>,
}

impl BaseEntry {
    fn new(pin: &BasePin) -> Self {
        let platforms = pin.platforms.iter();
        let mut entry = Self {
            image: pin.image.to_string(),
            digest: pin.digest,
            seal: Digest::of(b""),
            platform: platforms
                .map(|(name, pin)| (name.clone(), PlatformEntry::new(pin)))
                .collect(),
        };
        entry.seal = entry.own_digest();
        entry
    }

    /// The digest of all that the entry says but the seal.
    fn own_digest(&self) -> Digest {
        let platforms: BTreeMap<_, _> = self.platform.iter().collect();
        let text = serde_json::to_vec(&(&self.image, self.digest, platforms));
        Digest::of(&text.expect("entries have string keys only"))
    }

    fn pin(self) -> Option<BasePin> {
        let platforms = self.platform.into_iter();
        let platforms: Option<BTreeMap<_, _>> = platforms
            .map(|(name, entry)| Some((name, entry.pin()?)))
            .collect();
        Some(BasePin {
            image: self.image.parse().ok()?,
            digest: self.digest,
            platforms: platforms?,
        })
    }
}

impl PlatformEntry {
    fn new(pin: &PlatformPin) -> Self {
        let mut entry = Self {
            manifest: pin.manifest,
            libc: pin.pythons.libc.map(libc_text),
            python: pin.pythons.interpreters.iter().map(python_entry).collect(),
            folders: BTreeMap::new(),
            links: BTreeMap::new(),
            dangling: BTreeMap::new(),
        };
        for (path, fact) in pin.facts.notable() {
            let path = format!("/{}", path.as_str());
            match fact {
                Fact::Folder(Attrs { mode, owner }) => {
                    let text = format!("{mode:04o} {}:{}", owner.uid, owner.gid);
                    entry.folders.insert(path, text);
                }
                Fact::Link { target, folder } => {
                    let links = match folder {
                        true => &mut entry.links,
                        false => &mut entry.dangling,
                    };
                    links.insert(path, target.clone());
                }
            }
        }
        entry
    }

    fn pin(self) -> Option<PlatformPin> {
        let mut facts = Facts::default();
        let path = |text: &str| LayerPath::parse(text.strip_prefix('/')?).ok();
        for (name, text) in &self.folders {
            let (mode, owner) = text.split_once(' ')?;
            let (uid, gid) = owner.split_once(':')?;
            let attrs = Attrs {
                mode: u16::from_str_radix(mode, 8)
                    .ok()
                    .filter(|it| *it <= 0o7777)?,
                owner: Owner {
                    uid: uid.parse().ok()?,
                    gid: gid.parse().ok()?,
                },
            };
            facts.insert(path(name)?, Fact::Folder(attrs));
        }
        for (links, folder) in [(self.links, true), (self.dangling, false)] {
            for (name, target) in links {
                facts.insert(path(&name)?, Fact::Link { target, folder });
            }
        }
        let interpreters = self.python.into_iter().map(|(path, entry)| {
            Some(Interpreter {
                path,
                version: entry.version.parse().ok()?,
                prefix: entry.prefix,
                site: entry.site,
                platsite: entry.platsite,
            })
        });
        let libc = self.libc.map(|text| text.parse()).transpose().ok()?;
        Some(PlatformPin {
            manifest: self.manifest,
            facts,
            pythons: Pythons::new(interpreters.collect::<Option<_>>()?, libc),
        })
    }
}

fn libc_text(libc: Libc) -> String {
    match libc {
        Libc::Glibc { minor } => format!("glibc 2.{minor}"),
        Libc::Musl { minor } => format!("musl 1.{minor}"),
    }
}

fn python_entry(python: &Interpreter) -> (String, PythonEntry) {
    let entry = PythonEntry {
        version: python.version.to_string(),
        prefix: python.prefix.clone(),
        site: python.site.clone(),
        platsite: python.platsite.clone(),
    };
    (python.path.clone(), entry)
}

impl Lock {
    /// Reads the text of a lock.
    ///
    /// # Errors
    /// When it is none, was edited, or holds a merge conflict.
    pub fn parse(text: &str) -> Result<Self, LockError> {
        let source_text = Arc::new(SourceText {
            name: FILE.to_owned(),
            text: text.to_owned(),
        });
        let fail = |message: String, label: &str, help: String, span: Range<usize>| LockError {
            message,
            label: label.to_owned(),
            help,
            source_text: source_text.clone(),
            span,
        };
        if let Some(span) = conflict(text) {
            return Err(fail(
                format!("{FILE} holds a merge conflict"),
                "git left it here",
                format!(
                    "take one side whole, as with `git checkout --theirs {FILE}`, then run `imgdecl lock`"
                ),
                span,
            ));
        }
        let version = toml::from_str::<Version>(text).map(|it| it.version);
        if let Ok(version) = version
            && *version.get_ref() != VERSION
        {
            return Err(fail(
                format!("{FILE} has version {}", version.get_ref()),
                "this program knows version 1",
                "use a newer imgdecl, or remove the file and run `imgdecl lock`".to_owned(),
                version.span(),
            ));
        }
        let again =
            format!("remove {FILE}, or take it from version control, then run `imgdecl lock`");
        let file: File = toml::from_str(text).map_err(|error| {
            let message = format!("{FILE} cannot be read: {}", error.message());
            let span = error.span().unwrap_or(0..0);
            fail(message, "here", again.clone(), span)
        })?;
        let edited = |rule: &str, name: &str| {
            let head = text
                .find(&format!("[{rule}.{name}]"))
                .or_else(|| text.find(&format!("[{rule}.\"{name}\"]")));
            let start = head.unwrap_or(0);
            let length = text[start..].lines().next().map_or(0, str::len);
            fail(
                format!("the entry of `{name}` in {FILE} was edited"),
                "it is not what imgdecl wrote",
                format!(
                    "take it from version control, or run `imgdecl lock --update {name}` to make it again"
                ),
                start..start + length,
            )
        };
        let mut bases = BTreeMap::new();
        for (name, entry) in file.base {
            let sealed = entry.seal == entry.own_digest();
            match entry.pin().filter(|_| sealed) {
                Some(pin) => bases.insert(name, pin),
                None => return Err(edited("base", &name)),
            };
        }
        let mut pips = BTreeMap::new();
        for (name, entry) in file.pip {
            if entry.seal != entry.own_digest() {
                return Err(edited("pip", &name));
            }
            pips.insert(name, entry.pin());
        }
        Ok(Self { bases, pips })
    }

    /// Reads the text of a lock, and leaves out the entries that were edited: they are made again.
    ///
    /// # Errors
    /// As [`Lock::parse`], but for edited entries.
    pub fn parse_without_edited(text: &str) -> Result<Self, LockError> {
        match Self::parse(text) {
            Ok(lock) => Ok(lock),
            Err(error) => {
                let Ok(file) = toml::from_str::<File>(text) else {
                    return Err(error);
                };
                let entries = file.base.into_iter();
                let whole = entries.filter(|(_, entry)| entry.seal == entry.own_digest());
                let pips = file.pip.into_iter();
                let pips = pips.filter(|(_, entry)| entry.seal == entry.own_digest());
                Ok(Self {
                    pips: pips.map(|(name, entry)| (name, entry.pin())).collect(),
                    bases: whole
                        .filter_map(|(name, entry)| Some((name, entry.pin()?)))
                        .collect(),
                })
            }
        }
    }

    /// Writes the text of the lock: sorted, the same for equal locks.
    pub fn to_text(&self) -> String {
        let bases = self.bases.iter();
        let file = File {
            version: VERSION,
            base: bases
                .map(|(name, pin)| (name.clone(), BaseEntry::new(pin)))
                .collect(),
            pip: self
                .pips
                .iter()
                .map(|(name, pin)| (name.clone(), PipEntry::new(pin)))
                .collect(),
        };
        let text = toml::to_string(&file).expect("a lock has string keys only");
        format!("{HEAD}{text}")
    }

    /// Tells whether nothing is pinned.
    pub fn is_empty(&self) -> bool {
        self.bases.is_empty() && self.pips.is_empty()
    }
}

#[derive(Deserialize)]
struct Version {
    version: toml::Spanned<u32>,
}

/// Finds the first line that git writes around the two sides of a conflict.
fn conflict(text: &str) -> Option<Range<usize>> {
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        if ["<<<<<<<", ">>>>>>>", "|||||||"]
            .iter()
            .any(|mark| line.starts_with(mark))
        {
            return Some(start..start + line.trim_end().len());
        }
        start += line.len();
    }
    None
}

/// Says what moved from one lock to another, a line for each thing, for people.
pub fn changes(old: &Lock, new: &Lock) -> Vec<String> {
    let mut lines = Vec::new();
    let names: BTreeSet<&String> = old.bases.keys().chain(new.bases.keys()).collect();
    for name in names {
        let (was, is) = match (old.bases.get(name), new.bases.get(name)) {
            (was, Some(is)) if was == Some(is) => continue,
            (was, Some(is)) => (was, is),
            (Some(was), None) => {
                lines.push(format!("{name}: removed, was {}", was.image));
                continue;
            }
            (None, None) => continue,
        };
        lines.push(match was {
            None => format!("{name}: new, {}", is.image),
            Some(was) if was.image != is.image => {
                format!("{name}: {} → {}", was.image, is.image)
            }
            Some(_) => format!("{name}: {}", is.image),
        });
        let moved = |what: &str, was: Option<Digest>, is: Digest| match was {
            None => format!("  {what}  {is}"),
            Some(was) => format!("  {what}  {was} → {is}"),
        };
        if was.is_none_or(|was| was.digest != is.digest) {
            lines.push(moved("digest", was.map(|was| was.digest), is.digest));
        }
        let none = BTreeMap::new();
        let before = was.map_or(&none, |was| &was.platforms);
        for (platform, pin) in &is.platforms {
            let was = before.get(platform);
            if was == Some(pin) {
                continue;
            }
            lines.push(moved(platform, was.map(|was| was.manifest), pin.manifest));
            if let Some(was) = was {
                lines.extend(facts_changed(&was.facts, &pin.facts));
            }
        }
        let gone = before.keys().filter(|it| !is.platforms.contains_key(*it));
        lines.extend(gone.map(|platform| format!("  {platform}  no longer needed")));
    }
    let names: BTreeSet<&String> = old.pips.keys().chain(new.pips.keys()).collect();
    let none = BTreeMap::new();
    for name in names {
        let targets = |lock: &'_ Lock| lock.pips.get(name).map(|pin| pin.targets.clone());
        let (was, is) = (targets(old), targets(new));
        let (was, is) = (was.unwrap_or_default(), is.unwrap_or_default());
        for target in was.keys().chain(is.keys()).collect::<BTreeSet<_>>() {
            let was = was.get(target).unwrap_or(&none);
            let is = is.get(target).unwrap_or(&none);
            if was == is {
                continue;
            }
            lines.push(format!("{name}: {target}"));
            let gone = was.keys().filter(|file| !is.contains_key(*file));
            lines.extend(gone.map(|file| format!("    - {file}")));
            let come = is.iter().filter(|(file, pin)| was.get(*file) != Some(pin));
            lines.extend(come.map(|(file, _)| format!("    + {file}")));
        }
    }
    lines
}

fn facts_changed(was: &Facts, is: &Facts) -> Vec<String> {
    let line = |sign: char, path: &LayerPath, fact: &Fact| match fact {
        Fact::Folder(Attrs { mode, owner }) => {
            format!(
                "    {sign} /{}  {mode:04o} {}:{}",
                path.as_str(),
                owner.uid,
                owner.gid
            )
        }
        Fact::Link { target, .. } => format!("    {sign} /{} -> {target}", path.as_str()),
    };
    let gone = was
        .iter()
        .filter(|(path, fact)| is.get(path) != Some(fact))
        .map(|(path, fact)| line('-', path, fact));
    let come = is
        .iter()
        .filter(|(path, fact)| was.get(path) != Some(fact))
        .map(|(path, fact)| line('+', path, fact));
    gone.chain(come).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
                }],
                Some(Libc::Glibc { minor: 36 }),
            ),
        };
        let wheel = WheelPin {
            sha256: Digest::of(b"wheel"),
            size: Some(5),
            url: None,
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
        Lock {
            bases: BTreeMap::from([("python".to_owned(), pin.clone()), ("a:b".to_owned(), pin)]),
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
        assert_eq!(changes(&old, &old), Vec::<String>::new());
        assert_eq!(
            changes(&Lock::default(), &old)[0],
            "a:b: new, docker.io/library/python:3.11-slim"
        );
    }
}
