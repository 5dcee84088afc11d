//! Pushing images: what is there is not sent, what several images share is sent once, image tags come last.
//!
//! Knows nothing of where bytes come from: that is what [`Blobs`] is for.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

use reqwest::Method;
use serde::Deserialize;

use super::Client;
use super::crew;
use super::download::{Download, Verified};
use super::error::RegistryError;
use super::http::Payload;
use super::monitor::{Direction, Ended, Going, Transfer};
use super::pull::{ACCEPT, short};
use super::upload::{Content, Mount, Target};
use crate::oci::{Descriptor, Digest, MAX_DOCUMENT, MediaType, Reference};

/// How many threads push at most.
const THREADS: usize = 32;

/// An image to push: its descriptors. The bytes come from [`Blobs`].
#[derive(Clone, Debug)]
pub struct PushImage {
    /// What people call it.
    pub name: String,
    /// The registry and repository.
    pub repository: Reference,
    /// The image tags to set.
    pub tags: Vec<String>,
    /// The manifest or index.
    pub root: Descriptor,
    /// The images of the platforms; one, with the same descriptor as `root`, for an image of one platform.
    pub manifests: Vec<PushManifest>,
}

/// An image of one platform.
#[derive(Clone, Debug)]
pub struct PushManifest {
    /// The manifest.
    pub manifest: Descriptor,
    /// The config.
    pub config: Descriptor,
    /// The layers, bottom first.
    pub layers: Vec<Descriptor>,
}

/// Where the bytes of blobs are.
pub trait Blobs: Sync {
    /// Opens a blob that is on this machine, from its beginning; `None` if it is not. May be called several times.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    fn open(&self, descriptor: &Descriptor) -> io::Result<Option<Box<dyn Read + Send>>>;

    /// Names a repository that is known to hold the blob: to mount from on the same registry, or to stream from.
    fn origin(&self, digest: &Digest) -> Option<Reference>;
}

/// What a push did, in bytes of blobs and documents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pushed {
    /// Sent over the wire.
    pub sent: u64,
    /// Taken from another repository of the registry.
    pub mounted: u64,
    /// There already.
    pub skipped: u64,
    /// Each blob and document, once.
    pub blobs: Vec<PushedBlob>,
}

/// What became of one blob or document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PushedBlob {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// What happened.
    pub outcome: Ended,
}

impl Pushed {
    fn add(&mut self, descriptor: &Descriptor, outcome: Ended) {
        let digest = descriptor.digest;
        if self.blobs.iter().any(|blob| blob.digest == digest) {
            return;
        }
        let size = descriptor.size;
        match outcome {
            Ended::Done => self.sent += size,
            Ended::Mounted => self.mounted += size,
            Ended::Skipped | Ended::Failed => self.skipped += size,
        }
        self.blobs.push(PushedBlob {
            digest,
            size,
            outcome,
        });
    }
}

/// What the registry has of an image.
struct Plan {
    /// The image tags that are not there, or point elsewhere.
    tags: Vec<String>,
    /// It has the manifest or index, and so all below.
    has_root: bool,
    /// For each manifest, whether it has it, and so all below.
    has: Vec<bool>,
    /// No image tag was there: the repository may well be new.
    is_new: bool,
}

/// A blob, and where it must be on one registry.
struct Unit<'a> {
    registry: &'a str,
    blob: &'a Descriptor,
    /// Each repository, and whether it may well be new.
    repositories: Vec<(&'a str, bool)>,
}

/// A blob in a repository of a registry.
type Place<'a> = (&'a str, &'a str, Digest);

