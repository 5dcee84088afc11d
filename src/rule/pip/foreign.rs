//! Locks of other tools, which are taken as they are: which file is of which tool, and what it holds for a target.

use std::str::FromStr;

use pep508_rs::{ExtraName, PackageName};
use toml::Spanned;

use super::PipTable;
use crate::python::{
    FileKind, Files, InputError, LockSet, LockWanted, Place, Target as PythonTarget, UvWanted,
    file_kind, pdm_lock, pipfile_lock, poetry_lock, pylock, uv_lock,
};
use crate::spec::{Problem, Problems, Table};

/// The code for a file that a key is not for.
const KIND: &str = "imgdecl::pip::kind";

/// A lock of another tool.
pub(super) struct Foreign {
    /// The tool.
    kind: FileKind,
    /// Its path, from the workspace's root.
    path: String,
    /// Its text.
    text: String,
    /// The path and the text of the pyproject.toml beside it, where that says more.
    project: Option<(String, String)>,
    /// The extras that are asked for.
    extras: Vec<String>,
    /// The groups that are asked for.
    groups: Vec<String>,
    /// The project of a workspace, and where the manifest says it.
    package: Option<(PackageName, Place)>,
}

impl Foreign {
    /// Tells whether it may know projects as folders that are to be installed.
    pub(super) fn names_projects(&self) -> bool {
        let is_said = ["editable = ", "directory = "]
            .iter()
            .any(|it| self.text.contains(it));
        self.kind == FileKind::Uv && self.package.is_some() && is_said
    }

    /// Returns what it holds for a target of Python.
    pub(super) fn read(&self, target: &PythonTarget) -> Result<LockSet, InputError> {
        let (path, text) = (self.path.as_str(), self.text.as_str());
        let project = self.project.as_ref();
        let wanted = LockWanted {
            project: project.map(|(path, text)| (path.as_str(), text.as_str())),
            extras: &self.extras,
            groups: &self.groups,
        };
        match self.kind {
            FileKind::Poetry => poetry_lock(path, text, &wanted, target),
            FileKind::Pipfile => pipfile_lock(path, text, &wanted, target),
            FileKind::Pdm => pdm_lock(path, text, &wanted, target),
            FileKind::Uv => {
                let names = |list: &[String]| -> Vec<ExtraName> {
                    list.iter()
                        .filter_map(|it| ExtraName::from_str(it).ok())
                        .collect()
                };
                let (extras, groups) = (names(&self.extras), names(&self.groups));
                let wanted = UvWanted {
                    member: self.package.as_ref(),
                    extras: &extras,
                    groups: &groups,
                };
                uv_lock(path, text, &wanted, target)
            }
            _ => {
                let groups = Some(self.groups.as_slice()).filter(|it| !it.is_empty());
                pylock(path, text, &self.extras, groups, target)
            }
        }
    }
}

/// Returns how many locks a target names.
pub(super) fn count(table: &PipTable) -> usize {
    let all = [&table.lock, &table.pylock, &table.uv_lock];
    all.iter().filter(|it| it.is_some()).count()
}

/// The locks that a target names, and what they are read with.
pub(super) struct Named<'a> {
    /// The keys.
    pub(super) table: &'a PipTable,
    /// The table of the manifest.
    pub(super) at: &'a Table,
    /// The texts of the workspace.
    pub(super) files: &'a dyn Files,
}

