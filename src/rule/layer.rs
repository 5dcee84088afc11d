//! What all layer rules share: trees are put onto what lies below, and written.

use std::path::Path;
use std::sync::Arc;

use super::host::content_error;
use crate::graph::{
    Action, ActionError, Context, KeyWriter, Layer, Lazy, Part, Product, Stack, TreeProduct,
};
use crate::layer::{self, Facts, Placed, ResolveError, Reuse, WriteError, compressor_id, resolve};
use crate::oci::{Compression, Descriptor, Digest};
use crate::store::{Blob, Health, Piece, Store, StoreError};

/// Puts the trees of one layer onto the image below: its first input, if it `has_below`.
pub(super) struct StackAction {
    pub(super) has_below: bool,
    /// Which of the trees of its other input are this layer's, where one node makes those of several layers.
    pub(super) pick: Option<Vec<usize>>,
}

impl Action for StackAction {
    fn name(&self) -> &'static str {
        "stack"
    }

    fn is_cached(&self) -> bool {
        false
    }

    fn parameters(&self, key: &mut dyn KeyWriter) {
        key.flag("has below", self.has_below);
        if let Some(pick) = &self.pick {
            key.list("pick", pick.iter().map(usize::to_string));
        }
    }

    fn run(&self, context: &Context<'_>, inputs: &[Product]) -> Result<Product, ActionError> {
        let (below, trees) = inputs.split_at(usize::from(self.has_below));
        let below = below.first().cloned();
        let below_digest = match &below {
            Some(Product::Base(base)) => base.facts_blob.digest,
            Some(Product::Stack(stack)) => stack.above_digest,
            _ => Digest::of(b""),
        };
        let mut parts: Vec<TreeProduct> = Vec::new();
        for product in trees {
            match (product, &self.pick) {
                (Product::Tree(tree), _) => parts.push(tree.clone()),
                (Product::Trees(trees), Some(pick)) => {
                    parts.extend(pick.iter().filter_map(|index| trees.get(*index).cloned()));
                }
                _ => {}
            }
        }
        let trees: Vec<_> = parts.iter().map(|part| part.tree.clone()).collect();
        let from = below.clone();
        let changes = Arc::new(Lazy::new(move |context: &Context<'_>| {
            let trees = trees.iter().map(|tree| tree.get(context));
            let trees: Result<Vec<_>, ActionError> = trees.collect();
            let changes = resolve(&trees?, &*facts(&from, context)?);
            Ok(Arc::new(changes.map_err(|errors| explain(&errors))?))
        }));
        let made = changes.clone();
        let above = Lazy::new(move |context: &Context<'_>| {
            let below = facts(&below, context)?;
            Ok(Arc::new(made.get(context)?.above(&below)))
        });

        // A build in which nothing changed needs no tree.
        let uses = Uses {
            below: below_digest,
            trees: parts.iter().map(|part| part.digest).collect(),
        };
        let (used, above_digest): (Vec<String>, Digest) = context.recorded(&uses, || {
            let changes = changes.get(context)?;
            let used = changes.used.iter().map(|(path, fact)| fact.key_text(path));
            let above = above.get(context)?.to_text();
            Ok((used.collect(), Digest::of(above.as_bytes())))
        })?;
        Ok(Product::Stack(Arc::new(Stack {
            parts,
            used,
            above_digest,
            changes,
            above,
        })))
    }
}

/// What trees use of the facts below, and the digest of the facts above.
struct Uses {
    /// The digest of the facts below.
    below: Digest,
    trees: Vec<Digest>,
}

impl Part for Uses {
    fn name(&self) -> &'static str {
        "stack"
    }

    fn parameters(&self, key: &mut dyn KeyWriter) {
        key.field("facts below", &self.below.to_string());
        key.list("trees", self.trees.iter().map(Digest::to_string));
    }
}

/// Returns the facts of what lies below.
fn facts(below: &Option<Product>, context: &Context<'_>) -> Result<Arc<Facts>, ActionError> {
    match below {
        Some(Product::Base(base)) => base.facts.get(context),
        Some(Product::Stack(stack)) => stack.above.get(context),
        _ => Ok(Arc::default()),
    }
}

