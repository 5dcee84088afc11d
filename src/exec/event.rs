//! What happens while a graph runs, for whoever shows it.

use crate::graph::{ActionKey, Label, NodeId};

/// How a node ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Outcome {
    /// It looked at the host, or did something too small to be recorded.
    Seen,
    /// Its product was recorded under its key.
    Hit,
    /// It ran.
    Built,
    /// It would run, if this were no plan.
    Would,
    /// It failed.
    Failed,
    /// It did not run to its end: something that it needs failed, or the user stopped it.
    Skipped,
}

impl Outcome {
    /// Returns the word for people and for scripts.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Seen => "seen",
            Self::Hit => "hit",
            Self::Built => "built",
            Self::Would => "build",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// A recorded part that an action looked up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PartSeen {
    /// The part's name.
    pub name: &'static str,
    /// Its key.
    pub key: ActionKey,
    /// The text of its key, if it was found out anew; else it was remembered.
    pub found_out: Option<String>,
}

/// Why a node has another key than last time, or the same.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Why {
    /// No key of it is remembered.
    First,
    /// It has the key of last time.
    Same,
    /// These lines of the key's text differ, if they were asked for; none if not.
    Changed(Vec<String>),
    /// It is not known yet: an input has to be built first.
    Unknown,
}

/// Something that happened.
#[derive(Debug)]
pub(crate) enum Event<'a> {
    /// An action starts to run.
    Start {
        /// The node.
        node: NodeId,
        /// Its name for people.
        label: &'a Label,
        /// The action.
        action: &'static str,
    },
    /// A running action got further by so many bytes.
    Progress {
        /// The node.
        node: NodeId,
        /// The bytes.
        bytes: u64,
    },
    /// A node ended.
    Done {
        /// The node.
        node: NodeId,
        /// Its name for people.
        label: &'a Label,
        /// The action.
        action: &'static str,
        /// Which piece of its target's work it is, if it is shown and counted with the target alone.
        detail: Option<&'a str>,
        /// How it ended.
        outcome: Outcome,
        /// The bytes that it got through: read, hashed or written.
        bytes: u64,
        /// The time that it took, in milliseconds.
        millis: u64,
    },
    /// Something that the user should know.
    Note(&'a str),
}

/// Receives events, from several threads.
pub(crate) trait Watch: Sync {
    /// Takes an event.
    fn event(&self, event: &Event<'_>);
}
