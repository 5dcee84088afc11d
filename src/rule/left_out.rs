//! What `files` leaves out of a folder by itself: a list of what is seldom meant, and what ignore files name. The one place
//! that decides it. What `include` names, letter for letter, is taken all the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use globset::{GlobBuilder, GlobMatcher};
use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::dockerignore::{Above, DockerIgnore, MAX_BYTES};
use super::patterns::Patterns;
use super::walk::unreadable;
use crate::graph::ActionError;

/// Docker's ignore file: it counts where it lies in `src` itself.
pub(super) const DOCKERIGNORE: &str = ".dockerignore";

/// Git's ignore file: it counts in all folders, and in those above.
pub(super) const GITIGNORE: &str = ".gitignore";

/// The file by which a virtual environment of Python is known.
const VENV: &str = "pyvenv.cfg";

/// The list: names of files and folders. `*` stands at one end alone.
const LIST: &[&[&str]] = &[
    // Version control, which nobody is told of.
    &[".git", ".hg", ".svn", ".bzr", ".jj", "_darcs"],
    // Caches of Python.
    &["__pycache__", "*.pyc", "*.pyo"],
    &[
        ".pytest_cache",
        ".mypy_cache",
        ".ruff_cache",
        ".tox",
        ".nox",
    ],
    // Packages of node.
    &["node_modules"],
    // Secrets.
    &[".env", ".env.*"],
];

/// The number of the row of version control.
const VERSION_CONTROL: usize = 0;

/// The number of the row that a virtual environment has: it has no name.
const ENVIRONMENT: usize = LIST.len();

/// How many names of what was left out are told.
const TOLD: usize = 3;

/// Which ignore files count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct IgnoreFiles {
    /// `.dockerignore`.
    pub(super) docker: bool,
    /// `.gitignore`.
    pub(super) git: bool,
}

/// Why something is left out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Reason {
    /// It stands in the list.
    Listed,
    /// `.dockerignore` names it.
    Docker,
    /// A `.gitignore` names it.
    Git,
}

/// Decides for one walk.
pub(super) struct LeftOut<'a> {
    files: IgnoreFiles,
    docker: DockerIgnore,
    include: Option<&'a Patterns>,
    /// The manifests of the workspace.
    manifests: Arc<BTreeSet<PathBuf>>,
    /// The beginnings of patterns of `include`, each up to a part that is a plain name.
    named: Vec<(GlobMatcher, String)>,
    /// The patterns of `include` that are plain paths.
    plain: Vec<String>,
    tally: Mutex<BTreeMap<Reason, (usize, BTreeSet<String>)>>,
}

/// What is left out of one folder, until it is clear that the folder itself is none of it.
#[derive(Default)]
pub(super) struct Tally(Vec<(Reason, String)>);

/// What holds in a folder.
#[derive(Clone, Default)]
pub(super) struct Within {
    /// The `.gitignore` files above and in it, the nearest last.
    git: Arc<Vec<Arc<Gitignore>>>,
    /// What of `.dockerignore` it matches.
    docker: Above,
    /// Rows of the list that do not count here: each is a bit.
    off: u32,
    /// Whether `include` names it: ignore files say nothing here.
    is_named: bool,
    /// Whether it is left out itself, and is looked at for what is not.
    pub(super) is_out: bool,
}

/// What is done with an entry.
pub(super) enum Verdict {
    /// It is taken. With what holds in it, if it is a folder.
    Take(Within),
    /// It is a folder that is left out, and something in it may not be.
    Look(Within),
    /// It is left out.
    Skip,
}

impl<'a> LeftOut<'a> {
    /// Prepares for what is taken of the folder `src`. `root` is the workspace's.
    pub(super) fn new(
        src: &Path,
        root: &Path,
        files: IgnoreFiles,
        include: Option<&'a Patterns>,
        manifests: Arc<BTreeSet<PathBuf>>,
    ) -> Result<(Self, Within), ActionError> {
        let mut within = Within::default();
        // Who names a folder in `src` means it, and what it holds.
        let above = src.strip_prefix(root).unwrap_or(src);
        for name in above.iter().filter_map(|name| name.to_str()) {
            within.off |= row(name).map_or(0, |row| 1 << row);
        }
        if files.git {
            // The files above `src` apply too, up to the workspace's root.
            let inside = |folder: &&Path| folder.starts_with(root);
            let above: Vec<&Path> = src.ancestors().skip(1).take_while(inside).collect();
            for folder in above.into_iter().rev() {
                Arc::make_mut(&mut within.git).extend(gitignore(folder)?);
            }
        }
        let docker = match files.docker {
            true => dockerignore(src)?,
            false => DockerIgnore::default(),
        };
        let mut named = Vec::new();
        let mut plain = Vec::new();
        for pattern in include.into_iter().flat_map(Patterns::texts) {
            let pattern = pattern.strip_prefix("./").unwrap_or(pattern);
            let pattern = pattern.trim_end_matches('/');
            if !pattern.contains(['*', '?', '[', '{', '\\']) {
                plain.push(pattern.to_owned());
            }
            let mut end = 0;
            for part in pattern.split('/') {
                end += part.len();
                let glob = GlobBuilder::new(&pattern[..end]);
                let glob = glob.clone().literal_separator(true).build();
                named.extend(glob.ok().map(|it| (it.compile_matcher(), part.to_owned())));
                end += 1;
            }
        }
        let left_out = Self {
            files,
            docker,
            include,
            manifests,
            named,
            plain,
            tally: Mutex::default(),
        };
        Ok((left_out, within))
    }

