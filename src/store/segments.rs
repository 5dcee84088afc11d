//! Where the compressed segments of layers lie: a map for each layer's blob, so that a later layer can copy them.
//!
//! A map is worth its layer's compressing, and nothing more: one that is lost, damaged or wrong costs work, never bytes.
//! Knows nothing of what a segment is.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, OnceLock, RwLock};

use super::{Blob, Blobs, Health, SEGMENTS, Store, StoreError, read};
use crate::oci::Digest;

/// A piece of a blob, under a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// What it is found by.
    pub key: Digest,
    /// Where it starts in the blob, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub length: u32,
    /// The CRC-32 of its bytes.
    pub crc: u32,
}

const MAGIC: &[u8; 8] = b"imgsegm1";
/// Magic, checksum, digest and size of the blob.
const HEAD: usize = 8 + 32 + 32 + 8;
/// A row: key, offset, length, CRC.
const ROW: usize = 32 + 8 + 4 + 4;

/// How many bytes of maps are looked through, the newest first.
const MAX_BYTES: u64 = 128 << 20;

/// The maps of a store, read when the first segment is looked for.
#[derive(Default)]
pub(super) struct Maps(OnceLock<RwLock<Vec<Arc<Map>>>>);

/// The map of one blob.
struct Map {
    blob: Blob,
    /// Rows, sorted by key.
    rows: Vec<u8>,
    /// The blob, opened and checked when it is first needed; `None` where it is gone or damaged.
    file: OnceLock<Option<File>>,
}

impl Store {
    /// Returns the bytes of a piece that `key` names, out of a blob that the store has, and where they are from.
    pub fn piece(&self, key: &Digest) -> Option<(Piece, Vec<u8>)> {
        let maps = self.maps().read().ok()?;
        maps.iter().rev().find_map(|map| {
            let piece = map.find(key)?;
            let file = map.file.get_or_init(|| {
                let is_whole = self.check(&map.blob) == Health::Whole;
                // Each piece has a CRC of its own.
                let path = self.blob_path(&map.blob.digest);
                is_whole.then(|| File::open(path).ok()).flatten()
            });
            // A map that points out of its blob lies.
            let end = piece.offset.checked_add(u64::from(piece.length))?;
            let file = file.as_ref().filter(|_| end <= map.blob.size)?;
            let mut bytes = vec![0; piece.length as usize];
            file.read_exact_at(&mut bytes, piece.offset).ok()?;
            Some((piece, bytes))
        })
    }

    /// Remembers where the pieces of a blob are.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn put_pieces(&self, blob: &Blob, pieces: Vec<Piece>) -> Result<(), StoreError> {
        if pieces.is_empty() {
            return Ok(());
        }
        let map = Map::new(*blob, pieces);
        let path = self.root.join(SEGMENTS).join(blob.digest.hex());
        self.put(&path, &map.to_bytes())?;
        if let Ok(mut maps) = self.maps().write() {
            maps.push(Arc::new(map));
        }
        Ok(())
    }

    fn maps(&self) -> &RwLock<Vec<Arc<Map>>> {
        self.maps.0.get_or_init(|| RwLock::new(self.read_maps()))
    }

    /// Reads the maps, the newest last. One that is damaged is removed: it would be read again each time.
    fn read_maps(&self) -> Vec<Arc<Map>> {
        let mut files = super::gc::walk(&self.root.join(SEGMENTS)).unwrap_or_default();
        files.sort_by_key(|file| (file.modified, file.path.clone()));
        let mut total = 0;
        let mut maps = Vec::new();
        for file in files.iter().rev() {
            total += file.size;
            if total > MAX_BYTES {
                break;
            }
            match load(&file.path) {
                Some(map) => maps.push(Arc::new(map)),
                None => {
                    let _ = std::fs::remove_file(&file.path);
                }
            }
        }
        maps.reverse();
        maps
    }
}

/// Reads a map; `None` if it is damaged, or the map of another blob than its name says.
fn load(path: &Path) -> Option<Map> {
    let name = Digest::from_hex(path.file_name()?.to_str()?).ok()?;
    let map = Map::parse(&read(path).ok()??)?;
    (map.blob.digest == name).then_some(map)
}

/// Tells which blob a map is of; `None` if it is damaged.
pub(super) fn blob_of(path: &Path) -> Option<Blob> {
    Some(load(path)?.blob)
}

