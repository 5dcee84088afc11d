//! The entries of a layer's tar, as they are written there: for people who look at layers, and for comparing them.

use std::collections::BTreeMap;
use std::io::{self, Read};

use super::read::{MAX_ENTRIES, MAX_NAMES, Padded};
use super::{HeaderGuard, LayerPath, ReadError, Tick};

/// One entry of a layer's tar. Nothing of it is to be trusted: it may have any path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TarEntry {
    /// The path, as it is written.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: TarKind,
    /// The mode, with set-id and sticky bits.
    pub mode: u32,
    /// The owner.
    pub uid: u64,
    /// The owner's group.
    pub gid: u64,
    /// The owner's name, which may be empty.
    pub user: Vec<u8>,
    /// The group's name, which may be empty.
    pub group: Vec<u8>,
    /// The modification time of the header, in seconds.
    pub mtime: u64,
    /// The size of the content, in bytes.
    pub size: u64,
    /// What a symlink or hard link points to, as it is written.
    pub link: Option<Vec<u8>>,
    /// The numbers of a device.
    pub device: Option<(u32, u32)>,
    /// The PAX records but those that say path, link and size.
    pub records: BTreeMap<String, Vec<u8>>,
}

/// What an entry is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TarKind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symlink.
    Symlink,
    /// A hard link.
    Hardlink,
    /// A character device.
    Character,
    /// A block device.
    Block,
    /// A named pipe.
    Fifo,
    /// Anything else, by its type flag.
    Other(u8),
}

impl TarKind {
    /// Returns the word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Folder => "folder",
            Self::Symlink => "symlink",
            Self::Hardlink => "hard link",
            Self::Character => "character device",
            Self::Block => "block device",
            Self::Fifo => "fifo",
            Self::Other(_) => "unknown",
        }
    }

    /// Returns the letter by which `ls` shows it.
    pub fn letter(self) -> char {
        match self {
            Self::File => '-',
            Self::Folder => 'd',
            Self::Symlink => 'l',
            Self::Hardlink => 'h',
            Self::Character => 'c',
            Self::Block => 'b',
            Self::Fifo => 'p',
            Self::Other(_) => '?',
        }
    }
}

impl TarEntry {
    /// Returns where it lies in an image; `None` where no image can hold it.
    pub fn place(&self) -> Option<LayerPath> {
        LayerPath::parse_bytes(&self.path).ok()
    }
}

/// Shows each entry of a tar, with its content.
///
/// # Errors
/// When it is no tar, or has more than any real layer, or the user stopped, or `show` fails.
pub fn entries(
    reader: &mut dyn Read,
    tick: Tick<'_>,
    show: &mut dyn FnMut(TarEntry, &mut dyn Read) -> io::Result<()>,
) -> Result<(), ReadError> {
    let mut names = 0;
    let mut archive = tar::Archive::new(HeaderGuard::new(Padded { reader, read: 0 }));
    for (count, entry) in archive.entries().map_err(ReadError::Tar)?.enumerate() {
        if count > MAX_ENTRIES {
            return Err(ReadError::TooMany);
        }
        if !tick(0) {
            return Err(ReadError::Stopped);
        }
        let mut entry = entry.map_err(ReadError::Tar)?;
        let read = read(&mut entry).map_err(ReadError::Tar)?;
        let records = read.records.iter();
        names += read.path.len()
            + read.link.as_ref().map_or(0, Vec::len)
            + records
                .map(|(key, value)| key.len() + value.len())
                .sum::<usize>();
        if names > MAX_NAMES {
            return Err(ReadError::TooLong);
        }
        show(read, &mut entry).map_err(ReadError::Tar)?;
    }
    Ok(())
}

