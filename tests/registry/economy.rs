//! What pushes cost: requests and bytes, counted in the registry's log.

use imgdecl::parts::oci::{Digest, Reference};
use imgdecl::parts::registry::Ended;
use serde_json::json;

use super::kit::{Bytes, Rig, assert_holds, code, image};
use crate::support::Random;
use crate::support::registry::{
    Auth, Flavour, Image, Location, PASSWORD, Quirks, Server, Setup, USER,
};

/// How often each method was used.
fn methods(server: &Server) -> [usize; 4] {
    ["HEAD", "GET", "POST", "PUT"].map(|method| server.count(&format!("{method} *")))
}

#[test]
fn the_first_push_sends_everything_once() {
    let server = Server::plain();
    let image = image(80, &[100_000, 50_000, 20]);
    let pushed = Rig::new().push(&server, "a:1", &image).expect("a push");
    assert_holds(&server, "a:1", &image);
    let blobs: u64 = image.blobs.iter().map(|it| it.len() as u64).sum();
    assert_eq!(server.blob_bytes(), blobs, "{}", server.story());
    let [heads, gets, posts, puts] = methods(&server);
    // Four blobs, one manifest, which is put by its image tag or by digest too.
    assert_eq!(posts, 4, "{}", server.story());
    assert!(puts == 5 || puts == 6, "{}", server.story());
    assert_eq!(gets, 0, "{}", server.story());
    assert!(heads <= 6, "{}", server.story());
    assert_eq!(pushed.skipped + pushed.mounted, 0, "{pushed:?}");
    assert_eq!(pushed.sent, blobs + image.root().size, "{pushed:?}");
    assert!(
        pushed.blobs.iter().all(|it| it.outcome == Ended::Done),
        "{pushed:?}"
    );
    // The manifest comes when all blobs are there, and the image tag last.
    let log = server.log();
    let last = log.last().expect("requests");
    assert_eq!(last.line(), "PUT /v2/a/manifests/1", "{}", server.story());
}

#[test]
fn the_second_push_costs_heads_alone() {
    let server = Server::plain();
    let images = [image(81, &[100_000, 50_000]), index(82)];
    for (image, name) in images.iter().zip(["a:1", "b:1"]) {
        Rig::new().push(&server, name, image).expect("a push");
        server.rewind();
        let pushed = Rig::new().push(&server, name, image).expect("a push");
        let [heads, gets, posts, puts] = methods(&server);
        assert_eq!([gets, posts, puts], [0; 3], "{}", server.story());
        assert!((1..=2).contains(&heads), "{}", server.story());
        assert_eq!(server.blob_bytes(), 0);
        assert_eq!(pushed.sent + pushed.mounted, 0, "{pushed:?}");
        assert!(pushed.skipped > 0, "{pushed:?}");
    }
}

/// An image of two platforms, with a layer that both have.
fn index(seed: u64) -> Image {
    let mut random = Random(seed);
    let shared = random.bytes(40_000);
    let mut one = |platform: &str| {
        let own = random.bytes(10_000);
        Image::single(platform, &[&shared, &own], json!({}), Flavour::Oci)
    };
    let images = [
        ("linux/amd64", one("linux/amd64")),
        ("linux/arm64", one("linux/arm64")),
    ];
    Image::index(&images, false, Flavour::Oci)
}

#[test]
fn platforms_share_layers() {
    let server = Server::plain();
    let image = index(83);
    let pushed = Rig::new().push(&server, "a:1", &image).expect("a push");
    assert_holds(&server, "a:1", &image);
    let uploads = server.count("PUT /v2/a/blobs/uploads/*");
    assert_eq!(
        uploads,
        5,
        "two configs, two own layers, a shared one\n{}",
        server.story()
    );
    assert!(pushed.sent < 64_000, "{pushed:?}");
    // Children come before the index.
    let order: Vec<String> = server
        .seen("PUT /v2/a/manifests/*")
        .iter()
        .map(|it| it.request.path().to_owned())
        .collect();
    assert!(
        order.last().is_some_and(|it| it.ends_with("/1")),
        "{order:?}"
    );
}

#[test]
fn a_small_change_costs_a_layer_a_config_and_a_manifest() {
    let server = Server::plain();
    let mut random = Random(84);
    let [base, code] = [300_000, 20_000].map(|size| random.bytes(size));
    Rig::new()
        .push(&server, "a:1", &Image::of(&[&base, &code]))
        .expect("a push");
    let changed = random.bytes(20_001);
    let image = Image::of(&[&base, &changed]);
    server.rewind();
    let pushed = Rig::new().push(&server, "a:1", &image).expect("a push");
    assert_holds(&server, "a:1", &image);
    let config = image.parts[0].config.size;
    assert_eq!(server.blob_bytes(), 20_001 + config, "{}", server.story());
    let [heads, gets, posts, _] = methods(&server);
    assert_eq!((gets, posts), (0, 2), "{}", server.story());
    assert!(heads <= 5, "{}", server.story());
    assert_eq!(pushed.skipped, 300_000, "{pushed:?}");
    assert_eq!(
        pushed.sent,
        20_001 + config + image.root().size,
        "{pushed:?}"
    );
}

