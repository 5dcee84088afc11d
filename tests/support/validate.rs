//! An independent checker of OCI image layouts, as folders and as archives. It shares no code with what it checks: it
//! recomputes every digest, size and diff_id, and reads tar by itself. Knows nothing of manifests in TOML.
//!
//! Layers that imgdecl made are also held to the byte contract, format 1; layers of bases are not.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::Path;

use serde_json::Value;
use sha2::{Digest, Sha256};

const MIB: u64 = 1 << 20;
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const REF_NAME: &str = "org.opencontainers.image.ref.name";
const FULL_NAME: &str = "io.containerd.image.name";

/// All that a layout holds.
#[derive(Debug)]
pub(crate) struct Layout {
    /// The images by name; by digest where an image has no name.
    pub(crate) images: BTreeMap<String, Image>,
    /// The manifests of documents about images.
    pub(crate) documents: Vec<Value>,
}

/// An image of a layout: a manifest, or an index over manifests.
#[derive(Debug)]
pub(crate) struct Image {
    /// The digest of the manifest or index.
    pub(crate) digest: String,
    /// One for each platform, in the order of the index.
    pub(crate) platforms: Vec<PlatformImage>,
}

/// The image of one platform.
#[derive(Debug)]
pub(crate) struct PlatformImage {
    /// As `linux/arm64/v8`.
    pub(crate) platform: String,
    pub(crate) digest: String,
    pub(crate) manifest: Value,
    pub(crate) config: Value,
    pub(crate) layers: Vec<Layer>,
}

/// A layer, uncompressed.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) diff_id: String,
    /// What the history says of it.
    pub(crate) created_by: String,
    pub(crate) entries: Vec<Entry>,
}

/// A tar entry.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// As it is written; a folder's ends in `/`.
    pub(crate) path: String,
    /// The type flag: `0` file, `1` hard link, `2` symlink, `5` folder.
    pub(crate) kind: char,
    pub(crate) mode: u64,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) size: u64,
    pub(crate) mtime: u64,
    pub(crate) link: String,
    /// The digest of the content, without `sha256:`.
    pub(crate) sha256: String,
    /// The PAX records, in their order.
    pub(crate) pax: Vec<(String, Vec<u8>)>,
    /// The size of all its headers.
    header: u64,
}

/// Checks a layout, a folder or an archive, and returns what it holds.
///
/// Panics where anything is wrong.
#[track_caller]
pub(crate) fn validate(path: &Path) -> Layout {
    check(path).unwrap_or_else(|error| panic!("{} is no valid layout: {error}", path.display()))
}

type Result<T> = std::result::Result<T, String>;

/// Fails with a message unless the condition holds.
macro_rules! must {
    ($condition:expr, $($message:tt)*) => {
        if !$condition {
            return Err(format!($($message)*));
        }
    };
}

/// The files of a layout by path, and the digests that something refers to.
struct Files {
    files: BTreeMap<String, Vec<u8>>,
    used: BTreeSet<String>,
    schemas: Option<boon_schemas::Schemas>,
}

fn check(path: &Path) -> Result<Layout> {
    let mut files = BTreeMap::new();
    if path.is_dir() {
        read_folder(path, "", &mut files)?;
    } else {
        read_archive(path, &mut files)?;
    }
    let mut files = Files {
        files,
        used: BTreeSet::new(),
        schemas: boon_schemas::Schemas::load(),
    };
    for (name, bytes) in &files.files {
        if let Some(hex) = name.strip_prefix("blobs/sha256/") {
            must!(
                sha256(bytes) == hex,
                "{name} has other content than its name says"
            );
        } else {
            let known = ["oci-layout", "index.json"].contains(&name.as_str());
            let for_docker = name == "manifest.json" && path.is_file();
            must!(known || for_docker, "{name} does not belong into a layout");
        }
    }
    let marker = files.document("oci-layout", "layout")?;
    must!(
        marker["imageLayoutVersion"] == "1.0.0",
        "oci-layout says {marker}"
    );
    let index = files.document("index.json", "index")?;
    check_index(&index, "index.json")?;
    let is_docker = files.files.contains_key("manifest.json");
    if is_docker {
        files.check_docker(&index)?;
    }

    let mut images = BTreeMap::new();
    let (documents, entries): (Vec<&Value>, Vec<&Value>) = list(&index["manifests"])
        .iter()
        .partition(|it| it["artifactType"].is_string());
    for descriptor in entries {
        let digest = text(&descriptor["digest"])?;
        let annotation = &descriptor["annotations"][REF_NAME];
        let mut name = annotation.as_str().unwrap_or(&digest).to_owned();
        if is_docker {
            // The names are full there: the last part is the target's, where no repository says otherwise.
            let full = text(&descriptor["annotations"][FULL_NAME])?;
            let repository = full.rsplit_once(':').map_or(&*full, |(before, _)| before);
            name = repository.rsplit('/').next().unwrap_or_default().to_owned();
            if images
                .get(&name)
                .is_some_and(|it: &Image| it.digest == digest)
            {
                continue;
            }
        }
        let mut platforms = Vec::new();
        files.follow(descriptor, &mut platforms)?;
        let old = images.insert(name.clone(), Image { digest, platforms });
        must!(old.is_none(), "two images have the name {name}");
    }
    let documents: Result<Vec<Value>> =
        documents.into_iter().map(|it| files.attached(it)).collect();
    let documents = documents?;
    for name in files.files.keys() {
        if let Some(hex) = name.strip_prefix("blobs/sha256/") {
            must!(files.used.contains(hex), "nothing refers to {name}");
        }
    }
    Ok(Layout { images, documents })
}

