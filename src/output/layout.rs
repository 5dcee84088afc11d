//! `oci:DIR`: an OCI image layout (image-spec, image-layout.md). Blobs first, `index.json` last and at once.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{
    GoOn, Kind, LAYOUT_VERSION, Needs, OCI_LAYOUT, Output, OutputError, Report, Sink, Stoppable,
    Supply, fail, merge, ours, unread, wait_for,
};
use crate::oci::{Descriptor, Digest, Index, Manifest, OURS, REF_NAME, Referrer};
use crate::source::read_document;
use crate::store::{Blob, Blobs, blob_of_file, seal_copy};

/// The end of the name of a file that is being written. What a killed process leaves, the next one removes.
pub(super) const PARTIAL: &str = ".partial";
/// Such files in the folder of the layout itself.
const OURS_PARTIAL: [&str; 2] = ["index.json.partial", "oci-layout.partial"];

/// The kind of sink.
pub(super) const KIND: Kind = Kind {
    word: "oci",
    place: Some("DIR"),
    make: |place| Arc::new(Layout(place.into_path())),
};

/// An OCI image layout in a folder.
pub(crate) struct Layout(pub(crate) PathBuf);

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "oci:{}", self.0.display())
    }
}

impl Sink for Layout {
    fn paths(&self) -> Vec<PathBuf> {
        vec![self.0.clone()]
    }

    fn needs(&self) -> Needs {
        Needs::Bytes
    }

    fn check(&self) -> Result<(), OutputError> {
        check(&self.0)
    }

    fn write(&self, images: &[Output], supply: &Supply<'_>) -> Result<Vec<Report>, OutputError> {
        let go_on = || !supply.stop.is_asked();
        write(&self.0, images, supply.store()?, &go_on)?;
        (supply.note)(&format!("written {self}"));
        Ok(Vec::new())
    }
}

/// Makes sure that `root` is a layout of ours, empty, or not there.
fn check(root: &Path) -> Result<(), OutputError> {
    let not_ours = || OutputError::NotOurs(root.to_owned());
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // A symlink that leads nowhere is there all the same.
            return fs::symlink_metadata(root).map_or(Ok(()), |_| Err(not_ours()));
        }
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Err(not_ours()),
        Err(error) => return Err(fail(root)(error)),
    };
    // What is written and removed lies in the folder itself.
    for folder in ["blobs", "blobs/sha256"] {
        if fs::symlink_metadata(root.join(folder)).is_ok_and(|there| !there.is_dir()) {
            return Err(not_ours());
        }
    }
    let index = root.join("index.json");
    match parse_index(&index) {
        Ok(index) if index.annotations.contains_key(OURS) => return check_version(root),
        Ok(_) => return Err(not_ours()),
        Err(Unread::Absent) => {}
        Err(Unread::NoFile) => return Err(not_ours()),
        Err(Unread::Io(source)) => {
            return Err(OutputError::Io {
                path: index,
                source,
            });
        }
        // Whose it is cannot be known: what is there stays.
        Err(Unread::Damaged(why)) => return Err(OutputError::Damaged { path: index, why }),
    }
    for entry in entries {
        // A build that was killed before it wrote the first index leaves this alone.
        if entry.map_err(fail(root))?.file_name() != "index.json.partial" {
            return Err(not_ours());
        }
    }
    Ok(())
}

fn write(
    root: &Path,
    outputs: &[Output],
    store: &dyn Blobs,
    go_on: GoOn<'_>,
) -> Result<(), OutputError> {
    fs::create_dir_all(root).map_err(fail(root))?;
    // The folder itself is the lock: two builds into one layout come one after the other.
    let lock = File::open(root).map_err(fail(root))?;
    wait_for(&lock, root, go_on)?;
    check(root)?;
    let written = fill(root, outputs, store, go_on);
    if written.is_err()
        && let Some(index) = read_index(root)
    {
        // What was written so far only takes space: no index names it.
        let _ = prune(root, &root.join("blobs/sha256"), &index);
    }
    written
}

/// Writes blobs and index, and removes what the new index does not need.
fn fill(
    root: &Path,
    outputs: &[Output],
    store: &dyn Blobs,
    go_on: GoOn<'_>,
) -> Result<(), OutputError> {
    let before = match read_index(root) {
        Some(index) => index.manifests,
        None => {
            replace(
                root,
                "index.json",
                &Index::new(Vec::new(), ours()).to_bytes(),
            )?;
            Vec::new()
        }
    };
    replace(root, "oci-layout", OCI_LAYOUT)?;
    let blobs = root.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(fail(&blobs))?;
    let wanted: BTreeSet<Blob> = outputs.iter().flat_map(Output::blobs).collect();
    for blob in &wanted {
        place(&blobs, blob, store, go_on)?;
    }
    let entries = merge(staying(&blobs, before, outputs), outputs);
    let index = Index::new(entries, ours());
    replace(root, "index.json", &index.to_bytes())?;
    prune(root, &blobs, &index)
}

