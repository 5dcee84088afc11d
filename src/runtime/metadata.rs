//! What entries have beside their content: modes, owners, times, attributes. Folders get theirs in the end.

use std::collections::BTreeMap;
use std::io;

use rustix::fs::{
    Gid, Mode, Timespec, Timestamps, Uid, XattrFlags, fchmod, fchown, fsetxattr, futimens,
};
use rustix::io::Errno;

use super::root::{Folder, Visit};
use crate::layer::Tick;
use crate::tar::shown;

/// Mode, owner, time and extended attributes of an entry.
pub(super) struct Metadata {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: (i64, u32),
    pub(super) attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Metadata {
    /// What a folder has of which no layer speaks.
    pub(super) const IMPLICIT: Self = Self {
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: (0, 0),
        attributes: Vec::new(),
    };

    pub(super) fn times(&self) -> Timestamps {
        let time = Timespec {
            tv_sec: self.mtime.0,
            tv_nsec: self.mtime.1.into(),
        };
        Timestamps {
            last_access: time,
            last_modification: time,
        }
    }
}

pub(super) fn owner(meta: &Metadata) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)))
}

/// Explains why an owner was refused.
pub(super) fn unmapped(meta: &Metadata, error: Errno) -> io::Error {
    let error = io::Error::from(error);
    let (uid, gid) = (meta.uid, meta.gid);
    let what = match error.kind() {
        // Root of a user namespace has but some users.
        io::ErrorKind::InvalidInput => "has no number in this user namespace",
        _ => "cannot be given",
    };
    io::Error::new(
        error.kind(),
        format!("its owner {uid}:{gid} {what}: {error}"),
    )
}

/// Gives owner, attributes, mode and times to what is open, in this order: a new owner takes setuid bits and capabilities
/// away, and attributes can be set only where one may write. Returns how many attributes were refused.
pub(super) fn apply_metadata(
    fd: &impl std::os::fd::AsFd,
    meta: &Metadata,
    is_root: bool,
) -> io::Result<u64> {
    if is_root {
        let (uid, gid) = owner(meta);
        fchown(fd, uid, gid).map_err(|error| unmapped(meta, error))?;
    }
    let refused = attributes(meta, |name, value| {
        fsetxattr(fd, name, value, XattrFlags::empty())
    })?;
    fchmod(fd, Mode::from_raw_mode(meta.mode))?;
    futimens(fd, &meta.times())?;
    Ok(refused)
}

/// Sets attributes. Returns how many the kernel or the file system do not take.
pub(super) fn attributes(
    meta: &Metadata,
    set: impl Fn(&[u8], &[u8]) -> Result<(), Errno>,
) -> io::Result<u64> {
    let mut refused = 0;
    for (name, value) in &meta.attributes {
        match set(name, value) {
            Ok(()) => {}
            Err(Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS | Errno::NOENT) => refused += 1,
            Err(error) => {
                let error = io::Error::from(error);
                let message = format!("its attribute {}: {error}", shown(name));
                return Err(io::Error::new(error.kind(), message));
            }
        }
    }
    Ok(refused)
}

/// Gives folders what they have in the end.
pub(super) struct FolderMetadata<'a> {
    pub(super) folders: &'a BTreeMap<u64, Metadata>,
    pub(super) is_root: bool,
    pub(super) attributes: u64,
    pub(super) tick: Tick<'a>,
}

impl FolderMetadata<'_> {
    pub(super) fn folder(&mut self, at: &Folder) -> io::Result<()> {
        let meta = self
            .folders
            .get(&at.inode)
            .unwrap_or(const { &Metadata::IMPLICIT });
        self.attributes += apply_metadata(&at.fd, meta, self.is_root)?;
        Ok(())
    }
}

impl Visit for FolderMetadata<'_> {
    fn enter(&mut self, _: &Folder, entries: Vec<(Vec<u8>, bool)>) -> io::Result<Vec<Vec<u8>>> {
        if !(self.tick)(0) {
            return Err(io::Error::other("stopped"));
        }
        let folders = entries.into_iter().filter(|(_, is_folder)| *is_folder);
        Ok(folders.map(|(name, _)| name).collect())
    }

    fn leave(&mut self, at: Folder, _: &Folder, name: &[u8]) -> io::Result<()> {
        self.folder(&at)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", shown(name))))
    }
}
