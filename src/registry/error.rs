//! What can go wrong with a registry: what was asked of whom, what came, and how to mend it. Knows no connection.

use std::fmt;
use std::sync::Arc;

use super::fault::{Fault, Tls};
use crate::oci::Digest;
use crate::shown;
use crate::store::{Damage, StoreError};

/// What was asked of whom, and how often.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Asked {
    /// The registry's or mirror's host.
    pub registry: String,
    /// The repository.
    pub repository: String,
    /// The method, as `GET`.
    pub method: String,
    /// What it was about, as `the manifest v1`.
    pub what: String,
    /// How often it was tried.
    pub tries: u32,
    /// For how many seconds was waited between the tries.
    pub waited: u64,
}

/// An answer that is a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What was asked.
    pub asked: Asked,
    /// The status.
    pub status: u16,
    /// What the registry says about it: its error code and message, or the first line of a text.
    pub said: Option<String>,
    /// What kind of document the answer is, where it is no JSON: as `text/html`.
    pub kind: Option<String>,
    /// Where the answer leads: a `Location` that is not followed, without what may be secret in it.
    pub leads: Option<String>,
    /// The registry says that parts of a manifest are not there; these it names.
    pub missing: Option<Vec<Digest>>,
    /// The host that answered, where a redirect led elsewhere.
    pub elsewhere: Option<String>,
    /// Where credentials were looked for.
    pub places: Vec<String>,
    /// Whether credentials were sent.
    pub had_login: bool,
}

impl Refusal {
    /// Tells whether it is about how much was sent at once.
    pub(super) fn is_about_size(&self) -> bool {
        let said = self.said.as_deref().unwrap_or_default();
        let said = said.to_ascii_lowercase();
        let words = ["too large", "too big", "size", "exceed", "limit"];
        self.status == 413 || self.status == 416 && words.iter().any(|word| said.contains(word))
    }

    /// Tells whether the answer is a page for people.
    fn is_page(&self) -> bool {
        self.kind.as_deref().is_some_and(is_page)
    }
}

/// Tells whether a media type is that of a page for people.
pub(super) fn is_page(media_type: &str) -> bool {
    let media_type = media_type.to_ascii_lowercase();
    media_type.contains("html")
}

/// Something that went wrong with a registry.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RegistryError {
    /// The registry wants other credentials (401).
    #[error("{}", refusal(.0, if .0.had_login { "the credentials were refused" } else { "credentials are needed" }))]
    Unauthorised(Box<Refusal>),
    /// The registry knows who we are, and does not allow it (403).
    #[error("{}", refusal(.0, "access is denied"))]
    Denied(Box<Refusal>),
    /// It is not there (404).
    #[error("{}", refusal(.0, "not found"))]
    NotFound(Box<Refusal>),
    /// The registry has too much to do, or is broken: 408, 429 or 5xx after all tries.
    #[error("{}", refusal(.0, "the registry cannot answer now"))]
    Unavailable(Box<Refusal>),
    /// The registry refuses with any other status.
    #[error("{}", refusal(.0, "refused"))]
    Refused(Box<Refusal>),
    /// The answer is no refusal, and none that a registry gives (distribution-spec, "Endpoints"): a login page, a proxy.
    #[error("{}", answered(.refusal, .wants))]
    Answer {
        /// What was answered.
        refusal: Box<Refusal>,
        /// What a registry answers, as `202 and a Location`.
        wants: &'static str,
    },
    /// There was no answer.
    #[error("{asked}: {fault}{}", tried(asked))]
    Transport {
        /// What was asked.
        asked: Box<Asked>,
        /// Why it came to nothing.
        fault: Fault,
    },
    /// The answer cannot be right.
    #[error("{asked}: {why}")]
    Content {
        /// What was asked.
        asked: Box<Asked>,
        /// What was expected, and what was found.
        why: String,
    },
    /// The manifest has schema 1, which nobody should use any more.
    #[error("{0}: the manifest has Docker's schema 1")]
    Schema1(Box<Asked>),
    /// The registry or a host sends us where we do not go.
    #[error("{asked}: it leads to {to}, {why}")]
    Unsafe {
        /// What was asked.
        asked: Box<Asked>,
        /// Where it leads.
        to: String,
        /// Why we do not go there.
        why: &'static str,
    },
    /// Something the user said about a registry cannot be used.
    #[error("the settings for {registry}: {why}")]
    Setup {
        /// The registry.
        registry: String,
        /// What is wrong.
        why: String,
    },
    /// Credentials could not be looked for.
    #[error("cannot find credentials for {registry}: {}", failures.join("; "))]
    Credentials {
        /// The registry.
        registry: String,
        /// What failed.
        failures: Vec<String>,
    },
    /// An image tag points elsewhere, and the registry does not let it be moved.
    #[error("{}: the image tag is at {has} and cannot be moved to {wants} ({}){}", .refusal.asked, .refusal.status, said(.refusal))]
    Immutable {
        /// How the registry refused.
        refusal: Box<Refusal>,
        /// Where it points.
        has: Digest,
        /// Where it should point.
        wants: Digest,
    },
    /// The bytes to push are nowhere.
    #[error("{what} is neither on this machine nor in a registry that is known to hold it")]
    Absent {
        /// What is missing.
        what: String,
    },
    /// A document to push is not what it should be.
    #[error("{what}: {why}")]
    Document {
        /// The document.
        what: String,
        /// What is wrong.
        why: String,
    },
    /// The store cannot be used.
    #[error(transparent)]
    Store(Arc<StoreError>),
    /// Several things went wrong.
    #[error("{} errors: {}", .0.len(), list(.0))]
    Several(Vec<RegistryError>),
    /// The user stopped it.
    #[error("stopped")]
    Stopped,
}

