//! Removes what lower layers brought: what is in the way, and what whiteouts hide.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use rustix::fs::{AtFlags, unlinkat};
use rustix::io::Errno;

use super::metadata::Metadata;
use super::root::{Folder, Visit};

/// A path in a folder: the number of the folder, and the name.
pub(super) type Key = (u64, Box<[u8]>);

/// Removes what lower layers brought, or all.
pub(super) struct RemoveLower<'a> {
    pub(super) written: &'a mut BTreeSet<Key>,
    pub(super) folders: &'a mut BTreeMap<u64, Metadata>,
    /// What this layer wrote stays.
    pub(super) keep: bool,
}

impl RemoveLower<'_> {
    pub(super) fn file(&mut self, at: &Folder, name: Vec<u8>) -> io::Result<()> {
        let key = (at.inode, name.into());
        if self.keep && self.written.contains(&key) {
            return Ok(());
        }
        unlinkat(&at.fd, &*key.1, AtFlags::empty())?;
        self.written.remove(&key);
        Ok(())
    }
}

impl Visit for RemoveLower<'_> {
    fn enter(&mut self, at: &Folder, entries: Vec<(Vec<u8>, bool)>) -> io::Result<Vec<Vec<u8>>> {
        let mut folders = Vec::new();
        for (name, is_folder) in entries {
            match is_folder {
                true => folders.push(name),
                false => self.file(at, name)?,
            }
        }
        Ok(folders)
    }

    fn leave(&mut self, at: Folder, parent: &Folder, name: &[u8]) -> io::Result<()> {
        let key = (parent.inode, name.into());
        if self.keep && self.written.contains(&key) {
            return Ok(());
        }
        match unlinkat(&parent.fd, name, AtFlags::REMOVEDIR) {
            Ok(()) => {
                self.written.remove(&key);
                self.folders.remove(&at.inode);
            }
            // This layer wrote below it: what the lower layers said of the folder itself goes.
            Err(Errno::NOTEMPTY | Errno::EXIST) if self.keep => {
                self.folders.insert(at.inode, Metadata::IMPLICIT);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}
