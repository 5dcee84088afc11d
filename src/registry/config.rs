//! What the user says about registries: mirrors, TLS, limits. Knows nothing of how they are spoken to.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// What the user says about registries.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// By registry, as `ghcr.io` or `127.0.0.1:5000`.
    pub hosts: BTreeMap<String, HostConfig>,
}

impl Config {
    /// Returns what is said about a registry, with defaults where nothing is said.
    pub fn host(&self, registry: &str) -> HostConfig {
        self.hosts.get(registry).cloned().unwrap_or_default()
    }
}

/// What the user says about one registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostConfig {
    /// Where else to pull from: `HOST[:PORT][/PREFIX]` or a full URL.
    pub mirrors: Vec<String>,
    /// Plain HTTP is allowed, and certificates are not checked.
    pub insecure: bool,
    /// A file of certificate authorities (PEM) that are trusted besides the system's.
    pub ca: Option<PathBuf>,
    /// A file with the client's certificate (PEM).
    pub client_cert: Option<PathBuf>,
    /// A file with the client's key (PEM).
    pub client_key: Option<PathBuf>,
    /// How many transfers run at a time.
    pub concurrency: usize,
    /// The size of the chunks of an upload in bytes; in one piece if not given.
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
            concurrency: 4,
            chunk: None,
        }
    }
}
