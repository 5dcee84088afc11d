//! The index of this machine, and what is common to all that compare with uv and pip.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;
use std::sync::OnceLock;

use imgdecl::parts::oci::Digest;
use imgdecl::parts::python::WheelName;
use imgdecl::parts::store::{Blobs as _, Store};
use serde::Deserialize;
use tempfile::NamedTempFile;
use toml::Table;

use crate::support::{BINARY, Output, Space, temporary};

/// Files that were uploaded later are left out, everywhere: so an index that grows changes no answer.
pub(super) const EXCLUDE_NEWER: &str = "2026-05-01T00:00:00Z";

/// What wheels are chosen for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Deserialize)]
pub(super) struct Platform {
    /// The version of Python, as `3.11`.
    pub(super) python: String,
    /// The C library, as `glibc 2.28`.
    pub(super) libc: String,
    /// The architecture, as `amd64`.
    pub(super) arch: String,
}

impl Platform {
    pub(super) fn new(python: &str, libc: &str, arch: &str) -> Self {
        Self {
            python: python.to_owned(),
            libc: libc.to_owned(),
            arch: arch.to_owned(),
        }
    }

    /// The architecture in the tags of wheels.
    pub(super) fn machine(&self) -> &'static str {
        match self.arch.as_str() {
            "amd64" => "x86_64",
            "arm64" => "aarch64",
            other => panic!("no machine is known for {other}"),
        }
    }

    /// The C library's name, and the two numbers of its version.
    fn libc(&self) -> (&str, u32, u32) {
        let parts = self.libc.split_once(' ').and_then(|(name, version)| {
            let (major, minor) = version.split_once('.')?;
            Some((name, major.parse().ok()?, minor.parse().ok()?))
        });
        parts.unwrap_or_else(|| panic!("`{}` is no C library", self.libc))
    }

    /// What uv calls it.
    pub(super) fn uv(&self) -> String {
        match self.libc() {
            ("glibc", major, minor) => format!("{}-manylinux_{major}_{minor}", self.machine()),
            // uv knows one musl.
            ("musl", 1, 2) => format!("{}-unknown-linux-musl", self.machine()),
            other => panic!("uv knows no {other:?}"),
        }
    }

    /// The tags that pip has to be told, best first.
    pub(super) fn pip(&self) -> Vec<String> {
        let machine = self.machine();
        let (name, major, minor) = self.libc();
        let mut tags = Vec::new();
        for minor in (0..=minor).rev() {
            match name {
                "glibc" => tags.push(format!("manylinux_{major}_{minor}_{machine}")),
                _ => tags.push(format!("musllinux_{major}_{minor}_{machine}")),
            }
            match (name, minor) {
                ("glibc", 17) => tags.push(format!("manylinux2014_{machine}")),
                ("glibc", 12) => tags.push(format!("manylinux2010_{machine}")),
                ("glibc", 5) => tags.push(format!("manylinux1_{machine}")),
                _ => {}
            }
        }
        tags.push(format!("linux_{machine}"));
        tags
    }
}

/// Gives a command the environment of this machine, so that it finds the index, its proxy and its certificates as pip
/// does; with a cache of its own.
pub(super) fn hosted(command: &mut Command) -> &mut Command {
    let own = |name: &str| {
        let is_ours = name.starts_with("IMGDECL_");
        // In CI, builds are locked; and nothing but the index is to be found by these.
        let changed = [
            "CI",
            "SOURCE_DATE_EPOCH",
            "PYTHONPATH",
            "PIP_FIND_LINKS",
            "UV_FIND_LINKS",
        ];
        !is_ours && !changed.contains(&name)
    };
    let host = std::env::vars().filter(|(name, _)| own(name));
    command.envs(host)
}

/// A command that runs uv in a work folder. It knows no `pip.conf`, so it is told what is there.
pub(super) fn uv(space: &Space, uv: &PathBuf, pip: &PathBuf, args: &[&str]) -> Command {
    let mut command = space.program(uv);
    hosted(&mut command)
        .args(["--color", "never", "--no-progress"])
        .args(args)
        .env("UV_CACHE_DIR", temporary().join("uv-cache"))
        .env("UV_PYTHON_DOWNLOADS", "never");
    if let Some(index) = index_of(pip) {
        command.env("UV_DEFAULT_INDEX", index);
    }
    command
}

/// The index that pip was told to ask, unless uv was told too; asked once.
fn index_of(pip: &PathBuf) -> Option<&'static str> {
    static INDEX: OnceLock<Option<String>> = OnceLock::new();
    let index = INDEX.get_or_init(|| {
        let named = ["UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"].map(std::env::var);
        match named {
            [Err(_), Err(_), Ok(index)] => return Some(index),
            [Err(_), Err(_), Err(_)] => {}
            _ => return None,
        }
        let asked = Output::of(Command::new(pip).args(["config", "get", "global.index-url"]));
        (asked.status == 0).then(|| asked.stdout.trim().to_owned())
    });
    index.as_deref()
}

/// The binary as users have it where it was built, since it asks much of a processor; else the one under test.
pub(super) fn binary() -> (PathBuf, bool) {
    match std::env::var_os("IMGDECL_RELEASE_BIN") {
        Some(path) => (path.into(), true),
        None => (BINARY.into(), false),
    }
}

/// The versions of packages, and the files that bring them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Chosen {
    pub(super) versions: BTreeMap<String, String>,
    pub(super) files: BTreeMap<String, String>,
}

