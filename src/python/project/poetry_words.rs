//! Poetry's words for versions, and requirements as poetry-core writes them (`poetry/core/constraints`,
//! `packages/dependency.py`).

use pep440_rs::Version;

use super::requirement::{Item, Parts, written};

/// Returns a constraint as poetry-core writes it, without a space; empty for `*`. `None` if it is not known how.
pub(super) fn constraint(text: &str) -> Option<String> {
    let text = text.trim();
    if text.is_empty() || text == "*" {
        return Some(String::new());
    }
    if text.contains('|') {
        return None;
    }
    let mut words: Vec<String> = Vec::new();
    for word in text.split([',', ' ']).filter(|it| !it.is_empty()) {
        match words.last_mut() {
            // An operator may stand apart.
            Some(last) if last.chars().all(|it| "<>=!~^".contains(it)) => last.push_str(word),
            _ => words.push(word.to_owned()),
        }
    }
    let (mut low, mut high, mut not, mut same) = (None, None, None, None);
    let once = |slot: &mut Option<String>, value: String| slot.replace(value).is_none();
    for word in words {
        let end = word.find(|it| !"<>=!~^".contains(it))?;
        let (operator, version) = word.split_at(end);
        let is_new = match operator {
            "^" | "~" | "~=" => {
                let above = above(operator, version)?;
                once(&mut low, format!(">={version}")) && once(&mut high, format!("<{above}"))
            }
            ">" | ">=" => once(&mut low, format!("{operator}{}", plain(version)?)),
            "<" | "<=" => once(&mut high, format!("{operator}{}", plain(version)?)),
            "!=" => once(&mut not, format!("!={}", or_star(version)?)),
            "" | "==" | "=" => once(&mut same, format!("=={}", or_star(version)?)),
            _ => return None,
        };
        if !is_new {
            return None;
        }
    }
    if same.is_some() && (low.is_some() || high.is_some() || not.is_some()) {
        return None;
    }
    let all: Vec<String> = [low, not, high, same].into_iter().flatten().collect();
    Some(all.join(","))
}

/// Returns a version that is written as it is normalised.
fn plain(version: &str) -> Option<&str> {
    let parsed: Version = version.parse().ok()?;
    (parsed.to_string() == version).then_some(version)
}

/// Returns such a version, or one that ends in `.*`.
fn or_star(version: &str) -> Option<&str> {
    let start = version.strip_suffix(".*").unwrap_or(version);
    plain(start).map(|_| version)
}

/// Returns the first version that is too new.
fn above(operator: &str, version: &str) -> Option<String> {
    let parsed: Version = plain(version)?.parse().ok()?;
    let mut parts: Vec<u64> = parsed.release().to_vec();
    let last = parts.len() - 1;
    let at = match operator {
        "^" => parts.iter().position(|it| *it > 0).unwrap_or(last),
        "~" => last.min(1),
        _ => last.checked_sub(1)?,
    };
    *parts.get_mut(at)? += 1;
    parts[at + 1..].fill(0);
    let parts: Vec<String> = parts.iter().map(u64::to_string).collect();
    Some(parts.join("."))
}

/// Returns a requirement as poetry-core writes it.
pub(super) fn requirement(
    name: &str,
    extras: &[String],
    versions: &str,
    marker: &[Item],
    in_extras: &[String],
) -> Option<String> {
    let mut out = name.to_owned();
    if !extras.is_empty() {
        let mut extras = extras.to_vec();
        extras.sort();
        out += &format!("[{}]", extras.join(","));
    }
    let versions = constraint(versions)?;
    if !versions.is_empty() {
        out += &format!(" ({versions})");
    }
    let marker = match marker {
        [] => None,
        marker if is_plain(marker) => Some(written(marker)),
        _ => return None,
    };
    let extra = in_extras.iter().map(|it| format!("extra == \"{it}\""));
    let extra = extra.collect::<Vec<_>>().join(" or ");
    let extra = Some(extra).filter(|it| !it.is_empty());
    match (marker, extra) {
        (None, None) => {}
        (Some(one), None) | (None, Some(one)) => out += &format!(" ; {one}"),
        (Some(marker), Some(extra)) => out += &format!(" ; ({marker}) and ({extra})"),
    }
    Some(out)
}

