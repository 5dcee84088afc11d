//! Tests of the resolver with an index in memory.

use std::cell::RefCell;

use super::*;
use crate::python::{Place, Source};

/// An index of a few lines: `NAME VERSION | REQUIREMENT | … | !sdist | !yanked WHY | !python SPEC | !wheel TAGS`.
struct Memory {
    files: BTreeMap<PackageName, Vec<Candidate>>,
    metadata: BTreeMap<(PackageName, Version), Metadata>,
    /// What was asked, in order.
    log: RefCell<Vec<String>>,
}

impl Memory {
    fn of(text: &str) -> Self {
        let mut memory = Self {
            files: BTreeMap::new(),
            metadata: BTreeMap::new(),
            log: RefCell::default(),
        };
        for line in text.lines().map(str::trim).filter(|it| !it.is_empty()) {
            let mut parts = line.split('|').map(str::trim);
            let (name, version) = parts.next().unwrap().split_once(' ').unwrap();
            let mut metadata = format!("Name: {name}\nVersion: {version}\n");
            let mut tags = Vec::new();
            let (mut yanked, mut requires_python, mut is_source) = (None, None, false);
            for part in parts {
                let (word, rest) = part.split_once(' ').unwrap_or((part, ""));
                match word {
                    "!sdist" => is_source = true,
                    "!yanked" => yanked = Some(rest.to_owned()),
                    "!python" => requires_python = Some(rest.into()),
                    "!needs" => metadata += &format!("Requires-Python: {rest}\n"),
                    "!wheel" => tags.push(rest),
                    "!extra" => metadata += &format!("Provides-Extra: {rest}\n"),
                    _ => metadata += &format!("Requires-Dist: {part}\n"),
                }
            }
            if tags.is_empty() && !is_source {
                tags.push("py3-none-any");
            }
            let metadata = Metadata::parse(&metadata).unwrap();
            let escaped = name.replace('-', "_");
            let mut names: Vec<String> = tags
                .iter()
                .map(|it| format!("{escaped}-{version}-{it}.whl"))
                .collect();
            names.extend(is_source.then(|| format!("{escaped}-{version}.tar.gz")));
            let candidates = names.into_iter().map(|file| Candidate {
                name: metadata.name.clone(),
                version: metadata.version.clone(),
                url: format!("https://index/{file}").into(),
                file: file.into(),
                sha256: None,
                size: None,
                requires_python: requires_python.clone(),
                yanked: yanked.clone(),
                index: "memory".into(),
            });
            let all = memory.files.entry(metadata.name.clone()).or_default();
            all.extend(candidates);
            let key = (metadata.name.clone(), metadata.version.clone());
            memory.metadata.insert(key, metadata);
        }
        memory
    }
}

fn not_found() -> IndexError {
    let asked = vec!["memory".to_owned()];
    IndexError::NotFound { asked }
}

impl Index for Memory {
    fn similar(&self, name: &PackageName) -> Vec<PackageName> {
        vec![format!("{name}b").parse().unwrap()]
    }

    fn versions(&self, name: &PackageName) -> Result<Vec<Candidate>, IndexError> {
        self.log.borrow_mut().push(format!("versions {name}"));
        if name.as_ref() == "down" {
            let why = "HTTP 503".to_owned();
            return Err(IndexError::Failed { why, help: None });
        }
        self.files.get(name).cloned().ok_or_else(not_found)
    }

    fn metadata(&self, candidate: &Candidate) -> Result<Metadata, IndexError> {
        let Candidate { name, version, .. } = candidate;
        self.log
            .borrow_mut()
            .push(format!("metadata {name} {version}"));
        if name.as_ref() == "broken" && version.to_string() == "2" {
            return Err(IndexError::Malformed(Unreadable {
                code: "imgdecl::wheel::malformed",
                why: "broken-2-py3-none-any.whl: no Name".to_owned(),
                help: "take another".to_owned(),
            }));
        }
        let key = (name.clone(), version.clone());
        self.metadata.get(&key).cloned().ok_or_else(not_found)
    }

