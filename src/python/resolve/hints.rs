//! What there is, and what to do about it, where a package of a conflict cannot be had.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pep508_rs::PackageName;
use pubgrub::Ranges;

use super::choose::{Fault, Listing, Release, Rules};
use super::range::Point;
use super::solve::Package;
use super::{Index, IndexError, Question, Unknown};
use crate::python::{WheelName, name_guesses};

/// How many hints there are, how many versions are named for one reason, and how many wheels.
const HINTS: usize = 24;
const VERSIONS: usize = 5;
const NAMES: usize = 3;

/// How many packages are named that no index has.
pub(super) const UNKNOWN: usize = 12;

/// What is known of packages: their versions, or why there are none.
pub(super) type Listings = BTreeMap<PackageName, Result<Arc<Listing>, IndexError>>;

/// Gathers hints.
pub(super) struct Hints<'a> {
    pub(super) question: &'a Question<'a>,
    pub(super) listings: &'a Listings,
    pub(super) rules: &'a Rules,
    pub(super) index: &'a dyn Index,
    pub(super) lines: Vec<String>,
}

impl Hints<'_> {
    /// Returns the lines, each once.
    pub(super) fn finish(mut self) -> Vec<String> {
        let mut seen = BTreeSet::new();
        self.lines.retain(|it| seen.insert(it.clone()));
        self.lines.truncate(HINTS);
        self.lines
    }

    /// Says what there is of a package where nothing in a range can be used.
    pub(super) fn add(&mut self, package: &Package, range: &Ranges<Point>) {
        let Some(name) = package.name() else {
            return;
        };
        match self.listings.get(name) {
            Some(Ok(listing)) => self.listed(package, name, range, listing),
            Some(Err(IndexError::NotFound { asked })) => self.unknown(name, asked),
            _ => {}
        }
    }

    /// Tells whether the user asks for a package.
    fn is_asked(&self, name: &PackageName) -> bool {
        self.question.asked.iter().any(|it| it.name() == name)
    }

    /// Of a package that no index has.
    fn unknown(&mut self, name: &PackageName, asked: &[String]) {
        // What a package needs is no slip of the user's.
        if self.is_asked(name) {
            let names = near_names(name, self.listings, self.index);
            self.lines.extend(did_you_mean(&names));
        }
        self.lines.push(elsewhere(asked, 1));
    }

    /// Of a package that is there.
    fn listed(
        &mut self,
        package: &Package,
        name: &PackageName,
        range: &Ranges<Point>,
        listing: &Listing,
    ) {
        let newest = || listing.releases.iter().rev();
        let faulty: Vec<(&Release, &Fault)> = newest()
            .filter(|it| range.contains(&it.point))
            .filter_map(|it| Some((it, it.choice.as_ref().err()?)))
            .collect();
        let Some((newer, first)) = faulty.first() else {
            let versions: Vec<String> = newest()
                .take(VERSIONS)
                .map(|it| it.point.to_string())
                .collect();
            if !versions.is_empty() && !newest().any(|it| range.contains(&it.point)) {
                let text = format!(
                    "the newest versions of {package} are {}",
                    versions.join(", ")
                );
                self.lines.push(text);
            }
            return;
        };
        if self.is_asked(name) {
            let others = name_guesses::imported(name)
                .iter()
                .map(|it| (*it).to_owned());
            self.lines.extend(did_you_mean(&others.collect::<Vec<_>>()));
        }
        self.faults(package, &faulty);
        self.lines.push(match first {
            Fault::Wheels(_) | Fault::Sources => format!(
                "build a wheel of {package} for the target, and point `find_links` at its folder"
            ),
            Fault::Yanked(_) => format!(
                "a version that was yanked is taken only where you ask for just that one, as `{package}=={}`",
                newer.point
            ),
            Fault::Python(_) => {
                "take a newer Python: a base that has one, or another `python`".to_owned()
            }
        });
        let stable = faulty.iter().any(|(it, _)| !it.point.is_pre());
        let pre = newest().filter(|it| range.contains(&it.point) && it.choice.is_ok());
        if let Some(release) = pre.filter(|it| it.point.is_pre()).take(1).next()
            && stable
        {
            let point = &release.point;
            self.lines.push(format!(
                "{package} {point} has a wheel and is a pre-release, which is taken where it is asked for, as `{package}>={point}`"
            ));
        }
        let usable = newest().find(|it| {
            let choice = it.choice.as_ref();
            choice.is_ok_and(|it| !it.version.any_prerelease())
        });
        if let Some(release) = usable.filter(|it| !range.contains(&it.point)) {
            let text = format!(
                "the newest version that can be used is {package} {}",
                release.point
            );
            self.lines.push(text);
        }
    }

    /// Says what is wrong with versions, newest first. Where that is that no wheel fits, one version is example enough.
    fn faults(&mut self, package: &Package, faulty: &[(&Release, &Fault)]) {
        let target = &self.rules.target;
        let mut groups: Vec<(String, Vec<String>)> = Vec::new();
        for (release, fault) in faulty {
            let (words, version) = (fault.words(target), release.point.to_string());
            if let Fault::Wheels(misfits) = fault {
                if groups.is_empty() {
                    self.lines.push(format!("{package} {version} {words}:"));
                    self.misfits(misfits);
                }
                break;
            }
            match groups.iter_mut().find(|it| it.0 == words) {
                Some((_, versions)) => versions.push(version),
                None => groups.push((words, vec![version])),
            }
        }
        self.versions(package, groups);
    }

    /// Says what is wrong with groups of versions.
    fn versions(&mut self, package: &Package, groups: Vec<(String, Vec<String>)>) {
        for (words, versions) in groups.into_iter().take(VERSIONS) {
            let shown = versions[..versions.len().min(VERSIONS)].join(", ");
            self.lines
                .push(match versions.len().saturating_sub(VERSIONS) {
                    0 => format!("{package} {shown} {words}"),
                    more => format!("{package} {shown} and {more} more: {words}"),
                });
        }
    }

    /// Says for what the wheels are that do not fit.
    fn misfits(&mut self, files: &[Arc<str>]) {
        let mut kinds: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for file in files {
            let wheel = WheelName::parse(file).ok();
            let words = wheel.and_then(|it| it.misfit(&self.rules.target));
            kinds
                .entry(words.unwrap_or_default())
                .or_default()
                .push(file);
        }
        for (words, files) in kinds {
            let shown = files[..files.len().min(NAMES)].join(", ");
            self.lines.push(match files.len().saturating_sub(NAMES) {
                0 => format!("  {words}: {shown}"),
                more => format!("  {words}: {shown} and {more} more"),
            });
        }
    }
}

