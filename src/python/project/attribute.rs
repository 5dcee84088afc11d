//! Values that stand as plain text in Python files: `__version__ = "1.0"`. Nothing is run.

/// Returns the text that a name is given first at the top of a Python file. `None` where it is given none, or something else
/// than a plain string.
pub(super) fn assigned(text: &str, name: &str) -> Option<String> {
    let mut within: Option<&str> = None;
    for line in text.lines() {
        // Lines within a long string are no code.
        if let Some(quote) = within {
            within = Some(quote).filter(|_| line.matches(quote).count() % 2 == 0);
            continue;
        }
        let mark = ["\"\"\"", "'''"].into_iter().filter_map(|it| {
            let at = line.find(it)?;
            let before = &line[..at];
            (!before.contains('#')).then_some((at, it))
        });
        if let Some((_, quote)) = mark.min() {
            if line.matches(quote).count() % 2 == 1 {
                within = Some(quote);
            }
            continue;
        }
        let Some(rest) = line.strip_prefix(name) else {
            continue;
        };
        let rest = rest.trim_start();
        let value = match (rest.strip_prefix('='), rest.strip_prefix(':')) {
            (Some(value), _) if !value.starts_with('=') => value,
            (_, Some(typed)) => match typed.split_once('=') {
                Some((_, value)) => value,
                None => continue,
            },
            _ => continue,
        };
        return plain(value.trim());
    }
    None
}

/// Returns the version in a text, as hatchling looks for it: `__version__ = "1.0"` or `VERSION = "1.0"`.
pub(super) fn by_pattern(text: &str) -> Option<String> {
    for line in text.lines() {
        let lower = line.to_ascii_lowercase();
        let mut names = ["__version__", "version"].into_iter();
        let Some(name) = names.find(|it| lower.starts_with(it)) else {
            continue;
        };
        let rest = line[name.len()..].trim_start_matches(' ');
        let Some(rest) = rest.strip_prefix('=') else {
            continue;
        };
        let rest = rest.trim_start_matches(' ');
        let Some(quote) = rest.chars().next().filter(|it| matches!(it, '"' | '\'')) else {
            continue;
        };
        let value = &rest[1..];
        let value = match value.strip_prefix(['v', 'V']) {
            Some(short) if short.find(quote).is_some_and(|it| it > 0) => short,
            _ => value,
        };
        if let Some(end) = value.find(quote).filter(|it| *it > 0) {
            return Some(value[..end].to_owned());
        }
    }
    None
}

/// Returns the value of a plain string with nothing but a comment behind it.
fn plain(text: &str) -> Option<String> {
    let quote = text.chars().next().filter(|it| matches!(it, '"' | '\''))?;
    let end = text[1..].find(quote)? + 1;
    let value = &text[1..end];
    let rest = text[end + 1..].trim();
    let is_all = rest.is_empty() || rest.starts_with('#');
    (is_all && !value.contains('\\')).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_strings_only() {
        for (text, value) in [
            ("__version__ = '1.0'", Some("1.0")),
            (
                "\"\"\"x\n__version__ = '2'\n\"\"\"\n__version__: str = \"1\"  # it\n",
                Some("1"),
            ),
            ("'''x'''\n__version__='1'", Some("1")),
            ("__version__ = '1'\n__version__ = f()", Some("1")),
            ("__version__ = f()\n__version__ = '1'", None),
            ("__version__ = '.'.join(x)", None),
            ("  __version__ = '1'", None),
            ("__version__ == '1'", None),
            ("__version_info__ = '1'", None),
        ] {
            assert_eq!(assigned(text, "__version__").as_deref(), value, "{text}");
        }
    }
}
