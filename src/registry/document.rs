//! Manifests and indexes in a repository: what is there, and putting them there. Knows nothing of what lies below them.

use std::io::{self, Read};

use reqwest::Method;
use serde::Deserialize;

use super::Client;
use super::error::RegistryError;
use super::http::Payload;
use super::image::Blobs;
use super::media_type::document_type;
use super::monitor::{Direction, Ended, Going, Transfer};
use super::parallel;
use super::presence::Seen;
use super::pull::{ACCEPT, short};
use super::upload_session::Target;
use crate::oci::{Descriptor, Digest, MAX_DOCUMENT, MediaType, Reference};

impl Client {
    /// Tells whether the registry itself has what a reference names, by its digest or image tag.
    ///
    /// # Errors
    /// When the registry cannot be asked.
    pub fn has(&self, reference: &Reference) -> Result<bool, RegistryError> {
        let host = self.host(&reference.registry);
        let target = Target {
            host: &host,
            repository: &reference.repository,
        };
        let name = match (&reference.digest, &reference.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        };
        let found = self.ask_digest(target, &name, None)?;
        Ok(found.is_some_and(|found| reference.digest.is_none_or(|digest| digest == found)))
    }

    /// Tells of each blob whether a repository lacks it.
    ///
    /// # Errors
    /// When the registry cannot be asked.
    pub fn lacks(
        &self,
        repository: &Reference,
        blobs: &[Descriptor],
    ) -> Result<Vec<bool>, RegistryError> {
        let host = self.host(&repository.registry);
        let target = Target {
            host: &host,
            repository: &repository.repository,
        };
        let found = parallel::each(host.config.concurrency, blobs, |blob| {
            let permit = host.permits.acquire(&*self.monitor);
            let _permit = permit.map_err(|_| RegistryError::Stopped)?;
            let seen = self.look_at_blob(target, blob)?;
            Ok(!matches!(seen, Seen::There))
        });
        found.into_iter().collect()
    }

    /// Returns the digest of what an image tag or digest names in a repository. `expected` is what may be there. An answer
    /// that no registry gives says that nothing is there: the sending decides.
    pub(super) fn digest_at(
        &self,
        target: Target<'_>,
        name: &str,
        expected: Option<&Descriptor>,
    ) -> Result<Option<Digest>, RegistryError> {
        self.doubted(self.ask_digest(target, name, expected), None)
    }

    /// Asks for the digest of what an image tag or digest names.
    ///
    /// # Errors
    /// When it cannot be asked for, or the answer is none that a registry gives.
    fn ask_digest(
        &self,
        target: Target<'_>,
        name: &str,
        expected: Option<&Descriptor>,
    ) -> Result<Option<Digest>, RegistryError> {
        let what = format!("the manifest {name}");
        let rest = format!("manifests/{name}");
        let mut ask = target.ask(Method::HEAD, &rest, &what);
        ask.header("accept", ACCEPT);
        let reply = self.send(&mut ask)?;
        match reply.status() {
            200 => {
                if let Some(digest) = self.shown(&reply, name, expected) {
                    return Ok(Some(digest));
                }
            }
            404 => return Ok(None),
            _ if reply.is_passing() => return Err(reply.refused()),
            // The answer to a GET says why.
            _ => {}
        }
        let mut ask = target.ask(Method::GET, &rest, &what);
        ask.header("accept", ACCEPT);
        let (reply, bytes) = self.load(&mut ask, MAX_DOCUMENT)?;
        match reply.status() {
            200 => {
                let digest = Digest::of(&bytes);
                let is_it = match name_of(name) {
                    Some(name) => name == digest,
                    None => !matches!(
                        document_type(&reply, &bytes),
                        Err(RegistryError::Content { .. })
                    ),
                };
                match is_it {
                    true => Ok(Some(digest)),
                    false => Err(reply.refused_for("200 and that manifest, or 404")),
                }
            }
            // Some registries do not let a repository be looked into that is not there yet.
            403 | 404 => Ok(None),
            _ => Err(reply.refused_for("200 and that manifest, or 404")),
        }
    }

    /// Puts a manifest or index under its digest or an image tag.
    pub(super) fn put_manifest(
        &self,
        target: Target<'_>,
        descriptor: &Descriptor,
        name: &str,
        blobs: &dyn Blobs,
    ) -> Result<Ended, RegistryError> {
        let mut bytes = Vec::new();
        let what = format!("the manifest {}", descriptor.digest);
        let Some(file) = opened(descriptor, blobs)? else {
            return Err(RegistryError::Absent { what });
        };
        file.take(MAX_DOCUMENT + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| unreadable(&what, &error))?;
        self.put_document(target, descriptor, name, &bytes)?;
        Ok(Ended::Done)
    }

