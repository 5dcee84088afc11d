//! Action keys. The one place that decides how a key is made.
//!
//! | in a key | never in a key |
//! |---|---|
//! | the formats of layers and of texts, the action's name and version | threads, lanes, `--jobs` |
//! | the action's own parameters | absolute paths, the manifest's place |
//! | the products of its inputs: digests, not keys | mtimes, inodes, users, umask, locale, time |
//! | compressor, its version and level | the cache folder, who asked |
//!
//! Keys are made of the digests of inputs, not of their keys: a file that was touched but not changed ends the rebuild
//! at its tree.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};

use super::{Action, Context, Part, Product};
use crate::layer::{FORMAT, TEXTS, quoted};
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
pub(super) type Lines<'a> = &'a dyn Fn(&mut dyn FnMut(&str));

/// Takes what goes into a key, in order. Implemented twice, so that what is shown is what was hashed.
pub trait KeyWriter {
    /// Adds a labelled value.
    fn field(&mut self, label: &str, value: &str);

    /// Adds a labelled list whose lines the digest stands for.
    fn lines(&mut self, label: &str, digest: &Digest, lines: Lines<'_>);
}

impl dyn KeyWriter + '_ {
    /// Adds a labelled list in its order: how many values there are, then each.
    pub fn list<S: AsRef<str>>(
        &mut self,
        label: &str,
        values: impl IntoIterator<Item = S, IntoIter: ExactSizeIterator>,
    ) {
        let values = values.into_iter();
        self.field(label, &values.len().to_string());
        values.for_each(|value| self.field(&format!("  {label}"), value.as_ref()));
    }

    /// Adds `yes` or `no`.
    pub fn flag(&mut self, label: &str, value: bool) {
        self.field(label, if value { "yes" } else { "no" });
    }
}

/// Hashes a key: each label and value behind its length.
#[derive(Default)]
pub(crate) struct HashKey(Hasher);

impl HashKey {
    /// Returns the key.
    pub(crate) fn finish(self) -> ActionKey {
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

/// Writes a key out: a line for each value, and for each line of a list. It can be long: it is never in memory as a whole,
/// unless `out` keeps it.
pub(crate) struct TextKey<'a> {
    out: &'a mut dyn Write,
    /// Whether all could be written so far.
    written: io::Result<()>,
}

impl<'a> TextKey<'a> {
    /// Writes to `out`.
    pub(crate) fn new(out: &'a mut dyn Write) -> Self {
        let written = Ok(());
        Self { out, written }
    }

    /// Tells whether all could be written.
    pub(crate) fn finish(self) -> io::Result<()> {
        self.written
    }
}

impl KeyWriter for TextKey<'_> {
    fn field(&mut self, label: &str, value: &str) {
        if self.written.is_ok() {
            self.written = match value.contains(['\n', '\r']) {
                true => writeln!(self.out, "{label}: {}", quoted(value)),
                false => writeln!(self.out, "{label}: {value}"),
            };
        }
    }

    fn lines(&mut self, label: &str, digest: &Digest, lines: Lines<'_>) {
        self.field(label, &digest.to_string());
        let label = format!("  {label}");
        lines(&mut |line| self.field(&label, line));
    }
}

/// Writes the key of `action` with the products of its inputs. With a `context`, what digests stand for can be listed.
pub(super) fn write(
    action: &dyn Action,
    inputs: &[Product],
    key: &mut dyn KeyWriter,
    context: Option<&Context<'_>>,
) {
    key.field("format", &format!("{FORMAT}.{TEXTS}"));
    key.field("action", action.name());
    key.field("version", &action.version().to_string());
    action.parameters(key);
    for input in inputs {
        input.write_key(key, context);
    }
}

/// Writes the key of a recorded part.
pub(super) fn write_part(part: &dyn Part, key: &mut dyn KeyWriter) {
    key.field("format", &format!("{FORMAT}.{TEXTS}"));
    key.field("part", part.name());
    key.field("version", &part.version().to_string());
    part.parameters(key);
}

/// How many pairs of lines are compared one by one, to find the longest list that two lists have in common.
const PAIRS: usize = 1 << 20;

/// Returns the lines by which two key texts differ, in order: `-` for the last one's, `+` for this one's. A key is a
/// list: a new order shows, and so does a line that stands twice.
pub(crate) fn compare(last: &str, this: &str) -> Vec<String> {
    let (last, this): (Vec<&str>, Vec<&str>) = (last.lines().collect(), this.lines().collect());
    let mut lines = Vec::new();
    diff(&last, &this, &mut lines);
    lines
}

fn diff(mut last: &[&str], mut this: &[&str], lines: &mut Vec<String>) {
    while let ([one, last_rest @ ..], [other, this_rest @ ..]) = (last, this)
        && one == other
    {
        (last, this) = (last_rest, this_rest);
    }
    while let ([last_rest @ .., one], [this_rest @ .., other]) = (last, this)
        && one == other
    {
        (last, this) = (last_rest, this_rest);
    }
    if last.len().saturating_mul(this.len()) <= PAIRS {
        return diff_small(last, this, lines);
    }
    // Long lists are cut at the lines that stand once in both, as far as their order is the same.
    let (mut from_last, mut from_this) = (0, 0);
    for (at_last, at_this) in anchors(last, this) {
        diff(&last[from_last..at_last], &this[from_this..at_this], lines);
        (from_last, from_this) = (at_last + 1, at_this + 1);
    }
    let (last, this) = (&last[from_last..], &this[from_this..]);
    if from_last > 0 {
        return diff(last, this, lines);
    }
    lines.extend(last.iter().map(|line| format!("- {line}")));
    lines.extend(this.iter().map(|line| format!("+ {line}")));
}

