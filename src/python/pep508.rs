//! The URL of a wheel, as a requirement names it. Nothing is fetched, and nothing is expanded.

use std::fmt;
use std::ops::Range;
use std::path::Path;

use pep508_rs::{MarkerTree, Pep508Error, Pep508ErrorSource, Pep508Url};

use super::filename::percent_decode;

/// A requirement (dependency specifiers, formerly PEP 508).
///
/// Not with the URLs of `pep508_rs`, which put the host's environment into them.
pub(crate) type Requirement = pep508_rs::Requirement<WheelUrl>;

/// Why a text is no requirement or marker, and which bytes of it say so.
#[derive(Debug)]
pub(super) struct Unparsed {
    pub(super) message: String,
    pub(super) span: Range<usize>,
}

/// Parses a requirement.
pub(super) fn requirement(text: &str) -> Result<Requirement, Unparsed> {
    ascii(text)?;
    names(text)?;
    text.parse().map_err(|error| unparsed(text, error))
}

/// Parses a marker.
pub(super) fn marker(text: &str) -> Result<MarkerTree, Unparsed> {
    ascii(text)?;
    MarkerTree::parse_str::<WheelUrl>(text).map_err(|error| unparsed(text, error))
}

/// Refuses what `pep508_rs` takes for one byte a character, and then panics over. Names, versions and the values of
/// markers are ASCII anyway.
fn ascii(text: &str) -> Result<(), Unparsed> {
    match text.char_indices().find(|(_, it)| !it.is_ascii()) {
        None => Ok(()),
        Some((at, char)) => Err(Unparsed {
            message: format!("`{char}` is no ASCII character: in URLs, write it percent-encoded"),
            span: at..at + char.len_utf8(),
        }),
    }
}

/// Refuses names of packages and extras that end with punctuation: `pep508_rs` panics over them.
fn names(text: &str) -> Result<(), Unparsed> {
    let head = text.find(['@', ';', '<', '>', '=', '!', '~', '(']);
    let head = &text[..head.unwrap_or(text.len())];
    let is_between = |it: char| !it.is_ascii_alphanumeric() && !matches!(it, '-' | '_' | '.');
    let bad = |it: &&str| it.ends_with(['-', '_', '.']);
    match head.split(is_between).find(bad) {
        None => Ok(()),
        Some(name) => Err(Unparsed {
            message: format!("`{name}` is no name: it ends with punctuation"),
            span: 0..head.len(),
        }),
    }
}

fn unparsed(text: &str, error: Pep508Error<WheelUrl>) -> Unparsed {
    let message = match error.message {
        Pep508ErrorSource::UrlError(error) => error.to_string(),
        other => other.to_string(),
    };
    let end = (error.start + error.len.max(1)).min(text.len());
    Unparsed {
        message: message.lines().next().unwrap_or_default().to_owned(),
        span: error.start.min(end)..end,
    }
}

/// A URL, or a path, after the `@` of a requirement: as it was written.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WheelUrl(String);

/// A text that cannot be a URL.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`{0}` is not a URL")]
pub struct WheelUrlError(String);

impl WheelUrl {
    /// Takes a URL or a path.
    ///
    /// # Errors
    /// When it is empty or holds control characters.
    pub fn new(text: &str) -> Result<Self, WheelUrlError> {
        let text = text.trim();
        if text.is_empty() || text.chars().any(char::is_control) {
            return Err(WheelUrlError(text.escape_debug().to_string()));
        }
        Ok(Self(text.to_owned()))
    }

    /// Returns it as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns it without its fragment.
    pub fn address(&self) -> &str {
        self.0.split('#').next().unwrap_or_default()
    }

    /// Returns the value of one part of the fragment, as of `sha256` in `#egg=x&sha256=…`.
    pub fn fragment(&self, name: &str) -> Option<&str> {
        let (_, fragment) = self.0.split_once('#')?;
        fragment
            .split('&')
            .find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
    }

    /// Returns the scheme, in lower case: `https`, `file`, `git+https`; `None` for a path.
    pub fn scheme(&self) -> Option<String> {
        let (scheme, rest) = self.0.split_once(':')?;
        let is_scheme = scheme.len() > 1
            && scheme.starts_with(|it: char| it.is_ascii_alphabetic())
            && scheme
                .bytes()
                .all(|it| it.is_ascii_alphanumeric() || b"+-.".contains(&it));
        (is_scheme && (rest.starts_with("//") || scheme.eq_ignore_ascii_case("file")))
            .then(|| scheme.to_ascii_lowercase())
    }

    /// Returns the last part of the path, percent-decoded.
    pub fn file(&self) -> Option<String> {
        let path = self.address().split('?').next().unwrap_or_default();
        percent_decode(path.rsplit('/').next().unwrap_or_default())
    }
}

impl fmt::Display for WheelUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Pep508Url for WheelUrl {
    type Err = WheelUrlError;

    fn parse_url(url: &str, _: Option<&Path>) -> Result<Self, WheelUrlError> {
        Self::new(url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_links_apart() {
        let link = WheelUrl::new("HTTPS://host/a/x%2B1.whl?y#egg=x&sha256=00").unwrap();
        assert_eq!(link.scheme().as_deref(), Some("https"));
        assert_eq!(link.file().as_deref(), Some("x+1.whl"));
        assert_eq!(link.fragment("sha256"), Some("00"));
        assert_eq!(link.fragment("md5"), None);
        assert_eq!(link.address(), "HTTPS://host/a/x%2B1.whl?y");
        assert_eq!(WheelUrl::new("./wheels/x.whl").unwrap().scheme(), None);
        assert_eq!(WheelUrl::new("c:/x.whl").unwrap().scheme(), None);
        assert_eq!(
            WheelUrl::new("file:x.whl").unwrap().scheme().as_deref(),
            Some("file")
        );
        assert!(WheelUrl::new(" ").is_err());
        assert!(WheelUrl::new("a\nb").is_err());
    }
}
