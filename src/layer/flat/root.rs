//! A root in memory: names, and what is said of them. Knows no contents.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::tar::{Entry, EntryPath, Kind, Whiteout, entry_path};

/// How long a path may be.
const MAX_PATH: usize = 4095;
/// How many symlinks a path may lead through.
const MAX_LINKS: usize = 40;
/// How many entries all layers may have: they are held in memory.
const MAX_NODES: usize = 8_000_000;
/// The largest number of a device that a header holds.
const MAX_DEVICE: u32 = 0o7_777_777;
/// The number of the top folder.
const TOP: usize = 0;

/// A root: folders with what is in them.
pub(super) struct Root {
    /// All that ever was; what has no name any more is left alone.
    nodes: Vec<Node>,
    /// What this layer wrote: its own whiteouts do not hide that, wherever they stand in it.
    written: BTreeSet<Name>,
    /// The folder that was found last, and by which path.
    last: Option<(Vec<u8>, usize)>,
}

/// A name in a folder.
type Name = (usize, Box<[u8]>);

/// A file, a folder or something else; it may have several names.
pub(super) struct Node {
    pub(super) mode: u16,
    pub(super) uid: u64,
    pub(super) gid: u64,
    /// Seconds since 1970, and nanoseconds after them.
    pub(super) mtime: (i64, u32),
    /// The PAX records of extended attributes.
    pub(super) records: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) what: What,
}

/// What a node is.
pub(super) enum What {
    /// A folder, with the numbers of what is in it.
    Folder(BTreeMap<Box<[u8]>, usize>),
    /// A file: its layer, and the number of its entry there.
    File((usize, usize)),
    /// A symlink, with its target.
    Symlink(Vec<u8>),
    /// A device with its numbers, or a fifo.
    Special(Kind, (u32, u32)),
}

impl Default for Root {
    fn default() -> Self {
        Self {
            nodes: vec![Node::implicit()],
            written: BTreeSet::new(),
            last: None,
        }
    }
}

impl Node {
    /// A folder of which no layer speaks.
    fn implicit() -> Self {
        Self {
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: (0, 0),
            records: BTreeMap::new(),
            what: What::Folder(BTreeMap::new()),
        }
    }

    fn folder(&self) -> Option<&BTreeMap<Box<[u8]>, usize>> {
        match &self.what {
            What::Folder(names) => Some(names),
            _ => None,
        }
    }
}

impl Root {
    /// Hears that another layer begins.
    pub(super) fn next_layer(&mut self) {
        self.written.clear();
    }

    /// Returns a node.
    pub(super) fn node(&self, number: usize) -> &Node {
        &self.nodes[number]
    }

    /// Returns all paths in order, each folder before what is in it; not the root itself.
    pub(super) fn paths(&self) -> Vec<(Vec<u8>, usize)> {
        let mut paths = Vec::new();
        let mut open: Vec<(Vec<u8>, usize)> = vec![(Vec::new(), TOP)];
        while let Some((path, number)) = open.pop() {
            if let Some(names) = self.nodes[number].folder() {
                let below = names.iter().rev().map(|(name, number)| {
                    let parts: Vec<&[u8]> = match &path[..] {
                        [] => vec![&name[..]],
                        path => vec![path, &name[..]],
                    };
                    (parts.join(&b'/'), *number)
                });
                open.extend(below);
            }
            if number != TOP {
                paths.push((path, number));
            }
        }
        paths
    }

