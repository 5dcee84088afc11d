//! The files of a package: the page of the first index that has it, remembered with its entity tag; and a wheel among
//! them. Reads no page itself.

use std::io::Read;

use flate2::read::MultiGzDecoder;
use pep508_rs::PackageName;
use reqwest::Url;
use serde::{Deserialize, Serialize};

use super::download::Wheel;
use super::error::IndexError;
use super::fetch::{Ask, Reply};
use super::fresh::Span;
use super::login::Login;
use super::{Inner, Source, page};
use crate::graph::{ActionError, Failure, PackageError, PackageFile, WantedWheel, WheelHome};
use crate::net::url;
use crate::oci::Digest;
use crate::store::{Blob, Blobs, Page, StoreError};

/// How large a page may be, in bytes.
pub(super) const PAGE: u64 = 64 << 20;

/// What is remembered of a page, besides its bytes.
#[derive(Serialize, Deserialize)]
struct Remembered {
    etag: Option<String>,
    modified: Option<String>,
    /// The content type.
    kind: String,
    /// Where it came from, after redirects.
    url: String,
    /// How long it is believed without asking.
    #[serde(default)]
    fresh: Option<Span>,
}

impl Inner {
    /// Returns the files of a package, from the first index that has it.
    pub(super) fn files_of(&self, project: &str) -> Result<Vec<PackageFile>, IndexError> {
        // A name that is normalised cannot lead out of the index.
        let name: Option<PackageName> = project.parse().ok().filter(|_| !project.is_empty());
        let name = name.ok_or_else(|| IndexError::Malformed {
            file: format!("`{project}`"),
            why: "it is no name of a package".to_owned(),
        })?;
        let (mut indexes, mut found) = (Vec::new(), Vec::new());
        let asked = self.asked(name.as_ref())?;
        for group in asked.chunk_by(|one, other| one.group() == other.group()) {
            for source in group {
                if let Some(files) = self.files_in(source, name.as_ref())? {
                    found.push(files);
                    break;
                }
                indexes.push(source.name().to_owned());
            }
        }
        if found.is_empty() {
            return Err(IndexError::NotFound {
                project: name.to_string(),
                indexes,
            });
        }
        let mut found = found.into_iter();
        let mut files = found.next().unwrap_or_default();
        files.extend(found.flatten());
        Ok(files)
    }

    /// Returns the files of a package in one index or on one page of links; `None` if it does not have the package.
    pub(super) fn files_in(
        &self,
        source: &Source,
        project: &str,
    ) -> Result<Option<Vec<PackageFile>>, IndexError> {
        match source.is_page() {
            true => self.linked(source, project),
            false => self.page(source, project),
        }
    }

    /// Returns the files of a package in one index; `None` if it does not have the package.
    pub(super) fn page(
        &self,
        source: &Source,
        project: &str,
    ) -> Result<Option<Vec<PackageFile>>, IndexError> {
        match self.page_if_new(source, project, true) {
            // What is remembered is damaged: it is forgotten.
            Err(IndexError::Store(StoreError::Damaged(_))) => {
                self.page_if_new(source, project, false)
            }
            other => other,
        }
    }