impl Client {
    /// Pushes images; returns for each what was done. An image tag is set only where everything below is there.
    pub fn push(
        &self,
        images: &[PushImage],
        blobs: &dyn Blobs,
    ) -> Vec<Result<Pushed, RegistryError>> {
        let registries: BTreeSet<&str> = images
            .iter()
            .map(|image| image.repository.registry.as_str())
            .collect();
        let lanes = registries
            .iter()
            .map(|registry| self.host(registry).config.concurrency);
        let threads = lanes.sum::<usize>().clamp(1, THREADS);
        let plans = crew::each(threads, images, |image| self.plan(image));
        let pairs: Vec<(usize, &PushImage, &Result<Plan, RegistryError>)> = images
            .iter()
            .zip(&plans)
            .enumerate()
            .map(|(number, (image, plan))| (number, image, plan))
            .collect();
        let units = units(&pairs);
        let done = crew::each(threads, &units, |unit| self.put_unit(unit, blobs));
        let mut places: BTreeMap<Place<'_>, Result<Ended, RegistryError>> = BTreeMap::new();
        for (unit, results) in units.iter().zip(done) {
            for ((repository, _), result) in unit.repositories.iter().zip(results) {
                places.insert((unit.registry, repository, unit.blob.digest), result);
            }
        }
        let owners = owners(&pairs);
        crew::each(threads, &pairs, |(number, image, plan)| {
            let plan = plan.as_ref().map_err(Clone::clone)?;
            let outcome = |digest: Digest| {
                let place = (
                    image.repository.registry.as_str(),
                    image.repository.repository.as_str(),
                    digest,
                );
                match places.get(&place) {
                    // What two images of one repository share is counted with the first.
                    Some(Ok(_)) if owners.get(&place) != Some(number) => Ok(Ended::Skipped),
                    Some(result) => result.clone(),
                    None => Ok(Ended::Skipped),
                }
            };
            self.finish(image, plan, blobs, &outcome)
        })
    }

    /// Finds out what the registry has of an image.
    fn plan(&self, image: &PushImage) -> Result<Plan, RegistryError> {
        let host = self.host(&image.repository.registry);
        let _lane = host
            .lanes
            .take(&*self.monitor)
            .map_err(|_| RegistryError::Stopped)?;
        let target = Target {
            host: &host,
            repository: &image.repository.repository,
        };
        let mut plan = Plan {
            tags: Vec::new(),
            has_root: false,
            has: vec![false; image.manifests.len()],
            is_new: true,
        };
        for tag in &image.tags {
            match self.digest_at(target, tag)? {
                Some(digest) if digest == image.root.digest => plan.has_root = true,
                Some(_) => {
                    plan.is_new = false;
                    plan.tags.push(tag.clone());
                }
                None => plan.tags.push(tag.clone()),
            }
        }
        if !plan.has_root && (image.tags.is_empty() || !image.root.media_type.is_index()) {
            let found = self.digest_at(target, &image.root.digest.to_string())?;
            plan.has_root = found.is_some();
        }
        if plan.has_root {
            plan.has.fill(true);
            return Ok(plan);
        }
        if image.root.media_type.is_index() {
            for (manifest, has) in image.manifests.iter().zip(&mut plan.has) {
                let name = manifest.manifest.digest.to_string();
                *has = self.digest_at(target, &name)?.is_some();
                plan.is_new &= !*has;
            }
        }
        Ok(plan)
    }

    /// Returns the digest of what an image tag or digest names in a repository.
    fn digest_at(&self, target: Target<'_>, name: &str) -> Result<Option<Digest>, RegistryError> {
        let what = format!("the manifest {name}");
        let rest = format!("manifests/{name}");
        let mut ask = target.ask(Method::HEAD, &rest, &what);
        ask.header("accept", ACCEPT);
        let reply = self.send(&mut ask)?;
        let digest = reply.header("docker-content-digest");
        match reply.status() {
            200 => {
                if let Some(digest) = digest.and_then(|digest| digest.trim().parse().ok()) {
                    return Ok(Some(digest));
                }
            }
            404 => return Ok(None),
            _ if reply.is_passing() => return Err(reply.refused()),
            // The answer to a GET says why.
            _ => {}
        }
        let mut ask = target.ask(Method::GET, &rest, &what);
        ask.header("accept", ACCEPT);
        let (reply, bytes) = self.load(&mut ask, MAX_DOCUMENT)?;
        match reply.status() {
            200 => Ok(Some(Digest::of(&bytes))),
            // Some registries do not let a repository be looked into that is not there yet.
            403 | 404 => Ok(None),
            _ => Err(reply.refused()),
        }
    }

    /// Puts a blob into all repositories of a registry that need it: into the first one, and from there into the others.
    fn put_unit(&self, unit: &Unit<'_>, blobs: &dyn Blobs) -> Vec<Result<Ended, RegistryError>> {
        let host = self.host(unit.registry);
        let mut holder: Option<&str> = None;
        let origin = blobs
            .origin(&unit.blob.digest)
            .filter(|origin| origin.registry == unit.registry);
        let mut results = Vec::new();
        for &(repository, is_new) in &unit.repositories {
            let origin = origin.as_ref().map(|origin| origin.repository.as_str());
            let from = holder.or(origin).filter(|from| *from != repository);
            let target = Target {
                host: &host,
                repository,
            };
            let result = host
                .lanes
                .take(&*self.monitor)
                .map_err(|_| RegistryError::Stopped)
                .and_then(|_lane| self.put_blob(target, unit.blob, from, is_new, blobs));
            if result.is_ok() {
                holder.get_or_insert(repository);
            }
            results.push(result);
        }
        results
    }

