//! What a wheel says of itself, with as little fetched as possible: alone beside the wheel (PEP 658), out of the wheel by
//! ranges, or out of the whole wheel. Decides nothing.

use reqwest::Url;

use super::download::Wheel;
use super::error::IndexError;
use super::fetch::Ask;
use super::{Inner, Source};
use crate::graph::PackageFile;
use crate::net::url;
use crate::oci::Digest;
use crate::python::WheelName;
use crate::python::wheel::{self, Bytes, METADATA, Problem, TAIL, WheelError};
use crate::store::{Blob, Blobs as _, Page};

impl Inner {
    /// Returns the METADATA of a wheel.
    pub(super) fn metadata_of(&self, file: &PackageFile) -> Result<String, IndexError> {
        let malformed = |why: String| IndexError::Malformed {
            file: file.file.to_string(),
            why,
        };
        WheelName::parse(&file.file).map_err(|error| malformed(error.to_string()))?;
        if let Some(text) = self.remembered(file)? {
            return Ok(text);
        }
        // A wheel that is damaged is fetched again.
        let is_sound = |blob: &Blob| self.cache.sound(&blob.digest).unwrap_or(false);
        let held = file.sha256.and_then(|it| self.cache.find(&it));
        if let Some(blob) = held.filter(is_sound) {
            return self.local(&blob, file);
        }
        let url = |error: &dyn std::fmt::Display| malformed(format!("its URL is none: {error}"));
        let url: Url = file.url.parse().map_err(|error| url(&error))?;
        let sources = self.sources()?;
        let index = sources.iter().find(|it| it.name() == &*file.index);
        if file.has_metadata != Some(false)
            && let Some(text) = self.beside(file, &url, index)?
        {
            self.remember(&by_place(file), &text)?;
            return Ok(text);
        }
        if let Some(text) = self.by_ranges(file, &url, index)? {
            self.remember(&by_place(file), &text)?;
            return Ok(text);
        }
        let wanted = Wheel {
            url,
            index,
            login: None,
            file: &file.file,
            sha256: file.sha256,
            size: None,
        };
        let blob = self.download(&wanted, &*self.cache)?;
        self.local(&blob, file)
    }

    /// Looks into the cache.
    fn remembered(&self, file: &PackageFile) -> Result<Option<String>, IndexError> {
        for key in by_digest(file).into_iter().chain([by_place(file)]) {
            let Some(Page { body, .. }) = self.cache.page(&key)? else {
                continue;
            };
            // The index may know better by now.
            let is_it = file.metadata_sha256.is_none_or(|it| it == body.digest);
            if is_it
                && body.size <= METADATA
                && let Ok(bytes) = self.cache.read_blob(&body)
            {
                return Ok(Some(String::from_utf8_lossy(&bytes).into_owned()));
            }
        }
        Ok(None)
    }

    fn remember(&self, key: &Digest, text: &str) -> Result<(), IndexError> {
        let body = self.cache.put_blob(text.as_bytes())?;
        let about = serde_json::Value::Null;
        Ok(self.cache.put_page(key, Page { body, about })?)
    }

    /// Reads the METADATA of a wheel that is in the cache, and sound.
    fn local(&self, blob: &Blob, file: &PackageFile) -> Result<String, IndexError> {
        let path = self.cache.local_path(&blob.digest);
        let text = wheel::metadata(&path, &file.file, blob.digest)?;
        let found = Digest::of(text.as_bytes());
        if let Some(expected) = file.metadata_sha256.filter(|it| *it != found) {
            return Err(IndexError::Wheel(WheelError {
                wheel: file.file.to_string(),
                problem: Problem::Metadata { found, expected },
            }));
        }
        let key = by_digest(file).unwrap_or_else(|| by_place(file));
        self.remember(&key, &text)?;
        Ok(text)
    }

