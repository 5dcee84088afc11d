//! What the tables of tools in a pyproject.toml say of packages: uv's is obeyed, or refused; of Poetry and PDM, what would
//! have packages come from elsewhere is found.

use std::str::FromStr;

use pep508_rs::{MarkerTree, PackageName};

use super::place::{InputError, beside};
use super::requirements::{
    AskedFolder, NamedIndex, Names, ProjectIndexes, Requested, Spoken, address,
};
use super::table::{Node, Root};
use super::{Asked, pep508};

const CODE: &str = "imgdecl::python::pyproject";
const SOURCE: &str = "imgdecl::python::source";

/// What helps where uv's own way of resolving is wanted.
const USE_LOCK: &str = "name `uv_lock` instead of `pyproject`, or take the key out";

/// Keys of uv that decide neither which packages are installed nor where they come from, or only where sources are built.
const HARMLESS: &[&str] = &[
    "add-bounds",
    "audit",
    "build-backend",
    "build-constraint-dependencies",
    "cache-dir",
    "cache-keys",
    "check-url",
    "compile-bytecode",
    "concurrent-builds",
    "concurrent-downloads",
    "concurrent-installs",
    "config-settings",
    "config-settings-package",
    "conflicts",
    "default-groups",
    "dependency-groups",
    "dev-dependencies",
    "environments",
    "extra-build-dependencies",
    "extra-build-variables",
    "fork-strategy",
    "keyring-provider",
    "link-mode",
    "managed",
    "native-tls",
    "no-build",
    "no-build-isolation",
    "no-build-isolation-package",
    "no-build-package",
    "no-cache",
    "offline",
    "package",
    "pip",
    "preview",
    "preview-features",
    "publish-url",
    "pypy-install-mirror",
    "python-downloads",
    "python-install-mirror",
    "python-preference",
    "reinstall",
    "reinstall-package",
    "required-environments",
    "required-version",
    "system-certs",
    "torch-backend",
    "trusted-publishing",
    "upgrade",
    "upgrade-package",
    "workspace",
];

/// What uv's table says besides requirements.
#[derive(Default)]
pub(super) struct Uv {
    /// `exclude-newer`, and where it stands.
    pub(super) exclude_newer: Option<Spoken>,
}

/// What is asked for of a project.
pub(super) struct Wanted<'a> {
    /// The path of the file.
    pub(super) path: &'a str,
    /// Its extras.
    pub(super) extras: &'a [String],
    /// Its dependency groups.
    pub(super) groups: &'a [String],
    /// The packages that something else takes the place of.
    pub(super) overridden: &'a Names,
}

