//! Which files setuptools takes: packages and modules that are listed or found, and data beside them
//! (`setuptools/discovery.py`, `command/build_py.py`).

use std::collections::{BTreeMap, BTreeSet};

use super::core::texts;
use super::glob::{self, Style};
use super::setuptools::is_executable;
use super::{Ground, Kind, Made, joined, manifest, normal};
use crate::python::place::InputError;
use crate::python::table::Node;

/// Names at the top of a project that are no packages.
const NO_PACKAGES: &[&str] = &[
    "ci",
    "bin",
    "debian",
    "doc",
    "docs",
    "documentation",
    "manpages",
    "news",
    "newsfragments",
    "changelog",
    "test",
    "tests",
    "unit_test",
    "unit_tests",
    "example",
    "examples",
    "scripts",
    "tools",
    "util",
    "utils",
    "python",
    "build",
    "dist",
    "venv",
    "env",
    "requirements",
    "tasks",
    "fabfile",
    "site_scons",
    "benchmark",
    "benchmarks",
    "exercise",
    "exercises",
    "htmlcov",
    "[._]*",
];

/// Names at the top of a project that are no modules.
const NO_MODULES: &[&str] = &[
    "setup",
    "conftest",
    "test",
    "tests",
    "example",
    "examples",
    "build",
    "toxfile",
    "noxfile",
    "pavement",
    "dodo",
    "tasks",
    "fabfile",
    "[Ss][Cc]onstruct",
    "conanfile",
    "manage",
    "benchmark",
    "benchmarks",
    "exercise",
    "exercises",
    "[._]*",
];

/// Keys of `[tool.setuptools]`.
const KEYS: &[&str] = &[
    "dynamic",
    "exclude-package-data",
    "include-package-data",
    "license-files",
    "package-data",
    "package-dir",
    "packages",
    "platforms",
    "py-modules",
    "zip-safe",
];

/// How packages are named.
pub(super) enum Packages {
    /// Each by name.
    Listed(Vec<String>),
    /// By a search.
    Find(Find),
}

/// A search for packages.
pub(super) struct Find {
    pub(super) places: Vec<String>,
    pub(super) include: Vec<String>,
    pub(super) exclude: Vec<String>,
    /// Whether folders without `__init__.py` are packages.
    pub(super) namespaces: bool,
}

/// What lies where.
pub(super) struct Layout {
    pub(super) packages: Option<Packages>,
    pub(super) modules: Option<Vec<String>>,
    /// The folders of packages; that of the name `""` is of all.
    pub(super) folders: BTreeMap<String, String>,
    /// Patterns of data, by package; those of `""` are of all.
    pub(super) data: BTreeMap<String, Vec<String>>,
    pub(super) excluded: BTreeMap<String, Vec<String>>,
    /// Whether files of the manifest are data.
    pub(super) takes_manifest: bool,
    pub(super) zip_safe: bool,
    /// The packages, once they are found.
    pub(super) found: Vec<String>,
}

