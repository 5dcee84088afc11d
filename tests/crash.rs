//! What may go wrong at any moment: kills, signals, equal builds at once, files that change, full and read-only disks,
//! damaged caches. A build may fail then, and say why; it never leaves wrong bytes, and the next one is right.
//!
//! Delays and damage come from a generator with a fixed seed, scaled by how long a build takes here.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::support::{BINARY, Output, Random, Space, absent, peer, validate};

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// What the manifest of [`project`] is: a base, a tar, trees of files, two images, one of them for two platforms.
const MANIFEST: &str = r#"
[vars]
version = "new"

[base.below]
layout = "below-layout"

[tar.tools]
src  = "tools.tar"
dest = "/opt/tools"

[files.app]
src  = "app"
dest = "/app"
mode = "0755"

[files.data]
src  = "data-${version}"
dest = "/srv/data"

[image.web]
base       = "below"
layers     = ["tools", "app", "data"]
platforms  = ["linux/amd64", "linux/arm64"]
entrypoint = ["/app/run"]

[image.api]
base   = "scratch"
layers = ["app"]
cmd    = ["/app/run"]
"#;

const BELOW: &str = r#"
[files.system]
src  = "system"
dest = "/usr"
dirs = { "/tmp" = "1777" }

[image.below]
base        = "scratch"
layers      = ["system"]
platforms   = ["linux/amd64", "linux/arm64"]
compression = "none"
"#;

/// Makes a manifest and its inputs. `size` is about how many bytes each of its layers has.
pub(crate) fn project(size: usize) -> Space {
    let space = Space::new();
    let mut rng = Random(7);
    space.write("image.toml", MANIFEST);
    space.write("below/image.toml", BELOW);
    for (folder, files) in [
        ("app", 40),
        ("data-old", 3),
        ("data-new", 4),
        ("below/system", 9),
    ] {
        for number in 0..files {
            let bytes = rng.bytes(size / files);
            space.write(&format!("{folder}/{}/{number}.dat", number % 3), bytes);
        }
    }
    // The base comes from elsewhere: its cache has nothing for the builds under test.
    let args = ["build", "below/", "--output", "oci:below-layout"];
    let elsewhere = space.path().join("elsewhere");
    let made = Output::of(space.command(&args).env("IMGDECL_CACHE_DIR", &elsewhere));
    assert_eq!(made.status, 0, "{}", made.stderr);
    remove(&elsewhere);
    // An uncompressed layer is a tar, and the largest blob.
    let blobs = files(&space.path().join("below-layout/blobs"));
    let largest = blobs.iter().max_by_key(|path| length(path)).expect("blobs");
    fs::copy(largest, space.path().join("tools.tar")).expect("a tar");
    space
}

pub(crate) fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// All files below a folder, sorted; none if it is not there.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type().expect("a type").is_dir() {
            true => found.extend(files(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found.sort();
    found
}

pub(crate) fn remove(folder: &Path) {
    if folder.exists() {
        fs::remove_dir_all(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    }
}

const BUILD: [&str; 5] = ["build", "--jobs", "2", "--progress", "none"];

fn build<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&BUILD[..], more].concat()
}

/// Follows a layout from its index, if it has one: every blob on the way must be there, whole.
fn whole(layout: &Path) {
    let index = layout.join("index.json");
    if !index.exists() {
        return;
    }
    let text = fs::read(&index).expect("an index");
    let value: Value = serde_json::from_slice(&text)
        .unwrap_or_else(|error| panic!("{} is cut off: {error}", index.display()));
    let mut todo = vec![value];
    while let Some(document) = todo.pop() {
        let manifests = document["manifests"].as_array().into_iter().flatten();
        let layers = document["layers"].as_array().into_iter().flatten();
        for descriptor in manifests.chain(layers).chain(document.get("config")) {
            let Some(digest) = descriptor["digest"].as_str() else {
                continue; // the `config` of an image config
            };
            let name = digest.strip_prefix("sha256:").expect("sha256");
            let path = layout.join("blobs/sha256").join(name);
            let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{digest}: {error}"));
            assert_eq!(hex(&bytes), name, "the output has a damaged blob");
            let media_type = descriptor["mediaType"].as_str().unwrap_or_default();
            if media_type.contains("index") || media_type.contains("manifest") {
                todo.push(serde_json::from_slice(&bytes).expect("a document"));
            }
        }
    }
}

