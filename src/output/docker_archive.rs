//! `docker-archive:FILE`: an OCI layout that is what `docker load` reads, too. Docker 25 and containerd write the same.
//!
//! It is the archive of a layout with a `manifest.json` beside the index, whose configs and layers are the layout's own
//! blobs. Such an archive has one platform of each image. The index has an entry for each full name, as containerd wants
//! it: `io.containerd.image.name` is the name, and `org.opencontainers.image.ref.name` the bare image tag.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use super::archive::{self, Archive};
use super::attached::left_out;
use super::{Kind, Needs, Output, OutputError, Place, Report, Sink, Supply, ours};
use crate::graph::{Image, Origin};
use crate::oci::{
    Annotations, CONTAINERD_NAME, Compression, DiffId, Digest, Index, Platform, REF_NAME, Reference,
};
use crate::store::Blob;

/// The kind of sink.
pub(super) const KIND: Kind = Kind {
    word: "docker-archive",
    place: Some("FILE"),
    make: |place| Arc::new(ToDockerArchive(place)),
};

/// An OCI image layout as one tar, of one platform, with what Docker reads besides.
struct ToDockerArchive(Place);

impl fmt::Display for ToDockerArchive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "docker-archive:{}", self.0)
    }
}

impl Sink for ToDockerArchive {
    fn paths(&self) -> Vec<PathBuf> {
        archive::paths(&self.0)
    }

    fn needs(&self) -> Needs {
        Needs::Bytes
    }

    fn check(&self) -> Result<(), OutputError> {
        archive::check_place(&self.0, archive::check)
    }

    fn check_images(&self, images: &[Planned<'_>], host: &Platform) -> Result<(), OutputError> {
        Planned::check(images, host)
    }

    fn write(&self, images: &[Output], supply: &Supply<'_>) -> Result<Vec<Report>, OutputError> {
        note_zstd(images, supply.note);
        left_out(images, &self.to_string(), supply.note);
        let docker = DockerArchive::new(images, supply.host)?;
        archive::write(&self.0, &docker.archive(), supply)?;
        (supply.note)(&format!("written {self}"));
        Ok(Vec::new())
    }
}

/// Warns of layers that an old Docker cannot read.
fn note_zstd(images: &[Output], note: &dyn Fn(&str)) {
    for image in images {
        let of_platforms = image.images().into_iter();
        let mut layers = of_platforms.flat_map(|(_, image)| &image.layers);
        if layers.any(|it| it.descriptor.media_type.compression() == Some(Compression::Zstd)) {
            let name = &image.name;
            note(&format!(
                "{name} has layers in zstd, which Docker reads since version 23"
            ));
        }
    }
}

/// What is in an archive for Docker.
pub(super) struct DockerArchive<'a> {
    /// What was picked of each image.
    pub(super) images: Vec<Picked<'a>>,
}

/// One platform of an image, with its names.
#[derive(Clone, Debug)]
pub(super) struct Picked<'a> {
    /// The name of the target.
    pub(super) target: &'a str,
    /// The platform.
    pub(super) platform: Platform,
    /// The full names, as `docker.io/library/app:latest`.
    pub(super) names: BTreeSet<Reference>,
    /// The image.
    pub(super) image: &'a Image,
    /// The diff_ids of the layers, bottom first.
    pub(super) diff_ids: Vec<DiffId>,
}

/// An entry of `manifest.json` (Docker's image spec 1.2, "Combined Image JSON + Filesystem Changeset Format").
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

