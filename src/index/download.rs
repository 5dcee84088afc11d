//! A wheel, fetched into the store: streamed, and resumed after a cut. Its digest decides. Knows nothing of what is in it.

use std::io::Write;

use reqwest::Url;

use super::error::IndexError;
use super::fetch::{Ask, Reply};
use super::login::Login;
use super::{Inner, Source};
use crate::graph::WantedWheel;
use crate::net::backoff::Backoff;
use crate::net::monitor::{Direction, Ended, Going, Transfer};
use crate::net::url;
use crate::net::{Fault, Monitor as _};
use crate::oci::Digest;
use crate::store::{Blob, BlobWriter, Blobs, StoreError};

/// How many cuts are borne for one wheel, each of which came further than the last.
const CUTS: u32 = 100;
/// How large a wheel may be whose size nobody said, in bytes.
const MOST: u64 = 16 << 30;

/// A wheel to fetch.
pub(super) struct Wheel<'a> {
    pub(super) url: Url,
    pub(super) index: Option<&'a Source>,
    /// The login that the URL held.
    pub(super) login: Option<Login>,
    pub(super) file: &'a str,
    /// The digest that it must have, if that is known.
    pub(super) sha256: Option<Digest>,
    /// The size that it must have, if that is known.
    pub(super) size: Option<u64>,
}

impl<'a> Wheel<'a> {
    /// Makes the wheel that is wanted, at a place.
    pub(super) fn of(wanted: &WantedWheel<'a>, url: Url, index: Option<&'a Source>) -> Self {
        Self {
            url,
            index,
            login: None,
            file: wanted.file,
            sha256: Some(wanted.sha256),
            size: wanted.size,
        }
    }

    pub(super) fn ask(&self) -> Ask<'a> {
        let what = format!("the file `{}`", self.file);
        Ask {
            login: self.login.clone(),
            ..Ask::new(self.url.clone(), self.index, what)
        }
    }
}

/// What came of a wheel so far.
struct Part<'s> {
    writer: BlobWriter<'s>,
    offset: u64,
    /// What says that the file is the same still.
    etag: Option<String>,
}

/// What an answer gives of a wheel.
enum Given {
    /// Bytes that come next, of so many if that is known.
    Bytes(Option<u64>),
    /// No part: all must be asked for.
    NoPart,
}

impl<'s> Part<'s> {
    fn begin(store: &'s dyn Blobs) -> Result<Self, IndexError> {
        Ok(Self {
            writer: store.writer()?,
            offset: 0,
            etag: None,
        })
    }

    /// Makes the request for what is missing; for all unless `is_rest`.
    fn request<'a>(&self, wheel: &Wheel<'a>, is_rest: bool) -> Ask<'a> {
        let request = wheel.ask();
        if !is_rest {
            return request;
        }
        let request = request.header("range", &format!("bytes={}-", self.offset));
        match &self.etag {
            Some(etag) => request.header("if-range", etag),
            None => request,
        }
    }

    /// Takes the head of an answer: whether its bytes come next, or are all of them, so that what came is given up.
    fn accept(
        &mut self,
        wheel: &Wheel<'_>,
        reply: &Reply<'_>,
        is_rest: bool,
        store: &'s dyn Blobs,
    ) -> Result<Given, IndexError> {
        match reply.status() {
            200 => {
                if self.offset > 0 {
                    *self = Self::begin(store)?;
                }
                let said = reply.length();
                if let (Some(expected), Some(found)) = (wheel.size, said)
                    && expected != found
                {
                    let why = format!("it has {found} bytes instead of {expected}");
                    return Err(wheel.ask().wrong(why));
                }
                if wheel.size.is_none()
                    && let Some(size) = said.filter(|&size| size > MOST)
                {
                    let why = format!("it has {size} bytes, and {MOST} are the most");
                    return Err(wheel.ask().wrong(why));
                }
                let etag = reply.header("etag").filter(|it| !it.starts_with("W/"));
                self.etag = etag.map(str::to_owned);
                Ok(Given::Bytes(wheel.size.or(said)))
            }
            206 if is_rest => {
                let range = reply.header("content-range").and_then(url::content_range);
                let range = range.filter(|&(first, last, size)| {
                    first == self.offset
                        && size.is_none_or(|size| last < size)
                        && wheel
                            .size
                            .is_none_or(|it| size.is_none_or(|size| size == it))
                });
                Ok(match range {
                    Some((_, _, size)) => Given::Bytes(wheel.size.or(size)),
                    None => Given::NoPart,
                })
            }
            416 if is_rest => Ok(Given::NoPart),
            _ => Err(reply.refused()),
        }
    }
}

