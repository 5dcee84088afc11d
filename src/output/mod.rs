//! Where finished images go: one file per sink. An output that exists and is not one of ours is never overwritten.
//!
//! Knows nothing of rules, or of how anything was built.

mod archive;
mod docker_archive;
mod layout;
mod metadata;

pub use archive::Archive;
pub use docker_archive::{DockerArchive, Picked, Planned};
pub use metadata::metadata;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::graph::{Image, Index, Product};
use crate::oci::{
    Annotations, CONTAINERD_NAME, Descriptor, Digest, OURS, Platform, REF_NAME, Reference,
    ReferenceError,
};
use crate::store::{Blob, Damage, Store, StoreError};

/// A finished image, and its names.
pub struct Output<'a> {
    /// The name of the target.
    pub name: String,
    /// Registry and repository, if the manifest says.
    pub repository: Option<String>,
    /// The image tags.
    pub tags: Vec<String>,
    /// The image or index.
    pub product: &'a Product,
    /// What its push did, if it was pushed.
    pub push: Option<PushCounts>,
    /// What became of it in a daemon, if it was loaded into one.
    pub load: Option<Loaded>,
}

/// An image in a daemon.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Loaded {
    /// The full names that it has there.
    pub names: Vec<String>,
    /// The platform that was loaded.
    pub platform: Platform,
    /// The daemon's own name for it.
    pub image_id: String,
}

/// Bytes of a push, by what became of the blobs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PushCounts {
    /// Sent by us.
    pub sent: u64,
    /// Taken by the registry from another of its repositories.
    pub mounted: u64,
    /// There already.
    pub skipped: u64,
}

impl Output<'_> {
    /// Returns the manifest or index.
    pub fn descriptor(&self) -> Descriptor {
        match self.product {
            Product::Index(index) => index.descriptor.clone(),
            Product::Image(image) => image.manifest.clone(),
            _ => unreachable!("plans make images and indexes"),
        }
    }

    /// Returns the image of each platform.
    pub fn images(&self) -> Vec<(Platform, &Image)> {
        match self.product {
            Product::Index(index) => index
                .images
                .iter()
                .map(|image| (image.platform(), image))
                .collect(),
            Product::Image(image) => vec![(image.platform(), image)],
            _ => Vec::new(),
        }
    }

    /// Returns the repository, or the name where there is none: what stands before the `@`.
    pub fn reference(&self) -> String {
        let name = self.repository.clone().unwrap_or_else(|| self.name.clone());
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

    /// Returns all blobs of the image: index, manifests, configs, layers.
    fn blobs(&self) -> BTreeSet<Blob> {
        let index: Option<&Index> = match self.product {
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
            .collect()
    }
}

/// Where to put images.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Sink {
    /// An OCI image layout in a folder.
    Layout(PathBuf),
    /// An OCI image layout as one tar.
    OciArchive(PathBuf),
    /// The same, of one platform, with what Docker reads besides.
    DockerArchive(PathBuf),
    /// Nothing is written: digests need no bytes.
    Nothing,
}

impl Sink {
    /// The names by which sinks are chosen.
    pub const NAMES: &'static str = "oci:DIR, oci-archive:FILE, docker-archive:FILE or none";

