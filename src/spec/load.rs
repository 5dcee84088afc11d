//! Loads manifests: a single file, or a workspace's root and all its members.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use toml::Spanned;

use super::document::{self, Document};
use super::vars::{Host, Vars};
use super::workspace::{DEFAULTS, INDEX, WORKSPACE, WorkspaceTable};
use super::{MANIFEST, Member, Problem, Problems, Spec, Table, Target, TargetId, suggest};
use crate::graph::SourceText;

/// Finds the manifest in `folder` or in the nearest folder above it.
pub(crate) fn find_manifest(folder: &Path) -> Option<PathBuf> {
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
        let mut problems = Problems::default();
        let (root, home, documents) = read_all(path, rules, &mut problems)?;
        let is_torn = documents.values().any(|(_, document)| document.is_torn);
        let mut spec = Self {
            root,
            home,
            members: BTreeMap::new(),
            index: None,
            allowed: BTreeSet::new(),
            default: None,
            problems: Problems::default(),
        };
        let mut unset: BTreeSet<&str> = set.iter().map(|(name, _)| name.as_str()).collect();
        let mut vars = BTreeMap::new();
        for (name, (manifest, document)) in documents {
            let mut own = vars.clone();
            // The root comes first: its name is empty.
            if name.is_empty() {
                spec.take_workspace(&document, &mut problems);
            }
            read_vars(&document, &mut own, &mut problems);
            for (name, value) in set {
                if spec.is_free(name) {
                    own.insert(name.clone(), value.clone());
                    unset.remove(name.as_str());
                }
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
            spec.take_index(&name, &document, &mut problems);
            let member = member(&name, manifest, document, own);
            spec.members.insert(name, member);
        }
        if is_torn {
            return Err(LoadError::Problems(problems));
        }
        spec.problems = problems;
        match unset.first() {
            Some(name) => Err(spec.no_variable(name)),
            None => Ok(spec),
        }
    }

    /// Takes the `[index]` of a document, which stands in that of the root alone.
    fn take_index(&mut self, name: &str, document: &Document, problems: &mut Problems) {
        let Some(index) = &document.index else {
            return;
        };
        problems.extend(index.check(INDEX));
        if name.is_empty() {
            self.index = Some(index.clone());
            return;
        }
        let (code, message) = ("imgdecl::spec::index", "`[index]` stands in a member");
        let problem = index.problem(code, index.span.clone(), message, "not here");
        problems.push(problem.help("write it in the manifest of the workspace's root"));
    }

    /// Takes what `[workspace]` of the root says of all manifests. What is wrong with it was told where members were read.
    fn take_workspace(&mut self, document: &Document, problems: &mut Problems) {
        let Some(table) = &document.workspace else {
            return;
        };
        let Ok(workspace) = workspace(table) else {
            return;
        };
        for name in workspace.env {
            let text = name.get_ref();
            let is_name = |it: u8| it.is_ascii_alphanumeric() || it == b'_';
            if !text.is_empty() && text.bytes().all(is_name) {
                self.allowed.insert(name.into_inner());
                continue;
            }
            let message = format!("`{text}` is no name of a variable of the environment");
            let code = "imgdecl::spec::variable";
            let problem = table.problem(code, name.span(), message, "not a name");
            problems.push(
                problem
                    .help("list each by its whole name: patterns would let in what nobody meant"),
            );
        }
        self.default = workspace.default.map(|it| (it, table.clone()));
    }

    /// Tells whether `--set` gives a variable a value that no manifest lists: what git says, and what of the environment is
    /// let in.
    fn is_free(&self, name: &str) -> bool {
        let variable = name.strip_prefix("env.");
        super::vars::GIT.contains(&name) || variable.is_some_and(|it| self.allowed.contains(it))
    }

    /// Makes the error of a variable that is set and that no manifest has.
    fn no_variable(&self, name: &str) -> LoadError {
        let members = self.members.values();
        let names = members.flat_map(|it| it.vars.keys()).map(String::as_str);
        let near = suggest(name, names.collect::<Vec<_>>()).map(str::to_owned);
        LoadError::Set {
            name: name.to_owned(),
            near,
        }
    }
}

/// The manifests of a workspace by member, each with its file. The root's has no name.
type Documents = BTreeMap<String, (PathBuf, Document)>;

/// Reads a manifest, its workspace's root, and all other members. Returns the root's folder, which member the manifest is,
/// and all of them.
fn read_all(
    path: &Path,
    rules: &[&'static str],
    problems: &mut Problems,
) -> Result<(PathBuf, String, Documents), LoadError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| LoadError::Io { path, source }
    };
    let path = path.canonicalize().map_err(io(path))?;
    let folder = path.parent().unwrap_or(Path::new("/")).to_owned();
    let text = fs::read_to_string(&path).map_err(io(&path))?;
    let (root, home) = root_of(&folder, rules).unwrap_or((folder.clone(), String::new()));
    let mut loader = Loader {
        root: &root,
        rules,
        problems,
    };
    let mut documents = BTreeMap::new();
    // The file itself may have any name; members and roots are found by theirs.
    let name = path.strip_prefix(&root).unwrap_or(&path);
    let document = loader.parse(name.display().to_string(), text);
    documents.insert(home.clone(), (path.clone(), document));
    if !home.is_empty() {
        let path = root.join(MANIFEST);
        let text = fs::read_to_string(&path).map_err(io(&path))?;
        let document = loader.parse(MANIFEST.to_owned(), text);
        documents.insert(String::new(), (path, document));
    }
    loader.members(&mut documents);
    Ok((root, home, documents))
}

