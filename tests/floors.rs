//! Tidy checks: the floors of `src/lib.rs`, what modules must not know, and what does not land. They read the source as
//! text, and know nothing else of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::support::{self, File};

/// The floors of the modules. A module uses lower floors only. The table in `src/lib.rs` says the same to people.
const FLOORS: &[(u32, &[&str])] = &[
    (0, &["accounts", "oci", "program", "shown", "tar"]),
    (1, &["store", "layer"]),
    (2, &["graph", "python", "source"]),
    (3, &["spec", "lock"]),
    (4, &["rule"]),
    (5, &["pin", "plan"]),
    (6, &["exec", "net"]),
    (7, &["daemon", "index", "registry", "runtime"]),
    (8, &["output"]),
    (9, &["work"]),
    (10, &["cli", "ui"]),
];

/// The one pair of a floor that know each other.
const NEIGHBOURS: (&str, &str) = ("cli", "ui");

/// What modules must not know although it lies lower.
const MUST_NOT_KNOW: &[(&str, &[&str])] = &[
    ("exec", &["rule", "spec", "plan", "output"]),
    ("net", &["rule", "spec", "plan", "exec", "registry"]),
    ("output", &["rule", "exec", "plan", "spec"]),
    (
        "daemon",
        &[
            "rule", "spec", "exec", "plan", "pin", "layer", "store", "graph",
        ],
    ),
    ("index", &["rule", "spec", "exec", "plan", "pin", "layer"]),
    ("registry", &["rule", "exec", "plan", "pin", "layer"]),
    (
        "runtime",
        &["rule", "exec", "plan", "spec", "pin", "graph", "net"],
    ),
    ("pin", &["exec", "output"]),
    ("layer", &["store"]),
    ("lock", &["layer", "python", "source", "store", "tar"]),
    ("source", &["graph", "rule"]),
    ("python", &["graph", "rule", "source"]),
    ("store", &["layer", "graph", "rule"]),
];

/// How long a file may be.
const LINES: usize = 700;

/// Returns the source below a folder of the project.
fn files(folder: &str) -> Vec<File> {
    let all = support::files(folder).into_iter();
    all.filter(|file| file.name.ends_with(".rs")).collect()
}

/// Returns the top-level module that a file of `src` belongs to; empty for `lib.rs` and `main.rs`.
fn module(file: &File) -> &str {
    let below = file.name.split('/').nth(1).unwrap_or_default();
    match below.strip_suffix(".rs").unwrap_or(below) {
        "lib" | "main" => "",
        module => module,
    }
}

/// Returns the text without comments, line by line: the same number of lines.
fn code(text: &str) -> String {
    let lines = text.lines().map(|line| match line.find("//") {
        // A `//` within a string, as in a URL, follows a colon.
        Some(at) if !line[..at].ends_with(':') => &line[..at],
        _ => line,
    });
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// Returns each module that follows `crate::` in the text, with its line.
fn uses(text: &str) -> Vec<(usize, String)> {
    let code = code(text);
    let mut found = Vec::new();
    for (at, word) in code.match_indices("crate::") {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|it| it.is_alphanumeric() || it == '_') {
            continue;
        }
        let line = code[..at].matches('\n').count() + 1;
        let rest = &code[at + word.len()..];
        for name in names(rest) {
            found.push((line, name));
        }
    }
    found
}

