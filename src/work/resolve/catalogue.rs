//! The images that deployment files may name: those of the manifest, as the cache has them, or those that a file of
//! `--metadata-file` holds.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Request;
use crate::exec::{self, Caches, Options};
use crate::graph::{Ports, Product};
use crate::oci::Digest;
use crate::rule::{RULES, Role};
use crate::source::read_document;
use crate::spec::{TargetId, nearest};
use crate::work::build::{failures, options};
use crate::work::workspace::{Choice, Workspace};
use crate::work::{Failed, News, Session, lock};

/// An image that files may name.
pub(super) struct Image {
    /// Its name for people.
    pub(super) name: String,
    /// Where it is kept.
    pub(super) repository: Option<String>,
    /// The digest of its manifest or index, once it is known.
    pub(super) digest: Option<Digest>,
    /// Its target, where there is a manifest.
    id: Option<TargetId>,
}

/// All images, and where they are from.
pub(super) struct Catalogue {
    pub(super) images: Vec<Image>,
    workspace: Option<Workspace>,
}

/// What is needed of an image in a file of metadata.
#[derive(Deserialize)]
struct Metadata {
    name: String,
    repository: Option<String>,
    digest: Digest,
}

impl Catalogue {
    /// Reads the manifest, or the metadata that the user names.
    pub(super) fn read(session: &Session, request: &Request) -> Result<Self, Failed> {
        match request.metadata.is_empty() {
            true => Self::of_manifest(session, request),
            false => Self::of_metadata(session, &request.metadata),
        }
    }

    fn of_manifest(session: &Session, request: &Request) -> Result<Self, Failed> {
        let choice = Choice {
            words: request.manifest.iter().cloned().collect(),
            set: request.set.clone(),
            platforms: request.platforms.clone(),
        };
        let mut workspace = Workspace::new(session, &choice, Vec::new())?;
        if let (Some(word), false) = (&request.manifest, !workspace.is_chosen) {
            let message = format!("`{word}` is no manifest");
            let help = "write `--manifest ./FOLDER`, or leave it out".to_owned();
            return Err(Failed::usage(
                "imgdecl::cli::manifest",
                &message,
                Some(help),
            ));
        }
        let targets = workspace.spec.targets();
        let images = targets.filter(|target| Role::of(target) == Role::Image);
        workspace.choose(images.map(|target| target.id.clone()).collect());
        let plan = workspace.plan(&lock::load(&workspace.spec.root)?, false)?;
        let images = plan.images.into_iter().map(|image| Image {
            name: image.name,
            repository: image.names.repository,
            digest: None,
            id: Some(image.id),
        });
        Ok(Self {
            images: images.collect(),
            workspace: Some(workspace),
        })
    }

    fn of_metadata(session: &Session, paths: &[PathBuf]) -> Result<Self, Failed> {
        let here = session.here()?;
        let mut images: Vec<Image> = Vec::new();
        for path in paths {
            for found in metadata(&here.join(path))? {
                if images.iter().any(|image| image.name == found.name) {
                    let message = format!("`{}` stands twice in the metadata", found.name);
                    let help = "name files of images that differ".to_owned();
                    return Err(Failed::usage(
                        "imgdecl::resolve::metadata",
                        &message,
                        Some(help),
                    ));
                }
                images.push(Image {
                    name: found.name,
                    repository: found.repository,
                    digest: Some(found.digest),
                    id: None,
                });
            }
        }
        Ok(Self {
            images,
            workspace: None,
        })
    }

    /// Finds the image that a name stands for; else says what is wrong, and how to mend it.
    pub(super) fn find(&self, name: &str) -> Result<usize, (String, Option<String>)> {
        let Some(workspace) = &self.workspace else {
            return self.find_by_name(name);
        };
        let id = workspace
            .spec
            .resolve_typed(name, |target| Role::of(target) == Role::Image)?;
        let found = |image: &Image| image.id.as_ref() == Some(&id);
        if let Some(index) = self.images.iter().position(found) {
            return Ok(index);
        }
        let rule = workspace.spec.target(&id).map(|it| RULES[it.rule].name());
        Err((
            format!(
                "`{name}` is no image, but a target of rule {}",
                rule.unwrap_or_default()
            ),
            Some(self.list()),
        ))
    }

