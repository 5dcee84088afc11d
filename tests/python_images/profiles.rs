//! Where packages go on the images that people build on, and which wheels fit there. The bases are made: the files by which
//! an image of each kind is known, in a registry of the tests. No network is needed, and no Python.

use std::collections::BTreeMap;
use std::fs;

use serde_json::json;

use super::kit::layer_of;
use crate::support::registry::{Flavour, Image, Server, Setup, layer};
use crate::support::wheel::Recipe;
use crate::support::{Space, validate};

/// A kind of base.
#[derive(Default)]
struct Profile<'a> {
    /// The paths and contents of each layer.
    layers: &'a [&'a [(&'a str, &'a str)]],
    env: &'a [&'a str],
    /// More keys of the pip target.
    keys: &'a str,
    /// What the lock is to say.
    lock: &'a [&'a str],
    /// The wheel of the package that has one for each platform.
    wheel: &'a str,
    /// Where the pure package goes, and the other one.
    site: &'a str,
    platsite: &'a str,
    /// Where the command goes, and what it names in its first line.
    script: (&'a str, &'a str),
}

/// The tags of the package that has a wheel for each platform.
const TAGS: [&str; 5] = [
    "cp39-abi3-manylinux_2_17_x86_64",
    "cp39-abi3-manylinux_2_34_x86_64",
    "cp39-abi3-manylinux_2_36_x86_64",
    "cp39-abi3-manylinux_2_39_x86_64",
    "cp39-abi3-musllinux_1_2_x86_64",
];

/// Locks and builds an image on such a base, and looks where the files are. Returns those of the layer.
#[track_caller]
fn check(profile: &Profile<'_>) -> BTreeMap<String, Vec<u8>> {
    let server = Server::start(Setup::default());
    let layers = profile.layers.iter().map(|files| {
        let files = files.iter();
        let files = files.map(|(path, text)| ((*path).to_owned(), (*text).to_owned()));
        layer(&files.collect::<BTreeMap<String, String>>())
    });
    let layers: Vec<Vec<u8>> = layers.collect();
    let layers: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
    let config = json!({"config": {"Env": profile.env}});
    let base = Image::single("linux/amd64", &layers, config, Flavour::Oci);
    server.load("team/base", "1", &base);

    let space = Space::new();
    let pure = Recipe::new("hello", "1.0")
        .requires("native")
        .script("hello", "hello:main");
    let mut wheels = vec![pure.make()];
    for tag in TAGS {
        let native = Recipe::new("native", "2.0").tag(tag);
        wheels.push(native.file("native/lib.so", format!("{tag} ")).make());
    }
    for wheel in &wheels {
        space.write(&format!("wheels/{}", wheel.file), &wheel.bytes);
    }
    space.write(
        "image.toml",
        format!(
            "[defaults]\ncompression = \"none\"\n\n[base.base]\nimage = \"{}/team/base:1\"\n\n\
             [pip.deps]\npackages = [\"hello\"]\nfind_links = [\"wheels\"]\nsplit = \"none\"\n{}\n\n\
             [image.app]\nbase = \"base\"\nlayers = [\"deps\"]\n",
            server.host(),
            profile.keys
        ),
    );
    space.ok(&["lock"]);
    let lock = fs::read_to_string(space.path().join("image.lock")).expect("image.lock");
    for line in profile.lock {
        assert!(lock.contains(line), "`{line}` is not in the lock:\n{lock}");
    }
    let wheel = format!("\"native-2.0-{}.whl\"", profile.wheel);
    assert!(lock.contains(&wheel), "{wheel} is not in the lock:\n{lock}");
    assert_eq!(lock.matches("\"native-2.0-").count(), 1, "{lock}");

    space.ok(&["build", "--locked", "--offline"]);
    let layout = space.path().join("imgdecl-out");
    validate(&layout);
    let files = layer_of(&layout, "app");
    let site = profile.site;
    for path in [
        format!("{site}/hello/__init__.py"),
        format!("{site}/hello-1.0.dist-info/RECORD"),
        format!("{}/native/lib.so", profile.platsite),
        format!("{}/native-2.0.dist-info/RECORD", profile.platsite),
    ] {
        let paths: Vec<&String> = files.keys().collect();
        assert!(files.contains_key(&path), "{path} is not in {paths:?}");
    }
    let (path, first) = profile.script;
    let script = String::from_utf8_lossy(&files[path]);
    assert!(script.starts_with(&format!("#!{first}\n")), "{script}");
    // RECORD finds the script from where it is.
    let record = String::from_utf8_lossy(&files[&format!("{site}/hello-1.0.dist-info/RECORD")]);
    let listed = record.lines().find(|line| line.contains("bin/hello"));
    let listed = listed.expect("the script").split(',').next();
    let up = listed.expect("a path").matches("../").count();
    let above: Vec<&str> = site.split('/').collect();
    let above = above[..above.len() - up].join("/");
    let rest = listed.expect("a path").trim_start_matches("../");
    assert_eq!(format!("{above}/{rest}"), path, "{record}");
    files
}

