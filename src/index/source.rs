//! An index: its name, where it is, who asks, and for which packages it is asked. Opens nothing.

use std::fmt;

use pep508_rs::PackageName;
use reqwest::Url;

use super::login::Login;
use crate::graph::WheelHome;

/// An index of packages (simple repository API, PEP 503 and PEP 691).
#[derive(Clone, PartialEq, Eq)]
pub struct Source {
    name: String,
    /// Without credentials, and with `/` at its end.
    url: Url,
    login: Option<Login>,
    packages: Vec<Pattern>,
    /// Of the indexes of one group, a package comes from the first that has it; of several groups, from all.
    group: u32,
    /// Whether it is a page that lists files of any package, and no index.
    is_page: bool,
    /// Whether a file of the user's names it, so that `image.lock` says where it is.
    is_of_file: bool,
}

/// A text that names no index.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SourceError {
    /// It is no URL.
    #[error("`{0}` is no http or https URL of a package index")]
    Url(String),
    /// It is a path, or a URL of a file.
    #[error("`{0}` is a folder, and no package index")]
    Folder(String),
    /// It is no name of a package, and no beginning of names.
    #[error("`{0}` is no name of a package, and no beginning of names as `acme-*`")]
    Pattern(String),
}

impl SourceError {
    /// Says how to mend it.
    pub fn help(&self) -> &'static str {
        match self {
            Self::Url(_) => "write the URL below which the index has a page for each package",
            Self::Folder(_) => "name folders of wheels in `find_links`",
            Self::Pattern(_) => {
                "write names, or beginnings of names with `*` behind their last `-`"
            }
        }
    }
}

/// What packages an index is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Pattern {
    Name(String),
    /// All names that begin so.
    Start(String),
}

impl Source {
    /// Makes an index of its URL, which may hold a user and a password. Without a name it is called by its URL.
    ///
    /// # Errors
    /// When the text is no http or https URL. What the error shows holds no credentials.
    pub fn new(name: Option<&str>, text: &str) -> Result<Self, SourceError> {
        let text = text.trim();
        let is_file = text
            .get(..5)
            .is_some_and(|it| it.eq_ignore_ascii_case("file:"));
        // Not what stands before an `@`, nor a query.
        let safe = |text: &str| {
            let shown = text.rsplit_once('@').map_or(text, |(_, rest)| rest);
            shown.split('?').next().unwrap_or_default().to_owned()
        };
        let Some((_, rest)) = text.split_once("://").filter(|_| !is_file) else {
            return Err(SourceError::Folder(safe(text)));
        };
        let fail = || SourceError::Url(safe(rest));
        let mut url = Url::parse(text).map_err(|_| fail())?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(fail());
        }
        let login = Login::of_url(&url);
        let _ = url.set_username("");
        let _ = url.set_password(None);
        url.set_fragment(None);
        if !url.path().ends_with('/') {
            let path = format!("{}/", url.path());
            url.set_path(&path);
        }
        let name = match name.map(str::trim).filter(|name| !name.is_empty()) {
            Some(name) => name.to_owned(),
            None => shown(&url).trim_end_matches('/').to_owned(),
        };
        Ok(Self {
            name,
            url,
            login,
            packages: Vec::new(),
            group: 0,
            is_page: false,
            is_of_file: false,
        })
    }

    /// Makes a page that lists files of any package, of its URL.
    ///
    /// # Errors
    /// As [`Source::new`].
    pub(super) fn page_of_links(text: &str) -> Result<Self, SourceError> {
        let mut page = Self::new(None, text)?;
        let path = Url::parse(text.trim()).map(|url| url.path().to_owned());
        if let Ok(path) = path {
            page.url.set_path(&path);
        }
        page.name = shown(&page.url);
        Ok(Self {
            is_page: true,
            is_of_file: true,
            ..page
        })
    }

    /// Makes what a lock says where a wheel is listed; without credentials.
    ///
    /// # Errors
    /// As [`Source::new`].
    pub(super) fn of_home(home: &WheelHome) -> Result<Self, SourceError> {
        match home {
            WheelHome::Index(url) => Self::new(None, url),
            WheelHome::Page(url) => Self::page_of_links(url),
        }
    }

    /// Notes that a file of the user's names it.
    pub(super) fn of_file(self) -> Self {
        Self {
            is_of_file: true,
            ..self
        }
    }

    /// Puts it into a group.
    pub(super) fn in_group(self, group: u32) -> Self {
        Self { group, ..self }
    }

    /// Calls it by its URL.
    pub(super) fn named_by_url(self) -> Self {
        Self {
            name: self.url.as_str().trim_end_matches('/').to_owned(),
            ..self
        }
    }

    /// Returns its group.
    pub(super) fn group(&self) -> u32 {
        self.group
    }

    /// Tells whether it is a page that lists files of any package.
    pub(super) fn is_page(&self) -> bool {
        self.is_page
    }

    /// Returns where it is, if a file of the user's names it.
    pub(super) fn home(&self) -> Option<WheelHome> {
        let url = self.url.to_string();
        self.is_of_file.then_some(match self.is_page {
            true => WheelHome::Page(url),
            false => WheelHome::Index(url),
        })
    }

    /// Has the index asked for these packages alone, and no other index for them: names, or beginnings as `acme-*`.
    ///
    /// # Errors
    /// When one is neither.
    pub fn for_packages<T: AsRef<str>>(mut self, packages: &[T]) -> Result<Self, SourceError> {
        for text in packages {
            let text = text.as_ref().trim();
            let (start, is_start) = match text.strip_suffix('*') {
                Some(start) => (start, true),
                None => (text, false),
            };
            let fail = || SourceError::Pattern(text.to_owned());
            let stem = start.trim_end_matches(['-', '_', '.']);
            let parsed: PackageName = stem.parse().map_err(|_| fail())?;
            // The parser takes an empty name.
            if stem.is_empty() || is_start != (stem.len() < start.len()) {
                return Err(fail());
            }
            self.packages.push(match is_start {
                true => Pattern::Start(format!("{parsed}-")),
                false => Pattern::Name(parsed.to_string()),
            });
        }
        Ok(self)
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns where it is, without credentials.
    pub fn url(&self) -> &str {
        self.url.as_str()
    }

    /// Tells whether it is asked for some packages alone.
    pub fn is_pinned(&self) -> bool {
        !self.packages.is_empty()
    }

    pub(super) fn address(&self) -> &Url {
        &self.url
    }

    pub(super) fn login(&self) -> Option<&Login> {
        self.login.as_ref()
    }

    /// Tells whether a package is pinned to it; the name is normalised.
    pub(super) fn pins(&self, project: &str) -> bool {
        self.packages.iter().any(|pattern| match pattern {
            Pattern::Name(name) => name == project,
            Pattern::Start(start) => project.starts_with(start),
        })
    }

    /// Returns where the page of a package is; the name is normalised.
    pub(super) fn page(&self, project: &str) -> Url {
        let mut url = self.url.clone();
        if self.is_page {
            return url;
        }
        url.set_path(&format!("{}{project}/", self.url.path()));
        url
    }
}

