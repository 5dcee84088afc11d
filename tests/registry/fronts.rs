//! Answers that no registry gives: login pages, proxies and wrong hosts that say 200 or 201 to anything. A push ends well
//! only where all is stored.

use std::sync::Arc;

use imgdecl::parts::oci::Digest;
use imgdecl::parts::registry::RegistryError;

use super::kit::{Making, Rig, assert_holds, assert_says, code, image};
use crate::support::registry::{Authority, Image, PASSWORD, Quirks, Rule, Server, Setup, USER};
use crate::support::{Space, peer};

const PAGE: &str = "<!doctype html>\n<html><head><title>Sign in to Example</title></head></html>";
const UPLOADS: &str = "/v2/*/blobs/uploads/*";

/// A login page, with a status.
fn page(on: &str, status: u16) -> Rule {
    Rule {
        body: Some(PAGE.to_owned()),
        ..Rule::always(on, status).header("Content-Type", "text/html; charset=utf-8")
    }
}

/// A registry that does not look whether a manifest's parts are there: the client alone can see to it.
fn lenient() -> Server {
    Server::start(Setup {
        quirks: Quirks {
            lenient: true,
            ..Quirks::default()
        },
        ..Setup::default()
    })
}

/// What the answers of the table are given to.
const METHODS: [&str; 12] = [
    "* *",
    "HEAD *",
    "GET *",
    "HEAD /v2/*/manifests/*",
    "GET /v2/*/manifests/*",
    "HEAD /v2/*/blobs/*",
    "POST *",
    "PATCH *",
    "PUT *",
    "PUT *uploads*",
    "PUT /v2/*/manifests/*",
    "P*",
];