impl Layout {
    /// Reads `[tool.setuptools]`.
    pub(super) fn of_tool(ground: &Ground<'_>, tool: Option<Node<'_>>) -> Result<Self, InputError> {
        let get = |key: &str| tool.and_then(|it| it.get(key));
        if let Some(tool) = &tool {
            ground.only(tool, KEYS, "`[tool.setuptools]`")?;
        }
        let owned = |node: Option<Node<'_>>| -> Result<Vec<String>, InputError> {
            Ok(texts(node)?.into_iter().map(str::to_owned).collect())
        };
        let packages = match get("packages") {
            None => None,
            Some(node) => match node.get("find") {
                Some(find) => {
                    ground.only(
                        &find,
                        &["exclude", "include", "namespaces", "where"],
                        "`find`",
                    )?;
                    let namespaces = find.get("namespaces");
                    Some(Packages::Find(Find {
                        places: owned(find.get("where"))?,
                        include: owned(find.get("include"))?,
                        exclude: owned(find.get("exclude"))?,
                        namespaces: namespaces.is_none_or(|it| it.is_true()),
                    }))
                }
                None => Some(Packages::Listed(owned(Some(node))?)),
            },
        };
        let data = |key: &str| -> Result<BTreeMap<String, Vec<String>>, InputError> {
            let entries = get(key).map_or(Ok(Vec::new()), |it| it.entries())?;
            let entries = entries.into_iter().map(|(package, list)| {
                let package = if package == "*" { "" } else { package };
                Ok((package.to_owned(), owned(Some(list))?))
            });
            entries.collect()
        };
        let mut folders = BTreeMap::new();
        for (package, folder) in get("package-dir").map_or(Ok(Vec::new()), |it| it.entries())? {
            let place = folder.place();
            let folder = normal(folder.text()?);
            let folder =
                folder.ok_or_else(|| ground.refuse(place, "this leads out of its folder"))?;
            folders.insert(package.to_owned(), folder);
        }
        Ok(Self {
            packages,
            modules: get("py-modules").map(|it| owned(Some(it))).transpose()?,
            folders,
            data: data("package-data")?,
            excluded: data("exclude-package-data")?,
            takes_manifest: get("include-package-data").is_none_or(|it| it.is_true()),
            zip_safe: get("zip-safe").is_some_and(|it| it.is_true()),
            found: Vec::new(),
        })
    }

    /// Returns the folder that names without a folder of their own begin at.
    pub(super) fn root_folder(&self) -> String {
        self.folders.get("").cloned().unwrap_or_default()
    }

    /// Returns where a package or module is, by its name.
    pub(super) fn folder_of(&self, name: &str) -> String {
        let parts: Vec<&str> = name.split('.').collect();
        for count in (1..=parts.len()).rev() {
            if let Some(folder) = self.folders.get(&parts[..count].join(".")) {
                return joined_all(folder, &parts[count..]);
            }
        }
        joined_all(&self.root_folder(), &parts)
    }

    /// Returns the names at the top, as `top_level.txt` has them.
    pub(super) fn tops(&self) -> String {
        let modules = self.modules.iter().flatten();
        let names = self.found.iter().chain(modules);
        let tops = names.filter_map(|it| it.split('.').next());
        let tops: BTreeSet<&str> = tops.collect();
        let tops: Vec<&str> = tops.into_iter().collect();
        tops.join("\n") + "\n"
    }

    /// Finds the packages and modules.
    pub(super) fn discover(&mut self, ground: &Ground<'_>) -> Result<(), InputError> {
        match &self.packages {
            Some(Packages::Listed(list)) => self.found = list.clone(),
            Some(Packages::Find(find)) => {
                let places = match find.places.is_empty() {
                    true => vec![".".to_owned()],
                    false => find.places.clone(),
                };
                for place in places {
                    let folder = normal(&place);
                    let folder =
                        folder.ok_or_else(|| ground.fail(format!("`{place}` lies elsewhere")))?;
                    let found = packages(ground, &folder, find)?;
                    let is_root = self.folders.get("") == Some(&folder) || folder.is_empty();
                    if !is_root {
                        for package in tops(&found) {
                            let own = joined(&folder, &package.replace('.', "/"));
                            self.folders.insert(package, own);
                        }
                    }
                    self.found.extend(found);
                }
            }
            None if self.modules.is_some() => {}
            None => self.by_layout(ground)?,
        }
        Ok(())
    }

    /// Finds them where nothing is said.
    fn by_layout(&mut self, ground: &Ground<'_>) -> Result<(), InputError> {
        let all = |include: &[&str], exclude: &[String]| Find {
            places: Vec::new(),
            include: include.iter().map(|it| (*it).to_owned()).collect(),
            exclude: exclude.to_vec(),
            namespaces: true,
        };
        let own: Vec<(String, String)> = self
            .folders
            .iter()
            .filter(|it| !it.0.is_empty())
            .map(|(package, folder)| (package.clone(), folder.clone()))
            .collect();
        if !own.is_empty() {
            for (package, folder) in own {
                let nested = packages(ground, &folder, &all(&[], &[]))?;
                self.found.push(package.clone());
                self.found
                    .extend(nested.iter().map(|it| format!("{package}.{it}")));
            }
            return Ok(());
        }
        let source = self
            .folders
            .get("")
            .cloned()
            .unwrap_or_else(|| "src".to_owned());
        if ground.is_folder(&source)? {
            self.folders.entry(String::new()).or_insert(source.clone());
            self.found = packages(ground, &source, &all(&[], &[]))?;
            self.modules = Some(modules(ground, &source, &[])?);
            return Ok(());
        }
        let exclude: Vec<String> = NO_PACKAGES
            .iter()
            .flat_map(|it| [(*it).to_owned(), format!("{it}.*")])
            .collect();
        let mut found = packages(ground, "", &all(&[], &exclude))?;
        found.retain(|name| {
            let mut parts = name.split('.');
            let top = parts.next().unwrap_or_default();
            is_identifier(top.strip_suffix("-stubs").unwrap_or(top)) && parts.all(is_identifier)
        });
        let real: Vec<String> = found.iter().filter(|it| !is_stubs(it)).cloned().collect();
        let several = |names: &[String], what: &str| {
            let names = names.join(", ");
            ground.fail(format!(
                "which of its {what} are meant is not said: {names}"
            ))
        };
        let top = tops(&real);
        if top.len() > 1 {
            return Err(several(&top, "packages"));
        }
        self.found = found;
        if top.is_empty() {
            let modules = modules(ground, "", NO_MODULES)?;
            if modules.len() > 1 {
                return Err(several(&modules, "modules"));
            }
            self.modules = Some(modules);
        }
        Ok(())
    }

    /// Adds all files to a wheel. `referenced` are files that were read for its metadata, `sources` a list of files that was
    /// written before.
    pub(super) fn take(
        &self,
        ground: &Ground<'_>,
        referenced: &[String],
        sources: &str,
        made: &mut Made,
    ) -> Result<(), InputError> {
        for module in self.modules.iter().flatten() {
            let path = format!("{}.py", self.folder_of(module));
            if !ground.is_file(&path)? {
                return Err(ground.fail(format!("there is no {}", ground.shown(&path))));
            }
            // Of modules the mode is not kept, of data it is.
            made.file(&format!("{}.py", module.replace('.', "/")), &path, false);
        }
        let folders: BTreeMap<String, String> = self
            .found
            .iter()
            .map(|package| (self.folder_of(package), package.clone()))
            .collect();
        let manifest = match self.takes_manifest {
            true => manifest::files(ground, referenced, sources)?,
            false => BTreeSet::new(),
        };
        let mut data: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for path in &manifest {
            let mut folder = path.as_str();
            while let Some((above, _)) = folder.rsplit_once('/') {
                folder = above;
                if let Some(package) = folders.get(folder) {
                    let below = &path[folder.len() + 1..];
                    if below.contains('/') || !below.ends_with(".py") {
                        data.entry(package).or_default().push(path.clone());
                    }
                    break;
                }
            }
        }
        for (folder, package) in &folders {
            if !ground.is_folder(folder)? {
                return Err(ground.fail(format!("there is no {}", ground.shown(folder))));
            }
            let more = data.remove(package.as_str()).unwrap_or_default();
            self.package(ground, package, folder, more, made)?;
        }
        Ok(())
    }

    /// Adds the files of a package.
    fn package(
        &self,
        ground: &Ground<'_>,
        package: &str,
        folder: &str,
        mut data: Vec<String>,
        made: &mut Made,
    ) -> Result<(), InputError> {
        let base = package.replace('.', "/");
        for item in ground.list(folder)? {
            if matches!(item.kind, Kind::File(_))
                && item.name.ends_with(".py")
                && !item.name.starts_with('.')
                && !(folder.is_empty() && item.name == "setup.py")
            {
                let path = joined(folder, &item.name);
                made.file(&joined(&base, &item.name), &path, false);
            }
        }
        let of = |table: &BTreeMap<String, Vec<String>>| -> Vec<String> {
            let keys = ["", package].into_iter();
            let lists = keys.filter_map(|it| table.get(it)).flatten();
            lists.cloned().collect()
        };
        let implicit = ["*.pyi", "py.typed"].map(str::to_owned);
        for pattern in implicit.into_iter().chain(of(&self.data)) {
            for (path, kind) in glob::find(ground, folder, &pattern, Style::Path)? {
                if matches!(kind, Kind::File(_)) {
                    data.push(path);
                }
            }
        }
        let excluded: Vec<String> = of(&self.excluded)
            .iter()
            .map(|it| joined(folder, it))
            .collect();
        data.retain(|path| !excluded.iter().any(|it| glob::matches(it, path)));
        for path in data {
            let below = path[folder.len()..].trim_start_matches('/');
            if let Some(executable) = is_executable(ground, &path)? {
                made.file(&joined(&base, below), &path, executable);
            }
        }
        Ok(())
    }
}

