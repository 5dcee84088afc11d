//! Putting one blob into one repository (distribution-spec, "Pushing Blobs"): mounted, or sent in one piece, or in chunks
//! where a registry refuses that. Chooses neither blobs nor repositories.

use std::sync::atomic::Ordering;
use std::time::Duration;

use reqwest::{Method, Url};

use super::Client;
use super::backoff::{self, Backoff};
use super::error::RegistryError;
use super::fault::Fault;
use super::http::{Ask, At, Payload};
use super::reply::Reply;
use super::upload_body::{Open, UploadBody};
use super::upload_session::{Target, UploadSession};
use super::url;
use crate::oci::Descriptor;

/// The size of a chunk where a registry refuses a blob in one piece, in bytes: GHCR takes no larger ones.
const CHUNK: u64 = 4 << 20;

/// The bytes to send: opened anew for each try.
pub(super) struct Content<'a> {
    pub(super) blob: &'a Descriptor,
    pub(super) what: &'a str,
    /// The transfer's number.
    pub(super) transfer: u64,
    pub(super) open: &'a Open<'a>,
}

/// What became of one try.
enum Tried {
    /// It was taken.
    Done,
    /// Something that passes; with the time that the registry asks to wait.
    Again(RegistryError, Option<Duration>),
    /// The session is gone, or holds something else: a new one may do.
    Anew(RegistryError),
    /// The credentials were refused, and renewed.
    Renewed(RegistryError),
    /// The registry takes no piece of this size.
    TooLarge(RegistryError),
}

