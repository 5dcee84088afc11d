//! Rules: what a fault server does wrong, and when. Knows nothing of what is right.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::message::{Delivery, Reply, Request};

/// A fault, and the requests that meet it. The same words stand in `registry.json` of golden cases.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Rule {
    /// `METHOD PATH?QUERY`, in which `*` is any text, as `GET /v2/*/blobs/*`.
    pub(crate) on: String,
    /// Only requests that have this header.
    pub(crate) has: Option<String>,
    /// Only requests whose Content-Length is larger.
    pub(crate) above: Option<u64>,
    /// The first such request that meets the fault; 0 and 1 are the first.
    pub(crate) nth: u32,
    /// How many requests meet it from there on; all if nothing is said.
    pub(crate) times: Option<u32>,

    /// Answers with this status; the registry does not see the request.
    pub(crate) status: Option<u16>,
    /// Answers with this status what the registry did.
    pub(crate) after: Option<u16>,
    /// Sets headers of the reply, or removes them (`null`). `[PATH]` stands for the request's path and query.
    pub(crate) headers: BTreeMap<String, Option<String>>,
    /// Another body.
    pub(crate) body: Option<String>,
    /// Waits so many milliseconds before anything else.
    pub(crate) delay_ms: u64,
    /// Reads so many bytes of the request's body, and closes.
    pub(crate) cut_upload: Option<u64>,
    /// Answers without reading the body, and closes. Goes with `status`.
    pub(crate) early: bool,
    /// Closes after so many bytes of the reply's body.
    pub(crate) cut: Option<u64>,
    /// Does what was asked, and closes without an answer.
    pub(crate) lose: bool,
    /// Reads the request, and never answers.
    pub(crate) hang: bool,
    /// Sends this text, which is no HTTP, and closes.
    pub(crate) garbage: Option<String>,
    /// Changes the byte at this place of the body.
    pub(crate) corrupt: Option<usize>,
    /// Shortens the body, and says so in Content-Length.
    pub(crate) truncate: Option<usize>,
    /// Sends the body twice, and says so in Content-Length.
    pub(crate) repeat: bool,
    /// Says another Content-Length.
    pub(crate) length: Option<u64>,
    /// Sends so many bytes at a time, and waits so many milliseconds in between.
    pub(crate) drip: Option<(usize, u64)>,
}

impl Rule {
    /// A rule without a fault: the fields that follow say it.
    pub(crate) fn on(on: &str) -> Self {
        Self {
            on: on.to_owned(),
            ..Self::default()
        }
    }

    /// Answers the first such request with a status, once.
    pub(crate) fn once(on: &str, status: u16) -> Self {
        Self {
            times: Some(1),
            ..Self::always(on, status)
        }
    }

    /// Answers all such requests with a status.
    pub(crate) fn always(on: &str, status: u16) -> Self {
        Self {
            status: Some(status),
            ..Self::on(on)
        }
    }

    /// Sets a header of the reply.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.insert(name.to_owned(), Some(value.to_owned()));
        self
    }

    /// Removes a header from the reply.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.headers.insert(name.to_owned(), None);
        self
    }

    pub(super) fn matches(&self, request: &Request) -> bool {
        let line = format!("{} {}", request.method, request.target);
        let large = |limit| request.length().is_some_and(|length| length > limit);
        fits(&self.on, &line)
            && self
                .has
                .as_ref()
                .is_none_or(|it| request.header(it).is_some())
            && self.above.is_none_or(large)
    }

    /// Tells whether the rule applies to the request that matched as number `count`, from 1.
    pub(super) fn applies(&self, count: u32) -> bool {
        let first = self.nth.max(1);
        count >= first && self.times.is_none_or(|times| count - first < times)
    }

    /// The reply that stands in for the registry's.
    pub(super) fn answer(&self) -> Option<Reply> {
        let reply = Reply::new(self.status?);
        Some(match &self.body {
            Some(body) => reply.text("application/json", body.as_str()),
            None => reply,
        })
    }

    /// Changes a reply.
    pub(super) fn bend(&self, reply: &mut Reply, request: &Request) {
        if reply.status < 300 {
            reply.status = self.after.unwrap_or(reply.status);
        }
        for (name, value) in &self.headers {
            match value {
                Some(value) => reply.set(name, value.replace("[PATH]", &request.target)),
                None => reply.remove(name),
            }
        }
        if let Some(body) = &self.body {
            reply.body = body.clone().into_bytes();
        }
        if let Some(byte) = self.corrupt.and_then(|at| reply.body.get_mut(at)) {
            *byte ^= 0xff;
        }
        if let Some(length) = self.truncate {
            reply.body.truncate(length);
        }
        if self.repeat {
            reply.body.extend_from_within(..);
        }
    }

    /// Changes how a reply is sent.
    pub(super) fn slow(&self, delivery: &mut Delivery) {
        delivery.cut = self.cut.or(delivery.cut);
        delivery.length = self.length.or(delivery.length);
        let drip = self
            .drip
            .map(|(size, pause)| (size, Duration::from_millis(pause)));
        delivery.drip = drip.or(delivery.drip);
    }
}

/// Compares a text with a pattern in which `*` is any text.
pub(super) fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[test]
fn patterns() {
    for (pattern, text) in [
        ("GET /v2/*/blobs/*", "GET /v2/a/b/blobs/sha256:0"),
        ("* *", "GET /v2/"),
        ("GET /v2/", "GET /v2/"),
        ("POST *mount=*", "POST /v2/a/blobs/uploads/?mount=x&from=y"),
    ] {
        assert!(fits(pattern, text), "{pattern} {text}");
    }
    for (pattern, text) in [
        ("GET /v2/", "GET /v2/a"),
        ("GET *s", "GET /v2/"),
        ("PUT *", "GET /v2/"),
        ("GET /*ab*b", "GET /ab"),
    ] {
        assert!(!fits(pattern, text), "{pattern} {text}");
    }
}
