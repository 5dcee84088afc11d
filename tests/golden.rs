//! Golden cases: folders `golden/AREA/CASE/` with a manifest, its inputs, and what must come out of them. Data only; this
//! is the one harness. An area holds cases alone. A case holds:
//!
//! | file | what it is |
//! |---|---|
//! | `image.toml`, any others | the work folder |
//! | `setup` | a script for `sh -eu`, run in the copied folder, for what git cannot hold; `$IMGDECL` is the binary |
//! | `args` | the arguments, one a line; without it `build --progress none` |
//! | `run` | a script for `sh -eu` that runs `$IMGDECL` itself, where it must be run in a special way |
//! | `env` | variables, `NAME=VALUE`, one a line |
//! | `index.json` | a package index on loopback: `tests/support/index/data.rs` says what it may hold |
//! | `served` in `index.json` | a folder of the case, whose files are at `http://${files}/served/`: each command gets `--set files=HOST:PORT` |
//! | `registry.json` | a registry on loopback, and its faults: see below |
//! | `daemon.json` | a daemon that DOCKER_HOST names, and its faults: see `Data` in `tests/support/daemon.rs` |
//! | `needs` | programs that must be there, one a line; `root` and `unshare` say what the test must be able to do |
//! | `expected/exit` | the exit code; absent means 0. Only cases named `bad-…` may fail |
//! | `expected/stdout`, `stderr` | what is printed, with the work folder as `[ROOT]`, the home as `[HOME]`, the registry as `[REGISTRY]`, the package index as `[INDEX]` and the daemon's socket as `[SOCKET]`; absent means nothing |
//! | `expected/registry` | the registry's image tags at the end, and all requests of a run that ended well, sorted |
//! | `expected/plan` | what `imgdecl plan` prints with an empty cache |
//! | `expected/layers` | every entry of every layer |
//! | `expected/configs` | every config, but for what is in `diff_ids` |
//! | `expected/diff_ids` | the diff_id of every layer: these never change |
//! | `expected/digests` | all other digests: these change with a compressor, which is a new format |
//!
//! With a `registry.json`, a registry of `tests/support/registry/` runs beside the case. Every command gets the argument
//! `--set registry=HOST:PORT`, so that the manifest begins with `[vars]` and `registry = "localhost:1"`, and says
//! `${registry}/base:1`; `setup` and `run` find `$REGISTRY`. The address is the same each time, because base names are
//! part of manifests, and their length part of messages: it is made of the case's name, unless the file says `address`.
//! Where digests or keys depend on it, the file does. Images that a run pushed are checked, and described as those of
//! a layout are. The file holds:
//!
//! ```json
//! {
//!   "images": [
//!     { "name": "base:1", "platforms": ["linux/amd64", "linux/arm64"], "layers": [{ "etc/": "", "etc/arch": "[PLATFORM]" }],
//!       "config": { "config": { "Env": ["A=b"] } }, "docker": false, "attested": true },
//!     { "name": "tools:1", "layout": "a layout that setup made" }
//!   ],
//!   "profile": "ghcr", "users": { "robot": "secret" }, "anonymous": true, "basic": false, "uses": 1, "tls": false,
//!   "rules": [{ "on": "GET /v2/*/blobs/*", "nth": 1, "times": 1, "cut": 100 }],
//!   "address": "127.100.100.100:20500"
//! }
//! ```
//!
//! Everything but `name` may be left out. `profile` is one of `Quirks::profile`; with `users`, pushes need a login, and
//! pulls too unless `anonymous`. Rules count anew between `plan` and the run; `Rule` in `tests/support/registry/rule.rs`
//! says what they can do.
//!
//! `IMGDECL_BLESS=1` writes `expected/`; `IMGDECL_BLESS=AREA/CASE,AREA` those of some cases and areas. Nothing blesses
//! another diff_id.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::daemon::{self, Daemon};
use crate::support::index::{self, Index};
use crate::support::registry::{Data, Server};
use crate::support::{BINARY, Entry, Layer, Layout, Output, Space, absent, copy, peer, validate};

