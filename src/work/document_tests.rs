//! Tests of documents on their way: made by the tests' own rule, kept, and attached wherever images go.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use super::build::{self, build};
use super::push::{self, push};
use super::testing::{Ear, session};
use super::{Choice, Failed, Session};
use crate::oci::{Descriptor, Digest, Index, REF_NAME, Referrer};
use crate::output::{Output, metadata};
use crate::source::{Archive, Layout};

#[path = "../../tests/support/registry"]
#[allow(dead_code, reason = "the integration tests use more of it")]
mod registry {
    mod auth;
    mod image;
    mod message;
    mod quirks;
    mod repositories;
    mod rule;
    mod server;

    pub(super) use quirks::Quirks;
    pub(super) use rule::Rule;
    pub(super) use server::{Server, Setup};
}

#[path = "../../tests/support/daemon.rs"]
#[allow(dead_code, reason = "the integration tests use more of it")]
mod daemon;

use registry::{Quirks, Rule, Server, Setup};

/// The kind of the documents that the tests' own rule makes.
const KIND: &str = "application/vnd.example.words";

/// A folder with a manifest of two images: one for two platforms, one for one.
struct Place {
    folder: tempfile::TempDir,
    session: Session,
    ear: Arc<Ear>,
}

impl Place {
    fn new(registry: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (session, ear) = session(folder.path());
        let place = Self {
            folder,
            session,
            ear,
        };
        place.write("one", registry);
        place
    }

    /// Writes the manifest; `text` is what the image `one` holds.
    fn write(&self, text: &str, registry: &str) {
        let manifest = format!(
            r#"
            [image.two]
            base = "scratch"
            layers = [{{ files = {{ text = {{ "/two" = "two" }} }} }}]
            platforms = ["linux/amd64", "linux/arm64"]
            repository = "{registry}/team/two"

            [image.one]
            base = "scratch"
            layers = [{{ files = {{ text = {{ "/one" = "{text}" }} }} }}]
            repository = "{registry}/team/one"
            "#
        );
        fs::write(self.path("image.toml"), manifest).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn build(&self, outputs: &[&str], with: build::Request) -> Vec<Output> {
        let outputs = outputs.iter().map(|word| word.parse().unwrap()).collect();
        build(&self.session, &build::Request { outputs, ..with }).unwrap()
    }
}

/// A build with documents.
fn with_words() -> build::Request {
    build::Request {
        documents: vec!["words"],
        ..build::Request::default()
    }
}

fn entries(layout: &Path) -> Vec<Descriptor> {
    let index = fs::read(layout.join("index.json")).unwrap();
    serde_json::from_slice::<Index>(&index).unwrap().manifests
}

fn blob(layout: &Path, digest: &Digest) -> Vec<u8> {
    let bytes = fs::read(layout.join("blobs/sha256").join(digest.hex())).unwrap();
    assert_eq!(Digest::of(&bytes), *digest);
    bytes
}

/// Checks the documents of a layout: returns what each is about, and its words. All else in the layout must be of images.
fn words(layout: &Path) -> BTreeMap<Digest, String> {
    let mut found = BTreeMap::new();
    let mut used = BTreeSet::new();
    let mut seen_document = false;
    for entry in entries(layout) {
        used.insert(entry.digest);
        if !entry.is_document() {
            assert!(!seen_document, "documents come last");
            assert!(entry.annotations.contains_key(REF_NAME));
            continue;
        }
        seen_document = true;
        assert_eq!(entry.artifact_type.as_deref(), Some(KIND));
        let names: Vec<&str> = entry.annotations.keys().map(String::as_str).collect();
        assert_eq!(names, ["com.example.target"]);
        let manifest = blob(layout, &entry.digest);
        let referrer: Referrer = serde_json::from_slice(&manifest).unwrap();
        assert_eq!(referrer.to_bytes(), manifest);
        assert_eq!(referrer.kind(), KIND);
        assert_eq!(blob(layout, &referrer.config.digest), b"{}");
        let [document] = &referrer.layers[..] else {
            panic!("{referrer:?}")
        };
        let text = String::from_utf8(blob(layout, &document.digest)).unwrap();
        used.extend([referrer.config.digest, document.digest]);
        found.insert(referrer.subject.digest, text);
    }
    // What an image consists of is checked elsewhere: here, that no document is left that nothing names.
    for file in fs::read_dir(layout.join("blobs/sha256")).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        let digest = Digest::from_hex(&name).unwrap();
        let bytes = blob(layout, &digest);
        let is_of_document = bytes == b"{}"
            || bytes.ends_with(b"\n") && bytes.windows(4).any(|it| it == b" is ")
            || bytes.windows(KIND.len()).any(|it| it == KIND.as_bytes());
        assert!(!is_of_document || used.contains(&digest), "{name} is left");
    }
    found
}

