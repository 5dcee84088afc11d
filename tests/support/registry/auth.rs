//! Who may do what at a fault server: Basic logins, and a token server after the distribution project's token spec.
//! Knows nothing of what is stored.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::message::{Reply, Request, pairs};
use super::rule::fits;

/// How a registry knows its users.
#[derive(Clone, Debug)]
pub(crate) struct Auth {
    pub(crate) kind: Kind,
    /// Names and passwords.
    pub(crate) users: BTreeMap<String, String>,
    /// Anyone may pull.
    pub(crate) anonymous: bool,
    /// `REPOSITORY:ACTION` that no one is granted; `*` is any text.
    pub(crate) denied: Vec<String>,
    /// The token server's URL, if it is not this one's own `/token`.
    pub(crate) realm: Option<String>,
    /// A token that stands for a login, for `grant_type=refresh_token`.
    pub(crate) identity: Option<String>,
    /// What POST to the token server is answered with, if it is refused.
    pub(crate) post: Option<u16>,
    /// What GET is answered with, if it is refused.
    pub(crate) get: Option<u16>,
    /// The name under which the token is given.
    pub(crate) field: &'static str,
    /// How long tokens live.
    pub(crate) lifetime: Duration,
    /// What `expires_in` says, in seconds.
    pub(crate) expires_in: Option<u64>,
    /// How many requests a token is good for.
    pub(crate) uses: Option<u32>,
    /// Only the first `scope` of a request is read.
    pub(crate) first_scope: bool,
    /// A scope of a repository that is not there fails the whole request.
    pub(crate) missing_fails: bool,
    /// A token that grants too little is answered with 403 insufficient_scope, instead of 401.
    pub(crate) forbidden: bool,
    /// Challenges that come before the real one, each in a header of its own.
    pub(crate) challenges: Vec<String>,
    /// Makes tokens that a real registry believes: the key, and the certificate in DER.
    pub(crate) signer: Option<(PathBuf, Vec<u8>)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Open,
    Basic,
    Token,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            kind: Kind::Open,
            users: BTreeMap::new(),
            anonymous: false,
            denied: Vec::new(),
            realm: None,
            identity: None,
            post: None,
            get: None,
            field: "token",
            lifetime: Duration::from_secs(300),
            expires_in: Some(300),
            uses: None,
            first_scope: false,
            missing_fails: false,
            forbidden: false,
            challenges: Vec::new(),
            signer: None,
        }
    }
}

/// Whoever sends a request.
pub(super) enum Who {
    Anyone,
    User,
    /// What a token grants, as `NAME:ACTION`, and the token.
    Bearer(Vec<String>, String),
    /// A login that is wrong, or a token that is no more.
    Refused,
}

fn now() -> Duration {
    static BEGIN: OnceLock<Instant> = OnceLock::new();
    BEGIN.get_or_init(Instant::now).elapsed()
}

impl Auth {
    /// Users of a registry with Basic logins.
    pub(crate) fn basic(user: &str, password: &str) -> Self {
        Self {
            kind: Kind::Basic,
            users: BTreeMap::from([(user.to_owned(), password.to_owned())]),
            ..Self::default()
        }
    }

    /// Users of a registry with tokens; anyone may pull.
    pub(crate) fn token(user: &str, password: &str) -> Self {
        Self {
            kind: Kind::Token,
            anonymous: true,
            ..Self::basic(user, password)
        }
    }

    /// How the registry of a profile knows its users.
    pub(crate) fn profile(name: &str, user: &str, password: &str) -> Self {
        let token = Self::token(user, password);
        match name {
            "ecr" => Self::basic(user, password),
            "hub" => Self {
                missing_fails: true,
                ..token
            },
            "acr" => Self {
                anonymous: false,
                post: Some(400),
                field: "access_token",
                ..token
            },
            "artifactory" => Self {
                anonymous: false,
                post: Some(401),
                expires_in: None,
                ..token
            },
            "gar" => Self {
                post: Some(404),
                ..token
            },
            _ => token,
        }
    }

    /// Tells who sends a request.
    pub(super) fn who(&self, request: &Request) -> Who {
        let Some(header) = request.header("authorization") else {
            return Who::Anyone;
        };
        match header.split_once(' ') {
            Some(("Basic", text)) if self.kind == Kind::Basic => match self.login(text) {
                Some(_) => Who::User,
                None => Who::Refused,
            },
            Some(("Bearer", token)) if self.kind == Kind::Token => match grants(token) {
                Some(grants) => Who::Bearer(grants, token.to_owned()),
                None => Who::Refused,
            },
            _ => Who::Refused,
        }
    }

