//! Reads pdm.lock, version 4, with the pyproject.toml beside it.
//!
//! With the strategy `inherit_metadata` the lock says of each package for which groups and targets it is there. Without it,
//! what is needed is followed from what the project asks for.

use std::collections::{BTreeMap, BTreeSet};

use pep440_rs::Version;
use pep508_rs::{ExtraName, MarkerEnvironment, PackageName};

use super::project::{Tool, edge, requirement, roots};
use super::walk::{Edge, Known, walk};
use super::{CODE, LockWanted, extra_names, folder, normal, source, unknown, wheels};
use crate::python::lock::{LockSet, Locked};
use crate::python::place::{InputError, Source, beside};
use crate::python::pylock::marker_of;
use crate::python::table::{Node, Root};
use crate::python::target::Libc;
use crate::python::{Target, specifiers};

/// What to do with a lock that cannot be taken.
const AGAIN: &str = "run `pdm lock` again";

/// The group of what a project always needs.
const DEFAULT: &str = "default";

/// Reads a pdm.lock: what it locks for a target.
///
/// # Errors
/// What is wrong with it; that it is not for this target; what would need a build.
pub(crate) fn pdm_lock(
    path: &str,
    text: &str,
    wanted: &LockWanted<'_>,
    target: &Target,
) -> Result<LockSet, InputError> {
    let source = Source::shared(path, text);
    let root = Root::parse(&source)?;
    let metadata = root.get("metadata");
    let version = metadata.map(|it| it.text_of("lock_version")).transpose()?;
    let Some((metadata, version)) = metadata.zip(version.flatten()) else {
        let message = "this is no pdm.lock: `lock_version` is missing";
        let help = "lock again with PDM 2.0 or newer";
        return Err(root.place().error(CODE, message, help));
    };
    if !version.starts_with("4.") {
        let message = format!("this is lock version {version}, and 4 is known");
        return Err(metadata.error(message, "lock again with another PDM"));
    }
    let lock = Lock::read(path, &root, &metadata, target)?;
    lock.is_for_target(&metadata)?;
    let wanted_groups = groups(&root, &metadata, wanted)?;
    let needed = match lock.has_groups {
        true => lock.of_groups(&wanted_groups)?,
        false => {
            let Some((path, text)) = wanted.project else {
                let message = "this pdm.lock does not say what each package is there for, and there is no pyproject.toml beside it";
                let help =
                    "put the pyproject.toml beside it, or lock with `--strategy inherit_metadata`";
                return Err(metadata.error(message, help));
            };
            let project = Source::shared(path, text);
            let project = Root::parse(&project)?;
            // One name space holds extras and groups.
            let names: Vec<String> = wanted_groups.iter().cloned().collect();
            let wanted = LockWanted {
                project: None,
                extras: &[],
                groups: &names,
            };
            lock.walk(&roots(Tool::Pdm, &project, &wanted, &lock.markers)?)?
        }
    };
    lock.set(&needed)
}

/// Returns the groups that are wanted; the lock must have them. Extras are groups, too.
fn groups(
    root: &Root<'_>,
    metadata: &Node<'_>,
    wanted: &LockWanted<'_>,
) -> Result<BTreeSet<String>, InputError> {
    let all = metadata.list_of("groups")?;
    let all: Vec<&str> = all.iter().map(|it| it.text()).collect::<Result<_, _>>()?;
    let mut chosen = BTreeSet::from([DEFAULT.to_owned()]);
    for (what, names) in [("extra", wanted.extras), ("group", wanted.groups)] {
        for name in names {
            let is_it = |it: &&str| normal(it) == normal(name);
            // Before 4.4, locks did not list their groups.
            if !all.is_empty() && !all.iter().any(is_it) {
                let mut error = unknown(&root.place(), what, name, all.iter().copied());
                error
                    .help
                    .push_str("; `pdm lock -G :all` locks all that the project has");
                return Err(error);
            }
            chosen.insert(normal(name));
        }
    }
    Ok(chosen)
}

/// A package of the lock. Those with extras are told apart from those without.
struct Package<'a> {
    /// What the lock says of it.
    node: Node<'a>,
    /// Its name and version.
    known: Known,
    /// The extras that this entry is for.
    extras: BTreeSet<ExtraName>,
}

