//! What there is, for the resolver: wheels of the workspace's folders first, then those of the indexes.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use pep508_rs::PackageName;
use rayon::prelude::*;

use super::inputs::Inputs;
use crate::graph::{
    ActionError, Context, KeyWriter, PackageError, PackageFile, Packages, Part, Parts, WheelHome,
};
use crate::layer::Tick;
use crate::oci::Digest;
use crate::python::resolve::{Candidate, Index, IndexError, Pick, Unreadable, Wanted};
use crate::python::{Locked, Metadata, Tags, WheelName, guesses, similar, wheel, wheel_version};
use crate::rule::host::{blob_of, digest_of};
use crate::store::{Blob, Store};

/// The name of the index that folders of the workspace are.
const LOCAL: &str = "find_links";

/// How many files a package may have, of which one is picked ahead of time.
const MANY: usize = 20_000;

/// The wheels of folders, with their places, by package.
type Local = BTreeMap<PackageName, Vec<(Candidate, PathBuf)>>;

/// Lists the wheels of folders.
fn listed(folders: &[PathBuf], store: &Store, tick: Tick<'_>) -> Result<Local, ActionError> {
    let mut wheels: Vec<(WheelName, PathBuf)> = Vec::new();
    for folder in folders {
        let unreadable = |error: std::io::Error| {
            let message = format!("cannot read {}", folder.display());
            ActionError::new("imgdecl::pip::find_links", message)
                .because(&error)
                .help("`find_links` names folders with wheels")
        };
        let before = wheels.len();
        for entry in std::fs::read_dir(folder).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            let name = path.file_name().and_then(|it| it.to_str());
            wheels.extend(name.and_then(|it| Some((WheelName::parse(it).ok()?, path.clone()))));
        }
        // The folders stay in order: of two files of one name, that of the first folder is taken.
        wheels[before..].sort_by(|one, other| one.1.cmp(&other.1));
    }
    // A folder may serve many targets: what it holds is hashed once. Of several errors, the first is told.
    let blobs = wheels
        .par_iter()
        .map(|(_, path)| blob_of(path, store, tick));
    let blobs: Vec<Result<Blob, ActionError>> = blobs.collect();
    let mut local = Local::new();
    for ((name, path), blob) in wheels.into_iter().zip(blobs) {
        let Blob { digest, size } = blob?;
        let candidate = Candidate {
            name: name.name.clone(),
            version: name.version.clone(),
            file: name.file.as_str().into(),
            sha256: Some(digest),
            size: Some(size),
            requires_python: None,
            yanked: None,
            url: path.display().to_string().into(),
            index: LOCAL.into(),
        };
        let known = local.entry(candidate.name.clone()).or_default();
        known.push((candidate, path));
    }
    for files in local.values_mut() {
        files.sort_by(|one, other| one.0.file.cmp(&other.0.file));
    }
    Ok(local)
}

/// The folders of a target, and the indexes.
pub(super) struct Sources<'a> {
    packages: &'a dyn Packages,
    store: &'a Store,
    tick: Tick<'a>,
    parts: &'a dyn Parts,
    local: Local,
    /// The wheels of the folders of requirements files: they are there beside those of the indexes.
    beside: Local,
    /// Files that were uploaded later are left out.
    exclude_newer: Option<String>,
    /// From where the paths of wheels begin that requirements name.
    root: PathBuf,
}

impl<'a> Sources<'a> {
    /// Lists the folders.
    pub(super) fn new(
        context: &Context<'a>,
        inputs: &Inputs,
        packages: &'a dyn Packages,
    ) -> Result<Self, ActionError> {
        let Context {
            folder: store,
            parts,
            tick,
            ..
        } = *context;
        let local = listed(&inputs.find_links, store, tick)?;
        let beside = listed(&inputs.reach.folders, store, tick)?;
        Ok(Self {
            packages,
            store,
            tick,
            parts,
            local,
            beside,
            exclude_newer: inputs.exclude_newer.clone(),
            root: inputs.root.clone(),
        })
    }

    /// Returns the file of a wheel that lies in the workspace: in one of the folders, or where a requirement says.
    pub(super) fn own(&self, candidate: &Candidate) -> Option<PathBuf> {
        if candidate.index.is_empty() {
            let is_path = !candidate.url.contains("://");
            return is_path.then(|| self.root.join(&*candidate.url));
        }
        if &*candidate.index != LOCAL {
            return None;
        }
        let of = |local: &Local| local.get(&candidate.name).cloned().unwrap_or_default();
        let mut listed = of(&self.local).into_iter().chain(of(&self.beside));
        let found = listed.find(|(it, _)| it.file == candidate.file);
        found.map(|(_, path)| path)
    }

