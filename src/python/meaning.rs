//! What a file says, without what means nothing: comments, blank lines, ends of lines, the order of what has none. Two texts
//! with one meaning ask for the same.

use std::collections::BTreeSet;

use toml::{Table, Value};

use super::foreign::{FileKind, file_kind};
use super::place::Source;
use super::requirements::lines;
use super::{WheelUrl, pep508};

/// Keys of a project that say nothing of packages.
const OF_PROJECT: &[&str] = &[
    "authors",
    "classifiers",
    "description",
    "entry-points",
    "gui-scripts",
    "keywords",
    "license",
    "license-files",
    "maintainers",
    "readme",
    "scripts",
    "urls",
    "version",
];

/// Tables of a pyproject.toml that may say something of packages.
const OF_PYPROJECT: &[&str] = &["project", "dependency-groups", "tool"];

/// Tools that may.
const TOOLS: &[&str] = &["pdm", "poetry", "uv"];

/// Keys of locks that only their tools need, wherever they stand.
const OF_LOCKS: &[&str] = &[
    "content-hash",
    "content_hash",
    "created-by",
    "description",
    "summary",
];

/// Returns a text that is the same for all texts of one meaning. One that cannot be read is its own meaning.
pub(crate) fn meaning(path: &str, text: &str) -> String {
    let kind = file_kind(path, text);
    match kind {
        Some(FileKind::Pipfile) => of_pipfile(text),
        Some(FileKind::Pyproject) => of_pyproject(text),
        Some(kind) if kind.is_lock() => of_lock(text),
        _ => Some(of_requirements(path, text)),
    }
    .unwrap_or_else(|| text.to_owned())
}

/// Returns a requirement as it is written in one way only.
pub(crate) fn one_way(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let text = words.join(" ");
    let (head, options) = text.split_once(" --").unwrap_or((&text, ""));
    let mut options: Vec<&str> = options.split(" --").collect();
    options.sort_unstable();
    options.dedup();
    // What is a path or a URL alone stays as it is.
    let is_link = WheelUrl::new(head).is_ok_and(|it| it.scheme().is_some()) || head.contains('/');
    let parsed = pep508::requirement(head).ok().filter(|_| !is_link);
    let head = parsed.map_or_else(|| head.to_owned(), |it| it.to_string());
    format!("{head} {}", options.join(" "))
}

/// Returns the meaning of a requirements file: its options in order, its requirements sorted.
fn of_requirements(path: &str, text: &str) -> String {
    let source = Source::shared(path, text);
    let mut options = String::new();
    let mut asked = BTreeSet::new();
    for line in lines(&source, &|_| None, &mut Vec::new()) {
        // The order of options may count, as of indexes.
        match line.text.starts_with('-') {
            true => {
                let words: Vec<&str> = line.text.split_whitespace().collect();
                options.push_str(&words.join(" "));
                options.push('\n');
            }
            false => {
                asked.insert(one_way(&line.text));
            }
        }
    }
    let asked: Vec<String> = asked.into_iter().collect();
    format!("options\n{options}requirements\n{}", asked.join("\n"))
}

/// Returns the meaning of a pyproject.toml: what it says of packages.
fn of_pyproject(text: &str) -> Option<String> {
    let mut table: Table = text.parse().ok()?;
    table.retain(|key, _| OF_PYPROJECT.contains(&key));
    if let Some(Value::Table(project)) = table.get_mut("project") {
        project.retain(|key, _| !OF_PROJECT.contains(&key));
    }
    if let Some(Value::Table(tool)) = table.get_mut("tool") {
        tool.retain(|key, _| TOOLS.contains(&key));
        for own in tool.iter_mut().filter_map(|(_, it)| it.as_table_mut()) {
            own.retain(|key, _| !OF_PROJECT.contains(&key));
        }
    }
    let mut out = String::new();
    for (key, value) in &table {
        let order = match key.as_str() {
            "tool" => Order::Kept,
            _ => Order::Free,
        };
        string(key, &mut out);
        canonical(value, order, &mut out);
    }
    Some(out)
}

/// Returns the meaning of a lock in TOML.
fn of_lock(text: &str) -> Option<String> {
    let table: Table = text.parse().ok()?;
    let mut out = String::new();
    canonical(&Value::Table(table), Order::FreeTexts, &mut out);
    Some(out)
}

/// Returns the meaning of a Pipfile.lock.
fn of_pipfile(text: &str) -> Option<String> {
    let mut value: serde_json::Value = serde_json::from_str(text).ok()?;
    if let Some(meta) = value.get_mut("_meta").and_then(|it| it.as_object_mut()) {
        meta.remove("hash");
    }
    // Its maps are sorted.
    Some(value.to_string())
}

/// Whether the order of the values of an array means something.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    /// It does.
    Kept,
    /// That of texts does not.
    FreeTexts,
    /// None does.
    Free,
}

