//! What locks of Poetry, Pipenv and PDM hold for a target.

use super::*;
use crate::python::Target;
use crate::python::lock::LockSet;

const A: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn target(python: &str) -> Target {
    Target {
        arch: "amd64".to_owned(),
        libc: "glibc 2.36".parse().unwrap(),
        python: python.parse().unwrap(),
    }
}

type Read = fn(&str, &str, &LockWanted<'_>, &Target) -> Result<LockSet, InputError>;

/// Reads a lock for Python 3.11, with a project beside it: `NAME VERSION` of all packages, or what is wrong.
fn read(
    lock: Read,
    text: &str,
    project: Option<&str>,
    extras: &[&str],
    groups: &[&str],
) -> Result<LockSet, InputError> {
    let own = |all: &[&str]| -> Vec<String> { all.iter().map(|it| (*it).to_owned()).collect() };
    let (extras, groups) = (own(extras), own(groups));
    let wanted = LockWanted {
        project: project.map(|it| ("app/pyproject.toml", it)),
        extras: &extras,
        groups: &groups,
    };
    lock("app/the.lock", text, &wanted, &target("3.11.9"))
}

fn names(set: Result<LockSet, InputError>) -> Vec<String> {
    let set = set.unwrap_or_else(|error| panic!("{error}: {}", error.help));
    let packages = set.packages.iter();
    packages
        .map(|it| format!("{} {}", it.name, it.version))
        .collect()
}

/// Writes a package in the form that Poetry and PDM share.
fn package(name: &str, version: &str, more: &str) -> String {
    format!(
        "[[package]]\nname = \"{name}\"\nversion = \"{version}\"\n\
         files = [{{file = \"{name}-{version}-py3-none-any.whl\", hash = \"sha256:{A}\"}}, {{file = \"{name}-{version}.tar.gz\", hash = \"sha256:{A}\"}}]\n{more}\n\n"
    )
}

fn poetry_new() -> String {
    [
        package("a", "1.0", "groups = [\"main\"]\npython-versions = \">=3.8\"\nmarkers = \"python_version < \\\"3.10\\\"\""),
        package("a", "2.0", "groups = [\"main\"]\npython-versions = \">=3.8\"\nmarkers = \"python_version >= \\\"3.10\\\"\"\n[package.source]\ntype = \"legacy\"\nurl = \"https://h/simple\"\nreference = \"h\""),
        package("dev", "1", "groups = [\"main\", \"dev\"]\nmarkers = {main = \"extra == \\\"web\\\"\", dev = \"sys_platform == \\\"linux\\\"\"}"),
        package("w", "1", "groups = [\"docs\"]\n[package.source]\ntype = \"url\"\nurl = \"https://h/w-1-py3-none-any.whl\""),
        package("l", "1", "groups = [\"docs\"]\n[package.source]\ntype = \"file\"\nurl = \"../wheels/l-1-py3-none-any.whl\""),
        package("d", "1", "groups = [\"docs\"]\n[package.source]\ntype = \"directory\"\nurl = \"../lib\""),
        "[extras]\nweb = [\"dev\"]\n[metadata]\nlock-version = \"2.1\"\npython-versions = \"^3.8\"\ncontent-hash = \"0\"\n".to_owned(),
    ]
    .concat()
}

#[test]
fn poetry_says_groups_and_extras() {
    let text = poetry_new();
    let of = |extras: &[&str], groups: &[&str]| read(poetry_lock, &text, None, extras, groups);
    assert_eq!(names(of(&[], &[])), ["a 2.0"]);
    assert_eq!(names(of(&["Web"], &[])), ["a 2.0", "dev 1"]);
    assert_eq!(names(of(&[], &["Dev", "main"])), ["a 2.0", "dev 1"]);
    let docs = of(&[], &["docs"]).unwrap();
    assert!(
        docs.warnings[0].contains("`d` is the folder `lib`"),
        "{:?}",
        docs.warnings
    );
    let [a, l, w] = &docs.packages[..] else {
        panic!("{:?}", docs.packages);
    };
    assert_eq!(a.index.as_deref(), Some("https://h/simple"));
    assert_eq!((a.wheels.len(), a.wheels[0].url.as_deref()), (1, None));
    assert_eq!(
        l.wheels[0].url.as_deref(),
        Some("wheels/l-1-py3-none-any.whl")
    );
    assert_eq!(
        w.wheels[0].url.as_deref(),
        Some("https://h/w-1-py3-none-any.whl")
    );
    assert!(w.wheels[0].is_direct && !a.wheels[0].is_direct);
}

fn poetry_old() -> String {
    [
        package("a", "1.0", "python-versions = \"*\"\n[package.dependencies]\nb = \"<2\"\nwin = {version = \"*\", markers = \"sys_platform == \\\"win32\\\"\"}"),
        package("b", "1.5", "python-versions = \">=2.7, !=3.0.*\""),
        package("b", "2.0", "python-versions = \"*\""),
        package("b", "3.0", "python-versions = \">=3.12\""),
        package("x", "1.0", "python-versions = \"*\"\n[package.dependencies]\nSocks = {version = \">=1 || ^0.5\", optional = true, markers = \"extra == \\\"s\\\"\"}\n[package.extras]\ns = [\"Socks (>=1)\"]\nall = [\"x[s]\"]"),
        package("socks", "1.0", "python-versions = \"*\""),
        package("t", "8.1", "python-versions = \"*\""),
        "[extras]\nnet = [\"x\"]\n[metadata]\nlock-version = \"2.0\"\npython-versions = \"^3.8\"\n".to_owned(),
    ]
    .concat()
}

const PROJECT: &str = r#"
[tool.poetry.dependencies]
python = "^3.8"
b = "*"
x = { version = "^1.0", optional = true, extras = ["all"] }
old = { version = "*", python = "<3.9" }
mac = { version = "*", platform = "darwin" }
[tool.poetry.extras]
net = ["x"]
[tool.poetry.group.dev]
include-groups = ["more"]
[tool.poetry.group.dev.dependencies]
t = "~8.1"
[tool.poetry.group.more.dependencies]
a = [{ version = "<1", python = "<3.9" }, { version = ">=1", python = ">=3.9" }]
"#;

#[test]
fn poetry_is_followed_where_it_says_no_groups() {
    let text = poetry_old();
    let of =
        |extras: &[&str], groups: &[&str]| read(poetry_lock, &text, Some(PROJECT), extras, groups);
    assert_eq!(names(of(&[], &[])), ["b 2.0"]);
    assert_eq!(names(of(&["net"], &[])), ["b 2.0", "socks 1.0", "x 1.0"]);
    assert_eq!(names(of(&[], &["dev"])), ["a 1.0", "b 1.5", "t 8.1"]);
    let standard = "[project]\nname = 'p'\ndependencies = ['b>=2']\n[dependency-groups]\nt = ['t']\ndev = [{include-group = 't'}]";
    let of = read(poetry_lock, &text, Some(standard), &[], &["dev"]);
    assert_eq!(names(of), ["b 2.0", "t 8.1"]);
}

#[test]
fn poetry_is_refused_with_advice() {
    let (new, old) = (poetry_new(), poetry_old());
    let project = "[tool.poetry.dependencies]\na = '^3'";
    for (text, project, extras, groups, message, help) in [
        (
            &new,
            None,
            vec![],
            vec!["dve"],
            "no group `dve`",
            "did you mean `dev`?",
        ),
        (
            &new,
            None,
            vec!["wbe"],
            vec![],
            "no extra `wbe`",
            "did you mean `web`?",
        ),
        (
            &new,
            Some(project),
            vec![],
            vec![],
            "has `a` 2.0, which is not",
            "poetry lock",
        ),
        (
            &new,
            Some("[tool.poetry.dependencies]\nq = '*'"),
            vec![],
            vec![],
            "has no `q`",
            "poetry lock",
        ),
        (
            &old,
            None,
            vec![],
            vec![],
            "does not say what",
            "Poetry 2.1",
        ),
        (
            &old,
            Some(PROJECT),
            vec![],
            vec!["dep"],
            "no group `dep`",
            "did you mean `dev`?",
        ),
        (
            &old,
            Some("[tool.poetry.dependencies]\nb = '^4'"),
            vec![],
            vec![],
            "has `b` 1.5, 2.0, which",
            "poetry lock",
        ),
        (
            &new.replace("^3.8", "^3.12"),
            None,
            vec![],
            vec![],
            "is for Python ^3.12",
            "lock again",
        ),
        (
            &new.replace("\"directory\"", "\"git\""),
            None,
            vec![],
            vec!["docs"],
            "from git",
            "build a wheel",
        ),
        (
            &new.replace("lock-version = \"2.1\"", "lock-version = \"3.0\""),
            None,
            vec![],
            vec![],
            "lock version 3.0",
            "another Poetry",
        ),
        (
            &new.replace("lock-version", "x"),
            None,
            vec![],
            vec![],
            "no poetry.lock",
            "1.1",
        ),
        (
            &new.replace("sha256:", "md5:"),
            None,
            vec![],
            vec![],
            "no sha256",
            "lock again",
        ),
        (
            &new.replace("python_version <", "python_version >"),
            None,
            vec![],
            vec![],
            "`a` 1.0 and 2.0",
            "poetry lock",
        ),
    ] {
        let error = read(poetry_lock, text, project, &extras, &groups).unwrap_err();
        assert!(error.message.contains(message), "{message}: {error}");
        assert!(error.help.contains(help), "{error}: {}", error.help);
    }
}

fn pipfile() -> String {
    format!(
        r#"{{
    "_meta": {{"hash": {{"sha256": "0"}}, "pipfile-spec": 6, "requires": {{"python_version": "3.11"}},
        "sources": [{{"name": "corp", "url": "https://h/simple", "verify_ssl": true}}]}},
    "default": {{
        "Flask": {{"hashes": ["sha256:{A}", "md5:0"], "index": "corp", "version": "==3.0", "extras": ["async"]}},
        "win": {{"hashes": ["sha256:{A}"], "sys_platform": "== 'win32'", "version": "==1"}},
        "own": {{"editable": true, "path": "."}}
    }},
    "develop": {{
        "flask": {{"hashes": ["sha256:{A}"], "version": "==3.0"}},
        "git": {{"git": "https://h/x.git", "ref": "0", "markers": "python_version < '3.11'"}}
    }},
    "docs": {{"sphinx": {{"hashes": ["sha256:{A}"], "markers": "python_version >= '3.8'", "version": "==7"}}}}
}}"#
    )
}