/// Without what may be secret.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source")
            .field("name", &self.name)
            .field("url", &shown(&self.url))
            .field("login", &self.login)
            .field("packages", &self.packages)
            .finish()
    }
}

/// Returns the part of a URL that may be shown: host and path.
pub(super) fn shown(url: &Url) -> String {
    let host = crate::net::url::authority(url);
    format!("{host}{}", url.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_leave_the_url() {
        let source = Source::new(None, "https://me:p%40ss@i.example/simple?token=t").unwrap();
        assert_eq!(source.name(), "i.example/simple");
        assert!(source.url().starts_with("https://i.example/simple/"));
        assert_eq!(source.login(), Some(&Login::new("me", "p@ss")));
        let debug = format!("{source:?}");
        assert!(!debug.contains("ss") || !debug.contains("p@"), "{debug}");
        assert!(!debug.contains("token"), "{debug}");
        let page = source.page("a-b");
        assert_eq!(page.path(), "/simple/a-b/");
    }

    #[test]
    fn only_the_web_holds_indexes() {
        for text in ["/srv/wheels", "file:///srv/wheels", "wheels", "FILE:///x"] {
            let error = Source::new(None, text).unwrap_err();
            assert!(matches!(error, SourceError::Folder(_)), "{text}");
        }
        for text in [
            "ftp://me:secret@i.example/",
            "https://",
            "http://me:secret@:x/",
        ] {
            let error = Source::new(None, text).unwrap_err();
            assert!(matches!(error, SourceError::Url(_)), "{text}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn packages_are_pinned() {
        let source = Source::new(Some("own"), "https://i.example/").unwrap();
        assert!(!source.is_pinned());
        let source = source.for_packages(&["Foo.Bar", "acme-*"]).unwrap();
        for (name, pins) in [
            ("foo-bar", true),
            ("foo-bar-x", false),
            ("acme-x", true),
            ("acme", false),
            ("acmex", false),
        ] {
            assert_eq!(source.pins(name), pins, "{name}");
        }
        let source = Source::new(None, "https://i.example/").unwrap();
        for text in ["", "*", "a b", "a*", "*-a", "a-", "-*"] {
            let error = source.clone().for_packages(&[text]).unwrap_err();
            assert!(matches!(error, SourceError::Pattern(_)), "{text}");
        }
    }
}
