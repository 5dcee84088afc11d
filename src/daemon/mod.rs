//! Docker and podman on this machine: their sockets, and loading image archives into them by the Docker Engine API, which
//! podman speaks too.
//!
//! [`address`] says where they may be, [`Daemon`] is one that answers. It takes the bytes of an archive, and knows nothing
//! of how images are made, of the environment, or of how things are shown.

mod address;
mod context;
mod error;
mod images;

pub(crate) use address::Settings;
pub(crate) use error::DaemonError;
pub(crate) use images::{Held, Sent};

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Url};
use serde::Deserialize;
use serde_json::Value;

use crate::net::monitor::Going;
use crate::net::wire::{Body, Call, Wire};
use crate::net::{Direction, Ended, Fault, Limits, Monitor, Proxies, Transfer};
use crate::oci::{Platform, null_is_default};
use crate::shown;
use address::{Address, Candidate};

/// How long a daemon may be silent before it says who it is.
const GREETING: Duration = Duration::from_secs(10);
/// How often a daemon is greeted at most that ends the connection. In TLS 1.3 it looks at our certificate when we speak
/// already: what it says of that may be lost on the way.
const GREETINGS: usize = 5;
/// How long it may be silent while it unpacks.
const UNPACKING: Duration = Duration::from_secs(600);
/// The longest answer that is read, in bytes.
const ANSWER: u64 = 4 << 20;

/// A daemon that answers.
pub(crate) struct Daemon {
    address: Address,
    monitor: Arc<dyn Monitor>,
    /// What it calls itself, with its version.
    name: String,
    platform: Platform,
    /// The first number of Docker's version; none of podman.
    docker: Option<u32>,
    is_podman: bool,
}

/// What `GET /version` answers, as far as it matters here.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Version {
    version: String,
    os: String,
    arch: String,
    #[serde(default, deserialize_with = "null_is_default")]
    components: Vec<Component>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Component {
    #[serde(default, deserialize_with = "null_is_default")]
    name: String,
}

/// A complete answer.
struct Answered {
    status: u16,
    body: Vec<u8>,
}

impl Daemon {
    /// Finds the daemon that the settings name, or the first one that answers.
    ///
    /// # Errors
    /// When none does; says what was tried.
    pub(crate) fn find(
        settings: &Settings,
        monitor: &Arc<dyn Monitor>,
    ) -> Result<Self, DaemonError> {
        let candidates = settings.candidates()?;
        let mut tried = Vec::new();
        for Candidate { address, named_by } in candidates {
            match Self::greet(address.clone(), monitor) {
                Ok(daemon) => return Ok(daemon),
                Err(DaemonError::Unreachable { place, fault, .. }) if named_by.is_none() => {
                    tried.push((place, fault));
                }
                Err(DaemonError::Unreachable { place, fault, .. }) => {
                    return Err(DaemonError::Unreachable {
                        place,
                        fault,
                        named_by,
                    });
                }
                Err(error) => return Err(error),
            }
        }
        // One that is there is more to the point than those that are not.
        let denied = tried
            .iter()
            .find(|(_, fault)| matches!(fault, Fault::Denied));
        match denied {
            Some((place, fault)) => Err(DaemonError::Unreachable {
                place: place.clone(),
                fault: fault.clone(),
                named_by: None,
            }),
            None => Err(DaemonError::Nowhere { tried }),
        }
    }

    fn greet(address: Address, monitor: &Arc<dyn Monitor>) -> Result<Self, DaemonError> {
        let mut daemon = Self {
            name: address.to_string(),
            platform: Platform::new("linux", "amd64"),
            docker: None,
            is_podman: false,
            monitor: Arc::clone(monitor),
            address,
        };
        let wire = daemon.wire(GREETING);
        let mut left = GREETINGS;
        let answer = loop {
            left -= 1;
            match daemon.ask(&wire, Method::GET, "version", Body::None) {
                Err(DaemonError::Unreachable {
                    fault: Fault::Cut | Fault::Other(_),
                    ..
                }) if left > 0 && daemon.address.has_tls() => {}
                answer => break answer?,
            }
        };
        if answer.status != 200 {
            return Err(match is_for_tls(&answer) {
                true => DaemonError::Encrypted {
                    place: daemon.address.to_string(),
                },
                false => daemon.refusal(&answer),
            });
        }
        let version: Version = serde_json::from_slice(&answer.body).map_err(|_| {
            let why = "it does not say its version as Docker and podman do".to_owned();
            daemon.stranger(why)
        })?;
        let is_podman = version
            .components
            .iter()
            .any(|component| component.name.to_lowercase().contains("podman"));
        let kind = if is_podman { "podman" } else { "Docker" };
        daemon.name = format!("{kind} {}", printable(&version.version));
        daemon.platform = Platform::new(&version.os, &version.arch);
        let major = version.version.split('.').next();
        daemon.is_podman = is_podman;
        daemon.docker = major
            .filter(|_| !is_podman)
            .and_then(|major| major.parse().ok());
        Ok(daemon)
    }

