//! A table of a manifest: checked against its keys, expanded, and turned into the struct of whoever owns it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::{Key, Problem, Problems, Scope, Type, Vars, suggest};
use super::{foreign_words, words};
use crate::graph::{Origin, SourceText};

/// A table, with the place of every word.
#[derive(Clone, Debug)]
pub struct Table {
    /// The manifest.
    pub source: Arc<SourceText>,
    /// The table's header, or the inline table.
    pub span: Range<usize>,
    pub(super) value: DeTable<'static>,
}

/// One element of `layers`.
#[derive(Clone, Debug)]
pub enum LayerEntry {
    /// The name of a target.
    Name(Spanned<String>),
    /// A target written in place: rule and table.
    Inline(Spanned<String>, Table),
}

impl Table {
    /// Returns the table's own place.
    pub fn origin(&self) -> Origin {
        self.place(self.span.clone())
    }

    /// Returns a place in the manifest of this table.
    pub fn place(&self, span: Range<usize>) -> Origin {
        Origin {
            source: self.source.clone(),
            span,
        }
    }

    /// Makes a problem at a place in the manifest of this table.
    pub fn problem(
        &self,
        code: &'static str,
        span: Range<usize>,
        message: impl Into<String>,
        label: impl Into<String>,
    ) -> Problem {
        Problem::new(code, &self.source, span, message, label)
    }

    /// Checks names and types of all keys, also in nested tables.
    pub fn check(&self, keys: &[Key]) -> Problems {
        let mut problems = Problems::default();
        self.check_table(&self.value, keys, &mut problems);
        problems
    }