impl Files {
    /// Checks what Docker reads of an archive: it must agree with the index, entry by entry.
    fn check_docker(&self, index: &Value) -> Result<()> {
        let list: Vec<Value> = serde_json::from_slice(&self.files["manifest.json"])
            .map_err(|error| format!("manifest.json: {error}"))?;
        let mut names = 0;
        for entry in &list {
            let tags = entry["RepoTags"].as_array().map_or(&[][..], Vec::as_slice);
            must!(!tags.is_empty(), "manifest.json: {entry} has no name");
            names += tags.len();
            for tag in tags {
                let found = index["manifests"].as_array().and_then(|all| {
                    let mut all = all.iter();
                    all.find(|it| it["annotations"][FULL_NAME] == *tag)
                });
                let found = found.ok_or(format!("index.json lacks {tag}"))?;
                let bare = text(tag)?;
                let bare = bare.rsplit(':').next();
                must!(
                    found["annotations"][REF_NAME].as_str() == bare,
                    "{found} has another ref.name than its image tag"
                );
                let digest = text(&found["digest"])?.replace("sha256:", "blobs/sha256/");
                let manifest = self
                    .files
                    .get(&digest)
                    .ok_or(format!("{digest} is missing"))?;
                let manifest: Value =
                    serde_json::from_slice(manifest).map_err(|error| error.to_string())?;
                let path = |descriptor: &Value| {
                    let digest = descriptor["digest"].as_str().unwrap_or_default();
                    digest.replace("sha256:", "blobs/sha256/")
                };
                let layers = manifest["layers"].as_array().map_or(&[][..], Vec::as_slice);
                let layers: Vec<String> = layers.iter().map(path).collect();
                must!(
                    entry["Config"] == path(&manifest["config"])
                        && entry["Layers"] == serde_json::json!(layers),
                    "manifest.json says {entry}, and the manifest {manifest}"
                );
            }
        }
        let all = index["manifests"].as_array().map_or(0, Vec::len);
        must!(
            all == names,
            "manifest.json has {names} names, and index.json {all}"
        );
        Ok(())
    }

    /// Reads a JSON file, and checks it against its schema where there are schemas.
    fn document(&self, name: &str, schema: &str) -> Result<Value> {
        let bytes = self.files.get(name).ok_or(format!("{name} is missing"))?;
        let value = serde_json::from_slice(bytes).map_err(|error| format!("{name}: {error}"))?;
        if let Some(schemas) = &self.schemas {
            schemas
                .check(schema, &value)
                .map_err(|error| format!("{name}: {error}"))?;
        }
        Ok(value)
    }

    /// Finds the blob of a descriptor, and checks its size. Its digest is that of the file's name.
    fn blob(&mut self, descriptor: &Value) -> Result<String> {
        let digest = text(&descriptor["digest"])?;
        let hex = digest
            .strip_prefix("sha256:")
            .ok_or(format!("{digest} is not sha256"))?;
        let name = format!("blobs/sha256/{hex}");
        let bytes = self
            .files
            .get(&name)
            .ok_or(format!("blob {digest} is missing"))?;
        let size = descriptor["size"].as_u64();
        must!(
            size == Some(bytes.len() as u64),
            "{digest} has {} bytes, its descriptor says {size:?}",
            bytes.len()
        );
        self.used.insert(hex.to_owned());
        Ok(name)
    }

    /// Follows a descriptor of a manifest or an index.
    fn follow(&mut self, descriptor: &Value, images: &mut Vec<PlatformImage>) -> Result<()> {
        let name = self.blob(descriptor)?;
        match descriptor["mediaType"].as_str() {
            Some(kind @ (INDEX | DOCKER_LIST)) => {
                let expected = if kind == INDEX {
                    MANIFEST
                } else {
                    DOCKER_MANIFEST
                };
                let index = self.document(&name, "index")?;
                check_index(&index, &name)?;
                let entries = list(&index["manifests"]);
                must!(!entries.is_empty(), "{name} has no manifests");
                for entry in entries {
                    must!(
                        entry["mediaType"] == expected,
                        "{name} has an entry {entry}"
                    );
                    must!(
                        entry["platform"].is_object(),
                        "{name} has no platform for {entry}"
                    );
                    self.follow(entry, images)?;
                }
                let mut platforms = BTreeSet::new();
                for image in images {
                    let platform = &image.platform;
                    must!(
                        platforms.insert(platform.clone()),
                        "{name} has {platform} twice"
                    );
                }
                Ok(())
            }
            Some(MANIFEST | DOCKER_MANIFEST) => {
                let image = self.image(&name, descriptor)?;
                images.push(image);
                Ok(())
            }
            other => Err(format!("{name} has the media type {other:?}")),
        }
    }

