//! What a registry wants for credentials: `WWW-Authenticate` (RFC 9110, 11.6.1). Knows no credentials.

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// What a registry asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Challenge {
    /// A token that another server gives.
    Bearer(Bearer),
    /// User and password.
    Basic,
}

/// A demand for a token (distribution, "Token Authentication Specification").
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Bearer {
    /// The URL of the server that gives tokens.
    pub(super) realm: String,
    /// The name of the registry there.
    pub(super) service: Option<String>,
    /// What the token must allow.
    pub(super) scope: Option<String>,
    /// Why the last one does not do.
    pub(super) error: Option<String>,
}

impl Challenge {
    /// Returns the best challenge of an answer: a token before a password. Others are not understood, and passed over.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let texts = headers.get_all(WWW_AUTHENTICATE).iter();
        let all: Vec<(String, Vec<(String, String)>)> = texts
            .filter_map(|value| value.to_str().ok())
            .flat_map(parse)
            .collect();
        let bearer = all
            .iter()
            .filter(|(scheme, _)| scheme == "bearer")
            .find_map(|(_, parameters)| {
                let get = |name: &str| {
                    let found = parameters.iter().find(|(it, _)| it == name);
                    found.map(|(_, value)| value.clone())
                };
                Some(Bearer {
                    realm: get("realm").filter(|realm| !realm.is_empty())?,
                    service: get("service"),
                    scope: get("scope"),
                    error: get("error"),
                })
            });
        if let Some(bearer) = bearer {
            return Some(Self::Bearer(bearer));
        }
        all.iter()
            .any(|(scheme, _)| scheme == "basic")
            .then_some(Self::Basic)
    }

    /// Tells whether the last token did not allow enough.
    pub(super) fn is_scope_missing(&self) -> bool {
        matches!(self, Self::Bearer(bearer) if bearer.error.as_deref() == Some("insufficient_scope"))
    }
}

/// Parses a list of challenges: `SCHEME name=value, name="value", SCHEME …`. Names and schemes become lower case.
fn parse(text: &str) -> Vec<(String, Vec<(String, String)>)> {
    let mut challenges: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find([' ', '\t', ',', '=', '"']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if word.is_empty() {
            // Nothing that makes sense: what was understood so far counts.
            return challenges;
        }
        let word = word.to_ascii_lowercase();
        let value = after.trim_start_matches([' ', '\t']).strip_prefix('=');
        match value {
            Some(value) => {
                let (value, after) = read_value(value.trim_start_matches([' ', '\t', '=']));
                if let Some((_, parameters)) = challenges.last_mut() {
                    parameters.push((word, value));
                }
                rest = after;
            }
            None => {
                challenges.push((word, Vec::new()));
                rest = after;
            }
        }
    }
}

/// Reads a token or a quoted string, and returns what follows.
fn read_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', '\t', ',']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, it)| it)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(texts: &[&str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for text in texts {
            headers.append(WWW_AUTHENTICATE, text.parse().unwrap());
        }
        Challenge::of(&headers)
    }

    #[test]
    fn reads_what_registries_send() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| {
            Some(Challenge::Bearer(Bearer {
                realm: realm.to_owned(),
                service: service.map(str::to_owned),
                scope: scope.map(str::to_owned),
                error: None,
            }))
        };
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;
        let expected = bearer(
            "https://auth.docker.io/token",
            Some("registry.docker.io"),
            Some("repository:a/b:pull,push"),
        );
        assert_eq!(read(&[hub]), expected);
        assert_eq!(read(&["Basic realm=\"x\"", hub]), expected);
        assert_eq!(read(&[&format!("Basic realm=x, {hub}")]), expected);
        assert_eq!(
            read(&[&format!("Negotiate, {hub}, Basic realm=\"y\"")]),
            expected
        );
        assert_eq!(
            read(&[r#"bearer Realm = "https://a/\"t\"" , SERVICE=s"#]),
            bearer("https://a/\"t\"", Some("s"), None)
        );
        assert_eq!(
            read(&["Basic realm=\"Bearer realm=x\""]),
            Some(Challenge::Basic)
        );
        assert_eq!(read(&["BASIC"]), Some(Challenge::Basic));
    }

    #[test]
    fn passes_over_what_it_does_not_understand() {
        for text in [
            "",
            "Negotiate",
            "Bearer",
            "Bearer service=x",
            "Bearer realm=\"\"",
            "= , \"",
            "Digest realm=\"Basic\"",
        ] {
            assert_eq!(read(&[text]), None, "{text}");
        }
        assert_eq!(
            read(&["Negotiate oYGVMIGS==", "Basic"]),
            Some(Challenge::Basic)
        );
    }

    #[test]
    fn tells_a_missing_scope() {
        let read = read(&[r#"Bearer realm="https://a",error="insufficient_scope""#]);
        assert!(read.unwrap().is_scope_missing());
    }
}
