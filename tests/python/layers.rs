//! What is laid out, against what uv and pip lay out with `--target`: every file, its content and whether it can be run.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use imgdecl::parts::oci::Digest;
use tempfile::TempDir;

use super::hosted::{
    Chosen, EXCLUDE_NEWER, Pin, Platform, chosen, compile, hosted, keep, pins, seed, uv, wheels,
};
use crate::support::{Output, PlatformImage, Space, pip_and_uv, validate};

/// The sets that are built, by the names of their images.
const SETS: [(&str, &[&str]); 6] = [
    ("services", &["fastapi", "uvicorn", "boto3", "pydantic"]),
    ("flask", &["flask", "requests", "boto3", "gunicorn"]),
    ("transcripts", &["youtube-transcript-api", "boto3"]),
    ("data", &["numpy", "pandas", "scikit-learn", "pyarrow"]),
    (
        "shop",
        &["django", "celery[redis]", "psycopg[binary]", "pillow"],
    ),
    (
        "tools",
        &[
            "uvicorn[standard]",
            "cryptography<43",
            "importlib-metadata; python_version<'3.10'",
            "colorama; sys_platform=='win32'",
            "grpcio",
            "ruff",
            "black",
        ],
    ),
];

/// What has no wheel for musl: see `no wheel for musl` in `sets.toml`.
const NOT_ON_MUSL: &str = "scikit-learn";

/// Where packages, scripts and all else are in an image.
const SITE: &str = "usr/local/lib/python3.11/site-packages/";
const PREFIX: &str = "usr/local/";
const INTERPRETER: &str = "#!/usr/local/bin/python3.11\n";

/// A file that was laid out.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Laid {
    sha256: String,
    mode: u64,
}

/// Why a file that one of them has, or that both have, is not compared.
fn excuse(path: &str) -> Option<&'static str> {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    if folder.ends_with(".dist-info") {
        return match name {
            "INSTALLER" => Some("says who installed it"),
            "RECORD" => Some("lists INSTALLER and scripts, which differ"),
            "REQUESTED" => Some("would tie a wheel's bytes to who asks"),
            "uv_cache.json" => Some("says when uv saw a wheel that it did not download"),
            _ => None,
        };
    }
    if path.contains("__pycache__/") {
        return Some(
            "was made by some Python, perhaps of another version, from sources with another time",
        );
    }
    (path == ".lock").then_some("uv keeps others from its folder")
}

/// The files of an image, where `--target` puts them: packages at the top, scripts in `bin`.
fn ours(image: &PlatformImage) -> BTreeMap<String, Laid> {
    let mut files = BTreeMap::new();
    for entry in image.layers.iter().flat_map(|it| &it.entries) {
        match entry.kind {
            '0' => {}
            '5' => continue,
            other => panic!("{} is of kind {other}", entry.path),
        }
        let path = entry.path.strip_prefix(SITE);
        let path = path.or_else(|| entry.path.strip_prefix(PREFIX));
        let path = path.unwrap_or_else(|| panic!("{} lies elsewhere", entry.path));
        let laid = Laid {
            sha256: entry.sha256.clone(),
            mode: entry.mode,
        };
        let before = files.insert(path.to_owned(), laid);
        assert!(before.is_none(), "{path} is there twice");
    }
    files
}

/// The files below a folder.
fn theirs(root: &Path) -> BTreeMap<String, (PathBuf, Laid)> {
    let mut files = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let metadata = fs::symlink_metadata(&path).expect("an entry");
            if metadata.is_dir() {
                folders.push(path);
                continue;
            }
            assert!(metadata.is_file(), "{} is no file", path.display());
            let laid = Laid {
                sha256: hex(&fs::read(&path).expect("a file")),
                mode: u64::from(metadata.permissions().mode() & 0o777),
            };
            let rel = path.strip_prefix(root).expect("below the root");
            let rel = rel.to_str().expect("UTF-8").to_owned();
            files.insert(rel, (path, laid));
        }
    }
    files
}

fn hex(bytes: &[u8]) -> String {
    Digest::of(bytes).hex()
}

