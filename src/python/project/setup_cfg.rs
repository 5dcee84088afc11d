//! The file setup.cfg, as setuptools reads it (`setuptools/config/setupcfg.py`).

use std::collections::BTreeMap;

use super::core::Licence;
use super::setuptools::{Said, VersionFrom, contents};
use super::setuptools_files::{Find, Layout, Packages};
use super::{Ground, normal};
use crate::python::place::InputError;

/// The sections that say nothing of a wheel: those of other tools are told by their names.
const OTHERS: &[&str] = &[
    "aliases",
    "sdist",
    "upload",
    "upload_docs",
    "build_sphinx",
    "check",
];

/// A setup.cfg: sections, and keys with their values in the order of the file.
pub(super) struct Config(BTreeMap<String, Vec<(String, String)>>);

impl Config {
    /// Reads it; empty if there is none.
    pub(super) fn read(ground: &Ground<'_>) -> Result<Self, InputError> {
        let mut sections: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
        if !ground.is_file("setup.cfg")? {
            return Ok(Self(sections));
        }
        let text = ground.lines("setup.cfg")?;
        let mut name = String::new();
        for line in text.lines() {
            let bare = line.trim();
            if bare.starts_with(['#', ';']) {
                continue;
            }
            let entries = sections.entry(name.clone()).or_default();
            if line.starts_with([' ', '\t']) && !entries.is_empty() {
                if let Some((_, value)) = entries.last_mut() {
                    value.push('\n');
                    value.push_str(bare);
                }
            } else if let Some(section) = bare.strip_prefix('[').and_then(|it| it.strip_suffix(']'))
            {
                name = section.trim().to_owned();
                sections.entry(name.clone()).or_default();
            } else if let Some(at) = bare.find(['=', ':']) {
                let key = bare[..at].trim().to_lowercase();
                entries.push((key, bare[at + 1..].trim().to_owned()));
            } else if !bare.is_empty() {
                return Err(ground.fail(format!("its setup.cfg has the line `{bare}`")));
            }
        }
        sections.remove("");
        for entries in sections.values_mut() {
            for (_, value) in entries {
                *value = value.trim_end().to_owned();
            }
        }
        let config = Self(sections);
        config.check(ground)?;
        Ok(config)
    }

    /// Refuses sections of commands that would change the wheel.
    fn check(&self, ground: &Ground<'_>) -> Result<(), InputError> {
        for (name, entries) in &self.0 {
            let is_said = |it: &&(String, String)| {
                !it.1.is_empty() && !matches!(it.1.as_str(), "0" | "false" | "False")
            };
            let is_command = matches!(
                name.as_str(),
                "egg_info"
                    | "bdist_wheel"
                    | "build"
                    | "build_py"
                    | "build_ext"
                    | "install"
                    | "install_lib"
                    | "global"
                    | "easy_install"
            );
            if let Some((key, _)) = entries.iter().find(is_said).filter(|_| is_command) {
                return Err(ground.fail(format!("its setup.cfg says `{key}` of `{name}`")));
            }
        }
        Ok(())
    }

    /// Refuses one that says more than tools need.
    pub(super) fn only_of_tools(&self, ground: &Ground<'_>) -> Result<(), InputError> {
        let said = self.0.iter().find(|(name, entries)| {
            let is_own = *name == "metadata" || *name == "options" || name.starts_with("options.");
            is_own && !entries.is_empty() && !OTHERS.contains(&name.as_str())
        });
        match said {
            None => Ok(()),
            Some((name, _)) => {
                let why = format!("both pyproject.toml and `[{name}]` of setup.cfg describe it");
                Err(ground.fail(why))
            }
        }
    }

    fn section(&self, name: &str) -> &[(String, String)] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// Returns a value of the section `metadata`.
    fn meta(&self, names: &[&str]) -> Option<&str> {
        let all = self.section("metadata").iter();
        let mut found = all.filter(|(key, _)| names.contains(&key.replace('-', "_").as_str()));
        found.next().map(|it| it.1.as_str())
    }