impl RegistryError {
    /// Returns the name of the kind of error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unauthorised(_) => "imgdecl::registry::unauthorised",
            Self::Denied(_) => "imgdecl::registry::denied",
            Self::NotFound(_) => "imgdecl::registry::not_found",
            Self::Unavailable(_) => "imgdecl::registry::unavailable",
            Self::Refused(_) => "imgdecl::registry::refused",
            Self::Answer { .. } => "imgdecl::registry::answer",
            Self::Transport { .. } => "imgdecl::registry::connection",
            Self::Content { .. } => "imgdecl::registry::content",
            Self::Schema1(_) => "imgdecl::registry::schema1",
            Self::Unsafe { .. } => "imgdecl::registry::unsafe",
            Self::Setup { .. } => "imgdecl::registry::settings",
            Self::Credentials { .. } => "imgdecl::registry::credentials",
            Self::Immutable { .. } => "imgdecl::registry::immutable",
            Self::Absent { .. } => "imgdecl::registry::absent",
            Self::Document { .. } => "imgdecl::registry::document",
            Self::Store(error) => error.code(),
            Self::Several(_) => "imgdecl::registry::several",
            Self::Stopped => "imgdecl::stopped",
        }
    }

    /// Says how to mend it.
    pub fn help(&self) -> Option<String> {
        let text = match self {
            Self::Unauthorised(refusal) => format!(
                "log in, as with `docker login {0}` or `podman login {0}`, or set up a credential helper for it{1}",
                refusal.asked.registry,
                looked(refusal)
            ),
            Self::Denied(refusal) => format!(
                "check the repository's name, and that the login may do this{}",
                looked(refusal)
            ),
            Self::Refused(refusal) | Self::NotFound(refusal) if refusal.missing.is_some() => {
                "the registry lacks a part that it says it has: try again, with --check; if that does not help, ask whoever runs it".to_owned()
            }
            Self::NotFound(refusal) if refusal.asked.method == "GET" || refusal.asked.method == "HEAD" => {
                "check the registry, the repository and the image tag or digest".to_owned()
            }
            Self::NotFound(_) => {
                "check the repository's name; some registries want it to be made first".to_owned()
            }
            Self::Unavailable(refusal) if refusal.status == 429 && !refusal.had_login => format!(
                "wait, or log in, as with `docker login {}`: registries allow more to those they know",
                refusal.asked.registry
            ),
            Self::Unavailable(_) => "try again later".to_owned(),
            Self::Refused(refusal) if refusal.is_about_size() => {
                "something limits the size of a request: raise it there, or set `chunk` for this registry in config.toml, to less than it takes".to_owned()
            }
            Self::Refused(refusal) if refusal.said.is_some() => "see what the registry says".to_owned(),
            Self::Refused(refusal) => format!(
                "check that {} is a registry, or ask whoever runs it",
                refusal.asked.registry
            ),
            Self::Answer { refusal, .. } => answer(refusal),
            Self::Transport { asked, fault } => connection(asked, fault),
            Self::Content { .. } => {
                "the registry, or something between, is faulty: try again, or ask whoever runs it".to_owned()
            }
            Self::Schema1(_) => "pull and push the image again with a newer tool".to_owned(),
            Self::Unsafe { asked, .. } => format!(
                "ask whoever runs {}; plain HTTP is allowed with `insecure = true` for that host in config.toml",
                asked.registry
            ),
            Self::Setup { .. } => "mend config.toml or the file that it names".to_owned(),
            Self::Credentials { registry, .. } => format!(
                "mend that helper or file, or log in to {registry} without it: `--authfile` names a file"
            ),
            Self::Immutable { .. } => {
                "give the image another image tag, or allow the registry to move this one".to_owned()
            }
            Self::Absent { .. } => "build again: what is missing is made again".to_owned(),
            Self::Document { .. } => "build the image again".to_owned(),
            Self::Store(error) => error.help().to_owned(),
            Self::Several(all) => return all.iter().find_map(Self::help),
            Self::Stopped => return None,
        };
        Some(text)
    }

    /// Makes one error of several, which are there.
    pub(super) fn of_all(mut all: Vec<Self>) -> Option<Self> {
        if all.iter().any(|error| matches!(error, Self::Stopped)) {
            return Some(Self::Stopped);
        }
        match all.len() {
            0 => None,
            1 => all.pop(),
            _ => Some(Self::Several(all)),
        }
    }

    /// Makes the error of a fault.
    pub(super) fn of_fault(asked: Asked, fault: Fault) -> Self {
        match fault {
            Fault::Stopped => Self::Stopped,
            Fault::Setup(why) => Self::Setup {
                registry: asked.registry,
                why,
            },
            fault => Self::Transport {
                asked: Box::new(asked),
                fault,
            },
        }
    }

    /// Makes the error of an answer that cannot be right.
    pub(super) fn content(asked: &Asked, why: impl Into<String>) -> Self {
        Self::Content {
            asked: Box::new(asked.clone()),
            why: why.into(),
        }
    }

    /// Says how often it was tried, and for how many seconds was waited.
    pub(super) fn tried(mut self, tries: u32, waited: u64) -> Self {
        let asked = match &mut self {
            Self::Unauthorised(refusal)
            | Self::Denied(refusal)
            | Self::NotFound(refusal)
            | Self::Unavailable(refusal)
            | Self::Refused(refusal)
            | Self::Answer { refusal, .. } => &mut refusal.asked,
            Self::Transport { asked, .. } => asked,
            _ => return self,
        };
        (asked.tries, asked.waited) = (tries, waited);
        self
    }

    /// Makes the error of an image tag that cannot be moved out of a refusal.
    pub(super) fn into_immutable(self, has: Digest, wants: Digest) -> Self {
        match self {
            Self::Denied(refusal) | Self::Refused(refusal) => Self::Immutable {
                refusal,
                has,
                wants,
            },
            other => other,
        }
    }

    /// Returns what a refusal of a manifest names of the parts that the registry lacks; `None` if it is about something
    /// else.
    pub(super) fn missing(&self) -> Option<&[Digest]> {
        match self {
            Self::Refused(refusal) | Self::NotFound(refusal) => refusal.missing.as_deref(),
            _ => None,
        }
    }

    /// Tells whether the host was not reached at all.
    pub(super) fn is_absence(&self) -> bool {
        matches!(self, Self::Transport { fault, .. } if fault.is_absence())
    }
}

