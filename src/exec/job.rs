//! What runs on the lanes: looking a node up, and running its action.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::event::{Event, Outcome, Watch, Why};
use super::memory::{Caches, Found};
use super::schedule::{NodeResult, Options};
use crate::graph::{ActionError, ActionKey, Context, Node, NodeId, Ports, Product, Stop, compare};
use crate::store::{Blob, Health, KeyLock};

/// What all jobs share.
pub(super) struct Shared<'a> {
    pub(super) caches: Caches<'a>,
    pub(super) ports: Ports<'a>,
    pub(super) options: &'a Options,
    pub(super) watch: &'a dyn Watch,
    pub(super) stop: &'a Stop,
    /// What actions said so far.
    pub(super) told: Mutex<BTreeSet<String>>,
}

/// What a job found out.
pub(super) enum Report {
    /// The node has its product, or failed.
    Done(Box<NodeResult>),
    /// The product is not recorded: the action must run under the key's lock. What it reads is there, as far as it was
    /// looked for.
    Miss { key: ActionKey, why: Why },
    /// The action has to run, and blobs of what lies below it are gone or damaged: the nodes that made them must run again
    /// first. With the key, if it is known.
    Lost {
        lost: Lost,
        known: Option<(ActionKey, Why)>,
    },
}

/// What an action cannot read.
pub(super) struct Lost {
    /// Blobs of what lies below that are gone or damaged.
    pub(super) blobs: Vec<Blob>,
    /// The error, for where nobody can make them again.
    pub(super) error: Box<ActionError>,
}

/// A node that has to run.
pub(super) struct Build {
    pub(super) key: ActionKey,
    pub(super) why: Why,
    /// Whether it runs because its blobs are gone: a record without them is none.
    pub(super) is_again: bool,
}

