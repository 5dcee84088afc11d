//! What a fault server holds, and what the distribution spec 1.1 wants done with it. Knows no faults, no connections.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imgdecl::parts::oci::Digest;
use serde_json::{Value, json};

use super::message::{Reply, Request};
use super::quirks::{Location, Mount, Patch, Quirks};

/// The largest manifest that registries must take (distribution-spec, "Pushing Manifests").
const MANIFEST: usize = 4 << 20;
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// All repositories of a server.
#[derive(Default)]
pub(crate) struct Repositories {
    pub(super) all: BTreeMap<String, Repository>,
    uploads: BTreeMap<String, Upload>,
    opened: u64,
    /// How many manifests were read, for the rate limit.
    reads: u32,
    /// Image tags that named, when they were set, what was not all there.
    pub(super) wrong: Vec<String>,
}

/// One repository.
#[derive(Clone, Default)]
pub(crate) struct Repository {
    pub(crate) blobs: BTreeMap<Digest, Arc<Vec<u8>>>,
    /// Media types and bytes.
    pub(crate) manifests: BTreeMap<Digest, (String, Arc<Vec<u8>>)>,
    pub(crate) tags: BTreeMap<String, Digest>,
}

struct Upload {
    name: String,
    bytes: Vec<u8>,
    /// The state that the next request must bring, where Locations have a query.
    state: u64,
    /// What Range said first.
    range: Option<String>,
    used: bool,
}

