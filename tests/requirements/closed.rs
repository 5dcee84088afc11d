//! Requirements with hashes hold all that they need.

use super::kit::{Kit, index};
use crate::support::index::Shape;
use crate::support::wheel::Recipe;

/// A requirement with the hash of a made wheel.
fn hashed(recipe: &Recipe, name: &str, version: &str) -> String {
    format!("{name}=={version} --hash={}\n", recipe.make().sha256())
}

#[test]
fn what_lacks_is_named_all_at_once() {
    let a = || {
        Recipe::new("aa", "1.0")
            .requires("bb>=1")
            .requires("cc[x] ; os_name == 'posix'")
    };
    let a = || {
        a().requires("nn ; os_name == 'nt'")
            .requires("ee ; extra == 'e'")
    };
    let c = || {
        Recipe::new("cc", "1.0")
            .requires("dd ; extra == 'x'")
            .requires("ff ; extra == 'y'")
    };
    let b = || Recipe::new("bb", "1.0");
    let d = || Recipe::new("dd", "1.0").requires("bb<1");
    let made = [a().make(), b().make(), c().make(), d().make()];
    let own = crate::support::index::Index::start(
        Shape::default(),
        &[
            ("aa", &made[0]),
            ("bb", &made[1]),
            ("cc", &made[2]),
            ("dd", &made[3]),
        ],
    );
    let [ha, hb, hc, hd] = [
        hashed(&a(), "aa", "1.0"),
        hashed(&b(), "bb", "1.0"),
        hashed(&c(), "cc", "1.0"),
        hashed(&d(), "dd", "1.0"),
    ];
    let kit = Kit::new(&format!("-i {}\n{ha}", own.url()));
    let said = kit.fails("imgdecl::pip::closed");
    assert!(
        said.contains("bb and cc are needed, and are not among the requirements with hashes"),
        "{said}"
    );
    assert!(said.contains("aa 1.0 needs `bb>=1`"), "{said}");
    assert!(kit.lock().is_empty(), "{}", kit.lock());
    // The extra of what is there.
    kit.space
        .write("r.txt", format!("-i {}\n{ha}{hb}{hc}", own.url()));
    let said = kit.fails("imgdecl::pip::closed");
    assert!(said.contains("dd is needed, and is not among"), "{said}");
    assert!(said.contains("cc[x] 1.0 needs `dd"), "{said}");
    kit.space
        .write("r.txt", format!("-i {}\n{ha}{hb}{hc}{hd}", own.url()));
    let output = kit.ok(&["lock"]);
    assert_eq!(kit.wheels().len(), 4);
    assert!(
        output.stderr.contains("dd 1.0 needs `bb<1`"),
        "{}",
        output.stderr
    );
    kit.ok(&["build", "--locked"]);
    // An extra that is asked for.
    kit.space.write(
        "r.txt",
        format!("-i {}\naa[e]{}{hb}{hc}{hd}", own.url(), &ha[2..]),
    );
    let said = kit.fails("imgdecl::pip::closed");
    assert!(said.contains("ee is needed"), "{said}");
}

#[test]
fn what_pip_compile_leaves_out_is_told() {
    let needs = Recipe::new("needs", "1.0").requires("setuptools>=60");
    let (wheel, tools) = (needs.make(), Recipe::new("setuptools", "70.0").make());
    let all = [("needs", &wheel), ("setuptools", &tools)];
    let own = crate::support::index::Index::start(Shape::default(), &all);
    let kit = Kit::new(&format!(
        "-i {}\n{}",
        own.url(),
        hashed(&needs, "needs", "1.0")
    ));
    let said = kit.fails("imgdecl::pip::closed");
    assert!(
        said.contains(
            "pip-compile leaves `setuptools` out, unless it is run with `--allow-unsafe`"
        ),
        "{said}"
    );
}

#[test]
fn of_two_builds_with_hashes_the_later_one_is_taken() {
    let build = |number: &str| {
        let recipe = Recipe::new("six", "1.0").file("six/build.py", format!("n = {number}\n"));
        let mut wheel = recipe.make();
        wheel.file = format!("six-1.0-{number}-py3-none-any.whl");
        wheel
    };
    let (early, late) = (build("9"), build("10"));
    let all = [("six", &late), ("six", &early)];
    let own = crate::support::index::Index::start(Shape::default(), &all);
    let text = format!(
        "-i {}\nsix==1.0 --hash={} --hash={}\n",
        own.url(),
        early.sha256(),
        late.sha256()
    );
    let kit = Kit::new(&text);
    kit.ok(&["lock"]);
    let wheels = kit.wheels();
    assert!(wheels[0].contains("six-1.0-10-py3"), "{wheels:?}");
}

#[test]
fn sources_alone_are_told_as_that() {
    let kit = Kit::new("");
    let sources = index(Shape::default(), &[]);
    sources.fail(|request, _| {
        let name = request
            .path()
            .strip_prefix("/simple/")?
            .trim_end_matches('/')
            .to_owned();
        let text = format!(
            "<a href=\"../../files/{name}-1.0.tar.gz#sha256={}\">x</a>",
            "0".repeat(64)
        );
        let reply = crate::support::registry::Reply::new(200).text("text/html", text);
        Some((reply, crate::support::registry::Delivery::default()))
    });
    let hash = "0".repeat(64);
    let text = ["docopt", "promise"].map(|it| format!("{it}==1.0 --hash=sha256:{hash}\n"));
    kit.space
        .write("r.txt", format!("-i {}\n{}", sources.url(), text.concat()));
    let said = kit.fails("imgdecl::pip::sources");
    for words in [
        "docopt 1.0 has no wheel, only sources",
        "promise 1.0 has no wheel",
    ] {
        assert!(said.contains(words), "{said}");
    }
    // Without hashes: all at once, too, and what is in no index with them.
    let text = format!("-i {}\ndocopt\npromise\n", sources.url());
    kit.space.write("r.txt", text);
    let said = kit.fails("imgdecl::pip::conflict");
    assert!(
        said.contains("docopt and promise have no wheel for linux"),
        "{said}"
    );
    assert!(
        said.contains("r.txt:2: docopt 1.0 has no wheel, only sources"),
        "{said}"
    );
}
