//! What is in a layer: its entries and sizes, each digest checked.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use crate::graph::Stop;
use crate::oci::{DiffId, Digest, Hasher};
use crate::source::{LayerReader, Piece, Sizes, SourceError};
use crate::tar::{self, Entries, Entry, Kind, TarError};
use crate::work::Failed;

/// What is in a layer.
pub(crate) struct Contents {
    pub(crate) sizes: Sizes,
    /// The entries in the order of the tar.
    pub(crate) entries: Vec<Listed>,
}

/// An entry of a layer. Layers have hundreds of thousands: it is as small as it can be.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    /// The path, as it is written.
    pub(crate) path: Box<[u8]>,
    /// The size of the content, in bytes.
    pub(crate) size: u64,
    /// The owner.
    pub(crate) uid: u64,
    /// The owner's group.
    pub(crate) gid: u64,
    /// Seconds since 1970, which may be negative, and nanoseconds after them.
    pub(crate) mtime: (i64, u32),
    /// The mode: permissions, set-id and sticky bits.
    pub(crate) mode: u32,
    /// What it is.
    pub(crate) kind: Kind,
    /// What it leads to, which file the device is, and records of its own.
    more: Option<Box<More>>,
    /// The names of its owner, which many entries share.
    names: Arc<Names>,
    /// The digest of the content of a file, if that was wanted.
    pub(crate) digest: Option<Digest>,
}

/// What few entries have.
#[derive(Clone, Debug, Default)]
struct More {
    link: Option<Box<[u8]>>,
    device: Option<(u32, u32)>,
    records: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// The names of an owner and of a group, which may be empty.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(in crate::work) struct Names {
    user: Vec<u8>,
    group: Vec<u8>,
}

impl Listed {
    /// Returns what a symlink or hard link points to, as it is written.
    pub(crate) fn link(&self) -> Option<&[u8]> {
        self.more.as_ref()?.link.as_deref()
    }

    /// Returns major and minor number of a device.
    pub(crate) fn device(&self) -> Option<(u32, u32)> {
        self.more.as_ref()?.device
    }

    /// Returns the PAX records, but those that say path, link and size, and those of sparse files.
    pub(crate) fn records(&self) -> &BTreeMap<Vec<u8>, Vec<u8>> {
        static NONE: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        self.more.as_ref().map_or(&NONE, |more| &more.records)
    }

    /// Returns the name of the owner, which may be empty.
    pub(crate) fn user(&self) -> &[u8] {
        &self.names.user
    }

    /// Returns the name of the owner's group, which may be empty.
    pub(crate) fn group(&self) -> &[u8] {
        &self.names.group
    }

    /// Keeps what is listed of an entry. `names` are those of the entry before.
    pub(in crate::work) fn of(
        entry: Entry,
        digest: Option<Digest>,
        names: &mut Arc<Names>,
    ) -> Self {
        let own = Names {
            user: entry.user,
            group: entry.group,
        };
        if own != **names {
            *names = Arc::new(own);
        }
        let more = More {
            link: entry.link.map(Vec::into_boxed_slice),
            device: entry.device,
            records: entry.records,
        };
        let is_plain = more.link.is_none() && more.device.is_none() && more.records.is_empty();
        Self {
            path: entry.path.into_boxed_slice(),
            size: entry.size,
            uid: entry.uid,
            gid: entry.gid,
            mtime: entry.mtime,
            mode: entry.mode,
            kind: entry.kind,
            more: (!is_plain).then(|| Box::new(more)),
            names: names.clone(),
            digest,
        }
    }
}

/// How much memory the entries of an image may take that are held at once, in bytes: a small layer may list millions.
const BUDGET: usize = 1 << 30;

/// The memory that is left for entries.
pub(in crate::work) struct Budget(usize);

impl Default for Budget {
    fn default() -> Self {
        Self(BUDGET)
    }
}

impl Budget {
    fn take(&mut self, entry: &Entry) -> io::Result<()> {
        let records = entry.records.iter();
        let records: usize = records.map(|(key, value)| key.len() + value.len()).sum();
        let names = entry.path.len() + entry.link.as_ref().map_or(0, Vec::len);
        let cost = size_of::<Listed>() + 2 * (names + records) + 64;
        self.0 = self.0.checked_sub(cost).ok_or_else(|| {
            io::Error::other(format!(
                "its entries would take more than {BUDGET} bytes of memory"
            ))
        })?;
        Ok(())
    }
}

/// Opens a layer, to be read as long as `go_on` says so.
pub(in crate::work) fn open<'a>(
    piece: &'a Piece,
    go_on: &'a dyn Fn() -> bool,
) -> Result<LayerReader<'a>, Failed> {
    let reader = piece.open_layer();
    let reader = reader.map_err(|error| unreadable(error, go_on))?;
    Ok(reader.while_true(go_on))
}

impl Contents {
    /// Reads a layer, and checks it. `with_digests` says whether contents are hashed.
    pub(in crate::work) fn read(
        stop: &Stop,
        piece: &Piece,
        diff_id: DiffId,
        with_digests: bool,
        budget: &mut Budget,
    ) -> Result<Self, Failed> {
        let go_on = || !stop.is_asked();
        let mut reader = open(piece, &go_on)?;
        let listed = list(&mut Entries::new(&mut reader), with_digests, budget);
        // A wrong digest says more than the damage that it made.
        let sizes = reader.finish(Some(diff_id));
        let sizes = sizes.map_err(|error| unreadable(error, &go_on))?;
        let entries = listed.map_err(|error| no_tar(&piece.what, &error, &go_on))?;
        Ok(Self { sizes, entries })
    }
}

/// Lists the entries of a layer. The reader stops when the user does.
fn list<I: tar::Input>(
    tar: &mut Entries<I>,
    with_digests: bool,
    budget: &mut Budget,
) -> Result<Vec<Listed>, TarError> {
    let (mut entries, mut names) = (Vec::new(), Arc::default());
    while let Some(entry) = tar.next_entry()? {
        let digest = match with_digests && entry.kind == Kind::File {
            true => {
                let mut hasher = Hasher::default();
                io::copy(tar, &mut hasher)?;
                Some(hasher.finish())
            }
            false => None,
        };
        budget.take(&entry)?;
        entries.push(Listed::of(entry, digest, &mut names));
    }
    Ok(entries)
}

/// Says why a layer cannot be read.
fn unreadable(error: SourceError, go_on: &dyn Fn() -> bool) -> Failed {
    match go_on() {
        true => Failed::from(error),
        false => Failed::Stopped,
    }
}

/// Says why a layer is no tar.
fn no_tar(what: &str, error: &TarError, go_on: &dyn Fn() -> bool) -> Failed {
    if !go_on() {
        return Failed::Stopped;
    }
    let cause = crate::graph::ActionError::of("imgdecl::image::damaged", error);
    let causes: Vec<String> = cause.causes.iter().map(|it| format!(": {it}")).collect();
    let message = format!(
        "{what} cannot be read as a layer: {error}{}",
        causes.concat()
    );
    let help = "the image is damaged: get it again from where it came";
    Failed::build("imgdecl::image::damaged", &message, Some(help.into()))
}
