//! Image archives: an OCI image layout as one tar, itself reproducible. `oci-archive:FILE` is that and no more;
//! docker_archive.rs adds a document for Docker. Into a pipe go the same bytes as into a file.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{
    GoOn, Kind, Needs, OCI_LAYOUT, Output, OutputError, Place, Report, Sink, Stoppable, Supply,
    fail, merge, ours, unread, wait_for,
};
use crate::layer::{padding, plain_header};
use crate::oci::{Index, MAX_DOCUMENT, OURS};
use crate::store::{Blob, BlobReader, Blobs};
use crate::tar::{BLOCK, Entries};

/// The kind of sink.
pub(super) const KIND: Kind = Kind {
    word: "oci-archive",
    place: Some("FILE"),
    make: |place| Arc::new(OciArchive(place)),
};

/// An OCI image layout as one tar.
struct OciArchive(Place);

impl fmt::Display for OciArchive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "oci-archive:{}", self.0)
    }
}

impl Sink for OciArchive {
    fn paths(&self) -> Vec<PathBuf> {
        paths(&self.0)
    }

    fn needs(&self) -> Needs {
        Needs::Bytes
    }

    fn check(&self) -> Result<(), OutputError> {
        check_place(&self.0, check)
    }

    fn write(&self, images: &[Output], supply: &Supply<'_>) -> Result<Vec<Report>, OutputError> {
        write(&self.0, &oci(images), supply)?;
        (supply.note)(&format!("written {self}"));
        Ok(Vec::new())
    }
}

/// Returns the paths that are written where one file goes to a place.
pub(super) fn paths(place: &Place) -> Vec<PathBuf> {
    let path = place.path().into_iter();
    path.flat_map(|path| [path.to_owned(), partial(path)])
        .collect()
}

/// Makes sure that one file can go to a place: `check` says whether the file that is there is one of ours.
pub(super) fn check_place(
    place: &Place,
    check: fn(&Path) -> Result<(), OutputError>,
) -> Result<(), OutputError> {
    match place.path() {
        Some(path) if !place.is_stream() => check(path),
        _ => place.check_no_terminal(),
    }
}

/// Makes sure that `path` is an archive of ours, or not there.
pub(super) fn check(path: &Path) -> Result<(), OutputError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(fail(path)(error)),
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return Err(OutputError::NotOurs(path.to_owned())),
    }
    let file = File::open(path).map_err(fail(path))?;
    match read_index(file) {
        Ok(Some(index)) if index.annotations.contains_key(OURS) => Ok(()),
        Ok(_) => Err(OutputError::NotOurs(path.to_owned())),
        Err(error) => Err(OutputError::Damaged {
            path: path.to_owned(),
            why: error.to_string(),
        }),
    }
}

