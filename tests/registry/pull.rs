//! Pulling: what is cut is resumed, what is wrong is refused, and mirrors come before the registry.

use std::time::{Duration, Instant};

use imgdecl::parts::oci::{Descriptor, Digest, MediaType, Reference};
use imgdecl::parts::registry::Limits;
use imgdecl::parts::store::{Blobs as _, Health};
use serde_json::json;

use super::kit::{Making, Rig, assert_says, image, limits};
use crate::support::registry::{Image, Logged, Quirks, Rule, Server, Setup};

const BLOBS: &str = "GET /v2/a/blobs/*";

/// A server with an image of one layer, and that layer.
fn loaded(seed: u64, size: usize) -> (Server, Image, Descriptor) {
    let image = image(seed, &[size]);
    let server = Server::plain();
    server.load("a", "1", &image);
    let layer = image.parts[0].layers[0].clone();
    (server, image, layer)
}

fn ranges(server: &Server) -> Vec<Option<String>> {
    let range = |it: &Logged| it.request.header("range").map(str::to_owned);
    server.seen(BLOBS).iter().map(range).collect()
}

#[test]
fn a_cut_is_resumed() {
    let (server, _, layer) = loaded(60, 500_000);
    server.rule(Rule {
        cut: Some(200_000),
        times: Some(1),
        ..Rule::on(BLOBS)
    });
    server.rule(Rule {
        nth: 2,
        cut: Some(100_000),
        times: Some(1),
        ..Rule::on(BLOBS)
    });
    let rig = Rig::new();
    rig.pull(&server, &layer).expect("a pull");
    assert_eq!(rig.health(&layer), Health::Whole);
    let ranges = ranges(&server);
    assert_eq!(
        ranges,
        [
            None,
            Some("bytes=200000-".to_owned()),
            Some("bytes=300000-".to_owned())
        ]
    );
    let sent: u64 = server.seen(BLOBS).iter().map(|it| it.sent).sum();
    assert_eq!(sent, 500_000, "nothing is sent twice");
}

#[test]
fn a_resume_that_goes_wrong() {
    let cases: [(&str, Rule); 6] = [
        (
            "another range",
            Rule {
                has: Some("range".to_owned()),
                ..Rule::on(BLOBS)
            }
            .header("Content-Range", "bytes 0-399999/500000"),
        ),
        (
            "another size",
            Rule {
                has: Some("range".to_owned()),
                ..Rule::on(BLOBS)
            }
            .header("Content-Range", "bytes 200000-499999/600000"),
        ),
        (
            "no range",
            Rule {
                has: Some("range".to_owned()),
                ..Rule::on(BLOBS)
            }
            .without("Content-Range"),
        ),
        (
            "a range that is none",
            Rule {
                has: Some("range".to_owned()),
                ..Rule::on(BLOBS)
            }
            .header("Content-Range", "pages 1-2"),
        ),
        (
            "not satisfiable",
            Rule {
                has: Some("range".to_owned()),
                ..Rule::always(BLOBS, 416)
            },
        ),
        (
            "the whole",
            Rule {
                has: Some("range".to_owned()),
                ..Rule::on("GET nothing")
            },
        ),
    ];
    for (name, rule) in cases {
        let (server, image, layer) = loaded(61, 500_000);
        server.rule(Rule {
            cut: Some(200_000),
            times: Some(1),
            ..Rule::on(BLOBS)
        });
        if name == "the whole" {
            // As servers do that know no ranges.
            let whole = String::from_utf8(image.blobs[0].clone()).expect("test bytes are ASCII");
            server.rule(Rule {
                has: Some("range".to_owned()),
                body: Some(whole),
                ..Rule::always(BLOBS, 200)
            });
        }
        server.rule(rule);
        let rig = Rig::new();
        rig.pull(&server, &layer)
            .unwrap_or_else(|error| panic!("{name}: {error}\n{}", server.story()));
        assert_eq!(rig.health(&layer), Health::Whole, "{name}");
        // What cannot be fitted on is not used: it is fetched from the beginning.
        let rest = Some("bytes=200000-".to_owned());
        let expected = match name {
            "the whole" => vec![None, rest],
            _ => vec![None, rest, None],
        };
        assert_eq!(ranges(&server), expected, "{name}: {}", server.story());
    }
}

