//! What bases are pinned to, and its form in `image.lock`.
//!
//! Of a base in a registry it is the digest that its reference named, and for each platform the manifest's digest and the
//! notable paths, so that layers can be placed without a byte of the base's own layers. Of a base on disk that packages are
//! for, it is what ecosystems found in it.

use std::collections::BTreeMap;
use std::fmt;
use std::mem::take;
use std::sync::Arc;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::changes;
use crate::accounts::{AccountFile, Accounts, FILES};
use crate::layer::{Attrs, Fact, Facts, LayerPath, Owner};
use crate::lock::{Move, Pin};
use crate::oci::{Digest, Reference};
use crate::rule::ecosystem::Found;

/// What a base is pinned to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::rule) enum BasePin {
    /// A base in a registry.
    InRegistry(RegistryPin),
    /// A base on disk that packages are for.
    OnDisk(DiskPin),
}

impl BasePin {
    /// Returns the pin of a base in a registry.
    pub(super) fn in_registry(&self) -> Option<&RegistryPin> {
        match self {
            Self::InRegistry(pin) => Some(pin),
            Self::OnDisk(_) => None,
        }
    }

    /// Returns the pin of a base on disk.
    pub(super) fn on_disk(&self) -> Option<&DiskPin> {
        match self {
            Self::OnDisk(pin) => Some(pin),
            Self::InRegistry(_) => None,
        }
    }
}

/// What a base in a registry is pinned to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::rule) struct RegistryPin {
    /// The reference that was resolved, in full, as the manifest has it.
    pub(in crate::rule) image: Reference,
    /// The digest of the manifest or index that it named.
    pub(in crate::rule) digest: Digest,
    /// The image of each platform that something builds on, by platform.
    pub(in crate::rule) platforms: BTreeMap<String, PlatformPin>,
}

/// What a base is pinned to for one platform.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::rule) struct PlatformPin {
    /// The digest of the platform's manifest.
    pub(in crate::rule) manifest: Digest,
    /// The notable facts: what decides the bytes of layers above.
    pub(in crate::rule) facts: Facts,
    /// What ecosystems found in the base.
    pub(in crate::rule) found: Found,
    /// The users and groups of the base, if somebody asked for them.
    pub(in crate::rule) accounts: Option<Arc<Accounts>>,
}

/// What was found in a base on disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::rule) struct DiskPin {
    /// Which image of the layout or archive, where the manifest says it.
    pub(in crate::rule) reference: Option<String>,
    /// The digest of the archive, or of the entry of the layout's index.
    pub(in crate::rule) digest: Digest,
    /// What ecosystems found in it, by platform.
    pub(in crate::rule) platforms: BTreeMap<String, Found>,
}

// The form of the file. Values come before tables, as TOML wants it.

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::rule) struct BaseEntry {
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

/// What stands there for a platform: the keys below, and between them those of ecosystems.
#[derive(Default)]
struct PlatformEntry {
    /// The manifest of a base in a registry.
    manifest: Option<Digest>,
    /// What ecosystems found; `None` if that makes no sense.
    found: Option<Found>,
    /// Folders that are not 0755 0:0: mode and owner.
    folders: BTreeMap<String, String>,
    /// Symlinks to folders.
    links: BTreeMap<String, String>,
    /// Symlinks to what the image does not have.
    dangling: BTreeMap<String, String>,
    /// The files of users and groups; none stand there where the base has none, and nobody asked where this is `None`.
    accounts: Option<BTreeMap<String, AccountEntry>>,
}

/// The form of a file of users or groups.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AccountEntry {
    /// Its mode and owner, as those of folders.
    attrs: String,
    text: String,
}

impl Serialize for PlatformEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(manifest) = &self.manifest {
            map.serialize_entry("manifest", manifest)?;
        }
        for (key, item) in self.found.iter().flat_map(Found::items) {
            map.serialize_entry(key, &item)?;
        }
        let paths = [
            ("folders", &self.folders),
            ("links", &self.links),
            ("dangling", &self.dangling),
        ];
        for (key, paths) in paths.into_iter().filter(|(_, paths)| !paths.is_empty()) {
            map.serialize_entry(key, paths)?;
        }
        if let Some(accounts) = &self.accounts {
            map.serialize_entry("accounts", accounts)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for PlatformEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Platforms)
    }
}

