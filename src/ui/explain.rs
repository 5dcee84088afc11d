//! Lines for people about keys, and about what image.lock lacks.

use std::collections::BTreeSet;

use crate::exec::{NodeResult, Why};
use crate::graph::Graph;
use crate::lock;
use crate::rule::Need;
use crate::store::Store;
use crate::work::needs_registry;

/// Tells the key of each action, and how it differs from the last one: all of it where it is new. Likewise those of the
/// parts that were found out anew.
pub(super) fn keys(
    graph: &Graph,
    results: &[NodeResult],
    store: &Store,
    workspace: &str,
) -> Vec<String> {
    let mut lines = Vec::new();
    let indented = |line: &str| format!("  {line}");
    for ((_, node), result) in graph.nodes().zip(results) {
        let detail = node.action.detail().map(|detail| format!(" {detail}"));
        let detail = detail.unwrap_or_default();
        let what = format!("{} {}{detail}", node.action.name(), node.label);
        for part in &result.parts {
            if let Some(text) = &part.found_out {
                lines.push(format!("found out {} for {what}", part.name));
                lines.extend(text.lines().map(indented));
            }
        }
        let (Some(key), Some(why)) = (result.key, &result.why) else {
            continue;
        };
        let about = match why {
            Why::First => "first seen here".to_owned(),
            Why::Same => "key as last time".to_owned(),
            Why::Changed(lines) => format!("key changed in {} lines", lines.len()),
            Why::Unknown => "key unknown".to_owned(),
        };
        lines.push(format!("{} {what}: {about}", result.outcome.word()));
        lines.push(format!("  key {key}"));
        match why {
            Why::Changed(changed) => lines.extend(changed.iter().map(|it| indented(it))),
            Why::First => {
                let last = store.last_key(&node.identity(workspace)).ok().flatten();
                let text = last.filter(|(known, _)| *known == key.0).map(|it| it.1);
                lines.extend(text.iter().flat_map(|it| it.lines()).map(indented));
            }
            Why::Same | Why::Unknown => {}
        }
    }
    lines
}

/// Says, after a plan, what would be resolved first.
pub(super) fn lacks(needs: &[Need]) -> BTreeSet<String> {
    let lacking = needs.iter().filter(|need| !need.is_pinned);
    let line = |need: &Need| {
        let (file, target) = (lock::FILE, &need.target);
        match &need.was {
            None => format!("{file} lacks `{target}`: `imgdecl lock` resolves it"),
            Some(was) => {
                // Of what lies on disk, `was` says what it is now.
                let now = needs_registry(need).then(|| format!(", and is {} now", need.wanted));
                let now = now.unwrap_or_default();
                format!(
                    "{file} is stale: `{target}` was resolved from {was}{now}: `imgdecl lock` resolves it again"
                )
            }
        }
    };
    lacking.map(line).collect()
}
