//! `build --profile`: what took how long, as a Chrome trace.

use std::fs;

use serde_json::Value;

use crate::support::Space;

const IMAGE: &str = r#"
[files.code]
text = { "/app/a" = "a" }

[image.app]
base   = "scratch"
layers = ["code"]
"#;

/// Returns the complete events of a trace.
fn trace(space: &Space) -> Vec<Value> {
    let text = fs::read(space.path().join("trace.json")).expect("a trace");
    let trace: Value = serde_json::from_slice(&text).expect("JSON");
    let events = trace["traceEvents"].as_array().expect("events");
    let rows: Vec<&Value> = events.iter().filter(|it| it["ph"] == "M").collect();
    assert_eq!(rows[0]["args"]["name"], "phases");
    for event in events {
        let row = &event["tid"];
        assert!(rows.iter().any(|it| it["tid"] == *row), "{event}");
    }
    let complete = events.iter().filter(|it| it["ph"] == "X");
    complete.cloned().collect()
}

#[test]
fn a_profile_has_phases_and_actions_within_them() {
    let space = Space::new();
    space.write("image.toml", IMAGE);
    space.ok(&["build", "--profile", "trace.json"]);
    let events = trace(&space);
    let named = |name: &str| {
        let found = events.iter().find(|it| it["name"] == name);
        found.unwrap_or_else(|| panic!("no {name} in {events:?}"))
    };
    let phases = [
        "read manifests",
        "plan and lock",
        "run actions",
        "write outputs",
    ];
    let mut end = 0;
    for name in phases {
        let phase = named(name);
        assert!(phase["ts"].as_u64().expect("a time") >= end);
        end = phase["ts"].as_u64().expect("a time") + phase["dur"].as_u64().expect("a time");
    }
    let run = named("run actions");
    let end = |event: &Value| {
        event["ts"].as_u64().expect("a time") + event["dur"].as_u64().expect("a time")
    };
    for (name, outcome) in [("layer code", "built"), ("image app", "built")] {
        let action = named(name);
        assert_eq!(action["args"]["outcome"], outcome);
        assert!(action["ts"].as_u64() >= run["ts"].as_u64() && end(action) <= end(run));
    }
    // A second one replaces it, and says that nothing ran.
    space.ok(&["build", "--profile", "trace.json"]);
    let again = trace(&space);
    assert!(
        again.iter().all(|it| it["args"]["outcome"] != "built"),
        "{again:?}"
    );
    assert!(again.iter().any(|it| it["args"]["outcome"] == "hit"));
}

#[test]
fn a_file_that_is_no_trace_is_never_replaced() {
    let space = Space::new();
    space.write("image.toml", IMAGE);
    let output = space.run(&["build", "--profile", "image.toml"]);
    assert_ne!(output.status, 0);
    assert!(output.stderr.contains("image.toml"), "{}", output.stderr);
    let text = fs::read_to_string(space.path().join("image.toml")).expect("the manifest");
    assert_eq!(text, IMAGE);
}
