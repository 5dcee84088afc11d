//! Images on disk, to build on: OCI layouts, and archives as `docker save`, podman and skopeo write them.
//!
//! Finds the pieces of an image of one platform. What it finds is not trusted: whoever reads a piece checks its size
//! and digest. Knows nothing of rules or the graph.

mod archive;
mod layer;
mod layout;

pub(crate) use archive::{Archive, Root};
pub(crate) use layer::{LayerReader, Sizes};
pub(crate) use layout::Layout;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use crate::oci::{
    CONTAINERD_NAME, Config, ConfigError, Descriptor, Digest, Index, MAX_DOCUMENT, Manifest,
    MediaType, Platform, REF_NAME, Reference,
};
use crate::store::{self, Blob, Damage, Later};

/// An image that was found.
#[derive(Debug)]
pub(crate) struct Found {
    /// The reference that it is known by, if any.
    pub name: Option<String>,
    /// The digest of the manifest or index that the reference names; docker archives have neither.
    pub digest: Option<Digest>,
    /// The digest of the platform's own manifest; docker archives have none.
    pub manifest: Option<Digest>,
    /// The config blob.
    pub config: Piece,
    /// The layers, bottom first.
    pub layers: Vec<Piece>,
}

/// A blob of an image that was found.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    /// What to call it in messages.
    pub what: String,
    /// Its media type, where something names it.
    pub media_type: Option<MediaType>,
    /// Its digest and size, where something names them.
    pub expected: Option<Blob>,
    /// Annotations of its descriptor.
    pub descriptor: Option<Descriptor>,
    /// Where its bytes are.
    pub place: Place,
}

/// Where the bytes of a piece are.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// In a file.
    File {
        /// The file that holds it.
        path: PathBuf,
        /// The part of the file that it is: offset and size in bytes. `None` for all of it.
        range: Option<(u64, u64)>,
        /// The file, where it is open already: another one that has its path by now is not read.
        file: Option<Arc<File>>,
    },
    /// In the cache: then what is wrong with it is the cache's fault, and not the image's.
    Cache(Arc<dyn Later>),
}

