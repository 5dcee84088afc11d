//! Registries that lost a part of what they were given: garbage collections that went wrong, backups, lost files.

use std::io::{Read, Write};
use std::net::TcpStream;

use imgdecl::parts::oci::{Descriptor, Digest};
use imgdecl::parts::registry::{Ended, Pushed};
use serde_json::json;

use super::kit::{Bytes, Rig, assert_holds, assert_says, code, image};
use crate::support::registry::{Flavour, Image, Mode, Quirks, Real, Rule, Server, Setup};
use crate::support::{Output, Random, Space, peer};

/// An image of two platforms, with a layer that both have.
fn two_platforms(seed: u64) -> Image {
    let mut random = Random(seed);
    let shared = random.bytes(4_000);
    let mut one = |platform: &str| {
        let own = random.bytes(1_000);
        Image::single(platform, &[&shared, &own], json!({}), Flavour::Oci)
    };
    let images = ["linux/amd64", "linux/arm64"].map(|it| (it, one(it)));
    Image::index(&images, false, Flavour::Oci)
}

/// All that can be lost of an image below its root.
fn parts(image: &Image) -> Vec<Digest> {
    let root = image.root().digest;
    let all = image.bytes().into_keys();
    all.filter(|digest| *digest != root).collect()
}

/// What was sent and not there.
fn sent(pushed: &Pushed) -> Vec<Digest> {
    let blobs = pushed.blobs.iter();
    let sent = blobs.filter(|it| it.outcome != Ended::Skipped);
    sent.map(|it| it.digest).collect()
}

#[test]
fn each_part_is_repaired_by_a_checked_push() {
    for image in [image(220, &[3_000, 50]), two_platforms(221)] {
        for lost in parts(&image) {
            let server = Server::plain();
            server.load("a", "1", &image);
            server.lose("a", &lost);
            let rig = Rig::new();
            // Without the check, that the image tag is there says all.
            rig.push(&server, "a:1", &image).expect("a push");
            assert!(server.count("P*") == 0, "{}", server.story());
            let pushed = rig.check(&server, "a:1", &image).expect("a push");
            assert_holds(&server, "a:1", &image);
            assert_eq!(sent(&pushed), [lost], "{}", server.story());
            let notes = rig.monitor.notes();
            let short = &lost.to_string()[..19];
            assert!(
                notes.len() == 1 && notes[0].contains(short) && notes[0].contains("lacked"),
                "{notes:?}"
            );
            Rig::new().fetch(&server.reference("a:1")).expect("a pull");
            // What is whole costs questions alone.
            server.rewind();
            let rig = Rig::new();
            let pushed = rig.check(&server, "a:1", &image).expect("a push");
            assert_eq!(sent(&pushed), []);
            assert_eq!(
                server.count("P*") + server.count("GET *"),
                0,
                "{}",
                server.story()
            );
            assert_eq!(rig.monitor.notes(), [""; 0]);
        }
        // All of it at once.
        let server = Server::plain();
        server.load("a", "1", &image);
        parts(&image).iter().for_each(|lost| server.lose("a", lost));
        Rig::new().check(&server, "a:1", &image).expect("a push");
        assert_holds(&server, "a:1", &image);
    }
}

#[test]
fn each_part_is_repaired_before_an_image_tag_is_set() {
    for image in [image(222, &[3_000, 50]), two_platforms(223)] {
        for lost in parts(&image) {
            // A registry that looks for what a manifest names, and one that does not.
            for lenient in [false, true] {
                let server = Server::start(Setup {
                    quirks: Quirks {
                        lenient,
                        ..Quirks::default()
                    },
                    ..Setup::default()
                });
                server.load("a", "1", &image);
                server.lose("a", &lost);
                Rig::new()
                    .push(&server, "a:2", &image)
                    .unwrap_or_else(|error| panic!("{lost}: {error}\n{}", server.story()));
                assert_holds(&server, "a:2", &image);
            }
        }
    }
}

/// Lets a registry say that it has what it lost: its memory of blobs outlives them (after a garbage collection, until it
/// is started again).
fn remember(server: &Server, part: &Descriptor) {
    server.rule(
        Rule::always(&format!("HEAD *{}", part.digest), 200)
            .header("Docker-Content-Digest", &part.digest.to_string())
            .header("Content-Length", &part.size.to_string()),
    );
}

