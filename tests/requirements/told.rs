//! Nothing is passed over in silence.

use std::fmt::Write as _;

use super::kit::{Kit, flat, index};
use crate::support::index::{Index, Shape};
use crate::support::registry::{Delivery, Reply};
use crate::support::wheel::Recipe;

/// An index whose pages are lists of files; of wheels among them it has the bytes.
fn listed(pages: &'static [(&'static str, &'static [&'static str])]) -> Index {
    let own = index(Shape::default(), &[]);
    own.fail(move |request, _| {
        let ok = |kind: &str, bytes: Vec<u8>| {
            Some((Reply::new(200).text(kind, bytes), Delivery::default()))
        };
        if let Some(file) = request.path().strip_prefix("/files/") {
            let (name, rest) = file.split_once('-')?;
            let (version, tag) = rest.strip_suffix(".whl")?.split_once('-')?;
            return ok(
                "application/zip",
                Recipe::new(name, version).tag(tag).make().bytes,
            );
        }
        let name = request
            .path()
            .strip_prefix("/simple/")?
            .trim_end_matches('/');
        let (_, files) = pages.iter().find(|it| it.0 == name)?;
        let mut text = String::new();
        for file in *files {
            let (file, more) = file.split_once(' ').unwrap_or((file, ""));
            let _ = writeln!(text, "<a href=\"../../files/{file}\" {more}>x</a>");
        }
        ok("text/html", text.into_bytes())
    });
    own
}

#[test]
fn newer_versions_without_a_wheel_are_told() {
    let own = listed(&[(
        "old",
        &[
            "old-1.0-py3-none-any.whl",
            "old-2.0.tar.gz",
            "old-3.0-cp312-cp312-win_amd64.whl",
            "old-4.0.tar.gz data-requires-python=\"&gt;=3.14\"",
            "old-5.0rc1.tar.gz",
        ],
    )]);
    for (text, words) in [
        (
            "old",
            "old 3.0 (and 1 more) is passed over, and 1.0 taken: it has no wheel for linux",
        ),
        (
            "old<3",
            "old 2.0 is passed over, and 1.0 taken: it has no wheel, only sources",
        ),
        ("old<2", ""),
        ("old==1.0", ""),
        ("--only-binary old\nold", ""),
        ("--prefer-binary\nold", ""),
    ] {
        let kit = Kit::new(&format!("-i {}\n{text}\n", own.url()));
        let said = flat(&kit.ok(&["lock"]).stderr);
        assert!(said.contains(words), "{text}: {said}");
        assert_eq!(
            said.contains("passed over"),
            !words.is_empty(),
            "{text}: {said}"
        );
        assert!(kit.lock().contains("old-1.0"), "{}", kit.lock());
    }
}

#[test]
fn a_pre_release_takes_no_stable_place() {
    let own = listed(&[
        (
            "db",
            &[
                "db-1.1-cp312-cp312-win_amd64.whl",
                "db-1.1.tar.gz",
                "db-2.0rc2-py3-none-any.whl",
            ],
        ),
        ("only", &["only-1.0a1-py3-none-any.whl"]),
    ]);
    let kit = Kit::new(&format!("-i {}\ndb\n", own.url()));
    let said = kit.fails("imgdecl::pip::conflict");
    assert!(said.contains("db 1.1 has no wheel for"), "{said}");
    assert!(said.contains("as `db>=2.0rc2`"), "{said}");
    for (text, told) in [
        ("db>=2.0rc2", ""),
        ("--pre\ndb", ""),
        ("--only-binary :all:\ndb", "db 2.0rc2 is a pre-release"),
        (
            "only",
            "only 1.0a1 is a pre-release: no stable version can be had",
        ),
    ] {
        let kit = Kit::new(&format!("-i {}\n{text}\n", own.url()));
        let said = flat(&kit.ok(&["lock"]).stderr);
        assert!(said.contains(told), "{text}: {said}");
        assert_eq!(
            said.contains("is a pre-release"),
            !told.is_empty(),
            "{text}: {said}"
        );
    }
}