fn verify(space: &Space) {
    let verified = space.run(&["cache", "verify"]);
    assert_eq!(verified.status, 0, "{}{}", verified.stdout, verified.stderr);
}

/// Asserts that builds left nothing in the cache's folder for temporary files.
fn no_leftovers(cache: &Path) {
    let left: Vec<PathBuf> = fs::read_dir(cache.join("tmp-v1"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

/// Ends a process after a while, as the kernel does when memory is short.
fn kill_after(mut child: Child, delay: Duration) {
    thread::sleep(delay);
    let _ = child.kill();
    let _ = child.wait();
}

fn quiet(mut command: Command) -> Child {
    let command = command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("the binary runs")
}

#[test]
fn killed_builds_leave_nothing_wrong() {
    let space = project(600 << 10);
    let out = space.path().join("imgdecl-out");
    let archive = space.path().join("out.tar");
    let args = build(&[
        "--output",
        "oci:imgdecl-out",
        "--output",
        "oci-archive:out.tar",
    ]);
    let start = Instant::now();
    let right = space.ok(&args).stdout;
    let full = start.elapsed();
    let mut rng = Random(1);
    for _ in 0..25 {
        remove(space.cache());
        remove(&out);
        let _ = fs::remove_file(&archive);
        let delay = full.mul_f64(rng.below(1000) as f64 / 1000.0);
        kill_after(quiet(space.command(&args)), delay);
        whole(&out);
        assert_eq!(space.ok(&args).stdout, right, "after a kill at {delay:?}");
        validate(&out);
        validate(&archive);
        assert!(!space.path().join(".out.tar.partial").exists());
        verify(&space);
        no_leftovers(space.cache());
    }
}

#[test]
fn killed_builds_keep_the_older_output() {
    let space = project(600 << 10);
    let out = space.path().join("imgdecl-out");
    let args = [
        build(&["--set", "version=old"]),
        build(&["--set", "version=new"]),
    ];
    let mut right = Vec::new();
    let mut full = Duration::ZERO;
    for args in &args {
        remove(space.cache());
        let start = Instant::now();
        right.push(space.ok(args).stdout);
        full = start.elapsed();
    }
    assert_ne!(right[0], right[1]);
    let mut rng = Random(2);
    for round in 0..25 {
        // Every other time the cache is warm for all but the output, so that kills fall into the writing of it.
        let version = round % 2;
        let mut span = full;
        if round % 3 == 0 {
            let elsewhere = build(&[
                "--set",
                ["version=old", "version=new"][version],
                "--output",
                "oci:elsewhere",
            ]);
            space.ok(&elsewhere);
            remove(&space.path().join("elsewhere"));
            span = full / 3;
        } else {
            remove(space.cache());
        }
        let delay = span.mul_f64(rng.below(1000) as f64 / 1000.0);
        kill_after(quiet(space.command(&args[version])), delay);
        whole(&out);
        let again = space.ok(&args[version]).stdout;
        assert_eq!(again, right[version], "after a kill at {delay:?}");
        validate(&out);
        verify(&space);
        no_leftovers(space.cache());
    }
}

/// The events of a build that ran with `--progress json`.
fn events(stderr: &str) -> Vec<Value> {
    let parse = |line: &str| {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("`{line}` is no event: {error}"))
    };
    stderr.lines().map(parse).collect()
}

#[test]
fn equal_builds_at_once_run_each_action_once() {
    let space = project(1 << 20);
    let progress = |output: &str| {
        let output = format!("oci:{output}");
        let mut command =
            space.command(&["build", "--jobs", "2", "--progress", "json", "--output"]);
        command
            .arg(output)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    };
    for count in [2, 4] {
        remove(space.cache());
        let children: Vec<Child> = (0..count)
            .map(|number| progress(&format!("out-{number}")).spawn().expect("it runs"))
            .collect();
        let mut built: BTreeMap<String, u32> = BTreeMap::new();
        let mut answers = Vec::new();
        for (number, child) in children.into_iter().enumerate() {
            let output = child.wait_with_output().expect("it ends");
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{stderr}");
            answers.push(output.stdout);
            validate(&space.path().join(format!("out-{number}")));
            for event in events(&stderr) {
                let word = |key: &str| event[key].as_str().unwrap_or("-").to_owned();
                if word("event") != "done" || word("outcome") == "seen" {
                    continue;
                }
                // Layers and archives are the same for all platforms.
                let platform = match word("action").as_str() {
                    "layer" | "tar" => String::new(),
                    _ => word("platform"),
                };
                let name = [word("action"), word("target"), platform].join(" ");
                *built.entry(name).or_default() += u32::from(word("outcome") == "built");
                assert!(["built", "hit"].contains(&&*word("outcome")), "{event}");
            }
        }
        assert!(answers.windows(2).all(|pair| pair[0] == pair[1]));
        let once: Vec<_> = built.iter().filter(|(_, times)| **times != 1).collect();
        assert!(
            once.is_empty(),
            "of {count} processes, not built once: {once:?}"
        );
        assert_eq!(built.len(), 10, "{built:?}");
        verify(&space);
        no_leftovers(space.cache());
    }
}

#[test]
fn builds_at_once_into_one_archive_leave_a_whole_one() {
    let space = project(1 << 20);
    let archive = space.path().join("app.tar");
    let args = [&BUILD[..], &["--output", "oci-archive:app.tar"]].concat();
    let right = space.ok(&args).stdout;
    let first = fs::read(&archive).expect("an archive");
    for round in 0..8 {
        // Over an archive that is there, and where there is none.
        if round % 2 == 0 {
            fs::remove_file(&archive).expect("an archive");
        }
        let builds = [0; 4].map(|_| quiet(space.command(&args)));
        for mut child in builds {
            assert!(child.wait().expect("it ends").success());
        }
        assert!(fs::read(&archive).expect("an archive") == first);
        assert!(!space.path().join(".app.tar.partial").exists());
    }
    assert_eq!(space.ok(&args).stdout, right);
    validate(&archive);
}

#[test]
fn outputs_never_go_through_links() {
    let space = project(1 << 10);
    let victim = space.write("victim", "precious");
    std::os::unix::fs::symlink(&victim, space.path().join(".app.tar.partial")).expect("a link");
    let args = [&BUILD[..], &["--output", "oci-archive:app.tar"]].concat();
    assert_eq!(space.run(&args).status, 2);
    assert_eq!(fs::read_to_string(&victim).expect("a file"), "precious");

    // A layout whose blobs lie in another layout.
    space.ok(&[&BUILD[..], &["--output", "oci:one"]].concat());
    let two = space.path().join("two");
    fs::create_dir(&two).expect("a folder");
    for name in ["index.json", "oci-layout"] {
        fs::copy(space.path().join("one").join(name), two.join(name)).expect("a copy");
    }
    std::os::unix::fs::symlink("../one/blobs", two.join("blobs")).expect("a link");
    let into_two = [&BUILD[..], &["api", "--output", "oci:two"]].concat();
    assert_eq!(space.run(&into_two).status, 2);
    validate(&space.path().join("one"));
}

#[test]
fn what_a_build_writes_is_no_input() {
    let space = Space::new();
    space.write("file", "hello");
    space.write(
        "image.toml",
        "[image.web]\nbase = \"scratch\"\nlayers = [{ files = { src = \".\", dest = \"/srv\" } }]\n",
    );
    let args = [&BUILD[..], &["--metadata-file", "meta.json"]].concat();
    let build = |args: &[&str]| {
        let mut command = space.command(args);
        Output::of(command.env("IMGDECL_CACHE_DIR", "cache"))
    };
    let first = build(&args);
    assert_eq!(first.status, 0, "{}", first.stderr);
    for _ in 0..2 {
        assert_eq!(build(&args).stdout, first.stdout);
    }
    // The metadata overwrites nothing but metadata.
    for path in [
        "image.toml",
        "file",
        "imgdecl-out/index.json",
        "imgdecl-out/new.json",
    ] {
        let output = build(&[&BUILD[..], &["--metadata-file", path]].concat());
        assert_eq!(output.status, 2, "{path}: {}", output.stderr);
    }
    assert_eq!(
        fs::read_to_string(space.path().join("file")).expect("a file"),
        "hello"
    );
}

#[test]
fn builds_at_once_into_one_output_all_arrive() {
    let space = project(1 << 18);
    let out = space.path().join("imgdecl-out");
    let right = space.ok(&BUILD).stdout;
    for _ in 0..6 {
        remove(space.cache());
        remove(&out);
        let builds = [vec!["api"], vec!["web"], vec![]]
            .map(|targets| quiet(space.command(&build(&targets))));
        for mut child in builds {
            assert!(child.wait().expect("it ends").success());
        }
        let images = validate(&out).images;
        assert_eq!(images.keys().collect::<Vec<_>>(), ["api", "web"]);
        assert_eq!(space.ok(&BUILD).stdout, right);
    }
}

const ONE_FILE: &str = r#"
[files.data]
src  = "data"
dest = "/data"

[image.web]
base   = "scratch"
layers = ["data"]
"#;

/// The digest of the only file of the image, without `sha256:`.
fn content(layout: &Path) -> String {
    let layout = validate(layout);
    let layer = &layout.images["web"].platforms[0].layers[0];
    let files: Vec<_> = layer.entries.iter().filter(|it| it.kind == '0').collect();
    assert_eq!(files.len(), 1);
    files[0].sha256.clone()
}

#[test]
fn a_file_that_changes_meanwhile_is_never_mixed() {
    // One that goes into the layer as one piece, and two that go in slices.
    for size in [300 << 10, 1100 << 10, 5 << 20] {
        let space = Space::new();
        space.write("image.toml", ONE_FILE);
        let out = space.path().join("imgdecl-out");
        let versions: Vec<Vec<u8>> = (0..8_u8).map(|byte| vec![b'a' + byte; size]).collect();
        let digests: Vec<String> = versions.iter().map(|version| hex(version)).collect();
        let file = space.write("data/file", &versions[0]);
        let start = Instant::now();
        space.ok(&BUILD);
        // Pauses between two versions: some long enough for a build, some shorter than a tick of the clock that stamps
        // files.
        let pause = 2 * start.elapsed().as_micros() as u64;
        let done = AtomicBool::new(false);
        let mut outcomes = [0, 0];
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut rng = Random(3);
                let mut next = || rng.below(pause);
                for version in versions.iter().cycle() {
                    // In place: a reader may see any mixture of two versions.
                    let mut file = File::options().write(true).open(&file).expect("the file");
                    std::io::Write::write_all(&mut file, version).expect("written");
                    thread::sleep(Duration::from_micros(next()));
                    if done.load(Ordering::Relaxed) {
                        return;
                    }
                }
            });
            let end = Instant::now() + Duration::from_secs(3);
            // A panic here must not leave the writer running.
            let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                let late = end + Duration::from_secs(20);
                while Instant::now() < end || (outcomes[0] == 0 && Instant::now() < late) {
                    // A layer that is recorded would not be written again.
                    remove(&space.cache().join("records-v2"));
                    let built = space.run(&BUILD);
                    if built.status == 0 {
                        let found = content(&out);
                        assert!(digests.contains(&found), "a mixture of two versions");
                        outcomes[0] += 1;
                    } else {
                        assert_eq!(built.status, 1, "{}", built.stderr);
                        assert!(
                            built.stderr.contains("changed while it was read"),
                            "{}",
                            built.stderr
                        );
                        outcomes[1] += 1;
                    }
                    no_leftovers(space.cache());
                }
            }));
            done.store(true, Ordering::Relaxed);
            checked.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        });
        eprintln!(
            "{size} bytes: {} builds succeeded, {} failed",
            outcomes[0], outcomes[1]
        );
        assert!(outcomes[0] > 0, "no build got through");
        space.ok(&BUILD);
        assert_eq!(content(&out), hex(&fs::read(&file).expect("the file")));
        verify(&space);
    }
}

