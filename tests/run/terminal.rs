//! `run --tty`: containers on a terminal, which `script` makes.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use super::{assert_nothing_left, end, space};
use crate::support::{BINARY, Space, peer};

/// Someone at a terminal.
pub(super) struct Person {
    child: Child,
    keys: ChildStdin,
    screen: BufReader<ChildStdout>,
    seen: String,
}

impl Person {
    /// Lets a shell run `line`, with `run` for the command of that name.
    pub(super) fn at(space: &Space, path: Option<&str>, line: &str) -> Option<Self> {
        let script = peer("script")?;
        let mut command = space.program(&script);
        let line = line.replace("RUN", &format!("{BINARY} run"));
        command.args(["-qec", &line, "/dev/null"]);
        if let Some(path) = path {
            command.env("PATH", path);
        }
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::piped()).spawn().expect("script");
        Some(Self {
            keys: child.stdin.take().expect("stdin"),
            screen: BufReader::new(child.stdout.take().expect("stdout")),
            child,
            seen: String::new(),
        })
    }

    /// Waits for a line that begins so.
    fn sees(&mut self, text: &str) {
        loop {
            let mut line = String::new();
            let count = self.screen.read_line(&mut line).expect("a line");
            assert_ne!(count, 0, "no `{text}` in: {}", self.seen);
            self.seen.push_str(&line);
            if line.starts_with(text) {
                return;
            }
        }
    }

    pub(super) fn types(&mut self, keys: &[u8]) {
        self.keys.write_all(keys).expect("stdin");
    }

    /// Waits for the end; returns the exit code and all that was seen.
    pub(super) fn ends(self) -> (i32, String) {
        let (status, rest, _) = end(self.child, self.screen);
        drop(self.keys);
        (status, self.seen + &rest)
    }
}

/// The runtimes that can run containers here: runc, which `space` asks for, and maybe crun.
fn runtimes(space: &Space) -> Vec<&'static str> {
    let runs = |name: &&str| {
        let args = ["run", "--runtime", name, "oci:out", "--", "true"];
        *name == "runc" || (peer(name).is_some() && space.run(&args).status == 0)
    };
    ["runc", "crun"].into_iter().filter(runs).collect()
}

#[test]
fn a_container_has_a_terminal_of_its_own() {
    let Some(space) = space() else {
        return;
    };
    let inside = "busybox tty; test -t 0 && test -t 1 && test -t 2 && echo all three; \
                  busybox stty size; echo TERM=$TERM; exit 7";
    for runtime in runtimes(&space) {
        let line = format!(
            "stty cols 77 rows 33; RUN -it --runtime {runtime} oci:out -- sh -c '{inside}'; \
             code=$?; stty -a; exit $code"
        );
        let Some(person) = Person::at(&space, None, &line) else {
            return;
        };
        let (status, seen) = person.ends();
        assert_eq!(status, 7, "{runtime}: {seen}");
        let seen = seen.split_whitespace().collect::<Vec<_>>().join(" ");
        for text in [
            "/dev/",
            "all three",
            "33 77",
            "TERM=xterm",
            " isig",
            " echo ",
        ] {
            assert!(seen.contains(text), "{runtime}: no `{text}` in {seen}");
        }
        assert_nothing_left(&space);
    }
    let line = "RUN -t --env TERM=dumb oci:out -- sh -c 'echo TERM=$TERM; kill -9 $$; exit 3'";
    let (status, seen) = Person::at(&space, None, line).expect("script").ends();
    assert!(seen.contains("TERM=dumb"), "{seen}");
    // The first process of a container cannot kill itself.
    assert_eq!(status, 3, "{seen}");
    // Without the flag there is none, though there is one here.
    let line = "RUN oci:out -- sh -c 'echo TERM=$TERM.; exit 4' < /dev/null";
    let (status, seen) = Person::at(&space, None, line).expect("script").ends();
    assert!(status == 4 && seen.contains("TERM=."), "{status} {seen}");
}

#[test]
fn what_is_typed_reaches_the_program_and_ctrl_c_is_typed() {
    let Some(space) = space() else {
        return;
    };
    let inside = "trap \"echo caught; exit 5\" INT; echo ready; read x; echo got $x; \
                  echo waits; while true; do sleep 0.1; done";
    for runtime in runtimes(&space) {
        let line =
            format!("RUN -t --runtime {runtime} --stop-timeout 1 oci:out -- sh -c '{inside}'");
        let Some(mut person) = Person::at(&space, None, &line) else {
            return;
        };
        person.sees("ready");
        person.types(b"words\n");
        person.sees("got words");
        person.sees("waits");
        person.types(b"\x03");
        let (status, seen) = person.ends();
        assert!(seen.contains("caught"), "{runtime}: {seen}");
        assert_eq!(status, 5, "{runtime}: {seen}");
        assert_nothing_left(&space);
    }
    // Who does not obey it goes on, and is not killed by us.
    let inside = "trap \"\" INT; echo ready; sleep 3; echo done; exit 6";
    let line = format!("RUN -t --stop-timeout 1 oci:out -- sh -c '{inside}'");
    let mut person = Person::at(&space, None, &line).expect("script");
    person.sees("ready");
    person.types(b"\x03\x03");
    let (status, seen) = person.ends();
    assert!(status == 6 && seen.contains("done"), "{status} {seen}");
}

