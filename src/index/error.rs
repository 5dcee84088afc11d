//! What can go wrong with indexes, in words of whoever reads it. No text holds a password, nor the query of a URL.

use crate::graph::{ActionError, Failure, PackageError};
use crate::net::Fault;
use crate::oci::Digest;
use crate::python::wheel::WheelError;
use crate::store::StoreError;

/// Why an index could not be asked, or what is wrong with what it gave.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// An index refuses.
    #[error("{asked}: it answered {status}{}{}", word(*status), elsewhere(asked, host))]
    Refused {
        /// What was asked.
        asked: Asked,
        /// The host that answered.
        host: String,
        /// The status.
        status: u16,
        /// Whether credentials were sent.
        had_login: bool,
    },
    /// There was no answer.
    #[error("{asked}: {fault}{}", tried(*tries, *waited))]
    Unreachable {
        /// What was asked.
        asked: Asked,
        /// Why it came to nothing.
        fault: Fault,
        /// How often it was tried.
        tries: u32,
        /// For how many seconds was waited in between.
        waited: u64,
    },
    /// It leads to where we do not go.
    #[error("{asked}: it leads to {to}, {why}")]
    Unsafe {
        /// What was asked.
        asked: Asked,
        /// Where it leads.
        to: String,
        /// Why we do not go there.
        why: &'static str,
    },
    /// What it gave cannot be right.
    #[error("{asked}: {why}")]
    Content {
        /// What was asked.
        asked: Asked,
        /// What is wrong.
        why: String,
    },
    /// A wheel cannot be read.
    #[error(transparent)]
    Wheel(#[from] WheelError),
    /// A file is not what an index may list.
    #[error("{file}: {why}")]
    Malformed {
        /// The file.
        file: String,
        /// What is wrong.
        why: String,
    },
    /// No index has the package.
    #[error("no index has a package `{project}`: {} asked", were(indexes))]
    NotFound {
        /// The name.
        project: String,
        /// The names of those that were asked.
        indexes: Vec<String>,
    },
    /// An index has the package, and not this file of it.
    #[error("the index `{index}` has no file `{file}`")]
    NoFile {
        /// The name of the index.
        index: String,
        /// The file.
        file: String,
    },
    /// An index has another file of this name than the one that was locked.
    #[error("the index `{index}` has `{file}` with the digest {found} instead of {expected}")]
    OtherFile {
        /// The name of the index.
        index: String,
        /// The file.
        file: String,
        /// The digest that was locked.
        expected: Digest,
        /// The digest that the index says.
        found: Digest,
    },
    /// It is not known which indexes there are.
    #[error("{}", .0.message)]
    Sources(ActionError),
    /// The cache cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The user stopped it.
    #[error("stopped")]
    Stopped,
}

/// What was asked of which index.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asked {
    /// The name of the index; empty where a lock or a requirement names the place.
    pub index: String,
    /// What, as "the page of `requests`".
    pub what: String,
    /// The host.
    pub host: String,
}

impl std::fmt::Display for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.index.is_empty() {
            true => write!(f, "{} of {}", self.what, self.host),
            false => write!(f, "{} in the index `{}`", self.what, self.index),
        }
    }
}

fn were(indexes: &[String]) -> String {
    match indexes {
        [] => "none was".to_owned(),
        [one] => format!("`{one}` was"),
        all => format!("`{}` were", all.join("`, `")),
    }
}

/// Names the host that answered, where it is not the one that was asked.
fn elsewhere(asked: &Asked, host: &str) -> String {
    match asked.host == host {
        true => String::new(),
        false => format!(", at {host}"),
    }
}

fn tried(tries: u32, waited: u64) -> String {
    match tries {
        0 | 1 => String::new(),
        tries => format!(", in {tries} tries over {waited} s"),
    }
}

/// Names the statuses that people meet.
fn word(status: u16) -> &'static str {
    match status {
        400 => " (bad request)",
        401 => " (unauthorised)",
        403 => " (forbidden)",
        404 => " (not found)",
        407 => " (the proxy wants credentials)",
        429 => " (too many requests)",
        500 => " (internal error)",
        502 => " (bad gateway)",
        503 => " (unavailable)",
        504 => " (gateway timeout)",
        _ => "",
    }
}

