//! Runtimes that hang, and runtimes that refuse.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::terminal::Person;
use super::{BufReader, assert_nothing_left, end, signal, space};
use crate::support::{Output, Space, peer};

/// Writes a runtime that does what a script says, and returns a PATH on which it is found.
fn runtime(space: &Space, name: &str, script: &str) -> String {
    let path = space.write(&format!("bin/{name}"), format!("#!/bin/sh\n{script}\n"));
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("a mode");
    format!("{}:/usr/bin:/bin", space.path().join("bin").display())
}

/// Leaves something behind that is in no process group of its parent, writes who runs, and hangs, deaf to Ctrl-C.
fn hangs(started: &Path) -> String {
    format!(
        "trap '' INT TERM HUP\nsetsid sleep 300 &\necho $! $$ >> {}\nwhile true; do sleep 300; done",
        started.display()
    )
}

/// Waits until a runtime says that it hangs.
fn wait_for(started: &Path) {
    let limit = Instant::now() + Duration::from_secs(20);
    while fs::read_to_string(started).unwrap_or_default().is_empty() {
        assert!(Instant::now() < limit, "it was not started");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Nobody who said that he runs still does.
#[track_caller]
fn assert_ended(started: &Path) {
    let text = fs::read_to_string(started).expect("who ran");
    assert!(text.split_whitespace().count() >= 2, "{text}");
    for pid in text.split_whitespace() {
        assert!(!Path::new("/proc").join(pid).exists(), "{pid} of {text}");
    }
}

#[test]
fn a_runtime_that_hangs_is_ended_after_the_grace_time() {
    let Some(space) = space() else {
        return;
    };
    let started = space.path().join("started");
    let path = runtime(&space, "runc", &hangs(&started));
    for (name, grace, times) in [("INT", "1", 1), ("TERM", "1", 1), ("INT", "60", 2)] {
        let mut command = space.command(&["run", "--stop-timeout", grace, "oci:out"]);
        let command = command.env("PATH", &path).stdin(Stdio::null());
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("imgdecl");
        wait_for(&started);
        let before = Instant::now();
        for _ in 0..times {
            signal(&child, name);
            std::thread::sleep(Duration::from_millis(300));
        }
        let stdout = BufReader::new(child.stdout.take().expect("stdout"));
        let (status, out, err) = end(child, stdout);
        // One second for it to end, and two to remove what it began.
        assert!(
            before.elapsed() < Duration::from_secs(8),
            "{:?}",
            before.elapsed()
        );
        assert_eq!((status, &*out), (130, ""), "{err}");
        let is_late = err.contains("runc did not end within 1 s of being asked: killed");
        assert_eq!(is_late, times == 1, "{err}");
        assert!(err.contains("stopped"), "{err}");
        assert_ended(&started);
        assert_nothing_left(&space);
        fs::remove_file(&started).expect("the file");
    }
}

#[test]
fn a_runtime_that_hangs_when_it_starts_the_process_is_ended_too() {
    let Some(space) = space() else {
        return;
    };
    let started = space.path().join("started");
    let script = format!(
        "for word; do [ \"$word\" = start ] && hangs=yes; done\n\
         if [ -z \"$hangs\" ]; then exec {} \"$@\"; fi\n{}",
        peer("runc").expect("it is there").display(),
        hangs(&started)
    );
    let path = runtime(&space, "runc", &script);
    let mut command = space.command(&["run", "--stop-timeout", "1", "oci:out"]);
    let command = command.env("PATH", &path).stdin(Stdio::null());
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("imgdecl");
    wait_for(&started);
    signal(&child, "TERM");
    let stdout = BufReader::new(child.stdout.take().expect("stdout"));
    let (status, out, err) = end(child, stdout);
    assert_eq!((status, &*out), (130, ""), "{err}");
    assert_ended(&started);
    assert_nothing_left(&space);
}

#[test]
fn a_runtime_that_hangs_on_a_terminal_is_ended_by_ctrl_c() {
    let Some(space) = space() else {
        return;
    };
    let started = space.path().join("started");
    let path = runtime(&space, "runc", &hangs(&started));
    let line = "RUN -t --stop-timeout 1 oci:out";
    let Some(mut person) = Person::at(&space, Some(&path), line) else {
        return;
    };
    wait_for(&started);
    person.types(b"\x03");
    let (status, seen) = person.ends();
    assert_eq!(status, 130, "{seen}");
    let late = "runc did not end within 1 s of being asked: killed";
    assert!(seen.contains(late), "{seen}");
    assert_ended(&started);
    assert_nothing_left(&space);
}

/// Counts what is said, however lines are broken.
fn count(output: &Output, text: &str) -> usize {
    let words: Vec<&str> = output
        .stderr
        .split_whitespace()
        .filter(|it| *it != "│")
        .collect();
    words.join(" ").matches(text).count()
}

#[test]
fn what_a_runtime_says_is_said_once() {
    let Some(space) = space() else {
        return;
    };
    // A real one, which says it on stderr, too.
    fs::create_dir(space.path().join("data")).expect("a folder");
    let output = space.run(&[
        "run",
        "--runtime",
        "runc",
        "-v",
        "data:/mnt",
        "--entrypoint",
        "/nothing",
        "oci:out",
    ]);
    assert_eq!(output.status, 1, "{}", output.stderr);
    for text in ["unable to start container process", "runc says why above"] {
        assert_eq!(count(&output, text), 1, "{}", output.stderr);
    }
    // One that says it in its log alone, and one that says it on stderr, too.
    let log = "while [ $# -gt 0 ]; do [ \"$1\" = --log ] && echo 'level=error msg=\"not on this host\"' > \"$2\"; shift; done";
    let run = |path: &str| {
        let mut command = space.command(&["run", "oci:out"]);
        Output::of(command.env("PATH", path))
    };
    for (loud, told) in [("", 0), ("echo not on this host >&2", 1)] {
        let path = runtime(&space, "runc", &format!("{log}\n{loud}\nexit 1"));
        fs::remove_file(space.path().join("bin/crun")).ok();
        let output = Output::of(
            space
                .command(&["run", "--runtime", "runc", "oci:out"])
                .env("PATH", &path),
        );
        assert_eq!(output.status, 1);
        assert_eq!(count(&output, "not on this host"), 1, "{}", output.stderr);
        assert_eq!(
            count(&output, "runc says why above"),
            told,
            "{}",
            output.stderr
        );
        // Also where another one is tried.
        let real = peer("runc").expect("it is there");
        runtime(&space, "crun", &format!("exec {} \"$@\"", real.display()));
        let output = run(&path);
        assert_eq!(output.stdout, "the image's cmd\n", "{}", output.stderr);
        assert_eq!(count(&output, "not on this host"), 1, "{}", output.stderr);
        assert_eq!(count(&output, "trying crun"), 1, "{}", output.stderr);
    }
    assert_nothing_left(&space);
}
