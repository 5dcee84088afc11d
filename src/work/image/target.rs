//! Targets as images: built into the store, and nowhere else.

use std::rc::Rc;

use super::open::Stored;
use super::{Opened, Opener, Origin};
use crate::exec::{self, Caches, Options};
use crate::graph::Product;
use crate::oci::Descriptor;
use crate::work::Failed;
use crate::work::build::{OVER, failures, options};
use crate::work::lock::{self, Lacking};
use crate::work::net::Net;
use crate::work::workspace::Workspace;

impl Opener<'_> {
    /// Builds the image that a word names, and opens it.
    pub(super) fn open_target(&self, word: &str, workspace: Workspace) -> Result<Opened, Failed> {
        let mut built = self.open_targets(workspace)?;
        if let [_] = &built[..]
            && let Some(one) = built.pop()
        {
            return Ok(one);
        }
        let names: Vec<String> = built.iter().map(|it| format!("`{}`", it.name)).collect();
        let message = format!("`{word}` is a group of {} images", names.len());
        let help = match names.is_empty() {
            true => "name an image".to_owned(),
            false => format!("name one of {}", names.join(", ")),
        };
        Err(Failed::usage("imgdecl::image::group", &message, Some(help)))
    }

    /// Builds all images that were chosen, and opens them. Their names are those of the targets.
    pub(in crate::work) fn open_targets(
        &self,
        workspace: Workspace,
    ) -> Result<Vec<Opened>, Failed> {
        let built = self.build(&workspace, false)?;
        let workspace = Rc::new(workspace);
        let images = built.iter().map(|(name, root)| {
            let origin = Origin::Target(workspace.clone(), false.into());
            self.walk(name, root, &Stored(&*self.store), origin)
        });
        images.collect()
    }

    /// Builds what was chosen into the store. `with_bytes` says whether the layers are needed too. Returns the images.
    pub(super) fn build(
        &self,
        workspace: &Workspace,
        with_bytes: bool,
    ) -> Result<Vec<(String, Descriptor)>, Failed> {
        let (session, network) = (self.session, &self.open.network);
        workspace.remember(&self.store);
        let net = Net::of(session, workspace, network, &self.store)?;
        let lacking = Lacking::of(session, None, network.offline);
        let plan = lock::complete(session, workspace, with_bytes, lacking, &self.store, &net)?;
        let options = Options {
            want_layers: with_bytes,
            ..options(workspace, None, false)
        };
        let (ports, watch) = (net.ports(), &*session.events);
        let results = exec::run(
            &plan.graph,
            Caches::of(&self.store),
            ports,
            &options,
            watch,
            &session.stop,
        );
        failures(session, &plan.graph, &results).inspect_err(|_| session.news(&OVER))?;
        let images = plan.images.iter().filter_map(|image| {
            let root = match &results[image.node.0 as usize].product {
                Some(Product::Index(index)) => index.descriptor.clone(),
                Some(Product::Image(image)) => image.manifest.clone(),
                _ => return None,
            };
            Some((image.name.clone(), root))
        });
        Ok(images.collect())
    }
}
