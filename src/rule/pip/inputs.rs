//! What a pip target asks for, read from files of the workspace.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use pep440_rs::VersionSpecifiers;
use pep508_rs::PackageName;
use toml::Spanned;

use super::PipTable;
use super::errors::origin;
use super::foreign::{self, Foreign};
use super::meant::{Meant, expanded};
use super::pinned::PipPin;
use super::projects::{self, HostFolder, Own};
use super::reach::Reach;
use crate::graph::ActionError;
use crate::oci::{Digest, Hasher};
use crate::python::{
    Asked, Files, InputError, LockSet, Locked, LockedProject, Names, Place, Requested, Source,
    Target as PythonTarget, WheelName, hashed, left_out_folder, pyproject_unless, read_unless,
};
use crate::rule::host::HostPath;
use crate::rule::{Lower, value::Collect};
use crate::source::read_document;
use crate::spec::{Problem, Problems, Table, Target};

/// What is asked for.
pub(super) struct Inputs {
    /// The requirements.
    pub(super) requested: Requested,
    /// A lock of another tool, which is taken as it is.
    pub(super) foreign: Option<Foreign>,
    /// The projects whose wheels are made here.
    projects: Vec<Own>,
    /// Paths that are never inputs.
    pub(super) never: Arc<BTreeSet<PathBuf>>,
    /// The folders with wheels.
    pub(super) find_links: Vec<PathBuf>,
    /// Where packages come from, as files of the user's say.
    pub(super) reach: Arc<Reach>,
    /// The workspace's root, from where paths of wheels begin.
    pub(super) root: PathBuf,
    /// Leaves out files that were uploaded later.
    pub(super) exclude_newer: Option<String>,
    /// The Pythons that the project is for, and where it says so.
    pub(super) requires_python: Option<(VersionSpecifiers, Place)>,
    /// The digest of all this, as it is written.
    pub(super) digest: Digest,
    /// What all this means.
    pub(super) meant: Meant,
}

/// Texts of the workspace, by their path from its root.
struct Texts<'a> {
    root: &'a Path,
    read: RefCell<BTreeMap<String, String>>,
}

impl Files for Texts<'_> {
    fn read(&self, path: &str) -> Result<String, String> {
        let real = self
            .root
            .join(path)
            .canonicalize()
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
                _ => error.to_string(),
            })?;
        if !real.starts_with(self.root) {
            return Err("it lies outside of the workspace".to_owned());
        }
        let bytes = read_document(&real).map_err(|error| error.to_string())?;
        let text = String::from_utf8(bytes).map_err(|_| "it is no UTF-8".to_owned())?;
        self.read.borrow_mut().insert(path.to_owned(), text.clone());
        Ok(text)
    }
}

