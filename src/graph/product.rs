//! What actions make. The set is closed, so that whoever takes products apart can do it exhaustively.
//!
//! Digests and sizes are always known; the bytes may be absent.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{ActionError, Context, Document, KeyWriter, Lazy, listing};
use crate::layer::{Changeset, Container, Facts, Tree};
use crate::oci::{Descriptor, DiffId, Digest, Platform, Reference};
use crate::store::{Blob, Blobs, Health, Record, StoreError};

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
    /// A document, which may be about an image.
    Document(Arc<Document>),
}

/// A tree, known by the digest of its listing.
#[derive(Clone, Debug)]
pub struct TreeProduct {
    /// The digest of [`Tree::listing`].
    pub digest: Digest,
    /// The tree.
    pub tree: Arc<Lazy<Tree>>,
    /// Where it lies in the store, if it is kept there.
    kept: Option<Arc<Kept>>,
    /// The blobs of the store that hold the contents, as far as they lie there.
    contents: Vec<Blob>,
}

/// Where a tree lies in the store.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Kept {
    /// Its listing.
    listing: Blob,
    /// Its contents: one after the other, or an archive that holds them.
    contents: Blob,
    /// What people call the archive; empty where it has no name.
    name: String,
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
#[derive(Clone, Debug)]
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
    pub facts: Arc<Lazy<Facts>>,
    /// The blob that holds the facts.
    pub facts_blob: Blob,
}

impl Base {
    /// Returns the facts that a blob of the store holds: they are read when someone asks for them.
    fn facts_of(blob: Blob) -> Arc<Lazy<Facts>> {
        Arc::new(Lazy::new(move |context| {
            let text = String::from_utf8(context.read(&blob)?).ok();
            let facts = text.and_then(|text| Facts::parse(&text));
            let facts = facts.ok_or_else(|| context.lost(&blob, Health::Damaged));
            Ok(Arc::new(facts?))
        }))
    }
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
    /// Adds what this is to the key of an action that takes it. With a `context`, trees are listed where they can be read.
    pub(super) fn write_key(&self, key: &mut dyn KeyWriter, context: Option<&Context<'_>>) {
        let json = |descriptor: &Descriptor| {
            serde_json::to_string(descriptor).expect("descriptors have string keys")
        };
        match self {
            Self::Found(descriptor) => key.field("found", &json(descriptor)),
            Self::Tree(tree) => tree.write_key(key, context),
            Self::Trees(trees) => trees.iter().for_each(|tree| tree.write_key(key, context)),
            Self::Stack(stack) => {
                let parts = stack.parts.iter();
                parts.for_each(|tree| tree.write_key(key, context));
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
            Self::Document(document) => document.write_key(key),
        }
    }

    /// Returns the blobs that outputs read of the product: configs, manifests and indexes, and with `layers` also layers, and
    /// what is attached to images. What else its bytes are for is said by the actions that read them.
    pub fn for_outputs(&self, layers: bool) -> Vec<Blob> {
        let layer_blobs = |list: &[Layer]| -> Vec<Blob> {
            let foreign = |layer: &&Layer| layer.descriptor.urls.is_empty();
            list.iter()
                .filter(|_| layers)
                .filter(foreign)
                .map(Layer::blob)
                .collect()
        };
        match self {
            Self::Found(_) | Self::Stack(_) | Self::Tree(_) | Self::Trees(_) => Vec::new(),
            // What lies in a registry is fetched by a node of its own.
            Self::Base(base) if base.remote.is_some() => Vec::new(),
            Self::Base(base) => layer_blobs(&base.layers),
            Self::Layer(layer) => layer_blobs(std::slice::from_ref(layer)),
            // The layers of an image are the products of other nodes, which answer for them.
            Self::Image(image) => image.documents().to_vec(),
            Self::Index(index) => vec![index.document()],
            Self::Document(document) if layers => document.blobs(),
            Self::Document(_) => Vec::new(),
        }
    }

    /// Returns all blobs that the product's action put into the store, or found there: its record keeps them together.
    pub fn blobs(&self) -> Vec<Blob> {
        match self {
            Self::Tree(tree) => tree.stored(),
            Self::Base(base) => {
                [vec![base.config, base.facts_blob], self.for_outputs(true)].concat()
            }
            _ => self.for_outputs(true),
        }
    }

    /// Turns the product into the form that records hold; `None` for those that are made anew each time.
    pub fn to_value(&self) -> Option<serde_json::Value> {
        let saved = match self {
            Self::Found(_) | Self::Stack(_) | Self::Trees(_) => return None,
            Self::Tree(tree) => Saved::Tree {
                kept: Kept::clone(tree.kept.as_ref()?),
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
            Self::Document(document) => Saved::Document(Box::new(Document::clone(document))),
        };
        Some(serde_json::to_value(saved).expect("products have string keys only"))
    }

    /// Turns that form into the product; `None` if it is anything else. Reads nothing: bytes are read by whoever needs
    /// them.
    pub fn from_value(value: serde_json::Value) -> Option<Self> {
        Some(match serde_json::from_value(value).ok()? {
            Saved::Tree { kept, digest } => Self::Tree(TreeProduct::load(kept, digest)),
            Saved::Base {
                name,
                digest,
                remote,
                config,
                layers,
                facts,
            } => Self::Base(Arc::new(Base {
                name,
                digest,
                remote: remote.map(|text| text.parse()).transpose().ok()?,
                config,
                layers,
                facts: Base::facts_of(facts),
                facts_blob: facts,
            })),
            Saved::Layer(layer) => Self::Layer(layer),
            Saved::Image(image) => Self::Image(Arc::new(image)),
            Saved::Index(index) => Self::Index(Arc::new(index)),
            Saved::Document(document) => Self::Document(Arc::new(*document)),
        })
    }

    /// Turns the product into a record; `None` for those that are made anew each time.
    pub fn to_record(&self) -> Option<Record> {
        Some(Record::new(self.to_value()?, self.blobs()))
    }
}

/// The form of a product in a record.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Saved {
    Tree {
        kept: Kept,
        digest: Digest,
    },
    Base {
        name: Option<String>,
        digest: Option<Digest>,
        remote: Option<String>,
        config: Blob,
        layers: Vec<Layer>,
        facts: Blob,
    },
    Layer(Layer),
    Image(Image),
    Index(Index),
    Document(Box<Document>),
}

impl TreeProduct {
    /// Makes the product of a tree that is not kept in the store.
    pub fn new(tree: Tree) -> Self {
        Self {
            digest: tree.digest(),
            tree: Arc::new(Lazy::ready(Arc::new(tree))),
            kept: None,
            contents: Vec::new(),
        }
    }

