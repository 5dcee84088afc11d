//! The credentials of a host's requests: what was granted, renewed before it expires, one at a time for each scope.
//!
//! Knows nothing of what the requests are about. Never looks into a token.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};

use super::Client;
use super::challenge::Challenge;
use super::credentials::Login;
use super::error::{Asked, RegistryError};
use super::host::Host;
use super::scope::{self, Scope};
use crate::shown;

/// How long before its end a token is renewed.
const EARLY: Duration = Duration::from_secs(30);

/// What a host granted.
#[derive(Default)]
pub(super) struct Tokens {
    /// What the host asked for last. Later requests bring it without being asked.
    last: Mutex<Option<Challenge>>,
    slots: Mutex<BTreeMap<Vec<Scope>, Arc<Mutex<Slot>>>>,
    numbers: AtomicU64,
}

/// What was granted for some scopes. Its lock is held while a new token is asked for, so that there is one request.
#[derive(Default)]
struct Slot {
    challenge: Option<Challenge>,
    /// What a challenge asked for beyond our own scopes.
    more: Vec<Scope>,
    granted: Option<Granted>,
}

/// A header, and for how long it is good.
struct Granted {
    header: HeaderValue,
    until: Option<Instant>,
    number: u64,
    has_login: bool,
}

/// A header for one request.
#[derive(Clone)]
pub(super) struct Pass {
    pub(super) header: HeaderValue,
    /// Tells it from others of the host.
    number: u64,
    /// It was asked for just now.
    pub(super) is_fresh: bool,
    /// It stands for a login, not for anybody.
    pub(super) has_login: bool,
}

impl Tokens {
    fn slot(&self, scopes: &[Scope]) -> Arc<Mutex<Slot>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry(scopes.to_vec()).or_default())
    }

    fn last(&self) -> Option<Challenge> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.clone()
    }
}

impl Granted {
    fn pass(&self, is_fresh: bool) -> Pass {
        Pass {
            header: self.header.clone(),
            number: self.number,
            is_fresh,
            has_login: self.has_login,
        }
    }

    fn is_good(&self) -> bool {
        self.until.is_none_or(|until| Instant::now() < until)
    }
}

impl Client {
    /// Returns the header for a request, if the host is known to want one.
    pub(super) fn pass(
        &self,
        host: &Host,
        repository: &str,
        scopes: &[Scope],
    ) -> Result<Option<Pass>, RegistryError> {
        let slot = host.tokens.slot(scopes);
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(granted) = slot.granted.as_ref().filter(|granted| granted.is_good()) {
            return Ok(Some(granted.pass(false)));
        }
        let Some(challenge) = slot.challenge.clone().or_else(|| host.tokens.last()) else {
            return Ok(None);
        };
        self.fill(host, repository, scopes, &challenge, &mut slot)
    }

    /// Answers a challenge: returns a header to try again with; `None` if there is nothing better than what was `sent`.
    pub(super) fn renew(
        &self,
        host: &Host,
        repository: &str,
        scopes: &[Scope],
        headers: &HeaderMap,
        sent: Option<&Pass>,
    ) -> Result<Option<Pass>, RegistryError> {
        let slot = host.tokens.slot(scopes);
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        let known = slot.challenge.clone().or_else(|| host.tokens.last());
        let Some(challenge) = Challenge::of(headers).or(known) else {
            return Ok(None);
        };
        let wanted = match &challenge {
            Challenge::Bearer(bearer) => Scope::parse(bearer.scope.as_deref().unwrap_or_default()),
            Challenge::Basic => Vec::new(),
        };
        let is_enough = scope::cover(&scope::join(&slot.more, scopes), &wanted);
        if sent.is_some_and(|sent| sent.is_fresh) && is_enough {
            return Ok(None);
        }
        let newer = slot.granted.as_ref().filter(|granted| {
            granted.is_good() && sent.is_none_or(|sent| sent.number != granted.number)
        });
        if let Some(newer) = newer.filter(|_| is_enough) {
            return Ok(Some(newer.pass(true)));
        }
        if let (Challenge::Basic, Some(_)) = (&challenge, sent) {
            // The password is the same as the last time.
            return Ok(None);
        }
        slot.granted = None;
        slot.more = scope::join(&wanted, &slot.more);
        slot.challenge = Some(challenge.clone());
        let pass = self.fill(host, repository, scopes, &challenge, &mut slot)?;
        let mut last = host
            .tokens
            .last
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *last = Some(challenge);
        Ok(pass)
    }

