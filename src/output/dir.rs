//! `dir:PATH`: one image in one folder, as the transport `dir:` of skopeo has it (containers-dir(5)): `manifest.json`,
//! `version`, and each blob under its digest. Blobs first, `manifest.json` last and at once.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::attached::left_out;
use super::layout::{PARTIAL, place, replace};
use super::{
    GoOn, Kind, Needs, Output, OutputError, Planned, Report, Sink, Supply, check_one, fail,
    wait_for,
};
use crate::graph::Product;
use crate::oci::{Digest, Platform};
use crate::store::{Blob, Blobs};

/// The kind of sink.
pub(super) const KIND: Kind = Kind {
    word: "dir",
    place: Some("PATH"),
    make: |place| Arc::new(Dir(place.into_path())),
};

/// The file by which a folder is known as ours. skopeo passes over it.
const MARK: &str = ".imgdecl";
/// What it says.
const MARK_TEXT: &[u8] = b"imgdecl writes this folder\n";
/// The file that says what the folder is, and what it says.
const VERSION: (&str, &[u8]) = ("version", b"Directory Transport Version: 1.1\n");
/// The manifest, or the index of several platforms.
const MANIFEST: &str = "manifest.json";
/// How the name of a manifest of one platform ends, behind its digest.
const MANIFEST_OF: &str = ".manifest.json";

/// One image in one folder.
struct Dir(PathBuf);

impl fmt::Display for Dir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dir:{}", self.0.display())
    }
}

impl Sink for Dir {
    fn paths(&self) -> Vec<PathBuf> {
        vec![self.0.clone()]
    }

    fn needs(&self) -> Needs {
        Needs::Bytes
    }

    fn check(&self) -> Result<(), OutputError> {
        check(&self.0)
    }

    fn check_images(&self, images: &[Planned<'_>], _: &Platform) -> Result<(), OutputError> {
        check_one(self, images)
    }

    fn write(&self, images: &[Output], supply: &Supply<'_>) -> Result<Vec<Report>, OutputError> {
        let Some(output) = images.first() else {
            return Ok(Vec::new());
        };
        let go_on = || !supply.stop.is_asked();
        left_out(images, &self.to_string(), supply.note);
        write(&self.0, output, supply.store()?, &go_on)?;
        (supply.note)(&format!("written {self}"));
        Ok(Vec::new())
    }
}

/// Makes sure that `root` is a folder of ours, empty, or not there.
fn check(root: &Path) -> Result<(), OutputError> {
    let not_ours = || OutputError::NotOurs(root.to_owned());
    let mut entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // A symlink that leads nowhere is there all the same.
            return fs::symlink_metadata(root).map_or(Ok(()), |_| Err(not_ours()));
        }
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Err(not_ours()),
        Err(error) => return Err(fail(root)(error)),
    };
    let mark = root.join(MARK);
    let is_ours = fs::symlink_metadata(&mark).is_ok_and(|it| it.is_file())
        && fs::read(&mark).is_ok_and(|it| it == MARK_TEXT);
    if is_ours {
        return Ok(());
    }
    // A build that was killed before it wrote the mark leaves this alone.
    let partial = format!("{MARK}{PARTIAL}");
    let is_empty = entries.all(|it| it.is_ok_and(|it| *it.file_name() == *partial));
    is_empty.then_some(()).ok_or_else(not_ours)
}

fn write(
    root: &Path,
    output: &Output,
    store: &dyn Blobs,
    go_on: GoOn<'_>,
) -> Result<(), OutputError> {
    fs::create_dir_all(root).map_err(fail(root))?;
    // The folder itself is the lock: two builds into one come one after the other.
    let lock = File::open(root).map_err(fail(root))?;
    wait_for(&lock, root, go_on)?;
    check(root)?;
    let before = names(root)?;
    let written = fill(root, output, store, go_on);
    match written {
        Ok(kept) => prune(root, &kept),
        Err(error) => {
            // What was written so far only takes space: no manifest names it.
            let _ = prune(root, &before);
            if !before.contains(MANIFEST) {
                for name in [VERSION.0, MARK] {
                    let _ = fs::remove_file(root.join(name));
                }
            }
            Err(error)
        }
    }
}

/// Writes the image. Returns the names that it needs.
fn fill(
    root: &Path,
    output: &Output,
    store: &dyn Blobs,
    go_on: GoOn<'_>,
) -> Result<BTreeSet<String>, OutputError> {
    replace(root, MARK, MARK_TEXT)?;
    let mut kept = BTreeSet::new();
    let images = output.images();
    let layers = images.iter().flat_map(|(_, image)| &image.layers);
    let layers = layers.filter(|layer| layer.descriptor.urls.is_empty());
    let configs = images.iter().map(|(_, image)| image.config);
    let blobs: BTreeSet<Blob> = layers.map(|layer| layer.blob()).chain(configs).collect();
    for blob in &blobs {
        place(root, blob, store, go_on)?;
        kept.insert(blob.digest.hex());
    }
    if matches!(output.product, Product::Index(_)) {
        for (_, image) in &images {
            let name = format!("{}{MANIFEST_OF}", image.manifest.digest.hex());
            let bytes = store.read_blob(&Blob::from(&image.manifest))?;
            replace(root, &name, &bytes)?;
            kept.insert(name);
        }
    }
    replace(root, VERSION.0, VERSION.1)?;
    let bytes = store.read_blob(&Blob::from(&output.descriptor()))?;
    replace(root, MANIFEST, &bytes)?;
    Ok(kept)
}

/// Returns the names of all files in a folder.
fn names(root: &Path) -> Result<BTreeSet<String>, OutputError> {
    let entries = fs::read_dir(root).map_err(fail(root))?;
    let names = entries.map(|it| Ok(it?.file_name().to_string_lossy().into_owned()));
    names.collect::<io::Result<_>>().map_err(fail(root))
}

/// Removes blobs, manifests and partial files that are not among `kept`.
fn prune(root: &Path, kept: &BTreeSet<String>) -> Result<(), OutputError> {
    for name in names(root)? {
        let whole = name.strip_suffix(PARTIAL).unwrap_or(&name);
        let bare = whole.strip_suffix(MANIFEST_OF).unwrap_or(whole);
        let is_own = [MARK, VERSION.0, MANIFEST].contains(&whole) && whole != name;
        let is_blob = Digest::from_hex(bare).is_ok();
        if (is_own || is_blob) && !kept.contains(&name) {
            let path = root.join(&name);
            fs::remove_file(&path).map_err(fail(&path))?;
        }
    }
    Ok(())
}