    /// Checks what is attached to something of the layout (image-spec, manifest.md, "Guidelines for Artifact Usage").
    fn attached(&mut self, descriptor: &Value) -> Result<Value> {
        let name = self.blob(descriptor)?;
        must!(
            descriptor["mediaType"] == MANIFEST && descriptor["platform"].is_null(),
            "{name} is attached as {descriptor}"
        );
        for key in [REF_NAME, FULL_NAME] {
            must!(
                descriptor["annotations"][key].is_null(),
                "{name} has the name of an image"
            );
        }
        let manifest = self.document(&name, "manifest")?;
        must!(manifest["schemaVersion"] == 2, "{name}: schemaVersion");
        must!(
            manifest["mediaType"] == MANIFEST
                && manifest["artifactType"] == descriptor["artifactType"],
            "{name} is another kind of manifest than its descriptor says"
        );
        let subject = self.blob(&manifest["subject"])?;
        let kind = manifest["subject"]["mediaType"].as_str();
        let schema = match kind {
            Some(INDEX | DOCKER_LIST) => "index",
            _ => "manifest",
        };
        let about = self.document(&subject, schema)?;
        must!(
            about["mediaType"].as_str() == kind,
            "{name} is about something else than {subject}"
        );
        must!(
            manifest["config"]["mediaType"] == EMPTY && manifest["config"]["size"] == 2,
            "{name} has the config {}",
            manifest["config"]
        );
        self.blob(&manifest["config"])?;
        let layers = list(&manifest["layers"]);
        must!(!layers.is_empty(), "{name} has no document");
        for layer in layers {
            self.blob(layer)?;
        }
        Ok(manifest)
    }

    fn image(&mut self, name: &str, descriptor: &Value) -> Result<PlatformImage> {
        let manifest = self.document(name, "manifest")?;
        must!(manifest["schemaVersion"] == 2, "{name}: schemaVersion");
        must!(
            manifest["mediaType"] == descriptor["mediaType"],
            "{name} has another mediaType than its descriptor"
        );
        let is_docker = manifest["mediaType"] == DOCKER_MANIFEST;
        let config_type = if is_docker { DOCKER_CONFIG } else { CONFIG };
        must!(
            manifest["config"]["mediaType"] == config_type,
            "{name}: media type of the config"
        );
        must!(
            !is_docker || manifest["annotations"].is_null(),
            "{name} has annotations, which Docker's manifests have not"
        );
        let config_name = self.blob(&manifest["config"])?;
        let config = self.document(&config_name, "config")?;
        let platform = &descriptor["platform"];
        if platform.is_object() {
            for key in ["os", "architecture", "variant", "os.version"] {
                must!(
                    platform[key] == config[key],
                    "{config_name} has {key} {}, the index says {}",
                    config[key],
                    platform[key]
                );
            }
        }
        let parts = ["os", "architecture", "variant"].map(|key| config[key].as_str());
        must!(
            parts[0].is_some() && parts[1].is_some(),
            "{config_name} has no platform"
        );
        must!(
            config["rootfs"]["type"] == "layers",
            "{config_name}: rootfs.type"
        );

        let layers = list(&manifest["layers"]);
        let diff_ids = list(&config["rootfs"]["diff_ids"]);
        must!(
            layers.len() == diff_ids.len(),
            "{name} has {} layers and {} diff_ids",
            layers.len(),
            diff_ids.len()
        );
        let history: Vec<&Value> = list(&config["history"])
            .iter()
            .filter(|entry| entry["empty_layer"] != true)
            .collect();
        must!(
            history.len() == layers.len(),
            "{config_name} has {} layers and {} history entries with a layer",
            layers.len(),
            history.len()
        );
        let mut found = Vec::new();
        for layer in layers {
            let media_type = text(&layer["mediaType"])?;
            must!(
                media_type.starts_with(DOCKER_LAYER) == is_docker,
                "{name} mixes media types of OCI and Docker: {media_type}"
            );
        }
        for ((layer, diff_id), history) in layers.iter().zip(diff_ids).zip(history) {
            let created_by = history["created_by"].as_str().unwrap_or_default();
            found.push(self.layer(layer, &text(diff_id)?, created_by)?);
        }
        Ok(PlatformImage {
            platform: parts.into_iter().flatten().collect::<Vec<_>>().join("/"),
            digest: text(&descriptor["digest"])?,
            manifest,
            config,
            layers: found,
        })
    }

    fn layer(&mut self, descriptor: &Value, diff_id: &str, created_by: &str) -> Result<Layer> {
        let name = self.blob(descriptor)?;
        let media_type = text(&descriptor["mediaType"])?;
        let ours = created_by.starts_with("imgdecl ");
        let bytes = &self.files[&name];
        let (tar, segments) =
            decompress(bytes, &media_type, ours).map_err(|error| format!("{name}: {error}"))?;
        must!(
            format!("sha256:{}", sha256(&tar)) == diff_id,
            "{name} unpacks to other bytes than its diff_id {diff_id} says"
        );
        let context = |error| format!("{name} ({created_by}): {error}");
        let (entries, end) = read_tar(&tar, ours).map_err(context)?;
        if ours {
            let tail = &tar[end..];
            must!(
                tail.len() == 1024 && tail.iter().all(|&byte| byte == 0),
                "{name} ends in {} bytes after its last entry, not in two zero blocks",
                tail.len()
            );
            // A wheel is a part of its own: where one ends and the next begins is not seen in the tar.
            let is_parted = created_by.starts_with("imgdecl pip ");
            check_format_1(&entries, is_parted).map_err(context)?;
            if let Some(segments) = segments {
                let expected = cuts(&entries);
                if is_parted {
                    check_parted_cuts(&entries, &segments).map_err(context)?;
                } else {
                    must!(
                        segments == expected,
                        "{name} is cut at {segments:?}, not at {expected:?}"
                    );
                }
            }
        }
        Ok(Layer {
            media_type,
            digest: text(&descriptor["digest"])?,
            diff_id: diff_id.to_owned(),
            created_by: created_by.to_owned(),
            entries,
        })
    }
}

