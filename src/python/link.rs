//! The URL of a wheel, as a requirement names it. Nothing is fetched, and nothing is expanded.

use std::fmt;
use std::path::Path;

use pep508_rs::Pep508Url;

use super::filename::percent_decode;

/// A requirement (dependency specifiers, formerly PEP 508).
///
/// Not with the URLs of `pep508_rs`, which put the host's environment into them.
pub type Requirement = pep508_rs::Requirement<Link>;

/// A URL, or a path, after the `@` of a requirement: as it was written.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Link(String);

/// A text that cannot be a URL.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`{0}` is not a URL")]
pub struct LinkError(String);

impl Link {
    /// Takes a URL or a path.
    ///
    /// # Errors
    /// When it is empty or holds control characters.
    pub fn new(text: &str) -> Result<Self, LinkError> {
        let text = text.trim();
        if text.is_empty() || text.chars().any(char::is_control) {
            return Err(LinkError(text.escape_debug().to_string()));
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

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Pep508Url for Link {
    type Err = LinkError;

    fn parse_url(url: &str, _: Option<&Path>) -> Result<Self, LinkError> {
        Self::new(url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_links_apart() {
        let link = Link::new("HTTPS://host/a/x%2B1.whl?y#egg=x&sha256=00").unwrap();
        assert_eq!(link.scheme().as_deref(), Some("https"));
        assert_eq!(link.file().as_deref(), Some("x+1.whl"));
        assert_eq!(link.fragment("sha256"), Some("00"));
        assert_eq!(link.fragment("md5"), None);
        assert_eq!(link.address(), "HTTPS://host/a/x%2B1.whl?y");
        assert_eq!(Link::new("./wheels/x.whl").unwrap().scheme(), None);
        assert_eq!(Link::new("c:/x.whl").unwrap().scheme(), None);
        assert_eq!(
            Link::new("file:x.whl").unwrap().scheme().as_deref(),
            Some("file")
        );
        assert!(Link::new(" ").is_err());
        assert!(Link::new("a\nb").is_err());
    }
}
