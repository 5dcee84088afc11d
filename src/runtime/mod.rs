//! Images as files again: applies layers into a folder, makes bundles that OCI runtimes run, and reads what changed in a
//! folder back as a tree.
//!
//! Nothing of an image is trusted. Paths are resolved inside the new root alone, every digest, size and diff_id is
//! checked, limits bound what an image may take, and on failure nothing stays. Knows nothing of where images come from:
//! of rules, specs, the graph or registries.

#[cfg(target_os = "linux")]
mod annotations;
mod apply;
pub(crate) mod bundle;
#[cfg(target_os = "linux")]
mod cgroup;
#[cfg(target_os = "linux")]
pub mod changed;
#[cfg(target_os = "linux")]
mod chroot;
#[cfg(target_os = "linux")]
mod container;
mod error;
#[cfg(target_os = "linux")]
mod foreground;
#[cfg(target_os = "linux")]
mod layer_reader;
#[cfg(target_os = "linux")]
mod metadata;
mod mount_points;
#[cfg(target_os = "linux")]
mod oci_runtime;
#[cfg(target_os = "linux")]
mod program;
#[cfg(target_os = "linux")]
mod reaper;
#[cfg(target_os = "linux")]
mod remove_lower;
#[cfg(target_os = "linux")]
mod root;
#[cfg(target_os = "linux")]
mod run_folder;
#[cfg(target_os = "linux")]
mod sealed;
#[cfg(target_os = "linux")]
mod signals;
#[cfg(target_os = "linux")]
mod staging;

#[cfg(target_os = "linux")]
pub(crate) use apply::apply;
#[cfg(target_os = "linux")]
pub(crate) use chroot::{Chroot, INNER, inner};
#[cfg(target_os = "linux")]
pub(crate) use container::{Container, Ended, RunError, Watch};
pub(crate) use error::ApplyError;
#[cfg(target_os = "linux")]
pub(crate) use oci_runtime::{OCI_RUNTIMES, OciRuntime};
#[cfg(target_os = "linux")]
pub(crate) use program::ProgramError;
#[cfg(target_os = "linux")]
pub(crate) use root::read_inside;
#[cfg(target_os = "linux")]
pub(crate) use run_folder::remove_leftovers;
#[cfg(target_os = "linux")]
pub(crate) use sealed::Sealed;
#[cfg(target_os = "linux")]
pub(crate) use staging::StagingFolder;

use crate::oci::Config;
use crate::source::Piece;

/// An image of one platform, to be applied.
#[derive(Clone, Copy)]
pub(crate) struct Image<'a> {
    /// The config: it holds the diff_ids that the layers must have.
    pub config: &'a Config,
    /// The layers, bottom first.
    pub layers: &'a [Piece],
}

/// What an image may take. Real images stay far below; made-up ones do not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// How many bytes all layers may have, uncompressed.
    pub bytes: u64,
    /// How many entries all layers may have.
    pub entries: u64,
    /// How many times its compressed size a layer may have, uncompressed.
    pub ratio: u64,
    /// The uncompressed size of a layer in bytes up to which its ratio does not matter.
    pub grace: u64,
    /// How many bytes a path or the target of a symlink may have.
    pub path: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 64_000_000_000,
            entries: 2_000_000,
            ratio: 200,
            grace: 256 << 20,
            path: 4095,
        }
    }
}

/// What was applied, and what could not be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Applied {
    /// The entries of all layers.
    pub entries: u64,
    /// The bytes of all layers, uncompressed.
    pub bytes: u64,
    /// Entries that belong to someone else than the user who unpacked them: only root may give files away.
    pub owners: u64,
    /// Devices that the kernel refused to make: an empty file stands in the place of each.
    pub devices: u64,
    /// Extended attributes that the file system or the kernel refused.
    pub attributes: u64,
    /// Entries for the root that are no folders: passed over, as containerd does.
    pub roots: u64,
}

#[cfg(not(target_os = "linux"))]
mod elsewhere {
    //! Where there is no Linux: says so.

    use std::path::Path;

    use super::{Applied, ApplyError, Image, Limits};
    use crate::layer::Tick;

    /// Applies nothing: containers need Linux.
    ///
    /// # Errors
    /// Always.
    pub fn apply(_: &Image<'_>, _: &Path, _: &Limits, _: Tick<'_>) -> Result<Applied, ApplyError> {
        Err(ApplyError::Unsupported)
    }

    /// Reads nothing.
    ///
    /// # Errors
    /// Always.
    pub fn read_inside(_: &Path, _: &str, _: u64) -> Result<Option<Vec<u8>>, ApplyError> {
        Err(ApplyError::Unsupported)
    }

    /// Removes nothing: nothing was run.
    ///
    /// # Errors
    /// Never.
    pub fn remove_leftovers(_: &crate::store::Store) -> std::io::Result<u64> {
        Ok(0)
    }

    /// A folder that cannot be.
    pub struct StagingFolder(std::convert::Infallible);

    impl StagingFolder {
        /// Makes nothing.
        ///
        /// # Errors
        /// Always.
        pub fn new(_: &Path) -> Result<Self, ApplyError> {
            Err(ApplyError::Unsupported)
        }

        /// Returns where the folder is.
        pub fn path(&self) -> &Path {
            match self.0 {}
        }

        /// Makes a folder below.
        ///
        /// # Errors
        /// Never.
        pub fn folder(&self, _: &str) -> Result<std::path::PathBuf, ApplyError> {
            match self.0 {}
        }

        /// Writes a file.
        ///
        /// # Errors
        /// Never.
        pub fn write(&self, _: &str, _: &[u8]) -> Result<(), ApplyError> {
            match self.0 {}
        }

        /// Gives the folder its mode.
        ///
        /// # Errors
        /// Never.
        pub fn open_to_all(&self) -> Result<(), ApplyError> {
            match self.0 {}
        }

        /// Puts the folder in its place.
        ///
        /// # Errors
        /// Never.
        pub fn commit(self) -> Result<(), ApplyError> {
            match self.0 {}
        }
    }
}

#[cfg(not(target_os = "linux"))]
pub use elsewhere::{StagingFolder, apply, read_inside, remove_leftovers};
