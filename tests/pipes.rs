//! Outputs that are no files: stdout, named pipes, what the process has open. The same bytes as in a file, and nothing else.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::peers::is_root;
use crate::support::{BINARY, Output, Random, Space, peer};

/// An image of some layers: links, a removed file, and more bytes than a pipe holds.
const MANIFEST: &str = r#"
[image.one]
base = "scratch"
layers = [
    { files = { text = { "/etc/motd" = "hello\n", "/etc/gone" = "x" }, symlinks = { "/lib" = "usr/lib" } } },
    { files = { src = "data", dest = "/data", mode = "0640", owner = "7:8" } },
    { files = { text = { "/etc/motd" = "new\n" }, remove = ["/etc/gone"] } },
]
platforms = ["linux/amd64", "linux/arm64"]
"#;

/// The outputs that are one file.
const KINDS: [&str; 3] = ["oci-archive", "docker-archive", "tar"];

fn space() -> Space {
    let space = Space::new();
    space.write("image.toml", MANIFEST);
    let mut random = Random(3);
    for number in 0..4 {
        space.write(&format!("data/{number}"), random.bytes(100 << 10));
    }
    space
}

/// What a run of a command wrote: its exit code, the bytes on stdout, and stderr.
fn bytes(command: &mut Command) -> (i32, Vec<u8>, String) {
    let output = command.output().expect("it runs");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().unwrap_or(-1), output.stdout, stderr)
}

/// Runs a script, with `$IMGDECL` for the binary.
fn sh(space: &Space, script: &str) -> Output {
    let mut command = space.program("sh");
    Output::of(command.args(["-euc", script]).env("IMGDECL", BINARY))
}

#[test]
fn pipes_get_the_bytes_of_files() {
    let space = space();
    for kind in KINDS {
        space.ok(&["build", "-o", &format!("{kind}:file")]);
        let file = fs::read(space.path().join("file")).expect("a file");
        assert!(file.len() > 200 << 10, "{kind}");
        for place in ["-", "/dev/stdout", "/proc/self/fd/1"] {
            let output = format!("{kind}:{place}");
            let args = ["build", "-o", &output, "--progress", "plain"];
            let (status, stdout, stderr) = bytes(&mut space.command(&args));
            assert_eq!(status, 0, "{stderr}");
            assert!(stdout == file, "{kind} at {place}");
            assert!(
                stderr.lines().any(|it| it.starts_with("one one@sha256:")),
                "{stderr}"
            );
            assert!(stderr.contains(&format!("written {kind}:-\n")), "{stderr}");
        }
        // Stdout that is a file, another file that the process was given, and a named pipe.
        let script = format!(
            r#""$IMGDECL" build --progress none -o {kind}:- > stdout
            "$IMGDECL" build --progress none -o {kind}:/proc/self/fd/7 7> seven > said
            mkfifo fifo; cat fifo > read & "$IMGDECL" build --progress none -o {kind}:fifo >> said; wait
            cmp stdout file; cmp seven file; cmp read file; test -p fifo; rm fifo; cat said"#
        );
        let output = sh(&space, &script);
        assert_eq!((output.status, &*output.stderr), (0, ""), "{kind}");
        assert_eq!(output.stdout.lines().count(), 2, "{}", output.stdout);
        fs::remove_file(space.path().join("file")).expect("a file");
    }
}

#[test]
fn metadata_goes_into_pipes_as_well() {
    let space = space();
    space.ok(&["build", "-o", "none", "--metadata-file", "file"]);
    let file = fs::read(space.path().join("file")).expect("a file");
    for place in ["-", "/dev/stdout"] {
        let args = ["build", "-o", "none", "--metadata-file", place];
        let (status, stdout, stderr) = bytes(&mut space.command(&args));
        assert_eq!(status, 0, "{stderr}");
        assert!(stdout == file, "{place}");
        let images: Vec<Value> = serde_json::from_slice(&stdout).expect("JSON");
        let reference = images[0]["reference"].as_str().expect("a reference");
        assert!(stderr.contains(&format!("one {reference}\n")), "{stderr}");
    }
    let script = r#"mkfifo m; cat m > read & "$IMGDECL" build --progress none -o tar:- --metadata-file m > t.tar; wait; cmp read file
        "$IMGDECL" build --progress none -o none --metadata-file /proc/self/fd/5 5> five > /dev/null; cmp five file; tar -tf t.tar"#;
    let output = sh(&space, script);
    assert_eq!((output.status, &*output.stderr), (0, ""));
    assert!(output.stdout.lines().any(|it| it == "etc/motd"));
}

