//! What a rule may use while it lowers a target: other targets, variables, and the graph.

use std::any::{Any, TypeId};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::ecosystem::{Found, Installed};
use super::users::UsersBelow;
use super::{BaseUsers, ImageNodes, OnDisk, RULES, Role};
use crate::graph::{Action, Graph, Label, NodeId, Origin};
use crate::lock::Lock;
use crate::oci::{Platform, Reference};
use crate::spec::{
    Defaults, Host, Key, Problem, Problems, Spec, Table, Target, TargetId, Vars, nearest,
};

/// What a target becomes.
#[derive(Clone, Debug)]
pub enum Lowered {
    /// An image to build on.
    Base(BaseNodes),
    /// A layer: its trees, one for each part.
    Layer(Vec<NodeId>),
    /// A layer that depends on the users of the image below it.
    OnUsers(Arc<dyn OnUsers>),
    /// Several layers of packages, bottom first.
    Layers(Vec<LayerTrees>, Arc<dyn Installed>),
    /// An image of one platform.
    Image(ImageNodes),
    /// Other targets.
    Group(Vec<TargetId>),
}

/// An image to build on.
#[derive(Clone, Debug)]
pub struct BaseNodes {
    /// The node.
    pub node: NodeId,
    /// What it is to layers.
    pub below: Below,
    /// Where its users are known from.
    pub users: BaseUsers,
}

/// A layer that depends on the users of the image below it. It is lowered to nodes where that image is known.
pub trait OnUsers: fmt::Debug + Send + Sync {
    /// Returns the place that cannot do without them.
    fn origin(&self) -> &Origin;

    /// Adds the node that makes the layer's tree; `below` is what its users are found in.
    fn add(&self, below: &UsersBelow, lower: &mut Lower<'_>) -> NodeId;
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

/// What lies below a layer, as far as rules look at it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Below {
    /// Nothing is said: no image asks for the layer, or its rule does not look below.
    #[default]
    Unasked,
    /// Nothing: the image is made from scratch.
    Nothing,
    /// A base that is not locked yet.
    Unlocked,
    /// A base on disk: the lock holds what was found in it only where packages are for it.
    OnDisk(Arc<OnDisk>),
    /// A base, and what was found in it.
    Known(Found),
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
    /// Whether files of the workspace say all of it, down to the digests: then there is nothing to choose, and it can be had
    /// without an entry in the lock.
    pub is_given: bool,
    /// What the rule itself needs to resolve it.
    pub payload: Option<Arc<dyn Any + Send + Sync>>,
}

/// Tells whether the members of a workspace may use a target of its root by its name alone.
fn is_shared(target: &Target) -> bool {
    Role::of(target) == Role::Base
}

/// What targets are lowered from: it stays as it is.
pub struct Given<'a> {
    /// The manifests.
    pub spec: &'a Spec,
    /// The host.
    pub host: &'a dyn Host,
    /// What names were resolved to.
    pub lock: &'a Lock,
    /// Paths of the host that are never inputs: outputs of this program, the lock file.
    pub never: Arc<BTreeSet<PathBuf>>,
    /// Whether the bytes of base layers are needed.
    pub with_bytes: bool,
    /// Whether the lock is about to change: what it holds need not go together.
    pub is_locking: bool,
}

/// What a target becomes, for a platform and what lies below it.
type Known = Vec<(Below, Option<Lowered>)>;

/// What targets were lowered to so far, each at most once for what it depends on.
#[derive(Default)]
pub struct Draft {
    /// The graph.
    pub graph: Graph,
    /// What targets need of the lock.
    pub needs: Vec<Need>,
    /// What is wrong.
    pub problems: Problems,
    known: BTreeMap<(TargetId, Option<Platform>), Known>,
    /// Which of them there are.
    lowered: BTreeSet<TargetId>,
    open: Vec<TargetId>,
    /// What rules keep for themselves, by its type.
    kept: BTreeMap<TypeId, Box<dyn Any>>,
}

