//! What actions make. The set is closed, so that whoever takes products apart can do it exhaustively.
//!
//! Digests and sizes are always known; the bytes may be absent.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{ActionError, KeyWriter, Lazy, listing};
use crate::layer::{Changeset, Container, Facts, Tree};
use crate::oci::{Descriptor, DiffId, Digest, Platform, Reference};
use crate::store::{Blob, Health, Record, Store, StoreError};

/// What an action makes.
#[derive(Clone, Debug)]
pub enum Product {
    /// Something outside that was found, with its digest: a base in a layout, an archive.
    Found(Descriptor),
    /// What a rule brings into an image.
    Tree(TreeProduct),
    /// Several trees that were made to go together.
    Trees(Arc<Vec<TreeProduct>>),
    /// A layer's changes on top of what lies below it.
    Stack(Arc<Stack>),
    /// An image to build on.
    Base(Arc<Base>),
    /// A layer.
    Layer(Layer),
    /// An image of one platform.
    Image(Arc<Image>),
    /// An image of several platforms.
    Index(Arc<Index>),
}

/// A tree, known by the digest of its listing.
#[derive(Clone, Debug)]
pub struct TreeProduct {
    /// The digest of [`Tree::listing`].
    pub digest: Digest,
    /// The tree.
    pub tree: Arc<Lazy<Tree>>,
    /// The blobs that hold the tree's contents and listing, if it is kept in the store.
    pub blobs: Vec<Blob>,
}

/// A layer's changes, and the image that they make with what lies below.
#[derive(Debug)]
pub struct Stack {
    /// The trees that the changes come from, one for each part.
    pub parts: Vec<TreeProduct>,
    /// The facts below that decided something, a line for each.
    pub used: Vec<String>,
    /// The digest of the facts above, in their text form.
    pub above_digest: Digest,
    /// The changes.
    pub changes: Arc<Lazy<Changeset>>,
    /// The facts about the image up to and with this layer.
    pub above: Lazy<Facts>,
}

/// A finished layer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Layer {
    /// Media type, digest and size of the blob.
    pub descriptor: Descriptor,
    /// The digest of the uncompressed tar.
    pub diff_id: DiffId,
}

/// An image to build on, for one platform.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Base {
    /// The reference that it is known by, if any.
    pub name: Option<String>,
    /// The digest of the manifest or index that was asked for; docker archives have neither.
    pub digest: Option<Digest>,
    /// The registry's repository that has the layers, where the store need not hold them.
    pub remote: Option<Reference>,
    /// The config blob.
    pub config: Blob,
    /// The layers, bottom first.
    pub layers: Vec<Layer>,
    /// The folders and symlinks of the image; of a base in a registry, at least those that decide bytes.
    pub facts: Arc<Facts>,
    /// The blob that holds the facts.
    pub facts_blob: Blob,
}

/// An image of one platform.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Image {
    /// The manifest, with its platform.
    pub manifest: Descriptor,
    /// The config blob.
    pub config: Blob,
    /// The layers, bottom first.
    pub layers: Vec<Layer>,
}

impl Image {
    /// Returns the platform.
    pub fn platform(&self) -> Platform {
        self.manifest
            .platform
            .clone()
            .unwrap_or_else(|| Platform::new("linux", "amd64"))
    }
}

/// An image of several platforms.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Index {
    /// The index blob.
    pub descriptor: Descriptor,
    /// The images, in the order of the index.
    pub images: Vec<Image>,
}

impl Layer {
    /// Returns the blob.
    pub fn blob(&self) -> Blob {
        Blob::from(&self.descriptor)
    }
}

impl Image {
    /// Returns the manifest and the config.
    pub fn documents(&self) -> [Blob; 2] {
        [self.config, Blob::from(&self.manifest)]
    }
}

impl Index {
    /// Returns the index itself.
    pub fn document(&self) -> Blob {
        Blob::from(&self.descriptor)
    }
}

