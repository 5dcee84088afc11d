//! Runs a command in the root of an image, sealed off: nothing to read, no terminal, no host but its kernel. How long it
//! takes and what it may use is bounded; the end of what it says is kept; what it changed is read back.

use std::cell::Cell;
use std::collections::{BTreeSet, VecDeque};
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::changed::{Before, Changed, Changes, Ids, Marks, Snapshot, Span};
use super::container::{MadeRoot, Watch, io};
use super::oci_runtime::{OciRuntime, REMOVAL};
use super::run_folder::RunFolder;
use super::{ApplyError, Container, Ended, Image, Limits, RunError, bundle};
use crate::layer::{LayerPath, Tick};
use crate::store::Store;

/// How long it is waited for more words at once, in milliseconds.
const TURN: i64 = 50;

/// A command to be run.
pub(crate) struct Sealed<'a> {
    /// The image that is its root.
    pub image: &'a Image<'a>,
    /// What is run, and how that differs from what the image says.
    pub options: &'a bundle::Options,
    /// The runtimes to try, in this order.
    pub oci_runtimes: &'a [OciRuntime],
    /// How long it may take.
    pub time: Duration,
    /// How many bytes of what it says are kept: the last ones.
    pub words: usize,
    /// Whether what it changed keeps its modification times, in whole seconds; else they are 0.
    pub keep_mtime: bool,
    /// What is read back of it, whether the command changed it or not; all that it changed, if nothing is said.
    pub outputs: Option<&'a BTreeSet<LayerPath>>,
    /// How much it may change.
    pub limits: &'a Limits,
}

/// What became of a command.
pub(crate) struct Outcome {
    /// How it ended.
    pub ended: Ended,
    /// It was killed, since it took too long.
    pub is_late: bool,
    /// The end of what it said, on standard output and standard error together.
    pub words: Vec<u8>,
    /// What it changed, if it ended well.
    pub changes: Option<Changes>,
}

impl Sealed<'_> {
    /// Runs the command until it ends, and writes what its new files hold to `contents`.
    ///
    /// # Errors
    /// When it cannot be run, was stopped, or changed what no layer can hold. What it said against it is no error.
    pub(crate) fn run(
        &self,
        store: &Store,
        contents: &mut dyn Write,
        note: &dyn Fn(&str),
        tick: Tick<'_>,
    ) -> Result<Outcome, RunError> {
        let run_folder =
            RunFolder::new(&store.runs()).map_err(io("make a folder for the run in the cache"))?;
        let (reader, writer) = io::pipe().map_err(io("make a pipe"))?;
        let output = OwnedFd::from(writer);
        let container = Container {
            image: self.image,
            options: self.options,
            oci_runtimes: self.oci_runtimes,
            // Who stops a build waits for nothing.
            grace: Duration::ZERO,
            output: Some(&output),
        };
        let clock = Clock {
            note,
            tick,
            time: self.time,
            end: Cell::new(None),
            is_late: Cell::new(false),
            is_stopped: Cell::new(false),
        };
        let (spec, made) = container.prepare(&run_folder, store, &clock, tick)?;
        let except = points(&spec);
        let (root, upper) = (run_folder.root(), run_folder.upper());
        let ids = self.ids();
        let changed = Changed {
            root: match made {
                MadeRoot::Overlay(_) if self.outputs.is_none() => &upper,
                _ => &root,
            },
            ids: &ids,
            except: &except,
            only: self.outputs,
            keep_mtime: self.keep_mtime,
            skip_special: true,
            limits: self.limits,
            tick,
        };
        let snapshot = match made {
            _ if self.outputs.is_some() => Some(changed.nothing()?),
            MadeRoot::Overlay(_) => None,
            MadeRoot::Own => Some(changed.snapshot()?),
        };
        let is_over = AtomicBool::new(false);
        let (ended, words) = thread::scope(|scope| {
            let words = scope.spawn(|| last_words(reader, self.words, &is_over));
            let ended = container.start(&run_folder, &spec, &clock);
            // What it left behind ends with it; then nobody says anything any more.
            is_over.store(true, Ordering::Relaxed);
            (ended, words.join().unwrap_or_default())
        });
        if clock.is_stopped.get() {
            return Err(ApplyError::Stopped.into());
        }
        let (ended, is_late) = (ended?, clock.is_late.get());
        let changes = match ended.code == 0 && !is_late {
            true => Some(changes(&changed, &made, snapshot, &run_folder, contents)?),
            false => None,
        };
        Ok(Outcome {
            ended,
            is_late,
            words,
            changes,
        })
    }

    /// Returns whom the owners of what is changed are for the command.
    fn ids(&self) -> Ids {
        let Some(user) = self.options.rootless else {
            return Ids::host();
        };
        let root_is = |outside: u32| {
            vec![Span {
                inside: 0,
                outside,
                count: 1,
            }]
        };
        Ids {
            users: root_is(user.uid),
            groups: root_is(user.gid),
        }
    }
}