    /// Puts a blob into a repository, by the least that does.
    pub(super) fn put_blob(
        &self,
        target: Target<'_>,
        blob: &Descriptor,
        from: Option<&str>,
        is_new: bool,
        blobs: &dyn Blobs,
    ) -> Result<Ended, RegistryError> {
        let word = match blob.media_type.compression() {
            Some(_) => "layer",
            None => "config",
        };
        let line = format!("{word} {}", short(&blob.digest));
        let name = format!("{}/{}", target.host.name, target.repository);
        let going = Going::start(
            &*self.monitor,
            &Transfer {
                direction: Direction::Push,
                what: &line,
                repository: &name,
                size: blob.size,
            },
        );
        let number = going.number();
        let end = |outcome| {
            going.end(outcome);
            Ok(outcome)
        };
        // A new repository has nothing: what can be mounted is not looked for.
        let is_blind = from.is_some() && is_new;
        if !is_blind && self.has_blob(target, blob)? {
            return end(Ended::Skipped);
        }
        let mut session = None;
        if let Some(from) = from {
            match self.mount(target, blob, from)? {
                Mount::Done => return end(Ended::Mounted),
                Mount::Session(open) => session = Some(open),
                Mount::Refused => {}
            }
            if is_blind && self.has_blob(target, blob)? {
                return end(Ended::Skipped);
            }
        }
        let what = format!("the blob {}", blob.digest);
        let open = || self.open(blob, blobs);
        let content = Content {
            blob,
            what: &what,
            transfer: number,
            open: &open,
        };
        self.upload(target, &content, session)?;
        end(Ended::Done)
    }

