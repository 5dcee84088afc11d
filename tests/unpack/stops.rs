//! What stays of an unpack that was refused a place, interrupted or killed: nothing.

use std::fs;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::kit::{AMD64, Tar, write_tars};
use crate::support::Space;

const PARTIAL: &str = ".out.imgdecl-unpack";

/// An image that takes a while.
fn large(space: &Space) {
    let mut tar = Tar::new();
    for number in 0..40_000 {
        tar = tar.file(&format!("d{}/f{number}", number % 100), "x");
    }
    write_tars(space, &[tar.end()]);
}

/// Starts to unpack, and waits until something is there.
fn start(space: &Space) -> Child {
    let mut command = space.command(&["unpack", "img", "out", AMD64]);
    let child = command.stderr(Stdio::piped()).spawn().expect("imgdecl");
    let begun = Instant::now();
    while !space.path().join(PARTIAL).join("d0/f0").exists() {
        assert!(begun.elapsed() < Duration::from_secs(60), "nothing comes");
        std::thread::sleep(Duration::from_millis(2));
    }
    child
}

fn names(space: &Space) -> Vec<String> {
    let entries = fs::read_dir(space.path()).expect("a folder");
    let mut names: Vec<String> = entries
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    names
}

fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    kill_process(pid.expect("a process"), signal).expect("a signal");
}

#[test]
fn ctrl_c_leaves_nothing() {
    let space = Space::new();
    large(&space);
    let child = start(&space);
    signal(&child, Signal::INT);
    let output = child.wait_with_output().expect("an end");
    assert_eq!(output.status.code(), Some(130));
    assert_eq!(names(&space), ["img"]);
}

#[test]
fn a_kill_leaves_nothing_in_place_and_the_next_one_cleans_up() {
    let space = Space::new();
    large(&space);
    let mut child = start(&space);
    // Two at once do not meet.
    let second = space.run(&["unpack", "img", "out", AMD64]);
    assert_eq!(second.status, 1, "{}", second.stderr);
    assert!(
        second.stderr.contains("another process unpacks into"),
        "{}",
        second.stderr
    );
    signal(&child, Signal::KILL);
    child.wait().expect("an end");
    assert_eq!(names(&space), [PARTIAL, "img"]);
    write_tars(&space, &[Tar::new().file("x", "").end()]);
    space.ok(&["unpack", "img", "out", AMD64]);
    assert_eq!(names(&space), ["img", "out"]);
    assert_eq!(
        fs::read_dir(space.path().join("out")).expect("out").count(),
        1
    );
}

#[test]
fn the_place_must_be_free() {
    let space = Space::new();
    write_tars(&space, &[Tar::new().file("x", "").end()]);
    fs::create_dir(space.path().join("empty")).expect("a folder");
    space.ok(&["unpack", "img", "empty", AMD64]);
    for (place, message) in [
        ("empty", "exists, and is no empty folder"),
        ("img/index.json", "exists, and is no empty folder"),
        ("missing/out", "cannot open the folder above"),
        ("/", "exists, and is no empty folder"),
    ] {
        let output = space.run(&["unpack", "img", place, AMD64]);
        assert_ne!(output.status, 0, "{place}");
        assert!(
            output.stderr.contains(message),
            "{place}: {}",
            output.stderr
        );
    }
    assert_eq!(names(&space), ["empty", "img"]);
}

#[test]
fn what_is_no_image_is_an_error() {
    let space = Space::new();
    write_tars(&space, &[Tar::new().file("x", "").end()]);
    for (image, platform) in [
        ("nothing", AMD64),
        ("img:other", AMD64),
        ("img", "--platform=linux/s390x"),
    ] {
        let output = space.run(&["unpack", image, "out", platform]);
        assert_ne!(output.status, 0, "{image}");
        assert_eq!(names(&space), ["img"]);
    }
}
