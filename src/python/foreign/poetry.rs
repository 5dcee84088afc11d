//! Reads poetry.lock, versions 1 and 2, with the pyproject.toml beside it.
//!
//! From 2.1 on the lock says of each package for which groups and extras it is there. Before that, what is needed is followed
//! from what the project asks for.

use std::collections::{BTreeMap, BTreeSet};

use pep440_rs::Version;
use pep508_rs::{ExtraName, MarkerEnvironment, PackageName};

use super::constraint::Constraint;
use super::project::{MAIN, Tool, entry, group_names, parts, roots};
use super::walk::{Edge, Known, walk};
use super::{CODE, LockWanted, extra_names, folder, normal, source, unknown, wheels};
use crate::python::Target;
use crate::python::lock::{LockSet, Locked};
use crate::python::place::{InputError, Source, beside};
use crate::python::pylock::marker_of;
use crate::python::table::{Node, Root};

/// What to do with a lock that cannot be taken.
const AGAIN: &str = "run `poetry lock` again";

/// Reads a poetry.lock: what it locks for a target.
///
/// # Errors
/// What is wrong with it; that it is not for this target; what would need a build.
pub(crate) fn poetry_lock(
    path: &str,
    text: &str,
    wanted: &LockWanted<'_>,
    target: &Target,
) -> Result<LockSet, InputError> {
    let source = Source::shared(path, text);
    let root = Root::parse(&source)?;
    let project = wanted
        .project
        .map(|(path, text)| Source::shared(path, text));
    let project = project.as_ref().map(Root::parse).transpose()?;
    let lock = Lock::read(path, &root, wanted, target)?;
    let mut set = LockSet::default();
    for number in lock.needed(project.as_ref(), &root)? {
        lock.take(&lock.packages[number], &mut set)?;
    }
    set.packages.sort_by(|a, b| a.name.cmp(&b.name));
    set.warnings.sort();
    set.built()
}

/// A package of the lock.
struct Package<'a> {
    /// What the lock says of it.
    node: Node<'a>,
    /// Its name and version.
    known: Known,
}

/// The lock, as far as it is for the target.
struct Lock<'a> {
    /// Its path.
    path: &'a str,
    /// What is wanted of it.
    wanted: &'a LockWanted<'a>,
    /// What markers see on the target.
    markers: MarkerEnvironment,
    /// The target.
    target: &'a Target,
    /// All packages, in the order of the file.
    packages: Vec<Package<'a>>,
    /// Whether packages say for which groups they are there.
    has_groups: bool,
    /// The files of packages by their names, where older locks have them.
    files: BTreeMap<String, Vec<Node<'a>>>,
    /// The extras that are wanted.
    extras: Vec<ExtraName>,
}

impl<'a> Lock<'a> {
    /// Reads the lock; makes sure that it is for the target's Python.
    fn read(
        path: &'a str,
        root: &'a Root<'a>,
        wanted: &'a LockWanted<'a>,
        target: &'a Target,
    ) -> Result<Self, InputError> {
        let metadata = root.get("metadata");
        let version = metadata.map(|it| it.text_of("lock-version")).transpose()?;
        let version: Option<Version> = version.flatten().and_then(|it| it.parse().ok());
        let Some((metadata, version)) = metadata.zip(version) else {
            let message = "this is no poetry.lock: `lock-version` is missing";
            let help = "lock again with Poetry 1.1 or newer";
            return Err(root.place().error(CODE, message, help));
        };
        if !matches!(version.release().first(), Some(1 | 2)) {
            let message = format!("this is lock version {version}, and 1 and 2 are known");
            return Err(metadata.error(message, "lock again with another Poetry"));
        }
        let markers = target.markers();
        let python = &markers.python_full_version().version;
        if let Some(needs) = metadata.get("python-versions") {
            let set = Constraint::parse(needs.text()?);
            if !set.is_some_and(|it| it.admits(python)) {
                let message = format!(
                    "this lock is for Python {}, and the target has {}",
                    needs.text()?,
                    target.python
                );
                let help = "change the Python of the project, and lock again";
                return Err(needs.error(message, help));
            }
        }
        let mut packages = Vec::new();
        for node in root.get("package").map_or(Ok(Vec::new()), |it| it.list())? {
            let known = Known::read(&node, AGAIN)?;
            packages.push(Package { node, known });
        }
        let mut files = BTreeMap::new();
        if let Some(table) = metadata.get("files") {
            for (name, list) in table.entries()? {
                files.insert(normal(name), list.list()?);
            }
        }
        let has_groups = packages.iter().all(|it| it.node.get("groups").is_some());
        Ok(Self {
            path,
            wanted,
            markers,
            target,
            packages,
            has_groups: has_groups && version.release() >= &[2, 1][..],
            files,
            extras: extra_names(wanted.extras.iter().map(String::as_str)),
        })
    }

