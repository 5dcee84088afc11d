//! Projects of the workspace whose wheels are made here: which are asked for, what they need, and where they are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pep508_rs::{ExtraName, MarkerTree, PackageName};

use crate::python::project::{self, Folder, Kind, Listed, Wheel};
use crate::python::{
    Asked, AskedFolder, Direct, Files, InputError, Names, Place, Requested, WheelName, WheelUrl,
};
use crate::source::read_document;

/// The code for projects that cannot be taken.
const CODE: &str = "imgdecl::python::project";

/// The files by which a folder is known as a project.
const PROJECT: [&str; 3] = ["pyproject.toml", "setup.py", "setup.cfg"];

/// How many folders one target may lead to.
const MANY: usize = 1000;

/// A project whose wheel is made here.
#[derive(Clone, Debug)]
pub(super) struct Own {
    /// The folder, from the workspace's root.
    pub(super) folder: String,
    /// What its wheel holds.
    pub(super) wheel: Arc<Wheel>,
    /// Where it is asked for.
    pub(super) marker: MarkerTree,
}

/// A folder of the host, within the workspace.
pub(super) struct HostFolder {
    /// The workspace's root, without symlinks.
    root: PathBuf,
    /// The folder, from there.
    folder: String,
    /// Its name for people.
    name: String,
    /// Paths that are never inputs.
    never: Arc<BTreeSet<PathBuf>>,
}

impl HostFolder {
    /// Takes a folder below the workspace's root.
    pub(super) fn new(root: &Path, folder: &str, never: &Arc<BTreeSet<PathBuf>>) -> Self {
        Self {
            root: root.canonicalize().unwrap_or_else(|_| root.to_path_buf()),
            folder: folder.to_owned(),
            name: match folder {
                "" => ".".to_owned(),
                folder => folder.to_owned(),
            },
            never: never.clone(),
        }
    }

    /// Returns the path on the host.
    pub(super) fn path(&self) -> PathBuf {
        self.root.join(&self.folder)
    }

    /// Tells whether it holds a project.
    pub(super) fn is_project(&self) -> bool {
        PROJECT.iter().any(|it| self.path().join(it).is_file())
    }

    /// Makes sure that a path is in the workspace, whatever links it leads through.
    fn inside(&self, path: &Path) -> Result<(), String> {
        let real = path.canonicalize().map_err(|error| error.to_string())?;
        match real.starts_with(&self.root) {
            true => Ok(()),
            false => Err("it lies outside of the workspace".to_owned()),
        }
    }

    fn read_at(&self, path: &Path) -> Result<Option<Vec<u8>>, String> {
        match fs::metadata(path) {
            Ok(found) if found.is_file() => {}
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => return Ok(None),
            Err(error) => return Err(error.to_string()),
        }
        self.inside(path)?;
        read_document(path)
            .map(Some)
            .map_err(|error| error.to_string())
    }
}

impl Folder for HostFolder {
    fn name(&self) -> &str {
        &self.name
    }

    fn list(&self, path: &str) -> Result<Vec<Listed>, String> {
        let whole = self.path().join(path);
        let entries = match fs::read_dir(&whole) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
                return Ok(Vec::new());
            }
            Err(error) => return Err(error.to_string()),
        };
        self.inside(&whole)?;
        let mut listed = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| error.to_string())?;
            if self.never.contains(&entry.path()) {
                continue;
            }
            let name = entry.file_name().into_string();
            let name = name.map_err(|_| "a name in it is not UTF-8".to_owned())?;
            let own = entry.metadata().map_err(|error| error.to_string())?;
            // A link that leads nowhere is a file that cannot be read.
            let found = match own.is_symlink() {
                true => fs::metadata(entry.path()).unwrap_or_else(|_| own.clone()),
                false => own.clone(),
            };
            let kind = match (found.is_dir(), own.is_symlink()) {
                (true, true) => Kind::Link,
                (true, false) => Kind::Folder,
                (false, _) => Kind::File(found.permissions().mode() & 0o100 != 0),
            };
            listed.push(Listed { name, kind });
        }
        listed.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(listed)
    }

    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, String> {
        self.read_at(&self.path().join(path))
    }

    fn nearest(&self, name: &str, boundary: &str) -> Result<Option<Vec<u8>>, String> {
        let mut folder = self.path();
        loop {
            if let Some(found) = self.read_at(&folder.join(name))? {
                return Ok(Some(found));
            }
            let is_end = folder == self.root || folder.join(boundary).exists();
            match folder.parent().filter(|_| !is_end) {
                Some(above) => folder = above.to_path_buf(),
                None => return Ok(None),
            }
        }
    }
}

