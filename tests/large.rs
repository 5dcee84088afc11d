//! Documents at their limits: no command takes much memory for them.

use std::fs;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use imgdecl::parts::oci::Digest;
use serde_json::{Value, json};

use crate::support::Space;

/// The most memory that a command may take, in bytes.
const MOST: u64 = 128 << 20;

/// Writes a layout whose config has a hundred thousand entries of history.
fn write(space: &Space) {
    let blobs = space.path().join("doc/blobs/sha256");
    fs::create_dir_all(&blobs).expect("a folder");
    let put = |value: &Value, kind: &str| {
        let bytes = value.to_string().into_bytes();
        let digest = Digest::of(&bytes);
        fs::write(blobs.join(digest.hex()), &bytes).expect("a blob");
        json!({"mediaType": kind, "digest": digest.to_string(), "size": bytes.len()})
    };
    let entry = |number: u32| json!({"created_by": format!("a{number}"), "empty_layer": true});
    let config = json!({
        "os": "linux", "architecture": "amd64", "config": {"Cmd": ["x"]},
        "rootfs": {"type": "layers", "diff_ids": []}, "history": (0..100_000).map(entry).collect::<Vec<_>>(),
    });
    let config = put(&config, "application/vnd.oci.image.config.v1+json");
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": []});
    let manifest = put(&manifest, "application/vnd.oci.image.manifest.v1+json");
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    space.write("doc/index.json", index.to_string());
    space.write("doc/oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
}

/// Returns the most memory that a process had, in bytes, if it is the program already (proc(5), `VmHWM`).
fn peak(status: &str) -> u64 {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    if field("Name:").is_none_or(|it| it.trim() != "imgdecl") {
        return 0;
    }
    let size = field("VmHWM:").and_then(|it| it.trim().strip_suffix(" kB"));
    size.and_then(|it| it.trim().parse::<u64>().ok())
        .unwrap_or(0)
        * 1024
}

#[test]
fn a_long_history_takes_little_memory() {
    let space = Space::new();
    write(&space);
    space.write(
        "image.toml",
        "[base.b]\nlayout = \"doc\"\n\n[image.a]\nbase = \"b\"\nlayers = [{ files = { text = { \"/f\" = \"x\" } } }]\n",
    );
    for args in [
        &["inspect", "oci:doc"][..],
        &["inspect", "oci:doc", "--format", "json"],
        &["build", "-o", "oci:o", "--platform", "linux/amd64"],
        &[
            "unpack",
            "oci:doc",
            "u",
            "--bundle",
            "--platform",
            "linux/amd64",
        ],
    ] {
        let mut command = space.command(args);
        let command = command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().expect("imgdecl");
        // The kernel counts what the test itself had before the program was loaded as the child's, too. The most that the
        // program had is in its status, as long as it runs.
        let status = format!("/proc/{}/status", child.id());
        let mut most = 0;
        let ended = loop {
            most = most.max(peak(&fs::read_to_string(&status).unwrap_or_default()));
            match child.try_wait().expect("its status") {
                Some(ended) => break ended,
                None => thread::sleep(Duration::from_millis(1)),
            }
        };
        assert!(ended.success(), "{args:?}");
        assert!((1..MOST).contains(&most), "{args:?}: {most} bytes");
    }
}
