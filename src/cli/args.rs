//! The arguments, and with them `--help`.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use crate::oci::Platform;
use crate::output::Word;
use crate::ui::Mode;
use crate::work::image::Open as OpenRequest;
use crate::work::{Choice, Network as HowReached};

/// Container images from one TOML file: reproducible layers, built in parallel, cached by digest.
#[derive(Parser)]
#[command(
    name = "imgdecl",
    version,
    max_term_width = 100,
    after_help = "Exit codes: 0 done, 1 a build failed or images differ, 2 the command line or a manifest is wrong, \
                  3 a registry failed, 4 the cache is damaged, 130 stopped, 101 a bug.\n\n\
                  Environment: IMGDECL_CACHE_DIR names the cache folder, SOURCE_DATE_EPOCH the time in image configs; \
                  IMGDECL_CONFIG names the file about registries, in place of ~/.config/imgdecl/config.toml, \
                  REGISTRY_AUTH_FILE one with credentials; CI makes \
                  `--locked` the default; DOCKER_HOST, CONTAINER_HOST, DOCKER_CONTEXT, DOCKER_TLS_VERIFY and DOCKER_CERT_PATH say where \
                  `--load` finds Docker or podman; NO_COLOR turns colours off."
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
    /// Unpacks an image into a folder: its root, or a bundle for OCI runtimes. Nothing stays of one that is damaged
    Unpack(Unpack),
    /// Runs an image: its root is unpacked, and removed afterwards. Exits with what its process exits with; 137 means that
    /// it was killed, as for its memory, 127 and 126 that there is no program that can be run
    Run(Run),
    /// Compares two images, down to the first difference. Exit code 0: equal, 1: different
    Diff(Diff),
    /// Builds again, with all changed that must not matter, and compares. Exit code 0: equal, 1: different
    Verify(Verify),
    /// Looks after the cache
    Cache(Cache),
    /// Prints the reference of all rules, or of one
    Rules {
        /// The rule, as `files`
        name: Option<String>,
    },
    /// Prints a JSON schema of image.toml
    Schema,
    /// Explains an error code: what it means and what to do
    Explain(super::explain::Explain),
}

/// How registries are reached.
#[derive(clap::Args)]
pub(super) struct Net {
    /// The file with credentials for registries, in place of all other places [env: REGISTRY_AUTH_FILE]
    #[arg(long, value_name = "FILE")]
    pub(super) authfile: Option<PathBuf>,
}

impl Net {
    /// Says how registries alone are reached.
    pub(super) fn registries(&self, offline: bool) -> HowReached {
        HowReached {
            offline,
            authfile: self.authfile.clone(),
            index_url: None,
        }
    }

    /// Says how registries and package indexes are reached.
    pub(super) fn network(&self, index: &Index, offline: bool) -> HowReached {
        HowReached {
            index_url: index.index_url.clone(),
            ..self.registries(offline)
        }
    }
}

impl Common {
    /// Says what was chosen of a workspace.
    pub(super) fn choice(&self) -> Choice {
        Choice {
            words: self.words.clone(),
            set: self.set.clone(),
            platforms: self.platform.clone(),
        }
    }
}

impl Open {
    /// Says how images are found.
    pub(super) fn request(&self) -> OpenRequest {
        OpenRequest {
            network: self.net.network(&self.index, self.offline),
            platforms: self.platform.clone(),
            set: self.set.clone(),
        }
    }
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

    /// Where images go: `oci:DIR`, `oci-archive:FILE` or `docker-archive:FILE`; repeatable. `none` writes nothing: digests
    /// need no bytes
    #[arg(long, short, value_name = "OUTPUT")]
    pub(super) output: Vec<Word>,

    /// Pushes the images to their repositories. Without `--output`, nothing else is written
    #[arg(long, conflicts_with = "offline")]
    pub(super) push: bool,

    /// With `--push`: asks the registry for every blob, and sends what it lost, even where the image is there
    #[arg(long, requires = "push")]
    pub(super) check: bool,

    /// Loads the images into Docker or podman: the one that DOCKER_HOST, CONTAINER_HOST or the Docker context names, or
    /// the first that answers. Of several platforms, the daemon's is loaded. Without `--output`, nothing else is written
    #[arg(long)]
    pub(super) load: bool,

    /// Fails where image.lock lacks something, in place of resolving it [default: true if CI is set]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) locked: Option<bool>,

    /// Opens no socket, but that of `--load`: fails where something is not in the cache
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

    /// Writes what took how long to a file, as a Chrome trace: for chrome://tracing, Perfetto or Speedscope
    #[arg(long, value_name = "FILE")]
    pub(super) profile: Option<PathBuf>,
}