/// Returns the names that a path goes on with: one, or the first of each path in braces.
fn names(rest: &str) -> Vec<String> {
    let word = |text: &str| -> String {
        let text = text.trim_start();
        text.chars()
            .take_while(|it| it.is_alphanumeric() || *it == '_')
            .collect()
    };
    let Some(list) = rest.trim_start().strip_prefix('{') else {
        return vec![word(rest)];
    };
    let mut found = vec![word(list)];
    let mut depth = 1;
    for (at, char) in list.char_indices() {
        match char {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => found.push(word(&list[at + 1..])),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

fn floors() -> BTreeMap<&'static str, u32> {
    let of = |(floor, names): &(u32, &'static [&'static str])| {
        let floor = *floor;
        names
            .iter()
            .map(move |name| (*name, floor))
            .collect::<Vec<_>>()
    };
    FLOORS.iter().flat_map(of).collect()
}

/// Fails with all that is wrong.
#[track_caller]
fn report(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn modules_use_lower_floors_only() {
    let floors = floors();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for file in files("src") {
        if module(&file).is_empty() {
            continue;
        }
        let Some(own) = floors.get(module(&file)) else {
            wrong.push(format!(
                "{}: module `{}` has no floor",
                file.name,
                module(&file)
            ));
            continue;
        };
        for (line, name) in uses(&file.text) {
            let place = format!("{}:{line}", file.name);
            seen += 1;
            match floors.get(name.as_str()) {
                None => wrong.push(format!("{place}: `crate::{name}` has no floor")),
                Some(_) if name == module(&file) => {}
                Some(_) if (module(&file), name.as_str()) == NEIGHBOURS => {}
                Some(floor) if floor < own => {}
                Some(floor) => wrong.push(format!(
                    "{place}: `{}` of floor {own} uses `{name}` of floor {floor}",
                    module(&file)
                )),
            }
            let unknown = MUST_NOT_KNOW.iter().find(|(it, _)| *it == module(&file));
            if unknown.is_some_and(|(_, names)| names.contains(&name.as_str())) {
                wrong.push(format!(
                    "{place}: `{}` must not know `{name}`",
                    module(&file)
                ));
            }
        }
    }
    assert!(
        seen > 100,
        "only {seen} uses were found: the search is broken"
    );
    report(&wrong);
}

/// Bases, images and the rest of `rule` know a kind of packages through the traits of ecosystems alone.
#[test]
fn an_ecosystem_is_named_by_its_own_rule() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for file in files("src") {
        for (line, name) in uses(&file.text) {
            let is_own = file.name.starts_with("src/rule/pip/");
            let is_python = module(&file) == "rule" && name == "python";
            seen += usize::from(is_python && is_own);
            // Wheels are zip archives, and their reader is the only one that there is.
            let is_zip = file.name == "src/rule/http/fetch.rs";
            if is_python && !is_own && !is_zip {
                let place = format!("{}:{line}", file.name);
                wrong.push(format!("{place}: `crate::python` is for src/rule/pip"));
            }
        }
    }
    assert!(
        seen > 3,
        "only {seen} uses were found: the search is broken"
    );
    report(&wrong);
}

/// `super::super::` must not lead out of a module, past the checks above.
#[test]
fn no_super_leads_out_of_a_module() {
    let mut wrong = Vec::new();
    for file in files("src") {
        let parts = file.name.split('/').count();
        let is_root = file.name.ends_with("/mod.rs");
        // `src/a/mod.rs` and `src/a.rs` are one deep, `src/a/b.rs` two.
        let depth = if is_root { parts - 2 } else { parts - 1 };
        let mut inner = 0;
        for (number, line) in code(&file.text).lines().enumerate() {
            if line.starts_with("mod ") && line.ends_with('{') {
                inner = 1;
            }
            let longest = (1..6)
                .rev()
                .find(|count| line.contains(&"super::".repeat(*count)))
                .unwrap_or(0);
            if longest > 0 && longest >= depth + inner {
                wrong.push(format!("{}:{}: {}", file.name, number + 1, line.trim()));
            }
        }
    }
    report(&wrong);
}

#[test]
fn the_table_of_the_library_says_the_same() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs"));
    let text = text.expect("src/lib.rs");
    let mut table = BTreeMap::new();
    let mut modules = BTreeSet::new();
    for line in text.lines() {
        let words = ["pub mod ", "pub(crate) mod ", "mod "];
        let declared = words.iter().find_map(|word| line.strip_prefix(word));
        if let Some(name) = declared.and_then(|it| it.strip_suffix(';')) {
            modules.insert(name);
        }
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, floor, names, ..] = cells[..] else {
            continue;
        };
        let Ok(floor) = floor.parse::<u32>() else {
            continue;
        };
        for name in names.split('`').skip(1).step_by(2) {
            // Some names are a crate's, too.
            table.insert(name.trim_start_matches("mod@"), floor);
        }
    }
    assert_eq!(table, floors());
    assert_eq!(modules, table.into_keys().collect());
    let main = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/main.rs"));
    for line in main.expect("src/main.rs").lines() {
        let used = line.split("imgdecl::").skip(1);
        used.for_each(|rest| assert!(rest.starts_with("cli"), "src/main.rs: {line}"));
    }
}

