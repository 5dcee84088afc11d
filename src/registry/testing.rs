//! What the tests of this module share: a client that waits little, and the server of `net`. Compiled for tests alone.

use std::sync::Arc;

use super::{Client, Config, Credentials, Monitor, Places, Proxies, Setup};
use crate::net::testing::limits;
pub(super) use crate::net::testing::{Asked, Ear, Server, Told};
use crate::oci::Digest;

/// What a registry answers to what it stored: 201, and the digest that was named, or of what was sent.
pub(super) fn stored(asked: &Asked) -> Told {
    let named = ["digest=", "mount="].iter().find_map(|key| {
        let (_, rest) = asked.path.split_once(key)?;
        rest.split('&').next().map(str::to_owned)
    });
    let digest = named.unwrap_or_else(|| Digest::of(&asked.body).to_string());
    Told::new(201).with("docker-content-digest", digest)
}

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
