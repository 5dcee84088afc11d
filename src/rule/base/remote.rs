//! Bases in registries: pinned in `image.lock`, known by their documents, fetched only where bytes are needed.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::import::{Source, diff_ids, import_and_probe, import_remote};
use super::pinned::{BasePin, PlatformPin, RegistryPin};
use super::users::UsersWanted;
use super::{explain, look};
use crate::accounts::Accounts;
use crate::graph::{Action, ActionError, Base, Context, KeyWriter, Lane, Origin, Part, Product};
use crate::layer::Facts;
use crate::lock::Lock;
use crate::oci::{Descriptor, Digest, Manifest, Platform, Reference};
use crate::rule::ecosystem::Found as FoundInBase;
use crate::rule::users::UNREADABLE;
use crate::rule::{Cache, Need};
use crate::source::{Blobs, Found, Piece, SourceError, cached, resolve};
use crate::store::{Blob, Blobs as _, Health, StoreError};

/// A registry's repository, as a source of images. What is fetched is kept in the store.
struct Remote<'a> {
    context: &'a Context<'a>,
    image: &'a Reference,
    origin: &'a Origin,
}

impl Remote<'_> {
    /// Names a manifest or index of the repository.
    fn at(&self, digest: Digest) -> Reference {
        Reference {
            tag: None,
            digest: Some(digest),
            ..self.image.clone()
        }
    }

    /// Returns the descriptor of a manifest or index that only its digest is known of; its bytes are in the store then.
    fn manifest(&self, digest: Digest) -> Result<Descriptor, ActionError> {
        let known: Option<Descriptor> = self.context.parts.known(&Manifested(digest))?;
        let mut damage = None;
        if let Some(known) = known.filter(|it| it.digest == digest) {
            match self.has(&known) {
                Ok(true) => return Ok(known),
                Ok(false) => {}
                Err(error) => damage = Some(error),
            }
        }
        let fetched = self.fetch_manifest(digest);
        fetched.map_err(|error| blame(error, damage).at(self.origin))
    }

    /// Tells whether the store has a document. One that is damaged unseen is found, and can be fetched anew.
    fn has(&self, descriptor: &Descriptor) -> Result<bool, StoreError> {
        let store = self.context.store;
        match store.check(&Blob::from(descriptor)) {
            Health::Whole => store.sound(&descriptor.digest),
            _ => Ok(false),
        }
    }

    fn fetch_manifest(&self, digest: Digest) -> Result<Descriptor, ActionError> {
        let Context { store, parts, .. } = self.context;
        let (descriptor, bytes) = self.context.ports.registry.manifest(&self.at(digest))?;
        let blobs = vec![store.put_blob(&bytes)?];
        parts.keep(&Manifested(digest), &descriptor, blobs)?;
        Ok(descriptor)
    }

    /// Fetches a config.
    fn fetch_document(&self, descriptor: &Descriptor) -> Result<(), ActionError> {
        let registry = self.context.ports.registry;
        let bytes = registry.document(self.image, descriptor)?;
        self.context.store.put_blob(&bytes)?;
        Ok(())
    }

    /// Finds the image of a platform below a manifest or index.
    fn find(&self, root: &Descriptor, platform: &Platform) -> Result<Found, ActionError> {
        let found = resolve(self, root, platform).map_err(|error| self.explain(&error))?;
        Ok(Found {
            name: Some(self.image.to_string()),
            ..found
        })
    }
}

impl Blobs for Remote<'_> {
    fn what(&self) -> String {
        self.image.to_string()
    }

    fn piece(&self, descriptor: &Descriptor) -> Result<Piece, SourceError> {
        let store = self.context.store;
        let kind = &descriptor.media_type;
        let is_layer = kind.compression().is_some();
        let has = match is_layer {
            true => Ok(true),
            false => self.has(descriptor),
        };
        if !matches!(has, Ok(true)) {
            let fetched = match kind.is_manifest() || kind.is_index() {
                true => self.fetch_manifest(descriptor.digest).map(drop),
                false => self.fetch_document(descriptor),
            };
            fetched.map_err(|error| SourceError::Fetch(Box::new(blame(error, has.err()))))?;
        }
        let what = match is_layer {
            true => format!("the layer {} of {}", descriptor.digest, self.image.name()),
            false => format!("{} of {}", descriptor.digest, self.image.name()),
        };
        Ok(cached(descriptor, store, what))
    }
}