    /// Makes the product of a tree that is known by its digest, and that `make` makes.
    pub fn lazy(
        digest: Digest,
        make: impl Fn(&Context<'_>) -> Result<Tree, ActionError> + Send + Sync + 'static,
    ) -> Self {
        let make = move |context: &Context<'_>| same(make(context)?, &digest);
        Self {
            digest,
            tree: Arc::new(Lazy::new(make)),
            kept: None,
            contents: Vec::new(),
        }
    }

    /// The same product, whose contents lie in the store where those of `other` do.
    #[must_use]
    pub fn with_contents_of(self, other: &Self) -> Self {
        let contents = other.contents.clone();
        Self { contents, ..self }
    }

    /// The same product, which is made of several others, and has their contents.
    #[must_use]
    pub fn made_of(self, others: &[Self]) -> Self {
        let contents = others.iter().flat_map(Self::reads).collect();
        Self { contents, ..self }
    }

    /// Keeps a tree in the store, all of whose contents are ranges or members of the blob `contents`, or in memory. `name`
    /// is what people call that blob where it is an archive.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn keep(
        tree: Tree,
        contents: Blob,
        name: &str,
        store: &dyn Blobs,
    ) -> Result<Self, StoreError> {
        let kept = Kept {
            listing: listing::put(&tree, store)?,
            contents,
            name: name.to_owned(),
        };
        Ok(Self {
            kept: Some(Arc::new(kept)),
            contents: vec![contents],
            ..Self::new(tree)
        })
    }

    fn load(kept: Kept, digest: Digest) -> Self {
        let kept = Arc::new(kept);
        let known = kept.clone();
        let make = move |context: &Context<'_>| {
            let Kept {
                listing,
                contents,
                name,
            } = &*known;
            let bytes = context.read(listing)?;
            let container = Container {
                path: context.store.local_path(&contents.digest),
                digest: contents.digest,
                name: name.clone(),
            };
            let tree = listing::parse(&bytes, container);
            let tree = tree.filter(|tree| tree.digest() == digest);
            let tree = tree.ok_or_else(|| context.lost(listing, Health::Damaged))?;
            Ok(Arc::new(tree))
        };
        Self {
            digest,
            tree: Arc::new(Lazy::new(make)),
            contents: vec![kept.contents],
            kept: Some(kept),
        }
    }

    /// Returns the blobs that hold the tree, if it is kept in the store.
    fn stored(&self) -> Vec<Blob> {
        let both = |kept: &Arc<Kept>| [kept.listing, kept.contents];
        self.kept.iter().flat_map(both).collect()
    }

    /// Returns the blobs that have to be read where all of the tree is needed.
    pub fn reads(&self) -> Vec<Blob> {
        let listing = self.kept.as_ref().map(|kept| kept.listing);
        let listing = listing.filter(|_| !self.tree.is_made());
        let contents = self.contents.iter().copied();
        listing.into_iter().chain(contents).collect()
    }

    fn write_key(&self, key: &mut dyn KeyWriter, context: Option<&Context<'_>>) {
        key.lines("tree", &self.digest, &|line| {
            // Only the text of a key lists a tree; the hash takes the digest that stands for the lines.
            let tree = context.and_then(|context| self.tree.get(context).ok());
            if let Some(tree) = tree {
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
