//! Hosts that quote the credentials that they were sent, and programs and names with what terminals obey: nothing of it
//! is shown.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use crate::support::{Output, Space};

const USER: &str = "robot";
const PASSWORD: &str = "kV7/ü\"2+x&yQ 9?";
const TOKEN: &str = "eyJhbGciOi.J9-token_of_the_server.kV7x2yQ9";
const IDENTITY: &str = "identity~kV7/x2+yQ9zz";

/// What a client asks.
struct Asked {
    method: String,
    path: String,
    /// By names in lower case.
    headers: BTreeMap<String, String>,
}

/// What it is answered: status, headers and body.
type Told = (u16, Vec<(String, String)>, String);

impl Asked {
    fn auth(&self) -> Option<&str> {
        let name = ["authorization", "proxy-authorization"];
        name.iter()
            .find_map(|it| self.headers.get(*it))
            .map(String::as_str)
    }
}

/// Serves until the test ends: `answer` makes the status, headers and body. Returns the address.
fn serve(answer: impl Fn(&Asked) -> Told + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let answer = std::sync::Arc::new(answer);
    thread::spawn(move || {
        for stream in listener.incoming().flatten().take(10_000) {
            let answer = std::sync::Arc::clone(&answer);
            thread::spawn(move || talk(stream, &*answer));
        }
    });
    address
}