impl Source for Remote<'_> {
    fn explain(&self, error: &SourceError) -> ActionError {
        if let SourceError::Fetch(inner) = error
            && let Some(inner) = inner.downcast_ref::<ActionError>()
        {
            return inner.clone().at(self.origin);
        }
        explain(error).at(self.origin)
    }

    fn damaged(&self, message: String) -> ActionError {
        ActionError::new("imgdecl::base::damaged", message)
            .at(self.origin)
            .help("the registry holds it like that: tell whoever pushed it, or use another image")
    }
}

/// Returns the cause where nothing can be fetched: what was here is damaged.
fn blame(error: ActionError, damage: Option<StoreError>) -> ActionError {
    match damage {
        Some(damage) if error.is_offline() => damage.into(),
        _ => error,
    }
}

/// The descriptor of a manifest or index that was fetched by its digest; its bytes are kept with it.
struct Manifested(Digest);

impl Part for Manifested {
    fn name(&self) -> &'static str {
        "manifest"
    }

    fn parameters(&self, key: &mut dyn KeyWriter) {
        key.field("digest", &self.0.to_string());
    }
}

/// Gives another cache the documents and layers of a base that is pinned, as far as this one has them. What was found out
/// about them is not passed on.
pub(super) fn lend(
    pin: &RegistryPin,
    (from, known): Cache<'_>,
    (to, parts): Cache<'_>,
) -> Result<(), ActionError> {
    for platform in pin.platforms.values() {
        let manifested = Manifested(platform.manifest);
        let descriptor: Option<Descriptor> = known.known(&manifested)?;
        let Some(descriptor) = descriptor.filter(|it| it.digest == platform.manifest) else {
            continue;
        };
        let blob = Blob::from(&descriptor);
        if !from.lend(&blob, to)? {
            continue;
        }
        let bytes = from.read_blob(&blob)?;
        let Ok(manifest) = serde_json::from_slice::<Manifest>(&bytes) else {
            continue;
        };
        parts.keep(&manifested, &descriptor, vec![blob])?;
        for blob in std::iter::once(&manifest.config).chain(&manifest.layers) {
            from.lend(&Blob::from(blob), to)?;
        }
    }
    Ok(())
}

/// All facts of an image whose layers were here once: the blob that holds them.
struct FullFacts {
    manifest: Digest,
}

impl Part for FullFacts {
    fn name(&self) -> &'static str {
        "base facts"
    }

    fn parameters(&self, key: &mut dyn KeyWriter) {
        key.field("manifest", &self.manifest.to_string());
    }
}

/// Returns all facts of an image, if they were gathered here once.
fn full_facts(context: &Context<'_>, manifest: Digest) -> Result<Option<Facts>, ActionError> {
    let blob: Option<Blob> = context.parts.known(&FullFacts { manifest })?;
    // Without them the notable ones do.
    let bytes = blob.and_then(|it| context.store.read_blob(&it).ok());
    let text = bytes.and_then(|it| String::from_utf8(it).ok());
    Ok(text.and_then(|text| Facts::parse(&text)))
}

