//! What Docker, podman, containerd and skopeo make of archives for Docker, of `--load`, and of Docker's media types. Each
//! daemon has folders and a socket of its own, and ends with its test.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::registry::{Mode, Real};
use crate::support::{Output, Random, Space, absent, peer, validate};

mod tls;

/// How long a daemon may take to start, and to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// The image of the example, and one on it with Docker's media types.
const MANIFEST: &str = r#"
[image.hello]
base       = "scratch"
layers     = [{ files = { src = "hello", dest = "/bin/hello", mode = "0755" } }]
entrypoint = ["/bin/hello"]
cmd        = ["Cloud Native Central"]

[image.docker]
base        = "hello"
layers      = [{ files = { text = { "/etc/motd" = "hello\n" } } }]
tags        = ["v1", "v2"]
media_types = "docker"
"#;

const GREETING: &str = "Hello, Cloud Native Central!\n";

/// A program in the background. It is asked to end with the value, and so ends what it started itself.
struct Background(Child);

impl Background {
    #[track_caller]
    fn start(command: &mut Command, log: &Path, is_ready: impl Fn() -> bool) -> Self {
        let file = fs::File::create(log).expect("a log");
        let errors = file.try_clone().expect("a log");
        command.stdin(Stdio::null()).stdout(file).stderr(errors);
        let mut background = Self(command.spawn().expect("a daemon"));
        let start = Instant::now();
        while !is_ready() {
            let over = background.0.try_wait().expect("a child");
            let log = || fs::read_to_string(log).unwrap_or_default();
            assert!(over.is_none(), "{command:?} ended: {}", log());
            assert!(start.elapsed() < PATIENCE, "{command:?}: {}", log());
            std::thread::sleep(Duration::from_millis(100));
        }
        background
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let start = Instant::now();
        while matches!(self.0.try_wait(), Ok(None)) {
            if start.elapsed() > PATIENCE {
                let _ = self.0.kill();
                let _ = self.0.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Tells whether the test runs as root; says so if not.
fn is_root() -> bool {
    let is_root = fs::metadata("/proc/self").expect("/proc").uid() == 0;
    if !is_root {
        absent("root");
    }
    is_root
}

/// Finds programs, or says which are missing.
fn peers<const N: usize>(names: [&str; N]) -> Option<[PathBuf; N]> {
    let found: Vec<PathBuf> = names.iter().filter_map(|name| peer(name)).collect();
    found.try_into().ok()
}

/// Runs a program in the space, which must succeed. Returns its stdout.
#[track_caller]
fn run(space: &Space, program: &Path, args: &[&str]) -> String {
    let output = Output::of(space.program(program).args(args));
    let Output { stdout, stderr, .. } = &output;
    assert_eq!(output.status, 0, "{args:?} failed:\n{stdout}{stderr}");
    output.stdout
}

/// A space with the images, the program among them compiled.
fn hello(rustc: &Path) -> Space {
    let space = Space::new();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/hello-cloud/hello.rs");
    // With the environment of the tests: rustup's rustc finds its toolchain by it.
    let output = Output::of(
        Command::new(rustc)
            .current_dir(space.path())
            .args(["-O", "-C", "target-feature=+crt-static", "-o", "hello"])
            .arg(source),
    );
    assert_eq!(output.status, 0, "{}", output.stderr);
    space.write("image.toml", MANIFEST);
    space
}

/// Builds with `--load` into the daemon that a variable names, and checks what is said of it.
#[track_caller]
fn load(space: &Space, variable: &str, socket: &Path) {
    let mut command = space.command(&["build", "--load", "--format", "json"]);
    let output = Output::of(command.env(variable, format!("unix://{}", socket.display())));
    assert_eq!(output.status, 0, "{}", output.stderr);
    let images: Vec<Value> = serde_json::from_str(&output.stdout).expect("JSON");
    assert_eq!(images.len(), 2);
    for image in &images {
        assert_eq!(
            image["load"]["image_id"], image["platforms"][0]["config"],
            "{image}"
        );
        let name = image["name"].as_str().expect("a name");
        let loaded = output.stderr.lines().find(|line| {
            line.starts_with(&format!("loaded  {name} into ")) && line.contains("docker.io/library")
        });
        assert!(loaded.is_some(), "{}", output.stderr);
    }
    assert!(!space.path().join("imgdecl-out").exists());
}

/// Loads again and again: what the daemon has is not sent, and what it lacks is. `forget` takes names away there, or all
/// images if it is given none; `run_all` runs all images.
#[track_caller]
fn load_again(
    space: &Space,
    variable: &str,
    socket: &Path,
    forget: &dyn Fn(&[&str]),
    run_all: &dyn Fn(),
) {
    // Returns the lines that tell of bytes that were sent, and those of images that were there.
    let load = || {
        let args = ["build", "--load", "--progress", "plain"];
        let mut command = space.command(&args);
        let output = Output::of(command.env(variable, format!("unix://{}", socket.display())));
        assert_eq!(output.status, 0, "{}", output.stderr);
        let lines = |word: &str| -> Vec<String> {
            let lines = output.stderr.lines().filter(|it| it.starts_with(word));
            lines.map(str::to_owned).collect()
        };
        (lines("sent "), lines("there "), output.stderr)
    };
    let (sent, there, said) = load();
    assert_eq!((sent.len(), there.len()), (0, 2), "{said}");
    assert!(said.contains("MB there already"), "{said}");
    // A name that is gone comes back, and no byte with it.
    forget(&["docker:v2"]);
    let (sent, there, said) = load();
    assert_eq!((sent.len(), there.len()), (0, 2), "{said}");
    run_all();
    // A layer that is new goes alone: the program below it is megabytes.
    let manifest = MANIFEST.replace("hello\\n", "good day\\n");
    assert_ne!(manifest, MANIFEST);
    space.write("image.toml", manifest);
    let (sent, there, said) = load();
    assert_eq!((sent.len(), there.len()), (1, 1), "{said}");
    assert!(sent[0].contains(" kB  "), "{said}");
    run_all();
    // The image of before is there still, without a name.
    space.write("image.toml", MANIFEST);
    let (sent, _, said) = load();
    assert!(sent.is_empty(), "{said}");
    // Nothing is taken for there that is not.
    forget(&[]);
    let (sent, there, said) = load();
    assert_eq!((sent.is_empty(), there.len()), (false, 0), "{said}");
    assert!(sent.iter().all(|it| it.contains(" MB  ")), "{said}");
    run_all();
}

/// A dockerd with its folders beside the work folder, which will listen at `host`.
fn dockerd(space: &Space, program: &Path, host: &str) -> Command {
    let folder = space.path().parent().expect("a folder");
    let mut command = space.program(program);
    command.arg("--data-root").arg(folder.join("D"));
    command.arg("--exec-root").arg(folder.join("E"));
    command.arg("--pidfile").arg(folder.join("P"));
    command.args(["-H", host, "--storage-driver", "vfs"]);
    command.args(["--iptables=false", "--ip6tables=false", "--bridge=none"]);
    command.args(["--default-ulimit", "nofile=1024:1024"]);
    command
}

/// Returns the diff_ids of an image in an archive that `docker save` wrote.
fn saved_diff_ids(archive: &Path) -> Value {
    let read = |name: &str| -> Value {
        let mut tar = tar::Archive::new(fs::File::open(archive).expect("an archive"));
        let mut entries = tar.entries().expect("entries").flatten();
        let entry = entries.find(|entry| *entry.path_bytes() == *name.as_bytes());
        serde_json::from_reader(entry.unwrap_or_else(|| panic!("{name} is missing"))).expect(name)
    };
    let config = read("manifest.json")[0]["Config"].clone();
    read(config.as_str().expect("a path"))["rootfs"]["diff_ids"].clone()
}

#[test]
fn docker_loads_and_runs() {
    let Some([rustc, program, docker]) = peers(["rustc", "dockerd", "docker"]) else {
        return;
    };
    if !is_root() {
        return;
    }
    let space = hello(&rustc);
    let folder = space.path().parent().expect("a folder");
    let socket = folder.join("docker.sock");
    let host = format!("unix://{}", socket.display());
    let mut command = dockerd(&space, &program, &host);
    let answers = || {
        let mut command = space.program(&docker);
        Output::of(command.args(["-H", &host, "version"])).status == 0
    };
    let _daemon = Background::start(&mut command, &folder.join("log"), answers);
    let docker = |args: &[&str]| run(&space, &docker, &[&["-H", &host][..], args].concat());

    load(&space, "DOCKER_HOST", &socket);
    let names = ["hello", "docker:v1", "docker:v2"];
    let run_all = || {
        for name in names {
            let said = docker(&["run", "--rm", "--network", "none", name]);
            assert_eq!(said, GREETING, "{name}");
        }
    };
    run_all();
    let forget = |names: &[&str]| match names {
        [] => {
            docker(&["image", "prune", "--all", "--force"]);
        }
        names => {
            docker(&[&["rmi"][..], names].concat());
        }
    };
    load_again(&space, "DOCKER_HOST", &socket, &forget, &run_all);
    docker(&[&["rmi", "--force"][..], &names].concat());
    let args = ["build", "-o", "docker-archive:a.tar", "--format", "json"];
    let built: Vec<Value> = serde_json::from_str(&space.ok(&args).stdout).expect("JSON");
    validate(&space.path().join("a.tar"));
    docker(&["load", "--input", "a.tar"]);
    run_all();

    // The same layers come back, and can be built on.
    docker(&["save", "--output", "saved.tar", "docker:v1"]);
    let image = built.iter().find(|it| it["name"] == "docker");
    let layers = image.map(|it| &it["platforms"][0]["layers"]);
    let layers = layers.and_then(Value::as_array).expect("layers");
    let diff_ids: Value = layers.iter().map(|it| it["diff_id"].clone()).collect();
    let saved = space.path().join("saved.tar");
    assert_eq!(saved_diff_ids(&saved), diff_ids);
    space.write(
        "on/image.toml",
        "[workspace]\nmembers = []\n[base.saved]\narchive = \"saved.tar\"\n[image.on]\nbase = \"saved\"\nlayers = [{ files = { text = { \"/x\" = \"x\" } } }]\nmedia_types = \"docker\"\n",
    );
    fs::rename(saved, space.path().join("on/saved.tar")).expect("a rename");
    space.ok(&["build", "on", "-o", "docker-archive:on.tar"]);
    docker(&["load", "--input", "on.tar"]);
    assert_eq!(
        docker(&["run", "--rm", "--network", "none", "on"]),
        GREETING
    );

    // The containerd that Docker started takes the same file.
    let Some(ctr) = peer("ctr") else { return };
    let containerd = folder.join("E/containerd/containerd.sock");
    let containerd = containerd.display().to_string();
    let ctr = |args: &[&str]| {
        run(
            &space,
            &ctr,
            &[&["-a", &containerd, "-n", "t"], args].concat(),
        )
    };
    ctr(&["image", "import", "a.tar"]);
    let found = ctr(&["image", "ls", "-q"]);
    let found: Vec<&str> = found.lines().collect();
    let full = [
        "docker.io/library/docker:v1",
        "docker.io/library/docker:v2",
        "docker.io/library/hello:latest",
    ];
    assert_eq!(found, full);
}

#[test]
fn podman_loads_and_runs() {
    let Some([rustc, podman, _]) = peers(["rustc", "podman", "runc"]) else {
        return;
    };
    if !is_root() {
        return;
    }
    let space = hello(&rustc);
    let folder = space.path().parent().expect("a folder");
    let (root, runroot) = (folder.join("R"), folder.join("RR"));
    let (root, runroot) = (root.display().to_string(), runroot.display().to_string());
    let storage = ["--root", &root, "--runroot", &runroot];
    let how = [
        "--storage-driver",
        "vfs",
        "--cgroup-manager",
        "cgroupfs",
        "--runtime",
        "runc",
    ];
    let global = [&storage[..], &how].concat();
    let podman_of = |args: &[&str]| run(&space, &podman, &[&global, args].concat());
    let run_all = || {
        for name in ["hello", "docker:v1", "docker:v2"] {
            let name = format!("docker.io/library/{name}");
            let limits = [
                "--ulimit",
                "nofile=1024:1024",
                "--ulimit",
                "nproc=4096:4096",
            ];
            let args = [&["run", "--rm", "--network", "none"][..], &limits, &[&name]].concat();
            assert_eq!(podman_of(&args), GREETING, "{name}");
        }
    };
    space.ok(&["build", "-o", "docker-archive:a.tar"]);
    podman_of(&["load", "--quiet", "--input", "a.tar"]);
    run_all();
    podman_of(&["rmi", "--all", "--force"]);
    // One image with one name is read as an OCI archive.
    space.ok(&["build", "hello", "-o", "docker-archive:one.tar"]);
    let said = podman_of(&["load", "--quiet", "--input", "one.tar"]);
    assert_eq!(said.trim(), "Loaded image: docker.io/library/hello:latest");
    podman_of(&["rmi", "--all", "--force"]);

    let socket = folder.join("podman.sock");
    let url = format!("unix://{}", socket.display());
    let mut command = space.program(&podman);
    command.args(&global);
    command.args(["system", "service", "--time", "0", &url]);
    let log = folder.join("log");
    let _service = Background::start(&mut command, &log, || socket.exists());
    load(&space, "CONTAINER_HOST", &socket);
    run_all();
    let forget = |names: &[&str]| match names {
        [] => {
            podman_of(&["rmi", "--all", "--force"]);
        }
        names => {
            let full = names.iter().map(|it| format!("docker.io/library/{it}"));
            full.for_each(|it| drop(podman_of(&["untag", &it, &it])));
        }
    };
    load_again(&space, "CONTAINER_HOST", &socket, &forget, &run_all);
}

#[test]
fn skopeo_reads_both_ways() {
    let Some([skopeo]) = peers(["skopeo"]) else {
        return;
    };
    let space = Space::new();
    space.write("hello", "hello\n");
    space.write("image.toml", MANIFEST.replace("\"v1\", \"v2\"", "\"v1\""));
    for name in ["hello", "docker"] {
        let archive = format!("docker-archive:{name}.tar");
        let output = space.ok(&["build", name, "-o", &archive, "--format", "json"]);
        let images: Vec<Value> = serde_json::from_str(&output.stdout).expect("JSON");
        let platform = &images[0]["platforms"][0];
        for (kind, descriptor) in [("oci-archive", "digest"), ("docker-archive", "config")] {
            let (from, to) = (format!("{kind}:{name}.tar"), format!("{name}-{kind}"));
            let args = ["copy", "--quiet", "--insecure-policy", &from];
            run(
                &space,
                &skopeo,
                &[&args[..], &[&format!("dir:{to}")]].concat(),
            );
            let manifest = fs::read(space.path().join(to).join("manifest.json")).expect("a copy");
            let found = match descriptor {
                "digest" => sha256(&manifest).into(),
                _ => serde_json::from_slice::<Value>(&manifest).expect("JSON")["config"]["digest"]
                    .clone(),
            };
            assert_eq!(found, platform[descriptor], "{from}");
        }
    }
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(bytes);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// To a registry and back: an image with Docker's media types becomes the base of one with OCI's, and that one's again.
#[test]
fn media_types_through_a_registry() {
    let Some(real) = Real::start(Mode::Plain) else {
        return;
    };
    let Some(skopeo) = peer("skopeo") else { return };
    let space = Space::new();
    let host = real.host();
    let image = |name: &str, base: &str, media_types: &str| {
        let base_table = match base {
            "scratch" => String::new(),
            base => format!("[base.{base}]\nimage = \"{host}/{base}:latest\"\n"),
        };
        space.write(
            &format!("{name}/image.toml"),
            format!(
                "{base_table}[image.{name}]\nbase = \"{base}\"\nlayers = [{{ files = {{ text = {{ \"/{name}\" = \"${{arch}}\" }} }} }}]\nplatforms = [\"linux/amd64\", \"linux/arm64\"]\nrepository = \"{host}/{name}\"\nmedia_types = \"{media_types}\"\n"
            ),
        );
        space.ok(&["build", name, "--push", "--progress", "none"]);
        let raw = |reference: &str| -> Value {
            let from = format!("docker://{host}/{reference}");
            let args = ["inspect", "--raw", "--tls-verify=false", &from];
            serde_json::from_str(&run(&space, &skopeo, &args)).expect("JSON")
        };
        let index = raw(&format!("{name}:latest"));
        let digest = index["manifests"][1]["digest"].as_str().expect("a digest");
        let manifest = raw(&format!("{name}@{digest}"));
        (index, manifest)
    };
    let digests = |manifest: &Value| -> Vec<Value> {
        let layers = manifest["layers"].as_array().expect("layers").iter();
        layers.map(|layer| layer["digest"].clone()).collect()
    };
    let docker = "application/vnd.docker.";
    let oci = "application/vnd.oci.";
    let mut below: Vec<Value> = Vec::new();
    for (name, base, media_types, prefix) in [
        ("one", "scratch", "docker", docker),
        ("two", "one", "oci", oci),
        ("three", "two", "docker", docker),
    ] {
        let (index, manifest) = image(name, base, media_types);
        let all = [
            &index,
            &index["manifests"][0],
            &manifest,
            &manifest["config"],
        ];
        let layers = manifest["layers"].as_array().expect("layers").iter();
        for document in all.into_iter().chain(layers) {
            let media_type = document["mediaType"].as_str().expect("a media type");
            assert!(media_type.starts_with(prefix), "{name}: {document}");
        }
        let found = digests(&manifest);
        assert!(found.starts_with(&below), "{name}: {found:?} on {below:?}");
        assert_eq!(found.len(), below.len() + 1);
        below = found;
    }
}

/// A daemon that takes the head of an archive, and then does something else.
fn stuck(space: &Space, then: impl FnOnce() + Send + 'static) -> String {
    let socket = space.path().with_file_name("docker.sock");
    let listener = UnixListener::bind(&socket).expect("a socket");
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let _ = stream.read(&mut [0; 4096]);
        let body = r#"{"Version":"20.10.24","Os":"linux","Arch":"amd64"}"#;
        let head = format!(
            "HTTP/1.1 200 x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).expect("an answer");
        drop(stream);
        let (mut stream, _) = listener.accept().expect("a connection");
        let _ = stream.read(&mut [0; 4096]);
        then();
    });
    // More than the system takes in by itself.
    space.write("data", Random(7).bytes(8 << 20));
    space.write(
        "image.toml",
        "[image.app]\nbase = \"scratch\"\nlayers = [{ files = { src = \"data\", dest = \"/data\" } }]\n",
    );
    format!("unix://{}", socket.display())
}

#[test]
fn a_load_is_stopped_in_the_middle() {
    let space = Space::new();
    let (sender, receiver) = std::sync::mpsc::channel();
    let (over, wait) = std::sync::mpsc::channel::<()>();
    let host = stuck(&space, move || {
        sender.send(()).expect("someone waits");
        let _ = wait.recv_timeout(PATIENCE);
    });
    let mut command = space.command(&["build", "--load"]);
    command.env("DOCKER_HOST", host);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("the binary starts");
    receiver.recv_timeout(PATIENCE).expect("a load");
    std::thread::sleep(Duration::from_millis(300));
    let start = Instant::now();
    kill_process(Pid::from_child(&child), Signal::INT).expect("a signal");
    let output = child.wait_with_output().expect("an end");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    assert!(stderr.contains("\nstopped\n"), "{stderr}");
    assert!(start.elapsed() < Duration::from_secs(5));
    drop(over);
}

#[test]
fn a_load_that_is_cut_is_told() {
    let space = Space::new();
    let host = stuck(&space, || {});
    let mut command = space.command(&["build", "--load", "--progress", "none"]);
    let output = Output::of(command.env("DOCKER_HOST", host));
    assert_eq!(output.status, 1, "{}", output.stderr);
    let expected = "the connection was cut";
    assert!(output.stderr.contains(expected), "{}", output.stderr);
}

#[test]
fn of_several_platforms_the_host_s_is_taken() {
    let host = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => return absent(&format!("another architecture than {other}")),
    };
    let space = Space::new();
    let manifest = |platforms: &str| {
        format!(
            "[image.app]\nbase = \"scratch\"\nlayers = [{{ files = {{ text = {{ \"/app\" = \"${{arch}}\" }} }} }}]\nplatforms = {platforms}\ncompression = \"zstd\"\n"
        )
    };
    space.write("image.toml", manifest(r#"["linux/arm64", "linux/amd64"]"#));
    let platform = |more: &[&str]| {
        let args = ["build", "-o", "docker-archive:a.tar", "--progress", "plain"];
        let output = space.ok(&[&args, more].concat());
        let warning = "app has layers in zstd, which Docker reads since version 23\n";
        assert!(output.stderr.contains(warning), "{}", output.stderr);
        let layout = validate(&space.path().join("a.tar"));
        let image = &layout.images["app"];
        assert_eq!(image.platforms.len(), 1);
        image.platforms[0].platform.clone()
    };
    assert_eq!(platform(&[]), format!("linux/{host}"));
    for other in ["linux/arm64", "linux/amd64"] {
        assert_eq!(platform(&["--platform", other]), other);
    }
    let before = fs::read(space.path().join("a.tar")).expect("an archive");
    space.write(
        "image.toml",
        manifest(r#"["linux/s390x", "linux/ppc64le"]"#),
    );
    let output = space.run(&["build", "-o", "docker-archive:a.tar"]);
    assert_eq!(output.status, 2, "{}", output.stderr);
    let expected =
        format!("`app` has no image for linux/{host}; it has linux/s390x, linux/ppc64le");
    assert!(output.stderr.contains(&expected), "{}", output.stderr);
    // Nothing was built, and what was there is whole.
    assert!(!output.stderr.contains("built"), "{}", output.stderr);
    let after = fs::read(space.path().join("a.tar")).expect("an archive");
    assert!(before == after);
}
