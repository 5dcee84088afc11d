//! Pulling: what an image tag names, manifests, configs, and layers into the store. Chooses no platform.

use std::collections::BTreeSet;
use std::io::Write;
use std::time::Duration;

use reqwest::Method;

use super::Client;
use super::download::Download;
use super::error::{Asked, RegistryError};
use super::http::Ask;
use super::media_type::{SCHEMA_1, document_type, media_type};
use super::monitor::{Direction, Ended, Going, Transfer};
use super::parallel;
use super::reply::Reply;
use super::source::Source;
use crate::oci::{Descriptor, Digest, Hasher, MAX_DOCUMENT, MediaType, Reference};
use crate::store::{Blob, Blobs, Health, KeyLock, Store, StoreError};

/// Every kind of manifest that we read. Registries that are not told convert, or refuse.
pub(super) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// How often it is tried to get the turn at a blob.
const TURN: Duration = Duration::from_millis(20);

impl Client {
    /// Finds the manifest or index that an image tag or digest names: its digest, size and media type. A HEAD, and a GET
    /// where that says too little.
    ///
    /// # Errors
    /// When there is none, or it has schema 1, or the registry cannot be asked.
    pub fn resolve(&self, reference: &Reference) -> Result<Descriptor, RegistryError> {
        Ok(self.look(reference)?.0)
    }

    /// Fetches a manifest or index: at most 20 MiB, and what its digest, size and media type say.
    ///
    /// # Errors
    /// As [`Client::resolve`], or when the bytes are not those.
    pub fn manifest(&self, reference: &Reference) -> Result<(Descriptor, Vec<u8>), RegistryError> {
        let expected = match (&reference.digest, reference) {
            (Some(digest), _) => Expected {
                digest: *digest,
                size: None,
                media_type: None,
            },
            (None, reference) => match self.look(reference)? {
                (descriptor, Some(bytes)) => return Ok((descriptor, bytes)),
                (descriptor, None) => Expected {
                    digest: descriptor.digest,
                    size: Some(descriptor.size),
                    media_type: Some(descriptor.media_type),
                },
            },
        };
        self.anywhere(&self.sources(reference)?, |source| {
            let name = expected.digest.to_string();
            self.get_manifest(source, &name, Some(&expected))
        })
    }

    /// Fetches a small blob, as a config, into memory.
    ///
    /// # Errors
    /// When it is not there, or larger than 20 MiB, or not what the descriptor says.
    pub fn document(
        &self,
        repository: &Reference,
        descriptor: &Descriptor,
    ) -> Result<Vec<u8>, RegistryError> {
        let what = format!("the blob {}", descriptor.digest);
        self.anywhere(&self.sources(repository)?, |source| {
            let mut ask = source.ask(Method::GET, &format!("blobs/{}", descriptor.digest), &what);
            if descriptor.size > MAX_DOCUMENT {
                let asked = self.asked(&ask);
                let why = format!(
                    "it has {} bytes, and {MAX_DOCUMENT} are the most",
                    descriptor.size
                );
                return Err(RegistryError::content(&asked, why));
            }
            let (reply, bytes) = self.load(&mut ask, descriptor.size)?;
            if reply.status() != 200 {
                return Err(reply.refused());
            }
            verify(&reply, &bytes, &descriptor.digest, Some(descriptor.size))?;
            Ok(bytes)
        })
    }

    /// Fetches the blobs that the store lacks, several at a time, each resumed after a cut and verified. What another
    /// thread pulls already is waited for.
    ///
    /// # Errors
    /// All that went wrong. What came whole is in the store.
    pub fn pull(
        &self,
        repository: &Reference,
        blobs: &[Descriptor],
        store: &Store,
    ) -> Result<(), RegistryError> {
        let mut seen = BTreeSet::new();
        let wanted = blobs.iter().filter(|blob| seen.insert(blob.digest));
        let wanted: Vec<&Descriptor> = wanted.collect();
        let healths = store.check_all(&wanted.iter().map(|it| as_blob(it)).collect::<Vec<_>>());
        let missing = wanted.into_iter().zip(healths);
        let missing = missing.filter(|(_, health)| *health != Health::Whole);
        let missing: Vec<&Descriptor> = missing.map(|(blob, _)| blob).collect();
        let host = self.host(&repository.registry);
        let results = parallel::each(host.config.concurrency, &missing, |blob| {
            // Before the permit: nobody who waits for another keeps one.
            let _turn = self.turn(blob, store)?;
            if store.check(&as_blob(blob)) == Health::Whole {
                return Ok(());
            }
            let _permit = host
                .permits
                .acquire(&*self.monitor)
                .map_err(|_| RegistryError::Stopped)?;
            self.fetch(repository, blob, store)
        });
        let errors = results.into_iter().filter_map(Result::err).collect();
        RegistryError::of_all(errors).map_or(Ok(()), Err)
    }

