//! A request, sent until there is an answer that another try would not change: the one loop of asking, following and
//! waiting for all clients. What differs is passed in: credentials, which answers lead on and where to, what becomes of
//! an answer, and the words of errors.

use reqwest::header::HeaderMap;
use reqwest::{StatusCode, Url};

use super::backoff::{self, Backoff};
use super::fault::Fault;
use super::url;
use super::wire::{Answer, Wire};

/// How many redirects are followed.
const HOPS: usize = 8;
/// From how many seconds on a wait is told.
const LONG: u64 = 2;

/// Why a try came to nothing.
pub(crate) enum Failed<E> {
    /// There is no answer.
    Fault(Fault),
    /// An answer leads where one must not go.
    Unsafe {
        /// Where it leads.
        to: String,
        /// Why one must not go there.
        why: &'static str,
    },
    /// The client has its own reason; no try changes it.
    Own(Box<E>),
}

impl<E> From<Fault> for Failed<E> {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// A request, as its client makes it. `'c` is how long answers live.
pub(crate) trait Request<'c> {
    /// What the client makes of an answer.
    type Reply;
    /// What the client makes of all else.
    type Error;

    /// How often it is sent at most.
    fn most(&self) -> u32;

    /// Brings the credentials at hand, before each try.
    fn prepare(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }

