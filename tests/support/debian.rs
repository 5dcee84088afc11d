//! Roots of Debian with its Python, as tars of layers. Made by mmdebstrap once, and kept in the target folder.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use imgdecl::parts::oci::Digest;

use super::peer;

/// How many seconds a root may take.
const PATIENCE: &str = "200";

/// What decides a root.
struct Making {
    arch: &'static str,
    args: &'static [&'static str],
}

const MAKINGS: [Making; 2] = [
    Making {
        arch: "amd64",
        args: &[
            "--variant=minbase",
            "--include=python3.11,python3-minimal,python3.11-venv,ca-certificates",
            "--include=libsqlite3-0,zlib1g,libffi8,libssl3",
        ],
    },
    // Packages of another architecture cannot run their scripts here: they are unpacked.
    Making {
        arch: "arm64",
        args: &[
            "--variant=extract",
            "--include=python3.11-minimal,libpython3.11-stdlib,base-files,libffi8,libssl3,libstdc++6",
        ],
    },
];

impl Making {
    /// Returns what mmdebstrap is told.
    fn options(&self) -> Vec<String> {
        let arch = format!("--architecture={}", self.arch);
        let own = self.args.iter().chain(&OPTIONS).map(|it| (*it).to_owned());
        let all = [arch].into_iter().chain(own);
        all.chain(["bookworm".to_owned()]).collect()
    }

    /// Returns where the root is kept.
    fn file(&self) -> PathBuf {
        let name = Digest::of(self.options().join("\n").as_bytes()).hex();
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        folder.join(format!("debian-{}-{}.tar", self.arch, &name[..12]))
    }
}

/// The options of all roots.
const OPTIONS: [&str; 4] = [
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--skip=output/dev",
];

/// The roots that this process has, one place for each of [`MAKINGS`].
static ROOTS: [Mutex<Option<Arc<Vec<u8>>>>; 2] = [Mutex::new(None), Mutex::new(None)];

/// Returns the tar of a root for an architecture; `None` where there is no mmdebstrap.
pub(crate) fn debian(arch: &str) -> Option<Arc<Vec<u8>>> {
    let place = MAKINGS.iter().position(|it| it.arch == arch);
    let place = place.expect("an architecture that is made");
    // One test makes it, and others wait. One that failed leaves nothing.
    let mut root = ROOTS[place].lock().unwrap_or_else(|it| it.into_inner());
    if root.is_none() {
        *root = Some(Arc::new(make(&MAKINGS[place])?));
    }
    root.clone()
}

/// Returns the file that holds the tar of the root for amd64.
pub(crate) fn debian_root() -> Option<PathBuf> {
    debian("amd64")?;
    Some(MAKINGS[0].file())
}

fn make(making: &Making) -> Option<Vec<u8>> {
    let program = peer("mmdebstrap")?;
    let args = making.options();
    let file = making.file();
    if let Ok(bytes) = fs::read(&file) {
        return Some(bytes);
    }
    // Under another name until it is whole: another run may make the same.
    let part = file.with_file_name(format!("debian-{}-{}.tar", making.arch, std::process::id()));
    let run = || {
        Command::new("timeout")
            .arg(PATIENCE)
            .arg(&program)
            .args(&args)
            .arg(&part)
            .env("SOURCE_DATE_EPOCH", "1735689600")
            .stdin(Stdio::null())
            .output()
            .expect("timeout")
    };
    let mut output = run();
    if !output.status.success() {
        // A mirror may be busy for a moment.
        output = run();
    }
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "mmdebstrap failed:\n{said}");
    fs::rename(&part, &file).expect("one file system");
    Some(fs::read(&file).expect("the root that was made"))
}
