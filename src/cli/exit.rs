//! Exit codes.

use std::process::ExitCode;

use crate::work::Blame;

/// How the program ends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Exit {
    /// 0: done.
    Done,
    /// 1: a build failed, an output could not be written, or images differ.
    Failed,
    /// 2: the command line or a manifest is wrong.
    Usage,
    /// 3: a registry failed, or cannot be asked.
    Remote,
    /// 4: the cache is damaged.
    Cache,
    /// 101: a bug of ours.
    Bug,
    /// 130: stopped by Ctrl-C, as shells say it.
    Stopped,
    /// What the process of a container that we ran ended with.
    Process(u8),
}

impl Exit {
    /// Returns the code.
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Remote => 3,
            Self::Cache => 4,
            Self::Bug => 101,
            Self::Stopped => 130,
            Self::Process(code) => code,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

impl From<Blame> for Exit {
    fn from(blame: Blame) -> Self {
        match blame {
            Blame::Build => Self::Failed,
            Blame::Usage => Self::Usage,
            Blame::Remote => Self::Remote,
            Blame::Cache => Self::Cache,
            Blame::Bug => Self::Bug,
            Blame::Program(code) => Self::Process(code),
        }
    }
}
