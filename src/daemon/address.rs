//! Where daemons may be: as DOCKER_HOST, CONTAINER_HOST and Docker's contexts say it, or where they usually are. Opens no
//! connection.

use std::fmt;
use std::path::PathBuf;

use reqwest::Url;

use super::{DaemonError, context};
use crate::net::tls::Trust;

/// What the environment says of daemons.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    /// `DOCKER_HOST`.
    pub docker_host: Option<String>,
    /// `CONTAINER_HOST`, podman's.
    pub container_host: Option<String>,
    /// Whether `DOCKER_TLS_VERIFY` is set: then `tcp:` means TLS.
    pub has_tls: bool,
    /// `DOCKER_CERT_PATH`: the folder with `ca.pem`, `cert.pem` and `key.pem`.
    pub cert_path: Option<PathBuf>,
    /// `DOCKER_CONTEXT`.
    pub docker_context: Option<String>,
    /// `DOCKER_CONFIG`: the folder with docker's `config.json` and contexts.
    pub docker_config: Option<PathBuf>,
    /// The home folder.
    pub home: Option<PathBuf>,
    /// `XDG_RUNTIME_DIR`.
    pub runtime_dir: Option<PathBuf>,
}

/// Where a daemon listens.
#[derive(Clone, Debug)]
pub(super) enum Address {
    /// At a socket of this machine.
    Socket(PathBuf),
    /// At a host and port.
    Host {
        url: String,
        shown: String,
        trust: Trust,
    },
}

/// A place where a daemon may be.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) address: Address,
    /// What names it, if anything does.
    pub(super) named_by: Option<String>,
}

/// Whom connections over a socket trust: nobody is asked.
static NOBODY: Trust = Trust {
    is_blind: false,
    ca: None,
    client_cert: None,
    client_key: None,
};

impl Address {
    /// Tells whether connections are encrypted.
    pub(super) fn has_tls(&self) -> bool {
        matches!(self, Self::Host { url, .. } if url.starts_with("https:"))
    }

    /// Returns what paths are appended to, and whom to trust.
    pub(super) fn base(&self) -> (&str, &Trust) {
        match self {
            Self::Socket(_) => ("http://localhost", &NOBODY),
            Self::Host { url, trust, .. } => (url, trust),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "{}", path.display()),
            Self::Host { shown, .. } => f.write_str(shown),
        }
    }
}

impl Settings {
    /// Returns where to look: the one place that a variable names, or where daemons usually are, Docker first.
    ///
    /// # Errors
    /// When a variable names no address that can be used.
    pub(super) fn candidates(&self) -> Result<Vec<Candidate>, DaemonError> {
        let named = [
            ("DOCKER_HOST", &self.docker_host),
            ("CONTAINER_HOST", &self.container_host),
        ];
        for (variable, value) in named {
            let Some(value) = value else { continue };
            let address = self.parse(value).map_err(|why| DaemonError::Address {
                what: variable.to_owned(),
                value: value.clone(),
                why,
            })?;
            return Ok(vec![Candidate {
                address,
                named_by: Some(variable.to_owned()),
            }]);
        }
        if let Some(candidate) = self.context()? {
            return Ok(vec![candidate]);
        }
        let below = |folder: &Option<PathBuf>, rest: &str| Some(folder.as_ref()?.join(rest));
        let usual = [
            Some("/var/run/docker.sock".into()),
            below(&self.runtime_dir, "docker.sock"),
            below(&self.home, ".docker/run/docker.sock"),
            Some("/run/podman/podman.sock".into()),
            below(&self.runtime_dir, "podman/podman.sock"),
        ];
        let candidate = |path| Candidate {
            address: Address::Socket(path),
            named_by: None,
        };
        Ok(usual.into_iter().flatten().map(candidate).collect())
    }

    /// Returns where the Docker context in use leads, if it is not the default one.
    fn context(&self) -> Result<Option<Candidate>, DaemonError> {
        let folder = self.docker_config.clone();
        let folder = folder.or_else(|| Some(self.home.as_ref()?.join(".docker")));
        let Some(folder) = folder else {
            return Ok(None);
        };
        let name = match &self.docker_context {
            Some(name) => Some(name.clone()).filter(|name| context::is_named(name)),
            None => context::current(&folder),
        };
        let Some(name) = name else { return Ok(None) };
        let what = format!("the Docker context `{name}`");
        let found = context::read(&folder, &name);
        let context = found.map_err(|why| DaemonError::Context {
            what: what.clone(),
            why,
        })?;
        let settings = Self {
            has_tls: context.certificates.is_some(),
            cert_path: context.certificates,
            ..self.clone()
        };
        match settings.parse(&context.host) {
            Ok(address) => Ok(Some(Candidate {
                address,
                named_by: Some(what),
            })),
            Err(why) => Err(DaemonError::Address {
                what,
                value: context.host,
                why,
            }),
        }
    }

