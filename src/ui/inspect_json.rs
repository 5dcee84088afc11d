//! What `inspect --format json` shows to scripts; see docs/json.md.

use std::io::{self, Write};

use serde_json::{Map, Value, json};

use crate::shown::{self, Json};
use crate::work::image::Listed;
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
///
/// # Errors
/// When `out` cannot be written.
pub(crate) fn json(
    out: &mut dyn Write,
    view: &View,
    shown: &Shown,
    errors: Vec<Value>,
) -> io::Result<()> {
    let root = view.opened.root.as_ref().map(|root| &root.descriptor);
    let platforms = view.images.iter().map(|it| image(shown, it)).collect();
    let value = json!({
        "reference": view.opened.name,
        "source": view.opened.origin.word(),
        "digest": root.map(|it| it.digest),
        "media_type": root.map(|it| &it.media_type),
        "size": root.map(|it| it.size),
        "other_platforms": view.opened.others,
        "tags": view.tags,
    });
    let mut more = vec![("platforms", Json::Array(platforms))];
    if !errors.is_empty() {
        more.push(("errors", Json::Value(errors.into())));
    }
    shown::write_json(out, &object(value, more))
}

/// Adds fields to an object.
fn object<'a>(value: Value, more: impl IntoIterator<Item = (&'static str, Json<'a>)>) -> Json<'a> {
    let fields = match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    Json::object(fields, more)
}

fn image<'a>(shown: &Shown, it: &'a ImageView) -> Json<'a> {
    let layers = it.layers.iter();
    let layers = layers.filter(|layer| shown.layer.is_none_or(|only| only == layer.number));
    let manifest = it.image.manifest.as_ref().map(|it| &it.descriptor);
    let config = it.image.config.as_ref().map(|it| &it.descriptor);
    let waste = it.waste.as_ref();
    let value = json!({
        "platform": it.image.platform_name(),
        "digest": manifest.map(|it| it.digest),
        "size": manifest.map(|it| it.size),
        "manifest": it.manifest,
        "config_digest": config.map(|it| it.digest),
        "config_size": config.map(|it| it.size),
        "wasted_bytes": waste.map(Waste::bytes),
    });
    let layers = layers.map(|layer| self::layer(shown, it, layer)).collect();
    let config = parse(it.image.config.as_ref()).unwrap_or_default();
    let mut more = vec![
        ("layers", Json::Array(layers)),
        ("config", Json::Value(config)),
    ];
    if let (true, Some(waste)) = (shown.waste, waste) {
        let each = |take: &mut dyn FnMut(Value)| {
            for (path, layer, by, size) in &waste.files {
                take(json!({"path": path, "layer": layer, "hidden_by": by, "size": size}));
            }
        };
        more.push(("wasted", Json::List(Box::new(each))));
    }
    object(value, more)
}

fn layer<'a>(shown: &Shown, image: &ImageView, layer: &'a LayerView) -> Json<'a> {
    let piece = &layer.piece;
    let contents = layer.contents.as_deref();
    let blob = piece.expected.or(contents.map(|it| it.sizes.blob));
    let made_by = layer.made_by();
    let value = json!({
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
    let files = contents.filter(|_| shown.files);
    let files = files.map(|contents| {
        let each = |take: &mut dyn FnMut(Value)| {
            let sorted = by_path(contents).into_iter();
            sorted.for_each(|entry| take(file(entry)));
        };
        ("files", Json::List(Box::new(each)))
    });
    object(value, files)
}

fn file(entry: &Listed) -> Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut value = json!({
        "path": text(&entry.path),
        "type": entry.kind.word(),
        "mode": format!("{:04o}", entry.mode),
        "uid": entry.uid,
        "gid": entry.gid,
        "mtime": entry.mtime.0,
        "size": entry.size,
    });
    if let Some(link) = entry.link() {
        value["link"] = text(link).into();
    }
    if let Some(digest) = entry.digest {
        value["digest"] = json!(digest);
    }
    if let Some((major, minor)) = entry.device() {
        value["device"] = json!([major, minor]);
    }
    for (name, bytes) in [("user", entry.user()), ("group", entry.group())] {
        if !bytes.is_empty() {
            value[name] = text(bytes).into();
        }
    }
    if !entry.records().is_empty() {
        let records = entry.records().iter();
        let records: Map<String, Value> = records
            .map(|(key, bytes)| (text(key), text(bytes).into()))
            .collect();
        value["pax"] = Value::Object(records);
    }
    value
}
