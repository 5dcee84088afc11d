//! Files out of other images, by the binary: what is fetched for them, and that they are those of `COPY --from`.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use imgdecl::parts::layer::{decoder, detect};
use serde_json::{Value, json};

use crate::peers::{is_root, run};
use crate::support::registry::{Flavour, Image, Server, Setup};
use crate::support::{Entry, Space, absent, peer, validate};

/// An entry of a layer: path, type, mode, and content or target of a link.
type Item<'a> = (&'a str, tar::EntryType, u32, &'a str);

const FILE: tar::EntryType = tar::EntryType::Regular;
const FOLDER: tar::EntryType = tar::EntryType::Directory;
const SYMLINK: tar::EntryType = tar::EntryType::Symlink;
const LINK: tar::EntryType = tar::EntryType::Link;

/// The tar of a layer, whose entries belong to 12:34.
fn layer(items: &[Item<'_>]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, kind, mode, text) in items {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(*kind);
        header.set_mode(*mode);
        header.set_uid(12);
        header.set_gid(34);
        header.set_mtime(5);
        header.set_size(0);
        if matches!(*kind, SYMLINK | LINK) {
            tar.append_link(&mut header, path, text).expect("memory");
            continue;
        }
        header.set_size(text.len() as u64);
        tar.append_data(&mut header, path, text.as_bytes())
            .expect("memory");
    }
    tar.into_inner().expect("memory")
}

/// An image of layers, for one platform.
fn image(layers: &[Vec<u8>]) -> Image {
    let layers: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
    Image::single("linux/amd64", &layers, json!({}), Flavour::Oci)
}

/// Three layers, the program in the second.
fn tools() -> Image {
    image(&[
        layer(&[
            ("usr/", FOLDER, 0o755, ""),
            ("usr/bin/", FOLDER, 0o755, ""),
            ("usr/bin/uv", FILE, 0o644, "old\n"),
            ("bin", SYMLINK, 0o777, "usr/bin"),
            ("etc/", FOLDER, 0o755, ""),
            ("etc/gone", FILE, 0o644, "gone\n"),
            ("etc/kept", FILE, 0o600, "kept\n"),
        ]),
        layer(&[
            ("usr/", FOLDER, 0o755, ""),
            ("usr/bin/", FOLDER, 0o755, ""),
            ("usr/bin/uv", FILE, 0o755, "uv\n"),
        ]),
        layer(&[
            ("etc/", FOLDER, 0o755, ""),
            ("etc/.wh.gone", FILE, 0o644, ""),
            ("etc/new", FILE, 0o4755, "new\n"),
        ]),
    ])
}

/// Writes a manifest that takes `src`.
fn write(space: &Space, registry: &str, src: &str) {
    let text = format!(
        "[base.tools]\nimage = \"{registry}/team/tools:1\"\n\n[files.taken]\nfrom = \"tools\"\nsrc = \"{src}\"\n\
         dest = \"/taken/\"\n\n[image.app]\nbase = \"scratch\"\nlayers = [\"taken\"]\n"
    );
    space.write("image.toml", text);
}

/// Which layers were fetched since the last look, by their numbers.
fn fetched(server: &Server, image: &Image) -> Vec<usize> {
    let layers = &image.parts[0].layers;
    let has = |number: &usize| {
        let digest = layers[*number].digest.to_string();
        server.count(&format!("GET /v2/*/blobs/{digest}")) > 0
    };
    (0..layers.len()).filter(has).collect()
}

/// The entries of the only layer of the image `app`, by path.
fn entries(space: &Space) -> BTreeMap<String, Entry> {
    let layout = validate(&space.path().join("imgdecl-out"));
    let layers = &layout.images["app"].platforms[0].layers;
    assert_eq!(layers.len(), 1);
    let entries = layers[0].entries.iter();
    entries.map(|it| (it.path.clone(), it.clone())).collect()
}

