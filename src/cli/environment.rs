//! The environment: variables, and what git says.
#![expect(
    clippy::disallowed_methods,
    reason = "the one file that reads the environment"
)]

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::daemon;
use crate::oci::{Digest, Platform};
use crate::registry::{Places, Proxies};
use crate::rule::digest_of;
use crate::spec::Host;
use crate::store::{Store, blob_of_file};

/// Returns the cache folder: IMGDECL_CACHE_DIR, or `imgdecl` in the XDG cache folder.
pub(super) fn cache_dir() -> Result<PathBuf, String> {
    if let Some(own) = path("IMGDECL_CACHE_DIR") {
        return current_dir()
            .map(|here| here.join(own))
            .map_err(|error| error.to_string());
    }
    let xdg = path("XDG_CACHE_HOME").filter(|path| path.is_absolute());
    let home = path("HOME")
        .filter(|path| path.is_absolute())
        .map(|home| home.join(".cache"));
    xdg.or(home)
        .map(|caches| caches.join("imgdecl"))
        .ok_or_else(|| "neither HOME nor IMGDECL_CACHE_DIR is set".to_owned())
}

/// Returns the working folder.
pub(super) fn current_dir() -> std::io::Result<PathBuf> {
    env::current_dir()
}

/// Tells whether colours are wanted, as <https://no-color.org> has it.
pub(super) fn no_color() -> bool {
    env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// Tells whether this is a CI system, which builds what was committed.
pub(super) fn is_ci() -> bool {
    env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "0" && value != "false")
}

/// Returns the platform whose images run on this machine.
pub(super) fn host_platform() -> Platform {
    let architecture = match env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "loongarch64" => "loong64",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        "powerpc64" => "ppc64",
        other => other,
    };
    // Containers are Linux's, wherever they are looked at.
    Platform::new("linux", architecture)
}

/// Returns a variable, if it is set and is text.
#[cfg(target_os = "linux")]
pub(super) fn variable(name: &str) -> Option<String> {
    env::var(name).ok()
}

/// Returns the folders in which programs are looked for.
#[cfg(target_os = "linux")]
pub(super) fn program_folders() -> Vec<PathBuf> {
    env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect()
}

