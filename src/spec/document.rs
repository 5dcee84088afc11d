//! One `image.toml`: its text becomes tables.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::foreign_words;
use super::{Problem, Problems, Table, suggest};
use crate::graph::SourceText;

/// A manifest, taken apart into tables.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) source: Arc<SourceText>,
    /// Whether the text is no TOML: then tables may be missing, and whatever follows from that is of no interest.
    pub(super) is_torn: bool,
    /// `format`, if it is written.
    pub(super) format: Option<u32>,
    pub(super) defaults: Option<Table>,
    pub(super) vars: Option<Table>,
    pub(super) workspace: Option<Table>,
    pub(super) index: Option<Table>,
    /// The targets by name: the rule's index in the list of rules, the place of the name, the table.
    pub(super) targets: BTreeMap<String, (usize, Range<usize>, Table)>,
    /// The names that several targets want: the first one has it.
    pub(super) taken: BTreeSet<String>,
}

/// Takes a manifest apart. `rules` are the names of the rules there are.
pub(super) fn parse(
    source: Arc<SourceText>,
    rules: &[&'static str],
    problems: &mut Problems,
) -> Document {
    // Tables borrow from the text, and both live as long as the program: a build reads each of its few manifests once.
    let text: &'static str = Box::leak(source.text.clone().into_boxed_str());
    let (root, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let span = error.span().unwrap_or(0..0);
        problems.push(Problem::new(
            "imgdecl::spec::syntax",
            &source,
            span,
            error.message(),
            "",
        ));
    }
    let root = root.into_inner();
    let mut document = Document {
        source: source.clone(),
        is_torn: !errors.is_empty(),
        format: None,
        defaults: None,
        vars: None,
        workspace: None,
        index: None,
        targets: BTreeMap::new(),
        taken: BTreeSet::new(),
    };
    for (name, value) in root {
        let (key, span) = (name.get_ref().as_ref(), value.span());
        if key == "format" {
            document.read_format(value.get_ref(), span, problems);
            continue;
        }
        let slot = match key {
            "defaults" => Some(&mut document.defaults),
            "vars" => Some(&mut document.vars),
            "index" => Some(&mut document.index),
            "workspace" => Some(&mut document.workspace),
            _ => None,
        };
        let rule = rules.iter().position(|known| *known == key);
        if slot.is_none() && rule.is_none() {
            problems.push(unknown(&source, name.span(), key, rules));
            continue;
        }
        let Some(table) = table(&source, span, value.into_inner(), problems) else {
            continue;
        };
        if let Some(slot) = slot {
            *slot = Some(table);
        } else if let Some(rule) = rule {
            for (target, value) in table.value {
                document.add(
                    rule,
                    rules,
                    target.span(),
                    &target.into_inner(),
                    value.span(),
                    value.into_inner(),
                    problems,
                );
            }
        }
    }
    document
}

/// Returns a value as a table, which it must be.
fn table(
    source: &Arc<SourceText>,
    span: Range<usize>,
    value: DeValue<'static>,
    problems: &mut Problems,
) -> Option<Table> {
    if let DeValue::Table(value) = value {
        let source = source.clone();
        return Some(Table {
            source,
            span,
            value,
        });
    }
    problems.push(Problem::new(
        "imgdecl::spec::type",
        source,
        span,
        "this must be a table",
        "not a table",
    ));
    None
}

/// Says that there is no such rule, and no such key.
fn unknown(
    source: &Arc<SourceText>,
    span: Range<usize>,
    name: &str,
    rules: &[&'static str],
) -> Problem {
    let problem = Problem::new(
        "imgdecl::spec::unknown_rule",
        source,
        span,
        format!("unknown rule or key `{name}`"),
        "no such rule",
    );
    if let Some(advice) =
        foreign_words::rule(name).filter(|_| suggest(name, rules.iter().copied()).is_none())
    {
        return problem.help(advice);
    }
    let keys = ["format", "defaults", "vars", "workspace", "index"];
    let names = rules.iter().copied().chain(keys);
    match suggest(name, names) {
        Some(near) => problem.did_you_mean(Some(near)),
        None => problem.help(format!("the rules are: {}", rules.join(", "))),
    }
}

impl Document {
    /// Reads the format, which must be one that this program knows.
    fn read_format(
        &mut self,
        value: &DeValue<'static>,
        span: Range<usize>,
        problems: &mut Problems,
    ) {
        let number = value.as_integer().map(|it| it.to_string());
        if number.as_deref() == Some("1") {
            self.format = Some(1);
            return;
        }
        let problem = Problem::new(
            "imgdecl::spec::format",
            &self.source,
            span,
            "there is no such format",
            "this program knows format 1",
        );
        problems.push(problem.help("write `format = 1`, or use a newer imgdecl"));
    }

    #[expect(clippy::too_many_arguments, reason = "one call, of one loop")]
    fn add(
        &mut self,
        rule: usize,
        rules: &[&'static str],
        name_span: Range<usize>,
        name: &str,
        span: Range<usize>,
        value: DeValue<'static>,
        problems: &mut Problems,
    ) {
        let source = &self.source;
        let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let bytes = name.as_bytes();
        let valid = bytes.first().is_some_and(|&it| word(it))
            && bytes.iter().all(|&it| word(it) || b"._-".contains(&it));
        if !valid {
            problems.push(
                Problem::new("imgdecl::spec::name", source, name_span, format!("`{name}` is no name for a target"), "not a name")
                    .help("names have lower-case letters, digits, `.`, `_` and `-`, and start with a letter or digit"),
            );
            return;
        }
        let DeValue::Table(value) = value else {
            let message = format!("`{}.{name}` must be a table", rules[rule]);
            problems.push(
                Problem::new("imgdecl::spec::type", source, span, message, "not a table")
                    .help(format!("targets are tables: [{}.NAME]", rules[rule])),
            );
            return;
        };
        if let Some((other, other_span, _)) = self.targets.get(name) {
            self.taken.insert(name.to_owned());
            problems.push(
                Problem::new(
                    "imgdecl::spec::duplicate",
                    source,
                    name_span,
                    format!("the name `{name}` is taken"),
                    format!("second, as {}", rules[rule]),
                )
                .also(other_span.clone(), format!("first, as {}", rules[*other]))
                .help("names are unique over all rules of a file: rename one of them"),
            );
            return;
        }
        let table = Table {
            source: source.clone(),
            span,
            value,
        };
        self.targets
            .insert(name.to_owned(), (rule, name_span, table));
    }
}
