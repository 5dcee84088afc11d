//! The bytes of a blob as they come: resumed after a cut, from one source after the other. Verifies the size; whoever
//! reads to the end verifies the digest, or lets [`Verified`] do it. Writes nothing.

use std::io::{self, Read};

use reqwest::Method;

use super::Client;
use super::backoff::Backoff;
use super::error::{Asked, RegistryError};
use super::fault::Fault;
use super::reply::Reply;
use super::source::Source;
use super::url;
use crate::oci::{Descriptor, Hasher};

/// How many cuts are borne for one blob, each of which came further than the last.
const CUTS: u32 = 100;

/// A blob on its way.
pub(super) struct Download<'c> {
    client: &'c Client,
    sources: Vec<Source>,
    at: usize,
    blob: Descriptor,
    what: String,
    reply: Option<Reply<'c>>,
    /// How many bytes were given out.
    offset: u64,
    /// How many of the next bytes are known already, because the source began from zero.
    skip: u64,
    /// The source does not continue where it is told to.
    is_unable: bool,
    /// Cuts since the last new byte, and in all.
    backoff: Backoff<'c>,
    cuts: u32,
    /// Bytes that `read` has not given out yet.
    rest: Vec<u8>,
    given: usize,
}

impl<'c> Download<'c> {
    pub(super) fn new(client: &'c Client, sources: Vec<Source>, blob: Descriptor) -> Self {
        Self {
            client,
            sources,
            at: 0,
            what: format!("the blob {}", blob.digest),
            blob,
            reply: None,
            offset: 0,
            skip: 0,
            is_unable: false,
            backoff: Backoff::new(&client.limits, client.limits.tries),
            cuts: 0,
            rest: Vec::new(),
            given: 0,
        }
    }

    /// Returns what is asked at the present source, for messages.
    pub(super) fn asked(&self) -> Asked {
        let source = &self.sources[self.at];
        Asked {
            registry: source.host.name.clone(),
            repository: source.repository.clone(),
            method: "GET".to_owned(),
            what: self.what.clone(),
            tries: self.backoff.tries,
            waited: self.backoff.waited.as_secs(),
        }
    }

    /// Tells whether the bytes come from a mirror.
    pub(super) fn is_mirror(&self) -> bool {
        self.sources[self.at].is_mirror()
    }

    /// Returns the next bytes; `None` when as many came as the blob has.
    ///
    /// # Errors
    /// When no source gives them, or the last one gives too many.
    pub(super) fn chunk(&mut self) -> Result<Option<Vec<u8>>, RegistryError> {
        loop {
            let is_whole = self.offset == self.blob.size;
            if is_whole && self.reply.is_none() && self.blob.size > 0 {
                return Ok(None);
            }
            let Some(reply) = &mut self.reply else {
                self.open()?;
                continue;
            };
            match reply.chunk() {
                Ok(Some(bytes)) => {
                    if let Some(bytes) = self.take(bytes)? {
                        return Ok(Some(bytes));
                    }
                }
                Ok(None) if is_whole => {
                    self.reply = None;
                    return Ok(None);
                }
                Ok(None) => self.cut(Fault::Cut)?,
                Err(Fault::Stopped) => return Err(RegistryError::Stopped),
                Err(fault) => self.cut(fault)?,
            }
        }
    }

    /// Takes bytes that came, without those that are known.
    fn take(&mut self, mut bytes: Vec<u8>) -> Result<Option<Vec<u8>>, RegistryError> {
        let known = usize::try_from(self.skip).map_or(bytes.len(), |skip| skip.min(bytes.len()));
        self.skip -= known as u64;
        bytes.drain(..known);
        if bytes.is_empty() {
            return Ok(None);
        }
        self.offset += bytes.len() as u64;
        if self.offset > self.blob.size {
            let why = format!("it has more than {} bytes", self.blob.size);
            return Err(RegistryError::content(&self.asked(), why));
        }
        // What comes further is not at its end.
        self.backoff = Backoff::new(&self.client.limits, self.client.limits.tries);
        Ok(Some(bytes))
    }