#[test]
fn a_warm_build_reads_nothing_and_misses_nothing() {
    let space = project(1 << 18);
    let inputs: Vec<PathBuf> = ["app", "data-new"]
        .iter()
        .flat_map(|it| files(&space.path().join(it)))
        .collect();
    let old = SystemTime::now() - Duration::from_secs(1000);
    let date = |path: &Path| {
        let file = File::options().write(true).open(path).expect("an input");
        file.set_modified(old).expect("its time");
    };
    inputs.iter().for_each(|path| date(path));
    // Files whose attributes changed less than two seconds ago are not trusted.
    thread::sleep(Duration::from_millis(2100));
    let args = ["build", "--progress", "json"];
    let right = space.ok(&BUILD).stdout;
    let warm = space.ok(&args);
    assert_eq!(warm.stdout, right);
    let events = events(&warm.stderr);
    let summary = events.last().expect("a summary");
    assert_eq!(summary["event"], "summary");
    let counts = ["built", "failed", "skipped", "bytes"].map(|name| summary[name].as_u64());
    assert_eq!(counts, [Some(0); 4], "{summary}");
    assert!(summary["hit"].as_u64() >= Some(10), "{summary}");

    // The same size and the same modification time: the kernel's own time of the change tells.
    let path = &inputs[0];
    let mut bytes = fs::read(path).expect("an input");
    bytes[17] ^= 1;
    fs::write(path, bytes).expect("an input");
    date(path);
    let noticed = space.ok(&BUILD).stdout;
    assert_ne!(noticed, right, "the change was not noticed");
    remove(space.cache());
    assert_eq!(space.ok(&BUILD).stdout, noticed);
}

