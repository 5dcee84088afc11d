//! Walks over a folder of the host: what `files` takes of it, with the stamp of each file; and the digests of files, from
//! the stat cache where the stamp is as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rayon::prelude::*;

use super::host::{HostPath, content_error, row};
use super::left_out::{LeftOut, Tally, Verdict, Within};
use super::patterns::Patterns;
use super::scan::TreeSpec;
use crate::graph::{ActionError, Context};
use crate::layer::{Content, Stamp};
use crate::oci::{Digest, Index, OURS};
use crate::source::read_document;
use crate::store::{Stat, Stats};

/// Something that was found below `src`.
pub(super) struct Item {
    /// The path below `src`.
    pub(super) path: String,
    pub(super) kind: ItemKind,
}

pub(super) enum ItemKind {
    File {
        stamp: Stamp,
        executable: bool,
    },
    Symlink(String),
    /// A folder that is empty, or that holds something that was taken.
    Folder,
}

impl Item {
    /// Appends all that was seen: a file whose bytes changed has other bytes here, as far as its stamp can tell.
    pub(super) fn describe(&self, out: &mut Vec<u8>) {
        let mut text = |text: &str| {
            out.extend_from_slice(&(text.len() as u32).to_le_bytes());
            out.extend_from_slice(text.as_bytes());
        };
        text(&self.path);
        match &self.kind {
            ItemKind::Folder => out.push(b'd'),
            ItemKind::Symlink(target) => {
                text(target);
                out.push(b'l');
            }
            ItemKind::File { stamp, executable } => {
                out.push(if *executable { b'x' } else { b'f' });
                row(stamp)
                    .iter()
                    .for_each(|field| out.extend_from_slice(&field.to_le_bytes()));
            }
        }
    }
}

/// What a walk found.
pub(super) struct Found {
    /// What is taken, sorted by path.
    pub(super) items: Vec<Item>,
    /// What `.dockerignore` means, line by line.
    pub(super) ignored_by: Vec<String>,
    /// What people should know of what was left out.
    pub(super) told: Option<String>,
}

/// Walks over the folder that is `src`.
pub(super) struct Walk<'a> {
    spec: &'a TreeSpec,
    src: &'a HostPath,
    never: &'a BTreeSet<PathBuf>,
    manifests: &'a Arc<BTreeSet<PathBuf>>,
    /// The names of those: few entries have one, and need a closer look.
    names: BTreeSet<&'a OsStr>,
    context: &'a Context<'a>,
}

impl<'a> Walk<'a> {
    /// Prepares a walk for what `spec` takes from `src`.
    pub(super) fn new(
        spec: &'a TreeSpec,
        src: &'a HostPath,
        never: &'a BTreeSet<PathBuf>,
        manifests: &'a Arc<BTreeSet<PathBuf>>,
        context: &'a Context<'a>,
    ) -> Self {
        let names = never.iter().filter_map(|path| path.file_name()).collect();
        Self {
            spec,
            src,
            never,
            manifests,
            names,
            context,
        }
    }

    /// Lists what is taken from `real`, which is `src` without symlinks, sorted by path.
    pub(super) fn run(&self, real: &Path) -> Result<Found, ActionError> {
        let (left_out, within) = LeftOut::new(
            real,
            &self.src.root,
            self.spec.ignore,
            self.spec.include.as_ref(),
            self.manifests.clone(),
        )
        .map_err(|error| error.at(&self.src.origin))?;
        let whole = self.spec.include.is_none();
        let mut items = self.folder(real, "", whole, &within, &left_out)?;
        items.par_sort_unstable_by(|a, b| a.path.cmp(&b.path));
        if let Some((pattern, origin)) = self.spec.include.as_ref().and_then(Patterns::unused)
            && !self.spec.allow_empty
        {
            let src = &self.src.text;
            let message = format!("the pattern `{pattern}` matches nothing in `{src}`");
            let help = "`*` stops at a `/`, `**` does not; `allow_empty = true` lets patterns match nothing";
            return Err(ActionError::new("imgdecl::files::no_match", message)
                .at(origin)
                .help(help));
        }
        Ok(Found {
            items,
            ignored_by: left_out.meaning(),
            told: left_out.told(),
        })
    }

