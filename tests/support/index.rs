//! A package index on loopback, in this process: made wheels, served as JSON or HTML, with a log of what was asked. What
//! it does and does not do is said by its [`Shape`]; what it does wrong, by a closure.

mod data;

pub(crate) use data::Data;

use std::collections::BTreeMap;
use std::io::{Cursor, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use imgdecl::parts::oci::Digest;
use serde_json::json;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::registry::{Connection, Delivery, Reply, Request};

/// How often a waiting thread looks whether the server stops.
const PAUSE: Duration = Duration::from_millis(20);

/// A wheel that an index has.
#[derive(Clone)]
pub(crate) struct Wheel {
    /// The name of the file.
    pub(crate) file: String,
    /// Its bytes.
    pub(crate) bytes: Vec<u8>,
    /// Its METADATA.
    pub(crate) metadata: String,
    /// The Pythons that the page names.
    pub(crate) requires_python: Option<String>,
    /// Why it was yanked.
    pub(crate) yanked: Option<String>,
    /// The digest that the page says, if not the true one.
    pub(crate) listed: Option<Digest>,
}

impl Wheel {
    /// Makes a wheel, with so many bytes of ballast in so many files before its METADATA.
    pub(crate) fn new(name: &str, version: &str, ballast: usize, files: usize) -> Self {
        let metadata = format!("Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n");
        let stem = format!("{}-{version}", name.replace('-', "_"));
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::STORE);
        let mut add = |name: String, bytes: &[u8]| {
            zip.start_file(name, options).expect("memory");
            zip.write_all(bytes).expect("memory");
        };
        // METADATA comes first, so that it is far from the end.
        add(format!("{stem}.dist-info/METADATA"), metadata.as_bytes());
        for number in 0..files {
            let name = format!("{stem}/a/long/name/as/data/files/have/them/{number:08}.json");
            add(name, &vec![b'x'; ballast / files]);
        }
        Self {
            file: format!("{stem}-py3-none-any.whl"),
            bytes: zip.finish().expect("memory").into_inner(),
            metadata,
            requires_python: Some(">=3.8".to_owned()),
            yanked: None,
            listed: None,
        }
    }

    pub(crate) fn sha256(&self) -> Digest {
        Digest::of(&self.bytes)
    }

    /// The digest that the page says.
    fn said(&self) -> Digest {
        self.listed.unwrap_or_else(|| self.sha256())
    }
}

/// What an index says of METADATA beside its wheels, and what is true.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beside {
    /// It says so, with the digest.
    Said,
    /// It has it, and says nothing.
    Silent,
    /// It has none, and says nothing.
    None,
}

/// What an index does.
#[derive(Clone)]
pub(crate) struct Shape {
    pub(crate) is_json: bool,
    pub(crate) has_etag: bool,
    /// What it says of how long its pages are fresh, if it says that.
    pub(crate) cache_control: Option<&'static str>,
    pub(crate) has_ranges: bool,
    pub(crate) has_hashes: bool,
    pub(crate) beside: Beside,
    /// The user and password that everything needs.
    pub(crate) login: Option<(String, String)>,
    /// Where its files are, if not here: the URL of another server.
    pub(crate) files: Option<String>,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            is_json: true,
            has_etag: true,
            cache_control: None,
            has_ranges: true,
            has_hashes: true,
            beside: Beside::Said,
            login: None,
            files: None,
        }
    }
}

/// Answers in the place of the index, where it gives an answer. Gets how often the same was asked before.
pub(crate) type Fault = Box<dyn Fn(&Request, usize) -> Option<(Reply, Delivery)> + Send>;

struct Inner {
    shape: Shape,
    stop: AtomicBool,
    wheels: Mutex<BTreeMap<String, Vec<Wheel>>>,
    fault: Mutex<Option<Fault>>,
    /// The folder whose files are at `/served/`.
    served: Mutex<Option<PathBuf>>,
    log: Mutex<Vec<(Request, u16)>>,
}

/// An index that runs until it is dropped.
pub(crate) struct Index {
    inner: Arc<Inner>,
    host: String,
    accept: Option<JoinHandle<()>>,
}

impl Index {
    /// Starts an index that has wheels, each below its project.
    pub(crate) fn start(shape: Shape, wheels: &[(&str, &Wheel)]) -> Self {
        let mut all: BTreeMap<String, Vec<Wheel>> = BTreeMap::new();
        for (project, wheel) in wheels {
            let list = all.entry((*project).to_owned()).or_default();
            list.push((*wheel).clone());
        }
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let host = listener.local_addr().expect("an address").to_string();
        let inner = Arc::new(Inner {
            shape,
            stop: AtomicBool::new(false),
            wheels: Mutex::new(all),
            fault: Mutex::new(None),
            served: Mutex::new(None),
            log: Mutex::default(),
        });
        let shared = Arc::clone(&inner);
        let accept = thread::spawn(move || {
            thread::scope(|scope| {
                for stream in listener.incoming() {
                    if shared.stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let Ok(stream) = stream else { continue };
                    // A peer that goes away is no fault of the server.
                    scope.spawn(|| drop(shared.serve(stream)));
                }
            });
        });
        Self {
            inner,
            host,
            accept: Some(accept),
        }
    }

