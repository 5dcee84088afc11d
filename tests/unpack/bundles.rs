//! Bundles: they pass the schema of the runtime spec, and runtimes run them, with root and without.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::peers::{HELLO_IMAGE, compile_hello, is_root, run_bundle};
use crate::support::{BINARY, Output, Space, absent, check_runtime_config, peer};

use super::kit::{AMD64, Layer, Tar, write_layout};

fn config(bundle: &Path) -> Value {
    let bytes = fs::read(bundle.join("config.json")).expect("config.json");
    let config = serde_json::from_slice(&bytes).expect("JSON");
    check_runtime_config(&config);
    config
}

#[test]
fn a_bundle_says_what_the_image_says() {
    let space = Space::new();
    let tar = Tar::new()
        .file(
            "etc/passwd",
            "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/app:/bin/sh\n",
        )
        .file("etc/group", "root:x:0:\napp:x:1001:\nextra:x:50:app\n");
    let image = json!({
        "Entrypoint": ["/bin/app"], "Cmd": ["-v"], "Env": ["A=1", "PATH=/bin"], "WorkingDir": "/srv",
        "User": "app", "ExposedPorts": {"80/tcp": {}}, "Labels": {"l": "1"}, "Volumes": {"/data": {}},
    });
    write_layout(&space, &[Layer::plain(tar.end())], image);
    let output = space.ok(&["unpack", "img", "out", "--bundle", AMD64]);
    let config = config(&space.path().join("out"));
    assert_eq!(config["process"]["args"], json!(["/bin/app", "-v"]));
    assert_eq!(config["process"]["env"], json!(["A=1", "PATH=/bin"]));
    assert_eq!(config["process"]["cwd"], "/srv");
    if is_root() {
        let user = json!({"uid": 1000, "gid": 1001, "additionalGids": [50]});
        assert_eq!(config["process"]["user"], user);
    } else {
        assert!(output.stderr.contains("runs as 0:0"), "{}", output.stderr);
    }
    assert_eq!(config["annotations"]["l"], "1");

    // Names come from the image's own files, wherever these lead.
    for (user, words) in [
        (
            "nobody",
            "the image has no user `nobody`; its etc/passwd has root, app",
        ),
        ("app:nogroup", "the image has no group `nogroup`"),
    ] {
        let tar = Tar::new()
            .file("root/users", "root:x:0:0::/:\napp:x:1:1::/:\n")
            .symlink("etc/passwd", "/root/users");
        write_layout(
            &space,
            &[Layer::plain(tar.end())],
            json!({"Cmd": ["x"], "User": user}),
        );
        let output = space.run(&["unpack", "img", "other", "--bundle", AMD64]);
        assert_eq!(output.status, 1, "{user}");
        assert!(output.stderr.contains(words), "{}", output.stderr);
        assert!(!space.path().join("other").exists());
    }
    // A symlink to the host's file reads nothing of the host.
    let tar = Tar::new().symlink("etc/passwd", "../../../../../../etc/passwd");
    write_layout(
        &space,
        &[Layer::plain(tar.end())],
        json!({"Cmd": ["x"], "User": "root"}),
    );
    let output = space.run(&["unpack", "img", "other", "--bundle", AMD64]);
    assert_eq!(output.status, 1);

    write_layout(&space, &[], json!({}));
    let output = space.ok(&["unpack", "img", "empty", "--bundle", AMD64]);
    assert!(
        output.stderr.contains("the image says no command"),
        "{}",
        output.stderr
    );
}

/// Builds an image of a static program, and unpacks it to a bundle.
fn hello(space: &Space) -> bool {
    let Some(rustc) = peer("rustc") else {
        return false;
    };
    compile_hello(space, &rustc);
    space.write("image.toml", HELLO_IMAGE);
    space.ok(&["build"]);
    true
}

