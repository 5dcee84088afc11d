//! The arguments of the commands that make images, and bring them to where they are used.

use std::path::PathBuf;

use clap::ValueEnum;

use super::values::{pair, tag};
use super::{Common, Format, Index, Net};
use crate::oci::Platform;
use crate::output::Word;
use crate::ui::Mode;

#[derive(clap::Args)]
pub(in crate::cli) struct Build {
    #[command(flatten)]
    pub(in crate::cli) common: Common,

    #[command(flatten)]
    pub(in crate::cli) net: Net,

    #[command(flatten)]
    pub(in crate::cli) index: Index,

    /// Where images go: `oci:DIR`, `oci-archive:FILE`, `docker-archive:FILE`; of one image, `tar:FILE` for its files alone, or
    /// `dir:PATH` as skopeo has it; repeatable. `-` as FILE is stdout. `none` writes nothing: digests need no bytes
    #[arg(long, short, value_name = "OUTPUT")]
    pub(in crate::cli) output: Vec<Word>,

    /// Pushes the images to their repositories. Without `--output`, nothing else is written
    #[arg(long, conflicts_with = "offline")]
    pub(in crate::cli) push: bool,

    /// With `--push`: asks the registry for every blob, and sends what it lost, even where the image is there
    #[arg(long, requires = "push")]
    pub(in crate::cli) check: bool,

    /// Loads the images into Docker or podman: the one that DOCKER_HOST, CONTAINER_HOST or the Docker context names, or
    /// the first that answers. Of several platforms, the daemon's is loaded. Without `--output`, nothing else is written
    #[arg(long)]
    pub(in crate::cli) load: bool,

    /// Fails where image.lock lacks something, in place of resolving it [default: true if CI is set]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(in crate::cli) locked: Option<bool>,

    /// Opens no socket, but that of `--load`: fails where something is not in the cache
    #[arg(long)]
    pub(in crate::cli) offline: bool,

    /// Gives every image this image tag instead of its own; repeatable
    #[arg(long, value_name = "TAG", value_parser = tag)]
    pub(in crate::cli) tag: Vec<String>,

    /// Writes names, digests, sizes and layers of the images to a JSON file; `-` is stdout
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) metadata_file: Option<PathBuf>,

    /// How progress is shown
    #[arg(long, value_enum, default_value_t)]
    pub(in crate::cli) progress: Mode,

    /// Prints the key of each action, and how it differs from the last one
    #[arg(long)]
    pub(in crate::cli) explain: bool,

    /// Writes what took how long to a file, as a Chrome trace: for chrome://tracing, Perfetto or Speedscope
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) profile: Option<PathBuf>,
}

#[derive(clap::Args)]
pub(in crate::cli) struct Plan {
    #[command(flatten)]
    pub(in crate::cli) common: Common,

    #[command(flatten)]
    pub(in crate::cli) net: Net,

    /// Asks the registries, and says how many bytes a push would send of each image
    #[arg(long)]
    pub(in crate::cli) push: bool,

    /// Fails, once the plan is shown, where image.lock lacks something [default: true if CI is set]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(in crate::cli) locked: Option<bool>,
}

#[derive(clap::Args)]
pub(in crate::cli) struct Lock {
    /// The manifest or its folder [default: `image.toml` here or in the nearest parent folder]
    pub(in crate::cli) manifest: Option<String>,

    #[command(flatten)]
    pub(in crate::cli) net: Net,

    #[command(flatten)]
    pub(in crate::cli) index: Index,

    /// Resolves these targets again, bases or packages, or all: pins move forward
    #[arg(long, value_name = "NAME", num_args = 0..)]
    pub(in crate::cli) update: Option<Vec<String>>,

    /// Resolves one package again wherever it is locked, and holds all others as far as they go with it; repeatable
    #[arg(long, short = 'P', value_name = "NAME", conflicts_with = "update")]
    pub(in crate::cli) upgrade_package: Vec<String>,

    /// Writes nothing and asks nobody: exit code 1 says that image.lock is stale
    #[arg(long, conflicts_with_all = ["update", "upgrade_package", "export"])]
    pub(in crate::cli) check: bool,

    /// Writes what is locked for each `[pip.NAME]` in the form of another tool too
    #[arg(long, value_name = "FORMAT")]
    pub(in crate::cli) export: Option<Export>,

    /// Where that goes: a file, a folder, or `-` for stdout [default: `pylock.toml` beside image.lock, or
    /// `pylock.NAME.toml` where there are several]
    #[arg(long, short, value_name = "PATH", requires = "export")]
    pub(in crate::cli) output: Option<String>,

