//! What goes wrong when a changed folder is read.

use std::io;

/// A changed folder that was not read.
#[derive(Debug, thiserror::Error)]
pub enum ChangedError {
    /// Something cannot be read.
    #[error("cannot read {what}")]
    Io {
        /// What it is.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// The contents cannot be kept.
    #[error("cannot keep what files hold")]
    Contents(#[source] io::Error),
    /// Something that no layer can hold.
    #[error("/{path} {why}")]
    Entry {
        /// Its path in the folder, escaped.
        path: String,
        /// What is wrong with it, as the end of a sentence.
        why: String,
        /// What mends it.
        help: &'static str,
    },
    /// Something that changes while it is read.
    #[error("/{0} was changed while it was read")]
    Moved(String),
    /// Something is mounted in the folder.
    #[error("something is mounted at /{0}")]
    Mounted(String),
    /// More than is allowed.
    #[error("what changed {what}: more than the limit of {limit}")]
    Limit {
        /// What it has too much of.
        what: &'static str,
        /// The limit, with its unit.
        limit: String,
    },
    /// Removals cannot be seen.
    #[error("only root of the host sees what was removed in this overlay")]
    Hidden,
    /// The user stopped it.
    #[error("stopped")]
    Stopped,
}

impl ChangedError {
    /// Returns what mends it, where something does.
    pub fn help(&self) -> Option<&'static str> {
        Some(match self {
            Self::Entry { help, .. } => help,
            Self::Moved(_) => "let all processes end that write there, and run it again",
            Self::Mounted(_) => "unmount it before the process ends",
            Self::Limit { .. } => "let it write less, or remove what nobody needs at its end",
            Self::Hidden => "run it as root, or mount the overlay with `userxattr`",
            Self::Io { .. } | Self::Contents(_) | Self::Stopped => return None,
        })
    }

    /// Makes the error of something that cannot be read.
    pub(super) fn io(path: &[u8], source: impl Into<io::Error>) -> Self {
        Self::Io {
            what: format!("/{}", crate::tar::shown(path)),
            source: source.into(),
        }
    }

    /// Makes the error of something that no layer can hold.
    pub(super) fn entry(path: &[u8], why: impl Into<String>, help: &'static str) -> Self {
        Self::Entry {
            path: crate::tar::shown(path),
            why: why.into(),
            help,
        }
    }
}
