//! The fault server itself: an independent client finds it right, and it does wrong what it is told.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use imgdecl::parts::oci::Digest;

use crate::support::registry::{
    Auth, Authority, Image, Mode, PASSWORD, Quirks, Real, Rule, Server, Setup, USER,
};
use crate::support::{Output, Space, peer};

/// Sends bytes, and returns all that comes back until the server closes or is silent.
fn exchange(host: &str, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(host).expect("a server");
    let patience = Some(Duration::from_millis(300));
    stream.set_read_timeout(patience).expect("a socket");
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn get(host: &str, path: &str) -> String {
    exchange(
        host,
        format!("GET {path} HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n").as_bytes(),
    )
}

/// Copies by skopeo.
fn skopeo(args: &[&str]) -> Option<Output> {
    let skopeo = peer("skopeo")?;
    let space = Space::new();
    let mut command = space.program(skopeo);
    command
        .args(["copy", "--quiet", "--insecure-policy", "--all"])
        .args(args);
    Some(Output::of(&mut command))
}

/// A layout of an image with some layers, for skopeo.
fn layout(space: &Space) -> String {
    space.write(
        "image.toml",
        "[files.a]\ntext = { \"/a\" = \"a\" }\n[files.b]\ntext = { \"/b\" = \"b\" }\n\
         [image.app]\nbase = \"scratch\"\nlayers = [\"a\", \"b\"]\nplatforms = [\"linux/amd64\", \"linux/arm64\"]\n",
    );
    space.ok(&["build", "--progress", "none"]);
    format!("oci:{}", space.path().join("imgdecl-out").display())
}

#[test]
fn an_independent_client_pushes_and_pulls() {
    let space = Space::new();
    let layout = layout(&space);
    let login = format!("{USER}:{PASSWORD}");
    let server = |quirks, auth| {
        Server::start(Setup {
            quirks,
            auth,
            ..Setup::default()
        })
    };
    let mut servers = vec![
        server(Quirks::default(), Auth::default()),
        server(Quirks::default(), Auth::basic(USER, PASSWORD)),
        server(Quirks::default(), Auth::token(USER, PASSWORD)),
    ];
    // skopeo pushes by PATCH of whole blobs, which some do not take, and others not in this way.
    for name in ["quay", "gitlab", "artifactory", "harbor"] {
        servers.push(Server::profile(name, USER, PASSWORD));
    }
    for server in &servers {
        let there = format!("docker://{}/a/b:v1", server.host());
        let args = [
            "--dest-tls-verify=false",
            "--dest-creds",
            &login,
            &layout,
            &there,
        ];
        let Some(output) = skopeo(&args) else { return };
        assert_eq!(output.status, 0, "{}{}", output.stderr, server.story());
        server.check_tags();
        let digest = server.tag("a/b", "v1").expect("an image tag");
        let back = Space::new();
        let to = format!("oci:{}:v1", back.path().join("out").display());
        let args = ["--src-tls-verify=false", "--src-creds", &login, &there, &to];
        let output = skopeo(&args).expect("skopeo was there");
        assert_eq!(output.status, 0, "{}{}", output.stderr, server.story());
        let index = fs::read_to_string(back.path().join("out/index.json")).expect("an index");
        assert!(index.contains(&digest.to_string()), "{index}");
    }
    let wrong = format!("docker://{}/a/b:v2", servers[1].host());
    let args = [
        "--dest-tls-verify=false",
        "--dest-creds",
        "robot:wrong",
        &layout,
        &wrong,
    ];
    assert_ne!(skopeo(&args).expect("skopeo was there").status, 0);
    assert_eq!(servers[1].tag("a/b", "v2"), None);
}

#[test]
fn rules_bend_what_is_right() {
    let image = Image::of(&[b"0123456789"]);
    let digest = Digest::of(b"0123456789");
    let path = format!("/v2/a/blobs/{digest}");
    let server = Server::plain();
    server.load("a", "v1", &image);
    let answer = |rule: Rule| {
        server.heal();
        server.rule(rule);
        get(server.host(), &path)
    };
    let blob = || Rule::on("GET /v2/*/blobs/*");
    let whole = answer(Rule::on("no such request"));
    assert!(whole.starts_with("HTTP/1.1 200 "), "{whole}");
    assert!(
        whole.contains("Content-Length: 10\r\n") && whole.ends_with("\r\n\r\n0123456789"),
        "{whole}"
    );
    let cut = answer(Rule {
        cut: Some(4),
        ..blob()
    });
    assert!(
        cut.contains("Content-Length: 10\r\n") && cut.ends_with("\r\n\r\n0123"),
        "{cut}"
    );
    let truncated = answer(Rule {
        truncate: Some(4),
        ..blob()
    });
    assert!(truncated.contains("Content-Length: 4\r\n"), "{truncated}");
    let twice = answer(Rule {
        repeat: true,
        ..blob()
    });
    assert!(twice.ends_with("01234567890123456789"), "{twice}");
    let garbage = answer(Rule {
        garbage: Some("SSH-2.0".to_owned()),
        ..blob()
    });
    assert_eq!(garbage, "SSH-2.0");
    assert_eq!(
        answer(Rule {
            lose: true,
            ..blob()
        }),
        ""
    );
    assert_eq!(
        answer(Rule {
            hang: true,
            ..blob()
        }),
        ""
    );
    let failed = answer(Rule::always("GET /v2/*", 503).header("Retry-After", "7"));
    assert!(
        failed.starts_with("HTTP/1.1 503 ") && failed.contains("Retry-After: 7\r\n"),
        "{failed}"
    );
    let moved = answer(Rule::always("GET /v2/*", 307).header("Location", "http://x[PATH]"));
    assert!(
        moved.contains(&format!("Location: http://x{path}\r\n")),
        "{moved}"
    );

    server.heal();
    server.rule(Rule {
        nth: 2,
        times: Some(1),
        ..Rule::once("GET *", 500)
    });
    let status = || get(server.host(), &path)[9..12].to_owned();
    assert_eq!([status(), status(), status()], ["200", "500", "200"]);
    let begin = Instant::now();
    server.rule(Rule {
        drip: Some((1, 20)),
        ..blob()
    });
    assert!(get(server.host(), &path).ends_with("0123456789"));
    assert!(begin.elapsed() >= Duration::from_millis(200));

    server.rewind();
    server.rule(Rule {
        cut_upload: Some(3),
        ..Rule::on("PUT *")
    });
    let head = "PUT /v2/a/blobs/uploads/x HTTP/1.1\r\nContent-Length: 10\r\n\r\n";
    assert_eq!(
        exchange(server.host(), format!("{head}0123456789").as_bytes()),
        ""
    );
    let log = server.log();
    assert_eq!((log.len(), log[0].received, log[0].status), (1, 3, 0));
}

#[test]
fn ranges() {
    let server = Server::plain();
    server.load("a", "v1", &Image::of(&[b"0123456789"]));
    let ask = |range: &str| {
        let path = format!("/v2/a/blobs/{}", Digest::of(b"0123456789"));
        let text = format!("GET {path} HTTP/1.1\r\nRange: bytes={range}\r\n\r\n");
        exchange(server.host(), text.as_bytes())
    };
    let answer = ask("4-");
    assert!(
        answer.starts_with("HTTP/1.1 206 ") && answer.ends_with("\r\n\r\n456789"),
        "{answer}"
    );
    assert!(
        answer.contains("Content-Range: bytes 4-9/10\r\n"),
        "{answer}"
    );
    assert!(ask("2-3").ends_with("\r\n\r\n23"));
    assert!(ask("10-").starts_with("HTTP/1.1 416 "));
}

#[test]
fn an_image_tag_that_names_too_little_is_found() {
    let image = Image::of(&[b"layer"]);
    let (kind, bytes) = image.manifests.last().expect("a manifest");
    let server = Server::plain();
    server.put_manifest("a", "v1", kind, bytes);
    let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| server.check_tags()));
    assert!(found.is_err());
    server.load("a", "v1", &image);
    server.check_tags();
}

