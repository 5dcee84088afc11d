//! The solver: drives pubgrub's state, and reorders what conflicts often.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pep508_rs::{ExtraName, MarkerEnvironment, MarkerTree, PackageName, VersionOrUrl};
use pubgrub::{
    Dependencies, DependencyProvider, Id, IncompId, Incompatibility, PackageResolutionStatistics,
    Ranges, State,
};

use super::choose::{Choice, Rules};
use super::hints::{Listings, reasons};
use super::priority::{LIMIT, Priorities, Priority};
use super::range::{self, Point};
use super::unreadable::left_out;
use super::{
    Candidate, Conflict, Index, IndexError, Question, Resolution, ResolveError, Resolved,
    Unreadable,
};
use crate::python::{Asked, Direct, Metadata, Place};

/// How many decisions are made before it is given up: far more than any known set needs.
const STEPS: u32 = 100_000;

/// How often it is told how far it has come.
const TELL: Duration = Duration::from_millis(200);

/// What is decided: a package, or one of its extras, which goes with the same version of the package.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Package {
    Root,
    Base(PackageName),
    Extra(PackageName, ExtraName),
}

impl Package {
    pub(super) fn name(&self) -> Option<&PackageName> {
        match self {
            Self::Root => None,
            Self::Base(name) | Self::Extra(name, _) => Some(name),
        }
    }
}

impl fmt::Display for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("your requirements"),
            Self::Base(name) => write!(f, "{name}"),
            Self::Extra(name, extra) => write!(f, "{name}[{extra}]"),
        }
    }
}

/// Names the types that pubgrub's state is made of.
pub(super) struct Types;

/// The solver drives the state by itself, so that none of this is ever asked.
impl DependencyProvider for Types {
    type P = Package;
    type V = Point;
    type VS = Ranges<Point>;
    type Priority = Priority;
    type M = String;
    type Err = Infallible;

    fn prioritize(
        &self,
        _: &Package,
        _: &Ranges<Point>,
        _: &PackageResolutionStatistics,
    ) -> Priority {
        unreachable!("the solver orders packages")
    }

    fn choose_version(&self, _: &Package, _: &Ranges<Point>) -> Result<Option<Point>, Infallible> {
        unreachable!("the solver chooses versions")
    }

    fn get_dependencies(
        &self,
        _: &Package,
        _: &Point,
    ) -> Result<Dependencies<Package, Ranges<Point>, String>, Infallible> {
        unreachable!("the solver reads dependencies")
    }
}

/// A dependency of a package.
pub(super) type Dependency = (Package, Ranges<Point>);

pub(super) struct Solver<'a> {
    pub(super) question: &'a Question<'a>,
    pub(super) index: &'a dyn Index,
    pub(super) rules: Arc<Rules>,
    pub(super) markers: MarkerEnvironment,
    /// The same with another patch version, where that is not known.
    pub(super) other_markers: Option<MarkerEnvironment>,
    /// Whether a marker hangs on the kernel: the same few are asked for again and again, and saying it takes its text.
    pub(super) of_kernel: BTreeMap<MarkerTree, bool>,
    /// The packages whose wheel a requirement names by URL or path.
    pub(super) direct: BTreeMap<PackageName, (Direct, Candidate)>,
    /// The constraints that hold for the target.
    pub(super) constraints: BTreeMap<PackageName, Ranges<Point>>,
    pub(super) state: State<Types>,
    pub(super) priorities: Priorities<Package>,
    pub(super) listings: Listings,
    pub(super) metadata: BTreeMap<(PackageName, Point), Result<Arc<Metadata>, String>>,
    /// The wheels that were looked at and could not be read.
    pub(super) unreadable: BTreeMap<(PackageName, Point), Unreadable>,
    /// What was asked of the index ahead of time.
    pub(super) prefetched: BTreeSet<PackageName>,
    /// What was looked at for that: whether the package was listed then, and of which versions one was wanted.
    pub(super) foreseen: BTreeMap<PackageName, (bool, Ranges<Point>)>,
    pub(super) prefetched_files: BTreeSet<(PackageName, Point)>,
    /// How many versions of a package were tried, and how many were when a batch was prefetched.
    pub(super) tried: BTreeMap<PackageName, (BTreeSet<Point>, usize)>,
    /// The versions whose dependencies the state knows.
    pub(super) added: BTreeMap<Package, BTreeSet<Point>>,
    /// How often versions of a package were rejected, and how often it was the cause.
    pub(super) affected: BTreeMap<Package, u32>,
    pub(super) culprit: BTreeMap<Package, u32>,
    pub(super) raised: Vec<Id<Package>>,
    pub(super) lowered: Vec<Id<Package>>,
    /// Who asked for a package first.
    pub(super) parents: BTreeMap<PackageName, Package>,
    pub(super) warnings: BTreeSet<String>,
    /// Whether all that is asked for was looked at, since something of it cannot be had.
    pub(super) is_checked: bool,
}

