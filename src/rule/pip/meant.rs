//! What a pip target asks for, without what means nothing: a comment in a requirements file leaves its lock as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use toml::Spanned;

use super::PipTable;
use super::reach::Reach;
use crate::oci::{Digest, Hasher};
use crate::python::{Requested, meaning, one_way, without_login};

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
    /// Takes what the manifest says, and the files that it names. `requested` and `reach` are what they were read as: the
    /// texts do not hold what variables gave them, nor which indexes that leads to; nor what projects need by their METADATA.
    pub(super) fn new(
        table: &PipTable,
        requested: &Requested,
        reach: &Reach,
        texts: BTreeMap<String, String>,
        needs: &[String],
    ) -> Self {
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
            ("own project", one(&table.project)),
            ("needs", plain(needs)),
            ("exclude_newer", one(&table.exclude_newer)),
            ("override", form(&table.overrides, one_way)),
            ("reach", reach.text().into_iter().collect()),
            ("expanded", expanded(requested).collect()),
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

/// Returns the requirements in which variables stand, as they are with their values.
pub(super) fn expanded(requested: &Requested) -> impl Iterator<Item = String> {
    let all = requested.asked.iter().chain(&requested.constraints);
    let all = all.filter(|_| requested.has_variables);
    all.map(|it| without_login(&it.requirement.to_string()))
}