/// Only `cli` and `ui` print and read the environment.
#[test]
fn only_the_top_floor_speaks() {
    let words = [
        "std::env",
        "env::var",
        "env::args",
        "env::current_dir",
        "println!",
        "print!(",
        "eprintln!",
        "eprint!(",
        "stdout()",
        "stderr()",
        "process::exit",
    ];
    let mut wrong = Vec::new();
    for file in files("src") {
        if matches!(module(&file), "cli" | "ui") {
            continue;
        }
        let code = code(&file.text);
        let own = code.split("#[cfg(test)]").next().unwrap_or_default();
        for (number, line) in own.lines().enumerate() {
            if let Some(word) = words.iter().find(|word| line.contains(**word)) {
                wrong.push(format!("{}:{}: {word}", file.name, number + 1));
            }
        }
    }
    report(&wrong);
}

/// There is one reader of tar: no other file names the crate that reads its blocks, and no other room knows PAX.
#[test]
fn tars_are_read_in_one_room() {
    let mut wrong = Vec::new();
    for file in files("src") {
        let code = code(&file.text);
        for (number, line) in code.lines().enumerate() {
            let place = format!("{}:{}", file.name, number + 1);
            let is_one = file.name == "src/tar/block.rs";
            // Rooms import this crate's module, which hides the crate of that name; only the crate has these types.
            let crates = [
                "::tar::Header",
                "::tar::Gnu",
                "tar::Archive",
                "tar::Builder",
            ];
            if !is_one && crates.iter().any(|name| line.contains(name)) {
                wrong.push(format!("{place}: the crate `tar` is for src/tar/block.rs"));
            }
            let is_import = line.contains("use tar::") || line.contains("extern crate tar");
            if is_import && module(&file) != "tar" {
                wrong.push(format!("{place}: `crate::tar` is the reader of tar"));
            }
            let meaning = ["\"SCHILY.xattr.\"", "\"GNU.sparse", "\"linkpath\""];
            let is_reading = !matches!(module(&file), "tar" | "layer")
                && meaning
                    .iter()
                    .any(|word| line.contains(word) && !line.contains("b\"SCHILY"));
            if is_reading {
                wrong.push(format!("{place}: what records mean is for `crate::tar`"));
            }
        }
    }
    report(&wrong);
}

/// The files that may ask where a blob of the cache lies on this machine, and why no stream does.
const LOCAL_PATHS: &[(&str, &str)] = &[
    (
        "src/graph/product.rs",
        "contents of trees, which are read by their places as a layer is written",
    ),
    (
        "src/index/metadata.rs",
        "a wheel that was hashed, whose directory is at its end and names places",
    ),
    (
        "src/rule/command/action.rs",
        "contents of trees, which are read by their places as a layer is written",
    ),
    (
        "src/rule/from.rs",
        "contents of trees, which are read by their places as a layer is written",
    ),
    (
        "src/rule/http/fetch.rs",
        "a file that was hashed, which is the content of a tree, or an archive that holds some",
    ),
    (
        "src/rule/pip/action.rs",
        "a wheel that was hashed, whose members are contents of a tree",
    ),
    (
        "src/rule/tar.rs",
        "contents of trees, which are read by their places as a layer is written",
    ),
];

