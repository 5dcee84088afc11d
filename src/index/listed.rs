//! What is not listed package by package: pages of links, and the list of all packages of an index. Reads no page itself.

use std::collections::BTreeSet;
use std::sync::Arc;

use pep508_rs::PackageName;
use serde::Deserialize;

use super::error::IndexError;
use super::fetch::Ask;
use super::project::PAGE;
use super::{Inner, Source, html, page};
use crate::graph::PackageFile;
use crate::net::Monitor as _;
use crate::python::WheelName;

/// A list of packages, as JSON (PEP 691).
#[derive(Deserialize)]
struct List {
    projects: Vec<Project>,
}

/// One package of it.
#[derive(Deserialize)]
struct Project {
    name: String,
}

impl Inner {
    /// Returns the files of a package on a page of links; `None` if there are none.
    pub(super) fn linked(
        &self,
        source: &Source,
        project: &str,
    ) -> Result<Option<Vec<PackageFile>>, IndexError> {
        let mut failed = None;
        let stopped = || self.monitor.is_stopped();
        let work = || match self.page(source, project) {
            // A page that is not there is no empty one.
            Ok(None) => {
                let what = Ask::new(source.address().clone(), Some(source), "its links".into());
                failed = Some(what.wrong("there is no such page"));
                None
            }
            Ok(Some(files)) => Some(Arc::new(files)),
            Err(error) => {
                failed = Some(error);
                None
            }
        };
        let key = (source.url().to_owned(), self.freshness.is_anew());
        let files = self.links.get(&key, &stopped, Option::is_some, work);
        match (files, failed) {
            (Some(Some(files)), _) => {
                let own = files.iter().filter(|it| is_of(project, &it.file));
                let own: Vec<PackageFile> = own.cloned().collect();
                Ok((!own.is_empty()).then_some(own))
            }
            (_, Some(error)) => Err(error),
            _ => Err(IndexError::Stopped),
        }
    }

    /// Tells whether an index gives its list of packages, and a package is not in it.
    pub(super) fn is_unlisted(&self, source: &Source, project: &str) -> bool {
        if source.is_page() {
            return false;
        }
        let stopped = || self.monitor.is_stopped();
        let work = || self.list(source).ok().flatten().map(Arc::new);
        let key = source.url().to_owned();
        let list = self.lists.get(&key, &stopped, |_| true, work);
        list.flatten().is_some_and(|it| !it.contains(project))
    }

    /// Returns the packages of an index, by their normalised names; `None` where it gives no list.
    fn list(&self, source: &Source) -> Result<Option<BTreeSet<String>>, IndexError> {
        let url = source.address().clone();
        let ask = Ask::new(url, Some(source), "its list of packages".to_owned());
        let ask = ask.header("accept", page::ACCEPT);
        let (reply, bytes) = self.load(&ask, PAGE)?;
        if reply.status() != 200 {
            return Ok(None);
        }
        let kind = reply.header("content-type").unwrap_or_default();
        let names: Vec<String> = match kind.contains("json") {
            true => match serde_json::from_slice::<List>(&bytes) {
                Ok(list) => list.projects.into_iter().map(|it| it.name).collect(),
                Err(_) => return Ok(None),
            },
            false => html::names(&String::from_utf8_lossy(&bytes), &reply.url),
        };
        let parsed = names.iter().filter_map(|it| it.parse::<PackageName>().ok());
        let names: BTreeSet<String> = parsed.map(|it| it.to_string()).collect();
        Ok((!names.is_empty()).then_some(names))
    }
}

/// Tells whether a file is a wheel or an archive of sources of a package.
fn is_of(project: &str, file: &str) -> bool {
    if let Ok(wheel) = WheelName::parse(file) {
        return wheel.name.as_ref() == project;
    }
    let stems = file.match_indices('-').map(|(at, _)| &file[..at]);
    let mut names = stems.filter_map(|it| it.parse::<PackageName>().ok());
    names.any(|it| it.as_ref() == project)
}
