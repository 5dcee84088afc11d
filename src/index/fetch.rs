//! A request to an index: credentials for its own host alone, redirects, tries. Knows nothing of what is asked.

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, LOCATION};
use reqwest::{Method, Url};

use super::error::{Asked, IndexError};
use super::login::Login;
use super::{Inner, Source, source};
use crate::net::backoff::{self, Backoff};
use crate::net::tls::Trust;
use crate::net::url;
use crate::net::wire::{Answer, Body, Call};
use crate::net::{Fault, Monitor as _};

/// How many redirects are followed.
const HOPS: usize = 8;

/// A request.
pub(super) struct Ask<'a> {
    pub(super) url: Url,
    /// The index that is asked, or that named the URL.
    pub(super) index: Option<&'a Source>,
    /// What is asked for, in words.
    pub(super) what: String,
    /// The login that the URL held.
    pub(super) login: Option<Login>,
    /// How often it is tried; as the limits say if not given.
    pub(super) tries: Option<u32>,
    pub(super) headers: HeaderMap,
}

/// An answer, whose body is still to be read.
pub(super) struct Reply<'c> {
    pub(super) answer: Answer<'c>,
    /// Where it came from, after redirects.
    pub(super) url: Url,
    asked: Asked,
    had_login: bool,
}

impl<'a> Ask<'a> {
    pub(super) fn new(url: Url, index: Option<&'a Source>, what: String) -> Self {
        Self {
            url,
            index,
            what,
            login: None,
            tries: None,
            headers: HeaderMap::new(),
        }
    }

    /// Adds a header. What cannot be one is left out.
    pub(super) fn header(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(HeaderName::from_static(name), value);
        }
        self
    }

    pub(super) fn asked(&self) -> Asked {
        Asked {
            index: self
                .index
                .map(|it| it.name().to_owned())
                .unwrap_or_default(),
            what: self.what.clone(),
            host: url::authority(&self.url),
        }
    }

    /// Makes the error of what cannot be right.
    pub(super) fn wrong(&self, why: impl Into<String>) -> IndexError {
        IndexError::Content {
            asked: self.asked(),
            why: why.into(),
        }
    }

    /// Makes the error of what came to nothing.
    pub(super) fn failed(&self, fault: Fault, backoff: &Backoff<'_>) -> IndexError {
        match fault {
            Fault::Stopped => IndexError::Stopped,
            fault => IndexError::Unreachable {
                asked: self.asked(),
                fault,
                tries: backoff.tries,
                waited: backoff.waited.as_secs(),
            },
        }
    }
}

impl Reply<'_> {
    pub(super) fn status(&self) -> u16 {
        self.answer.status.as_u16()
    }

    /// Returns a header that is text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.answer.headers.get(name)?.to_str().ok()
    }

    /// Returns the size that the answer says its body has.
    pub(super) fn length(&self) -> Option<u64> {
        self.header("content-length")?.trim().parse().ok()
    }

    /// Makes the error of a refusal.
    pub(super) fn refused(&self) -> IndexError {
        IndexError::Refused {
            asked: self.asked.clone(),
            host: url::authority(&self.url),
            status: self.status(),
            had_login: self.had_login,
        }
    }
}

