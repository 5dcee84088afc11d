//! Documents that are attached to images, as sinks take them: manifests with a subject. Knows no kind of document.

use serde_json::{Value, json};

use super::Output;
use crate::graph::Document;
use crate::oci::{CONTAINERD_NAME, Descriptor, REF_NAME, Referrer};
use crate::store::Blob;

/// A document that is attached to an image, or to the image of one of its platforms.
#[derive(Clone, Debug)]
pub(crate) struct Attached {
    /// What its manifest says.
    pub(crate) referrer: Referrer,
    /// The bytes of the manifest.
    pub(super) bytes: Vec<u8>,
}

impl Attached {
    /// Makes what attaches a document; `None` of one that is about nothing.
    pub(crate) fn of(document: &Document) -> Option<Self> {
        let referrer = document.referrer()?;
        let bytes = referrer.to_bytes();
        Some(Self { referrer, bytes })
    }

    /// Reads the manifest of a document, whoever wrote it; `None` if that is no manifest with a subject.
    pub(crate) fn read(bytes: Vec<u8>) -> Option<Self> {
        let referrer: Referrer = serde_json::from_slice(&bytes).ok()?;
        let is_one = referrer.media_type.is_manifest();
        is_one.then_some(Self { referrer, bytes })
    }

    /// Returns the manifest, as lists of referrers name it.
    pub(super) fn manifest(&self) -> Descriptor {
        self.referrer.descriptor(&self.bytes)
    }

    /// Returns the entry of a layout's index. It has no name: readers that look for an image pass it over.
    pub(super) fn entry(&self) -> Descriptor {
        let mut entry = self.manifest();
        for name in [REF_NAME, CONTAINERD_NAME] {
            entry.annotations.remove(name);
        }
        entry
    }

    /// Returns all blobs: the manifest, its config and the document.
    pub(super) fn blobs(&self) -> impl Iterator<Item = Blob> {
        let referrer = &self.referrer;
        let parts = referrer.layers.iter().chain([&referrer.config]);
        parts
            .chain([&self.manifest()])
            .map(Blob::from)
            .collect::<Vec<_>>()
            .into_iter()
    }

    /// Says to scripts what it is.
    pub(super) fn to_json(&self) -> Value {
        let manifest = self.manifest();
        let layers = self.referrer.layers.iter();
        let layers = layers
            .map(|it| json!({"media_type": it.media_type, "digest": it.digest, "size": it.size}));
        json!({
            "artifact_type": self.referrer.kind(),
            "subject": self.referrer.subject.digest,
            "digest": manifest.digest,
            "size": manifest.size,
            "annotations": manifest.annotations,
            "layers": layers.collect::<Vec<_>>(),
        })
    }
}

/// Tells of each image that has documents that a sink cannot hold them.
pub(super) fn left_out(images: &[Output], sink: &str, note: &dyn Fn(&str)) {
    for Output { name, attached, .. } in images {
        let what = match attached.len() {
            0 => continue,
            1 => "a document".to_owned(),
            count => format!("{count} documents"),
        };
        note(&format!(
            "{name} has {what} attached, which {sink} cannot hold: the image goes there alone"
        ));
    }
}
