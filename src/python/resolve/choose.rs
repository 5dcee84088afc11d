//! Which file of a package is taken: the newest version in a range that has a wheel for the target.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError};

use pep440_rs::{Version, VersionSpecifiers};
use pep508_rs::PackageName;
use pubgrub::Ranges;

use super::Candidate;
use super::range::Point;
use crate::python::{Tags, Target, specifiers};

/// What decides which file is taken, for all packages.
pub(super) struct Rules {
    pub(super) target: Target,
    tags: Tags,
    python: Version,
    /// Whether all packages may be pre-releases.
    pub(super) is_pre: bool,
    /// The versions that the user asks for exactly: these may be yanked.
    pub(super) pins: BTreeSet<(PackageName, Version)>,
    pub(super) preferences: BTreeMap<PackageName, Version>,
    /// The packages of which the user names a pre-release: they may be some.
    pub(super) pre: BTreeSet<PackageName>,
    /// The packages of which the user wants an older wheel where a newer version has none, by name, or `:all:`.
    pub(super) older: BTreeSet<String>,
    /// What was found out of `Requires-Python`: the same few texts stand in thousands of files.
    refused: Mutex<BTreeMap<Arc<str>, Option<String>>>,
}

/// All versions of a package, oldest first.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) releases: Vec<Release>,
    /// The points of the versions that can be used.
    usable: Vec<Point>,
}

/// One version of a package.
#[derive(Debug)]
pub(super) struct Release {
    pub(super) point: Point,
    /// The file that is taken, or why there is none.
    pub(super) choice: Result<Candidate, Fault>,
    /// The Pythons that it needs, by the first of its files that is not yanked; `None` where all are.
    pub(super) needs: Option<Option<Arc<str>>>,
}

/// Why a version cannot be used. Worst first: where all versions of a range have faults, the last kind is told.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Fault {
    /// It was yanked, and nobody pins it.
    Yanked(String),
    /// It needs another Python.
    Python(String),
    /// There are sources only.
    Sources,
    /// There are wheels, of these names, and none fits.
    Wheels(Vec<Arc<str>>),
}

/// How much room for files may stay behind, in files.
const SPARE: usize = 4096;

/// The rank of a wheel's tags, and its build tag: the least is taken.
type Order = (u32, Reverse<Option<(u64, String)>>);

