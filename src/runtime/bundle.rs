//! OCI runtime bundles: the `config.json` that stands beside a root (image-spec, conversion.md; runtime-spec, config.md).
//!
//! What the image says becomes the process; mounts, namespaces and capabilities are those that docker and umoci give.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::annotations;
use super::{ApplyError, mount_points, read_inside};
use crate::accounts::{User, UserError};
use crate::oci::{Config, last_of_each};

/// The version of the runtime spec that is written: one that all runtimes in use read.
const OCI_VERSION: &str = "1.0.2";
/// How large `etc/passwd` and `etc/group` may be.
const MAX_PASSWD: u64 = 16 << 20;

/// Where programs are looked for if the image does not say.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a process may do as root of its container, as docker has it.
const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// What of the kernel nobody in the container sees, as docker has it.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// What of the kernel nobody in the container changes.
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// How the container differs from what the image says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// In place of the image's entrypoint; its cmd is dropped then.
    pub entrypoint: Option<Vec<String>>,
    /// In place of the image's cmd.
    pub cmd: Option<Vec<String>>,
    /// Variables beside those of the image, or in their place.
    pub env: Vec<(String, String)>,
    /// In place of the image's workdir.
    pub cwd: Option<String>,
    /// In place of the image's user.
    pub user: Option<String>,
    /// Folders and files of the host.
    pub mounts: Vec<Bind>,
    /// Which network the container sees.
    pub net: Net,
    /// The most bytes of memory, swap included.
    pub memory: Option<u64>,
    /// The most CPU time, in thousandths of one CPU.
    pub millicpus: Option<u64>,
    /// The most processes.
    pub pids: Option<u64>,
    /// The host name in the container.
    pub hostname: Option<String>,
    /// The permission bits that new files lack. What the runtime has, if nothing is said.
    pub umask: Option<u32>,
    /// The process has a terminal.
    pub terminal: bool,
    /// The root cannot be written.
    pub read_only: bool,
    /// The image's labels become annotations, but for those that runtimes obey.
    pub labels: bool,
    /// Run by someone else than root.
    pub rootless: Option<Rootless>,
}

/// A folder or file of the host in the container.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Bind {
    /// On the host: absolute.
    pub source: PathBuf,
    /// In the container: absolute.
    pub destination: String,
    /// It cannot be written.
    pub read_only: bool,
    /// Where the image has a symlink at the destination, it is mounted at what that leads to in the root. Else the image is
    /// refused.
    pub follows: bool,
}

/// Which network a container sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Net {
    /// Its own loopback alone.
    #[default]
    None,
    /// The host's.
    Host,
}

/// Who runs a container that root does not run: this user is root within.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Rootless {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// A `config.json`.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    /// The document.
    pub json: Value,
    /// What is not as the image says, and why: for the user to know.
    pub notes: Vec<String>,
}

impl Spec {
    /// Returns the bytes of the file.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(&self.json).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }
}

