//! What other tools make of our images, and what we make of theirs. Each test is skipped where its tools are absent;
//! with IMGDECL_REQUIRE_PEERS=1 it fails then. The tools read from and write to the test's own folders alone.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{self, BufRead, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{BINARY, Output, Space, absent, peer, validate};

/// Finds all of some programs, or says which one is missing.
fn peers<const N: usize>(names: [&str; N]) -> Option<[PathBuf; N]> {
    let found: Vec<PathBuf> = names.iter().filter_map(|name| peer(name)).collect();
    found.try_into().ok()
}

pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").expect("/proc").uid() == 0
}

/// Runs a program in the space; it must succeed. Returns its stdout.
#[track_caller]
pub(crate) fn run(space: &Space, program: &Path, args: &[&str]) -> String {
    let output = Output::of(space.program(program).args(args));
    assert_eq!(
        output.status,
        0,
        "{} {args:?} failed:\n{}{}",
        program.display(),
        output.stdout,
        output.stderr
    );
    output.stdout
}

#[track_caller]
fn run_json(space: &Space, program: &Path, args: &[&str]) -> Value {
    let text = run(space, program, args);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}:\n{text}"))
}

/// Copies an image by skopeo, which checks every digest on the way.
#[track_caller]
fn skopeo_copy(space: &Space, skopeo: &Path, options: &[&str], from: &str, to: &str) {
    let mut args = vec!["copy", "--quiet", "--insecure-policy"];
    args.extend(options);
    args.extend([from, to]);
    run(space, skopeo, &args);
}

/// Unpacks an image of a layout by umoci, and returns the bundle.
#[track_caller]
fn umoci_unpack(space: &Space, umoci: &Path, image: &str, bundle: &str) -> PathBuf {
    let mut args = vec!["unpack"];
    if !is_root() {
        args.push("--rootless");
    }
    args.extend(["--image", image, bundle]);
    run(space, umoci, &args);
    space.path().join(bundle)
}

/// The digest that a build printed for an image.
#[track_caller]
fn digest_of<'a>(output: &'a Output, image: &str) -> &'a str {
    let line = output
        .stdout
        .lines()
        .find(|line| line.split(' ').next() == Some(image));
    let line = line.unwrap_or_else(|| panic!("no line for {image}:\n{}", output.stdout));
    line.split_once('@').expect("NAME REFERENCE@DIGEST").1
}

/// What a path of a tree is.
#[derive(PartialEq, Eq, Debug)]
enum Node {
    Folder,
    /// The size, and whether anyone may execute it.
    File(u64, bool),
    Symlink(PathBuf),
}

/// Lists all that is below a folder, by relative path.
fn list(root: &Path) -> BTreeMap<PathBuf, Node> {
    let mut nodes = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
        for entry in entries {
            let path = entry.expect("a folder that can be read").path();
            let metadata = fs::symlink_metadata(&path).expect("an entry that is there");
            let node = if metadata.is_dir() {
                folders.push(path.clone());
                Node::Folder
            } else if metadata.is_symlink() {
                Node::Symlink(fs::read_link(&path).expect("the text of a link"))
            } else {
                Node::File(metadata.len(), metadata.mode() & 0o111 != 0)
            };
            let rel = path.strip_prefix(root).expect("below the root").to_owned();
            nodes.insert(rel, node);
        }
    }
    nodes
}

/// Compares a tree of the host with what was unpacked from its layer: paths, kinds, sizes, bytes, modes, times, links.
/// Returns how many entries there are, and their bytes.
#[track_caller]
fn assert_same_tree(source: &Path, unpacked: &Path) -> (usize, u64) {
    let [expected, found] = [source, unpacked].map(list);
    let missing = expected.keys().find(|path| !found.contains_key(*path));
    assert_eq!(missing, None, "this is not in the image");
    let added = found.keys().find(|path| !expected.contains_key(*path));
    assert_eq!(added, None, "this is in the image, but not on the host");
    let mut bytes = 0;
    for (path, node) in &expected {
        assert_eq!(node, &found[path], "{path:?}");
        let there = unpacked.join(path);
        let metadata = fs::symlink_metadata(&there).expect("an entry that was listed");
        let mode = metadata.mode() & 0o7777;
        match node {
            Node::Folder => assert_eq!(mode, 0o755, "mode of {path:?}"),
            Node::File(size, executable) => {
                let want = if *executable { 0o755 } else { 0o644 };
                assert_eq!(mode, want, "mode of {path:?}");
                assert_eq!(metadata.mtime(), 0, "time of {path:?}");
                let [a, b] = [source.join(path), there].map(|path| fs::read(path).expect("a file"));
                // Not assert_eq: it would print both.
                assert!(a == b, "{path:?} has other bytes in the image");
                bytes += size;
            }
            Node::Symlink(_) => {}
        }
    }
    (expected.len(), bytes)
}

