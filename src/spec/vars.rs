//! Variables: `${name}` in strings.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::Scope;
use super::problem::suggest;
use crate::oci::{Digest, Platform};
use crate::store::blob_of_file;

/// What the language asks of the host, besides files.
pub trait Host {
    /// Returns what git says of the work tree at `folder`: `commit`, `tag`, `dirty` or `time` (of the commit, in seconds
    /// since 1970).
    ///
    /// # Errors
    /// When there is no git, no repository, no commit or no tag.
    fn git(&self, folder: &std::path::Path, what: &str) -> Result<String, String>;

    /// Returns SOURCE_DATE_EPOCH, in seconds since 1970.
    fn source_date_epoch(&self) -> Option<u64>;

    /// Returns the platform whose images run on the host.
    fn platform(&self) -> Platform {
        Platform::new("linux", "amd64")
    }

    /// Returns a variable of the environment, which files of other tools may name; `None` for a host without one.
    fn variable(&self, name: &str) -> Option<String>;

    /// Returns the digest of a file's bytes. Whoever asks has seen that it is a regular file.
    ///
    /// # Errors
    /// When it cannot be read: says why.
    fn digest(&self, path: &std::path::Path) -> Result<Digest, String> {
        let blob = blob_of_file(path, &|_| true);
        let blob = blob.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        Ok(blob.digest)
    }
}

/// The variables that a table may use.
#[derive(Clone)]
pub struct Vars<'a> {
    pub(super) values: BTreeMap<String, String>,
    /// The variables of the environment that `[workspace]` lets in.
    pub(super) allowed: BTreeSet<String>,
    pub(super) host: &'a dyn Host,
    pub(super) folder: PathBuf,
}

/// A part of an expanded string.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Part {
    /// Text.
    Text(String),
    /// A name that is no variable of ours: the image below may have it in its environment. What follows it counts where that
    /// has no such name, or nothing under it.
    Base(String, Option<String>),
}

/// The names that have a value once there is a platform.
const PLATFORM: [&str; 4] = ["platform", "os", "arch", "variant"];
/// The names that git answers to.
pub(super) const GIT: [&str; 3] = ["git.commit", "git.tag", "git.dirty"];
/// What the names of variables of the environment begin with.
const ENV: &str = "env.";

/// A variable, as a string names it.
enum Found {
    /// It has a value.
    Value(String),
    /// It is known, and has none: why, and how to mend it.
    None(String, String),
    /// There is no variable of that name.
    Unknown,
}