/// Runs a script as root of a mount namespace of its own; `None` if this may not be done here.
pub(crate) fn with_mounts(space: &Space, script: &str) -> Option<Output> {
    let unshare = peer("unshare")?;
    fs::create_dir_all(space.path().join("mnt")).expect("a folder");
    let run = |script: &str| {
        let mut command = space.program(&unshare);
        command.args(["-m", "--propagation", "private", "sh", "-eu", "-c", script]);
        Output::of(command.env("IMGDECL", BINARY))
    };
    if run("mount -t tmpfs none mnt").status != 0 {
        absent("the right to mount a tmpfs");
        return None;
    }
    let output = run(script);
    assert_eq!(output.status, 0, "{}\n{}", output.stdout, output.stderr);
    Some(output)
}

#[test]
fn a_full_cache_is_an_error_and_no_damage() {
    let space = project(2 << 20);
    let right = space.ok(&BUILD).stdout;
    let script = r#"
        mount -t tmpfs -o size=2m none mnt
        export IMGDECL_CACHE_DIR="$PWD/mnt/cache"
        code=0; "$IMGDECL" build --progress none --output oci:one 2> errors || code=$?
        echo "exit $code"
        find mnt/cache/tmp-v1 -mindepth 1
        mount -o remount,size=64m mnt
        "$IMGDECL" build --progress none --output oci:two
        "$IMGDECL" cache verify > verified
        find mnt/cache/tmp-v1 -mindepth 1
    "#;
    let Some(output) = with_mounts(&space, script) else {
        return;
    };
    assert_eq!(output.stdout, format!("exit 1\n{right}"));
    let errors = fs::read_to_string(space.path().join("errors")).expect("errors");
    assert!(errors.contains("No space left on device"), "{errors}");
    assert!(
        errors.contains("free space, or name another folder with IMGDECL_CACHE_DIR"),
        "{errors}"
    );
    validate(&space.path().join("two"));
}

