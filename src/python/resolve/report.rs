//! Says why there is no answer, in the words of the requirements.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pep508_rs::PackageName;
use pubgrub::{
    DefaultStringReporter, DerivationTree, Derived, External, Map, Ranges, ReportFormatter,
    Reporter, Term,
};

use super::choose::{Fault, Listing, Rules};
use super::range::{Point, describe};
use super::solve::{Package, places};
use super::{IndexError, Question};
use crate::python::{Place, WheelName};

/// Why requirements exclude each other.
#[derive(Clone, Debug)]
pub struct Conflict {
    /// The reasons, one step a line.
    pub explanation: String,
    /// The requirements that take part, to be underlined, each with what it says.
    pub places: Vec<(Place, String)>,
    /// What there is, where that helps.
    pub hints: Vec<String>,
}

type Tree = DerivationTree<Package, Ranges<Point>, String>;
type Fact = External<Package, Ranges<Point>, String>;
type Terms = Map<Package, Term<Ranges<Point>>>;
type Step = Derived<Package, Ranges<Point>, String>;

/// How many lines an explanation may have, and how many hints there are.
const LINES: usize = 60;
const HINTS: usize = 24;

/// How many wheels that do not fit for one reason are named.
const NAMES: usize = 3;

impl Conflict {
    pub(super) fn new(
        tree: Tree,
        question: &Question<'_>,
        listings: &BTreeMap<PackageName, Result<Arc<Listing>, IndexError>>,
        rules: &Rules,
    ) -> Self {
        let words = Words {
            points: listings
                .iter()
                .filter_map(|(name, it)| Some((name.clone(), it.as_ref().ok()?.points())))
                .collect(),
        };
        let report = match &tree {
            DerivationTree::External(fact) => words.format_external(fact),
            DerivationTree::Derived(_) => {
                DefaultStringReporter::report_with_formatter(&tree, &words)
            }
        };
        let mut lines: Vec<&str> = report.lines().collect();
        if lines.len() > LINES {
            // The end is what it comes to.
            lines.drain(LINES / 2..lines.len() - LINES / 2);
            lines.insert(LINES / 2, "…");
        }
        let mut facts = Vec::new();
        gather(&tree, &mut facts);
        let mut named = BTreeSet::new();
        let mut hints = Vec::new();
        for fact in facts {
            match fact {
                External::FromDependencyOf(Package::Root, _, package, _) => {
                    named.extend(package.name().cloned());
                }
                External::NoVersions(package, range) | External::Custom(package, range, _) => {
                    let listing = package.name().and_then(|it| listings.get(it));
                    if let Some(Ok(listing)) = listing {
                        hint(package, range, listing, rules, &mut hints);
                    }
                }
                _ => {}
            }
        }
        let mut seen = BTreeSet::new();
        hints.retain(|it| seen.insert(it.clone()));
        hints.truncate(HINTS);
        let places = named.iter().flat_map(|name| {
            let places = places(question, name);
            places.map(|(place, text)| (place.clone(), text))
        });
        Self {
            explanation: lines.join("\n"),
            places: places.collect(),
            hints,
        }
    }

    pub(super) fn help(&self) -> String {
        match self.hints.is_empty() {
            true => "loosen one of these requirements".to_owned(),
            false => self.hints.join("\n"),
        }
    }
}

/// Gathers the facts that a conflict comes from.
fn gather<'a>(tree: &'a Tree, facts: &mut Vec<&'a Fact>) {
    let mut seen = BTreeSet::new();
    let mut open = vec![tree];
    while let Some(tree) = open.pop() {
        match tree {
            DerivationTree::External(fact) => facts.push(fact),
            DerivationTree::Derived(step) => {
                if step.shared_id.is_none_or(|it| seen.insert(it)) {
                    open.extend([&*step.cause2, &*step.cause1]);
                }
            }
        }
    }
}

/// Says what there is of a package where nothing in a range can be used.
fn hint(
    package: &Package,
    range: &Ranges<Point>,
    listing: &Listing,
    rules: &Rules,
    hints: &mut Vec<String>,
) {
    let in_range = listing
        .releases
        .iter()
        .rev()
        .find(|it| range.contains(&it.point));
    let Some(release) = in_range else {
        let newest: Vec<String> = listing
            .releases
            .iter()
            .rev()
            .take(5)
            .map(|it| it.point.to_string())
            .collect();
        if !newest.is_empty() {
            hints.push(format!(
                "the newest versions of {package} are {}",
                newest.join(", ")
            ));
        }
        return;
    };
    match &release.choice {
        Err(Fault::Wheels(misfits)) => {
            let target = rules.target.name();
            hints.push(format!("{package} {} has no wheel for {target}:", release.point));
            let mut kinds: BTreeMap<String, Vec<&str>> = BTreeMap::new();
            for file in misfits {
                let wheel = WheelName::parse(file).ok();
                let words = wheel.and_then(|it| it.misfit(&rules.target));
                kinds.entry(words.unwrap_or_default()).or_default().push(file);
            }
            hints.extend(kinds.into_iter().map(|(words, files)| {
                let shown = files[..files.len().min(NAMES)].join(", ");
                match files.len().saturating_sub(NAMES) {
                    0 => format!("  {words}: {shown}"),
                    more => format!("  {words}: {shown} and {more} more"),
                }
            }));
            hints.push(format!(
                "build a wheel of {package} for the target, and point `find_links` at its folder"
            ));
        }
        Err(Fault::Sources) => hints.push(format!(
            "{package} {} has only sources: build a wheel of it for {}, and point `find_links` at its folder",
            release.point,
            rules.target.name()
        )),
        Err(fault @ Fault::Yanked(_)) => hints.push(format!(
            "{package} {} {}: it is taken only where you ask for `{package}=={}`",
            release.point,
            fault.words(&rules.target),
            release.point
        )),
        Err(fault @ Fault::Python(_)) => {
            hints.push(format!("{package} {} {}", release.point, fault.words(&rules.target)));
        }
        Ok(_) => {}
    }
}