#[test]
fn no_layer_is_fetched_that_is_not_needed() {
    let server = Server::start(Setup::default());
    let tools = tools();
    server.load("team/tools", "1", &tools);
    let space = Space::new();
    write(&space, server.host(), "/bin/uv");
    space.ok(&["lock"]);
    assert_eq!(fetched(&server, &tools), [0, 1, 2], "once, for the lock");

    // Another machine: the lock is there, the cache is not.
    let forget = |server: &Server| {
        fs::remove_dir_all(space.cache()).expect("a cache");
        server.rewind();
    };
    forget(&server);
    space.ok(&["build", "--locked"]);
    assert_eq!(fetched(&server, &tools), [1, 2], "{}", server.story());
    let taken = &entries(&space)["taken/uv"];
    assert_eq!((taken.mode, taken.uid, taken.gid), (0o755, 12, 34));
    assert_eq!((taken.size, taken.mtime), (3, 0));

    // A build in which nothing changed, and one that only the cache is needed for.
    server.rewind();
    space.ok(&["build", "--locked"]);
    assert_eq!(server.log().len(), 0, "{}", server.story());
    space.ok(&["build", "--locked", "--offline"]);

    // A folder may have something of each layer.
    write(&space, server.host(), "/etc");
    forget(&server);
    space.ok(&["build", "--locked"]);
    assert_eq!(fetched(&server, &tools), [0, 1, 2]);
    let entries = entries(&space);
    assert_eq!(entries["taken/new"].mode, 0o4755);
    assert_eq!(entries["taken/kept"].mode, 0o600);
    assert!(!entries.contains_key("taken/gone"));
}

/// The blobs of a cache.
fn blobs(cache: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![cache.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder").flatten() {
            let path = entry.path();
            let name = entry.file_name();
            let is_digest =
                name.len() == 64 && path.components().any(|it| it.as_os_str() == "sha256");
            match path.is_dir() {
                true => folders.push(path),
                false if is_digest => found.push(path),
                false => {}
            }
        }
    }
    assert!(!found.is_empty(), "no blob below {}", cache.display());
    found
}

#[test]
fn what_the_cache_lost_is_made_or_fetched_again() {
    let server = Server::start(Setup::default());
    server.load("team/tools", "1", &tools());
    let space = Space::new();
    let text = format!(
        "[base.tools]\nimage = \"{}/team/tools:1\"\n\n[files.x]\ntext = {{ \"/own/x\" = \"x\\n\" }}\n\n\
         [image.own]\nbase = \"tools\"\nlayers = [\"x\"]\n\n[files.taken]\nentries = [{{ from = \"own\", src = \"/own\", \
         dest = \"/one\" }}, {{ from = \"own\", src = \"/etc\", dest = \"/two\" }}]\n\n[image.app]\nbase = \
         \"scratch\"\nlayers = [\"taken\"]\n",
        server.host()
    );
    space.write("image.toml", text);
    let first = space.ok(&["build", "app"]);
    assert!(entries(&space).contains_key("two/new"));
    for damage in [false, true] {
        // All blobs are gone or damaged; what is known of them is not.
        for blob in blobs(space.cache()) {
            let size = fs::metadata(&blob).expect("a blob").len();
            fs::remove_file(&blob).expect("a blob");
            if damage {
                fs::write(&blob, vec![b'x'; size as usize]).expect("a blob");
            }
        }
        fs::remove_dir_all(space.path().join("imgdecl-out")).expect("an output");
        let again = space.ok(&["build", "app", "--locked"]);
        assert_eq!(first.stdout, again.stdout);
        assert!(entries(&space).contains_key("two/new"));
    }
}

#[test]
fn what_is_not_there_is_told_with_what_is() {
    let server = Server::start(Setup::default());
    let one = image(&[layer(&[("uv", FILE, 0o755, "uv\n")])]);
    server.load("team/tools", "1", &one);
    let space = Space::new();
    write(&space, server.host(), "/nothing");
    space.ok(&["lock"]);
    let output = space.run(&["build", "--locked"]);
    assert_eq!(output.status, 1, "{}", output.stderr);
    assert!(
        output.stderr.contains("imgdecl::files::from_missing"),
        "{}",
        output.stderr
    );
    assert!(output.stderr.contains("/uv"), "{}", output.stderr);
}

#[test]
fn what_no_layer_holds_is_left_out_or_refused() {
    let server = Server::start(Setup::default());
    let odd = image(&[layer(&[
        ("dev/", FOLDER, 0o755, ""),
        ("dev/pipe", tar::EntryType::Fifo, 0o600, ""),
        ("dev/file", FILE, 0o600, "x\n"),
    ])]);
    server.load("team/tools", "1", &odd);
    let space = Space::new();
    for src in ["/dev", "/dev/pipe"] {
        write(&space, server.host(), src);
        let output = space.run(&["build"]);
        assert_eq!(output.status, 1, "{}", output.stderr);
        let code = "imgdecl::files::from_entry";
        assert!(output.stderr.contains(code), "{}", output.stderr);
        assert!(output.stderr.contains("fifo"), "{}", output.stderr);
    }
    write(&space, server.host(), "/dev");
    let manifest = fs::read_to_string(space.path().join("image.toml")).expect("a manifest");
    let without = manifest.replace("from =", "exclude = [\"pipe\"]\nfrom =");
    space.write("image.toml", without);
    space.ok(&["build"]);
    assert!(entries(&space).contains_key("taken/file"));
}

