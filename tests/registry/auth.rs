//! Logins: what is asked of whom, what is sent where, and that a secret never reaches another host.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use imgdecl::parts::registry::Limits;
use serde_json::json;

use super::kit::{Bytes, Making, Rig, assert_holds, assert_says, auth, code, image, limits};
use crate::support::registry::{Auth, Kind, Location, PASSWORD, Quirks, Rule, Server, Setup, USER};

fn server(auth: Auth) -> Server {
    Server::start(Setup {
        auth,
        ..Setup::default()
    })
}

fn token() -> Auth {
    Auth::token(USER, PASSWORD)
}

/// The headers `Authorization` that came with requests of a pattern.
fn authorizations(server: &Server, pattern: &str) -> Vec<Option<String>> {
    let header = |it: &crate::support::registry::Logged| {
        it.request.header("authorization").map(str::to_owned)
    };
    server.seen(pattern).iter().map(header).collect()
}

#[track_caller]
fn assert_no_authorization(server: &Server) {
    let headers = authorizations(server, "* *");
    assert!(!headers.is_empty(), "it was not asked at all");
    assert!(
        headers.iter().all(Option::is_none),
        "{headers:?}\n{}",
        server.story()
    );
}

#[test]
fn anyone_pulls() {
    let server = server(token());
    let image = image(30, &[1000, 2000, 3000, 4000, 5000, 6000]);
    server.load("a", "1", &image);
    Rig::new().fetch(&server.reference("a:1")).expect("a pull");
    let asked = server.seen("GET /token*");
    assert_eq!(asked.len(), 1, "one token is enough\n{}", server.story());
    let scopes: Vec<_> = asked[0]
        .request
        .query()
        .into_iter()
        .filter(|(key, _)| key == "scope")
        .collect();
    assert_eq!(
        scopes,
        [("scope".to_owned(), "repository:a:pull".to_owned())]
    );
    assert_eq!(asked[0].request.header("authorization"), None);
}

#[test]
fn a_login_pushes() {
    for auth in [
        token(),
        Auth {
            anonymous: false,
            ..token()
        },
        Auth::basic(USER, PASSWORD),
    ] {
        let server = server(auth.clone());
        let image = image(31, &[1000, 2000, 3000, 4000]);
        Rig::login(&server)
            .push(&server, "a:1", &image)
            .expect("a push");
        assert_holds(&server, "a:1", &image);
        Rig::login(&server)
            .fetch(&server.reference("a:1"))
            .expect("a pull");
        let refused = server.log().iter().filter(|it| it.status == 401).count();
        assert!(refused <= 4, "{}", server.story());
        if auth.kind == Kind::Token {
            // One for reading and one for writing each, at most.
            assert!(server.count("GET /token*") <= 4, "{}", server.story());
            let basic = authorizations(&server, "* /v2/*").into_iter().flatten();
            assert!(
                basic.into_iter().all(|it| it.starts_with("Bearer ")),
                "a password left the token server"
            );
        }
    }
}

#[test]
fn without_a_login() {
    for auth in [token(), Auth::basic(USER, PASSWORD)] {
        let server = server(auth);
        let error = Rig::new().push(&server, "team/app:1", &image(32, &[10]));
        let error = error.expect_err("a login is needed");
        assert_eq!(code(&error), "imgdecl::registry::unauthorised", "{error:?}");
        assert_says(
            &error,
            &[
                server.host(),
                "team/app",
                "401",
                "auth.json",
                "docker login",
            ],
        );
        assert!(server.log().len() <= 12, "{}", server.story());
    }
}

#[test]
fn with_a_wrong_login() {
    for auth in [
        token(),
        Auth {
            anonymous: false,
            ..token()
        },
        Auth::basic(USER, PASSWORD),
    ] {
        let server = server(auth);
        let making = Making {
            auths: BTreeMap::from([(server.host().to_owned(), super::kit::auth(USER, "hunter2"))]),
            ..Making::default()
        };
        let error = making
            .build()
            .push(&server, "team/app:1", &image(33, &[10]));
        let error = error.expect_err("the login is wrong");
        assert_eq!(code(&error), "imgdecl::registry::unauthorised", "{error:?}");
        assert_says(&error, &[server.host(), "team/app", "401", "auth.json"]);
        assert!(!format!("{error:?}{error}").contains("hunter2"));
        assert!(server.log().len() <= 12, "{}", server.story());
    }
}

