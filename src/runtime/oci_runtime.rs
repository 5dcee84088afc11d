//! OCI runtimes of the host: runc, crun and youki, driven by the command line that all of them have.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use crate::shown;

/// The runtimes that are looked for, in this order.
pub(crate) const OCI_RUNTIMES: [&str; 3] = ["runc", "crun", "youki"];

/// How much of a runtime's words is kept, in bytes.
const WORDS: usize = 4096;

/// How long a runtime may take to say something about itself.
const ANSWER: Duration = Duration::from_secs(5);
/// How long a runtime may take to remove a container. It waits for processes itself, up to ten seconds.
pub(super) const REMOVAL: Duration = Duration::from_secs(20);

/// An OCI runtime that is installed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct OciRuntime {
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

/// A runtime that could not set a container up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Refused {
    /// The runtime.
    pub name: String,
    /// Why, as it says.
    pub why: String,
    /// It said so itself on our stderr: people have read it.
    pub is_told: bool,
}

/// Why a runtime did not do what it was asked to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Refusal {
    /// It says why.
    Said(Refused),
    /// It took longer than it might, and was killed.
    Killed,
}

impl Refusal {
    /// Nobody has read what the runtime said.
    fn untold(self) -> Self {
        match self {
            Self::Said(refused) => Self::Said(Refused {
                is_told: false,
                ..refused
            }),
            Self::Killed => Self::Killed,
        }
    }

    /// Returns what the runtime says.
    pub(super) fn said(self) -> Option<Refused> {
        match self {
            Self::Said(refused) => Some(refused),
            Self::Killed => None,
        }
    }
}

/// Tells whether a runtime may still take its time.
pub(super) type HasTime<'a> = &'a mut dyn FnMut() -> bool;

impl OciRuntime {
    /// Finds a runtime by its name, in one of the `folders`, or by its path.
    pub(crate) fn find(name: &str, folders: &[PathBuf]) -> Option<Self> {
        let named = |path: PathBuf| Self {
            name: name.to_owned(),
            path,
        };
        if name.contains('/') {
            let path = std::path::absolute(name).ok()?;
            return path.is_file().then(|| named(path));
        }
        let mut files = folders.iter().map(|folder| folder.join(name));
        // A folder that is named relatively is somebody else's.
        let found = files.find(|file| file.is_absolute() && is_executable(file))?;
        Some(named(found))
    }

