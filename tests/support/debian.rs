//! A real Debian root, as a tar: made once by mmdebstrap, and kept for all runs.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use super::{Output, absent, peer};

/// Returns the tar. `None` where it cannot be made: the caller skips.
pub(crate) fn debian_root() -> Option<PathBuf> {
    static ROOT: OnceLock<Option<PathBuf>> = OnceLock::new();
    ROOT.get_or_init(make).clone()
}

fn make() -> Option<PathBuf> {
    let mmdebstrap = peer("mmdebstrap")?;
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let path = folder.join("debian-root.tar");
    if path.exists() {
        return Some(path);
    }
    fs::create_dir_all(&folder).expect("a folder");
    let partial = folder.join(format!("debian-root-{}.tar", std::process::id()));
    let mut command = Command::new("timeout");
    command.arg("500").arg(mmdebstrap);
    command.env("SOURCE_DATE_EPOCH", "1735689600");
    command
        .args(["--quiet", "--variant=minbase", "bookworm"])
        .arg(&partial);
    let output = Output::of(&mut command);
    if output.status != 0 {
        let _ = fs::remove_file(&partial);
        absent(&format!("a Debian mirror: {}", output.stderr));
        return None;
    }
    fs::rename(&partial, &path).expect("a tar");
    Some(path)
}
