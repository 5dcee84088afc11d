//! Version specifiers as sets of versions (PyPA specifications, "Version specifiers").
//!
//! A public version matches its local versions too: `==1.2` and `<=1.2` accept `1.2+cpu`. So a point of the order is a
//! public version with none, some or all of the local versions that follow it.

use std::fmt;
use std::ops::Bound;

use pep440_rs::{Operator, Prerelease, Version, VersionSpecifier, VersionSpecifiers};
use pubgrub::Ranges;

/// A point in the order of versions.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Point {
    public: Version,
    local: Local,
}

/// What follows a public version. The order of the variants is that of versions.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Local {
    Without,
    With(Version),
    /// After all local versions of the public one: no version itself.
    End,
}

impl Point {
    /// Returns the point of a version.
    pub(super) fn of(version: &Version) -> Self {
        if version.local().is_empty() {
            return Self::public(version.clone());
        }
        Self {
            public: version.clone().without_local(),
            local: Local::With(version.clone()),
        }
    }

    /// Tells whether it is a pre-release.
    pub(super) fn is_pre(&self) -> bool {
        self.public.any_prerelease()
    }

    fn public(version: Version) -> Self {
        Self {
            public: version,
            local: Local::Without,
        }
    }

    /// Returns the point after all local versions of a version.
    fn end(version: &Version) -> Self {
        Self {
            public: version.clone().without_local(),
            local: Local::End,
        }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.local {
            Local::With(version) => version.fmt(f),
            Local::Without | Local::End => {
                // Sentinels are no versions: `<2` ends at the least of all versions 2.
                let version = &self.public;
                let is_sentinel = version.min().is_some() || version.max().is_some();
                let is_first = version.dev() == Some(0) && version.pre().is_none();
                if is_sentinel || is_first {
                    let plain = version.only_release().with_epoch(version.epoch());
                    plain
                        .with_pre(version.pre())
                        .with_post(version.post())
                        .fmt(f)
                } else {
                    version.fmt(f)
                }
            }
        }
    }
}

/// Returns the versions that satisfy all specifiers.
pub(super) fn all(specifiers: &VersionSpecifiers) -> Ranges<Point> {
    specifiers.iter().fold(Ranges::full(), |range, specifier| {
        range.intersection(&one(specifier))
    })
}

/// Returns exactly one version.
pub(super) fn exactly(version: &Version) -> Ranges<Point> {
    Ranges::singleton(Point::of(version))
}

/// Tells whether a set holds one public version only.
pub(super) fn is_pin(range: &Ranges<Point>) -> bool {
    let mut segments = range.iter();
    match (segments.next(), segments.next()) {
        (Some((Bound::Included(start), Bound::Included(end))), None) => start.public == end.public,
        _ => false,
    }
}

fn one(specifier: &VersionSpecifier) -> Ranges<Point> {
    let version = specifier.version();
    match specifier.operator() {
        Operator::Equal => equal(version),
        Operator::ExactEqual => exactly(version),
        Operator::NotEqual => equal(version).complement(),
        Operator::LessThanEqual if version.local().is_empty() => {
            Ranges::lower_than(Point::end(version))
        }
        Operator::LessThanEqual => Ranges::lower_than(Point::of(version)),
        Operator::GreaterThanEqual => Ranges::higher_than(Point::of(version)),
        // A pre-release of a version is below it, but `<2` does not mean 2.0rc1.
        Operator::LessThan if version.any_prerelease() => {
            Ranges::strictly_lower_than(Point::of(version))
        }
        Operator::LessThan if version.is_post() => {
            Ranges::strictly_lower_than(Point::public(version.clone().with_dev(Some(0))))
        }
        Operator::LessThan => {
            let release = version.clone().without_local();
            Ranges::strictly_lower_than(Point::public(release.with_min(Some(0))))
        }
        // A post-release of a version is above it, but `>2` does not mean 2.0.post1, nor 2.0+cpu.
        Operator::GreaterThan if version.is_stable() && !version.is_post() => {
            let release = version.clone().without_local();
            Ranges::strictly_higher_than(Point::public(release.with_max(Some(0))))
        }
        Operator::GreaterThan => Ranges::strictly_higher_than(Point::end(version)),
        Operator::TildeEqual => match version.release() {
            [rest @ .., last, _] => {
                let end = Version::new(rest.iter().copied().chain([last.saturating_add(1)]));
                let end = end.with_epoch(version.epoch()).with_dev(Some(0));
                Ranges::between(Point::of(version), Point::public(end))
            }
            // The parser refuses `~=1`.
            _ => Ranges::empty(),
        },
        Operator::EqualStar => starred(version),
        Operator::NotEqualStar => starred(version).complement(),
    }
}

fn equal(version: &Version) -> Ranges<Point> {
    if !version.local().is_empty() {
        return exactly(version);
    }
    Ranges::from_range_bounds::<_, Point>(Point::of(version)..=Point::end(version))
}

/// Returns the versions that begin with a version: those of `==1.2.*`.
fn starred(version: &Version) -> Ranges<Point> {
    let start = version.clone().with_dev(Some(0));
    let end = if let Some(post) = start.post() {
        start.clone().with_post(Some(post.saturating_add(1)))
    } else if let Some(Prerelease { kind, number }) = start.pre() {
        let number = number.saturating_add(1);
        start.clone().with_pre(Some(Prerelease { kind, number }))
    } else {
        let mut release = start.release().to_vec();
        if let Some(last) = release.last_mut() {
            *last = last.saturating_add(1);
        }
        start.clone().with_release(release)
    };
    Ranges::between(Point::public(start), Point::public(end))
}