impl Inputs {
    pub(super) fn read(
        table: &PipTable,
        target: &Target,
        lower: &Lower<'_>,
    ) -> Result<Self, Problems> {
        let at = &target.table;
        let root = lower.root();
        let real_root = root.canonicalize().unwrap_or(root.to_path_buf());
        let texts = Texts {
            root: &real_root,
            read: RefCell::default(),
        };
        let manifest = Source::shared(&at.source.name, &at.source.text);
        let mut collect = Collect::default();
        let here = |value: &Spanned<String>| Place::new(&manifest, value.span());
        // Paths from the workspace's root, with `/`: what the readers speak in.
        let mut path = |value: &Spanned<String>| -> Option<String> {
            let found = HostPath::new(at, value, &target.folder, &root);
            let found = found.map_err(|it| collect.0.push(it)).ok()?;
            let below = found.path.strip_prefix(&*root).ok()?;
            Some(below.to_string_lossy().into_owned())
        };
        let mut paths = |values: &[Spanned<String>]| -> Vec<(String, Place)> {
            let all = values.iter();
            all.filter_map(|value| Some((path(value)?, here(value))))
                .collect()
        };
        let requirements = paths(&table.requirements);
        let constraints = paths(&table.constraints);
        let find_links = paths(&table.find_links);
        let [project, lock, pylock, uv_lock] =
            [&table.pyproject, &table.lock, &table.pylock, &table.uv_lock]
                .map(|value| value.as_ref().and_then(&mut path));
        let own = table.project.as_ref();
        let own = own.and_then(|value| Some((path(value)?, here(value))));
        let mut errors: Vec<InputError> = Vec::new();
        let requirements = foreign::requirements_of(requirements, &texts, &mut errors);
        let mut overrides: Vec<Asked> = Vec::new();
        for value in &table.overrides {
            match Asked::parse(value.get_ref(), &here(value), &at.source.name) {
                Ok(asked) => overrides.push(asked),
                Err(error) => errors.push(error),
            }
        }
        let overridden: Names = overrides.iter().map(|it| it.name().clone()).collect();
        let variable = |name: &str| lower.host.variable(name);
        let mut requested =
            match read_unless(&requirements, &constraints, &texts, &variable, &overridden) {
                Ok(requested) => requested,
                Err(more) => {
                    errors.extend(more);
                    Requested::default()
                }
            };
        for package in &table.packages {
            let (text, name) = (package.get_ref(), &at.source.name);
            match Asked::parse_unless(text, &here(package), name, &overridden) {
                Ok(asked) => requested.asked.push(asked),
                Err(error) => errors.push(error),
            }
        }
        let (mut exclude_newer, mut requires_python) = (None, None);
        let package = package_of(table, at, here);
        let package = package.unwrap_or_else(|problem| {
            collect.0.push(problem);
            None
        });
        let mut text = |path: &str, value: &Option<Spanned<String>>| {
            let text = texts.read(path);
            text.map_err(|why| {
                let span = value.as_ref().map_or(at.span.clone(), Spanned::span);
                let message = format!("{path} cannot be read: {why}");
                collect
                    .0
                    .push(at.problem("imgdecl::python::file", span, message, "this file"));
            })
            .ok()
        };
        if let Some(path) = project
            && let Some(text) = text(&path, &table.pyproject)
        {
            let (extras, groups) = (&table.extras, &table.groups);
            let read = foreign::is_pyproject(&path, &text, table.pyproject.as_ref().map(here));
            let read =
                read.and_then(|()| pyproject_unless(&path, &text, extras, groups, &overridden));
            match read {
                Ok(project) => {
                    requested.extend(project.requested);
                    exclude_newer = project.exclude_newer.map(|(time, _)| time);
                    requires_python = project.requires_python;
                    let is_set = lower.spec.index(lower.host).is_ok_and(|it| it.is_some());
                    errors.extend(project.unasked.filter(|_| !is_set));
                }
                Err(error) => errors.push(error),
            }
        }
        let links: Vec<PathBuf> = find_links
            .iter()
            .map(|(path, _)| real_root.join(path))
            .collect();
        let walk = projects::Walk {
            root: &real_root,
            files: &texts,
            never: &lower.never,
            find_links: &links,
            overridden: &overridden,
        };
        if requested.options.is_hashed {
            errors.extend(requested.folders.iter().map(|it| it.refused.clone()));
            requested.folders.clear();
        }
        let own =
            own.map(|(folder, place)| (folder, place, table.extras.clone(), table.groups.clone()));
        let (mut projects, mut said) = (Vec::new(), Vec::new());
        match walk.run(own, &requested.folders) {
            Ok(found) => {
                requested.extend(found.requested);
                if let Some(first) = found.first {
                    exclude_newer = first.exclude_newer.map(|(time, _)| time);
                    requires_python = first.requires_python;
                    let is_set = lower.spec.index(lower.host).is_ok_and(|it| it.is_some());
                    errors.extend(first.unasked.filter(|_| !is_set));
                }
                projects = found.own.into_values().collect();
                said = found.said;
            }
            Err(error) => errors.push(error),
        }
        requested.overrides.extend(overrides);
        let locks = foreign::Named {
            table,
            at,
            files: &texts,
        };
        let foreign = locks.read([lock, pylock, uv_lock], package, &mut collect.0);
        if let Some(first) = table.overrides.first()
            && requested.options.is_hashed
        {
            let message = "requirements with hashes are taken as they are";
            let label = "nothing takes the place of one";
            let problem = at.problem("imgdecl::pip::inputs", first.span(), message, label);
            let help = "make the file anew with the override (`uv pip compile --override`), or take the hashes out";
            collect.0.push(problem.help(help));
        }
        if let (Some(_), Some(other)) = (&table.project, &table.pyproject) {
            let message = "`project` installs what its pyproject.toml asks for, too";
            let problem = at.problem("imgdecl::pip::inputs", other.span(), message, "said twice");
            collect.0.push(problem.help("take `pyproject` out"));
        }
        let asks = !table.requirements.is_empty()
            || !table.packages.is_empty()
            || table.project.is_some()
            || table.pyproject.is_some();
        let count = foreign::count(table);
        if !asks && count == 0 {
            let message = "nothing is asked for";
            collect.0.push(
                at.problem(
                    "imgdecl::pip::inputs",
                    at.span.clone(),
                    message,
                    "no packages",
                )
                .help("write `requirements`, `packages`, `pyproject`, `project` or `lock`"),
            );
        }
        if foreign.is_some() && (asks || count > 1 || !table.overrides.is_empty()) {
            let message = "a lock of another tool is taken as it is";
            collect.0.push(
                at.problem(
                    "imgdecl::pip::inputs",
                    at.span.clone(),
                    message,
                    "and more is asked for",
                )
                .help("ask for the rest in a target of its own"),
            );
        }
        if let Some(time) = &table.exclude_newer
            && humantime::parse_rfc3339_weak(time.get_ref()).is_err()
        {
            let message = format!("`{}` is no time", time.get_ref());
            let label = "expected as \"2026-11-01T00:00:00Z\"";
            let problem = at.problem("imgdecl::pip::exclude_newer", time.span(), message, label);
            collect.0.push(problem);
        }
        let own_time = table.exclude_newer.clone().map(Spanned::into_inner);
        let reach = Reach::new(&requested, &real_root, &mut errors);
        for error in errors {
            collect.0.push(problem(&error));
        }
        let digest = digest(table, &requested, &reach, &texts.read.borrow(), &said);
        let meant = Meant::new(table, &requested, &reach, texts.read.take(), &said);
        let links = find_links.into_iter().map(|(path, _)| root.join(path));
        collect.finish(Self {
            requested,
            foreign,
            projects,
            never: lower.never.clone(),
            find_links: links.collect(),
            reach: Arc::new(reach),
            root: root.to_path_buf(),
            exclude_newer: own_time.or(exclude_newer),
            requires_python,
            digest,
            meant,
        })
    }

