//! The back end setuptools, where a project is described by pyproject.toml or setup.cfg, and setup.py does nothing but call
//! `setup()` (`setuptools/_core_metadata.py`, `config`, `command`).

use pep440_rs::Version;

use super::core::{Core, Licence, joined_people, path, texts};
use super::glob::{self, Style};
use super::requirement::{Parts, parse_marker, written};
use super::setuptools_files::Layout;
use super::{
    Ground, Kind, Made, Wheel, attribute, escaped, field, joined, licence, normal, normalised,
    setup_cfg,
};
use crate::python::place::InputError;
use crate::python::table::Node;

/// The versions that this is as.
const KNOWN: &[&str] = &["84.2.1"];

/// The files that are licences where nothing is said.
const LICENCES: &[&str] = &["LICEN[CS]E*", "COPYING*", "NOTICE*", "AUTHORS*"];

/// Where a version comes from.
pub(super) enum VersionFrom {
    /// It is said.
    Text(String),
    /// An attribute of a module, as `package.__version__`.
    Attribute(String),
    /// Files.
    Files(Vec<String>),
}

/// What is said of a project, by whichever file.
pub(super) struct Said {
    pub(super) name: String,
    pub(super) version: VersionFrom,
    pub(super) summary: String,
    pub(super) home_page: Option<String>,
    pub(super) download_url: Option<String>,
    pub(super) author: Option<String>,
    pub(super) author_email: Option<String>,
    pub(super) maintainer: Option<String>,
    pub(super) maintainer_email: Option<String>,
    pub(super) licence: Licence,
    /// Patterns, where any are said.
    pub(super) licence_files: Option<Vec<String>>,
    pub(super) urls: Vec<(String, String)>,
    pub(super) keywords: Vec<String>,
    pub(super) platforms: Vec<String>,
    pub(super) classifiers: Vec<String>,
    pub(super) requires_python: Option<String>,
    /// The text and its type.
    pub(super) description: Option<(String, Option<String>)>,
    pub(super) requires: Vec<String>,
    /// Extras, perhaps with `:MARKER`, and their requirements.
    pub(super) extras: Vec<(String, Vec<String>)>,
    /// Groups, with names and values.
    pub(super) points: Vec<(String, Vec<(String, String)>)>,
    /// Files that were read for it.
    pub(super) referenced: Vec<String>,
    pub(super) layout: Layout,
}

/// Returns what the wheel holds.
pub(super) fn wheel(ground: &Ground<'_>) -> Result<Wheel, InputError> {
    let own = ground.version_of("setuptools", KNOWN, &["wheel"])?;
    script(ground)?;
    if ground.get(&["tool", "distutils"]).is_some() {
        let place = ground.at(&["tool", "distutils"]);
        return Err(ground.refuse(place, "`[tool.distutils]` is not read"));
    }
    let config = setup_cfg::Config::read(ground)?;
    let mut said = match ground.project {
        Some(_) => {
            config.only_of_tools(ground)?;
            of_project(ground)?
        }
        None => {
            if ground.get(&["tool", "setuptools"]).is_some() {
                let place = ground.at(&["tool", "setuptools"]);
                return Err(ground.refuse(place, "`[tool.setuptools]` stands without `[project]`"));
            }
            config.said(ground)?
        }
    };
    said.layout.discover(ground)?;
    let version = version(ground, &said)?;
    let mut made = Made::new(format!("{}-{version}", escaped(&said.name)));
    let licences = licences(ground, &said)?;
    let referenced: Vec<String> = said.referenced.iter().chain(&licences).cloned().collect();
    let base = said.layout.root_folder();
    let sources = format!("{}.egg-info/SOURCES.txt", said.name.replace('-', "_"));
    let sources = joined(&base, &sources);
    said.layout.take(ground, &referenced, &sources, &mut made)?;
    made.licences(ground, &licences)?;
    let points = entry_points(&said);
    if !points.is_empty() {
        made.text("entry_points.txt", points);
    }
    made.text("top_level.txt", said.layout.tops());
    if said.layout.zip_safe {
        made.text("zip-safe", "\n");
    }
    made.text(
        "WHEEL",
        format!("Wheel-Version: 1.0\nGenerator: setuptools ({own})\nRoot-Is-Purelib: true\nTag: py3-none-any\n\n"),
    );
    let metadata = metadata(ground, &said, &version, &licences)?;
    made.end(ground, "py3-none-any", metadata)
}

