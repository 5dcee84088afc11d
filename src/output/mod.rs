//! Where finished images go: one file per sink, each with a line in [`KINDS`] if an `--output` can name it. An output that
//! exists and is not one of ours is never overwritten.
//!
//! Knows nothing of rules, or of how anything was built.

mod archive;
mod attached;
mod daemon;
mod dir;
mod docker_archive;
mod flat;
mod layout;
mod metadata;
mod nothing;
mod place;
mod registry;
#[cfg(test)]
mod toy_sink_testing;

pub(crate) use attached::Attached;
pub(crate) use daemon::Daemon;
pub(crate) use docker_archive::Planned;
pub(crate) use layout::Layout;
pub(crate) use metadata::metadata;
pub(crate) use place::Place;
pub(crate) use registry::{Registry, check_repositories};

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::daemon::DaemonError;
use crate::graph::{Image, Index, Product};
use crate::graph::{Origin, Stop};
use crate::layer::FlatError;
use crate::oci::{
    Annotations, CONTAINERD_NAME, Descriptor, Digest, OURS, Platform, REF_NAME, Reference,
    ReferenceError,
};
use crate::registry::RegistryError;
use crate::store::{Blob, Blobs, Damage, StoreError};

/// A finished image, and its names.
pub(crate) struct Output {
    /// The name of the target.
    pub(crate) name: String,
    /// Registry and repository, if the manifest says.
    pub(crate) repository: Option<String>,
    /// The image tags.
    pub(crate) tags: Vec<String>,
    /// Whether it goes to registries.
    pub(crate) is_pushed: bool,
    /// The image or index.
    pub(crate) product: Product,
    /// What is attached to it, or to the image of one of its platforms.
    pub(crate) attached: Vec<Attached>,
    /// What sinks report of it to scripts, each under a name of its own.
    pub(crate) reports: Vec<(&'static str, Value)>,
}

impl Output {
    /// Returns the manifest or index.
    pub(crate) fn descriptor(&self) -> Descriptor {
        match &self.product {
            Product::Index(index) => index.descriptor.clone(),
            Product::Image(image) => image.manifest.clone(),
            _ => unreachable!("plans make images and indexes"),
        }
    }

    /// Returns the image of each platform.
    pub(crate) fn images(&self) -> Vec<(Platform, &Image)> {
        match &self.product {
            Product::Index(index) => index
                .images
                .iter()
                .map(|image| (image.platform(), image))
                .collect(),
            Product::Image(image) => vec![(image.platform(), image)],
            _ => Vec::new(),
        }
    }

    /// Returns what documents can be about: the manifest or index, and the manifest of each platform.
    pub(crate) fn subjects(&self) -> BTreeSet<Digest> {
        let images = self.images();
        let manifests = images.iter().map(|(_, image)| image.manifest.digest);
        manifests.chain([self.descriptor().digest]).collect()
    }

    /// Returns the repository, or the name where it goes to none: what stands before the `@`.
    pub(crate) fn reference(&self) -> String {
        let repository = self.repository.as_ref().filter(|_| self.is_pushed);
        let name = repository.unwrap_or(&self.name);
        format!("{name}@{}", self.descriptor().digest)
    }

    /// Returns the entry of a layout's index.
    fn entry(&self) -> Descriptor {
        let mut descriptor = self.descriptor();
        let tag = self.tags.first().map_or("latest", String::as_str);
        let full = format!("{}:{tag}", self.repository.as_ref().unwrap_or(&self.name))
            .parse::<Reference>()
            .ok();
        descriptor.annotations = Annotations::from([(REF_NAME.to_owned(), self.name.clone())]);
        descriptor
            .annotations
            .extend(full.map(|full| (CONTAINERD_NAME.to_owned(), full.to_string())));
        descriptor
    }

