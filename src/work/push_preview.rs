//! What a push would do, as far as that is known before a build: registries are asked for what is built already, and
//! nothing is sent.

use std::collections::{BTreeMap, BTreeSet};

use super::Failed;
use crate::exec::{NodeResult, Outcome};
use crate::graph::{NodeId, Product};
use crate::oci::{Descriptor, Digest, MediaType, Reference};
use crate::plan::Plan;
use crate::registry::Client;

/// What a push would do about one image. A blob that several images have in a registry is counted as sent once.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct PushPreview {
    /// The name of the image.
    pub(crate) name: String,
    /// How many layers are not built yet: their sizes are not known.
    pub(crate) unbuilt: usize,
    /// The image itself is not as it was, or is not there.
    pub(crate) is_new: bool,
    /// Bytes that would be sent.
    pub(crate) send: u64,
    /// Bytes that another repository of the registry has, or will have by then.
    pub(crate) mount: u64,
    /// Bytes that are there.
    pub(crate) there: u64,
}

/// An image of the plan, and what is known of it.
struct Known {
    name: String,
    repository: Reference,
    blobs: BTreeMap<Digest, Descriptor>,
    unbuilt: usize,
    /// The manifest or index, if it is known.
    root: Option<Digest>,
}

/// Asks the registries of all images of a plan.
pub(super) fn push_preview(
    plan: &Plan,
    results: &[NodeResult],
    client: &Client,
) -> Result<Vec<PushPreview>, Failed> {
    let mut images = Vec::new();
    // Where the layers of bases lie: what is in the same registry is mounted from there.
    let mut held: BTreeSet<(String, Digest)> = BTreeSet::new();
    for image in plan.images.iter().filter(|it| it.names.is_pushed) {
        let repository = image.names.repository.as_deref().unwrap_or_default();
        let Ok(repository) = repository.parse::<Reference>() else {
            continue;
        };
        let mut known = Known {
            name: image.name.clone(),
            repository,
            blobs: BTreeMap::new(),
            unbuilt: 0,
            root: root(&results[image.node.0 as usize]),
        };
        let mut seen = BTreeSet::new();
        let mut open = image.documents.clone();
        open.push(image.node);
        while let Some(id) = open.pop() {
            if seen.insert(id) {
                look(plan, results, id, &mut known, &mut held);
                open.extend(plan.graph.node(id).inputs.iter().copied());
            }
        }
        images.push(known);
    }
    let mut lacking = Vec::new();
    for image in &images {
        let blobs: Vec<Descriptor> = image.blobs.values().cloned().collect();
        let lacks = client.lacks(&image.repository, &blobs);
        let lacks = lacks.map_err(Failed::from)?;
        let registry = &image.repository.registry;
        let (gone, there): (Vec<_>, Vec<_>) = blobs.iter().zip(lacks).partition(|it| it.1);
        held.extend(there.iter().map(|(it, _)| (registry.clone(), it.digest)));
        let has_root = match &image.root {
            Some(digest) => {
                let root = Reference {
                    tag: None,
                    digest: Some(*digest),
                    ..image.repository.clone()
                };
                client.has(&root).map_err(Failed::from)?
            }
            None => false,
        };
        let gone: BTreeSet<Digest> = gone.iter().map(|(it, _)| it.digest).collect();
        lacking.push((gone, has_root));
    }
    let push_preview = |(image, (gone, has_root)): (&Known, (BTreeSet<Digest>, bool))| {
        let mut found = PushPreview {
            name: image.name.clone(),
            unbuilt: image.unbuilt,
            is_new: !has_root,
            ..PushPreview::default()
        };
        for (digest, blob) in &image.blobs {
            let place = (image.repository.registry.clone(), *digest);
            match (gone.contains(digest), held.insert(place)) {
                (false, _) => found.there += blob.size,
                (true, false) => found.mount += blob.size,
                (true, true) => found.send += blob.size,
            }
        }
        found
    };
    Ok(images.iter().zip(lacking).map(push_preview).collect())
}

fn root(result: &NodeResult) -> Option<Digest> {
    match &result.product {
        Some(Product::Index(index)) => Some(index.descriptor.digest),
        Some(Product::Image(image)) => Some(image.manifest.digest),
        _ => None,
    }
}

/// Notes what a node brings into an image.
fn look(
    plan: &Plan,
    results: &[NodeResult],
    id: NodeId,
    known: &mut Known,
    held: &mut BTreeSet<(String, Digest)>,
) {
    let result = &results[id.0 as usize];
    let mut add = |descriptor: &Descriptor| {
        known.blobs.insert(descriptor.digest, descriptor.clone());
    };
    match &result.product {
        Some(Product::Base(base)) => {
            base.layers.iter().for_each(|layer| add(&layer.descriptor));
            if let Some(remote) = &base.remote {
                let digests = base.layers.iter().map(|layer| layer.descriptor.digest);
                held.extend(digests.map(|digest| (remote.registry.clone(), digest)));
            }
        }
        Some(Product::Layer(layer)) => add(&layer.descriptor),
        Some(Product::Image(image)) => {
            image.layers.iter().for_each(|layer| add(&layer.descriptor));
            let (digest, size) = (image.config.digest, image.config.size);
            add(&Descriptor::new(MediaType::OciConfig, digest, size));
        }
        Some(Product::Document(document)) => {
            add(&document.descriptor);
            document.referrer().iter().for_each(|it| add(&it.config));
        }
        _ => {
            let is_layer = plan.graph.node(id).action.name() == "layer";
            known.unbuilt += usize::from(is_layer && result.outcome == Outcome::Would);
        }
    }
}
