//! Reads uv.lock: what it locks for one project of its workspace, on one target.
//!
//! Nothing is resolved: the dependencies are followed from the project, as far as their markers hold.

use std::collections::{BTreeMap, BTreeSet};

use pep508_rs::{ExtraName, MarkerEnvironment, PackageName};

use super::lock::{LockSet, Locked, LockedProject, Unbuilt};
use super::place::{InputError, Place, Source, beside};
use super::pylock::{marker_of, name, wheel};
use super::table::{Node, Root};
use super::{Target, WheelUrl, specifiers};

const CODE: &str = "imgdecl::python::lock";
const AGAIN: &str = "run `uv lock` again";

/// What is wanted of a uv.lock.
#[derive(Clone, Copy, Debug, Default)]
pub struct UvWanted<'a> {
    /// The project of the workspace, and where it is asked for; the one at the folder of the lock, or the only one, if it
    /// is not said.
    pub member: Option<&'a (PackageName, Place)>,
    /// Its extras.
    pub extras: &'a [ExtraName],
    /// Its dependency groups.
    pub groups: &'a [ExtraName],
}

/// Reads a uv.lock: what it locks for a target.
///
/// # Errors
/// What is wrong with it; that it is not for this target; what would need a build.
pub fn uv_lock(
    path: &str,
    text: &str,
    wanted: &UvWanted<'_>,
    target: &Target,
) -> Result<LockSet, InputError> {
    let source = Source::shared(path, text);
    let root = Root::parse(&source)?;
    let version = root.get("version").and_then(|it| it.number());
    if version != Some(1) {
        let help = "name a uv.lock that uv 0.5 or newer wrote";
        let message = "this is no uv.lock of version 1";
        return Err(root.place().error(CODE, message, help));
    }
    let markers = target.markers();
    let python = &markers.python_full_version().version;
    if let Some(needs) = root.get("requires-python") {
        let all = specifiers(needs.text()?);
        if !all.is_some_and(|it| it.contains(python)) {
            let message = format!(
                "this lock is for Python {}, and the target has {}",
                needs.text()?,
                target.python
            );
            return Err(needs.error(
                message,
                "change `requires-python` of the project, and lock again",
            ));
        }
    }
    let mut packages: BTreeMap<PackageName, Vec<Node<'_>>> = BTreeMap::new();
    for package in root.get("package").map_or(Ok(Vec::new()), |it| it.list())? {
        packages.entry(name(&package)?).or_default().push(package);
    }
    let member = member(&root, &packages, wanted.member)?;
    let mut walk = Walk {
        path,
        packages: &packages,
        markers,
        own: own_names(&name(&member)?, wanted),
        seen: BTreeSet::new(),
        chosen: BTreeMap::new(),
        set: LockSet::default(),
        member: member.place().span.start,
        takes_projects: wanted.member.is_some(),
    };
    if walk.takes_projects {
        walk.project(&member)?;
    }
    for dependency in member.list_of("dependencies")? {
        walk.dependency(&dependency)?;
    }
    for (table, what, names) in [
        ("optional-dependencies", "extra", wanted.extras),
        ("dev-dependencies", "dependency group", wanted.groups),
    ] {
        for name in names {
            let all = member
                .get(table)
                .map_or(Ok(Vec::new()), |it| it.entries())?;
            let found = all.iter().find(|(key, _)| key.parse().as_ref() == Ok(name));
            let Some((_, list)) = found else {
                let known = super::foreign::known(name.as_ref(), all.iter().map(|it| it.0));
                let message = format!("the project has no {what} `{name}` in the lock");
                return Err(member.error(message, known));
            };
            for dependency in list.list()? {
                walk.dependency(&dependency)?;
            }
        }
    }
    let mut set = walk.set;
    if set.packages.is_empty() && set.projects.is_empty() && set.unbuilt.is_empty() {
        let own = name(&member)?;
        let all = packages
            .iter()
            .filter(|it| it.1.iter().any(|it| local(it).is_some()));
        let others: Vec<&str> = all
            .map(|it| it.0.as_ref())
            .filter(|it| *it != own.as_ref())
            .collect();
        if wanted.member.is_none() && !others.is_empty() {
            return Err(member.error(
                format!("`{own}`, at the root of the workspace, needs no package: nothing would be installed"),
                format!("say which project is meant, as `package = \"NAME\"`: the workspace has {}", others.join(", ")),
            ));
        }
        set.warnings.push(format!(
            "`{own}` of {path} needs no package: nothing is installed"
        ));
    }
    set.packages.sort_by(|a, b| a.name.cmp(&b.name));
    set.projects.sort_by(|a, b| a.name.cmp(&b.name));
    set.warnings.sort();
    set.warnings.dedup();
    set.built()
}

