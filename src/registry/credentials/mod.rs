//! Credentials for registries: looked for where docker and podman keep them, in one order. Knows no connection: what is
//! found is handed out, and whoever sends it sees to it that it goes to its own host alone.
//!
//! The order: the file that the user names, and then nothing else; `DOCKER_AUTH_CONFIG`; docker's `config.json`; podman's
//! `auth.json`. In each of them: the host's own helper, the store, the entry with the most specific path.

mod file;
#[cfg(test)]
mod fuzz_tests;
mod helper;
mod login;
mod places;
mod process;

pub(super) use login::Login;
pub use places::Places;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::canonical;
use file::{AuthFile, Entry};
use helper::{Answer, Helpers};
use places::Source;

/// How long a helper may take.
const HELPER_LIMIT: Duration = Duration::from_secs(60);

/// By what name Docker Hub is known to helpers.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// What was found, and where it was looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// The first that was found.
    pub login: Option<Login>,
    /// Where it was looked for, in order, and what was there; the last one is where it was found.
    pub places: Vec<String>,
    /// What could not be asked or read on the way, and why. A pull goes on with a warning, a push does not.
    pub failures: Vec<String>,
}

/// A helper's answer, which is there when it was asked.
type Slot = Arc<OnceLock<Answer>>;

/// Finds credentials. Files are read once, and helpers are asked once for a host, whoever asks and how often.
pub struct Credentials {
    sources: Vec<Source>,
    helpers: Helpers,
    /// What the helpers said, by name and server.
    answers: Mutex<BTreeMap<(String, String), Slot>>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sources = self.sources.iter().map(|source| &source.name);
        f.debug_list().entries(sources).finish()
    }
}

impl Credentials {
    /// Makes a finder that looks at `places`. Nothing is read yet.
    pub fn new(places: Places) -> Self {
        Self {
            helpers: Helpers {
                path: places.path.clone(),
                limit: HELPER_LIMIT,
                is_stopped: Box::new(|| false),
            },
            sources: places.sources(),
            answers: Mutex::default(),
        }
    }

    /// Gives helpers another time limit than 60 s.
    #[must_use]
    pub fn with_helper_limit(mut self, limit: Duration) -> Self {
        self.helpers.limit = limit;
        self
    }

    /// Ends a helper that runs when `is_stopped` says so. It is asked several times a second.
    #[must_use]
    pub fn stopped_by(mut self, is_stopped: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        self.helpers.is_stopped = Box::new(is_stopped);
        self
    }

    /// Finds the credentials for a repository, as `library/python`, of a registry, as `HOST[:PORT]`.
    pub fn find(&self, registry: &str, repository: &str) -> Looked {
        let host = canonical(registry);
        let mut looked = Looked::default();
        for source in &self.sources {
            looked.login = match source.content() {
                Ok(Some(file)) => self.look(&source.name, file, &host, repository, &mut looked),
                Ok(None) => {
                    looked.places.push(format!("{} (not there)", source.name));
                    None
                }
                Err(why) => {
                    let place = format!("{} (cannot be used)", source.name);
                    looked.places.push(place);
                    looked.failures.push(why.to_owned());
                    None
                }
            };
            if let Some(login) = &looked.login {
                login.keep();
                break;
            }
        }
        looked
    }

    /// Looks in one file.
    fn look(
        &self,
        name: &str,
        file: &AuthFile,
        host: &str,
        repository: &str,
        looked: &mut Looked,
    ) -> Option<Login> {
        for (helper, server) in file.helpers(host) {
            let program = format!("docker-credential-{helper}");
            match self.ask(helper, server) {
                Answer::Found(login) => {
                    looked.places.push(format!("{program} (of {name})"));
                    return Some(login);
                }
                Answer::Nothing => {
                    let place = format!("{program} (of {name}: no credentials for {host})");
                    looked.places.push(place);
                }
                Answer::Failed(why) => {
                    looked.places.push(format!("{program} (of {name}: failed)"));
                    let failure = format!("{why}; {name} names it for {host}");
                    looked.failures.push(failure);
                }
            }
        }
        for (key, entry) in file.entries(host, repository) {
            match entry {
                Entry::Login(login) => {
                    looked.places.push(name.to_owned());
                    return Some(login);
                }
                Entry::Nothing => {}
                Entry::Malformed(why) => {
                    looked
                        .failures
                        .push(format!("the entry `{key}` of {name} {why}"));
                }
            }
        }
        looked.places.push(format!("{name} (nothing for {host})"));
        None
    }

