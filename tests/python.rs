//! Python packages. Those from the index that this machine's pip asks are laid out as pip itself lays them out: that needs
//! pip and a network that reaches its index.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use zip::ZipWriter;
use zip::write::SimpleFileOptions;

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

fn run(space: &Space, program: &PathBuf, args: &[&str]) {
    let output = Output::of(space.program(program).args(args));
    assert_eq!(output.status, 0, "{args:?}:\n{}", output.stderr);
}

/// Writes a wheel of `hello` 1.0 whose module holds a text.
fn wheel(space: &Space, text: &str) {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let mut add = |name: &str, text: &str| {
        let name = name.replace("INFO", "hello-1.0.dist-info");
        zip.start_file(name, SimpleFileOptions::default())
            .expect("memory");
        zip.write_all(text.as_bytes()).expect("memory");
    };
    add("hello.py", text);
    add(
        "INFO/METADATA",
        "Metadata-Version: 2.1\nName: hello\nVersion: 1.0\n",
    );
    add(
        "INFO/WHEEL",
        "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    );
    add("INFO/RECORD", "hello.py,,\n");
    let bytes = zip.finish().expect("memory").into_inner();
    let path = space.path().join("wheels/hello-1.0-py3-none-any.whl");
    fs::write(path, bytes).expect("a wheel");
}

/// A wheel or a base that was replaced under its name is told where the lock must be right, and locked again elsewhere.
#[test]
fn what_was_replaced_is_locked_again() {
    let space = Space::new();
    let base = |minor: &str| {
        let text = format!(
            "[image.base]\nbase = \"scratch\"\nlayers = [{{ files = {{ text = {{ \"/usr/local/bin/python3.{minor}\" = \"x\" }} }} }}]\n"
        );
        space.write("base/image.toml", &text);
        space.ok(&["build", "./base", "--output", "oci-archive:base.tar"]);
    };
    base("11");
    fs::create_dir(space.path().join("wheels")).expect("a folder");
    wheel(&space, "one");
    space.write(
        "image.toml",
        "[base.python]\narchive = \"base.tar\"\n\n[pip.deps]\npackages = [\"hello\"]\nfind_links = [\"wheels\"]\n\n\
         [image.app]\nbase = \"python\"\nlayers = [\"deps\"]\n",
    );
    let lock = || fs::read_to_string(space.path().join("image.lock")).expect("image.lock");
    let build = || {
        let args = ["build", "image.toml", "--output", "oci:out"];
        let built = space.ok(&args);
        validate(&space.path().join("out"));
        built.stdout
    };
    let first = build();
    assert!(lock().contains("cp311\""), "{}", lock());
    space.ok(&["build", "image.toml", "--locked"]);
    let stale = |what: &str| {
        let output = space.run(&["build", "image.toml", "--locked"]);
        assert_eq!(output.status, 2, "{}", output.stderr);
        assert!(output.stderr.contains("image.lock is stale"), "{output:?}");
        assert!(output.stderr.contains(what), "{}", output.stderr);
    };

    wheel(&space, "two");
    stale("`deps` was resolved from wheels/hello-1.0-py3-none-any.whl sha256:");
    let before = lock();
    let second = build();
    assert_ne!(first, second);
    assert_ne!(before, lock());
    space.ok(&["build", "image.toml", "--locked"]);

    base("12");
    stale("`python` was resolved from the archive sha256:");
    let third = build();
    assert_ne!(second, third);
    assert!(
        lock().contains("cp312\"") && !lock().contains("cp311\""),
        "{}",
        lock()
    );
    space.ok(&["build", "image.toml", "--locked"]);
    // What nobody needs any more goes.
    space.write(
        "image.toml",
        "[base.python]\narchive = \"base.tar\"\n\n[image.app]\nbase = \"python\"\n",
    );
    space.ok(&["lock"]);
    assert!(!lock().contains("[base"), "{}", lock());
}

/// Targets that do not go together are locked all the same, so that one of them can be mended.
#[test]
fn versions_that_exclude_each_other_are_told_by_lock() {
    let space = Space::new();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/bad-pip-two-versions");
    space.copy(&golden);
    let locked = space.run(&["lock"]);
    assert_eq!(locked.status, 2, "{}", locked.stderr);
    assert!(locked.stdout.contains("+ hello-0.9-"), "{}", locked.stdout);
    assert!(
        locked.stderr.contains("hello 0.9 and 1.0"),
        "{}",
        locked.stderr
    );
    let before = fs::read_to_string(space.path().join("image.lock")).expect("image.lock");

    assert_eq!(space.run(&["lock", "--update", "new"]).status, 2);
    let manifest = fs::read_to_string(space.path().join("image.toml")).expect("image.toml");
    space.write("image.toml", manifest.replace("hello<1", "hello>=1"));
    let mended = space.ok(&["lock"]);
    assert!(mended.stdout.contains("- hello-0.9-"), "{}", mended.stdout);
    let after = fs::read_to_string(space.path().join("image.lock")).expect("image.lock");
    assert_ne!(before, after);
    space.ok(&["build", "--locked"]);
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
