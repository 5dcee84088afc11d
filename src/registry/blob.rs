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
use super::upload::Content;
use super::upload_session::{Mount, Target};
use crate::oci::Descriptor;

/// What is known of a repository and a blob before anything is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// The repository may well be new.
    New,
    /// It may have the blob.
    Known,
    /// The registry says that it lacks it: nothing is asked or mounted, it is sent.
    Lost,
}

impl Client {
    /// Puts a blob into a repository, by the least that does.
    pub(super) fn put_blob(
        &self,
        target: Target<'_>,
        blob: &Descriptor,
        from: Option<&str>,
        way: Way,
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
        let from = from.filter(|_| way != Way::Lost);
        // A new repository has nothing: what can be mounted is not looked for.
        let is_blind = from.is_some() && way == Way::New;
        if !is_blind && way != Way::Lost && self.has_blob(target, blob)? {
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

#[cfg(test)]
mod tests {
    use std::io;

    use super::super::testing::{Server, Told, client, stored};
    use super::*;
    use crate::oci::{Digest, MediaType, Reference};

    /// A blob that is in another registry alone.
    struct There(Reference);

    impl Blobs for There {
        fn open(&self, _: &Descriptor) -> io::Result<Option<Box<dyn Read + Send>>> {
            Ok(None)
        }

        fn origin(&self, _: &Digest) -> Option<Reference> {
            Some(self.0.clone())
        }
    }

    fn put(source: &Server, target: &Server) -> Result<Ended, RegistryError> {
        let (client, _) = client("", None);
        let blobs = There(format!("{}/base", source.name).parse().unwrap());
        let blob = Descriptor::of(MediaType::OciLayer, b"0123456789");
        let host = client.host(&target.name);
        let target = Target {
            host: &host,
            repository: "a",
        };
        client.put_blob(target, &blob, None, Way::New, &blobs)
    }

    fn target() -> Server {
        Server::start(|_, asked| match asked.method.as_str() {
            "HEAD" => Told::new(404),
            "POST" => Told::new(202).with("location", "/v2/u"),
            _ => stored(asked),
        })
    }

    #[test]
    fn a_blob_of_another_registry_is_streamed_over_a_cut() {
        let source = Server::start(|before, _| match before.len() {
            0 => Told::new(200).body("0123456789").cut(4),
            _ => Told::new(206)
                .with("content-range", "bytes 4-9/10")
                .body("456789"),
        });
        let target = target();
        assert_eq!(put(&source, &target).unwrap(), Ended::Done);
        assert_eq!(target.asked()[2].body, b"0123456789");
        assert_eq!(source.asked().len(), 2);
    }

    #[test]
    fn wrong_bytes_of_another_registry_are_not_passed_on() {
        let source = Server::start(|_, _| Told::new(200).body("01234x6789"));
        let target = target();
        let error = put(&source, &target).unwrap_err().to_string();
        assert!(error.contains("instead of"), "{error}");
        let bodies = target.asked().into_iter().map(|it| it.body);
        assert!(bodies.into_iter().all(|it| it.is_empty()));
        let source = Server::start(|_, _| Told::new(404));
        let error = put(&source, &target).unwrap_err();
        assert_eq!(error.code(), "imgdecl::registry::not_found");
        assert!(error.to_string().contains(&source.name), "{error}");
    }
}
