//! `build` and `plan`.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::args::{Build, Common, Format, Plan};
use super::environment::{host_platform, is_ci};
use super::exit::Exit;
use super::file::write_file;
use super::forecast::{Forecast, forecast};
use super::lock::Lacking;
use super::net::Net;
use super::setup::{Setup, here};
use super::{CANCEL, load, lock, push, report};
use crate::exec::{self, NodeResult, Options, Outcome, Why};
use crate::graph::{Failure, NodeId, Ports, Product};
use crate::output::{Output, OutputError, Sink, metadata};
use crate::plan::render;
use crate::shown;
use crate::source::read_document;
use crate::store::{Blob, Health, Store};
use crate::ui::{self, Mode, Profile, Progress, Watched};

/// How many changed lines of a key a plan shows.
const FEW: usize = 5;

pub(super) fn build(args: &Build) -> Result<Exit, Exit> {
    if let Some(path) = &args.profile {
        check_profile(&here()?.join(path)).map_err(|error| output_error(&error))?;
    }
    let profile = args.profile.as_ref().map(|path| (path, Profile::start()));
    let done = build_measured(args, profile.as_ref().map(|(_, profile)| profile));
    // What failed took time, too.
    if let Some((path, profile)) = profile {
        let text = shown::json(&profile.finish());
        write_file(&here()?.join(path), text.as_bytes()).map_err(|source| {
            let path = path.clone();
            output_error(&OutputError::Io { path, source })
        })?;
    }
    done
}

fn build_measured(args: &Build, profile: Option<&Profile>) -> Result<Exit, Exit> {
    let phase = |name| profile.into_iter().for_each(|it| it.phase(name));
    phase("read manifests");
    let here = here()?;
    let metadata_file = args.metadata_file.as_ref().map(|path| here.join(path));
    let named: Vec<Sink> = args.output.iter().map(|sink| sink.below(&here)).collect();
    let written = named.iter().flat_map(Sink::paths);
    let profile_file = args.profile.iter().map(|path| here.join(path));
    let written = written.chain(metadata_file.iter().cloned());
    let written = written.chain(profile_file).collect();
    let setup = Setup::new(&args.common.choice(), written)?;
    let sinks = match &named[..] {
        [] if args.push || args.load => Vec::new(),
        [] => vec![Sink::Layout(setup.out())],
        _ => named,
    };
    if let Some(path) = &metadata_file {
        check_metadata(path, &sinks).map_err(|error| output_error(&error))?;
    }
    for sink in &sinks {
        sink.check().map_err(|error| output_error(&error))?;
    }
    let store = setup.store()?;
    let progress = Arc::new(Progress::new(args.progress, &CANCEL));
    let net = Net::of(
        &setup,
        (&args.net, &args.index),
        args.offline,
        &store,
        &progress,
    )?;
    let daemon = match args.load {
        true => Some(load::find(&progress)?),
        false => None,
    };
    let lacking = match args.locked.unwrap_or_else(is_ci) {
        true => Lacking::Locked,
        false if args.offline => Lacking::Offline,
        false => Lacking::Resolve,
    };
    let with_bytes = args.load || sinks.iter().any(|sink| *sink != Sink::Nothing);
    phase("plan and lock");
    let plan = lock::complete(&setup, with_bytes, lacking, &store, &net, &progress)?;
    if args.push {
        push::check(&setup, &plan)?;
    }
    let host = host_platform();
    if sinks.iter().any(is_docker) {
        load::check(&plan, &args.tag, &host)?;
    }
    if let Some(daemon) = &daemon {
        load::check(&plan, &args.tag, daemon.platform())?;
    }
    let options = Options {
        want_layers: with_bytes || args.push,
        ..options(&args.common, &setup.spec.root, false)
    };
    phase("run actions");
    let watch = Watched {
        progress: &progress,
        profile,
    };
    let results = exec::run(&plan.graph, &store, net.ports(), &options, &watch, &CANCEL);
    phase("write outputs");
    if args.explain {
        explain(&plan, &results, &store, &options.workspace);
    }
    if results.iter().any(|result| result.error.is_some()) {
        progress.finish();
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
            push: None,
            load: None,
        });
    }
    if sinks.iter().any(is_docker) {
        load::note_zstd(&outputs, &progress);
    }
    for sink in &sinks {
        let written = sink.write(&outputs, &host, &store, &|| !CANCEL.load(Ordering::Relaxed));
        if CANCEL.load(Ordering::Relaxed) {
            return Err(stopped());
        }
        written.map_err(|error| output_error(&error))?;
        if *sink != Sink::Nothing {
            progress.note(&format!("written {sink}"));
        }
    }
    if args.load || args.push {
        phase("load and push");
    }
    if let Some(daemon) = &daemon {
        let loaded = load::load(daemon, &mut outputs, &store, &progress);
        loaded.inspect_err(|_| progress.finish())?;
    }
    if let (true, Some(client)) = (args.push, net.client()) {
        let blobs = push::Built::new(&store, &results);
        push::push(client, &mut outputs, &blobs, args.check, &progress)
            .inspect_err(|_| progress.finish())?;
    }
    progress.finish();
    finish(&outputs, metadata_file.as_deref(), args.common.format)
}