/// How many cases run at once.
const THREADS: usize = 4;
/// What of a case's folder is not its input.
const OURS: [&str; 9] = [
    "expected",
    "setup",
    "run",
    "args",
    "env",
    "needs",
    "registry.json",
    "index.json",
    "daemon.json",
];

/// Files of a case that say what is run.
const HEADS: [&str; 4] = ["image.toml", "args", "run", "setup"];

/// The servers of a case, as long as they are there.
#[derive(Default)]
pub(crate) struct Servers {
    pub(crate) registry: Option<Server>,
    index: Option<Index>,
    /// Whether the index has files of the case, too.
    has_files: bool,
}

impl Servers {
    /// Returns the arguments that name the registry.
    fn args(&self) -> Vec<String> {
        let set = self.registry.iter().map(|it| it.host());
        let set = set.map(|host| format!("registry={host}"));
        let files = self.index.iter().filter(|_| self.has_files);
        let files = files.map(|it| format!("files={}", it.host()));
        set.chain(files)
            .flat_map(|set| ["--set".to_owned(), set])
            .collect()
    }

    /// Names them to a command: the registry to scripts, the index as uv and pip would have it.
    fn name(&self, command: &mut Command) {
        command.envs(self.registry.iter().map(|it| ("REGISTRY", it.host())));
        command.envs(self.index.iter().map(|it| ("UV_DEFAULT_INDEX", it.url())));
        command.envs(self.index.iter().map(|it| ("FILES", it.host())));
    }

    /// Hides where they are.
    fn hide(&self, text: &mut String) {
        let registry = self.registry.iter().map(|it| (it.host(), "[REGISTRY]"));
        let index = self.index.iter().map(|it| (it.host(), "[INDEX]"));
        for (host, name) in registry.chain(index) {
            *text = text.replace(host, name);
        }
    }
}

/// A case.
pub(crate) struct Case {
    /// `AREA/CASE`.
    pub(crate) name: String,
    folder: PathBuf,
    pub(crate) args: Vec<String>,
    env: Vec<(String, String)>,
    needs: Vec<String>,
}

