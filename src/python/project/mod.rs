//! Projects as wheels, without running code: what the back end of a project would put into its wheel, where that can be read
//! as data (PyPA specifications, "pyproject.toml"; PEP 517). Each back end has a file here, and a version that it is as.
//!
//! What cannot be read so is refused, and never guessed: hooks, scripts, extensions, versions from version control. Folders
//! come in through a trait; nothing here opens a file.

mod attribute;
mod core;
mod flit;
mod glob;
mod hatchling;
mod hatchling_metadata;
mod ignored;
mod licence;
mod manifest;
mod needs;
mod poetry;
mod poetry_files;
mod poetry_words;
mod requirement;
mod setup_cfg;
mod setuptools;
mod setuptools_files;
mod uv_build;
mod zip;

use std::collections::BTreeMap;
use std::sync::Arc;

use pep440_rs::Version;
use pep508_rs::PackageName;

use super::place::{InputError, Place, Source};
use super::table::{Node, Root};
use super::{Metadata, pep508};

pub(crate) use needs::{both, members, named, needs};
pub(crate) use zip::{Member, archive};

/// The code for projects whose wheel is not made.
const CODE: &str = "imgdecl::python::project";

/// How large a text of a project may be, in bytes.
const TEXT: usize = 16 << 20;

/// Says how to get at the wheel of a project that is refused.
fn way_out(folder: &str) -> String {
    let folder = match folder {
        "." => ".".to_owned(),
        folder => format!("./{folder}"),
    };
    format!(
        "build its wheel (`pip wheel --no-deps -w wheels {folder}`), and point `find_links` at the folder of the wheel: it takes the \
         place of the sources"
    )
}

/// The folder of a project.
pub trait Folder {
    /// Returns its name for people, from the workspace's root: `libs/common`, or `.`.
    fn name(&self) -> &str;

    /// Lists a folder below it, by name. `path` is empty for itself. Empty where there is no such folder.
    ///
    /// # Errors
    /// When it cannot be read: says why.
    fn list(&self, path: &str) -> Result<Vec<Listed>, String>;

    /// Reads a file below it; `None` if there is no such file.
    ///
    /// # Errors
    /// When it cannot be read: says why.
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, String>;

    /// Reads the nearest file of a name, in it or in a folder above it, up to the first that has `boundary`.
    ///
    /// # Errors
    /// When it cannot be read: says why.
    fn nearest(&self, name: &str, boundary: &str) -> Result<Option<Vec<u8>>, String>;
}

/// Something in a folder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
}

/// What something in a folder is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A file, or a symlink to one. Whether its owner may execute it.
    File(bool),
    /// A folder.
    Folder,
    /// A symlink to a folder.
    Link,
}

/// A file of a wheel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Part {
    /// A file of the project, by its path, and whether it may be executed.
    File(String, bool),
    /// A text that was made.
    Text(Vec<u8>),
}

/// What a wheel holds, but for its RECORD.
#[derive(Clone, Debug)]
pub struct Wheel {
    /// The name of the package.
    pub name: PackageName,
    /// Its version.
    pub version: Version,
    /// The name of the wheel's file.
    pub file: String,
    /// `NAME-VERSION`, as the dist-info folder has it.
    pub stem: String,
    /// The files, by their paths in the wheel.
    pub parts: BTreeMap<String, Part>,
    /// The METADATA.
    pub metadata: Metadata,
}

/// Returns what the wheel of a project holds.
///
/// # Errors
/// When it cannot be told without running code: says what, where, and what to do instead.
pub fn wheel(folder: &dyn Folder, path: &str) -> Result<Wheel, InputError> {
    let fail = |source: &Arc<Source>, why: String| {
        let message = format!("{path} cannot be read: {why}");
        Place::new(source, 0..0).error(CODE, message, way_out(folder.name()))
    };
    let nothing = Source::shared(path, "");
    let bytes = folder.read("pyproject.toml");
    let bytes = bytes.map_err(|why| fail(&nothing, why))?;
    let text = String::from_utf8(bytes.unwrap_or_default());
    let text = text.map_err(|_| fail(&nothing, "it is no UTF-8".to_owned()))?;
    let source = Source::shared(path, &text);
    let root = Root::parse(&source)?;
    let ground = Ground {
        folder,
        root: &root,
        project: root.get("project"),
    };
    let end = ground.back_end()?;
    match end.as_str() {
        "hatchling.build" => hatchling::wheel(&ground),
        "flit_core.buildapi" => flit::wheel(&ground),
        "poetry.core.masonry.api" => poetry::wheel(&ground),
        "uv_build" => uv_build::wheel(&ground),
        "setuptools.build_meta" | "setuptools.build_meta:__legacy__" => setuptools::wheel(&ground),
        other => Err(ground.refuse(
            ground.at(&["build-system", "build-backend"]),
            format!("its back end `{other}` is not known"),
        )),
    }
}