#[test]
fn a_wrong_login_does_not_hide_a_public_image() {
    let server = server(token());
    server.load("a", "1", &image(34, &[1000]));
    let making = Making {
        auths: BTreeMap::from([(server.host().to_owned(), auth(USER, "hunter2"))]),
        ..Making::default()
    };
    let rig = making.build();
    rig.fetch(&server.reference("a:1"))
        .unwrap_or_else(|error| panic!("{error}\n{}", server.story()));
    let notes = rig.monitor.notes();
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(
        notes[0].contains(server.host()) && !notes[0].contains("hunter2"),
        "{notes:?}"
    );
}

#[test]
fn a_get_is_open_where_a_post_is_not() {
    // The first challenge comes with the POST: all before was open.
    let server = server(Auth {
        kind: Kind::Open,
        ..token()
    });
    let other = Server::start(Setup {
        auth: token(),
        ..Setup::default()
    });
    let challenge = format!(
        "Bearer realm=\"http://{}/token\",service=\"fault, \\\"server\\\"\",scope=\"repository:a:pull,push\"",
        other.host()
    );
    server.rule(Rule::once("POST *", 401).header("WWW-Authenticate", &challenge));
    server.rule(Rule::once("PUT *manifests*", 401).header("WWW-Authenticate", &challenge));
    let image = image(35, &[1000]);
    // One request at a time: else some are under way when the challenge comes.
    let config = format!("[registry.\"{}\"]\nconcurrency = 1\n", server.host());
    Making::login(&[server.host(), other.host()])
        .config(config)
        .build()
        .push(&server, "a:1", &image)
        .expect("a push");
    assert_holds(&server, "a:1", &image);
    assert!(
        authorizations(&server, "PUT *").iter().all(Option::is_some),
        "{}",
        server.story()
    );
}

#[test]
fn a_token_that_grants_too_little() {
    for forbidden in [false, true] {
        let server = server(Auth {
            forbidden,
            ..token()
        });
        let image = image(36, &[1000]);
        let rig = Rig::login(&server);
        server.load("a", "0", &image);
        // First a token that can only pull.
        rig.fetch(&server.reference("a:0")).expect("a pull");
        let image = super::kit::image(37, &[1000]);
        rig.push(&server, "a:1", &image)
            .unwrap_or_else(|error| panic!("{forbidden}: {error}\n{}", server.story()));
        assert_holds(&server, "a:1", &image);
    }
    let server = server(Auth {
        denied: vec!["a:push".to_owned()],
        forbidden: true,
        ..token()
    });
    let error = Rig::login(&server)
        .push(&server, "a:1", &image(38, &[10]))
        .expect_err("never granted");
    assert_says(&error, &[server.host(), "/a", "403"]);
    assert!(server.log().len() <= 20, "{}", server.story());
}

#[test]
fn the_missing_scope_comes_first() {
    // A server that reads one scope only: a mount needs two, and the push must not fail for it.
    let server = server(Auth {
        first_scope: true,
        ..token()
    });
    let image = image(39, &[1000]);
    server.load("base", "1", &image);
    let layer = image.parts[0].layers[0].digest;
    let blobs = Bytes::of(&[&image]).origin(layer, server.reference("base"));
    let results = Rig::login(&server).push_from(&[(server.reference("a:1"), &image)], &blobs);
    results[0]
        .as_ref()
        .unwrap_or_else(|error| panic!("{error}\n{}", server.story()));
    assert_holds(&server, "a:1", &image);
}

#[test]
fn a_mount_asks_for_both_scopes() {
    let server = server(Auth {
        anonymous: false,
        ..token()
    });
    let image = image(40, &[1000]);
    server.load("base", "1", &image);
    let layer = image.parts[0].layers[0].digest;
    let blobs = Bytes::of(&[&image]).origin(layer, server.reference("base"));
    let results = Rig::login(&server).push_from(&[(server.reference("a:1"), &image)], &blobs);
    let pushed = results[0].as_ref().expect("a push");
    assert_eq!(pushed.mounted, 1000, "{}", server.story());
    let asked = server.seen("GET /token*");
    let both = asked.iter().any(|it| {
        let scopes: Vec<String> = it
            .request
            .query()
            .into_iter()
            .filter(|(key, _)| key == "scope")
            .map(|(_, value)| value)
            .collect();
        scopes
            .iter()
            .any(|it| it.starts_with("repository:a:") && it.contains("push"))
            && scopes.iter().any(|it| it == "repository:base:pull")
    });
    assert!(both, "{}", server.story());
}

