//! Writes a layer: segments are read and compressed in parallel, hashed and written in order, in bounded memory.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rayon::prelude::*;

use super::compress::{GZIP_HEADER, compress, compressor_id, gzip_trailer};
use super::header::{BLOCK, pad};
use super::reuse::{SMALLEST, holds};
use super::segment::{self, Item, Segment};
use super::{Changeset, Content, ContentError, Deflated, Inflate, Placed, Reuse};
use crate::oci::{Compression, DiffId, Digest, Hasher};

/// Called with each number of tar bytes that were written; returns false to stop.
pub type Tick<'a> = &'a (dyn Fn(u64) -> bool + Sync);

/// What is known of a layer once its tar is written. Digest and size of the blob are the sink's to know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Written {
    /// The digest of the tar.
    pub diff_id: DiffId,
    /// The size of the tar in bytes.
    pub size: u64,
    /// The compressed segments that a later layer may copy, in the order of the blob.
    pub segments: Vec<Placed>,
}

/// A layer that was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A file could not be read, or changed.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// The blob could not be written.
    #[error("cannot write the layer")]
    Sink(#[source] io::Error),
    /// The tick said so.
    #[error("stopped")]
    Stopped,
}

/// How many layers are being written now in this process: they share the memory for segments in flight.
static ACTIVE: AtomicUsize = AtomicUsize::new(0);

struct Active;

impl Active {
    fn enter() -> Self {
        ACTIVE.fetch_add(1, Ordering::Relaxed);
        Self
    }

    /// How many segments to have in flight, here and now. Decides speed and memory, never bytes.
    fn segments(&self) -> usize {
        let threads = rayon::current_num_threads();
        (3 * threads / ACTIVE.load(Ordering::Relaxed).max(1)).clamp(2, 24)
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        ACTIVE.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Writes the layer that `changes` describes to `out`. What `reuse` has compressed already is copied.
///
/// Works in rounds: while one round of segments is read and compressed by the threads of the current rayon pool, the
/// round before is hashed and written. So at most two rounds are in memory, however large the layer or a file is.
///
/// # Errors
/// When a file cannot be read or changed, `out` fails, or `tick` returns false.
pub fn write(
    changes: &Changeset,
    compression: Compression,
    reuse: &dyn Reuse,
    out: &mut (dyn Write + Send),
    tick: Tick<'_>,
) -> Result<Written, WriteError> {
    let (items, starts) = segment::items(changes);
    let segments = segment::cut(&items, &starts, compression == Compression::Gzip);
    let active = Active::enter();
    let mut sequel = Sequel {
        hasher: Hasher::default(),
        size: 0,
        out,
        written: 0,
        segments: Vec::new(),
    };
    let mut slices = Slices {
        reading: None,
        items: &items,
        compression,
        reuse,
    };
    let mut ready: Vec<Ready<'_>> = Vec::new();
    let mut rest = &segments[..];
    while !rest.is_empty() {
        let (round, later) = rest.split_at(active.segments().min(rest.len()));
        rest = later;
        let (made, done) = rayon::join(
            || slices.make(round),
            || sequel.take(std::mem::take(&mut ready), tick),
        );
        done?;
        ready = made?;
    }
    sequel.take(ready, tick)?;
    Ok(Written {
        diff_id: DiffId(sequel.hasher.finish()),
        size: sequel.size,
        segments: sequel.segments,
    })
}

/// Deflated content up to this size, in bytes, is inflated in memory as a segment is; larger content is streamed.
const IN_MEMORY: u64 = 1 << 20;

/// A segment that waits for its turn to be hashed and written.
enum Ready<'a> {
    Bytes {
        tar: Vec<u8>,
        /// `None` if the tar itself is the blob.
        compressed: Option<Vec<u8>>,
        /// The key of what is worth to be found again, and the CRC-32 of its compressed bytes.
        key: Option<(Digest, u32)>,
    },
    /// A content that is passed on, too large for memory.
    Passed {
        content: &'a Content,
        member: &'a Deflated,
    },
}

impl<'a> Ready<'a> {
    /// Makes what is to be written of a segment; of its bytes, if they are known.
    fn make(
        segment: &Segment,
        bytes: Option<Vec<u8>>,
        items: &'a [Item<'a>],
        compression: Compression,
        reuse: &dyn Reuse,
    ) -> Result<Self, ContentError> {
        if let Segment::Passed { item } = segment {
            let content = items[*item].content().expect("only files are passed on");
            let member = content
                .passable()
                .expect("only deflated files are passed on");
            if content.size.max(member.length) > IN_MEMORY {
                return Ok(Self::Passed { content, member });
            }
            let mut compressed = Vec::with_capacity(member.length as usize + 18);
            pass(content, member, &mut compressed, &|| true)?
                .map_err(|source| member.unreadable(source))?;
            return Ok(Self::Bytes {
                tar: segment.bytes(items)?,
                compressed: Some(compressed),
                key: None,
            });
        }
        let tar = match bytes {
            Some(bytes) => bytes,
            None => segment.bytes(items)?,
        };
        if compression == Compression::None {
            return Ok(Self::Bytes {
                tar,
                compressed: None,
                key: None,
            });
        }
        let key = match tar.len() < SMALLEST {
            true => None,
            false => segment.key(items, compressor_id(compression)),
        };
        let found = key.and_then(|key| reuse.find(&key));
        let found = found.filter(|found| holds(compression, found, &tar));
        let compressed = found.unwrap_or_else(|| compress(compression, &tar));
        Ok(Self::Bytes {
            key: key.map(|key| (key, libdeflater::crc32(&compressed))),
            compressed: Some(compressed),
            tar,
        })
    }
}

