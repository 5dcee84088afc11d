//! The fault server: a registry on loopback, in this process, that keeps a log and does wrong what rules say.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{fs, io};

use imgdecl::parts::oci::{Digest, Reference};
use serde_json::{Value, json};

use super::auth::{Auth, Kind};
use super::image::Image;
use super::message::{Connection, Delivery, Reply, Request, wait};
use super::quirks::Quirks;
use super::repositories::{Repositories, Repository, scopes, session};
use super::rule::{Rule, fits};

/// How many connections are served at once; more must wait.
const CONNECTIONS: usize = 64;
/// How often a waiting thread looks whether the server stops.
const PAUSE: Duration = Duration::from_millis(20);

/// What a server is to be.
#[derive(Clone, Default)]
pub(crate) struct Setup {
    pub(crate) quirks: Quirks,
    pub(crate) auth: Auth,
    pub(crate) rules: Vec<Rule>,
    /// The address to listen at, as `127.0.0.1:5000`; any free port of 127.0.0.1 if nothing is said.
    pub(crate) address: Option<String>,
    /// Speaks TLS, with this certificate and key.
    pub(crate) tls: Option<Arc<rustls::ServerConfig>>,
    /// Holds what another server holds, and knows its upload sessions: see [`Server::share`].
    pub(crate) holds: Shared,
}

/// What one or several servers hold.
pub(crate) type Shared = Arc<Mutex<Repositories>>;

/// A request that came, and what was done with it.
#[derive(Clone, Debug)]
pub(crate) struct Logged {
    pub(crate) request: Request,
    /// How many bytes of its body were read.
    pub(crate) received: u64,
    /// The status of the answer; 0 if there was none.
    pub(crate) status: u16,
    /// How many bytes of the answer's body were sent.
    pub(crate) sent: u64,
}

impl Logged {
    /// The request, as `GET /v2/`.
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.request.method, self.request.target)
    }
}

struct State {
    rules: Vec<(Rule, u32)>,
    log: Vec<Logged>,
    /// How many requests each token came with.
    tokens: BTreeMap<String, u32>,
}

struct Inner {
    host: String,
    quirks: Quirks,
    auth: Auth,
    tls: Option<Arc<rustls::ServerConfig>>,
    stop: AtomicBool,
    busy: AtomicUsize,
    holds: Shared,
    state: Mutex<State>,
}

/// A server that runs until it is dropped.
pub(crate) struct Server {
    inner: Arc<Inner>,
    accept: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts a server.
    pub(crate) fn start(setup: Setup) -> Self {
        let address = setup.address.as_deref().unwrap_or("127.0.0.1:0");
        // Another run of the same tests may hold a fixed address for a while.
        let begin = Instant::now();
        let listener = loop {
            match TcpListener::bind(address) {
                Ok(listener) => break listener,
                Err(error) if begin.elapsed() > Duration::from_secs(120) => {
                    panic!("cannot listen at {address}: {error}")
                }
                Err(_) => thread::sleep(PAUSE),
            }
        };
        let host = listener.local_addr().expect("an address").to_string();
        let inner = Arc::new(Inner {
            host,
            quirks: setup.quirks,
            auth: setup.auth,
            tls: setup.tls,
            stop: AtomicBool::new(false),
            busy: AtomicUsize::new(0),
            holds: setup.holds,
            state: Mutex::new(State {
                rules: setup.rules.into_iter().map(|it| (it, 0)).collect(),
                log: Vec::new(),
                tokens: BTreeMap::new(),
            }),
        });
        let shared = Arc::clone(&inner);
        let accept = thread::spawn(move || accept(&shared, &listener));
        Self {
            inner,
            accept: Some(accept),
        }
    }

    /// Starts a server that keeps the spec.
    pub(crate) fn plain() -> Self {
        Self::start(Setup::default())
    }

    /// Starts a server with the quirks and logins of a profile.
    pub(crate) fn profile(name: &str, user: &str, password: &str) -> Self {
        Self::start(Setup {
            quirks: Quirks::profile(name),
            auth: Auth::profile(name, user, password),
            ..Setup::default()
        })
    }