#[test]
fn the_real_registry_starts_in_every_mode() {
    for mode in [
        Mode::Plain,
        Mode::Basic,
        Mode::Token,
        Mode::Tls,
        Mode::Mutual,
    ] {
        let Some(real) = Real::start(mode) else {
            return;
        };
        let answer = get(real.host(), "/v2/");
        let status = match mode {
            Mode::Plain => "200",
            Mode::Basic | Mode::Token => "401",
            Mode::Tls | Mode::Mutual => "400",
        };
        assert_eq!(&answer[9..12], status, "{mode:?}: {answer}");
        if matches!(mode, Mode::Tls | Mode::Mutual) {
            continue;
        }
        let space = Space::new();
        let login = format!("{USER}:{PASSWORD}");
        let there = format!("docker://{}/a/b:v1", real.host());
        let from = layout(&space);
        let args = [
            "--dest-tls-verify=false",
            "--dest-creds",
            &login,
            &from,
            &there,
        ];
        let Some(output) = skopeo(&args) else { return };
        assert_eq!(output.status, 0, "{mode:?}: {}", output.stderr);
    }
}

#[test]
fn tls_is_spoken() {
    if peer("openssl").is_none() {
        return;
    }
    let space = Space::new();
    let authority = Authority::make(space.path());
    let server = Server::start(Setup {
        tls: Some(authority.server().into()),
        ..Setup::default()
    });
    let ca = authority.ca.display().to_string();
    let mut command = space.program("openssl");
    command.args(["s_client", "-connect", server.host(), "-CAfile", &ca]);
    command.args(["-verify_return_error", "-quiet"]);
    command
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped());
    let mut child = command
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("openssl");
    let mut input = child.stdin.take().expect("a pipe");
    input
        .write_all(b"GET /v2/ HTTP/1.1\r\n\r\n")
        .expect("openssl reads");
    let mut answer = [0; 12];
    let read = child.stdout.take().expect("a pipe").read_exact(&mut answer);
    drop(input);
    let _ = child.kill();
    let _ = child.wait();
    read.expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 200");
}
