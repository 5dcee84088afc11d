//! Looking at images: what `inspect`, `diff` and `verify` say of targets, layouts, archives and images in registries.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use imgdecl::parts::oci::{Descriptor, Digest, MediaType};
use serde_json::{Value, json};

use crate::support::registry::{Image, Server, Setup};
use crate::support::{Output, Space, copy, peer};

/// Writes a workspace: an image for two platforms, in two layers, of which the second hides a file of the first.
fn write_app(space: &Space) {
    space.write("first/a", "first a, hidden later\n");
    space.write("first/b", "b\n");
    space.write("second/a", "second a\n");
    space.write(
        "image.toml",
        "[files.first]\nsrc = \"first\"\ndest = \"/app\"\n\n[files.second]\nsrc = \"second\"\ndest = \"/app\"\nmode = \"0755\"\n\n\
         [image.app]\nbase = \"scratch\"\nlayers = [\"first\", \"second\"]\nentrypoint = [\"/app/a\"]\n\
         env = { A = \"b\" }\nuser = \"7\"\nplatforms = [\"linux/amd64\", \"linux/arm64\"]\n",
    );
}

fn json(output: &Output) -> Value {
    serde_json::from_str(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", output.stdout))
}

/// A tar as `docker save` wrote it before it knew OCI: of a layout's image for one platform.
fn docker_archive(layout: &Path, manifest: &Value, to: &Path) {
    let blob = |digest: &str| {
        let hex = digest.strip_prefix("sha256:").expect("sha256");
        fs::read(layout.join("blobs/sha256").join(hex)).expect("a blob")
    };
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder
            .append_data(&mut header, name, bytes)
            .expect("memory");
    };
    add("config.json", &blob(&text(&manifest["config"]["digest"])));
    let mut names = Vec::new();
    for layer in manifest["layers"].as_array().expect("layers") {
        let name = format!("{}/layer.tar", names.len());
        add(&name, &blob(&text(&layer["digest"])));
        names.push(name);
    }
    let list = json!([{"Config": "config.json", "RepoTags": ["team/app:1"], "Layers": names}]);
    add("manifest.json", list.to_string().as_bytes());
    fs::write(to, builder.into_inner().expect("memory")).expect("an archive");
}

