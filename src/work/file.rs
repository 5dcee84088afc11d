//! Files that commands write beside their outputs.

use std::fs::Permissions;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Writes a file at once: all of it or nothing.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_with(path, bytes, None)
}

/// Writes a file of the user's anew, at once: it keeps its mode, and is what a symlink names.
pub(super) fn rewrite_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let real = path.canonicalize()?;
    let mode = std::fs::metadata(&real)?.permissions();
    write_with(&real, bytes, Some(mode))
}

fn write_with(path: &Path, bytes: &[u8], mode: Option<Permissions>) -> io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .permissions(Permissions::from_mode(0o644))
        .tempfile_in(folder)
        .map_err(plain)?;
    file.write_all(bytes)?;
    if let Some(mode) = mode {
        // The umask has no say in the mode of a file that was there.
        file.as_file().set_permissions(mode)?;
    }
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Takes the name of the temporary file out of an error: nobody else knows it.
fn plain(error: io::Error) -> io::Error {
    match error.get_ref() {
        Some(_) => io::Error::from(error.kind()),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_no_temporary_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nowhere/image.lock");
        let error = write_file(&path, b"").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(!error.to_string().contains(".tmp"), "{error}");
    }
}
