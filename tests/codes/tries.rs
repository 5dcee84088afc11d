//! Runs that end with codes that no golden case shows.

use std::fs;

use super::{report, reported, table};
use crate::support::index::{Index, Shape};
use crate::support::wheel::Recipe;
use crate::support::{BINARY, Output, Space, peer};

/// A small image that is right.
const IMAGE: &str =
    "[image.app]\nbase = \"scratch\"\nlayers = [{ files = { text = { \"/x\" = \"x\" } } }]\n";

/// An image of one target, with `rest` before it.
fn with(rest: &str) -> String {
    format!("{rest}\n[image.app]\nbase = \"scratch\"\nlayers = [\"it\"]\n")
}

/// The code, the exit code, the manifest, and what is run by `sh -eu`: its last command decides. A manifest without an image
/// gets one with the layer `it`.
const TRIES: &[(&str, i32, &str, &str)] = &[
    ("imgdecl::cli::rule", 2, "", "$IMGDECL rules nothing"),
    ("imgdecl::cli::code", 2, "", "$IMGDECL explain nothing"),
    (
        "imgdecl::cli::environment",
        2,
        IMAGE,
        "SOURCE_DATE_EPOCH=soon $IMGDECL plan",
    ),
    (
        "imgdecl::cli::folder",
        2,
        "",
        "mkdir gone; cd gone; rmdir ../gone; $IMGDECL plan",
    ),
    ("imgdecl::stdout", 1, "", "$IMGDECL rules > /dev/full"),
    (
        "imgdecl::config::unreadable",
        2,
        "",
        "IMGDECL_CONFIG=absent $IMGDECL inspect docker://localhost:1/a",
    ),
    (
        "imgdecl::config::syntax",
        2,
        "",
        "echo 'a =' > c.toml; IMGDECL_CONFIG=c.toml $IMGDECL inspect docker://localhost:1/a",
    ),
    (
        "imgdecl::config::unknown_key",
        2,
        "",
        "echo '[registry.\"a.example\"]\ncolour = 1' > c.toml; IMGDECL_CONFIG=c.toml $IMGDECL inspect docker://localhost:1/a",
    ),
    (
        "imgdecl::config::value",
        2,
        "",
        "echo '[registry.\"a.example\"]\ninsecure = 1' > c.toml; IMGDECL_CONFIG=c.toml $IMGDECL inspect docker://localhost:1/a",
    ),
    (
        "imgdecl::registry::settings",
        3,
        "",
        "echo 'no certificate' > ca.pem; echo '[registry.\"a.invalid\"]\nca = \"ca.pem\"' > c.toml; \
         IMGDECL_CONFIG=c.toml $IMGDECL inspect docker://a.invalid/a",
    ),
    (
        "imgdecl::files::gitignore",
        1,
        "[files.it]\nsrc = \"app\"\ndest = \"/app\"\ngitignore = true\n",
        "mkdir app; echo '{a' > app/.gitignore; $IMGDECL build",
    ),
    (
        "imgdecl::files::name",
        1,
        "[files.it]\nsrc = \"app\"\ndest = \"/app\"\n",
        "mkdir app; touch \"app/$(printf '\\377')\"; $IMGDECL build",
    ),
    (
        "imgdecl::files::no_src",
        2,
        "[files.it]\ninclude = [\"a\"]\ntext = { \"/x\" = \"x\" }\n",
        "$IMGDECL plan",
    ),
    (
        "imgdecl::files::patterns",
        1,
        "[files.it]\nsrc = \"f\"\ndest = \"/f\"\ninclude = [\"f\"]\n",
        "touch f; $IMGDECL build",
    ),
    (
        "imgdecl::host::kind",
        1,
        "[tar.it]\nsrc = \"app\"\ndest = \"/app\"\n",
        "mkdir app; $IMGDECL build",
    ),
    (
        "imgdecl::tar::blank",
        1,
        "[tar.it]\nsrc = \"a.tar\"\n",
        "touch a.tar; $IMGDECL build",
    ),
    (
        "imgdecl::layer::links",
        1,
        "[image.below]\nbase = \"scratch\"\nlayers = [{ files = { symlinks = { \"/a\" = \"/b\", \"/b\" = \"/a\" } } }]\n\
         [image.app]\nbase = \"below\"\nlayers = [{ files = { text = { \"/a/x\" = \"x\" } } }]\n",
        "$IMGDECL build",
    ),
    (
        "imgdecl::group::empty",
        2,
        "[group.all]\nimages = []\n[image.app]\nbase = \"scratch\"\nlayers = [{ files = { text = { \"/x\" = \"x\" } } }]\n",
        "$IMGDECL plan all",
    ),
    (
        "imgdecl::image::reference",
        2,
        "[image.a]\nbase = \"scratch\"\nrepository = \"r.example/a\"\nlayers = [{ files = { text = { \"/x\" = \"x\" } } }]\n\
         [image.b]\nbase = \"scratch\"\nrepository = \"r.example/a\"\nlayers = [{ files = { text = { \"/x\" = \"x\" } } }]\n",
        "$IMGDECL plan",
    ),
    (
        "imgdecl::spec::value",
        2,
        "[image.app]\nbase = \"scratch\"\nhealthcheck = { test = [\"NONE\"], retries = -1 }\n\
         layers = [{ files = { text = { \"/x\" = \"x\" } } }]\n",
        "$IMGDECL plan",
    ),
    (
        "imgdecl::value::mtime",
        2,
        "[files.it]\ntext = { \"/x\" = \"x\" }\nmtime = -1\n",
        "$IMGDECL plan",
    ),
    (
        "imgdecl::value::pattern",
        2,
        "[files.it]\nsrc = \"app\"\ndest = \"/app\"\ninclude = [\"[\"]\n",
        "mkdir app; $IMGDECL plan",
    ),
    (
        "imgdecl::value::strip",
        2,
        "[tar.it]\nsrc = \"a.tar\"\nstrip = 256\n",
        "touch a.tar; $IMGDECL plan",
    ),
    (
        "imgdecl::pip::libc",
        2,
        "[pip.it]\npackages = [\"a\"]\npython = \"3.11\"\nlibc = \"other 1\"\n",
        "$IMGDECL plan",
    ),
    (
        "imgdecl::pip::exclude_newer",
        2,
        "[pip.it]\npackages = [\"a\"]\npython = \"3.11\"\nexclude_newer = \"soon\"\n",
        "$IMGDECL plan",
    ),
    (
        "imgdecl::python::option",
        2,
        "[pip.it]\nrequirements = [\"r.txt\"]\npython = \"3.11\"\n",
        "echo '--no-such-option' > r.txt; $IMGDECL plan",
    ),
    (
        "imgdecl::python::hash",
        2,
        "[pip.it]\nrequirements = [\"r.txt\"]\npython = \"3.11\"\n",
        "echo 'a==1 --hash=md5:00' > r.txt; $IMGDECL plan",
    ),
    (
        "imgdecl::python::variable",
        2,
        "[pip.it]\nrequirements = [\"r.txt\"]\npython = \"3.11\"\n",
        "echo '--index-url ${NOT_SET}' > r.txt; $IMGDECL plan",
    ),
    (
        "imgdecl::inspect::layer",
        2,
        IMAGE,
        "$IMGDECL inspect app --layer 9",
    ),
    (
        "imgdecl::inspect::platform",
        2,
        "[defaults]\nplatforms = [\"linux/amd64\", \"linux/arm64\"]\n[image.app]\nbase = \"scratch\"\n\
         layers = [{ files = { text = { \"/x\" = \"x\" } } }]\n",
        "$IMGDECL inspect app --raw --config",
    ),
    (
        "imgdecl::inspect::raw",
        2,
        IMAGE,
        "$IMGDECL build --output docker-archive:a.tar; mkdir d; tar -xf a.tar -C d; rm d/index.json d/oci-layout; \
         tar -cf b.tar -C d .; $IMGDECL inspect docker-archive:b.tar --raw",
    ),
    (
        "imgdecl::push::archive",
        1,
        "[defaults]\nrepository = \"localhost:1\"\n[image.app]\nbase = \"scratch\"\n\
         layers = [{ files = { text = { \"/x\" = \"x\" } } }]\n",
        "$IMGDECL build --output docker-archive:a.tar; mkdir d; tar -xf a.tar -C d; rm d/index.json d/oci-layout; \
         tar -cf b.tar -C d .; $IMGDECL push --from docker-archive:b.tar",
    ),
    (
        "imgdecl::resolve::file",
        2,
        IMAGE,
        "$IMGDECL resolve absent.yaml",
    ),
    (
        "imgdecl::resolve::metadata",
        2,
        IMAGE,
        "touch a.yaml; $IMGDECL resolve --metadata absent a.yaml",
    ),
    (
        "imgdecl::run::terminal",
        2,
        IMAGE,
        "$IMGDECL run --tty app < /dev/null",
    ),
    (
        "imgdecl::unpack",
        2,
        IMAGE,
        "mkdir d; touch d/f; $IMGDECL unpack app d",
    ),
    (
        "imgdecl::unpack::bundle",
        1,
        "[image.app]\nbase = \"scratch\"\ncmd = [\"/x\"]\nlayers = [{ files = { symlinks = { \"/proc\" = \"/x\" } } }]\n",
        "$IMGDECL unpack --bundle app d",
    ),
    (
        "imgdecl::verify::several",
        2,
        "[image.a]\nbase = \"scratch\"\nlayers = [{ files = { text = { \"/x\" = \"x\" } } }]\n\
         [image.b]\nbase = \"scratch\"\nlayers = [{ files = { text = { \"/x\" = \"x\" } } }]\n",
        "$IMGDECL verify --against docker://localhost:1/a",
    ),
    (
        "imgdecl::verify::folder",
        1,
        IMAGE,
        "TMPDIR=/absent $IMGDECL verify",
    ),
    (
        "imgdecl::verify::copy",
        1,
        IMAGE,
        "d=deep; for i in $(seq 210); do d=$d/d; done; mkdir -p $d; $IMGDECL verify",
    ),
    (
        "imgdecl::wheel::scheme",
        1,
        "[pip.it]\npackages = [\"hello\"]\npython = \"3.11\"\nlibc = \"glibc 2.28\"\nfind_links = [\"wheels\"]\n\
         layout = \"venv\"\nprefix = \"/a'b\"\n",
        "$IMGDECL build --offline",
    ),
    (
        "imgdecl::image::no_platform",
        1,
        IMAGE,
        "$IMGDECL build --output oci:l; $IMGDECL inspect --platform linux/s390x oci:l",
    ),
    (
        "imgdecl::layer::path",
        1,
        "[files.it]\nsrc = \"app\"\ndest = \"DEST\"\n",
        "d=; for i in $(seq 2040); do d=$d/d; done; sed -i s!DEST!$d! image.toml; n=$(seq -s- 30); \
         mkdir app; touch app/$n; $IMGDECL build",
    ),
    (
        "imgdecl::verify::again",
        1,
        "[base.it]\nlayout = \"imgdecl-out\"\nref = \"a\"\n\
         [image.a]\nbase = \"scratch\"\nlayers = [{ files = { text = { \"/x\" = \"x\" } } }]\n\
         [image.b]\nbase = \"it\"\nlayers = [{ files = { text = { \"/y\" = \"x\" } } }]\n",
        "$IMGDECL build image.toml a; $IMGDECL verify image.toml b",
    ),
    (
        "imgdecl::python::wheel",
        1,
        "[pip.it]\npylock = \"pylock.toml\"\npython = \"3.11\"\nlibc = \"glibc 2.28\"\n",
        "h=$(printf '0%.0s' $(seq 64)); url=https://h.invalid/native-1.0-cp311-cp311-win_amd64.whl; \
         printf 'lock-version = \"1.0\"\ncreated-by = \"x\"\n[[packages]]\nname = \"native\"\nversion = \"1.0\"\n\
         wheels = [{ url = \"%s\", hashes = { sha256 = \"%s\" } }]\n' $url $h > pylock.toml; $IMGDECL lock --offline",
    ),
    (
        "imgdecl::wheel::script",
        1,
        "[pip.it]\npackages = [\"scripted\"]\npython = \"3.11\"\nlibc = \"glibc 2.28\"\nfind_links = [\"wheels\"]\n",
        "$IMGDECL build --offline",
    ),
    (
        "imgdecl::wheel::unsafe",
        1,
        "[pip.it]\npackages = [\"leaving\"]\npython = \"3.11\"\nlibc = \"glibc 2.28\"\nfind_links = [\"wheels\"]\n",
        "$IMGDECL build --offline",
    ),
];

