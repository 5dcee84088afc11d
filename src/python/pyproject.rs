//! What a pyproject.toml asks for: dependencies, extras and dependency groups (PyPA specifications, "pyproject.toml" and
//! "Dependency Groups").

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pep440_rs::VersionSpecifiers;
use pep508_rs::{ExtraName, PackageName};

use super::place::{InputError, Place, Source};
use super::table::{Node, Root};
use super::{Asked, Requested, specifiers};

const CODE: &str = "imgdecl::python::pyproject";

/// What a pyproject.toml asks for.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Project {
    /// The requirements.
    pub requested: Requested,
    /// The Pythons that the project needs, and where it says so.
    pub requires_python: Option<(VersionSpecifiers, Place)>,
    /// The index from which a package is to come, by uv's `[tool.uv.sources]`.
    pub indexes: BTreeMap<PackageName, String>,
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
    let source = Arc::new(Source {
        name: path.to_owned(),
        text: text.to_owned(),
    });
    let root = Root::parse(&source)?;
    let mut reader = Reader {
        path,
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
    sources(&root, &reader.asked, &mut project)?;
    project.requested.asked = reader.asked;
    project.requested.files.insert(path.to_owned());
    Ok(project)
}

struct Reader<'a> {
    path: &'a str,
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
        let asked = Asked::parse(item.text()?, &place, self.path)?;
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
    let Some(groups) = root.get("dependency-groups") else {
        return Ok(all);
    };
    for (name, list) in groups.entries()? {
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

/// Reads uv's sources: an index is noted; what needs a build is refused.
fn sources(root: &Root<'_>, asked: &[Asked], project: &mut Project) -> Result<(), InputError> {
    let sources = root
        .get("tool")
        .and_then(|it| it.get("uv"))
        .and_then(|it| it.get("sources"));
    let Some(sources) = sources else {
        return Ok(());
    };
    for (name, value) in sources.entries()? {
        let Ok(name) = name.parse::<PackageName>() else {
            continue;
        };
        if !asked.iter().any(|it| *it.name() == name) {
            continue;
        }
        let parts = match value.list() {
            Ok(parts) => parts,
            Err(_) => vec![value],
        };
        for part in parts {
            if let Some(index) = part.text_of("index")? {
                project.indexes.insert(name.clone(), index.to_owned());
                continue;
            }
            let kinds = ["git", "path", "url", "workspace"];
            let kind = kinds.into_iter().find(|kind| part.get(kind).is_some());
            return Err(part.place().error(
                "imgdecl::python::source",
                format!("uv takes `{name}` from a {} here", kind.unwrap_or("source of its own")),
                "name `uv_lock` instead of `pyproject`; or build a wheel of it and point `find_links` at its folder",
            ));
        }
    }
    Ok(())
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
    fn the_index_of_uv_is_noted() {
        let text = "[project]\ndependencies = ['a', 'b']\n[tool.uv.sources]\na = {index = 'corp'}\nc = {path = '..'}";
        let project = pyproject("p", text, &[], &[]).unwrap();
        assert_eq!(project.indexes[&"a".parse().unwrap()], "corp");
        assert_eq!(project.indexes.len(), 1);
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
                "[project]\ndependencies = ['a']\n[tool.uv.sources]\na = {workspace = true}",
                vec![],
                vec![],
                "from a workspace",
                "uv_lock",
            ),
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