impl Case {
    /// Returns all cases, sorted by name.
    pub(crate) fn all() -> Vec<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
        Self::below(&root).unwrap_or_else(|error| panic!("golden/{error}"))
    }

    /// Returns the cases of all areas below a folder; else what is no case, and does not lead to one.
    fn below(root: &Path) -> Result<Vec<Self>, String> {
        let mut cases = Vec::new();
        for area in entries(root) {
            let area_name = last_name(&area);
            if !area.is_dir() {
                return Err(format!("{area_name}: not the folder of an area"));
            }
            for folder in entries(&area) {
                let name = format!("{area_name}/{}", last_name(&folder));
                if !HEADS.iter().any(|head| folder.join(head).is_file()) {
                    return Err(format!("{name}: no case: it has none of {HEADS:?}"));
                }
                cases.push(Self::load(name, folder));
            }
        }
        Ok(cases)
    }

    fn load(name: String, folder: PathBuf) -> Self {
        let lines = |name: &str| -> Option<Vec<String>> {
            let text = fs::read_to_string(folder.join(name)).ok()?;
            Some(text.lines().map(str::to_owned).collect())
        };
        let default = || ["build", "--progress", "none"].map(str::to_owned).to_vec();
        let pair = |line: String| {
            let (name, value) = line.split_once('=').expect("NAME=VALUE");
            (name.to_owned(), value.to_owned())
        };
        Self {
            name,
            args: lines("args").unwrap_or_else(default),
            env: lines("env")
                .unwrap_or_default()
                .into_iter()
                .map(pair)
                .collect(),
            needs: lines("needs").unwrap_or_default(),
            folder,
        }
    }

    /// Tells whether this machine can run the case.
    pub(crate) fn can_run(&self) -> bool {
        self.needs.iter().all(|need| {
            let able = match need.as_str() {
                "root" => fs::metadata("/proc/self").is_ok_and(|it| it.uid() == 0),
                "unshare" => Command::new("unshare")
                    .args(["-Ur", "true"])
                    .output()
                    .is_ok_and(|it| it.status.success()),
                program => return peer(program).is_some(),
            };
            if !able {
                absent(need);
            }
            able
        })
    }

    /// Tells whether the case ends well: those that do not are named so.
    pub(crate) fn succeeds(&self) -> bool {
        let (_, case) = self.name.split_once('/').expect("AREA/CASE");
        !case.starts_with("bad-")
    }

    /// Tells whether the case builds into folders or files, by one command.
    pub(crate) fn writes(&self) -> bool {
        let builds = self.args.first().is_some_and(|it| it == "build");
        let sends = self.args.iter().any(|it| it == "--push" || it == "--load");
        builds && !sends && !self.folder.join("run").exists()
    }

    /// Returns the address of the case's registry: one for each case, and each time the same.
    fn address(&self) -> String {
        let file = self.folder.join("registry.json");
        let data = file.exists().then(|| Data::read(&file));
        if let Some(address) = data.and_then(|it| it.address) {
            return address;
        }
        let hash = self.name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        // All of 127.0.0.0/8 is loopback. Three digits each: the length is the same too.
        let part = |shift: u32| 100 + (hash >> shift) % 155;
        format!("127.{}.{}.{}:20500", part(8), part(24), part(40))
    }

    /// Fills a space with the case's inputs, and starts the servers that it has: its registry at `address`, or anywhere.
    pub(crate) fn prepare(&self, space: &Space, address: Option<String>) -> Servers {
        copy(&self.folder, space.path());
        for name in OURS {
            let path = space.path().join(name);
            if path.is_dir() {
                fs::remove_dir_all(&path).expect("a copy");
            } else if path.exists() {
                fs::remove_file(&path).expect("a copy");
            }
        }
        let file = self.folder.join("registry.json");
        let data = file.exists().then(|| Data::read(&file));
        let index = self.folder.join("index.json");
        let index = index
            .exists()
            .then(|| index::Data::start(&index, space.path()));
        let servers = Servers {
            registry: data.as_ref().map(|data| data.start(address)),
            has_files: index.as_ref().is_some_and(|it| it.1),
            index: index.map(|it| it.0),
        };
        let setup = self.folder.join("setup");
        if setup.exists() {
            let cache = space.path().with_file_name("setup-cache");
            let mut command = space.program("sh");
            command.arg("-eu").arg(&setup).env("IMGDECL", BINARY);
            servers.name(&mut command);
            let output = Output::of(command.env("IMGDECL_CACHE_DIR", cache));
            assert_eq!(
                output.status, 0,
                "setup failed:\n{}{}",
                output.stdout, output.stderr
            );
        }
        if let Some((server, data)) = servers.registry.as_ref().zip(data) {
            data.load(server, space.path());
        }
        servers
    }

    /// Starts the case's daemon, if it has one.
    fn daemon(&self, space: &Space) -> Option<Daemon> {
        let file = self.folder.join("daemon.json");
        let data = file.exists().then(|| daemon::Data::read(&file))?;
        let folder = space
            .path()
            .parent()
            .expect("a folder above the work folder");
        Some(Daemon::start(data, folder))
    }

    /// Returns the command of the case, with its servers.
    pub(crate) fn command(&self, space: &Space, servers: &Servers) -> Command {
        let set = servers.args();
        let args = self.args.iter().chain(&set).map(String::as_str);
        let args: Vec<&str> = args.collect();
        let script = self.folder.join("run");
        let mut command = space.command(&args);
        if script.exists() {
            command = space.program("sh");
            command.arg("-eu").arg(script).env("IMGDECL", BINARY);
        }
        servers.name(&mut command);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Returns `plan` with the arguments that it shares with `build`.
    fn plan(&self, space: &Space, servers: &Servers) -> Output {
        let mut args = vec!["plan"];
        let set = servers.args();
        args.extend(set.iter().map(String::as_str));
        let mut rest = self.args.iter().map(String::as_str).skip(1);
        while let Some(arg) = rest.next() {
            match arg {
                "-o" | "--output" | "--progress" | "--tag" | "--metadata-file" => {
                    rest.next();
                }
                "--explain" | "--push" | "--load" | "--locked" | "--offline" => {}
                arg => args.push(arg),
            }
        }
        let mut command = space.command(&args);
        servers.name(&mut command);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        Output::of(&mut command)
    }

    /// Returns where the images went, for a build in the folder `work`.
    pub(crate) fn sinks(&self, work: &Path) -> Vec<PathBuf> {
        if self.args.first().is_none_or(|it| it != "build") {
            return Vec::new();
        }
        let after = self.args.iter().skip(1);
        let named: Vec<PathBuf> = self
            .args
            .iter()
            .zip(after)
            .filter(|(key, _)| matches!(key.as_str(), "-o" | "--output"))
            .filter_map(|(_, value)| value.split_once(':'))
            .map(|(_, path)| path)
            .map(|path| work.join(path))
            .collect();
        if !named.is_empty() {
            return named;
        }
        let mut found = Vec::new();
        find(work, "imgdecl-out", &mut found);
        found.retain(|path| path.join("index.json").exists());
        found.sort();
        found
    }

    fn expected(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.folder.join("expected").join(name)).ok()
    }

    /// Runs the case; returns the files that must equal those in `expected/`.
    fn run(&self) -> BTreeMap<&'static str, String> {
        let space = Space::new();
        let servers = self.prepare(&space, Some(self.address()));
        let registry = servers.registry.as_ref();
        let planned = self.plan(&space, &servers);
        if let Some(registry) = registry {
            registry.rewind();
        }
        let daemon = self.daemon(&space);
        let mut command = self.command(&space, &servers);
        command.envs(daemon.iter().map(|it| ("DOCKER_HOST", it.host())));
        let output = Output::of(&mut command);

        let root = space.path().display().to_string();
        let mut actual = BTreeMap::from([
            (
                "stdout",
                hide_digests(&output.stdout.replace(&root, "[ROOT]")),
            ),
            ("stderr", hide_root(&output.stderr, &root)),
        ]);
        let home = space.path().with_file_name("home").display().to_string();
        let socket = space.path().with_file_name("docker.sock");
        let socket = socket.display().to_string();
        for text in actual.values_mut() {
            let hidden = text.replace(&home, "[HOME]").replace(&socket, "[SOCKET]");
            *text = hide_waits(&hidden);
        }
        if output.status != 0 {
            actual.insert("exit", format!("{}\n", output.status));
            assert!(
                !self.succeeds(),
                "exit code {}\n{}",
                output.status,
                output.stderr
            );
        }
        let mut sinks = self.sinks(space.path());
        if let Some(loaded) = daemon.as_ref().and_then(Daemon::loaded) {
            sinks.push(loaded.to_owned());
        }
        if let Some(registry) = registry {
            registry.check_tags();
            let failed = output.status != 0;
            actual.insert("registry", describe_registry(registry, failed));
            let folder = space.path().with_file_name("pushed");
            if registry.export(&registry.pushed(), &folder) {
                validate(&folder);
                // Where images go nowhere else, those that were pushed are described.
                if sinks.is_empty() {
                    sinks.push(folder);
                }
            }
        }
        if output.status == 0 && self.args.first().is_some_and(|it| it == "build") {
            assert!(!sinks.is_empty(), "there is no output");
            assert_eq!(
                planned.status, 0,
                "plan fails where build does not:\n{}",
                planned.stderr
            );
            actual.insert("plan", planned.stdout.replace(&root, "[ROOT]"));
            let mut first = None;
            for sink in &sinks {
                let layout = validate(sink);
                let [layers, configs, diff_ids, digests] = describe(&layout);
                self.check_stdout(&output.stdout, &layout, registry);
                match &first {
                    None => first = Some(digests.clone()),
                    Some(first) => assert_eq!(first, &digests, "two outputs differ"),
                }
                actual.insert("layers", layers);
                actual.insert("configs", configs);
                actual.insert("diff_ids", diff_ids);
                actual.insert("digests", digests);
            }
        }
        actual.values_mut().for_each(|text| servers.hide(text));
        actual.retain(|_, text| !text.is_empty());
        actual
    }

    /// Checks that each line `NAME REFERENCE@DIGEST` says the digest of an image of the output.
    /// Of what was pushed, the registry must hold it.
    fn check_stdout(&self, stdout: &str, layout: &Layout, registry: Option<&Server>) {
        if stdout.starts_with(['[', '{']) {
            return;
        }
        for line in stdout.lines() {
            let parts = line.split_once(' ');
            let parts = parts.and_then(|(name, rest)| Some((name, rest.split_once('@')?)));
            let Some((name, (place, digest))) = parts else {
                // A script may print more than the build that it runs.
                assert!(self.folder.join("run").exists(), "{line}");
                continue;
            };
            if let Some(registry) = registry.filter(|it| place.starts_with(it.host())) {
                let found = registry.repository(&registry.reference(place).repository);
                assert!(found.find(digest).is_some(), "{line} is not there");
                continue;
            }
            assert_eq!(
                layout.images[name].digest, digest,
                "the digest printed for {name}"
            );
        }
    }

    /// Compares with `expected/`, or writes it; returns what is wrong.
    fn check(&self) -> Result<(), String> {
        let actual = self.run();
        let folder = self.folder.join("expected");
        let names = [
            "exit", "stdout", "stderr", "registry", "plan", "layers", "configs", "diff_ids",
            "digests",
        ];
        let mut wrong = String::new();
        for name in names {
            let expected = self.expected(name);
            let actual = actual.get(name);
            if expected.as_ref() == actual {
                continue;
            }
            if !bless(&self.name) {
                let none = String::new();
                let lines = diff(expected.as_ref().unwrap_or(&none), actual.unwrap_or(&none));
                wrong.push_str(&format!("--- expected/{name}\n{lines}"));
                continue;
            }
            if name == "diff_ids" && expected.is_some() {
                return Err(
                    "golden diff_ids never change: they are the byte contract. A new format \
                     gets new cases.\n"
                        .to_owned(),
                );
            }
            fs::create_dir_all(&folder).expect("the expected folder");
            let path = folder.join(name);
            match actual {
                Some(text) => fs::write(&path, text).expect("an expected file"),
                None => fs::remove_file(&path).expect("an expected file"),
            }
        }
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(wrong),
        }
    }
}

