//! Values that several rules have: owners, modes, image paths; and the names of a struct's fields.

use std::ops::Range;

use serde::de::{self, Deserialize};
use toml::Spanned;

use crate::accounts::{has_name, is_name};
use crate::graph::{ActionError, Origin};
use crate::layer::{LayerPath, Owner};
use crate::spec::{Problem, Problems, Table};

/// Parses `UID:GID`, or `UID` alone, which is both.
pub(super) fn owner(table: &Table, value: &Spanned<String>) -> Result<Owner, Problem> {
    let text = value.get_ref();
    let (uid, gid) = text.split_once(':').unwrap_or((text, text));
    match (uid.parse(), gid.parse()) {
        // The largest id means `no change` to chown.
        (Ok(uid), Ok(gid)) if uid != u32::MAX && gid != u32::MAX => Ok(Owner { uid, gid }),
        _ => Err(table
            .problem(
                "imgdecl::value::owner",
                value.span(),
                format!("`{text}` is no owner"),
                "expected numbers, as \"1000:1000\"",
            )
            .help("names differ from image to image: write the numeric user and group id")),
    }
}

/// Whom entries belong to.
#[derive(Clone, Debug)]
pub(super) enum Belongs {
    /// Numbers.
    To(Owner),
    /// `USER` or `USER:GROUP`, of which at least one is a name that the image must know.
    Named(String, Origin),
}

impl Default for Belongs {
    fn default() -> Self {
        Self::To(Owner::default())
    }
}

/// Parses an owner that may have names, as `"app"`, `"app:www-data"` and `"1000:app"`.
pub(super) fn belongs(table: &Table, value: &Spanned<String>) -> Result<Belongs, Problem> {
    let text = value.get_ref();
    let is_part = |part: &str| is_name(part) || part.parse().is_ok_and(|it: u32| it != u32::MAX);
    if has_name(text) && text.splitn(2, ':').all(is_part) {
        return Ok(Belongs::Named(text.clone(), table.place(value.span())));
    }
    owner(table, value).map(Belongs::To).map_err(|problem| {
        problem.help("write numbers, or names of users and groups that the image has, as \"app\" or \"app:app\"")
    })
}

/// Parses permission bits in octal, as `"0755"`.
pub(super) fn mode(table: &Table, value: &Spanned<String>) -> Result<u16, Problem> {
    let text = value.get_ref();
    let digits = text.strip_prefix("0o").unwrap_or(text);
    match u16::from_str_radix(digits, 8) {
        Ok(mode) if mode <= 0o7777 && digits.bytes().all(|it| it.is_ascii_digit()) => Ok(mode),
        _ => Err(table.problem(
            "imgdecl::value::mode",
            value.span(),
            format!("`{text}` is no mode"),
            "expected octal digits, as \"0644\"",
        )),
    }
}

/// Turns an error of something that was looked at into a problem of the manifest; `origin` is where it has none.
pub(super) fn problem_of(error: &ActionError, origin: &Origin) -> Problem {
    let origin = error.origins.first().unwrap_or(origin);
    let causes = error.causes.iter().map(|cause| format!(": {cause}"));
    let message = format!("{}{}", error.message, causes.collect::<String>());
    let problem = Problem::at(error.code, origin, message, "");
    match &error.help {
        Some(help) => problem.help(help.as_str()),
        None => problem,
    }
}

/// Parses an absolute path in the image.
pub(super) fn image_path(
    table: &Table,
    text: &str,
    span: Range<usize>,
) -> Result<LayerPath, Problem> {
    let problem = |message: String, label: &str| {
        table.problem("imgdecl::value::path", span.clone(), message, label)
    };
    if !text.starts_with('/') {
        return Err(problem(
            format!("`{text}` is not an absolute path"),
            "paths in the image start with `/`",
        )
        .help(format!("write \"/{text}\"")));
    }
    LayerPath::parse(text).map_err(|error| problem(error.to_string(), "not a path in the image"))
}

/// Collects the results of values that are parsed one by one; all problems count.
#[derive(Default)]
pub(super) struct Collect(pub(super) Problems);

impl Collect {
    /// Returns the value, or its default after noting the problem.
    pub(super) fn take<T: Default>(&mut self, result: Result<T, Problem>) -> T {
        result.unwrap_or_else(|problem| {
            self.0.push(problem);
            T::default()
        })
    }

    /// Returns `value` if there was no problem.
    pub(super) fn finish<T>(self, value: T) -> Result<T, Problems> {
        if self.0.is_empty() {
            Ok(value)
        } else {
            Err(self.0)
        }
    }
}

/// Returns the names of the fields of a struct, as serde knows them.
pub(super) fn fields<T: for<'de> Deserialize<'de>>() -> &'static [&'static str] {
    struct Fields<'a>(&'a mut &'static [&'static str]);

    impl<'de> de::Deserializer<'de> for Fields<'_> {
        type Error = de::value::Error;

        fn deserialize_any<V: de::Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(de::Error::custom("only the names of the fields are wanted"))
        }

        fn deserialize_struct<V: de::Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            visitor: V,
        ) -> Result<V::Value, Self::Error> {
            *self.0 = fields;
            self.deserialize_any(visitor)
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
            newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    let mut fields: &'static [&'static str] = &[];
    let _ = T::deserialize(Fields(&mut fields));
    fields
}
