//! Records: what an action made, by its key. Small enough to live anywhere; the bytes lie apart, as blobs.

use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::{Blob, LAST, RECORDS, Store, StoreError, read};
use crate::oci::Digest;

/// What an action made.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// The blobs that it made or needs: what `gc` keeps together.
    pub blobs: Vec<Blob>,
    /// The product, in the form that the graph gives it.
    pub product: serde_json::Value,
}

impl Record {
    /// Writes the form of a record's file: the digest of its key and its text, and the text.
    fn to_bytes(&self, key: &Digest) -> Vec<u8> {
        let text = serde_json::to_string(self).expect("a record has string keys only");
        format!("{}\n{text}", seal(key, &text)).into_bytes()
    }

    /// Reads a record's file; `None` if it is damaged, or is the record of another key.
    pub(super) fn parse(key: &Digest, bytes: &[u8]) -> Option<Self> {
        let (sum, text) = std::str::from_utf8(bytes).ok()?.split_once('\n')?;
        let record = serde_json::from_str(text).ok()?;
        (sum == seal(key, text)).then_some(record)
    }
}

fn seal(key: &Digest, text: &str) -> String {
    Digest::of(format!("{key}\n{text}").as_bytes()).to_string()
}

/// How often a record's time of last use is written, at most.
const TOUCH: Duration = Duration::from_secs(3600);

impl Store {
    fn record_path(&self, key: &Digest) -> std::path::PathBuf {
        let hex = key.hex();
        self.root.join(RECORDS).join(&hex[..2]).join(&hex)
    }

    /// Returns the record under `key`. One that cannot be read as such counts as absent.
    ///
    /// # Errors
    /// When the cache folder cannot be read.
    pub fn record(&self, key: &Digest) -> Result<Option<Record>, StoreError> {
        let path = self.record_path(key);
        let Some(bytes) = read(&path)? else {
            return Ok(None);
        };
        let _ = touch(&path);
        Ok(Record::parse(key, &bytes))
    }

    /// Stores a record under `key`.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn put_record(&self, key: &Digest, record: &Record) -> Result<(), StoreError> {
        self.put(&self.record_path(key), &record.to_bytes(key))
    }

    /// Returns the small value that is remembered under `key`: something that is quicker to look up than to find out.
    ///
    /// # Errors
    /// When the cache folder cannot be read.
    pub fn memo(&self, key: &Digest) -> Result<Option<serde_json::Value>, StoreError> {
        Ok(self.record(key)?.map(|record| record.product))
    }

    /// Remembers a small value under `key`.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn put_memo(&self, key: &Digest, value: serde_json::Value) -> Result<(), StoreError> {
        let blobs = Vec::new();
        self.put_record(
            key,
            &Record {
                blobs,
                product: value,
            },
        )
    }

    /// Returns the key of the last run of what `id` names, and the text of that key.
    ///
    /// # Errors
    /// When the cache folder cannot be read.
    pub fn last_key(&self, id: &Digest) -> Result<Option<(Digest, String)>, StoreError> {
        let Some(bytes) = read(&self.root.join(LAST).join(id.hex()))? else {
            return Ok(None);
        };
        let text = String::from_utf8_lossy(&bytes);
        let found = text
            .split_once('\n')
            .and_then(|(key, text)| Some((key.parse().ok()?, text.to_owned())));
        Ok(found)
    }

    /// Tells whether the last run of what `id` names had this key, without reading the key's text.
    pub fn is_last_key(&self, id: &Digest, key: &Digest) -> bool {
        use std::io::Read as _;
        let mut start = Vec::new();
        let path = self.root.join(LAST).join(id.hex());
        let text = key.to_string();
        let read =
            File::open(path).and_then(|file| file.take(text.len() as u64).read_to_end(&mut start));
        read.is_ok() && start == text.as_bytes()
    }

    /// Remembers the key of this run of what `id` names.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn put_last_key(&self, id: &Digest, key: &Digest, text: &str) -> Result<(), StoreError> {
        self.put(
            &self.root.join(LAST).join(id.hex()),
            format!("{key}\n{text}").as_bytes(),
        )
    }
}

/// Remembers that a record was used, for `gc`.
fn touch(path: &std::path::Path) -> std::io::Result<()> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the time of last use decides what gc removes first, never a byte"
    )]
    let now = SystemTime::now();
    if now
        .duration_since(fs::metadata(path)?.modified()?)
        .is_ok_and(|age| age > TOUCH)
    {
        File::options().append(true).open(path)?.set_modified(now)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_and_last_keys() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let key = Digest::of(b"key");
        assert_eq!(store.record(&key).unwrap(), None);
        let record = Record {
            blobs: vec![Blob {
                digest: key,
                size: 1,
            }],
            product: serde_json::json!({"a": 1}),
        };
        store.put_record(&key, &record).unwrap();
        assert_eq!(store.record(&key).unwrap(), Some(record));
        let path = store.record_path(&key);
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(&path, damaged).unwrap();
            assert_eq!(store.record(&key).unwrap(), None, "byte {at}");
        }
        let other = Digest::of(b"other");
        fs::create_dir_all(store.record_path(&other).parent().unwrap()).unwrap();
        fs::write(store.record_path(&other), whole).unwrap();
        assert_eq!(store.record(&other).unwrap(), None);

        let id = Digest::of(b"id");
        assert_eq!(store.last_key(&id).unwrap(), None);
        assert!(!store.is_last_key(&id, &key));
        store.put_last_key(&id, &key, "a\nb\n").unwrap();
        assert!(store.is_last_key(&id, &key));
        assert!(!store.is_last_key(&id, &id));
        assert_eq!(
            store.last_key(&id).unwrap(),
            Some((key, "a\nb\n".to_owned()))
        );
    }
}
