//! Asking a token server for a token (distribution, "Token Authentication"). Remembers nothing.

use reqwest::{Method, Url};
use serde::Deserialize;

use super::Client;
use super::challenge::Bearer;
use super::credentials::Login;
use super::error::{Asked, RegistryError, clean};
use super::host::Host;
use super::http::{Ask, At, Auth, Payload};
use super::reply::{Reply, SMALL};
use super::scope::Scope;
use super::token::{basic, header};
use super::url;

/// How long a token lives that does not say so; none lives shorter (distribution, "Token Response Fields").
const LIFE: u64 = 60;

impl Client {
    /// Asks the token server. An identity token goes by POST, and by GET where the server does not know that.
    pub(super) fn token(
        &self,
        host: &Host,
        repository: &str,
        scopes: &[Scope],
        bearer: &Bearer,
        login: Option<Login>,
        is_pull: bool,
    ) -> Result<Token, RegistryError> {
        let realm = self.realm(host, repository, bearer)?;
        let server = self.host(&url::authority(&realm));
        let get = |login: Option<(&str, &str)>| {
            let mut url = realm.clone();
            {
                let mut query = url.query_pairs_mut();
                if let Some(service) = &bearer.service {
                    query.append_pair("service", service);
                }
                for scope in scopes {
                    query.append_pair("scope", &scope.to_string());
                }
            }
            let header = login.map(|(user, password)| header("Basic", &basic(user, password)));
            let mut ask = Ask {
                auth: Auth::Fixed(header.flatten()),
                ..Ask::new(&server, Method::GET, At::Url(url), repository, "a token")
            };
            self.send(&mut ask)
        };
        let login = match &login {
            Some(Login::Password { user, password }) => Some((user.as_str(), password.as_str())),
            Some(Login::Identity(token)) => {
                let reply =
                    self.post_for_token(&server, &realm, repository, scopes, bearer, token)?;
                match reply.status() {
                    400 | 401 | 404 | 405 => Some(("<token>", token.as_str())),
                    _ => return read(reply),
                }
            }
            _ => None,
        };
        let reply = get(login)?;
        if is_pull && login.is_some() && matches!(reply.status(), 401 | 403) {
            self.tell(&format!(
                "{} refuses the credentials that were found; going on without them",
                host.name
            ));
            let anonymous = get(None)?;
            if anonymous.status() == 200 {
                return read(anonymous);
            }
        }
        if matches!(reply.status(), 400 | 401 | 403) {
            return Err(self.refused(host, login.is_some(), reply));
        }
        read(reply)
    }

    /// Asks for a token by an identity token (distribution, "Token Authentication: OAuth2").
    fn post_for_token<'c>(
        &'c self,
        server: &Host,
        realm: &Url,
        repository: &str,
        scopes: &[Scope],
        bearer: &Bearer,
        identity: &str,
    ) -> Result<Reply<'c>, RegistryError> {
        let texts: Vec<String> = scopes.iter().map(ToString::to_string).collect();
        // A URL's query is written as a form is.
        let mut form = realm.clone();
        form.set_query(None);
        form.query_pairs_mut()
            .append_pair("grant_type", "refresh_token")
            .append_pair("service", bearer.service.as_deref().unwrap_or_default())
            .append_pair("client_id", "imgdecl")
            .append_pair("scope", &texts.join(" "))
            .append_pair("refresh_token", identity);
        let body = form.query().unwrap_or_default().as_bytes();
        let mut ask = Ask {
            auth: Auth::Fixed(None),
            body: Payload::Bytes(body),
            ..Ask::new(
                server,
                Method::POST,
                At::Url(realm.clone()),
                repository,
                "a token",
            )
        };
        ask.header("content-type", "application/x-www-form-urlencoded");
        self.send(&mut ask)
    }

    /// Checks where a challenge sends us.
    fn realm(&self, host: &Host, repository: &str, bearer: &Bearer) -> Result<Url, RegistryError> {
        let fail = |why| RegistryError::Unsafe {
            asked: Box::new(Asked {
                registry: host.name.clone(),
                repository: repository.to_owned(),
                method: "GET".to_owned(),
                what: "a token".to_owned(),
                ..Asked::default()
            }),
            to: clean(&bearer.realm),
            why,
        };
        let realm = Url::parse(&bearer.realm)
            .ok()
            .filter(|url| url.host_str().is_some() && url.username().is_empty())
            .ok_or_else(|| fail("which is no URL"))?;
        url::may_trust_realm(&host.authority, &realm, host.config.insecure).map_err(fail)?;
        Ok(realm)
    }
}

/// A token as a server gave it.
pub(super) struct Token {
    pub(super) text: String,
    /// In seconds.
    pub(super) life: u64,
}

/// Reads the answer of a token server.
fn read(mut reply: Reply<'_>) -> Result<Token, RegistryError> {
    if reply.status() != 200 {
        return Err(reply.refused_for("200 and a token"));
    }
    let body = reply.bytes(SMALL)?;
    parse(&body).map_err(|why| reply.wrong(why))
}

/// Reads the body of an answer: says why it is no token.
fn parse(body: &[u8]) -> Result<Token, &'static str> {
    #[derive(Deserialize)]
    struct Body {
        token: Option<String>,
        access_token: Option<String>,
        #[serde(default)]
        expires_in: Option<serde_json::Number>,
    }
    // The parser's message could show what it read: it stays here.
    let body: Body = serde_json::from_slice(body).map_err(|_| "the answer is no token in JSON")?;
    let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
    let text = filled(body.access_token).or(filled(body.token));
    let text = text.ok_or("the answer holds no token")?;
    let life = body
        .expires_in
        .and_then(|life| life.as_f64())
        .unwrap_or(0.0);
    Ok(Token {
        text,
        // Saturates; a day is more than any run needs.
        life: (life as u64).clamp(LIFE, 86_400),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_is_absent() {
        let body = serde_json::json!({
            "token": "a", "access_token": "b", "expires_in": 300, "issued_at": "x", "refresh_token": "c", "scope": "d",
        });
        crate::oci::assert_null_is_absent(&body, |bytes| parse(bytes).map(|it| (it.text, it.life)));
        assert!(parse(br#"{"token":null,"access_token":null}"#).is_err());
    }
}