    /// Puts an entry of a layer into the root; `at` says which one it is. Says what is wrong with one that has no place.
    pub(super) fn add(&mut self, mut entry: Entry, at: (usize, usize)) -> Result<(), String> {
        let (parent, name) = match entry_path(&entry.path, MAX_PATH)? {
            EntryPath::Root if entry.kind == Kind::Folder => return self.describe(TOP, &entry),
            EntryPath::Root | EntryPath::Ignored => return Ok(()),
            EntryPath::At(parent, name) => (parent, name),
        };
        match Whiteout::of(&name) {
            Whiteout::None => {}
            Whiteout::Name(hidden) => return self.whiteout(&parent, Some(hidden)),
            Whiteout::Opaque => return self.whiteout(&parent, None),
            Whiteout::Invalid | Whiteout::Meaningless => {
                return Err("a whiteout of no file".to_owned());
            }
        }
        let folder = self.find(&parent, true)?;
        let folder = folder.ok_or("whose folder is no folder")?;
        if self.nodes.len() >= MAX_NODES {
            return Err(format!("which is one of more than {MAX_NODES} entries"));
        }
        let what = match entry.kind {
            Kind::Folder => {
                let there = self.child(folder, &name);
                let there = there.filter(|it| self.nodes[*it].folder().is_some());
                let number = there.unwrap_or_else(|| self.put(folder, &name, Node::implicit()));
                self.written.insert((folder, name.into()));
                return self.describe(number, &entry);
            }
            Kind::Hardlink => {
                let target = entry.link.take().unwrap_or_default();
                return self.hard_link(folder, name, &target);
            }
            Kind::File => What::File(at),
            Kind::Symlink => {
                let target = entry.link.take().unwrap_or_default();
                if target.is_empty() || target.contains(&0) || target.len() > MAX_PATH {
                    return Err("a symlink to an impossible path".to_owned());
                }
                What::Symlink(target)
            }
            Kind::Fifo | Kind::Character | Kind::Block => {
                let device = entry.device.unwrap_or_default();
                if device.0.max(device.1) > MAX_DEVICE {
                    return Err("a device with an impossible number".to_owned());
                }
                What::Special(entry.kind, device)
            }
            Kind::Other(flag) => {
                let flag = char::from(flag).escape_default();
                return Err(format!("of the unknown type `{flag}`"));
            }
        };
        let node = Node {
            what,
            ..Node::implicit()
        };
        let number = self.put(folder, &name, node);
        self.written.insert((folder, name.into()));
        self.describe(number, &entry)
    }

    /// Takes what an entry's headers say of mode, owner, time and attributes.
    fn describe(&mut self, number: usize, entry: &Entry) -> Result<(), String> {
        let node = &mut self.nodes[number];
        node.mode = u16::try_from(entry.mode & 0o7777).unwrap_or_default();
        (node.uid, node.gid, node.mtime) = (entry.uid, entry.gid, entry.mtime);
        // What speaks of an overlay mount is no part of what is in it.
        let is_overlay = |name: &[u8]| {
            name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
        };
        let attributes = entry.attributes().filter(|(name, _)| !is_overlay(name));
        node.records = attributes
            .map(|(name, value)| ([b"SCHILY.xattr.", name].concat(), value.to_vec()))
            .collect();
        Ok(())
    }

    fn child(&self, folder: usize, name: &[u8]) -> Option<usize> {
        self.nodes[folder].folder()?.get(name).copied()
    }

    fn names(&mut self, folder: usize) -> &mut BTreeMap<Box<[u8]>, usize> {
        match &mut self.nodes[folder].what {
            What::Folder(names) => names,
            _ => unreachable!("only folders are asked for names"),
        }
    }

    /// Puts something new into a folder, in the place of what was there.
    fn put(&mut self, folder: usize, name: &[u8], node: Node) -> usize {
        let number = self.nodes.len();
        self.nodes.push(node);
        self.name(folder, name, number);
        number
    }

    fn name(&mut self, folder: usize, name: &[u8], number: usize) {
        let was = self.names(folder).insert(name.into(), number);
        // A folder may be gone, with all that is found through it.
        if was.is_some() {
            self.last = None;
        }
    }

