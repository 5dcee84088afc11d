//! Packages on real bases: Debian's own Python, and an image as Docker's Python images are, with the interpreter below
//! `/usr/local`. The images are run. Needs root, mmdebstrap, umoci, runc, pip, and a network that reaches pip's index.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::kit::{Bundle, Machine, build, files};
use crate::support::registry::{Flavour, Image, Server, Setup};
use crate::support::{Output, Space, absent, debian, peer, validate};

/// What the PATH of Debian's images is.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const APP: &str = r#"
import boto3
import fastapi
import pydantic


class Item(pydantic.BaseModel):
    name: str
    count: int = 3


app = fastapi.FastAPI()


@app.get("/items/{name}")
def item(name: str) -> Item:
    return Item(name=name + "-" + str(boto3.__version__ > ""))
"#;

/// Looks at every package that is installed, by what Python itself knows of it.
const EXAMINE: &str = r#"
import base64, hashlib, importlib.metadata, json, sys
found, checked = {}, 0
for package in importlib.metadata.distributions():
    if package.read_text("INSTALLER") != "imgdecl\n":
        continue
    name = package.metadata["Name"].lower().replace("_", "-")
    assert importlib.metadata.version(name) == package.version, name
    files = importlib.metadata.files(name)
    for file in files:
        path = file.locate()
        content = path.read_bytes()
        if file.hash is None:
            assert file.name == "RECORD", file
            continue
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest())
        assert digest.decode().rstrip("=") == file.hash.value, file
        assert len(content) == file.size, file
        checked += 1
    found[name] = package.version
for entry in importlib.metadata.entry_points(group="console_scripts"):
    if entry.name == "uvicorn":
        assert callable(entry.load())
        found["entry point"] = entry.value
import pydantic_core, boto3, pathlib
site = str(pathlib.Path(boto3.__file__).parent.parent)
names = [it.metadata["Name"].lower() for it in importlib.metadata.distributions(path=[site])]
assert len(names) == len(set(names)), names
print(json.dumps({"found": found, "checked": checked, "paths": sys.path,
    "files": [pydantic_core.__file__, boto3.__file__], "executable": sys.executable}))
"#;

/// Where packages are to be, and what runs them.
struct Expected {
    /// The plain command of the base's interpreter.
    python: &'static str,
    /// Its path, as scripts name it.
    interpreter: &'static str,
    site: &'static str,
}

fn config(env: &[&str]) -> Value {
    json!({"config": {"Env": env, "Cmd": ["bash"]}})
}

/// Builds images on a base that is in a registry, runs them, and looks at what is installed.
fn packages_run(machine: &Machine, base: Image, expected: &Expected) {
    let server = Server::start(Setup::default());
    server.load("team/python", "3.11", &base);
    // It is large, and the registry has it now.
    drop(base);
    let space = Space::new();
    space.write("app.py", APP);
    let packages = r#"packages = ["fastapi", "uvicorn", "boto3", "pydantic", "pip"]"#;
    space.write(
        "image.toml",
        format!(
            "[base.python]\nimage = \"{}/team/python:3.11\"\n\n\
             [pip.deps]\n{packages}\n\n\
             [pip.env]\n{packages}\nlayout = \"venv\"\nprefix = \"/app/.venv\"\n\n\
             [files.src]\nsrc = \"app.py\"\ndest = \"/app/app.py\"\n\n\
             [image.plain]\nbase = \"python\"\nlayers = [\"deps\", \"src\"]\nworkdir = \"/app\"\n\n\
             [image.venv]\nbase = \"python\"\nlayers = [\"env\", \"src\"]\nworkdir = \"/app\"\n\
             env = {{ PATH = \"/app/.venv/bin:${{PATH}}\" }}\n",
            server.host()
        ),
    );
    build(&space, &["build"]);
    validate(&space.path().join("imgdecl-out"));
    let lock = fs::read_to_string(space.path().join("image.lock")).expect("image.lock");

    let bundle = machine.unpack(&space, "imgdecl-out:plain", "plain");
    examine(&bundle, &lock, expected);
    let bundle = machine.unpack(&space, "imgdecl-out:venv", "venv");
    let inside = Expected {
        python: "python",
        interpreter: "/app/.venv/bin/python3.11",
        site: "/app/.venv/lib/python3.11/site-packages",
    };
    examine(&bundle, &lock, &inside);
}

