//! Cuts a layer into segments. The cuts depend on the entries alone: never on threads, caches or how fast anything is.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::changeset::{Changeset, Folder};
use super::header::{self, Header};
use super::{Content, ContentError, Entry, Kind, LayerPath};
use crate::oci::{Digest, Hasher};
use crate::tar::BLOCK;

/// A segment that holds this many bytes after an entry ends there; larger files are cut every so many bytes.
const FULL: usize = 1 << 20;
/// A segment may end early, where a path says so, once it holds this many bytes.
const EARLY: usize = 64 << 10;

/// One header of the tar, and the content that follows it.
pub(super) enum Item<'a> {
    Folder(&'a LayerPath, &'a Folder),
    Whiteout(&'a LayerPath, &'a str),
    Entry(&'a LayerPath, &'a Entry),
}

/// A piece of the tar that is compressed on its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Segment {
    /// Some items with their contents; without the last one's if it is `open`: that follows in slices, or is passed on.
    Items {
        /// The padding of a content that was passed on, in bytes.
        lead: usize,
        range: Range<usize>,
        open: bool,
        size: usize,
    },
    /// The content of a file that is deflated already, and is passed on as it is. Its padding leads the next segment.
    Passed { item: usize },
    /// A slice of the content of a large file; the last one has the padding.
    Slice {
        item: usize,
        offset: u64,
        length: usize,
    },
    /// The two zero blocks that end the archive.
    End,
}

/// Lists the items of a layer in order, with where each part begins: folders and whiteouts first, then part by part.
pub(super) fn items(changes: &Changeset) -> (Vec<Item<'_>>, Vec<usize>) {
    let mut items = Vec::new();
    let whiteouts = |folder: &LayerPath| {
        let found = changes.whiteouts.get_key_value(folder);
        found
            .into_iter()
            .flat_map(|(folder, names)| names.iter().map(move |name| Item::Whiteout(folder, name)))
    };
    items.extend(whiteouts(&LayerPath::root()));
    for (path, folder) in &changes.folders {
        items.push(Item::Folder(path, folder));
        items.extend(whiteouts(path));
    }
    let mut starts = Vec::new();
    for part in &changes.parts {
        starts.push(items.len());
        items.extend(ordered(part).map(|(path, entry)| Item::Entry(path, entry)));
    }
    (items, starts)
}

/// The entries of a part in order: by path, but hard links last, so that each follows its file.
fn ordered(part: &BTreeMap<LayerPath, Arc<Entry>>) -> impl Iterator<Item = (&LayerPath, &Entry)> {
    let is_link = |entry: &Entry| matches!(entry.kind, Kind::Hardlink { .. });
    let all = || part.iter().map(|(path, entry)| (path, &**entry));
    all()
        .filter(move |(_, entry)| !is_link(entry))
        .chain(all().filter(move |(_, entry)| is_link(entry)))
}

impl Item<'_> {
    pub(super) fn content(&self) -> Option<&Content> {
        match self {
            Item::Entry(
                _,
                Entry {
                    kind: Kind::File { content, .. },
                    ..
                },
            ) => Some(content),
            _ => None,
        }
    }

    /// Appends the header's blocks.
    fn header(&self, out: &mut Vec<u8>) {
        match self {
            Item::Folder(path, folder) => Header {
                path: format!("{}/", path.as_str()).as_bytes(),
                kind: b'5',
                mode: folder.attrs.mode,
                uid: folder.attrs.owner.uid.into(),
                gid: folder.attrs.owner.gid.into(),
                mtime: folder.mtime,
                ..Header::default()
            }
            .append(out),
            Item::Whiteout(folder, name) => Header {
                path: folder.child(name).as_str().as_bytes(),
                kind: b'0',
                mode: 0o644,
                ..Header::default()
            }
            .append(out),
            Item::Entry(path, entry) => {
                let (kind, mode, owner, size, link) = match &entry.kind {
                    Kind::File { attrs, content } => {
                        (b'0', attrs.mode, attrs.owner, content.size, "")
                    }
                    Kind::Hardlink { target, attrs } => {
                        (b'1', attrs.mode, attrs.owner, 0, target.as_str())
                    }
                    Kind::Symlink { target, owner } => (b'2', 0o777, *owner, 0, target.as_str()),
                    Kind::Folder { .. } => {
                        unreachable!("folders of a changeset are not among its parts")
                    }
                };
                Header {
                    path: path.as_str().as_bytes(),
                    kind,
                    mode,
                    uid: owner.uid.into(),
                    gid: owner.gid.into(),
                    size,
                    mtime: entry.mtime,
                    link: link.as_bytes(),
                    xattrs: entry.xattrs.as_deref(),
                    ..Header::default()
                }
                .append(out);
            }
        }
    }

    /// Tells whether the path is one of the one in sixteen after which a segment may end early.
    fn is_cut(&self) -> bool {
        let hash = match self {
            Item::Folder(path, _) | Item::Entry(path, _) => Digest::of(path.as_str().as_bytes()),
            Item::Whiteout(folder, name) => Digest::of(folder.child(name).as_str().as_bytes()),
        };
        hash.bytes()[0] < 16
    }
}

