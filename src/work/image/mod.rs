//! What an IMAGE argument names, and opening it: the one place for all commands that look at images.
//!
//! A word is, in this order: a place with a prefix (`oci:DIR[:NAME]`, `oci-archive:FILE[:NAME]`,
//! `docker-archive:FILE[:REF]`, `docker://REF`); a target of the nearest manifest, which is built into the store; a
//! layout or archive that is on disk; a reference to an image in a registry.
//!
//! Opening reads the documents alone, and checks them. [`Opener::layers`] makes sure that the layers' bytes are at hand.

mod contents;
mod open;
mod target;
mod word;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use super::net::{Net, Network};
use super::workspace::Workspace;
use super::{Failed, Session};
use crate::oci::{Config, Descriptor, DiffId, Platform, Reference};
use crate::source::{Piece, SourceError};
use crate::store::{Blob, Blobs as _, Health, Store};
pub(super) use contents::{Budget, open as open_layer};
pub(crate) use contents::{Contents, Listed};
pub(super) use word::{Named, with_prefix};

/// How images are found: for all that looks at images.
#[derive(Clone, Default)]
pub(crate) struct Open {
    /// How the network is reached.
    pub(crate) network: Network,
    /// Only these platforms, if any is named.
    pub(crate) platforms: Vec<Platform>,
    /// Variables.
    pub(crate) set: Vec<(String, String)>,
}

/// Opens images.
pub(crate) struct Opener<'a> {
    pub(super) session: &'a Session,
    pub(super) open: &'a Open,
    pub(super) store: Arc<Store>,
    /// Registries alone; targets have a network of their own, with their package indexes.
    net: Net,
    /// Whether one image is wanted, of however many platforms.
    is_for_one: bool,
}

/// An image that was opened. All its documents were read and checked; none of its layers was.
pub(crate) struct Opened {
    /// What to call it.
    pub(crate) name: String,
    /// Where it was found.
    pub(crate) origin: Origin,
    /// The manifest or index; images of `docker save` have none.
    pub(crate) root: Option<Document>,
    /// The images, in the order of the index: those of the platforms that were asked for.
    pub(crate) images: Vec<Single>,
    /// The platforms that it has for which nobody asked.
    pub(crate) others: Vec<String>,
}

/// Where an image was found.
pub(crate) enum Origin {
    /// It is a target, and was built into the store. Whether its layers are there too.
    Target(Rc<Workspace>, Cell<bool>),
    /// In a layout.
    Layout,
    /// In an archive.
    Archive,
    /// In a registry.
    Registry(Reference),
}

impl Origin {
    /// Returns the word for it.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Target(..) => "target",
            Self::Layout => "layout",
            Self::Archive => "archive",
            Self::Registry(_) => "registry",
        }
    }
}

/// A manifest, index or config.
#[derive(Clone)]
pub(crate) struct Document {
    /// What names it: media type, digest and size, and what an index says of it.
    pub(crate) descriptor: Descriptor,
    /// Its bytes, which were checked.
    pub(crate) bytes: Vec<u8>,
}

/// An image of one platform.
pub(crate) struct Single {
    /// The platform: of the index's entry, or of the config. Something that is no image may have none.
    pub(crate) platform: Option<Platform>,
    /// The manifest; images of `docker save` have none.
    pub(crate) manifest: Option<Document>,
    /// The config; what is no image, such as an attestation, has none.
    pub(crate) config: Option<Document>,
    /// The layers, bottom first. See [`Opener::layers`].
    pub(crate) layers: Vec<Piece>,
}

/// A layer whose bytes are at hand: read them with [`Piece::open_layer`], which checks them.
pub(super) struct Layer<'a> {
    pub(super) piece: &'a Piece,
    /// What the config says of it.
    pub(super) diff_id: DiffId,
}

impl Single {
    /// Parses the config.
    pub(crate) fn parsed(&self) -> Option<Config> {
        let config = self.config.as_ref()?;
        Config::parse(&config.bytes).ok()
    }

    /// Returns the platform as people write it.
    pub(crate) fn platform_name(&self) -> String {
        let platform = self.platform.as_ref();
        platform.map_or_else(|| "-".to_owned(), ToString::to_string)
    }

    /// Tells whether this is an image that could be run, and not an attestation or another artifact.
    pub(crate) fn is_image(&self) -> bool {
        self.parsed().is_some()
    }
}