/// Tells whether a sink is an archive for Docker.
fn is_docker(sink: &Sink) -> bool {
    matches!(sink, Sink::DockerArchive(_))
}

/// Writes the metadata, and prints the images.
pub(super) fn finish(
    outputs: &[Output<'_>],
    metadata_file: Option<&Path>,
    format: Format,
) -> Result<Exit, Exit> {
    let json = metadata(outputs);
    if let Some(path) = metadata_file {
        write_file(path, ui::json(json.clone()).as_bytes()).map_err(|source| {
            let path = path.to_owned();
            output_error(&OutputError::Io { path, source })
        })?;
    }
    let text = match format {
        Format::Json => ui::json(json),
        Format::Text => outputs
            .iter()
            .map(|output| format!("{} {}\n", output.name, output.reference()))
            .collect(),
    };
    print(&text)
}

pub(super) fn plan(args: &Plan) -> Result<Exit, Exit> {
    let setup = Setup::new(&args.common.choice(), Vec::new())?;
    let store = setup.store()?;
    let plan = setup.plan(&lock::load(&setup.spec.root)?, false)?;
    let progress = Progress::new(Mode::None, &CANCEL);
    let options = options(&args.common, &setup.spec.root, true);
    let results = exec::run(
        &plan.graph,
        &store,
        Ports::OFFLINE,
        &options,
        &progress,
        &CANCEL,
    );
    failures(&plan, &results)?;
    lock::note_lacking(&plan.needs);
    let mut forecasts = Vec::new();
    if args.push {
        push::check(&setup, &plan)?;
        let net = Net::new(&args.net, &Arc::new(progress))?;
        if let Some(client) = net.client() {
            forecasts = forecast(&plan, &results, client)?;
        }
    }
    let result = |id: NodeId| &results[id.0 as usize];
    if args.common.format == Format::Json {
        let mut nodes: Vec<serde_json::Value> = plan
            .graph
            .nodes()
            .map(|(id, node)| {
                let mut value = serde_json::json!({
                    "action": node.action.name(),
                    "rule": node.label.rule,
                    "target": node.label.target,
                    "platform": node.label.platform.as_ref().map(ToString::to_string),
                    "inputs": node.inputs.iter().map(|input| input.0).collect::<Vec<_>>(),
                    "outcome": result(id).outcome.word(),
                    "key": result(id).key.map(|key| key.to_string()),
                    "changed": match &result(id).why { Some(Why::Changed(lines)) => lines.clone(), _ => Vec::new() },
                });
                if let Some(bytes) = to_fetch(&store, result(id)) {
                    value["to_fetch"] = bytes.into();
                }
                value
            })
            .collect();
        nodes.extend(forecasts.iter().map(Forecast::json));
        return print(&ui::json(serde_json::Value::Array(nodes)));
    }
    let text = render(&plan, &|id, node| match result(id) {
        NodeResult {
            outcome: Outcome::Seen,
            ..
        } => String::new(),
        NodeResult {
            outcome: Outcome::Would,
            why,
            ..
        } => match (lock::lacking(node, &plan.needs, &setup.spec), why) {
            (Some(lacking), _) => format!("  build: {lacking}"),
            (_, Some(Why::Changed(lines))) => {
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
            (_, Some(Why::First)) => "  build: never built".into(),
            (_, Some(Why::Same)) => "  build: built before, but no longer in the cache".into(),
            (_, Some(Why::Unknown) | None) => "  build: an input is built".into(),
        },
        NodeResult { outcome, .. } => {
            let fetch = match to_fetch(&store, result(id)) {
                None | Some(0) => String::new(),
                Some(bytes) => format!("; {} to fetch for outputs with its bytes", ui::size(bytes)),
            };
            format!("  {}{fetch}", outcome.word())
        }
    });
    let pushed: String = forecasts.iter().map(Forecast::line).collect();
    print(&(text + &pushed))
}

/// Returns how many bytes of the layers of a base are in its registry alone.
fn to_fetch(store: &Store, result: &NodeResult) -> Option<u64> {
    let Some(Product::Base(base)) = &result.product else {
        return None;
    };
    base.remote.as_ref()?;
    let layers = base.layers.iter().map(|layer| &layer.descriptor);
    let missing = layers.filter(|layer| store.check(&Blob::from(*layer)) == Health::Missing);
    Some(missing.map(|layer| layer.size).sum())
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
pub(super) fn failures(plan: &crate::plan::Plan, results: &[NodeResult]) -> Result<(), Exit> {
    let mut worst = None;
    let mut told = BTreeSet::new();
    for ((_, node), result) in plan.graph.nodes().zip(results) {
        let Some(error) = &result.error else { continue };
        // Platforms that fail alike are one piece of news.
        if let Some(place) = error.origins.first()
            && !told.insert((
                &error.message,
                &error.causes,
                &place.source.name,
                place.span.start,
            ))
        {
            continue;
        }
        let exit = match error.failure {
            Failure::Stopped => Exit::Stopped,
            _ => report::failure(&node.label, &node.origin, error),
        };
        worst = worst.max(Some(exit));
    }
    if CANCEL.load(Ordering::Relaxed) || worst == Some(Exit::Stopped) {
        return Err(stopped());
    }
    match worst {
        Some(exit) => Err(exit),
        None => Ok(()),
    }
}

/// Prints the key of each action, and how it differs from the last one: all of it where it is new. Likewise those of the
/// parts that were found out anew.
fn explain(plan: &crate::plan::Plan, results: &[NodeResult], store: &Store, workspace: &str) {
    let show = |line: &str| ui::line(&format!("  {line}"));
    for ((_, node), result) in plan.graph.nodes().zip(results) {
        let detail = node.action.detail().map(|detail| format!(" {detail}"));
        let detail = detail.unwrap_or_default();
        let what = format!("{} {}{detail}", node.action.name(), node.label);
        for part in &result.parts {
            if let Some(text) = &part.found_out {
                ui::line(&format!("found out {} for {what}", part.name));
                text.lines().for_each(show);
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
        ui::line(&format!("{} {what}: {about}", result.outcome.word()));
        show(&format!("key {key}"));
        match why {
            Why::Changed(lines) => lines.iter().for_each(|line| show(line)),
            Why::First => {
                let last = store.last_key(&node.identity(workspace)).ok().flatten();
                let text = last.filter(|(known, _)| *known == key.0).map(|it| it.1);
                text.iter().flat_map(|it| it.lines()).for_each(show);
            }
            Why::Same | Why::Unknown => {}
        }
    }
}

pub(super) fn output_error(error: &OutputError) -> Exit {
    let help = match error {
        OutputError::NotOurs(_) => "name another output with `--output`, or remove it yourself",
        OutputError::Io { .. } => "free space, or name another output with `--output`",
        OutputError::Platform { .. } => "choose one of them with `--platform`",
        OutputError::Name { .. } => {
            "write `repository` into the image's table, or give the target another name"
        }
        OutputError::Twice { .. } => {
            "give each a `repository` or `tags` of its own, or build one of them alone"
        }
        OutputError::Damaged { .. } => {
            "remove the output yourself, and build again; or name another one with `--output`"
        }
        OutputError::Store(error) => error.help(),
    };
    let code = match error {
        OutputError::Damaged { .. } => "imgdecl::output::damaged",
        OutputError::Store(error) => error.code(),
        _ => "imgdecl::output",
    };
    report::error(code, error, Some(help.into()));
    match error {
        OutputError::NotOurs(_)
        | OutputError::Platform { .. }
        | OutputError::Name { .. }
        | OutputError::Twice { .. } => Exit::Usage,
        OutputError::Io { .. } | OutputError::Damaged { .. } => Exit::Failed,
        OutputError::Store(_) => Exit::Cache,
    }
}

/// Says that the user stopped it.
pub(super) fn stopped() -> Exit {
    ui::line("stopped");
    Exit::Stopped
}

pub(super) fn print(text: &str) -> Result<Exit, Exit> {
    ui::data(text).map(|()| Exit::Done).map_err(|error| {
        report::error("imgdecl::stdout", &error, None);
        Exit::Failed
    })
}

/// Nothing but an older trace is replaced by a new one.
fn check_profile(path: &Path) -> Result<(), OutputError> {
    if std::fs::symlink_metadata(path).is_err() {
        return Ok(());
    }
    let bytes = read_document(path).unwrap_or_default();
    let known: Option<serde_json::Value> = serde_json::from_slice(&bytes).ok();
    match known.is_some_and(|it| it.get("traceEvents").is_some()) {
        true => Ok(()),
        false => Err(OutputError::NotOurs(path.to_owned())),
    }
}

/// Makes sure that the metadata overwrites nothing but metadata, and lies in no output.
pub(super) fn check_metadata(path: &Path, sinks: &[Sink]) -> Result<(), OutputError> {
    let not_ours = || OutputError::NotOurs(path.to_owned());
    let sinks = sinks.iter().filter_map(Sink::path);
    if sinks.into_iter().any(|sink| path.starts_with(sink)) {
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
