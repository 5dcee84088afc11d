//! The command line: arguments, commands, reports and exit codes. The only place besides `ui` that prints, reads the
//! environment, or exits.

mod args;
mod build;
mod cache;
mod environment;
mod exit;
mod file;
mod image;
mod index;
mod inspect;
mod lock;
mod net;
mod push;
mod report;
mod resolve;
mod rules;
mod setup;

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;

use args::{Args, Command};
use exit::Exit;

/// Set when the user asks to stop.
static CANCEL: AtomicBool = AtomicBool::new(false);

/// Runs the program.
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() {
                Exit::Usage.into()
            } else {
                Exit::Done.into()
            };
        }
    };
    let stop = || {
        if CANCEL.swap(true, Ordering::Relaxed) {
            // Asked twice: whatever is still running is left to the next run to clean up.
            std::process::exit(i32::from(Exit::Stopped.code()));
        }
    };
    if let Err(error) = ctrlc::set_handler(stop) {
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
        Command::Cache(cache) => cache::cache(&cache),
        Command::Rules { name } => rules::rules(name.as_deref()),
        Command::Schema => rules::schema(),
    };
    done.unwrap_or_else(|exit| exit).into()
}
