//! What is told of wheels that cannot be read, or that say other things than their index.

use imgdecl::parts::oci::Digest;

use crate::support::Space;
use crate::support::index::{Beside, Index, Shape, Wheel};
use crate::support::wheel::Recipe;

/// Makes a folder that asks for packages; those of `wheels` lie in a folder.
fn space(packages: &str, wheels: &[(&str, Vec<u8>)]) -> Space {
    let space = Space::new();
    let links = match wheels {
        [] => "",
        _ => "find_links = [\"wheels\"]\n",
    };
    space.write(
        "image.toml",
        format!(
            "[pip.deps]\npackages = [{packages}]\n{links}python = \"3.11\"\nlibc = \"glibc 2.36\"\nprefix = \"/usr/local\"\n\n\
             [image.app]\nbase = \"scratch\"\nlayers = [\"deps\"]\nplatforms = [\"linux/amd64\"]\n"
        ),
    );
    for (name, bytes) in wheels {
        space.write(&format!("wheels/{name}"), bytes);
    }
    space
}

fn pk(version: &str) -> Wheel {
    Recipe::new("pk", version).make()
}

/// Two archives in a row: one reader sees the first, others the last.
fn two_in_a_row() -> Vec<u8> {
    let evil = Recipe::new("pk", "1.0").file("pk/evil.py", "x").make();
    let good = Recipe::new("pk", "1.0").file("pk/good.py", "x").make();
    [evil.bytes, good.bytes].concat()
}

#[test]
fn a_wheel_of_two_archives_is_refused_as_what_it_is() {
    let name = "pk-1.0-py3-none-any.whl";
    let space = space("\"pk\"", &[(name, two_in_a_row())]);
    for command in ["lock", "build"] {
        let output = space.run(&[command]);
        assert_ne!(output.status, 0);
        let text = &output.stderr;
        for part in [
            "imgdecl::wheel::malformed",
            "pk-1.0-py3-none-any.whl: the wheel is not a sound zip archive: its directory is not where",
            "no other version of pk is at hand",
            "fetch the wheel again",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(
            !text.contains("pip::conflict") && !text.contains("loosen"),
            "{text}"
        );
    }
}

#[test]
fn a_wheel_that_is_another_one_is_told() {
    let named = pk("1.0").bytes;
    let space = space("\"pk\"", &[("pk-2.0-py3-none-any.whl", named)]);
    let output = space.run(&["lock"]);
    let text = &output.stderr;
    assert!(text.contains("imgdecl::wheel::other"), "{text}");
    assert!(
        text.contains("pk-2.0-py3-none-any.whl calls itself pk 1.0"),
        "{text}"
    );
    assert!(text.contains("give it its right name"), "{text}");
}

#[test]
fn what_falls_away_is_warned_of() {
    let twice = {
        // One name twice in the directory, with the same bytes: it is read as that of another member.
        let mut bytes = Recipe::new("pk", "2.0")
            .file("pk/x.py", "x")
            .file("pk/y.py", "x")
            .make()
            .bytes;
        while let Some(at) = bytes.windows(7).position(|it| it == b"pk/y.py") {
            bytes[at + 3] = b'x';
        }
        bytes
    };
    for (bytes, why) in [
        (twice, "the wheel has two members named `pk/x.py`"),
        (pk("2.1").bytes, "calls itself pk 2.1"),
        (b"no archive at all".to_vec(), "it has no end"),
    ] {
        let one = pk("1.0").bytes;
        let wheels = [
            ("pk-1.0-py3-none-any.whl", one),
            ("pk-2.0-py3-none-any.whl", bytes),
        ];
        let space = space("\"pk\"", &wheels);
        let output = space.ok(&["lock"]);
        let text = &output.stderr;
        let start = "warning: deps: pk 2.0 is left out, and 1.0 taken: pk-2.0-py3-none-any.whl";
        assert!(text.contains(start) && text.contains(why), "{text}");
    }
}

#[test]
fn metadata_of_an_index_that_hides_a_dependency_is_refused() {
    let mut wheel = Recipe::new("pk", "1.0").requires("needed").make();
    let own = wheel.metadata.clone();
    wheel.metadata = "Metadata-Version: 2.1\nName: pk\nVersion: 1.0\n".to_owned();
    for beside in [Beside::Said, Beside::Silent] {
        let shape = Shape {
            beside,
            ..Shape::default()
        };
        let index = Index::start(shape, &[("pk", &wheel)]);
        let space = space("\"pk\"", &[]);
        let url = index.url();
        space.ok(&["lock", "--index-url", &url]);
        let lock = std::fs::read_to_string(space.path().join("image.lock")).expect("image.lock");
        let said = Digest::of(wheel.metadata.as_bytes());
        assert!(lock.contains(&format!(" metadata={said}")), "{lock}");
        let args = [
            "build",
            "--locked",
            "--output",
            "oci:out",
            "--index-url",
            &url,
        ];
        let output = space.run(&args);
        let text = &output.stderr;
        assert_ne!(output.status, 0, "{text}");
        assert!(text.contains("imgdecl::wheel::metadata"), "{text}");
        for digest in [said, Digest::of(own.as_bytes())] {
            assert!(
                text.contains(digest.hex().get(..16).expect("hex")),
                "{text}"
            );
        }
    }
    // Where they agree, all is well, and a second build finds all there.
    wheel.metadata = "Metadata-Version: 2.1\nName: pk\nVersion: 1.0\n".to_owned();
    wheel.bytes = pk("1.0").bytes;
    let index = Index::start(Shape::default(), &[("pk", &wheel)]);
    let space = space("\"pk\"", &[]);
    let url = index.url();
    for _ in 0..2 {
        space.ok(&["build", "--output", "oci:out", "--index-url", &url]);
    }
}
