//! Documents that are attached to images of layouts: by whoever, for nothing in a manifest makes one yet. How they are made
//! and where they go is tested in `src/work/document_tests.rs`.

use std::fs;
use std::path::Path;

use imgdecl::parts::oci::{Descriptor, Digest, MediaType};
use serde_json::{Value, json};

use crate::support::registry::{Quirks, Server, Setup};
use crate::support::{Output, Space, peer, validate};

const KIND: &str = "application/vnd.example.words";

/// Writes a manifest of an image for two platforms; `text` is what it holds.
fn write(space: &Space, text: &str, registry: &str) {
    space.write(
        "image.toml",
        format!(
            "[image.app]\nbase = \"scratch\"\nlayers = [{{ files = {{ text = {{ \"/a\" = \"{text}\" }} }} }}]\n\
             platforms = [\"linux/amd64\", \"linux/arm64\"]\nrepository = \"{registry}/team/app\"\n"
        ),
    );
}

fn index(layout: &Path) -> Value {
    let bytes = fs::read(layout.join("index.json")).expect("an index");
    serde_json::from_slice(&bytes).expect("JSON")
}

fn put(layout: &Path, bytes: &[u8]) -> Digest {
    let digest = Digest::of(bytes);
    let path = layout.join("blobs/sha256").join(digest.hex());
    fs::write(path, bytes).expect("a blob");
    digest
}

/// Attaches words to the image of a layout, or to its first platform, as `oras attach --oci-layout` does. Returns the digest
/// of the manifest.
fn attach(layout: &Path, words: &str, to_platform: bool) -> Digest {
    let mut index = index(layout);
    let mut subject = index["manifests"][0].clone();
    if to_platform {
        let hex = subject["digest"]
            .as_str()
            .expect("a digest")
            .replace("sha256:", "");
        let bytes = fs::read(layout.join("blobs/sha256").join(hex)).expect("an index");
        let below: Value = serde_json::from_slice(&bytes).expect("JSON");
        subject = below["manifests"][0].clone();
    }
    let keys = subject.as_object_mut().expect("a descriptor");
    keys.retain(|key, _| ["mediaType", "digest", "size"].contains(&key.as_str()));
    for bytes in [b"{}", words.as_bytes()] {
        put(layout, bytes);
    }
    let document = Descriptor::of(MediaType::Other("text/plain".to_owned()), words.as_bytes());
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MediaType::OciManifest, "artifactType": KIND,
        "config": Descriptor::of(MediaType::OciEmpty, b"{}"), "layers": [document],
        "subject": subject, "annotations": { "org.opencontainers.image.created": "2020-01-01T00:00:00Z" },
    });
    let bytes = manifest.to_string().into_bytes();
    let digest = put(layout, &bytes);
    let entries = index["manifests"].as_array_mut().expect("entries");
    entries.push(json!({
        "mediaType": MediaType::OciManifest, "digest": digest, "size": bytes.len(), "artifactType": KIND,
        "annotations": manifest["annotations"],
    }));
    fs::write(layout.join("index.json"), index.to_string()).expect("an index");
    digest
}

/// Returns the words of all documents of a layout.
fn words(layout: &Path) -> Vec<String> {
    let word = |manifest: &Value| {
        let hex = manifest["layers"][0]["digest"].as_str().expect("a digest");
        let path = layout.join("blobs/sha256").join(hex.replace("sha256:", ""));
        fs::read_to_string(path).expect("words")
    };
    let mut words: Vec<String> = validate(layout).documents.iter().map(word).collect();
    words.sort();
    words
}

/// Makes an archive of a layout, as another tool does.
fn archive(layout: &Path, to: &Path) {
    let file = fs::File::create(to).expect("a file");
    let mut builder = tar::Builder::new(file);
    builder.append_dir_all(".", layout).expect("a layout");
    builder.finish().expect("an archive");
}

#[test]
fn images_with_documents_are_read_as_others() {
    let space = Space::new();
    write(&space, "a", "r.example");
    space.ok(&["build", "--output", "oci:plain", "--output", "oci:out"]);
    let out = space.path().join("out");
    attach(&out, "about all", false);
    attach(&out, "about one", true);
    assert_eq!(words(&out), ["about all", "about one"]);
    archive(&out, &space.path().join("out.tar"));
    let inspected = |word: &str| {
        let output = space.ok(&["inspect", word, "--format", "json"]);
        let value: Value = serde_json::from_str(&output.stdout).expect("JSON");
        (value["digest"].clone(), value["platforms"].clone())
    };
    let plain = inspected("oci:plain:app");
    // With its name, and without: there is one image.
    for word in [
        "oci:out:app",
        "oci:out",
        "oci-archive:out.tar:app",
        "oci-archive:out.tar",
    ] {
        assert_eq!(inspected(word), plain, "{word}");
        space.ok(&["diff", word, "oci:plain:app"]);
    }
    // Nor is a document an image where a name is wrong.
    let wrong = space.run(&["inspect", "oci:out:nothing"]);
    assert!(wrong.stderr.contains("it holds `app`"), "{}", wrong.stderr);
    space.ok(&["verify"]);

    // As bases.
    let build = |base: &str| {
        space.write(
            "image.toml",
            format!("[base.b]\n{base}\n\n[image.c]\nbase = \"b\"\nlayers = [{{ files = {{ text = {{ \"/c\" = \"c\" }} }} }}]\n"),
        );
        space.ok(&["lock"]);
        space.ok(&["build", "--output", "oci:c"]);
        validate(&space.path().join("c")).images["c"].digest.clone()
    };
    let expected = build("layout = \"plain\"");
    for base in ["layout = \"out\"", "archive = \"out.tar\""] {
        assert_eq!(build(base), expected, "{base}");
    }
}

