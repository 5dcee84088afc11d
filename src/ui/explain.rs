//! Lines for people about keys, and about what image.lock lacks.

use std::collections::{BTreeMap, BTreeSet};

use crate::exec::{NodeResult, Outcome, Why};
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
    let mut same = 0;
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
        // What is as it was is counted, and not listed.
        if *why == Why::Same && result.outcome == Outcome::Hit {
            same += 1;
            continue;
        }
        let about = match why {
            Why::First => "first seen here".to_owned(),
            Why::Same => "key as last time".to_owned(),
            Why::Changed(lines) => format!("key changed in {} lines", lines.len()),
            Why::Unknown => "key unknown".to_owned(),
        };
        lines.push(format!("{} {what}: {about}", result.outcome.word()));
        lines.push(format!("  key {key}"));
        match why {
            Why::Changed(changed) => {
                lines.extend(changes(changed).iter().map(|it| indented(it)));
            }
            Why::First => {
                let last = store.last_key(&node.identity(workspace)).ok().flatten();
                let text = last.filter(|(known, _)| *known == key.0).map(|it| it.1);
                lines.extend(text.iter().flat_map(|it| it.lines()).map(indented));
            }
            Why::Same | Why::Unknown => {}
        }
    }
    match same {
        0 => {}
        1 => lines.push("1 hit with the key of last time".to_owned()),
        _ => lines.push(format!("{same} hits with the keys of last time")),
    }
    lines
}

/// How many files are told by name.
const FILES: usize = 20;

/// Says what changed in a key. Entries of trees are told by package and by file: first packages that came, went or have
/// another version, then files.
fn changes(lines: &[String]) -> Vec<String> {
    let mut out = Vec::new();
    let mut files: BTreeMap<&str, (bool, bool)> = BTreeMap::new();
    for line in lines {
        match entry(line) {
            Some((is_new, path)) => {
                let (was, is) = files.entry(path).or_default();
                *(if is_new { is } else { was }) = true;
            }
            None => out.push(line.clone()),
        }
    }
    let mut packages: BTreeMap<String, (BTreeSet<&str>, BTreeSet<&str>)> = BTreeMap::new();
    for (path, (was, is)) in &files {
        let Some((name, version)) = package(path) else {
            continue;
        };
        let (old, new) = packages.entry(name).or_default();
        if *was {
            old.insert(version);
        }
        if *is {
            new.insert(version);
        }
    }
    for (name, (old, new)) in &packages {
        let list = |versions: &BTreeSet<&str>| Vec::from_iter(versions.iter().copied()).join(", ");
        match (old.is_empty(), new.is_empty()) {
            _ if old == new => {}
            (true, _) => out.push(format!("+ {name} {}", list(new))),
            (_, true) => out.push(format!("- {name} {}", list(old))),
            _ => out.push(format!("~ {name} {} -> {}", list(old), list(new))),
        }
    }
    let told = files.iter().take(FILES).map(|(path, found)| match found {
        (true, true) => format!("~ {path}"),
        (false, _) => format!("+ {path}"),
        _ => format!("- {path}"),
    });
    out.extend(told);
    if files.len() > FILES {
        out.push(format!("and {} more files", files.len() - FILES));
    }
    out
}

/// Returns the path of an entry of a tree in a line of a difference, and whether it is new.
fn entry(line: &str) -> Option<(bool, &str)> {
    let is_new = match line.get(..2)? {
        "+ " => true,
        "- " => false,
        _ => return None,
    };
    let rest = line[2..].trim_start();
    let (label, rest) = rest.split_once(": \"")?;
    let is_tree = label.starts_with("tree");
    let (path, rest) = rest.split_once("\" ")?;
    let kinds = ["file", "folder", "folder!", "symlink", "hardlink", "remove"];
    let is_entry = is_tree && kinds.contains(&rest.split(' ').next().unwrap_or(rest));
    is_entry.then_some((is_new, path))
}

/// Returns name and version of the Python package whose records a path is of.
fn package(path: &str) -> Option<(String, &str)> {
    let folder = path.split('/').find(|part| part.ends_with(".dist-info"))?;
    let (name, version) = folder.strip_suffix(".dist-info")?.rsplit_once('-')?;
    Some((name.replace('_', "-").to_lowercase(), version))
}

/// Says, after a plan, what would be resolved first.
pub(super) fn lacks(needs: &[Need]) -> BTreeSet<String> {
    let lacking = needs.iter().filter(|need| !need.is_pinned);
    let line = |need: &Need| {
        let (file, target) = (lock::FILE, &need.target);
        match &need.was {
            _ if need.is_given => format!(
                "{file} does not hold `{target}` as the lock of another tool has it: it is taken from there"
            ),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_are_told_by_package_and_by_file() {
        let lines = [
            "- tree: sha256:aa",
            "+ tree: sha256:bb",
            "-   tree: \"lib/click-8.1.8.dist-info/METADATA\" file 0644 0:0 0 6 aa",
            "+   tree: \"lib/click-8.5.1.dist-info/METADATA\" file 0644 0:0 0 7 bb",
            "-   tree: \"lib/click/core.py\" file 0644 0:0 0 6 cc",
            "+   tree: \"lib/click/core.py\" file 0644 0:0 0 6 dd",
            "+   tree: \"lib/six-1.17.0.dist-info/RECORD\" file 0644 0:0 0 6 ee",
        ];
        let lines = lines.map(str::to_owned);
        assert_eq!(
            changes(&lines),
            [
                "- tree: sha256:aa",
                "+ tree: sha256:bb",
                "~ click 8.1.8 -> 8.5.1",
                "+ six 1.17.0",
                "- lib/click-8.1.8.dist-info/METADATA",
                "+ lib/click-8.5.1.dist-info/METADATA",
                "~ lib/click/core.py",
                "+ lib/six-1.17.0.dist-info/RECORD",
            ]
        );
    }

    #[test]
    fn many_files_are_counted() {
        let lines: Vec<String> = (10..40)
            .map(|n| format!("+   tree: \"f{n}\" file 0644 0:0 0 1 aa"))
            .collect();
        let told = changes(&lines);
        assert_eq!((told.len(), told[20].as_str()), (21, "and 10 more files"));
    }

    #[test]
    fn other_lines_stay() {
        let lines = [
            "- created: \"a\" file".to_owned(),
            "+ label: \"tree\"=\"b\"".to_owned(),
        ];
        assert_eq!(changes(&lines), lines);
    }
}
