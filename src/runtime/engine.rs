//! OCI runtimes of the host: runc, crun and youki, driven by the command line that all of them have.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal};

/// The runtimes that are looked for, in this order.
pub const ENGINES: [&str; 3] = ["runc", "crun", "youki"];

/// How much of a runtime's words is kept, in bytes.
const WORDS: usize = 4096;

/// An OCI runtime that is installed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Engine {
    /// What the user calls it.
    pub name: String,
    path: PathBuf,
}

/// A container, as its runtime knows it.
#[derive(Clone, Copy)]
pub(super) struct Handle<'a> {
    pub(super) id: &'a str,
    /// Where the runtime keeps its state: a folder of this container alone.
    pub(super) state: &'a Path,
    /// What the runtime says goes here.
    pub(super) log: &'a Path,
}

impl Engine {
    /// Finds a runtime by its name, in the folders of `path` as the variable PATH has them, or by its path.
    pub fn find(name: &str, path: &OsStr) -> Option<Self> {
        let named = |path: PathBuf| Self {
            name: name.to_owned(),
            path,
        };
        if name.contains('/') {
            let path = std::path::absolute(name).ok()?;
            return path.is_file().then(|| named(path));
        }
        let folders = path.as_bytes().split(|byte| *byte == b':');
        let mut files = folders.map(|folder| Path::new(OsStr::from_bytes(folder)).join(name));
        // A folder that is named relatively is somebody else's.
        let found = files.find(|file| file.is_absolute() && is_executable(file))?;
        Some(named(found))
    }

    /// Returns where the program is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the runtime that is at `path`, for containers that it left behind.
    pub(super) fn at(path: PathBuf) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Self {
            name: name.into_owned(),
            path,
        }
    }

    fn command(&self, handle: Handle<'_>) -> Command {
        let mut command = Command::new(&self.path);
        command.arg("--root").arg(handle.state);
        command.arg("--log").arg(handle.log);
        command
    }

    /// Sets a container up, so far that [`Self::start`] runs its process. Its process has our standard streams.
    ///
    /// # Errors
    /// What the runtime says against it.
    pub(super) fn create(
        &self,
        handle: Handle<'_>,
        bundle: &Path,
        pid: &Path,
    ) -> Result<Pid, String> {
        let mut command = self.command(handle);
        command.arg("create").arg("--bundle").arg(bundle);
        command.arg("--pid-file").arg(pid).arg(handle.id);
        // Signals of the terminal are ours to pass on.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        self.run(handle, command)?;
        let number = std::fs::read_to_string(pid).ok();
        let number = number.and_then(|it| it.trim().parse::<i32>().ok());
        number
            .and_then(Pid::from_raw)
            .ok_or_else(|| format!("{} made a container without a process", self.name))
    }

    /// Lets the process of a container run.
    ///
    /// # Errors
    /// What the runtime says against it.
    pub(super) fn start(&self, handle: Handle<'_>) -> Result<(), String> {
        let mut command = self.command(handle);
        command.arg("start").arg(handle.id);
        command.stdin(Stdio::null());
        self.run(handle, command)
    }

    /// Ends a container, if it still runs, and removes what the runtime keeps of it.
    ///
    /// # Errors
    /// What the runtime says against it.
    pub(super) fn delete(&self, handle: Handle<'_>) -> Result<(), String> {
        let mut command = self.command(handle);
        command.args(["delete", "--force"]).arg(handle.id);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.run(handle, command)
    }

    fn run(&self, handle: Handle<'_>, mut command: Command) -> Result<(), String> {
        let _ = std::fs::remove_file(handle.log);
        let status = command.status();
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(match said(handle.log) {
                Some(words) => words,
                None => format!("{} failed: {status}", self.name),
            }),
            Err(error) => Err(format!("{} cannot be run: {error}", self.path.display())),
        }
    }
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
}

/// Reads what a runtime said: the last message of its log, without time and level.
fn said(log: &Path) -> Option<String> {
    let mut text = String::new();
    let file = File::open(log).ok()?;
    io::Read::read_to_string(&mut io::Read::take(file, 1 << 20), &mut text).ok()?;
    let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
    // runc: time="…" level=error msg="…"; crun: TIME: MESSAGE.
    let message = match line.split_once("msg=") {
        Some((_, quoted)) => {
            serde_json::from_str(quoted.trim()).unwrap_or_else(|_| quoted.to_owned())
        }
        None => line
            .split_once(": ")
            .map_or(line, |(_, rest)| rest)
            .to_owned(),
    };
    Some(message.chars().take(WORDS).collect())
}

/// Returns the signal of a name, as images have it: `SIGTERM`, `TERM` or `15`.
pub(super) fn signal(name: &str) -> Option<Signal> {
    let name = name.trim().to_ascii_uppercase();
    let number = match name.strip_prefix("SIG").unwrap_or(&name) {
        "HUP" => 1,
        "INT" => 2,
        "QUIT" => 3,
        "KILL" => 9,
        "USR1" => 10,
        "USR2" => 12,
        "TERM" => 15,
        "STOP" => 19,
        "WINCH" => 28,
        other => other.parse().ok()?,
    };
    Signal::from_named_raw(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_runtimes() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        for (text, expected) in [
            (
                "time=\"2026-01-01T00:00:00Z\" level=warning msg=\"x\"\ntime=\"2026-01-01T00:00:00Z\" level=error msg=\"exec: \\\"a\\\": not found\"\n",
                "exec: \"a\": not found",
            ),
            (
                "2026-01-01T00:00:00.000000Z: cgroups in hybrid mode not supported, drop all controllers\n\n",
                "cgroups in hybrid mode not supported, drop all controllers",
            ),
            ("something\n", "something"),
        ] {
            std::fs::write(&log, text).unwrap();
            assert_eq!(said(&log).as_deref(), Some(expected));
        }
        std::fs::write(&log, "\n").unwrap();
        assert_eq!(said(&log), None);
    }

    #[test]
    fn runtimes_are_found_by_name_and_by_path() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("runc");
        std::fs::write(&file, "").unwrap();
        let path = folder.path().as_os_str();
        assert_eq!(Engine::find("runc", path), None);
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .unwrap();
        assert_eq!(Engine::find("runc", path).unwrap().path(), file);
        assert_eq!(Engine::find("crun", path), None);
        assert!(Engine::find(file.to_str().unwrap(), OsStr::new("")).is_some());
    }

    #[test]
    fn signals_by_name_and_number() {
        for (name, signal_) in [
            ("SIGTERM", Signal::TERM),
            ("int", Signal::INT),
            ("3", Signal::QUIT),
        ] {
            assert_eq!(signal(name), Some(signal_));
        }
        for name in ["", "SIGNONSENSE", "0", "-1", "1000"] {
            assert_eq!(signal(name), None, "{name}");
        }
    }
}
