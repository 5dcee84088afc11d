//! `push`, and `build --push`: images that were built go to their repositories.

mod from;

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;

use super::args;
use super::build::{check_metadata, finish, output_error, stopped};
use super::exit::Exit;
use super::net::Net;
use super::setup::{Choice, Setup, here, usage};
use super::{CANCEL, lock, report};
use crate::exec::NodeResult;
use crate::graph::{Image, Index, Layer, Product};
use crate::oci::{
    BASE_NAME, Config, Descriptor, Digest, Index as OciIndex, Manifest, MediaType, Reference,
};
use crate::output::{Output, PushCounts};
use crate::plan::{Plan, PlannedImage};
use crate::registry::{Blobs, Client, PushImage, PushManifest};
use crate::source::SourceError;
use crate::spec::{Problem, Problems};
use crate::store::{Blob, Health, Store};
use crate::ui::Progress;
use from::Kept;
use std::sync::atomic::Ordering;

/// Makes sure that all images of a plan have a repository.
pub(super) fn check(setup: &Setup, plan: &Plan) -> Result<(), Exit> {
    let mut problems = Problems::default();
    for image in &plan.images {
        let Some(target) = setup.spec.target(&image.id) else {
            continue;
        };
        if image.names.repository.is_none() {
            let message = format!("`{}` has no repository to push to", image.name);
            let (code, label) = ("imgdecl::image::repository", "this image is to be pushed");
            let help = "write `repository` here, or under [defaults] for all images";
            problems.push(Problem::at(code, &target.table.origin(), message, label).help(help));
        }
    }
    match problems.is_empty() {
        true => Ok(()),
        false => Err(report::problems(problems)),
    }
}

/// Pushes images, and notes in `outputs` what that did. With `is_checked`, every blob is asked for.
pub(super) fn push(
    client: &Client,
    outputs: &mut [Output<'_>],
    blobs: &dyn Blobs,
    is_checked: bool,
    progress: &Progress,
) -> Result<(), Exit> {
    let images = outputs.iter().map(|output| to_push(output, is_checked));
    let images: Result<Vec<PushImage>, Exit> = images.collect();
    let mut worst = None;
    for (output, pushed) in outputs.iter_mut().zip(client.push(&images?, blobs)) {
        match pushed {
            Ok(pushed) => {
                progress.unsent(pushed.mounted, pushed.skipped);
                output.push = Some(PushCounts {
                    sent: pushed.sent,
                    mounted: pushed.mounted,
                    skipped: pushed.skipped,
                });
            }
            Err(_) if CANCEL.load(Ordering::Relaxed) => return Err(stopped()),
            Err(error) => worst = worst.max(Some(report::registry(error))),
        }
    }
    worst.map_or(Ok(()), Err)
}

fn to_push(output: &Output<'_>, is_checked: bool) -> Result<PushImage, Exit> {
    let repository = output.repository.clone().unwrap_or_default();
    let repository = repository.parse::<Reference>().map_err(|error| {
        let help = "write `repository` into the image's table".to_owned();
        usage("imgdecl::image::repository", &error.to_string(), Some(help))
    })?;
    let manifests = output.images().into_iter().map(|(_, image)| PushManifest {
        manifest: image.manifest.clone(),
        config: Descriptor::new(MediaType::OciConfig, image.config.digest, image.config.size),
        layers: image
            .layers
            .iter()
            .map(|layer| layer.descriptor.clone())
            .collect(),
    });
    Ok(PushImage {
        name: output.name.clone(),
        repository,
        tags: output.tags.clone(),
        root: output.descriptor(),
        is_checked,
        manifests: manifests.collect(),
    })
}

/// The blobs of a build: in the store, and base layers where they came from.
pub(super) struct Built<'a> {
    store: &'a Arc<Store>,
    origins: BTreeMap<Digest, Reference>,
}

impl<'a> Built<'a> {
    pub(super) fn new(store: &'a Arc<Store>, results: &[NodeResult]) -> Self {
        let mut origins = BTreeMap::new();
        for result in results {
            if let Some(Product::Base(base)) = &result.product
                && let Some(remote) = &base.remote
            {
                let digests = base.layers.iter().map(|layer| layer.descriptor.digest);
                origins.extend(digests.map(|digest| (digest, remote.clone())));
            }
        }
        Self { store, origins }
    }
}

impl Blobs for Built<'_> {
    fn open(&self, descriptor: &Descriptor) -> io::Result<Option<Box<dyn Read + Send>>> {
        let blob = Blob::from(descriptor);
        match self.store.check(&blob) {
            Health::Whole => {}
            Health::Missing => return Ok(None),
            // A damaged one is as good as none where it can be had from where it came.
            Health::Damaged if self.origins.contains_key(&blob.digest) => return Ok(None),
            Health::Damaged => {}
        }
        Ok(Some(Box::new(self.store.open_blob(&blob)?)))
    }

    fn origin(&self, digest: &Digest) -> Option<Reference> {
        self.origins.get(digest).cloned()
    }
}