    /// Puts the bytes of a manifest or index. Returns whether the registry knows its subject.
    pub(super) fn put_document(
        &self,
        target: Target<'_>,
        descriptor: &Descriptor,
        name: &str,
        bytes: &[u8],
    ) -> Result<bool, RegistryError> {
        check_document(descriptor, bytes)?;
        let what = format!("the manifest {name}");
        let is_tag = name_of(name).is_none();
        let mut line = match descriptor.media_type.is_index() {
            true => format!("index {}", short(&descriptor.digest)),
            false => format!("manifest {}", short(&descriptor.digest)),
        };
        if is_tag {
            line.push_str(&format!(" as {name}"));
        }
        let full = format!("{}/{}", target.host.name, target.repository);
        let going = Going::start(
            &*self.monitor,
            &Transfer {
                direction: Direction::Push,
                what: &line,
                repository: &full,
                size: descriptor.size,
            },
        );
        let mut ask = target.ask(Method::PUT, &format!("manifests/{name}"), &what);
        ask.body = Payload::Bytes(bytes);
        ask.header("content-type", descriptor.media_type.as_str());
        let reply = self.send(&mut ask)?;
        let status = reply.status();
        if matches!(status, 200..=204) {
            let knows_subject = reply.header("oci-subject").is_some();
            self.prove_manifest(target, descriptor, name, reply)?;
            self.monitor.more(going.number(), descriptor.size);
            going.end(Ended::Done);
            return Ok(knows_subject);
        }
        let may_be_fixed = is_tag && matches!(status, 400 | 403 | 405 | 409 | 412 | 422 | 423);
        let error = reply.refused();
        if !may_be_fixed || error.missing().is_some() {
            return Err(error);
        }
        // Image tags that cannot be moved: what is there may be the same.
        match self.digest_at(target, name, Some(descriptor)) {
            Ok(Some(digest)) if digest == descriptor.digest => {
                going.end(Ended::Skipped);
                Ok(false)
            }
            Ok(Some(has)) => Err(error.into_immutable(has, descriptor.digest)),
            Err(RegistryError::Stopped) => Err(RegistryError::Stopped),
            _ => Err(error),
        }
    }
}

/// Returns the digest that a name is; `None` for an image tag.
pub(super) fn name_of(name: &str) -> Option<Digest> {
    name.parse().ok()
}

/// Opens a blob that is on this machine.
pub(super) fn opened(
    blob: &Descriptor,
    blobs: &dyn Blobs,
) -> Result<Option<Box<dyn Read + Send>>, RegistryError> {
    let what = format!("the blob {}", blob.digest);
    blobs.open(blob).map_err(|error| unreadable(&what, &error))
}

fn unreadable(what: &str, error: &io::Error) -> RegistryError {
    RegistryError::of_reader(error).unwrap_or_else(|| RegistryError::Document {
        what: what.to_owned(),
        why: format!("it cannot be read: {error}"),
    })
}

/// Checks a document before it is sent: its size, its digest, and that it says what its descriptor says. A registry
/// wants the media type to be the same in both places.
fn check_document(descriptor: &Descriptor, bytes: &[u8]) -> Result<(), RegistryError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Shape {
        media_type: Option<MediaType>,
    }
    let what = format!("the manifest {}", descriptor.digest);
    let fail = |why: String| Err(RegistryError::Document { what, why });
    let size = bytes.len() as u64;
    if size != descriptor.size {
        return fail(format!(
            "it has {size} bytes instead of {}",
            descriptor.size
        ));
    }
    let found = Digest::of(bytes);
    if found != descriptor.digest {
        return fail(format!("it has the digest {found}"));
    }
    let shape: Result<Shape, _> = serde_json::from_slice(bytes);
    match shape.map(|shape| shape.media_type) {
        Err(_) => fail("it is no JSON object".to_owned()),
        Ok(Some(other)) if other != descriptor.media_type => fail(format!(
            "it says {other} instead of {}",
            descriptor.media_type
        )),
        Ok(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_must_be_what_its_descriptor_says() {
        let bytes = br#"{"mediaType":"application/vnd.oci.image.index.v1+json"}"#;
        let index = Descriptor::of(MediaType::OciIndex, bytes);
        assert!(check_document(&index, bytes).is_ok());
        assert!(check_document(&index, b"{}").is_err());
        let manifest = Descriptor::of(MediaType::OciManifest, bytes);
        assert!(check_document(&manifest, bytes).is_err());
    }
}