    /// Returns the image tags that were set by requests, with their repositories, in order.
    pub(crate) fn pushed(&self) -> BTreeSet<(String, String)> {
        let puts = self.seen("PUT /v2/*/manifests/*");
        let name = |it: &Logged| {
            let path = it.request.path().strip_prefix("/v2/")?;
            let (name, tag) = path.split_once("/manifests/")?;
            let is_tag = it.status == 201 && !tag.contains(':');
            is_tag.then(|| (name.to_owned(), tag.to_owned()))
        };
        puts.iter().filter_map(name).collect()
    }

    /// Writes image tags and all below them to a layout; `false` if there are none.
    pub(crate) fn export(&self, tags: &BTreeSet<(String, String)>, folder: &Path) -> bool {
        let mut entries = Vec::new();
        let blobs = folder.join("blobs/sha256");
        for (name, tag) in tags {
            let repository = self.repository(name);
            let root = repository.tags[tag];
            let (kind, bytes) = &repository.manifests[&root];
            entries.push(json!({
                "mediaType": kind, "digest": root.to_string(), "size": bytes.len(),
                "annotations": { "org.opencontainers.image.ref.name": format!("{name}:{tag}") },
            }));
            fs::create_dir_all(&blobs).expect("a folder");
            let mut queue = vec![root];
            while let Some(digest) = queue.pop() {
                let manifest = repository.manifests.get(&digest);
                let bytes = match manifest {
                    Some((_, bytes)) => bytes,
                    None => &repository.blobs[&digest],
                };
                fs::write(blobs.join(digest.hex()), bytes.as_slice()).expect("a blob");
                if manifest.is_some() {
                    queue.extend(children(bytes));
                }
            }
        }
        if entries.is_empty() {
            return false;
        }
        let index = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": entries,
        });
        let write = |name: &str, text: Value| {
            fs::write(folder.join(name), text.to_string()).expect("a layout");
        };
        write("oci-layout", json!({ "imageLayoutVersion": "1.0.0" }));
        write("index.json", index);
        true
    }

    /// Its host and port.
    pub(crate) fn host(&self) -> &str {
        &self.inner.host
    }

    /// A reference to what it holds: `name` is a repository, and an image tag or digest.
    #[track_caller]
    pub(crate) fn reference(&self, name: &str) -> Reference {
        let name = name.strip_prefix(&self.inner.host).unwrap_or(name);
        let text = format!("{}/{}", self.inner.host, name.trim_start_matches('/'));
        text.parse().expect("a reference")
    }

    /// What it holds, for another server that is to hold the same.
    pub(crate) fn share(&self) -> Shared {
        Arc::clone(&self.inner.holds)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state()
    }

    fn holds(&self) -> MutexGuard<'_, Repositories> {
        self.inner.holds()
    }

    /// Adds a rule; its count begins now.
    pub(crate) fn rule(&self, rule: Rule) {
        self.state().rules.push((rule, 0));
    }

    /// Forgets all rules.
    pub(crate) fn heal(&self) {
        self.state().rules.clear();
    }

    /// Begins anew with counting for its rules, and with its log; what it holds stays.
    pub(crate) fn rewind(&self) {
        let mut state = self.state();
        state.log.clear();
        state.rules.iter_mut().for_each(|(_, count)| *count = 0);
    }

    /// Puts an image into a repository, and names it by an image tag.
    pub(crate) fn load(&self, name: &str, tag: &str, image: &Image) {
        let mut holds = self.holds();
        let repository = holds.all.entry(name.to_owned()).or_default();
        for blob in &image.blobs {
            let digest = Digest::of(blob);
            repository.blobs.insert(digest, Arc::new(blob.clone()));
        }
        for (kind, bytes) in &image.manifests {
            let entry = (kind.clone(), Arc::new(bytes.clone()));
            repository.manifests.insert(Digest::of(bytes), entry);
        }
        repository.tags.insert(tag.to_owned(), image.root().digest);
    }

    /// Puts any bytes under a digest, which may be wrong on purpose.
    pub(crate) fn put_blob(&self, name: &str, digest: Digest, bytes: &[u8]) {
        let mut holds = self.holds();
        let repository = holds.all.entry(name.to_owned()).or_default();
        repository.blobs.insert(digest, Arc::new(bytes.to_vec()));
    }

    /// Puts any document under an image tag and its digest.
    pub(crate) fn put_manifest(&self, name: &str, tag: &str, kind: &str, bytes: &[u8]) -> Digest {
        let mut holds = self.holds();
        let repository = holds.all.entry(name.to_owned()).or_default();
        let digest = Digest::of(bytes);
        let entry = (kind.to_owned(), Arc::new(bytes.to_vec()));
        repository.manifests.insert(digest, entry);
        repository.tags.insert(tag.to_owned(), digest);
        digest
    }

    /// Makes an empty repository.
    pub(crate) fn make_repository(&self, name: &str) {
        self.holds().all.entry(name.to_owned()).or_default();
    }

    /// Removes everything that it holds.
    pub(crate) fn clear(&self) {
        *self.holds() = Repositories::default();
    }

    /// Loses a blob or a manifest of a repository, as a registry does whose store lost a file.
    pub(crate) fn lose(&self, name: &str, digest: &Digest) {
        let mut holds = self.holds();
        let repository = holds.all.get_mut(name).expect("a repository");
        let was_blob = repository.blobs.remove(digest).is_some();
        let was_manifest = repository.manifests.remove(digest).is_some();
        assert!(was_blob || was_manifest, "{name} has no {digest}");
    }

    /// Returns what a repository holds now.
    pub(crate) fn repository(&self, name: &str) -> Repository {
        self.holds().all.get(name).cloned().unwrap_or_default()
    }

    /// Returns the names of all repositories.
    pub(crate) fn repositories(&self) -> Vec<String> {
        self.holds().all.keys().cloned().collect()
    }

    /// Returns what an image tag names.
    pub(crate) fn tag(&self, name: &str, tag: &str) -> Option<Digest> {
        self.repository(name).tags.get(tag).copied()
    }

    /// Checks that each image tag names, and always named, what is all there and right.
    #[track_caller]
    pub(crate) fn check_tags(&self) {
        let wrong = self.holds().check();
        assert!(wrong.is_empty(), "{wrong:#?}\n{}", self.story());
    }

    /// Returns the log so far.
    pub(crate) fn log(&self) -> Vec<Logged> {
        self.state().log.clone()
    }

    /// Returns the requests that match a pattern.
    pub(crate) fn seen(&self, pattern: &str) -> Vec<Logged> {
        let mut log = self.log();
        log.retain(|it| fits(pattern, &it.line()));
        log
    }

    /// Returns how many requests match a pattern.
    pub(crate) fn count(&self, pattern: &str) -> usize {
        self.seen(pattern).len()
    }

    /// Returns how many bytes of blobs were sent to it.
    pub(crate) fn blob_bytes(&self) -> u64 {
        let uploads = self.seen("* /v2/*/blobs/uploads/*");
        uploads.iter().map(|it| it.received).sum()
    }

    /// Returns the log as text, for messages of tests.
    pub(crate) fn story(&self) -> String {
        let line = |it: &Logged| {
            let (line, status, received, sent) = (it.line(), it.status, it.received, it.sent);
            format!("{status:3} {line} ({received} in, {sent} out)\n")
        };
        self.log().iter().map(line).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.inner.stop.store(true, Ordering::Relaxed);
        // The listener waits in `accept`: a connection wakes it.
        drop(TcpStream::connect(&self.inner.host));
        if let Some(accept) = self.accept.take() {
            let ended = accept.join();
            if !thread::panicking() {
                ended.expect("a fault server");
            }
        }
    }
}

