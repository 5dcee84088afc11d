//! Builds with bases and pushes in registries, by the binary: what moves, what does not, and what needs no network. The
//! registry is the tests' own; `registry.rs` holds the client itself to account.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::registry::{Flavour, Image, Rule, Server, Setup};
use crate::support::{BINARY, Output, Random, Space, absent, peer, validate};

/// The tar of a layer: a file of a size, and a folder that is notable.
fn layer(name: &str, size: usize, seed: u64) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut folder = tar::Header::new_ustar();
    folder.set_entry_type(tar::EntryType::Directory);
    folder.set_mode(0o1777);
    folder.set_size(0);
    folder.set_uid(0);
    folder.set_gid(0);
    folder.set_mtime(0);
    tar.append_data(&mut folder, "tmp", &[][..])
        .expect("memory");
    let bytes = Random(seed).bytes(size);
    let mut file = tar::Header::new_ustar();
    file.set_mode(0o644);
    file.set_size(size as u64);
    file.set_uid(0);
    file.set_gid(0);
    file.set_mtime(0);
    tar.append_data(&mut file, format!("usr/share/{name}"), &bytes[..])
        .expect("memory");
    tar.into_inner().expect("memory")
}

const BIG: usize = 300_000;

/// A base for two platforms, of two layers each; the first is common.
fn base() -> Image {
    let single = |platform: &str, seed: u64| {
        let layers = [layer("common", BIG, 7), layer(platform, BIG, seed)];
        let layers: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
        let config = serde_json::json!({"config": {"Env": ["PATH=/usr/bin"]}});
        Image::single(platform, &layers, config, Flavour::Oci)
    };
    let images = [
        ("linux/amd64", single("linux/amd64", 1)),
        ("linux/arm64", single("linux/arm64", 2)),
    ];
    Image::index(&images, true, Flavour::Oci)
}

/// The digests of the base's layers.
fn base_layers() -> BTreeSet<String> {
    let layers = base().parts.into_iter().flat_map(|part| part.layers);
    layers.map(|layer| layer.digest.to_string()).collect()
}

/// A registry that holds the base.
fn registry() -> Server {
    let server = Server::start(Setup::default());
    server.load("team/base", "1", &base());
    server
}

/// Writes a manifest: three services on the base, and what they share.
fn write_services(space: &Space, registry: &str) {
    let mut text = format!(
        "[defaults]\nplatforms = [\"linux/amd64\", \"linux/arm64\"]\nrepository = \"{registry}/services\"\n\n\
         [base.base]\nimage = \"{registry}/team/base:1\"\n\n\
         [files.shared]\nsrc = \"shared\"\ndest = \"/opt/shared\"\n"
    );
    for name in ["frontend", "qa-api", "ingestor"] {
        text.push_str(&format!(
            "\n[files.{name}-src]\nsrc = \"{name}\"\ndest = \"/app\"\n\n\
             [image.{name}]\nbase = \"base\"\nlayers = [\"shared\", \"{name}-src\"]\n"
        ));
        space.write(&format!("{name}/main.py"), format!("print('{name}')\n"));
    }
    space.write("shared/data", Random(5).bytes(BIG));
    space.write("image.toml", text);
}

fn json(space: &Space, name: &str) -> Value {
    let bytes = fs::read(space.path().join(name)).expect(name);
    serde_json::from_slice(&bytes).expect("JSON")
}

/// How many uploads of blobs were begun and not mounted, and manifests written.
fn writes(server: &Server) -> (usize, usize) {
    (
        server.count("PUT /v2/*/blobs/uploads/*"),
        server.count("PUT /v2/*/manifests/*"),
    )
}

