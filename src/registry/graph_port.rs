//! The client behind the port of the graph: its errors become those of actions.

use super::{Client, RegistryError};
use crate::graph::{ActionError, Failure, Registry};
use crate::oci::{Descriptor, Reference};
use crate::store::Store;

impl Registry for Client {
    fn resolve(&self, reference: &Reference) -> Result<Descriptor, ActionError> {
        Ok(Self::resolve(self, reference)?)
    }

    fn manifest(&self, reference: &Reference) -> Result<(Descriptor, Vec<u8>), ActionError> {
        Ok(Self::manifest(self, reference)?)
    }

    fn document(
        &self,
        repository: &Reference,
        descriptor: &Descriptor,
    ) -> Result<Vec<u8>, ActionError> {
        Ok(Self::document(self, repository, descriptor)?)
    }

    fn pull(
        &self,
        repository: &Reference,
        blobs: &[Descriptor],
        store: &Store,
    ) -> Result<(), ActionError> {
        Ok(Self::pull(self, repository, blobs, store)?)
    }
}

impl From<RegistryError> for ActionError {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::Stopped => return Self::stopped(),
            RegistryError::Store(error) => return Self::from(&*error),
            RegistryError::Several(all) => {
                // The first one speaks for all, with the others behind it.
                let mut all = all.into_iter();
                let mut first = all.next().map(Self::from).unwrap_or_else(Self::stopped);
                first.causes.extend(all.map(|error| error.to_string()));
                return first;
            }
            _ => {}
        }
        Self {
            failure: Failure::Remote,
            help: error.help(),
            ..Self::of(error.code(), &error)
        }
    }
}
