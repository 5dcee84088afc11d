//! What can go wrong with a daemon, and how to mend it.

use std::io;
use std::sync::Arc;

use crate::net::{Fault, Tls};

/// Why an image is in no daemon.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DaemonError {
    /// A variable or a context names no address that can be used.
    #[error("{what} is `{value}`: {why}")]
    Address {
        /// The variable or the context.
        what: String,
        /// Its value.
        value: String,
        /// What is wrong with it.
        why: String,
    },
    /// A context is none.
    #[error("{what} cannot be used: {why}")]
    Context {
        /// The context.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// There is none where they usually are.
    #[error("no Docker and no podman answers; tried {}", list(tried))]
    Nowhere {
        /// Where one was looked for, and what was there.
        tried: Vec<(String, Fault)>,
    },
    /// It does not answer.
    #[error("cannot reach Docker or podman at {place}{}: {fault}", named(named_by))]
    Unreachable {
        /// The socket or host.
        place: String,
        /// Why.
        fault: Fault,
        /// The variable or context that names it.
        named_by: Option<String>,
    },
    /// What answers is no Docker and no podman.
    #[error("what answers at {place} is no Docker and no podman: {why}")]
    Stranger {
        /// The socket or host.
        place: String,
        /// How that is known.
        why: String,
    },
    /// It says no.
    #[error("{daemon} says: {message}")]
    Rejected {
        /// The daemon.
        daemon: String,
        /// What it says.
        message: String,
    },
    /// It speaks TLS, and was asked without.
    #[error("Docker at {place} speaks TLS alone")]
    Encrypted {
        /// The host.
        place: String,
    },
    /// It took an image, and has another one under its name.
    #[error("{daemon} took the images, but its {name} is another one: {why}")]
    Differs {
        /// The daemon.
        daemon: String,
        /// The image's name.
        name: String,
        /// How that is known.
        why: String,
    },
    /// What was to be sent cannot be read.
    #[error("cannot read what is to be loaded")]
    Local(#[source] Arc<io::Error>),
    /// The user stopped it.
    #[error("stopped")]
    Stopped,
}

fn list(tried: &[(String, Fault)]) -> String {
    let one = |(place, fault): &(String, Fault)| match fault {
        Fault::Absent => format!("{place} (is not there)"),
        Fault::Refused => format!("{place} (nothing listens)"),
        fault => format!("{place} ({fault})"),
    };
    tried.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn named(by: &Option<String>) -> String {
    by.as_ref()
        .map(|by| format!(", which {by} names"))
        .unwrap_or_default()
}

impl DaemonError {
    /// Returns how to mend it, if that is known.
    pub(crate) fn help(&self) -> Option<String> {
        let text = match self {
            Self::Address { value, .. } if value.starts_with("ssh:") => {
                "forward the socket yourself: ssh -NL /tmp/docker.sock:/var/run/docker.sock HOST, and DOCKER_HOST=unix:///tmp/docker.sock"
            }
            Self::Address { .. } => "write unix:///PATH/TO/SOCKET or tcp://HOST:PORT",
            Self::Context { .. } => {
                "choose another: docker context use default, or DOCKER_HOST=unix:///PATH/TO/SOCKET"
            }
            Self::Nowhere { .. } => {
                "start Docker or podman, or name its socket: DOCKER_HOST=unix:///PATH/TO/SOCKET. `--output docker-archive:FILE` needs none"
            }
            Self::Unreachable {
                fault: Fault::Denied,
                ..
            } => {
                "add yourself to the group of the socket (sudo usermod -aG docker $USER, then log in again), or use podman as yourself: systemctl --user start podman.socket"
            }
            Self::Unreachable {
                fault: Fault::Absent | Fault::Refused,
                named_by: Some(_),
                ..
            } => {
                "start it there, or unset the variable to look where Docker and podman usually are"
            }
            Self::Unreachable {
                fault: Fault::Tls(Tls::Authority),
                ..
            } => {
                "put the certificate of the daemon's authority into ca.pem of the folder that DOCKER_CERT_PATH names"
            }
            Self::Unreachable {
                fault: Fault::Tls(Tls::Alert(_)),
                ..
            } => {
                "the daemon wants a certificate that its own authority signed: put it into cert.pem, and its key into key.pem, of the folder that DOCKER_CERT_PATH names"
            }
            Self::Unreachable {
                fault: Fault::Tls(Tls::Unspoken),
                ..
            } => "unset DOCKER_TLS_VERIFY if the daemon speaks plain HTTP on purpose",
            Self::Unreachable {
                fault: Fault::Tls(_),
                ..
            } => "DOCKER_CERT_PATH names the folder with ca.pem, cert.pem and key.pem",
            Self::Unreachable { .. } => "check that it runs, and its log",
            Self::Stranger { .. } => "name the socket of Docker or podman with DOCKER_HOST",
            Self::Rejected { .. } => "its log says more",
            Self::Encrypted { .. } => {
                "set DOCKER_TLS_VERIFY=1, and DOCKER_CERT_PATH to the folder with ca.pem, cert.pem and key.pem"
            }
            Self::Differs { .. } => {
                "it kept an older image, or something else gave it one meanwhile: remove that name there (docker rmi NAME), and load again"
            }
            Self::Local(_) => "run the build again: what is damaged in the cache is made again",
            Self::Stopped => return None,
        };
        Some(text.to_owned())
    }
}
