//! Documents at their limits: no command takes much memory for them.

use std::env;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use imgdecl::parts::oci::Digest;
use serde_json::{Value, json};

use crate::support::index::{Index, Shape, Wheel};
use crate::support::registry::{Delivery, Reply};
use crate::support::{BINARY, Space};

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
        is_small(&space, args, MOST);
    }
}

/// How many files there are, and the most memory that they may take. The binary as users have it is asked for what is
/// promised. That under test takes more for itself, and much time: it gets fewer files.
fn measure() -> (u32, u64) {
    match env::var_os("IMGDECL_RELEASE_BIN") {
        Some(_) => (100_000, MOST),
        None => (20_000, MOST / 4 * 3),
    }
}

/// Runs the program, which ends well and takes less than `limit` bytes of memory.
fn is_small(space: &Space, args: &[&str], limit: u64) {
    let binary = env::var_os("IMGDECL_RELEASE_BIN").unwrap_or(BINARY.into());
    let mut command = space.program(binary);
    let said = space.path().join("said");
    let said_to = File::create(&said).expect("a file");
    let command = command.args(args);
    let command = command.stdout(Stdio::null()).stderr(said_to);
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
    let said = fs::read_to_string(said).expect("a file");
    assert!(ended.success(), "{args:?}: {said}");
    assert!((1..limit).contains(&most), "{args:?}: {most} bytes");
}

/// Writes an archive of so many files, a thousand in a folder.
fn archive(path: &Path, files: u32) {
    let file = BufWriter::new(File::create(path).expect("a file"));
    let mut tar = tar::Builder::new(file);
    for number in 0..files {
        let text = format!("{number}\n");
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        let path = format!(
            "opt/app/dir{:03}/some-folder-name/file-{number:06}.txt",
            number / 1000
        );
        let added = tar.append_data(&mut header, path, text.as_bytes());
        added.expect("a file that can be written");
    }
    tar.finish().expect("a file that can be written");
}

#[test]
fn an_archive_of_many_files_takes_little_memory() {
    let space = Space::new();
    let (count, limit) = measure();
    archive(&space.path().join("a.tar"), 3 * count);
    space.write(
        "image.toml",
        "[tar.t]\nsrc = \"a.tar\"\n\n[image.i]\nbase = \"scratch\"\nlayers = [\"t\"]\nplatforms = [\"linux/amd64\"]\n",
    );
    is_small(&space, &["build", "-o", "oci:o"], limit);
    is_small(&space, &["inspect", "oci:o", "--files"], limit);
    is_small(
        &space,
        &["inspect", "oci:o", "--files", "--format", "json"],
        limit,
    );
    // As a base, and for a sink that has all bytes.
    space.write(
        "image.toml",
        "[base.b]\nlayout = \"o\"\n\n[image.i]\nbase = \"b\"\nlayers = [{ files = { text = { \"/f\" = \"x\" } } }]\n",
    );
    is_small(&space, &["build", "-o", "docker-archive:a"], limit);
}

#[test]
fn a_page_of_many_files_takes_little_memory() {
    let (count, limit) = measure();
    let wheel = Wheel::new("many", "1.0", 0, 1);
    let listed = |number: u32| {
        let file = match number {
            0 => wheel.file.clone(),
            number => format!(
                "many-0.{number}-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"
            ),
        };
        let hex = wheel.sha256().hex();
        json!({
            "filename": file, "hashes": {"sha256": hex}, "core-metadata": {"sha256": Digest::of(wheel.metadata.as_bytes()).hex()},
            "url": format!("../../files/{file}"), "requires-python": ">=3.8",
            "size": 123_456, "upload-time": "2026-01-02T03:04:05.678901Z", "yanked": false,
        })
    };
    let files: Vec<Value> = (0..count).map(listed).collect();
    let page = json!({"meta": {"api-version": "1.1"}, "name": "many", "files": files}).to_string();
    let index = Index::start(Shape::default(), &[("many", &wheel)]);
    index.fail(move |request, _| {
        let is_page = request.path() == "/simple/many/";
        let reply = || Reply::new(200).text("application/vnd.pypi.simple.v1+json", page.clone());
        is_page.then(|| (reply(), Delivery::default()))
    });
    let space = Space::new();
    space.write(
        "image.toml",
        format!(
            "[index]\nurl = \"{}\"\n\n[pip.p]\npackages = [\"many==1.0\"]\npython = \"3.11\"\nlibc = \"glibc 2.36\"\n\n[image.i]\nbase = \"scratch\"\nlayers = [\"p\"]\nplatforms = [\"linux/amd64\"]\n",
            index.url()
        ),
    );
    is_small(&space, &["lock"], limit);
}
