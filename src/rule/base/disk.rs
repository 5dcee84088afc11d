//! Bases on disk: found in a layout or archive, and brought into the store. Where packages are for one, the lock holds
//! what ecosystems found in it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::import::{Source, import_and_probe};
use super::pinned::{BasePin, DiskPin};
use super::{Below, DAMAGED, HostPath, explain};
use crate::graph::{Action, ActionError, Base, Context, Failure, KeyWriter, Part, Product};
use crate::lock::Lock;
use crate::oci::{Descriptor, Digest, Platform};
use crate::rule::ecosystem::Found;
use crate::rule::host::known;
use crate::rule::value::problem_of;
use crate::rule::{Lower, Need};
use crate::source::{Archive, Layout, SourceError};
use crate::spec::{Host, Problems, TargetId};

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
            return Err(ActionError::bug("a base is read before it is found"));
        };
        let image = DiskImage {
            path: &self.path,
            root: root.digest,
            reference: self.reference.as_deref(),
            entry: self.is_layout.then_some(root),
            platform: &self.platform,
        };
        // To make the lock, it may have been brought in already.
        let known = context.parts.find(&image)?;
        if let Some(product) = known.and_then(Product::from_value) {
            return Ok(product);
        }
        let (base, _) = image.import(context)?;
        Ok(Product::Base(Arc::new(base)))
    }
}

/// The image of one platform in a layout or archive. As it was brought into the store to make the lock, it is remembered
/// for the build that follows.
struct DiskImage<'a> {
    path: &'a HostPath,
    /// The digest of the archive, as it was found, or of the entry of the layout's index.
    root: Digest,
    /// Which image of an archive.
    reference: Option<&'a str>,
    /// The entry of a layout's index.
    entry: Option<&'a Descriptor>,
    platform: &'a Platform,
}

impl Part for DiskImage<'_> {
    fn name(&self) -> &'static str {
        "base on disk"
    }

    fn parameters(&self, key: &mut dyn KeyWriter) {
        key.field("root", &self.root.to_string());
        key.field("platform", &self.platform.to_string());
        key.field("ref", self.reference.unwrap_or("-"));
        // What an entry says decides the base's name.
        key.field("entry", &serde_json::json!(self.entry).to_string());
    }
}

impl DiskImage<'_> {
    /// Brings the image into the store, and finds in it what ecosystems look for.
    fn import(&self, context: &Context<'_>) -> Result<(Base, Found), ActionError> {
        let path = self.path.real()?;
        let explain = |error: SourceError| self.path.explain(&error);
        if let Some(entry) = self.entry {
            let layout = Layout::open(&path).map_err(explain)?;
            let found = layout.find(entry, self.platform).map_err(explain)?;
            return import_and_probe(context, &found, self.path);
        }
        // What is made of the archive is remembered under its digest: it must be that archive from end to end.
        for _ in 0..TRIES {
            let archive = Archive::open(&path, context.folder.tmp(), &|| (context.tick)(0))
                .map_err(explain)?;
            if self.digest(&path, &archive, context)? != self.root {
                break;
            }
            let found = archive.find(self.reference, self.platform);
            let found = found.map_err(explain);
            let imported = found.and_then(|it| import_and_probe(context, &it, self.path));
            if matches!(&imported, Err(error) if error.failure == Failure::Stopped)
                || archive.is_unchanged().map_err(explain)?
            {
                return imported;
            }
            // It may be that only its attributes changed: read again, to be sure.
        }
        let message = format!("`{}` changed while it was read", self.path.text);
        Err(ActionError::new("imgdecl::host::changed", message)
            .at(&self.path.origin)
            .help("run the build again when nothing writes to the archive"))
    }

    /// Returns the digest of an open archive, from the stat cache if that knows it.
    fn digest(
        &self,
        path: &Path,
        archive: &Archive,
        context: &Context<'_>,
    ) -> Result<Digest, ActionError> {
        if let Some(digest) = known(path, archive.stamp(), context.folder) {
            return Ok(digest);
        }
        archive
            .digest(context.tick)
            .map_err(|error| match (context.tick)(0) {
                true => self.path.explain(&error),
                false => ActionError::stopped(),
            })
    }
}

/// How often an archive is read that changes meanwhile.
const TRIES: usize = 3;

/// A base on disk, as packages see it that are for it.
pub struct OnDisk {
    pub(super) target: TargetId,
    pub(super) rule: usize,
    pub(super) path: HostPath,
    pub(super) reference: Option<String>,
    pub(super) is_layout: bool,
}

/// There is one base of a name.
impl PartialEq for OnDisk {
    fn eq(&self, other: &Self) -> bool {
        self.target == other.target
    }
}

impl Eq for OnDisk {}

impl fmt::Debug for OnDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.target)
    }
}

/// What a need of the lock carries.
struct Payload {
    base: Arc<OnDisk>,
    root: Root,
}