    /// Returns where a file is listed, if a file of the user's names that place.
    pub(super) fn home(&self, candidate: &Candidate) -> Option<WheelHome> {
        match self.own(candidate) {
            Some(_) => None,
            None => self.packages.home(&candidate.index),
        }
    }

    /// Returns the best wheel of a version in the folders; `None` if none fits.
    pub(super) fn own_wheel(
        &self,
        name: &PackageName,
        version: &pep440_rs::Version,
        tags: &Tags,
    ) -> Option<&Candidate> {
        let all = self.local.get(name)?.iter().map(|(candidate, _)| candidate);
        let fits = all.filter(|it| it.version == *version);
        let ranked = fits.filter_map(|it| {
            let wheel = it.wheel()?;
            Some(((tags.rank(&wheel)?, Reverse(wheel.build)), it))
        });
        let best = ranked.min_by(|one, other| one.0.cmp(&other.0));
        best.map(|(_, it)| it)
    }

    /// Tells the user how far it has come.
    pub(super) fn tell(&self, progress: &str) {
        self.packages.tell(Some(progress));
    }

    /// Returns what hears of bytes that are hashed, and says whether to go on.
    pub(super) fn tick(&self) -> Tick<'a> {
        self.tick
    }

    /// Returns where a wheel of the folders lies, from the workspace's root.
    pub(super) fn listed_at(&self, candidate: &Candidate) -> Option<String> {
        let path = self.own(candidate).filter(|_| &*candidate.index == LOCAL)?;
        let path = path.strip_prefix(&self.root).ok()?;
        path.to_str().map(str::to_owned)
    }

    /// Reads the metadata of a wheel of the workspace: once, for all targets.
    fn read_metadata(&self, candidate: &Candidate, path: &Path) -> Result<Arc<String>, IndexError> {
        let failed = |why: String| IndexError::Failed { why, help: None };
        let digest = match candidate.sha256 {
            Some(digest) => digest,
            None => {
                let digest = digest_of(path, self.store, self.tick);
                digest.map_err(|error| {
                    failed(format!("cannot read {}: {}", path.display(), error.message))
                })?
            }
        };
        let file = &candidate.file;
        let said = Said { file, digest };
        if let Ok(Some(text)) = self.parts.known(&said) {
            return Ok(Arc::new(text));
        }
        let text = wheel::metadata(path, file, digest);
        let text = text.map_err(|error| {
            IndexError::Malformed(Unreadable {
                code: error.code(),
                why: error.to_string(),
                help: error.help(),
            })
        })?;
        let kept = self.parts.keep(&said, &text, Vec::new());
        kept.map_err(|error| failed(error.to_string()))?;
        Ok(Arc::new(text))
    }

    /// Begins to fetch what indexes have of packages that a file pins by digests: all at once, the pages and then the
    /// METADATA of those that fit.
    pub(super) fn prefetch_pinned(&self, pinned: &[Locked], tags: &Arc<Tags>) {
        let open = pinned.iter().filter(|it| it.wheels.is_empty());
        for locked in open.filter(|it| !self.local.contains_key(&it.name)) {
            let (digests, tags) = (locked.hashes.clone(), Arc::clone(tags));
            let then = move |files: &[PackageFile]| {
                let is_it = |it: &&PackageFile| it.sha256.is_some_and(|it| digests.contains(&it));
                let own = files.iter().filter(is_it);
                let ranked = own.filter_map(|it| {
                    let wheel = WheelName::parse(&it.file).ok()?;
                    Some((tags.rank(&wheel)?, it))
                });
                let best = ranked.min_by_key(|(rank, _)| *rank);
                best.map(|(_, file)| file.clone()).into_iter().collect()
            };
            self.packages
                .prefetch_project(locked.name.as_ref(), Box::new(then));
        }
    }

    /// Returns the digest of the METADATA that a wheel was chosen by; `None` for one of the workspace, whose own it was.
    pub(super) fn metadata_digest(&self, candidate: &Candidate) -> Option<Digest> {
        if self.own(candidate).is_some() {
            return None;
        }
        // It was read for the resolver, and is remembered.
        let text = self.packages.metadata(&self.file_of(candidate)).ok()?;
        Some(Digest::of(text.as_bytes()))
    }

    /// Fetches the file of an index that does not say its digest.
    pub(super) fn unsaid(&self, candidate: &Candidate, store: &Store) -> Result<Blob, ActionError> {
        self.packages.unsaid(&self.file_of(candidate), store)
    }

    /// Returns a file as its index lists it, for what the port is asked again.
    fn file_of(&self, candidate: &Candidate) -> PackageFile {
        let listed = match candidate.index.is_empty() {
            true => None,
            false => self.packages.files(candidate.name.as_ref()).ok(),
        };
        let is_it = |it: &&PackageFile| it.file == candidate.file && it.url == candidate.url;
        let found = listed.and_then(|it| it.iter().find(is_it).cloned());
        found.unwrap_or_else(|| PackageFile {
            file: candidate.file.clone(),
            sha256: candidate.sha256,
            size: candidate.size,
            url: candidate.url.clone(),
            index: candidate.index.clone(),
            ..PackageFile::default()
        })
    }

    /// Returns all files of a package: wheels of the folders, or what the indexes list.
    pub(super) fn files(&self, name: &PackageName) -> Result<Vec<Candidate>, IndexError> {
        self.files_where(name, &|_| true)
    }

    /// Returns those of them that have one of some digests: the others are not looked at.
    pub(super) fn files_with(
        &self,
        name: &PackageName,
        digests: &[Digest],
    ) -> Result<Vec<Candidate>, IndexError> {
        self.files_where(name, &|it| {
            it.is_none_or(|digest| digests.contains(&digest))
        })
    }

    /// Returns the files of a package whose digest, where it is said, is of interest.
    fn files_where(
        &self,
        name: &PackageName,
        is_wanted: &dyn Fn(Option<Digest>) -> bool,
    ) -> Result<Vec<Candidate>, IndexError> {
        if let Some(local) = self.local.get(name) {
            return Ok(local
                .iter()
                .map(|(candidate, _)| candidate.clone())
                .collect());
        }
        let beside = self.beside.get(name);
        let files = match self.packages.files(name.as_ref()) {
            Err(PackageError::NotFound { .. }) if beside.is_some() => Arc::default(),
            files => files.map_err(index_error)?,
        };
        let chosen = Chosen::new(name, self.exclude_newer.as_deref());
        let wanted = files.iter().filter(|it| is_wanted(it.sha256));
        let mut candidates: Vec<Candidate> = wanted.filter_map(|it| chosen.candidate(it)).collect();
        // Of two with one version, that of the index is taken, as pip has it.
        candidates.extend(beside.into_iter().flatten().map(|(it, _)| it.clone()));
        Ok(candidates)
    }
}