/// A sequence of numbers that is the same every time (xorshift64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Text of at least `size` bytes, cut to it: it compresses about as prose does.
    fn text(&mut self, size: usize) -> Vec<u8> {
        const SYLLABLES: [&str; 16] = [
            "ar", "ban", "co", "den", "el", "fri", "gu", "hal", "in", "jo", "kel", "lu", "men",
            "nor", "ost", "pra",
        ];
        let mut text = Vec::with_capacity(size + 32);
        while text.len() < size {
            let mut number = self.next();
            for _ in 0..4 {
                for _ in 0..=(number & 3) {
                    number >>= 4;
                    text.extend_from_slice(SYLLABLES[(number & 15) as usize].as_bytes());
                }
                number >>= 4;
                text.push(if number & 15 == 0 { b'\n' } else { b' ' });
            }
        }
        text.truncate(size);
        text
    }
}

const HELLO: &str = r#"
fn main() {
    let name = std::env::args().nth(1).unwrap_or_default();
    println!("Hello, {name}!");
}
"#;

/// Compiles a static program that greets its argument.
pub(crate) fn compile_hello(space: &Space, rustc: &Path) {
    let source = space.write("hello.rs", HELLO);
    // With the environment of the tests: rustup's rustc finds its toolchain by it.
    let output = Output::of(
        Command::new(rustc)
            .current_dir(space.path())
            .args(["-C", "target-feature=+crt-static", "-C", "strip=symbols"])
            .args(["--edition", "2021", "-o", "hello"])
            .arg(source),
    );
    assert_eq!(output.status, 0, "{}", output.stderr);
}

pub(crate) const HELLO_IMAGE: &str = r#"
[image.hello]
base       = "scratch"
layers     = [{ files = { src = "hello", dest = "/bin/hello", mode = "0755" } }]
entrypoint = ["hello"]
cmd        = ["Cloud Native Central"]
env        = { PATH = "/bin" }
"#;

#[test]
fn skopeo_sees_the_printed_digest() {
    let Some([skopeo]) = peers(["skopeo"]) else {
        return;
    };
    let space = Space::new();
    // No program: skopeo does not run it.
    space.write("hello", "#!/bin/sh\necho hello\n");
    space.write("image.toml", HELLO_IMAGE);
    let output = space.ok(&["build"]);
    validate(&space.path().join("imgdecl-out"));

    let found = run_json(&space, &skopeo, &["inspect", "oci:imgdecl-out:hello"]);
    assert_eq!(found["Digest"], digest_of(&output, "hello"));
    assert_eq!(found["Env"], json!(["PATH=/bin"]));
    skopeo_copy(&space, &skopeo, &[], "oci:imgdecl-out:hello", "dir:copy");
    let manifest: Value =
        serde_json::from_slice(&fs::read(space.path().join("copy/manifest.json")).expect("copy"))
            .expect("a manifest");
    for blob in [&manifest["config"], &manifest["layers"][0]] {
        let hex = blob["digest"].as_str().expect("a digest")[7..].to_owned();
        let size = fs::metadata(space.path().join("copy").join(hex)).expect("a copied blob");
        assert_eq!(blob["size"], size.len());
    }
}

