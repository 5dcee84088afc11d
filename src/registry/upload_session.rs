//! Uploads before a byte is sent (distribution-spec, "Pushing Blobs"): can a blob be mounted, and where does it go. Sends
//! nothing.

use reqwest::{Method, Url};

use super::Client;
use super::error::RegistryError;
use super::host::Host;
use super::http::{Ask, At, Auth};
use super::reply::Reply;
use super::scope::Scope;
use super::url;
use crate::oci::Descriptor;

/// A repository that is pushed to.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) host: &'a Host,
    pub(super) repository: &'a str,
}

impl<'a> Target<'a> {
    /// Makes a request for what lies below the repository.
    pub(super) fn ask(self, method: Method, rest: &str, what: &'a str) -> Ask<'a> {
        let path = format!("/v2/{}/{rest}", self.repository);
        self.ask_at(method, At::Path(path), what)
    }

    pub(super) fn ask_at(self, method: Method, at: At, what: &'a str) -> Ask<'a> {
        Ask {
            auth: Auth::Scopes(vec![Scope::push(self.repository)]),
            ..Ask::new(self.host, method, at, self.repository, what)
        }
    }
}

/// An upload that a registry is ready for.
pub(super) struct UploadSession {
    pub(super) location: Url,
    /// The least size of a chunk but the last, in bytes.
    pub(super) least: u64,
}

/// What became of a mount.
pub(super) enum Mount {
    /// The registry has the blob.
    Done,
    /// It has not, and waits for the bytes.
    Session(UploadSession),
    /// It does not want that.
    Refused,
}

impl Client {
    /// Asks a registry to take a blob from another of its repositories. Whatever goes wrong, the blob can be sent.
    ///
    /// # Errors
    /// When the user stopped.
    pub(super) fn mount(
        &self,
        target: Target<'_>,
        blob: &Descriptor,
        from: &str,
    ) -> Result<Mount, RegistryError> {
        let what = format!("a mount of the blob {} from {from}", blob.digest);
        let rest = format!("blobs/uploads/?mount={}&from={from}", blob.digest);
        let mut ask = Ask {
            auth: Auth::Scopes(vec![Scope::push(target.repository), Scope::pull(from)]),
            tries: Some(1),
            ..target.ask(Method::POST, &rest, &what)
        };
        match self.send(&mut ask) {
            Err(RegistryError::Stopped) => Err(RegistryError::Stopped),
            Err(_) => Ok(Mount::Refused),
            Ok(reply) if reply.status() == 201 => match self.prove_blob(target, blob, reply) {
                Ok(()) => Ok(Mount::Done),
                Err(RegistryError::Stopped) => Err(RegistryError::Stopped),
                Err(_) => Ok(Mount::Refused),
            },
            Ok(reply) if reply.status() == 202 => {
                Ok(self.session(&reply).map_or(Mount::Refused, Mount::Session))
            }
            Ok(_) => Ok(Mount::Refused),
        }
    }

    /// Starts an upload.
    pub(super) fn begin(
        &self,
        target: Target<'_>,
        what: &str,
    ) -> Result<UploadSession, RegistryError> {
        let reply = self.send(&mut target.ask(Method::POST, "blobs/uploads/", what))?;
        match reply.status() {
            202 => self.session(&reply),
            _ => Err(reply.refused()),
        }
    }

    fn session(&self, reply: &Reply<'_>) -> Result<UploadSession, RegistryError> {
        let Some(location) = self.led(reply)? else {
            return Err(reply
                .wrong("it is 202, and does not say where to upload: a registry says a Location"));
        };
        let least = reply.header("oci-chunk-min-length");
        Ok(UploadSession {
            location,
            least: least.and_then(|text| text.trim().parse().ok()).unwrap_or(0),
        })
    }

    /// Returns where an answer leads, if it says so.
    pub(super) fn led(&self, reply: &Reply<'_>) -> Result<Option<Url>, RegistryError> {
        let Some(text) = reply.header("location") else {
            return Ok(None);
        };
        let Some(url) = url::location(&reply.url, text) else {
            return Err(reply.wrong("the place to upload to is no URL"));
        };
        let is_insecure = self.host(&url::authority(&url)).config.insecure;
        match url::may_follow(&reply.url, &url, is_insecure) {
            Ok(()) => Ok(Some(url)),
            Err(why) => Err(RegistryError::Unsafe {
                asked: Box::new(reply.asked.clone()),
                to: format!("{}://{}", url.scheme(), url::authority(&url)),
                why,
            }),
        }
    }
}
