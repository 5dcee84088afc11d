//! `run`: images as processes. Each test is skipped where no OCI runtime, or no static busybox, is installed; with
//! IMGDECL_REQUIRE_PEERS=1 it fails then.

mod points;
mod stuck;
mod terminal;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Output, Space, absent, debian_root, peer};

const IMAGE: &str = r#"
[image.box]
base       = "scratch"
layers     = [{ files = { entries = [
    { src = "busybox", dest = "/bin/busybox", mode = "0755" },
    { dirs = { "/tmp" = "1777", "/srv" = "0755", "/home/app" = "0755" } },
    { text = { "/etc/passwd" = "root:x:0:0:root:/root:/bin/sh\napp:x:10001:10002::/home/app:/bin/sh\n", "/etc/group" = "root:x:0:\napp:x:10002:\nextra:x:10003:app\n" } },
] } }]
entrypoint = ["/bin/busybox"]
cmd        = ["echo", "the image's cmd"]
env        = { PATH = "/bin", COLOUR = "blue" }
workdir    = "/srv"
"#;

/// A work folder with the image of a shell; `None` where something is missing.
fn space() -> Option<Space> {
    peer("runc")?;
    let busybox = peer("busybox")?;
    let ldd = Output::of(Command::new("ldd").arg(&busybox));
    if !(ldd.stdout + &ldd.stderr).contains("not a dynamic executable") {
        absent("a static busybox");
        return None;
    }
    if fs::metadata("/proc/self").ok()?.uid() != 0 {
        absent("root");
        return None;
    }
    let space = Space::new();
    fs::copy(busybox, space.path().join("busybox")).expect("a copy of busybox");
    space.write("image.toml", IMAGE);
    space.ok(&["build", "--output", "oci:out"]);
    Some(space)
}

/// Runs a script in the image's shell.
fn script(space: &Space, options: &[&str], text: &str) -> Output {
    let mut args = vec!["run"];
    args.extend(options);
    args.extend(["oci:out", "--", "sh", "-c", text]);
    space.run(&args)
}

/// No folder, mount or process of a run is left.
#[track_caller]
fn assert_nothing_left(space: &Space) {
    let runs = space.cache().join("runs-v1");
    let left: Vec<PathBuf> = fs::read_dir(&runs)
        .expect("the folder of runs")
        .map(|it| it.expect("an entry").path())
        .filter(|it| it.is_dir())
        .collect();
    assert!(left.is_empty(), "{left:?}");
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let cache = space.cache().display().to_string();
    assert!(!mounts.contains(&cache), "{mounts}");
}

#[test]
fn what_the_image_says_is_run_and_can_be_changed() {
    let Some(space) = space() else {
        return;
    };
    let output = space.ok(&["run", "oci:out"]);
    assert_eq!(output.stdout, "the image's cmd\n");
    // The target itself, built when it is needed.
    let output = space.ok(&["run", "box", "--", "echo", "two", "words"]);
    assert_eq!(output.stdout, "two words\n");
    let text = "echo $COLOUR $SHAPE $PWD $(id -u):$(id -g):$(id -G) $(hostname)";
    let output = script(&space, &[], text);
    assert!(
        output.stdout.starts_with("blue /srv 0:0:0 "),
        "{}",
        output.stdout
    );
    let mut command = space.command(&[
        "run",
        "--env",
        "COLOUR=red",
        "--env",
        "SHAPE",
        "--workdir",
        "/tmp",
    ]);
    command.args([
        "--user",
        "app",
        "--hostname",
        "here",
        "oci:out",
        "--",
        "sh",
        "-c",
        text,
    ]);
    let output = Output::of(command.env("SHAPE", "round"));
    assert_eq!(
        output.stdout, "red round /tmp 10001:10002:10002 10003 here\n",
        "{}",
        output.stderr
    );
    let output = space.ok(&[
        "run",
        "--entrypoint",
        "/bin/busybox",
        "oci:out",
        "--",
        "printf",
        "x",
    ]);
    assert_eq!(output.stdout, "x");
    assert_nothing_left(&space);
}

