//! What a wheel says of itself in METADATA: its dependencies, extras and the Python it needs (core metadata specification).
//!
//! Knows nothing of where the text comes from.

use std::str::FromStr;

use pep440_rs::{Version, VersionSpecifiers};
use pep508_rs::{ExtraName, PackageName};

use super::{Requirement, pep508};

/// The part of METADATA that decides what goes together.
#[derive(Clone, PartialEq, Debug)]
pub struct Metadata {
    /// The normalised name.
    pub name: PackageName,
    /// The version.
    pub version: Version,
    /// The dependencies, in the order of the file.
    pub requires: Vec<Requirement>,
    /// The extras there are.
    pub extras: Vec<ExtraName>,
    /// The Pythons that it runs on.
    pub requires_python: Option<VersionSpecifiers>,
}

/// A text that is no METADATA.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("METADATA is malformed: {0}")]
pub struct MetadataError(String);

impl Metadata {
    /// Parses METADATA.
    ///
    /// Requirements that old tools wrote and new ones refuse, as `>=1.9.*`, are read as they are meant.
    ///
    /// # Errors
    /// When name or version is missing, or a requirement cannot be read.
    pub fn parse(text: &str) -> Result<Self, MetadataError> {
        let fields = fields(text);
        let one = |name: &str| {
            let mut all = fields.iter().filter(|it| it.0 == name);
            all.next().map(|(_, value)| value.as_str())
        };
        let all = |name: &'static str| {
            let all = fields.iter().filter(move |it| it.0 == name);
            all.map(|(_, value)| value.as_str())
        };
        let needed = |field: &'static str, value: Option<&str>| {
            let value = value.map(str::to_owned);
            value.ok_or_else(|| MetadataError(format!("it has no `{field}`")))
        };
        let name = needed("Name", one("name"))?;
        let version = needed("Version", one("version"))?;
        let requires = all("requires-dist").map(|it| lenient(it).map_err(MetadataError));
        Ok(Self {
            name: name
                .parse()
                .map_err(|_| MetadataError(format!("`{name}` is no name of a package")))?,
            version: version
                .parse()
                .map_err(|_| MetadataError(format!("`{version}` is no version")))?,
            requires: requires.collect::<Result<_, _>>()?,
            // Names that no requirement can ask for do no harm.
            extras: all("provides-extra")
                .filter_map(|it| it.parse().ok())
                .collect(),
            requires_python: one("requires-python").and_then(specifiers),
        })
    }
}

/// Returns the fields of the header, names in lower case, values with their folded lines.
fn fields(text: &str) -> Vec<(String, String)> {
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        // A line of white space goes on with a field: licences are written so.
        if line.is_empty() {
            break;
        }
        if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push(' ');
                value.push_str(line.trim());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            fields.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    fields
}

/// Parses the versions of Python that something needs. What cannot be read says nothing.
pub(crate) fn specifiers(text: &str) -> Option<VersionSpecifiers> {
    let parsed = VersionSpecifiers::from_str(text).ok();
    parsed.or_else(|| VersionSpecifiers::from_str(&mend(text)).ok())
}

/// Parses a requirement, if need be after mending what old tools wrote.
fn lenient(text: &str) -> Result<Requirement, String> {
    let error = match pep508::requirement(text) {
        Ok(requirement) => return Ok(requirement),
        Err(error) => error,
    };
    let (head, marker) = match text.split_once(';') {
        Some((head, marker)) => (head, format!(" ; {}", marker.trim())),
        None => (text, String::new()),
    };
    let at = head.find(['<', '>', '=', '!', '~']).unwrap_or(head.len());
    let (name, versions) = head.split_at(at);
    let mended = format!("{name}{}{marker}", mend(versions));
    pep508::requirement(&mended)
        .map_err(|_| format!("`{text}` is no requirement: {}", error.message))
}

