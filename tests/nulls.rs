//! Bases whose documents say `null` where a field may be missing: they are what they are without the field.

use std::fs;
use std::process::Command;

use imgdecl::parts::oci::Digest;
use serde_json::{Value, json};

use crate::support::{Output, Space};

/// A base of one layer, and an image on it.
const IMAGES: &str = r#"
[image.below]
base   = "scratch"
layers = [{ files = { text = { "/etc/os" = "x" } } }]
env    = { A = "1" }
labels = { a = "b" }
user   = "7"

[base.theirs]
BASE

[image.on]
base   = "theirs"
layers = [{ files = { text = { "/f" = "f" } } }]
env    = { B = "${A}" }
"#;

/// The documents of a base: those that others point to come first.
struct Documents {
    config: Value,
    manifest: Value,
    index: Value,
}

fn read(space: &Space, digest: &Value) -> Value {
    let digest = digest.as_str().expect("a digest").replace(':', "/");
    let bytes = fs::read(space.path().join("below/blobs").join(digest)).expect("a blob");
    serde_json::from_slice(&bytes).expect("JSON")
}

impl Documents {
    /// Those of the layout in `below`, with everything that may be in them.
    fn of(space: &Space) -> Self {
        let index = fs::read(space.path().join("below/index.json")).expect("the index");
        let mut index: Value = serde_json::from_slice(&index).expect("JSON");
        let mut manifest = read(space, &index["manifests"][0]["digest"]);
        let mut config = read(space, &manifest["config"]["digest"]);
        let more = json!({
            "urls": [], "annotations": {"a": "b"}, "artifactType": "x/y",
            "platform": {"os": "linux", "architecture": "amd64", "os.features": ["x"], "os.version": "1"},
        });
        let add = |to: &mut Value, more: &Value| {
            for (key, value) in more.as_object().expect("an object") {
                to[key] = value.clone();
            }
        };
        add(&mut manifest["config"], &more);
        add(&mut manifest["layers"][0], &more);
        add(&mut index["manifests"][0], &more);
        index["manifests"][0]["platform"] =
            json!({"os": "linux", "architecture": "amd64", "os.features": ["x"]});
        let about = json!({"annotations": {"a": "b"}, "artifactType": "x/y"});
        add(&mut manifest, &about);
        add(&mut config, &json!({"author": "a", "os.features": ["x"]}));
        let runtime = json!({
            "Cmd": ["x"], "Entrypoint": ["y"], "WorkingDir": "/w", "ExposedPorts": {"80/tcp": {}},
            "Volumes": {"/v": {}}, "StopSignal": "TERM", "Shell": ["/bin/sh"], "OnBuild": ["x"],
        });
        add(&mut config["config"], &runtime);
        Self {
            config,
            manifest,
            index,
        }
    }

    /// Writes a layout in which one of the documents is another.
    fn write(&self, space: &Space, which: usize, edit: &dyn Fn(&mut Value)) {
        let root = space.path().join("base");
        let _ = fs::remove_dir_all(&root);
        crate::support::copy(&space.path().join("below"), &root);
        let mut documents = [
            self.config.clone(),
            self.manifest.clone(),
            self.index.clone(),
        ];
        for at in 0..3 {
            if at == which {
                edit(&mut documents[at]);
            }
            let bytes = documents[at].to_string().into_bytes();
            if at == 2 {
                fs::write(root.join("index.json"), bytes).expect("the index");
                continue;
            }
            let digest = Digest::of(&bytes);
            let place = ["/config", "/manifests/0"][at];
            let descriptor = documents[at + 1].pointer_mut(place).expect("a descriptor");
            descriptor["digest"] = digest.to_string().into();
            descriptor["size"] = bytes.len().into();
            fs::write(root.join("blobs/sha256").join(digest.hex()), bytes).expect("a blob");
        }
    }
}

/// All keys: the pointer of their object (RFC 6901), and the key.
fn keys(value: &Value, at: &str, found: &mut Vec<(String, String)>) {
    let below = |key: &str| format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
    match value {
        Value::Object(map) => {
            for (key, child) in map {
                found.push((at.to_owned(), key.clone()));
                keys(child, &below(key), found);
            }
        }
        Value::Array(list) => {
            for (number, child) in list.iter().enumerate() {
                keys(child, &below(&number.to_string()), found);
            }
        }
        _ => {}
    }
}

/// Removes what is `null`.
fn strip(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, it| !it.is_null());
            map.values_mut().for_each(strip);
        }
        Value::Array(list) => list.iter_mut().for_each(strip),
        _ => {}
    }
}

