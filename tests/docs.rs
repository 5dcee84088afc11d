//! What the documents say works: every manifest in them is one, and the examples build.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::golden::Case;
use crate::support::{Output, Space, copy, peer, validate};

/// What may be wrong with a manifest in a document: it names files and targets that are elsewhere.
const ELSEWHERE: &[&str] = &[
    "imgdecl::base::unreadable",
    "imgdecl::host::missing",
    "imgdecl::spec::member",
    "imgdecl::spec::unknown_target",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn readme() -> String {
    fs::read_to_string(root().join("README.md")).expect("README.md")
}

/// Returns all documents in Markdown but those of examples, each with its path from the project's folder.
fn documents() -> Vec<(PathBuf, String)> {
    let mut paths = Vec::new();
    for folder in ["", "docs", "bench"] {
        let entries = fs::read_dir(root().join(folder)).expect("a folder of documents");
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        paths.extend(names.map(|name| Path::new(folder).join(name)));
    }
    paths.retain(|path| path.extension().is_some_and(|it| it == "md"));
    paths.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(root().join(&path)).expect("a document");
        (path, text)
    };
    paths.into_iter().map(read).collect()
}

/// Returns the blocks of a document in Markdown that begin with a line such as `toml`, behind the backticks.
fn blocks(text: &str, kind: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<(&str, String)> = None;
    for line in text.lines() {
        let fence = line.trim_start().strip_prefix("```");
        match (&mut open, fence) {
            (None, Some(kind)) => open = Some((kind, String::new())),
            (None, None) => {}
            (Some(_), Some("")) => blocks.extend(open.take()),
            (Some((_, block)), _) => {
                block.push_str(line);
                block.push('\n');
            }
        }
    }
    assert!(open.is_none(), "a block is not closed");
    let fitting = blocks.into_iter().filter(|(it, _)| *it == kind);
    fitting.map(|(_, block)| block).collect()
}

/// Returns the places that links of a document in Markdown lead to.
fn links(text: &str) -> Vec<&str> {
    let links = text.split("](").skip(1);
    links
        .filter_map(|rest| Some(rest.split_once(')')?.0))
        .collect()
}

/// Plans a manifest, and fails where anything is wrong but what lies elsewhere.
fn check_manifest(block: &str, place: &str) {
    let space = Space::new();
    let mut text = block.to_owned();
    if !text.contains("[image.") {
        text.push_str(
            "\n[image.of-the-test]\nbase = \"scratch\"\nlayers = [{ files = { text = { \"/x\" = \"x\" } } }]\n",
        );
    }
    space.write("image.toml", &text);
    for name in ["requirements.txt", "pyproject.toml", "uv.lock"] {
        space.write(name, "");
    }
    // Variables of git need a commit and a tag.
    if text.contains("git") {
        let Some(git) = peer("git") else { return };
        let who = [
            "-c",
            "user.name=nobody",
            "-c",
            "user.email=nobody@test.example",
        ];
        for args in [
            &["init", "--quiet"][..],
            &["commit", "--quiet", "--allow-empty", "--message", "first"],
            &["tag", "v1"],
        ] {
            let output = Output::of(space.program(&git).args(who).args(args));
            assert_eq!(output.status, 0, "git {args:?}: {}", output.stderr);
        }
    }
    let output = space.run(&["plan"]);
    let codes = output
        .stderr
        .lines()
        .filter(|line| line.starts_with("imgdecl::"));
    let wrong = codes.filter(|code| !ELSEWHERE.contains(code)).count();
    let known = output.status == 0 || output.stderr.contains("imgdecl::");
    assert!(
        wrong == 0 && known && output.status <= 2,
        "{place}, exit code {}:\n{block}\n{}",
        output.status,
        output.stderr
    );
}

/// Finds the folders of a name.
fn find(folder: &Path, name: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        if !entry.file_type().is_ok_and(|it| it.is_dir()) {
            continue;
        }
        match entry.file_name() == name {
            true => found.push(entry.path()),
            false => find(&entry.path(), name, found),
        }
    }
}