    /// Lists what is taken from a folder, which is `prefix` below `src`; all of it if `whole`.
    fn folder(
        &self,
        folder: &Path,
        prefix: &str,
        whole: bool,
        within: &Within,
        left_out: &LeftOut<'_>,
    ) -> Result<Vec<Item>, ActionError> {
        if !(self.context.tick)(0) {
            return Err(ActionError::stopped());
        }
        let fail = |error: &std::io::Error| unreadable(folder, error).at(&self.src.origin);
        let within = left_out
            .enter(folder, within.clone())
            .map_err(|error| error.at(&self.src.origin))?;
        let mut items = Vec::new();
        let mut folders = Vec::new();
        let mut tally = Tally::default();
        for entry in fs::read_dir(folder).map_err(|error| fail(&error))? {
            let entry = entry.map_err(|error| fail(&error))?;
            let name = entry.file_name();
            let path = || entry.path();
            // A layout that we wrote into the tree earlier is no input, unless it is asked for itself.
            if name == "oci-layout" && !prefix.is_empty() && is_ours(folder) {
                return Ok(Vec::new());
            }
            if left_out.is_environment(&name, prefix, &within) {
                return Ok(Vec::new());
            }
            if self.names.contains(&*name) && self.never.contains(&path()) {
                continue;
            }
            let Some(name) = name.to_str() else {
                let message = format!("the name of {} is not UTF-8", path().display());
                return Err(ActionError::new("imgdecl::files::name", message)
                    .at(&self.src.origin)
                    .help("rename it, or exclude its folder"));
            };
            let below = if prefix.is_empty() {
                name.to_owned()
            } else {
                format!("{prefix}/{name}")
            };
            if self.spec.exclude.matches(&below) {
                continue;
            }
            // One stat for each entry, relative to the open folder: what a warm build spends its time on.
            let metadata = entry
                .metadata()
                .map_err(|error| unreadable(&path(), &error).at(&self.src.origin))?;
            let is_folder = metadata.is_dir();
            let verdict = left_out.decide(name, &below, path, is_folder, &within, &mut tally);
            let inner = match verdict {
                Verdict::Take(inner) | Verdict::Look(inner) => inner,
                Verdict::Skip => continue,
            };
            let taken = self
                .spec
                .include
                .as_ref()
                .is_none_or(|include| include.matches(&below))
                || whole;
            let kind = match metadata.file_type() {
                kind if kind.is_dir() => {
                    folders.push((path(), below, taken, inner));
                    continue;
                }
                _ if !taken => continue,
                kind if kind.is_file() => ItemKind::File {
                    stamp: Stamp::of(&metadata),
                    executable: is_executable(&metadata),
                },
                kind if kind.is_symlink() => ItemKind::Symlink(self.link(&path())?),
                _ => return Err(no_file(&path(), &metadata).at(&self.src.origin)),
            };
            items.push(Item { path: below, kind });
        }
        left_out.count(tally);
        let nested: Result<Vec<Vec<Item>>, ActionError> = folders
            .into_par_iter()
            .map(|(path, below, taken, inner)| {
                let mut items = self.folder(&path, &below, taken, &inner, left_out)?;
                let empty =
                    || fs::read_dir(&path).is_ok_and(|mut entries| entries.next().is_none());
                if !items.is_empty() || (taken && !inner.is_out && empty()) {
                    items.push(Item {
                        path: below,
                        kind: ItemKind::Folder,
                    });
                }
                Ok(items)
            })
            .collect();
        items.extend(nested?.into_iter().flatten());
        Ok(items)
    }

    /// Reads a symlink, and makes sure that it stays in the workspace.
    fn link(&self, path: &Path) -> Result<String, ActionError> {
        let target =
            fs::read_link(path).map_err(|error| unreadable(path, &error).at(&self.src.origin))?;
        let end = super::host::normal(&path.parent().unwrap_or(path).join(&target));
        let fail = |message: String| {
            ActionError::new("imgdecl::files::symlink", message).at(&self.src.origin)
        };
        if target.is_absolute() || !end.starts_with(&*self.src.root) {
            let message = format!(
                "{} is a symlink that leads out of the workspace, to {}",
                path.display(),
                target.display()
            );
            return Err(fail(message)
                .help("exclude it; a link to a place in the image goes into `symlinks`"));
        }
        target
            .to_str()
            .map(str::to_owned)
            .ok_or_else(|| fail(format!("the target of {} is not UTF-8", path.display())))
    }
}

