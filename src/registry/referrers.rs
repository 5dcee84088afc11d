//! What refers to an image: signatures, SBOMs (distribution-spec, "Listing Referrers" and "Pushing Manifests with
//! Subject"). Where a registry lacks that API, an index under an image tag stands for it. Knows no kind of referrer.

use std::collections::BTreeSet;
use std::sync::PoisonError;

use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Client;
use super::blob::Way;
use super::error::RegistryError;
use super::http::{Ask, At, Payload};
use super::image::Blobs;
use super::parallel;
use super::pull::ACCEPT;
use super::tags::LIST;
use super::upload_session::Target;
use super::url;
use crate::oci::{Descriptor, Digest, MAX_DOCUMENT, MediaType, Reference, Referrer};

/// How many pages are read.
const PAGES: usize = 1_000;
/// How many threads push at most.
const THREADS: usize = 32;
/// How often the list is written again because another writer came between.
const ROUNDS: usize = 5;

/// Documents about one manifest or index, for one repository.
pub(crate) struct Attach<'a> {
    /// The registry and repository, which have the subject.
    pub(crate) repository: &'a Reference,
    /// What the documents are about.
    pub(crate) subject: Digest,
    /// The manifests of the documents.
    pub(crate) manifests: Vec<&'a [u8]>,
    /// They are pushed even where the registry lists them.
    pub(crate) is_checked: bool,
}

/// An index as it was found. Its entries stay as they are.
#[derive(Default)]
struct List {
    index: Option<Value>,
    /// What the registry calls this version of it.
    etag: Option<String>,
}

impl Client {
    /// Lists what refers to a manifest or index; only what has the artifact type `kind`, if it is given.
    ///
    /// # Errors
    /// When the registry cannot be asked. One that knows of no referrers has none.
    pub fn referrers(
        &self,
        repository: &Reference,
        subject: &Digest,
        kind: Option<&str>,
    ) -> Result<Vec<Descriptor>, RegistryError> {
        let found = match self.referrers_of_api(repository, subject, kind)? {
            Some(found) => found,
            None => entries(self.list(repository, subject)?.index.as_ref()),
        };
        let mut seen = BTreeSet::new();
        let fits = |it: &Descriptor| kind.is_none() || it.artifact_type.as_deref() == kind;
        Ok(found
            .into_iter()
            .filter(|it| fits(it) && seen.insert(it.digest))
            .collect())
    }

