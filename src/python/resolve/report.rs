//! Says why there is no answer, in the words of the requirements.

use std::collections::{BTreeMap, BTreeSet};

use pep508_rs::PackageName;
use pubgrub::{
    DefaultStringReporter, DerivationTree, Derived, External, Map, Ranges, ReportFormatter,
    Reporter, Term,
};

use super::choose::Rules;
use super::hints::{Hints, Listings};
use super::range::{Point, describe};
use super::solve::{Package, places};
use super::{Index, Question};
use crate::python::Place;

/// Why requirements exclude each other.
#[derive(Clone, Debug)]
pub(crate) struct Conflict {
    /// The reasons, one step a line.
    pub explanation: String,
    /// The requirements that take part, to be underlined, each with what it says.
    pub places: Vec<(Place, String)>,
    /// What there is, where that helps.
    pub hints: Vec<String>,
    /// The packages of which versions were rejected for what they are, each with the reason.
    pub(super) rejected: Vec<(PackageName, String)>,
}

type Tree = DerivationTree<Package, Ranges<Point>, String>;
type Fact = External<Package, Ranges<Point>, String>;
type Terms = Map<Package, Term<Ranges<Point>>>;
type Step = Derived<Package, Ranges<Point>, String>;

/// How many lines an explanation may have.
const LINES: usize = 60;

impl Conflict {
    pub(super) fn new(
        tree: Tree,
        question: &Question<'_>,
        listings: &Listings,
        rules: &Rules,
        index: &dyn Index,
    ) -> Self {
        let words = Words {
            points: listings
                .iter()
                .filter_map(|(name, it)| Some((name.clone(), it.as_ref().ok()?.points())))
                .collect(),
        };
        let mut facts = Vec::new();
        gather(&tree, &mut facts);
        let report = match &tree {
            // A constraint and a requirement that exclude each other are one empty range.
            DerivationTree::External(External::FromDependencyOf(Package::Root, _, package, _)) => {
                format!("no version of {package} meets all that is asked of it")
            }
            DerivationTree::External(fact) => words.format_external(fact),
            DerivationTree::Derived(_) => words
                .format_single(&facts)
                .unwrap_or_else(|| DefaultStringReporter::report_with_formatter(&tree, &words)),
        };
        let mut lines: Vec<&str> = report.lines().collect();
        if lines.len() > LINES {
            // The end is what it comes to.
            lines.drain(LINES / 2..lines.len() - LINES / 2);
            lines.insert(LINES / 2, "…");
        }
        let mut hints = Hints {
            question,
            listings,
            rules,
            index,
            lines: Vec::new(),
        };
        let mut named = BTreeSet::new();
        let mut rejected = Vec::new();
        for fact in &facts {
            if let External::Custom(package, _, reason) = fact
                && let Some(name) = package.name()
            {
                rejected.push((name.clone(), reason.clone()));
            }
            match fact {
                External::FromDependencyOf(Package::Root, _, package, _) => {
                    named.extend(package.name().cloned());
                }
                External::NoVersions(package, range) | External::Custom(package, range, _) => {
                    hints.add(package, range);
                }
                _ => {}
            }
        }
        let places = named.iter().flat_map(|name| {
            let places = places(question, name);
            places.map(|(place, text)| (place.clone(), text))
        });
        Self {
            explanation: lines.join("\n"),
            places: places.collect(),
            hints: hints.finish(),
            rejected,
        }
    }

    /// Says what there is, or what to do.
    pub(crate) fn help(&self) -> String {
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
            None => String::new(),
        };
        match package {
            Package::Root => package.to_string(),
            _ => format!("{package}{said}"),
        }
    }
}

impl Words {
    /// Writes one sentence where all that is wrong is one package that the user asks for.
    fn format_single(&self, facts: &[&Fact]) -> Option<String> {
        let (asked, rest): (Vec<&Fact>, Vec<&Fact>) = facts
            .iter()
            .partition(|it| matches!(it, External::FromDependencyOf(Package::Root, ..)));
        let [External::FromDependencyOf(_, _, package, range)] = asked[..] else {
            return None;
        };
        match rest[..] {
            [External::Custom(own, _, reason)] if own == package => {
                Some(format!("{package}{} {reason}", self.known(package, range)))
            }
            [fact @ External::NoVersions(own, _)] if own == package => {
                Some(self.format_external(fact))
            }
            _ => None,
        }
    }

    /// Describes a range of a package that is there; of another one, no version says anything.
    fn known(&self, package: &Package, range: &Ranges<Point>) -> String {
        let is_there = package
            .name()
            .is_some_and(|it| self.points.contains_key(it));
        match is_there {
            true => describe(range),
            false => String::new(),
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