/// Finds the project whose dependencies are wanted.
fn member<'a>(
    root: &Root<'_>,
    packages: &BTreeMap<PackageName, Vec<Node<'a>>>,
    wanted: Option<&(PackageName, Place)>,
) -> Result<Node<'a>, InputError> {
    let local: Vec<(&PackageName, Node<'a>, &str)> = packages
        .iter()
        .flat_map(|(name, all)| all.iter().map(move |it| (name, *it)))
        .filter_map(|(name, it)| Some((name, it, local(&it)?)))
        .collect();
    let found = match (wanted, &local[..]) {
        (Some((wanted, _)), _) => local.iter().find(|it| it.0 == wanted),
        (None, [only]) => Some(only),
        (None, _) => local.iter().find(|it| it.2 == "."),
    };
    found.map(|it| it.1).ok_or_else(|| {
        let names: Vec<&str> = local.iter().map(|it| it.0.as_ref()).collect();
        let has = format!("the workspace has {}", names.join(", "));
        match (wanted, &names[..]) {
            (_, []) => {
                let message = "the lock has no project of its own";
                root.place().error(CODE, message, AGAIN)
            }
            (Some((wanted, place)), _) => {
                let message = format!("the workspace of the uv.lock has no project `{wanted}`");
                place.error(CODE, message, has)
            }
            (None, _) => {
                let message = "which project of the workspace is meant is not clear";
                let help = format!("say it as `package = \"NAME\"`: {has}");
                root.place().error(CODE, message, help)
            }
        }
    })
}

/// Returns the folder of a package that is one of the workspace, or beside it.
fn local<'a>(package: &Node<'a>) -> Option<&'a str> {
    let source = package.get("source")?;
    ["virtual", "editable", "directory"]
        .iter()
        .find_map(|kind| source.text_of(kind).ok().flatten())
}

/// The names under which uv writes the project's own extras and groups into markers, where some exclude each other.
fn own_names(project: &PackageName, wanted: &UvWanted<'_>) -> Vec<ExtraName> {
    let of = |kind: &str, name: &ExtraName| {
        let length = project.as_ref().len();
        format!("{kind}-{length}-{project}-{name}").parse().ok()
    };
    let extras = wanted.extras.iter().filter_map(|it| of("extra", it));
    let groups = wanted.groups.iter().filter_map(|it| of("group", it));
    let project = format!("project-{}-{project}", project.as_ref().len());
    extras.chain(groups).chain(project.parse().ok()).collect()
}

struct Walk<'a> {
    path: &'a str,
    packages: &'a BTreeMap<PackageName, Vec<Node<'a>>>,
    markers: MarkerEnvironment,
    own: Vec<ExtraName>,
    /// The dependencies that were followed: the package's place in the text, and the extra.
    seen: BTreeSet<(usize, Option<String>)>,
    /// The place of the version that was taken.
    chosen: BTreeMap<PackageName, usize>,
    set: LockSet,
    member: usize,
    /// Whether projects are to be there, and not only what they need.
    takes_projects: bool,
}

impl<'a> Walk<'a> {
    /// Follows a dependency. Packages that are still to be followed wait in a list, so that deep locks need no deep stack.
    fn dependency(&mut self, first: &Node<'a>) -> Result<(), InputError> {
        let mut open = vec![*first];
        while let Some(dependency) = open.pop() {
            if !self.holds(&dependency)? {
                continue;
            }
            let package = self.find(&dependency)?;
            let at = package.place().span.start;
            if self.seen.insert((at, None)) {
                self.take(&package)?;
                open.extend(package.list_of("dependencies")?);
            }
            for extra in dependency.list_of("extra")? {
                let extra = extra.text()?;
                if self.seen.insert((at, Some(extra.to_owned())))
                    && let Some(optional) = package.get("optional-dependencies")
                {
                    open.extend(optional.list_of(extra)?);
                }
            }
        }
        Ok(())
    }

