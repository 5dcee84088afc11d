//! Other programs that tests use where they are there. Knows nothing of what they are used for.

use std::env;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

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
