//! Which versions go together, for one target, wheels only.
//!
//! The solver is pubgrub: it learns from each conflict why it came about, and explains at the end why there is no answer.
//! What there is, is asked of an [`Index`]; this knows neither network nor files.

mod ask;
mod choose;
mod depend;
mod hints;
mod priority;
mod range;
mod report;
mod solve;
#[cfg(test)]
mod tests;
mod told;
mod unreadable;

pub(crate) use choose::Pick;
pub(crate) use hints::elsewhere;
pub(crate) use report::Conflict;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pep440_rs::Version;
use pep508_rs::{ExtraName, PackageName};

use super::{Asked, Metadata, Place, Target, WheelName};
use crate::oci::Digest;
use hints::listed;
pub(crate) use told::Missing;

/// A file that an index offers for a package. There may be a hundred thousand: texts are shared with the index, and read
/// when they are needed.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Candidate {
    /// The name of the package.
    pub name: PackageName,
    /// The version.
    pub version: Version,
    /// The name of the file, percent-decoded.
    pub file: Arc<str>,
    /// The digest, where the index says it.
    pub sha256: Option<Digest>,
    /// The size in bytes, where the index says it.
    pub size: Option<u64>,
    /// The Pythons that it runs on, as the index says.
    pub requires_python: Option<Arc<str>>,
    /// Why it was yanked, if it was; the reason may be empty.
    pub yanked: Option<String>,
    /// Where it is: the index's own business.
    pub url: Arc<str>,
    /// The name of the index; empty for a wheel that a requirement names by URL or path.
    pub index: Arc<str>,
}

impl Candidate {
    /// Returns the name of the wheel, taken apart; `None` for sources.
    pub(crate) fn wheel(&self) -> Option<WheelName> {
        WheelName::parse(&self.file).ok()
    }
}

/// A wheel that cannot be read, or says of itself what it is not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Unreadable {
    /// The code for messages.
    pub code: &'static str,
    /// The wheel's file name, and what is wrong with it.
    pub why: String,
    /// How to mend it.
    pub help: String,
}

/// What an index failed at.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum IndexError {
    /// No index has the package.
    #[error("no index has a package of this name")]
    NotFound {
        /// The names of those that were asked.
        asked: Vec<String>,
    },
    /// What a file says of itself cannot be read: another version may do.
    #[error("{}", .0.why)]
    Malformed(Unreadable),
    /// Anything else; the resolution ends.
    #[error("{why}")]
    Failed {
        /// What happened.
        why: String,
        /// How to mend it, where that is known.
        help: Option<String>,
    },
}

/// What is worth fetching now, since it will be asked for.
pub(crate) enum Wanted {
    /// The files of a package, and then the metadata of the one that is picked.
    Package(PackageName, Pick),
    /// The metadata of files.
    Metadata(Vec<Candidate>),
}

/// What there is.
pub(crate) trait Index {
    /// Returns all files of a package.
    ///
    /// # Errors
    /// When no index has it, or one cannot say.
    fn versions(&self, name: &PackageName) -> Result<Vec<Candidate>, IndexError>;

    /// Returns what a wheel says of itself.
    ///
    /// # Errors
    /// When it cannot be had or read.
    fn metadata(&self, candidate: &Candidate) -> Result<Metadata, IndexError>;

    /// Begins to fetch, and returns at once. Failures are told when the same is asked for.
    fn prefetch(&self, wanted: Wanted);

    /// Hears from time to time how far the resolution has come: how many packages are decided, how many were asked for, and
    /// of how many versions the metadata was read.
    fn hear(&self, decided: usize, asked: usize, read: usize) {
        let _ = (decided, asked, read);
    }

    /// Returns packages that there are, which a name that no index has may be meant to be.
    fn similar(&self, name: &PackageName) -> Vec<PackageName>;
}