    /// Returns what `.dockerignore` means, line by line.
    pub(super) fn meaning(&self) -> Vec<String> {
        self.docker.meaning().collect()
    }

    /// Returns what holds in a folder, once its own ignore file is read.
    pub(super) fn enter(&self, folder: &Path, mut within: Within) -> Result<Within, ActionError> {
        if self.files.git && !within.is_named {
            Arc::make_mut(&mut within.git).extend(gitignore(folder)?);
        }
        Ok(within)
    }

    /// Tells whether a folder that holds a file of this name is left out as a virtual environment. `path` is the folder's,
    /// below `src`; it is empty for `src` itself.
    pub(super) fn is_environment(
        &self,
        file: &std::ffi::OsStr,
        path: &str,
        within: &Within,
    ) -> bool {
        if path.is_empty() || file != VENV || within.off & (1 << ENVIRONMENT) != 0 {
            return false;
        }
        let name = path.rsplit('/').next().unwrap_or(path);
        let is_out = !self.names(path, name);
        if is_out && !within.is_out && self.could_take(path, true) {
            self.count(Tally(vec![(Reason::Listed, path.to_owned())]));
        }
        is_out
    }

    /// Tells whether some manifest has this name: few entries have, and need a closer look.
    fn is_manifest_name(&self, name: &str) -> bool {
        let mut names = self.manifests.iter().filter_map(|path| path.file_name());
        names.any(|it| it == name)
    }

    /// Tells whether `include` names an entry: up to a part that is its name, letter for letter or as it stands in the list.
    fn names(&self, path: &str, name: &str) -> bool {
        let is_meant = |part: &str| {
            part == name
                || LIST
                    .iter()
                    .flat_map(|row| row.iter())
                    .any(|listed| *listed == part && listed.contains('*'))
        };
        self.named
            .iter()
            .any(|(glob, part)| is_meant(part) && glob.is_match(path))
    }

    /// Decides about an entry: `below` is its path below `src`, `path` its full one.
    pub(super) fn decide(
        &self,
        name: &str,
        below: &str,
        path: impl Fn() -> PathBuf,
        is_folder: bool,
        within: &Within,
        tally: &mut Tally,
    ) -> Verdict {
        let mut inner = within.clone();
        let mut count = |reason| {
            // What would not be taken anyway is not left out.
            if !within.is_out && self.could_take(below, is_folder) {
                tally.0.push((reason, below.to_owned()));
            }
        };
        if let Some(row) = row(name).filter(|row| within.off & (1 << row) == 0) {
            if !self.names(below, name) {
                if row != VERSION_CONTROL {
                    count(Reason::Listed);
                }
                return Verdict::Skip;
            }
            // What it holds of its own kind belongs to it.
            inner.off |= 1 << row;
        } else if !is_folder
            && self.is_manifest_name(name)
            && self.manifests.contains(&path())
            && !self.names(below, name)
        {
            return Verdict::Skip;
        }
        inner.is_named |= self.plain.iter().any(|plain| plain == below);
        if inner.is_named {
            inner.is_out = false;
            return Verdict::Take(inner);
        }
        let is_out = if is_ignored(&within.git, &path, is_folder) {
            Some(Reason::Git)
        } else {
            let (is_out, matched) = self.docker.matches(below, &within.docker);
            inner.docker = matched;
            is_out.then_some(Reason::Docker)
        };
        let Some(reason) = is_out else {
            inner.is_out = false;
            return Verdict::Take(inner);
        };
        count(reason);
        inner.is_out = true;
        let takes_back = reason == Reason::Docker && self.docker.takes_back();
        let is_above = || self.plain.iter().any(|plain| is_inside(plain, below));
        match is_folder && (takes_back || is_above()) {
            true => Verdict::Look(inner),
            false => Verdict::Skip,
        }
    }

