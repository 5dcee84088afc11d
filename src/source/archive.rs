//! Image archives: an OCI layout as one tar, the tar of `docker save` with its `manifest.json`, or both in one.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::layout::check_version;
use super::{
    Blobs, Found, Part, Piece, Place, SourceError, documents, open_regular, piece, resolve, select,
};
use crate::layer::{self, Bounded, Packing, Stamp, Tick};
use crate::oci::{
    Compression, Config, Descriptor, Digest, Hasher, Index, Platform, Reference, null_is_default,
};
use crate::tar::{Entries, Kind as EntryKind, shown};

/// An image archive, indexed. It is opened once: all that is read of it is read of that file, whatever its name means by
/// then.
pub(crate) struct Archive {
    /// What the user calls it.
    name: PathBuf,
    /// The archive as it was opened.
    file: Arc<File>,
    /// What it looked like then.
    stamp: Stamp,
    /// The uncompressed tar: the archive itself, or a temporary copy without a name, which goes with the last that reads it.
    tar: Arc<File>,
    files: BTreeMap<String, Member>,
    kind: Kind,
}

enum Member {
    File { offset: u64, size: u64 },
    Link(String),
}

enum Kind {
    Oci(Index),
    Docker(Vec<DockerImage>),
}

/// What an archive holds under a name.
pub(crate) enum Root {
    /// A manifest or index of an OCI layout.
    Oci(Descriptor),
    /// An image of `docker save`, which has no manifest, and its platform.
    Docker(Box<Found>, Platform),
}

/// One entry of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    /// None for an image without layers.
    #[serde(default, deserialize_with = "null_is_default")]
    layers: Vec<String>,
}

impl Archive {
    /// Opens an archive; a compressed one is decompressed into the folder `tmp`.
    ///
    /// # Errors
    /// When it cannot be read, or is no image archive.
    pub(crate) fn open(path: &Path, tmp: &Path, go_on: GoOn<'_>) -> Result<Self, SourceError> {
        let fail = |source| SourceError::Io {
            path: path.to_owned(),
            source,
        };
        let file = Arc::new(open_regular(path).map_err(fail)?);
        let stamp = Stamp::of(&file.metadata().map_err(fail)?);
        // From here on, a change gives it another stamp.
        stamp.settle();
        let (packing, reader) = Packing::detect(&*file).map_err(fail)?;
        let tar = match packing {
            Packing::Layer(Compression::None) => Arc::clone(&file),
            other => {
                let mut copy = tempfile::tempfile_in(tmp).map_err(fail)?;
                let size = file.metadata().map_err(fail)?.len();
                let decoder = other.decoder(reader).map_err(fail)?;
                let mut decoder = While {
                    inner: Bounded::new(decoder, size),
                    go_on,
                };
                io::copy(&mut decoder, &mut copy).map_err(fail)?;
                Arc::new(copy)
            }
        };
        let mut archive = Self {
            name: path.to_owned(),
            files: index(&tar).map_err(fail)?,
            file,
            stamp,
            tar,
            kind: Kind::Docker(Vec::new()),
        };
        let no_layout = |why: String| SourceError::NoLayout {
            path: path.to_owned(),
            why,
        };
        archive.kind = if archive.files.contains_key("oci-layout")
            && archive.files.contains_key("index.json")
        {
            check_version(&archive.member("oci-layout")?.read()?).map_err(no_layout)?;
            Kind::Oci(archive.member("index.json")?.parse("image index")?)
        } else if archive.files.contains_key("manifest.json") {
            Kind::Docker(
                archive
                    .member("manifest.json")?
                    .parse("docker archive manifest")?,
            )
        } else {
            return Err(no_layout(
                "it has neither an index.json nor docker's manifest.json".to_owned(),
            ));
        };
        Ok(archive)
    }

    /// Returns what the file looked like when it was opened.
    pub(crate) fn stamp(&self) -> &Stamp {
        &self.stamp
    }

