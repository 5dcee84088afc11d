//! The client of package indexes: pages of packages, metadata of wheels, wheels (simple repository API; PEP 503, 629, 658,
//! 691, 700, 714).
//!
//! From below: [`fetch`] makes a request of an exchange of `net`; [`page`] and [`html`] read what an index says of a
//! package; [`listed`] finds it on pages of links, and in lists of packages; [`fresh`] says how long what was found is believed; [`chosen`] says which indexes a file chooses; [`metadata`] has what a wheel says of itself; [`download`] has the wheel. A package comes from
//! the first index that has it: what refuses is not passed over. Everything is checked against digests and remembered in
//! the store. [`by_url`] fetches files that no index lists, in the same way. Knows nothing of rules, of the environment, or of how things are shown.

mod by_url;
mod chosen;
pub(crate) mod discover;
mod download;
mod error;
mod fetch;
mod fresh;
mod html;
mod listed;
mod login;
mod metadata;
mod netrc;
mod page;
mod prefetch;
mod project;
mod single_flight;
mod source;

pub(crate) use error::IndexError;
pub use login::Credentials;
pub use source::Source;
pub(crate) use source::SourceError;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::graph::{
    ActionError, IndexChoice, PackageError, PackageFile, Packages, Pick, WantedWheel, WheelHome,
};
use crate::net::wire::Wire;
use crate::net::{Ended, Limits, Monitor, Proxies, Transfer};
use crate::oci::Digest;
use crate::store::{Blob, Blobs, Store};
use fresh::Freshness;
use prefetch::{PrefetchQueue, Prefetcher};
use single_flight::SingleFlight;

/// Says which indexes there are, in the order in which they are asked. Called once, when the first is needed.
pub(crate) type Sources = Box<dyn Fn() -> Result<Vec<Source>, ActionError> + Send + Sync>;

/// What a client is made of.
pub struct Setup {
    /// The indexes.
    pub sources: Sources,
    /// Those of them that are for some packages alone, and which the manifest names: they are known without a search.
    pub pinned: Vec<Source>,
    /// The credentials that are not in the URLs of the indexes.
    pub credentials: Credentials,
    /// The proxies.
    pub proxies: Proxies,
    /// What receives progress.
    pub monitor: Arc<dyn Monitor>,
    /// Time limits and tries.
    pub limits: Limits,
    /// Where pages and metadata are remembered.
    pub cache: Arc<Store>,
    /// Whether every page is asked for, however fresh its index called it.
    pub is_anew: bool,
}

/// Speaks to package indexes. Its calls block, from any number of threads; each ends soon after the monitor says stop.
pub struct Indexes {
    inner: Arc<Inner>,
    prefetcher: Prefetcher,
    /// What asks the indexes of a choice.
    views: Mutex<BTreeMap<IndexChoice, Arc<Indexes>>>,
}

/// The files of a package, or why they are not known.
type FoundFiles = Result<Arc<Vec<PackageFile>>, PackageError>;

/// What the threads share.
struct Inner {
    wire: Arc<Wire>,
    limits: Limits,
    monitor: Arc<Ear>,
    credentials: Credentials,
    cache: Arc<Store>,
    ask: Sources,
    pinned: Vec<Source>,
    sources: OnceLock<Result<Vec<Source>, ActionError>>,
    freshness: Freshness,
    /// The files of packages, by their names; apart from each other before and after all is asked for anew.
    pages: SingleFlight<(String, bool), FoundFiles>,
    /// What pages of links list, by their URLs, likewise.
    links: SingleFlight<(String, bool), Option<Arc<Vec<PackageFile>>>>,
    /// The packages of indexes, by their URLs; `None` where an index gives no list.
    lists: SingleFlight<String, Option<Arc<BTreeSet<String>>>>,
    metadata: SingleFlight<String, Result<Arc<String>, PackageError>>,
    wheels: SingleFlight<Digest, Result<Blob, ActionError>>,
    sizes: SingleFlight<Digest, Option<u64>>,
    /// The hosts that give no ranges.
    whole_only: Mutex<BTreeSet<String>>,
}