impl From<StoreError> for RegistryError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}

impl RegistryError {
    /// Finds what a reader of the cache told of: a blob that is damaged.
    pub(super) fn of_reader(error: &std::io::Error) -> Option<Self> {
        Some(StoreError::from(Damage::of(error)?.clone()).into())
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.registry)?;
        if !self.repository.is_empty() {
            write!(f, "/{}", self.repository)?;
        }
        write!(f, ": {} of {}", self.method, self.what)
    }
}

fn refusal(refusal: &Refusal, word: &str) -> String {
    let mut text = format!("{}: {word} ({}", refusal.asked, refusal.status);
    if let Some(host) = &refusal.elsewhere {
        text.push_str(&format!(" from {host}"));
    }
    text.push(')');
    text + &said(refusal) + &tried(&refusal.asked)
}

fn said(refusal: &Refusal) -> String {
    let said = refusal.said.as_ref();
    said.map(|said| format!(": {said}")).unwrap_or_default()
}

fn answered(refusal: &Refusal, wants: &str) -> String {
    let mut text = format!("{}: the answer is {}", refusal.asked, refusal.status);
    if let Some(host) = &refusal.elsewhere {
        text.push_str(&format!(" from {host}"));
    }
    if let Some(kind) = &refusal.kind {
        text.push_str(&format!(", {kind}"));
    }
    if let Some(leads) = &refusal.leads {
        text.push_str(&format!(", and leads to {leads}"));
    }
    text.push_str(&format!("; a registry answers {wants}"));
    text + &said(refusal) + &tried(&refusal.asked)
}