    /// Returns all blobs of the image: index, manifests, configs, layers, and what is attached.
    fn blobs(&self) -> BTreeSet<Blob> {
        let index: Option<&Index> = match &self.product {
            Product::Index(index) => Some(index),
            _ => None,
        };
        let images = self.images();
        let documents = images.iter().flat_map(|(_, image)| image.documents());
        let layers = images.iter().flat_map(|(_, image)| image.layers.iter());
        let layers = layers
            .filter(|layer| layer.descriptor.urls.is_empty())
            .map(|layer| layer.blob());
        index
            .map(Index::document)
            .into_iter()
            .chain(documents)
            .chain(layers)
            .chain(self.attached.iter().flat_map(Attached::blobs))
            .collect()
    }
}

/// What a sink takes of images.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Needs {
    /// Their digests.
    Digests,
    /// Layers that were built; those of a base may stay in their registry.
    Layers,
    /// All bytes.
    Bytes,
}

/// Where images go.
pub(crate) trait Sink: fmt::Display + Send + Sync {
    /// Returns all paths that the sink writes.
    fn paths(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    /// Says what the sink takes of images.
    fn needs(&self) -> Needs;

    /// Tells whether the sink is for an image; `is_pushed` says whether that goes to registries.
    fn takes(&self, is_pushed: bool) -> bool {
        let _ = is_pushed;
        true
    }

    /// Makes sure, before anything is planned, that the sink can take images: it is ours, or not there.
    ///
    /// # Errors
    /// When it cannot.
    fn check(&self) -> Result<(), OutputError> {
        Ok(())
    }

    /// Makes sure, before anything is built, that the sink can take these images. Of an image of several platforms, a sink
    /// that holds one only takes that of `host`.
    ///
    /// # Errors
    /// When it cannot.
    fn check_images(&self, images: &[Planned<'_>], host: &Platform) -> Result<(), OutputError> {
        let _ = (images, host);
        Ok(())
    }

    /// Writes images. Returns what it reports of each to scripts, in their order; it may be nothing at all.
    ///
    /// # Errors
    /// When the sink cannot be written, or was stopped; then it is as it was.
    fn write(&self, images: &[Output], supply: &Supply<'_>) -> Result<Vec<Report>, OutputError>;
}

/// What a sink reports of an image to scripts: a value, and its name.
pub(crate) type Report = (&'static str, Value);

/// What a sink may use while it writes.
pub(crate) struct Supply<'a> {
    /// The cache, if that is what holds the images.
    pub(crate) store: Option<&'a dyn Blobs>,
    /// All blobs, wherever they are.
    pub(crate) blobs: &'a dyn crate::registry::Blobs,
    /// The platform of this machine.
    pub(crate) host: &'a Platform,
    /// The wish to stop.
    pub(crate) stop: &'a Stop,
    /// Tells people what was done.
    pub(crate) note: &'a dyn Fn(&str),
    /// Hears of bytes that need not be sent: those that were mounted, and those that were there.
    pub(crate) unsent: &'a dyn Fn(u64, u64),
    /// Opens stdout for bytes.
    pub(crate) stdout: &'a dyn Fn() -> io::Result<File>,
}

impl<'a> Supply<'a> {
    fn store(&self) -> Result<&'a dyn Blobs, OutputError> {
        self.store.ok_or(OutputError::NoCache)
    }
}

/// A kind of sink that a word on the command line names.
pub(crate) struct Kind {
    /// The word before the colon.
    pub(crate) word: &'static str,
    /// What follows the colon, as `DIR`; nothing where there is no colon. `FILE` may be stdout.
    pub(crate) place: Option<&'static str>,
    /// Makes the sink at a place.
    make: fn(Place) -> Arc<dyn Sink>,
}

/// The kinds of sinks that a word on the command line names.
pub(crate) const KINDS: &[&Kind] = &[
    &layout::KIND,
    &archive::KIND,
    &docker_archive::KIND,
    &flat::KIND,
    &dir::KIND,
    &nothing::KIND,
    #[cfg(test)]
    &toy_sink_testing::KIND,
];

/// What a word on the command line names: a kind of sink, and a place.
#[derive(Clone)]
pub(crate) struct Word {
    kind: &'static Kind,
    place: Place,
}

impl Word {
    /// Makes the sink; its place is below `folder`, unless it is absolute.
    pub(crate) fn below(&self, folder: &Path) -> Arc<dyn Sink> {
        (self.kind.make)(self.place.below(folder))
    }

    /// Tells whether it goes to stdout.
    pub(crate) fn is_stdout(&self) -> bool {
        self.place == Place::Stdout
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.word, self.place)
    }
}

impl FromStr for Word {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = |kind: &&Kind| match kind.place {
            Some(place) => format!("{}:{place}", kind.word),
            None => kind.word.to_owned(),
        };
        let forms: Vec<String> = KINDS.iter().map(form).collect();
        let expected = match forms.split_last() {
            Some((last, [])) => last.clone(),
            Some((last, others)) => format!("{} or {last}", others.join(", ")),
            None => String::new(),
        };
        let (word, place) = match text.split_once(':') {
            Some((_, "")) => return Err(format!("`{text}` names no file: expected {expected}")),
            Some((word, place)) => (word, Some(place)),
            None => (text, None),
        };
        let fits = |kind: &&&Kind| kind.word == word && kind.place.is_some() == place.is_some();
        match (KINDS.iter().find(fits), place) {
            (Some(kind), Some(path)) if kind.place == Some("DIR") && path.contains(':') => {
                Err(format!(
                    "`{path}` is no folder: `{}` takes a folder alone, as images have the names of their targets",
                    form(kind)
                ))
            }
            (Some(kind), Some("-")) if kind.place != Some("FILE") => Err(format!(
                "a folder cannot go to stdout: name one, as {}",
                form(kind)
            )),
            (Some(kind), place) => {
                let path = Path::new(place.unwrap_or_default());
                let place = match kind.place {
                    Some("FILE") => Place::of(path),
                    _ => Place::Path(path.to_owned()),
                };
                Ok(Self { kind, place })
            }
            (None, _) => Err(format!("`{text}` is no output: expected {expected}")),
        }
    }
}