/// Why an index was not read.
enum Unread {
    Absent,
    /// Something else has its name.
    NoFile,
    Io(io::Error),
    Damaged(String),
}

fn parse_index(path: &Path) -> Result<Index, Unread> {
    match fs::symlink_metadata(path) {
        Ok(there) if there.is_file() => {}
        Ok(_) => return Err(Unread::NoFile),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Unread::Absent),
        Err(error) => return Err(Unread::Io(error)),
    }
    let bytes = read_document(path).map_err(|error| match error.raw_os_error() {
        Some(_) => Unread::Io(error),
        None => Unread::Damaged(error.to_string()),
    })?;
    serde_json::from_slice(&bytes).map_err(|error| Unread::Damaged(error.to_string()))
}

/// Makes sure that the `oci-layout` file of a layout of ours, which may not be there yet, says the version that we write.
fn check_version(root: &Path) -> Result<(), OutputError> {
    let path = root.join("oci-layout");
    if fs::symlink_metadata(&path).is_err() {
        return Ok(());
    }
    let version = read_document(&path).and_then(|bytes| {
        let value: serde_json::Value = serde_json::from_slice(&bytes)?;
        Ok(value["imageLayoutVersion"].as_str().map(str::to_owned))
    });
    let why = match version {
        Ok(Some(version)) if version == LAYOUT_VERSION => return Ok(()),
        Ok(Some(version)) => {
            format!("it says version {version:?}, and {LAYOUT_VERSION} is what we write")
        }
        Ok(None) => "it says no version".to_owned(),
        Err(error) => error.to_string(),
    };
    Err(OutputError::Damaged { path, why })
}

/// Reads the index of a layout; `None` if there is none that can be read.
fn read_index(root: &Path) -> Option<Index> {
    parse_index(&root.join("index.json")).ok()
}

/// Replaces a file of the layout at once.
pub(super) fn replace(root: &Path, name: &str, bytes: &[u8]) -> Result<(), OutputError> {
    let path = root.join(name);
    if fs::read(&path).is_ok_and(|present| present == bytes) {
        return Ok(());
    }
    let partial = root.join(format!("{name}{PARTIAL}"));
    let mut file = create(&partial)?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(fail(&partial))?;
    fs::rename(&partial, &path).map_err(fail(&path))
}

#[expect(
    clippy::disallowed_methods,
    reason = "partial files of a layout, which are renamed when whole"
)]
fn create(path: &Path) -> Result<File, OutputError> {
    let _ = fs::remove_file(path);
    File::create(path).map_err(fail(path))
}

/// Puts a blob of the store into the layout: by reflink, hard link or copy. A copy is hashed on the way.
pub(super) fn place(
    blobs: &Path,
    blob: &Blob,
    store: &dyn Blobs,
    go_on: GoOn<'_>,
) -> Result<(), OutputError> {
    let path = blobs.join(blob.digest.hex());
    let mut source = store.open_blob(blob)?;
    // What is there from last time is taken as it is if nobody touched it since.
    if store.vouches_for(blob, &path) {
        return Ok(());
    }
    let partial = blobs.join(format!("{}{PARTIAL}", blob.digest.hex()));
    let _ = fs::remove_file(&partial);
    if !store.link_blob(blob, &partial)? {
        if mends(&path, blob, go_on) {
            return Ok(());
        }
        let mut target = create(&partial)?;
        let mut source = Stoppable {
            inner: &mut source,
            go_on,
        };
        io::copy(&mut source, &mut target)
            .and_then(|_| seal_copy(&target))
            .map_err(unread(&partial))?;
    }
    fs::rename(&partial, &path).map_err(fail(&path))?;
    // A rename between two links of one file does nothing, and leaves both.
    let _ = fs::remove_file(&partial);
    Ok(())
}

/// Seals a copy of a blob that was made before the store's own file, if all its bytes are right.
fn mends(path: &Path, blob: &Blob, go_on: GoOn<'_>) -> bool {
    let there = fs::symlink_metadata(path).is_ok_and(|it| it.is_file() && it.len() == blob.size);
    there
        && blob_of_file(path, &|_| go_on()).is_ok_and(|found| found == *blob)
        && File::open(path).and_then(|it| seal_copy(&it)).is_ok()
}

