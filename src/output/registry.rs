//! `--push`, and `push`: images go to their repositories.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::json;

use super::{Needs, Output, OutputError, Planned, Report, Sink, Supply};
use crate::oci::{Descriptor, Digest, MediaType, Platform, Reference};
use crate::registry::{Attach, Client, PushImage, PushManifest, Pushed, RegistryError};

/// The repositories of images.
pub(crate) struct Registry<'a> {
    /// Who pushes.
    pub(crate) client: &'a Client,
    /// Every blob is asked for, even where the manifest that names it is there.
    pub(crate) is_checked: bool,
}

impl fmt::Display for Registry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("registries")
    }
}

impl Sink for Registry<'_> {
    fn needs(&self) -> Needs {
        Needs::Layers
    }

    fn takes(&self, is_pushed: bool) -> bool {
        is_pushed
    }

    fn check_images(&self, images: &[Planned<'_>], _: &Platform) -> Result<(), OutputError> {
        check_repositories(images)
    }

    fn write(&self, images: &[Output], supply: &Supply<'_>) -> Result<Vec<Report>, OutputError> {
        let to_push: Result<Vec<PushImage>, OutputError> =
            images.iter().map(|it| self.to_push(it)).collect();
        let to_push = to_push?;
        let (mut reports, mut errors) = (Vec::new(), Vec::new());
        let pushed = self.client.push(&to_push, supply.blobs);
        // What is attached comes last: a registry may refuse documents about what it does not have.
        let attached = self.attach(images, &to_push, &pushed, supply);
        for (pushed, attached) in pushed.into_iter().zip(attached) {
            match pushed.and_then(|it| Ok((it, attached?))) {
                Ok((pushed, attached)) => {
                    let (sent, mounted, skipped) = (pushed.sent, pushed.mounted, pushed.skipped);
                    (supply.unsent)(mounted, skipped);
                    let mut value = json!({"sent": sent, "mounted": mounted, "skipped": skipped});
                    if let Some(attached) = attached {
                        value["attached"] = json!(attached);
                    }
                    reports.push(("push", value));
                }
                Err(_) if supply.stop.is_asked() => return Err(OutputError::Stopped),
                Err(error) => errors.push(error),
            }
        }
        match errors.is_empty() {
            true => Ok(reports),
            false => Err(OutputError::Push(errors)),
        }
    }
}

impl Registry<'_> {
    /// Pushes what is attached to those images that were pushed. Returns for each the digests that were not there; nothing
    /// where nothing is attached.
    fn attach(
        &self,
        images: &[Output],
        to_push: &[PushImage],
        pushed: &[Result<Pushed, RegistryError>],
        supply: &Supply<'_>,
    ) -> Vec<Result<Option<Vec<Digest>>, RegistryError>> {
        let mut all = Vec::new();
        let mut owners = Vec::new();
        for (number, (image, place)) in images.iter().zip(to_push).enumerate() {
            if pushed[number].is_err() {
                continue;
            }
            let mut subjects: BTreeMap<Digest, Vec<&[u8]>> = BTreeMap::new();
            for document in &image.attached {
                let of_subject = subjects.entry(document.referrer.subject.digest);
                of_subject.or_default().push(&document.bytes);
            }
            for (subject, manifests) in subjects {
                owners.push(number);
                all.push(Attach {
                    repository: &place.repository,
                    subject,
                    manifests,
                    is_checked: self.is_checked,
                });
            }
        }
        let mut results: Vec<_> = images.iter().map(|_| Ok(None)).collect();
        let attached = self.client.attach(&all, supply.blobs);
        for (number, attached) in owners.into_iter().zip(attached) {
            let result: &mut Result<Option<Vec<Digest>>, RegistryError> = &mut results[number];
            match (result.as_mut(), attached) {
                (Ok(list), Ok(added)) => list.get_or_insert_default().extend(added),
                (Ok(_), Err(error)) => *result = Err(error),
                // The first error of an image is told.
                (Err(_), _) => {}
            }
        }
        results
    }

    fn to_push(&self, image: &Output) -> Result<PushImage, OutputError> {
        let repository = image.repository.clone().unwrap_or_default();
        let repository = repository.parse::<Reference>();
        let manifests = image.images().into_iter().map(|(_, image)| PushManifest {
            manifest: image.manifest.clone(),
            config: Descriptor::new(MediaType::OciConfig, image.config.digest, image.config.size),
            layers: image
                .layers
                .iter()
                .map(|layer| layer.descriptor.clone())
                .collect(),
        });
        Ok(PushImage {
            name: image.name.clone(),
            repository: repository.map_err(OutputError::Repository)?,
            tags: image.tags.clone(),
            root: image.descriptor(),
            is_checked: self.is_checked,
            manifests: manifests.collect(),
        })
    }
}

/// Makes sure that all images have a repository.
///
/// # Errors
/// When some have none.
pub(crate) fn check_repositories(images: &[Planned<'_>]) -> Result<(), OutputError> {
    let lacking = images.iter().filter(|it| it.repository.is_none());
    let lacking = lacking.filter_map(|it| Some((it.target.to_owned(), it.origin.clone()?)));
    let lacking: Vec<_> = lacking.collect();
    match lacking.is_empty() {
        true => Ok(()),
        false => Err(OutputError::NoRepository(lacking)),
    }
}