impl IndexError {
    /// Returns the name of the kind of error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused { status: 401, .. } => "imgdecl::index::unauthorised",
            Self::Refused { status: 403, .. } => "imgdecl::index::denied",
            Self::Refused {
                status: 429 | 500..,
                ..
            } => "imgdecl::index::unavailable",
            Self::Refused { .. } => "imgdecl::index::refused",
            Self::Unreachable { .. } => "imgdecl::index::transport",
            Self::Unsafe { .. } => "imgdecl::index::unsafe",
            Self::Content { .. } | Self::Malformed { .. } | Self::OtherFile { .. } => {
                "imgdecl::index::content"
            }
            Self::NotFound { .. } | Self::NoFile { .. } => "imgdecl::index::not_found",
            Self::Wheel(error) => error.code(),
            Self::Sources(error) => error.code,
            Self::Store(error) => error.code(),
            Self::Stopped => "imgdecl::stopped",
        }
    }

    /// Says how to mend it.
    pub fn help(&self) -> Option<String> {
        let text = match self {
            Self::Refused {
                status: 401 | 403,
                had_login: true,
                asked,
                ..
            } => format!(
                "check the user and the password for {}, and what they may read. No other index is asked instead: a package of the same name there may be somebody else's",
                asked.host
            ),
            Self::Refused {
                status: 401 | 403,
                asked,
                ..
            } => format!(
                "give credentials for {}: in the URL of the index, in .netrc, or in UV_INDEX_NAME_USERNAME and UV_INDEX_NAME_PASSWORD. No other index is asked instead: a package of the same name there may be somebody else's",
                asked.host
            ),
            Self::Refused {
                status: 429 | 500.., ..
            } => "try again later. No other index is asked instead: a package of the same name there may be somebody else's".to_owned(),
            Self::Refused { .. } => "check the URL of the index".to_owned(),
            Self::Unreachable { fault, asked, .. } => match fault {
                Fault::Name => format!("check the name {}, and the network", asked.host),
                Fault::Tls(_) => "name the file of your certificate authorities in SSL_CERT_FILE".to_owned(),
                Fault::Proxy => "check HTTP_PROXY, HTTPS_PROXY and NO_PROXY".to_owned(),
                _ => format!("check the network, and whether {} is up", asked.host),
            },
            Self::Unsafe { .. } => "use the URL of the index at that host, if it is right".to_owned(),
            Self::Content { .. } => "check the URL of the index; if it is right, the index or a proxy before it is damaged".to_owned(),
            Self::Malformed { .. } => "use another version of the package".to_owned(),
            Self::Wheel(error) => error.help(),
            Self::NotFound { .. } => "check the name, and which indexes are set".to_owned(),
            Self::OtherFile { .. } => "find out why it was replaced; if that is right, run `imgdecl lock`".to_owned(),
            Self::NoFile { .. } => "run `imgdecl lock`: the file is gone from the index".to_owned(),
            Self::Sources(error) => return error.help.clone(),
            Self::Store(_) | Self::Stopped => return None,
        };
        Some(text)
    }
}

impl From<IndexError> for ActionError {
    fn from(error: IndexError) -> Self {
        match error {
            IndexError::Stopped => Self::stopped(),
            IndexError::Store(error) => Self::from(&error),
            IndexError::Sources(error) => error,
            error => Self {
                failure: Failure::Remote,
                help: error.help(),
                ..Self::of(error.code(), &error)
            },
        }
    }
}

impl From<IndexError> for PackageError {
    fn from(error: IndexError) -> Self {
        match error {
            IndexError::NotFound { indexes, .. } => Self::NotFound { asked: indexes },
            IndexError::Malformed { .. } | IndexError::Wheel(_) => Self::Malformed {
                code: error.code(),
                why: error.to_string(),
                help: error.help().unwrap_or_default(),
            },
            error => Self::Failed(error.into()),
        }
    }
}
