//! What lies in archives goes to the real `docker-registry` by the binary, with skopeo as the witness.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::registry::{Mode, Real};
use crate::support::{Output, Space, peer};

/// Two images, whose layers lie in archives as they are.
fn space(host: &str) -> Space {
    let space = Space::new();
    space.write(
        "image.toml",
        format!(
            r#"
[defaults]
platforms   = ["linux/amd64", "linux/arm64"]
compression = "none"

[image.app]
base       = "scratch"
layers     = [{{ files = {{ text = {{ "/app" = "payload of the app for ${{arch}}" }} }} }}]
repository = "{host}/team/app"
tags       = ["v1"]

[image.tool]
base       = "scratch"
layers     = [{{ files = {{ text = {{ "/tool" = "payload of the tool" }} }} }}]
repository = "{host}/team/tool"
"#
        ),
    );
    space
}

/// Runs the binary, which must succeed and print one image; returns it.
#[track_caller]
fn one(space: &Space, args: &[&str]) -> Value {
    let args = [args, &["--format", "json", "--progress", "none"]].concat();
    let mut images: Vec<Value> = serde_json::from_str(&space.ok(&args).stdout).expect("JSON");
    assert_eq!(images.len(), 1);
    images.remove(0)
}

/// Copies an image out of the registry, which checks all its digests; returns the digest of its manifest or index.
#[track_caller]
fn pulled(space: &Space, skopeo: &Path, reference: &str, to: &str) -> String {
    let args = ["copy", "--quiet", "--insecure-policy", "--all"];
    let mut command = space.program(skopeo);
    command.args(args).arg("--src-tls-verify=false");
    command.arg(format!("docker://{reference}"));
    let output = Output::of(command.arg(format!("dir:{to}")));
    assert_eq!(output.status, 0, "{reference}: {}", output.stderr);
    let manifest = fs::read(space.path().join(to).join("manifest.json")).expect("a copy");
    imgdecl::parts::oci::Digest::of(&manifest).to_string()
}

#[test]
fn archives_are_pushed_as_they_were_built() {
    let Some(real) = Real::start(Mode::Plain) else {
        return;
    };
    let Some(skopeo) = peer("skopeo") else { return };
    let (host, space) = (real.host(), space(real.host()));
    let built = one(&space, &["build", "app", "--output", "oci-archive:a.tar"]);
    let archive = fs::read(space.path().join("a.tar")).expect("an archive");
    let compressed = zstd::encode_all(&archive[..], 1).expect("zstd");
    space.write("a.tar.zst", compressed);
    for (from, tag) in [
        ("oci-archive:a.tar", "one"),
        ("a.tar", "two"),
        ("oci-archive:a.tar.zst", "three"),
    ] {
        let pushed = one(&space, &["push", "app", "--from", from, "--tag", tag]);
        assert_eq!(pushed["digest"], built["digest"], "{from}");
        // Once all is there, the index alone goes out again, under its new image tag.
        let (sent, size) = (&pushed["push"]["sent"], &pushed["size"]);
        let is_first = tag == "one";
        assert_eq!(sent.as_u64() > size.as_u64(), is_first, "{pushed}");
        assert_eq!(sent == size, !is_first, "{pushed}");
        let reference = format!("{host}/team/app:{tag}");
        let digest = pulled(&space, &skopeo, &reference, tag);
        assert_eq!(built["digest"], digest, "{from}");
    }

    // For Docker, there is one platform, and images have their full names.
    let args = ["build", "app", "--platform", "linux/arm64"];
    let built = one(
        &space,
        &[&args[..], &["--output", "docker-archive:d.tar"]].concat(),
    );
    let pushed = one(&space, &["push", "app", "--from", "docker-archive:d.tar"]);
    assert_eq!(pushed["digest"], built["digest"]);
    let digest = pulled(&space, &skopeo, &format!("{host}/team/app:v1"), "docker");
    assert_eq!(built["digest"], digest);
    let pushed = one(&space, &["push", "app", "--from", "d.tar", "--tag", "v2"]);
    assert_eq!(pushed["digest"], built["digest"]);
}

#[test]
fn archives_that_cannot_be_pushed() {
    let Some(real) = Real::start(Mode::Plain) else {
        return;
    };
    let space = space(real.host());
    let push = |name: &str, from: &str| {
        let output = space.run(&["push", name, "--from", from, "--progress", "none"]);
        assert_ne!(output.status, 0, "{from}");
        output.stderr
    };
    let outputs = [
        "--output",
        "oci-archive:a.tar",
        "--output",
        "docker-archive:d.tar",
    ];
    space.ok(&[&["build", "app", "--platform", "linux/amd64"][..], &outputs].concat());
    let stderr = push("tool", "a.tar");
    assert!(stderr.contains("has no image `tool`"), "{stderr}");
    assert!(stderr.contains("--output oci-archive:FILE"), "{stderr}");
    let stderr = push("tool", "gone.tar");
    assert!(stderr.contains("gone.tar"), "{stderr}");

    // As Docker before 25 saves images: the same without the layout.
    let mut old = tar::Builder::new(Vec::new());
    let archive = fs::read(space.path().join("d.tar")).expect("an archive");
    let mut archive = tar::Archive::new(&archive[..]);
    for entry in archive.entries().expect("entries") {
        let entry = entry.expect("an entry");
        if !matches!(&*entry.path_bytes(), b"oci-layout" | b"index.json") {
            let header = entry.header().clone();
            old.append(&header, entry).expect("an entry");
        }
    }
    space.write("old.tar", old.into_inner().expect("a tar"));
    let stderr = push("app", "docker-archive:old.tar");
    assert!(stderr.contains("an archive for Docker alone"), "{stderr}");
    assert!(
        stderr.contains("skopeo copy docker-archive:FILE"),
        "{stderr}"
    );

    // A layer that was changed does not arrive.
    let mut damaged = fs::read(space.path().join("a.tar")).expect("an archive");
    let text = b"payload of the app";
    let at = damaged.windows(text.len()).position(|it| it == text);
    damaged[at.expect("a layer as it is")] = b'P';
    space.write("damaged.tar", damaged);
    let stderr = push("app", "oci-archive:damaged.tar");
    assert!(stderr.contains("it has the digest sha256:"), "{stderr}");
    // Nor does its image tag.
    let reference = format!("docker://{}/team/app:v1", real.host());
    let output = space.run(&["inspect", &reference]);
    assert_ne!(output.status, 0, "{}", output.stdout);
    space.ok(&["push", "app", "--from", "a.tar"]);
    space.ok(&["inspect", &reference]);
}