/// Brings the pin of a base up to date. `needs` are those of one base, for all platforms; with `update`, its reference
/// is resolved again.
pub(super) fn pin(
    needs: &[&Need],
    update: bool,
    context: &Context<'_>,
    lock: &mut Lock,
) -> Result<(), ActionError> {
    let Some(first) = needs.first() else {
        return Ok(());
    };
    let name = first.target.to_string();
    let parsed: Result<Reference, _> = first.wanted.parse();
    let image = parsed.map_err(|error| ActionError::of("imgdecl::base::reference", &error))?;
    let remote = Remote {
        context,
        image: &image,
        origin: &first.origin,
    };
    let old = lock.get::<BasePin>(&name);
    let old = old.and_then(BasePin::in_registry);
    let was = old.filter(|old| old.image == image);
    let digest = match (was, image.digest) {
        (_, Some(digest)) => digest,
        (Some(old), None) if !update => old.digest,
        _ => {
            let resolved = context.ports.registry.resolve(&image);
            resolved.map_err(|error| error.at(&first.origin))?.digest
        }
    };
    let old = was.filter(|old| old.digest == digest);
    let mut platforms = BTreeMap::new();
    let mut missing: BTreeMap<String, (&Need, Option<bool>)> = BTreeMap::new();
    for need in needs {
        let key = need.platform.to_string();
        let wanted = needs
            .iter()
            .filter(|it| it.platform == need.platform)
            .filter_map(|it| it.payload.as_ref()?.downcast_ref::<UsersWanted>());
        let wanted = wanted.map(|it| it.is_needed).max();
        // What is locked stays as it is, unless something cannot do without more.
        let is_lacking = wanted == Some(true);
        match old.and_then(|old| old.platforms.get(&key)) {
            Some(pin) if pin.accounts.is_some() || !is_lacking => {
                platforms.insert(key, pin.clone());
            }
            _ => {
                missing.insert(key, (need, wanted));
            }
        }
    }
    if !missing.is_empty() {
        let root = remote.manifest(digest).map_err(|error| match was {
            Some(_) if !update => error.help(format!(
                "if the registry no longer has it: imgdecl lock --update {name}"
            )),
            _ => error,
        })?;
        let found: Result<Vec<Found>, ActionError> = missing
            .values()
            .map(|(need, _)| remote.find(&root, &need.platform))
            .collect();
        let found = found?;
        fetch_layers(&remote, &found)?;
        for ((key, (_, wanted)), found) in missing.into_iter().zip(&found) {
            let manifest = found.manifest.unwrap_or(digest);
            let (facts, in_base) = gather(&remote, found, manifest)?;
            let accounts = match wanted {
                Some(is_needed) => users_of(&remote, found, is_needed)?,
                None => None,
            };
            let pin = PlatformPin {
                manifest,
                facts,
                found: in_base,
                accounts,
            };
            platforms.insert(key, pin);
        }
    }
    let pin = RegistryPin {
        image,
        digest,
        platforms,
    };
    lock.put(name, BasePin::InRegistry(pin));
    Ok(())
}

/// Fetches the layers of images.
fn fetch_layers(remote: &Remote<'_>, found: &[Found]) -> Result<(), ActionError> {
    let pieces = found.iter().flat_map(|found| &found.layers);
    let layers = pieces.filter_map(|piece| piece.descriptor.clone());
    let layers: BTreeMap<Digest, Descriptor> = layers.map(|it| (it.digest, it)).collect();
    let layers: Vec<Descriptor> = layers.into_values().collect();
    let (registry, store) = (remote.context.ports.registry, remote.context.store);
    // They are about to be read: one that is damaged unseen is found, and fetched anew.
    layers.iter().for_each(|layer| {
        let _ = store.sound(&layer.digest);
    });
    let pulled = registry.pull(remote.image, &layers, remote.context.folder);
    pulled.map_err(|error| error.at(remote.origin))
}

/// Gathers what is to be known of an image whose layers are in the store: the notable facts, and what
/// ecosystems find in it.
fn gather(
    remote: &Remote<'_>,
    found: &Found,
    manifest: Digest,
) -> Result<(Facts, FoundInBase), ActionError> {
    let (base, in_base) = import_and_probe(remote.context, found, remote)?;
    let parts = remote.context.parts;
    let blob = base.facts_blob;
    parts.keep(&FullFacts { manifest }, &blob, vec![blob])?;
    let facts = base.facts.get(remote.context)?;
    Ok((facts.only_notable(), in_base))
}

/// Returns the users and groups of an image whose layers were just looked at. Where they cannot be read, that is an error if
/// something cannot do without.
fn users_of(
    remote: &Remote<'_>,
    found: &Found,
    is_needed: bool,
) -> Result<Option<Arc<Accounts>>, ActionError> {
    let diff_ids = diff_ids(found, remote)?;
    let known = look::known(remote.context, &diff_ids)?.flatten();
    match known {
        None if is_needed => {
            let message = format!("{} has users that cannot be read", remote.image);
            Err(ActionError::new("imgdecl::users::unreadable", message)
                .at(remote.origin)
                .help(UNREADABLE))
        }
        known => Ok(known.map(Arc::new)),
    }
}