impl<'a> DockerArchive<'a> {
    /// Picks images for an archive. Of several platforms, that of `host` is picked.
    ///
    /// # Errors
    /// When an image has several platforms and none is the host's, or a name that Docker does not take.
    pub(super) fn new(outputs: &'a [Output], host: &Platform) -> Result<Self, OutputError> {
        let all: Vec<_> = outputs.iter().map(Output::images).collect();
        let planned = outputs.iter().zip(&all).map(|(output, images)| Planned {
            is_pushed: true,
            target: &output.name,
            repository: output.repository.as_deref(),
            tags: &output.tags,
            platforms: images.iter().map(|it| it.0.clone()).collect(),
            origin: None,
        });
        let planned: Vec<Planned<'_>> = planned.collect();
        Planned::check(&planned, host)?;
        let mut images = Vec::new();
        for ((planned, all), output) in planned.iter().zip(&all).zip(outputs) {
            let at = pick(planned.target, &planned.platforms, host)?;
            let (platform, image) = (&all[at].0, all[at].1);
            images.push(Picked {
                target: &output.name,
                platform: platform.clone(),
                names: planned.names()?,
                image,
                diff_ids: image.layers.iter().map(|layer| layer.diff_id).collect(),
            });
        }
        Ok(Self { images })
    }

    /// Lays the archive out, with all that it holds.
    pub(super) fn archive(&self) -> Archive {
        lay_out(self.images.iter(), &BTreeSet::new())
    }
}

impl Picked<'_> {
    /// Returns its full names as texts.
    pub(super) fn full_names(&self) -> Vec<String> {
        self.names.iter().map(ToString::to_string).collect()
    }

    /// Tells whether any layer is zstd.
    pub(super) fn has_zstd(&self) -> bool {
        let mut layers = self.image.layers.iter();
        layers.any(|it| it.descriptor.media_type.compression() == Some(Compression::Zstd))
    }

    /// Returns all its blobs.
    pub(super) fn blobs(&self) -> impl Iterator<Item = Blob> {
        self.image.documents().into_iter().chain(local(self.image))
    }
}

/// Lays an archive of some images out, without some blobs.
pub(super) fn lay_out<'a>(
    images: impl Iterator<Item = &'a Picked<'a>>,
    left_out: &BTreeSet<Digest>,
) -> Archive {
    let mut manifests = BTreeMap::new();
    let mut entries = Vec::new();
    let mut blobs = BTreeSet::new();
    for picked in images {
        for name in &picked.names {
            let mut descriptor = picked.image.manifest.clone();
            let tag = name.tag.clone().unwrap_or_default();
            descriptor.annotations = Annotations::from([
                (CONTAINERD_NAME.to_owned(), name.to_string()),
                (REF_NAME.to_owned(), tag),
            ]);
            manifests.insert(name.clone(), descriptor);
        }
        entries.push(Entry::new(picked.image, &picked.full_names()));
        blobs.extend(picked.blobs().filter(|it| !left_out.contains(&it.digest)));
    }
    let index = Index::new(manifests.into_values().collect(), ours());
    let list = serde_json::to_vec(&entries).expect("entries have string keys only");
    Archive::new(&index, &[("manifest.json", list)], &blobs)
}

impl Entry {
    fn new(image: &Image, names: &[String]) -> Self {
        let path = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
        let layers = image.layers.iter();
        Self {
            config: path(&image.config.digest),
            repo_tags: names.to_vec(),
            layers: layers.map(|layer| path(&layer.descriptor.digest)).collect(),
        }
    }
}

/// Returns the layers that are kept with the image.
fn local(image: &Image) -> impl Iterator<Item = Blob> {
    let layers = image.layers.iter();
    let own = layers.filter(|layer| layer.descriptor.urls.is_empty());
    own.map(|layer| layer.blob())
}

/// Returns which of an image's platforms goes where only one can go: the only one, or the host's.
pub(super) fn pick(
    target: &str,
    platforms: &[Platform],
    host: &Platform,
) -> Result<usize, OutputError> {
    let found = match platforms {
        [_] => Some(0),
        _ => platforms.iter().position(|it| it.matches(host)),
    };
    found.ok_or_else(|| OutputError::Platform {
        name: target.to_owned(),
        wanted: host.to_string(),
        have: platforms.iter().map(ToString::to_string).collect(),
    })
}