#[derive(clap::Args)]
pub(super) struct Plan {
    #[command(flatten)]
    pub(super) common: Common,

    #[command(flatten)]
    pub(super) net: Net,

    /// Asks the registries, and says how many bytes a push would send of each image
    #[arg(long)]
    pub(super) push: bool,
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

    /// Writes what is locked for each `[pip.NAME]` in the form of another tool too
    #[arg(long, value_name = "FORMAT")]
    pub(super) export: Option<Export>,

    /// Where that goes: a file, a folder, or `-` for stdout [default: `pylock.toml` beside image.lock, or
    /// `pylock.NAME.toml` where there are several]
    #[arg(long, short, value_name = "PATH", requires = "export")]
    pub(super) output: Option<String>,

    /// Opens no socket: packages come from `find_links`, bases from disk
    #[arg(long)]
    pub(super) offline: bool,

    /// Overrides a variable of `[vars]`; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub(super) set: Vec<(String, String)>,

    /// How progress is shown
    #[arg(long, value_enum, default_value_t)]
    pub(super) progress: Mode,
}

/// The forms of locks that `lock --export` writes.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Export {
    /// pylock.toml (PEP 751)
    Pylock,
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

    /// The layout that holds the images, or an archive of one: `DIR`, `oci:DIR`, `FILE`, `oci-archive:FILE` or
    /// `docker-archive:FILE` [default: `imgdecl-out/` beside the manifest]
    #[arg(long, value_name = "PLACE")]
    pub(super) from: Option<PathBuf>,

    /// Gives every image this image tag instead of its own; repeatable
    #[arg(long, value_name = "TAG", value_parser = tag)]
    pub(super) tag: Vec<String>,

    /// Asks the registry for every blob, and sends what it lost, even where the image is there
    #[arg(long)]
    pub(super) check: bool,

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

    /// Lists the entries of the layers, by path. Fetches the layers of a reference into the cache
    #[arg(long, conflicts_with = "raw")]
    pub(super) files: bool,

    /// Lists the largest files that later layers hide, by others in their place or by removing them. Needs the layers too
    #[arg(long, conflicts_with = "raw")]
    pub(super) waste: bool,

    /// Only this layer, counted from 1, bottom first
    #[arg(long, value_name = "N")]
    pub(super) layer: Option<usize>,

    /// Writes exact bytes: of the manifest or index, of the manifest of `--platform`, or of the layer `--layer` as it is kept
    #[arg(long)]
    pub(super) raw: bool,

    /// With `--raw`: of the config
    #[arg(long, requires = "raw", conflicts_with = "layer")]
    pub(super) config: bool,

    /// The form of what is printed to stdout
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: Format,
}

#[derive(clap::Args)]
#[command(after_help = IMAGE)]
pub(super) struct Diff {
    /// An image: a target, a layout, an archive or a reference; see below
    #[arg(value_name = "IMAGE")]
    pub(super) a: String,

    /// The image to compare it with. Where one of them is an index and the other is not, its image for the same platform is
    /// compared
    #[arg(value_name = "IMAGE")]
    pub(super) b: String,

    #[command(flatten)]
    pub(super) open: Open,

    /// All differences, up to 1,000, and not the first one alone
    #[arg(long)]
    pub(super) all: bool,

    /// The form of what is printed to stdout
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: Format,
}

#[derive(clap::Args)]
pub(super) struct Verify {
    /// The manifest or its folder, then targets: images or groups. The manifest is `image.toml` here or in the nearest
    /// parent folder if none is named; without targets, all images are verified
    #[arg(value_name = "MANIFEST] [TARGET")]
    pub(super) words: Vec<String>,

    #[command(flatten)]
    pub(super) open: Open,

    /// Builds only once, and compares with this image: a reference, or a layout or archive, as `imgdecl inspect` takes it.
    /// For several images, `oci:DIR` or `oci-archive:FILE` that has them under their names
    #[arg(long, value_name = "IMAGE")]
    pub(super) against: Option<String>,

    /// The form of what is printed to stdout
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: Format,
}

#[derive(clap::Args)]
#[command(after_help = IMAGE)]
pub(super) struct Unpack {
    /// The image: a target, a layout, an archive or a reference; see below
    #[arg(value_name = "IMAGE")]
    pub(super) image: String,

    /// The folder: it must not exist, or be empty
    pub(super) dir: PathBuf,

    /// Makes an OCI runtime bundle: `config.json` beside `rootfs/`
    #[arg(long)]
    pub(super) bundle: bool,

