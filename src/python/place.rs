//! Where something is asked for: a file, a line and the bytes. And what is wrong there.
//!
//! Knows no file system: texts are given.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// A text that was read, with the name by which the user knows it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Source {
    /// The file, as the user wrote it.
    pub name: String,
    /// All of its text.
    pub text: String,
}

impl Source {
    /// Makes the text of a file, for all places in it.
    pub(crate) fn shared(name: &str, text: &str) -> Arc<Self> {
        let (name, text) = (name.to_owned(), text.to_owned());
        Arc::new(Self { name, text })
    }
}

/// A place in a text.
#[derive(Clone, PartialEq, Eq)]
pub struct Place {
    /// The text.
    pub source: Arc<Source>,
    /// The line, counted from 1.
    pub line: usize,
    /// The bytes.
    pub span: Range<usize>,
}

/// What is wrong with what is asked for, where, and how to mend it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{place}: {message}")]
pub struct InputError {
    /// A name for this kind of error, as `imgdecl::python::requirement`.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub help: String,
    /// Where.
    pub place: Place,
}

/// Where texts come from.
pub trait Files {
    /// Reads a text. `path` has `/` between its parts, and begins at the folder that all paths of one set begin at.
    ///
    /// # Errors
    /// When it cannot be read: says why, as "there is no such file".
    fn read(&self, path: &str) -> Result<String, String>;
}

impl Place {
    /// Makes the place of some bytes of a text; the line is counted.
    pub fn new(source: &Arc<Source>, span: Range<usize>) -> Self {
        let before = source.text.get(..span.start).unwrap_or_default();
        Self {
            source: source.clone(),
            line: before.matches('\n').count() + 1,
            span,
        }
    }

    /// Returns the text at this place.
    pub fn text(&self) -> &str {
        self.source.text.get(self.span.clone()).unwrap_or_default()
    }

    /// Makes an error at this place.
    pub(crate) fn error(
        &self,
        code: &'static str,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> InputError {
        InputError {
            code,
            message: message.into(),
            help: help.into(),
            place: self.clone(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.source.name, self.line)
    }
}

/// Not with the whole text.
impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} {:?}", self.span)
    }
}

/// A piece of text whose bytes know where they stand in a source, whatever was joined, cut or put in.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) text: String,
    /// For each byte of `text`, where it stands in the source.
    at: Vec<usize>,
    source: Arc<Source>,
    line: usize,
}

impl Piece {
    pub(super) fn new(source: &Arc<Source>, line: usize) -> Self {
        Self {
            text: String::new(),
            at: Vec::new(),
            source: source.clone(),
            line,
        }
    }

    /// Makes a piece of a text that a source holds at a place, perhaps in quotes or with escapes.
    pub(super) fn at(text: &str, place: &Place) -> Self {
        let written = place.text();
        let at = match written.find(text) {
            Some(start) => {
                let start = place.span.start + start;
                (start..start + text.len()).collect()
            }
            None => vec![place.span.start; text.len()],
        };
        Self {
            text: text.to_owned(),
            at,
            source: place.source.clone(),
            line: place.line,
        }
    }

    /// Adds bytes of the source.
    pub(super) fn push(&mut self, span: Range<usize>) {
        self.text.push_str(&self.source.text[span.clone()]);
        self.at.extend(span);
    }

    /// Adds what stands for the bytes at a place of the source.
    pub(super) fn insert(&mut self, text: &str, at: usize) {
        self.text.push_str(text);
        self.at.extend(text.bytes().map(|_| at));
    }

    /// Adds one character that stands at a place of the source.
    pub(super) fn push_char(&mut self, char: char, at: usize) {
        self.text.push(char);
        self.at.extend(at..at + char.len_utf8());
    }

    /// Returns where the byte at `index` stands in the source.
    pub(super) fn origin(&self, index: usize) -> usize {
        self.at.get(index).copied().unwrap_or_default()
    }

    /// Cuts out a part, without the white space around it.
    pub(super) fn cut(&self, range: Range<usize>) -> Self {
        let part = &self.text[range.clone()];
        let start = range.start + (part.len() - part.trim_start().len());
        let end = start + part.trim().len();
        Self {
            text: self.text[start..end].to_owned(),
            at: self.at[start..end].to_vec(),
            source: self.source.clone(),
            line: self.line,
        }
    }

    /// Returns where the whole piece stands.
    pub(super) fn place(&self) -> Place {
        self.place_of(0..self.text.len())
    }

    /// Returns where some of its bytes stand.
    pub(super) fn place_of(&self, range: Range<usize>) -> Place {
        let last = self.at.len().saturating_sub(1);
        let start = self.origin(range.start.min(last));
        let end = self.origin(range.end.saturating_sub(1).min(last));
        Place {
            source: self.source.clone(),
            line: self.line,
            span: self.source.text.floor_char_boundary(start)
                ..self.source.text.ceil_char_boundary(end.max(start) + 1),
        }
    }
}

/// Joins a path onto the folder of a file, and takes `.` and `..` out. Both have `/` between their parts.
pub(super) fn beside(file: &str, path: &str) -> String {
    let folder = file.rsplit_once('/').map_or("", |(folder, _)| folder);
    let whole = match path.starts_with('/') {
        true => path.to_owned(),
        false => format!("{folder}/{path}"),
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|it| *it != "..") => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let is_absolute = path.starts_with('/') || file.starts_with('/');
    format!("{}{}", if is_absolute { "/" } else { "" }, parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_paths() {
        for (file, path, joined) in [
            ("a/b.txt", "c.txt", "a/c.txt"),
            ("a/b.txt", "../c.txt", "c.txt"),
            ("b.txt", "./d/./c.txt", "d/c.txt"),
            ("b.txt", "../../c.txt", "../../c.txt"),
            ("a/b.txt", "/c.txt", "/c.txt"),
            ("/a/b.txt", "c.txt", "/a/c.txt"),
        ] {
            assert_eq!(beside(file, path), joined, "{file} {path}");
        }
    }

    #[test]
    fn pieces_know_their_places() {
        let source = Source::shared("r.txt", "ab\\\n  cd");
        let mut piece = Piece::new(&source, 1);
        piece.push(0..2);
        piece.push(4..8);
        assert_eq!(piece.text, "ab  cd");
        let place = piece.cut(2..6).place();
        assert_eq!((place.text(), place.line), ("cd", 1));
        assert_eq!(Place::new(&source, 6..8).line, 2);
        assert_eq!(Place::new(&source, 6..8).to_string(), "r.txt:2");
    }
}
