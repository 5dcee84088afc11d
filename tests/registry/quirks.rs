//! Each quirk of a registry of the wild, and a test that needs the client to live with it.

use std::time::{Duration, Instant};

use imgdecl::parts::registry::Ended;
use serde_json::json;

use super::kit::{Bytes, Making, Rig, assert_holds, assert_says, image};
use crate::support::registry::{
    Flavour, Image, Location, Mount, PASSWORD, Patch, Quirks, Rule, Server, Setup, USER,
};

const UPLOADS: &str = "/v2/*/blobs/uploads/*";

fn server(quirks: Quirks) -> Server {
    Server::start(Setup {
        quirks,
        ..Setup::default()
    })
}

/// An image of two platforms with a shared layer.
fn two_platforms() -> Image {
    let one = |platform: &str| {
        Image::single(
            platform,
            &[b"shared by both", platform.as_bytes()],
            json!({}),
            Flavour::Oci,
        )
    };
    let images = ["linux/amd64", "linux/arm64"].map(|it| (it, one(it)));
    Image::index(&images, false, Flavour::Oci)
}

#[test]
fn every_profile_takes_and_gives_images() {
    for name in Quirks::NAMES {
        let server = Server::profile(name, USER, PASSWORD);
        server.make_repository("team/app");
        let rig = Rig::login(&server);
        for image in [two_platforms(), image(7, &[300_000, 1, 70_000])] {
            let pushed = rig.push(&server, "team/app:v1", &image);
            let pushed =
                pushed.unwrap_or_else(|error| panic!("{name}: {error}\n{}", server.story()));
            assert!(pushed.sent > 0, "{name}: {pushed:?}");
            assert_holds(&server, "team/app:v1", &image);
            assert_eq!(server.count(&format!("PATCH {UPLOADS}")), 0, "{name}");
            let again = Rig::login(&server);
            let found = again.fetch(&server.reference("team/app:v1"));
            let found = found.unwrap_or_else(|error| panic!("{name}: {error}\n{}", server.story()));
            assert_eq!(found.digest, image.root().digest, "{name}");
            assert_eq!(found.size, image.root().size, "{name}");
        }
        for logged in server.log() {
            let header = |name: &str| logged.request.header(name);
            assert_eq!(header("cookie"), None, "{name}: {}", logged.line());
            let agent = header("user-agent").unwrap_or_default();
            assert!(agent.starts_with("imgdecl/"), "{name}: {agent}");
            let query = logged.request.query();
            if query.iter().any(|(key, _)| key == "mount") {
                assert!(logged.request.asks("from").is_some(), "{}", logged.line());
            }
        }
    }
}

#[test]
fn docker_media_types_are_pushed_as_they_are() {
    let server = Server::plain();
    let image = Image::index(
        &[(
            "linux/amd64",
            Image::single("linux/amd64", &[b"a"], json!({}), Flavour::Docker),
        )],
        false,
        Flavour::Docker,
    );
    Rig::new().push(&server, "a:1", &image).expect("a push");
    assert_holds(&server, "a:1", &image);
    let found = Rig::new().fetch(&server.reference("a:1")).expect("a pull");
    assert_eq!(found.media_type, image.root().media_type);
}

#[test]
fn chunks_of_ghcr() {
    let server = Server::profile("ghcr", USER, PASSWORD);
    let image = image(1, &[5 << 20]);
    let config = format!("[registry.\"{}\"]\nchunk = \"2MiB\"\n", server.host());
    let rig = Making::login(&[server.host()]).config(config).build();
    rig.push(&server, "a:1", &image).expect("a push");
    assert_holds(&server, "a:1", &image);
    let chunks = server.seen(&format!("PATCH {UPLOADS}"));
    let large: Vec<u64> = chunks
        .iter()
        .map(|it| it.received)
        .filter(|it| *it > 1000)
        .collect();
    assert!(large.iter().all(|it| *it <= 2 << 20), "{}", server.story());
    assert!(large.len() >= 2, "{}", server.story());
}

#[test]
fn a_cancel_that_is_refused_is_no_matter() {
    let server = Server::profile("ghcr", USER, PASSWORD);
    server.rule(Rule::always(&format!("PUT {UPLOADS}"), 500));
    let error = Rig::login(&server).push(&server, "a:1", &image(1, &[10]));
    let error = error.expect_err("nothing can be uploaded");
    assert_says(&error, &["500", server.host()]);
    assert_eq!(server.tag("a", "1"), None);
    assert_eq!(
        server.count("PUT /v2/*/manifests/*"),
        0,
        "{}",
        server.story()
    );
}