/// Compares short lists by the longest list that they have in common.
fn diff_small(last: &[&str], this: &[&str], lines: &mut Vec<String>) {
    // The length of that list for what follows each pair of places.
    let width = this.len() + 1;
    let mut common = vec![0_u32; (last.len() + 1) * width];
    for (i, one) in last.iter().enumerate().rev() {
        for (j, other) in this.iter().enumerate().rev() {
            common[i * width + j] = match one == other {
                true => common[(i + 1) * width + j + 1] + 1,
                false => common[(i + 1) * width + j].max(common[i * width + j + 1]),
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < last.len() || j < this.len() {
        if i < last.len() && j < this.len() && last[i] == this[j] {
            (i, j) = (i + 1, j + 1);
        } else if j == this.len()
            || i < last.len() && common[(i + 1) * width + j] >= common[i * width + j + 1]
        {
            lines.push(format!("- {}", last[i]));
            i += 1;
        } else {
            lines.push(format!("+ {}", this[j]));
            j += 1;
        }
    }
}

/// Returns the places of lines that stand once in both lists: the longest series that rises in both.
fn anchors(last: &[&str], this: &[&str]) -> Vec<(usize, usize)> {
    // How often each line stands in either, and where it stood last.
    let mut seen: BTreeMap<&str, [(u32, usize); 2]> = BTreeMap::new();
    for (side, lines) in [last, this].into_iter().enumerate() {
        for (at, line) in lines.iter().enumerate() {
            let found = &mut seen.entry(line).or_default()[side];
            *found = (found.0 + 1, at);
        }
    }
    let single = |line: &&str| match seen[line] {
        [(1, at_last), (1, at_this)] => Some((at_last, at_this)),
        _ => None,
    };
    let pairs: Vec<(usize, usize)> = last.iter().filter_map(single).collect();
    // For each length of a series the pair that ends it lowest; and for each pair the one before it.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(pairs.len());
    for (index, (_, at_this)) in pairs.iter().enumerate() {
        let length = ends.partition_point(|&end| pairs[end].1 < *at_this);
        before.push(length.checked_sub(1).map(|it| ends[it]));
        match ends.get_mut(length) {
            Some(end) => *end = index,
            None => ends.push(index),
        }
    }
    let mut next = ends.last().copied();
    let mut found = Vec::new();
    while let Some(index) = next {
        found.push(pairs[index]);
        next = before[index];
    }
    found.reverse();
    found
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

    #[test]
    fn compare_shows_order_and_doubles() {
        assert_eq!(compare("a\nb\n", "b\na\n"), ["- a", "+ a"]);
        assert_eq!(compare("a\n", "a\na\n"), ["+ a"]);
        assert_eq!(compare("a\na\nb\n", "a\nb\n"), ["- a"]);
        assert_eq!(compare("", "a\n"), ["+ a"]);
        assert_eq!(compare("a\n", ""), ["- a"]);
    }

    /// What is left of the last list's lines, with what came: sorted, for a difference names no places.
    fn apply(last: &[String], lines: &[String]) -> Vec<String> {
        let mut left = last.to_vec();
        for line in lines {
            match line.split_at(2) {
                ("- ", gone) => {
                    let at = left.iter().position(|it| it == gone).unwrap();
                    left.swap_remove(at);
                }
                (_, come) => left.push(come.to_owned()),
            }
        }
        left.sort();
        left
    }

    #[test]
    fn long_lists_are_compared_in_no_time() {
        let old: Vec<String> = (0..60_000).map(|n| format!("file {n}")).collect();
        let text = |lines: &[String]| lines.join("\n");
        // A line goes, one comes, and two change places.
        let mut new = old.clone();
        new.remove(100);
        new.insert(30_000, "file new".to_owned());
        new.swap(50_000, 50_001);
        let lines = compare(&text(&old), &text(&new));
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert!(lines.contains(&"- file 100".to_owned()), "{lines:?}");
        assert!(lines.contains(&"+ file new".to_owned()), "{lines:?}");
        // Nothing is left of what was.
        let other: Vec<String> = (0..60_000).map(|n| format!("other {n}")).collect();
        let lines = compare(&text(&old), &text(&other));
        assert_eq!(lines.len(), 120_000);
        // Lines that stand many times.
        let few: Vec<String> = (0..6_000).map(|n| format!("{}", n % 7)).collect();
        let mut more = few.clone();
        more.rotate_left(3);
        let lines = compare(&text(&few), &text(&more));
        let mut expected = more.clone();
        expected.sort();
        assert_eq!(apply(&few, &lines), expected);
    }
}
