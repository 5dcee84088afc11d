//! What a project asks for by itself, in the words of PyPA, Poetry and PDM: where a walk through its lock begins.

use std::collections::BTreeSet;

use pep508_rs::{ExtraName, MarkerEnvironment, PackageName, VersionOrUrl};

use super::constraint::Constraint;
use super::walk::Edge;
use super::{CODE, LockWanted, extra_names, known, normal};
use crate::python::place::{InputError, Place};
use crate::python::table::{Node, Root};
use crate::python::{Requirement, pep508};

/// The group that Poetry calls what a project always needs.
pub(super) const MAIN: &str = "main";

/// The tool whose words count besides those of PyPA.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Tool {
    /// Poetry.
    Poetry,
    /// PDM.
    Pdm,
}

/// Reads what a project asks for on a target, with some extras and groups.
pub(super) fn roots<'a>(
    tool: Tool,
    root: &'a Root<'a>,
    wanted: &LockWanted<'_>,
    markers: &MarkerEnvironment,
) -> Result<Vec<Edge>, InputError> {
    let mut reader = Reader {
        own: None,
        markers,
        optional: Vec::new(),
        groups: groups(tool, root)?,
        seen: BTreeSet::new(),
        edges: Vec::new(),
    };
    reader.project(tool, root, wanted)?;
    for name in wanted.groups.iter().filter(|it| !is_always(tool, it)) {
        reader.group(name, &root.place())?;
    }
    Ok(reader.edges)
}

/// Returns the names of the groups that a project has, besides the one that is always there.
pub(super) fn group_names<'a>(
    tool: Tool,
    root: &'a Root<'a>,
) -> Result<BTreeSet<String>, InputError> {
    Ok(groups(tool, root)?.into_iter().map(|it| it.name).collect())
}

/// Tells whether a group is the one that is always there.
fn is_always(tool: Tool, name: &str) -> bool {
    match tool {
        Tool::Poetry => normal(name) == MAIN,
        Tool::Pdm => normal(name) == "default",
    }
}

/// A group, as far as one table says it. Several may say one group.
struct Group<'a> {
    /// Its normalised name.
    name: String,
    /// What the table says.
    node: Node<'a>,
    /// How it says it.
    form: Form,
}

/// How the dependencies of a group are written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// A list of requirements, and of groups that are included.
    List,
    /// Poetry's table of packages.
    Table,
    /// Poetry's table that has such a table, and groups that are included.
    Nested,
}

/// Returns the groups of a project, but for the one that is always there.
fn groups<'a>(tool: Tool, root: &'a Root<'a>) -> Result<Vec<Group<'a>>, InputError> {
    let mut all = Vec::new();
    let mut add = |node: Option<Node<'a>>, form: Form| -> Result<(), InputError> {
        for (name, node) in node.map_or(Ok(Vec::new()), |it| it.entries())? {
            let name = normal(name);
            all.push(Group { name, node, form });
        }
        Ok(())
    };
    add(root.get("dependency-groups"), Form::List)?;
    let of_tool = |name: &str| root.get("tool").and_then(|it| it.get(name));
    match tool {
        Tool::Poetry => {
            let poetry = of_tool("poetry");
            add(poetry.and_then(|it| it.get("group")), Form::Nested)?;
            let old = poetry.and_then(|it| it.get("dev-dependencies"));
            if let Some(node) = old {
                let name = "dev".to_owned();
                let form = Form::Table;
                all.push(Group { name, node, form });
            }
        }
        Tool::Pdm => {
            let project = root.get("project");
            let optional = project.and_then(|it| it.get("optional-dependencies"));
            add(optional, Form::List)?;
            let old = of_tool("pdm").and_then(|it| it.get("dev-dependencies"));
            add(old, Form::List)?;
        }
    }
    Ok(all)
}

/// Reads a project.
struct Reader<'a> {
    /// The project's own name.
    own: Option<PackageName>,
    /// What markers see on the target.
    markers: &'a MarkerEnvironment,
    /// Its optional dependencies, by extra.
    optional: Vec<(String, Node<'a>)>,
    /// Its groups.
    groups: Vec<Group<'a>>,
    /// The extras and groups that were taken in.
    seen: BTreeSet<(bool, String)>,
    /// What is asked for so far.
    edges: Vec<Edge>,
}