#[test]
fn inspect_says_the_same_wherever_an_image_is() {
    let space = Space::new();
    write_app(&space);
    let outputs = ["--output", "oci:out", "--output", "oci-archive:out.tar"];
    space.ok(&[&["build"][..], &outputs].concat());
    let layout = space.path().join("out");
    let server = Server::start(Setup::default());
    server.load("team/app", "1", &Image::of_layout(&layout, Some("app")));
    let remote = format!("docker://{}/team/app:1", server.host());

    let look = |word: &str, more: &[&str]| {
        let args = [&["inspect", word, "--format", "json"][..], more].concat();
        json(&space.ok(&args))
    };
    let all = ["--files", "--waste"];
    let target = look("app", &all);
    assert_eq!(target["source"], "target");
    let words = [
        "oci:out:app",
        "out",
        "out:app",
        "oci-archive:out.tar",
        "out.tar",
        &remote,
    ];
    for word in words {
        let other = look(word, &all);
        assert_ne!(other["source"], "target", "{word}");
        for key in [
            "digest",
            "media_type",
            "size",
            "platforms",
            "other_platforms",
        ] {
            assert_eq!(other[key], target[key], "{word}: {key}");
        }
    }
    assert_eq!(look(&remote, &[])["tags"], json!(["1"]));

    // What the layers hold.
    let amd64 = &target["platforms"][0];
    assert_eq!(amd64["platform"], "linux/amd64");
    assert_eq!(amd64["config"]["config"]["User"], "7");
    let first = &amd64["layers"][0];
    assert_eq!(
        (&first["rule"], &first["target"]),
        (&json!("files"), &json!("first"))
    );
    let paths = first["files"].as_array().expect("files").iter();
    let paths: Vec<&str> = paths.filter_map(|it| it["path"].as_str()).collect();
    assert_eq!(paths, ["app/", "app/a", "app/b"]);
    assert_eq!(first["files"][2]["digest"], json!(Digest::of(b"b\n")));
    assert_eq!(amd64["wasted_bytes"], 22);
    assert_eq!(
        amd64["wasted"],
        json!([{"path": "app/a", "layer": 1, "hidden_by": 2, "size": 22}])
    );

    // No layer of a registry is fetched unless it is asked for; a platform that nobody asks for is not even looked at.
    let fresh = Space::new();
    server.rewind();
    fresh.ok(&["inspect", &remote, "--platform", "linux/arm64"]);
    let layers = amd64["layers"].as_array().expect("layers").iter();
    let mut digests: Vec<&str> = layers.filter_map(|it| it["digest"].as_str()).collect();
    digests.extend(amd64["digest"].as_str());
    for request in server.log() {
        let line = request.line();
        assert!(!digests.iter().any(|it| line.contains(it)), "{line}");
    }

    // An archive of docker's has no manifest, and the rest is the same.
    docker_archive(
        &layout,
        &amd64["manifest"],
        &space.path().join("docker.tar"),
    );
    for word in [
        "docker-archive:docker.tar",
        "docker-archive:docker.tar:team/app:1",
    ] {
        let docker = look(word, &all);
        assert_eq!(docker["digest"], Value::Null);
        let only = &docker["platforms"][0];
        assert_eq!(only["config_digest"], amd64["config_digest"]);
        for (one, other) in [0, 1].map(|it| (&only["layers"][it], &amd64["layers"][it])) {
            for key in ["digest", "size", "diff_id", "files", "created_by"] {
                assert_eq!(one[key], other[key], "{key}");
            }
        }
        let args = ["diff", "--platform", "linux/amd64", word, "app"];
        assert!(space.ok(&args).stdout.starts_with("equal"));
    }
    let wrong = space.run(&["inspect", "docker-archive:docker.tar:team/other:1"]);
    assert!(wrong.stderr.contains("team/app:1"), "{}", wrong.stderr);
}

#[test]
fn raw_bytes_are_exact() {
    let space = Space::new();
    write_app(&space);
    let looked = json(&space.ok(&["inspect", "app", "--format", "json"]));
    let raw = |more: &[&str]| {
        let args = [&["inspect", "app", "--raw"][..], more].concat();
        let output = space.command(&args).output().expect("the binary");
        assert!(output.status.success(), "{more:?}");
        json!(Digest::of(&output.stdout))
    };
    let amd64 = &looked["platforms"][0];
    let only = ["--platform", "linux/amd64"];
    assert_eq!(raw(&[]), looked["digest"]);
    assert_eq!(
        raw(&[&["--config"][..], &only].concat()),
        amd64["config_digest"]
    );
    assert_eq!(raw(&only), amd64["digest"]);
    let second = raw(&[&["--layer", "2"][..], &only].concat());
    assert_eq!(second, amd64["layers"][1]["digest"]);
    let output = space.run(&["inspect", "app", "--raw", "--config"]);
    assert_eq!(output.status, 2);
    assert!(output.stderr.contains("linux/arm64"), "{}", output.stderr);
    let output = space.run(&["inspect", "app", "--layer", "3"]);
    assert_eq!(output.status, 2, "{}", output.stderr);
}

#[test]
fn a_word_is_a_target_before_it_is_anything_else() {
    let space = Space::new();
    write_app(&space);
    // A folder and a file of the names of targets.
    fs::create_dir(space.path().join("app")).expect("a folder");
    let source =
        |word: &str| json(&space.ok(&["inspect", word, "--format", "json"]))["source"].clone();
    assert_eq!(source("app"), "target");
    space.ok(&["build", "--output", "oci:other"]);
    assert_eq!(source("other"), "layout");
    // A slip of the pen asks no registry, and a reference none of a manifest that is wrong.
    let slip = space.run(&["inspect", "ap"]);
    assert_eq!(slip.status, 2);
    assert!(
        slip.stderr.contains("did you mean `app`?"),
        "{}",
        slip.stderr
    );
    assert!(!slip.stderr.contains("HEAD"), "{}", slip.stderr);
    space.write("image.toml", "[image.app]\nbase = 7\n[");
    assert_eq!(source("oci:other:app"), "layout");
    assert_eq!(source("other:app"), "layout");
    assert_eq!(space.run(&["inspect", "app"]).status, 2);
}

