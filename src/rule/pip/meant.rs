//! What a pip target asks for, without what means nothing: a comment in a requirements file leaves its lock as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use toml::Spanned;

use super::PipTable;
use crate::oci::{Digest, Hasher};
use crate::python::{meaning, one_way};

/// What is asked for. Its digest is made when somebody needs it: the texts may be large.
pub(super) struct Meant {
    /// What the manifest says: names and values.
    said: Vec<(&'static str, String)>,
    /// The files, by their paths.
    texts: BTreeMap<String, String>,
    /// The digest, once it was made.
    digest: OnceLock<Digest>,
}

impl Meant {
    /// Takes what the manifest says, and the files that it names.
    pub(super) fn new(table: &PipTable, texts: BTreeMap<String, String>) -> Self {
        let form = |list: &[Spanned<String>], form: fn(&str) -> String| -> BTreeSet<String> {
            list.iter().map(|it| form(it.get_ref())).collect()
        };
        let plain = |list: &[String]| -> BTreeSet<String> { list.iter().cloned().collect() };
        let one = |value: &Option<Spanned<String>>| -> BTreeSet<String> {
            value.iter().map(|it| it.get_ref().clone()).collect()
        };
        let mut said = Vec::new();
        // Of all these the order means nothing.
        for (name, values) in [
            ("package", form(&table.packages, one_way)),
            ("requirements", form(&table.requirements, str::to_owned)),
            ("constraints", form(&table.constraints, str::to_owned)),
            ("pyproject", one(&table.pyproject)),
            ("extra", plain(&table.extras)),
            ("group", plain(&table.groups)),
            ("project", one(&table.package)),
            ("exclude_newer", one(&table.exclude_newer)),
        ] {
            said.extend(values.into_iter().map(|value| (name, value)));
        }
        let links = table.find_links.iter();
        said.extend(links.map(|it| ("find_links", it.get_ref().clone())));
        Self {
            said,
            texts,
            digest: OnceLock::new(),
        }
    }

    /// Returns the digest.
    pub(super) fn digest(&self) -> Digest {
        *self.digest.get_or_init(|| {
            let mut hasher = Hasher::default();
            let mut field = |name: &str, value: &str| {
                hasher.update(format!("{name} {}\n", value.len()).as_bytes());
                hasher.update(value.as_bytes());
            };
            field("means", "1");
            self.said
                .iter()
                .for_each(|(name, value)| field(name, value));
            for (path, text) in &self.texts {
                field("path", path);
                field("text", &meaning(path, text));
            }
            hasher.finish()
        })
    }
}
