//! Which packages of a lock are needed: followed from what a project asks for, where the lock itself does not say it.

use std::collections::{BTreeMap, BTreeSet};

use pep440_rs::Version;
use pep508_rs::{ExtraName, PackageName};

use super::CODE;
use super::constraint::Constraint;
use crate::python::place::{InputError, Place};
use crate::python::pylock::name;
use crate::python::table::Node;

/// How often choices may change the choices before them: far more than locks that tools wrote need.
const MOST_PASSES: usize = 100;

/// A dependency that counts on the target.
#[derive(Clone, Debug)]
pub(super) struct Edge {
    /// The package.
    pub(super) name: PackageName,
    /// The versions of it.
    pub(super) admits: Constraint,
    /// Its extras.
    pub(super) extras: Vec<ExtraName>,
    /// Where it is asked for.
    pub(super) place: Place,
}

/// A package of a lock that may be taken on the target.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// The name.
    pub(super) name: PackageName,
    /// The version.
    pub(super) version: Version,
}

impl Known {
    /// Reads name and version of a package of a lock.
    pub(super) fn read(package: &Node<'_>, again: &str) -> Result<Self, InputError> {
        let text = package.needed("version")?;
        let version = text
            .parse()
            .map_err(|_| package.error(format!("`{text}` is no version"), again))?;
        let name = name(package)?;
        Ok(Self { name, version })
    }
}

/// Follows dependencies from `roots`: returns the numbers of the packages that are needed. `edges` gives those of a package,
/// or those of one of its extras.
///
/// A lock may hold several versions of a package. The newest counts that all who ask for it admit.
pub(super) fn walk(
    packages: &[Known],
    roots: &[Edge],
    again: &str,
    mut edges: impl FnMut(usize, Option<&ExtraName>) -> Result<Vec<Edge>, InputError>,
) -> Result<BTreeSet<usize>, InputError> {
    let Some(first) = roots.first() else {
        return Ok(BTreeSet::new());
    };
    let mut chosen: BTreeMap<PackageName, usize> = BTreeMap::new();
    for _ in 0..MOST_PASSES {
        let mut asked: BTreeMap<PackageName, Vec<Edge>> = BTreeMap::new();
        let mut seen: BTreeSet<(usize, Option<ExtraName>)> = BTreeSet::new();
        let mut open: Vec<Edge> = roots.to_vec();
        while let Some(edge) = open.pop() {
            let number = match chosen.get(&edge.name) {
                Some(number) => *number,
                None => {
                    let number = newest(packages, std::slice::from_ref(&edge), again)?;
                    chosen.insert(edge.name.clone(), number);
                    number
                }
            };
            if seen.insert((number, None)) {
                open.extend(edges(number, None)?);
            }
            for extra in &edge.extras {
                if seen.insert((number, Some(extra.clone()))) {
                    open.extend(edges(number, Some(extra))?);
                }
            }
            asked.entry(edge.name.clone()).or_default().push(edge);
        }
        let mut better = BTreeMap::new();
        for (name, edges) in asked {
            better.insert(name, newest(packages, &edges, again)?);
        }
        let is_same = better
            .iter()
            .all(|(name, number)| chosen.get(name) == Some(number));
        if is_same {
            return Ok(better.into_values().collect());
        }
        chosen = better;
    }
    let message = "which versions of the lock go together cannot be told";
    Err(first.place.error(CODE, message, again))
}

/// Returns the number of the newest version that all of `edges` admit. All are of one package, and there is one at least.
fn newest(packages: &[Known], edges: &[Edge], again: &str) -> Result<usize, InputError> {
    let Some(edge) = edges.last() else {
        return Ok(0);
    };
    let of_name = || {
        packages
            .iter()
            .enumerate()
            .filter(|(_, it)| it.name == edge.name)
    };
    let admitted = |it: &Known| edges.iter().all(|edge| edge.admits.admits(&it.version));
    let fits = of_name().filter(|(_, it)| admitted(it));
    if let Some((number, _)) = fits.max_by_key(|(_, it)| it.version.clone()) {
        return Ok(number);
    }
    let name = &edge.name;
    let versions: Vec<String> = of_name().map(|(_, it)| it.version.to_string()).collect();
    let message = match versions.is_empty() {
        true => format!("the lock has no `{name}` for this target, which is asked for here"),
        false => format!(
            "the lock has `{name}` {}, which is not what is asked for here",
            versions.join(", ")
        ),
    };
    Err(edge.place.error(CODE, message, again))
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::python::Source;

    fn edge(text: &str) -> Edge {
        let (name, rest) = text.split_once(' ').unwrap_or((text, "*"));
        let (name, extra) = name
            .split_once('+')
            .map_or((name, None), |it| (it.0, Some(it.1)));
        let source = Source::shared("p", text);
        Edge {
            name: name.parse().unwrap(),
            admits: Constraint::parse(rest).unwrap(),
            extras: extra.map(|it| it.parse().unwrap()).into_iter().collect(),
            place: Place::new(&source, 0..text.len()),
        }
    }

    fn run(lock: &[(&str, &str, &[&str])], roots: &[&str]) -> Result<Vec<String>, String> {
        let packages: Vec<Known> = lock
            .iter()
            .map(|(name, version, _)| Known {
                name: name.parse().unwrap(),
                version: version.parse().unwrap(),
            })
            .collect();
        let roots: Vec<Edge> = roots.iter().map(|it| edge(it)).collect();
        let found = walk(&packages, &roots, "again", |number, extra| {
            let all = lock[number].2.iter();
            let of = all.filter_map(|it| match (it.strip_prefix('!'), extra) {
                (None, None) => Some(edge(it)),
                (Some(it), Some(_)) => Some(edge(it)),
                _ => None,
            });
            Ok(of.collect())
        });
        let found = found.map_err(|error| error.message)?;
        Ok(found
            .into_iter()
            .map(|it| format!("{} {}", lock[it].0, lock[it].1))
            .collect())
    }

    #[test]
    fn follows_what_is_asked_for() {
        let lock: &[(&str, &str, &[&str])] = &[
            ("a", "1", &["b", "!x"]),
            ("b", "1", &["a"]),
            ("x", "1", &[]),
            ("unused", "1", &[]),
        ];
        assert_eq!(run(lock, &["a"]).unwrap(), ["a 1", "b 1"]);
        assert_eq!(run(lock, &["a+e"]).unwrap(), ["a 1", "b 1", "x 1"]);
        assert_eq!(
            run(lock, &["c"]).unwrap_err(),
            "the lock has no `c` for this target, which is asked for here"
        );
        assert_eq!(
            run(lock, &["a >1"]).unwrap_err(),
            "the lock has `a` 1, which is not what is asked for here"
        );
    }

    #[test]
    fn takes_the_version_that_all_admit() {
        let lock: &[(&str, &str, &[&str])] = &[
            ("a", "1", &[]),
            ("a", "2", &["new"]),
            ("b", "1", &["a <2"]),
            ("new", "1", &[]),
        ];
        assert_eq!(run(lock, &["a"]).unwrap(), ["a 2", "new 1"]);
        assert_eq!(run(lock, &["b", "a"]).unwrap(), ["a 1", "b 1"]);
        assert_eq!(run(lock, &["a", "b"]).unwrap(), ["a 1", "b 1"]);
    }
}