/// What a wheel of the workspace says of itself: the text of its METADATA.
struct Said<'a> {
    file: &'a str,
    digest: Digest,
}

impl Part for Said<'_> {
    fn name(&self) -> &'static str {
        "metadata"
    }

    fn parameters(&self, key: &mut dyn KeyWriter) {
        key.field("wheel", self.file);
        key.field("digest", &self.digest.to_string());
    }
}

fn index_error(error: PackageError) -> IndexError {
    match error {
        PackageError::NotFound { asked } => IndexError::NotFound { asked },
        PackageError::Malformed { code, why, help } => {
            IndexError::Malformed(Unreadable { code, why, help })
        }
        PackageError::Failed(error) => {
            let mut why = error.message.clone();
            for cause in &error.causes {
                why.push_str(&format!(": {cause}"));
            }
            let help = error.help;
            IndexError::Failed { why, help }
        }
    }
}

/// Which files of a package are of interest: wheels and sources that are old enough.
struct Chosen<'a> {
    name: &'a PackageName,
    /// Files that were uploaded later are left out.
    limit: Option<std::time::SystemTime>,
}

impl<'a> Chosen<'a> {
    fn new(name: &'a PackageName, exclude_newer: Option<&str>) -> Self {
        let limit = exclude_newer.and_then(|it| humantime::parse_rfc3339_weak(it).ok());
        Self { name, limit }
    }

    /// Returns the version of a file; `None` if it is of no interest.
    fn version(&self, file: &PackageFile) -> Option<pep440_rs::Version> {
        let is_old = match (self.limit, &file.uploaded) {
            (None, _) => true,
            // As other tools do: what does not say when it was uploaded is left out.
            (Some(_), None) => false,
            (Some(limit), Some(time)) => {
                humantime::parse_rfc3339_weak(time).is_ok_and(|time| time <= limit)
            }
        };
        if !is_old {
            return None;
        }
        match wheel_version(self.name, &file.file) {
            Ok(version) => version,
            Err(_) => source_version(self.name, &file.file),
        }
    }