fn check_index(index: &Value, name: &str) -> Result<()> {
    must!(
        index["schemaVersion"] == 2,
        "{name}: schemaVersion {}",
        index["schemaVersion"]
    );
    must!(
        index["mediaType"] == INDEX || (name != "index.json" && index["mediaType"] == DOCKER_LIST),
        "{name}: mediaType {}",
        index["mediaType"]
    );
    must!(index["manifests"].is_array(), "{name} has no manifests");
    Ok(())
}

/// Unpacks a layer as its media type says. For layers of ours, also checks how each segment begins, and returns the
/// sizes of the unpacked segments.
fn decompress(bytes: &[u8], media_type: &str, ours: bool) -> Result<(Vec<u8>, Option<Vec<u64>>)> {
    let kind = match media_type {
        DOCKER_LAYER => "",
        DOCKER_LAYER_GZIP => "+gzip",
        oci => oci
            .strip_prefix(LAYER)
            .ok_or(format!("{media_type} is no layer"))?,
    };
    let (mut tar, mut sizes, mut rest) = (Vec::new(), Vec::new(), bytes);
    match kind {
        "" => {
            must!(
                !bytes.starts_with(&[0x1f, 0x8b]),
                "gzip, and not a plain tar"
            );
            must!(
                !bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]),
                "zstd, and not a plain tar"
            );
            return Ok((bytes.to_vec(), None));
        }
        "+gzip" => {
            while !rest.is_empty() {
                must!(rest.starts_with(&[0x1f, 0x8b, 8]), "not gzip");
                must!(
                    !ours || rest.starts_with(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]),
                    "a gzip member has another header: {:x?}",
                    &rest[..rest.len().min(10)]
                );
                let before = tar.len();
                let mut decoder = flate2::bufread::GzDecoder::new(rest);
                decoder
                    .read_to_end(&mut tar)
                    .map_err(|error| error.to_string())?;
                rest = decoder.into_inner();
                sizes.push((tar.len() - before) as u64);
            }
        }
        "+zstd" => {
            while !rest.is_empty() {
                must!(rest.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]), "not zstd");
                let size = zstd::zstd_safe::find_frame_compressed_size(rest)
                    .map_err(|_| "a frame is damaged")?;
                let (frame, after) = rest.split_at(size);
                let content = zstd::decode_all(frame).map_err(|error| error.to_string())?;
                if ours {
                    let written = zstd::zstd_safe::get_frame_content_size(frame);
                    must!(
                        written.is_ok_and(|it| it == Some(content.len() as u64)),
                        "a frame does not say the size of its content"
                    );
                }
                sizes.push(content.len() as u64);
                tar.extend(content);
                rest = after;
            }
        }
        other => return Err(format!("{LAYER}{other} is no layer")),
    }
    Ok((tar, Some(sizes)))
}

