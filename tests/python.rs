//! Python packages with other tools. From the index that this machine's pip asks: what is laid out, against what pip itself
//! lays out; that needs pip and a network that reaches its index. And what `lock --export` writes, with uv.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::index::{self, Index};
use crate::support::{Output, Space, peer, validate};

/// Lists the files below a folder, by relative path, with their content.
fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let rel = path.strip_prefix(root).expect("below the root");
            let rel = rel.to_str().expect("UTF-8").to_owned();
            found.insert(rel, fs::read(&path).expect("a file"));
        }
    }
    found
}

/// Tells whether a file is one in which pip and imgdecl differ on purpose.
fn differs(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    let in_info = path.contains(".dist-info/");
    // Who installed it, and a list that names that file; whether the user asked for it, which would tie a wheel's bytes
    // to who asks; and scripts, which pip puts elsewhere, with the host's interpreter in their first line.
    (in_info && ["RECORD", "INSTALLER", "REQUESTED"].contains(&name)) || path.starts_with("bin/")
}

/// A work folder of the golden case `lock-export` with its index, and the lock of its packages as pylock.toml.
fn exported() -> (Space, Index) {
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/lock-export");
    let space = Space::new();
    space.copy(&case);
    let index = index::Data::start(&case.join("index.json"));
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
    let Some(uv) = peer("uv") else {
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

fn run(space: &Space, program: &PathBuf, args: &[&str]) {
    let output = Output::of(space.program(program).args(args));
    assert_eq!(output.status, 0, "{args:?}:\n{}", output.stderr);
}

#[test]
fn packages_are_laid_out_as_pip_does() {
    let (Some(pip), Some(umoci)) = (peer("pip"), peer("umoci")) else {
        return;
    };
    let space = Space::new();
    space.write("requirements.txt", "flask\nrequests\ngunicorn\npydantic\n");
    space.write(
        "image.toml",
        "[pip.deps]\nrequirements = [\"requirements.txt\"]\npython = \"3.11\"\nlibc = \"glibc 2.17\"\n\n\
         [image.app]\nbase = \"scratch\"\nlayers = [\"deps\"]\nplatforms = [\"linux/amd64\", \"linux/arm64\"]\n",
    );
    // Without pip's own variables there would be no index on some machines.
    let built = Output::of(space.command(&["build"]).envs(
        std::env::vars().filter(|(name, _)| name.starts_with("PIP_") || name.starts_with("UV_")),
    ));
    assert_eq!(built.status, 0, "{}", built.stderr);
    validate(&space.path().join("imgdecl-out"));
    let lock = fs::read_to_string(space.path().join("image.lock")).expect("image.lock");
    for (machine, arch, other) in [
        ("x86_64", "amd64", "aarch64"),
        ("aarch64", "arm64", "x86_64"),
    ] {
        let head = format!("[pip.deps.target.\"linux-{machine}-glibc2.17-cp311\"]");
        let part = lock.split(&head).nth(1).expect("wheels of the platform");
        let part = part.split("\n[").next().unwrap_or_default();
        assert!(!part.contains(other), "{part}");
        let wheels = part.lines().filter_map(|line| line.split('"').nth(1));
        let pins: Vec<String> = wheels
            .map(|file| {
                let mut parts = file.split('-');
                let (name, version) = (parts.next(), parts.next());
                format!("{}=={}", name.expect("a name"), version.expect("a version"))
            })
            .collect();
        assert!(pins.len() > 10, "{pins:?}");

        let target = format!("pip-{arch}");
        let platform = format!("manylinux2014_{machine}");
        let mut args = vec![
            "install",
            "--quiet",
            "--no-deps",
            "--no-compile",
            "--target",
            &target,
        ];
        args.extend(["--platform", &platform, "--python-version", "3.11"]);
        args.extend(["--only-binary=:all:", "--disable-pip-version-check"]);
        args.extend(pins.iter().map(String::as_str));
        let output = Output::of(
            space
                .program(&pip)
                .args(&args)
                .envs(std::env::vars().filter(|(name, _)| name.starts_with("PIP_"))),
        );
        assert_eq!(output.status, 0, "{}", output.stderr);

        // umoci takes the image of one platform: a layout with that alone.
        let layout = format!("oci:{arch}");
        let platform = format!("linux/{arch}");
        let built = space.ok(&["build", "--platform", &platform, "--output", &layout]);
        assert!(built.stdout.starts_with("app "), "{}", built.stdout);
        let (image, bundle) = (format!("{arch}:app"), format!("bundle-{arch}"));
        run(&space, &umoci, &["unpack", "--image", &image, &bundle]);
        let root = space.path().join(&bundle).join("rootfs/usr/local");

        let ours = files(&root.join("lib/python3.11/site-packages"));
        let theirs = files(&space.path().join(&target));
        let names = |all: &BTreeMap<String, Vec<u8>>| -> Vec<String> {
            all.keys().filter(|it| !differs(it)).cloned().collect()
        };
        assert_eq!(names(&ours), names(&theirs), "{arch}");
        for (path, content) in ours.iter().filter(|(path, _)| !differs(path)) {
            // Not assert_eq: it would print both.
            assert!(*content == theirs[path], "{path} differs on {arch}");
        }
        for (path, content) in &ours {
            if path.ends_with(".so") {
                // e_machine of ELF: 62 is x86-64, 183 is aarch64.
                let machine = if arch == "amd64" { 62 } else { 183 };
                assert_eq!(content[18], machine, "{path}");
            }
        }
        for script in ["flask", "gunicorn"] {
            let text = fs::read_to_string(root.join("bin").join(script)).expect(script);
            assert!(text.starts_with("#!/usr/local/bin/python3.11\n"), "{text}");
        }
    }
}