#[test]
fn pipfile_says_categories() {
    let text = pipfile();
    let of = |groups: &[&str]| read(pipfile_lock, &text, None, &[], groups);
    let set = of(&["develop"]).unwrap();
    assert!(set.warnings[0].contains("`own` is the folder `.`"));
    assert_eq!(set.packages[0].index.as_deref(), Some("https://h/simple"));
    assert_eq!(
        (set.packages[0].hashes.len(), set.packages[0].place.text()),
        (1, "Flask")
    );
    assert_eq!(names(Ok(set)), ["flask 3.0"]);
    assert_eq!(names(of(&["docs"])), ["flask 3.0", "sphinx 7"]);
}

#[test]
fn pipfile_of_older_and_newer_pipenv() {
    let nameless = pipfile()
        .replace("\"name\": \"corp\", ", "")
        .replace("\"index\": \"corp\", ", "");
    let set = read(pipfile_lock, &nameless, None, &[], &[]).unwrap();
    assert_eq!(set.packages[0].index, None);
    // Groups stand in markers, beside what the target decides.
    let dev = "\"develop\": {\n        ";
    let marked = |name: &str, marker: &str| {
        format!(
            "\"{name}\": {{\"hashes\": [\"sha256:{A}\"], \"markers\": \"{marker}\", \"version\": \"==1\"}},\n"
        )
    };
    let own = [
        marked("alpha", "'dev' in dependency_groups"),
        marked(
            "beta",
            "('dev' in dependency_groups) and (python_version >= '3.10')",
        ),
        marked(
            "gamma",
            "('dev' in dependency_groups) and (sys_platform == 'win32')",
        ),
    ];
    let text = pipfile().replace(dev, &format!("{dev}{}", own.concat()));
    let of = |groups: &[&str]| names(read(pipfile_lock, &text, None, &[], groups));
    assert_eq!(of(&["develop"]), ["alpha 1", "beta 1", "flask 3.0"]);
    assert_eq!(of(&[]), ["flask 3.0"]);
    // What a Pipfile has not is not passed over.
    let text = text.replace("in dependency_groups\"", "in extras\"");
    let error = read(pipfile_lock, &text, None, &[], &["develop"]).unwrap_err();
    assert!(error.message.contains("`'dev' in extras`"), "{error}");
}

