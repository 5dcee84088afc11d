//! The reference of the rules and the JSON schema of image.toml, both made from the rules themselves.

use serde_json::{Map, Value, json};

use super::{RULES, Role, Rule};
use crate::spec::{Key, Type, top_level};

/// Returns the reference of a rule: the head of its source file, and its keys.
pub(crate) fn reference(rule: &dyn Rule) -> String {
    let mut text = format!("# {}: {}\n\n", rule.name(), rule.summary());
    for line in rule
        .source()
        .lines()
        .take_while(|line| line.starts_with("//!"))
    {
        let line = line.trim_start_matches("//!");
        text.push_str(line.strip_prefix(' ').unwrap_or(line));
        text.push('\n');
    }
    text.push_str("\n## Keys\n\n");
    keys(&mut text, rule.keys());
    text
}

/// Returns the reference of a table of a manifest that is no rule; `None` if there is none of that name.
pub(crate) fn reference_of_table(name: &str) -> Option<String> {
    if name == "vars" {
        return Some(VARS.to_owned());
    }
    let tables = top_level();
    let (_, doc, own) = tables.iter().find(|(table, _, _)| *table == name)?;
    let example = EXAMPLES.iter().find(|(table, _)| *table == name)?.1;
    let mut text = format!("# [{name}]\n\n{doc}\n\n```toml\n{example}```\n\n## Keys\n\n");
    keys(&mut text, own);
    Some(text)
}

/// The names of the tables of a manifest that are no rules.
pub(crate) const TABLES: [&str; 4] = ["defaults", "index", "vars", "workspace"];

/// The reference of `[vars]`.
const VARS: &str = "\
# [vars]

Variables, for `${name}` in strings. `--set NAME=VALUE` overrides one, and a member of a workspace sees those of the root.
`${platform}`, `${os}`, `${arch}`, `${variant}` and `${target}` are built in; `${git.commit}`, `${git.tag}` and
`${git.dirty}` are, too, in labels, annotations and image tags. `$${` writes `${`.

```toml
[vars]
release = \"2026-01\"

[image.web]
base   = \"scratch\"
layers = [{ files = { text = { \"/release\" = \"${release}\" } } }]
tags   = [\"${release}\", \"${git.tag:-dev}\"]
```
";

/// How the tables are written.
const EXAMPLES: [(&str, &str); 3] = [
    (
        "defaults",
        "[defaults]\nrepository = \"registry.example.com/team\"\nplatforms  = [\"linux/amd64\", \"linux/arm64\"]\n",
    ),
    (
        "index",
        "[index]\nurl      = \"https://packages.example.com/simple\"\npackages = { \"acme-*\" = \"https://acme.example.com/simple\" }\n",
    ),
    (
        "workspace",
        "[workspace]\nmembers = [\"frontend\", \"services/*\"]\n",
    ),
];

fn keys(text: &mut String, keys: &[Key]) {
    text.push_str("| key | takes | default | |\n|---|---|---|---|\n");
    for key in keys {
        let default = if key.default.is_empty() {
            String::new()
        } else {
            format!("`{}`", key.default)
        };
        let takes = key.kind.describe().replace('|', "\\|");
        text.push_str(&format!(
            "| `{}` | {takes} | {default} | {} |\n",
            key.name, key.doc
        ));
    }
}

/// Returns the table of all rules.
pub(crate) fn table_of_rules() -> String {
    let mut text = String::from("| rule | makes | keys |\n|---|---|---|\n");
    for rule in RULES {
        let keys: Vec<String> = rule
            .keys()
            .iter()
            .map(|key| format!("`{}`", key.name))
            .collect();
        text.push_str(&format!(
            "| `{}` | {} | {} |\n",
            rule.name(),
            rule.summary(),
            keys.join(", ")
        ));
    }
    text
}

/// Returns the JSON schema of image.toml (draft 2020-12).
pub(crate) fn schema() -> Value {
    let mut properties = Map::new();
    properties.insert(
        "format".into(),
        json!({"const": 1, "description": "The byte contract. Default 1."}),
    );
    properties.insert(
        "vars".into(),
        json!({"type": "object", "additionalProperties": {"type": "string"}, "description": "Variables, for `${name}` in strings."}),
    );
    for (name, doc, keys) in top_level() {
        properties.insert(name.into(), table(keys, doc));
    }
    for rule in RULES {
        let targets = json!({
            "type": "object",
            "description": rule.summary(),
            "propertyNames": {"pattern": "^[a-z0-9][a-z0-9._-]*$"},
            "additionalProperties": table(rule.keys(), rule.summary()),
        });
        properties.insert(rule.name().into(), targets);
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "image.toml",
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
        "$defs": {"layer": layer()},
    })
}

/// Describes an entry of a list of layers: a name, or a table with one rule. Such a rule may have a list of layers itself.
fn layer() -> Value {
    let layers = RULES.iter().filter(|rule| rule.role() == Role::Layer);
    let rules: Map<String, Value> = layers
        .map(|rule| (rule.name().to_owned(), table(rule.keys(), rule.summary())))
        .collect();
    let inline = json!({"type": "object", "additionalProperties": false, "minProperties": 1, "maxProperties": 1, "properties": rules});
    json!({"anyOf": [{"type": "string"}, inline]})
}

fn table(keys: &[Key], doc: &str) -> Value {
    let properties: Map<String, Value> = keys
        .iter()
        .map(|key| (key.name.to_owned(), property(key)))
        .collect();
    json!({"type": "object", "description": doc, "additionalProperties": false, "properties": properties})
}

fn property(key: &Key) -> Value {
    let strings = json!({"type": "array", "items": {"type": "string"}});
    let map = json!({"type": "object", "additionalProperties": {"type": "string"}});
    let mut value = match key.kind {
        Type::String => json!({"type": "string"}),
        Type::OneOf(names) => json!({"enum": names}),
        Type::Boolean => json!({"type": "boolean"}),
        Type::Integer => json!({"type": "integer"}),
        Type::Strings => strings,
        Type::Words => json!({"anyOf": [{"type": "string"}, strings]}),
        Type::Ports => json!({"type": "array", "items": {"type": ["integer", "string"]}}),
        Type::StringMap => map,
        Type::PerPlatform => json!({"anyOf": [{"type": "string"}, map]}),
        Type::Layers => json!({"type": "array", "items": {"$ref": "#/$defs/layer"}}),
        Type::Table(keys) => table(keys, key.doc),
        Type::Tables(keys) => json!({"type": "array", "items": table(keys, key.doc)}),
        Type::Named(keys) => {
            json!({"type": "object", "additionalProperties": table(keys, key.doc)})
        }
    };
    value["description"] = key.doc.into();
    value
}