/// A copy of the examples and what lies beside them, without what was built there.
fn with_examples() -> Space {
    let space = Space::new();
    copy(&root().join("examples"), &space.path().join("examples"));
    for name in ["image.toml.example", "LICENSE-MIT", "LICENSE-APACHE"] {
        let text = fs::read_to_string(root().join(name)).expect(name);
        space.write(name, text);
    }
    let mut built = Vec::new();
    find(space.path(), "imgdecl-out", &mut built);
    built
        .iter()
        .for_each(|path| fs::remove_dir_all(path).expect("a copy"));
    // build.sh compiles it; what it does is not the matter here.
    space.write("examples/hello-cloud/hello", "not a program\n");
    let hello = space.path().join("examples/hello-cloud/hello");
    fs::set_permissions(hello, fs::Permissions::from_mode(0o755)).expect("a program");
    space
}

/// A block `toml` of a document is an image.toml.
#[test]
fn manifests_of_the_documents_are_right() {
    let mut seen = BTreeSet::new();
    for (path, text) in documents() {
        for (number, block) in (1..).zip(&blocks(&text, "toml")) {
            check_manifest(block, &format!("{}, block {number}", path.display()));
            seen.insert(path.clone());
        }
    }
    for name in ["README.md", "docs/manifest.md", "docs/python.md"] {
        assert!(seen.contains(Path::new(name)), "{name} has no manifest");
    }
}

/// A block `toml config` of a document is a config.toml.
#[test]
fn configs_of_the_documents_are_right() {
    let mut count = 0;
    for (path, text) in documents() {
        for (number, block) in (1..).zip(&blocks(&text, "toml config")) {
            let space = Space::new();
            space.write("config.toml", block);
            space.write(
                "image.toml",
                "[image.app]\nbase = \"scratch\"\nlayers = [{ files = { text = { \"/x\" = \"x\" } } }]\n",
            );
            let mut command = space.command(&["build", "--output", "none"]);
            let output = Output::of(command.env("IMGDECL_CONFIG", "config.toml"));
            let place = format!("{}, config {number}", path.display());
            assert_eq!(output.status, 0, "{place}:\n{block}\n{}", output.stderr);
            count += 1;
        }
    }
    assert!(count > 0, "no document has a config.toml");
}

/// Every link to a file leads to one, and the README leads to every page of docs/.
#[test]
fn links_of_the_documents_lead_somewhere() {
    for (path, text) in documents() {
        let folder = path.parent().expect("a folder");
        let files = links(&text)
            .into_iter()
            .filter(|link| !link.contains("://"));
        for file in files.filter_map(|link| link.split('#').next()) {
            assert!(
                root().join(folder).join(file).exists(),
                "{} has a link to {file}",
                path.display()
            );
        }
    }
    let readme = readme();
    let linked = links(&readme);
    for (path, _) in documents() {
        let name = path.to_str().expect("a name in UTF-8");
        assert!(
            name == "README.md" || linked.contains(&name),
            "README.md has no link to {name}"
        );
    }
}

/// How long the README may be, in bytes: whoever is new reads all of it.
const README: usize = 7 << 10;

#[test]
fn the_readme_is_short_and_has_the_commands_of_the_example() {
    let readme = readme();
    assert!(readme.len() <= README, "{} bytes", readme.len());
    let script = fs::read_to_string(root().join("examples/hello-cloud/build.sh"));
    let script = script.expect("build.sh");
    let manifest = fs::read_to_string(root().join("examples/hello-cloud/image.toml"));
    let manifest = manifest.expect("image.toml");
    assert!(blocks(&readme, "sh").contains(&script), "{script}");
    // But for the comment at its head.
    let manifest = manifest.split_once("\n\n").expect("a comment").1;
    assert!(
        blocks(&readme, "toml").iter().any(|it| it == manifest),
        "{manifest}"
    );
}

