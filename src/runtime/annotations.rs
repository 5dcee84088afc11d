//! The annotations of a bundle: what an image says of itself, for runtimes.

use std::collections::BTreeMap;

use super::bundle::{BundleError, keys, text};
use crate::oci::Config;

/// What the names of annotations begin with that tell a runtime what to do on the host: to write a file, to keep groups of
/// the host, to set properties of a systemd unit. An image has no say in that.
const ORDERS: [&str; 8] = [
    "run.oci.",
    "io.crun.",
    "krun.",
    "org.systemd.",
    "org.criu.",
    "io.youki.",
    "io.katacontainers.",
    "dev.gvisor.",
];

/// What the image says of itself, and its labels if they are wanted; a label of the same name wins (image-spec,
/// conversion.md).
pub(super) fn of(
    config: &Config,
    with_labels: bool,
    notes: &mut Vec<String>,
) -> Result<BTreeMap<String, String>, BundleError> {
    let mut all = BTreeMap::new();
    let mut add = |name: &str, value: String| {
        if !value.is_empty() {
            all.insert(format!("org.opencontainers.image.{name}"), value);
        }
    };
    if let Ok(platform) = config.platform() {
        add("os", platform.os);
        add("architecture", platform.architecture);
        add("variant", platform.variant.unwrap_or_default());
        add("os.version", platform.os_version.unwrap_or_default());
        add("os.features", platform.os_features.join(","));
    }
    for name in ["author", "created"] {
        add(name, config.text(name).unwrap_or_default().to_owned());
    }
    add(
        "stopSignal",
        text(config, "StopSignal")?.unwrap_or_default(),
    );
    add("exposedPorts", keys(config, "ExposedPorts")?.join(","));
    if let Some(labels) = config.runtime("Labels") {
        let labels = labels.as_object().ok_or(BundleError::Field("Labels"))?;
        for (name, value) in labels.iter().filter(|(_, value)| !value.is_null()) {
            let value = value.as_str().ok_or(BundleError::Field("Labels"))?;
            if !with_labels {
                continue;
            }
            if ORDERS.iter().any(|order| name.starts_with(order)) {
                notes.push(format!(
                    "the label `{name}` would tell a runtime what to do on this host: config.json is without it"
                ));
                continue;
            }
            all.insert(name.clone(), value.to_owned());
        }
    }
    Ok(all)
}
