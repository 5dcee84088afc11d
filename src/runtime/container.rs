//! Runs a container: its root is made, an OCI runtime sets it up, and it is watched until it ends.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, getpid, pidfd_open, pidfd_send_signal,
    set_child_subreaper, waitpid,
};

use super::cgroup::Cgroups;
use super::changed::ChangedError;
use super::oci_runtime::{OciRuntime, REMOVAL, Refusal, Refused, pause, signal};
use super::program::{self, ProgramError};
use super::reaper::Reaper;
use super::run_folder::RunFolder;
use super::signals::{Signals, stops};
use super::{ApplyError, Image, Limits, StagingFolder, apply, bundle, mount_points};
use crate::layer::Tick;
use crate::oci::Digest;
use crate::store::{Store, StoreError};

/// A container to be run.
pub(crate) struct Container<'a> {
    /// The image.
    pub image: &'a Image<'a>,
    /// How it differs from what the image says.
    pub options: &'a bundle::Options,
    /// The runtimes to try, in this order.
    pub oci_runtimes: &'a [OciRuntime],
    /// How long a process has to end after it was asked to.
    pub grace: Duration,
    /// Where all that it says goes, if not to our own standard streams; then it has nothing to read, either.
    pub output: Option<&'a OwnedFd>,
}

/// How the root of a container was made.
pub(super) enum MadeRoot {
    /// A folder for changes lies on top of this one, which nobody changes.
    Overlay(PathBuf),
    /// It is a folder of its own.
    Own,
}

/// How a container ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ended {
    /// The process's exit code, or 128 and the number of the signal that ended it.
    pub code: u8,
    /// It was killed, since there was no more memory for it.
    pub out_of_memory: bool,
}

/// A container that did not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// The image cannot be unpacked.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The image says nothing that can be run.
    #[error(transparent)]
    Bundle(#[from] bundle::BundleError),
    /// The image does not have what it is to run.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The cache is of no use.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Something on the host fails.
    #[error("cannot {what}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// No runtime could set it up.
    #[error("{} could not set the container up", names(.0))]
    Runtimes(Vec<Refused>),
    /// What it changed cannot be read.
    #[error(transparent)]
    Changed(#[from] ChangedError),
    /// Only root changes roots.
    #[error("only root may change the root of a process")]
    Root,
    /// A limit is not in force.
    #[error("{oci_runtime} did not set the limit of {limit}")]
    Limit {
        /// The runtime.
        oci_runtime: String,
        /// The limit.
        limit: &'static str,
    },
}

impl RunError {
    /// Returns the name of the kind of error.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Apply(_) => "imgdecl::run::unpack",
            Self::Bundle(bundle::BundleError::NoCommand) => "imgdecl::run::command",
            Self::Bundle(bundle::BundleError::User(_)) => "imgdecl::run::user",
            Self::Bundle(_) => "imgdecl::run::bundle",
            Self::Program(_) => "imgdecl::run::program",
            Self::Runtimes(_) => "imgdecl::run::runtime",
            Self::Limit { .. } => "imgdecl::run::limit",
            Self::Root => "imgdecl::run::root",
            Self::Changed(_) | Self::Store(_) | Self::Io { .. } => "imgdecl::run",
        }
    }
}

/// How long a runtime that was killed has to remove what it began: it showed that it may well hang.
const REMNANTS: Duration = Duration::from_secs(2);

fn names(refused: &[Refused]) -> String {
    let names: Vec<&str> = refused.iter().map(|it| &*it.name).collect();
    names.join(" and ")
}

pub(super) fn io(what: &'static str) -> impl Fn(io::Error) -> RunError {
    move |source| RunError::Io { what, source }
}

/// What happens while a container runs, for people and from them.
pub(crate) trait Watch {
    /// Says something.
    fn note(&self, text: &str);
    /// Called before an image is unpacked, which can take a while.
    fn unpacks(&self);
    /// Returns the signals that arrived since it was last asked, by number.
    fn signals(&self) -> Vec<i32>;
    /// Called when the container is about to start: from now on the terminal is its own. Returns false where the user
    /// asked to stop before that.
    fn starts(&self) -> bool;
}

