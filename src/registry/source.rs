//! Where to pull from: the registry itself, and its mirrors. Knows nothing of what is pulled.

use std::sync::Arc;

use reqwest::{Method, Url};

use super::Client;
use super::error::{RegistryError, clean};
use super::host::{Host, Scheme};
use super::http::{Ask, At, Auth};
use super::scope::Scope;
use super::url;
use crate::oci::Reference;

/// How often a host is tried that another one can stand in for.
const TRIES_WITH_OTHERS: u32 = 2;

/// A place to pull from: the registry itself, or a mirror.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) host: Arc<Host>,
    pub(super) repository: String,
    /// The registry that a mirror stands for.
    namespace: Option<String>,
    /// Another source comes after this one.
    pub(super) has_next: bool,
}

impl Source {
    /// The registry itself, and no mirror.
    pub(super) fn own(host: Arc<Host>, repository: &str) -> Self {
        Self {
            host,
            repository: repository.to_owned(),
            namespace: None,
            has_next: false,
        }
    }

    pub(super) fn is_mirror(&self) -> bool {
        self.namespace.is_some()
    }

    /// Makes a request for what lies below the repository, as `manifests/v1`.
    pub(super) fn ask<'a>(&'a self, method: Method, rest: &str, what: &'a str) -> Ask<'a> {
        let mut path = format!("/v2/{}/{rest}", self.repository);
        if let Some(namespace) = &self.namespace {
            path.push_str(&format!("?ns={namespace}"));
        }
        Ask {
            auth: Auth::Scopes(vec![Scope::pull(&self.repository)]),
            tries: self.has_next.then_some(TRIES_WITH_OTHERS),
            ..Ask::new(&self.host, method, At::Path(path), &self.repository, what)
        }
    }
}

impl Client {
    /// Returns where to pull from: the mirrors, and the registry itself at last.
    pub(super) fn sources(&self, reference: &Reference) -> Result<Vec<Source>, RegistryError> {
        let host = self.host(&reference.registry);
        let mut sources = Vec::new();
        for text in &host.config.mirrors {
            let fail = || RegistryError::Setup {
                registry: reference.registry.clone(),
                why: format!(
                    "`{}` is no mirror: expected HOST[:PORT][/PREFIX] or an http(s) URL",
                    clean(text)
                ),
            };
            let (forced, url) = match text.split_once("://") {
                Some(("http", _)) => (Some(Scheme::Http), Url::parse(text)),
                Some(("https", _)) => (Some(Scheme::Https), Url::parse(text)),
                Some(_) => return Err(fail()),
                None => (None, Url::parse(&format!("https://{text}"))),
            };
            let url = url.map_err(|_| fail())?;
            if url.host_str().is_none() || !url.username().is_empty() || url.query().is_some() {
                return Err(fail());
            }
            let path = url.path().trim_matches('/');
            let prefix = path
                .strip_prefix("v2")
                .filter(|rest| rest.is_empty() || rest.starts_with('/'));
            let prefix = prefix.unwrap_or(path).trim_matches('/');
            sources.push(Source {
                host: self.host_by(&url::authority(&url), forced),
                repository: match prefix {
                    "" => reference.repository.clone(),
                    prefix => format!("{prefix}/{}", reference.repository),
                },
                namespace: Some(reference.registry.clone()),
                has_next: true,
            });
        }
        sources.push(Source::own(host, &reference.repository));
        Ok(sources)
    }

    /// Tries one source after the other. The last one, the registry itself, says what is wrong.
    pub(super) fn anywhere<T>(
        &self,
        sources: &[Source],
        fetch: impl Fn(&Source) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        for source in sources {
            match fetch(source) {
                Err(RegistryError::Stopped) => return Err(RegistryError::Stopped),
                Err(error) if source.has_next => self.pass_over(source, &error),
                result => return result,
            }
        }
        Err(RegistryError::Stopped)
    }

    /// Says why a mirror is passed over. That it lacks something is nothing to tell.
    pub(super) fn pass_over(&self, source: &Source, error: &RegistryError) {
        if !matches!(error, RegistryError::NotFound(_)) {
            self.tell(&format!("mirror {}: {error}", source.host.name));
        }
    }
}
