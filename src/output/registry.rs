//! `--push`, and `push`: images go to their repositories.

use std::fmt;

use serde_json::json;

use super::{Needs, Output, OutputError, Planned, Report, Sink, Supply};
use crate::oci::{Descriptor, MediaType, Platform, Reference};
use crate::registry::{Client, PushImage, PushManifest};

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

    fn check_images(&self, images: &[Planned<'_>], _: &Platform) -> Result<(), OutputError> {
        check_repositories(images)
    }

    fn write(&self, images: &[Output], supply: &Supply<'_>) -> Result<Vec<Report>, OutputError> {
        let to_push: Result<Vec<PushImage>, OutputError> =
            images.iter().map(|it| self.to_push(it)).collect();
        let (mut reports, mut errors) = (Vec::new(), Vec::new());
        for pushed in self.client.push(&to_push?, supply.blobs) {
            match pushed {
                Ok(pushed) => {
                    let (sent, mounted, skipped) = (pushed.sent, pushed.mounted, pushed.skipped);
                    (supply.unsent)(mounted, skipped);
                    let value = json!({"sent": sent, "mounted": mounted, "skipped": skipped});
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