/// Reads a tar archive: ustar, PAX, and the long names of GNU tar. Returns the entries, and where they end. With
/// `strict`, headers must be as format 1 says.
fn read_tar(tar: &[u8], strict: bool) -> Result<(Vec<Entry>, usize)> {
    let mut entries = Vec::new();
    let mut at = 0;
    let (mut pax, mut long, mut headers) = (Vec::<(String, Vec<u8>)>::new(), [None, None], 0);
    while at + 512 <= tar.len() {
        let block = &tar[at..at + 512];
        if block.iter().all(|&byte| byte == 0) {
            break;
        }
        let kind = char::from(block[156]);
        let field = |from: usize, length: usize| {
            let field = &block[from..from + length];
            &field[..field.iter().position(|&byte| byte == 0).unwrap_or(length)]
        };
        let number = |from: usize, length: usize| -> Result<u64> {
            let text =
                std::str::from_utf8(field(from, length)).map_err(|error| error.to_string())?;
            let digits = text.trim_matches(' ');
            match digits.is_empty() {
                true => Ok(0),
                false => u64::from_str_radix(digits, 8).map_err(|_| format!("{text} is not octal")),
            }
        };
        let sum: u64 = block
            .iter()
            .enumerate()
            .map(|(index, &byte)| {
                if (148..156).contains(&index) {
                    32
                } else {
                    u64::from(byte)
                }
            })
            .sum();
        must!(
            number(148, 8)? == sum,
            "the checksum of the header at {at} is wrong"
        );
        if strict {
            must!(
                &block[257..265] == b"ustar\x0000",
                "the magic of the header at {at} is wrong"
            );
            must!(
                block[265..329].iter().all(|&byte| byte == 0),
                "a uname or gname at {at}"
            );
            must!(
                number(329, 8)? == 0 && number(337, 8)? == 0,
                "a device number at {at}"
            );
            must!(
                block[500..].iter().all(|&byte| byte == 0),
                "bytes after the header at {at}"
            );
            must!("0125x".contains(kind), "an entry of type {kind} at {at}");
        }
        let mut size = number(124, 12)?;
        if kind != 'x' && kind != 'g' {
            for (key, value) in &pax {
                if key == "size" {
                    size = parse(value)?;
                }
            }
        }
        let start = at + 512;
        let end = start + usize::try_from(size).map_err(|error| error.to_string())?;
        must!(end <= tar.len(), "the entry at {at} ends after the archive");
        let content = &tar[start..end];
        let next = end.next_multiple_of(512);
        must!(next <= tar.len(), "the entry at {at} has no padding");
        must!(
            !strict || tar[end..next].iter().all(|&byte| byte == 0),
            "the padding of the entry at {at} is not zero"
        );
        headers += 512;
        at = next;
        match kind {
            'x' => {
                if strict {
                    let constant = field(0, 100) == b"././@PaxHeader"
                        && number(100, 8)? == 0o644
                        && number(108, 8)? + number(116, 8)? + number(136, 12)? == 0
                        && field(345, 155).is_empty();
                    must!(constant, "a PAX header's own fields are not the constants");
                }
                pax = records(content)?;
                headers += (next - start) as u64;
                continue;
            }
            'g' => continue,
            'L' | 'K' => {
                let end = content
                    .iter()
                    .position(|&byte| byte == 0)
                    .unwrap_or(content.len());
                let text = String::from_utf8_lossy(&content[..end]).into_owned();
                long[usize::from(kind == 'K')] = Some(text);
                continue;
            }
            _ => {}
        }
        let string = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let ustar = &block[257..263] == b"ustar\0";
        let mut path = match field(345, 155) {
            prefix if ustar && !prefix.is_empty() => {
                format!("{}/{}", string(prefix), string(field(0, 100)))
            }
            _ => string(field(0, 100)),
        };
        let mut link = string(field(157, 100));
        let [long_path, long_link] = std::mem::take(&mut long);
        path = long_path.unwrap_or(path);
        link = long_link.unwrap_or(link);
        let (mut uid, mut gid, mut mtime) = (number(108, 8)?, number(116, 8)?, number(136, 12)?);
        let records = std::mem::take(&mut pax);
        for (key, value) in &records {
            match key.as_str() {
                "path" => path = string(value),
                "linkpath" => link = string(value),
                "uid" => uid = parse(value)?,
                "gid" => gid = parse(value)?,
                "mtime" if strict => mtime = parse(value)?,
                _ => {}
            }
        }
        entries.push(Entry {
            path,
            kind: if kind == '\0' { '0' } else { kind },
            mode: number(100, 8)?,
            uid,
            gid,
            size,
            mtime,
            link,
            sha256: sha256(content),
            pax: records,
            header: std::mem::take(&mut headers),
        });
    }
    Ok((entries, at))
}

/// Reads the records of a PAX header.
fn records(mut content: &[u8]) -> Result<Vec<(String, Vec<u8>)>> {
    let mut records = Vec::new();
    while !content.is_empty() {
        let wrong = || "a PAX record is malformed".to_owned();
        let space = content
            .iter()
            .position(|&byte| byte == b' ')
            .ok_or_else(wrong)?;
        let length = usize::try_from(parse(&content[..space])?).map_err(|_| wrong())?;
        must!(
            length > space + 1 && length <= content.len(),
            "a PAX record is malformed"
        );
        must!(
            content[length - 1] == b'\n',
            "a PAX record does not end in a newline"
        );
        let record = &content[space + 1..length - 1];
        let equals = record
            .iter()
            .position(|&byte| byte == b'=')
            .ok_or_else(wrong)?;
        let key = String::from_utf8_lossy(&record[..equals]).into_owned();
        records.push((key, record[equals + 1..].to_vec()));
        content = &content[length..];
    }
    Ok(records)
}

/// Checks the order and the fields of a layer's entries: parts, folders first, no path twice, PAX only where needed.
fn check_format_1(entries: &[Entry], is_parted: bool) -> Result<()> {
    let mut folders = BTreeSet::from([""]);
    let mut files = BTreeMap::new();
    let mut last_folder = "";
    // The part an entry belongs to, then what it is sorted by.
    let mut last = (0, String::new());
    for entry in entries {
        let written = entry.path.as_str();
        let path = written.strip_suffix('/').unwrap_or(written);
        let wrong = |what: &str| Err(format!("{written}: {what}"));
        for part in path.split('/') {
            must!(
                !matches!(part, "" | "." | ".."),
                "{written:?} is not a normal path"
            );
        }
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        must!(
            folders.contains(parent),
            "{written} comes before its folder"
        );
        let is_whiteout = name.starts_with(".wh.");
        must!(
            written.ends_with('/') == (entry.kind == '5'),
            "{written} is of type {}",
            entry.kind
        );
        if entry.kind != '0' && entry.size != 0 {
            return wrong("a size without content");
        }
        if (entry.kind == '0' || entry.kind == '5') != entry.link.is_empty() {
            return wrong(
                "a link's text where there must be none, or none where there must be one",
            );
        }
        if entry.mode > 0o7777 {
            return wrong("mode has more than permission bits");
        }
        let new = match entry.kind {
            '5' => folders.insert(path),
            _ => files.insert(path, entry).is_none(),
        };
        if !new || (folders.contains(path) && files.contains_key(path)) {
            return wrong("stands there twice");
        }
        let order = match entry.kind {
            '5' => {
                last_folder = path;
                (0, format!("{path}\0"))
            }
            '0' if is_whiteout => {
                if parent != last_folder || entry.size != 0 {
                    return wrong("a whiteout must be empty and follow its folder");
                }
                (0, format!("{parent}\0{name}"))
            }
            '1' => {
                let Some(file) = files.get(entry.link.as_str()).filter(|it| it.kind == '0') else {
                    return wrong("a hard link to what is no file before it");
                };
                let same = |it: &Entry| (it.mode, it.uid, it.gid);
                if same(file) != same(entry) {
                    return wrong("a hard link with other mode or owner than its file");
                }
                (2, path.to_owned())
            }
            _ => (1, path.to_owned()),
        };
        let is_new_part = is_parted && last.0 > 0 && order.0 > 0;
        must!(
            last < order || is_new_part,
            "{written} is out of order, after {}",
            last.1
        );
        last = order;
        check_pax(entry)?;
    }
    Ok(())
}

