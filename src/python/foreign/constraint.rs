//! The versions that a dependency admits, in Poetry's words: PEP 440, with `^1.2`, `~1.2`, `1.*`, `1.2`, and with `||`.

use pep440_rs::{Version, VersionSpecifiers};

use crate::python::specifiers;

/// A set of versions: those that at least one of its parts has. Without a part it has none.
#[derive(Clone, Debug)]
pub(super) struct Constraint(Vec<VersionSpecifiers>);

impl Constraint {
    /// Returns the set of all versions.
    pub(super) fn any() -> Self {
        Self(vec![VersionSpecifiers::empty()])
    }

    /// Parses a set of versions; `None` if it is none.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let parts = text.split('|').map(str::trim);
        // `||` leaves an empty part between its two bars.
        let parts = parts.filter(|it| !it.is_empty()).map(part);
        let parts: Vec<VersionSpecifiers> = parts.collect::<Option<_>>()?;
        match parts.is_empty() {
            true => Some(Self::any()),
            false => Some(Self(parts)),
        }
    }

    /// Tells whether a version is one of the set.
    pub(super) fn admits(&self, version: &Version) -> bool {
        self.0.iter().any(|it| it.contains(version))
    }
}

impl From<VersionSpecifiers> for Constraint {
    fn from(specifiers: VersionSpecifiers) -> Self {
        Self(vec![specifiers])
    }
}

/// Parses what all holds together, separated by commas or white space.
fn part(text: &str) -> Option<VersionSpecifiers> {
    let is_operator = |it: char| "<>=!~^".contains(it);
    let mut all: Vec<String> = Vec::new();
    let mut rest = text.trim_start_matches([' ', '\t', ',']);
    while !rest.is_empty() {
        let end = rest.find(|it| !is_operator(it)).unwrap_or(rest.len());
        let (operator, after) = rest.split_at(end);
        let after = after.trim_start();
        let is_end = |it: char| is_operator(it) || it == ',' || it.is_whitespace();
        let end = after.find(is_end).unwrap_or(after.len());
        let (version, after) = after.split_at(end);
        if version.is_empty() {
            return None;
        }
        all.extend(specifier(operator, version)?);
        rest = after.trim_start_matches(|it: char| it == ',' || it.is_whitespace());
    }
    specifiers(&all.join(","))
}

/// Turns one operator with its version into those of PEP 440; nothing for all versions.
fn specifier(operator: &str, version: &str) -> Option<Vec<String>> {
    let release = || -> Option<Vec<u64>> {
        let parsed: Version = version.parse().ok()?;
        Some(parsed.release().to_vec())
    };
    let below = |at: usize| -> Option<Vec<String>> {
        let release = release()?;
        let mut upper: Vec<u64> = release.iter().copied().take(at + 1).collect();
        let last = upper.last_mut()?;
        *last = last.checked_add(1)?;
        let upper: Vec<String> = upper.iter().map(u64::to_string).collect();
        Some(vec![
            format!(">={version}"),
            format!("<{}", upper.join(".")),
        ])
    };
    match operator {
        "" | "=" | "==" if version == "*" => Some(Vec::new()),
        ">=" if version == "*" => Some(Vec::new()),
        "" | "=" => Some(vec![format!("=={version}")]),
        "^" => {
            let release = release()?;
            let first = release.iter().position(|it| *it != 0);
            below(first.unwrap_or(release.len().saturating_sub(1)))
        }
        "~" => below(usize::from(release()?.len() > 1)),
        "<" | "<=" | ">" | ">=" | "==" | "!=" | "~=" | "===" => {
            Some(vec![format!("{operator}{version}")])
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_which_versions_there_are() {
        for (text, yes, no) in [
            ("*", "0.1 7", ""),
            ("", "1", ""),
            ("1.2.3", "1.2.3", "1.2.4"),
            ("3.*", "3.9", "4.0 2.9"),
            ("^1.2.3", "1.2.3 1.9", "1.2.2 2.0"),
            ("^0.2.3", "0.2.9", "0.3 1.0"),
            ("^0.0.3", "0.0.3", "0.0.4"),
            ("^0", "0.9", "1.0"),
            ("^0.0", "0.0.9", "0.1"),
            ("^3.9", "3.12", "4.0"),
            ("~1.2.3", "1.2.9", "1.3"),
            ("~1.2", "1.2.9", "1.3"),
            ("~1", "1.9", "2.0"),
            ("~=1.2", "1.9", "2.0"),
            (">= 1.0 <2,!=1.5", "1.4", "1.5 2.0"),
            (">=1.5.6,<1.5.7 || >1.5.7", "1.5.6 1.6", "1.5.7"),
            ("!=3.0.*,>=2.7", "2.7 3.1", "3.0.1"),
            ("<2 | ==3", "1 3", "2"),
        ] {
            let set = Constraint::parse(text).unwrap_or_else(|| panic!("{text}"));
            for (versions, is_in) in [(yes, true), (no, false)] {
                for version in versions.split_whitespace() {
                    assert_eq!(
                        set.admits(&version.parse().unwrap()),
                        is_in,
                        "{text} {version}"
                    );
                }
            }
        }
        for text in ["x", "^", ">=", "^x", "=>1", "1 - 2"] {
            assert!(Constraint::parse(text).is_none(), "{text}");
        }
    }
}