#[test]
fn a_token_that_expires_under_a_push() {
    // Each token is good for three requests: it dies in the middle of any push.
    let server = server(Auth {
        uses: Some(3),
        ..token()
    });
    let image = image(41, &[100_000, 200_000, 300_000, 10, 20, 30]);
    // One request at a time: else the others use a new token up before its first request comes through.
    let config = format!("[registry.\"{}\"]\nconcurrency = 1\n", server.host());
    let rig = || Making::login(&[server.host()]).config(&config).build();
    rig()
        .push(&server, "a:1", &image)
        .unwrap_or_else(|error| panic!("{error}\n{}", server.story()));
    assert_holds(&server, "a:1", &image);
    rig()
        .fetch(&server.reference("a:1"))
        .unwrap_or_else(|error| panic!("{error}\n{}", server.story()));
}

#[test]
fn a_token_that_expires_under_a_long_upload() {
    let server = server(token());
    server.rule(Rule::once("PUT *uploads*", 401).header("WWW-Authenticate", &challenge(&server)));
    let image = image(42, &[500_000]);
    let blobs = Bytes::of(&[&image]);
    let results = Rig::login(&server).push_from(&[(server.reference("a:1"), &image)], &blobs);
    results[0]
        .as_ref()
        .unwrap_or_else(|error| panic!("{error}\n{}", server.story()));
    assert_holds(&server, "a:1", &image);
    // The blob was sent again, in a session of its own, with a token that is not the old one.
    let puts = server.seen("PUT *uploads*");
    let refused = puts.iter().find(|it| it.status == 401).expect("the rule");
    let same = puts
        .iter()
        .filter(|it| it.request.path() == refused.request.path())
        .count();
    assert_eq!(same, 1, "{}", server.story());
    let old = refused.request.header("authorization").map(str::to_owned);
    let digest = refused.request.asks("digest");
    let again = puts
        .iter()
        .find(|it| it.request.asks("digest") == digest && it.status == 201);
    let new = again
        .expect("it was sent again")
        .request
        .header("authorization")
        .map(str::to_owned);
    assert_ne!(old, new);
}

fn challenge(server: &Server) -> String {
    format!(
        "Bearer realm=\"http://{}/token\",service=\"fault, \\\"server\\\"\",scope=\"repository:a:pull,push\",error=\"invalid_token\"",
        server.host()
    )
}

#[test]
fn a_token_that_expires_again_and_again() {
    let server = server(token());
    server.rule(Rule::always("PUT *uploads*", 401).header("WWW-Authenticate", &challenge(&server)));
    let error = Rig::login(&server).push(&server, "a:1", &image(43, &[200_000]));
    let error = error.expect_err("no token is good");
    assert_eq!(code(&error), "imgdecl::registry::unauthorised", "{error:?}");
    assert!(server.count("PUT *uploads*") <= 12, "{}", server.story());

    let server = self::server(Auth {
        uses: Some(0),
        ..token()
    });
    server.load("a", "1", &image(43, &[10]));
    let error = Rig::new()
        .fetch(&server.reference("a:1"))
        .expect_err("no token is good");
    assert_eq!(code(&error), "imgdecl::registry::unauthorised", "{error:?}");
    assert!(server.count("GET /token*") <= 6, "{}", server.story());
}

#[test]
fn tokens_of_every_kind() {
    for auth in [
        Auth {
            field: "access_token",
            ..token()
        },
        Auth {
            expires_in: None,
            ..token()
        },
        Auth {
            expires_in: Some(0),
            ..token()
        },
        Auth {
            expires_in: Some(31),
            lifetime: Duration::from_millis(1500),
            ..token()
        },
        Auth {
            expires_in: Some(u64::MAX),
            ..token()
        },
        Auth {
            challenges: vec![
                "Negotiate".to_owned(),
                "Basic realm=\"x, Bearer realm=\"".to_owned(),
            ],
            ..token()
        },
        Auth {
            challenges: vec!["Digest a=\"b\", c=d, NTLM".to_owned()],
            ..token()
        },
    ] {
        let told = format!("{auth:?}");
        let server = server(auth);
        let image = image(44, &[1000, 2000]);
        let rig = Rig::login(&server);
        rig.push(&server, "a:1", &image)
            .unwrap_or_else(|error| panic!("{told}: {error}\n{}", server.story()));
        assert_holds(&server, "a:1", &image);
    }
}

