//! The same input gives the same bytes. Every golden case that succeeds is built again and again, each time with
//! something else changed that must not matter; outputs and what is printed must be equal to the first.

use std::collections::BTreeMap;
use std::fs::{self, File, FileTimes};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::golden::{Case, for_each};
use crate::support::{BINARY, Output, Space, copy};

/// What a build left: what it printed, and every file of its outputs.
#[derive(PartialEq)]
struct Left {
    stdout: String,
    files: BTreeMap<PathBuf, Vec<u8>>,
}

/// Runs a command that builds a case in the folder `work`, and gathers what it left.
fn build(case: &Case, work: &Path, command: &mut Command) -> Result<Left, String> {
    let output = Output::of(command);
    if output.status != 0 {
        return Err(format!("exit code {}\n{}", output.status, output.stderr));
    }
    let mut files = BTreeMap::new();
    for sink in case.sinks(work) {
        gather(&sink, work, &mut files);
    }
    if files.is_empty() {
        return Err("there is no output".to_owned());
    }
    let stdout = output.stdout;
    Ok(Left { stdout, files })
}

fn gather(path: &Path, work: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("an output") {
            gather(&entry.expect("an output").path(), work, files);
        }
    } else {
        let name = path
            .strip_prefix(work)
            .expect("outputs lie in the work folder");
        files.insert(name.to_owned(), fs::read(path).expect("an output"));
    }
}

fn compare(first: &Left, second: Result<Left, String>, what: &str) -> Result<(), String> {
    let second = second.map_err(|error| format!("{what}: {error}"))?;
    if *first == second {
        return Ok(());
    }
    let mut text = format!("{what}: the output differs\n");
    if first.stdout != second.stdout {
        text.push_str(&format!(
            "before: {}after:  {}",
            first.stdout, second.stdout
        ));
    }
    let all = first.files.keys().chain(second.files.keys());
    for name in all.collect::<std::collections::BTreeSet<_>>() {
        if first.files.get(name) != second.files.get(name) {
            text.push_str(&format!("  {}\n", name.display()));
        }
    }
    Err(text)
}

/// Builds a case in every way.
fn matrix(case: &Case) -> Result<(), String> {
    let source = Space::new();
    // The servers of the case serve all builds.
    let servers = &case.prepare(&source, None);
    let source = source.path();

    let space = Space::new();
    space.copy(source);
    let first = build(case, space.path(), &mut case.command(&space, servers))?;

    // A warm cache: the outputs are there, then they are not.
    let again = build(case, space.path(), &mut case.command(&space, servers));
    compare(&first, again, "a second run")?;
    for sink in case.sinks(space.path()) {
        let removed = match sink.is_dir() {
            true => fs::remove_dir_all(&sink),
            false => fs::remove_file(&sink),
        };
        removed.map_err(|error| error.to_string())?;
    }
    let again = build(case, space.path(), &mut case.command(&space, servers));
    compare(&first, again, "a warm cache and no output")?;

    let with = |what: &str, fill: &dyn Fn(&Path), tune: &dyn Fn(&mut Command)| {
        let space = Space::new();
        fill(space.path());
        let mut command = case.command(&space, servers);
        tune(&mut command);
        compare(&first, build(case, space.path(), &mut command), what)
    };
    let plain = |work: &Path| copy(source, work);
    let as_it_is = |_: &mut Command| {};

    for jobs in ["1", "16"] {
        with(&format!("--jobs {jobs}"), &plain, &|command| {
            command.args(["--jobs", jobs]);
        })?;
    }
    for (name, value) in [
        ("TZ", "Asia/Kathmandu"),
        ("LC_ALL", "C"),
        ("LC_ALL", "de_DE.UTF-8"),
    ] {
        with(&format!("{name}={value}"), &plain, &|command| {
            command.env(name, value);
        })?;
    }
    for umask in ["077", "000"] {
        let what = format!("umask {umask}");
        with(&what, &|work| copy_under(umask, source, work), &as_it_is)?;
        let script = format!("umask {umask}; exec \"$0\" \"$@\"");
        let space = Space::new();
        space.copy(source);
        let plain = case.command(&space, servers);
        let mut command = space.program("sh");
        command.args(["-c", &script, BINARY]).args(plain.get_args());
        for (name, value) in plain.get_envs() {
            command.env(name, value.expect("no variable is removed"));
        }
        let built = build(case, space.path(), &mut command);
        compare(&first, built, &format!("running under {what}"))?;
    }
    with(
        "other times",
        &|work| {
            copy(source, work);
            touch(work, &mut 0);
        },
        &as_it_is,
    )?;
    for (what, order) in [
        ("sorted folders", 0),
        ("reversed folders", 1),
        ("shuffled folders", 2),
    ] {
        with(what, &|work| copy_in_order(source, work, order), &as_it_is)?;
    }

    let space = Space::new();
    let work = space.path().join("another folder/with a longer näme");
    copy(source, &work);
    let built = build(
        case,
        &work,
        case.command(&space, servers).current_dir(&work),
    );
    compare(&first, built, "another folder")
}

