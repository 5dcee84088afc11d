//! The arguments, and with them `--help`.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use crate::oci::Platform;
use crate::output::Sink;
use crate::ui::Mode;

/// Container images from one TOML file: reproducible layers, built in parallel, cached by digest.
#[derive(Parser)]
#[command(
    name = "imgdecl",
    version,
    max_term_width = 100,
    after_help = "Exit codes: 0 done, 1 a build failed, 2 the command line or a manifest is wrong, \
                  3 a registry failed, 4 the cache is damaged, 130 stopped, 101 a bug.\n\n\
                  Environment: IMGDECL_CACHE_DIR names the cache folder, SOURCE_DATE_EPOCH the time in image configs; \
                  IMGDECL_CONFIG names the file about registries, in place of ~/.config/imgdecl/config.toml, \
                  REGISTRY_AUTH_FILE one with credentials; CI makes \
                  `--locked` the default; NO_COLOR turns colours off."
)]
pub(super) struct Args {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Subcommand)]
pub(super) enum Command {
    /// Builds images; by default into the OCI layout `imgdecl-out/` beside the manifest
    Build(Build),
    /// Prints what would be built, what is cached and why not, without building
    Plan(Plan),
    /// Resolves the names that image.lock lacks, and with `--update` all again
    Lock(Lock),
    /// Pushes images that were built into a layout
    Push(Push),
    /// Writes what was pushed into deployment files, by digest, in place of `imgdecl://TARGET`
    Resolve(Resolve),
    /// Shows what an image is made of: index, manifests, configs, layers, files
    Inspect(Inspect),
    /// Looks after the cache
    Cache(Cache),
    /// Prints the reference of all rules, or of one
    Rules {
        /// The rule, as `files`
        name: Option<String>,
    },
    /// Prints a JSON schema of image.toml
    Schema,
}

/// How registries are reached.
#[derive(clap::Args)]
pub(super) struct Net {
    /// The file with credentials for registries, in place of all other places [env: REGISTRY_AUTH_FILE]
    #[arg(long, value_name = "FILE")]
    pub(super) authfile: Option<PathBuf>,
}

/// How Python packages are found.
#[derive(clap::Args)]
pub(super) struct Index {
    /// The package index that is asked last, where the manifest names none [env: UV_DEFAULT_INDEX, PIP_INDEX_URL]
    #[arg(long, value_name = "URL")]
    pub(super) index_url: Option<String>,
}

/// What `build` and `plan` have in common.
#[derive(clap::Args)]
pub(super) struct Common {
    /// The manifest or its folder, then targets: images or groups. The manifest is `image.toml` here or in the nearest
    /// parent folder if none is named; without targets, all images are built
    #[arg(value_name = "MANIFEST] [TARGET")]
    pub(super) words: Vec<String>,

    /// Only this platform, as `linux/arm64`; repeatable
    #[arg(long, value_name = "OS/ARCH", value_delimiter = ',')]
    pub(super) platform: Vec<Platform>,

    /// Overrides a variable of `[vars]`; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub(super) set: Vec<(String, String)>,

    /// How many actions run at once, and on how many threads [default: the number of CPUs]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) jobs: Option<u16>,

    /// The form of what is printed to stdout
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: Format,
}

#[derive(clap::Args)]
pub(super) struct Build {
    #[command(flatten)]
    pub(super) common: Common,

    #[command(flatten)]
    pub(super) net: Net,

    #[command(flatten)]
    pub(super) index: Index,

    /// Where images go: `oci:DIR` or `oci-archive:FILE`; repeatable. `none` writes nothing: digests need no bytes
    #[arg(long, short, value_name = "OUTPUT")]
    pub(super) output: Vec<Sink>,

    /// Pushes the images to their repositories. Without `--output`, nothing else is written
    #[arg(long, conflicts_with = "offline")]
    pub(super) push: bool,

    /// Fails where image.lock lacks something, in place of resolving it [default: true if CI is set]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) locked: Option<bool>,

    /// Opens no socket: fails where something is not in the cache
    #[arg(long)]
    pub(super) offline: bool,

    /// Gives every image this image tag instead of its own; repeatable
    #[arg(long, value_name = "TAG", value_parser = tag)]
    pub(super) tag: Vec<String>,

