//! What is pushed, and what came of it. Knows no request.

use std::io::{self, Read};

use super::monitor::Ended;
use crate::oci::{Descriptor, Digest, MediaType, Reference};

/// An image to push: its descriptors. The bytes come from [`Blobs`].
#[derive(Clone, Debug)]
pub struct PushImage {
    /// What people call it.
    pub name: String,
    /// The registry and repository.
    pub repository: Reference,
    /// The image tags to set.
    pub tags: Vec<String>,
    /// The manifest or index.
    pub root: Descriptor,
    /// Every blob is asked for, even where the manifest that names it is there.
    pub is_checked: bool,
    /// The images of the platforms; one, with the same descriptor as `root`, for an image of one platform.
    pub manifests: Vec<PushManifest>,
}

/// An image of one platform.
#[derive(Clone, Debug)]
pub struct PushManifest {
    /// The manifest.
    pub manifest: Descriptor,
    /// The config.
    pub config: Descriptor,
    /// The layers, bottom first.
    pub layers: Vec<Descriptor>,
}

/// Where the bytes of blobs are.
pub trait Blobs: Sync {
    /// Opens a blob that is on this machine, from its beginning; `None` if it is not. May be called several times.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    fn open(&self, descriptor: &Descriptor) -> io::Result<Option<Box<dyn Read + Send>>>;

    /// Names a repository that is known to hold the blob: to mount from on the same registry, or to stream from.
    fn origin(&self, digest: &Digest) -> Option<Reference>;
}

/// What a push did, in bytes of blobs and documents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pushed {
    /// Sent over the wire.
    pub sent: u64,
    /// Taken from another repository of the registry.
    pub mounted: u64,
    /// There already.
    pub skipped: u64,
    /// Each blob and document, once.
    pub blobs: Vec<PushedBlob>,
}

/// What became of one blob or document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PushedBlob {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// What happened.
    pub outcome: Ended,
}

impl Pushed {
    /// Tells whether a blob was added.
    pub(super) fn has(&self, descriptor: &Descriptor) -> bool {
        self.blobs
            .iter()
            .any(|blob| blob.digest == descriptor.digest)
    }

    /// Adds a blob, once.
    pub(super) fn add(&mut self, descriptor: &Descriptor, outcome: Ended) {
        if self.has(descriptor) {
            return;
        }
        let digest = descriptor.digest;
        let size = descriptor.size;
        *self.sum(outcome) += size;
        self.blobs.push(PushedBlob {
            digest,
            size,
            outcome,
        });
    }

    /// Says that something else became of a blob than was thought.
    pub(super) fn correct(&mut self, descriptor: &Descriptor, outcome: Ended) {
        let digest = descriptor.digest;
        if let Some(at) = self.blobs.iter().position(|blob| blob.digest == digest) {
            let old = self.blobs.remove(at);
            *self.sum(old.outcome) -= old.size;
        }
        self.add(descriptor, outcome);
    }

    fn sum(&mut self, outcome: Ended) -> &mut u64 {
        match outcome {
            Ended::Done => &mut self.sent,
            Ended::Mounted => &mut self.mounted,
            Ended::Skipped | Ended::Failed => &mut self.skipped,
        }
    }
}

impl PushManifest {
    /// Returns the config and the layers that registries may hold.
    pub(super) fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        std::iter::once(&self.config)
            .chain(&self.layers)
            .filter(|blob| !is_foreign(&blob.media_type))
    }
}

/// Tells whether a layer must not be pushed (image-spec, layer.md, "Non-Distributable Layers").
fn is_foreign(media_type: &MediaType) -> bool {
    matches!(
        media_type,
        MediaType::OciForeign
            | MediaType::OciForeignGzip
            | MediaType::OciForeignZstd
            | MediaType::DockerForeignGzip
    )
}