    /// Does so, and may ask only whether there is a newer page than the one that is remembered.
    fn page_if_new(
        &self,
        source: &Source,
        project: &str,
        may_know: bool,
    ) -> Result<Option<Vec<PackageFile>>, IndexError> {
        let url = source.page(project);
        let key = Digest::of(format!("index-page-1\0{url}").as_bytes());
        let known = match may_know {
            true => self.known(&key)?,
            false => None,
        };
        let is_fresh = |it: &(Remembered, Blob)| self.freshness.spares(it.0.fresh.as_ref());
        if let Some((known, blob)) = known.as_ref().filter(|it| is_fresh(it))
            && let Ok(url) = known.url.parse::<Url>()
        {
            let bytes = self.cache.read_blob(blob)?;
            if let Ok(files) = page::read(&known.kind, &bytes, &url, source.name()) {
                return Ok(Some(files));
            }
        }
        let what = match source.is_page() {
            true => "its links".to_owned(),
            false => format!("the page of `{project}`"),
        };
        let mut ask = Ask::new(url, Some(source), what)
            .header("accept", page::ACCEPT)
            .header("accept-encoding", "gzip");
        if let Some((known, _)) = &known {
            if let Some(etag) = &known.etag {
                ask = ask.header("if-none-match", etag);
            }
            if let Some(modified) = &known.modified {
                ask = ask.header("if-modified-since", modified);
            }
        }
        let read = |kind: &str, bytes: &[u8], url: &Url| {
            let files = page::read(kind, bytes, url, source.name());
            files.map_err(|why| ask.wrong(why))
        };
        let (reply, bytes) = self.load(&ask, PAGE)?;
        match (reply.status(), known) {
            (404, _) => Ok(None),
            (304, Some((mut known, blob))) => {
                let url: Url = known.url.parse().map_err(|_| ask.wrong("it has no URL"))?;
                let bytes = self.cache.read_blob(&blob)?;
                let fresh = span(&reply);
                if fresh.is_some() || known.fresh.is_some() {
                    known.fresh = fresh;
                    self.keep(&key, &known, blob)?;
                }
                read(&known.kind, &bytes, &url).map(Some)
            }
            (200, _) => {
                let text = |name: &str| reply.header(name).map(str::to_owned);
                let bytes = match text("content-encoding").as_deref().map(str::trim) {
                    None | Some("" | "identity") => bytes,
                    Some("gzip" | "x-gzip") => unzip(&bytes).map_err(|why| ask.wrong(why))?,
                    Some(_) => {
                        return Err(ask.wrong("it is packed in a way that was not asked for"));
                    }
                };
                let remembered = Remembered {
                    etag: text("etag"),
                    modified: text("last-modified"),
                    kind: text("content-type").unwrap_or_default(),
                    url: reply.url.to_string(),
                    fresh: span(&reply),
                };
                let files = read(&remembered.kind, &bytes, &reply.url)?;
                // Without a tag or a date nobody could say whether it is the newest, but for as long as it is fresh.
                let is_tagged = remembered.etag.is_some() || remembered.modified.is_some();
                if is_tagged || remembered.fresh.is_some() {
                    let body = self.cache.put_blob(&bytes)?;
                    self.keep(&key, &remembered, body)?;
                }
                Ok(Some(files))
            }
            // Where files lie in a bucket, that is how what is not there is answered: its list of packages says more.
            (403, _) if !reply.had_login && self.is_unlisted(source, project) => Ok(None),
            _ => Err(reply.refused()),
        }
    }

    /// Returns the page that is remembered under a key, if its bytes are there.
    fn known(&self, key: &Digest) -> Result<Option<(Remembered, Blob)>, IndexError> {
        let page = self.cache.page(key)?;
        let page = page.filter(|page| page.body.size <= PAGE);
        Ok(page.and_then(|page| Some((serde_json::from_value(page.about).ok()?, page.body))))
    }

    fn keep(&self, key: &Digest, page: &Remembered, body: Blob) -> Result<(), IndexError> {
        let about = serde_json::json!(page);
        Ok(self.cache.put_page(key, Page { body, about })?)
    }

    /// Returns the indexes that are asked for a package; the name is normalised.
    fn asked(&self, project: &str) -> Result<Vec<&Source>, IndexError> {
        let sources = self.sources()?;
        let is_pinned = sources.iter().any(|it| it.pins(project));
        let is_asked = |it: &&Source| match is_pinned {
            true => it.pins(project),
            false => !it.is_pinned(),
        };
        Ok(sources.iter().filter(is_asked).collect())
    }

