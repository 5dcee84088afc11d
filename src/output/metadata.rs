//! The metadata of a build, for scripts: names, digests, sizes, platforms, layers.

use serde_json::{Value, json};

use super::{Loaded, Output, PushCounts};

/// Describes finished images as JSON: a list of one object for each.
pub fn metadata(outputs: &[Output<'_>]) -> Value {
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
            if let Some(push) = output.push {
                let PushCounts {
                    sent,
                    mounted,
                    skipped,
                } = push;
                value["push"] = json!({"sent": sent, "mounted": mounted, "skipped": skipped});
            }
            if let Some(Loaded {
                names,
                platform,
                image_id,
            }) = &output.load
            {
                value["load"] =
                    json!({"names": names, "platform": platform.to_string(), "image_id": image_id});
            }
            value
        })
        .collect()
}
