//! Reads pylock.toml (PyPA specifications, "pylock.toml"; formerly PEP 751), for one target.

use std::collections::BTreeMap;

use pep508_rs::{ExtraName, MarkerTree, PackageName};

use super::lock::{LockSet, Locked, LockedWheel, Unbuilt};
use super::place::{InputError, Source, beside};
use super::table::{Node, Root};
use super::{Target, WheelName, WheelUrl, pep508, specifiers};
use crate::oci::Digest;

const CODE: &str = "imgdecl::python::lock";
const AGAIN: &str = "write the file again with the tool that made it";

/// Reads a pylock.toml: what it locks for a target with some extras and groups.
///
/// # Errors
/// What is wrong with it; that it is not for this target; what would need a build.
pub fn pylock(
    path: &str,
    text: &str,
    extras: &[String],
    groups: Option<&[String]>,
    target: &Target,
) -> Result<LockSet, InputError> {
    let source = Source::shared(path, text);
    let root = Root::parse(&source)?;
    check_version(&root)?;
    let python = target.markers().python_full_version().version.clone();
    let admits = |node: &Node<'_>, what: &str| -> Result<(), InputError> {
        let needs = node.text()?;
        match specifiers(needs) {
            Some(all) if all.contains(&python) => Ok(()),
            Some(_) => Err(node.error(
                format!(
                    "{what} is for Python {needs}, and the target has {}",
                    target.python
                ),
                "lock again for the Python of the target",
            )),
            None => Err(node.error("this is no set of versions", AGAIN)),
        }
    };
    if let Some(needs) = root.get("requires-python") {
        admits(&needs, "this lock")?;
    }
    let (extras, groups) = asked(&root, extras, groups)?;
    let is_in = |set: MarkerSet, name: &str| {
        let all = match set {
            MarkerSet::Extras => &extras,
            MarkerSet::Groups => &groups,
        };
        Some(all.iter().any(|it| it == name))
    };
    let holds = |node: &Node<'_>| -> Result<bool, InputError> {
        let marker = with_sets(node.text()?, is_in);
        let marker = pep508::marker(&marker).map_err(|error| node.error(error.message, AGAIN))?;
        Ok(marker.evaluate(&target.markers(), &[]))
    };
    if let Some(environments) = root.get("environments") {
        let mut is_ours = false;
        for marker in environments.list()? {
            is_ours |= holds(&marker)?;
        }
        if !is_ours {
            let message = format!("none of the environments of this lock is {}", target.name());
            return Err(environments.error(message, "lock again for the target"));
        }
    }
    let mut packages: BTreeMap<PackageName, Locked> = BTreeMap::new();
    let mut warnings = Vec::new();
    let mut unbuilt = Vec::new();
    for package in root
        .get("packages")
        .map_or(Ok(Vec::new()), |it| it.list())?
    {
        if let Some(marker) = package.get("marker")
            && !holds(&marker)?
        {
            continue;
        }
        // The project itself, and those beside it, as uv writes them.
        if let Some(folder) = package.get("directory") {
            let folder = beside(path, folder.text_of("path")?.unwrap_or_default());
            warnings.push(super::foreign::folder(&name(&package)?, &folder));
            continue;
        }
        if let Some(node) = package.get("vcs") {
            unbuilt.push(Unbuilt {
                name: name(&package)?,
                from: "sources (`vcs`)".to_owned(),
                help: "build a wheel of it, and name that in the project; then lock again"
                    .to_owned(),
                place: node.place(),
            });
            continue;
        }
        let locked = read_package(path, &package)?;
        if let Some(needs) = package.get("requires-python") {
            admits(&needs, &format!("{} {}", locked.name, locked.version))?;
        }
        if let Some(other) = packages.get(&locked.name) {
            return Err(package.error(
                format!(
                    "the lock has {} twice for this target: also in line {}",
                    locked.name, other.place.line
                ),
                AGAIN,
            ));
        }
        packages.insert(locked.name.clone(), locked);
    }
    let set = LockSet {
        projects: Vec::new(),
        packages: packages.into_values().collect(),
        warnings,
        unbuilt,
    };
    set.built()
}

