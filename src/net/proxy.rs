//! Proxies, as the environment has them; whoever calls reads it. Knows no connection.

use reqwest::{NoProxy, Proxy, Url};

use super::fault::Fault;
use super::url;
use crate::shown;

/// The proxies, as the environment has them. Hosts of this machine are reached without.
#[derive(Clone, Default)]
pub struct Proxies {
    /// `HTTP_PROXY`.
    pub http: Option<String>,
    /// `HTTPS_PROXY`.
    pub https: Option<String>,
    /// `ALL_PROXY`.
    pub all: Option<String>,
    /// `NO_PROXY`.
    pub none: Option<String>,
}

impl std::fmt::Debug for Proxies {
    /// Shows which are set: their URLs may hold passwords.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxies")
            .field("http", &self.http.is_some())
            .field("https", &self.https.is_some())
            .field("all", &self.all.is_some())
            .field("none", &self.none)
            .finish()
    }
}

impl Proxies {
    /// Makes the proxies. This machine's own hosts are reached without.
    pub(crate) fn make(&self) -> Result<Vec<Proxy>, Fault> {
        let none = self.none.as_deref().unwrap_or_default();
        let none = NoProxy::from_string(&format!("localhost,127.0.0.0/8,::1,{none}"));
        type Make = fn(String) -> reqwest::Result<Proxy>;
        let said: [(&Option<String>, &str, Make); 3] = [
            (&self.http, "HTTP_PROXY", Proxy::http),
            (&self.https, "HTTPS_PROXY", Proxy::https),
            (&self.all, "ALL_PROXY", Proxy::all),
        ];
        let mut proxies = Vec::new();
        for (text, name, make) in said {
            let Some(text) = text.as_ref().filter(|text| !text.trim().is_empty()) else {
                continue;
            };
            let text = text.trim();
            let text = match text.contains("://") {
                true => text.to_owned(),
                false => format!("http://{text}"),
            };
            // The text may hold a password: it stays out of the message.
            let usable = Url::parse(&text)
                .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
            if let Some(url) = Url::parse(&text).ok().filter(|it| it.password().is_some()) {
                let password = url.password().unwrap_or_default();
                shown::keep_login(&url::decode(url.username()), &url::decode(password));
            }
            let proxy = usable.then(|| make(text).ok()).flatten();
            let Some(proxy) = proxy else {
                return Err(Fault::Setup(format!("{name} is no http or https URL")));
            };
            proxies.push(proxy.no_proxy(none.clone()));
        }
        Ok(proxies)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_that_is_none_is_named_without_its_password() {
        let proxies = Proxies {
            https: Some("socks5://user:secret@x".to_owned()),
            ..Proxies::default()
        };
        assert!(!format!("{proxies:?}").contains("secret"));
        let fault = proxies.make().unwrap_err().to_string();
        assert!(
            fault.contains("HTTPS_PROXY") && !fault.contains("secret"),
            "{fault}"
        );
        let proxies = Proxies {
            http: Some("proxy.example:3128".to_owned()),
            all: Some(" ".to_owned()),
            ..Proxies::default()
        };
        assert_eq!(proxies.make().unwrap().len(), 1);
    }
}