#[test]
fn a_pull_that_is_always_cut_ends() {
    let (server, _, layer) = loaded(62, 500_000);
    server.rule(Rule {
        cut: Some(0),
        ..Rule::on(BLOBS)
    });
    let rig = Rig::new();
    let error = rig.pull(&server, &layer);
    assert_says(
        &error.expect_err("never a byte"),
        &[server.host(), "/a", "cut"],
    );
    assert!(server.count(BLOBS) <= 8, "{}", server.story());
    assert_eq!(rig.health(&layer), Health::Missing);
}

#[test]
fn bytes_that_are_not_what_they_should_be() {
    let cases: [(&str, Rule); 5] = [
        (
            "another byte",
            Rule {
                corrupt: Some(100),
                ..Rule::on(BLOBS)
            },
        ),
        (
            "shorter",
            Rule {
                truncate: Some(100),
                ..Rule::on(BLOBS)
            },
        ),
        (
            "longer",
            Rule {
                repeat: true,
                ..Rule::on(BLOBS)
            },
        ),
        (
            "empty",
            Rule {
                body: Some(String::new()),
                ..Rule::always(BLOBS, 200)
            },
        ),
        (
            "a page",
            Rule {
                body: Some("<html>log in</html>".to_owned()),
                ..Rule::always(BLOBS, 200)
            },
        ),
    ];
    for (name, rule) in cases {
        let (server, image, layer) = loaded(63, 200_000);
        server.rule(rule);
        let rig = Rig::new();
        let error = rig.pull(&server, &layer);
        let error = error.expect_err(name);
        assert_says(&error, &[&layer.digest.hex()[..12]]);
        assert_eq!(rig.health(&layer), Health::Missing, "{name}");
        assert!(server.count(BLOBS) <= 5, "{name}: {}", server.story());
        let config = &image.parts[0].config;
        rig.client
            .document(&server.reference("a"), config)
            .expect_err(name);
    }
    // Once is bad luck: it is fetched again, from the beginning.
    let (server, _, layer) = loaded(64, 200_000);
    server.rule(Rule {
        corrupt: Some(100),
        times: Some(1),
        ..Rule::on(BLOBS)
    });
    let rig = Rig::new();
    rig.pull(&server, &layer).expect("a second try");
    assert_eq!(rig.health(&layer), Health::Whole);
}

#[test]
fn a_blob_that_never_ends_is_left() {
    let (server, _, layer) = loaded(65, 10_000);
    let endless = "x".repeat(30 << 20);
    server.rule(
        Rule {
            body: Some(endless),
            ..Rule::always(BLOBS, 200)
        }
        .header("Transfer-Encoding", "identity"),
    );
    let rig = Rig::new();
    rig.pull(&server, &layer).expect_err("too long");
    assert!(
        rig.monitor.moved() < 2 << 20,
        "{} bytes were read",
        rig.monitor.moved()
    );
}

#[test]
fn what_is_there_is_not_fetched() {
    let (server, image, layer) = loaded(66, 1000);
    let rig = Rig::new();
    rig.store.put_blob(&image.blobs[0]).expect("a store");
    rig.client
        .pull(
            &server.reference("a"),
            &[layer.clone(), layer.clone()],
            &rig.store,
        )
        .expect("nothing to do");
    assert_eq!(server.log().len(), 0, "{}", server.story());
    // Twice the same blob is one download.
    let rig = Rig::new();
    rig.client
        .pull(&server.reference("a"), &[layer.clone(), layer], &rig.store)
        .expect("a pull");
    assert_eq!(server.count(BLOBS), 1, "{}", server.story());
}

#[test]
fn blobs_come_at_the_same_time() {
    let sizes = [1000; 12];
    let image = image(67, &sizes);
    let server = Server::plain();
    server.load("a", "1", &image);
    server.rule(Rule {
        delay_ms: 100,
        ..Rule::on(BLOBS)
    });
    let config = |count: u32| format!("[registry.\"{}\"]\nconcurrency = {count}\n", server.host());
    let time = |count: u32| {
        let rig = Making::default().config(config(count)).build();
        let begin = Instant::now();
        rig.client
            .pull(&server.reference("a"), &image.parts[0].layers, &rig.store)
            .expect("a pull");
        begin.elapsed()
    };
    assert!(time(1) >= Duration::from_millis(1200));
    let four = time(4);
    assert!(
        four >= Duration::from_millis(300) && four < Duration::from_millis(1000),
        "{four:?}"
    );
}

