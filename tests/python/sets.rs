//! Requirements of real projects: imgdecl chooses what uv chooses, wheel by wheel, or finds the same conflict and names
//! the packages in it. The sets are in `sets.toml`.

use std::fs;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde::Deserialize;

use super::hosted::{Chosen, EXCLUDE_NEWER, Platform, binary, chosen, compile, hosted, pins};
use crate::support::{Output, Space, pip_and_uv, temporary};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sets {
    set: Vec<Set>,
}

/// Requirements that are asked for together.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Set {
    name: String,
    requirements: Vec<String>,
    #[serde(default)]
    constraints: Vec<String>,
    #[serde(default = "python")]
    python: String,
    #[serde(default = "libc")]
    libc: String,
    #[serde(default = "arch")]
    arch: String,
    /// What the message says where there is no answer.
    names: Option<Vec<String>>,
}

fn python() -> String {
    "3.11".to_owned()
}

fn libc() -> String {
    "glibc 2.28".to_owned()
}

fn arch() -> String {
    "amd64".to_owned()
}

impl Set {
    fn all() -> Vec<Self> {
        let sets: Sets = toml::from_str(include_str!("sets.toml")).expect("sets of requirements");
        sets.set
    }

    fn platform(&self) -> Platform {
        Platform::new(&self.python, &self.libc, &self.arch)
    }

    /// Writes the requirements, and a manifest for imgdecl.
    fn write(&self, space: &Space) {
        space.write("requirements.txt", self.requirements.join("\n") + "\n");
        space.write("constraints.txt", self.constraints.join("\n") + "\n");
        let Self {
            python, libc, arch, ..
        } = self;
        space.write(
            "image.toml",
            format!(
                "[pip.deps]\nrequirements = [\"requirements.txt\"]\nconstraints = [\"constraints.txt\"]\n\
                 python = \"{python}\"\nlibc = \"{libc}\"\nexclude_newer = \"{EXCLUDE_NEWER}\"\n\n\
                 [image.app]\nbase = \"scratch\"\nlayers = [\"deps\"]\nplatforms = [\"linux/{arch}\"]\n"
            ),
        );
    }

    /// Reads what imgdecl chose, or why it could not.
    fn answer(&self, space: &Space, output: &Output) -> Result<Chosen, String> {
        if output.status != 0 {
            assert!(
                output.stderr.contains("imgdecl::pip::conflict"),
                "{}: imgdecl found no answer, and no conflict:\n{}",
                self.name,
                output.stderr
            );
            return Err(output.stderr.clone());
        }
        let lock = fs::read_to_string(space.path().join("image.lock")).expect("image.lock");
        Ok(chosen(&pins(&lock, "deps", &self.platform())))
    }

    /// Asks both, and says what is wrong.
    fn compare(&self, peers: (&std::path::PathBuf, &std::path::PathBuf)) -> Result<(), String> {
        let space = Space::new();
        self.write(&space);
        let mut lock = space.program(binary().0);
        // What the index says is asked again each time; what it said the last time need not come again.
        hosted(lock.arg("lock")).env("IMGDECL_CACHE_DIR", temporary().join("index-cache"));
        let ours = self.answer(&space, &Output::of(&mut lock));
        let args = [
            "requirements.txt",
            "--constraint",
            "constraints.txt",
            "--exclude-newer",
            EXCLUDE_NEWER,
        ];
        let theirs = compile(&space, peers, &self.platform(), &args);
        match (ours, theirs, &self.names) {
            (Ok(ours), Ok(theirs), None) => ours.difference(&theirs).map_or(Ok(()), Err),
            (Err(ours), Err(_), Some(names)) => {
                // Messages are wrapped, also behind hyphens.
                let words = |text: &str| -> String {
                    let marks = ['│', '×', '╰', '╭', '─', '·'];
                    text.chars()
                        .filter(|it| !it.is_whitespace() && !marks.contains(it))
                        .collect()
                };
                let text = words(&ours);
                let lost = names.iter().filter(|it| !text.contains(&words(it)));
                let lost: Vec<&String> = lost.collect();
                let message = format!("the message does not say {lost:?}:\n{ours}");
                lost.is_empty().then_some(()).ok_or(message)
            }
            (ours, theirs, names) => Err(format!(
                "expected: {}\nimgdecl: {ours:?}\nuv: {theirs:?}",
                if names.is_some() {
                    "a conflict"
                } else {
                    "an answer"
                }
            )),
        }
    }
}

#[test]
fn hard_sets_have_the_answers_of_uv() {
    let Some((pip, uv)) = pip_and_uv() else {
        return;
    };
    let sets = Set::all();
    let conflicts = sets.iter().filter(|it| it.names.is_some()).count();
    assert!(sets.len() - conflicts >= 30 && conflicts >= 10, "too few");
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        // Most of it is waiting for the index.
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(set) = sets.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(error) = set.compare((&uv, &pip)) {
                        let mut wrong = wrong.lock().expect("no panic while locked");
                        wrong.push(format!("== {}\n{error}", set.name));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().expect("no panic while locked");
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n\n"));
}

/// Reads the time that a shell's children took of the processors: the second line of `times`, as `0m0.52s 0m0.10s`.
fn times(text: &str) -> Option<Duration> {
    let line = text.lines().last()?;
    let seconds = line.split_whitespace().map(|it| {
        let (minutes, seconds) = it.strip_suffix('s')?.split_once('m')?;
        Some(minutes.parse::<f64>().ok()? * 60.0 + seconds.parse::<f64>().ok()?)
    });
    let seconds: Option<Vec<f64>> = seconds.collect();
    Some(Duration::from_secs_f64(seconds?.iter().sum()))
}

/// Sets that solvers without backjumping and rules for conflicts get lost in: from an empty cache, without the time that
/// the network takes.
#[test]
fn the_hardest_sets_take_little_time() {
    if pip_and_uv().is_none() {
        return;
    }
    let (binary, is_release) = binary();
    // Without optimisation it takes twenty times as long.
    let most = Duration::from_secs(if is_release { 10 } else { 100 });
    for name in ["an old starlette", "an old urllib3"] {
        let set = Set::all().into_iter().find(|it| it.name == name);
        let (set, space) = (set.expect("a set of this name"), Space::new());
        set.write(&space);
        let mut shell: Command = space.program("/bin/sh");
        shell.args(["-c", "\"$0\" lock; status=$?; times; exit $status"]);
        let output = Output::of(hosted(shell.arg(&binary)).env("IMGDECL_CACHE_DIR", space.cache()));
        set.answer(&space, &output).expect(name);
        let taken = times(&output.stdout).expect("the times of a shell");
        eprintln!("{name}: {:.1} s of its own", taken.as_secs_f64());
        assert!(taken > Duration::ZERO, "{}", output.stdout);
        assert!(taken < most, "{name}: {taken:?}, and {most:?} is the most");
    }
}
