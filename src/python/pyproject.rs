//! What a pyproject.toml asks for: dependencies, extras and dependency groups (PyPA specifications, "pyproject.toml" and
//! "Dependency Groups").

use std::collections::{BTreeMap, BTreeSet};

use pep440_rs::VersionSpecifiers;
use pep508_rs::{ExtraName, PackageName};

use super::place::{InputError, Place, Source};
use super::project_tools::{self, Wanted};
use super::table::{Node, Root};
use super::{Asked, Names, Requested, specifiers};

const CODE: &str = "imgdecl::python::pyproject";

/// What a pyproject.toml asks for.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Project {
    /// The requirements.
    pub requested: Requested,
    /// The Pythons that the project needs, and where it says so.
    pub requires_python: Option<(VersionSpecifiers, Place)>,
    /// The time after which files were uploaded that are left out, by uv, and where it says so.
    pub exclude_newer: Option<(String, Place)>,
    /// What is wrong where the manifest names no index: Poetry or PDM name one.
    pub unasked: Option<InputError>,
}

/// Reads a pyproject.toml: its dependencies, and those of some extras and groups.
///
/// # Errors
/// What is wrong with it, and what would need a build.
pub fn pyproject(
    path: &str,
    text: &str,
    extras: &[String],
    groups: &[String],
) -> Result<Project, InputError> {
    pyproject_unless(path, text, extras, groups, &Names::new())
}

/// Does so; of the packages that something else takes the place of, only the names are looked at.
///
/// # Errors
/// As [`pyproject`].
pub(crate) fn pyproject_unless(
    path: &str,
    text: &str,
    extras: &[String],
    groups: &[String],
    overridden: &Names,
) -> Result<Project, InputError> {
    let source = Source::shared(path, text);
    let root = Root::parse(&source)?;
    let given = overridden;
    let mut overridden = given.clone();
    overridden.extend(replaced(&root)?);
    let mut reader = Reader {
        path,
        overridden: &overridden,
        asked: Vec::new(),
        seen: BTreeSet::new(),
        own: None,
        optional: BTreeMap::new(),
    };
    let mut project = Project::default();
    match root.get("project") {
        Some(table) => reader.project(&table, extras, &mut project)?,
        None if groups.is_empty() || !extras.is_empty() => return Err(no_project(&root)),
        None => {}
    }
    let all = reader_groups(&root)?;
    for name in groups {
        let Some(group) = all.get(&normal(name)) else {
            of_poetry(&root, name)?;
            return Err(unknown(&root.place(), "dependency group", name, all.keys()));
        };
        reader.group(group, &all, &mut vec![normal(name)])?;
    }
    project.requested.asked = reader.asked;
    let wanted = Wanted {
        path,
        extras,
        groups,
        overridden: given,
    };
    let uv = project_tools::uv(&root, &wanted, &mut project.requested)?;
    project.exclude_newer = uv.exclude_newer.map(|it| (it.value, it.place));
    project.unasked = project_tools::other_indexes(&root)?;
    project.requested.files.insert(path.to_owned());
    Ok(project)
}

struct Reader<'a> {
    path: &'a str,
    /// The packages that something else takes the place of.
    overridden: &'a Names,
    asked: Vec<Asked>,
    /// The extras and groups that were taken in.
    seen: BTreeSet<(&'static str, String)>,
    own: Option<PackageName>,
    optional: BTreeMap<String, Node<'a>>,
}

