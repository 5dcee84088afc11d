//! The image tags of a repository (distribution-spec, "Listing Tags"). Sorts nothing.

use std::collections::BTreeSet;

use reqwest::Method;
use serde::Deserialize;

use super::Client;
use super::error::RegistryError;
use super::http::{Ask, At};
use super::place;
use crate::oci::{MAX_DOCUMENT, Reference, check_tag};

/// How many pages are read, and how many image tags.
const PAGES: usize = 10_000;
const TAGS: usize = 1_000_000;

impl Client {
    /// Lists the image tags of a repository, in the registry's order. A repository that is not there has none.
    ///
    /// # Errors
    /// When the registry cannot be asked, or the list has no end.
    pub fn tags(&self, repository: &Reference) -> Result<Vec<String>, RegistryError> {
        #[derive(Deserialize)]
        struct Page {
            tags: Option<Vec<String>>,
        }
        let host = self.host(&repository.registry);
        let path = format!("/v2/{}/tags/list", repository.repository);
        let mut at = At::Path(path);
        let mut seen = BTreeSet::new();
        let mut tags = Vec::new();
        let mut pages = BTreeSet::new();
        let what = "the list of image tags";
        loop {
            let mut ask = Ask::new(&host, Method::GET, at, &repository.repository, what);
            let (reply, bytes) = self.load(&mut ask, MAX_DOCUMENT)?;
            match reply.status() {
                200 => {}
                404 => return Ok(tags),
                _ => return Err(reply.refused()),
            }
            let page: Page = serde_json::from_slice(&bytes)
                .map_err(|_| reply.wrong("the answer is no list in JSON"))?;
            for tag in page.tags.unwrap_or_default() {
                // What is no image tag may be anything, and people will print it.
                if check_tag(&tag).is_ok() && seen.insert(tag.clone()) {
                    tags.push(tag);
                }
            }
            let Some(next) = place::next_page(&reply.url, reply.headers()) else {
                return Ok(tags);
            };
            if !pages.insert(next.clone()) || pages.len() > PAGES || tags.len() > TAGS {
                return Err(reply.wrong("the list has no end"));
            }
            at = At::Url(next);
        }
    }
}