    /// Asks for what a challenge wants, and puts it into the slot.
    fn fill(
        &self,
        host: &Host,
        repository: &str,
        scopes: &[Scope],
        challenge: &Challenge,
        slot: &mut Slot,
    ) -> Result<Option<Pass>, RegistryError> {
        let looked = self.credentials.find(&host.name, repository);
        let scopes = scope::join(&slot.more, scopes);
        let is_pull = scopes.iter().all(Scope::is_read_only);
        if looked.login.is_none() && !looked.failures.is_empty() {
            if !is_pull {
                return Err(RegistryError::Credentials {
                    registry: host.name.clone(),
                    failures: looked.failures,
                });
            }
            for failure in &looked.failures {
                self.tell(&format!("credentials for {}: {failure}", host.name));
            }
        }
        let has_login = looked.login.is_some();
        let (header, until) = match (challenge, looked.login) {
            (_, Some(Login::Bearer(token))) => (header("Bearer", &token), None),
            (Challenge::Basic, Some(Login::Password { user, password })) => {
                (header("Basic", &basic(&user, &password)), None)
            }
            // A password is wanted, and there is none.
            (Challenge::Basic, _) => return Ok(None),
            (Challenge::Bearer(bearer), login) => {
                let start = Instant::now();
                let token = self.token(host, repository, &scopes, bearer, login, is_pull)?;
                let life = Duration::from_secs(token.life);
                (header("Bearer", &token.text), Some(start + life - EARLY))
            }
        };
        let Some(header) = header else {
            let asked = Asked {
                registry: host.name.clone(),
                repository: repository.to_owned(),
                method: "GET".to_owned(),
                what: "a token".to_owned(),
                ..Asked::default()
            };
            let why = "the credentials have characters that a header cannot hold";
            return Err(RegistryError::content(&asked, why));
        };
        let granted = Granted {
            header,
            until,
            number: host.tokens.numbers.fetch_add(1, Ordering::Relaxed),
            has_login,
        };
        let pass = granted.pass(true);
        slot.granted = Some(granted);
        Ok(Some(pass))
    }
}

pub(super) fn basic(user: &str, password: &str) -> String {
    STANDARD.encode(format!("{user}:{password}"))
}

