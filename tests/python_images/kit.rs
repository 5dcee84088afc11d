//! What the tests of Python images share: the index of this machine, and images that are unpacked and run.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Output, Space, absent, peer};

/// How long a server in an image may take until it answers.
const PATIENCE: Duration = Duration::from_secs(60);

/// The variables that say to pip and uv which index there is.
pub(super) fn index_variables() -> Vec<(OsString, OsString)> {
    let is_it = |name: &OsString| {
        let name = name.to_string_lossy();
        name.starts_with("PIP_") || name.starts_with("UV_")
    };
    std::env::vars_os()
        .filter(|(name, _)| is_it(name))
        .collect()
}

/// Builds with packages of the index that the host's pip asks. It must succeed.
#[track_caller]
pub(super) fn build(space: &Space, args: &[&str]) -> Output {
    let output = Output::of(space.command(args).envs(index_variables()));
    assert_eq!(output.status, 0, "{args:?} failed:\n{}", output.stderr);
    output
}

/// The programs by which an image is unpacked and run.
pub(super) struct Machine {
    umoci: PathBuf,
    runc: PathBuf,
}

impl Machine {
    /// Finds the programs. Only root makes the device files and owners that images of Debian have.
    pub(super) fn find() -> Option<Self> {
        let (umoci, runc) = (peer("umoci")?, peer("runc")?);
        if fs::metadata("/proc/self").expect("/proc").uid() != 0 {
            absent("root");
            return None;
        }
        Some(Self { umoci, runc })
    }

    /// Unpacks an image of a layout.
    #[track_caller]
    pub(super) fn unpack(&self, space: &Space, image: &str, bundle: &str) -> Bundle {
        let mut command = space.program(&self.umoci);
        let output = Output::of(command.args(["unpack", "--image", image, bundle]));
        assert_eq!(output.status, 0, "{image}:\n{}", output.stderr);
        Bundle {
            path: space.path().join(bundle),
            state: space.path().join("runc"),
            runc: self.runc.clone(),
        }
    }
}

/// An image that is unpacked, and can be run.
pub(super) struct Bundle {
    path: PathBuf,
    state: PathBuf,
    runc: PathBuf,
}

impl Bundle {
    /// The image's root folder.
    pub(super) fn root(&self) -> PathBuf {
        self.path.join("rootfs")
    }

    /// Has the bundle run a command, in the host's network and without a terminal.
    fn configure(&self, args: &[&str]) {
        let file = self.path.join("config.json");
        let text = fs::read(&file).expect("config.json");
        let mut config: Value = serde_json::from_slice(&text).expect("JSON");
        let env = config["process"]["env"].to_string();
        assert!(!env.contains("PYTHONPATH"), "{env}");
        config["process"]["args"] = json!(args);
        config["process"]["terminal"] = false.into();
        let process = config["process"].as_object_mut().expect("a process");
        // A limit that is higher than ours could not be set.
        process.remove("rlimits");
        let namespaces = config["linux"]["namespaces"].as_array_mut();
        namespaces
            .expect("namespaces")
            .retain(|it| it["type"] != "network");
        fs::write(&file, config.to_string()).expect("config.json");
    }

    fn runc(&self) -> Command {
        let mut command = Command::new(&self.runc);
        command.arg("--root").arg(&self.state);
        command
    }

    fn start(&self, args: &[&str]) -> (Command, String) {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        self.configure(args);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let id = format!("imgdecl-python-{}-{number}", std::process::id());
        let mut command = self.runc();
        command.args(["run", "--bundle"]).arg(&self.path).arg(&id);
        command.stdin(Stdio::null());
        (command, id)
    }

    fn delete(&self, id: &str) {
        let _ = self.runc().args(["delete", "--force", id]).output();
    }

    /// Runs a command in the image; it must succeed. Returns what it prints.
    #[track_caller]
    pub(super) fn run(&self, args: &[&str]) -> String {
        let (mut command, id) = self.start(args);
        let output = Output::of(&mut command);
        self.delete(&id);
        assert_eq!(
            output.status, 0,
            "{args:?} failed:\n{}{}",
            output.stdout, output.stderr
        );
        output.stdout
    }

    /// Runs a server in the image, and returns what it answers to a GET. The command has `PORT` in the place of the port.
    #[track_caller]
    pub(super) fn serve(&self, args: &[&str], path: &str) -> String {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr());
        let address = free.expect("a free port");
        let port = address.port().to_string();
        let args = args
            .iter()
            .map(|it| if *it == "PORT" { &port } else { *it });
        let args: Vec<&str> = args.collect();
        let (mut command, id) = self.start(&args);
        let log = self.path.join("log");
        let output = fs::File::create(&log).expect("a file for what it prints");
        command.stdout(output.try_clone().expect("a file"));
        let mut child = command.stderr(output).spawn().expect("runc");
        let answer = wait(&mut child, &address.to_string(), path);
        let _ = self.runc().args(["kill", &id, "KILL"]).output();
        let _ = child.wait();
        self.delete(&id);
        let said = || fs::read_to_string(&log).unwrap_or_default();
        answer.unwrap_or_else(|| panic!("{args:?} answers nothing:\n{}", said()))
    }
}

/// Asks until there is an answer, or the server has ended.
fn wait(child: &mut Child, address: &str, path: &str) -> Option<String> {
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        if child.try_wait().is_ok_and(|ended| ended.is_some()) {
            return None;
        }
        if let Some(answer) = ask(address, path).filter(|it| !it.is_empty()) {
            return Some(answer);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    None
}

fn ask(address: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// Lists all regular files below a folder.
pub(super) fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let kind = fs::symlink_metadata(&path).expect("an entry").file_type();
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() {
                found.push(path);
            }
        }
    }
    found
}

/// Returns the files of the top layer of an image, by path. The layer must not be compressed.
#[track_caller]
pub(super) fn layer_of(layout: &Path, image: &str) -> BTreeMap<String, Vec<u8>> {
    let found = crate::support::validate(layout);
    let image = &found.images[image].platforms[0];
    let layer = image.layers.last().expect("a layer");
    let hex = layer.digest.strip_prefix("sha256:").expect("sha256");
    let blob = fs::File::open(layout.join("blobs/sha256").join(hex)).expect("a blob");
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(blob).entries().expect("a tar") {
        let mut entry = entry.expect("an entry");
        let path = entry.path().expect("a path").display().to_string();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("its content");
        files.insert(path, content);
    }
    files
}