impl Product {
    /// Adds what this is to the key of an action that takes it.
    pub(super) fn write_key(&self, key: &mut dyn KeyWriter) {
        let json = |descriptor: &Descriptor| {
            serde_json::to_string(descriptor).expect("descriptors have string keys")
        };
        match self {
            Self::Found(descriptor) => key.field("found", &json(descriptor)),
            Self::Tree(tree) => tree.write_key(key),
            Self::Trees(trees) => trees.iter().for_each(|tree| tree.write_key(key)),
            Self::Stack(stack) => {
                stack.parts.iter().for_each(|tree| tree.write_key(key));
                stack.used.iter().for_each(|fact| key.field("below", fact));
            }
            Self::Base(base) => {
                key.field(
                    "base",
                    &base
                        .digest
                        .map_or("-".to_owned(), |digest| digest.to_string()),
                );
                key.field("base name", base.name.as_deref().unwrap_or("-"));
                key.field("base config", &base.config.digest.to_string());
                for layer in &base.layers {
                    key.field(
                        "base layer",
                        &format!("{} {}", json(&layer.descriptor), layer.diff_id),
                    );
                }
            }
            Self::Layer(layer) => key.field(
                "layer",
                &format!("{} {}", json(&layer.descriptor), layer.diff_id),
            ),
            Self::Image(image) => key.field("image", &json(&image.manifest)),
            Self::Index(index) => key.field("index", &json(&index.descriptor)),
        }
    }

    /// Returns the blobs without which the product is of no use: `layers` says whether those of layers count.
    pub fn blobs(&self, layers: bool) -> Vec<Blob> {
        let layer_blobs = |list: &[Layer]| -> Vec<Blob> {
            let foreign = |layer: &&Layer| layer.descriptor.urls.is_empty();
            list.iter()
                .filter(|_| layers)
                .filter(foreign)
                .map(Layer::blob)
                .collect()
        };
        match self {
            Self::Found(_) | Self::Stack(_) | Self::Trees(_) => Vec::new(),
            Self::Tree(tree) => tree.blobs.clone(),
            Self::Base(base) => [
                vec![base.config, base.facts_blob],
                // What lies in a registry is fetched by a node of its own.
                layer_blobs(if base.remote.is_some() {
                    &[]
                } else {
                    &base.layers
                }),
            ]
            .concat(),
            Self::Layer(layer) => layer_blobs(std::slice::from_ref(layer)),
            // The layers of an image are the products of other nodes, which answer for them.
            Self::Image(image) => image.documents().to_vec(),
            Self::Index(index) => vec![index.document()],
        }
    }

    /// Turns the product into a record.
    pub fn to_record(&self) -> Option<Record> {
        let saved = match self {
            Self::Found(_) | Self::Stack(_) | Self::Trees(_) => return None,
            Self::Tree(tree) => Saved::Tree {
                blobs: tree.blobs.clone(),
                digest: tree.digest,
            },
            Self::Base(base) => Saved::Base {
                name: base.name.clone(),
                digest: base.digest,
                remote: base.remote.as_ref().map(Reference::to_string),
                config: base.config,
                layers: base.layers.clone(),
                facts: base.facts_blob,
            },
            Self::Layer(layer) => Saved::Layer(layer.clone()),
            Self::Image(image) => Saved::Image(Image::clone(image)),
            Self::Index(index) => Saved::Index(Index::clone(index)),
        };
        Some(Record {
            blobs: self.blobs(true),
            product: serde_json::to_value(saved).expect("products have string keys only"),
        })
    }

    /// Turns a record into the product; `None` if it holds anything else, or a blob that it needs is gone.
    pub fn from_record(record: &Record, store: &Arc<Store>) -> Option<Self> {
        Some(match serde_json::from_value(record.product.clone()).ok()? {
            Saved::Tree { blobs, digest } => Self::Tree(TreeProduct::load(store, blobs, digest)?),
            Saved::Base {
                name,
                digest,
                remote,
                config,
                layers,
                facts,
            } => {
                let text = String::from_utf8(store.read_blob(&facts).ok()?).ok()?;
                Self::Base(Arc::new(Base {
                    name,
                    digest,
                    remote: remote.map(|text| text.parse()).transpose().ok()?,
                    config,
                    layers,
                    facts: Arc::new(Facts::parse(&text)?),
                    facts_blob: facts,
                }))
            }
            Saved::Layer(layer) => Self::Layer(layer),
            Saved::Image(image) => Self::Image(Arc::new(image)),
            Saved::Index(index) => Self::Index(Arc::new(index)),
        })
    }
}

