//! One blob into one repository, by the least that does: it is there, or is mounted, or is sent. Chooses neither blobs
//! nor repositories.

use std::io::Read;

use super::Client;
use super::document::opened;
use super::download::{Download, Verified};
use super::error::RegistryError;
use super::image::Blobs;
use super::monitor::{Direction, Ended, Going, Transfer};
use super::pull::short;
use super::session::{Mount, Target};
use super::upload::Content;
use crate::oci::Descriptor;

impl Client {
    /// Puts a blob into a repository, by the least that does.
    pub(super) fn put_blob(
        &self,
        target: Target<'_>,
        blob: &Descriptor,
        from: Option<&str>,
        is_new: bool,
        blobs: &dyn Blobs,
    ) -> Result<Ended, RegistryError> {
        let word = match blob.media_type.compression() {
            Some(_) => "layer",
            None => "config",
        };
        let line = format!("{word} {}", short(&blob.digest));
        let name = format!("{}/{}", target.host.name, target.repository);
        let going = Going::start(
            &*self.monitor,
            &Transfer {
                direction: Direction::Push,
                what: &line,
                repository: &name,
                size: blob.size,
            },
        );
        let number = going.number();
        let end = |outcome| {
            going.end(outcome);
            Ok(outcome)
        };
        // A new repository has nothing: what can be mounted is not looked for.
        let is_blind = from.is_some() && is_new;
        if !is_blind && self.has_blob(target, blob)? {
            return end(Ended::Skipped);
        }
        let mut session = None;
        if let Some(from) = from {
            match self.mount(target, blob, from)? {
                Mount::Done => return end(Ended::Mounted),
                Mount::Session(open) => session = Some(open),
                Mount::Refused => {}
            }
            if is_blind && self.has_blob(target, blob)? {
                return end(Ended::Skipped);
            }
        }
        let what = format!("the blob {}", blob.digest);
        let open = || self.open(blob, blobs);
        let content = Content {
            blob,
            what: &what,
            transfer: number,
            open: &open,
        };
        self.upload(target, &content, session)?;
        end(Ended::Done)
    }

    /// Opens a blob: here, or where it is known to be.
    fn open<'c>(
        &'c self,
        blob: &Descriptor,
        blobs: &dyn Blobs,
    ) -> Result<Box<dyn Read + Send + 'c>, RegistryError> {
        if let Some(file) = opened(blob, blobs)? {
            return Ok(file);
        }
        let Some(origin) = blobs.origin(&blob.digest) else {
            let what = format!("the blob {}", blob.digest);
            return Err(RegistryError::Absent { what });
        };
        let download = Download::new(self, self.sources(&origin)?, blob.clone());
        Ok(Box::new(Verified::new(download, blob.clone())))
    }
}
