//! What options of requirements files say of places, one by one.

use super::kit::{Kit, flat, index};
use crate::support::index::Shape;
use crate::support::registry::{Delivery, Reply};
use crate::support::wheel::Recipe;

/// An index that has `six` 99.0 and a private package that needs it.
fn private(shape: Shape) -> crate::support::index::Index {
    index(shape, &[("six", "99.0", &[]), ("priv", "1.0", &["six"])])
}

#[test]
fn the_index_of_a_file_is_the_only_one() {
    let own = private(Shape::default());
    let kit = Kit::new(&format!("-i {}\npriv\n", own.url()));
    let said = flat(&kit.ok(&["lock"]).stderr);
    assert!(
        said.contains(&format!(
            "d: r.txt:1 says where packages come from: 2 from {}",
            own.url()
        )),
        "{said}"
    );
    assert_eq!(kit.default.take(), [""; 0], "a private name went astray");
    let wheels = kit.wheels();
    assert_eq!(wheels.len(), 2, "{wheels:?}");
    for (line, start) in wheels.iter().zip(["priv-1.0", "six-99.0"]) {
        assert!(line.contains(start), "{line}");
        assert!(line.contains(&format!(" index={} ", own.url())), "{line}");
    }
    // A later build asks the place that the lock names, and no other.
    kit.forget();
    own.take();
    kit.ok(&["build", "--locked"]);
    assert!(own.take().iter().any(|it| it.contains("/files/priv-1.0")));
    assert_eq!(kit.default.take(), [""; 0]);
    // Where that is gone, there is no other.
    kit.forget();
    own.refuse(404);
    let output = kit.run(&["build", "--locked"]);
    assert_eq!(output.status, 3, "{}", output.stderr);
    assert_eq!(kit.default.take(), [""; 0]);
}

#[test]
fn another_option_is_another_lock() {
    let (one, two) = (private(Shape::default()), private(Shape::default()));
    let kit = Kit::new(&format!("-i {}\nsix\n", one.url()));
    kit.ok(&["lock"]);
    kit.ok(&["build", "--locked"]);
    kit.space.write("r.txt", format!("-i {}\nsix\n", two.url()));
    let output = kit.run(&["build", "--locked"]);
    assert_eq!(output.status, 2, "{}", output.stderr);
    kit.ok(&["lock"]);
    assert!(kit.lock().contains(&two.url()), "{}", kit.lock());
}

#[test]
fn extra_indexes_stand_beside_the_default() {
    let own = private(Shape::default());
    let kit = Kit::new(&format!("--extra-index-url={}\npriv\nother\n", own.url()));
    let said = flat(&kit.ok(&["lock"]).stderr);
    let wheels = kit.wheels().join("\n");
    for (file, is_own) in [("priv-1.0", true), ("six-99.0", true), ("other-1.0", false)] {
        let line = wheels.lines().find(|it| it.contains(file)).expect(file);
        assert_eq!(line.contains("index="), is_own, "{line}");
    }
    assert!(
        said.contains("several of the places that r.txt:1 names"),
        "{said}"
    );
    assert!(said.contains("six 99.0 from 127.0.0.1"), "{said}");
    // The build asks each for its own.
    kit.forget();
    own.take();
    kit.default.take();
    kit.ok(&["build", "--locked"]);
    assert!(kit.default.take().iter().all(|it| it.contains("other")));
    assert!(own.take().iter().all(|it| !it.contains("other")));
    // What one alone has is named for it.
    kit.manifest(
        &format!(
            "[index]\npackages = {{ \"six\" = \"{}\" }}\n",
            kit.default.url()
        ),
        "requirements = [\"r.txt\"]",
    );
    kit.ok(&["lock", "--update", "d"]);
    assert!(kit.lock().contains("six-1.0-"), "{}", kit.lock());
}

#[test]
fn no_index_asks_none() {
    let kit = Kit::new("--no-index\n--find-links ../w\nsix\n");
    kit.space
        .write("app/r.txt", "--no-index\n--find-links ../w\nsix\n");
    kit.manifest("", "requirements = [\"app/r.txt\"]");
    let said = kit.fails("imgdecl::pip::find_links");
    assert!(said.contains("there is no such folder"), "{said}");
    let wheel = Recipe::new("six", "99.0").make();
    kit.space.write(&format!("w/{}", wheel.file), &wheel.bytes);
    kit.ok(&["build"]);
    assert!(
        kit.lock().contains(" w/six-99.0-py3-none-any.whl"),
        "{}",
        kit.lock()
    );
    kit.space.write("app/r.txt", "--no-index\nsix\n");
    let said = kit.fails("imgdecl::pip::conflict");
    assert!(
        said.contains("no index is asked: so says app/r.txt:1"),
        "{said}"
    );
    assert_eq!(kit.default.take(), [""; 0]);
}

