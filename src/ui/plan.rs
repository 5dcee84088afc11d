//! What `plan` shows: lines for people, and JSON for scripts; see docs/json.md.

use serde_json::{Value, json};

use super::size;
use crate::exec::Outcome;
use crate::graph::{Node, NodeId};
use crate::lock;
use crate::plan::render;
use crate::work::PushPreview;
use crate::work::plan::{Known, Outlook, Reason};

/// How many changed lines of a key a plan shows.
const FEW: usize = 5;

/// The version of the JSON. It is raised where a field goes away or means something else.
const VERSION: u32 = 1;

/// Shows a plan to people.
pub(crate) fn text(outlook: &Outlook) -> String {
    let planned = render(&outlook.plan, &|id, _| line(outlook.known(id)));
    let pushes = outlook.pushes.iter().map(push_line);
    planned + &pushes.collect::<String>()
}

/// Says what becomes of a node.
fn line(known: &Known) -> String {
    let outcome = known.result.outcome;
    if outcome == Outcome::Seen {
        return String::new();
    }
    let Some(reason) = &known.reason else {
        let fetch = match known.to_fetch {
            None | Some(0) => String::new(),
            Some(bytes) => format!("; {} to fetch for outputs with its bytes", size(bytes)),
        };
        return format!("  {}{fetch}", outcome.word());
    };
    let why = match reason {
        Reason::NotLocked => format!("{} lacks it", lock::FILE),
        Reason::Stale(was) => format!("{} is stale: it was resolved from {was}", lock::FILE),
        Reason::BaseNotLocked => "its base is resolved first".to_owned(),
        Reason::Never => "never built".to_owned(),
        Reason::Gone => "built before, but no longer in the cache".to_owned(),
        Reason::Input => "an input is built".to_owned(),
        Reason::Changed(lines) => {
            let more = lines.len().saturating_sub(FEW);
            let shown = lines.iter().take(FEW);
            let shown: String = shown
                .map(|line| format!("\n      {}", line.trim_end()))
                .collect();
            let more = match more {
                0 => String::new(),
                more => format!("\n      and {more} more"),
            };
            format!("changed{shown}{more}")
        }
    };
    format!("  build: {why}")
}

/// Shows a plan to scripts.
pub(crate) fn json(outlook: &Outlook) -> String {
    let nodes = outlook.plan.graph.nodes();
    let nodes = nodes.map(|(id, node)| node_json(id, node, outlook.known(id)));
    super::json(json!({
        "version": VERSION,
        "nodes": nodes.collect::<Vec<_>>(),
        "pushes": outlook.pushes.iter().map(push_json).collect::<Vec<_>>(),
    }))
}

fn node_json(id: NodeId, node: &Node, known: &Known) -> Value {
    let result = &known.result;
    json!({
        "id": id.0,
        "action": node.action.name(),
        "detail": node.action.detail(),
        "rule": node.label.rule,
        "target": node.label.target,
        "platform": node.label.platform.as_ref().map(ToString::to_string),
        "inputs": node.inputs.iter().map(|input| input.0).collect::<Vec<_>>(),
        "outcome": result.outcome.word(),
        "key": result.key.map(|key| key.to_string()),
        "reason": known.reason.as_ref().map(reason_json),
        "to_fetch": known.to_fetch,
    })
}

fn reason_json(reason: &Reason) -> Value {
    let word = match reason {
        Reason::NotLocked => "not_locked",
        Reason::Stale(_) => "lock_is_stale",
        Reason::BaseNotLocked => "base_not_locked",
        Reason::Never => "never_built",
        Reason::Gone => "not_in_cache",
        Reason::Changed(_) => "changed",
        Reason::Input => "input_is_built",
    };
    let mut value = json!({ "why": word });
    match reason {
        Reason::Stale(was) => value["locked_from"] = was.clone().into(),
        Reason::Changed(lines) => value["lines"] = lines.clone().into(),
        _ => {}
    }
    value
}

/// Says what a push would do about an image.
fn push_line(push: &PushPreview) -> String {
    let mut parts = Vec::new();
    match push.unbuilt {
        0 => {}
        1 => parts.push("1 layer that is not built yet".to_owned()),
        more => parts.push(format!("{more} layers that are not built yet")),
    }
    if push.send > 0 {
        parts.push(size(push.send));
    }
    let what = match (parts.is_empty(), push.is_new) {
        (true, false) => "nothing".to_owned(),
        (true, true) => "its manifests".to_owned(),
        _ => parts.join(" and "),
    };
    let mut line = format!("{}  a push would send {what}", push.name);
    if push.mount > 0 {
        line.push_str(&format!("; {} are mounted", size(push.mount)));
    }
    if push.there > 0 {
        line.push_str(&format!("; {} are there", size(push.there)));
    }
    line.push('\n');
    line
}

fn push_json(push: &PushPreview) -> Value {
    let is_done = !push.is_new && push.unbuilt == 0;
    json!({
        "image": push.name,
        "is_done": is_done,
        "unbuilt": push.unbuilt,
        "send": push.send,
        "mount": push.mount,
        "there": push.there,
    })
}
