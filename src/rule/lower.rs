//! What a rule may use while it lowers a target: other targets, variables, and the graph.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{ImageNodes, Installed, OnDisk, RULES, Role};
use crate::graph::{Action, Graph, Label, NodeId, Origin};
use crate::lock::Lock;
use crate::oci::Platform;
use crate::python::Pythons;
use crate::spec::{
    Defaults, Host, Key, Problem, Problems, Spec, Table, Target, TargetId, Vars, nearest,
};

/// What a target becomes.
#[derive(Clone, Debug)]
pub enum Lowered {
    /// An image to build on.
    Base(NodeId),
    /// A layer: its trees, one for each part.
    Layer(Vec<NodeId>),
    /// Several layers of packages, bottom first.
    Layers(Vec<LayerTrees>, Arc<Installed>),
    /// An image of one platform.
    Image(ImageNodes),
    /// Other targets.
    Group(Vec<TargetId>),
}

/// The trees of a layer that one node makes, along with those of others.
#[derive(Clone, Debug)]
pub struct LayerTrees {
    /// The node.
    pub node: NodeId,
    /// Which of its trees.
    pub pick: Vec<usize>,
}

impl LayerTrees {
    /// A layer of whatever a node makes.
    pub fn all(node: NodeId) -> Self {
        let pick = Vec::new();
        Self { node, pick }
    }
}

/// What lies below a layer, as far as Python goes.
#[derive(Clone, Debug)]
pub enum BelowPython {
    /// Nothing.
    Unknown,
    /// A base that is not locked yet.
    Unlocked,
    /// A base on disk: the lock holds what it says only where packages are for it.
    OnDisk(Arc<OnDisk>),
    /// A base, and what it says.
    Known(Pythons),
}

/// What a target needs of `image.lock`.
#[derive(Clone)]
pub struct Need {
    /// The target, which may be written in place inside another one.
    pub target: TargetId,
    /// Its rule.
    pub rule: usize,
    /// The platform that it is needed for.
    pub platform: Platform,
    /// What is to be resolved, as the manifest says it in full.
    pub wanted: String,
    /// The place in the manifest.
    pub origin: Origin,
    /// What was resolved instead, if the lock is stale.
    pub was: Option<String>,
    /// Whether the lock has it.
    pub is_pinned: bool,
    /// Whether it can be resolved only when something else is pinned: packages wait for their base.
    pub waits: bool,
    /// Whether `wanted` is a reference: only a registry can say what it names now.
    pub is_reference: bool,
    /// What the rule itself needs to resolve it.
    pub payload: Option<Arc<dyn Any + Send + Sync>>,
}

/// The layers of each service, bottom first: the numbers of its wheels in the order of their file names.
pub(super) type Splits = BTreeMap<String, Vec<Vec<usize>>>;

/// Tells whether the members of a workspace may use a target of its root by its name alone.
fn is_shared(target: &Target) -> bool {
    Role::of(target) == Role::Base
}

/// Lowers targets to a graph, each at most once for a platform.
pub struct Lower<'a> {
    /// The manifests.
    pub spec: &'a Spec,
    /// The graph so far.
    pub graph: Graph,
    /// The host.
    pub host: &'a dyn Host,
    /// Paths of the host that are never inputs: outputs of this program, the lock file.
    pub never: Arc<BTreeSet<PathBuf>>,
    /// What names were resolved to.
    pub lock: &'a Lock,
    /// Whether the bytes of base layers are needed.
    pub with_bytes: bool,
    /// Whether the lock is about to change: what it holds need not go together.
    pub is_locking: bool,
    /// What lies below the layers that are lowered now.
    pub below: BelowPython,
    /// Whether an image asks for what is lowered now.
    pub in_image: bool,
    /// What targets need of the lock, so far.
    pub needs: Vec<Need>,
    /// The platform that targets are lowered for now.
    pub platform: Option<Platform>,
    /// What is wrong so far.
    pub problems: Problems,
    /// Which wheels of each service make a layer together, by target of Python and platform. Made once: all services
    /// have a say in it.
    pub(super) splits: BTreeMap<(String, Option<Platform>), Splits>,
    bases: BTreeMap<(TargetId, Option<Platform>), BelowPython>,
    root: Arc<Path>,
    known: BTreeMap<(TargetId, Option<Platform>, String), Option<Lowered>>,
    open: Vec<TargetId>,
}

impl<'a> Lower<'a> {
    /// Starts with an empty graph.
    pub fn new(
        spec: &'a Spec,
        host: &'a dyn Host,
        lock: &'a Lock,
        never: BTreeSet<PathBuf>,
    ) -> Self {
        Self {
            lock,
            with_bytes: false,
            is_locking: false,
            below: BelowPython::Unknown,
            in_image: false,
            needs: Vec::new(),
            root: spec.root.clone().into(),
            spec,
            graph: Graph::default(),
            host,
            never: Arc::new(never),
            platform: None,
            problems: Problems::default(),
            splits: BTreeMap::new(),
            bases: BTreeMap::new(),
            known: BTreeMap::new(),
            open: Vec::new(),
        }
    }

    /// Notes what a target needs of the lock.
    pub fn need(&mut self, need: Need) {
        self.needs.push(need);
    }