/// An image of which no bundle can be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BundleError {
    /// There is nothing to run.
    #[error("the image has neither an entrypoint nor a cmd")]
    NoCommand,
    /// The user is unknown.
    #[error(transparent)]
    User(#[from] UserError),
    /// A path of the config is none.
    #[error("the image's config has the {what} `{path}`, which is no absolute path without `..`")]
    Path {
        /// What the path is.
        what: &'static str,
        /// The path.
        path: String,
    },
    /// A field has another type than the image spec says.
    #[error("the image's config has a damaged `{0}`")]
    Field(&'static str),
    /// Something would be mounted through what the image put there.
    #[error("something is to be mounted at {point}, and {at} {what}")]
    Point {
        /// Where it is to be mounted.
        point: String,
        /// What stands in the way.
        at: String,
        /// What that is.
        what: String,
    },
    /// The working folder is something that a runtime has open.
    #[error("the workdir `{0}` leads into /proc, where a process finds what its runtime has open")]
    Handle(String),
    /// A file of the root cannot be read.
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

impl BundleError {
    /// Returns what mends it, where something does.
    pub(crate) fn help(&self) -> Option<&'static str> {
        Some(match self {
            Self::Point { .. } => {
                "a runtime would follow it out of the image's root: the image needs a folder there, or nothing; a mount of \
                 your own can go to where the symlink leads"
            }
            Self::Handle(_) => {
                "give the image another workdir: in /proc lies what belongs to the host"
            }
            _ => return None,
        })
    }
}

/// Makes the `config.json` of an image whose layers are applied in the folder `root`, which is named `rootfs` in it.
///
/// # Errors
/// When the image says nothing that can be run, or something would be mounted through a symlink of it.
pub(crate) fn spec(config: &Config, root: &Path, options: &Options) -> Result<Spec, BundleError> {
    let mut notes = Vec::new();
    let args = args(config, options)?;
    let cwd = match &options.cwd {
        Some(cwd) => cwd.clone(),
        None => text(config, "WorkingDir")?.unwrap_or_default(),
    };
    let cwd = if cwd.is_empty() { "/".to_owned() } else { cwd };
    check("workdir", &cwd)?;
    let user = match &options.user {
        Some(user) => user.clone(),
        None => text(config, "User")?.unwrap_or_default(),
    };
    let mut user = resolve(&user, root)?;
    if options.rootless.is_some() && user != User::default() {
        if (user.uid, user.gid) != (0, 0) {
            notes.push(format!(
                "without root there is one user in the container: the process runs as 0:0, and not as {}:{}",
                user.uid, user.gid
            ));
        }
        user = User::default();
    }
    let mut owner = json!({"uid": user.uid, "gid": user.gid, "additionalGids": user.groups});
    options
        .umask
        .iter()
        .for_each(|it| owner["umask"] = (*it).into());
    let held: &[&str] = if user.uid == 0 { &CAPABILITIES } else { &[] };
    let process = json!({
        "terminal": options.terminal,
        "user": owner,
        "args": args,
        "env": env(config, options)?,
        "cwd": cwd,
        "capabilities": {
            "bounding": CAPABILITIES,
            "effective": held,
            "permitted": held,
        },
        "noNewPrivileges": true,
    });
    let mut document = json!({
        "ociVersion": OCI_VERSION,
        "process": process,
        "root": {"path": "rootfs", "readonly": options.read_only},
        "mounts": mounts(config, root, options)?,
        "annotations": annotations::of(config, options.labels, &mut notes)?,
        "linux": linux(options),
    });
    if let Some(hostname) = &options.hostname {
        document["hostname"] = hostname.clone().into();
    }
    mount_points::check(root, &document)?;
    Ok(Spec {
        json: document,
        notes,
    })
}

fn args(config: &Config, options: &Options) -> Result<Vec<String>, BundleError> {
    let (mut args, mut cmd) = match &options.entrypoint {
        Some(own) => (own.clone(), Vec::new()),
        None => (list(config, "Entrypoint")?, list(config, "Cmd")?),
    };
    if let Some(own) = &options.cmd {
        cmd = own.clone();
    }
    args.append(&mut cmd);
    match args.is_empty() {
        true => Err(BundleError::NoCommand),
        false => Ok(args),
    }
}

/// The image's variables, but for those that an option sets. One that is written twice has its last value. Programs are found by `PATH`, and know
/// their terminal by `TERM`: an image without them gets those of docker.
fn env(config: &Config, options: &Options) -> Result<Vec<String>, BundleError> {
    let mut env = last_of_each(list(config, "Env")?);
    for (name, value) in &options.env {
        let is_it = |entry: &String| entry.split_once('=').is_some_and(|(it, _)| it == name);
        env.retain(|entry| !is_it(entry));
        env.push(format!("{name}={value}"));
    }
    if !env.iter().any(|entry| entry.starts_with("PATH=")) {
        env.insert(0, DEFAULT_PATH.to_owned());
    }
    if options.terminal && !env.iter().any(|entry| entry.starts_with("TERM=")) {
        env.push("TERM=xterm".to_owned());
    }
    Ok(env)
}

fn resolve(user: &str, root: &Path) -> Result<User, BundleError> {
    let read = |path| -> Result<String, ApplyError> {
        let bytes = read_inside(root, path, MAX_PASSWD)?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    Ok(User::resolve(
        user,
        &read("etc/passwd")?,
        &read("etc/group")?,
    )?)
}

fn mounts(config: &Config, root: &Path, options: &Options) -> Result<Vec<Value>, BundleError> {
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| json!({"destination": destination, "type": kind, "source": source, "options": options});
    let mut pts = vec![
        "nosuid",
        "noexec",
        "newinstance",
        "ptmxmode=0666",
        "mode=0620",
    ];
    if options.rootless.is_none() {
        // The group of terminals. It is nobody's where one group alone is known.
        pts.push("gid=5");
    }
    let sys = match options.rootless {
        None => mount(
            "/sys",
            "sysfs",
            "sysfs",
            &["nosuid", "noexec", "nodev", "ro"],
        ),
        Some(_) => mount(
            "/sys",
            "none",
            "/sys",
            &["rbind", "nosuid", "noexec", "nodev", "ro"],
        ),
    };
    let mut all = vec![
        mount("/proc", "proc", "proc", &[]),
        mount(
            "/dev",
            "tmpfs",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        mount("/dev/pts", "devpts", "devpts", &pts),
        mount(
            "/dev/shm",
            "tmpfs",
            "shm",
            &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
        ),
        mount(
            "/dev/mqueue",
            "mqueue",
            "mqueue",
            &["nosuid", "noexec", "nodev"],
        ),
        sys,
    ];
    if options.rootless.is_none() {
        let cgroup = ["nosuid", "noexec", "nodev", "relatime", "ro"];
        all.push(mount("/sys/fs/cgroup", "cgroup", "cgroup", &cgroup));
    }
    for volume in keys(config, "Volumes")? {
        check("volume", &volume)?;
        // Data of the image stays to be seen: the root is the bundle's own.
        if volume.trim_matches('/').is_empty() || !mount_points::is_empty(root, &volume) {
            continue;
        }
        all.push(mount(
            &volume,
            "tmpfs",
            "tmpfs",
            &["nosuid", "nodev", "mode=1777"],
        ));
    }
    for bind in &options.mounts {
        check("mount", &bind.destination)?;
        let source = bind.source.to_string_lossy();
        let access = if bind.read_only { "ro" } else { "rw" };
        let flags = ["rbind", "rprivate", "nosuid", "nodev", access];
        let destination = match bind.follows {
            true => mount_points::landing(root, &bind.destination),
            false => bind.destination.clone(),
        };
        all.push(mount(&destination, "bind", &source, &flags));
    }
    Ok(all)
}

fn linux(options: &Options) -> Value {
    let mut namespaces = vec!["pid", "ipc", "uts", "mount"];
    if options.net == Net::None {
        namespaces.push("network");
    }
    let mut linux = Map::new();
    if let Some(Rootless { uid, gid }) = options.rootless {
        namespaces.push("user");
        let map = |host: u32| json!([{"containerID": 0, "hostID": host, "size": 1}]);
        linux.insert("uidMappings".into(), map(uid));
        linux.insert("gidMappings".into(), map(gid));
    }
    let namespaces = namespaces.into_iter().map(|kind| json!({"type": kind}));
    linux.insert("namespaces".into(), namespaces.collect());
    let resources = resources(options);
    if !resources.is_empty() {
        linux.insert("resources".into(), resources.into());
    }
    linux.insert("maskedPaths".into(), json!(MASKED));
    let mut read_only = READ_ONLY.to_vec();
    if options.rootless.is_some() {
        // It comes with the host's /sys, and the user's own control groups in it: the container would lift its limits.
        read_only.push("/sys/fs/cgroup");
    }
    linux.insert("readonlyPaths".into(), json!(read_only));
    linux.into()
}

fn resources(options: &Options) -> Map<String, Value> {
    let mut all = Map::new();
    if options.rootless.is_none() {
        // Runtimes add those that every container has, as /dev/null.
        all.insert("devices".into(), json!([{"allow": false, "access": "rwm"}]));
    }
    if let Some(memory) = options.memory {
        // Swap counts memory and swap: equal limits mean no swap.
        all.insert("memory".into(), json!({"limit": memory, "swap": memory}));
    }
    if let Some(millicpus) = options.millicpus {
        let quota = millicpus.saturating_mul(100);
        all.insert("cpu".into(), json!({"quota": quota, "period": 100_000}));
    }
    if let Some(pids) = options.pids {
        all.insert("pids".into(), json!({"limit": pids}));
    }
    all
}

/// Makes sure that a path is absolute, and leads nowhere else.
fn check(what: &'static str, path: &str) -> Result<(), BundleError> {
    let is_fine =
        path.starts_with('/') && !path.contains('\0') && path.split('/').all(|name| name != "..");
    match is_fine {
        true => Ok(()),
        false => Err(BundleError::Path {
            what,
            path: path.to_owned(),
        }),
    }
}

pub(super) fn text(config: &Config, field: &'static str) -> Result<Option<String>, BundleError> {
    let value = config.runtime(field).map(Value::as_str);
    match value {
        None => Ok(None),
        Some(Some(text)) => Ok(Some(text.to_owned())),
        Some(None) => Err(BundleError::Field(field)),
    }
}

fn list(config: &Config, field: &'static str) -> Result<Vec<String>, BundleError> {
    let Some(value) = config.runtime(field) else {
        return Ok(Vec::new());
    };
    let list: Vec<String> =
        serde_json::from_value(value.clone()).map_err(|_| BundleError::Field(field))?;
    match list.iter().any(|text| text.contains('\0')) {
        true => Err(BundleError::Field(field)),
        false => Ok(list),
    }
}

/// Returns the keys of an object: how configs write sets.
pub(super) fn keys(config: &Config, field: &'static str) -> Result<Vec<String>, BundleError> {
    let Some(value) = config.runtime(field) else {
        return Ok(Vec::new());
    };
    let set = value.as_object().ok_or(BundleError::Field(field))?;
    Ok(set.keys().cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        let all = format!(
            r#"{{"os":"linux","architecture":"arm64","variant":"v8","author":"me","rootfs":{{"diff_ids":[]}},"config":{text}}}"#
        );
        Config::parse(all.as_bytes()).unwrap()
    }

    fn made(text: &str, options: &Options) -> Result<Spec, BundleError> {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("etc")).unwrap();
        std::fs::create_dir_all(root.path().join("full/x")).unwrap();
        std::fs::write(root.path().join("etc/passwd"), "app:x:7:8::/:\n").unwrap();
        std::fs::write(root.path().join("etc/group"), "more:x:9:app\n").unwrap();
        spec(&config(text), root.path(), options)
    }

    #[test]
    fn the_process_is_what_the_image_says() {
        let text = r#"{"Entrypoint":["a"],"Cmd":["b"],"Env":["X=1","Y"],"WorkingDir":"/w","User":"app","StopSignal":"SIGINT",
            "ExposedPorts":{"80/tcp":{},"9/udp":{}},"Volumes":{"/data":{},"/full":{}},
            "Labels":{"l":"1","org.opencontainers.image.author":"you"}}"#;
        let options = Options {
            labels: true,
            ..Options::default()
        };
        let json = made(text, &options).unwrap().json;
        let process = &json["process"];
        assert_eq!(process["args"], json!(["a", "b"]));
        assert_eq!(process["env"], json!([DEFAULT_PATH, "X=1", "Y"]));
        assert_eq!(process["cwd"], "/w");
        assert_eq!(
            process["user"],
            json!({"uid": 7, "gid": 8, "additionalGids": [9]})
        );
        assert_eq!(process["capabilities"]["effective"], json!([]));
        let expected = json!({
            "l": "1",
            "org.opencontainers.image.architecture": "arm64",
            "org.opencontainers.image.author": "you",
            "org.opencontainers.image.exposedPorts": "80/tcp,9/udp",
            "org.opencontainers.image.os": "linux",
            "org.opencontainers.image.stopSignal": "SIGINT",
            "org.opencontainers.image.variant": "v8",
        });
        assert_eq!(json["annotations"], expected);
        let mounts: Vec<&str> = json["mounts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| it["destination"].as_str().unwrap())
            .collect();
        assert!(mounts.contains(&"/data") && !mounts.contains(&"/full"));
    }

    #[test]
    fn labels_give_runtimes_no_orders() {
        let text = r#"{"Cmd":["a"],"Labels":{"a.b":"1","run.oci.hooks.stdout":"/etc/x","org.systemd.property.X":"1"}}"#;
        let mut options = Options {
            labels: true,
            ..Options::default()
        };
        let found = made(text, &options).unwrap();
        let labels = |found: &Spec| -> Vec<String> {
            let all = found.json["annotations"].as_object().unwrap().keys();
            let own = all.filter(|it| !it.starts_with("org.opencontainers."));
            own.cloned().collect()
        };
        assert_eq!(labels(&found), ["a.b"]);
        assert_eq!(found.notes.len(), 2);
        options.labels = false;
        let found = made(text, &options).unwrap();
        assert!(labels(&found).is_empty() && found.notes.is_empty());
    }

    #[test]
    fn options_come_first() {
        let options = Options {
            cmd: Some(vec!["c".into()]),
            env: vec![("X".into(), "2".into())],
            cwd: Some("/".into()),
            user: Some("0:0".into()),
            memory: Some(1 << 20),
            millicpus: Some(500),
            pids: Some(64),
            net: Net::Host,
            hostname: Some("h".into()),
            ..Options::default()
        };
        let text =
            r#"{"Entrypoint":["a"],"Cmd":["b"],"Env":["PATH=/x","X=1","Y=1"],"User":"nobody"}"#;
        let json = made(text, &options).unwrap().json;
        assert_eq!(json["process"]["args"], json!(["a", "c"]));
        assert_eq!(json["process"]["env"], json!(["PATH=/x", "Y=1", "X=2"]));
        assert_eq!(
            json["linux"]["resources"]["memory"],
            json!({"limit": 1 << 20, "swap": 1 << 20})
        );
        assert_eq!(
            json["linux"]["resources"]["cpu"],
            json!({"quota": 50_000, "period": 100_000})
        );
        assert_eq!(json["linux"]["resources"]["pids"], json!({"limit": 64}));
        assert!(!json["linux"]["namespaces"].to_string().contains("network"));
        let entrypoint = Options {
            entrypoint: Some(vec!["e".into()]),
            user: Some(String::new()),
            ..Options::default()
        };
        assert_eq!(
            made(text, &entrypoint).unwrap().json["process"]["args"],
            json!(["e"])
        );
    }

    #[test]
    fn without_root_there_is_one_user() {
        let options = Options {
            rootless: Some(Rootless {
                uid: 1000,
                gid: 100,
            }),
            ..Options::default()
        };
        let made = made(r#"{"Cmd":["b"],"User":"app"}"#, &options).unwrap();
        assert_eq!(made.notes.len(), 1);
        assert_eq!(made.json["process"]["user"]["uid"], 0);
        let map = json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
        assert_eq!(made.json["linux"]["uidMappings"], map);
        let read_only = made.json["linux"]["readonlyPaths"].to_string();
        assert!(read_only.contains("/sys/fs/cgroup"), "{read_only}");
        assert!(made.json["linux"].get("resources").is_none());
    }

    #[test]
    fn what_cannot_be_run_is_an_error() {
        for text in [
            "{}",
            r#"{"Cmd":[]}"#,
            r#"{"Cmd":"x"}"#,
            r#"{"Cmd":["x"],"WorkingDir":"x"}"#,
            r#"{"Cmd":["x"],"WorkingDir":"/../x"}"#,
            r#"{"Cmd":["x"],"Volumes":{"../x":{}}}"#,
            r#"{"Cmd":["x"],"User":"nobody"}"#,
            r#"{"Cmd":["x"],"User":7}"#,
            r#"{"Cmd":["x\u0000y"]}"#,
            r#"{"Cmd":["x"],"Labels":{"a":1}}"#,
        ] {
            assert!(made(text, &Options::default()).is_err(), "{text}");
        }
    }
}