/// Runs something for each of them, all at the same time: most of it is waiting.
fn each_method(run: impl Fn(&'static str) + Sync) {
    std::thread::scope(|scope| {
        for on in METHODS {
            let run = &run;
            scope.spawn(move || run(on));
        }
    });
}

/// The wrong answers: the registry does not see the request, or says something wrong about it.
fn answers(on: &str) -> Vec<(&'static str, Rule)> {
    let other = Digest::of(b"other").to_string();
    let always = |status| Rule::always(on, status);
    vec![
        ("a page", page(on, 200)),
        ("a page that was created", page(on, 201)),
        ("nothing", always(200)),
        ("nothing that was created", always(201)),
        ("created elsewhere", always(201).header("Location", "/v2/x")),
        ("accepted", always(202)),
        (
            "accepted somewhere",
            always(202).header("Location", "/v2/a/login"),
        ),
        ("no content", always(204)),
        ("partial content", always(206)),
        ("not modified", always(304)),
        ("a redirect without a place", always(307)),
        (
            "a page as JSON",
            Rule {
                body: Some("{}".to_owned()),
                ..always(200)
            },
        ),
        (
            "another digest",
            always(200).header("Docker-Content-Digest", &other),
        ),
        (
            "another digest was created",
            always(201).header("Docker-Content-Digest", &other),
        ),
        (
            "another digest of what is there",
            Rule::on(on).header("Docker-Content-Digest", &other),
        ),
        (
            "no digest of what is there",
            Rule::on(on).without("Docker-Content-Digest"),
        ),
        (
            "a digest of no kind",
            Rule::on(on).header("Docker-Content-Digest", "yes"),
        ),
        (
            "a page's type",
            Rule::on(on).header("Content-Type", "text/html"),
        ),
        (
            "a page's type and no digest",
            Rule::on(on)
                .header("Content-Type", "text/html")
                .without("Docker-Content-Digest"),
        ),
    ]
}

/// Checks what came of a push: it went well and all is there, or it says what was wrong.
#[track_caller]
fn check(case: &str, server: &Server, image: &Image, result: Result<(), RegistryError>) {
    server.check_tags();
    match result {
        Ok(()) => assert_holds(server, "a:1", image),
        Err(error) => {
            assert_says(&error, &[server.host()]);
            let text = error.to_string();
            assert!(
                error.help().is_some() && text.len() < 4_000,
                "{case}: {text}"
            );
            assert!(!text.contains("<html>"), "{case}: {text}");
        }
    }
}

#[test]
fn a_push_ends_well_only_where_all_is_stored() {
    let image = image(200, &[3_000, 50]);
    each_method(|on| {
        for (number, (name, _)) in answers(on).iter().enumerate() {
            for chunk in ["", "chunk = 1000\n"] {
                if on != "PATCH *" && on != "* *" && !chunk.is_empty() {
                    continue;
                }
                let server = lenient();
                server.rule(answers(on).swap_remove(number).1);
                let config = format!("[registry.\"{}\"]\n{chunk}", server.host());
                let rig = Making::default().config(config).build();
                let result = rig.push(&server, "a:1", &image).map(drop);
                let case = format!("{on}: {name}");
                let is_error = result.is_err();
                check(&case, &server, &image, result);
                // A front that answers in place of what stores things cannot be overlooked.
                if matches!(on, "* *" | "P*" | "PUT *") && number < 9 {
                    assert!(is_error, "{case}\n{}", server.story());
                }
                // And what is there must not be hidden by it for good.
                server.heal();
                rig.push(&server, "a:1", &image)
                    .unwrap_or_else(|error| panic!("{case}: {error}\n{}", server.story()));
                assert_holds(&server, "a:1", &image);
            }
        }
    });
}

#[test]
fn a_checked_push_ends_well_only_where_all_is_stored() {
    let image = image(201, &[3_000, 50]);
    let lost = image.parts[0].layers[0].digest;
    each_method(|on| {
        for (number, (name, _)) in answers(on).iter().enumerate() {
            let server = lenient();
            server.load("a", "1", &image);
            server.lose("a", &lost);
            server.rule(answers(on).swap_remove(number).1);
            let result = Rig::new().check(&server, "a:1", &image).map(drop);
            let case = format!("{on}: {name}");
            match result {
                Ok(()) => check(&case, &server, &image, result),
                // The blob was lost before.
                Err(error) => assert_says(&error, &[server.host()]),
            }
        }
    });
}

#[test]
fn a_redirect_to_a_login_page_is_no_registry() {
    let image = image(202, &[3_000, 50]);
    let login = Server::plain();
    login.rule(page("* *", 200));
    for status in [301, 302, 303, 307, 308] {
        for on in METHODS {
            let server = lenient();
            let to = format!("http://{}/login?token=opaque.42", login.host());
            server.rule(Rule::always(on, status).header("Location", &to));
            let result = Rig::new().push(&server, "a:1", &image).map(drop);
            let case = format!("{status} of {on}");
            if matches!(on, "* *" | "P*" | "PUT *" | "POST *") {
                let error = result.as_ref().expect_err(&case);
                assert_eq!(code(error), "imgdecl::registry::answer", "{case}: {error}");
                assert_says(
                    error,
                    &["/login", "login page", login.host()][..if status < 304 { 3 } else { 0 }],
                );
            }
            check(&case, &server, &image, result);
        }
    }
}

#[test]
fn an_error_says_what_answered_and_what_to_do() {
    let server = Server::plain();
    server.rule(page("* *", 200));
    let rig = Rig::new();
    let error = rig
        .push(&server, "a:1", &image(203, &[3_000]))
        .expect_err("a page");
    let words = [
        "200",
        "text/html",
        "202",
        "Sign in to Example",
        "proxy",
        "log in",
    ];
    assert_says(&error, &words);
    assert_eq!(code(&error), "imgdecl::registry::answer");
    let notes = rig.monitor.notes();
    assert!(
        notes
            .iter()
            .any(|it| it.contains("text/html") && it.contains("not there")),
        "{notes:?}"
    );
    // Who only asks gets no answer to take for one.
    let blobs = image(203, &[3_000]).parts[0].layers.clone();
    let at = server.reference("a:1");
    let asked = [
        rig.client.has(&at).map(drop),
        rig.client.lacks(&at, &blobs).map(drop),
    ];
    for asked in asked {
        let error = asked.expect_err("a page");
        assert_eq!(code(&error), "imgdecl::registry::answer");
        assert_says(&error, &["text/html"]);
    }
    // Pulls say it, too.
    for name in ["a:1".to_owned(), format!("a@{}", Digest::of(b"x"))] {
        let error = rig
            .client
            .manifest(&server.reference(&name))
            .expect_err("a page");
        assert_says(&error, &["text/html", "no registry's"]);
    }
    let blob = image(203, &[3_000]).parts[0].layers[0].clone();
    let error = rig.pull(&server, &blob).expect_err("a page");
    assert_says(&error, &["text/html", "no registry's"]);
    let error = rig
        .client
        .document(&server.reference("a"), &blob)
        .expect_err("a page");
    assert_says(&error, &["text/html", "no registry's"]);
}

#[test]
fn the_binary_ends_with_3_at_a_login_page() {
    let server = Server::plain();
    server.rule(page("* *", 200));
    let space = Space::new();
    space.write(
        "image.toml",
        format!(
            "[image.x]\nbase = \"scratch\"\nrepository = \"{}/r\"\nlayers = [{{ files = {{ text = {{ \"/f\" = \"x\" }} }} }}]\n",
            server.host()
        ),
    );
    space.ok(&["build"]);
    for args in [
        &["build", "--push"][..],
        &["build", "--push", "--check"],
        &["push"],
        &["push", "--check", "--tag", "v2"],
    ] {
        let output = space.run(args);
        assert_eq!(output.status, 3, "{args:?}: {}", output.stderr);
        for word in [
            "imgdecl::registry::answer",
            "text/html",
            "Sign in to Example",
        ] {
            assert!(output.stderr.contains(word), "{args:?}: {}", output.stderr);
        }
    }
    let output = space.run(&["push", "--from", "nothing", "--check"]);
    assert_ne!(output.status, 0, "{}", output.stderr);
    let output = space.run(&["build", "--check"]);
    assert_eq!(output.status, 2, "{}", output.stderr);
}

/// Two servers that hold the same: requests to the first are sent on to the second.
fn forwarding(on: &str, status: u16) -> (Server, Server) {
    let second = Server::plain();
    let first = Server::start(Setup {
        holds: second.share(),
        ..Setup::default()
    });
    let to = format!("http://{}[PATH]", second.host());
    first.rule(Rule::always(on, status).header("Location", &to));
    (first, second)
}

#[test]
fn redirects_of_uploads_are_followed() {
    let image = image(204, &[300_000, 20]);
    for status in [307, 308] {
        for (on, chunk) in [
            ("POST *", ""),
            ("PUT *uploads*", ""),
            ("PUT /v2/*/manifests/*", ""),
            ("PATCH *", "chunk = 100000\n"),
            ("P*", "chunk = 100000\n"),
            ("* *", ""),
        ] {
            let (first, second) = forwarding(on, status);
            let config = format!("[registry.\"{}\"]\n{chunk}", first.host());
            let rig = Making::login(&[first.host()]).config(config).build();
            let pushed = rig.push(&first, "a:1", &image);
            pushed.unwrap_or_else(|error| {
                panic!(
                    "{status} of {on}: {error}\n{}{}",
                    first.story(),
                    second.story()
                )
            });
            assert_holds(&second, "a:1", &image);
            assert!(!second.log().is_empty(), "{on}: {}", first.story());
        }
    }
}

#[test]
fn a_redirected_upload_brings_no_credentials_elsewhere() {
    use crate::support::registry::Auth;
    let image = image(205, &[100_000]);
    let second = Server::plain();
    let first = Server::start(Setup {
        holds: second.share(),
        auth: Auth::basic(USER, PASSWORD),
        ..Setup::default()
    });
    let to = format!("http://{}[PATH]", second.host());
    // Only who is known is sent on.
    first.rule(Rule {
        has: Some("authorization".to_owned()),
        ..Rule::always("P*", 307).header("Location", &to)
    });
    Rig::login(&first)
        .push(&first, "a:1", &image)
        .unwrap_or_else(|error| panic!("{error}\n{}{}", first.story(), second.story()));
    assert_holds(&second, "a:1", &image);
    for logged in second.log() {
        assert_eq!(
            logged.request.header("authorization"),
            None,
            "{}",
            logged.line()
        );
    }
}

#[test]
fn redirects_of_uploads_end() {
    let server = Server::plain();
    server.rule(Rule::always("POST *", 307).header("Location", "[PATH]"));
    let error = Rig::new()
        .push(&server, "a:1", &image(206, &[10]))
        .expect_err("a circle");
    assert_says(&error, &["more redirects"]);
    assert!(server.count("POST *") <= 32, "{}", server.story());
    if peer("openssl").is_none() {
        return;
    }
    let space = Space::new();
    let authority = Authority::make(space.path());
    let plain = Server::plain();
    let server = Server::start(Setup {
        tls: Some(Arc::new(authority.server())),
        ..Setup::default()
    });
    // Not even to a host that may be spoken to in the open.
    let to = format!("http://{}[PATH]", plain.host());
    for on in ["POST *", "PUT *"] {
        server.heal();
        server.rule(Rule::always(on, 307).header("Location", &to));
        let config = format!(
            "[registry.\"{}\"]\nca = \"{}\"\n[registry.\"{}\"]\ninsecure = true\n",
            server.host(),
            authority.ca.display(),
            plain.host()
        );
        let error = Making::default().config(config).build();
        let error = error
            .push(&server, "a:1", &image(206, &[10]))
            .expect_err("plain HTTP");
        assert_eq!(code(&error), "imgdecl::registry::unsafe", "{error}");
        assert!(plain.log().is_empty(), "{}", plain.story());
    }
}

#[test]
fn redirects_that_would_change_the_method_are_told() {
    for status in [301, 302, 303] {
        for on in ["POST *", "PUT *uploads*", "PUT /v2/*/manifests/*"] {
            let server = Server::plain();
            let to = "https://user:opaque.1@new.example/v2/x?token=opaque.2#f";
            server.rule(Rule::always(on, status).header("Location", to));
            let error = Rig::new()
                .push(&server, "a:1", &image(207, &[10]))
                .expect_err(on);
            assert_eq!(code(&error), "imgdecl::registry::answer", "{error}");
            assert_says(
                &error,
                &[
                    &status.to_string(),
                    "https://new.example/v2/",
                    "`repository`",
                ],
            );
            assert_eq!(server.tag("a", "1"), None);
        }
    }
}

#[test]
fn what_a_registry_says_is_shown() {
    for (body, expected) in [
        (
            r#"{"errors":[{"code":"DENIED","message":"quota"}]}"#,
            "DENIED: quota",
        ),
        (
            "the quota of this project is full\nand more",
            "the quota of this project is full",
        ),
        (PAGE, "Sign in to Example"),
        (r#"{"detail":"the quota is full"}"#, "the quota is full"),
    ] {
        for on in ["POST *", "PUT *uploads*", "PUT /v2/*/manifests/*"] {
            let server = Server::plain();
            server.rule(Rule {
                body: Some(body.to_owned()),
                ..Rule::always(on, 418)
            });
            let error = Rig::new()
                .push(&server, "a:1", &image(208, &[10]))
                .expect_err("418");
            assert_says(&error, &["418", expected]);
        }
    }
}

#[test]
fn a_416_is_tried_once_more_at_most() {
    let text = "the request body is too large";
    let config =
        |server: &Server, size: u32| format!("[registry.\"{}\"]\nchunk = {size}\n", server.host());
    let image = image(209, &[100_000]);
    // About the size of what was sent: another try of the same size is of no use.
    for (on, chunk) in [("PUT *uploads*", 0), ("PATCH *", 40_000)] {
        let server = Server::plain();
        server.rule(Rule {
            body: Some(text.to_owned()),
            above: Some(1_000),
            ..Rule::always(on, 416).header("Content-Type", "text/plain")
        });
        let rig = match chunk {
            0 => Rig::new(),
            chunk => Making::default().config(config(&server, chunk)).build(),
        };
        let error = rig.push(&server, "a:1", &image).expect_err("416");
        assert_says(&error, &["416", text, "`chunk`"]);
        assert_eq!(
            server.seen(on).iter().filter(|it| it.status == 416).count(),
            1,
            "{}",
            server.story()
        );
    }
    // About something else: one more try.
    for (on, chunk) in [("PUT *uploads*", 0), ("PATCH *", 40_000)] {
        let server = Server::plain();
        server.rule(Rule::always(on, 416));
        let rig = match chunk {
            0 => Rig::new(),
            chunk => Making::default().config(config(&server, chunk)).build(),
        };
        let error = rig
            .push(&server, "a:1", &super::kit::image(209, &[100_000]))
            .expect_err("416");
        assert_says(&error, &["416"]);
        let large = server
            .seen(on)
            .iter()
            .filter(|it| it.received > 1_000)
            .count();
        assert_eq!(large, 2, "{}", server.story());
    }
    // A session that is elsewhere says so when it is asked, and goes on there.
    let server = Server::plain();
    server.rule(Rule {
        nth: 2,
        ..Rule::once("PATCH *", 416)
    });
    let rig = Making::default().config(config(&server, 40_000)).build();
    rig.push(&server, "a:1", &image)
        .unwrap_or_else(|error| panic!("{error}\n{}", server.story()));
    assert_holds(&server, "a:1", &image);
    assert_eq!(
        server.count(&format!("GET {UPLOADS}")),
        1,
        "{}",
        server.story()
    );
    assert_eq!(server.count("PATCH *"), 4, "{}", server.story());
}

#[test]
fn registries_that_say_little_are_asked() {
    // 202 to a manifest, as Quay; 204 to a blob, as the first registries; no digest at all.
    for (on, status) in [
        ("PUT /v2/*/manifests/*", 202),
        ("PUT *uploads*", 204),
        ("PUT *uploads*", 202),
        ("PUT *", 200),
    ] {
        for says in [true, false] {
            let server = lenient();
            let mut rule = Rule {
                after: Some(status),
                ..Rule::on(on)
            };
            if !says {
                rule = rule.without("Docker-Content-Digest");
                server.rule(Rule::on("HEAD *").without("Docker-Content-Digest"));
            }
            server.rule(rule);
            let image = image(210, &[3_000]);
            Rig::new()
                .push(&server, "a:1", &image)
                .unwrap_or_else(|error| panic!("{on} {status}: {error}\n{}", server.story()));
            assert_holds(&server, "a:1", &image);
        }
    }
    // Neither digest nor size: the blob is read back.
    let server = lenient();
    server.rule(Rule::on("* *").without("Docker-Content-Digest"));
    server.rule(Rule::on("HEAD *blobs*").header("Transfer-Encoding", "chunked"));
    let image = image(211, &[3_000]);
    Rig::new()
        .push(&server, "a:1", &image)
        .unwrap_or_else(|error| panic!("{error}\n{}", server.story()));
    assert_holds(&server, "a:1", &image);
    assert_eq!(server.count("GET /v2/a/blobs/*"), 2, "{}", server.story());
}
