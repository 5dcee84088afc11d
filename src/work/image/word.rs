//! What a word names, by its form and by what is on disk. Knows neither manifests nor the network.

use std::path::{Path, PathBuf};

use crate::oci::Reference;

/// What a word names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Named {
    /// An OCI layout, and the name of an image in it.
    Layout(PathBuf, Option<String>),
    /// An archive, and the name of an image in it.
    Archive(PathBuf, Option<String>),
    /// An image in a registry.
    Reference(Reference),
}

/// Reads a word with a prefix, which leaves no doubt: `oci:`, `oci-archive:`, `docker-archive:` or `docker://`. `None` if
/// it has no prefix.
pub(crate) fn with_prefix(word: &str, here: &Path) -> Option<Result<Named, String>> {
    if let Some(rest) = word.strip_prefix("docker://") {
        return Some(reference(rest).map(Named::Reference));
    }
    let (kind, rest) = word.split_once(':')?;
    let is_layout = match kind {
        "oci" => true,
        "oci-archive" | "docker-archive" => false,
        _ => return None,
    };
    if rest.is_empty() || rest.starts_with(':') {
        let what = if is_layout { "folder" } else { "file" };
        return Some(Err(format!("`{word}` names no {what}")));
    }
    let (path, name) = split(rest, here, |path| path.exists()).unwrap_or_else(|| {
        // Nothing is there: what is missing is the part before the name.
        let (path, name) = rest.split_once(':').unwrap_or((rest, ""));
        (here.join(path), Some(name.to_owned()))
    });
    let name = name.filter(|name| !name.is_empty());
    Some(Ok(match is_layout {
        true => Named::Layout(path, name),
        false => Named::Archive(path, name),
    }))
}

/// Reads a word as something on disk: a folder with a layout, `FOLDER:NAME` of such a folder, or a file.
pub(super) fn on_disk(word: &str, here: &Path) -> Option<Named> {
    if here.join(word).is_file() {
        return Some(Named::Archive(here.join(word), None));
    }
    let is_layout = |path: &Path| path.join("oci-layout").is_file();
    split(word, here, is_layout).map(|(path, name)| Named::Layout(path, name))
}

/// Reads a word as a reference. Without an image tag and a digest, it is `latest`.
pub(super) fn reference(word: &str) -> Result<Reference, String> {
    let mut reference: Reference = word
        .parse()
        .map_err(|error: crate::oci::ReferenceError| error.to_string())?;
    if reference.tag.is_none() && reference.digest.is_none() {
        reference.tag = Some("latest".to_owned());
    }
    Ok(reference)
}

/// Splits `PATH[:NAME]` at the last colon before which the path fits; paths may have colons too.
fn split(
    text: &str,
    here: &Path,
    fits: impl Fn(&Path) -> bool,
) -> Option<(PathBuf, Option<String>)> {
    let whole = here.join(text);
    if fits(&whole) {
        return Some((whole, None));
    }
    let mut colons = text.rmatch_indices(':').map(|(at, _)| at);
    let at = colons.find(|&at| at > 0 && fits(&here.join(&text[..at])))?;
    Some((here.join(&text[..at]), Some(text[at + 1..].to_owned())))
}

/// Tells whether a word can be nothing but a path: there is no reference of this form.
pub(super) fn is_path(word: &str) -> bool {
    word.starts_with(['/', '.', '~']) || word.ends_with('/') || word.ends_with(".tar")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_name_what_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path();
        for (dir, file) in [
            ("lay", "oci-layout"),
            ("lay:er", "oci-layout"),
            ("a", "x.tar"),
        ] {
            std::fs::create_dir_all(here.join(dir)).unwrap();
            std::fs::write(here.join(dir).join(file), "").unwrap();
        }
        let layout = |path: &str, name: Option<&str>| {
            Named::Layout(here.join(path), name.map(str::to_owned))
        };
        let archive = |path: &str, name: Option<&str>| {
            Named::Archive(here.join(path), name.map(str::to_owned))
        };
        for (word, expected) in [
            ("lay", Some(layout("lay", None))),
            ("lay:app", Some(layout("lay", Some("app")))),
            ("lay:er", Some(layout("lay:er", None))),
            ("lay:er:app", Some(layout("lay:er", Some("app")))),
            ("a/x.tar", Some(archive("a/x.tar", None))),
            ("a", None),
            ("a/x.tar:app", None),
            ("nothing:app", None),
        ] {
            assert_eq!(on_disk(word, here), expected, "{word}");
        }
        for (word, expected) in [
            ("oci:lay:app:v1", layout("lay", Some("app:v1"))),
            ("oci:gone:app", layout("gone", Some("app"))),
            ("oci:gone", layout("gone", None)),
            ("oci-archive:a/x.tar", archive("a/x.tar", None)),
            (
                "docker-archive:a/x.tar:app:v1",
                archive("a/x.tar", Some("app:v1")),
            ),
        ] {
            assert_eq!(with_prefix(word, here), Some(Ok(expected)), "{word}");
        }
        assert!(with_prefix("oci:", here).unwrap().is_err());
        assert_eq!(with_prefix("ocelot:1", here), None);
        let python = reference("python").map(Named::Reference);
        assert_eq!(with_prefix("docker://python", here), Some(python));
    }
}
