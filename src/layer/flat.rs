//! The root that the layers of an image make, as one tar: what a container would see, without whiteouts and without layers.
//!
//! The layers are read twice. The first time says what is left of them in the end; the second time, their contents go out as
//! they come. So nothing but names is in memory. Entries are read as `runtime` applies them: a parent that is a symlink is
//! followed inside the root, and a layer's whiteouts hide what is below it alone.
//!
//! Symlinks and devices come first, in the order of their paths, then files, in the order of the layers, and then folders,
//! each behind what is in it: so whoever unpacks it gives a folder its time and its mode when nothing more is put there. The
//! same layers make the same bytes.

mod root;

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use super::Tick;
use super::header::{Header, padding};
use crate::tar::{BLOCK, Entries, Kind, TarError, shown};
use root::{Node, Root, What};

/// How many bytes are copied at once.
const BUFFER: usize = 1 << 18;

/// Opens a layer by its number, bottom first: its tar, decompressed.
pub(crate) type OpenLayer<'a> = &'a dyn Fn(usize) -> io::Result<Box<dyn Read + Send>>;

/// Why layers make no root.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FlatError {
    /// A layer cannot be read.
    #[error("layer {} cannot be read", .layer + 1)]
    Read {
        /// Its number.
        layer: usize,
        /// Why.
        source: io::Error,
    },
    /// A layer has an entry that has no place in a root.
    #[error("layer {} has the entry `{entry}`, {why}", .layer + 1)]
    Entry {
        /// Its number.
        layer: usize,
        /// The path of the entry.
        entry: String,
        /// What is wrong with it.
        why: String,
    },
    /// The user stopped it.
    #[error("stopped")]
    Stopped,
}

/// What is left of layers in the end.
pub(crate) struct FlatRoot {
    root: Root,
    layers: usize,
}

impl FlatRoot {
    /// Reads the names of `layers` layers.
    ///
    /// # Errors
    /// When a layer cannot be read or makes no sense, or the user stopped it.
    pub(crate) fn read(
        layers: usize,
        open: OpenLayer<'_>,
        tick: Tick<'_>,
    ) -> Result<Self, FlatError> {
        let mut root = Root::default();
        for layer in 0..layers {
            let fail = |source| FlatError::Read { layer, source };
            let mut tar = open(layer).map_err(fail)?;
            let mut entries = Entries::new(&mut tar);
            root.next_layer();
            let mut number = 0;
            loop {
                if !tick(0) {
                    return Err(FlatError::Stopped);
                }
                let entry = match entries.next_entry() {
                    Ok(Some(entry)) => entry,
                    Ok(None) => break,
                    Err(TarError::Damaged(source)) => return Err(fail(source)),
                    Err(error) => return Err(fail(io::Error::other(error))),
                };
                let path = entry.path.clone();
                let added = root.add(entry, (layer, number));
                added.map_err(|why| FlatError::Entry {
                    layer,
                    entry: shown(&path),
                    why,
                })?;
                number += 1;
            }
            drop(entries);
            // Whether its bytes are right is known at their end.
            drain(&mut tar, tick).map_err(fail)?;
        }
        Ok(Self { root, layers })
    }

    /// Writes the tar, up to its end.
    ///
    /// # Errors
    /// When a layer cannot be read any more, or the tar cannot be written.
    pub(crate) fn write(
        &self,
        open: OpenLayer<'_>,
        out: &mut dyn Write,
        tick: Tick<'_>,
    ) -> io::Result<()> {
        let names = self.write_names(out)?;
        let mut buffer = vec![0; BUFFER];
        for layer in 0..self.layers {
            let mut left = names.range((layer, 0)..(layer + 1, 0)).peekable();
            if left.peek().is_none() {
                continue;
            }
            let mut tar = open(layer)?;
            let mut entries = Entries::new(&mut tar);
            let mut number = 0;
            while let Some(entry) = entries.next_entry().map_err(plain)? {
                if let Some((_, (node, paths))) = left.next_if(|(at, _)| **at == (layer, number)) {
                    self.header(node, &paths[0], entry.size, out)?;
                    copy(&mut entries, &mut buffer, out, tick)?;
                    out.write_all(&[0; BLOCK][..padding(entry.size)])?;
                    for path in &paths[1..] {
                        link(node, path, &paths[0], out)?;
                    }
                }
                number += 1;
            }
            drop(entries);
            drain(&mut tar, tick)?;
        }
        for (path, number) in self.root.paths().into_iter().rev() {
            let node = self.root.node(number);
            if matches!(node.what, What::Folder(_)) {
                self.header(node, &[&path[..], b"/"].concat(), 0, out)?;
            }
        }
        out.write_all(&[0; 2 * BLOCK])
    }