/// What a path is about.
enum Path<'a> {
    Root,
    Manifest(&'a str, &'a str),
    Blob(&'a str, &'a str),
    Open(&'a str),
    Upload(&'a str, &'a str),
    Tags(&'a str),
    Referrers(&'a str, &'a str),
}

impl<'a> Path<'a> {
    fn parse(path: &'a str) -> Option<Self> {
        let rest = path.strip_prefix("/v2/")?;
        if rest.is_empty() {
            return Some(Self::Root);
        }
        if let Some((name, session)) = rest.split_once("/blobs/uploads/") {
            return Some(match session.is_empty() {
                true => Self::Open(name),
                false => Self::Upload(name, session),
            });
        }
        if let Some(name) = rest.strip_suffix("/blobs/uploads") {
            return Some(Self::Open(name));
        }
        if let Some(name) = rest.strip_suffix("/tags/list") {
            return Some(Self::Tags(name));
        }
        let (front, last) = rest.rsplit_once('/')?;
        let (name, kind) = front.rsplit_once('/')?;
        match kind {
            "manifests" => Some(Self::Manifest(name, last)),
            "blobs" => Some(Self::Blob(name, last)),
            "referrers" => Some(Self::Referrers(name, last)),
            _ => None,
        }
    }
}

/// The scopes that a request needs, as `NAME:ACTION`.
pub(super) fn scopes(request: &Request) -> Vec<String> {
    let reads = matches!(request.method.as_str(), "GET" | "HEAD");
    let name = match Path::parse(request.path()) {
        Some(
            Path::Manifest(name, _)
            | Path::Blob(name, _)
            | Path::Open(name)
            | Path::Upload(name, _)
            | Path::Tags(name)
            | Path::Referrers(name, _),
        ) => name,
        Some(Path::Root) | None => return Vec::new(),
    };
    let mut scopes = vec![format!("{name}:pull")];
    if !reads {
        scopes.push(format!("{name}:push"));
    }
    if let Some(from) = request.asks("from") {
        scopes.push(format!("{from}:pull"));
    }
    scopes
}

/// The uploads session of a request whose body was cut: what came of it stays in the session.
pub(super) fn session(request: &Request) -> Option<&str> {
    match Path::parse(request.path())? {
        Path::Upload(_, session) => Some(session),
        _ => None,
    }
}

impl Repository {
    /// Finds a manifest by an image tag or a digest.
    pub(crate) fn find(&self, reference: &str) -> Option<Digest> {
        let digest = match reference.parse() {
            Ok(digest) => digest,
            Err(_) => *self.tags.get(reference)?,
        };
        self.manifests.contains_key(&digest).then_some(digest)
    }

    /// Returns what a manifest or index names and the repository does not hold, or holds with another size.
    pub(crate) fn missing(&self, manifest: &[u8]) -> Vec<String> {
        let Ok(document) = serde_json::from_slice::<Value>(manifest) else {
            return vec!["a manifest that is no JSON".to_owned()];
        };
        let mut missing = Vec::new();
        let list = |key: &str| document[key].as_array().cloned().unwrap_or_default();
        let blobs = document.get("config").cloned().into_iter();
        for descriptor in blobs.chain(list("layers")) {
            let text = descriptor["digest"].as_str().unwrap_or_default();
            let foreign = descriptor["mediaType"]
                .as_str()
                .is_some_and(|it| it.contains("nondistributable") || it.contains("foreign"));
            let size = text
                .parse()
                .ok()
                .and_then(|digest: Digest| self.blobs.get(&digest))
                .map(|bytes| bytes.len() as u64);
            if size != descriptor["size"].as_u64() && !foreign {
                missing.push(format!("the blob {text}"));
            }
        }
        for descriptor in list("manifests") {
            let text = descriptor["digest"].as_str().unwrap_or_default();
            match text
                .parse()
                .ok()
                .and_then(|it: Digest| self.manifests.get(&it))
            {
                Some((_, bytes)) => missing.extend(self.missing(bytes)),
                None => missing.push(format!("the manifest {text}")),
            }
        }
        missing
    }
}

impl Repositories {
    /// Answers a request with its body. `host` is this server's own name.
    pub(super) fn answer(
        &mut self,
        request: &Request,
        body: Vec<u8>,
        quirks: &Quirks,
        host: &str,
    ) -> Reply {
        if quirks.refuse_authorization && request.header("authorization").is_some() {
            let text = "<Error><Message>Only one auth mechanism allowed</Message></Error>";
            return Reply::new(400).text("application/xml", text);
        }
        if quirks.cookies && request.header("cookie").is_some() {
            return Reply::error(403, "DENIED", "CSRF token invalid");
        }
        let path = request.path().to_owned();
        let mut reply = match (request.method.as_str(), Path::parse(&path)) {
            (_, None) => Reply::error(404, "UNSUPPORTED", "no such path"),
            ("GET" | "HEAD", Some(Path::Root)) => Reply::new(200).json(&json!({})),
            ("GET" | "HEAD", Some(Path::Manifest(name, reference))) => {
                self.manifest(request, name, reference, quirks)
            }
            ("PUT", Some(Path::Manifest(name, reference))) => {
                self.put_manifest(request, name, reference, body, quirks)
            }
            ("GET" | "HEAD", Some(Path::Blob(name, digest))) => {
                self.blob(request, name, digest, quirks)
            }
            ("POST", Some(Path::Open(name))) => self.open(request, name, body, quirks, host),
            (method, Some(Path::Upload(name, session))) => {
                self.upload(request, method, name, session, body, quirks, host)
            }
            ("GET", Some(Path::Tags(name))) => self.tags(request, name, quirks),
            ("GET", Some(Path::Referrers(name, digest))) if quirks.referrers => {
                self.referrers(request, name, digest)
            }
            ("GET", Some(Path::Referrers(..))) => Reply::error(404, "NOT_FOUND", "no such page"),
            _ => Reply::error(405, "UNSUPPORTED", "not this method"),
        };
        if quirks.cookies {
            reply.set("Set-Cookie", "session=1; Path=/".to_owned());
        }
        reply
    }

    fn manifest(
        &mut self,
        request: &Request,
        name: &str,
        reference: &str,
        quirks: &Quirks,
    ) -> Reply {
        if request.method == "GET" {
            self.reads += 1;
            if quirks.rate.is_some_and(|rate| self.reads > rate) {
                return Reply::error(
                    429,
                    "TOOMANYREQUESTS",
                    "You have reached your pull rate limit",
                )
                .with("Retry-After", 1);
            }
        }
        let repository = self.all.get(name);
        let by_digest_tag = || {
            let hex = reference.strip_prefix("sha256-")?;
            repository?.find(&format!("sha256:{hex}"))
        };
        let digest = repository
            .and_then(|it| it.find(reference))
            .or_else(|| by_digest_tag().filter(|_| quirks.digest_tags));
        let Some((digest, repository)) = digest.zip(repository) else {
            return Reply::error(404, "MANIFEST_UNKNOWN", "manifest unknown");
        };
        let (kind, bytes) = &repository.manifests[&digest];
        let accepted = |(key, value): &(String, String)| {
            key == "accept" && (value.contains("*/*") || value.contains(kind))
        };
        if !request.headers.iter().any(accepted) {
            return Reply::error(404, "MANIFEST_UNKNOWN", "not in a form that is accepted");
        }
        let mut reply = Reply::new(200)
            .text(kind, bytes.to_vec())
            .with("ETag", format!("\"{digest}\""));
        if quirks.digest_header {
            reply.set("Docker-Content-Digest", digest.to_string());
        }
        reply
    }

    fn put_manifest(
        &mut self,
        request: &Request,
        name: &str,
        reference: &str,
        body: Vec<u8>,
        quirks: &Quirks,
    ) -> Reply {
        if body.len() > MANIFEST {
            return Reply::error(413, "SIZE_INVALID", "the manifest is too large");
        }
        let invalid = |text: &str| Reply::error(400, "MANIFEST_INVALID", text);
        let Ok(document) = serde_json::from_slice::<Value>(&body) else {
            return invalid("no JSON");
        };
        let kind = request.header("content-type").unwrap_or_default();
        if document["mediaType"].as_str().is_some_and(|it| it != kind) || kind.is_empty() {
            return invalid("Content-Type is not mediaType");
        }
        let digest = Digest::of(&body);
        let tag = match reference.parse::<Digest>() {
            Ok(named) if named != digest => {
                return Reply::error(400, "DIGEST_INVALID", "another digest");
            }
            Ok(_) => None,
            Err(_) => Some(reference.to_owned()),
        };
        if quirks.made_repositories && !self.all.contains_key(name) {
            return Reply::error(404, "NAME_UNKNOWN", "the repository does not exist");
        }
        let repository = self.all.entry(name.to_owned()).or_default();
        let missing = repository.missing(&body);
        if !missing.is_empty() && !quirks.lenient {
            return Reply::error(400, "MANIFEST_BLOB_UNKNOWN", &missing.join(", "));
        }
        if let Some(tag) = &tag {
            let old = repository.tags.get(tag);
            if quirks.immutable && old.is_some_and(|it| *it != digest) {
                return Reply::error(400, "TAG_INVALID", "the image tag is immutable");
            }
            if quirks.immutable && old.is_some() {
                return Reply::error(409, "TAG_INVALID", "the image tag is there already");
            }
            if let Some(expected) = request.header("if-match")
                && old.is_none_or(|it| expected != format!("\"{it}\""))
            {
                return Reply::error(412, "PRECONDITION", "the image tag was changed");
            }
            if !missing.is_empty() {
                self.wrong
                    .push(format!("{name}:{tag} lacks {}", missing.join(", ")));
            }
            repository.tags.insert(tag.clone(), digest);
        }
        let entry = (kind.to_owned(), Arc::new(body));
        repository.manifests.insert(digest, entry);
        let mut reply = Reply::new(201);
        if quirks.digest_header {
            reply.set("Docker-Content-Digest", digest.to_string());
        }
        if quirks.manifest_location {
            reply.set("Location", format!("/v2/{name}/manifests/{digest}"));
        }
        if let Some(subject) = document["subject"]["digest"].as_str()
            && quirks.referrers
        {
            reply.set("OCI-Subject", subject.to_owned());
        }
        reply
    }

    fn blob(&self, request: &Request, name: &str, digest: &str, quirks: &Quirks) -> Reply {
        let digest = digest.parse::<Digest>().ok();
        let repository = self.all.get(name);
        let Some((digest, bytes)) = digest.and_then(|it| Some((it, repository?.blobs.get(&it)?)))
        else {
            return Reply::error(404, "BLOB_UNKNOWN", "blob unknown to registry");
        };
        let mut reply = Reply::new(200)
            .text("application/octet-stream", bytes.to_vec())
            .with("Accept-Ranges", "bytes");
        if quirks.digest_header {
            reply.set("Docker-Content-Digest", digest.to_string());
        }
        let Some(range) = request.header("range").filter(|_| request.method == "GET") else {
            return reply;
        };
        let length = bytes.len();
        let (begin, end) = range
            .strip_prefix("bytes=")
            .and_then(|it| it.split_once('-'))
            .expect("Range: bytes=BEGIN-END");
        let begin: usize = begin.parse().expect("a number");
        let end: usize = match end {
            "" => length - 1,
            end => end.parse::<usize>().expect("a number").min(length - 1),
        };
        if begin >= length || end < begin {
            return Reply::error(416, "RANGE_INVALID", "no such range")
                .with("Content-Range", format!("bytes */{length}"));
        }
        reply.status = 206;
        reply.body = bytes[begin..=end].to_vec();
        reply.with("Content-Range", format!("bytes {begin}-{end}/{length}"))
    }

    /// POST: mounts a blob, takes a whole one, or opens a session.
    fn open(
        &mut self,
        request: &Request,
        name: &str,
        body: Vec<u8>,
        quirks: &Quirks,
        host: &str,
    ) -> Reply {
        if quirks.made_repositories && !self.all.contains_key(name) {
            let text = "The repository does not exist in the registry";
            return Reply::error(404, "NAME_UNKNOWN", text);
        }
        if let Some(digest) = request.asks("mount") {
            let digest: Digest = digest.parse().expect("a digest to mount");
            let from = request.asks("from");
            let source = from.as_ref().and_then(|it| self.all.get(it));
            let bytes = source.and_then(|it| it.blobs.get(&digest)).cloned();
            let referenced = source.is_some_and(|it| {
                let mut manifests = it.manifests.values();
                let text = digest.to_string();
                manifests.any(|(_, bytes)| String::from_utf8_lossy(bytes).contains(&text))
            });
            let mounts = match quirks.mount {
                Mount::Fails(status) => {
                    return Reply::error(status, "UNAUTHORIZED", "cannot mount");
                }
                Mount::NeedsFrom if from.is_none() => {
                    return Reply::error(400, "UNSUPPORTED", "mount needs from");
                }
                Mount::Ignored => false,
                Mount::Referenced => referenced,
                Mount::Works | Mount::NeedsFrom => true,
            };
            if let Some(bytes) = bytes.filter(|_| mounts) {
                let repository = self.all.entry(name.to_owned()).or_default();
                repository.blobs.insert(digest, bytes);
                return created(name, &digest);
            }
        }
        if let Some(digest) = request.asks("digest") {
            return self.complete(name, &digest, body);
        }
        self.opened += 1;
        let session = format!("session-{}", self.opened);
        let mut upload = Upload {
            name: name.to_owned(),
            bytes: Vec::new(),
            state: 0,
            range: None,
            used: false,
        };
        let mut reply = progress(&session, &mut upload, quirks, host, 202);
        self.uploads.insert(session, upload);
        if let Some(least) = quirks.min_chunk {
            reply.set("OCI-Chunk-Min-Length", least.to_string());
        }
        reply
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one request")]
    fn upload(
        &mut self,
        request: &Request,
        method: &str,
        name: &str,
        session: &str,
        body: Vec<u8>,
        quirks: &Quirks,
        host: &str,
    ) -> Reply {
        let Some(upload) = self.uploads.get_mut(session).filter(|it| it.name == name) else {
            return Reply::error(404, "BLOB_UPLOAD_UNKNOWN", "no such session");
        };
        let invalid = |status, text: &str| Reply::error(status, "BLOB_UPLOAD_INVALID", text);
        let stale = quirks.location != Location::Plain
            && request.asks("_state") != Some(upload.state.to_string());
        match method {
            "GET" => return progress(session, upload, quirks, host, 204),
            "DELETE" => {
                if let Some(status) = quirks.cancel {
                    return Reply::error(status, "UNSUPPORTED", "sessions end by themselves");
                }
                self.uploads.remove(session);
                return Reply::new(204);
            }
            "PUT" | "PATCH" if stale => return invalid(400, "an old Location"),
            "PUT" | "PATCH" => {}
            _ => return Reply::error(405, "UNSUPPORTED", "not this method"),
        }
        let length = body.len() as u64;
        if quirks.one_use && upload.used && request.header("content-range").is_none() && length > 0
        {
            return invalid(416, "the session has begun already");
        }
        upload.used = true;
        if let Some(range) = request.header("content-range") {
            let begin = upload.bytes.len() as u64;
            let expected = format!("{begin}-{}", (begin + length).saturating_sub(1));
            if range.trim_start_matches("bytes ") != expected {
                return progress(session, upload, quirks, host, 416);
            }
        }
        if method == "PATCH" {
            match quirks.patch {
                Patch::Fails(status) => {
                    return Reply::error(status, "UNSUPPORTED", "no chunked uploads");
                }
                Patch::Limit(limit) if length > limit => {
                    return invalid(416, "request body too large");
                }
                Patch::Limit(_) | Patch::Works => {}
            }
            upload.bytes.extend(body);
            upload.state += 1;
            return progress(session, upload, quirks, host, quirks.patch_status);
        }
        if quirks.max_put.is_some_and(|limit| length > limit) {
            return Reply::error(413, "SIZE_INVALID", "request entity too large");
        }
        let Some(digest) = request.asks("digest") else {
            return Reply::error(400, "DIGEST_INVALID", "the digest is missing");
        };
        let upload = self.uploads.remove(session).expect("it was found");
        self.complete(name, &digest, [upload.bytes, body].concat())
    }

    fn complete(&mut self, name: &str, digest: &str, bytes: Vec<u8>) -> Reply {
        let found = Digest::of(&bytes);
        if digest != found.to_string() {
            let text = format!("the bytes have the digest {found}");
            return Reply::error(400, "DIGEST_INVALID", &text);
        }
        let repository = self.all.entry(name.to_owned()).or_default();
        repository.blobs.insert(found, Arc::new(bytes));
        created(name, &found)
    }

    /// Keeps what came of a body that was cut: the session goes on after it.
    pub(super) fn keep(&mut self, session: &str, bytes: Vec<u8>) {
        if let Some(upload) = self.uploads.get_mut(session) {
            upload.bytes.extend(bytes);
            upload.used = true;
        }
    }

    fn tags(&self, request: &Request, name: &str, quirks: &Quirks) -> Reply {
        let Some(repository) = self.all.get(name) else {
            return Reply::error(404, "NAME_UNKNOWN", "repository name not known to registry");
        };
        let asked = request.asks("n").map(|it| it.parse().expect("a number"));
        if let (Some(asked), Some(status)) = (asked, quirks.large_page)
            && asked > quirks.page
        {
            return Reply::error(status, "PAGINATION_NUMBER_INVALID", "n is too large");
        }
        let count = asked.unwrap_or(quirks.page).min(quirks.page);
        let last = request.asks("last").unwrap_or_default();
        let after: Vec<&String> = repository.tags.keys().filter(|it| **it > last).collect();
        let page = &after[..count.min(after.len())];
        let mut list = json!({ "name": name, "tags": page });
        if repository.tags.is_empty() && quirks.null_tags {
            list["tags"] = Value::Null;
        }
        let reply = Reply::new(200).json(&list);
        match page.last().filter(|_| page.len() < after.len()) {
            Some(last) => {
                let next = format!("/v2/{name}/tags/list?n={count}&last={last}");
                reply.with("Link", format!("<{next}>; rel=\"next\""))
            }
            None => reply,
        }
    }

    fn referrers(&self, request: &Request, name: &str, subject: &str) -> Reply {
        let kind = request.asks("artifactType");
        let manifests = self.all.get(name).map(|it| &it.manifests);
        let mut found = Vec::new();
        for (digest, (media_type, bytes)) in manifests.into_iter().flatten() {
            let document: Value = serde_json::from_slice(bytes).expect("checked when it came");
            if document["subject"]["digest"] != subject {
                continue;
            }
            let mut of = document["artifactType"].clone();
            if of.is_null() {
                of = document["config"]["mediaType"].clone();
            }
            if kind.as_ref().is_some_and(|kind| of != kind.as_str()) {
                continue;
            }
            let mut entry = json!({
                "mediaType": media_type, "digest": digest.to_string(), "size": bytes.len(),
                "artifactType": of,
            });
            if document["annotations"].is_object() {
                entry["annotations"] = document["annotations"].clone();
            }
            found.push(entry);
        }
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": found });
        let reply = Reply::new(200).text(INDEX, index.to_string());
        match kind {
            Some(_) => reply.with("OCI-Filters-Applied", "artifactType"),
            None => reply,
        }
    }

    /// Checks every image tag; returns what is wrong.
    pub(super) fn check(&self) -> BTreeSet<String> {
        let mut wrong: BTreeSet<String> = self.wrong.iter().cloned().collect();
        for (name, repository) in &self.all {
            for (tag, digest) in &repository.tags {
                match repository.manifests.get(digest) {
                    Some((_, bytes)) => wrong.extend(
                        repository
                            .missing(bytes)
                            .into_iter()
                            .map(|it| format!("{name}:{tag} lacks {it}")),
                    ),
                    None => drop(wrong.insert(format!("{name}:{tag} names nothing"))),
                }
            }
        }
        wrong
    }
}

fn created(name: &str, digest: &Digest) -> Reply {
    Reply::new(201)
        .with("Location", format!("/v2/{name}/blobs/{digest}"))
        .with("Docker-Content-Digest", digest)
}

/// How far a session is.
fn progress(session: &str, upload: &mut Upload, quirks: &Quirks, host: &str, status: u16) -> Reply {
    let path = format!("/v2/{}/blobs/uploads/{session}", upload.name);
    let state = upload.state;
    let location = match &quirks.location {
        Location::Relative => format!("{path}?_state={state}"),
        Location::Plain => path,
        Location::Absolute => format!("http://{host}{path}?_state={state}"),
        Location::Other(host) => format!("http://{host}{path}?_state={state}"),
    };
    let mut range = format!("0-{}", upload.bytes.len().saturating_sub(1));
    if quirks.sticky_range && !upload.bytes.is_empty() {
        range = upload.range.get_or_insert(range).clone();
    }
    Reply::new(status)
        .with("Location", location)
        .with("Range", range)
        .with("Docker-Upload-UUID", session)
}
