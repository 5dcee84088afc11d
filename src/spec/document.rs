//! One `image.toml`: its text becomes tables.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

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
    };
    for (name, value) in root {
        let span = value.span();
        let table =
            |value: DeValue<'static>, span: Range<usize>, problems: &mut Problems| match value {
                DeValue::Table(value) => Some(Table {
                    source: source.clone(),
                    span,
                    value,
                }),
                _ => {
                    problems.push(Problem::new(
                        "imgdecl::spec::type",
                        &source,
                        span,
                        "this must be a table",
                        "not a table",
                    ));
                    None
                }
            };
        match name.get_ref().as_ref() {
            "format" => match value
                .get_ref()
                .as_integer()
                .map(|it| it.to_string())
                .as_deref()
            {
                Some("1") => document.format = Some(1),
                _ => problems.push(
                    Problem::new(
                        "imgdecl::spec::format",
                        &source,
                        span,
                        "there is no such format",
                        "this program knows format 1",
                    )
                    .help("write `format = 1`, or use a newer imgdecl"),
                ),
            },
            "defaults" => document.defaults = table(value.into_inner(), span, problems),
            "vars" => document.vars = table(value.into_inner(), span, problems),
            "index" => document.index = table(value.into_inner(), span, problems),
            "workspace" => document.workspace = table(value.into_inner(), span, problems),
            rule => match rules.iter().position(|known| *known == rule) {
                Some(index) => {
                    let Some(targets) = table(value.into_inner(), span, problems) else {
                        continue;
                    };
                    for (target, value) in targets.value {
                        document.add(
                            index,
                            rules,
                            target.span(),
                            &target.into_inner(),
                            value.span(),
                            value.into_inner(),
                            problems,
                        );
                    }
                }
                None => {
                    let names = rules.iter().copied().chain([
                        "format",
                        "defaults",
                        "vars",
                        "workspace",
                        "index",
                    ]);
                    let problem = Problem::new(
                        "imgdecl::spec::unknown_rule",
                        &source,
                        name.span(),
                        format!("unknown rule or key `{rule}`"),
                        "no such rule",
                    );
                    problems.push(match suggest(rule, names) {
                        Some(near) => problem.did_you_mean(Some(near)),
                        None => problem.help(format!("the rules are: {}", rules.join(", "))),
                    });
                }
            },
        }
    }
    document
}

impl Document {
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