/// The lock, as far as it is for the target.
struct Lock<'a> {
    /// Its path.
    path: &'a str,
    /// What markers see on the target.
    markers: MarkerEnvironment,
    /// The target.
    target: &'a Target,
    /// All packages, in the order of the file.
    packages: Vec<Package<'a>>,
    /// Whether packages say for which groups they are there.
    has_groups: bool,
    /// The files of packages by `NAME VERSION`, where older locks have them.
    files: BTreeMap<String, Vec<Node<'a>>>,
}

impl<'a> Lock<'a> {
    /// Reads the lock.
    fn read(
        path: &'a str,
        root: &'a Root<'a>,
        metadata: &Node<'a>,
        target: &'a Target,
    ) -> Result<Self, InputError> {
        let mut packages = Vec::new();
        for node in root.get("package").map_or(Ok(Vec::new()), |it| it.list())? {
            let known = Known::read(&node, AGAIN)?;
            let extras = node.list_of("extras")?;
            let extras: Vec<&str> = extras
                .iter()
                .map(|it| it.text())
                .collect::<Result<_, _>>()?;
            packages.push(Package {
                node,
                known,
                extras: extra_names(extras).into_iter().collect(),
            });
        }
        let mut files = BTreeMap::new();
        if let Some(table) = metadata.get("files") {
            for (name, list) in table.entries()? {
                files.insert(name.to_owned(), list.list()?);
            }
        }
        let strategy = metadata.list_of("strategy")?;
        let mut has_groups = false;
        for word in strategy {
            has_groups |= word.text()? == "inherit_metadata";
        }
        Ok(Self {
            path,
            markers: target.markers(),
            target,
            packages,
            has_groups,
            files,
        })
    }

    /// Makes sure that one of the lock's targets is ours, where it names some.
    fn is_for_target(&self, metadata: &Node<'_>) -> Result<(), InputError> {
        let targets = metadata.list_of("targets")?;
        let python = &self.markers.python_full_version().version;
        let mut words = Vec::new();
        for target in &targets {
            let needs = target.text_of("requires_python")?;
            let platform = target.text_of("platform")?;
            let implementation = target.text_of("implementation")?;
            let is_python =
                needs.is_none_or(|it| specifiers(it).is_some_and(|it| it.contains(python)));
            if is_python
                && platform.is_none_or(|it| self.is_platform(it))
                && implementation.is_none_or(|it| it == "cpython")
            {
                return Ok(());
            }
            let parts = [
                needs.map(|it| format!("Python {it}")),
                platform.map(str::to_owned),
            ];
            let parts: Vec<String> = parts.into_iter().flatten().collect();
            words.push(parts.join(" on "));
        }
        if targets.is_empty() {
            return Ok(());
        }
        let message = format!(
            "this lock is for {}, and not for {} with Python {}",
            words.join(", "),
            self.target.name(),
            self.target.python
        );
        let help = "lock for the target, too: `pdm lock --platform linux --append`";
        Err(metadata.error(message, help))
    }

    /// Tells whether a platform in PDM's words has what the target has.
    fn is_platform(&self, words: &str) -> bool {
        let numbers = |rest: &str| -> Option<(u32, String)> {
            let mut parts = rest.splitn(3, '_');
            let (major, minor) = (parts.next()?, parts.next()?);
            let minor = (major == "2" || major == "1").then(|| minor.parse().ok());
            Some((minor.flatten()?, parts.next()?.to_owned()))
        };
        let is_machine = |it: &str| it == self.target.machine();
        if let Some(rest) = words.strip_prefix("manylinux_") {
            return numbers(rest).is_some_and(|(wanted, machine)| {
                matches!(self.target.libc, Libc::Glibc { minor } if minor >= wanted)
                    && is_machine(&machine)
            });
        }
        if let Some(rest) = words.strip_prefix("musllinux_") {
            return numbers(rest).is_some_and(|(wanted, machine)| {
                matches!(self.target.libc, Libc::Musl { minor } if minor >= wanted)
                    && is_machine(&machine)
            });
        }
        match words {
            "linux" => is_machine("x86_64") && matches!(self.target.libc, Libc::Glibc { .. }),
            "alpine" => is_machine("x86_64") && matches!(self.target.libc, Libc::Musl { .. }),
            _ => false,
        }
    }

    /// Tells whether a package is for the target.
    fn holds(&self, package: &Package<'_>) -> Result<bool, InputError> {
        let python = &self.markers.python_full_version().version;
        if let Some(needs) = package.node.text_of("requires_python")?
            && specifiers(needs).is_some_and(|it| !it.contains(python))
        {
            return Ok(false);
        }
        let Some(marker) = package.node.get("marker") else {
            return Ok(true);
        };
        marker_of(&marker, AGAIN).map(|it| it.evaluate(&self.markers, &[]))
    }