impl<'a> Reader<'a> {
    fn project(
        &mut self,
        table: &Node<'a>,
        extras: &[String],
        project: &mut Project,
    ) -> Result<(), InputError> {
        for field in table.list_of("dynamic")? {
            let name = field.text()?;
            if name == "dependencies" || name == "optional-dependencies" && !extras.is_empty() {
                return Err(field.place().error(
                    CODE,
                    format!("the `{name}` of this project are made by its build, which is not run"),
                    "write them into `[project]`, or name a requirements file instead",
                ));
            }
        }
        if let Some(value) = table.get("requires-python") {
            let parsed = specifiers(value.text()?);
            let parsed = parsed.ok_or_else(|| {
                value
                    .place()
                    .error(CODE, "this is no set of versions", "write it as `>=3.11`")
            })?;
            project.requires_python = Some((parsed, value.place()));
        }
        self.own = table.text_of("name")?.and_then(|it| it.parse().ok());
        if let Some(optional) = table.get("optional-dependencies") {
            for (name, list) in optional.entries()? {
                self.optional.insert(normal(name), list);
            }
        }
        for item in table.list_of("dependencies")? {
            self.requirement(&item)?;
        }
        for extra in extras {
            self.extra(extra, &table.place())?;
        }
        Ok(())
    }

    fn extra(&mut self, name: &str, place: &Place) -> Result<(), InputError> {
        let Some(list) = self.optional.get(&normal(name)).copied() else {
            return Err(unknown(place, "extra", name, self.optional.keys()));
        };
        if !self.seen.insert(("extra", normal(name))) {
            return Ok(());
        }
        for item in list.list()? {
            self.requirement(&item)?;
        }
        Ok(())
    }

    fn requirement(&mut self, item: &Node<'_>) -> Result<(), InputError> {
        let place = item.place();
        let asked = Asked::parse_unless(item.text()?, &place, self.path, self.overridden)?;
        if Some(asked.name()) == self.own.as_ref() {
            // A project asks for extras of its own.
            let extras: Vec<ExtraName> = asked.requirement.extras.clone();
            return extras
                .iter()
                .try_for_each(|it| self.extra(it.as_ref(), &place));
        }
        self.asked.push(asked);
        Ok(())
    }

    /// Takes a dependency group in, with the groups that it includes. `open` are the groups that led here.
    fn group(
        &mut self,
        list: &Node<'_>,
        all: &BTreeMap<String, Node<'_>>,
        open: &mut Vec<String>,
    ) -> Result<(), InputError> {
        if let Some(name) = open.last()
            && !self.seen.insert(("group", name.clone()))
        {
            return Ok(());
        }
        for item in list.list()? {
            if item.is_text() {
                self.requirement(&item)?;
                continue;
            }
            let entries = item.entries()?;
            let [("include-group", included)] = entries[..] else {
                return Err(item.place().error(
                    CODE,
                    "this is neither a requirement nor an included group",
                    "write a string, or `{include-group = \"NAME\"}`",
                ));
            };
            let name = normal(included.text()?);
            if open.contains(&name) {
                return Err(included.place().error(
                    CODE,
                    format!(
                        "the group `{name}` includes itself: {} -> {name}",
                        open.join(" -> ")
                    ),
                    "take out one of these includes",
                ));
            }
            let Some(group) = all.get(&name) else {
                return Err(unknown(
                    &included.place(),
                    "dependency group",
                    &name,
                    all.keys(),
                ));
            };
            open.push(name);
            self.group(group, all, open)?;
            open.pop();
        }
        Ok(())
    }
}

fn reader_groups<'a>(root: &'a Root<'a>) -> Result<BTreeMap<String, Node<'a>>, InputError> {
    let mut all = BTreeMap::new();
    // What uv knew before there were groups.
    let uv = root.get("tool").and_then(|it| it.get("uv"));
    let dev = uv.and_then(|it| it.get("dev-dependencies"));
    let entries = root.get("dependency-groups").map(|it| it.entries());
    let entries = entries.transpose()?.unwrap_or_default();
    let has_dev = entries.iter().any(|(name, _)| normal(name) == "dev");
    let dev = dev.filter(|_| !has_dev).map(|it| ("dev", it));
    for (name, list) in entries.into_iter().chain(dev) {
        if all.insert(normal(name), list).is_some() {
            return Err(list.place().error(
                CODE,
                format!("two dependency groups are called `{}`", normal(name)),
                "names that differ in case, `-`, `_` and `.` only are one name: rename one of them",
            ));
        }
    }
    Ok(all)
}

