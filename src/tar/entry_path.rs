//! Paths of entries: where they go in a root. Knows nothing of what is there.

use super::Whiteout;

/// The path of an entry: where it goes in the root.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum EntryPath {
    /// It is the root itself.
    Root,
    /// Below the folder of the first path, with this name.
    At(Vec<u8>, Vec<u8>),
    /// Nowhere: what only one union file system ever read.
    Ignored,
}

/// Takes a path apart. An absolute one begins in the root; a `..` takes the component before it off, as containerd and
/// umoci have it, and never leads out of the root.
pub(crate) fn entry_path(path: &[u8], limit: usize) -> Result<EntryPath, String> {
    if path.len() > limit {
        return Err(format!(
            "whose path has {} bytes: {limit} are the limit",
            path.len()
        ));
    }
    if path.contains(&0) {
        return Err("which has a NUL in its path".to_owned());
    }
    let mut names: Vec<&[u8]> = Vec::new();
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => drop(names.pop()),
            name if name.len() > 255 => {
                return Err("which has a name of more than 255 bytes".to_owned());
            }
            name => names.push(name),
        }
    }
    let is_meaningless = |name: &&[u8]| Whiteout::of(name) == Whiteout::Meaningless;
    if names.iter().any(is_meaningless) {
        return Ok(EntryPath::Ignored);
    }
    Ok(match names.pop() {
        None => EntryPath::Root,
        Some(name) => EntryPath::At(names.join(&b'/'), name.to_vec()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_in_the_root() {
        let at = |folder: &str, name: &str| EntryPath::At(folder.into(), name.into());
        for (path, expected) in [
            ("a", at("", "a")),
            ("/a//./b/", at("a", "b")),
            ("a/../b", at("", "b")),
            ("../../etc/x", at("etc", "x")),
            ("a/b/..", at("", "a")),
            (".wh.a/b", at(".wh.a", "b")),
            ("a/.wh..wh.plnk/1", EntryPath::Ignored),
            ("..", EntryPath::Root),
            ("", EntryPath::Root),
            ("./", EntryPath::Root),
        ] {
            assert_eq!(entry_path(path.as_bytes(), 4095), Ok(expected), "{path}");
        }
        assert!(entry_path(b"a\0", 4095).is_err());
        assert!(entry_path(&[b'a'; 256], 4095).is_err());
        assert!(entry_path(b"a/b", 2).is_err());
    }
}
