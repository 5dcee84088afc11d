//! The codes of errors: each stands in the table, `docs/errors.md`, and in the source; each stands for one thing; and each
//! is tested, or it is said why not.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::{File, Space, files};

mod tries;

/// Codes that several files of the source name, and what it is that makes them one thing.
const SHARED: &[(&str, &str)] = &[
    ("base::damaged", "a base on disk, and one in a registry"),
    (
        "base::reference",
        "what names a base, in a manifest and in a lock",
    ),
    ("bug", "what cannot happen, in actions and in commands"),
    (
        "cache",
        "the cache folder is of no use, whatever was wanted of it",
    ),
    (
        "cli::manifest",
        "there is no manifest, or it cannot be read, for each command",
    ),
    (
        "cli::target",
        "a word names no target that the command can use",
    ),
    (
        "config::unreadable",
        "config.toml, and the file that IMGDECL_CONFIG names",
    ),
    (
        "files::ignore",
        "ignore files that do not count: of a kind that is none, and of an image",
    ),
    (
        "files::name",
        "a name that is not UTF-8, of one file and in a folder",
    ),
    (
        "files::no_match",
        "a pattern of `include`, over a folder and over an archive",
    ),
    (
        "files::no_src",
        "no `src`, where a key needs it: of the host, and of an image",
    ),
    (
        "files::patterns",
        "patterns for what is a file: of the host, and of an image",
    ),
    ("host::changed", "a file, an archive and a whole folder"),
    ("host::unreadable", "a file, an archive and a folder"),
    ("image::config", "the config of an image that is made"),
    ("image::env", "a variable of an image, and one of a command"),
    (
        "image::platform",
        "the platforms of an image, and that of a command",
    ),
    (
        "value::duration",
        "a time of a health check, and that of a command",
    ),
    (
        "http::url",
        "a URL that is none: as it is written, and as it is asked for",
    ),
    (
        "image::damaged",
        "documents and layers of an image that was opened",
    ),
    (
        "image::media_types",
        "what Docker's manifests cannot say: in the manifest, and in a base",
    ),
    (
        "index::source",
        "a URL that is none of an index, wherever it is said",
    ),
    (
        "index::transport",
        "an index that cannot be reached, by its own client and as packages are pinned",
    ),
    (
        "pip::index",
        "packages that cannot be had: those of a lock, and those that were looked for",
    ),
    (
        "pip::inputs",
        "what is asked for does not go together, in a manifest and in files",
    ),
    (
        "python::project",
        "a project whose wheel cannot be made: in its folder, in what leads there, and as it is laid out",
    ),
    (
        "python::pyproject",
        "the project's own table, those of tools, and the Python that it is for",
    ),
    (
        "image::repository",
        "no repository that an image can be pushed to: malformed or missing",
    ),
    (
        "layer::clash",
        "two entries of one path: of one tree, and of several",
    ),
    (
        "lock::file",
        "image.lock as a file: its text, and reading and writing it",
    ),
    (
        "lock::missing",
        "image.lock lacks something: a base or packages, before a build and in it",
    ),
    (
        "offline",
        "what is not here, of a build and of an image that is looked at",
    ),
    (
        "pip::conflict",
        "packages that do not go together: by what they ask for, and by their files",
    ),
    ("pip::find_links", "a folder of wheels, and a wheel in it"),
    (
        "pip::package",
        "a project of a uv.lock: its name, and a lock that has none",
    ),
    (
        "python::file",
        "a file of requirements, named by a manifest and by another file",
    ),
    (
        "python::hash",
        "hashes, on the line of a requirement and of a whole file",
    ),
    ("python::lock", "the forms of locks of other tools"),
    (
        "python::option",
        "an option of a file of requirements: its form, and its meaning",
    ),
    (
        "python::requirement",
        "a requirement, and one among constraints",
    ),
    (
        "python::source",
        "a build from sources, in each form that asks for one",
    ),
    (
        "python::toml",
        "a file of a tool that cannot be read, in TOML and in JSON",
    ),
    (
        "run::option",
        "an option of `run`: its form, and what it names",
    ),
    (
        "run::runtime",
        "no OCI runtime, for `run` and for commands of a build; and one that cannot set a container up",
    ),
    ("signals", "signals cannot be listened to"),
    ("spec::index", "`[index]`: its place, and what it says"),
    (
        "spec::type",
        "a value of the wrong kind, in each kind of table",
    ),
    (
        "spec::unknown_target",
        "a name that is no target, and a pattern that matches none",
    ),
    ("spec::unknown_rule", "a rule, of a target and in `layers`"),
    (
        "spec::variable",
        "a variable, where it is declared and where it is used",
    ),
    ("stdout", "stdout cannot be written"),
    ("stopped", "the user stopped it"),
    (
        "users::unreadable",
        "the users of a base, in its layers and for image.lock",
    ),
    ("value::path", "a path in the image"),
    (
        "wheel::malformed",
        "a wheel, and its METADATA as an index gives it",
    ),
    (
        "wheel::other",
        "a wheel, and its METADATA as an index gives it",
    ),
    (
        "wheel::scheme",
        "the interpreter's path, for the files of a wheel and around them",
    ),
];

