//! Images to put into a registry, or to push: small, and the same bytes each time.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use imgdecl::parts::oci::{Descriptor, Digest, MediaType};
use serde_json::{Value, json};

/// An image of one or several platforms, with all its bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Image {
    /// Configs and layers.
    pub(crate) blobs: Vec<Vec<u8>>,
    /// Media types and bytes of manifests, and of the index if there is one: it is the last.
    pub(crate) manifests: Vec<(String, Vec<u8>)>,
    /// What belongs together.
    pub(crate) parts: Vec<Part>,
}

/// An image of one platform.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) manifest: Descriptor,
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

/// The flavour of media types.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flavour {
    Oci,
    Docker,
}

impl Flavour {
    fn of(self, oci: &MediaType) -> MediaType {
        match (self, oci) {
            (Self::Oci, it) => it.clone(),
            (_, MediaType::OciManifest) => MediaType::DockerManifest,
            (_, MediaType::OciIndex) => MediaType::DockerList,
            (_, MediaType::OciConfig) => MediaType::DockerConfig,
            (_, MediaType::OciLayer) => MediaType::DockerLayer,
            (_, it) => panic!("there is no {it} of Docker's"),
        }
    }
}

impl Image {
    /// An image of one platform, whose layers are any bytes. Good for a registry, which does not look into them.
    pub(crate) fn of(layers: &[&[u8]]) -> Self {
        Self::single("linux/amd64", layers, json!({}), Flavour::Oci)
    }

