//! Small files of the user: read whole, if they are regular and of a sane size. Knows nothing of what is in them.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Reads a regular file of at most `limit` bytes.
///
/// # Errors
/// When it cannot be read, is no regular file, or is larger.
pub(super) fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    // Before it is opened: a fifo would block.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > limit {
        true => Err(io::Error::other(format!("it is larger than {limit} bytes"))),
        false => Ok(bytes),
    }
}

/// Tells whether an error says that there is no such file.
pub(super) fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_regular_files_of_a_sane_size_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        std::fs::write(&path, "1234").unwrap();
        assert_eq!(read(&path, 4).unwrap(), b"1234");
        let error = read(&path, 3).unwrap_err().to_string();
        assert_eq!(error, "it is larger than 3 bytes");
        let error = read(folder.path(), 3).unwrap_err().to_string();
        assert_eq!(error, "it is no regular file");
        assert!(is_missing(&read(&path.join("y"), 3).unwrap_err()));
        assert!(is_missing(&read(&folder.path().join("y"), 3).unwrap_err()));
    }
}