/// Checks that the PAX records are sorted, and that each is needed.
fn check_pax(entry: &Entry) -> Result<()> {
    let path = &entry.path;
    let keys: Vec<&str> = entry.pax.iter().map(|(key, _)| key.as_str()).collect();
    must!(
        keys.is_sorted_by(|a, b| a < b),
        "{path}: PAX records {keys:?} are not sorted"
    );
    let splits = path.is_ascii()
        && (path.len() <= 100
            || path.match_indices('/').any(|(slash, _)| {
                slash > 0 && slash <= 155 && (1..=100).contains(&(path.len() - slash - 1))
            }));
    let needed = [
        ("path", !splits),
        ("linkpath", !entry.link.is_ascii() || entry.link.len() > 100),
        ("size", entry.size >= 8 << 30),
        ("uid", entry.uid > 2_097_151),
        ("gid", entry.gid > 2_097_151),
        ("mtime", entry.mtime >= 8 << 30),
    ];
    for (key, needed) in needed {
        must!(
            keys.contains(&key) == needed,
            "{path}: PAX record {key} is {}",
            if needed { "missing" } else { "not needed" }
        );
    }
    for key in keys {
        let known = needed.iter().any(|(name, _)| *name == key);
        must!(
            known || key.starts_with("SCHILY.xattr."),
            "{path}: PAX record {key}"
        );
    }
    Ok(())
}

/// Checks that segments end between entries, or inside the content of a large one.
fn check_parted_cuts(entries: &[Entry], segments: &[u64]) -> Result<()> {
    let mut at = 0;
    let mut inside = Vec::new();
    let mut starts = BTreeSet::new();
    for entry in entries {
        starts.insert(at);
        let content = at + entry.header;
        at = content + entry.size.next_multiple_of(512);
        if entry.size >= 64 << 10 {
            inside.push((content, at));
        }
    }
    starts.insert(at);
    let mut cut = 0;
    for segment in &segments[..segments.len().saturating_sub(1)] {
        cut += segment;
        let is_inside = inside.iter().any(|(from, to)| (*from..=*to).contains(&cut));
        must!(
            starts.contains(&cut) || is_inside,
            "a segment ends at {cut}, within a small entry"
        );
    }
    must!(
        segments.last() == Some(&1024) && cut == at,
        "the segments {segments:?} are not those of {at} bytes and the end"
    );
    Ok(())
}

/// Computes the sizes of the segments that a layer is cut into, from its entries alone.
fn cuts(entries: &[Entry]) -> Vec<u64> {
    let mut sizes = Vec::new();
    let mut open = 0;
    let mut close = |open: &mut u64| {
        if *open > 0 {
            sizes.push(*open);
        }
        *open = 0;
    };
    let in_part_0 = |entry: &Entry| {
        let name = entry.path.rsplit('/').next().unwrap_or_default();
        entry.kind == '5' || name.starts_with(".wh.")
    };
    let mut was_part_0 = true;
    for entry in entries {
        if was_part_0 && !in_part_0(entry) {
            was_part_0 = false;
            close(&mut open);
        }
        open += entry.header;
        if entry.size > MIB {
            close(&mut open);
            let mut left = entry.size;
            while left > MIB {
                open = MIB;
                close(&mut open);
                left -= MIB;
            }
            open = left.next_multiple_of(512);
            close(&mut open);
            continue;
        }
        open += entry.size.next_multiple_of(512);
        let path = entry.path.strip_suffix('/').unwrap_or(&entry.path);
        let is_cut = Sha256::digest(path.as_bytes())[0] < 16;
        if open >= MIB || (open >= 64 << 10 && is_cut) {
            close(&mut open);
        }
    }
    close(&mut open);
    sizes.push(1024);
    sizes
}

fn read_folder(folder: &Path, prefix: &str, files: &mut BTreeMap<String, Vec<u8>>) -> Result<()> {
    let fail = |error: std::io::Error| format!("{}: {error}", folder.display());
    for entry in fs::read_dir(folder).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let kind = entry.file_type().map_err(fail)?;
        if kind.is_dir() {
            must!(
                name == "blobs" || name == "blobs/sha256",
                "folder {name} does not belong there"
            );
            read_folder(&entry.path(), &format!("{name}/"), files)?;
        } else {
            must!(kind.is_file(), "{name} is no plain file");
            files.insert(name, fs::read(entry.path()).map_err(fail)?);
        }
    }
    Ok(())
}

