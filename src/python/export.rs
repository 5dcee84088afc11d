//! Writes pylock.toml (PyPA specifications, "pylock.toml"; formerly PEP 751), for some targets at once.
//!
//! Targets are told apart by markers. No marker knows of a C library: targets that differ in that alone must agree. Knows
//! neither files nor indexes.

use std::collections::{BTreeMap, BTreeSet};

use pep440_rs::Version;
use pep508_rs::PackageName;

use super::{Target, WheelName};
use crate::oci::Digest;

/// What a target is pinned to.
#[derive(Clone, Debug)]
pub(crate) struct Exported {
    /// The target.
    pub target: Target,
    /// Its wheels.
    pub wheels: Vec<ExportedWheel>,
}

/// A wheel, and where it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ExportedWheel {
    /// The file.
    pub wheel: WheelName,
    /// The digest.
    pub sha256: Digest,
    /// The size in bytes.
    pub size: Option<u64>,
    /// Where it is.
    pub place: WheelPlace,
}

/// Where a wheel is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum WheelPlace {
    /// A path from the folder of the lock, with `/`.
    Path(String),
    /// A URL.
    Url(String),
}

/// Targets that no marker tells apart, and that are pinned to different packages.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{one} and {other} are pinned to different versions of {package}, and no marker of a pylock.toml tells them apart"
)]
pub(crate) struct ExportError {
    /// The names of the targets.
    pub one: String,
    /// The other one.
    pub other: String,
    /// A package that differs.
    pub package: PackageName,
}

type Packages<'a> = BTreeMap<(&'a PackageName, &'a Version), Package<'a>>;

/// A version of a package: the environments that have it, and its wheels.
#[derive(Default)]
struct Package<'a> {
    environments: BTreeSet<usize>,
    /// By file name; a name with two digests is two files.
    wheels: BTreeMap<(&'a str, &'a Digest), &'a ExportedWheel>,
}

/// Writes the lock of some targets. Equal pins give equal bytes.
///
/// # Errors
/// When one file cannot hold them.
pub(crate) fn export(targets: &[Exported]) -> Result<String, ExportError> {
    let mut environments: BTreeMap<String, &Exported> = BTreeMap::new();
    for exported in targets {
        let known = environments
            .entry(marker(&exported.target))
            .or_insert(exported);
        agree(known, exported)?;
    }
    let markers: Vec<&String> = environments.keys().collect();
    let mut packages = Packages::new();
    for exported in targets {
        let own = marker(&exported.target);
        let number = markers.iter().position(|it| **it == own);
        for wheel in &exported.wheels {
            let key = (&wheel.wheel.name, &wheel.wheel.version);
            let package = packages.entry(key).or_default();
            package.environments.extend(number);
            let key = (wheel.wheel.file.as_str(), &wheel.sha256);
            package.wheels.insert(key, wheel);
        }
    }
    let mut out = "lock-version = \"1.0\"\n".to_owned();
    out += "environments = [\n";
    for marker in &markers {
        out += &format!("    {},\n", quoted(marker));
    }
    out += "]\n";
    let oldest = targets.iter().map(|it| it.target.python);
    let oldest = oldest.map(|it| (it.major, it.minor)).min();
    if let Some((major, minor)) = oldest {
        out += &format!("requires-python = \">={major}.{minor}\"\n");
    }
    out += "created-by = \"imgdecl\"\n";
    for ((name, version), package) in packages {
        out += &format!("\n[[packages]]\nname = {}\n", quoted(name.as_ref()));
        out += &format!("version = {}\n", quoted(&version.to_string()));
        if package.environments.len() < markers.len() {
            let own = package.environments.iter().map(|it| markers[*it].as_str());
            let own: Vec<&str> = own.collect();
            let marker = match own[..] {
                [one] => one.to_owned(),
                _ => format!("({})", own.join(") or (")),
            };
            out += &format!("marker = {}\n", quoted(&marker));
        }
        out += "wheels = [\n";
        for wheel in package.wheels.values() {
            out += &format!("    {},\n", wheel.table());
        }
        out += "]\n";
    }
    Ok(out)
}

impl ExportedWheel {
    /// Writes it as an inline table.
    fn table(&self) -> String {
        let (key, place) = match &self.place {
            WheelPlace::Path(path) => ("path", path),
            WheelPlace::Url(url) => ("url", url),
        };
        let size = self.size.map(|it| format!("size = {it}, "));
        format!(
            "{{ name = {}, {key} = {}, {}hashes = {{ sha256 = \"{}\" }} }}",
            quoted(&self.wheel.file),
            quoted(place),
            size.unwrap_or_default(),
            self.sha256.hex()
        )
    }
}

/// The marker that holds on a target.
fn marker(target: &Target) -> String {
    format!(
        "python_version == '{}.{}' and implementation_name == 'cpython' and sys_platform == 'linux' and platform_machine == '{}'",
        target.python.major,
        target.python.minor,
        target.machine()
    )
}

