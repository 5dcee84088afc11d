//! Makes one tree of several: a layer of files is one tree, wherever its files come from.

use crate::graph::{Action, ActionError, Context, KeyWriter, Origin, Part, Product, TreeProduct};
use crate::layer::Tree;
use crate::oci::Digest;
use crate::rule::scan::explain_clash;

/// Merges the trees that are its inputs.
pub(in crate::rule) struct Merge(pub(in crate::rule) Origin);

impl Action for Merge {
    fn name(&self) -> &'static str {
        "merge"
    }

    fn is_cached(&self) -> bool {
        false
    }

    fn parameters(&self, _: &mut dyn KeyWriter) {}

    fn run(&self, context: &Context<'_>, inputs: &[Product]) -> Result<Product, ActionError> {
        let trees = inputs.iter().filter_map(|input| match input {
            Product::Tree(tree) => Some(tree.clone()),
            _ => None,
        });
        let parts: Vec<TreeProduct> = trees.collect();
        let merged = Merged(parts.iter().map(|it| it.digest).collect());
        let origin = self.0.clone();
        let of = parts.clone();
        let make = move |context: &Context<'_>| {
            let mut all = Tree::default();
            for part in &of {
                let tree = part.tree.get(context)?;
                all.merge(Tree::clone(&tree))
                    .map_err(|clash| explain_clash(&clash).at(&origin))?;
            }
            Ok(all)
        };
        // A build in which nothing changed needs no tree.
        let digest = context.recorded(&merged, || Ok(make(context)?.digest()))?;
        Ok(Product::Tree(
            TreeProduct::lazy(digest, make).made_of(&parts),
        ))
    }
}

/// The digest of the tree that others make together.
struct Merged(Vec<Digest>);

impl Part for Merged {
    fn name(&self) -> &'static str {
        "merge"
    }

    fn parameters(&self, key: &mut dyn KeyWriter) {
        key.list("trees", self.0.iter().map(Digest::to_string));
    }
}
