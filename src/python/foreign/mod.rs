//! Locks of tools that have a form of their own: Poetry, Pipenv and PDM. And which tool a file is of.
//!
//! Nothing is resolved: packages are taken as far as they are asked for on a target. A lock that does not say for which
//! groups a package is there is followed from what the project asks for.

mod constraint;
mod kind;
mod pdm;
mod pipfile;
mod poetry;
mod project;
#[cfg(test)]
mod tests;
mod walk;

pub(crate) use kind::{FileKind, file_kind};
pub(crate) use pdm::pdm_lock;
pub(crate) use pipfile::pipfile_lock;
pub(crate) use poetry::poetry_lock;

use pep508_rs::{ExtraName, PackageName};

use super::WheelUrl;
use super::lock::{LockedWheel, Unbuilt};
use super::place::{InputError, Place, beside};
use super::pylock::{normal, wheel};
use super::table::Node;

/// The code for locks.
const CODE: &str = "imgdecl::python::lock";

/// What is wanted of the lock of a project.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LockWanted<'a> {
    /// The path and the text of the pyproject.toml beside the lock, if there is one.
    pub(crate) project: Option<(&'a str, &'a str)>,
    /// The extras of the project.
    pub(crate) extras: &'a [String],
    /// Its groups, besides the one that is always there.
    pub(crate) groups: &'a [String],
}

/// Returns the names of extras, without those that are none.
fn extra_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<ExtraName> {
    let names = names.into_iter();
    names.filter_map(|it| it.parse().ok()).collect()
}

/// Says which names there are, and which of them was most likely meant.
pub(super) fn known<'a>(name: &str, all: impl IntoIterator<Item = &'a str>) -> String {
    let all: Vec<&str> = all.into_iter().collect();
    if all.is_empty() {
        return "it has none".to_owned();
    }
    let distance = |it: &&str| strsim::damerau_levenshtein(it, name);
    let near = all.iter().copied().min_by_key(distance);
    let near = near.filter(|it| distance(it) <= 1 + it.len().min(name.len()) / 4);
    let near = near.map_or(String::new(), |it| format!("did you mean `{it}`? "));
    format!("{near}it has {}", all.join(", "))
}

/// Makes the error for a name that a lock does not have.
fn unknown<'a>(
    place: &Place,
    what: &str,
    name: &str,
    all: impl IntoIterator<Item = &'a str>,
) -> InputError {
    let message = format!("the lock has no {what} `{name}`");
    place.error(CODE, message, known(name, all))
}

/// Says that a package is a folder, and not installed. The folder of the lock itself may be empty.
pub(crate) fn folder(name: &PackageName, folder: &str) -> String {
    let folder = if folder.is_empty() { "." } else { folder };
    format!(
        "`{name}` is the folder `{folder}`, and not in this layer: put it into the image as a `[files]` layer"
    )
}

/// Notes a package that only a build makes.
fn source(place: &Place, name: &PackageName, from: &str, again: &str) -> Unbuilt {
    Unbuilt {
        name: name.clone(),
        from: from.to_owned(),
        help: format!(
            "build a wheel of it, put the wheel in its place in the project, and {again}"
        ),
        place: place.clone(),
    }
}

/// Reads the wheels of a package, as `{file, hash}` or `{url, hash}`. Other files are left out.
fn wheels(
    lock: &str,
    files: &[Node<'_>],
    name: &PackageName,
    direct: Option<&str>,
) -> Result<Vec<LockedWheel>, InputError> {
    let mut found = Vec::new();
    for file in files {
        let url = file.text_of("url")?;
        let last = |url: &str| WheelUrl::new(url).ok().and_then(|it| it.file());
        let file_name = match file.text_of("file")? {
            Some(file) => file.to_owned(),
            None => url.and_then(last).unwrap_or_default(),
        };
        if !file_name.ends_with(".whl") {
            continue;
        }
        let hash = file.text_of("hash")?.unwrap_or_default();
        let Some(hash) = hash.strip_prefix("sha256:") else {
            let message = format!("`{file_name}` has no sha256");
            return Err(file.error(message, "lock again with sha256 digests"));
        };
        let place = direct.map(|it| place_of(lock, it));
        let mut wheel = wheel(file, &file_name, name, hash, place)?;
        wheel.is_direct = direct.is_some();
        found.push(wheel);
    }
    Ok(found)
}

/// Returns a URL as it is, and a path as one from where the paths of the set begin.
fn place_of(lock: &str, url: &str) -> String {
    match url.contains("://") {
        true => url.to_owned(),
        false => beside(lock, url),
    }
}
