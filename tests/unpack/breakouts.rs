//! The cases by which containerd tests that no layer reaches out of its root (its `pkg/archive`, `TestBreakouts`): what it
//! unpacks is unpacked to the same, and what it refuses is refused. umoci, where it is there, is asked as well.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::kit::{AMD64, Tar, list, write_tars};
use crate::support::Space;

/// What must be true of the root.
enum Then {
    /// Both paths, through symlinks, are one file.
    Same(&'static str, &'static str),
    /// They are not.
    Other(&'static str, &'static str),
    /// Both are symlinks with one text.
    SameLink(&'static str, &'static str),
    /// The file holds this.
    Holds(&'static str, &'static str),
    /// There is no such path.
    Gone(&'static str),
}
use Then::{Gone, Holds, Other, Same, SameLink};

/// A case: what lies below, what is unpacked onto it, and what comes of it; nothing where the layer is refused.
struct Case {
    name: &'static str,
    below: Option<Tar>,
    layer: Tar,
    then: Vec<Then>,
}

fn case(name: &'static str, below: Option<Tar>, layer: Tar, then: Vec<Then>) -> Case {
    Case {
        name,
        below,
        layer,
        then,
    }
}

/// A root with `/etc/passwd`.
fn etc() -> Tar {
    Tar::new().folder("etc").file("/etc/passwd", "inside")
}

fn on_etc(more: impl Fn(Tar) -> Tar) -> Option<Tar> {
    Some(more(etc()))
}

fn cases() -> Vec<Case> {
    let unbroken = |tar: Tar, path: &str| tar.file(path, "unbroken");
    let is_unbroken = || vec![Holds("etc/unbroken", "unbroken")];
    let new = Tar::new;
    let deep = || etc().folder("breakouts");
    let dummy = || new().folder("etc").folder("dummy");
    let same = || vec![Same("localpasswd", "etc/passwd")];
    let same_below = || vec![Same("localetc/localpasswd", "etc/passwd")];
    let whited = || etc().file("/etc/whitedout", "ahhhh whiteout");
    vec![
        case(
            "SymlinkAbsolute",
            None,
            unbroken(
                new().folder("etc").symlink("localetc", "/etc"),
                "/localetc/unbroken",
            ),
            is_unbroken(),
        ),
        case(
            "SymlinkUpAndOut",
            None,
            unbroken(
                dummy().symlink("localetc", "/dummy/../etc"),
                "/localetc/unbroken",
            ),
            is_unbroken(),
        ),
        case(
            "SymlinkMultipleAbsolute",
            None,
            unbroken(
                dummy()
                    .symlink("/dummy/etc", "/etc")
                    .symlink("localetc", "/dummy/etc"),
                "/dummy/etc/unbroken",
            ),
            is_unbroken(),
        ),
        case(
            "SymlinkMultipleRelative",
            None,
            unbroken(
                dummy()
                    .symlink("/dummy/etc", "/etc")
                    .symlink("localetc", "./dummy/etc"),
                "/dummy/etc/unbroken",
            ),
            is_unbroken(),
        ),
        case(
            "SymlinkEmptyFile",
            None,
            new()
                .folder("etc")
                .file("etc/emptied", "notempty")
                .symlink("localetc", "/etc")
                .file("/localetc/emptied", ""),
            vec![Holds("etc/emptied", "")],
        ),
        case(
            "HardlinkRelative",
            None,
            deep()
                .symlink("breakouts/d1", "../../etc")
                .hard_link("breakouts/mypasswd", "/breakouts/d1/passwd"),
            vec![Same("breakouts/mypasswd", "etc/passwd")],
        ),
        case(
            "HardlinkDownAndOut",
            None,
            deep()
                .folder("downandout")
                .symlink("breakouts/d1", "../downandout/../../etc")
                .hard_link("breakouts/mypasswd", "/breakouts/d1/passwd"),
            vec![Same("breakouts/mypasswd", "etc/passwd")],
        ),
        case(
            "HardlinkAbsolute",
            None,
            etc()
                .symlink("localetc", "/etc")
                .hard_link("localpasswd", "/localetc/passwd"),
            same(),
        ),
        case(
            "HardlinkRelativeLong",
            None,
            etc()
                .symlink("localetc", "../../../../../../../etc")
                .hard_link("localpasswd", "/localetc/passwd"),
            same(),
        ),
        case(
            "HardlinkRelativeUpAndOut",
            None,
            etc()
                .symlink("localetc", "upandout/../../../etc")
                .hard_link("localpasswd", "/localetc/passwd"),
            same(),
        ),
        case(
            "HardlinkDirectRelative",
            None,
            etc().hard_link("localpasswd", "../../../../../etc/passwd"),
            same(),
        ),
        case(
            "HardlinkDirectAbsolute",
            None,
            etc().hard_link("localpasswd", "/etc/passwd"),
            same(),
        ),
        case(
            "SymlinkParentDirectory",
            None,
            etc()
                .symlink("..", "/etc/")
                .hard_link("localpasswd", "/etc/passwd"),
            same(),
        ),
        case(
            "SymlinkEmptyFilename",
            None,
            etc()
                .symlink("", "/etc/")
                .hard_link("localpasswd", "/etc/passwd"),
            same(),
        ),
        case(
            "SymlinkParentRelative",
            None,
            etc()
                .symlink("localetc/sub/..", "/etc/")
                .hard_link("/localetc/localpasswd", "/etc/passwd"),
            same_below(),
        ),
        case(
            "SymlinkSlashEnded",
            None,
            etc()
                .folder("localetc/")
                .hard_link("/localetc/localpasswd", "/etc/passwd"),
            same_below(),
        ),
        case(
            "SymlinkOverrideDirectory",
            on_etc(|tar| tar.folder("localetc")),
            new()
                .symlink("localetc", "/etc")
                .hard_link("/localetc/localpasswd", "/etc/passwd"),
            same_below(),
        ),
        case(
            "SymlinkOverrideDirectoryRelative",
            on_etc(|tar| tar.folder("localetc")),
            new()
                .symlink("localetc", "../../etc")
                .hard_link("/localetc/localpasswd", "/etc/passwd"),
            same_below(),
        ),
        case(
            "DirectoryOverrideSymlink",
            on_etc(|tar| tar.symlink("localetc", "/etc")),
            new()
                .folder("/localetc/")
                .hard_link("/localetc/localpasswd", "/etc/passwd"),
            same_below(),
        ),
        case(
            "DirectoryOverrideSymlinkAndHardlink",
            on_etc(|tar| {
                tar.symlink("localetc", "etc")
                    .hard_link("/localetc/localpasswd", "/etc/passwd")
            }),
            new()
                .folder("/localetc/")
                .file("/localetc/localpasswd", "different"),
            vec![Other("localetc/localpasswd", "etc/passwd")],
        ),
        case(
            "WhiteoutRootParent",
            Some(etc()),
            new().file(".wh...", ""),
            vec![],
        ),
        case(
            "WhiteoutParent",
            Some(etc()),
            new().file("etc/.wh...", ""),
            vec![],
        ),
        case("WhiteoutRoot", Some(etc()), new().file(".wh..", ""), vec![]),
        case(
            "WhiteoutCurrentDirectory",
            Some(etc()),
            new().file("etc/.wh..", ""),
            vec![],
        ),
        case(
            "WhiteoutSymlink",
            on_etc(|tar| tar.symlink("localetc", "/etc")),
            new().file(".wh.localetc", ""),
            vec![Holds("etc/passwd", "inside"), Gone("localetc")],
        ),
        case(
            "WhiteoutSymlinkPath",
            Some(whited().symlink("localetc", "/etc")),
            new().file("localetc/.wh.whitedout", ""),
            vec![Holds("etc/passwd", "inside"), Gone("etc/whitedout")],
        ),
        case(
            "WhiteoutDirectoryName",
            Some(whited().symlink("localetc", "/etc")),
            new().file(".wh.etc/somefile", "non-empty"),
            vec![
                Holds("etc/passwd", "inside"),
                Holds(".wh.etc/somefile", "non-empty"),
            ],
        ),
        case(
            "WhiteoutDeadSymlinkParent",
            on_etc(|tar| tar.symlink("localetc", "/dne")),
            new().file("localetc/.wh.etc", ""),
            vec![Holds("etc/passwd", "inside")],
        ),
        case(
            "WhiteoutRelativePath",
            on_etc(|tar| tar.symlink("localetc", "/dne")),
            new().file("dne/../.wh.etc", ""),
            vec![Gone("etc/passwd")],
        ),
        case(
            "SymlinkOverridePath",
            None,
            new()
                .folder("foo")
                .folder("foo/tmp")
                .file("foo/tmp/breakout", "1")
                .symlink("foo", "/")
                .file("foo/tmp/breakout", "2")
                .folder("foo")
                .folder("foo/tmp")
                .file("foo/tmp/breakout", "3"),
            vec![Holds("foo/tmp/breakout", "3"), Holds("tmp/breakout", "2")],
        ),
        case(
            "HardlinkSymlinkBeforeCreateTarget",
            None,
            new()
                .folder("etc")
                .symlink("localpasswd", "/etc/passwd")
                .hard_link("localpasswd-dup", "localpasswd")
                .file("/etc/passwd", "after"),
            vec![Same("localpasswd-dup", "etc/passwd")],
        ),
        case(
            "HardlinkSymlinkRelative",
            None,
            etc()
                .symlink("passwdlink", "../../../../../etc/passwd")
                .hard_link("localpasswd", "/passwdlink"),
            vec![
                SameLink("localpasswd", "passwdlink"),
                Same("localpasswd", "etc/passwd"),
            ],
        ),
        case(
            "HardlinkSymlinkAbsolute",
            None,
            etc()
                .symlink("passwdlink", "/etc/passwd")
                .hard_link("localpasswd", "/passwdlink"),
            vec![
                SameLink("localpasswd", "passwdlink"),
                Same("localpasswd", "etc/passwd"),
            ],
        ),
        // The tars of its own image may name a file of the host: its mode stays (HardlinkSymlinkChmod, in attacks.rs).
    ]
}

/// Returns where a path of a root leads, with symlinks followed inside the root.
fn inside(root: &Path, path: &str) -> PathBuf {
    let mut ahead: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
    let mut at = PathBuf::new();
    for _ in 0..1000 {
        let Some(name) = ahead.pop() else { break };
        match name.as_str() {
            "" | "." => {}
            ".." => drop(at.pop()),
            name => {
                let next = at.join(name);
                match fs::read_link(root.join(&next)) {
                    Ok(target) => {
                        let target = target.to_string_lossy().into_owned();
                        if target.starts_with('/') {
                            at = PathBuf::new();
                        }
                        ahead.extend(target.split('/').rev().map(str::to_owned));
                    }
                    Err(_) => at = next,
                }
            }
        }
    }
    root.join(at)
}

fn check(root: &Path, then: &Then) -> Result<(), String> {
    let inode = |path: &str| {
        let path = inside(root, path);
        let found = fs::symlink_metadata(&path);
        found
            .map(|it| it.ino())
            .map_err(|error| format!("{}: {error}", path.display()))
    };
    let is_true = match then {
        Same(a, b) => inode(a)? == inode(b)?,
        Other(a, b) => inode(a)? != inode(b)?,
        SameLink(a, b) => {
            let text = |path: &str| fs::read_link(root.join(path)).map_err(|it| it.to_string());
            text(a)? == text(b)?
        }
        Holds(path, text) => {
            let bytes = fs::read(inside(root, path)).map_err(|it| format!("{path}: {it}"))?;
            bytes == text.as_bytes()
        }
        Gone(path) => fs::symlink_metadata(root.join(path)).is_err(),
    };
    is_true.then_some(()).ok_or_else(|| match then {
        Same(a, b) | Other(a, b) | SameLink(a, b) => format!("{a} and {b}"),
        Holds(path, _) | Gone(path) => (*path).to_owned(),
    })
}

#[test]
fn what_containerd_unpacks_is_unpacked_and_what_it_refuses_is_refused() {
    let mut wrong = Vec::new();
    for case in cases() {
        let space = Space::new();
        let layers = case.below.into_iter().chain([case.layer]);
        write_tars(&space, &layers.map(Tar::end).collect::<Vec<_>>());
        let before = list(&space.path().join("img"));
        let output = space.run(&["unpack", "img", "out", AMD64]);
        let root = space.path().join("out");
        match (output.status, case.then.is_empty()) {
            (0, false) => {
                let checks = case.then.iter().map(|then| check(&root, then));
                wrong.extend(
                    checks
                        .filter_map(Result::err)
                        .map(|why| format!("{}: {why}", case.name)),
                );
            }
            (1, true) => assert!(!root.exists(), "{}: something is left", case.name),
            (status, _) => wrong.push(format!("{}: exit {status}: {}", case.name, output.stderr)),
        }
        assert_eq!(before, list(&space.path().join("img")), "{}", case.name);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
