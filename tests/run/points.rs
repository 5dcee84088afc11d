//! Mount points: what an image has in the place of `/dev`, `/proc`, `/sys` or of a mount never reaches the host.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use super::{IMAGE, assert_nothing_left, space};
use crate::support::Space;

/// A folder of the host with what a runtime would remove, and what lies in it.
struct Host(PathBuf);

impl Host {
    fn new(space: &Space) -> Self {
        space.write("host/ptmx", "of the host");
        space.write("host/fd/x", "of the host");
        space.write("host/hosts", "of the host");
        Self(space.path().join("host"))
    }

    fn list(&self) -> BTreeMap<String, String> {
        let entries = fs::read_dir(&self.0).expect("the folder");
        let entries = entries.map(|it| it.expect("an entry"));
        let entry = |it: fs::DirEntry| {
            let text = fs::read_to_string(it.path()).unwrap_or_default();
            let kind = it.file_type().expect("a type");
            (
                it.file_name().to_string_lossy().into_owned(),
                format!("{kind:?} {text}"),
            )
        };
        entries.map(entry).collect()
    }
}

/// Builds the shell's image with more in it: keys of an entry of `files`.
fn build(space: &Space, more: &str) {
    let more = format!("{{ {more} }},\n    {{ src = \"busybox\"");
    space.write("image.toml", IMAGE.replace("{ src = \"busybox\"", &more));
    space.ok(&["build", "--output", "oci:out"]);
}

