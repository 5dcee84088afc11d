//! Pushing images: what is there is not sent, what several images share is sent once, image tags come last.
//!
//! Knows nothing of where bytes come from: that is what [`Blobs`] is for.

use std::collections::{BTreeMap, BTreeSet};

use super::Client;
use super::blob::Way;
use super::error::RegistryError;
use super::image::{Blobs, PushImage, PushManifest, Pushed};
use super::monitor::Ended;
use super::parallel;
use super::upload_session::Target;
use crate::oci::{Descriptor, Digest};

/// How many threads push at most.
const THREADS: usize = 32;

/// What the registry has of an image.
struct Plan {
    /// The image tags that are not there, or point elsewhere.
    tags: Vec<String>,
    /// It has the manifest or index.
    has_root: bool,
    /// For each manifest, whether it has it.
    has: Vec<bool>,
    /// All image tags name the image already: what is below is not asked for. A registry may have lost it all the same.
    is_trusted: bool,
    /// No image tag was there: the repository may well be new.
    is_new: bool,
}

/// A blob, and where it must be on one registry.
struct Unit<'a> {
    registry: &'a str,
    blob: &'a Descriptor,
    /// A repository that has it already.
    holder: Option<&'a str>,
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
        let permits = registries
            .iter()
            .map(|registry| self.host(registry).config.concurrency);
        let threads = permits.sum::<usize>().clamp(1, THREADS);
        let plans = parallel::each(threads, images, |image| self.plan(image));
        let pairs: Vec<(usize, &PushImage, &Result<Plan, RegistryError>)> = images
            .iter()
            .zip(&plans)
            .enumerate()
            .map(|(number, (image, plan))| (number, image, plan))
            .collect();
        let units = units(&pairs);
        let done = parallel::each(threads, &units, |unit| self.put_unit(unit, blobs));
        let mut places: BTreeMap<Place<'_>, Result<Ended, RegistryError>> = BTreeMap::new();
        for (unit, results) in units.iter().zip(done) {
            for ((repository, _), result) in unit.repositories.iter().zip(results) {
                places.insert((unit.registry, repository, unit.blob.digest), result);
            }
        }
        let owners = owners(&pairs);
        parallel::each(threads, &pairs, |(number, image, plan)| {
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
        let _permit = host
            .permits
            .acquire(&*self.monitor)
            .map_err(|_| RegistryError::Stopped)?;
        let target = Target {
            host: &host,
            repository: &image.repository.repository,
        };
        let mut plan = Plan {
            tags: Vec::new(),
            has_root: false,
            has: vec![false; image.manifests.len()],
            is_trusted: false,
            is_new: true,
        };
        for tag in &image.tags {
            let found = self.digest_at(target, tag, Some(&image.root))?;
            plan.is_new &= found.is_none();
            match found == Some(image.root.digest) {
                true => plan.has_root = true,
                false => plan.tags.push(tag.clone()),
            }
        }
        if !plan.has_root && (image.tags.is_empty() || !image.root.media_type.is_index()) {
            let name = image.root.digest.to_string();
            plan.has_root = self.digest_at(target, &name, Some(&image.root))?.is_some();
            plan.is_new &= !plan.has_root;
        }
        plan.is_trusted = plan.has_root && plan.tags.is_empty() && !image.is_checked;
        if plan.is_trusted || plan.has_root && !image.root.media_type.is_index() {
            plan.has.fill(true);
            return Ok(plan);
        }
        if image.root.media_type.is_index() {
            for (manifest, has) in image.manifests.iter().zip(&mut plan.has) {
                let name = manifest.manifest.digest.to_string();
                let found = self.digest_at(target, &name, Some(&manifest.manifest))?;
                *has = found.is_some();
                plan.is_new &= !*has;
            }
        }
        Ok(plan)
    }

    /// Puts a blob into all repositories of a registry that need it: into the first one, and from there into the others.
    fn put_unit(&self, unit: &Unit<'_>, blobs: &dyn Blobs) -> Vec<Result<Ended, RegistryError>> {
        let host = self.host(unit.registry);
        let mut holder = unit.holder;
        let origin = blobs
            .origin(&unit.blob.digest)
            .filter(|origin| origin.registry == unit.registry);
        let mut results = Vec::new();
        for &(repository, is_new) in &unit.repositories {
            let way = match is_new {
                true => Way::New,
                false => Way::Known,
            };
            let origin = origin.as_ref().map(|origin| origin.repository.as_str());
            let from = holder.or(origin).filter(|from| *from != repository);
            let target = Target {
                host: &host,
                repository,
            };
            let result = host
                .permits
                .acquire(&*self.monitor)
                .map_err(|_| RegistryError::Stopped)
                .and_then(|_permit| self.put_blob(target, unit.blob, from, way, blobs));
            if result.is_ok() {
                holder.get_or_insert(repository);
            }
            results.push(result);
        }
        results
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
        let _permit = host
            .permits
            .acquire(&*self.monitor)
            .map_err(|_| RegistryError::Stopped)?;
        let target = Target {
            host: &host,
            repository: &image.repository.repository,
        };
        let mut pushed = Pushed::default();
        let mut errors = Vec::new();
        for (manifest, has) in image.manifests.iter().zip(&plan.has) {
            for blob in manifest.blobs() {
                if plan.is_trusted {
                    pushed.add(blob, Ended::Skipped);
                    continue;
                }
                match outcome(blob.digest) {
                    Ok(outcome) => {
                        if *has && outcome != Ended::Skipped && !pushed.has(blob) {
                            self.tell_repaired(target, blob, outcome);
                        }
                        pushed.add(blob, outcome);
                    }
                    Err(error) => errors.push(error),
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
                    let below = std::slice::from_ref(manifest);
                    let own = &manifest.manifest;
                    self.put_repaired(target, own, &name, below, blobs, &mut pushed)?
                }
            };
            if plan.has_root && outcome != Ended::Skipped {
                self.tell_repaired(target, &manifest.manifest, outcome);
            }
            pushed.add(&manifest.manifest, outcome);
        }
        let mut names = plan.tags.clone();
        if image.tags.is_empty() && !plan.has_root {
            names.push(image.root.digest.to_string());
        }
        for name in &names {
            let below = &image.manifests;
            self.put_repaired(target, &image.root, name, below, blobs, &mut pushed)?;
        }
        let outcome = match plan.has_root {
            true => Ended::Skipped,
            false => Ended::Done,
        };
        pushed.add(&image.root, outcome);
        Ok(pushed)
    }
}

