//! The wheel tags that fit a target, best first (PyPA specifications, "Platform compatibility tags").
//!
//! The order is that of PyPA's `packaging`, with the plain `linux_ARCH` after the manylinux tags, as uv has it.

use std::collections::BTreeMap;

use super::filename::WheelParts;
use super::{Libc, Target, WheelName};

/// The wheel tags that fit a target, with their rank.
#[derive(Clone, Debug)]
pub struct Tags {
    ranks: BTreeMap<String, u32>,
    order: Vec<String>,
}

/// How a wheel fits: the rank of its best tag, and its build tag.
type Fit = (u32, Option<(u64, String)>);

/// The older names of three platforms (PEP 600, "Legacy manylinux tags").
const LEGACY: [(u32, &str); 3] = [
    (17, "manylinux2014"),
    (12, "manylinux2010"),
    (5, "manylinux1"),
];

impl Tags {
    pub(super) fn of(target: &Target) -> Self {
        let platforms = platforms(target);
        let (major, minor) = (target.python.major, target.python.minor);
        let own = format!("cp{major}{minor}");
        let mut order = Vec::new();
        let mut all = |interpreter: &str, abi: &str| {
            for platform in &platforms {
                order.push(format!("{interpreter}-{abi}-{platform}"));
            }
        };
        all(&own, &own);
        all(&own, "abi3");
        all(&own, "none");
        for older in (2..minor).rev() {
            all(&format!("cp{major}{older}"), "abi3");
        }
        let mut generic = vec![format!("py{major}{minor}"), format!("py{major}")];
        generic.extend((0..minor).rev().map(|older| format!("py{major}{older}")));
        for interpreter in &generic {
            all(interpreter, "none");
        }
        order.push(format!("{own}-none-any"));
        order.extend(generic.iter().map(|it| format!("{it}-none-any")));
        let ranks = order.iter().cloned().zip(0..).collect();
        Self { ranks, order }
    }

    /// Returns the rank of a wheel's best tag: 0 is best; `None` if none of its tags fits.
    ///
    /// Wheels of one rank are told apart by their build tag, the higher one being better.
    pub fn rank(&self, wheel: &WheelName) -> Option<u32> {
        let mut tag = String::new();
        let ranks = wheel
            .triples()
            .filter_map(|(python, abi, platform)| self.find(&mut tag, python, abi, platform));
        ranks.min()
    }

    /// Returns the rank and the build tag of a file, `None` if no tag fits.
    ///
    /// # Errors
    /// When its name is not that of a wheel.
    pub(super) fn fit(&self, file: &str) -> Result<Option<Fit>, &'static str> {
        let decoded = WheelParts::decode(file)?;
        let parts = WheelParts::of(&decoded)?;
        let build = parts.build()?;
        parts.check_tags()?;
        Ok(self.rank_of(&parts).map(|rank| (rank, build)))
    }

    /// Returns the rank of a name that was not copied.
    fn rank_of(&self, parts: &WheelParts<'_>) -> Option<u32> {
        let mut tag = String::new();
        let mut best: Option<u32> = None;
        for platform in parts.platform.split('.') {
            for python in parts.python.split('.') {
                for abi in parts.abi.split('.') {
                    let rank = self.find(&mut tag, python, abi, platform);
                    best = best.into_iter().chain(rank).min();
                }
            }
        }
        best
    }

    /// Returns the rank of one tag, in any case of letters; `tag` is room for its text.
    fn find(&self, tag: &mut String, python: &str, abi: &str, platform: &str) -> Option<u32> {
        tag.clear();
        for part in [python, "-", abi, "-", platform] {
            tag.push_str(part);
        }
        tag.make_ascii_lowercase();
        self.ranks.get(tag.as_str()).copied()
    }

    /// Tells whether this one tag fits.
    pub(super) fn holds(&self, python: &str, abi: &str, platform: &str) -> bool {
        self.ranks
            .contains_key(&format!("{python}-{abi}-{platform}"))
    }

    /// Returns the tags, best first, as `cp311-cp311-manylinux_2_17_x86_64`.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.order.iter().map(String::as_str)
    }
}