/// The user's monitor, which also says stop when the client ends.
struct Ear {
    monitor: Arc<dyn Monitor>,
    is_over: AtomicBool,
}

impl Monitor for Ear {
    fn start(&self, transfer: &Transfer<'_>) -> u64 {
        self.monitor.start(transfer)
    }

    fn more(&self, number: u64, bytes: u64) {
        self.monitor.more(number, bytes);
    }

    fn end(&self, number: u64, outcome: Ended) {
        self.monitor.end(number, outcome);
    }

    fn note(&self, text: &str) {
        self.monitor.note(text);
    }

    fn step(&self, progress: Option<&str>) {
        self.monitor.step(progress);
    }

    fn is_stopped(&self) -> bool {
        self.is_over.load(Ordering::Relaxed) || self.monitor.is_stopped()
    }
}

impl Indexes {
    /// Makes a client. Opens nothing and asks nothing yet.
    pub fn new(setup: Setup) -> Self {
        let monitor = Arc::new(Ear {
            monitor: Arc::clone(&setup.monitor),
            is_over: AtomicBool::new(false),
        });
        let ear = Arc::clone(&monitor) as Arc<dyn Monitor>;
        let wire = Wire::for_many(setup.proxies.clone(), setup.limits.clone(), ear);
        Self::of(Inner::make(Arc::new(wire), monitor, setup))
    }

    /// Makes a client of what its threads share.
    fn of(inner: Inner) -> Self {
        Self {
            inner: Arc::new(inner),
            prefetcher: Prefetcher::default(),
            views: Mutex::default(),
        }
    }
}

impl Drop for Indexes {
    fn drop(&mut self) {
        self.inner.monitor.is_over.store(true, Ordering::Relaxed);
    }
}

impl Inner {
    /// Makes what the threads of a client share.
    fn make(wire: Arc<Wire>, monitor: Arc<Ear>, setup: Setup) -> Self {
        Self {
            wire,
            limits: setup.limits,
            monitor,
            credentials: setup.credentials,
            cache: setup.cache,
            ask: setup.sources,
            pinned: setup.pinned,
            sources: OnceLock::new(),
            freshness: Freshness::new(setup.is_anew),
            pages: SingleFlight::default(),
            links: SingleFlight::default(),
            lists: SingleFlight::default(),
            metadata: SingleFlight::default(),
            wheels: SingleFlight::default(),
            sizes: SingleFlight::default(),
            whole_only: Mutex::default(),
        }
    }

    fn sources(&self) -> Result<&[Source], IndexError> {
        let sources = self.sources.get_or_init(|| (self.ask)());
        match sources {
            Ok(sources) => Ok(sources),
            Err(error) => Err(IndexError::Sources(error.clone())),
        }
    }

    fn is_whole_only(&self, host: &str) -> bool {
        let hosts = self.whole_only.lock();
        hosts.unwrap_or_else(PoisonError::into_inner).contains(host)
    }

    fn set_whole_only(&self, host: String) {
        let hosts = self.whole_only.lock();
        hosts.unwrap_or_else(PoisonError::into_inner).insert(host);
    }

    fn files(&self, project: &str) -> Result<Arc<Vec<PackageFile>>, PackageError> {
        let stopped = || self.monitor.is_stopped();
        let work = || match self.files_of(project) {
            Ok(files) => Ok(Arc::new(files)),
            Err(error) => Err(error.into()),
        };
        let key = (project.to_owned(), self.freshness.is_anew());
        let files = self.pages.get(&key, &stopped, |_| true, work);
        files.unwrap_or_else(|| Err(IndexError::Stopped.into()))
    }

    fn metadata(&self, file: &PackageFile) -> Result<Arc<String>, PackageError> {
        let stopped = || self.monitor.is_stopped();
        let work = || match self.metadata_of(file) {
            Ok(text) => Ok(Arc::new(text)),
            Err(error) => Err(error.into()),
        };
        let text = self.metadata.get(&key(file), &stopped, |_| true, work);
        text.unwrap_or_else(|| Err(IndexError::Stopped.into()))
    }

    fn size(&self, wanted: &WantedWheel<'_>) -> Option<u64> {
        let stopped = || self.monitor.is_stopped();
        let work = || self.size_of(wanted);
        let size = self.sizes.get(&wanted.sha256, &stopped, |_| true, work);
        size.flatten()
    }
}

