//! The name of a wheel file: what it holds, and what it fits (PyPA specifications, "Binary distribution format").
//!
//! Knows nothing of what is in the file.

use std::borrow::Cow;
use std::collections::BTreeSet;

use pep440_rs::Version;
use pep508_rs::PackageName;

use super::{Libc, Target};

/// The name of a wheel file, taken apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WheelName {
    /// The normalised name of the package.
    pub name: PackageName,
    /// The version.
    pub version: Version,
    /// The build tag: its number, and what follows that.
    pub build: Option<(u64, String)>,
    /// The Python tags, as `cp311` or `py3`.
    pub python: Vec<String>,
    /// The ABI tags, as `cp311`, `abi3` or `none`.
    pub abi: Vec<String>,
    /// The platform tags, as `manylinux_2_17_x86_64` or `any`.
    pub platform: Vec<String>,
    /// The name of the file, percent-decoded.
    pub file: String,
}

/// A text that is no name of a wheel.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`{file}` is not the name of a wheel: {reason}")]
pub struct WheelNameError {
    file: String,
    reason: &'static str,
}

/// How long a name may be, in bytes: no file system takes longer ones.
const LONGEST: usize = 512;

impl WheelName {
    /// Parses a file name, which may be percent-encoded as in a URL.
    ///
    /// # Errors
    /// When it is not `NAME-VERSION(-BUILD)-PYTHON-ABI-PLATFORM.whl`.
    pub fn parse(file: &str) -> Result<Self, WheelNameError> {
        let fail = |reason| WheelNameError {
            file: file.chars().take(LONGEST).collect(),
            reason,
        };
        let decoded = WheelParts::decode(file).map_err(fail)?;
        let parts = WheelParts::of(&decoded).map_err(fail)?;
        let tags = |text: &str| text.split('.').map(str::to_ascii_lowercase).collect();
        let (name, version) = (parts.package(), parts.version());
        let (name, version) = (name.map_err(fail)?, version.map_err(fail)?);
        let build = parts.build().map_err(fail)?;
        parts.check_tags().map_err(fail)?;
        Ok(Self {
            name,
            version,
            build,
            python: tags(parts.python),
            abi: tags(parts.abi),
            platform: tags(parts.platform),
            file: decoded.into_owned(),
        })
    }

    pub(super) fn triples(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.python.iter().flat_map(move |python| {
            self.abi.iter().flat_map(move |abi| {
                let of = move |platform| -> (&str, &str, &str) { (python, abi, platform) };
                self.platform.iter().map(move |it| of(it))
            })
        })
    }

    /// Says in words for what the wheel is that the target is not, as "for macOS"; `None` if it fits.
    pub fn misfit(&self, target: &Target) -> Option<String> {
        let tags = target.tags();
        if tags.rank(self).is_some() {
            return None;
        }
        let fits = |platform: &&String| tags.holds("py3", "none", platform) || *platform == "any";
        let words: BTreeSet<String> = if self.platform.iter().any(|it| fits(&it)) {
            self.triples()
                .map(|(python, abi, _)| python_words(python, abi))
                .collect()
        } else {
            let words = self.platform.iter().map(|it| platform_words(it, target));
            words.collect()
        };
        let words: Vec<String> = words.into_iter().collect();
        Some(format!("for {}", words.join(" or ")))
    }
}

/// The parts of a wheel's name, of which nothing is copied: of some packages there are a hundred thousand.
#[derive(Clone, Copy, Debug)]
pub(super) struct WheelParts<'a> {
    name: &'a str,
    version: &'a str,
    build: Option<&'a str>,
    pub(super) python: &'a str,
    pub(super) abi: &'a str,
    pub(super) platform: &'a str,
}