#[test]
fn every_shape_of_that_refusal_is_understood() {
    let image = two_platforms(224);
    let layer = image.parts[0].layers[1].digest;
    let manifest = image.parts[1].manifest.digest;
    for (lost, status, body) in [
        (
            layer,
            400,
            json!({"errors": [{"code": "MANIFEST_BLOB_UNKNOWN", "detail": layer}]}).to_string(),
        ),
        (
            layer,
            404,
            json!({"errors": [{"code": "BLOB_UNKNOWN", "detail": {"digest": layer}}]}).to_string(),
        ),
        (
            layer,
            422,
            json!({"code": "BLOB_UNKNOWN", "message": "no"}).to_string(),
        ),
        (layer, 409, "manifest blob unknown".to_owned()),
        (
            layer,
            400,
            format!("<html><title>Blob unknown: {layer}</title>"),
        ),
        (
            manifest,
            404,
            json!({"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]})
                .to_string(),
        ),
        (
            manifest,
            400,
            json!({"errors": [{"code": "MANIFEST_BLOB_UNKNOWN", "detail": manifest}]}).to_string(),
        ),
    ] {
        let server = Server::plain();
        server.load("a", "1", &image);
        server.lose("a", &lost);
        // It says so before the manifest is put, and the truth when it is.
        let part = image.parts[0].layers[1].clone();
        let part = if lost == manifest {
            image.parts[1].manifest.clone()
        } else {
            part
        };
        server.rule(Rule {
            times: Some(1),
            ..Rule::always(&format!("HEAD *{lost}"), 200)
                .header("Docker-Content-Digest", &lost.to_string())
                .header("Content-Length", &part.size.to_string())
        });
        server.rule(Rule {
            body: Some(body.clone()),
            ..Rule::once("PUT /v2/a/manifests/2", status)
        });
        let rig = Rig::new();
        rig.push(&server, "a:2", &image)
            .unwrap_or_else(|error| panic!("{body}: {error}\n{}", server.story()));
        assert_holds(&server, "a:2", &image);
        assert_eq!(rig.monitor.notes().len(), 1, "{:?}", rig.monitor.notes());
        assert_eq!(
            server.count("PUT /v2/a/manifests/2"),
            2,
            "{}",
            server.story()
        );
    }
}

#[test]
fn what_a_registry_calls_missing_is_sent_even_where_it_says_that_it_is_there() {
    let image = image(225, &[3_000, 50]);
    let layer = image.parts[0].layers[0].clone();
    let server = Server::plain();
    server.load("a", "1", &image);
    server.lose("a", &layer.digest);
    remember(&server, &layer);
    let rig = Rig::new();
    let pushed = rig.push(&server, "a:2", &image).expect("a push");
    assert_holds(&server, "a:2", &image);
    assert!(sent(&pushed).contains(&layer.digest), "{pushed:?}");
    assert!(pushed.sent >= layer.size, "{pushed:?}");
}

#[test]
fn a_refusal_that_cannot_be_mended_ends() {
    let image = two_platforms(226);
    for body in [
        "MANIFEST_BLOB_UNKNOWN".to_owned(),
        format!("BLOB_UNKNOWN {}", image.parts[0].layers[0].digest),
    ] {
        let server = Server::plain();
        server.load("a", "1", &image);
        server.rule(Rule {
            body: Some(body.clone()),
            ..Rule::always("PUT *manifests*", 400)
        });
        let error = Rig::new()
            .push(&server, "a:2", &image)
            .expect_err("a refusal");
        assert_eq!(code(&error), "imgdecl::registry::refused");
        assert_says(&error, &["BLOB_UNKNOWN", "--check"]);
        assert!(server.count("PUT *manifests*") <= 2, "{}", server.story());
        assert!(server.count("PUT *uploads*") <= 1, "{}", server.story());
        assert_eq!(server.tag("a", "2"), None);
    }
    // An image tag that is elsewhere is not taken for one that cannot be moved.
    let server = Server::plain();
    server.load("a", "1", &super::kit::image(227, &[10]));
    server.rule(Rule {
        body: Some("MANIFEST_BLOB_UNKNOWN".to_owned()),
        ..Rule::always("PUT *manifests/1", 400)
    });
    let error = Rig::new()
        .push(&server, "a:1", &image)
        .expect_err("a refusal");
    assert_eq!(code(&error), "imgdecl::registry::refused");
}

#[test]
fn a_base_layer_comes_from_where_the_base_came() {
    let mut random = Random(228);
    let [base, own] = [30_000, 5_000].map(|size| random.bytes(size));
    let image = Image::of(&[&base, &own]);
    let digest = Digest::of(&base);
    for is_other in [true, false] {
        let source = Server::plain();
        source.load("library/base", "1", &Image::of(&[&base]));
        let other = Server::plain();
        let server = if is_other { &other } else { &source };
        server.load("app", "1", &image);
        server.lose("app", &digest);
        let blobs = || {
            Bytes::of(&[&image])
                .without(&digest)
                .origin(digest, source.reference("library/base"))
        };
        let rig = Rig::new();
        let results = rig.check_from(&[(server.reference("app:1"), &image)], &blobs());
        let pushed = results[0].as_ref().expect("a push");
        assert_holds(server, "app:1", &image);
        assert_eq!(pushed.mounted > 0, !is_other, "{pushed:?}");
        assert_eq!(rig.monitor.notes().len(), 1);
        server.lose("app", &digest);
        let results = rig.push_from(&[(server.reference("app:2"), &image)], &blobs());
        results[0]
            .as_ref()
            .unwrap_or_else(|error| panic!("{error}\n{}", server.story()));
        assert_holds(server, "app:2", &image);
    }
}

#[test]
fn images_are_checked_together() {
    let server = Server::plain();
    let image = two_platforms(229);
    let lost = image.parts[0].layers[0].digest;
    for name in ["a", "b"] {
        server.load(name, "1", &image);
        server.lose(name, &lost);
    }
    server.load("c", "1", &image);
    let names = ["a:1", "a:1", "b:1", "c:1"];
    let all = names.map(|name| (server.reference(name), &image));
    let rig = Rig::new();
    let results = rig.check_from(&all, &Bytes::of(&[&image]));
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    names
        .iter()
        .for_each(|name| assert_holds(&server, name, &image));
    // One sends, the other mounts; each says it once.
    assert_eq!(server.count("PUT *uploads*"), 1, "{}", server.story());
    assert_eq!(rig.monitor.notes().len(), 2, "{:?}", rig.monitor.notes());
}

/// Asks a registry to forget something; returns the status.
fn delete(host: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(host).expect("a registry");
    let text = format!("DELETE {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer.get(9..12).unwrap_or_default().to_owned()
}

#[test]
fn the_real_registry_is_repaired_by_the_binary() {
    let Some(real) = Real::start(Mode::Plain) else {
        return;
    };
    let Some(skopeo) = peer("skopeo") else {
        return;
    };
    let copies = |name: &str| {
        let to = Space::new();
        let mut command = to.program(skopeo.clone());
        command.args(["copy", "--quiet", "--insecure-policy", "--all"]);
        command.arg("--src-tls-verify=false");
        command.arg(format!("docker://{}/{name}", real.host()));
        command.arg(format!("dir:{}", to.path().join("copy").display()));
        Output::of(&mut command).status == 0
    };
    for platforms in [&["linux/amd64"][..], &["linux/amd64", "linux/arm64"]] {
        let name = format!("r{}", platforms.len());
        let latest = format!("{name}:latest");
        let space = Space::new();
        let layer =
            |path: &str| format!("{{ files = {{ text = {{ \"{path}\" = \"{name}\" }} }} }}");
        space.write(
            "image.toml",
            format!(
                "[image.x]\nbase = \"scratch\"\nrepository = \"{}/{name}\"\nplatforms = {platforms:?}\nlayers = [{}, {}]\n",
                real.host(),
                layer("/f"),
                layer("/g")
            ),
        );
        let outputs = ["--output", "oci:out", "--output", "oci-archive:out.tar"];
        space.ok(&[&["build", "--push"][..], &outputs].concat());
        let image = Image::of_layout(&space.path().join("out"), Some("x"));
        assert!(copies(&latest));
        for (number, lost) in parts(&image).into_iter().enumerate() {
            let mut manifests = image.manifests.iter();
            let is_manifest = manifests.any(|(_, bytes)| Digest::of(bytes) == lost);
            let kind = if is_manifest { "manifests" } else { "blobs" };
            let lose = || {
                let path = format!("/v2/{name}/{kind}/{lost}");
                assert_eq!(delete(real.host(), &path), "202", "{path}");
            };
            for args in [
                &["push", "--check", "--from", "out"][..],
                &["push", "--check", "--from", "oci-archive:out.tar"],
                &["build", "--push", "--check"],
            ] {
                lose();
                assert!(!copies(&latest), "{lost} is not lost");
                let said = space.ok(args).stderr;
                assert!(said.contains("lacked the "), "{args:?}: {said}");
                assert!(said.contains(&lost.to_string()[..19]), "{args:?}: {said}");
                assert!(copies(&latest), "{args:?}: {said}");
            }
            // Under another image tag without being told to.
            lose();
            let tag = format!("t{number}");
            space.ok(&["build", "--push", "--tag", &tag]);
            assert!(copies(&format!("{name}:{tag}")), "{lost}");
        }
    }
}
