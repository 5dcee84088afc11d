//! `push`: images that were built into a layout go to their repositories.

mod from;

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use super::build::{Made, OVER, check_metadata, check_pushed, finish, outputs, planned, write};
use super::net::{Net, Network};
use super::workspace::{Choice, Workspace};
use super::{Failed, News, Session, lock};
use crate::graph::{Image, Index, Layer, Product};
use crate::oci::{BASE_NAME, Config, Descriptor, Digest, Index as OciIndex, Manifest, Reference};
use crate::output::{Attached, Output, Place, Registry, Supply};
use crate::plan::PlannedImage;
use crate::registry::Blobs;
use crate::source::SourceError;
use crate::store::Blob;
use from::Kept;

/// What is to be pushed.
#[derive(Default)]
pub(crate) struct Request {
    /// The manifest, and which of its images.
    pub(crate) choice: Choice,
    /// How registries are reached.
    pub(crate) network: Network,
    /// The layout or archive that holds the images; the default layout if none is named.
    pub(crate) from: Option<PathBuf>,
    /// Registries are asked for every blob.
    pub(crate) check: bool,
    /// Image tags in place of the images' own.
    pub(crate) tags: Vec<String>,
    /// Where what scripts may want to know goes, from the working folder.
    pub(crate) metadata_file: Option<Place>,
}

/// Pushes images that were built. Returns them.
///
/// # Errors
/// When one of them was not built, has no repository, or cannot be pushed.
pub(crate) fn push(session: &Session, request: &Request) -> Result<Vec<Output>, Failed> {
    let here = session.here()?;
    let metadata_file = request.metadata_file.as_ref().map(|it| it.below(here));
    if let Some(place) = &metadata_file {
        check_metadata(place, &[])?;
    }
    let workspace = Workspace::new(session, &request.choice, Vec::new())?;
    let mut plan = workspace.plan(&lock::load(&workspace.spec.root)?, false)?;
    check_pushed(session, &workspace, &plan)?;
    plan.images.retain(|it| it.names.is_pushed);
    let images = planned(&workspace, &plan, &request.tags);
    crate::output::check_repositories(&images)?;
    let from = request.from.clone().unwrap_or_else(|| workspace.out());
    let mut blobs = InLayout {
        kept: Kept::open(session, &from, here)?,
        origins: BTreeMap::new(),
    };
    let mut all = BTreeMap::new();
    for image in &plan.images {
        let made = blobs.read(image, &request.tags);
        let made = made.map_err(|error| blobs.kept.missing(&error))?;
        all.insert(image.node, made);
    }
    let made = |image: &PlannedImage| all.get(&image.node).cloned();
    let mut images = outputs(&plan, &request.tags, &made);
    let net = Net::new(session, &request.network)?;
    if let Some(client) = net.client() {
        let supply = Supply {
            // They come from a layout.
            store: None,
            blobs: &blobs,
            host: &session.environment.platform,
            stop: &session.stop,
            note: &|text| session.note(text),
            unsent: &|mounted, there| session.news(&News::Unsent { mounted, there }),
            stdout: &session.stdout,
        };
        let registry = Registry {
            client,
            is_checked: request.check,
        };
        let pushed = write(session, &registry, &mut images, &supply);
        pushed.inspect_err(|_| session.news(&OVER))?;
    }
    session.news(&OVER);
    finish(session, &images, metadata_file.as_ref())?;
    Ok(images)
}

/// The blobs of a layout, or of an archive that holds one.
struct InLayout {
    kept: Kept,
    /// Where layers may have come from: what the manifests say of their bases.
    origins: BTreeMap<Digest, Reference>,
}

impl InLayout {
    /// Reads an image: its documents are checked, its layers are not opened.
    fn read(&mut self, image: &PlannedImage, tags: &[String]) -> Result<Made, SourceError> {
        let product = self.product(image, tags)?;
        let attached = self.attached(&product)?;
        Ok((product, attached))
    }

    /// Reads what is attached to an image, by whoever wrote it there. What is listed as a document, and is about nothing of
    /// it, is passed over.
    fn attached(&self, product: &Product) -> Result<Vec<Attached>, SourceError> {
        let about: Vec<Digest> = match product {
            Product::Image(image) => vec![image.manifest.digest],
            Product::Index(index) => {
                let manifests = index.images.iter().map(|image| image.manifest.digest);
                manifests.chain([index.descriptor.digest]).collect()
            }
            _ => Vec::new(),
        };
        let mut found = Vec::new();
        for entry in self.kept.documents() {
            let bytes = self.kept.blobs().piece(&entry)?.read()?;
            let attached = Attached::read(bytes);
            found.extend(attached.filter(|it| about.contains(&it.referrer.subject.digest)));
        }
        Ok(found)
    }

    fn product(&mut self, image: &PlannedImage, tags: &[String]) -> Result<Product, SourceError> {
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
