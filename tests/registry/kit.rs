//! What the tests of the client share: a client with short limits, a store, a monitor that remembers, bytes to push.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use imgdecl::parts::oci::{Descriptor, Digest, Reference};
use imgdecl::parts::registry::{
    Blobs, Client, Config, Credentials, Ended, Limits, Monitor, Places, Proxies, PushImage,
    PushManifest, Pushed, RegistryError, Setup, Transfer,
};
use imgdecl::parts::store::{Blob, Blobs as _, Health, Store};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::registry::{Image, PASSWORD, Server, USER};

/// Limits that let a test of many failures end soon.
pub(super) fn limits() -> Limits {
    Limits {
        connect: Duration::from_secs(2),
        idle: Duration::from_millis(600),
        tries: 4,
        backoff: Duration::from_millis(4),
        retry_after: Duration::from_millis(300),
        total: Duration::from_secs(2),
    }
}

/// Remembers what a client tells.
#[derive(Default)]
pub(super) struct Recorder {
    notes: Mutex<Vec<String>>,
    ends: Mutex<Vec<Ended>>,
    moved: AtomicU64,
    stopped: AtomicBool,
}

impl Recorder {
    pub(super) fn notes(&self) -> Vec<String> {
        self.notes.lock().expect("no panic while locked").clone()
    }

    /// What became of each transfer.
    pub(super) fn ends(&self) -> Vec<Ended> {
        self.ends.lock().expect("no panic while locked").clone()
    }

    /// How many bytes moved.
    pub(super) fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

impl Monitor for Recorder {
    fn start(&self, _: &Transfer<'_>) -> u64 {
        0
    }

    fn more(&self, _: u64, bytes: u64) {
        self.moved.fetch_add(bytes, Ordering::Relaxed);
    }

    fn end(&self, _: u64, outcome: Ended) {
        self.ends
            .lock()
            .expect("no panic while locked")
            .push(outcome);
    }

    fn note(&self, text: &str) {
        let mut notes = self.notes.lock().expect("no panic while locked");
        notes.push(text.to_owned());
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}

/// A client and what it works with.
pub(super) struct Rig {
    pub(super) client: Client,
    pub(super) monitor: Arc<Recorder>,
    pub(super) store: Store,
    #[expect(dead_code, reason = "removes the folder when it is dropped")]
    folder: TempDir,
}

/// What a rig is made of.
#[derive(Default)]
pub(super) struct Making {
    /// The text of config.toml.
    pub(super) config: String,
    /// Hosts and their entries, as `auths` of docker's config.json has them.
    pub(super) auths: BTreeMap<String, Value>,
    pub(super) limits: Option<Limits>,
    pub(super) proxies: Proxies,
}

impl Making {
    /// Knows the login of the tests for these hosts.
    pub(super) fn login(hosts: &[&str]) -> Self {
        let login = |host: &&str| ((*host).to_owned(), auth(USER, PASSWORD));
        Self {
            auths: hosts.iter().map(login).collect(),
            ..Self::default()
        }
    }

    pub(super) fn config(mut self, text: impl AsRef<str>) -> Self {
        self.config.push_str(text.as_ref());
        self
    }

    pub(super) fn build(self) -> Rig {
        let folder = TempDir::with_prefix("imgdecl-client").expect("a temporary folder");
        let authfile = folder.path().join("auth.json");
        let auths = json!({ "auths": self.auths });
        std::fs::write(&authfile, auths.to_string()).expect("a file");
        let path = Path::new("config.toml");
        let config = Config::parse(&self.config, path).expect("settings");
        let monitor = Arc::new(Recorder::default());
        let shared: Arc<Recorder> = Arc::clone(&monitor);
        Rig {
            client: Client::new(Setup {
                config,
                credentials: Credentials::new(Places {
                    authfile: Some(authfile),
                    ..Places::default()
                }),
                proxies: self.proxies,
                monitor: shared,
                limits: self.limits.unwrap_or_else(limits),
            }),
            monitor,
            store: Store::open(&folder.path().join("cache")).expect("a store"),
            folder,
        }
    }
}

/// An entry of `auths` for a name and a password.
pub(super) fn auth(user: &str, password: &str) -> Value {
    json!({ "auth": STANDARD.encode(format!("{user}:{password}")) })
}

impl Rig {
    /// A client without credentials and settings.
    pub(super) fn new() -> Self {
        Making::default().build()
    }