/// What a runtime sees of an entry: type, mode, owner, link and content.
type Seen = (u8, u32, u64, u64, String, Vec<u8>);

/// All entries of the layers of the only image of a layout, whoever wrote it.
fn seen(layout: &Path) -> BTreeMap<String, Seen> {
    let read = |name: &str| fs::read(layout.join(name)).expect("a file of the layout");
    let json = |bytes: Vec<u8>| -> Value { serde_json::from_slice(&bytes).expect("JSON") };
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().expect("a digest");
        read(&format!("blobs/{}", digest.replace(':', "/")))
    };
    let manifest = json(blob(&json(read("index.json"))["manifests"][0]));
    let mut all = BTreeMap::new();
    for descriptor in manifest["layers"].as_array().expect("layers") {
        let bytes = blob(descriptor);
        let (packing, peeked) = detect(&bytes[..]).expect("a layer");
        let mut tar = tar::Archive::new(decoder(packing, peeked).expect("a layer"));
        for entry in tar.entries().expect("a tar") {
            let mut entry = entry.expect("an entry");
            let path = entry.path().expect("a path").display().to_string();
            let path = path.trim_end_matches('/').to_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("a content");
            let header = entry.header();
            let kind = header.entry_type();
            let mode = match kind {
                SYMLINK => 0,
                _ => header.mode().expect("a mode") & 0o7777,
            };
            let link = entry.link_name().expect("a link");
            let link = link.map(|it| it.display().to_string()).unwrap_or_default();
            let (uid, gid) = (header.uid().expect("an id"), header.gid().expect("an id"));
            all.insert(path, (kind.as_byte(), mode, uid, gid, link, content));
        }
    }
    all
}

#[test]
fn buildah_copies_the_same() {
    let Some(buildah) = peer("buildah") else {
        return;
    };
    if !is_root() {
        return absent("root");
    }
    let space = Space::new();
    let upper = layer(&[
        ("opt/tool/bin/", FOLDER, 0o711, ""),
        ("opt/tool/bin/run", FILE, 0o755, "upper\n"),
        ("opt/tool/.wh.old", FILE, 0o644, ""),
        ("opt/tool/secret", FILE, 0o400, "secret\n"),
    ]);
    let lower = layer(&[
        ("opt/", FOLDER, 0o755, ""),
        ("opt/tool/", FOLDER, 0o750, ""),
        ("opt/tool/bin/", FOLDER, 0o755, ""),
        ("opt/tool/bin/run", FILE, 0o644, "lower\n"),
        ("opt/tool/old", FILE, 0o644, "old\n"),
        ("opt/tool/latest", SYMLINK, 0o777, "bin/run"),
        ("opt/tool/empty/", FOLDER, 0o1777, ""),
        ("latest", SYMLINK, 0o777, "/opt/tool"),
    ]);
    let server = Server::start(Setup::default());
    server.load("team/tools", "1", &image(&[lower, upper]));
    let mut manifest = format!("[base.tools]\nimage = \"{}/team/tools:1\"\n", server.host());
    manifest.push_str(
        "\n[files.one]\nentries = [{ from = \"tools\", src = \"/latest\", dest = \"/copied\" }, { from = \"tools\", src = \
         \"/latest/latest\", dest = \"/one/\" }, { from = \"tools\", src = \"/opt/tool/secret\", dest = \"/owned\", owner = \
         \"7:8\" }]\n\n[image.app]\nbase = \"scratch\"\nlayers = [\"one\"]\n\n[image.theirs]\nbase = \
         \"tools\"\n",
    );
    space.write("image.toml", manifest);
    space.ok(&["build", "app"]);
    space.ok(&["build", "theirs", "-o", "oci:base"]);
    space.write(
        "Dockerfile",
        "FROM oci:base:theirs AS tools\nFROM scratch\nCOPY --from=tools /latest /copied\nCOPY --from=tools \
         /latest/latest /one/\nCOPY --from=tools --chown=7:8 /opt/tool/secret /owned\n",
    );
    let storage = [
        "--root",
        "storage",
        "--runroot",
        "storage-run",
        "--storage-driver",
        "vfs",
    ];
    let build = [
        "bud",
        "--isolation",
        "chroot",
        "--quiet",
        "-t",
        "theirs",
        ".",
    ];
    run(&space, &buildah, &[&storage[..], &build].concat());
    let push = ["push", "--quiet", "theirs", "oci:theirs:app"];
    run(&space, &buildah, &[&storage[..], &push].concat());
    let [theirs, ours] = ["theirs", "imgdecl-out"].map(|it| seen(&space.path().join(it)));
    assert!(ours.len() > 8, "{ours:?}");
    assert_eq!(theirs, ours);
}