/// No path of a blob leaves the store: who reads one gets a stream that hashes it, or an open file. A plain path is for the
/// few who cannot do with these, and check otherwise. Sinks know blobs alone, and not the folder.
#[test]
fn no_path_of_a_blob_leaves_the_store() {
    let mut found = BTreeSet::new();
    let mut wrong = Vec::new();
    for file in files("src") {
        if module(&file) == "store" {
            continue;
        }
        let code = code(&file.text);
        for (number, line) in code.lines().enumerate() {
            // Neither the folder's own names, nor one that is put together by hand.
            for word in ["blob_path", "blobs-v"] {
                if line.contains(word) {
                    wrong.push(format!("{}:{}: {word}", file.name, number + 1));
                }
            }
        }
        let own = code.split("#[cfg(test)]").next().unwrap_or_default();
        if own.contains("local_path(") && !file.name.ends_with("/tests.rs") {
            found.insert(file.name.clone());
        }
        if module(&file) == "output" && imports(own, "store").contains(&"Store") {
            wrong.push(format!("{}: uses `store::Store`", file.name));
        }
    }
    report(&wrong);
    let known = LOCAL_PATHS.iter().map(|(name, _)| (*name).to_owned());
    assert_eq!(found, known.collect());
}

/// Returns the words that a text takes from a module of the crate.
fn imports<'a>(code: &'a str, module: &str) -> Vec<&'a str> {
    let module = format!("crate::{module}::");
    let lists = code.split(module.as_str()).skip(1);
    let lists = lists.map(|part| part.split(';').next().unwrap_or_default());
    let words = |list: &'a str| list.split(|it: char| !it.is_alphanumeric() && it != '_');
    lists.flat_map(words).collect()
}

/// What actions made is looked up and kept by `exec` alone, under keys of `graph`; pages of other hosts, which are no
/// results, by `index`.
#[test]
fn results_are_kept_by_exec_alone() {
    let rules: [(&[&str], &[&str]); 2] = [
        (
            &[
                "put_record(",
                "put_last_key(",
                "store.record(",
                "cache.record(",
                ".memo(",
                "put_memo(",
            ],
            &["exec", "store"],
        ),
        (
            &[".put_page(", "cache.page(", "store.page("],
            &["index", "store"],
        ),
    ];
    let mut wrong = Vec::new();
    let mut seen = 0;
    for file in files("src") {
        let code = code(&file.text);
        for (number, line) in code.lines().enumerate() {
            for (words, rooms) in rules {
                let Some(word) = words.iter().find(|word| line.contains(**word)) else {
                    continue;
                };
                match rooms.contains(&module(&file)) {
                    true => seen += 1,
                    false => wrong.push(format!("{}:{}: {word}", file.name, number + 1)),
                }
            }
        }
        // Without the type no record can be made.
        let knows = ["store", "graph", "exec"].contains(&module(&file));
        let names = imports(&code, "store");
        if !knows && (names.contains(&"Record") || names.contains(&"Records")) {
            wrong.push(format!("{}: uses `store::Record`", file.name));
        }
    }
    assert!(seen > 5, "only {seen} were found: the search is broken");
    report(&wrong);
}

/// Returns the functions of a text: the line, the head and the body of each.
fn functions(code: &str) -> Vec<(usize, &str, &str)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|it| it.is_alphanumeric() || it == '_') {
            continue;
        }
        let rest = &code[at..];
        let end = rest.find(['{', ';']).unwrap_or(rest.len());
        if !rest[end..].starts_with('{') {
            continue;
        }
        let mut depth = 0;
        let body = rest[end..].char_indices().find_map(|(index, char)| {
            match char {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            (depth == 0).then(|| &rest[end..=end + index])
        });
        let line = code[..at].matches('\n').count() + 1;
        found.push((line, &rest[..end], body.unwrap_or_default()));
    }
    found
}

/// Keys are made of texts that are written for it, which stay as they are: what is printed for debugging does not.
#[test]
fn keys_hold_no_debug_text_and_no_version_of_the_program() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for file in files("src") {
        let code = code(&file.text);
        for (line, head, body) in functions(&code) {
            let writes = head.contains("KeyWriter")
                || head.starts_with("fn key_text")
                || head.starts_with("fn write_key")
                || head.starts_with("fn quote");
            // What is cached by its digest is written by hand as well.
            let is_listing = module(&file) == "layer"
                && ["fn describe", "fn listing"]
                    .iter()
                    .any(|it| head.starts_with(it));
            if !writes && !is_listing {
                continue;
            }
            seen += 1;
            for word in [":?}", ":#?}", "Debug", "CARGO_PKG_VERSION"] {
                if body.contains(word) {
                    wrong.push(format!("{}:{line}: {word} in a key", file.name));
                }
            }
        }
    }
    assert!(seen > 25, "only {seen} were found: the search is broken");
    report(&wrong);
}