impl<'a> Solver<'a> {
    pub(super) fn new(question: &'a Question<'a>, index: &'a dyn Index) -> Self {
        let target = question.target;
        let markers = target.markers();
        let other_markers = target.python.patch.is_none().then(|| {
            let mut target = target.clone();
            target.python.patch = Some(999);
            target.markers()
        });
        let mut rules = Rules::new(target);
        rules.is_pre = question.is_pre;
        rules.older.clone_from(question.only_wheels);
        rules.preferences = question.preferences.clone();
        let mut constraints: BTreeMap<PackageName, Ranges<Point>> = BTreeMap::new();
        let mut direct = BTreeMap::new();
        let active = |it: &&Asked| it.requirement.marker.evaluate(&markers, &[]);
        let is_replaced =
            |it: &&Asked| question.overrides.iter().any(|own| own.name() == it.name());
        let stands = question.asked.iter().filter(|it| !is_replaced(it));
        for asked in stands
            .chain(question.constraints)
            .chain(question.overrides)
            .filter(active)
        {
            // Who names a pre-release may have one.
            if let Some(VersionOrUrl::VersionSpecifier(specifiers)) =
                &asked.requirement.version_or_url
                && specifiers.iter().any(|it| it.version().any_prerelease())
            {
                rules.pre.insert(asked.name().clone());
            }
            if let Some(VersionOrUrl::VersionSpecifier(specifiers)) =
                &asked.requirement.version_or_url
            {
                let name = asked.name();
                let pins = specifiers.iter().filter(|it| {
                    let operator = it.operator();
                    matches!(
                        operator,
                        pep440_rs::Operator::Equal | pep440_rs::Operator::ExactEqual
                    )
                });
                rules
                    .pins
                    .extend(pins.map(|it| (name.clone(), it.version().clone())));
            }
            if let Some(url) = &asked.url {
                let candidate = direct_candidate(asked, url);
                let entry = direct.entry(asked.name().clone());
                entry.or_insert((url.clone(), candidate));
            }
        }
        for asked in question.constraints.iter().filter(active) {
            let range = constraints
                .entry(asked.name().clone())
                .or_insert_with(Ranges::full);
            *range = range.intersection(&asked_range(asked));
        }
        Self {
            question,
            index,
            rules: Arc::new(rules),
            markers,
            other_markers,
            of_kernel: BTreeMap::new(),
            direct,
            constraints,
            state: State::init(Package::Root, root()),
            priorities: Priorities::new(),
            listings: BTreeMap::new(),
            metadata: BTreeMap::new(),
            unreadable: BTreeMap::new(),
            prefetched: BTreeSet::new(),
            foreseen: BTreeMap::new(),
            prefetched_files: BTreeSet::new(),
            tried: BTreeMap::new(),
            added: BTreeMap::new(),
            affected: BTreeMap::new(),
            culprit: BTreeMap::new(),
            raised: Vec::new(),
            lowered: Vec::new(),
            parents: BTreeMap::new(),
            warnings: BTreeSet::new(),
            is_checked: false,
        }
    }

    pub(super) fn run(mut self) -> Result<Resolution, ResolveError> {
        let mut next = self.state.root_package;
        let mut told = Instant::now();
        for _ in 0..STEPS {
            if told.elapsed() >= TELL {
                told = Instant::now();
                let decided = self.state.partial_solution.extract_solution().count();
                self.index
                    .hear(decided, self.listings.len(), self.metadata.len());
            }
            match self.state.unit_propagation(next) {
                Ok(conflicts) => {
                    let conflicts: Vec<_> = conflicts.iter().copied().collect();
                    for (affected, cause) in conflicts {
                        self.record(affected, cause);
                    }
                }
                Err(tree) => {
                    let (question, listings) = (self.question, &self.listings);
                    let conflict = Conflict::new(tree, question, listings, &self.rules, self.index);
                    return Err(self.conflict(Box::new(conflict)));
                }
            }
            // The network works while the solver thinks: what it will want next is asked for before it is wanted.
            self.prefetch();
            // Only here, between two decisions, may the order change: the state is at rest.
            self.reorder();
            let (state, priorities) = (&mut self.state, &self.priorities);
            let packages = &state.package_store;
            let picked = state.partial_solution.pick_highest_priority_pkg(|id, _| {
                let package = &packages[id];
                priorities.of(package.name(), package)
            });
            // Nothing is left to be decided: that is the solution.
            let Some((id, range)) = picked else {
                return self.finish();
            };
            let range = range.clone();
            next = id;
            self.decide(id, &range)?;
        }
        Err(ResolveError::Hard { steps: STEPS })
    }