    /// Asks a helper, the first time. Whoever asks meanwhile waits for the same answer.
    fn ask(&self, helper: &str, server: &str) -> Answer {
        let key = (helper.to_owned(), server.to_owned());
        let slot = {
            let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(answers.entry(key).or_default())
        };
        slot.get_or_init(|| self.helpers.ask(helper, server))
            .clone()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::process::Command;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Instant;

    use super::*;

    /// Writes a helper. Another program does it: a file that this one has open for writing could be inherited by a program
    /// that another thread starts, and would not run then.
    pub(super) fn script(folder: &Path, name: &str, body: &str) {
        let source = folder.join(format!("{name}.source"));
        fs::write(&source, format!("#!/bin/sh\n{body}\n")).unwrap();
        let status = Command::new("install")
            .args(["-m", "755"])
            .arg(&source)
            .arg(folder.join(format!("docker-credential-{name}")))
            .status();
        assert!(status.unwrap().success());
        fs::remove_file(source).unwrap();
    }

    fn login(user: &str, secret: &str) -> Option<Login> {
        Some(Login::Password {
            user: user.to_owned(),
            password: secret.to_owned(),
        })
    }

    fn auths(host: &str, user: &str) -> String {
        format!(r#"{{"auths":{{"{host}":{{"username":"{user}","password":"p"}}}}}}"#)
    }

    /// A home with every file there is, each with its own user, and a folder of programs.
    struct Home(tempfile::TempDir);

    impl Home {
        fn new() -> Self {
            let home = Self(tempfile::tempdir().unwrap());
            for (name, text) in [
                ("asked.json", auths("a.example", "asked")),
                ("docker/config.json", auths("a.example", "docker-config")),
                (".docker/config.json", auths("a.example", "docker")),
                ("run/containers/auth.json", auths("a.example", "runtime")),
                ("xdg/containers/auth.json", auths("a.example", "xdg")),
                (".config/containers/auth.json", auths("a.example", "podman")),
            ] {
                home.write(name, &text);
            }
            fs::create_dir(home.path("bin")).unwrap();
            home
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn write(&self, name: &str, text: &str) {
            let path = self.path(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn script(&self, name: &str, body: &str) {
            script(&self.path("bin"), name, body);
        }

        fn places(&self) -> Places {
            Places {
                home: Some(self.path("")),
                path: Some(self.path("bin").into()),
                ..Places::default()
            }
        }

        fn find(&self, host: &str) -> Looked {
            Credentials::new(self.places()).find(host, "ns/repo")
        }
    }

    #[test]
    fn places_have_an_order() {
        let home = Home::new();
        let mut places = Places {
            authfile: Some(home.path("asked.json")),
            docker_auth_config: Some(auths("a.example", "text")),
            docker_config: Some(home.path("docker")),
            runtime_dir: Some(home.path("run")),
            config_home: Some(home.path("xdg")),
            ..home.places()
        };
        let user = |places: &Places| {
            let looked = Credentials::new(places.clone()).find("a.example", "ns/repo");
            assert_eq!(looked.failures, [""; 0]);
            match looked.login {
                Some(Login::Password { user, .. }) => user,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(user(&places), "asked");
        places.authfile = None;
        assert_eq!(user(&places), "text");
        places.docker_auth_config = None;
        assert_eq!(user(&places), "docker-config");
        places.docker_config = None;
        assert_eq!(user(&places), "docker");
        fs::remove_file(home.path(".docker/config.json")).unwrap();
        assert_eq!(user(&places), "runtime");
        places.runtime_dir = None;
        assert_eq!(user(&places), "xdg");
        places.config_home = None;
        assert_eq!(user(&places), "podman");
    }

    #[test]
    fn says_where_it_looked() {
        let home = Home::new();
        fs::remove_file(home.path(".docker/config.json")).unwrap();
        let places = Places {
            docker_auth_config: Some("{}".into()),
            ..home.places()
        };
        let credentials = Credentials::new(places.clone());
        let found = credentials.find("a.example", "x");
        let docker = home.path(".docker/config.json");
        let podman = home.path(".config/containers/auth.json");
        let expected = [
            "DOCKER_AUTH_CONFIG (nothing for a.example)".to_owned(),
            format!("{} (not there)", docker.display()),
            podman.display().to_string(),
        ];
        assert_eq!(found.places, expected);
        let nothing = credentials.find("b.example", "x");
        assert_eq!(nothing.login, None);
        let last = format!("{} (nothing for b.example)", podman.display());
        assert_eq!(nothing.places.last(), Some(&last));
        assert_eq!(nothing.failures, [""; 0]);
        assert_eq!(
            Credentials::new(Places::default()).find("a", "x"),
            Looked::default()
        );
    }

    #[test]
    fn a_file_that_the_user_names_is_the_only_one() {
        let home = Home::new();
        let mut places = home.places();
        places.authfile = Some(home.path("asked.json"));
        let looked = Credentials::new(places.clone()).find("b.example", "x");
        assert_eq!((looked.login, looked.places.len()), (None, 1));
        places.authfile = Some(home.path("missing.json"));
        let looked = Credentials::new(places).find("a.example", "x");
        assert_eq!((&looked.login, looked.places.len()), (&None, 1));
        assert!(
            looked.failures[0].contains("missing.json: No such file"),
            "{looked:?}"
        );
    }

    #[test]
    fn names_of_docker_hub_are_one() {
        for key in [
            "https://index.docker.io/v1/",
            "docker.io",
            "registry-1.docker.io",
        ] {
            let places = Places {
                docker_auth_config: Some(auths(key, "hub")),
                ..Places::default()
            };
            let credentials = Credentials::new(places);
            for host in [
                "docker.io",
                "index.docker.io",
                "registry-1.docker.io",
                "Docker.IO",
            ] {
                let found = credentials.find(host, "library/python").login;
                assert_eq!(found, login("hub", "p"), "{key} {host}");
            }
        }
    }

    #[test]
    fn damaged_files_are_told_and_passed_over() {
        let home = Home::new();
        home.write(".docker/config.json", "{\"auths\": secret");
        let looked = home.find("a.example");
        assert_eq!(looked.login, login("podman", "p"));
        let said = looked.failures.join("\n");
        assert!(
            said.contains(".docker/config.json is no JSON (line 1, column 11)"),
            "{said}"
        );
        assert!(
            looked.places[0].contains("config.json (cannot be used)"),
            "{looked:?}"
        );
        assert!(!format!("{looked:?}").contains("secret"));

        home.write(
            ".docker/config.json",
            &" ".repeat(1 + places::MAX_FILE as usize),
        );
        let said = home.find("a.example").failures.join("\n");
        assert!(said.contains("is larger than 1048576 bytes"), "{said}");

        fs::remove_file(home.path(".docker/config.json")).unwrap();
        fs::create_dir(home.path(".docker/config.json")).unwrap();
        let said = home.find("a.example").failures.join("\n");
        assert!(said.contains("it is no regular file"), "{said}");
    }

    #[test]
    fn a_malformed_entry_is_told() {
        let home = Home::new();
        let text = r#"{"auths":{"a.example/ns":{"auth":"!"},"a.example":{"username":"u","password":"p"}}}"#;
        home.write(".docker/config.json", text);
        let looked = home.find("a.example");
        assert_eq!(looked.login, login("u", "p"));
        assert!(
            looked.failures[0].starts_with("the entry `a.example/ns` of /"),
            "{looked:?}"
        );
    }

    #[test]
    fn helpers_come_before_entries() {
        let home = Home::new();
        // A helper that says what it was asked, and by whom.
        let body = |name: &str| {
            format!(
                "read -r server || :\nprintf '{{\"Username\":\"{name}-%s\",\"Secret\":\"%s\"}}' \"$1\" \"$server\""
            )
        };
        home.script("own", &body("own"));
        home.script("store", &body("store"));
        let text = r#"{"credHelpers":{"a.example":"own","docker.io":"own"},"credsStore":"store",
            "auths":{"a.example":{"username":"u","password":"p"}}}"#;
        home.write(".docker/config.json", text);
        let looked = home.find("a.example");
        assert_eq!(looked.login, login("own-get", "a.example"));
        let name = home.path(".docker/config.json");
        let place = format!("docker-credential-own (of {})", name.display());
        assert_eq!(looked.places, [place]);
        assert_eq!(
            home.find("b.example:5000").login,
            login("store-get", "b.example:5000")
        );
        assert_eq!(home.find("docker.io").login, login("own-get", DOCKER_HUB));
    }

    #[test]
    fn a_helper_without_credentials_leads_on() {
        let home = Home::new();
        home.script(
            "own",
            "echo credentials not found in native keychain\nexit 1",
        );
        let text = r#"{"credHelpers":{"a.example":"own"},"credsStore":"gone",
            "auths":{"a.example":{"username":"u","password":"p"}}}"#;
        home.write(".docker/config.json", text);
        let looked = home.find("a.example");
        assert_eq!(looked.login, login("u", "p"));
        let name = home.path(".docker/config.json").display().to_string();
        let expected = [
            format!("docker-credential-own (of {name}: no credentials for a.example)"),
            format!("docker-credential-gone (of {name}: failed)"),
            name.clone(),
        ];
        assert_eq!(looked.places, expected);
        let failure =
            format!("docker-credential-gone is not on the PATH; {name} names it for a.example");
        assert_eq!(looked.failures, [failure]);
    }

    #[test]
    fn a_helper_is_asked_once_for_a_host() {
        let home = Home::new();
        let log = home.path("log");
        let body = format!(
            "cat >> {0}; echo >> {0}; sleep 0.1; echo '{{\"Username\":\"u\",\"Secret\":\"s\"}}'",
            log.display()
        );
        home.script("store", &body);
        home.write(".docker/config.json", r#"{"credsStore":"store"}"#);
        let credentials = Credentials::new(home.places());
        std::thread::scope(|scope| {
            for number in 0..8 {
                let credentials = &credentials;
                scope.spawn(move || {
                    let found = credentials.find("a.example", &format!("repo{number}"));
                    assert_eq!(found.login, login("u", "s"));
                });
            }
        });
        assert_eq!(credentials.find("b.example", "x").login, login("u", "s"));
        // Files are read once, too.
        fs::remove_file(home.path(".docker/config.json")).unwrap();
        assert_eq!(credentials.find("a.example", "x").login, login("u", "s"));
        assert_eq!(fs::read_to_string(log).unwrap(), "a.example\nb.example\n");
    }

    #[test]
    fn a_hanging_helper_ends_with_its_limit_or_when_the_user_stops() {
        let home = Home::new();
        home.script("store", "sleep 600");
        home.write(".docker/config.json", r#"{"credsStore":"store"}"#);
        let start = Instant::now();
        let credentials = Credentials::new(home.places());
        let credentials = credentials.with_helper_limit(Duration::from_millis(200));
        let looked = credentials.find("b.example", "x");
        assert!(
            looked.failures[0].contains("docker-credential-store did not answer within 200ms"),
            "{looked:?}"
        );
        let stop = Arc::new(AtomicBool::new(true));
        let asked = Arc::clone(&stop);
        let credentials =
            Credentials::new(home.places()).stopped_by(move || asked.load(Ordering::Relaxed));
        let looked = credentials.find("b.example", "x");
        assert!(
            looked.failures[0].contains("docker-credential-store was stopped"),
            "{looked:?}"
        );
        assert!(start.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn nothing_secret_is_shown() {
        let places = Places {
            docker_auth_config: Some("hush".into()),
            ..Places::default()
        };
        let logins = [
            login("u", "hush").unwrap(),
            Login::Identity("hush".into()),
            Login::Bearer("hush".into()),
        ];
        let shown = format!(
            "{places:?} {logins:?} {:?}",
            Credentials::new(places.clone())
        );
        assert!(
            !shown.contains("hush") && shown.contains("(hidden)"),
            "{shown}"
        );
    }
}