#[test]
fn a_full_output_keeps_what_was_there() {
    let space = project(2 << 20);
    space.write(
        "small/image.toml",
        "[image.web]\nbase = \"scratch\"\nlayers = [{ files = { text = { \"/motd\" = \"hello\\n\" } } }]\n",
    );
    let right = space.ok(&BUILD).stdout;
    let script = r#"
        mount -t tmpfs -o size=2m none mnt
        "$IMGDECL" build small/ --progress none --output oci:mnt/out --output oci-archive:mnt/out.tar > /dev/null
        cp mnt/out.tar small.tar
        for sink in oci:mnt/out oci-archive:mnt/out.tar; do
            code=0; "$IMGDECL" build --progress none --output "$sink" 2>> errors || code=$?
            echo "exit $code"
            cmp mnt/out.tar small.tar
            rm -rf full; cp -a mnt/out full
            find mnt -name '*.partial'
        done
        mount -o remount,size=64m mnt
        "$IMGDECL" build --progress none --output oci:mnt/out --output oci-archive:mnt/out.tar
        cp -a mnt/out mnt/out.tar .
    "#;
    let Some(output) = with_mounts(&space, script) else {
        return;
    };
    assert_eq!(output.stdout, format!("exit 1\nexit 1\n{right}"));
    let full = space.path().join("full");
    whole(&full);
    let index = fs::read_to_string(full.join("index.json")).expect("the older index");
    assert_eq!(index.matches("\"digest\"").count(), 1, "{index}");
    let errors = fs::read_to_string(space.path().join("errors")).expect("errors");
    assert_eq!(
        errors.matches("No space left on device").count(),
        2,
        "{errors}"
    );
    assert_eq!(
        errors.matches("another output with `--output`").count(),
        2,
        "{errors}"
    );
    validate(&space.path().join("out"));
    validate(&space.path().join("out.tar"));
}