/// Writes a set as specifiers would say it; nothing for all versions.
pub(super) fn describe(range: &Ranges<Point>) -> String {
    let parts: Vec<String> = range
        .iter()
        .map(|(start, end)| {
            if let (Bound::Included(start), Bound::Included(end)) = (start, end)
                && start.public == end.public
                && (start == end || end.local == Local::End)
            {
                return format!("=={start}");
            }
            let start = match start {
                Bound::Included(it) => format!(">={it}"),
                Bound::Excluded(it) => format!(">{it}"),
                Bound::Unbounded => String::new(),
            };
            let end = match end {
                Bound::Included(it) => format!("<={it}"),
                Bound::Excluded(it) => format!("<{it}"),
                Bound::Unbounded => String::new(),
            };
            match start.is_empty() || end.is_empty() {
                true => start + &end,
                false => format!("{start},{end}"),
            }
        })
        .collect();
    parts.join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(specifiers: &str, version: &str) -> bool {
        let specifiers: VersionSpecifiers = specifiers.parse().unwrap();
        all(&specifiers).contains(&Point::of(&version.parse().unwrap()))
    }

    /// Each line was asked of `packaging` 26.3 (`SpecifierSet(…).contains(…, prereleases=True)`), and it agrees.
    #[test]
    fn matches_what_packaging_matches() {
        for (specifiers, versions) in MATCHES {
            for version in versions.split(' ') {
                let (expected, version) = match version.strip_prefix('!') {
                    Some(version) => (false, version),
                    None => (true, version),
                };
                assert_eq!(
                    matches(specifiers, version),
                    expected,
                    "{version} in {specifiers}"
                );
            }
        }
    }

    const MATCHES: [(&str, &str); 22] = [
        (
            "==1.2.3",
            "1.2.3 1.2.3+foo 1.2.3.0 !1.2.3.post1 !1.2.3rc1 !1.2.4",
        ),
        ("==1.2.3+foo", "1.2.3+foo !1.2.3 !1.2.3+bar"),
        ("!=1.2.3", "!1.2.3 !1.2.3+foo 1.2.3.post1 1.2.4"),
        ("!=1.2.3+foo", "1.2.3 !1.2.3+foo 1.2.3+bar"),
        (
            "<=1.2.3",
            "1.2.3 1.2.3+foo 1.2.3rc1 !1.2.3.post1 !1.2.4.dev0",
        ),
        (">=1.2.3", "1.2.3 1.2.3+foo 1.2.3.post1 !1.2.3rc1 2"),
        (
            ">1.2.3",
            "!1.2.3 !1.2.3+foo !1.2.3.post1 1.2.4.dev1 1.2.3.1",
        ),
        (
            ">1.2.3.post0",
            "!1.2.3.post0 !1.2.3.post0+foo 1.2.3.post1 1.2.4 !1.2.3",
        ),
        (">1.2.3rc1", "1.2.3rc2 1.2.3 !1.2.3rc1 1.2.4"),
        ("<2", "1.9 !2 !2.0rc1 !2.0.dev1 1.9.post1 !1!0"),
        ("<2.0rc2", "2.0rc1 !2.0rc2 2.0a1 1.9"),
        (
            "<1.2.3.post1",
            "1.2.3 1.2.3.post0 !1.2.3.post1 !1.2.3.post1.dev0 1.2.2",
        ),
        ("~=1.4.2", "1.4.2 1.4.9 1.4.9.post1 !1.5 !1.5.dev1 !1.4.1"),
        ("~=1.4", "1.4 1.9 !2.0 !2.0a1"),
        ("~=1.4.2rc1", "1.4.2rc1 1.4.2 !1.4.2b1 1.4.3 !1.5"),
        (
            "==1.4.*",
            "1.4 1.4.0 1.4.9.post1 1.4rc1 1.4.dev0 !1.5 !1.5.dev0 1.4.1+x !1.3.9",
        ),
        ("!=1.4.*", "!1.4 !1.4.9 1.5 1.3 1.5.dev0"),
        (">=1,<2,!=1.5", "1 1.4 !1.5 1.6 !2 !0.9"),
        ("===1.0", "1.0 !1.1"),
        ("==1!2.0", "1!2.0 !2.0"),
        ("~=1!2.0", "1!2.5 !2.5 !1!3.0"),
        (">=0", "0 99 0.0.1rc1"),
    ];

    #[test]
    fn describes_as_specifiers_do() {
        for (specifiers, said) in [
            ("==1.2", "==1.2"),
            (">=1.2,<2", ">=1.2,<2"),
            ("~=1.4.2", ">=1.4.2,<1.5"),
            ("!=1.5", "<1.5 or >1.5"),
            (">1,<=2", ">1,<=2"),
            (">=0.dev0", ">=0"),
            ("==1.2+cpu", "==1.2+cpu"),
            ("<1.2.post1", "<1.2.post1"),
        ] {
            let parsed: VersionSpecifiers = specifiers.parse().unwrap();
            assert_eq!(describe(&all(&parsed)), said, "{specifiers}");
        }
        assert_eq!(describe(&Ranges::full()), "");
    }
}