    fn check_table(&self, table: &DeTable<'static>, keys: &[Key], problems: &mut Problems) {
        for (name, value) in table {
            let Some(key) = keys.iter().find(|key| key.name == name.get_ref().as_ref()) else {
                let names = keys.iter().map(|key| key.name);
                let near = suggest(name.get_ref(), names.clone());
                let all: Vec<&str> = names.collect();
                let problem = self.problem(
                    "imgdecl::spec::unknown_key",
                    name.span(),
                    format!("unknown key `{}`", name.get_ref()),
                    "no such key here",
                );
                let theirs = foreign_words::key(name.get_ref(), all.iter().copied());
                problems.push(match (near, theirs) {
                    (_, Some(advice)) => problem.help(advice),
                    (Some(_), None) => problem.did_you_mean(near),
                    (None, None) => problem.help(format!("the keys are: {}", all.join(", "))),
                });
                continue;
            };
            if let Some((span, wrong)) = offender(&key.kind, value) {
                let message = format!("`{}` takes a {}", key.name, key.kind.describe());
                let label = format!("this is {}", describe(wrong));
                let problem = self.problem("imgdecl::spec::type", span.clone(), message, label);
                let text = self.source.text.get(span).unwrap_or_default();
                problems.push(match wrong {
                    DeValue::Integer(_) if key.name == "groups" => {
                        problem.help(format!("write it as a table: {{ gid = {text} }}"))
                    }
                    _ if matches!(key.kind, Type::Named(_)) => problem,
                    DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) => {
                        problem.help(format!("write it as a string: \"{text}\""))
                    }
                    _ => problem,
                });
                continue;
            }
            if !key.kind.admits(value.get_ref()) {
                let message = format!("`{}` takes a {}", key.name, key.kind.describe());
                let message = match key.kind {
                    Type::OneOf(names) => format!("`{}` is one of {}", key.name, names.join(", ")),
                    Type::Integer => format!("`{}` takes an integer", key.name),
                    _ => message,
                };
                let label = match value.get_ref().as_str() {
                    Some(text) if matches!(key.kind, Type::OneOf(_)) => format!("not `{text}`"),
                    _ => format!("this is {}", describe(value.get_ref())),
                };
                let problem = self.problem("imgdecl::spec::type", value.span(), message, label);
                problems.push(match advice(key, value.get_ref(), keys) {
                    Some(advice) => problem.help(advice),
                    None => problem,
                });
                continue;
            }
            if let (Type::Words, DeValue::String(text)) = (key.kind, value.get_ref())
                && let Some((message, help)) = words::wrong(text)
            {
                let problem = self.problem("imgdecl::spec::words", value.span(), message, "");
                problems.push(problem.help(help));
            }
            match (key.kind, value.get_ref()) {
                (Type::Table(keys), DeValue::Table(table)) => {
                    self.check_table(table, keys, problems)
                }
                (Type::Tables(keys), DeValue::Array(tables)) => {
                    for table in tables.iter().filter_map(|it| it.get_ref().as_table()) {
                        self.check_table(table, keys, problems);
                    }
                }
                (Type::Named(keys), DeValue::Table(tables)) => {
                    for table in tables.values().filter_map(|it| it.get_ref().as_table()) {
                        self.check_table(table, keys, problems);
                    }
                }
                _ => {}
            }
        }
    }

    /// Expands the variables and turns the table into `T`, whose fields are `keys` without those of type `Layers`.
    ///
    /// # Errors
    /// All that is wrong with names, types and variables; or the first thing that `T` itself refuses.
    pub fn read<T: DeserializeOwned>(
        &self,
        keys: &'static [Key],
        vars: &Vars<'_>,
    ) -> Result<T, Problems> {
        self.read_part(keys, |_| true, vars)
    }

    /// Reads as [`Table::read`] does, but only the keys that `wants` names: others may use variables that are not known
    /// yet.
    ///
    /// # Errors
    /// As [`Table::read`].
    pub fn read_part<T: DeserializeOwned>(
        &self,
        keys: &'static [Key],
        wants: impl Fn(&str) -> bool,
        vars: &Vars<'_>,
    ) -> Result<T, Problems> {
        let mut problems = self.check(keys);
        let mut table = DeTable::new();
        for (name, mut value) in self.value.clone() {
            if !wants(name.get_ref()) {
                continue;
            }
            let Some(key) = keys.iter().find(|key| key.name == name.get_ref().as_ref()) else {
                continue;
            };
            if matches!(key.kind, Type::Layers) {
                continue;
            }
            if key.scope != Scope::Raw {
                self.expand(&mut value, key.scope, vars, &mut problems);
            }
            table.insert(name, value);
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let value = Spanned::new(self.span.clone(), DeValue::Table(table));
        T::deserialize(ValueDeserializer::from(value)).map_err(|error| {
            let span = error.span().unwrap_or_else(|| self.span.clone());
            let problem = self.problem("imgdecl::spec::value", span, error.message(), "");
            // What the key means, where one is missing.
            let missing = |key: &&Key| error.message() == format!("missing field `{}`", key.name);
            match keys.iter().find(missing) {
                Some(key) => problem.help(format!("add `{}`: {}", key.name, key.doc)),
                None => problem,
            }
            .into()
        })
    }

    fn expand(
        &self,
        value: &mut Spanned<DeValue<'static>>,
        scope: Scope,
        vars: &Vars<'_>,
        problems: &mut Problems,
    ) {
        let span = value.span();
        match value.get_mut() {
            DeValue::String(text) => match vars.expand(text, scope) {
                Ok(expanded) => *text = expanded.into(),
                Err((message, help)) => {
                    let problem = self.problem("imgdecl::spec::variable", span, message, "");
                    problems.push(match help {
                        Some(help) => problem.help(help),
                        None => problem,
                    });
                }
            },
            DeValue::Array(list) => list
                .iter_mut()
                .for_each(|value| self.expand(value, scope, vars, problems)),
            DeValue::Table(table) => {
                // Names too: paths stand to the left of the `=` in `symlinks`, `dirs` and `text`.
                for (mut name, mut value) in std::mem::take(table) {
                    match vars.expand(name.get_ref(), scope) {
                        Ok(expanded) => *name.get_mut() = expanded.into(),
                        Err((message, _)) => {
                            problems.push(self.problem(
                                "imgdecl::spec::variable",
                                name.span(),
                                message,
                                "",
                            ));
                        }
                    }
                    self.expand(&mut value, scope, vars, problems);
                    table.insert(name, value);
                }
            }
            _ => {}
        }
    }

    /// Returns the entries of the table of strings `key` that can be expanded with `vars`.
    pub fn expandable(&self, key: &str, scope: Scope, vars: &Vars<'_>) -> BTreeMap<String, String> {
        let table = self
            .value
            .get(key)
            .and_then(|value| value.get_ref().as_table());
        let entries = table.into_iter().flatten().filter_map(|(name, value)| {
            let value = vars.expand(value.get_ref().as_str()?, scope).ok()?;
            Some((vars.expand(name.get_ref(), scope).ok()?, value))
        });
        entries.collect()
    }

    /// Returns the strings and inline tables of the list `key`, in order.
    ///
    /// # Errors
    /// When an inline table is not one rule with its table.
    pub fn layers(&self, key: &str, vars: &Vars<'_>) -> Result<Vec<LayerEntry>, Problems> {
        let mut problems = Problems::default();
        let mut entries = Vec::new();
        let list = self
            .value
            .get(key)
            .and_then(|value| value.get_ref().as_array());
        for value in list.into_iter().flat_map(|list| list.iter()) {
            match value.get_ref() {
                DeValue::String(name) => match vars.expand(name, Scope::Plain) {
                    Ok(name) => entries.push(LayerEntry::Name(Spanned::new(value.span(), name))),
                    Err((message, _)) => problems.push(self.problem("imgdecl::spec::variable", value.span(), message, "")),
                },
                DeValue::Table(table) => match table.iter().next() {
                    Some((rule, inner)) if table.len() == 1 && inner.get_ref().is_table() => {
                        let inner = Table {
                            source: self.source.clone(),
                            span: inner.span(),
                            value: inner.get_ref().as_table().cloned().unwrap_or_default(),
                        };
                        let rule = Spanned::new(rule.span(), rule.get_ref().to_string());
                        entries.push(LayerEntry::Inline(rule, inner));
                    }
                    _ => problems.push(
                        self.problem("imgdecl::spec::layer", value.span(), "this is not a layer", "one rule with its table goes here")
                            .help("for example: { files = { src = \"bin/hello\", dest = \"/bin/hello\" } }"),
                    ),
                },
                _ => {}
            }
        }
        if problems.is_empty() {
            Ok(entries)
        } else {
            Err(problems)
        }
    }
}