/// Reads a part of a file, from a position of its own: others may read the same open file meanwhile.
struct Part {
    file: Arc<File>,
    offset: u64,
    left: u64,
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let most = most.min(buffer.len());
        let count = self.file.read_at(&mut buffer[..most], self.offset)?;
        self.offset += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

/// A layout or archive that does not hold what was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no OCI layout.
    #[error("{} is not an OCI image layout: {why}", path.display())]
    NoLayout {
        /// The folder or archive.
        path: PathBuf,
        /// What is missing.
        why: String,
    },
    /// A document is not what its media type says.
    #[error("{what} is not a valid {kind}: {why}")]
    Document {
        /// The document.
        what: String,
        /// What it should be.
        kind: &'static str,
        /// What is wrong.
        why: String,
    },
    /// A document has another digest than the one it is known by.
    #[error("{what} has the digest {found} instead of {expected}")]
    Digest {
        /// The document.
        what: String,
        /// The digest that it is known by.
        expected: Digest,
        /// The digest of its bytes.
        found: Digest,
    },
    /// There is no image of that name, or several and no name was given.
    #[error("{what}; it holds {}", list(have))]
    Reference {
        /// What is wrong.
        what: String,
        /// The names of the images that are there.
        have: Vec<String>,
    },
    /// There is no image for the platform.
    #[error("the base has no image for {wanted}; it has {}", list(have))]
    Platform {
        /// The platform that was asked for.
        wanted: String,
        /// The platforms that are there.
        have: Vec<String>,
    },
    /// A blob cannot be had from where it is.
    #[error(transparent)]
    Fetch(Box<dyn std::error::Error + Send + Sync>),
    /// A copy of it in the cache is damaged.
    #[error(transparent)]
    Cache(#[from] Damage),
    /// The config is of no use.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

fn list(names: &[String]) -> String {
    match names {
        [] => "none".to_owned(),
        names => names.join(", "),
    }
}

impl Place {
    /// All of a file.
    fn whole(path: PathBuf) -> Self {
        Self::File {
            path,
            range: None,
            file: None,
        }
    }
}

impl Piece {
    /// Tells whether its bytes are the cache's.
    pub(crate) fn is_cached(&self) -> bool {
        matches!(self.place, Place::Cache(_))
    }

    /// Looks for the cause where it makes no sense: hashes the cache's copy, if it is that.
    pub(crate) fn damage(&self) -> Option<Damage> {
        match &self.place {
            Place::Cache(blob) => blob.damage(),
            Place::File { .. } => None,
        }
    }

    /// Makes the error for a failed read.
    pub(crate) fn unreadable(&self, source: io::Error) -> SourceError {
        let path = match &self.place {
            Place::File { path, .. } => path.clone(),
            Place::Cache(blob) => blob.place().into(),
        };
        SourceError::Io { path, source }
    }

    /// Returns the cause of an error: the cache's copy may be damaged.
    pub(crate) fn blame(&self, error: SourceError) -> SourceError {
        self.damage().map_or(error, SourceError::Cache)
    }

    /// Opens the piece's bytes.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn open(&self) -> Result<impl Read + Send + use<>, SourceError> {
        let (file, range) = match &self.place {
            Place::File {
                file: Some(file),
                range,
                ..
            } => (Ok(Arc::clone(file)), *range),
            Place::File { path, range, .. } => (open_regular(path).map(Arc::new), *range),
            Place::Cache(blob) => (blob.open().map(Arc::new), None),
        };
        let file = file.map_err(|error| self.unreadable(error))?;
        let (offset, left) = range.unwrap_or((0, u64::MAX));
        Ok(Part { file, offset, left })
    }

    /// Reads a document: all its bytes, checked against what is expected of it.
    ///
    /// # Errors
    /// When it cannot be read, is too large, or has another digest.
    pub(crate) fn read(&self) -> Result<Vec<u8>, SourceError> {
        self.read_all().map_err(|error| self.blame(error))
    }

    fn read_all(&self) -> Result<Vec<u8>, SourceError> {
        let fail = |why| SourceError::Document {
            what: self.what.clone(),
            kind: "document",
            why,
        };
        let limit = self.expected.map_or(MAX_DOCUMENT, |blob| blob.size);
        if limit > MAX_DOCUMENT {
            return Err(fail(format!(
                "it claims {limit} bytes; {MAX_DOCUMENT} is the limit"
            )));
        }
        let mut bytes = Vec::new();
        let read = self.open()?.take(limit + 1).read_to_end(&mut bytes);
        read.map_err(|error| self.unreadable(error))?;
        if bytes.len() as u64 > limit
            || self
                .expected
                .is_some_and(|blob| blob.size != bytes.len() as u64)
        {
            return Err(fail(format!(
                "it has {} bytes or more; {limit} were expected",
                bytes.len()
            )));
        }
        let found = Digest::of(&bytes);
        match self.expected {
            Some(Blob {
                digest: expected, ..
            }) if expected != found => Err(SourceError::Digest {
                what: self.what.clone(),
                expected,
                found,
            }),
            _ => Ok(bytes),
        }
    }

    fn parse<T: DeserializeOwned>(&self, kind: &'static str) -> Result<T, SourceError> {
        let fail = |why| SourceError::Document {
            what: self.what.clone(),
            kind,
            why,
        };
        serde_json::from_slice(&self.read()?).map_err(|error| fail(error.to_string()))
    }
}

/// Opens a file, which must be a regular one.
fn open_regular(path: &std::path::Path) -> io::Result<File> {
    // Before it is opened: a fifo would block.
    match std::fs::metadata(path)?.is_file() {
        true => File::open(path),
        false => Err(io::Error::other("it is no regular file")),
    }
}

/// Reads a document from a file: a regular one, of a size that documents have.
///
/// # Errors
/// When it cannot be read, is no regular file, or is too large.
pub(crate) fn read_document(path: &std::path::Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_regular(path)?
        .take(MAX_DOCUMENT + 1)
        .read_to_end(&mut bytes)?;
    match bytes.len() as u64 > MAX_DOCUMENT {
        true => Err(io::Error::other(format!(
            "it is larger than {MAX_DOCUMENT} bytes"
        ))),
        false => Ok(bytes),
    }
}

/// Where blobs can be found by their descriptor.
pub(crate) trait Blobs {
    /// What to call the source in messages.
    fn what(&self) -> String;