impl Opened {
    /// Returns the image of one platform: the only one, that of `wanted` if that is said, or else that of the host.
    pub(super) fn one(
        &self,
        wanted: Option<&Platform>,
        host: &Platform,
    ) -> Result<&Single, Failed> {
        let images = || self.images.iter().filter(|it| it.is_image());
        let platform = match (wanted, images().count()) {
            (Some(wanted), _) => wanted,
            (None, 1) => {
                return images()
                    .next()
                    .ok_or_else(|| Failed::bug("an image is gone"));
            }
            (None, _) => host,
        };
        let fits = |it: &&Single| it.platform.as_ref().is_some_and(|it| it.matches(platform));
        images().find(fits).ok_or_else(|| {
            let have: Vec<String> = images().map(Single::platform_name).collect();
            no_platform(
                &self.name,
                &platform.to_string(),
                &[have, self.others.clone()].concat(),
            )
        })
    }
}

fn no_platform(name: &str, wanted: &str, have: &[String]) -> Failed {
    let help = match have {
        [] => "it has no image at all".to_owned(),
        have => format!("it has: {}", have.join(", ")),
    };
    let message = format!("{name} has no image for {wanted}");
    Failed::build("imgdecl::image::no_platform", &message, Some(help))
}

impl<'a> Opener<'a> {
    /// Makes ready to open images. Opens no socket yet.
    pub(super) fn new(session: &'a Session, open: &'a Open) -> Result<Self, Failed> {
        Ok(Self {
            session,
            open,
            net: Net::new(session, &open.network)?,
            store: session.store()?,
            is_for_one: false,
        })
    }

    /// Wants one image alone: of a target for several platforms, that of the host.
    pub(super) fn for_one(self) -> Self {
        Self {
            is_for_one: true,
            ..self
        }
    }

    /// Opens the image that a word names.
    pub(super) fn open(&self, word: &str) -> Result<Opened, Failed> {
        let here = self.session.here()?;
        if let Some(named) = with_prefix(word, here) {
            let named =
                named.map_err(|why| Failed::usage("imgdecl::image::word", &why, Some(forms())))?;
            return self.open_named(word, named);
        }
        let missed =
            match Workspace::of_image(self.session, word, &self.open.set, &self.open.platforms)? {
                Ok(workspace) if self.is_for_one => {
                    return self
                        .open_target(word, workspace.for_one(&self.session.environment.platform));
                }
                Ok(workspace) => return self.open_target(word, workspace),
                Err(missed) => missed,
            };
        if word.ends_with(".toml") && here.join(word).is_file() {
            let message = format!("{word} is a manifest, and no image");
            let help = "name a target of it, in its folder".to_owned();
            return Err(Failed::usage("imgdecl::image::word", &message, Some(help)));
        }
        if let Some(named) = word::on_disk(word, here) {
            return self.open_named(word, named);
        }
        let tried = |message: &str| {
            let help = match &missed.near {
                Some(near) => format!("did you mean the target `{near}`?"),
                None => forms(),
            };
            Failed::usage("imgdecl::image::word", message, Some(help))
        };
        if word::is_path(word) {
            let kind = match here.join(word).is_dir() {
                true => "holds no OCI image layout",
                false => "is not there",
            };
            return Err(tried(&format!("{word} {kind}")));
        }
        // A target's name with a slip of the pen must not become an image of a stranger.
        let is_bare = !word.contains(['/', '@', '.']);
        let manifest = missed.manifest.as_deref().unwrap_or("no manifest");
        let nowhere = format!(
            "`{word}` is no target of {manifest}, and neither a layout nor an archive here"
        );
        if let (true, Some(near)) = (is_bare, &missed.near) {
            let help =
                format!("did you mean `{near}`? For an image of Docker Hub, write docker://{word}");
            return Err(Failed::usage("imgdecl::image::word", &nowhere, Some(help)));
        }
        match word::reference(word) {
            Ok(reference) => {
                // Said before a registry is waited for.
                if is_bare && missed.manifest.is_some() {
                    let host = &reference.registry;
                    self.session.note(&format!("{nowhere}: asking {host}"));
                }
                self.open_named(word, Named::Reference(reference))
            }
            Err(why) => Err(tried(&format!("{nowhere}; {why}"))),
        }
    }