    /// Opens a blob: here, or where it is known to be.
    fn open<'c>(
        &'c self,
        blob: &Descriptor,
        blobs: &dyn Blobs,
    ) -> Result<Box<dyn Read + Send + 'c>, RegistryError> {
        if let Some(file) = opened(blob, blobs)? {
            return Ok(file);
        }
        let Some(origin) = blobs.origin(&blob.digest) else {
            let what = format!("the blob {}", blob.digest);
            return Err(RegistryError::Absent { what });
        };
        let download = Download::new(self, self.sources(&origin)?, blob.clone());
        Ok(Box::new(Verified::new(download, blob.clone())))
    }

    /// Puts the manifests, the index and the image tags, if all blobs are there.
    fn finish(
        &self,
        image: &PushImage,
        plan: &Plan,
        blobs: &dyn Blobs,
        outcome: &dyn Fn(Digest) -> Result<Ended, RegistryError>,
    ) -> Result<Pushed, RegistryError> {
        let host = self.host(&image.repository.registry);
        let _lane = host
            .lanes
            .take(&*self.monitor)
            .map_err(|_| RegistryError::Stopped)?;
        let target = Target {
            host: &host,
            repository: &image.repository.repository,
        };
        let mut pushed = Pushed::default();
        let mut errors = Vec::new();
        for (manifest, has) in image.manifests.iter().zip(&plan.has) {
            for blob in manifest.blobs() {
                match *has {
                    true => pushed.add(blob, Ended::Skipped),
                    false => match outcome(blob.digest) {
                        Ok(outcome) => pushed.add(blob, outcome),
                        Err(error) => errors.push(error),
                    },
                }
            }
        }
        if let Some(error) = RegistryError::of_all(errors) {
            return Err(error);
        }
        for (manifest, has) in image.manifests.iter().zip(&plan.has) {
            if manifest.manifest.digest == image.root.digest {
                continue;
            }
            let outcome = match has {
                true => Ended::Skipped,
                false => {
                    let name = manifest.manifest.digest.to_string();
                    self.put_manifest(target, &manifest.manifest, &name, blobs)?
                }
            };
            pushed.add(&manifest.manifest, outcome);
        }
        let mut names = plan.tags.clone();
        if image.tags.is_empty() && !plan.has_root {
            names.push(image.root.digest.to_string());
        }
        for name in &names {
            self.put_manifest(target, &image.root, name, blobs)?;
        }
        let outcome = match plan.has_root {
            true => Ended::Skipped,
            false => Ended::Done,
        };
        pushed.add(&image.root, outcome);
        Ok(pushed)
    }

    /// Puts a manifest or index under its digest or an image tag.
    fn put_manifest(
        &self,
        target: Target<'_>,
        descriptor: &Descriptor,
        name: &str,
        blobs: &dyn Blobs,
    ) -> Result<Ended, RegistryError> {
        let mut bytes = Vec::new();
        let what = format!("the manifest {}", descriptor.digest);
        let Some(file) = opened(descriptor, blobs)? else {
            return Err(RegistryError::Absent { what });
        };
        file.take(MAX_DOCUMENT + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| unreadable(&what, &error))?;
        self.put_document(target, descriptor, name, &bytes)?;
        Ok(Ended::Done)
    }

    /// Puts the bytes of a manifest or index. Returns whether the registry knows its subject.
    pub(super) fn put_document(
        &self,
        target: Target<'_>,
        descriptor: &Descriptor,
        name: &str,
        bytes: &[u8],
    ) -> Result<bool, RegistryError> {
        check_document(descriptor, bytes)?;
        let what = format!("the manifest {name}");
        let line = format!("manifest {}", short(&descriptor.digest));
        let full = format!("{}/{}", target.host.name, target.repository);
        let going = Going::start(
            &*self.monitor,
            &Transfer {
                direction: Direction::Push,
                what: &line,
                repository: &full,
                size: descriptor.size,
            },
        );
        let mut ask = target.ask(Method::PUT, &format!("manifests/{name}"), &what);
        ask.body = Payload::Bytes(bytes);
        ask.header("content-type", descriptor.media_type.as_str());
        let reply = self.send(&mut ask)?;
        let status = reply.status();
        if matches!(status, 200..=202) {
            let digest = descriptor.digest.to_string();
            if let Some(other) = reply.header("docker-content-digest").map(str::trim)
                && other.starts_with("sha256:")
                && other != digest
            {
                let other = super::error::clean(other);
                return Err(reply.wrong(format!("it was stored as {other} instead of {digest}")));
            }
            let knows_subject = reply.header("oci-subject").is_some();
            self.monitor.more(going.number(), descriptor.size);
            going.end(Ended::Done);
            return Ok(knows_subject);
        }
        let is_tag = name.parse::<Digest>().is_err();
        if !is_tag || !matches!(status, 400 | 403 | 405 | 409 | 412 | 422 | 423) {
            return Err(reply.refused());
        }
        // Image tags that cannot be moved: what is there may be the same.
        let error = reply.refused();
        match self.digest_at(target, name) {
            Ok(Some(digest)) if digest == descriptor.digest => {
                going.end(Ended::Skipped);
                Ok(false)
            }
            Ok(Some(has)) => Err(error.into_immutable(has, descriptor.digest)),
            Err(RegistryError::Stopped) => Err(RegistryError::Stopped),
            _ => Err(error),
        }
    }
}

impl PushManifest {
    /// Returns the config and the layers that registries may hold.
    fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        std::iter::once(&self.config)
            .chain(&self.layers)
            .filter(|blob| !is_foreign(&blob.media_type))
    }
}

/// Tells whether a layer must not be pushed (image-spec, layer.md, "Non-Distributable Layers").
fn is_foreign(media_type: &MediaType) -> bool {
    matches!(
        media_type,
        MediaType::OciForeign
            | MediaType::OciForeignGzip
            | MediaType::OciForeignZstd
            | MediaType::DockerForeignGzip
    )
}

type Pairs<'a> = [(usize, &'a PushImage, &'a Result<Plan, RegistryError>)];

/// Returns each blob that some image needs and the registry may lack, with its repository.
fn needed<'a>(pairs: &Pairs<'a>) -> Vec<(usize, &'a PushImage, bool, &'a Descriptor)> {
    let mut all = Vec::new();
    for &(number, image, plan) in pairs {
        let Ok(plan) = plan else {
            continue;
        };
        for (manifest, has) in image.manifests.iter().zip(&plan.has) {
            if !has {
                let blobs = manifest.blobs();
                all.extend(blobs.map(|blob| (number, image, plan.is_new, blob)));
            }
        }
    }
    all
}

