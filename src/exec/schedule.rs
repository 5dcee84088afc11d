//! The coordinator: decides what runs when. Owns all state; there is no lock on the graph.
//!
//! A node waits until its inputs are done, is looked up, and runs if it is not recorded. Nodes of one key run one after
//! the other, so that all but the first are hits; a key that another process holds is tried again a little later.
//!
//! There are two lanes: a pool of threads for what keeps the processor busy, and a few threads of their own for what
//! waits for the network, so that neither holds up the other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rayon::Scope as Pool;

use super::again::Again;
use super::event::{Event, Outcome, PartSeen, Watch, Why};
use super::job::{self, Build, Report, Shared};
use super::memory::Caches;
use crate::graph::{ActionError, ActionKey, Failure, Graph, Lane, NodeId, Ports, Product, Stop};

/// How a graph is run.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// How many threads work, and how many actions run at once.
    pub jobs: usize,
    /// Whether the bytes of layers must be there in the end.
    pub want_layers: bool,
    /// Whether to find out only what would be done.
    pub dry: bool,
    /// Whether to find out how keys differ from the last ones. Keys of large trees have long texts.
    pub explain: bool,
    /// The workspace, by which last keys are remembered.
    pub workspace: String,
}

/// What became of a node.
#[derive(Debug)]
pub(crate) struct NodeResult {
    /// How it ended.
    pub outcome: Outcome,
    /// What it made.
    pub product: Option<Product>,
    /// Why it failed.
    pub error: Option<ActionError>,
    /// Its key, if it has one and it became known.
    pub key: Option<ActionKey>,
    /// How the key compares with the last one.
    pub why: Option<Why>,
    /// The recorded parts that its action looked up.
    pub parts: Vec<PartSeen>,
    /// Bytes that it got through.
    pub bytes: u64,
    /// Time that it took, in milliseconds.
    pub millis: u64,
}

/// How long to wait before trying again a key that another process holds.
const RETRY: Duration = Duration::from_millis(10);

/// How many actions wait for the network at once. Each may fetch several blobs at once.
const NET: usize = 8;

/// Runs all nodes of a graph; returns what became of each, in the order of the graph.
///
/// A failure stops what depends on it; the rest finishes. `stop` stops all.
pub(crate) fn run(
    graph: &Graph,
    caches: Caches<'_>,
    ports: Ports<'_>,
    options: &Options,
    watch: &dyn Watch,
    stop: &Stop,
) -> Vec<NodeResult> {
    let jobs = options.jobs.max(1);
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(jobs)
        .thread_name(|number| format!("cpu-{number}"))
        // A thread that waits for its own segments may run another node's job meanwhile, on the same stack.
        .stack_size(16 << 20)
        .build()
        .expect("the system gives threads");
    let shared = Shared {
        caches,
        ports,
        options,
        watch,
        stop,
        told: Mutex::default(),
    };
    let (sender, receiver) = mpsc::channel();
    let results = thread::scope(|net| {
        pool.in_place_scope(|cpu| {
            let lanes = Lanes { cpu, net };
            let mut coordinator = Coordinator {
                graph,
                shared: &shared,
                jobs,
                sender,
                waiting: graph
                    .nodes()
                    .map(|(_, node)| node.inputs.iter().collect::<BTreeSet<_>>().len())
                    .collect(),
                users: users(graph),
                results: graph.nodes().map(|_| None).collect(),
                ready: BTreeSet::new(),
                running: 0,
                on_net: BTreeSet::new(),
                keys: BTreeMap::new(),
                parked: Vec::new(),
                retry_at: None,
                again: Again::default(),
            };
            coordinator.ready.extend(
                graph
                    .nodes()
                    .filter(|(_, node)| node.inputs.is_empty())
                    .map(|(id, _)| id),
            );
            coordinator.run(&lanes, &receiver);
            coordinator.results
        })
    });
    let skipped = || NodeResult::ended(Outcome::Skipped);
    results
        .into_iter()
        .map(|result| result.unwrap_or_else(skipped))
        .collect()
}

/// Where jobs run.
struct Lanes<'l, 'cpu, 'net, 'env> {
    cpu: &'l Pool<'cpu>,
    net: &'net thread::Scope<'net, 'env>,
}

