//! Users and passwords for indexes: from URLs, `.netrc` and variables. Reads no file and no environment: texts are given.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use reqwest::header::HeaderValue;

use super::Source;
use super::netrc::Netrc;
use crate::net::url;
use crate::shown;

/// A user and a password.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Login {
    pub(super) user: String,
    pub(super) password: Option<String>,
}

/// Without the password; a user may be a token.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(…)")
    }
}

impl Login {
    pub(super) fn new(user: &str, password: &str) -> Self {
        Self {
            user: user.to_owned(),
            password: Some(password.to_owned()),
        }
    }

    /// Returns the login that a URL holds.
    pub(super) fn of_url(url: &Url) -> Option<Self> {
        if url.username().is_empty() && url.password().is_none() {
            return None;
        }
        let login = Self {
            user: url::decode(url.username()),
            password: url.password().map(url::decode),
        };
        // A name alone is no secret yet: its password may be elsewhere.
        if login.password.is_some() {
            login.keep();
        }
        Some(login)
    }

    /// Has its secret struck out of all that is shown. A user without a password is a token.
    fn keep(&self) {
        match self.password.as_deref().filter(|it| !it.is_empty()) {
            Some(password) => shown::keep_login(&self.user, password),
            None => shown::keep(&self.user),
        }
    }

    /// Makes the header that shows it (RFC 7617).
    pub(super) fn header(&self) -> Option<HeaderValue> {
        let password = self.password.as_deref().unwrap_or_default();
        self.keep();
        let text = STANDARD.encode(format!("{}:{password}", self.user));
        let mut value = HeaderValue::from_str(&format!("Basic {text}")).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

/// Where credentials for indexes come from, besides the URLs of the indexes.
#[derive(Clone, Default)]
pub struct Credentials {
    netrc: Netrc,
    /// `UV_INDEX_NAME_USERNAME` and `UV_INDEX_NAME_PASSWORD`.
    variables: BTreeMap<String, String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

impl Credentials {
    /// Takes the text of `.netrc`, and the variables whose names are like `UV_INDEX_NAME_USERNAME`.
    pub fn new(netrc: Option<&str>, variables: BTreeMap<String, String>) -> Self {
        Self {
            netrc: netrc.map(Netrc::parse).unwrap_or_default(),
            variables,
        }
    }

    /// Returns the login for a URL of an index: its own one on its own host, else what `.netrc` has for that very host.
    pub(super) fn find(&self, url: &Url, index: Option<&Source>) -> Option<Login> {
        if let Some(index) = index.filter(|it| url::is_same(it.address(), url)) {
            return self.of_index(index);
        }
        // A password is not sent in the open to a host that nobody named.
        let is_safe = url.scheme() == "https" || url::is_loopback(&url::authority(url));
        let host = url.host_str().filter(|_| is_safe)?;
        self.netrc.of_machine(host, None)
    }

    fn of_index(&self, index: &Source) -> Option<Login> {
        let own = index.login();
        if let Some(login) = own.filter(|it| it.password.is_some()) {
            return Some(login.clone());
        }
        let variable = |what: &str| {
            let name: String = index
                .name()
                .chars()
                .map(|it| match it.is_ascii_alphanumeric() {
                    true => it.to_ascii_uppercase(),
                    false => '_',
                })
                .collect();
            let value = self.variables.get(&format!("UV_INDEX_{name}_{what}"));
            value.filter(|it| !it.is_empty()).cloned()
        };
        let user = own.map(|it| it.user.clone());
        let user = user.or_else(|| variable("USERNAME"));
        let password = variable("PASSWORD");
        if let Some(password) = password {
            return Some(Login {
                user: user.unwrap_or_default(),
                password: Some(password),
            });
        }
        let host = index.address().host_str().unwrap_or_default();
        let found = self.netrc.of_machine(host, user.as_deref());
        let found = found.or_else(|| self.netrc.of_any(user.as_deref()));
        found.or_else(|| {
            let user = user?;
            Some(Login {
                user,
                password: None,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(url: &str, index: &str, netrc: &str, variables: &[(&str, &str)]) -> Option<String> {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let credentials = Credentials::new(Some(netrc), variables.iter().map(pair).collect());
        let source = Source::new(Some("My.Own"), index).unwrap();
        let login = credentials.find(&url.parse().unwrap(), Some(&source))?;
        Some(format!(
            "{}:{}",
            login.user,
            login.password.unwrap_or_default()
        ))
    }

    const INDEX: &str = "https://i.example/simple/";
    const FILE: &str = "https://i.example/files/a.whl";
    const NETRC: &str = "machine i.example login n password np\nmachine f.example login f password fp\ndefault login d password dp";

    #[test]
    fn the_url_comes_first() {
        let variables = [
            ("UV_INDEX_MY_OWN_USERNAME", "v"),
            ("UV_INDEX_MY_OWN_PASSWORD", "vp"),
        ];
        let own = "https://u:u%3Ap@i.example/simple/";
        assert_eq!(find(FILE, own, NETRC, &variables).unwrap(), "u:u:p");
        assert_eq!(find(FILE, INDEX, NETRC, &variables).unwrap(), "v:vp");
        assert_eq!(find(FILE, INDEX, NETRC, &[]).unwrap(), "n:np");
        assert_eq!(find(FILE, INDEX, "", &[]), None);
        let user = "https://u@i.example/simple/";
        assert_eq!(find(FILE, user, NETRC, &variables).unwrap(), "u:vp");
        assert_eq!(find(FILE, user, "", &[]).unwrap(), "u:");
        let other = "https://u:p@j.example/";
        assert_eq!(
            find("https://j.example/x", other, NETRC, &[]).unwrap(),
            "u:p"
        );
        let unknown = "https://k.example/";
        assert_eq!(
            find("https://k.example/x", unknown, NETRC, &[]).unwrap(),
            "d:dp"
        );
    }

    #[test]
    fn other_hosts_get_what_netrc_says_of_them_alone() {
        let own = "https://u:p@i.example/simple/";
        assert_eq!(
            find("https://f.example/x", own, NETRC, &[]).unwrap(),
            "f:fp"
        );
        assert_eq!(find("https://g.example/x", own, NETRC, &[]), None);
        assert_eq!(find("http://f.example/x", own, NETRC, &[]), None);
        assert_eq!(find("https://i.example:444/x", own, "", &[]), None);
        assert_eq!(find("http://i.example/x", own, "", &[]), None);
    }

    #[test]
    fn a_header_shows_nothing() {
        let login = Login::new("user", "secret");
        let header = login.header().unwrap();
        assert_eq!(header.to_str().unwrap(), "Basic dXNlcjpzZWNyZXQ=");
        assert!(!format!("{login:?} {header:?}").contains("ecret"));
    }
}
