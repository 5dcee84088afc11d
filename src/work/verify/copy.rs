//! A copy of a workspace in which everything is different that must not matter: the folder, the order in which entries were
//! made, times, modes but for the owner's execute bit, and what Python leaves behind beside modules.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::graph::Stop;
use crate::oci::Digest;
use crate::work::file::write_file;
use crate::work::host::{git_files, git_folders};

/// How many bytes are copied before it is asked whether to go on.
const STEP: u64 = 16 << 20;

/// How deep folders may be nested.
const MAX_DEPTH: usize = 200;

/// The folder in which Python leaves compiled modules beside those that it ran.
const LEFT_BEHIND: &str = "__pycache__";

/// What a copy comes to.
pub(super) struct Copied {
    /// The workspace's root in the copy.
    pub(super) root: PathBuf,
    /// What could not be copied, because nobody may read it: it is no input, or the build says so.
    pub(super) unread: usize,
}

/// A file or folder that cannot be copied, and why.
#[derive(Debug, thiserror::Error)]
#[error("cannot copy {}", path.display())]
pub(super) struct CopyError {
    path: PathBuf,
    source: io::Error,
}

/// Copies the workspace at `root` into the new folder `to`, but for the paths `never`. What git says stays the same: its own
/// files are not copied but named, and files that it knows outside of the workspace come along.
pub(super) fn workspace(
    root: &Path,
    never: &BTreeSet<PathBuf>,
    to: &Path,
    stop: &Stop,
) -> Result<Copied, CopyError> {
    let mut copier = Copier {
        never,
        stop,
        unread: 0,
    };
    let git = git_folders(root).filter(|(_, top)| root.starts_with(top));
    let below = git
        .as_ref()
        .and_then(|(_, top)| root.strip_prefix(top).ok());
    let copy = to.join(below.unwrap_or(Path::new("")));
    make(&copy)?;
    copier.folder(root, &copy, 0)?;
    if let Some((git, top)) = &git {
        for file in git_files(top) {
            let (from, target) = (top.join(&file), to.join(&file));
            if from.starts_with(root) || fs::symlink_metadata(&from).is_err() {
                continue;
            }
            if let Some(folder) = target.parent() {
                make(folder)?;
            }
            copier.entry(&from, &target, 0)?;
        }
        let place = to.join(".git");
        let text = [b"gitdir: ", git.as_os_str().as_bytes(), b"\n"].concat();
        write_file(&place, &text).map_err(fail(&place))?;
    }
    Ok(Copied {
        root: copy,
        unread: copier.unread,
    })
}

fn fail(path: &Path) -> impl FnOnce(io::Error) -> CopyError + use<> {
    let path = path.to_owned();
    move |source| CopyError { path, source }
}

fn make(folder: &Path) -> Result<(), CopyError> {
    fs::create_dir_all(folder).map_err(fail(folder))
}

struct Copier<'a> {
    never: &'a BTreeSet<PathBuf>,
    stop: &'a Stop,
    unread: usize,
}

impl Copier<'_> {
    fn folder(&mut self, from: &Path, to: &Path, depth: usize) -> Result<(), CopyError> {
        if depth > MAX_DEPTH {
            return Err(fail(from)(io::Error::other("folders are nested too deep")));
        }
        let entries = match fs::read_dir(from) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                self.unread += 1;
                return Ok(());
            }
            other => other.map_err(fail(from))?,
        };
        let names: io::Result<Vec<OsString>> = entries.map(|it| Ok(it?.file_name())).collect();
        let mut names = names.map_err(fail(from))?;
        // An order that is no order, and the same each time.
        names.sort_by_cached_key(|name| *Digest::of(name.as_bytes()).bytes());
        // What an import leaves behind, which must not get into a layer.
        if names.iter().any(|name| name.as_bytes().ends_with(b".py")) {
            let left = to.join(LEFT_BEHIND);
            make(&left)?;
            let file = left.join("imgdecl.cpython-313.pyc");
            write_file(&file, b"left behind").map_err(fail(&file))?;
        }
        for name in names {
            let path = from.join(&name);
            // A repository's own files are named, not copied.
            if name != ".git" && !self.never.contains(&path) {
                self.entry(&path, &to.join(&name), depth)?;
            }
        }
        Ok(())
    }

    /// Copies a file step by step: who stops it waits for no large one.
    fn file(&self, from: &Path, to: &Path) -> io::Result<()> {
        let source = File::open(from)?;
        let mut target = File::options().write(true).create_new(true).open(to)?;
        while io::copy(&mut (&source).take(STEP), &mut target)? > 0 {
            if self.stop.is_asked() {
                return Err(io::Error::other("stopped"));
            }
        }
        Ok(())
    }

    fn entry(&mut self, from: &Path, to: &Path, depth: usize) -> Result<(), CopyError> {
        if self.stop.is_asked() {
            return Err(fail(from)(io::Error::other("stopped")));
        }
        let metadata = fs::symlink_metadata(from).map_err(fail(from))?;
        if metadata.is_symlink() {
            let text = fs::read_link(from).map_err(fail(from))?;
            return symlink(text, to).map_err(fail(to));
        }
        if metadata.is_dir() {
            make(to)?;
            self.folder(from, to, depth + 1)?;
        } else if metadata.is_file() {
            match self.file(from, to) {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    self.unread += 1;
                    let _ = fs::remove_file(to);
                    return Ok(());
                }
                other => other.map_err(fail(from))?,
            }
        } else {
            // Sockets, pipes and devices are no input that a build takes.
            return Ok(());
        }
        // As a umask of 077 leaves it; that anyone may execute it is all that counts.
        let is_open = metadata.is_dir() || metadata.permissions().mode() & 0o111 != 0;
        let mode = if is_open { 0o700 } else { 0o600 };
        fs::set_permissions(to, fs::Permissions::from_mode(mode)).map_err(fail(to))?;
        // Some day in the past, for each path another one.
        let [first, second, third, ..] = *Digest::of(from.as_os_str().as_bytes()).bytes();
        let seconds = u64::from_be_bytes([0, 0, 0, 0, 0x20 | (first >> 4), second, third, 7]);
        let time = SystemTime::UNIX_EPOCH + Duration::new(seconds, 999_999_999);
        let set = File::open(to).and_then(|file| file.set_modified(time));
        set.map_err(fail(to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_the_same_contents_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir_all(from.join("sub/out")).unwrap();
        fs::write(from.join("sub/run"), "x").unwrap();
        fs::write(from.join("sub/out/y"), "y").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        fs::set_permissions(from.join("sub/run"), fs::Permissions::from_mode(0o755)).unwrap();
        symlink("sub/run", from.join("link")).unwrap();
        fs::create_dir_all(from.join("py/__pycache__")).unwrap();
        fs::write(from.join("py/__pycache__/main.cpython-311.pyc"), "compiled").unwrap();
        fs::write(from.join("py/main.py"), "print()").unwrap();
        let never = BTreeSet::from([from.join("sub/out")]);
        let copied = workspace(&from, &never, &to, &Stop::default()).unwrap();
        assert_eq!((copied.root.clone(), copied.unread), (to.clone(), 0));
        assert_eq!(fs::read(to.join("link")).unwrap(), b"x");
        assert_eq!(mode(&to.join("sub/run")), 0o700);
        assert!(!to.join("sub/out").exists());
        let left: Vec<_> = fs::read_dir(to.join("py/__pycache__")).unwrap().collect();
        assert_eq!(left.len(), 2);
        let time = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
        assert!(time(&to.join("sub/run")) < time(&from.join("sub/run")));
    }
}
