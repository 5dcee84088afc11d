//! Reads Pipfile.lock of Pipenv: packages by category, with digests of files whose names it does not say.

use std::borrow::Cow;
use std::collections::BTreeMap;

use pep440_rs::Version;
use pep508_rs::PackageName;
use serde::Deserialize;
use serde_json::Value;

use super::{CODE, LockWanted, folder, normal, source, unknown};
use crate::oci::Digest;
use crate::python::lock::{LockSet, Locked};
use crate::python::place::{InputError, Place, Source};
use crate::python::pylock::{MarkerSet, with_sets};
use crate::python::{Target, pep508, specifiers};

/// The code for a file that cannot be read.
const TOML: &str = "imgdecl::python::toml";
/// What to do with a lock that cannot be taken.
const AGAIN: &str = "run `pipenv lock` again";

/// The category that is always installed.
const DEFAULT: &str = "default";

/// The variables of markers that may stand as keys of their own, as older versions wrote them.
const MARKERS: &[&str] = &[
    "implementation_name",
    "implementation_version",
    "os_name",
    "platform_machine",
    "platform_python_implementation",
    "platform_system",
    "python_full_version",
    "python_version",
    "sys_platform",
];

/// A key, which knows where it stands as long as it has no escapes.
#[derive(Deserialize, PartialEq, Eq, PartialOrd, Ord)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// The file: its parts by name. One that begins with `_` is no category.
type Parts<'a> = BTreeMap<Key<'a>, &'a serde_json::value::RawValue>;

/// The packages of a category.
type Category<'a> = BTreeMap<Key<'a>, Entry>;

/// A package.
#[derive(Deserialize)]
struct Entry {
    /// `==VERSION`.
    version: Option<String>,
    /// `sha256:HEX`, of all files of the version.
    #[serde(default)]
    hashes: Vec<String>,
    /// On which targets it is installed.
    markers: Option<String>,
    /// The name of one of the indexes.
    index: Option<String>,
    /// Where it is, if not in an index; and markers that are keys of their own.
    #[serde(flatten)]
    more: BTreeMap<String, Value>,
}

/// What the lock says of itself.
#[derive(Deserialize)]
struct Meta {
    /// The version of the form.
    #[serde(rename = "pipfile-spec")]
    spec: Option<u64>,
    /// The Python that the project needs.
    #[serde(default)]
    requires: BTreeMap<String, Value>,
    /// The indexes.
    #[serde(default)]
    sources: Vec<Index>,
}

/// An index that packages name.
#[derive(Deserialize)]
struct Index {
    /// Its name; older versions of Pipenv gave none.
    #[serde(default)]
    name: String,
    /// Its URL.
    url: String,
}

/// Reads a Pipfile.lock: what it locks for a target.
///
/// # Errors
/// What is wrong with it; that it is not for this target; what would need a build.
pub(crate) fn pipfile_lock(
    path: &str,
    text: &str,
    wanted: &LockWanted<'_>,
    target: &Target,
) -> Result<LockSet, InputError> {
    let source = Source::shared(path, text);
    let text = source.text.as_str();
    let at = |part: &str| {
        // A part of the text itself: as far from its beginning.
        let start = (part.as_ptr() as usize).checked_sub(text.as_ptr() as usize);
        let span = start.filter(|it| it + part.len() <= text.len());
        Place::new(&source, span.map_or(0..0, |it| it..it + part.len()))
    };
    let whole = at("");
    let malformed = |place: &Place, error: serde_json::Error| {
        place.error(TOML, format!("this is no Pipfile.lock: {error}"), AGAIN)
    };
    let parts: Parts<'_> = serde_json::from_str(text).map_err(|it| malformed(&whole, it))?;
    let meta = parts.iter().find(|it| it.0.0 == "_meta");
    let meta = meta.ok_or_else(|| {
        let help = "name a Pipfile.lock, as `pipenv lock` writes it";
        whole.error(CODE, "this is no Pipfile.lock: `_meta` is missing", help)
    })?;
    let place = at(meta.0.0.as_ref());
    let meta: Meta = serde_json::from_str(meta.1.get()).map_err(|it| malformed(&place, it))?;
    if meta.spec != Some(6) {
        let message = "this is no Pipfile.lock of `pipfile-spec` 6";
        return Err(place.error(CODE, message, "lock again with a newer Pipenv"));
    }
    python(&meta, &place, target)?;
    if let Some(extra) = wanted.extras.first() {
        let message = format!("a Pipfile.lock has no extras, and `{extra}` is asked for");
        let help = "take `extras` out, or name a category of the Pipfile in `groups`";
        return Err(whole.error(CODE, message, help));
    }
    let all = parts.iter().filter(|it| !it.0.0.starts_with('_'));
    let all: Vec<(&str, &str)> = all.map(|it| (it.0.0.as_ref(), it.1.get())).collect();
    let find = |name: &str| all.iter().find(|it| normal(it.0) == normal(name)).copied();
    let mut chosen: Vec<(&str, &str)> = find(DEFAULT).into_iter().collect();
    for name in wanted.groups {
        let Some(found) = find(name) else {
            let names = all.iter().map(|it| it.0);
            return Err(unknown(&whole, "group", name, names));
        };
        if !chosen.contains(&found) {
            chosen.push(found);
        }
    }
    let mut set = LockSet::default();
    for (_, text) in chosen {
        let category: Category<'_> = serde_json::from_str(text)
            .map_err(|error| malformed(&at(text.get(..1).unwrap_or_default()), error))?;
        for (name, entry) in &category {
            let place = at(name.0.as_ref());
            package(name.0.as_ref(), entry, &meta, &place, target, &mut set)?;
        }
    }
    set.packages.sort_by(|a, b| a.name.cmp(&b.name));
    set.built()
}