    /// A client that knows the login of the tests for a server.
    pub(super) fn login(server: &Server) -> Self {
        Making::login(&[server.host()]).build()
    }

    /// Pushes an image as `NAME:TAG` of a server.
    pub(super) fn push(
        &self,
        server: &Server,
        name: &str,
        image: &Image,
    ) -> Result<Pushed, RegistryError> {
        let blobs = Bytes::of(&[image]);
        self.push_from(&[(server.reference(name), image)], &blobs)
            .pop()
            .expect("one image, one result")
    }

    /// Pushes an image as `NAME:TAG` of a server, and asks for every blob.
    pub(super) fn check(
        &self,
        server: &Server,
        name: &str,
        image: &Image,
    ) -> Result<Pushed, RegistryError> {
        let blobs = Bytes::of(&[image]);
        let mut results = self.check_from(&[(server.reference(name), image)], &blobs);
        results.pop().expect("one image, one result")
    }

    /// Pushes several images at once, and asks for every blob.
    pub(super) fn check_from(
        &self,
        images: &[(Reference, &Image)],
        blobs: &Bytes,
    ) -> Vec<Result<Pushed, RegistryError>> {
        let images = images.iter().map(|it| PushImage {
            is_checked: true,
            ..to_push(&it.0, it.1)
        });
        self.client.push(&images.collect::<Vec<_>>(), blobs)
    }

    /// Pushes several images at once.
    pub(super) fn push_from(
        &self,
        images: &[(Reference, &Image)],
        blobs: &Bytes,
    ) -> Vec<Result<Pushed, RegistryError>> {
        let images: Vec<PushImage> = images.iter().map(|it| to_push(&it.0, it.1)).collect();
        let results = self.client.push(&images, blobs);
        assert_eq!(results.len(), images.len(), "a result for each image");
        results
    }

    /// Fetches a whole image: its manifests, configs into memory, layers into the store. Returns the root.
    pub(super) fn fetch(&self, reference: &Reference) -> Result<Descriptor, RegistryError> {
        let resolved = self.client.resolve(reference)?;
        let at = |digest: Digest| Reference {
            tag: None,
            digest: Some(digest),
            ..reference.clone()
        };
        let mut queue = vec![resolved.digest];
        while let Some(digest) = queue.pop() {
            let (descriptor, bytes) = self.client.manifest(&at(digest))?;
            assert_eq!(descriptor.digest, digest);
            assert_eq!(Digest::of(&bytes), digest);
            let document: Value = serde_json::from_slice(&bytes).expect("JSON");
            let list = |key: &str| -> Vec<Descriptor> {
                serde_json::from_value(document[key].clone()).unwrap_or_default()
            };
            queue.extend(list("manifests").iter().map(|it| it.digest));
            if let Ok(config) = serde_json::from_value::<Descriptor>(document["config"].clone()) {
                let bytes = self.client.document(reference, &config)?;
                assert_eq!(Digest::of(&bytes), config.digest);
            }
            self.client.pull(reference, &list("layers"), &self.store)?;
            for layer in list("layers") {
                assert_eq!(self.health(&layer), Health::Whole, "{layer:?}");
            }
        }
        Ok(resolved)
    }

    /// Fetches a blob of the repository `a` into the store.
    pub(super) fn pull(&self, server: &Server, blob: &Descriptor) -> Result<(), RegistryError> {
        let blobs = std::slice::from_ref(blob);
        self.client.pull(&server.reference("a"), blobs, &self.store)
    }

