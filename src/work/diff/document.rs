//! Compares documents: indexes, manifests and configs, field by field.

use serde_json::Value;

use super::{Level, Place, Sink, words};
use crate::work::image::Document;

/// What of an index follows from what lies below it.
const INDEX: &[&[&str]] = &[&["manifests", "*", "digest"], &["manifests", "*", "size"]];
/// What of a manifest follows from the config and the layers.
const MANIFEST: &[&[&str]] = &[
    &["config", "digest"],
    &["config", "size"],
    &["config", "data"],
    &["layers"],
];
/// What of a manifest's layers is told of the layers themselves.
const LAYERS: &[&[&str]] = &[
    &["layers", "*", "digest"],
    &["layers", "*", "size"],
    &["layers", "*", "mediaType"],
];
/// What of a config follows from the layers.
const CONFIG: &[&[&str]] = &[&["rootfs", "diff_ids"]];

/// Compares the roots of two images.
pub(super) fn index(sink: &mut Sink, a: &Document, b: &Document) {
    let kinds = (&a.descriptor.media_type, &b.descriptor.media_type);
    if kinds.0 != kinds.1 {
        let place = Place {
            field: Some("media type".to_owned()),
            ..Place::default()
        };
        let (a, b) = (kinds.0.to_string(), kinds.1.to_string());
        return sink.push(Level::Index, place, a, b);
    }
    if kinds.0.is_index() {
        // Which platforms there are is told of each platform.
        let count = |it: &Document| parse(it)["manifests"].as_array().map(Vec::len);
        let ignored: &[&[&str]] = match count(a) == count(b) {
            true => INDEX,
            false => &[&["manifests"]],
        };
        fields(sink, Level::Index, &Place::default(), (a, b), ignored);
    }
}

/// Compares two manifests, but for their layers' digests and sizes.
pub(super) fn manifest(sink: &mut Sink, place: &Place, a: &Document, b: &Document) {
    fields(sink, Level::Manifest, place, (a, b), MANIFEST);
    let (of_a, of_b) = (parse(a), parse(b));
    let layers = of_a["layers"].as_array().zip(of_b["layers"].as_array());
    let Some((a, b)) = layers else { return };
    for (number, (a, b)) in a.iter().zip(b).enumerate() {
        let mut walk = Walk {
            sink,
            level: Level::Manifest,
            place,
            ignored: LAYERS,
        };
        let mut path = vec!["layers".to_owned(), format!("[{number}]")];
        walk.compare(Some(a), Some(b), &mut path);
    }
}

/// Compares two configs, but for the diff_ids of layers.
pub(super) fn config(sink: &mut Sink, place: &Place, a: &Document, b: &Document) {
    fields(sink, Level::Config, place, (a, b), CONFIG);
}

fn parse(document: &Document) -> Value {
    serde_json::from_slice(&document.bytes).unwrap_or_default()
}

fn fields(
    sink: &mut Sink,
    level: Level,
    place: &Place,
    (a, b): (&Document, &Document),
    ignored: &[&[&str]],
) {
    let (a, b) = (parse(a), parse(b));
    let mut walk = Walk {
        sink,
        level,
        place,
        ignored,
    };
    walk.compare(Some(&a), Some(&b), &mut Vec::new());
}

/// Tells at which byte two documents differ, if they do.
pub(super) fn bytes(sink: &mut Sink, level: Level, place: &Place, a: &Document, b: &Document) {
    if a.bytes == b.bytes {
        return;
    }
    let equal = a.bytes.iter().zip(&b.bytes).take_while(|(a, b)| a == b);
    let offset = equal.count();
    let place = Place {
        field: Some("bytes of the same JSON".to_owned()),
        offset: Some(offset as u64),
        ..place.clone()
    };
    let (a, b) = (
        super::layer::excerpt(&a.bytes, offset),
        super::layer::excerpt(&b.bytes, offset),
    );
    sink.push(level, place, a, b);
}

/// On the way through two JSON trees.
struct Walk<'a> {
    sink: &'a mut Sink,
    level: Level,
    place: &'a Place,
    ignored: &'a [&'a [&'a str]],
}

impl Walk<'_> {
    fn compare(&mut self, a: Option<&Value>, b: Option<&Value>, path: &mut Vec<String>) {
        if a == b || self.sink.is_full() || self.is_ignored(path) {
            return;
        }
        match (a, b) {
            (Some(Value::Object(of_a)), Some(Value::Object(of_b))) => {
                let only_b = of_b.keys().filter(|key| !of_a.contains_key(*key));
                for key in of_a.keys().chain(only_b) {
                    path.push(key.clone());
                    self.compare(of_a.get(key), of_b.get(key), path);
                    path.pop();
                }
            }
            (Some(Value::Array(of_a)), Some(Value::Array(of_b))) => {
                for at in 0..of_a.len().max(of_b.len()) {
                    path.push(format!("[{at}]"));
                    self.compare(of_a.get(at), of_b.get(at), path);
                    path.pop();
                }
            }
            _ => {
                let place = Place {
                    field: Some(joined(path)),
                    ..self.place.clone()
                };
                self.sink.push(self.level, place, words(a), words(b));
            }
        }
    }

    fn is_ignored(&self, path: &[String]) -> bool {
        self.ignored.iter().any(|ignored| {
            let fits = |(wanted, found): (&&str, &String)| *wanted == "*" || wanted == found;
            ignored.len() == path.len() && ignored.iter().zip(path).all(fits)
        })
    }
}

/// Writes a path into a JSON tree: `config.Env[2]`.
fn joined(path: &[String]) -> String {
    let mut text = String::new();
    for part in path {
        if !text.is_empty() && !part.starts_with('[') {
            text.push('.');
        }
        text.push_str(part);
    }
    text
}
