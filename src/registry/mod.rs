//! The registry client: auth, pull, push, mirrors (OCI distribution spec 1.1, and what real registries do).
//!
//! From below: [`wire`], of `net`, makes one exchange with one host. [`http`] makes a request of it: credentials for the own host alone, redirects, retries. [`pull`], [`push`], [`tags`]
//! and [`referrers`] ask registries for what they are named after; [`proof`] says which answers count. Nothing that comes from a network is used before its
//! size and digest are checked. Knows nothing of rules, of the environment, or of how things are shown.

mod blob;
mod challenge;
mod config;
mod credentials;
mod document;
mod download;
mod error;
mod error_body;
mod graph_port;
mod host;
mod http;
mod image;
mod media_type;
mod presence;
mod pull;
mod push;
mod referrers;
mod repair;
mod reply;
mod scope;
mod source;
mod tags;
#[cfg(test)]
mod testing;
mod token;
mod token_request;
mod upload;
mod upload_body;
mod upload_session;
mod user_file;

pub use crate::net::{Direction, Ended, Limits, Monitor, Proxies, Transfer};
pub use config::Config;
pub use credentials::{Credentials, Places};
pub(crate) use download::Verified;
pub use error::RegistryError;
pub use image::{Blobs, PushImage, PushManifest, Pushed};
pub(crate) use referrers::Attach;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::net::{backoff, fault, monitor, parallel, request, tls, url, wire};
use host::{Host, Scheme};

/// What a client is made of.
pub struct Setup {
    /// What the user says about registries.
    pub config: Config,
    /// Where credentials are looked for.
    pub credentials: Credentials,
    /// The proxies.
    pub proxies: Proxies,
    /// What receives progress.
    pub monitor: Arc<dyn Monitor>,
    /// Time limits and tries.
    pub limits: Limits,
}

/// Speaks to registries. Its calls block, from any number of threads; each ends soon after the monitor says stop.
pub struct Client {
    config: Config,
    credentials: Credentials,
    monitor: Arc<dyn Monitor>,
    limits: Limits,
    wire: wire::Wire,
    told: http::Told,
    /// Held while a list of referrers is written.
    lists: Mutex<()>,
    hosts: Mutex<BTreeMap<(String, &'static str), Arc<Host>>>,
}

impl Client {
    /// Makes a client. Opens nothing and reads nothing yet.
    pub fn new(setup: Setup) -> Self {
        Self {
            wire: wire::Wire::new(
                setup.proxies,
                setup.limits.clone(),
                Arc::clone(&setup.monitor),
            ),
            config: setup.config,
            credentials: setup.credentials,
            monitor: setup.monitor,
            limits: setup.limits,
            told: http::Told::default(),
            lists: Mutex::default(),
            hosts: Mutex::default(),
        }
    }

    /// Returns what is remembered of a host.
    fn host(&self, name: &str) -> Arc<Host> {
        self.host_by(name, None)
    }

    /// Returns what is remembered of a host that is spoken to by one scheme.
    fn host_by(&self, name: &str, forced: Option<Scheme>) -> Arc<Host> {
        let name = canonical(name);
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (name.clone(), forced.map_or("", Scheme::word));
        let host = hosts
            .entry(key)
            .or_insert_with(|| Arc::new(Host::new(&name, self.config.host(&name), forced)));
        Arc::clone(host)
    }
}

/// Returns the name by which a registry is known here: in lower case, and Docker Hub's names as one.
fn canonical(registry: &str) -> String {
    let lower = registry.to_ascii_lowercase();
    match lower.as_str() {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        _ => lower,
    }
}
