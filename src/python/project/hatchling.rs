//! The back end hatchling: files by patterns in git's grammar (`hatchling/builders`, `hatchling/metadata`).

use std::collections::BTreeMap;

use pep440_rs::Version;

use super::core::{Core, path, texts};
use super::glob::{self, Style};
use super::hatchling_metadata::metadata;
use super::ignored::Patterns;
use super::{Ground, Kind, Made, Wheel, attribute, escaped, joined, normal, normalised};
use crate::python::place::InputError;
use crate::python::{specifiers, table::Node};

/// The versions that this is as.
const KNOWN: &[&str] = &["1.33.0"];

/// Folders that are never looked into.
const NEVER: &[&str] = &[
    "__pycache__",
    ".venv",
    ".git",
    ".hg",
    ".hatch",
    ".tox",
    ".nox",
    ".ruff_cache",
    ".pytest_cache",
    ".mypy_cache",
    ".pixi",
];

/// Files that are never taken.
const NEVER_FILES: &[&str] = &[".DS_Store", ".git"];

/// The files that are licences where nothing is said.
const LICENCES: &[&str] = &["LICEN[CS]E*", "COPYING*", "NOTICE*", "AUTHORS*"];

/// Keys of the wheel's table that decide its files; those of `[tool.hatch.build]` are the same.
const KEYS: &[&str] = &[
    "artifacts",
    "bypass-selection",
    "dev-mode-dirs",
    "dev-mode-exact",
    "directory",
    "exclude",
    "force-include",
    "hooks",
    "ignore-vcs",
    "include",
    "only-include",
    "only-packages",
    "packages",
    "reproducible",
    "shared-data",
    "skip-excluded-dirs",
    "sources",
    "strict-naming",
    "targets",
    "versions",
];

/// Returns what the wheel holds.
pub(super) fn wheel(ground: &Ground<'_>) -> Result<Wheel, InputError> {
    let own = ground.version_of("hatchling", KNOWN, &[])?;
    if ground.is_file("hatch.toml")? {
        return Err(ground.fail("it has a hatch.toml"));
    }
    hooks(ground)?;
    let core = Core::read(ground, false)?;
    let config = Config::read(ground, &core)?;
    let (version, original) = version(ground, &core)?;
    let mut made = Made::new(format!("{}-{version}", escaped(core.name)));
    config.select(&mut made)?;
    let stem = made.stem.clone();
    let shared = config.map("shared-data")?;
    for (to, from, executable) in config.explicit(&shared)? {
        made.file(&format!("{stem}.data/data/{to}"), &from, executable);
    }
    let licences = licences(ground, &core)?;
    made.licences(ground, &licences)?;
    let mut points = String::new();
    let mut others = core.entry_points.clone();
    others.sort();
    let scripts = core.groups().into_iter();
    let scripts = scripts.take_while(|it| matches!(it.0, "console_scripts" | "gui_scripts"));
    for (group, mut pairs) in scripts.chain(others) {
        pairs.sort_unstable();
        points += &format!("\n[{group}]\n");
        for (name, reference) in pairs {
            points += &format!("{name} = {reference}\n");
        }
    }
    if !points.is_empty() {
        made.text("entry_points.txt", points.trim_start().to_owned());
    }
    let tags = tags(ground, &core)?;
    let mut wheel =
        format!("Wheel-Version: 1.0\nGenerator: hatchling {own}\nRoot-Is-Purelib: true\n");
    for tag in &tags {
        wheel += &format!("Tag: {tag}-none-any\n");
    }
    made.text("WHEEL", wheel);
    let metadata = metadata(ground, &core, &original, &licences)?;
    made.end(ground, &format!("{}-none-any", tags.join(".")), metadata)
}

/// Refuses code that takes part.
fn hooks(ground: &Ground<'_>) -> Result<(), InputError> {
    for keys in [
        &["tool", "hatch", "build", "hooks"][..],
        &["tool", "hatch", "build", "targets", "wheel", "hooks"],
        &["tool", "hatch", "metadata", "hooks"],
    ] {
        let hooks = ground.get(keys);
        if let Some((name, hook)) = hooks.map_or(Ok(Vec::new()), |it| it.entries())?.first() {
            let off = hook.get("enable-by-default");
            if off.is_none_or(|it| it.is_true()) {
                let why = format!("the hook `{name}` is code that takes part in its build");
                return Err(ground.refuse(hook.place(), why));
            }
        }
    }
    Ok(())
}