    /// Waits until nobody else fetches a blob into the store, here or in another process.
    fn turn(&self, blob: &Descriptor, store: &Store) -> Result<KeyLock, RegistryError> {
        let key = Digest::of(format!("turn at the blob {}", blob.digest).as_bytes());
        loop {
            match store.try_lock(&key)? {
                Some(turn) => return Ok(turn),
                None => self.pause(TURN)?,
            }
        }
    }

    /// Fetches a blob into the store. Other bytes than promised are fetched once more: not from a mirror again.
    fn fetch(
        &self,
        repository: &Reference,
        blob: &Descriptor,
        store: &dyn Blobs,
    ) -> Result<(), RegistryError> {
        let mut sources = self.sources(repository)?;
        let what = format!("layer {}", short(&blob.digest));
        let going = Going::start(
            &*self.monitor,
            &Transfer {
                direction: Direction::Pull,
                what: &what,
                repository: &repository.name(),
                size: blob.size,
            },
        );
        let name = format!("the blob {} of {}", blob.digest, repository.name());
        let mut is_second = false;
        'again: loop {
            let mut download = Download::new(self, sources.clone(), blob.clone());
            let mut writer = store.writer()?;
            loop {
                let bytes = match download.chunk() {
                    Ok(Some(bytes)) => bytes,
                    Ok(None) => break,
                    Err(error @ RegistryError::Content { .. }) if download.is_mirror() => {
                        self.tell(&format!("{error}; it is fetched again"));
                        sources.retain(|source| !source.is_mirror());
                        is_second = true;
                        continue 'again;
                    }
                    Err(error) => return Err(error),
                };
                self.monitor.more(going.number(), bytes.len() as u64);
                writer
                    .write_all(&bytes)
                    .map_err(|error| store.unwritable(error))?;
            }
            match writer.complete_verified_as(&as_blob(blob), &name) {
                Ok(_) => {
                    going.end(Ended::Done);
                    return Ok(());
                }
                Err(error @ (StoreError::Digest { .. } | StoreError::Size { .. }))
                    if !is_second =>
                {
                    self.tell(&format!("{error}; it is fetched again"));
                    sources.retain(|source| !source.is_mirror());
                    is_second = true;
                }
                Err(StoreError::Io {
                    doing,
                    path,
                    source,
                }) => {
                    return Err(StoreError::Io {
                        doing,
                        path,
                        source,
                    }
                    .into());
                }
                Err(error) => {
                    let asked = download.asked();
                    return Err(RegistryError::content(&asked, error.to_string()));
                }
            }
        }
    }

    /// Finds what a reference names: its descriptor, and its bytes where they were fetched.
    fn look(&self, reference: &Reference) -> Result<(Descriptor, Option<Vec<u8>>), RegistryError> {
        let mut sources = self.sources(reference)?;
        if let Some(digest) = &reference.digest {
            let name = digest.to_string();
            let expected = Expected {
                digest: *digest,
                size: None,
                media_type: None,
            };
            return self.anywhere(&sources, |source| {
                self.head_manifest(source, &name, Some(&expected))
            });
        }
        let name = reference.tag.as_deref().unwrap_or("latest");
        let Some(mut own) = sources.pop() else {
            return Err(RegistryError::Stopped);
        };
        own.has_next = !sources.is_empty();
        // A mirror may be behind: what an image tag names is asked at the registry itself.
        match self.head_manifest(&own, name, None) {
            Err(error) if error.is_absence() && !sources.is_empty() => {
                for source in &sources {
                    match self.head_manifest(source, name, None) {
                        Ok(found) => {
                            self.tell(&format!(
                                "{error}; the mirror {} says what {name} is",
                                source.host.name
                            ));
                            return Ok(found);
                        }
                        Err(RegistryError::Stopped) => return Err(RegistryError::Stopped),
                        Err(other) => self.pass_over(source, &other),
                    }
                }
                Err(error)
            }
            result => result,
        }
    }

    fn head_manifest(
        &self,
        source: &Source,
        name: &str,
        expected: Option<&Expected>,
    ) -> Result<(Descriptor, Option<Vec<u8>>), RegistryError> {
        let what = format!("the manifest {name}");
        let mut ask = source.ask(Method::HEAD, &format!("manifests/{name}"), &what);
        ask.header("accept", ACCEPT);
        let reply = self.send(&mut ask)?;
        match reply.status() {
            200 => {}
            _ if reply.is_passing() => return Err(reply.refused()),
            // HEAD is refused here and there where GET is not; and where both are, the answer to GET says why.
            _ => return self.get_manifest(source, name, expected).map(whole),
        }
        let digest = reply.header("docker-content-digest");
        let digest: Option<Digest> = digest.and_then(|digest| digest.trim().parse().ok());
        let media_type = media_type(reply.header("content-type"));
        if SCHEMA_1.contains(&media_type.as_str()) {
            return Err(RegistryError::Schema1(Box::new(reply.asked)));
        }
        let is_known = media_type.is_manifest() || media_type.is_index();
        let digest = digest.or(expected.map(|expected| expected.digest));
        let (Some(digest), Some(size), true) = (digest, reply.length(), is_known) else {
            return self.get_manifest(source, name, expected).map(whole);
        };
        if let Some(expected) = expected.filter(|expected| expected.digest != digest) {
            return Err(reply.wrong(format!(
                "it has the digest {digest} instead of {}",
                expected.digest
            )));
        }
        if size > MAX_DOCUMENT {
            return Err(reply.wrong(format!(
                "it has {size} bytes, and {MAX_DOCUMENT} are the most"
            )));
        }
        Ok((Descriptor::new(media_type, digest, size), None))
    }

    /// Fetches a manifest from one source and checks it.
    pub(super) fn get_manifest(
        &self,
        source: &Source,
        name: &str,
        expected: Option<&Expected>,
    ) -> Result<(Descriptor, Vec<u8>), RegistryError> {
        let what = format!("the manifest {name}");
        let mut ask = source.ask(Method::GET, &format!("manifests/{name}"), &what);
        ask.header("accept", ACCEPT);
        let (reply, bytes) = self.load(&mut ask, MAX_DOCUMENT)?;
        if reply.status() != 200 {
            return Err(reply.refused());
        }
        let said = reply.header("docker-content-digest");
        let said: Option<Digest> = said.and_then(|digest| digest.trim().parse().ok());
        let digest = match (expected, said) {
            (Some(expected), _) => expected.digest,
            (None, Some(said)) => said,
            (None, None) => Digest::of(&bytes),
        };
        let size = expected.and_then(|expected| expected.size);
        verify(&reply, &bytes, &digest, size)?;
        let media_type = document_type(&reply, &bytes)?;
        if let Some(other) = expected.and_then(|expected| expected.media_type.as_ref())
            && *other != media_type
        {
            return Err(reply.wrong(format!("it is {media_type} instead of {other}")));
        }
        Ok((Descriptor::of(media_type, &bytes), bytes))
    }

    /// Returns what a request asks, for messages.
    pub(super) fn asked(&self, ask: &Ask<'_>) -> Asked {
        Asked {
            registry: ask.host.name.clone(),
            repository: ask.repository.to_owned(),
            method: ask.method.to_string(),
            what: ask.what.to_owned(),
            ..Asked::default()
        }
    }
}

