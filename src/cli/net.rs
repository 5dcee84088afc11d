//! How the commands reach registries and package indexes: by clients, or not at all.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::environment::{config_file, places, proxies};
use super::exit::Exit;
use super::index::{Chosen, indexes};
use super::setup::{Setup as Workspace, usage};
use super::{CANCEL, args, report};
use crate::graph::Ports;
use crate::index::Indexes;
use crate::registry::{Client, Config, Credentials, Limits, Setup};
use crate::store::Store;
use crate::ui::Progress;

/// The network, or none.
pub(super) struct Net {
    client: Option<Client>,
    indexes: Option<Indexes>,
}

impl Net {
    /// The network as the user set it up. Nothing is opened yet.
    pub(super) fn new(args: &args::Net, progress: &Arc<Progress>) -> Result<Self, Exit> {
        let file = config_file();
        if let Some((path, true)) = &file
            && !path.exists()
        {
            let message = format!("there is no {}, which IMGDECL_CONFIG names", path.display());
            return Err(usage("imgdecl::config::unreadable", &message, None));
        }
        let config = file.map(|(path, _)| Config::load(&path)).transpose();
        let config = config.map_err(|error| {
            report::error(error.code(), &error, error.help());
            Exit::Usage
        })?;
        let config = config.unwrap_or_default();
        let mut credentials = Credentials::new(places(args.authfile.as_deref()))
            .stopped_by(|| CANCEL.load(Ordering::Relaxed));
        if let Some(limit) = config.helper_limit {
            credentials = credentials.with_helper_limit(limit);
        }
        let client = Client::new(Setup {
            config,
            credentials,
            proxies: proxies(),
            monitor: progress.clone(),
            limits: Limits::default(),
        });
        Ok(Self {
            client: Some(client),
            indexes: None,
        })
    }

    /// The network of a workspace: registries, and the package indexes of its manifest, of the command line or of the
    /// host. None at all if it is `offline`.
    pub(super) fn of(
        workspace: &Workspace,
        (net, index): (&args::Net, &args::Index),
        offline: bool,
        store: &Arc<Store>,
        progress: &Arc<Progress>,
    ) -> Result<Self, Exit> {
        if offline {
            return Ok(Self::offline());
        }
        let chosen = Chosen {
            manifest: workspace.index()?,
            flag: index.index_url.clone(),
        };
        let indexes = indexes(chosen, store, progress);
        Ok(Self {
            indexes: Some(indexes),
            ..Self::new(net, progress)?
        })
    }

    /// No network.
    pub(super) fn offline() -> Self {
        Self {
            client: None,
            indexes: None,
        }
    }

    /// The network, as actions see it.
    pub(super) fn ports(&self) -> Ports<'_> {
        let mut ports = Ports::OFFLINE;
        if let Some(client) = &self.client {
            ports.registry = client;
        }
        if let Some(indexes) = &self.indexes {
            ports.packages = indexes;
        }
        ports
    }

    /// The client, unless this is offline.
    pub(super) fn client(&self) -> Option<&Client> {
        self.client.as_ref()
    }
}
