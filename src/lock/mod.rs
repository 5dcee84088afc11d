//! `image.lock`: what the names of a manifest were resolved to. Plain data and its text form.
//!
//! It holds an entry for each target that is pinned, by rule, with a seal, so that an edit is seen. What stands in an entry is
//! for its rule alone: see [`Pin`]. Knows no rule, no network.

mod file;
mod form;

pub(crate) use form::{Form, FormOf, Move, Pin};

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::graph::SourceText;
use form::{Targets, pin};

/// The name of the file, in the workspace's root.
pub(crate) const FILE: &str = "image.lock";

/// What the targets of a workspace are pinned to.
#[derive(Clone, Default)]
pub struct Lock {
    /// By the name of the rule; each has some.
    rules: BTreeMap<&'static str, Pins>,
}

/// What the targets of one rule are pinned to.
#[derive(Clone)]
struct Pins {
    form: &'static dyn Form,
    /// By target: `NAME` or `MEMBER:NAME`.
    targets: Targets,
}

/// A lock that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct LockError {
    /// What is wrong.
    pub(crate) message: String,
    /// What stands at the place.
    pub(crate) label: String,
    /// How to mend it.
    pub(crate) help: String,
    /// The file.
    pub(crate) source_text: Arc<SourceText>,
    /// The place.
    pub(crate) span: Range<usize>,
}

impl Lock {
    /// Tells whether nothing is pinned.
    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Tells whether a target of a rule is pinned.
    pub(crate) fn has(&self, rule: &str, target: &str) -> bool {
        let pins = self.rules.get(rule);
        pins.is_some_and(|it| it.targets.contains_key(target))
    }

    /// Returns what a target is pinned to.
    pub(crate) fn get<P: Pin>(&self, target: &str) -> Option<&P> {
        pin(self.rules.get(P::RULE)?.targets.get(target)?)
    }

    /// Returns what all targets of a rule are pinned to, sorted by target.
    pub(crate) fn all<P: Pin>(&self) -> impl Iterator<Item = (&String, &P)> {
        let targets = self.rules.get(P::RULE).into_iter();
        let targets = targets.flat_map(|pins| &pins.targets);
        targets.filter_map(|(target, sealed)| Some((target, pin(sealed)?)))
    }

    /// Pins a target.
    pub(crate) fn put<P: Pin>(&mut self, target: String, pin: P) {
        self.enter(FormOf::<P>::FORM, target, Arc::new(pin));
    }

    fn enter(&mut self, form: &'static dyn Form, target: String, sealed: form::Sealed) {
        let pins = self.rules.entry(form.rule()).or_insert_with(|| Pins {
            form,
            targets: Targets::new(),
        });
        pins.targets.insert(target, sealed);
    }

    /// Drops the entries of all other targets.
    pub(crate) fn retain(&mut self, wanted: &BTreeSet<String>) {
        for pins in self.rules.values_mut() {
            pins.targets.retain(|target, _| wanted.contains(target));
        }
        self.rules.retain(|_, pins| !pins.targets.is_empty());
    }
}

impl PartialEq for Lock {
    fn eq(&self, other: &Self) -> bool {
        let is_equal = |(one, other): (&Pins, &Pins)| {
            one.targets.len() == other.targets.len()
                && one.targets.iter().all(|(target, sealed)| {
                    let other = other.targets.get(target);
                    other.is_some_and(|other| one.form.is_equal(sealed, other))
                })
        };
        self.rules.keys().eq(other.rules.keys())
            && self.rules.values().zip(other.rules.values()).all(is_equal)
    }
}

impl Eq for Lock {}

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text())
    }
}

/// Says what moved from one lock to another, a line for each thing, for people.
pub(crate) fn changes(old: &Lock, new: &Lock) -> Vec<String> {
    let rules = old.rules.iter().chain(&new.rules);
    let forms: BTreeMap<&str, &dyn Form> = rules.map(|(rule, it)| (*rule, it.form)).collect();
    let none = Targets::new();
    let of = |lock: &'_ Lock, rule: &str| lock.rules.get(rule).map(|it| it.targets.clone());
    let lines = forms.into_iter().flat_map(|(rule, form)| {
        let (was, is) = (of(old, rule), of(new, rule));
        form.changes(was.as_ref().unwrap_or(&none), is.as_ref().unwrap_or(&none))
    });
    lines.collect()
}

#[cfg(test)]
mod tests;