    fn prefetch(&self, wanted: Wanted) {
        let mut log = self.log.borrow_mut();
        match wanted {
            Wanted::Package(name, pick) => {
                let files = self.files.get(&name).cloned().unwrap_or_default();
                let version = |it: &Candidate| Some(it.version.clone());
                let picked = pick.from(&name, &files, version, |it| Some(it.clone()));
                let picked = picked.map(|at| files[at].version.to_string());
                log.push(format!("prefetch {name} {}", picked.unwrap_or_default()));
            }
            Wanted::Metadata(files) => {
                log.extend(
                    files
                        .iter()
                        .map(|it| format!("prefetch {} {}", it.name, it.version)),
                );
            }
        }
    }
}

/// A question in words: `REQUIREMENT | … | !c CONSTRAINT | !pre | !keep NAME VERSION | !target …`.
fn ask(index: &Memory, question: &str) -> Result<Resolution, ResolveError> {
    let source = Source::shared("r.txt", question);
    let mut asked = Vec::new();
    let mut constraints = Vec::new();
    let mut preferences = BTreeMap::new();
    let mut is_pre = false;
    let mut python = "3.11.9".to_owned();
    let mut libc = "glibc 2.36".to_owned();
    let mut at = 0;
    for part in question.split('|') {
        let place = Place::new(&source, at..at + part.len());
        at += part.len() + 1;
        let part = part.trim();
        let (word, rest) = part.split_once(' ').unwrap_or((part, ""));
        match word {
            "!c" => constraints.push(Asked::parse(rest, &place, "r.txt").unwrap()),
            "!pre" => is_pre = true,
            "!keep" => {
                let (name, version) = rest.split_once(' ').unwrap();
                preferences.insert(name.parse().unwrap(), version.parse().unwrap());
            }
            "!python" => python = rest.to_owned(),
            "!libc" => libc = rest.to_owned(),
            "" => {}
            _ => asked.push(Asked::parse(part, &place, "r.txt").unwrap()),
        }
    }
    let target = Target {
        arch: "amd64".to_owned(),
        libc: libc.parse().unwrap(),
        python: python.parse().unwrap(),
    };
    let question = Question {
        overrides: &[],
        only_wheels: &BTreeSet::new(),
        asked: &asked,
        constraints: &constraints,
        target: &target,
        is_pre,
        preferences: &preferences,
    };
    resolve(&question, index)
}

fn names(resolution: &Resolution) -> String {
    let all = resolution.packages.iter().map(|(name, it)| {
        let extras: Vec<&str> = it.extras.iter().map(AsRef::as_ref).collect();
        let extras = match extras.is_empty() {
            true => String::new(),
            false => format!("[{}]", extras.join(",")),
        };
        format!("{name}{extras} {}", it.candidate.version)
    });
    all.collect::<Vec<_>>().join(", ")
}

#[track_caller]
fn check(index: &str, question: &str, expected: &str) -> Resolution {
    match ask(&Memory::of(index), question) {
        Ok(resolution) => {
            assert_eq!(names(&resolution), expected, "{question}");
            resolution
        }
        Err(error) => panic!("{question}: {error}\n{}", error.help()),
    }
}

#[track_caller]
fn conflict(index: &str, question: &str) -> Box<Conflict> {
    match ask(&Memory::of(index), question) {
        Err(ResolveError::Conflict(conflict)) => conflict,
        Err(error) => panic!("{question}: {error}"),
        Ok(resolution) => panic!("{question}: {}", names(&resolution)),
    }
}

#[test]
fn takes_the_newest_that_go_together() {
    let index = "
        a 1 | b>=1
        a 2 | b>=2,<3 | c
        b 1
        b 2 | c<2
        b 3
        c 1
        c 2
    ";
    let resolution = check(index, "a", "a 2, b 2, c 1");
    let a = &resolution.packages[&"a".parse().unwrap()];
    assert!(a.is_asked);
    let requires: Vec<&str> = a.requires.iter().map(AsRef::as_ref).collect();
    assert_eq!(requires, ["b", "c"]);
    assert!(!resolution.packages[&"b".parse().unwrap()].is_asked);
    check(index, "a | c>=2", "a 1, b 3, c 2");
    check(index, "a | !c b<2", "a 1, b 1");
    check(index, "a<2 | !keep b 2 | !keep a 2", "a 1, b 2, c 1");
    check(index, "c ; sys_platform == 'win32' | b==1", "b 1");
    check(index, "", "");
}

