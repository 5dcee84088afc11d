//! All manifests of a build: a single file, or a root and its members.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use toml::Spanned;

use super::document::{self, Document};
use super::vars::{Host, Vars};
use super::{Key, Problem, Problems, Table, Type, nearest, suggest};
use crate::graph::SourceText;
use crate::oci::{Compression, Platform};

/// The file name of a manifest.
pub const MANIFEST: &str = "image.toml";

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
}

/// One manifest.
pub struct Member {
    /// The folder of the manifest: absolute, without symlinks.
    pub folder: PathBuf,
    defaults: Option<Table>,
    vars: BTreeMap<String, String>,
    targets: BTreeMap<String, Target>,
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
    /// When images were created.
    pub created: Option<Spanned<String>>,
}

/// The keys of `[defaults]`.
const DEFAULTS: &[Key] = &[
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
        "created",
        Type::String,
        "\"1970-01-01T00:00:00Z\"",
        "The time in the image's config (RFC 3339), or \"git\" for that of the commit. SOURCE_DATE_EPOCH overrides it.",
    ),
];

/// The keys of `[workspace]`.
const WORKSPACE: &[Key] = &[Key::new(
    "members",
    Type::Strings,
    "",
    "The folders of the members, each with an image.toml of its own.",
)];

/// Returns the tables of a manifest that are no rules, for the reference and the schema.
pub fn top_level() -> [(&'static str, &'static str, &'static [Key]); 2] {
    [
        (
            "defaults",
            "What every image of the file, and of a workspace's members, has unless it says otherwise.",
            DEFAULTS,
        ),
        (
            "workspace",
            "Makes this file the root of a monorepo.",
            WORKSPACE,
        ),
    ]
}

#[derive(Deserialize)]
struct Workspace {
    members: Vec<Spanned<String>>,
}

/// Finds the manifest in `folder` or in the nearest folder above it.
pub fn find_manifest(folder: &Path) -> Option<PathBuf> {
    folder
        .ancestors()
        .map(|folder| folder.join(MANIFEST))
        .find(|path| path.is_file())
}

impl Spec {
    /// Reads the manifest at `path`, its workspace's root if it is a member, and all other members.
    ///
    /// `rules` are the names of the rules; `set` overrides variables.
    ///
    /// # Errors
    /// What is wrong with the manifests, or an io error with what was read.
    pub fn load(
        path: &Path,
        rules: &[&'static str],
        set: &[(String, String)],
    ) -> Result<Self, LoadError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| LoadError::Io { path, source }
        };
        let path = path.canonicalize().map_err(io(path))?;
        let folder = path.parent().unwrap_or(Path::new("/")).to_owned();
        let text = fs::read_to_string(&path).map_err(io(&path))?;
        let (root, home) = root_of(&folder, rules).unwrap_or((folder.clone(), String::new()));

        let mut problems = Problems::default();
        let mut loader = Loader {
            root: &root,
            rules,
            problems: &mut problems,
        };
        let mut documents = BTreeMap::new();
        // The file itself may have any name; members and roots are found by theirs.
        let name = path
            .strip_prefix(&root)
            .unwrap_or(&path)
            .display()
            .to_string();
        documents.insert(home.clone(), (folder, loader.parse(name, text)));
        if !home.is_empty() {
            let path = root.join(MANIFEST);
            let text = fs::read_to_string(&path).map_err(io(&path))?;
            documents.insert(
                String::new(),
                (root.clone(), loader.parse(MANIFEST.to_owned(), text)),
            );
        }
        loader.members(&mut documents);

        let is_torn = documents.values().any(|(_, document)| document.is_torn);
        let mut spec = Self {
            root,
            home,
            members: BTreeMap::new(),
            problems: Problems::default(),
        };
        let mut unset: BTreeSet<&str> = set.iter().map(|(name, _)| name.as_str()).collect();
        let mut vars = BTreeMap::new();
        for (name, (folder, document)) in documents {
            let mut own = vars.clone();
            read_vars(&document, &mut own, &mut problems);
            for (name, value) in set {
                if let Some(slot) = own.get_mut(name) {
                    slot.clone_from(value);
                    unset.remove(name.as_str());
                }
            }
            if name.is_empty() {
                vars.clone_from(&own);
            }
            if let Some(defaults) = &document.defaults {
                problems.extend(defaults.check(DEFAULTS));
            }
            let id = |target: String| TargetId {
                member: name.clone(),
                name: target,
            };
            let targets = document.targets.into_iter();
            let targets = targets.map(|(target, (rule, _, table))| {
                (
                    target.clone(),
                    Target {
                        id: id(target),
                        rule,
                        table,
                        folder: folder.clone(),
                    },
                )
            });
            let targets = targets.collect();
            spec.members.insert(
                name,
                Member {
                    folder,
                    defaults: document.defaults,
                    vars: own,
                    targets,
                },
            );
        }
        if is_torn {
            return Err(LoadError::Problems(problems));
        }
        spec.problems = problems;
        if let Some(name) = unset.first() {
            let names: Vec<&str> = spec
                .members
                .values()
                .flat_map(|it| it.vars.keys())
                .map(String::as_str)
                .collect();
            let near = suggest(name, names).map(str::to_owned);
            return Err(LoadError::Set {
                name: (*name).to_owned(),
                near,
            });
        }
        Ok(spec)
    }

    /// Returns a target.
    pub fn target(&self, id: &TargetId) -> Option<&Target> {
        self.members.get(&id.member)?.targets.get(&id.name)
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
            host,
            folder: member.map(|it| it.folder.clone()).unwrap_or_default(),
        };
        vars.values.insert("target".into(), id.name.clone());
        if let Some(platform) = platform {
            vars.set_platform(platform);
        }
        vars
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
                created: all.created.or(own.created),
            };
            last = last.or(Some(table.clone()));
        }
        Ok((all, last))
    }
}

