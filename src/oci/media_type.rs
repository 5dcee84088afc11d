//! Media types of the OCI image spec and of Docker's image manifest v2, schema 2.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How a layer's tar is compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash, PartialOrd, Ord)]
pub enum Compression {
    /// The tar itself.
    None,
    /// gzip members (RFC 1952).
    #[default]
    Gzip,
    /// zstd frames (RFC 8878).
    Zstd,
}

impl Compression {
    /// The names that `image.toml` uses.
    pub const NAMES: [&'static str; 3] = ["gzip", "zstd", "none"];

    /// Returns the name that `image.toml` uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::None => "none",
        }
    }

    /// Parses a name that `image.toml` uses.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Gzip, Self::Zstd, Self::None]
            .into_iter()
            .find(|it| it.name() == name)
    }

    /// Returns the media type of an OCI layer that is compressed this way.
    pub fn layer(self) -> MediaType {
        match self {
            Self::None => MediaType::OciLayer,
            Self::Gzip => MediaType::OciLayerGzip,
            Self::Zstd => MediaType::OciLayerZstd,
        }
    }
}

/// Whose media types the documents and layers of an image have. The bytes of config and layers are the same either way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Flavour {
    /// Those of the OCI image spec.
    #[default]
    Oci,
    /// Those of Docker's image manifest v2, schema 2.
    Docker,
}

impl Flavour {
    /// The names that `image.toml` uses.
    pub(crate) const NAMES: [&'static str; 2] = ["oci", "docker"];

    /// Returns the name that `image.toml` uses.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Oci => "oci",
            Self::Docker => "docker",
        }
    }

    /// Parses a name that `image.toml` uses.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        [Self::Oci, Self::Docker]
            .into_iter()
            .find(|it| it.name() == name)
    }

    /// Returns this flavour's media type for the same bytes; `None` where it has none.
    pub(crate) fn of(self, media_type: &MediaType) -> Option<MediaType> {
        match self {
            Self::Oci => Some(media_type.to_oci()),
            Self::Docker => media_type.to_docker(),
        }
    }
}

macro_rules! media_types {
    ($($variant:ident $text:literal $doc:literal),* $(,)?) => {
        /// A media type: the ones we understand by name, any other as text.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum MediaType {
            $(#[doc = $doc] $variant,)*
            /// Any other media type, kept as it is.
            Other(String),
        }

        impl MediaType {
            /// Returns the text form.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $text,)*
                    Self::Other(text) => text,
                }
            }

            fn parse(text: &str) -> Self {
                match text {
                    $($text => Self::$variant,)*
                    _ => Self::Other(text.to_owned()),
                }
            }
        }
    };
}

media_types! {
    OciManifest "application/vnd.oci.image.manifest.v1+json" "An OCI image manifest.",
    OciIndex "application/vnd.oci.image.index.v1+json" "An OCI image index.",
    OciConfig "application/vnd.oci.image.config.v1+json" "An OCI image config.",
    OciLayer "application/vnd.oci.image.layer.v1.tar" "An OCI layer, uncompressed.",
    OciLayerGzip "application/vnd.oci.image.layer.v1.tar+gzip" "An OCI layer, gzip.",
    OciLayerZstd "application/vnd.oci.image.layer.v1.tar+zstd" "An OCI layer, zstd.",
    OciForeign "application/vnd.oci.image.layer.nondistributable.v1.tar" "A layer that registries must not hold.",
    OciForeignGzip "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip" "The same, gzip.",
    OciForeignZstd "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd" "The same, zstd.",
    OciEmpty "application/vnd.oci.empty.v1+json" "The empty JSON object.",
    DockerManifest "application/vnd.docker.distribution.manifest.v2+json" "A Docker image manifest, schema 2.",
    DockerList "application/vnd.docker.distribution.manifest.list.v2+json" "A Docker manifest list.",
    DockerConfig "application/vnd.docker.container.image.v1+json" "A Docker image config.",
    DockerLayer "application/vnd.docker.image.rootfs.diff.tar" "A Docker layer, uncompressed.",
    DockerLayerGzip "application/vnd.docker.image.rootfs.diff.tar.gzip" "A Docker layer, gzip.",
    DockerForeignGzip "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" "A Docker layer that registries must not hold.",
}

impl MediaType {
    /// Tells whether this is an image manifest, OCI's or Docker's.
    pub fn is_manifest(&self) -> bool {
        matches!(self, Self::OciManifest | Self::DockerManifest)
    }

    /// Tells whether this is an index or a manifest list.
    pub fn is_index(&self) -> bool {
        matches!(self, Self::OciIndex | Self::DockerList)
    }

    /// Returns how a layer of this media type is compressed; `None` if it is no layer we can read.
    pub fn compression(&self) -> Option<Compression> {
        match self {
            Self::OciLayer | Self::OciForeign | Self::DockerLayer => Some(Compression::None),
            Self::OciLayerGzip
            | Self::OciForeignGzip
            | Self::DockerLayerGzip
            | Self::DockerForeignGzip => Some(Compression::Gzip),
            Self::OciLayerZstd | Self::OciForeignZstd => Some(Compression::Zstd),
            _ => None,
        }
    }

    /// Returns the OCI media type for the same bytes (image-spec, media-types.md, "Compatibility Matrix").
    pub fn to_oci(&self) -> Self {
        match self {
            Self::DockerManifest => Self::OciManifest,
            Self::DockerList => Self::OciIndex,
            Self::DockerConfig => Self::OciConfig,
            Self::DockerLayer => Self::OciLayer,
            Self::DockerLayerGzip => Self::OciLayerGzip,
            Self::DockerForeignGzip => Self::OciForeignGzip,
            other => other.clone(),
        }
    }

    /// Returns Docker's media type for the same bytes; `None` where Docker has none: zstd, and foreign layers that are not
    /// gzip.
    pub fn to_docker(&self) -> Option<Self> {
        match self.to_oci() {
            Self::OciManifest => Some(Self::DockerManifest),
            Self::OciIndex => Some(Self::DockerList),
            Self::OciConfig => Some(Self::DockerConfig),
            Self::OciLayer => Some(Self::DockerLayer),
            Self::OciLayerGzip => Some(Self::DockerLayerGzip),
            Self::OciForeignGzip => Some(Self::DockerForeignGzip),
            _ => None,
        }
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for MediaType {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self::parse(text))
    }
}

impl Serialize for MediaType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for MediaType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::parse(&String::deserialize(deserializer)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_has_the_same_but_for_zstd() {
        for oci in [
            MediaType::OciManifest,
            MediaType::OciIndex,
            MediaType::OciConfig,
            MediaType::OciLayer,
            MediaType::OciLayerGzip,
            MediaType::OciForeignGzip,
        ] {
            let docker = Flavour::Docker.of(&oci).unwrap();
            assert_ne!(docker, oci);
            assert_eq!(Flavour::Docker.of(&docker), Some(docker.clone()));
            assert_eq!(Flavour::Oci.of(&docker), Some(oci.clone()));
            assert_eq!(docker.compression(), oci.compression());
        }
        for oci in [MediaType::OciLayerZstd, MediaType::OciForeign] {
            assert_eq!(Flavour::Docker.of(&oci), None);
            assert_eq!(Flavour::Oci.of(&oci), Some(oci.clone()));
        }
    }
}
