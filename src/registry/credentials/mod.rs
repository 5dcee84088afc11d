//! Where credentials are looked for. Knows nothing of how they are used.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

/// Where credentials are looked for.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// The one file to look at, if it is given.
    pub authfile: Option<PathBuf>,
    /// The text of a Docker config file.
    pub docker_auth_config: Option<String>,
    /// The folder of Docker's config file.
    pub docker_config: Option<PathBuf>,
    /// The user's home folder.
    pub home: Option<PathBuf>,
    /// The user's run-time folder.
    pub runtime_dir: Option<PathBuf>,
    /// The user's config folder.
    pub config_home: Option<PathBuf>,
    /// Where credential helpers are found.
    pub path: Option<OsString>,
}

/// Finds credentials, and remembers them.
pub struct Credentials {
    login: Option<Login>,
}

impl Credentials {
    /// Makes a finder; reads nothing.
    pub fn new(_places: Places) -> Self {
        Self { login: None }
    }

    /// Makes a finder that knows one login.
    pub fn fixed(login: Login) -> Self {
        Self { login: Some(login) }
    }

    /// Finds the login for a repository.
    pub fn find(&self, _registry: &str, _repository: &str) -> Looked {
        Looked {
            login: self.login.clone(),
            ..Looked::default()
        }
    }
}

/// What was found, and where it was looked for.
#[derive(Clone, Debug, Default)]
pub struct Looked {
    /// The login.
    pub login: Option<Login>,
    /// Where it was looked for, in order.
    pub places: Vec<String>,
    /// What failed on the way.
    pub failures: Vec<String>,
}

/// How to log in.
#[derive(Clone)]
pub enum Login {
    /// By name and password.
    Password {
        /// The name.
        user: String,
        /// The password.
        password: String,
    },
    /// By an identity token.
    Identity(String),
    /// By a bearer token.
    Bearer(String),
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(hidden)")
    }
}