    /// Writes names, digests, sizes and layers of the images to a JSON file
    #[arg(long, value_name = "FILE")]
    pub(super) metadata_file: Option<PathBuf>,

    /// How progress is shown
    #[arg(long, value_enum, default_value_t)]
    pub(super) progress: Mode,

    /// Prints the key of each action, and how it differs from the last one
    #[arg(long)]
    pub(super) explain: bool,
}

#[derive(clap::Args)]
pub(super) struct Plan {
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(clap::Args)]
pub(super) struct Lock {
    /// The manifest or its folder [default: `image.toml` here or in the nearest parent folder]
    pub(super) manifest: Option<String>,

    #[command(flatten)]
    pub(super) net: Net,

    #[command(flatten)]
    pub(super) index: Index,

    /// Resolves these bases again, or all: pins move forward
    #[arg(long, value_name = "NAME", num_args = 0..)]
    pub(super) update: Option<Vec<String>>,

    /// Overrides a variable of `[vars]`; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub(super) set: Vec<(String, String)>,

    /// How progress is shown
    #[arg(long, value_enum, default_value_t)]
    pub(super) progress: Mode,
}

#[derive(clap::Args)]
pub(super) struct Push {
    /// The manifest or its folder, then targets: images or groups. The manifest is `image.toml` here or in the nearest
    /// parent folder if none is named; without targets, all images are pushed, for all platforms that they were built for
    #[arg(value_name = "MANIFEST] [TARGET")]
    pub(super) words: Vec<String>,

    #[command(flatten)]
    pub(super) net: Net,

    /// Overrides a variable of `[vars]`; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub(super) set: Vec<(String, String)>,

    /// The form of what is printed to stdout
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: Format,

    /// The layout that holds the images [default: `imgdecl-out/` beside the manifest]
    #[arg(long, value_name = "DIR")]
    pub(super) from: Option<PathBuf>,

    /// Gives every image this image tag instead of its own; repeatable
    #[arg(long, value_name = "TAG", value_parser = tag)]
    pub(super) tag: Vec<String>,

    /// Writes what was pushed to a JSON file: names, digests, sizes, bytes sent, mounted and skipped
    #[arg(long, value_name = "FILE")]
    pub(super) metadata_file: Option<PathBuf>,

    /// How progress is shown
    #[arg(long, value_enum, default_value_t)]
    pub(super) progress: Mode,
}

/// What an IMAGE argument names, for `--help`.
const IMAGE: &str = "What IMAGE names, in this order:\n  \
    oci:DIR[:NAME], oci-archive:FILE[:NAME], docker-archive:FILE[:REF]  a layout or archive\n  \
    docker://REF  an image in a registry\n  \
    NAME  an image of the nearest image.toml: it is built into the cache, and written nowhere else\n  \
    DIR, DIR:NAME or FILE  a layout or archive that is there\n  \
    REF  an image in a registry, as python:3.11-slim or registry.example.com/team/app@sha256:…";

/// How images are found: for all commands that look at images.
#[derive(clap::Args)]
pub(super) struct Open {
    #[command(flatten)]
    pub(super) net: Net,

    #[command(flatten)]
    pub(super) index: Index,

    /// Only this platform, as `linux/arm64`; repeatable
    #[arg(long, value_name = "OS/ARCH", value_delimiter = ',')]
    pub(super) platform: Vec<Platform>,

    /// Overrides a variable of `[vars]`; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub(super) set: Vec<(String, String)>,

    /// Opens no socket: fails where something is not in the cache
    #[arg(long)]
    pub(super) offline: bool,

    /// How progress is shown
    #[arg(long, value_enum, default_value_t)]
    pub(super) progress: Mode,
}

/// What `resolve` does, at the end of its help.
const RESOLVE: &str = "Each `imgdecl://TARGET` becomes `REPOSITORY@sha256:…` of the image as the manifest makes it now; \
                       it must be built, and the registry must have it. All other bytes stay. A file whose content \
                       would be the same is not touched.\n\n\
                       With `--in-place`, digests that stand behind the repository of an image of the manifest already, \
                       as in `REPOSITORY@sha256:…` and `REPOSITORY:TAG@sha256:…`, are brought up to date as well.";