/// What a range of versions holds.
#[derive(Debug)]
pub(super) enum Choice<'a> {
    Take(&'a Candidate),
    /// There are versions, but none can be used.
    Faulty(Vec<&'a Release>),
    Nothing,
}

/// Picks the file of a package whose metadata is wanted next.
pub(crate) struct Pick {
    rules: Arc<Rules>,
    range: Ranges<Point>,
}

impl Pick {
    /// Picks from all files of a package, of which most are not looked at: `version` returns that of a file, and `make` its
    /// candidate; `None` for what is none. Returns the file's place.
    pub(crate) fn from<T>(
        &self,
        name: &PackageName,
        files: &[T],
        version: impl Fn(&T) -> Option<Version>,
        make: impl Fn(&T) -> Option<Candidate>,
    ) -> Option<usize> {
        let point = |(at, file): (usize, &T)| Some((Point::of(&version(file)?), at));
        let points = files.iter().enumerate().filter_map(point);
        let mut points: Vec<(Point, usize)> = points
            .filter(|(point, _)| self.range.contains(point))
            .collect();
        // Files of one version stay in their order.
        points.sort();
        let taken = |group: &[(Point, usize)]| {
            let made = group.iter().filter_map(|(_, at)| make(&files[*at]));
            let taken = self.rules.best(made.collect()).ok()?;
            let is_it = |at: &usize| make(&files[*at]).is_some_and(|it| it == taken);
            let at = group.iter().map(|(_, at)| *at).find(is_it)?;
            Some((at, self.rules.is_pre || !taken.version.any_prerelease()))
        };
        let groups = || points.chunk_by(|(one, _), (other, _)| one == other);
        if let Some(preferred) = self.rules.preferences.get(name).map(Point::of)
            && let Some(group) = groups().find(|it| it[0].0 == preferred)
            && let Some((at, _)) = taken(group)
        {
            return Some(at);
        }
        let mut fallback = None;
        for group in groups().rev() {
            match taken(group) {
                Some((at, true)) => return Some(at),
                Some((at, false)) => drop(fallback.get_or_insert(at)),
                None => {}
            }
        }
        fallback
    }
}

impl Rules {
    pub(super) fn new(target: &Target) -> Self {
        Self {
            target: target.clone(),
            tags: target.tags(),
            python: target.markers().python_full_version().version.clone(),
            is_pre: false,
            pins: BTreeSet::new(),
            preferences: BTreeMap::new(),
            pre: BTreeSet::new(),
            older: BTreeSet::new(),
            refused: Mutex::default(),
        }
    }

    /// Tells whether a release would do, had it a wheel for the target.
    pub(super) fn lacks_only_a_wheel(&self, release: &Release) -> bool {
        let is_so = matches!(&release.choice, Err(Fault::Sources | Fault::Wheels(_)));
        let Some(needs) = release.needs.as_ref().filter(|_| is_so) else {
            return false;
        };
        let needs = needs.as_deref().and_then(specifiers);
        needs.is_none_or(|it| self.admits(&it))
    }

    /// Tells whether a pre-release of a package is taken only where there is nothing else.
    fn is_wary(&self, name: &PackageName) -> bool {
        !self.is_pre && !self.pre.contains(name) && !self.wants_older(name)
    }

    /// Tells whether the user wants an older wheel of a package where a newer version has none.
    pub(super) fn wants_older(&self, name: &PackageName) -> bool {
        self.older.contains(":all:") || self.older.contains(name.as_ref())
    }

    /// Makes a pick for later.
    pub(super) fn pick(self: &Arc<Self>, range: Ranges<Point>) -> Pick {
        Pick {
            rules: self.clone(),
            range,
        }
    }

    /// Tells whether the target's Python is new enough. That it is too new is not believed: such bounds were guesses.
    pub(super) fn admits(&self, specifiers: &VersionSpecifiers) -> bool {
        let range = pep440_rs::release_specifiers_to_ranges(specifiers.clone());
        match range.bounding_range() {
            Some((Bound::Included(lowest), _)) => *lowest <= self.python,
            Some((Bound::Excluded(lowest), _)) => *lowest < self.python,
            Some((Bound::Unbounded, _)) => true,
            None => false,
        }
    }

    /// Returns what `Requires-Python` says where the target's Python does not do; `None` where it does.
    fn refused(&self, needs: &Arc<str>) -> Option<String> {
        let mut known = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(needs) {
            return known.clone();
        }
        let specifiers = specifiers(needs).filter(|it| !self.admits(it));
        let refused = specifiers.map(|it| it.to_string());
        known.insert(needs.clone(), refused.clone());
        refused
    }

    /// Sorts the files of a package by version, and takes the best of each.
    pub(super) fn list(&self, files: Vec<Candidate>) -> Listing {
        let mut files = files;
        let point = |it: &Candidate| Point::of(&it.version);
        // Files of one version stay in their order.
        files.sort_by_cached_key(point);
        // Room that is not used takes none.
        let mut releases = Vec::with_capacity(files.len());
        // From behind, so that what was looked at needs no room any more.
        while let Some(last) = files.pop() {
            let own = point(&last);
            let mut group = vec![last];
            while let Some(file) = files.pop_if(|other| point(other) == own) {
                group.push(file);
            }
            group.reverse();
            let open = group.iter().find(|it| it.yanked.is_none());
            let needs = open.map(|it| it.requires_python.clone());
            let choice = self.best(group);
            releases.push(Release {
                point: own,
                needs: needs.filter(|_| choice.is_err()),
                choice,
            });
            if files.capacity() - files.len() > SPARE {
                files.shrink_to_fit();
            }
        }
        releases.reverse();
        releases.shrink_to_fit();
        let usable = releases.iter().filter(|it| it.choice.is_ok());
        let usable = usable.map(|it| it.point.clone()).collect();
        Listing { releases, usable }
    }

    /// Takes the best file of one version.
    fn best(&self, files: Vec<Candidate>) -> Result<Candidate, Fault> {
        let mut best: Option<(Order, Candidate)> = None;
        let mut faults = BTreeSet::new();
        let mut misfits = Vec::new();
        for file in files {
            let (rank, build) = match self.tags.fit(&file.file) {
                Err(_) => {
                    faults.insert(Fault::Sources);
                    continue;
                }
                Ok(None) => {
                    misfits.push(file.file);
                    continue;
                }
                Ok(Some(fit)) => fit,
            };
            if let Some(needs) = &file.requires_python
                && let Some(needs) = self.refused(needs)
            {
                faults.insert(Fault::Python(needs));
                continue;
            }
            let key = (file.name.clone(), file.version.clone());
            if let Some(reason) = &file.yanked
                && !self.pins.contains(&key)
            {
                faults.insert(Fault::Yanked(reason.clone()));
                continue;
            }
            // Build tags break ties: the higher one is better.
            let order = (rank, Reverse(build));
            if best.as_ref().is_none_or(|(own, _)| order < *own) {
                best = Some((order, file));
            }
        }
        if let Some((_, candidate)) = best {
            return Ok(candidate);
        }
        // A wheel that fits the platform says more than those that do not.
        let known = faults
            .into_iter()
            .find(|it| matches!(it, Fault::Yanked(_) | Fault::Python(_)));
        if let Some(fault) = known {
            return Err(fault);
        }
        if misfits.is_empty() {
            return Err(Fault::Sources);
        }
        Err(Fault::Wheels(misfits))
    }

    /// Chooses from the versions in a range: the preferred one, else the newest release, else the newest pre-release.
    pub(super) fn choose<'a>(
        &self,
        name: &PackageName,
        listing: &'a Listing,
        range: &Ranges<Point>,
    ) -> Choice<'a> {
        if let Some(preferred) = self.preferences.get(name).map(Point::of)
            && range.contains(&preferred)
            && let Some(candidate) = listing.get(&preferred)
        {
            return Choice::Take(candidate);
        }
        let mut fallback = None;
        let mut faulty = Vec::new();
        for release in listing.releases.iter().rev() {
            if !range.contains(&release.point) {
                continue;
            }
            match &release.choice {
                Err(_) => faulty.push(release),
                Ok(candidate) if self.is_pre || !candidate.version.any_prerelease() => {
                    return Choice::Take(candidate);
                }
                Ok(candidate) => {
                    fallback.get_or_insert(candidate);
                }
            }
        }
        // A stable version is wanted: that it has no wheel is no reason to take another kind.
        let is_stable = |it: &&&Release| !it.point.is_pre() && self.lacks_only_a_wheel(it);
        if fallback.is_some() && self.is_wary(name) && faulty.iter().any(|it| is_stable(&it)) {
            return Choice::Faulty(faulty);
        }
        match fallback {
            Some(candidate) => Choice::Take(candidate),
            None if faulty.is_empty() => Choice::Nothing,
            None => Choice::Faulty(faulty),
        }
    }
}