/// Makes sure that it is a lock that can be read.
fn check_version(root: &Root) -> Result<(), InputError> {
    let version = root.get("lock-version").ok_or_else(|| {
        let help =
            "name a pylock.toml, as `pip lock` and `uv export --format pylock.toml` write it";
        root.place().error(
            CODE,
            "this is no pylock.toml: `lock-version` is missing",
            help,
        )
    })?;
    if !version.text()?.starts_with("1.") {
        let message = format!("this is lock version {}, and 1 is known", version.text()?);
        return Err(version.error(message, AGAIN));
    }
    Ok(())
}

/// Returns the extras and groups that are asked for, which the lock must have: its default groups if none are named.
fn asked(
    root: &Root,
    extras: &[String],
    groups: Option<&[String]>,
) -> Result<(Vec<String>, Vec<String>), InputError> {
    let names = |list: Vec<Node<'_>>| -> Result<Vec<String>, InputError> {
        list.iter().map(|it| Ok(normal(it.text()?))).collect()
    };
    let known = |key: &str| root.get(key).map_or(Ok(Vec::new()), |it| names(it.list()?));
    // Those are not among the groups that can be asked for: they stand for what a project always needs.
    let own = known("default-groups")?;
    let groups = match groups {
        Some(groups) => groups.iter().map(|it| normal(it)).collect(),
        None => own.clone(),
    };
    let extras: Vec<String> = extras.iter().map(|it| normal(it)).collect();
    for (what, key, asked) in [
        ("extra", "extras", &extras),
        ("group", "dependency-groups", &groups),
    ] {
        let mut known = known(key)?;
        if what == "group" {
            let new = own.iter().filter(|it| !known.contains(it)).cloned();
            known.extend(new.collect::<Vec<_>>());
        }
        if let Some(name) = asked.iter().find(|it| !known.contains(it)) {
            return Err(root.place().error(
                CODE,
                format!("the lock has no {what} `{name}`"),
                super::foreign::known(name, known.iter().map(String::as_str)),
            ));
        }
    }
    Ok((extras, groups))
}

fn read_package(path: &str, package: &Node<'_>) -> Result<Locked, InputError> {
    let name = name(package)?;
    let mut files = package.list_of("wheels")?;
    if let Some(archive) = package.get("archive") {
        files.push(archive);
    }
    let mut wheels = Vec::new();
    for file in files {
        let url = file.text_of("url")?;
        let local = file.text_of("path")?;
        let at = url.or(local).unwrap_or_default();
        let last = WheelUrl::new(at).ok().and_then(|it| it.file());
        let file_name = match (file.text_of("name")?, last) {
            (Some(name), _) => name.to_owned(),
            (None, Some(last)) => last,
            (None, None) => {
                return Err(file.error("this wheel has neither `url` nor `path` nor `name`", AGAIN));
            }
        };
        if !file_name.ends_with(".whl") {
            continue;
        }
        let hash = file
            .get("hashes")
            .map(|it| it.text_of("sha256"))
            .transpose()?;
        let Some(hash) = hash.flatten() else {
            return Err(file.error(
                format!("`{file_name}` has no sha256"),
                "lock again with sha256 digests",
            ));
        };
        let url = url.map(str::to_owned).or(local.map(|it| beside(path, it)));
        wheels.push(wheel(&file, &file_name, &name, hash, url)?);
    }
    let version = match package.get("version") {
        Some(version) => version
            .text()?
            .parse()
            .map_err(|_| version.error("this is no version", AGAIN))?,
        None => match wheels.first() {
            Some(first) => first.wheel.version.clone(),
            None => {
                return Err(package.place().error(
                    "imgdecl::python::source",
                    format!("the lock has no wheel of `{name}`, and no version"),
                    "build a wheel of it, and point `find_links` at its folder",
                ));
            }
        },
    };
    let other = wheels.iter().find(|it| it.wheel.version != version);
    if let Some(other) = other {
        return Err(package.error(
            format!("`{}` is no wheel of {name} {version}", other.wheel.file),
            AGAIN,
        ));
    }
    let is_twice = |it: &LockedWheel| {
        let mut others = wheels.iter().filter(|other| other.wheel == it.wheel);
        others.any(|other| other.sha256 != it.sha256)
    };
    let mut hashes = Vec::new();
    if wheels.iter().any(is_twice) {
        // Pipenv gives each digest of a version as one of the same wheel: which one has it, the index knows.
        hashes = wheels.iter().map(|it| it.sha256).collect();
        wheels.clear();
    }
    Ok(Locked {
        name,
        version,
        wheels,
        hashes,
        index: package.text_of("index")?.map(str::to_owned),
        place: package.place(),
    })
}