impl Vars<'_> {
    /// Adds the variables of a platform.
    pub(super) fn set_platform(&mut self, platform: &Platform) {
        let variant = platform.variant.clone().unwrap_or_default();
        for (name, value) in [
            ("platform", platform.to_string()),
            ("os", platform.os.clone()),
            ("arch", platform.architecture.clone()),
            ("variant", variant),
        ] {
            self.values.insert(name.to_owned(), value);
        }
    }

    /// Expands a string in which every name must be known.
    ///
    /// # Errors
    /// What is wrong, and how to mend it.
    pub fn expand(&self, text: &str, scope: Scope) -> Result<String, (String, Option<String>)> {
        let mut out = String::new();
        for part in self.parts(text, scope)? {
            match part {
                Part::Text(text) => out.push_str(&text),
                Part::Base(name, _) if PLATFORM.contains(&name.as_str()) => {
                    let message = format!("`{name}` differs from platform to platform");
                    let help = "this is one value for all platforms of the image";
                    return Err((message, Some(help.to_owned())));
                }
                Part::Base(name, _) => {
                    let names = self.values.keys().map(String::as_str).chain(GIT);
                    let help = match suggest(&name, names) {
                        Some(near) => format!("did you mean `${{{near}}}`?"),
                        None => format!(
                            "write `$${{{name}}}` for the text itself, or add `{name}` to [vars]"
                        ),
                    };
                    return Err((format!("there is no variable `{name}`"), Some(help)));
                }
            }
        }
        Ok(out)
    }

    /// Expands a string, leaving names that are no variables.
    ///
    /// # Errors
    /// What is wrong, and how to mend it.
    pub fn parts(&self, text: &str, scope: Scope) -> Result<Vec<Part>, (String, Option<String>)> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            plain.push_str(&rest[..at]);
            rest = &rest[at..];
            if let Some(after) = rest.strip_prefix("$${") {
                plain.push_str("${");
                rest = after;
            } else if let Some(after) = rest.strip_prefix("${") {
                let Some((inside, after)) = after.split_once('}') else {
                    return Err((
                        "a `${` is not closed".into(),
                        Some("write `$${` for the text `${`".into()),
                    ));
                };
                rest = after;
                // As in a shell: what follows `:-` counts where there is no value, or an empty one.
                let (name, instead) = match inside.split_once(":-") {
                    Some((name, instead)) => (name, Some(instead)),
                    None => (inside, None),
                };
                match (self.lookup(name, scope)?, instead) {
                    (Found::Value(value), Some(instead)) if value.is_empty() => {
                        plain.push_str(instead);
                    }
                    (Found::Value(value), _) => plain.push_str(&value),
                    (Found::None(..), Some(instead)) => plain.push_str(instead),
                    (Found::None(message, help), None) => return Err((message, Some(help))),
                    (Found::Unknown, instead) => {
                        parts.push(Part::Text(std::mem::take(&mut plain)));
                        let instead = instead.map(str::to_owned);
                        parts.push(Part::Base(name.to_owned(), instead));
                    }
                }
            } else {
                plain.push('$');
                rest = &rest[1..];
            }
        }
        plain.push_str(rest);
        parts.push(Part::Text(plain));
        parts.retain(|part| *part != Part::Text(String::new()));
        Ok(parts)
    }

    /// Looks a variable up.
    ///
    /// # Errors
    /// When it cannot be used here at all: why, and how to mend it.
    fn lookup(&self, name: &str, scope: Scope) -> Result<Found, (String, Option<String>)> {
        if let Some(variable) = name.strip_prefix(ENV) {
            return self.of_environment(variable);
        }
        let what = name.strip_prefix("git.").filter(|_| GIT.contains(&name));
        let Some(what) = what else {
            let value = self.values.get(name).cloned();
            return Ok(value.map_or(Found::Unknown, Found::Value));
        };
        if scope != Scope::Stamped {
            let help = "it changes with every commit, and would make every layer anew: use it in labels, annotations and tags";
            return Err((format!("`{name}` is not allowed here"), Some(help.into())));
        }
        if let Some(value) = self.values.get(name) {
            return Ok(Found::Value(value.clone()));
        }
        Ok(match self.host.git(&self.folder, what) {
            Ok(value) => Found::Value(value),
            Err(error) => Found::None(
                format!("`{name}` has no value: {error}"),
                format!(
                    "`--set {name}=VALUE` gives it one, and `${{{name}:-VALUE}}` is one for where git has none"
                ),
            ),
        })
    }

    /// Looks a variable of the environment up: the root's manifest must list it, so that it is seen what a build depends on.
    fn of_environment(&self, name: &str) -> Result<Found, (String, Option<String>)> {
        if !self.allowed.contains(name) {
            let near = suggest(name, self.allowed.iter().map(String::as_str));
            let help = match near {
                Some(near) => format!("did you mean `${{{ENV}{near}}}`?"),
                None => format!(
                    "list it in the root's image.toml:\n    [workspace]\n    env = [\"{name}\"]"
                ),
            };
            let message = format!("`{name}` of the environment is not let in");
            return Err((message, Some(help)));
        }
        let own = format!("{ENV}{name}");
        let value = self.values.get(&own).cloned();
        Ok(match value.or_else(|| self.host.variable(name)) {
            Some(value) => Found::Value(value),
            None => Found::None(
                format!("the environment has no `{name}`"),
                format!("set it, or write `${{{own}:-VALUE}}` for where it has none"),
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake;

    impl Host for Fake {
        fn variable(&self, name: &str) -> Option<String> {
            (name == "CI_JOB").then(|| "17".to_owned())
        }

        fn git(&self, _: &std::path::Path, what: &str) -> Result<String, String> {
            Ok(format!("<{what}>"))
        }

        fn source_date_epoch(&self) -> Option<u64> {
            None
        }
    }

    struct Silent;

    impl Host for Silent {
        fn git(&self, _: &std::path::Path, what: &str) -> Result<String, String> {
            Err(format!("no {what}"))
        }

        fn source_date_epoch(&self) -> Option<u64> {
            None
        }

        fn variable(&self, _: &str) -> Option<String> {
            None
        }
    }

    fn vars() -> Vars<'static> {
        let values = BTreeMap::from([("tag".to_owned(), "v1".to_owned())]);
        let allowed = ["CI_JOB", "CI_TAG"].map(str::to_owned).into();
        let mut vars = Vars {
            values,
            allowed,
            host: &Fake,
            folder: PathBuf::new(),
        };
        vars.set_platform(&"linux/arm64/v8".parse().unwrap());
        vars
    }

    #[test]
    fn expands() {
        let expand = |text| vars().expand(text, Scope::Plain).unwrap();
        assert_eq!(
            expand("a-${tag}-${os}-${arch}-${variant}-${platform}"),
            "a-v1-linux-arm64-v8-linux/arm64/v8"
        );
        assert_eq!(expand("$${tag} $tag $$ $"), "${tag} $tag $$ $");
        assert_eq!(
            vars().expand("${git.commit}", Scope::Stamped).unwrap(),
            "<commit>"
        );
        assert_eq!(
            vars().expand("${git.tag:-dev}", Scope::Stamped).unwrap(),
            "<tag>"
        );
        for text in ["${tga}", "${", "${git.commit}", "${git.tag:-dev}", "${}"] {
            assert!(vars().expand(text, Scope::Plain).is_err(), "{text}");
        }
    }

    #[test]
    fn where_git_says_nothing_there_is_another_value() {
        let nothing = Vars {
            host: &Silent,
            ..vars()
        };
        let expand = |text: &str| nothing.expand(text, Scope::Stamped);
        assert_eq!(expand("${git.tag:-dev}${git.dirty:-}").unwrap(), "dev");
        let (message, help) = expand("${git.tag}").unwrap_err();
        assert_eq!(message, "`git.tag` has no value: no tag");
        assert!(help.unwrap().contains("--set git.tag=VALUE"));
        let mut set = nothing.clone();
        set.values.insert("git.tag".into(), "v2".into());
        assert_eq!(set.expand("${git.tag}", Scope::Stamped).unwrap(), "v2");
        assert!(set.expand("${git.tag}", Scope::Plain).is_err());
    }

    #[test]
    fn every_variable_may_have_a_default() {
        let mut vars = vars();
        vars.values.insert("variant".into(), String::new());
        let expand = |text: &str| vars.expand(text, Scope::Stamped);
        assert_eq!(expand("${tag:-x}-${variant:-v1}").unwrap(), "v1-v1");
        assert_eq!(expand("${git.dirty:-}").unwrap(), "<dirty>");
        // A default is no reason to take a slip for a name.
        let (message, help) = expand("${tga:-x}").unwrap_err();
        assert_eq!(message, "there is no variable `tga`");
        assert!(help.unwrap().contains("${tag}"));
        let parts = vars.parts("${HOME:-/root}", Scope::Plain).unwrap();
        assert_eq!(parts, [Part::Base("HOME".into(), Some("/root".to_owned()))]);
    }

    #[test]
    fn the_environment_is_let_in_by_name() {
        let expand = |text: &str| vars().expand(text, Scope::Plain);
        assert_eq!(
            expand("${env.CI_JOB}-${env.CI_TAG:-none}").unwrap(),
            "17-none"
        );
        let (message, help) = expand("${env.CI_TAG}").unwrap_err();
        assert_eq!(message, "the environment has no `CI_TAG`");
        assert!(help.unwrap().contains("${env.CI_TAG:-VALUE}"));
        for name in ["HOME", "CI_JOBS"] {
            let (message, _) = expand(&format!("${{env.{name}:-x}}")).unwrap_err();
            assert_eq!(
                message,
                format!("`{name}` of the environment is not let in")
            );
        }
        let mut set = vars();
        set.values.insert("env.CI_TAG".into(), "v3".into());
        assert_eq!(set.expand("${env.CI_TAG}", Scope::Plain).unwrap(), "v3");
    }

    #[test]
    fn parts_keep_unknown_names() {
        let parts = vars()
            .parts("/x:${PATH}:${tag}$${HOME}", Scope::Plain)
            .unwrap();
        assert_eq!(
            parts,
            [
                Part::Text("/x:".into()),
                Part::Base("PATH".into(), None),
                Part::Text(":v1${HOME}".into())
            ]
        );
    }
}