/// Mends version specifiers: quotes, missing and superfluous commas, `>=1.9.*`, `!=3.0*` and `!=~`.
fn mend(text: &str) -> String {
    let closing = if text.trim_end().ends_with(')') {
        ")"
    } else {
        ""
    };
    let mut parts: Vec<String> = Vec::new();
    let mut was_operator = false;
    for char in text.chars() {
        if matches!(char, '\'' | '"' | '(' | ')') || char.is_whitespace() {
            continue;
        }
        let is_operator = matches!(char, '<' | '>' | '=' | '!' | '~');
        if char == ',' {
            parts.push(String::new());
        } else {
            if is_operator && !was_operator || parts.is_empty() {
                parts.push(String::new());
            }
            if let Some(part) = parts.last_mut() {
                part.push(char);
            }
        }
        was_operator = is_operator;
    }
    let mended = parts.iter().filter(|it| !it.is_empty()).map(|part| {
        let part = part.replace("!=~", "!=");
        let is_equality = part.starts_with("==") || part.starts_with("!=");
        match part.strip_suffix('*') {
            None => part,
            Some(start) if is_equality && !start.ends_with('.') => format!("{start}.*"),
            Some(_) if is_equality => part,
            Some(start) => start.trim_end_matches('.').to_owned(),
        }
    });
    let mended = mended.collect::<Vec<_>>().join(",");
    // An opening bracket stands in the name's half.
    format!("{mended}{closing}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_header() {
        let metadata = Metadata::parse(
            "Metadata-Version: 2.1\r\nName: Foo_Bar\r\nVersion: 1.0.post1\r\nSummary: a\r\n  : b\r\n        \r\n  c\r\n\
             Requires-Python: >=3.8,!=3.9.*\r\nRequires-Dist: a (>=1,<2)\r\nRequires-Dist: b[x] ; \r\n  extra == 'E_1'\r\n\
             Provides-Extra: E_1\r\n\r\nRequires-Dist: body\r\n",
        )
        .unwrap();
        assert_eq!(metadata.name.as_ref(), "foo-bar");
        assert_eq!(metadata.version.to_string(), "1.0.post1");
        let requires: Vec<String> = metadata.requires.iter().map(ToString::to_string).collect();
        assert_eq!(requires, ["a>=1,<2", "b[x] ; extra == 'e-1'"]);
        assert_eq!(metadata.extras[0].as_ref(), "e-1");
        assert_eq!(
            metadata.requires_python.unwrap().to_string(),
            ">=3.8, !=3.9.*"
        );
    }

    #[test]
    fn mends_what_old_tools_wrote() {
        for (text, meant) in [
            ("a (>=1.9.*)", "a>=1.9"),
            ("a>=1.0<2.0", "a>=1.0,<2.0"),
            ("a!=3.0*,>=1,", "a>=1,!=3.0.*"),
            (
                "a (>='1.0') ; python_version < '3'",
                "a>=1.0 ; python_full_version < '3'",
            ),
            ("a !=~5.0", "a!=5.0"),
            ("a <2.*", "a<2"),
            ("a[x]>=1,,<2", "a[x]>=1,<2"),
        ] {
            assert_eq!(lenient(text).unwrap().to_string(), meant, "{text}");
        }
        assert_eq!(
            specifiers(">=2.7.*,!=3.0*").unwrap().to_string(),
            ">=2.7, !=3.0.*"
        );
        assert_eq!(specifiers("whatever"), None);
    }

    #[test]
    fn refuses_what_it_cannot_read() {
        for (text, message) in [
            ("Version: 1", "`Name`"),
            ("Name: a", "`Version`"),
            ("Name: a b\nVersion: 1", "name of a package"),
            ("Name: a\nVersion: x", "no version"),
            (
                "Name: a\nVersion: 1\nRequires-Dist: b >=dev!",
                "no requirement",
            ),
        ] {
            let error = Metadata::parse(text).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
