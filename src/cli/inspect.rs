//! `inspect`: what an image of a registry is made of. Fetches documents, and no layer.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::args::{self, Format};
use super::build::print;
use super::exit::Exit;
use super::image::{Document, Opener, Single};
use crate::oci::{Config, Descriptor};
use crate::ui::size;

/// How many image tags the text shows.
const TAGS: usize = 20;

/// An image of one platform.
struct Found {
    platform: String,
    descriptor: Option<Descriptor>,
    manifest: Option<Value>,
    /// The config, of an image that can be run.
    config: Option<Value>,
    layers: Vec<Descriptor>,
}

pub(super) fn inspect(args: &args::Inspect) -> Result<Exit, Exit> {
    let opener = Opener::new(&args.open)?;
    let opened = opener.open(&args.image)?;
    let images: Vec<Found> = opened.images.iter().map(found).collect();
    let tags = opener.tags(&opened);
    opener.progress.finish();
    let root = opened.root.as_ref().map(|root| &root.descriptor);
    print(&match args.format {
        Format::Json => {
            let platforms: Vec<Value> = images.iter().map(as_json).collect();
            let value = json!({
                "reference": opened.name,
                "digest": root.map(|it| it.digest),
                "media_type": root.map(|it| &it.media_type),
                "size": root.map(|it| it.size),
                "platforms": platforms,
                "tags": tags,
            });
            format!("{value:#}\n")
        }
        Format::Text => as_text(&opened.name, root, &images, &tags),
    })
}

fn found(image: &Single) -> Found {
    let parse = |document: &Option<Document>| {
        let document = document.as_ref()?;
        serde_json::from_slice(&document.bytes).ok()
    };
    let layers = image.layers.iter().filter_map(|it| it.descriptor.clone());
    Found {
        platform: image.platform_name(),
        descriptor: image.manifest.as_ref().map(|it| it.descriptor.clone()),
        manifest: parse(&image.manifest),
        config: parse(&image.config),
        layers: layers.collect(),
    }
}

/// Returns what the config says of each layer, bottom first: its diff_id and how it came about.
fn told(config: &Option<Value>) -> (Vec<String>, Vec<String>) {
    let Some(config) = config else {
        return Default::default();
    };
    let config: Option<Config> = serde_json::to_vec(config)
        .ok()
        .and_then(|bytes| Config::parse(&bytes).ok());
    let Some(config) = config else {
        return Default::default();
    };
    let diff_ids = config.diff_ids().unwrap_or_default();
    let is_layer = |entry: &Value| entry["empty_layer"].as_bool() != Some(true);
    let history = config.history().into_iter().filter(is_layer);
    let created_by = history.map(|entry| {
        let text = entry["created_by"].as_str().or(entry["comment"].as_str());
        text.unwrap_or_default().to_owned()
    });
    (
        diff_ids.iter().map(ToString::to_string).collect(),
        created_by.collect(),
    )
}

fn as_json(found: &Found) -> Value {
    let (diff_ids, created_by) = told(&found.config);
    let layers: Vec<Value> = found
        .layers
        .iter()
        .enumerate()
        .map(|(number, layer)| {
            json!({
                "media_type": layer.media_type,
                "digest": layer.digest,
                "size": layer.size,
                "diff_id": diff_ids.get(number),
                "created_by": created_by.get(number),
            })
        })
        .collect();
    json!({
        "platform": found.platform,
        "digest": found.descriptor.as_ref().map(|it| it.digest),
        "size": found.descriptor.as_ref().map(|it| it.size),
        "manifest": found.manifest,
        "config": found.config,
        "layers": layers,
    })
}

fn as_text(name: &str, root: Option<&Descriptor>, images: &[Found], tags: &[String]) -> String {
    let mut text = format!("{name}\n");
    if let Some(root) = root {
        let (digest, kind) = (root.digest, root.media_type.as_str());
        let _ = writeln!(text, "  digest      {digest}\n  media type  {kind}");
    }
    for found in images {
        let sizes = found.layers.iter().map(|layer| layer.size);
        let bytes = sizes.fold(0, u64::saturating_add);
        let _ = writeln!(
            text,
            "\n{}\n  manifest    {}\n  layers      {}, {}",
            found.platform,
            found
                .descriptor
                .as_ref()
                .map_or("-".to_owned(), |it| it.digest.to_string()),
            found.layers.len(),
            size(bytes)
        );
        let (diff_ids, created_by) = told(&found.config);
        for (number, layer) in found.layers.iter().enumerate() {
            let said = created_by.get(number).map_or("", String::as_str);
            let _ = writeln!(
                text,
                "    {}  {}  {}",
                number + 1,
                layer.digest,
                size(layer.size)
            );
            for (word, value) in [
                ("diff_id", diff_ids.get(number).map_or("", String::as_str)),
                ("made by", said),
            ] {
                if !value.is_empty() {
                    let _ = writeln!(text, "       {word}  {}", one_line(value));
                }
            }
        }
        let Some(config) = &found.config else {
            continue;
        };
        for (word, key) in [
            ("entrypoint", "Entrypoint"),
            ("cmd", "Cmd"),
            ("env", "Env"),
            ("workdir", "WorkingDir"),
            ("user", "User"),
            ("ports", "ExposedPorts"),
            ("labels", "Labels"),
        ] {
            let value = &config["config"][key];
            let is_empty = match value {
                Value::Null => true,
                Value::String(text) => text.is_empty(),
                Value::Array(list) => list.is_empty(),
                Value::Object(map) => map.is_empty(),
                _ => false,
            };
            if !is_empty {
                let _ = writeln!(text, "  {word:<10}  {}", one_line(&value.to_string()));
            }
        }
    }
    if !tags.is_empty() {
        let shown: Vec<&str> = tags.iter().take(TAGS).map(String::as_str).collect();
        let _ = write!(text, "\nimage tags    {}", shown.join(", "));
        if tags.len() > TAGS {
            let _ = write!(text, ", and {} more", tags.len() - TAGS);
        }
        text.push('\n');
    }
    text
}

/// Keeps a text of a registry to one line, and free of what a terminal would obey.
fn one_line(text: &str) -> String {
    const MOST: usize = 160;
    let clean = text
        .chars()
        .map(|it| if it.is_control() { ' ' } else { it });
    let mut line: String = clean.take(MOST + 1).collect();
    if line.chars().count() > MOST {
        line = line.chars().take(MOST - 1).collect::<String>() + "…";
    }
    line
}
