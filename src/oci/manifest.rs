//! Image manifests (image-spec, manifest.md).

use serde::{Deserialize, Serialize};

use super::{Annotations, Descriptor, MediaType};

/// An image of one platform: a config and its layers, bottom first.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// Written always; some manifests that we read lack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<MediaType>,
    /// The config blob.
    pub config: Descriptor,
    /// The layers, bottom first.
    pub layers: Vec<Descriptor>,
    /// Annotations, sorted.
    #[serde(
        default,
        deserialize_with = "super::without_nulls",
        skip_serializing_if = "Annotations::is_empty"
    )]
    pub annotations: Annotations,
}

impl Manifest {
    /// Makes an OCI image manifest.
    pub fn new(config: Descriptor, layers: Vec<Descriptor>, annotations: Annotations) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(MediaType::OciManifest),
            config,
            layers,
            annotations,
        }
    }

    /// Returns the bytes: no white space, fields in the order of the struct.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a manifest has string keys only")
    }
}
