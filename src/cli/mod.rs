//! The command line: arguments, commands, reports and exit codes. The only place besides `ui` that prints, reads the
//! environment, or exits.

mod args;
mod build;
mod cache;
mod diff;
mod environment;
mod exit;
mod export;
mod file;
mod forecast;
mod image;
mod index;
mod inspect;
mod load;
mod lock;
mod net;
mod push;
mod report;
mod resolve;
mod rules;
#[cfg(target_os = "linux")]
mod run;
mod setup;
mod tips;
mod unpack;
mod verify;

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;

use args::{Args, Command};
use exit::Exit;

use crate::ui;

/// Set when the user asks to stop.
static CANCEL: AtomicBool = AtomicBool::new(false);

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
            tips::add(&mut error, &command.to_string_lossy());
            if !error.use_stderr() {
                let _ = error.print();
                return Exit::Done.into();
            }
            report::arguments(&error);
            return Exit::Usage.into();
        }
    };
    // The signals of a container that runs are its own.
    if matches!(args.command, Command::Run(_)) {
        run::listen();
    } else if let Err(error) = ctrlc::set_handler(stop) {
        report::plain(
            "imgdecl::signals",
            &format!("Ctrl-C will not stop the build cleanly: {error}"),
            None,
        );
    }
    let done = match args.command {
        Command::Build(build) => build::build(&build),
        Command::Plan(plan) => build::plan(&plan),
        Command::Lock(lock) => lock::lock(&lock),
        Command::Push(push) => push::run(&push),
        Command::Resolve(resolve) => resolve::resolve(&resolve),
        Command::Inspect(inspect) => inspect::inspect(&inspect),
        Command::Unpack(args) => unpack::unpack(&args),
        Command::Run(run) => run::run(&run),
        Command::Diff(diff) => diff::diff(&diff),
        Command::Verify(verify) => verify::verify(&verify),
        Command::Cache(cache) => cache::cache(&cache),
        Command::Rules { name } => rules::rules(name.as_deref()),
        Command::Schema => rules::schema(),
    };
    done.unwrap_or_else(|exit| exit).into()
}

/// Asks whatever is running to stop.
fn stop() {
    if CANCEL.swap(true, Ordering::Relaxed) {
        // Asked twice: whatever is still running is left to the next run to clean up.
        std::process::exit(i32::from(Exit::Stopped.code()));
    }
}

/// `run` where there is no Linux: says so.
#[cfg(not(target_os = "linux"))]
mod run {
    use super::exit::Exit;
    use super::{args, report};

    pub(super) fn listen() {}

    pub(super) fn run(_: &args::Run) -> Result<Exit, Exit> {
        report::plain(
            "imgdecl::run::linux",
            "containers need Linux",
            Some("load the image into a container engine: imgdecl build --load".to_owned()),
        );
        Err(Exit::Failed)
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