    /// Gets over a cut: waits, or goes to the next source.
    fn cut(&mut self, fault: Fault) -> Result<(), RegistryError> {
        self.reply = None;
        self.cuts += 1;
        let delay = match fault.is_passing() && self.cuts < CUTS {
            true => self.backoff.again(None),
            false => None,
        };
        match delay {
            Some(delay) => self.client.pause(delay),
            None => self.next(RegistryError::of_fault(self.asked(), fault)),
        }
    }

    /// Goes to the next source, if there is one.
    fn next(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        if matches!(error, RegistryError::Stopped) || self.at + 1 == self.sources.len() {
            return Err(error);
        }
        self.client.pass_over(&self.sources[self.at], &error);
        self.at += 1;
        self.is_unable = false;
        self.backoff = Backoff::new(&self.client.limits, self.client.limits.tries);
        Ok(())
    }

    /// Asks for what is missing.
    fn open(&mut self) -> Result<(), RegistryError> {
        match self.request() {
            Ok(reply) => {
                self.reply = reply;
                Ok(())
            }
            Err(error) => self.next(error),
        }
    }

    /// Returns the answer to read from; `None` to ask again from zero.
    fn request(&mut self) -> Result<Option<Reply<'c>>, RegistryError> {
        let source = self.sources[self.at].clone();
        let rest = format!("blobs/{}", self.blob.digest);
        let mut ask = source.ask(Method::GET, &rest, &self.what);
        let is_rest = self.offset > 0 && !self.is_unable;
        if is_rest {
            ask.header("range", &format!("bytes={}-", self.offset));
        }
        let reply = self.client.send(&mut ask)?;
        let size = self.blob.size;
        match reply.status() {
            200 => {
                if let Some(found) = reply.length().filter(|&found| found != size) {
                    return Err(reply.wrong(format!("it has {found} bytes instead of {size}")));
                }
                if reply.length().is_none() && reply.page().is_some() {
                    return Err(reply.wrong("it is no blob"));
                }
                self.skip = self.offset;
                Ok(Some(reply))
            }
            206 if is_rest => {
                let range = reply.header("content-range").and_then(url::content_range);
                let fits = range.is_some_and(|(first, last, all)| {
                    first == self.offset && last < size && all.is_none_or(|all| all == size)
                });
                if fits {
                    self.skip = 0;
                    return Ok(Some(reply));
                }
                self.is_unable = true;
                Ok(None)
            }
            416 if is_rest => {
                self.is_unable = true;
                Ok(None)
            }
            // A link to a store of blobs may expire: the registry gives a new one.
            401 | 403 if !reply.is_own() => {
                let delay = self.backoff.again(None);
                match delay {
                    Some(delay) => self.client.pause(delay).map(|()| None),
                    None => Err(reply.refused()),
                }
            }
            _ => Err(reply.refused()),
        }
    }
}

impl Read for Download<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.given == self.rest.len() {
            self.given = 0;
            self.rest = self.chunk().map_err(io::Error::other)?.unwrap_or_default();
        }
        let rest = &self.rest[self.given..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.given += count;
        Ok(count)
    }
}

/// A reader that holds the end of a blob back until its digest is verified: nobody gets all of a wrong one.
pub(crate) struct Verified<R> {
    inner: R,
    blob: Descriptor,
    hasher: Option<Hasher>,
    seen: u64,
}