    /// Has a closure answer first.
    pub(crate) fn fail(
        &self,
        fault: impl Fn(&Request, usize) -> Option<(Reply, Delivery)> + Send + 'static,
    ) {
        *self.inner.fault.lock().expect("no panic while locked") = Some(Box::new(fault));
    }

    /// Answers every page with a status.
    pub(crate) fn refuse(&self, status: u16) {
        let page = move |request: &Request, _| {
            let is_page = request.path().starts_with("/simple/");
            is_page.then(|| (Reply::new(status), Delivery::default()))
        };
        self.fail(page);
    }

    /// Adds a wheel to a project, as its makers do who publish a version.
    pub(crate) fn add(&self, project: &str, wheel: &Wheel) {
        let mut wheels = self.inner.wheels.lock().expect("no panic while locked");
        let list = wheels.entry(project.to_owned()).or_default();
        list.push(wheel.clone());
    }

    /// Has the files of a folder at `/served/`, as they are when they are asked for.
    pub(crate) fn serve_folder(&self, folder: PathBuf) {
        *self.inner.served.lock().expect("no panic while locked") = Some(folder);
    }

    /// Its host and port.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// The URL of the index.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/simple/", self.host)
    }

    /// The URL with a user and a password.
    pub(crate) fn url_of(&self, user: &str, password: &str) -> String {
        format!("http://{user}:{password}@{}/simple", self.host)
    }

    /// The requests so far, with the statuses of their answers.
    pub(crate) fn log(&self) -> Vec<(Request, u16)> {
        self.inner
            .log
            .lock()
            .expect("no panic while locked")
            .clone()
    }

    /// The requests so far, as `200 /simple/a/`, with their ranges as `206 /files/a.whl -100`; then begins anew.
    pub(crate) fn take(&self) -> Vec<String> {
        let mut log = self.inner.log.lock().expect("no panic while locked");
        let line = |(request, status): (Request, u16)| {
            let range = request
                .header("range")
                .and_then(|it| it.strip_prefix("bytes="));
            let range = range.map(|it| format!(" {it}")).unwrap_or_default();
            format!("{status} {}{range}", request.target)
        };
        log.drain(..).map(line).collect()
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        self.inner.stop.store(true, Ordering::Relaxed);
        // The listener waits in `accept`: a connection wakes it.
        drop(TcpStream::connect(&self.host));
        if let Some(accept) = self.accept.take() {
            let ended = accept.join();
            if !thread::panicking() {
                ended.expect("an index");
            }
        }
    }
}