    /// Sends it once, and follows where the answer leads; `tried` counts the tries before this one.
    fn try_once(&mut self, tried: &Backoff<'_>) -> Result<Self::Reply, Failed<Self::Error>>;

    /// Brings better credentials where an answer wants them. If there are any, it is sent again at once, and the answer
    /// counts as no try. How often that may be is the client's to decide.
    fn renew(&mut self, _reply: &Self::Reply) -> Result<bool, Self::Error> {
        Ok(false)
    }

    /// Returns the head of an answer.
    fn head<'r>(&self, reply: &'r Self::Reply) -> (StatusCode, &'r HeaderMap);

    /// Takes an answer that no other try would change.
    fn finish(&self, reply: Self::Reply) -> Self::Reply {
        reply
    }

    /// Makes the error of a request that came to nothing, after so many tries.
    fn failed(&self, fault: Fault, tried: &Backoff<'_>) -> Self::Error;

    /// Makes the error of an answer that leads where one must not go.
    fn misled(&self, to: String, why: &'static str, tried: &Backoff<'_>) -> Self::Error;

    /// Names the request to people who wait for it.
    fn describe(&self) -> String;
}

/// Sends a request until there is an answer that another try would not change.
///
/// # Errors
/// When there is none. A refusal is an answer.
pub(crate) fn send<'c, R: Request<'c>>(
    wire: &'c Wire,
    request: &mut R,
) -> Result<R::Reply, R::Error> {
    let mut backoff = Backoff::new(&wire.limits, request.most());
    request.prepare()?;
    loop {
        let (delay, why) = match request.try_once(&backoff) {
            Err(Failed::Own(error)) => return Err(*error),
            Err(Failed::Unsafe { to, why }) => return Err(request.misled(to, why, &backoff)),
            Err(Failed::Fault(fault)) => {
                let delay = match fault.is_passing() {
                    true => backoff.again(None),
                    false => None,
                };
                match delay {
                    Some(delay) => (delay, fault.to_string()),
                    None => return Err(request.failed(fault, &backoff)),
                }
            }
            Ok(reply) => {
                if request.renew(&reply)? {
                    continue;
                }
                let (status, headers) = request.head(&reply);
                let delay = match backoff::is_passing(status) {
                    true => backoff.again(backoff::retry_after(headers)),
                    false => None,
                };
                match delay {
                    Some(delay) => (delay, format!("it answered {}", status.as_u16())),
                    None => return Ok(request.finish(reply)),
                }
            }
        };
        if delay.as_secs() >= LONG {
            let (what, seconds) = (request.describe(), delay.as_secs());
            let text = format!("{what}: {why}; the next try is in {seconds} s");
            wire.monitor.note(&text);
        }
        wire.pause(delay)
            .map_err(|fault| request.failed(fault, &backoff))?;
        request.prepare()?;
    }
}

/// Sends a request by `send` and reads the body of its answer by `read`. Where a host goes away meanwhile, all of it is
/// done again, at most `most` times.
///
/// # Errors
/// Those of `send` and of `read`; what `failed` makes of a fault.
pub(crate) fn load<R, E>(
    wire: &Wire,
    most: u32,
    mut send: impl FnMut() -> Result<R, E>,
    read: impl Fn(&mut R) -> Result<Vec<u8>, Failed<E>>,
    failed: impl Fn(&R, Failed<E>, &Backoff<'_>) -> E,
) -> Result<(R, Vec<u8>), E> {
    let mut backoff = Backoff::new(&wire.limits, most);
    loop {
        let mut reply = send()?;
        let failure = match read(&mut reply) {
            Ok(bytes) => return Ok((reply, bytes)),
            Err(failure) => failure,
        };
        let delay = match &failure {
            Failed::Fault(fault) if fault.is_absence() => backoff.again(None),
            _ => None,
        };
        match delay {
            Some(delay) => wire
                .pause(delay)
                .map_err(|fault| failed(&reply, fault.into(), &backoff))?,
            None => return Err(failed(&reply, failure, &backoff)),
        }
    }
}

/// The way of one try, from host to host.
pub(crate) trait Route<'c> {
    /// What the client makes of what is no fault.
    type Error;

    /// Asks at a URL. Credentials go with it only where `is_own` says that the host is the first one still.
    fn ask(&mut self, url: &Url, is_own: bool) -> Result<Answer<'c>, Failed<Self::Error>>;

    /// Returns where an answer leads, if it is to be followed.
    fn next(&self, answer: &Answer<'_>, url: &Url) -> Option<Url>;

    /// Tells whether one may go on from a URL to another one.
    ///
    /// # Errors
    /// Why not.
    fn may_follow(&self, from: &Url, to: &Url) -> Result<(), &'static str>;

    /// Writes a URL for people.
    fn show(&self, url: &Url) -> String;
}

/// Sends a request once, and follows where the answer leads; returns the answer, and where it came from.
///
/// # Errors
/// When there is no answer, or it leads where one must not go, or too far.
pub(crate) fn follow<'c, R: Route<'c>>(
    route: &mut R,
    url: Url,
    is_own: bool,
) -> Result<(Answer<'c>, Url), Failed<R::Error>> {
    let (mut url, mut is_own) = (url, is_own);
    for _ in 0..HOPS {
        let answer = route.ask(&url, is_own)?;
        let Some(next) = route.next(&answer, &url) else {
            return Ok((answer, url));
        };
        if let Err(why) = route.may_follow(&url, &next) {
            let to = format!("{}://{}", next.scheme(), url::authority(&next));
            return Err(Failed::Unsafe { to, why });
        }
        // Once away, never again: the way back is not ours.
        is_own = is_own && url::is_same(&url, &next);
        url = next;
    }
    Err(Failed::Unsafe {
        to: route.show(&url),
        why: "after more redirects than are followed",
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use reqwest::Method;
    use reqwest::header::{AUTHORIZATION, HeaderValue, LOCATION};

    use super::super::Proxies;
    use super::super::testing::{Asked, Ear, Server, Told, limits};
    use super::super::tls::Trust;
    use super::super::wire::{Body, Call};
    use super::*;

    /// The least that a client has.
    struct Plain<'c> {
        wire: &'c Wire,
        url: Url,
        /// The credentials at hand; the better ones, once.
        login: &'static str,
        better: Option<&'static str>,
    }

    impl<'c> Request<'c> for Plain<'c> {
        type Reply = Answer<'c>;
        type Error = String;

        fn most(&self) -> u32 {
            3
        }

        fn try_once(&mut self, _: &Backoff<'_>) -> Result<Answer<'c>, Failed<String>> {
            let url = self.url.clone();
            follow(self, url, true).map(|(answer, _)| answer)
        }

        fn renew(&mut self, reply: &Answer<'c>) -> Result<bool, String> {
            let better = self.better.take_if(|_| reply.status == 401);
            self.login = better.unwrap_or(self.login);
            Ok(better.is_some())
        }

        fn head<'r>(&self, reply: &'r Answer<'c>) -> (StatusCode, &'r HeaderMap) {
            (reply.status, &reply.headers)
        }

        fn failed(&self, fault: Fault, tried: &Backoff<'_>) -> String {
            format!("{fault} ({} tries)", tried.tries)
        }

        fn misled(&self, to: String, why: &'static str, _: &Backoff<'_>) -> String {
            format!("to {to}: {why}")
        }

        fn describe(&self) -> String {
            "it".to_owned()
        }
    }

    impl<'c> Route<'c> for Plain<'c> {
        type Error = String;

        fn ask(&mut self, url: &Url, is_own: bool) -> Result<Answer<'c>, Failed<String>> {
            let mut headers = HeaderMap::new();
            if is_own {
                headers.insert(AUTHORIZATION, HeaderValue::from_static(self.login));
            }
            Ok(self.wire.exchange(Call {
                method: Method::GET,
                url: url.clone(),
                headers,
                body: Body::None,
                trust: &Trust::default(),
            })?)
        }

        fn next(&self, answer: &Answer<'_>, url: &Url) -> Option<Url> {
            url::join(url, answer.headers.get(LOCATION)?.to_str().ok()?)
        }

        fn may_follow(&self, _: &Url, to: &Url) -> Result<(), &'static str> {
            match to.path() == "/bad" {
                true => Err("which is bad"),
                false => Ok(()),
            }
        }

        fn show(&self, url: &Url) -> String {
            url.path().to_owned()
        }
    }

