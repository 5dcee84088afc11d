//! Recorded parts of actions: values that an action finds out, and that are remembered under keys of their own.
//!
//! A product is recorded under its action's key. Some of what an action finds out holds for more than that: what a tree
//! uses of the facts below holds for each base with the same facts. Such a value is a part. Its key is made as an
//! action's is, and whoever runs the action looks it up and keeps it: an action knows no cache of its own.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{ActionError, ActionKey, HashKey, KeyWriter, TextKey, key};
use crate::store::Blob;

/// What a remembered value is of.
pub trait Part {
    /// Returns the part's name, as `stack`.
    fn name(&self) -> &'static str;

    /// Returns the version of how the value is found out. A change that finds another value raises it.
    fn version(&self) -> u32 {
        1
    }

    /// Adds all that decides the value.
    fn parameters(&self, key: &mut dyn KeyWriter);
}

impl dyn Part + '_ {
    /// Returns the key.
    pub fn key(&self) -> ActionKey {
        let mut key = HashKey::default();
        key::write_part(self, &mut key);
        key.finish()
    }

    /// Returns the text of the key.
    pub fn key_text(&self) -> String {
        let mut text = Vec::new();
        key::write_part(self, &mut TextKey::new(&mut text));
        String::from_utf8(text).expect("it is written as text")
    }
}

/// Where parts are looked up and kept.
pub trait Parts: Sync {
    /// Returns the value of a part, if it is remembered and the blobs that were kept with it are whole.
    ///
    /// # Errors
    /// When the cache cannot be read.
    fn find(&self, part: &dyn Part) -> Result<Option<serde_json::Value>, ActionError>;

    /// Remembers the value of a part. As long as it is, the blobs are not collected.
    ///
    /// # Errors
    /// When the cache cannot be written.
    fn put(
        &self,
        part: &dyn Part,
        value: serde_json::Value,
        blobs: Vec<Blob>,
    ) -> Result<(), ActionError>;

    /// Takes note that a blob of an input was to be read, and is gone or damaged. The action fails then; whoever runs it has
    /// the blob made again, and runs it once more.
    fn lost(&self, blob: &Blob);
}

impl dyn Parts + '_ {
    /// Returns the value of a part, if it is remembered.
    ///
    /// # Errors
    /// As [`Parts::find`].
    pub fn known<V: DeserializeOwned>(&self, part: &dyn Part) -> Result<Option<V>, ActionError> {
        let value = self.find(part)?;
        Ok(value.and_then(|value| serde_json::from_value(value).ok()))
    }

    /// Remembers the value of a part, and the blobs without which it is of no use.
    ///
    /// # Errors
    /// As [`Parts::put`].
    pub fn keep<V: Serialize>(
        &self,
        part: &dyn Part,
        value: &V,
        blobs: Vec<Blob>,
    ) -> Result<(), ActionError> {
        let value = serde_json::to_value(value).expect("values of parts have string keys only");
        self.put(part, value, blobs)
    }

    /// Returns the value of a part that names no blobs: the remembered one, or what `make` finds out.
    ///
    /// # Errors
    /// When it cannot be looked up, found out or remembered.
    pub fn recorded<V: Serialize + DeserializeOwned>(
        &self,
        part: &dyn Part,
        make: impl FnOnce() -> Result<V, ActionError>,
    ) -> Result<V, ActionError> {
        if let Some(known) = self.known(part)? {
            return Ok(known);
        }
        let made = make()?;
        self.keep(part, &made, Vec::new())?;
        Ok(made)
    }
}

/// Remembers nothing.
#[cfg(test)]
pub(crate) struct Forgetful;

#[cfg(test)]
impl Parts for Forgetful {
    fn find(&self, _: &dyn Part) -> Result<Option<serde_json::Value>, ActionError> {
        Ok(None)
    }

    fn put(&self, _: &dyn Part, _: serde_json::Value, _: Vec<Blob>) -> Result<(), ActionError> {
        Ok(())
    }

    fn lost(&self, _: &Blob) {}
}
