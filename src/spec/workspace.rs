//! All that the manifests of a build say: targets and their names, variables, defaults.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;

use super::vars::{Host, Vars};
use super::{Key, Problems, Table, Type, nearest};
use crate::oci::{Compression, Flavour, Platform};

/// The file name of a manifest.
pub(crate) const MANIFEST: &str = "image.toml";

/// All that the manifests say.
pub struct Spec {
    /// The workspace's root folder: absolute, without symlinks.
    pub root: PathBuf,
    /// The member whose manifest was named; the root's is empty.
    pub home: String,
    /// The members by name. The root has the empty name.
    pub members: BTreeMap<String, Member>,
    /// What is wrong so far. The rest can be read all the same, so that all problems come out at once.
    pub problems: Problems,
    /// `[index]` of the root.
    pub(super) index: Option<Table>,
    /// The variables of the environment that the root lets in.
    pub(super) allowed: BTreeSet<String>,
    /// What the root builds where nothing is named, and the table that says it.
    pub(crate) default: Option<(Vec<Spanned<String>>, Table)>,
}

/// One manifest.
pub struct Member {
    /// The folder of the manifest: absolute, without symlinks.
    pub folder: PathBuf,
    /// The manifest's file: absolute, without symlinks in its folder.
    pub manifest: PathBuf,
    pub(super) defaults: Option<Table>,
    pub(super) vars: BTreeMap<String, String>,
    pub(super) targets: BTreeMap<String, Target>,
    /// The names that several targets want.
    pub(super) taken: BTreeSet<String>,
}

/// The name of a target: the member that holds it, and its name there.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct TargetId {
    /// The member; empty for the root.
    pub member: String,
    /// The name.
    pub name: String,
}

impl std::fmt::Display for TargetId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.member.is_empty() {
            true => f.write_str(&self.name),
            false => write!(f, "{}:{}", self.member, self.name),
        }
    }
}

/// One target.
#[derive(Clone)]
pub struct Target {
    /// Its name.
    pub id: TargetId,
    /// The index of its rule in the list of rules.
    pub rule: usize,
    /// Its table.
    pub table: Table,
    /// The folder of its manifest.
    pub folder: PathBuf,
}

/// What `[defaults]` says.
#[derive(Clone, Deserialize, Default, Debug)]
#[serde(deny_unknown_fields)]
pub struct Defaults {
    /// The platforms of every image.
    pub platforms: Option<Vec<Spanned<String>>>,
    /// The prefix of every image's repository.
    pub repository: Option<Spanned<String>>,
    /// How layers are compressed.
    pub compression: Option<String>,
    /// Whose media types images have.
    pub media_types: Option<Spanned<String>>,
    /// When images were created.
    pub created: Option<Spanned<String>>,
}

/// The keys of `[defaults]`.
pub(super) const DEFAULTS: &[Key] = &[
    Key::new(
        "platforms",
        Type::Strings,
        "[\"linux/amd64\"]",
        "The platforms of every image. Never guessed from the host.",
    ),
    Key::new(
        "repository",
        Type::String,
        "",
        "Where images are kept, as `registry/team`. `/NAME` follows for each image, unless `${target}` says where the name goes.",
    ),
    Key::new(
        "compression",
        Type::OneOf(&Compression::NAMES),
        "\"gzip\"",
        "How new layers are compressed.",
    ),
    Key::new(
        "media_types",
        Type::OneOf(&Flavour::NAMES),
        "\"oci\"",
        "Whose media types manifests, configs and layers have.",
    ),
    Key::new(
        "created",
        Type::String,
        "\"1970-01-01T00:00:00Z\"",
        "The time in the image's config (RFC 3339), or \"git\" for that of the commit. SOURCE_DATE_EPOCH overrides it.",
    ),
];

