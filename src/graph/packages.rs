//! The port of the ecosystem Python: indexes of packages, as its rule sees them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ports::Offline;
use super::{ActionError, Ports};
use crate::oci::Digest;
use crate::store::{Blob, Blobs};

impl<'a> Ports<'a> {
    /// Returns the indexes of Python packages.
    pub fn packages(&self) -> &'a dyn Packages {
        self.sources.get::<dyn Packages>().unwrap_or(&Offline)
    }
}

/// A file of a package, as an index lists it (simple repository API, PEP 503 and PEP 691). Not trusted. Of some packages
/// there are a hundred thousand: what is passed on is shared.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PackageFile {
    /// The name of the file, percent-decoded.
    pub file: Arc<str>,
    /// The digest, where the index says it.
    pub sha256: Option<Digest>,
    /// The size in bytes, where the index says it.
    pub size: Option<u64>,
    /// `Requires-Python`, as the index has it.
    pub requires_python: Option<Arc<str>>,
    /// Why it was yanked, if it was; the reason may be empty.
    pub yanked: Option<String>,
    /// When it was uploaded (RFC 3339), where the index says it.
    pub uploaded: Option<String>,
    /// Whether the index says that the metadata can be had alone (PEP 658), and its digest if it says that too.
    pub has_metadata: Option<bool>,
    /// The digest of the metadata, where the index says it.
    pub metadata_sha256: Option<Digest>,
    /// Where the file is; without credentials.
    pub url: Arc<str>,
    /// The name of the index that lists it.
    pub index: Arc<str>,
}

/// What a package index failed at.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PackageError {
    /// No index has a package of this name.
    #[error("no index has a package of this name")]
    NotFound {
        /// The names of those that were asked.
        asked: Vec<String>,
    },
    /// What a file says of itself cannot be read.
    #[error("{why}")]
    Malformed {
        /// The code for messages.
        code: &'static str,
        /// The file, and what is wrong with it.
        why: String,
        /// How to mend it.
        help: String,
    },
    /// Anything else.
    #[error("{0}")]
    Failed(ActionError),
}

/// Indexes of Python packages, as actions and rules see them.
pub trait Packages: Send + Sync {
    /// Returns all files of a project (its normalised name), from the first index that has it.
    ///
    /// # Errors
    /// When no index has it, or one that would have to be asked first cannot say.
    fn files(&self, project: &str) -> Result<Arc<Vec<PackageFile>>, PackageError>;

    /// Returns the METADATA of a wheel: its text, checked where the index says its digest.
    ///
    /// # Errors
    /// When it cannot be had.
    fn metadata(&self, file: &PackageFile) -> Result<Arc<String>, PackageError>;

    /// Begins to fetch the files of a project, and then the metadata of those that `then` picks, and returns at once.
    /// Failures are told when the same is asked for.
    fn prefetch_project(&self, project: &str, then: Pick);

    /// Begins to fetch the metadata of files, and returns at once.
    fn prefetch_metadata(&self, files: Vec<PackageFile>);

