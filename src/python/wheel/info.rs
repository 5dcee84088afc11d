//! The dist-info folder of a wheel: what it is, and whether that is what is expected.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use pep440_rs::Version;
use pep508_rs::PackageName;

use super::archive::Archive;
use super::directory::{Bytes, Entry, directory};
use super::entry_points::{self, Callee};
use super::record::Record;
use super::{Expected, HeaderError, Headers, Problem, WheelError};
use crate::layer::LayerPath;
use crate::oci::Digest;

/// How large METADATA may be, in bytes.
pub(crate) const METADATA: u64 = 16 << 20;
/// How large WHEEL and entry_points.txt may be, in bytes.
const TEXT: u64 = 16 << 20;
/// How large RECORD may be, in bytes.
const RECORD: u64 = 64 << 20;

/// What the dist-info folder says.
pub(super) struct Info {
    /// `NAME-VERSION` as the folder has it.
    pub(super) stem: String,
    /// Whether the wheel's own files go to the site folder for all platforms.
    pub(super) purelib: bool,
    /// What RECORD says.
    pub(super) record: Record,
    /// The scripts of the entry points.
    pub(super) scripts: BTreeMap<String, Callee>,
}

impl Info {
    /// Reads and checks the dist-info folder.
    pub(super) fn read(archive: &Archive, expected: &Expected) -> Result<Self, Problem> {
        let stem = find(archive)?;
        let text = |name: &str, limit| -> Result<Option<Vec<u8>>, Problem> {
            let path = format!("{stem}.dist-info/{name}");
            let member = archive.find(&path);
            member.map(|it| archive.read(it, limit)).transpose()
        };
        let need = |name: &str, limit| {
            text(name, limit)?.ok_or_else(|| Problem::Missing(format!("{stem}.dist-info/{name}")))
        };
        let wheel = need("WHEEL", TEXT)?;
        let purelib = read_wheel(&wheel, &format!("{stem}.dist-info/WHEEL"))?;
        let metadata = need("METADATA", METADATA)?;
        check_metadata(&metadata, &format!("{stem}.dist-info/METADATA"), expected)?;
        check_stem(&stem, expected)?;
        let found = Digest::of(&metadata);
        if let Some(expected) = expected.metadata.filter(|it| *it != found) {
            return Err(Problem::Metadata { found, expected });
        }
        let record = Record::parse(&need("RECORD", RECORD)?)?;
        let scripts = match text("entry_points.txt", TEXT)? {
            Some(text) => entry_points::scripts(&text)?,
            None => BTreeMap::new(),
        };
        Ok(Self {
            stem,
            purelib,
            record,
            scripts,
        })
    }
}

/// Reads METADATA of a wheel on disk whose bytes have the digest `digest`, and checks the archive as [`super::install`] does.
///
/// # Errors
/// When it is no sound archive, or has no METADATA in UTF-8.
pub(crate) fn metadata(wheel: &Path, file: &str, digest: Digest) -> Result<String, WheelError> {
    let read = || {
        let archive = Archive::open(wheel, file, digest)?;
        let path = format!("{}.dist-info/METADATA", find(&archive)?);
        let member = archive.find(&path).ok_or(Problem::Missing(path.clone()))?;
        text(archive.read(member, METADATA)?, &path)
    };
    read().map_err(|problem| WheelError {
        wheel: file.to_owned(),
        problem,
    })
}

/// Reads METADATA of a wheel by as few reads as possible: the end of the archive, its directory, the member. What stands
/// between the other members is not seen, and not checked.
///
/// # Errors
/// When it is no sound archive, or has no METADATA in UTF-8; or when the bytes cannot be read.
pub fn read_metadata<B: Bytes>(
    bytes: &mut B,
    ahead: impl FnOnce(&mut B, u64, u64) -> Result<(), B::Error>,
) -> Result<String, B::Error> {
    let entries = directory(bytes)?;
    let files = entries.iter().filter(|it| !it.is_folder);
    let path = format!("{}.dist-info/METADATA", stem(files.map(|it| &it.path))?);
    let is_it = |it: &&Entry| !it.is_folder && it.path.as_str() == path;
    let entry = entries.iter().find(is_it);
    let entry = entry.ok_or_else(|| Problem::Missing(path.clone()))?;
    if entry.size <= METADATA {
        let (offset, length) = entry.extent();
        ahead(bytes, offset, length.min(METADATA))?;
    }
    Ok(text(entry.read(bytes, METADATA)?, &path)?)
}