fn explain(errors: &[ResolveError]) -> ActionError {
    let Some(first) = errors.first() else {
        return ActionError::new("imgdecl::layer::place", "the layer cannot be placed");
    };
    let (code, help) = match first {
        ResolveError::Clash(_) => (
            "imgdecl::layer::clash",
            "keep one of them; `exclude` leaves a path out",
        ),
        ResolveError::NoFolder { .. } => (
            "imgdecl::layer::no_folder",
            "rename one of them, or leave it out with `exclude`",
        ),
        ResolveError::Replaces { .. } => (
            "imgdecl::layer::replaces",
            "give it another place with `dest`, or write `replace = true` if the image below shall lose it",
        ),
        ResolveError::Links(_) => ("imgdecl::layer::links", "write the real path"),
        ResolveError::Hardlink { .. } => (
            "imgdecl::layer::hardlink",
            "include the file that it links to",
        ),
    };
    let mut error = ActionError::new(code, first.to_string()).help(help);
    let more = errors.iter().skip(1);
    error.causes = more.clone().take(4).map(ToString::to_string).collect();
    if errors.len() > 5 {
        error.causes.push(format!("and {} more", errors.len() - 5));
    }
    error
}

/// The compressed segments of the layers in the store.
struct Earlier<'a>(&'a Store);

impl Reuse for Earlier<'_> {
    fn find(&self, key: &Digest) -> Option<Vec<u8>> {
        let (
            Piece {
                key,
                offset,
                length,
                crc,
            },
            bytes,
        ) = self.0.piece(key)?;
        let placed = Placed {
            key,
            offset,
            length,
            crc,
        };
        placed.fits(&bytes).then_some(bytes)
    }
}

fn piece(placed: &Placed) -> Piece {
    let Placed {
        key,
        offset,
        length,
        crc,
    } = *placed;
    Piece {
        key,
        offset,
        length,
        crc,
    }
}

/// Writes a layer: the stack that is its one input.
pub(super) struct LayerAction {
    pub(super) compression: Compression,
}

impl Action for LayerAction {
    fn name(&self) -> &'static str {
        "layer"
    }

    fn parameters(&self, key: &mut dyn KeyWriter) {
        key.field("compressor", compressor_id(self.compression));
    }

    fn reads(&self, inputs: &[Product]) -> Vec<Blob> {
        let [Product::Stack(stack)] = inputs else {
            return Vec::new();
        };
        stack.parts.iter().flat_map(TreeProduct::reads).collect()
    }

    fn run(&self, context: &Context<'_>, inputs: &[Product]) -> Result<Product, ActionError> {
        let [Product::Stack(stack)] = inputs else {
            return Err(ActionError::bug("a layer takes one stack"));
        };
        let changes = stack.changes.get(context)?;
        let store = context.store;
        let containers = changes.containers();
        let check = |path: &Path| match store.sound_at(path) {
            Err(StoreError::Damaged(damage)) => {
                let blobs = self.reads(inputs);
                match blobs.iter().find(|blob| blob.digest == damage.digest) {
                    Some(blob) => Err(context.lost(blob, Health::Damaged)),
                    None => Err(StoreError::Damaged(damage).into()),
                }
            }
            other => other.map(drop).map_err(ActionError::from),
        };
        for (path, _) in containers.iter().filter(|(_, is_bare)| **is_bare) {
            check(path)?;
        }
        let mut blob = store.writer()?;
        let written = layer::write(
            &changes,
            self.compression,
            &Earlier(context.folder),
            &mut blob,
            context.tick,
        );
        let written = match written {
            Ok(written) => written,
            Err(WriteError::Content(error)) => {
                // What lies in the cache was right when it came there.
                for path in containers.keys() {
                    check(path)?;
                }
                return Err(content_error(&error, None));
            }
            Err(WriteError::Sink(error)) => return Err(store.unwritable(error).into()),
            Err(WriteError::Stopped) => return Err(ActionError::stopped()),
        };
        let blob = blob.complete()?;
        let pieces = written.segments.iter().map(piece).collect();
        context.folder.put_pieces(&blob, pieces)?;
        Ok(Product::Layer(Layer {
            descriptor: Descriptor::new(self.compression.layer(), blob.digest, blob.size),
            diff_id: written.diff_id,
        }))
    }
}
