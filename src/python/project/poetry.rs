//! The back end poetry-core: packages by name or pattern, and Poetry's own table (`poetry/core/masonry`, `factory.py`).

use std::collections::BTreeMap;

use pep440_rs::Version;

use super::core::{Core, Licence, pairs, path, texts};
use super::glob::{self, Style};
use super::poetry_files::select;
use super::poetry_words::{constraint, of_pep508, requirement};
use super::requirement::{Item, parse_marker};
use super::{Ground, Made, Wheel, escaped, field, licence, normalised};
use crate::python::place::InputError;
use crate::python::{specifiers, table::Node};

/// The versions that this is as.
const KNOWN: &[&str] = &["2.5.0"];

/// Keys of `[tool.poetry]`.
const KEYS: &[&str] = &[
    "authors",
    "classifiers",
    "dependencies",
    "description",
    "dev-dependencies",
    "documentation",
    "exclude",
    "extras",
    "group",
    "homepage",
    "include",
    "keywords",
    "license",
    "maintainers",
    "name",
    "package-mode",
    "packages",
    "plugins",
    "readme",
    "repository",
    "requires-plugins",
    "requires-poetry",
    "scripts",
    "source",
    "urls",
    "version",
];

/// The Pythons that have a classifier.
const PYTHONS: &[&str] = &[
    "2", "2.7", "3", "3.4", "3.5", "3.6", "3.7", "3.8", "3.9", "3.10", "3.11", "3.12", "3.13",
    "3.14", "3.15",
];

/// The classifiers of licences.
const LICENCES: &[(&str, &str)] = &[
    ("AGPL-3.0-only", "GNU Affero General Public License v3"),
    (
        "AGPL-3.0-or-later",
        "GNU Affero General Public License v3 or later (AGPLv3+)",
    ),
    ("Apache-2.0", "Apache Software License"),
    ("BSD-2-Clause", "BSD License"),
    ("BSD-3-Clause", "BSD License"),
    ("GPL-2.0-only", "GNU General Public License v2 (GPLv2)"),
    (
        "GPL-2.0-or-later",
        "GNU General Public License v2 or later (GPLv2+)",
    ),
    ("GPL-3.0-only", "GNU General Public License v3 (GPLv3)"),
    (
        "GPL-3.0-or-later",
        "GNU General Public License v3 or later (GPLv3+)",
    ),
    (
        "LGPL-3.0-only",
        "GNU Lesser General Public License v3 (LGPLv3)",
    ),
    (
        "LGPL-3.0-or-later",
        "GNU Lesser General Public License v3 or later (LGPLv3+)",
    ),
    ("MIT", "MIT License"),
];

/// What is said of a project.
struct Said {
    name: String,
    version: Version,
    summary: String,
    authors: Vec<String>,
    maintainers: Vec<String>,
    /// The licence of Poetry's table: its identifier.
    licence: Option<String>,
    expression: Option<String>,
    licence_files: Vec<String>,
    keywords: Vec<String>,
    classifiers: Vec<String>,
    /// Whether the classifiers of Pythons and licences are made.
    is_classified: bool,
    /// The Pythons, as they are written, and as specifiers.
    python: (String, String),
    requires: Vec<String>,
    extras: Vec<String>,
    /// The names and URLs, in order.
    urls: Vec<(String, String)>,
    /// The description and its type.
    description: Option<(String, String)>,
    points: Vec<(String, Vec<(String, String)>)>,
}

/// Returns what the wheel holds.
pub(super) fn wheel(ground: &Ground<'_>) -> Result<Wheel, InputError> {
    let own = ground.version_of("poetry-core", KNOWN, &[])?;
    let tool = ground.get(&["tool", "poetry"]);
    if let Some(tool) = &tool {
        if let Some(script) = tool.get("build") {
            return Err(ground.refuse(script.place(), "a script takes part in its build"));
        }
        ground.only(tool, KEYS, "`[tool.poetry]`")?;
        if tool.get("package-mode").is_some_and(|it| !it.is_true()) {
            return Err(ground.refuse(tool.place(), "it is no package: `package-mode` is false"));
        }
    }
    let said = match ground.project {
        Some(_) => of_project(ground, tool)?,
        None => of_tool(ground, tool)?,
    };
    let mut made = Made::new(format!("{}-{}", escaped(&said.name), said.version));
    select(ground, tool, &said.name, &mut made)?;
    let mut points = String::new();
    let mut groups = said.points.clone();
    groups.sort();
    for (group, entries) in groups {
        let lines = entries
            .iter()
            .map(|(name, value)| format!("{name} = {value}"));
        let mut lines: Vec<String> = lines.collect();
        lines.sort();
        let lines = lines.iter().map(|it| it.replace(' ', "") + "\n");
        points += &format!("[{group}]\n{}\n", lines.collect::<String>());
    }
    if !points.is_empty() {
        made.text("entry_points.txt", points);
    }
    let is_two = allows_major(ground, &said.python.1, 2)?;
    let tag = if is_two {
        "py2.py3-none-any"
    } else {
        "py3-none-any"
    };
    made.text(
        "WHEEL",
        format!(
            "Wheel-Version: 1.0\nGenerator: poetry-core {own}\nRoot-Is-Purelib: true\nTag: {tag}\n"
        ),
    );
    made.licences(ground, &said.licence_files)?;
    let metadata = metadata(ground, &said)?;
    made.end(ground, tag, metadata)
}