/// Writes a deflated content as a gzip member, as far as `go_on` lets it. Fails on the outside if the content cannot be
/// read, on the inside if it cannot be written.
fn pass(
    content: &Content,
    member: &Deflated,
    out: &mut (dyn Write + Send),
    go_on: &dyn Fn() -> bool,
) -> Result<io::Result<()>, ContentError> {
    let mut raw = member.open_raw()?;
    let mut piece = Vec::new();
    let mut written = out.write_all(&GZIP_HEADER);
    while written.is_ok() && go_on() {
        raw.next(&mut piece)
            .map_err(|source| member.unreadable(source))?;
        if piece.is_empty() {
            written = out.write_all(&gzip_trailer(member.crc, content.size));
            break;
        }
        written = out.write_all(&piece);
    }
    Ok(written)
}

/// Makes segments, round by round; remembers how far a large deflated content is inflated, which has only one way to be
/// read.
struct Slices<'a> {
    reading: Option<(usize, u64, Inflate<'a>)>,
    items: &'a [Item<'a>],
    compression: Compression,
    reuse: &'a dyn Reuse,
}

impl<'a> Slices<'a> {
    fn make(&mut self, round: &[Segment]) -> Result<Vec<Ready<'a>>, ContentError> {
        let known = round
            .iter()
            .map(|segment| self.slice(segment))
            .collect::<Result<Vec<Option<Vec<u8>>>, ContentError>>()?;
        let Self {
            items,
            compression,
            reuse,
            ..
        } = *self;
        round
            .par_iter()
            .zip(known)
            .map(|(segment, bytes)| Ready::make(segment, bytes, items, compression, reuse))
            .collect()
    }

    /// Inflates the bytes of a segment that is a slice of a deflated content.
    fn slice(&mut self, segment: &Segment) -> Result<Option<Vec<u8>>, ContentError> {
        let Segment::Slice {
            item,
            offset,
            length,
        } = *segment
        else {
            return Ok(None);
        };
        let Some(content) = self.items[item].content() else {
            return Ok(None);
        };
        let Some(member) = content.passable() else {
            return Ok(None);
        };
        let mut inflate = match self.reading.take() {
            Some((same, at, inflate)) if (same, at) == (item, offset) => inflate,
            _ if offset == 0 => member.open(content.size)?,
            _ => return Ok(None),
        };
        let mut bytes = Vec::with_capacity(length + BLOCK);
        inflate.append(&mut bytes, length)?;
        let end = offset + length as u64;
        match end == content.size {
            true => pad(&mut bytes, content.size),
            false => self.reading = Some((item, end, inflate)),
        }
        Ok(Some(bytes))
    }
}