    /// Finds the folder that a path leads to. Symlinks are followed inside the root; a `..` takes the name before it off.
    /// Missing folders are made where `make` says so.
    fn find(&mut self, path: &[u8], make: bool) -> Result<Option<usize>, String> {
        if let Some((last, folder)) = &self.last
            && last == path
        {
            return Ok(Some(*folder));
        }
        let split = |path: &[u8]| -> Vec<Vec<u8>> {
            let names = path.split(|byte| *byte == b'/').map(<[u8]>::to_vec);
            names.collect()
        };
        let mut names: VecDeque<Vec<u8>> = split(path).into();
        let mut above = vec![TOP];
        let mut links = 0;
        while let Some(name) = names.pop_front() {
            match &name[..] {
                b"" | b"." => continue,
                b".." => {
                    if above.len() > 1 {
                        above.pop();
                    }
                    continue;
                }
                _ => {}
            }
            let folder = above.last().copied().unwrap_or(TOP);
            let number = match self.child(folder, &name) {
                Some(number) => number,
                None if make => {
                    let number = self.put(folder, &name, Node::implicit());
                    self.written.insert((folder, name.into()));
                    number
                }
                None => return Ok(None),
            };
            match &self.nodes[number].what {
                What::Folder(_) => above.push(number),
                What::Symlink(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err("whose folder is a circle of symlinks".to_owned());
                    }
                    if target.starts_with(b"/") {
                        above.truncate(1);
                    }
                    for name in split(target).into_iter().rev() {
                        names.push_front(name);
                    }
                }
                _ => return Ok(None),
            }
        }
        let found = above.last().copied().unwrap_or(TOP);
        self.last = Some((path.to_vec(), found));
        Ok(Some(found))
    }

    /// Gives one more name to what has one.
    fn hard_link(&mut self, folder: usize, name: Vec<u8>, target: &[u8]) -> Result<(), String> {
        let text = target.escape_ascii().to_string();
        let missing = || format!("a hard link to `{text}`, which is not there");
        let EntryPath::At(parent, last) = entry_path(target, MAX_PATH)? else {
            return Err(missing());
        };
        let parent = self.find(&parent, false)?.ok_or_else(missing)?;
        let number = self.child(parent, &last).ok_or_else(missing)?;
        if self.nodes[number].folder().is_some() {
            return Err(format!("a hard link to `{text}`, a folder"));
        }
        // The name may be that of a folder above the target, which then goes with it: the link holds it.
        self.name(folder, &name, number);
        self.written.insert((folder, name.into()));
        Ok(())
    }

    /// Hides what lower layers hold: what has a name in a folder, or all that is in it.
    fn whiteout(&mut self, parent: &[u8], hidden: Option<&[u8]>) -> Result<(), String> {
        // What is not there need not be hidden.
        let Ok(Some(folder)) = self.find(parent, false) else {
            return Ok(());
        };
        self.last = None;
        match hidden {
            Some(name) => self.hide(folder, name),
            None => self.hide_all(folder),
        }
        Ok(())
    }

    /// Removes all that is in a folder, but for what this layer wrote.
    fn hide_all(&mut self, folder: usize) {
        let names: Vec<Box<[u8]>> = self.names(folder).keys().cloned().collect();
        names.iter().for_each(|name| self.hide(folder, name));
    }

    /// Removes what has a name, with all below it, but for what this layer wrote.
    fn hide(&mut self, folder: usize, name: &[u8]) {
        let Some(number) = self.child(folder, name) else {
            return;
        };
        let is_folder = self.nodes[number].folder().is_some();
        if is_folder {
            self.hide_all(number);
        }
        if self.written.contains(&(folder, name.into())) {
            return;
        }
        if is_folder && !self.names(number).is_empty() {
            // This layer wrote below it: what the lower layers said of the folder itself goes.
            let below = std::mem::take(self.names(number));
            self.nodes[number] = Node {
                what: What::Folder(below),
                ..Node::implicit()
            };
            return;
        }
        self.names(folder).remove(name);
    }
}
