//! Other programs that tests use where they are there. Knows nothing of what they are used for.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::{env, fs};

use tempfile::TempDir;

/// Finds a program on PATH. Where it is absent, the caller skips; with IMGDECL_REQUIRE_PEERS=1, absence fails.
pub(crate) fn peer(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| {
            file.metadata()
                .is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
        });
    if found.is_none() {
        absent(name);
    }
    found
}

/// Says that something a test needs is absent; fails where all must be there.
pub(crate) fn absent(name: &str) {
    if env::var("IMGDECL_REQUIRE_PEERS").is_ok_and(|it| it == "1") {
        panic!("needs {name}");
    }
    eprintln!("skipped: needs {name}");
}

/// The release of uv that tests compare with.
const UV: &str = "uv==0.13.9";

/// A folder below `target` that outlives a run: what was fetched once is there again.
pub(crate) fn temporary() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
}

/// Finds pip, where it has an index to ask. Without, the caller skips.
pub(crate) fn pip_with_index() -> Option<PathBuf> {
    let pip = peer("pip")?;
    if !has_index(&pip) {
        absent("an index");
        return None;
    }
    Some(pip)
}

/// Finds pip, and uv as pip installs it from the index of this machine. Without that index, the caller skips.
pub(crate) fn pip_and_uv() -> Option<(PathBuf, PathBuf)> {
    static UV_HERE: OnceLock<Option<PathBuf>> = OnceLock::new();
    let pip = pip_with_index()?;
    let uv = UV_HERE.get_or_init(|| {
        let folder = temporary().join(UV.replace("==", "-"));
        let program = folder.join("bin/uv");
        if program.is_file() {
            return Some(program);
        }
        let new = TempDir::with_prefix_in("uv", temporary()).expect("a folder below target");
        let mut install = Command::new(&pip);
        install.args(["install", "--quiet", "--no-deps", "--only-binary", ":all:"]);
        install.arg("--target").arg(new.path()).arg(UV);
        let is_there = install.status().is_ok_and(|it| it.success());
        // Another run may have been quicker: then its folder is the one.
        let _ = is_there.then(|| fs::rename(new.path(), &folder));
        program.is_file().then_some(program)
    });
    match uv {
        Some(uv) => Some((pip, uv.clone())),
        None => {
            absent("uv from an index");
            None
        }
    }
}

/// Tells whether the index that pip asks answers; asked once.
fn has_index(pip: &Path) -> bool {
    static ANSWERS: OnceLock<bool> = OnceLock::new();
    *ANSWERS.get_or_init(|| {
        let folder = TempDir::with_prefix("index").expect("a temporary folder");
        let mut command = Command::new(pip);
        command.args(["download", "--quiet", "--no-deps", "--no-cache-dir"]);
        command.args(["--retries", "1", "--timeout", "30", "--dest"]);
        command.arg(folder.path()).arg("idna==3.10");
        command.output().is_ok_and(|it| it.status.success())
    })
}
