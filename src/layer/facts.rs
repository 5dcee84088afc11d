//! What lies below a layer, as far as it decides the layer's bytes: folders, and symlinks to folders.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::{Attrs, LayerPath};

/// How many symlinks one path may go through, in all (Linux: 40).
const MAX_LINKS: usize = 40;
/// How long the text of a symlink may be, in bytes (Linux: 4,095). A longer one leads nowhere.
const MAX_TARGET: usize = 4095;

/// One fact about a path of the image below.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fact {
    /// It is a folder.
    Folder(Attrs),
    /// It is a symlink.
    Link {
        /// The link's text.
        target: String,
        /// Whether it is known to lead to a folder.
        folder: bool,
    },
}

impl Fact {
    /// Tells whether a layer above depends on this: anything but a folder with 0755 and 0:0.
    pub fn is_notable(&self) -> bool {
        *self != Self::Folder(Attrs::FOLDER)
    }
}

/// The facts about an image, by path.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Facts(BTreeMap<LayerPath, Fact>);

impl Facts {
    /// Returns the fact about `path`.
    pub fn get(&self, path: &LayerPath) -> Option<&Fact> {
        self.0.get(path)
    }

    /// Sets the fact about `path`.
    pub fn insert(&mut self, path: LayerPath, fact: Fact) {
        self.0.insert(path, fact);
    }

    /// Forgets `path` and all below it.
    pub fn remove(&mut self, path: &LayerPath) {
        self.0.remove(path);
        // Not from the path itself: siblings such as `a-b` sort between `a` and `a/b`, and there may be many.
        let prefix = path.prefix();
        let below: Vec<LayerPath> = self
            .0
            .range::<str, _>((Bound::Included(&*prefix), Bound::Unbounded))
            .map(|(below, _)| below)
            .take_while(|below| below.as_str().starts_with(&prefix))
            .cloned()
            .collect();
        for path in below {
            self.0.remove(&path);
        }
    }

    /// Returns the paths from a text on, sorted.
    pub(super) fn from(&self, text: &str) -> impl Iterator<Item = &LayerPath> {
        let range = (Bound::Included(text), Bound::Unbounded);
        self.0.range::<str, _>(range).map(|(path, _)| path)
    }

    /// Returns all facts, sorted by path.
    pub fn iter(&self) -> impl Iterator<Item = (&LayerPath, &Fact)> {
        self.0.iter()
    }

    /// Returns the facts that a layer above can depend on, sorted by path.
    pub fn notable(&self) -> impl Iterator<Item = (&LayerPath, &Fact)> {
        self.0.iter().filter(|(_, fact)| fact.is_notable())
    }

    /// Returns the notable facts alone.
    #[must_use]
    pub fn only_notable(&self) -> Self {
        let notable = self.notable();
        Self(
            notable
                .map(|(path, fact)| (path.clone(), fact.clone()))
                .collect(),
        )
    }

    /// Tells whether a symlink with the text `target`, in a real folder, leads to a folder that is known.
    pub(super) fn leads_to_folder(&self, folder: &LayerPath, target: &str) -> bool {
        let end = self.end(folder, target);
        end.is_some_and(|end| end.is_root() || matches!(self.get(&end), Some(Fact::Folder(_))))
    }

    /// Returns where a symlink with the text `target`, in a real folder, leads to; `None` where that goes in circles.
    pub(super) fn end(&self, folder: &LayerPath, target: &str) -> Option<LayerPath> {
        self.walk(folder.clone(), target, &mut { MAX_LINKS })
    }

    /// Follows the symlinks on the way to `path`, and `path` itself; `None` where that goes in circles.
    pub(super) fn real(&self, path: &LayerPath) -> Option<LayerPath> {
        self.walk(LayerPath::root(), path.as_str(), &mut { MAX_LINKS })
    }

    /// Walks from a real folder along the text of a path or symlink, through as many links as `budget` allows.
    fn walk(&self, folder: LayerPath, text: &str, budget: &mut usize) -> Option<LayerPath> {
        let mut at = match text.starts_with('/') {
            true => LayerPath::root(),
            false => folder,
        };
        for component in text.split('/') {
            at = match component {
                "" | "." => at,
                ".." => at.parent().unwrap_or_default(),
                name => {
                    let next = at.join(name).ok()?;
                    match self.get(&next) {
                        Some(Fact::Link { target, .. }) => {
                            if target.len() > MAX_TARGET {
                                return None;
                            }
                            *budget = budget.checked_sub(1)?;
                            self.walk(at, target, budget)?
                        }
                        _ => next,
                    }
                }
            };
        }
        Some(at)
    }