impl Chosen {
    /// Adds a wheel, by the name of its file.
    fn add(&mut self, file: &str) {
        let wheel = WheelName::parse(file).unwrap_or_else(|error| panic!("{file}: {error}"));
        let name = wheel.name.to_string();
        self.versions
            .insert(name.clone(), wheel.version.to_string());
        self.files.insert(name, file.to_owned());
    }

    /// Says where two choices differ.
    pub(super) fn difference(&self, uv: &Self) -> Option<String> {
        let mut lines = Vec::new();
        let names = self.versions.keys().chain(uv.versions.keys());
        for name in names.collect::<std::collections::BTreeSet<_>>() {
            let ours = (self.versions.get(name), self.files.get(name));
            let theirs = (uv.versions.get(name), uv.files.get(name));
            if ours != theirs {
                lines.push(format!("{name}: imgdecl chose {ours:?}, uv {theirs:?}"));
            }
        }
        (!lines.is_empty()).then(|| lines.join("\n"))
    }
}

/// A wheel of a lock.
pub(super) struct Pin {
    pub(super) file: String,
    pub(super) sha256: Digest,
}

/// Reads the wheels that an `image.lock` holds for a target of the manifest, on its one platform.
pub(super) fn pins(lock: &str, target: &str, platform: &Platform) -> Vec<Pin> {
    let table: Table = lock.parse().expect("image.lock is TOML");
    let (name, _, minor) = platform.libc();
    let major = platform.libc().1;
    let python = platform.python.replace('.', "");
    let key = format!(
        "linux-{}-{name}{major}.{minor}-cp{python}",
        platform.machine()
    );
    let wheels = &table["pip"][target]["target"][&key];
    let wheels = wheels.as_table().expect("a table of wheels").iter();
    let pin = |(file, pinned): (&String, &toml::Value)| {
        let digest = pinned.as_str().and_then(|it| it.split(' ').next());
        Pin {
            file: file.clone(),
            sha256: Digest::from_str(digest.expect("a digest")).expect("a digest"),
        }
    };
    wheels.map(pin).collect()
}

/// Says what a lock chose.
pub(super) fn chosen(pins: &[Pin]) -> Chosen {
    let mut chosen = Chosen::default();
    pins.iter().for_each(|pin| chosen.add(&pin.file));
    chosen
}

/// What uv says of requirements: what it chooses, or why it cannot.
pub(super) fn compile(
    space: &Space,
    peers: (&PathBuf, &PathBuf),
    platform: &Platform,
    args: &[&str],
) -> Result<Chosen, String> {
    let name = platform.uv();
    let mut all = vec![
        "pip",
        "compile",
        "--verbose",
        "--no-header",
        "--no-annotate",
    ];
    all.extend([
        "--only-binary",
        ":all:",
        "--python-version",
        &platform.python,
    ]);
    all.extend(["--python-platform", &name]);
    all.extend(args);
    let output = Output::of(&mut uv(space, peers.0, peers.1, &all));
    if output.status != 0 {
        assert!(
            output.stderr.contains("No solution found"),
            "uv found no answer, and no conflict:\n{}",
            output.stderr
        );
        return Err(output.stderr);
    }
    let mut chosen = Chosen::default();
    // The answer names versions; the log says which file each is. Versions that were tried in vain are there too.
    for line in output.stdout.lines() {
        let pin = line.split([';', ' ']).next().unwrap_or_default();
        let Some((name, version)) = pin.split_once("==") else {
            continue;
        };
        let start = format!("Selecting: {name}=={version} [");
        let selected = output.stderr.lines().filter(|it| it.contains(&start));
        let mut file = selected.filter_map(|it| it.rsplit_once('(')?.1.strip_suffix(')'));
        let file = file.next_back();
        chosen.add(file.unwrap_or_else(|| panic!("uv says no file of {pin}")));
        assert_eq!(chosen.versions.get(name).map(String::as_str), Some(version));
    }
    assert!(!chosen.versions.is_empty(), "{}", output.stdout);
    Ok(chosen)
}

/// Puts the wheels of earlier runs into a new cache: nothing else of these runs is believed.
pub(super) fn seed(cache: &Path, wanted: impl Fn(&str) -> bool) {
    let store = Store::open(cache).expect("a cache");
    for entry in fs::read_dir(wheels()).expect("wheels") {
        let path = entry.expect("a wheel").path();
        if wanted(&path.to_string_lossy()) {
            let bytes = fs::read(&path).expect("a wheel");
            store.put_blob(&bytes).expect("a blob");
        }
    }
}

/// Keeps the wheels that a build fetched, for later runs and for other tools.
pub(super) fn keep<'a>(cache: &Path, pins: impl Iterator<Item = &'a Pin>) {
    let store = Store::open(cache).expect("a cache");
    for pin in pins {
        let path = wheels().join(&pin.file);
        if !path.exists() {
            let bytes = fs::read(store.local_path(&pin.sha256)).expect("a wheel in the cache");
            // Another test may look at the folder: a wheel is there at once, or not at all.
            let mut file = NamedTempFile::new_in(temporary()).expect("a file");
            file.write_all(&bytes).expect("a file");
            file.persist(path).expect("a file");
        }
    }
}

/// The folder of wheels that were fetched in earlier runs.
pub(super) fn wheels() -> PathBuf {
    let folder = temporary().join("wheels");
    fs::create_dir_all(&folder).expect("a folder of wheels");
    folder
}
