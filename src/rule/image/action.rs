//! Makes configs, manifests and indexes.

use std::sync::Arc;

use serde_json::json;

use super::edit::Edit;
use crate::graph::{Action, ActionError, Context, Image, Index, KeyWriter, Layer, Product};
use crate::layer::quoted;
use crate::oci::{
    Annotations, BASE_DIGEST, BASE_NAME, Config, Descriptor, Digest, Flavour, Index as OciIndex,
    Manifest, MediaType,
};
use crate::spec::Part;
use crate::store::Blob;

/// Makes the config and the manifest of an image. Inputs: the base or image below, if any, then the layers.
pub(super) struct ImageAction {
    pub(super) edit: Edit,
    pub(super) has_base: bool,
    pub(super) flavour: Flavour,
}

impl Action for ImageAction {
    fn name(&self) -> &'static str {
        "image"
    }

    fn version(&self) -> u32 {
        2
    }

    fn parameters(&self, key: &mut dyn KeyWriter) {
        let Edit {
            platform,
            base_name,
            created,
            annotations,
            env,
            replace,
            unite,
            entrypoint,
            cmd,
            commands,
            created_by,
        } = &self.edit;
        if self.flavour != Flavour::default() {
            key.field("media types", self.flavour.name());
        }
        key.field("platform", &platform.to_string());
        key.field("base name", base_name.as_deref().unwrap_or("-"));
        key.field("created", created);
        for (name, value) in annotations {
            key.field("annotation", &format!("{}={}", quoted(name), quoted(value)));
        }
        for (name, parts, _) in env {
            key.field("env", &format!("{name}={}", written(parts)));
        }
        for (field, value) in replace {
            key.field(field, &value.to_string());
        }
        for (field, values) in unite {
            for (name, value) in values {
                key.field(field, &format!("{}={value}", quoted(name)));
            }
        }
        key.field("entrypoint", &json!(entrypoint).to_string());
        key.field("cmd", &json!(cmd).to_string());
        for folder in commands {
            key.field("first in PATH", folder);
        }
        for created_by in created_by {
            key.field("created by", created_by);
        }
    }

    fn reads(&self, inputs: &[Product]) -> Vec<Blob> {
        match inputs.first() {
            Some(Product::Base(base)) => vec![base.config],
            Some(Product::Image(image)) => vec![image.config],
            _ => Vec::new(),
        }
    }

    fn run(&self, context: &Context<'_>, inputs: &[Product]) -> Result<Product, ActionError> {
        let (below, above) = inputs.split_at(usize::from(self.has_base));
        let read = |blob: &Blob| -> Result<Config, ActionError> {
            let bytes = context.read(blob)?;
            Config::parse(&bytes).map_err(|error| ActionError::of("imgdecl::image::config", &error))
        };
        let mut annotations = Annotations::new();
        let mut from = |name: &Option<String>, digest: Option<Digest>| {
            let digest = digest.map(|digest| digest.to_string());
            let known = [(BASE_NAME, name.clone()), (BASE_DIGEST, digest)];
            annotations.extend(
                known
                    .into_iter()
                    .filter_map(|(key, value)| Some((key.to_owned(), value?))),
            );
        };
        let (mut config, mut layers) = match below {
            [Product::Base(base)] => {
                from(&base.name, base.digest);
                (read(&base.config)?, base.layers.clone())
            }
            [Product::Image(image)] => {
                from(&self.edit.base_name, Some(image.manifest.digest));
                (read(&image.config)?, image.layers.clone())
            }
            _ => (Config::scratch(&self.edit.platform), Vec::new()),
        };
        annotations.extend(self.edit.annotations.clone());
        self.edit.apply(&mut config)?;
        let mut history = config.history();
        let new = above.iter().filter_map(|product| match product {
            Product::Layer(layer) => Some(layer.clone()),
            _ => None,
        });
        for (layer, created_by) in new.zip(&self.edit.created_by) {
            history.push(&json!({"created": self.edit.created, "created_by": created_by}));
            layers.push(layer);
        }
        let diff_ids: Vec<_> = layers.iter().map(|layer: &Layer| layer.diff_id).collect();
        config.set_diff_ids(&diff_ids);
        config.set_history(history);
        config.set_created(&self.edit.created);
        let platform = config
            .platform()
            .map_err(|error| ActionError::of("imgdecl::image::config", &error))?;

        for layer in &mut layers {
            layer.descriptor = convert(&layer.descriptor, self.flavour)?;
        }

        let config = context.store.put_blob(&config.to_bytes())?;
        let descriptor = Descriptor::new(MediaType::OciConfig, config.digest, config.size);
        let descriptors = layers
            .iter()
            .map(|layer| layer.descriptor.clone())
            .collect();
        let mut manifest = Manifest::new(
            convert(&descriptor, self.flavour)?,
            descriptors,
            annotations,
        );
        let mut media_type = MediaType::OciManifest;
        if self.flavour == Flavour::Docker {
            media_type = MediaType::DockerManifest;
            manifest.media_type = Some(media_type.clone());
            // Docker's manifests have none.
            manifest.annotations.clear();
        }
        let manifest = context.store.put_blob(&manifest.to_bytes())?;
        Ok(Product::Image(Arc::new(Image {
            manifest: Descriptor {
                platform: Some(platform),
                ..Descriptor::new(media_type, manifest.digest, manifest.size)
            },
            config,
            layers,
        })))
    }
}