/// An image that is made by hand.
#[derive(Clone)]
struct Made {
    platform: (&'static str, &'static str),
    layers: Vec<Vec<Entry>>,
    /// How layers are compressed.
    packing: Packing,
    config: Value,
    annotations: BTreeMap<String, String>,
}

#[derive(Clone, Copy, PartialEq)]
enum Packing {
    Plain,
    Gzip,
    Zstd,
}

#[derive(Clone)]
struct Entry {
    path: &'static str,
    content: Vec<u8>,
    mode: u32,
    uid: u64,
    mtime: u64,
    xattr: Option<&'static str>,
}

fn entry(path: &'static str, content: &str) -> Entry {
    Entry {
        path,
        content: content.as_bytes().to_vec(),
        mode: 0o644,
        uid: 0,
        mtime: 0,
        xattr: None,
    }
}

fn made() -> Made {
    Made {
        platform: ("linux", "amd64"),
        layers: vec![
            vec![entry("a", "alpha"), entry("b", "beta")],
            vec![entry("c", "gamma")],
        ],
        packing: Packing::Gzip,
        config: json!({"Env": ["A=1", "B=2"], "Labels": {"x.y": "z"}}),
        annotations: BTreeMap::from([("one".to_owned(), "1".to_owned())]),
    }
}

impl Made {
    fn tar(entries: &[Entry]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for entry in entries {
            if let Some(value) = entry.xattr {
                let records = [("SCHILY.xattr.user.x", value.as_bytes())];
                builder.append_pax_extensions(records).expect("memory");
            }
            let mut header = tar::Header::new_ustar();
            header.set_size(entry.content.len() as u64);
            header.set_mode(entry.mode);
            header.set_uid(entry.uid);
            header.set_gid(0);
            header.set_mtime(entry.mtime);
            builder
                .append_data(&mut header, entry.path, &entry.content[..])
                .expect("memory");
        }
        builder.into_inner().expect("memory")
    }

    /// Writes a layout with images, as one index if there are several.
    fn write(all: &[Self], folder: &Path) {
        let blobs = folder.join("blobs/sha256");
        fs::create_dir_all(&blobs).expect("folders");
        let put = |kind: MediaType, bytes: &[u8]| {
            fs::write(blobs.join(Digest::of(bytes).hex()), bytes).expect("a blob");
            Descriptor::of(kind, bytes)
        };
        let mut roots = Vec::new();
        for made in all {
            let (mut layers, mut diff_ids) = (Vec::new(), Vec::new());
            for entries in &made.layers {
                let tar = Self::tar(entries);
                diff_ids.push(Digest::of(&tar).to_string());
                layers.push(match made.packing {
                    Packing::Plain => put(MediaType::OciLayer, &tar),
                    Packing::Gzip => {
                        let mut writer =
                            flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                        writer.write_all(&tar).expect("memory");
                        put(MediaType::OciLayerGzip, &writer.finish().expect("memory"))
                    }
                    Packing::Zstd => {
                        let packed = zstd::encode_all(&tar[..], 3).expect("memory");
                        put(MediaType::OciLayerZstd, &packed)
                    }
                });
            }
            let (os, architecture) = made.platform;
            let config = json!({
                "os": os, "architecture": architecture, "config": made.config,
                "rootfs": {"type": "layers", "diff_ids": diff_ids},
            });
            let config = put(MediaType::OciConfig, config.to_string().as_bytes());
            let manifest = json!({
                "schemaVersion": 2, "mediaType": MediaType::OciManifest, "config": config,
                "layers": layers, "annotations": made.annotations,
            });
            let mut root = put(MediaType::OciManifest, manifest.to_string().as_bytes());
            root.platform = Some(format!("{os}/{architecture}").parse().expect("a platform"));
            roots.push(root);
        }
        let root = match &roots[..] {
            [one] => one.clone(),
            all => {
                let index = json!({
                    "schemaVersion": 2, "mediaType": MediaType::OciIndex, "manifests": all,
                });
                put(MediaType::OciIndex, index.to_string().as_bytes())
            }
        };
        let index = json!({"schemaVersion": 2, "manifests": [root]});
        fs::write(folder.join("index.json"), index.to_string()).expect("an index");
        fs::write(
            folder.join("oci-layout"),
            r#"{"imageLayoutVersion":"1.0.0"}"#,
        )
        .expect("a file");
    }
}

