//! Platforms: operating system, architecture and variant (image-spec, image-index.md).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What an image runs on, in the names of Go's GOOS and GOARCH.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Platform {
    /// The architecture, as `amd64`.
    pub architecture: String,
    /// The operating system, as `linux`.
    pub os: String,
    /// The version of the operating system (Windows).
    #[serde(
        default,
        rename = "os.version",
        skip_serializing_if = "Option::is_none"
    )]
    pub os_version: Option<String>,
    /// Features that the operating system must have (Windows).
    #[serde(
        default,
        rename = "os.features",
        deserialize_with = "super::null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub os_features: Vec<String>,
    /// The variant of the architecture, as `v8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// A text that names no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a platform: expected OS/ARCH or OS/ARCH/VARIANT, as in `linux/arm64`")]
pub struct PlatformError(String);

impl Platform {
    /// Makes a platform without a variant.
    pub fn new(os: &str, architecture: &str) -> Self {
        Self {
            architecture: architecture.to_owned(),
            os: os.to_owned(),
            os_version: None,
            os_features: Vec::new(),
            variant: None,
        }
    }

    /// Checks the names against those that images use: Go's GOOS and GOARCH (image-spec, config.md).
    ///
    /// # Errors
    /// The name that is unknown, and the one that other tools' names stand for, if it is one of these.
    pub fn check_names(&self) -> Result<(), (&str, Option<&'static str>)> {
        const SYSTEMS: [&str; 9] = [
            "linux", "windows", "darwin", "freebsd", "netbsd", "openbsd", "solaris", "illumos",
            "wasip1",
        ];
        const ARCHITECTURES: [&str; 15] = [
            "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle",
            "ppc64", "ppc64le", "riscv64", "s390x", "sparc64", "wasm",
        ];
        if !SYSTEMS.contains(&self.os.as_str()) {
            let near = SYSTEMS
                .into_iter()
                .find(|it| strsim::damerau_levenshtein(it, &self.os) <= 2);
            return Err((&self.os, near));
        }
        if !ARCHITECTURES.contains(&self.architecture.as_str()) {
            let near = match self.architecture.as_str() {
                "x86_64" | "x64" | "x86-64" => Some("amd64"),
                "aarch64" | "armv8" => Some("arm64"),
                "i386" | "i686" | "x86" => Some("386"),
                "armv7l" | "armhf" | "armv7" => Some("arm"),
                other => ARCHITECTURES
                    .into_iter()
                    .find(|it| strsim::damerau_levenshtein(it, other) <= 1),
            };
            return Err((&self.architecture, near));
        }
        Ok(())
    }

    /// The variant that is meant where none is written: `v8` for arm64, `v7` for arm.
    fn variant_or_default(&self) -> Option<&str> {
        match (self.variant.as_deref(), self.architecture.as_str()) {
            (Some(variant), _) => Some(variant),
            (None, "arm64") => Some("v8"),
            (None, "arm") => Some("v7"),
            (None, _) => None,
        }
    }

    /// Tells whether an image for `self` is what someone asks for who asks for `wanted`.
    ///
    /// `arm64` and `arm64/v8` are the same, and so are `arm` and `arm/v7`.
    pub fn matches(&self, wanted: &Self) -> bool {
        self.os == wanted.os
            && self.architecture == wanted.architecture
            && self.variant_or_default() == wanted.variant_or_default()
    }

    /// Tells whether this marks an attestation rather than an image (`unknown/unknown`).
    pub fn is_unknown(&self) -> bool {
        self.os == "unknown" && self.architecture == "unknown"
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let parts: Vec<&str> = text.split('/').collect();
        let word = |part: &&str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
        };
        if !(2..=3).contains(&parts.len()) || !parts.iter().all(word) {
            return Err(PlatformError(text.to_owned()));
        }
        Ok(Self {
            variant: parts.get(2).map(|&variant| variant.to_owned()),
            ..Self::new(parts[0], parts[1])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_prints() {
        for text in ["linux/amd64", "linux/arm64/v8", "windows/amd64"] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "linux",
            "linux/",
            "/amd64",
            "linux/amd64/v1/x",
            "Linux/amd64",
            "linux/a b",
        ] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }

    #[test]
    fn names_are_those_of_go() {
        let check = |text: &str| {
            text.parse::<Platform>()
                .unwrap()
                .check_names()
                .map_err(|it| it.1)
        };
        assert_eq!(check("linux/amd64"), Ok(()));
        assert_eq!(check("linux/x86_64"), Err(Some("amd64")));
        assert_eq!(check("linux/aarch64"), Err(Some("arm64")));
        assert_eq!(check("lnux/amd64"), Err(Some("linux")));
        assert_eq!(check("linux/potato"), Err(None));
    }

    #[test]
    fn default_variants_match() {
        let parse = |text: &str| text.parse::<Platform>().unwrap();
        assert!(parse("linux/arm64/v8").matches(&parse("linux/arm64")));
        assert!(parse("linux/arm").matches(&parse("linux/arm/v7")));
        assert!(!parse("linux/arm/v6").matches(&parse("linux/arm")));
        assert!(!parse("linux/amd64").matches(&parse("linux/arm64")));
    }
}
