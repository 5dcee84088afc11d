//! The back end flit-core: one module, found by name (`flit_core/common.py`, `config.py` and `wheel.py`).

use pep440_rs::Version;

use super::core::{Core, Licence, joined_people};
use super::glob::{self, Style};
use super::{Ground, Made, Wheel, attribute, escaped, field, joined, licence, normal, normalised};
use crate::python::place::InputError;

/// The versions that this is as.
const KNOWN: &[&str] = &["3.12.0", "4.2.0"];

/// The files that are licences where nothing is said.
const LICENCES: &[&str] = &["COPYING*", "LICEN[CS]E*", "NOTICE*", "AUTHORS*"];

/// The same, for version 3.
const OLD_LICENCES: &[&str] = &["COPYING*", "LICEN[CS]E*"];

/// Where the module lies.
struct Module {
    /// Its name, with dots.
    name: String,
    /// The path of the file or folder.
    path: String,
    is_package: bool,
    /// The folder that paths in the wheel begin at.
    base: &'static str,
}

/// Returns what the wheel holds.
pub(super) fn wheel(ground: &Ground<'_>) -> Result<Wheel, InputError> {
    let own = ground.version_of("flit-core", KNOWN, &[])?;
    let is_old = own.starts_with('3');
    let tool = ground.get(&["tool", "flit"]);
    if let Some(tool) = &tool {
        ground.only(tool, &["module", "sdist", "external-data"], "`[tool.flit]`")?;
    }
    let core = Core::read(ground, false)?;
    let module = module(ground, &core)?;
    let (version, summary) = of_module(ground, &core, &module)?;
    let parsed: Result<Version, _> = version.parse();
    let version = parsed.map_err(|_| ground.fail(format!("`{version}` is no version")))?;
    let mut made = Made::new(format!("{}-{version}", escaped(core.name)));
    let enter = |_: &str, name: &str| name != "__pycache__" && !name.ends_with(".pyc");
    let files = match module.is_package {
        true => ground.walk(&module.path, &enter)?,
        false => ground.walk(module.base, &|_, _| false)?,
    };
    for (path, executable) in files {
        let is_module = module.is_package || path == module.path;
        let name = path.rsplit('/').next().unwrap_or_default();
        if is_module && name != "__pycache__" && !name.ends_with(".pyc") {
            let to = path.strip_prefix(module.base).unwrap_or(&path);
            made.file(to.trim_start_matches('/'), &path, executable);
        }
    }
    data(ground, &mut made)?;
    let licences = licences(ground, &core, is_old)?;
    made.licences(ground, &licences)?;
    let points = entry_points(&core);
    if !points.is_empty() {
        made.text("entry_points.txt", points);
    }
    let both = supports_two(&core);
    let tags = if both { "Tag: py2-none-any\n" } else { "" };
    let wheel = format!(
        "Wheel-Version: 1.0\nGenerator: flit {own}\nRoot-Is-Purelib: true\n{tags}Tag: py3-none-any\n"
    );
    made.text("WHEEL", wheel);
    let metadata = metadata(
        ground,
        &core,
        &version,
        &summary,
        &licences,
        is_old,
        &module.name,
    )?;
    let tag = if both {
        "py2.py3-none-any"
    } else {
        "py3-none-any"
    };
    made.end(ground, tag, metadata)
}

/// Finds the module.
fn module(ground: &Ground<'_>, core: &Core<'_>) -> Result<Module, InputError> {
    let given = ground.get(&["tool", "flit", "module", "name"]);
    let name = match given {
        Some(node) => node.text()?.to_owned(),
        None => match core.name.strip_suffix("-stubs") {
            Some(stem) => format!("{}-stubs", stem.replace('-', "_")),
            None => core.name.replace('-', "_"),
        },
    };
    let path = name.replace('.', "/");
    let mut found = Vec::new();
    for base in ["", "src"] {
        let folder = joined(base, &path);
        if ground.is_folder(&folder)? {
            found.push((folder, true, base));
        }
        let file = joined(base, &format!("{path}.py"));
        if ground.is_file(&file)? {
            found.push((file, false, base));
        }
    }
    match (found.pop(), found.is_empty()) {
        (Some((path, is_package, base)), true) => Ok(Module {
            name,
            path,
            is_package,
            base,
        }),
        (None, _) => Err(ground.fail(format!("there is no module `{name}`"))),
        _ => Err(ground.fail(format!(
            "several files or folders may be the module `{name}`"
        ))),
    }
}