/// Returns what must be said of the images that were built.
fn expected(images: &[Output]) -> BTreeMap<Digest, String> {
    let about = |image: &Output| {
        let name = image.name.clone();
        let subjects = image.subjects().into_iter();
        let words = subjects.map(move |digest| (digest, format!("{name} is {digest}\n")));
        words.collect::<Vec<_>>()
    };
    images.iter().flat_map(about).collect()
}

#[test]
fn documents_go_into_layouts_and_archives() {
    let place = Place::new("r.example");
    let without = place.build(&["oci:before"], build::Request::default());
    assert!(words(&place.path("before")).is_empty());
    place.ear.built();
    let images = place.build(&["oci:out", "oci-archive:out.tar"], with_words());
    assert_eq!(place.ear.built(), ["words"; 4]);
    let digests = |images: &[Output]| -> Vec<Digest> {
        images.iter().map(|it| it.descriptor().digest).collect()
    };
    assert_eq!(digests(&images), digests(&without));
    let out = place.path("out");
    let found = words(&out);
    assert_eq!(found.len(), 4);
    assert_eq!(found, expected(&images));

    let archive = Archive::open(&place.path("out.tar"), place.folder.path(), &|| true).unwrap();
    let layout = Layout::open(&out).unwrap();
    assert_eq!(archive.documents(), layout.documents());
    assert_eq!(layout.documents().len(), 4);
    // Whoever wants an image finds one, by its name.
    assert_eq!(
        layout.select(Some("two")).unwrap().digest,
        images[1].descriptor().digest
    );
    let error = layout.select(None).unwrap_err().to_string();
    assert!(
        error.contains("has 2 images") && error.ends_with("it holds `one`, `two`"),
        "{error}"
    );

    // What scripts hear.
    let told = metadata(&images);
    let one = &told[0]["documents"];
    let [document] = &one.as_array().unwrap()[..] else {
        panic!("{one}")
    };
    assert_eq!(document["artifact_type"], KIND);
    assert_eq!(document["subject"], json!(images[0].descriptor().digest));
    assert_eq!(told[1]["documents"].as_array().map(Vec::len), Some(3));
    assert_eq!(metadata(&without)[0].get("documents"), None);

    // The same archive each time.
    let bytes = fs::read(place.path("out.tar")).unwrap();
    place.build(&["oci-archive:again.tar"], with_words());
    assert_eq!(fs::read(place.path("again.tar")).unwrap(), bytes);
}

#[test]
fn documents_are_made_once_and_again_where_their_bytes_are_gone() {
    let place = Place::new("r.example");
    let images = place.build(&["oci:out"], with_words());
    place.ear.built();
    place.build(&["oci:out"], with_words());
    assert_eq!(place.ear.built(), Vec::<String>::new());
    assert_eq!(words(&place.path("out")), expected(&images));

    // A document, a manifest, and the config that all share.
    let document = &images[0].attached[0].referrer;
    let manifest = Digest::of(&document.to_bytes());
    let cases = [
        (document.layers[0].digest, 1),
        (manifest, 1),
        (document.config.digest, 4),
    ];
    for (digest, count) in cases {
        let mut removed = 0;
        for path in walk(&place.path("cache")) {
            if path.to_string_lossy().ends_with(&digest.hex()) {
                fs::remove_file(path).unwrap();
                removed += 1;
            }
        }
        assert_eq!(removed, 1, "{digest}");
        // Nobody asks for bytes that no output takes.
        place.build(&["none"], with_words());
        assert_eq!(place.ear.built(), Vec::<String>::new());
        let _ = fs::remove_dir_all(place.path("out"));
        let again = place.build(&["oci:out"], with_words());
        let built = place.ear.built();
        assert!((1..=count).contains(&built.len()), "{built:?}");
        assert!(built.iter().all(|it| it == "words"), "{built:?}");
        assert_eq!(words(&place.path("out")), expected(&again));
    }
}

