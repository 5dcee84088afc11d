//! The rules: one file each. A rule says which keys its tables have, and lowers a table to nodes of the graph.
//!
//! A new rule is a file, a line in [`RULES`], and a case in `golden/rule/`. Knows nothing of threads, HTTP or terminals.

mod base;
mod command;
mod dockerignore;
mod document;
mod ecosystem;
mod files;
mod from;
mod group;
mod host;
mod http;
mod image;
mod layer;
mod left_out;
mod lend;
mod lower;
mod modes;
mod new_people;
mod patterns;
mod pip;
mod reference;
mod scan;
mod tar;
#[cfg(test)]
mod toy_document_testing;
#[cfg(test)]
mod toy_ecosystem_testing;
#[cfg(test)]
mod toy_rule_testing;
mod users;
mod value;
mod walk;

pub(crate) use base::{BaseUsers, OnDisk};
pub(crate) use document::documents;
use ecosystem::Ecosystem;
pub(crate) use host::digest_of;
pub(crate) use image::{
    ImageNodes, Names, fetch as fetch_layers, images, index, names as image_names, platforms,
};
pub(crate) use lend::{Cache, lend};
pub(crate) use lower::{BaseNodes, Below, Draft, Given, LayerTrees, Lower, Lowered, Need, OnUsers};
pub(crate) use reference::{TABLES, reference, reference_of_table, schema, table_of_rules};
#[cfg(test)]
pub(crate) use toy_ecosystem_testing::connect;

use std::collections::BTreeSet;
use std::path::Path;

use crate::graph::{ActionError, Context};
use crate::lock::{Form, Lock};
use crate::spec::{Key, Problems, Target};

/// What the targets of a rule are: it decides where their names may stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Images to build on.
    Base,
    /// Layers of images.
    Layer,
    /// Images.
    Image,
    /// Names for images.
    Group,
}

impl Role {
    /// Returns what a target is.
    pub(crate) fn of(target: &Target) -> Self {
        RULES[target.rule].role()
    }
}

/// A rule.
pub trait Rule: Sync {
    /// Returns the name, as it stands in `[NAME.TARGET]`.
    fn name(&self) -> &'static str;

    /// Returns what the rule's targets are.
    fn role(&self) -> Role;

    /// Says in a few words what the rule makes.
    fn summary(&self) -> &'static str;

    /// Returns the source file, whose head is the user's reference.
    fn source(&self) -> &'static str;

    /// Returns the keys of the rule's tables.
    fn keys(&self) -> &'static [Key];

    /// Returns the names of the fields that the rule reads its tables into: the keys, but for lists of layers.
    fn fields(&self) -> Vec<&'static str>;

    /// Tells whether what a target becomes depends on what lies below it in an image. Who says no sees nothing of it.
    fn looks_below(&self) -> bool {
        false
    }

    /// Lowers a target, for the platform of `lower` and onto what lies below there, to nodes.
    ///
    /// # Errors
    /// What is wrong with the target's table.
    fn lower(&self, target: &Target, lower: &mut Lower<'_>) -> Result<Lowered, Problems>;

    /// Returns the kind of packages that it brings, if it brings packages.
    fn ecosystem(&self) -> Option<&'static dyn Ecosystem> {
        None
    }

    /// Returns the form of what its targets are pinned to, if it pins anything.
    fn form(&self) -> Option<&'static dyn Form> {
        None
    }

    /// Pins what one target needs, for all platforms: writes its entry of `lock`. What is pinned already stays, but with
    /// `update` names are resolved again.
    ///
    /// # Errors
    /// When something cannot be resolved.
    fn pin(
        &self,
        needs: &[&Need],
        update: bool,
        context: &Context<'_>,
        lock: &mut Lock,
    ) -> Result<(), ActionError> {
        let _ = (needs, update, context, lock);
        Ok(())
    }

    /// Returns the names of the packages that a target is pinned to.
    fn packages(&self, lock: &Lock, target: &str) -> BTreeSet<String> {
        let _ = (lock, target);
        BTreeSet::new()
    }

    /// Takes a package out of what a target is pinned to, so that it is resolved again while all others stay where they
    /// are.
    fn forget(&self, lock: &mut Lock, target: &str, package: &str) {
        let _ = (lock, target, package);
    }

    /// Gives the cache `to` all that `from` has of what the rule's targets are pinned to. Each blob is hashed.
    ///
    /// # Errors
    /// When a store cannot be read or written, or something is damaged.
    fn lend(&self, lock: &Lock, from: Cache<'_>, to: Cache<'_>) -> Result<(), ActionError> {
        let _ = (lock, from, to);
        Ok(())
    }

    /// Tells whether the rule can write its pins in the form of another tool's lock.
    fn exports(&self) -> bool {
        false
    }

    /// Writes what one target is pinned to, for all platforms, in the form of another tool's lock, which will lie in
    /// `folder`. `None` where there is no such form.
    ///
    /// # Errors
    /// When that form cannot hold it, or where something is cannot be said.
    fn export(
        &self,
        needs: &[&Need],
        context: &Context<'_>,
        lock: &Lock,
        folder: &Path,
    ) -> Result<Option<String>, ActionError> {
        let _ = (needs, context, lock, folder);
        Ok(None)
    }
}

/// All rules, in the order of the reference.
pub const RULES: &[&dyn Rule] = &[
    &base::Base,
    &files::Files,
    &tar::Tar,
    &http::Http,
    &pip::Pip,
    &command::Command,
    &image::Image,
    &group::Group,
    #[cfg(test)]
    &toy_rule_testing::Motd,
    #[cfg(test)]
    &toy_ecosystem_testing::Seed,
];

/// Returns the names of all rules.
pub fn names() -> Vec<&'static str> {
    RULES.iter().map(|rule| rule.name()).collect()
}

/// Returns the forms of all that is pinned, in the order of the rules.
pub(crate) fn forms() -> Vec<&'static dyn Form> {
    RULES.iter().filter_map(|rule| rule.form()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Type;

    #[test]
    fn every_rule_is_whole() {
        let mut names = names();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), RULES.len(), "names are unique");
        for rule in RULES {
            let name = rule.name();
            let golden = format!(
                "{}/golden/rule/{name}/image.toml",
                env!("CARGO_MANIFEST_DIR")
            );
            // Toys are in no program, and have no cases.
            let is_toy = matches!(name, "motd" | "seed");
            assert!(
                is_toy || std::path::Path::new(&golden).is_file(),
                "no golden case {golden}"
            );
            let text = reference(*rule);
            assert!(
                text.contains("```toml"),
                "the reference of `{name}` has no example"
            );
            for key in rule.keys() {
                assert!(
                    text.contains(&format!("`{}`", key.name)),
                    "the reference of `{name}` lacks `{}`",
                    key.name
                );
                assert!(!key.doc.is_empty());
            }
        }
    }

    /// The keys, from which come checks, reference and schema, are the fields of the struct that is read.
    #[test]
    fn keys_are_the_fields_of_the_struct() {
        for rule in RULES {
            let keys: Vec<&str> = rule
                .keys()
                .iter()
                .filter(|key| !matches!(key.kind, Type::Layers))
                .map(|key| key.name)
                .collect();
            let mut fields = rule.fields();
            let mut sorted = keys.clone();
            fields.sort_unstable();
            sorted.sort_unstable();
            assert_eq!(sorted, fields, "rule `{}`", rule.name());
        }
    }
}