    /// Writes all but files and folders. Returns the files: by layer and number of the entry, the node and its paths.
    fn write_names(&self, out: &mut dyn Write) -> io::Result<Files<'_>> {
        let mut files: Files<'_> = BTreeMap::new();
        let mut seen: BTreeMap<usize, Vec<u8>> = BTreeMap::new();
        for (path, number) in self.root.paths() {
            let node = self.root.node(number);
            match &node.what {
                What::File(at) => {
                    let known = files.entry(*at).or_insert((node, Vec::new()));
                    known.1.push(path);
                }
                What::Folder(_) => {}
                _ => match seen.get(&number) {
                    Some(first) => link(node, &path, first, out)?,
                    None => {
                        self.header(node, &path, 0, out)?;
                        seen.insert(number, path);
                    }
                },
            }
        }
        Ok(files)
    }

    fn header(&self, node: &Node, path: &[u8], size: u64, out: &mut dyn Write) -> io::Result<()> {
        let (kind, link, device) = match &node.what {
            What::Folder(_) => (b'5', &b""[..], (0, 0)),
            What::File(_) => (b'0', &b""[..], (0, 0)),
            What::Symlink(target) => (b'2', &target[..], (0, 0)),
            What::Special(Kind::Character, device) => (b'3', &b""[..], *device),
            What::Special(Kind::Block, device) => (b'4', &b""[..], *device),
            What::Special(..) => (b'6', &b""[..], (0, 0)),
        };
        write_header(
            &Header {
                path,
                kind,
                size,
                link,
                device,
                ..of(node)
            },
            out,
        )
    }
}

/// The files that are left: by layer and number of the entry, the node and its paths.
type Files<'a> = BTreeMap<(usize, usize), (&'a Node, Vec<Vec<u8>>)>;

/// A header with what is said of a node, whatever its path.
fn of(node: &Node) -> Header<'_> {
    Header {
        mode: node.mode,
        uid: node.uid,
        gid: node.gid,
        mtime: node.mtime.0,
        nanos: node.mtime.1,
        records: Some(&node.records),
        ..Header::default()
    }
}

/// Writes one more name of what has a name already.
fn link(node: &Node, path: &[u8], target: &[u8], out: &mut dyn Write) -> io::Result<()> {
    write_header(
        &Header {
            path,
            kind: b'1',
            link: target,
            ..of(node)
        },
        out,
    )
}

fn write_header(header: &Header<'_>, out: &mut dyn Write) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(BLOCK);
    header.append(&mut bytes);
    out.write_all(&bytes)
}

/// Copies the content of an entry.
fn copy(
    from: &mut dyn Read,
    buffer: &mut [u8],
    out: &mut dyn Write,
    tick: Tick<'_>,
) -> io::Result<()> {
    loop {
        let count = from.read(buffer)?;
        if count == 0 {
            return Ok(());
        }
        if !tick(count as u64) {
            return Err(io::Error::other("stopped"));
        }
        out.write_all(&buffer[..count])?;
    }
}

/// Reads what is left of a layer.
fn drain(tar: &mut dyn Read, tick: Tick<'_>) -> io::Result<()> {
    copy(tar, &mut vec![0; BUFFER], &mut io::sink(), tick)
}

/// Makes an error of reading of one of the tar's.
fn plain(error: TarError) -> io::Error {
    match error {
        TarError::Damaged(source) => source,
        error => io::Error::other(error),
    }
}

#[cfg(test)]
mod tests;
