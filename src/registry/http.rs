//! A request to a registry: its scheme, its credentials, where its answers may lead, warnings and errors. `net` sends it.
//! Knows nothing of what is asked.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, LOCATION, WARNING};
use reqwest::{Method, StatusCode, Url};

use super::Client;
use super::backoff::Backoff;
use super::challenge::Challenge;
use super::error::{self, Asked, Refusal, RegistryError};
use super::fault::{Fault, Tls};
use super::host::{Host, Scheme};
use super::reply::Reply;
use super::request::{self, Failed, Request, Route};
use super::scope::Scope;
use super::token::{self, Pass};
use super::upload_body::Rewind;
use super::url;
use super::wire::{Answer, Body, Call};

/// How often credentials are brought for one request.
const ROUNDS: u32 = 3;
/// How many warnings are remembered, and how many notes.
const TOLD: usize = 200;

/// A request to a host.
pub(super) struct Ask<'a> {
    pub(super) host: &'a Host,
    pub(super) method: Method,
    pub(super) at: At,
    pub(super) repository: &'a str,
    pub(super) what: &'a str,
    pub(super) auth: Auth,
    pub(super) headers: HeaderMap,
    pub(super) body: Payload<'a>,
    /// How often it is tried; as the limits say if not given.
    pub(super) tries: Option<u32>,
    /// A refusal goes to the caller at once, who brings other credentials and tries again.
    pub(super) is_once: bool,
}

/// Where a request goes.
#[derive(Clone)]
pub(super) enum At {
    /// A path and query of the host, from `/v2/`.
    Path(String),
    /// Where an answer led.
    Url(Url),
}

/// What a request brings to the host.
#[derive(Clone)]
pub(super) enum Auth {
    /// What allows these scopes, as far as the host wants it.
    Scopes(Vec<Scope>),
    /// This header or none.
    Fixed(Option<HeaderValue>),
}

/// What a request carries.
pub(super) enum Payload<'a> {
    None,
    Bytes(&'a [u8]),
    /// So many bytes of a blob, from a place; they can be sent again.
    Stream {
        body: &'a mut dyn Rewind,
        from: u64,
        size: u64,
        transfer: u64,
    },
}

impl<'a> Ask<'a> {
    pub(super) fn new(
        host: &'a Host,
        method: Method,
        at: At,
        repository: &'a str,
        what: &'a str,
    ) -> Self {
        Self {
            host,
            method,
            at,
            repository,
            what,
            auth: Auth::Scopes(vec![Scope::pull(repository)]),
            headers: HeaderMap::new(),
            body: Payload::None,
            tries: None,
            is_once: false,
        }
    }

    /// Adds a header. Its value is ours and fits.
    pub(super) fn header(&mut self, name: &'static str, value: &str) {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(HeaderName::from_static(name), value);
        }
    }

    /// Tells whether it changes nothing.
    fn is_read(&self) -> bool {
        self.method == Method::GET || self.method == Method::HEAD
    }

    fn asked(&self, tries: u32, waited: u64) -> Asked {
        Asked {
            registry: self.host.name.clone(),
            repository: self.repository.to_owned(),
            method: self.method.to_string(),
            what: self.what.to_owned(),
            tries,
            waited,
        }
    }

    /// Returns what is sent, from its beginning: each time anew.
    fn body(&mut self) -> Result<Body<'_>, RegistryError> {
        Ok(match &mut self.body {
            Payload::None if self.method == Method::GET || self.method == Method::HEAD => {
                Body::None
            }
            Payload::None => Body::Bytes(&[]),
            Payload::Bytes(bytes) => Body::Bytes(bytes),
            Payload::Stream {
                body,
                from,
                size,
                transfer,
            } => Body::Stream {
                reader: body.from(*from)?,
                size: *size,
                transfer: *transfer,
            },
        })
    }
}

/// A request that is being sent, by which client.
struct Sending<'a, 'b, 'c> {
    client: &'c Client,
    ask: &'a mut Ask<'b>,
    /// The credentials for the own host, where they are not the caller's.
    pass: Option<Pass>,
    /// How often better ones were brought.
    rounds: u32,
}