    /// Reads what it says.
    pub(super) fn said(&self, ground: &Ground<'_>) -> Result<Said, InputError> {
        self.known(ground)?;
        let mut referenced = Vec::new();
        let mut text = |names: &[&str]| -> Result<Option<String>, InputError> {
            let Some(value) = self.meta(names) else {
                return Ok(None);
            };
            match value.strip_prefix("file:") {
                None => Ok(Some(value.to_owned())),
                Some(files) => {
                    let files = files_of(ground, files)?;
                    referenced.extend(files.clone());
                    contents(ground, &files).map(Some)
                }
            }
        };
        let description = text(&["long_description"])?;
        let licence = text(&["license"])?;
        let classifiers = text(&["classifiers", "classifier"])?.unwrap_or_default();
        let plain = |names: &[&str]| self.meta(names).map(str::to_owned);
        let Some(name) = plain(&["name"]) else {
            return Err(ground.fail("nothing says its name: neither pyproject.toml nor setup.cfg"));
        };
        let version = match self.meta(&["version"]) {
            None => return Err(ground.fail("its setup.cfg has no `version`")),
            Some(text) => match (text.strip_prefix("attr:"), text.strip_prefix("file:")) {
                (Some(attribute), _) => VersionFrom::Attribute(attribute.trim().to_owned()),
                (_, Some(files)) => {
                    let files = files_of(ground, files)?;
                    referenced.extend(files.clone());
                    VersionFrom::Files(files)
                }
                _ => VersionFrom::Text(text.to_owned()),
            },
        };
        let files = plain(&["license_files"]).or_else(|| plain(&["license_file"]));
        let kind = plain(&["long_description_content_type"]);
        let options = self.section("options").iter();
        let option = |name: &str| {
            let mut found = options.clone().filter(|it| it.0.replace('-', "_") == name);
            found.next().map(|it| it.1.clone())
        };
        Ok(Said {
            name,
            version,
            summary: plain(&["description", "summary"]).unwrap_or_default(),
            home_page: plain(&["url", "home_page"]),
            download_url: plain(&["download_url"]),
            author: plain(&["author"]),
            author_email: plain(&["author_email"]),
            maintainer: plain(&["maintainer"]),
            maintainer_email: plain(&["maintainer_email"]),
            licence: licence.map_or(Licence::None, Licence::Text),
            licence_files: files.map(|it| list(&it)),
            urls: pairs(ground, &plain(&["project_urls"]).unwrap_or_default())?,
            keywords: list(&plain(&["keywords"]).unwrap_or_default()),
            platforms: list(&plain(&["platforms", "platform"]).unwrap_or_default()),
            classifiers: list(&classifiers),
            requires_python: option("python_requires"),
            description: description.map(|it| (it, kind)),
            requires: needs(ground, &option("install_requires").unwrap_or_default())?,
            extras: self
                .section("options.extras_require")
                .iter()
                .map(|(extra, value)| Ok((extra.clone(), needs(ground, value)?)))
                .collect::<Result<_, InputError>>()?,
            points: self.points(ground)?,
            referenced,
            layout: self.layout(ground)?,
        })
    }

    /// Refuses keys that are not read.
    fn known(&self, ground: &Ground<'_>) -> Result<(), InputError> {
        const META: &[&str] = &[
            "author",
            "author_email",
            "classifier",
            "classifiers",
            "description",
            "download_url",
            "home_page",
            "keywords",
            "license",
            "license_file",
            "license_files",
            "long_description",
            "long_description_content_type",
            "maintainer",
            "maintainer_email",
            "name",
            "platform",
            "platforms",
            "project_urls",
            "summary",
            "url",
            "version",
        ];
        const OPTIONS: &[&str] = &[
            "include_package_data",
            "install_requires",
            "package_dir",
            "packages",
            "py_modules",
            "python_requires",
            "zip_safe",
        ];
        const SECTIONS: &[&str] = &[
            "options.entry_points",
            "options.exclude_package_data",
            "options.extras_require",
            "options.package_data",
            "options.packages.find",
        ];
        for (section, known) in [("metadata", META), ("options", OPTIONS)] {
            for (key, _) in self.section(section) {
                if !known.contains(&key.replace('-', "_").as_str()) {
                    return Err(ground.fail(format!("`{key}` of its setup.cfg is not read")));
                }
            }
        }
        let mut names = self.0.keys().filter(|it| it.starts_with("options."));
        match names.find(|it| !SECTIONS.contains(&it.as_str())) {
            None => Ok(()),
            Some(name) => Err(ground.fail(format!("`[{name}]` of its setup.cfg is not read"))),
        }
    }