/// Removes the blobs that no image of the layout needs. Does nothing where an image cannot be followed.
fn prune(root: &Path, blobs: &Path, index: &Index) -> Result<(), OutputError> {
    let mut needed = BTreeSet::new();
    let mut all = index.manifests.iter();
    if all.any(|descriptor| follow(blobs, descriptor, &mut needed, 0).is_none()) {
        return Ok(());
    }
    for folder in [root, blobs] {
        for entry in fs::read_dir(folder).map_err(fail(folder))? {
            let entry = entry.map_err(fail(folder))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let digest = Digest::from_hex(name.strip_suffix(PARTIAL).unwrap_or(&name)).ok();
            let is_stale = match digest.filter(|_| folder == blobs) {
                Some(digest) => name.ends_with(PARTIAL) || !needed.contains(&digest),
                None => folder == root && OURS_PARTIAL.contains(&name.as_str()),
            };
            if is_stale && entry.file_type().is_ok_and(|kind| kind.is_file()) {
                fs::remove_file(entry.path()).map_err(fail(&entry.path()))?;
            }
        }
    }
    Ok(())
}

/// Returns the entries of the last index that stay: the images of other names, and the documents about them. A document
/// about an image that is written stays, too, whoever attached it, unless another one of its kind comes with the image.
fn staying(blobs: &Path, before: Vec<Descriptor>, outputs: &[Output]) -> Vec<Descriptor> {
    let (documents, images): (Vec<_>, Vec<_>) =
        before.into_iter().partition(Descriptor::is_document);
    let is_replaced = |it: &Descriptor| {
        let name = it.annotations.get(REF_NAME);
        outputs.iter().any(|output| Some(&output.name) == name)
    };
    let mut kept: Vec<Descriptor> = images.into_iter().filter(|it| !is_replaced(it)).collect();
    let mut held = BTreeSet::new();
    let mut all = kept.iter();
    if !all.all(|it| follow(blobs, it, &mut held, 0).is_some()) {
        // What a document is about may be in what cannot be followed.
        return [kept, documents].concat();
    }
    let written: BTreeSet<Digest> = outputs.iter().flat_map(Output::subjects).collect();
    let new = outputs.iter().flat_map(|output| &output.attached);
    let new: BTreeSet<(Digest, &str)> = new
        .map(|it| (it.referrer.subject.digest, it.referrer.kind()))
        .collect();
    let mut open = documents;
    loop {
        let (stay, gone): (Vec<_>, Vec<_>) = open.into_iter().partition(|it| {
            let kind = it.artifact_type.as_deref().unwrap_or_default();
            let is_about = |subject: Digest| {
                held.contains(&subject)
                    || written.contains(&subject) && !new.contains(&(subject, kind))
            };
            // What is about nothing, or says nothing that can be read, is not ours to remove.
            subject(blobs, it).is_none_or(is_about)
        });
        if stay.is_empty() {
            return kept;
        }
        // A document may be about a document.
        held.extend(stay.iter().map(|it| it.digest));
        kept.extend(stay);
        open = gone;
    }
}

/// Returns what a document of the layout is about.
fn subject(blobs: &Path, document: &Descriptor) -> Option<Digest> {
    let bytes = read_document(&blobs.join(document.digest.hex())).ok()?;
    let referrer: Referrer = serde_json::from_slice(&bytes).ok()?;
    Some(referrer.subject.digest)
}

/// How deep indexes may be nested.
const MAX_DEPTH: usize = 4;

/// Adds all digests that an image needs; `None` if a document is not there or cannot be read.
fn follow(
    blobs: &Path,
    descriptor: &Descriptor,
    needed: &mut BTreeSet<Digest>,
    depth: usize,
) -> Option<()> {
    if !needed.insert(descriptor.digest) {
        return Some(());
    }
    let path = blobs.join(descriptor.digest.hex());
    if descriptor.media_type.is_index() && depth < MAX_DEPTH {
        let index: Index = serde_json::from_slice(&read_document(&path).ok()?).ok()?;
        let mut all = index.manifests.iter();
        all.try_for_each(|next| follow(blobs, next, needed, depth + 1))
    } else if descriptor.media_type.is_manifest() {
        let manifest: Manifest = serde_json::from_slice(&read_document(&path).ok()?).ok()?;
        needed.insert(manifest.config.digest);
        needed.extend(manifest.layers.iter().map(|layer| layer.digest));
        Some(())
    } else {
        None
    }
}
