//! The text of a lock: TOML, sorted, with a seal on each entry, so that an edit is seen.

use std::ops::Range;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::form::{Form, Sealed};
use super::{FILE, Lock, LockError};
use crate::graph::SourceText;

/// The version of the file's form.
const VERSION: u32 = 1;

const HEAD: &str = "\
# What the names in image.toml were resolved to. Made by `imgdecl lock`, and by `imgdecl build` where an entry is missing.
# Commit it. Do not edit it: `imgdecl lock --update` moves it forward.
";

/// An entry of the file.
struct Entry {
    form: &'static dyn Form,
    target: String,
    /// What it says; `None` if it was edited.
    pin: Option<Sealed>,
}

/// Why a file cannot be read: what is wrong, and where.
type Unreadable = (String, Option<Range<usize>>);

fn unreadable(error: toml::de::Error) -> Unreadable {
    (error.message().to_owned(), error.span())
}

/// Reads all entries of a file, sorted by rule and target.
fn entries(text: &str, forms: &[&'static dyn Form]) -> Result<Vec<Entry>, Unreadable> {
    let file = DeTable::parse(text).map_err(unreadable)?;
    let span = file.span();
    let mut entries = Vec::new();
    let mut has_version = false;
    for (name, value) in file.into_inner() {
        if name.get_ref() == "version" {
            u32::deserialize(ValueDeserializer::from(value)).map_err(unreadable)?;
            has_version = true;
            continue;
        }
        let form = forms.iter().find(|form| form.rule() == name.get_ref());
        let Some(form) = form else {
            let rules = forms.iter().map(|form| form.rule());
            let known = ["version"].into_iter().chain(rules);
            let known: Vec<String> = known.map(|name| format!("`{name}`")).collect();
            let (name, span, known) = (name.get_ref(), name.span(), known.join(", "));
            let message = format!("unknown field `{name}`, expected one of {known}");
            return Err((message, Some(span)));
        };
        for (target, entry) in table(value)? {
            let pin = form.read(ValueDeserializer::from(entry));
            entries.push(Entry {
                form: *form,
                target: target.into_inner().into_owned(),
                pin: pin.map_err(unreadable)?,
            });
        }
    }
    match has_version {
        true => Ok(entries),
        false => Err(("missing field `version`".to_owned(), Some(span))),
    }
}

/// Returns a table; what is none is an error that says so.
fn table(value: Spanned<DeValue<'_>>) -> Result<DeTable<'_>, Unreadable> {
    let span = value.span();
    match value.into_inner() {
        DeValue::Table(table) => Ok(table),
        other => {
            let value = ValueDeserializer::from(Spanned::new(span, other));
            let tables = std::collections::BTreeMap::<String, IgnoredAny>::deserialize(value);
            Err(tables.map_or_else(unreadable, |_| ("no table".to_owned(), None)))
        }
    }
}

impl Lock {
    /// Reads the text of a lock, whose entries are of `forms`.
    ///
    /// # Errors
    /// When it is none, was edited, or holds a merge conflict.
    pub(crate) fn parse(text: &str, forms: &[&'static dyn Form]) -> Result<Self, LockError> {
        let source_text = Arc::new(SourceText {
            name: FILE.to_owned(),
            text: text.to_owned(),
        });
        let fail = |message: String, label: &str, help: String, span: Range<usize>| LockError {
            message,
            label: label.to_owned(),
            help,
            source_text: source_text.clone(),
            span,
        };
        if let Some(span) = conflict(text) {
            return Err(fail(
                format!("{FILE} holds a merge conflict"),
                "git left it here",
                format!(
                    "take one side whole, as with `git checkout --theirs {FILE}`, then run `imgdecl lock`"
                ),
                span,
            ));
        }
        let version = toml::from_str::<Version>(text).map(|it| it.version);
        if let Ok(version) = version
            && *version.get_ref() != VERSION
        {
            return Err(fail(
                format!("{FILE} has version {}", version.get_ref()),
                "this program knows version 1",
                "use a newer imgdecl, or remove the file and run `imgdecl lock`".to_owned(),
                version.span(),
            ));
        }
        let again =
            format!("remove {FILE}, or take it from version control, then run `imgdecl lock`");
        let entries = entries(text, forms).map_err(|(why, span)| {
            let message = format!("{FILE} cannot be read: {why}");
            fail(message, "here", again, span.unwrap_or(0..0))
        })?;
        let edited = |rule: &str, name: &str| {
            let head = text
                .find(&format!("[{rule}.{name}]"))
                .or_else(|| text.find(&format!("[{rule}.\"{name}\"]")));
            let start = head.unwrap_or(0);
            let length = text[start..].lines().next().map_or(0, str::len);
            fail(
                format!("the entry of `{name}` in {FILE} was edited"),
                "it is not what imgdecl wrote",
                format!(
                    "take it from version control, or run `imgdecl lock --update {name}` to make it again"
                ),
                start..start + length,
            )
        };
        let mut lock = Self::default();
        for Entry { form, target, pin } in entries {
            let Some(pin) = pin else {
                return Err(edited(form.rule(), &target));
            };
            lock.enter(form, target, pin);
        }
        Ok(lock)
    }

    /// Reads the text of a lock, and leaves out the entries that were edited: they are made again.
    ///
    /// # Errors
    /// As [`Lock::parse`], but for edited entries.
    pub(crate) fn parse_without_edited(
        text: &str,
        forms: &[&'static dyn Form],
    ) -> Result<Self, LockError> {
        let error = match Self::parse(text, forms) {
            Ok(lock) => return Ok(lock),
            Err(error) => error,
        };
        let Ok(entries) = entries(text, forms) else {
            return Err(error);
        };
        let mut lock = Self::default();
        for Entry { form, target, pin } in entries {
            if let Some(pin) = pin {
                lock.enter(form, target, pin);
            }
        }
        Ok(lock)
    }

    /// Writes the text of the lock: sorted, the same for equal locks.
    pub(crate) fn to_text(&self) -> String {
        let mut text = format!("{HEAD}version = {VERSION}\n");
        for pins in self.rules.values() {
            for (target, pin) in &pins.targets {
                text.push('\n');
                text.push_str(&pins.form.write(target, pin));
            }
        }
        text
    }
}

#[derive(Deserialize)]
struct Version {
    version: toml::Spanned<u32>,
}

/// Finds the first line that git writes around the two sides of a conflict.
fn conflict(text: &str) -> Option<Range<usize>> {
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        if ["<<<<<<<", ">>>>>>>", "|||||||"]
            .iter()
            .any(|mark| line.starts_with(mark))
        {
            return Some(start..start + line.trim_end().len());
        }
        start += line.len();
    }
    None
}