    fn parse(&self, text: &str) -> Result<Address, String> {
        let (scheme, rest) = text
            .split_once("://")
            .ok_or("it does not say how to get there")?;
        match scheme {
            "unix" if rest.starts_with('/') => Ok(Address::Socket(rest.into())),
            "unix" => Err("the path of a socket starts with /".to_owned()),
            "tcp" | "http" | "https" => self.host(scheme, rest),
            "ssh" => Err("imgdecl opens no SSH connection".to_owned()),
            other => Err(format!("imgdecl does not know `{other}:`")),
        }
    }

    fn host(&self, scheme: &str, rest: &str) -> Result<Address, String> {
        let has_tls = scheme == "https" || (scheme == "tcp" && self.has_tls);
        let (scheme, port) = if has_tls {
            ("https", 2376)
        } else {
            ("http", 2375)
        };
        let rest = rest.trim_end_matches('/');
        let wrong = || "what follows is no host and port".to_owned();
        let url: Url = format!("{scheme}://{rest}").parse().map_err(|_| wrong())?;
        let host = url.host_str().filter(|host| !host.is_empty());
        let host = host.ok_or_else(wrong)?;
        let has_more = !url.username().is_empty() || url.query().is_some();
        if has_more || url.fragment().is_some() {
            return Err(wrong());
        }
        // The scheme's own port is none that Docker listens at, unless it is written.
        let written = rest.split('/').next().unwrap_or_default();
        let has_port = written.rsplit_once(':').is_some_and(|(_, port)| {
            !port.is_empty() && port.bytes().all(|it| it.is_ascii_digit())
        });
        let port = match has_port {
            true => url.port_or_known_default().unwrap_or(port),
            false => port,
        };
        let path = url.path().trim_end_matches('/');
        let folder = self.cert_path.clone();
        let folder = folder.or_else(|| Some(self.home.as_ref()?.join(".docker")));
        let file = |name: &str| {
            let path = folder.as_ref()?.join(name);
            path.is_file().then_some(path)
        };
        let trust = match has_tls {
            true => Trust {
                is_blind: false,
                ca: file("ca.pem"),
                client_cert: file("cert.pem"),
                client_key: file("key.pem"),
            },
            false => NOBODY.clone(),
        };
        Ok(Address::Host {
            url: format!("{scheme}://{host}:{port}{path}"),
            shown: format!("{host}:{port}"),
            trust,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(docker_host: &str, has_tls: bool) -> Result<String, DaemonError> {
        let settings = Settings {
            docker_host: Some(docker_host.to_owned()),
            has_tls,
            ..Settings::default()
        };
        let candidates = settings.candidates()?;
        assert_eq!(candidates[0].named_by.as_deref(), Some("DOCKER_HOST"));
        Ok(match &candidates[0].address {
            Address::Socket(path) => format!("socket {}", path.display()),
            Address::Host { url, .. } => url.clone(),
        })
    }

    #[test]
    fn addresses_are_dockers() {
        for (text, has_tls, expected) in [
            ("unix:///run/x.sock", true, "socket /run/x.sock"),
            ("tcp://127.0.0.1:2375", false, "http://127.0.0.1:2375"),
            ("tcp://host", false, "http://host:2375"),
            ("tcp://host/", true, "https://host:2376"),
            ("tcp://host:80", false, "http://host:80"),
            ("tcp://[::1]:99/docker/", false, "http://[::1]:99/docker"),
            ("https://host:443", false, "https://host:443"),
        ] {
            assert_eq!(with(text, has_tls).unwrap(), expected, "{text}");
        }
        for text in [
            "",
            "host:2375",
            "unix://run/x.sock",
            "tcp://",
            "tcp://a b:1",
            "tcp://u@h:1",
            "ssh://me@host",
            "npipe:////./pipe/docker_engine",
        ] {
            let error = with(text, false).unwrap_err();
            assert!(matches!(error, DaemonError::Address { .. }), "{text}");
        }
    }

    #[test]
    fn docker_is_looked_for_first() {
        let settings = Settings {
            home: Some("/h".into()),
            runtime_dir: Some("/r".into()),
            ..Settings::default()
        };
        let places: Vec<String> = settings
            .candidates()
            .unwrap()
            .iter()
            .map(|it| it.address.to_string())
            .collect();
        assert_eq!(
            places,
            [
                "/var/run/docker.sock",
                "/r/docker.sock",
                "/h/.docker/run/docker.sock",
                "/run/podman/podman.sock",
                "/r/podman/podman.sock"
            ]
        );
        let podman = Settings {
            container_host: Some("unix:///p".into()),
            ..settings.clone()
        };
        assert_eq!(
            podman.candidates().unwrap()[0].named_by.as_deref(),
            Some("CONTAINER_HOST")
        );
    }
}