/// Refuses a setup.py that does more than call `setup()`.
fn script(ground: &Ground<'_>) -> Result<(), InputError> {
    if !ground.is_file("setup.py")? {
        return Ok(());
    }
    const PLAIN: &[&str] = &[
        "from setuptools import setup",
        "import setuptools",
        "setup()",
        "setuptools.setup()",
        "if __name__ == \"__main__\":",
        "if __name__ == '__main__':",
        "pass",
    ];
    let text = ground.lines("setup.py")?;
    let mut text = text.as_str();
    // A docstring says nothing.
    for quote in ["\"\"\"", "'''"] {
        let start = text.trim_start();
        let start = match start.strip_prefix("#!") {
            Some(rest) => rest.split_once('\n').map_or("", |it| it.1).trim_start(),
            None => start,
        };
        if let Some((_, rest)) = start
            .strip_prefix(quote)
            .and_then(|it| it.split_once(quote))
        {
            text = rest;
        }
    }
    for line in text.lines() {
        let code = line.split(" #").next().unwrap_or_default().trim();
        if !code.is_empty() && !code.starts_with('#') && !PLAIN.contains(&code) {
            return Err(ground.fail(format!(
                "its setup.py does more than call `setup()`: `{code}`"
            )));
        }
    }
    Ok(())
}

/// Reads pyproject.toml.
fn of_project(ground: &Ground<'_>) -> Result<Said, InputError> {
    let core = Core::read(ground, false)?;
    let tool = ground.get(&["tool", "setuptools"]);
    if core.import_names.is_some() || core.import_namespaces.is_some() {
        let place = ground.at(&["project", "import-names"]);
        return Err(ground.refuse(place, "it says under which names it is imported"));
    }
    let (author, author_email) = joined_people(ground, &core.authors)?;
    let (maintainer, maintainer_email) = joined_people(ground, &core.maintainers)?;
    let some = |text: String| Some(text).filter(|it| !it.is_empty());
    let owned = |list: &[&str]| -> Vec<String> { list.iter().map(|it| (*it).to_owned()).collect() };
    let mut referenced = Vec::new();
    let description = match &core.readme {
        Some(readme) => {
            referenced.extend(readme.file.clone());
            Some((readme.text.clone(), Some(readme.kind(ground)?)))
        }
        None => None,
    };
    if let Licence::File(file) = &core.licence {
        referenced.push(file.clone());
    }
    let owned_pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        let all = pairs.iter();
        all.map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
            .collect()
    };
    let points = core.groups().into_iter();
    let optional = core.optional.iter();
    let licence_files = match &core.licence_files {
        Some(list) => Some(owned(list)),
        None => {
            let node = tool.and_then(|it| it.get("license-files"));
            node.map(|it| texts(Some(it)))
                .transpose()?
                .map(|it| owned(&it))
        }
    };
    let mut said = Said {
        name: core.name.to_owned(),
        version: VersionFrom::Text(core.version.unwrap_or_default().to_owned()),
        summary: core.description.unwrap_or_default().to_owned(),
        home_page: None,
        download_url: None,
        author: some(author),
        author_email: some(author_email),
        maintainer: some(maintainer),
        maintainer_email: some(maintainer_email),
        licence: core.licence.clone(),
        licence_files,
        urls: owned_pairs(&core.urls),
        keywords: owned(&core.keywords),
        platforms: owned(&texts(tool.and_then(|it| it.get("platforms")))?),
        classifiers: owned(&core.classifiers),
        requires_python: core.requires_python.map(str::to_owned),
        description,
        requires: owned(&core.dependencies),
        extras: optional
            .map(|(extra, list)| ((*extra).to_owned(), owned(list)))
            .collect(),
        points: points
            .filter(|(_, pairs)| !pairs.is_empty())
            .map(|(name, pairs)| (name.to_owned(), owned_pairs(&pairs)))
            .collect(),
        referenced,
        layout: Layout::of_tool(ground, tool)?,
    };
    dynamic(ground, &core, &mut said)?;
    Ok(said)
}

