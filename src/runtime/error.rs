//! What goes wrong when an image is applied.

use std::io;
use std::path::PathBuf;

use crate::oci::{ConfigError, DiffId, Digest};
use crate::source::SourceError;

/// An image that was not applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    /// The folder holds something.
    #[error("{} exists, and is no empty folder", .0.display())]
    Exists(PathBuf),
    /// The folder cannot be put in its place.
    #[error("{} is no place for a new folder: {why}", path.display())]
    Place {
        /// The place.
        path: PathBuf,
        /// Why not.
        why: &'static str,
    },
    /// Another process unpacks there.
    #[error("another process unpacks into {}", .0.display())]
    Busy(PathBuf),
    /// A file cannot be written or read.
    #[error("cannot {what}")]
    Io {
        /// What was tried, on what.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// An entry of a layer that no folder can or should hold.
    #[error("{layer} has the entry `{entry}`, {why}")]
    Entry {
        /// The layer.
        layer: String,
        /// The path of the entry, escaped.
        entry: String,
        /// What is wrong with it.
        why: String,
    },
    /// A layer that cannot be read.
    #[error("{layer} is damaged, or no tar archive")]
    Damaged {
        /// The layer.
        layer: String,
        /// Why.
        source: io::Error,
    },
    /// A blob has other bytes than its descriptor says.
    #[error(
        "{layer} is damaged: it has the digest {found} and {size} bytes instead of {expected} and {expected_size}"
    )]
    Digest {
        /// The layer.
        layer: String,
        /// The digest that its descriptor says.
        expected: Digest,
        /// The size that its descriptor says.
        expected_size: u64,
        /// The digest of its bytes.
        found: Digest,
        /// How many bytes were read.
        size: u64,
    },
    /// A layer has another tar than the config says.
    #[error("{layer} has the diff_id {found}, and the image's config says {expected}")]
    DiffId {
        /// The layer.
        layer: String,
        /// What the config says.
        expected: DiffId,
        /// What it is.
        found: DiffId,
    },
    /// The media type is none of a layer.
    #[error("{layer} has the media type {media_type}, which is no layer that can be read")]
    MediaType {
        /// The layer.
        layer: String,
        /// Its media type.
        media_type: String,
    },
    /// The manifest and the config do not fit.
    #[error("the image has {layers} layers, and its config has {diff_ids} diff_ids")]
    Count {
        /// How many the manifest has.
        layers: usize,
        /// How many the config has.
        diff_ids: usize,
    },
    /// More than is allowed.
    #[error("{layer} {what}: more than the limit of {limit}")]
    Limit {
        /// The layer.
        layer: String,
        /// What it has too much of.
        what: &'static str,
        /// The limit, with its unit.
        limit: String,
        /// The option that sets it.
        option: &'static str,
    },
    /// A layer's bytes cannot be had.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The config is of no use.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The user stopped it.
    #[error("stopped")]
    Stopped,
    /// This system has no containers.
    #[error("images can be unpacked on Linux alone")]
    #[cfg_attr(target_os = "linux", expect(dead_code, reason = "of other systems"))]
    Unsupported,
}

impl ApplyError {
    /// Returns what mends it, where something does.
    pub(crate) fn help(&self) -> Option<String> {
        Some(match self {
            Self::Exists(_) => "name a folder that does not exist, or an empty one".to_owned(),
            Self::Busy(_) => "wait for it, or name another folder".to_owned(),
            Self::Entry { .. } => {
                "nothing was kept; if you trust the image, tell its maker what this says".to_owned()
            }
            Self::Damaged { .. } | Self::Digest { .. } | Self::DiffId { .. } => {
                "get or build the image again: nothing of it was kept".to_owned()
            }
            Self::Limit { option, .. } if !option.is_empty() => {
                format!("if you trust the image, set a higher limit with `{option}`")
            }
            Self::Unsupported => "use a Linux machine, or a virtual one".to_owned(),
            _ => return None,
        })
    }

    /// Makes the error of a file that cannot be written or read.
    #[cfg(target_os = "linux")]
    pub(super) fn io(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Io {
            what: what.into(),
            source: source.into(),
        }
    }
}
