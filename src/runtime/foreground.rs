//! A container on our terminal: the runtime makes the container's own terminal and copies between the two, so it stays
//! until the process ends, and its exit code is the process's.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

use super::cgroup::Cgroups;
use super::container::{TURN, given_up, io, next, watched};
use super::oci_runtime::{OciRuntime, REMOVAL, pause, read_pid};
use super::reaper::Reaper;
use super::run_folder::RunFolder;
use super::signals::Signals;
use super::{ApplyError, Container, Ended, RunError, bundle, mount_points};

/// How long is waited for a limit to be in force: some runtimes name the process before they set it.
const LIMITS: Duration = Duration::from_secs(2);
/// How often it is looked whether the process runs.
const STEP: Duration = Duration::from_millis(10);

/// A runtime that has our terminal. Dropped, it is ended, and the terminal is as it was.
struct ForegroundRuntime {
    child: Child,
    before: Option<Termios>,
}

impl ForegroundRuntime {
    /// Returns how the runtime ended, if it did.
    fn status(&mut self) -> Result<Option<ExitStatus>, RunError> {
        self.child.try_wait().map_err(io("wait for the runtime"))
    }

    /// Passes the news of another size on: the runtime sets that of the container's terminal.
    fn resize(&self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::WINCH);
    }
}

impl Drop for ForegroundRuntime {
    fn drop(&mut self) {
        // One that ended by itself has set the terminal back.
        let status = self.child.try_wait().ok().flatten();
        if status.is_some_and(|it| it.code().is_some()) {
            return;
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(before) = &self.before {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// How far a runtime came.
enum Setup {
    /// The process runs.
    Runs(Pid),
    /// The runtime ended before that was seen.
    Ended(ExitStatus),
    /// There was no more time.
    Late,
}

impl Container<'_> {
    /// Runs the container on our terminal, by the first runtime that can.
    pub(super) fn run_foreground(
        &self,
        run_folder: &RunFolder,
        spec: &bundle::Spec,
        signals: &mut Signals<'_>,
        reaper: Reaper,
    ) -> Result<Ended, RunError> {
        signals.share_terminal();
        let mut refused = Vec::new();
        for oci_runtime in self.oci_runtimes {
            next(&refused, oci_runtime, signals);
            mount_points::check(&run_folder.root(), &spec.json)?;
            run_folder
                .note(oci_runtime)
                .map_err(io("write to the cache"))?;
            // Its control group tells whether it was killed for its memory: the container must not go before that.
            let keeps = self.options.memory.is_some()
                && run_folder.with(|handle| oci_runtime.keeps(handle));
            let before = tcgetattr(std::io::stdin()).ok();
            let child = run_folder.with(|handle| {
                oci_runtime.run_foreground(handle, &run_folder.bundle(), &run_folder.pid(), keeps)
            });
            let child = match child {
                Ok(child) => child,
                Err(why) => {
                    refused.push(why);
                    continue;
                }
            };
            let mut runtime = ForegroundRuntime { child, before };
            match set_up(&mut runtime, run_folder, signals)? {
                // It was typed before the process ran: a terminal that the runtime has made its own sends no signals.
                // What began is removed with the run's folder.
                Setup::Runs(_) if signals.is_stop_typed() => return Err(ApplyError::Stopped.into()),
                Setup::Runs(pid) => {
                    return self.wait_foreground(oci_runtime, pid, &mut runtime, signals);
                }
                Setup::Late => {
                    drop(runtime);
                    return Err(given_up(oci_runtime, run_folder, signals, reaper));
                }
                // The process was quick. What a runtime says against it is read on the terminal.
                Setup::Ended(status) if read_pid(&run_folder.pid()).is_some() => {
                    return Ok(ended(status, false));
                }
                Setup::Ended(_) if signals.is_stop_requested() => {
                    return Err(ApplyError::Stopped.into());
                }
                Setup::Ended(status) => {
                    let why = run_folder.with(|handle| oci_runtime.why(handle, status));
                    let _ = run_folder.with(|handle| oci_runtime.delete(handle, REMOVAL));
                    refused.push(why);
                }
            }
        }
        Err(RunError::Runtimes(refused))
    }

    /// Waits for the end of a process whose runtime has our terminal.
    fn wait_foreground(
        &self,
        oci_runtime: &OciRuntime,
        pid: Pid,
        runtime: &mut ForegroundRuntime,
        signals: &mut Signals<'_>,
    ) -> Result<Ended, RunError> {
        // It may have ended: then the runtime does, too.
        let Ok(process) = watched(pid) else {
            let status = runtime.child.wait().map_err(io("wait for the runtime"))?;
            return Ok(ended(status, false));
        };
        signals.ignore_typed();
        let cgroups = self.limited(oci_runtime, pid, runtime)?;
        let exit = watched(Pid::from_child(&runtime.child))?;
        loop {
            if let Some(status) = runtime.status()? {
                let out_of_memory = cgroups.killed_for_memory() > 0;
                return Ok(ended(status, out_of_memory));
            }
            signals.listen();
            if signals.take_resized() {
                runtime.resize();
            }
            self.pass_on(&process, signals);
            pause(&exit, TURN).map_err(io("wait for the runtime"))?;
        }
    }

    /// Returns the control groups of the process once they limit it as they should.
    fn limited(
        &self,
        oci_runtime: &OciRuntime,
        pid: Pid,
        runtime: &mut ForegroundRuntime,
    ) -> Result<Cgroups, RunError> {
        let end = Instant::now() + LIMITS;
        loop {
            let cgroups = Cgroups::of(pid);
            match self.check_limits(oci_runtime, &cgroups) {
                Ok(()) => return Ok(cgroups),
                // Nothing is left to be limited.
                Err(_) if runtime.status()?.is_some() => return Ok(cgroups),
                Err(error) if Instant::now() >= end => return Err(error),
                Err(_) => std::thread::sleep(STEP),
            }
        }
    }
}

/// Waits until the process runs: the runtime writes its number then.
fn set_up(
    runtime: &mut ForegroundRuntime,
    run_folder: &RunFolder,
    signals: &mut Signals<'_>,
) -> Result<Setup, RunError> {
    loop {
        if let Some(status) = runtime.status()? {
            signals.listen();
            return Ok(Setup::Ended(status));
        }
        let has_time = signals.have_time();
        if let Some(pid) = read_pid(&run_folder.pid()) {
            return Ok(Setup::Runs(pid));
        }
        if !has_time {
            return Ok(Setup::Late);
        }
        std::thread::sleep(STEP);
    }
}

fn ended(status: ExitStatus, out_of_memory: bool) -> Ended {
    let code = status.code().or_else(|| Some(128 + status.signal()?));
    let code = code.and_then(|it| u8::try_from(it).ok()).unwrap_or(255);
    Ended {
        code,
        // A runtime says 128 and the number of the signal, as shells do.
        out_of_memory: out_of_memory && code == 137,
    }
}