#[derive(clap::Args)]
#[command(after_help = RESOLVE)]
pub(super) struct Resolve {
    /// Deployment files: task definitions, manifests of Kubernetes, compose files, any text. `-` is stdin
    #[arg(value_name = "FILE", required = true)]
    pub(super) files: Vec<PathBuf>,

    #[command(flatten)]
    pub(super) net: Net,

    /// The manifest or its folder [default: `image.toml` here or in the nearest parent folder]
    #[arg(long, value_name = "MANIFEST", conflicts_with = "metadata")]
    pub(super) manifest: Option<String>,

    /// Asks no manifest: images are those of a file of `--metadata-file`, by `build --push` or `push`; repeatable
    #[arg(long, value_name = "FILE")]
    pub(super) metadata: Vec<PathBuf>,

    /// Only these platforms, where images were built so; repeatable
    #[arg(
        long,
        value_name = "OS/ARCH",
        value_delimiter = ',',
        conflicts_with = "metadata"
    )]
    pub(super) platform: Vec<Platform>,

    /// Overrides a variable of `[vars]`; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair, conflicts_with = "metadata")]
    pub(super) set: Vec<(String, String)>,

    /// Where the result goes: a file, or a folder, as several files need it [default: stdout]
    #[arg(long, short, value_name = "PATH", conflicts_with = "in_place")]
    pub(super) output: Option<PathBuf>,

    /// Writes the files themselves
    #[arg(long, short)]
    pub(super) in_place: bool,

    /// Writes nothing, and fails where something would change; without `--output`, as with `--in-place`
    #[arg(long)]
    pub(super) check: bool,

    /// Does not ask the registries whether they have the images
    #[arg(long)]
    pub(super) offline: bool,
}

#[derive(clap::Args)]
#[command(after_help = IMAGE)]
pub(super) struct Inspect {
    /// The image: a target, a layout, an archive or a reference; see below
    #[arg(value_name = "IMAGE")]
    pub(super) image: String,

    #[command(flatten)]
    pub(super) open: Open,

    /// The form of what is printed to stdout
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: Format,
}

#[derive(clap::Args)]
pub(super) struct Cache {
    #[command(subcommand)]
    pub(super) command: CacheCommand,
}

#[derive(Subcommand)]
pub(super) enum CacheCommand {
    /// Prints where the cache is and what it holds
    Info {
        /// The form of what is printed
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Removes what was not used for the longest time
    Gc {
        /// How much to keep, as `10GB` or `500MiB`
        #[arg(long, value_name = "SIZE", default_value = "20GB", value_parser = bytes)]
        max_size: u64,
    },
    /// Hashes everything, and removes what is damaged
    Verify,
    /// Removes everything
    Clear,
}

/// The form of what is printed to stdout.
#[derive(Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum Format {
    /// Lines for people.
    #[default]
    Text,
    /// JSON for scripts.
    Json,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn tag(text: &str) -> Result<String, String> {
    crate::oci::check_tag(text)
        .map(|()| text.to_owned())
        .map_err(|error| error.to_string())
}

fn bytes(text: &str) -> Result<u64, String> {
    let digits = text
        .find(|char: char| !char.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => Some(1),
        "k" | "kb" => Some(1000),
        "m" | "mb" => Some(1_000_000),
        "g" | "gb" => Some(1_000_000_000),
        "t" | "tb" => Some(1_000_000_000_000),
        "kib" => Some(1 << 10),
        "mib" => Some(1 << 20),
        "gib" => Some(1 << 30),
        "tib" => Some(1 << 40),
        _ => None,
    };
    let value = number
        .parse::<u64>()
        .ok()
        .zip(factor)
        .and_then(|(number, factor)| number.checked_mul(factor));
    value.ok_or_else(|| "expected a size, as 10GB or 500MiB".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }

    #[test]
    fn sizes() {
        assert_eq!(bytes("10GB"), Ok(10_000_000_000));
        assert_eq!(bytes("1 MiB"), Ok(1 << 20));
        assert_eq!(bytes("7"), Ok(7));
        for text in ["", "x", "1x", "-1", "99999999999TB"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}
