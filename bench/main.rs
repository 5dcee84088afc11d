//! Measures imgdecl beside its peers: `cargo bench --locked`. `bench/README.md` says what is measured, and how to read it.
//!
//! A workload is a file in `bench/workloads`: scripts of contenders that do the same work. They run in turn, several times;
//! medians and their ratios are what counts. Not a test: nothing fails because it is slow, only who does not do its work.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a bench makes files, reads the clock, and prints"
)]

mod corpus;
mod files;
mod measure;
mod report;
mod workload;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

use workload::Workload;

/// Measures imgdecl beside its peers.
#[derive(Parser)]
#[command(bin_name = "cargo bench --locked --")]
struct Args {
    /// The workloads, as `wheels`; all if none is named
    workloads: Vec<String>,
    /// How often each contender runs
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Lists the workloads
    #[arg(long)]
    list: bool,
    /// Writes the results to a JSON file, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where corpora and results lie [default: a folder of cargo's target folder]
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// What `cargo bench` says to every program that it runs
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> io::Result<()> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/workloads");
    let all = Workload::read_all(&own)?;
    if args.list {
        for workload in &all {
            println!("{:<14} {}", workload.name, workload.about);
        }
        return Ok(());
    }
    if let Some(unknown) = args
        .workloads
        .iter()
        .find(|name| all.iter().all(|it| it.name != **name))
    {
        return Err(io::Error::other(format!(
            "there is no workload `{unknown}`; `--list` shows them"
        )));
    }
    let folder = args.folder.clone().unwrap_or_else(|| {
        let target = Path::new(env!("CARGO_BIN_EXE_imgdecl")).ancestors().nth(2);
        target.unwrap_or(Path::new("target")).join("bench")
    });
    std::fs::create_dir_all(&folder)?;
    let folder = folder.canonicalize()?;
    let machine = report::Machine::read();
    println!("{machine}\n");
    let mut results = Vec::new();
    for workload in &all {
        if !args.workloads.is_empty() && !args.workloads.contains(&workload.name) {
            continue;
        }
        let corpus = corpus::make(&workload.corpus, &folder)?;
        let result = workload.run(args.runs, &corpus, &folder)?;
        println!("{result}");
        results.push(result);
        if let Some(file) = &args.json {
            std::fs::write(file, format!("{:#}\n", report::json(&machine, &results)))?;
        }
    }
    match results.iter().any(report::Outcome::has_failed) {
        true => Err(io::Error::other("not all contenders did their work")),
        false => Ok(()),
    }
}
