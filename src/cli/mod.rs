//! The command line: arguments, commands, reports and exit codes. The only place besides `ui` that prints, reads the
//! environment, or exits.

mod args;
mod build;
mod cache;
mod environment;
mod excerpt;
mod exit;
mod explain;
mod foreign_flags;
mod lock;
mod look;
mod report;
mod resolve;
mod rules;
#[cfg(target_os = "linux")]
mod run;

use std::io;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;

use args::{Args, Command, Format};
use exit::Exit;

use crate::graph::Stop;
use crate::ui::{self, Mode, Profile, Progress};
use crate::work::{Blame, Failed, Session};

/// Runs the program.
pub fn main() -> ExitCode {
    if let Some(why) = inner() {
        ui::line(&format!("imgdecl run --chroot: {why}"));
        return ExitCode::from(126);
    }
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(mut error) => {
            let command = std::env::args_os().nth(1).unwrap_or_default();
            foreign_flags::add(&mut error, &command.to_string_lossy());
            if !error.use_stderr() {
                let _ = error.print();
                return Exit::Done.into();
            }
            json_of_arguments(&error);
            report::arguments(&error);
            return Exit::Usage.into();
        }
    };
    let stop = Stop::default();
    // The signals of a container that runs are its own.
    if matches!(args.command, Command::Run(_)) {
        run::listen(stop.clone());
    } else {
        let asked = stop.clone();
        if let Err(error) = ctrlc::set_handler(move || self::stop(&asked)) {
            let message = format!("Ctrl-C will not stop the build cleanly: {error}");
            report::warn("imgdecl::signals", &message);
        }
    }
    let is_json = is_json(&args.command);
    let exit = run_command(args.command, stop).unwrap_or_else(|failed| {
        if is_json {
            let _ = ui::data(&ui::json(report::json(&failed)));
        }
        report::text(&failed)
    });
    exit.into()
}

fn run_command(command: Command, stop: Stop) -> Result<Exit, Failed> {
    let (mode, explains, profiles) = match &command {
        Command::Build(build) => (build.progress, build.explain, build.profile.is_some()),
        Command::Lock(lock) => (lock.progress, false, false),
        Command::Push(push) => (push.progress, false, false),
        Command::Inspect(inspect) => (inspect.open.progress, false, false),
        Command::Unpack(unpack) => (unpack.open.progress, false, false),
        Command::Run(run) => (run.open.progress, false, false),
        Command::Diff(diff) => (diff.open.progress, false, false),
        Command::Verify(verify) => (verify.open.progress, false, false),
        _ => (Mode::None, false, false),
    };
    let profile = profiles.then(|| Arc::new(Profile::start()));
    // Lines that move need a terminal that can move.
    let mode = match mode {
        Mode::Auto if environment::is_dumb() => Mode::Plain,
        mode => mode,
    };
    let progress = Progress::new(mode, stop.clone());
    let progress = progress.explaining(explains).measured_by(profile.clone());
    let session = &Session {
        environment: environment::read(),
        stop,
        events: Arc::new(progress),
        stdout: ui::stdout,
    };
    match command {
        Command::Build(args) => build::build(session, args, profile.as_deref()),
        Command::Plan(args) => build::plan(session, &args),
        Command::Lock(args) => lock::lock(session, args),
        Command::Push(args) => build::push(session, args),
        Command::Resolve(args) => resolve::resolve(session, args),
        Command::Inspect(args) => look::inspect(session, args),
        Command::Unpack(args) => look::unpack(session, args),
        Command::Run(args) => run::run(session, args),
        Command::Diff(args) => look::diff(session, args),
        Command::Verify(args) => look::verify(session, args),
        Command::Cache(args) => cache::cache(session, &args),
        Command::Rules { name } => rules::rules(name.as_deref()),
        Command::Schema => rules::schema(),
        Command::Explain(args) => explain::explain(&args),
    }
}

/// Writes to stdout.
fn print(text: &str) -> Result<Exit, Failed> {
    written(ui::data(text))
}

/// Writes to stdout what `write` writes, which sees to it that it may be shown.
fn stream(write: &dyn Fn(&mut dyn io::Write) -> io::Result<()>) -> Result<Exit, Failed> {
    written(ui::stream(write))
}

fn written(written: io::Result<()>) -> Result<Exit, Failed> {
    written.map_err(|error| Failed::error(Blame::Build, "imgdecl::stdout", &error, None))?;
    Ok(Exit::Done)
}

/// Tells whether stdout is for scripts.
fn is_json(command: &Command) -> bool {
    let format = match command {
        Command::Build(build) => build.common.format,
        Command::Plan(plan) => plan.common.format,
        Command::Push(push) => push.format,
        // What is asked for are bytes.
        Command::Inspect(inspect) if inspect.raw => Format::Text,
        Command::Inspect(inspect) => inspect.format,
        Command::Diff(diff) => diff.format,
        Command::Verify(verify) => verify.format,
        Command::Explain(explain) => explain.format,
        Command::Cache(args::Cache {
            command: args::CacheCommand::Info { format },
        }) => *format,
        _ => Format::Text,
    };
    format == Format::Json
}

/// Says in JSON what is wrong with the command line, if it asks for JSON.
fn json_of_arguments(error: &clap::Error) {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    let words: Vec<_> = words
        .split(|it| it == "--")
        .next()
        .unwrap_or_default()
        .to_vec();
    let is_json = words.iter().any(|it| it == "--format=json")
        || words
            .windows(2)
            .any(|it| it[0] == "--format" && it[1] == "json");
    if is_json {
        let text = error.to_string();
        let message = text.lines().next().unwrap_or_default();
        let message = message.trim_start_matches("error: ");
        let mut tips = text
            .lines()
            .filter_map(|it| it.trim().strip_prefix("tip: "));
        let help = tips.next().map(str::to_owned);
        let document = report::json_of_arguments(message, help);
        let _ = ui::data(&ui::json(document));
    }
}

/// Asks whatever is running to stop.
fn stop(stop: &Stop) {
    if stop.ask() {
        // Asked twice: whatever is still running is left to the next run to clean up.
        std::process::exit(i32::from(Exit::Stopped.code()));
    }
}

/// `run` where there is no Linux: says so.
#[cfg(not(target_os = "linux"))]
mod run {
    use super::args;
    use super::exit::Exit;
    use crate::graph::Stop;
    use crate::work::{Failed, Session};

    pub(super) fn listen(_: Stop) {}

    pub(super) fn run(_: &Session, _: args::Run) -> Result<Exit, Failed> {
        let help = "load the image into a container engine: imgdecl build --load".to_owned();
        let message = "containers need Linux";
        Err(Failed::build("imgdecl::run::linux", message, Some(help)))
    }
}

/// Becomes the process of `run --chroot`, if that is what this process is for; returns why it could not.
#[cfg(target_os = "linux")]
fn inner() -> Option<String> {
    let mut arguments = std::env::args_os().skip(1);
    let is_inner = arguments
        .next()
        .is_some_and(|it| it == crate::runtime::INNER);
    is_inner.then(|| {
        let environment: Vec<_> = std::env::vars_os().collect();
        crate::runtime::inner(&arguments.collect::<Vec<_>>(), &environment)
    })
}

#[cfg(not(target_os = "linux"))]
fn inner() -> Option<String> {
    None
}