/// What `[index]` says: where Python packages come from.
#[derive(Clone, Deserialize, Debug, Default)]
#[serde(deny_unknown_fields)]
pub struct IndexTable {
    /// The index that is asked last.
    pub url: Option<Spanned<String>>,
    /// The indexes that are asked before it, in this order.
    #[serde(default)]
    pub extra: Vec<Spanned<String>>,
    /// The index that alone is asked, by the name of a package, or `PREFIX-*`.
    #[serde(default)]
    pub packages: BTreeMap<String, Spanned<String>>,
}

/// The keys of `[index]`.
pub(super) const INDEX: &[Key] = &[
    Key::new(
        "url",
        Type::String,
        "",
        "The package index that is asked last. What pip or uv of the host would ask, if nothing is said.",
    ),
    Key::new(
        "extra",
        Type::Strings,
        "[]",
        "Package indexes that are asked before it, in this order. A package comes from the first one that has it.",
    ),
    Key::new(
        "packages",
        Type::StringMap,
        "{}",
        "The index that alone is asked for a package, by its name, or for all with a beginning, as \"acme-*\".",
    ),
];

/// The keys of `[workspace]`.
pub(super) const WORKSPACE: &[Key] = &[
    Key::new(
        "members",
        Type::Strings,
        "[]",
        "The folders of the members, each with an image.toml of its own. `*` stands for one folder.",
    ),
    Key::new(
        "default",
        Type::Strings,
        "",
        "What is built at the root where nothing is named, as in the command line: names, patterns as \"web-*\" and \"services/*:*\", and `!` before what is left out. All images, if nothing is said.",
    ),
    Key::new(
        "env",
        Type::Strings,
        "[]",
        "The variables of the environment that manifests may use, as ${env.NAME}.",
    ),
];

/// What `[workspace]` says of its root and all members.
#[derive(Clone, Deserialize, Default, Debug)]
#[serde(deny_unknown_fields)]
pub(crate) struct WorkspaceTable {
    /// The folders of the members.
    #[serde(default)]
    pub(super) members: Vec<Spanned<String>>,
    /// What is built where nothing is named.
    pub(super) default: Option<Vec<Spanned<String>>>,
    /// The variables of the environment that are let in.
    #[serde(default)]
    pub(super) env: Vec<Spanned<String>>,
}

