//! Which programs an image has: its files that may be run, and its symlinks. What can be started is found by these.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::LayerPath;
use super::facts::{escape, unescape};

/// How many programs and symlinks are held: far more than any real image has.
const MOST: usize = 500_000;

/// The programs and symlinks of an image, by their real paths.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Programs(BTreeMap<LayerPath, Option<String>>);

impl Programs {
    /// Puts them together: files that may be run, and symlinks with their texts. `None` if there are too many.
    pub(super) fn new(
        files: impl Iterator<Item = LayerPath>,
        links: impl Iterator<Item = (LayerPath, String)>,
    ) -> Option<Self> {
        let files = files.map(|path| (path, None));
        let links = links.map(|(path, target)| (path, Some(target)));
        let all: BTreeMap<_, _> = files.chain(links).take(MOST + 1).collect();
        (all.len() <= MOST).then_some(Self(all))
    }

    /// Returns what is at a path: `None` if it is no program and no symlink, else the text of the symlink, if it is one.
    pub(crate) fn get(&self, path: &LayerPath) -> Option<Option<&str>> {
        self.0.get(path).map(Option::as_deref)
    }

    /// Returns the names of what lies in a folder itself, sorted.
    pub(crate) fn names<'a>(&'a self, folder: &LayerPath) -> impl Iterator<Item = &'a str> + 'a {
        let prefix = folder.prefix();
        let from = (Bound::Included(&*prefix), Bound::Unbounded);
        let below = self.0.range::<str, _>(from).map(|(path, _)| path.as_str());
        let below: Vec<&str> = below
            .map_while(|path| path.strip_prefix(&*prefix))
            .filter(|name| !name.is_empty() && !name.contains('/'))
            .collect();
        below.into_iter()
    }

    /// Writes one line for each, which [`Programs::parse`] reads.
    pub(crate) fn to_text(&self) -> String {
        let mut text = String::new();
        for (path, link) in &self.0 {
            text.push_str(&escape(path.as_str()));
            if let Some(target) = link {
                text.push('\t');
                text.push_str(&escape(target));
            }
            text.push('\n');
        }
        text
    }

    /// Reads what [`Programs::to_text`] wrote; `None` if it is anything else.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let lines = text.lines().map(|line| {
            let (path, target) = match line.split_once('\t') {
                Some((path, target)) => (path, Some(unescape(target)?)),
                None => (line, None),
            };
            Some((LayerPath::parse(&unescape(path)?).ok()?, target))
        });
        lines.collect::<Option<_>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trip() {
        let path = |text: &str| LayerPath::parse(text).unwrap();
        let files = ["bin/b", "bin/a\tb", "bin/x/c", "bin-more"].map(path);
        let links = [(path("bin/l"), "b\n".to_owned())];
        let programs = Programs::new(files.into_iter(), links.into_iter()).unwrap();
        assert_eq!(Programs::parse(&programs.to_text()), Some(programs.clone()));
        let names: Vec<&str> = programs.names(&path("bin")).collect();
        assert_eq!(names, ["a\tb", "b", "l"]);
        assert_eq!(programs.get(&path("bin/l")), Some(Some("b\n")));
        assert_eq!(programs.get(&path("bin/b")), Some(None));
        assert_eq!(programs.get(&path("bin")), None);
        assert_eq!(Programs::parse("/../x\n"), None);
    }
}