/// What decides all that a base on disk says.
#[derive(Clone)]
enum Root {
    /// The entry of a layout's index.
    Entry(Box<Descriptor>),
    /// The digest of an archive.
    Archive(Digest),
}

impl Root {
    fn digest(&self) -> Digest {
        match self {
            Self::Entry(entry) => entry.digest,
            Self::Archive(digest) => *digest,
        }
    }
}

impl OnDisk {
    fn root(&self, host: &dyn Host) -> Result<Root, ActionError> {
        let path = self.path.real()?;
        if self.is_layout {
            let layout = Layout::open(&path).map_err(|error| self.path.explain(&error))?;
            let entry = layout.select(self.reference.as_deref());
            let entry = entry.map_err(|error| self.path.explain(&error))?;
            return Ok(Root::Entry(Box::new(entry)));
        }
        let unreadable = |why| ActionError::new("imgdecl::host::unreadable", why);
        // Before it is opened: a fifo would block.
        if !path.is_file() {
            let why = format!("`{}` is no regular file", self.path.text);
            return Err(unreadable(why).at(&self.path.origin));
        }
        let digest = host.digest(&path);
        let digest = digest.map_err(|why| unreadable(why).at(&self.path.origin));
        digest.map(Root::Archive)
    }

    /// Returns what the lock holds of the base, and notes that it is needed.
    pub(in crate::rule) fn found(
        self: &Arc<Self>,
        lower: &mut Lower<'_>,
    ) -> Result<Below, Problems> {
        let root = self.root(lower.host);
        let root = root.map_err(|error| problem_of(&error, &self.path.origin))?;
        let platform = lower.platform().cloned();
        let platform = platform.unwrap_or_else(|| Platform::new("linux", "amd64"));
        let pin = lower.lock.get::<BasePin>(&self.target.to_string());
        let pin = pin.and_then(BasePin::on_disk);
        let digest = root.digest();
        let was = pin.and_then(|pin| match &pin.reference {
            _ if pin.digest != digest => {
                let what = if self.is_layout { "image" } else { "archive" };
                Some(format!("the {what} {}, which is {digest} now", pin.digest))
            }
            reference if *reference != self.reference => Some(match reference {
                Some(reference) => format!("its image `{reference}`"),
                None => "its only image".to_owned(),
            }),
            _ => None,
        });
        let found = pin.filter(|_| was.is_none());
        let found = found.and_then(|pin| pin.platforms.get(&platform.to_string()));
        let found = found.cloned();
        lower.need(Need {
            target: self.target.clone(),
            rule: self.rule,
            platform,
            wanted: digest.to_string(),
            origin: self.path.origin.clone(),
            was,
            is_pinned: found.is_some(),
            waits: false,
            is_reference: false,
            is_given: false,
            payload: Some(Arc::new(Payload {
                base: self.clone(),
                root,
            })),
        });
        Ok(found.map_or(Below::Unlocked, Below::Known))
    }
}

/// Brings the pin of a base up to date. `needs` are those of one base, for all platforms; with `update`, it is looked
/// into again.
pub(super) fn pin(
    needs: &[&Need],
    update: bool,
    context: &Context<'_>,
    lock: &mut Lock,
) -> Result<(), ActionError> {
    let payload = needs.first().and_then(|need| need.payload.as_ref());
    let Some(Payload { base, root }) = payload.and_then(|it| it.downcast_ref()) else {
        return Err(ActionError::bug("a base is nowhere"));
    };
    let name = base.target.to_string();
    let digest = root.digest();
    let is_fresh = |old: &&DiskPin| old.digest == digest && old.reference == base.reference;
    let old = lock.get::<BasePin>(&name).and_then(BasePin::on_disk);
    let old = old.filter(|_| !update).filter(is_fresh);
    let mut platforms: BTreeMap<String, Found> = BTreeMap::new();
    for need in needs {
        let key = need.platform.to_string();
        if platforms.contains_key(&key) {
            continue;
        }
        let known = old.and_then(|old| old.platforms.get(&key)).cloned();
        let found = match known {
            Some(found) => found,
            None => gather(base, root, &need.platform, context)?,
        };
        platforms.insert(key, found);
    }
    let pin = DiskPin {
        reference: base.reference.clone(),
        digest,
        platforms,
    };
    lock.put(name, BasePin::OnDisk(pin));
    Ok(())
}

fn gather(
    base: &OnDisk,
    root: &Root,
    platform: &Platform,
    context: &Context<'_>,
) -> Result<Found, ActionError> {
    let image = DiskImage {
        path: &base.path,
        root: root.digest(),
        reference: base.reference.as_deref().filter(|_| !base.is_layout),
        entry: match root {
            Root::Entry(entry) => Some(entry),
            Root::Archive(_) => None,
        },
        platform,
    };
    let (base, found) = image.import(context)?;
    let product = Product::Base(Arc::new(base));
    if let Some(value) = product.to_value() {
        context.parts.put(&image, value, product.blobs())?;
    }
    Ok(found)
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

#[cfg(test)]
mod tests;