/// The search itself finds what it must.
#[test]
fn functions_are_found_with_their_bodies() {
    let text = "fn a(key: &mut dyn KeyWriter) {\n    if x { format!(\"{y:?}\") }\n}\nfn b();\npub fn c() -> u8 { 1 }\nmyfn d";
    let found: Vec<(usize, bool, bool)> = functions(text)
        .iter()
        .map(|(line, head, body)| (*line, head.contains("KeyWriter"), body.contains(":?}")))
        .collect();
    assert_eq!(found, [(1, true, true), (5, false, false)]);
}

#[test]
fn every_file_says_what_it_is() {
    let mut wrong = Vec::new();
    for file in files("src").into_iter().chain(files("tests")) {
        let first = file.text.lines().next().unwrap_or_default();
        if !first.starts_with("//! ") {
            wrong.push(format!("{}:1: does not begin with //!", file.name));
        }
    }
    report(&wrong);
}

/// Files that are compiled for tests alone hold tests, or what tests share; their names say which.
#[test]
fn files_of_tests_say_so() {
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for file in files("src") {
        let lines: Vec<&str> = file.text.lines().map(str::trim).collect();
        for (number, pair) in lines.windows(2).enumerate() {
            let name = pair[1].strip_suffix(';').and_then(|it| {
                let (_, name) = it.split_once("mod ")?;
                Some(name)
            });
            let Some(name) = name.filter(|_| pair[0] == "#[cfg(test)]") else {
                continue;
            };
            seen += 1;
            let is_named = ["tests", "testing"]
                .iter()
                .any(|word| name == *word || name.ends_with(&format!("_{word}")));
            if !is_named {
                wrong.push(format!("{}:{}: mod {name}", file.name, number + 2));
            }
        }
    }
    assert!(seen > 10, "only {seen} were found: the search is broken");
    report(&wrong);
}

#[test]
fn no_file_is_long() {
    let mut wrong = Vec::new();
    for file in files("src") {
        let lines = file.text.lines().count();
        if lines > LINES {
            wrong.push(format!(
                "{}: {lines} lines, and {LINES} are the most",
                file.name
            ));
        }
    }
    report(&wrong);
}

#[test]
fn nothing_is_left_to_do() {
    // Written in two halves, so that this file does not find itself.
    let words = [
        ("TO", "DO"),
        ("FIX", "ME"),
        ("XX", "X"),
        ("to", "do!"),
        ("db", "g!"),
        ("unimple", "mented!"),
    ];
    let words = words.map(|(a, b)| format!("{a}{b}"));
    let mut wrong = Vec::new();
    for file in files("src").into_iter().chain(files("tests")) {
        for (number, line) in file.text.lines().enumerate() {
            if let Some(word) = words.iter().find(|word| line.contains(*word)) {
                wrong.push(format!("{}:{}: {word}", file.name, number + 1));
            }
        }
    }
    report(&wrong);
}

/// The search itself finds what it must.
#[test]
fn uses_are_found_wherever_they_stand() {
    let text = "use crate::a;\nuse crate::{b, c::{d, e}, f};\nlet x = crate::g::h(\"http://x\");\n// crate::no\nuse crate::{\n    i,\n    j::k,\n};\nmycrate::no";
    let found: Vec<(usize, String)> = uses(text);
    let expected = [
        (1, "a"),
        (2, "b"),
        (2, "c"),
        (2, "f"),
        (3, "g"),
        (5, "i"),
        (5, "j"),
    ];
    assert_eq!(found, expected.map(|(line, name)| (line, name.to_owned())));
}
