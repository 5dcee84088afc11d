//! An answer of a host, and the error that it is where it is a refusal. Asks nothing.

use reqwest::Url;
use reqwest::header::HeaderMap;

use super::backoff;
use super::error::{self, Asked, Refusal, RegistryError};
use super::error_body;
use super::fault::Fault;
use super::media_type::media_type;
use super::request::Failed;
use super::token::Pass;
use super::url;
use super::wire::Answer;
use crate::oci::Digest;

/// The largest error or token that is read, in bytes.
pub(super) const SMALL: u64 = 64 << 10;

/// An answer, with what was asked for it.
pub(super) struct Reply<'c> {
    pub(super) answer: Answer<'c>,
    pub(super) asked: Asked,
    /// Where it came from, after redirects.
    pub(super) url: Url,
    pub(super) elsewhere: Option<String>,
    pub(super) pass: Option<Pass>,
    pub(super) places: Vec<String>,
}

impl Reply<'_> {
    pub(super) fn status(&self) -> u16 {
        self.answer.status.as_u16()
    }

    /// Tells whether the same request may be answered otherwise the next time.
    pub(super) fn is_passing(&self) -> bool {
        backoff::is_passing(self.answer.status)
    }

    /// Tells whether the answer is from the host that was asked.
    pub(super) fn is_own(&self) -> bool {
        self.elsewhere.is_none()
    }

    /// Returns a header that is text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.answer.headers.get(name)?.to_str().ok()
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        &self.answer.headers
    }

    /// Returns the size that the answer says its body has.
    pub(super) fn length(&self) -> Option<u64> {
        self.header("content-length")?.trim().parse().ok()
    }

    /// Returns the next bytes of the body.
    pub(super) fn chunk(&mut self) -> Result<Option<Vec<u8>>, Fault> {
        self.answer.chunk()
    }

    /// Reads the whole body.
    ///
    /// # Errors
    /// When it is longer than `limit` bytes, or shorter than was said.
    pub(super) fn bytes(&mut self, limit: u64) -> Result<Vec<u8>, RegistryError> {
        self.read(limit).map_err(|failed| self.failed(failed))
    }

    /// Reads the whole body.
    ///
    /// # Errors
    /// As [`Reply::bytes`], which has words for them.
    pub(super) fn read(&mut self, limit: u64) -> Result<Vec<u8>, Failed<RegistryError>> {
        let long = |size: String| format!("it has {size} bytes, and {limit} are the most");
        if let Some(size) = self.length().filter(|&size| size > limit) {
            return Err(Failed::Own(Box::new(self.wrong(long(size.to_string())))));
        }
        let bytes = self.answer.read(limit)?;
        match bytes.len() as u64 > limit {
            true => Err(Failed::Own(Box::new(
                self.wrong(long(format!("more than {limit}"))),
            ))),
            false => Ok(bytes),
        }
    }

    /// Makes the error of a body that cannot be read.
    pub(super) fn failed(&self, failed: Failed<RegistryError>) -> RegistryError {
        match failed {
            Failed::Fault(fault) => RegistryError::of_fault(self.asked.clone(), fault),
            Failed::Unsafe { to, why } => {
                let asked = Box::new(self.asked.clone());
                RegistryError::Unsafe { asked, to, why }
            }
            Failed::Own(error) => *error,
        }
    }

    /// Returns the media type of the answer, if it is a page for people: no registry's answer is one.
    pub(super) fn page(&self) -> Option<String> {
        let media_type = media_type(self.header("content-type")).to_string();
        error::is_page(&media_type).then(|| error::clean(&media_type))
    }

    /// Returns the digest that the answer says its subject has (distribution-spec, "Docker-Content-Digest").
    pub(super) fn digest(&self) -> Option<Digest> {
        self.header("docker-content-digest")?.trim().parse().ok()
    }

    /// Makes the error of an answer that cannot be right.
    pub(super) fn wrong(&self, why: impl Into<String>) -> RegistryError {
        let mut why: String = why.into();
        if let Some(page) = self.page() {
            why.push_str(&format!(
                "; the answer is a page ({page}), as of a proxy or a login, and no registry's"
            ));
        }
        RegistryError::content(&self.asked, why)
    }

    pub(super) fn refusal(&mut self) -> Refusal {
        let body = match self.asked.method == "HEAD" {
            true => Vec::new(),
            // What came before a cut says enough.
            false => self.answer.read_some(SMALL),
        };
        let media_type = media_type(self.header("content-type")).to_string();
        let is_told = !media_type.is_empty() && !media_type.contains("json");
        Refusal {
            asked: self.asked.clone(),
            status: self.status(),
            said: error_body::message(&body),
            kind: is_told.then(|| error::clean(&media_type)),
            leads: self.leads(),
            missing: match self.asked.method.as_str() {
                "PUT" => error_body::missing(&body),
                _ => None,
            },
            elsewhere: self.elsewhere.clone(),
            places: std::mem::take(&mut self.places),
            had_login: self.pass.as_ref().is_some_and(|pass| pass.has_login),
        }
    }

    /// Returns where a redirect leads that was not followed. Its query and its user may be secret.
    fn leads(&self) -> Option<String> {
        if !(300..400).contains(&self.status()) {
            return None;
        }
        let text = self.header("location")?;
        Some(match url::location(&self.url, text) {
            Some(mut url) => {
                url.set_query(None);
                error::clean(url.as_str())
            }
            None => "something that is no URL".to_owned(),
        })
    }

    /// Makes the error of a refusal, or of an answer that is none that a registry gives.
    pub(super) fn refused(self) -> RegistryError {
        let wants = match self.asked.method.as_str() {
            "POST" => "202 and a Location",
            "PATCH" => "202",
            "PUT" => "201",
            _ => "200",
        };
        self.refused_for(wants)
    }

    /// Makes the error of a refusal, or of an answer that is none of those that a registry gives: `wants`.
    pub(super) fn refused_for(mut self, wants: &'static str) -> RegistryError {
        let refusal = Box::new(self.refusal());
        match refusal.status {
            ..=399 => RegistryError::Answer { refusal, wants },
            401 if self.is_own() => RegistryError::Unauthorised(refusal),
            403 if self.is_own() => RegistryError::Denied(refusal),
            404 => RegistryError::NotFound(refusal),
            _ if backoff::is_passing(self.answer.status) => RegistryError::Unavailable(refusal),
            _ => RegistryError::Refused(refusal),
        }
    }
}
