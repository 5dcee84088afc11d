//! Services that run until they are dropped: images under runc, as an orchestrator would run them, and a stand-in for AWS.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::http::ask;
use crate::support::{Output, Space, absent, peer};

/// How long a service may take until it answers.
const PATIENCE: Duration = Duration::from_secs(120);

/// Returns a port of loopback that nobody listens on.
pub(super) fn free_port() -> u16 {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr());
    free.expect("a free port").port()
}

/// The programs by which images are fetched and run.
pub(super) struct Machine {
    skopeo: PathBuf,
    umoci: PathBuf,
    runc: PathBuf,
}

impl Machine {
    /// Finds them. Only root makes the owners that images of Debian have.
    pub(super) fn find() -> Option<Self> {
        let (skopeo, umoci, runc) = (peer("skopeo")?, peer("umoci")?, peer("runc")?);
        if fs::metadata("/proc/self").expect("/proc").uid() != 0 {
            absent("root");
            return None;
        }
        Some(Self {
            skopeo,
            umoci,
            runc,
        })
    }

    /// Copies an image of a registry into a folder, and unpacks it from there.
    #[track_caller]
    pub(super) fn fetch(&self, space: &Space, reference: &str, name: &str) -> Image {
        let run = |program: &Path, args: &[&str]| {
            let output = Output::of(space.program(program).args(args));
            assert_eq!(output.status, 0, "{args:?}:\n{}", output.stderr);
            output.stdout
        };
        let (from, to) = (
            format!("docker://{reference}"),
            format!("oci:copied:{name}"),
        );
        let options = [
            "--insecure-policy",
            "--override-arch",
            "amd64",
            "--override-os",
            "linux",
        ];
        let mut args = options.to_vec();
        args.extend(["copy", "--quiet", "--src-tls-verify=false", &from, &to]);
        run(&self.skopeo, &args);
        let mut args = options.to_vec();
        args.extend(["inspect", "--config", "--raw", &to]);
        let config = run(&self.skopeo, &args);
        let (image, bundle) = (format!("copied:{name}"), format!("run-{name}"));
        run(&self.umoci, &["unpack", "--image", &image, &bundle]);
        Image {
            bundle: space.path().join(bundle),
            state: space.path().join("runc"),
            runc: self.runc.clone(),
            config: serde_json::from_str(&config).expect("JSON"),
        }
    }
}

/// An image that is unpacked.
pub(super) struct Image {
    bundle: PathBuf,
    state: PathBuf,
    runc: PathBuf,
    config: Value,
}

/// How an image is run.
#[derive(Default)]
pub(super) struct How<'a> {
    /// Variables.
    pub(super) env: &'a [(&'a str, &'a str)],
    /// Arguments in place of the image's `cmd`.
    pub(super) cmd: Option<&'a [&'a str]>,
    /// A folder of the host, and where it is mounted.
    pub(super) mount: Option<(&'a Path, &'a str)>,
}

impl Image {
    /// Starts it with a read-only root and a writable `/tmp`, in the host's network.
    #[track_caller]
    pub(super) fn start(self, how: &How<'_>) -> Service {
        let file = self.bundle.join("config.json");
        let text = fs::read(&file).expect("config.json");
        let mut config: Value = serde_json::from_slice(&text).expect("JSON");
        assert_eq!(config["process"]["user"]["uid"], 10001);
        config["process"]["terminal"] = false.into();
        config["root"]["readonly"] = true.into();
        if let Some(cmd) = how.cmd {
            let entrypoint = self.config["config"]["Entrypoint"].as_array();
            let mut args = entrypoint.expect("an entrypoint").clone();
            args.extend(cmd.iter().map(|it| json!(it)));
            config["process"]["args"] = args.into();
        }
        let env = config["process"]["env"].as_array_mut().expect("env");
        env.extend(
            how.env
                .iter()
                .map(|(name, value)| json!(format!("{name}={value}"))),
        );
        let process = config["process"].as_object_mut().expect("a process");
        // A limit that is higher than ours could not be set.
        process.remove("rlimits");
        let namespaces = config["linux"]["namespaces"].as_array_mut();
        namespaces
            .expect("namespaces")
            .retain(|it| it["type"] != "network");
        let mounts = config["mounts"].as_array_mut().expect("mounts");
        // The image says that this is a volume: umoci makes it one, and so does everyone else.
        mounts.retain(|it| it["destination"] != "/tmp");
        mounts.push(
            json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "nodev", "mode=1777"]}),
        );
        if let Some((host, inside)) = how.mount {
            mounts.push(
                json!({"destination": inside, "type": "bind", "source": host,
                "options": ["rbind", "ro"]}),
            );
        }
        fs::write(&file, config.to_string()).expect("config.json");
        let name = self.bundle.file_name().expect("a name");
        let id = format!("imgdecl-{}-{}", std::process::id(), name.display());
        let log = self.bundle.join("log");
        let output = fs::File::create(&log).expect("a file for what it prints");
        let child = Command::new(&self.runc)
            .arg("--root")
            .arg(&self.state)
            .args(["run", "--bundle"])
            .arg(&self.bundle)
            .arg(&id)
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a file"))
            .stderr(output)
            .spawn()
            .expect("runc");
        Service {
            image: self,
            id,
            child,
            log,
        }
    }
}

