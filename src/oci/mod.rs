//! The nouns of the OCI specs: digests, descriptors, platforms, references, configs, manifests and indexes.
//!
//! Plain data that can be parsed, compared and written. Knows nothing of files, the network or TOML.

mod config;
mod descriptor;
mod digest;
mod index;
mod json;
mod manifest;
mod media_type;
mod platform;
mod reference;
mod referrer;
mod sha256;

pub use config::Config;
pub(crate) use config::{ConfigError, is_of_layer, last_of_each, variable};
pub use descriptor::Descriptor;
pub use digest::Digest;
pub(crate) use digest::{DiffId, Hasher};
pub use index::Index;
pub(crate) use json::{null_is_default, without_nulls};
pub use manifest::Manifest;
pub use media_type::Compression;
pub(crate) use media_type::Flavour;
pub use media_type::MediaType;
pub use platform::Platform;
pub use reference::Reference;
pub(crate) use reference::{ReferenceError, check_tag};
pub(crate) use referrer::{EMPTY, Referrer};

use std::collections::BTreeMap;

/// Annotations of a descriptor, manifest or index: sorted, so that their bytes are stable.
pub(crate) type Annotations = BTreeMap<String, String>;

/// `org.opencontainers.image.ref.name`: the name of an entry in a layout's `index.json`.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// `io.containerd.image.name`: the full reference of an entry in a layout's `index.json`.
pub(crate) const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// `org.opencontainers.image.base.name`: the reference of the base of an image.
pub(crate) const BASE_NAME: &str = "org.opencontainers.image.base.name";
/// `org.opencontainers.image.base.digest`: the manifest or index digest of the base of an image.
pub(crate) const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";

/// `io.imgdecl.layout`: marks the index of a layout that imgdecl wrote.
pub(crate) const OURS: &str = "io.imgdecl.layout";

/// The largest manifest, index or config that is read, in bytes.
///
/// Registries must accept manifests of 4 MiB (distribution-spec, "Pushing Manifests"); some images exceed that.
pub(crate) const MAX_DOCUMENT: u64 = 20 << 20;

#[cfg(test)]
pub(crate) use json::tests::assert_null_is_absent;