impl Map {
    fn new(blob: Blob, mut pieces: Vec<Piece>) -> Self {
        pieces.sort_by_key(|piece| piece.key);
        let mut rows = Vec::with_capacity(pieces.len() * ROW);
        for piece in pieces {
            rows.extend_from_slice(piece.key.bytes());
            rows.extend_from_slice(&piece.offset.to_le_bytes());
            rows.extend_from_slice(&piece.length.to_le_bytes());
            rows.extend_from_slice(&piece.crc.to_le_bytes());
        }
        Self {
            blob,
            rows,
            file: OnceLock::new(),
        }
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD + self.rows.len());
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(self.sum().bytes());
        out.extend_from_slice(self.blob.digest.bytes());
        out.extend_from_slice(&self.blob.size.to_le_bytes());
        out.extend_from_slice(&self.rows);
        out
    }

    fn sum(&self) -> Digest {
        let mut hasher = crate::oci::Hasher::default();
        hasher.update(self.blob.digest.bytes());
        hasher.update(&self.blob.size.to_le_bytes());
        hasher.update(&self.rows);
        hasher.finish()
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(MAGIC)?;
        let (sum, rest) = rest.split_first_chunk::<32>()?;
        let (digest, rest) = rest.split_first_chunk::<32>()?;
        let (size, rows) = rest.split_first_chunk::<8>()?;
        let map = Self {
            blob: Blob {
                digest: Digest::from_bytes(*digest),
                size: u64::from_le_bytes(*size),
            },
            rows: rows.to_vec(),
            file: OnceLock::new(),
        };
        let is_sound = rows.len() % ROW == 0 && map.sum().bytes() == sum;
        is_sound.then_some(map)
    }

    fn find(&self, key: &Digest) -> Option<Piece> {
        let (rows, []) = self.rows.as_chunks::<ROW>() else {
            return None;
        };
        let index = rows
            .binary_search_by(|row| row[..32].cmp(key.bytes()))
            .ok()?;
        let (_, rest) = rows[index].split_first_chunk::<32>()?;
        let (offset, rest) = rest.split_first_chunk::<8>()?;
        let (length, crc) = rest.split_first_chunk::<4>()?;
        Some(Piece {
            key: *key,
            offset: u64::from_le_bytes(*offset),
            length: u32::from_le_bytes(*length),
            crc: u32::from_le_bytes(crc.try_into().ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(count: u32) -> Vec<Piece> {
        let piece = |number: u32| Piece {
            key: Digest::of(&number.to_le_bytes()),
            offset: u64::from(number) * 10,
            length: 10,
            crc: number,
        };
        (0..count).map(piece).collect()
    }

    fn store_with(bytes: &[u8]) -> (tempfile::TempDir, Blob) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let blob = store.put_blob(bytes).unwrap();
        store.put_pieces(&blob, pieces(50)).unwrap();
        (folder, blob)
    }

    #[test]
    fn pieces_are_found_also_by_the_next_process() {
        let bytes: Vec<u8> = (0..500).map(|n: u32| n as u8).collect();
        let (folder, _) = store_with(&bytes);
        let store = Store::open(folder.path()).unwrap();
        for (number, piece) in pieces(50).into_iter().enumerate() {
            let found = store.piece(&piece.key).unwrap();
            assert_eq!(found, (piece, bytes[number * 10..][..10].to_vec()));
        }
        assert!(store.piece(&Digest::of(b"other")).is_none());
    }

    #[test]
    fn a_map_of_a_blob_that_is_gone_finds_nothing_and_gc_removes_it() {
        let (folder, blob) = store_with(&[7; 500]);
        let map = folder.path().join(SEGMENTS).join(blob.digest.hex());
        std::fs::remove_file(Store::open(folder.path()).unwrap().blob_path(&blob.digest)).unwrap();
        let store = Store::open(folder.path()).unwrap();
        assert!(store.piece(&pieces(1)[0].key).is_none());
        assert!(map.exists());
        drop(store);
        Store::open_alone(folder.path())
            .unwrap()
            .gc(1 << 30)
            .unwrap();
        assert!(!map.exists());
    }

    #[test]
    fn a_map_that_points_out_of_its_blob_finds_nothing() {
        let (folder, blob) = store_with(&[7; 495]);
        let store = Store::open(folder.path()).unwrap();
        assert!(store.piece(&pieces(50)[48].key).is_some());
        assert!(store.piece(&pieces(50)[49].key).is_none());
        assert_eq!(blob.size, 495);
    }

    #[test]
    fn damaged_maps_are_removed() {
        for damage in [0, 9, 50, 75, 100, 2000] {
            let (folder, blob) = store_with(&[7; 500]);
            let path = folder.path().join(SEGMENTS).join(blob.digest.hex());
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[damage] ^= 1;
            std::fs::write(&path, &bytes[..]).unwrap();
            let store = Store::open(folder.path()).unwrap();
            assert!(store.piece(&pieces(1)[0].key).is_none(), "{damage}");
            assert!(!path.exists());
        }
    }
}