impl<'a> Reader<'a> {
    /// Takes what the project always needs, and its extras.
    fn project(
        &mut self,
        tool: Tool,
        root: &'a Root<'a>,
        wanted: &LockWanted<'_>,
    ) -> Result<(), InputError> {
        let project = root.get("project");
        if let Some(project) = project {
            self.own = project.text_of("name")?.and_then(|it| it.parse().ok());
            if let Some(optional) = project.get("optional-dependencies") {
                let all = optional.entries()?.into_iter();
                self.optional = all.map(|(name, list)| (normal(name), list)).collect();
            }
            for item in project.list_of("dependencies")? {
                self.requirement(&item)?;
            }
        }
        let poetry = root.get("tool").and_then(|it| it.get("poetry"));
        let poetry = poetry.filter(|_| tool == Tool::Poetry);
        let dependencies = poetry.and_then(|it| it.get("dependencies"));
        // Where `[project]` names them, Poetry's table only says more of them.
        let is_named = project.is_some_and(|it| it.get("dependencies").is_some());
        if let Some(table) = dependencies.filter(|_| !is_named) {
            self.table(&table, None)?;
        }
        for name in wanted.extras {
            let of_poetry = poetry.and_then(|it| it.get("extras"));
            let of_poetry = of_poetry.map_or(Ok(Vec::new()), |it| it.entries())?;
            let found = of_poetry.iter().find(|it| normal(it.0) == normal(name));
            match (found, dependencies) {
                (Some((_, list)), Some(table)) => {
                    let names = list.list()?.into_iter().map(|it| Ok(normal(it.text()?)));
                    let names: Vec<String> = names.collect::<Result<_, InputError>>()?;
                    self.table(&table, Some(&names))?;
                }
                _ => self.extra(name, &root.place())?,
            }
        }
        Ok(())
    }

    /// Takes an extra in PyPA's words.
    fn extra(&mut self, name: &str, place: &Place) -> Result<(), InputError> {
        if !self.seen.insert((true, normal(name))) {
            return Ok(());
        }
        let found = self.optional.iter().find(|it| it.0 == normal(name));
        let Some(list) = found.map(|it| it.1) else {
            let names = self.optional.iter().map(|it| it.0.as_str());
            let message = format!("the project has no extra `{name}`");
            return Err(place.error(CODE, message, known(name, names)));
        };
        list.list()?.iter().try_for_each(|it| self.requirement(it))
    }