fn read_archive(path: &Path, files: &mut BTreeMap<String, Vec<u8>>) -> Result<()> {
    let tar = fs::read(path).map_err(|error| error.to_string())?;
    // Contents lie at the end of each entry, in order: the offsets follow from the sizes.
    let (entries, end) = read_tar(&tar, true)?;
    must!(
        tar.len() == end + 1024,
        "{} bytes follow the last entry",
        tar.len() - end
    );
    let mut at = 0;
    for entry in entries {
        let start = at + entry.header as usize;
        let size = entry.size as usize;
        at = start + size.next_multiple_of(512);
        must!(
            (entry.mode, entry.uid, entry.gid, entry.mtime)
                == (if entry.kind == '5' { 0o755 } else { 0o644 }, 0, 0, 0),
            "{} has other facts than a constant's",
            entry.path
        );
        if entry.kind == '5' {
            must!(
                entry.path == "blobs/" || entry.path == "blobs/sha256/",
                "{}",
                entry.path
            );
            continue;
        }
        must!(entry.kind == '0', "{} is no plain file", entry.path);
        let content = tar[start..start + size].to_vec();
        let old = files.insert(entry.path.clone(), content);
        must!(old.is_none(), "{} stands there twice", entry.path);
    }
    Ok(())
}

fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn parse(digits: &[u8]) -> Result<u64> {
    let text = String::from_utf8_lossy(digits);
    text.parse().map_err(|_| format!("{text} is no number"))
}