/// Why a try came to nothing.
enum Failed {
    Fault(Fault),
    Unsafe { to: String, why: &'static str },
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl Inner {
    /// Sends a request until there is an answer that another try would not change.
    ///
    /// # Errors
    /// When there is none. A refusal is an answer.
    pub(super) fn send(&self, ask: &Ask<'_>) -> Result<Reply<'_>, IndexError> {
        let mut backoff = Backoff::new(&self.limits, ask.tries.unwrap_or(self.limits.tries));
        loop {
            let (delay, why) = match self.try_once(ask) {
                Err(Failed::Unsafe { to, why }) => {
                    let asked = ask.asked();
                    return Err(IndexError::Unsafe { asked, to, why });
                }
                Err(Failed::Fault(fault)) => {
                    let delay = match fault.is_passing() {
                        true => backoff.again(None),
                        false => None,
                    };
                    match delay {
                        Some(delay) => (delay, fault.to_string()),
                        None => return Err(ask.failed(fault, &backoff)),
                    }
                }
                Ok(reply) => {
                    let delay = match backoff::is_passing(reply.answer.status) {
                        true => backoff.again(backoff::retry_after(&reply.answer.headers)),
                        false => None,
                    };
                    match delay {
                        Some(delay) => (delay, format!("it answered {}", reply.status())),
                        None => return Ok(reply),
                    }
                }
            };
            if delay.as_secs() >= 2 {
                let seconds = delay.as_secs();
                let text = format!("{}: {why}; the next try is in {seconds} s", ask.asked());
                self.monitor.note(&text);
            }
            self.pause(delay)?;
        }
    }

    /// Sends a request and reads the body of the answer where its status is 200 or 206; elsewhere the body is empty.
    ///
    /// # Errors
    /// When there is no answer, or a body of more than `limit` bytes.
    pub(super) fn load(
        &self,
        ask: &Ask<'_>,
        limit: u64,
    ) -> Result<(Reply<'_>, Vec<u8>), IndexError> {
        let long = |size: u64| ask.wrong(format!("it has {size} bytes, and {limit} are the most"));
        let mut backoff = Backoff::new(&self.limits, ask.tries.unwrap_or(self.limits.tries));
        loop {
            let mut reply = self.send(ask)?;
            if !matches!(reply.status(), 200 | 206) {
                return Ok((reply, Vec::new()));
            }
            if let Some(size) = reply.length().filter(|&size| size > limit) {
                return Err(long(size));
            }
            match reply.answer.read(limit) {
                Ok(bytes) if bytes.len() as u64 > limit => return Err(long(limit + 1)),
                Ok(bytes) => return Ok((reply, bytes)),
                Err(fault) if fault.is_absence() => match backoff.again(None) {
                    Some(delay) => self.pause(delay)?,
                    None => return Err(ask.failed(fault, &backoff)),
                },
                Err(fault) => return Err(ask.failed(fault, &backoff)),
            }
        }
    }

    /// Waits.
    pub(super) fn pause(&self, time: std::time::Duration) -> Result<(), IndexError> {
        self.wire.pause(time).map_err(|_| IndexError::Stopped)
    }

    /// Sends a request once, and follows where the answer leads. Credentials go to the first host alone.
    fn try_once(&self, ask: &Ask<'_>) -> Result<Reply<'_>, Failed> {
        let mut url = ask.url.clone();
        if let Some(index) = ask.index {
            check(index.address(), &url)?;
        }
        let login = ask.login.clone();
        let login = login.or_else(|| self.credentials.find(&url, ask.index));
        let login = login.and_then(|it| it.header());
        let had_login = login.is_some();
        let mut is_own = true;
        for _ in 0..HOPS {
            let mut headers = ask.headers.clone();
            if let Some(login) = login.as_ref().filter(|_| is_own) {
                headers.insert(AUTHORIZATION, login.clone());
            }
            let answer = self.wire.exchange(Call {
                method: Method::GET,
                url: url.clone(),
                headers,
                body: Body::None,
                trust: &Trust::default(),
            })?;
            let is_redirect = matches!(answer.status.as_u16(), 301 | 302 | 303 | 307 | 308);
            let location = answer.headers.get(LOCATION).filter(|_| is_redirect);
            let location = location.and_then(|it| it.to_str().ok());
            let Some(next) = location.and_then(|it| url::join(&url, it)) else {
                return Ok(Reply {
                    answer,
                    url,
                    asked: ask.asked(),
                    had_login,
                });
            };
            check(&url, &next)?;
            // Once away, never again: the way back is not ours.
            is_own = is_own && url::is_same(&url, &next);
            url = next;
        }
        Err(Failed::Unsafe {
            to: source::shown(&url),
            why: "after more redirects than are followed",
        })
    }
}

/// Refuses to go from `from` to `to` where that is weaker, or leads into this machine. An index that is asked in the open
/// may lead to others in the open: the user chose that.
fn check(from: &Url, to: &Url) -> Result<(), Failed> {
    let is_open = from.scheme() == "http" && !url::is_loopback(&url::authority(from));
    url::may_follow(from, to, is_open).map_err(|why| Failed::Unsafe {
        to: format!("{}://{}", to.scheme(), url::authority(to)),
        why,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_leads_to_nothing_weaker() {
        let may =
            |from: &str, to: &str| check(&from.parse().unwrap(), &to.parse().unwrap()).is_ok();
        assert!(may("https://i.example/", "https://f.example/x"));
        assert!(!may("https://i.example/", "http://f.example/x"));
        assert!(!may("https://i.example/", "http://127.0.0.1/x"));
        assert!(!may("https://i.example/", "https://localhost/x"));
        assert!(may("http://i.example/", "http://f.example/x"));
        assert!(!may("http://i.example/", "http://127.0.0.1/x"));
        assert!(may("http://127.0.0.1:1/", "http://127.0.0.1:2/x"));
        assert!(!may("http://127.0.0.1:1/", "http://f.example/x"));
    }
}