/// Reads the table of Poetry.
fn of_tool(ground: &Ground<'_>, tool: Option<Node<'_>>) -> Result<Said, InputError> {
    let Some(tool) = tool else {
        return Err(ground.fail("it has neither `[project]` nor `[tool.poetry]`"));
    };
    let text = |key: &str| -> Result<Option<String>, InputError> {
        Ok(tool.text_of(key)?.map(str::to_owned))
    };
    let list = |key: &str| -> Result<Vec<String>, InputError> {
        Ok(texts(tool.get(key))?
            .into_iter()
            .map(str::to_owned)
            .collect())
    };
    let needed = |key: &str| -> Result<String, InputError> {
        text(key)?.ok_or_else(|| ground.refuse(tool.place(), format!("it has no `{key}`")))
    };
    let (python, requires, extras) = dependencies(ground, &tool)?;
    let named = [
        ("Homepage", text("homepage")?),
        ("Repository", text("repository")?),
        ("Documentation", text("documentation")?),
    ];
    let named = named
        .into_iter()
        .filter_map(|(name, url)| Some((name.to_owned(), url?)));
    let mut urls: Vec<(String, String)> = named.collect();
    for (name, url) in pairs(tool.get("urls"))? {
        urls.push((name.to_owned(), url.to_owned()));
    }
    let readmes = match tool.get("readme") {
        None => Vec::new(),
        Some(node) if node.is_text() => vec![path(ground, &node, node.text()?)?],
        Some(node) => {
            let all = node.list()?;
            all.iter()
                .map(|it| path(ground, it, it.text()?))
                .collect::<Result<_, _>>()?
        }
    };
    let description = match readmes.first() {
        None => None,
        Some(first) => {
            let texts: Result<Vec<String>, _> = readmes.iter().map(|it| ground.lines(it)).collect();
            Some((texts?.join("\n"), type_of(first)))
        }
    };
    let mut points: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let scripts = owned(pairs(tool.get("scripts"))?);
    if !scripts.is_empty() {
        points.push(("console_scripts".to_owned(), scripts));
    }
    for (group, entries) in tool
        .get("plugins")
        .map_or(Ok(Vec::new()), |it| it.entries())?
    {
        points.push((group.to_owned(), owned(pairs(Some(entries))?)));
    }
    Ok(Said {
        name: needed("name")?,
        version: version(ground, &needed("version")?)?,
        summary: text("description")?.unwrap_or_default(),
        authors: list("authors")?,
        maintainers: list("maintainers")?,
        licence: text("license")?,
        expression: None,
        licence_files: licences(ground, None)?,
        keywords: list("keywords")?,
        classifiers: list("classifiers")?,
        is_classified: true,
        python: (python.clone(), python),
        requires,
        extras,
        urls,
        description,
        points,
    })
}

