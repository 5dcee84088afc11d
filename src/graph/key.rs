//! Action keys. The one place that decides how a key is made.
//!
//! | in a key | never in a key |
//! |---|---|
//! | the format, the action's name and version | threads, lanes, `--jobs` |
//! | the action's own parameters | absolute paths, the manifest's place |
//! | the products of its inputs: digests, not keys | mtimes, inodes, users, umask, locale, time |
//! | compressor, its version and level | the cache folder, who asked |
//!
//! Keys are made of the digests of inputs, not of their keys: a file that was touched but not changed ends the rebuild
//! at its tree.

use std::fmt;

use super::{Action, Product};
use crate::layer::FORMAT;
use crate::oci::{Digest, Hasher};

/// The key of an action: equal keys make equal products.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ActionKey(pub Digest);

impl fmt::Display for ActionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for ActionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Hands out lines, one by one.
pub type Lines<'a> = &'a dyn Fn(&mut dyn FnMut(&str));

/// Takes what goes into a key, in order. Implemented twice, so that what is shown is what was hashed.
pub trait KeyWriter {
    /// Adds a labelled value.
    fn field(&mut self, label: &str, value: &str);

    /// Adds a labelled list whose lines the digest stands for.
    fn lines(&mut self, label: &str, digest: &Digest, lines: Lines<'_>);
}

/// Hashes a key: each label and value behind its length.
#[derive(Default)]
pub struct HashKey(Hasher);

impl HashKey {
    /// Returns the key.
    pub fn finish(self) -> ActionKey {
        ActionKey(self.0.finish())
    }

    fn text(&mut self, text: &str) {
        self.0.update(&(text.len() as u64).to_le_bytes());
        self.0.update(text.as_bytes());
    }
}

impl KeyWriter for HashKey {
    fn field(&mut self, label: &str, value: &str) {
        self.text(label);
        self.text(value);
    }

    fn lines(&mut self, label: &str, digest: &Digest, _: Lines<'_>) {
        self.text(label);
        self.text(&digest.to_string());
    }
}

/// Writes a key out: a line for each value, and for each line of a list.
#[derive(Default)]
pub struct TextKey(pub String);

impl KeyWriter for TextKey {
    fn field(&mut self, label: &str, value: &str) {
        use fmt::Write as _;
        let _ = match value.contains(['\n', '\r']) {
            true => writeln!(self.0, "{label}: {value:?}"),
            false => writeln!(self.0, "{label}: {value}"),
        };
    }

    fn lines(&mut self, label: &str, digest: &Digest, lines: Lines<'_>) {
        self.field(label, &digest.to_string());
        lines(&mut |line| self.field(&format!("  {label}"), line));
    }
}

/// Writes the key of `action` with the products of its inputs.
pub(super) fn write(action: &dyn Action, inputs: &[Product], key: &mut dyn KeyWriter) {
    key.field("format", &FORMAT.to_string());
    key.field("action", action.name());
    key.field("version", &action.version().to_string());
    action.parameters(key);
    for input in inputs {
        input.write_key(key);
    }
}

/// Returns the lines by which two key texts differ: `-` for the last one's, `+` for this one's.
pub fn compare(last: &str, this: &str) -> Vec<String> {
    let (last, this): (Vec<&str>, Vec<&str>) = (last.lines().collect(), this.lines().collect());
    let sorted = |lines: &[&str]| {
        let mut sorted: Vec<String> = lines.iter().map(|&line| line.to_owned()).collect();
        sorted.sort();
        sorted
    };
    let (old, new) = (sorted(&last), sorted(&this));
    let lacks =
        |in_: &[String], line: &str| in_.binary_search_by(|it| it.as_str().cmp(line)).is_err();
    let gone = last
        .iter()
        .filter(|line| lacks(&new, line))
        .map(|line| format!("- {line}"));
    let come = this
        .iter()
        .filter(|line| lacks(&old, line))
        .map(|line| format!("+ {line}"));
    gone.chain(come).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_keep_fields_apart() {
        let key = |fields: &[(&str, &str)]| {
            let mut key = HashKey::default();
            fields
                .iter()
                .for_each(|(label, value)| key.field(label, value));
            key.finish()
        };
        assert_ne!(key(&[("a", "bc")]), key(&[("ab", "c")]));
        assert_ne!(key(&[("a", "b"), ("c", "d")]), key(&[("a", "bcd")]));
    }

    #[test]
    fn compare_names_what_changed() {
        let lines = compare("a: 1\nb: 2\nc: 3\n", "a: 1\nb: 4\nc: 3\nd: 5\n");
        assert_eq!(lines, ["- b: 2", "+ b: 4", "+ d: 5"]);
        assert!(compare("a\n", "a\n").is_empty());
    }
}