#[test]
fn tokens_are_renewed_before_they_expire() {
    // It says that it lives for 31 s: 30 s early means after 1 s.
    let server = server(Auth {
        expires_in: Some(61),
        ..token()
    });
    let rig = Rig::new();
    server.load("a", "1", &image(45, &[10]));
    rig.fetch(&server.reference("a:1")).expect("a pull");
    rig.fetch(&server.reference("a:1")).expect("a pull");
    assert_eq!(server.count("GET /token*"), 1, "{}", server.story());
}

#[test]
fn answers_of_token_servers_that_are_none() {
    let cases: [(&str, Rule); 6] = [
        (
            "no JSON",
            Rule {
                body: Some("<html>".to_owned()),
                ..Rule::always("GET /token*", 200)
            },
        ),
        (
            "no token",
            Rule {
                body: Some("{}".to_owned()),
                ..Rule::always("GET /token*", 200)
            },
        ),
        (
            "too long",
            Rule {
                body: Some(format!("{{\"token\":\"{}\"}}", "x".repeat(1 << 20))),
                ..Rule::always("GET /token*", 200)
            },
        ),
        (
            "no header",
            Rule {
                body: Some("{\"token\":\"a\\nb\"}".to_owned()),
                ..Rule::always("GET /token*", 200)
            },
        ),
        ("broken", Rule::always("GET /token*", 500)),
        (
            "silent",
            Rule {
                hang: true,
                ..Rule::on("GET /token*")
            },
        ),
    ];
    for (name, rule) in cases {
        let server = server(token());
        server.load("a", "1", &image(46, &[10]));
        server.rule(rule);
        let begin = Instant::now();
        let error = Rig::new().fetch(&server.reference("a:1")).expect_err(name);
        assert_says(&error, &[server.host()]);
        assert!(
            begin.elapsed() < Duration::from_secs(8),
            "{name}: {:?}",
            begin.elapsed()
        );
        assert!(
            server.count("GET /token*") <= 5,
            "{name}: {}",
            server.story()
        );
    }
}

#[test]
fn identity_tokens() {
    for post in [None, Some(400), Some(401), Some(404), Some(405)] {
        let server = server(Auth {
            post,
            identity: Some("identity-secret".to_owned()),
            anonymous: false,
            ..token()
        });
        let making = Making {
            auths: BTreeMap::from([(
                server.host().to_owned(),
                json!({ "identitytoken": "identity-secret" }),
            )]),
            ..Making::default()
        };
        let image = image(47, &[1000]);
        making
            .build()
            .push(&server, "a:1", &image)
            .unwrap_or_else(|error| panic!("{post:?}: {error}\n{}", server.story()));
        assert_holds(&server, "a:1", &image);
        assert!(server.count("POST /token") > 0);
        assert_eq!(
            server.count("GET /token*") > 0,
            post.is_some(),
            "{}",
            server.story()
        );
        assert_eq!(server.count("*identity-secret*"), 0, "a secret in a URL");
    }
}

#[test]
fn a_redirect_gets_no_authorization() {
    for status in [301, 302, 303, 307, 308] {
        let image = image(48, &[200_000, 10]);
        let store = Server::start(Setup {
            quirks: Quirks {
                refuse_authorization: true,
                ..Quirks::default()
            },
            ..Setup::default()
        });
        store.load("a", "1", &image);
        for auth in [token(), Auth::basic(USER, PASSWORD)] {
            let server = server(auth);
            server.load("a", "1", &image);
            let to = format!("http://{}[PATH]", store.host());
            server.rule(Rule::always("GET /v2/*/blobs/*", status).header("Location", &to));
            // A cut on the way is resumed through the same redirect.
            store.heal();
            store.rule(Rule {
                cut: Some(50_000),
                times: Some(1),
                ..Rule::on("GET *")
            });
            let rig = Making::login(&[server.host(), store.host()]).build();
            rig.fetch(&server.reference("a:1")).unwrap_or_else(|error| {
                panic!("{status}: {error}\n{}{}", server.story(), store.story())
            });
            assert_no_authorization(&store);
        }
    }
    // A path on the same server: there it is right, and needed.
    let server = server(Auth::basic(USER, PASSWORD));
    let image = image(49, &[1000]);
    server.load("a", "1", &image);
    server.load("b", "1", &image);
    let digest = image.parts[0].layers[0].digest;
    let path = format!("/v2/b/blobs/{digest}");
    server.rule(Rule::always(&format!("GET /v2/a/blobs/{digest}"), 307).header("Location", &path));
    let found = Rig::login(&server).fetch(&server.reference("a:1"));
    found.unwrap_or_else(|error| panic!("{error}\n{}", server.story()));
    let sent = authorizations(&server, &format!("GET {path}"));
    assert!(matches!(&sent[..], [Some(_)]), "{}", server.story());
}

