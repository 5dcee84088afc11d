//! What a wheel must fit: an architecture, a C library and a Python.
//!
//! Knows nothing of where these facts come from.

use std::fmt;
use std::str::FromStr;

use pep508_rs::{MarkerEnvironment, MarkerEnvironmentBuilder};
use serde::{Deserialize, Serialize};

use super::Tags;

/// What wheels are chosen for. Always Linux and CPython with its lock.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Target {
    /// The architecture in the names of images, with its variant where one counts: `amd64`, `arm64`, `arm/v7`.
    pub arch: String,
    /// The C library.
    pub libc: Libc,
    /// The version of CPython.
    pub python: Python,
}

/// The C library of a target.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Libc {
    /// glibc 2.`minor`.
    Glibc {
        /// The second number of the version.
        minor: u32,
    },
    /// musl 1.`minor`.
    Musl {
        /// The second number of the version.
        minor: u32,
    },
}

/// A version of CPython.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Python {
    /// The first number.
    pub major: u32,
    /// The second number.
    pub minor: u32,
    /// The third number, where it is known.
    pub patch: Option<u32>,
}

/// A text that is no version of a Python or of a C library.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct TargetError {
    text: String,
    expected: &'static str,
}

impl Target {
    /// Returns the name that logs and locks use: `linux-x86_64-glibc2.36-cp311`.
    pub fn name(&self) -> String {
        let Python { major, minor, .. } = self.python;
        format!("linux-{}-{}-cp{major}{minor}", self.machine(), self.libc)
    }

    /// Returns what `platform.machine()` says there, which is also the name of the architecture in wheel tags.
    pub fn machine(&self) -> &str {
        match self.arch.as_str() {
            "amd64" => "x86_64",
            "arm64" | "arm64/v8" => "aarch64",
            "386" => "i686",
            "arm" | "arm/v7" => "armv7l",
            "arm/v6" => "armv6l",
            "arm/v5" => "armv5tel",
            "loong64" => "loongarch64",
            other => other,
        }
    }

    /// Returns the values that markers see there (dependency specifiers, "Environment Markers").
    ///
    /// The release and the version of the kernel are of the host that runs an image, so both are empty. Without a known
    /// patch version `python_full_version` is that of the first release.
    pub fn markers(&self) -> MarkerEnvironment {
        let Python { major, minor, .. } = self.python;
        let (short, full) = (format!("{major}.{minor}"), self.python.full());
        MarkerEnvironment::try_from(MarkerEnvironmentBuilder {
            implementation_name: "cpython",
            implementation_version: &full,
            os_name: "posix",
            platform_machine: self.machine(),
            platform_python_implementation: "CPython",
            platform_release: "",
            platform_system: "Linux",
            platform_version: "",
            python_full_version: &full,
            python_version: &short,
            sys_platform: "linux",
        })
        .expect("numbers with dots are versions")
    }

    /// Returns the wheel tags that fit there, best first.
    pub fn tags(&self) -> Tags {
        Tags::of(self)
    }
}

impl Python {
    /// Returns the full version; `.0` stands in for a patch that is not known.
    pub fn full(&self) -> String {
        format!(
            "{}.{}.{}",
            self.major,
            self.minor,
            self.patch.unwrap_or_default()
        )
    }
}

impl fmt::Display for Python {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)?;
        match self.patch {
            Some(patch) => write!(f, ".{patch}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Libc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Glibc { minor } => write!(f, "glibc2.{minor}"),
            Self::Musl { minor } => write!(f, "musl1.{minor}"),
        }
    }
}

/// Parses the numbers of `1.2` or `1.2.3`: digits only.
fn numbers(text: &str) -> Option<Vec<u32>> {
    text.split('.')
        .map(|part| {
            let is_number = !part.is_empty() && part.bytes().all(|it| it.is_ascii_digit());
            is_number.then(|| part.parse().ok()).flatten()
        })
        .collect()
}

impl FromStr for Python {
    type Err = TargetError;

    /// Parses `3.11` or `3.11.9`.
    fn from_str(text: &str) -> Result<Self, TargetError> {
        let python = |major, minor, patch| Self {
            major,
            minor,
            patch,
        };
        match numbers(text).as_deref() {
            Some(&[3, minor]) => Ok(python(3, minor, None)),
            Some(&[3, minor, patch]) => Ok(python(3, minor, Some(patch))),
            _ => Err(TargetError {
                text: text.to_owned(),
                expected: "a version of Python 3, as `3.11` or `3.11.9`",
            }),
        }
    }
}

impl FromStr for Libc {
    type Err = TargetError;

    /// Parses `glibc 2.28` or `musl 1.2`; the space may be missing.
    fn from_str(text: &str) -> Result<Self, TargetError> {
        let of = |name: &str| {
            text.strip_prefix(name)
                .and_then(|it| numbers(it.trim_start()))
        };
        match (of("glibc").as_deref(), of("musl").as_deref()) {
            (Some(&[2, minor]), _) => Ok(Self::Glibc { minor }),
            (_, Some(&[1, minor])) => Ok(Self::Musl { minor }),
            _ => Err(TargetError {
                text: text.to_owned(),
                expected: "a C library, as `glibc 2.28` or `musl 1.2`",
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_markers() {
        let target = Target {
            arch: "amd64".to_owned(),
            libc: "glibc 2.36".parse().unwrap(),
            python: "3.11.9".parse().unwrap(),
        };
        assert_eq!(target.name(), "linux-x86_64-glibc2.36-cp311");
        let arm = Target {
            arch: "arm/v7".to_owned(),
            libc: "musl1.2".parse().unwrap(),
            python: "3.9".parse().unwrap(),
        };
        assert_eq!(arm.name(), "linux-armv7l-musl1.2-cp39");
        let holds = |target: &Target, marker: &str| {
            let marker =
                pep508_rs::MarkerTree::parse_str::<crate::python::WheelUrl>(marker).unwrap();
            marker.evaluate(&target.markers(), &[])
        };
        assert!(holds(
            &target,
            "python_full_version >= '3.11.9' and python_version < '3.12'"
        ));
        assert!(holds(
            &target,
            "sys_platform == 'linux' and platform_machine == 'x86_64' and os_name != 'nt'"
        ));
        assert!(!holds(&target, "platform_release == '6.1'"));
        assert!(holds(&arm, "python_full_version == '3.9.0'"));
        assert!(holds(&arm, "platform_python_implementation == 'CPython'"));
    }

    #[test]
    fn refuses_what_is_no_version() {
        for text in [
            "",
            "3",
            "2.7",
            "3.x",
            "3.11.",
            "3.11.1.1",
            "+3.1",
            "3.+1",
            "3.99999999999",
        ] {
            assert!(text.parse::<Python>().is_err(), "{text}");
        }
        for text in ["glibc", "glibc 3.1", "musl 2.28", "2.28", "glibc 2.28.1"] {
            assert!(text.parse::<Libc>().is_err(), "{text}");
        }
    }
}