    /// Returns how large wheels are, in the order in which they are wanted, as the index or the server of each says; all are
    /// asked at once, and none is fetched. `None` for those of which nobody says it.
    fn sizes(&self, wanted: &[WantedWheel<'_>]) -> Vec<Option<u64>>;

    /// Fetches a wheel into the store: from `hint`, where a lock or a requirement names a place, else from where the
    /// indexes list it. `expected` decides whether it is the right one; without a size, only the digest does.
    ///
    /// # Errors
    /// When no index has it, or it is not what is expected.
    fn wheel(&self, wanted: &WantedWheel<'_>, store: &dyn Blobs) -> Result<Blob, ActionError>;

    /// Fetches a file into the store whose digest its index does not say, and so finds it out.
    ///
    /// # Errors
    /// When it cannot be had.
    fn unsaid(&self, file: &PackageFile, store: &dyn Blobs) -> Result<Blob, ActionError>;

    /// Returns the indexes as a file of the user's chooses them; `None` where nothing is asked at all.
    fn chosen(&self, choice: &IndexChoice) -> Option<Arc<dyn Packages>>;

    /// Returns where an index is, by its name, if a choice named it; `None` for the others.
    fn home(&self, index: &str) -> Option<WheelHome>;

    /// Tells the user how far a choice among packages has come, in words that take the place of the last ones; `None` when it
    /// is over.
    fn tell(&self, progress: Option<&str>) {
        let _ = progress;
    }

    /// Tells whether every index is asked for every package, and not believed for as long as it said that its page is fresh.
    fn is_anew(&self) -> bool {
        true
    }

    /// Has every index asked from now on; tells whether one was believed so far: then what failed may be otherwise now.
    fn ask_anew(&self) -> bool {
        false
    }
}

/// Which indexes are asked for the packages of a target, where files of the user's say so: requirements files and projects.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct IndexChoice {
    /// Whether no index is asked at all: pages of `links` still are.
    pub is_without_index: bool,
    /// The index in place of the default ones.
    pub index: Option<ChosenIndex>,
    /// The indexes beside it.
    pub extra: Vec<ChosenIndex>,
    /// The URLs of pages that list wheels of any package.
    pub links: Vec<String>,
    /// Whether a package comes from the first index that has it, `extra` before the other. Else all are asked, and the
    /// newest version counts.
    pub is_first: bool,
    /// The packages that one index alone is asked for, by their normalised names.
    pub packages: BTreeMap<String, ChosenIndex>,
}

/// An index that a file names. Its URL may hold credentials.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChosenIndex {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Its URL.
    pub url: String,
}

/// Where a wheel is listed, by a URL without credentials.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum WheelHome {
    /// In an index.
    Index(String),
    /// On a page of links.
    Page(String),
}

/// Picks from the files of a project those whose metadata will be asked for.
pub(crate) type Pick = Box<dyn FnOnce(&[PackageFile]) -> Vec<PackageFile> + Send>;

/// A wheel to fetch.
#[derive(Clone, Copy, Debug)]
pub struct WantedWheel<'a> {
    /// The normalised name of the project.
    pub project: &'a str,
    /// The name of the file.
    pub file: &'a str,
    /// The digest that it must have.
    pub sha256: Digest,
    /// The size that it must have, where that is known.
    pub size: Option<u64>,
    /// Where it may be.
    pub hint: Option<&'a str>,
    /// Where it is listed: no other place is asked then.
    pub home: Option<&'a WheelHome>,
}

impl Packages for Offline {
    fn files(&self, project: &str) -> Result<Arc<Vec<PackageFile>>, PackageError> {
        self.refuse(format!("what the indexes have of {project}"))
            .map_err(PackageError::Failed)
    }

    fn metadata(&self, file: &PackageFile) -> Result<Arc<String>, PackageError> {
        self.refuse(format!("the metadata of {}", file.file))
            .map_err(PackageError::Failed)
    }

    fn prefetch_project(&self, _: &str, _: Pick) {}

    fn prefetch_metadata(&self, _: Vec<PackageFile>) {}

    fn sizes(&self, wanted: &[WantedWheel<'_>]) -> Vec<Option<u64>> {
        vec![None; wanted.len()]
    }

    fn wheel(&self, wanted: &WantedWheel<'_>, _: &dyn Blobs) -> Result<Blob, ActionError> {
        self.refuse(wanted.file.to_owned())
    }

    fn unsaid(&self, file: &PackageFile, _: &dyn Blobs) -> Result<Blob, ActionError> {
        self.refuse(file.file.to_string())
    }

    fn chosen(&self, _: &IndexChoice) -> Option<Arc<dyn Packages>> {
        None
    }

    fn home(&self, _: &str) -> Option<WheelHome> {
        None
    }
}