/// What a script must be in an image, by what another tool made of it: the same with another first line. For an entry
/// point, what imgdecl writes for the same callable.
fn script(path: &Path) -> Vec<u8> {
    let bytes = fs::read(path).expect("a script");
    let text = String::from_utf8_lossy(&bytes);
    let mut import = text.lines().filter(|it| it.starts_with("from "));
    let call = text
        .lines()
        .find_map(|it| it.trim().strip_prefix("sys.exit("));
    let is_made = text.contains("sys.argv[0]") && text.contains("if __name__ ==");
    if let (Some(import), Some(call), None, true) = (import.next(), call, import.next(), is_made) {
        return format!(
            "{INTERPRETER}import sys\n{import}\nif __name__ == '__main__':\n    sys.exit({call}\n"
        )
        .into_bytes();
    }
    let rest = bytes.iter().position(|it| *it == b'\n');
    match bytes.starts_with(b"#!") && text.lines().next().is_some_and(|it| it.contains("python")) {
        true => {
            let rest = rest.map_or(&[][..], |at| &bytes[at + 1..]);
            [INTERPRETER.as_bytes(), rest].concat()
        }
        // A program, not a script.
        false => bytes,
    }
}

/// Says where an image and a folder differ.
fn difference(image: &BTreeMap<String, Laid>, root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let theirs = theirs(root);
    for path in theirs.keys().filter(|it| excuse(it).is_none()) {
        if !image.contains_key(path) {
            found.push(format!("{path} is missing"));
        }
    }
    let mut compared = 0;
    for (path, laid) in image.iter().filter(|(path, _)| excuse(path).is_none()) {
        let Some((real, their)) = theirs.get(path) else {
            found.push(format!("{path} is too much"));
            continue;
        };
        let sha256 = match path.starts_with("bin/") {
            true => hex(&script(real)),
            false => their.sha256.clone(),
        };
        if laid.sha256 != sha256 {
            found.push(format!("{path} has other content"));
        }
        // Which bits are set otherwise is the umask's business there.
        let runs = their.mode & 0o111 != 0;
        if laid.mode != if runs { 0o755 } else { 0o644 } {
            let (ours, other) = (laid.mode, their.mode);
            found.push(format!("{path} has the mode {ours:o}, and {other:o} there"));
        }
        compared += 1;
    }
    assert!(compared > 50, "only {compared} files were compared");
    found
}

/// Whether a wheel could be one for a platform, by its name.
fn could_be_for(wheel: &str, platform: &Platform) -> bool {
    wheel.ends_with("-any.whl") || wheel.contains(platform.machine())
}

/// Builds the sets for a platform, and returns what was chosen.
fn build(space: &Space, platform: &Platform) -> BTreeMap<&'static str, Vec<Pin>> {
    let Platform { python, libc, arch } = platform;
    let mut manifest =
        format!("[defaults]\nplatforms = [\"linux/{arch}\"]\ncompression = \"zstd\"\n");
    for (name, packages) in SETS {
        let packages = packages.iter().filter(|it| is_asked(it, platform));
        let packages: Vec<&str> = packages.copied().collect();
        manifest.push_str(&format!(
            "\n[pip.{name}-deps]\npackages = {packages:?}\npython = \"{python}\"\nlibc = \"{libc}\"\n\
             exclude_newer = \"{EXCLUDE_NEWER}\"\n\n\
             [image.{name}]\nbase = \"scratch\"\nlayers = [\"{name}-deps\"]\n"
        ));
        space.write(&format!("{name}.in"), packages.join("\n") + "\n");
    }
    space.write("image.toml", manifest);
    // The cache is new, so that nothing but wheels is of an earlier run.
    seed(space.cache(), |wheel| could_be_for(wheel, platform));
    let mut command = space.command(&["build"]);
    let built = Output::of(hosted(&mut command).env("IMGDECL_CACHE_DIR", space.cache()));
    assert_eq!(built.status, 0, "{}", built.stderr);
    let lock = fs::read_to_string(space.path().join("image.lock")).expect("image.lock");
    let pinned = SETS.map(|(name, _)| (name, pins(&lock, &format!("{name}-deps"), platform)));
    keep(space.cache(), pinned.iter().flat_map(|(_, pins)| pins));
    pinned.into()
}

fn is_asked(package: &str, platform: &Platform) -> bool {
    package != NOT_ON_MUSL || platform.libc.starts_with("glibc")
}

