//! What is remembered: records of products under keys of actions, and values of parts under keys of their own. All of it is
//! looked up and kept here, so that it is one place that knows where from.

use std::sync::{Mutex, MutexGuard};

use super::event::PartSeen;
use crate::graph::{ActionError, ActionKey, Part, Parts, Product};
use crate::store::{Blob, Blobs, Health, Record, Records, Store};

/// Where a graph's results are looked up and kept.
#[derive(Clone, Copy)]
pub(crate) struct Caches<'a> {
    /// The records of what actions made.
    pub(crate) records: &'a dyn Records,
    /// The bytes that they name.
    pub(crate) blobs: &'a dyn Blobs,
    /// What belongs to this machine: locks, last keys, and what actions keep there.
    pub(crate) folder: &'a Store,
}

impl<'a> Caches<'a> {
    /// All of it in one folder.
    pub(crate) fn of(folder: &'a Store) -> Self {
        Self {
            records: folder,
            blobs: folder,
            folder,
        }
    }

    /// Remembers in them.
    pub(super) fn memory(&self) -> Memory<'a> {
        Memory::new(self.records, self.blobs)
    }
}

/// What a cache remembers.
pub(crate) struct Memory<'a> {
    records: &'a dyn Records,
    blobs: &'a dyn Blobs,
    seen: Mutex<Seen>,
}

/// What an action asked of the cache.
#[derive(Default)]
pub(super) struct Seen {
    /// The parts that were looked up or kept, in order.
    pub(super) parts: Vec<PartSeen>,
    /// The blobs that were to be read, and are gone or damaged.
    pub(super) lost: Vec<Blob>,
}

/// What became of a look-up of a product.
pub(super) enum Found {
    /// It is recorded, and what outputs need of it is there.
    Product(Box<Product>),
    /// It is not recorded, or blobs that outputs need are gone.
    Nothing,
    /// Its record, or a blob that outputs need, is damaged: in words.
    Damaged(String),
}

impl<'a> Memory<'a> {
    /// Remembers by records, whose blobs are elsewhere or in the same cache.
    pub(crate) fn new(records: &'a dyn Records, blobs: &'a dyn Blobs) -> Self {
        Self {
            records,
            blobs,
            seen: Mutex::default(),
        }
    }

    /// Returns what was asked.
    pub(super) fn seen(self) -> Seen {
        let seen = self.seen.into_inner();
        seen.unwrap_or_else(|poison| poison.into_inner())
    }

    fn see(&self) -> MutexGuard<'_, Seen> {
        let seen = self.seen.lock();
        seen.unwrap_or_else(|poison| poison.into_inner())
    }

    fn note(&self, part: &dyn Part, key: ActionKey, found_out: Option<String>) {
        let name = part.name();
        self.see().parts.push(PartSeen {
            name,
            key,
            found_out,
        });
    }

    /// Looks a product up; `needed` names the blobs that have to be there.
    pub(super) fn product(
        &self,
        key: ActionKey,
        needed: &dyn Fn(&Product) -> Vec<Blob>,
    ) -> Result<Found, ActionError> {
        let Some(record) = self.records.record(&key.0)? else {
            return Ok(Found::Nothing);
        };
        let Some(product) = Product::from_value(record.product) else {
            return Ok(Found::Damaged("its record in the cache is damaged".into()));
        };
        let needed = needed(&product);
        for (blob, health) in needed.iter().zip(self.blobs.check_all(&needed)) {
            match health {
                Health::Whole => {}
                Health::Missing => return Ok(Found::Nothing),
                Health::Damaged => {
                    let what = format!("the blob {} in the cache is damaged", blob.digest);
                    return Ok(Found::Damaged(what));
                }
            }
        }
        Ok(Found::Product(Box::new(product)))
    }

    /// Records what an action made, if it can be recorded.
    pub(super) fn put_product(&self, key: ActionKey, product: &Product) -> Result<(), ActionError> {
        match product.to_record() {
            Some(record) => Ok(self.records.put_record(&key.0, &record)?),
            None => Ok(()),
        }
    }
}

impl Parts for Memory<'_> {
    fn find(&self, part: &dyn Part) -> Result<Option<serde_json::Value>, ActionError> {
        let key = part.key();
        let record = self.records.record(&key.0)?;
        let is_whole = |health: Health| health == Health::Whole;
        let record = record.filter(|record| {
            let healths = self.blobs.check_all(&record.blobs);
            healths.into_iter().all(is_whole)
        });
        if record.is_some() {
            self.note(part, key, None);
        }
        Ok(record.map(|record| record.product))
    }

    fn put(
        &self,
        part: &dyn Part,
        value: serde_json::Value,
        blobs: Vec<Blob>,
    ) -> Result<(), ActionError> {
        let key = part.key();
        self.note(part, key, Some(part.key_text()));
        Ok(self
            .records
            .put_record(&key.0, &Record::new(value, blobs))?)
    }

    fn lost(&self, blob: &Blob) {
        self.see().lost.push(*blob);
    }
}
