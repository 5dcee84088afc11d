//! Which targets a list of words means: names, patterns, and what is left out of them.

use std::collections::BTreeSet;

use globset::{GlobBuilder, GlobMatcher};

use super::{Spec, Target, TargetId};

/// The targets that a list of words means.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Chosen {
    /// Those that are named, and those that patterns match. All, if the list is empty, or only says what is left out.
    pub(crate) targets: Vec<TargetId>,
    /// Those that are left out.
    pub(crate) except: Vec<TargetId>,
    /// Those of `targets` that a word names letter for letter.
    pub(crate) named: BTreeSet<TargetId>,
}

impl Chosen {
    /// Chooses these targets and no others.
    pub(crate) fn of(targets: Vec<TargetId>) -> Self {
        Self {
            targets,
            ..Self::default()
        }
    }
}

/// Why a word means no target: what is wrong, and how to mend it.
type Unknown = (String, Option<String>);

/// A pattern for targets, as `web-*` or `services/*:*`.
struct Pattern {
    member: Option<GlobMatcher>,
    name: GlobMatcher,
}

impl Pattern {
    /// Reads a pattern; `None` where a word is a plain name.
    fn parse(word: &str) -> Result<Option<Self>, Unknown> {
        if !word.contains(['*', '?', '[', '{']) {
            return Ok(None);
        }
        let glob = |text: &str| {
            let mut glob = GlobBuilder::new(text);
            let glob = glob.literal_separator(true).empty_alternates(true).build();
            let help = "`*` stands for a part of a name or of a folder's, `**` for any folders";
            glob.map(|it| it.compile_matcher())
                .map_err(|_| (format!("`{word}` is no pattern"), Some(help.to_owned())))
        };
        Ok(Some(match word.split_once(':') {
            Some((member, name)) => Self {
                member: Some(glob(member)?),
                name: glob(name)?,
            },
            None => Self {
                member: None,
                name: glob(word)?,
            },
        }))
    }

    /// Tells whether it means a target, where it stands in `home`: without a member, those of home and, at the root, all.
    fn means(&self, id: &TargetId, home: &str) -> bool {
        let is_there = match &self.member {
            Some(member) => member.is_match(&id.member),
            None => home.is_empty() || id.member == home,
        };
        is_there && self.name.is_match(&id.name)
    }
}