/// An image that runs.
pub(super) struct Service {
    image: Image,
    id: String,
    child: Child,
    log: PathBuf,
}

impl Service {
    fn runc(&self) -> Command {
        let mut command = Command::new(&self.image.runc);
        command.arg("--root").arg(&self.image.state);
        command
    }

    /// What it printed.
    pub(super) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Runs a command in it; it must succeed.
    #[track_caller]
    pub(super) fn exec(&self, args: &[&str]) -> String {
        let output = Output::of(self.runc().arg("exec").arg(&self.id).args(args));
        assert_eq!(
            output.status,
            0,
            "{args:?} failed:\n{}{}\n{}",
            output.stdout,
            output.stderr,
            self.log()
        );
        output.stdout + &output.stderr
    }

    /// Runs the image's own health check until it succeeds.
    #[track_caller]
    pub(super) fn is_healthy(&mut self) {
        self.is_healthy_at("");
    }

    /// The same for one that listens on another port than its own: that of a test that runs beside others.
    #[track_caller]
    pub(super) fn is_healthy_at(&mut self, port: &str) {
        let config = &self.image.config["config"];
        let test = config["Healthcheck"]["Test"].clone();
        let test: Vec<String> = serde_json::from_value(test).expect("a health check");
        let own = config["ExposedPorts"]
            .as_object()
            .and_then(|it| it.keys().next());
        let own = own.map(|it| format!(":{}/", it.trim_end_matches("/tcp")));
        let test: Vec<String> = match own {
            Some(own) => test
                .iter()
                .map(|it| it.replace(&own, &format!(":{port}/")))
                .collect(),
            None => test,
        };
        let (kind, command) = test.split_first().expect("a health check");
        assert_eq!(kind, "CMD");
        let begin = Instant::now();
        loop {
            let output = Output::of(self.runc().arg("exec").arg(&self.id).args(command));
            if output.status == 0 {
                return;
            }
            let has_ended = self.child.try_wait().is_ok_and(|ended| ended.is_some());
            assert!(
                begin.elapsed() < PATIENCE && !has_ended,
                "{}: {}\n{}",
                self.id,
                output.stderr,
                self.log()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Stops it as an orchestrator does; it must end by itself, and well.
    #[track_caller]
    pub(super) fn stop(mut self) {
        let killed = self.runc().args(["kill", &self.id, "TERM"]).output();
        assert!(killed.expect("runc").status.success());
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().expect("runc") {
                // Some end by the signal itself, once they are done.
                let is_well = matches!(status.code(), Some(0 | 143));
                assert!(is_well, "{}: {status}\n{}", self.id, self.log());
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{} does not stop:\n{}", self.id, self.log());
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.runc().args(["kill", &self.id, "KILL"]).output();
        let _ = self.child.wait();
        let _ = self.runc().args(["delete", "--force", &self.id]).output();
    }
}

/// A moto server: S3 and SQS on loopback, until it is dropped.
pub(super) struct Aws {
    child: Child,
    /// Its address.
    pub(super) url: String,
}

impl Aws {
    /// Installs it once, and starts it; `None` where there is no Python to run it.
    pub(super) fn start(
        space: &Space,
        index: &[(std::ffi::OsString, std::ffi::OsString)],
    ) -> Option<Self> {
        let python = peer("python3")?;
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("moto");
        if !folder.exists() {
            // Under another name until it is whole: another run may make the same.
            let part = folder.with_extension(std::process::id().to_string());
            let mut pip = space.program(&python);
            pip.args(["-m", "pip", "install", "--quiet", "--target"])
                .arg(&part);
            pip.args(["moto[s3,sqs]", "flask", "flask-cors"]);
            let output = Output::of(pip.envs(index.iter().cloned()));
            assert_eq!(output.status, 0, "pip:\n{}", output.stderr);
            let _ = fs::rename(&part, &folder);
        }
        let port = free_port();
        let log = fs::File::create(space.path().join("moto.log")).expect("a log");
        let script =
            format!("from moto.server import main; main(['-H', '127.0.0.1', '-p', '{port}'])");
        let child = space
            .program(&python)
            .args(["-c", &script])
            .env("PYTHONPATH", &folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("python3");
        let mut aws = Self {
            child,
            url: format!("http://127.0.0.1:{port}"),
        };
        let begin = Instant::now();
        while ask("GET", &format!("127.0.0.1:{port}"), "/moto-api/", "", b"").is_none() {
            let has_ended = aws.child.try_wait().is_ok_and(|ended| ended.is_some());
            let said = || fs::read_to_string(space.path().join("moto.log")).unwrap_or_default();
            assert!(begin.elapsed() < PATIENCE && !has_ended, "{}", said());
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(aws)
    }
}

impl Drop for Aws {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