/// Those that need a runtime.
const TRIES_OF_RUNS: &[(&str, i32, &str, &str)] = &[
    (
        "imgdecl::run::bundle",
        1,
        "[image.app]\nbase = \"scratch\"\ncmd = [\"/x\"]\nlayers = [{ files = { symlinks = { \"/proc\" = \"/x\" } } }]\n",
        "$IMGDECL run app",
    ),
    (
        "imgdecl::run::unpack",
        1,
        IMAGE,
        "$IMGDECL build --output oci:l; cd l/blobs/sha256; \
         for f in *; do case $(head -c1 $f) in '{') ;; *) printf x > $f;; esac; done; cd -; $IMGDECL run oci:l",
    ),
];

/// A space with a manifest and wheels.
fn space(manifest: &str) -> Space {
    let space = Space::new();
    if !manifest.is_empty() {
        let text = match manifest.contains("[image.") {
            true => manifest.to_owned(),
            false => with(manifest),
        };
        space.write("image.toml", text);
    }
    for wheel in [
        Recipe::new("hello", "1.0"),
        Recipe::new("hello", "2.0"),
        Recipe::new("scripted", "1.0").script("../hello", "scripted:main"),
        Recipe::new("leaving", "1.0").file("../leaving", "x"),
    ] {
        let wheel = wheel.make();
        space.write(&format!("wheels/{}", wheel.file), wheel.bytes);
    }
    space
}