/// What `diff` finds between two layouts, all of it.
fn differences(space: &Space, a: &[Made], b: &[Made]) -> Vec<Value> {
    for (name, made) in [("a", a), ("b", b)] {
        let folder = space.path().join(name);
        let _ = fs::remove_dir_all(&folder);
        Made::write(made, &folder);
    }
    let output = space.run(&["diff", "oci:a", "oci:b", "--all", "--format", "json"]);
    let found = json(&output);
    let list = found["differences"].as_array().expect("a list").clone();
    assert_eq!(found["equal"], json!(list.is_empty()));
    assert_eq!(
        output.status,
        i32::from(!list.is_empty()),
        "{}",
        output.stderr
    );
    // The first one alone is the first of all.
    let first = space.run(&["diff", "oci:a", "oci:b", "--format", "json"]);
    assert_eq!(
        json(&first)["differences"][0],
        list.first().cloned().unwrap_or_default()
    );
    list
}

#[test]
fn diff_finds_each_kind_of_difference() {
    let space = Space::new();
    let one = made();
    let a = std::slice::from_ref(&one);
    assert!(differences(&space, a, a).is_empty());

    type Change = fn(&mut Made);
    let cases: &[(Change, &[(&str, &str)])] = &[
        (
            |it| {
                it.annotations
                    .insert("one".into(), "2".into())
                    .map_or((), drop)
            },
            &[
                ("level", "manifest"),
                ("field", "annotations.one"),
                ("a", "\"1\""),
                ("b", "\"2\""),
            ],
        ),
        (
            |it| it.config["Env"][1] = "B=3".into(),
            &[
                ("level", "config"),
                ("field", "config.Env[1]"),
                ("b", "\"B=3\""),
            ],
        ),
        (
            |it| it.config["User"] = "7".into(),
            &[
                ("level", "config"),
                ("field", "config.User"),
                ("a", "absent"),
            ],
        ),
        (
            |it| it.layers.truncate(1),
            &[
                ("level", "layer"),
                ("field", "number of layers"),
                ("a", "2"),
                ("b", "1"),
            ],
        ),
        (
            |it| it.layers[0].truncate(1),
            &[
                ("level", "entry"),
                ("entry", "b"),
                ("a", "file, 4 bytes"),
                ("b", "absent"),
            ],
        ),
        (
            |it| it.layers[0].push(entry("d", "")),
            &[
                ("level", "entry"),
                ("entry", "d"),
                ("a", "absent"),
                ("b", "file"),
            ],
        ),
        (
            |it| it.layers[0][1].mode = 0o600,
            &[
                ("level", "header"),
                ("entry", "b"),
                ("field", "mode"),
                ("a", "0644"),
                ("b", "0600"),
            ],
        ),
        (
            |it| it.layers[0][1].uid = 9,
            &[("level", "header"), ("field", "uid"), ("b", "9")],
        ),
        (
            |it| it.layers[0][1].mtime = 9,
            &[("level", "header"), ("field", "mtime"), ("b", "9")],
        ),
        (
            |it| it.layers[0][1].xattr = Some("v"),
            &[
                ("level", "header"),
                ("field", "PAX record SCHILY.xattr.user.x"),
                ("b", "v"),
            ],
        ),
        (
            |it| it.layers[0][1].content = b"best".to_vec(),
            &[
                ("level", "content"),
                ("entry", "b"),
                ("a", "\"ta\""),
                ("b", "\"st\""),
            ],
        ),
        (
            |it| it.layers[0][1].content = b"be".to_vec(),
            &[("level", "content"), ("b", "it ends there")],
        ),
        (
            |it| it.layers[0].reverse(),
            &[("level", "tar"), ("a", "a"), ("b", "b")],
        ),
        (
            |it| it.platform = ("linux", "s390x"),
            &[
                ("level", "platform"),
                ("platform", "linux/amd64"),
                ("b", "lacks it"),
            ],
        ),
    ];
    for (number, (change, expected)) in cases.iter().enumerate() {
        let mut other = one.clone();
        change(&mut other);
        let found = differences(&space, a, &[other]);
        let first = found
            .first()
            .unwrap_or_else(|| panic!("case {number}: equal"));
        for (key, value) in *expected {
            assert_eq!(first[*key], *value, "case {number}: {first}");
        }
        // One change is one difference, but that a platform in place of another is two.
        let is_platform = first["level"] == "platform";
        assert_eq!(
            found.len(),
            1 + usize::from(is_platform),
            "case {number}: {found:?}"
        );
        let text = space.run(&["diff", "oci:a", "oci:b"]).stdout;
        assert!(text.contains("different: "), "{text}");
    }

    // The offset is that of the content, also far behind what is held in memory at once.
    let mut long = one.clone();
    long.layers[0][1].content = vec![b'x'; 300_000];
    let mut other = long.clone();
    other.layers[0][1].content[270_001] = b'y';
    let found = differences(&space, &[long], &[other]);
    assert_eq!(found[0]["offset"], 270_001);
}

