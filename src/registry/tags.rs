//! The image tags of a repository (distribution-spec, "Listing Tags"). Sorts nothing.

use std::collections::BTreeSet;

use reqwest::Method;
use serde::Deserialize;

use super::Client;
use super::error::RegistryError;
use super::http::{Ask, At};
use super::url;
use crate::oci::{MAX_DOCUMENT, Reference, check_tag, null_is_default};

/// How many pages are read, and how many image tags.
const PAGES: usize = 10_000;
const TAGS: usize = 1_000_000;
/// How large all pages of a list may be in sum, in bytes.
pub(super) const LIST: usize = 32 << 20;

impl Client {
    /// Lists the image tags of a repository, in the registry's order. A repository that is not there has none.
    ///
    /// # Errors
    /// When the registry cannot be asked, or the list has no end.
    pub fn tags(&self, repository: &Reference) -> Result<Vec<String>, RegistryError> {
        let host = self.host(&repository.registry);
        let path = format!("/v2/{}/tags/list", repository.repository);
        let mut at = At::Path(path);
        let mut seen = BTreeSet::new();
        let mut tags = Vec::new();
        let mut pages = BTreeSet::new();
        let mut size = 0;
        let what = "the list of image tags";
        loop {
            let mut ask = Ask::new(&host, Method::GET, at, &repository.repository, what);
            let (reply, bytes) = self.load(&mut ask, MAX_DOCUMENT)?;
            match reply.status() {
                200 => {}
                404 => return Ok(tags),
                _ => return Err(reply.refused()),
            }
            let page = page(&bytes).map_err(|_| reply.wrong("the answer is no list in JSON"))?;
            for tag in page {
                // What is no image tag may be anything, and people will print it.
                if check_tag(&tag).is_ok() && seen.insert(tag.clone()) {
                    tags.push(tag);
                }
            }
            let Some(next) = url::next_page(&reply.url, reply.headers()) else {
                return Ok(tags);
            };
            size += bytes.len();
            let is_long = pages.len() > PAGES || tags.len() > TAGS || size > LIST;
            if is_long || !pages.insert(next.clone()) {
                return Err(reply.wrong("the list has no end"));
            }
            at = At::Url(next);
        }
    }
}

/// Reads a page of the list. That of a repository without image tags may be `null`.
fn page(bytes: &[u8]) -> serde_json::Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Page {
        #[serde(default, deserialize_with = "null_is_default")]
        tags: Vec<String>,
    }
    serde_json::from_slice(bytes).map(|it: Page| it.tags)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Server, Told, client};
    use super::*;

    fn tags(server: &Server) -> Result<Vec<String>, RegistryError> {
        let reference: Reference = format!("{}/a", server.name).parse().unwrap();
        client("", None).0.tags(&reference)
    }

    #[test]
    fn pages_are_followed_to_the_end() {
        let server = Server::start(|_, asked| match asked.path.as_str() {
            "/v2/a/tags/list" => Told::new(200)
                .with("link", "</v2/a/tags/list?last=b&n=2>; rel=\"next\"")
                .body(r#"{"name":"a","tags":["a","b"]}"#),
            "/v2/a/tags/list?last=b&n=2" => Told::new(200)
                .with("link", "<?last=c>; rel=next")
                .body(r#"{"tags":["b","c","no\u001btag"]}"#),
            _ => Told::new(200).body(r#"{"tags":null}"#),
        });
        assert_eq!(tags(&server).unwrap(), ["a", "b", "c"]);
        assert_eq!(server.asked().len(), 3);
    }

    #[test]
    fn a_list_without_end_is_an_error() {
        let server = Server::start(|_, asked| {
            Told::new(200)
                .with("link", format!("<{}>; rel=next", asked.path))
                .body("{}")
        });
        let error = tags(&server).unwrap_err().to_string();
        assert!(error.contains("no end"), "{error}");
        assert_eq!(server.asked().len(), 2);
        // Pages that differ, and hold nothing.
        let page = format!("{{{}}}", " ".repeat(LIST / 3));
        let server = Server::start(move |before, _| {
            let next = format!("<?page={}>; rel=next", before.len());
            Told::new(200).with("link", next).body(page.as_str())
        });
        let error = tags(&server).unwrap_err().to_string();
        assert!(error.contains("no end"), "{error}");
        assert_eq!(server.asked().len(), 3);
        let server = Server::start(|_, _| Told::new(404));
        assert!(tags(&server).unwrap().is_empty());
    }

    #[test]
    fn null_is_absent() {
        let list = serde_json::json!({"name": "a/b", "tags": ["v1", "v2"]});
        crate::oci::assert_null_is_absent(&list, page);
    }
}