    /// Asks a server for a path: returns the status or the error, and the credentials of each exchange.
    fn ask(
        path: &str,
        answer: impl Fn(&[Asked], &Asked) -> Told + Send + Sync + 'static,
    ) -> (Result<u16, String>, Vec<String>) {
        let server = Server::start(answer);
        let wire = Wire::new(Proxies::default(), limits(), Arc::new(Ear::default()));
        let url = format!("http://{}{path}", server.name).parse().unwrap();
        let mut plain = Plain {
            wire: &wire,
            url,
            login: "one",
            better: Some("two"),
        };
        let found = send(&wire, &mut plain).map(|answer| answer.status.as_u16());
        let asked = server.asked().into_iter();
        let logins = asked.map(|it| it.header("authorization").unwrap_or_default().to_owned());
        (found, logins.collect())
    }

    #[test]
    fn what_passes_is_tried_again_and_what_does_not_is_an_answer() {
        let (found, asked) = ask("/", |before, _| {
            Told::new(if before.len() < 2 { 503 } else { 200 })
        });
        assert_eq!((found, asked.len()), (Ok(200), 3));
        let (found, asked) = ask("/", |_, _| Told::new(503));
        assert_eq!((found, asked.len()), (Ok(503), 3));
        let (found, asked) = ask("/", |_, _| Told::new(404));
        assert_eq!((found, asked.len()), (Ok(404), 1));
    }

    #[test]
    fn a_host_that_is_not_there_is_asked_so_often() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let free = listener.local_addr().unwrap();
        drop(listener);
        let wire = Wire::new(Proxies::default(), limits(), Arc::new(Ear::default()));
        let mut plain = Plain {
            wire: &wire,
            url: format!("http://{free}/").parse().unwrap(),
            login: "one",
            better: None,
        };
        let error = send(&wire, &mut plain).map(drop).unwrap_err();
        assert!(error.ends_with("(3 tries)"), "{error}");
    }

    #[test]
    fn better_credentials_count_as_no_try() {
        let (found, asked) = ask("/", |before, asked| match asked.header("authorization") {
            Some("one") => Told::new(401),
            _ => Told::new(if before.len() < 3 { 503 } else { 200 }),
        });
        assert_eq!(found, Ok(200));
        assert_eq!(asked, ["one", "two", "two", "two"]);
    }

    #[test]
    fn answers_lead_on_so_far_and_no_further() {
        let (found, asked) = ask("/a", |_, asked| match &*asked.path {
            "/a" => Told::new(302).with("location", "/b"),
            _ => Told::new(200),
        });
        assert_eq!((found, asked), (Ok(200), vec!["one".to_owned(); 2]));
        let (found, asked) = ask("/", |_, _| Told::new(302).with("location", "/bad"));
        let error = found.unwrap_err();
        assert!(error.starts_with("to http://127.0.0.1") && error.ends_with("which is bad"));
        assert_eq!(asked.len(), 1);
        let (found, asked) = ask("/", |_, _| Told::new(302).with("location", "/"));
        let many = "to /: after more redirects than are followed";
        assert_eq!((found, asked.len()), (Err(many.to_owned()), HOPS));
    }
}