    /// Tells whether the file that was opened is as it was then: what was read of it is of one piece.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub(crate) fn is_unchanged(&self) -> Result<bool, SourceError> {
        let metadata = self.file.metadata().map_err(|source| self.unread(source))?;
        Ok(Stamp::of(&metadata) == self.stamp)
    }

    /// Returns the digest of the file that was opened. Ends early, with an error, when `tick` says so.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn digest(&self, tick: Tick<'_>) -> Result<Digest, SourceError> {
        let mut reader = Part {
            file: Arc::clone(&self.file),
            offset: 0,
            left: u64::MAX,
        };
        let mut hasher = Hasher::default();
        let mut buffer = vec![0; 1 << 20];
        loop {
            let count = reader.read(&mut buffer);
            let count = count.map_err(|source| self.unread(source))?;
            if count == 0 {
                return Ok(hasher.finish());
            }
            hasher.update(&buffer[..count]);
            if !tick(0) {
                return Err(self.unread(io::Error::other("stopped")));
            }
        }
    }

    fn unread(&self, source: io::Error) -> SourceError {
        SourceError::Io {
            path: self.name.clone(),
            source,
        }
    }

    /// Tells whether it holds an OCI layout. What `docker save` wrote before Docker 25 has no manifests.
    pub(crate) fn is_layout(&self) -> bool {
        matches!(self.kind, Kind::Oci(_))
    }

    /// Tells whether it holds images as `docker save` writes them, be it beside a layout: then the layout has full names.
    pub(crate) fn is_for_docker(&self) -> bool {
        self.files.contains_key("manifest.json")
    }

    /// Returns the entries of its layout's index that are documents, and no images.
    pub(crate) fn documents(&self) -> Vec<Descriptor> {
        match &self.kind {
            Kind::Oci(index) => documents(index),
            Kind::Docker(_) => Vec::new(),
        }
    }

    /// Tells whether it holds a blob.
    pub(crate) fn has(&self, digest: &Digest) -> bool {
        self.files.contains_key(&blob(digest))
    }

    /// Finds the image that `reference` names, or the only one, for one platform.
    ///
    /// # Errors
    /// When it is not there, or a document on the way is damaged.
    pub(crate) fn find(
        &self,
        reference: Option<&str>,
        platform: &Platform,
    ) -> Result<Found, SourceError> {
        match &self.kind {
            Kind::Oci(index) => resolve(self, &select(index, reference, &self.what())?, platform),
            Kind::Docker(images) => {
                let (found, has) = self.find_docker(images, reference)?;
                match has.matches(platform) {
                    true => Ok(found),
                    false => Err(SourceError::Platform {
                        wanted: platform.to_string(),
                        have: vec![has.to_string()],
                    }),
                }
            }
        }
    }

    /// Finds what `reference` names, or the only image, whatever its platforms are.
    ///
    /// # Errors
    /// When it is not there, or a document on the way is damaged.
    pub(crate) fn root(&self, reference: Option<&str>) -> Result<Root, SourceError> {
        Ok(match &self.kind {
            Kind::Oci(index) => Root::Oci(select(index, reference, &self.what())?),
            Kind::Docker(images) => {
                let (found, platform) = self.find_docker(images, reference)?;
                Root::Docker(Box::new(found), platform)
            }
        })
    }

    fn find_docker(
        &self,
        images: &[DockerImage],
        reference: Option<&str>,
    ) -> Result<(Found, Platform), SourceError> {
        let tags = |image: &DockerImage| image.repo_tags.clone().unwrap_or_default();
        let full = |text: &str| text.parse::<Reference>().ok();
        let same = |a: &str, b: &str| a == b || full(a).is_some_and(|a| Some(a) == full(b));
        let fits = |image: &&DockerImage| {
            reference.is_none_or(|wanted| tags(image).iter().any(|tag| same(tag, wanted)))
        };
        let found: Vec<&DockerImage> = images.iter().filter(fits).collect();
        let [image] = found[..] else {
            let what = match reference {
                Some(reference) => format!("{} has no image `{reference}`", self.what()),
                None => format!(
                    "{} has {} images, and nothing says which one is meant",
                    self.what(),
                    images.len()
                ),
            };
            return Err(SourceError::Reference {
                what,
                have: images.iter().flat_map(tags).collect(),
            });
        };
        let config = self.member(&image.config)?;
        let platform = Config::parse(&config.read()?)?.platform()?;
        let layers: Result<Vec<Piece>, SourceError> =
            image.layers.iter().map(|name| self.member(name)).collect();
        let name = tags(image)
            .first()
            .and_then(|tag| full(tag))
            .map(|it| it.to_string());
        let found = Found {
            name,
            digest: None,
            manifest: None,
            config,
            layers: layers?,
        };
        Ok((found, platform))
    }

    /// Returns a file of the archive by its name. Old `docker save` links layers that are equal.
    fn member(&self, name: &str) -> Result<Piece, SourceError> {
        let mut name = name.to_owned();
        for _ in 0..8 {
            match self.files.get(&name) {
                Some(&Member::File { offset, size }) => {
                    return Ok(Piece {
                        what: format!("{name} in {}", self.name.display()),
                        media_type: None,
                        expected: None,
                        descriptor: None,
                        place: Place::File {
                            path: self.name.clone(),
                            range: Some((offset, size)),
                            file: Some(Arc::clone(&self.tar)),
                        },
                    });
                }
                Some(Member::Link(target)) => name = target.clone(),
                None => break,
            }
        }
        Err(SourceError::NoLayout {
            path: self.name.clone(),
            why: format!("it lacks the file {name}"),
        })
    }
}

