//! Patterns as Python's `fnmatch`, `glob` and `pathlib` have them.

use super::{Ground, Kind, Listed, joined};
use crate::python::place::InputError;

/// How a pattern is taken.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// `glob.glob`: `*` passes over hidden names, `**` is `*`.
    Flat,
    /// `glob.glob` with `recursive`: `**` crosses folders, and passes over hidden ones.
    Recursive,
    /// `pathlib`: `*` takes hidden names, `**` crosses folders.
    Path,
}

/// Tells whether a name is that of a pattern: `*`, `?` and `[…]`, as `fnmatch` has them; `*` crosses `/`.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), name.chars().collect());
    let (mut at, mut to) = (0, 0);
    // Where the last `*` stands, and how far it reaches.
    let mut star: Option<(usize, usize)> = None;
    while to < name.len() {
        let step = match pattern.get(at) {
            Some('*') => {
                star = Some((at, to));
                at += 1;
                continue;
            }
            Some('?') => Some(at + 1),
            Some('[') => match class(&pattern, at, name[to]) {
                Some((true, end)) => Some(end),
                Some((false, _)) => None,
                None => (name[to] == '[').then_some(at + 1),
            },
            Some(char) => (*char == name[to]).then_some(at + 1),
            None => None,
        };
        match (step, star) {
            (Some(next), _) => (at, to) = (next, to + 1),
            (None, Some((from, reach))) => {
                star = Some((from, reach + 1));
                (at, to) = (from + 1, reach + 1);
            }
            (None, None) => return false,
        }
    }
    pattern[at..].iter().all(|it| *it == '*')
}

/// Tells whether a character is in the class that begins at a place, and where the class ends. `None` if it never ends.
fn class(pattern: &[char], at: usize, char: char) -> Option<(bool, usize)> {
    let mut from = at + 1;
    let negated = pattern.get(from) == Some(&'!');
    from += usize::from(negated);
    let first = from + usize::from(pattern.get(from) == Some(&']'));
    let end = first + pattern.get(first..)?.iter().position(|it| *it == ']')?;
    let set = &pattern[from..end];
    let (mut found, mut index) = (false, 0);
    while index < set.len() {
        match set.get(index..index + 3) {
            Some([low, '-', high]) => {
                found |= (*low..=*high).contains(&char);
                index += 3;
            }
            _ => {
                found |= set[index] == char;
                index += 1;
            }
        }
    }
    Some((found != negated, end + 1))
}

/// Tells whether a text has a sign of a pattern.
pub(super) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// Returns what a pattern finds below a folder: paths from the project's folder, sorted.
pub(super) fn find(
    ground: &Ground<'_>,
    below: &str,
    pattern: &str,
    style: Style,
) -> Result<Vec<(String, Kind)>, InputError> {
    let parts: Vec<&str> = pattern
        .split('/')
        .filter(|it| !it.is_empty() && *it != ".")
        .collect();
    if parts.contains(&"..") || pattern.starts_with('/') {
        return Err(ground.fail(format!("the pattern `{pattern}` leads out of its folder")));
    }
    let mut found = Vec::new();
    descend(ground, below, &parts, style, &mut found)?;
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found.dedup();
    Ok(found)
}

fn descend(
    ground: &Ground<'_>,
    folder: &str,
    parts: &[&str],
    style: Style,
    found: &mut Vec<(String, Kind)>,
) -> Result<(), InputError> {
    let Some((first, rest)) = parts.split_first() else {
        return Ok(());
    };
    let is_hidden = |name: &str| name.starts_with('.') && style != Style::Path;
    if *first == "**" && style != Style::Flat {
        if !rest.is_empty() {
            descend(ground, folder, rest, style, found)?;
        }
        for Listed { name, kind } in ground.list(folder)? {
            if is_hidden(&name) {
                continue;
            }
            let path = joined(folder, &name);
            if rest.is_empty() {
                found.push((path.clone(), kind));
            }
            if kind == Kind::Folder {
                descend(ground, &path, parts, style, found)?;
            }
        }
        return Ok(());
    }
    for Listed { name, kind } in ground.list(folder)? {
        let fits = match is_pattern(first) {
            true => matches(first, &name) && (!is_hidden(&name) || first.starts_with('.')),
            false => *first == name,
        };
        if !fits {
            continue;
        }
        let path = joined(folder, &name);
        match rest.is_empty() {
            true => found.push((path, kind)),
            false if kind != Kind::Folder && kind != Kind::Link => {}
            false => descend(ground, &path, rest, style, found)?,
        }
    }
    Ok(())
}

/// Returns the files that patterns find in the project, each pattern's sorted.
pub(super) fn files(
    ground: &Ground<'_>,
    patterns: &[&str],
    style: Style,
) -> Result<Vec<String>, InputError> {
    let mut files: Vec<String> = Vec::new();
    for pattern in patterns {
        for (path, kind) in find(ground, "", pattern, style)? {
            if matches!(kind, Kind::File(_)) && !files.contains(&path) {
                files.push(path);
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_patterns() {
        for (pattern, name, fits) in [
            ("*", "", true),
            ("*.py", "a.py", true),
            ("*.py", "a.pyc", false),
            ("LICEN[CS]E*", "LICENSE.txt", true),
            ("LICEN[CS]E*", "LICENZE", false),
            ("[!a]?", "bc", true),
            ("[!a]?", "ac", false),
            ("[._]*", "_x", true),
            ("a*b*c", "a-b-b-c", true),
            ("[a-c]", "b", true),
            ("[]]", "]", true),
            ("[a", "[a", true),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }
}