/// Returns the version: normalised, and as it is written.
fn version(ground: &Ground<'_>, core: &Core<'_>) -> Result<(Version, String), InputError> {
    let place = ground.at(&["project", "dynamic"]);
    let text = match core.version {
        Some(text) => text.to_owned(),
        None => {
            let table = ground.get(&["tool", "hatch", "version"]);
            let text = |key: &str| table.map_or(Ok(None), |it| it.text_of(key));
            let source = text("source")?.unwrap_or("regex");
            // A source archive says what version control said.
            let said = match ground.is_file("PKG-INFO")? {
                true => said(&ground.lines("PKG-INFO")?),
                false => None,
            };
            let scheme = text("scheme")?.unwrap_or("standard");
            let odd = table.and_then(|it| it.get("pattern"));
            match (said, source, text("path")?) {
                (Some(version), _, _) => version,
                (None, "regex", Some(file)) if scheme == "standard" && odd.is_none() => {
                    let file = normal(file).ok_or_else(|| {
                        ground.refuse(place.clone(), "its version lies elsewhere")
                    })?;
                    let why = format!("no version stands in `{file}` as plain text");
                    attribute::by_pattern(&ground.lines(&file)?)
                        .ok_or_else(|| ground.refuse(place.clone(), why))?
                }
                (_, "regex", _) => {
                    return Err(ground.refuse(place, "how its version is found is not known"));
                }
                (_, source, _) => {
                    let why = format!("its version comes from `{source}`");
                    return Err(ground.refuse(place, why));
                }
            }
        }
    };
    if let Some(other) = core.dynamic.iter().find(|it| **it != "version") {
        return Err(ground.refuse(place, format!("its `{other}` is dynamic")));
    }
    let parsed: Result<Version, _> = text.trim().parse();
    let parsed = parsed.map_err(|_| ground.refuse(place, format!("`{text}` is no version")))?;
    Ok((parsed, text.trim().to_owned()))
}

/// Returns the version of a PKG-INFO.
fn said(text: &str) -> Option<String> {
    let head = text.lines().take_while(|it| !it.is_empty());
    let mut versions = head.filter_map(|it| it.strip_prefix("Version: "));
    versions.next().map(|it| it.trim().to_owned())
}

/// What decides the files.
struct Config<'a> {
    ground: &'a Ground<'a>,
    target: Option<Node<'a>>,
    build: Option<Node<'a>>,
    packages: Vec<String>,
    only: Vec<String>,
    sources: BTreeMap<String, String>,
    include: Patterns,
    exclude: Patterns,
    artifacts: Patterns,
    /// Where forced files come from and go to: not taken otherwise.
    forced: Vec<(String, String)>,
    /// Whether only forced files and artifacts are taken.
    nothing: bool,
}

impl<'a> Config<'a> {
    fn read(ground: &'a Ground<'a>, core: &Core<'_>) -> Result<Self, InputError> {
        let target = ground.get(&["tool", "hatch", "build", "targets", "wheel"]);
        let build = ground.get(&["tool", "hatch", "build"]);
        for (table, what) in [
            (target, "the wheel's table"),
            (build, "`[tool.hatch.build]`"),
        ] {
            if let Some(table) = table {
                ground.only(&table, KEYS, what)?;
            }
        }
        let mut config = Self {
            ground,
            target,
            build,
            packages: Vec::new(),
            only: Vec::new(),
            sources: BTreeMap::new(),
            include: Patterns::new(ground, [])?,
            exclude: Patterns::new(ground, [])?,
            artifacts: Patterns::new(ground, [])?,
            forced: Vec::new(),
            nothing: false,
        };
        for key in [
            "strict-naming",
            "only-packages",
            "skip-excluded-dirs",
            "reproducible",
        ] {
            if let Some(node) = config.get(key) {
                let why = format!("`{key}` of its wheel is not read");
                return Err(ground.refuse(node.place(), why));
            }
        }
        config.forced = config.map("force-include")?;
        let include = texts(config.get("include"))?;
        config.packages = paths(ground, config.get("packages"))?;
        let mut only = paths(ground, config.get("only-include"))?;
        if include.is_empty() && config.packages.is_empty() && only.is_empty() {
            only = config.default(core)?;
        }
        config.packages.sort();
        config.only = match only.is_empty() {
            true => config.packages.clone(),
            false => only,
        };
        config.sources = config.sources()?;
        let packages: Vec<String> = config.packages.iter().map(|it| format!("/{it}/")).collect();
        let all = include
            .into_iter()
            .chain(packages.iter().map(String::as_str));
        config.include = Patterns::new(ground, all)?;
        config.artifacts = Patterns::new(ground, texts(config.get("artifacts"))?)?;
        let ignored = match config.get("ignore-vcs").is_some_and(|it| it.is_true()) {
            true => String::new(),
            false => config.ignore_file()?,
        };
        let own = texts(config.get("exclude"))?;
        let all = ["*.py[cdo]", "/dist"]
            .into_iter()
            .chain(ignored.lines())
            .chain(own);
        config.exclude = Patterns::new(ground, all)?;
        Ok(config)
    }

