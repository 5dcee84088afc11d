//! Bases on disk: found in a layout or archive, and brought into the store.

use std::sync::Arc;

use super::import::{Source, import};
use super::{DAMAGED, HostPath, explain};
use crate::graph::{Action, ActionError, Context, KeyWriter, Product};
use crate::oci::Platform;
use crate::source::{Archive, Layout, SourceError};

/// Finds an image in a layout: the entry of its index.
pub(super) struct FindLayout {
    pub(super) path: HostPath,
    pub(super) reference: Option<String>,
}

impl Action for FindLayout {
    fn name(&self) -> &'static str {
        "find"
    }

    fn is_cached(&self) -> bool {
        false
    }

    fn parameters(&self, key: &mut dyn KeyWriter) {
        key.field("path", &self.path.path.display().to_string());
        key.field("ref", self.reference.as_deref().unwrap_or("-"));
    }

    fn run(&self, _: &Context<'_>, _: &[Product]) -> Result<Product, ActionError> {
        let layout = Layout::open(&self.path.real()?).map_err(|error| self.path.explain(&error))?;
        let found = layout
            .select(self.reference.as_deref())
            .map_err(|error| self.path.explain(&error))?;
        Ok(Product::Found(found))
    }
}

/// Brings an image into the store, checked, and gathers its facts.
pub(super) struct Import {
    pub(super) path: HostPath,
    pub(super) reference: Option<String>,
    pub(super) is_layout: bool,
    pub(super) platform: Platform,
}

impl Action for Import {
    fn name(&self) -> &'static str {
        "base"
    }

    fn version(&self) -> u32 {
        2
    }

    fn parameters(&self, key: &mut dyn KeyWriter) {
        key.field("platform", &self.platform.to_string());
        key.field("ref", self.reference.as_deref().unwrap_or("-"));
    }

    fn run(&self, context: &Context<'_>, inputs: &[Product]) -> Result<Product, ActionError> {
        let [Product::Found(root)] = inputs else {
            return Err(ActionError::new(
                "imgdecl::bug",
                "a base is found before it is read",
            ));
        };
        let path = self.path.real()?;
        let explain = |error: SourceError| self.path.explain(&error);
        let base = if self.is_layout {
            let layout = Layout::open(&path).map_err(explain)?;
            let found = layout.find(root, &self.platform).map_err(explain)?;
            import(context, &found, &self.path, &mut |_, _, _| Ok(()))?
        } else {
            let archive = Archive::open(&path, context.store.tmp()).map_err(explain)?;
            let reference = self.reference.as_deref();
            let found = archive.find(reference, &self.platform).map_err(explain)?;
            import(context, &found, &self.path, &mut |_, _, _| Ok(()))?
        };
        Ok(Product::Base(Arc::new(base)))
    }
}

impl Source for HostPath {
    fn explain(&self, error: &SourceError) -> ActionError {
        explain(error).at(&self.origin)
    }

    fn damaged(&self, message: String) -> ActionError {
        ActionError::new("imgdecl::base::damaged", message)
            .at(&self.origin)
            .help(DAMAGED)
    }
}