impl Spec {
    /// Returns which targets words mean that were typed at home: names, patterns for those that `is_any` admits, and `!`
    /// before what is left out. `fits` says which targets names are likely meant for.
    ///
    /// # Errors
    /// The number of the word that means none, with what is wrong.
    pub(crate) fn choose<'a>(
        &self,
        words: impl IntoIterator<Item = &'a str>,
        fits: impl Fn(&Target) -> bool,
        is_any: impl Fn(&Target) -> bool,
    ) -> Result<Chosen, (usize, Unknown)> {
        let mut chosen = Chosen::default();
        for (number, word) in words.into_iter().enumerate() {
            let (word, is_out) = match word.strip_prefix('!') {
                Some(word) => (word, true),
                None => (word, false),
            };
            let found = match self.matching(&self.home, word, &is_any) {
                Ok(Some(found)) => Ok(found),
                Ok(None) => self.resolve_typed(word, &fits).map(|id| {
                    if !is_out {
                        chosen.named.insert(id.clone());
                    }
                    vec![id]
                }),
                Err(error) => Err(error),
            };
            let found = found.map_err(|error| (number, error))?;
            match is_out {
                true => chosen.except.extend(found),
                false => chosen.targets.extend(found),
            }
        }
        Ok(chosen)
    }

    /// Returns the targets that a pattern means which stands in a member, of those that `is_any` admits, sorted; `None` where
    /// it is no pattern.
    ///
    /// # Errors
    /// When it is wrong, or means nothing.
    pub(crate) fn matching(
        &self,
        member: &str,
        word: &str,
        is_any: impl Fn(&Target) -> bool,
    ) -> Result<Option<Vec<TargetId>>, Unknown> {
        let Some(pattern) = Pattern::parse(word)? else {
            return Ok(None);
        };
        let all = self.targets().filter(|it| is_any(it));
        let found = all.filter(|it| pattern.means(&it.id, member));
        let found: Vec<TargetId> = found.map(|it| it.id.clone()).collect();
        if !found.is_empty() {
            return Ok(Some(found));
        }
        let names: Vec<String> = self
            .targets()
            .filter(|it| is_any(it))
            .map(|it| it.id.to_string())
            .collect();
        let help = format!("there are {}", names.join(", "));
        let message = format!("`{word}` matches no image");
        Err((message, (!names.is_empty()).then_some(help)))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A workspace of a root and two members.
    fn spec(home: &str) -> (tempfile::TempDir, Spec) {
        let folder = tempfile::tempdir().unwrap();
        let images = |names: &[&str]| -> String {
            let table = |name: &&str| format!("[image.{name}]\nbase = \"scratch\"\n");
            names.iter().map(table).collect()
        };
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let workspace = "[workspace]\nmembers = [\"services/*\"]\n";
        let group = "[group.web]\nimages = [\"web-api\", \"web-test\"]\n";
        let root = images(&["web-api", "web-test"]);
        write("image.toml", &format!("{workspace}{group}{root}"));
        write("services/a/image.toml", &images(&["api", "job"]));
        write("services/b/image.toml", &images(&["api"]));
        let path = folder.path().join(home).join("image.toml");
        let spec = Spec::load(&path, &["image", "group"], &[]).unwrap();
        (folder, spec)
    }

    fn names(ids: &[TargetId]) -> Vec<String> {
        ids.iter().map(ToString::to_string).collect()
    }

    fn choose(home: &str, words: &[&str]) -> Result<Chosen, (usize, Unknown)> {
        let (_folder, spec) = spec(home);
        spec.choose(words.iter().copied(), |_| true, |it| it.rule == 0)
    }

    #[test]
    fn patterns_mean_targets() {
        for (home, word, expected) in [
            ("", "web-*", &["web-api", "web-test"][..]),
            ("", "api", &[][..]),
            ("", "a*", &["services/a:api", "services/b:api"]),
            ("", "services/*:api", &["services/a:api", "services/b:api"]),
            ("", "services/a:*", &["services/a:api", "services/a:job"]),
            ("", "{services/b,}:*api", &["web-api", "services/b:api"]),
            ("services/a", "*", &["services/a:api", "services/a:job"]),
            ("services/a", ":*", &["web-api", "web-test"]),
        ] {
            match choose(home, &[word]) {
                Ok(chosen) => {
                    assert_eq!(names(&chosen.targets), expected, "{word}");
                    assert!(chosen.named.is_empty() && chosen.except.is_empty());
                }
                Err((0, (message, _))) if expected.is_empty() => {
                    assert!(message.contains("could be any of"), "{message}");
                }
                Err(error) => panic!("{word}: {error:?}"),
            }
        }
    }

    #[test]
    fn what_is_left_out_is_said_with_a_mark() {
        let chosen = choose("", &["web", "!web-t*", "!services/a:job"]).unwrap();
        assert_eq!(names(&chosen.targets), ["web"]);
        assert_eq!(names(&chosen.except), ["web-test", "services/a:job"]);
        assert_eq!(Vec::from_iter(chosen.named), chosen.targets);
    }

    #[test]
    fn a_word_that_means_nothing_is_told() {
        let (number, (message, help)) = choose("", &["web", "!wab-*"]).unwrap_err();
        assert_eq!((number, message.as_str()), (1, "`wab-*` matches no image"));
        assert!(help.unwrap().contains("services/a:api"));
        let (_, (message, _)) = choose("", &["web-["]).unwrap_err();
        assert_eq!(message, "`web-[` is no pattern");
    }
}
