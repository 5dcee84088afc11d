//! Requirements as the package `packaging` writes them: what most back ends put into METADATA.

/// A requirement, in parts.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Parts {
    pub(super) name: String,
    /// Sorted.
    pub(super) extras: Vec<String>,
    /// As `>=1`, sorted as texts.
    pub(super) versions: Vec<String>,
    pub(super) url: Option<String>,
    pub(super) marker: Vec<Item>,
}

/// A part of a marker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Item {
    /// A comparison: both sides and the operator, as they are written.
    Compare(String, String, String),
    /// What stands in brackets.
    Group(Vec<Item>),
    /// `and` or `or`.
    Join(&'static str),
}

/// The operators, the longest first.
const OPERATORS: &[&str] = &["===", "==", "~=", "!=", "<=", ">=", "<", ">"];

impl Parts {
    /// Takes a requirement apart; `None` if it is none.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let is_name = |it: char| it.is_ascii_alphanumeric() || matches!(it, '-' | '_' | '.');
        let end = text.find(|it| !is_name(it)).unwrap_or(text.len());
        let (name, mut rest) = text.split_at(end);
        let starts = |it: Option<char>| it.is_some_and(|it| it.is_ascii_alphanumeric());
        if !starts(name.chars().next()) || !starts(name.chars().last()) {
            return None;
        }
        let mut parts = Self {
            name: name.to_owned(),
            ..Self::default()
        };
        rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix('[') {
            let (extras, after) = after.split_once(']')?;
            let extras = extras.split(',').map(str::trim).filter(|it| !it.is_empty());
            parts.extras = extras.map(str::to_owned).collect();
            parts.extras.sort();
            parts.extras.dedup();
            rest = after.trim_start();
        }
        if let Some(after) = rest.strip_prefix('@') {
            let after = after.trim_start();
            let end = after.find(char::is_whitespace).unwrap_or(after.len());
            parts.url = Some(after[..end].to_owned());
            rest = after[end..].trim_start();
        } else {
            let (versions, marker) = match rest.find(';') {
                Some(at) => rest.split_at(at),
                None => (rest, ""),
            };
            let versions = versions.trim();
            let inner = versions.strip_prefix('(');
            let versions = match inner {
                Some(inner) => inner.strip_suffix(')')?,
                None => versions,
            };
            for version in versions.split(',').map(str::trim) {
                if version.is_empty() {
                    continue;
                }
                let operator = OPERATORS.iter().find(|it| version.starts_with(*it))?;
                let number = version[operator.len()..].trim();
                if number.is_empty() || number.contains(char::is_whitespace) {
                    return None;
                }
                parts.versions.push(format!("{operator}{number}"));
            }
            parts.versions.sort();
            parts.versions.dedup();
            rest = marker;
        }
        match rest.strip_prefix(';') {
            Some(marker) => parts.marker = parse_marker(marker)?,
            None if rest.is_empty() => {}
            None => return None,
        }
        Some(parts)
    }

    /// Writes it as `packaging` does.
    pub(super) fn written(&self) -> String {
        let mut out = self.name.clone();
        if !self.extras.is_empty() {
            out += &format!("[{}]", self.extras.join(","));
        }
        out += &self.versions.join(",");
        if let Some(url) = &self.url {
            out += &format!(" @ {url}");
            if !self.marker.is_empty() {
                out.push(' ');
            }
        }
        if !self.marker.is_empty() {
            out += &format!("; {}", written(&self.marker));
        }
        out
    }
}

/// Reads a marker.
pub(super) fn parse_marker(text: &str) -> Option<Vec<Item>> {
    let words = words(text)?;
    let mut at = 0;
    let marker = expression(&words, &mut at, 0)?;
    (at == words.len()).then_some(marker)
}

/// Writes a marker.
pub(super) fn written(marker: &[Item]) -> String {
    let items = marker.iter().map(|item| match item {
        Item::Join(word) => (*word).to_owned(),
        Item::Compare(left, operator, right) => format!("{left} {operator} {right}"),
        Item::Group(inner) => format!("({})", written(inner)),
    });
    items.collect::<Vec<_>>().join(" ")
}

/// How deep brackets may be.
const DEEP: usize = 64;

fn expression(words: &[String], at: &mut usize, depth: usize) -> Option<Vec<Item>> {
    let mut items = vec![atom(words, at, depth)?];
    loop {
        let join = match words.get(*at).map(String::as_str) {
            Some("and") => "and",
            Some("or") => "or",
            _ => return Some(items),
        };
        *at += 1;
        items.push(Item::Join(join));
        items.push(atom(words, at, depth)?);
    }
}