#[test]
fn stdout_has_one_thing_alone() {
    let space = space();
    for args in [
        &["-o", "tar:-", "-o", "oci-archive:/dev/stdout"][..],
        &["-o", "tar:-", "--format", "json"],
        &["-o", "docker-archive:-", "--metadata-file", "-"],
        &["-o", "none", "--metadata-file", "-", "--format", "json"],
    ] {
        let output = space.run(&[&["build"][..], args].concat());
        assert_eq!(output.status, 2, "{args:?}: {}", output.stderr);
        let message = "stdout can have one thing alone: ";
        assert!(output.stderr.contains(message), "{}", output.stderr);
        assert!(!space.cache().exists(), "something was built");
    }
    for word in ["oci:-", "dir:-"] {
        let output = space.run(&["build", "-o", word]);
        assert_eq!(output.status, 2, "{}", output.stderr);
        let message = "a folder cannot go to stdout";
        assert!(output.stderr.contains(message), "{}", output.stderr);
    }
}

#[test]
fn terminals_get_no_archives() {
    let Some(script) = peer("script") else { return };
    let space = space();
    for word in [
        "docker-archive:-",
        "tar:/dev/stdout",
        "oci-archive:/dev/tty",
    ] {
        let mut command = space.program(&script);
        let line = format!("{BINARY} build --progress none -o {word}");
        let output = Output::of(command.args(["-qec", &line, "/dev/null"]));
        assert_eq!(output.status, 2, "{}", output.stdout);
        let message = "is a terminal, which an archive would garble";
        assert!(output.stdout.contains(message), "{}", output.stdout);
    }
    // Metadata are a text.
    let mut command = space.program(&script);
    let line = format!("{BINARY} build --progress none -o none --metadata-file -");
    let output = Output::of(command.args(["-qec", &line, "/dev/null"]));
    assert_eq!(output.status, 0, "{}", output.stdout);
    assert!(output.stdout.contains("\"reference\""), "{}", output.stdout);
}

