//! Of which tool a file is, by its name and its text.

/// What a file of a Python project is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FileKind {
    /// uv.lock.
    Uv,
    /// pylock.toml.
    Pylock,
    /// poetry.lock.
    Poetry,
    /// Pipfile.lock.
    Pipfile,
    /// pdm.lock.
    Pdm,
    /// pyproject.toml.
    Pyproject,
    /// A requirements file.
    Requirements,
    /// An environment.yml of conda.
    Conda,
    /// A Pipfile, without its lock.
    PipfileSource,
}

impl FileKind {
    /// Returns how people call it.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Uv => "a lock of uv",
            Self::Pylock => "a lock in the form of PEP 751",
            Self::Poetry => "a lock of Poetry",
            Self::Pipfile => "a lock of Pipenv",
            Self::Pdm => "a lock of PDM",
            Self::Pyproject => "what a project says of itself, and no lock",
            Self::Requirements => "a requirements file",
            Self::Conda => "an environment of conda",
            Self::PipfileSource => "what a project of Pipenv asks for, and no lock",
        }
    }

    /// Tells whether it is a lock that can be taken.
    pub(crate) fn is_lock(self) -> bool {
        matches!(
            self,
            Self::Uv | Self::Pylock | Self::Poetry | Self::Pipfile | Self::Pdm
        )
    }

    /// Says how a manifest names it.
    pub(crate) fn help(self, path: &str) -> String {
        match self {
            Self::Pyproject => format!("write pyproject = \"{path}\""),
            Self::Requirements => format!("write requirements = [\"{path}\"]"),
            Self::Conda => {
                "packages of conda are no wheels: name those that are on a Python index as `packages` or in a requirements \
                 file; if conda's own are needed, make a base image with conda, and name it as a `base`"
                    .to_owned()
            }
            Self::PipfileSource => {
                "run `pipenv lock`, and write lock = \"Pipfile.lock\"".to_owned()
            }
            _ => format!("write lock = \"{path}\""),
        }
    }
}

/// Tells what a file is; `None` if nothing shows it. What it holds counts, and then its name.
pub(crate) fn file_kind(path: &str, text: &str) -> Option<FileKind> {
    let name = path.rsplit('/').next().unwrap_or_default();
    by_text(text).or_else(|| by_name(name)).or_else(|| {
        let is_yaml = name.ends_with(".yml") || name.ends_with(".yaml");
        let is_conda = |line: &str| line.trim_end() == "dependencies:";
        (is_yaml && text.lines().any(is_conda)).then_some(FileKind::Conda)
    })
}

/// Tells it by what the file holds. Locks are large, and read for each build: only the beginnings of lines are looked at.
fn by_text(text: &str) -> Option<FileKind> {
    let text = text.trim_start_matches('\u{feff}');
    if text.trim_start().starts_with('{') {
        return text.contains("\"_meta\"").then_some(FileKind::Pipfile);
    }
    // The table that a line is in; none at the top.
    let mut table = "";
    let mut has_version = false;
    let mut found = None;
    for line in text.lines().map(str::trim_end) {
        if let Some(name) = line.strip_prefix('[') {
            table = name.trim_matches(['[', ']', ' ']);
            let first = table.split('.').next().unwrap_or_default();
            let kind = match first {
                "package" if has_version => Some(FileKind::Uv),
                "project" | "build-system" | "dependency-groups" | "tool" => {
                    Some(FileKind::Pyproject)
                }
                "packages" | "dev-packages" if !line.starts_with("[[") => {
                    Some(FileKind::PipfileSource)
                }
                _ => None,
            };
            found = found.or(kind);
            continue;
        }
        let Some((key, _)) = line.split_once('=') else {
            continue;
        };
        match (table, key.trim_end()) {
            ("", "lock-version") => return Some(FileKind::Pylock),
            ("metadata", "lock-version") => return Some(FileKind::Poetry),
            ("metadata", "lock_version") => return Some(FileKind::Pdm),
            ("", "version") => has_version = true,
            ("", "requires-python" | "revision") if has_version => return Some(FileKind::Uv),
            _ => {}
        }
    }
    found
}

/// Tells it by what the file is called.
fn by_name(name: &str) -> Option<FileKind> {
    match name {
        "uv.lock" => Some(FileKind::Uv),
        "poetry.lock" => Some(FileKind::Poetry),
        "pdm.lock" => Some(FileKind::Pdm),
        "Pipfile.lock" => Some(FileKind::Pipfile),
        "Pipfile" => Some(FileKind::PipfileSource),
        "pyproject.toml" => Some(FileKind::Pyproject),
        "environment.yml" | "environment.yaml" => Some(FileKind::Conda),
        _ if name.starts_with("pylock.") && name.ends_with(".toml") => Some(FileKind::Pylock),
        _ if name.ends_with(".txt") || name.ends_with(".in") => Some(FileKind::Requirements),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_files_by_their_texts_and_names() {
        for (path, text, kind) in [
            (
                "x",
                "version = 1\nrequires-python = '>=3'",
                Some(FileKind::Uv),
            ),
            ("x", "lock-version = '1.0'", Some(FileKind::Pylock)),
            (
                "x",
                "[metadata]\nlock-version = '2.1'",
                Some(FileKind::Poetry),
            ),
            (
                "x",
                "[metadata]\nlock_version = '4.5.0'",
                Some(FileKind::Pdm),
            ),
            ("x", "{\"_meta\": {}}", Some(FileKind::Pipfile)),
            ("x", "[project]\nname = 'x'", Some(FileKind::Pyproject)),
            (
                "x",
                "[packages]\nflask = '*'",
                Some(FileKind::PipfileSource),
            ),
            ("a/poetry.lock", "<<<<<<<", Some(FileKind::Poetry)),
            (
                "a/uv.lock",
                "[metadata]\nlock-version = '2'",
                Some(FileKind::Poetry),
            ),
            ("a/pylock.dev.toml", "", Some(FileKind::Pylock)),
            ("a/Pipfile.lock", "{", Some(FileKind::Pipfile)),
            ("a/environment.yml", "name: x", Some(FileKind::Conda)),
            (
                "a/dev.yaml",
                "name: x\ndependencies:\n  - numpy",
                Some(FileKind::Conda),
            ),
            ("a/r.txt", "six", Some(FileKind::Requirements)),
            ("a/x.yaml", "name: x", None),
            ("x", "{}", None),
            ("x", "six", None),
        ] {
            assert_eq!(file_kind(path, text), kind, "{path} {text}");
        }
    }
}