/// Returns packages that there are, which a name that no index has may be meant to be.
pub(super) fn near_names(
    name: &PackageName,
    listings: &Listings,
    index: &dyn Index,
) -> Vec<String> {
    let known = listings.iter().filter(|it| it.1.is_ok());
    let known = known.map(|it| it.0.as_ref());
    let mut names: Vec<String> = name_guesses::similar(name, known)
        .into_iter()
        .map(str::to_owned)
        .collect();
    for other in index.similar(name) {
        if names.iter().all(|it| it != other.as_ref()) {
            names.push(other.to_string());
        }
    }
    names.truncate(NAMES);
    names
}

/// Says what to do about so many packages that none of the indexes has that were asked.
pub(crate) fn elsewhere(asked: &[String], count: usize) -> String {
    let (them, own) = match count {
        1 => (
            "it",
            "if it is a package of your own, point `find_links` at a folder with a wheel of it",
        ),
        _ => (
            "them",
            "if they are packages of your own, point `find_links` at a folder with wheels of them",
        ),
    };
    let asked = match asked {
        [] => return own.to_owned(),
        [one] => format!("`{one}` was"),
        all => format!("`{}` were", all.join("`, `")),
    };
    format!("only {asked} asked: name the index that has {them} under `[index]`; {own}")
}

/// Says what may be meant by packages that no index has, each with its place, and what to do about them.
pub(super) fn of_unknown(unknown: &[Unknown]) -> String {
    let mut lines = Vec::new();
    for package in unknown.iter().take(UNKNOWN) {
        let near = did_you_mean(&package.near);
        let near = near.map_or_else(String::new, |near| format!(", {near}"));
        let places = package.places.iter();
        lines.extend(places.map(|place| format!("{place}: {}{near}", package.name)));
    }
    // It may stand twice on a line.
    lines.dedup();
    let more = unknown.len().saturating_sub(UNKNOWN);
    lines.extend((more > 0).then(|| format!("and {more} more")));
    // What is of one index alone was looked for in no other.
    let mut indexes: BTreeMap<&[String], usize> = BTreeMap::new();
    for package in unknown {
        *indexes.entry(&package.asked).or_default() += 1;
    }
    lines.extend(
        indexes
            .into_iter()
            .map(|(asked, count)| elsewhere(asked, count)),
    );
    lines.join("\n")
}

/// Names packages that no index has.
pub(super) fn listed(unknown: &[Unknown]) -> String {
    let shown = unknown.iter().take(UNKNOWN);
    let mut names: Vec<String> = shown.map(|it| it.name.to_string()).collect();
    let more = unknown.len().saturating_sub(UNKNOWN);
    let last = match more {
        0 => names.pop(),
        more => Some(format!("{more} more")),
    };
    format!("{} and {}", names.join(", "), last.unwrap_or_default())
}

/// Asks whether one of some names is meant; `None` without names.
pub(super) fn did_you_mean(names: &[String]) -> Option<String> {
    match names {
        [] => None,
        [one] => Some(format!("did you mean `{one}`?")),
        [some @ .., last] => Some(format!("did you mean `{}` or `{last}`?", some.join("`, `"))),
    }
}

/// Says why none of some versions can be used, as the end of a sentence that begins with the package.
pub(super) fn reasons(releases: &[&Release], rules: &Rules) -> String {
    let faults = || releases.iter().filter_map(|it| it.choice.as_ref().err());
    let unique = |texts: Vec<&str>| {
        let mut seen = BTreeSet::new();
        let texts = texts
            .into_iter()
            .filter(|it| !it.is_empty() && seen.insert(*it));
        texts.take(NAMES).map(str::to_owned).collect::<Vec<_>>()
    };
    let has_wheels = faults().any(|it| matches!(it, Fault::Wheels(_)));
    let mut words: Vec<String> = Vec::new();
    for fault in faults() {
        let word = match fault {
            Fault::Sources if has_wheels => continue,
            Fault::Python(_) => {
                let needs = faults().filter_map(|it| match it {
                    Fault::Python(needs) => Some(needs.as_str()),
                    _ => None,
                });
                let needs = unique(needs.collect()).join(" or ");
                Fault::Python(needs).words(&rules.target)
            }
            Fault::Yanked(_) => {
                let why = faults().filter_map(|it| match it {
                    Fault::Yanked(why) => Some(why.as_str()),
                    _ => None,
                });
                Fault::Yanked(unique(why.collect()).join("; ")).words(&rules.target)
            }
            fault => fault.words(&rules.target),
        };
        if !words.contains(&word) {
            words.push(word);
        }
    }
    words.join(" or ")
}