    /// Returns the value of a key: the wheel's own, or that of all targets.
    fn get(&self, key: &str) -> Option<Node<'a>> {
        let own = self.target.and_then(|it| it.get(key));
        own.or_else(|| self.build.and_then(|it| it.get(key)))
    }

    /// Returns the ignore file that counts. Mercurial's is not read.
    fn ignore_file(&self) -> Result<String, InputError> {
        let fail = |why: String| {
            self.ground
                .fail(format!("its .gitignore cannot be read: {why}"))
        };
        if self.ground.is_file(".hgignore")? {
            return Err(self.ground.fail("it has an .hgignore"));
        }
        let bytes = self
            .ground
            .folder
            .nearest(".gitignore", ".git")
            .map_err(fail)?;
        let text = String::from_utf8(bytes.unwrap_or_default());
        text.map_err(|_| fail("it is no UTF-8".to_owned()))
    }

    /// Finds what is meant where nothing is said. Sets packages; returns single files.
    fn default(&mut self, core: &Core<'_>) -> Result<Vec<String>, InputError> {
        let ground = self.ground;
        let component = |name: &str| -> String {
            let mut out = String::new();
            for char in name.chars() {
                match char.is_alphanumeric() || matches!(char, '_' | '.') {
                    true => out.push(char),
                    false if out.ends_with('_') => {}
                    false => out.push('_'),
                }
            }
            out
        };
        for name in [component(core.name), component(&normalised(core.name))] {
            for folder in [name.clone(), format!("src/{name}")] {
                if ground.is_file(&joined(&folder, "__init__.py"))? {
                    self.packages = vec![folder];
                    return Ok(Vec::new());
                }
            }
            let module = format!("{name}.py");
            if ground.is_file(&module)? {
                return Ok(vec![module]);
            }
            let pattern = format!("*/{name}/__init__.py");
            let found = glob::find(ground, "", &pattern, Style::Flat)?;
            if let [(path, _)] = &found[..] {
                let top = path.split('/').next().unwrap_or_default();
                self.packages = vec![top.to_owned()];
                return Ok(Vec::new());
            }
        }
        let bypass = self.target.and_then(|it| it.get("bypass-selection"));
        if self.forced.is_empty() && !bypass.is_some_and(|it| it.is_true()) {
            let why = "no folder has its name, and nothing says which files are meant";
            return Err(ground.fail(why));
        }
        self.nothing = true;
        Ok(Vec::new())
    }

    fn sources(&self) -> Result<BTreeMap<String, String>, InputError> {
        let ground = self.ground;
        let mut sources = BTreeMap::new();
        if let Some(node) = self.get("sources") {
            if let Ok(list) = node.list() {
                for item in list {
                    sources.insert(
                        format!("{}/", path(ground, &item, item.text()?)?),
                        String::new(),
                    );
                }
            } else {
                for (from, to) in node.entries()? {
                    let to = normal(to.text()?).unwrap_or_default();
                    let to = if to.is_empty() { to } else { format!("{to}/") };
                    let from = normal(from).unwrap_or_default();
                    let from = if from.is_empty() {
                        from
                    } else {
                        format!("{from}/")
                    };
                    sources.insert(from, to);
                }
            }
        }
        for package in &self.packages {
            if let Some((folder, _)) = package.rsplit_once('/')
                && !sources.contains_key(&format!("{package}/"))
            {
                sources.insert(format!("{folder}/"), String::new());
            }
        }
        Ok(sources)
    }

    /// Returns the table of a key, from where to where.
    fn map(&self, key: &str) -> Result<Vec<(String, String)>, InputError> {
        let node = match key {
            "shared-data" => self.target.and_then(|it| it.get(key)),
            _ => self.get(key),
        };
        let mut map = Vec::new();
        for (from, to) in node.map_or(Ok(Vec::new()), |it| it.entries())? {
            let from = path(self.ground, &to, from)?;
            let to = normal(to.text()?.trim_matches('/')).unwrap_or_default();
            map.push((from, to));
        }
        map.sort_by(|a, b| {
            let key =
                |it: &(String, String)| (it.1.matches('/').count(), it.1.clone(), it.0.clone());
            key(a).cmp(&key(b))
        });
        Ok(map)
    }

    /// Returns the path in the wheel.
    fn place(&self, path: &str) -> String {
        for (from, to) in &self.sources {
            if from.is_empty() {
                return format!("{to}{path}");
            }
            if let Some(rest) = path.strip_prefix(from.as_str()) {
                return format!("{to}{rest}");
            }
        }
        path.to_owned()
    }

    /// Tells whether a file is taken.
    fn takes(&self, path: &str, explicit: bool) -> bool {
        let is_included = explicit || self.include.is_empty() || self.include.matches(path);
        self.artifacts.matches(path)
            || (!self.nothing && !self.exclude.matches(path) && is_included)
    }

    fn select(&self, made: &mut Made) -> Result<(), InputError> {
        let ground = self.ground;
        let enter = |_: &str, name: &str| !NEVER.contains(&name);
        let reserved: Vec<String> = self.forced.iter().map(|it| self.place(&it.0)).collect();
        if self.only.is_empty() {
            let enter =
                |path: &str, name: &str| enter(path, name) && !reserved.iter().any(|it| it == path);
            for (path, executable) in ground.walk("", &enter)? {
                let to = self.place(&path);
                let name = path.rsplit('/').next().unwrap_or_default();
                if !NEVER_FILES.contains(&name)
                    && !reserved.contains(&to)
                    && self.takes(&path, false)
                {
                    made.file(&to, &path, executable);
                }
            }
        } else {
            let same: Vec<(String, String)> = self
                .only
                .iter()
                .map(|it| (it.clone(), it.clone()))
                .collect();
            for (to, from, executable) in self.explicit(&same)? {
                made.file(&to, &from, executable);
            }
        }
        for (from, target) in &self.forced {
            let all = match ground.kind(from)? {
                Some(Kind::File(executable)) => vec![(from.clone(), executable)],
                Some(_) => ground.walk(from, &enter)?,
                None => return Err(ground.fail(format!("there is no {}", ground.shown(from)))),
            };
            for (path, executable) in all {
                let name = path.rsplit('/').next().unwrap_or_default();
                let rest = path[from.len()..].trim_start_matches('/');
                let to = match rest {
                    "" => self.place(target),
                    rest => self.place(&joined(target, rest)),
                };
                if !NEVER_FILES.contains(&name) {
                    made.file(&to, &path, executable);
                }
            }
        }
        Ok(())
    }

    /// Returns the files of paths that are named: where they go, where they are, whether they may be executed.
    fn explicit(
        &self,
        map: &[(String, String)],
    ) -> Result<Vec<(String, String, bool)>, InputError> {
        let reserved: Vec<String> = self.forced.iter().map(|it| self.place(&it.0)).collect();
        let mut files = Vec::new();
        for (from, target) in map {
            match self.ground.kind(from)? {
                Some(Kind::File(executable)) => {
                    files.push((self.place(target), from.clone(), executable));
                }
                Some(_) => {
                    let enter = |_: &str, name: &str| !NEVER.contains(&name);
                    for (path, executable) in self.ground.walk(from, &enter)? {
                        let name = path.rsplit('/').next().unwrap_or_default();
                        let target = joined(target, path[from.len()..].trim_start_matches('/'));
                        if !NEVER_FILES.contains(&name) && self.takes(&target, true) {
                            files.push((self.place(&target), path, executable));
                        }
                    }
                }
                None => {}
            }
        }
        files.retain(|it| !reserved.contains(&it.0));
        Ok(files)
    }
}

