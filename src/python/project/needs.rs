//! What a project needs, from its table or from its METADATA; what it is called; and where the projects of a workspace are.

use std::str::FromStr;

use pep508_rs::{ExtraName, MarkerTree, PackageName};

use super::glob::{self, Style};
use super::{Folder, Ground, Kind, Wheel, joined};
use crate::python::place::{InputError, Source};
use crate::python::pyproject::{Project, pyproject_unless};
use crate::python::table::Root;
use crate::python::{Asked, Names};

/// Returns what a project needs, with some of its extras and groups. What its table does not say comes from METADATA.
///
/// # Errors
/// As [`pyproject_unless`]; when there is no such extra.
pub(crate) fn needs(
    wheel: &Wheel,
    (path, text): (&str, &str),
    extras: &[String],
    groups: &[String],
    overridden: &Names,
) -> Result<Project, InputError> {
    let source = Source::shared(path, text);
    let root = Root::parse(&source)?;
    let table = root.get("project");
    let dynamic = table.map_or(Ok(Vec::new()), |it| it.list_of("dynamic"))?;
    let is_made = |name: &str| matches!(name, "dependencies" | "optional-dependencies");
    let is_dynamic = dynamic.iter().any(|it| it.text().is_ok_and(is_made));
    if table.is_some() && !is_dynamic {
        return pyproject_unless(path, text, extras, groups, overridden);
    }
    let has = |keys: [&str; 2]| {
        root.get(keys[0])
            .is_some_and(|it| it.get(keys[1]).is_some())
    };
    let sources = root.get("tool").and_then(|it| it.get("uv")?.get("sources"));
    if let Some(sources) = sources {
        let message = "what uv says of sources is read beside requirements of `[project]` alone";
        let help = "write `dependencies` into `[project]`";
        return Err(sources.place().error(super::CODE, message, help));
    }
    let mut project = match has(["tool", "uv"]) || !groups.is_empty() {
        true if table.is_none() => pyproject_unless(path, text, &[], groups, overridden)?,
        true => {
            let message = "its groups are read beside requirements of `[project]` alone";
            let help = "write `dependencies` into `[project]`";
            return Err(root.place().error(super::CODE, message, help));
        }
        false => Project::default(),
    };
    let place = table.map_or_else(|| root.place(), |it| it.place());
    let wanted: Result<Vec<ExtraName>, _> =
        extras.iter().map(|it| ExtraName::from_str(it)).collect();
    let wanted =
        wanted.map_err(|error| place.error(super::CODE, error.to_string(), "mend the name"))?;
    if let Some(extra) = wanted.iter().find(|it| !wheel.metadata.extras.contains(it)) {
        let all: Vec<&str> = wheel.metadata.extras.iter().map(AsRef::as_ref).collect();
        let help = match all.is_empty() {
            true => format!("there is no extra at all: take `{extra}` out"),
            false => format!("there are {}", all.join(", ")),
        };
        return Err(place.error(super::CODE, format!("there is no extra `{extra}`"), help));
    }
    for requirement in &wheel.metadata.requires {
        let mut requirement = requirement.clone();
        requirement.marker = requirement.marker.simplify_extras(&wanted);
        // What is left asks for an extra that is not wanted.
        let needs_extra = requirement.marker.try_to_string().unwrap_or_default();
        if requirement.marker.is_false() || needs_extra.contains("extra ==") {
            continue;
        }
        let text = requirement.to_string();
        project
            .requested
            .asked
            .push(Asked::parse_unless(&text, &place, path, overridden)?);
    }
    if let Some(python) = &wheel.metadata.requires_python {
        project.requires_python = Some((python.clone(), place));
    }
    Ok(project)
}

/// Returns the name that a project has, without a look at the rest of it.
pub(crate) fn named(text: &str) -> Option<PackageName> {
    let source = Source::shared("", text);
    let root = Root::parse(&source).ok()?;
    let project = root.get("project");
    let poetry = || root.get("tool")?.get("poetry");
    let table = project.or_else(poetry)?;
    table.text_of("name").ok()??.parse().ok()
}

/// Returns the folders of the workspace whose root has the text, below its folder; `None` if it is no root.
///
/// # Errors
/// When its patterns cannot be read.
pub(crate) fn members(
    folder: &dyn Folder,
    path: &str,
    text: &str,
) -> Result<Option<Vec<String>>, InputError> {
    let source = Source::shared(path, text);
    let root = Root::parse(&source)?;
    let table = root
        .get("tool")
        .and_then(|it| it.get("uv")?.get("workspace"));
    let Some(table) = table else {
        return Ok(None);
    };
    let ground = Ground {
        folder,
        root: &root,
        project: None,
    };
    let mut found = vec![String::new()];
    let mut excluded = Vec::new();
    for (key, all) in [("members", &mut found), ("exclude", &mut excluded)] {
        for item in table.list_of(key)? {
            for (path, kind) in glob::find(&ground, "", item.text()?, Style::Path)? {
                if kind == Kind::Folder && ground.is_file(&joined(&path, "pyproject.toml"))? {
                    all.push(path);
                }
            }
        }
    }
    found.retain(|it| !excluded.contains(it));
    Ok(Some(found))
}

/// Returns where a marker holds, with another one.
pub(crate) fn both(one: MarkerTree, other: MarkerTree) -> MarkerTree {
    let mut marker = one;
    marker.and(other);
    marker
}