/// A project as it lies there.
struct Ground<'a> {
    folder: &'a dyn Folder,
    root: &'a Root<'a>,
    /// The table `[project]`.
    project: Option<Node<'a>>,
}

impl<'a> Ground<'a> {
    /// Returns the value at a path of keys.
    fn get(&self, keys: &[&str]) -> Option<Node<'a>> {
        let (first, rest) = keys.split_first()?;
        let first = self.root.get(first);
        rest.iter().fold(first, |node, key| node?.get(key))
    }

    /// Returns where the value at a path of keys stands; the beginning of the text if there is none.
    fn at(&self, keys: &[&str]) -> Place {
        let node = self.get(keys);
        node.map_or_else(|| self.root.place(), |it| it.place())
    }

    /// Makes the error of a project whose wheel is not made.
    fn refuse(&self, place: Place, why: impl AsRef<str>) -> InputError {
        let name = self.folder.name();
        let message = format!(
            "the wheel of `{name}` cannot be made without running code: {}",
            why.as_ref()
        );
        place.error(CODE, message, way_out(name))
    }

    /// Makes the same error, of the whole project.
    fn fail(&self, why: impl AsRef<str>) -> InputError {
        self.refuse(self.root.place(), why)
    }

    /// Names the back end. Refuses one that lies in the project itself.
    fn back_end(&self) -> Result<String, InputError> {
        let Some(system) = self.root.get("build-system") else {
            return Ok("setuptools.build_meta:__legacy__".to_owned());
        };
        if let Some(path) = system.get("backend-path") {
            return Err(self.refuse(path.place(), "its back end is code of its own"));
        }
        let named = system.text_of("build-backend")?;
        Ok(named
            .unwrap_or("setuptools.build_meta:__legacy__")
            .to_owned())
    }

    /// Returns the newest of the `known` versions of the back end that the project takes, which come oldest first. Refuses what
    /// else it wants for its build, but for `also`.
    fn version_of(
        &self,
        back_end: &str,
        known: &'static [&'static str],
        also: &[&str],
    ) -> Result<&'static str, InputError> {
        let mut fitting = known.to_vec();
        let requires = self.get(&["build-system", "requires"]);
        for item in requires.map_or(Ok(Vec::new()), |it| it.list())? {
            let text = item.text()?;
            let read = pep508::requirement(text);
            let read = read.map_err(|error| self.refuse(item.place(), error.message))?;
            let name = read.name.to_string();
            if name != back_end && !also.contains(&name.as_str()) {
                let why = format!("`{name}` takes part in its build");
                return Err(self.refuse(item.place(), why));
            }
            if name != back_end {
                continue;
            }
            if !read.extras.is_empty() {
                return Err(self.refuse(item.place(), "its back end has extras"));
            }
            match &read.version_or_url {
                None => {}
                Some(pep508_rs::VersionOrUrl::VersionSpecifier(wanted)) => {
                    fitting.retain(|it| it.parse::<Version>().is_ok_and(|it| wanted.contains(&it)));
                }
                Some(pep508_rs::VersionOrUrl::Url(_)) => {
                    return Err(self.refuse(item.place(), "its back end comes from a URL"));
                }
            }
            if fitting.is_empty() {
                let versions = known.join(", ");
                let why =
                    format!("it asks for `{text}`, and what is known is {back_end} {versions}");
                return Err(self.refuse(item.place(), why));
            }
        }
        fitting
            .pop()
            .ok_or_else(|| self.fail("no version of its back end is known"))
    }

    /// Lists a folder.
    fn list(&self, path: &str) -> Result<Vec<Listed>, InputError> {
        let listed = self.folder.list(path);
        listed.map_err(|why| self.fail(format!("{} cannot be read: {why}", self.shown(path))))
    }

    /// Names a path for people.
    fn shown(&self, path: &str) -> String {
        format!("{}/{path}", self.folder.name())
    }

    /// Returns what is at a path.
    fn kind(&self, path: &str) -> Result<Option<Kind>, InputError> {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let listed = self.list(folder)?;
        let found = listed.into_iter().find(|it| it.name == name);
        Ok(found.map(|it| it.kind))
    }

    /// Tells whether there is a file.
    fn is_file(&self, path: &str) -> Result<bool, InputError> {
        Ok(matches!(self.kind(path)?, Some(Kind::File(_))))
    }

    /// Tells whether there is a folder.
    fn is_folder(&self, path: &str) -> Result<bool, InputError> {
        Ok(matches!(self.kind(path)?, Some(Kind::Folder | Kind::Link)))
    }

    /// Reads a file as UTF-8.
    fn text(&self, path: &str) -> Result<String, InputError> {
        let fail = |why: &str| self.fail(format!("{} cannot be read: {why}", self.shown(path)));
        let bytes = self.folder.read(path).map_err(|why| fail(&why))?;
        let bytes = bytes.ok_or_else(|| fail("there is no such file"))?;
        if bytes.len() > TEXT {
            return Err(fail("it is too large for a text"));
        }
        String::from_utf8(bytes).map_err(|_| fail("it is no UTF-8"))
    }

    /// Reads a file as Python reads texts: ends of lines are `\n`.
    fn lines(&self, path: &str) -> Result<String, InputError> {
        let text = self.text(path)?;
        Ok(text.replace("\r\n", "\n").replace('\r', "\n"))
    }

    /// Returns all files below a folder, with whether they may be executed. `enter` says which folders are looked into, by
    /// path and name.
    fn walk(
        &self,
        start: &str,
        enter: &dyn Fn(&str, &str) -> bool,
    ) -> Result<Vec<(String, bool)>, InputError> {
        let mut open = vec![start.to_owned()];
        let mut files = Vec::new();
        while let Some(folder) = open.pop() {
            for Listed { name, kind } in self.list(&folder)? {
                let path = joined(&folder, &name);
                match kind {
                    Kind::File(executable) => files.push((path, executable)),
                    _ if !enter(&path, &name) => {}
                    Kind::Folder => open.push(path),
                    Kind::Link => {
                        let why = format!("{} is a symlink to a folder", self.shown(&path));
                        return Err(self.fail(why));
                    }
                }
            }
        }
        files.sort();
        Ok(files)
    }

    /// Refuses keys of a table that are not `known`.
    fn only(&self, table: &Node<'a>, known: &[&str], what: &str) -> Result<(), InputError> {
        for (key, value) in table.entries()? {
            if !known.contains(&key) {
                return Err(self.refuse(value.place(), format!("`{key}` of {what} is not known")));
            }
        }
        Ok(())
    }
}