/// A C library that has symbols up to a version of glibc.
const GLIBC_36: &str = "\u{1}GLIBC_2.2.5\0GLIBC_2.36\0GLIBC_2.4\0GLIBC_PRIVATE\0";
const GLIBC_34: &str = "\u{1}GLIBC_2.2.5\0GLIBC_2.34\0GLIBC_2.17\0";

#[test]
fn dockers_python() {
    check(&Profile {
        layers: &[
            &[
                ("lib", "-> usr/lib"),
                ("usr/lib/x86_64-linux-gnu/libc.so.6", GLIBC_36),
                ("var/lib/dpkg/status", "Package: base-files\n"),
                ("etc/debian_version", "12.11\n"),
            ],
            &[
                ("usr/local/bin/python3.11", "\u{7f}ELF"),
                ("usr/local/bin/python3", "-> python3.11"),
                ("usr/local/lib/libpython3.11.so.1.0", "\u{7f}ELF 3.11.14\0"),
                ("usr/local/lib/python3.11/os.py", ""),
            ],
        ],
        env: &["PATH=/usr/local/bin:/usr/bin", "PYTHON_VERSION=3.11.14"],
        lock: &[
            "\"/usr/local/bin/python3.11\"",
            "version = \"3.11.14\"",
            "libc = \"glibc 2.36\"",
            "linux-x86_64-glibc2.36-cp311",
        ],
        wheel: "cp39-abi3-manylinux_2_36_x86_64",
        site: "usr/local/lib/python3.11/site-packages",
        platsite: "usr/local/lib/python3.11/site-packages",
        script: ("usr/local/bin/hello", "/usr/local/bin/python3.11"),
        ..Profile::default()
    });
}

#[test]
fn distroless() {
    // No shell, and each package of Debian has a file of its own.
    check(&Profile {
        layers: &[
            &[
                ("var/lib/dpkg/status.d/libc6", "Package: libc6\n"),
                ("lib/x86_64-linux-gnu/libc.so.6", GLIBC_36),
            ],
            &[
                (
                    "var/lib/dpkg/status.d/python3.11-minimal",
                    "Package: python3.11-minimal\n",
                ),
                ("usr/bin/python3.11", "\u{7f}ELF 3.11.a\0 3.11.2\0 "),
                ("usr/bin/python", "-> /usr/bin/python3.11"),
            ],
        ],
        env: &["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"],
        lock: &["\"/usr/bin/python3.11\"", "version = \"3.11.2\""],
        wheel: "cp39-abi3-manylinux_2_36_x86_64",
        site: "usr/local/lib/python3.11/dist-packages",
        platsite: "usr/local/lib/python3.11/dist-packages",
        script: ("usr/local/bin/hello", "/usr/bin/python3.11"),
        ..Profile::default()
    });
}

#[test]
fn debian_without_its_package_database() {
    // Of roots that were made small, little is left: the version, or only the Python that looks elsewhere than others.
    for sign in [
        ("etc/debian_version", "12.11\n"),
        ("usr/lib/python3.11/site.py", "libdir, 'dist-packages'\n"),
    ] {
        check(&Profile {
            layers: &[&[
                sign,
                ("lib/x86_64-linux-gnu/libc.so.6", GLIBC_36),
                ("usr/bin/python3.11", "\u{7f}ELF 3.11.2 (main\0 3.11.2+\0 "),
            ]],
            lock: &[
                "version = \"3.11.2\"",
                "/usr/local/lib/python3.11/dist-packages",
            ],
            wheel: "cp39-abi3-manylinux_2_36_x86_64",
            site: "usr/local/lib/python3.11/dist-packages",
            platsite: "usr/local/lib/python3.11/dist-packages",
            script: ("usr/local/bin/hello", "/usr/bin/python3.11"),
            ..Profile::default()
        });
    }
}