/// Returns the packages that uv has overrides for.
fn replaced(root: &Root<'_>) -> Result<Names, InputError> {
    let uv = root.get("tool").and_then(|it| it.get("uv"));
    let list = uv
        .map(|it| it.list_of("override-dependencies"))
        .transpose()?;
    let mut names = Names::new();
    for item in list.unwrap_or_default() {
        let text = item.text()?;
        let end =
            text.find(|it: char| !it.is_ascii_alphanumeric() && !matches!(it, '-' | '_' | '.'));
        let name = &text[..end.unwrap_or(text.len())];
        names.extend(name.parse::<PackageName>());
    }
    Ok(names)
}

/// Refuses a group that only Poetry knows.
fn of_poetry(root: &Root<'_>, name: &str) -> Result<(), InputError> {
    let poetry = root.get("tool").and_then(|it| it.get("poetry"));
    let groups = poetry.and_then(|it| it.get("group"));
    let groups = groups.map_or(Ok(Vec::new()), |it| it.entries())?;
    match groups.iter().find(|it| normal(it.0) == normal(name)) {
        None => Ok(()),
        Some((_, group)) => Err(group.place().error(
            CODE,
            format!("the group `{name}` is in Poetry's words, of which no requirements are made"),
            "name Poetry's lock in place of `pyproject`: lock = \"poetry.lock\"; or write the group in `[dependency-groups]`",
        )),
    }
}

fn no_project(root: &Root<'_>) -> InputError {
    let poetry = root.get("tool").and_then(|it| it.get("poetry"));
    let (place, help) = match poetry {
        Some(table) => (
            table.place(),
            "name Poetry's lock in place of `pyproject`: lock = \"poetry.lock\"; or export the dependencies (`poetry export -o \
             requirements.txt`), and name that file as `requirements`",
        ),
        None => (
            root.place(),
            "add `[project]` with `dependencies`, or name a requirements file",
        ),
    };
    place.error(CODE, "this pyproject.toml has no `[project]`", help)
}

fn unknown<'a>(
    place: &Place,
    what: &str,
    name: &str,
    known: impl Iterator<Item = &'a String>,
) -> InputError {
    let known: Vec<&str> = known.map(String::as_str).collect();
    let near = known
        .iter()
        .min_by_key(|it| strsim::damerau_levenshtein(it, name));
    let help = match near {
        None => format!("there is no {what} at all: take `{name}` out"),
        Some(near) if strsim::damerau_levenshtein(near, name) <= 2 => {
            format!("did you mean `{near}`?")
        }
        Some(_) => format!("there are {}", known.join(", ")),
    };
    place.error(CODE, format!("there is no {what} `{name}`"), help)
}