    /// Returns the numbers of the packages that are needed.
    fn needed(
        &self,
        project: Option<&Root<'_>>,
        root: &Root<'_>,
    ) -> Result<BTreeSet<usize>, InputError> {
        let extras = root.get("extras");
        let extras = extras.map_or(Ok(Vec::new()), |it| it.entries())?;
        for name in self.wanted.extras {
            if !extras.iter().any(|it| normal(it.0) == normal(name)) {
                let names = extras.iter().map(|it| it.0);
                return Err(unknown(&root.place(), "extra", name, names));
            }
        }
        if !self.has_groups {
            let Some(project) = project else {
                let message = "this poetry.lock does not say what each package is there for, and there is no pyproject.toml beside it";
                let help =
                    "put the pyproject.toml beside it, or lock again with Poetry 2.1 or newer";
                return Err(root.place().error(CODE, message, help));
            };
            let roots = roots(Tool::Poetry, project, self.wanted, &self.markers)?;
            return self.walk(&roots);
        }
        let needed = self.of_groups(project, root)?;
        let Some(project) = project else {
            return Ok(needed);
        };
        // A project that asks for more than the lock has was changed since.
        for edge in roots(Tool::Poetry, project, self.wanted, &self.markers)? {
            let mut known = needed.iter().map(|it| &self.packages[*it].known);
            let found = known.find(|it| it.name == edge.name);
            if !found.is_some_and(|it| edge.admits.admits(&it.version)) {
                let message = match found {
                    Some(it) => format!(
                        "{} has `{}` {}, which is not what the project asks for",
                        self.path, it.name, it.version
                    ),
                    None => format!(
                        "{} has no `{}` for this target, which the project asks for",
                        self.path, edge.name
                    ),
                };
                return Err(edge.place.error(CODE, message, AGAIN));
            }
        }
        Ok(needed)
    }

    /// Returns the numbers of the packages that are there for one of the groups.
    fn of_groups(
        &self,
        project: Option<&Root<'_>>,
        root: &Root<'_>,
    ) -> Result<BTreeSet<usize>, InputError> {
        let wanted = self.wanted.groups.iter().map(|it| normal(it));
        let wanted: BTreeSet<String> = wanted.chain([MAIN.to_owned()]).collect();
        let mut all: BTreeSet<String> = BTreeSet::from([MAIN.to_owned()]);
        if let Some(project) = project {
            all.extend(group_names(Tool::Poetry, project)?);
        }
        let mut needed = BTreeSet::new();
        let mut chosen: BTreeMap<&PackageName, &Version> = BTreeMap::new();
        for (number, package) in self.packages.iter().enumerate() {
            let mut is_needed = false;
            for group in package.node.list_of("groups")? {
                let group = group.text()?;
                all.insert(normal(group));
                is_needed |= wanted.contains(&normal(group)) && self.holds(package, group)?;
            }
            if !is_needed {
                continue;
            }
            let Known { name, version } = &package.known;
            if let Some(other) = chosen.insert(name, version) {
                let message =
                    format!("the lock has `{name}` {other} and {version} for this target");
                return Err(package.node.error(message, AGAIN));
            }
            needed.insert(number);
        }
        match wanted.iter().find(|it| !all.contains(*it)) {
            None => Ok(needed),
            Some(name) => {
                let names = all.iter().map(String::as_str);
                Err(unknown(&root.place(), "group", name, names))
            }
        }
    }

    /// Tells whether a package is for the target, as one of a group.
    fn holds(&self, package: &Package<'_>, group: &str) -> Result<bool, InputError> {
        let Some(marker) = package.node.get("markers") else {
            return Ok(true);
        };
        let marker = match marker.is_text() {
            true => Some(marker),
            false => marker.get(group),
        };
        let Some(marker) = marker else {
            return Ok(true);
        };
        marker_of(&marker, AGAIN).map(|it| it.evaluate(&self.markers, &self.extras))
    }

    /// Follows dependencies from what the project asks for.
    fn walk(&self, roots: &[Edge]) -> Result<BTreeSet<usize>, InputError> {
        let python = &self.markers.python_full_version().version;
        let mut fits = Vec::new();
        for (number, package) in self.packages.iter().enumerate() {
            let needs = package.node.text_of("python-versions")?;
            let needs = needs.and_then(Constraint::parse);
            if needs.is_none_or(|it| it.admits(python)) {
                fits.push(number);
            }
        }
        let known: Vec<Known> = fits
            .iter()
            .map(|it| self.packages[*it].known.clone())
            .collect();
        let found = walk(&known, roots, AGAIN, |number, extra| {
            self.edges(&self.packages[fits[number]], extra)
        })?;
        Ok(found.into_iter().map(|it| fits[it]).collect())
    }

