//! The text of a lock: TOML, sorted, with a seal on each entry, so that an edit is seen.

use std::collections::BTreeMap;
use std::mem::take;
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{BasePin, DiskPin, FILE, Lock, LockError, PipPin, PlatformPin, Wheels};
use crate::graph::SourceText;
use crate::layer::{Attrs, Fact, Facts, LayerPath, Owner};
use crate::oci::Digest;
use crate::python::{Interpreter, Libc, Pythons};

/// The version of the file's form.
const VERSION: u32 = 1;

const HEAD: &str = "\
# What the names in image.toml were resolved to. Made by `imgdecl lock`, and by `imgdecl build` where an entry is missing.
# Commit it. Do not edit it: `imgdecl lock --update` moves it forward.
";

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
    /// The reference of a base in a registry. One on disk has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    image: Option<String>,
    /// Which image of a base on disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    r#ref: Option<String>,
    digest: Digest,
    /// The digest of the entry itself, so that an edit is seen.
    seal: Digest,
    #[serde(default)]
    platform: BTreeMap<String, PlatformEntry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlatformEntry {
    /// The manifest of a base in a registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    manifest: Option<Digest>,
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
    /// What says which packages are in the site folder.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    installed: Vec<String>,
}

impl BaseEntry {
    fn new(pin: &BasePin) -> Self {
        let platforms = pin.platforms.iter();
        let mut entry = Self {
            image: Some(pin.image.to_string()),
            r#ref: None,
            digest: pin.digest,
            seal: Digest::of(b""),
            platform: platforms
                .map(|(name, pin)| (name.clone(), PlatformEntry::new(pin)))
                .collect(),
        };
        entry.seal = entry.own_digest();
        entry
    }

    fn on_disk(pin: &DiskPin) -> Self {
        let platforms = pin.platforms.iter();
        let mut entry = Self {
            image: None,
            r#ref: pin.reference.clone(),
            digest: pin.digest,
            seal: Digest::of(b""),
            platform: platforms
                .map(|(name, pythons)| (name.clone(), PlatformEntry::of_pythons(pythons)))
                .collect(),
        };
        entry.seal = entry.own_digest();
        entry
    }

    /// The digest of all that the entry says but the seal.
    fn own_digest(&self) -> Digest {
        let platforms: BTreeMap<_, _> = self.platform.iter().collect();
        let text = match &self.image {
            Some(image) => serde_json::to_vec(&(image, self.digest, platforms)),
            None => serde_json::to_vec(&("on disk", &self.r#ref, self.digest, platforms)),
        };
        Digest::of(&text.expect("entries have string keys only"))
    }

    /// Puts what the entry says into a lock; `None` if it makes no sense.
    fn enter(self, name: &str, lock: &mut Lock) -> Option<()> {
        let (digest, platforms) = (self.digest, self.platform.into_iter());
        let name = name.to_owned();
        let Some(image) = self.image else {
            let platforms: Option<_> = platforms
                .map(|(name, entry)| Some((name, entry.pythons()?)))
                .collect();
            let pin = DiskPin {
                reference: self.r#ref,
                digest,
                platforms: platforms?,
            };
            lock.disks.insert(name, pin);
            return Some(());
        };
        let platforms: Option<_> = platforms
            .map(|(name, entry)| Some((name, entry.pin()?)))
            .collect();
        let pin = BasePin {
            image: image.parse().ok()?,
            digest,
            platforms: platforms?,
        };
        lock.bases.insert(name, pin);
        Some(())
    }
}

impl PlatformEntry {
    fn new(pin: &PlatformPin) -> Self {
        let mut entry = Self {
            manifest: Some(pin.manifest),
            ..Self::of_pythons(&pin.pythons)
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

    fn of_pythons(pythons: &Pythons) -> Self {
        Self {
            manifest: None,
            libc: pythons.libc.map(libc_text),
            python: pythons.interpreters.iter().map(python_entry).collect(),
            folders: BTreeMap::new(),
            links: BTreeMap::new(),
            dangling: BTreeMap::new(),
        }
    }

    fn pythons(self) -> Option<Pythons> {
        let interpreters = self.python.into_iter().map(|(path, entry)| {
            Some(Interpreter {
                path,
                version: entry.version.parse().ok()?,
                prefix: entry.prefix,
                site: entry.site,
                platsite: entry.platsite,
                installed: entry.installed,
            })
        });
        let libc = self.libc.map(|text| text.parse()).transpose().ok()?;
        let interpreters: Option<_> = interpreters.collect();
        Some(Pythons::new(interpreters?, libc))
    }

    fn pin(mut self) -> Option<PlatformPin> {
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
        let (links, dangling) = (take(&mut self.links), take(&mut self.dangling));
        for (links, folder) in [(links, true), (dangling, false)] {
            for (name, target) in links {
                facts.insert(path(&name)?, Fact::Link { target, folder });
            }
        }
        Some(PlatformPin {
            manifest: self.manifest?,
            facts,
            pythons: self.pythons()?,
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
        installed: python.installed.clone(),
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
        let mut lock = Self::default();
        for (name, entry) in file.base {
            let sealed = entry.seal == entry.own_digest();
            if !sealed || entry.enter(&name, &mut lock).is_none() {
                return Err(edited("base", &name));
            }
        }
        for (name, entry) in file.pip {
            if entry.seal != entry.own_digest() {
                return Err(edited("pip", &name));
            }
            lock.pips.insert(name, entry.pin());
        }
        Ok(lock)
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
                let mut lock = Self {
                    pips: pips.map(|(name, entry)| (name, entry.pin())).collect(),
                    ..Self::default()
                };
                for (name, entry) in whole {
                    // What makes no sense is as if it were not there.
                    let _ = entry.enter(&name, &mut lock);
                }
                Ok(lock)
            }
        }
    }

    /// Writes the text of the lock: sorted, the same for equal locks.
    pub fn to_text(&self) -> String {
        let (bases, disks) = (self.bases.iter(), self.disks.iter());
        let file = File {
            version: VERSION,
            base: bases
                .map(|(name, pin)| (name.clone(), BaseEntry::new(pin)))
                .chain(disks.map(|(name, pin)| (name.clone(), BaseEntry::on_disk(pin))))
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