    /// Tells whether a pin is of what is asked for: of the same bytes, or of what means the same.
    pub(super) fn is_of(&self, pin: &PipPin) -> bool {
        let is_meant = |means| means == self.meant.digest();
        pin.inputs == self.digest || pin.means.is_some_and(is_meant)
    }

    /// Refuses a target whose Python the project is not for. A patch version that is not known may be any.
    fn check_python(&self, target: &PythonTarget) -> Result<(), InputError> {
        let Some((needs, place)) = &self.requires_python else {
            return Ok(());
        };
        let mut last = target.clone();
        last.python.patch = target.python.patch.or(Some(999));
        let fits = |it: &PythonTarget| needs.contains(&it.markers().python_full_version().version);
        if fits(target) || fits(&last) {
            return Ok(());
        }
        let message = format!(
            "this project is for Python {needs}, and the target has {}",
            target.python
        );
        let help = "change `requires-python` of the project, or take another `python`, or a base that has one";
        Err(place.error("imgdecl::python::pyproject", message, help))
    }

    /// Refuses requirements that name wheels of the workspace which are not there.
    pub(super) fn check_paths(&self, target: &PythonTarget) -> Result<(), ActionError> {
        let markers = target.markers();
        let asked = self.requested.asked.iter().chain(&self.requested.overrides);
        let mut lost = Vec::new();
        for asked in asked.filter(|it| it.requirement.marker.evaluate(&markers, &[])) {
            let path = asked
                .url
                .as_ref()
                .filter(|it| it.is_local)
                .map(|it| it.link.as_str());
            if let Some(path) = path
                && !self.root.join(path).exists()
            {
                lost.push((path, &asked.place));
            }
        }
        let Some((first, _)) = lost.first() else {
            return Ok(());
        };
        let more = match lost.len() {
            1 => String::new(),
            count => format!(", nor {} more", count - 1),
        };
        let places = lost.iter().map(|(_, place)| origin(place));
        Err(
            ActionError::new("imgdecl::python::file", format!("there is no file {first}{more}"))
                .at_all(places)
                .help("a path begins at the folder of the file that names it: make the wheel first, or mend the path"),
        )
    }