#[test]
fn gar_takes_whole_blobs_alone() {
    let server = server(Quirks {
        patch: Patch::Fails(400),
        location: Location::Absolute,
        ..Quirks::default()
    });
    server.rule(Rule {
        cut_upload: Some(1000),
        times: Some(2),
        ..Rule::on(&format!("PUT {UPLOADS}"))
    });
    let image = image(2, &[200_000]);
    Rig::new().push(&server, "a:1", &image).expect("a push");
    assert_holds(&server, "a:1", &image);
    assert_eq!(server.count(&format!("PATCH {UPLOADS}")), 0);
}

#[test]
fn ecr_wants_repositories_to_be_made() {
    let server = Server::profile("ecr", USER, PASSWORD);
    let rig = Rig::login(&server);
    let error = rig.push(&server, "a/b:1", &image(3, &[10]));
    let error = error.expect_err("there is no repository");
    assert_says(&error, &["a/b", "404", "does not exist", "made first"]);
    let posts = server.count("POST *");
    assert!(
        posts <= 2,
        "a missing repository is not tried again\n{}",
        server.story()
    );
}

#[test]
fn ecr_wants_a_new_session_for_each_try() {
    let server = Server::profile("ecr", USER, PASSWORD);
    server.make_repository("a");
    server.rule(Rule {
        cut_upload: Some(5000),
        times: Some(1),
        above: Some(5000),
        ..Rule::on(&format!("PUT {UPLOADS}"))
    });
    let image = image(4, &[400_000]);
    Rig::login(&server)
        .push(&server, "a:1", &image)
        .expect("a push");
    assert_holds(&server, "a:1", &image);
    let puts = server.seen(&format!("PUT {UPLOADS}"));
    let mut paths: Vec<&str> = puts.iter().map(|it| it.request.path()).collect();
    paths.sort_unstable();
    let count = paths.len();
    paths.dedup();
    assert_eq!(
        paths.len(),
        count,
        "a session was used twice\n{}",
        server.story()
    );
    assert_eq!(count, 3, "{}", server.story());
}

#[test]
fn ecr_counts_chunks_wrongly() {
    let server = Server::profile("ecr", USER, PASSWORD);
    server.make_repository("a");
    let config = format!("[registry.\"{}\"]\nchunk = 65536\n", server.host());
    let rig = Making::login(&[server.host()]).config(config).build();
    let image = image(5, &[300_000]);
    rig.push(&server, "a:1", &image).expect("a push");
    assert_holds(&server, "a:1", &image);
    let chunks = server.seen(&format!("PATCH {UPLOADS}"));
    assert!(chunks.len() >= 4, "{}", server.story());
    assert!(
        chunks.iter().all(|it| it.status == 201),
        "{}",
        server.story()
    );
}

#[test]
fn ecr_mounts_what_is_referenced() {
    let server = server(Quirks {
        mount: Mount::Referenced,
        ..Quirks::default()
    });
    let image = image(6, &[1000, 2000]);
    server.load("base", "1", &image);
    let [first, second] = [0, 1].map(|at| image.parts[0].layers[at].digest);
    server.put_blob("loose", second, &image.blobs[1]);
    let blobs = Bytes::of(&[&image])
        .origin(first, server.reference("base"))
        .origin(second, server.reference("loose"));
    let rig = Rig::new();
    let results = rig.push_from(&[(server.reference("app:1"), &image)], &blobs);
    let pushed = results[0].as_ref().expect("a push");
    assert_holds(&server, "app:1", &image);
    assert_eq!(pushed.mounted, 1000, "{pushed:?}");
    // The answer to the mount that did not come about is a session: nothing is opened anew for it.
    let opened = server.seen("POST *from=loose*");
    assert_eq!(opened.len(), 1);
    let location = "PUT /v2/app/blobs/uploads/*";
    assert_eq!(
        server.count(location),
        server
            .seen("POST *")
            .iter()
            .filter(|it| it.status == 202)
            .count()
    );
    assert_eq!(blobs.opened(&first), 0, "what was mounted is not read");
}

