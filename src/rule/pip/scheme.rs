//! Where packages go in an image, and which wheels fit there: what the base says, and what the manifest says instead.

use std::fmt;
use std::str::FromStr;

use pep440_rs::Version;
use pep508_rs::PackageName;
use toml::Spanned;

use super::PipTable;
use crate::layer::{LayerPath, Owner};
use crate::python::wheel::{Scheme, Venv};
use crate::python::{Interpreter, Libc, Python, Pythons, Target as PythonTarget, WheelName};
use crate::rule::value::{Collect, image_path};
use crate::rule::{Below, Lower};
use crate::spec::{Problem, Problems, Table, Target};

/// The C library that wheels are chosen for where nothing says it.
const LIBC: Libc = Libc::Glibc { minor: 28 };

/// Where packages go, and what fits there.
pub(super) struct Place {
    pub(super) target: PythonTarget,
    interpreter: String,
    prefix: LayerPath,
    site: LayerPath,
    platsite: Option<LayerPath>,
    /// What says in the site folder which packages the base has there.
    installed: Vec<String>,
    owner: Owner,
    /// What the manifest says against the base, in words.
    pub(super) doubt: Option<String>,
    /// Whether nothing says which C library there is.
    pub(super) is_libc_assumed: bool,
}

impl Place {
    /// Finds the place; `None` where the base is not locked yet.
    pub(super) fn find(
        table: &PipTable,
        target: &Target,
        lower: &mut Lower<'_>,
        owner: Owner,
    ) -> Result<Option<Self>, Problems> {
        let at = &target.table;
        let mut collect = Collect::default();
        let python: Option<Python> = parsed(&table.python, at, &mut collect, "python");
        let libc: Option<Libc> = parsed(&table.libc, at, &mut collect, "libc");
        let prefix = table.prefix.as_ref();
        let prefix = prefix.map(|it| collect.take(image_path(at, it.get_ref(), it.span())));
        let below = match lower.below().clone() {
            Below::OnDisk(base) => base.found(lower).unwrap_or_else(|problems| {
                collect.0.extend(problems);
                Below::Unlocked
            }),
            below => below,
        };
        let known = match &below {
            Below::Unlocked | Below::OnDisk(_) => {
                collect.finish(())?;
                return Ok(None);
            }
            Below::Known(found) => found.get::<Pythons>(),
            Below::Unasked | Below::Nothing => None,
        };
        let fits = |it: &&Interpreter| python.is_none_or(|wanted| same_minor(wanted, it.version));
        let interpreter = known
            .and_then(|it| it.interpreters.iter().find(fits))
            .cloned();
        let Some(version) = interpreter.as_ref().map(|it| it.version).or(python) else {
            // A target that no image uses is only looked at.
            if *lower.below() != Below::Unasked {
                let has_base = known.is_some();
                let problem = no_python(table, at, has_base);
                collect.0.push(match has_base {
                    true => problem,
                    false => problem.may_follow(),
                });
            }
            collect.finish(())?;
            return Ok(None);
        };
        let version = Python {
            patch: python.and_then(|it| it.patch).or(version.patch),
            ..version
        };
        let own_prefix =
            prefix.filter(|_| table.layout.as_deref() != Some("venv") || table.prefix.is_some());
        let (prefix, site, platsite) = folders(own_prefix, interpreter.as_ref(), version);
        let installed = interpreter
            .as_ref()
            .filter(|it| path(&it.site) == site)
            .map(|it| it.installed.clone());
        let others = known.map_or(&[][..], |it| &it.interpreters);
        let doubt = (interpreter.is_none() && !others.is_empty()).then(|| {
            let have: Vec<String> = others.iter().map(|it| it.version.to_string()).collect();
            format!(
                "these packages are for Python {version}, and the base has Python {}: nothing in it runs them",
                have.join(", ")
            )
        });
        let interpreter = interpreter.map_or_else(
            || format!("/usr/local/bin/python{}.{}", version.major, version.minor),
            |it| it.path,
        );
        let platform = lower.platform().cloned();
        let arch = platform.map_or("amd64".to_owned(), |it| match it.variant {
            Some(variant) if it.architecture == "arm" => format!("arm/{variant}"),
            _ => it.architecture,
        });
        let libc = libc.or(known.and_then(|it| it.libc));
        let is_libc_assumed = libc.is_none();
        let libc = libc.unwrap_or(LIBC);
        collect.finish(Some(Self {
            target: PythonTarget {
                arch,
                libc,
                python: version,
            },
            interpreter,
            prefix,
            site,
            platsite,
            installed: installed.unwrap_or_default(),
            owner,
            doubt,
            is_libc_assumed,
        }))
    }

