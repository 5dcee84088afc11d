//! The client and the real `docker-registry`, with skopeo as the witness.

use std::collections::BTreeMap;

use serde_json::json;

use super::kit::{Bytes, Making, Rig, assert_says, auth, code};
use crate::support::registry::layer;
use crate::support::registry::{
    Authority, Flavour, Image, Mode, PASSWORD, Real, Rule, Server, Setup, USER,
};
use crate::support::{Output, Space, peer};

/// An image whose layers are layers, so that others can read it.
fn image() -> Image {
    let one = |platform: &str| {
        let files =
            |path: &str, text: &str| layer(&BTreeMap::from([(path.to_owned(), text.to_owned())]));
        let layers = [files("etc/base", "base"), files("etc/arch", platform)];
        let layers: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
        Image::single(platform, &layers, json!({}), Flavour::Oci)
    };
    let images = ["linux/amd64", "linux/arm64"].map(|it| (it, one(it)));
    Image::index(&images, false, Flavour::Oci)
}

/// What `config.toml` must say about a registry.
fn config(real: &Real, mode: Mode) -> String {
    let Authority {
        ca,
        certificate,
        key,
    } = real.authority();
    let mut text = format!("[registry.\"{}\"]\n", real.host());
    if matches!(mode, Mode::Tls | Mode::Mutual) {
        text.push_str(&format!("ca = \"{}\"\n", ca.display()));
    }
    if mode == Mode::Mutual {
        text.push_str(&format!(
            "client_cert = \"{}\"\nclient_key = \"{}\"\n",
            certificate.display(),
            key.display()
        ));
    }
    text
}

#[test]
fn pushed_and_pulled_back() {
    for mode in [
        Mode::Plain,
        Mode::Basic,
        Mode::Token,
        Mode::Tls,
        Mode::Mutual,
    ] {
        let Some(real) = Real::start(mode) else {
            return;
        };
        let image = image();
        let rig = Making::login(&[real.host()])
            .config(config(&real, mode))
            .build();
        let reference = real.reference("team/app:v1");
        let blobs = Bytes::of(&[&image]);
        let results = rig.push_from(&[(reference.clone(), &image)], &blobs);
        let pushed = results[0]
            .as_ref()
            .unwrap_or_else(|error| panic!("{mode:?}: {error}"));
        assert!(pushed.sent > 0);
        let again = rig.push_from(&[(reference.clone(), &image)], &blobs);
        let again = again[0]
            .as_ref()
            .unwrap_or_else(|error| panic!("{mode:?}: {error}"));
        assert_eq!(again.sent, 0, "{mode:?}: {again:?}");
        // To another repository by mounts, with a token for both.
        let results = rig.push_from(
            &[
                (real.reference("team/app:v2"), &image),
                (real.reference("team/other:v1"), &image),
            ],
            &blobs,
        );
        let other = results[1]
            .as_ref()
            .unwrap_or_else(|error| panic!("{mode:?}: {error}"));
        assert!(other.mounted > 0, "{mode:?}: {other:?}");
        let found = rig
            .fetch(&reference)
            .unwrap_or_else(|error| panic!("{mode:?}: {error}"));
        assert_eq!(found.digest, image.root().digest, "{mode:?}");
        let tags = rig
            .client
            .tags(&reference)
            .unwrap_or_else(|error| panic!("{mode:?}: {error}"));
        assert_eq!(tags, ["v1", "v2"], "{mode:?}");

        let Some(skopeo) = peer("skopeo") else {
            continue;
        };
        let space = Space::new();
        let certificates = space.path().join("certificates");
        std::fs::create_dir(&certificates).expect("a folder");
        let Authority {
            ca,
            certificate,
            key,
        } = real.authority();
        if ca.exists() {
            for (from, name) in [
                (&ca, "ca.crt"),
                (&certificate, "client.cert"),
                (&key, "client.key"),
            ] {
                std::fs::copy(from, certificates.join(name)).expect("a copy");
            }
        }
        let tls = matches!(mode, Mode::Tls | Mode::Mutual);
        let output = Output::of(
            space
                .program(skopeo)
                .args([
                    "copy",
                    "--quiet",
                    "--insecure-policy",
                    "--all",
                    "--preserve-digests",
                ])
                .arg(format!("--src-tls-verify={tls}"))
                .arg(format!("--src-cert-dir={}", certificates.display()))
                .args(["--src-creds", &format!("{USER}:{PASSWORD}")])
                .arg(format!("docker://{reference}"))
                .arg(format!("dir:{}", space.path().join("back").display())),
        );
        assert_eq!(output.status, 0, "{mode:?}: {}", output.stderr);
        let back = std::fs::read(space.path().join("back/manifest.json")).expect("an index");
        assert_eq!(
            back,
            image.manifests.last().expect("an index").1,
            "{mode:?}"
        );
        if let Some(tokens) = &real.tokens {
            assert!(tokens.count("GET /token*") > 0);
        }
    }
}

