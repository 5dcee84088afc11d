//! What `push --from` names: a layout, or an archive that holds one. Knows no registry.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::oci::{Descriptor, Reference};
use crate::plan::PlannedImage;
use crate::registry::Verified;
use crate::source::{Archive, Blobs, Layout, Root, SourceError};
use crate::work::image::{Named, with_prefix};
use crate::work::{Blame, Failed, Session};

/// Where images lie that were built.
pub(super) enum Kept {
    Layout(Layout),
    Archive(Archive),
}

/// Reads what the user wrote: the path, and whether it is an archive's.
fn read(from: &Path, here: &Path) -> (PathBuf, bool) {
    let named = from.to_str().and_then(|text| with_prefix(text, here));
    match named {
        Some(Ok(Named::Layout(path, None))) => (path, false),
        Some(Ok(Named::Archive(path, None))) => (path, true),
        // Which images are pushed is said by targets: a name behind the path is none of it.
        _ => {
            let path = here.join(from);
            let is_archive = path.is_file();
            (path, is_archive)
        }
    }
}

impl Kept {
    /// Opens what `from` names: `oci:DIR`, `oci-archive:FILE`, `docker-archive:FILE`, a folder or a file.
    pub(super) fn open(session: &Session, from: &Path, here: &Path) -> Result<Self, Failed> {
        let (path, is_archive) = read(from, here);
        if !is_archive {
            let layout = Layout::open(&path).map_err(|error| missing(&error, false))?;
            return Ok(Self::Layout(layout));
        }
        // A compressed one is decompressed into the cache's own folder.
        let store = session.store()?;
        let go_on = || !session.stop.is_asked();
        let archive = Archive::open(&path, store.tmp(), &go_on);
        session.go_on()?;
        let archive = archive.map_err(|error| missing(&error, true))?;
        if archive.is_layout() {
            return Ok(Self::Archive(archive));
        }
        let message = format!(
            "{} cannot be pushed as it was built: it is an archive for Docker alone, which has no manifests",
            path.display()
        );
        let help = "write one that has: imgdecl build --output oci-archive:FILE. Or push this one with new digests: skopeo copy docker-archive:FILE docker://REPOSITORY:TAG";
        Err(Failed::build(
            "imgdecl::push::archive",
            &message,
            Some(help.to_owned()),
        ))
    }

    /// Says that an image is not there, and how to get it there.
    pub(super) fn missing(&self, error: &SourceError) -> Failed {
        missing(error, matches!(self, Self::Archive(_)))
    }

    pub(super) fn blobs(&self) -> &dyn Blobs {
        match self {
            Self::Layout(layout) => layout,
            Self::Archive(archive) => archive,
        }
    }

    /// Finds an image: by the name of its target, or in an archive that is for Docker, too, by a full name. It may have been
    /// built with the image tags `tags` in place of its own.
    pub(super) fn select(
        &self,
        image: &PlannedImage,
        tags: &[String],
    ) -> Result<Descriptor, SourceError> {
        let archive = match self {
            Self::Layout(layout) => return layout.select(Some(&image.name)),
            Self::Archive(archive) => archive,
        };
        let names = match archive.is_for_docker() {
            true => full_names(image, tags),
            false => vec![image.name.clone()],
        };
        let roots = names.iter().map(|name| archive.root(Some(name)));
        let mut failed = None;
        for root in roots {
            match root {
                Ok(Root::Oci(root)) => return Ok(root),
                Ok(Root::Docker(..)) => {}
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        Err(failed.unwrap_or_else(|| SourceError::Reference {
            what: format!("{} has no image `{}`", archive.what(), image.name),
            have: Vec::new(),
        }))
    }

    /// Returns what is listed beside the images.
    pub(super) fn documents(&self) -> Vec<Descriptor> {
        match self {
            Self::Layout(layout) => layout.documents(),
            Self::Archive(archive) => archive.documents(),
        }
    }

    /// Opens a blob; `None` if it is not there. Whoever reads one of an archive to its end gets it whole, or an error.
    pub(super) fn open_blob(
        &self,
        descriptor: &Descriptor,
    ) -> io::Result<Option<Box<dyn Read + Send>>> {
        if let Self::Archive(archive) = self
            && !archive.has(&descriptor.digest)
        {
            return Ok(None);
        }
        let piece = self.blobs().piece(descriptor);
        match piece.and_then(|piece| piece.open()) {
            Ok(reader) => Ok(Some(match self {
                // The registry checks what it gets.
                Self::Layout(_) => Box::new(reader),
                Self::Archive(_) => Box::new(Verified::new(reader, descriptor.clone())),
            })),
            Err(SourceError::Io { source, .. }) => match source.kind() {
                io::ErrorKind::NotFound => Ok(None),
                _ => Err(source),
            },
            Err(error) => Err(io::Error::other(error)),
        }
    }
}

/// Returns what Docker may call an image.
fn full_names(image: &PlannedImage, tags: &[String]) -> Vec<String> {
    let latest = ["latest".to_owned()];
    let own = match &image.names.tags[..] {
        [] => &latest,
        own => own,
    };
    let repository = image.names.repository.as_deref().unwrap_or_default();
    let full = |tag: &String| format!("{repository}:{tag}").parse::<Reference>();
    let names = own.iter().chain(tags).filter_map(|tag| full(tag).ok());
    names.map(|name| name.to_string()).collect()
}

fn missing(error: &SourceError, is_archive: bool) -> Failed {
    let help = match is_archive {
        true => "build it first: imgdecl build --output oci-archive:FILE",
        false => "build it first: imgdecl build, or build and push at once: imgdecl build --push",
    };
    Failed::error(
        Blame::Build,
        "imgdecl::push::layout",
        error,
        Some(help.into()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_what_is_there_tell_layouts_from_archives() {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path();
        std::fs::create_dir(here.join("out")).unwrap();
        std::fs::write(here.join("a.tar"), "").unwrap();
        for (from, path, is_archive) in [
            ("out", "out", false),
            ("oci:out", "out", false),
            ("a.tar", "a.tar", true),
            ("oci-archive:a.tar", "a.tar", true),
            ("docker-archive:gone.tar", "gone.tar", true),
            ("gone", "gone", false),
            ("oci:", "oci:", false),
            ("b:c", "b:c", false),
        ] {
            let expected = (here.join(path), is_archive);
            assert_eq!(read(Path::new(from), here), expected, "{from}");
        }
    }
}