type Pairs<'a> = [(usize, &'a PushImage, &'a Result<Plan, RegistryError>)];

/// Returns each blob that some image needs and the registry may lack, with its repository.
fn needed<'a>(pairs: &Pairs<'a>) -> Vec<(usize, &'a PushImage, bool, &'a Descriptor)> {
    let mut all = Vec::new();
    for &(number, image, plan) in pairs {
        let Ok(plan) = plan else {
            continue;
        };
        if plan.is_trusted {
            continue;
        }
        let blobs = image.manifests.iter().flat_map(PushManifest::blobs);
        all.extend(blobs.map(|blob| (number, image, plan.is_new, blob)));
    }
    all
}

/// Gathers the blobs to put, the largest first: what takes longest starts first.
fn units<'a>(pairs: &Pairs<'a>) -> Vec<Unit<'a>> {
    let holders = holders(pairs);
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
                holder: holders.get(&(registry, blob.digest)).copied(),
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

/// Returns a repository of each registry that has a blob, as far as the images say: it can be mounted from there.
fn holders<'a>(pairs: &Pairs<'a>) -> BTreeMap<(&'a str, Digest), &'a str> {
    let mut holders = BTreeMap::new();
    for &(_, image, plan) in pairs {
        let Ok(plan) = plan else {
            continue;
        };
        if !plan.is_trusted {
            continue;
        }
        let at = &image.repository;
        for blob in image.manifests.iter().flat_map(PushManifest::blobs) {
            let key = (at.registry.as_str(), blob.digest);
            holders.entry(key).or_insert(at.repository.as_str());
        }
    }
    holders
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::testing::{Asked, Server, Told, client, stored};
    use super::*;
    use crate::oci::{Annotations, Manifest, MediaType, Reference};
    use std::io::{self, Read};

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
                is_checked: false,
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
            "POST" if asked.path.contains("mount=") => stored(asked),
            "POST" => Told::new(202).with("location", "/v2/u"),
            _ => stored(asked),
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
            let wanted = here.image("x.example", "a").root;
            let other = Digest::of(b"other");
            let server = Server::start(move |before, asked| {
                let was_put = before
                    .iter()
                    .any(|it| it.path.contains("/manifests/v1") && it.method == "PUT");
                match asked.method.as_str() {
                    "PUT" if asked.path.contains("/manifests/") => Told::new(409),
                    "HEAD" if was_put && is_same => Told::new(200)
                        .with("docker-content-digest", wanted.digest)
                        .with("content-length", wanted.size),
                    "HEAD" if was_put => Told::new(200).with("docker-content-digest", other),
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
        let root = here.image("x.example", "a").root;
        let server = Server::start(move |_, _| {
            Told::new(200)
                .with("docker-content-digest", root.digest)
                .with("content-length", root.size)
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
}