/// Makes a member of its document.
fn member(
    name: &str,
    manifest: PathBuf,
    document: Document,
    vars: BTreeMap<String, String>,
) -> Member {
    let folder = manifest.parent().unwrap_or(Path::new("/")).to_owned();
    let targets = document.targets.into_iter();
    let targets = targets.map(|(target, (rule, _, table))| {
        let id = TargetId {
            member: name.to_owned(),
            name: target.clone(),
        };
        let folder = folder.clone();
        (
            target,
            Target {
                id,
                rule,
                table,
                folder,
            },
        )
    });
    Member {
        targets: targets.collect(),
        taken: document.taken,
        folder,
        manifest,
        defaults: document.defaults,
        vars,
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
        let Some(members) = document.workspace.and_then(|it| workspace(&it).ok()) else {
            continue;
        };
        let members = members.members;
        let name = folder.strip_prefix(above).ok()?.to_str()?.to_owned();
        return members
            .iter()
            .any(|member| names(member.get_ref(), &name))
            .then(|| (above.to_owned(), name));
    }
    None
}

/// Reads `[workspace]`, in which no variables stand.
fn workspace(table: &Table) -> Result<WorkspaceTable, Problems> {
    struct Nobody;
    impl Host for Nobody {
        fn variable(&self, _: &str) -> Option<String> {
            None
        }

        fn git(&self, _: &Path, _: &str) -> Result<String, String> {
            Err("not here".into())
        }

        fn source_date_epoch(&self) -> Option<u64> {
            None
        }
    }
    let vars = Vars {
        values: BTreeMap::new(),
        allowed: BTreeSet::new(),
        host: &Nobody,
        folder: PathBuf::new(),
    };
    table.read(WORKSPACE, &vars)
}

/// Tells whether a member is written as a pattern.
fn is_pattern(member: &str) -> bool {
    member.contains(['*', '?', '[', '{'])
}

/// Tells whether a member of `[workspace]`, which may be a pattern, means a folder.
fn names(member: &str, folder: &str) -> bool {
    if !is_pattern(member) {
        return normal(member).as_deref() == Some(folder);
    }
    let parts = member.split('/').filter(|part| !matches!(*part, "" | "."));
    let (parts, own): (Vec<&str>, Vec<&str>) = (parts.collect(), folder.split('/').collect());
    let fits = |(part, name): (&&str, &&str)| part_fits(part, name);
    parts.len() == own.len() && parts.iter().zip(&own).all(fits)
}

/// Tells whether a part of a pattern means a name. Hidden folders are nobody's service.
fn part_fits(part: &str, name: &str) -> bool {
    let glob = globset::Glob::new(part).map(|it| it.compile_matcher());
    glob.is_ok_and(|it| it.is_match(name)) && (!name.starts_with('.') || part.starts_with('.'))
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

    /// Returns the folders with a manifest that a pattern means, sorted.
    ///
    /// # Errors
    /// What is wrong with the pattern, and how to mend it.
    fn matching(&self, member: &Spanned<String>) -> Result<Vec<Spanned<String>>, (String, String)> {
        let pattern = member.get_ref();
        let help =
            "`*` stands for one folder, as in `services/*`; only folders with an image.toml count";
        let parts = pattern.split('/').filter(|part| !matches!(*part, "" | "."));
        let mut folders = vec![String::new()];
        for part in parts {
            let glob = globset::Glob::new(part)
                .ok()
                .filter(|_| !part.contains("**"));
            glob.ok_or_else(|| {
                (
                    format!("`{pattern}` is no pattern for members"),
                    help.to_owned(),
                )
            })?;
            let mut next = Vec::new();
            for folder in folders {
                let join = |name: &str| match folder.is_empty() {
                    true => name.to_owned(),
                    false => format!("{folder}/{name}"),
                };
                if !is_pattern(part) {
                    next.push(join(part));
                    continue;
                }
                let entries = fs::read_dir(self.root.join(&folder))
                    .into_iter()
                    .flatten()
                    .flatten();
                let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
                let fits = names.filter(|name| part_fits(part, name));
                next.extend(fits.map(|name| join(&name)));
            }
            folders = next;
        }
        folders.retain(|folder| self.root.join(folder).join(MANIFEST).is_file());
        folders.sort();
        if folders.is_empty() {
            return Err((
                format!("`{pattern}` matches no folder with an {MANIFEST}"),
                help.to_owned(),
            ));
        }
        Ok(folders
            .into_iter()
            .map(|it| Spanned::new(member.span(), it))
            .collect())
    }

    fn members(&mut self, documents: &mut Documents) {
        let Some(table) = documents
            .get("")
            .and_then(|(_, document)| document.workspace.clone())
        else {
            return;
        };
        let members = match workspace(&table) {
            Ok(workspace) => workspace.members,
            Err(problems) => return self.problems.extend(problems),
        };
        let mut named = Vec::new();
        for member in members {
            match is_pattern(member.get_ref()) {
                false => named.push(member),
                true => match self.matching(&member) {
                    Ok(found) => named.extend(found),
                    Err((message, help)) => {
                        let (code, span) = ("imgdecl::spec::member", member.span());
                        let problem =
                            table.problem(code, span, message, "no folder is meant by it");
                        self.problems.push(problem.help(help));
                    }
                },
            }
        }
        for member in named {
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
                    documents.insert(name, (folder.join(MANIFEST), document));
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
            Some(text) if text.contains("${") => problems.push(
                Problem::new(
                    "imgdecl::spec::variable",
                    &table.source,
                    value.span(),
                    "variables do not stand for each other",
                    "`${` has no meaning here",
                )
                .help("write the value out"),
            ),
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