    /// Returns the numbers of the packages that are there for one of the groups.
    fn of_groups(&self, wanted: &BTreeSet<String>) -> Result<BTreeSet<usize>, InputError> {
        let mut needed = BTreeSet::new();
        for (number, package) in self.packages.iter().enumerate() {
            let mut is_asked = false;
            for group in package.node.list_of("groups")? {
                is_asked |= wanted.contains(&normal(group.text()?));
            }
            if is_asked && self.holds(package)? {
                needed.insert(number);
            }
        }
        Ok(needed)
    }

    /// Follows dependencies from what the project asks for.
    fn walk(&self, roots: &[Edge]) -> Result<BTreeSet<usize>, InputError> {
        // One number for each name and version; with extras there are more packages of it.
        let mut fits: Vec<usize> = Vec::new();
        for (number, package) in self.packages.iter().enumerate() {
            let is_new = |it: &usize| {
                let Known { name, version } = &self.packages[*it].known;
                (name, version) != (&package.known.name, &package.known.version)
            };
            if self.holds(package)? && fits.iter().all(is_new) {
                fits.push(number);
            }
        }
        let known: Vec<Known> = fits
            .iter()
            .map(|it| self.packages[*it].known.clone())
            .collect();
        let found = walk(&known, roots, AGAIN, |number, extra| {
            let Known { name, version } = &known[number];
            let of = self.packages.iter().filter(|it| {
                let is_extra = match extra {
                    None => it.extras.is_empty(),
                    Some(extra) => it.extras.contains(extra),
                };
                (&it.known.name, &it.known.version) == (name, version) && is_extra
            });
            let mut edges = Vec::new();
            for package in of {
                for item in package.node.list_of("dependencies")? {
                    let place = item.place();
                    let parsed = requirement(item.text()?, &place)?;
                    // A package with extras asks for itself without them.
                    let is_own = parsed.name == *name;
                    if !is_own && parsed.marker.evaluate(&self.markers, &[]) {
                        edges.push(edge(parsed, place));
                    }
                }
            }
            Ok(edges)
        })?;
        Ok(found.into_iter().map(|it| fits[it]).collect())
    }

    /// Makes the set of the packages that are needed.
    fn set(&self, needed: &BTreeSet<usize>) -> Result<LockSet, InputError> {
        let mut set = LockSet::default();
        let mut chosen: BTreeMap<&PackageName, &Version> = BTreeMap::new();
        for number in needed {
            let package = &self.packages[*number];
            let Known { name, version } = &package.known;
            match chosen.insert(name, version) {
                // The same with extras.
                Some(other) if other == version => continue,
                Some(other) => {
                    let message =
                        format!("the lock has `{name}` {other} and {version} for this target");
                    return Err(package.node.error(message, AGAIN));
                }
                None => self.take(package, &mut set)?,
            }
        }
        set.packages.sort_by(|a, b| a.name.cmp(&b.name));
        set.warnings.sort();
        set.built()
    }

    /// Takes a package into the set.
    fn take(&self, package: &Package<'_>, set: &mut LockSet) -> Result<(), InputError> {
        let Package { node, known, .. } = package;
        let Known { name, version } = known;
        let place = node.place();
        for kind in ["git", "hg", "svn", "bzr"] {
            if node.get(kind).is_some() {
                set.unbuilt.push(source(&place, name, kind, AGAIN));
                return Ok(());
            }
        }
        let url = node.text_of("url")?;
        let path = node.text_of("path")?;
        if let Some(at) = url.or(path) {
            let end = at.split(['?', '#']).next().unwrap_or_default();
            if !end.ends_with(".whl") {
                if url.is_some() {
                    set.unbuilt
                        .push(source(&place, name, &format!("`{at}`"), AGAIN));
                    return Ok(());
                }
                set.warnings.push(folder(name, &beside(self.path, at)));
                return Ok(());
            }
        }
        let files = match node.get("files") {
            Some(files) => files.list()?,
            None => {
                let key = format!("{} {}", node.needed("name")?, node.needed("version")?);
                self.files.get(&key).cloned().unwrap_or_default()
            }
        };
        set.packages.push(Locked {
            name: name.clone(),
            version: version.clone(),
            wheels: wheels(self.path, &files, name, url.or(path))?,
            hashes: Vec::new(),
            index: None,
            place,
        });
        Ok(())
    }
}