/// Tells whether to go on; false when the user asked to stop.
pub(crate) type GoOn<'a> = &'a dyn Fn() -> bool;

/// Reads as long as it is to go on.
struct Stoppable<'a, R> {
    inner: R,
    go_on: GoOn<'a>,
}

impl<R: Read> Read for Stoppable<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match (self.go_on)() {
            true => self.inner.read(buffer),
            false => Err(io::Error::other("stopped")),
        }
    }
}

/// An output that was not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutputError {
    /// It exists, and is not one of ours.
    #[error("{} exists, and was not written by imgdecl", .0.display())]
    NotOurs(PathBuf),
    /// It exists, and cannot be read as what it should be.
    #[error("{} is damaged: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// It cannot be written.
    #[error("cannot write {}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Whoever read a pipe went away before all was written.
    #[error("whoever reads {0} went away before all was written")]
    Closed(String),
    /// A terminal is to get bytes that are no text.
    #[error("{0} is a terminal, which an archive would garble")]
    Terminal(String),
    /// A sink that holds one image is to get several.
    #[error("{sink} holds one image, and there are {}: {}", names.len(), names.join(", "))]
    Several {
        /// The sink.
        sink: String,
        /// The names of the images.
        names: Vec<String>,
    },
    /// An image has not the one platform that can be written.
    #[error("`{name}` has no image for {wanted}; it has {}", have.join(", "))]
    Platform {
        /// The image.
        name: String,
        /// The platform.
        wanted: String,
        /// What there is.
        have: Vec<String>,
    },
    /// Docker takes no image of that name.
    #[error("Docker cannot call an image `{name}`: {why}")]
    Name {
        /// The name.
        name: String,
        /// Why not.
        why: ReferenceError,
    },
    /// Two images would have one name.
    #[error("`{first}` and `{second}` would both be called {name}")]
    Twice {
        /// An image.
        first: String,
        /// Another image.
        second: String,
        /// The name.
        name: String,
    },
    /// The layers of an image make no root.
    #[error("the layers of `{image}` cannot be one tar")]
    Flat {
        /// The image.
        image: String,
        /// Why.
        source: FlatError,
    },
    /// The cache cannot give a blob.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The images are in no cache, which such a sink reads them from.
    #[error("images that are in no cache can only be pushed")]
    NoCache,
    /// The user stopped it.
    #[error("stopped")]
    Stopped,
    /// Images that are to be pushed have no repository: their names and places.
    #[error("there is no repository to push to")]
    NoRepository(Vec<(String, Origin)>),
    /// A repository is none.
    #[error(transparent)]
    Repository(ReferenceError),
    /// A registry did not take all images: an error for each that it did not take.
    #[error("a registry did not take all images")]
    Push(Vec<RegistryError>),
    /// Docker or podman cannot be reached, or did not take the images.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// Docker or podman cannot read a layer.
    #[error("`{image}` has layers in zstd, which {daemon} cannot read")]
    Zstd {
        /// The image.
        image: String,
        /// The daemon's name.
        daemon: String,
    },
    /// Docker or podman took an image, and has it not.
    #[error("{daemon} took the images, but has no {name}")]
    Lost {
        /// The full name of the image.
        name: String,
        /// The daemon's name.
        daemon: String,
    },
}