impl<'a> WheelParts<'a> {
    /// Decodes a file name.
    ///
    /// # Errors
    /// When no file can have that name.
    pub(super) fn decode(file: &str) -> Result<Cow<'_, str>, &'static str> {
        if file.len() > LONGEST {
            return Err("it is too long");
        }
        let decoded = match file.contains('%') {
            false => Cow::Borrowed(file),
            true => percent_decode(file)
                .map(Cow::Owned)
                .ok_or("its percent encoding is broken")?,
        };
        if decoded.contains(['/', '\\']) || decoded.chars().any(char::is_control) {
            return Err("it holds a character that no file name may hold");
        }
        Ok(decoded)
    }

    /// Takes a decoded name apart. Name, version and build tag are still to be read.
    ///
    /// # Errors
    /// When it has not the parts of a wheel's name.
    pub(super) fn of(decoded: &'a str) -> Result<Self, &'static str> {
        let stem = decoded.strip_suffix(".whl");
        let stem = stem.ok_or("it does not end with `.whl`")?;
        let mut parts = [""; 6];
        let mut count = 0;
        for part in stem.split('-') {
            let place = parts.get_mut(count);
            *place.ok_or("it has not 5 or 6 parts with `-` between them")? = part;
            count += 1;
        }
        let (build, [python, abi, platform]) = match (count, parts) {
            (5, [_, _, python, abi, platform, _]) => (None, [python, abi, platform]),
            (6, [_, _, build, python, abi, platform]) => (Some(build), [python, abi, platform]),
            _ => return Err("it has not 5 or 6 parts with `-` between them"),
        };
        let parts = Self {
            name: parts[0],
            version: parts[1],
            build,
            python,
            abi,
            platform,
        };
        Ok(parts)
    }

    /// Returns the normalised name of the package.
    ///
    /// # Errors
    /// When it is none.
    pub(super) fn package(&self) -> Result<PackageName, &'static str> {
        let name = self.name.parse().ok().filter(|_| !self.name.is_empty());
        name.ok_or("its first part is no name of a package")
    }

    /// Tells whether the wheel is of a package.
    pub(super) fn is_of(&self, name: &PackageName) -> bool {
        // Most are written just so; `-` cannot stand in it.
        let own = name.as_ref();
        let is_it = |(own, said): (u8, u8)| own == said || (own == b'-' && said == b'_');
        let is_written_so =
            self.name.len() == own.len() && own.bytes().zip(self.name.bytes()).all(is_it);
        is_written_so || self.package().is_ok_and(|it| it == *name)
    }

    /// Returns the version.
    ///
    /// # Errors
    /// When it is none.
    pub(super) fn version(&self) -> Result<Version, &'static str> {
        let version = self.version.parse();
        version.map_err(|_| "its second part is no version (PEP 440)")
    }

    /// Returns the build tag.
    ///
    /// # Errors
    /// When it is none.
    pub(super) fn build(&self) -> Result<Option<(u64, String)>, &'static str> {
        let tag = self.build.map(build_tag);
        match tag {
            None => Ok(None),
            Some(None) => Err("its build tag does not begin with a number"),
            Some(tag) => Ok(tag),
        }
    }

    /// Tells whether none of its tags is empty.
    ///
    /// # Errors
    /// When one is.
    pub(super) fn check_tags(&self) -> Result<(), &'static str> {
        let mut all = [self.python, self.abi, self.platform].into_iter();
        match all.any(|text| text.split('.').any(str::is_empty)) {
            true => Err("one of its tags is empty"),
            false => Ok(()),
        }
    }
}

/// Returns the version of a wheel, if it is of a package: all that is needed of most, and without a copy.
///
/// # Errors
/// When the file's name is not that of a wheel.
pub(crate) fn wheel_version(
    name: &PackageName,
    file: &str,
) -> Result<Option<Version>, &'static str> {
    let decoded = WheelParts::decode(file)?;
    let parts = WheelParts::of(&decoded)?;
    let is_own = parts.is_of(name);
    if !is_own {
        parts.package()?;
    }
    let version = parts.version()?;
    parts.build()?;
    parts.check_tags()?;
    Ok(is_own.then_some(version))
}

