//! What a build needs of the cache: records say what there is, and bytes are read where someone needs them.

use std::fs;
use std::path::{Path, PathBuf};

use imgdecl::parts::oci::Digest;

use crate::support::wheel::Recipe;
use crate::support::{Layer, Output, Space, validate};

/// Returns where the cache has a blob.
fn blob(space: &Space, digest: &Digest) -> PathBuf {
    let hex = digest.hex();
    let folder = space.cache().join("blobs-v1/sha256").join(&hex[..2]);
    folder.join(hex)
}

/// Removes what is kept of how layers were compressed: else one could be put together without its tree's bytes.
fn forget_segments(space: &Space) {
    for entry in fs::read_dir(space.cache().join("segments-v1")).expect("a bucket") {
        fs::remove_file(entry.expect("an entry").path()).expect("it can be removed");
    }
}

/// Returns the digests of an image's layers, as they were built into a layout.
fn layers(space: &Space) -> Vec<Digest> {
    let layout = validate(&space.path().join("imgdecl-out"));
    let images = layout.images.values().flat_map(|image| &image.platforms);
    let layers = images.flat_map(|platform| &platform.layers);
    let digest = |layer: &Layer| layer.digest.parse().expect("a digest");
    layers.map(digest).collect()
}

/// Returns the rows of a plan.
fn plan(space: &Space) -> Vec<String> {
    let text = space.ok(&["plan"]).stdout;
    let rows = text.lines().filter(|line| line.starts_with("    "));
    rows.map(|line| line.trim().to_owned()).collect()
}

/// A build that writes no image.
fn nothing(space: &Space) -> Output {
    space.ok(&["build", "--progress", "plain", "--output", "none"])
}

