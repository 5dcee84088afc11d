//! Manifests with a subject: the referrers API, and the image tag that stands in for it.

use imgdecl::parts::oci::{Descriptor, Digest, MediaType};
use serde_json::{Value, json};

use super::kit::{Bytes, Rig, assert_says, image};
use crate::support::registry::{Auth, Image, PASSWORD, Quirks, Rule, Server, Setup, USER};

const EMPTY: &[u8] = b"{}";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A manifest about `subject`, and its blob.
fn about(subject: &Descriptor, kind: &str, text: &str) -> (Vec<u8>, Bytes) {
    let layer = Descriptor::of(MediaType::Other("text/plain".to_owned()), text.as_bytes());
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MediaType::OciManifest, "artifactType": kind,
        "config": Descriptor::of(MediaType::OciEmpty, EMPTY), "layers": [layer],
        "subject": Descriptor::new(subject.media_type.clone(), subject.digest, subject.size),
        "annotations": { "about": text },
    });
    let blobs = Image {
        blobs: vec![EMPTY.to_vec(), text.as_bytes().to_vec()],
        ..Image::default()
    };
    (manifest.to_string().into_bytes(), Bytes::of(&[&blobs]))
}

fn without_api() -> Quirks {
    Quirks {
        referrers: false,
        ..Quirks::default()
    }
}

fn fallback(digest: &Digest) -> String {
    format!("sha256-{}", digest.hex())
}

#[test]
fn with_and_without_the_api() {
    for (api, auth) in [
        (true, Auth::default()),
        (false, Auth::default()),
        (false, Auth::token(USER, PASSWORD)),
    ] {
        let quirks = Quirks {
            referrers: api,
            ..Quirks::default()
        };
        let server = Server::start(Setup {
            quirks,
            auth,
            ..Setup::default()
        });
        let image = image(100, &[1000]);
        server.load("a", "1", &image);
        let subject = image.root();
        let rig = Rig::login(&server);
        let at = server.reference("a");
        let none = rig
            .client
            .referrers(&at, &subject.digest, None)
            .expect("none");
        assert_eq!(none, []);
        let mut pushed = Vec::new();
        for (kind, text) in [
            ("text/one", "first"),
            ("text/two", "second"),
            ("text/one", "third"),
        ] {
            let (manifest, blobs) = about(&subject, kind, text);
            let found = rig.client.push_referrer(&at, &manifest, &blobs);
            let found = found.unwrap_or_else(|error| panic!("{api}: {error}\n{}", server.story()));
            assert_eq!(found.digest, Digest::of(&manifest));
            pushed.push(found.digest);
            // The same again changes nothing.
            rig.client
                .push_referrer(&at, &manifest, &blobs)
                .expect("it is there");
        }
        let digests = |kind: Option<&str>| {
            let found = rig.client.referrers(&at, &subject.digest, kind);
            let found = found.unwrap_or_else(|error| panic!("{api}: {error}\n{}", server.story()));
            let mut digests: Vec<Digest> = found.iter().map(|it| it.digest).collect();
            digests.sort();
            (digests, found)
        };
        pushed.sort();
        let (all, found) = digests(None);
        assert_eq!(all, pushed, "{api}\n{}", server.story());
        for descriptor in &found {
            let kind = descriptor.artifact_type.as_deref();
            assert!(
                matches!(kind, Some("text/one" | "text/two")),
                "{descriptor:?}"
            );
            assert!(
                descriptor.annotations.contains_key("about"),
                "{descriptor:?}"
            );
            assert_eq!(descriptor.media_type, MediaType::OciManifest);
        }
        assert_eq!(digests(Some("text/one")).0.len(), 2);
        assert_eq!(digests(Some("text/none")).0.len(), 0);
        let tag = server.tag("a", &fallback(&subject.digest));
        assert_eq!(tag.is_none(), api, "{}", server.story());
        server.check_tags();
    }
}