/// Makes a header that no debug output shows, and whose secret is struck out of all that is shown.
pub(super) fn header(scheme: &str, secret: &str) -> Option<HeaderValue> {
    shown::keep(secret);
    let mut value = HeaderValue::from_str(&format!("{scheme} {secret}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Puts a header into a request.
pub(super) fn put(headers: &mut HeaderMap, value: &HeaderValue) {
    headers.insert(AUTHORIZATION, value.clone());
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Server, Told, client};
    use super::*;
    use crate::oci::Reference;

    /// The Docker config file of a login.
    fn auth(registry: &str, entry: &str) -> String {
        format!(r#"{{"auths":{{"{registry}":{{{entry}}}}}}}"#)
    }

    const LOGIN: &str = r#""auth":"am9lOnNlY3JldA==""#;
    const BASIC: &str = "Basic am9lOnNlY3JldA==";

    /// A registry that wants a token of `/token`, which `give` gives, and takes those that `take` does.
    fn registry(
        give: impl Fn(&super::super::testing::Asked, usize) -> Told + Send + Sync + 'static,
        take: impl Fn(&str) -> bool + Send + Sync + 'static,
    ) -> Server {
        Server::start(move |before, asked| {
            if asked.path.starts_with("/token") {
                let given = before.iter().filter(|it| it.path.starts_with("/token"));
                return give(asked, given.count());
            }
            let token = asked.header("authorization").unwrap_or_default();
            if take(token) {
                return Told::new(200).body(r#"{"tags":["v1"]}"#);
            }
            let realm = format!("http://{}/token", asked.header("host").unwrap());
            Told::new(401).with(
                "www-authenticate",
                format!(r#"Bearer realm="{realm}",service="s",scope="repository:a/b:pull""#),
            )
        })
    }

    fn tags(
        server: &Server,
        auth: Option<&str>,
    ) -> (Result<Vec<String>, RegistryError>, Vec<String>) {
        let (client, ear) = client("", auth);
        let reference: Reference = format!("{}/a/b", server.name).parse().unwrap();
        let tags = client.tags(&reference);
        let notes = ear.notes.lock().unwrap().clone();
        (tags, notes)
    }

    #[test]
    fn a_token_is_asked_for_with_the_login() {
        let server = registry(
            |asked, _| {
                assert_eq!(asked.header("authorization"), Some(BASIC));
                Told::new(200).body(r#"{"token":"t0","expires_in":300}"#)
            },
            |token| token == "Bearer t0",
        );
        let (found, _) = tags(&server, Some(&auth(&server.name, LOGIN)));
        assert_eq!(found.unwrap(), ["v1"]);
        let expected = [
            "GET /v2/a/b/tags/list",
            "GET /token?service=s&scope=repository%3Aa%2Fb%3Apull",
            "GET /v2/a/b/tags/list",
        ];
        assert_eq!(server.lines(), expected);
    }

    #[test]
    fn a_token_that_is_refused_at_once_is_an_error() {
        let server = registry(
            |_, _| Told::new(200).body(r#"{"access_token":"t"}"#),
            |_| false,
        );
        let (found, _) = tags(&server, Some(&auth(&server.name, LOGIN)));
        let error = found.unwrap_err();
        assert_eq!(error.code(), "imgdecl::registry::unauthorised");
        assert!(
            error.to_string().contains("the credentials were refused"),
            "{error}"
        );
        let help = error.help().unwrap();
        assert!(help.contains("DOCKER_AUTH_CONFIG"), "{help}");
        assert!(!format!("{error:?}{help}").contains("secret"));
        assert_eq!(server.lines().len(), 3);
    }

    #[test]
    fn an_expired_token_is_renewed_once() {
        let server = registry(
            |_, given| Told::new(200).body(format!(r#"{{"token":"t{given}","expires_in":300}}"#)),
            {
                let taken = Mutex::new(0);
                move |token| {
                    // t0 is good for one request; t1 from then on.
                    let mut taken = taken.lock().unwrap();
                    *taken += u32::from(token == "Bearer t0");
                    token == "Bearer t1" || token == "Bearer t0" && *taken == 1
                }
            },
        );
        let (client, _) = client("", None);
        let reference: Reference = format!("{}/a/b", server.name).parse().unwrap();
        for _ in 0..3 {
            assert_eq!(client.tags(&reference).unwrap(), ["v1"]);
        }
        let tokens = server.lines();
        let tokens = tokens.iter().filter(|it| it.contains("/token"));
        assert_eq!(tokens.count(), 2);
    }

    #[test]
    fn refused_credentials_do_not_stop_a_public_pull() {
        let server = registry(
            |asked, _| match asked.header("authorization") {
                Some(_) => Told::new(401),
                None => Told::new(200).body(r#"{"token":"t"}"#),
            },
            |token| token == "Bearer t",
        );
        let (found, notes) = tags(&server, Some(&auth(&server.name, LOGIN)));
        assert_eq!(found.unwrap(), ["v1"]);
        assert_eq!(notes.len(), 1);
        assert!(notes[0].contains("refuses the credentials"), "{notes:?}");
    }

    #[test]
    fn identity_tokens_go_by_post_and_fall_back_to_get() {
        for status in [200, 400, 401, 404, 405] {
            let server = registry(
                move |asked, _| match asked.method.as_str() {
                    "POST" => {
                        let body = String::from_utf8(asked.body.clone()).unwrap();
                        assert!(body.contains("grant_type=refresh_token"), "{body}");
                        assert!(body.contains("refresh_token=i%2Fd"), "{body}");
                        Told::new(status).body(r#"{"access_token":"t"}"#)
                    }
                    _ => {
                        let login = asked.header("authorization").unwrap();
                        assert_eq!(login, format!("Basic {}", basic("<token>", "i/d")));
                        Told::new(200).body(r#"{"token":"t"}"#)
                    }
                },
                |token| token == "Bearer t",
            );
            let login = auth(&server.name, r#""identitytoken":"i/d""#);
            let (found, _) = tags(&server, Some(&login));
            assert_eq!(found.unwrap(), ["v1"], "{status}");
            let expected = if status == 200 { 3 } else { 4 };
            assert_eq!(server.lines().len(), expected);
        }
    }

    #[test]
    fn an_identity_token_is_not_sent_on() {
        let other = Server::start(|_, _| Told::new(200).body(r#"{"access_token":"t"}"#));
        for status in [301, 302, 303, 307, 308] {
            let to = format!("http://{}/token", other.name);
            let server = registry(
                move |_, _| Told::new(status).with("location", &to),
                |token| token == "Bearer t",
            );
            let login = auth(&server.name, r#""identitytoken":"i/d""#);
            let (found, _) = tags(&server, Some(&login));
            assert_eq!(found.unwrap_err().code(), "imgdecl::registry::answer");
        }
        assert!(other.asked().is_empty());
    }

    #[test]
    fn realms_elsewhere_get_nothing() {
        let server = Server::start(|_, _| {
            let realm = "http://auth.example/token";
            Told::new(401).with("www-authenticate", format!("Bearer realm=\"{realm}\""))
        });
        let (found, _) = tags(&server, Some(&auth(&server.name, LOGIN)));
        let error = found.unwrap_err();
        assert_eq!(error.code(), "imgdecl::registry::unsafe");
        assert!(error.to_string().contains("not encrypted"), "{error}");
    }

    #[test]
    fn threads_share_one_request_for_a_token() {
        let server = registry(
            |_, _| {
                std::thread::sleep(Duration::from_millis(50));
                Told::new(200).body(r#"{"token":"t"}"#)
            },
            |token| token == "Bearer t",
        );
        let (client, _) = client("", None);
        let reference: Reference = format!("{}/a/b", server.name).parse().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| assert_eq!(client.tags(&reference).unwrap(), ["v1"]));
            }
        });
        let tokens = server.lines();
        let tokens = tokens.iter().filter(|it| it.contains("/token"));
        assert_eq!(tokens.count(), 1);
    }
}