/// Returns a requirement of PEP 508 as poetry-core writes it.
pub(super) fn of_pep508(text: &str, in_extras: &[String]) -> Option<String> {
    let parts = Parts::parse(text)?;
    if parts.url.is_some() {
        return None;
    }
    let versions = parts.versions.join(",");
    requirement(
        &parts.name,
        &parts.extras,
        &versions,
        &parts.marker,
        in_extras,
    )
}

/// Tells whether a marker stays as it is: what has one variable in two places, or brackets, may be written otherwise.
fn is_plain(marker: &[Item]) -> bool {
    let mut names: Vec<&str> = Vec::new();
    let mut joins: Vec<&str> = Vec::new();
    for item in marker {
        match item {
            Item::Group(_) => return false,
            Item::Join(word) => joins.push(word),
            Item::Compare(left, _, right) => {
                names.push(if left.starts_with('"') { right } else { left });
            }
        }
    }
    let count = names.len();
    let versions = ["python_version", "python_full_version"];
    let is_range =
        count == 2 && joins == ["and"] && names[0] == names[1] && names[0] == versions[0];
    let python = names.iter().filter(|it| versions.contains(*it)).count();
    names.sort_unstable();
    names.dedup();
    joins.sort_unstable();
    joins.dedup();
    is_range && is_rising(marker) || joins.len() < 2 && names.len() == count && python < 2
}

/// Tells whether two comparisons are a lower bound and a higher one above it.
fn is_rising(marker: &[Item]) -> bool {
    let [Item::Compare(_, low, from), _, Item::Compare(_, high, to)] = marker else {
        return false;
    };
    let version = |text: &str| text.trim_matches('"').parse::<Version>().ok();
    let bounds = version(from).zip(version(to));
    matches!(low.as_str(), ">" | ">=")
        && matches!(high.as_str(), "<" | "<=")
        && bounds.is_some_and(|(from, to)| from < to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_versions() {
        for (text, written) in [
            ("^1.2.3", ">=1.2.3,<2.0.0"),
            ("^1.2", ">=1.2,<2.0"),
            ("^0.2.3", ">=0.2.3,<0.3.0"),
            ("^0.0.3", ">=0.0.3,<0.0.4"),
            ("^0.0", ">=0.0,<0.1"),
            ("^0", ">=0,<1"),
            ("^1.2.3.4", ">=1.2.3.4,<2.0.0.0"),
            ("^1.0a1", ">=1.0a1,<2.0"),
            ("~1.2.3", ">=1.2.3,<1.3.0"),
            ("~1", ">=1,<2"),
            ("~=1.4", ">=1.4,<2.0"),
            ("~=1.4.2", ">=1.4.2,<1.5.0"),
            ("1.2", "==1.2"),
            ("1.2.*", "==1.2.*"),
            ("*", ""),
            (">=1.2 <3", ">=1.2,<3"),
            (">1 ,<= 2", ">1,<=2"),
            ("<2.0,>=1.0,!=1.5", ">=1.0,!=1.5,<2.0"),
        ] {
            assert_eq!(constraint(text).as_deref(), Some(written), "{text}");
        }
        for text in ["^2.0 || ^3.0", ">=1,>=2", "===1.0", "1.0,<2", "x"] {
            assert_eq!(constraint(text), None, "{text}");
        }
    }

    #[test]
    fn requirements() {
        for (text, written) in [
            ("A_b[z,y]>=1", Some("A_b[y,z] (>=1)")),
            (
                "a>=1;python_version<'3.8'",
                Some("a (>=1) ; python_version < \"3.8\""),
            ),
            (
                "a; python_version >= '3.7' and python_version < '4.0'",
                Some("a ; python_version >= \"3.7\" and python_version < \"4.0\""),
            ),
            ("a; os_name=='x' and os_name=='x'", None),
            (
                "a; os_name=='x' and (sys_platform=='y' or extra=='z')",
                None,
            ),
            ("a @ https://x/y", None),
        ] {
            assert_eq!(of_pep508(text, &[]).as_deref(), written, "{text}");
        }
        let extra = of_pep508("a; os_name=='nt'", &["x".to_owned()]);
        assert_eq!(
            extra.as_deref(),
            Some("a ; (os_name == \"nt\") and (extra == \"x\")")
        );
    }
}