fn examine(bundle: &Bundle, lock: &str, expected: &Expected) {
    let version = bundle.run(&["uvicorn", "--version"]);
    assert!(version.contains("Running uvicorn"), "{version}");
    assert!(version.contains("CPython 3.11"), "{version}");

    let text = bundle.run(&[expected.python, "-c", EXAMINE]);
    let said: Value = serde_json::from_str(&text).expect("JSON");
    for file in said["files"].as_array().expect("files") {
        let file = file.as_str().expect("a path");
        assert!(file.starts_with(expected.site), "{file}");
    }
    assert!(said["checked"].as_u64() > Some(2_000), "{said}");
    assert_eq!(said["found"]["entry point"], "uvicorn.main:main");
    // What Python sees is what the lock has.
    for name in ["fastapi", "uvicorn", "boto3", "pydantic", "pydantic-core"] {
        let version = said["found"][name].as_str().expect(name);
        let wheel = format!("\"{}-{version}-", name.replace('-', "_"));
        assert!(lock.contains(&wheel), "{wheel} is not in the lock");
    }

    let check = bundle.run(&[expected.python, "-m", "pip", "check"]);
    assert!(check.contains("No broken requirements found"), "{check}");
    let pip = bundle.run(&["pip", "--version"]);
    assert!(pip.contains(expected.site), "{pip}");
    let root = bundle.root();
    let bin = ["usr/local/bin/uvicorn", "app/.venv/bin/uvicorn"].map(|it| root.join(it));
    let script = bin.iter().find(|it| it.exists()).expect("uvicorn");
    let script = fs::read_to_string(script).expect("a script");
    let first = format!("#!{}\n", expected.interpreter);
    assert!(script.starts_with(&first), "{script}");

    let server = [
        "uvicorn",
        "app:app",
        "--host",
        "127.0.0.1",
        "--port",
        "PORT",
    ];
    let answer = bundle.serve(&server, "/items/nail");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(
        answer.ends_with(r#"{"name":"nail-True","count":3}"#),
        "{answer}"
    );
}

#[test]
fn packages_run_on_debian() {
    let (Some(machine), Some(_), Some(root)) = (Machine::find(), peer("pip"), debian("amd64"))
    else {
        return;
    };
    let base = Image::single("linux/amd64", &[&root], config(&[PATH]), Flavour::Oci);
    let expected = Expected {
        python: "python3",
        interpreter: "/usr/bin/python3.11",
        site: "/usr/local/lib/python3.11/dist-packages",
    };
    packages_run(&machine, base, &expected);
}

/// The folder of a CPython 3.11 that is not Debian's, and its full version.
fn own_python() -> Option<(PathBuf, String)> {
    let python = peer("python3.11")?;
    let script = "import platform, sys; print(sys.base_prefix); print(platform.python_version())";
    let output = Output::of(std::process::Command::new(python).args(["-I", "-c", script]));
    let mut lines = output.stdout.lines();
    let (prefix, version) = (lines.next()?, lines.next()?);
    if prefix == "/usr" || output.status != 0 {
        absent("a python3.11 that is not below /usr");
        return None;
    }
    Some((PathBuf::from(prefix), version.to_owned()))
}

/// Makes the layer that Docker's Python images have above Debian: an interpreter below `/usr/local`, with a pip.
fn interpreter_layer(prefix: &Path) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let header = |kind: tar::EntryType, mode: u32, size: u64| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header
    };
    let left_out = |path: &str| {
        let parts = ["/test/", "/__pycache__/", "/idlelib/", "/config-3.11"];
        let site = path.split_once("/site-packages/");
        parts.iter().any(|it| path.contains(it))
            || site.is_some_and(|it| !it.1.starts_with("pip/") && !it.1.starts_with("pip-"))
    };
    let lib = prefix.join("lib");
    let mut paths = files(&lib.join("python3.11"));
    paths.push(prefix.join("bin/python3.11"));
    paths.extend(files(&lib).into_iter().filter(|it| {
        let name = it.file_name().unwrap_or_default().to_string_lossy();
        it.parent() == Some(&lib) && name.starts_with("libpython3.11.so")
    }));
    paths.sort();
    for path in paths {
        let rel = path.strip_prefix(prefix).expect("below it");
        let rel = format!("usr/local/{}", rel.to_str().expect("UTF-8"));
        if left_out(&rel) {
            continue;
        }
        let content = fs::read(&path).expect("a file");
        let mode = fs::metadata(&path).expect("a file").permissions().mode();
        let mode = if mode & 0o111 == 0 { 0o644 } else { 0o755 };
        let mut header = header(tar::EntryType::Regular, mode, content.len() as u64);
        let added = tar.append_data(&mut header, &rel, &content[..]);
        added.expect("memory");
    }
    for (link, target) in [("python3", "python3.11"), ("python", "python3")] {
        let mut header = header(tar::EntryType::Symlink, 0o777, 0);
        let added = tar.append_link(&mut header, format!("usr/local/bin/{link}"), target);
        added.expect("memory");
    }
    let mut header = header(tar::EntryType::Directory, 0o755, 0);
    let site = "usr/local/lib/python3.11/site-packages/";
    tar.append_data(&mut header, site, &[][..]).expect("memory");
    tar.into_inner().expect("memory")
}