#[test]
fn pipfile_is_refused_with_advice() {
    let good = pipfile();
    for (text, extras, groups, message, help) in [
        (
            good.clone(),
            vec![],
            vec!["develp"],
            "no group `develp`",
            "did you mean `develop`?",
        ),
        (
            good.clone(),
            vec!["web"],
            vec![],
            "has no extras",
            "`groups`",
        ),
        (
            good.replace("\"3.11\"", "\"3.12\""),
            vec![],
            vec![],
            "is for Python 3.12",
            "Pipfile",
        ),
        (
            good.replace("< '3.11'", "< '4'"),
            vec![],
            vec!["develop"],
            "takes `git` from git",
            "wheel",
        ),
        (
            good.replace("sha256:e3", "md5:e3"),
            vec![],
            vec![],
            "no sha256",
            "lock again",
        ),
        (
            good.replace("\"index\": \"corp\"", "\"index\": \"cop\""),
            vec![],
            vec![],
            "no source `cop`",
            "`corp`",
        ),
        (
            good.replace("\"==3.0\"}", "\"==3.1\"}"),
            vec![],
            vec!["develop"],
            "`flask` 3.1 and 3.0",
            "groups",
        ),
        (
            good.replace("\"==3.0\"", "\"*\""),
            vec![],
            vec![],
            "no version that is locked",
            "pipenv lock",
        ),
        (
            good.replace("\"pipfile-spec\": 6", "\"pipfile-spec\": 5"),
            vec![],
            vec![],
            "`pipfile-spec` 6",
            "newer",
        ),
        (
            good.replace("\"_meta\"", "\"meta\""),
            vec![],
            vec![],
            "`_meta` is missing",
            "pipenv lock",
        ),
        (
            "{".to_owned(),
            vec![],
            vec![],
            "no Pipfile.lock",
            "pipenv lock",
        ),
    ] {
        let error = read(pipfile_lock, &text, None, &extras, &groups).unwrap_err();
        assert!(error.message.contains(message), "{message}: {error}");
        assert!(error.help.contains(help), "{error}: {}", error.help);
    }
}

