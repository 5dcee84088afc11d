//! Docker behind TLS, as DOCKER_HOST, DOCKER_TLS_VERIFY, DOCKER_CERT_PATH and Docker's contexts name it.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Background, dockerd, is_root, peers, run};
use crate::support::registry::Authority;
use crate::support::{Output, Space};

/// Makes a folder as DOCKER_CERT_PATH names it: whom to trust, and what to show.
fn certificates(folder: PathBuf, trusted: &Authority, shown: Option<&Authority>) -> PathBuf {
    fs::create_dir(&folder).expect("a folder");
    let copy = |from: &Path, name: &str| fs::copy(from, folder.join(name)).expect("a copy");
    copy(&trusted.ca, "ca.pem");
    if let Some(shown) = shown {
        copy(&shown.certificate, "cert.pem");
        copy(&shown.key, "key.pem");
    }
    folder
}

#[test]
fn docker_asks_who_loads() {
    let Some([program, docker, _]) = peers(["dockerd", "docker", "openssl"]) else {
        return;
    };
    if !is_root() {
        return;
    }
    let space = Space::new();
    space.write(
        "image.toml",
        "[image.app]\nbase = \"scratch\"\nlayers = [{ files = { text = { \"/app\" = \"app\" } } }]\n",
    );
    let folder = space.path().parent().expect("a folder");
    let [own, foreign] = ["own", "foreign"].map(|name| {
        let folder = folder.join(name);
        fs::create_dir(&folder).expect("a folder");
        Authority::make(&folder)
    });
    let right = certificates(folder.join("right"), &own, Some(&own));
    let free = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr());
    let free = free.expect("a free port");
    let host = format!("tcp://{free}");
    let mut command = dockerd(&space, &program, &host);
    command.arg("--tlsverify");
    command.arg("--tlscacert").arg(&own.ca);
    command.arg("--tlscert").arg(&own.certificate);
    command.arg("--tlskey").arg(&own.key);
    let [ca, certificate, key] =
        ["ca.pem", "cert.pem", "key.pem"].map(|name| right.join(name).display().to_string());
    let flags = [
        "-H",
        &host,
        "--tlsverify",
        "--tlscacert",
        &ca,
        "--tlscert",
        &certificate,
        "--tlskey",
        &key,
    ];
    let answers = || Output::of(space.program(&docker).args(flags).arg("version")).status == 0;
    let _daemon = Background::start(&mut command, &folder.join("log"), answers);

    let load = |variables: &[(&str, &str)]| {
        let mut command = space.command(&["build", "--load", "--format", "json"]);
        command.args(["--progress", "none"]);
        command.envs(variables.iter().copied());
        Output::of(&mut command)
    };
    let load_with = |folder: &Path| {
        let folder = folder.display().to_string();
        load(&[
            ("DOCKER_HOST", &host),
            ("DOCKER_TLS_VERIFY", "1"),
            ("DOCKER_CERT_PATH", &folder),
        ])
    };
    let image_id = |args: &[&str]| {
        let args = [args, &["image", "inspect", "--format", "{{.Id}}", "app"]].concat();
        run(&space, &docker, &args).trim().to_owned()
    };
    let refused = "it refuses the connection";
    for (name, trusted, shown, expected, help) in [
        ("none", &own, None, refused, "cert.pem"),
        ("other", &own, Some(&foreign), refused, "cert.pem"),
        (
            "stranger",
            &foreign,
            Some(&own),
            "signed by an authority that is not trusted",
            "ca.pem",
        ),
    ] {
        let output = load_with(&certificates(folder.join(name), trusted, shown));
        assert_eq!(output.status, 1, "{name}: {}", output.stderr);
        for text in [expected, help, "DOCKER_CERT_PATH", &free.to_string()] {
            assert!(output.stderr.contains(text), "{name}: {}", output.stderr);
        }
    }
    let output = load(&[("DOCKER_HOST", &host)]);
    assert_eq!(output.status, 1, "{}", output.stderr);
    assert!(
        output.stderr.contains("speaks TLS alone"),
        "{}",
        output.stderr
    );

    let loaded = |output: &Output| {
        assert_eq!(output.status, 0, "{}", output.stderr);
        let images: Value = serde_json::from_str(&output.stdout).expect("JSON");
        let id = images[0]["load"]["image_id"].as_str();
        id.expect("an ID").to_owned()
    };
    assert_eq!(loaded(&load_with(&right)), image_id(&flags));
    run(&space, &docker, &[&flags[..], &["rmi", "app"]].concat());

    // As docker itself writes a context.
    let endpoint = format!("host={host},ca={ca},cert={certificate},key={key}");
    let args = ["context", "create", "far", "--docker", &endpoint];
    run(&space, &docker, &args);
    let output = load(&[("DOCKER_CONTEXT", "far")]);
    assert_eq!(loaded(&output), image_id(&["--context", "far"]));
}