/// Returns all files below a folder.
fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(walk(&path)),
            false => found.push(path),
        }
    }
    found
}

#[test]
fn documents_go_with_the_image_that_they_are_about() {
    let place = Place::new("r.example");
    let out = place.path("out");
    let first = place.build(&["oci:out"], with_words());
    // Built again without documents, the images are the same: what is attached to them stays.
    place.build(&["oci:out"], build::Request::default());
    assert_eq!(words(&out), expected(&first));
    // Another image under a name: the documents about the old one go, and those of others stay.
    place.write("another", "r.example");
    let second = place.build(&["oci:out"], build::Request::default());
    assert_ne!(first[0].descriptor(), second[0].descriptor());
    assert_eq!(words(&out), expected(&second[1..]));
    let third = place.build(&["oci:out"], with_words());
    assert_eq!(words(&out), expected(&third));
    // Another document of the kind takes the place of the old one, and one of another kind stays.
    let mut index: Index =
        serde_json::from_slice(&fs::read(out.join("index.json")).unwrap()).unwrap();
    let subject = third[0].descriptor();
    for kind in [KIND, "x/other"] {
        let document = Descriptor::of(crate::oci::MediaType::OciEmpty, b"{}");
        let about = Referrer::new(kind.to_owned(), document, &subject, BTreeMap::new());
        let bytes = about.to_bytes();
        let entry = about.descriptor(&bytes);
        fs::write(out.join("blobs/sha256").join(entry.digest.hex()), &bytes).unwrap();
        index.manifests.push(entry);
    }
    fs::write(out.join("index.json"), index.to_bytes()).unwrap();
    place.build(&["oci:out"], with_words());
    let kinds: Vec<String> = entries(&out)
        .into_iter()
        .filter_map(|it| it.artifact_type)
        .collect();
    assert_eq!(kinds.len(), 5);
    assert_eq!(kinds.iter().filter(|it| *it == "x/other").count(), 1);
}

#[test]
fn what_cannot_hold_documents_says_so() {
    let mut place = Place::new("r.example");
    place.ear.notes();
    place.build(&["docker-archive:a.tar"], with_words());
    let notes = place.ear.notes();
    let end = "which docker-archive:";
    for name in [
        "one has a document attached",
        "two has 3 documents attached",
    ] {
        let is_it = |it: &&String| it.starts_with(name) && it.contains(end);
        assert!(notes.iter().any(|it| is_it(&it)), "{notes:?}");
    }
    place.build(&["docker-archive:b.tar"], build::Request::default());
    let socket = tempfile::tempdir().unwrap();
    let daemon = daemon::Daemon::start(daemon::Data::default(), socket.path());
    place.session.environment.daemons.docker_host = Some(daemon.host());
    place.ear.notes();
    let request = build::Request {
        load: true,
        ..with_words()
    };
    let images = place.build(&[], request);
    assert_eq!(
        metadata(&images)[0]["load"]["image_id"],
        json!(images[0].images()[0].1.config.digest)
    );
    let notes = place.ear.notes();
    let told = notes
        .iter()
        .find(|it| it.starts_with("two has 3 documents attached"));
    assert!(
        told.is_some_and(|it| it.contains("which Docker 20.10.24 cannot hold")),
        "{notes:?}"
    );
    assert!(daemon.loaded().is_some());
    let same = fs::read(place.path("a.tar")).unwrap() == fs::read(place.path("b.tar")).unwrap();
    assert!(same);
    let notes = place.ear.notes();
    assert!(!notes.iter().any(|it| it.contains("attached")), "{notes:?}");
}

fn server(referrers: bool) -> Server {
    Server::start(Setup {
        quirks: Quirks {
            referrers,
            ..Quirks::default()
        },
        ..Setup::default()
    })
}

