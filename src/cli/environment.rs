//! The environment: variables, and what git says.
#![expect(
    clippy::disallowed_methods,
    reason = "the one file that reads the environment"
)]

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::spec::Host;

/// Returns the cache folder: IMGDECL_CACHE_DIR, or `imgdecl` in the XDG cache folder.
pub(super) fn cache_dir() -> Result<PathBuf, String> {
    let path = |name: &str| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
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
