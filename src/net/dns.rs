//! Addresses of hosts by their names: each name is looked up once at a time, and its addresses are remembered for a
//! while. Many look-ups at once stall some resolvers for seconds. Knows no connection.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// How long addresses are remembered.
const FRESH: Duration = Duration::from_secs(60);

/// What was found for a name, and when; held while it is looked up.
type Entry = Arc<tokio::sync::Mutex<Option<(Instant, Vec<SocketAddr>)>>>;

/// The names that were looked up.
#[derive(Clone, Default)]
pub(crate) struct CachedDns(Arc<Mutex<BTreeMap<String, Entry>>>);

impl Resolve for CachedDns {
    fn resolve(&self, name: Name) -> Resolving {
        let name = name.as_str().to_owned();
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = Arc::clone(entries.entry(name.clone()).or_default());
        Box::pin(async move {
            let mut entry = entry.lock().await;
            if let Some((time, found)) = &*entry
                && time.elapsed() < FRESH
            {
                return Ok(Box::new(found.clone().into_iter()) as Addrs);
            }
            // Port 0 stands for the port of the URL.
            let look = move || (name.as_str(), 0).to_socket_addrs().map(Vec::from_iter);
            let found = tokio::task::spawn_blocking(look).await??;
            *entry = Some((Instant::now(), found.clone()));
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}
