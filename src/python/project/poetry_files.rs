//! Which files poetry-core takes: packages by name or pattern, and what is included or excluded besides
//! (`poetry/core/masonry/builders/builder.py`).

use super::core::{path, texts};
use super::glob::{self, Style};
use super::ignored::Patterns;
use super::{Ground, Kind, Made, joined, normal, normalised};
use crate::python::place::InputError;
use crate::python::table::Node;

/// A place in a project that files are taken from.
struct Include {
    /// The folder that the pattern and the paths in the wheel begin at.
    base: String,
    pattern: String,
    target: String,
    is_package: bool,
}

/// Adds the files.
pub(super) fn select(
    ground: &Ground<'_>,
    tool: Option<Node<'_>>,
    name: &str,
    made: &mut Made,
) -> Result<(), InputError> {
    let includes = includes(ground, tool, name)?;
    let all = |pattern: &str, base: &str| -> Result<Vec<(String, bool)>, InputError> {
        let mut files = Vec::new();
        for (path, kind) in glob::find(ground, base, pattern, Style::Path)? {
            match kind {
                Kind::File(executable) => files.push((path, executable)),
                Kind::Folder => files.extend(ground.walk(&path, &|_, name| name != "__pycache__")?),
                Kind::Link => {
                    let why = format!("{} is a symlink to a folder", ground.shown(&path));
                    return Err(ground.fail(why));
                }
            }
        }
        Ok(files)
    };
    let mut excluded = Vec::new();
    for pattern in texts(tool.and_then(|it| it.get("exclude")))? {
        excluded.extend(all(pattern, "")?.into_iter().map(|it| it.0));
    }
    let ignored = match ground.folder.nearest(".git/HEAD", ".git") {
        Ok(Some(_)) => ground.folder.nearest(".gitignore", ".git").ok().flatten(),
        _ => None,
    };
    let ignored = String::from_utf8(ignored.unwrap_or_default()).unwrap_or_default();
    let ignored = Patterns::new(ground, ignored.lines())?;
    let mut kept = Vec::new();
    for include in includes.iter().filter(|it| !it.is_package) {
        kept.extend(
            all(&include.pattern, &include.base)?
                .into_iter()
                .map(|it| it.0),
        );
    }
    for include in &includes {
        let files = all(&include.pattern, &include.base)?;
        let is_module = |it: &(String, bool)| it.0.ends_with(".py") || it.0.ends_with(".pyi");
        if include.is_package && !files.iter().any(is_module) {
            let shown = ground.shown(&joined(&include.base, &include.pattern));
            return Err(ground.fail(format!("{shown} is no package")));
        }
        for (path, executable) in files {
            let is_cache = path.ends_with(".pyc") || path.split('/').any(|it| it == "__pycache__");
            if is_cache || excluded.contains(&path) && !kept.contains(&path) {
                continue;
            }
            if ignored.matches(&path) && !kept.contains(&path) {
                let why = format!(
                    "{} is ignored by git, and whether git has it all the same is not known",
                    ground.shown(&path)
                );
                return Err(ground.fail(why));
            }
            let below = path[include.base.len()..].trim_start_matches('/');
            made.file(&joined(&include.target, below), &path, executable);
        }
    }
    Ok(())
}

/// Returns the places that files are taken from.
fn includes(
    ground: &Ground<'_>,
    tool: Option<Node<'_>>,
    name: &str,
) -> Result<Vec<Include>, InputError> {
    let is_ours = |item: &Node<'_>, default: bool| -> Result<bool, InputError> {
        match item.get("format") {
            None => Ok(default),
            Some(node) if node.is_text() => Ok(node.text()? == "wheel"),
            Some(node) => Ok(texts(Some(node))?.contains(&"wheel")),
        }
    };
    let list = |key: &str| tool.map_or(Ok(Vec::new()), |it| it.list_of(key));
    let mut includes = Vec::new();
    let packages = list("packages")?;
    for item in &packages {
        ground.only(item, &["format", "from", "include", "to"], "a package")?;
        if is_ours(item, true)? {
            let part = |key: &str| -> Result<String, InputError> {
                let text = item.text_of(key)?.unwrap_or_default();
                normal(text).ok_or_else(|| ground.refuse(item.place(), "it lies elsewhere"))
            };
            includes.push(Include {
                base: part("from")?,
                pattern: part("include")?,
                target: part("to")?,
                is_package: true,
            });
        }
    }
    if packages.is_empty() {
        let module = normalised(name).replace('-', "_");
        let mut found = Vec::new();
        for base in ["", "src"] {
            for pattern in [module.clone(), format!("{module}.py")] {
                if found.is_empty() || base.is_empty() {
                    let kind = ground.kind(&joined(base, &pattern))?;
                    found.extend(kind.map(|_| (base, pattern)));
                }
            }
        }
        let [(base, pattern)] = &found[..] else {
            let why = format!("there is no module `{module}`, or more than one");
            return Err(ground.fail(why));
        };
        includes.push(Include {
            base: (*base).to_owned(),
            pattern: pattern.clone(),
            target: String::new(),
            is_package: true,
        });
    }
    for item in list("include")? {
        if !item.is_text() && is_ours(&item, false)? {
            let text = item.text_of("path")?.unwrap_or_default();
            includes.push(Include {
                base: String::new(),
                pattern: path(ground, &item, text)?,
                target: String::new(),
                is_package: false,
            });
        }
    }
    Ok(includes)
}
