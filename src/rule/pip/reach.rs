//! Where packages of a target come from, as its files say: which indexes are asked, which folders are looked into, and with
//! what credentials. Asks nobody.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pep508_rs::{MarkerTree, PackageName};

use super::index::Sources;
use super::pinned::Wheels;
use crate::graph::{ActionError, ChosenIndex, Context, IndexChoice, Packages, WheelHome};
use crate::python::resolve::Candidate;
use crate::python::{InputError, NamedIndex, Place, Requested, Spoken, Target, without_login};

/// How many packages a warning names.
const NAMES: usize = 8;

/// Where packages come from, as files of the user's say.
#[derive(Default)]
pub(super) struct Reach {
    /// Which indexes are asked, if a file says so.
    choice: Option<IndexChoice>,
    /// The folders of requirements files, which are looked into beside the indexes.
    pub(super) folders: Vec<PathBuf>,
    /// The URLs of wheels with their credentials, by the same without.
    logins: BTreeMap<String, String>,
    /// The packages that one index alone is asked for, on targets that a marker names.
    packages: Vec<(PackageName, MarkerTree, NamedIndex)>,
    /// The places that say which indexes are asked.
    places: Vec<Place>,
}

/// The indexes that are asked.
pub(super) enum Asked<'a> {
    /// Those that are set.
    All(&'a dyn Packages),
    /// Those of a file.
    Chosen(Arc<dyn Packages>),
}

impl Asked<'_> {
    /// Returns what asks them.
    pub(super) fn get(&self) -> &dyn Packages {
        match self {
            Self::All(packages) => *packages,
            Self::Chosen(packages) => &**packages,
        }
    }
}

impl Reach {
    /// Reads what files say. `root` is the real path of the workspace's root, where the paths of the set begin.
    pub(super) fn new(requested: &Requested, root: &Path, errors: &mut Vec<InputError>) -> Self {
        let options = &requested.options;
        let mut reach = Self::default();
        let all = requested.asked.iter().chain(&requested.overrides);
        for url in all
            .filter_map(|it| it.url.as_ref())
            .filter(|it| !it.is_local)
        {
            let full = url.link.as_str();
            reach.logins.insert(without_login(full), full.to_owned());
        }
        let mut links = Vec::new();
        for spoken in &options.find_links {
            if spoken.value.contains("://") {
                links.push(spoken.value.clone());
                continue;
            }
            match folder(&spoken.value, root) {
                Ok(folder) => reach.folders.push(folder),
                Err(why) => {
                    let message = format!("`{}` cannot be looked into: {why}", spoken.value);
                    let help = "`--find-links` names a folder with wheels, from the folder of the file on, or the URL of a page";
                    let code = "imgdecl::pip::find_links";
                    errors.push(spoken.place.error(code, message, help));
                }
            }
        }
        reach.places = options.places();
        if let Some(project) = &options.project {
            let all = project.default.iter().chain(&project.extra);
            let all = all.chain(project.packages.iter().map(|it| &it.2));
            let mut own: Vec<Place> = all.map(|it| it.url.place.clone()).collect();
            if let (Some(one), Some(other)) = (reach.places.first(), own.first()) {
                errors.push(other.error(
                    "imgdecl::pip::inputs",
                    format!("{one} says which indexes are asked, and so does this"),
                    "make a target of each file",
                ));
            }
            reach.places.append(&mut own);
        }
        if reach.places.is_empty() {
            return reach;
        }
        let plain = |it: &Spoken| ChosenIndex {
            name: None,
            url: it.value.clone(),
        };
        let mut choice = IndexChoice {
            is_without_index: options.without_index.is_some(),
            index: options.index_url.as_ref().map(plain),
            extra: options.extra_index_urls.iter().map(plain).collect(),
            links,
            ..IndexChoice::default()
        };
        if let Some(project) = &options.project {
            choice.is_first = true;
            choice.index = project.default.as_ref().map(named);
            choice.extra.extend(project.extra.iter().map(named));
            reach.packages.clone_from(&project.packages);
        }
        reach.choice = Some(choice);
        reach
    }

    /// Returns the places of files that say which indexes are asked, as words; `None` where no file does.
    pub(super) fn said(&self) -> Option<String> {
        let mut places: Vec<String> = self.places.iter().map(Place::to_string).collect();
        places.dedup();
        (!places.is_empty()).then(|| places.join(", "))
    }

    /// Says where the wheels of a target are from, where a file says it.
    pub(super) fn news(&self, targets: &BTreeMap<String, Wheels>) -> Option<String> {
        let said = self.said()?;
        let pins = || targets.values().flat_map(BTreeMap::values);
        let mut homes: BTreeMap<String, usize> = BTreeMap::new();
        for pin in pins() {
            let home = match &pin.home {
                Some(WheelHome::Index(url) | WheelHome::Page(url)) => url.clone(),
                None if pin.is_own() => "folders".to_owned(),
                None if pin.url.is_some() => continue,
                None => "the indexes that are set".to_owned(),
            };
            *homes.entry(home).or_default() += 1;
        }
        let counts = homes
            .iter()
            .map(|(home, count)| format!("{count} from {home}"));
        let counts: Vec<String> = counts.collect();
        let counts = match counts.is_empty() {
            true => "none".to_owned(),
            false => counts.join(", "),
        };
        Some(format!("{said} says where packages come from: {counts}"))
    }