#[test]
fn diff_says_that_compression_alone_differs() {
    let space = Space::new();
    let packed = |packing: Packing| {
        let mut other = made();
        other.packing = packing;
        other
    };
    for packing in [Packing::Zstd, Packing::Plain] {
        let found = differences(&space, &[made()], &[packed(packing)]);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found.iter().all(|it| it["level"] == "compression"));
        let text = space.run(&["diff", "oci:a", "oci:b"]).stdout;
        assert!(
            text.contains("the same tar, compressed differently"),
            "{text}"
        );
    }
}

#[test]
fn diff_walks_through_indexes() {
    let space = Space::new();
    let arm = Made {
        platform: ("linux", "arm64"),
        ..made()
    };
    let mut changed = arm.clone();
    changed.layers[1][0].content = b"gemma".to_vec();
    let found = differences(&space, &[made(), arm.clone()], &[made(), changed]);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["platform"], "linux/arm64");
    assert_eq!(
        (&found[0]["layer"], &found[0]["offset"]),
        (&json!(2), &json!(1))
    );
    // The platform of one image alone.
    assert!(differences(&space, &[made(), arm], &[made()]).is_empty());
    let only = ["diff", "oci:a", "oci:b", "--platform", "linux/amd64"];
    assert!(space.ok(&only).stdout.starts_with("equal"));
}

#[test]
fn diff_compares_one_image_with_that_of_an_index() {
    let space = Space::new();
    let of = |architecture: &'static str| Made {
        platform: ("linux", architecture),
        ..made()
    };
    let index = [made(), of("arm64")];
    // The image that the index has is equal to it, on either side.
    let equal = |a: &[Made], b: &[Made], name: &str| {
        assert!(differences(&space, a, b).is_empty());
        let text = space.ok(&["diff", "oci:a", "oci:b"]).stdout;
        let said =
            format!("{name} is an index: its image for linux/amd64 is compared\nequal: sha256:");
        assert!(text.starts_with(&said), "{text}");
    };
    equal(&index, &[made()], "oci:a");
    equal(&[made()], &index, "oci:b");
    let found = json(&space.ok(&["diff", "oci:a", "oci:b", "--format", "json"]));
    assert_eq!(found["platform"], "linux/amd64");
    // Where it is another one, that is said of its bytes, and each side is on its own side.
    let mut other = made();
    other.layers[1][0].content = b"gemma".to_vec();
    for (a, b, sides) in [
        (
            &index[..],
            std::slice::from_ref(&other),
            ["\"amma\"", "\"emma\""],
        ),
        (
            std::slice::from_ref(&other),
            &index[..],
            ["\"emma\"", "\"amma\""],
        ),
    ] {
        let found = differences(&space, a, b);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0]["platform"], "linux/amd64");
        assert_eq!([&found[0]["a"], &found[0]["b"]], sides);
        let text = space.run(&["diff", "oci:a", "oci:b"]).stdout;
        assert_eq!(text.matches("is an index: its image").count(), 1, "{text}");
    }
    // Without one for the platform, it is said which there are.
    let found = differences(&space, &[of("s390x")], &index);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(
        (&found[0]["level"], &found[0]["platform"]),
        (&json!("platform"), &json!("linux/s390x"))
    );
    assert_eq!(found[0]["b"], "lacks it, and has linux/amd64, linux/arm64");
}

