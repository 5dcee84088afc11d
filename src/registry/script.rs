//! What the tests of this module share: a client that waits little, and the server of `net`. Compiled for tests alone.

use std::sync::Arc;

use super::{Client, Config, Credentials, Monitor, Places, Proxies, Setup};
use crate::net::script::limits;
pub(super) use crate::net::script::{Asked, Ear, Server, Told};

/// Makes a client that waits little. `auth` is a Docker config file.
pub(super) fn client(config: &str, auth: Option<&str>) -> (Client, Arc<Ear>) {
    let ear = Arc::new(Ear::default());
    let places = Places {
        docker_auth_config: auth.map(str::to_owned),
        ..Places::default()
    };
    let client = Client::new(Setup {
        config: Config::parse(config, "config.toml".as_ref()).unwrap(),
        credentials: Credentials::new(places),
        proxies: Proxies::default(),
        monitor: Arc::clone(&ear) as Arc<dyn Monitor>,
        limits: limits(),
    });
    (client, ear)
}