/// Reads what is dynamic from the files that it is in.
fn dynamic(ground: &Ground<'_>, core: &Core<'_>, said: &mut Said) -> Result<(), InputError> {
    for name in &core.dynamic {
        let place = ground.at(&["project", "dynamic"]);
        let node = ground.get(&["tool", "setuptools", "dynamic", name]);
        let why = format!("where its `{name}` comes from is code");
        let Some(node) = node else {
            return Err(ground.refuse(place, why));
        };
        let files = |node: &Node<'_>| -> Result<Vec<String>, InputError> {
            let Some(file) = node.get("file") else {
                return Err(ground.refuse(node.place(), &why));
            };
            let all = match file.is_text() {
                true => vec![file],
                false => file.list()?,
            };
            all.iter().map(|it| path(ground, it, it.text()?)).collect()
        };
        match *name {
            "version" => {
                said.version = match node.text_of("attr")? {
                    Some(attribute) => VersionFrom::Attribute(attribute.to_owned()),
                    None => {
                        let files = files(&node)?;
                        said.referenced.extend(files.clone());
                        VersionFrom::Files(files)
                    }
                };
            }
            "readme" => {
                let files = files(&node)?;
                let kind = node.text_of("content-type")?.unwrap_or("text/x-rst");
                let text = contents(ground, &files)?;
                said.description = Some((text, Some(kind.to_owned())));
                said.referenced.extend(files);
            }
            "dependencies" => {
                let files = files(&node)?;
                said.requires = list(&contents(ground, &files)?);
                said.referenced.extend(files);
            }
            "optional-dependencies" => {
                for (extra, node) in node.ordered()? {
                    let files = files(&node)?;
                    let list = list(&contents(ground, &files)?);
                    said.extras.push((extra.to_owned(), list));
                    said.referenced.extend(files);
                }
            }
            _ => return Err(ground.refuse(node.place(), why)),
        }
    }
    if core.version.is_none() && !core.dynamic.contains(&"version") {
        return Err(ground.fail("it has no `version`"));
    }
    Ok(())
}

/// Reads files one after the other.
pub(super) fn contents(ground: &Ground<'_>, files: &[String]) -> Result<String, InputError> {
    let texts: Result<Vec<String>, _> = files.iter().map(|it| ground.lines(it)).collect();
    Ok(texts?.join("\n"))
}

/// Returns the requirements of a text, a line for each.
fn list(text: &str) -> Vec<String> {
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|it| !it.is_empty() && !it.starts_with('#'));
    lines
        .map(|it| it.split(" #").next().unwrap_or_default().trim().to_owned())
        .collect()
}

/// Finds the version.
fn version(ground: &Ground<'_>, said: &Said) -> Result<Version, InputError> {
    let place = ground.at(&["project", "dynamic"]);
    let text = match &said.version {
        VersionFrom::Text(text) => text.clone(),
        VersionFrom::Files(files) => contents(ground, files)?,
        VersionFrom::Attribute(attribute) => {
            let (module, name) = attribute
                .trim()
                .rsplit_once('.')
                .unwrap_or(("__init__", attribute));
            let path = said.layout.folder_of(module);
            let files = [format!("{path}.py"), joined(&path, "__init__.py")];
            let mut text = None;
            for file in files {
                if text.is_none() && ground.is_file(&file)? {
                    text = Some(ground.text(&file)?);
                }
            }
            let value = text.and_then(|text| attribute::assigned(&text, name.trim()));
            let why = format!("`{attribute}` is no plain string in its file");
            value.ok_or_else(|| ground.refuse(place.clone(), why))?
        }
    };
    let version: Result<Version, _> = text.trim().parse();
    version.map_err(|_| ground.refuse(place, format!("`{}` is no version", text.trim())))
}

/// Returns the files that are licences, in the order of the patterns.
fn licences(ground: &Ground<'_>, said: &Said) -> Result<Vec<String>, InputError> {
    let own = said.licence_files.as_ref();
    let patterns: Vec<&str> = match own {
        Some(list) => list.iter().map(String::as_str).collect(),
        None => LICENCES.to_vec(),
    };
    for pattern in &patterns {
        if normal(pattern).is_none() {
            return Err(ground.fail(format!("its licence `{pattern}` lies elsewhere")));
        }
        if own.is_some() && glob::files(ground, &[pattern], Style::Recursive)?.is_empty() {
            return Err(ground.fail(format!("there is no file `{pattern}`")));
        }
    }
    let mut files = glob::files(ground, &patterns, Style::Recursive)?;
    files.retain(|it| !it.ends_with('~'));
    Ok(files)
}

fn entry_points(said: &Said) -> String {
    let mut groups = said.points.clone();
    groups.sort();
    let groups = groups.into_iter().map(|(name, mut pairs)| {
        pairs.sort();
        let lines = pairs
            .iter()
            .map(|(key, value)| format!("{} = {}", key.trim(), value.trim()));
        format!("[{name}]\n{}\n", lines.collect::<Vec<_>>().join("\n"))
    });
    groups.collect::<Vec<_>>().join("\n")
}