impl NodeResult {
    /// Makes the result of a node that has nothing but an outcome.
    pub(super) fn ended(outcome: Outcome) -> Self {
        Self {
            outcome,
            product: None,
            error: None,
            key: None,
            why: None,
            parts: Vec::new(),
            bytes: 0,
            millis: 0,
        }
    }

    /// Makes the result of a node that failed, or was stopped.
    pub(super) fn failed(error: ActionError) -> Self {
        let outcome = match error.failure {
            Failure::Stopped => Outcome::Skipped,
            _ => Outcome::Failed,
        };
        Self {
            error: Some(error),
            ..Self::ended(outcome)
        }
    }
}

/// Returns the nodes that take each node.
fn users(graph: &Graph) -> Vec<Vec<NodeId>> {
    let mut users = vec![Vec::new(); graph.len()];
    for (id, node) in graph.nodes() {
        for input in node.inputs.iter().collect::<BTreeSet<_>>() {
            users[input.0 as usize].push(id);
        }
    }
    users
}

pub(super) struct Coordinator<'a> {
    pub(super) graph: &'a Graph,
    pub(super) shared: &'a Shared<'a>,
    jobs: usize,
    sender: mpsc::Sender<(NodeId, Report)>,
    /// How many inputs each node still waits for.
    waiting: Vec<usize>,
    users: Vec<Vec<NodeId>>,
    pub(super) results: Vec<Option<NodeResult>>,
    pub(super) ready: BTreeSet<NodeId>,
    /// How many jobs run on the pool.
    running: usize,
    /// The nodes that wait for the network.
    on_net: BTreeSet<NodeId>,
    /// The keys that are being built here, and by which node.
    keys: BTreeMap<ActionKey, NodeId>,
    /// Nodes that missed, and wait for the lock of their key.
    parked: Vec<(NodeId, Build)>,
    retry_at: Option<Instant>,
    pub(super) again: Again,
}