    /// Fetches the METADATA that lies beside a wheel; `None` if there is none.
    fn beside(
        &self,
        file: &PackageFile,
        url: &Url,
        index: Option<&Source>,
    ) -> Result<Option<String>, IndexError> {
        let mut url = url.clone();
        url.set_path(&format!("{}.metadata", url.path()));
        let is_sure = file.has_metadata == Some(true);
        let ask = Ask {
            tries: (!is_sure).then_some(1),
            ..Ask::new(url, index, format!("the metadata of `{}`", file.file))
        };
        let (reply, bytes) = match self.load(&ask, METADATA) {
            Ok(found) => found,
            Err(IndexError::Stopped) => return Err(IndexError::Stopped),
            // It was but a guess.
            Err(_) if !is_sure => return Ok(None),
            Err(error) => return Err(error),
        };
        if reply.status() != 200 {
            return Ok(None);
        }
        if let Some(expected) = file.metadata_sha256 {
            let found = Digest::of(&bytes);
            if found != expected {
                return Err(ask.wrong(format!("it has the digest {found} instead of {expected}")));
            }
        }
        let Ok(text) = String::from_utf8(bytes) else {
            return match is_sure {
                true => Err(ask.wrong("it is not UTF-8")),
                false => Ok(None),
            };
        };
        // Some servers answer with a page of theirs to whatever they do not know.
        let is_it = text
            .lines()
            .take_while(|line| !line.trim().is_empty())
            .any(|line| starts_with(line, "metadata-version:"));
        Ok(is_it.then_some(text))
    }

    /// Reads the METADATA of a wheel by ranges; `None` where the server does not do so, or the archive is odd.
    fn by_ranges(
        &self,
        file: &PackageFile,
        url: &Url,
        index: Option<&Source>,
    ) -> Result<Option<String>, IndexError> {
        let host = url::authority(url);
        if self.is_whole_only(&host) {
            return Ok(None);
        }
        let remote = Remote::open(self, file, url, index);
        let read =
            remote.and_then(|mut remote| wheel::read_metadata(&mut remote, Remote::read_ahead));
        match read {
            Ok(text) => Ok(Some(text)),
            Err(Trouble::Failed(error)) => Err(*error),
            Err(Trouble::Unable) => {
                self.set_whole_only(host);
                Ok(None)
            }
            // What is wrong with it shows in the whole wheel, whose digest can be checked.
            Err(Trouble::Archive) => Ok(None),
        }
    }
}

fn starts_with(line: &str, start: &str) -> bool {
    let head = line.get(..start.len());
    head.is_some_and(|it| it.eq_ignore_ascii_case(start))
}

/// The key of METADATA that was read out of a wheel with this digest.
fn by_digest(file: &PackageFile) -> Option<Digest> {
    let sha256 = file.sha256?;
    Some(Digest::of(format!("index-metadata-1\0{sha256}").as_bytes()))
}

/// The key of METADATA that a server said belongs to a wheel: what one server says is not believed of another.
fn by_place(file: &PackageFile) -> Digest {
    let sha256 = file.sha256.map(|it| it.to_string()).unwrap_or_default();
    Digest::of(format!("index-metadata-1\0{sha256}\0{}", file.url).as_bytes())
}

/// Why METADATA is not to be had by ranges.
#[derive(Debug)]
enum Trouble {
    /// The archive is not what it should be.
    Archive,
    /// The bytes cannot be read in this way.
    Unable,
    /// The bytes cannot be read at all.
    Failed(Box<IndexError>),
}

impl From<IndexError> for Trouble {
    fn from(error: IndexError) -> Self {
        Self::Failed(Box::new(error))
    }
}

impl From<Problem> for Trouble {
    fn from(_: Problem) -> Self {
        Self::Archive
    }
}

/// A wheel on a server that gives ranges of it. Its end is there from the beginning.
struct Remote<'a> {
    inner: &'a Inner,
    index: Option<&'a Source>,
    url: Url,
    what: String,
    /// What says that the file is the same still.
    etag: Option<String>,
    size: u64,
    tail: Vec<u8>,
    /// What was read ahead, and from where.
    ahead: (u64, Vec<u8>),
}

