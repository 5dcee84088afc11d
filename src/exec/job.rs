//! What runs on the lanes: looking a node up, and running its action.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use super::event::{Event, Outcome, Watch, Why};
use super::schedule::{NodeResult, Options};
use crate::graph::{
    ActionError, ActionKey, Context, Failure, Node, NodeId, Ports, Product, compare,
};
use crate::store::{Health, KeyLock, Store};
use std::sync::Arc;

/// What all jobs share.
pub(super) struct Shared<'a> {
    pub(super) store: &'a Arc<Store>,
    pub(super) ports: Ports<'a>,
    pub(super) options: &'a Options,
    pub(super) watch: &'a dyn Watch,
    pub(super) cancel: &'a AtomicBool,
}

/// What a job found out.
pub(super) enum Report {
    /// The node has its product, or failed.
    Done(Box<NodeResult>),
    /// The product is not recorded: the action must run under the key's lock.
    Miss { key: ActionKey, why: Why },
}

/// Looks a node up, or runs it if there is nothing to look up.
pub(super) fn look(shared: &Shared<'_>, id: NodeId, node: &Node, inputs: &[Product]) -> Report {
    guard(|| {
        if !node.action.is_cached() {
            return match shared.run(id, node, inputs) {
                // A plan has no network: what must be fetched first is no failure of it.
                Err(error) if shared.options.dry && error.is_offline() => {
                    let why = Some(Why::Unknown);
                    Ok(done(NodeResult {
                        why,
                        ..NodeResult::ended(Outcome::Would)
                    }))
                }
                other => Ok(done(other?)),
            };
        }
        let key = node.key(inputs);
        let why = shared.why(node, inputs, key)?;
        Ok(match shared.recorded(key, node, true)? {
            Some(product) => hit(product, key, why),
            None => Report::Miss { key, why },
        })
    })
}

/// Runs a node under the lock of its key, unless another process did so before it got the lock.
pub(super) fn build(
    shared: &Shared<'_>,
    id: NodeId,
    node: &Node,
    inputs: &[Product],
    (key, why): (ActionKey, Why),
    lock: KeyLock,
) -> Report {
    guard(|| {
        if let Some(product) = shared.recorded(key, node, false)? {
            return Ok(hit(product, key, why));
        }
        let result = shared.run(id, node, inputs)?;
        if let Some(record) = result.product.as_ref().and_then(Product::to_record) {
            shared.store.put_record(&key.0, &record)?;
        }
        drop(lock);
        Ok(done(NodeResult {
            outcome: Outcome::Built,
            key: Some(key),
            why: Some(why),
            ..result
        }))
    })
}

fn done(result: NodeResult) -> Report {
    Report::Done(Box::new(result))
}

fn hit(product: Product, key: ActionKey, why: Why) -> Report {
    let product = Some(product);
    done(NodeResult {
        product,
        key: Some(key),
        why: Some(why),
        ..NodeResult::ended(Outcome::Hit)
    })
}

/// Turns errors and panics into reports.
fn guard(job: impl FnOnce() -> Result<Report, ActionError>) -> Report {
    match catch_unwind(AssertUnwindSafe(job)) {
        Ok(Ok(report)) => report,
        Ok(Err(error)) => done(NodeResult::failed(error)),
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_default();
            let error =
                ActionError::new("imgdecl::bug", format!("this is a bug in imgdecl: {text}"));
            done(NodeResult::failed(ActionError {
                failure: Failure::Bug,
                ..error
            }))
        }
    }
}

impl Shared<'_> {
    fn run(&self, id: NodeId, node: &Node, inputs: &[Product]) -> Result<NodeResult, ActionError> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(ActionError::stopped());
        }
        let action = node.action.name();
        self.watch.event(&Event::Start {
            node: id,
            label: &node.label,
            action,
        });
        let bytes = AtomicU64::new(0);
        let tick = |more: u64| {
            if more > 0 {
                bytes.fetch_add(more, Ordering::Relaxed);
                self.watch.event(&Event::Progress {
                    node: id,
                    bytes: more,
                });
            }
            !self.cancel.load(Ordering::Relaxed)
        };
        let start = Instant::now();
        let product = node.action.run(
            &Context {
                store: self.store,
                ports: self.ports,
                tick: &tick,
                note: &|_| {},
            },
            inputs,
        );
        // An action that was stopped may report whatever error that led to.
        if self.cancel.load(Ordering::Relaxed) && product.is_err() {
            return Err(ActionError::stopped());
        }
        Ok(NodeResult {
            product: Some(product?),
            bytes: bytes.load(Ordering::Relaxed),
            millis: start.elapsed().as_millis() as u64,
            ..NodeResult::ended(Outcome::Seen)
        })
    }

    /// Returns the recorded product, if all that it needs is there and whole.
    fn recorded(
        &self,
        key: ActionKey,
        node: &Node,
        is_first: bool,
    ) -> Result<Option<Product>, ActionError> {
        let Some(record) = self.store.record(&key.0)? else {
            return Ok(None);
        };
        let Some(product) = Product::from_record(&record, self.store) else {
            self.tell(is_first, node, "its record in the cache is damaged");
            return Ok(None);
        };
        for blob in product.blobs(self.options.want_layers) {
            match self.store.check(&blob) {
                Health::Whole => {}
                Health::Missing => return Ok(None),
                Health::Damaged => {
                    self.tell(
                        is_first,
                        node,
                        &format!("the blob {} in the cache is damaged", blob.digest),
                    );
                    return Ok(None);
                }
            }
        }
        Ok(Some(product))
    }

    /// Tells of damage, the first time that it is seen.
    fn tell(&self, is_first: bool, node: &Node, what: &str) {
        if !is_first {
            return;
        }
        self.watch.event(&Event::Note(&format!(
            "{}: {what}; it is made again",
            node.label
        )));
    }

    /// Compares the key with the last one, and remembers this one.
    fn why(&self, node: &Node, inputs: &[Product], key: ActionKey) -> Result<Why, ActionError> {
        let identity = node.identity(&self.options.workspace);
        if self.store.is_last_key(&identity, &key.0) {
            return Ok(Why::Same);
        }
        let text = node.key_text(inputs);
        let why = match self.store.last_key(&identity)? {
            Some((_, last)) => Why::Changed(compare(&last, &text)),
            None => Why::First,
        };
        if !self.options.dry {
            self.store.put_last_key(&identity, &key.0, &text)?;
        }
        Ok(why)
    }
}