#[test]
fn redirects_end() {
    let server = Server::plain();
    server.load("a", "1", &image(50, &[10]));
    server.rule(Rule::always("GET *", 307).header("Location", "[PATH]"));
    server.rule(Rule::always("HEAD *", 307).header("Location", "[PATH]"));
    let error = Rig::new()
        .fetch(&server.reference("a:1"))
        .expect_err("a circle");
    assert_says(&error, &[server.host()]);
    assert!(server.log().len() <= 100, "{} requests", server.log().len());
    // To where no one should go: another scheme, and a link-local address, as clouds have them for their secrets.
    for to in [
        "file:///etc/passwd",
        "http://169.254.169.254/latest",
        "ftp://127.0.0.1/x",
    ] {
        server.heal();
        server.rule(Rule::always("GET *", 307).header("Location", to));
        server.rule(Rule::always("HEAD *", 307).header("Location", to));
        let begin = Instant::now();
        Rig::new().fetch(&server.reference("a:1")).expect_err(to);
        assert!(begin.elapsed() < Duration::from_secs(10), "{to}");
    }
}

#[test]
fn an_upload_elsewhere_gets_no_authorization() {
    for chunk in ["", "chunk = 65536\n"] {
        let elsewhere = Server::start(Setup {
            quirks: Quirks {
                refuse_authorization: true,
                ..Quirks::default()
            },
            ..Setup::default()
        });
        let server = Server::start(Setup {
            quirks: Quirks {
                location: Location::Other(elsewhere.host().to_owned()),
                ..Quirks::default()
            },
            auth: token(),
            holds: elsewhere.share(),
            ..Setup::default()
        });
        let config = format!("[registry.\"{}\"]\n{chunk}", server.host());
        let image = image(51, &[200_000]);
        let rig = Making::login(&[server.host(), elsewhere.host()])
            .config(config)
            .build();
        rig.push(&server, "a:1", &image)
            .unwrap_or_else(|error| panic!("{error}\n{}{}", server.story(), elsewhere.story()));
        assert_holds(&server, "a:1", &image);
        assert_no_authorization(&elsewhere);
        assert_eq!(server.count("PUT *uploads*"), 0);
    }
}

#[test]
fn a_realm_elsewhere_gets_the_login_and_no_token() {
    let tokens = server(Auth {
        anonymous: false,
        ..token()
    });
    let server = server(Auth {
        realm: Some(format!("http://{}/token", tokens.host())),
        anonymous: false,
        ..token()
    });
    let image = image(52, &[1000]);
    let rig = Making::login(&[server.host()]).build();
    rig.push(&server, "a:1", &image)
        .unwrap_or_else(|error| panic!("{error}\n{}{}", server.story(), tokens.story()));
    assert_holds(&server, "a:1", &image);
    let sent = authorizations(&tokens, "* *");
    assert!(!sent.is_empty());
    assert!(
        sent.iter().flatten().all(|it| it.starts_with("Basic ")),
        "{sent:?}"
    );
    let sent = authorizations(&server, "* *");
    assert!(
        sent.iter().flatten().all(|it| it.starts_with("Bearer ")),
        "{sent:?}"
    );
}

