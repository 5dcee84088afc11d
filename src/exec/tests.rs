//! Tests of running graphs, with actions made for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::graph::{
    Action, ActionError, Context, Graph, KeyWriter, Label, NodeId, Origin, Ports, Product,
    SourceText, Stop, TreeProduct,
};
use crate::layer::Tree;
use crate::oci::{Descriptor, Digest, MediaType};
use crate::store::{Blobs as _, InMemory, Store};

struct Silent;

impl Watch for Silent {
    fn event(&self, _: &Event<'_>) {}
}

/// An action that makes a blob of its text, or does something wrong.
struct Say {
    text: &'static str,
    runs: Arc<AtomicUsize>,
}

impl Action for Say {
    fn name(&self) -> &'static str {
        "say"
    }

    fn parameters(&self, key: &mut dyn KeyWriter) {
        key.field("text", self.text);
    }

    fn run(&self, context: &Context<'_>, _: &[Product]) -> Result<Product, ActionError> {
        self.runs.fetch_add(1, Ordering::Relaxed);
        match self.text {
            "fail" => Err(ActionError::new("test", "failed")),
            "panic" => panic!("on purpose"),
            text => {
                let blob = context.store.put_blob(text.as_bytes())?;
                let descriptor = Descriptor::new(MediaType::OciLayer, blob.digest, blob.size);
                Ok(Product::Layer(crate::graph::Layer {
                    descriptor,
                    diff_id: crate::oci::DiffId(blob.digest),
                }))
            }
        }
    }
}

struct Look;

impl Action for Look {
    fn name(&self) -> &'static str {
        "look"
    }

    fn is_cached(&self) -> bool {
        false
    }

    fn parameters(&self, _: &mut dyn KeyWriter) {}

    fn run(&self, _: &Context<'_>, _: &[Product]) -> Result<Product, ActionError> {
        Ok(Product::Tree(TreeProduct::new(Tree::default())))
    }
}

fn add(
    graph: &mut Graph,
    action: impl Action + 'static,
    inputs: Vec<NodeId>,
    target: &str,
) -> NodeId {
    let origin = Origin {
        source: Arc::new(SourceText {
            name: String::new(),
            text: String::new(),
        }),
        span: 0..0,
    };
    graph.add(
        Arc::new(action),
        inputs,
        origin,
        Label {
            rule: "test",
            target: target.into(),
            platform: None,
        },
    )
}

fn run_on(graph: &Graph, folder: &std::path::Path, dry: bool) -> Vec<NodeResult> {
    run_in(graph, Caches::of(&Store::open(folder).unwrap()), dry)
}

fn run_in(graph: &Graph, caches: Caches<'_>, dry: bool) -> Vec<NodeResult> {
    let options = Options {
        jobs: 2,
        want_layers: true,
        dry,
        explain: true,
        workspace: "w".into(),
    };
    run(
        graph,
        caches,
        Ports::OFFLINE,
        &options,
        &Silent,
        &Stop::default(),
    )
}

fn outcomes(results: &[NodeResult]) -> Vec<Outcome> {
    results.iter().map(|result| result.outcome).collect()
}

#[test]
fn builds_once_then_hits() {
    let folder = tempfile::tempdir().unwrap();
    let runs = Arc::new(AtomicUsize::new(0));
    let mut graph = Graph::default();
    let look = add(&mut graph, Look, vec![], "look");
    let say = |text| Say {
        text,
        runs: runs.clone(),
    };
    add(&mut graph, say("a"), vec![look], "a");
    // The same key by another way: it runs once.
    let other = add(&mut graph, say("b"), vec![], "b");
    add(&mut graph, say("a"), vec![look], "a again");
    add(&mut graph, say("c"), vec![other], "c");
    use Outcome::{Built, Hit, Seen, Would};
    assert_eq!(
        outcomes(&run_on(&graph, folder.path(), true)),
        [Seen, Would, Would, Would]
    );
    assert_eq!(runs.load(Ordering::Relaxed), 0);
    assert_eq!(
        outcomes(&run_on(&graph, folder.path(), false)),
        [Seen, Built, Built, Built]
    );
    let again = run_on(&graph, folder.path(), false);
    assert_eq!(outcomes(&again), [Seen, Hit, Hit, Hit]);
    assert_eq!(again[1].why, Some(Why::Same));
    assert_eq!(runs.load(Ordering::Relaxed), 3);
}

#[test]
fn a_failure_stops_what_needs_it_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let runs = Arc::new(AtomicUsize::new(0));
    let mut graph = Graph::default();
    let say = |text| Say {
        text,
        runs: runs.clone(),
    };
    let fail = add(&mut graph, say("fail"), vec![], "fail");
    let panic = add(&mut graph, say("panic"), vec![], "panic");
    let good = add(&mut graph, say("good"), vec![], "good");
    add(&mut graph, say("x"), vec![good, fail], "x");
    add(&mut graph, say("y"), vec![good], "y");
    add(&mut graph, say("z"), vec![panic], "z");
    use Outcome::{Built, Failed, Skipped};
    let results = run_on(&graph, folder.path(), false);
    assert_eq!(
        outcomes(&results),
        [Failed, Failed, Built, Skipped, Built, Skipped]
    );
    let bug = results[1].error.as_ref().unwrap();
    assert!(bug.message.contains("on purpose") && bug.failure == crate::graph::Failure::Bug);
}