/// Reads the index of an archive of ours: it is the second entry, behind the `oci-layout` file; `None` where the file begins
/// with something else. Fails where it begins as ours do, and what follows cannot be read.
fn read_index(file: File) -> io::Result<Option<Index>> {
    let mut tar = Entries::new(file);
    match tar.next_entry() {
        Ok(Some(first)) if first.path == b"oci-layout" => {}
        _ => return Ok(None),
    }
    let cut = || io::Error::other("it is cut short");
    let entry = tar
        .next_entry()
        .map_err(io::Error::other)?
        .ok_or_else(cut)?;
    if entry.path != b"index.json" {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    tar.take(MAX_DOCUMENT).read_to_end(&mut bytes)?;
    match bytes.len() as u64 == entry.size {
        true => Ok(serde_json::from_slice(&bytes)?),
        false => Err(cut()),
    }
}

/// Writes an archive.
pub(super) fn write(
    place: &Place,
    archive: &Archive,
    supply: &Supply<'_>,
) -> Result<(), OutputError> {
    let store = supply.store()?;
    let go_on = || !supply.stop.is_asked();
    let fill = |out: &mut dyn Write| {
        io::copy(&mut archive.reader(store, &go_on), out)?;
        Ok(())
    };
    write_one(place, check, &fill, supply)
}

/// Writes one file to a place: `fill` writes its bytes, in order, and `check` says whether the file that is there is one of
/// ours. A file is whole or not there; what went into a pipe is gone.
pub(super) fn write_one(
    place: &Place,
    check: fn(&Path) -> Result<(), OutputError>,
    fill: &dyn Fn(&mut dyn Write) -> io::Result<()>,
    supply: &Supply<'_>,
) -> Result<(), OutputError> {
    let go_on = || !supply.stop.is_asked();
    let filled = |out: &mut dyn Write| {
        let mut out = BufWriter::with_capacity(1 << 18, out);
        fill(&mut out).and_then(|()| out.flush())
    };
    if let Some(mut stream) = place.stream(supply, &go_on)? {
        return filled(&mut stream).map_err(place.failed());
    }
    // Stdout is a stream.
    let path = place.path().unwrap_or(Path::new("-"));
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    fs::create_dir_all(folder).map_err(fail(folder))?;
    let partial = partial(path);
    let target = Target::new(folder, &partial, &go_on)?;
    check(path)?;
    let written = filled(&mut target.file())
        .map_err(unread(&partial))
        .and_then(|()| target.commit(folder, &partial, (path, check), &go_on));
    if written.is_err() && target.has_name() {
        let _ = fs::remove_file(&partial);
    }
    written
}

/// The file that an archive is written to before it is whole.
enum Target {
    /// It has no name yet: nothing is left of it where the process is killed.
    Nameless(File),
    /// Under the partial name and locked, where the file system has no files without names. The next build takes over what
    /// a killed one left.
    Named(File),
}

/// Makes sure that a file may be replaced.
type Check = fn(&Path) -> Result<(), OutputError>;

impl Target {
    fn new(folder: &Path, partial: &Path, go_on: GoOn<'_>) -> Result<Self, OutputError> {
        match nameless(folder) {
            Some(file) => {
                let _alone = alone(folder, go_on)?;
                clear(partial, go_on)?;
                Ok(Self::Nameless(file))
            }
            None => {
                let file = lock(partial, go_on)?;
                file.set_len(0).map_err(fail(partial))?;
                Ok(Self::Named(file))
            }
        }
    }

    fn file(&self) -> &File {
        match self {
            Self::Nameless(file) | Self::Named(file) => file,
        }
    }

    fn has_name(&self) -> bool {
        matches!(self, Self::Named(_))
    }

    /// Puts the whole archive in the place of an older one.
    fn commit(
        &self,
        folder: &Path,
        partial: &Path,
        (path, check): (&Path, Check),
        go_on: GoOn<'_>,
    ) -> Result<(), OutputError> {
        if let Self::Nameless(file) = self {
            // A file can be named where nothing is, and only then renamed: one build after the other.
            let _alone = alone(folder, go_on)?;
            clear(partial, go_on)?;
            check(path)?;
            name(file, partial).map_err(fail(partial))?;
            return fs::rename(partial, path).map_err(|error| {
                let _ = fs::remove_file(partial);
                fail(path)(error)
            });
        }
        fs::rename(partial, path).map_err(fail(path))
    }
}

/// Makes a file without a name, if the file system can, and can name it later.
#[cfg(target_os = "linux")]
fn nameless(folder: &Path) -> Option<File> {
    use rustix::fs::{Mode, OFlags, open};
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = File::from(open(folder, flags, Mode::from_raw_mode(0o666)).ok()?);
    // Without /proc it could not be named.
    fs::symlink_metadata(path_of(&file)).is_ok().then_some(file)
}

/// Gives a name to a file that has none.
#[cfg(target_os = "linux")]
fn name(file: &File, path: &Path) -> io::Result<()> {
    use rustix::fs::{AtFlags, CWD, linkat};
    let flags = AtFlags::SYMLINK_FOLLOW;
    Ok(linkat(CWD, path_of(file), CWD, path, flags)?)
}

#[cfg(target_os = "linux")]
fn path_of(file: &File) -> String {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

#[cfg(not(target_os = "linux"))]
fn nameless(_: &Path) -> Option<File> {
    None
}

#[cfg(not(target_os = "linux"))]
fn name(_: &File, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Keeps other builds away that give names to files of a folder.
fn alone(folder: &Path, go_on: GoOn<'_>) -> Result<File, OutputError> {
    let file = File::open(folder).map_err(fail(folder))?;
    wait_for(&file, folder, go_on)?;
    Ok(file)
}

/// Removes the partial file that a killed build left, once nobody writes it any more.
fn clear(partial: &Path, go_on: GoOn<'_>) -> Result<(), OutputError> {
    if fs::symlink_metadata(partial).is_err() {
        return Ok(());
    }
    let held = lock(partial, go_on)?;
    let removed = fs::remove_file(partial).map_err(fail(partial));
    drop(held);
    removed
}

/// Opens the partial file, alone. Its name is the same each time, so that the next build takes over what a killed one
/// left.
fn lock(partial: &Path, go_on: GoOn<'_>) -> Result<File, OutputError> {
    loop {
        // Never through a link, and nothing that would block: only a file of ours is written.
        if fs::symlink_metadata(partial).is_ok_and(|there| !there.is_file()) {
            return Err(OutputError::NotOurs(partial.to_owned()));
        }
        let file = File::options().create(true).append(true).open(partial);
        let file = file.map_err(fail(partial))?;
        wait_for(&file, partial, go_on)?;
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
fn partial(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".partial");
    path.with_file_name(name)
}

/// The archive of an OCI layout.
fn oci(outputs: &[Output]) -> Archive {
    let index = Index::new(merge(Vec::new(), outputs), ours());
    let blobs = outputs.iter().flat_map(Output::blobs).collect();
    Archive::new(&index, &[], &blobs)
}

/// What lies in an image archive, in order. The blobs are in the store.
pub(super) struct Archive {
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
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Returns the bytes of the archive. `go_on` says, now and then, whether to.
    pub(super) fn reader<'a>(&'a self, store: &'a dyn Blobs, go_on: GoOn<'a>) -> impl Read + 'a {
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
    store: &'a dyn Blobs,
    now: Now<'a>,
}

/// The part that is read, and what of it is left.
enum Now<'a> {
    Bytes(&'a [u8]),
    /// It ends with the blob's last byte, or an error.
    Blob(Box<BlobReader>),
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match &mut self.now {
                Now::Bytes(bytes) if !bytes.is_empty() => return bytes.read(buffer),
                Now::Bytes(_) => {}
                Now::Blob(reader) => match reader.read(buffer)? {
                    0 if !buffer.is_empty() => {}
                    count => return Ok(count),
                },
            }
            self.now = match self.parts.next() {
                None => return Ok(0),
                Some(Part::Bytes(bytes)) => Now::Bytes(bytes),
                Some(Part::Blob(blob)) => Now::Blob(Box::new(self.store.open_blob(blob)?)),
            };
        }
    }
}