#[test]
fn quay_pages_of_tags() {
    let server = Server::profile("quay", USER, PASSWORD);
    let image = image(8, &[10]);
    let names: Vec<String> = (0..120).map(|it| format!("t{it:03}")).collect();
    names.iter().for_each(|name| server.load("a", name, &image));
    let found = Rig::login(&server).client.tags(&server.reference("a"));
    assert_eq!(found.expect("image tags"), names, "{}", server.story());
    assert_eq!(
        server.count("GET /v2/a/tags/list*"),
        3 + server
            .seen("GET /v2/a/tags/list*")
            .iter()
            .filter(|it| it.status == 401)
            .count()
    );
    for logged in server.seen("GET /v2/a/tags/list*") {
        let asked = logged.request.asks("n").map(|it| it.parse::<u32>());
        assert!(
            asked.is_none_or(|it| it.expect("a number") <= 100),
            "{}",
            logged.line()
        );
    }
}

#[test]
fn lists_of_image_tags() {
    let server = server(Quirks {
        null_tags: true,
        page: 2,
        ..Quirks::default()
    });
    let client = Rig::new().client;
    assert_eq!(
        client.tags(&server.reference("nothing")).expect("none"),
        [""; 0]
    );
    server.make_repository("empty");
    assert_eq!(
        client.tags(&server.reference("empty")).expect("null"),
        [""; 0]
    );
    let image = image(9, &[10]);
    for tag in ["a", "b", "c", "d", "e"] {
        server.load("full", tag, &image);
    }
    let tags = || client.tags(&server.reference("full"));
    assert_eq!(tags().expect("pages"), ["a", "b", "c", "d", "e"]);
    // A link that leads in a circle, or away.
    let circle = "</v2/full/tags/list?n=2>; rel=\"next\"";
    server.rule(Rule::on("GET *tags/list*").header("Link", circle));
    server.rewind();
    let begin = Instant::now();
    let _ = tags();
    assert!(
        begin.elapsed() < Duration::from_secs(20),
        "{} requests",
        server.log().len()
    );
    let other = Server::plain();
    server.heal();
    let away = format!(
        "<http://{}/v2/full/tags/list?last=b>; rel=\"next\"",
        other.host()
    );
    server.rule(Rule::on("GET *tags/list*").header("Link", &away));
    let _ = tags();
    assert_eq!(other.log().len(), 0, "a link leads to another host");
}

#[test]
fn hub_counts_manifests_but_not_heads() {
    let server = Server::profile("hub", USER, PASSWORD);
    server.load("library/a", "1", &image(10, &[10]));
    let rig = Rig::new();
    for _ in 0..20 {
        rig.client
            .resolve(&server.reference("library/a:1"))
            .expect("a digest");
    }
    assert_eq!(server.count("GET /v2/library/a/manifests/*"), 0);
    assert!(server.count("HEAD /v2/library/a/manifests/1") >= 20);
}

#[test]
fn hub_says_too_many_requests() {
    let server = Server::plain();
    server.load("a", "1", &image(11, &[10]));
    let limit = || Rule::once("GET /v2/a/manifests/*", 429).header("Retry-After", "1");
    server.rule(Rule {
        body: Some(
            json!({"errors":[{"code":"TOOMANYREQUESTS","message":"pull rate limit"}]}).to_string(),
        ),
        ..limit()
    });
    let rig = Making {
        limits: Some(imgdecl::parts::registry::Limits {
            retry_after: Duration::from_secs(5),
            ..super::kit::limits()
        }),
        ..Making::default()
    };
    let begin = Instant::now();
    rig.build().fetch(&server.reference("a:1")).expect("a pull");
    assert!(
        begin.elapsed() >= Duration::from_secs(1),
        "Retry-After was not heeded"
    );

    server.heal();
    server.rule(Rule {
        times: None,
        ..limit()
    });
    let error = Rig::new()
        .fetch(&server.reference("a:1"))
        .expect_err("429 forever");
    assert_says(&error, &["429", "tried 4 times", server.host(), "/a"]);
    server.heal();
    // A 429 to the PUT of a manifest is tried again as well.
    server.rule(Rule::once("PUT /v2/b/manifests/*", 429).header("Retry-After", "0"));
    let image = image(12, &[10]);
    Rig::new().push(&server, "b:1", &image).expect("a push");
    assert_holds(&server, "b:1", &image);
}