    #[command(flatten)]
    pub(super) open: Open,

    /// How many bytes the layers may have, uncompressed
    #[arg(long, value_name = "SIZE", default_value = "64GB", value_parser = bytes)]
    pub(super) max_size: u64,

    /// How many entries the layers may have
    #[arg(long, value_name = "N", default_value_t = 2_000_000)]
    pub(super) max_entries: u64,

    /// How many times its compressed size a layer may have, uncompressed, beyond 256 MiB
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub(super) max_ratio: u64,
}

#[derive(clap::Args)]
#[command(after_help = IMAGE)]
pub(super) struct Run {
    /// The image: a target, a layout, an archive or a reference; see below
    #[arg(value_name = "IMAGE")]
    pub(super) image: String,

    /// What its process is told, in place of the image's cmd
    #[arg(last = true, value_name = "ARGS")]
    pub(super) args: Vec<String>,

    /// The program to run, in place of the image's entrypoint and cmd
    #[arg(long, value_name = "PROGRAM")]
    pub(super) entrypoint: Option<String>,

    /// A variable, as `NAME=VALUE`, or `NAME` for its value here; repeatable
    #[arg(long, short, value_name = "NAME[=VALUE]")]
    pub(super) env: Vec<String>,

    /// Its process has a terminal, shown on ours: stdin, stdout and stderr must be one
    #[arg(long, short)]
    pub(super) tty: bool,

    /// Stdin is passed on with and without this: it is for those who write `-it`
    #[arg(long, short)]
    pub(super) interactive: bool,

    /// The folder that its process starts in
    #[arg(long, short, value_name = "DIR")]
    pub(super) workdir: Option<String>,

    /// Who it runs as: name or number, with an optional group after a colon
    #[arg(long, short, value_name = "USER[:GROUP]")]
    pub(super) user: Option<String>,

    /// A file or folder of the host in the container, as `SRC:DST` or `SRC:DST:ro`; repeatable
    #[arg(
        long,
        short = 'v',
        alias = "volume",
        value_name = "SRC:DST[:ro]",
        conflicts_with = "chroot"
    )]
    pub(super) mount: Vec<String>,

    /// The network that it sees: the host's, or none
    #[arg(long, value_enum, default_value_t)]
    pub(super) net: Network,

    /// The most memory, as `100M` or `1GiB`; who takes more is killed
    #[arg(long, short, value_name = "SIZE", value_parser = bytes, conflicts_with = "chroot")]
    pub(super) memory: Option<u64>,

    /// The most CPU time, in CPUs, as `0.5`
    #[arg(long, value_name = "CPUS", value_parser = millicpus, conflicts_with = "chroot")]
    pub(super) cpus: Option<u64>,

    /// The most processes and threads
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), conflicts_with = "chroot")]
    pub(super) pids: Option<u64>,

    /// The host name that it sees
    #[arg(long, value_name = "NAME", conflicts_with = "chroot")]
    pub(super) hostname: Option<String>,

    /// Its root cannot be written
    #[arg(long, conflicts_with = "chroot")]
    pub(super) read_only: bool,

    /// How many seconds it has to end when it is asked to; then it is killed
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub(super) stop_timeout: u64,

    /// The OCI runtime: a program or its path [default: the first of runc, crun, youki that can]
    #[arg(long, value_name = "PROGRAM", conflicts_with = "chroot")]
    pub(super) runtime: Option<String>,

    /// Changes the root and nothing else: no namespaces, no limits. Shows how little a container needs; it is no wall
    #[arg(long)]
    pub(super) chroot: bool,

    #[command(flatten)]
    pub(super) open: Open,
}

/// The network of a container.
#[derive(Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum Network {
    /// The host's.
    #[default]
    Host,
    /// Its own loopback alone.
    None,
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
    /// Removes what was not used for the longest time, and images that were unpacked to be run
    Gc {
        /// How much to keep, as `10GB` or `500MiB`
        #[arg(long, value_name = "SIZE", default_value = "20GB", value_parser = bytes)]
        max_size: u64,
    },
    /// Hashes everything, and removes what is damaged: the next build makes it again, also in outputs that share its files.
    /// Exit code 4: something was damaged
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

/// Reads a number of CPUs as thousandths of one.
fn millicpus(text: &str) -> Result<u64, String> {
    let cpus: Option<f64> = text
        .parse()
        .ok()
        .filter(|it| (0.001..=100_000.0).contains(it));
    cpus.map(|it| (it * 1000.0).round() as u64)
        .ok_or_else(|| "expected a number of CPUs, as 2 or 0.5".to_owned())
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
