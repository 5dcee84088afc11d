//! The lines of a requirements file: continuations are joined, then comments go, then variables are put in. In this order,
//! as pip does it.

use std::ops::Range;
use std::sync::Arc;

use crate::python::place::{Piece, Source};

/// Gives the value of a variable of the environment.
pub(in crate::python) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Returns the lines that say something. `missing` receives the variables that have no value.
pub(in crate::python) fn lines(
    source: &Arc<Source>,
    lookup: Lookup<'_>,
    missing: &mut Vec<(String, Piece)>,
) -> Vec<Piece> {
    let mut joined: Vec<Piece> = Vec::new();
    let mut open: Option<Piece> = None;
    for (number, span) in physical(&source.text) {
        let text = &source.text[span.clone()];
        let is_comment = text.trim_start().starts_with('#');
        let goes_on = text.ends_with('\\') && !is_comment;
        let mut piece = open.take().unwrap_or_else(|| Piece::new(source, number));
        if is_comment {
            // So that it is a comment also when it follows a continued line.
            piece.insert(" ", span.start);
        }
        piece.push(span.start..span.end - usize::from(goes_on));
        if goes_on {
            open = Some(piece);
        } else {
            joined.push(piece);
        }
    }
    joined.extend(open);
    let cut = joined.iter().map(|line| line.cut(0..comment(&line.text)));
    cut.filter(|line| !line.text.is_empty())
        .map(|line| expand(&line, lookup, missing))
        .collect()
}

/// Returns the lines of a text as they stand, with their numbers and without their ends.
fn physical(text: &str) -> Vec<(usize, Range<usize>)> {
    let mut start = if text.starts_with('\u{feff}') { 3 } else { 0 };
    let mut lines = Vec::new();
    while start < text.len() {
        let rest = &text[start..];
        let end = rest.find(['\n', '\r']).unwrap_or(rest.len());
        lines.push((lines.len() + 1, start..start + end));
        let is_pair = rest[end..].starts_with("\r\n");
        start += end + if is_pair { 2 } else { 1 };
    }
    lines
}

/// Returns where the comment begins: a `#` at the beginning or after white space.
fn comment(text: &str) -> usize {
    let mut before = ' ';
    for (at, char) in text.char_indices() {
        if char == '#' && before.is_whitespace() {
            return at;
        }
        before = char;
    }
    text.len()
}

/// Puts the values of `${NAME}` in: capital letters, digits and `_` only.
fn expand(line: &Piece, lookup: Lookup<'_>, missing: &mut Vec<(String, Piece)>) -> Piece {
    let mut rest = line.text.as_str();
    let mut expanded = line.cut(0..0);
    while let Some(start) = rest.find("${") {
        let at = line.text.len() - rest.len();
        let name: &str = rest[start + 2..].split('}').next().unwrap_or_default();
        let end = start + 2 + name.len() + 1;
        let is_name = !name.is_empty()
            && end <= rest.len()
            && name
                .bytes()
                .all(|it| it.is_ascii_uppercase() || it.is_ascii_digit() || it == b'_');
        let value = if is_name { lookup(name) } else { None };
        let value = value.filter(|it| !it.is_empty() && !it.contains(['\n', '\r']));
        if is_name && value.is_none() {
            missing.push((name.to_owned(), line.cut(at + start..at + end)));
        }
        let end = if is_name { end } else { start + 2 };
        copy(&mut expanded, line, at..at + start);
        match value {
            Some(value) => expanded.insert(&value, line.origin(at + start)),
            None => copy(&mut expanded, line, at + start..at + end),
        }
        rest = &rest[end..];
    }
    let at = line.text.len() - rest.len();
    copy(&mut expanded, line, at..line.text.len());
    expanded
}

/// Copies a range of one piece to the end of another.
fn copy(to: &mut Piece, from: &Piece, range: Range<usize>) {
    for (index, char) in from.text[range.clone()].char_indices() {
        let at = from.origin(range.start + index);
        to.push_char(char, at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<(usize, String)> {
        let source = Source::shared("r.txt", text);
        let lookup = |name: &str| (name == "TOKEN_1").then(|| "sec ret".to_owned());
        let lines = lines(&source, &lookup, &mut Vec::new());
        lines
            .into_iter()
            .map(|it| (it.place().line, it.text))
            .collect()
    }

    #[test]
    fn joins_then_cuts_then_expands() {
        let one = |text: &str| {
            let all = texts(text);
            assert_eq!(all.len(), 1, "{all:?}");
            all[0].1.clone()
        };
        assert_eq!(one("a \\\n  ==1 \\\n # gone \\\n"), "a   ==1");
        assert_eq!(one("a==1 # b \\\nc"), "a==1");
        assert_eq!(one("a#b"), "a#b");
        assert_eq!(one("a\t#b"), "a");
        assert_eq!(one("a\\"), "a");
        assert_eq!(one("\u{feff}a"), "a");
        assert_eq!(one("é${TOKEN_1}é"), "ésec reté");
        assert_eq!(
            one("${OTHER} ${lower} ${ $x ${"),
            "${OTHER} ${lower} ${ $x ${"
        );
        assert_eq!(one("a # ${TOKEN_1}"), "a");
        assert_eq!(
            texts("a\r\n\r\nb \\\r\nc\rd"),
            [(1, "a"), (3, "b c"), (5, "d")].map(|(line, it)| (line, it.to_owned()))
        );
        assert_eq!(texts("# only\n  # comments \\\n\n"), []);
    }

    #[test]
    fn names_variables_without_value() {
        let source = Source::shared("r.txt", "x ${A_B}");
        let mut missing = Vec::new();
        lines(&source, &|_| None, &mut missing);
        let (name, piece) = &missing[0];
        assert_eq!((name.as_str(), piece.place().text()), ("A_B", "${A_B}"));
    }
}