    /// Fetches a wheel: from the store, from where it may be, or from where the indexes list it.
    pub(super) fn wheel_of(
        &self,
        wanted: &WantedWheel<'_>,
        store: &dyn Blobs,
    ) -> Result<Blob, ActionError> {
        let fits = |it: &Blob| wanted.size.is_none_or(|size| size == it.size);
        if let Some(blob) = store.find(&wanted.sha256).filter(fits) {
            return Ok(blob);
        }
        if let Some(home) = wanted.home {
            let source = self.source_of(home)?;
            let file = self.listed_in(&source, wanted)?;
            let url = Url::parse(&file.url).map_err(|_| IndexError::NoFile {
                index: source.name().to_owned(),
                file: file.file.to_string(),
            })?;
            return Ok(self.download(&Wheel::of(wanted, url, Some(&source)), store)?);
        }
        let hinted = self.hinted(wanted);
        let failed = match hinted.map(|wheel| self.download(&wheel, store)) {
            None => None,
            Some(Ok(blob)) => return Ok(blob),
            Some(Err(error @ (IndexError::Stopped | IndexError::Store(_)))) => {
                return Err(error.into());
            }
            Some(Err(error)) => Some(error),
        };
        match (self.listed(wanted), failed) {
            (Ok(file), _) => {
                let source = self.sources()?.iter().find(|it| it.name() == &*file.index);
                let url = Url::parse(&file.url).map_err(|_| IndexError::NoFile {
                    index: file.index.to_string(),
                    file: file.file.to_string(),
                })?;
                Ok(self.download(&Wheel::of(wanted, url, source), store)?)
            }
            // Nobody lists what has a place of its own.
            (Err(error), Some(failed)) if error.failure != Failure::Stopped => Err(failed.into()),
            (Err(error), _) => Err(error),
        }
    }

    /// Fetches a file whose digest its index does not say.
    pub(super) fn unsaid(&self, file: &PackageFile, store: &dyn Blobs) -> Result<Blob, IndexError> {
        let source = self.sources()?.iter().find(|it| it.name() == &*file.index);
        let url = Url::parse(&file.url).map_err(|_| IndexError::NoFile {
            index: file.index.to_string(),
            file: file.file.to_string(),
        })?;
        let wheel = Wheel {
            url,
            index: source,
            login: None,
            file: &file.file,
            sha256: None,
            size: file.size,
        };
        self.download(&wheel, store)
    }

    /// Returns the size of a wheel: as the store has it, or its index or server says.
    pub(super) fn size_of(&self, wanted: &WantedWheel<'_>) -> Option<u64> {
        if let Some(blob) = self.cache.find(&wanted.sha256) {
            return Some(blob.size);
        }
        if let Some(home) = wanted.home {
            let source = self.source_of(home).ok()?;
            let file = self.listed_in(&source, wanted).ok()?;
            let url = Url::parse(&file.url).ok()?;
            let wheel = Wheel::of(wanted, url, Some(&source));
            return file.size.or_else(|| self.said_size(&wheel));
        }
        let hinted = self.hinted(wanted);
        if let Some(size) = hinted.and_then(|wheel| self.said_size(&wheel)) {
            return Some(size);
        }
        let file = self.listed(wanted).ok()?;
        if file.size.is_some() {
            return file.size;
        }
        let sources = self.sources().ok()?;
        let source = sources.iter().find(|it| it.name() == &*file.index);
        self.said_size(&Wheel::of(wanted, Url::parse(&file.url).ok()?, source))
    }

