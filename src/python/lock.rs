//! What other tools locked: versions with their files. Not resolved again; only filtered for a target.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use pep440_rs::Version;
use pep508_rs::PackageName;

use super::place::{InputError, Place};
use super::requirements::pin;
use super::{Requested, Tags, Target, WheelName};
use crate::oci::Digest;

/// How many wheels that do not fit are named one by one.
const NAMED: usize = 4;

/// How many packages that must be built are named.
const UNBUILT: usize = 12;

/// A package of a lock.
#[derive(Clone, PartialEq, Debug)]
pub struct Locked {
    /// The name.
    pub name: PackageName,
    /// The version.
    pub version: Version,
    /// The wheels that the lock names; none where it knows digests only.
    pub wheels: Vec<LockedWheel>,
    /// The digests of files whose names the lock does not know: hashed requirements.
    pub hashes: Vec<Digest>,
    /// The URL of the index that it is from, where the lock says it.
    pub index: Option<String>,
    /// Where the lock says it.
    pub place: Place,
}

/// A wheel of a lock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LockedWheel {
    /// The name of the file.
    pub wheel: WheelName,
    /// The digest.
    pub sha256: Digest,
    /// The size in bytes, where the lock says it.
    pub size: Option<u64>,
    /// Where it is: a URL, or a path from where the paths of the set begin.
    pub url: Option<String>,
    /// Whether the URL is what was asked for, and not where an index had it.
    pub is_direct: bool,
}

/// A project that a lock knows as a folder.
#[derive(Clone, PartialEq, Debug)]
pub struct LockedProject {
    /// The name.
    pub name: PackageName,
    /// The version, where the lock says it.
    pub version: Option<Version>,
    /// The folder, from where the paths of the set begin.
    pub folder: String,
    /// Where the lock says it.
    pub place: Place,
}

/// What a lock asks for on a target.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct LockSet {
    /// The packages, sorted by name.
    pub packages: Vec<Locked>,
    /// The projects of the workspace that are to be there, too.
    pub projects: Vec<LockedProject>,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// Packages that only a build makes.
    pub(super) unbuilt: Vec<Unbuilt>,
}

/// A package of a lock that is not in wheels, but in a checkout or the like.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Unbuilt {
    /// The name.
    pub(super) name: PackageName,
    /// From where it is taken, in words.
    pub(super) from: String,
    /// What to do about it.
    pub(super) help: String,
    /// Where the lock says it.
    pub(super) place: Place,
}

impl LockSet {
    /// Returns the set, if no package of it must be built.
    ///
    /// # Errors
    /// Names all that must.
    pub(super) fn built(mut self) -> Result<Self, InputError> {
        let all = std::mem::take(&mut self.unbuilt);
        let Some(first) = all.first() else {
            return Ok(self);
        };
        let named: Vec<String> = all
            .iter()
            .take(UNBUILT)
            .map(|it| format!("`{}` from {}", it.name, it.from))
            .collect();
        let more = match all.len().saturating_sub(UNBUILT) {
            0 => String::new(),
            more => format!(" and {more} more from sources"),
        };
        let message = format!(
            "the lock takes {}{more}: only wheels are installed",
            named.join(", ")
        );
        let code = "imgdecl::python::source";
        Err(first.place.error(code, message, first.help.clone()))
    }
}

impl Locked {
    /// Returns the best of the wheels that fit a target.
    ///
    /// # Errors
    /// When none fits: says for what each is.
    pub fn wheel(&self, target: &Target, tags: &Tags) -> Result<&LockedWheel, InputError> {
        let rank =
            |it: &&LockedWheel| Some((tags.rank(&it.wheel)?, Reverse(it.wheel.build.clone())));
        let fits = self
            .wheels
            .iter()
            .filter(|it| tags.rank(&it.wheel).is_some());
        if let Some(best) = fits.min_by_key(rank) {
            return Ok(best);
        }
        let mut help = self.misfits(target);
        help.push(match self.wheels.is_empty() {
            true => "the lock names only sources: build a wheel of this version for the target, and point `find_links` at its folder".to_owned(),
            false => "lock again with wheels for this target, or build one and point `find_links` at its folder".to_owned(),
        });
        Err(self.place.error(
            "imgdecl::python::wheel",
            match self.wheels.is_empty() {
                true => format!("{} {} has no wheel, only sources", self.name, self.version),
                false => format!(
                    "{} {} has no wheel for {}",
                    self.name,
                    self.version,
                    target.name()
                ),
            },
            help.join("\n"),
        ))
    }
}

impl Locked {
    /// Says for what the wheels are: each by its name, where they are few, and else all on one line.
    fn misfits(&self, target: &Target) -> Vec<String> {
        let words = |it: &LockedWheel| it.wheel.misfit(target).unwrap_or_default();
        if self.wheels.len() <= NAMED {
            let named = self.wheels.iter();
            return named
                .map(|it| format!("{} is {}", it.wheel.file, words(it)))
                .collect();
        }
        let kinds: BTreeSet<String> = self.wheels.iter().map(words).collect();
        let kinds: Vec<&str> = kinds
            .iter()
            .map(|it| it.strip_prefix("for ").unwrap_or(it))
            .collect();
        let (name, version) = (&self.name, &self.version);
        vec![format!(
            "the lock has wheels of {name} {version} for {}",
            kinds.join(", ")
        )]
    }
}

/// Returns the lock that requirements with hashes are, for a target; `None` if they have no hashes.
///
/// Requirements with URLs name their wheel; of the others only the digests are known.
pub fn hashed(requested: &Requested, target: &Target) -> Option<LockSet> {
    if !requested.options.is_hashed {
        return None;
    }
    let markers = target.markers();
    let mut packages: Vec<Locked> = Vec::new();
    for asked in &requested.asked {
        if !asked.requirement.marker.evaluate(&markers, &[]) {
            continue;
        }
        let name = asked.name();
        let on = || requested.on(name);
        // `read` has seen to it that there is a version, and a digest.
        let Some(version) = on().find_map(|it| pin(it)) else {
            continue;
        };
        let hashes: Vec<Digest> = on().flat_map(|it| it.hashes.iter().copied()).collect();
        let wheels = on().filter_map(|it| {
            let url = it.url.as_ref()?;
            Some(LockedWheel {
                wheel: url.wheel.clone(),
                sha256: *it.hashes.first()?,
                size: None,
                url: Some(url.link.as_str().to_owned()),
                is_direct: true,
            })
        });
        let wheels: Vec<LockedWheel> = wheels.take(1).collect();
        if packages.iter().any(|it| it.name == *name) {
            continue;
        }
        packages.push(Locked {
            name: name.clone(),
            version: version.clone(),
            wheels,
            hashes,
            index: None,
            place: asked.place.clone(),
        });
    }
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    Some(LockSet {
        projects: Vec::new(),
        packages,
        ..LockSet::default()
    })
}