#[test]
fn another_size_of_the_terminal_reaches_the_program() {
    let Some(space) = space() else {
        return;
    };
    // The runtime sets the size at first, too.
    let inside = r#"trap "case \"\$(busybox stty size)\" in 44*) echo resized; exit 3;; esac" WINCH; while true; do sleep 0.1; done"#;
    for runtime in runtimes(&space) {
        let line = format!(
            "stty cols 80 rows 24; \
             (for n in 1 2 3 4 5 6 7 8 9; do sleep 1; stty cols 9$n rows 44 < /dev/tty; done) 2> /dev/null & \
             RUN -t --runtime {runtime} oci:out -- sh -c '{inside}'"
        );
        let Some(person) = Person::at(&space, None, &line) else {
            return;
        };
        let (status, seen) = person.ends();
        assert!(
            status == 3 && seen.contains("resized"),
            "{runtime}: {status} {seen}"
        );
    }
    assert_nothing_left(&space);
}

#[test]
fn signals_of_others_reach_a_program_on_a_terminal() {
    let Some(space) = space() else {
        return;
    };
    let start = |options: &str, traps: &str| {
        let line = format!(
            "echo $$ > pid; exec RUN -t {options} oci:out -- sh -c '{traps}; echo ready; while true; do sleep 0.1; done'"
        );
        let mut person = Person::at(&space, None, &line)?;
        person.sees("ready");
        let pid = fs::read_to_string(space.path().join("pid")).expect("a number");
        Some((person, pid.trim().to_owned()))
    };
    let send = |name: &str, pid: &str| {
        let status = Command::new("kill").args(["-s", name, pid]).status();
        assert!(status.expect("kill").success());
    };
    for (name, code) in [("TERM", 4), ("INT", 5)] {
        let Some((person, pid)) = start("", "trap \"exit 4\" TERM; trap \"exit 5\" INT") else {
            return;
        };
        send(name, &pid);
        let (status, seen) = person.ends();
        assert_eq!(status, code, "{name}: {seen}");
    }
    let (person, pid) = start("--stop-timeout 1", "trap \"\" TERM").expect("script");
    send("TERM", &pid);
    let (status, seen) = person.ends();
    assert_eq!(status, 137, "{seen}");
    assert!(
        seen.contains("it did not end within 1 s of being asked: killed"),
        "{seen}"
    );
    assert_nothing_left(&space);
}

#[test]
fn limits_hold_on_a_terminal_too() {
    let Some(space) = space() else {
        return;
    };
    for runtime in runtimes(&space) {
        let line = format!(
            "RUN -t --runtime {runtime} --memory 100M --pids 64 oci:out -- sh -c 'sleep 0.5; exit 8'"
        );
        let Some(person) = Person::at(&space, None, &line) else {
            return;
        };
        let (status, seen) = person.ends();
        assert_eq!(status, 8, "{runtime}: {seen}");
    }
    let eat = "sleep 0.5; exec dd if=/dev/zero of=/dev/null bs=200M count=1";
    let line = format!("RUN -t --runtime runc --memory 50M oci:out -- sh -c '{eat}'");
    let (status, seen) = Person::at(&space, None, &line).expect("script").ends();
    assert_eq!(status, 137, "{seen}");
    assert!(
        seen.contains("killed: out of memory, limit 50.0 MB"),
        "{seen}"
    );
    assert_nothing_left(&space);
}

#[test]
fn a_chroot_on_a_terminal_has_ours() {
    let Some(space) = space() else {
        return;
    };
    let line =
        "RUN -t --chroot oci:out -- sh -c 'test -t 0 && test -t 1 && echo both $TERM; exit 9'";
    let Some(person) = Person::at(&space, None, line) else {
        return;
    };
    let (status, seen) = person.ends();
    assert!(
        status == 9 && seen.contains("both xterm"),
        "{status} {seen}"
    );
    assert_nothing_left(&space);
}

#[test]
fn without_a_terminal_there_is_none_to_give() {
    let Some(space) = space() else {
        return;
    };
    for options in [["-t", "--net=host"], ["-it", "--chroot"]] {
        let output = space.run(&["run", options[0], options[1], "oci:out"]);
        assert_eq!(output.status, 2, "{}", output.stderr);
        for text in ["--tty: stdin is no terminal", "leave `--tty` out"] {
            assert!(output.stderr.contains(text), "{}", output.stderr);
        }
    }
    let Some(person) = Person::at(&space, None, "RUN -t oci:out | cat") else {
        return;
    };
    let (_, seen) = person.ends();
    assert!(seen.contains("--tty: stdout is no terminal"), "{seen}");
    assert!(!seen.contains("the image's cmd"), "{seen}");
}

#[test]
fn what_a_terminal_is_refused_is_said_and_the_terminal_stays_as_it_was() {
    let Some(space) = space() else {
        return;
    };
    // What is mounted may bring the program: the runtime is the one to find that it does not.
    let line = "mkdir data; RUN -t -v data:/mnt --entrypoint /nothing oci:out; code=$?; stty -a; exit $code";
    let before = Instant::now();
    let Some(person) = Person::at(&space, None, line) else {
        return;
    };
    let (status, seen) = person.ends();
    assert_eq!(status, 1, "{seen}");
    let words = seen.split_whitespace().collect::<Vec<_>>().join(" ");
    for text in [
        "could not set the container up",
        "the image has no such program",
        " isig",
        " echo ",
    ] {
        assert!(
            words.replace("│ ", "").contains(text),
            "no `{text}` in {seen}"
        );
    }
    assert!(before.elapsed() < Duration::from_secs(15));
    assert_nothing_left(&space);
}