/// Checks that two targets of one marker have the same versions.
fn agree(one: &Exported, other: &Exported) -> Result<(), ExportError> {
    let versions = |it: &Exported| -> BTreeSet<(PackageName, Version)> {
        let wheels = it.wheels.iter().map(|it| &it.wheel);
        wheels
            .map(|it| (it.name.clone(), it.version.clone()))
            .collect()
    };
    let (left, right) = (versions(one), versions(other));
    match left.symmetric_difference(&right).next() {
        None => Ok(()),
        Some((package, _)) => Err(ExportError {
            one: one.target.name(),
            other: other.target.name(),
            package: package.clone(),
        }),
    }
}

/// Writes a text as TOML.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::python::pylock;

    fn target(arch: &str, libc: &str, python: &str) -> Target {
        Target {
            arch: arch.to_owned(),
            libc: libc.parse().unwrap(),
            python: python.parse().unwrap(),
        }
    }

    fn wheel(file: &str) -> ExportedWheel {
        ExportedWheel {
            wheel: WheelName::parse(file).unwrap(),
            sha256: Digest::of(file.as_bytes()),
            size: Some(file.len() as u64),
            place: match file.starts_with("own") {
                true => WheelPlace::Path(format!("../a \"b\"/{file}")),
                false => WheelPlace::Url(format!("https://h/f/{file}")),
            },
        }
    }

    fn exported(target: Target, files: &[&str]) -> Exported {
        let wheels = files.iter().map(|it| wheel(it)).collect();
        Exported { target, wheels }
    }

    #[test]
    fn is_read_again_on_each_target() {
        let glibc = "glibc 2.36";
        let targets = [
            exported(
                target("amd64", glibc, "3.11.9"),
                &[
                    "own-1-py3-none-any.whl",
                    "b-2-cp311-cp311-manylinux_2_17_x86_64.whl",
                    "x-1-py3-none-any.whl",
                ],
            ),
            exported(
                target("arm64", glibc, "3.11.9"),
                &[
                    "own-1-py3-none-any.whl",
                    "b-2-cp311-cp311-manylinux_2_17_aarch64.whl",
                ],
            ),
            exported(
                target("amd64", glibc, "3.12"),
                &[
                    "own-1-py3-none-any.whl",
                    "b-3-py3-none-any.whl",
                    "x-1-py3-none-any.whl",
                ],
            ),
        ];
        let text = export(&targets).unwrap();
        let mut turned = targets.clone();
        turned.reverse();
        assert_eq!(export(&turned).unwrap(), text);
        assert!(text.contains("requires-python = \">=3.11\"\n"), "{text}");
        for Exported { target, wheels } in &targets {
            let set = pylock("locks/pylock.toml", &text, &[], None, target).unwrap();
            let found = set.packages.iter().map(|package| {
                let wheel = package.wheel(target, &target.tags()).unwrap();
                (
                    wheel.wheel.clone(),
                    wheel.sha256,
                    wheel.size,
                    wheel.url.clone(),
                )
            });
            let mut sorted = wheels.clone();
            sorted.sort_by(|a, b| a.wheel.name.cmp(&b.wheel.name));
            let expected = sorted.into_iter().map(|it| {
                let url = match it.place {
                    WheelPlace::Url(url) => url,
                    // From the folder of the lock.
                    WheelPlace::Path(path) => path.replacen("../", "", 1),
                };
                (it.wheel, it.sha256, it.size, Some(url))
            });
            assert_eq!(found.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        }
        for other in [
            target("arm64", glibc, "3.12"),
            target("amd64", glibc, "3.13"),
        ] {
            let error = pylock("p", &text, &[], None, &other).unwrap_err();
            assert!(
                error.message.contains("none of the environments"),
                "{error}"
            );
        }
    }

    #[test]
    fn targets_that_no_marker_tells_apart_must_agree() {
        let of = |libc: &str, file: &str| exported(target("amd64", libc, "3.11"), &[file]);
        let glibc = of("glibc 2.36", "b-2-cp311-cp311-manylinux_2_17_x86_64.whl");
        let musl = of("musl 1.2", "b-2-cp311-cp311-musllinux_1_2_x86_64.whl");
        let text = export(&[glibc.clone(), musl.clone()]).unwrap();
        assert!(!text.contains("marker"), "{text}");
        let set = pylock("p", &text, &[], None, &musl.target).unwrap();
        let found = set.packages[0].wheel(&musl.target, &musl.target.tags());
        assert!(found.unwrap().wheel.file.contains("musllinux"));
        let error = export(&[glibc, of("musl 1.2", "b-1-py3-none-any.whl")]).unwrap_err();
        assert!(
            error.to_string().contains("different versions of b"),
            "{error}"
        );
    }
}