    /// Whether the store has a blob.
    pub(super) fn health(&self, descriptor: &Descriptor) -> Health {
        self.store.check(&Blob {
            digest: descriptor.digest,
            size: descriptor.size,
        })
    }
}

/// An image as `push` wants it.
fn to_push(reference: &Reference, image: &Image) -> PushImage {
    let manifest = |part: &crate::support::registry::Part| PushManifest {
        manifest: part.manifest.clone(),
        config: part.config.clone(),
        layers: part.layers.clone(),
    };
    PushImage {
        name: "app".to_owned(),
        repository: Reference {
            tag: None,
            digest: None,
            ..reference.clone()
        },
        tags: reference.tag.iter().cloned().collect(),
        root: image.root(),
        is_checked: false,
        manifests: image.parts.iter().map(manifest).collect(),
    }
}

/// The bytes of images, and where else they can be had.
#[derive(Default)]
pub(super) struct Bytes {
    bytes: BTreeMap<Digest, Vec<u8>>,
    origins: BTreeMap<Digest, Reference>,
    opened: Mutex<BTreeMap<Digest, u32>>,
}

impl Bytes {
    pub(super) fn of(images: &[&Image]) -> Self {
        let mut all = Self::default();
        for image in images {
            let bytes = image.bytes().into_iter();
            all.bytes
                .extend(bytes.map(|(digest, bytes)| (digest, bytes.to_vec())));
        }
        all
    }

    /// Says that a repository holds a blob.
    pub(super) fn origin(mut self, digest: Digest, reference: Reference) -> Self {
        self.origins.insert(digest, reference);
        self
    }

    /// Takes the bytes of a blob away from this machine.
    pub(super) fn without(mut self, digest: &Digest) -> Self {
        self.bytes.remove(digest);
        self
    }

    /// How often a blob was opened.
    pub(super) fn opened(&self, digest: &Digest) -> u32 {
        let opened = self.opened.lock().expect("no panic while locked");
        opened.get(digest).copied().unwrap_or_default()
    }
}

impl Blobs for Bytes {
    fn open(&self, descriptor: &Descriptor) -> io::Result<Option<Box<dyn Read + Send>>> {
        let mut opened = self.opened.lock().expect("no panic while locked");
        *opened.entry(descriptor.digest).or_default() += 1;
        let bytes = self.bytes.get(&descriptor.digest).cloned();
        Ok(bytes.map(|it| Box::new(io::Cursor::new(it)) as Box<dyn Read + Send>))
    }

    fn origin(&self, digest: &Digest) -> Option<Reference> {
        self.origins.get(digest).cloned()
    }
}

/// An image with layers of these sizes, whose bytes depend on the seed.
pub(super) fn image(seed: u64, sizes: &[usize]) -> Image {
    let mut random = crate::support::Random(seed);
    let layers: Vec<Vec<u8>> = sizes.iter().map(|size| random.bytes(*size)).collect();
    let layers: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
    Image::of(&layers)
}

/// Checks that a server holds an image under an image tag, all of it.
#[track_caller]
pub(super) fn assert_holds(server: &Server, name: &str, image: &Image) {
    let reference = server.reference(name);
    let tag = reference.tag.expect("NAME:TAG");
    let repository = server.repository(&reference.repository);
    assert_eq!(
        repository.tags.get(&tag),
        Some(&image.root().digest),
        "{}",
        server.story()
    );
    for (digest, bytes) in image.bytes() {
        let blob = repository.blobs.get(&digest).map(|it| it.as_slice());
        let manifest = repository
            .manifests
            .get(&digest)
            .map(|(_, it)| it.as_slice());
        assert_eq!(
            blob.or(manifest),
            Some(bytes),
            "{digest}\n{}",
            server.story()
        );
    }
    server.check_tags();
}

/// The code of an error; of several errors the one that they have in common.
#[track_caller]
pub(super) fn code(error: &RegistryError) -> &'static str {
    match error {
        RegistryError::Several(all) => {
            let codes: Vec<&str> = all.iter().map(code).collect();
            assert!(codes.windows(2).all(|it| it[0] == it[1]), "{error}");
            code(&all[0])
        }
        one => one.code(),
    }
}

/// Checks that an error says all of these, and no secret.
#[track_caller]
pub(super) fn assert_says(error: &RegistryError, words: &[&str]) {
    let text = format!("{error}\n{}", error.help().unwrap_or_default());
    for word in words {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
    let all = format!("{text}\n{error:?}");
    assert!(!all.contains(PASSWORD), "a secret: {all}");
    assert!(!all.contains("opaque."), "a token: {all}");
}