#[test]
fn exit_codes_and_streams_are_passed_on() {
    let Some(space) = space() else {
        return;
    };
    for code in [0, 1, 7, 255] {
        assert_eq!(script(&space, &[], &format!("exit {code}")).status, code);
    }
    // A signal is 128 and its number, as shells have it.
    assert_eq!(
        script(&space, &[], "sh -c 'kill -9 $$'; exit $?").status,
        137
    );
    let mut command = space.command(&["run", "oci:out", "--", "sh", "-c", "cat; echo err >&2"]);
    let child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = child.spawn().expect("imgdecl");
    std::io::Write::write_all(&mut child.stdin.take().expect("stdin"), b"from outside")
        .expect("stdin");
    let output = child.wait_with_output().expect("its end");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "from outside");
    assert!(String::from_utf8_lossy(&output.stderr).ends_with("err\n"));
    assert_nothing_left(&space);
}

#[test]
fn what_a_container_writes_is_gone_with_it() {
    let Some(space) = space() else {
        return;
    };
    let output = script(
        &space,
        &[],
        "echo x > /srv/file; rm /etc/passwd; chmod 0 /home; ls /srv /etc",
    );
    assert_eq!(
        output.stdout, "/etc:\ngroup\nhosts\nresolv.conf\n\n/srv:\nfile\n",
        "{}",
        output.stderr
    );
    let output = script(&space, &["--net", "none"], "ls /srv /etc");
    assert_eq!(output.stdout, "/etc:\ngroup\npasswd\n\n/srv:\n");
    let output = script(&space, &["--read-only"], "touch /srv/file || echo refused");
    assert_eq!(output.stdout, "refused\n");
    assert_nothing_left(&space);
}

#[test]
fn mounts_and_networks() {
    let Some(space) = space() else {
        return;
    };
    let file = space.write("data/file", "of the host\n");
    let text = "cat /mnt/file; echo changed > /mnt/file || echo refused";
    let output = script(&space, &["--mount", "data:/mnt:ro"], text);
    assert_eq!(output.stdout, "of the host\nrefused\n", "{}", output.stderr);
    let output = script(&space, &["--mount", "data:/mnt"], text);
    assert_eq!(output.stdout, "of the host\n");
    assert_eq!(fs::read_to_string(file).expect("the file"), "changed\n");
    let interfaces = "busybox ip link | busybox grep -c '^[0-9]'";
    let output = script(&space, &["--net", "none"], interfaces);
    assert_eq!(
        output.stdout, "1\n",
        "its own loopback alone: {}",
        output.stderr
    );
    let host = script(
        &space,
        &["--net", "host"],
        "busybox readlink /proc/self/ns/net",
    )
    .stdout;
    let own = fs::read_link("/proc/self/ns/net").expect("a namespace");
    assert_eq!(host.trim(), own.display().to_string());
}

#[test]
fn limits_hold() {
    let Some(space) = space() else {
        return;
    };
    let read = "for f in /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max \
                /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max /sys/fs/cgroup/cpu.max \
                /sys/fs/cgroup/cpu/cpu.cfs_quota_us; do [ -f $f ] && cat $f; done; true";
    let options = ["--memory", "100MiB", "--pids", "64", "--cpus", "0.5"];
    let output = script(&space, &options, read);
    assert!(output.stdout.contains("104857600\n"), "{output:?}");
    assert!(output.stdout.contains("64\n"), "{output:?}");
    assert!(output.stdout.contains("50000"), "{output:?}");
    // The 20th process is one too many.
    let many =
        "for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do sleep 1 & done; wait";
    let output = script(&space, &["--pids", "10"], many);
    assert!(output.stderr.contains("can't fork"), "{output:?}");
    assert_eq!(script(&space, &["--pids", "40"], many).status, 0);
    assert_nothing_left(&space);
}

