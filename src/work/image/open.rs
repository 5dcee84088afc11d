//! Reads the documents of an image: from the root down, each checked, those of the platforms that were asked for.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::{Document, Opened, Opener, Origin, Single, no_platform};
use crate::oci::{
    Config, Descriptor, Digest, Index, MAX_DOCUMENT, Manifest, MediaType, Platform, Reference,
};
use crate::source::{Archive, Blobs, Found, Layout, Piece, Root, SourceError, cached};
use crate::store::{self, Blob, Blobs as _, Health};
use crate::work::{Blame, Failed};

/// How large all documents of an image may be in sum, in bytes: they are held in memory.
const DOCUMENTS: u64 = 2 * MAX_DOCUMENT;
/// How deep indexes may be nested.
const MAX_DEPTH: usize = 4;
/// How many platforms an error names.
const MAX_PLATFORMS: usize = 50;

/// Where documents come from.
pub(super) trait Library {
    /// Reads a manifest, index or config, and checks it.
    fn read(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Failed>;
    /// Returns a layer; its bytes may be absent.
    fn layer(&self, descriptor: &Descriptor) -> Result<Piece, Failed>;
    /// Whose fault it is where a document is not what it should be.
    fn damage(&self) -> Blame;
}

/// A layout or archive.
struct Disk<'a>(&'a dyn Blobs);

impl Library for Disk<'_> {
    fn read(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Failed> {
        let read = self.0.piece(descriptor).and_then(|piece| piece.read());
        read.map_err(Failed::from)
    }

    fn layer(&self, descriptor: &Descriptor) -> Result<Piece, Failed> {
        let found = self.0.piece(descriptor);
        found.map_err(Failed::from)
    }

    fn damage(&self) -> Blame {
        Blame::Build
    }
}

/// What was built into the store.
pub(super) struct Stored<'a>(pub(super) &'a dyn store::Blobs);

impl Library for Stored<'_> {
    fn read(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Failed> {
        let read = self.0.read_blob(&Blob::from(descriptor));
        read.map_err(|error| Failed::from(&error))
    }

    fn layer(&self, descriptor: &Descriptor) -> Result<Piece, Failed> {
        let what = format!("the layer {}", descriptor.digest);
        Ok(cached(descriptor, self.0, what))
    }

    fn damage(&self) -> Blame {
        Blame::Cache
    }
}

/// A repository of a registry.
struct Remote<'a> {
    opener: &'a Opener<'a>,
    reference: &'a Reference,
}

impl Library for Remote<'_> {
    fn read(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Failed> {
        let ports = self.opener.net.ports();
        let kind = &descriptor.media_type;
        // What was fetched once need not be asked for again.
        let blob = Blob::from(descriptor);
        if blob.size <= MAX_DOCUMENT
            && self.opener.store.check(&blob) == Health::Whole
            && let Ok(bytes) = self.opener.store.read_blob(&blob)
        {
            return Ok(bytes);
        }
        let read = match kind.is_manifest() || kind.is_index() {
            true => {
                let at = Reference {
                    tag: None,
                    digest: Some(descriptor.digest),
                    ..self.reference.clone()
                };
                ports.registry.manifest(&at).map(|(_, bytes)| bytes)
            }
            false => ports.registry.document(self.reference, descriptor),
        };
        read.map_err(Failed::from)
    }

    fn layer(&self, descriptor: &Descriptor) -> Result<Piece, Failed> {
        let what = format!(
            "the layer {} of {}",
            descriptor.digest,
            self.reference.name()
        );
        Ok(cached(descriptor, &*self.opener.store, what))
    }

    fn damage(&self) -> Blame {
        Blame::Remote
    }
}

