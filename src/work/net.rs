//! How the commands reach registries and package indexes: by clients, or not at all.

use std::path::PathBuf;
use std::sync::Arc;

use super::indexes::{Chosen, indexes};
#[cfg(target_os = "linux")]
use super::runner::HostRunner;
use super::workspace::Workspace;
use super::{Blame, Failed, Session};
use crate::graph::{Packages, Ports, Sources, Urls};
use crate::registry::{Client, Config, Credentials, Limits, Places, Setup};
use crate::store::Store;

/// How the user wants the network to be reached.
#[derive(Clone, Default)]
pub(crate) struct Network {
    /// No socket is opened, but that of a daemon.
    pub(crate) offline: bool,
    /// The file with credentials for registries, in place of all other places.
    pub(crate) authfile: Option<PathBuf>,
    /// The package index that is asked last, where the manifest names none.
    pub(crate) index_url: Option<String>,
    /// Every page of a package index is asked for, however fresh the index called it.
    pub(crate) is_anew: bool,
}

/// The network, or none.
pub(super) struct Net {
    client: Option<Client>,
    /// Where packages come from: a port of each ecosystem.
    sources: Sources,
    /// What runs commands in images: it needs no network.
    #[cfg(target_os = "linux")]
    runner: HostRunner,
}

impl Net {
    /// The network as the user set it up. Nothing is opened yet.
    pub(super) fn new(session: &Session, network: &Network) -> Result<Self, Failed> {
        if network.offline {
            return Ok(Self::offline(session));
        }
        let environment = &session.environment;
        let file = environment.config.clone();
        if let Some((path, true)) = &file
            && !path.exists()
        {
            let message = format!("there is no {}, which IMGDECL_CONFIG names", path.display());
            return Err(Failed::usage("imgdecl::config::unreadable", &message, None));
        }
        let config = file.map(|(path, _)| Config::load(&path)).transpose();
        let config = config
            .map_err(|error| Failed::error(Blame::Usage, error.code(), &error, error.help()))?;
        let config = config.unwrap_or_default();
        let own = environment.credentials.clone();
        let places = Places {
            authfile: network.authfile.clone().or(own.authfile),
            ..own
        };
        let stop = session.stop.clone();
        let mut credentials = Credentials::new(places).stopped_by(move || stop.is_asked());
        if let Some(limit) = config.helper_limit {
            credentials = credentials.with_helper_limit(limit);
        }
        let client = Client::new(Setup {
            config,
            credentials,
            proxies: environment.proxies.clone(),
            monitor: session.events.clone(),
            limits: Limits::default(),
        });
        Ok(Self {
            client: Some(client),
            ..Self::offline(session)
        })
    }

    /// The network of a workspace: registries, and the package indexes of its manifest, of the command line or of the
    /// host. None at all if it is `offline`.
    pub(super) fn of(
        session: &Session,
        workspace: &Workspace,
        network: &Network,
        store: &Arc<Store>,
    ) -> Result<Self, Failed> {
        if network.offline {
            return Ok(Self::offline(session));
        }
        let chosen = Chosen {
            manifest: workspace.index()?,
            flag: network.index_url.clone(),
            is_anew: network.is_anew,
        };
        let mut net = Self::new(session, network)?;
        let indexes = Arc::new(indexes(session, chosen, store));
        net.sources.add::<dyn Packages>(indexes.clone());
        net.sources.add::<dyn Urls>(indexes);
        #[cfg(test)]
        crate::rule::connect(&mut net.sources);
        Ok(net)
    }

    /// No network.
    pub(super) fn offline(session: &Session) -> Self {
        let _ = session;
        Self {
            client: None,
            sources: Sources::default(),
            #[cfg(target_os = "linux")]
            runner: HostRunner {
                programs: session.environment.programs.clone(),
                turn: std::sync::Mutex::default(),
            },
        }
    }

    /// The network, as actions see it.
    pub(super) fn ports(&self) -> Ports<'_> {
        let registry = match &self.client {
            Some(client) => client,
            None => Ports::OFFLINE.registry,
        };
        Ports {
            registry,
            sources: &self.sources,
            #[cfg(target_os = "linux")]
            runner: &self.runner,
            #[cfg(not(target_os = "linux"))]
            runner: Ports::OFFLINE.runner,
        }
    }

    /// The client, unless this is offline.
    pub(super) fn client(&self) -> Option<&Client> {
        self.client.as_ref()
    }
}