/// Returns version and summary, from the module where the project says so.
fn of_module(
    ground: &Ground<'_>,
    core: &Core<'_>,
    module: &Module,
) -> Result<(String, String), InputError> {
    let dynamic = ground.at(&["project", "dynamic"]);
    let version = match core.version {
        Some(version) => version.to_owned(),
        None => {
            let mut files = vec![module.path.clone()];
            if module.is_package {
                files = vec![joined(&module.path, "__init__.py")];
                for name in ["version.py", "_version.py", "__version__.py"] {
                    let path = joined(&module.path, name);
                    if ground.is_file(&path)? {
                        files.insert(0, path);
                    }
                }
            }
            let mut found = None;
            // Later files win.
            for file in files {
                let value = attribute::assigned(&ground.text(&file)?, "__version__");
                found = value.or(found);
            }
            let why = "no `__version__` of its module is a plain string";
            found.ok_or_else(|| ground.refuse(dynamic.clone(), why))?
        }
    };
    let summary = match core.description {
        Some(summary) => summary.to_owned(),
        None => {
            let file = match module.is_package {
                true => joined(&module.path, "__init__.py"),
                false => module.path.clone(),
            };
            let why =
                "its summary is the docstring of its module, and that is none in one plain string";
            let text = ground.lines(&file)?;
            docstring(&text).ok_or_else(|| ground.refuse(dynamic, why))?
        }
    };
    Ok((version, summary))
}

/// Returns the first line of the docstring of a Python file.
fn docstring(text: &str) -> Option<String> {
    let mut rest = text.trim_start_matches('\u{feff}').trim_start();
    while rest.starts_with('#') {
        rest = rest.split_once('\n')?.1.trim_start();
    }
    let quote = ["\"\"\"", "'''", "\"", "'"]
        .into_iter()
        .find(|it| rest.starts_with(it))?;
    let rest = &rest[quote.len()..];
    let value = &rest[..rest.find(quote)?];
    let first = value.trim_start().lines().next()?.trim_end();
    (!first.is_empty() && !value.contains('\\')).then(|| first.to_owned())
}

/// Adds the files that go beside the module.
fn data(ground: &Ground<'_>, made: &mut Made) -> Result<(), InputError> {
    let Some(node) = ground.get(&["tool", "flit", "external-data", "directory"]) else {
        return Ok(());
    };
    let text = node.text()?;
    let folder = normal(text).filter(|it| !it.is_empty());
    let folder = folder.ok_or_else(|| ground.refuse(node.place(), "its data lies elsewhere"))?;
    let stem = made.stem.clone();
    for (path, executable) in ground.walk(&folder, &|_, name| name != "__pycache__")? {
        let below = path[folder.len()..].trim_start_matches('/');
        made.file(&format!("{stem}.data/data/{below}"), &path, executable);
    }
    Ok(())
}

/// Returns the files that are licences, sorted.
fn licences(ground: &Ground<'_>, core: &Core<'_>, is_old: bool) -> Result<Vec<String>, InputError> {
    let known = if is_old { OLD_LICENCES } else { LICENCES };
    let patterns = core.licence_files.as_deref().unwrap_or(known);
    let mut files = glob::files(ground, patterns, Style::Path)?;
    if let Some(patterns) = &core.licence_files {
        for pattern in patterns {
            if glob::files(ground, &[pattern], Style::Path)?.is_empty() {
                let place = ground.at(&["project", "license-files"]);
                return Err(ground.refuse(place, format!("there is no file `{pattern}`")));
            }
        }
    }
    if let Licence::File(file) = &core.licence {
        files.push(file.clone());
    }
    files.sort();
    files.dedup();
    Ok(files)
}

fn entry_points(core: &Core<'_>) -> String {
    let mut groups = core.groups();
    groups.sort();
    let mut out = String::new();
    for (name, mut pairs) in groups {
        pairs.sort_unstable();
        out += &format!("[{name}]\n");
        for (key, value) in pairs {
            out += &format!("{key}={value}\n");
        }
        out.push('\n');
    }
    out
}

/// Tells whether the versions of Python leave Python 2 in.
fn supports_two(core: &Core<'_>) -> bool {
    let all = core.requires_python.unwrap_or_default();
    !all.split(',').any(|part| {
        let part = part.trim_start();
        let operator = [">=", ">", "~=", "===", "==", ""]
            .into_iter()
            .find(|it| part.starts_with(it))
            .unwrap_or_default();
        let number = part[operator.len()..].trim_start();
        number.starts_with(|it: char| ('3'..='9').contains(&it))
    })
}

