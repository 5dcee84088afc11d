//! What `inspect --format json` shows to scripts; see docs/json.md.

use serde_json::{Map, Value, json};

use crate::tar::Entry;
use crate::work::image::Contents;
use crate::work::inspect::{ImageView, LayerView, View, Waste, by_path, parse};

/// What of an image is shown.
#[derive(Clone, Copy, Default)]
pub(crate) struct Shown {
    /// Only this layer, counted from 1.
    pub(crate) layer: Option<usize>,
    /// The entries of layers.
    pub(crate) files: bool,
    /// The files that later layers hide.
    pub(crate) waste: bool,
}

/// Shows an image to scripts. `errors` say what could not be read of it.
pub(crate) fn json(view: &View, shown: &Shown, errors: Vec<Value>) -> String {
    let root = view.opened.root.as_ref().map(|root| &root.descriptor);
    let platforms: Vec<Value> = view.images.iter().map(|it| image(shown, it)).collect();
    let mut value = json!({
        "reference": view.opened.name,
        "source": view.opened.origin.word(),
        "digest": root.map(|it| it.digest),
        "media_type": root.map(|it| &it.media_type),
        "size": root.map(|it| it.size),
        "other_platforms": view.opened.others,
        "tags": view.tags,
    });
    // Moved: a copy of a long history takes much memory.
    value["platforms"] = Value::Array(platforms);
    if !errors.is_empty() {
        value["errors"] = errors.into();
    }
    super::json(value)
}

fn image(shown: &Shown, it: &ImageView) -> Value {
    let layers = it.layers.iter();
    let layers = layers.filter(|layer| shown.layer.is_none_or(|only| only == layer.number));
    let manifest = it.image.manifest.as_ref().map(|it| &it.descriptor);
    let config = it.image.config.as_ref().map(|it| &it.descriptor);
    let waste = it.waste.as_ref();
    let mut value = json!({
        "platform": it.image.platform_name(),
        "digest": manifest.map(|it| it.digest),
        "size": manifest.map(|it| it.size),
        "manifest": it.manifest,
        "config_digest": config.map(|it| it.digest),
        "config_size": config.map(|it| it.size),
        "layers": layers.map(|layer| self::layer(shown, it, layer)).collect::<Vec<_>>(),
        "wasted_bytes": waste.map(Waste::bytes),
    });
    value["config"] = parse(it.image.config.as_ref()).unwrap_or_default();
    if let (true, Some(waste)) = (shown.waste, waste) {
        let files = waste.files.iter().map(|(path, layer, by, size)| {
            json!({"path": path, "layer": layer, "hidden_by": by, "size": size})
        });
        value["wasted"] = files.collect();
    }
    value
}

fn layer(shown: &Shown, image: &ImageView, layer: &LayerView) -> Value {
    let piece = &layer.piece;
    let contents = layer.contents.as_deref();
    let blob = piece.expected.or(contents.map(|it| it.sizes.blob));
    let made_by = layer.made_by();
    let mut value = json!({
        "number": layer.number,
        "media_type": piece.media_type,
        "digest": blob.map(|it| it.digest),
        "size": blob.map(|it| it.size),
        "uncompressed_size": contents.map(|it| it.sizes.size),
        "compression": contents.map(|it| it.sizes.compression.name()),
        "entries": contents.map(|it| it.entries.len()),
        "wasted_bytes": image.waste.as_ref().map(|it| it.layers[layer.number - 1]),
        "diff_id": layer.diff_id,
        "created_by": layer.created_by(),
        "history": layer.history,
        "rule": made_by.map(|(rule, _)| rule),
        "target": made_by.map(|(_, target)| target),
    });
    if let (true, Some(contents)) = (shown.files, contents) {
        value["files"] = files(contents);
    }
    value
}

fn files(contents: &Contents) -> Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let file = |(entry, digest): &(Entry, Option<_>)| {
        let mut value = json!({
            "path": text(&entry.path),
            "type": entry.kind.word(),
            "mode": format!("{:04o}", entry.mode),
            "uid": entry.uid,
            "gid": entry.gid,
            "mtime": entry.mtime.0,
            "size": entry.size,
        });
        if let Some(link) = &entry.link {
            value["link"] = text(link).into();
        }
        if let Some(digest) = digest {
            value["digest"] = json!(digest);
        }
        if let Some((major, minor)) = entry.device {
            value["device"] = json!([major, minor]);
        }
        for (name, bytes) in [("user", &entry.user), ("group", &entry.group)] {
            if !bytes.is_empty() {
                value[name] = text(bytes).into();
            }
        }
        if !entry.records.is_empty() {
            let records = entry.records.iter();
            let records: Map<String, Value> = records
                .map(|(key, bytes)| (text(key), text(bytes).into()))
                .collect();
            value["pax"] = Value::Object(records);
        }
        value
    };
    by_path(contents).into_iter().map(file).collect()
}
