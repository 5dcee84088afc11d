//! A host that we speak to: how it is spoken to, and what is remembered of it. Knows no request.

use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};

use reqwest::Url;

use super::config::HostConfig;
use super::parallel::Semaphore;
use super::tls::Trust;
use super::token::Tokens;
use super::url;

/// The API host of Docker Hub.
const HUB: &str = "registry-1.docker.io";

/// A registry, mirror, token server or store of blobs.
pub(super) struct Host {
    /// The name that people use, as `docker.io`; credentials and settings go by it.
    pub(super) name: String,
    /// The host and port that is connected to.
    pub(super) authority: String,
    pub(super) config: HostConfig,
    pub(super) trust: Trust,
    pub(super) tokens: Tokens,
    pub(super) permits: Semaphore,
    /// The host refused a blob in one piece.
    pub(super) wants_chunks: AtomicBool,
    /// The scheme that the user wrote.
    forced: Option<Scheme>,
    /// The scheme that was found to work.
    settled: Mutex<Option<Scheme>>,
}

/// How a host is spoken to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

impl Host {
    pub(super) fn new(name: &str, config: HostConfig, forced: Option<Scheme>) -> Self {
        Self {
            name: name.to_owned(),
            authority: if name == "docker.io" { HUB } else { name }.to_owned(),
            trust: Trust {
                is_blind: config.insecure,
                ca: config.ca.clone(),
                client_cert: config.client_cert.clone(),
                client_key: config.client_key.clone(),
            },
            tokens: Tokens::default(),
            permits: Semaphore::new(config.concurrency),
            config,
            wants_chunks: AtomicBool::new(false),
            forced,
            settled: Mutex::new(None),
        }
    }

    /// Returns the schemes to try, in order. Plain HTTP is for this machine, and where the user allows it.
    pub(super) fn schemes(&self) -> Vec<Scheme> {
        let settled = *self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(scheme) = settled.or(self.forced) {
            return vec![scheme];
        }
        let has_tls = self.config.ca.is_some() || self.config.client_cert.is_some();
        if url::is_loopback(&self.authority) && !has_tls {
            vec![Scheme::Http, Scheme::Https]
        } else if self.config.insecure {
            vec![Scheme::Https, Scheme::Http]
        } else {
            vec![Scheme::Https]
        }
    }

    /// Remembers the scheme that works.
    pub(super) fn settle(&self, scheme: Scheme) {
        *self.settled.lock().unwrap_or_else(PoisonError::into_inner) = Some(scheme);
    }

    /// Tells whether a URL leads to this host, over a connection that may carry its credentials.
    pub(super) fn owns(&self, url: &Url) -> bool {
        let may_be_plain = self.config.insecure || url::is_loopback(&self.authority);
        (url.scheme() == "https" || may_be_plain)
            && Url::parse(&format!("{}://{}", url.scheme(), self.authority))
                .is_ok_and(|own| url::is_same(&own, url))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_this_machine_and_on_demand() {
        let schemes = |name: &str, insecure: bool, ca: bool| {
            let config = HostConfig {
                insecure,
                ca: ca.then(|| "ca.pem".into()),
                ..HostConfig::default()
            };
            Host::new(name, config, None).schemes()
        };
        use Scheme::{Http, Https};
        assert_eq!(schemes("r.example", false, false), [Https]);
        assert_eq!(schemes("10.0.0.1:5000", false, false), [Https]);
        assert_eq!(schemes("r.example", true, false), [Https, Http]);
        assert_eq!(schemes("127.0.0.1:5000", false, false), [Http, Https]);
        assert_eq!(schemes("localhost:5000", false, true), [Https]);
        let host = Host::new("127.0.0.1:5000", HostConfig::default(), None);
        host.settle(Https);
        assert_eq!(host.schemes(), [Https]);
        assert_eq!(
            Host::new("docker.io", HostConfig::default(), None).authority,
            HUB
        );
    }

    #[test]
    fn credentials_are_for_the_own_host() {
        let owns = |name: &str, url: &str| {
            Host::new(name, HostConfig::default(), None).owns(&url.parse().unwrap())
        };
        assert!(owns("r.example", "https://r.example/v2/"));
        assert!(owns("r.example:443", "https://r.example/v2/"));
        assert!(owns("docker.io", "https://registry-1.docker.io/v2/"));
        assert!(owns("127.0.0.1:5000", "http://127.0.0.1:5000/v2/"));
        assert!(!owns("r.example", "http://r.example/v2/"));
        assert!(!owns("r.example", "https://r.example:444/v2/"));
        assert!(!owns("r.example", "https://s.r.example/v2/"));
        assert!(!owns("127.0.0.1:5000", "http://127.0.0.1:5001/v2/"));
    }
}
