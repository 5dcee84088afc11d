//! TOML tables with their places: what pyproject.toml, pylock.toml and uv.lock are read through.

use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::place::{InputError, Place, Source};

/// A value of a TOML text, which knows where it stands.
#[derive(Clone, Copy)]
pub(super) struct Node<'a> {
    value: &'a Spanned<DeValue<'a>>,
    source: &'a Arc<Source>,
}

/// The tables at the top of a TOML text.
pub(super) struct Root<'a> {
    table: Spanned<DeTable<'a>>,
    source: &'a Arc<Source>,
}

const CODE: &str = "imgdecl::python::toml";

impl<'a> Root<'a> {
    /// Parses a text.
    pub(super) fn parse(source: &'a Arc<Source>) -> Result<Self, InputError> {
        let table = DeTable::parse(&source.text).map_err(|error| {
            let place = Place::new(source, error.span().unwrap_or(0..0));
            place.error(
                CODE,
                error.message().to_owned(),
                "mend the TOML at this place",
            )
        })?;
        Ok(Self { table, source })
    }

    /// Returns the value of a key.
    pub(super) fn get(&'a self, key: &str) -> Option<Node<'a>> {
        let value = self.table.get_ref().get(key)?;
        let source = self.source;
        Some(Node { value, source })
    }

    /// Returns the beginning of the text.
    pub(super) fn place(&self) -> Place {
        Place::new(self.source, 0..0)
    }
}

impl<'a> Node<'a> {
    /// Returns the value of a key, if this is a table that has it.
    pub(super) fn get(&self, key: &str) -> Option<Self> {
        let value = self.value.get_ref().as_table()?.get(key)?;
        let source = self.source;
        Some(Self { value, source })
    }

    /// Returns the value of a key as a text, if there is one.
    pub(super) fn text_of(&self, key: &str) -> Result<Option<&'a str>, InputError> {
        self.get(key).map(|it| it.text()).transpose()
    }

    /// Returns the value of a key as a text.
    pub(super) fn needed(&self, key: &str) -> Result<&'a str, InputError> {
        match self.text_of(key)? {
            Some(text) => Ok(text),
            None => Err(self.error(
                format!("`{key}` is missing"),
                "write the file again with the tool that made it",
            )),
        }
    }

    /// Returns the keys of a table with their values.
    pub(super) fn entries(&self) -> Result<Vec<(&'a str, Self)>, InputError> {
        let source = self.source;
        match self.value.get_ref().as_table() {
            Some(table) => Ok(table
                .iter()
                .map(|(key, value)| (&**key.get_ref(), Self { value, source }))
                .collect()),
            None => Err(self.wrong("a table")),
        }
    }

    /// Returns the keys of a table with their values, in the order of the text.
    pub(super) fn ordered(&self) -> Result<Vec<(&'a str, Self)>, InputError> {
        let mut entries = self.entries()?;
        entries.sort_by_key(|(_, it)| it.value.span().start);
        Ok(entries)
    }

    /// Returns the values of an array.
    pub(super) fn list(&self) -> Result<Vec<Self>, InputError> {
        let source = self.source;
        match self.value.get_ref().as_array() {
            Some(array) => Ok(array.iter().map(|value| Self { value, source }).collect()),
            None => Err(self.wrong("an array")),
        }
    }

    /// Returns the values of the array at a key; none if there is no such key.
    pub(super) fn list_of(&self, key: &str) -> Result<Vec<Self>, InputError> {
        self.get(key).map_or(Ok(Vec::new()), |it| it.list())
    }

    /// Returns a text.
    pub(super) fn text(&self) -> Result<&'a str, InputError> {
        let text = self.value.get_ref().as_str();
        text.ok_or_else(|| self.wrong("a string"))
    }

    /// Returns a number, if it is one.
    pub(super) fn number(&self) -> Option<u64> {
        let number = self.value.get_ref().as_integer()?;
        u64::from_str_radix(number.as_str(), number.radix()).ok()
    }

    /// Tells whether it is a text.
    pub(super) fn is_text(&self) -> bool {
        self.value.get_ref().is_str()
    }

    /// Tells whether it is `true`.
    pub(super) fn is_true(&self) -> bool {
        self.value.get_ref().as_bool() == Some(true)
    }

    /// Returns where it stands.
    pub(super) fn place(&self) -> Place {
        Place::new(self.source, self.value.span())
    }

    /// Makes an error at this value.
    pub(super) fn error(&self, message: impl Into<String>, help: impl Into<String>) -> InputError {
        self.place().error(CODE, message, help)
    }

    fn wrong(&self, expected: &str) -> InputError {
        let found = self.value.get_ref().type_str();
        self.error(
            format!("this must be {expected}, and is a value of type {found}"),
            format!("write {expected} here"),
        )
    }
}