#[test]
fn out_of_memory_is_told() {
    let Some(space) = space() else {
        return;
    };
    // 200 MB in one variable of one process.
    let eat = "exec dd if=/dev/zero of=/dev/null bs=200M count=1";
    let output = script(&space, &["--memory", "50M"], eat);
    assert_eq!(output.status, 137, "{output:?}");
    assert!(
        output
            .stderr
            .contains("killed: out of memory, limit 50.0 MB"),
        "{}",
        output.stderr
    );
    assert!(output.stderr.contains("imgdecl::run::memory"));
    let output = script(&space, &["--memory", "500M"], eat);
    assert_eq!(output.status, 0, "{output:?}");
    assert!(!output.stderr.contains("out of memory"));
    assert_nothing_left(&space);
}

/// Takes memory in steps of 10 MB, and says how much it has.
const STEPS: &str = "held = []\nfor step in range(1, 51):\n    held.append(bytearray(b'x') * 10_000_000)\n    print(step * 10, 'MB', flush=True)\nprint('done')\n";

#[test]
fn a_python_that_takes_more_than_its_limit_is_killed() {
    let (Some(_), Some(root)) = (space(), debian_root()) else {
        return;
    };
    let space = Space::new();
    fs::hard_link(&root, space.path().join("root.tar"))
        .or_else(|_| fs::copy(&root, space.path().join("root.tar")).map(|_| ()))
        .expect("the root");
    space.write("steps.py", STEPS);
    space.write(
        "image.toml",
        "[image.python]\nbase = \"scratch\"\nentrypoint = [\"python3.11\", \"/app/steps.py\"]\n\
         layers = [{ tar = { src = \"root.tar\", dest = \"/\" } }, { files = { src = \"steps.py\", dest = \"/app/\" } }]\n",
    );
    let output = space.run(&["run", "--memory", "100M", "python"]);
    assert_eq!(output.status, 137, "{output:?}");
    assert!(
        output
            .stderr
            .contains("killed: out of memory, limit 100.0 MB"),
        "{}",
        output.stderr
    );
    let steps: Vec<&str> = output.stdout.lines().collect();
    assert!((5..10).contains(&steps.len()), "{steps:?}");
    let output = space.run(&["run", "--memory", "1000M", "python"]);
    assert_eq!(output.status, 0, "{output:?}");
    assert!(
        output.stdout.ends_with("500 MB\ndone\n"),
        "{}",
        output.stdout
    );
    assert_nothing_left(&space);
}

/// Starts a run whose script says `ready` first, and waits for that.
fn start(
    space: &Space,
    options: &[&str],
    text: &str,
) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut args = vec!["run"];
    args.extend(options);
    let text = format!("{text}; echo ready; while true; do sleep 0.1; done");
    args.extend(["oci:out", "--", "sh", "-c", &text]);
    let mut command = space.command(&args);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("imgdecl");
    let mut stdout = BufReader::new(child.stdout.take().expect("stdout"));
    let mut line = String::new();
    stdout.read_line(&mut line).expect("a line");
    assert_eq!(line, "ready\n");
    (child, stdout)
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill")
        .args(["-s", name, &child.id().to_string()])
        .status();
    assert!(status.expect("kill").success());
}