/// Reads `[project]`.
fn of_project(ground: &Ground<'_>, tool: Option<Node<'_>>) -> Result<Said, InputError> {
    let core = Core::read(ground, false)?;
    if let Some(name) = core.dynamic.first() {
        let place = ground.at(&["project", "dynamic"]);
        return Err(ground.refuse(place, format!("its `{name}` is dynamic")));
    }
    // What Poetry's table says besides would be mixed in.
    for key in [
        "authors",
        "classifiers",
        "dependencies",
        "description",
        "documentation",
        "extras",
        "homepage",
        "keywords",
        "license",
        "maintainers",
        "plugins",
        "readme",
        "repository",
        "scripts",
        "urls",
    ] {
        if let Some(node) = tool.and_then(|it| it.get(key)) {
            let why = format!("`[project]` and `[tool.poetry]` both describe it: `{key}`");
            return Err(ground.refuse(node.place(), why));
        }
    }
    let people = |people: &[(Option<&str>, Option<&str>)]| -> Vec<String> {
        let all = people.iter().map(|(name, email)| match (name, email) {
            (Some(name), Some(email)) => format!("{name} <{email}>"),
            (name, email) => name.or(*email).unwrap_or_default().to_owned(),
        });
        all.collect()
    };
    let expression = match &core.licence {
        Licence::None => None,
        Licence::Expression(text) => {
            let place = ground.at(&["project", "license"]);
            let why = format!("the form of the licence `{text}` is not known");
            Some(licence::canonical(text).ok_or_else(|| ground.refuse(place, why))?)
        }
        _ => {
            let place = ground.at(&["project", "license"]);
            return Err(ground.refuse(place, "its licence is a text and no expression"));
        }
    };
    let requires = requirements(ground, &core)?;
    let python = core.requires_python.unwrap_or_default().to_owned();
    let readme = core.readme.as_ref().map(|it| {
        let file = it.file.clone().unwrap_or_default();
        let kind = it.content_type.clone().unwrap_or_else(|| type_of(&file));
        (it.text.clone(), kind)
    });
    let strings =
        |list: &[&str]| -> Vec<String> { list.iter().map(|it| (*it).to_owned()).collect() };
    let points = core.groups().into_iter();
    Ok(Said {
        name: core.name.to_owned(),
        version: version(ground, core.version.unwrap_or_default())?,
        summary: core.description.unwrap_or_default().to_owned(),
        authors: people(&core.authors),
        maintainers: people(&core.maintainers),
        licence: None,
        expression,
        licence_files: licences(ground, core.licence_files.as_deref())?,
        keywords: strings(&core.keywords),
        is_classified: core.classifiers.is_empty(),
        classifiers: strings(&core.classifiers),
        python: (python.clone(), python),
        requires,
        extras: core.optional.iter().map(|it| normalised(it.0)).collect(),
        urls: urls(&core),
        description: readme,
        points: points
            .map(|(name, pairs)| (name.to_owned(), owned(pairs)))
            .collect(),
    })
}

/// Returns the requirements of `[project]` as they are written.
fn requirements(ground: &Ground<'_>, core: &Core<'_>) -> Result<Vec<String>, InputError> {
    let mut requires = Vec::new();
    let mut need = |text: &str, extra: &[String]| -> Result<(), InputError> {
        let place = ground.at(&["project", "dependencies"]);
        let why = format!("how `{text}` is written in METADATA is not known");
        requires.push(of_pep508(text, extra).ok_or_else(|| ground.refuse(place, why))?);
        Ok(())
    };
    for text in &core.dependencies {
        need(text, &[])?;
    }
    for (extra, list) in &core.optional {
        for text in list {
            need(text, &[normalised(extra)])?;
        }
    }
    Ok(requires)
}

/// Returns the URLs: those that Poetry has words for come first.
fn urls(core: &Core<'_>) -> Vec<(String, String)> {
    let mut named: [Option<String>; 3] = [None, None, None];
    let mut others = Vec::new();
    for (name, url) in &core.urls {
        let names = ["homepage", "repository", "documentation"];
        match names.iter().position(|it| *it == name.to_lowercase()) {
            Some(at) => named[at] = Some((*url).to_owned()),
            None => others.push(((*name).to_owned(), (*url).to_owned())),
        }
    }
    let names = ["Homepage", "Repository", "Documentation"].into_iter();
    let named = names
        .zip(named)
        .filter_map(|(name, url)| Some((name.to_owned(), url?)));
    named.chain(others).collect()
}

fn owned(pairs: Vec<(&str, &str)>) -> Vec<(String, String)> {
    let all = pairs.into_iter();
    all.map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
}

fn version(ground: &Ground<'_>, text: &str) -> Result<Version, InputError> {
    text.parse()
        .map_err(|_| ground.fail(format!("`{text}` is no version")))
}

/// Returns the type of a description, by the name of its file.
fn type_of(file: &str) -> String {
    let end = file.rsplit_once('.').map_or("", |it| it.1);
    let kind = match end {
        "rst" => "text/x-rst",
        "md" | "markdown" => "text/markdown",
        _ => "text/plain",
    };
    kind.to_owned()
}

/// The Pythons, the requirements, and the names of the extras.
type Dependencies = (String, Vec<String>, Vec<String>);