#[test]
fn hub_refuses_the_scope_of_a_repository_that_is_not_there() {
    let server = Server::profile("hub", USER, PASSWORD);
    server.make_repository("a");
    let image = image(13, &[1000]);
    let layer = image.parts[0].layers[0].digest;
    let blobs = Bytes::of(&[&image]).origin(layer, server.reference("gone"));
    let rig = Rig::login(&server);
    let results = rig.push_from(&[(server.reference("a:1"), &image)], &blobs);
    results[0]
        .as_ref()
        .unwrap_or_else(|error| panic!("{error}\n{}", server.story()));
    assert_holds(&server, "a:1", &image);
}

#[test]
fn a_put_that_is_too_large_is_sent_in_chunks() {
    let server = Server::profile("acr", USER, PASSWORD);
    let image = image(14, &[6 << 20, 2000, 10]);
    Rig::login(&server)
        .push(&server, "a:1", &image)
        .expect("a push");
    assert_holds(&server, "a:1", &image);
    assert!(
        server.count(&format!("PATCH {UPLOADS}")) > 1,
        "{}",
        server.story()
    );

    // The proxy before it does not even read what is too large.
    let server = Server::plain();
    server.rule(Rule {
        early: true,
        above: Some(5 << 20),
        status: Some(413),
        ..Rule::on(&format!("PUT {UPLOADS}"))
    });
    let image = super::kit::image(15, &[6 << 20]);
    Rig::new().push(&server, "a:1", &image).expect("a push");
    assert_holds(&server, "a:1", &image);
}

#[test]
fn chunks_are_as_large_as_the_registry_wants() {
    let server = server(Quirks {
        min_chunk: Some(100_000),
        ..Quirks::default()
    });
    let config = format!("[registry.\"{}\"]\nchunk = 10000\n", server.host());
    let image = image(16, &[350_000]);
    Making::default()
        .config(config)
        .build()
        .push(&server, "a:1", &image)
        .expect("a push");
    assert_holds(&server, "a:1", &image);
    let chunks = server.seen(&format!("PATCH {UPLOADS}"));
    let sizes: Vec<u64> = chunks
        .iter()
        .map(|it| it.received)
        .filter(|it| *it > 1000)
        .collect();
    let (_, all_but_last) = sizes.split_last().expect("chunks");
    assert!(
        all_but_last.iter().all(|it| *it >= 100_000),
        "{}",
        server.story()
    );
}

#[test]
fn a_chunk_that_was_cut_goes_on_where_the_registry_is() {
    let server = Server::plain();
    server.rule(Rule {
        nth: 2,
        times: Some(1),
        cut_upload: Some(20_000),
        ..Rule::on(&format!("PATCH {UPLOADS}"))
    });
    let config = format!("[registry.\"{}\"]\nchunk = 65536\n", server.host());
    let image = image(17, &[300_000]);
    let rig = Making::default().config(config).build();
    rig.push(&server, "a:1", &image)
        .unwrap_or_else(|error| panic!("{error}\n{}", server.story()));
    assert_holds(&server, "a:1", &image);
}

#[test]
fn artifactory_says_no_digests() {
    let server = Server::profile("artifactory", USER, PASSWORD);
    let image = two_platforms();
    server.load("a", "1", &image);
    let rig = Rig::login(&server);
    let found = rig
        .client
        .resolve(&server.reference("a:1"))
        .expect("a digest");
    assert_eq!(found.digest, image.root().digest);
    assert_eq!(found.size, image.root().size);
    assert_eq!(found.media_type, image.root().media_type);
}

#[test]
fn harbor_does_not_let_mount() {
    let refusals = [401, 403, 404, 400, 500].map(Mount::Fails);
    for mount in refusals.into_iter().chain([Mount::Ignored]) {
        let server = server(Quirks {
            mount,
            cookies: true,
            ..Quirks::default()
        });
        let image = image(18, &[1000]);
        server.load("base", "1", &image);
        let layer = image.parts[0].layers[0].digest;
        let blobs = Bytes::of(&[&image]).origin(layer, server.reference("base"));
        let results = Rig::new().push_from(&[(server.reference("a:1"), &image)], &blobs);
        let pushed = results[0]
            .as_ref()
            .unwrap_or_else(|error| panic!("{mount:?}: {error}\n{}", server.story()));
        assert_eq!(pushed.mounted, 0, "{mount:?}");
        assert_holds(&server, "a:1", &image);
    }
    // A mount whose answer never comes is no reason to fail either.
    let server = Server::plain();
    server.rule(Rule {
        lose: true,
        ..Rule::on("POST *mount=*")
    });
    let image = image(18, &[1000]);
    server.load("base", "1", &image);
    let layer = image.parts[0].layers[0].digest;
    let blobs = Bytes::of(&[&image]).origin(layer, server.reference("base"));
    let results = Rig::new().push_from(&[(server.reference("a:1"), &image)], &blobs);
    results[0]
        .as_ref()
        .unwrap_or_else(|error| panic!("{error}\n{}", server.story()));
    assert_holds(&server, "a:1", &image);
}

