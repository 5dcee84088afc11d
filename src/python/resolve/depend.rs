//! What versions depend on, on the target: markers, extras and constraints.

use pep508_rs::{ExtraName, MarkerTree, PackageName, VersionOrUrl};
use pubgrub::Ranges;

use super::range::{self, Point};
use super::solve::{Dependency, Package, Solver, asked_range};
use crate::python::{Asked, Metadata, Requirement};

impl<'a> Solver<'a> {
    pub(super) fn root_dependencies(&mut self) -> Vec<Dependency> {
        let question = self.question;
        let mut dependencies = Vec::new();
        for asked in question.asked {
            let requirement = &asked.requirement;
            if !self.holds(&requirement.marker, &[], &|| format!("`{requirement}`")) {
                continue;
            }
            match self.overrides(asked.name()) {
                None => self.push(requirement, asked_range(asked), &mut dependencies),
                Some(overrides) => {
                    for asked in overrides {
                        self.push(&asked.requirement, asked_range(asked), &mut dependencies);
                    }
                }
            }
        }
        dependencies
    }

    /// Returns what takes the place of requirements on a package, on this target; `None` if they stand.
    pub(super) fn overrides(&self, name: &PackageName) -> Option<Vec<&'a Asked>> {
        let all = self.question.overrides.iter();
        let own: Vec<&Asked> = all.filter(|it| it.name() == name).collect();
        if own.is_empty() {
            return None;
        }
        let holds = |it: &&Asked| it.requirement.marker.evaluate(&self.markers, &[]);
        Some(own.into_iter().filter(holds).collect())
    }

    /// Adds what a requirement says: the package, and its extras.
    pub(super) fn push(
        &self,
        requirement: &Requirement,
        range: Ranges<Point>,
        dependencies: &mut Vec<Dependency>,
    ) {
        let name = &requirement.name;
        let range = match self.constraints.get(name) {
            Some(constraint) => range.intersection(constraint),
            None => range,
        };
        dependencies.push((Package::Base(name.clone()), range.clone()));
        for extra in &requirement.extras {
            dependencies.push((Package::Extra(name.clone(), extra.clone()), range.clone()));
        }
    }

    /// Returns what a version depends on, or why it cannot be used.
    pub(super) fn dependencies(
        &mut self,
        package: &Package,
        metadata: &Metadata,
        around: &Ranges<Point>,
    ) -> Result<Vec<Dependency>, String> {
        let mut dependencies = Vec::new();
        if let Package::Extra(name, _) = package {
            dependencies.push((Package::Base(name.clone()), around.clone()));
        }
        for requirement in self.active(package, metadata) {
            if Some(&requirement.name) == package.name() {
                // A package asks for extras of its own, and means this version.
                for extra in &requirement.extras {
                    let own = Package::Extra(requirement.name.clone(), extra.clone());
                    if own != *package {
                        dependencies.push((own, around.clone()));
                    }
                }
                continue;
            }
            let range = match &requirement.version_or_url {
                None => Ranges::full(),
                Some(VersionOrUrl::VersionSpecifier(specifiers)) => range::all(specifiers),
                Some(VersionOrUrl::Url(link)) => match self.direct.get(&requirement.name) {
                    Some((own, candidate)) if own.link.as_str() == link.address() => {
                        range::exactly(&candidate.version)
                    }
                    _ => {
                        return Err(format!(
                            "needs {} from a URL, which only you may ask for: add `{} @ {}` to your requirements",
                            requirement.name,
                            requirement.name,
                            link.address()
                        ));
                    }
                },
            };
            self.push(&requirement, range, &mut dependencies);
        }
        Ok(dependencies)
    }

    /// Returns the requirements that hold for the target: of a package, or those that only its extra brings.
    pub(super) fn active(&mut self, package: &Package, metadata: &Metadata) -> Vec<Requirement> {
        let extra = match package {
            Package::Extra(_, extra) => Some(extra.clone()),
            Package::Root | Package::Base(_) => None,
        };
        if let Some(extra) = &extra
            && !metadata.extras.contains(extra)
        {
            self.warnings.insert(format!(
                "{} {} has no extra `{extra}`",
                metadata.name, metadata.version
            ));
        }
        let extras = extra.as_slice();
        let mut active = Vec::new();
        for requirement in &metadata.requires {
            let marker = &requirement.marker;
            let who = || format!("`{requirement}` of {} {}", metadata.name, metadata.version);
            let is_ours = extra.is_none() || !marker.evaluate(&self.markers, &[]);
            if !is_ours || !self.holds(marker, extras, &who) {
                continue;
            }
            match self.overrides(&requirement.name) {
                // What a package asks of itself are its own extras.
                Some(overrides) if requirement.name != metadata.name => {
                    active.extend(overrides.into_iter().map(|it| it.requirement.clone()));
                }
                _ => active.push(requirement.clone()),
            }
        }
        active
    }

    /// Evaluates a marker; warns where the answer hangs on what is not known.
    pub(super) fn holds(
        &mut self,
        marker: &MarkerTree,
        extras: &[ExtraName],
        who: &dyn Fn() -> String,
    ) -> bool {
        if marker.is_true() {
            return true;
        }
        let holds = marker.evaluate(&self.markers, extras);
        let other = self.other_markers.as_ref();
        if other.is_some_and(|it| marker.evaluate(it, extras) != holds) {
            let python = self.rules.target.python;
            self.warnings.insert(format!(
                "{} hangs on the patch version of Python, which is not known: taken for {}",
                who(),
                python.full()
            ));
        }
        let known = self.of_kernel.get(marker).copied();
        let hangs_on_kernel = known.unwrap_or_else(|| {
            let text = marker.contents().map(|it| it.to_string());
            let text = text.unwrap_or_default();
            text.contains("platform_release") || text.contains("platform_version")
        });
        if known.is_none() {
            self.of_kernel.insert(marker.clone(), hangs_on_kernel);
        }
        if hangs_on_kernel {
            self.warnings.insert(format!(
                "{} hangs on the kernel that the image will run on: taken for an unknown one",
                who()
            ));
        }
        holds
    }
}
