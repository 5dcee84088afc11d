//! `registry.json` of golden cases: what a fault server holds, and what it does wrong.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::auth::Auth;
use super::image::{Flavour, Image, layer};
use super::quirks::Quirks;
use super::real::Authority;
use super::rule::Rule;
use super::server::{Server, Setup};

/// A registry as a case describes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Data {
    /// What it holds at the beginning.
    #[serde(default)]
    images: Vec<Entry>,
    /// The quirks of a registry, as `ghcr`; without it, it keeps the spec.
    profile: Option<String>,
    /// Names and passwords: then pushes need a login, and pulls too unless `anonymous`.
    #[serde(default)]
    users: BTreeMap<String, String>,
    #[serde(default)]
    anonymous: bool,
    /// Logins are Basic instead of tokens.
    #[serde(default)]
    basic: bool,
    /// For how many requests a token is good; for all if nothing is said.
    uses: Option<u32>,
    /// It has HTTPS, and a certificate that nobody knows. Needs `openssl`.
    #[serde(default)]
    tls: bool,
    /// What it does wrong.
    #[serde(default)]
    rules: Vec<Rule>,
    /// Where it listens, where digests or keys depend on it: base names are part of manifests.
    pub(crate) address: Option<String>,
}

/// An image that is there.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// `REPOSITORY:TAG`.
    name: String,
    /// A layout in the work folder, which `setup` made; its only image.
    layout: Option<String>,
    /// Else: its platforms, as `linux/arm64`. Several make an index. The default is `linux/amd64`.
    #[serde(default)]
    platforms: Vec<String>,
    /// Files of each layer: path and text. `[PLATFORM]` in a text stands for the platform.
    #[serde(default)]
    layers: Vec<BTreeMap<String, String>>,
    /// Merged into each config.
    #[serde(default)]
    config: Value,
    /// Docker's media types.
    #[serde(default)]
    docker: bool,
    /// The index has an attestation too.
    #[serde(default)]
    attested: bool,
}

impl Data {
    /// Reads the file.
    pub(crate) fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).expect("registry.json");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Starts the registry, without images.
    pub(crate) fn start(&self, address: Option<String>) -> Server {
        let user = self.users.iter().next();
        let auth = match (user, &self.profile) {
            (None, _) => Auth::default(),
            (Some((user, password)), Some(profile)) => Auth::profile(profile, user, password),
            (Some((user, password)), None) if self.basic => Auth::basic(user, password),
            (Some((user, password)), None) => Auth::token(user, password),
        };
        Server::start(Setup {
            quirks: self
                .profile
                .as_deref()
                .map(Quirks::profile)
                .unwrap_or_default(),
            auth: Auth {
                users: self.users.clone(),
                anonymous: self.anonymous,
                uses: self.uses,
                ..auth
            },
            rules: self.rules.clone(),
            tls: self.tls.then(|| {
                let folder = tempfile::tempdir().expect("a temporary folder");
                Arc::new(Authority::make(folder.path()).server())
            }),
            address,
            ..Setup::default()
        })
    }

    /// Loads the images; `work` is the work folder.
    pub(crate) fn load(&self, server: &Server, work: &Path) {
        for entry in &self.images {
            let (name, tag) = entry.name.split_once(':').expect("REPOSITORY:TAG");
            server.load(name, tag, &entry.image(work));
        }
    }
}

impl Entry {
    fn image(&self, work: &Path) -> Image {
        if let Some(layout) = &self.layout {
            return Image::of_layout(&work.join(layout), None);
        }
        let flavour = if self.docker {
            Flavour::Docker
        } else {
            Flavour::Oci
        };
        let single = |platform: &str| {
            let files = |files: &BTreeMap<String, String>| {
                let text = |(path, text): (&String, &String)| {
                    (path.clone(), text.replace("[PLATFORM]", platform))
                };
                layer(&files.iter().map(text).collect())
            };
            let layers: Vec<Vec<u8>> = self.layers.iter().map(files).collect();
            let layers: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
            Image::single(platform, &layers, self.config.clone(), flavour)
        };
        match &self.platforms[..] {
            [] => single("linux/amd64"),
            [platform] if !self.attested => single(platform),
            platforms => {
                let images = platforms.iter().map(|it| (it.as_str(), single(it)));
                Image::index(&images.collect::<Vec<_>>(), self.attested, flavour)
            }
        }
    }
}