    fn open_named(&self, word: &str, named: Named) -> Result<Opened, Failed> {
        match named {
            Named::Layout(path, name) => self.open_layout(word, &path, name.as_deref()),
            Named::Archive(path, name) => self.open_archive(word, path, name.as_deref()),
            Named::Reference(reference) => self.open_registry(reference),
        }
    }

    /// Makes sure that the bytes of an image's layers are at hand, and returns the layers with their diff_ids: fetches
    /// those of a registry into the store, and builds those of a target.
    ///
    /// Whoever reads them checks them: [`Piece::open_layer`].
    pub(super) fn layers<'b>(
        &self,
        opened: &Opened,
        image: &'b Single,
    ) -> Result<Vec<Layer<'b>>, Failed> {
        let damaged = |why: String| {
            let error = SourceError::Document {
                what: format!("{} for {}", opened.name, image.platform_name()),
                kind: "image",
                why,
            };
            Failed::from(error)
        };
        let Some(config) = &image.config else {
            return Err(damaged("it has no config".to_owned()));
        };
        let config = Config::parse(&config.bytes).map_err(|error| damaged(error.to_string()))?;
        let diff_ids = config
            .diff_ids()
            .map_err(|error| damaged(error.to_string()))?;
        if diff_ids.len() != image.layers.len() {
            let (layers, named) = (image.layers.len(), diff_ids.len());
            return Err(damaged(format!(
                "it has {layers} layers, and its config names {named}"
            )));
        }
        let is_foreign = |it: &&Piece| it.descriptor.as_ref().is_some_and(|it| !it.urls.is_empty());
        if let Some(foreign) = image.layers.iter().find(is_foreign) {
            return Err(damaged(format!("{} is kept outside of it", foreign.what)));
        }
        match &opened.origin {
            Origin::Layout | Origin::Archive => {}
            Origin::Target(workspace, is_whole) => {
                if !is_whole.get() {
                    self.build(workspace, true)?;
                    is_whole.set(true);
                }
            }
            Origin::Registry(reference) => self.pull(reference, image)?,
        }
        let layers = image.layers.iter().zip(diff_ids);
        Ok(layers
            .map(|(piece, diff_id)| Layer { piece, diff_id })
            .collect())
    }

    /// Returns config and layers of the image of one platform, to be unpacked: the layers' bytes are at hand then.
    pub(super) fn ready(&self, opened: &Opened) -> Result<(Config, Vec<Piece>), Failed> {
        let image = opened.one(
            self.open.platforms.first(),
            &self.session.environment.platform,
        )?;
        let layers = self.layers(opened, image)?;
        let layers = layers.iter().map(|layer| layer.piece.clone()).collect();
        match image.parsed() {
            Some(config) => Ok((config, layers)),
            // Whoever has layers has a config.
            None => Err(Failed::bug("an image with layers has no config")),
        }
    }

    /// Returns the image tags of the repository of an image, if that is known.
    pub(super) fn tags(&self, opened: &Opened) -> Vec<String> {
        let (Origin::Registry(reference), Some(client)) = (&opened.origin, self.net.client())
        else {
            return Vec::new();
        };
        // Some registries let people read images, but not list them.
        client.tags(reference).unwrap_or_else(|error| {
            let note = format!("the image tags cannot be listed: {error}");
            self.session.note(&note);
            Vec::new()
        })
    }

    /// Fetches the layers of an image that the store lacks.
    fn pull(&self, reference: &Reference, image: &Single) -> Result<(), Failed> {
        let named = image.layers.iter().filter_map(|it| it.descriptor.clone());
        let named: Vec<Descriptor> = named.collect();
        let wanted: Vec<Blob> = named.iter().map(Blob::from).collect();
        let missing = named.into_iter().zip(self.store.check_all(&wanted));
        let missing = missing.filter(|(_, health)| *health != Health::Whole);
        let missing: Vec<Descriptor> = missing.map(|(layer, _)| layer).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let pulled = self
            .net
            .ports()
            .registry
            .pull(reference, &missing, &self.store);
        pulled.map_err(Failed::from)
    }
}

/// Says how images are named.
fn forms() -> String {
    "name a target of image.toml here, oci:DIR[:NAME], oci-archive:FILE[:NAME], docker-archive:FILE[:REF], or a reference, \
     as docker://python:3.11"
        .to_owned()
}
