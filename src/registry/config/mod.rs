//! `config.toml`: what the user says about registries. Knows nothing of credentials, and opens no connection.
//!
//! ```toml
//! [registry."registry.example:5000"]
//! mirrors = ["mirror.example/prefix"]
//! ca = "ca.pem"
//! ```

mod parse;
mod text;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{canonical, user_file};

/// How large the file may be, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// How many transfers go on with one registry, where nothing is said.
const CONCURRENCY: usize = 4;

/// What the user says about registries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    hosts: BTreeMap<String, HostConfig>,
    /// How long a credential helper may take, where the user says it.
    pub helper_limit: Option<Duration>,
}

/// What the user says about one registry, or what holds where nothing is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostConfig {
    /// Where to pull from before the registry itself: `HOST[:PORT][/PREFIX]`, or that behind `http://` or `https://`.
    pub mirrors: Vec<String>,
    /// Whether plain HTTP is allowed, and certificates are not checked.
    pub insecure: bool,
    /// A file of certificate authorities, in PEM.
    pub ca: Option<PathBuf>,
    /// A file with the certificate by which the client shows who it is, in PEM.
    pub client_cert: Option<PathBuf>,
    /// A file with the private key of that certificate, in PEM.
    pub client_key: Option<PathBuf>,
    /// How many transfers go on at a time, from 1 to 32.
    pub concurrency: usize,
    /// How many bytes of a blob to send at a time, where it is not to be sent at once.
    pub chunk: Option<u64>,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            mirrors: Vec::new(),
            insecure: false,
            ca: None,
            client_cert: None,
            client_key: None,
            concurrency: CONCURRENCY,
            chunk: None,
        }
    }
}

/// A `config.toml` that cannot be used: the first thing that is wrong with it.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no TOML.
    #[error("{}:{line}: {what}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// It has a key that means nothing.
    #[error("{}:{line}: unknown key `{key}` in {table}", path.display())]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The key.
        key: String,
        /// The table that has it.
        table: String,
        /// The keys that the table may have.
        known: Vec<&'static str>,
        /// The key that is most likely meant.
        near: Option<&'static str>,
    },
    /// A value is not what its key needs.
    #[error("{}:{line}: `{key}` of {table}: {found}, and {expected} is expected", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The key.
        key: String,
        /// The table that has it.
        table: String,
        /// What is there.
        found: String,
        /// What should be there.
        expected: &'static str,
    },
}

impl ConfigError {
    /// Returns the code by which the kind of error is known.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "imgdecl::config::unreadable",
            Self::Syntax { .. } => "imgdecl::config::syntax",
            Self::UnknownKey { .. } => "imgdecl::config::unknown_key",
            Self::Value { .. } => "imgdecl::config::value",
        }
    }

    /// Says how to mend it.
    pub fn help(&self) -> Option<String> {
        let help = match self {
            Self::Io { .. } => {
                "make it a regular file of at most 1 MiB, in UTF-8, that you can read"
            }
            Self::Syntax { .. } => "the file is TOML: strings stand in quotes, tables in brackets",
            Self::UnknownKey { near, known, .. } => {
                return Some(match near {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("it may have {}", known.join(", ")),
                });
            }
            Self::Value { key, .. } => match key.as_str() {
                "mirrors" => "write it as mirrors = [\"mirror.example/prefix\"]",
                "insecure" => "write it as insecure = true",
                "ca" | "client_cert" | "client_key" => {
                    "a path is relative to the folder of the file; a certificate and its key need each other"
                }
                "concurrency" => "write it as concurrency = 4",
                "helper_timeout" => "write it as helper_timeout = 60",
                "chunk" => "write it as chunk = \"4MiB\"",
                _ => "write a table as [registry.\"registry.example:5000\"]",
            },
        };
        Some(help.to_owned())
    }
}

impl Config {
    /// Parses the text of the file at `path`, which is only named in messages and the start of relative paths.
    ///
    /// # Errors
    /// When it is no TOML, has unknown keys, or values of no use.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        parse::parse(text, path)
    }

    /// Reads the file. One that is not there says nothing.
    ///
    /// # Errors
    /// When it is there and cannot be read, or as [`Config::parse`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let fail = |source| ConfigError::Io {
            path: path.to_owned(),
            source,
        };
        let bytes = match user_file::read(path, MAX_FILE) {
            Err(error) if user_file::is_missing(&error) => return Ok(Self::default()),
            other => other.map_err(fail)?,
        };
        let text = String::from_utf8(bytes)
            .map_err(|_| fail(io::Error::new(io::ErrorKind::InvalidData, "it is no UTF-8")))?;
        Self::parse(&text, path)
    }

    /// Returns what holds for a registry, named `HOST[:PORT]`. Docker Hub's names are one.
    pub fn host(&self, registry: &str) -> HostConfig {
        self.hosts
            .get(&canonical(registry))
            .cloned()
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, Path::new("/conf/config.toml"))
    }

    #[test]
    fn names_of_docker_hub_are_one() {
        for name in ["docker.io", "index.docker.io", "registry-1.docker.io"] {
            let text = format!("[registry.\"{name}\"]\nmirrors = [\"mirror.example\"]\n");
            let config = parse(&text).unwrap();
            for asked in ["docker.io", "index.docker.io", "registry-1.docker.io"] {
                assert_eq!(config.host(asked).mirrors, ["mirror.example"], "{name}");
            }
        }
        let text = "[registry.\"docker.io\"]\n\n[registry.\"index.docker.io\"]\ninsecure = false";
        let message = parse(text).unwrap_err().to_string();
        assert_eq!(
            message,
            "/conf/config.toml:3: `registry` of [registry.\"index.docker.io\"]: `index.docker.io` is another name of \
             one that is there, and one table for each registry is expected"
        );
    }

    #[test]
    fn a_file_that_is_not_there_says_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        assert_eq!(Config::load(&path).unwrap(), Config::default());
        std::fs::write(&path, "[registry.\"a.example\"]\nca = \"ca.pem\"\n").unwrap();
        let config = Config::load(&path).unwrap();
        assert_eq!(
            config.host("a.example").ca,
            Some(folder.path().join("ca.pem"))
        );
        std::fs::write(&path, b"\xff").unwrap();
        assert_eq!(
            Config::load(&path).unwrap_err().code(),
            "imgdecl::config::unreadable"
        );
        let error = Config::load(folder.path()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("cannot read {}", folder.path().display())
        );
    }

    /// The blocks of the document for users are what they seem to be.
    #[test]
    fn blocks_of_the_document_are_right() {
        let text = include_str!("../../../docs/registries.md");
        let mut all = String::new();
        let mut count = 0;
        for block in text.split("```toml config\n").skip(1) {
            let block = block.split("```").next().unwrap();
            let error = parse(block).err().map(|it| it.to_string());
            assert_eq!(error, None, "{block}");
            all.push_str(block);
            count += 1;
        }
        assert!(count >= 3, "only {count} blocks");
        assert!(all.contains("helper_timeout = "));
        for key in parse::KEYS {
            assert!(all.contains(&format!("{key} = ")), "{key} has no example");
            assert!(text.contains(&format!("| `{key}` |")), "{key} is not told");
        }
    }
}