/// Knows a base by the documents that the lock names; none of its layers is needed.
pub(super) struct Known {
    pub(super) image: Reference,
    /// The digest that the reference named.
    pub(super) digest: Digest,
    pub(super) pin: PlatformPin,
    pub(super) platform: Platform,
    pub(super) origin: Origin,
    pub(super) target: String,
}

impl Action for Known {
    fn name(&self) -> &'static str {
        "base"
    }

    fn lane(&self) -> Lane {
        Lane::Net
    }

    fn parameters(&self, key: &mut dyn KeyWriter) {
        key.field("image", &self.image.to_string());
        key.field("digest", &self.digest.to_string());
        key.field("manifest", &self.pin.manifest.to_string());
        key.field("platform", &self.platform.to_string());
        let notable = self.pin.facts.iter();
        let notable: Vec<String> = notable.map(|(path, fact)| fact.key_text(path)).collect();
        key.list("notable", notable);
    }

    fn run(&self, context: &Context<'_>, _: &[Product]) -> Result<Product, ActionError> {
        let remote = Remote {
            context,
            image: &self.image,
            origin: &self.origin,
        };
        let manifest = self.pin.manifest;
        let root = remote.manifest(manifest)?;
        let found = Found {
            digest: Some(self.digest),
            ..remote.find(&root, &self.platform)?
        };
        // All facts, where they are known, show more mistakes; the notable ones alone decide bytes.
        let facts = match full_facts(context, manifest)? {
            Some(facts) if facts.only_notable() != self.pin.facts => {
                let message = format!("image.lock has other notable paths than {}", self.image);
                let help = format!("run `imgdecl lock --update {}`", self.target);
                return Err(ActionError::new("imgdecl::lock::facts", message).help(help));
            }
            Some(facts) => facts,
            None => self.pin.facts.clone(),
        };
        import_remote(context, &found, facts, remote.at(manifest), &remote)
    }
}

/// Fetches the layers of a base, for outputs that hold their bytes.
pub(super) struct Fetch {
    pub(super) origin: Origin,
}

impl Action for Fetch {
    fn name(&self) -> &'static str {
        "fetch"
    }

    fn lane(&self) -> Lane {
        Lane::Net
    }

    fn parameters(&self, _: &mut dyn KeyWriter) {}

    fn run(&self, context: &Context<'_>, inputs: &[Product]) -> Result<Product, ActionError> {
        let [Product::Base(base)] = inputs else {
            return Err(ActionError::bug("a fetch takes one base"));
        };
        fetch_bytes(base, context).map_err(|error| error.at(&self.origin))?;
        Ok(Product::Base(Arc::new(Base {
            remote: None,
            ..Base::clone(base)
        })))
    }
}

/// Fetches those layers of a base that the store lacks.
///
/// # Errors
/// When one cannot be had.
pub(in crate::rule) fn fetch_bytes(base: &Base, context: &Context<'_>) -> Result<(), ActionError> {
    let Some(remote) = &base.remote else {
        return Ok(());
    };
    let layers = base.layers.iter().map(|layer| layer.descriptor.clone());
    let layers: Vec<Descriptor> = layers.collect();
    let registry = context.ports.registry;
    registry.pull(remote, &layers, context.folder)
}

/// A base that the lock lacks: a plan can show it, and nothing can run it.
pub(super) struct Unpinned {
    pub(super) image: Reference,
    pub(super) platform: Platform,
}

impl Action for Unpinned {
    fn name(&self) -> &'static str {
        "resolve"
    }

    fn is_unpinned(&self) -> bool {
        true
    }

    fn parameters(&self, key: &mut dyn KeyWriter) {
        key.field("not in image.lock", &self.image.to_string());
        key.field("platform", &self.platform.to_string());
    }

    fn run(&self, _: &Context<'_>, _: &[Product]) -> Result<Product, ActionError> {
        let message = format!("{} is not in image.lock", self.image);
        Err(ActionError::new("imgdecl::lock::missing", message).help("run `imgdecl lock`"))
    }
}
