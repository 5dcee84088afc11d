//! Data as JSON for scripts, written piece by piece: a list of all files of an image would take much memory at once.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::ser::{SerializeMap as _, SerializeSeq as _};
use serde::{Serialize, Serializer};
use serde_json::Value;
use serde_json::ser::{Formatter, PrettyFormatter};

use super::is_obeyed;
use super::secrets::{Which, strike};

/// Hands out the values of a list, one by one.
type Each<'a> = Box<dyn Fn(&mut dyn FnMut(Value)) + 'a>;

/// A document, whose long lists are made while they are written.
pub(crate) enum Json<'a> {
    /// A value that is there as a whole.
    Value(Value),
    /// Fields, in the order of their names.
    Object(BTreeMap<String, Json<'a>>),
    /// A list of documents.
    Array(Vec<Json<'a>>),
    /// A list that is made while it is written.
    List(Each<'a>),
}

impl<'a> Json<'a> {
    /// Makes a document of the fields of an object, and of more fields.
    pub(crate) fn object(
        fields: serde_json::Map<String, Value>,
        more: impl IntoIterator<Item = (&'static str, Json<'a>)>,
    ) -> Self {
        let fields = fields.into_iter().map(|(key, it)| (key, Json::Value(it)));
        let more = more.into_iter().map(|(key, it)| (key.to_owned(), it));
        Self::Object(fields.chain(more).collect())
    }
}

/// Writes a document as it may be shown: indented, in its texts credentials of 8 bytes and more are struck out, and what a
/// terminal obeys is escaped.
///
/// # Errors
/// When `out` cannot be written.
pub(crate) fn write(out: &mut dyn Write, document: &Json<'_>) -> io::Result<()> {
    let form = Careful(PrettyFormatter::new());
    let mut serializer = serde_json::Serializer::with_formatter(&mut *out, form);
    document.serialize(&mut serializer)?;
    out.write_all(b"\n")
}

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Value(value) => Struck(value).serialize(serializer),
            Self::Object(fields) => {
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                for (key, value) in fields {
                    map.serialize_entry(&strike(key, Which::Long), value)?;
                }
                map.end()
            }
            Self::Array(list) => serializer.collect_seq(list),
            Self::List(each) => {
                let mut list = serializer.serialize_seq(None)?;
                let mut written = Ok(());
                each(&mut |value| {
                    if written.is_ok() {
                        written = list.serialize_element(&Struck(&value));
                    }
                });
                written?;
                list.end()
            }
        }
    }
}

/// A value without the credentials in its texts.
struct Struck<'a>(&'a Value);

impl Serialize for Struck<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::String(text) => serializer.serialize_str(&strike(text, Which::Long)),
            Value::Array(list) => serializer.collect_seq(list.iter().map(Struck)),
            Value::Object(fields) => {
                let key = |key| strike(key, Which::Long);
                let fields = fields.iter();
                serializer.collect_map(fields.map(|(name, it)| (key(name), Struck(it))))
            }
            other => other.serialize(serializer),
        }
    }
}

/// Writes JSON indented, and escapes what a terminal obeys: that is within strings (RFC 8259, section 7).
struct Careful(PrettyFormatter<'static>);

impl Formatter for Careful {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        out: &mut W,
        text: &str,
    ) -> io::Result<()> {
        let mut rest = text;
        while let Some(at) = rest.find(is_obeyed) {
            let (plain, odd) = rest.split_at(at);
            out.write_all(plain.as_bytes())?;
            let mut chars = odd.chars();
            let mut units = [0; 2];
            let units = chars.next().map(|it| it.encode_utf16(&mut units));
            for unit in units.into_iter().flatten() {
                write!(out, "\\u{unit:04x}")?;
            }
            rest = chars.as_str();
        }
        out.write_all(rest.as_bytes())
    }

    fn begin_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_array(out)
    }

    fn end_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_array(out)
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_array_value(out, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_array_value(out)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_object(out)
    }

    fn end_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_object(out)
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(out, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_object_value(out)
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_object_value(out)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pieces_are_written_as_a_whole_is() {
        let odd = "a\u{9b}\u{1b}\"\u{e0041}b\n";
        let list = || {
            Json::List(Box::new(|take| {
                (0..3).for_each(|it| take(json!([it, odd])))
            }))
        };
        let fields = json!({"z": 1, odd: [], "b": {}, "d": null});
        let Value::Object(fields) = fields else {
            panic!("it is an object");
        };
        let none = Json::List(Box::new(|_| {}));
        let more = [("c", list()), ("a", Json::Array(vec![none, list()]))];
        let document = Json::object(fields, more);
        let mut text = Vec::new();
        write(&mut text, &document).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(!text.contains(is_obeyed), "{text:?}");
        let three = json!([[0, odd], [1, odd], [2, odd]]);
        let whole = json!({"z": 1, odd: [], "b": {}, "d": null, "c": three, "a": [[], three]});
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), whole);
        assert_eq!(super::super::json_data(whole), text);
    }

    #[test]
    fn a_writer_that_fails_ends_it() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::Error::other("full"))
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let list = Json::List(Box::new(|take| take(json!(1))));
        assert!(write(&mut Full, &list).is_err());
    }
}
