//! Failures as JSON, for each command that has `--format json`: docs/json.md says what is in them.

use serde_json::{Value, json};

use crate::support::{BINARY, Output, Space, peer};

/// Runs a command that fails; returns what it says on stdout.
#[track_caller]
fn fails(space: &Space, args: &[&str]) -> Value {
    let output = space.run(args);
    let value: Value = serde_json::from_str(&output.stdout)
        .unwrap_or_else(|error| panic!("{args:?}: {error}\n{}{}", output.stdout, output.stderr));
    assert_eq!(value["version"], 1, "{value:#}");
    assert_eq!(value["exit"], output.status, "{value:#}");
    let errors = value["errors"].as_array().expect("errors");
    assert!(!errors.is_empty(), "{value:#}");
    for error in errors {
        // People are told of the same.
        let code = error["code"].as_str().expect("a code");
        let is_told = output.stderr.contains(code) || code == "imgdecl::cli::arguments";
        assert!(is_told, "{code}\n{}", output.stderr);
        for field in ["message", "causes", "help", "exit", "spans"] {
            assert!(error.get(field).is_some(), "{field}: {error:#}");
        }
    }
    // Nothing that a terminal would obey, and people's words are elsewhere.
    assert!(!output.stdout.contains('\u{1b}'));
    value
}

#[test]
fn all_problems_of_a_manifest_have_their_places() {
    let space = Space::new();
    let text = "# ä\n[image.i]\nbase = \"scratch\"\nlayers = [\"nowhere\"]\nbsae = 1\n";
    space.write("image.toml", text);
    let value = fails(&space, &["build", "--format", "json", "--output", "none"]);
    assert_eq!(value["exit"], 2);
    let errors = value["errors"].as_array().expect("errors");
    assert_eq!(errors.len(), 2, "{value:#}");
    for (error, (line, column, what)) in errors.iter().zip([(4, 11, "nowhere"), (5, 1, "bsae")]) {
        let span = &error["spans"][0];
        assert_eq!(span["file"], "image.toml");
        assert_eq!(
            (&span["line"], &span["column"]),
            (&json!(line), &json!(column))
        );
        let number = |key: &str| span[key].as_u64().expect("a number") as usize;
        let place = &text[number("offset")..number("offset") + number("length")];
        assert_eq!(place.trim_matches('"'), what);
        assert!(span["label"].is_string(), "{span}");
        assert_eq!(error["exit"], 2);
    }
}

#[test]
fn each_command_with_json_has_a_form_for_failures() {
    let space = Space::new();
    space.write(
        "image.toml",
        "[image.i]\nbase = \"scratch\"\nlayers = [{ files = { src = \"gone\", dest = \"/\" } }]\n",
    );
    for (args, code) in [
        (&["build", "--output", "none"][..], "imgdecl::host::missing"),
        (&["build", "nothing"], "imgdecl::cli::target"),
        (&["plan", "nothing"], "imgdecl::cli::target"),
        (&["plan", "--push"], "imgdecl::host::missing"),
        (&["push"], "imgdecl::image::repository"),
        (&["inspect", "oci:gone"], "imgdecl::image::layout"),
        (&["diff", "oci:gone", "oci:gone"], "imgdecl::image::layout"),
        (&["verify", "nothing"], "imgdecl::cli::target"),
        (&["build", "--no-such-flag"], "imgdecl::cli::arguments"),
    ] {
        let value = fails(&space, &[args, &["--format", "json"]].concat());
        assert_eq!(value["errors"][0]["code"], code, "{args:?}: {value:#}");
    }
    let file = space.write("file", "");
    let mut command = space.command(&["cache", "info", "--format=json"]);
    let output = command
        .env("IMGDECL_CACHE_DIR", file)
        .output()
        .expect("imgdecl");
    let value: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(value["errors"][0]["code"], "imgdecl::cache");
    assert_eq!(output.status.code(), Some(1));
}