#[test]
fn distroless_with_an_environment() {
    check(&Profile {
        layers: &[&[
            ("var/lib/dpkg/status.d/libc6", "Package: libc6\n"),
            ("lib/x86_64-linux-gnu/libc.so.6", GLIBC_36),
            ("usr/bin/python3.11", "\u{7f}ELF 3.11.2\0"),
        ]],
        keys: "layout = \"venv\"\nprefix = \"/venv\"",
        wheel: "cp39-abi3-manylinux_2_36_x86_64",
        site: "venv/lib/python3.11/site-packages",
        platsite: "venv/lib/python3.11/site-packages",
        script: ("venv/bin/hello", "/venv/bin/python3.11"),
        ..Profile::default()
    });
}

#[test]
fn alpine() {
    check(&Profile {
        layers: &[
            &[
                ("lib/ld-musl-x86_64.so.1", "musl"),
                ("lib/libc.musl-x86_64.so.1", "-> ld-musl-x86_64.so.1"),
                ("etc/alpine-release", "3.22.1\n"),
            ],
            &[
                ("usr/bin/python3.12", "\u{7f}ELF"),
                ("usr/lib/libpython3.12.so.1.0", "\u{7f}ELF 3.12.11\0"),
            ],
        ],
        lock: &[
            "libc = \"musl 1.2\"",
            "version = \"3.12.11\"",
            "linux-x86_64-musl1.2-cp312",
        ],
        wheel: "cp39-abi3-musllinux_1_2_x86_64",
        site: "usr/lib/python3.12/site-packages",
        platsite: "usr/lib/python3.12/site-packages",
        script: ("usr/bin/hello", "/usr/bin/python3.12"),
        ..Profile::default()
    });
}

#[test]
fn red_hats_universal_base() {
    check(&Profile {
        layers: &[&[
            ("lib64", "-> usr/lib64"),
            ("usr/lib64/libc.so.6", GLIBC_34),
            ("usr/lib64/libpython3.9.so.1.0", "\u{7f}ELF 3.9.21\0"),
            ("usr/bin/python3.9", "\u{7f}ELF"),
            ("var/lib/rpm/rpmdb.sqlite", "SQLite format 3"),
        ]],
        lock: &[
            "version = \"3.9.21\"",
            "platsite = \"/usr/local/lib64/python3.9/site-packages\"",
        ],
        wheel: "cp39-abi3-manylinux_2_34_x86_64",
        site: "usr/local/lib/python3.9/site-packages",
        platsite: "usr/local/lib64/python3.9/site-packages",
        script: ("usr/local/bin/hello", "/usr/bin/python3.9"),
        ..Profile::default()
    });
}

/// The layers of an image for AWS Lambda.
const LAMBDA: &[&[(&str, &str)]] = &[&[
    ("usr/lib64/libc.so.6", GLIBC_34),
    ("usr/bin/python3.9", "\u{7f}ELF 3.9.21\0"),
    ("var/lib/rpm/rpmdb.sqlite", "SQLite format 3"),
    ("var/lang/bin/python3.12", "\u{7f}ELF"),
    ("var/lang/lib/libpython3.12.so.1.0", "\u{7f}ELF 3.12.9\0"),
    ("var/task/", ""),
]];

const LAMBDA_ENV: &[&str] = &[
    "PATH=/var/lang/bin:/usr/local/bin:/usr/bin/:/bin:/opt/bin",
    "LAMBDA_TASK_ROOT=/var/task",
    "LAMBDA_RUNTIME_DIR=/var/runtime",
];

#[test]
fn aws_lambda() {
    check(&Profile {
        layers: LAMBDA,
        env: LAMBDA_ENV,
        lock: &[
            "\"/var/lang/bin/python3.12\"",
            "version = \"3.12.9\"",
            "site = \"/var/task\"",
            "linux-x86_64-glibc2.34-cp312",
        ],
        wheel: "cp39-abi3-manylinux_2_34_x86_64",
        site: "var/task",
        platsite: "var/task",
        script: ("var/task/bin/hello", "/var/lang/bin/python3.12"),
        ..Profile::default()
    });
    // The manifest may say otherwise.
    check(&Profile {
        layers: LAMBDA,
        env: LAMBDA_ENV,
        keys: "prefix = \"/var/lang\"",
        wheel: "cp39-abi3-manylinux_2_34_x86_64",
        site: "var/lang/lib/python3.12/site-packages",
        platsite: "var/lang/lib/python3.12/site-packages",
        script: ("var/lang/bin/hello", "/var/lang/bin/python3.12"),
        ..Profile::default()
    });
}