#[test]
fn a_trickle_ends() {
    let (server, _, layer) = loaded(69, 20_000);
    server.rule(Rule {
        drip: Some((1, 20)),
        ..Rule::on(BLOBS)
    });
    let rig = Rig::new();
    let begin = Instant::now();
    // One byte each 20 ms: 400 s in all, and never 600 ms without a byte.
    let reference = server.reference("a");
    let error = rig.client.document(&reference, &layer);
    assert_says(
        &error.expect_err("a trickle"),
        &[server.host(), "less than 1 KiB"],
    );
    assert!(
        begin.elapsed() < Duration::from_secs(20),
        "{:?}",
        begin.elapsed()
    );
}

#[test]
fn slow_is_not_dead() {
    let (server, _, layer) = loaded(68, 20_000);
    server.rule(Rule {
        drip: Some((1000, 100)),
        ..Rule::on(BLOBS)
    });
    let rig = Rig::new();
    // 2 s in all, and never 600 ms without a byte.
    rig.pull(&server, &layer).expect("a slow pull");
    assert_eq!(server.count(BLOBS), 1);
    server.heal();
    server.rule(Rule {
        hang: true,
        ..Rule::on(BLOBS)
    });
    let rig = Making {
        limits: Some(Limits {
            idle: Duration::from_millis(200),
            ..limits()
        }),
        ..Making::default()
    }
    .build();
    let begin = Instant::now();
    let error = rig.pull(&server, &layer);
    assert_says(
        &error.expect_err("silence"),
        &[server.host(), "no byte moved"],
    );
    assert!(
        begin.elapsed() < Duration::from_secs(3),
        "{:?}",
        begin.elapsed()
    );
}

#[test]
fn manifests_that_are_too_large() {
    let server = Server::plain();
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let long = "x".repeat(30 << 20);
    let text = format!("{{\"schemaVersion\":2,\"mediaType\":\"{kind}\",\"x\":\"{long}\"}}");
    server.put_manifest("a", "1", kind, text.as_bytes());
    let rig = Rig::new();
    let error = rig
        .client
        .manifest(&server.reference("a:1"))
        .expect_err("30 MiB");
    assert_says(&error, &[server.host(), "/a"]);
    assert!(server.count("GET *") <= 2, "{}", server.story());
}

#[test]
fn schema_1_is_refused() {
    let kinds = [
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/json",
    ];
    for kind in kinds {
        let server = Server::plain();
        let body =
            json!({ "schemaVersion": 1, "name": "a", "tag": "1", "fsLayers": [] }).to_string();
        for method in ["GET", "HEAD"] {
            server.rule(
                Rule {
                    body: Some(body.clone()),
                    ..Rule::always(&format!("{method} /v2/a/manifests/*"), 200)
                }
                .header("Content-Type", kind),
            );
        }
        let rig = Rig::new();
        let error = rig
            .client
            .manifest(&server.reference("a:1"))
            .expect_err(kind);
        assert_eq!(
            error.code(),
            "imgdecl::registry::schema1",
            "{kind}: {error}"
        );
        assert_says(&error, &[server.host(), "/a", "schema 1"]);
        rig.client
            .resolve(&server.reference("a:1"))
            .expect_err(kind);
    }
}

#[test]
fn manifests_that_are_not_what_they_say() {
    let manifests = "GET /v2/a/manifests/*";
    let index = "application/vnd.oci.image.index.v1+json";
    let cases: [(&str, Rule); 6] = [
        (
            "another media type",
            Rule::on(manifests).header("Content-Type", index),
        ),
        (
            "another digest",
            Rule::on("* /v2/a/manifests/*")
                .header("Docker-Content-Digest", &Digest::of(b"").to_string()),
        ),
        (
            "another byte",
            Rule {
                corrupt: Some(20),
                ..Rule::on(manifests)
            },
        ),
        (
            "a page",
            Rule {
                body: Some("<html>".to_owned()),
                ..Rule::always(manifests, 200)
            }
            .header("Content-Type", "text/html"),
        ),
        (
            "null",
            Rule {
                body: Some("null".to_owned()),
                ..Rule::always(manifests, 200)
            }
            .header("Content-Type", index),
        ),
        (
            "nothing",
            Rule {
                truncate: Some(0),
                ..Rule::on(manifests)
            },
        ),
    ];
    for (name, rule) in cases {
        let (server, image, _) = loaded(69, 100);
        server.rule(rule);
        let rig = Rig::new();
        let error = rig
            .client
            .manifest(&server.reference("a:1"))
            .expect_err(name);
        assert_says(&error, &[server.host(), "/a"]);
        let by_digest = server.reference(&format!("a@{}", image.root().digest));
        // Where the bytes have the digest that was asked for, what a header says is no matter.
        let found = rig.client.manifest(&by_digest);
        assert_eq!(found.is_ok(), name == "another digest", "{name}");
        assert!(server.count("GET *") <= 10, "{name}: {}", server.story());
    }
}

