//! A container on our terminal: the runtime makes the container's own terminal and copies between the two, so it stays
//! until the process ends, and its exit code is the process's.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

use super::asks::Asks;
use super::cgroup::Cgroups;
use super::children::Since;
use super::container::{TURN, given_up, io, next, watched};
use super::engine::{Engine, REMOVAL, pause, read_pid};
use super::room::Room;
use super::{ApplyError, Container, Ended, RunError, bundle, points};

/// How long is waited for a limit to be in force: some runtimes name the process before they set it.
const LIMITS: Duration = Duration::from_secs(2);
/// How often it is looked whether the process runs.
const STEP: Duration = Duration::from_millis(10);

/// A runtime that has our terminal. Dropped, it is ended, and the terminal is as it was.
struct Attendant {
    child: Child,
    before: Option<Termios>,
}

impl Attendant {
    /// Returns how the runtime ended, if it did.
    fn status(&mut self) -> Result<Option<ExitStatus>, RunError> {
        self.child.try_wait().map_err(io("wait for the runtime"))
    }

    /// Passes the news of another size on: the runtime sets that of the container's terminal.
    fn resize(&self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::WINCH);
    }
}

impl Drop for Attendant {
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
    pub(super) fn attend(
        &self,
        room: &Room,
        spec: &bundle::Spec,
        asks: &mut Asks<'_>,
        since: Since,
    ) -> Result<Ended, RunError> {
        asks.attend();
        let mut refused = Vec::new();
        for engine in self.engines {
            next(&refused, engine, asks);
            points::check(&room.root(), &spec.json)?;
            room.note(engine).map_err(io("write to the cache"))?;
            // Its control group tells whether it was killed for its memory: the container must not go before that.
            let keeps = self.options.memory.is_some() && room.with(|handle| engine.keeps(handle));
            let before = tcgetattr(std::io::stdin()).ok();
            let child =
                room.with(|handle| engine.attend(handle, &room.bundle(), &room.pid(), keeps));
            let child = match child {
                Ok(child) => child,
                Err(why) => {
                    refused.push(why);
                    continue;
                }
            };
            let mut runtime = Attendant { child, before };
            match set_up(&mut runtime, room, asks)? {
                // Typed before it ran, since a terminal that it has sends no signals: what began goes with the room.
                Setup::Runs(_) if asks.is_typed() => return Err(ApplyError::Stopped.into()),
                Setup::Runs(pid) => return self.accompany(engine, pid, &mut runtime, asks),
                Setup::Late => {
                    drop(runtime);
                    return Err(given_up(engine, room, asks, since));
                }
                // The process was quick. What a runtime says against it is read on the terminal.
                Setup::Ended(status) if read_pid(&room.pid()).is_some() => {
                    return Ok(ended(status, false));
                }
                Setup::Ended(_) if asks.is_asked() => return Err(ApplyError::Stopped.into()),
                Setup::Ended(status) => {
                    let why = room.with(|handle| engine.why(handle, status));
                    let _ = room.with(|handle| engine.delete(handle, REMOVAL));
                    refused.push(why);
                }
            }
        }
        Err(RunError::Engines(refused))
    }

    /// Waits for the end of a process that its runtime attends.
    fn accompany(
        &self,
        engine: &Engine,
        pid: Pid,
        runtime: &mut Attendant,
        asks: &mut Asks<'_>,
    ) -> Result<Ended, RunError> {
        // It may have ended: then the runtime does, too.
        let Ok(process) = watched(pid) else {
            let status = runtime.child.wait().map_err(io("wait for the runtime"))?;
            return Ok(ended(status, false));
        };
        asks.ignore_typed();
        let cgroups = self.limited(engine, pid, runtime)?;
        let attendant = watched(Pid::from_child(&runtime.child))?;
        loop {
            if let Some(status) = runtime.status()? {
                let out_of_memory = cgroups.killed_for_memory() > 0;
                return Ok(ended(status, out_of_memory));
            }
            asks.listen();
            if asks.take_resized() {
                runtime.resize();
            }
            self.pass_on(&process, asks);
            pause(&attendant, TURN).map_err(io("wait for the runtime"))?;
        }
    }

    /// Returns the control groups of the process once they limit it as they should.
    fn limited(
        &self,
        engine: &Engine,
        pid: Pid,
        runtime: &mut Attendant,
    ) -> Result<Cgroups, RunError> {
        let end = Instant::now() + LIMITS;
        loop {
            let cgroups = Cgroups::of(pid);
            match self.check_limits(engine, &cgroups) {
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
fn set_up(runtime: &mut Attendant, room: &Room, asks: &mut Asks<'_>) -> Result<Setup, RunError> {
    loop {
        if let Some(status) = runtime.status()? {
            asks.listen();
            return Ok(Setup::Ended(status));
        }
        let has_time = asks.have_time();
        if let Some(pid) = read_pid(&room.pid()) {
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
