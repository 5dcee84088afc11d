//! What is asked for: requirements files in pip's grammar, and requirements one by one.
//!
//! The grammar is that of pip's documentation, "Requirements File Format". What needs a build (sources, folders, version
//! control) is refused with advice: only wheels are put into layers.

pub(in crate::python) mod address;
mod entry;
mod line;
mod option;
mod read;

pub(crate) use address::{without_login, without_secrets};
pub(in crate::python) use line::lines;
pub(in crate::python) use read::pin;
pub use read::read;
pub(crate) use read::read_unless;

use std::collections::BTreeSet;

use pep508_rs::{ExtraName, MarkerTree, PackageName};

use super::place::Piece;
use super::{InputError, Place, Requirement, WheelName, WheelUrl};
use crate::oci::Digest;

/// Names of packages.
pub(crate) type Names = BTreeSet<PackageName>;

/// A requirement, and where it stands.
#[derive(Clone, PartialEq, Debug)]
pub struct Asked {
    /// The requirement.
    pub requirement: Requirement,
    /// The digests that a wheel may have; none means any.
    pub hashes: Vec<Digest>,
    /// Where it stands.
    pub place: Place,
    /// The wheel, where a URL or a path names it.
    pub url: Option<Direct>,
}

/// A wheel that a requirement names by URL or path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Direct {
    /// The name of the wheel.
    pub wheel: WheelName,
    /// The URL without a fragment, or the path from where the paths of the set begin.
    pub link: WheelUrl,
    /// Whether it is a path.
    pub is_local: bool,
}

/// A folder of sources that is asked for.
#[derive(Clone, PartialEq, Debug)]
pub struct AskedFolder {
    /// The folder, from where the paths of the set begin; an absolute one begins with `/`. `None` for one that is somewhere in
    /// the workspace of the project that asks for it.
    pub path: Option<String>,
    /// The name of its package, where it is said.
    pub name: Option<PackageName>,
    /// Its extras.
    pub extras: Vec<ExtraName>,
    /// Where it is asked for.
    pub marker: MarkerTree,
    /// Where it stands.
    pub place: Place,
    /// What is wrong with it where it holds no project.
    pub refused: InputError,
}

/// All that requirements files ask for.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Requested {
    /// The requirements, in the order of the files.
    pub asked: Vec<Asked>,
    /// The folders of sources.
    pub folders: Vec<AskedFolder>,
    /// The constraints: they narrow what is installed anyway.
    pub constraints: Vec<Asked>,
    /// What takes the place of requirements, wherever these are asked for.
    pub overrides: Vec<Asked>,
    /// Where to look, and what to take.
    pub options: Options,
    /// The files that were read, each once.
    pub files: BTreeSet<String>,
    /// Whether variables of the environment were put in.
    pub has_variables: bool,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// The options of requirements files that hold for the whole set.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Options {
    /// `--index-url`: the last one counts.
    pub index_url: Option<Spoken>,
    /// `--extra-index-url`.
    pub extra_index_urls: Vec<Spoken>,
    /// `--no-index`.
    pub without_index: Option<Place>,
    /// `--find-links`; paths begin where the paths of the set begin.
    pub find_links: Vec<Spoken>,
    /// `--require-hashes`, or a `--hash` anywhere: each requirement needs one.
    pub is_hashed: bool,
    /// `--pre`: pre-releases are as good as releases.
    pub is_pre: bool,
    /// `--trusted-host`.
    pub trusted_hosts: Vec<Spoken>,
    /// `--only-binary`: the packages of which only wheels are wanted, by normalised names, or `:all:`; so says
    /// `--prefer-binary`, too.
    pub only_wheels: BTreeSet<String>,
    /// What a project of uv says of indexes.
    pub project: Option<ProjectIndexes>,
}

/// What a project of uv says of indexes.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ProjectIndexes {
    /// The index in place of the default ones.
    pub default: Option<NamedIndex>,
    /// Those that are asked before it.
    pub extra: Vec<NamedIndex>,
    /// The packages that one index alone is asked for, on targets that a marker names.
    pub packages: Vec<(PackageName, MarkerTree, NamedIndex)>,
}

/// An index that a project names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NamedIndex {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Its URL.
    pub url: Spoken,
}

/// The value of an option, and where it stands.
#[derive(Clone, PartialEq, Eq)]
pub struct Spoken {
    /// The value, with the variables of the environment put in: it may hold a secret.
    pub value: String,
    /// Where it stands.
    pub place: Place,
}

/// Without the value: it may hold a secret.
impl std::fmt::Debug for Spoken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Spoken({:?})", self.place)
    }
}

impl Options {
    /// Returns the places of requirements files that say which indexes are asked.
    pub fn places(&self) -> Vec<Place> {
        let spoken = self.index_url.iter().chain(&self.extra_index_urls);
        let places = spoken.chain(&self.find_links).map(|it| it.place.clone());
        let mut places: Vec<Place> = places.chain(self.without_index.clone()).collect();
        places.sort_by(|one, other| {
            (&one.source.name, one.line).cmp(&(&other.source.name, other.line))
        });
        places
    }
}

impl Asked {
    /// Parses one requirement, as in `packages` of a manifest. `file` is the file that relative paths begin beside.
    ///
    /// # Errors
    /// When it is no requirement, or one that needs a build.
    pub fn parse(text: &str, place: &Place, file: &str) -> Result<Self, InputError> {
        Self::parse_unless(text, place, file, &Names::new())
    }

    /// Does so; of the packages that something else takes the place of, only the names are looked at.
    ///
    /// # Errors
    /// As [`Asked::parse`].
    pub(crate) fn parse_unless(
        text: &str,
        place: &Place,
        file: &str,
        overridden: &Names,
    ) -> Result<Self, InputError> {
        entry::parse(&Piece::at(text, place), Vec::new(), file, overridden)
    }

    /// Returns the name of the package.
    pub fn name(&self) -> &PackageName {
        &self.requirement.name
    }
}

impl Requested {
    /// Returns the requirements and constraints on a package.
    pub fn on<'a>(&'a self, name: &'a PackageName) -> impl Iterator<Item = &'a Asked> {
        self.asked
            .iter()
            .chain(&self.constraints)
            .filter(move |it| it.name() == name)
    }

    /// Adds what other files ask for.
    pub fn extend(&mut self, other: Self) {
        self.asked.extend(other.asked);
        self.folders.extend(other.folders);
        self.constraints.extend(other.constraints);
        self.overrides.extend(other.overrides);
        self.files.extend(other.files);
        self.has_variables |= other.has_variables;
        self.warnings.extend(other.warnings);
        let (own, other) = (&mut self.options, other.options);
        own.index_url = other.index_url.or(own.index_url.take());
        own.extra_index_urls.extend(other.extra_index_urls);
        own.find_links.extend(other.find_links);
        own.trusted_hosts.extend(other.trusted_hosts);
        own.without_index = own.without_index.take().or(other.without_index);
        own.project = own.project.take().or(other.project);
        own.is_hashed |= other.is_hashed;
        own.is_pre |= other.is_pre;
        own.only_wheels.extend(other.only_wheels);
    }
}
