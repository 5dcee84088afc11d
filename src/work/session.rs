//! What all work of one command shares: what the environment says, the wish to stop, and who hears of what happens.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Blame, Failed};
use crate::daemon;
use crate::exec::{NodeResult, Watch};
use crate::graph::{Graph, Stop};
use crate::net::Monitor;
use crate::oci::Platform;
use crate::registry::{Places, Proxies};
use crate::rule::Need;
use crate::store::Store;

/// What all work of one command shares.
pub(crate) struct Session {
    /// What the environment says.
    pub(crate) environment: Environment,
    /// The wish to stop.
    pub(crate) stop: Stop,
    /// Who hears of what happens.
    pub(crate) events: Arc<dyn Events>,
    /// Opens stdout, for what the user wants there.
    pub(crate) stdout: fn() -> io::Result<File>,
}

/// What the environment says, as whoever starts the work read it.
#[derive(Clone)]
pub(crate) struct Environment {
    /// The working folder, or why there is none.
    pub(crate) here: Result<PathBuf, String>,
    /// The cache folder, or why there is none.
    pub(crate) cache: Result<PathBuf, String>,
    /// SOURCE_DATE_EPOCH, in seconds since 1970, or what is wrong with it.
    pub(crate) epoch: Result<Option<u64>, String>,
    /// Whether this is a CI system, which builds what was committed.
    pub(crate) is_ci: bool,
    /// The platform whose images run on this machine.
    pub(crate) platform: Platform,
    /// The file that says how registries are reached, and whether the user named it.
    pub(crate) config: Option<(PathBuf, bool)>,
    /// Where credentials for registries are looked for.
    pub(crate) credentials: Places,
    /// The proxies.
    pub(crate) proxies: Proxies,
    /// Where Docker and podman are.
    pub(crate) daemons: daemon::Settings,
    /// The variables that files of other tools may name: of capital letters, digits and `_`.
    pub(crate) variables: Arc<BTreeMap<String, String>>,
    /// Where package indexes are named.
    pub(crate) indexes: IndexEnvironment,
    /// The folders in which programs are looked for.
    pub(crate) programs: Vec<PathBuf>,
    /// The program that is running, or why it cannot be found.
    pub(crate) executable: Result<PathBuf, String>,
    /// Variables with which a process whose home is elsewhere finds the user's own settings and credentials.
    pub(crate) settings_of_home: Vec<(&'static str, PathBuf)>,
}

/// What the environment says of package indexes.
#[derive(Clone, Default)]
pub(crate) struct IndexEnvironment {
    /// The variables of uv and pip that say indexes, and those with credentials for them.
    pub(crate) variables: BTreeMap<String, String>,
    /// Where `.netrc` is.
    pub(crate) netrc: Option<PathBuf>,
    /// Where `uv.toml` may be: the user's before the system's.
    pub(crate) uv: Vec<PathBuf>,
    /// Where `pip.conf` may be: those that others override come last.
    pub(crate) pip: Vec<PathBuf>,
}

/// Hears of what happens: of actions, of transfers, and of the command's own news. From several threads.
pub(crate) trait Events: Watch + Monitor {
    /// Hears the news.
    fn news(&self, news: &News<'_>);
}

/// Something that happened in a command.
pub(crate) enum News<'a> {
    /// The next phase begins.
    Phase(&'static str),
    /// Another process is at image.lock, and is waited for.
    LockIsTaken,
    /// Something is about to be resolved.
    Resolves(&'a Need),
    /// What image.lock lacked was resolved, with these changes.
    Locked(&'a [String]),
    /// A plan needs what image.lock lacks.
    Lacks(&'a [Need]),
    /// A graph has run, for good or ill.
    Ran {
        /// The graph.
        graph: &'a Graph,
        /// What became of its nodes.
        results: &'a [NodeResult],
        /// The cache, which remembers the texts of keys.
        store: &'a Store,
        /// The workspace, by which it knows the nodes.
        workspace: &'a str,
    },
    /// Bytes of a push that were not sent: the registry has them from another repository, or had them already.
    Unsent {
        /// Bytes that the registry took from another of its repositories.
        mounted: u64,
        /// Bytes that were there.
        there: u64,
    },
    /// An image is about to be unpacked.
    Unpacks(&'a str),
    /// The work is done, and it is time for a summary. `only_if_busy` where the command is after something else.
    Over {
        /// A summary is wanted only if something was built or fetched.
        only_if_busy: bool,
    },
}

impl Session {
    /// Returns the working folder.
    pub(crate) fn here(&self) -> Result<&Path, Failed> {
        let here = self.environment.here.as_deref();
        here.map_err(|error| {
            let message = format!("there is no working folder: {error}");
            Failed::usage("imgdecl::cli::folder", message, None)
        })
    }

    /// Returns the cache folder.
    pub(crate) fn cache(&self) -> Result<&Path, Failed> {
        let cache = self.environment.cache.as_deref();
        cache.map_err(|message| {
            let help = "name a folder with IMGDECL_CACHE_DIR".to_owned();
            Failed::usage("imgdecl::cache", message, Some(help))
        })
    }

    /// Opens the cache.
    pub(crate) fn store(&self) -> Result<Arc<Store>, Failed> {
        let stop = self.stop.clone();
        let store = Store::open_while(self.cache()?, Arc::new(move || !stop.is_asked()));
        self.go_on()?;
        store.map(Arc::new).map_err(|error| {
            let help = "name another folder with IMGDECL_CACHE_DIR".to_owned();
            Failed::error(Blame::Build, "imgdecl::cache", &error, Some(help))
        })
    }

    /// Tells the news.
    pub(crate) fn news(&self, news: &News<'_>) {
        self.events.news(news);
    }

    /// Says something between the lines.
    pub(crate) fn note(&self, text: &str) {
        Monitor::note(&*self.events, text);
    }

    /// Fails if the user asked to stop.
    pub(crate) fn go_on(&self) -> Result<(), Failed> {
        match self.stop.is_asked() {
            true => Err(Failed::Stopped),
            false => Ok(()),
        }
    }
}
