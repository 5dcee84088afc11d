//! Requirements with hashes are closed: whatever their wheels need stands there, too, as pip has it. Asks for METADATA alone.

use std::collections::{BTreeMap, BTreeSet};

use pep508_rs::{ExtraName, PackageName, VersionOrUrl};

use super::errors::{of_index, origin};
use super::index::Sources;
use super::inputs::Inputs;
use super::pinned::WheelPin;
use crate::graph::ActionError;
use crate::python::resolve::{Candidate, Index as _, Wanted};
use crate::python::{LockSet, Locked, Metadata, Target};

/// How many packages a message names.
const NAMES: usize = 12;
/// What pip-compile leaves out of what it writes, where nothing else is said.
const UNSAFE: [&str; 3] = ["distribute", "pip", "setuptools"];

/// A package that is needed, and does not stand there.
struct Lacking<'a> {
    name: PackageName,
    /// What needs it, in words.
    words: String,
    /// The requirement that needs it.
    by: &'a Locked,
}

/// Checks that requirements with hashes ask for all that their wheels need. Returns what the user should know.
///
/// # Errors
/// When they do not: names all that lack. When METADATA cannot be had.
pub(super) fn check(
    set: &LockSet,
    pins: &BTreeMap<&PackageName, (&str, &WheelPin)>,
    inputs: &Inputs,
    target: &Target,
    sources: &Sources<'_>,
) -> Result<Vec<String>, ActionError> {
    let mut candidates: BTreeMap<&PackageName, Candidate> = BTreeMap::new();
    for locked in &set.packages {
        if let Some((file, pin)) = pins.get(&locked.name) {
            candidates.insert(&locked.name, candidate(locked, file, pin, sources));
        }
    }
    sources.prefetch(Wanted::Metadata(candidates.values().cloned().collect()));
    let mut known: BTreeMap<PackageName, Metadata> = BTreeMap::new();
    for locked in &set.packages {
        if let Some(candidate) = candidates.get(&locked.name) {
            let metadata = sources.metadata(candidate).map_err(|error| {
                let what = format!("the METADATA of {} cannot be had", candidate.file);
                of_index(error, what).at(&origin(&locked.place))
            })?;
            known.insert(locked.name.clone(), metadata);
        }
    }
    let markers = target.markers();
    let mut open: Vec<(PackageName, Option<ExtraName>)> = Vec::new();
    for asked in &inputs.requested.asked {
        let requirement = &asked.requirement;
        if requirement.marker.evaluate(&markers, &[]) {
            open.push((requirement.name.clone(), None));
            let extras = requirement.extras.iter().cloned();
            open.extend(extras.map(|it| (requirement.name.clone(), Some(it))));
        }
    }
    let mut seen: BTreeSet<(PackageName, Option<ExtraName>)> = BTreeSet::new();
    let mut lacking: Vec<Lacking<'_>> = Vec::new();
    let mut warnings = Vec::new();
    while let Some((name, extra)) = open.pop() {
        if !seen.insert((name.clone(), extra.clone())) {
            continue;
        }
        let by = set.packages.iter().find(|it| it.name == name);
        let (Some(metadata), Some(by)) = (known.get(&name), by) else {
            continue;
        };
        for requirement in &metadata.requires {
            let holds = |extras: &[ExtraName]| requirement.marker.evaluate(&markers, extras);
            let is_ours = match &extra {
                None => holds(&[]),
                Some(extra) => !holds(&[]) && holds(std::slice::from_ref(extra)),
            };
            if !is_ours {
                continue;
            }
            open.push((requirement.name.clone(), None));
            let extras = requirement.extras.iter().cloned();
            open.extend(extras.map(|it| (requirement.name.clone(), Some(it))));
            let who = match &extra {
                None => format!("{name} {}", metadata.version),
                Some(extra) => format!("{name}[{extra}] {}", metadata.version),
            };
            match known.get(&requirement.name) {
                None => lacking.push(Lacking {
                    name: requirement.name.clone(),
                    words: format!("{who} needs `{requirement}`"),
                    by,
                }),
                Some(own) => {
                    if let Some(VersionOrUrl::VersionSpecifier(it)) = &requirement.version_or_url
                        && !it.contains(&own.version)
                    {
                        warnings.push(format!(
                            "{who} needs `{requirement}`, and the requirements with hashes say {}",
                            own.version
                        ));
                    }
                }
            }
        }
    }
    match lacking.is_empty() {
        true => Ok(warnings),
        false => Err(error(lacking)),
    }
}

/// Makes the error of packages that lack.
fn error(mut lacking: Vec<Lacking<'_>>) -> ActionError {
    lacking.sort_by(|one, other| (&one.name, &one.words).cmp(&(&other.name, &other.words)));
    lacking.dedup_by(|one, other| one.name == other.name);
    let names: Vec<String> = lacking
        .iter()
        .take(NAMES)
        .map(|it| it.name.to_string())
        .collect();
    let more = lacking.len().saturating_sub(NAMES);
    let names = match (more, names.split_last()) {
        (0, Some((last, rest))) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        (0, _) => names.concat(),
        (more, _) => format!("{} and {more} more", names.join(", ")),
    };
    let is_one = lacking.len() == 1;
    let message = format!(
        "{names} {} needed, and {} not among the requirements with hashes",
        if is_one { "is" } else { "are" },
        if is_one { "is" } else { "are" },
    );
    let mut found = ActionError::new("imgdecl::pip::closed", message);
    found.causes = lacking
        .iter()
        .take(NAMES)
        .map(|it| it.words.clone())
        .collect();
    let places: BTreeSet<_> = lacking
        .iter()
        .map(|it| (it.by.place.source.name.clone(), it.by.place.line))
        .collect();
    let first = |key: &(String, usize)| {
        let mut all = lacking.iter().map(|it| &it.by.place);
        all.find(|it| (&it.source.name, it.line) == (&key.0, key.1))
    };
    let places = places.iter().take(NAMES).filter_map(first).map(origin);
    let mut help = vec![
        "write the file with `pip-compile --generate-hashes` or `uv pip compile --generate-hashes`, which follow what is needed"
            .to_owned(),
    ];
    let unsafe_ones = lacking.iter().map(|it| it.name.to_string());
    let unsafe_ones: Vec<String> = unsafe_ones
        .filter(|it| UNSAFE.contains(&it.as_str()))
        .map(|it| format!("`{it}`"))
        .collect();
    if !unsafe_ones.is_empty() {
        help.push(format!(
            "pip-compile leaves {} out, unless it is run with `--allow-unsafe`",
            unsafe_ones.join(" and ")
        ));
    }
    found.at_all(places).help(help.join("\n"))
}

/// Returns the wheel of a locked package, as an index lists it, or where a requirement says it is.
fn candidate(locked: &Locked, file: &str, pin: &WheelPin, sources: &Sources<'_>) -> Candidate {
    let direct = locked.wheels.first().and_then(|it| it.url.clone());
    let listed = match direct {
        Some(_) => None,
        None => sources.files(&locked.name).ok().and_then(|files| {
            let is_it =
                |it: &Candidate| *it.file == *file && it.sha256.is_none_or(|it| it == pin.sha256);
            files.into_iter().find(is_it)
        }),
    };
    listed.unwrap_or_else(|| Candidate {
        name: locked.name.clone(),
        version: locked.version.clone(),
        file: file.into(),
        sha256: Some(pin.sha256),
        size: pin.size,
        requires_python: None,
        yanked: None,
        url: direct.unwrap_or_default().into(),
        index: "".into(),
    })
}
