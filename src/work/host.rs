//! The host, as the language sees it: what git says, the time that the environment says, and digests of files.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::graph::Stop;
use crate::oci::{Digest, Platform};
use crate::rule::digest_of;
use crate::spec::Host;
use crate::store::{Store, blob_of_file};

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
    /// The platform whose images run on this machine.
    platform: Platform,
    /// The variables that files of other tools may name.
    variables: Arc<BTreeMap<String, String>>,
    stop: Stop,
    /// What remembers the digests of files, once it is open.
    store: OnceLock<Arc<Store>>,
    /// The digests of files that were asked for in this run.
    digests: Mutex<BTreeMap<PathBuf, Digest>>,
}

impl RealHost {
    /// `epoch` is SOURCE_DATE_EPOCH, in seconds since 1970.
    pub(super) fn new(
        epoch: Option<u64>,
        platform: Platform,
        variables: Arc<BTreeMap<String, String>>,
        stop: &Stop,
    ) -> Self {
        Self {
            epoch,
            platform,
            variables,
            stop: stop.clone(),
            store: OnceLock::new(),
            digests: Mutex::default(),
        }
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
            let first = text.lines().next().unwrap_or("git failed");
            // Where the folder is another user's, git says how to trust it, some lines further down.
            let remedy = text
                .lines()
                .map(str::trim)
                .find(|it| it.starts_with("git config "));
            return Err(match remedy {
                Some(remedy) => format!("{first}; git says: {remedy}"),
                None => first.to_owned(),
            });
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

    fn platform(&self) -> Platform {
        self.platform.clone()
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }

    fn digest(&self, path: &Path) -> Result<Digest, String> {
        let digests = || self.digests.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = digests().get(path) {
            return Ok(*known);
        }
        let digest = match self.store.get() {
            Some(store) => digest_of(path, store, &|_| !self.stop.is_asked()).map_err(|error| {
                let causes = error.causes.iter().map(|cause| format!(": {cause}"));
                format!("{}{}", error.message, causes.collect::<String>())
            })?,
            None => {
                let blob = blob_of_file(path, &|_| !self.stop.is_asked());
                let blob = blob.map_err(|error| format!("cannot read {}: {error}", path.display()));
                blob?.digest
            }
        };
        digests().insert(path.to_owned(), digest);
        Ok(digest)
    }
}