#[test]
fn a_locked_build_moves_no_base_layer() {
    let server = registry();
    let space = Space::new();
    write_services(&space, server.host());
    let output = space.ok(&["lock"]);
    assert!(output.stdout.contains("base: new"), "{}", output.stdout);
    let lock = fs::read_to_string(space.path().join("image.lock")).expect("image.lock");
    assert!(lock.contains("\"/tmp\" = \"1777 0:0\""), "{lock}");
    assert!(space.ok(&["lock"]).stdout.contains("up to date"));

    // Another machine: the lock is there, the cache is not.
    fs::remove_dir_all(space.cache()).expect("a cache");
    server.rewind();
    let pushed = space.ok(&["build", "--locked", "--push", "--metadata-file", "m.json"]);
    assert_eq!(pushed.stdout.lines().count(), 3, "{}", pushed.stdout);
    server.check_tags();
    let metadata = json(&space, "m.json");
    for image in metadata.as_array().expect("a list") {
        let push = &image["push"];
        assert!(push["mounted"].as_u64() > Some(0), "{push}");
    }
    let base_layers = base_layers();
    for request in server.log() {
        let line = request.line();
        let is_layer = base_layers.iter().any(|digest| line.contains(digest));
        assert!(
            !(is_layer && line.starts_with("GET")),
            "a base layer was fetched: {line}"
        );
    }
    assert!(
        server.blob_bytes() < BIG as u64 * 3,
        "{} bytes of blobs were moved:\n{}",
        server.blob_bytes(),
        server.story()
    );

    // The same digests as with all bytes at hand.
    let whole = space.ok(&["build", "--locked"]);
    assert_eq!(pushed.stdout, whole.stdout);
    validate(&space.path().join("imgdecl-out"));

    // Nothing changed: questions only.
    server.rewind();
    let again = space.ok(&["build", "--locked", "--push", "--metadata-file", "m.json"]);
    assert_eq!(again.stdout, pushed.stdout);
    assert_eq!(writes(&server), (0, 0), "{}", server.story());
    assert_eq!(server.blob_bytes(), 0, "{}", server.story());
    for image in json(&space, "m.json").as_array().expect("a list") {
        assert_eq!(image["push"]["sent"], 0);
        assert_eq!(image["push"]["mounted"], 0);
    }

    // One service changed: a layer, and for each platform a config and a manifest; and the index.
    space.write("qa-api/main.py", "print('changed')\n");
    server.rewind();
    space.ok(&["build", "--locked", "--push"]);
    assert_eq!(writes(&server), (3, 3), "{}", server.story());
    server.check_tags();

    // What was built into a layout goes the same way.
    space.write("qa-api/main.py", "print('changed again')\n");
    let built = space.ok(&["build"]);
    server.rewind();
    let pushed = space.ok(&["push"]);
    assert_eq!(pushed.stdout, built.stdout);
    assert_eq!(writes(&server), (3, 3), "{}", server.story());
    server.check_tags();
}

#[test]
fn three_services_send_what_they_share_once() {
    let server = registry();
    let space = Space::new();
    write_services(&space, server.host());
    space.ok(&["lock"]);
    server.rewind();
    space.ok(&["build", "--push"]);
    // The shared layer, and for each service a layer, and a config for each platform.
    let (uploads, manifests) = writes(&server);
    assert_eq!(
        (uploads, manifests),
        (1 + 3 * 3, 3 * 3),
        "{}",
        server.story()
    );
    // The three layers of the base in each repository, and the shared one in two.
    let mounts = server.count("POST /v2/*/blobs/uploads/*mount=*");
    assert_eq!(mounts, 3 * 3 + 2, "{}", server.story());
}

#[test]
fn a_tag_that_moved_changes_nothing_until_the_lock_is_updated() {
    let server = registry();
    let space = Space::new();
    write_services(&space, server.host());
    let first = space.ok(&["build", "--output", "none"]);
    assert!(first.stderr.contains("image.lock was brought up to date"));
    let lock = fs::read_to_string(space.path().join("image.lock")).expect("image.lock");

    let single = |platform, seed| {
        let layers = layer("new", BIG, seed);
        Image::single(platform, &[&layers], serde_json::json!({}), Flavour::Oci)
    };
    let moved = Image::index(
        &[
            ("linux/amd64", single("linux/amd64", 11)),
            ("linux/arm64", single("linux/arm64", 12)),
        ],
        false,
        Flavour::Oci,
    );
    server.load("team/base", "1", &moved);
    let second = space.ok(&["build", "--output", "none"]);
    assert_eq!(first.stdout, second.stdout);
    space.ok(&["lock"]);
    let same = fs::read_to_string(space.path().join("image.lock")).expect("image.lock");
    assert_eq!(lock, same);

    let output = space.ok(&["lock", "--update", "base"]);
    assert!(output.stdout.contains("linux/arm64"), "{}", output.stdout);
    assert_eq!(output.stdout.matches(" → ").count(), 3, "{}", output.stdout);
    let third = space.ok(&["build", "--locked", "--output", "none"]);
    assert_ne!(first.stdout, third.stdout);
}