#[test]
fn layers_are_checked_before_they_are_believed() {
    let space = Space::new();
    let folder = space.path().join("a");
    Made::write(&[made()], &folder);
    let looked = json(&space.ok(&["inspect", "oci:a", "--format", "json"]));
    let digest = looked["platforms"][0]["layers"][1]["digest"].clone();
    let hex = digest.as_str().and_then(|it| it.strip_prefix("sha256:"));
    let path = folder.join("blobs/sha256").join(hex.expect("a digest"));
    let whole = fs::read(&path).expect("a layer");
    let mut damaged = whole.clone();
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    for bytes in [
        &damaged[..],
        &whole[..last],
        &[&whole[..], b"x"].concat(),
        b"",
    ] {
        fs::write(&path, bytes).expect("a layer");
        let output = space.run(&["inspect", "oci:a"]);
        assert_eq!(output.status, 1, "{}", output.stdout);
        assert!(
            output.stderr.contains("imgdecl::image::damaged"),
            "{}",
            output.stderr
        );
        // The other layer is shown all the same.
        assert_eq!(
            output.stdout.matches(" entries").count(),
            1,
            "{}",
            output.stdout
        );
        let raw = space.run(&["inspect", "oci:a", "--raw", "--layer", "2"]);
        let is_longer = bytes.len() > whole.len();
        // What follows the layer's end is not written.
        assert_eq!(raw.status, i32::from(!is_longer), "{}", raw.stderr);
    }
    fs::remove_file(&path).expect("a layer");
    assert_eq!(space.run(&["inspect", "oci:a"]).status, 1);
}

#[test]
fn nothing_in_a_layer_moves_the_cursor() {
    let space = Space::new();
    let mut odd = made();
    odd.layers[0][0].path = "\u{1b}]0;title\u{7}\nnext\u{202e}";
    odd.config["Entrypoint"] = json!(["\u{1b}[2J"]);
    Made::write(&[odd.clone()], &space.path().join("a"));
    odd.layers[0][0].mode = 0;
    Made::write(&[odd], &space.path().join("b"));
    for args in [
        &["inspect", "oci:a", "--files"][..],
        &["inspect", "oci:a", "--files", "--format", "json"],
        &["diff", "oci:a", "oci:b"],
        &["diff", "oci:a", "oci:b", "--format", "json"],
    ] {
        let text = space.run(args).stdout;
        assert!(text.contains("title"), "{args:?}: {text}");
        let obeyed = |it: char| it.is_control() && it != '\n' || it == '\u{202e}';
        assert!(!text.contains(obeyed), "{args:?}: {text:?}");
    }
    let files = json(&space.ok(&["inspect", "oci:a", "--files", "--format", "json"]));
    let path = &files["platforms"][0]["layers"][0]["files"][0]["path"];
    assert_eq!(path, "\u{1b}]0;title\u{7}\nnext\u{202e}");
}

/// Every file below a folder, with its bytes and mode.
fn tree(folder: &Path, into: &mut BTreeMap<String, (u32, Vec<u8>)>) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => tree(&path, into),
            false => {
                let mode = fs::metadata(&path).expect("a file").permissions().mode();
                let bytes = fs::read(&path).expect("a file");
                into.insert(path.display().to_string(), (mode, bytes));
            }
        }
    }
}