/// What is known of a manifest before it is fetched.
pub(super) struct Expected {
    pub(super) digest: Digest,
    pub(super) size: Option<u64>,
    pub(super) media_type: Option<MediaType>,
}

fn whole((descriptor, bytes): (Descriptor, Vec<u8>)) -> (Descriptor, Option<Vec<u8>>) {
    (descriptor, Some(bytes))
}

/// Checks a document: its size first, then its digest.
fn verify(
    reply: &Reply<'_>,
    bytes: &[u8],
    digest: &Digest,
    size: Option<u64>,
) -> Result<(), RegistryError> {
    let found = bytes.len() as u64;
    if let Some(size) = size.filter(|&size| size != found) {
        let why = format!("it has {found} bytes instead of {size}");
        return Err(reply.wrong(why));
    }
    let mut hasher = Hasher::default();
    hasher.update(bytes);
    let found = hasher.finish();
    if found != *digest {
        let why = format!("it has the digest {found} instead of {digest}");
        return Err(reply.wrong(why));
    }
    Ok(())
}

fn as_blob(descriptor: &Descriptor) -> Blob {
    Blob {
        digest: descriptor.digest,
        size: descriptor.size,
    }
}

/// Returns a digest that is short enough for a line of progress.
pub(super) fn short(digest: &Digest) -> String {
    format!("sha256:{}", &digest.hex()[..12])
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Server, Told, client};
    use super::*;

    const MANIFEST: &str = r#"{"schemaVersion":2,"config":{},"layers":[]}"#;

    fn manifest(server: &Server, name: &str) -> Result<(Descriptor, Vec<u8>), RegistryError> {
        let reference: Reference = format!("{}/a{name}", server.name).parse().unwrap();
        client("", None).0.manifest(&reference)
    }

    fn told() -> Told {
        Told::new(200)
            .with("content-type", MediaType::OciManifest)
            .body(MANIFEST)
    }

    #[test]
    fn an_image_tag_is_resolved_and_fetched_by_digest() {
        let digest = Digest::of(MANIFEST.as_bytes());
        let server = Server::start(move |_, _| told().with("docker-content-digest", digest));
        let (descriptor, bytes) = manifest(&server, ":v1").unwrap();
        assert_eq!(descriptor, Descriptor::of(MediaType::OciManifest, &bytes));
        let by_digest = format!("GET /v2/a/manifests/{digest}");
        assert_eq!(server.lines(), ["HEAD /v2/a/manifests/v1", &by_digest]);
        let accept = server.asked()[0].header("accept").map(str::to_owned);
        assert_eq!(accept.as_deref(), Some(ACCEPT));
    }

    #[test]
    fn a_head_that_says_too_little_is_followed_by_a_get() {
        let server = Server::start(|_, _| told());
        manifest(&server, ":v1").unwrap();
        assert_eq!(
            server.lines(),
            ["HEAD /v2/a/manifests/v1", "GET /v2/a/manifests/v1"]
        );
        let server = Server::start(|_, asked| match asked.method.as_str() {
            "HEAD" => Told::new(405),
            _ => told(),
        });
        manifest(&server, ":v1").unwrap();
    }

    #[test]
    fn what_a_registry_says_is_not_believed() {
        let other = Digest::of(b"other");
        let server = Server::start(move |_, _| told().with("docker-content-digest", other));
        let error = manifest(&server, ":v1").unwrap_err().to_string();
        assert!(error.contains("instead of"), "{error}");
        let server = Server::start(|_, _| told());
        let error = manifest(&server, &format!("@{other}"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("instead of"), "{error}");
        let server = Server::start(|_, _| told().with("content-length", 30 << 20).cut(0));
        let error = manifest(&server, &format!("@{other}"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("are the most"), "{error}");
        let server =
            Server::start(|_, _| Told::new(200).with("content-type", SCHEMA_1[1]).body("{}"));
        let error = manifest(&server, ":v1").unwrap_err();
        assert_eq!(error.code(), "imgdecl::registry::schema1");
    }

    #[test]
    fn a_mirror_speaks_for_a_registry_that_is_gone() {
        let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let gone = gone.local_addr().unwrap();
        let digest = Digest::of(MANIFEST.as_bytes());
        let mirror = Server::start(move |_, _| told().with("docker-content-digest", digest));
        let config = format!("[registry.\"{gone}\"]\nmirrors = [\"{}\"]\n", mirror.name);
        let (client, ear) = client(&config, None);
        let reference: Reference = format!("{gone}/a:v1").parse().unwrap();
        assert_eq!(client.resolve(&reference).unwrap().digest, digest);
        assert_eq!(
            mirror.lines(),
            [format!("HEAD /v2/a/manifests/v1?ns={gone}")]
        );
        assert_eq!(ear.notes.lock().unwrap().len(), 1);
    }

    #[test]
    fn a_blob_that_two_pull_at_once_is_fetched_once() {
        let server = Server::start(|_, _| {
            std::thread::sleep(std::time::Duration::from_millis(100));
            Told::new(200).body("layer")
        });
        let layer = Descriptor::of(MediaType::OciLayer, b"layer");
        let reference: Reference = format!("{}/a", server.name).parse().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let (client, _) = client("", None);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let layers = std::slice::from_ref(&layer);
                    client.pull(&reference, layers, &store).unwrap();
                });
            }
        });
        assert_eq!(server.asked().len(), 1);
    }

    #[test]
    fn a_body_that_is_cut_is_fetched_again() {
        let server = Server::start(|before, _| match before.len() {
            0 => told().cut(5),
            _ => told(),
        });
        let digest = Digest::of(MANIFEST.as_bytes());
        manifest(&server, &format!("@{digest}")).unwrap();
        assert_eq!(server.asked().len(), 2);
    }
}