/// Says what is wrong where a run did not end with a code and an exit code.
fn judge(code: &str, exit: i32, output: &Output) -> Option<String> {
    let short = code.strip_prefix("imgdecl::").expect("a code");
    let is_right = reported(&output.stderr).contains(short) && output.status == exit;
    (!is_right).then(|| {
        let Output {
            status,
            stdout,
            stderr,
        } = output;
        format!("{code} and exit code {exit} are expected: {status}\n{stdout}{stderr}")
    })
}

fn run(tries: &[(&str, i32, &str, &str)]) {
    let table = table();
    let mut wrong = Vec::new();
    for (code, exit, manifest, run) in tries {
        let space = space(manifest);
        let mut command = space.program("sh");
        command.args(["-euc", run]).env("IMGDECL", BINARY);
        wrong.extend(judge(code, *exit, &Output::of(&mut command)));
        let exits = code.strip_prefix("imgdecl::").and_then(|it| table.get(it));
        if exits.is_none_or(|exits| !exits.contains(&i64::from(*exit))) {
            wrong.push(format!(
                "{code} leads to {exit}, which docs/errors.md does not say"
            ));
        }
    }
    report(&wrong);
}

#[test]
fn codes_that_no_golden_case_shows() {
    run(TRIES);
}

#[test]
fn codes_of_runs() {
    if peer("runc").is_some() {
        run(TRIES_OF_RUNS);
    }
}