    /// Notes what a base says about Python, for the present platform.
    pub fn note_python(&mut self, base: &TargetId, says: BelowPython) {
        let key = (base.clone(), self.platform.clone());
        self.bases.insert(key, says);
    }

    /// Returns what a base says about Python, once it was lowered.
    pub fn pythons(&self, base: &TargetId) -> BelowPython {
        let key = (base.clone(), self.platform.clone());
        let known = self.bases.get(&key).cloned();
        known.unwrap_or(BelowPython::Unknown)
    }

    /// Returns the workspace's root.
    pub fn root(&self) -> Arc<Path> {
        self.root.clone()
    }

    /// Returns the variables of a target for the present platform.
    pub fn vars(&self, target: &Target) -> Vars<'a> {
        self.spec
            .vars(&target.id, self.platform.as_ref(), self.host)
    }

    /// Reads a target's table into the rule's struct.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read<T: serde::de::DeserializeOwned>(
        &self,
        target: &Target,
        keys: &'static [Key],
    ) -> Result<T, Problems> {
        target.table.read(keys, &self.vars(target))
    }

    /// Returns the defaults of a target, and the table they come from.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn defaults(&self, target: &Target) -> Result<(Defaults, Option<Table>), Problems> {
        self.spec.defaults(&target.id, &self.vars(target))
    }

    /// Adds a node that serves `target`.
    pub fn add(
        &mut self,
        target: &Target,
        action: impl Action + 'static,
        inputs: Vec<NodeId>,
        origin: Origin,
    ) -> NodeId {
        let name = self.spec.short_name(&target.id);
        self.add_as(RULES[target.rule].name(), name, action, inputs, origin)
    }

    /// Adds a node that serves the target of another rule, by its name.
    pub fn add_as(
        &mut self,
        rule: &'static str,
        name: String,
        action: impl Action + 'static,
        inputs: Vec<NodeId>,
        origin: Origin,
    ) -> NodeId {
        let label = Label {
            rule,
            target: name,
            platform: self.platform.clone(),
        };
        self.graph.add(Arc::new(action), inputs, origin, label)
    }

    /// Returns the target that a name means which `target` uses, if there is one.
    pub(super) fn find(&self, target: &Target, name: &str) -> Option<TargetId> {
        self.spec.resolve(&target.id.member, name, is_shared)
    }

    /// Resolves a name that `target` uses at a place of its manifest. `fits` says of a role whether such targets make
    /// sense there, for suggestions.
    ///
    /// # Errors
    /// When there is no target of that name.
    pub fn resolve(
        &self,
        target: &Target,
        name: &str,
        span: Range<usize>,
        fits: impl Fn(Role) -> bool,
    ) -> Result<TargetId, Problem> {
        self.find(target, name).ok_or_else(|| {
            let fits = |target: &Target| fits(Role::of(target));
            let names = self.spec.names_from(&target.id.member, is_shared, fits);
            let problem = target.table.problem(
                "imgdecl::spec::unknown_target",
                span,
                format!("there is no target `{name}`"),
                "no such target",
            );
            match nearest(name, &names) {
                Some(near) => problem.did_you_mean(Some(near)),
                None if names.is_empty() => problem,
                None => problem.help(format!("what could stand here: {}", names.join(", "))),
            }
        })
    }

    /// Lowers a target that `user` names at a place of its manifest.
    ///
    /// # Errors
    /// When that closes a circle. `None` stands for a target whose own problems are noted already.
    pub fn target(
        &mut self,
        id: &TargetId,
        user: &Target,
        span: Range<usize>,
    ) -> Result<Option<Lowered>, Problem> {
        if let Some(at) = self.open.iter().position(|open| open == id) {
            let circle: Vec<String> = self.open[at..]
                .iter()
                .chain([id])
                .map(|id| format!("`{id}`"))
                .collect();
            return Err(user
                .table
                .problem(
                    "imgdecl::spec::cycle",
                    span,
                    format!("`{id}` needs itself"),
                    "this closes the circle",
                )
                .help(format!("the circle is {}", circle.join(" → "))));
        }
        Ok(self.lower(id))
    }

    /// Lowers a target. `None` if it has problems, which are noted.
    pub fn lower(&mut self, id: &TargetId) -> Option<Lowered> {
        // Packages depend on the base that they are for; nothing else does.
        let rule = self.spec.target(id).map(|target| RULES[target.rule].name());
        let below = match rule {
            Some("pip") => format!("{} {:?}", self.in_image, self.below),
            _ => String::new(),
        };
        let key = (id.clone(), self.platform.clone(), below);
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        let target = self.spec.target(id)?;
        self.open.push(id.clone());
        let lowered = RULES[target.rule].lower(target, self);
        self.open.pop();
        let lowered = lowered
            .map_err(|problems| self.problems.extend(problems))
            .ok();
        self.known.insert(key, lowered.clone());
        lowered
    }

    /// Lowers a target that is written in place inside `user`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn inline(
        &mut self,
        user: &Target,
        rule: usize,
        table: Table,
        number: usize,
    ) -> Result<Lowered, Problems> {
        let target = Target {
            id: TargetId {
                member: user.id.member.clone(),
                name: format!("{}#{number}", user.id.name),
            },
            rule,
            table,
            folder: user.folder.clone(),
        };
        RULES[rule].lower(&target, self)
    }
}
