//! What is wrong with a manifest, where, and how to mend it. Gathered, and reported all at once.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::graph::{Origin, SourceText};

/// One thing that is wrong with a manifest.
#[derive(Clone, Debug)]
pub struct Problem {
    /// The name of the kind of problem, as `imgdecl::spec::index`.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub help: Option<String>,
    /// The manifest.
    pub source: Arc<SourceText>,
    /// Whether it may be there only because something else is wrong.
    may_follow: bool,
    /// The places in it, the first of which is where it is wrong, and what stands at each.
    pub labels: Vec<(Range<usize>, Option<String>)>,
}

impl Problem {
    /// Makes a problem at a place of a manifest. `label` stands at the underlined place.
    pub fn new(
        code: &'static str,
        source: &Arc<SourceText>,
        span: Range<usize>,
        message: impl Into<String>,
        label: impl Into<String>,
    ) -> Self {
        Self {
            code,
            message: message.into(),
            help: None,
            may_follow: false,
            source: source.clone(),
            labels: vec![(span, Some(label.into()).filter(|it| !it.is_empty()))],
        }
    }

    /// Makes a problem at an origin.
    pub fn at(
        code: &'static str,
        origin: &Origin,
        message: impl Into<String>,
        label: impl Into<String>,
    ) -> Self {
        Self::new(code, &origin.source, origin.span.clone(), message, label)
    }

    /// Says how to mend it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Says that it may follow from another problem: a target whose image is wrong has no base to ask, and two targets of
    /// one name close circles.
    #[must_use]
    pub fn may_follow(mut self) -> Self {
        self.may_follow = true;
        self
    }

    /// Adds the suggestion that [`suggest`] found, if any, as help.
    #[must_use]
    pub fn did_you_mean(self, near: Option<&str>) -> Self {
        match near {
            Some(near) => self.help(format!("did you mean `{near}`?")),
            None => self,
        }
    }

    /// Underlines another place of the same manifest.
    #[must_use]
    pub fn also(mut self, span: Range<usize>, label: impl Into<String>) -> Self {
        self.labels.push((span, Some(label.into())));
        self
    }

    fn sort_key(&self) -> (&str, usize, &'static str, &str) {
        let start = self.labels.first().map_or(0, |(span, _)| span.start);
        (&self.source.name, start, self.code, &self.message)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

/// All that is wrong, so far.
#[derive(Clone, Debug, Default)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Adds a problem.
    pub fn push(&mut self, problem: Problem) {
        self.0.push(problem);
    }

    /// Adds all of `other`.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// The same problems, which may follow from another one that is noted already.
    #[must_use]
    pub fn may_follow(self) -> Self {
        Self(self.0.into_iter().map(Problem::may_follow).collect())
    }

    /// Tells whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the problems in the order of the manifests, each once: a target that is lowered for several platforms
    /// has its problems several times.
    ///
    /// What may follow from another problem is told only where there is no other.
    pub fn into_sorted(mut self) -> Vec<Problem> {
        if self.0.iter().any(|it| !it.may_follow) {
            self.0.retain(|it| !it.may_follow);
        }
        self.0.sort_by(|a, b| a.sort_key().cmp(&b.sort_key()));
        self.0.dedup_by(|a, b| a.sort_key() == b.sort_key());
        self.0
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

/// Returns the one of `names` that `name` is most likely meant to be.
pub(crate) fn suggest<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let near = |other: &&str| {
        let distance = strsim::damerau_levenshtein(name, other);
        distance <= 1 + other.len().min(name.len()) / 4
            || (name.len() > 2 && other.starts_with(name))
    };
    names
        .into_iter()
        .filter(near)
        .min_by_key(|other| strsim::damerau_levenshtein(name, other))
}

/// Returns the one of the targets' `names` that `name` is most likely meant to be: also the one that is only addressed
/// in another way.
pub(crate) fn nearest<'a>(name: &str, names: &'a [String]) -> Option<&'a str> {
    let last = |it: &'a str| it.rsplit(':').next().unwrap_or_default();
    let wanted = name.rsplit(':').next().unwrap_or_default();
    let whole = suggest(name, names.iter().map(String::as_str));
    let near = || suggest(wanted, names.iter().map(|it| last(it)));
    let of = |near: &str| names.iter().map(String::as_str).find(|it| last(it) == near);
    of(wanted).or(whole).or_else(|| near().and_then(of))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_near_names_only() {
        let names = ["entrypoint", "env", "layers", "labels"];
        assert_eq!(suggest("entripoint", names), Some("entrypoint"));
        assert_eq!(suggest("layer", names), Some("layers"));
        assert_eq!(suggest("lables", names), Some("labels"));
        assert_eq!(suggest("volumes", names), None);
    }
}