    /// Opens no socket: packages come from `find_links`, bases from disk
    #[arg(long)]
    pub(in crate::cli) offline: bool,

    /// Overrides a variable of `[vars]`; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub(in crate::cli) set: Vec<(String, String)>,

    /// How progress is shown
    #[arg(long, value_enum, default_value_t)]
    pub(in crate::cli) progress: Mode,
}

/// The forms of locks that `lock --export` writes.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Export {
    /// pylock.toml (PEP 751)
    Pylock,
}

#[derive(clap::Args)]
pub(in crate::cli) struct Push {
    /// The manifest or its folder, then targets: images or groups. The manifest is `image.toml` here or in the nearest
    /// parent folder if none is named; without targets, all images are pushed, for all platforms that they were built for
    #[arg(value_name = "MANIFEST] [TARGET")]
    pub(in crate::cli) words: Vec<String>,

    #[command(flatten)]
    pub(in crate::cli) net: Net,

    /// Overrides a variable of `[vars]`; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub(in crate::cli) set: Vec<(String, String)>,

    /// The form of what is printed to stdout
    #[arg(long, value_enum, default_value_t)]
    pub(in crate::cli) format: Format,

    /// The layout that holds the images, or an archive of one: `DIR`, `oci:DIR`, `FILE`, `oci-archive:FILE` or
    /// `docker-archive:FILE` [default: `imgdecl-out/` beside the manifest]
    #[arg(long, value_name = "PLACE")]
    pub(in crate::cli) from: Option<PathBuf>,

    /// Gives every image this image tag instead of its own; repeatable
    #[arg(long, value_name = "TAG", value_parser = tag)]
    pub(in crate::cli) tag: Vec<String>,

    /// Asks the registry for every blob, and sends what it lost, even where the image is there
    #[arg(long)]
    pub(in crate::cli) check: bool,

    /// Writes what was pushed to a JSON file: names, digests, sizes, bytes sent, mounted and skipped; `-` is stdout
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) metadata_file: Option<PathBuf>,

    /// How progress is shown
    #[arg(long, value_enum, default_value_t)]
    pub(in crate::cli) progress: Mode,
}

/// What `resolve` does, at the end of its help.
const RESOLVE: &str = "Each `imgdecl://TARGET` becomes `REPOSITORY@sha256:…` of the image as the manifest makes it now; \
                       it must be built, and the registry must have it. All other bytes stay. A file whose content \
                       would be the same is not touched.\n\n\
                       With `--in-place`, digests that stand behind the repository of an image of the manifest already, \
                       as in `REPOSITORY@sha256:…` and `REPOSITORY:TAG@sha256:…`, are brought up to date as well.";

#[derive(clap::Args)]
#[command(after_help = RESOLVE)]
pub(in crate::cli) struct Resolve {
    /// Deployment files: task definitions, manifests of Kubernetes, compose files, any text. `-` is stdin
    #[arg(value_name = "FILE", required = true)]
    pub(in crate::cli) files: Vec<PathBuf>,

    #[command(flatten)]
    pub(in crate::cli) net: Net,

    /// The manifest or its folder [default: `image.toml` here or in the nearest parent folder]
    #[arg(long, value_name = "MANIFEST", conflicts_with = "metadata")]
    pub(in crate::cli) manifest: Option<String>,

    /// Asks no manifest: images are those of a file of `--metadata-file`, by `build --push` or `push`; repeatable
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) metadata: Vec<PathBuf>,

    /// Only these platforms, where images were built so; repeatable
    #[arg(
        long,
        value_name = "OS/ARCH",
        value_delimiter = ',',
        conflicts_with = "metadata"
    )]
    pub(in crate::cli) platform: Vec<Platform>,

    /// Overrides a variable of `[vars]`; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair, conflicts_with = "metadata")]
    pub(in crate::cli) set: Vec<(String, String)>,

    /// Where the result goes: a file, or a folder, as several files need it [default: stdout]
    #[arg(long, short, value_name = "PATH", conflicts_with = "in_place")]
    pub(in crate::cli) output: Option<PathBuf>,

    /// Writes the files themselves
    #[arg(long, short)]
    pub(in crate::cli) in_place: bool,

    /// Writes nothing, and fails where something would change; without `--output`, as with `--in-place`
    #[arg(long)]
    pub(in crate::cli) check: bool,

    /// Does not ask the registries whether they have the images
    #[arg(long)]
    pub(in crate::cli) offline: bool,
}