/// Reads `[tool.uv]` into what is asked for.
///
/// # Errors
/// When it says what is not done.
pub(super) fn uv(
    root: &Root<'_>,
    wanted: &Wanted<'_>,
    requested: &mut Requested,
) -> Result<Uv, InputError> {
    let mut uv = Uv::default();
    let Some(table) = root.get("tool").and_then(|it| it.get("uv")) else {
        return Ok(uv);
    };
    let mut indexes = Vec::new();
    let mut project = ProjectIndexes::default();
    let mut has_sources = true;
    for (key, value) in table.entries()? {
        let text = || value.text().unwrap_or_default();
        match key {
            "index" => indexes = read_indexes(&value, wanted, requested)?,
            "index-url" => {
                let url = spoken_url(&value, requested)?;
                project.default = Some(NamedIndex { name: None, url });
            }
            "extra-index-url" => {
                for item in value.list()? {
                    let url = spoken_url(&item, requested)?;
                    project.extra.push(NamedIndex { name: None, url });
                }
            }
            "find-links" => {
                for item in value.list()? {
                    let place = item.place();
                    let (value, warning) = address::links(item.text()?, wanted.path, &place)?;
                    requested.warnings.extend(warning);
                    requested.options.find_links.push(Spoken { value, place });
                }
            }
            "no-index" if is_true(&value) => {
                requested.options.without_index = Some(value.place());
            }
            "override-dependencies" => {
                let own = requirements(&value, wanted)?;
                // Those of the manifest count.
                let own = own.into_iter().filter(|it| !wanted.overridden.contains(it.name()));
                requested.overrides.extend(own);
            }
            "constraint-dependencies" => {
                requested.constraints.extend(requirements(&value, wanted)?);
            }
            "no-sources" => has_sources = !is_true(&value),
            "sources" => {}
            "exclude-newer" if humantime::parse_rfc3339_weak(text()).is_ok() => {
                uv.exclude_newer = Some(Spoken {
                    value: text().to_owned(),
                    place: value.place(),
                });
            }
            "exclude-newer" => {
                return Err(value.place().error(
                    CODE,
                    "this time is not read here",
                    "write it in full, as \"2026-11-01T00:00:00Z\"",
                ));
            }
            "prerelease" if text() == "allow" => requested.options.is_pre = true,
            "prerelease" if text() != "disallow" => {}
            "resolution" if text() == "highest" => {}
            "index-strategy" if text() == "first-index" => {}
            "no-binary" | "no-binary-package" | "no-index" | "no-sources-package" if !is_some(&value) => {}
            "no-binary" | "no-binary-package" => {
                return Err(value.place().error(
                    SOURCE,
                    format!("`{key}` asks for builds from sources: only wheels are installed"),
                    "take it out, or build wheels and point `find_links` at their folder",
                ));
            }
            "allow-insecure-host" => requested.warnings.push(format!(
                "{}: `{key}`: certificates are checked all the same; one that is your own is trusted by SSL_CERT_FILE",
                value.place()
            )),
            "prerelease" | "resolution" | "index-strategy" | "dependency-metadata"
            | "exclude-dependencies" | "exclude-newer-package" | "no-sources-package" => {
                let message = format!("what uv's `{key}` says here is not done");
                return Err(value.place().error(CODE, message, USE_LOCK));
            }
            known if HARMLESS.contains(&known) => {}
            other => requested.warnings.push(format!(
                "{}: uv's `{other}` is not known here, and counts for nothing",
                value.place()
            )),
        }
    }
    for (index, kind) in &indexes {
        match kind {
            Kind::Default if project.default.is_none() => project.default = Some(index.clone()),
            Kind::Extra => project.extra.push(index.clone()),
            Kind::Default | Kind::Explicit => {}
        }
    }
    if let Some(table) = table.get("sources").filter(|_| has_sources) {
        sources(&table, wanted, &indexes, requested, &mut project)?;
    }
    if project != ProjectIndexes::default() {
        requested.options.project = Some(project);
    }
    Ok(uv)
}

/// What an index of uv is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// All packages, in place of the default index.
    Default,
    /// All packages, before it.
    Extra,
    /// Those that name it.
    Explicit,
}

/// Reads `[[tool.uv.index]]`; pages of links go to the options.
fn read_indexes(
    value: &Node<'_>,
    wanted: &Wanted<'_>,
    requested: &mut Requested,
) -> Result<Vec<(NamedIndex, Kind)>, InputError> {
    let mut indexes = Vec::new();
    for item in value.list()? {
        let flag = |key: &str| item.get(key).is_some_and(|it| is_true(&it));
        let name = item.text_of("name")?.map(str::to_owned);
        let Some(url) = item.get("url") else {
            let help = "write `url`";
            return Err(item.place().error(CODE, "this index has no URL", help));
        };
        if item.text_of("format")? == Some("flat") {
            if flag("explicit") {
                let message = "an index that is a page of links, and for some packages alone, is not asked here";
                return Err(item.place().error(CODE, message, USE_LOCK));
            }
            let place = url.place();
            let (value, warning) = address::links(url.text()?, wanted.path, &place)?;
            requested.warnings.extend(warning);
            requested.options.find_links.push(Spoken { value, place });
            continue;
        }
        let url = spoken_url(&url, requested)?;
        let kind = match (flag("explicit"), flag("default")) {
            (true, _) => Kind::Explicit,
            (_, true) => Kind::Default,
            _ => Kind::Extra,
        };
        indexes.push((NamedIndex { name, url }, kind));
    }
    Ok(indexes)
}