/// Returns the name of a package.
pub(super) fn name(package: &Node<'_>) -> Result<PackageName, InputError> {
    let name = package.needed("name")?;
    name.parse()
        .map_err(|_| package.error(format!("`{name}` is no name of a package"), AGAIN))
}

/// Reads a marker of a lock.
pub(super) fn marker_of(node: &Node<'_>, again: &str) -> Result<MarkerTree, InputError> {
    pep508::marker(node.text()?).map_err(|error| node.error(error.message, again))
}

/// Makes a wheel of a lock; checks that it is one of the package.
pub(super) fn wheel(
    node: &Node<'_>,
    file: &str,
    name: &PackageName,
    hash: &str,
    url: Option<String>,
) -> Result<LockedWheel, InputError> {
    let wheel = WheelName::parse(file).map_err(|error| node.error(error.to_string(), AGAIN))?;
    if wheel.name != *name {
        return Err(node.error(format!("`{file}` is no wheel of {name}"), AGAIN));
    }
    let sha256 = Digest::from_hex(&hash.to_ascii_lowercase())
        .map_err(|error| node.error(error.to_string(), "lock again with sha256 digests"))?;
    Ok(LockedWheel {
        wheel,
        sha256,
        size: node.get("size").and_then(|it| it.number()),
        url,
        is_direct: false,
    })
}

/// The sets that markers of locks ask for a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum MarkerSet {
    /// The extras that are installed.
    Extras,
    /// The dependency groups that are installed.
    Groups,
}

/// Puts truth into a marker for `'x' in extras` and `'x' in dependency_groups`, which only locks know: what `holds` says of
/// a set and a name. Where it says nothing, the marker stays as it is.
pub(super) fn with_sets(marker: &str, holds: impl Fn(MarkerSet, &str) -> Option<bool>) -> String {
    let mut out = String::new();
    let mut rest = marker;
    while let Some(start) = rest.find(['\'', '"']) {
        let quote = &rest[start..=start];
        let Some(length) = rest[start + 1..].find(quote) else {
            break;
        };
        let end = start + length + 2;
        let value = normal(&rest[start + 1..end - 1]);
        let after = rest[end..].trim_start();
        let (is_negated, after) = match after.strip_prefix("not").map(str::trim_start) {
            Some(after) => (true, after),
            None => (false, after),
        };
        let set = after.strip_prefix("in").map(str::trim_start);
        let found = set.and_then(|set| {
            let of = |word: &str| set.strip_prefix(word);
            let extras = of("extras").map(|it| (MarkerSet::Extras, it));
            let (set, after) =
                extras.or_else(|| of("dependency_groups").map(|it| (MarkerSet::Groups, it)))?;
            Some((holds(set, &value)?, after))
        });
        out.push_str(&rest[..start]);
        match found {
            Some((is_in, after)) => {
                // One that is always so, and one that never is.
                let operator = if is_in != is_negated { ">=" } else { "<" };
                out.push_str(&format!("python_version {operator} '0'"));
                rest = after;
            }
            None => {
                out.push_str(&rest[start..end]);
                rest = &rest[end..];
            }
        }
    }
    out + rest
}