fn remove(path: &Path) {
    fs::remove_file(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// Writes other bytes of the same size.
fn damage(path: &Path) {
    let mut bytes = fs::read(path).expect("a file");
    bytes.iter_mut().for_each(|byte| *byte ^= 1);
    remove(path);
    fs::write(path, bytes).expect("a file");
}

const TAR: &str = r#"
[tar.three]
src = "a.tar"

[image.j]
base   = "scratch"
layers = ["three"]
"#;

/// A workspace with an archive, built. Returns the blob with its contents.
fn with_tar() -> (Space, PathBuf) {
    let space = Space::new();
    space.write("image.toml", TAR);
    space.write("in/one", "first ".repeat(1000));
    space.write("in/two", "second ".repeat(1000));
    let tar = [
        "--format=ustar",
        "--sort=name",
        "-cf",
        "a.tar",
        "-C",
        "in",
        "one",
        "two",
    ];
    assert_eq!(Output::of(space.program("tar").args(tar)).status, 0);
    space.ok(&["build", "--progress", "none"]);
    let contents = [
        fs::read(space.path().join("in/one")),
        fs::read(space.path().join("in/two")),
    ];
    let contents = contents.map(|it| it.expect("a file")).concat();
    let path = blob(&space, &Digest::of(&contents));
    assert!(path.exists(), "contents lie one after the other");
    (space, path)
}

#[test]
fn a_tree_without_its_bytes_is_a_hit_below_a_layer_that_is_there() {
    let (space, contents) = with_tar();
    remove(&contents);
    assert_eq!(
        plan(&space),
        ["tar three  hit", "layer three  hit", "image j  hit"]
    );
    for output in ["none", "oci:again"] {
        let built = space.ok(&["build", "--progress", "plain", "--output", output]);
        assert!(built.stderr.contains("0 built, 3 hit"), "{}", built.stderr);
        assert!(!built.stderr.contains("made again"), "{}", built.stderr);
    }
    assert!(!contents.exists(), "nobody needs it");
}

#[test]
fn bytes_that_are_gone_are_made_again_for_who_reads_them() {
    let (space, contents) = with_tar();
    let right = layers(&space);
    let layer = blob(&space, &right[0]);
    for harm in [remove, damage] {
        harm(&contents);
        remove(&layer);
        forget_segments(&space);
        let gone = "build: built before, but no longer in the cache";
        assert_eq!(
            plan(&space),
            [
                &format!("tar three  {gone}"),
                &format!("layer three  {gone}"),
                "image j  build: an input is built"
            ]
        );
        let built = space.ok(&["build", "--progress", "plain"]);
        let told = "tar three linux/amd64: bytes of it are gone from the cache, or damaged; they are made again";
        assert_eq!(built.stderr.matches(told).count(), 1, "{}", built.stderr);
        assert!(built.stderr.contains("2 built, 1 hit"), "{}", built.stderr);
        assert_eq!(layers(&space), right);
        assert!(contents.exists());
        assert!(nothing(&space).stderr.contains("0 built, 3 hit"));
    }
}

const WHEEL: &str = r#"
[pip.deps]
packages   = ["hello"]
python     = "3.11"
prefix     = "/usr"
find_links = ["wheels"]

[image.i]
base   = "scratch"
layers = ["deps"]
"#;

#[test]
fn a_wheel_is_fetched_where_its_bytes_are_read() {
    let space = Space::new();
    space.write("image.toml", WHEEL);
    let wheel = Recipe::new("hello", "1.0").requires("helper").make();
    let helper = Recipe::new("helper", "2.0").make();
    for wheel in [&wheel, &helper] {
        space.write(&format!("wheels/{}", wheel.file), &*wheel.bytes);
    }
    space.ok(&["build", "--progress", "none"]);
    let right = layers(&space);
    let kept = blob(&space, &Digest::of(&wheel.bytes));
    remove(&kept);
    assert_eq!(plan(&space), ["layer deps  hit", "image i  hit"]);
    let built = space.ok(&["build", "--progress", "plain", "--output", "none"]);
    assert!(built.stderr.contains("0 built, 2 hit"), "{}", built.stderr);
    assert!(!kept.exists(), "nobody reads it");

    let set = right.iter().map(|layer| blob(&space, layer));
    set.for_each(|layer| remove(&layer));
    forget_segments(&space);
    let built = space.ok(&["build", "--progress", "plain"]);
    assert!(
        built
            .stderr
            .contains("pip deps linux/amd64: bytes of it are gone"),
        "{}",
        built.stderr
    );
    assert!(kept.exists());
    assert_eq!(layers(&space), right);
}

#[test]
fn every_blob_of_the_cache_may_go() {
    let (space, _) = with_tar();
    space.write("base/image.toml", BASE);
    space.ok(&[
        "build",
        "base",
        "--output",
        "oci-archive:base.tar",
        "--progress",
        "none",
    ]);
    space.write("image.toml", format!("{TAR}{ABOVE}"));
    let built = space.ok(&["build", "--progress", "none"]).stdout;
    let right = layers(&space);
    let mut blobs = Vec::new();
    for folder in fs::read_dir(space.cache().join("blobs-v1/sha256")).expect("a bucket") {
        let files = fs::read_dir(folder.expect("a folder").path()).expect("a folder");
        blobs.extend(files.map(|file| file.expect("a file").path()));
    }
    blobs.sort();
    assert!(blobs.len() > 8, "{blobs:?}");
    for (index, path) in blobs.iter().enumerate() {
        // What the first build made is not needed here.
        if !path.exists() {
            continue;
        }
        match index % 2 {
            0 => remove(path),
            _ => damage(path),
        }
        // A layer more, so that facts and trees below are read, and not their records alone.
        let more = format!(
            "{TAR}{ABOVE}[image.more-{index}]\nbase = \"b\"\nlayers = [{{ files = {{ text = {{ \"/srv/data/n{index}\" = \"n\" }} }} }}, \"three\"]\n"
        );
        space.write("image.toml", more);
        let again = space.ok(&["build", "--progress", "none"]).stdout;
        for line in built.lines() {
            assert!(again.contains(line), "{}: {line}\n{again}", path.display());
        }
        space.write("image.toml", format!("{TAR}{ABOVE}"));
        // An output keeps the images that were written before.
        fs::remove_dir_all(space.path().join("imgdecl-out")).expect("an output");
        assert_eq!(space.ok(&["build", "--progress", "none"]).stdout, built);
        assert_eq!(layers(&space), right);
    }
}

const BASE: &str = r#"
[files.root]
dirs     = { "/srv/data" = "0700" }
symlinks = { "/lib" = "usr/lib" }
text     = { "/usr/lib/x" = "x" }

[image.b]
base   = "scratch"
layers = ["root"]
"#;

const ABOVE: &str = r#"
[base.b]
archive = "base.tar"

[image.k]
base   = "b"
layers = [{ files = { text = { "/srv/data/file" = "f", "/lib/y" = "y" } } }, "three"]
"#;

const TWO: &str = r#"
[files.a]
text = { "/a" = "1" }
[files.b]
text = { "/b" = "2" }
[image.i]
base   = "scratch"
layers = LAYERS
"#;

#[test]
fn an_explanation_shows_order_and_doubles_and_is_short_where_nothing_changed() {
    let space = Space::new();
    let explain = |layers: &str| {
        space.write("image.toml", TWO.replace("LAYERS", layers));
        let args = [
            "build",
            "--progress",
            "none",
            "--output",
            "none",
            "--explain",
        ];
        space.ok(&args).stderr
    };
    let first = explain("[\"a\", \"b\"]");
    assert!(
        first.contains("built image image i linux/amd64: first seen here"),
        "{first}"
    );
    assert!(
        first.contains("found out stack for stack files a"),
        "{first}"
    );
    let same = explain("[\"a\", \"b\"]");
    assert_eq!(same, "3 hits with the keys of last time\n");
    let turned = explain("[\"b\", \"a\"]");
    assert!(turned.contains("key changed in 4 lines"), "{turned}");
    assert!(
        turned.contains("\n  - layer: ") && turned.contains("\n  + layer: "),
        "{turned}"
    );
    let twice = explain("[\"b\", \"a\", \"a\"]");
    assert!(twice.contains("\n  + layer: "), "{twice}");
}
