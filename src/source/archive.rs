//! Image archives: an OCI layout as one tar, the tar of `docker save` with its `manifest.json`, or both in one.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::layout::check_version;
use super::{Blobs, Found, Piece, SourceError, piece, resolve, select};
use crate::layer;
use crate::oci::{Compression, Config, Descriptor, Index, Platform, Reference};

/// An image archive, indexed.
pub struct Archive {
    /// What the user calls it.
    name: PathBuf,
    /// The uncompressed tar: the archive itself, or a temporary copy.
    tar: PathBuf,
    _temporary: Option<tempfile::NamedTempFile>,
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
pub enum Root {
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
    layers: Vec<String>,
}

impl Archive {
    /// Opens an archive; a compressed one is decompressed into the folder `tmp`.
    ///
    /// # Errors
    /// When it cannot be read, or is no image archive.
    pub fn open(path: &Path, tmp: &Path) -> Result<Self, SourceError> {
        let fail = |source| SourceError::Io {
            path: path.to_owned(),
            source,
        };
        let (compression, mut reader) =
            layer::detect(File::open(path).map_err(fail)?).map_err(fail)?;
        let temporary = match compression {
            Compression::None => None,
            other => {
                let mut copy = tempfile::NamedTempFile::new_in(tmp).map_err(fail)?;
                io::copy(
                    &mut layer::decoder(other, &mut reader).map_err(fail)?,
                    &mut copy,
                )
                .map_err(fail)?;
                Some(copy)
            }
        };
        let tar = temporary
            .as_ref()
            .map_or_else(|| path.to_owned(), |copy| copy.path().to_owned());
        let mut archive = Self {
            name: path.to_owned(),
            files: index(&tar).map_err(fail)?,
            tar,
            _temporary: temporary,
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

    /// Finds the image that `reference` names, or the only one, for one platform.
    ///
    /// # Errors
    /// When it is not there, or a document on the way is damaged.
    pub fn find(&self, reference: Option<&str>, platform: &Platform) -> Result<Found, SourceError> {
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
    pub fn root(&self, reference: Option<&str>) -> Result<Root, SourceError> {
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
                        path: self.tar.clone(),
                        range: Some((offset, size)),
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
        let member = self.member(&format!("blobs/sha256/{}", descriptor.digest.hex()))?;
        Ok(piece(descriptor, member.path, member.range, member.what))
    }
}

/// Lists the files and links of a tar, by normalised name.
fn index(path: &Path) -> io::Result<BTreeMap<String, Member>> {
    let mut files = BTreeMap::new();
    let mut archive = tar::Archive::new(File::open(path)?);
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        let Ok(name) = layer::LayerPath::parse_bytes(&entry.path_bytes()) else {
            continue;
        };
        let member = match entry.header().entry_type() {
            tar::EntryType::Regular | tar::EntryType::Continuous => Member::File {
                offset: entry.raw_file_position(),
                size: entry.size(),
            },
            tar::EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default();
                let folder = name.parent().unwrap_or_default();
                match relative(&folder, &String::from_utf8_lossy(&target)) {
                    Some(target) => Member::Link(target),
                    None => continue,
                }
            }
            tar::EntryType::Link => Member::Link(
                String::from_utf8_lossy(&entry.link_name_bytes().unwrap_or_default()).into(),
            ),
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
