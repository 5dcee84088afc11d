//! The files of a project's source archive, as MANIFEST.in chooses them: with setuptools, those in packages are data
//! (`setuptools/command/egg_info.py`).

use std::collections::BTreeSet;

use globset::{GlobBuilder, GlobMatcher};

use super::glob::{self, Style};
use super::{Ground, Kind, joined};
use crate::python::place::InputError;

/// Folders of version control: what is in them is never taken.
const NEVER: &[&str] = &["RCS", "CVS", ".svn", ".hg", ".git", ".bzr", "_darcs"];

/// Returns the files, by their paths. Python files of packages are not among them, unless a line takes them.
pub(super) fn files(
    ground: &Ground<'_>,
    referenced: &[String],
    sources: &str,
) -> Result<BTreeSet<String>, InputError> {
    let mut files: BTreeSet<String> = BTreeSet::new();
    // A list that was written before is taken up again.
    if ground.is_file(sources)? {
        for line in ground.lines(sources)?.lines().map(str::trim) {
            if !line.is_empty() && !line.starts_with('#') && ground.is_file(line)? {
                files.insert(line.to_owned());
            }
        }
    }
    if ground.is_file("MANIFEST.in")? {
        let text = ground.lines("MANIFEST.in")?.replace("\\\n", " ");
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let words: Vec<&str> = line.split_whitespace().collect();
            if let Some((action, rest)) = words.split_first() {
                let known = apply(ground, action, rest, &mut files)?;
                if !known {
                    return Err(
                        ground.fail(format!("its MANIFEST.in has the line `{}`", line.trim()))
                    );
                }
            }
        }
    }
    files.extend(referenced.iter().cloned());
    files.retain(|path| {
        let mut folders = path.split('/').rev().skip(1);
        let is_cache = [".tox/", ".nox/", ".venv/", "build/"]
            .iter()
            .any(|it| path.starts_with(it));
        !is_cache && !folders.any(|it| NEVER.contains(&it))
    });
    Ok(files)
}

/// Does what a line says. Returns whether it can be read.
fn apply(
    ground: &Ground<'_>,
    action: &str,
    words: &[&str],
    files: &mut BTreeSet<String>,
) -> Result<bool, InputError> {
    let trimmed = |it: &str| it.trim_end_matches('/').trim_start_matches("./").to_owned();
    let mut add = |pattern: &str| -> Result<(), InputError> {
        for (path, kind) in glob::find(ground, "", pattern, Style::Path)? {
            if matches!(kind, Kind::File(_)) {
                files.insert(path);
            }
        }
        Ok(())
    };
    match (action, words) {
        ("include", [_, ..]) => words.iter().try_for_each(|it| add(it))?,
        ("global-include", [_, ..]) => words.iter().try_for_each(|it| add(&joined("**", it)))?,
        ("recursive-include", [folder, patterns @ ..]) => {
            for pattern in patterns {
                let inner = joined("**", pattern);
                add(&joined(&trimmed(folder), &inner))?;
            }
        }
        ("graft", [folder]) => {
            for (path, kind) in glob::find(ground, "", &trimmed(folder), Style::Path)? {
                if kind == Kind::Folder {
                    let all = ground.walk(&path, &|_, _| true)?;
                    files.extend(all.into_iter().map(|it| it.0));
                }
            }
        }
        ("exclude", [_, ..]) => {
            for pattern in words {
                remove(ground, pattern, files)?;
            }
        }
        ("global-exclude", [_, ..]) => {
            for pattern in words {
                remove(ground, &joined("**", pattern), files)?;
            }
        }
        ("recursive-exclude", [folder, patterns @ ..]) => {
            for pattern in patterns {
                let inner = joined("**", pattern);
                remove(ground, &joined(&trimmed(folder), &inner), files)?;
            }
        }
        ("prune", [folder]) => remove(ground, &joined(&trimmed(folder), "**"), files)?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// Removes what a pattern matches as a whole.
fn remove(
    ground: &Ground<'_>,
    pattern: &str,
    files: &mut BTreeSet<String>,
) -> Result<(), InputError> {
    let matcher = matcher(pattern).map_err(|error| ground.fail(error.to_string()))?;
    files.retain(|it| !matcher.is_match(it));
    Ok(())
}

fn matcher(pattern: &str) -> Result<GlobMatcher, globset::Error> {
    let plain = pattern
        .trim_start_matches("./")
        .replace('{', "[{]")
        .replace('}', "[}]");
    let glob = GlobBuilder::new(&plain).literal_separator(true).build()?;
    Ok(glob.compile_matcher())
}