#[test]
fn a_token_server_that_leads_elsewhere() {
    let thief = Server::plain();
    let server = server(Auth {
        anonymous: false,
        ..token()
    });
    let to = format!("http://{}[PATH]", thief.host());
    server.rule(Rule::always("* /token*", 307).header("Location", &to));
    let rig = Making::login(&[server.host(), thief.host()]).build();
    rig.push(&server, "a:1", &image(53, &[10]))
        .expect_err("there is no token");
    let sent = authorizations(&thief, "* *");
    assert!(sent.iter().all(Option::is_none), "{sent:?}");
    for logged in thief.log() {
        assert_eq!(logged.received, 0, "a form went to another host");
    }
}

#[test]
fn realms_that_are_not_to_be_trusted() {
    for realm in [
        "http://auth.example.com/token",
        "http://10.0.0.1/token",
        "https://10.0.0.1/token",
        "https://169.254.169.254/latest/meta-data",
        "https://[fe80::1]/token",
        "ftp://127.0.0.1/token",
        "token",
    ] {
        let server = server(Auth {
            realm: Some(realm.to_owned()),
            ..token()
        });
        server.load("a", "1", &image(54, &[10]));
        let begin = Instant::now();
        let error = Rig::login(&server)
            .fetch(&server.reference("a:1"))
            .expect_err(realm);
        assert_eq!(
            code(&error),
            "imgdecl::registry::unsafe",
            "{realm}: {error:?}"
        );
        assert_says(&error, &[server.host(), realm]);
        assert!(begin.elapsed() < Duration::from_secs(1), "{realm}");
    }
}

#[test]
fn a_mirror_gets_no_login_of_the_registry() {
    let image = image(55, &[200_000, 1000]);
    let server = server(Auth {
        anonymous: false,
        ..token()
    });
    server.load("team/app", "1", &image);
    let mirror = Server::plain();
    mirror.load("team/app", "1", &image);
    let config = format!(
        "[registry.\"{}\"]\nmirrors = [\"{}\"]\n",
        server.host(),
        mirror.host()
    );
    let rig = Making::login(&[server.host()]).config(&config).build();
    rig.fetch(&server.reference("team/app:1"))
        .unwrap_or_else(|error| panic!("{error}\n{}{}", server.story(), mirror.story()));
    assert_no_authorization(&mirror);
    assert!(
        mirror.count("GET /v2/team/app/blobs/*") >= 2,
        "{}",
        mirror.story()
    );
    assert_eq!(
        server.count("GET /v2/team/app/blobs/*"),
        0,
        "{}",
        server.story()
    );
    for logged in mirror.seen("GET *") {
        assert_eq!(
            logged.request.asks("ns").as_deref(),
            Some(server.host()),
            "{}",
            logged.line()
        );
    }

    // A mirror that wants a login gets its own, and that of the registry never.
    let mirror = self::server(Auth::basic(USER, PASSWORD));
    mirror.load("team/app", "1", &image);
    let config = format!(
        "[registry.\"{}\"]\nmirrors = [\"{}\"]\n",
        server.host(),
        mirror.host()
    );
    let rig = Making::login(&[server.host()]).config(&config).build();
    server.rewind();
    rig.fetch(&server.reference("team/app:1"))
        .expect("the registry itself");
    assert_no_authorization(&mirror);
    assert!(server.count("GET /v2/team/app/blobs/*") >= 2);
    let rig = Making::login(&[server.host(), mirror.host()])
        .config(&config)
        .build();
    server.rewind();
    rig.fetch(&server.reference("team/app:1"))
        .expect("the mirror");
    assert!(
        mirror
            .seen("GET /v2/team/app/blobs/*")
            .iter()
            .any(|it| it.status == 200)
    );
    assert_eq!(
        server.count("GET /v2/team/app/blobs/*"),
        0,
        "{}",
        server.story()
    );
}

#[test]
fn a_silent_registry_is_left_at_once_when_the_user_stops() {
    let server = Server::plain();
    server.load("a", "1", &image(56, &[10]));
    server.rule(Rule {
        hang: true,
        ..Rule::on("* *")
    });
    let rig = Making {
        limits: Some(Limits {
            idle: Duration::from_secs(60),
            ..limits()
        }),
        ..Making::default()
    }
    .build();
    let begin = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(150));
            rig.monitor.stop();
        });
        let error = rig.fetch(&server.reference("a:1")).expect_err("stopped");
        assert_eq!(code(&error), "imgdecl::stopped");
    });
    assert!(
        begin.elapsed() < Duration::from_secs(1),
        "{:?}",
        begin.elapsed()
    );
}