/// Says what to do about an answer that is no registry's.
fn answer(refusal: &Refusal) -> String {
    let host = &refusal.asked.registry;
    if let Some(leads) = &refusal.leads {
        return format!(
            "if the registry has moved, name its new host in `repository`; if {leads} is a login page, {host} is behind a proxy that wants a login of its own: log in there, or reach the registry without it (NO_PROXY)"
        );
    }
    match refusal.is_page() {
        true => format!(
            "a page for people is no registry's answer: a proxy or a login page stands before {host}, or it is no registry: log in there, or reach the registry without it (NO_PROXY), or check the host"
        ),
        false => format!(
            "check that {host} is a registry, and that no proxy answers in its place (NO_PROXY); else ask whoever runs it"
        ),
    }
}

fn tried(asked: &Asked) -> String {
    match (asked.tries, asked.waited) {
        (0 | 1, _) => String::new(),
        (tries, 0) => format!(" (tried {tries} times)"),
        (tries, waited) => format!(" (tried {tries} times, waiting {waited} s in all)"),
    }
}

fn looked(refusal: &Refusal) -> String {
    match refusal.places.is_empty() {
        true => String::new(),
        false => format!(
            "; credentials were looked for in: {}",
            refusal.places.join(", ")
        ),
    }
}

fn connection(asked: &Asked, fault: &Fault) -> String {
    let host = &asked.registry;
    match fault {
        Fault::Name => format!("check the name {host}, the network, and the proxy settings"),
        Fault::Refused | Fault::Unreachable | Fault::Connect(_) | Fault::Absent | Fault::Denied => {
            format!("check that {host} is the right host and port, and that a registry runs there")
        }
        Fault::Idle(_) | Fault::Slow | Fault::Cut | Fault::Other(_) => {
            "check the network and try again".to_owned()
        }
        Fault::Tls(Tls::Authority) => format!(
            "if {host} has a certificate authority of its own, name its file with `ca` for this registry in config.toml"
        ),
        Fault::Tls(Tls::Unspoken) | Fault::NotHttp => format!(
            "if {host} speaks plain HTTP on purpose, set `insecure = true` for it in config.toml"
        ),
        Fault::Tls(Tls::Alert(_)) => format!(
            "if {host} wants a certificate of the client, name it with `client_cert` and `client_key` in config.toml"
        ),
        Fault::Tls(_) => format!("ask whoever runs {host} to mend its certificate"),
        Fault::Proxy => "check HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY".to_owned(),
        Fault::Setup(_) => "mend the settings".to_owned(),
        Fault::Local(_) => "check the file and the space on the disk".to_owned(),
        Fault::Stopped => "start it again".to_owned(),
    }
}

fn list(errors: &[RegistryError]) -> String {
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    texts.join("; ")
}

/// How much of a host's text goes into a message, in characters.
const SAID: usize = 300;

/// Makes a host's text fit for a message: one line, as it may be shown, no longer than is useful.
pub(super) fn clean(text: &str) -> String {
    shown::one_line(text, SAID)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_a_host_is_one_short_line() {
        assert_eq!(clean("no\u{1b}[31m\n way\u{202e}"), "no [31m way");
        assert_eq!(clean(&"x".repeat(1000)).chars().count(), SAID + 1);
    }

    #[test]
    fn a_message_says_what_was_asked_and_what_came() {
        let refusal = Refusal {
            asked: Asked {
                registry: "ghcr.io".to_owned(),
                repository: "team/app".to_owned(),
                method: "PUT".to_owned(),
                what: "the manifest v1".to_owned(),
                tries: 5,
                waited: 12,
            },
            status: 503,
            said: Some("BUSY: later".to_owned()),
            kind: None,
            leads: None,
            missing: None,
            elsewhere: None,
            places: vec!["a (not there)".to_owned()],
            had_login: false,
        };
        assert_eq!(
            RegistryError::Unavailable(Box::new(refusal.clone())).to_string(),
            "ghcr.io/team/app: PUT of the manifest v1: the registry cannot answer now (503): BUSY: later (tried 5 times, waiting 12 s in all)"
        );
        let mut at_once = refusal.clone();
        (at_once.asked.tries, at_once.asked.waited) = (2, 0);
        let text = RegistryError::Unavailable(Box::new(at_once)).to_string();
        assert!(text.ends_with("(tried 2 times)"), "{text}");
        let help = RegistryError::Unauthorised(Box::new(refusal))
            .help()
            .unwrap();
        assert!(
            help.contains("docker login ghcr.io") && help.contains("a (not there)"),
            "{help}"
        );
    }
}
