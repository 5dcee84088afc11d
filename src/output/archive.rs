//! `oci-archive:FILE`: an OCI image layout as one tar, itself reproducible.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{GoOn, OCI_LAYOUT, Output, OutputError, Stoppable, fail, merge, ours};
use crate::layer::{BLOCK, padding, plain_header};
use crate::oci::{Index, MAX_DOCUMENT, OURS};
use crate::store::{Blob, Store};

/// Makes sure that `path` is an archive of ours, or not there.
pub(super) fn check(path: &Path) -> Result<(), OutputError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(fail(path)(error)),
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return Err(OutputError::NotOurs(path.to_owned())),
    }
    match read_index(path) {
        Some(index) if index.annotations.contains_key(OURS) => Ok(()),
        _ => Err(OutputError::NotOurs(path.to_owned())),
    }
}

/// Reads the index of an archive of ours: it is the second entry.
fn read_index(path: &Path) -> Option<Index> {
    let mut archive = tar::Archive::new(File::open(path).ok()?);
    for entry in archive.entries().ok()?.take(2) {
        let entry = entry.ok()?;
        if &*entry.path_bytes() == b"index.json" && entry.size() <= MAX_DOCUMENT {
            let mut bytes = Vec::new();
            entry.take(MAX_DOCUMENT).read_to_end(&mut bytes).ok()?;
            return serde_json::from_slice(&bytes).ok();
        }
    }
    None
}

pub(super) fn write(
    path: &Path,
    outputs: &[Output<'_>],
    store: &Store,
    go_on: GoOn<'_>,
) -> Result<(), OutputError> {
    let partial = partial(path);
    if let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        fs::create_dir_all(folder).map_err(fail(folder))?;
    }
    let file = lock(&partial)?;
    file.set_len(0).map_err(fail(&partial))?;
    check(path)?;
    let written = tar(&file, outputs, store, go_on, &partial)
        .and_then(|()| fs::rename(&partial, path).map_err(fail(path)));
    if written.is_err() {
        let _ = fs::remove_file(&partial);
    }
    written
}

/// Opens the partial file, alone. Its name is the same each time, so that the next build takes over what a killed one
/// left.
fn lock(partial: &Path) -> Result<File, OutputError> {
    loop {
        // Never through a link, and nothing that would block: only a file of ours is written.
        if fs::symlink_metadata(partial).is_ok_and(|there| !there.is_file()) {
            return Err(OutputError::NotOurs(partial.to_owned()));
        }
        let file = File::options().create(true).append(true).open(partial);
        let file = file.map_err(fail(partial))?;
        file.lock().map_err(fail(partial))?;
        // The one who held the lock has renamed the file meanwhile: then it is the finished archive.
        let locked = file.metadata().map_err(fail(partial))?;
        match fs::symlink_metadata(partial) {
            Ok(there) if (there.dev(), there.ino()) == (locked.dev(), locked.ino()) => {
                return Ok(file);
            }
            _ => continue,
        }
    }
}

/// Returns the name under which an archive is written before it is whole.
pub(super) fn partial(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".partial");
    path.with_file_name(name)
}

fn tar(
    file: &File,
    outputs: &[Output<'_>],
    store: &Store,
    go_on: GoOn<'_>,
    path: &Path,
) -> Result<(), OutputError> {
    let index = Index::new(merge(Vec::new(), outputs), ours()).to_bytes();
    let blobs: BTreeSet<Blob> = outputs.iter().flat_map(Output::blobs).collect();
    let mut out = BufWriter::with_capacity(1 << 18, file);
    let mut add = |name: &str, size: u64, mut content: &mut dyn Read| {
        out.write_all(&plain_header(name, size))?;
        let copied = io::copy(&mut content, &mut out)?;
        if copied != size {
            return Err(io::Error::other(format!(
                "{name} has {copied} bytes instead of {size}"
            )));
        }
        out.write_all(&[0; BLOCK][..padding(size)])
    };
    add("oci-layout", OCI_LAYOUT.len() as u64, &mut &OCI_LAYOUT[..]).map_err(fail(path))?;
    add("index.json", index.len() as u64, &mut &index[..]).map_err(fail(path))?;
    add("blobs/", 0, &mut io::empty()).map_err(fail(path))?;
    add("blobs/sha256/", 0, &mut io::empty()).map_err(fail(path))?;
    for blob in &blobs {
        let inner = store.open_blob(blob)?;
        let mut content = Stoppable { inner, go_on };
        add(
            &format!("blobs/sha256/{}", blob.digest.hex()),
            blob.size,
            &mut content,
        )
        .map_err(fail(path))?;
    }
    out.write_all(&[0; 2 * BLOCK])
        .and_then(|()| out.flush())
        .map_err(fail(path))
}