impl Named<'_> {
    /// Reads the lock that a target names, if it names one. `paths` are the values of `lock`, `pylock` and `uv_lock`.
    pub(super) fn read(
        &self,
        paths: [Option<String>; 3],
        package: Option<(PackageName, Place)>,
        problems: &mut Problems,
    ) -> Option<Foreign> {
        let [lock, pylock, uv_lock] = paths;
        let PipTable {
            lock: any,
            pylock: of_pylock,
            uv_lock: of_uv,
            ..
        } = self.table;
        let keys = [
            (any, lock, None),
            (of_pylock, pylock, Some(FileKind::Pylock)),
            (of_uv, uv_lock, Some(FileKind::Uv)),
        ];
        let mut found = None;
        for (value, path, meant) in keys {
            let Some((value, path)) = value.as_ref().zip(path) else {
                continue;
            };
            match self.one(value, path, meant, package.clone()) {
                Ok(foreign) => found = Some(foreign),
                Err(problem) => problems.push(problem),
            }
        }
        found
    }

    /// Reads the lock at a key. `meant` is the tool that the key is for.
    fn one(
        &self,
        value: &Spanned<String>,
        path: String,
        meant: Option<FileKind>,
        package: Option<(PackageName, Place)>,
    ) -> Result<Foreign, Problem> {
        let unreadable = |path: &str, why: String| {
            let message = format!("{path} cannot be read: {why}");
            self.at
                .problem("imgdecl::python::file", value.span(), message, "this file")
        };
        let text = self.files.read(&path).map_err(|it| unreadable(&path, it))?;
        let found = file_kind(&path, &text);
        let kind = match (found, meant) {
            (Some(found), Some(meant)) if found == meant => found,
            (Some(found), None) if found.is_lock() => found,
            // The reader says what is wrong with it.
            (None, Some(meant)) => meant,
            (Some(found), _) => {
                let message = format!("{path} is {}", found.words());
                let problem = self.at.problem(KIND, value.span(), message, "another file");
                return Err(problem.help(found.help(value.get_ref())));
            }
            (None, None) => {
                let message = format!("of which tool {path} is cannot be told");
                let problem = self.at.problem(KIND, value.span(), message, "this lock");
                return Err(problem.help(
                    "uv.lock, pylock.toml, poetry.lock, Pipfile.lock and pdm.lock can be taken; lock again with the tool that made it",
                ));
            }
        };
        if let (Some(package), true) = (&self.table.package, kind != FileKind::Uv) {
            let message = format!(
                "`package` is a project of a uv.lock, and {path} is {}",
                kind.words()
            );
            let code = "imgdecl::pip::package";
            let problem = self
                .at
                .problem(code, package.span(), message, "of which lock?");
            return Err(problem.help("take `package` out"));
        }
        let project = match kind {
            FileKind::Poetry | FileKind::Pdm => {
                let folder = path.rsplit_once('/');
                let beside = folder.map_or("pyproject.toml".to_owned(), |(folder, _)| {
                    format!("{folder}/pyproject.toml")
                });
                match self.files.read(&beside) {
                    Ok(text) => Some((beside, text)),
                    Err(why) if why.starts_with("there is no") => None,
                    Err(why) => return Err(unreadable(&beside, why)),
                }
            }
            _ => None,
        };
        Ok(Foreign {
            kind,
            path,
            text,
            project,
            extras: self.table.extras.clone(),
            groups: self.table.groups.clone(),
            package,
        })
    }
}

/// Returns the files that may be requirements files; of the others, says by which key they are named.
pub(super) fn requirements_of(
    all: Vec<(String, Place)>,
    files: &dyn Files,
    errors: &mut Vec<InputError>,
) -> Vec<(String, Place)> {
    let mut good = Vec::new();
    for (path, place) in all {
        let name = path.rsplit('/').next().unwrap_or_default();
        let end = name.rsplit('.').next().unwrap_or_default();
        // Only of those that are called otherwise, the text is looked at.
        let is_odd = matches!(end, "lock" | "toml" | "json" | "yml" | "yaml" | "Pipfile");
        let kind = is_odd.then(|| file_kind(&path, &files.read(&path).ok()?));
        match kind.flatten().filter(|it| *it != FileKind::Requirements) {
            None => good.push((path, place)),
            Some(kind) => errors.push(wrong(&path, kind, &place)),
        }
    }
    good
}

/// Makes sure that a file that `pyproject` names is none of another kind.
pub(super) fn is_pyproject(path: &str, text: &str, place: Option<Place>) -> Result<(), InputError> {
    let kind = file_kind(path, text).filter(|it| *it != FileKind::Pyproject);
    match kind.zip(place) {
        None => Ok(()),
        Some((kind, place)) => Err(wrong(path, kind, &place)),
    }
}

/// Makes the error of a key that is not for a file.
fn wrong(path: &str, kind: FileKind, place: &Place) -> InputError {
    let name = place.text().trim_matches(['"', '\'']);
    InputError {
        code: KIND,
        message: format!("{path} is {}", kind.words()),
        help: kind.help(name),
        place: place.clone(),
    }
}
