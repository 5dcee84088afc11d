//! `docker-archive:FILE`: an OCI layout that is what `docker load` reads, too. Docker 25 and containerd write the same.
//!
//! It is the archive of a layout with a `manifest.json` beside the index, whose configs and layers are the layout's own
//! blobs. Such an archive has one platform of each image. The index has an entry for each full name, as containerd wants
//! it: `io.containerd.image.name` is the name, and `org.opencontainers.image.ref.name` the bare image tag.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::archive::Archive;
use super::{Output, OutputError, ours};
use crate::graph::Image;
use crate::oci::{
    Annotations, CONTAINERD_NAME, Compression, DiffId, Digest, Index, Platform, REF_NAME, Reference,
};
use crate::store::Blob;

/// An archive for Docker, and what is in it.
pub struct DockerArchive {
    /// The archive.
    pub archive: Archive,
    /// What was picked of each image.
    pub images: Vec<Picked>,
}

/// One platform of an image, with its names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Picked {
    /// The name of the target.
    pub target: String,
    /// The platform.
    pub platform: Platform,
    /// The full names, as `docker.io/library/app:latest`.
    pub names: Vec<String>,
    /// The digest of the manifest.
    pub manifest: Digest,
    /// The digest of the config.
    pub config: Digest,
    /// The diff_ids of the layers, bottom first.
    pub diff_ids: Vec<DiffId>,
    /// Whether any layer is zstd.
    pub has_zstd: bool,
}

/// An entry of `manifest.json` (Docker's image spec 1.2, "Combined Image JSON + Filesystem Changeset Format").
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

impl DockerArchive {
    /// Lays the archive out. Of an image of several platforms, that of `host` is picked.
    ///
    /// # Errors
    /// When an image has several platforms and none is the host's, or a name that Docker does not take.
    pub fn new(outputs: &[Output<'_>], host: &Platform) -> Result<Self, OutputError> {
        let mut images = Vec::new();
        let mut manifests = BTreeMap::new();
        let mut entries = Vec::new();
        let mut blobs = BTreeSet::new();
        let all: Vec<_> = outputs.iter().map(Output::images).collect();
        let platforms = all.iter().map(|images| {
            let platforms = images.iter().map(|(platform, _)| platform.clone());
            platforms.collect()
        });
        let platforms: Vec<Vec<Platform>> = platforms.collect();
        let planned = outputs
            .iter()
            .zip(&platforms)
            .map(|(output, platforms)| Planned {
                target: &output.name,
                repository: output.repository.as_deref(),
                tags: &output.tags,
                platforms,
            });
        let planned: Vec<Planned<'_>> = planned.collect();
        Planned::check(&planned, host)?;
        for (planned, all) in planned.iter().zip(&all) {
            let at = pick(planned.target, planned.platforms, host)?;
            let (platform, image) = (&all[at].0, all[at].1);
            let names = planned.names()?;
            for name in &names {
                let mut descriptor = image.manifest.clone();
                let tag = name.tag.clone().unwrap_or_default();
                descriptor.annotations = Annotations::from([
                    (CONTAINERD_NAME.to_owned(), name.to_string()),
                    (REF_NAME.to_owned(), tag),
                ]);
                manifests.insert(name.clone(), descriptor);
            }
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            entries.push(Entry::new(image, &names));
            blobs.extend(image.documents());
            blobs.extend(local(image));
            images.push(Picked {
                target: planned.target.to_owned(),
                platform: platform.clone(),
                names,
                manifest: image.manifest.digest,
                config: image.config.digest,
                diff_ids: image.layers.iter().map(|layer| layer.diff_id).collect(),
                has_zstd: image.layers.iter().any(|layer| {
                    layer.descriptor.media_type.compression() == Some(Compression::Zstd)
                }),
            });
        }
        let index = Index::new(manifests.into_values().collect(), ours());
        let list = serde_json::to_vec(&entries).expect("entries have string keys only");
        Ok(Self {
            archive: Archive::new(&index, &[("manifest.json", list)], &blobs),
            images,
        })
    }
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
fn pick(target: &str, platforms: &[Platform], host: &Platform) -> Result<usize, OutputError> {
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
#[derive(Clone, Copy, Debug)]
pub struct Planned<'a> {
    /// The name of the target.
    pub target: &'a str,
    /// Registry and repository, if the manifest says.
    pub repository: Option<&'a str>,
    /// The image tags.
    pub tags: &'a [String],
    /// The platforms.
    pub platforms: &'a [Platform],
}

impl Planned<'_> {
    /// Makes sure that an archive for Docker can hold all of some images.
    ///
    /// # Errors
    /// When an image has several platforms and none is the host's, or a name that Docker does not take or another image
    /// has: of two, one would be lost.
    pub fn check(images: &[Self], host: &Platform) -> Result<(), OutputError> {
        let mut seen: BTreeMap<Reference, &str> = BTreeMap::new();
        for image in images {
            pick(image.target, image.platforms, host)?;
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
            .zip(&platforms)
            .map(|(&(target, repository, _), platforms)| Planned {
                target,
                repository,
                tags: &tags,
                platforms,
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
