//! Commands: lists of words, or strings that are split into words as a shell splits them.

use std::fmt;

use serde::Deserialize;

/// A command in words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Words(pub Vec<String>);

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Words;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of strings, or a string of words")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Words, E> {
                let words = shlex::split(text);
                words.map(Words).ok_or_else(|| E::custom(UNCLOSED))
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                mut list: A,
            ) -> Result<Words, A::Error> {
                let mut words = Vec::new();
                while let Some(word) = list.next_element()? {
                    words.push(word);
                }
                Ok(Words(words))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

/// What is wrong where a string cannot be split.
const UNCLOSED: &str = "a quote is not closed, or nothing follows a `\\`";

/// Says what keeps a string from being a command in words, and how to mend it: it needs a shell, or cannot be split.
/// Variables of ours are none of a shell.
pub(super) fn wrong(text: &str) -> Option<(String, String)> {
    if shlex::split(text).is_none() {
        let help = "close it, or write the words as a list: [\"sh\", \"-c\", \"…\"]";
        return Some((UNCLOSED.to_owned(), help.to_owned()));
    }
    let found = of_a_shell(text)?;
    let message = format!("`{found}` is for a shell, and none runs this");
    let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
    let help = format!(
        "write the shell, too: [\"sh\", \"-c\", \"{quoted}\"]; in quotes, it is a plain character"
    );
    Some((message, help))
}

/// Returns the first character outside of quotes that only a shell would obey.
fn of_a_shell(text: &str) -> Option<char> {
    let mut quote = None;
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let is_ours = rest.starts_with("${") || rest.starts_with("$${");
        rest = match is_ours {
            true => rest.split_once('}').map_or("", |(_, after)| after),
            false => &rest[next.len_utf8()..],
        };
        match (quote, next) {
            _ if is_ours => {}
            (Some('\''), '\'') | (Some('"'), '"') => quote = None,
            (Some('\''), _) => {}
            (_, '\\') => {
                rest = rest
                    .get(rest.chars().next().map_or(0, char::len_utf8)..)
                    .unwrap_or_default()
            }
            (None, '\'' | '"') => quote = Some(next),
            (None, '|' | '&' | ';' | '<' | '>' | '(' | ')' | '*' | '\n') | (_, '$' | '`') => {
                return Some(next);
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_is_split_as_a_shell_splits() {
        for (text, expected) in [
            (
                "gunicorn -b 0.0.0.0:8099 wsgi:app",
                &["gunicorn", "-b", "0.0.0.0:8099", "wsgi:app"][..],
            ),
            ("  a   b ", &["a", "b"]),
            ("a 'b c' \"d 'e'\" f\\ g", &["a", "b c", "d 'e'", "f g"]),
            (
                "sh -c 'a && b | c > d; echo $HOME'",
                &["sh", "-c", "a && b | c > d; echo $HOME"],
            ),
            (
                "python -c \"print(1); print('*')\"",
                &["python", "-c", "print(1); print('*')"],
            ),
            (
                "serve --tag=${tag} $${HOME}",
                &["serve", "--tag=${tag}", "$${HOME}"],
            ),
        ] {
            assert_eq!(wrong(text), None, "{text}");
            assert_eq!(shlex::split(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_a_shell_would_obey_is_refused() {
        for (text, found) in [
            ("a && b", "`&`"),
            ("a > b", "`>`"),
            ("a | b", "`|`"),
            ("echo $HOME", "`$`"),
            ("echo \"$HOME\"", "`$`"),
            ("echo `date`", "```"),
            ("ls *.py", "`*`"),
            ("a; b", "`;`"),
        ] {
            assert!(wrong(text).unwrap().0.starts_with(found), "{text}");
        }
        for text in ["a 'b", "a \"b", "a \\"] {
            assert_eq!(wrong(text).unwrap().0, UNCLOSED, "{text}");
        }
    }
}