#[test]
fn lost_and_damaged_blobs_are_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let runs = Arc::new(AtomicUsize::new(0));
    let mut graph = Graph::default();
    add(
        &mut graph,
        Say {
            text: "a",
            runs: runs.clone(),
        },
        vec![],
        "a",
    );
    run_on(&graph, folder.path(), false);
    let path = Store::open(folder.path())
        .unwrap()
        .local_path(&Digest::of(b"a"));
    std::fs::remove_file(&path).unwrap();
    assert_eq!(
        outcomes(&run_on(&graph, folder.path(), false)),
        [Outcome::Built]
    );
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "b").unwrap();
    assert_eq!(
        outcomes(&run_on(&graph, folder.path(), false)),
        [Outcome::Built]
    );
    assert_eq!(std::fs::read(&path).unwrap(), b"a");
    assert_eq!(runs.load(Ordering::Relaxed), 3);
}

#[test]
fn what_the_user_stopped_has_not_failed() {
    let stopped = NodeResult::failed(ActionError::stopped());
    assert_eq!(stopped.outcome, Outcome::Skipped);
    let failed = NodeResult::failed(ActionError::new("imgdecl::test", "no"));
    assert_eq!(failed.outcome, Outcome::Failed);
}

/// An action that keeps a tree in the store. From its second run on it fails, if it is to.
struct Keep {
    runs: Arc<AtomicUsize>,
    fails: bool,
}

impl Action for Keep {
    fn name(&self) -> &'static str {
        "keep"
    }

    fn parameters(&self, _: &mut dyn KeyWriter) {}

    fn run(&self, context: &Context<'_>, _: &[Product]) -> Result<Product, ActionError> {
        if self.runs.fetch_add(1, Ordering::Relaxed) > 0 && self.fails {
            return Err(ActionError::new("test", "failed"));
        }
        let contents = context.store.put_blob(CONTENTS)?;
        let kept = TreeProduct::keep(Tree::default(), contents, "", context.store)?;
        Ok(Product::Tree(kept))
    }
}

const CONTENTS: &[u8] = b"contents";

/// Hands on what it gets, without a record of it.
struct HandOn;

impl Action for HandOn {
    fn name(&self) -> &'static str {
        "hand on"
    }

    fn is_cached(&self) -> bool {
        false
    }

    fn parameters(&self, _: &mut dyn KeyWriter) {}

    fn run(&self, _: &Context<'_>, inputs: &[Product]) -> Result<Product, ActionError> {
        Ok(inputs[0].clone())
    }
}

/// Reads a tree and its contents. It says so before, or is found to when it does.
struct Read {
    number: usize,
    says: bool,
}

impl Action for Read {
    fn name(&self) -> &'static str {
        "read"
    }

    fn parameters(&self, key: &mut dyn KeyWriter) {
        key.field("number", &self.number.to_string());
    }

    fn reads(&self, inputs: &[Product]) -> Vec<crate::store::Blob> {
        match &inputs[0] {
            Product::Tree(tree) if self.says => tree.reads(),
            _ => Vec::new(),
        }
    }

    fn run(&self, context: &Context<'_>, inputs: &[Product]) -> Result<Product, ActionError> {
        let Product::Tree(tree) = &inputs[0] else {
            panic!("not a tree")
        };
        tree.tree.get(context)?;
        for blob in tree.reads() {
            context.read(&blob)?;
        }
        let text = format!("read {}", self.number);
        let blob = context.store.put_blob(text.as_bytes())?;
        let descriptor = Descriptor::new(MediaType::OciLayer, blob.digest, blob.size);
        Ok(Product::Layer(crate::graph::Layer {
            descriptor,
            diff_id: crate::oci::DiffId(blob.digest),
        }))
    }
}

/// A tree, handed on twice, and two that read it.
fn chain(fails: bool, says: bool) -> (Graph, Arc<AtomicUsize>) {
    let runs = Arc::new(AtomicUsize::new(0));
    let mut graph = Graph::default();
    let keep = Keep {
        runs: runs.clone(),
        fails,
    };
    let keep = add(&mut graph, keep, vec![], "keep");
    let first = add(&mut graph, HandOn, vec![keep], "first");
    let second = add(&mut graph, HandOn, vec![first], "second");
    for number in 0..2 {
        add(&mut graph, Read { number, says }, vec![second], "read");
    }
    (graph, runs)
}