/// Normalises the name of an extra or a group, as names of packages are.
fn normal(name: &str) -> String {
    let name: Result<ExtraName, _> = name.parse();
    match name {
        Ok(name) => name.to_string(),
        Err(error) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, extras: &[&str], groups: &[&str]) -> Result<Vec<String>, InputError> {
        let owned =
            |all: &[&str]| -> Vec<String> { all.iter().map(|it| (*it).to_owned()).collect() };
        let project = pyproject("app/pyproject.toml", text, &owned(extras), &owned(groups))?;
        let asked = project.requested.asked.iter();
        Ok(asked
            .map(|it| format!("{} @{}", it.requirement, it.place.line))
            .collect())
    }

    const TEXT: &str = r#"
[project]
name = "Demo_App"
requires-python = ">=3.10"
dependencies = ["flask>=2",
    'idna ; sys_platform == "linux"']
[project.optional-dependencies]
Web_UI = ["click", "demo-app[more]"]
more = ["six", "demo.app[web-ui]"]
[dependency-groups]
Dev = ["pytest", {include-group = "lint"}, {include-group = "lint"}]
lint = ["ruff"]
loop = [{include-group = "knot"}]
knot = [{include-group = "loop"}]
lost = [{include-group = "lin"}]
odd = [{x = 1}]
"#;

    #[test]
    fn dependencies_extras_and_groups() {
        assert_eq!(
            read(TEXT, &[], &[]).unwrap(),
            ["flask>=2 @5", "idna ; sys_platform == 'linux' @6"]
        );
        assert_eq!(
            read(TEXT, &["web.ui"], &["dev"]).unwrap()[2..],
            ["click @8", "six @9", "pytest @11", "ruff @12"]
        );
        let project = pyproject("p", TEXT, &[], &[]).unwrap();
        assert_eq!(project.requires_python.unwrap().0.to_string(), ">=3.10");
        let groups_only = "[dependency-groups]\na = ['x']";
        assert_eq!(read(groups_only, &[], &["A"]).unwrap(), ["x @2"]);
    }

    #[test]
    fn uv_says_what_is_installed_and_from_where() {
        let text = r#"
[project]
dependencies = ["a", "b", "g @ git+https://h/g"]
[tool.uv]
override-dependencies = ["g==2", "x<3"]
constraint-dependencies = ["b<2"]
prerelease = "allow"
exclude-newer = "2026-01-02T00:00:00Z"
no-binary-package = []
flux = 1
[tool.uv.sources]
a = [{ index = "corp", marker = "sys_platform == 'linux'" }, { path = "..", group = "dev" }]
c = { path = ".." }
[[tool.uv.index]]
name = "corp"
url = "https://corp.example/simple"
explicit = true
[[tool.uv.index]]
url = "https://main.example/simple"
default = true
[[tool.uv.index]]
url = "https://extra.example/simple"
[[tool.uv.index]]
url = "https://flat.example/w.html"
format = "flat"
"#;
        let project = pyproject("p", text, &[], &[]).unwrap();
        let requested = project.requested;
        let texts = |all: &[Asked]| -> Vec<String> {
            all.iter().map(|it| it.requirement.to_string()).collect()
        };
        assert_eq!(texts(&requested.asked), ["a", "b", "g"]);
        assert_eq!(texts(&requested.overrides), ["g==2", "x<3"]);
        assert_eq!(texts(&requested.constraints), ["b<2"]);
        assert!(requested.options.is_pre);
        assert_eq!(project.exclude_newer.unwrap().0, "2026-01-02T00:00:00Z");
        assert!(
            requested.warnings[0].contains("`flux`"),
            "{:?}",
            requested.warnings
        );
        let indexes = requested.options.project.unwrap();
        assert_eq!(
            indexes.default.unwrap().url.value,
            "https://main.example/simple"
        );
        assert_eq!(indexes.extra[0].url.value, "https://extra.example/simple");
        assert_eq!(indexes.extra.len(), 1);
        let [(name, marker, index)] = &indexes.packages[..] else {
            panic!("{:?}", indexes.packages);
        };
        assert_eq!((name.as_ref(), index.name.as_deref()), ("a", Some("corp")));
        assert!(!marker.is_true());
        assert_eq!(
            requested.options.find_links[0].value,
            "https://flat.example/w.html"
        );
    }

    #[test]
    fn what_is_not_done_is_refused() {
        let project = "[project]\ndependencies = ['a']\n";
        for (text, message) in [
            ("[tool.uv]\nno-binary-package = ['a']", "asks for builds"),
            ("[tool.uv]\nno-binary = true", "asks for builds"),
            ("[tool.uv]\nresolution = 'lowest'", "`resolution`"),
            (
                "[tool.uv]\nindex-strategy = 'unsafe-best-match'",
                "`index-strategy`",
            ),
            ("[tool.uv]\nexclude-newer = '1 week'", "not read here"),
            ("[tool.uv]\nindex-url = 'file:///x'", "no http or https"),
            ("[[tool.uv.index]]\nname = 'x'", "no URL"),
            ("[tool.uv.sources]\na = {index = 'corp'}", "no index `corp`"),
            ("[tool.uv.sources]\na = {git = 'https://h/a'}", "from a git"),
        ] {
            let error = read(&format!("{project}{text}"), &[], &[]).unwrap_err();
            assert!(error.message.contains(message), "{text}: {error}");
            assert!(!error.help.is_empty(), "{text}");
        }
        let poetry = format!("{project}[tool.poetry.group.dev.dependencies]\nx = '1'");
        let error = read(&poetry, &[], &["dev"]).unwrap_err();
        assert!(error.message.contains("Poetry's words"), "{error}");
        let source = format!("{project}[[tool.poetry.source]]\nname = 'x'");
        let unasked = pyproject("p", &source, &[], &[]).unwrap().unasked.unwrap();
        assert!(unasked.help.contains("[index]"), "{unasked}");
        let old = format!("{project}[tool.uv]\ndev-dependencies = ['t']");
        assert_eq!(read(&old, &[], &["dev"]).unwrap()[1..], ["t @4"]);
    }

    #[test]
    fn sources_may_be_folders() {
        let text = "[project]\ndependencies = ['a[x]; os_name == \"posix\"', 'b', 'c']\n[tool.uv.sources]\n\
                    a = {workspace = true}\nb = {path = '../b', editable = true}";
        let requested = pyproject("app/pyproject.toml", text, &[], &[])
            .unwrap()
            .requested;
        assert_eq!(requested.asked.len(), 1);
        let folders = requested.folders.iter();
        let folders = folders.map(|it| (it.path.as_deref(), it.extras.len(), it.marker.is_true()));
        assert_eq!(
            folders.collect::<Vec<_>>(),
            [(None, 1, false), (Some("b"), 0, true)]
        );
        for part in [
            "{path = '../b-1-py3-none-any.whl'}",
            "{path = 'b', marker = 'os_name == \"x\"'}",
        ] {
            let text = format!("[project]\ndependencies = ['a']\n[tool.uv.sources]\na = {part}");
            let error = read(&text, &[], &[]).unwrap_err();
            assert!(error.message.contains("from a path"), "{error}");
        }
    }

    #[test]
    fn refuses_with_advice() {
        for (text, extras, groups, message, help) in [
            (TEXT, vec!["web"], vec![], "no extra `web`", "there are"),
            (
                TEXT,
                vec!["mor"],
                vec![],
                "no extra `mor`",
                "did you mean `more`",
            ),
            (
                TEXT,
                vec![],
                vec!["dve"],
                "no dependency group `dve`",
                "did you mean `dev`",
            ),
            (
                TEXT,
                vec![],
                vec!["loop"],
                "loop -> knot -> loop",
                "take out",
            ),
            (
                TEXT,
                vec![],
                vec!["lost"],
                "no dependency group `lin`",
                "`lint`",
            ),
            (TEXT, vec![], vec!["odd"], "neither", "include-group"),
            (
                "[project]\ndynamic = ['dependencies']",
                vec![],
                vec![],
                "made by its build",
                "[project]",
            ),
            (
                "[project]\ndependencies = 'a'",
                vec![],
                vec![],
                "must be an array",
                "an array",
            ),
            (
                "[project]\ndependencies = ['a b']",
                vec![],
                vec![],
                "found `b`",
                "write it as",
            ),
            (
                "[project]\ndependencies = ['./x']",
                vec![],
                vec![],
                "folder of sources",
                "build a wheel",
            ),
            (
                "[project]\nrequires-python = 'x'",
                vec![],
                vec![],
                "no set of versions",
                ">=3.11",
            ),
            (
                "[tool.poetry]\nname = 'x'",
                vec![],
                vec![],
                "no `[project]`",
                "poetry export",
            ),
            ("", vec![], vec![], "no `[project]`", "requirements file"),
            ("[project", vec![], vec![], "", "mend the TOML"),
            (
                "[dependency-groups]\na-b = []\nA_b = []",
                vec![],
                vec!["a-b"],
                "two dependency groups",
                "rename",
            ),
        ] {
            let error = read(text, &extras, &groups).unwrap_err();
            assert!(error.message.contains(message), "{text}: {error}");
            assert!(error.help.contains(help), "{text}: {}", error.help);
        }
        let error = read(TEXT, &[], &["lost"]).unwrap_err();
        assert_eq!((error.place.text(), error.place.line), ("\"lin\"", 15));
    }
}
