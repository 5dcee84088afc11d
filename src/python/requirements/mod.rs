//! What is asked for: requirements files in pip's grammar, and requirements one by one.
//!
//! The grammar is that of pip's documentation, "Requirements File Format". What needs a build (sources, folders, version
//! control) is refused with advice: only wheels are put into layers.

mod entry;
mod line;
mod option;
mod read;

pub(in crate::python) use line::lines;
pub(in crate::python) use read::pin;
pub use read::read;

use std::collections::BTreeSet;

use pep508_rs::PackageName;

use super::place::Piece;
use super::{InputError, Place, Requirement, WheelName, WheelUrl};
use crate::oci::Digest;

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

/// All that requirements files ask for.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Requested {
    /// The requirements, in the order of the files.
    pub asked: Vec<Asked>,
    /// The constraints: they narrow what is installed anyway.
    pub constraints: Vec<Asked>,
    /// Where to look, and what to take.
    pub options: Options,
    /// The files that were read, each once.
    pub files: BTreeSet<String>,
}

/// The options of requirements files that hold for the whole set.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// `--index-url`: the last one counts.
    pub index_url: Option<Spoken>,
    /// `--extra-index-url`.
    pub extra_index_urls: Vec<Spoken>,
    /// `--no-index`.
    pub is_without_index: bool,
    /// `--find-links`; paths begin where the paths of the set begin.
    pub find_links: Vec<Spoken>,
    /// `--require-hashes`, or a `--hash` anywhere: each requirement needs one.
    pub is_hashed: bool,
    /// `--pre`: pre-releases are as good as releases.
    pub is_pre: bool,
    /// `--trusted-host`.
    pub trusted_hosts: Vec<Spoken>,
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

impl Asked {
    /// Parses one requirement, as in `packages` of a manifest. `file` is the file that relative paths begin beside.
    ///
    /// # Errors
    /// When it is no requirement, or one that needs a build.
    pub fn parse(text: &str, place: &Place, file: &str) -> Result<Self, InputError> {
        entry::parse(&Piece::at(text, place), Vec::new(), file)
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
        self.constraints.extend(other.constraints);
        self.files.extend(other.files);
        let (own, other) = (&mut self.options, other.options);
        own.index_url = other.index_url.or(own.index_url.take());
        own.extra_index_urls.extend(other.extra_index_urls);
        own.find_links.extend(other.find_links);
        own.trusted_hosts.extend(other.trusted_hosts);
        own.is_without_index |= other.is_without_index;
        own.is_hashed |= other.is_hashed;
        own.is_pre |= other.is_pre;
    }
}