fn read<R: Read>(entry: &mut tar::Entry<'_, R>) -> io::Result<TarEntry> {
    let mut records = BTreeMap::new();
    if let Some(extensions) = entry.pax_extensions()? {
        for record in extensions {
            let record = record?;
            let key = String::from_utf8_lossy(record.key_bytes()).into_owned();
            if !matches!(key.as_str(), "path" | "linkpath" | "size") {
                records.insert(key, record.value_bytes().to_vec());
            }
        }
    }
    let header = entry.header();
    let kind = match header.entry_type() {
        tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
            TarKind::File
        }
        tar::EntryType::Directory => TarKind::Folder,
        tar::EntryType::Symlink => TarKind::Symlink,
        tar::EntryType::Link => TarKind::Hardlink,
        tar::EntryType::Char => TarKind::Character,
        tar::EntryType::Block => TarKind::Block,
        tar::EntryType::Fifo => TarKind::Fifo,
        other => TarKind::Other(other.as_byte()),
    };
    let device = match kind {
        TarKind::Character | TarKind::Block => Some((
            header.device_major()?.unwrap_or(0),
            header.device_minor()?.unwrap_or(0),
        )),
        _ => None,
    };
    let old = header.as_old();
    Ok(TarEntry {
        path: entry.path_bytes().into_owned(),
        kind,
        mode: number(&old.mode, header.mode())? & 0o7777,
        uid: number(&old.uid, header.uid())?,
        gid: number(&old.gid, header.gid())?,
        user: header.username_bytes().unwrap_or_default().to_vec(),
        group: header.groupname_bytes().unwrap_or_default().to_vec(),
        mtime: number(&old.mtime, header.mtime())?,
        size: entry.size(),
        link: entry.link_name_bytes().map(|it| it.into_owned()),
        device,
        records,
    })
}

/// Takes a field that was left empty for a zero, as other readers do.
fn number<T: Default>(field: &[u8], read: io::Result<T>) -> io::Result<T> {
    match field.iter().all(|byte| matches!(byte, 0 | b' ')) {
        true => Ok(T::default()),
        false => read,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_shown_as_they_are_written() {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o4755);
        header.set_uid(7);
        header.set_gid(8);
        header.set_mtime(9);
        header.set_size(2);
        header.set_username("me").unwrap();
        let records = [("SCHILY.xattr.user.a", &b"b"[..]), ("mtime", b"9.5")];
        builder.append_pax_extensions(records).unwrap();
        builder
            .append_data(&mut header, "./a/b", &b"hi"[..])
            .unwrap();
        let mut link = tar::Header::new_ustar();
        link.set_entry_type(tar::EntryType::Symlink);
        link.set_size(0);
        link.set_mode(0o777);
        builder
            .append_link(&mut link, "l", "../../etc/passwd")
            .unwrap();
        let tar = builder.into_inner().unwrap();
        let mut seen = Vec::new();
        let mut show = |entry: TarEntry, content: &mut dyn Read| {
            let mut text = String::new();
            content.read_to_string(&mut text)?;
            seen.push((entry, text));
            Ok(())
        };
        entries(&mut &tar[..], &|_| true, &mut show).unwrap();
        let [(file, text), (link, _)] = &seen[..] else {
            panic!("{seen:?}");
        };
        assert_eq!(text, "hi");
        assert_eq!(file.place().unwrap().as_str(), "a/b");
        assert_eq!(
            (file.mode, file.uid, file.gid, file.mtime),
            (0o4755, 7, 8, 9)
        );
        assert_eq!((file.kind, &file.user[..]), (TarKind::File, &b"me"[..]));
        assert_eq!(file.records.len(), 2);
        // Its other fields were left empty.
        assert_eq!((link.uid, link.gid, link.mtime), (0, 0, 0));
        assert_eq!(link.link.as_deref(), Some(&b"../../etc/passwd"[..]));
        let mut stop = |_: TarEntry, _: &mut dyn Read| Ok(());
        assert!(matches!(
            entries(&mut &tar[..], &|_| false, &mut stop),
            Err(ReadError::Stopped)
        ));
        assert!(entries(&mut &tar[..700], &|_| true, &mut stop).is_err());
    }
}
