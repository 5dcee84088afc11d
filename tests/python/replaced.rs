//! What changes after it was locked: wheels and bases that are replaced under their names, and targets that do not go
//! together.

use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::support::{Space, validate};

/// Writes a wheel of `hello` 1.0 whose module holds a text.
fn wheel(space: &Space, text: &str) {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let mut add = |name: &str, text: &str| {
        let name = name.replace("INFO", "hello-1.0.dist-info");
        zip.start_file(name, SimpleFileOptions::default())
            .expect("memory");
        zip.write_all(text.as_bytes()).expect("memory");
    };
    add("hello.py", text);
    add(
        "INFO/METADATA",
        "Metadata-Version: 2.1\nName: hello\nVersion: 1.0\n",
    );
    add(
        "INFO/WHEEL",
        "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    );
    add("INFO/RECORD", "hello.py,,\n");
    let bytes = zip.finish().expect("memory").into_inner();
    let path = space.path().join("wheels/hello-1.0-py3-none-any.whl");
    fs::write(path, bytes).expect("a wheel");
}

/// A wheel or a base that was replaced under its name is told where the lock must be right, and locked again elsewhere.
#[test]
fn what_was_replaced_is_locked_again() {
    let space = Space::new();
    let base = |minor: &str| {
        let text = format!(
            "[image.base]\nbase = \"scratch\"\nlayers = [{{ files = {{ text = {{ \"/usr/local/bin/python3.{minor}\" = \"x\" }} }} }}]\n"
        );
        space.write("base/image.toml", &text);
        space.ok(&["build", "./base", "--output", "oci-archive:base.tar"]);
    };
    base("11");
    fs::create_dir(space.path().join("wheels")).expect("a folder");
    wheel(&space, "one");
    space.write(
        "image.toml",
        "[base.python]\narchive = \"base.tar\"\n\n[pip.deps]\npackages = [\"hello\"]\nfind_links = [\"wheels\"]\n\n\
         [image.app]\nbase = \"python\"\nlayers = [\"deps\"]\n",
    );
    let lock = || fs::read_to_string(space.path().join("image.lock")).expect("image.lock");
    let build = || {
        let args = ["build", "image.toml", "--output", "oci:out"];
        let built = space.ok(&args);
        validate(&space.path().join("out"));
        built.stdout
    };
    let first = build();
    assert!(lock().contains("cp311\""), "{}", lock());
    space.ok(&["build", "image.toml", "--locked"]);
    let stale = |what: &str| {
        let output = space.run(&["build", "image.toml", "--locked"]);
        assert_eq!(output.status, 2, "{}", output.stderr);
        assert!(output.stderr.contains("image.lock is stale"), "{output:?}");
        assert!(output.stderr.contains(what), "{}", output.stderr);
    };

    wheel(&space, "two");
    stale("`deps` was resolved from wheels/hello-1.0-py3-none-any.whl sha256:");
    let before = lock();
    let second = build();
    assert_ne!(first, second);
    assert_ne!(before, lock());
    space.ok(&["build", "image.toml", "--locked"]);

    base("12");
    stale("`python` was resolved from the archive sha256:");
    let third = build();
    assert_ne!(second, third);
    assert!(
        lock().contains("cp312\"") && !lock().contains("cp311\""),
        "{}",
        lock()
    );
    space.ok(&["build", "image.toml", "--locked"]);
    // What nobody needs any more goes.
    space.write(
        "image.toml",
        "[base.python]\narchive = \"base.tar\"\n\n[image.app]\nbase = \"python\"\n",
    );
    space.ok(&["lock"]);
    assert!(!lock().contains("[base"), "{}", lock());
}

/// What the cache remembers of a wheel is believed as long as the wheel is whole, and made again where it is gone.
#[test]
fn what_is_remembered_of_a_wheel_is_made_again() {
    let space = Space::new();
    fs::create_dir(space.path().join("wheels")).expect("a folder");
    wheel(&space, "one");
    let manifest = |code: &str, compression: &str| {
        let text = format!(
            "[defaults]\ncompression = \"{compression}\"\n\n[pip.deps]\npackages = [\"hello\"]\nfind_links = [\"wheels\"]\n\
             python = \"3.11\"\n\n[image.app]\nbase = \"scratch\"\n\
             layers = [\"deps\", {{ files = {{ text = {{ \"/app.py\" = \"{code}\" }} }} }}]\n"
        );
        space.write("image.toml", text);
    };
    let args = ["build", "image.toml", "--output", "oci:out"];
    // The blobs whose bytes are so, somewhere.
    let blobs = |bytes: &[u8]| -> Vec<PathBuf> {
        let mut found = Vec::new();
        let folders = fs::read_dir(space.cache().join("blobs-v1/sha256")).expect("a cache");
        for folder in folders {
            let files = fs::read_dir(folder.expect("a folder").path()).expect("a folder");
            let files = files.map(|it| it.expect("a blob").path());
            found.extend(files.filter(|path| {
                let content = fs::read(path).expect("a blob");
                content.windows(bytes.len()).any(|it| it == bytes)
            }));
        }
        found
    };
    manifest("first", "gzip");
    space.ok(&args);

    // Code above needs what the packages bring, which a listing says; without it, the wheel.
    let listing = b"[{\"path\":\"usr/local/lib/python3.11/site-packages/hello-1.0.dist-info";
    let before = blobs(listing);
    assert_eq!(before.len(), 1);
    fs::remove_file(&before[0]).expect("a listing");
    manifest("second", "gzip");
    space.ok(&args);
    assert_eq!(blobs(listing), before);
    validate(&space.path().join("out"));

    // The listing is whole, and the wheel is not: its module is stored as it is, with nothing around that would tell.
    let kept = blobs(b"hello.pyone");
    assert_eq!(kept.len(), 1, "the wheel");
    let mut damaged = fs::read(&kept[0]).expect("the wheel");
    let at = damaged.windows(11).position(|it| it == b"hello.pyone");
    damaged[at.expect("the module") + 8] = b'x';
    fs::remove_file(&kept[0]).expect("the wheel");
    fs::write(&kept[0], damaged).expect("another wheel");
    let away = space.path().join("away");
    fs::rename(space.path().join("wheels"), &away).expect("a folder");
    fs::create_dir(space.path().join("wheels")).expect("a folder");
    manifest("second", "zstd");
    let failed = space.run(&["build", "image.toml", "--offline", "--output", "oci:out"]);
    assert_ne!(failed.status, 0, "{}", failed.stderr);
    assert!(
        failed.stderr.contains("hello-1.0-py3-none-any.whl"),
        "{}",
        failed.stderr
    );
    // With the wheel at hand, it is mended.
    fs::remove_dir(space.path().join("wheels")).expect("a folder");
    fs::rename(away, space.path().join("wheels")).expect("a folder");
    space.ok(&args);
    validate(&space.path().join("out"));
    assert_eq!(blobs(b"hello.pyone").len(), 1);
}

/// Targets that do not go together are locked all the same, so that one of them can be mended.
#[test]
fn versions_that_exclude_each_other_are_told_by_lock() {
    let space = Space::new();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/pip/bad-two-versions");
    space.copy(&golden);
    let locked = space.run(&["lock"]);
    assert_eq!(locked.status, 2, "{}", locked.stderr);
    assert!(locked.stdout.contains("+ hello-0.9-"), "{}", locked.stdout);
    assert!(
        locked.stderr.contains("hello 0.9 and 1.0"),
        "{}",
        locked.stderr
    );
    let before = fs::read_to_string(space.path().join("image.lock")).expect("image.lock");

    assert_eq!(space.run(&["lock", "--update", "new"]).status, 2);
    let manifest = fs::read_to_string(space.path().join("image.toml")).expect("image.toml");
    space.write("image.toml", manifest.replace("hello<1", "hello>=1"));
    let mended = space.ok(&["lock"]);
    assert!(mended.stdout.contains("- hello-0.9-"), "{}", mended.stdout);
    let after = fs::read_to_string(space.path().join("image.lock")).expect("image.lock");
    assert_ne!(before, after);
    space.ok(&["build", "--locked"]);
}