#[test]
fn a_reader_that_goes_away_is_told_of() {
    let space = space();
    for kind in KINDS {
        let args = ["build", "--progress", "none", "-o", &format!("{kind}:-")];
        let mut command = space.command(&args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("imgdecl");
        let mut start = [0; 100];
        let mut stdout = child.stdout.take().expect("stdout");
        stdout.read_exact(&mut start).expect("bytes");
        drop(stdout);
        let output = child.wait_with_output().expect("an end");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        let message = "whoever reads stdout went away before all was written";
        assert!(stderr.contains(message), "{stderr}");
    }
}

/// Stops a command that waits.
#[track_caller]
fn stops(mut child: Child) {
    let pid = Pid::from_child(&child);
    let asked = Instant::now();
    kill_process(pid, Signal::INT).expect("a signal");
    let status = child.wait().expect("an end");
    assert_eq!(status.code(), Some(130));
    assert!(asked.elapsed() < Duration::from_secs(10));
}

#[test]
fn whoever_stops_it_waits_for_no_reader() {
    let space = space();
    space.ok(&["build"]);
    // A pipe that is full, and one that nobody has opened.
    let start = |place: &str| {
        let output = format!("oci-archive:{place}");
        let mut command = space.command(&["build", "--progress", "json", "-o", &output]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("imgdecl");
        let stderr = child.stderr.take().expect("stderr");
        let mut lines = BufReader::new(stderr).lines().map_while(Result::ok);
        // All is known when the last image is: then the output is written.
        assert!(lines.any(|it| it.contains("\"done\"") && it.contains("\"index\"")));
        std::thread::spawn(move || lines.for_each(drop));
        std::thread::sleep(Duration::from_millis(300));
        child
    };
    stops(start("-"));
    let made = Output::of(space.program("mkfifo").arg("fifo"));
    assert_eq!(made.status, 0, "{}", made.stderr);
    stops(start("fifo"));
    // An archive of before is there still, and nothing half-made.
    assert!(!space.path().join(".fifo.partial").exists());
}

#[test]
fn a_sink_of_one_image_takes_no_two() {
    let space = space();
    let two = "\n[image.two]\nbase = \"scratch\"\nlayers = [\"t\"]\n[files.t]\ntext = { \"/t\" = \"t\" }\n";
    space.write("image.toml", [MANIFEST, two].concat());
    for (word, path) in [("tar", "out.tar"), ("dir", "out")] {
        let output = format!("{word}:{path}");
        let failed = space.run(&["build", "-o", &output]);
        assert_eq!(failed.status, 2, "{}", failed.stderr);
        let message = "holds one image, and there are 2: one, two";
        assert!(failed.stderr.contains(message), "{}", failed.stderr);
        assert!(!space.path().join(path).exists());
        space.ok(&["build", "two", "-o", &output]);
        space.ok(&["build", "two", "-o", &output]);
        // What is somebody else's stays.
        let inside = if word == "dir" { "theirs/x" } else { "theirs" };
        space.write(inside, "mine");
        let failed = space.run(&["build", "two", "-o", &format!("{word}:theirs")]);
        assert_eq!(failed.status, 2, "{}", failed.stderr);
        let message = "exists, and was not written by imgdecl";
        assert!(failed.stderr.contains(message), "{}", failed.stderr);
        let kept = fs::read_to_string(space.path().join(inside)).expect("theirs");
        assert_eq!(kept, "mine");
        let theirs = space.path().join("theirs");
        let _ = fs::remove_file(&theirs).or_else(|_| fs::remove_dir_all(&theirs));
    }
    let tar = fs::read(space.path().join("out.tar")).expect("a tar");
    assert!(String::from_utf8_lossy(&tar).contains("imgdecl: the files of an image"));
}

/// The names in a folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let names = entries.map(|it| it.expect("an entry").file_name());
    let mut names: Vec<String> = names.map(|it| it.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn folders_are_those_of_skopeo() {
    let Some(skopeo) = peer("skopeo") else { return };
    let space = space();
    let copy = |more: &[&str], from: &str, to: &str| {
        let mut command = space.program(&skopeo);
        command.args(["copy", "--quiet", "--insecure-policy"]);
        let output = Output::of(command.args(more).args([from, to]));
        assert_eq!(output.status, 0, "{}", output.stderr);
    };
    space.ok(&["build", "-o", "dir:ours", "-o", "oci:layout"]);
    let digest = |word: &str| -> Value {
        let output = space.run(&["inspect", word, "--format", "json"]);
        serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{}", output.stderr))
    };
    copy(&["--all"], "oci:layout:one", "dir:theirs");
    let [ours, theirs] = ["ours", "theirs"].map(|it| space.path().join(it));
    let mut expected = names(&theirs);
    expected.insert(0, ".imgdecl".to_owned());
    assert_eq!(names(&ours), expected);
    for name in names(&theirs) {
        let read = |folder: &Path| fs::read(folder.join(&name)).expect("a file");
        assert!(read(&ours) == read(&theirs), "{name}");
    }
    copy(&["--all"], "dir:ours", "oci:back:one");
    assert_eq!(
        digest("oci:back:one")["digest"],
        digest("oci:layout:one")["digest"]
    );
    // One platform, in the place of two: what it does not need goes.
    space.ok(&["build", "--platform", "linux/arm64", "-o", "dir:ours"]);
    copy(&[], "dir:ours", "oci:single:one");
    let files = names(&ours);
    assert_eq!(files.len(), 3 + 1 + 3, "{files:?}");
    assert!(!files.iter().any(|it| it.ends_with(".manifest.json")));
}

#[test]
fn a_tar_is_what_unpack_makes() {
    if !is_root() {
        eprintln!("skipped: needs root, to give files away");
        return;
    }
    let space = space();
    let args = [
        "build",
        "--platform",
        "linux/amd64",
        "-o",
        "oci:layout",
        "-o",
        "tar:flat.tar",
    ];
    space.ok(&args);
    space.ok(&[
        "unpack",
        "oci:layout:one",
        "unpacked",
        "--platform",
        "linux/amd64",
    ]);
    let output = sh(
        &space,
        "mkdir tarred; tar --numeric-owner -xpf flat.tar -C tarred; tar -tf flat.tar",
    );
    assert_eq!((output.status, &*output.stderr), (0, ""));
    let entries: Vec<&str> = output.stdout.lines().collect();
    assert!(
        entries.contains(&"etc/motd") && !entries.contains(&"etc/gone"),
        "{entries:?}"
    );
    let list = |name: &str| crate::unpack::list(&space.path().join(name));
    assert_eq!(list("tarred"), list("unpacked"));
}
