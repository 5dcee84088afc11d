//! The keys of tables, as data: checks, the reference, the JSON schema and suggestions all come from these.

use toml::de::DeValue;

/// One key of a table.
#[derive(Debug)]
pub struct Key {
    /// The name.
    pub name: &'static str,
    /// What it takes.
    pub kind: Type,
    /// What it is when it is not written, as TOML; empty if it must be written or is simply absent.
    pub default: &'static str,
    /// What it means, in one or two sentences.
    pub doc: &'static str,
    /// Which variables its strings may use.
    pub scope: Scope,
}

/// What a key takes.
#[derive(Clone, Copy, Debug)]
pub enum Type {
    /// A string.
    String,
    /// One of a few strings.
    OneOf(&'static [&'static str]),
    /// `true` or `false`.
    Boolean,
    /// A whole number.
    Integer,
    /// A list of strings.
    Strings,
    /// A list of strings, or one string that is split into words as a shell does.
    Words,
    /// A list of port numbers, or strings such as `"53/udp"`.
    Ports,
    /// A table from names to strings.
    StringMap,
    /// A string, or a table from platforms to strings.
    PerPlatform,
    /// A list of layers: names, or tables with one rule.
    Layers,
    /// A table with keys of its own.
    Table(&'static [Key]),
    /// A list of tables with keys of their own.
    Tables(&'static [Key]),
    /// A table from names to tables with keys of their own.
    Named(&'static [Key]),
}

/// Which variables the strings of a key may use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// `[vars]`, `--set` and the platform.
    Plain,
    /// These, and what git says: the value may differ from commit to commit.
    Stamped,
    /// The rule expands the strings itself.
    Raw,
}

impl Key {
    /// Makes a key that may be absent.
    pub const fn new(
        name: &'static str,
        kind: Type,
        default: &'static str,
        doc: &'static str,
    ) -> Self {
        Self {
            name,
            kind,
            default,
            doc,
            scope: Scope::Plain,
        }
    }

    /// Sets the scope.
    #[must_use]
    pub const fn scope(self, scope: Scope) -> Self {
        Self { scope, ..self }
    }
}

impl Type {
    /// Names the type in messages and in the reference.
    pub fn describe(&self) -> String {
        match self {
            Self::String => "string".into(),
            Self::OneOf(names) => names
                .iter()
                .map(|name| format!("\"{name}\""))
                .collect::<Vec<_>>()
                .join(" | "),
            Self::Boolean => "boolean".into(),
            Self::Integer => "integer".into(),
            Self::Strings => "list of strings".into(),
            Self::Words => "list of strings, or a string of words".into(),
            Self::Ports => "list of ports".into(),
            Self::StringMap => "table of strings".into(),
            Self::PerPlatform => "string, or table of strings by platform".into(),
            Self::Layers => "list of layers".into(),
            Self::Table(_) => "table".into(),
            Self::Tables(_) => "list of tables".into(),
            Self::Named(_) => "table of tables".into(),
        }
    }

    /// Tells whether a value has this type, not looking into nested tables.
    pub(super) fn admits(&self, value: &DeValue<'_>) -> bool {
        let all = |value: &DeValue<'_>, test: fn(&DeValue<'_>) -> bool| {
            value
                .as_array()
                .is_some_and(|list| list.iter().all(|it| test(it.get_ref())))
        };
        let strings = |value: &DeValue<'_>| {
            let map = value.as_table();
            map.is_some_and(|map| map.values().all(|it| it.get_ref().is_str()))
        };
        match self {
            Self::String => value.is_str(),
            Self::OneOf(names) => value
                .as_str()
                .is_some_and(|it| names.contains(&it) || it.contains("${")),
            Self::Boolean => value.is_bool(),
            Self::Integer => value.is_integer(),
            Self::Strings => all(value, |it| it.is_str()),
            Self::Words => value.is_str() || all(value, |it| it.is_str()),
            Self::Ports => all(value, |it| it.is_integer() || it.is_str()),
            Self::StringMap => strings(value),
            Self::PerPlatform => value.is_str() || strings(value),
            Self::Layers => all(value, |it| it.is_str() || it.is_table()),
            Self::Table(_) => value.is_table(),
            Self::Tables(_) => all(value, |it| it.is_table()),
            Self::Named(_) => value
                .as_table()
                .is_some_and(|map| map.values().all(|it| it.get_ref().is_table())),
        }
    }
}