/// Makes sure that the lock is for the target's Python.
fn python(meta: &Meta, place: &Place, target: &Target) -> Result<(), InputError> {
    let full = target.markers().python_full_version().version.clone();
    for key in ["python_version", "python_full_version"] {
        let Some(wanted) = meta.requires.get(key).and_then(Value::as_str) else {
            continue;
        };
        let is_exact = key == "python_full_version" && target.python.patch.is_some();
        let release: Vec<&str> = wanted.split('.').collect();
        let short = release[..release.len().min(2)].join(".");
        let set = match is_exact {
            true => format!("=={wanted}"),
            false => format!("=={short}.*"),
        };
        if wanted != "*" && !specifiers(&set).is_some_and(|it| it.contains(&full)) {
            let message = format!(
                "this lock is for Python {wanted}, and the target has {}",
                target.python
            );
            let help = "change `[requires]` of the Pipfile, and lock again";
            return Err(place.error(CODE, message, help));
        }
    }
    Ok(())
}

/// Takes a package into the set, if it is for the target.
fn package(
    name: &str,
    entry: &Entry,
    meta: &Meta,
    place: &Place,
    target: &Target,
    set: &mut LockSet,
) -> Result<(), InputError> {
    let name: PackageName = name
        .parse()
        .map_err(|_| place.error(TOML, format!("`{name}` is no name of a package"), AGAIN))?;
    let own = MARKERS.iter().filter_map(|key| {
        let value = entry.more.get(*key)?.as_str()?;
        Some(format!("{key} {value}"))
    });
    for text in entry.markers.iter().cloned().chain(own) {
        // Pipenv writes of which group a package of a category is. The category is chosen: so is its group.
        let known = with_sets(&text, |set, _| (set == MarkerSet::Groups).then_some(true));
        let marker = pep508::marker(&known).map_err(|error| {
            let message = format!("the marker `{text}` of `{name}`: {}", error.message);
            place.error(TOML, message, AGAIN)
        })?;
        if !marker.evaluate(&target.markers(), &[]) {
            return Ok(());
        }
    }
    for (key, words) in [
        ("git", "git"),
        ("hg", "Mercurial"),
        ("svn", "Subversion"),
        ("bzr", "Bazaar"),
    ] {
        if entry.more.contains_key(key) {
            set.unbuilt.push(source(place, &name, words, AGAIN));
            return Ok(());
        }
    }
    let text_of = |key: &str| entry.more.get(key).and_then(Value::as_str);
    if let Some(at) = text_of("path").or_else(|| text_of("file")) {
        if at.contains("://") || at.ends_with(".whl") || at.ends_with(".gz") {
            let from = format!("`{at}`");
            set.unbuilt.push(source(place, &name, &from, AGAIN));
            return Ok(());
        }
        set.warnings.push(folder(&name, at));
        return Ok(());
    }
    let version = entry.version.as_deref().unwrap_or_default();
    let version = version.trim_start_matches('=').trim();
    let version: Version = version.parse().map_err(|_| {
        let message = format!("`{name}` has no version that is locked");
        place.error(TOML, message, AGAIN)
    })?;
    let hashes = entry.hashes.iter();
    let hashes = hashes.filter_map(|it| Digest::from_hex(it.strip_prefix("sha256:")?).ok());
    let hashes: Vec<Digest> = hashes.collect();
    if hashes.is_empty() {
        let message = format!("`{name}` has no sha256");
        return Err(place.error(TOML, message, "lock again with sha256 digests"));
    }
    let index = match &entry.index {
        None => None,
        Some(name) => {
            let found = meta.sources.iter().find(|it| it.name == *name);
            let found = found.ok_or_else(|| {
                let names = meta.sources.iter().map(|it| it.name.as_str());
                unknown(place, "source", name, names)
            })?;
            Some(found.url.clone())
        }
    };
    // A package of several categories is one.
    match set.packages.iter().find(|it| it.name == name) {
        Some(other) if other.version == version => Ok(()),
        Some(other) => {
            let (other, line) = (&other.version, other.place.line);
            let message = format!(
                "the lock has `{name}` {version} and {other} (line {line}) in groups that are taken together"
            );
            Err(place.error(CODE, message, "name groups that go together, or lock again"))
        }
        None => {
            set.packages.push(Locked {
                name,
                version,
                wheels: Vec::new(),
                hashes,
                index,
                place: place.clone(),
            });
            Ok(())
        }
    }
}