    /// Pushes documents, each with its manifest, config and layers. What the registry lists is there, and stays. Returns for
    /// each subject the digests of the manifests that were not there.
    pub(crate) fn attach(
        &self,
        all: &[Attach<'_>],
        blobs: &dyn Blobs,
    ) -> Vec<Result<Vec<Digest>, RegistryError>> {
        let registries: BTreeSet<&str> = all
            .iter()
            .map(|it| it.repository.registry.as_str())
            .collect();
        let permits = registries
            .iter()
            .map(|registry| self.host(registry).config.concurrency);
        let threads = permits.sum::<usize>().clamp(1, THREADS);
        parallel::each(threads, all, |it| self.attach_to(it, blobs))
    }

    fn attach_to(
        &self,
        attach: &Attach<'_>,
        blobs: &dyn Blobs,
    ) -> Result<Vec<Digest>, RegistryError> {
        let Attach {
            repository,
            subject,
            manifests,
            is_checked,
        } = attach;
        let listed = match self.referrers(repository, subject, None) {
            Err(RegistryError::Stopped) => return Err(RegistryError::Stopped),
            Ok(listed) => listed.into_iter().map(|it| it.digest).collect(),
            // The push decides.
            Err(_) => BTreeSet::new(),
        };
        let mut added = Vec::new();
        for manifest in manifests {
            let is_there = listed.contains(&Digest::of(manifest));
            if !is_there || *is_checked {
                let pushed = self.push_referrer(repository, manifest, blobs)?;
                added.extend((!is_there).then_some(pushed.digest));
            }
        }
        Ok(added)
    }

    /// Pushes a manifest that has a `subject`, with its config and layers, and keeps the list of referrers where the
    /// registry does not. Returns its descriptor.
    ///
    /// # Errors
    /// When it is no such manifest, or cannot be pushed.
    pub fn push_referrer(
        &self,
        repository: &Reference,
        manifest: &[u8],
        blobs: &dyn Blobs,
    ) -> Result<Descriptor, RegistryError> {
        let document: Referrer =
            serde_json::from_slice(manifest).map_err(|error| RegistryError::Document {
                what: "the referrer's manifest".to_owned(),
                why: error.to_string(),
            })?;
        let descriptor = document.descriptor(manifest);
        let host = self.host(&repository.registry);
        let target = Target {
            host: &host,
            repository: &repository.repository,
        };
        let mut seen = BTreeSet::new();
        let needed: Vec<&Descriptor> = std::iter::once(&document.config)
            .chain(&document.layers)
            .filter(|blob| seen.insert(blob.digest))
            .collect();
        let results = parallel::each(host.config.concurrency, &needed, |blob| {
            let _permit = host
                .permits
                .acquire(&*self.monitor)
                .map_err(|_| RegistryError::Stopped)?;
            self.put_blob(target, blob, None, Way::Known, blobs)
        });
        let errors = results.into_iter().filter_map(Result::err).collect();
        if let Some(error) = RegistryError::of_all(errors) {
            return Err(error);
        }
        let name = descriptor.digest.to_string();
        if !self.put_document(target, &descriptor, &name, manifest)? {
            self.add_to_list(repository, target, &document.subject.digest, &descriptor)?;
        }
        Ok(descriptor)
    }

    /// Asks the referrers API; `None` if the registry has none.
    fn referrers_of_api(
        &self,
        repository: &Reference,
        subject: &Digest,
        kind: Option<&str>,
    ) -> Result<Option<Vec<Descriptor>>, RegistryError> {
        let host = self.host(&repository.registry);
        let mut path = format!("/v2/{}/referrers/{subject}", repository.repository);
        if let Some(kind) = kind {
            path.push_str("?artifactType=");
            path.push_str(&escape(kind));
        }
        let mut at = At::Path(path);
        let what = format!("the referrers of {subject}");
        let mut found = Vec::new();
        let mut pages = BTreeSet::new();
        let mut size = 0;
        loop {
            let mut ask = Ask::new(&host, Method::GET, at, &repository.repository, &what);
            ask.header("accept", MediaType::OciIndex.as_str());
            let (reply, bytes) = self.load(&mut ask, MAX_DOCUMENT)?;
            let is_index = reply
                .header("content-type")
                .is_some_and(|it| it.trim().starts_with(MediaType::OciIndex.as_str()));
            match reply.status() {
                200 if is_index => {}
                // A page of something else, or a path that is not known.
                200 | 400 | 404 | 405 | 406 | 501 => return Ok(None),
                _ => return Err(reply.refused()),
            }
            let index: Value = serde_json::from_slice(&bytes)
                .map_err(|_| reply.wrong("the answer is no index in JSON"))?;
            found.extend(entries(Some(&index)));
            let Some(next) = url::next_page(&reply.url, reply.headers()) else {
                return Ok(Some(found));
            };
            size += bytes.len();
            if size > LIST || pages.len() > PAGES || !pages.insert(next.clone()) {
                return Err(reply.wrong("the list has no end"));
            }
            at = At::Url(next);
        }
    }

    /// Reads the list that stands for the API (distribution-spec, "Unavailable Referrers API").
    fn list(&self, repository: &Reference, subject: &Digest) -> Result<List, RegistryError> {
        let host = self.host(&repository.registry);
        let what = format!("the referrers of {subject}");
        let path = format!(
            "/v2/{}/manifests/{}",
            repository.repository,
            list_tag(subject)
        );
        let mut ask = Ask::new(
            &host,
            Method::GET,
            At::Path(path),
            &repository.repository,
            &what,
        );
        ask.header("accept", ACCEPT);
        let (reply, bytes) = self.load(&mut ask, MAX_DOCUMENT)?;
        match reply.status() {
            200 => {}
            404 => return Ok(List::default()),
            _ => return Err(reply.refused()),
        }
        // GitLab takes the image tag for the digest, and answers with the subject itself.
        if Digest::of(&bytes) == *subject {
            return Ok(List::default());
        }
        let index: Value = serde_json::from_slice(&bytes)
            .map_err(|_| reply.wrong("the answer is no index in JSON"))?;
        if !index["manifests"].is_array() || index["mediaType"] == json!(MediaType::OciManifest) {
            return Err(reply.wrong("what the image tag for referrers names is no index"));
        }
        Ok(List {
            index: Some(index),
            etag: reply.header("etag").map(str::to_owned),
        })
    }

    /// Adds a referrer to the list, as often as it takes until it is in it.
    fn add_to_list(
        &self,
        repository: &Reference,
        target: Target<'_>,
        subject: &Digest,
        descriptor: &Descriptor,
    ) -> Result<(), RegistryError> {
        // Two of our own threads do not come between each other.
        let _turn = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        let name = list_tag(subject);
        let what = format!("the referrers of {subject}");
        let mut list = self.list(repository, subject)?;
        for _ in 0..ROUNDS {
            let is_in = |list: &List| {
                let all = entries(list.index.as_ref());
                all.iter().any(|it| it.digest == descriptor.digest)
            };
            if is_in(&list) {
                return Ok(());
            }
            let mut index = list.index.take().unwrap_or_else(
                || json!({"schemaVersion": 2, "mediaType": MediaType::OciIndex, "manifests": []}),
            );
            if let (Some(all), Ok(entry)) = (
                index["manifests"].as_array_mut(),
                serde_json::to_value(descriptor),
            ) {
                all.push(entry);
            }
            let bytes = index.to_string().into_bytes();
            let mut ask = target.ask(Method::PUT, &format!("manifests/{name}"), &what);
            ask.header("content-type", MediaType::OciIndex.as_str());
            if let Some(etag) = &list.etag {
                ask.header("if-match", etag);
            }
            ask.body = Payload::Bytes(&bytes);
            let reply = self.send(&mut ask)?;
            // 412: another writer was faster.
            if !matches!(reply.status(), 200..=202 | 412) {
                return Err(reply.refused());
            }
            list = self.list(repository, subject)?;
            if is_in(&list) {
                return Ok(());
            }
        }
        let ask = target.ask(Method::PUT, "", &what);
        let why = format!("others wrote the list {ROUNDS} times at the same moment");
        Err(RegistryError::content(&self.asked(&ask), why))
    }
}

/// Returns the image tag that stands for the referrers of a digest.
fn list_tag(subject: &Digest) -> String {
    format!("sha256-{}", subject.hex())
}

/// Returns the entries of an index that we can read.
fn entries(index: Option<&Value>) -> Vec<Descriptor> {
    let all = index.and_then(|index| index["manifests"].as_array());
    let all = all.into_iter().flatten();
    all.filter_map(|entry| Descriptor::deserialize(entry).ok())
        .collect()
}

/// Writes a text as a value of a query.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                escaped.push(char::from(byte));
            }
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read};
    use std::sync::Mutex;

    use super::super::testing::{Server, Told, client, stored};
    use super::*;

    /// Every blob is the empty object.
    struct Empty;

    impl Blobs for Empty {
        fn open(&self, _: &Descriptor) -> io::Result<Option<Box<dyn Read + Send>>> {
            Ok(Some(Box::new(&b"{}"[..])))
        }

        fn origin(&self, _: &Digest) -> Option<Reference> {
            None
        }
    }

    fn entry(kind: &str) -> Descriptor {
        let mut descriptor = Descriptor::of(MediaType::OciManifest, kind.as_bytes());
        descriptor.artifact_type = Some(kind.to_owned());
        descriptor
    }

    fn index(entries: &[Descriptor]) -> String {
        let kind = MediaType::OciIndex;
        json!({"schemaVersion": 2, "mediaType": kind, "manifests": entries}).to_string()
    }

    fn reference(server: &Server) -> Reference {
        format!("{}/a", server.name).parse().unwrap()
    }

    #[test]
    fn the_api_is_asked_first_and_its_answer_filtered() {
        let subject = Digest::of(b"subject");
        let server = Server::start(|_, asked| {
            let told = Told::new(200).with("content-type", MediaType::OciIndex);
            match asked.path.contains("page=2") {
                true => told.body(index(&[entry("x/z")])),
                false => told.with("link", "<?page=2>; rel=next").body(index(&[
                    entry("x/y"),
                    entry("x/z"),
                    entry("x/w"),
                ])),
            }
        });
        let (client, _) = client("", None);
        let count = |kind| {
            let found = client.referrers(&reference(&server), &subject, kind);
            found.unwrap().len()
        };
        assert_eq!(count(None), 3);
        assert_eq!(count(Some("x/z")), 1);
        let lines = server.lines();
        assert_eq!(
            lines[2],
            format!("GET /v2/a/referrers/{subject}?artifactType=x%2Fz")
        );
    }

    #[test]
    fn a_list_without_end_is_an_error() {
        let page = format!("{{{}}}", " ".repeat(LIST / 3));
        let server = Server::start(move |before, _| {
            Told::new(200)
                .with("content-type", MediaType::OciIndex)
                .with("link", format!("<?page={}>; rel=next", before.len()))
                .body(page.as_str())
        });
        let (client, _) = client("", None);
        let found = client.referrers(&reference(&server), &Digest::of(b"subject"), None);
        let error = found.unwrap_err().to_string();
        assert!(error.contains("no end"), "{error}");
        assert_eq!(server.asked().len(), 3);
    }

    #[test]
    fn the_subject_itself_is_no_list() {
        // As GitLab.
        let server = Server::start(|_, asked| match asked.path.contains("/referrers/") {
            true => Told::new(404),
            false => Told::new(200).body("subject"),
        });
        let (client, _) = client("", None);
        let found = client.referrers(&reference(&server), &Digest::of(b"subject"), None);
        assert!(found.unwrap().is_empty());
    }

    #[test]
    fn the_list_is_written_until_our_entry_is_in_it() {
        let subject = Descriptor::of(MediaType::OciManifest, b"subject");
        let list = Mutex::new((index(&[entry("other/one")]), 0));
        let server = Server::start(move |_, asked| {
            let mut list = list.lock().unwrap();
            let etag = format!("\"{}\"", list.1);
            match asked.method.as_str() {
                "HEAD" => Told::new(200).with("content-length", 2),
                "GET" => Told::new(200).with("etag", etag).body(list.0.as_str()),
                "PUT" if !asked.path.contains("/manifests/sha256-") => stored(asked),
                // Another writer comes between, once.
                _ if list.1 == 0 => {
                    *list = (index(&[entry("other/one"), entry("other/two")]), 1);
                    Told::new(412)
                }
                _ => {
                    assert_eq!(asked.header("if-match"), Some(etag.as_str()));
                    let text = String::from_utf8(asked.body.clone()).unwrap();
                    *list = (text, list.1 + 1);
                    Told::new(201)
                }
            }
        });
        let empty = Descriptor::of(MediaType::OciEmpty, b"{}");
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MediaType::OciManifest, "artifactType": "our/own",
            "config": empty, "layers": [empty], "subject": subject, "annotations": {"k": "v"},
        });
        let (client, _) = client("", None);
        let reference = reference(&server);
        let pushed = client.push_referrer(&reference, manifest.to_string().as_bytes(), &Empty);
        let pushed = pushed.unwrap();
        assert_eq!(pushed.annotations["k"], "v");
        let list = client.list(&reference, &subject.digest).unwrap();
        let found = entries(list.index.as_ref());
        assert_eq!(found, [entry("other/one"), entry("other/two"), pushed]);
    }

    #[test]
    fn entries_that_cannot_be_read_are_passed_over() {
        let digest = Digest::of(b"");
        let index = json!({"manifests": [
            {"mediaType": "a/b", "digest": "sha512:00", "size": 1},
            {"mediaType": "a/b", "digest": digest, "size": 1, "artifactType": "x/y"},
        ]});
        let found = entries(Some(&index));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].artifact_type.as_deref(), Some("x/y"));
        assert_eq!(escape("application/a+b"), "application%2Fa%2Bb");
    }

    #[test]
    fn null_is_absent() {
        let entry = json!({
            "mediaType": MediaType::OciManifest, "digest": Digest::of(b"x"), "size": 1, "artifactType": "x/y",
            "annotations": {"a": "b"}, "urls": ["x"], "platform": {"os": "linux", "architecture": "arm64", "variant": "v8"},
        });
        let index = json!({"schemaVersion": 2, "mediaType": MediaType::OciIndex, "manifests": [entry], "annotations": {}});
        let read = |bytes: &[u8]| serde_json::from_slice(bytes).map(|it| entries(Some(&it)));
        crate::oci::assert_null_is_absent(&index, read);
    }
}