/// Runs `run` for every case of `cases` on some threads, and fails with all that went wrong.
pub(crate) fn for_each(cases: &[Case], run: impl Fn(&Case) -> Result<(), String> + Sync) {
    let next = AtomicUsize::new(0);
    let wrong = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if !case.can_run() {
                        continue;
                    }
                    let result = catch_unwind(AssertUnwindSafe(|| run(case)));
                    let result = result.unwrap_or_else(|panic| {
                        let text = panic.downcast_ref::<String>().cloned();
                        let fixed = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
                        Err(text.or(fixed).unwrap_or_default())
                    });
                    if let Err(text) = result {
                        wrong
                            .lock()
                            .expect("no panic while locked")
                            .insert(&case.name, text);
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().expect("no panic while locked");
    let report: String = wrong
        .iter()
        .map(|(name, text)| format!("\n===== golden/{name}\n{text}\n"))
        .collect();
    assert!(
        wrong.is_empty(),
        "{} of {} cases failed{report}",
        wrong.len(),
        cases.len()
    );
}

/// Tells whether the expected files of a case are to be written.
pub(crate) fn bless(name: &str) -> bool {
    let area = name.split('/').next().unwrap_or_default();
    let is_meant = |it: &str| it == name || it.trim_end_matches('/') == area;
    env::var("IMGDECL_BLESS").is_ok_and(|it| it == "1" || it.split(',').any(is_meant))
}

/// Writes out what a layout holds: layers, configs, diff_ids, digests.
fn describe(layout: &Layout) -> [String; 4] {
    let [mut layers, mut configs, mut diff_ids, mut digests] = [const { String::new() }; 4];
    for (name, image) in &layout.images {
        digests.push_str(&format!("{name} {}\n", image.digest));
        for image in &image.platforms {
            let head = format!("{name} {}", image.platform);
            layers.push_str(&format!("{head}\n"));
            let mut config = image.config.clone();
            config.as_object_mut().expect("an object").remove("rootfs");
            configs.push_str(&format!("{head}\n{config:#}\n"));
            digests.push_str(&format!("{head} manifest {}\n", image.digest));
            let digest = image.manifest["config"]["digest"]
                .as_str()
                .unwrap_or_default();
            digests.push_str(&format!("{head} config {digest}\n"));
            for (number, layer) in (1..).zip(&image.layers) {
                let Layer {
                    media_type,
                    digest,
                    diff_id,
                    created_by,
                    entries,
                } = layer;
                let short = media_type.rsplit('.').next().unwrap_or_default();
                layers.push_str(&format!("  layer {number}, {short}: {created_by}\n"));
                entries
                    .iter()
                    .for_each(|entry| layers.push_str(&line(entry)));
                diff_ids.push_str(&format!("{head} {number} {diff_id}\n"));
                digests.push_str(&format!("{head} layer {number} {digest}\n"));
            }
            for (key, value) in image.manifest["annotations"]
                .as_object()
                .into_iter()
                .flatten()
            {
                digests.push_str(&format!("{head} annotation {key} = {value}\n"));
            }
        }
    }
    [layers, configs, diff_ids, digests]
}

/// Writes out the image tags of a registry, and what it was asked: each request with its answer, and how often.
fn describe_registry(registry: &Server, failed: bool) -> String {
    let mut text = String::new();
    for name in registry.repositories() {
        let repository = registry.repository(&name);
        for (tag, digest) in &repository.tags {
            let (kind, _) = &repository.manifests[digest];
            text.push_str(&format!("{name}:{tag} {kind}\n"));
        }
    }
    // How far other transfers got before one failed is a matter of chance.
    let log = if failed { Vec::new() } else { registry.log() };
    let mut requests: BTreeMap<String, usize> = BTreeMap::new();
    for logged in log {
        let words = logged.line().replace(['?', '&'], " ");
        // Names of upload sessions come in any order.
        let hide = |word: &str| match word.split_once("session-") {
            Some((path, _)) => format!("{path}[SESSION]"),
            None => word.to_owned(),
        };
        let words = words.split(' ').filter(|it| !it.starts_with("_state="));
        let words: Vec<String> = words.map(hide).collect();
        let line = format!("{} {}", words.join(" "), logged.status);
        *requests.entry(hide_digests(&line)).or_default() += 1;
    }
    for (request, count) in requests {
        text.push_str(&format!("{count} {request}\n"));
    }
    text
}

/// Writes out an entry: type, mode, owner, size, digest or link, path; and what is there on top.
fn line(entry: &Entry) -> String {
    let kind = match entry.kind {
        '0' => "file",
        '1' => "hard",
        '2' => "link",
        '5' => "dir ",
        other => panic!("{}: an entry of type {other}", entry.path),
    };
    let Entry {
        mode,
        uid,
        gid,
        size,
        ..
    } = entry;
    let what = match entry.kind {
        '0' => entry.sha256.clone(),
        '5' => "-".to_owned(),
        _ => format!("-> {}", entry.link),
    };
    let mut line = format!(
        "    {kind} {mode:04o} {uid}:{gid} {size} {what} {}",
        visible(&entry.path)
    );
    if entry.mtime != 0 {
        line.push_str(&format!(" mtime={}", entry.mtime));
    }
    for (key, value) in &entry.pax {
        line.push_str(&format!(" pax[{key}={}]", value.escape_ascii()));
    }
    line + "\n"
}

/// Writes control characters, which would break the lines, as escapes.
fn visible(path: &str) -> String {
    let show = |char: char| match char.is_control() {
        true => char.escape_default().to_string(),
        false => char.to_string(),
    };
    path.chars().map(show).collect()
}

/// Replaces digests, which have a file of their own.
fn hide_digests(text: &str) -> String {
    let mut parts = text.split("sha256:");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let hex = part.bytes().take_while(u8::is_ascii_hexdigit).count();
        out.push_str(if hex == 64 {
            "sha256:[DIGEST]"
        } else {
            "sha256:"
        });
        out.push_str(&part[if hex == 64 { 64 } else { 0 }..]);
    }
    out
}

