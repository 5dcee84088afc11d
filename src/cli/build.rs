//! `build` and `plan`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use super::args::{Build, Common, Format, Plan};
use super::environment::current_dir;
use super::exit::Exit;
use super::setup::{self, Setup, setup};
use super::{CANCEL, report};
use crate::exec::{self, NodeResult, Options, Outcome, Why};
use crate::graph::{Failure, NodeId};
use crate::output::{Output, OutputError, Sink, metadata};
use crate::plan::render;
use crate::source::read_document;
use crate::ui::{self, Mode, Progress};

/// How many changed lines of a key a plan shows.
const FEW: usize = 5;

pub(super) fn build(args: &Build) -> Result<Exit, Exit> {
    let here = current_dir().unwrap_or_default();
    let metadata_file = args.metadata_file.as_ref().map(|path| here.join(path));
    let more: Vec<PathBuf> = metadata_file.iter().cloned().collect();
    let Setup { spec, plan, sinks } = setup(&args.common, &args.output, &more)?;
    if let Some(path) = &metadata_file {
        check_metadata(path, &sinks).map_err(|error| output_error(&error))?;
    }
    for sink in &sinks {
        sink.check().map_err(|error| output_error(&error))?;
    }
    let store = setup::store()?;
    let progress = Progress::new(args.progress);
    let options = options(&args.common, &spec.root, false);
    let results = exec::run(&plan.graph, &store, &options, &progress, &CANCEL);
    progress.finish();
    if args.explain {
        explain(&plan, &results);
    }
    failures(&plan, &results)?;

    let mut outputs = Vec::new();
    for image in &plan.images {
        let Some(product) = &results[image.node.0 as usize].product else {
            continue;
        };
        outputs.push(Output {
            name: image.name.clone(),
            repository: image.names.repository.clone(),
            tags: if args.tag.is_empty() {
                image.names.tags.clone()
            } else {
                args.tag.clone()
            },
            product,
        });
    }
    for sink in &sinks {
        let written = sink.write(&outputs, &store, &|| !CANCEL.load(Ordering::Relaxed));
        if CANCEL.load(Ordering::Relaxed) {
            ui::line("stopped");
            return Err(Exit::Stopped);
        }
        written.map_err(|error| output_error(&error))?;
    }
    let json = metadata(&outputs);
    if let Some(path) = &metadata_file {
        write_file(path, format!("{json:#}\n").as_bytes())?;
    }
    let text = match args.common.format {
        Format::Json => format!("{json:#}\n"),
        Format::Text => outputs
            .iter()
            .map(|output| format!("{} {}\n", output.name, output.reference()))
            .collect(),
    };
    print(&text)
}

pub(super) fn plan(args: &Plan) -> Result<Exit, Exit> {
    let Setup { spec, plan, .. } = setup(&args.common, &[], &[])?;
    let store = setup::store()?;
    let progress = Progress::new(Mode::None);
    let options = options(&args.common, &spec.root, true);
    let results = exec::run(&plan.graph, &store, &options, &progress, &CANCEL);
    failures(&plan, &results)?;
    let result = |id: NodeId| &results[id.0 as usize];
    if args.common.format == Format::Json {
        let nodes: Vec<serde_json::Value> = plan
            .graph
            .nodes()
            .map(|(id, node)| {
                serde_json::json!({
                    "action": node.action.name(),
                    "rule": node.label.rule,
                    "target": node.label.target,
                    "platform": node.label.platform.as_ref().map(ToString::to_string),
                    "inputs": node.inputs.iter().map(|input| input.0).collect::<Vec<_>>(),
                    "outcome": result(id).outcome.word(),
                    "key": result(id).key.map(|key| key.to_string()),
                    "changed": match &result(id).why { Some(Why::Changed(lines)) => lines.clone(), _ => Vec::new() },
                })
            })
            .collect();
        return print(&format!("{:#}\n", serde_json::Value::Array(nodes)));
    }
    let text = render(&plan, &|id, _| match result(id) {
        NodeResult {
            outcome: Outcome::Seen,
            ..
        } => String::new(),
        NodeResult {
            outcome: Outcome::Would,
            why,
            ..
        } => match why {
            Some(Why::Changed(lines)) => {
                let more = lines.len().saturating_sub(FEW);
                let shown: String = lines
                    .iter()
                    .take(FEW)
                    .map(|line| format!("\n      {}", line.trim_end()))
                    .collect();
                let more = if more > 0 {
                    format!("\n      and {more} more")
                } else {
                    String::new()
                };
                format!("  build: changed{shown}{more}")
            }
            Some(Why::First) => "  build: never built".into(),
            Some(Why::Same) => "  build: built before, but no longer in the cache".into(),
            Some(Why::Unknown) | None => "  build: an input is built".into(),
        },
        NodeResult { outcome, .. } => format!("  {}", outcome.word()),
    });
    print(&text)
}