/// A wheel whose size is asked for ahead of time.
struct Sought {
    project: String,
    file: String,
    sha256: Digest,
    hint: Option<String>,
    home: Option<WheelHome>,
}

impl Sought {
    fn of(wanted: &WantedWheel<'_>) -> Self {
        Self {
            project: wanted.project.to_owned(),
            file: wanted.file.to_owned(),
            sha256: wanted.sha256,
            hint: wanted.hint.map(str::to_owned),
            home: wanted.home.cloned(),
        }
    }

    fn wanted(&self) -> WantedWheel<'_> {
        WantedWheel {
            project: &self.project,
            file: &self.file,
            sha256: self.sha256,
            size: None,
            hint: self.hint.as_deref(),
            home: self.home.as_ref(),
        }
    }
}

/// What tells files apart.
fn key(file: &PackageFile) -> String {
    let sha256 = file.sha256.map(|it| it.to_string()).unwrap_or_default();
    format!("{sha256} {}", file.url)
}

/// Has the metadata of files fetched ahead of time.
fn fetch_all(inner: &Arc<Inner>, files: Vec<PackageFile>, queue: &PrefetchQueue) {
    for file in files {
        if !inner.metadata.is_begun(&key(&file)) {
            let inner = Arc::clone(inner);
            queue.add(Box::new(move || drop(inner.metadata(&file))));
        }
    }
}

impl Packages for Indexes {
    fn files(&self, project: &str) -> Result<Arc<Vec<PackageFile>>, PackageError> {
        self.inner.files(project)
    }

    fn metadata(&self, file: &PackageFile) -> Result<Arc<String>, PackageError> {
        self.inner.metadata(file)
    }

    fn prefetch_project(&self, project: &str, then: Pick) {
        let (inner, project) = (Arc::clone(&self.inner), project.to_owned());
        let queue = self.prefetcher.queue();
        self.prefetcher.queue().add(Box::new(move || {
            if let Ok(files) = inner.files(&project) {
                fetch_all(&inner, then(&files), &queue);
            }
        }));
    }

    fn prefetch_metadata(&self, files: Vec<PackageFile>) {
        fetch_all(&self.inner, files, &self.prefetcher.queue());
    }

    fn sizes(&self, wanted: &[WantedWheel<'_>]) -> Vec<Option<u64>> {
        for one in wanted {
            let (inner, sought) = (Arc::clone(&self.inner), Sought::of(one));
            self.prefetcher.queue().add(Box::new(move || {
                inner.size(&sought.wanted());
            }));
        }
        wanted.iter().map(|one| self.inner.size(one)).collect()
    }

    fn wheel(&self, wanted: &WantedWheel<'_>, store: &dyn Blobs) -> Result<Blob, ActionError> {
        let inner = &self.inner;
        let stopped = || inner.monitor.is_stopped();
        let work = || inner.wheel_of(wanted, store);
        // What was fetched is in the store; what failed may be had from elsewhere.
        let blob = inner.wheels.get(&wanted.sha256, &stopped, |_| false, work);
        blob.unwrap_or_else(|| Err(ActionError::stopped()))
    }

    fn unsaid(&self, file: &PackageFile, store: &dyn Blobs) -> Result<Blob, ActionError> {
        Ok(self.inner.unsaid(file, store)?)
    }

    fn chosen(&self, choice: &IndexChoice) -> Option<Arc<dyn Packages>> {
        let mut views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || Arc::new(Self::of(self.inner.chosen(choice)));
        let view = views.entry(choice.clone()).or_insert_with(make);
        Some(Arc::clone(view) as Arc<dyn Packages>)
    }

    fn home(&self, index: &str) -> Option<WheelHome> {
        self.inner.home(index)
    }

    fn tell(&self, progress: Option<&str>) {
        self.inner.monitor.step(progress);
    }

    fn is_anew(&self) -> bool {
        self.inner.freshness.is_anew()
    }

    fn ask_anew(&self) -> bool {
        self.inner.freshness.ask_anew()
    }
}