impl Opener<'_> {
    /// Opens an image of a layout. `word` is what to call it.
    pub(in crate::work) fn open_layout(
        &self,
        word: &str,
        path: &Path,
        name: Option<&str>,
    ) -> Result<Opened, Failed> {
        let layout = Layout::open(path).map_err(Failed::from)?;
        let root = layout.select(name).map_err(Failed::from)?;
        self.walk(word, &root, &Disk(&layout), Origin::Layout)
    }

    pub(super) fn open_archive(
        &self,
        word: &str,
        path: PathBuf,
        name: Option<&str>,
    ) -> Result<Opened, Failed> {
        let go_on = || !self.session.stop.is_asked();
        let archive = Archive::open(&path, self.store.tmp(), &go_on);
        self.session.go_on()?;
        let archive = archive.map_err(Failed::from)?;
        match archive.root(name).map_err(Failed::from)? {
            Root::Oci(root) => self.walk(word, &root, &Disk(&archive), Origin::Archive),
            Root::Docker(found, platform) => {
                let wanted = self.wants(Some(&platform));
                if !wanted {
                    return Err(self.lacks(word, &[platform.to_string()]));
                }
                let image = docker(*found, platform).map_err(Failed::from)?;
                Ok(Opened {
                    name: word.to_owned(),
                    origin: Origin::Archive,
                    root: None,
                    images: vec![image],
                    others: Vec::new(),
                })
            }
        }
    }

    pub(super) fn open_registry(&self, reference: Reference) -> Result<Opened, Failed> {
        if self.open.network.offline {
            let message =
                format!("only a registry says what {reference} is, and `--offline` asks none");
            let help = "name a target, or a layout or archive on disk; or leave out `--offline`";
            return Err(Failed::told(
                Blame::Remote,
                "imgdecl::offline",
                &message,
                Some(help.to_owned()),
            ));
        }
        let fetched = self.net.ports().registry.manifest(&reference);
        let (root, bytes) = fetched.map_err(Failed::from)?;
        let name = reference.to_string();
        let library = Remote {
            opener: self,
            reference: &reference,
        };
        let root = Document {
            descriptor: root,
            bytes,
        };
        let (images, others) = self.below(&name, &root, &library)?;
        Ok(Opened {
            name,
            origin: Origin::Registry(reference),
            root: Some(root),
            images,
            others,
        })
    }

    /// Reads all documents from a root down.
    pub(super) fn walk(
        &self,
        word: &str,
        root: &Descriptor,
        library: &dyn Library,
        origin: Origin,
    ) -> Result<Opened, Failed> {
        let root = Document {
            bytes: library.read(root)?,
            descriptor: root.clone(),
        };
        let (images, others) = self.below(word, &root, library)?;
        Ok(Opened {
            name: word.to_owned(),
            origin,
            root: Some(root),
            images,
            others,
        })
    }

    /// Reads what is below a root. Returns the images that were asked for, and the platforms of the others.
    fn below(
        &self,
        name: &str,
        root: &Document,
        library: &dyn Library,
    ) -> Result<(Vec<Single>, Vec<String>), Failed> {
        let mut walk = Walk {
            opener: self,
            library,
            name,
            seen: BTreeSet::new(),
            size: 0,
            images: Vec::new(),
            others: Vec::new(),
        };
        walk.take(root.clone(), 0)?;
        if walk.images.is_empty() && !self.open.platforms.is_empty() {
            return Err(self.lacks(name, &walk.others));
        }
        Ok((walk.images, walk.others))
    }

    fn wants(&self, platform: Option<&Platform>) -> bool {
        let wanted = &self.open.platforms;
        match platform {
            Some(platform) if !wanted.is_empty() => wanted.iter().any(|it| platform.matches(it)),
            _ => wanted.is_empty(),
        }
    }

    fn lacks(&self, name: &str, have: &[String]) -> Failed {
        let wanted: Vec<String> = self
            .open
            .platforms
            .iter()
            .map(ToString::to_string)
            .collect();
        no_platform(name, &wanted.join(", "), have)
    }
}

/// On the way through the documents of an image.
struct Walk<'a> {
    opener: &'a Opener<'a>,
    library: &'a dyn Library,
    name: &'a str,
    /// Each document is read once, however often indexes name it.
    seen: BTreeSet<Digest>,
    size: u64,
    images: Vec<Single>,
    others: Vec<String>,
}