/// A package was locked, and its index does not give it now.
#[test]
fn codes_of_package_indexes() {
    let wheel = Recipe::new("hello", "1.0").make();
    let index = Index::start(Shape::default(), &[("hello", &wheel)]);
    let space = Space::new();
    let pip = "[pip.it]\npackages = [\"hello\"]\npython = \"3.11\"\nlibc = \"glibc 2.28\"\n";
    space.write("image.toml", with(pip));
    let lock = space
        .command(&["lock"])
        .env("UV_DEFAULT_INDEX", index.url())
        .output();
    assert!(lock.expect("imgdecl").status.success());
    let build = |url: &str| {
        let _ = fs::remove_dir_all(space.cache());
        Output::of(space.command(&["build"]).env("UV_DEFAULT_INDEX", url))
    };
    let mut wrong = Vec::new();
    for (code, status) in [
        ("imgdecl::index::denied", 403),
        ("imgdecl::index::refused", 410),
        ("imgdecl::index::unavailable", 503),
    ] {
        index.refuse(status);
        wrong.extend(judge(code, 3, &build(&index.url())));
    }
    wrong.extend(judge(
        "imgdecl::index::transport",
        3,
        &build("http://127.0.0.1:1/simple"),
    ));
    wrong.extend(judge(
        "imgdecl::index::source",
        1,
        &build("ftp://index.invalid/"),
    ));
    let other = Recipe::new("hello", "2.0").make();
    let other = Index::start(Shape::default(), &[("hello", &other)]);
    let mut export = space.command(&["lock", "--export", "pylock"]);
    let output = Output::of(export.env("UV_DEFAULT_INDEX", other.url()));
    wrong.extend(judge("imgdecl::pip::export", 1, &output));
    let home = space.path().with_file_name("home");
    fs::create_dir_all(home.join(".config/uv")).expect("a folder");
    fs::write(home.join(".config/uv/uv.toml"), "index = 1\n").expect("a file");
    let _ = fs::remove_dir_all(space.cache());
    wrong.extend(judge("imgdecl::index::config", 1, &space.run(&["build"])));
    report(&wrong);
}
