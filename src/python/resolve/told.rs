//! What is told of what was not taken: newer versions without a wheel, pre-releases, and all that is asked for and cannot be
//! had.

use std::collections::BTreeMap;

use pep508_rs::{PackageName, VersionOrUrl};
use pubgrub::Ranges;

use super::choose::{Choice, Fault, Release};
use super::hints::{self, UNKNOWN, near_names};
use super::range::{self, Point};
use super::solve::{Package, Solver, asked_range};
use super::{IndexError, ResolveError, Resolved, Unknown};
use crate::python::Place;

/// Packages that are asked for and cannot be had.
#[derive(Clone, Debug)]
pub(crate) struct Missing {
    /// Those that no index has.
    pub unknown: Vec<Unknown>,
    /// Those of which nothing fits.
    pub wheelless: Vec<Wheelless>,
    /// The target, in words.
    target: String,
}

/// A package that is asked for, and of which no wheel fits.
#[derive(Clone, Debug)]
pub(crate) struct Wheelless {
    /// Its name.
    name: PackageName,
    /// The requirements that name it.
    pub places: Vec<Place>,
    /// What there is, as the end of a sentence.
    words: String,
}

impl Missing {
    /// Says what is wrong.
    pub(super) fn message(&self) -> String {
        let names: Vec<String> = self
            .wheelless
            .iter()
            .map(|it| it.name.to_string())
            .collect();
        let verb = if names.len() == 1 { "has" } else { "have" };
        let mut text = format!("{} {verb} no wheel for {}", joined(&names), self.target);
        let names: Vec<String> = self.unknown.iter().map(|it| it.name.to_string()).collect();
        if !names.is_empty() {
            let verb = if names.len() == 1 { "is" } else { "are" };
            text += &format!(", and {} {verb} in no index", joined(&names));
        }
        text
    }

    /// Says how to mend it.
    pub(super) fn help(&self) -> String {
        let mut lines = Vec::new();
        for it in self.wheelless.iter().take(UNKNOWN) {
            let place = it.places.first().map(|it| format!("{it}: "));
            lines.push(format!(
                "{}{} {}",
                place.unwrap_or_default(),
                it.name,
                it.words
            ));
        }
        let more = self.wheelless.len().saturating_sub(UNKNOWN);
        lines.extend((more > 0).then(|| format!("and {more} more")));
        lines.push(
            "build wheels of them for the target, and point `find_links` at their folder"
                .to_owned(),
        );
        if !self.unknown.is_empty() {
            lines.push(hints::of_unknown(&self.unknown));
        }
        lines.join("\n")
    }

    /// Returns all requirements that take part.
    pub(crate) fn places(&self) -> impl Iterator<Item = &Place> {
        let own = self.wheelless.iter().flat_map(|it| &it.places);
        own.chain(self.unknown.iter().flat_map(|it| &it.places))
    }
}

/// Lists names, so many of them.
fn joined(names: &[String]) -> String {
    let more = names.len().saturating_sub(UNKNOWN);
    let mut shown: Vec<String> = names.iter().take(UNKNOWN).cloned().collect();
    shown.extend((more > 0).then(|| format!("{more} more")));
    match shown.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => shown.concat(),
    }
}

