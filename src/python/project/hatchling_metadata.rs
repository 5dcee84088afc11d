//! The METADATA that hatchling writes (`hatchling/metadata/spec.py`, `core.py`).

use std::collections::BTreeMap;

use super::core::{Core, Licence, joined_people};
use super::requirement::Parts;
use super::{Ground, field, licence, normalised};
use crate::python::place::InputError;

/// Returns a requirement as hatchling writes it.
fn requirement(ground: &Ground<'_>, text: &str) -> Result<(String, Parts), InputError> {
    let place = ground.at(&["project", "dependencies"]);
    let parts = Parts::parse(text).filter(|_| !text.contains('{'));
    let why = format!("how `{text}` is written in METADATA is not known");
    let mut parts = parts.ok_or_else(|| ground.refuse(place.clone(), why))?;
    let direct = ground.get(&["tool", "hatch", "metadata", "allow-direct-references"]);
    if parts.url.is_some() && !direct.is_some_and(|it| it.is_true()) {
        return Err(ground.refuse(place, format!("`{text}` names a URL")));
    }
    parts.name = normalised(&parts.name);
    parts.extras = parts.extras.iter().map(|it| normalised(it)).collect();
    parts.extras.sort();
    parts.versions = parts.versions.iter().map(|it| it.to_lowercase()).collect();
    parts.versions.sort();
    Ok((parts.written().replace('"', "'"), parts))
}

/// Returns the requirements of each extra, with those of the extras that it asks for.
fn optional(
    ground: &Ground<'_>,
    core: &Core<'_>,
) -> Result<BTreeMap<String, Vec<String>>, InputError> {
    let own = normalised(core.name);
    let mut all: BTreeMap<String, (Vec<String>, Vec<String>)> = BTreeMap::new();
    for (extra, list) in &core.optional {
        let entry = all.entry(normalised(extra)).or_default();
        for text in list {
            let (written, parts) = requirement(ground, text)?;
            match parts.name == own {
                true => entry.1.extend(parts.extras),
                false => entry.0.push(written),
            }
        }
    }
    let mut done = BTreeMap::new();
    for extra in all.keys() {
        let (mut open, mut seen) = (vec![extra.clone()], Vec::new());
        let mut list: Vec<String> = Vec::new();
        while let Some(name) = open.pop() {
            if seen.contains(&name) {
                continue;
            }
            let Some((own, more)) = all.get(&name) else {
                return Err(ground.fail(format!("there is no extra `{name}`")));
            };
            list.extend(own.iter().cloned());
            open.extend(more.iter().cloned());
            seen.push(name);
        }
        list.sort();
        list.dedup();
        done.insert(extra.clone(), list);
    }
    Ok(done)
}

/// Returns the METADATA.
pub(super) fn metadata(
    ground: &Ground<'_>,
    core: &Core<'_>,
    version: &str,
    licences: &[String],
) -> Result<String, InputError> {
    let mut out = String::new();
    field(&mut out, "Metadata-Version", "2.5");
    field(&mut out, "Name", core.name);
    field(&mut out, "Version", version);
    if core.import_names.is_some() || core.import_namespaces.is_some() {
        let place = ground.at(&["project", "import-names"]);
        return Err(ground.refuse(place, "it says under which names it is imported"));
    }
    let summary = core.description.unwrap_or_default();
    if !summary.is_empty() {
        field(
            &mut out,
            "Summary",
            &summary.lines().collect::<Vec<_>>().join(" "),
        );
    }
    for (label, url) in &core.urls {
        field(&mut out, "Project-URL", &format!("{label}, {url}"));
    }
    for (people, who) in [(&core.authors, "Author"), (&core.maintainers, "Maintainer")] {
        let (names, addresses) = joined_people(ground, people)?;
        if !names.is_empty() {
            field(&mut out, who, &names);
        }
        if !addresses.is_empty() {
            field(&mut out, &format!("{who}-email"), &addresses);
        }
    }
    write_licence(ground, core, licences, &mut out)?;
    let mut keywords = core.keywords.clone();
    keywords.sort_unstable();
    keywords.dedup();
    if !keywords.is_empty() {
        field(&mut out, "Keywords", &keywords.join(","));
    }
    let mut classifiers = core.classifiers.clone();
    classifiers.sort_by_key(|it| (!it.starts_with("Private ::"), natural(it)));
    classifiers.dedup();
    for classifier in classifiers {
        field(&mut out, "Classifier", classifier);
    }
    if let Some(python) = core.requires_python.filter(|it| !it.trim().is_empty()) {
        let mut all: Vec<String> = python
            .split(',')
            .map(|it| it.split_whitespace().collect())
            .collect();
        all.retain(|it| !it.is_empty());
        all.sort();
        field(&mut out, "Requires-Python", &all.join(","));
    }
    write_needs(ground, core, &mut out)?;
    if let Some(readme) = core.readme.as_ref().filter(|it| !it.text.is_empty()) {
        field(&mut out, "Description-Content-Type", &readme.kind(ground)?);
        out += &format!("\n{}", readme.text);
    }
    Ok(out)
}

/// Writes the licence and its files.
fn write_licence(
    ground: &Ground<'_>,
    core: &Core<'_>,
    licences: &[String],
    out: &mut String,
) -> Result<(), InputError> {
    let text = match &core.licence {
        Licence::Text(text) => text.clone(),
        Licence::File(file) => ground.lines(file)?,
        _ => String::new(),
    };
    if !text.is_empty() {
        let lines: Vec<&str> = text.lines().collect();
        field(out, "License", &lines.join("\n        "));
    }
    if let Licence::Expression(text) = &core.licence {
        let place = ground.at(&["project", "license"]);
        let why = format!("the form of the licence `{text}` is not known");
        let known = licence::canonical(text).ok_or_else(|| ground.refuse(place, why))?;
        field(out, "License-Expression", &known);
    }
    for file in licences {
        field(out, "License-File", file);
    }
    Ok(())
}

/// Writes what the project needs, and its extras.
fn write_needs(ground: &Ground<'_>, core: &Core<'_>, out: &mut String) -> Result<(), InputError> {
    let mut needs = Vec::new();
    for text in &core.dependencies {
        needs.push(requirement(ground, text)?.0);
    }
    needs.sort();
    needs.dedup();
    for text in &needs {
        field(out, "Requires-Dist", text);
    }
    for (extra, list) in optional(ground, core)? {
        field(out, "Provides-Extra", &extra);
        for text in list {
            let text = match text.split_once(';') {
                Some((name, marker)) => {
                    format!("{name}; ({}) and extra == '{extra}'", marker.trim())
                }
                None if text.contains("@ ") => format!("{text} ; extra == '{extra}'"),
                None => format!("{text}; extra == '{extra}'"),
            };
            field(out, "Requires-Dist", &text);
        }
    }
    Ok(())
}

/// Returns texts and numbers in turn: what `3.9` and `3.10` are sorted by.
fn natural(text: &str) -> Vec<(String, Option<u64>)> {
    let mut parts: Vec<(String, Option<u64>)> = vec![(String::new(), None)];
    for char in text.chars() {
        let last = parts.len() - 1;
        match (char.to_digit(10), parts[last].1) {
            (Some(digit), number) => {
                let more = number.unwrap_or(0).saturating_mul(10) + u64::from(digit);
                parts[last].1 = Some(more);
            }
            (None, Some(_)) => parts.push((char.to_string(), None)),
            (None, None) => parts[last].0.push(char),
        }
    }
    parts
}