#[test]
fn a_read_only_cache_that_is_empty_is_an_error() {
    let space = Space::new();
    space.write("image.toml", ONE_FILE);
    space.write("data/file", "hello");
    space.ok(&BUILD);
    let script = r#"
        mount -t tmpfs -o ro none mnt
        code=0; export IMGDECL_CACHE_DIR="$PWD/mnt/cache"
        "$IMGDECL" build --progress none --output oci:out 2>> errors || code=$?
        echo "exit $code"
    "#;
    let Some(output) = with_mounts(&space, script) else {
        return;
    };
    assert_eq!(output.stdout, "exit 1\n");
    let errors = fs::read_to_string(space.path().join("errors")).expect("errors");
    assert!(errors.contains("Read-only file system"), "{errors}");
    assert!(errors.contains("IMGDECL_CACHE_DIR"), "{errors}");
    assert!(!space.path().join("out").exists());
}

#[test]
fn an_unreadable_file_is_an_error() {
    let space = Space::new();
    space.write("image.toml", ONE_FILE);
    let file = space.write("data/file", "hello");
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o000))
        .expect("a mode");
    let mut command = space.command(&BUILD);
    if File::open(&file).is_ok() {
        // Root reads everything, until it gives up the right to.
        let Some(setpriv) = peer("setpriv") else {
            return;
        };
        let without = "-dac_override,-dac_read_search";
        command = space.program(setpriv);
        command
            .args(["--inh-caps", without, "--bounding-set", without, BINARY])
            .args(BUILD);
    }
    let output = Output::of(&mut command);
    assert_eq!(output.status, 1, "{}", output.stderr);
    for part in [
        "imgdecl::host::unreadable",
        "data/file",
        "Permission denied",
        "check the file's permissions",
    ] {
        assert!(output.stderr.contains(part), "{}", output.stderr);
    }
}

/// Ways in which a file of the cache can be damaged.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Damage {
    Cut,
    Flip,
    FlipUnseen,
    Delete,
}

fn damage(path: &Path, how: Damage, rng: &mut Random) {
    let metadata = fs::metadata(path).expect("a file of the cache");
    let mut bytes = fs::read(path).expect("a file of the cache");
    let at = rng.below(bytes.len() as u64) as usize;
    match how {
        Damage::Delete => return fs::remove_file(path).expect("removed"),
        Damage::Cut => bytes.truncate(at),
        Damage::Flip | Damage::FlipUnseen => bytes[at] ^= 1 << rng.below(8),
    }
    // A new file, because the old one may be a link to a good one.
    fs::remove_file(path).expect("removed");
    fs::write(path, bytes).expect("written");
    if how == Damage::FlipUnseen {
        let file = File::options().write(true).open(path).expect("open");
        file.set_modified(metadata.modified().expect("a time"))
            .expect("its time");
    }
}

