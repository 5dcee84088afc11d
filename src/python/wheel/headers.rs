//! Headers as METADATA and WHEEL have them: `Name: value`, a line each, up to an empty line (RFC 5322, as the core
//! metadata specification uses it). Knows nothing of what the headers mean.

/// The headers of a text, in their order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Headers(Vec<(String, String)>);

/// A text that has no such headers.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HeaderError {
    /// It is not UTF-8.
    #[error("it is not UTF-8")]
    NotUtf8,
    /// A line is neither header nor the continuation of one.
    #[error("line {0} is no header `Name: value`")]
    Line(usize),
    /// A header that is needed is not there.
    #[error("it has no header `{0}`")]
    Missing(&'static str),
    /// A header that may stand once stands there with several values.
    #[error("it has the header `{name}` twice, as `{first}` and as `{second}`")]
    Twice {
        /// The header.
        name: &'static str,
        /// Its first value.
        first: String,
        /// Its second value.
        second: String,
    },
    /// A value cannot be what it should be.
    #[error("`{name}: {value}` is no {what}")]
    Value {
        /// The header.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it should be.
        what: &'static str,
    },
}

impl Headers {
    /// Parses headers; what follows the first empty line is left alone.
    ///
    /// # Errors
    /// When the text is not UTF-8, or a line is no header.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, HeaderError> {
        let text = std::str::from_utf8(bytes).map_err(|_| HeaderError::NotUtf8)?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut headers: Vec<(String, String)> = Vec::new();
        for (index, line) in text.split('\n').enumerate() {
            let line = line.strip_suffix('\r').unwrap_or(line);
            if line.is_empty() {
                break;
            }
            if line.starts_with([' ', '\t']) {
                let Some((_, value)) = headers.last_mut() else {
                    return Err(HeaderError::Line(index + 1));
                };
                value.push('\n');
                value.push_str(line.trim());
                continue;
            }
            let is_name =
                |name: &str| !name.is_empty() && name.bytes().all(|it| it.is_ascii_graphic());
            let (name, value) = line
                .split_once(':')
                .filter(|(name, _)| is_name(name))
                .ok_or(HeaderError::Line(index + 1))?;
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
        Ok(Self(headers))
    }

    /// Returns the values of a header, whatever its case.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| &**value)
    }

    /// Returns the value of a header that may stand once.
    ///
    /// # Errors
    /// When it has several values.
    pub(crate) fn get(&self, name: &'static str) -> Result<Option<&str>, HeaderError> {
        let mut all = self.all(name);
        let first = all.next();
        match (first, all.find(|other| Some(*other) != first)) {
            (Some(first), Some(second)) => Err(HeaderError::Twice {
                name,
                first: first.to_owned(),
                second: second.to_owned(),
            }),
            _ => Ok(first),
        }
    }

    /// Returns the value of a header that must stand once.
    ///
    /// # Errors
    /// When it is not there, or has several values.
    pub(crate) fn need(&self, name: &'static str) -> Result<&str, HeaderError> {
        self.get(name)?
            .filter(|value| !value.is_empty())
            .ok_or(HeaderError::Missing(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_what_wheels_have() {
        let text = "\u{feff}Metadata-Version: 2.1\r\nname: a\nSummary: one\n    two\n\ttab\nRequires-Dist: x\nRequires-Dist: y; extra == 'z'\nHome-page: http://x/:y\n\nno header\n";
        let headers = Headers::parse(text.as_bytes()).unwrap();
        assert_eq!(headers.need("Name"), Ok("a"));
        assert_eq!(headers.get("summary"), Ok(Some("one\ntwo\ntab")));
        assert_eq!(headers.get("home-page"), Ok(Some("http://x/:y")));
        let all: Vec<&str> = headers.all("requires-dist").collect();
        assert_eq!(all, ["x", "y; extra == 'z'"]);
        assert_eq!(headers.get("License"), Ok(None));
    }

    #[test]
    fn refuses_what_is_none() {
        assert_eq!(Headers::parse(b"a\xff: b"), Err(HeaderError::NotUtf8));
        assert_eq!(Headers::parse(b" a: b"), Err(HeaderError::Line(1)));
        assert_eq!(Headers::parse(b"a: b\nc d\n"), Err(HeaderError::Line(2)));
        assert_eq!(Headers::parse(b"a: b\n: d\n"), Err(HeaderError::Line(2)));
        let headers = Headers::parse(b"a: b\na: b\nc: d\nc: e\nf:\n").unwrap();
        assert_eq!(headers.need("a"), Ok("b"));
        assert!(matches!(headers.get("c"), Err(HeaderError::Twice { .. })));
        assert_eq!(headers.need("f"), Err(HeaderError::Missing("f")));
    }
}
