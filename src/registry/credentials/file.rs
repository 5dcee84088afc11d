//! Auth files: docker's `config.json` and podman's `auth.json`, which have one form. Knows nothing of where they lie, and
//! runs no helper.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_PAD_INDIFFERENT;
use serde::Deserialize;
use serde_json::Value;

use super::{DOCKER_HUB, Login, canonical};
use crate::oci::without_nulls;

/// The user that stands for "the secret is an identity token" (docker's credential helpers).
const IDENTITY_USER: &str = "<token>";

/// What matters in an auth file.
#[derive(Deserialize, Default)]
pub(super) struct AuthFile {
    /// Helpers by host.
    #[serde(rename = "credHelpers", default, deserialize_with = "without_nulls")]
    helpers: BTreeMap<String, String>,
    /// The helper for all other hosts.
    #[serde(rename = "credsStore", default)]
    store: Option<String>,
    /// Entries by host or namespace: read when they are needed, so that a malformed one harms no other.
    #[serde(default, deserialize_with = "without_nulls")]
    auths: BTreeMap<String, Value>,
}

/// What an entry of `auths` says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// Credentials.
    Login(Login),
    /// Nothing: docker leaves an empty entry where a store has the credentials.
    Nothing,
    /// Something of no use, and why: it goes on after the entry's name.
    Malformed(String),
}

/// The fields of an entry.
#[derive(Deserialize)]
struct Fields {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

impl AuthFile {
    /// Parses a file. One of no bytes says nothing. An error goes on after the file's name, and repeats nothing of the
    /// file, where the secrets are.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        serde_json::from_slice(bytes).map_err(|error| {
            let what = match error.is_data() {
                true => {
                    "is no auth file: it needs an object with `auths`, `credHelpers`, `credsStore`"
                }
                false => "is no JSON",
            };
            format!("{what} (line {}, column {})", error.line(), error.column())
        })
    }

    /// Returns the helpers to ask for a host, with the name by which each knows the server: the host's own one, then the
    /// store. A host whose own helper is the empty name has none, as docker has it.
    pub(super) fn helpers<'a>(&'a self, host: &'a str) -> Vec<(&'a str, &'a str)> {
        let server = |name: &'a str| match host {
            "docker.io" => DOCKER_HUB,
            _ => name,
        };
        let mut all: Vec<(&str, &str)> = Vec::new();
        let own = self.helpers.iter();
        let mut own: Vec<(&str, &str)> = own
            .filter(|(key, _)| matches!(Key::parse(key), Key { host: it, path: "" } if it == host))
            .map(|(key, helper)| (key.as_str(), helper.as_str()))
            .collect();
        // The host as it is written before its other spellings.
        own.sort_by_key(|(key, _)| *key != host);
        match own.first() {
            Some((_, "")) => return all,
            Some((key, helper)) => all.push((helper, server(key))),
            None => {}
        }
        if let Some(store) = self.store.as_deref().filter(|it| !it.is_empty()) {
            let asked = (store, server(host));
            if !all.contains(&asked) {
                all.push(asked);
            }
        }
        all
    }

    /// Returns the entries for a repository of a host, the one with the longest path first.
    pub(super) fn entries<'a>(
        &'a self,
        host: &'a str,
        repository: &'a str,
    ) -> impl Iterator<Item = (&'a str, Entry)> {
        let mut found: Vec<(Key<'_>, &str, &Value)> = Vec::new();
        for (text, value) in &self.auths {
            let key = Key::parse(text);
            if key.host == host && key.holds(repository) {
                found.push((key, text, value));
            }
        }
        found.sort_by_key(|(key, text, _)| (std::cmp::Reverse(key.path.len()), *text != host));
        found
            .into_iter()
            .map(|(_, text, value)| (text, entry(value)))
    }
}

/// A key of `auths` or `credHelpers`, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Key<'a> {
    /// The host with its port, as [`canonical`] has it.
    host: String,
    /// The repository or namespace; empty for all of the host.
    path: &'a str,
}

