//! Targets as images: built into the store, and nowhere else.

use std::rc::Rc;

use super::open::Stored;
use super::{Opened, Opener, Origin};
use crate::cli::environment::is_ci;
use crate::cli::exit::Exit;
use crate::cli::lock::{self, Lacking};
use crate::cli::net::Net;
use crate::cli::setup::{Setup, usage};
use crate::cli::{CANCEL, build};
use crate::exec::{self, Options};
use crate::graph::Product;
use crate::oci::Descriptor;

impl Opener<'_> {
    /// Builds the image that a word names, and opens it.
    pub(super) fn open_target(&self, word: &str, setup: Setup) -> Result<Opened, Exit> {
        let mut built = self.open_targets(setup)?;
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
        Err(usage("imgdecl::image::group", &message, Some(help)))
    }

    /// Builds all images that were chosen, and opens them. Their names are those of the targets.
    pub(in crate::cli) fn open_targets(&self, setup: Setup) -> Result<Vec<Opened>, Exit> {
        let built = self.build(&setup, false)?;
        let setup = Rc::new(setup);
        let images = built.iter().map(|(name, root)| {
            let origin = Origin::Target(setup.clone(), false.into());
            self.walk(name, root, &Stored(&self.store), origin)
        });
        images.collect()
    }

    /// Builds what was chosen into the store. `with_bytes` says whether the layers are needed too. Returns the images.
    pub(super) fn build(
        &self,
        setup: &Setup,
        with_bytes: bool,
    ) -> Result<Vec<(String, Descriptor)>, Exit> {
        setup.remember(&self.store);
        let args = (&self.args.net, &self.args.index);
        let net = Net::of(setup, args, self.args.offline, &self.store, &self.progress)?;
        let lacking = match (is_ci(), self.args.offline) {
            (true, _) => Lacking::Locked,
            (false, true) => Lacking::Offline,
            (false, false) => Lacking::Resolve,
        };
        let plan = lock::complete(
            setup,
            with_bytes,
            lacking,
            &self.store,
            &net,
            &self.progress,
        )?;
        let options = Options {
            jobs: std::thread::available_parallelism().map_or(1, usize::from),
            want_layers: with_bytes,
            dry: false,
            workspace: setup.spec.root.display().to_string(),
        };
        let (ports, watch) = (net.ports(), &*self.progress);
        let results = exec::run(&plan.graph, &self.store, ports, &options, watch, &CANCEL);
        build::failures(&plan, &results).inspect_err(|_| self.progress.finish())?;
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
