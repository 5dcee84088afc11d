//! Records: what an action made, by its key. Small enough to live anywhere; the bytes lie apart, as blobs. And pages:
//! documents of other hosts, which are no results, with what was said about them; and last keys with their texts, by which
//! this machine tells why something runs again.

use std::fs::{self, File};
use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::{Blob, Blobs, Health, LAST, PAGES, RECORDS, Records, Store, StoreError, read};
use crate::oci::Digest;

/// The version of what records hold: of the forms of products and of values. A record of another version is none.
const VERSION: u32 = 1;

/// What an action made, or found out.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Record {
    version: u32,
    /// The blobs that it made or needs: what `gc` keeps together.
    pub blobs: Vec<Blob>,
    /// The product, in the form that the graph gives it.
    pub product: serde_json::Value,
}

impl Record {
    /// Makes a record of a product and the blobs that go with it.
    pub fn new(product: serde_json::Value, blobs: Vec<Blob>) -> Self {
        Self {
            version: VERSION,
            blobs,
            product,
        }
    }

    /// The same record, as a later version of the program would write it.
    #[cfg(test)]
    pub(super) fn of_later_version(self) -> Self {
        Self {
            version: VERSION + 1,
            ..self
        }
    }

    /// Writes the form of a record's file: the digest of its key and its text, and the text.
    pub(super) fn to_bytes(&self, key: &Digest) -> Vec<u8> {
        let text = serde_json::to_string(self).expect("a record has string keys only");
        format!("{}\n{text}", seal(key, &text)).into_bytes()
    }

    /// Reads a record's file; `None` if it is damaged, of another version, or the record of another key.
    pub(super) fn parse(key: &Digest, bytes: &[u8]) -> Option<Self> {
        let (sum, text) = std::str::from_utf8(bytes).ok()?.split_once('\n')?;
        let record: Self = serde_json::from_str(text).ok()?;
        (record.version == VERSION && sum == seal(key, text)).then_some(record)
    }
}

/// A document of another host, as it was fetched.
#[derive(Clone, PartialEq, Debug)]
pub struct Page {
    /// Its bytes.
    pub body: Blob,
    /// What was said about it: the validators by which its host tells whether it changed.
    pub about: serde_json::Value,
}

fn seal(key: &Digest, text: &str) -> String {
    Digest::of(format!("{key}\n{text}").as_bytes()).to_string()
}

/// How often a record's time of last use is written, at most.
const TOUCH: Duration = Duration::from_secs(3600);

impl Records for Store {
    fn records(&self, keys: &[Digest]) -> Result<Vec<Option<Record>>, StoreError> {
        let records = keys.iter().map(|key| self.read_record(RECORDS, key));
        records.collect()
    }

    fn put_record(&self, key: &Digest, record: &Record) -> Result<(), StoreError> {
        self.put(&self.path_by_key(RECORDS, key), &record.to_bytes(key))
    }
}

impl Store {
    pub(super) fn path_by_key(&self, bucket: &str, key: &Digest) -> std::path::PathBuf {
        let hex = key.hex();
        self.root.join(bucket).join(&hex[..2]).join(&hex)
    }

    fn read_record(&self, bucket: &str, key: &Digest) -> Result<Option<Record>, StoreError> {
        let path = self.path_by_key(bucket, key);
        let Some(bytes) = read(&path)? else {
            return Ok(None);
        };
        let _ = touch(&path);
        Ok(Record::parse(key, &bytes))
    }

    /// Returns the page that is kept under `key`, if its bytes are whole.
    ///
    /// # Errors
    /// When the cache folder cannot be read.
    pub fn page(&self, key: &Digest) -> Result<Option<Page>, StoreError> {
        let record = self.read_record(PAGES, key)?;
        let page = record.and_then(|record| match record.blobs[..] {
            [body] => Some(Page {
                body,
                about: record.product,
            }),
            _ => None,
        });
        Ok(page.filter(|page| self.check(&page.body) == Health::Whole))
    }

    /// Keeps a page under `key`. Its bytes are in the store.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn put_page(&self, key: &Digest, page: Page) -> Result<(), StoreError> {
        let record = Record::new(page.about, vec![page.body]);
        self.put(&self.path_by_key(PAGES, key), &record.to_bytes(key))
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

    /// Tells whether a key of an earlier run of what `id` names is remembered.
    pub fn has_last_key(&self, id: &Digest) -> bool {
        self.root.join(LAST).join(id.hex()).is_file()
    }

    /// Remembers the key of this run of what `id` names, with the text that `write` writes: it can be long.
    ///
    /// # Errors
    /// When the store cannot be written, or `write` fails: then nothing changes.
    pub fn put_last_key(
        &self,
        id: &Digest,
        key: &Digest,
        write: &dyn Fn(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), StoreError> {
        self.put_with(&self.root.join(LAST).join(id.hex()), &|out| {
            writeln!(out, "{key}")?;
            write(out)
        })
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
        let blob = Blob {
            digest: key,
            size: 1,
        };
        let record = Record::new(serde_json::json!({"a": 1}), vec![blob]);
        store.put_record(&key, &record).unwrap();
        assert_eq!(store.record(&key).unwrap(), Some(record));
        let path = store.path_by_key(RECORDS, &key);
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(&path, damaged).unwrap();
            assert_eq!(store.record(&key).unwrap(), None, "byte {at}");
        }
        let other = Digest::of(b"other");
        let elsewhere = store.path_by_key(RECORDS, &other);
        fs::create_dir_all(elsewhere.parent().unwrap()).unwrap();
        fs::write(elsewhere, whole).unwrap();
        assert_eq!(store.record(&other).unwrap(), None);

        let id = Digest::of(b"id");
        assert_eq!(store.last_key(&id).unwrap(), None);
        assert!(!store.is_last_key(&id, &key));
        assert!(!store.has_last_key(&id));
        let broken = |out: &mut dyn Write| {
            out.write_all(b"a\n")?;
            Err(io::Error::other("stopped"))
        };
        assert!(store.put_last_key(&id, &key, &broken).is_err());
        assert!(!store.has_last_key(&id));
        let text = |out: &mut dyn Write| out.write_all(b"a\nb\n");
        store.put_last_key(&id, &key, &text).unwrap();
        assert!(store.has_last_key(&id));
        assert!(store.is_last_key(&id, &key));
        assert!(!store.is_last_key(&id, &id));
        assert_eq!(
            store.last_key(&id).unwrap(),
            Some((key, "a\nb\n".to_owned()))
        );
    }

    #[test]
    fn a_page_is_there_as_long_as_its_bytes_are() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let key = Digest::of(b"key");
        assert_eq!(store.page(&key).unwrap(), None);
        let page = Page {
            body: store.put_blob(b"page").unwrap(),
            about: serde_json::json!({"etag": "x"}),
        };
        store.put_page(&key, page.clone()).unwrap();
        assert_eq!(store.page(&key).unwrap(), Some(page.clone()));
        assert_eq!(store.record(&key).unwrap(), None);
        fs::remove_file(store.blob_path(&page.body.digest)).unwrap();
        assert_eq!(store.page(&key).unwrap(), None);
    }
}