#[test]
fn locations_of_every_form() {
    for location in [Location::Relative, Location::Plain, Location::Absolute] {
        for patch in [None, Some("chunk = 65536\n")] {
            let server = server(Quirks {
                location: location.clone(),
                ..Quirks::default()
            });
            let image = image(19, &[200_000]);
            let config = format!(
                "[registry.\"{}\"]\n{}",
                server.host(),
                patch.unwrap_or_default()
            );
            let rig = Making::default().config(config).build();
            rig.push(&server, "a:1", &image)
                .unwrap_or_else(|error| panic!("{location:?}: {error}\n{}", server.story()));
            assert_holds(&server, "a:1", &image);
        }
    }
}

#[test]
fn an_immutable_image_tag() {
    let server = server(Quirks {
        immutable: true,
        ..Quirks::default()
    });
    let (first, second) = (image(20, &[1000]), image(21, &[1000]));
    let rig = Rig::new();
    rig.push(&server, "a:1", &first).expect("a push");
    // The HEAD that would say that all is there fails: the PUT comes, and is refused.
    server.rule(Rule::once("HEAD /v2/a/manifests/1", 404));
    rig.push(&server, "a:1", &first)
        .expect("it is there already");
    let error = rig
        .push(&server, "a:1", &second)
        .expect_err("it cannot be moved");
    let [old, new] = [&first, &second].map(|it| it.root().digest.to_string());
    assert_says(
        &error,
        &["a", "1", &old, &new, "the image tag is immutable"],
    );
    assert_eq!(error.code(), "imgdecl::registry::immutable");
    assert_eq!(server.tag("a", "1"), Some(first.root().digest));
}

#[test]
fn statuses_that_pass() {
    for status in [408, 429, 499, 500, 502, 503, 504, 522] {
        let server = Server::plain();
        for on in [
            "POST *",
            "PUT *uploads*",
            "PUT *manifests*",
            "HEAD *",
            "GET *manifests*",
            "GET *blobs*",
        ] {
            server.rule(Rule::once(on, status));
        }
        let image = image(22, &[1000]);
        Rig::new()
            .push(&server, "a:1", &image)
            .unwrap_or_else(|error| panic!("{status}: {error}\n{}", server.story()));
        assert_holds(&server, "a:1", &image);
        Rig::new()
            .fetch(&server.reference("a:1"))
            .unwrap_or_else(|error| panic!("{status}: {error}\n{}", server.story()));
    }
}

#[test]
fn answers_that_are_lost() {
    for on in [
        "POST *",
        "PUT *uploads*",
        "PUT *manifests*",
        "HEAD *",
        "GET *manifests*",
        "GET *blobs*",
    ] {
        let server = Server::plain();
        server.rule(Rule {
            lose: true,
            times: Some(1),
            ..Rule::on(on)
        });
        let image = image(23, &[1000]);
        Rig::new()
            .push(&server, "a:1", &image)
            .unwrap_or_else(|error| panic!("{on}: {error}\n{}", server.story()));
        assert_holds(&server, "a:1", &image);
        Rig::new()
            .fetch(&server.reference("a:1"))
            .unwrap_or_else(|error| panic!("{on}: {error}\n{}", server.story()));
    }
}

#[test]
fn a_registry_that_is_broken_is_given_up() {
    for status in [500, 503] {
        let server = Server::plain();
        server.load("a", "1", &image(24, &[10]));
        let body = "{\"errors\":[{\"code\":\"BUSY\",\"message\":\"later,\\u001b[31m please\"}]}";
        server.rule(Rule {
            body: Some(body.to_owned()),
            ..Rule::always("GET *", status)
        });
        let rig = Rig::new();
        let error = rig.client.manifest(&server.reference("a:1"));
        let error = error.expect_err("no answer");
        let status = status.to_string();
        let host = server.host();
        let words = [&status, "BUSY", "later,", "tried 4 times", host, "/a"];
        assert_says(&error, &words);
        assert_eq!(error.code(), "imgdecl::registry::unavailable");
        assert!(!error.to_string().contains('\u{1b}'), "{error:?}");
        assert_eq!(server.count("GET *"), 4, "{}", server.story());
        server.rule(Rule::always("* *", 500));
        let error = rig.push(&server, "a:1", &image(24, &[10]));
        assert_says(
            &error.expect_err("no answer"),
            &["500", "tried 4 times", host],
        );
    }
}

