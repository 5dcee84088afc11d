//! A daemon of the tests: as much of the Docker Engine API as loading images takes, at a socket of its own. It keeps the
//! archive that it was sent.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

/// `daemon.json` of a golden case: what the daemon is, and what it does wrong. Everything may be left out.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Data {
    /// Its version; `20.10.24` if nothing is said.
    version: Option<String>,
    /// Its architecture, as Go calls it; `amd64` if nothing is said.
    arch: Option<String>,
    /// It answers to a load with this status, and this body.
    answer: Option<(u16, String)>,
    /// It has no image after a load.
    forgets: bool,
    /// What it says of images in place of what is so: members of the answer to `GET /images/NAME/json`.
    image: serde_json::Map<String, Value>,
    /// The mode of its socket, as `000`.
    mode: Option<String>,
}

impl Data {
    pub(crate) fn read(path: &Path) -> Self {
        let text = fs::read(path).expect("daemon.json");
        serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}

/// The daemon. It ends with the value.
pub(crate) struct Daemon {
    socket: PathBuf,
    loaded: PathBuf,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Daemon {
    /// Starts a daemon in a folder.
    pub(crate) fn start(data: Data, folder: &Path) -> Self {
        let (socket, loaded) = (folder.join("docker.sock"), folder.join("loaded.tar"));
        let listener = UnixListener::bind(&socket).expect("a socket");
        if let Some(mode) = &data.mode {
            let mode = u32::from_str_radix(mode, 8).expect("a mode");
            fs::set_permissions(&socket, fs::Permissions::from_mode(mode)).expect("a socket");
        }
        let is_over = Arc::new(AtomicBool::new(false));
        let (over, archive) = (Arc::clone(&is_over), loaded.clone());
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                // A client that goes away in the middle is no failure of the daemon's.
                let _ = stream.and_then(|stream| serve(stream, &data, &archive));
            }
        });
        Self {
            socket,
            loaded,
            is_over,
            thread: Some(thread),
        }
    }

    /// As DOCKER_HOST has it.
    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// The archive that it was sent, if it was sent one whole.
    pub(crate) fn loaded(&self) -> Option<&Path> {
        self.loaded.exists().then_some(&self.loaded)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let _ = fs::set_permissions(&self.socket, fs::Permissions::from_mode(0o600));
        let _ = UnixStream::connect(&self.socket);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the daemon's thread");
        }
    }
}

/// Answers one request, and ends the connection.
fn serve(stream: UnixStream, data: &Data, archive: &Path) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let request: Vec<String> = line.split(' ').take(2).map(str::to_owned).collect();
    let mut size = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        if name.eq_ignore_ascii_case("content-length") {
            size = value.trim().parse().expect("a size");
        }
    }
    let mut body = Vec::new();
    reader.take(size).read_to_end(&mut body)?;
    let is_whole = body.len() as u64 == size;
    let [method, path] = &request[..] else {
        return Ok(());
    };
    let (status, text) = match (method.as_str(), path.as_str()) {
        ("GET", "/version") => {
            let version = data.version.as_deref().unwrap_or("20.10.24");
            let arch = data.arch.as_deref().unwrap_or("amd64");
            let version = json!({"Version": version, "Os": "linux", "Arch": arch});
            (200, version.to_string())
        }
        ("POST", "/images/load?quiet=1") if is_whole => {
            fs::write(archive, body)?;
            let loaded = || (200, json!({"stream": "Loaded images\n"}).to_string());
            data.answer.clone().unwrap_or_else(loaded)
        }
        ("GET", path) => {
            let name = path.strip_prefix("/images/");
            let name = name.and_then(|it| it.strip_suffix("/json"));
            let name = name.filter(|_| !data.forgets);
            match name.and_then(|name| find(archive, name)) {
                Some(mut image) => {
                    image.extend(data.image.clone());
                    (200, Value::Object(image).to_string())
                }
                None => (404, json!({"message": "No such image"}).to_string()),
            }
        }
        _ => (400, json!({"message": "bad request"}).to_string()),
    };
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}",
        text.len()
    )
}

/// Finds an image of the archive by its full name: its ID, which is its config's digest, and its diff_ids.
fn find(archive: &Path, name: &str) -> Option<serde_json::Map<String, Value>> {
    let read = |name: &str| -> Option<Value> {
        let mut tar = tar::Archive::new(fs::File::open(archive).ok()?);
        let mut entries = tar.entries().ok()?.flatten();
        let entry = entries.find(|entry| *entry.path_bytes() == *name.as_bytes())?;
        serde_json::from_reader(entry).ok()
    };
    let list = read("manifest.json")?;
    let list = list.as_array()?;
    let image = list.iter().find(|image| {
        let tags = image["RepoTags"].as_array();
        tags.is_some_and(|tags| tags.iter().any(|tag| tag == name))
    })?;
    let config = image["Config"].as_str()?;
    let id = config.replace("blobs/sha256/", "sha256:");
    let diff_ids = read(config)?["rootfs"]["diff_ids"].clone();
    let root = json!({"Type": "layers", "Layers": diff_ids});
    Some(
        [("Id".to_owned(), id.into()), ("RootFS".to_owned(), root)]
            .into_iter()
            .collect(),
    )
}