/// Codes that no test shows, and why.
const UNTESTED: &[(&str, &str)] = &[
    (
        "archive::damaged",
        "the cache must change between two reads of one build; a wheel is checked before",
    ),
    ("bug", "nothing is known that leads to it"),
    (
        "image::config",
        "a base whose config is none is refused before, as base::damaged",
    ),
    ("image::size", "it takes 40 MiB of manifests"),
    (
        "layer::hardlink",
        "the rule tar makes files of such links itself",
    ),
    ("layer::place", "nothing is known that leads to it"),
    (
        "lock::facts",
        "image.lock is sealed: it takes another program to write a wrong one",
    ),
    (
        "pip::digest",
        "a URL without a digest is refused before, as python::hash",
    ),
    ("pip::hard", "it takes very many steps, which is minutes"),
    (
        "pip::wheel",
        "image.lock is sealed: it takes another program to write a wrong one",
    ),
    (
        "registry::absent",
        "the cache must lose a layer between a build and its push",
    ),
    (
        "registry::document",
        "the cache must lose a manifest between a build and its push",
    ),
    (
        "registry::several",
        "the first of several errors speaks for all of them",
    ),
    ("run::itself", "it takes a system without /proc"),
    ("run::limit", "it takes a runtime that ignores limits"),
    ("run::linux", "the tests need Linux"),
    (
        "signals",
        "it takes a system that refuses handlers of signals",
    ),
    (
        "verify::program",
        "it takes a system without /proc, or that runs no more programs",
    ),
    (
        "wheel::unreadable",
        "the disk must fail: a wheel was hashed before it is read",
    ),
];

/// The source, in two parts: what runs, and its tests.
fn source() -> (Vec<File>, Vec<File>) {
    let all: Vec<File> = files("src");
    // `#[cfg(test)] mod NAME;` makes a file of tests of NAME.rs.
    let mut of_tests = BTreeSet::new();
    for file in &all {
        let folder = match file.name.strip_suffix("/mod.rs") {
            Some(folder) => folder,
            None => file.name.strip_suffix(".rs").expect("a source file"),
        };
        let lines: Vec<&str> = file.text.lines().collect();
        for pair in lines.windows(2).filter(|pair| pair[0] == "#[cfg(test)]") {
            let name = pair[1]
                .trim_start_matches("pub(super) ")
                .strip_prefix("mod ");
            if let Some(name) = name.and_then(|it| it.strip_suffix(';')) {
                of_tests.insert(format!("{folder}/{name}.rs"));
                of_tests.insert(format!("{folder}/{name}/mod.rs"));
            }
        }
    }
    let (mut own, mut tests) = (Vec::new(), Vec::new());
    for file in all {
        if of_tests.contains(&file.name) {
            tests.push(file);
            continue;
        }
        let at = file.text.find("#[cfg(test)]\nmod tests {");
        let (runs, rest) = file.text.split_at(at.unwrap_or(file.text.len()));
        let part = |text: &str| File {
            name: file.name.clone(),
            text: text.to_owned(),
        };
        own.push(part(runs));
        tests.push(part(rest));
    }
    assert!(of_tests.len() > 10, "files of tests were not found");
    (own, tests)
}