/// Copies a folder with the times of its files, which say whether a blob was touched.
fn clone(from: &Path, to: &Path) {
    for path in files(from) {
        let target = to.join(path.strip_prefix(from).expect("below"));
        fs::create_dir_all(target.parent().expect("a folder")).expect("a folder");
        fs::copy(&path, &target).expect("a copy");
        let time = fs::metadata(&path)
            .and_then(|it| it.modified())
            .expect("a time");
        File::open(&target)
            .and_then(|file| file.set_modified(time))
            .expect("its time");
    }
}

#[test]
fn a_damaged_cache_never_makes_wrong_bytes() {
    let space = project(20 << 10);
    // Two builds: the second one knows the stamps of files that are no longer new.
    space.ok(&BUILD);
    thread::sleep(Duration::from_millis(2100));
    let right = space.ok(&BUILD).stdout;
    let out = space.path().join("imgdecl-out");
    let good = space.path().join("good-cache");
    clone(space.cache(), &good);
    let mut rng = Random(4);
    let mut tried = 0;
    for path in files(&good) {
        if length(&path) == 0 {
            continue;
        }
        let rel = path.strip_prefix(&good).expect("below");
        let bucket = rel
            .components()
            .next()
            .expect("a bucket")
            .as_os_str()
            .to_owned();
        // Records are small, and decide digests: a flip anywhere in them counts.
        let flips = if bucket == "records-v2" { 3 } else { 1 };
        let ways = [Damage::Cut, Damage::FlipUnseen, Damage::Delete];
        for how in ways.into_iter().chain([Damage::Flip].repeat(flips)) {
            remove(space.cache());
            remove(&out);
            clone(&good, space.cache());
            damage(&space.cache().join(rel), how, &mut rng);
            let what = format!("{} {how:?}", rel.display());
            if how == Damage::FlipUnseen && bucket == "blobs-v1" {
                let verified = space.run(&["cache", "verify"]);
                assert_eq!(verified.status, 4, "{what}: {}", verified.stdout);
                assert!(
                    verified.stdout.contains(&format!("{}", rel.display())),
                    "{}",
                    verified.stdout
                );
            }
            let built = space.run(&BUILD);
            match built.status {
                0 => {
                    assert_eq!(built.stdout, right, "{what}");
                    validate(&out);
                }
                1 | 4 => {
                    assert!(
                        built.stderr.contains("imgdecl::"),
                        "{what}: {}",
                        built.stderr
                    );
                    assert_eq!(space.ok(&BUILD).stdout, right, "again, after {what}");
                    validate(&out);
                }
                _ => panic!("{what}: {}", built.stderr),
            }
            tried += 1;
        }
    }
    assert!(tried > 100, "only {tried} files were damaged");
}

#[test]
fn signals_stop_a_build_cleanly() {
    let space = Space::new();
    space.write("image.toml", ONE_FILE);
    let out = space.path().join("imgdecl-out");
    space.write("data/file", "small");
    space.ok(&BUILD);
    let before = content(&out);
    space.write("data/file", Random(5).bytes(96 << 20));
    for signal in ["INT", "TERM"] {
        remove(&space.cache().join("blobs-v1"));
        remove(&space.cache().join("records-v2"));
        let mut command = space.command(&["build", "--jobs", "2", "--progress", "json"]);
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it runs");
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let mut lines = stderr.lines().map(|line| line.expect("a line"));
        lines
            .find(|line| line.contains("\"layer\"") && line.contains("\"start\""))
            .expect("the layer starts");
        let sent = Instant::now();
        let kill = format!("kill -{signal} {}", child.id());
        assert_eq!(
            Output::of(space.program("sh").args(["-c", &kill])).status,
            0
        );
        let rest: Vec<String> = lines.collect();
        let status = child.wait().expect("it ends");
        let took = sent.elapsed();
        assert_eq!(status.code(), Some(130), "{signal}: {rest:?}");
        assert!(took < Duration::from_secs(2), "{signal} took {took:?}");
        assert_eq!(rest.last().map(String::as_str), Some("stopped"));
        no_leftovers(space.cache());
        assert_eq!(content(&out), before);
    }
}