impl Blobs for Archive {
    fn what(&self) -> String {
        format!("the archive {}", self.name.display())
    }

    fn piece(&self, descriptor: &Descriptor) -> Result<Piece, SourceError> {
        let Piece { what, place, .. } = self.member(&blob(&descriptor.digest))?;
        Ok(piece(descriptor, place, what))
    }
}

/// Returns the name of a blob's file.
fn blob(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// Lists the files and links of a tar, by normalised name.
fn index(file: &File) -> io::Result<BTreeMap<String, Member>> {
    let mut files = BTreeMap::new();
    let mut tar = Entries::seekable(file)?;
    while let Some(entry) = tar.next_entry().map_err(io::Error::other)? {
        let Ok(name) = layer::LayerPath::parse_bytes(&entry.path) else {
            continue;
        };
        let link = String::from_utf8_lossy(entry.link.as_deref().unwrap_or_default());
        let member = match entry.kind {
            // Members are read where they lie, in one piece.
            EntryKind::File if entry.holes > 0 => {
                return Err(io::Error::other(format!(
                    "it holds {} as a sparse file: make the archive without `--sparse`",
                    shown(&entry.path)
                )));
            }
            EntryKind::File => Member::File {
                offset: entry.offset,
                size: entry.size,
            },
            EntryKind::Symlink => {
                let folder = name.parent().unwrap_or_default();
                match relative(&folder, &link) {
                    Some(target) => Member::Link(target),
                    None => continue,
                }
            }
            EntryKind::Hardlink => Member::Link(link.into_owned()),
            _ => continue,
        };
        files.insert(name.to_string(), member);
    }
    Ok(files)
}

/// Resolves a link's text within the archive; `None` if it leads out.
fn relative(folder: &layer::LayerPath, target: &str) -> Option<String> {
    let mut at = folder.clone();
    for component in target.split('/') {
        at = match component {
            "" | "." => at,
            ".." => at.parent()?,
            name => at.join(name).ok()?,
        };
    }
    Some(at.to_string())
}

/// Tells, now and then, whether to go on.
type GoOn<'a> = &'a dyn Fn() -> bool;

/// Reads as long as it is to go on.
struct While<'a, R> {
    inner: R,
    go_on: GoOn<'a>,
}

impl<R: Read> Read for While<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match (self.go_on)() {
            true => self.inner.read(buffer),
            false => Err(io::Error::other("stopped")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::tar::testing;

    /// An archive of an image without layers, plain or compressed, whose config says a word.
    fn image(word: &str, is_compressed: bool) -> Vec<u8> {
        let config = serde_json::json!({
            "architecture": "amd64", "os": "linux", "author": word, "rootfs": { "diff_ids": [] },
        });
        let list = serde_json::json!([{ "Config": "config.json", "Layers": [] }]);
        let members = [("config.json", &config), ("manifest.json", &list)];
        let members =
            members.map(|(path, text)| testing::entry(path, b'0', text.to_string().as_bytes()));
        let tar = [members.concat(), testing::end()].concat();
        match is_compressed {
            true => zstd::encode_all(&tar[..], 1).unwrap(),
            false => tar,
        }
    }

    #[test]
    fn an_archive_is_read_as_it_was_opened() {
        for is_compressed in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a.tar");
            let first = image("first", is_compressed);
            std::fs::write(&path, &first).unwrap();
            let archive = Archive::open(&path, folder.path(), &|| true).unwrap();
            assert!(archive.is_unchanged().unwrap());
            let mut other = tempfile::NamedTempFile::new_in(folder.path()).unwrap();
            other.write_all(&image("other", is_compressed)).unwrap();
            other.persist(&path).unwrap();
            let found = archive.find(None, &Platform::new("linux", "amd64"));
            let config = found.unwrap().config.read().unwrap();
            let config = String::from_utf8(config).unwrap();
            assert!(config.contains("first"), "{config}");
            assert_eq!(archive.digest(&|_| true).unwrap(), Digest::of(&first));
            assert!(archive.digest(&|_| false).is_err());
            assert!(!archive.is_unchanged().unwrap());
        }
    }

    #[test]
    fn a_folder_is_no_archive() {
        let folder = tempfile::tempdir().unwrap();
        let error = Archive::open(folder.path(), folder.path(), &|| true)
            .err()
            .unwrap();
        assert!(matches!(error, SourceError::Io { .. }), "{error}");
    }
}