/// Returns the paths of a list, normalised.
fn paths(ground: &Ground<'_>, node: Option<Node<'_>>) -> Result<Vec<String>, InputError> {
    let list = node.map_or(Ok(Vec::new()), |it| it.list())?;
    let paths = list
        .iter()
        .map(|it| path(ground, it, it.text()?.trim_matches('/')));
    paths.collect()
}

fn licences(ground: &Ground<'_>, core: &Core<'_>) -> Result<Vec<String>, InputError> {
    let patterns = core.licence_files.as_deref().unwrap_or(LICENCES);
    let mut files = glob::files(ground, patterns, Style::Flat)?;
    files.sort();
    Ok(files)
}

/// Returns the Pythons that the wheel is for: `py2`, `py3`.
fn tags(ground: &Ground<'_>, core: &Core<'_>) -> Result<Vec<String>, InputError> {
    let place = ground.at(&["project", "requires-python"]);
    let text = core.requires_python.unwrap_or_default();
    let all = specifiers(text).filter(|_| !text.trim().is_empty());
    if all.is_none() && !text.trim().is_empty() {
        return Err(ground.refuse(place, format!("`{text}` is no set of versions")));
    }
    let has = |major: u64| {
        let versions = (0..100).map(|minor| Version::new([major, minor, 100]));
        versions
            .into_iter()
            .any(|it| all.as_ref().is_none_or(|all| all.contains(&it)))
    };
    let tags: Vec<String> = [2, 3]
        .into_iter()
        .filter(|it| has(*it))
        .map(|it| format!("py{it}"))
        .collect();
    match tags.is_empty() {
        true => Err(ground.refuse(place, format!("no Python is `{text}`"))),
        false => Ok(tags),
    }
}