impl<R: Read> Verified<R> {
    /// Reads the blob that `inner` should hold.
    pub(crate) fn new(inner: R, blob: Descriptor) -> Self {
        Self {
            inner,
            blob,
            hasher: Some(Hasher::default()),
            seen: 0,
        }
    }
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.seen += count as u64;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..count]);
        }
        if self.seen == self.blob.size
            && let Some(hasher) = self.hasher.take()
        {
            let found = hasher.finish();
            if found != self.blob.digest {
                let expected = self.blob.digest;
                let text = format!("it has the digest {found} instead of {expected}");
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Server, Told, client};
    use super::*;
    use crate::oci::{MediaType, Reference};
    use crate::store::{Blob, Blobs as _, Health, Store};

    /// Pulls a blob from a server, and returns what it was asked.
    fn pull(
        server: &Server,
        config: &str,
        bytes: &[u8],
    ) -> Result<Vec<Option<String>>, RegistryError> {
        let (client, _) = client(config, None);
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let blob = Descriptor::of(MediaType::OciLayer, bytes);
        let reference: Reference = format!("{}/a", server.name).parse().unwrap();
        client.pull(&reference, std::slice::from_ref(&blob), &store)?;
        let blob = Blob {
            digest: blob.digest,
            size: blob.size,
        };
        assert_eq!(store.check(&blob), Health::Whole);
        let ranges = server.asked().into_iter();
        Ok(ranges
            .map(|it| it.header("range").map(str::to_owned))
            .collect())
    }

    const BYTES: &[u8] = b"0123456789";

    #[test]
    fn a_cut_download_goes_on_where_it_was() {
        let server = Server::start(|before, _| match before.len() {
            0 => Told::new(200).body(BYTES).cut(4),
            _ => Told::new(206)
                .with("content-range", "bytes 4-9/10")
                .body(&BYTES[4..]),
        });
        let ranges = pull(&server, "", BYTES).unwrap();
        assert_eq!(ranges, [None, Some("bytes=4-".to_owned())]);
    }

    #[test]
    fn a_server_that_cannot_go_on_begins_from_zero() {
        for other in [
            Told::new(200).body(BYTES),
            Told::new(206)
                .with("content-range", "bytes 3-9/10")
                .body(&BYTES[3..]),
            Told::new(206)
                .with("content-range", "bytes 4-9/11")
                .body(&BYTES[4..]),
            Told::new(206).body(&BYTES[4..]),
            Told::new(416),
        ] {
            let server = Server::start(move |before, _| match before.len() {
                0 => Told::new(200).body(BYTES).cut(4),
                1 => other.clone(),
                _ => Told::new(200).body(BYTES),
            });
            let ranges = pull(&server, "", BYTES).unwrap();
            assert_eq!(ranges[..2], [None, Some("bytes=4-".to_owned())]);
            assert!(ranges[2..].iter().all(Option::is_none), "{ranges:?}");
        }
    }

    #[test]
    fn wrong_bytes_are_fetched_again_once() {
        let server = Server::start(|before, _| match before.len() {
            0 => Told::new(200).body("01234x6789"),
            _ => Told::new(200).body(BYTES),
        });
        assert_eq!(pull(&server, "", BYTES).unwrap().len(), 2);
        let server = Server::start(|_, _| Told::new(200).body("01234x6789"));
        let error = pull(&server, "", BYTES).unwrap_err();
        assert_eq!(error.code(), "imgdecl::registry::content");
        assert_eq!(server.asked().len(), 2);
        let server = Server::start(|_, _| Told::new(200).body("0123456789a"));
        let error = pull(&server, "", BYTES).unwrap_err();
        assert!(
            error.to_string().contains("11 bytes instead of 10"),
            "{error}"
        );
    }

    #[test]
    fn silence_is_a_cut() {
        let silence = std::time::Duration::from_secs(3);
        let server = Server::start(move |before, _| match before.len() {
            0 => Told::new(200).body(BYTES).cut(4).silent(silence),
            _ => Told::new(206)
                .with("content-range", "bytes 4-9/10")
                .body(&BYTES[4..]),
        });
        let start = std::time::Instant::now();
        assert_eq!(pull(&server, "", BYTES).unwrap().len(), 2);
        assert!(start.elapsed() < silence);
    }

    #[test]
    fn a_redirect_elsewhere_brings_no_credentials() {
        let store = Server::start(|_, _| Told::new(200).body(BYTES));
        let to = format!("http://{}/x?signed=1", store.name);
        let registry = Server::start(move |_, asked| match asked.header("authorization") {
            Some(_) => Told::new(307).with("location", &to),
            None => Told::new(401).with("www-authenticate", "Basic realm=x"),
        });
        let auth = format!(r#"{{"auths":{{"{}":{{"auth":"YTpi"}}}}}}"#, registry.name);
        let (client, _) = client("", Some(&auth));
        let blob = Descriptor::of(MediaType::OciConfig, BYTES);
        let reference: Reference = format!("{}/a", registry.name).parse().unwrap();
        assert_eq!(client.document(&reference, &blob).unwrap(), BYTES);
        assert_eq!(registry.asked().len(), 2);
        let asked = store.asked();
        assert_eq!(asked[0].path, "/x?signed=1");
        assert_eq!(asked[0].header("authorization"), None);
    }

    #[test]
    fn a_mirror_comes_first_and_may_fail() {
        let mirror = Server::start(|before, _| match before.len() {
            0 => Told::new(404),
            _ => Told::new(200).body(BYTES),
        });
        let registry = Server::start(|_, _| Told::new(200).body(BYTES));
        let config = format!(
            "[registry.\"{}\"]\nmirrors = [\"{}/hub\"]\n",
            registry.name, mirror.name
        );
        for _ in 0..2 {
            pull(&registry, &config, BYTES).unwrap();
        }
        assert_eq!(registry.asked().len(), 1);
        let digest = crate::oci::Digest::of(BYTES);
        let line = format!("GET /v2/hub/a/blobs/{digest}?ns={}", registry.name);
        assert_eq!(mirror.lines(), [line.clone(), line]);
    }

    #[test]
    fn a_mirror_that_gives_too_much_is_passed_over() {
        // Without a length: only the bytes tell.
        let mirror = Server::start(|_, _| {
            Told::new(200)
                .with("transfer-encoding", "chunked")
                .body("b\r\n0123456789a\r\n0\r\n\r\n")
        });
        let registry = Server::start(|_, _| Told::new(200).body(BYTES));
        let config = format!(
            "[registry.\"{}\"]\nmirrors = [\"{}\"]\n",
            registry.name, mirror.name
        );
        pull(&registry, &config, BYTES).unwrap();
        assert_eq!((mirror.asked().len(), registry.asked().len()), (1, 1));
    }

    #[test]
    fn a_blob_comes_once_however_many_want_it() {
        let server = Server::start(|_, _| {
            std::thread::sleep(std::time::Duration::from_millis(100));
            Told::new(200).body(BYTES)
        });
        let folder = tempfile::tempdir().unwrap();
        let blob = Descriptor::of(MediaType::OciLayer, BYTES);
        let reference: Reference = format!("{}/a", server.name).parse().unwrap();
        // As in several processes: each has a client and a store of its own.
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let store = Store::open(folder.path()).unwrap();
                    let blobs = std::slice::from_ref(&blob);
                    client("", None).0.pull(&reference, blobs, &store).unwrap();
                });
            }
        });
        assert_eq!(server.asked().len(), 1);
    }

    #[test]
    fn the_end_of_a_wrong_blob_is_held_back() {
        let read = |bytes: &[u8], blob: &[u8]| {
            let blob = Descriptor::of(MediaType::OciLayer, blob);
            let mut out = Vec::new();
            let mut verified = Verified::new(bytes, blob);
            let mut buffer = [0; 2];
            loop {
                match verified.read(&mut buffer) {
                    Ok(0) => return (out, true),
                    Ok(count) => out.extend_from_slice(&buffer[..count]),
                    Err(_) => return (out, false),
                }
            }
        };
        assert_eq!(read(b"abcd", b"abcd"), (b"abcd".to_vec(), true));
        assert_eq!(read(b"abce", b"abcd"), (b"ab".to_vec(), false));
    }
}
