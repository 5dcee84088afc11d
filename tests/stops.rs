//! Ctrl-C is heard while large files are hashed, and while trees that are remembered are made again.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::Space;

/// A size that no machine hashes in less than [`SOON`], in bytes: it takes no space, as it is a hole.
const HUGE: u64 = 64 << 30;

/// How soon a command ends that was stopped, on a machine that does much else.
const SOON: Duration = Duration::from_secs(10);

const MANIFEST: &str =
    "[files.a]\nsrc = \"src\"\ndest = \"/d\"\n\n[image.i]\nbase = \"scratch\"\nlayers = [\"a\"]\n";

/// Makes a file of holes; tells, aloud, where the file system cannot.
fn hole(path: &Path, size: u64) -> bool {
    fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    let file = File::create(path).expect("a file");
    let is_made = file.set_len(size).is_ok();
    let is_sparse = file.metadata().is_ok_and(|it| it.blocks() * 512 < 1 << 20);
    if !(is_made && is_sparse) {
        eprintln!("skipped: needs a file system with sparse files of {size} bytes");
    }
    is_made && is_sparse
}

fn start(space: &Space, args: &[&str]) -> Child {
    let mut command = space.command(args);
    let command = command.stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().expect("imgdecl")
}

/// Stops a command, and returns how long it took to end.
#[track_caller]
fn stop(mut child: Child) -> Duration {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let asked = Instant::now();
    kill_process(pid.expect("a process"), Signal::INT).expect("a signal");
    let status = child.wait().expect("an end");
    assert_eq!(status.code(), Some(130));
    asked.elapsed()
}

/// Waits for the first event of a kind.
#[track_caller]
fn wait_for(child: &mut Child, event: &str) {
    let stderr = child.stderr.take().expect("stderr");
    let mut lines = BufReader::new(stderr).lines();
    let found = lines.find(|line| line.as_ref().is_ok_and(|it| it.contains(event)));
    found.expect("an event").expect("a line");
    // What follows is read, so that nobody waits for it.
    std::thread::spawn(move || lines.for_each(drop));
}

#[test]
fn ctrl_c_is_heard_while_a_file_of_the_host_is_hashed() {
    let space = Space::new();
    space.write("image.toml", MANIFEST);
    if !hole(&space.path().join("src/one"), HUGE) {
        return;
    }
    let args = ["build", "--output", "none", "--progress", "json"];
    let mut child = start(&space, &args);
    wait_for(&mut child, "\"event\":\"progress\"");
    let took = stop(child);
    assert!(took < SOON, "{took:?}");
}

#[test]
fn ctrl_c_is_heard_while_the_cache_is_verified() {
    let space = Space::new();
    space.write("image.toml", MANIFEST);
    space.write("src/one", "x");
    space.ok(&["build", "--output", "none"]);
    let digest = "0".repeat(64);
    let blob = format!("blobs-v1/sha256/00/{digest}");
    if !hole(&space.cache().join(blob), HUGE) {
        return;
    }
    let child = start(&space, &["cache", "verify"]);
    std::thread::sleep(Duration::from_millis(500));
    let took = stop(child);
    assert!(took < SOON, "{took:?}");
    // What was not read to its end is not taken for damaged.
    assert!(
        space
            .cache()
            .join(format!("blobs-v1/sha256/00/{digest}"))
            .exists()
    );
}

#[test]
fn ctrl_c_is_heard_while_a_remembered_tree_is_made_again() {
    let space = Space::new();
    space.write("image.toml", MANIFEST);
    let file = space.path().join("src/one");
    if !hole(&file, 4 << 30) {
        return;
    }
    // Old enough to be remembered.
    std::thread::sleep(Duration::from_secs(3));
    let args = ["build", "--output", "none", "--progress", "json"];
    let layer = "{\"action\":\"layer\",\"event\":\"start\"";
    let begun = Instant::now();
    let mut child = start(&space, &args);
    wait_for(&mut child, layer);
    // The tree was made, and is remembered; digests of files are forgotten, and all of it is hashed again.
    let whole = begun.elapsed();
    stop(child);
    fs::remove_dir_all(space.cache().join("stats-v1")).expect("the digests of files");
    let begun = Instant::now();
    let mut child = start(&space, &args);
    wait_for(&mut child, layer);
    assert!(begun.elapsed() < whole / 2, "the tree was not remembered");
    std::thread::sleep(Duration::from_millis(100));
    let took = stop(child);
    assert!(took < whole / 2, "{took:?} of {whole:?}");
}