/// Installs wheels as another tool does.
fn install(
    space: &Space,
    peers: (&PathBuf, &PathBuf),
    platform: &Platform,
    of: &Chosen,
    is_uv: bool,
) -> TempDir {
    let target = TempDir::new_in(space.path()).expect("a folder");
    let folder = wheels();
    let path = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let mut args: Vec<String> = [
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--only-binary",
        ":all:",
        "--python-version",
        &platform.python,
        "--find-links",
        &path(&folder),
        "--target",
        &path(target.path()),
    ]
    .map(str::to_owned)
    .into();
    let mut command = if is_uv {
        args.insert(0, "pip".to_owned());
        args.extend(["--python-platform".to_owned(), platform.uv()]);
        let mut command = uv(space, peers.0, peers.1, &[]);
        // Copies would be the slow part.
        command.env("UV_LINK_MODE", "hardlink");
        command
    } else {
        args.extend(["--no-compile", "--no-warn-conflicts"].map(str::to_owned));
        args.extend(
            platform
                .pip()
                .into_iter()
                .flat_map(|it| ["--platform".to_owned(), it]),
        );
        let mut command = space.program(peers.1);
        hosted(&mut command);
        command
    };
    let pins = of
        .versions
        .iter()
        .map(|(name, version)| format!("{name}=={version}"));
    let output = Output::of(command.args(args).args(pins));
    assert_eq!(output.status, 0, "{}", output.stderr);
    target
}

/// Checks the machine of shared libraries and programs: e_machine of ELF.
fn check_machine(root: &Path, platform: &Platform) {
    let wanted = match platform.arch.as_str() {
        "amd64" => 62,
        _ => 183,
    };
    let mut seen = 0;
    for (rel, (path, _)) in theirs(root) {
        if rel.ends_with(".so") {
            let bytes = fs::read(path).expect("a library");
            assert_eq!(bytes[18], wanted, "{rel} is for another machine");
            seen += 1;
        }
    }
    assert!(seen > 0, "there is no library");
}

fn compare(libc: &str, arch: &str) {
    let Some((pip, uv)) = pip_and_uv() else {
        return;
    };
    let (space, platform) = (Space::new(), Platform::new("3.11", libc, arch));
    let pinned = build(&space, &platform);
    let layout = validate(&space.path().join("imgdecl-out"));
    let mut wrong = Vec::new();
    let (mut every, mut everything) = (Chosen::default(), BTreeMap::new());
    for (name, _) in SETS {
        let chosen = chosen(&pinned[name]);
        let requirements = format!("{name}.in");
        let args = [requirements.as_str(), "--exclude-newer", EXCLUDE_NEWER];
        let uvs = compile(&space, (&uv, &pip), &platform, &args).expect("an answer of uv");
        wrong.extend(chosen.difference(&uvs).map(|it| format!("{name}: {it}")));

        let image = &layout.images[name].platforms[0];
        assert_eq!(image.platform, format!("linux/{arch}"));
        let ours = ours(image);
        let target = install(&space, (&uv, &pip), &platform, &uvs, true);
        let found = difference(&ours, target.path());
        wrong.extend(found.iter().map(|it| format!("{name}, uv: {it}")));

        // All sets have the same version of what they share, so that pip, which is slow, can install them at once.
        for (package, version) in uvs.versions {
            let before = every.versions.insert(package.clone(), version.clone());
            assert!(before.is_none_or(|it| it == version), "{package} differs");
        }
        for (path, laid) in ours {
            let before = everything.insert(path.clone(), laid.clone());
            let is_same = before.is_none_or(|it| it == laid) || excuse(&path).is_some();
            assert!(is_same, "{path} differs in {name}");
        }
    }
    let target = install(&space, (&uv, &pip), &platform, &every, false);
    let found = difference(&everything, target.path());
    wrong.extend(found.iter().map(|it| format!("pip: {it}")));
    check_machine(target.path(), &platform);
    assert!(wrong.is_empty(), "{libc} {arch}\n{}", wrong.join("\n"));
}

#[test]
fn layers_for_glibc_on_amd64_are_those_of_uv_and_pip() {
    compare("glibc 2.28", "amd64");
}

#[test]
fn layers_for_glibc_on_arm64_are_those_of_uv_and_pip() {
    compare("glibc 2.28", "arm64");
}

#[test]
fn layers_for_musl_on_amd64_are_those_of_uv_and_pip() {
    compare("musl 1.2", "amd64");
}

#[test]
fn layers_for_musl_on_arm64_are_those_of_uv_and_pip() {
    compare("musl 1.2", "arm64");
}