/// A key that stands there.
struct PlatformKey(String);

impl<'de> Deserialize<'de> for PlatformKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let key = String::deserialize(deserializer)?;
        let keys = ["manifest"].into_iter().chain(Found::keys());
        let keys = keys.chain(["folders", "links", "dangling", "accounts"]);
        let keys: Vec<&str> = keys.collect();
        if keys.contains(&&*key) {
            return Ok(Self(key));
        }
        let keys: Vec<String> = keys.iter().map(|it| format!("`{it}`")).collect();
        let keys = keys.join(", ");
        let message = format!("unknown field `{key}`, expected one of {keys}");
        Err(D::Error::custom(message))
    }
}

/// Reads what stands for a platform.
struct Platforms;

impl<'de> Visitor<'de> for Platforms {
    type Value = PlatformEntry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("struct PlatformEntry")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<PlatformEntry, A::Error> {
        let mut entry = PlatformEntry::default();
        let mut found = serde_json::Map::new();
        while let Some(PlatformKey(key)) = map.next_key()? {
            match &*key {
                "manifest" => entry.manifest = Some(map.next_value()?),
                "folders" => entry.folders = map.next_value()?,
                "links" => entry.links = map.next_value()?,
                "dangling" => entry.dangling = map.next_value()?,
                "accounts" => entry.accounts = Some(map.next_value()?),
                _ => {
                    found.insert(key, map.next_value()?);
                }
            }
        }
        entry.found = Found::read(found).map_err(A::Error::custom)?;
        Ok(entry)
    }
}

impl Pin for BasePin {
    const RULE: &'static str = "base";

    type Entry = BaseEntry;

    fn entry(&self) -> BaseEntry {
        let unsealed = Digest::of(b"");
        match self {
            Self::InRegistry(pin) => BaseEntry {
                image: Some(pin.image.to_string()),
                r#ref: None,
                digest: pin.digest,
                seal: unsealed,
                platform: (pin.platforms.iter())
                    .map(|(name, pin)| (name.clone(), PlatformEntry::new(pin)))
                    .collect(),
            },
            Self::OnDisk(pin) => BaseEntry {
                image: None,
                r#ref: pin.reference.clone(),
                digest: pin.digest,
                seal: unsealed,
                platform: (pin.platforms.iter())
                    .map(|(name, found)| (name.clone(), PlatformEntry::of_found(found)))
                    .collect(),
            },
        }
    }

    fn of_entry(entry: BaseEntry) -> Option<Self> {
        let (digest, platforms) = (entry.digest, entry.platform.into_iter());
        let Some(image) = entry.image else {
            let platforms: Option<_> = platforms
                .map(|(name, entry)| Some((name, entry.found?)))
                .collect();
            return Some(Self::OnDisk(DiskPin {
                reference: entry.r#ref,
                digest,
                platforms: platforms?,
            }));
        };
        let platforms: Option<_> = platforms
            .map(|(name, entry)| Some((name, entry.pin()?)))
            .collect();
        Some(Self::InRegistry(RegistryPin {
            image: image.parse().ok()?,
            digest,
            platforms: platforms?,
        }))
    }

    fn seal(entry: &mut BaseEntry) -> &mut Digest {
        &mut entry.seal
    }

