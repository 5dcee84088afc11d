//! The bytes of layers depend on the wheels and on nothing else: not on where the wheels come from, nor on what the cache
//! holds, nor on the machine.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use super::kit::index_variables;
use crate::support::index::{Beside, Index, Shape, Wheel};
use crate::support::wheel::Recipe;
use crate::support::{BINARY, Output, Space, peer, validate};

/// The wheels of the tests: for two platforms, and for any; with commands, and files that are packed well and badly.
fn wheels() -> Vec<(&'static str, Wheel)> {
    let noise = crate::support::Random(11).bytes(200_000);
    let mut wheels = vec![
        (
            "alpha",
            Recipe::new("alpha", "1.2")
                .requires("beta.core>=2")
                .requires("gamma; python_version >= '3.9'")
                .script("alpha", "alpha:main")
                .file("alpha/data/text", "line\n".repeat(40_000))
                .make(),
        ),
        (
            "beta-core",
            Recipe::new("beta.core", "2.0")
                .file("beta_core/noise", noise)
                .make(),
        ),
        ("beta-core", Recipe::new("beta.core", "1.9").make()),
    ];
    for machine in ["x86_64", "aarch64"] {
        let tag = format!("cp311-cp311-manylinux_2_17_{machine}.manylinux2014_{machine}");
        let recipe = Recipe::new("gamma", "0.1").tag(&tag);
        let lib = format!("{machine} ").repeat(30_000);
        wheels.push(("gamma", recipe.file("gamma/_lib.so", lib).make()));
    }
    wheels
}

const MANIFEST: &str = r#"
[pip.deps]
packages = ["alpha"]
python   = "3.11"
libc     = "glibc 2.36"
split    = "package"

[image.app]
base      = "scratch"
layers    = ["deps"]
platforms = ["linux/amd64", "linux/arm64"]
"#;

/// What an image is: the digest that a build prints, and the names of all blobs.
fn built(space: &Space, output: &Output) -> (String, BTreeSet<String>) {
    assert_eq!(output.status, 0, "{}", output.stderr);
    let (_, digest) = output.stdout.trim().split_once('@').expect("a digest");
    let layout = space.path().join("imgdecl-out");
    validate(&layout);
    let blobs = fs::read_dir(layout.join("blobs/sha256")).expect("blobs");
    let names = blobs.map(|it| it.expect("a blob").file_name().into_string());
    let names = names.map(|it| it.expect("a digest")).collect();
    fs::remove_dir_all(&layout).expect("a layout");
    (digest.to_owned(), names)
}

fn forget(space: &Space) {
    fs::remove_dir_all(space.cache()).expect("a cache");
}

/// A command as another machine would run it: another umask, time zone, language and home, and no program on PATH.
fn elsewhere(space: &Space, args: &[&str]) -> Command {
    let home = space.path().join("elsewhere/home");
    let nothing = space.path().join("elsewhere/bin");
    fs::create_dir_all(&home).expect("folders");
    fs::create_dir_all(&nothing).expect("folders");
    let mut command = space.program("/bin/sh");
    command.args(["-c", "umask 077; exec \"$0\" \"$@\"", BINARY]);
    command.args(args).env("PATH", nothing).env("HOME", home);
    command.env("TZ", "Pacific/Kiritimati").env("LC_ALL", "C");
    command.env("USER", "somebody").env("PYTHONHASHSEED", "7");
    command
}