/// Reads `[tool.uv.sources]`: an index is noted; what needs a build is refused.
fn sources(
    table: &Node<'_>,
    wanted: &Wanted<'_>,
    indexes: &[(NamedIndex, Kind)],
    requested: &mut Requested,
    project: &mut ProjectIndexes,
) -> Result<(), InputError> {
    for (name, value) in table.entries()? {
        let Ok(name) = name.parse::<PackageName>() else {
            continue;
        };
        let is_replaced = wanted.overridden.contains(&name)
            || requested.overrides.iter().any(|it| *it.name() == name);
        if is_replaced || !requested.asked.iter().any(|it| *it.name() == name) {
            continue;
        }
        let parts = match value.list() {
            Ok(parts) => parts,
            Err(_) => vec![value],
        };
        for part in parts {
            // A source may be for one extra or group alone.
            let is_of = |key: &str, all: &[String]| -> Result<bool, InputError> {
                let own = part.text_of(key)?;
                let normal = |it: &str| pep508_rs::ExtraName::from_str(it).ok();
                Ok(own.is_none_or(|own| all.iter().any(|it| normal(it) == normal(own))))
            };
            if !is_of("extra", wanted.extras)? || !is_of("group", wanted.groups)? {
                continue;
            }
            let marker = match part.get("marker") {
                None => MarkerTree::TRUE,
                Some(marker) => pep508::marker(marker.text()?).map_err(|error| {
                    let help = "write it as `sys_platform == 'linux'`";
                    marker.place().error(CODE, error.message, help)
                })?,
            };
            if let Some(named) = part.get("index") {
                let text = named.text()?;
                let found = indexes
                    .iter()
                    .find(|(it, _)| it.name.as_deref() == Some(text));
                let Some((index, _)) = found else {
                    return Err(named.place().error(
                        CODE,
                        format!("there is no index `{text}`"),
                        "write `[[tool.uv.index]]` with its `name` and `url`",
                    ));
                };
                project.packages.push((name.clone(), marker, index.clone()));
                continue;
            }
            let kinds = ["git", "path", "url", "workspace"];
            let kind = kinds.into_iter().find(|kind| part.get(kind).is_some());
            let refused = part.place().error(
                SOURCE,
                format!("uv takes `{name}` from a {} here", kind.unwrap_or("source of its own")),
                "name `uv_lock` instead of `pyproject`; or build a wheel of it, point `find_links` at its folder, and name it in \
                 `overrides`",
            );
            let path = part.text_of("path")?.map(|it| beside(wanted.path, it));
            let is_wheel = path.as_ref().is_some_and(|it| it.contains(".whl"));
            let is_folder = matches!(kind, Some("path" | "workspace")) && !is_wheel;
            if !is_folder || !marker.is_true() {
                return Err(refused);
            }
            let all = std::mem::take(&mut requested.asked);
            let (own, others): (Vec<Asked>, Vec<Asked>) =
                all.into_iter().partition(|it| *it.name() == name);
            requested.asked = others;
            requested
                .folders
                .extend(own.into_iter().map(|asked| AskedFolder {
                    path: path.clone(),
                    name: Some(name.clone()),
                    extras: asked.requirement.extras,
                    marker: asked.requirement.marker,
                    place: asked.place,
                    refused: refused.clone(),
                }));
        }
    }
    Ok(())
}

/// Reads a list of requirements.
fn requirements(value: &Node<'_>, wanted: &Wanted<'_>) -> Result<Vec<Asked>, InputError> {
    let items = value.list()?.into_iter();
    let read = |item: Node<'_>| {
        let place = item.place();
        Asked::parse_unless(item.text()?, &place, wanted.path, wanted.overridden)
    };
    items.map(read).collect()
}

/// Reads the URL of an index.
fn spoken_url(value: &Node<'_>, requested: &mut Requested) -> Result<Spoken, InputError> {
    let (text, place) = (value.text()?, value.place());
    let warning = address::check_index(text, &place)?;
    requested.warnings.extend(warning);
    Ok(Spoken {
        value: text.to_owned(),
        place,
    })
}

fn is_true(value: &Node<'_>) -> bool {
    value.place().text().trim() == "true"
}

/// Tells whether a value says anything.
fn is_some(value: &Node<'_>) -> bool {
    match value.list() {
        Ok(list) => !list.is_empty(),
        Err(_) => value.place().text().trim() != "false",
    }
}

/// Finds indexes that Poetry or PDM would ask: where the first stands, as an error for whoever names none themselves.
///
/// # Errors
/// When the table is none.
pub(super) fn other_indexes(root: &Root<'_>) -> Result<Option<InputError>, InputError> {
    for tool in ["poetry", "pdm"] {
        let table = root.get("tool").and_then(|it| it.get(tool));
        let first = match table {
            Some(table) => table.list_of("source")?.into_iter().next(),
            None => None,
        };
        if let Some(source) = first {
            return Ok(Some(source.place().error(
                SOURCE,
                format!("{tool} takes packages from this index, which is not asked here"),
                "name it in the manifest, under `[index]`: as `url`, in `extra`, or for some `packages`; then that counts",
            )));
        }
    }
    Ok(None)
}