/// Splits a build tag: a number, and the rest.
fn build_tag(text: &str) -> Option<(u64, String)> {
    let end = text.bytes().take_while(u8::is_ascii_digit).count();
    Some((text[..end].parse().ok()?, text[end..].to_owned()))
}

/// Decodes `%2B` and the like; `None` if that is broken, or no UTF-8.
pub(super) fn percent_decode(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_owned());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let digit = |byte: Option<u8>| byte.and_then(|it| char::from(it).to_digit(16));
        bytes.push(match byte {
            b'%' => u8::try_from(digit(rest.next())? * 16 + digit(rest.next())?).ok()?,
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// Says what a platform tag that does not fit stands for.
fn platform_words(tag: &str, target: &Target) -> String {
    let known = [
        ("win", "Windows"),
        ("macosx", "macOS"),
        ("ios", "iOS"),
        ("android", "Android"),
        ("emscripten", "WebAssembly"),
        ("pyodide", "WebAssembly"),
        ("wasi", "WebAssembly"),
        ("freebsd", "FreeBSD"),
    ];
    if let Some((_, name)) = known.iter().find(|(start, _)| tag.starts_with(start)) {
        return (*name).to_owned();
    }
    let (libc, arch) = linux(tag);
    let is_own = arch == target.machine();
    match (libc, target.libc) {
        (Some(libc), own) if is_own => match (libc, own) {
            (Libc::Glibc { minor }, Libc::Glibc { .. }) => format!("glibc 2.{minor} and newer"),
            (Libc::Musl { minor }, Libc::Musl { .. }) => format!("musl 1.{minor} and newer"),
            (Libc::Glibc { .. }, Libc::Musl { .. }) => "glibc".to_owned(),
            (Libc::Musl { .. }, Libc::Glibc { .. }) => "musl".to_owned(),
        },
        (Some(_), _) => arch.to_owned(),
        (None, _) if tag.starts_with("linux_") => arch.to_owned(),
        (None, _) => format!("the platform `{tag}`"),
    }
}

/// Splits a platform tag of Linux into C library and architecture.
fn linux(tag: &str) -> (Option<Libc>, &str) {
    for (start, minor) in [
        ("manylinux1_", 5),
        ("manylinux2010_", 12),
        ("manylinux2014_", 17),
    ] {
        if let Some(arch) = tag.strip_prefix(start) {
            return (Some(Libc::Glibc { minor }), arch);
        }
    }
    let split = |start| {
        let (minor, arch) = tag.strip_prefix(start)?.split_once('_')?;
        Some((minor.parse().ok()?, arch))
    };
    if let Some((minor, arch)) = split("manylinux_2_") {
        return (Some(Libc::Glibc { minor }), arch);
    }
    if let Some((minor, arch)) = split("musllinux_1_") {
        return (Some(Libc::Musl { minor }), arch);
    }
    (None, tag.strip_prefix("linux_").unwrap_or(tag))
}

/// Says what a Python tag with its ABI stands for.
fn python_words(python: &str, abi: &str) -> String {
    let at = python
        .find(|it: char| it.is_ascii_digit())
        .unwrap_or(python.len());
    let (kind, digits) = python.split_at(at);
    let version = match digits.split_at_checked(1) {
        Some((major, "")) => format!(" {major}"),
        Some((major, minor)) => format!(" {major}.{}", minor.trim_start_matches('_')),
        None => String::new(),
    };
    match (kind, abi) {
        ("cp", "abi3") => format!("CPython{version} and newer"),
        ("cp", "abi3t") => format!("free-threaded CPython{version} and newer"),
        ("cp", abi) if abi.ends_with('t') => format!("free-threaded CPython{version}"),
        ("cp", abi) if abi.ends_with('d') => format!("debug builds of CPython{version}"),
        ("cp", _) => format!("CPython{version}"),
        ("pp", _) => format!("PyPy{version}"),
        ("py", _) => format!("Python{version}"),
        ("graalpy", _) => format!("GraalPy{version}"),
        _ => format!("the interpreter `{python}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_names_apart() {
        let wheel = WheelName::parse(
            "Pydantic_Core-2.33.2%2Bcu118-12abc-cp311.cp312-abi3-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        )
        .unwrap();
        assert_eq!(wheel.name.as_ref(), "pydantic-core");
        assert_eq!(wheel.version.to_string(), "2.33.2+cu118");
        assert_eq!(wheel.build, Some((12, "abc".to_owned())));
        assert_eq!(wheel.python, ["cp311", "cp312"]);
        assert_eq!(wheel.abi, ["abi3"]);
        assert_eq!(wheel.platform.len(), 2);
        assert!(wheel.file.starts_with("Pydantic_Core-2.33.2+cu118-12abc-"));
        assert_eq!(wheel.triples().count(), 4);
    }

    #[test]
    fn refuses_what_is_no_wheel() {
        for (file, reason) in [
            ("a-1.tar.gz", "`.whl`"),
            ("a-1-py3-none.whl", "parts"),
            ("a-1-2-3-py3-none-any.whl", "parts"),
            ("-1-py3-none-any.whl", "package"),
            ("a b-1-py3-none-any.whl", "package"),
            ("a-x-py3-none-any.whl", "version"),
            ("a-1-b1-py3-none-any.whl", "build"),
            ("a-1-99999999999999999999-py3-none-any.whl", "build"),
            ("a-1-py3.-none-any.whl", "empty"),
            ("a-1-py3-none-any%2.whl", "percent"),
            ("a-1-py3-none-any%ff.whl", "percent"),
            ("a-1-py3-none-%2e%2e%2fany.whl", "character"),
            (&format!("a-1-py3-none-{}.whl", "x".repeat(600)), "long"),
        ] {
            let error = WheelName::parse(file).unwrap_err().to_string();
            assert!(error.contains(reason), "{file}: {error}");
        }
    }

    #[test]
    fn says_what_a_wheel_is_for() {
        let target = Target {
            arch: "amd64".to_owned(),
            libc: Libc::Glibc { minor: 28 },
            python: "3.11".parse().unwrap(),
        };
        for (tags, words) in [
            ("cp311-cp311-macosx_11_0_arm64", Some("for macOS")),
            ("cp311-cp311-win_amd64", Some("for Windows")),
            (
                "cp311-cp311-manylinux_2_17_aarch64.manylinux2014_aarch64",
                Some("for aarch64"),
            ),
            (
                "cp311-cp311-manylinux_2_38_x86_64",
                Some("for glibc 2.38 and newer"),
            ),
            ("cp311-cp311-musllinux_1_2_x86_64", Some("for musl")),
            (
                "cp312-cp312-manylinux_2_17_x86_64",
                Some("for CPython 3.12"),
            ),
            (
                "cp313-cp313t-manylinux_2_17_x86_64",
                Some("for free-threaded CPython 3.13"),
            ),
            (
                "cp312-abi3-manylinux_2_17_x86_64",
                Some("for CPython 3.12 and newer"),
            ),
            (
                "pp310-pypy310_pp73-manylinux_2_17_x86_64",
                Some("for PyPy 3.10"),
            ),
            ("py2-none-any", Some("for Python 2")),
            ("py312-none-any", Some("for Python 3.12")),
            (
                "cp39.cp310-cp39-linux_x86_64",
                Some("for CPython 3.10 or CPython 3.9"),
            ),
            (
                "cp311-cp311-solaris_2_x86",
                Some("for the platform `solaris_2_x86`"),
            ),
            ("cp311-cp311-manylinux_2_17_x86_64", None),
            ("py2.py3-none-any", None),
        ] {
            let wheel = WheelName::parse(&format!("a-1-{tags}.whl")).unwrap();
            assert_eq!(wheel.misfit(&target).as_deref(), words, "{tags}");
        }
    }
}