#[test]
fn runtimes_run_a_static_program() {
    let Some([rustc, umoci]) = peers(["rustc", "umoci"]) else {
        return;
    };
    let space = Space::new();
    compile_hello(&space, &rustc);
    space.write("image.toml", HELLO_IMAGE);
    space.ok(&["build"]);
    validate(&space.path().join("imgdecl-out"));
    let bundle = umoci_unpack(&space, &umoci, "imgdecl-out:hello", "bundle");

    let file = bundle.join("config.json");
    let mut config: Value =
        serde_json::from_slice(&fs::read(&file).expect("config.json")).expect("JSON");
    assert_eq!(
        config["process"]["args"],
        json!(["hello", "Cloud Native Central"])
    );
    // There is no terminal in a test; and a limit that is higher than ours could not be set.
    config["process"]["terminal"] = false.into();
    config["process"]
        .as_object_mut()
        .expect("a process")
        .remove("rlimits");
    fs::write(&file, config.to_string()).expect("config.json");

    let mut refused = Vec::new();
    let mut ran = 0;
    for name in ["runc", "crun"] {
        let Some(runtime) = peer(name) else { continue };
        match run_bundle(&space, name, &runtime, &bundle) {
            Ok(stdout) => {
                assert_eq!(stdout, "Hello, Cloud Native Central!\n", "{name}");
                ran += 1;
            }
            Err(stderr) => {
                eprintln!("skipped: {name} cannot run here: {stderr}");
                refused.push(stderr);
            }
        }
    }
    if ran == 0 {
        absent(&format!("a runtime that can run here: {refused:?}"));
    }
}

/// Runs a bundle. The error is what the runtime says where it cannot serve this host.
pub(crate) fn run_bundle(
    space: &Space,
    name: &str,
    runtime: &Path,
    bundle: &Path,
) -> Result<String, String> {
    let id = format!("imgdecl-{name}-{}", std::process::id());
    let state = space.path().join(format!("{name}-state"));
    let start = |mut command: Command| {
        let output = Output::of(command.stdin(Stdio::null()));
        let _ = space
            .program(runtime)
            .arg("--root")
            .arg(&state)
            .args(["delete", "--force", &id])
            .output();
        match output.status {
            0 => Ok(output.stdout),
            _ => Err(output.stderr),
        }
    };
    let mut plain = space.program(runtime);
    plain.arg("--root").arg(&state).args(["run", "--bundle"]);
    plain.arg(bundle).arg(&id);
    let refused = match start(plain) {
        Err(error) if name == "crun" && error.contains("hybrid") => error,
        other => return other,
    };
    // crun does not serve hosts with both versions of cgroups. It does where it cannot see the second.
    let Some(unshare) = peer("unshare") else {
        return Err(refused);
    };
    let script = r#"umount /sys/fs/cgroup/unified && exec "$0" --root "$1" run --bundle "$2" "$3""#;
    let mut hidden = space.program(unshare);
    hidden.args(["--mount", "sh", "-c", script]);
    hidden.arg(runtime).arg(&state).arg(bundle).arg(&id);
    start(hidden).map_err(|error| format!("{refused}; then: {error}"))
}

/// Writes a tree that makes more than 60 segments: text in many files, some larger than a segment.
fn write_many(space: &Space) {
    let mut numbers = Numbers(0x1d3c_a7f0_5b62_9e81);
    for number in 0..300 {
        let size = 200 + (numbers.next() % 20_000) as usize;
        let path = space.write(
            &format!("tree/small/{}/{number:03}.txt", number % 7),
            numbers.text(size),
        );
        // The host's bits, of which the layer takes one.
        let mode = [0o644, 0o600, 0o755, 0o710][number % 4];
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
    }
    for number in 0..30 {
        let size = (1 << 20) + (numbers.next() % 100_000) as usize;
        space.write(&format!("tree/large/{number:02}/text"), numbers.text(size));
    }
    space.write("tree/huge.txt", numbers.text((3 << 20) + 12_345));
    space.write("tree/empty", "");
    fs::create_dir_all(space.path().join("tree/nothing/in/it")).expect("folders");
    symlink("../huge.txt", space.path().join("tree/small/link")).expect("a link");
    symlink("missing", space.path().join("tree/dangling")).expect("a link");
}

fn many_image(compression: &str) -> String {
    format!(
        r#"
[image.many]
base        = "scratch"
layers      = [{{ files = {{ src = "tree", dest = "/data" }} }}]
compression = "{compression}"
"#
    )
}

/// Counts the gzip members of a file.
fn members(path: &Path) -> usize {
    let bytes = fs::read(path).expect("a layer");
    let mut rest = bytes.as_slice();
    let mut count = 0;
    while !rest.fill_buf().expect("bytes").is_empty() {
        let mut member = flate2::bufread::GzDecoder::new(&mut rest);
        io::copy(&mut member, &mut io::sink()).expect("a gzip member");
        count += 1;
    }
    count
}

