//! What a target of Python packages puts into an image, as the image sees it: what comes first in its `PATH`, and what
//! other targets must not bring in another version. Knows no wheel.

use std::any::Any;
use std::collections::BTreeMap;

use pep440_rs::Version;
use pep508_rs::PackageName;

use crate::layer::LayerPath;
use crate::rule::ecosystem::{Conflict, Installed};

/// The packages of a target.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Packages {
    /// The target, by its name for people.
    pub(super) name: String,
    /// The folder of commands that comes first in `PATH`: that of a virtual environment.
    pub(super) commands: Option<String>,
    /// The folders on the interpreter's `sys.path` that the packages go to.
    pub(super) sites: Vec<LayerPath>,
    /// The versions, as far as they are locked.
    pub(super) versions: BTreeMap<PackageName, Version>,
    /// Whether these may replace those of another target.
    pub(super) may_replace: bool,
}

impl Installed for Packages {
    fn commands(&self) -> Option<&str> {
        self.commands.as_deref()
    }

    fn conflict(&self, below: &dyn Installed) -> Option<Conflict> {
        let below: &Self = (below as &dyn Any).downcast_ref()?;
        Some(Conflict {
            code: "imgdecl::pip::versions",
            message: self.differ(below)?,
            help: format!(
                "ask for all in one target, narrow one by `constraints` and lock again, or give one another `prefix`; with `on_conflict = \"last\"`, `{}` stands",
                self.name
            ),
        })
    }
}

/// How many packages an error names.
const FEW: usize = 3;

impl Packages {
    /// Says in what these packages and those of a target further down exclude each other, if they do: in one folder there
    /// is one version of a package.
    fn differ(&self, below: &Self) -> Option<String> {
        let mut sites = self.sites.iter().filter(|it| below.sites.contains(*it));
        let site = sites.next().filter(|_| !self.may_replace)?;
        let differ = self.versions.iter().filter_map(|(name, version)| {
            let other = below.versions.get(name).filter(|it| *it != version)?;
            Some(format!("{name} {other} and {version}"))
        });
        let differ: Vec<String> = differ.collect();
        let more = match differ.len().saturating_sub(FEW) {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        let shown = differ.get(..FEW.min(differ.len())).unwrap_or_default();
        (!differ.is_empty()).then(|| {
            format!(
                "`{}` and `{}` bring different versions into /{}: {}{more}",
                below.name,
                self.name,
                site.as_str(),
                shown.join(", ")
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn installed(name: &str, site: &str, versions: &[(&str, &str)]) -> Packages {
        let versions = versions.iter();
        Packages {
            name: name.to_owned(),
            sites: vec![LayerPath::parse(site).unwrap()],
            versions: versions
                .map(|(name, version)| (name.parse().unwrap(), version.parse().unwrap()))
                .collect(),
            ..Packages::default()
        }
    }

    #[test]
    fn one_folder_holds_one_version() {
        let below = installed("a", "lib/site", &[("x", "1.0"), ("y", "2")]);
        let said = |own: &Packages| own.differ(&below);
        let other = installed("b", "lib/site", &[("x", "1.1"), ("y", "2"), ("z", "1")]);
        assert_eq!(
            said(&other).unwrap(),
            "`a` and `b` bring different versions into /lib/site: x 1.0 and 1.1"
        );
        // Equal versions, however they are written, go together.
        assert_eq!(said(&installed("b", "lib/site", &[("x", "1")])), None);
        assert_eq!(said(&installed("b", "app/site", &[("x", "1.1")])), None);
        let replacing = Packages {
            may_replace: true,
            ..other
        };
        assert_eq!(said(&replacing), None);
    }

    #[test]
    fn names_a_few() {
        let all = |version| ["p", "q", "r", "s", "t"].map(|name| (name, version));
        let below = installed("a", "lib", &all("1"));
        let said = installed("b", "lib", &all("2")).differ(&below).unwrap();
        assert!(said.ends_with("r 1 and 2, and 2 more"), "{said}");
    }
}