/// Copies as `cp` does under a umask. An execute bit for anyone stays one for the owner: that is all that counts.
fn copy_under(umask: &str, from: &Path, to: &Path) {
    let script = "umask \"$1\"; cp -RP \"$2/.\" \"$3\"";
    let output = Command::new("sh")
        .args(["-c", script, "sh", umask])
        .args([from, to])
        .output()
        .expect("sh");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    keep_execute_bits(from, to);
}

fn keep_execute_bits(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a folder").flatten() {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().expect("a type");
        if kind.is_dir() {
            keep_execute_bits(&path, &target);
        } else if kind.is_file() {
            let mode = |path: &Path| fs::metadata(path).expect("a file").permissions().mode();
            if mode(&path) & 0o111 != 0 {
                let mode = fs::Permissions::from_mode(mode(&target) | 0o100);
                fs::set_permissions(&target, mode).expect("an execute bit");
            }
        }
    }
}

/// Gives everything an odd modification time.
fn touch(path: &Path, count: &mut usize) {
    let metadata = fs::symlink_metadata(path).expect("a file");
    if metadata.is_dir() {
        for entry in fs::read_dir(path).expect("a folder").flatten() {
            touch(&entry.path(), count);
        }
    }
    if metadata.is_symlink() {
        return;
    }
    let epoch = SystemTime::UNIX_EPOCH;
    let times = [
        epoch,
        epoch + Duration::new(1, 999_999_999),
        epoch - Duration::new(86_400, 1),
        epoch + Duration::from_secs((1 << 31) + 1),
        epoch + Duration::from_secs(8_589_934_593),
    ];
    let time = FileTimes::new().set_modified(times[*count % times.len()]);
    *count += 1;
    File::open(path)
        .and_then(|file| file.set_times(time))
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// Copies so that the entries of each folder come to be in another order.
fn copy_in_order(from: &Path, to: &Path, order: usize) {
    let mut names: Vec<_> = fs::read_dir(from)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    names.sort();
    match order {
        0 => {}
        1 => names.reverse(),
        _ => names.sort_by_key(|name| {
            name.as_encoded_bytes()
                .iter()
                .rev()
                .copied()
                .collect::<Vec<_>>()
        }),
    }
    fs::create_dir_all(to).expect("a folder");
    for name in names {
        let (path, target) = (from.join(&name), to.join(&name));
        let metadata = fs::symlink_metadata(&path).expect("a file");
        if metadata.is_symlink() {
            symlink(fs::read_link(&path).expect("a link"), &target).expect("a link");
        } else if metadata.is_dir() {
            copy_in_order(&path, &target, order);
        } else {
            fs::copy(&path, &target).expect("a file");
        }
    }
}

#[test]
fn nothing_but_the_input_matters() {
    let mut cases = Case::all();
    // What is pushed goes to no folder that could be compared; tests/remote.rs compares its digests.
    cases.retain(|case| case.succeeds() && case.writes());
    assert!(cases.len() > 20, "only {} cases", cases.len());
    for_each(&cases, matrix);
}