/// Follows projects to those that they need as folders.
pub(super) struct Walk<'a> {
    /// The workspace's root, without symlinks.
    pub(super) root: &'a Path,
    /// Texts of the workspace: what is read decides what is asked for.
    pub(super) files: &'a dyn Files,
    /// Paths that are never inputs.
    pub(super) never: &'a Arc<BTreeSet<PathBuf>>,
    /// Folders with wheels: one there takes the place of the sources.
    pub(super) find_links: &'a [PathBuf],
    /// The packages that something else takes the place of.
    pub(super) overridden: &'a Names,
}

/// What is to be followed.
struct Open {
    folder: String,
    name: Option<PackageName>,
    extras: Vec<String>,
    groups: Vec<String>,
    marker: MarkerTree,
    place: Place,
    refused: Option<InputError>,
}

/// What the walk found.
#[derive(Default)]
pub(super) struct Found {
    /// The projects, by folder.
    pub(super) own: BTreeMap<String, Own>,
    /// What they need.
    pub(super) requested: Requested,
    /// The Pythons that the first is for, and what it says of times and indexes.
    pub(super) first: Option<crate::python::Project>,
    /// What METADATA says that projects need, where no table does.
    pub(super) said: Vec<String>,
}

impl Walk<'_> {
    /// Returns all projects that `asked` leads to. `first` is the project of the manifest, with its extras and groups.
    pub(super) fn run(
        &self,
        first: Option<(String, Place, Vec<String>, Vec<String>)>,
        asked: &[AskedFolder],
    ) -> Result<Found, InputError> {
        let mut found = Found::default();
        let mut open: Vec<Open> = Vec::new();
        for folder in asked.iter().rev() {
            open.push(self.opened(folder, MarkerTree::TRUE)?);
        }
        let mut is_first = first.is_some();
        open.extend(first.map(|(folder, place, extras, groups)| Open {
            folder,
            name: None,
            extras,
            groups,
            marker: MarkerTree::TRUE,
            place,
            refused: None,
        }));
        let mut seen: BTreeSet<(String, Vec<String>, String)> = BTreeSet::new();
        while let Some(next) = open.pop() {
            let marker = next.marker.try_to_string().unwrap_or_default();
            if !seen.insert((next.folder.clone(), next.extras.clone(), marker)) {
                continue;
            }
            if seen.len() > MANY {
                let message = format!("this leads to more than {MANY} folders");
                return Err(next.place.error(CODE, message, "name a lock instead"));
            }
            let Some(project) = self.one(&next, &mut found)? else {
                is_first = false;
                continue;
            };
            for folder in &project.requested.folders {
                open.push(self.opened(folder, next.marker.clone())?);
            }
            self.add(project, &next, std::mem::take(&mut is_first), &mut found)?;
        }
        Ok(found)
    }

    /// Finds the folder that is asked for.
    fn opened(&self, asked: &AskedFolder, marker: MarkerTree) -> Result<Open, InputError> {
        let folder = match &asked.path {
            None => self.member(asked)?,
            Some(path) => match path.strip_prefix('/') {
                None => path.clone(),
                Some(_) => {
                    let below = Path::new(path).strip_prefix(self.root).ok();
                    let below = below.and_then(Path::to_str).map(str::to_owned);
                    below.ok_or_else(|| asked.refused.clone())?
                }
            },
        };
        if folder.split('/').any(|it| it == "..") {
            return Err(asked.refused.clone());
        }
        Ok(Open {
            folder,
            name: asked.name.clone(),
            extras: asked.extras.iter().map(ExtraName::to_string).collect(),
            groups: Vec::new(),
            marker: project::both(marker, asked.marker.clone()),
            place: asked.place.clone(),
            refused: Some(asked.refused.clone()),
        })
    }

    /// Finds a project by its name, in the workspace of uv that a file belongs to.
    fn member(&self, asked: &AskedFolder) -> Result<String, InputError> {
        let mut folder = asked.place.source.name.as_str();
        while let Some((above, _)) = folder
            .rsplit_once('/')
            .or((!folder.is_empty()).then_some(("", "")))
        {
            folder = above;
            let path = match folder {
                "" => "pyproject.toml".to_owned(),
                folder => format!("{folder}/pyproject.toml"),
            };
            let Ok(text) = self.files.read(&path) else {
                continue;
            };
            let host = HostFolder::new(self.root, folder, self.never);
            let Some(members) = project::members(&host, &path, &text)? else {
                continue;
            };
            for member in members {
                let below = [folder, &member].into_iter().filter(|it| !it.is_empty());
                let member = below.collect::<Vec<_>>().join("/");
                let path = match member.as_str() {
                    "" => "pyproject.toml".to_owned(),
                    member => format!("{member}/pyproject.toml"),
                };
                let text = self.files.read(&path).unwrap_or_default();
                if project::named(&text).is_some() && project::named(&text) == asked.name {
                    return Ok(member);
                }
            }
        }
        Err(asked.refused.clone())
    }

    /// Reads one project. `None` where a wheel takes its place.
    fn one(
        &self,
        next: &Open,
        found: &mut Found,
    ) -> Result<Option<crate::python::Project>, InputError> {
        let host = HostFolder::new(self.root, &next.folder, self.never);
        if !host.is_project() {
            let message = format!("the folder `{}` holds no project", host.name());
            let help = "a project is a folder with a pyproject.toml, or with a setup.cfg";
            let error = || next.place.error(CODE, message, help);
            return Err(next.refused.clone().unwrap_or_else(error));
        }
        let path = match next.folder.as_str() {
            "" => "pyproject.toml".to_owned(),
            folder => format!("{folder}/pyproject.toml"),
        };
        // It may be described by setup.cfg alone.
        let text = self.files.read(&path).unwrap_or_default();
        let name = project::named(&text).or_else(|| next.name.clone());
        if let Some((wheel, link)) = name.as_ref().and_then(|it| self.built(it)) {
            let words = format!(
                "the wheel {link} takes the place of the folder `{}`",
                host.name()
            );
            found.requested.warnings.push(words);
            found.requested.asked.push(replaced(next, wheel, link)?);
            return Ok(None);
        }
        let wheel = project::wheel(&host, &path)?;
        if let Some(name) = next.name.as_ref().filter(|it| **it != wheel.name) {
            let message = format!(
                "`{name}` is asked for, and the folder holds `{}`",
                wheel.name
            );
            return Err(next
                .place
                .error(CODE, message, "mend the name, or the path"));
        }
        let project = project::needs(
            &wheel,
            (&path, &text),
            &next.extras,
            &next.groups,
            self.overridden,
        )?;
        if project.requested.files.is_empty() {
            let needs = wheel.metadata.requires.iter().map(ToString::to_string);
            found.said.extend(needs);
        }
        let own = found.own.entry(next.folder.clone()).or_insert_with(|| Own {
            folder: next.folder.clone(),
            wheel: Arc::new(wheel),
            marker: MarkerTree::FALSE,
        });
        own.marker.or(next.marker.clone());
        Ok(Some(project))
    }

    /// Adds what a project needs, where it is asked for.
    fn add(
        &self,
        mut project: crate::python::Project,
        next: &Open,
        is_first: bool,
        found: &mut Found,
    ) -> Result<(), InputError> {
        for asked in &mut project.requested.asked {
            let marker = std::mem::replace(&mut asked.requirement.marker, MarkerTree::TRUE);
            asked.requirement.marker = project::both(marker, next.marker.clone());
        }
        let own = std::mem::take(&mut project.requested);
        let mut requested = own.clone();
        requested.folders.clear();
        if is_first {
            found.first = Some(project);
        } else {
            // What a project says to its own tool holds for itself alone.
            requested.constraints.clear();
            requested.overrides.clear();
            let known = &found.requested.options.project;
            if known.is_some() && own.options.project.is_some() && own.options.project != *known {
                let message = format!("`{}` names other indexes than what needs it", next.folder);
                let help =
                    "name them under `[index]`, and take them out there; or name a lock instead";
                return Err(next.place.error(CODE, message, help));
            }
        }
        found.requested.extend(requested);
        Ok(())
    }

    /// Returns the wheel of a package that lies in a folder of wheels, and where.
    fn built(&self, name: &PackageName) -> Option<(WheelName, String)> {
        let mut best: Option<(WheelName, String)> = None;
        for folder in self.find_links {
            for entry in fs::read_dir(folder).ok()?.flatten() {
                let Some(wheel) = entry
                    .file_name()
                    .to_str()
                    .and_then(|it| WheelName::parse(it).ok())
                else {
                    continue;
                };
                let path = entry.path();
                let below = path.strip_prefix(self.root).ok().and_then(Path::to_str);
                let is_newer = best.as_ref().is_none_or(|it| it.0.version < wheel.version);
                if let Some(below) = below.filter(|_| wheel.name == *name && is_newer) {
                    best = Some((wheel, below.to_owned()));
                }
            }
        }
        best
    }
}

/// Makes the requirement of a wheel that takes the place of a project.
fn replaced(next: &Open, wheel: WheelName, path: String) -> Result<Asked, InputError> {
    let fail = |error: String| next.place.error(CODE, error, "rename the wheel");
    let link = WheelUrl::new(&path).map_err(|error| fail(error.to_string()))?;
    let extras: Result<Vec<ExtraName>, _> = next.extras.iter().map(|it| it.parse()).collect();
    Ok(Asked {
        requirement: crate::python::Requirement {
            name: wheel.name.clone(),
            extras: extras.map_err(|_| fail("an extra has no good name".to_owned()))?,
            version_or_url: Some(pep508_rs::VersionOrUrl::Url(link.clone())),
            marker: next.marker.clone(),
            origin: None,
        },
        hashes: Vec::new(),
        place: next.place.clone(),
        url: Some(Direct {
            wheel,
            link,
            is_local: true,
        }),
    })
}