#[test]
fn an_interpreter_that_a_later_layer_removes_is_none() {
    check(&Profile {
        layers: &[
            &[
                ("var/lib/dpkg/status", ""),
                ("lib/x86_64-linux-gnu/libc.so.6", GLIBC_36),
                ("usr/bin/python3.11", "\u{7f}ELF 3.11.2\0"),
                ("usr/bin/python3.13", "\u{7f}ELF 3.13.5\0"),
                ("usr/local/bin/python3.10", "\u{7f}ELF 3.10.1\0"),
            ],
            &[
                ("usr/bin/.wh.python3.13", ""),
                ("usr/.wh.local", ""),
                ("usr/local/", ""),
            ],
        ],
        lock: &["\"/usr/bin/python3.11\"", "version = \"3.11.2\""],
        wheel: "cp39-abi3-manylinux_2_36_x86_64",
        site: "usr/local/lib/python3.11/dist-packages",
        platsite: "usr/local/lib/python3.11/dist-packages",
        script: ("usr/local/bin/hello", "/usr/bin/python3.11"),
        ..Profile::default()
    });
}

#[test]
fn the_manifest_chooses_among_interpreters_and_says_what_a_base_does_not() {
    let both: &[&[(&str, &str)]] = &[&[
        ("var/lib/dpkg/status", ""),
        ("lib/x86_64-linux-gnu/libc.so.6", GLIBC_36),
        ("usr/bin/python3.11", "\u{7f}ELF 3.11.2\0"),
        ("usr/local/bin/python3.13", "\u{7f}ELF 3.13.5\0"),
    ]];
    check(&Profile {
        layers: both,
        keys: "python = \"3.11\"\nlibc = \"glibc 2.17\"",
        lock: &["linux-x86_64-glibc2.17-cp311"],
        wheel: "cp39-abi3-manylinux_2_17_x86_64",
        site: "usr/local/lib/python3.11/dist-packages",
        platsite: "usr/local/lib/python3.11/dist-packages",
        script: ("usr/local/bin/hello", "/usr/bin/python3.11"),
        ..Profile::default()
    });
    check(&Profile {
        layers: both,
        lock: &["linux-x86_64-glibc2.36-cp313"],
        wheel: "cp39-abi3-manylinux_2_36_x86_64",
        site: "usr/local/lib/python3.13/site-packages",
        platsite: "usr/local/lib/python3.13/site-packages",
        script: ("usr/local/bin/hello", "/usr/local/bin/python3.13"),
        ..Profile::default()
    });
    // An interpreter that another layer brings.
    check(&Profile {
        layers: &[&[("etc/os-release", "ID=own\n")]],
        keys: "python = \"3.12\"\nprefix = \"/opt/python\"",
        lock: &["linux-x86_64-glibc2.28-cp312"],
        wheel: "cp39-abi3-manylinux_2_17_x86_64",
        site: "opt/python/lib/python3.12/site-packages",
        platsite: "opt/python/lib/python3.12/site-packages",
        script: ("opt/python/bin/hello", "/usr/local/bin/python3.12"),
        ..Profile::default()
    });
}

#[test]
fn a_package_of_the_base_gives_way() {
    let site = "usr/local/lib/python3.11/site-packages";
    let path = |name: &str| format!("{site}/{name}");
    let infos = [
        "hello-0.9.dist-info/METADATA",
        "native-2.0.dist-info/METADATA",
        "Other_One-3.0.dist-info/METADATA",
    ];
    let infos = infos.map(path);
    let mut layers = vec![
        ("usr/local/bin/python3.11", "\u{7f}ELF 3.11.14\0"),
        ("usr/lib/x86_64-linux-gnu/libc.so.6", GLIBC_36),
    ];
    layers.extend(
        infos
            .iter()
            .map(|it| (it.as_str(), "Metadata-Version: 2.1\n")),
    );
    let profile = Profile {
        layers: &[&layers],
        lock: &["installed = ["],
        wheel: "cp39-abi3-manylinux_2_36_x86_64",
        site,
        platsite: site,
        script: ("usr/local/bin/hello", "/usr/local/bin/python3.11"),
        ..Profile::default()
    };
    // Two versions of one package would be there, and Python would say either.
    let files = check(&profile);
    let whiteouts: Vec<&String> = files.keys().filter(|it| it.contains(".wh.")).collect();
    assert_eq!(whiteouts, [&path(".wh.hello-0.9.dist-info")]);
    // An environment has packages of its own.
    let files = check(&Profile {
        keys: "layout = \"venv\"\nprefix = \"/venv\"",
        site: "venv/lib/python3.11/site-packages",
        platsite: "venv/lib/python3.11/site-packages",
        script: ("venv/bin/hello", "/venv/bin/python3.11"),
        ..profile
    });
    assert!(!files.keys().any(|it| it.contains(".wh.")));
}