    fn login(&self, text: &str) -> Option<String> {
        let text = String::from_utf8(STANDARD.decode(text).ok()?).ok()?;
        let (user, password) = text.split_once(':')?;
        // Token servers that know no POST take an identity token for a password.
        if self.identity.as_deref() == Some(password) {
            return Some(user.to_owned());
        }
        (self.users.get(user)? == password).then(|| user.to_owned())
    }

    /// Checks what a request may do; `scopes` are `NAME:ACTION`. `used` counts the requests of each token.
    pub(super) fn check(
        &self,
        request: &Request,
        scopes: &[String],
        host: &str,
        used: &mut BTreeMap<String, u32>,
    ) -> Result<(), Reply> {
        let refuse = |error: &str| Err(self.challenge(scopes, host, error));
        if self.kind == Kind::Open {
            return Ok(());
        }
        let only_pull = scopes.iter().all(|it| it.ends_with(":pull"));
        match self.who(request) {
            Who::Anyone if self.kind == Kind::Basic && self.anonymous && only_pull => Ok(()),
            Who::Anyone => refuse(""),
            Who::Refused => refuse("invalid_token"),
            Who::User => match scopes.iter().any(|it| self.denies(it)) {
                true => Err(Reply::error(403, "DENIED", "not yours")),
                false => Ok(()),
            },
            Who::Bearer(grants, token) => {
                let count = used.entry(token).or_default();
                *count += 1;
                if self.uses.is_some_and(|uses| *count > uses) {
                    return refuse("invalid_token");
                }
                if scopes.iter().all(|it| grants.contains(it)) {
                    return Ok(());
                }
                refuse("insufficient_scope")
            }
        }
    }

    fn denies(&self, scope: &str) -> bool {
        self.denied.iter().any(|it| fits(it, scope))
    }

    /// The answer to a request that may not be done.
    fn challenge(&self, scopes: &[String], host: &str, error: &str) -> Reply {
        let status = match error {
            "insufficient_scope" if self.forbidden => 403,
            _ => 401,
        };
        let mut reply = Reply::error(status, "UNAUTHORIZED", "authentication required");
        for challenge in &self.challenges {
            let header = ("WWW-Authenticate".to_owned(), challenge.clone());
            reply.headers.push(header);
        }
        let own = format!("http://{host}/token");
        let realm = self.realm.as_deref().unwrap_or(&own);
        let challenge = match self.kind {
            Kind::Token => {
                let mut text =
                    format!("Bearer realm=\"{realm}\",service=\"fault, \\\"server\\\"\"");
                let scopes = join(scopes);
                if !scopes.is_empty() {
                    text.push_str(&format!(",scope=\"{}\"", scopes.join(" ")));
                }
                if !error.is_empty() {
                    text.push_str(&format!(",error=\"{error}\""));
                }
                text
            }
            _ => "Basic realm=\"fault server\"".to_owned(),
        };
        reply
            .headers
            .push(("WWW-Authenticate".to_owned(), challenge));
        reply
    }

