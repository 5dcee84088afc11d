//! Content descriptors (image-spec, descriptor.md).

use serde::{Deserialize, Serialize};

use super::{Annotations, Digest, MediaType, Platform};

/// A pointer to a blob: what it is, its digest and its size.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The media type of the blob.
    pub media_type: MediaType,
    /// The digest of the blob's bytes.
    pub digest: Digest,
    /// The size of the blob in bytes.
    pub size: u64,
    /// Where else the blob can be had (layers that registries must not hold).
    #[serde(
        default,
        deserialize_with = "super::null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub urls: Vec<String>,
    /// The platform of an image, in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Annotations, sorted.
    #[serde(
        default,
        deserialize_with = "super::without_nulls",
        skip_serializing_if = "Annotations::is_empty"
    )]
    pub annotations: Annotations,
    /// The type of an image that is no container image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
}

impl Descriptor {
    /// Makes a descriptor with nothing but the required fields.
    pub fn new(media_type: MediaType, digest: Digest, size: u64) -> Self {
        Self {
            media_type,
            digest,
            size,
            urls: Vec::new(),
            platform: None,
            annotations: Annotations::new(),
            artifact_type: None,
        }
    }

    /// Tells whether an entry of an index is a document, and no image: images have no type, or that of their config.
    pub(crate) fn is_document(&self) -> bool {
        let of_images = [MediaType::OciConfig, MediaType::DockerConfig];
        let kind = self.artifact_type.as_deref();
        kind.is_some_and(|kind| of_images.iter().all(|it| it.as_str() != kind))
    }

    /// Makes the descriptor of `bytes`.
    pub fn of(media_type: MediaType, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }
}
