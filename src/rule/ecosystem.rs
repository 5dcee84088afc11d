//! Ecosystems: kinds of packages, as bases and images see them. A rule that brings packages has one, and everybody else gets
//! at it through the traits here: what is found in a base while its layers are read once, how that stands in `image.lock`,
//! and which packages exclude each other. Knows no ecosystem.
//!
//! How packages are pinned, through which port they are reached and which nodes they become is said by the rule itself.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io::{self, Read};
use std::sync::Arc;

use serde::{Serialize, Serializer};
use serde_json::Value;

use super::RULES;
use crate::layer::LayerPath;

/// A kind of packages.
pub trait Ecosystem: Sync {
    /// Begins to look at the files of a base.
    fn probe(&self) -> Box<dyn Probe>;

    /// Returns the keys under which `image.lock` holds what was found in a base, for each platform.
    fn keys(&self) -> &'static [&'static str];

    /// Reads what stands under the keys; nothing stands there where nothing was found. `None` if it makes no sense.
    ///
    /// # Errors
    /// When it is not of the right form.
    fn read(
        &self,
        values: serde_json::Map<String, Value>,
    ) -> Result<Option<Arc<dyn Finding>>, serde_json::Error>;
}

/// Looks at the files of a base, as its layers pass by once, the lowest first.
pub trait Probe {
    /// Looks at a regular file, which may be a whiteout: the number of its layer, and its path without a leading `/`. Tells
    /// whether its content is wanted.
    fn look(&mut self, layer: usize, path: &str) -> bool;

    /// Takes bytes of the file that was looked at last, if they are wanted.
    fn read(&mut self, bytes: &[u8]);

    /// Takes the end of that file.
    fn end(&mut self);

    /// Returns what was found. `env` are the variables of the base's config, as `NAME=VALUE`.
    fn finish(self: Box<Self>, env: &[String]) -> Arc<dyn Finding>;
}

/// What an ecosystem found in a base.
pub trait Finding: Any + Debug + Send + Sync {
    /// Returns what stands in `image.lock`, by its keys. Values come before tables.
    fn items(&self) -> Vec<(&'static str, Item)>;

    /// Says it in a few words.
    fn words(&self) -> String;
}

/// What stands in `image.lock` under a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Item {
    /// A text.
    Text(String),
    /// A list of texts.
    List(Vec<String>),
    /// A table, in its order.
    Table(Vec<(String, Item)>),
}

impl Serialize for Item {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => text.serialize(serializer),
            Self::List(list) => list.serialize(serializer),
            Self::Table(table) => serializer.collect_map(table.iter().map(|(key, it)| (key, it))),
        }
    }
}

/// What all ecosystems found in a base, by the name of their rule.
#[derive(Clone, Default, Debug)]
pub struct Found(BTreeMap<&'static str, Arc<dyn Finding>>);

/// Returns the ecosystems, with the names of their rules.
fn all() -> impl Iterator<Item = (&'static str, &'static dyn Ecosystem)> {
    RULES
        .iter()
        .filter_map(|rule| Some((rule.name(), rule.ecosystem()?)))
}

impl Found {
    /// Returns what one kind of finding says.
    pub(crate) fn get<T: Finding>(&self) -> Option<&T> {
        self.0
            .values()
            .find_map(|it| (&**it as &dyn Any).downcast_ref())
    }

    /// Returns the keys of what ecosystems find.
    pub(crate) fn keys() -> impl Iterator<Item = &'static str> {
        all().flat_map(|(_, it)| it.keys()).copied()
    }

    /// Returns what stands in `image.lock`, by its keys.
    pub(crate) fn items(&self) -> Vec<(&'static str, Item)> {
        self.0.values().flat_map(|it| it.items()).collect()
    }

    /// Says it in a few words.
    pub(crate) fn words(&self) -> String {
        let words: Vec<String> = self.0.values().map(|it| it.words()).collect();
        words.join("; ")
    }

    /// Reads what stands in `image.lock` under the keys of ecosystems. `None` if it makes no sense, or is not what would be
    /// written of it.
    ///
    /// # Errors
    /// When it is not of the right form.
    pub(crate) fn read(
        mut values: serde_json::Map<String, Value>,
    ) -> Result<Option<Self>, serde_json::Error> {
        let mut found = Self::default();
        for (rule, ecosystem) in all() {
            let own = ecosystem.keys().iter();
            let own = own.filter_map(|key| values.remove_entry(*key)).collect();
            let own: serde_json::Map<String, Value> = own;
            let Some(finding) = ecosystem.read(own.clone())? else {
                return Ok(None);
            };
            let written = finding.items().into_iter();
            let written =
                written.map(|(key, item)| Ok((key.to_owned(), serde_json::to_value(item)?)));
            if own != written.collect::<Result<_, serde_json::Error>>()? {
                return Ok(None);
            }
            found.0.insert(rule, finding);
        }
        Ok(Some(found))
    }
}

impl PartialEq for Found {
    fn eq(&self, other: &Self) -> bool {
        self.0.keys().eq(other.0.keys())
            && self.0.values().zip(other.0.values()).all(|(one, other)| {
                // Of one base it is the very same.
                Arc::ptr_eq(one, other) || one.items() == other.items()
            })
    }
}

impl Eq for Found {}

/// The probes of all ecosystems, which share one pass.
pub(crate) struct Probes(Vec<(&'static str, Box<dyn Probe>)>);

impl Probes {
    /// Begins to look at a base.
    pub(crate) fn new() -> Self {
        Self(all().map(|(rule, it)| (rule, it.probe())).collect())
    }

    /// Shows a regular file of a layer to all. It is read once, and only if one of them wants it.
    ///
    /// # Errors
    /// When the content cannot be read.
    pub(crate) fn look(
        &mut self,
        layer: usize,
        path: &LayerPath,
        content: &mut dyn Read,
    ) -> io::Result<()> {
        let probes = self.0.iter_mut().map(|(_, probe)| probe);
        let mut eager: Vec<&mut Box<dyn Probe>> = probes
            .filter_map(|probe| probe.look(layer, path.as_str()).then_some(probe))
            .collect();
        if eager.is_empty() {
            return Ok(());
        }
        let mut block = vec![0; 1 << 16];
        loop {
            let count = content.read(&mut block)?;
            if count == 0 {
                break;
            }
            eager.iter_mut().for_each(|it| it.read(&block[..count]));
        }
        eager.iter_mut().for_each(|it| it.end());
        Ok(())
    }

    /// Returns what was found. `env` are the variables of the base's config, as `NAME=VALUE`.
    pub(crate) fn finish(self, env: &[String]) -> Found {
        let probes = self.0.into_iter();
        Found(
            probes
                .map(|(rule, probe)| (rule, probe.finish(env)))
                .collect(),
        )
    }
}

/// The packages of a target, as an image sees them.
pub trait Installed: Any + Debug + Send + Sync {
    /// Returns the folder of commands that comes first in `PATH`, if there is one.
    fn commands(&self) -> Option<&str>;

    /// Says in what these packages and those of a target further down exclude each other, if they do.
    fn conflict(&self, below: &dyn Installed) -> Option<Conflict>;
}

/// Why the packages of two targets exclude each other.
pub struct Conflict {
    /// The code for messages.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub help: String,
}