#[test]
fn nothing_is_mounted_through_what_an_image_has() {
    let Some(space) = space() else {
        return;
    };
    let host = Host::new(&space);
    let before = host.list();
    let place = host.0.display().to_string();
    let above = "../".repeat(30);
    let link = |path: &str, target: &str| format!(r#"symlinks = {{ "{path}" = "{target}" }}"#);
    let chain = format!(r#"symlinks = {{ "/dev" = "x/d", "/x/d" = "../y", "/y" = "{place}" }}"#);
    let file = r#"text = { "/dev" = "x" }"#.to_owned();
    for (more, at) in [
        (link("/dev", &place), "/dev"),
        (link("/dev", &format!("{above}{place}")), "/dev"),
        (link("/dev", &format!("/proc/self/root{place}")), "/dev"),
        (link("/dev", "srv"), "/dev"),
        (chain, "/dev"),
        (file, "/dev"),
        (link("/proc", &place), "/proc"),
        (link("/sys", &place), "/sys"),
        (link("/sys/fs", &place), "/sys/fs"),
        (link("/sys/fs/cgroup", "/srv"), "/sys/fs/cgroup"),
        (link("/dev/pts", &place), "/dev/pts"),
        (link("/dev/shm", "/tmp"), "/dev/shm"),
        (link("/dev/mqueue", &place), "/dev/mqueue"),
        (r#"text = { "/dev/pts" = "" }"#.to_owned(), "/dev/pts"),
    ] {
        build(&space, &more);
        let _ = fs::remove_dir_all(space.path().join("bundle"));
        for args in [
            &["run", "oci:out", "--", "true"][..],
            &["run", "--net", "none", "oci:out", "--", "true"],
            &["run", "--chroot", "oci:out", "--", "true"],
            &["unpack", "oci:out", "bundle", "--bundle"],
        ] {
            let output = space.run(args);
            let said = &output.stderr;
            assert_eq!(output.status, 1, "{more} {args:?}: {said}");
            assert!(
                said.contains(&format!("imgdecl::{}::bundle", args[0])),
                "{said}"
            );
            assert!(said.contains(&format!("{at} is a ")), "{more} {at}: {said}");
            assert_eq!(host.list(), before, "{more} {args:?}");
        }
        assert!(!space.path().join("bundle").exists());
    }
    assert_nothing_left(&space);
}

#[test]
fn mounts_of_the_user_go_where_they_are_sent() {
    let Some(space) = space() else {
        return;
    };
    let host = Host::new(&space);
    let before = host.list();
    let place = host.0.display().to_string();
    space.write("data/file", "mine\n");
    std::os::unix::fs::symlink(&place, space.path().join("data/out")).expect("a symlink");
    build(
        &space,
        &format!(r#"symlinks = {{ "/d" = "{place}", "/e" = "srv", "/a/b" = "/srv" }}"#),
    );
    for (mounts, at) in [
        (&["data:/d"][..], "/d is a symlink"),
        (&["data:/d/new"], "/d is a symlink"),
        (&["data:/e/new"], "/e is a symlink to srv"),
        (&["data:/a/b/c"], "/a/b is a symlink"),
        (&["data/file:/d"], "/d is a symlink"),
        (&["data:/srv/../d"], "`..`"),
        // What an earlier container left in a folder of the user.
        (&["data:/srv", "data:/srv/out/new"], "/out is a symlink"),
    ] {
        let mut args = vec!["run", "--net", "none"];
        mounts.iter().for_each(|it| args.extend(["--mount", it]));
        args.extend(["oci:out", "--", "true"]);
        let output = space.run(&args);
        assert_eq!(output.status, 1, "{mounts:?}: {}", output.stderr);
        assert!(output.stderr.contains(at), "{mounts:?}: {}", output.stderr);
        assert_eq!(host.list(), before, "{mounts:?}");
    }
    let args = [
        "run",
        "--mount",
        "data:/srv/new/x",
        "--mount",
        "data/file:/srv/new/x/f",
    ];
    let args = [&args[..], &["oci:out", "--", "cat", "/srv/new/x/f"]].concat();
    assert_eq!(space.ok(&args).stdout, "mine\n");
    assert_nothing_left(&space);
}

#[test]
fn what_images_usually_have_there_is_no_reason_to_refuse_them() {
    let Some(space) = space() else {
        return;
    };
    let host = Host::new(&space);
    let before = host.list();
    let place = host.0.display().to_string();
    // A root as bootstrappers leave it: the names in /dev, and a resolv.conf of systemd.
    build(
        &space,
        &format!(
            r#"symlinks = {{ "/dev/fd" = "/proc/self/fd", "/dev/stdin" = "{place}/ptmx", "/dev/ptmx" = "pts/ptmx", "/dev/console" = "{place}/hosts", "/etc/resolv.conf" = "../run/systemd/resolve/stub-resolv.conf", "/etc/hosts" = "{place}/hosts", "/var/run" = "/run" }}, text = {{ "/dev/null" = "x" }}"#
        ),
    );
    let script = "cat /etc/resolv.conf; ls -l /dev/null; cat /etc/hosts >/dev/null && echo both";
    let output = space.ok(&["run", "--net", "host", "oci:out", "--", "sh", "-c", script]);
    let own = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    assert!(output.stdout.starts_with(&own), "{output:?}");
    assert!(
        output.stdout.contains("\ncrw-rw-rw-") || output.stdout.starts_with("crw"),
        "{output:?}"
    );
    assert!(output.stdout.ends_with("both\n"), "{output:?}");
    assert_eq!(host.list(), before);
    assert_nothing_left(&space);
}

#[test]
fn a_workdir_is_a_folder_of_the_image() {
    let Some(space) = space() else {
        return;
    };
    let links = r#"symlinks = { "/w" = "proc/self/fd/7", "/v" = "/dev/fd/8", "/p" = "/proc" }"#;
    build(&space, links);
    for folder in [
        "/proc/self/fd/7",
        "/proc/self/fd/8/../../..",
        "//proc/./1/root",
        "/dev/fd/9",
        "/w",
        "/w/x",
        "/v",
        "/p/self/cwd",
    ] {
        for more in [&[][..], &["--chroot"]] {
            let args = [
                &["run"],
                more,
                &["--workdir", folder, "oci:out", "--", "pwd"],
            ]
            .concat();
            let output = space.run(&args);
            assert_eq!(output.status, 1, "{folder}: {output:?}");
            let expected = match folder.contains("..") {
                true => "which is no absolute path without `..`",
                false => "leads into /proc",
            };
            assert!(
                output.stderr.contains(expected),
                "{folder}: {}",
                output.stderr
            );
        }
    }
    let output = space.ok(&["run", "--workdir", "/proc", "oci:out", "--", "pwd"]);
    assert_eq!(output.stdout, "/proc\n");
}