#[test]
fn backtracks_over_packages() {
    // The newest `a` wants a `b` that wants an older `a`.
    check("a 1 | b\na 2 | b==2\nb 1\nb 2 | a<2", "a", "a 1, b 2");
    check(
        "web 1 | base<2\nweb 2 | base>=2\nkit 1 | base<2\nbase 1\nbase 2",
        "web | kit",
        "base 1, kit 1, web 1",
    );
    // Cycles end.
    check("a 1 | b\nb 1 | a", "a", "a 1, b 1");
    check("a 1 | a\n", "a", "a 1");
}

#[test]
fn a_wheel_that_cannot_be_read_is_no_conflict() {
    let told = |index: &str, question: &str| match ask(&Memory::of(index), question) {
        Err(error @ ResolveError::Unreadable { .. }) => (error.to_string(), error.help()),
        Err(error) => panic!("{question}: {error}"),
        Ok(resolution) => panic!("{question}: {}", names(&resolution)),
    };
    let why = "broken-2-py3-none-any.whl: no Name".to_owned();
    let alone = "take another\nno other version of broken is at hand".to_owned();
    assert_eq!(told("broken 2", "broken"), (why.clone(), alone.clone()));
    assert_eq!(told("broken 2\na 1 | broken", "a"), (why.clone(), alone));
    let others = "take another\nyour requirements leave out the other versions of broken: 3, 1";
    let index = "broken 1\nbroken 2\nbroken 3\na 1 | broken<3";
    assert_eq!(told(index, "a | broken>1"), (why, others.to_owned()));
    // It takes no part in this one.
    conflict("broken 1\nbroken 2\na 1 | b>2\nb 1", "broken | a");
}