impl Walk<'_> {
    fn take(&mut self, document: Document, depth: usize) -> Result<(), Failed> {
        let Document { descriptor, bytes } = &document;
        if !self.seen.insert(descriptor.digest) {
            return Ok(());
        }
        self.count(bytes.len() as u64)?;
        if descriptor.media_type.is_index() && depth < MAX_DEPTH {
            let index: Index = self.parse(bytes, "image index")?;
            for next in &index.manifests {
                let platform = next.platform.as_ref();
                let is_nested = next.media_type.is_index();
                if !(is_nested || next.media_type.is_manifest()) {
                    continue;
                }
                if platform.is_some() && !self.opener.wants(platform) {
                    self.pass(platform);
                    continue;
                }
                let bytes = self.library.read(next)?;
                let descriptor = next.clone();
                self.take(Document { descriptor, bytes }, depth + 1)?;
            }
            return Ok(());
        }
        if !descriptor.media_type.is_manifest() {
            let why = format!("its media type is {}", descriptor.media_type);
            return Err(self.damaged("image manifest", why));
        }
        let image = self.image(document)?;
        // What no index gives a platform has that of its config.
        match depth == 0 && self.opener.open.platforms.is_empty()
            || self.opener.wants(image.platform.as_ref())
        {
            true => self.images.push(image),
            false => self.pass(image.platform.as_ref()),
        }
        Ok(())
    }

    fn pass(&mut self, platform: Option<&Platform>) {
        if let Some(platform) = platform.filter(|it| !it.is_unknown())
            && self.others.len() < MAX_PLATFORMS
        {
            self.others.push(platform.to_string());
        }
    }

    fn image(&mut self, document: Document) -> Result<Single, Failed> {
        let manifest: Manifest = self.parse(&document.bytes, "image manifest")?;
        let said = document.descriptor.platform.clone();
        // What is no image, such as an attestation, has a config of another kind.
        let is_attestation = said.as_ref().is_some_and(Platform::is_unknown);
        let config = match is_attestation {
            true => None,
            false => {
                self.count(manifest.config.size)?;
                Some(Document {
                    bytes: self.library.read(&manifest.config)?,
                    descriptor: manifest.config,
                })
            }
        };
        let layers: Result<Vec<Piece>, Failed> = manifest
            .layers
            .iter()
            .map(|layer| self.library.layer(layer))
            .collect();
        let mut image = Single {
            platform: said,
            manifest: Some(document),
            config,
            layers: layers?,
        };
        if image.platform.is_none() {
            image.platform = image.parsed().and_then(|config| config.platform().ok());
        }
        Ok(image)
    }

    fn count(&mut self, bytes: u64) -> Result<(), Failed> {
        self.size = self.size.saturating_add(bytes);
        if self.size <= DOCUMENTS {
            return Ok(());
        }
        let message = format!("{} has documents of more than {DOCUMENTS} bytes", self.name);
        let help = Some("name platforms with `--platform`".to_owned());
        let code = "imgdecl::image::size";
        Err(Failed::told(self.library.damage(), code, message, help))
    }

    fn parse<T: DeserializeOwned>(&self, bytes: &[u8], kind: &'static str) -> Result<T, Failed> {
        serde_json::from_slice(bytes).map_err(|error| self.damaged(kind, error.to_string()))
    }

    fn damaged(&self, kind: &'static str, why: String) -> Failed {
        let error = SourceError::Document {
            what: self.name.to_owned(),
            kind,
            why,
        };
        Failed::Source(Box::new(error), self.library.damage())
    }
}

/// Makes an image of what `docker save` wrote.
fn docker(found: Found, platform: Platform) -> Result<Single, SourceError> {
    let bytes = found.config.read()?;
    Config::parse(&bytes)?;
    Ok(Single {
        platform: Some(platform),
        manifest: None,
        config: Some(Document {
            descriptor: Descriptor::of(MediaType::DockerConfig, &bytes),
            bytes,
        }),
        layers: found.layers,
    })
}