/// Cuts `items` into segments; a part begins at each of `starts`. `passing` says whether deflated contents are passed on.
pub(super) fn cut(items: &[Item<'_>], starts: &[usize], passing: bool) -> Vec<Segment> {
    let mut cutter = Cutter::default();
    let mut scratch = Vec::new();
    let mut starts = starts.iter().copied().peekable();
    for (index, item) in items.iter().enumerate() {
        while starts.next_if(|&start| start <= index).is_some() {
            cutter.close(index, false);
        }
        scratch.clear();
        item.header(&mut scratch);
        cutter.size += scratch.len();
        let size = item.content().map_or(0, |content| content.size);
        if passing && item.content().and_then(Content::passable).is_some() {
            cutter.close(index + 1, true);
            cutter.segments.push(Segment::Passed { item: index });
            cutter.lead = header::padding(size);
            cutter.size = cutter.lead;
            continue;
        }
        if size > FULL as u64 {
            cutter.close(index + 1, true);
            for offset in (0..size).step_by(FULL) {
                let length = (size - offset).min(FULL as u64) as usize;
                cutter.segments.push(Segment::Slice {
                    item: index,
                    offset,
                    length,
                });
            }
            continue;
        }
        cutter.size += size as usize + header::padding(size);
        if cutter.size >= FULL || (cutter.size >= EARLY && item.is_cut()) {
            cutter.close(index + 1, false);
        }
    }
    cutter.close(items.len(), false);
    cutter.segments.push(Segment::End);
    cutter.segments
}

/// The segments so far, and the one that is being filled.
#[derive(Default)]
struct Cutter {
    segments: Vec<Segment>,
    lead: usize,
    first: usize,
    size: usize,
}

impl Cutter {
    /// Ends the present segment before the item `end`.
    fn close(&mut self, end: usize, open: bool) {
        if self.size > 0 {
            self.segments.push(Segment::Items {
                lead: self.lead,
                range: self.first..end,
                open,
                size: self.size,
            });
        }
        (self.lead, self.first, self.size) = (0, end, 0);
    }
}

impl Segment {
    /// Names what the segment's bytes are made of, and how they are compressed, without reading a content. `None` for
    /// what is not worth a name: the end, and what is passed on.
    pub(super) fn key(&self, items: &[Item<'_>], compressor: &str) -> Option<Digest> {
        let mut hasher = Hasher::default();
        hasher.update(format!("segment 1 {compressor}\n").as_bytes());
        match self {
            Segment::End | Segment::Passed { .. } => return None,
            Segment::Slice {
                item,
                offset,
                length,
            } => {
                let content = items[*item].content()?;
                hasher.update(content.digest.bytes());
                for number in [content.size, *offset, *length as u64] {
                    hasher.update(&number.to_le_bytes());
                }
            }
            Segment::Items {
                lead, range, open, ..
            } => {
                let mut header = Vec::new();
                for index in range.clone() {
                    let is_open = *open && index + 1 == range.end;
                    header.clear();
                    items[index].header(&mut header);
                    hasher.update(&[u8::from(is_open)]);
                    hasher.update(&(header.len() as u64).to_le_bytes());
                    hasher.update(&header);
                    if let Some(content) = items[index].content().filter(|_| !is_open) {
                        hasher.update(content.digest.bytes());
                    }
                }
                hasher.update(&(*lead as u64).to_le_bytes());
            }
        }
        Some(hasher.finish())
    }

    /// Reads the segment's bytes of the tar.
    pub(super) fn bytes(&self, items: &[Item<'_>]) -> Result<Vec<u8>, ContentError> {
        match self {
            Segment::End => Ok(vec![0; 2 * BLOCK]),
            Segment::Slice {
                item,
                offset,
                length,
            } => {
                let content = items[*item]
                    .content()
                    .expect("only files are cut into slices");
                let mut out = Vec::with_capacity(length + BLOCK);
                content.append(&mut out, *offset, *length)?;
                if offset + *length as u64 == content.size {
                    header::pad(&mut out, content.size);
                }
                Ok(out)
            }
            Segment::Passed { item } => {
                let content = items[*item].content().expect("only files are passed on");
                let mut out = Vec::new();
                content.append(&mut out, 0, content.size as usize)?;
                Ok(out)
            }
            Segment::Items {
                lead,
                range,
                open,
                size,
            } => {
                let mut out = Vec::with_capacity(*size);
                out.resize(*lead, 0);
                for index in range.clone() {
                    let item = &items[index];
                    item.header(&mut out);
                    let Some(content) = item.content() else {
                        continue;
                    };
                    if *open && index + 1 == range.end {
                        continue;
                    }
                    if content.size > 0 {
                        content.append(&mut out, 0, content.size as usize)?;
                        header::pad(&mut out, content.size);
                    }
                }
                Ok(out)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Attrs, Facts, Owner, Tree, resolve};
    use super::*;

    fn changes(files: &[(String, usize)]) -> Changeset {
        let mut tree = Tree::default();
        let attrs = Attrs {
            mode: 0o644,
            owner: Owner::default(),
        };
        for (path, size) in files {
            let content = Content::bytes(vec![b'x'; *size]);
            let kind = Kind::File { attrs, content };
            tree.insert(LayerPath::parse(path).unwrap(), Entry::new(kind))
                .unwrap();
        }
        resolve(&[Arc::new(tree)], &Facts::default()).unwrap()
    }

    fn sizes(files: &[(&str, usize)]) -> Vec<usize> {
        let files: Vec<_> = files
            .iter()
            .map(|(path, size)| ((*path).to_owned(), *size))
            .collect();
        let changes = changes(&files);
        let (items, starts) = items(&changes);
        cut(&items, &starts, false)
            .iter()
            .map(|segment| segment.bytes(&items).unwrap().len())
            .collect()
    }

    #[test]
    fn an_empty_layer_is_its_end() {
        assert_eq!(sizes(&[]), [1024]);
    }

    #[test]
    fn folders_are_a_part_of_their_own() {
        assert_eq!(sizes(&[("a/b", 1)]), [512, 1024, 1024]);
    }

    #[test]
    fn cuts_at_1_mib() {
        // The content of a file of exactly 1 MiB stays with its header, and fills the segment.
        assert_eq!(sizes(&[("a", FULL), ("b", 1)]), [512 + FULL, 1024, 1024]);
        // A file one byte larger is cut: header, 1 MiB, the last byte with its padding.
        assert_eq!(
            sizes(&[("a", FULL + 1), ("b", 1)]),
            [512, FULL, 512, 1024, 1024]
        );
        assert_eq!(
            sizes(&[("a", 2 * FULL), ("b", 1)]),
            [512, FULL, FULL, 1024, 1024]
        );
        // A segment that just misses 1 MiB takes the next entry too.
        assert_eq!(
            sizes(&[("a", FULL - 1024), ("b", 1)]),
            [FULL - 512 + 1024, 1024]
        );
        assert_eq!(sizes(&[("a", FULL - 512), ("b", 1)]), [FULL, 1024, 1024]);
    }

    #[test]
    fn a_deflated_content_is_a_segment_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let mut tree = Tree::default();
        for (name, size) in [("a", 100), ("b", 70_000), ("c", 65_535), ("d", 65_536)] {
            let bytes = vec![b'x'; size];
            let content = super::super::deflated::tests::deflated(folder.path(), name, &bytes);
            let attrs = Attrs {
                mode: 0o644,
                owner: Owner::default(),
            };
            let kind = Kind::File { attrs, content };
            tree.insert(LayerPath::parse(name).unwrap(), Entry::new(kind))
                .unwrap();
        }
        let changes = resolve(&[Arc::new(tree)], &Facts::default()).unwrap();
        let (items, starts) = items(&changes);
        let sizes = |passing| -> Vec<usize> {
            cut(&items, &starts, passing)
                .iter()
                .map(|segment| segment.bytes(&items).unwrap().len())
                .collect()
        };
        let lead = header::padding(70_000);
        let c = 512 + 65_536;
        assert_eq!(
            sizes(true),
            [1024 + 512, 70_000, lead + c + 512, 65_536, 1024]
        );
        assert_eq!(
            sizes(false),
            [1024 + 512 + 70_000 + lead + c + 512 + 65_536, 1024]
        );
    }

    #[test]
    fn adding_a_file_moves_few_cuts() {
        let files: Vec<(String, usize)> =
            (0..2000).map(|n| (format!("file-{n:04}"), 8000)).collect();
        let blobs = |files: &[(String, usize)]| -> Vec<Vec<u8>> {
            let changes = changes(files);
            let (items, starts) = items(&changes);
            cut(&items, &starts, false)
                .iter()
                .map(|segment| segment.bytes(&items).unwrap())
                .collect()
        };
        let before = blobs(&files);
        let mut more = files.clone();
        more.insert(1000, ("file-0999-new".to_owned(), 8000));
        let after = blobs(&more);
        let kept = after
            .iter()
            .filter(|segment| before.contains(segment))
            .count();
        assert!(kept >= after.len() - 2, "{kept} of {}", after.len());
        assert!(after.len() > 30, "{}", after.len());
    }
}