#[test]
fn a_layer_of_many_gzip_members_unpacks() {
    let Some([skopeo, umoci]) = peers(["skopeo", "umoci"]) else {
        return;
    };
    let space = Space::new();
    write_many(&space);
    space.write("image.toml", many_image("gzip"));
    space.ok(&["build"]);
    let layout = space.path().join("imgdecl-out");
    let image = &validate(&layout).images["many"].platforms[0];
    let layer = layout
        .join("blobs/sha256")
        .join(&image.layers[0].digest[7..]);
    let members = members(&layer);
    assert!(members > 60, "only {members} members");

    let bundle = umoci_unpack(&space, &umoci, "imgdecl-out:many", "bundle");
    let (entries, _) = assert_same_tree(&space.path().join("tree"), &bundle.join("rootfs/data"));
    assert!(entries > 370, "only {entries} entries");

    skopeo_copy(&space, &skopeo, &[], "oci:imgdecl-out:many", "dir:copy");
    // On the way to this form, skopeo unpacks the layer and checks its diff_id.
    let archive = "docker-archive:many.tar:many:latest";
    skopeo_copy(&space, &skopeo, &[], "oci:imgdecl-out:many", archive);
    let config = run_json(&space, &skopeo, &["inspect", "--config", archive]);
    assert_eq!(
        config["rootfs"]["diff_ids"],
        json!([image.layers[0].diff_id])
    );
}

/// The options that keep the storage of buildah and podman in the space.
const STORAGE: [&str; 6] = [
    "--root",
    "storage",
    "--runroot",
    "storage-run",
    "--storage-driver",
    "vfs",
];

