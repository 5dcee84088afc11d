//! The back end uv_build: modules below a root, found by name (`crates/uv-build-backend` of uv).

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use pep440_rs::{Version, VersionSpecifiers};

use super::core::{Core, Licence};
use super::{Ground, Listed, Made, Wheel, escaped, field, joined, licence, normal, normalised};
use crate::python::place::InputError;
use crate::python::{pep508, table::Node};

/// The versions that this is as: the last of each series.
const KNOWN: &[&str] = &["0.9.30", "0.10.12", "0.11.33", "0.12.24", "0.13.6"];

/// What is left out where nothing is said.
const EXCLUDED: &[&str] = &["__pycache__", "*.pyc", "*.pyo"];

/// Keys of `[tool.uv.build-backend]`.
const KEYS: &[&str] = &[
    "data",
    "default-excludes",
    "module-name",
    "module-root",
    "namespace",
    "source-exclude",
    "source-include",
    "wheel-exclude",
];

/// Returns what the wheel holds.
pub(super) fn wheel(ground: &Ground<'_>) -> Result<Wheel, InputError> {
    let own = ground.version_of("uv-build", KNOWN, &[])?;
    let settings = ground.get(&["tool", "uv", "build-backend"]);
    if let Some(settings) = &settings {
        ground.only(settings, KEYS, "`[tool.uv.build-backend]`")?;
    }
    let core = Core::read(ground, true)?;
    if !core.dynamic.is_empty() {
        return Err(ground.refuse(
            ground.at(&["project", "dynamic"]),
            "it has dynamic metadata",
        ));
    }
    let text = core
        .version
        .ok_or_else(|| ground.fail("it has no `version`"))?;
    let version: Result<Version, _> = text.parse();
    let version = version.map_err(|_| ground.fail(format!("`{text}` is no version")))?;
    let mut made = Made::new(format!("{}-{version}", escaped(core.name)));
    let excluded = excluded(ground, settings.as_ref())?;
    modules(ground, settings.as_ref(), &core, &excluded, &mut made)?;
    data(ground, settings.as_ref(), &excluded, &mut made)?;
    let licences = licences(ground, &core)?;
    made.licences(ground, &licences)?;
    made.text(
        "WHEEL",
        format!(
            "Wheel-Version: 1.0\nGenerator: uv {own}\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        ),
    );
    let project = ground.project.as_ref();
    let has = |key: &str| project.is_some_and(|it| it.get(key).is_some());
    if has("scripts") || has("gui-scripts") || has("entry-points") {
        made.text("entry_points.txt", entry_points(&core, &has));
    }
    let metadata = metadata(ground, &core, &version, &licences)?;
    made.end(ground, "py3-none-any", metadata)
}

/// Returns what is left out, by paths from the project's folder.
fn excluded(ground: &Ground<'_>, settings: Option<&Node<'_>>) -> Result<GlobSet, InputError> {
    let off = settings.and_then(|it| it.get("default-excludes"));
    let mut patterns: Vec<&str> = match off {
        Some(node) if !node.is_true() => Vec::new(),
        _ => EXCLUDED.to_vec(),
    };
    for key in ["wheel-exclude", "source-exclude"] {
        let list = settings.map_or(Ok(Vec::new()), |it| it.list_of(key))?;
        for item in list {
            patterns.push(item.text()?);
        }
    }
    let anchored = patterns.iter().map(|it| match it.strip_prefix('/') {
        Some(rest) => rest.to_owned(),
        None => format!("**/{it}"),
    });
    set(ground, &anchored.collect::<Vec<_>>())
}

/// Makes one matcher of patterns: `*` stops at `/`.
fn set(ground: &Ground<'_>, patterns: &[String]) -> Result<GlobSet, InputError> {
    let fail = |error: globset::Error| ground.fail(error.to_string());
    let mut builder = GlobSetBuilder::new();
    for pattern in patterns {
        if pattern.contains(['{', '!', '\\']) {
            return Err(ground.fail(format!("the pattern `{pattern}` is not read")));
        }
        let glob = GlobBuilder::new(pattern).literal_separator(true).build();
        builder.add(glob.map_err(fail)?);
    }
    builder.build().map_err(fail)
}

/// Adds the modules.
fn modules(
    ground: &Ground<'_>,
    settings: Option<&Node<'_>>,
    core: &Core<'_>,
    excluded: &GlobSet,
    made: &mut Made,
) -> Result<(), InputError> {
    let root = settings.map_or(Ok(None), |it| it.text_of("module-root"))?;
    let root = root.unwrap_or("src");
    let root =
        normal(root).ok_or_else(|| ground.fail(format!("`{root}` leads out of its folder")))?;
    let named = settings.and_then(|it| it.get("module-name"));
    let is_namespace = settings
        .and_then(|it| it.get("namespace"))
        .is_some_and(|it| it.is_true());
    let mut names = Vec::new();
    match &named {
        Some(node) if node.is_text() => names.push(node.text()?.to_owned()),
        Some(node) => {
            for item in node.list()? {
                names.push(item.text()?.to_owned());
            }
        }
        None => names.push(match normalised(core.name).strip_suffix("-stubs") {
            Some(stem) => format!("{}-stubs", escaped(stem)),
            None => escaped(core.name),
        }),
    }
    for name in names {
        let module = joined(&root, &name.replace('.', "/"));
        let is_stubs = name
            .split('.')
            .next()
            .is_some_and(|it| it.ends_with("-stubs"));
        let init = joined(
            &module,
            if is_stubs {
                "__init__.pyi"
            } else {
                "__init__.py"
            },
        );
        if !is_namespace && !ground.is_file(&init)? {
            return Err(ground.fail(format!("there is no {}", ground.shown(&init))));
        }
        for (path, executable) in walk(ground, &module, excluded)? {
            let to = path[root.len()..].trim_start_matches('/');
            made.file(to, &path, executable);
        }
    }
    Ok(())
}

/// Returns the files below a folder that are not left out.
fn walk(
    ground: &Ground<'_>,
    start: &str,
    excluded: &GlobSet,
) -> Result<Vec<(String, bool)>, InputError> {
    if excluded.is_match(start) {
        return Ok(Vec::new());
    }
    let mut files = ground.walk(start, &|path, _| !excluded.is_match(path))?;
    files.retain(|(path, _)| !excluded.is_match(path));
    let name = |it: &(String, bool)| it.0.rsplit('/').next().map(str::to_owned);
    match files
        .iter()
        .find(|it| name(it).as_deref() == Some("pyvenv.cfg"))
    {
        Some((path, _)) => {
            let why = format!("{} is of a virtual environment", ground.shown(path));
            Err(ground.fail(why))
        }
        None => Ok(files),
    }
}

/// Adds the files that go beside the modules.
fn data(
    ground: &Ground<'_>,
    settings: Option<&Node<'_>>,
    excluded: &GlobSet,
    made: &mut Made,
) -> Result<(), InputError> {
    let data = settings.and_then(|it| it.get("data"));
    for (name, node) in data.map_or(Ok(Vec::new()), |it| it.entries())? {
        let text = node.text()?;
        let folder = normal(text).filter(|it| !it.is_empty());
        let folder =
            folder.ok_or_else(|| ground.refuse(node.place(), "its data lies elsewhere"))?;
        let stem = made.stem.clone();
        for (path, executable) in walk(ground, &folder, excluded)? {
            let below = path[folder.len()..].trim_start_matches('/');
            made.file(&format!("{stem}.data/{name}/{below}"), &path, executable);
        }
    }
    Ok(())
}

/// Returns the files that are licences, sorted.
fn licences(ground: &Ground<'_>, core: &Core<'_>) -> Result<Vec<String>, InputError> {
    let Some(patterns) = &core.licence_files else {
        return Ok(Vec::new());
    };
    if !matches!(core.licence, Licence::None | Licence::Expression(_)) {
        let place = ground.at(&["project", "license"]);
        return Err(ground.refuse(place, "`license` is no expression beside `license-files`"));
    }
    let mut files = Vec::new();
    for pattern in patterns {
        let one = set(ground, &[(*pattern).to_owned()])?;
        let before = files.len();
        // Only folders that the pattern names are looked into.
        let parts: Vec<&str> = pattern.split('/').collect();
        look(ground, "", &parts, &one, &mut files)?;
        if files.len() == before {
            let place = ground.at(&["project", "license-files"]);
            return Err(ground.refuse(place, format!("there is no file `{pattern}`")));
        }
    }
    files.sort();
    files.dedup();
    Ok(files)
}

/// Finds the files of a pattern, part by part.
fn look(
    ground: &Ground<'_>,
    folder: &str,
    parts: &[&str],
    whole: &GlobSet,
    files: &mut Vec<String>,
) -> Result<(), InputError> {
    let (first, rest) = match parts.split_first() {
        Some((first, rest)) => (*first, rest),
        None => return Ok(()),
    };
    for Listed { name, kind } in ground.list(folder)? {
        let path = joined(folder, &name);
        match kind {
            super::Kind::File(_) if whole.is_match(&path) => files.push(path),
            super::Kind::Folder if first == "**" => look(ground, &path, parts, whole, files)?,
            super::Kind::Folder if super::glob::matches(first, &name) => {
                look(ground, &path, rest, whole, files)?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn entry_points(core: &Core<'_>, has: &dyn Fn(&str) -> bool) -> String {
    let mut out = String::new();
    let mut group = |name: &str, pairs: &[(&str, &str)]| {
        let mut pairs = pairs.to_vec();
        pairs.sort_unstable();
        out += &format!("[{name}]\n");
        for (key, value) in pairs {
            out += &format!("{key} = {value}\n");
        }
        out.push('\n');
    };
    if has("scripts") {
        group("console_scripts", &core.scripts);
    }
    if has("gui-scripts") {
        group("gui_scripts", &core.gui_scripts);
    }
    let mut others = core.entry_points.clone();
    others.sort();
    for (name, pairs) in &others {
        group(name, pairs);
    }
    out
}

/// Writes a field as uv does: further lines are indented by as much as the first.
fn lines(out: &mut String, name: &str, value: &str) {
    let indent = format!("\n{}", " ".repeat(name.len() + 2));
    let value: Vec<&str> = value.lines().collect();
    field(out, name, &value.join(&indent));
}

fn metadata(
    ground: &Ground<'_>,
    core: &Core<'_>,
    version: &Version,
    licences: &[String],
) -> Result<String, InputError> {
    if core.import_names.is_some() || core.import_namespaces.is_some() {
        let place = ground.at(&["project", "import-names"]);
        return Err(ground.refuse(place, "it says under which names it is imported"));
    }
    let is_new = core.licence_files.is_some() || matches!(core.licence, Licence::Expression(_));
    let mut out = String::new();
    field(
        &mut out,
        "Metadata-Version",
        if is_new { "2.4" } else { "2.3" },
    );
    field(&mut out, "Name", core.name);
    field(&mut out, "Version", &version.to_string());
    if let Some(summary) = core.description {
        lines(&mut out, "Summary", summary);
    }
    if ground.get(&["project", "keywords"]).is_some() {
        lines(&mut out, "Keywords", &core.keywords.join(","));
    }
    people(&mut out, "Author", &core.authors);
    match &core.licence {
        Licence::None => {}
        Licence::Text(text) => lines(&mut out, "License", text),
        Licence::File(file) => lines(&mut out, "License", &ground.text(file)?),
        Licence::Expression(text) => {
            let place = ground.at(&["project", "license"]);
            let why = format!("the licence `{text}` is not known");
            licence::canonical(text).ok_or_else(|| ground.refuse(place, why))?;
            lines(&mut out, "License-Expression", text);
        }
    }
    for file in licences {
        field(&mut out, "License-File", file);
    }
    for classifier in &core.classifiers {
        field(&mut out, "Classifier", classifier);
    }
    let mut optional = core.optional.clone();
    optional.sort_by_key(|(extra, _)| normalised(extra));
    for text in &core.dependencies {
        field(&mut out, "Requires-Dist", &requirement(ground, text, None)?);
    }
    for (extra, list) in &optional {
        for text in list {
            field(
                &mut out,
                "Requires-Dist",
                &requirement(ground, text, Some(extra))?,
            );
        }
    }
    people(&mut out, "Maintainer", &core.maintainers);
    if let Some(python) = core.requires_python {
        let all: Result<VersionSpecifiers, _> = python.parse();
        let place = ground.at(&["project", "requires-python"]);
        let all =
            all.map_err(|_| ground.refuse(place, format!("`{python}` is no set of versions")))?;
        field(&mut out, "Requires-Python", &all.to_string());
    }
    for (label, url) in &core.urls {
        field(&mut out, "Project-URL", &format!("{label}, {url}"));
    }
    for (extra, _) in &optional {
        field(&mut out, "Provides-Extra", &normalised(extra));
    }
    if let Some(readme) = &core.readme {
        field(&mut out, "Description-Content-Type", &readme.kind(ground)?);
        out += &format!("\n{}", readme.text);
    }
    Ok(out)
}

/// Writes names, and addresses with their names.
fn people(out: &mut String, who: &str, people: &[(Option<&str>, Option<&str>)]) {
    let names: Vec<&str> = people.iter().filter_map(|it| it.0).collect();
    if !names.is_empty() {
        lines(out, who, &names.join(", "));
    }
    let addresses = people.iter().filter_map(|(name, email)| {
        let email = (*email)?;
        Some(name.map_or(email.to_owned(), |name| format!("{name} <{email}>")))
    });
    let addresses: Vec<String> = addresses.collect();
    if !addresses.is_empty() {
        lines(out, &format!("{who}-email"), &addresses.join(", "));
    }
}

/// Returns a requirement as uv writes it.
fn requirement(ground: &Ground<'_>, text: &str, extra: Option<&str>) -> Result<String, InputError> {
    let place = ground.at(&["project", "dependencies"]);
    let fail = |why: String| ground.refuse(place.clone(), why);
    let read = |text: &str| pep508::requirement(text).map_err(|error| fail(error.message));
    let plain = read(text)?;
    // What uv knows of these two, it puts into their markers.
    let marker = text.split_once(';').map_or("", |it| it.1);
    if marker.contains("platform_system")
        || marker.contains("os_name") && marker.contains("sys_platform")
    {
        return Err(fail(format!(
            "how `{text}` is written in METADATA is not known"
        )));
    }
    let Some(extra) = extra.map(normalised) else {
        return Ok(plain.to_string());
    };
    let (head, marker) = match plain.marker.contents() {
        None => (
            text.split(';').next().unwrap_or_default().trim(),
            String::new(),
        ),
        Some(marker) => {
            let (head, _) = text.split_once(';').unwrap_or((text, ""));
            (head.trim(), format!("({marker}) and "))
        }
    };
    Ok(read(&format!("{head} ; {marker}extra == '{extra}'"))?.to_string())
}