/// Normalises the name of an extra or a group, as names of packages are.
pub(super) fn normal(name: &str) -> String {
    let parsed: Result<ExtraName, _> = name.parse();
    parsed.map_or_else(|_| name.to_owned(), |it| it.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn target(python: &str) -> Target {
        Target {
            arch: "amd64".to_owned(),
            libc: "glibc 2.36".parse().unwrap(),
            python: python.parse().unwrap(),
        }
    }

    fn text() -> String {
        format!(
            r#"
lock-version = "1.0"
requires-python = ">=3.10"
environments = ["sys_platform == 'linux'", "sys_platform == 'darwin'"]
extras = ["web"]
dependency-groups = ["dev", "Docs"]
default-groups = ["dev"]
created-by = "x"
[[packages]]
name = "A_b"
version = "1.0"
index = "https://h/simple"
wheels = [
  {{url = "https://h/x/A_b-1.0-cp311-cp311-win_amd64.whl", hashes = {{sha256 = "{A}"}}}},
  {{url = "https://h/x/A_b-1.0-py3-none-any.whl", size = 12, hashes = {{sha256 = "{A}"}}}},
  {{path = "../w/A_b-1.0-cp311-cp311-manylinux_2_17_x86_64.whl", hashes = {{sha256 = "{A}"}}}},
]
[[packages]]
name = "web"
version = "2"
marker = "'Web' in extras and python_version >= '3.8'"
wheels = [{{name = "web-2-py3-none-any.whl", url = "https://h/file?x", hashes = {{sha256 = "{A}"}}}}]
[[packages]]
name = "dev"
version = "3"
marker = '"dev" in dependency_groups or "x" == os_name'
wheels = [{{name = "dev-3-py3-none-any.whl", hashes = {{sha256 = "{A}"}}}}]
[[packages]]
name = "win"
version = "3"
marker = "sys_platform == 'win32'"
vcs = {{type = "git"}}
[[packages]]
name = "notdocs"
version = "4"
marker = "'docs' not in dependency_groups"
sdist = {{url = "https://h/notdocs-4.tar.gz", hashes = {{sha256 = "{A}"}}}}
"#
        )
    }

    fn names(set: &LockSet) -> Vec<&str> {
        set.packages.iter().map(|it| it.name.as_ref()).collect()
    }

    #[test]
    fn selects_for_a_target() {
        let target = target("3.11.9");
        let set = pylock("app/pylock.toml", &text(), &[], None, &target).unwrap();
        assert_eq!(names(&set), ["a-b", "dev", "notdocs"]);
        let own = |all: &[&str]| -> Vec<String> { all.iter().map(|it| (*it).to_owned()).collect() };
        let other = pylock("p", &text(), &own(&["web"]), Some(&own(&["docs"])), &target).unwrap();
        assert_eq!(names(&other), ["a-b", "web"]);
        let tags = target.tags();
        let wheel = set.packages[0].wheel(&target, &tags).unwrap();
        assert_eq!(
            wheel.url.as_deref(),
            Some("w/A_b-1.0-cp311-cp311-manylinux_2_17_x86_64.whl")
        );
        assert_eq!(set.packages[0].wheels[1].size, Some(12));
        assert_eq!(set.packages[0].index.as_deref(), Some("https://h/simple"));
        let error = set.packages[2].wheel(&target, &tags).unwrap_err();
        assert!(
            error
                .message
                .contains("notdocs 4 has no wheel, only sources")
        );
        assert!(error.help.contains("only sources"), "{}", error.help);
    }

    #[test]
    fn default_groups_need_not_be_among_the_groups() {
        let text = text()
            .replace("[\"dev\"]\ncreated", "[\"Default\"]\ncreated")
            .replace("'docs' not in", "'default' in");
        let target = target("3.11.9");
        let of = |groups: Option<&[String]>| pylock("p", &text, &[], groups, &target);
        assert_eq!(names(&of(None).unwrap()), ["a-b", "notdocs"]);
        let dev = ["dev".to_owned()];
        assert_eq!(names(&of(Some(&dev)).unwrap()), ["a-b", "dev"]);
        let error = of(Some(&["no".to_owned()])).unwrap_err();
        assert!(error.message.contains("no group `no`"), "{error}");
    }

    #[test]
    fn digests_of_one_name_are_digests_alone() {
        let other = "f".repeat(64);
        let twice = format!(
            "wheels = [{{name = \"web-2-py3-none-any.whl\", hashes = {{sha256 = \"{other}\"}}}}, {{name = \"web"
        );
        let text = text().replace("wheels = [{name = \"web", &twice);
        let web = ["web".to_owned()];
        let set = pylock("p", &text, &web, None, &target("3.11.9")).unwrap();
        let found = set.packages.iter().find(|it| it.name.as_ref() == "web");
        let found = found.unwrap();
        assert!(found.wheels.is_empty(), "{found:?}");
        let digests: Vec<String> = found.hashes.iter().map(Digest::to_string).collect();
        assert_eq!(digests, [format!("sha256:{other}"), format!("sha256:{A}")]);
    }

    #[test]
    fn all_that_must_be_built_is_named() {
        let text = text()
            .replace("sys_platform == 'win32'", "sys_platform == 'linux'")
            .replace(
                "sdist = {url = \"https://h/notdocs-4.tar.gz\"",
                "vcs = {type = \"git\"",
            );
        let error = pylock("p", &text, &[], None, &target("3.11.9")).unwrap_err();
        assert_eq!(error.code, "imgdecl::python::source");
        assert_eq!(
            error.message,
            "the lock takes `win` from sources (`vcs`), `notdocs` from sources (`vcs`): only wheels are installed"
        );
    }

    #[test]
    fn many_wheels_that_do_not_fit_are_told_on_one_line() {
        let set = pylock("p", &text(), &[], None, &target("3.11.9")).unwrap();
        let mut package = set.packages[0].clone();
        let own = package.wheels[0].clone();
        let tags = [
            "cp311-cp311-win_amd64",
            "cp310-cp310-manylinux_2_17_x86_64",
            "cp39-cp39-manylinux_2_17_x86_64",
            "cp311-cp311-manylinux_2_17_aarch64",
            "cp311-cp311-macosx_11_0_arm64",
        ];
        package.wheels = Vec::new();
        for tags in tags {
            let mut wheel = own.clone();
            wheel.wheel = WheelName::parse(&format!("A_b-1.0-{tags}.whl")).unwrap();
            package.wheels.push(wheel);
        }
        let target = target("3.11.9");
        let error = package.wheel(&target, &target.tags()).unwrap_err();
        let first = error.help.lines().next().unwrap();
        assert_eq!(
            first,
            "the lock has wheels of a-b 1.0 for CPython 3.10, CPython 3.9, Windows, aarch64, macOS"
        );
    }

    #[test]
    fn says_why_no_wheel_fits() {
        let set = pylock("p", &text(), &[], None, &target("3.11.9")).unwrap();
        let mut package = set.packages[0].clone();
        package.wheels.truncate(1);
        let target = target("3.11.9");
        let error = package.wheel(&target, &target.tags()).unwrap_err();
        assert!(
            error.help.contains("win_amd64.whl is for Windows"),
            "{}",
            error.help
        );
    }

    #[test]
    fn refuses_with_advice() {
        let good = text();
        let replaced = |from: &str, to: &str| {
            assert!(good.contains(from), "{from}");
            good.replace(from, to)
        };
        for (text, message) in [
            (
                replaced("lock-version = \"1.0\"", "lock-version = \"2.0\""),
                "lock version 2.0",
            ),
            (replaced("lock-version = \"1.0\"", ""), "no pylock.toml"),
            (replaced(">=3.10", ">=3.12"), "for Python >=3.12"),
            (replaced("'linux'", "'aix'"), "none of the environments"),
            (
                replaced("sys_platform == 'win32'", "sys_platform == 'linux'"),
                "from sources (`vcs`)",
            ),
            (
                replaced("name = \"notdocs\"", "name = \"a.b\""),
                "twice for this target: also in line 9",
            ),
            (
                replaced("hashes = {sha256 =", "hashes = {md5 ="),
                "no sha256",
            ),
            (replaced(A, "00"), "64"),
            (
                replaced("/A_b-1.0-py3", "/other-1.0-py3"),
                "no wheel of a-b",
            ),
            (
                replaced("/A_b-1.0-py3", "/A_b-1.1-py3"),
                "no wheel of a-b 1.0",
            ),
            (replaced("sys_platform == 'win32'", "sys_platform ="), ""),
            (
                replaced("version = \"1.0\"\n", "version = 1\n"),
                "must be a string",
            ),
        ] {
            let error = pylock("p", &text, &[], None, &target("3.11.9")).unwrap_err();
            assert!(error.message.contains(message), "{message}: {error}");
            assert!(!error.help.is_empty());
        }
        let error = pylock("p", &good, &["no".to_owned()], None, &target("3.11.9")).unwrap_err();
        assert!(
            error.to_string().contains("no extra `no`") && error.help == "it has web",
            "{error}"
        );
    }

    #[test]
    fn puts_truth_for_sets() {
        for (marker, meant) in [
            ("'x' in extras", "python_version >= '0'"),
            ("'y' in extras", "python_version < '0'"),
            ("\"X\" not in dependency_groups", "python_version < '0'"),
            (
                "'x' == os_name and ('y'not  in extras)",
                "'x' == os_name and (python_version >= '0')",
            ),
            ("os_name in 'extras'", "os_name in 'extras'"),
            ("'open", "'open"),
        ] {
            assert_eq!(with_sets(marker, |_, it| Some(it == "x")), meant);
        }
        // What is not said stays.
        let groups = |set, _: &str| (set == MarkerSet::Groups).then_some(true);
        let marker = with_sets("'a' in dependency_groups and 'b' in extras", groups);
        assert_eq!(marker, "python_version >= '0' and 'b' in extras");
    }
}
