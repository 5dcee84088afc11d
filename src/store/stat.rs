//! Remembers the digest of host files by their stamp, so that a file that did not change is not read again.
//!
//! One file of the cache per folder of the host: sorted rows behind a checksum. A file that cannot be read as such
//! counts as empty.

use std::hash::{DefaultHasher, Hasher};

use super::{STATS, Store, StoreError, read};
use crate::oci::Digest;

/// One remembered file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stat {
    /// The path below the folder.
    pub path: Box<str>,
    /// What `stat` said when the digest was taken, in the order that the caller chose.
    pub stamp: [i64; 5],
    /// The digest of the content.
    pub digest: Digest,
}

/// The remembered files of one folder, sorted by path.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Stats(pub Vec<Stat>);

const MAGIC: &[u8; 8] = b"imgstat1";

impl Store {
    /// Returns what is remembered of the folder that `id` names.
    pub fn stats(&self, id: &Digest) -> Stats {
        let bytes = read(&self.root.join(STATS).join(id.hex())).ok().flatten();
        bytes
            .and_then(|bytes| Stats::parse(&bytes))
            .unwrap_or_default()
    }

    /// Remembers the files of the folder that `id` names.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn put_stats(&self, id: &Digest, stats: &Stats) -> Result<(), StoreError> {
        self.put(&self.root.join(STATS).join(id.hex()), &stats.to_bytes())
    }
}

impl Stats {
    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(
            16 + self
                .0
                .iter()
                .map(|stat| stat.path.len() + 76)
                .sum::<usize>(),
        );
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&[0; 8]);
        for Stat {
            path,
            stamp,
            digest,
        } in &self.0
        {
            out.extend_from_slice(&(path.len() as u32).to_le_bytes());
            out.extend_from_slice(path.as_bytes());
            stamp
                .iter()
                .for_each(|field| out.extend_from_slice(&field.to_le_bytes()));
            out.extend_from_slice(digest.bytes());
        }
        let sum = checksum(&out[16..]);
        out[8..16].copy_from_slice(&sum.to_le_bytes());
        out
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (magic, rest) = bytes.split_at_checked(8)?;
        let (sum, mut rest) = rest.split_first_chunk::<8>()?;
        if magic != MAGIC || u64::from_le_bytes(*sum) != checksum(rest) {
            return None;
        }
        let mut stats = Vec::new();
        while !rest.is_empty() {
            let (length, tail) = rest.split_first_chunk::<4>()?;
            let (path, mut tail) = tail.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            let mut stamp = [0; 5];
            for field in &mut stamp {
                let (bytes, after) = tail.split_first_chunk::<8>()?;
                (*field, tail) = (i64::from_le_bytes(*bytes), after);
            }
            let (digest, after) = tail.split_first_chunk::<32>()?;
            rest = after;
            stats.push(Stat {
                path: std::str::from_utf8(path).ok()?.into(),
                stamp,
                digest: Digest::from_bytes(*digest),
            });
        }
        Some(Self(stats))
    }
}

/// Finds damage, not malice. A change of the standard library's hash makes the old files count as empty.
fn checksum(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_damage() {
        let stats = Stats(vec![
            Stat {
                path: "a".into(),
                stamp: [1, -2, 3, 4, 5],
                digest: Digest::of(b"a"),
            },
            Stat {
                path: "b/é".into(),
                stamp: [0; 5],
                digest: Digest::of(b"b"),
            },
        ]);
        let bytes = stats.to_bytes();
        assert_eq!(Stats::parse(&bytes), Some(stats));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(Stats::parse(&damaged), None, "byte {at}");
            assert_eq!(Stats::parse(&bytes[..at]), None);
        }
    }
}