#[test]
fn a_digest_that_is_asked_for_is_what_comes() {
    let (server, image, _) = loaded(70, 100);
    let other = super::kit::image(71, &[100]);
    let (kind, bytes) = &other.manifests[0];
    let text = String::from_utf8(bytes.clone()).expect("JSON");
    let asked = image.root().digest;
    // The registry says the digest that was asked for, and sends another manifest.
    let rule = Rule {
        body: Some(text),
        ..Rule::always("GET /v2/a/manifests/*", 200)
    };
    server.rule(
        rule.header("Content-Type", kind)
            .header("Docker-Content-Digest", &asked.to_string()),
    );
    let reference: Reference = server.reference(&format!("a:1@{asked}"));
    let error = Rig::new()
        .client
        .manifest(&reference)
        .expect_err("another manifest");
    assert_says(
        &error,
        &[&asked.to_string(), &other.root().digest.to_string()],
    );
}

#[test]
fn a_head_that_says_too_little() {
    let heads = "HEAD /v2/a/manifests/1";
    let cases = [
        Rule::on(heads).without("Docker-Content-Digest"),
        Rule::on(heads).header("Docker-Content-Digest", "sha512:00"),
        Rule::on(heads).without("Content-Type"),
        Rule::always(heads, 405),
        Rule::always(heads, 404),
        Rule::always(heads, 400),
    ];
    for rule in cases {
        let (server, image, _) = loaded(72, 100);
        let name = format!("{rule:?}");
        server.rule(rule);
        let found = Rig::new().client.resolve(&server.reference("a:1"));
        let found = found.unwrap_or_else(|error| panic!("{name}: {error}\n{}", server.story()));
        let root = image.root();
        assert_eq!(
            (found.digest, found.size, found.media_type),
            (root.digest, root.size, root.media_type),
            "{name}"
        );
    }
}

#[test]
fn what_is_not_there() {
    let (server, _, _) = loaded(73, 100);
    let client = Rig::new().client;
    let error = client
        .resolve(&server.reference("a:2"))
        .expect_err("no such image tag");
    assert_eq!(error.code(), "imgdecl::registry::not_found", "{error:?}");
    assert_says(&error, &[server.host(), "/a", "404"]);
    let gone = Descriptor::of(MediaType::OciLayer, b"gone");
    let rig = Rig::new();
    let error = rig
        .client
        .pull(&server.reference("a"), &[gone], &rig.store)
        .expect_err("no such blob");
    assert_says(&error, &[server.host(), "/a", "404"]);
}