#[test]
fn links_are_on_a_page_or_in_a_folder() {
    let kit = Kit::new("");
    let files = private(Shape::default());
    let page = index(Shape::default(), &[]);
    let text = format!(
        "<a href=\"http://{0}/files/six-99.0-py3-none-any.whl\">six</a>\n<a href=\"http://{0}/files/priv-1.0-py3-none-any.whl\">x</a>",
        files.host()
    );
    page.fail(move |request, _| {
        let is_page = request.path() == "/w.html";
        is_page.then(|| {
            (
                Reply::new(200).text("text/html", text.clone()),
                Delivery::default(),
            )
        })
    });
    let url = format!("http://{}/w.html", page.host());
    kit.space.write("r.txt", format!("-f {url}\npriv\nother\n"));
    kit.ok(&["lock"]);
    let lock = kit.lock();
    assert!(lock.contains(&format!(" page={url} ")), "{lock}");
    assert!(
        lock.contains("six-99.0") && lock.contains("other-1.0"),
        "{lock}"
    );
    kit.forget();
    kit.default.take();
    kit.ok(&["build", "--locked"]);
    assert!(kit.default.take().iter().all(|it| it.contains("other")));
    // A folder is looked into beside the indexes: the newest counts.
    for (version, taken) in [("2.0", "six-2.0"), ("0.5", "six-1.0")] {
        let wheel = Recipe::new("six", version).make();
        let _ = std::fs::remove_dir_all(kit.space.path().join("w"));
        kit.space.write(&format!("w/{}", wheel.file), &wheel.bytes);
        kit.space.write("r.txt", "-f w\nsix\n");
        kit.ok(&["lock", "--update", "d"]);
        assert!(kit.lock().contains(taken), "{}", kit.lock());
    }
}

#[test]
fn an_index_that_cannot_be_asked_is_an_error() {
    for option in ["-i", "--extra-index-url"] {
        let kit = Kit::new(&format!("{option} http://127.0.0.1:9/simple\nsix\n"));
        let said = kit.fails("imgdecl::pip::index");
        assert!(said.contains("127.0.0.1:9"), "{said}");
        assert!(said.contains("said by r.txt:1"), "{said}");
    }
    for (line, words) in [
        ("-i /srv/index", "no http or https URL"),
        ("--extra-index-url https://h/simple?token=x", "no query"),
        ("-f nowhere", "there is no such folder"),
        ("six --global-option=x", "asks for a build"),
        ("--no-require-hashes", "not supported"),
    ] {
        let kit = Kit::new(&format!("{line}\nsix\n"));
        let output = kit.run(&["lock"]);
        assert_eq!(output.status, 2, "{}", output.stderr);
        let said = flat(&output.stderr);
        assert!(said.contains(words) && said.contains("r.txt:1"), "{said}");
    }
}

#[test]
fn passwords_go_to_their_host_alone() {
    let login = Some(("me".to_owned(), "pass-of-the-index".to_owned()));
    let shape = Shape {
        login,
        ..Shape::default()
    };
    let own = private(shape);
    let url = own.url_of("me", "pass-of-the-index");
    let named = own.url_of("me", "${WORD}");
    for (line, variables) in [(url, None), (named, Some(("WORD", "pass-of-the-index")))] {
        let kit = Kit::new(&format!("-i {line}\npriv\n"));
        let variables: Vec<(&str, &str)> = variables.into_iter().collect();
        let output = kit.run_with(&["lock"], &variables);
        assert_eq!(output.status, 0, "{}", output.stderr);
        assert!(!output.stderr.contains("pass-of"), "{}", output.stderr);
        let is_told = output.stderr.contains("a password stands in this file");
        assert_eq!(is_told, variables.is_empty(), "{}", output.stderr);
        let lock = kit.lock();
        assert!(
            !lock.contains("pass-of") && lock.contains(&own.url()),
            "{lock}"
        );
        kit.forget();
        let output = kit.run_with(&["build", "--locked"], &variables);
        assert_eq!(output.status, 0, "{}", output.stderr);
        // A line beside it is shown, and the password is not.
        kit.space.write("r.txt", format!("-i {line}\npriv >= x\n"));
        let output = kit.run_with(&["lock"], &variables);
        assert_ne!(output.status, 0);
        assert!(!output.stderr.contains("pass-of"), "{}", output.stderr);
    }
}

#[test]
fn variables_are_those_of_the_environment() {
    let kit = Kit::new("six==${V}\n");
    let said = kit.fails("imgdecl::python::variable");
    assert!(!said.contains("imgdecl::python::requirement"), "{said}");
    let output = kit.run_with(&["lock"], &[("V", "1.0")]);
    assert_eq!(output.status, 0, "{}", output.stderr);
    // Another value asks for something else.
    let output = kit.run_with(&["build", "--locked"], &[("V", "2.0")]);
    assert_eq!(output.status, 2, "{}", output.stderr);
}

#[test]
fn a_bucket_that_forbids_what_it_has_not_is_read_by_its_list() {
    for is_listed in [true, false] {
        let own = private(Shape::default());
        let list = match is_listed {
            true => "<a href=\"/simple/six/\">six</a>",
            false => "<a href=\"/simple/other/\">other</a><a href=\"/simple/priv/\">p</a>",
        };
        own.fail(move |request, _| match request.path() {
            "/simple/" => Some((Reply::new(200).text("text/html", list), Delivery::default())),
            "/simple/other/" => Some((Reply::new(403), Delivery::default())),
            _ => None,
        });
        let kit = Kit::new(&format!("--extra-index-url {}\nother\n", own.url()));
        let output = kit.run(&["lock"]);
        assert_eq!(output.status == 0, is_listed, "{}", output.stderr);
        assert!(
            is_listed || flat(&output.stderr).contains("403"),
            "{}",
            output.stderr
        );
    }
}
