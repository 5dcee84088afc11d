//! The environment: variables, and what git says.
#![expect(
    clippy::disallowed_methods,
    reason = "the one file that reads the environment"
)]

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::registry::{Places, Proxies};
use crate::spec::Host;

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

/// The host, as the language sees it.
pub(super) struct RealHost {
    epoch: Option<u64>,
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
        Ok(Self { epoch })
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
}
