//! What the entries of an image's `layers` become: targets that are named there, and layers that stand there themselves.

use std::ops::Range;

use toml::Spanned;

use super::LayerNodes;
use crate::rule::{Below, LayerTrees, Lower, Lowered, RULES, Role};
use crate::spec::{LayerEntry, Problem, Problems, Table, Target};

/// Lowers the entries of `layers`, in their order.
///
/// # Errors
/// All that is wrong with them.
pub(in crate::rule) fn layers(
    target: &Target,
    lower: &mut Lower<'_>,
    entries: Vec<LayerEntry>,
    below: &Below,
) -> Result<Vec<LayerNodes>, Problems> {
    let mut problems = Problems::default();
    let mut layers = Vec::new();
    for (number, entry) in (1..).zip(entries) {
        let is_taken = match &entry {
            LayerEntry::Name(name) => lower.is_taken(target, name.get_ref()),
            LayerEntry::Inline(..) => false,
        };
        let entry = match entry {
            LayerEntry::Name(name) => named(target, lower, &name, below).map_err(Problems::from),
            LayerEntry::Inline(rule, table) => inlined(target, lower, number, &rule, table, below),
        };
        let added = entry.and_then(|entry| {
            let added = add_entry(target, entry, &mut layers);
            added.map_err(Problems::from)
        });
        if let Err(more) = added {
            problems.extend(match is_taken {
                true => more.may_follow(),
                false => more,
            });
        }
    }
    if problems.is_empty() {
        Ok(layers)
    } else {
        Err(problems)
    }
}

/// An entry of `layers`, and what it became.
struct Entry {
    /// What it became; its own problems are noted where it is nothing.
    lowered: Option<Lowered>,
    /// The rule that makes it.
    rule: &'static str,
    /// Its name, for the history.
    name: String,
    /// Its name for people.
    label: String,
    /// Where it stands.
    span: Range<usize>,
}

/// Lowers a target that `layers` names.
fn named(
    target: &Target,
    lower: &mut Lower<'_>,
    name: &Spanned<String>,
    below: &Below,
) -> Result<Entry, Problem> {
    let span = name.span();
    let fits = |role| role == Role::Layer;
    let id = lower.resolve(target, name.get_ref(), span.clone(), fits)?;
    let lowered = lower.target(&id, target, span.clone(), below)?;
    let rule = lower.spec.target(&id);
    Ok(Entry {
        lowered,
        rule: rule.map_or("", |it| RULES[it.rule].name()),
        label: lower.spec.short_name(&id),
        name: id.name,
        span,
    })
}

/// Lowers a layer that stands in `layers` itself.
fn inlined(
    target: &Target,
    lower: &mut Lower<'_>,
    number: usize,
    rule: &Spanned<String>,
    table: Table,
    below: &Below,
) -> Result<Entry, Problems> {
    let Some(index) = RULES.iter().position(|it| it.name() == rule.get_ref()) else {
        let names: Vec<&str> = RULES.iter().map(|it| it.name()).collect();
        let near = crate::spec::suggest(rule.get_ref(), names);
        let message = format!("unknown rule `{}`", rule.get_ref());
        let (code, label) = ("imgdecl::spec::unknown_rule", "no such rule");
        let problem = target.table.problem(code, rule.span(), message, label);
        let advice = crate::spec::advice_on_rule(rule.get_ref()).filter(|_| near.is_none());
        return Err(match advice {
            Some(advice) => problem.help(advice),
            None => problem.did_you_mean(near),
        }
        .into());
    };
    let lowered = lower.inline(target, index, table, number, below)?;
    Ok(Entry {
        lowered: Some(lowered),
        rule: RULES[index].name(),
        name: format!("{}#{number}", target.id.name),
        label: format!("{}#{number}", lower.spec.short_name(&target.id)),
        span: rule.span(),
    })
}

/// Adds the layers that an entry became.
fn add_entry(target: &Target, entry: Entry, layers: &mut Vec<LayerNodes>) -> Result<(), Problem> {
    let Entry {
        lowered,
        rule,
        name,
        label,
        span,
    } = entry;
    let at = &target.table;
    match lowered {
        Some(Lowered::Layer(trees)) => layers.push(LayerNodes {
            trees,
            pick: None,
            rule,
            name,
            label,
            origin: at.place(span),
            packages: None,
            on_users: None,
        }),
        Some(Lowered::OnUsers(on_users)) => layers.push(LayerNodes {
            trees: Vec::new(),
            pick: None,
            rule,
            name,
            label,
            origin: at.place(span),
            packages: None,
            on_users: Some(on_users),
        }),
        Some(Lowered::Layers(all, packages)) => {
            let several = all.len() > 1;
            for (number, LayerTrees { node, pick }) in (1..).zip(all) {
                layers.push(LayerNodes {
                    trees: vec![node],
                    pick: Some(pick),
                    rule,
                    name: name.clone(),
                    label: match several {
                        true => format!("{label}/{number}"),
                        false => label.clone(),
                    },
                    origin: at.place(span.clone()),
                    packages: (number == 1).then(|| packages.clone()),
                    on_users: None,
                });
            }
        }
        None => {}
        Some(other) => {
            let message = format!("`{name}` is no layer");
            let label = format!("a target of rule {rule}");
            let problem = at.problem("imgdecl::image::not_a_layer", span, message, label);
            return Err(problem.help(match other {
                Lowered::Base(..) | Lowered::Image(_) => format!(
                    "write base = \"{name}\" to build on it, or take files out of it: {{ files = {{ from = \"{name}\", src = \"/…\", dest \
                     = \"/…\" }} }}"
                ),
                _ => "layers are made by rules such as `files`".to_owned(),
            }));
        }
    }
    Ok(())
}
