//! What a registry has lost of an image is put again. Garbage collections that went wrong, backups and lost files of its
//! store leave manifests whose parts are gone. Sends no more than what is missing, and tries it once.

use std::collections::BTreeSet;

use super::Client;
use super::backoff::Backoff;
use super::blob::Way;
use super::error::RegistryError;
use super::image::{Blobs, PushManifest, Pushed};
use super::monitor::Ended;
use super::pull::short;
use super::upload_session::Target;
use crate::oci::{Descriptor, Digest};

/// What was found of what may be missing.
#[derive(Default)]
struct Repaired {
    /// The blobs that were looked at.
    seen: BTreeSet<Digest>,
    /// What was missing, and what was done.
    sent: Vec<(Descriptor, Ended)>,
}

impl Client {
    /// Puts a manifest or index under a name. Where the registry refuses it because parts are not there, they are asked
    /// for, sent, and it is put once more; once more, too, where nothing is missing. `below` are the images of an index, or the manifest's own.
    ///
    /// # Errors
    /// As [`Client::put_manifest`].
    pub(super) fn put_repaired(
        &self,
        target: Target<'_>,
        descriptor: &Descriptor,
        name: &str,
        below: &[PushManifest],
        blobs: &dyn Blobs,
        pushed: &mut Pushed,
    ) -> Result<Ended, RegistryError> {
        let error = match self.put_manifest(target, descriptor, name, blobs) {
            Err(error) => error,
            done => return done,
        };
        let Some(named) = error.missing() else {
            return Err(error);
        };
        let mut repaired = Repaired::default();
        for manifest in below {
            let own = &manifest.manifest;
            for blob in manifest.blobs() {
                self.repair_blob(
                    target,
                    blob,
                    named.contains(&blob.digest),
                    blobs,
                    &mut repaired,
                )?;
            }
            if own.digest != descriptor.digest {
                let is_named = named.contains(&own.digest);
                self.repair_manifest(target, own, is_named, blobs, &mut repaired)?;
            }
        }
        if repaired.sent.is_empty() {
            // It may not know yet what it took a moment ago.
            let delay = Backoff::new(&self.limits, 2).again(None);
            self.pause(delay.unwrap_or_default())?;
        }
        for (part, outcome) in repaired.sent {
            pushed.correct(&part, outcome);
        }
        self.put_manifest(target, descriptor, name, blobs)
    }

    /// Puts a blob that may be missing. What the registry itself calls missing is sent unasked: its answer to `HEAD` may
    /// come from a memory that does not know yet.
    fn repair_blob(
        &self,
        target: Target<'_>,
        blob: &Descriptor,
        is_named: bool,
        blobs: &dyn Blobs,
        repaired: &mut Repaired,
    ) -> Result<(), RegistryError> {
        if !repaired.seen.insert(blob.digest) {
            return Ok(());
        }
        let way = match is_named {
            true => Way::Lost,
            false => Way::Known,
        };
        let origin = blobs.origin(&blob.digest).filter(|origin| {
            origin.registry == target.host.name && origin.repository != target.repository
        });
        let from = origin.as_ref().map(|origin| origin.repository.as_str());
        let outcome = self.put_blob(target, blob, from, way, blobs)?;
        self.took(target, blob, outcome, repaired);
        Ok(())
    }

    /// Puts a manifest of an index that may be missing.
    fn repair_manifest(
        &self,
        target: Target<'_>,
        manifest: &Descriptor,
        is_named: bool,
        blobs: &dyn Blobs,
        repaired: &mut Repaired,
    ) -> Result<(), RegistryError> {
        let name = manifest.digest.to_string();
        let is_there = !is_named && self.digest_at(target, &name, Some(manifest))?.is_some();
        if !is_there {
            let outcome = self.put_manifest(target, manifest, &name, blobs)?;
            self.took(target, manifest, outcome, repaired);
        }
        Ok(())
    }

    fn took(&self, target: Target<'_>, part: &Descriptor, outcome: Ended, repaired: &mut Repaired) {
        if outcome != Ended::Skipped {
            self.tell_repaired(target, part, outcome);
            repaired.sent.push((part.clone(), outcome));
        }
    }

    /// Says that a registry lacked a part of an image, and what was done.
    pub(super) fn tell_repaired(&self, target: Target<'_>, part: &Descriptor, outcome: Ended) {
        let word = match part.media_type.compression() {
            _ if part.media_type.is_manifest() => "manifest",
            Some(_) => "layer",
            None => "config",
        };
        let done = match outcome {
            Ended::Mounted => "mounted from another repository",
            _ => "sent again",
        };
        self.monitor.note(&format!(
            "{}/{} lacked the {word} {} ({} bytes) of an image that was there: it was {done}",
            target.host.name,
            target.repository,
            short(&part.digest),
            part.size
        ));
    }
}