    fn find_by_name(&self, name: &str) -> Result<usize, (String, Option<String>)> {
        let last = |name: &str| name.rsplit(':').next().map(str::to_owned);
        let exact = |image: &Image| image.name == name;
        if let Some(index) = self.images.iter().position(exact) {
            return Ok(index);
        }
        // Metadata has the shortest name that is clear; files may say the member as well.
        let found =
            |image: &Image| !image.name.contains(':') && Some(&image.name) == last(name).as_ref();
        if let (Some(index), true) = (self.images.iter().position(found), name.contains(':')) {
            return Ok(index);
        }
        let names: Vec<String> = self.images.iter().map(|it| it.name.clone()).collect();
        let help = match nearest(name, &names) {
            Some(near) => format!("did you mean `{near}`?"),
            None => self.list(),
        };
        Err((format!("there is no image `{name}`"), Some(help)))
    }

    fn list(&self) -> String {
        let names: Vec<String> = self
            .images
            .iter()
            .map(|it| format!("`{}`", it.name))
            .collect();
        match names.is_empty() {
            true => "there are no images".to_owned(),
            false => format!("the images are {}", names.join(", ")),
        }
    }

    /// Finds the digests of images, as far as they are built. Builds nothing.
    pub(super) fn find_digests(
        &mut self,
        session: &Session,
        used: &BTreeSet<usize>,
    ) -> Result<(), Failed> {
        let Some(workspace) = &mut self.workspace else {
            return Ok(());
        };
        let ids = used
            .iter()
            .filter_map(|index| self.images[*index].id.clone());
        let ids: Vec<TargetId> = ids.collect();
        if ids.is_empty() {
            return Ok(());
        }
        workspace.choose(ids);
        let plan = workspace.plan(&lock::load(&workspace.spec.root)?, false)?;
        let options = Options {
            // Digests are in records: no layer is needed.
            want_layers: false,
            explain: false,
            ..options(workspace, None, true)
        };
        let (store, watch) = (session.store()?, &*session.events);
        let (ports, stop) = (Ports::OFFLINE, &session.stop);
        let caches = Caches::of(&store);
        let results = exec::run(&plan.graph, caches, ports, &options, watch, stop);
        failures(session, &plan.graph, &results)?;
        session.news(&News::Lacks(&plan.needs));
        for planned in &plan.images {
            let digest = match &results[planned.node.0 as usize].product {
                Some(Product::Index(index)) => index.descriptor.digest,
                Some(Product::Image(image)) => image.manifest.digest,
                _ => continue,
            };
            let is_it = |image: &&mut Image| image.id.as_ref() == Some(&planned.id);
            if let Some(image) = self.images.iter_mut().find(is_it) {
                image.digest = Some(digest);
            }
        }
        Ok(())
    }

    /// Tells whether the images are those of the manifest.
    pub(super) fn is_of_manifest(&self) -> bool {
        self.workspace.is_some()
    }
}

fn metadata(path: &Path) -> Result<Vec<Metadata>, Failed> {
    let fail = |why: String| {
        let message = format!("{} is no metadata of images: {why}", path.display());
        let help =
            "name a file that `build --push --metadata-file` or `push --metadata-file` wrote";
        Failed::usage(
            "imgdecl::resolve::metadata",
            &message,
            Some(help.to_owned()),
        )
    };
    let bytes = read_document(path).map_err(|error| fail(error.to_string()))?;
    serde_json::from_slice(&bytes).map_err(|error| fail(error.to_string()))
}
