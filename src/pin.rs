//! Brings `image.lock` up to date: finds what it lacks, and asks the rules to pin that, through the ports.

use std::collections::{BTreeMap, BTreeSet};

use crate::graph::{ActionError, Context, Label, Origin};
use crate::lock::Lock;
use crate::rule::{Need, RULES};
use crate::spec::{Spec, TargetId};

/// Which targets' names are resolved again although they are pinned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Update {
    /// Those that the lock lacks, or whose manifest says something else now.
    Lacking,
    /// These too.
    Targets(BTreeSet<TargetId>),
    /// All.
    All,
}

/// A target that could not be pinned.
#[derive(Debug)]
pub(crate) struct PinError {
    /// The target.
    pub label: Label,
    /// The place in the manifest that needs it.
    pub origin: Origin,
    /// Why.
    pub error: ActionError,
}

/// Brings a lock up to date. `needs` are all that the manifests need; entries that nothing needs are dropped. `start` is
/// told of each target that is pinned.
///
/// # Errors
/// Every target that could not be pinned; nothing is half done in the lock that is returned.
pub(crate) fn pin(
    spec: &Spec,
    lock: &Lock,
    needs: &[Need],
    update: &Update,
    context: &Context<'_>,
    start: &dyn Fn(&Need),
) -> Result<Lock, Vec<PinError>> {
    let mut targets: BTreeMap<&TargetId, Vec<&Need>> = BTreeMap::new();
    for need in needs {
        targets.entry(&need.target).or_default().push(need);
    }
    let mut new = lock.clone();
    let wanted: BTreeSet<String> = targets.keys().map(|id| id.to_string()).collect();
    new.retain(&wanted);
    let mut errors = Vec::new();
    for (id, needs) in targets {
        let is_update = match update {
            Update::Lacking => false,
            Update::Targets(ids) => ids.contains(id),
            Update::All => true,
        };
        let Some(first) = needs.first() else {
            continue;
        };
        if !is_update && needs.iter().all(|need| need.is_pinned) {
            continue;
        }
        if needs.iter().all(|need| need.waits) {
            continue;
        }
        start(first);
        let rule = RULES[first.rule];
        if let Err(error) = rule.pin(&needs, is_update, context, &mut new) {
            let label = Label {
                rule: rule.name(),
                target: spec.short_name(id),
                platform: None,
            };
            errors.push(PinError {
                label,
                origin: first.origin.clone(),
                error,
            });
        }
    }
    match errors.is_empty() {
        true => Ok(new),
        false => Err(errors),
    }
}
