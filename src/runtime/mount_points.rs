//! Mount points: where in the root of an image something is mounted. Runtimes make these folders as root, and write in some
//! of them; some do not ask where a symlink leads. So every point, and every folder above it, must be real.
//!
//! What images hold below a point is hidden by what is mounted there: `/dev/fd`, `/dev/ptmx` or `/dev/console` may be
//! anything. Knows nothing of what runtimes do with a bundle.

use std::fs::{self, FileType};
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::bundle::BundleError;

/// How many symlinks one path may lead through, as in the kernel.
const MAX_LINKS: usize = 40;

/// Makes sure that every mount of a `config.json` lands in the root itself: that its point and the folders above it are
/// real folders, or missing. What is a file on the host may stand on a file. The working folder must not lie in `/proc`,
/// where numbers stand for what a runtime has open.
///
/// # Errors
/// When the root holds something else on the way to a point.
pub(super) fn check(root: &Path, document: &Value) -> Result<(), BundleError> {
    let text = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
    // What was mounted before: where, and the host's folder that is there then.
    let mut before: Vec<(String, PathBuf)> = Vec::new();
    for mount in document["mounts"].as_array().into_iter().flatten() {
        let point = text(mount, "destination");
        let is_bind = text(mount, "type") == "bind";
        let source = PathBuf::from(text(mount, "source"));
        let takes_file = is_bind && !source.is_dir();
        real(root, &point, &point, takes_file)?;
        for (above, folder) in &before {
            if let Some(below) = point.strip_prefix(&format!("{}/", above.trim_end_matches('/'))) {
                real(folder, below, &point, takes_file)?;
            }
        }
        if is_bind && source.is_dir() {
            before.push((point, source));
        }
    }
    let cwd = text(&document["process"], "cwd");
    let place = resolve(root, &cwd);
    let is_handle = |path: &str| {
        let below = path.strip_prefix("/proc/");
        let below = below.or_else(|| {
            path.strip_prefix("/dev/")
                .filter(|it| STREAMS.contains(&first(it)))
        });
        below.is_some_and(|it| !it.is_empty())
    };
    let plain = format!("/{}", names(&cwd).collect::<Vec<_>>().join("/"));
    match is_handle(&plain) || place.as_deref().is_some_and(is_handle) {
        true => Err(BundleError::Handle(cwd)),
        false => Ok(()),
    }
}

/// What a runtime makes in `/dev` that leads into `/proc`.
const STREAMS: [&str; 4] = ["fd", "stdin", "stdout", "stderr"];

fn first(path: &str) -> &str {
    path.split('/').next().unwrap_or_default()
}

fn names(path: &str) -> impl DoubleEndedIterator<Item = &str> {
    path.split('/').filter(|it| !it.is_empty() && *it != ".")
}

/// Makes sure that a path below a folder leads through real folders, as far as it is there.
fn real(folder: &Path, path: &str, point: &str, takes_file: bool) -> Result<(), BundleError> {
    let refused = |at: &Path, what: String| {
        let at = at.strip_prefix(folder).unwrap_or(at);
        Err(BundleError::Point {
            point: point.to_owned(),
            at: format!("/{}", at.display()),
            what,
        })
    };
    let mut at = folder.to_owned();
    let mut ahead = names(path).peekable();
    while let Some(name) = ahead.next() {
        if name == ".." {
            return refused(&at, "`..` leads upwards".to_owned());
        }
        at.push(name);
        let kind = match fs::symlink_metadata(&at) {
            Ok(metadata) => metadata.file_type(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return refused(&at, format!("cannot be looked at: {error}")),
        };
        let is_file = kind.is_file() && takes_file && ahead.peek().is_none();
        if !kind.is_dir() && !is_file {
            return refused(&at, told(kind, &at));
        }
    }
    Ok(())
}

fn told(kind: FileType, at: &Path) -> String {
    if !kind.is_symlink() {
        return match kind.is_file() {
            true => "is a file",
            false => "is neither folder nor file",
        }
        .to_owned();
    }
    let target = fs::read_link(at).unwrap_or_default();
    format!("is a symlink to {}", target.display())
}

/// Tells whether a folder of the root is empty or missing: what lies at its path, and no symlink on the way.
pub(super) fn is_empty(root: &Path, path: &str) -> bool {
    let mut at = root.to_owned();
    for name in names(path) {
        at.push(name);
        match fs::symlink_metadata(&at) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => return false,
            Err(error) => return error.kind() == io::ErrorKind::NotFound,
        }
    }
    fs::read_dir(at).is_ok_and(|mut entries| entries.next().is_none())
}

/// Returns where a file of the host is mounted for which the image may have a symlink, as `/etc/resolv.conf` often is:
/// where that leads in the root, as programs of the container will look for it. Not into what the kernel mounts there.
pub(super) fn landing(root: &Path, point: &str) -> String {
    let kind = |path: &Path| fs::symlink_metadata(path).map(|it| it.file_type());
    let at = root.join(point.trim_start_matches('/'));
    let above = at.parent().unwrap_or(root);
    let is_followed =
        kind(above).is_ok_and(|it| it.is_dir()) && kind(&at).is_ok_and(|it| it.is_symlink());
    let place = resolve(root, point).filter(|_| is_followed).filter(|it| {
        let first = first(it.trim_start_matches('/'));
        !matches!(first, "" | "proc" | "sys" | "dev")
    });
    place.unwrap_or_else(|| point.to_owned())
}

/// Returns where a path of the root leads, symlinks and all: a path without any, from the root. What is missing is taken
/// as it is named. `None` where it leads nowhere, as in a circle.
pub(super) fn resolve(root: &Path, path: &str) -> Option<String> {
    let mut ahead: Vec<String> = names(path).rev().map(str::to_owned).collect();
    let mut reached: Vec<String> = Vec::new();
    let mut links = 0;
    while let Some(name) = ahead.pop() {
        if name == ".." {
            // The root is its own parent.
            reached.pop();
            continue;
        }
        reached.push(name);
        let at = root.join(reached.join("/"));
        let Ok(target) = fs::read_link(at) else {
            continue;
        };
        links += 1;
        if links > MAX_LINKS {
            return None;
        }
        let target = target.to_str()?;
        match target.starts_with('/') {
            true => reached.clear(),
            false => drop(reached.pop()),
        }
        ahead.extend(names(target).rev().map(str::to_owned));
    }
    Some(format!("/{}", reached.join("/")))
}