    /// Returns where the program is.
    pub(crate) fn path(&self) -> &Path {
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

    /// Sets a container up, so far that [`Self::start`] runs its process. Its process has our standard streams; or it has
    /// nothing to read, and all that it and the runtime say goes to `output`.
    ///
    /// # Errors
    /// What the runtime says against it.
    pub(super) fn create(
        &self,
        handle: Handle<'_>,
        bundle: &Path,
        pid: &Path,
        output: Option<&OwnedFd>,
        has_time: HasTime<'_>,
    ) -> Result<Pid, Refusal> {
        let mut command = self.command(handle);
        command.arg("create").arg("--bundle").arg(bundle);
        command.arg("--pid-file").arg(pid).arg(handle.id);
        if let Some(output) = output {
            let copy = || output.try_clone();
            let copies = copy().and_then(|one| Ok((one, copy()?)));
            let (stdout, stderr) = copies.map_err(|error| Refusal::Said(self.unusable(&error)))?;
            command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        }
        self.run(handle, command, has_time)
            .map_err(|refusal| match output {
                Some(_) => refusal.untold(),
                None => self.corrected(handle, refusal),
            })?;
        read_pid(pid).ok_or_else(|| {
            let why = format!("{} made a container without a process", self.name);
            Refusal::Said(self.refused(why))
        })
    }

    /// Lets the process of a container run.
    ///
    /// # Errors
    /// What the runtime says against it.
    pub(super) fn start(&self, handle: Handle<'_>, has_time: HasTime<'_>) -> Result<(), Refusal> {
        let mut command = self.command(handle);
        command.arg("start").arg(handle.id);
        command.stdin(Stdio::null());
        self.run(handle, command, has_time)
            .map_err(|refusal| self.corrected(handle, refusal))
    }

    /// Sets a container up and runs its process, on our terminal: the runtime stays, passes on what is typed and what is
    /// said, and ends as the process does. With `keeps`, the container stays to be looked at.
    ///
    /// # Errors
    /// When the runtime cannot be run.
    pub(super) fn run_foreground(
        &self,
        handle: Handle<'_>,
        bundle: &Path,
        pid: &Path,
        keeps: bool,
    ) -> Result<Child, Refused> {
        let mut command = self.command(handle);
        command.arg("run").arg("--bundle").arg(bundle);
        command.arg("--pid-file").arg(pid);
        command.args(keeps.then_some("--keep")).arg(handle.id);
        // A process group that the terminal does not know may not read from it: it stays in ours.
        let _ = std::fs::remove_file(handle.log);
        command.spawn().map_err(|error| self.unusable(&error))
    }

    /// Returns why a runtime ended that should have gone on.
    pub(super) fn why(&self, handle: Handle<'_>, status: ExitStatus) -> Refused {
        self.heard(handle, self.said(handle, status))
    }

    /// Ends a container, if it still runs, and removes what the runtime keeps of it; the runtime has `time` for that.
    ///
    /// # Errors
    /// What the runtime says against it.
    pub(super) fn delete(&self, handle: Handle<'_>, time: Duration) -> Result<(), Refusal> {
        let mut command = self.command(handle);
        command.args(["delete", "--force"]).arg(handle.id);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.run(handle, command, &mut within(time))
    }

    /// Tells whether [`Self::run_foreground`] can keep a container: some runtimes know how to, and say so.
    pub(super) fn keeps(&self, handle: Handle<'_>) -> bool {
        self.answer(handle, &["run", "--help"]).contains("--keep")
    }

    fn run(
        &self,
        handle: Handle<'_>,
        mut command: Command,
        has_time: HasTime<'_>,
    ) -> Result<(), Refusal> {
        let _ = std::fs::remove_file(handle.log);
        // Signals of the terminal are ours to pass on.
        let mut child = command
            .process_group(0)
            .spawn()
            .map_err(|error| Refusal::Said(self.unusable(&error)))?;
        match wait(&mut child, has_time) {
            Ok(Some(status)) if status.success() => Ok(()),
            Ok(Some(status)) => Err(Refusal::Said(self.said(handle, status))),
            Ok(None) => Err(Refusal::Killed),
            Err(error) => Err(Refusal::Said(self.unusable(&error))),
        }
    }

    fn said(&self, handle: Handle<'_>, status: ExitStatus) -> Refused {
        let why = said(handle.log);
        Refused {
            is_told: why.is_some(),
            ..self.refused(why.unwrap_or_else(|| format!("{} failed: {status}", self.name)))
        }
    }

    fn refused(&self, why: String) -> Refused {
        Refused {
            name: self.name.clone(),
            why,
            is_told: false,
        }
    }

    fn unusable(&self, error: &io::Error) -> Refused {
        self.refused(format!("{} cannot be run: {error}", self.path.display()))
    }

    /// Finds out whether people have read what is in the log. A container has the stderr of its runtime, so that we cannot
    /// read there; but what a runtime does with one error it does with all. There is no container of the name `none`.
    fn heard(&self, handle: Handle<'_>, mut refused: Refused) -> Refused {
        refused.is_told &= !self.answer(handle, &["state", "none"]).is_empty();
        refused
    }

    fn corrected(&self, handle: Handle<'_>, refusal: Refusal) -> Refusal {
        match refusal {
            Refusal::Said(refused) => Refusal::Said(self.heard(handle, refused)),
            Refusal::Killed => Refusal::Killed,
        }
    }

    /// Returns the beginning of what the runtime prints when it is asked something.
    fn answer(&self, handle: Handle<'_>, question: &[&str]) -> String {
        let path = handle.log.with_extension("answer");
        let ask = || {
            let open = || File::options().create(true).append(true).open(&path);
            let mut command = self.command(handle);
            command.args(question).stdin(Stdio::null());
            command.stdout(open()?).stderr(open()?).process_group(0);
            wait(&mut command.spawn()?, &mut within(ANSWER))?;
            read(&path)
        };
        let said = ask().unwrap_or_default();
        let _ = std::fs::remove_file(path);
        said
    }
}

/// Has time for so long.
fn within(time: Duration) -> impl FnMut() -> bool {
    let end = Instant::now() + time;
    move || Instant::now() < end
}

/// Reads the number that a runtime wrote.
pub(super) fn read_pid(path: &Path) -> Option<Pid> {
    let number = std::fs::read_to_string(path).ok()?;
    Pid::from_raw(number.trim().parse().ok()?)
}

/// Waits for the end of a program that leads its process group. When there is no more time, it is killed: `None`.
fn wait(child: &mut Child, has_time: HasTime<'_>) -> io::Result<Option<ExitStatus>> {
    let pid = Pid::from_child(child);
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if !has_time() {
            let _ = kill_process_group(pid, Signal::KILL);
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        pause(&process, Duration::from_millis(100))?;
    }
}

/// Waits until a process ends, or a signal arrives, but no longer than that.
pub(super) fn pause(process: &OwnedFd, time: Duration) -> io::Result<()> {
    let mut fds = [PollFd::new(process, PollFlags::IN)];
    let time = Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    };
    match poll(&mut fds, Some(&time)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
}

/// Reads what a runtime said: the last message of its log, without time and level.
fn said(log: &Path) -> Option<String> {
    let text = read(log).ok()?;
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
    Some(shown::text(&message).chars().take(WORDS).collect())
}

/// Reads the beginning of a file.
fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(File::open(path)?, 1 << 20), &mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
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
        let path = &[folder.path().to_owned()];
        assert_eq!(OciRuntime::find("runc", path), None);
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .unwrap();
        assert_eq!(OciRuntime::find("runc", path).unwrap().path(), file);
        assert_eq!(OciRuntime::find("crun", path), None);
        assert!(OciRuntime::find(file.to_str().unwrap(), &[]).is_some());
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