/// What happens to segments in order.
struct Sequel<'a> {
    hasher: Hasher,
    size: u64,
    out: &'a mut (dyn Write + Send),
    /// How many bytes the blob has so far.
    written: u64,
    segments: Vec<Placed>,
}

impl Sequel<'_> {
    /// Hashes the tar on one thread, writes (and so hashes) the blob on another.
    fn take(&mut self, round: Vec<Ready<'_>>, tick: Tick<'_>) -> Result<(), WriteError> {
        let Self {
            hasher, size, out, ..
        } = self;
        let stopped = AtomicBool::new(false);
        let (hashed, written) = rayon::join(
            || {
                let hashed = hash(&round, hasher, tick);
                stopped.store(hashed.is_err(), Ordering::Relaxed);
                hashed
            },
            || write_round(&round, *out, &|| !stopped.load(Ordering::Relaxed)),
        );
        // A damaged member is one to both; what the first of them says about it is said.
        *size += hashed?;
        written?;
        self.place(&round);
        Ok(())
    }

    /// Notes where the segments of a round came to lie.
    fn place(&mut self, round: &[Ready<'_>]) {
        for ready in round {
            let length = match ready {
                Ready::Bytes {
                    tar,
                    compressed,
                    key,
                } => {
                    let length = compressed.as_ref().unwrap_or(tar).len();
                    if let (Some((key, crc)), Ok(length)) = (*key, u32::try_from(length)) {
                        self.segments.push(Placed {
                            key,
                            offset: self.written,
                            length,
                            crc,
                        });
                    }
                    length as u64
                }
                // A member's header and trailer, and the stream as it is.
                Ready::Passed { member, .. } => GZIP_HEADER.len() as u64 + member.length + 8,
            };
            self.written += length;
        }
    }
}