    /// Says that nothing of what is asked for holds for a target, where something is asked for.
    pub(super) fn nothing(&self, target: &PythonTarget) -> Option<String> {
        let asked = &self.requested.asked;
        let markers = target.markers();
        let holds = |it: &Asked| it.requirement.marker.evaluate(&markers, &[]);
        let is_none = self.foreign.is_none() && !asked.is_empty() && !asked.iter().any(holds);
        is_none.then(|| {
            format!(
                "nothing is installed for {}: no marker holds there, as that of `{}`",
                target.name(),
                asked[0].requirement
            )
        })
    }

    /// Tells whether what is asked for names digests itself: a replaced wheel is wrong then, and nothing new.
    pub(super) fn is_locked(&self) -> bool {
        self.foreign.is_some() || self.requested.options.is_hashed
    }

    /// Returns the lock that the requirements are by themselves, if they have hashes, or that another tool made.
    pub(super) fn locked(&self, target: &PythonTarget) -> Result<Option<LockSet>, InputError> {
        self.check_python(target)?;
        match &self.foreign {
            Some(foreign) => Ok(Some(self.with_projects(foreign.read(target)?))),
            None => Ok(hashed(&self.requested, target)),
        }
    }

    /// Takes the projects out of a lock that wheels take the place of, and those that are not there.
    fn with_projects(&self, mut set: LockSet) -> LockSet {
        for project in std::mem::take(&mut set.projects) {
            let version = project.version.as_ref();
            let version = version
                .filter(|it| self.is_built(&project.name, it))
                .cloned();
            let LockedProject {
                name,
                folder,
                place,
                ..
            } = project.clone();
            match version {
                Some(version) => set.packages.push(Locked {
                    name,
                    version,
                    wheels: Vec::new(),
                    hashes: Vec::new(),
                    index: None,
                    place,
                }),
                None if self.folder(&folder).is_project() => set.projects.push(project),
                None => set.warnings.push(left_out_folder(&name, &folder)),
            }
        }
        set.packages.sort_by(|a, b| a.name.cmp(&b.name));
        set.warnings.sort();
        set
    }

    fn folder(&self, folder: &str) -> HostFolder {
        HostFolder::new(&self.root, folder, &self.never)
    }

    /// Tells whether a wheel of a version lies in a folder of wheels.
    fn is_built(&self, name: &PackageName, version: &pep440_rs::Version) -> bool {
        let folders = self
            .find_links
            .iter()
            .filter_map(|it| std::fs::read_dir(it).ok());
        let files = folders.flatten().flatten().map(|it| it.file_name());
        let mut wheels = files.filter_map(|it| WheelName::parse(it.to_str()?).ok());
        wheels.any(|it| it.name == *name && it.version == *version)
    }