#[test]
fn files_that_ask_for_nothing_are_told() {
    for (text, told) in [
        ("", "`r.txt` asks for nothing"),
        ("# nothing\n", "`r.txt` asks for nothing"),
        ("--pre\n", "`r.txt` asks for nothing"),
        ("six ; os_name == 'nt'\n", "nothing is installed for linux"),
        (
            "six --config-settings a=b\n",
            "`--config-settings` is for a build",
        ),
        (
            "--trusted-host h\nsix\n",
            "certificates are checked all the same",
        ),
    ] {
        let kit = Kit::new(text);
        let said = flat(&kit.ok(&["lock"]).stderr);
        assert!(said.contains(told), "{text}: {said}");
    }
    let kit = Kit::new("./w/six-1.0-py3-none-any.whl\n./w/x-1.0-py3-none-any.whl\n");
    let output = kit.run(&["lock"]);
    let said = flat(&output.stderr);
    assert_eq!(output.status, 1, "{said}");
    assert!(
        said.contains("there is no file w/six-1.0-py3-none-any.whl, nor 1 more"),
        "{said}"
    );
}

#[test]
fn all_that_cannot_be_had_is_one_error() {
    let own = listed(&[
        ("src", &["src-1.0.tar.gz"]),
        ("win", &["win-2.0-cp312-cp312-win_amd64.whl"]),
    ]);
    let kit = Kit::new(&format!(
        "-i {}\nsrc\nwin\nnone-at-all\nnor-this\n",
        own.url()
    ));
    let said = kit.fails("imgdecl::pip::conflict");
    assert!(said.contains("src and win have no wheel for"), "{said}");
    assert!(
        said.contains("and none-at-all and nor-this are in no index"),
        "{said}"
    );
    assert!(
        said.contains("r.txt:2: src 1.0 has no wheel, only sources"),
        "{said}"
    );
}

#[test]
fn overrides_take_the_place_of_what_is_asked_for() {
    let own = index(
        Shape::default(),
        &[
            ("six", "1.0", &[]),
            ("six", "2.0", &[]),
            ("app", "1.0", &["six<2"]),
        ],
    );
    let kit = Kit::new(&format!("-i {}\napp\nsix==1.0\n", own.url()));
    let keys = |overrides: &str| format!("requirements = [\"r.txt\"]\noverrides = [{overrides}]");
    kit.manifest("", &keys("\"six==2.0\""));
    kit.ok(&["lock"]);
    assert!(kit.lock().contains("six-2.0"), "{}", kit.lock());
    // A checkout that another team's file names.
    for line in [
        "six @ git+https://h.example/six.git@abc ; os_name == 'posix'",
        "git+https://h.example/six.git#egg=six",
        "-e git+https://h.example/six.git#egg=six",
        "-e six@git+https://h.example/six.git",
    ] {
        kit.space
            .write("r.txt", format!("-i {}\napp\n{line}\n", own.url()));
        kit.manifest("", "requirements = [\"r.txt\"]");
        let said = kit.fails("imgdecl::python::source");
        let is_editable = line.starts_with("-e");
        assert!(
            is_editable || said.contains("write `overrides = [\"six @ WHEEL\"]`"),
            "{said}"
        );
        kit.manifest("", &keys("\"six==2.0\""));
        kit.ok(&["lock"]);
        assert!(kit.lock().contains("six-2.0"), "{line}: {}", kit.lock());
    }
    // By a wheel of one's own.
    let wheel = Recipe::new("six", "7.0").make();
    kit.space.write(&format!("w/{}", wheel.file), &wheel.bytes);
    kit.manifest("", &keys("\"six @ w/six-7.0-py3-none-any.whl\""));
    kit.ok(&["build"]);
    assert!(kit.lock().contains("six-7.0"), "{}", kit.lock());
    // Hashes stand.
    kit.space.write(
        "r.txt",
        format!("six==1.0 --hash=sha256:{}\n", "0".repeat(64)),
    );
    let said = kit.fails("imgdecl::pip::inputs");
    assert!(said.contains("taken as they are"), "{said}");
}
