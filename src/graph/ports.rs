//! The ports through which actions and rules reach the network. Who is behind them is on a higher floor.

use std::any::Any;
use std::sync::Arc;

use super::{ActionError, Failure, Runner};
use crate::oci::{Descriptor, Reference};
use crate::store::{Blob, Blobs as _, Health, Store};

/// The network, as actions see it.
#[derive(Clone, Copy)]
pub struct Ports<'a> {
    /// The registries.
    pub registry: &'a dyn Registry,
    /// Where packages come from.
    pub sources: &'a Sources,
    /// What runs commands in images.
    pub runner: &'a dyn Runner,
}

impl Ports<'_> {
    /// The ports of a build that opens no socket.
    pub const OFFLINE: Ports<'static> = Ports {
        registry: &Offline,
        sources: &Sources(Vec::new()),
        runner: &Offline,
    };
}

/// The ports of ecosystems, each by its own trait: who hands them on need not know it. A file beside this one has the trait of
/// an ecosystem, what answers where nobody is behind it, and the method of [`Ports`] that finds it.
#[derive(Default)]
pub struct Sources(Vec<Box<dyn Any + Send + Sync>>);

impl Sources {
    /// Adds the port of a trait.
    pub(crate) fn add<T: ?Sized + Send + Sync + 'static>(&mut self, port: Arc<T>) {
        self.0.push(Box::new(port));
    }

    /// Returns the port of a trait, if there is one.
    pub(crate) fn get<T: ?Sized + Send + Sync + 'static>(&self) -> Option<&T> {
        let port = self.0.iter().find_map(|it| it.downcast_ref::<Arc<T>>());
        port.map(|it| &**it)
    }
}

/// Registries of images (OCI distribution spec). All that comes from them is checked before it is returned.
pub trait Registry: Sync {
    /// Finds the manifest or index that a reference names.
    ///
    /// # Errors
    /// When there is none, or the registry cannot be asked.
    fn resolve(&self, reference: &Reference) -> Result<Descriptor, ActionError>;

    /// Fetches the manifest or index that a reference names.
    ///
    /// # Errors
    /// When there is none, it is not what the reference's digest says, or the registry cannot be asked.
    fn manifest(&self, reference: &Reference) -> Result<(Descriptor, Vec<u8>), ActionError>;

    /// Fetches a small blob, such as a config, of a repository.
    ///
    /// # Errors
    /// When it is not there, or not what the descriptor says.
    fn document(
        &self,
        repository: &Reference,
        descriptor: &Descriptor,
    ) -> Result<Vec<u8>, ActionError>;

    /// Fetches those blobs of a repository that the store lacks.
    ///
    /// # Errors
    /// When one of them is not there, not what its descriptor says, or cannot be stored.
    fn pull(
        &self,
        repository: &Reference,
        blobs: &[Descriptor],
        store: &Store,
    ) -> Result<(), ActionError>;
}

/// Answers everything with an error: for builds without a network.
pub(super) struct Offline;

impl Offline {
    pub(super) fn refuse<T>(&self, what: String) -> Result<T, ActionError> {
        let error = ActionError::new(ActionError::OFFLINE, format!("{what} is not in the cache"))
            .help("run this once without `--offline`");
        Err(ActionError {
            failure: Failure::Remote,
            ..error
        })
    }
}

impl Registry for Offline {
    fn resolve(&self, reference: &Reference) -> Result<Descriptor, ActionError> {
        self.refuse(format!("what {reference} names"))
    }

    fn manifest(&self, reference: &Reference) -> Result<(Descriptor, Vec<u8>), ActionError> {
        self.refuse(reference.to_string())
    }

    fn document(
        &self,
        repository: &Reference,
        descriptor: &Descriptor,
    ) -> Result<Vec<u8>, ActionError> {
        self.refuse(format!(
            "the blob {} of {}",
            descriptor.digest,
            repository.name()
        ))
    }

    fn pull(
        &self,
        repository: &Reference,
        blobs: &[Descriptor],
        store: &Store,
    ) -> Result<(), ActionError> {
        let wanted: Vec<Blob> = blobs.iter().map(Blob::from).collect();
        let healths = store.check_all(&wanted).into_iter();
        let missing = healths.filter(|it| *it != Health::Whole).count();
        match missing {
            0 => Ok(()),
            _ => self.refuse(format!("{missing} of the layers of {}", repository.name())),
        }
    }
}
