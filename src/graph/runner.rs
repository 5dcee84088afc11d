//! The port to what runs commands in images. An action says which layers are the root, what runs and within which limits,
//! and gets back what became of it: a tree of what changed. Who runs it is on a higher floor: an OCI runtime of this
//! machine, perhaps another machine. Knows no rule.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::ports::Offline;
use super::{ActionError, Context, Layer};
use crate::layer::{Clash, LayerPath, Tree};
use crate::oci::Config;

/// A command to be run in the root of an image: without a network, a terminal, or anything of this machine but its kernel.
#[derive(Clone, Copy)]
pub struct Command<'a> {
    /// What the image says: its variables, its user, its workdir, and the diff_ids of its layers.
    pub config: &'a Config,
    /// The layers of the image, bottom first. Their blobs are in the cache.
    pub layers: &'a [Layer],
    /// The program and its arguments.
    pub args: &'a [String],
    /// Variables beside those of the image, or in their place.
    pub env: &'a [(String, String)],
    /// The folder that it starts in, if not the image's.
    pub workdir: Option<&'a str>,
    /// Who it runs as, if not the image's user.
    pub user: Option<&'a str>,
    /// What it may take.
    pub limits: CommandLimits,
    /// What is wanted of its root once it has ended, whether it changed it or not; all that it changed, if nothing is said.
    pub outputs: Option<&'a BTreeSet<LayerPath>>,
    /// Whether what it changes keeps its modification times, in whole seconds; else they are 0.
    pub keep_mtime: bool,
}

/// What a command may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CommandLimits {
    /// How long it may run.
    pub time: Duration,
    /// The most bytes of memory, swap included.
    pub memory: Option<u64>,
    /// The most CPU time, in thousandths of one CPU.
    pub millicpus: Option<u64>,
    /// The most processes and threads.
    pub pids: Option<u64>,
    /// How many entries it may change.
    pub entries: u64,
    /// How many bytes its new files may have.
    pub bytes: u64,
    /// How many bytes of what it says are kept: the last ones.
    pub words: usize,
}

impl Default for CommandLimits {
    fn default() -> Self {
        Self {
            time: Duration::from_secs(3600),
            memory: None,
            millicpus: None,
            pids: Some(4096),
            entries: 2_000_000,
            bytes: 64_000_000_000,
            words: 64 << 10,
        }
    }
}

/// How a command ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// By itself: its exit code, or 128 and the number of the signal that ended it.
    Exited(u8),
    /// It was killed, since there was no more memory for it.
    OutOfMemory,
    /// It was killed, since it took too long.
    Late,
}

/// Makes a tree of what changed, whose contents lie in a file by now.
pub(crate) type MakeTree = Box<dyn FnOnce(&Arc<Path>) -> Result<Tree, Clash>>;

/// What became of a command.
pub struct Ran {
    /// How it ended.
    pub end: End,
    /// The end of what it said, as it may be shown.
    pub words: String,
    /// What it changed, or what was wanted of its root, if it ended with 0.
    pub tree: Option<MakeTree>,
    /// What changed and no layer holds, a line for each: sockets, fifos, devices.
    pub left_out: Vec<String>,
}

/// Runs commands in images.
pub trait Runner: Sync {
    /// Runs a command until it ends, and writes what its new files hold to `contents`, one after the other.
    ///
    /// # Errors
    /// When it cannot be run or is stopped, or when it changes what no layer can hold. What the command itself fails at is no
    /// error.
    fn run(
        &self,
        command: &Command<'_>,
        contents: &mut dyn Write,
        context: &Context<'_>,
    ) -> Result<Ran, ActionError>;
}

impl Runner for Offline {
    fn run(
        &self,
        command: &Command<'_>,
        _: &mut dyn Write,
        _: &Context<'_>,
    ) -> Result<Ran, ActionError> {
        let program = command.args.first().map_or("", String::as_str);
        self.refuse(format!("what `{program}` makes"))
    }
}
