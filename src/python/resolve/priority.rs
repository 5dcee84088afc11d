//! In which order packages are decided, and what happens to those that conflict often.
//!
//! The rule is uv's: first come, first served, but wheels by URL and pinned versions before all, and packages that were
//! in [`LIMIT`] conflicts before the rest. Of these the one whose versions were rejected comes early; the one whose
//! decision was the cause comes late, and its decision is taken back.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use pep508_rs::PackageName;

/// How many conflicts a package may be in before its order changes.
pub(super) const LIMIT: u32 = 5;

/// When a package is decided: the greatest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Priority {
    kind: Kind,
    /// When the package was first seen.
    package: Reverse<usize>,
    /// When the package was first seen with its extra.
    variant: Reverse<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Kind {
    Ordinary,
    /// Its decisions were the cause of conflicts.
    Late,
    /// Its versions were rejected.
    Early,
    /// One version is left.
    Pinned,
    /// A URL names the wheel.
    Direct,
    Root,
}

/// The priorities of all packages, by what a package is called with and without its extra.
#[derive(Debug)]
pub(super) struct Priorities<P> {
    packages: BTreeMap<PackageName, (Kind, usize)>,
    variants: BTreeMap<P, usize>,
}

impl<P: Ord + Clone> Priorities<P> {
    pub(super) fn new() -> Self {
        Self {
            packages: BTreeMap::new(),
            variants: BTreeMap::new(),
        }
    }

    /// Notes a dependency on a package.
    pub(super) fn insert(
        &mut self,
        name: &PackageName,
        variant: &P,
        is_pinned: bool,
        is_direct: bool,
    ) {
        let count = self.variants.len();
        self.variants.entry(variant.clone()).or_insert(count);
        let kind = match (is_direct, is_pinned) {
            (true, _) => Kind::Direct,
            (_, true) => Kind::Pinned,
            _ => Kind::Ordinary,
        };
        let count = self.packages.len();
        let entry = self.packages.entry(name.clone()).or_insert((kind, count));
        entry.0 = entry.0.max(kind);
    }

    /// Returns when a package is decided; `None` is the root.
    pub(super) fn of(&self, name: Option<&PackageName>, variant: &P) -> Priority {
        let known = name.and_then(|it| self.packages.get(it));
        let (kind, package) = known.copied().unwrap_or((Kind::Root, 0));
        let variant = self.variants.get(variant).copied().unwrap_or_default();
        Priority {
            kind,
            package: Reverse(package),
            variant: Reverse(variant),
        }
    }

    /// Decides a package early from now on.
    pub(super) fn early(&mut self, name: &PackageName) {
        if let Some(entry) = self.packages.get_mut(name) {
            entry.0 = Kind::Early;
        }
    }

    /// Decides a package late from now on; tells whether that is new.
    pub(super) fn late(&mut self, name: &PackageName) -> bool {
        match self.packages.get_mut(name) {
            // A package that is early stays early: else two packages would change places for ever.
            Some(entry) if !matches!(entry.0, Kind::Late | Kind::Early) => {
                entry.0 = Kind::Late;
                true
            }
            _ => false,
        }
    }
}
