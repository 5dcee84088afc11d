//! Golden cases: folders of `golden/` with a manifest, its inputs, and what must come out of them. Data only; this is
//! the one harness. A case holds:
//!
//! | file | what it is |
//! |---|---|
//! | `image.toml`, any others | the work folder |
//! | `setup` | a script for `sh -eu`, run in the copied folder, for what git cannot hold; `$IMGDECL` is the binary |
//! | `args` | the arguments, one a line; without it `build --progress none` |
//! | `run` | a script for `sh -eu` that runs `$IMGDECL` itself, where it must be run in a special way |
//! | `env` | variables, `NAME=VALUE`, one a line |
//! | `needs` | programs that must be there, one a line; `root` and `unshare` say what the test must be able to do |
//! | `expected/exit` | the exit code; absent means 0. Only cases named `bad-…` may fail |
//! | `expected/stdout`, `stderr` | what is printed, with the work folder as `[ROOT]`; absent means nothing |
//! | `expected/plan` | what `imgdecl plan` prints with an empty cache |
//! | `expected/layers` | every entry of every layer |
//! | `expected/configs` | every config, but for what is in `diff_ids` |
//! | `expected/diff_ids` | the diff_id of every layer: these never change |
//! | `expected/digests` | all other digests: these change with a compressor, which is a new format |
//!
//! `IMGDECL_BLESS=1` writes `expected/`; `IMGDECL_BLESS=NAME,NAME` those of some cases. Nothing blesses another diff_id.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::{BINARY, Entry, Layer, Layout, Output, Space, absent, copy, peer, validate};

/// How many cases run at once.
const THREADS: usize = 4;
/// What of a case's folder is not its input.
const OURS: [&str; 6] = ["expected", "setup", "run", "args", "env", "needs"];

/// A case.
pub(crate) struct Case {
    pub(crate) name: String,
    folder: PathBuf,
    pub(crate) args: Vec<String>,
    env: Vec<(String, String)>,
    needs: Vec<String>,
}