/// Looks a node up, or runs it if there is nothing to look up.
pub(super) fn look(shared: &Shared<'_>, id: NodeId, node: &Node, inputs: &[Product]) -> Report {
    guard(|| {
        if !node.action.is_cached() {
            return Ok(match shared.run(id, node, inputs)? {
                Ran::Done(result) => Report::Done(result),
                // A plan has no network: what must be fetched first is no failure of it.
                Ran::Failed(error) if shared.options.dry && error.is_offline() => {
                    let why = Some(Why::Unknown);
                    done(NodeResult {
                        why,
                        ..NodeResult::ended(Outcome::Would)
                    })
                }
                Ran::Failed(error) => return Err(error),
                Ran::Lost(lost) => Report::Lost { lost, known: None },
            });
        }
        let key = node.key(inputs);
        let why = shared.why(node, inputs, key)?;
        let layers = shared.options.want_layers;
        let needed = |product: &Product| product.for_outputs(layers);
        if let Some(product) = shared.recorded(key, node, &needed, true)? {
            return Ok(hit(product, key, why));
        }
        Ok(match shared.lost(node, inputs) {
            Some(lost) => Report::Lost {
                lost,
                known: Some((key, why)),
            },
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
    Build { key, why, is_again }: Build,
    lock: KeyLock,
) -> Report {
    guard(|| {
        let layers = shared.options.want_layers;
        let needed = |product: &Product| product.for_outputs(layers);
        // A record whose bytes were asked for in vain is none.
        if !is_again && let Some(product) = shared.recorded(key, node, &needed, false)? {
            return Ok(hit(product, key, why));
        }
        let ran = match shared.lost(node, inputs) {
            Some(lost) => Ran::Lost(lost),
            None => shared.run(id, node, inputs)?,
        };
        let result = match ran {
            Ran::Done(result) => *result,
            Ran::Failed(error) => return Err(error),
            Ran::Lost(lost) => {
                let known = Some((key, why));
                return Ok(Report::Lost { lost, known });
            }
        };
        if let Some(product) = &result.product {
            shared.caches.memory().put_product(key, product)?;
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

/// What a run came to.
enum Ran {
    /// It made its product.
    Done(Box<NodeResult>),
    /// It failed.
    Failed(ActionError),
    /// It could not read what lies below.
    Lost(Lost),
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
            done(NodeResult::failed(ActionError::bug(&text)))
        }
    }
}

impl Shared<'_> {
    fn run(&self, id: NodeId, node: &Node, inputs: &[Product]) -> Result<Ran, ActionError> {
        if self.stop.is_asked() {
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
            !self.stop.is_asked()
        };
        let start = Instant::now();
        let memory = self.caches.memory();
        let product = node.action.run(
            &Context {
                store: self.caches.blobs,
                folder: self.caches.folder,
                ports: self.ports,
                parts: &memory,
                tick: &tick,
                note: &|text| self.note(text),
            },
            inputs,
        );
        // An action that was stopped may report whatever error that led to.
        if self.stop.is_asked() && product.is_err() {
            return Err(ActionError::stopped());
        }
        let seen = memory.seen();
        Ok(match product {
            Ok(product) => Ran::Done(Box::new(NodeResult {
                product: Some(product),
                parts: seen.parts,
                bytes: bytes.load(Ordering::Relaxed),
                millis: start.elapsed().as_millis() as u64,
                ..NodeResult::ended(Outcome::Seen)
            })),
            Err(error) if seen.lost.is_empty() => Ran::Failed(error),
            Err(error) => Ran::Lost(Lost {
                blobs: seen.lost,
                error: Box::new(error),
            }),
        })
    }

    /// Returns the recorded product, if the blobs that are `needed` of it are there.
    fn recorded(
        &self,
        key: ActionKey,
        node: &Node,
        needed: &dyn Fn(&Product) -> Vec<Blob>,
        is_first: bool,
    ) -> Result<Option<Product>, ActionError> {
        Ok(match self.caches.memory().product(key, needed)? {
            Found::Product(product) => Some(*product),
            Found::Nothing => None,
            Found::Damaged(what) => {
                self.tell(is_first, node, &what);
                None
            }
        })
    }

    /// Returns the blobs that the node's action reads and that are gone or damaged.
    fn lost(&self, node: &Node, inputs: &[Product]) -> Option<Lost> {
        let mut blobs = Vec::new();
        let mut first = None;
        let reads = node.action.reads(inputs);
        for (blob, health) in reads.iter().zip(self.caches.blobs.check_all(&reads)) {
            if health != Health::Whole {
                first.get_or_insert_with(|| ActionError::lost(blob, health));
                blobs.push(*blob);
            }
        }
        let error = Box::new(first?);
        Some(Lost { blobs, error })
    }

    /// Tells what an action says, once: nodes of several platforms may say the same.
    fn note(&self, text: &str) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.insert(text.to_owned()) {
            self.watch.event(&Event::Note(text));
        }
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
        if self.caches.folder.is_last_key(&identity, &key.0) {
            return Ok(Why::Same);
        }
        let (memory, folder) = (self.caches.memory(), self.caches.folder);
        let context = Context {
            store: self.caches.blobs,
            folder,
            ports: Ports::OFFLINE,
            parts: &memory,
            tick: &|_| !self.stop.is_asked(),
            note: &|_| {},
        };
        let write = |out: &mut dyn Write| {
            node.write_key_text(inputs, &context, out)?;
            // A text that was cut short would be compared with the next one.
            match self.stop.is_asked() {
                true => Err(io::Error::other("stopped")),
                false => Ok(()),
            }
        };
        // The text as a whole, where it is compared: it is not made a second time.
        let mut text = Vec::new();
        let has_last = folder.has_last_key(&identity);
        let is_compared = has_last && self.options.explain;
        let why = match (is_compared, has_last) {
            (true, _) => {
                write(&mut text).map_err(|_| ActionError::stopped())?;
                let last = folder.last_key(&identity)?.map(|(_, text)| text);
                let text = String::from_utf8_lossy(&text);
                Why::Changed(compare(&last.unwrap_or_default(), &text))
            }
            (false, true) => Why::Changed(Vec::new()),
            (false, false) => Why::First,
        };
        if !self.options.dry {
            let put = folder.put_last_key(&identity, &key.0, &|out| match is_compared {
                true => out.write_all(&text),
                false => write(out),
            });
            put.map_err(|error| match self.stop.is_asked() {
                true => ActionError::stopped(),
                false => ActionError::from(error),
            })?;
        }
        Ok(why)
    }
}