#[test]
fn buildah_and_podman_take_many_gzip_members() {
    let Some([buildah, podman]) = peers(["buildah", "podman"]) else {
        return;
    };
    if !is_root() {
        // Rootless, both need ranges of user ids that the host may not give.
        return absent("root");
    }
    let space = Space::new();
    write_many(&space);
    space.write("image.toml", many_image("gzip"));
    space.ok(&["build", "-o", "oci:out", "-o", "oci-archive:out.tar"]);
    let with_storage = |args: &[&'static str]| [&STORAGE, args].concat();

    let name = run(
        &space,
        &buildah,
        &with_storage(&["from", "--pull-never", "oci:out:many"]),
    );
    // Rootless or not, a mount of this storage is a plain folder.
    let mounted = run(
        &space,
        &buildah,
        &[&STORAGE[..], &["mount", name.trim()]].concat(),
    );
    assert_same_tree(
        &space.path().join("tree"),
        &Path::new(mounted.trim()).join("data"),
    );

    let load = with_storage(&["--cgroup-manager", "cgroupfs", "load", "--input", "out.tar"]);
    let loaded = run(&space, &podman, &load);
    let name = loaded.trim().rsplit(' ').next().expect("a name").to_owned();
    let inspect = [&STORAGE[..], &["image", "inspect", &name]].concat();
    let found = run_json(&space, &podman, &inspect);
    let layout = validate(&space.path().join("out"));
    let image = &layout.images["many"].platforms[0];
    assert_eq!(
        found[0]["RootFS"]["Layers"],
        json!([image.layers[0].diff_id])
    );
}

#[test]
fn skopeo_reads_archives_and_they_are_equal() {
    let Some([skopeo]) = peers(["skopeo"]) else {
        return;
    };
    let archives = [(); 2].map(|()| {
        let space = Space::new();
        space.write("hello", "hello\n");
        let manifest = HELLO_IMAGE.to_owned() + "platforms = [\"linux/amd64\", \"linux/arm64\"]\n";
        space.write("image.toml", manifest);
        let output = space.ok(&["build", "-o", "oci-archive:out.tar"]);
        validate(&space.path().join("out.tar"));
        let reference = "oci-archive:out.tar:hello";
        let raw = run(&space, &skopeo, &["inspect", "--raw", reference]);
        let raw: Value = serde_json::from_str(&raw).expect("an index");
        assert_eq!(raw["manifests"].as_array().map(Vec::len), Some(2));
        let found = run_json(&space, &skopeo, &["inspect", reference]);
        assert_eq!(found["Digest"], digest_of(&output, "hello"));
        skopeo_copy(&space, &skopeo, &["--all"], reference, "dir:copy");
        fs::read(space.path().join("out.tar")).expect("an archive")
    });
    assert!(archives[0] == archives[1], "two builds differ");
}

#[test]
fn other_compressions_are_read() {
    let Some([skopeo, umoci]) = peers(["skopeo", "umoci"]) else {
        return;
    };
    let space = Space::new();
    let mut numbers = Numbers(7);
    for number in 0..5 {
        space.write(&format!("tree/{number}"), numbers.text(600_000));
    }
    for compression in ["gzip", "zstd", "none"] {
        space.write("image.toml", many_image(compression));
        let out = format!("out-{compression}");
        space.ok(&["build", "-o", &format!("oci:{out}")]);
        let layout = validate(&space.path().join(&out));
        let layer = &layout.images["many"].platforms[0].layers[0];
        let from = format!("oci:{out}:many");
        skopeo_copy(&space, &skopeo, &[], &from, &format!("dir:{compression}"));
        // umoci reads zstd from 0.6 on only: skopeo makes gzip of it. The diff_id, which umoci checks, stays.
        let gzip = ["--dest-compress-format", "gzip"];
        let readable = match compression {
            "zstd" => {
                skopeo_copy(&space, &skopeo, &gzip, &from, "oci:again:many");
                "again:many".to_owned()
            }
            _ => format!("{out}:many"),
        };
        let config = run_json(
            &space,
            &skopeo,
            &["inspect", "--config", &format!("oci:{readable}")],
        );
        assert_eq!(config["rootfs"]["diff_ids"], json!([layer.diff_id]));
        let bundle = umoci_unpack(&space, &umoci, &readable, &format!("bundle-{compression}"));
        assert_same_tree(&space.path().join("tree"), &bundle.join("rootfs/data"));
    }
}

#[test]
fn skopeo_chooses_a_platform() {
    let Some([skopeo, umoci]) = peers(["skopeo", "umoci"]) else {
        return;
    };
    let space = Space::new();
    for arch in ["amd64", "arm64"] {
        space.write(&format!("bin/{arch}"), format!("for {arch}\n"));
    }
    space.write(
        "image.toml",
        r#"
[files.program]
src  = "bin/${arch}"
dest = "/bin/program"

[image.both]
base      = "scratch"
layers    = ["program"]
platforms = ["linux/arm64", "linux/amd64"]
"#,
    );
    let output = space.ok(&["build"]);
    validate(&space.path().join("imgdecl-out"));
    let from = "oci:imgdecl-out:both";
    let raw = run_json(&space, &skopeo, &["inspect", "--raw", from]);
    let platforms: Vec<&Value> = raw["manifests"]
        .as_array()
        .expect("an index")
        .iter()
        .map(|entry| &entry["platform"]["architecture"])
        .collect();
    assert_eq!(platforms, ["arm64", "amd64"]);
    let found = run_json(&space, &skopeo, &["inspect", from]);
    assert_eq!(found["Digest"], digest_of(&output, "both"));

    for arch in ["amd64", "arm64"] {
        let to = format!("oci:{arch}:one");
        skopeo_copy(&space, &skopeo, &["--override-arch", arch], from, &to);
        let config = run_json(&space, &skopeo, &["inspect", "--config", &to]);
        assert_eq!(config["architecture"], arch);
        let bundle = umoci_unpack(&space, &umoci, &format!("{arch}:one"), &format!("b-{arch}"));
        let text = fs::read_to_string(bundle.join("rootfs/bin/program")).expect("the program");
        assert_eq!(text, format!("for {arch}\n"));
    }
}

/// Makes a base as a distribution's: merged `/usr`, special modes, and a layer that deletes from the one below.
fn make_base(space: &Space, umoci: &Path) {
    run(space, umoci, &["init", "--layout", "made"]);
    run(space, umoci, &["new", "--image", "made:base"]);
    let rootfs = umoci_unpack(space, umoci, "made:base", "base-bundle").join("rootfs");
    let path = |rel: &str| rootfs.join(rel);
    let repack = || {
        let args = ["repack", "--refresh-bundle", "--image", "made:base"];
        run(space, umoci, &[&args[..], &["base-bundle"]].concat());
    };
    for folder in ["usr/lib", "usr/bin", "tmp", "root", "var/lib", "opt/data"] {
        fs::create_dir_all(path(folder)).expect("folders");
    }
    for (folder, mode) in [("tmp", 0o1777), ("root", 0o700)] {
        fs::set_permissions(path(folder), fs::Permissions::from_mode(mode)).expect("a mode");
    }
    for name in ["lib", "bin"] {
        symlink(format!("usr/{name}"), path(name)).expect("a link");
    }
    for file in ["usr/lib/old", "usr/lib/kept", "opt/data/one"] {
        fs::write(path(file), "text\n").expect("a file");
    }
    repack();
    // Becomes whiteouts.
    for file in ["usr/lib/old", "opt/data/one"] {
        fs::remove_file(path(file)).expect("a file");
    }
    fs::write(path("opt/data/two"), "2\n").expect("a file");
    repack();
    run(
        space,
        umoci,
        &[
            "config",
            "--image=made:base",
            "--author=someone",
            "--config.env=A=1",
            "--config.env=PATH=/usr/bin",
            "--config.user=7:8",
            "--config.label=of=base",
            "--config.stopsignal=SIGINT",
            "--config.volume=/data",
            "--config.exposedports=80/tcp",
            "--config.entrypoint=/bin/kept",
            "--config.cmd=argument",
            "--config.workingdir=/var",
        ],
    );
}

const ON_BASE: &str = r#"
[image.on-base]
base   = "theirs"
env    = { B = "2", PATH = "/opt/bin:${PATH}" }
labels = { of = "image", more = "yes" }
ports  = [443]
[[image.on-base.layers]]
files = { text = { "/lib/new" = "new\n", "/tmp/note" = "n\n", "/root/note" = "n\n", "/opt/data/three" = "3\n" }, remove = ["/usr/lib/kept"] }
"#;

#[test]
fn images_build_on_bases_of_other_tools() {
    let Some([skopeo, umoci]) = peers(["skopeo", "umoci"]) else {
        return;
    };
    let space = Space::new();
    make_base(&space, &umoci);
    let from = "oci:made:base";
    skopeo_copy(&space, &skopeo, &[], from, "oci-archive:oci.tar:base");
    skopeo_copy(
        &space,
        &skopeo,
        &[],
        from,
        "docker-archive:docker.tar:of/base:1",
    );
    let made = run_json(&space, &skopeo, &["inspect", "--config", from]);
    let made_digest = run_json(&space, &skopeo, &["inspect", from])["Digest"].clone();

    for (form, base) in [
        ("layout", "layout = \"made\"\nref = \"base\""),
        ("oci-archive", "archive = \"oci.tar\""),
        (
            "docker-archive",
            "archive = \"docker.tar\"\nref = \"of/base:1\"",
        ),
    ] {
        space.write("image.toml", format!("[base.theirs]\n{base}\n{ON_BASE}"));
        let out = format!("out-{form}");
        space.ok(&["build", "-o", &format!("oci:{out}")]);
        let layout = validate(&space.path().join(&out));
        let image = &layout.images["on-base"].platforms[0];

        let config = run_json(
            &space,
            &skopeo,
            &["inspect", "--config", &format!("oci:{out}:on-base")],
        );
        assert_eq!(config["author"], "someone", "{form}");
        assert_eq!(
            config["config"],
            json!({
                "User": "7:8",
                "ExposedPorts": {"80/tcp": {}, "443/tcp": {}},
                "Env": ["A=1", "PATH=/opt/bin:/usr/bin", "B=2"],
                "Entrypoint": ["/bin/kept"],
                "Cmd": ["argument"],
                "Volumes": {"/data": {}},
                "WorkingDir": "/var",
                "Labels": {"of": "image", "more": "yes"},
                "StopSignal": "SIGINT",
            }),
            "{form}"
        );
        let ids = |config: &Value| config["rootfs"]["diff_ids"].as_array().cloned();
        let (theirs, ours) = (ids(&made).expect("ids"), ids(&config).expect("ids"));
        assert_eq!(ours[..theirs.len()], theirs, "{form}");
        assert_eq!(ours.len(), theirs.len() + 1, "{form}");
        let history = |config: &Value| config["history"].as_array().map_or(0, Vec::len);
        assert_eq!(history(&config), history(&made) + 1, "{form}");
        if form == "layout" {
            let annotation = &image.manifest["annotations"]["org.opencontainers.image.base.digest"];
            assert_eq!(*annotation, made_digest);
        }

        let rootfs = umoci_unpack(
            &space,
            &umoci,
            &format!("{out}:on-base"),
            &format!("b-{form}"),
        )
        .join("rootfs");
        let text = |path: &str| fs::read_to_string(rootfs.join(path)).ok();
        assert_eq!(text("usr/lib/new").as_deref(), Some("new\n"), "{form}");
        for (link, target) in [("lib", "usr/lib"), ("bin", "usr/bin")] {
            let found = fs::read_link(rootfs.join(link)).expect("still a link");
            assert_eq!(found, Path::new(target), "{form}");
        }
        for gone in ["usr/lib/old", "usr/lib/kept", "opt/data/one"] {
            assert_eq!(text(gone), None, "{form}: {gone} is back");
        }
        for there in ["opt/data/two", "opt/data/three", "tmp/note", "root/note"] {
            assert!(text(there).is_some(), "{form}: {there} is gone");
        }
        for (folder, mode) in [("tmp", 0o1777), ("root", 0o700), ("var/lib", 0o755)] {
            let found = fs::metadata(rootfs.join(folder)).expect("a folder").mode();
            assert_eq!(found & 0o7777, mode, "{form}: {folder}");
        }
    }
}

/// `umoci insert` ends a tar after the last byte of the last file: without the zeros that fill its block, and without
/// an end of the archive. Runtimes and registries take that.
#[test]
fn images_build_on_layers_that_end_early() {
    let Some([umoci]) = peers(["umoci"]) else {
        return;
    };
    let space = Space::new();
    space.write("data/one", "1\n");
    space.write("other/two", "2\n");
    symlink("data", space.path().join("link")).expect("a link");
    let insert = |args: &[&str]| {
        let rootless: &[&str] = if is_root() { &[] } else { &["--rootless"] };
        let head = ["insert", "--image", "made:base"];
        run(&space, &umoci, &[&head, rootless, args].concat());
    };
    run(&space, &umoci, &["init", "--layout", "made"]);
    run(&space, &umoci, &["new", "--image", "made:base"]);
    insert(&["link", "/srv/link"]);
    insert(&["data", "/srv/data"]);
    insert(&["--opaque", "other", "/srv/data"]);
    space.write(
        "image.toml",
        r#"
[base.theirs]
layout = "made"

[image.more]
base   = "theirs"
layers = [{ files = { text = { "/srv/link/three" = "3\n" } } }]
"#,
    );
    space.ok(&["build"]);
    let rootfs = umoci_unpack(&space, &umoci, "imgdecl-out:more", "bundle").join("rootfs");
    let names: Vec<PathBuf> = list(&rootfs.join("srv")).into_keys().collect();
    assert_eq!(
        names,
        ["data", "data/three", "data/two", "link"].map(PathBuf::from)
    );
}

#[test]
fn images_build_on_an_image_of_buildah() {
    let Some([buildah, skopeo, umoci]) = peers(["buildah", "skopeo", "umoci"]) else {
        return;
    };
    if !is_root() {
        return absent("root");
    }
    let space = Space::new();
    let build = |args: &[&str]| run(&space, &buildah, &[&STORAGE[..], args].concat());
    space.write("root/usr/lib/kept", "kept\n");
    symlink("usr/lib", space.path().join("root/lib")).expect("a link");
    let name = build(&["from", "scratch"]);
    let name = name.trim();
    build(&["copy", "--quiet", name, "root", "/"]);
    build(&["config", "--env", "PATH=/usr/bin", "--user", "7:8", name]);
    build(&["commit", "--quiet", name, "oci:made:base"]);
    space.write(
        "image.toml",
        format!("[base.theirs]\nlayout = \"made\"\n{ON_BASE}"),
    );
    space.ok(&["build"]);
    validate(&space.path().join("imgdecl-out"));
    let config = run_json(
        &space,
        &skopeo,
        &["inspect", "--config", "oci:imgdecl-out:on-base"],
    );
    assert_eq!(config["config"]["User"], "7:8");
    assert_eq!(
        config["config"]["Env"],
        json!(["PATH=/opt/bin:/usr/bin", "B=2"])
    );
    let rootfs = umoci_unpack(&space, &umoci, "imgdecl-out:on-base", "bundle").join("rootfs");
    assert_eq!(
        fs::read_link(rootfs.join("lib")).expect("still a link"),
        Path::new("usr/lib")
    );
    assert!(rootfs.join("usr/lib/new").is_file());
    assert!(!rootfs.join("usr/lib/kept").exists());
}

/// The most memory that a build of the toolchain may take, in KiB. The tree has 1.4 GB.
const MEMORY: u64 = 200 << 10;

#[test]
fn a_toolchain_survives_the_round_trip() {
    let Some([rustc, umoci, cp]) = peers(["rustc", "umoci", "cp"]) else {
        return;
    };
    let sysroot = Output::of(Command::new(rustc).args(["--print", "sysroot"]));
    assert_eq!(sysroot.status, 0, "{}", sysroot.stderr);
    let space = Space::new();
    let tree = space.path().join("tree");
    // Links where that is possible: nothing is copied.
    let copied = ["-al", "-a"].iter().any(|how| {
        let _ = fs::remove_dir_all(&tree);
        let mut command = space.program(&cp);
        command.arg(how).arg(sysroot.stdout.trim_end()).arg(&tree);
        Output::of(&mut command).status == 0
    });
    assert!(copied, "cannot copy {}", sysroot.stdout);
    space.write(
        "image.toml",
        r#"
[image.toolchain]
base   = "scratch"
layers = [{ files = { src = "tree", dest = "/opt/rust" } }]
"#,
    );

    // Files that changed in the last two seconds are not trusted to be unchanged, and links change them.
    std::thread::sleep(std::time::Duration::from_millis(2100));
    let (cold, peak, summary) = measured_build(&space);
    assert!(peak < MEMORY, "took {peak} KiB of memory");
    assert_eq!(summary["hit"], 0, "{summary}");

    let unpacking = Instant::now();
    let bundle = umoci_unpack(&space, &umoci, "imgdecl-out:toolchain", "bundle");
    let unpacking = unpacking.elapsed();
    let (entries, bytes) = assert_same_tree(&tree, &bundle.join("rootfs/opt/rust"));
    assert!(entries > 500, "a toolchain has more than {entries} entries");

    let (warm, warm_peak, summary) = measured_build(&space);
    assert_eq!(summary["built"], 0, "{summary}");
    assert_eq!(summary["failed"], 0, "{summary}");
    assert!(summary["hit"].as_u64() > Some(0), "{summary}");
    assert_eq!(summary["bytes"], 0, "{summary}");
    assert!(warm_peak < MEMORY, "took {warm_peak} KiB of memory");

    // Past the test runner's capture: these numbers are worth having of every run.
    let _ = writeln!(
        io::stderr(),
        "toolchain: {entries} entries, {} MB; cold {cold:.2?}, {} MiB; umoci {unpacking:.2?}; warm {warm:.2?}, {} MiB",
        bytes / 1_000_000,
        peak >> 10,
        warm_peak >> 10,
    );
}

/// Builds with the release binary if IMGDECL_RELEASE_BIN names one. Returns the time, the peak of the memory in KiB, and
/// the summary of the run.
fn measured_build(space: &Space) -> (Duration, u64, Value) {
    let binary = env::var_os("IMGDECL_RELEASE_BIN").unwrap_or(BINARY.into());
    let start = Instant::now();
    let mut child = space
        .program(binary)
        .args(["build", "--progress", "json"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let status = format!("/proc/{}/status", child.id());
    let mut pipe = child.stderr.take().expect("a pipe");
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        pipe.read_to_string(&mut text).map(|_| text)
    });
    let mut peak = 0;
    let code = loop {
        // The kernel keeps the peak itself; nothing is missed between two looks but what comes after the last one.
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let now = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        peak = peak.max(now.unwrap_or(0));
        if let Some(code) = child.try_wait().expect("a child") {
            break code;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let elapsed = start.elapsed();
    let text = reader.join().expect("a reader").expect("UTF-8");
    assert!(code.success(), "{text}");
    assert!(peak > 0, "no peak in {status}");
    let summary = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(|event| event["event"] == "summary")
        .expect("a summary");
    (elapsed, peak, summary)
}