/// Reads the dependencies of Poetry's table.
fn dependencies(ground: &Ground<'_>, tool: &Node<'_>) -> Result<Dependencies, InputError> {
    let mut in_extras: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut extras = Vec::new();
    for (extra, list) in tool
        .get("extras")
        .map_or(Ok(Vec::new()), |it| it.ordered())?
    {
        for name in texts(Some(list))? {
            in_extras
                .entry(normalised(name))
                .or_default()
                .push(normalised(extra));
        }
        extras.push(normalised(extra));
    }
    let (mut python, mut requires) = (None, Vec::new());
    for (name, node) in tool
        .get("dependencies")
        .map_or(Ok(Vec::new()), |it| it.ordered())?
    {
        if name.eq_ignore_ascii_case("python") {
            let text = node.text()?;
            let why = format!("what `{text}` means of Python is not read");
            let known = constraint(text).filter(|it| !it.is_empty());
            python = Some(known.ok_or_else(|| ground.refuse(node.place(), why))?);
            continue;
        }
        let all = match node.list() {
            Ok(list) => list,
            Err(_) => vec![node],
        };
        let own = in_extras
            .get(&normalised(name))
            .cloned()
            .unwrap_or_default();
        for item in all {
            requires.extend(dependency(ground, name, &item, &own)?);
        }
    }
    let python =
        python.ok_or_else(|| ground.refuse(tool.place(), "nothing says which Python it needs"))?;
    Ok((python, requires, extras))
}

/// Returns a dependency as it is written; `None` if it is optional and of no extra.
fn dependency(
    ground: &Ground<'_>,
    name: &str,
    item: &Node<'_>,
    own: &[String],
) -> Result<Option<String>, InputError> {
    let unknown = || {
        let why = format!("how its dependency `{name}` is written in METADATA is not known");
        ground.refuse(item.place(), why)
    };
    if item.is_text() {
        let text = requirement(name, &[], item.text()?, &[], own);
        return text.map(Some).ok_or_else(unknown);
    }
    ground.only(
        item,
        &[
            "allow-prereleases",
            "extras",
            "markers",
            "optional",
            "platform",
            "python",
            "source",
            "version",
        ],
        "a dependency",
    )?;
    if item.get("optional").is_some_and(|it| it.is_true()) && own.is_empty() {
        return Ok(None);
    }
    let mut marker: Vec<Item> = Vec::new();
    if let Some(text) = item.text_of("markers")? {
        marker = parse_marker(text).ok_or_else(unknown)?;
    }
    let compare = |name: &str, operator: &str, value: &str| {
        Item::Compare(name.to_owned(), operator.to_owned(), format!("\"{value}\""))
    };
    if let Some(text) = item.text_of("python")? {
        let all = constraint(text)
            .filter(|it| !it.contains('*'))
            .ok_or_else(unknown)?;
        for part in all.split(',').filter(|it| !it.is_empty()) {
            let end = part.find(|it| !"<>=!".contains(it)).unwrap_or_default();
            let (operator, version) = part.split_at(end);
            if version.split('.').count() != 2 {
                return Err(unknown());
            }
            if !marker.is_empty() {
                marker.push(Item::Join("and"));
            }
            marker.push(compare("python_version", operator, version));
        }
    }
    if let Some(platform) = item.text_of("platform")? {
        if !platform.chars().all(|it| it.is_ascii_alphanumeric()) {
            return Err(unknown());
        }
        if !marker.is_empty() {
            marker.push(Item::Join("and"));
        }
        marker.push(compare("sys_platform", "==", platform));
    }
    let extras: Vec<String> = texts(item.get("extras"))?
        .into_iter()
        .map(str::to_owned)
        .collect();
    let versions = item.text_of("version")?.unwrap_or("*");
    let text = requirement(name, &extras, versions, &marker, own);
    text.map(Some).ok_or_else(unknown)
}

/// Returns the files that are licences, sorted.
fn licences(ground: &Ground<'_>, patterns: Option<&[&str]>) -> Result<Vec<String>, InputError> {
    const DEFAULT: &[&str] = &[
        "COPYING*",
        "LICEN[SC]E*",
        "AUTHORS*",
        "NOTICE*",
        "LICENSES/**/*",
    ];
    for pattern in patterns.unwrap_or_default() {
        if glob::files(ground, &[pattern], Style::Path)?.is_empty() {
            let place = ground.at(&["project", "license-files"]);
            return Err(ground.refuse(place, format!("there is no file `{pattern}`")));
        }
    }
    let mut files = glob::files(ground, patterns.unwrap_or(DEFAULT), Style::Path)?;
    files.sort();
    Ok(files)
}