    /// Returns the dependencies of a package that count on the target, or those of one of its extras.
    fn edges(
        &self,
        package: &Package<'_>,
        extra: Option<&ExtraName>,
    ) -> Result<Vec<Edge>, InputError> {
        let all = package.node.get("dependencies");
        let all = all.map_or(Ok(Vec::new()), |it| it.entries())?;
        let own: Vec<ExtraName> = extra.cloned().into_iter().collect();
        // The names that an extra switches on; with extras of theirs.
        let mut names: BTreeMap<String, Vec<ExtraName>> = BTreeMap::new();
        let mut edges = Vec::new();
        if let Some(extra) = extra {
            let extras = package.node.get("extras");
            let extras = extras.map_or(Ok(Vec::new()), |it| it.entries())?;
            let found = extras.iter().find(|it| normal(it.0) == extra.as_ref());
            for item in found.map_or(Ok(Vec::new()), |it| it.1.list())? {
                let text = item
                    .text()?
                    .split([';', '(', '<', '>', '=', '!', '~'])
                    .next()
                    .unwrap_or_default();
                let (name, more) = text.split_once('[').unwrap_or((text, ""));
                let more = extra_names(more.trim_end().trim_end_matches(']').split(','));
                let name = normal(name.trim());
                if name == package.known.name.as_ref() {
                    edges.push(Edge {
                        name: package.known.name.clone(),
                        admits: Constraint::any(),
                        extras: more,
                        place: item.place(),
                    });
                    continue;
                }
                names.entry(name).or_default().extend(more);
            }
        }
        for (name, value) in all {
            for part in parts(&value) {
                let is_optional = part.get("optional").is_some_and(|it| it.is_true());
                let more = names.get(&normal(name));
                // What is needed anyway may be named by an extra, too, with extras of its own.
                let is_asked = match extra {
                    None => !is_optional,
                    Some(_) => more.is_some(),
                };
                if !is_asked {
                    continue;
                }
                if let Some(mut edge) = entry(name, &part, &self.markers, &own)? {
                    edge.extras.extend(more.into_iter().flatten().cloned());
                    edges.push(edge);
                }
            }
        }
        Ok(edges)
    }

    /// Takes a package into the set.
    fn take(&self, package: &Package<'_>, set: &mut LockSet) -> Result<(), InputError> {
        let Package { node, known } = package;
        let place = node.place();
        let Known { name, version } = known;
        let python = &self.markers.python_full_version().version;
        if let Some(needs) = node.get("python-versions")
            && Constraint::parse(needs.text()?).is_some_and(|it| !it.admits(python))
        {
            let message = format!(
                "{name} {version} is for Python {}, and the target has {}",
                needs.text()?,
                self.target.python
            );
            return Err(needs.error(message, "lock again for the Python of the target"));
        }
        let from = node.get("source");
        let of_source = |key: &str| -> Result<Option<&str>, InputError> {
            from.map_or(Ok(None), |it| it.text_of(key))
        };
        let url = of_source("url")?;
        let kind = of_source("type")?;
        let mut direct = None;
        match kind {
            None | Some("legacy" | "pypi") => {}
            Some("directory") => {
                let at = beside(self.path, url.unwrap_or_default());
                set.warnings.push(folder(name, &at));
                return Ok(());
            }
            Some("file" | "url") => {
                let at = url.unwrap_or_default();
                let end = at.split(['?', '#']).next().unwrap_or_default();
                if !end.ends_with(".whl") {
                    set.unbuilt
                        .push(source(&place, name, &format!("`{at}`"), AGAIN));
                    return Ok(());
                }
                direct = Some(at);
            }
            Some(kind) => {
                set.unbuilt.push(source(&place, name, kind, AGAIN));
                return Ok(());
            }
        }
        let files = match node.get("files") {
            Some(files) => files.list()?,
            None => {
                let files = self.files.get(name.as_ref()).cloned();
                files.unwrap_or_default()
            }
        };
        set.packages.push(Locked {
            name: name.clone(),
            version: version.clone(),
            wheels: wheels(self.path, &files, name, direct)?,
            hashes: Vec::new(),
            index: url.filter(|_| kind == Some("legacy")).map(str::to_owned),
            place,
        });
        Ok(())
    }
}