/// Lowers a target to a draft's graph: for one platform, onto what lies below.
pub struct Lower<'a> {
    given: &'a Given<'a>,
    draft: &'a mut Draft,
    platform: Option<Platform>,
    below: Below,
}

impl<'a> Deref for Lower<'a> {
    type Target = Given<'a>;

    fn deref(&self) -> &Given<'a> {
        self.given
    }
}

impl<'a> Lower<'a> {
    /// Lowers for a platform, or for none: then only what is the same for all platforms can be asked for.
    pub fn new(given: &'a Given<'a>, draft: &'a mut Draft, platform: Option<Platform>) -> Self {
        Self {
            given,
            draft,
            platform,
            below: Below::default(),
        }
    }

    /// Lowers another target, for the same platform.
    fn onto(&mut self, below: Below) -> Lower<'_> {
        Lower {
            given: self.given,
            draft: self.draft,
            platform: self.platform.clone(),
            below,
        }
    }

    /// Lowers for another platform, with nothing said of what lies below.
    pub(super) fn onto_platform(&mut self, platform: &Platform) -> Lower<'_> {
        Lower {
            given: self.given,
            draft: self.draft,
            platform: Some(platform.clone()),
            below: Below::default(),
        }
    }

    /// Returns the platform, if it is lowered for one.
    pub fn platform(&self) -> Option<&Platform> {
        self.platform.as_ref()
    }

    /// Returns what lies below: nothing is said to a rule that does not look there.
    pub fn below(&self) -> &Below {
        &self.below
    }

    /// Notes what a target needs of the lock.
    pub fn need(&mut self, need: Need) {
        self.draft.needs.push(need);
    }

    /// Returns what a rule keeps for itself while it lowers one target after the other.
    pub fn kept<T: Default + 'static>(&mut self) -> &mut T {
        let kept = self.draft.kept.entry(TypeId::of::<T>());
        let kept = kept.or_insert_with(|| Box::new(T::default()));
        kept.downcast_mut().expect("it lies under its own type")
    }

    /// Returns the workspace's root.
    pub fn root(&self) -> Arc<Path> {
        self.spec.root.clone().into()
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
        self.draft
            .graph
            .add(Arc::new(action), inputs, origin, label)
    }

    /// Returns the target that a name means which `target` uses, if there is one.
    pub(super) fn find(&self, target: &Target, name: &str) -> Option<TargetId> {
        self.spec.resolve(&target.id.member, name, is_shared)
    }

    /// Tells whether several targets want a name that `target` uses: what does not fit there then is no mistake of its own.
    pub(super) fn is_taken(&self, target: &Target, name: &str) -> bool {
        let id = self.find(target, name);
        id.is_some_and(|id| self.spec.is_taken(&id))
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
        self.resolve_for("base", target, name, span, fits)
    }

    /// Does the same for the value of a `key`, which a suggestion names where bases could stand there.
    ///
    /// # Errors
    /// The same.
    pub fn resolve_for(
        &self,
        key: &str,
        target: &Target,
        name: &str,
        span: Range<usize>,
        fits: impl Fn(Role) -> bool,
    ) -> Result<TargetId, Problem> {
        self.find(target, name).ok_or_else(|| {
            let takes_bases = fits(Role::Base);
            let user = target;
            // No target is its own base or layer.
            let fits = |target: &Target| fits(Role::of(target)) && target.id != user.id;
            let names = self.spec.names_from(&target.id.member, is_shared, fits);
            let problem = target.table.problem(
                "imgdecl::spec::unknown_target",
                span,
                format!("there is no target `{name}`"),
                "no such target",
            );
            // A table of that name is there, of a rule that is none: that is told already.
            let header = format!(".{name}]");
            let mut lines = target.table.source.text.lines().map(str::trim);
            if lines.any(|line| line.starts_with('[') && line.ends_with(&header)) {
                return problem.may_follow();
            }
            // As `files.app`, with the rule before it.
            let typed = name.split_once('.').filter(|(rule, _)| RULES.iter().any(|it| it.name() == *rule));
            let typed = typed.and_then(|(_, name)| names.iter().find(|it| *it == name));
            let near = typed.map(String::as_str).or_else(|| nearest(name, &names));
            match near {
                Some(near) => problem.did_you_mean(Some(near)),
                None if takes_bases && is_reference(name) => {
                    let base = base_name(name);
                    problem.help(format!(
                        "an image of a registry has a table of its own, which names it:\n    [base.{base}]\n    \
                         image = \"{name}\"\nand here: {key} = \"{base}\""
                    ))
                }
                None if names.is_empty() => problem,
                None => problem.help(format!("what could stand here: {}", names.join(", "))),
            }
        })
    }

    /// Lowers a target that `user` names at a place of its manifest, onto what lies below there.
    ///
    /// # Errors
    /// When that closes a circle. `None` stands for a target whose own problems are noted already.
    pub fn target(
        &mut self,
        id: &TargetId,
        user: &Target,
        span: Range<usize>,
        below: &Below,
    ) -> Result<Option<Lowered>, Problem> {
        let open = &self.draft.open;
        if let Some(at) = open.iter().position(|open| open == id) {
            let circle: Vec<String> = open[at..]
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
                .help(format!("the circle is {}", circle.join(" → ")))
                .may_follow());
        }
        Ok(self.lower_onto(id, below))
    }

    /// Lowers a target that no image asks for. `None` if it has problems, which are noted.
    pub fn lower(&mut self, id: &TargetId) -> Option<Lowered> {
        self.lower_onto(id, &Below::Unasked)
    }

    /// Tells whether a target was lowered for some platform.
    pub fn is_lowered(&self, id: &TargetId) -> bool {
        self.draft.lowered.contains(id)
    }

    fn lower_onto(&mut self, id: &TargetId, below: &Below) -> Option<Lowered> {
        let target = self.spec.target(id)?;
        let below = seen(target.rule, below);
        let key = (id.clone(), self.platform.clone());
        let known = self.draft.known.get(&key).into_iter().flatten();
        if let Some((_, known)) = known.into_iter().find(|(it, _)| *it == below) {
            return known.clone();
        }
        self.draft.lowered.insert(id.clone());
        self.draft.open.push(id.clone());
        let lowered = RULES[target.rule].lower(target, &mut self.onto(below.clone()));
        self.draft.open.pop();
        let lowered = lowered
            .map_err(|problems| self.draft.problems.extend(problems))
            .ok();
        let known = self.draft.known.entry(key).or_default();
        known.push((below, lowered.clone()));
        lowered
    }

    /// Lowers a target that is written in place inside `user`, onto what lies below there.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn inline(
        &mut self,
        user: &Target,
        rule: usize,
        table: Table,
        number: usize,
        below: &Below,
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
        RULES[rule].lower(&target, &mut self.onto(seen(rule, below)))
    }
}

/// Tells whether a name that is no target is meant as that of an image in a registry.
fn is_reference(name: &str) -> bool {
    name.contains([':', '/', '@', '.']) && name.parse::<Reference>().is_ok()
}

/// Returns a name for the base of an image: the end of its repository.
fn base_name(reference: &str) -> String {
    let parsed = reference.parse::<Reference>();
    let repository = parsed.map_or_else(|_| String::new(), |it| it.repository);
    repository.rsplit('/').next().unwrap_or_default().to_owned()
}

/// Returns what a rule sees of what lies below. Where it looks away, its targets are the same on all that there is.
fn seen(rule: usize, below: &Below) -> Below {
    match RULES[rule].looks_below() {
        true => below.clone(),
        false => Below::Unasked,
    }
}