    /// Says what files have to do with an error of resolving.
    pub(super) fn explain(&self, error: ActionError) -> ActionError {
        let area = error.code.split("::").nth(1);
        let is_ours = matches!(area, Some("pip" | "index"));
        let Some(said) = self.said().filter(|_| is_ours) else {
            return error;
        };
        let is_none = self.choice.as_ref().is_some_and(|it| it.is_without_index);
        let line = match is_none {
            true => format!("no index is asked: so says {said}"),
            false => format!("which indexes are asked is said by {said}"),
        };
        let help = error.help.iter().map(String::as_str).chain([line.as_str()]);
        let help: Vec<&str> = help.collect();
        let help = help.join("\n");
        error.help(help)
    }

    /// Warns of the packages that several indexes have, of which the newest version counts.
    pub(super) fn ambiguous<'a>(
        &self,
        taken: impl Iterator<Item = &'a Candidate>,
        sources: &Sources<'_>,
    ) -> Option<String> {
        let choice = self.choice.as_ref().filter(|it| !it.is_first)?;
        if choice.extra.is_empty() && choice.links.is_empty() && self.folders.is_empty() {
            return None;
        }
        let mut names = Vec::new();
        for candidate in taken.filter(|it| !it.index.is_empty()) {
            let files = sources.files(&candidate.name).unwrap_or_default();
            if files.iter().any(|it| it.index != candidate.index) {
                let Candidate {
                    name,
                    version,
                    index,
                    ..
                } = candidate;
                names.push(format!("{name} {version} from {index}"));
            }
        }
        if names.is_empty() {
            return None;
        }
        let more = names.len().saturating_sub(NAMES);
        names.truncate(NAMES);
        let names = match more {
            0 => names.join(", "),
            more => format!("{} and {more} more", names.join(", ")),
        };
        Some(format!(
            "several of the places that {} names have these packages, and the newest version is taken, as pip does: {names}; to have one \
             index alone asked, name it under `packages` of `[index]`",
            self.said().unwrap_or_default()
        ))
    }

    /// Returns what asks the indexes for a target of Python.
    pub(super) fn packages<'a>(&self, target: &Target, context: &Context<'a>) -> Asked<'a> {
        let all = context.ports.packages();
        let Some(choice) = &self.choice else {
            return Asked::All(all);
        };
        let markers = target.markers();
        let mut choice = choice.clone();
        for (name, marker, index) in &self.packages {
            if marker.evaluate(&markers, &[]) {
                let entry = choice.packages.entry(name.to_string());
                entry.or_insert_with(|| named(index));
            }
        }
        all.chosen(&choice).map_or(Asked::All(all), Asked::Chosen)
    }

    /// Returns what asks for wheels that are pinned: where a file names the index of a wheel, that alone is asked, with the
    /// credentials that the file has for it.
    pub(super) fn packages_of<'a>(
        &self,
        home: Option<&WheelHome>,
        context: &Context<'a>,
    ) -> Asked<'a> {
        let all = context.ports.packages();
        let (Some(_), Some(choice)) = (home, &self.choice) else {
            return Asked::All(all);
        };
        let mut choice = IndexChoice {
            // Only the one that is named will be asked: the default ones need not be known.
            index: choice
                .index
                .clone()
                .or_else(|| choice.extra.first().cloned()),
            is_without_index: false,
            ..choice.clone()
        };
        let own = self.packages.iter().map(|it| named(&it.2));
        choice.extra.extend(own);
        if choice.index.is_none() {
            choice.index = choice.extra.first().cloned();
        }
        // Pages alone: no index at all.
        choice.is_without_index = choice.index.is_none();
        all.chosen(&choice).map_or(Asked::All(all), Asked::Chosen)
    }

    /// Returns the URL of a wheel with its credentials.
    pub(super) fn with_login<'a>(&'a self, url: &'a str) -> &'a str {
        self.logins.get(url).map_or(url, String::as_str)
    }

    /// Returns what decides which packages are found, as text: no credentials.
    pub(super) fn text(&self) -> Option<String> {
        let choice = self.choice.as_ref()?;
        let mut text = String::new();
        if choice.is_without_index {
            text += "no-index\n";
        }
        let line =
            |kind: &str, index: &ChosenIndex| format!("{kind} {}\n", without_login(&index.url));
        text.extend(choice.index.iter().map(|it| line("index", it)));
        text.extend(choice.extra.iter().map(|it| line("extra", it)));
        for url in &choice.links {
            text += &format!("links {}\n", without_login(url));
        }
        if choice.is_first {
            text += "first\n";
        }
        for (name, marker, index) in &self.packages {
            let marker = marker.contents().map(|it| it.to_string());
            let marker = marker.unwrap_or_default();
            text += &line(&format!("package {name} {marker}"), &named(index));
        }
        Some(text)
    }
}

fn named(index: &NamedIndex) -> ChosenIndex {
    ChosenIndex {
        name: index.name.clone(),
        url: index.url.value.clone(),
    }
}

/// Finds a folder of the workspace.
fn folder(path: &str, root: &Path) -> Result<PathBuf, String> {
    let real = root.join(path).canonicalize();
    let real = real.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such folder".to_owned(),
        _ => error.to_string(),
    })?;
    if !real.starts_with(root) {
        return Err("it lies outside of the workspace".to_owned());
    }
    match real.is_dir() {
        true => Ok(real),
        false => Err("it is no folder".to_owned()),
    }
}