#[test]
fn wheels_make_the_same_layers_wherever_they_come_from() {
    let all = wheels();
    let pairs: Vec<(&str, &Wheel)> = all.iter().map(|(name, wheel)| (*name, wheel)).collect();
    let html = Shape {
        is_json: false,
        has_etag: false,
        has_ranges: false,
        beside: Beside::None,
        ..Shape::default()
    };
    let indexes = [Shape::default(), html].map(|shape| Index::start(shape, &pairs));
    let mut seen = Vec::new();
    let mut locks = BTreeSet::new();
    for index in [Some(&indexes[0]), Some(&indexes[1]), None] {
        let space = Space::new();
        let url = index.map(Index::url);
        let mut args = vec!["build"];
        match &url {
            Some(url) => {
                space.write("image.toml", MANIFEST);
                args.extend(["--index-url", url]);
            }
            None => {
                let links = "[pip.deps]\nfind_links = [\"wheels\"]";
                space.write("image.toml", MANIFEST.replace("[pip.deps]", links));
                for (_, wheel) in &all {
                    space.write(&format!("wheels/{}", wheel.file), &wheel.bytes);
                }
            }
        }
        let lock = || fs::read_to_string(space.path().join("image.lock")).expect("image.lock");
        // Nothing is known; then all; then the lock is lost, or the cache.
        seen.push(built(&space, &space.run(&args)));
        let first = lock();
        seen.push(built(&space, &space.run(&args)));
        fs::remove_file(space.path().join("image.lock")).expect("a lock");
        seen.push(built(&space, &space.run(&args)));
        assert_eq!(lock(), first);
        forget(&space);
        args.push("--locked");
        seen.push(built(&space, &space.run(&args)));
        // Another machine.
        forget(&space);
        seen.push(built(&space, &Output::of(&mut elsewhere(&space, &args))));
        args.pop();
        forget(&space);
        fs::remove_file(space.path().join("image.lock")).expect("a lock");
        args.extend(["--jobs", "1"]);
        seen.push(built(&space, &Output::of(&mut elsewhere(&space, &args))));
        assert_eq!(lock(), first);
        let is_wheel = |line: &&str| line.contains(".whl");
        // Name, digest and size; where a folder has it is said behind.
        let parts = |line: &str| line.split(' ').take(4).collect::<Vec<_>>().join(" ");
        let wheels = first.lines().filter(is_wheel).map(parts);
        let wheels = wheels.map(|line| line.trim_end_matches('"').to_owned());
        locks.insert(wheels.collect::<Vec<_>>().join("\n"));
    }
    assert_eq!(seen.len(), 18);
    for (number, one) in seen.iter().enumerate() {
        assert_eq!(*one, seen[0], "build {number}");
    }
    // The locks hold the same wheels, too.
    assert_eq!(locks.len(), 1, "{locks:?}");
    // Three packages of two platforms, two of them for both: a manifest and a config each, and the index.
    assert!(seen[0].1.len() >= 2 + 2 + 1 + 4, "{:?}", seen[0]);
}

/// Asks the host's pip which index it takes packages from.
fn index_of_pip() -> Option<String> {
    let python = peer("python3")?;
    let script = "from pip._internal.commands import create_command as c; \
                  print(c('install').parse_args(['x'])[0].index_url)";
    let output = Output::of(Command::new(python).args(["-c", script]));
    let url = output.stdout.trim().to_owned();
    if output.status != 0 || url.is_empty() {
        crate::support::absent("a python3 with pip");
        return None;
    }
    Some(url)
}

#[test]
fn real_packages_make_the_same_layers_on_another_machine() {
    let Some(url) = index_of_pip() else {
        return;
    };
    let manifest = MANIFEST.replace(
        "[\"alpha\"]",
        "[\"fastapi\", \"uvicorn\", \"boto3\", \"pydantic\"]",
    );
    let space = Space::new();
    space.write("image.toml", &manifest);
    let cold = Output::of(space.command(&["build"]).envs(index_variables()));
    let cold = built(&space, &cold);
    let warm = built(&space, &space.run(&["build", "--locked", "--offline"]));
    assert_eq!(warm, cold);

    let other = Space::new();
    other.write("image.toml", &manifest);
    let lock = "image.lock";
    fs::copy(space.path().join(lock), other.path().join(lock)).expect("a copy");
    let mut command = elsewhere(&other, &["build", "--locked", "--index-url", &url]);
    let there = built(&other, &Output::of(&mut command));
    assert_eq!(there, cold);
}