impl Container<'_> {
    /// Runs it until it ends.
    ///
    /// # Errors
    /// When it cannot be run. What its process did is no error: see [`Ended`].
    pub(crate) fn run(
        &self,
        store: &Store,
        watch: &dyn Watch,
        tick: Tick<'_>,
    ) -> Result<Ended, RunError> {
        let run_folder =
            RunFolder::new(&store.runs()).map_err(io("make a folder for the run in the cache"))?;
        let (spec, _) = self.prepare(&run_folder, store, watch, tick)?;
        self.start(&run_folder, &spec, watch)
    }

    /// Makes the container's root and its bundle.
    pub(super) fn prepare(
        &self,
        run_folder: &RunFolder,
        store: &Store,
        watch: &dyn Watch,
        tick: Tick<'_>,
    ) -> Result<(bundle::Spec, MadeRoot), RunError> {
        let made = self.root(run_folder, store, watch, tick)?;
        let spec = bundle::spec(self.image.config, &run_folder.root(), self.options)?;
        spec.notes.iter().for_each(|note| watch.note(note));
        // What is mounted may bring the program; below /etc there is none.
        let is_whole = |it: &bundle::Bind| it.destination.starts_with("/etc/");
        if self.options.mounts.iter().all(is_whole) {
            program::check(&run_folder.root(), &spec.json["process"])?;
        }
        #[expect(clippy::disallowed_methods, reason = "in a folder of this run alone")]
        std::fs::write(run_folder.bundle().join("config.json"), spec.to_bytes())
            .map_err(io("write the bundle"))?;
        Ok((spec, made))
    }

    /// Sets the container up, and runs it until it ends.
    pub(super) fn start(
        &self,
        run_folder: &RunFolder,
        spec: &bundle::Spec,
        watch: &dyn Watch,
    ) -> Result<Ended, RunError> {
        // The container's first process becomes our child when the runtime has set it up and ends.
        set_child_subreaper(Some(getpid())).map_err(|error| io("adopt processes")(error.into()))?;
        let reaper = Reaper::new();
        if !watch.starts() {
            return Err(ApplyError::Stopped.into());
        }
        let mut signals = Signals::new(watch, self.grace);
        if self.options.terminal {
            return self.run_foreground(run_folder, spec, &mut signals, reaper);
        }
        let (oci_runtime, pid) = self.create(run_folder, spec, &mut signals, reaper)?;
        self.watch(oci_runtime, pid, run_folder, signals, reaper)
    }

    /// Makes the container's root: a cached one with a folder for changes on top, or one of its own.
    fn root(
        &self,
        run_folder: &RunFolder,
        store: &Store,
        watch: &dyn Watch,
        tick: Tick<'_>,
    ) -> Result<MadeRoot, RunError> {
        let limits = Limits::default();
        if self.options.rootless.is_none() {
            let below = self.cached(store, &limits, watch, tick)?;
            if run_folder.overlay(&below).is_ok() {
                return Ok(MadeRoot::Overlay(below));
            }
        }
        std::fs::create_dir_all(run_folder.root()).map_err(io("make a folder for the bundle"))?;
        watch.unpacks();
        apply(self.image, &run_folder.root(), &limits, tick)?;
        Ok(MadeRoot::Own)
    }

    /// Returns the root of the image in the cache, unpacked if it is not there.
    fn cached(
        &self,
        store: &Store,
        limits: &Limits,
        watch: &dyn Watch,
        tick: Tick<'_>,
    ) -> Result<PathBuf, RunError> {
        let mut text = String::from("root 1");
        for diff_id in self.image.config.diff_ids().map_err(ApplyError::from)? {
            text.push_str(&format!(" {diff_id}"));
        }
        let key = Digest::of(text.as_bytes());
        let path = store.root_path(&key)?;
        // Whoever comes second waits for the first one.
        let _lock = loop {
            if let Some(lock) = store.try_lock(&key)? {
                break lock;
            }
            if !tick(0) {
                return Err(ApplyError::Stopped.into());
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        if !path.is_dir() {
            watch.unpacks();
            let stage = StagingFolder::new(&path)?;
            apply(self.image, stage.path(), limits, tick)?;
            stage.commit()?;
        }
        Ok(path)
    }

    /// Lets the first runtime that can set the container up.
    fn create(
        &self,
        run_folder: &RunFolder,
        spec: &bundle::Spec,
        signals: &mut Signals<'_>,
        reaper: Reaper,
    ) -> Result<(&OciRuntime, Pid), RunError> {
        let mut refused = Vec::new();
        for oci_runtime in self.oci_runtimes {
            next(&refused, oci_runtime, signals);
            // Again: what a runtime did before this one may have changed the root.
            mount_points::check(&run_folder.root(), &spec.json)?;
            run_folder
                .note(oci_runtime)
                .map_err(io("write to the cache"))?;
            let mut has_time = || signals.have_time();
            let made = run_folder.with(|handle| {
                oci_runtime.create(
                    handle,
                    &run_folder.bundle(),
                    &run_folder.pid(),
                    self.output,
                    &mut has_time,
                )
            });
            if made == Err(Refusal::Killed) {
                return Err(given_up(oci_runtime, run_folder, signals, reaper));
            }
            signals.listen();
            // What has not begun need not be asked to end: it goes with the run's folder.
            if signals.is_stop_requested() {
                return Err(ApplyError::Stopped.into());
            }
            match made {
                Ok(pid) => return Ok((oci_runtime, pid)),
                Err(refusal) => {
                    let _ = run_folder.with(|handle| oci_runtime.delete(handle, REMOVAL));
                    refused.extend(refusal.said());
                }
            }
        }
        Err(RunError::Runtimes(refused))
    }

    /// Starts the process of a container that is set up, and waits for its end.
    fn watch(
        &self,
        oci_runtime: &OciRuntime,
        pid: Pid,
        run_folder: &RunFolder,
        mut signals: Signals<'_>,
        reaper: Reaper,
    ) -> Result<Ended, RunError> {
        let cgroups = Cgroups::of(pid);
        self.check_limits(oci_runtime, &cgroups)?;
        let process = watched(pid)?;
        let started =
            run_folder.with(|handle| oci_runtime.start(handle, &mut || signals.have_time()));
        match started {
            Ok(()) => {}
            Err(Refusal::Killed) => {
                return Err(given_up(oci_runtime, run_folder, &signals, reaper));
            }
            Err(Refusal::Said(refused)) => return Err(RunError::Runtimes(vec![refused])),
        }
        let status = loop {
            let ended = waitpid(Some(pid), WaitOptions::NOHANG);
            if let Some((_, status)) =
                ended.map_err(|error| io("wait for the container")(error.into()))?
            {
                break status;
            }
            signals.listen();
            self.pass_on(&process, &mut signals);
            pause(&process, TURN).map_err(io("wait for the container"))?;
        };
        let out_of_memory =
            cgroups.killed_for_memory() > 0 && status.terminating_signal() == Some(9);
        let code = match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => code,
            (None, Some(signal)) => 128 + signal,
            (None, None) => 255,
        };
        Ok(Ended {
            code: u8::try_from(code & 0xff).unwrap_or(255),
            out_of_memory,
        })
    }

    /// A limit that is not in force must not look as if it was.
    pub(super) fn check_limits(
        &self,
        oci_runtime: &OciRuntime,
        cgroups: &Cgroups,
    ) -> Result<(), RunError> {
        let missing = |limit| {
            Err(RunError::Limit {
                oci_runtime: oci_runtime.name.clone(),
                limit,
            })
        };
        // The kernel rounds memory to whole pages.
        let page = rustix::param::page_size() as u64;
        if self.options.memory.is_some_and(|wanted| {
            cgroups
                .memory()
                .is_none_or(|it| it.abs_diff(wanted) >= page)
        }) {
            return missing("memory");
        }
        if self
            .options
            .millicpus
            .is_some_and(|wanted| cgroups.millicpus().is_none_or(|it| it.abs_diff(wanted) > 1))
        {
            return missing("CPU time");
        }
        if self
            .options
            .pids
            .is_some_and(|wanted| cgroups.pids() != Some(wanted))
        {
            return missing("processes");
        }
        Ok(())
    }

    /// Passes signals on. Who was asked to stop, and does not, is killed.
    pub(super) fn pass_on(&self, process: &OwnedFd, signals: &mut Signals<'_>) {
        let stop = self.image.config.runtime("StopSignal");
        let stop = stop.and_then(|it| signal(it.as_str()?));
        for number in signals.take() {
            let sent = match stop.filter(|_| matches!(number, 2 | 15)) {
                _ if stops(number) && signals.is_stop_repeated() => Some(Signal::KILL),
                Some(own) => Some(own),
                None => Signal::from_named_raw(number),
            };
            if let Some(sent) = sent {
                // It may just have ended.
                let _ = pidfd_send_signal(process, sent);
            }
        }
        if signals.is_late() {
            signals.note_late("it");
            let _ = pidfd_send_signal(process, Signal::KILL);
        }
    }
}

