//! What the solver asks of the index: what it needs now, and ahead of time what it will need.

use std::sync::Arc;

use pep508_rs::PackageName;
use pubgrub::Ranges;

use super::choose::{Choice, Listing};
use super::range::Point;
use super::solve::{Package, Solver};
use super::{Candidate, IndexError, ResolveError, Unreadable, Wanted};
use crate::python::{Asked, Metadata};

/// What to do about a wheel that says of itself what its name does not.
const OTHER: &str = "the file's name does not say what is in it: take it from another place, or give it its right name";

impl Solver<'_> {
    /// Asks the index for what is likely to be asked next.
    pub(super) fn prefetch(&mut self) {
        let mut wanted = Vec::new();
        let mut files = Vec::new();
        for (id, range) in self.state.partial_solution.prioritized_packages() {
            let Package::Base(name) = &self.state.package_store[id] else {
                continue;
            };
            let listing = self.listings.get(name);
            // Most are as they were before the last decision: nothing new is wanted of them.
            let seen = self.foreseen.get(name);
            if seen.is_some_and(|(was_listed, it)| *was_listed == listing.is_some() && it == range)
            {
                continue;
            }
            self.foreseen
                .insert(name.clone(), (listing.is_some(), range.clone()));
            if self.direct.contains_key(name) {
                continue;
            }
            match listing {
                None if self.prefetched.insert(name.clone()) => {
                    let pick = self.rules.pick(range.clone());
                    wanted.push(Wanted::Package(name.clone(), pick));
                }
                Some(Ok(listing)) => {
                    if let Choice::Take(candidate) = self.rules.choose(name, listing, range) {
                        let key = (name.clone(), Point::of(&candidate.version));
                        if !self.metadata.contains_key(&key) && self.prefetched_files.insert(key) {
                            files.push(candidate.clone());
                        }
                    }
                }
                _ => {}
            }
        }
        if !files.is_empty() {
            wanted.push(Wanted::Metadata(files));
        }
        for wanted in wanted {
            self.index.prefetch(wanted);
        }
    }

    /// Where many versions of a package were tried in vain, asks for as many older ones at once.
    pub(super) fn prefetch_batch(
        &mut self,
        name: &PackageName,
        listing: &Listing,
        range: &Ranges<Point>,
        point: &Point,
    ) {
        let (tried, last) = self.tried.entry(name.clone()).or_default();
        tried.insert(point.clone());
        let count = tried.len();
        let is_due = [5, 10, 20].iter().any(|it| count >= *it && *last < *it)
            || count >= 20 && count - *last >= 20;
        if !is_due {
            return;
        }
        *last = count;
        // Older ones also out of the range: what keeps them out is often of the version that is rejected next.
        let older = |it: &Ranges<Point>| {
            let mut left = it.intersection(&Ranges::strictly_lower_than(point.clone()));
            let mut found = Vec::new();
            while found.len() < count.min(50)
                && let Choice::Take(candidate) = self.rules.choose(name, listing, &left)
            {
                let own = Point::of(&candidate.version);
                left = left.intersection(&Ranges::strictly_lower_than(own));
                found.push(candidate.clone());
            }
            found
        };
        let mut batch = older(range);
        batch.extend(older(&Ranges::full()));
        let mut files = Vec::new();
        for candidate in batch {
            let key = (name.clone(), Point::of(&candidate.version));
            if files.len() < count.min(50)
                && !self.metadata.contains_key(&key)
                && self.prefetched_files.insert(key)
            {
                files.push(candidate);
            }
        }
        if !files.is_empty() {
            self.index.prefetch(Wanted::Metadata(files));
        }
    }

    /// Returns the versions of a package, or why it is unknown.
    pub(super) fn listing(
        &mut self,
        name: &PackageName,
    ) -> Result<Result<Arc<Listing>, IndexError>, ResolveError> {
        if let Some(known) = self.listings.get(name) {
            return Ok(known.clone());
        }
        let found = match self.direct.get(name) {
            Some((_, candidate)) => Ok(vec![candidate.clone()]),
            None => self.index.versions(name),
        };
        let listing = match found {
            Ok(files) => Ok(Arc::new(self.rules.list(files))),
            Err(error @ IndexError::Failed { .. }) => {
                return Err(self.failure(name, name.to_string(), error));
            }
            Err(error) => Err(error),
        };
        self.listings.insert(name.clone(), listing.clone());
        Ok(listing)
    }

    /// Returns what a wheel says of itself, or why its version cannot be used.
    pub(super) fn metadata(
        &mut self,
        candidate: &Candidate,
        point: &Point,
    ) -> Result<Result<Arc<Metadata>, String>, ResolveError> {
        let key = (candidate.name.clone(), point.clone());
        if let Some(known) = self.metadata.get(&key) {
            return Ok(known.clone());
        }
        let found = match self.index.metadata(candidate) {
            Ok(metadata) => {
                let needs = metadata.requires_python.as_ref();
                if metadata.name != candidate.name || metadata.version != candidate.version {
                    let said = format!("calls itself {} {}", metadata.name, metadata.version);
                    let wheel = Unreadable {
                        code: "imgdecl::wheel::other",
                        why: format!("{} {said}", candidate.file),
                        help: OTHER.to_owned(),
                    };
                    self.unreadable.insert(key.clone(), wheel);
                    Err(said)
                } else if let Some(needs) = needs.filter(|it| !self.rules.admits(it)) {
                    let python = self.rules.target.python;
                    Err(format!("needs Python {needs}, and this is {python}"))
                } else {
                    Ok(Arc::new(metadata))
                }
            }
            Err(IndexError::Malformed(wheel)) => {
                let said = format!("cannot be read: {}", wheel.why);
                self.unreadable.insert(key.clone(), wheel);
                Err(said)
            }
            Err(error) => {
                let what = format!("{} {}", candidate.name, candidate.version);
                return Err(self.failure(&candidate.name, what, error));
            }
        };
        self.metadata.insert(key, found.clone());
        Ok(found)
    }

    /// Returns what is asked for on the target.
    pub(super) fn asked(&self) -> impl Iterator<Item = &Asked> {
        let asked = self.question.asked.iter();
        asked.filter(move |it| it.requirement.marker.evaluate(&self.markers, &[]))
    }

    pub(super) fn failure(
        &self,
        name: &PackageName,
        what: String,
        error: IndexError,
    ) -> ResolveError {
        let mut needed_by = Vec::new();
        let mut first = name;
        // Each package has one parent that was known before it, so this ends.
        while let Some(parent) = self.parents.get(first).and_then(Package::name)
            && needed_by.len() < 20
            && parent != first
        {
            needed_by.push(format!("needed by {parent}"));
            first = parent;
        }
        let asked = self.question.asked.iter().find(|it| it.name() == first);
        ResolveError::Index {
            what,
            error: Box::new(error),
            needed_by: match needed_by.is_empty() {
                true => String::new(),
                false => format!(" ({})", needed_by.join(", ")),
            },
            place: asked.map(|it| it.place.clone()),
        }
    }
}