/// Removes the blob of some bytes.
fn lose(folder: &std::path::Path, bytes: &[u8]) {
    let store = Store::open(folder).unwrap();
    std::fs::remove_file(store.local_path(&Digest::of(bytes))).unwrap();
}

/// The listing of a tree without entries.
const LISTING: &[u8] = b"[]";

#[test]
fn what_is_read_and_lost_is_made_again_once_by_who_made_it() {
    use Outcome::{Built, Hit, Seen, Would};
    for says in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let (graph, runs) = chain(false, says);
        let built = [Built, Seen, Seen, Built, Built];
        assert_eq!(outcomes(&run_on(&graph, folder.path(), false)), built);
        // Nobody reads it: nobody misses it.
        lose(folder.path(), CONTENTS);
        lose(folder.path(), LISTING);
        let hits = [Hit, Seen, Seen, Hit, Hit];
        for dry in [true, false] {
            assert_eq!(outcomes(&run_on(&graph, folder.path(), dry)), hits);
        }
        lose(folder.path(), b"read 0");
        lose(folder.path(), b"read 1");
        let would = outcomes(&run_on(&graph, folder.path(), true));
        let first = if says { Would } else { Hit };
        assert_eq!(would, [first, Seen, Seen, Would, Would]);
        assert_eq!(outcomes(&run_on(&graph, folder.path(), false)), built);
        assert_eq!(runs.load(Ordering::Relaxed), 2);
        assert_eq!(outcomes(&run_on(&graph, folder.path(), false)), hits);
    }
}

#[test]
fn a_listing_that_only_looks_whole_is_made_again() {
    use Outcome::{Built, Hit, Seen};
    let folder = tempfile::tempdir().unwrap();
    let (graph, runs) = chain(false, true);
    run_on(&graph, folder.path(), false);
    let store = Store::open(folder.path()).unwrap();
    let path = store.local_path(&Digest::of(LISTING));
    let time = std::fs::metadata(&path).unwrap().modified().unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "{}").unwrap();
    let file = std::fs::File::options().append(true).open(&path).unwrap();
    file.set_modified(time).unwrap();
    lose(folder.path(), b"read 0");
    let built = [Built, Seen, Seen, Built, Hit];
    assert_eq!(outcomes(&run_on(&graph, folder.path(), false)), built);
    assert_eq!(runs.load(Ordering::Relaxed), 2);
    assert_eq!(std::fs::read(&path).unwrap(), LISTING);
}

#[test]
fn what_cannot_be_made_again_fails_for_all_that_read_it() {
    use Outcome::{Failed, Skipped};
    let folder = tempfile::tempdir().unwrap();
    let (graph, runs) = chain(true, true);
    run_on(&graph, folder.path(), false);
    lose(folder.path(), CONTENTS);
    lose(folder.path(), b"read 0");
    lose(folder.path(), b"read 1");
    let failed = [Failed, Skipped, Skipped, Skipped, Skipped];
    assert_eq!(outcomes(&run_on(&graph, folder.path(), false)), failed);
    assert_eq!(runs.load(Ordering::Relaxed), 2);
    // The record without its bytes is still there, and found wanting the next time, too.
    assert_eq!(outcomes(&run_on(&graph, folder.path(), false)), failed);
}

#[test]
fn records_and_blobs_may_be_elsewhere() {
    use Outcome::{Built, Hit, Seen, Would};
    let elsewhere = InMemory::default();
    let (graph, runs) = chain(false, false);
    // Each run is on a machine of its own, which holds neither.
    let run = |dry| {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let caches = Caches {
            records: &elsewhere,
            blobs: &elsewhere,
            folder: &store,
        };
        let outcomes = outcomes(&run_in(&graph, caches, dry));
        let info = store.info().unwrap();
        assert_eq!((info.blobs, info.records), (0, 0));
        outcomes
    };
    assert_eq!(run(true), [Would; 5]);
    let built = [Built, Seen, Seen, Built, Built];
    assert_eq!(run(false), built);
    let hits = [Hit, Seen, Seen, Hit, Hit];
    assert_eq!(run(false), hits);
    assert_eq!(run(true), hits);
    // What is gone or damaged there is made again, as it is at home.
    let lose = |bytes: &[u8]| elsewhere.all_blobs().remove(&Digest::of(bytes)).unwrap();
    let (listing, _) = (lose(LISTING), lose(CONTENTS));
    assert_eq!(run(false), hits);
    lose(b"read 0");
    lose(b"read 1");
    assert_eq!(run(false), built);
    assert_eq!(runs.load(Ordering::Relaxed), 2);
    let damaged = [b'x'].repeat(listing.len()).into();
    let before = elsewhere.all_blobs().insert(Digest::of(LISTING), damaged);
    assert_eq!(before, Some(listing));
    lose(b"read 0");
    assert_eq!(run(false), [Built, Seen, Seen, Built, Hit]);
    assert_eq!(runs.load(Ordering::Relaxed), 3);
}