impl Client {
    /// Sends a blob. Each try has a session of its own; the first may have one from a mount.
    ///
    /// # Errors
    /// When the registry does not take it, or nothing shows that it has it then, or the bytes cannot be read.
    pub(super) fn upload(
        &self,
        target: Target<'_>,
        content: &Content<'_>,
        session: Option<UploadSession>,
    ) -> Result<(), RegistryError> {
        let mut session = session;
        let mut backoff = Backoff::new(&self.limits, self.limits.tries);
        let mut is_renewed = false;
        let mut is_mended = false;
        loop {
            let open = match session.take() {
                Some(session) => session,
                None => self.begin(target, content.what)?,
            };
            let is_chunked = self.chunk(target, content.blob).is_some();
            match self.try_upload(target, content, open, &mut is_mended)? {
                Tried::Done => return Ok(()),
                Tried::Renewed(_) if !is_renewed => is_renewed = true,
                Tried::Anew(_) if !is_mended => is_mended = true,
                Tried::TooLarge(_) if !is_chunked && content.blob.size > CHUNK => {
                    target.host.wants_chunks.store(true, Ordering::Relaxed);
                }
                Tried::Renewed(error) | Tried::Anew(error) | Tried::TooLarge(error) => {
                    return Err(error);
                }
                Tried::Again(error, asked) => {
                    let Some(delay) = backoff.again(asked) else {
                        return Err(error.tried(backoff.tries, backoff.waited.as_secs()));
                    };
                    self.pause(delay)?;
                    // The answer may have been lost on its way back.
                    if error.is_absence() && self.has_blob(target, content.blob)? {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Returns the size of chunks, if a blob is to be sent so.
    fn chunk(&self, target: Target<'_>, blob: &Descriptor) -> Option<u64> {
        let learned = target.host.wants_chunks.load(Ordering::Relaxed);
        let chunk = target.host.config.chunk.or(learned.then_some(CHUNK))?;
        (blob.size > chunk).then_some(chunk.max(1))
    }

    fn try_upload(
        &self,
        target: Target<'_>,
        content: &Content<'_>,
        session: UploadSession,
        is_mended: &mut bool,
    ) -> Result<Tried, RegistryError> {
        let mut body = UploadBody::new(content.open);
        let (location, from) = match self.chunk(target, content.blob) {
            None => (session.location, 0),
            Some(chunk) => {
                let chunk = chunk.max(session.least);
                let start = session.location;
                match self.send_chunks(target, content, (&mut body, is_mended), start, chunk)? {
                    Ok(location) => (location, content.blob.size),
                    Err(tried) => return Ok(tried),
                }
            }
        };
        let url = url::with_digest(location, &content.blob.digest);
        let mut ask = target.ask_at(Method::PUT, At::Url(url), content.what);
        if from < content.blob.size {
            ask.body = Payload::Stream {
                body: &mut body,
                from,
                size: content.blob.size - from,
                transfer: content.transfer,
            };
        }
        ask.is_once = true;
        ask.header("content-type", "application/octet-stream");
        match self.send(&mut ask) {
            Err(error) => again(error),
            // The spec says 201. Others say 202 or 204, and what stands between may say anything: see `proof`.
            Ok(reply) if matches!(reply.status(), 200..=204) => {
                self.prove_blob(target, content.blob, reply)?;
                Ok(Tried::Done)
            }
            Ok(reply) => self.judge(&ask, reply),
        }
    }

    /// Sends all chunks, and returns where to end the upload. A session that has other bytes than were sent is gone on
    /// with once.
    fn send_chunks(
        &self,
        target: Target<'_>,
        content: &Content<'_>,
        (body, is_mended): (&mut UploadBody<'_>, &mut bool),
        location: Url,
        chunk: u64,
    ) -> Result<Result<Url, Tried>, RegistryError> {
        let size = content.blob.size;
        let mut location = location;
        let mut offset = 0;
        while offset < size {
            let count = chunk.min(size - offset);
            let mut ask = Ask {
                body: Payload::Stream {
                    body: &mut *body,
                    from: offset,
                    size: count,
                    transfer: content.transfer,
                },
                is_once: true,
                ..target.ask_at(Method::PATCH, At::Url(location.clone()), content.what)
            };
            ask.header("content-type", "application/octet-stream");
            ask.header("content-range", &format!("{offset}-{}", offset + count - 1));
            let reply = match self.send(&mut ask) {
                Ok(reply) => reply,
                Err(error) => return again(error).map(Err),
            };
            match reply.status() {
                // The spec says 202; ECR says 201, and pulp and others 204.
                201 | 202 | 204 => {
                    // Its Range is not believed: ECR's sticks at the first chunk.
                    location = self.led(&reply)?.unwrap_or(location);
                    offset += count;
                }
                416 if !*is_mended => {
                    let there = reply.header("range").and_then(url::upload_range);
                    let next = self.led(&reply)?.unwrap_or(location);
                    let error = reply.refused();
                    if is_about_size(&error) {
                        return Ok(Err(Tried::TooLarge(error)));
                    }
                    let found = match there {
                        Some(there) => Some((there, next)),
                        None => self.progress(target, content, next)?,
                    };
                    let Some(found) = found.filter(|(there, _)| *there <= size) else {
                        return Ok(Err(Tried::Anew(error)));
                    };
                    *is_mended = true;
                    (offset, location) = found;
                }
                _ => return self.judge(&ask, reply).map(Err),
            }
        }
        Ok(Ok(location))
    }

    /// Asks how many bytes a session has, and where it goes on (distribution-spec, "Pushing a blob in chunks"); `None` if
    /// it does not say so.
    fn progress(
        &self,
        target: Target<'_>,
        content: &Content<'_>,
        location: Url,
    ) -> Result<Option<(u64, Url)>, RegistryError> {
        let mut ask = Ask {
            tries: Some(1),
            ..target.ask_at(Method::GET, At::Url(location.clone()), content.what)
        };
        let reply = match self.send(&mut ask) {
            Err(RegistryError::Stopped) => return Err(RegistryError::Stopped),
            Ok(reply) if matches!(reply.status(), 200..=204) => reply,
            _ => return Ok(None),
        };
        let there = reply.header("range").and_then(url::upload_range);
        let next = self.led(&reply)?.unwrap_or(location);
        Ok(there.map(|there| (there, next)))
    }

    /// Judges a refusal.
    fn judge(&self, ask: &Ask<'_>, reply: Reply<'_>) -> Result<Tried, RegistryError> {
        if self.renewed(ask, &reply)?.is_some() {
            return Ok(Tried::Renewed(reply.refused()));
        }
        let wait = backoff::retry_after(reply.headers());
        let (status, is_passing) = (reply.status(), reply.is_passing());
        let error = reply.refused();
        match status {
            _ if is_about_size(&error) => Ok(Tried::TooLarge(error)),
            404 | 416 => Ok(Tried::Anew(error)),
            _ if is_passing => Ok(Tried::Again(error, wait)),
            _ => Err(error),
        }
    }
}

/// Tells whether a registry refuses to take so much at once.
fn is_about_size(error: &RegistryError) -> bool {
    matches!(error, RegistryError::Refused(refusal) if refusal.is_about_size())
}

/// Judges a failure: what passes is tried again. What a reader of ours says comes out as it is.
fn again(error: RegistryError) -> Result<Tried, RegistryError> {
    match &error {
        RegistryError::Transport { fault, .. } if fault.is_passing() => {
            Ok(Tried::Again(error, None))
        }
        RegistryError::Transport {
            fault: Fault::Local(source),
            ..
        } => {
            let inner = source.get_ref().and_then(|it| it.downcast_ref());
            let inner = inner.cloned().or_else(|| RegistryError::of_reader(source));
            Err(inner.unwrap_or(error))
        }
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Asked, Server, Told, client, stored};
    use super::super::upload_session::Mount;
    use super::*;
    use crate::oci::MediaType;
    use std::io::{self, Read};

    /// Uploads bytes to `a/b` of a server.
    fn put(
        server: &Server,
        config: &str,
        auth: Option<&str>,
        bytes: &[u8],
        session: Option<&str>,
    ) -> Result<(), RegistryError> {
        let (client, _) = client(config, auth);
        let blob = Descriptor::of(MediaType::OciLayer, bytes);
        let host = client.host(&server.name);
        let target = Target {
            host: &host,
            repository: "a/b",
        };
        let session = match session.map(|from| client.mount(target, &blob, from)) {
            Some(Ok(Mount::Session(session))) => Some(session),
            Some(Ok(Mount::Done)) => return Ok(()),
            Some(Err(error)) => return Err(error),
            Some(Ok(Mount::Refused)) | None => None,
        };
        let open = || Ok(Box::new(io::Cursor::new(bytes.to_vec())) as Box<dyn Read + Send>);
        let content = Content {
            blob: &blob,
            what: "the blob",
            transfer: 0,
            open: &open,
        };
        client.upload(target, &content, session)
    }

    fn count(before: &[Asked], method: &str) -> usize {
        before.iter().filter(|it| it.method == method).count()
    }

    /// The methods that a server was asked for, in order.
    fn methods(server: &Server) -> String {
        let all: Vec<String> = server.asked().into_iter().map(|it| it.method).collect();
        all.join(" ")
    }

    fn session(before: &[Asked]) -> Told {
        let number = count(before, "POST");
        Told::new(202).with(
            "location",
            format!("/v2/a/b/blobs/uploads/{number}?s={number}"),
        )
    }

    #[test]
    fn a_blob_goes_in_one_piece() {
        let server = Server::start(|before, asked| match asked.method.as_str() {
            "POST" => session(before),
            _ => stored(asked),
        });
        put(&server, "", None, b"hello", None).unwrap();
        let asked = server.asked();
        let digest = crate::oci::Digest::of(b"hello");
        assert_eq!(
            asked[1].line(),
            format!("PUT /v2/a/b/blobs/uploads/0?s=0&digest={digest}")
        );
        assert_eq!(asked[1].body, b"hello");
        assert_eq!(asked[1].header("content-length"), Some("5"));
        assert_eq!(asked[1].header("transfer-encoding"), None);
    }

    #[test]
    fn every_try_has_a_session_of_its_own() {
        let server = Server::start(|before, asked| match asked.method.as_str() {
            "POST" => session(before),
            "HEAD" => Told::new(404),
            _ => match count(before, "PUT") {
                0 => Told::new(503),
                1 => Told::new(404),
                _ => stored(asked),
            },
        });
        put(&server, "", None, b"hello", None).unwrap();
        assert_eq!(methods(&server), "POST PUT POST PUT POST PUT");
        assert!(
            server.asked()[5]
                .path
                .starts_with("/v2/a/b/blobs/uploads/2?s=2&")
        );
    }

    #[test]
    fn a_storm_ends_and_says_so() {
        let server = Server::start(|before, asked| match asked.method.as_str() {
            "POST" => session(before),
            _ => Told::new(429).body(r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow"}]}"#),
        });
        let error = put(&server, "", None, b"hello", None).unwrap_err();
        assert_eq!(error.code(), "imgdecl::registry::unavailable");
        let text = error.to_string();
        assert!(
            text.contains("TOOMANYREQUESTS: slow") && text.contains("tried 3 times"),
            "{text}"
        );
    }

    #[test]
    fn chunks_are_for_registries_that_refuse_one_piece() {
        // As ECR: 201 to a PATCH, and a Range that sticks.
        let server = Server::start(|before, asked| match asked.method.as_str() {
            "POST" => session(before).with("oci-chunk-min-length", 5 << 20),
            "PUT" if !asked.body.is_empty() => Told::new(413),
            "PATCH" => Told::new(201)
                .with("range", "0-99")
                .with("location", "/v2/a/b/blobs/uploads/next"),
            _ => stored(asked),
        });
        let bytes: Vec<u8> = (0..9_u32 << 20).map(|it| it as u8).collect();
        put(&server, "", None, &bytes, None).unwrap();
        assert_eq!(methods(&server), "POST PUT POST PATCH PATCH PUT");
        let asked = server.asked();
        let range = |at: usize| asked[at].header("content-range").unwrap().to_owned();
        assert_eq!(range(3), format!("0-{}", (5 << 20) - 1));
        assert_eq!(range(4), format!("{}-{}", 5 << 20, (9 << 20) - 1));
        let sent = [asked[3].body.clone(), asked[4].body.clone()].concat();
        assert!(sent == bytes);
        assert!(
            asked[5]
                .path
                .starts_with("/v2/a/b/blobs/uploads/next?digest=")
        );
    }

    #[test]
    fn a_registry_that_has_other_bytes_is_believed_after_416() {
        let server = Server::start(|before, asked| match asked.method.as_str() {
            "POST" => session(before),
            "PATCH" if count(before, "PATCH") == 1 => Told::new(416)
                .with("range", "0-1")
                .with("location", "/v2/u"),
            "PATCH" => Told::new(202).with("location", "/v2/u"),
            _ => stored(asked),
        });
        let config = format!("[registry.\"{}\"]\nchunk = 4\n", server.name);
        put(&server, &config, None, b"0123456789", None).unwrap();
        let asked = server.asked();
        let chunks = asked.iter().filter(|it| it.method == "PATCH");
        let chunks: Vec<&[u8]> = chunks.map(|it| &it.body[..]).collect();
        let expected: [&[u8]; 4] = [b"0123", b"4567", b"2345", b"6789"];
        assert_eq!(chunks, expected);
    }

    #[test]
    fn a_session_elsewhere_gets_no_credentials() {
        let store = Server::start(|_, asked| stored(asked));
        let to = format!("http://{}/u?signed=1", store.name);
        let server = Server::start(move |_, asked| match asked.header("authorization") {
            Some(_) => Told::new(202).with("location", &to),
            None => Told::new(401).with("www-authenticate", "Basic realm=x"),
        });
        let auth = format!(r#"{{"auths":{{"{}":{{"auth":"YTpi"}}}}}}"#, server.name);
        put(&server, "", Some(&auth), b"hello", None).unwrap();
        let asked = store.asked();
        assert_eq!(asked[0].header("authorization"), None);
        assert!(asked[0].path.starts_with("/u?signed=1&digest="));
    }

    #[test]
    fn a_token_that_expires_under_an_upload_is_renewed_once() {
        for good in [1, 9] {
            let server = Server::start(move |before, asked| {
                let host = asked.header("host").unwrap();
                let tokens = before
                    .iter()
                    .filter(|it| it.path.starts_with("/token"))
                    .count();
                let challenge = Told::new(401).with(
                    "www-authenticate",
                    format!(r#"Bearer realm="http://{host}/token""#),
                );
                match (asked.method.as_str(), asked.header("authorization")) {
                    ("GET", _) => {
                        Told::new(200).body(format!(r#"{{"token":"t{tokens}","expires_in":300}}"#))
                    }
                    (_, None) => challenge,
                    ("POST", _) => session(before),
                    ("PUT", _) if count(before, "PUT") < good => challenge,
                    _ => stored(asked),
                }
            });
            let result = put(&server, "", None, b"hello", None);
            let expected = "POST GET POST PUT GET POST PUT";
            match good {
                1 => {
                    result.unwrap();
                    assert_eq!(methods(&server), expected);
                }
                _ => {
                    let error = result.unwrap_err();
                    assert_eq!(error.code(), "imgdecl::registry::unauthorised");
                    assert!(methods(&server).starts_with(expected));
                    assert_eq!(count(&server.asked(), "PUT"), 2);
                }
            }
        }
    }

    #[test]
    fn a_mount_is_a_session_or_nothing() {
        let server = Server::start(|_, asked| match asked.method.as_str() {
            "POST" => Told::new(202).with("location", "m"),
            _ => stored(asked),
        });
        put(&server, "", None, b"hello", Some("c")).unwrap();
        assert_eq!(methods(&server), "POST PUT");
        for status in [401, 403, 404, 405, 500] {
            let server = Server::start(move |before, asked| match asked.method.as_str() {
                "POST" if asked.path.contains("mount=") => Told::new(status),
                "POST" => session(before),
                _ => stored(asked),
            });
            put(&server, "", None, b"hello", Some("c")).unwrap();
            assert_eq!(methods(&server), "POST POST PUT", "{status}");
        }
    }
}