    fn holds(&self, dependency: &Node<'_>) -> Result<bool, InputError> {
        let Some(marker) = dependency.get("marker") else {
            return Ok(true);
        };
        self.evaluate(&marker)
    }

    fn evaluate(&self, marker: &Node<'_>) -> Result<bool, InputError> {
        marker_of(marker, AGAIN).map(|it| it.evaluate(&self.markers, &self.own))
    }

    /// Finds the package that a dependency names: the one of its version and source, and for this target.
    fn find(&self, dependency: &Node<'_>) -> Result<Node<'a>, InputError> {
        let wanted = name(dependency)?;
        let version = dependency.text_of("version")?;
        let source = dependency.get("source");
        let mut found = Vec::new();
        for package in self.packages.get(&wanted).into_iter().flatten() {
            if version.is_some() && package.text_of("version")? != version {
                continue;
            }
            let same = match (source, package.get("source")) {
                (Some(a), Some(b)) => same(&a, &b)?,
                _ => true,
            };
            let markers = package.list_of("resolution-markers")?;
            let mut is_ours = markers.is_empty();
            for marker in &markers {
                is_ours |= self.evaluate(marker)?;
            }
            if same && is_ours {
                found.push(*package);
            }
        }
        match found[..] {
            [one] => Ok(one),
            [] => {
                Err(dependency.error(format!("the lock has no `{wanted}` for this target"), AGAIN))
            }
            _ => Err(dependency.error(
                format!("the lock has several `{wanted}` for this target"),
                AGAIN,
            )),
        }
    }

    /// Takes a project into the set, unless it is no package. Returns whether it did.
    fn project(&mut self, package: &Node<'a>) -> Result<bool, InputError> {
        let source = package.get("source");
        let is_package = source.is_some_and(|it| it.get("virtual").is_none());
        let Some(folder) = local(package).filter(|_| is_package) else {
            return Ok(false);
        };
        let version = package.text_of("version")?;
        self.set.projects.push(LockedProject {
            name: name(package)?,
            version: version.and_then(|it| it.parse().ok()),
            folder: beside(self.path, folder),
            place: package.place(),
        });
        Ok(true)
    }

    /// Takes a package into the set.
    fn take(&mut self, package: &Node<'a>) -> Result<(), InputError> {
        let name = name(package)?;
        let place = package.place();
        if place.span.start == self.member {
            return Ok(());
        }
        if self.takes_projects && self.project(package)? {
            return Ok(());
        }
        if let Some(folder) = local(package) {
            let words = super::foreign::folder(&name, &beside(self.path, folder));
            self.set.warnings.push(words);
            return Ok(());
        }
        let source = package.get("source");
        if source.is_some_and(|it| it.get("git").is_some()) {
            let help = "build a wheel of it, add the wheel to the project (`uv add ./NAME.whl`), and lock again";
            self.set.unbuilt.push(Unbuilt {
                name,
                from: "git".to_owned(),
                help: help.to_owned(),
                place,
            });
            return Ok(());
        }
        if let Some(other) = self.chosen.insert(name.clone(), place.span.start)
            && other != place.span.start
        {
            let message = format!("the lock has two versions of `{name}` for this target");
            return Err(package.error(message, AGAIN));
        }
        let mut wheels = Vec::new();
        for file in package.list_of("wheels")? {
            let url = file.text_of("url")?;
            let local = file.text_of("path")?;
            let at = url.or(local).unwrap_or_default();
            let last = WheelUrl::new(at).ok().and_then(|it| it.file());
            // A wheel by path or URL of its own: the source says where.
            let own = source.map(|it| it.text_of("path").map(|path| (it, path)));
            let base = own.transpose()?.and_then(|(_, path)| path);
            let Some(file_name) = file.text_of("filename")?.map(str::to_owned).or(last) else {
                return Err(file.error("this wheel has no name", AGAIN));
            };
            let hash = file.text_of("hash")?.unwrap_or_default();
            let Some(hash) = hash.strip_prefix("sha256:") else {
                let message = format!("`{file_name}` has no sha256");
                return Err(file.error(message, "use an index that has them, and lock again"));
            };
            let direct = source.map(|it| it.text_of("url")).transpose()?.flatten();
            let url = url
                .or(direct)
                .map(str::to_owned)
                .or(local.or(base).map(|it| beside(self.path, it)));
            let mut found = wheel(&file, &file_name, &name, hash, url)?;
            found.is_direct = direct.is_some();
            wheels.push(found);
        }
        let version = package.needed("version")?;
        let version = version
            .parse()
            .map_err(|_| package.error(format!("`{version}` is no version"), AGAIN))?;
        let index = source.map(|it| it.text_of("registry")).transpose()?;
        self.set.packages.push(Locked {
            name,
            version,
            wheels,
            hashes: Vec::new(),
            index: index.flatten().map(str::to_owned),
            place,
        });
        Ok(())
    }
}

/// Tells whether two sources are the same.
fn same(a: &Node<'_>, b: &Node<'_>) -> Result<bool, InputError> {
    let texts = |node: &Node<'_>| -> Result<BTreeMap<String, String>, InputError> {
        let entries = node.entries()?.into_iter();
        entries
            .map(|(key, value)| Ok((key.to_owned(), value.text()?.to_owned())))
            .collect()
    };
    Ok(texts(a)? == texts(b)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(arch: &str, python: &str) -> Target {
        Target {
            arch: arch.to_owned(),
            libc: "glibc 2.36".parse().unwrap(),
            python: python.parse().unwrap(),
        }
    }

    /// Writes a package as uv does.
    fn package(name: &str, version: &str, more: &str) -> String {
        let hash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        format!(
            "[[package]]\nname = \"{name}\"\nversion = \"{version}\"\nsource = {{ registry = \"https://h/simple\" }}\n\
             wheels = [\n    {{ url = \"https://h/f/{name}-{version}-py3-none-any.whl\", hash = \"sha256:{hash}\", size = 7 }},\n]\n{more}\n"
        )
    }

    fn text() -> String {
        let head = r#"
version = 1
revision = 5
requires-python = ">=3.10"
resolution-markers = ["python_full_version >= '3.12'", "python_full_version < '3.12'"]

[manifest]
members = ["demo", "lib"]

[[package]]
name = "demo"
version = "1"
source = { virtual = "." }
dependencies = [
    { name = "flask", extra = ["async"] },
    { name = "lib" },
    { name = "pywin", marker = "sys_platform == 'win32'" },
    { name = "numpy", version = "1.0", source = { registry = "https://h/simple" }, marker = "python_full_version < '3.12'" },
    { name = "numpy", version = "2.0", source = { registry = "https://h/simple" }, marker = "python_full_version >= '3.12'" },
]
[package.optional-dependencies]
web = [{ name = "click" }]
[package.dev-dependencies]
dev = [{ name = "pytest" }]

[[package]]
name = "lib"
version = "0.1"
source = { editable = "libs/lib" }
dependencies = [{ name = "six" }]

[[package]]
name = "local"
version = "3"
source = { path = "w/local-3-py3-none-any.whl" }
wheels = [{ filename = "local-3-py3-none-any.whl", hash = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" }]

[[package]]
name = "checkout"
version = "3"
source = { git = "https://h/x" }
"#;
        [
            head.to_owned(),
            package("flask", "3", "dependencies = [{ name = \"click\" }]\n[package.optional-dependencies]\nasync = [{ name = \"asgiref\" }]"),
            package("asgiref", "1", "dependencies = [{ name = \"flask\" }]"),
            package("click", "8", ""),
            package("six", "1", ""),
            package("pytest", "7", "dependencies = [{ name = \"local\" }]"),
            package("numpy", "1.0", "resolution-markers = [\"python_full_version < '3.12'\"]"),
            package("numpy", "2.0", "resolution-markers = [\"python_full_version >= '3.12'\"]"),
        ]
        .join("\n")
    }

    fn names(set: &LockSet) -> Vec<String> {
        set.packages
            .iter()
            .map(|it| format!("{} {}", it.name, it.version))
            .collect()
    }

    fn read(
        text: &str,
        extras: &[&str],
        groups: &[&str],
        target: &Target,
    ) -> Result<LockSet, InputError> {
        let parsed =
            |all: &[&str]| -> Vec<ExtraName> { all.iter().map(|it| it.parse().unwrap()).collect() };
        let wanted = UvWanted {
            member: None,
            extras: &parsed(extras),
            groups: &parsed(groups),
        };
        uv_lock("app/uv.lock", text, &wanted, target)
    }

    #[test]
    fn follows_what_holds() {
        let set = read(&text(), &[], &[], &target("amd64", "3.11.2")).unwrap();
        assert_eq!(
            names(&set),
            ["asgiref 1", "click 8", "flask 3", "numpy 1.0", "six 1"]
        );
        assert!(
            set.warnings[0].contains("`app/libs/lib`"),
            "{:?}",
            set.warnings
        );
        let flask = &set.packages[2];
        assert_eq!(flask.index.as_deref(), Some("https://h/simple"));
        assert_eq!(flask.wheels[0].size, Some(7));
        assert_eq!(
            flask.wheels[0].url.as_deref(),
            Some("https://h/f/flask-3-py3-none-any.whl")
        );
        let set = read(&text(), &["web"], &["dev"], &target("arm64", "3.13")).unwrap();
        assert_eq!(
            names(&set)[3..],
            ["local 3", "numpy 2.0", "pytest 7", "six 1"]
        );
        assert_eq!(
            set.packages[3].wheels[0].url.as_deref(),
            Some("app/w/local-3-py3-none-any.whl")
        );
        let source = Source::shared("image.toml", "package = \"lib\"\n");
        let of = |member: &str| {
            let member = (member.parse().unwrap(), Place::new(&source, 10..15));
            let wanted = UvWanted {
                member: Some(&member),
                ..UvWanted::default()
            };
            uv_lock("uv.lock", &text(), &wanted, &target("amd64", "3.11"))
        };
        assert_eq!(names(&of("lib").unwrap()), ["six 1"]);
        // One that is named is to be there, and those that it needs.
        let own = |member: &str| -> Vec<String> {
            let set = of(member).unwrap();
            assert!(set.warnings.is_empty(), "{:?}", set.warnings);
            set.projects.iter().map(|it| it.folder.clone()).collect()
        };
        assert_eq!(own("lib"), ["libs/lib"]);
        // The root is no package here.
        assert_eq!(own("demo"), ["libs/lib"]);
        // One that is in the lock, and no project of it, is none either.
        for member in ["nothing", "six"] {
            let error = of(member).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("image.toml:1: the workspace of the uv.lock has no project `{member}`")
            );
            assert_eq!(error.help, "the workspace has demo, lib");
        }
    }

    #[test]
    fn refuses_with_advice() {
        let good = text();
        let replaced = |from: &str, to: &str| {
            assert!(good.contains(from), "{from}");
            good.replacen(from, to, 1)
        };
        let target = target("amd64", "3.11.2");
        for (text, message) in [
            (replaced("version = 1\n", "version = 2\n"), "no uv.lock"),
            (replaced(">=3.10", ">=3.12"), "for Python >=3.12"),
            (
                replaced("{ name = \"six\" }", "{ name = \"none\" }"),
                "no `none` for this target",
            ),
            (
                replaced("{ name = \"six\" }", "{ name = \"checkout\" }"),
                "from git",
            ),
            (
                replaced("{ virtual = \".\" }", "{ virtual = \"demo\" }"),
                "not clear",
            ),
            (
                replaced(
                    "resolution-markers = [\"python_full_version >= '3.12'\"]",
                    "",
                )
                .replacen("{ name = \"six\" }", "{ name = \"numpy\" }", 1),
                "several `numpy`",
            ),
            (replaced("hash = \"sha256:", "hash = \"md5:"), "no sha256"),
            (replaced("sys_platform == 'win32'", "sys_platform =="), ""),
            (
                good.replace("name = \"flask\"\nversion = \"3\"\n", "name = \"flask\"\n"),
                "`version` is missing",
            ),
        ] {
            let groups: &[&str] = if message == "no sha256" {
                &["dev"]
            } else {
                &[]
            };
            let error = read(&text, &[], groups, &target).unwrap_err();
            assert!(error.message.contains(message), "{message}: {error}");
            assert!(!error.help.is_empty());
        }
        let error = read(&good, &["no"], &[], &target).unwrap_err();
        assert!(
            error.message.contains("no extra `no`") && error.help == "it has web",
            "{error}"
        );
    }
}