    /// Writes one line per fact, which [`Facts::parse`] reads.
    pub fn to_text(&self) -> String {
        use std::fmt::Write as _;
        let mut text = String::new();
        for (path, fact) in &self.0 {
            let _ = match fact {
                Fact::Folder(Attrs { mode, owner }) => {
                    writeln!(
                        text,
                        "{}\tfolder\t{mode:o}\t{}\t{}",
                        escape(path.as_str()),
                        owner.uid,
                        owner.gid
                    )
                }
                Fact::Link { target, folder } => {
                    let word = if *folder { "link" } else { "maybe" };
                    writeln!(
                        text,
                        "{}\t{word}\t{}",
                        escape(path.as_str()),
                        escape(target)
                    )
                }
            };
        }
        text
    }

    /// Reads what [`Facts::to_text`] wrote; `None` if it is anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut facts = Self::default();
        for line in text.lines() {
            let mut fields = line.split('\t');
            let path = LayerPath::parse(&unescape(fields.next()?)?).ok()?;
            let fact = match (fields.next()?, fields.next()?) {
                ("folder", mode) => Fact::Folder(Attrs {
                    mode: u16::from_str_radix(mode, 8).ok()?,
                    owner: super::Owner {
                        uid: fields.next()?.parse().ok()?,
                        gid: fields.next()?.parse().ok()?,
                    },
                }),
                (word @ ("link" | "maybe"), target) => Fact::Link {
                    target: unescape(target)?,
                    folder: word == "link",
                },
                _ => return None,
            };
            facts.insert(path, fact);
        }
        Some(facts)
    }
}

/// Escapes what would end a line or a field.
pub(super) fn escape(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('\t', "\\t")
        .replace('\n', "\\n")
        .replace('\r', "\\r")
}

/// Reads what [`escape`] wrote; `None` if it is anything else.
pub(super) fn unescape(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        out.push(match char {
            '\\' => match chars.next()? {
                '\\' => '\\',
                't' => '\t',
                'n' => '\n',
                'r' => '\r',
                _ => return None,
            },
            other => other,
        });
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trip() {
        let mut facts = Facts::default();
        let path = |text| LayerPath::parse(text).unwrap();
        facts.insert(path("a\tb\\\n"), Fact::Folder(Attrs::FOLDER));
        facts.insert(
            path("lib"),
            Fact::Link {
                target: "usr/lib".into(),
                folder: true,
            },
        );
        assert_eq!(Facts::parse(&facts.to_text()), Some(facts));
        assert_eq!(Facts::parse("x\tfolder\t9"), None);
    }

    #[test]
    fn links_that_multiply_come_to_an_end() {
        // Each link goes through the next one eight times: 8^30 steps, if only the depth were counted.
        let mut facts = Facts::default();
        let path = |text: &str| LayerPath::parse(text).unwrap();
        for n in 0..30 {
            let target = vec![format!("l{}", n + 1); 8].join("/../");
            facts.insert(
                path(&format!("l{n}")),
                Fact::Link {
                    target,
                    folder: false,
                },
            );
        }
        facts.insert(path("l30"), Fact::Folder(Attrs::FOLDER));
        assert_eq!(facts.real(&path("l0")), None);
        assert_eq!(facts.real(&path("l29/x")), Some(path("l30/x")));
    }

    #[test]
    fn links_that_no_system_can_hold_lead_nowhere() {
        let mut facts = Facts::default();
        let path = |text: &str| LayerPath::parse(text).unwrap();
        for (name, length) in [("long", 4095), ("longer", 4096)] {
            let target = format!("{}a", "/".repeat(length - 1));
            let folder = true;
            facts.insert(path(name), Fact::Link { target, folder });
        }
        assert_eq!(facts.real(&path("long/x")), Some(path("a/x")));
        assert_eq!(facts.real(&path("longer/x")), None);
    }

    #[test]
    fn remove_takes_the_subtree_and_no_sibling() {
        let path = |text| LayerPath::parse(text).unwrap();
        let mut facts = Facts::default();
        for name in ["a", "a-b", "a/b", "a/b/c", "ab", "b"] {
            facts.insert(path(name), Fact::Folder(Attrs::FOLDER));
        }
        facts.remove(&path("a"));
        let left: Vec<&str> = facts.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(left, ["a-b", "ab", "b"]);
    }
}
