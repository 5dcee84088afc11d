//! Makes texts fit for a terminal: what registries, archives and files hold must not move the cursor, set titles, or turn
//! the direction of what follows. Knows nothing of what is said.

use std::borrow::Cow;

/// Returns a text with a space for everything that a terminal would obey. Lines, tabs and colours stay.
pub(super) fn safe(text: &str) -> Cow<'_, str> {
    if !text.contains(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(is_obeyed) {
        let (before, after) = rest.split_at(at);
        safe.push_str(before);
        let taken = match colour(after) {
            Some(colour) => {
                safe.push_str(colour);
                colour.len()
            }
            None => {
                safe.push(' ');
                after.chars().next().map_or(0, char::len_utf8)
            }
        };
        rest = &after[taken..];
    }
    safe.push_str(rest);
    Cow::Owned(safe)
}

/// Controls, and the characters that change the direction of writing.
pub(super) fn is_obeyed(it: char) -> bool {
    it.is_control() && !matches!(it, '\n' | '\t')
        || matches!(it, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Returns the sequence that sets a colour (ECMA-48, SGR), if the text starts with one.
fn colour(text: &str) -> Option<&str> {
    let parameters = text.strip_prefix("\u{1b}[")?;
    let end = parameters.find(|it: char| !it.is_ascii_digit() && it != ';')?;
    parameters[end..]
        .starts_with('m')
        .then(|| &text[..text.len() - parameters.len() + end + 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_obey_nothing_but_colours() {
        let error = "\u{1b}[38;5;1mred\u{1b}[0m\tà\n";
        assert_eq!(safe(error), error);
        assert!(matches!(safe("plain\n"), Cow::Borrowed(_)));
        for (text, expected) in [
            ("a\u{1b}]0;title\u{7}b", "a ]0;title b"),
            ("\u{1b}[2Jx\u{1b}[1;1H", " [2Jx [1;1H"),
            ("\u{1b}[31", " [31"),
            ("\u{9b}2J\r\u{8}\u{7f}", " 2J   "),
            ("a\u{202e}b\u{2066}", "a b "),
            ("\u{1b}\u{1b}[mé", " \u{1b}[mé"),
        ] {
            assert_eq!(safe(text), expected, "{text:?}");
        }
    }
}
