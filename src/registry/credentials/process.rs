//! Processes of helpers: started in a group of their own, heard without waiting for whoever else has their pipes, and
//! killed where they do not end. Knows nothing of what is said.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process_group};

/// How much a helper may print, in bytes.
pub(super) const MAX_OUTPUT: usize = 64 << 10;

/// How long to wait at a time, before it is asked whether to stop.
const TICK: Duration = Duration::from_millis(50);

/// A helper that was started. One that did not end is killed with its children, and reaped.
pub(super) struct Running {
    child: Child,
    /// How it ended, if it has.
    pub(super) status: Option<ExitStatus>,
    pub(super) stdout: Pipe,
    pub(super) stderr: Pipe,
}

impl Running {
    /// Starts a program, and gives it `input`, which fits into a pipe.
    pub(super) fn start(path: &Path, argument: &str, input: &str) -> io::Result<Self> {
        let mut child = Command::new(path)
            .arg(argument)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that needs no input may have closed it.
            let _ = stdin.write_all(input.as_bytes());
        }
        let stdout = child.stdout.take().map(OwnedFd::from);
        let stderr = child.stderr.take().map(OwnedFd::from);
        Ok(Self {
            child,
            status: None,
            stdout: Pipe::new(stdout),
            stderr: Pipe::new(stderr),
        })
    }

    /// Tells whether it has ended.
    pub(super) fn ended(&mut self) -> io::Result<bool> {
        if self.status.is_none() {
            self.status = self.child.try_wait()?;
        }
        Ok(self.status.is_some())
    }

    /// Reads what is there, or waits a little for it. Tells whether there was something: bytes, or an end.
    pub(super) fn hear(&mut self, is_over: bool) -> io::Result<bool> {
        let mut fds: Vec<PollFd<'_>> = [&self.stdout, &self.stderr]
            .into_iter()
            .filter_map(|pipe| pipe.file.as_ref())
            .map(|file| PollFd::new(file, PollFlags::IN))
            .collect();
        let wait = match (is_over, fds.is_empty()) {
            (true, _) => Duration::ZERO,
            // Whoever has closed both is about to end.
            (false, true) => Duration::from_millis(1),
            (false, false) => TICK,
        };
        let wait = Timespec {
            tv_sec: 0,
            tv_nsec: wait.subsec_nanos().into(),
        };
        match poll(&mut fds, Some(&wait)) {
            Ok(0) => return Ok(false),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        let mut ready = fds.into_iter().map(|it| !it.revents().is_empty());
        let is_ready = [&self.stdout, &self.stderr]
            .map(|pipe| pipe.file.is_some() && ready.next() == Some(true));
        drop(ready);
        if is_ready[0] {
            self.stdout.read()?;
        }
        if is_ready[1] {
            self.stderr.read()?;
        }
        Ok(true)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // While nobody has waited for it, its id is no other's.
        if self.status.is_none() {
            if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
                let _ = kill_process_group(group, Signal::KILL);
            }
            let _ = self.child.wait();
        }
    }
}

/// One of a helper's outputs.
pub(super) struct Pipe {
    /// `None` when it has ended.
    file: Option<File>,
    /// What was read: a little more than is allowed at most.
    pub(super) bytes: Vec<u8>,
}

impl Pipe {
    fn new(fd: Option<OwnedFd>) -> Self {
        Self {
            file: fd.map(File::from),
            bytes: Vec::new(),
        }
    }

    /// Reads once. What is too much is read and dropped, so that nobody waits for us.
    fn read(&mut self) -> io::Result<()> {
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        let mut buffer = [0; 4096];
        let count = match file.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other?,
        };
        if count == 0 {
            self.file = None;
        } else if self.bytes.len() <= MAX_OUTPUT {
            self.bytes.extend_from_slice(&buffer[..count]);
        }
        Ok(())
    }
}