/// Returns the codes that a text has as strings, right or not.
fn literals(text: &str) -> BTreeSet<&str> {
    let found = text.split("\"imgdecl::").skip(1);
    let found = found.filter_map(|rest| rest.find('"').map(|end| &rest[..end]));
    // The beginning of all codes is none.
    found.filter(|rest| !rest.is_empty()).collect()
}

/// Returns the codes that reports in a text have: each stands on a line of its own.
fn reported(text: &str) -> BTreeSet<&str> {
    text.lines()
        .filter_map(|line| line.strip_prefix("imgdecl::"))
        .collect()
}

/// What the program says of all codes, without what all begin with.
fn table() -> BTreeMap<String, Vec<i64>> {
    let output = Space::new().ok(&["explain", "--format", "json"]);
    let document: Value = serde_json::from_str(&output.stdout).expect("JSON");
    assert_eq!(document["version"], 1);
    let codes = document["codes"].as_array().expect("codes");
    let one = |code: &Value| {
        let name = code["code"].as_str().expect("a code");
        let exits = code["exits"].as_array().expect("exit codes").iter();
        for field in ["meaning", "remedy"] {
            let text = code[field].as_str().unwrap_or_default();
            assert!(text.ends_with(['.', '?']), "{name}: {field} is no sentence");
        }
        let name = name.strip_prefix("imgdecl::").expect("a code");
        let exits = exits.map(|it| it.as_i64().expect("an exit code"));
        (name.to_owned(), exits.collect())
    };
    let table: BTreeMap<String, Vec<i64>> = codes.iter().map(one).collect();
    assert_eq!(table.len(), codes.len(), "a code stands twice");
    let order = codes.iter().map(|it| it["code"].as_str().expect("a code"));
    assert!(
        order.is_sorted(),
        "the codes of docs/errors.md are not sorted"
    );
    table
}

