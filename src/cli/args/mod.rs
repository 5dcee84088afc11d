//! The arguments, and with them `--help`: the commands, and what several of them have in common.

mod build;
mod look;
mod run;
mod values;

pub(super) use build::{Build, Export, Lock, Plan, Push, Resolve};
pub(super) use look::{Diff, Inspect, Unpack, Verify};
pub(super) use run::{Network, Run};

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use values::{bytes, pair};

use crate::oci::Platform;
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
                  `--load` finds Docker or podman; NO_COLOR, or TERM=dumb, turns colours off."
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
            is_anew: false,
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }
}
