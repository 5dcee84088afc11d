//! Images of other tools become the same files as with `umoci unpack`: every mode, owner, time, attribute and byte.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::kit::{assert_same, list};
use crate::peers::{is_root, run};
use crate::support::{Output, Space, debian_root, peer};

/// Unpacks an image by umoci and by us, and compares.
#[track_caller]
fn same(space: &Space, image: &str, least: usize) {
    let Some(umoci) = peer("umoci") else { return };
    run(space, &umoci, &["unpack", "--image", image, "theirs"]);
    space.ok(&["unpack", image, "ours", "--bundle"]);
    let [theirs, ours] =
        ["theirs", "ours"].map(|name| list(&space.path().join(name).join("rootfs")));
    assert!(ours.len() >= least, "only {} entries", ours.len());
    assert_same(&theirs, &ours);
    // The same files as one tar, which GNU tar unpacks.
    let (layout, _) = image.split_once(':').expect("a name");
    let manifest = format!("[base.it]\nlayout = \"{layout}\"\n[image.flat]\nbase = \"it\"\n");
    space.write("image.toml", manifest);
    space.ok(&["build", "-o", "tar:flat.tar"]);
    let tarred = space.path().join("tarred");
    fs::create_dir(&tarred).expect("a folder");
    assert_same(&untar(&space.path().join("flat.tar"), &tarred), &ours);
}

/// Lets GNU tar unpack all that a tar says into a folder.
fn untar(tar: &Path, folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut command = Command::new("tar");
    command.args(["--numeric-owner", "--same-owner", "--xattrs"]);
    command.args(["--xattrs-include=*", "-xpf"]);
    let output = Output::of(command.arg(tar).arg("-C").arg(folder));
    assert_eq!(output.status, 0, "{}", output.stderr);
    list(folder)
}

/// Gives a file an attribute. False where the file system has none.
fn attribute(path: &Path, name: &str, value: &[u8]) -> bool {
    rustix::fs::lsetxattr(path, name, value, rustix::fs::XattrFlags::empty()).is_ok()
}

fn fill(root: &Path) {
    let write = |rel: &str, text: &str| {
        let path = root.join(rel);
        fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
        fs::write(&path, text).expect("a file");
        path
    };
    write("etc/conf", "1");
    write("etc/old", "goes");
    write("opaque/a/b", "goes");
    write("opaque/c", "goes");
    write("replaced/x", "a folder that becomes a file");
    write("becomes", "a file that becomes a folder");
    write(
        &format!("long/{}/{}", "n".repeat(120), "ü".repeat(90)),
        "long",
    );
    let setuid = write("bin/su", "#!");
    let owned = write("srv/owned", "");
    chown(&owned, Some(1234), Some(4321)).expect("an owner");
    fs::set_permissions(&owned, fs::Permissions::from_mode(0o640)).expect("a mode");
    fs::set_permissions(&setuid, fs::Permissions::from_mode(0o4755)).expect("a mode");
    fs::hard_link(&owned, root.join("srv/linked")).expect("a hard link");
    symlink("../etc/conf", root.join("bin/conf")).expect("a symlink");
    symlink("/nowhere", root.join("dangling")).expect("a symlink");
    fs::create_dir_all(root.join("tmp")).expect("a folder");
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).expect("a mode");
    if !attribute(&setuid, "user.note", b"one\ntwo\0three") {
        eprintln!("skipped: needs a file system with attributes");
    }
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0];
    attribute(&write("bin/ping", "#!"), "security.capability", &capability);
}

fn change(root: &Path) {
    fs::remove_file(root.join("etc/old")).expect("a file");
    fs::write(root.join("etc/conf"), "2").expect("a file");
    fs::remove_dir_all(root.join("opaque")).expect("a folder");
    fs::create_dir(root.join("opaque")).expect("a folder");
    fs::write(root.join("opaque/new"), "new").expect("a file");
    fs::remove_dir_all(root.join("replaced")).expect("a folder");
    fs::write(root.join("replaced"), "now a file").expect("a file");
    fs::remove_file(root.join("becomes")).expect("a file");
    fs::create_dir(root.join("becomes")).expect("a folder");
    fs::write(root.join("becomes/x"), "now a folder").expect("a file");
    fs::set_permissions(root.join("srv"), fs::Permissions::from_mode(0o700)).expect("a mode");
    fs::remove_file(root.join("srv/linked")).expect("a link");
}

#[test]
fn images_of_buildah() {
    let Some(buildah) = peer("buildah") else {
        return;
    };
    if !is_root() {
        eprintln!("skipped: needs root, to mount what buildah builds");
        return;
    }
    for driver in ["vfs", "overlay"] {
        let space = Space::new();
        let call = |args: &[&str]| {
            let state = space.path().join("state");
            let mut command = space.program(&buildah);
            command
                .arg("--root")
                .arg(state.join("root"))
                .arg("--runroot")
                .arg(state.join("run"));
            command.args(["--storage-driver", driver]).args(args);
            Output::of(&mut command)
        };
        let ok = |args: &[&str]| {
            let output = call(args);
            assert_eq!(output.status, 0, "{driver} {args:?}: {}", output.stderr);
            output.stdout.trim().to_owned()
        };
        let mounted = |container: &str, work: &dyn Fn(&Path)| {
            work(&PathBuf::from(ok(&["mount", container])));
            ok(&["umount", container]);
        };
        let first = call(&["from", "--pull-never", "scratch"]);
        if first.status != 0 {
            eprintln!(
                "skipped: buildah cannot use {driver} here: {}",
                first.stderr
            );
            continue;
        }
        let first = first.stdout.trim().to_owned();
        mounted(&first, &fill);
        let base = ok(&["commit", "--quiet", &first]);
        let second = ok(&["from", "--pull-never", &base]);
        mounted(&second, &change);
        space.write("more/file", "more");
        ok(&["copy", &second, "more", "/more"]);
        ok(&["config", "--cmd", "[\"x\"]", &second]);
        ok(&["commit", "--quiet", &second, "oci:image:latest"]);
        same(&space, "image:latest", 20);
        let ours = space.path().join("ours/rootfs");
        assert!(!ours.join("etc/old").exists() && !ours.join("opaque/c").exists());
        ok(&["rm", "--all"]);
    }
}

#[test]
fn a_debian_root() {
    let (Some(skopeo), true) = (peer("skopeo"), is_root()) else {
        return;
    };
    let Some(tar) = debian_root() else { return };
    let space = Space::new();
    let from = format!("tarball:{}", tar.display());
    run(
        &space,
        &skopeo,
        &[
            "copy",
            "--quiet",
            "--insecure-policy",
            &from,
            "oci:debian:latest",
        ],
    );
    same(&space, "debian:latest", 5000);
    // And in one go by tar: an archive is what it holds.
    let theirs = space.path().join("tar");
    fs::create_dir(&theirs).expect("a folder");
    let theirs = untar(&tar, &theirs);
    assert_same(&theirs, &list(&space.path().join("ours/rootfs")));
}