/// Replaces how long was waited between tries: there is chance in it.
fn hide_waits(text: &str) -> String {
    let hide = |text: String, word: &str| {
        let mut parts = text.split(word);
        let mut out = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let digits = part.bytes().take_while(u8::is_ascii_digit).count();
            let (number, rest) = part.split_at(digits);
            let hidden = !number.is_empty() && rest.starts_with(" s");
            let number = if hidden { "[N]" } else { number };
            out.push_str(&format!("{word}{number}{rest}"));
        }
        out
    };
    ["waiting ", " tries over "]
        .into_iter()
        .fold(text.to_owned(), hide)
}

/// Replaces the work folder, even where a message was wrapped within it.
fn hide_root(text: &str, root: &str) -> String {
    let parts: Vec<&str> = root.split_inclusive('/').collect();
    let wrapped = (1..parts.len()).map(|at| {
        let (before, after) = (parts[..at].concat(), parts[at..].concat());
        (format!("{before}\n  │ {after}"), "[ROOT]\n  │ ")
    });
    let text = text.replace(root, "[ROOT]");
    wrapped.fold(text, |text, (from, to)| text.replace(&from, to))
}

/// Shows the lines that differ, without what is equal before and after them.
fn diff(expected: &str, actual: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), actual.lines().collect());
    let same = |pair: &(&&str, &&str)| pair.0 == pair.1;
    let before = old.iter().zip(&new).take_while(same).count();
    let (old_rest, new_rest) = (&old[before..], &new[before..]);
    let after = old_rest
        .iter()
        .rev()
        .zip(new_rest.iter().rev())
        .take_while(same)
        .count();
    let mut out = format!("@@ line {}\n", before + 1);
    for (sign, lines) in [("-", old_rest), ("+", new_rest)] {
        for line in &lines[..lines.len() - after] {
            out.push_str(&format!("{sign}{line}\n"));
        }
    }
    out
}

