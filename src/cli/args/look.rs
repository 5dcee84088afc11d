//! The arguments of the commands that look at images.

use std::path::PathBuf;

use super::values::bytes;
use super::{Format, IMAGE, Open};

#[derive(clap::Args)]
#[command(after_help = IMAGE)]
pub(in crate::cli) struct Inspect {
    /// The image: a target, a layout, an archive or a reference; see below
    #[arg(value_name = "IMAGE")]
    pub(in crate::cli) image: String,

    #[command(flatten)]
    pub(in crate::cli) open: Open,

    /// Lists the entries of the layers, by path. Fetches the layers of a reference into the cache
    #[arg(long, conflicts_with = "raw")]
    pub(in crate::cli) files: bool,

    /// Lists the largest files that later layers hide, by others in their place or by removing them. Needs the layers too
    #[arg(long, conflicts_with = "raw")]
    pub(in crate::cli) waste: bool,

    /// Only this layer, counted from 1, bottom first
    #[arg(long, value_name = "N")]
    pub(in crate::cli) layer: Option<usize>,

    /// Writes exact bytes: of the manifest or index, of the manifest of `--platform`, or of the layer `--layer` as it is kept
    #[arg(long)]
    pub(in crate::cli) raw: bool,

    /// With `--raw`: of the config
    #[arg(long, requires = "raw", conflicts_with = "layer")]
    pub(in crate::cli) config: bool,

    /// The form of what is printed to stdout
    #[arg(long, value_enum, default_value_t)]
    pub(in crate::cli) format: Format,
}

#[derive(clap::Args)]
#[command(after_help = IMAGE)]
pub(in crate::cli) struct Diff {
    /// An image: a target, a layout, an archive or a reference; see below
    #[arg(value_name = "IMAGE")]
    pub(in crate::cli) a: String,

    /// The image to compare it with. Where one of them is an index and the other is not, its image for the same platform is
    /// compared
    #[arg(value_name = "IMAGE")]
    pub(in crate::cli) b: String,

    #[command(flatten)]
    pub(in crate::cli) open: Open,

    /// All differences, up to 1,000, and not the first one alone
    #[arg(long)]
    pub(in crate::cli) all: bool,

    /// The form of what is printed to stdout
    #[arg(long, value_enum, default_value_t)]
    pub(in crate::cli) format: Format,
}

#[derive(clap::Args)]
pub(in crate::cli) struct Verify {
    /// The manifest or its folder, then targets: images or groups. The manifest is `image.toml` here or in the nearest
    /// parent folder if none is named; without targets, all images are verified
    #[arg(value_name = "MANIFEST] [TARGET")]
    pub(in crate::cli) words: Vec<String>,

    #[command(flatten)]
    pub(in crate::cli) open: Open,

    /// Builds only once, and compares with this image: a reference, or a layout or archive, as `imgdecl inspect` takes it.
    /// For several images, `oci:DIR` or `oci-archive:FILE` that has them under their names
    #[arg(long, value_name = "IMAGE")]
    pub(in crate::cli) against: Option<String>,

    /// The form of what is printed to stdout
    #[arg(long, value_enum, default_value_t)]
    pub(in crate::cli) format: Format,
}

#[derive(clap::Args)]
#[command(after_help = IMAGE)]
pub(in crate::cli) struct Unpack {
    /// The image: a target, a layout, an archive or a reference; see below
    #[arg(value_name = "IMAGE")]
    pub(in crate::cli) image: String,

    /// The folder: it must not exist, or be empty
    pub(in crate::cli) dir: PathBuf,

    /// Makes an OCI runtime bundle: `config.json` beside `rootfs/`
    #[arg(long)]
    pub(in crate::cli) bundle: bool,

    #[command(flatten)]
    pub(in crate::cli) open: Open,

    /// How many bytes the layers may have, uncompressed
    #[arg(long, value_name = "SIZE", default_value = "64GB", value_parser = bytes)]
    pub(in crate::cli) max_size: u64,

    /// How many entries the layers may have
    #[arg(long, value_name = "N", default_value_t = 2_000_000)]
    pub(in crate::cli) max_entries: u64,

    /// How many times its compressed size a layer may have, uncompressed, beyond 256 MiB
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub(in crate::cli) max_ratio: u64,
}