/// How long is waited for an end before it is looked for signals again.
pub(super) const TURN: Duration = Duration::from_millis(100);

/// Opens a process, so that its end can be waited for, and signals reach it and nobody else.
pub(super) fn watched(pid: Pid) -> Result<OwnedFd, RunError> {
    let process = pidfd_open(pid, PidfdFlags::empty());
    process.map_err(|error| io("watch the container")(error.into()))
}

/// Says why another runtime is tried.
pub(super) fn next(refused: &[Refused], oci_runtime: &OciRuntime, signals: &Signals<'_>) {
    let Some(Refused { name, why, is_told }) = refused.last() else {
        return;
    };
    let why = if *is_told {
        String::new()
    } else {
        format!(": {why}")
    };
    signals.note(&format!(
        "{name} cannot run it{why}; trying {}",
        oci_runtime.name
    ));
}

/// Removes what a runtime left that was killed while it set a container up, and says that it was.
pub(super) fn given_up(
    oci_runtime: &OciRuntime,
    run_folder: &RunFolder,
    signals: &Signals<'_>,
    reaper: Reaper,
) -> RunError {
    if !signals.is_stop_repeated() {
        signals.note_late(&oci_runtime.name);
    }
    reaper.kill_children();
    let _ = run_folder.with(|handle| oci_runtime.delete(handle, REMNANTS));
    reaper.kill_children();
    run_folder.forget();
    ApplyError::Stopped.into()
}