/// Why manifests could not be loaded.
#[derive(Debug)]
pub enum LoadError {
    /// A file cannot be read.
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The manifests are wrong.
    Problems(Problems),
    /// `--set` names a variable that no manifest has.
    Set {
        /// The name.
        name: String,
        /// The nearest name that there is.
        near: Option<String>,
    },
}

/// Finds the workspace that a folder is a member of: its root, and the member's name.
fn root_of(folder: &Path, rules: &[&'static str]) -> Option<(PathBuf, String)> {
    for above in folder.ancestors().skip(1) {
        let Ok(text) = fs::read_to_string(above.join(MANIFEST)) else {
            continue;
        };
        let source = Arc::new(SourceText {
            name: MANIFEST.to_owned(),
            text,
        });
        let document = document::parse(source, rules, &mut Problems::default());
        let Some(members) = document.workspace.and_then(|table| members(&table).ok()) else {
            continue;
        };
        let name = folder.strip_prefix(above).ok()?.to_str()?.to_owned();
        return members
            .iter()
            .any(|member| normal(member.get_ref()).as_ref() == Some(&name))
            .then(|| (above.to_owned(), name));
    }
    None
}

fn members(table: &Table) -> Result<Vec<Spanned<String>>, Problems> {
    struct Nobody;
    impl Host for Nobody {
        fn git(&self, _: &Path, _: &str) -> Result<String, String> {
            Err("not here".into())
        }

        fn source_date_epoch(&self) -> Option<u64> {
            None
        }
    }
    let vars = Vars {
        values: BTreeMap::new(),
        host: &Nobody,
        folder: PathBuf::new(),
    };
    Ok(table.read::<Workspace>(WORKSPACE, &vars)?.members)
}

/// Returns a member's folder in the form by which members are addressed; `None` if it leads out of the workspace.
fn normal(member: &str) -> Option<String> {
    let mut parts = Vec::new();
    for component in Path::new(member).components() {
        match component {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::CurDir => {}
            _ => return None,
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

struct Loader<'a> {
    root: &'a Path,
    rules: &'a [&'static str],
    problems: &'a mut Problems,
}

impl Loader<'_> {
    fn parse(&mut self, name: String, text: String) -> Document {
        document::parse(
            Arc::new(SourceText { name, text }),
            self.rules,
            self.problems,
        )
    }

    fn members(&mut self, documents: &mut BTreeMap<String, (PathBuf, Document)>) {
        let Some(table) = documents
            .get("")
            .and_then(|(_, document)| document.workspace.clone())
        else {
            return;
        };
        let members = match members(&table) {
            Ok(members) => members,
            Err(problems) => return self.problems.extend(problems),
        };
        for member in members {
            let problem = |message: String, label: &str| {
                table.problem("imgdecl::spec::member", member.span(), message, label)
            };
            let Some(name) = normal(member.get_ref()) else {
                let message = format!(
                    "`{}` is no folder below the workspace's root",
                    member.get_ref()
                );
                self.problems.push(problem(
                    message,
                    "members are relative folders, without `..`",
                ));
                continue;
            };
            if documents.contains_key(&name) {
                continue;
            }
            let folder = self.root.join(&name);
            let path = folder.join(MANIFEST);
            match (fs::read_to_string(&path), folder.canonicalize()) {
                (Ok(text), Ok(folder)) => {
                    let document = self.parse(format!("{name}/{MANIFEST}"), text);
                    if let Some(nested) = &document.workspace {
                        self.problems.push(
                            nested
                                .problem(
                                    "imgdecl::spec::member",
                                    nested.span.clone(),
                                    "a member is no workspace of its own",
                                    "nested workspace",
                                )
                                .help("list all members in the root's image.toml"),
                        );
                    }
                    documents.insert(name, (folder, document));
                }
                (Err(error), _) | (_, Err(error)) => {
                    let message = format!("cannot read {name}/{MANIFEST}: {error}");
                    let help = format!("make it, or take `{name}` off `members`");
                    self.problems
                        .push(problem(message, "this member has no manifest").help(help));
                }
            }
        }
    }
}

/// Names that cannot be variables, because they are built in.
const BUILT_IN: [&str; 5] = ["platform", "os", "arch", "variant", "target"];

fn read_vars(document: &Document, vars: &mut BTreeMap<String, String>, problems: &mut Problems) {
    let Some(table) = &document.vars else { return };
    for (name, value) in &table.value {
        let text = name.get_ref();
        let valid = !text.is_empty()
            && text
                .bytes()
                .all(|it| it.is_ascii_alphanumeric() || it == b'_' || it == b'-');
        if BUILT_IN.contains(&text.as_ref()) || !valid {
            let message = match valid {
                true => format!("the variable `{text}` is built in"),
                false => format!("`{text}` is no name for a variable"),
            };
            problems.push(Problem::new(
                "imgdecl::spec::variable",
                &table.source,
                name.span(),
                message,
                "choose another name",
            ));
            continue;
        }
        match value.get_ref().as_str() {
            Some(value) => {
                vars.insert(text.to_string(), value.to_owned());
            }
            None => problems.push(Problem::new(
                "imgdecl::spec::type",
                &table.source,
                value.span(),
                format!("the variable `{text}` takes a string"),
                "not a string",
            )),
        }
    }
}
