//! The files of this project, for tests that read them: their names, and their texts.

use std::fs;
use std::path::{Path, PathBuf};

/// A file of the project.
pub(crate) struct File {
    /// Its path, from the top of the project.
    pub(crate) name: String,
    pub(crate) text: String,
}

/// Returns the files of a folder of the project and of all folders below it, sorted by name. What is no text is left out.
pub(crate) fn files(folder: &str) -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    gather(&root.join(folder), &mut paths);
    paths.sort();
    assert!(!paths.is_empty(), "{folder} has no files");
    let file = |path: PathBuf| {
        let name = path.strip_prefix(root).expect("a file of the project");
        let text = String::from_utf8(fs::read(&path).expect("a file")).ok()?;
        let name = name.display().to_string();
        Some(File { name, text })
    };
    paths.into_iter().filter_map(file).collect()
}

fn gather(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of the project") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => gather(&path, paths),
            false => paths.push(path),
        }
    }
}
