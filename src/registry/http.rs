//! A request to a registry: scheme, credentials for the own host alone, redirects, retries, warnings. Knows nothing of
//! what is asked.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, LOCATION, WARNING};
use reqwest::{Method, StatusCode, Url};

use super::Client;
use super::backoff::{self, Backoff};
use super::challenge::Challenge;
use super::error::{self, Asked, Refusal, RegistryError};
use super::fault::{Fault, Tls};
use super::host::{Host, Scheme};
use super::reply::Reply;
use super::scope::Scope;
use super::token::{self, Pass};
use super::upload_body::Rewind;
use super::url;
use super::wire::{Answer, Body, Call};

/// How many redirects are followed.
const HOPS: usize = 8;
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

/// Why a try came to nothing.
enum Failed {
    Fault(Fault),
    Unsafe {
        to: String,
        why: &'static str,
    },
    /// What is to be sent cannot be opened.
    Own(RegistryError),
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl Client {
    /// Sends a request until there is an answer that another try would not change.
    ///
    /// # Errors
    /// When there is none. A refusal is an answer.
    pub(super) fn send<'c>(&'c self, ask: &mut Ask<'_>) -> Result<Reply<'c>, RegistryError> {
        let most = if ask.is_once {
            1
        } else {
            ask.tries.unwrap_or(self.limits.tries)
        };
        let mut backoff = Backoff::new(&self.limits, most);
        let mut rounds = 0;
        let mut pass = self.pass_for(ask)?;
        loop {
            let header = match &ask.auth {
                Auth::Fixed(header) => header.clone(),
                Auth::Scopes(_) => pass.as_ref().map(|pass| pass.header.clone()),
            };
            let (delay, why) = match self.try_once(ask, header.as_ref()) {
                Err(Failed::Unsafe { to, why }) => {
                    let asked = Box::new(ask.asked(backoff.tries + 1, 0));
                    return Err(RegistryError::Unsafe { asked, to, why });
                }
                Err(Failed::Own(error)) => return Err(error),
                Err(Failed::Fault(fault)) => {
                    let delay = match fault.is_passing() {
                        true => backoff.again(None),
                        false => None,
                    };
                    let Some(delay) = delay else {
                        let asked = ask.asked(backoff.tries, backoff.waited.as_secs());
                        return Err(RegistryError::of_fault(asked, fault));
                    };
                    (delay, fault.to_string())
                }
                Ok((answer, url)) => {
                    self.warn(ask.host, &answer.headers);
                    let elsewhere = !ask.host.owns(&url);
                    let elsewhere = elsewhere.then(|| url::authority(&url));
                    let mut reply = Reply {
                        answer,
                        url,
                        elsewhere,
                        asked: ask.asked(backoff.tries + 1, backoff.waited.as_secs()),
                        pass: pass.clone(),
                        places: Vec::new(),
                    };
                    if rounds < ROUNDS
                        && !ask.is_once
                        && let Some(next) = self.renewed(ask, &reply)?
                    {
                        pass = Some(next);
                        rounds += 1;
                        continue;
                    }
                    let delay = match backoff::is_passing(reply.answer.status) && !ask.is_once {
                        true => backoff.again(backoff::retry_after(&reply.answer.headers)),
                        false => None,
                    };
                    let Some(delay) = delay else {
                        if matches!(reply.status(), 401 | 403) {
                            let looked = self.credentials.find(&ask.host.name, ask.repository);
                            reply.places = looked.places;
                        }
                        return Ok(reply);
                    };
                    (delay, format!("it answered {}", reply.status()))
                }
            };
            if delay.as_secs() >= 2 {
                self.monitor.note(&format!(
                    "{}: {why}; the next try is in {} s",
                    ask.asked(0, 0),
                    delay.as_secs()
                ));
            }
            self.pause(delay)?;
            pass = self.pass_for(ask)?;
        }
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
        let mut backoff = Backoff::new(&self.limits, ask.tries.unwrap_or(self.limits.tries));
        loop {
            let mut reply = self.send(ask)?;
            if reply.status() != 200 {
                return Ok((reply, Vec::new()));
            }
            match reply.bytes(limit) {
                Ok(bytes) => return Ok((reply, bytes)),
                Err(error) if error.is_absence() => match backoff.again(None) {
                    Some(delay) => self.pause(delay)?,
                    None => return Err(error),
                },
                Err(error) => return Err(error),
            }
        }
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
    ) -> Result<(Answer<'c>, Url), Failed> {
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
        outcome: Result<(Answer<'c>, Url), Failed>,
    ) -> Result<(Answer<'c>, Url), Failed> {
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
    ) -> Result<(Answer<'c>, Url), Failed> {
        let mut url = url;
        let mut is_own = ask.host.owns(&url);
        for _ in 0..HOPS {
            let mut headers = ask.headers.clone();
            headers.remove(AUTHORIZATION);
            if let Some(header) = header.filter(|_| is_own) {
                token::put(&mut headers, header);
            }
            let other;
            let trust = match ask.host.owns(&url) {
                true => &ask.host.trust,
                false => {
                    other = self.host(&url::authority(&url));
                    &other.trust
                }
            };
            let answer = self.wire.exchange(Call {
                method: ask.method.clone(),
                url: url.clone(),
                headers,
                body: ask.body().map_err(Failed::Own)?,
                trust,
            })?;
            let Some(next) = redirect(ask, &answer, &url) else {
                return Ok((answer, url));
            };
            let is_insecure = self.host(&url::authority(&next)).config.insecure;
            let mut may = url::may_follow(&url, &next, is_insecure);
            // What was encrypted so far is not sent on in the open, whatever the other host is trusted with.
            if !ask.is_read() && url.scheme() == "https" && next.scheme() == "http" {
                may = may.and(Err("which is not encrypted"));
            }
            if let Err(why) = may {
                let to = format!("{}://{}", next.scheme(), url::authority(&next));
                return Err(Failed::Unsafe { to, why });
            }
            // Once away, never again: the way back is not ours.
            is_own = is_own && url::is_same(&url, &next);
            url = next;
        }
        Err(Failed::Unsafe {
            to: url::authority(&url),
            why: "after more redirects than are followed",
        })
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