    /// An image of one platform, with uncompressed layers. `config` is merged into the config.
    pub(crate) fn single(
        platform: &str,
        layers: &[&[u8]],
        config: Value,
        flavour: Flavour,
    ) -> Self {
        let mut words = platform.split('/');
        let diff_ids: Vec<String> = layers.iter().map(|it| Digest::of(it).to_string()).collect();
        let mut document = json!({
            "created": "1970-01-01T00:00:00Z",
            "os": words.next(), "architecture": words.next(),
            "config": {},
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        if let Some(variant) = words.next() {
            document["variant"] = variant.into();
        }
        for (key, value) in config.as_object().into_iter().flatten() {
            document[key] = value.clone();
        }
        let config = document.to_string().into_bytes();
        let kind = |it: MediaType| flavour.of(&it);
        let part = |kind: MediaType, bytes: &[u8]| Descriptor::of(kind, bytes);
        let config_of = part(kind(MediaType::OciConfig), &config);
        let layers_of = layers.iter().map(|it| part(kind(MediaType::OciLayer), it));
        let layers_of: Vec<Descriptor> = layers_of.collect();
        let media_type = kind(MediaType::OciManifest);
        let manifest = json!({
            "schemaVersion": 2, "mediaType": media_type, "config": config_of, "layers": layers_of,
        });
        let manifest = manifest.to_string().into_bytes();
        let mut blobs: Vec<Vec<u8>> = layers.iter().map(|it| it.to_vec()).collect();
        blobs.push(config);
        Self {
            blobs,
            parts: vec![Part {
                manifest: part(media_type.clone(), &manifest),
                config: config_of,
                layers: layers_of,
            }],
            manifests: vec![(media_type.to_string(), manifest)],
        }
    }

    /// An index of images for these platforms; `attested` adds an entry that is no image, as BuildKit writes it.
    pub(crate) fn index(images: &[(&str, Self)], attested: bool, flavour: Flavour) -> Self {
        let mut whole = Self::default();
        let mut entries = Vec::new();
        for (platform, image) in images {
            let mut words = platform.split('/');
            let mut entry = json!(image.root());
            entry["platform"] = json!({ "os": words.next(), "architecture": words.next() });
            if let Some(variant) = words.next() {
                entry["platform"]["variant"] = variant.into();
            }
            entries.push(entry);
            whole.blobs.extend(image.blobs.iter().cloned());
            whole.manifests.extend(image.manifests.iter().cloned());
            whole.parts.extend(image.parts.iter().cloned());
        }
        if attested {
            let statement = json!({ "_type": "https://in-toto.io/Statement/v0.1" });
            let layer = statement.to_string();
            let layers = [layer.as_bytes()];
            let image = Self::single("unknown/unknown", &layers, json!({}), Flavour::Oci);
            let mut entry = json!(image.root());
            entry["platform"] = json!({ "os": "unknown", "architecture": "unknown" });
            entry["annotations"] = json!({
                "vnd.docker.reference.type": "attestation-manifest",
                "vnd.docker.reference.digest": entries[0]["digest"],
            });
            entries.push(entry);
            whole.blobs.extend(image.blobs);
            whole.manifests.extend(image.manifests);
        }
        let media_type = flavour.of(&MediaType::OciIndex);
        let index = json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": entries });
        whole
            .manifests
            .push((media_type.to_string(), index.to_string().into_bytes()));
        whole
    }

    /// The image of a layout that has this name, or the only one.
    pub(crate) fn of_layout(folder: &Path, name: Option<&str>) -> Self {
        let read = |path: &Path| {
            fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        };
        let parse = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).expect("JSON");
        let index = parse(&read(&folder.join("index.json")));
        let entries = index["manifests"].as_array().expect("entries");
        let named = |it: &&Value| {
            name.is_none_or(|name| it["annotations"]["org.opencontainers.image.ref.name"] == name)
        };
        let entry = entries.iter().find(named).expect("an entry of that name");
        let mut image = Self::default();
        let mut queue = vec![entry.clone()];
        while let Some(entry) = queue.pop() {
            let text = entry["digest"].as_str().expect("a digest");
            let hex = text.strip_prefix("sha256:").expect("sha256");
            let bytes = read(&folder.join("blobs/sha256").join(hex));
            let kind = entry["mediaType"]
                .as_str()
                .expect("a media type")
                .to_owned();
            if kind.contains("manifest") || kind.contains("index") {
                let document = parse(&bytes);
                let list = |key: &str| document[key].as_array().cloned().unwrap_or_default();
                queue.extend(list("manifests"));
                queue.extend(document.get("config").cloned());
                queue.extend(list("layers"));
                image.manifests.insert(0, (kind, bytes));
            } else {
                image.blobs.push(bytes);
            }
        }
        image
    }

    /// What an image tag of it names.
    pub(crate) fn root(&self) -> Descriptor {
        let (kind, bytes) = self.manifests.last().expect("an image has a manifest");
        let kind = kind.parse().expect("any text is a media type");
        Descriptor::of(kind, bytes)
    }

    /// All its bytes, by digest.
    pub(crate) fn bytes(&self) -> BTreeMap<Digest, &[u8]> {
        let manifests = self.manifests.iter().map(|(_, bytes)| bytes);
        let all = self.blobs.iter().chain(manifests);
        all.map(|it| (Digest::of(it), it.as_slice())).collect()
    }
}

/// A layer with these files. A path that ends in `/` is a folder, and its text a mode, 0755 if empty; a text `-> TARGET`
/// makes a symlink.
pub(crate) fn layer(files: &BTreeMap<String, String>) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, text) in files {
        let mut header = tar::Header::new_ustar();
        let name = path.trim_matches('/');
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        let added = if let Some(target) = text.strip_prefix("-> ") {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_mode(0o777);
            header.set_size(0);
            builder.append_link(&mut header, name, target)
        } else if path.ends_with('/') {
            let mode = Some(text.as_str()).filter(|text| !text.is_empty());
            let mode = u32::from_str_radix(mode.unwrap_or("755"), 8);
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(mode.expect("an octal mode"));
            header.set_size(0);
            builder.append_data(&mut header, name, &[][..])
        } else {
            header.set_entry_type(tar::EntryType::Regular);
            header.set_mode(0o644);
            header.set_size(text.len() as u64);
            builder.append_data(&mut header, name, text.as_bytes())
        };
        added.expect("a path that fits");
    }
    builder.into_inner().expect("memory")
}
