//! A folder that a program changed becomes a layer, and that layer on top of the image below becomes the same folder.

mod kit;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use imgdecl::parts::layer::{Kind, LayerPath};
use imgdecl::parts::runtime::changed::{Before, Changed, ChangedError, Ids, Marks, Span};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{UnmountFlags, unmount};

use self::kit::{Image, Overlay, PLAIN, Reader, attribute, shell, tree, whole_seconds};
use super::kit::{assert_same, list, write_tars};
use crate::peers::{is_root, run};
use crate::support::{Output, Space, peer};

/// What a program does with it. Nothing here takes one name of a linked file alone: an overlay counts names below.
const CHANGE: &str = r#"
echo 22 > etc/conf; rm etc/old; rm -r gone; mkdir -p new/a/b; echo n > new/a/b/n; chmod 700 new/a
rm -r opaque; mkdir opaque; echo fresh > opaque/fresh
rm kinds/file; mkdir kinds/file; echo in > kinds/file/in
rm -r kinds/folder; echo out > kinds/folder
rm kinds/link; mkdir kinds/link; echo l > kinds/link/l
ln -sfn elsewhere etc/link; rm kinds/fifo
rm lib; mkdir lib; echo x > lib/x
chmod 4711 bin/run; chown 7:8 etc/deep/er; chmod 1770 tmp; chown 1:2 tmp
echo linked > srv/first; ln srv/first new/second; ln srv/first etc/another; chown 5:6 srv/first; chmod 6755 srv/first
ln -s /nowhere new/dangling; chown -h 9:9 new/dangling; : > new/empty; mkdir new/hollow
printf 'a\nb' > 'new/odd "name" \ ü'; truncate -s 300000 new/holes
"#;
/// Capabilities of a file, as setcap writes them.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0];

fn change(root: &Path) {
    shell(root, CHANGE);
    attribute(&root.join("new/a/b/n"), "user.note", b"one\ntwo\0three");
    attribute(&root.join("etc/conf"), "security.capability", &CAPABILITY);
    whole_seconds(root);
}

#[test]
fn a_changed_folder_becomes_a_layer_and_that_the_same_folder() {
    let Some(image) = Image::new() else { return };
    let root = image.unpack(&[], "root");
    let reader = Reader::new();
    let snapshot = reader.snapshot(&root);
    let before = Before::Snapshot(&snapshot);
    let (none, nothing) = reader.read(&root, before).expect("changes");
    assert!(none.is_empty() && none.left_out().is_empty() && nothing.is_empty());

    change(&root);
    // One name of a file goes, and the other one stays.
    shell(&root, "rm srv/four; echo more >> srv/one");
    whole_seconds(&root);
    let (changes, contents) = reader.read(&root, before).expect("changes");
    assert_eq!(changes.left_out(), []);
    let layer = image.layer(changes, &contents);
    let again = image.unpack(&[layer], "again");
    assert_same(&list(&root), &list(&again));
}

#[test]
fn what_did_not_change_is_no_part_of_the_layer() {
    let Some(image) = Image::new() else { return };
    let root = image.unpack(&[], "root");
    let reader = Reader::new();
    let snapshot = reader.snapshot(&root);
    shell(
        &root,
        "echo 2 > etc/conf; rm etc/deep/er/file; touch -d @5 keep",
    );
    let (changes, contents) = reader
        .read(&root, Before::Snapshot(&snapshot))
        .expect("changes");
    assert_eq!(contents, b"2\n");
    let tree = tree(&image.space, changes, &contents);
    let paths: Vec<&str> = tree.entries().keys().map(LayerPath::as_str).collect();
    assert_eq!(
        paths,
        ["etc", "etc/conf", "etc/deep", "etc/deep/er", "keep"]
    );
    let removed: Vec<&str> = tree.removed().iter().map(LayerPath::as_str).collect();
    assert_eq!(removed, ["etc/deep/er/file"]);
}

