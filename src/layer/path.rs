//! Paths inside a layer. A value of this type cannot hold `..`, a leading `/` or NUL.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// A path in an image, relative to its root, without `.`, `..`, empty components or NUL. The root itself is empty. Clones
/// share the text: a path stands in many maps.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LayerPath(Arc<str>);

/// A text that cannot be a path in an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It leads upwards.
    #[error("`{0}` has a `..`")]
    Parent(String),
    /// It holds a NUL byte.
    #[error("{0:?} has a NUL byte")]
    Nul(String),
    /// It is not UTF-8.
    #[error("`{0}` is not UTF-8")]
    NotUtf8(String),
    /// It, or one of its components, is longer than Linux allows.
    #[error(
        "`{0}` is too long: 4,095 bytes for a path and 255 for a component are the limits of Linux"
    )]
    Long(String),
}

impl LayerPath {
    /// The root of the image.
    pub fn root() -> Self {
        Self::default()
    }

    /// Parses a path; a leading `/`, `.` components and repeated slashes fall away.
    ///
    /// # Errors
    /// When it has a `..`, a NUL byte, or exceeds the limits of Linux.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        if text.contains('\0') {
            return Err(PathError::Nul(text.to_owned()));
        }
        if is_normal(text) {
            return Ok(Self(text.into()));
        }
        let mut path = String::with_capacity(text.len());
        for component in text.split('/') {
            match component {
                "" | "." => continue,
                ".." => return Err(PathError::Parent(text.to_owned())),
                _ if component.len() > 255 => return Err(PathError::Long(text.to_owned())),
                _ => {}
            }
            if !path.is_empty() {
                path.push('/');
            }
            path.push_str(component);
        }
        if path.len() > 4095 {
            return Err(PathError::Long(text.to_owned()));
        }
        Ok(Self(path.into()))
    }

    /// Parses the bytes of a path, as [`LayerPath::parse`] does.
    ///
    /// # Errors
    /// As [`LayerPath::parse`], and when `bytes` is not UTF-8.
    pub fn parse_bytes(bytes: &[u8]) -> Result<Self, PathError> {
        let text = std::str::from_utf8(bytes)
            .map_err(|_| PathError::NotUtf8(String::from_utf8_lossy(bytes).into()))?;
        Self::parse(text)
    }

    /// Returns where runtimes put an entry of that path in an image: `..` takes a component off, and stays in the root.
    /// `None` where no path of ours is that: it is not UTF-8, has a NUL byte, or exceeds the limits of Linux.
    pub fn clean(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        if !text.split('/').any(|component| component == "..") {
            return Self::parse(text).ok();
        }
        let mut components = Vec::new();
        for component in text.split('/') {
            match component {
                ".." => drop(components.pop()),
                "" | "." => {}
                name => components.push(name),
            }
        }
        Self::parse(&components.join("/")).ok()
    }

    /// Returns the path below this one that `rest` names.
    ///
    /// # Errors
    /// As [`LayerPath::parse`].
    pub fn join(&self, rest: &str) -> Result<Self, PathError> {
        if self.is_root() {
            return Self::parse(rest);
        }
        Self::parse(&format!("{self}/{rest}"))
    }

    /// Returns the child with a name that comes from another valid path.
    pub(super) fn child(&self, name: &str) -> Self {
        if self.is_root() {
            return Self(name.into());
        }
        Self(format!("{}/{name}", self.0).into())
    }

    /// Tells whether this is the root of the image.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the text form, without a leading `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the folder that holds this path; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        Some(Self(
            self.0
                .rsplit_once('/')
                .map_or("", |(parent, _)| parent)
                .into(),
        ))
    }

    /// Returns the text of the folder that holds this path, and the last component; `None` for the root.
    pub(super) fn split(&self) -> Option<(&str, &str)> {
        match self.0.rsplit_once('/') {
            Some(split) => Some(split),
            None => (!self.is_root()).then_some(("", &*self.0)),
        }
    }

    /// Returns the last component; empty for the root.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// Tells whether this is `folder` or lies below it.
    pub fn is_within(&self, folder: &Self) -> bool {
        folder.is_root()
            || self
                .0
                .strip_prefix(&*folder.0)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// Tells whether a text without NUL is a path in the form that we keep: most are, and need no second look.
fn is_normal(text: &str) -> bool {
    let fits = |component: &str| {
        (1..=255).contains(&component.len()) && component != "." && component != ".."
    };
    text.len() <= 4095 && text.split('/').all(fits)
}

impl fmt::Display for LayerPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for LayerPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.0)
    }
}

impl LayerPath {
    /// Returns what the texts of all paths below this one start with, and no others.
    pub(super) fn prefix(&self) -> String {
        match self.is_root() {
            true => String::new(),
            false => format!("{}/", self.0),
        }
    }
}

impl Borrow<str> for LayerPath {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_path_has_one_form() {
        for text in ["a/b", "/a/b", "./a/b", "a//b/", "a/./b", "//a/b/."] {
            assert_eq!(LayerPath::parse(text).unwrap().as_str(), "a/b");
        }
        assert!(LayerPath::parse("/").unwrap().is_root());
        assert_eq!(
            LayerPath::parse("/a/b").unwrap().parent().unwrap().as_str(),
            "a"
        );
        assert_eq!(
            LayerPath::parse("a").unwrap().parent(),
            Some(LayerPath::root())
        );
    }

    #[test]
    fn refuses_what_leads_out() {
        for text in [
            "..",
            "a/../b",
            "/..",
            "a\0b",
            &"x".repeat(256),
            &"x/".repeat(3000),
        ] {
            assert!(LayerPath::parse(text).is_err(), "{text:?}");
        }
        assert!(LayerPath::parse_bytes(b"a\xff").is_err());
        assert!(LayerPath::parse("a..b/...").is_ok());
    }

    #[test]
    fn is_within_compares_components() {
        let path = |text| LayerPath::parse(text).unwrap();
        assert!(path("a/b").is_within(&path("a")));
        assert!(path("a").is_within(&path("a")));
        assert!(!path("ab").is_within(&path("a")));
        assert!(path("a").is_within(&LayerPath::root()));
    }
}