    /// Takes a group, with the groups that it includes. `place` is where it is asked for.
    fn group(&mut self, name: &str, place: &Place) -> Result<(), InputError> {
        let name = normal(name);
        if !self.seen.insert((false, name.clone())) {
            return Ok(());
        }
        let found = self.groups.iter().filter(|it| it.name == name);
        let found: Vec<(Node<'a>, Form)> = found.map(|it| (it.node, it.form)).collect();
        if found.is_empty() {
            let names: BTreeSet<&str> = self.groups.iter().map(|it| it.name.as_str()).collect();
            let message = format!("the project has no group `{name}`");
            return Err(place.error(CODE, message, known(&name, names)));
        }
        for (node, form) in found {
            match form {
                Form::Table => self.table(&node, None)?,
                Form::Nested => {
                    if let Some(table) = node.get("dependencies") {
                        self.table(&table, None)?;
                    }
                    for other in node.list_of("include-groups")? {
                        self.group(other.text()?, &other.place())?;
                    }
                }
                Form::List => {
                    for item in node.list()? {
                        match item.get("include-group") {
                            Some(other) => self.group(other.text()?, &other.place())?,
                            None => self.requirement(&item)?,
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes a requirement of PyPA's form.
    fn requirement(&mut self, item: &Node<'a>) -> Result<(), InputError> {
        let text = item.text()?;
        // PDM's groups for development may name folders of their own.
        if text.starts_with("-e ") {
            return Ok(());
        }
        let place = item.place();
        let parsed = requirement(text, &place)?;
        if Some(&parsed.name) == self.own.as_ref() {
            let extras = parsed.extras.iter();
            return extras
                .into_iter()
                .try_for_each(|it| self.extra(it.as_ref(), &place));
        }
        if parsed.marker.evaluate(self.markers, &[]) {
            self.edges.push(edge(parsed, place));
        }
        Ok(())
    }

    /// Takes Poetry's table of packages: those that are not optional, or those optional ones of some names.
    fn table(&mut self, table: &Node<'a>, names: Option<&[String]>) -> Result<(), InputError> {
        for (name, value) in table.entries()? {
            if name == "python" || names.is_some_and(|it| !it.contains(&normal(name))) {
                continue;
            }
            for part in parts(&value) {
                let is_optional = part.get("optional").is_some_and(|it| it.is_true());
                if is_optional != names.is_some() {
                    continue;
                }
                if let Some(edge) = entry(name, &part, self.markers, &[])? {
                    self.edges.push(edge);
                }
            }
        }
        Ok(())
    }
}

/// Parses a requirement of PyPA's form.
pub(super) fn requirement(text: &str, place: &Place) -> Result<Requirement, InputError> {
    pep508::requirement(text).map_err(|error| {
        let message = format!("`{text}` is no requirement: {}", error.message);
        place.error(
            CODE,
            message,
            "write the file again with the tool that made it",
        )
    })
}

/// Makes the edge of a requirement of PyPA's form.
pub(super) fn edge(requirement: Requirement, place: Place) -> Edge {
    let admits = match requirement.version_or_url {
        Some(VersionOrUrl::VersionSpecifier(specifiers)) => specifiers.into(),
        _ => Constraint::any(),
    };
    Edge {
        name: requirement.name,
        admits,
        extras: requirement.extras,
        place,
    }
}

/// Returns the parts of a dependency of Poetry's form: each is for another platform or Python.
pub(super) fn parts<'a>(value: &Node<'a>) -> Vec<Node<'a>> {
    value.list().unwrap_or_else(|_| vec![*value])
}

/// Reads one part of a dependency of Poetry's form; `None` if it is not for the target. `extras` are those of the package
/// that asks.
pub(super) fn entry(
    name: &str,
    part: &Node<'_>,
    markers: &MarkerEnvironment,
    extras: &[ExtraName],
) -> Result<Option<Edge>, InputError> {
    let place = part.place();
    let wrong = |message: String| place.error(CODE, message, "run `poetry lock` again");
    let parsed: PackageName = name
        .parse()
        .map_err(|_| wrong(format!("`{name}` is no name of a package")))?;
    let set = |text: &str| {
        let set = Constraint::parse(text);
        set.ok_or_else(|| wrong(format!("`{text}` is no set of versions")))
    };
    if part.is_text() {
        return Ok(Some(Edge {
            name: parsed,
            admits: set(part.text()?)?,
            extras: Vec::new(),
            place,
        }));
    }
    let python = &markers.python_full_version().version;
    if let Some(text) = part.text_of("python")?
        && !set(text)?.admits(python)
    {
        return Ok(None);
    }
    if let Some(text) = part.text_of("platform")?
        && !is_ours(text)
    {
        return Ok(None);
    }
    if let Some(text) = part.text_of("markers")? {
        let marker = pep508::marker(text).map_err(|it| wrong(it.message))?;
        if !marker.evaluate(markers, extras) {
            return Ok(None);
        }
    }
    let own = part.list_of("extras")?;
    let own: Vec<&str> = own.iter().map(|it| it.text()).collect::<Result<_, _>>()?;
    Ok(Some(Edge {
        name: parsed,
        admits: part
            .text_of("version")?
            .map_or(Ok(Constraint::any()), set)?,
        extras: extra_names(own),
        place,
    }))
}

/// Tells whether one of the platforms that Poetry names is Linux.
fn is_ours(platforms: &str) -> bool {
    let mut parts = platforms.split('|').map(str::trim);
    parts.any(|it| match it.strip_prefix("!=") {
        Some(other) => other.trim() != "linux",
        None => it.trim_start_matches('=').trim() == "linux",
    })
}
