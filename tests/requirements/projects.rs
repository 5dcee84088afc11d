//! What uv's tables of a pyproject.toml say is obeyed.

use super::kit::{Kit, index};
use crate::support::index::Shape;
use crate::support::wheel::Recipe;

const PROJECT: &str = "[project]\nname = \"own\"\nversion = \"0\"\n";

fn kit(text: &str) -> Kit {
    let kit = Kit::new("");
    kit.space
        .write("pyproject.toml", format!("{PROJECT}{text}"));
    kit.manifest("", "pyproject = \"pyproject.toml\"");
    kit
}

#[test]
fn a_source_names_the_only_index() {
    let own = index(
        Shape::default(),
        &[("six", "0.5", &[]), ("other", "9.0", &[])],
    );
    let kit = kit(&format!(
        "dependencies = [\"six\", \"other\"]\n[tool.uv.sources]\nsix = {{ index = \"corp\" }}\n\
         [[tool.uv.index]]\nname = \"corp\"\nurl = \"{}\"\nexplicit = true\n",
        own.url()
    ));
    kit.ok(&["lock"]);
    let wheels = kit.wheels().join("\n");
    assert!(
        wheels.contains("six-0.5") && wheels.contains("other-1.0"),
        "{wheels}"
    );
    assert_eq!(wheels.matches("index=").count(), 1, "{wheels}");
    let asked = kit.default.take();
    assert!(asked.iter().all(|it| !it.contains("six")), "{asked:?}");
    let asked = own.take();
    assert!(asked.iter().all(|it| !it.contains("other")), "{asked:?}");
    kit.forget();
    kit.ok(&["build", "--locked"]);
    let asked = kit.default.take();
    assert!(asked.iter().all(|it| !it.contains("six")), "{asked:?}");
}

#[test]
fn indexes_of_a_project_are_asked_in_their_order() {
    let first = index(Shape::default(), &[("six", "0.5", &[])]);
    let main = index(
        Shape::default(),
        &[("six", "9.0", &[]), ("priv", "1.0", &[])],
    );
    let kit = kit(&format!(
        "dependencies = [\"six\", \"priv\"]\n[[tool.uv.index]]\nurl = \"{}\"\n[[tool.uv.index]]\nurl = \"{}\"\ndefault = true\n",
        first.url(),
        main.url()
    ));
    kit.ok(&["lock"]);
    let wheels = kit.wheels().join("\n");
    assert!(
        wheels.contains("six-0.5") && wheels.contains("priv-1.0"),
        "{wheels}"
    );
    assert_eq!(kit.default.take(), [""; 0]);
}

#[test]
fn overrides_and_constraints_of_a_project_count() {
    let own = index(
        Shape::default(),
        &[
            ("six", "1.16", &[]),
            ("six", "1.17", &[]),
            ("old", "1.0", &[]),
            ("old", "2.0", &[]),
        ],
    );
    let kit = kit(&format!(
        "requires-python = \">=3.12\"\ndependencies = [\"six<1.17\", \"old\"]\n[tool.uv]\nindex-url = \"{}\"\n\
         override-dependencies = [\"six==1.17\"]\nconstraint-dependencies = [\"old<2\"]\n",
        own.url()
    ));
    kit.ok(&["lock"]);
    let wheels = kit.wheels().join("\n");
    assert!(
        wheels.contains("six-1.17") && wheels.contains("old-1.0"),
        "{wheels}"
    );
}

#[test]
fn another_python_is_refused() {
    let kit = kit("requires-python = \">=3.13\"\ndependencies = [\"six\"]\n");
    let said = kit.fails("imgdecl::python::pyproject");
    assert!(
        said.contains("for Python >=3.13, and the target has 3.12"),
        "{said}"
    );
}

#[test]
fn indexes_of_poetry_are_the_manifests_business() {
    let kit = kit(
        "dependencies = [\"six\"]\n[[tool.poetry.source]]\nname = \"corp\"\nurl = \"https://corp.example/simple\"\n",
    );
    let said = kit.fails("imgdecl::python::source");
    assert!(
        said.contains("poetry takes packages from this index"),
        "{said}"
    );
    kit.manifest(
        &format!("[index]\nurl = \"{}\"\n", kit.default.url()),
        "pyproject = \"pyproject.toml\"",
    );
    kit.ok(&["lock"]);
}

#[test]
fn a_workspace_root_that_installs_nothing_is_refused() {
    let wheel = Recipe::new("six", "1.0").make();
    let lock = format!(
        "version = 1\nrequires-python = \">=3.11\"\n[[package]]\nname = \"mono\"\nversion = \"0\"\nsource = {{ virtual = \".\" }}\n\
         [[package]]\nname = \"api\"\nversion = \"0\"\nsource = {{ editable = \"api\" }}\ndependencies = [{{ name = \"six\" }}]\n\
         [[package]]\nname = \"six\"\nversion = \"1.0\"\nsource = {{ registry = \"https://i.example/simple\" }}\n\
         sdist = {{ url = \"https://i.example/six-1.0.tar.gz\", hash = \"sha256:{}\" }}\n",
        "0".repeat(64)
    );
    let kit = Kit::new("");
    kit.space.write("uv.lock", lock);
    kit.manifest("", "uv_lock = \"uv.lock\"");
    let said = kit.fails("imgdecl::python::toml");
    assert!(said.contains("nothing would be installed"), "{said}");
    assert!(said.contains("the workspace has api"), "{said}");
    // Sources alone, and a wheel of one's own for them.
    kit.manifest("", "uv_lock = \"uv.lock\"\npackage = \"api\"");
    let said = kit.fails("imgdecl::python::wheel");
    assert!(said.contains("the lock names only sources"), "{said}");
    kit.space.write(&format!("w/{}", wheel.file), &wheel.bytes);
    kit.manifest(
        "",
        "uv_lock = \"uv.lock\"\npackage = \"api\"\nfind_links = [\"w\"]",
    );
    kit.ok(&["build"]);
    assert!(
        kit.lock().contains("six-1.0-py3-none-any.whl"),
        "{}",
        kit.lock()
    );
}

#[test]
fn a_wheel_of_ones_own_stands_in_for_what_a_pipfile_lock_lacks() {
    let lock = |name: &str| {
        format!(
            "{{\"_meta\": {{\"pipfile-spec\": 6, \"requires\": {{}}, \"sources\": []}}, \"default\": {{\n\
             \"{name}\": {{\"hashes\": [\"sha256:{}\"], \"version\": \"==1.0\"}}\n}}}}\n",
            "0".repeat(64)
        )
    };
    let kit = Kit::new("");
    kit.space.write("Pipfile.lock", lock("six"));
    kit.manifest("", "lock = \"Pipfile.lock\"");
    let said = kit.fails("imgdecl::pip::hash");
    assert!(
        said.contains("lock again with the tool that made the lock"),
        "{said}"
    );
    // One of the locked version will do, and no digest need be written into a file that Pipenv makes.
    let own = Recipe::new("six", "1.0")
        .file("six/own.py", "own = True\n")
        .make();
    kit.space.write(&format!("w/{}", own.file), &own.bytes);
    kit.manifest("", "lock = \"Pipfile.lock\"\nfind_links = [\"w\"]");
    kit.ok(&["build"]);
    let digest = own.sha256().to_string();
    assert!(kit.lock().contains(&digest), "{}", kit.lock());
    kit.ok(&["build", "--locked"]);
}
