//! Places where credentials are kept, in the order in which they are looked at. Knows no environment: it is told what is
//! there. Each is read once, when it is needed.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::OnceLock;

use super::file::AuthFile;
use super::login::Hidden;
use crate::registry::user_file;

/// How large an auth file may be, in bytes.
pub(super) const MAX_FILE: u64 = 1 << 20;

/// Where credentials are looked for.
#[derive(Clone, Default)]
pub struct Places {
    /// The file that the user names, by `--authfile` or `REGISTRY_AUTH_FILE`. Then nothing else is looked at.
    pub authfile: Option<PathBuf>,
    /// `DOCKER_AUTH_CONFIG`: what would be in docker's `config.json`.
    pub docker_auth_config: Option<String>,
    /// `DOCKER_CONFIG`: the folder of docker's `config.json`.
    pub docker_config: Option<PathBuf>,
    /// The user's folder, for `.docker/config.json` and `.config/containers/auth.json`.
    pub home: Option<PathBuf>,
    /// `XDG_RUNTIME_DIR`, for `containers/auth.json`.
    pub runtime_dir: Option<PathBuf>,
    /// `XDG_CONFIG_HOME`, for `containers/auth.json`.
    pub config_home: Option<PathBuf>,
    /// `PATH`, on which helpers are found.
    pub path: Option<OsString>,
}

impl fmt::Debug for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden = self.docker_auth_config.as_ref().map(|_| Hidden);
        f.debug_struct("Places")
            .field("authfile", &self.authfile)
            .field("docker_auth_config", &hidden)
            .field("docker_config", &self.docker_config)
            .field("home", &self.home)
            .field("runtime_dir", &self.runtime_dir)
            .field("config_home", &self.config_home)
            .field("path", &self.path)
            .finish()
    }
}

/// A file, or what stands for one.
pub(super) struct Source {
    pub(super) name: String,
    origin: Origin,
    /// What is in it, if it is there.
    content: OnceLock<Result<Option<AuthFile>, String>>,
}

enum Origin {
    Text(String),
    /// A file that may be absent.
    Usual(PathBuf),
    /// A file that the user names.
    Named(PathBuf),
}

impl Source {
    fn new(name: String, origin: Origin) -> Self {
        Self {
            name,
            origin,
            content: OnceLock::new(),
        }
    }

    fn file(path: PathBuf) -> Self {
        Self::new(path.display().to_string(), Origin::Usual(path))
    }

    /// Reads it, the first time.
    pub(super) fn content(&self) -> Result<Option<&AuthFile>, &str> {
        let read = || {
            let read = |path: &PathBuf| user_file::read(path, MAX_FILE);
            let bytes = match &self.origin {
                Origin::Text(text) => Ok(text.clone().into_bytes()),
                Origin::Named(path) => read(path),
                Origin::Usual(path) => match read(path) {
                    Err(error) if user_file::is_missing(&error) => return Ok(None),
                    other => other,
                },
            };
            let bytes = bytes.map_err(|error| format!("cannot read {}: {error}", self.name))?;
            let parsed = AuthFile::parse(&bytes);
            parsed
                .map(Some)
                .map_err(|why| format!("{} {why}", self.name))
        };
        let content = self.content.get_or_init(read).as_ref();
        content.map(Option::as_ref).map_err(String::as_str)
    }
}

impl Places {
    /// Returns where to look, in order.
    pub(super) fn sources(self) -> Vec<Source> {
        if let Some(path) = self.authfile {
            return vec![Source::new(path.display().to_string(), Origin::Named(path))];
        }
        let mut sources = Vec::new();
        if let Some(text) = self.docker_auth_config {
            let name = "DOCKER_AUTH_CONFIG".to_owned();
            sources.push(Source::new(name, Origin::Text(text)));
        }
        let home = self.home;
        let below_home = |name: &str| home.as_ref().map(|home| home.join(name));
        let docker = self.docker_config.or_else(|| below_home(".docker"));
        sources.extend(docker.map(|folder| Source::file(folder.join("config.json"))));
        let config_home = self.config_home.or_else(|| below_home(".config"));
        let folders = [self.runtime_dir, config_home];
        let podman = folders.into_iter().flatten();
        sources.extend(podman.map(|folder| Source::file(folder.join("containers/auth.json"))));
        sources
    }
}