impl<'c> Request<'c> for Sending<'_, '_, 'c> {
    type Reply = Reply<'c>;
    type Error = RegistryError;

    fn most(&self) -> u32 {
        match self.ask.is_once {
            true => 1,
            false => self.client.most(self.ask),
        }
    }

    fn prepare(&mut self) -> Result<(), RegistryError> {
        self.pass = self.client.pass_for(self.ask)?;
        Ok(())
    }

    fn try_once(&mut self, tried: &Backoff<'_>) -> Result<Reply<'c>, Failed<RegistryError>> {
        let header = match &self.ask.auth {
            Auth::Fixed(header) => header.clone(),
            Auth::Scopes(_) => self.pass.as_ref().map(|pass| pass.header.clone()),
        };
        let (answer, url) = self.client.try_once(self.ask, header.as_ref())?;
        self.client.warn(self.ask.host, &answer.headers);
        let elsewhere = !self.ask.host.owns(&url);
        Ok(Reply {
            answer,
            elsewhere: elsewhere.then(|| url::authority(&url)),
            url,
            asked: self.ask.asked(tried.tries + 1, tried.waited.as_secs()),
            pass: self.pass.clone(),
            places: Vec::new(),
        })
    }

    fn renew(&mut self, reply: &Reply<'c>) -> Result<bool, RegistryError> {
        if self.rounds >= ROUNDS || self.ask.is_once {
            return Ok(false);
        }
        let Some(pass) = self.client.renewed(self.ask, reply)? else {
            return Ok(false);
        };
        self.pass = Some(pass);
        self.rounds += 1;
        Ok(true)
    }

    fn head<'r>(&self, reply: &'r Reply<'c>) -> (StatusCode, &'r HeaderMap) {
        (reply.answer.status, reply.headers())
    }

    fn finish(&self, mut reply: Reply<'c>) -> Reply<'c> {
        if matches!(reply.status(), 401 | 403) {
            let (host, credentials) = (&self.ask.host.name, &self.client.credentials);
            reply.places = credentials.find(host, self.ask.repository).places;
        }
        reply
    }

    fn failed(&self, fault: Fault, tried: &Backoff<'_>) -> RegistryError {
        let asked = self.ask.asked(tried.tries, tried.waited.as_secs());
        RegistryError::of_fault(asked, fault)
    }

    fn misled(&self, to: String, why: &'static str, tried: &Backoff<'_>) -> RegistryError {
        let asked = Box::new(self.ask.asked(tried.tries + 1, 0));
        RegistryError::Unsafe { asked, to, why }
    }

    fn describe(&self) -> String {
        self.ask.asked(0, 0).to_string()
    }
}

/// The way of one try. The header goes to the own host alone.
struct Way<'a, 'b, 'c> {
    client: &'c Client,
    ask: &'a mut Ask<'b>,
    header: Option<&'a HeaderValue>,
}

impl<'c> Route<'c> for Way<'_, '_, 'c> {
    type Error = RegistryError;

    fn ask(&mut self, url: &Url, is_own: bool) -> Result<Answer<'c>, Failed<RegistryError>> {
        let mut headers = self.ask.headers.clone();
        headers.remove(AUTHORIZATION);
        if let Some(header) = self.header.filter(|_| is_own) {
            token::put(&mut headers, header);
        }
        let other;
        let trust = match self.ask.host.owns(url) {
            true => &self.ask.host.trust,
            false => {
                other = self.client.host(&url::authority(url));
                &other.trust
            }
        };
        let answer = self.client.wire.exchange(Call {
            method: self.ask.method.clone(),
            url: url.clone(),
            headers,
            body: self.ask.body().map_err(|it| Failed::Own(Box::new(it)))?,
            trust,
        })?;
        Ok(answer)
    }

    fn next(&self, answer: &Answer<'_>, url: &Url) -> Option<Url> {
        redirect(self.ask, answer, url)
    }

    fn may_follow(&self, from: &Url, to: &Url) -> Result<(), &'static str> {
        let is_insecure = self.client.host(&url::authority(to)).config.insecure;
        url::may_follow(from, to, is_insecure)?;
        // What was encrypted so far is not sent on in the open, whatever the other host is trusted with.
        match !self.ask.is_read() && from.scheme() == "https" && to.scheme() == "http" {
            true => Err("which is not encrypted"),
            false => Ok(()),
        }
    }

    fn show(&self, url: &Url) -> String {
        url::authority(url)
    }
}