fn text(bytes: Vec<u8>, member: &str) -> Result<String, Problem> {
    String::from_utf8(bytes).map_err(|_| Problem::Headers {
        member: member.to_owned(),
        error: HeaderError::NotUtf8,
    })
}

/// Finds the one dist-info folder of a wheel.
fn find(archive: &Archive) -> Result<String, Problem> {
    stem(archive.members.iter().map(|it| &it.path))
}

/// Finds the one dist-info folder among the paths of files.
fn stem<'a>(paths: impl Iterator<Item = &'a LayerPath>) -> Result<String, Problem> {
    let tops = paths.filter_map(|path| {
        let (top, _) = path.as_str().split_once('/')?;
        top.strip_suffix(".dist-info")
    });
    let found: BTreeSet<&str> = tops.collect();
    let mut all = found.iter();
    match (all.next(), all.next()) {
        (None, _) => Err(Problem::NoDistInfo),
        (Some(stem), None) => Ok((*stem).to_owned()),
        _ => {
            let names = found.iter().map(|it| format!("{it}.dist-info"));
            Err(Problem::DistInfos(names.collect()))
        }
    }
}

/// Reads WHEEL; returns whether the wheel is pure.
fn read_wheel(text: &[u8], member: &str) -> Result<bool, Problem> {
    let fail = |error| Problem::Headers {
        member: member.to_owned(),
        error,
    };
    let headers = Headers::parse(text).map_err(fail)?;
    let version = headers.need("Wheel-Version").map_err(fail)?;
    let number = |text: &str| !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
    match version.split_once('.') {
        Some((major, minor)) if number(major) && number(minor) => {
            if major != "1" {
                return Err(Problem::WheelVersion(version.to_owned()));
            }
        }
        _ => {
            return Err(fail(HeaderError::Value {
                name: "Wheel-Version",
                value: version.to_owned(),
                what: "version of the format",
            }));
        }
    }
    let pure = headers.get("Root-Is-Purelib").map_err(fail)?;
    Ok(pure.is_some_and(|it| it.eq_ignore_ascii_case("true")))
}

/// Checks name and version in METADATA.
fn check_metadata(text: &[u8], member: &str, expected: &Expected) -> Result<(), Problem> {
    let fail = |error| Problem::Headers {
        member: member.to_owned(),
        error,
    };
    let headers = Headers::parse(text).map_err(fail)?;
    let name = headers.need("Name").map_err(fail)?;
    let version = headers.need("Version").map_err(fail)?;
    check(member, name, version, expected)
}

/// Checks name and version in the name of the dist-info folder.
fn check_stem(stem: &str, expected: &Expected) -> Result<(), Problem> {
    // A name has no `-` here; but some tools leave those of the version.
    let (name, version) = stem
        .match_indices('-')
        .map(|(at, _)| (&stem[..at], &stem[at + 1..]))
        .find(|(_, version)| version.parse::<Version>().is_ok())
        .unwrap_or((stem, ""));
    check(&format!("`{stem}.dist-info`"), name, version, expected)
}

fn check(place: &str, name: &str, version: &str, expected: &Expected) -> Result<(), Problem> {
    let other = |what, found: &str, expected: String| {
        Err(Problem::Other {
            place: place.to_owned(),
            what,
            expected,
            found: found.to_owned(),
        })
    };
    if PackageName::new(name.to_owned()).ok().as_ref() != Some(&expected.name) {
        return other("name", name, expected.name.to_string());
    }
    match version.parse::<Version>() {
        Ok(found) if found == expected.version => Ok(()),
        _ => other("version", version, expected.version.to_string()),
    }
}