/// Returns the platform tags of a target, newest first.
fn platforms(target: &Target) -> Vec<String> {
    let machine = target.machine();
    let mut platforms = Vec::new();
    match target.libc {
        Libc::Glibc { minor } => {
            // manylinux1 and 2010 were for x86 only; older glibcs are named there only (PEP 600).
            let oldest = if matches!(machine, "x86_64" | "i686") {
                5
            } else {
                17
            };
            for number in (oldest..=minor).rev() {
                platforms.push(format!("manylinux_2_{number}_{machine}"));
                let legacy = LEGACY.iter().find(|(of, _)| *of == number);
                platforms.extend(legacy.map(|(_, name)| format!("{name}_{machine}")));
            }
        }
        Libc::Musl { minor } => {
            platforms.extend(
                (0..=minor)
                    .rev()
                    .map(|it| format!("musllinux_1_{it}_{machine}")),
            );
        }
    }
    platforms.push(format!("linux_{machine}"));
    platforms
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Digest;

    fn target(arch: &str, libc: &str, python: &str) -> Target {
        Target {
            arch: arch.to_owned(),
            libc: libc.parse().unwrap(),
            python: python.parse().unwrap(),
        }
    }

    /// Counts and digests of the lists that `packaging` 26.3 makes: `cpython_tags` and then `compatible_tags`, given the
    /// platforms of its `_manylinux` or `_musllinux` module and the plain `linux_ARCH`. Made once with
    /// `sha256("\n".join(map(str, tags)))`.
    #[test]
    fn the_order_is_that_of_packaging() {
        for (arch, libc, python, count, digest) in PACKAGING {
            let target = target(arch, libc, python);
            let tags: Vec<String> = target.tags().iter().map(str::to_owned).collect();
            let digest: Digest = digest.parse().unwrap();
            let name = target.name();
            assert_eq!(tags.len(), count, "{name}");
            assert_eq!(Digest::of(tags.join("\n").as_bytes()), digest, "{name}");
        }
    }

    const PACKAGING: [(&str, &str, &str, usize, &str); 6] = [
        (
            "amd64",
            "glibc 2.17",
            "3.11",
            439,
            "sha256:521f728c4895eabfc3cf5ed722a7d2ef2f68da3a8779506c290cc02bfc248f5d",
        ),
        (
            "amd64",
            "glibc 2.36",
            "3.12",
            987,
            "sha256:0f952510c80f9cd9051683b89e7758c7164ea6ae0c524be3798dd0c213fafb7d",
        ),
        (
            "arm64",
            "glibc 2.36",
            "3.11",
            564,
            "sha256:6ae23040664b5276fe92fd496d0cc41f64d5c5b1f86de7516c32b5ad8f2c88e1",
        ),
        (
            "amd64",
            "musl 1.2",
            "3.12",
            123,
            "sha256:3a76d8d82692e240ac450d80dc131de4a1abe5bfca4d60950f9ffceb5d3947dd",
        ),
        (
            "386",
            "glibc 2.41",
            "3.14",
            1288,
            "sha256:53560493af74ec99f0915f88e4ec92761ba42d0735d7ce3c68162d9f3808aa7f",
        ),
        (
            "arm/v7",
            "glibc 2.31",
            "3.9",
            369,
            "sha256:09a5904ebc3b15d191c17a43159cfc44ece1bd51b4a0e8234d65c9c614bd0e18",
        ),
    ];

    #[test]
    fn the_first_and_the_last() {
        let tags = target("amd64", "glibc 2.17", "3.11").tags();
        let tags: Vec<&str> = tags.iter().collect();
        assert_eq!(
            tags[..3],
            [
                "cp311-cp311-manylinux_2_17_x86_64",
                "cp311-cp311-manylinux2014_x86_64",
                "cp311-cp311-manylinux_2_16_x86_64",
            ]
        );
        assert_eq!(
            tags[tags.len() - 3..],
            ["py32-none-any", "py31-none-any", "py30-none-any"]
        );
        assert!(!tags.iter().any(|it| it.contains("musllinux")));
    }

    #[test]
    fn ranks_the_best_of_compressed_tags() {
        let tags = target("amd64", "glibc 2.28", "3.12").tags();
        let rank = |file: &str| tags.rank(&WheelName::parse(file).unwrap());
        let exact = rank("a-1-cp312-cp312-manylinux_2_28_x86_64.whl");
        let aliases = rank("a-1-cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64.whl");
        let stable = rank("a-1-cp39-abi3-manylinux_2_17_x86_64.whl");
        let pure = rank("a-1-py2.py3-none-any.whl");
        assert_eq!(exact, Some(0));
        assert!(
            exact < aliases && aliases < stable && stable < pure,
            "{pure:?}"
        );
        assert!(pure.is_some());
        for other in [
            "a-1-cp312-cp312-manylinux_2_29_x86_64.whl",
            "a-1-cp312-cp312t-manylinux_2_17_x86_64.whl",
            "a-1-cp313-abi3-manylinux_2_17_x86_64.whl",
            "a-1-cp312-cp312-musllinux_1_1_x86_64.whl",
            "a-1-cp312-cp312-manylinux_2_17_aarch64.whl",
            "a-1-py2-none-any.whl",
        ] {
            assert_eq!(rank(other), None, "{other}");
        }
    }
}