fn path(name: &str) -> Option<PathBuf> {
    env::var_os(name)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

/// Returns the file in which the user says how registries are reached: IMGDECL_CONFIG, or `imgdecl/config.toml` in the
/// XDG config folder. Tells, too, whether the user named it.
pub(super) fn config_file() -> Option<(PathBuf, bool)> {
    let folder = path("XDG_CONFIG_HOME").filter(|path| path.is_absolute());
    let folder = folder.or_else(|| Some(path("HOME")?.join(".config")));
    let named = path("IMGDECL_CONFIG").map(|path| (path, true));
    named.or_else(|| Some((folder?.join("imgdecl/config.toml"), false)))
}

/// Returns where credentials for registries are looked for.
pub(super) fn places(authfile: Option<&Path>) -> Places {
    Places {
        authfile: authfile
            .map(Path::to_owned)
            .or_else(|| path("REGISTRY_AUTH_FILE")),
        docker_auth_config: env::var("DOCKER_AUTH_CONFIG")
            .ok()
            .filter(|text| !text.is_empty()),
        docker_config: path("DOCKER_CONFIG"),
        home: path("HOME"),
        runtime_dir: path("XDG_RUNTIME_DIR"),
        config_home: path("XDG_CONFIG_HOME"),
        path: env::var_os("PATH"),
    }
}

/// Returns the proxies, by the variables that curl and others know.
pub(super) fn proxies() -> Proxies {
    let text = |names: [&str; 2]| {
        let values = names.into_iter().filter_map(|name| env::var(name).ok());
        values.into_iter().find(|text| !text.is_empty())
    };
    Proxies {
        http: text(["http_proxy", "HTTP_PROXY"]),
        https: text(["https_proxy", "HTTPS_PROXY"]),
        all: text(["all_proxy", "ALL_PROXY"]),
        none: text(["no_proxy", "NO_PROXY"]),
    }
}

/// Returns what the environment says of Docker and podman.
pub(super) fn daemons() -> daemon::Settings {
    let text = |name: &str| env::var(name).ok().filter(|text| !text.is_empty());
    daemon::Settings {
        docker_host: text("DOCKER_HOST"),
        container_host: text("CONTAINER_HOST"),
        has_tls: text("DOCKER_TLS_VERIFY").is_some(),
        cert_path: path("DOCKER_CERT_PATH"),
        docker_context: text("DOCKER_CONTEXT"),
        docker_config: path("DOCKER_CONFIG"),
        home: path("HOME"),
        runtime_dir: path("XDG_RUNTIME_DIR"),
    }
}

/// What the environment says of package indexes.
pub(super) struct IndexEnvironment {
    /// The variables of uv and pip that say indexes, and those with credentials for them.
    pub(super) variables: BTreeMap<String, String>,
    /// Where `.netrc` is.
    pub(super) netrc: Option<PathBuf>,
    /// Where `uv.toml` may be: the user's before the system's.
    pub(super) uv: Vec<PathBuf>,
    /// Where `pip.conf` may be: those that others override come last.
    pub(super) pip: Vec<PathBuf>,
}

/// Returns what the environment says of package indexes, by the rules of uv and pip.
pub(super) fn indexes() -> IndexEnvironment {
    let is_ours = |name: &str| {
        let starts = ["UV_INDEX", "UV_DEFAULT_INDEX", "UV_EXTRA_INDEX_URL"];
        starts.iter().any(|start| name.starts_with(start))
            || matches!(name, "PIP_INDEX_URL" | "PIP_EXTRA_INDEX_URL")
    };
    let text = |(name, value): (OsString, OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    let all = env::vars_os().filter_map(text);
    let home = path("HOME");
    let below_home = |rest: &str| home.as_ref().map(|home| home.join(rest));
    let config = path("XDG_CONFIG_HOME").filter(|path| path.is_absolute());
    let config = config.or_else(|| below_home(".config"));
    let in_config = |rest: &str| config.as_ref().map(|config| config.join(rest));
    let system = env::var_os("XDG_CONFIG_DIRS").filter(|value| !value.is_empty());
    let system = system.unwrap_or_else(|| "/etc/xdg".into());
    let in_system = |rest: &str| -> Vec<PathBuf> {
        let folders = env::split_paths(&system).filter(|folder| folder.is_absolute());
        folders.map(|folder| folder.join(rest)).collect()
    };
    let is_set = |name: &str| {
        env::var(name).is_ok_and(|it| !matches!(it.as_str(), "" | "0" | "false" | "no" | "off"))
    };
    let uv = match path("UV_CONFIG_FILE") {
        _ if is_set("UV_NO_CONFIG") => Vec::new(),
        Some(only) => vec![only],
        None => {
            let user = in_config("uv/uv.toml").into_iter();
            let system = in_system("uv/uv.toml").into_iter();
            user.chain(system)
                .chain(["/etc/uv/uv.toml".into()])
                .collect()
        }
    };
    let named = path("PIP_CONFIG_FILE");
    let pip = match &named {
        // As pip has it, this means none at all.
        Some(file) if file == Path::new("/dev/null") => Vec::new(),
        _ => {
            let site = path("VIRTUAL_ENV").map(|it| it.join("pip.conf"));
            let mac = below_home("Library/Application Support/pip/pip.conf");
            let user = [in_config("pip/pip.conf"), mac, below_home(".pip/pip.conf")];
            let system = in_system("pip/pip.conf").into_iter();
            let first = [named, site].into_iter().chain(user).flatten();
            first
                .chain(["/etc/pip.conf".into()])
                .chain(system)
                .collect()
        }
    };
    IndexEnvironment {
        variables: all.filter(|(name, _)| is_ours(name)).collect(),
        netrc: path("NETRC").or_else(|| below_home(".netrc")),
        uv,
        pip,
    }
}

/// Returns the program that is running.
pub(super) fn executable() -> std::io::Result<PathBuf> {
    env::current_exe()
}

/// Returns the variables with which a process whose home is elsewhere finds the user's own settings and credentials.
pub(super) fn settings_of_home() -> Vec<(&'static str, PathBuf)> {
    let Some(home) = path("HOME") else {
        return Vec::new();
    };
    let all = [
        ("XDG_CONFIG_HOME", ".config"),
        ("DOCKER_CONFIG", ".docker"),
        ("NETRC", ".netrc"),
        ("GIT_CONFIG_GLOBAL", ".gitconfig"),
    ];
    // One that is set stays; one whose file is not there would be an error.
    let own = all.into_iter().filter(|(name, _)| path(name).is_none());
    own.map(|(name, file)| (name, home.join(file)))
        .filter(|(_, file)| file.exists())
        .collect()
}

/// Returns the folder of git's own files and the topmost folder of the work tree that a folder lies in.
pub(super) fn git_folders(folder: &Path) -> Option<(PathBuf, PathBuf)> {
    let asked = ["rev-parse", "--absolute-git-dir", "--show-toplevel"];
    let mut command = Command::new("git");
    let output = command.arg("-C").arg(folder).args(asked).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let mut lines = text.lines().map(PathBuf::from);
    let (git, top) = (lines.next()?, lines.next()?);
    let is_whole = output.status.success() && git.is_absolute() && top.is_absolute();
    is_whole.then_some((git, top))
}

/// Returns the files that git knows in a work tree, relative to its topmost folder.
pub(super) fn git_files(top: &Path) -> Vec<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    let mut command = Command::new("git");
    let output = command.arg("-C").arg(top).args(["ls-files", "-z"]).output();
    let Some(output) = output.ok().filter(|it| it.status.success()) else {
        return Vec::new();
    };
    let names = output.stdout.split(|&byte| byte == 0);
    let names = names.filter(|it| !it.is_empty());
    names
        .map(|name| PathBuf::from(std::ffi::OsStr::from_bytes(name)))
        .collect()
}

/// The host, as the language sees it.
pub(super) struct RealHost {
    epoch: Option<u64>,
    /// What remembers the digests of files, once it is open.
    store: OnceLock<Arc<Store>>,
    /// The digests of files that were asked for in this run.
    digests: Mutex<BTreeMap<PathBuf, Digest>>,
}

impl RealHost {
    /// Reads SOURCE_DATE_EPOCH.
    pub(super) fn new() -> Result<Self, String> {
        let epoch = match env::var("SOURCE_DATE_EPOCH") {
            Ok(text) if !text.is_empty() => {
                let seconds = text.trim().parse().map_err(|_| {
                    format!("SOURCE_DATE_EPOCH is `{text}`, and not a number of seconds")
                })?;
                Some(seconds)
            }
            _ => None,
        };
        Ok(Self {
            epoch,
            store: OnceLock::new(),
            digests: Mutex::default(),
        })
    }

    /// Has digests of files remembered from run to run.
    pub(super) fn remember(&self, store: &Arc<Store>) {
        let _ = self.store.set(store.clone());
    }
}

impl Host for RealHost {
    fn git(&self, folder: &Path, what: &str) -> Result<String, String> {
        let arguments: &[&str] = match what {
            "commit" => &["rev-parse", "HEAD"],
            "tag" => &["describe", "--tags", "--exact-match"],
            "time" => &["log", "-1", "--format=%ct"],
            _ => &["status", "--porcelain"],
        };
        let output = Command::new("git")
            .arg("-C")
            .arg(folder)
            .args(arguments)
            .output();
        let output = output.map_err(|error| format!("git cannot be run: {error}"))?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            return Err(text.lines().next().unwrap_or("git failed").to_owned());
        }
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok(match what {
            "dirty" if text.is_empty() => String::new(),
            "dirty" => "-dirty".to_owned(),
            _ => text,
        })
    }

    fn source_date_epoch(&self) -> Option<u64> {
        self.epoch
    }

    fn digest(&self, path: &Path) -> Result<Digest, String> {
        let digests = || self.digests.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = digests().get(path) {
            return Ok(*known);
        }
        let digest = match self.store.get() {
            Some(store) => digest_of(path, store).map_err(|error| {
                let causes = error.causes.iter().map(|cause| format!(": {cause}"));
                format!("{}{}", error.message, causes.collect::<String>())
            })?,
            None => {
                let blob = blob_of_file(path);
                let blob = blob.map_err(|error| format!("cannot read {}: {error}", path.display()));
                blob?.digest
            }
        };
        digests().insert(path.to_owned(), digest);
        Ok(digest)
    }
}
