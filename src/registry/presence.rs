//! What shows that a registry has something. A status alone shows nothing: a login page, a proxy or a wrong host may say
//! 200 or 201 to all. Sends nothing.
//!
//! | question | what counts as yes |
//! |---|---|
//! | `HEAD` of a blob | 200 and its digest (`Docker-Content-Digest`), or its size (`Content-Length`) if it is no page; none of them another |
//! | `HEAD` of a manifest | 200, no page, and its digest, with no other size; where that is not said, a `GET` whose bytes have the digest |
//! | `POST` of an upload | 202 and a `Location` |
//! | `PATCH` of a chunk | 202; 201 of ECR and 204 of pulp and others, too. The end of the upload decides |
//! | mount, `PUT` of a blob | 201 and its digest; else any of 200 to 204, if the registry then shows the blob when it is asked |
//! | `PUT` of a manifest | 201 and its digest; else any of 200 to 204, if the registry then shows the manifest when it is asked |
//!
//! The spec wants 201 for what is put, and lets registries leave the digest out. Quay said 202 for manifests, and older
//! registries 204 for blobs; other clients take any 2xx on trust. What answers a question wrongly counts as not there, and
//! is sent; what answers a sending wrongly is an error.

use std::io;

use reqwest::Method;

use super::Client;
use super::backoff::Backoff;
use super::document::name_of;
use super::download::{Download, Verified};
use super::error::{Asked, RegistryError, clean};
use super::reply::Reply;
use super::source::Source;
use super::upload_session::Target;
use crate::oci::{Descriptor, Digest};

/// How often a registry is asked for what it said it had taken: it may take a moment to know.
const PROOFS: u32 = 3;

/// What a registry says of a blob.
pub(super) enum Seen {
    /// It is there.
    There,
    /// It is not, or is something else.
    Not,
    /// It says neither digest nor size.
    Unsaid,
}

impl Client {
    /// Tells whether a repository has a blob. An answer that no registry gives says that it has not: the sending decides.
    pub(super) fn has_blob(
        &self,
        target: Target<'_>,
        blob: &Descriptor,
    ) -> Result<bool, RegistryError> {
        let seen = self.doubted(self.look_at_blob(target, blob), Seen::Not)?;
        Ok(matches!(seen, Seen::There))
    }

    /// Asks what a repository has of a blob.
    ///
    /// # Errors
    /// When it cannot be asked, or the answer is none that a registry gives.
    pub(super) fn look_at_blob(
        &self,
        target: Target<'_>,
        blob: &Descriptor,
    ) -> Result<Seen, RegistryError> {
        let what = format!("the blob {}", blob.digest);
        let rest = format!("blobs/{}", blob.digest);
        let reply = self.send(&mut target.ask(Method::HEAD, &rest, &what))?;
        match reply.status() {
            200 if reply.page().is_none() || reply.digest() == Some(blob.digest) => {}
            // Some registries do not let a repository be looked into that is not there yet.
            403 | 404 => return Ok(Seen::Not),
            _ => return Err(reply.refused_for("200 or 404")),
        }
        let has_digest = reply.digest().map(|digest| digest == blob.digest);
        let has_size = reply.length().map(|size| size == blob.size);
        Ok(match (has_digest, has_size) {
            (Some(false), _) | (_, Some(false)) => Seen::Not,
            (Some(true), _) => Seen::There,
            // An empty answer is what a blob of no bytes looks like, and much else.
            (None, Some(true)) if blob.size > 0 => Seen::There,
            _ => Seen::Unsaid,
        })
    }