/// Tells whether some Python of a major version is allowed.
fn allows_major(ground: &Ground<'_>, python: &str, major: u64) -> Result<bool, InputError> {
    let all = specifiers(python).filter(|_| !python.is_empty());
    let Some(all) = all else {
        return Err(ground.fail("nothing says which Python it needs, in a form that is read"));
    };
    let minors =
        (0..=50).flat_map(|minor| [0, 1, 99].map(|patch| Version::new([major, minor, patch])));
    Ok(minors.into_iter().any(|it| all.contains(&it)))
}

/// Returns the classifiers, with those of Pythons and of the licence.
fn classifiers(ground: &Ground<'_>, said: &Said) -> Result<Vec<String>, InputError> {
    if !said.is_classified {
        return Ok(said.classifiers.clone());
    }
    let prefix = "Programming Language :: Python";
    let all = specifiers(&said.python.1);
    let mut pythons = Vec::new();
    for python in PYTHONS {
        let allowed = match python.parse::<u64>() {
            Ok(major) => allows_major(ground, &said.python.1, major)?,
            Err(_) => {
                let version: Option<Version> = python.parse().ok();
                version
                    .zip(all.as_ref())
                    .is_some_and(|(it, all)| all.contains(&it))
            }
        };
        if allowed {
            pythons.push(format!("{prefix} :: {python}"));
        }
    }
    let mut others = said.classifiers.clone();
    if let Some(id) = &said.licence {
        let found = LICENCES.iter().find(|it| it.0 == id);
        let why = format!("the classifier of the licence `{id}` is not known");
        let place = ground.at(&["tool", "poetry", "license"]);
        let (_, name) = found.ok_or_else(|| ground.refuse(place, why))?;
        others.push(format!("License :: OSI Approved :: {name}"));
    }
    others.retain(|it| !pythons.contains(it));
    others.sort();
    others.dedup();
    let at = others.iter().position(|it| it.as_str() > prefix);
    others.splice(
        at.unwrap_or(others.len())..at.unwrap_or(others.len()),
        pythons,
    );
    Ok(others)
}

fn metadata(ground: &Ground<'_>, said: &Said) -> Result<String, InputError> {
    let mut out = String::new();
    field(&mut out, "Metadata-Version", "2.4");
    field(&mut out, "Name", &said.name);
    field(&mut out, "Version", &said.version.to_string());
    field(&mut out, "Summary", &said.summary);
    if let Some(licence) = &said.licence {
        field(&mut out, "License", licence);
    } else if let Some(expression) = &said.expression {
        field(&mut out, "License-Expression", expression);
    }
    for file in &said.licence_files {
        field(&mut out, "License-File", file);
    }
    if !said.keywords.is_empty() {
        field(&mut out, "Keywords", &said.keywords.join(","));
    }
    for (people, who) in [(&said.authors, "Author"), (&said.maintainers, "Maintainer")] {
        let Some(first) = people.first() else {
            continue;
        };
        let (name, email) = match first.split_once(" <") {
            Some((name, email)) => (name, email.strip_suffix('>')),
            None => (first.as_str(), None),
        };
        if name.contains(['<', '>']) || first.contains('<') && email.is_none() {
            return Err(ground.fail(format!("`{first}` is no name with an address")));
        }
        field(&mut out, who, name);
        if let Some(email) = email {
            field(&mut out, &format!("{who}-email"), email);
        }
    }
    if !said.python.0.is_empty() {
        field(&mut out, "Requires-Python", &said.python.0);
    }
    for classifier in classifiers(ground, said)? {
        field(&mut out, "Classifier", &classifier);
    }
    let mut extras = said.extras.clone();
    extras.sort();
    extras.dedup();
    extras
        .iter()
        .for_each(|it| field(&mut out, "Provides-Extra", it));
    let mut requires = said.requires.clone();
    requires.sort();
    requires
        .iter()
        .for_each(|it| field(&mut out, "Requires-Dist", it));
    let mut urls = said.urls.clone();
    urls.sort_by_key(|it| it.0.chars().next());
    for (name, url) in urls {
        field(&mut out, "Project-URL", &format!("{name}, {url}"));
    }
    if let Some((text, kind)) = &said.description {
        field(&mut out, "Description-Content-Type", kind);
        out += &format!("\n{text}\n");
    }
    Ok(out)
}