    fn points(&self, ground: &Ground<'_>) -> Result<Points, InputError> {
        let all = self.section("options.entry_points").iter();
        let all = all.map(|(group, value)| Ok((group.clone(), pairs(ground, value)?)));
        all.collect()
    }

    fn layout(&self, ground: &Ground<'_>) -> Result<Layout, InputError> {
        let option = |name: &str| {
            let mut all = self.section("options").iter();
            all.find(|it| it.0.replace('-', "_") == name)
                .map(|it| it.1.as_str())
        };
        let find = |name: &str| {
            let mut all = self.section("options.packages.find").iter();
            all.find(|it| it.0 == name).map(|it| list(&it.1))
        };
        let is_true = |text: &str| matches!(text.to_lowercase().as_str(), "1" | "true" | "yes");
        let packages = match option("packages") {
            None => None,
            Some(text @ ("find:" | "find_namespace:")) => Some(Packages::Find(Find {
                places: find("where").unwrap_or_default(),
                include: find("include").unwrap_or_default(),
                exclude: find("exclude").unwrap_or_default(),
                namespaces: text != "find:",
            })),
            Some(text) => Some(Packages::Listed(list(text))),
        };
        let data = |name: &str| -> BTreeMap<String, Vec<String>> {
            let all = self.section(name).iter();
            let all = all.map(|(key, value)| {
                let key = if key == "*" { "" } else { key };
                (key.to_owned(), list(value))
            });
            all.collect()
        };
        Ok(Layout {
            packages,
            modules: option("py_modules").map(list),
            folders: pairs(ground, option("package_dir").unwrap_or_default())?
                .into_iter()
                .map(|(package, folder)| Some((package, normal(&folder)?)))
                .collect::<Option<_>>()
                .ok_or_else(|| ground.fail("`package_dir` leads out of its folder"))?,
            data: data("options.package_data"),
            excluded: data("options.exclude_package_data"),
            takes_manifest: option("include_package_data").is_some_and(is_true),
            zip_safe: option("zip_safe").is_some_and(is_true),
            found: Vec::new(),
        })
    }
}

/// Groups, with names and values.
type Points = Vec<(String, Vec<(String, String)>)>;

/// Splits a value by lines, or by commas where it is one line.
fn list(text: &str) -> Vec<String> {
    let separator = if text.contains('\n') { '\n' } else { ',' };
    let parts = text.split(separator).map(str::trim);
    parts
        .filter(|it| !it.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Splits a value into requirements: by lines, or by semicolons, which would then be no markers.
fn needs(ground: &Ground<'_>, text: &str) -> Result<Vec<String>, InputError> {
    if text.trim_start().starts_with("file:") {
        return Err(ground.fail("its setup.cfg has requirements in a file of their own"));
    }
    if !text.contains('\n') && text.contains(';') {
        return Err(ground.fail(format!("its setup.cfg has `{text}` in one line")));
    }
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|it| !it.is_empty() && !it.starts_with('#'));
    Ok(lines
        .map(|it| it.split(" #").next().unwrap_or_default().trim().to_owned())
        .collect())
}

fn pairs(ground: &Ground<'_>, text: &str) -> Result<Vec<(String, String)>, InputError> {
    let pairs = list(text).into_iter().map(|line| {
        let pair = line.split_once('=');
        let pair = pair.map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()));
        pair.ok_or_else(|| ground.fail(format!("its setup.cfg has `{line}` where `a = b` is due")))
    });
    pairs.collect()
}

fn files_of(ground: &Ground<'_>, text: &str) -> Result<Vec<String>, InputError> {
    let files = text.split(',').map(|it| {
        let file = normal(it.trim()).filter(|it| !it.is_empty());
        file.ok_or_else(|| ground.fail(format!("its setup.cfg names the file `{it}`")))
    });
    files.collect()
}