    /// Makes sure that a registry has a blob that it says it took, or mounted.
    ///
    /// # Errors
    /// When nothing shows it.
    pub(super) fn prove_blob(
        &self,
        target: Target<'_>,
        blob: &Descriptor,
        reply: Reply<'_>,
    ) -> Result<(), RegistryError> {
        if is_said(&reply, &blob.digest)? {
            return Ok(());
        }
        let mut backoff = Backoff::new(&self.limits, PROOFS);
        loop {
            let seen = self.doubted(self.look_at_blob(target, blob), Seen::Not)?;
            match seen {
                Seen::There => return Ok(()),
                Seen::Unsaid if self.gives_blob(target, blob)? => return Ok(()),
                Seen::Unsaid | Seen::Not => {}
            }
            match backoff.again(None) {
                Some(delay) => self.pause(delay)?,
                None => return Err(reply.refused_for("201, and has the blob from then on")),
            }
        }
    }

    /// Reads a blob back: for the few registries that say neither its digest nor its size.
    fn gives_blob(&self, target: Target<'_>, blob: &Descriptor) -> Result<bool, RegistryError> {
        let source = Source::own(self.host(&target.host.name), target.repository);
        let download = Download::new(self, vec![source], blob.clone());
        let mut bytes = Verified::new(download, blob.clone());
        let read = io::copy(&mut bytes, &mut io::sink());
        match self.monitor.is_stopped() {
            true => Err(RegistryError::Stopped),
            false => Ok(read.is_ok()),
        }
    }

    /// Makes sure that a registry has a manifest under a name, which it says it took.
    ///
    /// # Errors
    /// When nothing shows it.
    pub(super) fn prove_manifest(
        &self,
        target: Target<'_>,
        descriptor: &Descriptor,
        name: &str,
        reply: Reply<'_>,
    ) -> Result<(), RegistryError> {
        if is_said(&reply, &descriptor.digest)? {
            return Ok(());
        }
        let mut backoff = Backoff::new(&self.limits, PROOFS);
        loop {
            if self.digest_at(target, name, Some(descriptor))? == Some(descriptor.digest) {
                return Ok(());
            }
            match backoff.again(None) {
                Some(delay) => self.pause(delay)?,
                None => return Err(reply.refused_for("201, and has the manifest from then on")),
            }
        }
    }

    /// Tells whether an answer to `HEAD` of a manifest shows what is there, and returns its digest.
    pub(super) fn shown(
        &self,
        reply: &Reply<'_>,
        name: &str,
        expected: Option<&Descriptor>,
    ) -> Option<Digest> {
        let digest = reply.digest()?;
        let is_other = name_of(name).is_some_and(|name| name != digest);
        let wrong_size = expected
            .filter(|expected| expected.digest == digest)
            .zip(reply.length())
            .is_some_and(|(expected, length)| expected.size != length);
        (!is_other && !wrong_size && reply.page().is_none()).then_some(digest)
    }

    /// Takes an answer to a question that is none that a registry gives for another, and says so, once.
    pub(super) fn doubted<T>(
        &self,
        found: Result<T, RegistryError>,
        other: T,
    ) -> Result<T, RegistryError> {
        let refusal = match found {
            Err(RegistryError::Answer { refusal, .. }) => refusal,
            found => return found,
        };
        let Asked {
            registry,
            repository,
            method,
            ..
        } = &refusal.asked;
        let kind = refusal.kind.map(|kind| format!(", {kind}"));
        self.tell(&format!(
            "{registry}/{repository}: the answer to {method} is {}{}, which says nothing: what was asked for counts as not there",
            refusal.status,
            kind.unwrap_or_default(),
        ));
        Ok(other)
    }
}

/// Tells whether an answer says that something was stored, by status and digest.
///
/// # Errors
/// When it says that something else was.
fn is_said(reply: &Reply<'_>, digest: &Digest) -> Result<bool, RegistryError> {
    let Some(said) = reply.header("docker-content-digest").map(str::trim) else {
        return Ok(false);
    };
    let is_same = said == digest.to_string();
    if said.starts_with("sha256:") && !is_same {
        let said = clean(said);
        return Err(reply.wrong(format!("it was stored as {said} instead of {digest}")));
    }
    Ok(is_same && reply.status() == 201)
}