fn atom(words: &[String], at: &mut usize, depth: usize) -> Option<Item> {
    if depth > DEEP {
        return None;
    }
    if words.get(*at)? == "(" {
        *at += 1;
        let mut inner = expression(words, at, depth + 1)?;
        if words.get(*at)? != ")" {
            return None;
        }
        *at += 1;
        // Brackets around one thing mean nothing.
        return match inner.len() {
            1 => inner.pop(),
            _ => Some(Item::Group(inner)),
        };
    }
    let left = words.get(*at)?.clone();
    let mut operator = words.get(*at + 1)?.clone();
    *at += 2;
    if operator == "not" && words.get(*at)? == "in" {
        operator = "not in".to_owned();
        *at += 1;
    }
    let is_operator = OPERATORS.contains(&operator.as_str());
    if !is_operator && operator != "in" && operator != "not in" {
        return None;
    }
    let right = words.get(*at)?.clone();
    *at += 1;
    let (left, right) = (variable(left)?, variable(right)?);
    let normal = |side: String, other: &str| match (side.strip_prefix('"'), other) {
        (Some(value), "extra") => format!("\"{}", super::normalised(value)),
        _ => side,
    };
    let (one, other) = (normal(left.clone(), &right), normal(right, &left));
    Some(Item::Compare(one, operator, other))
}

/// Returns the name of a variable as it is today.
fn variable(word: String) -> Option<String> {
    if word.starts_with('"') {
        return Some(word);
    }
    let name = match word.as_str() {
        "os.name" => "os_name",
        "sys.platform" => "sys_platform",
        "platform.version" => "platform_version",
        "platform.machine" => "platform_machine",
        "platform.python_implementation" | "python_implementation" => {
            "platform_python_implementation"
        }
        name => name,
    };
    let is_name = name
        .bytes()
        .all(|it| it.is_ascii_lowercase() || it == b'_' || it.is_ascii_digit());
    is_name.then(|| name.to_owned())
}

/// Splits a marker into words. Strings are in double quotes.
fn words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '(' | ')' => 1,
            '"' | '\'' => {
                let end = rest[1..].find(first)?;
                let value = &rest[1..=end];
                // Nobody quotes quotes.
                if value.contains('"') {
                    return None;
                }
                words.push(format!("\"{value}\""));
                rest = rest[end + 2..].trim_start();
                continue;
            }
            '<' | '>' | '=' | '!' | '~' => OPERATORS.iter().find(|it| rest.starts_with(*it))?.len(),
            _ => {
                let is_word = |it: char| it.is_ascii_alphanumeric() || matches!(it, '_' | '.');
                let end = rest.find(|it| !is_word(it)).unwrap_or(rest.len());
                if end == 0 {
                    return None;
                }
                end
            }
        };
        words.push(rest[..length].to_owned());
        rest = rest[length..].trim_start();
    }
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_as_packaging_does() {
        for (text, written) in [
            ("b >=2, <1 ,!=3", "b!=3,<1,>=2"),
            (
                "a[z,y]>=1.0;python_version<\"3\"and(os_name=='nt' or os_name==\"x\") and extra=='A_b'",
                "a[y,z]>=1.0; python_version < \"3\" and (os_name == \"nt\" or os_name == \"x\") and extra == \"a-b\"",
            ),
            (
                "a @ https://x/y ; python_version<'3'",
                "a @ https://x/y ; python_version < \"3\"",
            ),
            ("x~=1.0,>=1.0", "x>=1.0,~=1.0"),
            ("A_b.c==1.*", "A_b.c==1.*"),
            ("a (>1)", "a>1"),
            (
                " a ; 'linux' in sys.platform",
                "a; \"linux\" in sys_platform",
            ),
            (
                "a; ((python_version<'3') or os_name=='x') and os_name=='y'",
                "a; (python_version < \"3\" or os_name == \"x\") and os_name == \"y\"",
            ),
            (
                "a;python_version not   in '1 2'",
                "a; python_version not in \"1 2\"",
            ),
        ] {
            assert_eq!(Parts::parse(text).unwrap().written(), written, "{text}");
        }
        for text in ["", "-a", "a b", "a >", "a; x", "a[b", "a; (os_name == 'x'"] {
            assert_eq!(Parts::parse(text), None, "{text}");
        }
    }
}
