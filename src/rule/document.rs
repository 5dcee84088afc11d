//! Documents about images: nodes beside those of an image, which take it, or what it is made of. What makes documents of one
//! kind is a file, and a line in [`DOCUMENTS`].

use super::Lower;
use crate::graph::NodeId;
use crate::spec::{Problems, Target};

/// What makes documents of one kind about images.
pub(super) trait Documents: Sync {
    /// Returns the name by which they are asked for.
    fn name(&self) -> &'static str;

    /// Adds the nodes of the documents about one image of a target: what the node `image` makes. It is the image of the
    /// platform of `lower`; where `lower` has none, the index over several platforms.
    ///
    /// Each makes a [`crate::graph::Product::Document`]. Those with a subject are attached to it wherever the image goes.
    ///
    /// # Errors
    /// What of the target makes it impossible.
    fn lower(
        &self,
        target: &Target,
        image: NodeId,
        lower: &mut Lower<'_>,
    ) -> Result<Vec<NodeId>, Problems>;
}

/// All kinds of documents.
const DOCUMENTS: &[&dyn Documents] = &[
    #[cfg(test)]
    &super::toy_document_testing::Words,
];

/// Adds the nodes of those documents about an image that are wanted. Returns them in the order of [`DOCUMENTS`].
///
/// # Errors
/// What of the target makes it impossible.
pub(crate) fn documents(
    wanted: &[&str],
    target: &Target,
    image: NodeId,
    lower: &mut Lower<'_>,
) -> Result<Vec<NodeId>, Problems> {
    let mut nodes = Vec::new();
    for kind in DOCUMENTS.iter().filter(|it| wanted.contains(&it.name())) {
        nodes.extend(kind.lower(target, image, lower)?);
    }
    Ok(nodes)
}