/// Returns the tables of a manifest that are no rules, for the reference and the schema.
pub(crate) fn top_level() -> [(&'static str, &'static str, &'static [Key]); 3] {
    [
        (
            "defaults",
            "What every image of the file, and of a workspace's members, has unless it says otherwise.",
            DEFAULTS,
        ),
        (
            "index",
            "Where Python packages come from. It stands in the root of a workspace.",
            INDEX,
        ),
        (
            "workspace",
            "Makes this file the root of a monorepo, and says what holds for all of it.",
            WORKSPACE,
        ),
    ]
}

impl Spec {
    /// Returns a target.
    pub fn target(&self, id: &TargetId) -> Option<&Target> {
        self.members.get(&id.member)?.targets.get(&id.name)
    }

    /// Tells whether several targets want the name of one: then another one may be meant, and that is told already.
    pub fn is_taken(&self, id: &TargetId) -> bool {
        let member = self.members.get(&id.member);
        member.is_some_and(|it| it.taken.contains(&id.name))
    }

    /// Returns all targets, sorted by name.
    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        self.members
            .values()
            .flat_map(|member| member.targets.values())
    }

    /// Resolves a name that a target of `member` uses: its own targets, those of the root that `is_shared` admits,
    /// `MEMBER:NAME`, and `:NAME` for all of the root's. `None` if there is no such target.
    pub fn resolve(
        &self,
        member: &str,
        name: &str,
        is_shared: impl Fn(&Target) -> bool,
    ) -> Option<TargetId> {
        let (member, own, is_short) = match name.split_once(':') {
            Some((member, name)) => (member, name, false),
            None => (member, name, true),
        };
        let id = |member: &str| TargetId {
            member: member.to_owned(),
            name: own.to_owned(),
        };
        if self.target(&id(member)).is_some() {
            return Some(id(member));
        }
        let shared = self
            .target(&id(""))
            .filter(|target| is_short && is_shared(target));
        shared.map(|target| target.id.clone())
    }

    /// Returns the names by which a target of `member` can use others: those that fit.
    pub fn names_from(
        &self,
        member: &str,
        is_shared: impl Fn(&Target) -> bool,
        fits: impl Fn(&Target) -> bool,
    ) -> Vec<String> {
        let name = |target: &Target| match target.id.member.as_str() {
            home if home == member => target.id.name.clone(),
            "" if is_shared(target) => target.id.name.clone(),
            "" => format!(":{}", target.id.name),
            _ => target.id.to_string(),
        };
        self.targets()
            .filter(|target| fits(target))
            .map(name)
            .collect()
    }

    /// Resolves a name that the user typed: as at home, or of any member if it is unambiguous among those that fit.
    ///
    /// # Errors
    /// What is wrong, and how to mend it.
    pub fn resolve_typed(
        &self,
        name: &str,
        fits: impl Fn(&Target) -> bool,
    ) -> Result<TargetId, (String, Option<String>)> {
        if let Some(id) = self.resolve(&self.home, name, |_| true) {
            return Ok(id);
        }
        let found: Vec<&TargetId> = self
            .targets()
            .filter(|target| target.id.name == name && fits(target))
            .map(|target| &target.id)
            .collect();
        match found[..] {
            [id] => Ok(id.clone()),
            [] => {
                let names = self.names_from(&self.home, |_| true, &fits);
                let near = nearest(name, &names).map(|near| format!("did you mean `{near}`?"));
                Err((format!("there is no target `{name}`"), near))
            }
            _ => {
                let all: Vec<String> = found.iter().map(|id| format!("`{id}`")).collect();
                Err((
                    format!("`{name}` could be any of {}", all.join(", ")),
                    Some("write it with its member".into()),
                ))
            }
        }
    }

    /// Returns the name that people use: short where it is unambiguous.
    pub fn short_name(&self, id: &TargetId) -> String {
        match self.targets().filter(|it| it.id.name == id.name).count() {
            1 => id.name.clone(),
            _ => id.to_string(),
        }
    }

    /// Returns the variables that a target may use, for a platform if it is lowered for one.
    pub fn vars<'a>(
        &self,
        id: &TargetId,
        platform: Option<&Platform>,
        host: &'a dyn Host,
    ) -> Vars<'a> {
        let member = self.members.get(&id.member);
        let mut vars = Vars {
            values: member.map(|it| it.vars.clone()).unwrap_or_default(),
            allowed: self.allowed.clone(),
            host,
            folder: member.map(|it| it.folder.clone()).unwrap_or_default(),
        };
        vars.values.insert("target".into(), id.name.clone());
        if let Some(platform) = platform {
            vars.set_platform(platform);
        }
        vars
    }

    /// Returns `[index]` of the root, and its table.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn index(&self, host: &dyn Host) -> Result<Option<(IndexTable, Table)>, Problems> {
        let Some(table) = &self.index else {
            return Ok(None);
        };
        let id = TargetId {
            member: String::new(),
            name: String::new(),
        };
        let index = table.read(INDEX, &self.vars(&id, None, host))?;
        Ok(Some((index, table.clone())))
    }

    /// Returns the `[defaults]` of a target: its member's, and the root's where that says nothing; with the table that
    /// holds each, for messages.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn defaults(
        &self,
        id: &TargetId,
        vars: &Vars<'_>,
    ) -> Result<(Defaults, Option<Table>), Problems> {
        let mut all = Defaults::default();
        let mut last = None;
        for member in [id.member.as_str(), ""] {
            let Some(table) = self.members.get(member).and_then(|it| it.defaults.as_ref()) else {
                continue;
            };
            let own: Defaults = table.read(DEFAULTS, vars)?;
            all = Defaults {
                platforms: all.platforms.or(own.platforms),
                repository: all.repository.or(own.repository),
                compression: all.compression.or(own.compression),
                media_types: all.media_types.or(own.media_types),
                created: all.created.or(own.created),
            };
            last = last.or(Some(table.clone()));
        }
        Ok((all, last))
    }
}
