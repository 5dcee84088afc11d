//! `lock --export`: writes what is locked for Python packages in the form of another tool.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::file::write_file;
use super::workspace::Workspace;
use super::{Failed, NodeFailure, Session};
use crate::graph::{Context, Label};
use crate::lock::{self, Lock};
use crate::rule::{Need, RULES};
use crate::source::read_document;
use crate::spec::TargetId;

/// The line by which we know what we wrote.
const OURS: &str = "created-by = \"imgdecl\"";

/// A text, and where it goes; to stdout if that is nowhere.
struct Export {
    path: Option<PathBuf>,
    text: String,
}

/// A lock in the form of another tool.
pub(crate) enum Exported {
    /// Its text, which was written nowhere.
    Text(String),
    /// The file that it was written to, as people know it.
    File(PathBuf),
}

/// Writes the locks to where `output` says: a file, a folder, or `-` for nowhere.
pub(super) fn export(
    session: &Session,
    workspace: &Workspace,
    (needs, lock): (&[Need], &Lock),
    output: Option<&str>,
    context: &Context<'_>,
) -> Result<Vec<Exported>, Failed> {
    let mut targets: BTreeMap<&TargetId, Vec<&Need>> = BTreeMap::new();
    for need in needs {
        let rule = RULES[need.rule];
        if rule.exports() && lock.has(rule.name(), &need.target.to_string()) {
            targets.entry(&need.target).or_default().push(need);
        }
    }
    let names: Vec<String> = targets.keys().map(|it| it.to_string()).collect();
    if names.is_empty() {
        let help = "packages are locked for targets `[pip.NAME]` that are in an image";
        let message = format!("{} has no Python packages to export", lock::FILE);
        return Err(Failed::usage(
            "imgdecl::cli::export",
            &message,
            Some(help.into()),
        ));
    }
    let paths = paths(session, output, &workspace.spec.root, &names)?;
    let mut exports = Vec::new();
    for ((id, needs), path) in targets.into_iter().zip(paths) {
        let (Some(target), Some(first)) = (workspace.spec.target(id), needs.first()) else {
            continue;
        };
        let rule = RULES[target.rule];
        let folder = match path.as_deref().map(Path::parent) {
            Some(folder) => folder.unwrap_or(Path::new("/")).to_owned(),
            None => session.here()?.to_owned(),
        };
        let text = rule
            .export(&needs, context, lock, &folder)
            .map_err(|error| {
                let label = Label {
                    rule: rule.name(),
                    target: workspace.spec.short_name(id),
                    platform: None,
                };
                Failed::Run(vec![NodeFailure {
                    label,
                    origin: first.origin.clone(),
                    error,
                }])
            })?;
        exports.extend(text.map(|text| Export { path, text }));
    }
    let mut exported = Vec::new();
    for Export { path, text } in exports {
        exported.push(match path {
            None => Exported::Text(text),
            Some(path) => {
                write(&path, &text)?;
                let name = path.strip_prefix(&workspace.spec.root).unwrap_or(&path);
                Exported::File(name.to_owned())
            }
        });
    }
    Ok(exported)
}

/// Decides where each target's lock goes; nowhere is stdout.
fn paths(
    session: &Session,
    output: Option<&str>,
    root: &Path,
    names: &[String],
) -> Result<Vec<Option<PathBuf>>, Failed> {
    let root = root.canonicalize().unwrap_or_else(|_| root.to_owned());
    let folder = match output {
        None => root,
        Some(output) => {
            let path = session.here()?.join(output);
            let is_folder = output.ends_with('/') || path.is_dir();
            if !is_folder && names.len() > 1 {
                let message = format!("there is a lock for each of {}", names.join(", "));
                let help = "name a folder with `--output`, as `locks/`";
                return Err(Failed::usage(
                    "imgdecl::cli::export",
                    &message,
                    Some(help.into()),
                ));
            }
            match output {
                "-" => return Ok(vec![None]),
                _ if !is_folder => return Ok(vec![Some(path)]),
                _ => path,
            }
        }
    };
    let files = files(names);
    Ok(files.into_iter().map(|it| Some(folder.join(it))).collect())
}

/// Names the files as the specification has it: no dot within a name.
fn files(names: &[String]) -> Vec<String> {
    if let [_] = names {
        return vec!["pylock.toml".to_owned()];
    }
    let mut seen = BTreeSet::new();
    let file = |name: &String| {
        let plain = name.trim_start_matches(':').replace([':', '.'], "-");
        // Two names may differ in what was replaced.
        let mut file = format!("pylock.{plain}.toml");
        while !seen.insert(file.clone()) {
            file = file.replace(".toml", "-.toml");
        }
        file
    };
    names.iter().map(file).collect()
}

/// Writes a file, but not over one of somebody else's.
fn write(path: &Path, text: &str) -> Result<(), Failed> {
    let fail = |message: String, help: &str| {
        Failed::build("imgdecl::cli::export", &message, Some(help.to_owned()))
    };
    match read_document(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Ok(bytes) if String::from_utf8_lossy(&bytes).lines().any(|it| it == OURS) => {}
        _ => {
            let message = format!("{} is there, and imgdecl did not write it", path.display());
            let help = "name another file with `--output`, or remove this one";
            return Err(fail(message, help));
        }
    }
    write_file(path, text.as_bytes()).map_err(|error| {
        let message = format!("cannot write {}: {error}", path.display());
        fail(
            message,
            "name a file in a folder that is there and writable with `--output`",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_as_the_specification_has_it() {
        let names = |names: &[&str]| -> Vec<String> {
            let names: Vec<String> = names.iter().map(|it| (*it).to_owned()).collect();
            files(&names)
        };
        assert_eq!(names(&["qa:deps"]), ["pylock.toml"]);
        assert_eq!(
            names(&["a.b", "a-b", "qa:deps"]),
            ["pylock.a-b.toml", "pylock.a-b-.toml", "pylock.qa-deps.toml"]
        );
    }
}
