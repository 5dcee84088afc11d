//! The metadata of a build, for scripts: names, digests, sizes, platforms, layers.

use serde_json::{Value, json};

use super::{Attached, Output};

/// Describes finished images as JSON: a list of one object for each.
pub(crate) fn metadata(outputs: &[Output]) -> Value {
    outputs
        .iter()
        .map(|output| {
            let descriptor = output.descriptor();
            let platforms: Vec<Value> = output
                .images()
                .into_iter()
                .map(|(platform, image)| {
                    let layers: Vec<Value> = image
                        .layers
                        .iter()
                        .map(|layer| {
                            json!({
                                "media_type": layer.descriptor.media_type,
                                "digest": layer.descriptor.digest,
                                "size": layer.descriptor.size,
                                "diff_id": layer.diff_id,
                            })
                        })
                        .collect();
                    json!({
                        "platform": platform.to_string(),
                        "digest": image.manifest.digest,
                        "size": image.manifest.size,
                        "config": image.config.digest,
                        "layers": layers,
                    })
                })
                .collect();
            let mut value = json!({
                "name": output.name,
                "repository": output.repository,
                "reference": output.reference(),
                "media_type": descriptor.media_type,
                "digest": descriptor.digest,
                "size": descriptor.size,
                "tags": output.tags,
                "platforms": platforms,
            });
            // What nobody asked for is not there at all.
            if !output.attached.is_empty() {
                let documents = output.attached.iter().map(Attached::to_json);
                value["documents"] = documents.collect();
            }
            for (name, report) in &output.reports {
                value[*name] = report.clone();
            }
            value
        })
        .collect()
}