/// Returns the digests of the files among `found`, in order: from the stat cache where the file did not change.
pub(super) fn digests(
    root: &Arc<Path>,
    found: &[Item],
    context: &Context<'_>,
) -> Result<Vec<Option<Digest>>, ActionError> {
    // Taken first: what changes while files are read must not be remembered.
    #[expect(
        clippy::disallowed_methods,
        reason = "decides what to remember, never a byte"
    )]
    let now = SystemTime::now();
    let id = Digest::of(format!("folder {}", root.display()).as_bytes());
    let Stats(known) = context.folder.stats(&id);
    let mut rows = known.iter().peekable();
    let mut digests: Vec<Option<Digest>> = vec![None; found.len()];
    let mut unknown = Vec::new();
    for (index, item) in found.iter().enumerate() {
        let ItemKind::File { stamp, .. } = &item.kind else {
            continue;
        };
        while rows.next_if(|stat| *stat.path < *item.path).is_some() {}
        match rows.peek() {
            Some(stat) if *stat.path == *item.path && stat.stamp == row(stamp) => {
                digests[index] = Some(stat.digest)
            }
            _ => unknown.push((index, item, *stamp)),
        }
    }
    if unknown.is_empty() {
        return Ok(digests);
    }
    let fresh: Result<Vec<(usize, Digest)>, ActionError> = unknown
        .par_iter()
        .map(|(index, item, stamp)| {
            let content = Content::of_host(root, &item.path, *stamp, context.tick);
            let content = content.map_err(|error| content_error(&error, None))?;
            Ok((*index, content.digest))
        })
        .collect();
    for (index, digest) in fresh? {
        digests[index] = Some(digest);
    }
    remember(&id, known, found, &digests, context, now)?;
    Ok(digests)
}

/// Remembers the digests of files that are old enough to be told apart by their stamp; keeps what other targets know
/// of the folder, within bounds.
fn remember(
    id: &Digest,
    known: Vec<Stat>,
    found: &[Item],
    digests: &[Option<Digest>],
    context: &Context<'_>,
    now: SystemTime,
) -> Result<(), ActionError> {
    let mut rows: BTreeMap<Box<str>, Stat> = BTreeMap::new();
    if known.len() < 2 * found.len() + 1000 {
        rows.extend(known.into_iter().map(|stat| (stat.path.clone(), stat)));
    }
    for (item, digest) in found.iter().zip(digests) {
        if let (ItemKind::File { stamp, .. }, Some(digest)) = (&item.kind, digest) {
            let path: Box<str> = item.path.as_str().into();
            if stamp.is_recent(now) {
                rows.remove(&path);
            } else {
                rows.insert(
                    path.clone(),
                    Stat {
                        path,
                        stamp: row(stamp),
                        digest: *digest,
                    },
                );
            }
        }
    }
    Ok(context
        .folder
        .put_stats(id, &Stats(rows.into_values().collect()))?)
}

/// Tells whether the host lets anyone execute a file.
pub(super) fn is_executable(metadata: &fs::Metadata) -> bool {
    metadata.permissions().mode() & 0o111 != 0
}

/// Tells whether a folder is a layout that imgdecl wrote.
fn is_ours(folder: &Path) -> bool {
    let index = read_document(&folder.join("index.json")).unwrap_or_default();
    let index: Option<Index> = serde_json::from_slice(&index).ok();
    index.is_some_and(|index| index.annotations.contains_key(OURS))
}

/// Explains a file that cannot be read.
pub(super) fn unreadable(path: &Path, error: &std::io::Error) -> ActionError {
    ActionError::new(
        "imgdecl::host::unreadable",
        format!("cannot read {}", path.display()),
    )
    .because(error)
    .help("check the file's permissions, or exclude it")
}

/// Explains something that is neither file nor folder nor symlink.
pub(super) fn no_file(path: &Path, metadata: &fs::Metadata) -> ActionError {
    let kind = metadata.file_type();
    let word = if kind.is_fifo() {
        "a fifo"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    };
    let message = format!(
        "{} is {word}: layers hold files, folders and symlinks",
        path.display()
    );
    ActionError::new("imgdecl::files::kind", message).help("exclude it")
}
