//! Which wheels go into which layers. A pure function of what the lock says: no wheel is read.

use std::collections::{BTreeMap, BTreeSet};

use pep508_rs::PackageName;
use serde::{Deserialize, Serialize};

/// How many layers of wheels an image gets at most: runtimes take no more than 127 layers.
pub(super) const BUDGET: usize = 40;
/// How large a wheel, or a group of them, must be to become a layer of its own, in bytes.
pub(super) const LARGE: u64 = 1 << 20;

/// How wheels are split into layers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Split {
    /// One layer.
    None,
    /// A layer a package, for the largest ones; the rest together.
    Package,
    /// A layer for each large package; the rest together. What one service has decides nothing for another, and what
    /// several have at the same place is the same layer in each.
    #[default]
    Auto,
    /// A layer for the wheels that the same services use; the rest together.
    Workspace,
}

/// A wheel of a lock.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Wheel {
    /// The name of the package.
    pub name: PackageName,
    /// The wheel's file name.
    pub file: String,
    /// Its size in bytes.
    pub size: u64,
}

/// Splits the wheels of several services into layers; returns the layers of each, bottom first, as the indexes of its
/// wheels in the order of their names. All services must be for one platform and lay out wheels alike; every wheel of a
/// service must be of another package.
pub(crate) fn split(
    services: &BTreeMap<String, (Split, Vec<Wheel>)>,
) -> BTreeMap<String, Vec<Vec<usize>>> {
    let mut users: BTreeMap<&Wheel, BTreeSet<&str>> = BTreeMap::new();
    let sharing = |(_, it): &(&String, &(Split, Vec<Wheel>))| it.0 == Split::Workspace;
    for (service, (_, wheels)) in services.iter().filter(sharing) {
        for wheel in wheels {
            users.entry(wheel).or_default().insert(service);
        }
    }
    let layers = |(split, wheels): &(Split, Vec<Wheel>)| {
        let mut groups: BTreeMap<Key<'_>, Vec<usize>> = BTreeMap::new();
        for (index, wheel) in wheels.iter().enumerate() {
            let key = match split {
                Split::None => Key::Rest,
                Split::Package | Split::Auto => Key::Package(&wheel.name),
                Split::Workspace => Key::of(&users[wheel]),
            };
            groups.entry(key).or_default().push(index);
        }
        let size = |group: &[usize]| -> u64 { group.iter().map(|it| wheels[*it].size).sum() };
        let least = if *split == Split::Package { 0 } else { LARGE };
        let mut own: Vec<(Key<'_>, Vec<usize>)> = Vec::new();
        let mut rest = Vec::new();
        for (key, group) in groups {
            match key != Key::Rest && size(&group) >= least {
                true => own.push((key, group)),
                false => rest.extend(group),
            }
        }
        let room = BUDGET - usize::from(!rest.is_empty() || own.len() > BUDGET);
        if own.len() > room {
            own.sort_by(|(a, first), (b, second)| {
                size(second).cmp(&size(first)).then_with(|| a.cmp(b))
            });
            rest.extend(own.split_off(room).into_iter().flat_map(|(_, group)| group));
            own.sort();
        }
        let all = own.into_iter().map(|(_, group)| group).chain([rest]);
        let mut layers: Vec<Vec<usize>> = all.filter(|group| !group.is_empty()).collect();
        for layer in &mut layers {
            layer.sort_by(|a, b| wheels[*a].cmp(&wheels[*b]));
        }
        layers
    };
    services
        .iter()
        .map(|(service, it)| (service.clone(), layers(it)))
        .collect()
}

/// What the wheels of a layer have in common. Sorted as layers are: what most services share lies at the bottom.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key<'a> {
    Users(std::cmp::Reverse<usize>, Vec<&'a str>),
    Package(&'a PackageName),
    Rest,
}

impl<'a> Key<'a> {
    fn of(users: &BTreeSet<&'a str>) -> Self {
        Self::Users(
            std::cmp::Reverse(users.len()),
            users.iter().copied().collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wheel(name: &str, size: u64) -> Wheel {
        Wheel {
            name: name.parse().unwrap(),
            file: format!("{name}-1-py3-none-any.whl"),
            size,
        }
    }

    /// The layers of each service by the names of the packages.
    fn names(services: &[(&str, Split, Vec<Wheel>)]) -> BTreeMap<String, Vec<String>> {
        let services: BTreeMap<String, (Split, Vec<Wheel>)> = services
            .iter()
            .map(|(name, split, wheels)| ((*name).to_owned(), (*split, wheels.clone())))
            .collect();
        let layers = split(&services);
        let show = |(service, layers): (String, Vec<Vec<usize>>)| {
            let wheels = &services[&service].1;
            let name = |it: &usize| wheels[*it].name.to_string();
            let layer = |it: &Vec<usize>| it.iter().map(name).collect::<Vec<_>>().join(" ");
            (service, layers.iter().map(layer).collect())
        };
        layers.into_iter().map(show).collect()
    }

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_services_share_is_a_layer() {
        let (boto, small, flask) = (
            wheel("boto", MIB),
            wheel("small", 10),
            wheel("flask", 2 * MIB),
        );
        let fastapi = wheel("fastapi", MIB - 1);
        let (a, b) = (wheel("a", MIB / 2), wheel("b", MIB / 2));
        let layers = names(&[
            (
                "front",
                Split::Workspace,
                vec![small.clone(), flask, boto.clone()],
            ),
            (
                "ingest",
                Split::Workspace,
                vec![boto.clone(), small.clone()],
            ),
            (
                "qa",
                Split::Workspace,
                vec![b, a, fastapi, boto.clone(), small.clone()],
            ),
            ("one", Split::None, vec![small, boto]),
        ]);
        assert_eq!(layers["front"], ["boto small", "flask"]);
        assert_eq!(layers["ingest"], ["boto small"]);
        assert_eq!(layers["qa"], ["boto small", "a b fastapi"]);
        assert_eq!(layers["one"], ["boto small"]);
    }

    #[test]
    fn large_packages_are_layers_whoever_else_has_them() {
        let (large, other) = (wheel("large", MIB), wheel("other", 3 * MIB));
        let (a, b) = (wheel("a", MIB - 1), wheel("b", 1));
        let own = [&b, &large, &other, &a].map(Clone::clone).to_vec();
        let alone = names(&[("x", Split::Auto, own.clone())]);
        assert_eq!(alone["x"], ["large", "other", "a b"]);
        let beside = names(&[
            ("x", Split::Auto, own),
            ("y", Split::Auto, vec![b, large.clone()]),
            ("z", Split::Workspace, vec![a, large]),
        ]);
        assert_eq!(beside["x"], alone["x"]);
        assert_eq!(beside["y"], ["large", "b"]);
        assert_eq!(beside["z"], ["a large"]);
    }

    #[test]
    fn large_packages_have_a_budget() {
        let wheels = |count: u64| -> Vec<Wheel> {
            let one = |n| wheel(&format!("p{n:02}"), MIB + n);
            (0..count).map(one).collect()
        };
        let found = &names(&[("x", Split::Auto, wheels(45))])["x"];
        assert_eq!(found.len(), BUDGET);
        assert_eq!(found[39], "p00 p01 p02 p03 p04 p05");
    }

    #[test]
    fn small_groups_are_the_rest() {
        let layers = names(&[
            (
                "x",
                Split::Workspace,
                vec![wheel("s", 1), wheel("big", MIB)],
            ),
            ("y", Split::Workspace, vec![wheel("s", 1)]),
        ]);
        assert_eq!(layers["x"], ["big", "s"]);
        assert_eq!(layers["y"], ["s"]);
    }

    #[test]
    fn packages_have_a_budget() {
        let wheels = |count: u64| -> Vec<Wheel> {
            (0..count).map(|n| wheel(&format!("p{n:02}"), n)).collect()
        };
        for (count, layers, last) in [(0, 0, None), (39, 39, Some("p38")), (40, 40, Some("p39"))] {
            let found = &names(&[("x", Split::Package, wheels(count))])["x"];
            assert_eq!(found.len(), layers);
            assert_eq!(found.last().map(String::as_str), last);
        }
        let found = &names(&[("x", Split::Package, wheels(45))])["x"];
        assert_eq!(found.len(), BUDGET);
        assert_eq!(found[0], "p06");
        assert_eq!(found[39], "p00 p01 p02 p03 p04 p05");
    }

    #[test]
    fn order_of_the_lock_does_not_matter() {
        let (a, b) = (wheel("a", MIB), wheel("b", MIB));
        let one = names(&[("x", Split::Workspace, vec![a.clone(), b.clone()])]);
        let two = names(&[("x", Split::Workspace, vec![b, a])]);
        assert_eq!(one, two);
    }
}