    /// Returns the wheel where a lock or a requirement says that it may be; `None` where none does.
    fn hinted<'a>(&'a self, wanted: &WantedWheel<'a>) -> Option<Wheel<'a>> {
        let mut url = Url::parse(wanted.hint?).ok()?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return None;
        }
        let login = Login::of_url(&url);
        let _ = url.set_username("");
        let _ = url.set_password(None);
        url.set_fragment(None);
        // No index need be known for this.
        let sources = self.sources().unwrap_or_default();
        let index = sources.iter().find(|it| url::is_same(it.address(), &url));
        Some(Wheel {
            login,
            ..Wheel::of(wanted, url, index)
        })
    }

    /// Finds a wheel among the files of its package.
    fn listed(&self, wanted: &WantedWheel<'_>) -> Result<PackageFile, ActionError> {
        let was_anew = self.freshness.is_anew();
        match self.listed_now(wanted) {
            // It may have come since its page was asked for.
            Err(_) if !was_anew && self.freshness.ask_anew() => self.listed_now(wanted),
            found => found,
        }
    }

    /// Finds it among those that are known.
    fn listed_now(&self, wanted: &WantedWheel<'_>) -> Result<PackageFile, ActionError> {
        let files = self.files(wanted.project).map_err(|error| match error {
            PackageError::Failed(error) => error,
            PackageError::Malformed { code, why, help } => ActionError::new(code, why).help(help),
            PackageError::NotFound { asked: indexes } => {
                let project = wanted.project.to_owned();
                IndexError::NotFound { project, indexes }.into()
            }
        })?;
        Ok(pick(&files, wanted)?)
    }

    /// Finds a wheel among the files of its package in one index.
    fn listed_in(
        &self,
        source: &Source,
        wanted: &WantedWheel<'_>,
    ) -> Result<PackageFile, IndexError> {
        let now = || {
            let files = self.files_in(source, wanted.project)?;
            let files = files.ok_or_else(|| IndexError::NotFound {
                project: wanted.project.to_owned(),
                indexes: vec![source.name().to_owned()],
            })?;
            pick(&files, wanted)
        };
        let was_anew = self.freshness.is_anew();
        match now() {
            Err(_) if !was_anew && self.freshness.ask_anew() => now(),
            found => found,
        }
    }

    /// Returns the index that a lock names: one of those that are known, with its credentials, if it is one.
    fn source_of(&self, home: &WheelHome) -> Result<Source, ActionError> {
        let sources = self.sources().map_err(ActionError::from)?;
        if let Some(known) = sources.iter().find(|it| it.home().as_ref() == Some(home)) {
            return Ok(known.clone());
        }
        Source::of_home(home).map_err(|error| {
            ActionError::new("imgdecl::index::source", error.to_string())
                .help("run `imgdecl lock --update`")
        })
    }
}

/// Returns how long an answer may be believed. What is shown to those alone who log in is asked for each time.
fn span(reply: &Reply<'_>) -> Option<Span> {
    let span = Span::said(reply.header("cache-control"), reply.header("age"));
    span.filter(|_| !reply.had_login)
}

/// Finds a wheel among files of its package: that with the digest which is wanted.
fn pick(files: &[PackageFile], wanted: &WantedWheel<'_>) -> Result<PackageFile, IndexError> {
    let of_name = || files.iter().filter(|it| *it.file == *wanted.file);
    let fits = |it: &&PackageFile| it.sha256.is_none_or(|it| it == wanted.sha256);
    if let Some(file) = of_name().find(fits) {
        return Ok(file.clone());
    }
    let index = files.first().map(|it| it.index.to_string());
    let index = index.unwrap_or_default();
    let file = wanted.file.to_owned();
    Err(match of_name().find_map(|it| it.sha256) {
        None => IndexError::NoFile { index, file },
        Some(found) => IndexError::OtherFile {
            index,
            file,
            expected: wanted.sha256,
            found,
        },
    })
}

/// Inflates a page.
fn unzip(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let read = MultiGzDecoder::new(bytes)
        .take(PAGE + 1)
        .read_to_end(&mut out);
    match read {
        Err(_) => Err("it is damaged".to_owned()),
        Ok(_) if out.len() as u64 > PAGE => Err(format!("it has more than {PAGE} bytes")),
        Ok(_) => Ok(out),
    }
}