impl Case {
    /// Returns all cases, sorted by name.
    pub(crate) fn all() -> Vec<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
        let mut folders: Vec<PathBuf> = fs::read_dir(&root)
            .expect("the folder of golden cases")
            .map(|entry| entry.expect("the folder of golden cases").path())
            .collect();
        folders.sort();
        let cases = folders.into_iter().filter(|folder| folder.is_dir());
        cases.map(Self::load).collect()
    }

    fn load(folder: PathBuf) -> Self {
        let lines = |name: &str| -> Option<Vec<String>> {
            let text = fs::read_to_string(folder.join(name)).ok()?;
            Some(text.lines().map(str::to_owned).collect())
        };
        let default = || ["build", "--progress", "none"].map(str::to_owned).to_vec();
        let pair = |line: String| {
            let (name, value) = line.split_once('=').expect("NAME=VALUE");
            (name.to_owned(), value.to_owned())
        };
        let name = folder.file_name().expect("cases have names");
        Self {
            name: name.to_string_lossy().into_owned(),
            args: lines("args").unwrap_or_else(default),
            env: lines("env")
                .unwrap_or_default()
                .into_iter()
                .map(pair)
                .collect(),
            needs: lines("needs").unwrap_or_default(),
            folder,
        }
    }

    /// Tells whether this machine can run the case.
    pub(crate) fn can_run(&self) -> bool {
        self.needs.iter().all(|need| {
            let able = match need.as_str() {
                "root" => fs::metadata("/proc/self").is_ok_and(|it| it.uid() == 0),
                "unshare" => Command::new("unshare")
                    .args(["-Ur", "true"])
                    .output()
                    .is_ok_and(|it| it.status.success()),
                program => return peer(program).is_some(),
            };
            if !able {
                absent(need);
            }
            able
        })
    }

    /// Tells whether the case ends well: those that do not are named so.
    pub(crate) fn succeeds(&self) -> bool {
        !self.name.starts_with("bad-")
    }

    /// Fills a space with the case's inputs.
    pub(crate) fn prepare(&self, space: &Space) {
        copy(&self.folder, space.path());
        for name in OURS {
            let path = space.path().join(name);
            if path.is_dir() {
                fs::remove_dir_all(&path).expect("a copy");
            } else if path.exists() {
                fs::remove_file(&path).expect("a copy");
            }
        }
        let setup = self.folder.join("setup");
        if setup.exists() {
            let cache = space.path().with_file_name("setup-cache");
            let mut command = space.program("sh");
            command.arg("-eu").arg(&setup).env("IMGDECL", BINARY);
            let output = Output::of(command.env("IMGDECL_CACHE_DIR", cache));
            assert_eq!(
                output.status, 0,
                "setup failed:\n{}{}",
                output.stdout, output.stderr
            );
        }
    }

    /// Returns the command of the case.
    pub(crate) fn command(&self, space: &Space) -> Command {
        let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        let script = self.folder.join("run");
        let mut command = space.command(&args);
        if script.exists() {
            command = space.program("sh");
            command.arg("-eu").arg(script).env("IMGDECL", BINARY);
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Returns `plan` with the arguments that it shares with `build`.
    fn plan(&self, space: &Space) -> Output {
        let mut args = vec!["plan"];
        let mut rest = self.args.iter().map(String::as_str).skip(1);
        while let Some(arg) = rest.next() {
            match arg {
                "-o" | "--output" | "--progress" | "--tag" | "--metadata-file" => {
                    rest.next();
                }
                "--explain" => {}
                arg => args.push(arg),
            }
        }
        let mut command = space.command(&args);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        Output::of(&mut command)
    }

    /// Returns where the images went, for a build in the folder `work`.
    pub(crate) fn sinks(&self, work: &Path) -> Vec<PathBuf> {
        if self.args.first().is_none_or(|it| it != "build") {
            return Vec::new();
        }
        let after = self.args.iter().skip(1);
        let named: Vec<PathBuf> = self
            .args
            .iter()
            .zip(after)
            .filter(|(key, _)| matches!(key.as_str(), "-o" | "--output"))
            .map(|(_, value)| value.split_once(':').expect("a sink").1)
            .map(|path| work.join(path))
            .collect();
        if !named.is_empty() {
            return named;
        }
        let mut found = Vec::new();
        find(work, "imgdecl-out", &mut found);
        found.retain(|path| path.join("index.json").exists());
        found.sort();
        found
    }

    fn expected(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.folder.join("expected").join(name)).ok()
    }

    /// Runs the case; returns the files that must equal those in `expected/`.
    fn run(&self) -> BTreeMap<&'static str, String> {
        let space = Space::new();
        self.prepare(&space);
        let planned = self.plan(&space);
        let output = Output::of(&mut self.command(&space));

        let root = space.path().display().to_string();
        let mut actual = BTreeMap::from([
            (
                "stdout",
                hide_digests(&output.stdout.replace(&root, "[ROOT]")),
            ),
            ("stderr", hide_root(&output.stderr, &root)),
        ]);
        if output.status != 0 {
            actual.insert("exit", format!("{}\n", output.status));
            assert!(
                self.name.starts_with("bad-"),
                "exit code {}\n{}",
                output.status,
                output.stderr
            );
        }
        let sinks = self.sinks(space.path());
        if output.status == 0 && self.args.first().is_some_and(|it| it == "build") {
            assert!(!sinks.is_empty(), "there is no output");
            assert_eq!(
                planned.status, 0,
                "plan fails where build does not:\n{}",
                planned.stderr
            );
            actual.insert("plan", planned.stdout.replace(&root, "[ROOT]"));
            let mut first = None;
            for sink in &sinks {
                let layout = validate(sink);
                let [layers, configs, diff_ids, digests] = describe(&layout);
                self.check_stdout(&output.stdout, &layout);
                match &first {
                    None => first = Some(digests.clone()),
                    Some(first) => assert_eq!(first, &digests, "two outputs differ"),
                }
                actual.insert("layers", layers);
                actual.insert("configs", configs);
                actual.insert("diff_ids", diff_ids);
                actual.insert("digests", digests);
            }
        }
        actual.retain(|_, text| !text.is_empty());
        actual
    }

    /// Checks that each line `NAME REFERENCE@DIGEST` says the digest of an image of the output.
    fn check_stdout(&self, stdout: &str, layout: &Layout) {
        if stdout.starts_with(['[', '{']) {
            return;
        }
        for line in stdout.lines() {
            let (name, reference) = line.split_once(' ').expect("NAME REFERENCE@DIGEST");
            let (_, digest) = reference.split_once('@').expect("NAME REFERENCE@DIGEST");
            assert_eq!(
                layout.images[name].digest, digest,
                "the digest printed for {name}"
            );
        }
    }

    /// Compares with `expected/`, or writes it; returns what is wrong.
    fn check(&self) -> Result<(), String> {
        let actual = self.run();
        let folder = self.folder.join("expected");
        let names = [
            "exit", "stdout", "stderr", "plan", "layers", "configs", "diff_ids", "digests",
        ];
        let mut wrong = String::new();
        for name in names {
            let expected = self.expected(name);
            let actual = actual.get(name);
            if expected.as_ref() == actual {
                continue;
            }
            if !bless(&self.name) {
                let none = String::new();
                let lines = diff(expected.as_ref().unwrap_or(&none), actual.unwrap_or(&none));
                wrong.push_str(&format!("--- expected/{name}\n{lines}"));
                continue;
            }
            if name == "diff_ids" && expected.is_some() {
                return Err(
                    "golden diff_ids never change: they are the byte contract. A new format \
                     gets new cases.\n"
                        .to_owned(),
                );
            }
            fs::create_dir_all(&folder).expect("the expected folder");
            let path = folder.join(name);
            match actual {
                Some(text) => fs::write(&path, text).expect("an expected file"),
                None => fs::remove_file(&path).expect("an expected file"),
            }
        }
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(wrong),
        }
    }
}