#[test]
fn the_examples_are_verified() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let space = Space::new();
    // The example of a workspace needs a base from a registry: a golden case stands for it.
    let names = ["hello-cloud", "static-site", "workspace"];
    for (name, folder) in names
        .into_iter()
        .zip(["examples", "examples", "golden/spec"])
    {
        copy(&root.join(folder).join(name), &space.path().join(name));
    }
    // build.sh compiles it; what it does is not the matter here. That others alone may execute it counts as well.
    let hello = space.write("hello-cloud/hello", "not a program\n");
    fs::set_permissions(hello, fs::Permissions::from_mode(0o645)).expect("a mode");
    let mut before = BTreeMap::new();
    tree(space.path(), &mut before);
    for name in names {
        let output = space.ok(&["verify", &format!("{name}/")]);
        assert!(
            output.stdout.contains(" equal sha256:"),
            "{}",
            output.stdout
        );
        assert!(output.stdout.contains("varied: "), "{}", output.stdout);
    }
    let mut after = BTreeMap::new();
    tree(space.path(), &mut after);
    assert!(before == after, "verify wrote into the workspace");
}

#[test]
fn verify_finds_what_is_not_the_same_twice() {
    let space = Space::new();
    write_app(&space);
    let text = fs::read_to_string(space.path().join("image.toml")).expect("image.toml");
    let label = "labels = { rev = \"${git.commit}\" }\n";
    space.write("image.toml", format!("{text}{label}"));
    // A git that names another commit each time.
    let git = space.path().with_file_name("bin/git");
    fs::create_dir_all(git.parent().expect("a folder")).expect("a folder");
    let script = "#!/bin/sh\ncase \"$*\" in *'rev-parse HEAD') ;; *) exit 1 ;; esac\necho x >> \"$COUNT\"\nwc -l < \"$COUNT\" | tr -d ' '\n";
    fs::write(&git, script).expect("a script");
    fs::set_permissions(&git, fs::Permissions::from_mode(0o755)).expect("a mode");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = [git.parent().expect("a folder").to_owned()].into_iter();
    let path = std::env::join_paths(folders.chain(std::env::split_paths(&path))).expect("PATH");
    let mut command = space.command(&["verify", "app", "--format", "json"]);
    command.env("PATH", path);
    command.env("COUNT", space.path().with_file_name("count"));
    let output = Output::of(&mut command);
    assert_eq!(output.status, 1, "{}", output.stderr);
    let found = json(&output);
    assert_eq!(found["equal"], false);
    let difference = &found["images"][0]["difference"];
    assert_eq!(difference["field"], "config.Labels.rev");
}

#[test]
fn verify_compares_with_what_is_elsewhere() {
    let space = Space::new();
    write_app(&space);
    space.ok(&["build", "--output", "oci:out"]);
    let server = Server::start(Setup::default());
    let layout = space.path().join("out");
    server.load("team/app", "1", &Image::of_layout(&layout, Some("app")));
    let remote = format!("{}/team/app:1", server.host());
    for against in ["oci:out", "oci:out:app", &remote] {
        let output = space.ok(&["verify", "--against", against]);
        assert!(output.stdout.contains("app equal"), "{}", output.stdout);
    }
    // One image of an index is not the index.
    space.ok(&["build", "--platform", "linux/amd64", "--output", "oci:one"]);
    let output = space.run(&["verify", "--against", "oci:one"]);
    assert_eq!(output.status, 1, "{}", output.stderr);
    assert!(output.stdout.contains("media type"), "{}", output.stdout);
    space.write("second/a", "second b\n");
    for against in ["oci:out", &remote] {
        let output = space.run(&["verify", "app", "--against", against]);
        assert_eq!(output.status, 1, "{}", output.stderr);
        let expected = "layer 2 (imgdecl files second), app/a, content, at byte 7";
        assert!(output.stdout.contains(expected), "{}", output.stdout);
    }
    let text = fs::read_to_string(space.path().join("image.toml")).expect("image.toml");
    space.write(
        "image.toml",
        format!("{text}\n[image.more]\nbase = \"scratch\"\nlayers = [\"first\"]\n"),
    );
    let output = space.run(&["verify", "--against", &remote]);
    assert_eq!(output.status, 2, "{}", output.stderr);
}