#[test]
fn packages_run_on_a_base_like_dockers() {
    let (Some(machine), Some(_), Some(root)) = (Machine::find(), peer("pip"), debian("amd64"))
    else {
        return;
    };
    let Some((prefix, version)) = own_python() else {
        return;
    };
    let layer = interpreter_layer(&prefix);
    // Theirs runs ldconfig; the variable is as good.
    let version = format!("PYTHON_VERSION={version}");
    let env = [PATH, "LD_LIBRARY_PATH=/usr/local/lib", &version];
    let base = Image::single(
        "linux/amd64",
        &[&root, &layer],
        config(&env),
        Flavour::Docker,
    );
    let expected = Expected {
        python: "python",
        interpreter: "/usr/local/bin/python3.11",
        site: "/usr/local/lib/python3.11/site-packages",
    };
    packages_run(&machine, base, &expected);
}

/// The machine that an ELF file is for; `None` for anything else.
fn elf_machine(content: &[u8]) -> Option<u16> {
    let number = content.get(18..20)?;
    content
        .starts_with(b"\x7fELF")
        .then(|| u16::from_le_bytes([number[0], number[1]]))
}

/// `e_machine` of ELF.
const AARCH64: u16 = 183;

#[test]
fn images_for_arm64_are_made_on_any_host() {
    let (Some(machine), Some(_), Some(root)) = (Machine::find(), peer("pip"), debian("arm64"))
    else {
        return;
    };
    let server = Server::start(Setup::default());
    let base = Image::single("linux/arm64", &[&root], config(&[PATH]), Flavour::Oci);
    server.load("team/python", "3.11", &base);
    let space = Space::new();
    space.write(
        "image.toml",
        format!(
            "[base.python]\nimage = \"{}/team/python:3.11\"\n\n\
             [pip.deps]\npackages = [\"fastapi\", \"uvicorn[standard]\", \"boto3\", \"numpy\"]\n\n\
             [image.app]\nbase = \"python\"\nlayers = [\"deps\"]\nplatforms = [\"linux/arm64\"]\n",
            server.host()
        ),
    );
    build(&space, &["build"]);
    validate(&space.path().join("imgdecl-out"));
    let bundle = machine.unpack(&space, "imgdecl-out:app", "bundle");
    let root = bundle.root();
    let site = root.join("usr/local/lib/python3.11/dist-packages");
    let mut found = 0;
    for path in files(&site) {
        let content = fs::read(&path).expect("a file");
        if let Some(machine) = elf_machine(&content) {
            assert_eq!(machine, AARCH64, "{}", path.display());
            found += 1;
        }
    }
    assert!(found > 20, "{found} ELF files");

    let Some(emulator) = peer("qemu-aarch64-static") else {
        return;
    };
    let Some(chroot) = peer("chroot") else {
        return;
    };
    fs::copy(emulator, root.join("emulator")).expect("a copy");
    let run = |args: &[&str]| {
        let mut command = space.program(&chroot);
        command.arg(&root).arg("/emulator").args(args);
        let output = Output::of(command.env("PATH", "/usr/local/bin:/usr/bin:/bin"));
        assert_eq!(output.status, 0, "{args:?}:\n{}", output.stderr);
        output.stdout
    };
    let script = "import platform, pydantic_core, boto3, numpy; \
                  print(platform.machine(), numpy.arange(4).sum(), pydantic_core.__file__)";
    let said = run(&["/usr/bin/python3.11", "-c", script]);
    assert!(
        said.starts_with("aarch64 6 /usr/local/lib/python3.11/dist-packages/"),
        "{said}"
    );
    // A script is no program for an emulator: its interpreter is.
    let script = fs::read_to_string(root.join("usr/local/bin/uvicorn")).expect("uvicorn");
    assert!(script.starts_with("#!/usr/bin/python3.11\n"), "{script}");
    let said = run(&["/usr/bin/python3.11", "/usr/local/bin/uvicorn", "--version"]);
    assert!(said.contains("Running uvicorn"), "{said}");
}
