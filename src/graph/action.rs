//! Actions and the graph they form.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;

use super::{ActionKey, HashKey, KeyWriter, Origin, Part, Parts, Ports, Product, TextKey, key};
use crate::layer::Tick;
use crate::oci::{Digest, Platform};
use crate::store::{Blob, Blobs, Health, Store, StoreError};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// One unit of work. A rule lowers its targets to nodes that hold actions.
pub trait Action: Send + Sync {
    /// Returns the action's name, as `layer`.
    fn name(&self) -> &'static str;

    /// Returns the version of what the action does. A change that makes other bytes of equal inputs raises it.
    fn version(&self) -> u32 {
        1
    }

    /// Tells whether the product is recorded under the action's key. Actions that only look at the host, or that are
    /// faster than a look-up, are run each time.
    fn is_cached(&self) -> bool {
        true
    }

    /// Tells whether it stands for what image.lock lacks: a plan can show it, and nothing can run it.
    fn is_unpinned(&self) -> bool {
        false
    }

    /// Says what the action waits for while it runs.
    fn lane(&self) -> Lane {
        Lane::Cpu
    }

    /// Says which piece of its target's work the action is, where there are many alike: a wheel of a set. Such an action
    /// is shown and counted with its target, and not by itself.
    fn detail(&self) -> Option<&str> {
        None
    }

    /// Adds all that decides the product besides the inputs.
    fn parameters(&self, key: &mut dyn KeyWriter);

    /// Returns the blobs of its inputs that the action reads when it runs. What of them is gone is made again before.
    fn reads(&self, _inputs: &[Product]) -> Vec<Blob> {
        Vec::new()
    }

    /// Does the work.
    ///
    /// # Errors
    /// When it cannot be done, or was stopped.
    fn run(&self, context: &Context<'_>, inputs: &[Product]) -> Result<Product, ActionError>;
}

/// What an action waits for while it runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lane {
    /// The processor and the disk.
    Cpu,
    /// The network.
    Net,
}

/// What an action may use while it runs.
pub struct Context<'a> {
    /// The blobs of the cache.
    pub store: &'a dyn Blobs,
    /// The cache's folder, for what belongs to this machine: stamps of host files, segments, temporary files.
    pub folder: &'a Store,
    /// The network.
    pub ports: Ports<'a>,
    /// What is remembered of what actions found out.
    pub parts: &'a dyn Parts,
    /// Reports bytes of progress; returns false when the build was stopped.
    pub tick: Tick<'a>,
    /// Tells the user something that is no error. What several nodes of a build say alike is told once.
    pub note: &'a (dyn Fn(&str) + Sync),
}

impl Context<'_> {
    /// Returns the value of a recorded part, which `make` finds out where it is not remembered.
    ///
    /// # Errors
    /// When it cannot be looked up, found out or remembered.
    pub fn recorded<V: Serialize + DeserializeOwned>(
        &self,
        part: &dyn Part,
        make: impl FnOnce() -> Result<V, ActionError>,
    ) -> Result<V, ActionError> {
        self.parts.recorded(part, make)
    }

    /// Reads a blob of an input, whose size is small.
    ///
    /// # Errors
    /// When it cannot be read. Where it is gone or damaged, the error says so: whoever runs the action has it made again.
    pub fn read(&self, blob: &Blob) -> Result<Vec<u8>, ActionError> {
        match self.store.check(blob) {
            Health::Whole => match self.store.read_blob(blob) {
                Err(StoreError::Damaged(_)) => Err(self.lost(blob, Health::Damaged)),
                other => Ok(other?),
            },
            health => Err(self.lost(blob, health)),
        }
    }

    /// Makes the error of an input's blob that was to be read, and that the store cannot give; whoever runs the action is
    /// told.
    pub fn lost(&self, blob: &Blob, health: Health) -> ActionError {
        if health == Health::Damaged {
            // It may have looked whole, and would again: this finds out.
            let _ = self.store.sound(&blob.digest);
        }
        self.parts.lost(blob);
        ActionError::lost(blob, health)
    }
}

/// Why an action failed, in the terms of whoever reads it.
#[derive(Clone, Debug)]
pub struct ActionError {
    /// What went wrong, for the exit code.
    pub failure: Failure,
    /// The name of the kind of error, as `imgdecl::files::no_match`.
    pub code: &'static str,
    /// What is wrong and where.
    pub message: String,
    /// What lies behind it, outermost first.
    pub causes: Vec<String>,
    /// How to mend it.
    pub help: Option<String>,
    /// The places in the manifest that have their part in it, the first one first, if they are nearer than the node's own.
    pub origins: Vec<Origin>,
}

/// What kind of failure it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// The build failed.
    Build,
    /// A registry failed, or cannot be asked.
    Remote,
    /// The cache is damaged or cannot be used.
    Cache,
    /// The user stopped it.
    Stopped,
    /// It is a bug of ours.
    Bug,
}

impl ActionError {
    /// The code of what is not here, where there is no network to fetch it by.
    pub(super) const OFFLINE: &str = "imgdecl::offline";

    /// Tells whether all that is wrong is that something has to be fetched.
    pub fn is_offline(&self) -> bool {
        self.code == Self::OFFLINE
    }