    fn sealed(entry: &BaseEntry) -> Vec<u8> {
        let platforms = &entry.platform;
        let text = match &entry.image {
            Some(image) => serde_json::to_vec(&(image, entry.digest, platforms)),
            None => serde_json::to_vec(&("on disk", &entry.r#ref, entry.digest, platforms)),
        };
        text.expect("entries have string keys only")
    }

    fn changes(moves: &[Move<'_, Self>]) -> Vec<String> {
        changes::changes(moves)
    }
}

impl PlatformEntry {
    fn new(pin: &PlatformPin) -> Self {
        let mut entry = Self {
            manifest: Some(pin.manifest),
            ..Self::of_found(&pin.found)
        };
        for (path, fact) in pin.facts.notable() {
            let path = format!("/{}", path.as_str());
            match fact {
                Fact::Folder(attrs) => {
                    entry.folders.insert(path, attrs_text(attrs));
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
        let entries = pin.accounts.as_ref().map(|accounts| {
            let files = accounts.iter().map(|(path, file)| {
                let owner = Owner {
                    uid: file.uid,
                    gid: file.gid,
                };
                let attrs = attrs_text(&Attrs {
                    mode: file.mode,
                    owner,
                });
                let text = file.text.clone();
                (format!("/{path}"), AccountEntry { attrs, text })
            });
            files.collect()
        });
        entry.accounts = entries;
        entry
    }

    fn of_found(found: &Found) -> Self {
        Self {
            found: Some(found.clone()),
            ..Self::default()
        }
    }

    fn pin(mut self) -> Option<PlatformPin> {
        let mut facts = Facts::default();
        let path = |text: &str| LayerPath::parse(text.strip_prefix('/')?).ok();
        for (name, text) in &self.folders {
            let attrs = attrs_of(text)?;
            facts.insert(path(name)?, Fact::Folder(attrs));
        }
        let (links, dangling) = (take(&mut self.links), take(&mut self.dangling));
        for (links, folder) in [(links, true), (dangling, false)] {
            for (name, target) in links {
                facts.insert(path(&name)?, Fact::Link { target, folder });
            }
        }
        let accounts = self.accounts.map(accounts_of);
        Some(PlatformPin {
            manifest: self.manifest?,
            facts,
            found: self.found?,
            accounts: match accounts {
                Some(accounts) => Some(Arc::new(accounts?)),
                None => None,
            },
        })
    }
}

/// Writes a mode and an owner.
fn attrs_text(Attrs { mode, owner }: &Attrs) -> String {
    format!("{mode:04o} {}:{}", owner.uid, owner.gid)
}

/// Reads what [`attrs_text`] wrote; `None` if it is anything else.
fn attrs_of(text: &str) -> Option<Attrs> {
    let (mode, owner) = text.split_once(' ')?;
    let (uid, gid) = owner.split_once(':')?;
    let mode = u16::from_str_radix(mode, 8).ok();
    let owner = Owner {
        uid: uid.parse().ok()?,
        gid: gid.parse().ok()?,
    };
    let mode = mode.filter(|it| *it <= 0o7777)?;
    Some(Attrs { mode, owner })
}

/// Reads the files of users and groups; `None` if they make no sense.
fn accounts_of(entries: BTreeMap<String, AccountEntry>) -> Option<Accounts> {
    let mut accounts = Accounts::default();
    for (path, entry) in entries {
        let path = path.strip_prefix('/')?;
        let path = FILES.into_iter().find(|it| *it == path)?;
        let Attrs { mode, owner } = attrs_of(&entry.attrs)?;
        let file = AccountFile {
            mode,
            uid: owner.uid,
            gid: owner.gid,
            text: entry.text,
        };
        accounts.put(path, file);
    }
    Some(accounts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::{FormOf, Lock, LockError, changes};
    use serde_json::json;

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
        let python = json!({
            "libc": "glibc 2.36",
            "python": {"/usr/bin/python3.11": {
                "version": "3.11.2",
                "prefix": "/usr/local",
                "site": "/usr/local/lib/python3.11/dist-packages",
                "installed": ["six-1.16.0.dist-info"],
            }},
        });
        let found = Found::read(python.as_object().unwrap().clone());
        let found = found.unwrap().unwrap();
        let platform = PlatformPin {
            manifest: Digest::of(b"manifest"),
            facts,
            found,
            accounts: None,
        };
        let pin = RegistryPin {
            image: "python:3.11-slim".parse().unwrap(),
            digest: Digest::of(b"index"),
            platforms: BTreeMap::from([("linux/amd64".to_owned(), platform)]),
        };
        let disk = DiskPin {
            reference: Some("bookworm".to_owned()),
            digest: Digest::of(b"archive"),
            platforms: BTreeMap::from([(
                "linux/amd64".to_owned(),
                pin.platforms["linux/amd64"].found.clone(),
            )]),
        };
        let mut lock = Lock::default();
        for name in ["python", "a:b"] {
            lock.put(name.to_owned(), BasePin::InRegistry(pin.clone()));
        }
        lock.put("debian".to_owned(), BasePin::OnDisk(disk));
        lock
    }

    fn parse(text: &str) -> Result<Lock, LockError> {
        Lock::parse(text, &[FormOf::<BasePin>::FORM])
    }

    #[test]
    fn text_round_trip() {
        let lock = example();
        let text = lock.to_text();
        assert!(text.contains("\"/tmp\" = \"1777 0:7\""), "{text}");
        assert!(text.contains("\"/bin\" = \"usr/bin\""), "{text}");
        assert_eq!(parse(&text).unwrap(), lock);
        assert_eq!(parse(&text).unwrap().to_text(), text);
    }

    #[test]
    fn edits_are_told() {
        let text = example().to_text();
        let error = |text: &str| parse(text).unwrap_err().to_string();
        assert!(error(&text.replace("1777", "0777")).contains("`a:b` in image.lock was edited"));
        let other = text.replace("ref = \"bookworm\"", "ref = \"trixie\"");
        assert!(error(&other).contains("`debian` in image.lock was edited"));
        let unknown = text.replace("libc = ", "lib = ");
        let told = parse(&unknown).unwrap_err();
        assert!(
            told.message
                .contains("unknown field `lib`, expected one of `manifest`, `libc`")
        );
        assert_eq!(&unknown[told.span], "lib");
        let other = error(&text.replace("prefix = ", "prefix_ = "));
        assert!(
            other.contains("unknown field `prefix_`, expected one of `version`"),
            "{other}"
        );
        let other = error(&text.replace("glibc 2.36", "glibc2.36"));
        assert!(other.contains("was edited"), "{other}");
        assert!(error("version = 1\nbase = 3").contains("cannot be read"));
        assert!(error("version = 1\n[base.x]\nimage = \"y\"").contains("missing field"));
    }

    #[test]
    fn says_what_moved() {
        let old = example();
        let in_registry = |name: &str| {
            let pin = old.get::<BasePin>(name).and_then(BasePin::in_registry);
            pin.unwrap().clone()
        };
        let mut pin = in_registry("python");
        pin.digest = Digest::of(b"other");
        let platform = pin.platforms.get_mut("linux/amd64").unwrap();
        platform.manifest = Digest::of(b"new");
        platform.facts.remove(&LayerPath::parse("tmp").unwrap());
        let mut new = old.clone();
        new.put("python".to_owned(), BasePin::InRegistry(pin));
        let moved = changes(&old, &new);
        assert_eq!(moved.len(), 4, "{moved:?}");
        assert!(moved[1].contains(" → "), "{moved:?}");
        assert_eq!(moved[3], "    - /tmp  1777 0:7");
        let mut replaced = old.clone();
        let disk = old.get::<BasePin>("debian").and_then(BasePin::on_disk);
        let mut disk = disk.unwrap().clone();
        disk.digest = Digest::of(b"other archive");
        replaced.put("debian".to_owned(), BasePin::OnDisk(disk));
        let moved = changes(&old, &replaced);
        assert_eq!(moved.len(), 2, "{moved:?}");
        assert_eq!(moved[0], "debian: on disk");
        assert!(moved[1].contains(" → "), "{moved:?}");
        let wanted = ["python", "a:b"].map(str::to_owned);
        replaced.retain(&wanted.into_iter().collect());
        assert_eq!(changes(&old, &replaced), ["debian: removed, was on disk"]);
        assert_eq!(changes(&old, &old), Vec::<String>::new());
        assert_eq!(
            changes(&Lock::default(), &old)[0],
            "a:b: new, docker.io/library/python:3.11-slim"
        );
        // One that is on disk now was removed from its registry.
        let disk = replaced.clone();
        replaced.put(
            "debian".to_owned(),
            BasePin::InRegistry(in_registry("python")),
        );
        let moved = changes(&disk, &replaced);
        assert_eq!(moved[0], "debian: new, docker.io/library/python:3.11-slim");
        let moved = changes(&replaced, &old);
        assert_eq!(
            moved[..2],
            [
                "debian: removed, was docker.io/library/python:3.11-slim",
                "debian: new, on disk"
            ]
        );
    }
}