#[test]
fn a_wheel_that_calls_itself_otherwise_is_told() {
    let mut memory = Memory::of("a 1\na 2");
    let text = Metadata::parse("Name: a\nVersion: 2.1\n").unwrap();
    let two = ("a".parse().unwrap(), "2".parse().unwrap());
    memory.metadata.insert(two, text);
    let resolution = ask(&memory, "a").unwrap();
    let why = "a-2-py3-none-any.whl calls itself a 2.1";
    let warning = format!("a 2 is left out, and 1 taken: {why}");
    assert_eq!(resolution.warnings, [warning]);
    match ask(&memory, "a>1") {
        Err(ResolveError::Unreadable { wheel, .. }) => {
            assert_eq!((wheel.code, &*wheel.why), ("imgdecl::wheel::other", why));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn extras_bring_their_own() {
    let index = "
        a 1 | !extra x | !extra y | !extra all | b ; extra == 'x' | c ; extra == 'y' | a[x,y] ; extra == 'all' | d
        a 2 | !extra x | e>5 ; extra == 'x' | d
        b 1
        c 1
        d 1
        e 1
    ";
    check(index, "a", "a 2, d 1");
    check(index, "a[x]", "a[x] 1, b 1, d 1");
    check(index, "a[all]", "a[all] 2, d 1");
    let resolution = check(index, "a[all]<2", "a[all,x,y] 1, b 1, c 1, d 1");
    let a = &resolution.packages[&"a".parse().unwrap()];
    assert_eq!(a.requires.len(), 3);
    let resolution = check(index, "a[nope]", "a[nope] 2, d 1");
    assert_eq!(resolution.warnings, ["a 2 has no extra `nope`"]);
}

#[test]
fn local_versions_match_their_public_one() {
    let index = "t 1.2.3\nt 1.2.3+cpu\nt 1.2.4+cpu\nu 1 | t==1.2.3";
    check(index, "t==1.2.3", "t 1.2.3+cpu");
    check(index, "t<=1.2.3", "t 1.2.3+cpu");
    check(index, "t>1.2.3", "t 1.2.4+cpu");
    check(index, "u | t", "t 1.2.3+cpu, u 1");
    check(index, "u | t==1.2.3+cpu", "t 1.2.3+cpu, u 1");
    conflict(index, "u | t==1.2.4+cpu");
    conflict("t 1.0\nt 1.0.post1", "t>1.0");
}

/// As uv 0.13 has it, also where a requirement names a pre-release.
#[test]
fn pre_releases_only_where_nothing_else_is() {
    let index = "a 1\na 2rc1\nb 1rc1\nb 1rc2\nc 1 | a>=2rc1\nd 1 | a";
    check(index, "a", "a 1");
    check(index, "b", "b 1rc2");
    check(index, "a>1", "a 2rc1");
    check(index, "a>=1rc1", "a 1");
    check(index, "a | !pre", "a 2rc1");
    check(index, "c", "a 2rc1, c 1");
    check(index, "d | !c a>=0rc1", "a 1, d 1");
    conflict(index, "a<1");
    conflict("a 2rc1", "a<2");
}

#[test]
fn yanked_files_only_by_an_exact_pin() {
    let index = "a 1\na 2 | !yanked broken\nb 1 | a==2";
    check(index, "a", "a 1");
    let resolution = check(index, "a==2", "a 2");
    assert_eq!(resolution.warnings, ["a 2 was yanked: broken"]);
    check(index, "b | !c a==2.0", "a 2, b 1");
    let conflict = conflict(index, "b");
    assert!(
        conflict.explanation.contains("was yanked (broken)"),
        "{}",
        conflict.explanation
    );
}

#[test]
fn the_python_must_be_new_enough_and_never_too_new() {
    let index = "
        a 1 | !python >=3.8
        a 2 | !python >=3.12
        b 1 | !python >=3.8,<3.11
        c 1
        c 2 | !needs >=3.12
        d 1 | !python >=3.11.5
    ";
    check(index, "a", "a 1");
    check(index, "b", "b 1");
    check(index, "c", "c 1");
    check(index, "d", "d 1");
    let conflict = conflict(index, "a>1");
    assert!(
        conflict
            .explanation
            .contains("a>1 needs Python >=3.12, and this is 3.11.9"),
        "{}",
        conflict.explanation
    );
    assert!(ask(&Memory::of(index), "d | !python 3.11").is_err());
}

#[test]
fn markers_on_the_patch_version_are_warned_of() {
    let index = "a 1 | b ; python_full_version < '3.11.3' | c ; python_version < '3.12' | d ; platform_release >= '6'\nb 1\nc 1\nd 1";
    let resolution = check(index, "a", "a 1, c 1");
    assert!(
        resolution.warnings.iter().all(|it| it.contains("kernel")),
        "{:?}",
        resolution.warnings
    );
    let resolution = check(index, "a | !python 3.11", "a 1, b 1, c 1");
    let warning = resolution
        .warnings
        .iter()
        .find(|it| it.contains("patch version"))
        .unwrap();
    assert!(
        warning.contains("of a 1") && warning.contains("3.11.0"),
        "{warning}"
    );
    assert_eq!(resolution.warnings.len(), 2);
}

#[test]
fn the_best_wheel_of_a_version_is_taken() {
    let index = "
        a 1 | !wheel cp311-cp311-manylinux_2_17_x86_64 | !wheel py3-none-any | !wheel cp311-cp311-win_amd64
        a 2 | !wheel cp311-cp311-macosx_11_0_arm64 | !wheel cp312-cp312-manylinux_2_17_x86_64 | !sdist
        b 1 | !wheel 1-py3-none-any | !wheel 2-py3-none-any | !wheel py3-none-any
        s 1 | !sdist
    ";
    let resolution = check(index, "a | b", "a 1, b 1");
    let file = |name: &str| &*resolution.packages[&name.parse().unwrap()].candidate.file;
    assert_eq!(file("a"), "a-1-cp311-cp311-manylinux_2_17_x86_64.whl");
    assert_eq!(file("b"), "b-1-2-py3-none-any.whl");
    let none = conflict(index, "a==2");
    assert!(
        none.explanation
            .contains("a==2 has no wheel for linux-x86_64-glibc2.36-cp311"),
        "{}",
        none.explanation
    );
    assert!(
        none.hints
            .iter()
            .any(|it| it == "  for macOS: a-2-cp311-cp311-macosx_11_0_arm64.whl"),
        "{:?}",
        none.hints
    );
    assert!(
        none.hints
            .iter()
            .any(|it| it.contains("for CPython 3.12: a-2")),
        "{:?}",
        none.hints
    );
    let sources = conflict(index, "s");
    assert!(
        sources.help().contains("only sources\nbuild a wheel of s"),
        "{}",
        sources.help()
    );
    check(index, "a | !libc musl 1.2", "a 1");
}

#[test]
fn wheels_by_url_are_the_only_candidates() {
    let index = "b 2\nc 1 | b<2\nd 1 | b @ https://h/b-1-py3-none-any.whl";
    let mut memory = Memory::of(index);
    let metadata = Metadata::parse("Name: b\nVersion: 1").unwrap();
    memory
        .metadata
        .insert((metadata.name.clone(), metadata.version.clone()), metadata);
    let hash = "0".repeat(64);
    let url = format!("b @ https://h/b-1-py3-none-any.whl#sha256={hash}");
    let resolution = ask(&memory, &format!("c | d | {url}")).unwrap();
    assert_eq!(names(&resolution), "b 1, c 1, d 1");
    let b = &resolution.packages[&"b".parse().unwrap()].candidate;
    assert_eq!((&*b.url, &*b.index), ("https://h/b-1-py3-none-any.whl", ""));
    assert!(b.sha256.is_some());
    assert!(!memory.log.borrow().iter().any(|it| it == "versions b"));
    let error = ask(&memory, "d").unwrap_err();
    assert!(
        error.to_string().contains("only you may ask for"),
        "{error}"
    );
    assert!(ask(&memory, &format!("b>=2 | {url}")).is_err());
}

#[test]
fn conflicts_are_explained_with_their_lines() {
    let index = "web 1 | core>=2\ncore 1\ncore 2\nother 1";
    let conflict = conflict(index, "web | core<2 | other");
    assert_eq!(
        conflict.explanation,
        "Because web needs core>=2 and you ask for web, your requirements need core>=2.\n\
         And because you ask for core<2, your requirements exclude each other."
    );
    let places: Vec<&str> = conflict
        .places
        .iter()
        .map(|(place, _)| place.text().trim())
        .collect();
    assert_eq!(places, ["core<2", "web"]);
}

#[test]
fn nothing_there_is_said() {
    let index = "a 1 | missing\na 2 | down\nb 1";
    let none = conflict(index, "a<2");
    assert_eq!(
        none.explanation,
        "Because missing is in no index and a<=1 needs missing, a<=1 cannot be used.\n\
         And because you ask for a<2, your requirements exclude each other."
    );
    assert_eq!(none.hints.len(), 1);
    assert!(none.hints[0].starts_with("only `memory` was asked"));
    let none = conflict(index, "b | bb>=2");
    assert_eq!(none.explanation, "bb is in no index");
    assert_eq!(none.hints[0], "did you mean `b` or `bbb`?");
    let none = conflict(index, "b>7");
    assert!(
        none.explanation.contains("there is no version >7 of b"),
        "{}",
        none.explanation
    );
    assert_eq!(none.hints, ["the newest versions of b are 1"]);
    let error = ask(&Memory::of(index), "a").unwrap_err();
    assert_eq!(
        error.to_string(),
        "down cannot be had: HTTP 503 (needed by a)"
    );
    let ResolveError::Index { place, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(place.unwrap().text(), "a");
    let resolution = check("broken 1\nbroken 2", "broken", "broken 1");
    assert_eq!(
        resolution.warnings,
        ["broken 2 is left out, and 1 taken: broken-2-py3-none-any.whl: no Name"]
    );
    // Only what is newer than what is taken was taken away.
    let resolution = check("broken 1\nbroken 2\nbroken 3", "broken", "broken 3");
    assert!(resolution.warnings.is_empty());
    check("broken 2\na 1\na 2 | broken", "a", "a 1");
    let resolution = check("broken 2\na 1\na 2 | broken", "a", "a 1");
    assert_eq!(
        resolution.warnings,
        ["broken 2 is left out: broken-2-py3-none-any.whl: no Name"]
    );
}

#[test]
fn all_that_no_index_has_is_said_at_once() {
    let memory = Memory::of("a 1 | missing\nb 1");
    let question = "bb>=2 | b | down | zz ; sys_platform == 'win32' | cc | bb";
    let error = ask(&memory, question).unwrap_err();
    let ResolveError::Unknown(unknown) = &error else {
        panic!("{error}");
    };
    let places: Vec<Vec<&str>> = unknown
        .iter()
        .map(|it| it.places.iter().map(|place| place.text().trim()).collect())
        .collect();
    assert_eq!(places, [vec!["bb>=2", "bb"], vec!["cc"]]);
    assert_eq!(error.to_string(), "bb and cc are in no index");
    assert_eq!(
        error.help(),
        "r.txt:1: bb, did you mean `b` or `bbb`?\n\
         r.txt:1: cc, did you mean `ccb`?\n\
         only `memory` was asked: name the index that has them under `[index]`; if they are packages of your own, point \
         `find_links` at a folder with wheels of them"
    );
    // What only another package needs is none of them.
    let one = conflict("a 1 | missing", "a | cc");
    assert_eq!(one.explanation, "cc is in no index");
    let many: Vec<String> = (10..30).map(|it| format!("no-{it}")).collect();
    let error = ask(&memory, &many.join(" | ")).unwrap_err();
    let text = error.to_string();
    assert!(text.ends_with("no-21 and 8 more are in no index"), "{text}");
    assert!(
        error.help().contains("\nand 8 more\nonly "),
        "{}",
        error.help()
    );
}

#[test]
fn fetches_ahead() {
    let memory = Memory::of("a 1 | b<2 | c\nb 1\nb 2\nc 1");
    ask(&memory, "a").unwrap();
    let log = memory.log.borrow();
    let at = |what: &str| {
        log.iter()
            .position(|it| it == what)
            .unwrap_or_else(|| panic!("{what}: {log:?}"))
    };
    // Both before the first of them is waited for, and each with the version that will be wanted.
    assert!(at("prefetch b 1") < at("versions b"));
    assert!(at("prefetch c 1") < at("versions b"));
    let mut once: Vec<&String> = log.iter().collect();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), log.len(), "{log:?}");
}

/// Many versions that do not fit: the older ones are fetched in batches, and the package that conflicts is decided first.
#[test]
fn many_versions_are_fetched_in_batches() {
    let mut index = "urllib 1.25\nurllib 1.26\n".to_owned();
    for number in 0..300 {
        let urllib = if number < 20 { "<1.26" } else { ">=1.26" };
        index += &format!("core 1.{number} | urllib{urllib}\nkit 1.{number} | core==1.{number}\n");
    }
    let memory = Memory::of(&index);
    let resolution = ask(&memory, "kit | urllib<1.26").unwrap();
    assert_eq!(names(&resolution), "core 1.19, kit 1.19, urllib 1.25");
    let log = memory.log.borrow();
    let ahead = log
        .iter()
        .filter(|it| it.starts_with("prefetch core"))
        .count();
    assert!(ahead > 100, "{ahead}");
}

/// An order of decisions that would try every pair of versions.
#[test]
fn what_conflicts_often_is_decided_first() {
    let mut index = "base 1\nbase 2\n".to_owned();
    for number in 0..150 {
        index += &format!("left 1.{number} | mid>=1\nright 1.{number} | base<2\n");
        index += &format!(
            "mid 1.{number} | base>={}\n",
            if number == 0 { 1 } else { 2 }
        );
    }
    let resolution = ask(&Memory::of(&index), "left | right").unwrap();
    assert_eq!(
        names(&resolution),
        "base 1, left 1.149, mid 1.0, right 1.149"
    );
}