    /// Tells whether something of an entry would be taken, as far as `include` says.
    fn could_take(&self, below: &str, is_folder: bool) -> bool {
        let Some(include) = &self.include else {
            return true;
        };
        let above = below.match_indices('/').map(|(end, _)| &below[..end]);
        let is_above = |pattern: &str| {
            let first = pattern.split('/').next().unwrap_or(pattern);
            first.contains(['*', '?', '[', '{']) || is_inside(pattern, below)
        };
        above.chain([below]).any(|path| include.would_match(path))
            || (is_folder && include.texts().any(is_above))
    }

    /// Counts what was left out of a folder.
    pub(super) fn count(&self, tally: Tally) {
        let mut all = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        for (reason, path) in tally.0 {
            let (count, names) = all.entry(reason).or_default();
            *count += 1;
            names.insert(path);
            if names.len() > TOLD {
                names.pop_last();
            }
        }
    }

    /// Says what was left out, if that is worth a word: not of version control and of manifests.
    pub(super) fn told(&self) -> Option<String> {
        let tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        let texts = tally.iter().map(|(reason, (count, names))| {
            let mut list = Vec::from_iter(names.iter().map(String::as_str));
            if *count > list.len() {
                list.push("…");
            }
            let list = list.join(", ");
            match reason {
                Reason::Listed => format!("{count} that no image needs as a rule ({list})"),
                Reason::Docker => format!("{count} by {DOCKERIGNORE} ({list})"),
                Reason::Git => format!("{count} by {GITIGNORE} ({list})"),
            }
        });
        let texts: Vec<String> = texts.collect();
        let text = format!(
            "left out {}; `include` takes what it names",
            texts.join(", ")
        );
        (!texts.is_empty()).then_some(text)
    }
}

/// Tells whether a path lies in a folder.
fn is_inside(path: &str, folder: &str) -> bool {
    let rest = path.strip_prefix(folder);
    rest.is_some_and(|rest| rest.starts_with('/'))
}

/// Returns the row of the list that a name stands in.
fn row(name: &str) -> Option<usize> {
    // Most names are told by one look.
    if !name.starts_with(['.', '_', 'n']) && !name.ends_with(['c', 'o']) {
        return None;
    }
    let is = |listed: &str| match (listed.strip_prefix('*'), listed.strip_suffix('*')) {
        (Some(end), _) => name.ends_with(end),
        (_, Some(start)) => name.starts_with(start),
        _ => name == listed,
    };
    LIST.iter().position(|names| names.iter().any(|it| is(it)))
}

/// Reads the `.dockerignore` of a folder, if it has one.
fn dockerignore(folder: &Path) -> Result<DockerIgnore, ActionError> {
    let path = folder.join(DOCKERIGNORE);
    if !path.is_file() {
        return Ok(DockerIgnore::default());
    }
    let fail = |message: String| {
        ActionError::new("imgdecl::files::dockerignore", message)
            .help("mend the file, or write `ignore = []`")
    };
    let mut text = String::new();
    let file = File::open(&path).map_err(|error| unreadable(&path, &error))?;
    let read = file.take(MAX_BYTES + 1).read_to_string(&mut text);
    read.map_err(|error| unreadable(&path, &error))?;
    if text.len() as u64 > MAX_BYTES {
        let message = format!("{} is larger than {MAX_BYTES} bytes", path.display());
        return Err(fail(message));
    }
    DockerIgnore::parse(&text)
        .map_err(|(line, why)| fail(format!("line {line} of {}: {why}", path.display())))
}

/// Reads the `.gitignore` of a folder, if it has one.
fn gitignore(folder: &Path) -> Result<Option<Arc<Gitignore>>, ActionError> {
    let path = folder.join(GITIGNORE);
    if !fs::metadata(&path).is_ok_and(|it| it.is_file()) {
        return Ok(None);
    }
    let fail = |error: &ignore::Error| {
        ActionError::new(
            "imgdecl::files::gitignore",
            format!("cannot use {}", path.display()),
        )
        .because(error)
    };
    let mut builder = GitignoreBuilder::new(folder);
    match builder.add(&path) {
        Some(error) => Err(fail(&error)),
        None => builder
            .build()
            .map(|it| Some(Arc::new(it)))
            .map_err(|error| fail(&error)),
    }
}

/// The nearest .gitignore that says something decides.
fn is_ignored(ignores: &[Arc<Gitignore>], path: impl Fn() -> PathBuf, is_folder: bool) -> bool {
    if ignores.is_empty() {
        return false;
    }
    let path = path();
    for ignore in ignores.iter().rev() {
        match ignore.matched(&path, is_folder) {
            Match::Ignore(_) => return true,
            Match::Whitelist(_) => return false,
            Match::None => {}
        }
    }
    false
}