/// Returns what a registry has about an image of a repository, as it lists it: by its API, or by the image tag that stands
/// for it.
fn listed(server: &Server, name: &str, subject: &Digest, has_api: bool) -> Vec<String> {
    let repository = server.repository(name);
    let about = |bytes: &[u8]| {
        let manifest: Value = serde_json::from_slice(bytes).unwrap();
        manifest["subject"]["digest"] == json!(subject)
    };
    let manifests = repository.manifests.iter();
    let mut all: Vec<String> = manifests
        .filter(|(_, (_, bytes))| about(bytes))
        .map(|(digest, _)| digest.to_string())
        .collect();
    all.sort();
    let tag = server.tag(name, &format!("sha256-{}", subject.hex()));
    assert_eq!(tag.is_none(), has_api, "{}", server.story());
    if let Some(tag) = tag {
        let list: Index = serde_json::from_slice(&repository.manifests[&tag].1).unwrap();
        let mut listed: Vec<String> = list
            .manifests
            .iter()
            .map(|it| it.digest.to_string())
            .collect();
        listed.sort();
        assert_eq!(listed, all);
        assert!(
            list.manifests
                .iter()
                .all(|it| it.artifact_type.as_deref() == Some(KIND))
        );
    }
    all
}

#[test]
fn documents_go_to_registries() {
    for has_api in [true, false] {
        let server = server(has_api);
        let place = Place::new(server.host());
        let request = || build::Request {
            push: true,
            ..with_words()
        };
        let images = place.build(&["oci:out"], request());
        let check = |server: &Server| {
            for image in &images {
                let name = format!("team/{}", image.name);
                for subject in image.subjects() {
                    let all = listed(server, &name, &subject, has_api);
                    assert_eq!(all.len(), 1, "{}", server.story());
                    let of_subject =
                        |it: &&crate::output::Attached| it.referrer.subject.digest == subject;
                    let attached = image.attached.iter().find(of_subject).unwrap();
                    assert_eq!(
                        all[0],
                        Digest::of(&attached.referrer.to_bytes()).to_string()
                    );
                }
            }
            server.check_tags();
        };
        check(&server);
        let attached = |images: &[Output]| -> Vec<usize> {
            let all = metadata(images);
            let count = |it: &Value| it["push"]["attached"].as_array().unwrap().len();
            all.as_array().unwrap().iter().map(count).collect()
        };
        assert_eq!(attached(&images), [1, 3]);

        // A second push of the same adds nothing, and sends nothing.
        server.rewind();
        let again = place.build(&["oci:out"], request());
        assert_eq!(attached(&again), [0, 0]);
        assert_eq!(
            server.count("PUT *") + server.count("POST *"),
            0,
            "{}",
            server.story()
        );
        check(&server);
        // What is asked for anew is found whole.
        server.rewind();
        place.build(
            &["none"],
            build::Request {
                check: true,
                ..request()
            },
        );
        assert!(server.count("PUT *") > 0);
        check(&server);

        // From a layout it goes the same way; so it does from an archive.
        place.build(&["oci-archive:out.tar"], with_words());
        for from in ["out", "out.tar"] {
            server.clear();
            let request = push::Request {
                from: Some(from.into()),
                ..push::Request::default()
            };
            let pushed = push(&place.session, &request).unwrap();
            assert_eq!(attached(&pushed), [1, 3]);
            check(&server);
        }

        // Without documents, nothing is asked about them.
        server.rewind();
        let plain = place.build(
            &["none"],
            build::Request {
                push: true,
                ..build::Request::default()
            },
        );
        assert_eq!(server.count("* /v2/*/referrers/*"), 0);
        assert_eq!(metadata(&plain)[0]["push"].get("attached"), None);
    }
}

#[test]
fn a_document_that_a_registry_refuses_is_an_error() {
    let server = server(true);
    let place = Place::new(server.host());
    let images = place.build(&["none"], with_words());
    let manifest = Digest::of(&images[0].attached[0].referrer.to_bytes());
    let put = format!("PUT /v2/*/manifests/{manifest}");
    server.rule(Rule::always(&put, 403));
    let request = build::Request {
        push: true,
        choice: Choice::default(),
        ..with_words()
    };
    let Err(Failed::Many(errors)) = build(&place.session, &request) else {
        panic!("it went through\n{}", server.story())
    };
    let [Failed::Action(error)] = &errors[..] else {
        panic!("{errors:?}")
    };
    assert_eq!(error.code, "imgdecl::registry::denied");
    assert!(error.message.contains(&manifest.to_string()), "{error}");
    // The image itself is there.
    assert!(server.tag("team/one", "latest").is_some());
}
