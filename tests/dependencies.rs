//! The crates that imgdecl is built from are as `deny.toml` wants them: their licences, their sources, and that none is
//! there twice but those that are listed. `cargo deny` checks the same, and more, where it is installed.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;
use serde_json::Value;

/// What this test reads of `deny.toml`.
#[derive(Deserialize)]
struct Deny {
    licenses: Licenses,
    bans: Bans,
    sources: Sources,
}

#[derive(Deserialize)]
struct Licenses {
    allow: BTreeSet<String>,
    exceptions: Vec<Exception>,
}

#[derive(Deserialize)]
struct Exception {
    allow: BTreeSet<String>,
    #[serde(rename = "crate")]
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Bans {
    multiple_versions: String,
    skip: Vec<Skip>,
}

#[derive(Deserialize)]
struct Skip {
    /// `NAME@VERSION`.
    #[serde(rename = "crate")]
    name: String,
    reason: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Sources {
    unknown_registry: String,
    unknown_git: String,
    allow_registry: Option<Vec<String>>,
}

/// A crate that this system's build has.
struct Package {
    name: String,
    version: String,
    license: String,
    source: Option<String>,
}

fn deny() -> Deny {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deny.toml");
    let text = fs::read_to_string(path).expect("deny.toml");
    toml::from_str(&text).expect("deny.toml is as this test knows it")
}

/// Asks cargo for the crates of this system. What it builds from is at hand, so that nothing is fetched.
fn packages() -> Vec<Package> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let run = |args: &[&str]| {
        let mut command = Command::new(&cargo);
        command.args(args).current_dir(env!("CARGO_MANIFEST_DIR"));
        let output = command.output().expect("cargo runs");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "cargo {args:?}: {stderr}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let version = run(&["-vV"]);
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.expect("cargo names its host");
    let text = run(&[
        "metadata",
        "--format-version=1",
        "--locked",
        "--offline",
        "--all-features",
        "--filter-platform",
        host,
    ]);
    let metadata: Value = serde_json::from_str(&text).expect("JSON");
    let text = |package: &Value, key: &str| package[key].as_str().map(str::to_owned);
    let packages = metadata["packages"].as_array().expect("packages").iter();
    packages
        .map(|package| Package {
            name: text(package, "name").expect("a name"),
            version: text(package, "version").expect("a version"),
            license: text(package, "license").unwrap_or_default(),
            source: text(package, "source"),
        })
        .collect()
}

/// Tells whether a crate may be had under licences that are allowed (SPDX 2.3, annex D). A `/` is an OR of old.
fn is_allowed(expression: &str, allowed: &dyn Fn(&str) -> bool) -> Result<bool, String> {
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let mut words = spaced.split_whitespace().peekable();
    let found = either(&mut words, allowed)?;
    match words.next() {
        None => Ok(found),
        Some(word) => Err(format!("`{word}` in `{expression}`")),
    }
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

/// `A OR B`, which binds least.
fn either(words: &mut Words<'_>, allowed: &dyn Fn(&str) -> bool) -> Result<bool, String> {
    let mut found = both(words, allowed)?;
    while words.next_if_eq(&"OR").is_some() {
        found |= both(words, allowed)?;
    }
    Ok(found)
}

/// `A AND B`.
fn both(words: &mut Words<'_>, allowed: &dyn Fn(&str) -> bool) -> Result<bool, String> {
    let mut found = one(words, allowed)?;
    while words.next_if_eq(&"AND").is_some() {
        found &= one(words, allowed)?;
    }
    Ok(found)
}

/// A licence, one with an exception, or an expression in brackets.
fn one(words: &mut Words<'_>, allowed: &dyn Fn(&str) -> bool) -> Result<bool, String> {
    match words.next() {
        Some("(") => {
            let found = either(words, allowed)?;
            match words.next() {
                Some(")") => Ok(found),
                _ => Err("a bracket is not closed".to_owned()),
            }
        }
        Some(word) if !matches!(word, ")" | "OR" | "AND" | "WITH") => {
            if words.next_if_eq(&"WITH").is_none() {
                return Ok(allowed(word));
            }
            let exception = words.next().ok_or("WITH what")?;
            Ok(allowed(&format!("{word} WITH {exception}")))
        }
        word => Err(format!("{word:?} where a licence should be")),
    }
}

fn report(wrong: &[String]) {
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn licences_are_those_that_are_allowed() {
    let Licenses { allow, exceptions } = deny().licenses;
    let packages = packages();
    let mut wrong = Vec::new();
    for package in &packages {
        let own = exceptions.iter().find(|it| it.name == package.name);
        let is_known =
            |it: &str| allow.contains(it) || own.is_some_and(|own| own.allow.contains(it));
        match is_allowed(&package.license, &is_known) {
            Ok(true) => {}
            Ok(false) => wrong.push(format!("{}: {}", package.name, package.license)),
            Err(why) => wrong.push(format!("{}: {why}", package.name)),
        }
    }
    for name in exceptions.iter().map(|it| &it.name) {
        if !packages.iter().any(|it| it.name == *name) {
            wrong.push(format!("{name} has an exception, and is not there"));
        }
    }
    for licence in &allow {
        let is_other = |it: &str| it != licence && allow.contains(it);
        let is_needed = packages.iter().any(|package| {
            let own = exceptions.iter().find(|it| it.name == package.name);
            own.is_none() && is_allowed(&package.license, &is_other) == Ok(false)
        });
        if !is_needed {
            wrong.push(format!("{licence} is allowed, and no crate needs it"));
        }
    }
    report(&wrong);
}

#[test]
fn no_crate_is_there_twice_but_those_that_are_listed() {
    let bans = deny().bans;
    assert_eq!(bans.multiple_versions, "deny");
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for Package { name, version, .. } in packages() {
        versions.entry(name).or_default().insert(version);
    }
    let mut wrong = Vec::new();
    for skip in &bans.skip {
        let (name, version) = skip.name.split_once('@').expect("NAME@VERSION");
        let others = versions.get_mut(name);
        if !others.is_some_and(|it| it.len() > 1 && it.remove(version)) {
            wrong.push(format!("{} is listed, and is not there twice", skip.name));
        }
        assert!(!skip.reason.is_empty(), "{}: no reason", skip.name);
    }
    for (name, versions) in versions.iter().filter(|(_, it)| it.len() > 1) {
        wrong.push(format!("{name}: {versions:?}"));
    }
    report(&wrong);
}

#[test]
fn crates_come_from_one_registry() {
    let sources = deny().sources;
    let denied = [&sources.unknown_registry, &sources.unknown_git];
    assert_eq!(denied, ["deny", "deny"]);
    assert_eq!(sources.allow_registry, None, "the default one alone");
    let packages = packages();
    let found: BTreeSet<&str> = packages
        .iter()
        .filter_map(|it| it.source.as_deref())
        .collect();
    let found: Vec<&str> = found.into_iter().collect();
    assert!(
        matches!(found[..], [one] if one.starts_with("registry+")),
        "{found:?}"
    );
    let own: Vec<&String> = packages
        .iter()
        .filter(|it| it.source.is_none())
        .map(|it| &it.name)
        .collect();
    assert_eq!(own, ["imgdecl"]);
}

/// The reader of expressions itself.
#[test]
fn expressions_of_licences() {
    let known = |it: &str| matches!(it, "MIT" | "ISC" | "Apache-2.0 WITH LLVM-exception");
    for (expression, expected) in [
        ("MIT", Some(true)),
        ("GPL-3.0", Some(false)),
        ("MIT/GPL-3.0", Some(true)),
        ("GPL-3.0 AND MIT OR ISC", Some(true)),
        ("(GPL-3.0 OR MIT) AND ISC", Some(true)),
        ("GPL-3.0 OR MIT AND Zlib", Some(false)),
        ("Apache-2.0 WITH LLVM-exception", Some(true)),
        ("Apache-2.0", Some(false)),
        ("MIT WITH LLVM-exception", Some(false)),
        ("", None),
        ("MIT ISC", None),
        ("(MIT", None),
        ("MIT OR", None),
    ] {
        assert_eq!(
            is_allowed(expression, &known).ok(),
            expected,
            "{expression}"
        );
    }
}