/// Gathers the blobs to put, the largest first: what takes longest starts first.
fn units<'a>(pairs: &Pairs<'a>) -> Vec<Unit<'a>> {
    let mut units: BTreeMap<(&str, Digest), Unit<'a>> = BTreeMap::new();
    for (_, image, is_new, blob) in needed(pairs) {
        let (registry, repository) = (
            image.repository.registry.as_str(),
            image.repository.repository.as_str(),
        );
        let unit = units
            .entry((registry, blob.digest))
            .or_insert_with(|| Unit {
                registry,
                blob,
                repositories: Vec::new(),
            });
        if !unit
            .repositories
            .iter()
            .any(|(name, _)| *name == repository)
        {
            unit.repositories.push((repository, is_new));
        }
    }
    let mut units: Vec<Unit<'a>> = units.into_values().collect();
    units.sort_by_key(|unit| std::cmp::Reverse(unit.blob.size));
    units
}

/// Returns the first image that needs each blob in a repository.
fn owners<'a>(pairs: &Pairs<'a>) -> BTreeMap<Place<'a>, usize> {
    let mut owners = BTreeMap::new();
    for (number, image, _, blob) in needed(pairs) {
        let place = (
            image.repository.registry.as_str(),
            image.repository.repository.as_str(),
            blob.digest,
        );
        owners.entry(place).or_insert(number);
    }
    owners
}

/// Opens a blob that is on this machine.
fn opened(
    blob: &Descriptor,
    blobs: &dyn Blobs,
) -> Result<Option<Box<dyn Read + Send>>, RegistryError> {
    let what = format!("the blob {}", blob.digest);
    blobs.open(blob).map_err(|error| unreadable(&what, &error))
}

fn unreadable(what: &str, error: &io::Error) -> RegistryError {
    RegistryError::Document {
        what: what.to_owned(),
        why: format!("it cannot be read: {error}"),
    }
}

