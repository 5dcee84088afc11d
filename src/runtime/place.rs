//! Paths of entries: where they go in a root. Knows nothing of what is there.

use crate::layer::{OPAQUE, WHITEOUT};

/// What the names of files begin with that only one union file system ever read: they are passed over.
const META: &[u8] = b".wh..wh.";
/// Where an entry goes.
pub(super) enum Place {
    Root,
    /// Below the folder of the first path, with this name.
    At(Vec<u8>, Vec<u8>),
    /// Nowhere: what only one union file system ever read.
    Ignored,
}

/// Takes a path apart. An absolute one begins in the root.
pub(super) fn place(path: &[u8], limit: usize) -> Result<Place, String> {
    if path.len() > limit {
        return Err(format!(
            "whose path has {} bytes: {limit} are the limit",
            path.len()
        ));
    }
    if path.contains(&0) {
        return Err("which has a NUL in its path".to_owned());
    }
    let names = path.split(|byte| *byte == b'/');
    let mut names: Vec<&[u8]> = names.filter(|it| !it.is_empty() && *it != b".").collect();
    if names.iter().any(|name| *name == b"..") {
        return Err("whose path leads upwards".to_owned());
    }
    if names.iter().any(|name| name.len() > 255) {
        return Err("which has a name of more than 255 bytes".to_owned());
    }
    let Some(name) = names.pop() else {
        return Ok(Place::Root);
    };
    let is_meta = |name: &[u8]| name.starts_with(META) && name != OPAQUE.as_bytes();
    if is_meta(name) || names.iter().any(|name| is_meta(name)) {
        return Ok(Place::Ignored);
    }
    if names
        .iter()
        .any(|name| name.starts_with(WHITEOUT.as_bytes()))
    {
        return Err("which lies below a whiteout".to_owned());
    }
    Ok(Place::At(names.join(&b'/'), name.to_vec()))
}

/// Makes a name fit for a message.
pub(super) fn shown(name: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(name).escape_debug().to_string();
    if let Some((at, _)) = text.char_indices().nth(200) {
        text.truncate(at);
        text.push('…');
    }
    text
}