fn metadata(
    ground: &Ground<'_>,
    core: &Core<'_>,
    version: &Version,
    summary: &str,
    licences: &[String],
    is_old: bool,
    module: &str,
) -> Result<String, InputError> {
    let mut out = String::new();
    field(
        &mut out,
        "Metadata-Version",
        if is_old { "2.4" } else { "2.5" },
    );
    field(&mut out, "Name", core.name);
    field(&mut out, "Version", &version.to_string());
    let mut some = |name: &str, value: &str| {
        let lines: Vec<&str> = value.lines().collect();
        field(&mut out, name, &lines.join("\n        "));
    };
    some("Summary", summary);
    if ground.get(&["project", "keywords"]).is_some() {
        some("Keywords", &core.keywords.join(","));
    }
    for (people, who) in [(&core.authors, "Author"), (&core.maintainers, "Maintainer")] {
        let (names, addresses) = joined_people(ground, people)?;
        if !names.is_empty() {
            some(who, &names);
        }
        if !addresses.is_empty() {
            some(&format!("{who}-email"), &addresses);
        }
    }
    if let Some(python) = core.requires_python {
        some("Requires-Python", python);
    }
    if let Some(readme) = &core.readme {
        some("Description-Content-Type", &readme.kind(ground)?);
    }
    if let Licence::Expression(text) = &core.licence {
        let place = ground.at(&["project", "license"]);
        let known = licence::canonical(text);
        let why = format!("the form of the licence `{text}` is not known");
        field(
            &mut out,
            "License-Expression",
            &known.ok_or_else(|| ground.refuse(place, why))?,
        );
    }
    for classifier in &core.classifiers {
        field(&mut out, "Classifier", classifier);
    }
    for file in licences {
        field(&mut out, "License-File", file);
    }
    write_needs(core, &mut out);
    if !is_old {
        imports(ground, core, module, &mut out)?;
    }
    if let Some(readme) = &core.readme {
        out += &format!("\n{}\n", readme.text);
    }
    Ok(out)
}

/// Writes what the project needs, its extras and its URLs.
fn write_needs(core: &Core<'_>, out: &mut String) {
    let mut extras: Vec<(String, &Vec<&str>)> = Vec::new();
    for (extra, list) in &core.optional {
        extras.push((normalised(extra), list));
    }
    extras.sort();
    for text in &core.dependencies {
        field(out, "Requires-Dist", &with_extras(text));
    }
    for (extra, list) in &extras {
        for text in *list {
            let text = match text.split_once(';') {
                Some((name, marker)) => format!("{name} ; extra == \"{extra}\" and ({marker})"),
                None => format!("{text} ; extra == \"{extra}\""),
            };
            field(out, "Requires-Dist", &with_extras(&text));
        }
    }
    let mut urls = core.urls.clone();
    urls.sort_unstable();
    for (label, url) in urls {
        field(out, "Project-URL", &format!("{label}, {url}"));
    }
    for (extra, _) in &extras {
        field(out, "Provides-Extra", extra);
    }
}

/// Writes under which names the project is imported.
fn imports(
    ground: &Ground<'_>,
    core: &Core<'_>,
    module: &str,
    out: &mut String,
) -> Result<(), InputError> {
    if core.import_names.is_some() || core.import_namespaces.is_some() {
        let place = ground.at(&["project", "import-names"]);
        return Err(ground.refuse(place, "it says under which names it is imported"));
    }
    field(out, "Import-Name", module);
    for (at, _) in module.match_indices('.') {
        field(out, "Import-Namespace", &module[..at]);
    }
    Ok(())
}

/// Writes the extras of a requirement as flit does.
fn with_extras(text: &str) -> String {
    let is_name = |it: char| it.is_ascii_alphanumeric() || matches!(it, '-' | '_' | '.');
    let start = text.trim_start_matches([' ', '\t']);
    let end = start.find(|it| !is_name(it)).unwrap_or(start.len());
    let rest = start[end..].trim_start_matches([' ', '\t']);
    let (Some(inner), true) = (rest.strip_prefix('['), end > 0) else {
        return text.to_owned();
    };
    let Some((extras, after)) = inner.split_once(']') else {
        return text.to_owned();
    };
    let before = &text[..text.len() - inner.len()];
    let extras: Vec<String> = extras.split(',').map(|it| normalised(it.trim())).collect();
    format!("{before}{}]{after}", extras.join(", "))
}