/// A failure at run time names the place that asked for it; where it lies decides the exit code.
#[test]
fn a_failure_of_a_run_has_a_place_and_causes() {
    let space = Space::new();
    space.write(
        "image.toml",
        "[image.i]\nbase = \"scratch\"\nlayers = [{ files = { src = \"gone\", dest = \"/\" } }]\n",
    );
    let value = fails(&space, &["build", "--output", "none", "--format", "json"]);
    let error = &value["errors"][0];
    assert_eq!((&value["exit"], &error["exit"]), (&json!(1), &json!(1)));
    assert_eq!(error["spans"][0]["line"], 3);
    assert!(
        error["causes"][0]
            .as_str()
            .is_some_and(|it| it.contains("No such file"))
    );
    // The command line can ask for text, and then stdout is empty.
    assert_eq!(space.run(&["build", "--output", "none"]).stdout, "");
}

/// `plan` says why, in words for scripts.
#[test]
fn a_plan_has_a_version_and_reasons() {
    let space = Space::new();
    let manifest = |layers: &str| {
        format!("[files.a]\ntext = {{ \"/a\" = \"1\" }}\n[image.i]\nbase = \"scratch\"\n{layers}\n")
    };
    space.write("image.toml", manifest("layers = [\"a\"]"));
    let plan = || -> Vec<(String, Value)> {
        let output = space.ok(&["plan", "--format", "json"]);
        let plan: Value = serde_json::from_str(&output.stdout).expect("JSON");
        assert_eq!(plan["version"], 1);
        assert_eq!(plan["pushes"], json!([]));
        let nodes = plan["nodes"].as_array().expect("nodes");
        for (at, node) in nodes.iter().enumerate() {
            assert_eq!(node["id"], at);
            assert_eq!(
                node["outcome"] == "build",
                !node["reason"].is_null(),
                "{node}"
            );
        }
        let named = nodes.iter().filter(|it| it["outcome"] != "seen");
        let word = |it: &Value| it["action"].as_str().expect("a word").to_owned();
        named.map(|it| (word(it), it["reason"].clone())).collect()
    };
    let reason = |found: &[(String, Value)], action: &str| {
        let found = found.iter().find(|(it, _)| it == action);
        found.unwrap_or_else(|| panic!("no {action}")).1.clone()
    };
    let first = plan();
    assert_eq!(reason(&first, "layer")["why"], "never_built");
    assert_eq!(reason(&first, "image")["why"], "input_is_built");
    space.ok(&["build", "--output", "none"]);
    assert!(plan().iter().all(|(_, reason)| reason.is_null()));
    space.write(
        "image.toml",
        manifest("layers = [\"a\"]\nenv = { X = \"1\" }"),
    );
    let changed = reason(&plan(), "image");
    assert_eq!(changed["why"], "changed");
    let lines = changed["lines"].as_array().expect("lines");
    assert!(!lines.is_empty(), "{changed}");
    std::fs::remove_dir_all(space.cache().join("blobs-v1")).expect("the blobs");
    std::fs::create_dir(space.cache().join("blobs-v1")).expect("a bucket");
    space.write("image.toml", manifest("layers = [\"a\"]"));
    assert_eq!(reason(&plan(), "layer")["why"], "not_in_cache");
}

#[test]
fn a_dumb_terminal_gets_no_colours() {
    let Some(script) = peer("script") else { return };
    let space = Space::new();
    space.write("image.toml", "[image.i]\nbsae = \"scratch\"\n");
    for (term, has_colours) in [("dumb", false), ("xterm", true)] {
        let mut command = space.program(&script);
        command.args(["-qec", &format!("{BINARY} build"), "/dev/null"]);
        command.env("TERM", term).env_remove("NO_COLOR");
        let output = Output::of(&mut command);
        assert!(
            output.stdout.contains("did you mean `base`?"),
            "{}",
            output.stdout
        );
        assert_eq!(
            output.stdout.contains("\u{1b}["),
            has_colours,
            "{term}: {}",
            output.stdout
        );
    }
}