    /// Makes an error.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            failure: Failure::Build,
            code,
            message: message.into(),
            causes: Vec::new(),
            help: None,
            origins: Vec::new(),
        }
    }

    /// Makes the error of an input's blob that the store cannot give.
    pub fn lost(blob: &Blob, health: Health) -> Self {
        let how = match health {
            Health::Damaged => "is damaged",
            Health::Missing | Health::Whole => "is gone",
        };
        let message = format!("the blob {} in the cache {how}", blob.digest);
        Self {
            failure: Failure::Cache,
            ..Self::new("imgdecl::cache", message)
        }
        .help("run `imgdecl cache verify`: it removes what is damaged")
    }

    /// Makes an error of another one and what lies behind it.
    pub fn of(code: &'static str, error: &dyn Error) -> Self {
        Self {
            causes: causes(error),
            ..Self::new(code, error.to_string())
        }
    }

    /// Adds an error that lies behind this one.
    #[must_use]
    pub fn because(mut self, error: &dyn Error) -> Self {
        self.causes.push(error.to_string());
        self.causes.extend(causes(error));
        self
    }

    /// Says how to mend it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Names the place in the manifest.
    #[must_use]
    pub fn at(mut self, origin: &Origin) -> Self {
        self.origins = vec![origin.clone()];
        self
    }

    /// Names several places in the manifest, the first of which comes first.
    #[must_use]
    pub fn at_all(mut self, origins: impl IntoIterator<Item = Origin>) -> Self {
        self.origins = origins.into_iter().collect();
        self
    }

    /// The error of a build that the user stopped.
    pub fn stopped() -> Self {
        Self {
            failure: Failure::Stopped,
            ..Self::new("imgdecl::stopped", "stopped")
        }
    }

    /// Says that something happened that cannot happen.
    pub fn bug(what: &str) -> Self {
        let message = format!("this is a bug in imgdecl: {what}");
        Self {
            failure: Failure::Bug,
            ..Self::new("imgdecl::bug", message)
        }
    }
}

fn causes(error: &dyn Error) -> Vec<String> {
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(error) = next {
        causes.push(error.to_string());
        next = error.source();
    }
    causes
}

impl From<StoreError> for ActionError {
    fn from(error: StoreError) -> Self {
        Self::from(&error)
    }
}

impl From<&StoreError> for ActionError {
    fn from(error: &StoreError) -> Self {
        let failure = match error {
            StoreError::Io { .. } => Failure::Build,
            _ => Failure::Cache,
        };
        Self {
            failure,
            ..Self::of(error.code(), error)
        }
        .help(error.help())
    }
}

impl fmt::Display for ActionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for ActionError {}

/// The number of a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct NodeId(pub(crate) u32);

/// What people call a node.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Label {
    /// The rule, as `files`.
    pub rule: &'static str,
    /// The target, as `frontend:app`.
    pub target: String,
    /// The platform, where the node is of one alone.
    pub platform: Option<Platform>,
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.rule, self.target)?;
        match &self.platform {
            Some(platform) => write!(f, " {platform}"),
            None => Ok(()),
        }
    }
}

/// An action, what it takes, and who asked for it.
pub struct Node {
    /// The action.
    pub action: Arc<dyn Action>,
    /// The nodes whose products it takes, in order.
    pub inputs: Vec<NodeId>,
    /// The place in the manifest that asked for it first.
    pub origin: Origin,
    /// Its name for people.
    pub label: Label,
    /// How many nodes before it in the graph have the same action and name: a layer may be on several bases.
    twins: u32,
}

impl Node {
    /// Returns the key, given the products of the inputs.
    pub fn key(&self, inputs: &[Product]) -> ActionKey {
        let mut key = HashKey::default();
        key::write(&*self.action, inputs, &mut key, None);
        key.finish()
    }

    /// Writes the text of the key, given the products of the inputs. What their digests stand for is listed as far as it
    /// can be read in `context`.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn write_key_text(
        &self,
        inputs: &[Product],
        context: &Context<'_>,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let mut key = TextKey::new(out);
        key::write(&*self.action, inputs, &mut key, Some(context));
        key.finish()
    }

    /// Returns what identifies this node from build to build, whatever its key: where the last key is remembered.
    pub fn identity(&self, workspace: &str) -> Digest {
        let (name, twins) = (self.name(), self.twins);
        Digest::of(format!("{workspace}\0{name}\0{twins}").as_bytes())
    }

    /// Returns what the node is called, with its action: not by this alone is it told from all others.
    fn name(&self) -> String {
        let detail = self.action.detail().unwrap_or_default();
        format!("{}\0{}\0{detail}", self.action.name(), self.label)
    }
}

/// A graph of actions without cycles: a node's inputs have lower numbers.
#[derive(Default)]
pub struct Graph {
    nodes: Vec<Node>,
    known: BTreeMap<(Digest, Vec<NodeId>), NodeId>,
    /// How many nodes there are of each name.
    names: BTreeMap<String, u32>,
}

impl Graph {
    /// Adds a node, or returns the one that is there and does the same.
    pub fn add(
        &mut self,
        action: Arc<dyn Action>,
        inputs: Vec<NodeId>,
        origin: Origin,
        label: Label,
    ) -> NodeId {
        let mut parameters = HashKey::default();
        key::write(&*action, &[], &mut parameters, None);
        let next =
            NodeId(u32::try_from(self.nodes.len()).expect("a graph has less than 2^32 nodes"));
        let id = *self
            .known
            .entry((parameters.finish().0, inputs.clone()))
            .or_insert(next);
        if id == next {
            let mut node = Node {
                action,
                inputs,
                origin,
                label,
                twins: 0,
            };
            let twins = self.names.entry(node.name()).or_default();
            node.twins = *twins;
            *twins += 1;
            self.nodes.push(node);
        }
        id
    }

    /// Returns a node.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    /// Returns all nodes in order: inputs first.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        (0..).map(NodeId).zip(&self.nodes)
    }

    /// Returns how many nodes there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Tells whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}