    /// Returns the projects whose wheels are made here, for a target: those that are asked for, or those of a lock.
    pub(super) fn own(&self, target: &PythonTarget) -> Result<Vec<Own>, InputError> {
        let markers = target.markers();
        let asked = self.projects.iter();
        let asked = asked.filter(|it| it.marker.evaluate(&markers, &[]));
        let mut own: Vec<Own> = asked.cloned().collect();
        // What is wrong with the lock itself is told when it is taken.
        let names = self.foreign.as_ref().is_some_and(Foreign::names_projects);
        let set = names.then(|| self.locked(target).ok().flatten()).flatten();
        for project in set.map(|it| it.projects).unwrap_or_default() {
            let folder = self.folder(&project.folder);
            let path = match project.folder.as_str() {
                "" => "pyproject.toml".to_owned(),
                folder => format!("{folder}/pyproject.toml"),
            };
            let wheel = crate::python::project::wheel(&folder, &path)?;
            if wheel.name != project.name {
                let message = format!(
                    "the lock has `{}` in the folder `{}`, which holds `{}`",
                    project.name, project.folder, wheel.name
                );
                let help = "run `uv lock` again";
                return Err(project
                    .place
                    .error("imgdecl::python::project", message, help));
            }
            own.push(Own {
                folder: project.folder,
                wheel: Arc::new(wheel),
                marker: pep508_rs::MarkerTree::TRUE,
            });
        }
        Ok(own)
    }
}

/// Turns an error of an input into problems.
pub(super) fn problems(error: &InputError) -> Problems {
    let mut problems = Problems::default();
    problems.push(problem(error));
    problems
}

/// Reads which project of a uv.lock is meant, and where the manifest says it.
fn package_of(
    table: &PipTable,
    at: &Table,
    here: impl Fn(&Spanned<String>) -> Place,
) -> Result<Option<(PackageName, Place)>, Problem> {
    let Some(value) = &table.package else {
        return Ok(None);
    };
    let code = "imgdecl::pip::package";
    if table.uv_lock.is_none() && table.lock.is_none() {
        let message = "`package` is a project of `uv_lock`, which is not there";
        let problem = at.problem(code, value.span(), message, "of which lock?");
        return Err(problem.help(
            "to install a package, write packages = [\"NAME\"]; to take a project of a uv.lock, name the lock too",
        ));
    }
    match PackageName::from_str(value.get_ref()) {
        Ok(name) => Ok(Some((name, here(value)))),
        Err(error) => Err(at.problem(code, value.span(), error.to_string(), "not a name")),
    }
}

/// Turns an error of an input into a problem that underlines its place, in whatever file that is.
fn problem(error: &InputError) -> Problem {
    let source = Arc::new(crate::graph::SourceText {
        name: error.place.source.name.clone(),
        text: error.place.source.text.clone(),
    });
    let span = error.place.span.clone();
    let help = error.help.clone();
    let problem = Problem::new(error.code, &source, span, error.message.clone(), "");
    match help.is_empty() {
        true => problem,
        false => problem.help(help),
    }
}

/// Hashes all that decides what is resolved, as it is written.
fn digest(
    table: &PipTable,
    requested: &Requested,
    reach: &Reach,
    texts: &BTreeMap<String, String>,
    needs: &[String],
) -> Digest {
    let mut hasher = Hasher::default();
    let mut field = |name: &str, value: &str| {
        hasher.update(format!("{name} {}\n", value.len()).as_bytes());
        hasher.update(value.as_bytes());
    };
    field("inputs", "1");
    for package in &table.packages {
        field("package", package.get_ref());
    }
    for (path, text) in texts {
        field("path", path);
        field("text", text);
    }
    for (name, list) in [("extra", &table.extras), ("group", &table.groups)] {
        list.iter().for_each(|value| field(name, value));
    }
    for link in &table.find_links {
        field("find_links", link.get_ref());
    }
    if let Some(project) = &table.package {
        field("project", project.get_ref());
    }
    if let Some(time) = &table.exclude_newer {
        field("exclude_newer", time.get_ref());
    }
    if let Some(project) = &table.project {
        field("own project", project.get_ref());
    }
    needs.iter().for_each(|text| field("needs", text));
    // What is locked without it was found elsewhere.
    if let Some(reach) = reach.text() {
        field("reach", &reach);
    }
    for text in &table.overrides {
        field("override", text.get_ref());
    }
    // What a project says of these was not obeyed once.
    let of_project = requested.overrides.len() - table.overrides.len();
    if of_project > 0 {
        field("overrides", &of_project.to_string());
    }
    // The texts do not hold what variables gave them.
    expanded(requested).for_each(|text| field("expanded", &text));
    field("asked", &requested.asked.len().to_string());
    hasher.finish()
}
