//! What a token allows: `repository:NAME:pull,push` (distribution, "Token Scope Documentation"). Knows no token.

use std::collections::BTreeSet;
use std::fmt;

/// What may be done with one repository.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Scope {
    /// The kind and name, as `repository:library/python`.
    resource: String,
    actions: BTreeSet<String>,
}

impl Scope {
    pub(super) fn pull(repository: &str) -> Self {
        Self::new(repository, &["pull"])
    }

    pub(super) fn push(repository: &str) -> Self {
        Self::new(repository, &["pull", "push"])
    }

    fn new(repository: &str, actions: &[&str]) -> Self {
        Self {
            resource: format!("repository:{repository}"),
            actions: actions.iter().map(|&it| it.to_owned()).collect(),
        }
    }

    /// Parses a list, separated by spaces, as a challenge has it.
    pub(super) fn parse(text: &str) -> Vec<Self> {
        let one = |text: &str| {
            let (resource, actions) = text.rsplit_once(':')?;
            Some(Self {
                resource: resource.to_owned(),
                actions: actions.split(',').map(str::to_owned).collect(),
            })
        };
        text.split_whitespace().filter_map(one).collect()
    }

    /// Tells whether nothing but reading is asked.
    pub(super) fn is_read_only(&self) -> bool {
        self.actions.iter().all(|action| action == "pull")
    }

    /// Tells whether `self` allows all that `other` does.
    fn covers(&self, other: &Self) -> bool {
        self.resource == other.resource && self.actions.is_superset(&other.actions)
    }
}

/// Tells whether `have` allows all that `want` does.
pub(super) fn cover(have: &[Scope], want: &[Scope]) -> bool {
    want.iter()
        .all(|want| have.iter().any(|have| have.covers(want)))
}

/// Joins scopes: those that a challenge misses come first, because some registries read the first alone.
pub(super) fn join(missing: &[Scope], have: &[Scope]) -> Vec<Scope> {
    let mut joined: Vec<Scope> = Vec::new();
    for scope in missing.iter().chain(have) {
        match joined.iter_mut().find(|it| it.resource == scope.resource) {
            Some(there) => there.actions.extend(scope.actions.iter().cloned()),
            None => joined.push(scope.clone()),
        }
    }
    joined
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let actions: Vec<&str> = self.actions.iter().map(String::as_str).collect();
        write!(f, "{}:{}", self.resource, actions.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_joined_the_missing_first() {
        let have = [Scope::push("a/b"), Scope::pull("c")];
        let missing = Scope::parse("repository:c:pull,delete repository:d:pull junk");
        assert!(!cover(&have, &missing));
        let joined = join(&missing, &have);
        let texts: Vec<String> = joined.iter().map(ToString::to_string).collect();
        let expected = [
            "repository:c:delete,pull",
            "repository:d:pull",
            "repository:a/b:pull,push",
        ];
        assert_eq!(texts, expected);
        assert!(cover(&joined, &missing) && cover(&joined, &have));
        assert!(Scope::pull("a").is_read_only() && !Scope::push("a").is_read_only());
    }
}