/// The form of a product in a record.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Saved {
    Tree {
        blobs: Vec<Blob>,
        digest: Digest,
    },
    Base {
        name: Option<String>,
        digest: Option<Digest>,
        #[serde(default)]
        remote: Option<String>,
        config: Blob,
        layers: Vec<Layer>,
        facts: Blob,
    },
    Layer(Layer),
    Image(Image),
    Index(Index),
}

impl TreeProduct {
    /// Makes the product of a tree that is not kept in the store.
    pub fn new(tree: Tree) -> Self {
        Self {
            digest: tree.digest(),
            tree: Arc::new(Lazy::ready(Arc::new(tree))),
            blobs: Vec::new(),
        }
    }

    /// Makes the product of a tree that is known by its digest, and that `make` makes.
    pub fn lazy(
        digest: Digest,
        blobs: Vec<Blob>,
        make: impl Fn() -> Result<Tree, ActionError> + Send + Sync + 'static,
    ) -> Self {
        let make = move || same(make()?, &digest);
        Self {
            digest,
            tree: Arc::new(Lazy::new(make)),
            blobs,
        }
    }

    /// Keeps a tree in the store, all of whose contents are ranges or members of the blob `contents`, or in memory.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn keep(tree: Tree, contents: Blob, store: &Store) -> Result<Self, StoreError> {
        let listing = listing::put(&tree, store)?;
        Ok(Self {
            blobs: vec![listing, contents],
            ..Self::new(tree)
        })
    }

    fn load(store: &Arc<Store>, blobs: Vec<Blob>, digest: Digest) -> Option<Self> {
        let [listing, contents] = blobs[..] else {
            return None;
        };
        let store = store.clone();
        let make = move || {
            let damaged = "a listing in the cache is damaged";
            let tree = listing::get(&store, &listing, container(&store, &contents, ""))?;
            tree.ok_or_else(|| ActionError::new("imgdecl::cache", damaged))
        };
        Some(Self::lazy(digest, blobs, make))
    }

    /// Makes the product of a tree whose `listing` is in the store, and whose contents lie in the `archive` there, which
    /// people call `name`. Where either is gone or damaged, `make` makes the tree.
    pub fn listed(
        digest: Digest,
        [listing, archive]: [Blob; 2],
        name: &str,
        store: &Arc<Store>,
        make: impl Fn() -> Result<Tree, ActionError> + Send + Sync + 'static,
    ) -> Self {
        let (store, name) = (store.clone(), name.to_owned());
        let make = move || {
            let is_whole = store.check(&archive) == Health::Whole;
            let found = is_whole
                .then(|| listing::get(&store, &listing, container(&store, &archive, &name)));
            match found.and_then(Result::ok).flatten() {
                Some(tree) if tree.digest() == digest => Ok(Arc::new(tree)),
                _ => same(make()?, &digest),
            }
        };
        Self {
            digest,
            tree: Arc::new(Lazy::new(make)),
            blobs: Vec::new(),
        }
    }

    fn write_key(&self, key: &mut dyn KeyWriter) {
        key.lines("tree", &self.digest, &|line| {
            // Only the text of a key lists a tree; the hash takes the digest that stands for the lines.
            if let Ok(tree) = self.tree.get() {
                tree.listing(line);
            }
        });
    }
}

/// Returns the tree, if it is the one of that digest.
fn same(tree: Tree, digest: &Digest) -> Result<Arc<Tree>, ActionError> {
    match tree.digest() == *digest {
        true => Ok(Arc::new(tree)),
        false => Err(ActionError::new(
            "imgdecl::host::changed",
            "files changed while they were read",
        )
        .help("run the build again when nothing writes to them")),
    }
}

/// A blob of the store, in which contents lie.
fn container(store: &Store, blob: &Blob, name: &str) -> Container {
    Container {
        path: store.blob_path(&blob.digest),
        digest: blob.digest,
        name: name.to_owned(),
    }
}