impl<'a> Coordinator<'a> {
    fn run<'cpu, 'net>(
        &mut self,
        lanes: &Lanes<'_, 'cpu, 'net, '_>,
        receiver: &mpsc::Receiver<(NodeId, Report)>,
    ) where
        'a: 'cpu + 'net,
    {
        loop {
            if self.shared.stop.is_asked() {
                self.ready.clear();
                self.parked.clear();
            }
            self.retry(lanes);
            self.start(lanes);
            if self.running == 0
                && self.on_net.is_empty()
                && self.parked.is_empty()
                && self.ready.is_empty()
            {
                return;
            }
            // Wakes up now and then to see whether someone asked to stop.
            match receiver.recv_timeout(if self.parked.is_empty() {
                10 * RETRY
            } else {
                RETRY
            }) {
                Ok((id, report)) => {
                    if !self.on_net.remove(&id) {
                        self.running -= 1;
                    }
                    self.take(id, report);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn inputs(&self, id: NodeId) -> Option<Vec<Product>> {
        let product = |input: &NodeId| self.results[input.0 as usize].as_ref()?.product.clone();
        self.graph.node(id).inputs.iter().map(product).collect()
    }

    /// Starts the nodes that are ready, as far as their lanes have room.
    fn start<'cpu, 'net>(&mut self, lanes: &Lanes<'_, 'cpu, 'net, '_>)
    where
        'a: 'cpu + 'net,
    {
        for id in std::mem::take(&mut self.ready) {
            // What is looked up first does so on the pool, and waits for the network only where it is not recorded.
            let action = &self.graph.node(id).action;
            let on_net = !action.is_cached() && action.lane() == Lane::Net;
            let has_room = match on_net {
                true => self.on_net.len() < NET,
                false => self.running < self.jobs,
            };
            match has_room {
                true => self.look(lanes, id, on_net),
                false => {
                    self.ready.insert(id);
                }
            }
        }
    }

    fn look<'cpu, 'net>(&mut self, lanes: &Lanes<'_, 'cpu, 'net, '_>, id: NodeId, on_net: bool)
    where
        'a: 'cpu + 'net,
    {
        let Some(inputs) = self.inputs(id) else {
            return;
        };
        let (graph, shared, sender) = (self.graph, self.shared, self.sender.clone());
        let job = move || {
            let report = job::look(shared, id, graph.node(id), &inputs);
            let _ = sender.send((id, report));
        };
        match on_net {
            true => {
                self.on_net.insert(id);
                lanes.net.spawn(job);
            }
            false => {
                self.running += 1;
                lanes.cpu.spawn(move |_| job());
            }
        }
    }

    /// Tries to start the nodes that wait for the lock of their key.
    fn retry<'cpu, 'net>(&mut self, lanes: &Lanes<'_, 'cpu, 'net, '_>)
    where
        'a: 'cpu + 'net,
    {
        if self.retry_at.is_some_and(|at| Instant::now() < at) {
            return;
        }
        self.retry_at = None;
        for (id, build) in std::mem::take(&mut self.parked) {
            let key = build.key;
            let lane = self.graph.node(id).action.lane();
            let is_full = match lane {
                Lane::Cpu => self.running >= self.jobs,
                Lane::Net => self.on_net.len() >= NET,
            };
            if is_full || self.keys.contains_key(&key) {
                self.parked.push((id, build));
                continue;
            }
            let lock = match self.shared.caches.folder.try_lock(&key.0) {
                Ok(Some(lock)) => lock,
                Ok(None) => {
                    self.parked.push((id, build));
                    self.retry_at = Some(Instant::now() + RETRY);
                    continue;
                }
                Err(error) => {
                    self.end(id, NodeResult::failed(error.into()));
                    continue;
                }
            };
            let Some(inputs) = self.inputs(id) else {
                continue;
            };
            let (graph, shared, sender) = (self.graph, self.shared, self.sender.clone());
            self.keys.insert(key, id);
            let job = move || {
                let node = graph.node(id);
                let report = job::build(shared, id, node, &inputs, build, lock);
                let _ = sender.send((id, report));
            };
            match lane {
                Lane::Cpu => {
                    self.running += 1;
                    lanes.cpu.spawn(move |_| job());
                }
                Lane::Net => {
                    self.on_net.insert(id);
                    lanes.net.spawn(job);
                }
            }
        }
    }

    fn take(&mut self, id: NodeId, report: Report) {
        match report {
            Report::Miss { key, why } if self.shared.options.dry => {
                let result = NodeResult::ended(Outcome::Would);
                self.end(
                    id,
                    NodeResult {
                        key: Some(key),
                        why: Some(why),
                        ..result
                    },
                );
            }
            Report::Miss { key, why } => self.park(
                id,
                Build {
                    key,
                    why,
                    is_again: false,
                },
            ),
            Report::Lost { lost, known } => {
                self.keys.retain(|_, holder| *holder != id);
                self.retry_at = None;
                self.lost(id, lost, known);
            }
            Report::Done(result) => {
                self.keys.retain(|_, holder| *holder != id);
                self.retry_at = None;
                self.end(id, *result);
            }
        }
    }

    /// Has a node wait for the lock of its key.
    pub(super) fn park(&mut self, id: NodeId, build: Build) {
        self.parked.push((id, build));
        self.retry_at = None;
    }

    /// Ends a node, and starts or ends what waits for it.
    pub(super) fn end(&mut self, id: NodeId, result: NodeResult) {
        let node = self.graph.node(id);
        let (outcome, bytes, millis) = (result.outcome, result.bytes, result.millis);
        let (label, action) = (&node.label, node.action.name());
        self.shared.watch.event(&Event::Done {
            node: id,
            label,
            action,
            detail: node.action.detail(),
            outcome,
            bytes,
            millis,
        });
        if self.again.runs(id) {
            return self.ran_again(id, result);
        }
        self.results[id.0 as usize] = Some(result);
        for user in self.users[id.0 as usize].clone() {
            if self.results[user.0 as usize].is_some() {
                continue;
            }
            match outcome {
                Outcome::Seen | Outcome::Hit | Outcome::Built => {
                    let waiting = &mut self.waiting[user.0 as usize];
                    *waiting -= 1;
                    if *waiting == 0 {
                        self.ready.insert(user);
                    }
                }
                Outcome::Would => {
                    let why = Some(Why::Unknown);
                    self.end(
                        user,
                        NodeResult {
                            why,
                            ..NodeResult::ended(outcome)
                        },
                    );
                }
                Outcome::Failed | Outcome::Skipped => {
                    self.end(user, NodeResult::ended(Outcome::Skipped));
                }
            }
        }
    }
}