/// Returns the first element of a list or table that is of the wrong type, if the list or table itself is right.
fn offender<'a>(
    kind: &Type,
    value: &'a Spanned<DeValue<'static>>,
) -> Option<(Range<usize>, &'a DeValue<'static>)> {
    let fits = |value: &DeValue<'_>| match kind {
        Type::Strings | Type::Words | Type::StringMap | Type::PerPlatform => value.is_str(),
        Type::Layers => value.is_str() || value.is_table(),
        Type::Named(_) => value.is_table(),
        Type::Ports => value.is_str() || value.is_integer(),
        _ => true,
    };
    let wrong = match (kind, value.get_ref()) {
        (Type::StringMap | Type::PerPlatform | Type::Named(_), DeValue::Table(table)) => {
            table.values().find(|it| !fits(it.get_ref()))
        }
        (Type::Strings | Type::Words | Type::Layers | Type::Ports, DeValue::Array(list)) => {
            list.iter().find(|it| !fits(it.get_ref()))
        }
        _ => None,
    };
    wrong.map(|wrong| (wrong.span(), wrong.get_ref()))
}

/// Says how to write a value that is of the wrong type.
fn advice(key: &Key, value: &DeValue<'static>, keys: &[Key]) -> Option<String> {
    match (key.kind, value) {
        (Type::Strings, DeValue::String(text)) => Some(format!("write it as a list: [{text:?}]")),
        (Type::StringMap, DeValue::Array(list)) => {
            let first = list.iter().next()?.get_ref().as_str()?;
            let (name, value) = first.split_once('=').unwrap_or((first, "…"));
            Some(format!("write it as a table: {{ {name} = \"{value}\" }}"))
        }
        (Type::Table(_), DeValue::String(text)) if key.name == "healthcheck" => Some(format!(
            "write it as a table: {{ test = [\"CMD-SHELL\", \"{text}\"] }}"
        )),
        (Type::String, DeValue::Array(_)) => {
            let several = keys.iter().find(|other| {
                matches!(other.kind, Type::Strings)
                    && other.name.strip_suffix('s') == Some(key.name)
            })?;
            Some(format!("did you mean `{}`?", several.name))
        }
        _ => None,
    }
}

fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(_) => "a string".into(),
        DeValue::Integer(_) => "an integer".into(),
        DeValue::Float(_) => "a decimal number".into(),
        DeValue::Boolean(_) => "a boolean".into(),
        DeValue::Datetime(_) => "a date".into(),
        DeValue::Table(_) => "a table".into(),
        DeValue::Array(list) => match list.iter().next() {
            Some(first) => format!("a list with {}", describe(first.get_ref())),
            None => "an empty list".into(),
        },
    }
}
