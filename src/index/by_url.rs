//! Files by their URLs alone: fetched as wheels are, with the words of whoever named a URL. Knows no index.

use reqwest::Url;

use super::download::Wheel;
use super::error::IndexError;
use super::{Indexes, Inner};
use crate::graph::{ActionError, Failure, OTHER_BYTES, Urls, WantedUrl};
use crate::net::{Fault, Monitor as _};
use crate::oci::Digest;
use crate::store::{Blob, Blobs, StoreError};

impl Urls for Indexes {
    fn fetch(&self, wanted: &WantedUrl<'_>, store: &dyn Blobs) -> Result<Blob, ActionError> {
        let inner = &self.inner;
        let Some(sha256) = wanted.sha256 else {
            return inner.fetch_url(wanted, store);
        };
        let stopped = || inner.monitor.is_stopped();
        let work = || match store.find(&sha256) {
            Some(blob) => Ok(blob),
            None => inner.fetch_url(wanted, store),
        };
        // What was fetched is in the store; what failed may be had from another URL.
        let blob = inner.wheels.get(&sha256, &stopped, |_| false, work);
        blob.unwrap_or_else(|| Err(ActionError::stopped()))
    }
}

impl Inner {
    /// Fetches a file that the store does not have.
    fn fetch_url(&self, wanted: &WantedUrl<'_>, store: &dyn Blobs) -> Result<Blob, ActionError> {
        let WantedUrl { url: text, sha256 } = *wanted;
        let url: Url = text.parse().map_err(|error| {
            ActionError::new("imgdecl::http::url", format!("`{text}` is no URL")).because(&error)
        })?;
        let name = url.path_segments().and_then(|mut it| it.next_back());
        let name = name.filter(|it| !it.is_empty()).unwrap_or(text).to_owned();
        let wheel = Wheel {
            url,
            index: None,
            login: None,
            file: &name,
            sha256,
            // Another size is told as another digest.
            size: None,
        };
        let once = || self.stream(&wheel, &wheel.ask(), store);
        // One that is another is fetched again, once: a cache on the way may have mixed two up.
        let fetched = match once() {
            Err(IndexError::Store(StoreError::Digest { .. })) => once(),
            other => other,
        };
        fetched.map_err(|error| match error {
            IndexError::Store(StoreError::Digest {
                expected, found, ..
            }) => other_bytes(text, found, expected),
            error => explain(text, error),
        })
    }
}

/// Makes the error of a file that is another one.
fn other_bytes(url: &str, found: Digest, expected: Digest) -> ActionError {
    let message = format!("`{url}` has other bytes than it should: {found} instead of {expected}");
    ActionError {
        failure: Failure::Remote,
        ..ActionError::new(OTHER_BYTES, message)
    }
    .help("find out why it was replaced")
}

/// Says why a file could not be fetched, and how to mend it.
fn explain(url: &str, error: IndexError) -> ActionError {
    let (code, help) = match &error {
        IndexError::Refused {
            status: 401 | 403,
            had_login,
            asked,
            ..
        } => {
            let host = &asked.host;
            let help = match had_login {
                true => format!("check what .netrc says about {host}, and what that user may read"),
                false => format!(
                    "if {host} wants credentials: it is asked with those that .netrc has for it"
                ),
            };
            ("imgdecl::http::refused", help)
        }
        IndexError::Refused {
            status: 429 | 500..,
            ..
        } => ("imgdecl::http::refused", "try again later".to_owned()),
        IndexError::Refused { .. } => ("imgdecl::http::refused", "check the URL".to_owned()),
        IndexError::Unreachable { fault, asked, .. } => {
            let help = match fault {
                Fault::Name => format!("check the name {}, and the network", asked.host),
                Fault::Tls(_) => {
                    "name the file of your certificate authorities in SSL_CERT_FILE".to_owned()
                }
                Fault::Proxy => "check HTTP_PROXY, HTTPS_PROXY and NO_PROXY".to_owned(),
                _ => format!("check the network, and whether {} is up", asked.host),
            };
            ("imgdecl::http::transport", help)
        }
        IndexError::Unsafe { .. } => (
            "imgdecl::http::unsafe",
            "write the URL that it leads to, if that is right".to_owned(),
        ),
        IndexError::Content { .. } => (
            "imgdecl::http::content",
            "check the URL; if it is right, the server or a proxy before it is damaged".to_owned(),
        ),
        _ => return error.into(),
    };
    ActionError {
        failure: Failure::Remote,
        causes: vec![error.to_string()],
        ..ActionError::new(code, format!("cannot fetch `{url}`"))
    }
    .help(help)
}