/// Runs `run` for every case of `cases` on some threads, and fails with all that went wrong.
pub(crate) fn for_each(cases: &[Case], run: impl Fn(&Case) -> Result<(), String> + Sync) {
    let next = AtomicUsize::new(0);
    let wrong = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if !case.can_run() {
                        continue;
                    }
                    let result = catch_unwind(AssertUnwindSafe(|| run(case)));
                    let result = result.unwrap_or_else(|panic| {
                        let text = panic.downcast_ref::<String>().cloned();
                        let fixed = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
                        Err(text.or(fixed).unwrap_or_default())
                    });
                    if let Err(text) = result {
                        wrong
                            .lock()
                            .expect("no panic while locked")
                            .insert(&case.name, text);
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().expect("no panic while locked");
    let report: String = wrong
        .iter()
        .map(|(name, text)| format!("\n===== golden/{name}\n{text}\n"))
        .collect();
    assert!(
        wrong.is_empty(),
        "{} of {} cases failed{report}",
        wrong.len(),
        cases.len()
    );
}

/// Tells whether the expected files of a case are to be written.
fn bless(name: &str) -> bool {
    env::var("IMGDECL_BLESS").is_ok_and(|it| it == "1" || it.split(',').any(|it| it == name))
}

/// Writes out what a layout holds: layers, configs, diff_ids, digests.
fn describe(layout: &Layout) -> [String; 4] {
    let [mut layers, mut configs, mut diff_ids, mut digests] = [const { String::new() }; 4];
    for (name, image) in &layout.images {
        digests.push_str(&format!("{name} {}\n", image.digest));
        for image in &image.platforms {
            let head = format!("{name} {}", image.platform);
            layers.push_str(&format!("{head}\n"));
            let mut config = image.config.clone();
            config.as_object_mut().expect("an object").remove("rootfs");
            configs.push_str(&format!("{head}\n{config:#}\n"));
            digests.push_str(&format!("{head} manifest {}\n", image.digest));
            let digest = image.manifest["config"]["digest"]
                .as_str()
                .unwrap_or_default();
            digests.push_str(&format!("{head} config {digest}\n"));
            for (number, layer) in (1..).zip(&image.layers) {
                let Layer {
                    media_type,
                    digest,
                    diff_id,
                    created_by,
                    entries,
                } = layer;
                let short = media_type.rsplit('.').next().unwrap_or_default();
                layers.push_str(&format!("  layer {number}, {short}: {created_by}\n"));
                entries
                    .iter()
                    .for_each(|entry| layers.push_str(&line(entry)));
                diff_ids.push_str(&format!("{head} {number} {diff_id}\n"));
                digests.push_str(&format!("{head} layer {number} {digest}\n"));
            }
            for (key, value) in image.manifest["annotations"]
                .as_object()
                .into_iter()
                .flatten()
            {
                digests.push_str(&format!("{head} annotation {key} = {value}\n"));
            }
        }
    }
    [layers, configs, diff_ids, digests]
}

/// Writes out an entry: type, mode, owner, size, digest or link, path; and what is there on top.
fn line(entry: &Entry) -> String {
    let kind = match entry.kind {
        '0' => "file",
        '1' => "hard",
        '2' => "link",
        '5' => "dir ",
        other => panic!("{}: an entry of type {other}", entry.path),
    };
    let Entry {
        mode,
        uid,
        gid,
        size,
        ..
    } = entry;
    let what = match entry.kind {
        '0' => entry.sha256.clone(),
        '5' => "-".to_owned(),
        _ => format!("-> {}", entry.link),
    };
    let mut line = format!(
        "    {kind} {mode:04o} {uid}:{gid} {size} {what} {}",
        visible(&entry.path)
    );
    if entry.mtime != 0 {
        line.push_str(&format!(" mtime={}", entry.mtime));
    }
    for (key, value) in &entry.pax {
        line.push_str(&format!(" pax[{key}={}]", value.escape_ascii()));
    }
    line + "\n"
}

/// Writes control characters, which would break the lines, as escapes.
fn visible(path: &str) -> String {
    let show = |char: char| match char.is_control() {
        true => char.escape_default().to_string(),
        false => char.to_string(),
    };
    path.chars().map(show).collect()
}

/// Replaces digests, which have a file of their own.
fn hide_digests(text: &str) -> String {
    let mut parts = text.split("sha256:");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let hex = part.bytes().take_while(u8::is_ascii_hexdigit).count();
        out.push_str(if hex == 64 {
            "sha256:[DIGEST]"
        } else {
            "sha256:"
        });
        out.push_str(&part[if hex == 64 { 64 } else { 0 }..]);
    }
    out
}