/// Three images with shared layers, as three services of a repository of code.
fn services(seed: u64) -> [Image; 3] {
    let mut random = Random(seed);
    let [base, vendor] = [200_000, 100_000].map(|size| random.bytes(size));
    [(); 3].map(|()| {
        let own = random.bytes(5_000);
        Image::of(&[&base, &vendor, &own])
    })
}

#[test]
fn three_services_send_shared_layers_once() {
    for auth in [Auth::default(), Auth::token(USER, PASSWORD)] {
        let server = Server::start(Setup {
            auth,
            ..Setup::default()
        });
        let images = services(85);
        let names = ["web:1", "worker:1", "cron:1"];
        let references = names.map(|it| server.reference(it));
        let all: Vec<(Reference, &Image)> = references.into_iter().zip(&images).collect();
        let blobs = Bytes::of(&images.each_ref());
        let results = Rig::login(&server).push_from(&all, &blobs);
        let pushed: Vec<_> = results.into_iter().map(|it| it.expect("a push")).collect();
        for (image, name) in images.iter().zip(names) {
            assert_holds(&server, name, image);
        }
        let own: u64 = images
            .iter()
            .map(|it| it.parts[0].config.size + 5_000)
            .sum();
        assert_eq!(server.blob_bytes(), 300_000 + own, "{}", server.story());
        let mounts = server.seen("POST *mount=*");
        let done = mounts.iter().filter(|it| it.status == 201).count();
        assert_eq!(
            done,
            4,
            "two layers to two more repositories\n{}",
            server.story()
        );
        assert!(mounts.iter().all(|it| it.request.asks("from").is_some()));
        let mounted: u64 = pushed.iter().map(|it| it.mounted).sum();
        assert_eq!(mounted, 600_000, "{pushed:?}");

        // Again: nothing but a HEAD each.
        server.rewind();
        let all: Vec<(Reference, &Image)> = names
            .map(|it| server.reference(it))
            .into_iter()
            .zip(&images)
            .collect();
        let results = Rig::login(&server).push_from(&all, &blobs);
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        assert_eq!(
            server.count("POST *") + server.count("PUT *"),
            0,
            "{}",
            server.story()
        );
        let heads = server.seen("HEAD *");
        let heads = heads.iter().filter(|it| it.status == 200).count();
        assert!((3..=6).contains(&heads), "{}", server.story());
    }
}

#[test]
fn what_fails_fails_alone() {
    let server = Server::plain();
    let images = services(86);
    let names = ["web:1", "worker:1", "cron:1"];
    server.rule(crate::support::registry::Rule::always(
        "* /v2/worker/*",
        403,
    ));
    let all: Vec<(Reference, &Image)> = names
        .map(|it| server.reference(it))
        .into_iter()
        .zip(&images)
        .collect();
    let results = Rig::new().push_from(&all, &Bytes::of(&images.each_ref()));
    let fine: Vec<bool> = results.iter().map(Result::is_ok).collect();
    assert_eq!(fine, [true, false, true], "{results:?}");
    assert_holds(&server, "web:1", &images[0]);
    assert_holds(&server, "cron:1", &images[2]);
    let error = results[1].as_ref().expect_err("403");
    assert_eq!(code(error), "imgdecl::registry::denied", "{error:?}");
}

#[test]
fn a_base_is_mounted_from_where_it_was() {
    let server = Server::plain();
    let mut random = Random(87);
    let [base, code] = [300_000, 5_000].map(|size| random.bytes(size));
    server.load("library/base", "1", &Image::of(&[&base]));
    let image = Image::of(&[&base, &code]);
    let digest = Digest::of(&base);
    // The base's bytes are not on this machine at all.
    let blobs = Bytes::of(&[&image])
        .without(&digest)
        .origin(digest, server.reference("library/base"));
    let results = Rig::new().push_from(&[(server.reference("app:1"), &image)], &blobs);
    let pushed = results[0].as_ref().expect("a push");
    assert_holds(&server, "app:1", &image);
    assert_eq!(pushed.mounted, 300_000, "{pushed:?}");
    assert_eq!(server.count("GET *"), 0, "{}", server.story());
    assert!(server.blob_bytes() < 10_000, "{}", server.story());
}