/// Checks a document before it is sent: its size, its digest, and that it says what its descriptor says. A registry
/// wants the media type to be the same in both places.
fn check_document(descriptor: &Descriptor, bytes: &[u8]) -> Result<(), RegistryError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Shape {
        media_type: Option<MediaType>,
    }
    let what = format!("the manifest {}", descriptor.digest);
    let fail = |why: String| Err(RegistryError::Document { what, why });
    let size = bytes.len() as u64;
    if size != descriptor.size {
        return fail(format!(
            "it has {size} bytes instead of {}",
            descriptor.size
        ));
    }
    let found = Digest::of(bytes);
    if found != descriptor.digest {
        return fail(format!("it has the digest {found}"));
    }
    let shape: Result<Shape, _> = serde_json::from_slice(bytes);
    match shape.map(|shape| shape.media_type) {
        Err(_) => fail("it is no JSON object".to_owned()),
        Ok(Some(other)) if other != descriptor.media_type => fail(format!(
            "it says {other} instead of {}",
            descriptor.media_type
        )),
        Ok(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::script::{Asked, Server, Told, client};
    use super::*;
    use crate::oci::{Annotations, Manifest};

    /// Blobs in memory.
    #[derive(Default)]
    struct Here(BTreeMap<Digest, Vec<u8>>);

    impl Blobs for Here {
        fn open(&self, descriptor: &Descriptor) -> io::Result<Option<Box<dyn Read + Send>>> {
            let bytes = self.0.get(&descriptor.digest).cloned();
            Ok(bytes.map(|bytes| Box::new(io::Cursor::new(bytes)) as Box<dyn Read + Send>))
        }

        fn origin(&self, _: &Digest) -> Option<Reference> {
            None
        }
    }

    impl Here {
        fn add(&mut self, media_type: MediaType, bytes: &[u8]) -> Descriptor {
            let descriptor = Descriptor::of(media_type, bytes);
            self.0.insert(descriptor.digest, bytes.to_vec());
            descriptor
        }

        /// Makes an image of one layer, with the image tag `v1`.
        fn image(&mut self, registry: &str, repository: &str) -> PushImage {
            let config = self.add(MediaType::OciConfig, repository.as_bytes());
            let layer = self.add(MediaType::OciLayer, b"layer");
            let manifest = Manifest::new(config.clone(), vec![layer.clone()], Annotations::new());
            let manifest = self.add(MediaType::OciManifest, &manifest.to_bytes());
            PushImage {
                name: repository.to_owned(),
                repository: format!("{registry}/{repository}").parse().unwrap(),
                tags: vec!["v1".to_owned()],
                root: manifest.clone(),
                manifests: vec![PushManifest {
                    manifest,
                    config,
                    layers: vec![layer],
                }],
            }
        }
    }

    /// Answers as an empty registry that can mount.
    fn empty(asked: &Asked) -> Told {
        match asked.method.as_str() {
            "HEAD" | "GET" => Told::new(404),
            "POST" if asked.path.contains("mount=") => Told::new(201),
            "POST" => Told::new(202).with("location", "/v2/u"),
            _ => Told::new(201),
        }
    }

    #[test]
    fn what_images_share_is_sent_once_and_mounted() {
        let server = Server::start(|_, asked| empty(asked));
        let mut here = Here::default();
        let images = ["a", "b", "c"].map(|name| here.image(&server.name, name));
        let results = client("", None).0.push(&images, &here);
        let pushed: Vec<Pushed> = results.into_iter().map(Result::unwrap).collect();
        let mounted: Vec<u64> = pushed.iter().map(|it| it.mounted).collect();
        assert_eq!(mounted, [0, 5, 5]);
        let lines = server.lines();
        let count = |method: &str, part: &str| {
            let fits = |it: &&String| it.starts_with(method) && it.contains(part);
            lines.iter().filter(fits).count()
        };
        let layer = Digest::of(b"layer");
        assert_eq!(count("PUT", &layer.to_string()), 1);
        assert_eq!(count("POST", &format!("mount={layer}&from=a")), 2);
        assert_eq!(count("PUT", "/manifests/"), 3);
        assert_eq!(count("HEAD", &layer.to_string()), 1);
    }

    #[test]
    fn an_image_tag_waits_for_all_below() {
        let bad = Digest::of(b"layer").to_string();
        let server = Server::start(move |_, asked| match asked.method.as_str() {
            "PUT" if asked.path.contains(&bad) => {
                Told::new(400).body(r#"{"errors":[{"code":"DIGEST_INVALID","message":"no"}]}"#)
            }
            _ => empty(asked),
        });
        let mut here = Here::default();
        let image = here.image(&server.name, "a");
        let result = client("", None).0.push(&[image], &here).remove(0);
        assert!(result.unwrap_err().to_string().contains("DIGEST_INVALID"));
        assert!(
            !server
                .lines()
                .iter()
                .any(|it| it.starts_with("PUT") && it.contains("/manifests/"))
        );
    }

    #[test]
    fn an_image_tag_that_cannot_be_moved_may_be_right_already() {
        for is_same in [true, false] {
            let mut here = Here::default();
            let wanted = here.image("x.example", "a").root.digest;
            let other = Digest::of(b"other");
            let server = Server::start(move |before, asked| {
                let was_put = before
                    .iter()
                    .any(|it| it.path.contains("/manifests/v1") && it.method == "PUT");
                match asked.method.as_str() {
                    "PUT" if asked.path.contains("/manifests/") => Told::new(409),
                    "HEAD" if was_put => Told::new(200).with(
                        "docker-content-digest",
                        if is_same { wanted } else { other },
                    ),
                    _ => empty(asked),
                }
            });
            let image = here.image(&server.name, "a");
            let result = client("", None).0.push(&[image], &here).remove(0);
            match is_same {
                true => drop(result.unwrap()),
                false => {
                    let error = result.unwrap_err();
                    assert_eq!(error.code(), "imgdecl::registry::immutable");
                    assert!(error.to_string().contains(&other.to_string()), "{error}");
                }
            }
        }
    }

    #[test]
    fn what_is_there_costs_one_question() {
        let mut here = Here::default();
        let digest = here.image("x.example", "a").root.digest;
        let server = Server::start(move |_, _| {
            Told::new(200)
                .with("docker-content-digest", digest)
                .with("warning", "299 - \"old  \\\"thing\\\"\"")
        });
        let image = here.image(&server.name, "a");
        let (client, ear) = client("", None);
        let images = [image.clone(), image];
        let pushed = client.push(&images, &here).remove(0).unwrap();
        assert_eq!((pushed.sent, pushed.mounted), (0, 0));
        assert_eq!(
            server.lines(),
            ["HEAD /v2/a/manifests/v1", "HEAD /v2/a/manifests/v1"]
        );
        let notes = ear.notes.lock().unwrap();
        assert_eq!(*notes, [format!("{} warns: old \"thing\"", server.name)]);
    }

    #[test]
    fn a_document_must_be_what_its_descriptor_says() {
        let bytes = br#"{"mediaType":"application/vnd.oci.image.index.v1+json"}"#;
        let index = Descriptor::of(MediaType::OciIndex, bytes);
        assert!(check_document(&index, bytes).is_ok());
        assert!(check_document(&index, b"{}").is_err());
        let manifest = Descriptor::of(MediaType::OciManifest, bytes);
        assert!(check_document(&manifest, bytes).is_err());
    }
}
