//! RECORD, the list of a wheel's files: reading the one that it brings, writing the one that is installed (PyPA
//! specifications, "Recording installed projects").

use std::collections::BTreeMap;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::Problem;
use crate::layer::LayerPath;
use crate::oci::Digest;

/// How much of a line is shown, in characters.
const SHOWN: usize = 120;

/// What a RECORD says about the hashes of files.
#[derive(Debug, Default)]
pub(super) struct Record(BTreeMap<LayerPath, String>);

impl Record {
    /// Parses a RECORD. Lines about paths that cannot be members are passed over.
    ///
    /// # Errors
    /// When it is not CSV in UTF-8, or gives two hashes for one file.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Problem> {
        let fail = |line, reason: &str| Problem::Record {
            line,
            reason: reason.to_owned(),
        };
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let before = bytes[..error.valid_up_to()].iter();
            fail(
                1 + before.filter(|it| **it == b'\n').count(),
                "it is not UTF-8",
            )
        })?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut hashes = BTreeMap::new();
        for (line, row) in rows(text).map_err(|line| fail(line, "a quote is not closed"))? {
            if row.iter().all(String::is_empty) {
                continue;
            }
            if row.len() > 3 {
                let text: String = row.join(",").chars().take(SHOWN).collect();
                let text = text.escape_debug();
                return Err(fail(
                    line,
                    &format!("it has more than three columns: `{text}`"),
                ));
            }
            let hash = row.get(1).map_or("", |it| it.trim());
            // Other hashes than SHA-256 are not checked: the wheel's own digest stands for its bytes.
            let Some(hash) = hash.strip_prefix("sha256=") else {
                continue;
            };
            let Ok(path) = LayerPath::parse(&row[0]) else {
                continue;
            };
            let hash = hash.trim_end_matches('=').to_owned();
            if hashes
                .insert(path, hash.clone())
                .is_some_and(|other| other != hash)
            {
                return Err(fail(line, "it gives another hash than a line before it"));
            }
        }
        Ok(Self(hashes))
    }

    /// Checks the digest of a member, if there is a hash for it.
    ///
    /// # Errors
    /// When it has another hash.
    pub(super) fn check(&self, path: &LayerPath, digest: &Digest) -> Result<(), Problem> {
        let found = encode(digest);
        match self.0.get(path) {
            Some(expected) if *expected != found => Err(Problem::Hash {
                member: path.to_string(),
                expected: expected.clone(),
                found,
            }),
            _ => Ok(()),
        }
    }
}

/// Splits a CSV text into rows with the numbers of their lines; fails with the line of a quote that is not closed.
fn rows(text: &str) -> Result<Vec<(usize, Vec<String>)>, usize> {
    let mut rows = Vec::new();
    let mut chars = text.chars().peekable();
    let (mut line, mut start) = (1, 1);
    let mut row = Vec::new();
    let mut field = String::new();
    let mut quoted = false;
    while let Some(char) = chars.next() {
        if char == '\n' {
            line += 1;
        }
        match char {
            '"' if quoted && chars.next_if_eq(&'"').is_some() => field.push('"'),
            '"' if quoted => quoted = false,
            _ if quoted => field.push(char),
            '"' if field.is_empty() => quoted = true,
            ',' => row.push(std::mem::take(&mut field)),
            '\r' if chars.peek() == Some(&'\n') => {}
            '\n' | '\r' => {
                row.push(std::mem::take(&mut field));
                rows.push((start, std::mem::take(&mut row)));
                start = line;
            }
            _ => field.push(char),
        }
    }
    if quoted {
        return Err(start);
    }
    row.push(field);
    rows.push((start, row));
    Ok(rows)
}

/// Returns a hash as RECORD has it: base64 for URLs, without padding.
fn encode(digest: &Digest) -> String {
    URL_SAFE_NO_PAD.encode(digest.bytes())
}

/// Writes a RECORD of the files in `rows`, whose paths are relative to the site folder, and of itself at `own`.
pub(super) fn write(mut rows: Vec<(String, Digest, u64)>, own: String) -> String {
    rows.sort();
    let at = rows.partition_point(|(path, _, _)| *path < own);
    let mut text = String::new();
    for (path, digest, size) in &rows[..at] {
        let _ = writeln!(text, "{},sha256={},{size}", quoted(path), encode(digest));
    }
    let _ = writeln!(text, "{},,", quoted(&own));
    for (path, digest, size) in &rows[at..] {
        let _ = writeln!(text, "{},sha256={},{size}", quoted(path), encode(digest));
    }
    text
}

/// Quotes a field where CSV needs it.
fn quoted(field: &str) -> String {
    match field.contains(['"', ',', '\n', '\r']) {
        true => format!("\"{}\"", field.replace('"', "\"\"")),
        false => field.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_csv() {
        let text = "a,b,c\r\n\"d,\"\"e\nf\",,\n\ng";
        let found = rows(text).unwrap();
        let row = |fields: &[&str]| fields.iter().map(|it| (*it).to_owned()).collect();
        assert_eq!(
            found,
            [
                (1, row(&["a", "b", "c"])),
                (2, row(&["d,\"e\nf", "", ""])),
                (4, row(&[""])),
                (5, row(&["g"])),
            ]
        );
        assert_eq!(rows("a\n\"b\n"), Err(2));
    }

    #[test]
    fn writes_what_it_reads() {
        let digest = Digest::of(b"x");
        let names = ["a,b", "../bin/x", "a\"c", "ä"];
        let rows = names
            .iter()
            .map(|it| ((*it).to_owned(), digest, 1))
            .collect();
        let text = write(rows, "a.dist-info/RECORD".to_owned());
        let first = text.lines().next().unwrap();
        assert_eq!(
            first,
            "../bin/x,sha256=LXEWQrcmsEQBYnyp-6wy9chTD7GQPMTbAiWHF5IaSIE,1"
        );
        assert_eq!(text.lines().nth(3), Some("a.dist-info/RECORD,,"));
        let record = Record::parse(text.as_bytes()).unwrap();
        // The one outside of the site folder is no member.
        assert_eq!(record.0.len(), 3);
        let path = LayerPath::parse("a,b").unwrap();
        record.check(&path, &digest).unwrap();
        assert!(record.check(&path, &Digest::of(b"y")).is_err());
    }
}