fn metadata(
    ground: &Ground<'_>,
    said: &Said,
    version: &Version,
    licences: &[String],
) -> Result<String, InputError> {
    let mut out = String::new();
    field(&mut out, "Metadata-Version", "2.4");
    field(&mut out, "Name", &said.name);
    field(&mut out, "Version", &version.to_string());
    if !said.summary.is_empty() {
        let summary = match said.summary.contains('\n') {
            true => said.summary.trim().lines().next().unwrap_or_default(),
            false => &said.summary,
        };
        field(&mut out, "Summary", summary);
    }
    for (name, value) in [
        ("Home-page", &said.home_page),
        ("Download-URL", &said.download_url),
        ("Author", &said.author),
        ("Author-email", &said.author_email),
        ("Maintainer", &said.maintainer),
        ("Maintainer-email", &said.maintainer_email),
    ] {
        if let Some(value) = value {
            field(&mut out, name, value);
        }
    }
    write_licence(ground, said, &mut out)?;
    for (label, url) in &said.urls {
        field(&mut out, "Project-URL", &format!("{label}, {url}"));
    }
    if !said.keywords.is_empty() {
        field(&mut out, "Keywords", &said.keywords.join(","));
    }
    for (name, list) in [
        ("Platform", &said.platforms),
        ("Classifier", &said.classifiers),
    ] {
        list.iter().for_each(|value| field(&mut out, name, value));
    }
    if let Some(python) = &said.requires_python {
        let mut all: Vec<String> = python
            .split(',')
            .map(|it| it.split_whitespace().collect())
            .collect();
        all.retain(|it| !it.is_empty());
        all.sort();
        field(&mut out, "Requires-Python", &all.join(","));
    }
    if let Some((_, Some(kind))) = &said.description {
        field(&mut out, "Description-Content-Type", kind);
    }
    for file in licences {
        field(&mut out, "License-File", file);
    }
    write_requirements(ground, said, &mut out)?;
    // They are found by patterns, if these are said or not.
    if !licences.is_empty() {
        field(&mut out, "Dynamic", "license-file");
    }
    if let Some((text, _)) = said.description.as_ref().filter(|it| !it.0.is_empty()) {
        out += &format!("\n{text}");
        if !text.ends_with('\n') {
            out.push('\n');
        }
    }
    Ok(out)
}

fn write_licence(ground: &Ground<'_>, said: &Said, out: &mut String) -> Result<(), InputError> {
    let text = match &said.licence {
        Licence::None => return Ok(()),
        Licence::Expression(text) => {
            let place = ground.at(&["project", "license"]);
            let why = format!("the form of the licence `{text}` is not known");
            let known = licence::canonical(text).ok_or_else(|| ground.refuse(place, why))?;
            field(out, "License-Expression", &known);
            return Ok(());
        }
        Licence::Text(text) => text.clone(),
        Licence::File(file) => ground.lines(file)?,
    };
    if !text.is_empty() {
        let lines: Vec<&str> = text.split('\n').collect();
        field(out, "License", &lines.join("\n        "));
    }
    Ok(())
}

fn write_requirements(
    ground: &Ground<'_>,
    said: &Said,
    out: &mut String,
) -> Result<(), InputError> {
    let read = |text: &str| {
        let place = ground.at(&["project", "dependencies"]);
        let why = format!("how `{text}` is written in METADATA is not known");
        Parts::parse(text).ok_or_else(|| ground.refuse(place, why))
    };
    for text in &said.requires {
        field(out, "Requires-Dist", &read(text)?.written());
    }
    let mut known: Vec<String> = Vec::new();
    for (name, list) in &said.extras {
        let (extra, condition) = name.split_once(':').unwrap_or((name, ""));
        let extra = normalised(extra.trim());
        if !extra.is_empty() && !known.contains(&extra) {
            field(out, "Provides-Extra", &extra);
            known.push(extra.clone());
        }
        for text in list {
            let mut parts = read(text)?;
            let mut marker = Vec::new();
            if !parts.marker.is_empty() {
                marker.push(format!("({})", written(&parts.marker)));
            }
            if !condition.trim().is_empty() {
                marker.push(format!("({condition})"));
            }
            if !extra.is_empty() {
                marker.push(format!("extra == '{extra}'"));
            }
            let joined = marker.join(" and ");
            let why = format!("the condition `{joined}` cannot be read");
            parts.marker = parse_marker(&joined).ok_or_else(|| ground.fail(why))?;
            field(out, "Requires-Dist", &parts.written());
        }
    }
    Ok(())
}

/// Tells whether something is a file that may be executed.
pub(super) fn is_executable(ground: &Ground<'_>, path: &str) -> Result<Option<bool>, InputError> {
    Ok(match ground.kind(path)? {
        Some(Kind::File(executable)) => Some(executable),
        _ => None,
    })
}