impl Solver<'_> {
    /// Fails where a package that is asked for cannot be had, and others that are asked for cannot either: all are told at
    /// once. One alone is explained as conflicts are.
    pub(super) fn check_known(&mut self, name: &PackageName) -> Result<(), ResolveError> {
        let mut all: Vec<(PackageName, Vec<Place>, Ranges<Point>)> = Vec::new();
        for asked in self.asked() {
            let range = match self.overrides(asked.name()) {
                None => asked_range(asked),
                Some(overrides) => together(overrides.into_iter().map(asked_range)),
            };
            match all.iter_mut().find(|it| it.0 == *asked.name()) {
                Some((_, places, own)) => {
                    places.push(asked.place.clone());
                    *own = own.intersection(&range);
                }
                None => all.push((asked.name().clone(), vec![asked.place.clone()], range)),
            }
        }
        // What is asked for stays the same.
        if self.is_checked || all.iter().all(|it| it.0 != *name) {
            return Ok(());
        }
        self.is_checked = true;
        let (mut unknown, mut wheelless) = (Vec::new(), Vec::new());
        for (name, places, mut range) in all {
            if let Some(constraint) = self.constraints.get(&name) {
                range = range.intersection(constraint);
            }
            // They were asked for ahead of time. What fails now is told once these are mended.
            match self.listing(&name) {
                Ok(Err(IndexError::NotFound { asked })) => unknown.push(Unknown {
                    name,
                    places,
                    near: Vec::new(),
                    asked,
                }),
                Ok(Ok(listing)) => {
                    let Choice::Faulty(releases) = self.rules.choose(&name, &listing, &range)
                    else {
                        continue;
                    };
                    let lacks = |it: &&&Release| self.rules.lacks_only_a_wheel(it);
                    if let Some(newest) = releases.iter().find(lacks)
                        && let Err(fault) = &newest.choice
                    {
                        let words = fault.words(&self.rules.target);
                        wheelless.push(Wheelless {
                            name,
                            places,
                            words: format!("{} {words}", newest.point),
                        });
                    }
                }
                _ => {}
            }
        }
        if unknown.len() + wheelless.len() < 2 {
            return Ok(());
        }
        for package in unknown.iter_mut().take(UNKNOWN) {
            package.near = near_names(&package.name, &self.listings, self.index);
        }
        if wheelless.is_empty() {
            return Err(ResolveError::Unknown(unknown));
        }
        Err(ResolveError::Missing(Missing {
            unknown,
            wheelless,
            target: self.rules.target.name(),
        }))
    }

    /// Warns of newer versions that were passed over since they have no wheel, and of pre-releases that nobody asked for.
    pub(super) fn tell_passed_over(&mut self, packages: &BTreeMap<PackageName, Resolved>) {
        let ranges = self.wanted(packages);
        for (name, resolved) in packages {
            let taken = &resolved.candidate.version;
            let point = Point::of(taken);
            let listing = self.listings.get(name).and_then(|it| it.as_ref().ok());
            let (Some(listing), Some(range)) = (listing, ranges.get(name)) else {
                continue;
            };
            let is_open = |it: &&Release| it.point > point && range.contains(&it.point);
            let is_stable = |it: &&Release| self.rules.is_pre || !it.point.is_pre();
            let newer: Vec<&Release> = listing
                .releases
                .iter()
                .filter(is_open)
                .filter(is_stable)
                .collect();
            // One that is held back by a lock or by others is no matter of wheels.
            let is_newest = newer.iter().all(|it| it.choice.is_err());
            let passed = newer.iter().rev();
            let mut passed = passed.filter(|it| self.rules.lacks_only_a_wheel(it));
            if let Some(newest) = passed.next().filter(|_| is_newest)
                && !self.rules.wants_older(name)
                && let Err(fault) = &newest.choice
            {
                let words = match fault {
                    Fault::Sources => "it has no wheel, only sources".to_owned(),
                    fault => format!("it {}", fault.words(&self.rules.target)),
                };
                let more = match passed.count() {
                    0 => String::new(),
                    more => format!(" (and {more} more)"),
                };
                self.warnings.insert(format!(
                    "{name} {}{more} is passed over, and {taken} taken: {words}",
                    newest.point
                ));
            }
            if taken.any_prerelease() && !self.rules.is_pre && !self.rules.pre.contains(name) {
                self.warnings.insert(format!(
                    "{name} {taken} is a pre-release: no stable version can be had"
                ));
            }
        }
    }

    /// Returns which versions of each package are wanted, by all who ask for it.
    fn wanted(
        &mut self,
        packages: &BTreeMap<PackageName, Resolved>,
    ) -> BTreeMap<PackageName, Ranges<Point>> {
        let mut ranges: BTreeMap<PackageName, Ranges<Point>> = BTreeMap::new();
        let mut narrow = |name: &PackageName, range: &Ranges<Point>| {
            let own = ranges.entry(name.clone()).or_insert_with(Ranges::full);
            *own = own.intersection(range);
        };
        for (dependency, range) in self.root_dependencies() {
            if let Package::Base(name) = dependency {
                narrow(&name, &range);
            }
        }
        for (name, resolved) in packages {
            let key = (name.clone(), Point::of(&resolved.candidate.version));
            let Some(Ok(metadata)) = self.metadata.get(&key).cloned() else {
                continue;
            };
            let extras = resolved.extras.iter().cloned();
            let extras = extras.map(|it| Package::Extra(name.clone(), it));
            for package in [Package::Base(name.clone())].into_iter().chain(extras) {
                for requirement in self.active(&package, &metadata) {
                    if let Some(VersionOrUrl::VersionSpecifier(it)) = &requirement.version_or_url {
                        narrow(&requirement.name, &range::all(it));
                    } else {
                        narrow(&requirement.name, &Ranges::full());
                    }
                }
            }
        }
        for (name, range) in &self.constraints {
            narrow(name, range);
        }
        ranges
    }
}

/// Returns what is in all of some ranges.
fn together(ranges: impl Iterator<Item = Ranges<Point>>) -> Ranges<Point> {
    ranges.fold(Ranges::full(), |all, it| all.intersection(&it))
}