#[test]
fn verify_fetches_nothing_that_is_at_hand() {
    let server = Server::start(Setup::default());
    let folder = Space::new();
    Made::write(&[made()], &folder.path().join("base"));
    let base = Image::of_layout(&folder.path().join("base"), None);
    server.load("team/base", "1", &base);
    let space = Space::new();
    space.write("src/a", "a\n");
    space.write(
        "image.toml",
        format!(
            "[base.base]\nimage = \"{}/team/base:1\"\n\n[image.app]\nbase = \"base\"\n\
             layers = [{{ files = {{ src = \"src\", dest = \"/app\" }} }}]\n",
            server.host()
        ),
    );
    space.ok(&["build"]);
    server.rewind();
    let output = space.ok(&["verify"]);
    assert!(output.stdout.contains("app equal"), "{}", output.stdout);
    assert!(server.log().is_empty(), "{}", server.story());
    space.ok(&["verify", "--offline"]);
}

#[test]
fn verify_says_the_same_of_git() {
    let Some(git) = peer("git") else { return };
    let space = Space::new();
    space.write("shared/notes", "outside of the workspace\n");
    space.write("service/src/a", "a\n");
    space.write(
        "service/image.toml",
        "[image.app]\nbase = \"scratch\"\nlayers = [{ files = { src = \"src\", dest = \"/app\" } }]\n\
         labels = { rev = \"${git.commit}${git.dirty}\" }\n",
    );
    let who = [
        "-c",
        "user.name=nobody",
        "-c",
        "user.email=nobody@test.example",
    ];
    let run = |args: &[&str]| {
        let output = Output::of(space.program(&git).args(who).args(args));
        assert_eq!(output.status, 0, "git {args:?}: {}", output.stderr);
    };
    run(&["init", "--quiet"]);
    run(&["add", "."]);
    run(&["commit", "--quiet", "--message", "first"]);
    let output = space.ok(&["verify", "service/"]);
    assert!(output.stdout.contains("app equal"), "{}", output.stdout);
    space.write("service/src/a", "dirty\n");
    let output = space.ok(&["verify", "service/"]);
    assert!(output.stdout.contains("app equal"), "{}", output.stdout);
}

#[test]
fn skopeo_sees_the_same() {
    let Some(skopeo) = peer("skopeo") else { return };
    let space = Space::new();
    Made::write(&[made()], &space.path().join("out"));
    let run = |args: &[&str]| {
        let output = Output::of(space.program(&skopeo).args(args));
        assert_eq!(output.status, 0, "skopeo {args:?}: {}", output.stderr);
        output.stdout
    };
    let ours = |args: &[&str]| space.ok(&[&["inspect"][..], args].concat()).stdout;
    assert_eq!(
        run(&["inspect", "--raw", "oci:out"]),
        ours(&["oci:out", "--raw"])
    );
    let config = run(&["inspect", "--raw", "--config", "oci:out"]);
    assert_eq!(config, ours(&["oci:out", "--raw", "--config"]));
    // Archives as it writes them.
    let look = |word: &str| -> Vec<Value> {
        let looked: Value =
            serde_json::from_str(&ours(&[word, "--files", "--format", "json"])).expect("JSON");
        let layers = looked["platforms"][0]["layers"]
            .as_array()
            .expect("layers")
            .iter();
        layers
            .map(|it| json!([it["diff_id"], it["files"]]))
            .collect()
    };
    let expected = look("oci:out");
    for word in [
        "docker-archive:docker.tar:team/app:1",
        "oci-archive:oci.tar:v1",
    ] {
        run(&["--insecure-policy", "copy", "oci:out", word]);
        assert_eq!(look(word), expected, "{word}");
    }
    let diff = space.ok(&["diff", "oci:out", "oci-archive:oci.tar"]);
    assert!(diff.stdout.starts_with("equal:"), "{}", diff.stdout);
}