impl Listing {
    /// Returns the file of a version that can be used.
    pub(super) fn get(&self, point: &Point) -> Option<&Candidate> {
        let at = self
            .releases
            .binary_search_by(|it| it.point.cmp(point))
            .ok()?;
        self.releases[at].choice.as_ref().ok()
    }

    /// Returns the set that holds this version and no other one that can be used: sets of neighbours then become one.
    pub(super) fn around(&self, point: &Point) -> Ranges<Point> {
        Ranges::singleton(point.clone()).widen_versions(&self.usable)
    }

    /// Returns the points of all versions, oldest first.
    pub(super) fn points(&self) -> Vec<Point> {
        self.releases.iter().map(|it| it.point.clone()).collect()
    }
}

impl Fault {
    /// Says it as the end of a sentence that begins with a package.
    pub(super) fn words(&self, target: &Target) -> String {
        match self {
            Self::Yanked(reason) if reason.is_empty() => "was yanked".to_owned(),
            Self::Yanked(reason) => format!("was yanked ({})", reason.trim()),
            Self::Python(needs) => format!("needs Python {needs}, and this is {}", target.python),
            Self::Sources => "has no wheel, only sources".to_owned(),
            Self::Wheels(_) => format!("has no wheel for {}", target.name()),
        }
    }
}