#[test]
fn an_upper_folder_becomes_a_layer_and_that_what_the_overlay_showed() {
    let Some(image) = Image::new() else { return };
    let lower = image.unpack(&[], "lower");
    let reader = Reader::new();
    for (marks, options) in [(Marks::Trusted, ""), (Marks::User, ",userxattr")] {
        let folder = image.space.path().join(format!("{marks:?}"));
        let options = match marks {
            Marks::Trusted => PLAIN.to_owned(),
            Marks::User => options.to_owned(),
        };
        let Some(overlay) = Overlay::new(&folder, &lower, &options) else {
            continue;
        };
        change(&overlay.merged());
        let shown = list(&overlay.merged());
        let upper = overlay.upper();
        drop(overlay);
        let before = Before::Overlay {
            lower: &lower,
            marks,
        };
        let (changes, contents) = reader.read(&upper, before).expect("changes");
        assert_eq!(changes.left_out(), []);
        let layer = image.layer(changes, &contents);
        let again = image.unpack(&[layer], &format!("again {marks:?}"));
        assert_same(&shown, &list(&again));
    }
}

#[test]
fn both_ways_and_umoci_say_the_same() {
    let Some(image) = Image::new() else { return };
    let reader = Reader::new();
    let root = image.unpack(&[], "root");
    let snapshot = reader.snapshot(&root);
    change(&root);
    let (changes, contents) = reader
        .read(&root, Before::Snapshot(&snapshot))
        .expect("changes");
    let own = image.layer(changes, &contents);
    let own = image.unpack(&[own], "own");

    let Some(umoci) = peer("umoci") else { return };
    let space = &image.space;
    write_tars(space, std::slice::from_ref(&image.base));
    run(space, &umoci, &["unpack", "--image", "img:made", "bundle"]);
    change(&space.path().join("bundle/rootfs"));
    run(
        space,
        &umoci,
        &["repack", "--image", "img:changed", "bundle"],
    );
    run(
        space,
        &umoci,
        &["unpack", "--image", "img:changed", "theirs"],
    );
    let times = |found: BTreeMap<PathBuf, String>| -> BTreeMap<PathBuf, String> {
        // The two were changed at two times.
        let plain = |text: String| {
            let words: Vec<&str> = text.split(' ').collect();
            let time = words.iter().position(|it| it.ends_with(".000000000"));
            let time = time.expect("a time in whole seconds");
            [&words[..time], &words[time + 1..]].concat().join(" ")
        };
        found
            .into_iter()
            .map(|(path, text)| (path, plain(text)))
            .collect()
    };
    let theirs = list(&space.path().join("theirs/rootfs"));
    assert_same(&times(theirs), &times(list(&own)));
}