/// Reads what was changed. The container is removed first: nobody may write there meanwhile.
fn changes(
    changed: &Changed<'_>,
    made: &MadeRoot,
    snapshot: Option<Snapshot>,
    run_folder: &RunFolder,
    contents: &mut dyn Write,
) -> Result<Changes, RunError> {
    run_folder.remove_container(REMOVAL);
    let before = match (made, &snapshot) {
        (_, Some(snapshot)) => Before::Snapshot(snapshot),
        (MadeRoot::Overlay(below), None) => {
            run_folder
                .unmount()
                .map_err(io("take the root of the command away"))?;
            Before::Overlay {
                lower: below,
                marks: Marks::Trusted,
            }
        }
        (MadeRoot::Own, None) => unreachable!("a snapshot was taken of it"),
    };
    Ok(changed.read(before, contents)?)
}

/// Returns where runtimes mount something, and make what they mount it on.
fn points(spec: &bundle::Spec) -> BTreeSet<LayerPath> {
    let mounts = spec.json["mounts"].as_array().into_iter().flatten();
    let points = mounts.filter_map(|it| it["destination"].as_str());
    points.filter_map(|it| LayerPath::parse(it).ok()).collect()
}

/// The time of a command, and the wish to stop it: both reach it as signals.
struct Clock<'a> {
    note: &'a dyn Fn(&str),
    tick: Tick<'a>,
    time: Duration,
    /// When it must have ended; from its start on.
    end: Cell<Option<Instant>>,
    is_late: Cell<bool>,
    is_stopped: Cell<bool>,
}

impl Watch for Clock<'_> {
    fn note(&self, text: &str) {
        // Why a command was killed is told by whoever knows what it was.
        if !self.is_stopped.get() {
            (self.note)(text);
        }
    }

    fn unpacks(&self) {}

    fn signals(&self) -> Vec<i32> {
        const KILL: i32 = 9;
        const TERM: i32 = 15;
        if !(self.tick)(0) {
            // The second one says that nobody waits.
            return match self.is_stopped.replace(true) {
                false => vec![TERM, TERM],
                true => Vec::new(),
            };
        }
        let is_over = self.end.get().is_some_and(|end| Instant::now() >= end);
        match is_over && !self.is_late.replace(true) {
            true => vec![KILL],
            false => Vec::new(),
        }
    }

    fn starts(&self) -> bool {
        self.end.set(Instant::now().checked_add(self.time));
        (self.tick)(0)
    }
}

/// Reads a pipe until nobody can write to it any more, or it `is_over` and nothing is left. Keeps the last bytes.
fn last_words(mut reader: PipeReader, most: usize, is_over: &AtomicBool) -> Vec<u8> {
    let mut words = VecDeque::new();
    let mut block = [0; 16 << 10];
    loop {
        let was_over = is_over.load(Ordering::Relaxed);
        let time = Timespec {
            tv_sec: 0,
            tv_nsec: TURN * 1_000_000,
        };
        let ready = {
            let mut fds = [PollFd::from_borrowed_fd(reader.as_fd(), PollFlags::IN)];
            match poll(&mut fds, Some(&time)) {
                Ok(count) => count > 0,
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => return words.into(),
            }
        };
        if !ready {
            match was_over {
                true => return words.into(),
                false => continue,
            }
        }
        match reader.read(&mut block) {
            Ok(0) | Err(_) => return words.into(),
            Ok(count) => {
                words.extend(&block[..count]);
                words.drain(..words.len().saturating_sub(most));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_are_kept() {
        let (reader, mut writer) = io::pipe().unwrap();
        let is_over = AtomicBool::new(false);
        let words = thread::scope(|scope| {
            let words = scope.spawn(|| last_words(reader, 5, &is_over));
            for _ in 0..100_000 {
                writer.write_all(b"abc").unwrap();
            }
            writer.write_all(b"the end").unwrap();
            drop(writer);
            words.join().unwrap()
        });
        assert_eq!(words, b"e end");
    }

    #[test]
    fn words_end_when_it_is_over_whoever_has_the_pipe() {
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"x").unwrap();
        assert_eq!(last_words(reader, 5, &AtomicBool::new(true)), b"x");
        drop(writer);
    }

    #[test]
    fn time_and_the_wish_to_stop_are_told_once() {
        let go_on = AtomicBool::new(true);
        let tick = |_: u64| go_on.load(Ordering::Relaxed);
        let clock = Clock {
            note: &|_| {},
            tick: &tick,
            time: Duration::ZERO,
            end: Cell::new(None),
            is_late: Cell::new(false),
            is_stopped: Cell::new(false),
        };
        assert!(clock.signals().is_empty() && clock.starts());
        assert_eq!(clock.signals(), [9]);
        assert!(clock.signals().is_empty() && clock.is_late.get());
        go_on.store(false, Ordering::Relaxed);
        assert_eq!(clock.signals(), [15, 15]);
        assert!(clock.signals().is_empty() && clock.is_stopped.get() && !clock.starts());
    }
}
