//! What may be shown: texts from outside, without what a terminal obeys, and without the credentials in use.
//!
//! Answers of hosts, names in archives, file names, what programs say: any of it may hold escape sequences, turn the
//! direction of what follows, or quote the password that it was sent. All that is printed or written for people passes
//! [`text`], [`one_line`] or [`json()`]; the top floor sees to that for every line. What shortens a text before that uses
//! [`one_line`], so that no half of a secret is left over.
//!
//! Replaced by a space: the controls of ASCII but for newline and tab, DEL, the controls U+0080 to U+009F, and what shows
//! nothing or changes the direction of writing: U+061C, U+180E, U+200B to U+200F, U+2028 to U+202E, U+2060 to U+206F,
//! U+FEFF, U+FFF9 to U+FFFB, U+E0000 to U+E007F. What credentials are struck out: see [`keep`]. Knows nothing of where
//! texts come from, nor where they go.

mod json;
mod secrets;

pub(crate) use json::{Json, write as write_json};
use secrets::Which;
pub(crate) use secrets::{keep, keep_login};

use std::borrow::Cow;

use serde_json::Value;

/// Returns a message as it may be shown: lines and tabs stay.
pub(crate) fn text(text: &str) -> Cow<'_, str> {
    cleaned(text, Which::All)
}

/// Returns data as they may be shown, for scripts as well: a secret of less than 8 bytes stays, since it may be a word of
/// what they ask for.
pub(crate) fn data(text: &str) -> Cow<'_, str> {
    cleaned(text, Which::Long)
}

fn cleaned(text: &str, which: Which) -> Cow<'_, str> {
    match secrets::strike(text, which) {
        Cow::Borrowed(text) => plain(text),
        Cow::Owned(text) => Cow::Owned(plain(&text).into_owned()),
    }
}

/// Returns a text as it may be shown, on one line, without white space around it and cut after `most` characters.
pub(crate) fn one_line(text: &str, most: usize) -> String {
    let text = secrets::strike(text, Which::All);
    let words = text.split(|it: char| it.is_whitespace() || is_obeyed(it));
    let mut line = String::new();
    for (at, char) in words
        .filter(|it| !it.is_empty())
        .flat_map(|word| [" ", word])
        .skip(1)
        .flat_map(str::chars)
        .enumerate()
    {
        if at == most {
            line.push('…');
            break;
        }
        line.push(char);
    }
    line
}

/// Returns a message as JSON on one line, as it may be shown: in its texts, credentials are struck out, and what a terminal
/// obeys is escaped.
pub(crate) fn json(value: &Value) -> String {
    escaped(struck(value.clone(), Which::All).to_string())
}

/// Returns data as JSON, indented, as [`data`] and [`json()`] do.
pub(crate) fn json_data(value: Value) -> String {
    let mut text = Vec::new();
    write_json(&mut text, &Json::Value(value)).expect("memory can be written");
    String::from_utf8(text).expect("JSON is text")
}

fn struck(value: Value, which: Which) -> Value {
    let text = |text: String| match secrets::strike(&text, which) {
        Cow::Owned(struck) => struck,
        Cow::Borrowed(_) => text,
    };
    match value {
        Value::String(it) => Value::String(text(it)),
        Value::Array(list) => list.into_iter().map(|it| struck(it, which)).collect(),
        Value::Object(map) => {
            let fields = map.into_iter();
            let fields = fields.map(|(key, value)| (text(key), struck(value, which)));
            Value::Object(fields.collect())
        }
        other => other,
    }
}

/// Escapes what a terminal obeys: in JSON, that is within strings (RFC 8259, section 7).
fn escaped(json: String) -> String {
    if !json.contains(is_obeyed) {
        return json;
    }
    let mut text = String::with_capacity(json.len());
    for char in json.chars() {
        match is_obeyed(char) {
            true => {
                let mut units = [0; 2];
                let units = char.encode_utf16(&mut units);
                units
                    .iter()
                    .for_each(|it| text.push_str(&format!("\\u{it:04x}")));
            }
            false => text.push(char),
        }
    }
    text
}

/// Replaces what a terminal obeys.
fn plain(text: &str) -> Cow<'_, str> {
    match text.contains(is_obeyed) {
        true => Cow::Owned(text.replace(is_obeyed, " ")),
        false => Cow::Borrowed(text),
    }
}

/// Tells whether a terminal obeys a character, or shows nothing for it. Newlines and tabs are what they are.
pub(crate) fn is_obeyed(it: char) -> bool {
    it.is_control() && !matches!(it, '\n' | '\t')
        || matches!(it, '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(it, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn terminals_obey_nothing() {
        assert!(matches!(text("plain\n\tà"), Cow::Borrowed(_)));
        for (from, expected) in [
            ("a\u{1b}]0;title\u{7}b", "a ]0;title b"),
            ("\u{1b}[31mred\u{1b}[0m", " [31mred [0m"),
            ("\u{9b}2J\r\u{8}\u{7f}\0", " 2J    "),
            ("a\u{202e}b\u{2066}c\u{200f}\u{feff}", "a b c  "),
        ] {
            assert_eq!(text(from), expected, "{from:?}");
        }
    }

    #[test]
    fn one_line_is_short() {
        assert_eq!(one_line(" a\r\n\tb\u{1b}[1m \u{202e}c ", 100), "a b [1m c");
        assert_eq!(one_line("abc def", 5), "abc d…");
        assert_eq!(one_line("abc d", 5), "abc d");
        assert_eq!(one_line("", 5), "");
    }

    #[test]
    fn secrets_are_struck_out_before_a_text_is_cut() {
        keep("kq7-Zr\"9vW/x+b w");
        assert_eq!(text("it is kq7-Zr\"9vW/x+b w!"), "it is ***!");
        assert_eq!(one_line("it is kq7-Zr\"9vW/x+b w!", 9), "it is ***…");
        let value = json!({"a": ["kq7-Zr\"9vW/x+b w", 1, null], "kq7-Zr\"9vW/x+b w": true});
        assert_eq!(super::json(&value), r#"{"***":true,"a":["***",1,null]}"#);
        keep("wq8Z");
        assert_eq!(
            (text("a wq8Z b"), data("a wq8Z b")),
            ("a *** b".into(), "a wq8Z b".into())
        );
    }

    #[test]
    fn json_stays_what_it_is() {
        let value = json!({"a": "\u{9b}\u{202e}\u{1b}\n\u{e0041}\u{7f}"});
        for text in [super::json(&value), json_data(value.clone())] {
            assert!(!text.contains(is_obeyed), "{text:?}");
            assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
        }
    }
}
