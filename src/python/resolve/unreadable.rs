//! Wheels that cannot be read: a conflict that comes from one is told as that, and a version that is left out for it is
//! warned of.

use std::collections::BTreeMap;

use pep440_rs::Version;
use pep508_rs::PackageName;

use super::range::Point;
use super::solve::Solver;
use super::{Conflict, ResolveError, Unreadable};

/// How many versions of one package are named.
const VERSIONS: usize = 5;

impl Solver<'_> {
    /// Makes the error of a conflict: where a wheel that cannot be read takes part in it, that is what is told.
    pub(super) fn conflict(&self, conflict: Box<Conflict>) -> ResolveError {
        let is_part = |key: &(PackageName, Point)| {
            let reason = self.metadata.get(key).and_then(|it| it.as_ref().err());
            reason.is_some_and(|reason| {
                let mut rejected = conflict.rejected.iter();
                rejected.any(|(name, other)| *name == key.0 && other == reason)
            })
        };
        // Of several versions of a package, the newest.
        let mut wheels = self.unreadable.iter().rev();
        match wheels.find(|(key, _)| is_part(key)) {
            Some(((name, _), wheel)) => ResolveError::Unreadable {
                wheel: wheel.clone(),
                others: self.others(name),
                conflict,
            },
            None => ResolveError::Conflict(conflict),
        }
    }

    /// Says which other versions of a package there are.
    fn others(&self, name: &PackageName) -> String {
        let listing = self.listings.get(name).and_then(|it| it.as_ref().ok());
        let releases = listing.map_or(&[][..], |it| &it.releases);
        let is_sound =
            |point: &Point| !self.unreadable.contains_key(&(name.clone(), point.clone()));
        let usable = releases.iter().rev().filter(|it| it.choice.is_ok());
        let points = usable.map(|it| &it.point).filter(|it| is_sound(it));
        let points: Vec<String> = points.map(ToString::to_string).collect();
        match points.len() {
            0 => format!("no other version of {name} is at hand"),
            count if count > VERSIONS => format!(
                "your requirements leave out the other versions of {name}: {} and {} more",
                points[..VERSIONS].join(", "),
                count - VERSIONS
            ),
            _ => format!(
                "your requirements leave out the other versions of {name}: {}",
                points.join(", ")
            ),
        }
    }
}

/// Warns of the versions that were left out since their wheels cannot be read: those of packages that are not taken, and
/// those that are newer than what is.
pub(super) fn left_out<'a>(
    unreadable: &BTreeMap<(PackageName, Point), Unreadable>,
    taken: &dyn Fn(&PackageName) -> Option<&'a Version>,
) -> Vec<String> {
    let mut counts: BTreeMap<&PackageName, usize> = BTreeMap::new();
    let mut warnings = Vec::new();
    for ((name, point), wheel) in unreadable.iter().rev() {
        let text = match taken(name) {
            Some(version) if *point < Point::of(version) => continue,
            Some(version) => format!(
                "{name} {point} is left out, and {version} taken: {}",
                wheel.why
            ),
            None => format!("{name} {point} is left out: {}", wheel.why),
        };
        let count = counts.entry(name).or_default();
        *count += 1;
        if *count <= VERSIONS {
            warnings.push(text);
        }
    }
    for (name, count) in counts.iter().filter(|(_, count)| **count > VERSIONS) {
        let more = count - VERSIONS;
        warnings.push(format!(
            "{more} more versions of {name} are left out: their wheels cannot be read"
        ));
    }
    warnings
}