/// What an image is called, and which platforms it has: known before it is built.
#[derive(Clone, Debug)]
pub(crate) struct Planned<'a> {
    /// The name of the target.
    pub(crate) target: &'a str,
    /// Registry and repository, if the manifest says.
    pub(crate) repository: Option<&'a str>,
    /// The image tags.
    pub(crate) tags: &'a [String],
    /// Whether it goes to registries.
    pub(crate) is_pushed: bool,
    /// The platforms.
    pub(crate) platforms: Vec<Platform>,
    /// Its place in the manifest, where it comes from one.
    pub(crate) origin: Option<Origin>,
}

impl Planned<'_> {
    /// Makes sure that an archive for Docker can hold all of some images.
    ///
    /// # Errors
    /// When an image has several platforms and none is the host's, or a name that Docker does not take or another image
    /// has: of two, one would be lost.
    pub(crate) fn check(images: &[Self], host: &Platform) -> Result<(), OutputError> {
        let mut seen: BTreeMap<Reference, &str> = BTreeMap::new();
        for image in images {
            pick(image.target, &image.platforms, host)?;
            for name in image.names()? {
                let text = name.to_string();
                if let Some(first) = seen.insert(name, image.target) {
                    return Err(OutputError::Twice {
                        first: first.to_owned(),
                        second: image.target.to_owned(),
                        name: text,
                    });
                }
            }
        }
        Ok(())
    }

    /// Returns the full names, sorted: the repository with each image tag, or the name of the target in place of a
    /// repository.
    fn names(&self) -> Result<BTreeSet<Reference>, OutputError> {
        // As it stands, `member:target` would be an image tag.
        let name = self.repository.map(str::to_owned);
        let name = name.unwrap_or_else(|| self.target.replace(':', "/"));
        let latest = ["latest".to_owned()];
        let tags = match self.tags {
            [] => &latest,
            tags => tags,
        };
        let parse = |tag: &String| {
            let full = format!("{name}:{tag}").parse::<Reference>();
            full.map_err(|why| OutputError::Name {
                name: name.clone(),
                why,
            })
        };
        tags.iter().map(parse).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(images: &[(&str, Option<&str>, &[&str])], host: &str) -> Result<(), String> {
        let tags = ["v1".to_owned(), "v2".to_owned()];
        let parse = |text: &&str| text.parse::<Platform>().unwrap();
        let platforms: Vec<Vec<Platform>> = images
            .iter()
            .map(|(_, _, platforms)| platforms.iter().map(parse).collect())
            .collect();
        let planned: Vec<Planned<'_>> = images
            .iter()
            .zip(platforms)
            .map(|(&(target, repository, _), platforms)| Planned {
                is_pushed: true,
                target,
                repository,
                tags: &tags,
                platforms,
                origin: None,
            })
            .collect();
        Planned::check(&planned, &parse(&host)).map_err(|error| error.to_string())
    }

    #[test]
    fn the_host_decides_between_several() {
        let two: &[&str] = &["linux/amd64", "linux/arm64/v8"];
        assert_eq!(check(&[("a", None, two)], "linux/arm64"), Ok(()));
        assert_eq!(
            check(&[("a", None, &["linux/s390x"])], "linux/arm64"),
            Ok(())
        );
        let error = check(&[("a", None, two)], "linux/riscv64").unwrap_err();
        assert_eq!(
            error,
            "`a` has no image for linux/riscv64; it has linux/amd64, linux/arm64/v8"
        );
    }

    #[test]
    fn names_are_docker_s_and_no_two_are_one() {
        let one: &[&str] = &["linux/amd64"];
        let host = "linux/amd64";
        assert_eq!(
            check(&[("web:app", None, one), ("app", None, one)], host),
            Ok(())
        );
        let error = check(&[("a..b", None, one)], host).unwrap_err();
        assert!(
            error.starts_with("Docker cannot call an image `a..b`"),
            "{error}"
        );
        let both = Some("r.example/app");
        let error = check(&[("a", both, one), ("b", both, one)], host).unwrap_err();
        assert_eq!(error, "`a` and `b` would both be called r.example/app:v1");
    }
}