fn text(value: &Value) -> Result<String> {
    let text = value.as_str().ok_or(format!("{value} is no string"))?;
    Ok(text.to_owned())
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The JSON schemas of the OCI image spec, where IMGDECL_SCHEMAS names their folder.
mod boon_schemas {
    use std::path::PathBuf;

    use serde_json::Value;

    const BASE: &str = "http://schemas.invalid/";

    pub(super) struct Schemas(PathBuf);

    impl Schemas {
        pub(super) fn load() -> Option<Self> {
            std::env::var_os("IMGDECL_SCHEMAS").map(|folder| Self(folder.into()))
        }

        /// Those of the runtime spec, which lie beside those of the image spec.
        pub(super) fn load_runtime() -> Option<Self> {
            let Self(folder) = Self::load()?;
            let folder = folder.parent()?.join("runtime-spec");
            folder.is_dir().then_some(Self(folder))
        }

        /// Checks a document against the schema of its kind.
        pub(super) fn check(&self, kind: &str, value: &Value) -> Result<(), String> {
            let mut compiler = boon::Compiler::new();
            compiler.set_default_draft(boon::Draft::V4);
            let folder = std::fs::read_dir(&self.0)
                .unwrap_or_else(|error| panic!("{}: {error}", self.0.display()));
            for entry in folder {
                let path = entry.expect("a folder of schemas").path();
                let name = path
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned();
                if !name.ends_with(".json") {
                    continue;
                }
                let bytes = std::fs::read(&path).expect("a schema");
                let mut schema = serde_json::from_slice(&bytes).expect("a schema is JSON");
                // The references are relative to the files, not to these identifiers.
                drop_ids(&mut schema);
                let url = format!("{BASE}{name}");
                compiler
                    .add_resource(&url, schema)
                    .map_err(|error| error.to_string())?;
            }
            let name = match kind {
                "config" => "config-schema.json".to_owned(),
                kind => format!("image-{kind}-schema.json"),
            };
            Self::compile(compiler, &name, value)
        }

        fn compile(mut compiler: boon::Compiler, name: &str, value: &Value) -> Result<(), String> {
            let mut schemas = boon::Schemas::new();
            let index = compiler
                .compile(&format!("{BASE}{name}"), &mut schemas)
                .map_err(|error| format!("{error:#}"))?;
            schemas
                .validate(value, index)
                .map_err(|error| format!("{error:#}"))
        }
    }

    fn drop_ids(value: &mut Value) {
        match value {
            Value::Object(map) => {
                if map.get("id").is_some_and(Value::is_string) {
                    map.remove("id");
                }
                map.values_mut().for_each(drop_ids);
            }
            Value::Array(list) => list.iter_mut().for_each(drop_ids),
            _ => {}
        }
    }
}

/// Checks a bundle's `config.json` against the schema of the runtime spec, where that is there.
#[track_caller]
pub(crate) fn check_runtime_config(config: &Value) {
    match boon_schemas::Schemas::load_runtime() {
        Some(schemas) => schemas
            .check("config", config)
            .unwrap_or_else(|error| panic!("config.json: {error}\n{config:#}")),
        None => eprintln!("skipped: needs IMGDECL_SCHEMAS, with runtime-spec beside it"),
    }
}

/// What the checker itself must find.
mod tests {
    use super::*;
    use crate::support::Space;

    /// Builds an image, lets `damage` work on its layout, and returns what the checker says.
    fn after(damage: impl Fn(&Path)) -> String {
        let space = Space::new();
        space.write(
            "image.toml",
            "[image.a]\nbase = \"scratch\"\nlayers = [{ files = { text = { \"/a/b\" = \"b\" } } }]\ncompression = \"none\"\n",
        );
        space.ok(&["build", "-o", "oci:out", "--progress", "none"]);
        let layout = space.path().join("out");
        damage(&layout);
        check(&layout).err().unwrap_or_default()
    }

    /// Rewrites a text in the file that has it; a blob keeps its name.
    fn edit(layout: &Path, from: &str, to: &str) {
        let mut files = BTreeMap::new();
        read_folder(layout, "", &mut files).expect("a layout");
        for (name, bytes) in files {
            let text = String::from_utf8_lossy(&bytes);
            if text.contains(from) {
                let path = layout.join(name);
                fs::remove_file(&path).expect("a file");
                fs::write(path, text.replacen(from, to, 1)).expect("a file");
                return;
            }
        }
        panic!("nothing has {from}");
    }

    #[test]
    fn damage_to_a_layout_is_found() {
        let says = |word: &str, text: String| assert!(text.contains(word), "{word}: {text}");
        assert_eq!(after(|_| {}), "");
        says(
            "other content",
            after(|layout| edit(layout, "imgdecl files", "imgdecl filez")),
        );
        says(
            "other content",
            after(|layout| edit(layout, "ustar", "uztar")),
        );
        says(
            "schemaVersion",
            after(|layout| {
                edit(
                    layout,
                    "\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.index",
                    "\"schemaVersion\":1,\"mediaType\":\"application/vnd.oci.image.index",
                )
            }),
        );
        says(
            "bytes, its descriptor",
            after(|layout| {
                let index = fs::read_to_string(layout.join("index.json")).expect("an index");
                let at = index.find("\"size\":").expect("a size") + 7;
                edit(layout, &index[at - 7..at + 1], "\"size\":9");
            }),
        );
        says(
            "does not belong",
            after(|layout| {
                fs::write(layout.join("index.json.partial"), "").expect("a file");
            }),
        );
        says(
            "does not belong",
            after(|layout| {
                fs::create_dir(layout.join("blobs/sha512")).expect("a folder");
            }),
        );
        says(
            "nothing refers to",
            after(|layout| {
                let name = sha256(b"stray");
                fs::write(layout.join("blobs/sha256").join(name), "stray").expect("a file");
            }),
        );
        says(
            "is missing",
            after(|layout| {
                let blobs = fs::read_dir(layout.join("blobs/sha256")).expect("blobs");
                let path = blobs.flatten().next().expect("a blob").path();
                fs::remove_file(path).expect("a blob");
            }),
        );
        says("oci-layout", after(|layout| edit(layout, "1.0.0", "2.0.0")));
    }

    fn entry(path: &str, kind: char) -> Entry {
        Entry {
            path: path.to_owned(),
            kind,
            mode: 0o644,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: 0,
            link: if kind == '1' || kind == '2' {
                "a/b".to_owned()
            } else {
                String::new()
            },
            sha256: String::new(),
            pax: Vec::new(),
            header: 512,
        }
    }

    #[test]
    fn breaches_of_format_1_are_found() {
        let check = |entries: &[(&str, char)]| {
            let entries: Vec<Entry> = entries
                .iter()
                .map(|(path, kind)| entry(path, *kind))
                .collect();
            check_format_1(&entries, false)
        };
        let good = [
            (".wh.x", '0'),
            ("a/", '5'),
            ("a/.wh.y", '0'),
            ("a-b/", '5'),
            ("a/c/", '5'),
            ("a-b/z", '2'),
            ("a/b", '0'),
            ("a/c/d", '0'),
            ("a/a", '1'),
        ];
        assert_eq!(check(&good), Ok(()));
        for bad in [
            &[("a/b", '0')][..],
            &[("./a", '0')],
            &[("/a", '0')],
            &[("a/", '5'), ("a/../b", '0')],
            &[("b", '0'), ("a", '0')],
            &[("a", '0'), ("a", '0')],
            &[("a/", '5'), ("a", '0')],
            &[("b", '0'), ("a/", '5')],
            &[("b/", '5'), ("a/", '5')],
            &[("a", '5')],
            &[("a/", '0')],
            &[("a/", '5'), ("b/", '5'), ("a/.wh.x", '0')],
            &[("a", '0'), (".wh.x", '0')],
            &[("a/", '5'), ("a/a", '1'), ("a/b", '0')],
            &[("a/", '5'), ("a/c", '1')],
        ] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
        let pax = |path: &str, keys: &[&str]| {
            let mut entry = entry(path, '0');
            entry.pax = keys
                .iter()
                .map(|key| ((*key).to_owned(), Vec::new()))
                .collect();
            check_pax(&entry)
        };
        assert_eq!(
            pax("a", &["SCHILY.xattr.user.a", "SCHILY.xattr.user.b"]),
            Ok(())
        );
        assert_eq!(pax("é", &["path"]), Ok(()));
        for (path, keys) in [
            ("a", &["path"][..]),
            ("é", &[]),
            ("a", &["atime"]),
            ("a", &["SCHILY.xattr.user.b", "SCHILY.xattr.user.a"]),
        ] {
            assert!(pax(path, keys).is_err(), "{path} {keys:?}");
        }
    }

    #[test]
    fn cuts_follow_from_the_entries() {
        let sized = |path: &str, size| Entry {
            size,
            ..entry(path, '0')
        };
        assert_eq!(cuts(&[]), [1024]);
        assert_eq!(
            cuts(&[entry("a/", '5'), sized("a/b", 1)]),
            [512, 1024, 1024]
        );
        assert_eq!(cuts(&[sized("a", MIB)]), [MIB + 512, 1024]);
        assert_eq!(cuts(&[sized("a", MIB + 1)]), [512, MIB, 512, 1024]);
        assert_eq!(
            cuts(&[sized("a", 2 * MIB), sized("b", 0)]),
            [512, MIB, MIB, 512, 1024]
        );
    }
}