#[test]
fn logins_that_are_missing_or_wrong() {
    for mode in [Mode::Basic, Mode::Token] {
        let Some(real) = Real::start(mode) else {
            return;
        };
        let image = image();
        let wrong = BTreeMap::from([(real.host().to_owned(), auth(USER, "hunter2"))]);
        for auths in [BTreeMap::new(), wrong] {
            let rig = Making {
                auths,
                ..Making::default()
            }
            .build();
            let results = rig.push_from(
                &[(real.reference("team/app:v1"), &image)],
                &Bytes::of(&[&image]),
            );
            let error = results[0].as_ref().expect_err("no login");
            assert_eq!(
                code(error),
                "imgdecl::registry::unauthorised",
                "{mode:?}: {error:?}"
            );
            assert_says(error, &[real.host(), "team/app", "auth.json"]);
            assert!(!format!("{error} {error:?}").contains("hunter2"));
        }
    }
}

#[test]
fn certificates_that_are_not_trusted() {
    for mode in [Mode::Tls, Mode::Mutual] {
        let Some(real) = Real::start(mode) else {
            return;
        };
        let error = Rig::new()
            .client
            .resolve(&real.reference("a:1"))
            .expect_err("no authority");
        assert_eq!(code(&error), "imgdecl::registry::connection", "{error:?}");
        assert_says(&error, &[real.host(), "authority", "`ca`"]);
        // With `insecure`, a certificate is not looked at.
        let insecure = format!("[registry.\"{}\"]\ninsecure = true\n", real.host());
        let error = Making::default()
            .config(insecure)
            .build()
            .client
            .resolve(&real.reference("a:1"));
        let error = error.expect_err("there is no such image");
        match mode {
            Mode::Mutual => assert_says(&error, &[real.host()]),
            _ => assert_eq!(code(&error), "imgdecl::registry::not_found", "{error}"),
        }
    }
    let Some(real) = Real::start(Mode::Mutual) else {
        return;
    };
    let error = Making::default()
        .config(config(&real, Mode::Tls))
        .build()
        .client
        .resolve(&real.reference("a:1"));
    let error = error.expect_err("a certificate of the client is wanted");
    assert_says(&error, &[real.host(), "client_cert"]);
}

#[test]
fn a_registry_with_tls_does_not_lead_to_plain_http() {
    if peer("openssl").is_none() {
        return;
    }
    let space = Space::new();
    let authority = Authority::make(space.path());
    let image = super::kit::image(110, &[1000]);
    let plain = Server::plain();
    plain.load("a", "1", &image);
    let server = Server::start(Setup {
        tls: Some(authority.server().into()),
        ..Setup::default()
    });
    server.load("a", "1", &image);
    let config = format!(
        "[registry.\"{}\"]\nca = \"{}\"\n",
        server.host(),
        authority.ca.display()
    );
    let rig = || {
        Making::login(&[server.host(), plain.host()])
            .config(&config)
            .build()
    };
    rig()
        .fetch(&server.reference("a:1"))
        .unwrap_or_else(|error| panic!("{error}\n{}", server.story()));
    let to = "http://blobs.example.com[PATH]";
    server.rule(Rule::always("GET /v2/a/blobs/*", 307).header("Location", to));
    let error = rig()
        .fetch(&server.reference("a:1"))
        .expect_err("plain HTTP");
    assert_eq!(code(&error), "imgdecl::registry::unsafe", "{error:?}");
    assert_says(&error, &[server.host(), "blobs.example.com"]);
}
