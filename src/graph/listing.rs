//! The listing of a tree as a document in the store: all but the contents, which lie in one file beside it.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};

use crate::layer::{Attrs, Container, Content, Deflated, Entry, Kind, LayerPath, Owner};
use crate::layer::{Source, Tree};
use crate::oci::Digest;
use crate::store::{Blob, Blobs, StoreError};

/// Writes the listing of a tree whose contents lie in memory or in one file: a blob with all of them, or an archive.
///
/// # Errors
/// When the store cannot be written.
pub(super) fn put(tree: &Tree, store: &dyn Blobs) -> Result<Blob, StoreError> {
    let mut out = BufWriter::new(store.writer()?);
    let entries = tree.entries().iter();
    let saved = entries.map(|(path, entry)| SavedEntry::of(path, entry));
    // One by one: all of them would take several times what the tree does.
    let written = serde_json::Serializer::new(&mut out).collect_seq(saved);
    let flushed = written.map_err(io::Error::from).and_then(|()| out.flush());
    flushed.map_err(|error| store.unwritable(error))?;
    let writer = out.into_inner();
    writer
        .map_err(|error| store.unwritable(error.into_error()))?
        .complete()
}

/// Reads a tree whose contents lie in `container`; `None` if the listing is damaged.
pub(super) fn parse(listing: &[u8], container: Container) -> Option<Tree> {
    let saved: Vec<SavedEntry> = serde_json::from_slice(listing).ok()?;
    let path: Arc<Path> = container.path.as_path().into();
    let container = Arc::new(container);
    let entries = saved
        .into_iter()
        .map(|entry| entry.load(&path, &container))
        .collect::<Option<Vec<_>>>();
    Tree::from_sorted(entries?).ok()
}

/// One entry.
#[derive(Serialize, Deserialize)]
struct SavedEntry {
    path: String,
    kind: char,
    mode: u16,
    uid: u32,
    gid: u32,
    mtime: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    link: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content: Option<SavedContent>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    xattrs: BTreeMap<String, Vec<u8>>,
}

#[derive(Serialize, Deserialize)]
struct SavedContent {
    size: u64,
    digest: Digest,
    source: SavedSource,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum SavedSource {
    /// Where the content starts in the file.
    At(u64),
    /// Where the stream starts, and how long it is; the member's CRC-32 and name.
    Deflated(u64, u64, u32, String),
    /// A text that is in no file.
    Text(String),
    Bytes(Vec<u8>),
}

impl SavedContent {
    fn of(content: &Content) -> Self {
        let source = match &content.source {
            Source::Range { offset, .. } => SavedSource::At(*offset),
            Source::Deflated(member) => {
                let name = member.member.to_string();
                SavedSource::Deflated(member.offset, member.length, member.crc, name)
            }
            Source::Bytes(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => SavedSource::Text(text.to_owned()),
                Err(_) => SavedSource::Bytes(bytes.to_vec()),
            },
            Source::Host { .. } => unreachable!("files of the host are not kept"),
        };
        Self {
            size: content.size,
            digest: content.digest,
            source,
        }
    }

    fn load(self, path: &Arc<Path>, container: &Arc<Container>) -> Option<Content> {
        let source = match self.source {
            SavedSource::At(offset) => Source::Range {
                path: path.clone(),
                offset,
            },
            SavedSource::Deflated(offset, length, crc, member) => {
                Source::Deflated(Box::new(Deflated {
                    container: container.clone(),
                    member: member.into(),
                    offset,
                    length,
                    crc,
                }))
            }
            SavedSource::Text(text) => return Some(Content::bytes(text.into_bytes())),
            SavedSource::Bytes(bytes) => return Some(Content::bytes(bytes)),
        };
        Some(Content {
            size: self.size,
            digest: self.digest,
            source,
        })
    }
}

impl SavedEntry {
    fn of(path: &LayerPath, entry: &Entry) -> Self {
        let (kind, attrs, link, content) = match &entry.kind {
            Kind::Folder { attrs, firm: true } => ('D', *attrs, None, None),
            Kind::Folder { attrs, firm: false } => ('d', *attrs, None, None),
            Kind::File { attrs, content } => ('f', *attrs, None, Some(SavedContent::of(content))),
            Kind::Symlink { target, owner } => (
                's',
                Attrs {
                    mode: 0o777,
                    owner: *owner,
                },
                Some(target.clone()),
                None,
            ),
            Kind::Hardlink { target, attrs } => ('h', *attrs, Some(target.to_string()), None),
        };
        Self {
            path: path.to_string(),
            kind,
            mode: attrs.mode,
            uid: attrs.owner.uid,
            gid: attrs.owner.gid,
            mtime: entry.mtime,
            link,
            content,
            xattrs: entry.xattrs.as_deref().cloned().unwrap_or_default(),
        }
    }

    fn load(self, path: &Arc<Path>, container: &Arc<Container>) -> Option<(LayerPath, Arc<Entry>)> {
        let owner = Owner {
            uid: self.uid,
            gid: self.gid,
        };
        let attrs = Attrs {
            mode: self.mode,
            owner,
        };
        let kind = match self.kind {
            'D' | 'd' => Kind::Folder {
                attrs,
                firm: self.kind == 'D',
            },
            'f' => Kind::File {
                attrs,
                content: self.content?.load(path, container)?,
            },
            's' => Kind::Symlink {
                target: self.link?,
                owner,
            },
            'h' => Kind::Hardlink {
                target: LayerPath::parse(&self.link?).ok()?,
                attrs,
            },
            _ => return None,
        };
        let mut entry = Entry {
            mtime: self.mtime,
            ..Entry::new(kind)
        };
        entry.set_xattrs(self.xattrs);
        Some((LayerPath::parse(&self.path).ok()?, Arc::new(entry)))
    }
}