impl Inner {
    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        stream.set_read_timeout(Some(PAUSE))?;
        stream.set_write_timeout(Some(PAUSE))?;
        stream.set_nodelay(true)?;
        let mut connection = Connection::new(Box::new(stream), &self.stop);
        while let Some(request) = connection.request()? {
            let before = {
                let log = self.log.lock().expect("no panic while locked");
                let same = log.iter().filter(|it| it.0.target == request.target);
                same.count()
            };
            let fault = {
                let fault = self.fault.lock().expect("no panic while locked");
                fault.as_ref().and_then(|it| it(&request, before))
            };
            let (reply, delivery) =
                fault.unwrap_or_else(|| (self.answer(&request), Delivery::default()));
            let logged = (request.clone(), reply.status);
            self.log.lock().expect("no panic while locked").push(logged);
            // No status: no answer.
            if reply.status == 0 {
                connection.hang();
                return Ok(());
            }
            if !connection.reply(&request, &reply, &delivery)?.1 {
                return Ok(());
            }
        }
        Ok(())
    }

    fn answer(&self, request: &Request) -> Reply {
        if let Some((user, password)) = &self.shape.login {
            let expected = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
            if request.header("authorization") != Some(&expected) {
                return Reply::new(401).with("WWW-Authenticate", "Basic realm=x");
            }
        }
        let path = request.path();
        if let Some(name) = path.strip_prefix("/served/") {
            let folder = self.served.lock().expect("no panic while locked").clone();
            let bytes = folder.and_then(|folder| std::fs::read(folder.join(name)).ok());
            return bytes.map_or(Reply::new(404), |bytes| self.file(request, &bytes));
        }
        let wheels = self.wheels.lock().expect("no panic while locked");
        if let Some(project) = path.strip_prefix("/simple/") {
            let wheels = wheels.get(project.trim_end_matches('/'));
            return wheels.map_or(Reply::new(404), |wheels| self.page(request, wheels));
        }
        let Some(file) = path.strip_prefix("/files/") else {
            return Reply::new(404);
        };
        // Local versions.
        let file = file.replace("%2B", "+");
        let file = file.as_str();
        let all = || wheels.values().flatten();
        if let Some(file) = file.strip_suffix(".metadata") {
            let found = all().find(|it| it.file == file);
            return match found.filter(|_| self.shape.beside != Beside::None) {
                Some(wheel) => Reply::new(200).text("text/plain", wheel.metadata.clone()),
                None => Reply::new(404),
            };
        }
        match all().find(|it| it.file == file) {
            Some(wheel) => self.file(request, &wheel.bytes),
            None => Reply::new(404),
        }
    }

    fn file(&self, request: &Request, bytes: &[u8]) -> Reply {
        let etag = format!("\"{}\"", Digest::of(bytes).hex());
        let range = request.header("range").filter(|_| self.shape.has_ranges);
        let range = range.and_then(|it| it.strip_prefix("bytes=")?.split_once('-'));
        let size = bytes.len();
        let whole = Reply::new(200).text("application/zip", bytes);
        let reply = match range {
            None => whole,
            Some((first, last)) => {
                let number = |it: &str| it.parse::<usize>().ok();
                let (first, last) = match (number(first), number(last)) {
                    (Some(first), last) => (first, last.unwrap_or(size - 1).min(size - 1)),
                    (None, count) => (size - count.unwrap_or(size).min(size), size - 1),
                };
                let part = &bytes[first..=last];
                Reply::new(206)
                    .text("application/zip", part)
                    .with("Content-Range", format!("bytes {first}-{last}/{size}"))
            }
        };
        match self.shape.has_etag {
            true => reply.with("ETag", etag),
            false => reply,
        }
    }

    fn page(&self, request: &Request, wheels: &[Wheel]) -> Reply {
        let shape = &self.shape;
        let url = |wheel: &Wheel| match &shape.files {
            Some(other) => format!("{other}/files/{}", wheel.file),
            None => format!("../../files/{}", wheel.file),
        };
        let accept = request.header("accept").unwrap_or_default();
        let is_json = shape.is_json && accept.contains("application/vnd.pypi.simple.v1+json");
        let reply = match is_json {
            true => {
                let file = |wheel: &Wheel| {
                    let mut file = json!({
                        "filename": wheel.file, "url": url(wheel), "hashes": {},
                        "requires-python": wheel.requires_python, "size": wheel.bytes.len(),
                        "yanked": wheel.yanked.as_ref().map_or(json!(false), |it| json!(it)),
                    });
                    if shape.has_hashes {
                        file["hashes"] = json!({"sha256": wheel.said().hex()});
                    }
                    if shape.beside == Beside::Said {
                        let digest = Digest::of(wheel.metadata.as_bytes()).hex();
                        file["core-metadata"] = json!({"sha256": digest});
                    }
                    file
                };
                let files: Vec<_> = wheels.iter().map(file).collect();
                let page = json!({"meta": {"api-version": "1.1"}, "name": "x", "files": files});
                let kind = "application/vnd.pypi.simple.v1+json";
                Reply::new(200).text(kind, page.to_string())
            }
            false => {
                let mut page = "<!DOCTYPE html><html><body><h1>Links</h1>\n".to_owned();
                for wheel in wheels {
                    let url = url(wheel);
                    let hash = match shape.has_hashes {
                        true => format!("#sha256={}", wheel.said().hex()),
                        false => String::new(),
                    };
                    let beside = match shape.beside {
                        Beside::Said => {
                            let digest = Digest::of(wheel.metadata.as_bytes()).hex();
                            format!(" data-core-metadata=\"sha256={digest}\"")
                        }
                        _ => String::new(),
                    };
                    page += &format!(
                        "<a href=\"{url}{hash}\" data-requires-python=\"&gt;=3.8\"{beside}>{}</a><br>\n",
                        wheel.file
                    );
                }
                Reply::new(200).text("text/html; charset=utf-8", page)
            }
        };
        let etag = format!("\"{}\"", Digest::of(&reply.body).hex());
        let is_known = request.header("if-none-match") == Some(&etag);
        let reply = match (shape.has_etag, is_known) {
            (false, _) => reply,
            (true, true) => Reply::new(304).with("ETag", etag).with("Content-Length", 0),
            (true, false) => reply.with("ETag", etag),
        };
        match shape.cache_control {
            Some(text) => reply.with("Cache-Control", text),
            None => reply,
        }
    }
}