/// Joins a folder and names.
fn joined_all(folder: &str, names: &[&str]) -> String {
    names
        .iter()
        .fold(folder.to_owned(), |path, name| joined(&path, name))
}

/// Tells whether a name could be imported.
fn is_identifier(name: &str) -> bool {
    let mut chars = name.chars();
    let is_first = chars
        .next()
        .is_some_and(|it| it.is_alphabetic() || it == '_');
    is_first && chars.all(|it| it.is_alphanumeric() || it == '_')
}

fn is_stubs(package: &str) -> bool {
    package
        .split('.')
        .next()
        .is_some_and(|it| it.ends_with("-stubs"))
}

/// Returns the packages that are in no other.
fn tops(packages: &[String]) -> Vec<String> {
    let is_inner = |it: &&String| {
        packages
            .iter()
            .any(|other| it.starts_with(&format!("{other}.")))
    };
    packages
        .iter()
        .filter(|it| !is_inner(it))
        .cloned()
        .collect()
}

/// Searches a folder for packages.
fn packages(ground: &Ground<'_>, place: &str, find: &Find) -> Result<Vec<String>, InputError> {
    let fits = |patterns: &[String], name: &str| patterns.iter().any(|it| glob::matches(it, name));
    let mut exclude = find.exclude.clone();
    exclude.extend(["ez_setup".to_owned(), "*__pycache__".to_owned()]);
    let mut found = Vec::new();
    let mut open = vec![String::new()];
    while let Some(below) = open.pop() {
        for item in ground.list(joined(place, &below).trim_end_matches('/'))? {
            if !matches!(item.kind, Kind::Folder | Kind::Link) || item.name.contains('.') {
                continue;
            }
            let path = joined(&below, &item.name);
            let package = path.replace('/', ".");
            let whole = joined(place, &path);
            if !find.namespaces && !ground.is_file(&joined(&whole, "__init__.py"))? {
                continue;
            }
            let is_in = find.include.is_empty() || fits(&find.include, &package);
            let is_taken = is_in && !fits(&exclude, &package);
            if is_taken && item.kind == Kind::Link {
                let why = format!("{} is a symlink to a folder", ground.shown(&whole));
                return Err(ground.fail(why));
            }
            if is_taken {
                found.push(package.clone());
            }
            let pruned = [format!("{package}*"), format!("{package}.*")];
            if item.kind == Kind::Folder && !pruned.iter().any(|it| exclude.contains(it)) {
                open.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Searches a folder for modules.
fn modules(ground: &Ground<'_>, place: &str, exclude: &[&str]) -> Result<Vec<String>, InputError> {
    let items = ground.list(place)?.into_iter();
    let names = items.filter(|it| matches!(it.kind, Kind::File(_)));
    let names = names.filter_map(|it| it.name.strip_suffix(".py").map(str::to_owned));
    let names = names.filter(|it| is_identifier(it));
    Ok(names
        .filter(|it| !exclude.iter().any(|no| glob::matches(no, it)))
        .collect())
}