#[test]
fn a_base_of_another_registry_is_streamed() {
    for quirks in [
        Quirks::default(),
        Quirks {
            location: Location::Absolute,
            ..Quirks::default()
        },
        Quirks {
            max_put: Some(5 << 20),
            ..Quirks::default()
        },
    ] {
        // Chunks are sent of blobs that are larger than a chunk.
        let size = if quirks.max_put.is_some() {
            6 << 20
        } else {
            300_000
        };
        let source = Server::start(Setup {
            auth: Auth::token(USER, PASSWORD),
            ..Setup::default()
        });
        let server = Server::start(Setup {
            quirks,
            ..Setup::default()
        });
        let mut random = Random(88);
        let [base, code] = [size, 5_000].map(|size| random.bytes(size));
        source.load("library/base", "1", &Image::of(&[&base]));
        let image = Image::of(&[&base, &code]);
        let digest = Digest::of(&base);
        // The source cuts once on the way.
        source.rule(crate::support::registry::Rule {
            cut: Some(100_000),
            times: Some(1),
            ..crate::support::registry::Rule::on("GET /v2/library/base/blobs/*")
        });
        let blobs = Bytes::of(&[&image])
            .without(&digest)
            .origin(digest, source.reference("library/base"));
        let rig = Rig::new();
        let results = rig.push_from(&[(server.reference("app:1"), &image)], &blobs);
        results[0]
            .as_ref()
            .unwrap_or_else(|error| panic!("{error}\n{}{}", server.story(), source.story()));
        assert_holds(&server, "app:1", &image);
        // There is no mounting across registries.
        assert_eq!(server.count("POST *mount=*"), 0, "{}", server.story());
    }
}

#[test]
fn bytes_that_are_nowhere() {
    let server = Server::plain();
    let image = image(89, &[1000, 2000]);
    let digest = image.parts[0].layers[1].digest;
    let blobs = Bytes::of(&[&image]).without(&digest);
    let results = Rig::new().push_from(&[(server.reference("a:1"), &image)], &blobs);
    let error = results[0].as_ref().expect_err("a layer is missing");
    super::kit::assert_says(error, &[&digest.hex()[..12]]);
    assert_eq!(server.tag("a", "1"), None);
    assert_eq!(
        server.count("PUT /v2/a/manifests/*"),
        0,
        "{}",
        server.story()
    );
}

#[test]
fn several_image_tags() {
    let server = Server::plain();
    let image = image(90, &[1000]);
    let rig = Rig::new();
    let push = |tags: &[&str]| {
        let blobs = Bytes::of(&[&image]);
        let part = &image.parts[0];
        let images = [imgdecl::parts::registry::PushImage {
            name: "app".to_owned(),
            repository: server.reference("a"),
            tags: tags.iter().map(|it| (*it).to_owned()).collect(),
            root: image.root(),
            is_checked: false,
            manifests: vec![imgdecl::parts::registry::PushManifest {
                manifest: part.manifest.clone(),
                config: part.config.clone(),
                layers: part.layers.clone(),
            }],
        }];
        rig.client
            .push(&images, &blobs)
            .pop()
            .expect("a result")
            .expect("a push");
    };
    push(&["1", "latest"]);
    assert_holds(&server, "a:1", &image);
    assert_holds(&server, "a:latest", &image);
    // One more costs a PUT.
    server.rewind();
    push(&["1", "latest", "stable"]);
    assert_holds(&server, "a:stable", &image);
    assert_eq!(server.blob_bytes(), 0, "{}", server.story());
    assert!(server.count("PUT *") <= 2, "{}", server.story());
    // Without image tags it goes by digest.
    server.clear();
    push(&[]);
    let repository = server.repository("a");
    assert!(repository.manifests.contains_key(&image.root().digest));
    assert!(repository.tags.is_empty());
    server.rewind();
    push(&[]);
    assert_eq!(
        server.count("PUT *") + server.count("POST *"),
        0,
        "{}",
        server.story()
    );
}

#[test]
fn what_one_repository_has_is_mounted_into_the_next() {
    let server = Server::plain();
    let image = image(91, &[100_000]);
    let rig = Rig::new();
    rig.push(&server, "web:1", &image).expect("a push");
    server.rewind();
    let all = [
        (server.reference("web:2"), &image),
        (server.reference("worker:1"), &image),
    ];
    let results = rig.push_from(&all, &Bytes::of(&[&image]));
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert_holds(&server, "web:2", &image);
    assert_holds(&server, "worker:1", &image);
    assert_eq!(server.blob_bytes(), 0, "{}", server.story());
}