fn fail(path: &Path) -> impl FnOnce(io::Error) -> OutputError + use<> {
    let path = path.to_owned();
    move |source| OutputError::Io { path, source }
}

/// Makes sure that a sink that holds one image gets one alone.
fn check_one(sink: &dyn Sink, images: &[Planned<'_>]) -> Result<(), OutputError> {
    match images {
        [] | [_] => Ok(()),
        images => Err(OutputError::Several {
            sink: sink.to_string(),
            names: images.iter().map(|it| it.target.to_owned()).collect(),
        }),
    }
}

/// Makes the error of a copy that failed: the blob is damaged, or the file cannot be written.
fn unread(path: &Path) -> impl FnOnce(io::Error) -> OutputError + use<> {
    let path = path.to_owned();
    move |source| match Damage::of(&source) {
        Some(damage) => StoreError::from(damage.clone()).into(),
        None => match source.downcast::<StoreError>() {
            Ok(error) => error.into(),
            Err(source) => OutputError::Io { path, source },
        },
    }
}

/// How long to wait before a lock is tried again.
const WAIT: Duration = Duration::from_millis(20);

/// Waits for the lock of an output: another build may be at it.
fn wait_for(file: &File, path: &Path, go_on: GoOn<'_>) -> Result<(), OutputError> {
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(fail(path)(error)),
            Err(TryLockError::WouldBlock) if go_on() => std::thread::sleep(WAIT),
            Err(TryLockError::WouldBlock) => return Err(OutputError::Stopped),
        }
    }
}

/// The `oci-layout` file (image-spec, image-layout.md).
const OCI_LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
/// The version that it says.
const LAYOUT_VERSION: &str = "1.0.0";

/// The annotations of an `index.json` of ours.
fn ours() -> Annotations {
    Annotations::from([(OURS.to_owned(), "1".to_owned())])
}

/// Returns the entries sorted by name: those of `outputs`, and those of `before` that have other names. Behind them comes
/// what is attached.
fn merge(before: Vec<Descriptor>, outputs: &[Output]) -> Vec<Descriptor> {
    let name = |descriptor: &Descriptor| {
        descriptor
            .annotations
            .get(REF_NAME)
            .cloned()
            .unwrap_or_default()
    };
    let mut entries: BTreeMap<(bool, String, Digest), Descriptor> = BTreeMap::new();
    let new: BTreeSet<&str> = outputs.iter().map(|output| output.name.as_str()).collect();
    let kept = before
        .into_iter()
        .filter(|descriptor| !new.contains(name(descriptor).as_str()));
    let attached = outputs.iter().flat_map(|output| &output.attached);
    let images = outputs.iter().map(Output::entry);
    for descriptor in kept.chain(images).chain(attached.map(Attached::entry)) {
        let place = (
            descriptor.is_document(),
            name(&descriptor),
            descriptor.digest,
        );
        entries.insert(place, descriptor);
    }
    entries.into_values().collect()
}