/// Gives a config or layer the media type that it has in an image of a flavour. Its digest stays.
fn convert(descriptor: &Descriptor, flavour: Flavour) -> Result<Descriptor, ActionError> {
    let Some(media_type) = flavour.of(&descriptor.media_type) else {
        let message = format!(
            "the layer {} is {}, for which Docker has no media type",
            descriptor.digest, descriptor.media_type
        );
        return Err(ActionError::new("imgdecl::image::media_types", message)
            .help("build on a base whose layers are gzip, or leave media_types = \"docker\" out"));
    };
    let mut converted = Descriptor {
        media_type,
        ..descriptor.clone()
    };
    if flavour == Flavour::Docker {
        converted.annotations.clear();
    }
    Ok(converted)
}

/// Writes the parts of a value as they stand in a manifest.
fn written(parts: &[Part]) -> String {
    let part = |part: &Part| match part {
        Part::Text(text) => text.replace("${", "$${"),
        Part::Base(name, None) => format!("${{{name}}}"),
        Part::Base(name, Some(instead)) => format!("${{{name}:-{instead}}}"),
    };
    parts.iter().map(part).collect()
}

/// Makes the index over an image's platforms.
pub(super) struct IndexAction {
    pub(super) annotations: Annotations,
    pub(super) flavour: Flavour,
}

impl Action for IndexAction {
    fn name(&self) -> &'static str {
        "index"
    }

    fn parameters(&self, key: &mut dyn KeyWriter) {
        if self.flavour != Flavour::default() {
            key.field("media types", self.flavour.name());
        }
        for (name, value) in &self.annotations {
            key.field("annotation", &format!("{}={}", quoted(name), quoted(value)));
        }
    }

    fn run(&self, context: &Context<'_>, inputs: &[Product]) -> Result<Product, ActionError> {
        let images: Vec<Image> = inputs
            .iter()
            .filter_map(|product| match product {
                Product::Image(image) => Some(Image::clone(image)),
                _ => None,
            })
            .collect();
        let manifests = images.iter().map(|image| image.manifest.clone()).collect();
        let mut index = OciIndex::new(manifests, self.annotations.clone());
        let mut media_type = MediaType::OciIndex;
        if self.flavour == Flavour::Docker {
            media_type = MediaType::DockerList;
            index.media_type = Some(media_type.clone());
        }
        let index = context.store.put_blob(&index.to_bytes())?;
        let descriptor = Descriptor::new(media_type, index.digest, index.size);
        Ok(Product::Index(Arc::new(Index { descriptor, images })))
    }
}