/// Replaces the work folder, even where a message was wrapped within it.
fn hide_root(text: &str, root: &str) -> String {
    let parts: Vec<&str> = root.split_inclusive('/').collect();
    let wrapped = (1..parts.len()).map(|at| {
        let (before, after) = (parts[..at].concat(), parts[at..].concat());
        (format!("{before}\n  │ {after}"), "[ROOT]\n  │ ")
    });
    let text = text.replace(root, "[ROOT]");
    wrapped.fold(text, |text, (from, to)| text.replace(&from, to))
}

/// Shows the lines that differ, without what is equal before and after them.
fn diff(expected: &str, actual: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), actual.lines().collect());
    let same = |pair: &(&&str, &&str)| pair.0 == pair.1;
    let before = old.iter().zip(&new).take_while(same).count();
    let (old_rest, new_rest) = (&old[before..], &new[before..]);
    let after = old_rest
        .iter()
        .rev()
        .zip(new_rest.iter().rev())
        .take_while(same)
        .count();
    let mut out = format!("@@ line {}\n", before + 1);
    for (sign, lines) in [("-", old_rest), ("+", new_rest)] {
        for line in &lines[..lines.len() - after] {
            out.push_str(&format!("{sign}{line}\n"));
        }
    }
    out
}

/// Finds all folders of a name.
fn find(folder: &Path, name: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if !entry.file_type().is_ok_and(|it| it.is_dir()) {
            continue;
        }
        match entry.file_name() == name {
            true => found.push(path),
            false => find(&path, name, found),
        }
    }
}

#[test]
fn cases() {
    let cases = Case::all();
    assert!(cases.len() > 20, "only {} cases", cases.len());
    for_each(&cases, Case::check);
}