/// Waits for the end, at most 20 seconds; returns exit code, the rest of stdout, and stderr.
fn end(
    mut child: Child,
    mut stdout: BufReader<std::process::ChildStdout>,
) -> (i32, String, String) {
    let limit = Instant::now() + Duration::from_secs(20);
    let status = loop {
        if let Some(status) = child.try_wait().expect("its state") {
            break status;
        }
        if Instant::now() > limit {
            child.kill().expect("an end");
            panic!("it did not end");
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let (mut out, mut err) = (String::new(), String::new());
    stdout.read_to_string(&mut out).expect("stdout");
    child
        .stderr
        .take()
        .expect("stderr")
        .read_to_string(&mut err)
        .expect("stderr");
    (status.code().unwrap_or(-1), out, err)
}

#[test]
fn signals_are_passed_on_and_a_service_ends_within_its_grace_time() {
    let Some(space) = space() else {
        return;
    };
    for (name, code) in [("INT", 3), ("TERM", 4)] {
        let handlers = "trap 'echo int; exit 3' INT; trap 'echo term; exit 4' TERM";
        let (child, stdout) = start(&space, &[], handlers);
        signal(&child, name);
        let (status, out, err) = end(child, stdout);
        assert_eq!(
            (status, out),
            (code, format!("{}\n", name.to_lowercase())),
            "{err}"
        );
    }
    let (child, stdout) = start(&space, &[], "trap 'echo user' USR1; trap 'exit 5' TERM");
    signal(&child, "USR1");
    std::thread::sleep(Duration::from_millis(500));
    signal(&child, "TERM");
    assert_eq!(end(child, stdout).1, "user\n");
    // The first process of a container that listens to nothing is killed in the end.
    let (child, stdout) = start(&space, &["--stop-timeout", "1"], "trap '' INT TERM");
    let before = Instant::now();
    signal(&child, "INT");
    let (status, _, err) = end(child, stdout);
    assert_eq!(status, 137);
    assert!(
        err.contains("it did not end within 1 s of being asked: killed"),
        "{err}"
    );
    assert!(before.elapsed() < Duration::from_secs(10));
    // Who asks twice does not want to wait.
    let (child, stdout) = start(&space, &["--stop-timeout", "60"], "trap '' INT TERM");
    signal(&child, "INT");
    std::thread::sleep(Duration::from_millis(300));
    signal(&child, "INT");
    assert_eq!(end(child, stdout).0, 137);
    assert_nothing_left(&space);
}

#[test]
fn the_stop_signal_of_the_image_is_used() {
    let Some(space) = space() else {
        return;
    };
    let manifest = format!("{IMAGE}stop_signal = \"SIGQUIT\"\n");
    space.write("image.toml", manifest);
    space.ok(&["build", "--output", "oci:out"]);
    let (child, stdout) = start(&space, &[], "trap 'exit 6' QUIT");
    signal(&child, "TERM");
    assert_eq!(end(child, stdout).0, 6);
}

#[test]
fn a_killed_run_is_cleaned_up_by_the_next_one() {
    let Some(space) = space() else {
        return;
    };
    let (mut child, stdout) = start(&space, &[], "true");
    child.kill().expect("a kill");
    child.wait().expect("its end");
    let rooms = || {
        let all = fs::read_dir(space.cache().join("runs-v1")).expect("runs");
        all.filter(|it| it.as_ref().expect("an entry").path().is_dir())
            .count()
    };
    assert_eq!(rooms(), 1);
    assert_eq!(script(&space, &[], "exit 0").status, 0);
    assert_nothing_left(&space);
    // The container itself ended, too: its output did.
    let mut rest = String::new();
    let mut stdout = stdout;
    stdout.read_to_string(&mut rest).expect("the end");
}

#[test]
fn chroot_changes_the_root_and_nothing_else() {
    let Some(space) = space() else {
        return;
    };
    let output = script(
        &space,
        &["--chroot", "--user", "app", "--env", "A=b"],
        "echo $A $PWD $(id -u); ls /; exit 9",
    );
    assert_eq!(output.status, 9, "{}", output.stderr);
    assert_eq!(output.stdout, "b /srv 10001\nbin\netc\nhome\nsrv\ntmp\n");
    let output = space.run(&["run", "--chroot", "oci:out", "--entrypoint", "/nothing"]);
    assert_eq!(output.status, 127);
    assert!(
        output.stderr.contains("no such program: /nothing"),
        "{}",
        output.stderr
    );
    // What a mount brings is not the image's, and can be run.
    space.write("bin/own", "#!/bin/busybox sh\necho mounted\n");
    let file = space.path().join("bin/own");
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("a mode");
    let output = space.run(&[
        "run",
        "-v",
        "bin:/own",
        "--entrypoint",
        "/own/own",
        "oci:out",
    ]);
    assert_eq!(output.stdout, "mounted\n", "{}", output.stderr);
    assert_nothing_left(&space);
}

#[test]
fn the_variables_of_an_image_mean_nothing_on_the_host() {
    let Some(space) = space() else {
        return;
    };
    // The loader of a dynamic program writes there, with the rights of whoever starts it.
    let file = space.path().join("loader");
    let output = format!("LD_DEBUG_OUTPUT={}", file.display());
    let options = ["--chroot", "--env", "LD_DEBUG=all", "--env", &output];
    let said = script(&space, &options, "echo $LD_DEBUG $LD_DEBUG_OUTPUT");
    assert_eq!(said.stdout, format!("all {}\n", file.display()));
    let names = fs::read_dir(space.path()).expect("the work folder");
    let names: Vec<_> = names.map(|it| it.expect("an entry").file_name()).collect();
    let written = names
        .iter()
        .any(|it| it.to_string_lossy().contains("loader"));
    assert!(!written, "{names:?}");
}

#[test]
fn a_chroot_reads_from_a_terminal() {
    let Some(space) = space() else {
        return;
    };
    let Some(script) = peer("script") else {
        return;
    };
    let line = format!(
        "{} run --chroot oci:out -- sh -c 'read x; echo got $x'",
        crate::support::BINARY
    );
    // A terminal, and someone who types.
    let mut command = space.program(&script);
    command.args(["-qec", &line, "/dev/null"]);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().expect("script");
    let mut stdin = child.stdin.take().expect("stdin");
    std::io::Write::write_all(&mut stdin, b"words\n").expect("stdin");
    let stdout = BufReader::new(child.stdout.take().expect("stdout"));
    let (status, out, err) = end(child, stdout);
    drop(stdin);
    assert_eq!(status, 0, "{out} {err}");
    assert!(out.contains("got words"), "{out} {err}");
}

#[test]
fn what_a_chroot_mounts_goes_with_it() {
    let Some(space) = space() else {
        return;
    };
    let output = script(
        &space,
        &["--chroot"],
        "busybox mount -t tmpfs none /srv && echo mounted",
    );
    assert_eq!(output.stdout, "mounted\n", "{}", output.stderr);
    assert_nothing_left(&space);
}

#[test]
fn who_asks_to_stop_before_the_container_starts_is_heard() {
    let Some(space) = space() else {
        return;
    };
    // The root is in the cache now: the next run has nothing to do before it starts.
    assert_eq!(script(&space, &[], "exit 0").status, 0);
    let lock = fs::File::options()
        .append(true)
        .open(space.cache().join("runs-v1/lock"))
        .expect("the lock of all runs");
    lock.lock().expect("the lock");
    let mut command = space.command(&["run", "oci:out", "--", "sh", "-c", "echo ran"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = child.spawn().expect("imgdecl");
    std::thread::sleep(Duration::from_millis(1500));
    signal(&child, "TERM");
    std::thread::sleep(Duration::from_millis(500));
    lock.unlock().expect("the lock");
    let stdout = BufReader::new(child.stdout.take().expect("stdout"));
    let (status, out, err) = end(child, stdout);
    assert_eq!((status, &*out), (130, ""), "{err}");
    assert_nothing_left(&space);
}

#[test]
fn gc_removes_what_was_unpacked() {
    let Some(space) = space() else {
        return;
    };
    assert_eq!(script(&space, &[], "exit 0").status, 0);
    let info = space.ok(&["cache", "info"]).stdout;
    assert!(info.contains("1 images unpacked to be run"), "{info}");
    let gone = space.ok(&["cache", "gc"]).stdout;
    assert!(gone.contains("removed 1 images unpacked"), "{gone}");
    assert_eq!(script(&space, &[], "exit 7").status, 7);
    space.ok(&["cache", "clear"]);
    let left = fs::read_dir(space.cache().join("roots-v1")).expect("the folder");
    assert_eq!(left.count(), 0);
}

#[test]
fn the_next_runtime_is_tried_where_one_cannot() {
    let Some(space) = space() else {
        return;
    };
    let bin = space.path().join("bin");
    fs::create_dir(&bin).expect("a folder");
    let write = |name: &str, text: &str| {
        let path = space.write(&format!("bin/{name}"), text);
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .expect("a mode");
    };
    // A runtime that does not serve this host: it says so in its log, as all do.
    write(
        "runc",
        "#!/bin/sh\nwhile [ $# -gt 0 ]; do [ \"$1\" = --log ] && echo 'time=\"x\" level=error msg=\"not on this host\"' > \"$2\"; shift; done\nexit 1\n",
    );
    let runc = peer("runc").expect("it is there");
    let path = format!("{}:/usr/bin:/bin", bin.display());
    let run = || {
        let mut command = space.command(&["run", "oci:out"]);
        Output::of(command.env("PATH", &path))
    };
    let output = run();
    assert_eq!(output.status, 1);
    assert!(
        output.stderr.contains("not on this host"),
        "{}",
        output.stderr
    );
    // The name decides the order; what it is does not matter.
    write(
        "crun",
        &format!("#!/bin/sh\nexec {} \"$@\"\n", runc.display()),
    );
    let output = run();
    assert_eq!(output.stdout, "the image's cmd\n", "{}", output.stderr);
    assert!(
        output
            .stderr
            .contains("runc cannot run it: not on this host; trying crun"),
        "{}",
        output.stderr
    );
    assert_nothing_left(&space);
}

#[test]
fn someone_else_than_root_runs_images_too() {
    let Some(space) = space() else {
        return;
    };
    let Some(setpriv) = peer("setpriv") else {
        return;
    };
    // Everything below must be nobody's own.
    let work = space.path().to_owned();
    let home = work.parent().expect("a folder above");
    let status = Command::new("chown")
        .args(["-R", "65534:65534"])
        .arg(home)
        .status();
    assert!(status.expect("chown").success());
    let run = |args: &[&str]| {
        let mut command = space.program(&setpriv);
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]);
        command.arg(crate::support::BINARY).args(args);
        Output::of(command.env("XDG_RUNTIME_DIR", home))
    };
    let output = run(&[
        "run",
        "oci:out",
        "--",
        "sh",
        "-c",
        "id -u; echo x > /srv/file; exit 3",
    ]);
    assert_eq!(
        (output.status, &*output.stdout),
        (3, "0\n"),
        "{}",
        output.stderr
    );
    let output = run(&["run", "--chroot", "oci:out"]);
    assert!(
        output
            .stderr
            .contains("only root may change the root of a process"),
        "{}",
        output.stderr
    );
    // A limit that cannot be set is an error, and not forgotten.
    let output = run(&["run", "--memory", "50M", "oci:out"]);
    assert_eq!(output.status, 1, "{output:?}");
    assert!(
        output.stderr.contains("cgroup") || output.stderr.contains("control group"),
        "{}",
        output.stderr
    );
    assert_nothing_left(&space);
}

#[test]
fn what_cannot_be_run_says_why() {
    let Some(space) = space() else {
        return;
    };
    let says = |args: &[&str], text: &str| {
        let output = space.run(args);
        let words = output
            .stderr
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        let words = words.replace("│ ", "");
        assert!(words.contains(text), "{args:?}: {}", output.stderr);
        assert_ne!(output.status, 0);
    };
    says(&["run", "--user", "stranger", "oci:out"], "stranger");
    says(
        &["run", "--runtime", "nothing", "oci:out"],
        "there is no runtime `nothing`",
    );
    says(&["run", "--mount", "nowhere:/x", "oci:out"], "is not there");
    says(
        &["run", "--env", "NO_SUCH_VARIABLE", "oci:out"],
        "there is no such variable",
    );
    says(
        &["run", "--entrypoint", "/nothing", "oci:out"],
        "the image has no such program",
    );
    says(
        &["run", "--cpus", "none", "oci:out"],
        "expected a number of CPUs",
    );
    let mut command = space.command(&["run", "oci:out"]);
    let output = Output::of(command.env("PATH", "/nowhere"));
    assert!(
        output.stderr.contains("no OCI runtime is installed"),
        "{}",
        output.stderr
    );
    space.write(
        "image.toml",
        IMAGE
            .replace("entrypoint", "labels = {}\n#")
            .replace("cmd ", "#"),
    );
    says(&["run", "box"], "neither an entrypoint nor a cmd");
    space.write(
        "image.toml",
        // A program that is not there may be mounted: one of another processor would end the build.
        format!("{IMAGE}platforms = [\"linux/s390x\"]\n").replace(
            "entrypoint = [\"/bin/busybox\"]",
            "entrypoint = [\"/of/another/processor\"]",
        ),
    );
    says(
        &["run", "box"],
        "is built for linux/s390x, and this host is linux/",
    );
    assert_nothing_left(&space);
}

#[test]
fn a_variable_that_a_base_names_twice_has_its_last_value() {
    let Some(space) = space() else {
        return;
    };
    // A base as no program writes it, made of a layout.
    let root = space.path().join("twice");
    crate::support::copy(&space.path().join("out"), &root);
    let blobs = root.join("blobs/sha256");
    let read = |path: PathBuf| -> serde_json::Value {
        serde_json::from_slice(&fs::read(path).expect("a document")).expect("JSON")
    };
    let blob = |descriptor: &serde_json::Value| {
        let digest = descriptor["digest"].as_str().expect("a digest");
        blobs.join(digest.trim_start_matches("sha256:"))
    };
    let mut index = read(root.join("index.json"));
    let mut manifest = read(blob(&index["manifests"][0]));
    let mut config = read(blob(&manifest["config"]));
    config["config"]["Env"] =
        serde_json::json!(["PATH=/nowhere", "PATH=/bin", "V=1", "V=2", "W=1", "W=3"]);
    let put = |document: &serde_json::Value, descriptor: &mut serde_json::Value| {
        let bytes = document.to_string().into_bytes();
        let digest = imgdecl::parts::oci::Digest::of(&bytes);
        fs::write(blobs.join(digest.hex()), &bytes).expect("a blob");
        descriptor["digest"] = digest.to_string().into();
        descriptor["size"] = bytes.len().into();
    };
    put(&config, &mut manifest["config"]);
    put(&manifest, &mut index["manifests"][0]);
    fs::write(root.join("index.json"), index.to_string()).expect("the index");
    let text = "echo $V $W $PATH";
    let output = space.ok(&["run", "oci:twice", "--", "sh", "-c", text]);
    assert_eq!(output.stdout, "2 3 /bin\n");
    let shown = space.ok(&["inspect", "oci:twice"]).stdout;
    assert!(shown.contains(r#"["PATH=/bin","V=2","W=3"]"#), "{shown}");

    space.write(
        "image.toml",
        "[base.twice]\nlayout = \"twice\"\n\n[image.on]\nbase = \"twice\"\nenv = { V = \"mine\", PATH = \"/opt:${PATH}\" }\n\n\
         [image.plain]\nbase = \"twice\"\nlabels = { a = \"b\" }\n",
    );
    space.ok(&["build", "on", "--output", "oci:on"]);
    let output = space.ok(&["run", "oci:on", "--", "sh", "-c", text]);
    assert_eq!(output.stdout, "mine 3 /opt:/bin\n");
    let shown = space.ok(&["inspect", "oci:on"]).stdout;
    assert!(
        shown.contains(r#"["PATH=/opt:/bin","V=mine","W=3"]"#),
        "{shown}"
    );
    space.ok(&["build", "plain", "--output", "oci:plain"]);
    let index = read(space.path().join("plain/index.json"));
    let plain = space.path().join("plain/blobs/sha256");
    let of = |descriptor: &serde_json::Value| {
        let digest = descriptor["digest"].as_str().expect("a digest");
        read(plain.join(digest.trim_start_matches("sha256:")))
    };
    let built = of(&of(&index["manifests"][0])["config"]);
    assert_eq!(built["config"]["Env"], config["config"]["Env"]);
}