/// What is to be resolved.
pub(crate) struct Question<'a> {
    /// What is asked for.
    pub asked: &'a [Asked],
    /// What narrows it.
    pub constraints: &'a [Asked],
    /// What takes the place of requirements, wherever these are asked for.
    pub overrides: &'a [Asked],
    /// Of which packages older wheels are wanted where newer versions have none: normalised names, or `:all:`.
    pub only_wheels: &'a BTreeSet<String>,
    /// For what.
    pub target: &'a Target,
    /// Whether pre-releases are as good as releases.
    pub is_pre: bool,
    /// Versions to keep where they fit: those of a lock, or of another target.
    pub preferences: &'a BTreeMap<PackageName, Version>,
}

/// The files that go together.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Resolution {
    /// The packages.
    pub packages: BTreeMap<PackageName, Resolved>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// A package of a resolution.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Resolved {
    /// The wheel.
    pub candidate: Candidate,
    /// The extras that are asked for.
    pub extras: BTreeSet<ExtraName>,
    /// The packages that it needs there, by name.
    pub requires: BTreeSet<PackageName>,
    /// Whether the user asked for it.
    pub is_asked: bool,
}

/// Why there is no resolution.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum ResolveError {
    /// The requirements exclude each other, or nothing fits.
    #[error("{}", .0.explanation)]
    Conflict(Box<Conflict>),
    /// A wheel that would be needed cannot be read.
    #[error("{}", .wheel.why)]
    Unreadable {
        /// The wheel.
        wheel: Unreadable,
        /// What other versions of the package there are, in words.
        others: String,
        /// Why nothing else will do.
        conflict: Box<Conflict>,
    },
    /// Several of the packages that are asked for are in no index.
    #[error("{} are in no index", listed(.0))]
    Unknown(Vec<Unknown>),
    /// Several of the packages that are asked for cannot be had: no index has them, or nothing of them fits.
    #[error("{}", .0.message())]
    Missing(Missing),
    /// An index could not say what there is.
    #[error("{what} cannot be had: {error}{needed_by}")]
    Index {
        /// What was asked for, as `flask` or `flask 3.0`.
        what: String,
        /// What the index said.
        error: Box<IndexError>,
        /// The packages that led there, as " (needed by a, needed by b)".
        needed_by: String,
        /// The requirement that led there.
        place: Option<Place>,
    },
    /// The solver went very far without an end.
    #[error("no answer after {steps} steps: these requirements are too hard for this resolver")]
    Hard {
        /// How many decisions were made.
        steps: u32,
    },
}

/// A package that is asked for, and that no index has.
#[derive(Clone, Debug)]
pub(crate) struct Unknown {
    /// Its name.
    pub name: PackageName,
    /// The requirements that name it.
    pub places: Vec<Place>,
    /// What it may be meant to be; there are such packages.
    pub near: Vec<String>,
    /// The names of the indexes that were asked.
    pub asked: Vec<String>,
}

impl ResolveError {
    /// Says how to mend it.
    pub(crate) fn help(&self) -> String {
        match self {
            Self::Conflict(conflict) => conflict.help(),
            Self::Unreadable { wheel, others, .. } => format!("{}\n{others}", wheel.help),
            Self::Unknown(unknown) => hints::of_unknown(unknown),
            Self::Missing(missing) => missing.help(),
            Self::Index { error, .. } => match &**error {
                IndexError::Failed { help: Some(help), .. } => help.clone(),
                IndexError::NotFound { asked } => elsewhere(asked, 1),
                _ => "try again when the index answers".to_owned(),
            },
            Self::Hard { .. } => "pin some of the packages, or lock them with another tool and use its lock: `uv_lock`, `pylock`, or \
                 requirements with hashes"
                .to_owned(),
        }
    }
}

/// Finds the newest versions that go together.
///
/// # Errors
/// When there are none, and why; or when an index fails.
pub(crate) fn resolve(
    question: &Question<'_>,
    index: &dyn Index,
) -> Result<Resolution, ResolveError> {
    solve::Solver::new(question, index).run()
}