    /// Decides a package, or tells the state why it cannot be.
    fn decide(&mut self, id: Id<Package>, range: &Ranges<Point>) -> Result<(), ResolveError> {
        let package = self.state.package_store[id].clone();
        let Some(name) = package.name().cloned() else {
            let dependencies = self.root_dependencies();
            self.add(
                id,
                &package,
                root(),
                Ranges::singleton(root()),
                dependencies,
            );
            return Ok(());
        };
        let listing = match self.listing(&name)? {
            Ok(listing) => listing,
            Err(error) => {
                self.check_known(&name)?;
                let (range, reason) = match error {
                    // No version of it can ever be taken; of the others we only know that none of this range can now.
                    IndexError::NotFound { .. } => (Ranges::full(), "is in no index".to_owned()),
                    error => (range.clone(), format!("cannot be had: {error}")),
                };
                self.reject(id, range, reason);
                return Ok(());
            }
        };
        let candidate = match self.rules.choose(&name, &listing, range) {
            Choice::Take(candidate) => candidate.clone(),
            Choice::Nothing => {
                let term = pubgrub::Term::Positive(range.clone());
                self.state
                    .add_incompatibility(Incompatibility::no_versions(id, term));
                return Ok(());
            }
            Choice::Faulty(releases) => {
                let reasons = reasons(&releases, &self.rules);
                self.check_known(&name)?;
                self.reject(id, range.clone(), reasons);
                return Ok(());
            }
        };
        let point = Point::of(&candidate.version);
        // What is said of a version holds for the whole gap between its neighbours: no other version lies in it. So the
        // solver joins what it learns of several versions into one range, and conflicts read like `>=1, <3`.
        let around = listing.around(&point);
        if self
            .added
            .get(&package)
            .is_some_and(|it| it.contains(&point))
        {
            // The state knows what it depends on from before it was taken back: telling it twice would only make it slower.
            self.state.partial_solution.add_decision(id, point);
            return Ok(());
        }
        // Many versions of one package were tried in vain: those that come next are fetched at once, and not one by one.
        self.prefetch_batch(&name, &listing, range, &point);
        let metadata = match self.metadata(&candidate, &point)? {
            Ok(metadata) => metadata,
            Err(reason) => {
                // It counts as known: its metadata is not asked for again.
                self.added.entry(package).or_default().insert(point);
                self.reject(id, around, reason);
                return Ok(());
            }
        };
        match self.dependencies(&package, &metadata, &around) {
            Ok(dependencies) => self.add(id, &package, point, around, dependencies),
            Err(reason) => self.reject(id, around, reason),
        }
        Ok(())
    }

    fn reject(&mut self, id: Id<Package>, range: Ranges<Point>, reason: String) {
        let term = pubgrub::Term::Positive(range);
        self.state
            .add_incompatibility(Incompatibility::custom_term(id, term, reason));
    }

    /// Decides for a version, and tells the state what it depends on.
    fn add(
        &mut self,
        id: Id<Package>,
        package: &Package,
        point: Point,
        around: Ranges<Point>,
        dependencies: Vec<Dependency>,
    ) {
        self.added
            .entry(package.clone())
            .or_default()
            .insert(point.clone());
        for (dependency, range) in &dependencies {
            let Some(name) = dependency.name() else {
                continue;
            };
            let is_direct = self.direct.contains_key(name);
            self.priorities
                .insert(name, dependency, range::is_pin(range), is_direct);
            if !self.parents.contains_key(name) {
                self.parents.insert(name.clone(), package.clone());
            }
            // An extra and its package have the same version: said at once, not only for the version that is decided.
            if let Package::Extra(name, _) = dependency {
                let extra = self.state.package_store.alloc(dependency.clone());
                let base = self.state.package_store.alloc(Package::Base(name.clone()));
                self.state
                    .add_proxy_package_incompatibility(extra, base, range.clone());
            }
        }
        let conflict = self
            .state
            .add_package_version_dependencies(id, point, around, dependencies);
        if let Some(cause) = conflict {
            self.record(id, cause);
        }
    }