#[test]
fn updates_at_once_lose_nothing() {
    let server = registry();
    server.load("team/other", "1", &base());
    let space = Space::new();
    write_services(&space, server.host());
    let mut text = fs::read_to_string(space.path().join("image.toml")).expect("image.toml");
    text.push_str(&format!(
        "\n[base.other]\nimage = \"{}/team/other:1\"\n\n[image.more]\nbase = \"other\"\nlayers = [\"shared\"]\n",
        server.host()
    ));
    space.write("image.toml", text);
    space.ok(&["lock"]);
    for (name, seed) in [("team/base", 31), ("team/other", 41)] {
        let single = |platform, seed| {
            let layers = layer("new", 1000, seed);
            Image::single(platform, &[&layers], serde_json::json!({}), Flavour::Oci)
        };
        let moved = [
            ("linux/amd64", single("linux/amd64", seed)),
            ("linux/arm64", single("linux/arm64", seed + 1)),
        ];
        server.load(name, "1", &Image::index(&moved, false, Flavour::Oci));
    }
    server.rule(Rule {
        delay_ms: 300,
        ..Rule::on("* /v2/*/manifests/1")
    });
    std::thread::scope(|scope| {
        let update = |name: &'static str| {
            let space = &space;
            scope.spawn(move || space.ok(&["lock", "--update", name]))
        };
        for run in [update("base"), update("other")] {
            run.join().expect("an update");
        }
    });
    // Both are as they would be if nothing had been locked before.
    let both = fs::read_to_string(space.path().join("image.lock")).expect("image.lock");
    fs::remove_file(space.path().join("image.lock")).expect("image.lock");
    space.ok(&["lock"]);
    let fresh = fs::read_to_string(space.path().join("image.lock")).expect("image.lock");
    assert_eq!(both, fresh);
}