#[test]
fn manifests_of_the_reference_are_right() {
    for rule in imgdecl::parts::rule::RULES {
        let space = Space::new();
        let output = space.ok(&["rules", rule.name()]);
        let blocks = blocks(&output.stdout, "toml");
        assert!(
            !blocks.is_empty(),
            "the reference of {} has no example",
            rule.name()
        );
        for (number, block) in (1..).zip(&blocks) {
            check_manifest(
                block,
                &format!("imgdecl rules {}, block {number}", rule.name()),
            );
        }
    }
}

#[test]
fn the_table_of_the_readme_is_that_of_the_code() {
    let table = Space::new().ok(&["rules"]).stdout;
    assert!(table.contains("| `files` |"), "{table}");
    assert!(
        readme().contains(&table),
        "README.md must have this table, as `imgdecl rules` prints it:\n\n{table}"
    );
}

#[test]
fn the_example_manifest_builds() {
    let space = with_examples();
    let output = space.ok(&["build", "./image.toml.example"]);
    assert!(!output.stdout.is_empty());
    let layout = validate(&space.path().join("imgdecl-out"));
    assert_eq!(layout.images.len(), output.stdout.lines().count());
}

#[test]
fn the_examples_build() {
    let space = with_examples();
    let mut count = 0;
    for entry in fs::read_dir(space.path().join("examples"))
        .expect("examples")
        .flatten()
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !entry.path().join("image.toml").exists() {
            continue;
        }
        // What builds on an image of a public registry is built by a test of its own, on another base.
        if fs::read_to_string(entry.path().join("image.lock")).is_ok() {
            let plan = space.ok(&["plan", &format!("examples/{name}")]);
            assert!(
                plan.stderr.contains("image.lock lacks `python`"),
                "{}",
                plan.stderr
            );
            assert_eq!(plan.stderr.lines().count(), 1, "{}", plan.stderr);
            continue;
        }
        let output = space.ok(&["build", &format!("examples/{name}")]);
        let layout = validate(&entry.path().join("imgdecl-out"));
        assert_eq!(layout.images.len(), output.stdout.lines().count(), "{name}");
        count += 1;
    }
    assert!(count >= 2, "only {count} examples");
}

/// Every key of every rule stands in the example manifest, commented out or not.
#[test]
fn the_example_manifest_has_every_key() {
    let text = fs::read_to_string(root().join("image.toml.example")).expect("image.toml.example");
    let words: BTreeSet<&str> = text
        .split(|it: char| !it.is_alphanumeric() && it != '_')
        .collect();
    for rule in imgdecl::parts::rule::RULES {
        for key in rule.keys() {
            assert!(
                words.contains(key.name),
                "`{}` of rule {}",
                key.name,
                rule.name()
            );
        }
    }
}

/// The JSON schema takes what the tool takes.
#[test]
fn the_schema_takes_the_golden_manifests() {
    let schema: Value = serde_json::from_str(&Space::new().ok(&["schema"]).stdout).expect("JSON");
    let mut compiler = boon::Compiler::new();
    compiler
        .add_resource("http://schema.invalid/", schema)
        .expect("a schema");
    let mut schemas = boon::Schemas::new();
    let index = compiler
        .compile("http://schema.invalid/", &mut schemas)
        .unwrap_or_else(|error| panic!("{error:#}"));
    let check = |name: &str| {
        let path = root().join("golden").join(name).join("image.toml");
        let text = fs::read_to_string(path).expect("a manifest");
        let value: Value = toml::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        schemas
            .validate(&value, index)
            .map_err(|error| format!("golden/{name}: {error:#}"))
    };
    for case in Case::all().iter().filter(|case| case.succeeds()) {
        check(&case.name).unwrap_or_else(|error| panic!("{error}"));
    }
    for name in [
        "spec/bad-unknown-key",
        "spec/bad-unknown-rule",
        "spec/bad-type",
    ] {
        assert!(check(name).is_err(), "the schema takes golden/{name}");
    }
}