    /// Counts a conflict for the package whose versions were rejected, and for those that were the cause.
    fn record(&mut self, id: Id<Package>, cause: IncompId<Package, Ranges<Point>, String>) {
        let affected = self.state.package_store[id].clone();
        let causes: Vec<Id<Package>> = self.state.incompatibility_store[cause]
            .iter()
            .map(|(it, _)| it)
            // An extra and its package always go together: neither is the other's fault.
            .filter(|it| self.state.package_store[*it].name() != affected.name())
            .collect();
        for cause in &causes {
            let package = self.state.package_store[*cause].clone();
            let count = self.culprit.entry(package).or_default();
            *count += 1;
            if *count == LIMIT {
                self.lowered.push(*cause);
            }
        }
        if !causes.is_empty() {
            let count = self.affected.entry(affected).or_default();
            *count += 1;
            if *count == LIMIT {
                self.raised.push(id);
            }
        }
    }

    /// Changes the order of the packages that conflicted often.
    fn reorder(&mut self) {
        // Whoever is rejected again and again is decided earlier, and whoever causes it later: else the solver would try all
        // versions of the first against each version of the second.
        for id in std::mem::take(&mut self.raised) {
            if let Some(name) = self.state.package_store[id].name() {
                self.priorities.early(name);
            }
        }
        for id in std::mem::take(&mut self.lowered) {
            let is_new = match self.state.package_store[id].name() {
                Some(name) => self.priorities.late(name),
                None => false,
            };
            if is_new {
                // `None` where it was not decided: then there is nothing to take back.
                let _ = self.state.backtrack_package(id);
            }
        }
    }

    fn finish(mut self) -> Result<Resolution, ResolveError> {
        // Only of the versions that are taken.
        self.warnings.clear();
        let decided: Vec<(Package, Point)> = self
            .state
            .partial_solution
            .extract_solution()
            .map(|(id, point)| (self.state.package_store[id].clone(), point))
            .collect();
        let mut packages: BTreeMap<PackageName, Resolved> = BTreeMap::new();
        // Once more, for its warnings: they were cleared with those of versions that were taken back.
        self.root_dependencies();
        let asked: BTreeSet<PackageName> = self.asked().map(|it| it.name().clone()).collect();
        for (package, point) in &decided {
            let Some(name) = package.name() else {
                continue;
            };
            let known = (
                self.listings.get(name).cloned(),
                self.metadata.get(&(name.clone(), point.clone())).cloned(),
            );
            let (Some(Ok(listing)), Some(Ok(metadata))) = known else {
                continue;
            };
            let Some(candidate) = listing.get(point) else {
                continue;
            };
            let requires = self.active(package, &metadata);
            let requires = requires.into_iter().map(|it| it.name);
            let entry = packages.entry(name.clone()).or_insert_with(|| Resolved {
                candidate: candidate.clone(),
                extras: BTreeSet::new(),
                requires: BTreeSet::new(),
                is_asked: asked.contains(name),
            });
            entry.requires.extend(requires.filter(|it| it != name));
            if let Package::Extra(_, extra) = package {
                entry.extras.insert(extra.clone());
            }
        }
        for resolved in packages.values() {
            let candidate = &resolved.candidate;
            if let Some(reason) = &candidate.yanked {
                self.warnings.insert(format!(
                    "{} {} was yanked{}{reason}",
                    candidate.name,
                    candidate.version,
                    if reason.is_empty() { "" } else { ": " }
                ));
            }
        }
        self.tell_passed_over(&packages);
        let taken = |name: &PackageName| packages.get(name).map(|it| &it.candidate.version);
        self.warnings.extend(left_out(&self.unreadable, &taken));
        Ok(Resolution {
            packages,
            warnings: self.warnings.into_iter().collect(),
        })
    }
}

/// The one version of the root.
fn root() -> Point {
    Point::of(&pep440_rs::Version::new([0_u64]))
}

/// Returns the versions that the user asks for.
pub(super) fn asked_range(asked: &Asked) -> Ranges<Point> {
    match (&asked.url, &asked.requirement.version_or_url) {
        (Some(url), _) => range::exactly(&url.wheel.version),
        (None, Some(VersionOrUrl::VersionSpecifier(specifiers))) => range::all(specifiers),
        (None, _) => Ranges::full(),
    }
}

fn direct_candidate(asked: &Asked, url: &Direct) -> Candidate {
    Candidate {
        name: url.wheel.name.clone(),
        version: url.wheel.version.clone(),
        file: url.wheel.file.as_str().into(),
        sha256: asked.hashes.first().copied(),
        size: None,
        requires_python: None,
        yanked: None,
        url: url.link.as_str().into(),
        index: "".into(),
    }
}

/// The places of the requirements on a package.
pub(super) fn places<'a>(
    question: &'a Question<'_>,
    name: &'a PackageName,
) -> impl Iterator<Item = (&'a Place, String)> {
    question
        .asked
        .iter()
        .chain(question.constraints)
        .chain(question.overrides)
        .filter(move |it| it.name() == name)
        .map(|it| (&it.place, it.requirement.to_string()))
}