/// The digests that a manifest or index names.
fn children(bytes: &[u8]) -> Vec<Digest> {
    let document: Value = serde_json::from_slice(bytes).expect("checked when it came");
    let list = |key: &str| document[key].as_array().cloned().unwrap_or_default();
    let all = list("manifests").into_iter().chain(list("layers"));
    let all = all.chain(document.get("config").cloned());
    let digest = |it: Value| it["digest"].as_str().and_then(|it| it.parse().ok());
    all.filter_map(digest).collect()
}

fn accept(inner: &Arc<Inner>, listener: &TcpListener) {
    thread::scope(|scope| {
        for stream in listener.incoming() {
            while inner.busy.load(Ordering::Relaxed) >= CONNECTIONS && !inner.stopped() {
                thread::sleep(PAUSE);
            }
            if inner.stopped() {
                return;
            }
            let Ok(stream) = stream else { continue };
            inner.busy.fetch_add(1, Ordering::Relaxed);
            scope.spawn(|| {
                // A peer that goes away is no fault of the server.
                let _ = inner.serve(stream);
                inner.busy.fetch_sub(1, Ordering::Relaxed);
            });
        }
    });
}

impl Inner {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while locked")
    }

    fn holds(&self) -> MutexGuard<'_, Repositories> {
        self.holds.lock().expect("no panic while locked")
    }

    fn serve(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(PAUSE))?;
        stream.set_write_timeout(Some(PAUSE))?;
        stream.set_nodelay(true)?;
        let stream: Box<dyn super::message::Stream> = match &self.tls {
            None => Box::new(stream),
            Some(config) => {
                let tls = rustls::ServerConnection::new(Arc::clone(config));
                let tls = tls.map_err(io::Error::other)?;
                Box::new(rustls::StreamOwned::new(tls, stream))
            }
        };
        let mut connection = Connection::new(stream, &self.stop);
        while let Some(request) = connection.request()? {
            if !self.exchange(&mut connection, &request)? {
                break;
            }
        }
        Ok(())
    }

    /// Counts the request, and returns the rules that apply.
    fn rules(&self, request: &Request) -> Vec<Rule> {
        let mut state = self.state();
        let mut rules = Vec::new();
        for (rule, count) in &mut state.rules {
            if rule.matches(request) {
                *count += 1;
                if rule.applies(*count) {
                    rules.push(rule.clone());
                }
            }
        }
        rules
    }

    /// Serves one request; tells whether the connection can go on.
    fn exchange(&self, connection: &mut Connection, request: &Request) -> io::Result<bool> {
        let number = {
            let mut state = self.state();
            state.log.push(Logged {
                request: request.clone(),
                received: 0,
                status: 0,
                sent: 0,
            });
            state.log.len() - 1
        };
        // The log may begin anew while a request is under way.
        let log = |change: &dyn Fn(&mut Logged)| {
            self.state().log.get_mut(number).map(change);
        };
        let rules = self.rules(request);
        let delay = rules.iter().map(|it| it.delay_ms).sum();
        if !wait(Duration::from_millis(delay), &self.stop) {
            return Ok(false);
        }
        if let Some(limit) = rules.iter().find_map(|it| it.cut_upload) {
            let body = connection.body(request, limit)?;
            log(&|it| it.received = body.len() as u64);
            if let Some(session) = session(request) {
                self.holds().keep(session, body);
            }
            return Ok(false);
        }
        let early = rules.iter().any(|it| it.early);
        let limit = if early { 0 } else { u64::MAX };
        let body = connection.body(request, limit)?;
        let received = body.len() as u64;
        log(&|it| it.received = received);
        if rules.iter().any(|it| it.hang) {
            connection.hang();
            return Ok(false);
        }
        if let Some(text) = rules.iter().find_map(|it| it.garbage.as_ref()) {
            connection.write(text.as_bytes())?;
            return Ok(false);
        }
        // A body that ended too soon is no request.
        if request.length().is_some_and(|length| received < length) && !early {
            if let Some(session) = session(request) {
                self.holds().keep(session, body);
            }
            return Ok(false);
        }
        let answer = rules.iter().find_map(Rule::answer);
        let mut reply = answer.unwrap_or_else(|| self.answer(request, body));
        rules.iter().for_each(|it| it.bend(&mut reply, request));
        if rules.iter().any(|it| it.lose) {
            return Ok(false);
        }
        let mut delivery = Delivery::default();
        rules.iter().for_each(|it| it.slow(&mut delivery));
        log(&|it| it.status = reply.status);
        let (sent, whole) = connection.reply(request, &reply, &delivery)?;
        log(&|it| it.sent = sent);
        Ok(whole && !early)
    }

    /// What a server without faults answers.
    fn answer(&self, request: &Request, body: Vec<u8>) -> Reply {
        if request.path() == "/token" && self.auth.kind == Kind::Token {
            let exists = |name: &str| self.holds().all.contains_key(name);
            return self.auth.issue(request, &body, exists);
        }
        if request.method == "CONNECT" {
            return Reply::new(502);
        }
        let tokens = &mut self.state().tokens;
        match self
            .auth
            .check(request, &scopes(request), &self.host, tokens)
        {
            Ok(()) => self.holds().answer(request, body, &self.quirks, &self.host),
            Err(reply) => reply,
        }
    }
}