#[test]
fn inspect_shows_nothing_that_a_terminal_obeys() {
    let server = Server::start(Setup::default());
    let space = Space::new();
    let single = |platform: &str| {
        let sizes = [layer("x", 10, 1)];
        let layers: Vec<&[u8]> = sizes.iter().map(Vec::as_slice).collect();
        Image::single(platform, &layers, serde_json::json!({}), Flavour::Oci)
    };
    let odd = "linux/amd64/\u{1b}]0;title\u{7}";
    let image = Image::index(&[(odd, single("linux/amd64"))], false, Flavour::Oci);
    server.load("team/odd", "1", &image);
    let name = format!("{}/team/odd:1", server.host());
    let text = space.ok(&["inspect", &name]).stdout;
    assert!(text.contains("linux/amd64/ ]0;title"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text}");
}

#[test]
fn inspect_ends_at_documents_that_would_fill_the_memory() {
    let server = Server::start(Setup::default());
    let space = Space::new();
    let long = "x".repeat(15_000_000);
    let single = |platform: &str| {
        let config = serde_json::json!({"config": {"Labels": {"x": long}}});
        Image::single(platform, &[&layer("x", 10, 1)], config, Flavour::Oci)
    };
    let platforms = ["linux/amd64", "linux/arm64", "linux/s390x"];
    let images = platforms.map(|platform| (platform, single(platform)));
    server.load(
        "team/long",
        "1",
        &Image::index(&images, false, Flavour::Oci),
    );
    let name = format!("{}/team/long:1", server.host());
    let output = space.run(&["inspect", &name]);
    assert_eq!(output.status, 3, "{}", output.stderr);
    assert!(
        output.stderr.contains("documents of more than"),
        "{}",
        output.stderr
    );
    space.ok(&["inspect", &name, "--platform", "linux/arm64"]);
}

#[test]
fn a_platform_that_is_added_comes_from_the_pinned_index() {
    let server = registry();
    let space = Space::new();
    write_services(&space, server.host());
    let text = fs::read_to_string(space.path().join("image.toml")).expect("image.toml");
    space.write("image.toml", text.replace(", \"linux/arm64\"", ""));
    space.ok(&["lock"]);
    let before = fs::read_to_string(space.path().join("image.lock")).expect("image.lock");
    assert!(!before.contains("arm64"));

    server.load("team/base", "1", &Image::of(&[&layer("new", 9, 3)]));
    space.write("image.toml", &text);
    let output = space.run(&["build", "--locked"]);
    assert_eq!(output.status, 2, "{}", output.stderr);
    assert!(output.stderr.contains("not locked for linux/arm64"));
    space.ok(&["lock"]);
    let after = fs::read_to_string(space.path().join("image.lock")).expect("image.lock");
    let digest = |lock: &str| {
        lock.lines()
            .find(|it| it.starts_with("digest"))
            .map(str::to_owned)
    };
    assert_eq!(digest(&before), digest(&after));
    assert!(after.contains("arm64"), "{after}");
}

/// Runs the binary where there is no network interface that is up.
fn without_network(space: &Space, unshare: &Path, args: &[&str]) -> Output {
    let mut command = space.program(unshare);
    command.args(["--net", BINARY]).args(args);
    Output::of(&mut command)
}

#[test]
fn a_locked_build_needs_no_network_and_no_base_layer() {
    let Some(unshare) = peer("unshare") else {
        return;
    };
    let server = registry();
    let space = Space::new();
    write_services(&space, server.host());
    if without_network(&space, &unshare, &["--version"]).status != 0 {
        return absent("a network namespace of one's own");
    }
    let expected = space.ok(&["build", "--output", "none"]);
    let planned = space.ok(&["plan"]);
    // Nothing is left of the base's layers.
    for digest in base_layers() {
        let hex = &digest["sha256:".len()..];
        let blob = space
            .cache()
            .join("blobs-v1/sha256")
            .join(&hex[..2])
            .join(hex);
        fs::remove_file(blob).expect("a base layer in the cache");
    }
    let server_address = server.host().to_owned();
    drop(server);
    let offline = &["build", "--locked", "--offline", "--output", "none"];
    let output = without_network(&space, &unshare, offline);
    assert_eq!(output.status, 0, "{}", output.stderr);
    assert_eq!(output.stdout, expected.stdout);
    let again = without_network(&space, &unshare, &["plan"]);
    let to_fetch = "; 604.2 kB to fetch for outputs with its bytes";
    assert!(again.stdout.contains(to_fetch), "{}", again.stdout);
    assert_eq!(again.stdout.replace(to_fetch, ""), planned.stdout);

    let output = without_network(&space, &unshare, &["build", "--locked", "--offline"]);
    assert_eq!(output.status, 3, "{}", output.stderr);
    assert!(
        output.stderr.contains("not in the cache"),
        "{}",
        output.stderr
    );
    assert!(output.stderr.contains(&server_address), "{}", output.stderr);
    let output = space.run(&["build", "--offline", "--push"]);
    assert_eq!(output.status, 2, "{}", output.stderr);
    assert!(
        output.stderr.contains("cannot be used with"),
        "{}",
        output.stderr
    );
}

#[test]
fn a_damaged_base_layer_is_streamed_from_its_registry() {
    let server = registry();
    let target = Server::start(Setup::default());
    let space = Space::new();
    write_services(&space, server.host());
    let text = fs::read_to_string(space.path().join("image.toml")).expect("image.toml");
    let repository = |server: &Server| format!("repository = \"{}/", server.host());
    let text = text.replace(&repository(&server), &repository(&target));
    space.write("image.toml", text);
    space.ok(&["lock"]);
    for digest in base_layers() {
        let hex = &digest["sha256:".len()..];
        let folder = space.cache().join("blobs-v1/sha256").join(&hex[..2]);
        fs::remove_file(folder.join(hex)).expect("a base layer in the cache");
        fs::write(folder.join(hex), "damaged").expect("another one");
    }
    space.ok(&["build", "--locked", "--push"]);
    target.check_tags();
}

#[test]
fn ci_builds_what_is_locked() {
    let server = registry();
    let space = Space::new();
    write_services(&space, server.host());
    let run = |args: &[&str]| Output::of(space.command(args).env("CI", "true"));
    let output = run(&["build", "--output", "none"]);
    assert_eq!(output.status, 2, "{}", output.stderr);
    assert!(
        output.stderr.contains("run `imgdecl lock`"),
        "{}",
        output.stderr
    );
    assert!(!space.path().join("image.lock").exists());
    assert!(server.log().is_empty(), "{}", server.story());
    let output = run(&["build", "--output", "none", "--locked=false"]);
    assert_eq!(output.status, 0, "{}", output.stderr);
    assert_eq!(run(&["build", "--output", "none"]).status, 0);
}

#[test]
fn a_failed_pull_leaves_no_lock_and_no_image() {
    let server = registry();
    let space = Space::new();
    write_services(&space, server.host());
    server.rule(Rule::always("GET /v2/*/blobs/*", 404));
    let output = space.run(&["build"]);
    assert_eq!(output.status, 3, "{}", output.stderr);
    assert!(!space.path().join("image.lock").exists());
    assert!(!space.path().join("imgdecl-out").exists());
    server.heal();
    space.ok(&["build"]);
    validate(&space.path().join("imgdecl-out"));
}

#[test]
fn inspect_fetches_no_layer() {
    let server = registry();
    let space = Space::new();
    let name = format!("{}/team/base:1", server.host());
    let text = space.ok(&["inspect", &name]).stdout;
    for part in [
        "linux/amd64",
        "linux/arm64",
        "unknown/unknown",
        "diff_id",
        "image tags",
    ] {
        assert!(text.contains(part), "{part} is missing:\n{text}");
    }
    let json = space.ok(&[
        "inspect",
        &name,
        "--format",
        "json",
        "--platform",
        "linux/arm64",
    ]);
    let value: Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!(value["platforms"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        value["platforms"][0]["layers"].as_array().map(Vec::len),
        Some(2)
    );
    assert_eq!(value["tags"], serde_json::json!(["1"]));
    for digest in base_layers() {
        assert_eq!(
            server.count(&format!("* *{digest}*")),
            0,
            "{}",
            server.story()
        );
    }
}

#[test]
fn a_push_says_what_it_did() {
    let server = registry();
    let space = Space::new();
    write_services(&space, server.host());
    space.ok(&["build"]);
    let first = space.ok(&["push"]).stderr;
    assert!(first.contains(" pushed, "), "{first}");
    let again = space.ok(&["push"]).stderr;
    let lines: Vec<&str> = again.lines().collect();
    assert!(
        matches!(lines[..], [one] if one.contains(" there already, in ")),
        "{again}"
    );
    let tagged = space.ok(&["push", "qa-api", "--tag", "v2"]).stderr;
    let index = tagged
        .lines()
        .find(|line| line.starts_with("pushed  index "));
    assert!(
        index.is_some_and(|line| line.contains(" as v2 of ")),
        "{tagged}"
    );
    // A push takes an image as it was built, with all its platforms.
    let output = space.run(&["push", "--platform", "linux/amd64"]);
    assert_eq!(output.status, 2, "{}", output.stderr);
}

#[test]
fn a_plan_says_what_a_base_lacks() {
    let server = registry();
    let space = Space::new();
    write_services(&space, server.host());
    let plan = space.ok(&["plan", "qa-api"]).stdout;
    let lacking = "resolve base  build: image.lock lacks it";
    assert!(plan.contains(lacking), "{plan}");
    space.ok(&["lock"]);
    fs::remove_dir_all(space.cache()).expect("a cache");
    space.ok(&["build", "--output", "none"]);
    let plan = space.ok(&["plan", "qa-api"]).stdout;
    let to_fetch = "base base  hit; 604.2 kB to fetch for outputs with its bytes\n";
    assert!(plan.contains(to_fetch), "{plan}");
    space.ok(&["build"]);
    let plan = space.ok(&["plan", "qa-api"]).stdout;
    assert!(plan.contains("base base  hit\n"), "{plan}");
}

#[test]
fn platforms_that_fail_alike_are_told_of_once_and_share_layers() {
    let server = registry();
    let space = Space::new();
    write_services(&space, server.host());
    space.ok(&["lock"]);
    fs::remove_dir_all(space.cache()).expect("a cache");
    space.ok(&["build", "--output", "none"]);
    let output = space.run(&["build", "--offline"]);
    assert_eq!(output.status, 3, "{}", output.stderr);
    let message = "2 of the layers of";
    assert_eq!(
        output.stderr.matches(message).count(),
        1,
        "{}",
        output.stderr
    );
    server.rewind();
    space.ok(&["build"]);
    let layers = base_layers();
    let pulled = layers.iter().map(|it| server.count(&format!("GET *{it}*")));
    assert_eq!(pulled.collect::<Vec<_>>(), [1, 1, 1], "{}", server.story());
}

#[test]
fn a_lock_is_told_what_to_lock_in_its_own_words() {
    let server = registry();
    let space = Space::new();
    write_services(&space, server.host());
    let output = space.run(&["lock", "base"]);
    assert_eq!(output.status, 2, "{}", output.stderr);
    let help = "`imgdecl lock --update NAME`";
    assert!(output.stderr.contains(help), "{}", output.stderr);
    assert!(server.log().is_empty(), "{}", server.story());

    let text = fs::read_to_string(space.path().join("image.toml")).expect("image.toml");
    let text = text.replace("team/base:1", "team/base:${v}");
    space.write("image.toml", format!("[vars]\nv = \"1\"\n\n{text}"));
    space.ok(&["lock"]);
    let output = space.run(&["build", "--locked", "--set", "v=2"]);
    assert_eq!(output.status, 2, "{}", output.stderr);
    let help = "run `imgdecl lock` with the same `--set`";
    assert!(output.stderr.contains(help), "{}", output.stderr);
}

#[test]
fn a_file_about_registries_that_the_user_names_must_be_there() {
    let space = Space::new();
    space.write("image.toml", "[image.a]\nbase = \"scratch\"\n");
    let path = space.path().join("nowhere.toml");
    let mut command = space.command(&["inspect", "localhost:1/a"]);
    let output = Output::of(command.env("IMGDECL_CONFIG", &path));
    assert_eq!(output.status, 2, "{}", output.stderr);
    assert!(output.stderr.contains("nowhere.toml"), "{}", output.stderr);
}
