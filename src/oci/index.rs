//! Image indexes (image-spec, image-index.md).

use serde::{Deserialize, Serialize};

use super::{Annotations, Descriptor, MediaType};

/// A list of manifests: one for each platform of an image, or one for each image of a layout.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// Written always; some indexes that we read lack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<MediaType>,
    /// The manifests. Their order matters: the first one that matches a platform wins.
    pub manifests: Vec<Descriptor>,
    /// Annotations, sorted.
    #[serde(
        default,
        deserialize_with = "super::without_nulls",
        skip_serializing_if = "Annotations::is_empty"
    )]
    pub annotations: Annotations,
}

impl Index {
    /// Makes an OCI image index.
    pub fn new(manifests: Vec<Descriptor>, annotations: Annotations) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(MediaType::OciIndex),
            manifests,
            annotations,
        }
    }

    /// Returns the bytes: no white space, fields in the order of the struct.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("an index has string keys only")
    }
}