fn options(common: &Common, workspace: &Path, dry: bool) -> Options {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    Options {
        jobs: common.jobs.map_or(cpus, usize::from),
        want_layers: true,
        dry,
        workspace: workspace.display().to_string(),
    }
}

/// Prints all failures; the worst decides the exit code.
fn failures(plan: &crate::plan::Plan, results: &[NodeResult]) -> Result<(), Exit> {
    let mut worst = None;
    for ((_, node), result) in plan.graph.nodes().zip(results) {
        let Some(error) = &result.error else { continue };
        let exit = match error.failure {
            Failure::Stopped => Exit::Stopped,
            _ => report::failure(&node.label, &node.origin, error),
        };
        worst = worst.max(Some(exit));
    }
    let stopped = CANCEL.load(Ordering::Relaxed);
    if stopped || worst == Some(Exit::Stopped) {
        ui::line("stopped");
        return Err(Exit::Stopped);
    }
    match worst {
        Some(exit) => Err(exit),
        None => Ok(()),
    }
}

/// Prints the key of each action, and how it differs from the last one.
fn explain(plan: &crate::plan::Plan, results: &[NodeResult]) {
    for ((_, node), result) in plan.graph.nodes().zip(results) {
        let (Some(key), Some(why)) = (result.key, &result.why) else {
            continue;
        };
        let about = match why {
            Why::First => "first seen here".to_owned(),
            Why::Same => "key as last time".to_owned(),
            Why::Changed(lines) => format!("key changed in {} lines", lines.len()),
            Why::Unknown => "key unknown".to_owned(),
        };
        ui::line(&format!(
            "{} {} {}: {about}",
            result.outcome.word(),
            node.action.name(),
            node.label
        ));
        ui::line(&format!("  key {key}"));
        match why {
            Why::Changed(lines) => lines.iter().for_each(|line| ui::line(&format!("  {line}"))),
            _ => {
                let inputs: Option<Vec<_>> = node
                    .inputs
                    .iter()
                    .map(|input| results[input.0 as usize].product.clone())
                    .collect();
                let text = inputs
                    .map(|inputs| node.key_text(&inputs))
                    .unwrap_or_default();
                text.lines().for_each(|line| ui::line(&format!("  {line}")));
            }
        }
    }
}

fn output_error(error: &OutputError) -> Exit {
    let help = match error {
        OutputError::NotOurs(_) => "name another output with `--output`, or remove it yourself",
        OutputError::Io { .. } => "free space, or name another output with `--output`",
        OutputError::Store(_) => "run the build again: what is damaged in the cache is made again",
    };
    report::error("imgdecl::output", error, Some(help.into()));
    match error {
        OutputError::NotOurs(_) => Exit::Usage,
        OutputError::Io { .. } => Exit::Failed,
        OutputError::Store(_) => Exit::Cache,
    }
}

fn print(text: &str) -> Result<Exit, Exit> {
    ui::data(text).map(|()| Exit::Done).map_err(|error| {
        report::error("imgdecl::stdout", &error, None);
        Exit::Failed
    })
}

/// Makes sure that the metadata overwrites nothing but metadata, and lies in no output.
fn check_metadata(path: &Path, sinks: &[Sink]) -> Result<(), OutputError> {
    let not_ours = || OutputError::NotOurs(path.to_owned());
    if sinks.iter().any(|sink| path.starts_with(sink.path())) {
        return Err(not_ours());
    }
    if std::fs::symlink_metadata(path).is_err() {
        return Ok(());
    }
    let bytes = read_document(path).map_err(|_| not_ours())?;
    let known: Option<Vec<serde_json::Value>> = serde_json::from_slice(&bytes).ok();
    let is_ours = |image: &serde_json::Value| {
        image.get("reference").is_some() && image.get("platforms").is_some()
    };
    match bytes.is_empty() || known.is_some_and(|images| images.iter().all(is_ours)) {
        true => Ok(()),
        false => Err(not_ours()),
    }
}

/// Writes a file at once.
fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Exit> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let written = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(folder)
        .and_then(|mut file| {
            file.write_all(bytes)
                .and_then(|()| file.persist(path).map_err(|error| error.error))
        });
    written.map(|_| ()).map_err(|source| {
        output_error(&OutputError::Io {
            path: path.to_owned(),
            source,
        })
    })
}
