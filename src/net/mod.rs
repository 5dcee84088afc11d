//! Exchanges with hosts: connections, TLS, proxies, time limits, tries, progress. What registries and package indexes
//! have in common.
//!
//! [`wire`] makes one exchange with one host; with [`engine`] and [`names`] it is all that knows an asynchronous library. Knows nothing
//! of what is asked, of credentials, of the environment, or of how things are shown.

pub(crate) mod backoff;
mod dns;
pub(crate) mod fault;
mod io_thread;
mod low_speed;
pub(crate) mod monitor;
pub(crate) mod parallel;
mod proxy;
pub(crate) mod request;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod tls;
pub(crate) mod url;
pub(crate) mod wire;

pub(crate) use fault::{Fault, Tls};
pub use monitor::{Direction, Ended, Monitor, Transfer};
pub use proxy::Proxies;

use std::time::Duration;

/// Time limits and tries.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How long a connection may take to come about.
    pub connect: Duration,
    /// How long no byte may move, either way.
    pub idle: Duration,
    /// How often a request is tried.
    pub tries: u32,
    /// The first wait between two tries; it doubles each time.
    pub backoff: Duration,
    /// The longest wait that a registry may ask for.
    pub retry_after: Duration,
    /// The longest time of waiting between the tries of one request, in all.
    pub total: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            tries: 5,
            backoff: Duration::from_millis(500),
            retry_after: Duration::from_secs(60),
            total: Duration::from_secs(180),
        }
    }
}