#[test]
fn skopeo_copies_the_image_by_its_name() {
    let Some(skopeo) = peer("skopeo") else { return };
    let space = Space::new();
    write(&space, "a", "r.example");
    space.ok(&["build", "--output", "oci:out"]);
    let out = space.path().join("out");
    attach(&out, "about all", false);
    let args = [
        "copy",
        "--quiet",
        "--insecure-policy",
        "--all",
        "oci:out:app",
        "dir:copy",
    ];
    let copied = Output::of(space.program(&skopeo).args(args));
    assert_eq!(copied.status, 0, "{}", copied.stderr);
    let manifest = fs::read(space.path().join("copy/manifest.json")).expect("a manifest");
    let expected = validate(&out).images["app"].digest.clone();
    assert_eq!(Digest::of(&manifest).to_string(), expected);
}

#[test]
fn a_build_leaves_what_is_attached_to_what_stays() {
    let space = Space::new();
    write(&space, "a", "r.example");
    space.ok(&["build", "--output", "oci:out"]);
    let out = space.path().join("out");
    let on_all = attach(&out, "about all", false);
    attach(&out, "about one", true);
    // A document about a document.
    let mut last = index(&out);
    let about_document = json!({
        "schemaVersion": 2, "mediaType": MediaType::OciManifest, "artifactType": KIND,
        "config": Descriptor::of(MediaType::OciEmpty, b"{}"),
        "layers": [Descriptor::of(MediaType::OciEmpty, b"{}")],
        "subject": last["manifests"][1].as_object().map(|it| {
            let keys = ["mediaType", "digest", "size"];
            keys.map(|key| (key, it[key].clone())).into_iter().collect::<std::collections::BTreeMap<_, _>>()
        }),
    });
    assert_eq!(about_document["subject"]["digest"], json!(on_all));
    let bytes = about_document.to_string().into_bytes();
    let digest = put(&out, &bytes);
    last["manifests"].as_array_mut().expect("entries").push(json!({
        "mediaType": MediaType::OciManifest, "digest": digest, "size": bytes.len(), "artifactType": KIND,
    }));
    fs::write(out.join("index.json"), last.to_string()).expect("an index");
    space.ok(&["build", "--output", "oci:out"]);
    assert_eq!(words(&out), ["about all", "about one", "{}"]);
    // Another image: what was about the old one goes with it, and its blobs do.
    write(&space, "b", "r.example");
    space.ok(&["build", "--output", "oci:out"]);
    assert_eq!(words(&out), Vec::<String>::new());
}

#[test]
fn push_takes_along_what_is_attached() {
    for has_api in [true, false] {
        let server = Server::start(Setup {
            quirks: Quirks {
                referrers: has_api,
                ..Quirks::default()
            },
            ..Setup::default()
        });
        let space = Space::new();
        write(&space, "a", server.host());
        space.ok(&["build", "--output", "oci:out"]);
        let out = space.path().join("out");
        let mut attached = [
            attach(&out, "about all", false),
            attach(&out, "about one", true),
        ];
        archive(&out, &space.path().join("out.tar"));
        for from in ["oci:out", "oci-archive:out.tar"] {
            server.clear();
            let args = ["push", "--from", from, "--format", "json"];
            for count in [2, 0] {
                let told: Value = serde_json::from_str(&space.ok(&args).stdout).expect("JSON");
                assert_eq!(told[0]["documents"].as_array().map(Vec::len), Some(2));
                let new = told[0]["push"]["attached"].as_array().map(Vec::len);
                assert_eq!(new, Some(count), "{}", server.story());
            }
            let repository = server.repository("team/app");
            for digest in &attached {
                assert!(
                    repository.manifests.contains_key(digest),
                    "{}",
                    server.story()
                );
            }
            let lists = repository
                .tags
                .keys()
                .filter(|it| it.starts_with("sha256-"));
            assert_eq!(lists.count(), if has_api { 0 } else { 2 });
            server.check_tags();
        }
        attached.reverse();
        // A document whose blob is damaged is refused.
        let damaged = out.join("blobs/sha256").join(attached[0].hex());
        let mut bytes = fs::read(&damaged).expect("a manifest");
        bytes[20] ^= 1;
        fs::write(&damaged, bytes).expect("a manifest");
        let refused = space.run(&["push", "--from", "oci:out"]);
        assert_ne!(refused.status, 0);
        assert!(
            refused.stderr.contains(&attached[0].to_string()),
            "{}",
            refused.stderr
        );
    }
}
