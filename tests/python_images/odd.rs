//! Odd indexes, by the binary: several at once, yanked files, odd names, no digests. The indexes are the tests' own;
//! `index.rs` holds the client itself to account.

use std::fs;

use serde_json::json;

use super::kit::layer_of;
use crate::support::index::{Index, Shape, Wheel};
use crate::support::registry::{Delivery, Reply, Request};
use crate::support::wheel::Recipe;
use crate::support::{Output, Space};

/// Writes a manifest that asks for packages, below what it says of indexes.
fn ask(space: &Space, index: &str, packages: &str) {
    space.write(
        "image.toml",
        format!(
            "[defaults]\ncompression = \"none\"\n\n{index}\n\n\
             [pip.deps]\npackages = [{packages}]\npython = \"3.11\"\nlibc = \"glibc 2.36\"\nsplit = \"none\"\n\n\
             [image.app]\nbase = \"scratch\"\nlayers = [\"deps\"]\n"
        ),
    );
}

fn lock(space: &Space) -> String {
    fs::read_to_string(space.path().join("image.lock")).expect("image.lock")
}

/// The wheels that the lock has, by file name.
fn locked(space: &Space) -> Vec<String> {
    let text = lock(space);
    let wheels = text.lines().filter(|line| line.contains(".whl\""));
    let names = wheels.filter_map(|line| line.split('"').nth(1));
    names.map(str::to_owned).collect()
}

#[track_caller]
fn refused(space: &Space, args: &[&str], words: &[&str]) -> Output {
    let output = space.run(args);
    assert!(matches!(output.status, 1..=3), "{}", output.stderr);
    for word in words {
        let text = &output.stderr;
        assert!(text.contains(word), "`{word}` is not in:\n{text}");
    }
    output
}

#[test]
fn a_package_comes_from_the_first_index_that_has_it() {
    let wheel = |name: &str, version: &str| Recipe::new(name, version).make();
    let (mine, common) = (wheel("tool", "1.0"), wheel("common", "3.0"));
    // A stranger took the name, with a higher version.
    let theirs = Recipe::new("tool", "9.0").requires("evil").make();
    let secret = wheel("acme-secret", "9.0");
    let acme = Recipe::new("acme-app", "1.0")
        .requires("tool")
        .requires("common")
        .make();
    let near = Index::start(Shape::default(), &[("tool", &mine)]);
    let far = Index::start(
        Shape {
            is_json: false,
            ..Shape::default()
        },
        &[
            ("tool", &theirs),
            ("common", &common),
            ("acme-secret", &secret),
        ],
    );
    let own = Index::start(Shape::default(), &[("acme-app", &acme)]);
    let space = Space::new();
    let index = format!(
        "[index]\nurl = \"{}\"\nextra = [\"{}\"]\npackages = {{ \"acme-*\" = \"{}\" }}",
        far.url(),
        near.url(),
        own.url()
    );
    ask(&space, &index, "\"Acme.App\"");
    space.ok(&["build"]);
    assert_eq!(
        locked(&space),
        [
            "acme_app-1.0-py3-none-any.whl",
            "common-3.0-py3-none-any.whl",
            "tool-1.0-py3-none-any.whl"
        ]
    );
    let asked = |index: &Index| -> Vec<String> {
        let pages = index.take().into_iter();
        let mut pages: Vec<String> = pages.filter(|it| it.contains("/simple/")).collect();
        // Several are asked for at once.
        pages.sort();
        pages
    };
    assert_eq!(asked(&near), ["200 /simple/tool/", "404 /simple/common/"]);
    assert_eq!(asked(&far), ["200 /simple/common/"]);
    assert_eq!(asked(&own), ["200 /simple/acme-app/"]);

    // What is pinned to an index is not had from another, even where only that has it.
    ask(&space, &index, "\"acme-secret\"");
    refused(&space, &["lock"], &["acme-secret"]);
    assert_eq!((asked(&near).len(), asked(&far).len()), (0, 0));
    assert_eq!(asked(&own), ["404 /simple/acme-secret/"]);
    // An index that does not answer is not passed over.
    near.refuse(403);
    ask(&space, &index, "\"common\"");
    refused(&space, &["lock"], &["403", near.host()]);
    assert_eq!(asked(&far), [""; 0]);
}

/// A page of files, as JSON: name, yanked, uploaded.
fn page(wheels: &[(&Wheel, serde_json::Value, &str)]) -> Reply {
    let file = |(wheel, yanked, uploaded): &(&Wheel, serde_json::Value, &str)| {
        json!({
            "filename": wheel.file, "url": format!("../../files/{}", wheel.file),
            "hashes": {"sha256": wheel.sha256().hex()},
            "yanked": yanked, "upload-time": uploaded, "size": wheel.bytes.len(),
        })
    };
    let files: Vec<_> = wheels.iter().map(file).collect();
    let page = json!({"meta": {"api-version": "1.1"}, "name": "tool", "files": files});
    Reply::new(200).text("application/vnd.pypi.simple.v1+json", page.to_string())
}