/// Returns what is in a folder, sorted.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder of golden cases");
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("a folder of golden cases").path())
        .collect();
    paths.sort();
    paths
}

/// Returns the last name of a path.
fn last_name(path: &Path) -> String {
    let name = path.file_name().expect("a path with a name");
    name.to_string_lossy().into_owned()
}

/// Finds all folders of a name.
fn find(folder: &Path, name: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if !entry.file_type().is_ok_and(|it| it.is_dir()) {
            continue;
        }
        match entry.file_name() == name {
            true => found.push(path),
            false => find(&path, name, found),
        }
    }
}

#[test]
fn cases() {
    let cases = Case::all();
    assert!(cases.len() > 20, "only {} cases", cases.len());
    for_each(&cases, Case::check);
}

/// What is no case and no area is found, and not passed over.
#[test]
fn every_folder_is_a_case() {
    let wrong = |path: &str| {
        let space = Space::new();
        space.write("area/good/image.toml", "");
        space.write(path, "");
        Case::below(space.path()).map(|cases| cases.len()).err()
    };
    assert_eq!(wrong("area/other/args"), None);
    for path in [
        "README.md",
        "area/empty/notes",
        "area/notes",
        "area/deep/case/image.toml",
    ] {
        assert!(wrong(path).is_some(), "{path}");
    }
}

