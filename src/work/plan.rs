//! `plan`: what would be built, and why; and what a push would send.

use super::build::{check_pushed, failures, options, planned};
use super::lock;
use super::net::{Net, Network};
use super::push_preview::{PushPreview, push_preview};
use super::workspace::{Choice, Workspace};
use super::{Failed, News, Session};
use crate::exec::{self, Caches, NodeResult, Outcome, Why};
use crate::graph::{Node, NodeId, Ports, Product};
use crate::plan::Plan;
use crate::rule::Need;
use crate::spec::Spec;
use crate::store::{Blob, Blobs, Health};

/// What is to be planned.
#[derive(Default)]
pub(crate) struct Request {
    /// The manifest, and which of its images.
    pub(crate) choice: Choice,
    /// How registries are reached, for `push`.
    pub(crate) network: Network,
    /// Registries are asked what a push would send.
    pub(crate) push: bool,
    /// What image.lock lacks is an error; where nothing is said, a CI system wants it so.
    pub(crate) locked: Option<bool>,
    /// How many actions run at once.
    pub(crate) jobs: Option<u16>,
}

/// A plan, and what is known of its nodes.
pub(crate) struct Outlook {
    /// The plan.
    pub(crate) plan: Plan,
    /// What is known of each node, in the order of the graph.
    pub(crate) nodes: Vec<Known>,
    /// What a push would do about each image, if that was asked for.
    pub(crate) pushes: Vec<PushPreview>,
    /// What a locked build would fail for, where that is wanted.
    pub(crate) unlocked: Option<Failed>,
}

/// What is known of a node.
pub(crate) struct Known {
    /// What became of it: of what would be built, that it would.
    pub(crate) result: NodeResult,
    /// Why it would be built; nothing where it would not.
    pub(crate) reason: Option<Reason>,
    /// How many bytes of the layers of a base are in its registry alone.
    pub(crate) to_fetch: Option<u64>,
}

/// Why a node would be built.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Reason {
    /// image.lock has nothing of what it stands for.
    NotLocked,
    /// image.lock has something, but it was resolved from what is said here.
    Stale(String),
    /// Its base is resolved first.
    BaseNotLocked,
    /// It was never built here.
    Never,
    /// It was built, but its product is no longer in the cache.
    Gone,
    /// These lines of its key changed.
    Changed(Vec<String>),
    /// An input has to be built first.
    Input,
}

/// Plans, without building anything.
///
/// # Errors
/// When the manifests are wrong, or registries cannot be asked.
pub(crate) fn plan(session: &Session, request: &Request) -> Result<Outlook, Failed> {
    let workspace = Workspace::new(session, &request.choice, Vec::new())?;
    let store = workspace.store(session)?;
    let plan = workspace.plan(&lock::load(&workspace.spec.root)?, false)?;
    let options = options(&workspace, request.jobs, true);
    let watch = &*session.events;
    let results = exec::run(
        &plan.graph,
        Caches::of(&store),
        Ports::OFFLINE,
        &options,
        watch,
        &session.stop,
    );
    failures(session, &plan.graph, &results)?;
    let is_locked = request.locked.unwrap_or(session.environment.is_ci);
    let lacking = lock::unlocked(&workspace, &plan.needs);
    let unlocked = (is_locked && !lacking.is_empty()).then(|| Failed::from(lacking));
    // An error says it, too.
    if unlocked.is_none() {
        session.news(&News::Lacks(&plan.needs));
    }
    let mut pushes = Vec::new();
    if request.push {
        let net = Net::new(session, &request.network)?;
        if let Some(client) = net.client() {
            check_pushed(session, &workspace, &plan)?;
            let mut images = planned(&workspace, &plan, &[]);
            images.retain(|it| it.is_pushed);
            crate::output::check_repositories(&images)?;
            pushes = push_preview(&plan, &results, client)?;
        }
    }
    let nodes = plan.graph.nodes().zip(results);
    let nodes = nodes.map(|((_, node), result)| Known {
        reason: reason(node, &result, &plan.needs, &workspace.spec),
        to_fetch: to_fetch(&*store, &result),
        result,
    });
    let nodes = nodes.collect();
    Ok(Outlook {
        unlocked,
        plan,
        nodes,
        pushes,
    })
}

impl Outlook {
    /// Returns what is known of a node.
    pub(crate) fn known(&self, id: NodeId) -> &Known {
        &self.nodes[id.0 as usize]
    }
}

/// Says why a node would be built.
fn reason(node: &Node, result: &NodeResult, needs: &[Need], spec: &Spec) -> Option<Reason> {
    if result.outcome != Outcome::Would {
        return None;
    }
    let lacking = lacking(node, needs, spec);
    Some(lacking.unwrap_or_else(|| match &result.why {
        Some(Why::Changed(lines)) => Reason::Changed(lines.clone()),
        Some(Why::First) => Reason::Never,
        Some(Why::Same) => Reason::Gone,
        Some(Why::Unknown) | None => Reason::Input,
    }))
}

/// Says what the lock has in place of what a node of a plan stands for. `None` of a node that needs nothing of the lock, or
/// has it.
fn lacking(node: &Node, needs: &[Need], spec: &Spec) -> Option<Reason> {
    if !node.action.is_unpinned() {
        return None;
    }
    let label = &node.label;
    let is_its = |need: &&Need| {
        label.platform.as_ref() == Some(&need.platform)
            && label.target == spec.short_name(&need.target)
    };
    let its = || needs.iter().filter(is_its);
    if let Some(was) = its().find_map(|need| need.was.clone()) {
        return Some(Reason::Stale(was));
    }
    Some(match its().next() {
        Some(need) if need.is_pinned => Reason::BaseNotLocked,
        _ => Reason::NotLocked,
    })
}

/// Returns how many bytes of the layers of a base are in its registry alone.
fn to_fetch(store: &dyn Blobs, result: &NodeResult) -> Option<u64> {
    let Some(Product::Base(base)) = &result.product else {
        return None;
    };
    base.remote.as_ref()?;
    let layers: Vec<Blob> = base.layers.iter().map(|layer| layer.blob()).collect();
    let healths = layers.iter().zip(store.check_all(&layers));
    let missing = healths.filter(|(_, health)| *health == Health::Missing);
    Some(missing.map(|(layer, _)| layer.size).sum())
}