#[test]
fn yanked_and_new_files_are_left_out() {
    let make = |version: &str| Recipe::new("tool", version).make();
    let (old, good, broken) = (make("1.0"), make("1.5"), make("2.0"));
    let wheels = [("tool", &old), ("tool", &good), ("tool", &broken)];
    let index = Index::start(Shape::default(), &wheels);
    let reply = page(&[
        (&old, json!(false), "2026-01-01T00:00:00Z"),
        (&good, json!(false), "2026-03-01T00:00:00.123456Z"),
        (&broken, json!("loses data"), "2026-02-01T00:00:00Z"),
    ]);
    index.fail(move |request: &Request, _| {
        let is_page = request.path() == "/simple/tool/";
        is_page.then(|| (reply.clone(), Delivery::default()))
    });
    let source = format!("[index]\nurl = \"{}\"", index.url());
    let choose = |packages: &str| {
        let space = Space::new();
        ask(&space, &source, packages);
        let output = space.ok(&["lock"]);
        (locked(&space), output.stderr)
    };
    assert_eq!(choose("\"tool\"").0, ["tool-1.5-py3-none-any.whl"]);
    assert_eq!(choose("\"tool<=2.0\"").0, ["tool-1.5-py3-none-any.whl"]);
    // Who asks for exactly that gets it, and is told.
    assert_eq!(choose("\"tool==2.0\"").0, ["tool-2.0-py3-none-any.whl"]);
    let newer = "\"tool\"]\nexclude_newer = \"2026-02-15T00:00:00Z\"\nconstraints = [";
    assert_eq!(choose(newer).0, ["tool-1.0-py3-none-any.whl"]);

    let space = Space::new();
    ask(&space, &source, "\"tool>1.5\"");
    refused(&space, &["lock"], &["tool", "yanked", "loses data"]);
}

#[test]
fn names_may_be_encoded() {
    let wheel = Recipe::new("tool", "1.0+local.7").make();
    assert_eq!(wheel.file, "tool-1.0+local.7-py3-none-any.whl");
    let epoch = Recipe::new("era", "1!2.0").make();
    for is_json in [false, true] {
        let shape = Shape {
            is_json,
            ..Shape::default()
        };
        let index = Index::start(shape, &[("tool", &wheel), ("era", &epoch)]);
        let wheels = [wheel.clone(), epoch.clone()];
        let encoded = |file: &str| file.replace('+', "%2B").replace('!', "%21");
        index.fail(move |request: &Request, _| {
            let path = request.path();
            if let Some(project) = path.strip_prefix("/simple/") {
                let wheel = wheels
                    .iter()
                    .find(|it| it.metadata.contains(&project[..3]))?;
                let (file, hash) = (encoded(&wheel.file), wheel.sha256().hex());
                let reply = match is_json {
                    true => {
                        let files = json!([{
                            "filename": wheel.file, "url": format!("../../files/{file}"),
                            "hashes": {"sha256": hash},
                        }]);
                        let page =
                            json!({"meta": {"api-version": "1.0"}, "name": "x", "files": files});
                        let kind = "application/vnd.pypi.simple.v1+json";
                        Reply::new(200).text(kind, page.to_string())
                    }
                    // The text of the link is for people.
                    false => Reply::new(200).text(
                        "text/html",
                        format!("<a href=\"../../files/{file}#sha256={hash}\">a link</a>"),
                    ),
                };
                return Some((reply, Delivery::default()));
            }
            let file = path.strip_prefix("/files/")?;
            let wheel = wheels.iter().find(|it| encoded(&it.file) == file)?;
            let reply = Reply::new(200).text("application/zip", wheel.bytes.clone());
            Some((reply, Delivery::default()))
        });
        let space = Space::new();
        let source = format!("[index]\nurl = \"{}\"", index.url());
        ask(&space, &source, "\"tool==1.0\", \"era\"");
        space.ok(&["build"]);
        assert_eq!(locked(&space), [epoch.file.clone(), wheel.file.clone()]);
        let files = layer_of(&space.path().join("imgdecl-out"), "app");
        let site = "usr/local/lib/python3.11/site-packages";
        for info in ["tool-1.0+local.7.dist-info", "era-1!2.0.dist-info"] {
            let path = format!("{site}/{info}/METADATA");
            assert!(files.contains_key(&path), "{:?}", files.keys());
        }
        // Another machine, with the lock alone.
        fs::remove_dir_all(space.cache()).expect("a cache");
        space.ok(&["build", "--locked"]);
    }
}

#[test]
fn an_index_without_digests_is_believed_once() {
    let wheel = Recipe::new("tool", "1.0").requires("other").make();
    let other = Recipe::new("other", "1.0").make();
    for is_json in [true, false] {
        let shape = Shape {
            is_json,
            has_hashes: false,
            ..Shape::default()
        };
        let index = Index::start(shape.clone(), &[("tool", &wheel), ("other", &other)]);
        let space = Space::new();
        ask(&space, "", "\"tool\"");
        space.ok(&["lock", "--index-url", &index.url()]);
        let text = lock(&space);
        for wheel in [&wheel, &other] {
            let line = format!(
                "\"{}\" = \"{} {} metadata=sha256:",
                wheel.file,
                wheel.sha256(),
                wheel.bytes.len()
            );
            assert!(text.contains(&line), "`{line}` is not in the lock:\n{text}");
        }
        // What was fetched for the lock is there for the build.
        space.ok(&["build", "--locked", "--offline"]);

        // From now on the lock decides.
        let forged = Recipe::new("tool", "1.0").file("tool/evil.py", "").make();
        let index = Index::start(shape, &[("tool", &forged), ("other", &other)]);
        fs::remove_dir_all(space.cache()).expect("a cache");
        let args = ["build", "--locked", "--index-url", &index.url()];
        let output = refused(&space, &args, &[&wheel.file, "bytes instead of"]);
        assert_eq!(output.status, 3, "{}", output.stderr);
    }
}