#[test]
fn the_image_tag_that_stands_in_is_an_index_that_keeps_what_it_held() {
    let server = Server::start(Setup {
        quirks: without_api(),
        ..Setup::default()
    });
    let image = image(101, &[1000]);
    server.load("a", "1", &image);
    let subject = image.root();
    let other = super::kit::image(102, &[10]);
    server.load("a", "other", &other);
    // Another program wrote an entry, with fields that we do not know.
    let index = json!({
        "schemaVersion": 2, "mediaType": INDEX,
        "manifests": [{
            "mediaType": MediaType::OciManifest, "digest": other.root().digest.to_string(),
            "size": other.root().size, "artifactType": "text/theirs", "x-theirs": [1, 2],
        }],
        "annotations": { "theirs": "yes" },
    });
    server.put_manifest(
        "a",
        &fallback(&subject.digest),
        INDEX,
        index.to_string().as_bytes(),
    );
    let (manifest, blobs) = about(&subject, "text/ours", "ours");
    Rig::new()
        .client
        .push_referrer(&server.reference("a"), &manifest, &blobs)
        .expect("a push");
    let repository = server.repository("a");
    let now = repository.tags[&fallback(&subject.digest)];
    let (kind, bytes) = &repository.manifests[&now];
    let now: Value = serde_json::from_slice(bytes).expect("JSON");
    assert_eq!(kind, INDEX);
    assert_eq!(now["manifests"].as_array().map(Vec::len), Some(2), "{now}");
    assert_eq!(now["manifests"][0], index["manifests"][0], "{now}");
    assert_eq!(now["annotations"], index["annotations"], "{now}");
    assert_eq!(now["manifests"][1]["artifactType"], "text/ours", "{now}");
}

#[test]
fn gitlab_names_the_subject_by_that_image_tag() {
    let server = Server::profile("gitlab", USER, PASSWORD);
    let image = image(103, &[1000]);
    server.load("a", "1", &image);
    let subject = image.root();
    let rig = Rig::login(&server);
    let at = server.reference("a");
    let none = rig
        .client
        .referrers(&at, &subject.digest, None)
        .expect("the subject is no index");
    assert_eq!(none, [], "{}", server.story());
    let (manifest, blobs) = about(&subject, "text/ours", "ours");
    rig.client
        .push_referrer(&at, &manifest, &blobs)
        .unwrap_or_else(|error| panic!("{error}\n{}", server.story()));
    let found = rig
        .client
        .referrers(&at, &subject.digest, None)
        .expect("one");
    assert_eq!(found.len(), 1, "{}", server.story());
    assert_eq!(
        server.tag("a", "1"),
        Some(subject.digest),
        "the image itself stays"
    );
}

#[test]
fn two_write_that_image_tag_at_once() {
    let server = Server::start(Setup {
        quirks: without_api(),
        ..Setup::default()
    });
    let image = image(104, &[1000]);
    server.load("a", "1", &image);
    let subject = image.root();
    let at = server.reference("a");
    let (zero, zero_blobs) = about(&subject, "text/zero", "zero");
    let (first, first_blobs) = about(&subject, "text/one", "first");
    let (second, second_blobs) = about(&subject, "text/two", "second");
    let made = Rig::new().client.push_referrer(&at, &zero, &zero_blobs);
    made.expect("a push");
    // One writes between the other's reading and writing: it is seen by If-Match.
    server.rule(Rule {
        delay_ms: 150,
        times: Some(1),
        ..Rule::on("PUT /v2/a/manifests/sha256-*")
    });
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| Rig::new().client.push_referrer(&at, &first, &first_blobs));
        std::thread::sleep(std::time::Duration::from_millis(60));
        Rig::new()
            .client
            .push_referrer(&at, &second, &second_blobs)
            .expect("a push");
        slow.join()
            .expect("no panic")
            .unwrap_or_else(|error| panic!("{error}\n{}", server.story()));
    });
    let found = Rig::new()
        .client
        .referrers(&at, &subject.digest, None)
        .expect("both");
    let digests: Vec<Digest> = found.iter().map(|it| it.digest).collect();
    for manifest in [&zero, &first, &second] {
        assert!(
            digests.contains(&Digest::of(manifest)),
            "{}",
            server.story()
        );
    }
}

#[test]
fn an_api_that_is_broken() {
    for status in [400, 405, 406, 501] {
        let server = Server::start(Setup {
            quirks: without_api(),
            ..Setup::default()
        });
        server.rule(Rule::always("GET /v2/a/referrers/*", status));
        let image = image(105, &[1000]);
        server.load("a", "1", &image);
        let (manifest, blobs) = about(&image.root(), "text/one", "first");
        let rig = Rig::new();
        rig.client
            .push_referrer(&server.reference("a"), &manifest, &blobs)
            .unwrap_or_else(|error| panic!("{status}: {error}\n{}", server.story()));
        let found = rig
            .client
            .referrers(&server.reference("a"), &image.root().digest, None);
        let found = found.unwrap_or_else(|error| panic!("{status}: {error}\n{}", server.story()));
        assert_eq!(found.len(), 1, "{status}: {}", server.story());
    }
    // A page of a proxy is no list.
    let server = Server::plain();
    server.load("a", "1", &image(106, &[10]));
    server.rule(Rule {
        body: Some("<html>".to_owned()),
        ..Rule::always("GET /v2/a/referrers/*", 500)
    });
    let error = Rig::new()
        .client
        .referrers(&server.reference("a"), &Digest::of(b""), None)
        .expect_err("500");
    assert_says(&error, &[server.host(), "500"]);
}