/// Writes a value in one way only.
fn canonical(value: &Value, order: Order, out: &mut String) {
    match value {
        Value::String(text) => string(text, out),
        Value::Array(values) => {
            let mut all: Vec<String> = Vec::new();
            for value in values {
                let mut text = String::new();
                canonical(value, order, &mut text);
                all.push(text);
            }
            let is_free = match order {
                Order::Kept => false,
                Order::FreeTexts => values.iter().all(Value::is_str),
                Order::Free => true,
            };
            if is_free {
                all.sort();
            }
            out.push('[');
            out.push_str(&all.concat());
            out.push(']');
        }
        Value::Table(table) => {
            let mut keys: Vec<&String> = table.keys().collect();
            keys.sort();
            let is_lock = order == Order::FreeTexts;
            out.push('{');
            for key in keys {
                if is_lock && OF_LOCKS.contains(&&**key) {
                    continue;
                }
                string(key, out);
                canonical(&table[key], order, out);
            }
            out.push('}');
        }
        other => {
            out.push('=');
            string(&other.to_string(), out);
        }
    }
}

/// Writes a text so that its end is known.
fn string(text: &str, out: &mut String) {
    out.push_str(&format!("{}:{text}", text.len()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_same(path: &str, one: &str, other: &str) -> bool {
        meaning(path, one) == meaning(path, other)
    }

    #[test]
    fn requirements_mean_their_lines() {
        let text = "flask==3.1.3\nrich\n";
        for other in [
            "# why\nflask==3.1.3\nrich  # why\n",
            "rich\nflask==3.1.3",
            "Flask == 3.1.3\r\n\r\nrich\r\n",
            "flask\\\n==3.1.3\nrich\nrich",
        ] {
            assert!(is_same("r.txt", text, other), "{other:?}");
        }
        for other in [
            "flask==3.1.2\nrich",
            "flask==3.1.3",
            "flask==3.1.3\nrich[x]",
            "flask==3.1.3\nrich\n--pre",
            "flask==3.1.3\nrich; python_version < '3'",
            "flask==3.1.3\nrich --hash=sha256:00",
            "flask==3.1.3\nrich\n-r x.txt",
            "flask==3.1.3\n${RICH}",
        ] {
            assert!(!is_same("r.txt", text, other), "{other:?}");
        }
        let hashed = "six==1 --hash=sha256:00 \\\n  --hash=sha256:11";
        assert!(is_same(
            "r.txt",
            hashed,
            "six==1 \\\n --hash=sha256:11 --hash=sha256:00"
        ));
        let (one, other) = (
            "--extra-index-url a\n--extra-index-url b",
            "--extra-index-url b\n--extra-index-url a",
        );
        assert!(!is_same("r.txt", one, other));
        assert!(!is_same(
            "r.txt",
            "./A/x-1-py3-none-any.whl",
            "./a/x-1-py3-none-any.whl"
        ));
    }

    #[test]
    fn projects_mean_what_they_ask_for() {
        let text = "[project]\nname = 'x'\nversion = '1'\ndependencies = ['a', 'b']\n[tool.uv]\nextra-index-url = ['x', 'y']";
        for (from, to, same) in [
            ("'a', 'b'", "'b',\n 'a', # why\n", true),
            ("version = '1'", "version = '2'", true),
            ("[tool.uv]", "[tool.ruff]\nx = 1\n[tool.uv]", true),
            ("'a', 'b'", "'a'", false),
            ("'x', 'y'", "'y', 'x'", false),
            ("name = 'x'", "name = 'y'", false),
        ] {
            assert!(text.contains(from));
            let other = text.replace(from, to);
            assert_eq!(is_same("pyproject.toml", text, &other), same, "{other}");
        }
    }

    #[test]
    fn locks_mean_their_packages() {
        let text = "[[package]]\nname = 'a'\ndescription = 'x'\ngroups = ['a', 'b']\nfiles = [{file = 'x'}, {file = 'y'}]\n[metadata]\nlock-version = '2.1'\ncontent-hash = '0'";
        for (from, to, same) in [
            ("[[package]]", "# c\r\n[[package]]\r\n", true),
            ("'x'\ngroups", "'y'\ngroups", true),
            ("'a', 'b'", "'b', 'a'", true),
            ("content-hash = '0'", "content-hash = '1'", true),
            ("{file = 'x'}", "{file = 'z'}", false),
            ("name = 'a'", "name = 'b'", false),
        ] {
            assert!(text.contains(from));
            let other = text.replace(from, to);
            assert_eq!(is_same("poetry.lock", text, &other), same, "{other}");
        }
        let text = "{\"_meta\": {\"hash\": {\"sha256\": \"0\"}}, \"default\": {}, \"develop\": {}}";
        let other =
            "{\"develop\": {},\r\n \"default\": {},\n \"_meta\": {\"hash\": {\"sha256\": \"1\"}}}";
        assert!(is_same("Pipfile.lock", text, other));
        assert!(!is_same(
            "Pipfile.lock",
            text,
            &text.replace("develop", "docs")
        ));
        // A text that cannot be read means itself.
        assert!(!is_same("poetry.lock", "[", "[".repeat(2).as_str()));
    }
}