#[test]
fn mirrors() {
    let image = image(74, &[100_000, 2000]);
    let server = Server::plain();
    server.load("a", "1", &image);
    let [good, wrong, empty, broken] = [(); 4].map(|()| Server::plain());
    good.load("a", "1", &image);
    wrong.load("a", "1", &image);
    wrong.rule(Rule {
        corrupt: Some(50),
        ..Rule::on("GET *")
    });
    broken.rule(Rule::always("* *", 500));
    let dead = {
        let server = Server::plain();
        server.host().to_owned()
    };
    let fetch = |mirrors: &[&str]| {
        let list: Vec<String> = mirrors.iter().map(|it| format!("\"{it}\"")).collect();
        let config = format!(
            "[registry.\"{}\"]\nmirrors = [{}]\n",
            server.host(),
            list.join(", ")
        );
        let rig = Making::default().config(config).build();
        server.rewind();
        good.rewind();
        let found = rig.fetch(&server.reference("a:1"));
        let found =
            found.unwrap_or_else(|error| panic!("{mirrors:?}: {error}\n{}", server.story()));
        assert_eq!(found.digest, image.root().digest);
        rig
    };
    let url = format!("http://{}", good.host());
    fetch(&[&url]);
    assert_eq!(server.count("GET /v2/a/blobs/*"), 0, "{}", server.story());
    // The image tag was resolved at the registry, and is not asked of a mirror.
    assert_eq!(good.count("* /v2/a/manifests/1*"), 0, "{}", good.story());
    assert_eq!(
        server.count("HEAD /v2/a/manifests/1"),
        1,
        "{}",
        server.story()
    );
    // Any failure leads to the next mirror.
    fetch(&[&dead, broken.host(), empty.host(), good.host()]);
    assert_eq!(server.count("GET /v2/a/blobs/*"), 0, "{}", server.story());
    assert!(empty.count("GET *") > 0 && broken.count("GET *") > 0);
    // And to the registry in the end; to no mirror after one whose bytes were wrong.
    fetch(&[&dead, broken.host(), empty.host(), wrong.host()]);
    assert!(server.count("GET /v2/a/blobs/*") >= 2, "{}", server.story());
    assert!(wrong.count("GET *") > 0, "{}", wrong.story());

    // Where the registry is not to be reached, the mirror says what the image tag is: that is told.
    let config = format!("[registry.\"{dead}\"]\nmirrors = [\"{}\"]\n", good.host());
    let rig = Making::default().config(config).build();
    let reference: Reference = format!("{dead}/a:1").parse().expect("a reference");
    let found = rig.fetch(&reference).expect("the mirror");
    assert_eq!(found.digest, image.root().digest);
    assert!(
        rig.monitor
            .notes()
            .iter()
            .any(|it| it.contains(good.host())),
        "{:?}",
        rig.monitor.notes()
    );

    // Nothing is pushed to a mirror.
    good.rewind();
    let config = format!(
        "[registry.\"{}\"]\nmirrors = [\"{}\"]\n",
        server.host(),
        good.host()
    );
    let rig = Making::default().config(config).build();
    rig.push(&server, "b:1", &image).expect("a push");
    assert_eq!(good.log().len(), 0, "{}", good.story());
}

#[test]
fn a_mirror_with_a_prefix() {
    let image = image(75, &[1000]);
    let server = Server::plain();
    server.load("a", "1", &image);
    let mirror = Server::plain();
    mirror.load("hub/a", "1", &image);
    let config = format!(
        "[registry.\"{}\"]\nmirrors = [\"{}/hub\"]\n",
        server.host(),
        mirror.host()
    );
    let rig = Making::default().config(config).build();
    rig.fetch(&server.reference("a:1")).expect("a pull");
    assert!(
        mirror.count("GET /v2/hub/a/blobs/*") > 0,
        "{}",
        mirror.story()
    );
    assert_eq!(server.count("GET /v2/a/blobs/*"), 0);
}

#[test]
fn a_proxy() {
    let image = image(76, &[1000]);
    let proxy = Server::start(Setup {
        quirks: Quirks::default(),
        ..Setup::default()
    });
    proxy.load("a", "1", &image);
    // A host that is nowhere: only the proxy can know it.
    let making = || Making {
        proxies: imgdecl::parts::registry::Proxies {
            http: Some(format!("http://{}", proxy.host())),
            https: Some(format!("http://{}", proxy.host())),
            ..imgdecl::parts::registry::Proxies::default()
        },
        ..Making::default()
    };
    let config = "[registry.\"registry.invalid\"]\ninsecure = true\n";
    let reference: Reference = "registry.invalid/a:1".parse().expect("a reference");
    let rig = making().config(config).build();
    let found = rig
        .fetch(&reference)
        .unwrap_or_else(|error| panic!("{error}\n{}", proxy.story()));
    assert_eq!(found.digest, image.root().digest);
    // Not allowed in the clear: the proxy is asked for a tunnel, and has none.
    proxy.rewind();
    let error = making().build().fetch(&reference).expect_err("no tunnel");
    assert_says(&error, &["registry.invalid", "proxy"]);
    assert!(
        proxy.log().iter().all(|it| it.request.method == "CONNECT"),
        "{}",
        proxy.story()
    );
    // What NO_PROXY names is asked directly.
    proxy.rewind();
    let making = making();
    let none = imgdecl::parts::registry::Proxies {
        none: Some(".invalid".to_owned()),
        ..making.proxies.clone()
    };
    let rig = Making {
        proxies: none,
        ..making
    }
    .config(config)
    .build();
    rig.fetch(&reference).expect_err("no such host");
    assert_eq!(proxy.log().len(), 0, "{}", proxy.story());
}
