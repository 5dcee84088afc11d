//! What a base says about Python: how it is found, and its form in `image.lock`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::python::{Interpreter, Libc, Probe as PythonProbe, Pythons};
use crate::rule::ecosystem::{Ecosystem, Finding, Item, Probe};

/// The ecosystem of Python packages.
pub(super) struct Python;

/// The form of the file: what stands beside a platform of a base.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// The C library, as `glibc 2.36`.
    libc: Option<String>,
    /// The interpreters, by path.
    #[serde(default)]
    python: BTreeMap<String, PythonEntry>,
}

/// The form of an interpreter.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PythonEntry {
    version: String,
    prefix: String,
    site: String,
    platsite: Option<String>,
    /// What says which packages are in the site folder.
    #[serde(default)]
    installed: Vec<String>,
}

impl Ecosystem for Python {
    fn probe(&self) -> Box<dyn Probe> {
        Box::new(PythonProbe::default())
    }

    fn keys(&self) -> &'static [&'static str] {
        &["libc", "python"]
    }

    fn read(
        &self,
        values: Map<String, Value>,
    ) -> Result<Option<Arc<dyn Finding>>, serde_json::Error> {
        let entry: Entry = serde_json::from_value(Value::Object(values))?;
        let pythons = pythons(entry);
        Ok(pythons.map(|it| Arc::new(it) as Arc<dyn Finding>))
    }
}

fn pythons(entry: Entry) -> Option<Pythons> {
    let interpreters = entry.python.into_iter().map(|(path, entry)| {
        Some(Interpreter {
            path,
            version: entry.version.parse().ok()?,
            prefix: entry.prefix,
            site: entry.site,
            platsite: entry.platsite,
            installed: entry.installed,
        })
    });
    let libc = entry.libc.map(|text| text.parse()).transpose().ok()?;
    let interpreters: Option<_> = interpreters.collect();
    Some(Pythons::new(interpreters?, libc))
}

impl Probe for PythonProbe {
    fn look(&mut self, layer: usize, path: &str) -> bool {
        self.look(layer, path)
    }

    fn read(&mut self, bytes: &[u8]) {
        self.read(bytes);
    }

    fn end(&mut self) {
        self.end();
    }

    fn finish(self: Box<Self>, env: &[String]) -> Arc<dyn Finding> {
        Arc::new((*self).finish(env))
    }
}

impl Finding for Pythons {
    fn items(&self) -> Vec<(&'static str, Item)> {
        let libc = self.libc.map(|libc| ("libc", Item::Text(libc_text(libc))));
        // Sorted by path, as the file is.
        let pythons: BTreeMap<&String, Item> = self
            .interpreters
            .iter()
            .map(|it| (&it.path, item(it)))
            .collect();
        let pythons = pythons.into_iter();
        let pythons = pythons.map(|(path, item)| (path.clone(), item));
        let pythons: Vec<(String, Item)> = pythons.collect();
        let pythons = (!pythons.is_empty()).then_some(("python", Item::Table(pythons)));
        libc.into_iter().chain(pythons).collect()
    }

    fn words(&self) -> String {
        let pythons = self.interpreters.iter();
        let pythons: Vec<String> = pythons
            .map(|it| format!("{} {}", it.path, it.version))
            .collect();
        match pythons.is_empty() {
            true => "no Python".to_owned(),
            false => pythons.join(", "),
        }
    }
}

fn libc_text(libc: Libc) -> String {
    match libc {
        Libc::Glibc { minor } => format!("glibc 2.{minor}"),
        Libc::Musl { minor } => format!("musl 1.{minor}"),
    }
}

fn item(python: &Interpreter) -> Item {
    let text = |name: &str, text: &str| (name.to_owned(), Item::Text(text.to_owned()));
    let mut table = vec![
        text("version", &python.version.to_string()),
        text("prefix", &python.prefix),
        text("site", &python.site),
    ];
    if let Some(platsite) = &python.platsite {
        table.push(text("platsite", platsite));
    }
    if !python.installed.is_empty() {
        table.push(("installed".to_owned(), Item::List(python.installed.clone())));
    }
    Item::Table(table)
}