    /// Returns the blob that `descriptor` names. A document is there to be read; a layer's bytes may be absent.
    ///
    /// # Errors
    /// When it cannot be had.
    fn piece(&self, descriptor: &Descriptor) -> Result<Piece, SourceError>;
}

/// Returns the entries of a layout's index that are documents, and no images.
fn documents(index: &Index) -> Vec<Descriptor> {
    let all = index.manifests.iter();
    all.filter(|it| it.is_document()).cloned().collect()
}

/// Returns the entry of a layout's index that `reference` names: by its name, its full reference or its digest. Without a
/// reference, it is the only one; documents about images do not count.
fn select(index: &Index, reference: Option<&str>, what: &str) -> Result<Descriptor, SourceError> {
    let names = |descriptor: &Descriptor| -> Vec<String> {
        let annotation = |key| descriptor.annotations.get(key).cloned();
        let mut names: Vec<String> = [REF_NAME, CONTAINERD_NAME]
            .into_iter()
            .filter_map(annotation)
            .collect();
        names.push(descriptor.digest.to_string());
        names
    };
    let have = || -> Vec<String> {
        index
            .manifests
            .iter()
            .filter(|it| !it.is_document())
            .filter_map(|it| names(it).into_iter().next())
            .map(|name| format!("`{name}`"))
            .collect()
    };
    let found: Vec<&Descriptor> = match reference {
        Some(reference) => index
            .manifests
            .iter()
            .filter(|it| names(it).iter().any(|name| name == reference))
            .collect(),
        None => {
            let all = index.manifests.iter();
            let (images, documents): (Vec<_>, Vec<_>) = all.partition(|it| !it.is_document());
            // Where there is nothing else, a type says nothing.
            match images.is_empty() {
                true => documents,
                false => images,
            }
        }
    };
    match (&found[..], reference) {
        ([one], _) => Ok((*one).clone()),
        // Tools that append instead of replacing leave the newest one last.
        ([.., last], Some(_)) => Ok((*last).clone()),
        ([], Some(reference)) => Err(SourceError::Reference {
            what: format!("{what} has no image `{reference}`"),
            have: have(),
        }),
        (_, None) => Err(SourceError::Reference {
            what: format!(
                "{what} has {} images, and nothing says which one is meant",
                found.len()
            ),
            have: have(),
        }),
    }
}

/// Follows a descriptor to the image of one platform.
///
/// # Errors
/// When there is none, or a document on the way is not what it should be.
pub(crate) fn resolve(
    blobs: &dyn Blobs,
    root: &Descriptor,
    platform: &Platform,
) -> Result<Found, SourceError> {
    let mut seen = Seen::default();
    let Some((at, manifest, config)) = descend(blobs, root, platform, &mut seen, 0)? else {
        return Err(SourceError::Platform {
            wanted: platform.to_string(),
            have: seen.platforms.into_iter().collect(),
        });
    };
    let layers: Result<Vec<Piece>, SourceError> = manifest
        .layers
        .iter()
        .map(|layer| blobs.piece(layer))
        .collect();
    let name = root
        .annotations
        .get(CONTAINERD_NAME)
        .or_else(|| root.annotations.get(REF_NAME));
    Ok(Found {
        name: name.and_then(|name| pullable(name, root.annotations.get(REF_NAME))),
        digest: Some(root.digest),
        manifest: Some(at),
        config,
        layers: layers?,
    })
}

/// Returns the reference that an entry's name is, if someone could pull it: a bare image tag is none, and neither is the
/// name that a layout gives to an image that was never in a registry.
fn pullable(name: &str, ref_name: Option<&String>) -> Option<String> {
    let reference: Reference = name.parse().ok().filter(|_| name.contains('/'))?;
    let made_up = reference.registry == "docker.io"
        && reference.repository.strip_prefix("library/") == ref_name.map(String::as_str);
    (!made_up).then(|| reference.to_string())
}

/// What was come across on the way to an image: each document is read once, however often indexes name it.
#[derive(Default)]
struct Seen {
    documents: BTreeSet<Digest>,
    platforms: BTreeSet<String>,
}

/// How many platforms an error names.
const MAX_PLATFORMS: usize = 50;

impl Seen {
    fn add(&mut self, platform: &Platform) {
        if self.platforms.len() < MAX_PLATFORMS {
            self.platforms.insert(platform.to_string());
        }
    }
}

/// How deep indexes may be nested.
const MAX_DEPTH: usize = 4;

fn descend(
    blobs: &dyn Blobs,
    at: &Descriptor,
    platform: &Platform,
    seen: &mut Seen,
    depth: usize,
) -> Result<Option<(Digest, Manifest, Piece)>, SourceError> {
    if !seen.documents.insert(at.digest) {
        return Ok(None);
    }
    let piece = blobs.piece(at)?;
    if at.media_type.is_index() && depth < MAX_DEPTH {
        let index: Index = piece.parse("image index")?;
        for next in &index.manifests {
            match &next.platform {
                Some(other) if other.is_unknown() => continue,
                Some(other) if !other.matches(platform) => {
                    seen.add(other);
                }
                _ => match descend(blobs, next, platform, seen, depth + 1)? {
                    Some(found) => return Ok(Some(found)),
                    None => continue,
                },
            }
        }
        return Ok(None);
    }
    if !at.media_type.is_manifest() {
        let why = format!("its media type is {}", at.media_type);
        return Err(SourceError::Document {
            what: piece.what,
            kind: "image manifest",
            why,
        });
    }
    let manifest: Manifest = piece.parse("image manifest")?;
    if manifest.schema_version != 2 {
        let why = format!("its schema version is {}", manifest.schema_version);
        return Err(SourceError::Document {
            what: piece.what,
            kind: "image manifest",
            why,
        });
    }
    let config = blobs.piece(&manifest.config)?;
    let found = Config::parse(&config.read()?)?.platform()?;
    if !found.matches(platform) {
        seen.add(&found);
        return Ok(None);
    }
    Ok(Some((at.digest, manifest, config)))
}

/// Makes the piece of a descriptor.
fn piece(descriptor: &Descriptor, place: Place, what: String) -> Piece {
    Piece {
        what,
        media_type: Some(descriptor.media_type.clone()),
        expected: Some(Blob {
            digest: descriptor.digest,
            size: descriptor.size,
        }),
        descriptor: Some(descriptor.clone()),
        place,
    }
}

/// Makes the piece of a descriptor whose bytes are in the cache, or will be when they are read.
pub(crate) fn cached(descriptor: &Descriptor, store: &dyn store::Blobs, what: String) -> Piece {
    piece(
        descriptor,
        Place::Cache(store.later(&descriptor.digest)),
        what,
    )
}
