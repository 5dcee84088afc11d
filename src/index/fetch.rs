//! A request to an index: its credentials, where its answers may lead, and its errors. `net` sends it. Knows nothing of
//! what is asked.

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, LOCATION};
use reqwest::{Method, StatusCode, Url};

use super::error::{Asked, IndexError};
use super::login::Login;
use super::{Inner, Source, source};
use crate::net::Fault;
use crate::net::backoff::Backoff;
use crate::net::request::{self, Failed, Request, Route};
use crate::net::tls::Trust;
use crate::net::url;
use crate::net::wire::{Answer, Body, Call};

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
    /// Whether credentials were sent.
    pub(super) had_login: bool,
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

/// A request that is being sent, by which client.
struct Sending<'a, 'c> {
    inner: &'c Inner,
    ask: &'a Ask<'a>,
    /// The credentials for the first host.
    login: Option<HeaderValue>,
}

impl<'c> Request<'c> for Sending<'_, 'c> {
    type Reply = Reply<'c>;
    type Error = IndexError;

    fn most(&self) -> u32 {
        self.inner.most(self.ask)
    }

    fn try_once(&mut self, _: &Backoff<'_>) -> Result<Reply<'c>, Failed<IndexError>> {
        if let Some(index) = self.ask.index
            && let Err(why) = check(index.address(), &self.ask.url)
        {
            let url = &self.ask.url;
            let to = format!("{}://{}", url.scheme(), url::authority(url));
            return Err(Failed::Unsafe { to, why });
        }
        let login = self.ask.login.clone();
        let find = || self.inner.credentials.find(&self.ask.url, self.ask.index);
        self.login = login.or_else(find).and_then(|it| it.header());
        let (answer, url) = request::follow(self, self.ask.url.clone(), true)?;
        Ok(Reply {
            answer,
            url,
            asked: self.ask.asked(),
            had_login: self.login.is_some(),
        })
    }

    fn head<'r>(&self, reply: &'r Reply<'c>) -> (StatusCode, &'r HeaderMap) {
        (reply.answer.status, &reply.answer.headers)
    }

    fn failed(&self, fault: Fault, tried: &Backoff<'_>) -> IndexError {
        self.ask.failed(fault, tried)
    }

    fn misled(&self, to: String, why: &'static str, _: &Backoff<'_>) -> IndexError {
        let asked = self.ask.asked();
        IndexError::Unsafe { asked, to, why }
    }

    fn describe(&self) -> String {
        self.ask.asked().to_string()
    }
}

impl<'c> Route<'c> for Sending<'_, 'c> {
    type Error = IndexError;

    fn ask(&mut self, url: &Url, is_own: bool) -> Result<Answer<'c>, Failed<IndexError>> {
        let mut headers = self.ask.headers.clone();
        if let Some(login) = self.login.as_ref().filter(|_| is_own) {
            headers.insert(AUTHORIZATION, login.clone());
        }
        let answer = self.inner.wire.exchange(Call {
            method: Method::GET,
            url: url.clone(),
            headers,
            body: Body::None,
            trust: &Trust::default(),
        })?;
        Ok(answer)
    }

    fn next(&self, answer: &Answer<'_>, url: &Url) -> Option<Url> {
        let is_redirect = matches!(answer.status.as_u16(), 301 | 302 | 303 | 307 | 308);
        let location = answer.headers.get(LOCATION).filter(|_| is_redirect)?;
        url::join(url, location.to_str().ok()?)
    }

    fn may_follow(&self, from: &Url, to: &Url) -> Result<(), &'static str> {
        check(from, to)
    }

    fn show(&self, url: &Url) -> String {
        source::shown(url)
    }
}

impl Inner {
    /// How often a request is sent at most.
    fn most(&self, ask: &Ask<'_>) -> u32 {
        ask.tries.unwrap_or(self.limits.tries)
    }

    /// Sends a request until there is an answer that another try would not change.
    ///
    /// # Errors
    /// When there is none. A refusal is an answer.
    pub(super) fn send(&self, ask: &Ask<'_>) -> Result<Reply<'_>, IndexError> {
        let mut sending = Sending {
            inner: self,
            ask,
            login: None,
        };
        request::send(&self.wire, &mut sending)
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
        let long = |size: u64| {
            let why = format!("it has {size} bytes, and {limit} are the most");
            Failed::Own(Box::new(ask.wrong(why)))
        };
        let read = |reply: &mut Reply<'_>| {
            if !matches!(reply.status(), 200 | 206) {
                return Ok(Vec::new());
            }
            if let Some(size) = reply.length().filter(|&size| size > limit) {
                return Err(long(size));
            }
            let bytes = reply.answer.read(limit)?;
            match bytes.len() as u64 > limit {
                true => Err(long(limit + 1)),
                false => Ok(bytes),
            }
        };
        let failed = |_: &Reply<'_>, failed, tried: &Backoff<'_>| match failed {
            Failed::Fault(fault) => ask.failed(fault, tried),
            Failed::Unsafe { to, why } => IndexError::Unsafe {
                asked: ask.asked(),
                to,
                why,
            },
            Failed::Own(error) => *error,
        };
        request::load(&self.wire, self.most(ask), || self.send(ask), read, failed)
    }

    /// Waits.
    pub(super) fn pause(&self, time: std::time::Duration) -> Result<(), IndexError> {
        self.wire.pause(time).map_err(|_| IndexError::Stopped)
    }
}

/// Refuses to go from `from` to `to` where that is weaker, or leads into this machine. An index that is asked in the open
/// may lead to others in the open: the user chose that.
fn check(from: &Url, to: &Url) -> Result<(), &'static str> {
    let is_open = from.scheme() == "http" && !url::is_loopback(&url::authority(from));
    url::may_follow(from, to, is_open)
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