/// Runs `imgdecl push`.
pub(super) fn run(args: &args::Push) -> Result<Exit, Exit> {
    let here = here()?;
    let metadata_file = args.metadata_file.as_ref().map(|path| here.join(path));
    if let Some(path) = &metadata_file {
        check_metadata(path, &[]).map_err(|error| output_error(&error))?;
    }
    let choice = Choice {
        words: &args.words,
        set: &args.set,
        platforms: &[],
    };
    let setup = Setup::new(&choice, Vec::new())?;
    let plan = setup.plan(&lock::load(&setup.spec.root)?, false)?;
    check(&setup, &plan)?;
    let from = args.from.clone().unwrap_or_else(|| setup.out());
    let mut blobs = InLayout {
        kept: Kept::open(&from, &here)?,
        origins: BTreeMap::new(),
    };
    let mut products = Vec::new();
    for image in &plan.images {
        let product = blobs.read(image, &args.tag);
        products.push(product.map_err(|error| blobs.kept.missing(&error))?);
    }
    let images = plan.images.iter().zip(&products);
    let mut outputs: Vec<Output<'_>> = images
        .map(|(image, product)| Output {
            name: image.name.clone(),
            repository: image.names.repository.clone(),
            tags: match args.tag.is_empty() {
                true => image.names.tags.clone(),
                false => args.tag.clone(),
            },
            product,
            push: None,
            load: None,
        })
        .collect();
    let progress = Arc::new(Progress::new(args.progress, &CANCEL));
    let net = Net::new(&args.net, &progress)?;
    if let Some(client) = net.client() {
        push(client, &mut outputs, &blobs, args.check, &progress)
            .inspect_err(|_| progress.finish())?;
    }
    progress.finish();
    finish(&outputs, metadata_file.as_deref(), args.format)
}

/// The blobs of a layout, or of an archive that holds one.
struct InLayout {
    kept: Kept,
    /// Where layers may have come from: what the manifests say of their bases.
    origins: BTreeMap<Digest, Reference>,
}

impl InLayout {
    /// Reads an image: its documents are checked, its layers are not opened.
    fn read(&mut self, image: &PlannedImage, tags: &[String]) -> Result<Product, SourceError> {
        let root = Descriptor {
            annotations: BTreeMap::new(),
            ..self.kept.select(image, tags)?
        };
        if !root.media_type.is_index() {
            let image = self.image(&root)?;
            return Ok(Product::Image(Arc::new(image)));
        }
        let index: OciIndex = self.document(&root)?;
        let images = index.manifests.iter();
        let images: Result<Vec<Image>, SourceError> =
            images.map(|manifest| self.image(manifest)).collect();
        Ok(Product::Index(Arc::new(Index {
            descriptor: root,
            images: images?,
        })))
    }

    fn image(&mut self, descriptor: &Descriptor) -> Result<Image, SourceError> {
        let manifest: Manifest = self.document(descriptor)?;
        let config = self.kept.blobs().piece(&manifest.config)?;
        let config = Config::parse(&config.read()?)?;
        if let Some(base) = manifest.annotations.get(BASE_NAME)
            && let Ok(base) = base.parse::<Reference>()
        {
            let digests = manifest.layers.iter().map(|layer| layer.digest);
            self.origins
                .extend(digests.map(|digest| (digest, base.clone())));
        }
        let layers = manifest.layers.into_iter().zip(config.diff_ids()?);
        Ok(Image {
            manifest: Descriptor {
                platform: Some(config.platform()?),
                ..descriptor.clone()
            },
            config: Blob::from(&manifest.config),
            layers: layers
                .map(|(descriptor, diff_id)| Layer {
                    descriptor,
                    diff_id,
                })
                .collect(),
        })
    }

    fn document<T: serde::de::DeserializeOwned>(
        &self,
        descriptor: &Descriptor,
    ) -> Result<T, SourceError> {
        let piece = self.kept.blobs().piece(descriptor)?;
        serde_json::from_slice(&piece.read()?).map_err(|error| SourceError::Document {
            what: piece.what.clone(),
            kind: "manifest or index",
            why: error.to_string(),
        })
    }
}

impl Blobs for InLayout {
    fn open(&self, descriptor: &Descriptor) -> io::Result<Option<Box<dyn Read + Send>>> {
        self.kept.open_blob(descriptor)
    }

    fn origin(&self, digest: &Digest) -> Option<Reference> {
        self.origins.get(digest).cloned()
    }
}
