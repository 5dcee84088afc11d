//! Image archives: an OCI image layout as one tar, itself reproducible. `oci-archive:FILE` is that and no more;
//! docker_archive.rs adds a document for Docker.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{GoOn, OCI_LAYOUT, Output, OutputError, Stoppable, fail, merge, ours};
use crate::layer::{padding, plain_header};
use crate::oci::{Index, MAX_DOCUMENT, OURS};
use crate::store::{Blob, Store, StoreError};
use crate::tar::{BLOCK, Entries};

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
    let mut tar = Entries::new(File::open(path).ok()?);
    for _ in 0..2 {
        let entry = tar.next_entry().ok()??;
        if entry.path == b"index.json" && entry.size <= MAX_DOCUMENT {
            let mut bytes = Vec::new();
            tar.read_to_end(&mut bytes).ok()?;
            return serde_json::from_slice(&bytes).ok();
        }
    }
    None
}

/// Writes an archive to a file.
pub(super) fn write(
    path: &Path,
    archive: &Archive,
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
    let written = fill(&file, archive, store, go_on, &partial)
        .and_then(|()| fs::rename(&partial, path).map_err(fail(path)));
    if written.is_err() {
        let _ = fs::remove_file(&partial);
    }
    written
}

fn fill(
    file: &File,
    archive: &Archive,
    store: &Store,
    go_on: GoOn<'_>,
    path: &Path,
) -> Result<(), OutputError> {
    let mut out = BufWriter::with_capacity(1 << 18, file);
    let copied = io::copy(&mut archive.reader(store, go_on), &mut out).and_then(|_| out.flush());
    copied.map_err(|error| match error.downcast::<StoreError>() {
        Ok(error) => error.into(),
        Err(error) => fail(path)(error),
    })
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

/// The archive of an OCI layout.
pub(super) fn oci(outputs: &[Output<'_>]) -> Archive {
    let index = Index::new(merge(Vec::new(), outputs), ours());
    let blobs = outputs.iter().flat_map(Output::blobs).collect();
    Archive::new(&index, &[], &blobs)
}

/// What lies in an image archive, in order. The blobs are in the store.
pub struct Archive {
    parts: Vec<Part>,
    size: u64,
}

enum Part {
    Bytes(Vec<u8>),
    Blob(Blob),
}

impl Archive {
    /// Lays an archive out: the layout with its index, other documents beside it, and the blobs.
    pub(super) fn new(index: &Index, more: &[(&str, Vec<u8>)], blobs: &BTreeSet<Blob>) -> Self {
        let mut parts = Vec::new();
        let mut document = |name: &str, bytes: &[u8]| {
            let size = bytes.len() as u64;
            let end = &[0; BLOCK][..padding(size)];
            parts.push(Part::Bytes(
                [&plain_header(name, size), bytes, end].concat(),
            ));
        };
        document("oci-layout", OCI_LAYOUT);
        document("index.json", &index.to_bytes());
        for (name, bytes) in more {
            document(name, bytes);
        }
        document("blobs/", &[]);
        document("blobs/sha256/", &[]);
        for blob in blobs {
            let name = format!("blobs/sha256/{}", blob.digest.hex());
            parts.push(Part::Bytes(plain_header(&name, blob.size)));
            parts.push(Part::Blob(*blob));
            parts.push(Part::Bytes(vec![0; padding(blob.size)]));
        }
        parts.push(Part::Bytes(vec![0; 2 * BLOCK]));
        let size = parts.iter().map(|part| match part {
            Part::Bytes(bytes) => bytes.len() as u64,
            Part::Blob(blob) => blob.size,
        });
        Self {
            size: size.sum(),
            parts,
        }
    }

    /// Returns the size of the archive in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns the bytes of the archive. `go_on` says, now and then, whether to.
    pub fn reader<'a>(&'a self, store: &'a Store, go_on: GoOn<'a>) -> impl Read + 'a {
        Stoppable {
            inner: Reader {
                parts: self.parts.iter(),
                store,
                now: Now::Bytes(&[]),
            },
            go_on,
        }
    }
}

/// Reads an archive, part after part.
struct Reader<'a> {
    parts: std::slice::Iter<'a, Part>,
    store: &'a Store,
    now: Now<'a>,
}

/// The part that is read, and what of it is left.
enum Now<'a> {
    Bytes(&'a [u8]),
    Blob {
        file: File,
        left: u64,
        blob: &'a Blob,
    },
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match &mut self.now {
                Now::Bytes(bytes) if !bytes.is_empty() => return bytes.read(buffer),
                Now::Blob { file, left, blob } if *left > 0 => {
                    let count = file.take(*left).read(buffer)?;
                    *left -= count as u64;
                    if count == 0 && !buffer.is_empty() {
                        let name = blob.digest;
                        let text = format!("{name} has {left} bytes less than it had");
                        return Err(io::Error::other(text));
                    }
                    return Ok(count);
                }
                Now::Bytes(_) | Now::Blob { .. } => {}
            }
            self.now = match self.parts.next() {
                None => return Ok(0),
                Some(Part::Bytes(bytes)) => Now::Bytes(bytes),
                Some(Part::Blob(blob)) => Now::Blob {
                    file: self.store.open_blob(blob).map_err(io::Error::other)?,
                    left: blob.size,
                    blob,
                },
            };
        }
    }
}