#[test]
fn what_no_layer_can_hold_is_told() {
    let Some(image) = Image::new() else { return };
    let base = image.space.path().join("base");
    for (number, (script, expected)) in [
        ("mkfifo etc/pipe", "/etc/pipe is a fifo"),
        ("mknod etc/null c 1 3", "/etc/null is a device"),
        ("mknod etc/gone c 0 0", "/etc/gone is a device"),
        ("echo x > etc/.wh.conf", "`.wh.`"),
        ("mkdir etc/.wh..wh..opq", "`.wh.`"),
        ("touch \"etc/$(printf '\\377')\"", "no UTF-8"),
        (
            "ln -s \"$(printf '\\377')\" etc/to",
            "whose target is no UTF-8",
        ),
        (
            "setfattr -n user.a=b -v x etc/conf",
            "whose name no layer can hold",
        ),
        (
            "setfattr -n user.overlay.opaque -v y etc",
            "user.overlay.opaque",
        ),
        (
            "setfattr -n trusted.overlay.redirect -v /etc etc",
            "trusted.overlay.redirect",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let root = image.space.path().join(format!("root{number}"));
        let copied = Output::of(Command::new("cp").arg("-a").arg(&base).arg(&root));
        assert_eq!(copied.status, 0, "{}", copied.stderr);
        let reader = Reader::new();
        let snapshot = reader.snapshot(&root);
        shell(&root, script);
        let error = reader.read(&root, Before::Snapshot(&snapshot)).map(drop);
        let error = error.expect_err(script);
        assert!(error.to_string().contains(expected), "{script}: {error}");
        assert!(error.help().is_some(), "{script}");
    }
}

#[test]
fn a_path_that_is_too_long_for_a_layer_is_told() {
    let Some(image) = Image::new() else { return };
    let root = image.unpack(&[], "root");
    let reader = Reader::new();
    let snapshot = reader.snapshot(&root);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let mut at = rustix::fs::open(&root, flags, Mode::empty()).expect("a folder");
    for _ in 0..17 {
        let name = "n".repeat(250);
        rustix::fs::mkdirat(&at, &name, Mode::RWXU).expect("a folder");
        at = rustix::fs::openat(&at, &name, flags, Mode::empty()).expect("a folder");
    }
    let error = reader
        .read(&root, Before::Snapshot(&snapshot))
        .map(drop)
        .expect_err("too long");
    assert!(error.to_string().contains("or too long"), "{error}");
    // What nobody can name, nobody else removes.
    drop(at);
    shell(image.space.path(), "rm -r root");
}

#[test]
fn what_is_left_out_is_told() {
    let Some(image) = Image::new() else { return };
    let root = image.unpack(&[], "root");
    let mut reader = Reader::new();
    let path = |text| LayerPath::parse(text).expect("a path");
    reader.skip_special = true;
    reader.except = ["proc", "etc/hosts", "keep"].map(path).into();
    let snapshot = reader.snapshot(&root);
    shell(
        &root,
        "mkfifo etc/pipe; mkdir proc; echo 1 > proc/1; echo h > etc/hosts; rm -r keep; rm kinds/file; mkfifo kinds/file
         setfattr -n user.x -v y tmp; chmod 1775 tmp; setfattr -n user.x -v y bin; chmod 700 .; touch -d @5 etc",
    );
    let (changes, contents) = reader
        .read(&root, Before::Snapshot(&snapshot))
        .expect("changes");
    let told: Vec<String> = changes
        .left_out()
        .iter()
        .map(|it| format!("/{}: {}", it.path, it.what))
        .collect();
    let expected = [
        "/: mode and owner of the root itself",
        "/bin: the extended attributes of a folder",
        "/etc/pipe: a fifo",
        "/kinds/file: a fifo",
        "/tmp: the extended attributes of a folder",
    ];
    assert_eq!(told, expected);
    let tree = tree(&image.space, changes, &contents);
    let paths: Vec<&str> = tree.entries().keys().map(LayerPath::as_str).collect();
    // The folder of what was left out has another time.
    assert_eq!(paths, ["etc", "kinds", "tmp"]);
    let removed: Vec<&str> = tree.removed().iter().map(LayerPath::as_str).collect();
    assert_eq!(removed, ["kinds/file"]);
}

#[test]
fn an_overlay_that_renames_folders_is_refused() {
    let Some(image) = Image::new() else { return };
    let lower = image.unpack(&[], "lower");
    for (options, script, expected) in [
        (
            ",redirect_dir=on",
            "mv etc/deep moved",
            "trusted.overlay.redirect",
        ),
        (
            ",metacopy=on",
            "chmod 600 etc/conf",
            "trusted.overlay.metacopy",
        ),
    ] {
        let folder = image.space.path().join(&options[1..4]);
        let Some(overlay) = Overlay::new(&folder, &lower, options) else {
            continue;
        };
        shell(&overlay.merged(), script);
        let upper = overlay.upper();
        drop(overlay);
        let before = Before::Overlay {
            lower: &lower,
            marks: Marks::Trusted,
        };
        let error = Reader::new().read(&upper, before).map(drop);
        let error = error.expect_err(script).to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn what_is_mounted_in_the_folder_is_never_entered() {
    let Some(image) = Image::new() else { return };
    let root = image.unpack(&[], "root");
    let host = image.space.path().join("host");
    fs::create_dir(&host).expect("a folder");
    fs::write(host.join("secret"), "secret").expect("a file");
    for (point, bound) in [("keep", host.clone()), ("etc/conf", host.join("secret"))] {
        let reader = Reader::new();
        let snapshot = reader.snapshot(&root);
        let point = root.join(point);
        if let Err(error) = rustix::mount::mount_bind(&bound, &point) {
            eprintln!("skipped: nothing can be mounted here: {error}");
            return;
        }
        let read = reader.read(&root, Before::Snapshot(&snapshot)).map(drop);
        unmount(&point, UnmountFlags::DETACH).expect("unmounted");
        let error = read.expect_err("a mount");
        assert!(matches!(error, ChangedError::Mounted(_)), "{error}");
    }
}

#[test]
fn owners_are_shifted_back_and_the_rest_refused() {
    let Some(image) = Image::new() else { return };
    let root = image.unpack(&[], "root");
    let mut reader = Reader::new();
    let span = Span {
        inside: 0,
        outside: 100_000,
        count: 1000,
    };
    reader.ids = Ids {
        users: vec![span],
        groups: vec![span],
    };
    let shift = "chown 100000:100000 etc etc/conf; chown 100005:100006 etc/old";
    let snapshot = reader.snapshot(&root);
    shell(&root, shift);
    let (changes, contents) = reader
        .read(&root, Before::Snapshot(&snapshot))
        .expect("changes");
    let tree = tree(&image.space, changes, &contents);
    let owners: Vec<(&str, u32, u32)> = tree
        .entries()
        .iter()
        .map(|(path, entry)| match &entry.kind {
            Kind::Folder { attrs, .. } | Kind::File { attrs, .. } => {
                (path.as_str(), attrs.owner.uid, attrs.owner.gid)
            }
            _ => panic!("{path}"),
        })
        .collect();
    assert_eq!(
        owners,
        [("etc", 0, 0), ("etc/conf", 0, 0), ("etc/old", 5, 6)]
    );
    shell(&root, "chown 101000 etc/old");
    let error = reader.read(&root, Before::Snapshot(&snapshot)).map(drop);
    let error = error.expect_err("nobody").to_string();
    assert!(error.contains("belongs to 101000:100006"), "{error}");
}

#[test]
fn limits_and_ticks_stop_it() {
    let Some(image) = Image::new() else { return };
    let root = image.unpack(&[], "root");
    let mut reader = Reader::new();
    let snapshot = reader.snapshot(&root);
    shell(&root, "truncate -s 1T etc/conf");
    let error = reader.read(&root, Before::Snapshot(&snapshot)).map(drop);
    assert!(
        matches!(error, Err(ChangedError::Limit { .. })),
        "{error:?}"
    );
    reader.limits.entries = 10;
    let error = reader.with(&root, |it| it.snapshot().map(drop));
    assert!(
        matches!(error, Err(ChangedError::Limit { .. })),
        "{error:?}"
    );
    let error = reader.with(&root, |it| {
        let stopped = Changed {
            tick: &|_| false,
            ..*it
        };
        stopped.snapshot().map(drop)
    });
    assert!(matches!(error, Err(ChangedError::Stopped)), "{error:?}");
}

#[test]
fn symlinks_lead_nowhere_and_deep_folders_are_read() {
    let Some(image) = Image::new() else { return };
    let root = image.unpack(&[], "root");
    let reader = Reader::new();
    let snapshot = reader.snapshot(&root);
    let secret = image.space.write("secret/file", "secret");
    let folder = secret.parent().expect("a folder");
    std::os::unix::fs::symlink(folder, root.join("out")).expect("a symlink");
    // More folders than a process may have open, as a rule.
    let deep = root.join("d/".repeat(1900));
    fs::create_dir_all(&deep).expect("folders");
    fs::write(deep.join("f"), "deep").expect("a file");
    let mode = fs::Permissions::from_mode(0o500);
    fs::set_permissions(root.join("d"), mode).expect("a mode");
    let (changes, contents) = reader
        .read(&root, Before::Snapshot(&snapshot))
        .expect("changes");
    assert_eq!(contents, b"deep");
    let tree = tree(&image.space, changes, &contents);
    assert_eq!(tree.entries().len(), 1902);
    let mode = fs::metadata(root.join("d")).expect("a folder").mode();
    assert_eq!(mode & 0o777, 0o500);
}

/// Does anything to a folder, in it alone: no symlink that it makes leads up.
fn anything(root: &Path, random: &mut fastrand::Rng, steps: usize, links: bool) {
    const NAMES: [&str; 4] = ["a", "b", "c", "d"];
    let path = |random: &mut fastrand::Rng| {
        let depth = random.usize(1..4);
        (0..depth).fold(root.to_owned(), |path, _| {
            path.join(NAMES[random.usize(..NAMES.len())])
        })
    };
    for step in 0..steps {
        let at = path(random);
        let mode = fs::Permissions::from_mode(random.u32(0o700..0o10000));
        // Most of it fails: what is there is a file, or nothing, or not empty.
        let _ = match random.u32(..10) {
            0 | 1 => fs::create_dir_all(&at),
            2 | 3 => fs::write(&at, format!("{step}")),
            4 => fs::remove_dir_all(&at),
            5 => fs::remove_file(&at),
            6 => fs::rename(&at, path(random)),
            7 => std::os::unix::fs::symlink(["a", "b/c", "none"][random.usize(..3)], &at),
            // The names of a symlink become symlinks of their own.
            8 if links && !at.is_symlink() => fs::hard_link(&at, path(random)),
            8 => std::os::unix::fs::lchown(&at, Some(random.u32(..9)), None),
            _ => fs::set_permissions(&at, mode),
        };
    }
    whole_seconds(root);
}

#[test]
fn whatever_is_done_to_a_folder_the_layer_does() {
    if !is_root() {
        eprintln!("skipped: needs root, to give files away");
        return;
    }
    let reader = Reader::new();
    for seed in 0..12 {
        let mut random = fastrand::Rng::with_seed(seed);
        let space = Space::new();
        let base = space.path().join("base");
        fs::create_dir(&base).expect("a folder");
        // An overlay shows the count of links that a file below has, whatever became of its other names.
        anything(&base, &mut random, 120, false);
        let image = Image::of(space, &base);
        let lower = image.unpack(&[], "lower");
        let root = image.unpack(&[], "root");

        let snapshot = reader.snapshot(&root);
        anything(&root, &mut random, 80, true);
        let read = reader.read(&root, Before::Snapshot(&snapshot));
        let (changes, contents) = read.unwrap_or_else(|error| panic!("{seed}: {error}"));
        let again = image.unpack(&[image.layer(changes, &contents)], "again");
        eprintln!("seed {seed}, a folder");
        assert_same(&list(&root), &list(&again));

        let folder = image.space.path().join("overlay");
        let Some(overlay) = Overlay::new(&folder, &lower, PLAIN) else {
            return;
        };
        anything(&overlay.merged(), &mut random, 80, true);
        let shown = list(&overlay.merged());
        let upper = overlay.upper();
        drop(overlay);
        let before = Before::Overlay {
            lower: &lower,
            marks: Marks::Trusted,
        };
        let read = reader.read(&upper, before);
        let (changes, contents) = read.unwrap_or_else(|error| panic!("{seed}: {error}"));
        let again = image.unpack(&[image.layer(changes, &contents)], "above");
        eprintln!("seed {seed}, an overlay");
        assert_same(&shown, &list(&again));
    }
}