impl Inner {
    /// Fetches a wheel. One that is wrong is fetched again once: a cache on the way may have mixed two up.
    pub(super) fn download(
        &self,
        wheel: &Wheel<'_>,
        store: &dyn Blobs,
    ) -> Result<Blob, IndexError> {
        let ask = wheel.ask();
        match self.stream(wheel, &ask, store) {
            Err(IndexError::Store(StoreError::Digest { .. })) => {}
            other => return other,
        }
        match self.stream(wheel, &ask, store) {
            Err(IndexError::Store(StoreError::Digest {
                expected, found, ..
            })) => Err(ask.wrong(format!("it has the digest {found} instead of {expected}"))),
            other => other,
        }
    }

    /// Returns the size of a wheel, as its server says it; `None` where it does not. Nothing is fetched but a byte.
    pub(super) fn said_size(&self, wheel: &Wheel<'_>) -> Option<u64> {
        let reply = self.send(&wheel.ask().header("range", "bytes=0-0")).ok()?;
        // The length of what is packed on the way is another one.
        let is_packed = reply.header("content-encoding");
        if is_packed.is_some_and(|it| !it.eq_ignore_ascii_case("identity")) {
            return None;
        }
        match reply.status() {
            206 => match reply.header("content-range").and_then(url::content_range)? {
                (0, 0, size) => size,
                _ => None,
            },
            // It gives all or nothing: the body is not read.
            200 => reply.length(),
            _ => None,
        }
        .filter(|&size| size <= MOST)
    }

    /// Fetches a wheel, once.
    pub(super) fn stream(
        &self,
        wheel: &Wheel<'_>,
        ask: &Ask<'_>,
        store: &dyn Blobs,
    ) -> Result<Blob, IndexError> {
        let mut part = Part::begin(store)?;
        let mut going: Option<Going<'_>> = None;
        let mut backoff = Backoff::new(&self.limits, self.limits.tries);
        let (mut cuts, mut is_unable) = (0, false);
        loop {
            // Without a digest, only an entity tag tells that both parts are of one file.
            let is_rest =
                part.offset > 0 && !is_unable && (wheel.sha256.is_some() || part.etag.is_some());
            let mut reply = self.send(&part.request(wheel, is_rest))?;
            let Given::Bytes(total) = part.accept(wheel, &reply, is_rest, store)? else {
                is_unable = true;
                continue;
            };
            let going = going.get_or_insert_with(|| {
                let transfer = Transfer {
                    direction: Direction::Pull,
                    what: wheel.file,
                    repository: wheel.index.map_or("its URL", Source::name),
                    size: total.unwrap_or_default(),
                };
                Going::start(&*self.monitor, &transfer)
            });
            let fault = loop {
                match reply.answer.chunk() {
                    Ok(Some(bytes)) => {
                        part.offset += bytes.len() as u64;
                        let most = total.unwrap_or(MOST);
                        if part.offset > most {
                            return Err(ask.wrong(format!("it has more than {most} bytes")));
                        }
                        let written = part.writer.write_all(&bytes);
                        written.map_err(|error| store.unwritable(error))?;
                        self.monitor.more(going.number(), bytes.len() as u64);
                        // What comes further is not at its end.
                        backoff = Backoff::new(&self.limits, self.limits.tries);
                    }
                    Ok(None) if total.is_none_or(|total| total == part.offset) => break None,
                    Ok(None) => break Some(Fault::Cut),
                    Err(fault) => break Some(fault),
                }
            };
            let Some(fault) = fault else {
                break;
            };
            cuts += 1;
            let delay = match fault.is_passing() && cuts < CUTS {
                true => backoff.again(None),
                false => None,
            };
            match delay {
                Some(delay) => self.pause(delay)?,
                None => return Err(ask.failed(fault, &backoff)),
            }
        }
        let blob = match wheel.sha256 {
            Some(digest) => {
                let size = part.offset;
                let expected = Blob { digest, size };
                part.writer.complete_verified_as(&expected, wheel.file)?
            }
            None => part.writer.complete()?,
        };
        if let Some(going) = going {
            going.end(Ended::Done);
        }
        Ok(blob)
    }
}