/// Joins a path and a name.
fn joined(folder: &str, name: &str) -> String {
    match folder {
        "" => name.to_owned(),
        _ => format!("{folder}/{name}"),
    }
}

/// Takes `.`, empty parts and trailing `/` out of a path. `None` if it leads out of the folder.
fn normal(path: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    if path.starts_with('/') {
        return None;
    }
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Collects what a wheel holds.
struct Made {
    stem: String,
    parts: BTreeMap<String, Part>,
}

impl Made {
    /// Begins a wheel whose dist-info folder is of `stem`.
    fn new(stem: String) -> Self {
        Self {
            stem,
            parts: BTreeMap::new(),
        }
    }

    /// Adds a file of the project.
    fn file(&mut self, to: &str, from: &str, executable: bool) {
        let part = Part::File(from.to_owned(), executable);
        self.parts.insert(to.to_owned(), part);
    }

    /// Adds a text to the dist-info folder.
    fn text(&mut self, name: &str, text: impl Into<Vec<u8>>) {
        let path = format!("{}.dist-info/{name}", self.stem);
        self.parts.insert(path, Part::Text(text.into()));
    }

    /// Adds files to the folder of licences.
    fn licences<'b>(
        &mut self,
        ground: &Ground<'_>,
        files: impl IntoIterator<Item = &'b String>,
    ) -> Result<(), InputError> {
        for path in files {
            let executable = matches!(ground.kind(path)?, Some(Kind::File(true)));
            let to = format!("{}.dist-info/licenses/{path}", self.stem);
            self.file(&to, path, executable);
        }
        Ok(())
    }

    /// Ends the wheel. `tag` is the tag of its name.
    fn end(
        mut self,
        ground: &Ground<'_>,
        tag: &str,
        metadata: String,
    ) -> Result<Wheel, InputError> {
        let read = Metadata::parse(&metadata).map_err(|it| ground.fail(it.to_string()))?;
        self.text("METADATA", metadata);
        Ok(Wheel {
            name: read.name.clone(),
            version: read.version.clone(),
            file: format!("{}-{tag}.whl", self.stem),
            stem: self.stem,
            parts: self.parts,
            metadata: read,
        })
    }
}

/// Returns the name of a project as folders and files of wheels have it.
fn escaped(name: &str) -> String {
    let mut out = String::new();
    for char in name.chars() {
        match char {
            '-' | '_' | '.' if out.ends_with('_') => {}
            '-' | '_' | '.' => out.push('_'),
            other => out.extend(other.to_lowercase()),
        }
    }
    out
}

/// Returns the name of a project or an extra, normalised.
fn normalised(name: &str) -> String {
    escaped(name).replace('_', "-")
}

/// Writes a field of METADATA.
fn field(out: &mut String, name: &str, value: &str) {
    out.push_str(name);
    out.push_str(": ");
    out.push_str(value);
    out.push('\n');
}
