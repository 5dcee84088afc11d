//! What `lock --export` writes: taken again by imgdecl, and by uv.

use std::fs;
use std::path::Path;

use crate::support::index::{self, Index};
use crate::support::{Output, Space, pip_and_uv};

/// A work folder of the golden case `lock/export` with its index, and the lock of its packages as pylock.toml.
fn exported() -> (Space, Index) {
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/lock/export");
    let space = Space::new();
    space.copy(&case);
    let (index, _) = index::Data::start(&case.join("index.json"), &case);
    let mut lock = space.command(&["lock", "--export", "pylock"]);
    let output = Output::of(lock.env("UV_DEFAULT_INDEX", index.url()));
    assert_eq!(output.status, 0, "{}", output.stderr);
    assert!(
        output.stdout.ends_with("pylock.toml: written\n"),
        "{}",
        output.stdout
    );
    (space, index)
}

#[test]
fn what_is_exported_is_installed_again() {
    let (space, index) = exported();
    let build = |space: &Space| {
        let mut build = space.command(&["build"]);
        let output = Output::of(build.env("UV_DEFAULT_INDEX", index.url()));
        assert_eq!(output.status, 0, "{}", output.stderr);
        output.stdout
    };
    let other = Space::new();
    other.copy(&space.path().join("wheels/.."));
    fs::remove_file(other.path().join("image.lock")).expect("image.lock");
    let manifest = fs::read_to_string(space.path().join("image.toml")).expect("image.toml");
    let (head, rest) = manifest.split_once("packages ").expect("packages");
    let rest = rest.split_once('\n').expect("lines").1;
    other.write(
        "image.toml",
        format!("{head}pylock = \"pylock.toml\"\n{rest}"),
    );
    // Of one bytes: also what is only for one of the platforms, and what lies in a folder.
    assert_eq!(build(&space), build(&other));
    let lock = |space: &Space| {
        let text = fs::read_to_string(space.path().join("image.lock")).expect("image.lock");
        let wheels = text.lines().filter(|line| line.contains(".whl"));
        wheels
            .filter_map(|line| Some(line.split_once("sha256:")?.1.get(..64)?.to_owned()))
            .collect::<Vec<_>>()
    };
    assert_eq!(lock(&space).len(), 7);
    assert_eq!(lock(&space), lock(&other));
}

#[test]
fn uv_installs_what_is_exported() {
    let Some((_, uv)) = pip_and_uv() else {
        return;
    };
    let (space, _index) = exported();
    for (platform, arch, with_old) in [("x86_64", "x86", false), ("aarch64", "arm", true)] {
        let platform = format!("{platform}-manylinux_2_28");
        let install = |python: &str| {
            let mut command = space.program(&uv);
            command.args(["pip", "install", "--preview", "--no-config", "--quiet"]);
            command.args(["--python-platform", &platform, "--python-version", python]);
            command.args(["--target", arch, "-r", "pylock.toml"]);
            Output::of(&mut command)
        };
        let output = install("3.11");
        assert_eq!(output.status, 0, "{}", output.stderr);
        let folder = space.path().join(arch);
        let native = fs::read_to_string(folder.join("native.py")).expect("native.py");
        assert_eq!(native.trim(), arch);
        assert_eq!(folder.join("old.py").exists(), with_old);
        assert!(folder.join("helper.py").exists() && folder.join("web.py").exists());
        // It is for no other Python.
        let output = install("3.12");
        assert_ne!(output.status, 0);
        assert!(output.stderr.contains("not supported"), "{}", output.stderr);
    }
}