fn pdm(strategy: &str) -> String {
    let head = format!(
        "[metadata]\ngroups = [\"default\", \"dev\", \"web\"]\nstrategy = [{strategy}]\nlock_version = \"4.5.0\"\n\
         [[metadata.targets]]\nrequires_python = \">=3.8\"\nplatform = \"manylinux_2_17_x86_64\"\n\n"
    );
    [
        head,
        package("a", "1.0", "requires_python = \">=3.8\"\ngroups = [\"default\"]\nmarker = \"python_version < \\\"3.10\\\"\""),
        package("a", "2.0", "groups = [\"default\"]\nmarker = \"python_version >= \\\"3.10\\\"\"\ndependencies = [\"b; sys_platform == 'linux'\", \"win; sys_platform == 'win32'\"]"),
        package("a", "2.0", "extras = [\"x\"]\ngroups = [\"web\"]\ndependencies = [\"a==2.0\", \"x>=1\"]"),
        package("b", "1.0", "groups = [\"default\"]"),
        package("x", "1.0", "groups = [\"web\"]"),
        package("t", "1.0", "groups = [\"dev\"]"),
    ]
    .concat()
}

#[test]
fn pdm_says_groups_or_is_followed() {
    let project = "[project]\nname = 'p'\ndependencies = ['a>=1']\n[project.optional-dependencies]\nweb = ['a[x]']\n[tool.pdm.dev-dependencies]\ndev = ['t', '-e file:///lib']";
    for (strategy, project) in [("\"inherit_metadata\"", None), ("", Some(project))] {
        let text = pdm(strategy);
        let of = |extras: &[&str], groups: &[&str]| read(pdm_lock, &text, project, extras, groups);
        assert_eq!(names(of(&[], &[])), ["a 2.0", "b 1.0"]);
        assert_eq!(names(of(&["web"], &[])), ["a 2.0", "b 1.0", "x 1.0"]);
        assert_eq!(names(of(&[], &["dev"])), ["a 2.0", "b 1.0", "t 1.0"]);
    }
}

#[test]
fn pdm_is_refused_with_advice() {
    let good = pdm("\"inherit_metadata\"");
    for (text, extras, groups, message, help) in [
        (
            good.clone(),
            vec![],
            vec!["dve"],
            "no group `dve`",
            "did you mean `dev`?",
        ),
        (
            good.clone(),
            vec!["wep"],
            vec![],
            "no extra `wep`",
            "did you mean `web`?",
        ),
        (
            pdm(""),
            vec![],
            vec![],
            "does not say what",
            "inherit_metadata",
        ),
        (
            good.replace("_x86_64\"", "_aarch64\""),
            vec![],
            vec![],
            "on manylinux_2_17_aarch64",
            "--platform",
        ),
        (
            good.replace("manylinux_2_17", "manylinux_2_39"),
            vec![],
            vec![],
            "not for linux-x86_64-glibc2.36-cp311",
            "pdm lock",
        ),
        (
            good.replace(
                "requires_python = \">=3.8\"\nplatform",
                "requires_python = \">=3.12\"\nplatform",
            ),
            vec![],
            vec![],
            "Python >=3.12",
            "pdm lock",
        ),
        (
            good.replace("\"4.5.0\"", "\"5.0\""),
            vec![],
            vec![],
            "lock version 5.0",
            "another PDM",
        ),
        (
            good.replace("lock_version", "x"),
            vec![],
            vec![],
            "no pdm.lock",
            "PDM 2.0",
        ),
        (
            good.replace("name = \"b\"", "name = \"b\"\ngit = \"https://h/b.git\""),
            vec![],
            vec![],
            "takes `b` from git",
            "wheel",
        ),
        (
            good.replace("python_version <", "python_version >"),
            vec![],
            vec![],
            "`a` 1.0 and 2.0",
            "pdm lock",
        ),
    ] {
        let error = read(pdm_lock, &text, None, &extras, &groups).unwrap_err();
        assert!(error.message.contains(message), "{message}: {error}");
        assert!(error.help.contains(help), "{error}: {}", error.help);
    }
}