    /// Returns what it calls itself, as `Docker 28.5.2`.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the platform that it runs images for.
    pub(crate) fn platform(&self) -> &Platform {
        &self.platform
    }

    /// Tells whether it reads layers in zstd: Docker does so since 23.
    pub(crate) fn reads_zstd(&self) -> bool {
        self.docker.is_none_or(|major| major >= 23)
    }

    /// Loads an archive of `size` bytes. `what` is what people call it.
    ///
    /// # Errors
    /// When the daemon does not take it, or cannot be reached any more.
    pub(crate) fn load(
        &self,
        reader: &mut dyn Read,
        size: u64,
        what: &str,
    ) -> Result<(), DaemonError> {
        let going = Going::start(
            &*self.monitor,
            &Transfer {
                direction: Direction::Load,
                what,
                repository: &self.name,
                size,
            },
        );
        let body = Body::Stream {
            reader,
            size,
            transfer: going.number(),
        };
        // Without `quiet` it may answer while it still reads.
        let wire = self.wire(UNPACKING);
        let answer = self.ask(&wire, Method::POST, "images/load?quiet=1", body)?;
        if answer.status != 200 {
            return Err(self.refusal(&answer));
        }
        // Once it has begun to answer, it can tell of an error in the body alone.
        let said = serde_json::Deserializer::from_slice(&answer.body).into_iter::<Value>();
        for value in said {
            let value = value.map_err(|error| {
                self.stranger(format!("its answer to a load is no JSON: {error}"))
            })?;
            if let Some(message) = message(&value, &["/errorDetail/message", "/error"]) {
                return Err(DaemonError::Rejected {
                    daemon: self.name.clone(),
                    message,
                });
            }
        }
        going.end(Ended::Done);
        Ok(())
    }

    fn wire(&self, idle: Duration) -> Wire {
        let limits = Limits {
            idle,
            ..Limits::default()
        };
        let monitor = Arc::clone(&self.monitor);
        match &self.address {
            Address::Socket(path) => Wire::local(path.clone(), limits, monitor),
            Address::Host { .. } => Wire::new(Proxies::default(), limits, monitor),
        }
    }

    fn ask<'a>(
        &'a self,
        wire: &Wire,
        method: Method,
        path: &str,
        body: Body<'a>,
    ) -> Result<Answered, DaemonError> {
        let fail = |fault| match fault {
            Fault::Stopped => DaemonError::Stopped,
            Fault::Local(error) => DaemonError::Local(error),
            fault => DaemonError::Unreachable {
                place: self.address.to_string(),
                fault,
                named_by: None,
            },
        };
        let (base, trust) = self.address.base();
        let url: Url = format!("{base}/{path}")
            .parse()
            .map_err(|_| fail(Fault::Setup(format!("{base}/{path} is no URL"))))?;
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if matches!(body, Body::Stream { .. }) {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-tar"));
        }
        let call = Call {
            method,
            url,
            headers,
            body,
            trust,
        };
        let mut answer = wire.exchange(call).map_err(fail)?;
        let body = answer.read(ANSWER).map_err(fail)?;
        if body.len() as u64 > ANSWER {
            return Err(self.stranger(format!("it answers more than {ANSWER} bytes")));
        }
        Ok(Answered {
            status: answer.status.as_u16(),
            body,
        })
    }

    /// Makes the error of an answer that says no.
    fn refusal(&self, answer: &Answered) -> DaemonError {
        let value: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        match message(&value, &["/message", "/cause"]) {
            Some(message) => DaemonError::Rejected {
                daemon: self.name.clone(),
                message,
            },
            None => self.stranger(format!("it answers {}", answer.status)),
        }
    }

    /// Makes the error of an answer that no Docker and no podman gives.
    fn stranger(&self, why: String) -> DaemonError {
        DaemonError::Stranger {
            place: self.address.to_string(),
            why,
        }
    }
}

/// Tells whether what answers is a daemon that wants TLS: Go's servers say so in plain text.
fn is_for_tls(answer: &Answered) -> bool {
    answer.status == 400 && String::from_utf8_lossy(&answer.body).contains("to an HTTPS server")
}

/// Finds a text in an answer: the first of some places that has one.
fn message(value: &Value, places: &[&str]) -> Option<String> {
    let texts = places.iter().filter_map(|place| value.pointer(place));
    let mut texts = texts.filter_map(Value::as_str);
    texts.find(|text| !text.trim().is_empty()).map(printable)
}

/// Returns a text of a daemon as it may be shown: one line, not too long.
fn printable(text: &str) -> String {
    shown::one_line(text, 2000)
}

#[cfg(test)]
mod tests;