    /// Returns what the base says of packages that wheels bring in another version: Python would find either.
    pub(super) fn displaced<'a>(
        &self,
        is_venv: bool,
        wheels: impl Iterator<Item = &'a String>,
    ) -> Vec<LayerPath> {
        let wheels: Vec<WheelName> = wheels
            .filter_map(|file| WheelName::parse(file).ok())
            .collect();
        let is_displaced = |info: &&String| {
            let Some((stem, kind)) = info.rsplit_once('.') else {
                return false;
            };
            let mut parts = stem.split('-');
            let name = parts.next().and_then(|it| PackageName::from_str(it).ok());
            let version = parts.next().and_then(|it| Version::from_str(it).ok());
            // A folder of the same version is the wheel's own too.
            let is_own =
                |it: &&WheelName| kind == "dist-info" && version == Some(it.version.clone());
            let wheel = wheels.iter().find(|it| Some(&it.name) == name.as_ref());
            wheel.is_some_and(|it| !is_own(&it))
        };
        let infos = self.installed.iter().filter(|_| !is_venv);
        let infos = infos.filter(is_displaced);
        infos.filter_map(|it| self.site.join(it).ok()).collect()
    }

    /// Returns where wheels go.
    pub(super) fn scheme(&self, is_venv: bool) -> Scheme {
        if is_venv && let Some(venv) = self.venv() {
            return venv.scheme();
        }
        Scheme {
            prefix: self.prefix.clone(),
            site: self.site.clone(),
            platsite: self.platsite.clone(),
            interpreter: self.interpreter.clone(),
            python: (self.target.python.major, self.target.python.minor),
            owner: self.owner,
        }
    }

    /// Returns the virtual environment at the prefix.
    pub(super) fn venv(&self) -> Option<Venv> {
        let Python {
            major,
            minor,
            patch,
        } = self.target.python;
        Some(Venv {
            prefix: self.prefix.clone(),
            base: self.interpreter.clone(),
            python: (major, minor, patch),
            owner: self.owner,
        })
    }
}

/// Reads a value that has a form of its own.
fn parsed<T: FromStr<Err: fmt::Display>>(
    value: &Option<Spanned<String>>,
    at: &Table,
    collect: &mut Collect,
    key: &str,
) -> Option<T> {
    let value = value.as_ref()?;
    let parsed = value.get_ref().parse::<T>().map_err(|error| {
        let (code, label) = match key {
            "python" => ("imgdecl::pip::python", "not a version of Python"),
            _ => ("imgdecl::pip::libc", "not a C library"),
        };
        at.problem(code, value.span(), error.to_string(), label)
    });
    parsed.map_err(|it| collect.0.push(it)).ok()
}

/// Says that nothing tells which Python the packages are for.
fn no_python(table: &PipTable, at: &Table, has_base: bool) -> Problem {
    let (message, help) = match has_base {
        true => (
            "the base has no Python that could be found",
            "say which one it is with `python`, and where packages go with `prefix`",
        ),
        false => (
            "nothing says which Python the packages are for",
            "write `python = \"3.11\"`, or build on a base, whose Python is found",
        ),
    };
    let span = table.python.as_ref().map_or(at.span.clone(), Spanned::span);
    let label = "for which Python?";
    at.problem("imgdecl::pip::python", span, message, label)
        .help(help)
}

/// Returns where packages go: the prefix, the folder of pure packages, and that of others where it is another one.
fn folders(
    own: Option<LayerPath>,
    interpreter: Option<&Interpreter>,
    version: Python,
) -> (LayerPath, LayerPath, Option<LayerPath>) {
    if let Some(it) = interpreter {
        let prefix = path(&it.prefix);
        if own.as_ref().is_none_or(|own| *own == prefix) {
            return (prefix, path(&it.site), it.platsite.as_deref().map(path));
        }
    }
    let (major, minor) = (version.major, version.minor);
    let own = own.unwrap_or_else(|| path("/usr/local"));
    let lib = format!("lib/python{major}.{minor}/site-packages");
    let site = own.join(&lib).unwrap_or_default();
    (own, site, None)
}

/// Reads a path that a base or a constant names.
fn path(text: &str) -> LayerPath {
    LayerPath::parse(text).unwrap_or_default()
}

fn same_minor(one: Python, other: Python) -> bool {
    (one.major, one.minor) == (other.major, other.minor)
}
