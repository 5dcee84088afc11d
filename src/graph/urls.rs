//! The port to what lies at URLs, as the rule `http` sees it.

use super::ports::Offline;
use super::{ActionError, Ports};
use crate::oci::Digest;
use crate::store::{Blob, Blobs};

impl<'a> Ports<'a> {
    /// Returns what fetches files by their URLs.
    pub fn urls(&self) -> &'a dyn Urls {
        self.sources.get::<dyn Urls>().unwrap_or(&Offline)
    }
}

/// A file to fetch.
#[derive(Clone, Copy, Debug)]
pub struct WantedUrl<'a> {
    /// Where it is; without credentials.
    pub url: &'a str,
    /// The digest that it must have; without one, whatever comes is taken.
    pub sha256: Option<Digest>,
}

/// What lies at URLs.
pub trait Urls: Send + Sync {
    /// Fetches a file into the store, if the store has no blob of that digest.
    ///
    /// # Errors
    /// When it cannot be had, or is another one: then the code is [`OTHER_BYTES`].
    fn fetch(&self, wanted: &WantedUrl<'_>, store: &dyn Blobs) -> Result<Blob, ActionError>;
}

/// The code of the error that a file has another digest than the one that it must have.
pub(crate) const OTHER_BYTES: &str = "imgdecl::http::digest";

impl Urls for Offline {
    fn fetch(&self, wanted: &WantedUrl<'_>, store: &dyn Blobs) -> Result<Blob, ActionError> {
        let known = wanted.sha256.and_then(|sha256| store.find(&sha256));
        known.map_or_else(|| self.refuse(format!("`{}`", wanted.url)), Ok)
    }
}