/// A registry comes about as its file says, and a run's requests are told.
#[test]
fn registries_of_cases() {
    let space = Space::new();
    let file = space.write(
        "registry.json",
        r#"{
            "images": [
                { "name": "base:1", "platforms": ["linux/amd64", "linux/arm64"], "attested": true,
                  "layers": [{ "etc/": "", "etc/arch": "[PLATFORM]" }] },
                { "name": "old:1", "docker": true, "layers": [{ "a": "" }, { "b": "" }] }
            ],
            "users": { "robot": "secret" }, "anonymous": true,
            "rules": [{ "on": "GET /v2/*/tags/list", "times": 1, "status": 500 }]
        }"#,
    );
    let data = Data::read(&file);
    let server = data.start(None);
    data.load(&server, space.path());
    server.check_tags();
    assert_eq!(
        describe_registry(&server, false),
        "base:1 application/vnd.oci.image.index.v1+json\n\
         old:1 application/vnd.docker.distribution.manifest.v2+json\n"
    );
    let folder = space.path().join("layout");
    let tags = [("base".to_owned(), "1".to_owned())].into();
    assert!(server.export(&tags, &folder));
    let index = fs::read_to_string(folder.join("index.json")).expect("an index");
    assert!(index.contains("\"base:1\""), "{index}");
}
