//! The images that deployment files may name: those of the manifest, as the cache has them, or those that a file of
//! `--metadata-file` holds.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::args;
use crate::cli::exit::Exit;
use crate::cli::setup::{Choice, Setup, here, store, usage};
use crate::cli::{CANCEL, build, lock};
use crate::exec::{self, Options};
use crate::graph::{Ports, Product};
use crate::oci::Digest;
use crate::rule::RULES;
use crate::source::read_document;
use crate::spec::{TargetId, nearest};
use crate::ui::{Mode, Progress};

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
    setup: Option<Setup>,
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
    pub(super) fn read(args: &args::Resolve) -> Result<Self, Exit> {
        match args.metadata.is_empty() {
            true => Self::of_manifest(args),
            false => Self::of_metadata(&args.metadata),
        }
    }

    fn of_manifest(args: &args::Resolve) -> Result<Self, Exit> {
        let words: Vec<String> = args.manifest.iter().cloned().collect();
        let choice = Choice {
            words: &words,
            set: &args.set,
            platforms: &args.platform,
        };
        let mut setup = Setup::new(&choice, Vec::new())?;
        if let (Some(word), false) = (&args.manifest, setup.targets.is_empty()) {
            let message = format!("`{word}` is no manifest");
            let help = "write `--manifest ./FOLDER`, or leave it out".to_owned();
            return Err(usage("imgdecl::cli::manifest", &message, Some(help)));
        }
        let targets = setup.spec.targets();
        let images = targets.filter(|target| RULES[target.rule].name() == "image");
        setup.targets = images.map(|target| target.id.clone()).collect();
        let plan = setup.plan(&lock::load(&setup.spec.root)?, false)?;
        let images = plan.images.into_iter().map(|image| Image {
            name: image.name,
            repository: image.names.repository,
            digest: None,
            id: Some(image.id),
        });
        Ok(Self {
            images: images.collect(),
            setup: Some(setup),
        })
    }

    fn of_metadata(paths: &[PathBuf]) -> Result<Self, Exit> {
        let here = here()?;
        let mut images: Vec<Image> = Vec::new();
        for path in paths {
            for found in metadata(&here.join(path))? {
                if images.iter().any(|image| image.name == found.name) {
                    let message = format!("`{}` stands twice in the metadata", found.name);
                    let help = "name files of images that differ".to_owned();
                    return Err(usage("imgdecl::resolve::metadata", &message, Some(help)));
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
            setup: None,
        })
    }

    /// Finds the image that a name stands for; else says what is wrong, and how to mend it.
    pub(super) fn find(&self, name: &str) -> Result<usize, (String, Option<String>)> {
        let Some(setup) = &self.setup else {
            return self.find_by_name(name);
        };
        let is_image = |rule: usize| RULES[rule].name() == "image";
        let id = setup
            .spec
            .resolve_typed(name, |target| is_image(target.rule))?;
        let found = |image: &Image| image.id.as_ref() == Some(&id);
        if let Some(index) = self.images.iter().position(found) {
            return Ok(index);
        }
        let rule = setup.spec.target(&id).map(|it| RULES[it.rule].name());
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
    pub(super) fn find_digests(&mut self, used: &BTreeSet<usize>) -> Result<(), Exit> {
        let Some(setup) = &mut self.setup else {
            return Ok(());
        };
        let ids = used
            .iter()
            .filter_map(|index| self.images[*index].id.clone());
        setup.targets = ids.collect();
        if setup.targets.is_empty() {
            return Ok(());
        }
        let plan = setup.plan(&lock::load(&setup.spec.root)?, false)?;
        let options = Options {
            jobs: std::thread::available_parallelism().map_or(1, usize::from),
            // Digests are in records: no layer is needed.
            want_layers: false,
            dry: true,
            workspace: setup.spec.root.display().to_string(),
        };
        let (store, watch) = (store()?, Progress::new(Mode::None, &CANCEL));
        let results = exec::run(
            &plan.graph,
            &store,
            Ports::OFFLINE,
            &options,
            &watch,
            &CANCEL,
        );
        build::failures(&plan, &results)?;
        lock::note_lacking(&plan.needs);
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
        self.setup.is_some()
    }
}

fn metadata(path: &Path) -> Result<Vec<Metadata>, Exit> {
    let fail = |why: String| {
        let message = format!("{} is no metadata of images: {why}", path.display());
        let help =
            "name a file that `build --push --metadata-file` or `push --metadata-file` wrote";
        usage(
            "imgdecl::resolve::metadata",
            &message,
            Some(help.to_owned()),
        )
    };
    let bytes = read_document(path).map_err(|error| fail(error.to_string()))?;
    serde_json::from_slice(&bytes).map_err(|error| fail(error.to_string()))
}