    /// Answers a request to the token server. `exists` tells whether a repository is there.
    pub(super) fn issue(
        &self,
        request: &Request,
        body: &[u8],
        exists: impl Fn(&str) -> bool,
    ) -> Reply {
        let refused = || Reply::error(401, "UNAUTHORIZED", "wrong login");
        let is_post = request.method == "POST";
        if let Some(status) = if is_post { self.post } else { self.get } {
            return Reply::error(status, "UNSUPPORTED", "not this way");
        }
        let asked = match is_post {
            true => pairs(&String::from_utf8_lossy(body)),
            false => request.query(),
        };
        let value = |key: &str| {
            let found = asked.iter().find(|(name, _)| name == key);
            found.map(|(_, value)| value.as_str()).unwrap_or_default()
        };
        if value("service") != "fault, \"server\"" && self.signer.is_none() {
            return Reply::error(400, "UNSUPPORTED", "another service");
        }
        let known = if is_post {
            if value("client_id").is_empty() {
                return Reply::error(400, "UNSUPPORTED", "client_id is missing");
            }
            match value("grant_type") {
                "refresh_token" => self.identity.as_deref() == Some(value("refresh_token")),
                "password" => {
                    self.users.get(value("username")).map(String::as_str) == Some(value("password"))
                }
                _ => return Reply::error(400, "UNSUPPORTED", "grant_type is missing"),
            }
        } else {
            match request
                .header("authorization")
                .and_then(|it| it.split_once(' '))
            {
                Some(("Basic", text)) => self.login(text).is_some(),
                Some(_) => false,
                None => false,
            }
        };
        let anonymous = !is_post && request.header("authorization").is_none();
        if !known && !anonymous {
            return refused();
        }
        let mut texts: Vec<&str> = asked
            .iter()
            .filter(|(name, _)| name == "scope")
            .flat_map(|(_, value)| value.split(' '))
            .collect();
        if self.first_scope {
            texts.truncate(1);
        }
        let mut granted = Vec::new();
        for text in texts {
            let (name, actions) = split(text);
            if self.missing_fails && !exists(&name) {
                return refused();
            }
            for action in actions {
                let may = known || self.anonymous && action == "pull";
                let scope = format!("{name}:{action}");
                if may && !self.denies(&scope) {
                    granted.push(scope);
                }
            }
        }
        let mut answer = json!({});
        answer[self.field] = Value::String(self.mint(&granted, value("service")));
        if let Some(seconds) = self.expires_in {
            answer["expires_in"] = seconds.into();
        }
        Reply::new(200).json(&answer)
    }

    fn mint(&self, granted: &[String], service: &str) -> String {
        static NUMBER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if let Some((key, certificate)) = &self.signer {
            return sign(granted, service, number, key, certificate);
        }
        let until = (now() + self.lifetime).as_millis();
        let until = u64::try_from(until).expect("a time in this run");
        let token = json!({ "number": number, "granted": granted, "until": until });
        format!("opaque.{}", URL_SAFE_NO_PAD.encode(token.to_string()))
    }
}

/// What one of our tokens grants; `None` for another text, and for one that is too old.
fn grants(token: &str) -> Option<Vec<String>> {
    let bytes = URL_SAFE_NO_PAD
        .decode(token.strip_prefix("opaque.")?)
        .ok()?;
    let token: Value = serde_json::from_slice(&bytes).ok()?;
    if u128::from(token["until"].as_u64()?) < now().as_millis() {
        return None;
    }
    serde_json::from_value(token["granted"].clone()).ok()
}

/// `repository:NAME:A,B` has a name, and actions.
fn split(scope: &str) -> (String, Vec<String>) {
    let rest = scope.strip_prefix("repository:").unwrap_or(scope);
    let (name, actions) = rest.rsplit_once(':').unwrap_or((rest, ""));
    (
        name.to_owned(),
        actions.split(',').map(str::to_owned).collect(),
    )
}

/// Makes `repository:NAME:A,B` of all actions on a name.
fn join(scopes: &[String]) -> Vec<String> {
    let mut names: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for scope in scopes {
        let (name, action) = scope.rsplit_once(':').expect("NAME:ACTION");
        names.entry(name).or_default().push(action);
    }
    let scope =
        |(name, actions): (&str, Vec<&str>)| format!("repository:{name}:{}", actions.join(","));
    names.into_iter().map(scope).collect()
}

/// Makes a JWT (RFC 7519) as the distribution project's token spec has it, by the program openssl.
fn sign(granted: &[String], service: &str, number: u64, key: &PathBuf, der: &[u8]) -> String {
    let access = join(granted).into_iter().map(|scope| {
        let (name, actions) = split(&scope);
        json!({ "type": "repository", "name": name, "actions": actions })
    });
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let time = time.expect("a clock after 1970").as_secs();
    let header =
        json!({ "typ": "JWT", "alg": "RS256", "kid": "fault", "x5c": [STANDARD.encode(der)] });
    let claims = json!({
        "iss": "fault", "sub": "", "aud": service, "jti": number.to_string(),
        "iat": time, "nbf": time - 10, "exp": time + 300, "access": access.collect::<Vec<_>>(),
    });
    let encode = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let text = format!("{}.{}", encode(header), encode(claims));
    let mut child = Command::new("openssl")
        .args(["dgst", "-sha256", "-sign"])
        .arg(key)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("openssl");
    let mut input = child.stdin.take().expect("a pipe");
    std::io::Write::write_all(&mut input, text.as_bytes()).expect("openssl reads");
    drop(input);
    let output = child.wait_with_output().expect("openssl");
    assert!(output.status.success(), "openssl cannot sign");
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(output.stdout))
}