impl<'a> Remote<'a> {
    fn open(
        inner: &'a Inner,
        file: &PackageFile,
        url: &Url,
        index: Option<&'a Source>,
    ) -> Result<Self, Trouble> {
        let mut remote = Self {
            inner,
            index,
            url: url.clone(),
            what: format!("the end of `{}`", file.file),
            etag: None,
            size: 0,
            tail: Vec::new(),
            ahead: (0, Vec::new()),
        };
        let (bytes, range, etag) = remote.ask(&format!("-{TAIL}"), TAIL)?;
        let (first, last, Some(size)) = range else {
            return Err(Trouble::Unable);
        };
        let is_end = last + 1 == size && last - first + 1 == size.min(TAIL);
        if !is_end || bytes.len() as u64 != last - first + 1 {
            return Err(Trouble::Unable);
        }
        remote.what = format!("a part of `{}`", file.file);
        remote.etag = etag;
        remote.size = size;
        remote.tail = bytes;
        Ok(remote)
    }

    /// Fetches a part at once that will be read piece by piece.
    fn read_ahead(&mut self, at: u64, count: u64) -> Result<(), Trouble> {
        self.ahead = (at, self.read(at, count)?);
        Ok(())
    }

    /// Asks for a range: returns the bytes, the range that they are said to be, and the entity tag.
    #[expect(
        clippy::type_complexity,
        reason = "three things of one answer, taken apart at once"
    )]
    fn ask(
        &self,
        range: &str,
        limit: u64,
    ) -> Result<(Vec<u8>, (u64, u64, Option<u64>), Option<String>), Trouble> {
        let ask = Ask::new(self.url.clone(), self.index, self.what.clone());
        let ask = ask.header("range", &format!("bytes={range}"));
        let mut reply = self.inner.send(&ask)?;
        match reply.status() {
            206 => {}
            // It gives all or nothing: the body is not read.
            200 | 400 | 405 | 416 | 501 => return Err(Trouble::Unable),
            _ => return Err(reply.refused().into()),
        }
        let said = reply.header("content-range").and_then(url::content_range);
        let said = said.ok_or(Trouble::Unable)?;
        let etag = reply.header("etag").map(str::to_owned);
        let read = reply.answer.read(limit);
        match read {
            Ok(bytes) if bytes.len() as u64 <= limit => Ok((bytes, said, etag)),
            Ok(_) => Err(Trouble::Unable),
            Err(crate::net::Fault::Stopped) => Err(IndexError::Stopped.into()),
            // The whole wheel is resumed where it is cut.
            Err(_) => Err(Trouble::Archive),
        }
    }
}

impl Bytes for Remote<'_> {
    type Error = Trouble;

    fn size(&self) -> u64 {
        self.size
    }

    fn read(&mut self, at: u64, count: u64) -> Result<Vec<u8>, Trouble> {
        let (from, held) = &self.ahead;
        let held = at.checked_sub(*from).and_then(|start| {
            let start = usize::try_from(start).ok()?;
            held.get(start..start.checked_add(usize::try_from(count).ok()?)?)
        });
        if let Some(held) = held {
            return Ok(held.to_vec());
        }
        let start = self.size - self.tail.len() as u64;
        let end = at + count;
        let slice = |from: u64, to: u64| {
            let range = usize::try_from(from).ok()?..usize::try_from(to).ok()?;
            self.tail.get(range).map(<[u8]>::to_vec)
        };
        let mut bytes = Vec::new();
        if at < start && count > 0 {
            let last = end.min(start) - 1;
            let wanted = (at, last, Some(self.size));
            let (part, said, etag) = self.ask(&format!("{at}-{last}"), last - at + 1)?;
            if said != wanted || etag != self.etag || part.len() as u64 != last - at + 1 {
                return Err(Trouble::Unable);
            }
            bytes = part;
        }
        if end > start {
            let more = slice(at.max(start) - start, end - start);
            bytes.extend(more.ok_or(Trouble::Unable)?);
        }
        Ok(bytes)
    }
}