#[test]
fn refusals_are_not_tried_again() {
    for status in [400, 404, 405, 410, 418] {
        let server = Server::plain();
        server.rule(Rule::always("GET /v2/a/manifests/*", status));
        server.rule(Rule::always("HEAD /v2/a/manifests/*", status));
        let error = Rig::new()
            .client
            .manifest(&server.reference("a:1"))
            .expect_err("refused");
        assert_says(&error, &[&status.to_string()]);
        assert!(server.log().len() <= 2, "{}", server.story());
    }
}

#[test]
fn warnings_are_shown_once() {
    let server = Server::plain();
    let image = image(25, &[1000, 1000, 1000]);
    let text = "299 - \"Your image is old\\\". \u{1b}[31mRed\"";
    server.rule(Rule::on("* *").header("Warning", text.replace('\u{1b}', "").as_str()));
    let rig = Rig::new();
    rig.push(&server, "a:1", &image).expect("a push");
    rig.fetch(&server.reference("a:1")).expect("a pull");
    let notes = rig.monitor.notes();
    let shown = notes
        .iter()
        .filter(|it| it.contains("Your image is old"))
        .count();
    assert_eq!(shown, 1, "{notes:?}");
    server.heal();
    server.rule(Rule::on("* *").header("Warning", "199 - \"nothing\""));
    let rig = Rig::new();
    rig.fetch(&server.reference("a:1")).expect("a pull");
    assert_eq!(rig.monitor.notes(), [""; 0]);
}

#[test]
fn what_speaks_no_http() {
    let server = Server::plain();
    server.rule(Rule {
        garbage: Some("SSH-2.0-OpenSSH_9.2\r\n".to_owned()),
        ..Rule::on("* *")
    });
    let begin = Instant::now();
    let error = Rig::new()
        .client
        .resolve(&server.reference("a:1"))
        .expect_err("no registry");
    assert_eq!(error.code(), "imgdecl::registry::connection", "{error}");
    assert_says(&error, &[server.host()]);
    assert!(begin.elapsed() < Duration::from_secs(8));
    let host = server.host().to_owned();
    drop(server);
    let reference = format!("{host}/a:1").parse().expect("a reference");
    let error = Rig::new().client.resolve(&reference).expect_err("nobody");
    assert_says(&error, &[&host, "refused", "tried 4 times"]);
}

#[test]
fn transfers_are_told() {
    let server = Server::plain();
    let image = image(26, &[100_000, 50_000]);
    let rig = Rig::new();
    rig.push(&server, "a:1", &image).expect("a push");
    let (ends, moved) = (rig.monitor.ends(), rig.monitor.moved());
    assert!(ends.iter().all(|it| *it == Ended::Done), "{ends:?}");
    assert!(ends.len() >= 3, "{ends:?}");
    assert!((150_000..160_000).contains(&moved), "{moved}");
    let rig = Rig::new();
    rig.fetch(&server.reference("a:1")).expect("a pull");
    let moved = rig.monitor.moved();
    assert!((150_000..160_000).contains(&moved), "{moved}");
}

#[test]
fn a_proxy_that_takes_small_requests_alone() {
    // nginx takes 1 MiB if nobody says otherwise: `chunk` helps, and the error says so.
    let server = Server::plain();
    server.rule(Rule {
        above: Some(1 << 20),
        ..Rule::always(&format!("* {UPLOADS}"), 413)
    });
    let image = image(27, &[3 << 20]);
    let error = Rig::new().push(&server, "a:1", &image).expect_err("413");
    assert_says(&error, &[server.host(), "413", "`chunk`", "config.toml"]);
    assert_eq!(server.tag("a", "1"), None);
    let config = format!("[registry.\"{}\"]\nchunk = \"512KiB\"\n", server.host());
    let rig = Making::default().config(config).build();
    rig.push(&server, "a:1", &image).expect("a push");
    assert_holds(&server, "a:1", &image);
}