#[test]
fn runtimes_run_bundles() {
    let space = Space::new();
    if !hello(&space) {
        return;
    }
    space.ok(&["unpack", "imgdecl-out:hello", "bundle", "--bundle"]);
    let bundle = space.path().join("bundle");
    config(&bundle);
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

/// Nobody, as whom root may run programs.
const NOBODY: u32 = 65534;

#[test]
fn without_root_images_are_unpacked_and_run() {
    if !is_root() {
        // All other tests are this one, then.
        return;
    }
    let (Some(setpriv), Some(runc)) = (peer("setpriv"), peer("runc")) else {
        return;
    };
    let space = Space::new();
    if !hello(&space) {
        return;
    }
    // Nobody needs a place of its own, and the program.
    let root = space.path().parent().expect("a folder");
    for folder in [root, space.path()] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).expect("a mode");
    }
    let place = space.path().join("nobody");
    fs::create_dir(&place).expect("a folder");
    chown(&place, Some(NOBODY), Some(NOBODY)).expect("an owner");
    let program = space.path().join("imgdecl");
    fs::copy(BINARY, &program).expect("a copy");
    let nobody = |program: &Path, args: &[&str]| {
        let mut command = Command::new(&setpriv);
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command
            .arg(program)
            .args(args)
            .current_dir(&place)
            .env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
            .env("HOME", &place)
            .env("IMGDECL_CACHE_DIR", place.join("cache"));
        Output::of(command.stdin(std::process::Stdio::null()))
    };

    // Owners, devices, attributes: what only root may do is told.
    let owned = super::kit::Head {
        name: b"owned",
        uid: 1234,
        mode: 0o400,
        ..super::kit::Head::default()
    };
    let device = super::kit::Head {
        name: b"dev/x",
        kind: b'3',
        device: (1, 7),
        ..super::kit::Head::default()
    };
    let layers = [
        Tar::new()
            .add(b'5', "closed", "", 0o000)
            .file("closed/x", "")
            .raw(&owned, b"")
            .raw(&device, b""),
        Tar::new()
            .file("closed/y", "")
            .file("closed/.wh.x", "")
            .add(b'5', "./", "", 0o755),
    ];
    let layers = layers.map(|tar| Layer::plain(tar.end()));
    write_layout(&space, &layers, json!({"Cmd": ["x"]}));
    let output = nobody(&program, &["unpack", "../img", "out", AMD64]);
    assert_eq!(output.status, 0, "{}", output.stderr);
    for note in ["1 entry of another owner", "1 device is an empty file"] {
        assert!(output.stderr.contains(note), "{}", output.stderr);
    }
    let found = super::kit::list(&place.join("out"));
    assert!(
        found.contains_key(Path::new("closed/y")) && !found.contains_key(Path::new("closed/x"))
    );
    assert!(
        found.values().all(|it| it.contains("65534:65534")),
        "{found:?}"
    );
    // What is refused is removed, whatever its modes are.
    let layer = Tar::new()
        .add(b'5', "closed", "", 0o000)
        .file("closed/x", "")
        .file(".wh..", "");
    write_layout(&space, &[Layer::plain(layer.end())], json!({}));
    let output = nobody(&program, &["unpack", "../img", "refused", AMD64]);
    assert_eq!(output.status, 1);
    assert!(!place.join(".refused.imgdecl-unpack").exists());

    let output = nobody(
        &program,
        &["unpack", "../imgdecl-out:hello", "bundle", "--bundle"],
    );
    assert_eq!(output.status, 0, "{}", output.stderr);
    let bundle = place.join("bundle");
    let config = config(&bundle);
    assert_eq!(config["linux"]["uidMappings"][0]["hostID"], NOBODY);
    let id = format!("imgdecl-rootless-{}", std::process::id());
    let output = nobody(
        &runc,
        &[
            "--root",
            "state",
            "--rootless=true",
            "run",
            "--bundle",
            "bundle",
            &id,
        ],
    );
    if output.status != 0 {
        return absent(&format!("user namespaces for runc: {}", output.stderr));
    }
    assert_eq!(output.stdout, "Hello, Cloud Native Central!\n");
}