/// Hashes the tar of a round; returns its size in bytes.
fn hash(round: &[Ready<'_>], hasher: &mut Hasher, tick: Tick<'_>) -> Result<u64, WriteError> {
    let told = |bytes: u64| match tick(bytes) {
        true => Ok(()),
        false => Err(WriteError::Stopped),
    };
    let (mut size, mut untold) = (0, 0);
    for ready in round {
        match ready {
            Ready::Bytes { tar, .. } => {
                hasher.update(tar);
                size += tar.len() as u64;
                untold += tar.len() as u64;
            }
            Ready::Passed { content, member } => {
                told(std::mem::take(&mut untold))?;
                let mut inflate = member.open(content.size)?;
                let (mut now, mut next) = (Vec::new(), Vec::new());
                inflate.append(&mut now, IN_MEMORY as usize)?;
                while !now.is_empty() {
                    next.clear();
                    let (inflated, ()) = rayon::join(
                        || inflate.append(&mut next, IN_MEMORY as usize),
                        || hasher.update(&now),
                    );
                    inflated?;
                    told(now.len() as u64)?;
                    std::mem::swap(&mut now, &mut next);
                }
                size += content.size;
            }
        }
    }
    told(untold)?;
    Ok(size)
}

/// Writes the blob's part of a round.
fn write_round(
    round: &[Ready<'_>],
    out: &mut (dyn Write + Send),
    go_on: &dyn Fn() -> bool,
) -> Result<(), WriteError> {
    for ready in round {
        match ready {
            Ready::Bytes {
                tar, compressed, ..
            } => out.write_all(compressed.as_ref().unwrap_or(tar)),
            Ready::Passed { content, member } => pass(content, member, out, go_on)?,
        }
        .map_err(WriteError::Sink)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{Anew, Attrs, Content, Entry, Facts, Kind, LayerPath, Owner, Tree, resolve};
    use super::*;
    use std::sync::Arc;

    fn changes() -> Changeset {
        let mut tree = Tree::default();
        for n in 0..300usize {
            let bytes: Vec<u8> = (0..n * 331).map(|i| (i * n % 251) as u8).collect();
            let attrs = Attrs {
                mode: 0o644,
                owner: Owner::default(),
            };
            let kind = Kind::File {
                attrs,
                content: Content::bytes(bytes),
            };
            tree.insert(
                LayerPath::parse(&format!("d{}/f{n}", n % 7)).unwrap(),
                Entry::new(kind),
            )
            .unwrap();
        }
        resolve(&[Arc::new(tree)], &Facts::default()).unwrap()
    }

    #[test]
    fn threads_do_not_change_bytes() {
        let changes = changes();
        for compression in [Compression::Gzip, Compression::Zstd, Compression::None] {
            let with = |threads| {
                let pool = rayon::ThreadPoolBuilder::new()
                    .num_threads(threads)
                    .build()
                    .unwrap();
                let mut out = Vec::new();
                let written = pool
                    .install(|| write(&changes, compression, &Anew, &mut out, &|_| true))
                    .unwrap();
                (out, written)
            };
            let (one, sixteen) = (with(1), with(16));
            assert_eq!(one.1, sixteen.1);
            assert!(one.0 == sixteen.0);
        }
    }

    /// Files that lie deflated in archives, the same files in memory, and the folder that holds the archives.
    fn deflated() -> (Changeset, Changeset, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let (mut raw, mut plain) = (Tree::default(), Tree::default());
        let sizes = [
            1,
            65_535,
            65_536,
            65_537,
            1 << 20,
            (1 << 20) + 1,
            5_000_000,
            100,
        ];
        for (n, size) in sizes.into_iter().enumerate() {
            let bytes: Vec<u8> = (0..size)
                .map(|i: u32| (i.wrapping_mul(i) >> 11) as u8)
                .collect();
            let name = format!("f{n}");
            let content = super::super::deflated::tests::deflated(folder.path(), &name, &bytes);
            for (tree, content) in [(&mut raw, content), (&mut plain, Content::bytes(bytes))] {
                let attrs = Attrs {
                    mode: 0o644,
                    owner: Owner::default(),
                };
                tree.insert(
                    LayerPath::parse(&name).unwrap(),
                    Entry::new(Kind::File { attrs, content }),
                )
                .unwrap();
            }
        }
        let changes = |tree| resolve(&[Arc::new(tree)], &Facts::default()).unwrap();
        (changes(raw), changes(plain), folder)
    }

    fn written(changes: &Changeset, compression: Compression) -> (Vec<u8>, Written) {
        let mut out = Vec::new();
        let written = write(changes, compression, &Anew, &mut out, &|_| true).unwrap();
        (out, written)
    }

    #[test]
    fn deflated_members_are_passed_on_to_gzip() {
        use std::io::Read;
        let (raw, plain, folder) = deflated();
        let (blob, facts) = written(&raw, Compression::Gzip);
        let (tar, plain_facts) = written(&plain, Compression::None);
        assert_eq!(
            (facts.diff_id, facts.size),
            (plain_facts.diff_id, plain_facts.size)
        );
        let mut inflated = Vec::new();
        flate2::read::MultiGzDecoder::new(&blob[..])
            .read_to_end(&mut inflated)
            .unwrap();
        assert!(inflated == tar);
        for n in 0..8 {
            let file = std::fs::read(folder.path().join(format!("f{n}"))).unwrap();
            let stream = &file[6..file.len() - 5];
            let mut member = GZIP_HEADER.to_vec();
            member.extend_from_slice(stream);
            let found = blob.windows(member.len()).any(|it| it == member);
            assert_eq!(found, (2..7).contains(&n), "f{n}");
        }
    }

    #[test]
    fn deflated_members_are_as_others_without_gzip() {
        let (raw, plain, _folder) = deflated();
        for compression in [Compression::Zstd, Compression::None] {
            assert!(written(&raw, compression) == written(&plain, compression));
        }
    }

    #[test]
    fn threads_do_not_change_passed_bytes() {
        let (raw, _, _folder) = deflated();
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            pool.unwrap().install(|| written(&raw, Compression::Gzip))
        };
        assert!(with(1) == with(16));
    }

    #[test]
    fn damage_is_found_while_writing() {
        let (raw, _, folder) = deflated();
        for n in [0, 3, 6] {
            let path = folder.path().join(format!("f{n}"));
            let good = std::fs::read(&path).unwrap();
            let mut bad = good.clone();
            let middle = bad.len() / 2;
            bad[middle] ^= 0x55;
            std::fs::write(&path, bad).unwrap();
            for compression in [Compression::Gzip, Compression::Zstd, Compression::None] {
                let error =
                    write(&raw, compression, &Anew, &mut Vec::new(), &|_| true).unwrap_err();
                let WriteError::Content(ContentError::Damaged { member, .. }) = error else {
                    panic!("{error}");
                };
                assert_eq!(member, format!("f{n}"));
            }
            std::fs::write(&path, good).unwrap();
        }
    }

    #[test]
    fn stops_within_a_large_member() {
        let (raw, _, _folder) = deflated();
        let calls = AtomicUsize::new(0);
        let tick = |_| calls.fetch_add(1, Ordering::Relaxed) < 2;
        let result = write(&raw, Compression::Gzip, &Anew, &mut Vec::new(), &tick);
        assert!(matches!(result, Err(WriteError::Stopped)));
    }

    /// Gives the segments of one layer, and counts how many were taken; may lie.
    struct One {
        blob: Vec<u8>,
        segments: Vec<Placed>,
        found: AtomicUsize,
        lie: fn(&mut Vec<u8>),
    }

    impl Reuse for One {
        fn find(&self, key: &Digest) -> Option<Vec<u8>> {
            let placed = self.segments.iter().find(|it| it.key == *key)?;
            let mut bytes = self.blob[placed.offset as usize..][..placed.length as usize].to_vec();
            assert!(placed.fits(&bytes));
            (self.lie)(&mut bytes);
            self.found.fetch_add(1, Ordering::Relaxed);
            Some(bytes)
        }
    }

    /// Some 3 MB in files and one large one; `changed` is another content of one of them.
    fn many(changed: u8) -> Changeset {
        let mut tree = Tree::default();
        for n in 0..200u32 {
            let size = if n == 150 { 3 << 20 } else { 8000 };
            let byte = if n == 100 { changed } else { 0 };
            let bytes: Vec<u8> = (0..size).map(|i| (i * n / 7) as u8 ^ byte).collect();
            let attrs = Attrs {
                mode: 0o644,
                owner: Owner::default(),
            };
            let content = Content::bytes(bytes);
            let path = LayerPath::parse(&format!("f{n:03}")).unwrap();
            tree.insert(path, Entry::new(Kind::File { attrs, content }))
                .unwrap();
        }
        resolve(&[Arc::new(tree)], &Facts::default()).unwrap()
    }

    #[test]
    fn segments_of_earlier_layers_are_copied_and_liars_cost_work_only() {
        let lies: [fn(&mut Vec<u8>); 4] = [
            |_| {},
            |bytes| bytes.truncate(bytes.len() / 2),
            |bytes| bytes.clear(),
            |bytes| *bytes = super::compress(Compression::Gzip, b"something else"),
        ];
        for compression in [Compression::Gzip, Compression::Zstd] {
            let mut blob = Vec::new();
            let before = write(&many(1), compression, &Anew, &mut blob, &|_| true).unwrap();
            let (expected, facts) = written(&many(2), compression);
            for lie in lies {
                let one = One {
                    blob: blob.clone(),
                    segments: before.segments.clone(),
                    found: AtomicUsize::new(0),
                    lie,
                };
                let mut out = Vec::new();
                let after = write(&many(2), compression, &one, &mut out, &|_| true).unwrap();
                assert!(out == expected);
                assert_eq!(after, facts);
                let (found, all) = (one.found.into_inner(), after.segments.len());
                assert!(found == all - 1, "{found} of {all}");
            }
        }
    }

    #[test]
    fn stops_when_told() {
        let result = write(
            &changes(),
            Compression::None,
            &Anew,
            &mut Vec::new(),
            &|_| false,
        );
        assert!(matches!(result, Err(WriteError::Stopped)));
    }
}
