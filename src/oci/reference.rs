//! Image references: `[registry/]repository[:tag][@digest]` (distribution-spec, "Pulling manifests").

use std::fmt;
use std::str::FromStr;

use super::Digest;

/// The name of an image in a registry. Docker Hub's short forms are written out.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Reference {
    /// The registry's host, with its port if it has one; `docker.io` by default.
    pub registry: String,
    /// The repository, as `library/python`.
    pub repository: String,
    /// The image tag.
    pub tag: Option<String>,
    /// The digest of a manifest or index.
    pub digest: Option<Digest>,
}

/// A text that is no reference, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {what}: {why}")]
pub struct ReferenceError {
    text: String,
    what: &'static str,
    why: &'static str,
}

impl Reference {
    /// Returns the registry and repository, without image tag and digest.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }
}

/// One component of a repository (distribution-spec): `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`.
fn is_component(text: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    let separators = bytes.split(|&b| alnum(b)).filter(|run| !run.is_empty());
    alnum(first)
        && alnum(last)
        && separators
            .into_iter()
            .all(|run| matches!(run, b"." | b"_" | b"__") || run.iter().all(|&b| b == b'-'))
}

/// Checks an image tag: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
///
/// # Errors
/// When `tag` is no image tag.
pub(crate) fn check_tag(tag: &str) -> Result<(), ReferenceError> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = tag.as_bytes();
    let fits = (1..=128).contains(&bytes.len())
        && word(bytes[0])
        && bytes.iter().all(|&b| word(b) || b == b'.' || b == b'-');
    if fits {
        return Ok(());
    }
    Err(ReferenceError {
        text: tag.to_owned(),
        what: "an image tag",
        why: "an image tag has 1 to 128 letters, digits, `_`, `.` and `-`, and starts with no `.` or `-`",
    })
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let fail = |why| ReferenceError {
            text: text.to_owned(),
            what: "an image reference",
            why,
        };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest
                    .parse()
                    .map_err(|_| fail("what follows `@` is no sha256 digest"))?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if let Some(tag) = tag {
            check_tag(tag).map_err(|error| fail(error.why))?;
        }
        let (registry, repository) = match name.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
                (first, rest.to_owned())
            }
            _ => ("docker.io", name.to_owned()),
        };
        let registry = match registry {
            "index.docker.io" | "registry-1.docker.io" => "docker.io",
            other => other,
        };
        let repository = match registry {
            "docker.io" if !repository.contains('/') => format!("library/{repository}"),
            _ => repository,
        };
        let host = |b: u8| b.is_ascii_alphanumeric() || b".-:[]".contains(&b);
        if registry.is_empty() || !registry.bytes().all(host) {
            return Err(fail("the registry is no host name"));
        }
        if name.is_empty() || !repository.split('/').all(is_component) {
            return Err(fail(
                "a repository has lower-case letters and digits, separated by `/`, `.`, `_`, `__` or `-`",
            ));
        }
        if registry.len() + repository.len() >= 255 {
            return Err(fail(
                "registry and repository are longer than 255 characters",
            ));
        }
        Ok(Self {
            registry: registry.to_owned(),
            repository,
            tag: tag.map(str::to_owned),
            digest,
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_short_forms_out() {
        for (text, full) in [
            ("python", "docker.io/library/python"),
            ("python:3.11-slim", "docker.io/library/python:3.11-slim"),
            ("team/app:v1", "docker.io/team/app:v1"),
            ("localhost/app", "localhost/app"),
            ("127.0.0.1:5000/a/b_c:x", "127.0.0.1:5000/a/b_c:x"),
            ("index.docker.io/python", "docker.io/library/python"),
            ("ghcr.io/a/b__c-d", "ghcr.io/a/b__c-d"),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), full);
        }
        let digest = Digest::of(b"");
        let text = format!("ghcr.io/a/b:t@{digest}");
        assert_eq!(text.parse::<Reference>().unwrap().to_string(), text);
    }

    #[test]
    fn refuses_what_is_no_reference() {
        for text in [
            "",
            ":",
            "a:",
            "A",
            "a//b",
            "/a",
            "a/",
            "a:b c",
            "-a",
            "a_",
            "a___b",
            "a.-b",
            "a@sha256:0",
            "a:-x",
            "ho st.x/a",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }
}