    /// Turns a file into a candidate; `None` if it is of no interest.
    fn candidate(&self, file: &PackageFile) -> Option<Candidate> {
        Some(Candidate {
            name: self.name.clone(),
            version: self.version(file)?,
            file: file.file.clone(),
            sha256: file.sha256,
            size: file.size,
            requires_python: file.requires_python.clone(),
            yanked: file.yanked.clone(),
            url: file.url.clone(),
            index: file.index.clone(),
        })
    }
}

/// Returns the version of a source archive, `NAME-VERSION.tar.gz`.
fn source_version(name: &PackageName, file: &str) -> Option<pep440_rs::Version> {
    let ends = [".tar.gz", ".zip", ".tar.bz2", ".tgz", ".tar.xz"];
    let stem = ends.iter().find_map(|end| file.strip_suffix(end))?;
    stem.match_indices('-').rev().find_map(|(at, _)| {
        let found = PackageName::from_str(&stem[..at]).ok()?;
        (found == *name)
            .then(|| stem[at + 1..].parse().ok())
            .flatten()
    })
}

impl Index for Sources<'_> {
    fn versions(&self, name: &PackageName) -> Result<Vec<Candidate>, IndexError> {
        self.files(name)
    }

    fn metadata(&self, candidate: &Candidate) -> Result<Metadata, IndexError> {
        let malformed = |error: &dyn std::fmt::Display| {
            IndexError::Malformed(Unreadable {
                code: "imgdecl::wheel::malformed",
                why: format!("{}: {error}", candidate.file),
                help: "take another version of the package, or tell its makers".to_owned(),
            })
        };
        let text: Arc<String> = match self.own(candidate) {
            Some(path) => self.read_metadata(candidate, &path)?,
            None => {
                let text = self.packages.metadata(&self.file_of(candidate));
                text.map_err(index_error)?
            }
        };
        Metadata::parse(&text).map_err(|error| malformed(&error))
    }

    fn hear(&self, decided: usize, asked: usize, read: usize) {
        let text = format!(
            "{decided} decided, {asked} packages asked for, the metadata of {read} versions read"
        );
        self.tell(&text);
    }

    fn similar(&self, name: &PackageName) -> Vec<PackageName> {
        let names = self.local.keys().chain(self.beside.keys());
        let local = similar(name, names.map(AsRef::as_ref));
        let mut found: Vec<PackageName> =
            local.into_iter().filter_map(|it| it.parse().ok()).collect();
        let guesses = guesses(name);
        // All at once; each is then waited for.
        for guess in &guesses {
            let nothing = Box::new(|_: &[PackageFile]| Vec::new());
            self.packages.prefetch_project(guess.as_ref(), nothing);
        }
        for guess in guesses {
            match self.packages.files(guess.as_ref()) {
                Ok(files) if !files.is_empty() => found.push(guess),
                Ok(_) | Err(PackageError::NotFound { .. } | PackageError::Malformed { .. }) => {}
                // An index that fails now would fail for the others too.
                Err(PackageError::Failed(_)) => break,
            }
        }
        found
    }

    fn prefetch(&self, wanted: Wanted) {
        match wanted {
            Wanted::Package(name, pick) => {
                if self.local.contains_key(&name) {
                    return;
                }
                self.packages.prefetch_project(
                    name.clone().as_ref(),
                    picker(name, pick, self.exclude_newer.clone()),
                );
            }
            Wanted::Metadata(candidates) => {
                let remote = candidates.iter().filter(|it| &*it.index != LOCAL);
                self.packages
                    .prefetch_metadata(remote.map(|it| self.file_of(it)).collect());
            }
        }
    }
}

fn picker(name: PackageName, pick: Pick, exclude_newer: Option<String>) -> crate::graph::Pick {
    Box::new(move |files| {
        // What is gained by asking ahead is not worth going through these twice.
        if files.len() > MANY {
            return Vec::new();
        }
        let chosen = Chosen::new(&name, exclude_newer.as_deref());
        let version = |it: &PackageFile| chosen.version(it);
        let picked = pick.from(&name, files, version, |it| chosen.candidate(it));
        let file = picked.map(|at| files[at].clone());
        file.into_iter().collect()
    })
}