    /// Returns the path that the sink writes, if any.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Layout(path) | Self::OciArchive(path) | Self::DockerArchive(path) => Some(path),
            Self::Nothing => None,
        }
    }

    /// Returns all paths that the sink writes.
    pub fn paths(&self) -> Vec<PathBuf> {
        match self {
            Self::Layout(path) => vec![path.clone()],
            Self::OciArchive(path) | Self::DockerArchive(path) => {
                vec![path.clone(), archive::partial(path)]
            }
            Self::Nothing => Vec::new(),
        }
    }

    /// Returns the same sink with its path below `folder`, unless it is absolute.
    #[must_use]
    pub fn below(&self, folder: &Path) -> Self {
        match self {
            Self::Layout(path) => Self::Layout(folder.join(path)),
            Self::OciArchive(path) => Self::OciArchive(folder.join(path)),
            Self::DockerArchive(path) => Self::DockerArchive(folder.join(path)),
            Self::Nothing => Self::Nothing,
        }
    }

    /// Makes sure, before anything is built, that the sink can take images: it is ours, or not there.
    ///
    /// # Errors
    /// When it is not ours.
    pub fn check(&self) -> Result<(), OutputError> {
        match self {
            Self::Layout(path) => layout::check(path),
            Self::OciArchive(path) | Self::DockerArchive(path) => archive::check(path),
            Self::Nothing => Ok(()),
        }
    }

    /// Writes images. Of an image of several platforms, a sink that holds one only takes that of `host`. `go_on` says, now
    /// and then, whether to.
    ///
    /// # Errors
    /// When the sink cannot be written, or was stopped; then it is as it was.
    pub fn write(
        &self,
        outputs: &[Output<'_>],
        host: &Platform,
        store: &Store,
        go_on: GoOn<'_>,
    ) -> Result<(), OutputError> {
        match self {
            Self::Layout(path) => layout::write(path, outputs, store, go_on),
            Self::OciArchive(path) => archive::write(path, &archive::oci(outputs), store, go_on),
            Self::DockerArchive(path) => {
                let docker = DockerArchive::new(outputs, host)?;
                archive::write(path, &docker.archive, store, go_on)
            }
            Self::Nothing => Ok(()),
        }
    }
}

/// Tells whether to go on; false when the user asked to stop.
pub type GoOn<'a> = &'a dyn Fn() -> bool;

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

impl FromStr for Sink {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "none" => Ok(Self::Nothing),
            Some((_, "")) => Err(format!("`{text}` names no file: expected {}", Self::NAMES)),
            Some(("oci", path)) if path.contains(':') => Err(format!(
                "`{path}` is no folder: `oci:DIR` takes a folder alone, as images have the names of their targets"
            )),
            Some((_, "-")) => Err("an output cannot go to stdout: name a file".to_owned()),
            Some(("oci", path)) => Ok(Self::Layout(path.into())),
            Some(("oci-archive", path)) => Ok(Self::OciArchive(path.into())),
            Some(("docker-archive", path)) => Ok(Self::DockerArchive(path.into())),
            _ => Err(format!("`{text}` is no output: expected {}", Self::NAMES)),
        }
    }
}

impl fmt::Display for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Layout(path) => write!(f, "oci:{}", path.display()),
            Self::OciArchive(path) => write!(f, "oci-archive:{}", path.display()),
            Self::DockerArchive(path) => write!(f, "docker-archive:{}", path.display()),
            Self::Nothing => f.write_str("none"),
        }
    }
}

/// An output that was not written.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
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
    /// The cache cannot give a blob.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn fail(path: &Path) -> impl FnOnce(io::Error) -> OutputError + use<> {
    let path = path.to_owned();
    move |source| OutputError::Io { path, source }
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

/// The `oci-layout` file (image-spec, image-layout.md).
const OCI_LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
/// The version that it says.
const LAYOUT_VERSION: &str = "1.0.0";

/// The annotations of an `index.json` of ours.
fn ours() -> Annotations {
    Annotations::from([(OURS.to_owned(), "1".to_owned())])
}

/// Returns the entries sorted by name: those of `outputs`, and those of `before` that have other names.
fn merge(before: Vec<Descriptor>, outputs: &[Output<'_>]) -> Vec<Descriptor> {
    let name = |descriptor: &Descriptor| {
        descriptor
            .annotations
            .get(REF_NAME)
            .cloned()
            .unwrap_or_default()
    };
    let mut entries: BTreeMap<(String, Digest), Descriptor> = BTreeMap::new();
    let new: BTreeSet<&str> = outputs.iter().map(|output| output.name.as_str()).collect();
    let kept = before
        .into_iter()
        .filter(|descriptor| !new.contains(name(descriptor).as_str()));
    for descriptor in kept.chain(outputs.iter().map(Output::entry)) {
        entries.insert((name(&descriptor), descriptor.digest), descriptor);
    }
    entries.into_values().collect()
}
