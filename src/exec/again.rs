//! What was recorded and is gone: a node is known by its record, and nobody asks for its bytes until an action reads them.
//! Where they are gone or damaged then, the node that made them runs again, and after it the action.
//!
//! Between the two may lie nodes that are not recorded, and hand on what they got: they run again as well.

use std::collections::{BTreeMap, BTreeSet};

use super::event::{Event, Outcome, Why};
use super::job::{Build, Lost};
use super::schedule::{Coordinator, NodeResult};
use crate::graph::{ActionKey, NodeId};
use crate::store::Blob;

/// How often a node looks again without anything having been made for it: its look may have come just before.
const LOOKS: u32 = 3;

/// Nodes that run again.
#[derive(Default)]
pub(super) struct Again {
    /// The nodes that run again now, or will; and which nodes wait for each.
    running: BTreeMap<NodeId, BTreeSet<NodeId>>,
    /// For which of them each node waits.
    waiting: BTreeMap<NodeId, BTreeSet<NodeId>>,
    /// The nodes that ran again.
    done: BTreeSet<NodeId>,
    /// How often a node looked again although nothing was made for it.
    looks: BTreeMap<NodeId, u32>,
}

impl Again {
    /// Tells whether a node that ended ran again.
    pub(super) fn runs(&self, id: NodeId) -> bool {
        self.running.contains_key(&id) && !self.waiting.contains_key(&id)
    }
}

/// The way from what is lost to the node that reads it.
#[derive(Default)]
struct Way {
    /// The recorded nodes that made what is lost.
    owners: BTreeSet<NodeId>,
    /// The nodes between, and whether an owner lies below each.
    between: BTreeMap<NodeId, bool>,
}

impl Coordinator<'_> {
    /// Takes the news that a node cannot run because of what it cannot read. With its key, if it is known.
    pub(super) fn lost(
        &mut self,
        id: NodeId,
        Lost { blobs, error }: Lost,
        known: Option<(ActionKey, Why)>,
    ) {
        let mut way = Way::default();
        self.find(id, &blobs, &mut way);
        way.between.retain(|_, leads| *leads);
        if way.owners.is_empty() {
            return self.end(id, NodeResult::failed(*error));
        }
        if self.shared.options.dry {
            return self.would(id, &way.owners, known);
        }
        let failed = |owner: &NodeId| {
            let result = self.results[owner.0 as usize].as_ref();
            let outcome = result.map(|result| result.outcome);
            matches!(outcome, Some(Outcome::Failed | Outcome::Skipped))
        };
        // It was tried for another node, which came before.
        if way.owners.iter().any(failed) {
            return self.end(id, NodeResult::ended(Outcome::Skipped));
        }
        let mut waits = false;
        for owner in &way.owners {
            waits |= !self.again.done.contains(owner);
            if self.again.done.contains(owner) || self.again.running.contains_key(owner) {
                continue;
            }
            let label = &self.graph.node(*owner).label;
            let what = "bytes of it are gone from the cache, or damaged";
            let text = format!("{label}: {what}; they are made again");
            self.shared.watch.event(&Event::Note(&text));
            self.again.running.insert(*owner, BTreeSet::new());
            self.start_again(*owner);
        }
        if !waits {
            let looks = self.again.looks.entry(id).or_default();
            *looks += 1;
            if *looks > LOOKS {
                return self.end(id, NodeResult::failed(*error));
            }
        }
        // In the order of the graph: what lies between is started from below.
        let mut users: BTreeSet<NodeId> = way.between.keys().copied().collect();
        users.insert(id);
        for user in users {
            // What runs already goes on: if that is too early, it is found lost once more.
            if user != id && self.again.runs(user) {
                continue;
            }
            if user != id {
                self.again.running.entry(user).or_default();
            }
            let inputs = self.graph.node(user).inputs.iter().copied();
            let below: BTreeSet<NodeId> = inputs
                .filter(|input| self.again.running.contains_key(input))
                .collect();
            if below.is_empty() {
                self.start_again(user);
                continue;
            }
            for input in &below {
                let waiting = self.again.running.entry(*input).or_default();
                waiting.insert(user);
            }
            self.again.waiting.entry(user).or_default().extend(below);
        }
    }

    /// Starts a node that runs again, or the one that waited for it. What is recorded is not looked up: its record is what
    /// led here.
    fn start_again(&mut self, id: NodeId) {
        let is_cached = self.graph.node(id).action.is_cached();
        let result = self.results[id.0 as usize].as_ref();
        match result.and_then(|result| Some((result.key?, result.why.clone()))) {
            Some((key, why)) if is_cached && self.again.running.contains_key(&id) => {
                let why = why.unwrap_or(Why::Same);
                let is_again = true;
                self.park(id, Build { key, why, is_again });
            }
            _ => {
                self.ready.insert(id);
            }
        }
    }

    /// Finds the nodes that made `blobs`, below a node and what lies between. Returns whether there are any.
    fn find(&self, id: NodeId, blobs: &[Blob], way: &mut Way) -> bool {
        let mut leads = false;
        for input in &self.graph.node(id).inputs {
            if !self.graph.node(*input).action.is_cached() {
                leads |= match way.between.get(input) {
                    Some(known) => *known,
                    None => {
                        let found = self.find(*input, blobs, way);
                        way.between.insert(*input, found);
                        found
                    }
                };
                continue;
            }
            let result = self.results[input.0 as usize].as_ref();
            let made = result.and_then(|result| result.product.as_ref());
            let made = made.map(|product| product.blobs()).unwrap_or_default();
            if made.iter().any(|blob| blobs.contains(blob)) {
                way.owners.insert(*input);
                leads = true;
            }
        }
        leads
    }

    /// Notes in a plan that nodes would run again, and the one that reads what they make.
    fn would(&mut self, id: NodeId, owners: &BTreeSet<NodeId>, known: Option<(ActionKey, Why)>) {
        for owner in owners {
            if let Some(result) = &mut self.results[owner.0 as usize] {
                result.outcome = Outcome::Would;
            }
        }
        let (key, why) = known.unzip();
        let result = NodeResult {
            key,
            why: Some(why.unwrap_or(Why::Unknown)),
            ..NodeResult::ended(Outcome::Would)
        };
        self.end(id, result);
    }

    /// Takes the result of a node that ran again, and starts or ends what waits for it.
    pub(super) fn ran_again(&mut self, id: NodeId, result: NodeResult) {
        let users = self.again.running.remove(&id).unwrap_or_default();
        self.again.done.insert(id);
        let is_made = result.product.is_some();
        let before = self.results[id.0 as usize].take();
        self.results[id.0 as usize] = Some(NodeResult {
            // What knows the node by its record alone goes on.
            product: result
                .product
                .or_else(|| before.and_then(|before| before.product)),
            ..result
        });
        for user in users {
            let Some(waiting) = self.again.waiting.get_mut(&user) else {
                continue;
            };
            waiting.remove(&id);
            let is_last = waiting.is_empty();
            if !is_made || is_last {
                self.again.waiting.remove(&user);
            }
            match (is_made, is_last) {
                (true, true) => self.start_again(user),
                (true, false) => {}
                (false, _) => self.end(user, NodeResult::ended(Outcome::Skipped)),
            }
        }
    }
}