impl Client {
    /// How often a request is sent at most.
    fn most(&self, ask: &Ask<'_>) -> u32 {
        ask.tries.unwrap_or(self.limits.tries)
    }

    /// Sends a request until there is an answer that another try would not change.
    ///
    /// # Errors
    /// When there is none. A refusal is an answer.
    pub(super) fn send<'c>(&'c self, ask: &mut Ask<'_>) -> Result<Reply<'c>, RegistryError> {
        let mut sending = Sending {
            client: self,
            ask,
            pass: None,
            rounds: 0,
        };
        request::send(&self.wire, &mut sending)
    }

    /// Sends a request for a document and reads it. The body is empty where the status is not 200.
    ///
    /// # Errors
    /// When there is no answer, or a document of more than `limit` bytes.
    pub(super) fn load<'c>(
        &'c self,
        ask: &mut Ask<'_>,
        limit: u64,
    ) -> Result<(Reply<'c>, Vec<u8>), RegistryError> {
        let most = self.most(ask);
        let read = |reply: &mut Reply<'c>| match reply.status() {
            200 => reply.read(limit),
            _ => Ok(Vec::new()),
        };
        let failed = |reply: &Reply<'c>, failed, _: &Backoff<'_>| reply.failed(failed);
        request::load(&self.wire, most, || self.send(ask), read, failed)
    }

    /// Returns the header for a request's own host.
    fn pass_for(&self, ask: &Ask<'_>) -> Result<Option<Pass>, RegistryError> {
        match &ask.auth {
            Auth::Scopes(scopes) => self.pass(ask.host, ask.repository, scopes),
            Auth::Fixed(_) => Ok(None),
        }
    }

    /// Returns a better header, if an answer wants one and there is one.
    pub(super) fn renewed(
        &self,
        ask: &Ask<'_>,
        reply: &Reply<'_>,
    ) -> Result<Option<Pass>, RegistryError> {
        let Auth::Scopes(scopes) = &ask.auth else {
            return Ok(None);
        };
        let headers = &reply.answer.headers;
        let wants = match reply.status() {
            401 => true,
            403 => Challenge::of(headers).is_some_and(|challenge| challenge.is_scope_missing()),
            _ => false,
        };
        if !wants || reply.elsewhere.is_some() {
            return Ok(None);
        }
        let mut sent = reply.pass.clone();
        if let Some(sent) = sent.as_mut().filter(|_| ask.is_once) {
            // The caller sees to it that there is an end: a token may expire while much is sent.
            sent.is_fresh = false;
        }
        self.renew(ask.host, ask.repository, scopes, headers, sent.as_ref())
    }

    /// Waits.
    pub(super) fn pause(&self, time: std::time::Duration) -> Result<(), RegistryError> {
        self.wire.pause(time).map_err(|_| RegistryError::Stopped)
    }

    /// Sends a request once, over the scheme that the host speaks.
    fn try_once<'c>(
        &'c self,
        ask: &mut Ask<'_>,
        header: Option<&HeaderValue>,
    ) -> Result<(Answer<'c>, Url), Failed<RegistryError>> {
        let path = match &ask.at {
            At::Url(url) => return self.follow(ask, url.clone(), header),
            At::Path(path) => path.clone(),
        };
        let schemes = ask.host.schemes();
        let url = |scheme: Scheme| {
            let text = format!("{}://{}{path}", scheme.word(), ask.host.authority);
            Url::parse(&text)
                .map_err(|_| Fault::Setup(format!("{} is no host", ask.host.authority)))
        };
        let urls: Result<Vec<Url>, Fault> = schemes.iter().map(|&scheme| url(scheme)).collect();
        let urls = urls?;
        let [first, rest @ ..] = &urls[..] else {
            return Err(Fault::Setup("no scheme".to_owned()).into());
        };
        let outcome = self.follow(ask, first.clone(), header);
        let [second] = rest else {
            return self.settled(ask.host, schemes[0], outcome);
        };
        let is_other = match &outcome {
            Ok((answer, _)) => {
                schemes[0] == Scheme::Http && answer.status == StatusCode::BAD_REQUEST
            }
            Err(Failed::Fault(fault)) => match schemes[0] {
                Scheme::Http => matches!(fault, Fault::NotHttp | Fault::Cut),
                Scheme::Https => matches!(
                    fault,
                    Fault::Tls(Tls::Unspoken | Tls::Other(_))
                        | Fault::Cut
                        | Fault::Refused
                        | Fault::Connect(_)
                        // Proxies let tunnels through to few ports, and plain requests to any.
                        | Fault::Proxy
                ),
            },
            Err(_) => false,
        };
        if !is_other {
            return self.settled(ask.host, schemes[0], outcome);
        }
        match (self.follow(ask, second.clone(), header), outcome) {
            (Ok(found), _) => self.settled(ask.host, schemes[1], Ok(found)),
            (Err(Failed::Fault(Fault::Stopped)), _) => Err(Fault::Stopped.into()),
            // It speaks TLS, and that is what is wrong.
            (Err(Failed::Fault(Fault::Tls(tls))), _) if tls != Tls::Unspoken => {
                Err(Fault::Tls(tls).into())
            }
            // What the first scheme said is worth more than that there is no second one.
            (Err(_), Ok(found)) => self.settled(ask.host, schemes[0], Ok(found)),
            (Err(_), Err(fault)) => Err(fault),
        }
    }

    fn settled<'c>(
        &self,
        host: &Host,
        scheme: Scheme,
        outcome: Result<(Answer<'c>, Url), Failed<RegistryError>>,
    ) -> Result<(Answer<'c>, Url), Failed<RegistryError>> {
        if outcome.is_ok() {
            host.settle(scheme);
        }
        outcome
    }

    /// Sends a request and follows where the answer leads. The header goes to the own host alone.
    fn follow<'c>(
        &'c self,
        ask: &mut Ask<'_>,
        url: Url,
        header: Option<&HeaderValue>,
    ) -> Result<(Answer<'c>, Url), Failed<RegistryError>> {
        let is_own = ask.host.owns(&url);
        let mut way = Way {
            client: self,
            ask,
            header,
        };
        request::follow(&mut way, url, is_own)
    }

    /// Shows the warnings of an answer, each once (distribution-spec, "Warnings").
    fn warn(&self, host: &Host, headers: &HeaderMap) {
        for value in headers.get_all(WARNING) {
            let text = String::from_utf8_lossy(value.as_bytes());
            let Some(text) = text.trim().strip_prefix("299 ") else {
                continue;
            };
            // 299 AGENT "TEXT"
            let text = match text.split_once('"') {
                Some((_, text)) => text.rsplit_once('"').map_or(text, |(text, _)| text),
                None => text,
            };
            let text = error::clean(&text.replace("\\\"", "\""));
            self.tell(&format!("{} warns: {text}", host.name));
        }
    }

    /// Says something once.
    pub(super) fn tell(&self, text: &str) {
        let mut told = self.told.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() < TOLD && told.insert(text.to_owned()) {
            self.monitor.note(text);
        }
    }

    /// Makes the error of a refusal by a host's token server: it names the host, where one logs in, and says where
    /// credentials for it were looked for.
    pub(super) fn refused(&self, host: &Host, had_login: bool, reply: Reply<'_>) -> RegistryError {
        let mut reply = reply;
        let looked = self.credentials.find(&host.name, &reply.asked.repository);
        let mut refusal = Refusal {
            places: looked.places,
            had_login,
            ..reply.refusal()
        };
        if refusal.asked.registry != host.name {
            let server = std::mem::replace(&mut refusal.asked.registry, host.name.clone());
            refusal.elsewhere = Some(server);
        }
        RegistryError::Unauthorised(Box::new(refusal))
    }
}

/// Returns where an answer sends us, if it may. What is sent to be kept follows where the method and the body stay the
/// same alone (RFC 9110, 15.4): the others of old turn a POST into a GET. What asks for a token may hold a secret in its
/// body, and goes nowhere else.
fn redirect(ask: &Ask<'_>, answer: &Answer<'_>, url: &Url) -> Option<Url> {
    match answer.status.as_u16() {
        301..=303 | 307 | 308 if ask.is_read() => {}
        307 | 308 if matches!(ask.auth, Auth::Scopes(_)) => {}
        _ => return None,
    }
    url::location(url, answer.headers.get(LOCATION)?.to_str().ok()?)
}

/// What was said once.
#[derive(Default)]
pub(super) struct Told(Mutex<BTreeSet<String>>);
