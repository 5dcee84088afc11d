//! entry_points.txt: which scripts a wheel wants (PyPA specifications, "Entry points"). Groups that are no scripts are not
//! looked at.

use std::collections::BTreeMap;

use super::Problem;

/// What a script calls.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Callee {
    /// The module to import.
    pub(super) module: String,
    /// The path to what is called, from the module.
    pub(super) attribute: String,
}

/// Reads the scripts of an entry_points.txt, console and graphical ones: the name of each, and what it calls.
///
/// # Errors
/// When the text is not UTF-8 or a script's line is malformed.
pub(super) fn scripts(bytes: &[u8]) -> Result<BTreeMap<String, Callee>, Problem> {
    let text = std::str::from_utf8(bytes).map_err(|error| Problem::EntryPoints {
        line: 1 + bytes[..error.valid_up_to()]
            .iter()
            .filter(|it| **it == b'\n')
            .count(),
        reason: "it is not UTF-8".to_owned(),
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut scripts: BTreeMap<String, Callee> = BTreeMap::new();
    for option in options(text)? {
        let fail = |reason: String| Problem::EntryPoints {
            line: option.line,
            reason,
        };
        let Some((name, value)) = option.text.split_once('=') else {
            return Err(fail(format!("`{}` has no `=`", option.text)));
        };
        let (name, value) = (name.trim(), value.trim());
        if !is_file_name(name) {
            return Err(fail(format!("`{name}` cannot be the name of a script")));
        }
        let callee = callee(value).map_err(|reason| fail(format!("`{name}`: {reason}")))?;
        match scripts.get(name) {
            Some(other) if *other != callee => {
                return Err(fail(format!(
                    "`{name}` is there twice, and calls two things"
                )));
            }
            _ => scripts.insert(name.to_owned(), callee),
        };
    }
    Ok(scripts)
}

/// An option of a section of scripts, with its continuations.
struct Setting {
    line: usize,
    text: String,
}

/// Reads the options of the sections of scripts, as Python's `configparser` does.
fn options(text: &str) -> Result<Vec<Setting>, Problem> {
    let mut options: Vec<Setting> = Vec::new();
    /// Where we are.
    #[derive(PartialEq)]
    enum Section {
        None,
        Scripts,
        Other,
    }
    let mut section = Section::None;
    // The indent of the option that an indented line would go on with.
    let mut open: Option<usize> = None;
    for (index, line) in text.lines().enumerate() {
        let fail = |reason: &str| Problem::EntryPoints {
            line: index + 1,
            reason: reason.to_owned(),
        };
        let content = line.trim();
        if content.starts_with(['#', ';']) {
            continue;
        }
        if content.is_empty() {
            continue;
        }
        let indent = line.len() - line.trim_start().len();
        if open.is_some_and(|open| indent > open) {
            if let (Section::Scripts, Some(last)) = (&section, options.last_mut()) {
                last.text.push('\n');
                last.text.push_str(content);
            }
            continue;
        }
        if let Some(rest) = content.strip_prefix('[') {
            let name = rest
                .strip_suffix(']')
                .ok_or_else(|| fail("a section's name does not end with `]`"))?;
            section = match name.trim() {
                "console_scripts" | "gui_scripts" => Section::Scripts,
                _ => Section::Other,
            };
            open = None;
            continue;
        }
        match section {
            Section::None => return Err(fail("it stands before any section")),
            Section::Scripts => options.push(Setting {
                line: index + 1,
                text: content.to_owned(),
            }),
            Section::Other => {}
        }
        open = Some(indent);
    }
    Ok(options)
}

/// Tells whether a script can have this name.
fn is_file_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..")
        && name.len() <= 255
        && !name.starts_with(".wh.")
        && !name
            .chars()
            .any(|it| matches!(it, '/' | '\\') || it.is_control())
}

/// Parses `module:attribute`, with extras, which are of no concern here.
fn callee(value: &str) -> Result<Callee, String> {
    let (object, extras) = match value.split_once('[') {
        Some((object, extras)) => (object.trim(), Some(extras)),
        None => (value, None),
    };
    if extras.is_some_and(|extras| !extras.ends_with(']')) {
        return Err(format!("`{value}` has extras that do not end with `]`"));
    }
    let Some((module, attribute)) = object.split_once(':') else {
        return Err(format!(
            "`{value}` does not say what to call: `module:function`"
        ));
    };
    let (module, attribute) = (module.trim(), attribute.trim());
    for (what, text) in [("module", module), ("attribute", attribute)] {
        if !text.split('.').all(is_identifier) {
            return Err(format!("`{text}` is no {what} of Python"));
        }
    }
    Ok(Callee {
        module: module.to_owned(),
        attribute: attribute.to_owned(),
    })
}

/// Tells whether a text can be a name in Python, and is nothing else.
fn is_identifier(text: &str) -> bool {
    let mut chars = text.chars();
    chars
        .next()
        .is_some_and(|first| first.is_alphabetic() || first == '_')
        && chars.all(|it| it.is_alphanumeric() || it == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> BTreeMap<String, String> {
        let found = scripts(text.as_bytes()).unwrap();
        let show = |(name, it): (String, Callee)| (name, format!("{}:{}", it.module, it.attribute));
        found.into_iter().map(show).collect()
    }

    #[track_caller]
    fn fails(text: &str) -> (usize, String) {
        match scripts(text.as_bytes()) {
            Err(Problem::EntryPoints { line, reason }) => (line, reason),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn reads_what_wheels_have() {
        let text = "\u{feff}# a comment\n[console_scripts]\nFlask=flask.cli:main\n; another\nblackd = blackd:patched_main [d]\r\nx.y-1 = a.b : C.d\nlate =\n    m:f\n\n[other]\nany thing\nx = [\n[gui_scripts]\n  gui = m:g\n  gui2 = m:h\n";
        let expected = [
            ("Flask", "flask.cli:main"),
            ("blackd", "blackd:patched_main"),
            ("gui", "m:g"),
            ("gui2", "m:h"),
            ("late", "m:f"),
            ("x.y-1", "a.b:C.d"),
        ];
        let expected = expected.map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(read(text), BTreeMap::from(expected));
        assert!(read("").is_empty());
    }

    #[test]
    fn refuses_what_could_be_anything() {
        let one = |line: &str| fails(&format!("[console_scripts]\n{line}\n")).1;
        assert!(one("a").contains("no `=`"));
        assert!(one("a/b = m:f").contains("name of a script"));
        assert!(one(".. = m:f").contains("name of a script"));
        assert!(one("= m:f").contains("name of a script"));
        assert!(one("a = m").contains("what to call"));
        assert!(one("a = m:f()").contains("no attribute"));
        assert!(one("a = m;import os:f").contains("no module"));
        assert!(one("a = m:f [x").contains("extras"));
        assert!(one("a = m:f\n  g").contains("no attribute"));
        assert!(one("a = 1m:f").contains("no module"));
        assert!(one("a = m:f\na = m:g").contains("twice"));
        assert_eq!(fails("a = m:f\n").0, 1);
        assert_eq!(fails("[console_scripts\n").0, 1);
        assert_eq!(fails("[console_scripts]\n\na = m\n").0, 3);
        assert!(scripts(b"[console_scripts]\n\xff = m:f\n").is_err());
    }
}