impl<'a> Key<'a> {
    /// Takes a key apart: `HOST`, `HOST/NAMESPACE` as podman has it, and docker's URLs, whose path means nothing.
    fn parse(text: &'a str) -> Self {
        let stripped = ["https://", "http://"]
            .into_iter()
            .find_map(|scheme| text.strip_prefix(scheme));
        let rest = stripped.unwrap_or(text);
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let path = path.trim_end_matches('/');
        let path = match path {
            _ if stripped.is_some() => "",
            "v1" | "v2" => "",
            path => path,
        };
        Self {
            host: canonical(host),
            path,
        }
    }

    /// Tells whether the repository is the key's, or lies in the key's namespace.
    fn holds(&self, repository: &str) -> bool {
        let rest = repository.strip_prefix(self.path);
        self.path.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// Reads an entry.
fn entry(value: &Value) -> Entry {
    let malformed = |why: &str| Entry::Malformed(why.to_owned());
    if value.is_null() {
        return Entry::Nothing;
    }
    // The error of the deserialiser could repeat a secret.
    let Ok(fields) = Fields::deserialize(value) else {
        return malformed("is no object of strings");
    };
    let text = |field: Option<String>| field.filter(|it| !it.is_empty());
    if let Some(token) = text(fields.registrytoken) {
        return Entry::Login(Login::Bearer(token));
    }
    if let Some(token) = text(fields.identitytoken) {
        return Entry::Login(Login::Identity(token));
    }
    let (user, password) = match text(fields.auth) {
        Some(auth) => match decode(&auth) {
            Ok(pair) => pair,
            Err(why) => return malformed(why),
        },
        None => (
            fields.username.unwrap_or_default(),
            fields.password.unwrap_or_default(),
        ),
    };
    login(user, password).map_or(Entry::Nothing, Entry::Login)
}

/// Returns what a name and a secret are together; `None` where both are empty.
pub(super) fn login(user: String, password: String) -> Option<Login> {
    match (user.as_str(), password.as_str()) {
        ("", "") => None,
        (IDENTITY_USER, _) => Some(Login::Identity(password)),
        _ => Some(Login::Password { user, password }),
    }
}

/// Decodes `auth`: base64 of `USER:PASSWORD`. Only the password may have colons.
fn decode(auth: &str) -> Result<(String, String), &'static str> {
    let packed: Vec<u8> = auth
        .bytes()
        .filter(|it| !it.is_ascii_whitespace())
        .collect();
    let bytes = STANDARD_PAD_INDIFFERENT
        .decode(packed)
        .map_err(|_| "has an `auth` that is no base64")?;
    let text = String::from_utf8(bytes).map_err(|_| "has an `auth` that is no UTF-8")?;
    let (user, password) = text
        .split_once(':')
        .ok_or("has an `auth` that is not USER:PASSWORD in base64")?;
    // Old versions of docker filled it up with NULs.
    let password = password.trim_end_matches('\0');
    Ok((user.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn file(value: &Value) -> AuthFile {
        AuthFile::parse(value.to_string().as_bytes()).unwrap()
    }

    fn password(user: &str, password: &str) -> Entry {
        Entry::Login(Login::Password {
            user: user.to_owned(),
            password: password.to_owned(),
        })
    }

    fn auth(text: &str) -> Value {
        json!({ "auth": STANDARD_PAD_INDIFFERENT.encode(text) })
    }

    fn key(host: &str, path: &'static str) -> Key<'static> {
        Key {
            host: host.to_owned(),
            path,
        }
    }

    #[test]
    fn keys_are_taken_apart() {
        for (text, host, path) in [
            ("a.example", "a.example", ""),
            ("A.Example", "a.example", ""),
            ("a.example/", "a.example", ""),
            ("a.example:5000", "a.example:5000", ""),
            ("https://a.example", "a.example", ""),
            ("http://a.example:80/", "a.example:80", ""),
            ("https://a.example/v1/", "a.example", ""),
            ("https://a.example/v2", "a.example", ""),
            ("https://a.example/some/path", "a.example", ""),
            ("a.example/v2/", "a.example", ""),
            ("a.example/v1", "a.example", ""),
            ("a.example/ns/repo", "a.example", "ns/repo"),
            ("a.example/ns//", "a.example", "ns"),
            ("[::1]:5000/ns", "[::1]:5000", "ns"),
            ("https://index.docker.io/v1/", "docker.io", ""),
            ("index.docker.io", "docker.io", ""),
            ("registry-1.docker.io/v2/", "docker.io", ""),
            ("docker.io/library/python", "docker.io", "library/python"),
            ("", "", ""),
            ("https://", "", ""),
        ] {
            assert_eq!(Key::parse(text), key(host, path), "{text}");
        }
    }

    #[test]
    fn the_longest_path_wins_at_borders() {
        let file = file(&json!({ "auths": {
            "https://a.example/v1/": auth("url:x"),
            "a.example": auth("host:x"),
            "a.example/ns": auth("ns:x"),
            "a.example/ns/repo": auth("repo:x"),
            "a.example:5000": auth("port:x"),
        }}));
        let first = |host, repository| file.entries(host, repository).next().map(|it| it.1);
        for (host, repository, user) in [
            ("a.example", "ns/repo", "repo"),
            ("a.example", "ns/repo/deeper", "repo"),
            ("a.example", "ns/repository", "ns"),
            ("a.example", "ns", "ns"),
            ("a.example", "nsx", "host"),
            ("a.example", "other", "host"),
            ("a.example:5000", "ns/repo", "port"),
        ] {
            assert_eq!(
                first(host, repository),
                Some(password(user, "x")),
                "{repository}"
            );
        }
        assert_eq!(first("b.example", "ns/repo"), None);
        assert_eq!(first("example", "ns/repo"), None);
    }

    #[test]
    fn entries_have_several_forms() {
        let identity = |token: &str| Entry::Login(Login::Identity(token.into()));
        let zero = "00000000-0000-0000-0000-000000000000";
        for (value, expected) in [
            (auth("u:p"), password("u", "p")),
            (auth("u:p:q::"), password("u", "p:q::")),
            (auth("u:"), password("u", "")),
            (auth("u:p\0\0"), password("u", "p")),
            (auth(":"), Entry::Nothing),
            (json!({ "auth": "dTpw" }), password("u", "p")),
            (json!({ "auth": "dTpwcQ==" }), password("u", "pq")),
            (json!({ "auth": "dTpwcQ" }), password("u", "pq")),
            (json!({ "auth": " dTpw\ncQ==\n" }), password("u", "pq")),
            (
                json!({ "username": "u", "password": "p" }),
                password("u", "p"),
            ),
            (
                json!({ "auth": "", "username": "u", "password": "p", "email": "e" }),
                password("u", "p"),
            ),
            (
                json!({ "auth": "dTpw", "username": "v", "password": "w" }),
                password("u", "p"),
            ),
            (json!({}), Entry::Nothing),
            (json!(null), Entry::Nothing),
            (json!({ "auth": null, "identitytoken": "" }), Entry::Nothing),
            (
                json!({ "auth": "dTpw", "identitytoken": "t" }),
                identity("t"),
            ),
            (
                json!({ "registrytoken": "t", "auth": "dTpw" }),
                Entry::Login(Login::Bearer("t".into())),
            ),
            (auth("<token>:t"), identity("t")),
            (auth(&format!("{zero}:p")), password(zero, "p")),
            (
                json!({ "username": zero, "identitytoken": "t" }),
                identity("t"),
            ),
        ] {
            assert_eq!(entry(&value), expected, "{value}");
        }
    }

    #[test]
    fn what_is_malformed_is_told_without_secrets() {
        for (value, why) in [
            (json!({ "auth": "!secret!" }), "no base64"),
            (auth("secret"), "not USER:PASSWORD"),
            (
                json!({ "auth": STANDARD_PAD_INDIFFERENT.encode(b"\xff:secret") }),
                "no UTF-8",
            ),
            (
                json!({ "auth": 7, "password": "secret" }),
                "no object of strings",
            ),
            (json!({ "auth": ["secret"] }), "no object of strings"),
            (json!("secret"), "no object of strings"),
        ] {
            let Entry::Malformed(said) = entry(&value) else {
                panic!("{value} is taken");
            };
            assert!(
                said.contains(why) && !said.contains("secret"),
                "{value}: {said}"
            );
        }
        for (text, why) in [
            (
                "{\n\"auths\": \"secret\"}",
                "is no auth file: it needs an object",
            ),
            ("\"secret\"", "is no auth file"),
            ("{\"credsStore\": {\"secret\": 1}}", "is no auth file"),
            ("{\"auths\": {\"secret", "is no JSON (line 1, column 18)"),
            ("secret", "is no JSON (line 1"),
        ] {
            let said = AuthFile::parse(text.as_bytes()).err().expect(text);
            assert!(said.contains(why) && !said.contains("secret"), "{said}");
        }
    }

    #[test]
    fn an_empty_file_says_nothing() {
        for text in [
            "",
            " \n",
            "{}",
            "{\"auths\":null,\"credHelpers\":null,\"credsStore\":null}",
        ] {
            let file = AuthFile::parse(text.as_bytes()).unwrap();
            assert!(file.helpers("a.example").is_empty());
            assert_eq!(file.entries("a.example", "x").count(), 0);
        }
    }

    #[test]
    fn a_malformed_entry_harms_no_other() {
        let file = file(&json!({ "auths": { "a.example": 1, "b.example": auth("u:p") } }));
        let entries: Vec<_> = file.entries("b.example", "x").collect();
        assert_eq!(entries, [("b.example", password("u", "p"))]);
    }

    #[test]
    fn the_own_helper_of_a_host_comes_before_the_store() {
        let both = file(&json!({
            "credsStore": "store",
            "credHelpers": {
                "a.example": "own",
                "https://b.example": "own",
                "https://c.example": "url", "c.example": "own",
                "d.example": "",
                "e.example": "store",
                "docker.io": "own",
                "f.example/ns": "own",
            },
        }));
        for (host, expected) in [
            (
                "a.example",
                vec![("own", "a.example"), ("store", "a.example")],
            ),
            (
                "b.example",
                vec![("own", "https://b.example"), ("store", "b.example")],
            ),
            (
                "c.example",
                vec![("own", "c.example"), ("store", "c.example")],
            ),
            ("d.example", vec![]),
            ("e.example", vec![("store", "e.example")]),
            ("f.example", vec![("store", "f.example")]),
            ("a.example:5000", vec![("store", "a.example:5000")]),
            (
                "docker.io",
                vec![("own", DOCKER_HUB), ("store", DOCKER_HUB)],
            ),
        ] {
            assert_eq!(both.helpers(host), expected, "{host}");
        }
        let store = file(&json!({ "credsStore": "" }));
        assert!(store.helpers("a.example").is_empty());
    }

    #[test]
    fn null_is_absent() {
        let file = json!({
            "credHelpers": {"a.example": "one", "b.example": "two"}, "credsStore": "three", "HttpHeaders": {},
            "auths": {
                "a.example": {"auth": "dTpw", "username": "u", "password": "p", "email": "x"},
                "b.example": {"username": "u", "password": "p"},
                "c.example": {"identitytoken": "t", "auth": "dTpw"},
                "d.example": {"registrytoken": "t", "identitytoken": "t"},
            },
        });
        let hosts = ["a.example", "b.example", "c.example", "d.example"];
        crate::oci::assert_null_is_absent(&file, |bytes| {
            let file = AuthFile::parse(bytes)?;
            let of = |host: &str| {
                let own = |text: &str| text.to_owned();
                let helpers = file.helpers(host).into_iter();
                let helpers = helpers.map(|(a, b)| (own(a), own(b))).collect::<Vec<_>>();
                let entries = file.entries(host, "r").map(|(_, entry)| entry);
                // An entry of nothing says nothing.
                let entries = entries.filter(|it| *it != Entry::Nothing);
                (helpers, entries.collect::<Vec<_>>())
            };
            Ok::<_, String>(hosts.map(of))
        });
    }
}