fn talk(stream: TcpStream, answer: &dyn Fn(&Asked) -> Told) {
    let mut lines = BufReader::new(stream.try_clone().expect("a stream")).lines();
    let Some(Ok(first)) = lines.next() else {
        return;
    };
    let mut words = first.split(' ').map(str::to_owned);
    let (method, path) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let mut headers = BTreeMap::new();
    for line in lines
        .map_while(Result::ok)
        .take_while(|line| !line.is_empty())
    {
        if let Some((name, value)) = line.split_once(':') {
            headers.insert(name.to_lowercase(), value.trim().to_owned());
        }
    }
    let (status, headers, body) = answer(&Asked {
        method,
        path,
        headers,
    });
    let mut text = format!(
        "HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    let mut stream = stream;
    let _ = stream.write_all(format!("{text}\r\n{body}").as_bytes());
}

fn percent(text: &str) -> String {
    text.bytes().map(|it| format!("%{it:02X}")).collect()
}

/// A URL's way to write a text: what need not be escaped is not.
fn quoted(text: &str) -> String {
    let byte = |it: u8| match it {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(it).to_string()
        }
        _ => format!("%{it:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// The ways in which a host may quote a secret.
fn ways(secret: &str) -> Vec<String> {
    let json = serde_json::Value::from(secret).to_string();
    vec![
        secret.to_owned(),
        json.trim_matches('"').to_owned(),
        STANDARD.encode(secret),
        URL_SAFE_NO_PAD.encode(secret),
        STANDARD.encode(format!("x{secret}")),
        quoted(secret),
        quoted(secret).replace("%20", "+"),
    ]
}

/// What a host sees of a client, in every way, as it is told in the body of a refusal.
fn quote(asked: &Asked) -> String {
    let Some(auth) = asked.auth() else {
        return "nothing".to_owned();
    };
    let (_, value) = auth.split_once(' ').unwrap_or(("", auth));
    let mut all = vec![auth.to_owned(), quoted(value)];
    let decoded = STANDARD
        .decode(value)
        .ok()
        .and_then(|it| String::from_utf8(it).ok());
    match decoded.as_deref().and_then(|it| it.split_once(':')) {
        Some((user, password)) => {
            all.push(format!("{user}:{password}"));
            all.push(URL_SAFE_NO_PAD.encode(format!("{user}:{password}")));
            all.extend(ways(password));
        }
        None => all.extend(ways(value)),
    }
    all.join(" ")
}

/// Nothing that a reader could take the secret from.
#[track_caller]
fn assert_hidden(output: &Output, what: &str) {
    let said = format!("{}{}", output.stdout, output.stderr);
    for secret in [PASSWORD, TOKEN, IDENTITY] {
        let pair = format!("{USER}:{secret}");
        let mut all = ways(secret);
        all.extend([
            STANDARD.encode(&pair),
            URL_SAFE_NO_PAD.encode(&pair),
            percent(secret),
        ]);
        for way in all {
            // No long piece of it, either.
            let chars: Vec<char> = way.chars().collect();
            for piece in chars.windows(chars.len().min(16)) {
                let piece: String = piece.iter().collect();
                assert!(!said.contains(&piece), "{what}: {piece} of {way} in {said}");
            }
        }
    }
    assert_clean(output, what);
}

/// No raw control byte but newline, and nothing that turns the direction.
#[track_caller]
fn assert_clean(output: &Output, what: &str) {
    for text in [&output.stdout, &output.stderr] {
        let odd = |it: char| {
            it.is_control() && it != '\n'
                || matches!(it, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        };
        assert!(!text.contains(odd), "{what}: {text:?}");
    }
}

/// A work folder whose auth file has an entry for a host.
fn space(host: &str, entry: &serde_json::Value) -> Space {
    let space = Space::new();
    let auths = serde_json::json!({"auths": {host: entry}});
    space.write("auth.json", auths.to_string());
    space.write(
        "image.toml",
        format!(
            "[image.a]\nbase = \"scratch\"\nlayers = [{{ files = {{ text = {{ \"/f\" = \"x\" }} }} }}]\nrepository = \"{host}/a/b\"\n"
        ),
    );
    space
}

fn login() -> serde_json::Value {
    serde_json::json!({"auth": STANDARD.encode(format!("{USER}:{PASSWORD}"))})
}

/// Everything that talks to a registry.
fn all_commands(space: &Space, host: &str, what: &str) {
    let name = format!("{host}/a/b:v1");
    for args in [
        &["build", "--push", "--progress", "plain", "--tag", "v1"][..],
        &[
            "build",
            "--push",
            "--progress",
            "json",
            "--tag",
            "v1",
            "--format",
            "json",
        ],
        &["build", "--push", "--check", "--tag", "v1"],
        &["inspect", &name],
        &["inspect", "--tags", &name],
        &["inspect", "--format", "json", &name],
        &["unpack", &name, "out"],
    ] {
        let output = space.run(&[args, &["--authfile", "auth.json"]].concat());
        assert_ne!(output.status, 101, "{what} {args:?}: {}", output.stderr);
        assert_hidden(&output, &format!("{what} {args:?}"));
    }
}

fn refusal(asked: &Asked, status: u16) -> Told {
    let text = quote(asked);
    let body =
        serde_json::json!({"errors": [{"code": "DENIED", "message": format!("bad: {text}")}]});
    (status, Vec::new(), body.to_string())
}

fn challenge(text: &str) -> Vec<(String, String)> {
    vec![("www-authenticate".to_owned(), text.to_owned())]
}

#[test]
fn registries_that_quote_credentials() {
    for status in [400, 401, 403, 404, 405, 416] {
        let host = serve(move |asked| match asked.auth() {
            None => (401, challenge("Basic realm=\"x\""), String::new()),
            Some(_) => {
                let (status, mut headers, body) = refusal(asked, status);
                headers.extend(challenge(&format!(
                    "Basic realm=\"{}\"",
                    quoted(&quote(asked))
                )));
                headers.push(("retry-after".to_owned(), "0".to_owned()));
                (status, headers, body)
            }
        });
        let what = format!("a refusal with {status}");
        all_commands(&space(&host, &login()), &host, &what);
    }
}

#[test]
fn redirects_and_types_that_quote_credentials() {
    let host = serve(|asked| match asked.auth() {
        None if asked.path.starts_with("/else") => refusal(asked, 403),
        None => (401, challenge("Basic realm=\"x\""), String::new()),
        Some(_) => {
            let place = format!("/else?quote={}", quoted(&quote(asked)));
            (307, vec![("location".to_owned(), place)], String::new())
        }
    });
    all_commands(&space(&host, &login()), &host, "a redirect");
    for place in ["http://", "http://user:", "ftp://x/", "http://127.0.0.1:1/"] {
        let host = serve(move |asked| match asked.auth() {
            None => (401, challenge("Basic realm=\"x\""), String::new()),
            Some(_) => {
                let to = format!("{place}{}", quoted(&quote(asked)));
                (307, vec![("location".to_owned(), to)], String::new())
            }
        });
        all_commands(&space(&host, &login()), &host, place);
    }
    let host = serve(|asked| match asked.auth() {
        None => (401, challenge("Basic realm=\"x\""), String::new()),
        Some(_) => {
            let kind = format!("text/{}", quoted(&quote(asked)));
            let body =
                serde_json::json!({"schemaVersion": 2, "mediaType": quote(asked), "layers": []});
            (
                200,
                vec![("content-type".to_owned(), kind)],
                body.to_string(),
            )
        }
    });
    all_commands(&space(&host, &login()), &host, "a media type");
}

#[test]
fn token_servers_that_quote_credentials() {
    // One that gives a token, and a registry that refuses it and quotes it.
    let host = serve(
        |asked| match (asked.path.starts_with("/token"), asked.auth()) {
            (true, _) => (200, Vec::new(), format!(r#"{{"token":"{TOKEN}"}}"#)),
            (false, Some(auth)) if auth.contains(TOKEN) => refusal(asked, 403),
            _ => {
                let host = &asked.headers["host"];
                let text = format!("Bearer realm=\"http://{host}/token\",service=\"s\"");
                (401, challenge(&text), String::new())
            }
        },
    );
    all_commands(&space(&host, &login()), &host, "a token");
    // Those that refuse, with the password, or with an identity token.
    for (status, entry) in [
        (401, login()),
        (403, login()),
        (403, serde_json::json!({ "identitytoken": IDENTITY })),
        (401, serde_json::json!({ "registrytoken": TOKEN })),
    ] {
        let is_identity = entry.get("identitytoken").is_some();
        let host = serve(move |asked| {
            if asked.path.starts_with("/token") || asked.auth().is_some() {
                let (status, headers, _) = refusal(asked, status);
                // It comes in a body.
                let identity = ways(IDENTITY).join(" ");
                let text = match is_identity {
                    true => format!("{} {identity}", quote(asked)),
                    false => quote(asked),
                };
                return (
                    status,
                    headers,
                    serde_json::json!({"details": text}).to_string(),
                );
            }
            let host = &asked.headers["host"];
            let text = format!("Bearer realm=\"http://{host}/token\",service=\"s\"");
            (401, challenge(&text), String::new())
        });
        all_commands(&space(&host, &entry), &host, &format!("{status} {entry}"));
    }
}

#[test]
fn proxies_that_quote_credentials() {
    let address = serve(|asked| match asked.method.as_str() {
        "CONNECT" => (
            407,
            vec![("x-said".to_owned(), quoted(&quote(asked)))],
            quote(asked),
        ),
        _ => refusal(asked, 403),
    });
    let name = "registry.example";
    let space = space(name, &serde_json::json!({}));
    for insecure in ["true", "false"] {
        space.write(
            "config.toml",
            format!("[registry.\"{name}\"]\ninsecure = {insecure}\n"),
        );
        for args in [
            &["build", "--push", "--progress", "json", "--tag", "v1"][..],
            &["inspect", "registry.example/a/b:v1"],
        ] {
            let mut command: Command = space.command(args);
            let proxy = format!("http://{USER}:{}@{address}", quoted(PASSWORD));
            command.env("HTTP_PROXY", &proxy).env("HTTPS_PROXY", &proxy);
            command.env("IMGDECL_CONFIG", space.path().join("config.toml"));
            let output = Output::of(&mut command);
            assert_eq!(output.status, 3, "{args:?}: {}", output.stderr);
            assert_hidden(&output, &format!("a proxy, {args:?}"));
        }
    }
}

#[test]
fn indexes_that_quote_credentials() {
    for (status, kind) in [
        (401, ""),
        (403, ""),
        (500, ""),
        (200, "text/"),
        (200, "application/vnd.pypi.simple.v1+json"),
    ] {
        let host = serve(move |asked| match asked.auth() {
            None => (401, challenge("Basic realm=\"x\""), String::new()),
            Some(_) => {
                let kind = match kind {
                    "text/" => format!("text/{}", quoted(&quote(asked))),
                    kind => kind.to_owned(),
                };
                let body = serde_json::json!({
                    "meta": {"api-version": quote(asked)}, "message": quote(asked),
                    "files": [{"filename": format!("pk-{}.whl", quote(asked)), "url": quote(asked)}],
                });
                (
                    status,
                    vec![("content-type".to_owned(), kind)],
                    body.to_string(),
                )
            }
        });
        let space = Space::new();
        space.write(
            "image.toml",
            "[pip.d]\npackages = [\"pk\"]\npython = \"3.11\"\nlibc = \"glibc 2.36\"\nprefix = \"/usr/local\"\n\n\
             [image.a]\nbase = \"scratch\"\nlayers = [\"d\"]\n",
        );
        let url = format!("http://{USER}:{}@{host}/simple", quoted(PASSWORD));
        for args in [
            &["lock", "--index-url", &url][..],
            &[
                "build",
                "--progress",
                "json",
                "--index-url",
                &url,
                "-o",
                "oci:o",
            ],
        ] {
            let output = space.run(args);
            assert_ne!(output.status, 0, "{}", output.stderr);
            assert_hidden(&output, &format!("an index, {status} {kind} {args:?}"));
        }
        for file in ["image.lock", "o"] {
            assert!(!space.path().join(file).exists(), "{file}");
        }
    }
}

/// What terminals obey, in every form.
const ODD: [&str; 9] = [
    "\u{1b}[31mRED\u{1b}[0m",
    "\u{1b}]0;title\u{7}",
    "\u{1b}[2J",
    "\u{7}\u{8}\u{7f}",
    "\rover",
    "\u{9b}31m",
    "\u{202e}gnp.exe",
    "\u{2066}a\u{2069}\u{200f}",
    "\u{feff}\u{85}x",
];

#[test]
fn helpers_that_speak_to_the_terminal() {
    for odd in ODD {
        let host = serve(|_| (401, challenge("Basic realm=\"x\""), String::new()));
        let space = space(&host, &serde_json::json!({}));
        space.write(
            "auth.json",
            serde_json::json!({"credHelpers": {&host: "odd"}}).to_string(),
        );
        let body = format!("#!/bin/sh\nprintf '%s\\n' 'no keyring {odd} here' >&2\nexit 1\n");
        let path = space.write("bin/docker-credential-odd", body);
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .expect("a mode");
        let folders = format!("{}:/usr/bin:/bin", space.path().join("bin").display());
        for args in [
            ["build", "--push", "--tag", "v1", "--authfile", "auth.json"],
            [
                "build",
                "--push",
                "--tag",
                "v1",
                "--authfile=auth.json",
                "--progress=json",
            ],
        ] {
            let output = Output::of(space.command(&args).env("PATH", &folders));
            assert!(output.stderr.contains("no keyring"), "{}", output.stderr);
            assert_clean(&output, odd);
        }
    }
}

#[test]
fn names_and_documents_that_speak_to_the_terminal() {
    for odd in ODD {
        let space = Space::new();
        // Names of files, of members of archives, and words of the command line.
        let name = format!("x{}", odd.replace('/', ""));
        space.write(&format!("src/{name}"), "x");
        let tar = Command::new("tar")
            .args(["-cf", "x.tar", "src"])
            .current_dir(space.path())
            .status();
        assert!(tar.expect("tar").success());
        let mut broken = fs::read(space.path().join("x.tar")).expect("the tar");
        // The size of the last member is no number.
        let at = broken
            .windows(257 + 5)
            .rposition(|it| it.ends_with(b"ustar"))
            .expect("a header");
        broken[at + 124..at + 135].copy_from_slice(b"zzzzzzzzzzz");
        broken[at + 148..at + 156].fill(b' ');
        let sum: u32 = broken[at..at + 512].iter().map(|it| u32::from(*it)).sum();
        broken[at + 148..at + 156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        space.write("broken.tar", &broken);
        space.write(
            "image.toml",
            "[tar.t]\nsrc = \"broken.tar\"\n\n[image.a]\nbase = \"scratch\"\nlayers = [\"t\"]\n\n\
             [image.b]\nbase = \"scratch\"\nlayers = [{ files = { src = \"src\", dest = \"/\" } }]\n\
             [image.c]\nbase = \"scratch\"\nlayers = [{ tar = { src = \"x.tar\" } }]\n",
        );
        for args in [
            &["build", "a", "-o", "oci:a"][..],
            &["build", "a", "-o", "oci:a", "--progress", "json"],
            &["build", "b", "-o", "oci:b"],
            &["inspect", "--files", "oci:b"],
            &["inspect", "--files", "oci:b", "--format", "json"],
            &["build", "c", "-o", "oci:c"],
            &["diff", "oci:b", "oci:c"],
            &["diff", "oci:b", "oci:c", "--format", "json"],
            &["unpack", "oci:c", "c"],
            &["unpack", "oci:b", &name],
            &["inspect", &name],
            &["build", &name],
            &["run", "--mount", &name, "oci:b"],
            &["build", "b", "--set", &name],
            &["build", "b", "-o", &format!("oci:{name}/y/z")],
            &[&name],
        ] {
            let output = space.run(args);
            assert_clean(&output, &format!("{odd:?} {args:?}"));
        }
        // Documents.
        let config = serde_json::json!({
            "os": "linux", "architecture": odd, "author": odd, "created": odd,
            "config": {"Env": [format!("A={odd}")], "Cmd": [odd], "Labels": {odd: odd}, "User": odd, "WorkingDir": odd},
            "rootfs": {"type": "layers", "diff_ids": []}, "history": [{"created_by": odd, "empty_layer": true}],
        });
        let blobs = space.path().join("doc/blobs/sha256");
        fs::create_dir_all(&blobs).expect("a folder");
        let put = |value: &serde_json::Value| {
            let bytes = value.to_string().into_bytes();
            let digest = imgdecl::parts::oci::Digest::of(&bytes);
            fs::write(blobs.join(digest.hex()), &bytes).expect("a blob");
            serde_json::json!({"digest": digest.to_string(), "size": bytes.len()})
        };
        let typed = |mut it: serde_json::Value, kind: &str| {
            it["mediaType"] = kind.into();
            it["annotations"] =
                serde_json::json!({odd: odd, "org.opencontainers.image.ref.name": odd});
            it
        };
        let config = typed(put(&config), "application/vnd.oci.image.config.v1+json");
        let manifest = serde_json::json!({"schemaVersion": 2, "config": config, "layers": [], "annotations": {odd: odd}});
        let manifest = typed(put(&manifest), "application/vnd.oci.image.manifest.v1+json");
        let index = serde_json::json!({"schemaVersion": 2, "manifests": [manifest], "annotations": {odd: odd}});
        space.write("doc/index.json", index.to_string());
        space.write("doc/oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
        for args in [
            &["inspect", "oci:doc"][..],
            &["inspect", "oci:doc", "--format", "json"],
            &["inspect", "oci:doc:nothing"],
            &["unpack", "oci:doc", "doc-out", "--bundle"],
            &["run", "oci:doc"],
            &["diff", "oci:doc", "oci:b"],
        ] {
            let output = space.run(args);
            assert_clean(&output, &format!("{odd:?} {args:?}"));
        }
    }
}