/// Writes facts as sentences.
struct Words {
    /// All versions there are.
    points: BTreeMap<PackageName, Vec<Point>>,
}

impl Words {
    /// Writes a package with a set of its versions.
    fn of(&self, package: &Package, range: &Ranges<Point>) -> String {
        let said = match package.name().and_then(|it| self.points.get(it)) {
            // In terms of what there is: not `>1.9,<2.1` but `==2.0`.
            Some(points) => describe(&range.simplify(points.iter()).narrow_versions(points)),
            None => describe(range),
        };
        match package {
            Package::Root => package.to_string(),
            _ => format!("{package}{said}"),
        }
    }
}

impl ReportFormatter<Package, Ranges<Point>, String> for Words {
    type Output = String;

    fn format_external(&self, fact: &Fact) -> String {
        match fact {
            External::NotRoot(..) => "your requirements are what is resolved".to_owned(),
            External::NoVersions(package, range) => match describe(range).as_str() {
                "" => format!("there is no version of {package}"),
                said => format!("there is no version {said} of {package}"),
            },
            External::Custom(package, range, reason) => {
                format!("{} {reason}", self.of(package, range))
            }
            External::FromDependencyOf(Package::Root, _, package, range) => {
                format!("you ask for {package}{}", describe(range))
            }
            External::FromDependencyOf(package, versions, needed, range) => format!(
                "{} needs {needed}{}",
                self.of(package, versions),
                describe(range)
            ),
        }
    }

    fn format_terms(&self, terms: &Terms) -> String {
        let mut terms: Vec<(&Package, &Term<Ranges<Point>>)> = terms.iter().collect();
        terms.sort_by_key(|it| it.0);
        match terms[..] {
            [] | [(Package::Root, Term::Positive(_))] => {
                "your requirements exclude each other".to_owned()
            }
            [(package, Term::Positive(range))] => {
                format!("{} cannot be used", self.of(package, range))
            }
            [(package, Term::Negative(range))] => {
                format!("{package}{} is needed", describe(range))
            }
            [
                (package, Term::Positive(versions)),
                (needed, Term::Negative(range)),
            ]
            | [
                (needed, Term::Negative(range)),
                (package, Term::Positive(versions)),
            ] => {
                if *package == Package::Root {
                    return format!("your requirements need {needed}{}", describe(range));
                }
                let fact = External::FromDependencyOf(
                    package.clone(),
                    versions.clone(),
                    needed.clone(),
                    range.clone(),
                );
                self.format_external(&fact)
            }
            _ => {
                let all = terms.iter().map(|(package, term)| match term {
                    Term::Positive(range) => self.of(package, range),
                    Term::Negative(range) => format!("anything but {}", self.of(package, range)),
                });
                let all: Vec<String> = all.collect();
                format!("{} exclude each other", all.join(" and "))
            }
        }
    }

    fn explain_both_external(&self, first: &Fact, second: &Fact, terms: &Terms) -> String {
        format!(
            "Because {} and {}, {}.",
            self.format_external(first),
            self.format_external(second),
            self.format_terms(terms)
        )
    }

    fn explain_both_ref(
        &self,
        number1: usize,
        first: &Step,
        number2: usize,
        second: &Step,
        terms: &Terms,
    ) -> String {
        format!(
            "Because {} ({number1}) and {} ({number2}), {}.",
            self.format_terms(&first.terms),
            self.format_terms(&second.terms),
            self.format_terms(terms)
        )
    }

    fn explain_ref_and_external(
        &self,
        number: usize,
        step: &Step,
        fact: &Fact,
        terms: &Terms,
    ) -> String {
        format!(
            "Because {} ({number}) and {}, {}.",
            self.format_terms(&step.terms),
            self.format_external(fact),
            self.format_terms(terms)
        )
    }

    fn and_explain_external(&self, fact: &Fact, terms: &Terms) -> String {
        format!(
            "And because {}, {}.",
            self.format_external(fact),
            self.format_terms(terms)
        )
    }

    fn and_explain_ref(&self, number: usize, step: &Step, terms: &Terms) -> String {
        format!(
            "And because {} ({number}), {}.",
            self.format_terms(&step.terms),
            self.format_terms(terms)
        )
    }

    fn and_explain_prior_and_external(&self, prior: &Fact, fact: &Fact, terms: &Terms) -> String {
        format!(
            "And because {} and {}, {}.",
            self.format_external(prior),
            self.format_external(fact),
            self.format_terms(terms)
        )
    }
}