/// Fails with all that is wrong.
#[track_caller]
fn report(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

/// Tells whether a code is written as all are: `area` or `area::word`.
fn is_well_formed(code: &str) -> bool {
    let words: Vec<&str> = code.split("::").collect();
    let is_word = |word: &&str| {
        let has = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '_';
        word.starts_with(|it: char| it.is_ascii_lowercase()) && word.chars().all(has)
    };
    words.len() <= 2 && words.iter().all(is_word)
}

#[test]
fn the_table_has_the_codes_of_the_source() {
    let table = table();
    let (own, _) = source();
    let mut wrong = Vec::new();
    let mut made = BTreeSet::new();
    for file in &own {
        for code in literals(&file.text) {
            made.insert(code);
            let name = &file.name;
            if !is_well_formed(code) {
                wrong.push(format!(
                    "{name}: `imgdecl::{code}` is not `imgdecl::area::word`"
                ));
            } else if !table.contains_key(code) {
                wrong.push(format!(
                    "{name}: `imgdecl::{code}` is missing in docs/errors.md"
                ));
            }
        }
    }
    for code in table.keys().filter(|code| !made.contains(code.as_str())) {
        wrong.push(format!(
            "docs/errors.md: nothing in src has `imgdecl::{code}`"
        ));
    }
    assert!(
        made.len() > 150,
        "only {} codes: the search is broken",
        made.len()
    );
    report(&wrong);
}

/// Tests, golden cases and documents name no code that is gone.
#[test]
fn nothing_names_a_code_that_is_gone() {
    let table = table();
    let mut wrong = Vec::new();
    let areas: BTreeSet<&str> = table
        .keys()
        .filter_map(|it| it.split("::").next())
        .collect();
    let (_, mut tests) = source();
    tests.extend(files("tests"));
    for file in &tests {
        for code in literals(&file.text) {
            // Some look for an area alone, or for several codes by one text; `imgdecl::test` is a code of tests.
            let is_partial = areas.contains(code.trim_end_matches(':')) || code.contains('{');
            if code != "test" && !is_partial && !table.contains_key(code) {
                wrong.push(format!("{}: there is no `imgdecl::{code}`", file.name));
            }
        }
    }
    for file in files("golden") {
        for code in reported(&file.text) {
            if !table.contains_key(code) {
                wrong.push(format!("{}: there is no `imgdecl::{code}`", file.name));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = root.join("README.md");
    let mut documents = files("docs");
    documents.push(File {
        name: "README.md".to_owned(),
        text: fs::read_to_string(readme).expect("README.md"),
    });
    for file in &documents {
        for rest in file.text.split("imgdecl::").skip(1) {
            let end = |it: char| {
                !it.is_ascii_lowercase() && !it.is_ascii_digit() && it != '_' && it != ':'
            };
            let code = &rest[..rest.find(end).unwrap_or(rest.len())];
            let code = code.trim_end_matches(':');
            if !table.contains_key(code) {
                wrong.push(format!("{}: there is no `imgdecl::{code}`", file.name));
            }
        }
    }
    report(&wrong);
}

/// A code that several files have is likely to mean several things: each is listed, with what it means everywhere.
#[test]
fn a_code_stands_for_one_thing() {
    let mut places: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let (own, _) = source();
    for file in &own {
        for code in literals(&file.text) {
            places.entry(code).or_default().insert(&file.name);
        }
    }
    places.retain(|_, files| files.len() > 1);
    let known: BTreeMap<&str, &str> = SHARED.iter().copied().collect();
    assert_eq!(known.len(), SHARED.len(), "a code is listed twice");
    let mut wrong = Vec::new();
    for (code, files) in &places {
        if !known.contains_key(code) {
            let files: Vec<&str> = files.iter().copied().collect();
            wrong.push(format!(
                "`imgdecl::{code}` is in {}: if it is one thing, list it in SHARED of tests/codes.rs",
                files.join(", ")
            ));
        }
    }
    for code in known.keys().filter(|code| !places.contains_key(*code)) {
        wrong.push(format!("`imgdecl::{code}` is listed as shared, and is not"));
    }
    report(&wrong);
}

#[test]
fn each_code_is_tested_or_it_is_said_why_not() {
    let table = table();
    let (_, of_source) = source();
    let mut seen = BTreeSet::new();
    let (tests, golden) = (files("tests"), files("golden"));
    for file in of_source.iter().chain(&tests) {
        // The lists here are no tests.
        let text = match file.name == "tests/codes.rs" {
            true => {
                file.text
                    .split_once("\n/// The source, in two parts")
                    .expect("this file")
                    .1
            }
            false => &file.text,
        };
        seen.extend(literals(text));
    }
    for file in golden.iter().filter(|it| it.name.contains("/expected/")) {
        seen.extend(reported(&file.text));
    }
    let mut wrong = Vec::new();
    let known: BTreeMap<&str, &str> = UNTESTED.iter().copied().collect();
    assert_eq!(known.len(), UNTESTED.len(), "a code is listed twice");
    for code in table.keys().map(String::as_str) {
        match (seen.contains(code), known.contains_key(code)) {
            (false, false) => wrong.push(format!(
                "no test shows `imgdecl::{code}`: add it to tests/codes/tries.rs"
            )),
            (true, true) => {
                wrong.push(format!("`imgdecl::{code}` is tested, and is listed as not"))
            }
            _ => {}
        }
    }
    for code in known.keys().filter(|code| !table.contains_key(**code)) {
        wrong.push(format!("UNTESTED: there is no `imgdecl::{code}`"));
    }
    report(&wrong);
}

/// Golden cases end as the table says.
#[test]
fn exit_codes_are_those_of_the_table() {
    let table = table();
    let mut wrong = Vec::new();
    let mut count = 0;
    let golden = files("golden");
    let text = |name: &str| {
        golden
            .iter()
            .find(|it| it.name == name)
            .map(|it| it.text.trim())
    };
    for file in golden
        .iter()
        .filter(|it| it.name.ends_with("/expected/stderr"))
    {
        let case = file.name.trim_end_matches("/expected/stderr");
        let codes = reported(&file.text);
        // A script may run several commands.
        if codes.is_empty() || text(&format!("{case}/run")).is_some() {
            continue;
        }
        let exit = text(&format!("{case}/expected/exit")).unwrap_or("0");
        let exit: i64 = exit.parse().expect("an exit code");
        let known = codes.iter().filter_map(|code| table.get(*code));
        let known: BTreeSet<i64> = known.flatten().copied().collect();
        count += 1;
        if !known.contains(&exit) {
            wrong.push(format!(
                "{case}: {codes:?} lead to {known:?}, and not to {exit}"
            ));
        }
    }
    assert!(count > 50, "only {count} cases were found");
    report(&wrong);
}
