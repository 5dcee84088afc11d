//! Files at URLs, by the binary: redirects, credentials, cuts, and servers that are wrong or gone.

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::support::index::{Index, Shape};
use crate::support::registry::{Delivery, Reply};
use crate::support::{Output, Random, Space, validate};

/// A server that has a file.
fn server(space: &Space, name: &str, bytes: &[u8]) -> Index {
    let server = Index::start(Shape::default(), &[]);
    space.write(&format!("{name}/tool"), bytes);
    server.serve_folder(space.path().join(name));
    server
}

/// Writes a manifest with a file at a URL, and with `rest` beside it.
fn write(space: &Space, url: &str, rest: &str) {
    let text = format!(
        "[http.tool]\nurl = \"{url}\"\ndest = \"/bin/tool\"\nmode = \"0755\"\n{rest}\n\n[image.app]\nbase = \
         \"scratch\"\nlayers = [\"tool\"]\n"
    );
    space.write("image.toml", text);
}

/// The digest of the file in the image that was built.
fn built(space: &Space) -> String {
    let layout = validate(&space.path().join("imgdecl-out"));
    let layer = &layout.images["app"].platforms[0].layers[0];
    let entry = layer.entries.iter().find(|it| it.path == "bin/tool");
    entry.expect("the file").sha256.clone()
}

fn sha256(bytes: &[u8]) -> String {
    imgdecl::parts::oci::Digest::of(bytes).hex()
}

fn url(server: &Index) -> String {
    format!("http://{}/served/tool", server.host())
}

#[track_caller]
fn fails(output: &Output, code: &str, words: &[&str]) {
    assert_eq!(output.status, 3, "{}", output.stderr);
    assert!(output.stderr.contains(code), "{}", output.stderr);
    for word in words {
        assert!(
            output.stderr.contains(word),
            "no `{word}`:\n{}",
            output.stderr
        );
    }
}

#[test]
fn credentials_go_to_their_host_alone() {
    let space = Space::new();
    let target = server(&space, "target", b"tool\n");
    let first = server(&space, "first", b"");
    let to = url(&target);
    let secret = format!("Basic {}", STANDARD.encode("user:pass-word"));
    first.fail(move |request, _| {
        let reply = match request.header("authorization") {
            Some(value) if value == secret => Reply::new(302).with("Location", &to),
            _ => Reply::new(401).with("WWW-Authenticate", "Basic realm=x"),
        };
        Some((reply, Delivery::default()))
    });
    write(&space, &url(&first), "");
    let output = space.run(&["lock"]);
    fails(&output, "imgdecl::http::refused", &["401", ".netrc"]);

    space.write("netrc", "machine 127.0.0.1 login user password pass-word\n");
    let netrc = space.path().join("netrc");
    let mut lock = space.command(&["build"]);
    let output = Output::of(lock.env("NETRC", &netrc));
    assert_eq!(output.status, 0, "{}", output.stderr);
    assert_eq!(built(&space), sha256(b"tool\n"));
    for (request, _) in target.log() {
        assert_eq!(request.header("authorization"), None);
    }
    let lock = fs::read_to_string(space.path().join("image.lock")).expect("image.lock");
    assert!(
        !lock.contains("pass-word") && !lock.contains(target.host()),
        "{lock}"
    );
}

#[test]
fn a_redirect_leads_nowhere_less_safe() {
    let space = Space::new();
    let first = server(&space, "first", b"");
    first.fail(|_, _| {
        let reply = Reply::new(302).with("Location", "http://files.example/tool");
        Some((reply, Delivery::default()))
    });
    write(&space, &url(&first), "");
    let output = space.run(&["lock"]);
    fails(&output, "imgdecl::http::unsafe", &["http://files.example"]);
}

#[test]
fn what_was_cut_goes_on_where_it_ended() {
    let space = Space::new();
    let bytes = Random(3).bytes(300_000);
    let server = server(&space, "files", &bytes);
    let whole = bytes.clone();
    server.fail(move |request, before| {
        let delivery = Delivery {
            cut: Some(100_000),
            ..Delivery::default()
        };
        let reply = Reply::new(200).text("application/x", whole.clone());
        (before == 0 && request.path() == "/served/tool").then_some((reply, delivery))
    });
    write(
        &space,
        &url(&server),
        &format!("sha256 = \"{}\"", sha256(&bytes)),
    );
    space.ok(&["build", "--locked"]);
    assert_eq!(built(&space), sha256(&bytes));
    let asked = server.take();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(asked[1].starts_with("206 /served/tool "), "{asked:?}");
    assert!(!asked[1].ends_with(" 0-"), "{asked:?}");
}

#[test]
fn other_bytes_are_told_by_both_digests() {
    let space = Space::new();
    let server = server(&space, "files", b"one\n");
    write(&space, &url(&server), "");
    space.ok(&["build"]);
    // The server has other bytes: the cache has the right ones.
    space.write("files/tool", "another one\n");
    fs::remove_dir_all(space.path().join("imgdecl-out")).expect("an output");
    space.ok(&["build", "--locked"]);
    assert_eq!(built(&space), sha256(b"one\n"));
    // Nobody has them.
    fs::remove_dir_all(space.cache()).expect("a cache");
    let (was, is) = (sha256(b"one\n"), sha256(b"another one\n"));
    let output = space.run(&["build", "--locked"]);
    fails(&output, "imgdecl::http::digest", &["lock --update tool"]);
    let flat: String = output.stderr.split_whitespace().collect();
    assert!(
        flat.contains(&was) && flat.contains(&is),
        "{}",
        output.stderr
    );
    let output = space.ok(&["lock", "--update", "tool"]);
    assert!(output.stdout.contains(&is), "{}", output.stdout);
    space.ok(&["build", "--locked"]);
    assert_eq!(built(&space), is);
}

#[test]
fn what_is_damaged_in_the_cache_is_fetched_again() {
    let space = Space::new();
    let server = server(&space, "files", b"tool of a size\n");
    write(&space, &url(&server), "");
    space.ok(&["build"]);
    let digest = sha256(b"tool of a size\n");
    let mut folders = vec![space.cache().to_owned()];
    let mut count = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder").flatten() {
            let path = entry.path();
            match path.is_dir() {
                true => folders.push(path),
                false if entry.file_name().to_str() == Some(&digest) => {
                    fs::remove_file(&path).expect("a blob");
                    fs::write(&path, "fool of a size\n").expect("a blob");
                    count += 1;
                }
                false => {}
            }
        }
    }
    assert_eq!(count, 1, "the file is in the cache");
    let manifest = fs::read_to_string(space.path().join("image.toml")).expect("a manifest");
    space.write("image.toml", manifest.replace("0755", "0700"));
    space.ok(&["build", "--locked"]);
    assert_eq!(built(&space), digest);
}

#[test]
fn a_file_that_is_too_large_and_a_host_that_is_gone() {
    let space = Space::new();
    let huge = server(&space, "files", b"tool\n");
    huge.fail(|_, _| {
        let delivery = Delivery {
            length: Some(1 << 40),
            ..Delivery::default()
        };
        Some((Reply::new(200).text("application/x", "x"), delivery))
    });
    write(&space, &url(&huge), "");
    let output = space.run(&["lock"]);
    fails(&output, "imgdecl::http::content", &["1099511627776"]);

    write(&space, "http://127.0.0.1:1/tool", "");
    let output = space.run(&["lock"]);
    fails(&output, "imgdecl::http::transport", &["127.0.0.1:1"]);
}