/// What comes of the base: the config of an image on it, and the root and process of its bundle; or that it is refused.
fn outcome(space: &Space) -> Result<(Value, Value), String> {
    for folder in ["on", "bundle"] {
        let _ = fs::remove_dir_all(space.path().join(folder));
    }
    let run = |args: &[&str]| {
        let output: Output = space.run(args);
        match output.status {
            0 => Ok(output),
            1 | 2 => Err(output.stderr),
            _ => panic!("{args:?}: {output:?}"),
        }
    };
    run(&["inspect", "base"])?;
    run(&["unpack", "base", "bundle", "--bundle"])?;
    run(&["build", "on", "-o", "oci:on", "--platform", "linux/amd64"])?;
    let bundle = fs::read(space.path().join("bundle/config.json")).expect("config.json");
    let index = fs::read(space.path().join("on/index.json")).expect("the index");
    let index: Value = serde_json::from_slice(&index).expect("JSON");
    let blob = |digest: &Value| {
        let digest = digest.as_str().expect("a digest").replace(':', "/");
        let bytes = fs::read(space.path().join("on/blobs").join(digest)).expect("a blob");
        serde_json::from_slice::<Value>(&bytes).expect("JSON")
    };
    let manifest = blob(&index["manifests"][0]["digest"]);
    let mut config = blob(&manifest["config"]["digest"]);
    strip(&mut config);
    Ok((
        config,
        serde_json::from_slice(&bundle).expect("a config.json"),
    ))
}

#[test]
fn layouts_with_null_are_what_they_are_without_the_field() {
    let space = Space::new();
    space.write("image.toml", IMAGES.replace("BASE", r#"layout = "base""#));
    space.ok(&[
        "build",
        "below",
        "-o",
        "oci:below",
        "--platform",
        "linux/amd64",
    ]);
    let documents = Documents::of(&space);
    documents.write(&space, 3, &|_| ());
    outcome(&space).expect("a sound base");
    let all = [&documents.config, &documents.manifest, &documents.index];
    let mut counts = [0; 2];
    for (which, document) in all.into_iter().enumerate() {
        let mut paths = Vec::new();
        keys(document, "", &mut paths);
        for (above, key) in paths {
            // Sets are written as objects: what a key holds says nothing. And Go writes `null` for no diff_ids.
            let is_set = above.ends_with("/ExposedPorts") || above.ends_with("/Volumes");
            if is_set || key == "diff_ids" {
                continue;
            }
            let edited = |value: Option<Value>| {
                documents.write(&space, which, &|document| {
                    let map = document.pointer_mut(&above).and_then(Value::as_object_mut);
                    let map = map.expect("an object");
                    match &value {
                        Some(value) => map.insert(key.clone(), value.clone()),
                        None => map.remove(&key),
                    };
                });
                outcome(&space)
            };
            match (edited(None), edited(Some(Value::Null))) {
                (Ok(without), Ok(with_null)) => {
                    assert!(without == with_null, "{which}: {above}/{key}");
                    counts[0] += 1;
                }
                (Err(_), Err(_)) => counts[1] += 1,
                (without, with_null) => panic!(
                    "{which}: {above}/{key}: without it {without:?}, with null {with_null:?}"
                ),
            }
        }
    }
    assert!(counts[0] > 40 && counts[1] > 10, "{counts:?}");
}

#[test]
fn archives_of_docker_with_null() {
    let space = Space::new();
    space.write(
        "image.toml",
        IMAGES.replace("BASE", r#"archive = "base.tar""#),
    );
    space.ok(&[
        "build",
        "below",
        "-o",
        "docker-archive:a.tar",
        "--platform",
        "linux/amd64",
    ]);
    let tar = |args: &[&str]| {
        let status = Command::new("tar")
            .args(args)
            .current_dir(space.path())
            .status();
        assert!(status.expect("tar").success());
    };
    fs::create_dir(space.path().join("base")).expect("a folder");
    tar(&["-xf", "a.tar", "-C", "base"]);
    // What `docker save` wrote before it knew layouts.
    for name in ["index.json", "oci-layout"] {
        let _ = fs::remove_file(space.path().join("base").join(name));
    }
    let path = space.path().join("base/manifest.json");
    let text = fs::read(&path).expect("manifest.json");
    let sound: Value = serde_json::from_slice(&text).expect("JSON");
    let layers = sound[0]["Layers"].as_array().expect("layers").len();
    assert_eq!(layers, 1);
    for (key, status) in [
        ("RepoTags", 0),
        ("LayerSources", 0),
        ("Parent", 0),
        ("Config", 1),
    ] {
        let mut manifest = sound.clone();
        manifest[0][key] = Value::Null;
        fs::write(&path, manifest.to_string()).expect("manifest.json");
        tar(&["-cf", "base.tar", "-C", "base", "."]);
        let output = space.run(&["build", "on", "-o", "oci:on", "--platform", "linux/amd64"]);
        assert_eq!(output.status, status, "{key}: {}", output.stderr);
    }
}
