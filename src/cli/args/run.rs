//! The arguments of `run`.

use clap::ValueEnum;

use super::values::{bytes, millicpus};
use super::{IMAGE, Open};

#[derive(clap::Args)]
#[command(after_help = IMAGE)]
pub(in crate::cli) struct Run {
    /// The image: a target, a layout, an archive or a reference; see below
    #[arg(value_name = "IMAGE")]
    pub(in crate::cli) image: String,

    /// What its process is told, in place of the image's cmd
    #[arg(last = true, value_name = "ARGS")]
    pub(in crate::cli) args: Vec<String>,

    /// The program to run, in place of the image's entrypoint and cmd
    #[arg(long, value_name = "PROGRAM")]
    pub(in crate::cli) entrypoint: Option<String>,

    /// A variable, as `NAME=VALUE`, or `NAME` for its value here; repeatable
    #[arg(long, short, value_name = "NAME[=VALUE]")]
    pub(in crate::cli) env: Vec<String>,

    /// Its process has a terminal, shown on ours: stdin, stdout and stderr must be one
    #[arg(long, short)]
    pub(in crate::cli) tty: bool,

    /// Stdin is passed on with and without this: it is for those who write `-it`
    #[arg(long, short)]
    pub(in crate::cli) interactive: bool,

    /// The folder that its process starts in
    #[arg(long, short, value_name = "DIR")]
    pub(in crate::cli) workdir: Option<String>,

    /// Who it runs as: name or number, with an optional group after a colon
    #[arg(long, short, value_name = "USER[:GROUP]")]
    pub(in crate::cli) user: Option<String>,

    /// A file or folder of the host in the container, as `SRC:DST` or `SRC:DST:ro`; repeatable
    #[arg(
        long,
        short = 'v',
        alias = "volume",
        value_name = "SRC:DST[:ro]",
        conflicts_with = "chroot"
    )]
    pub(in crate::cli) mount: Vec<String>,

    /// The network that it sees: the host's, or none
    #[arg(long, value_enum, default_value_t)]
    pub(in crate::cli) net: Network,

    /// The most memory, as `100M` or `1GiB`; who takes more is killed
    #[arg(long, short, value_name = "SIZE", value_parser = bytes, conflicts_with = "chroot")]
    pub(in crate::cli) memory: Option<u64>,

    /// The most CPU time, in CPUs, as `0.5`
    #[arg(long, value_name = "CPUS", value_parser = millicpus, conflicts_with = "chroot")]
    pub(in crate::cli) cpus: Option<u64>,

    /// The most processes and threads
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), conflicts_with = "chroot")]
    pub(in crate::cli) pids: Option<u64>,

    /// The host name that it sees
    #[arg(long, value_name = "NAME", conflicts_with = "chroot")]
    pub(in crate::cli) hostname: Option<String>,

    /// Its root cannot be written
    #[arg(long, conflicts_with = "chroot")]
    pub(in crate::cli) read_only: bool,

    /// How many seconds it has to end when it is asked to; then it is killed
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub(in crate::cli) stop_timeout: u64,

    /// The OCI runtime: a program or its path [default: the first of runc, crun, youki that can]
    #[arg(long, value_name = "PROGRAM", conflicts_with = "chroot")]
    pub(in crate::cli) runtime: Option<String>,

    /// Changes the root and nothing else: no namespaces, no limits. Shows how little a container needs; it is no wall
    #[arg(long)]
    pub(in crate::cli) chroot: bool,

    #[command(flatten)]
    pub(in crate::cli) open: Open,
}

/// The network of a container.
#[derive(Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(in crate::cli) enum Network {
    /// The host's.
    #[default]
    Host,
    /// Its own loopback alone.
    None,
}
