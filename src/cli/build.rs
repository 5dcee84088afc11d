//! `build`, `push` and `plan`.

use std::path::Path;

use super::args::{Build, Format, Plan, Push};
use super::exit::Exit;
use super::print;
use crate::output::{Output, OutputError, Place, Word, metadata};
use crate::shown;
use crate::source::read_document;
use crate::ui::{self, Profile};
use crate::work::{Choice, Failed, Session, build, plan, push, write_file};

/// Runs `build`, and writes what took how long if that is wanted.
pub(super) fn build(
    session: &Session,
    args: Build,
    profile: Option<&Profile>,
) -> Result<Exit, Failed> {
    let Some((path, profile)) = args.profile.clone().zip(profile) else {
        return build_images(session, args);
    };
    let file = session.here()?.join(&path);
    check_profile(&file)?;
    let done = build_images(session, args);
    // What failed took time, too.
    let text = shown::json(&profile.finish());
    let written = write_file(&file, text.as_bytes());
    let written = written.map_err(|source| Failed::from(OutputError::Io { path, source }));
    match (done, written) {
        (Err(failed), Err(unwritten)) => Err(Failed::Many(vec![failed, unwritten])),
        (done, written) => written.and(done),
    }
}

fn build_images(session: &Session, args: Build) -> Result<Exit, Failed> {
    let format = args.common.format;
    let metadata_file = args.metadata_file.as_deref().map(Place::of);
    let is_taken = is_stdout_taken(&args.output, metadata_file.as_ref(), format)?;
    let images = build::build(
        session,
        &build::Request {
            jobs: args.common.jobs,
            choice: args.common.choice(),
            network: args.net.network(&args.index, args.offline),
            outputs: args.output,
            push: args.push,
            check: args.check,
            load: args.load,
            locked: args.locked,
            tags: args.tag,
            metadata_file,
            explain: args.explain,
            documents: Vec::new(),
            written: args.profile.into_iter().collect(),
        },
    )?;
    show(session, &images, format, is_taken)
}

/// Tells whether stdout is for one output alone.
///
/// # Errors
/// When several things are to go there, or an archive would go to a terminal.
fn is_stdout_taken(
    outputs: &[Word],
    metadata_file: Option<&Place>,
    format: Format,
) -> Result<bool, Failed> {
    let mut to_stdout: Vec<String> = outputs
        .iter()
        .filter(|it| it.is_stdout())
        .map(|it| format!("--output {it}"))
        .collect();
    if !to_stdout.is_empty() && ui::is_terminal() {
        return Err(OutputError::Terminal("stdout".to_owned()).into());
    }
    if metadata_file == Some(&Place::Stdout) {
        to_stdout.push("--metadata-file -".to_owned());
    }
    let is_taken = !to_stdout.is_empty();
    if is_taken && format == Format::Json {
        to_stdout.push("--format json".to_owned());
    }
    match &to_stdout[..] {
        [] | [_] => Ok(is_taken),
        several => {
            let message = format!("stdout can have one thing alone: {}", several.join(", "));
            let help = "send the others to files".to_owned();
            Err(Failed::usage("imgdecl::cli::stdout", message, Some(help)))
        }
    }
}

/// Runs `push`.
pub(super) fn push(session: &Session, args: Push) -> Result<Exit, Failed> {
    let metadata_file = args.metadata_file.as_deref().map(Place::of);
    let is_taken = is_stdout_taken(&[], metadata_file.as_ref(), args.format)?;
    let images = push::push(
        session,
        &push::Request {
            choice: Choice {
                words: args.words,
                set: args.set,
                platforms: Vec::new(),
            },
            network: args.net.registries(false),
            from: args.from,
            check: args.check,
            tags: args.tag,
            metadata_file,
        },
    )?;
    show(session, &images, args.format, is_taken)
}

/// Shows images that were built or pushed; on stderr where stdout is for something else.
fn show(
    session: &Session,
    images: &[Output],
    format: Format,
    is_stdout_taken: bool,
) -> Result<Exit, Failed> {
    if is_stdout_taken {
        let lines = images.iter();
        lines.for_each(|it| session.note(&format!("{} {}", it.name, it.reference())));
        return Ok(Exit::Done);
    }
    let line = |image: &Output| format!("{} {}\n", image.name, image.reference());
    print(&match format {
        Format::Json => ui::json(metadata(images)),
        Format::Text => images.iter().map(line).collect(),
    })
}

/// Runs `plan`.
pub(super) fn plan(session: &Session, args: &Plan) -> Result<Exit, Failed> {
    let outlook = plan::plan(
        session,
        &plan::Request {
            choice: args.common.choice(),
            network: args.net.registries(false),
            push: args.push,
            locked: args.locked,
            jobs: args.common.jobs,
        },
    )?;
    let exit = print(&match args.common.format {
        Format::Json => ui::plan_json(&outlook),
        Format::Text => ui::plan_text(&outlook),
    })?;
    // The plan may say why: it is shown in any case.
    outlook.unlocked.map_or(Ok(exit), Err)
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
