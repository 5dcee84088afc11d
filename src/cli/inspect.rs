//! `inspect`: what an image of a registry is made of. Fetches documents, and no layer.

use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::{Value, json};

use super::args;
use super::build::print;
use super::exit::Exit;
use super::net::Net;
use super::{CANCEL, report};
use crate::oci::{Config, Descriptor, Digest, Index, MAX_DOCUMENT, Manifest, Platform, Reference};
use crate::registry::{Client, RegistryError};
use crate::ui::{Mode, Progress, size};

use super::args::Format;

/// How many image tags the text shows.
const TAGS: usize = 20;

/// How large all documents of an image may be in sum, in bytes: they are held in memory.
const DOCUMENTS: u64 = 2 * MAX_DOCUMENT;

/// An image of one platform.
struct Found {
    descriptor: Descriptor,
    manifest: Value,
    /// The config, of an image that can be run.
    config: Option<Value>,
    layers: Vec<Descriptor>,
    /// The size of its documents, in bytes.
    size: u64,
}

pub(super) fn inspect(args: &args::Inspect) -> Result<Exit, Exit> {
    let progress = Arc::new(Progress::new(Mode::Plain, &CANCEL));
    let net = Net::new(&args.net, &progress)?;
    let Some(client) = net.client() else {
        return Ok(Exit::Done);
    };
    let mut reference = args.reference.clone();
    if reference.tag.is_none() && reference.digest.is_none() {
        reference.tag = Some("latest".to_owned());
    }
    let failed = |error: RegistryError| report::registry(error);
    let (root, bytes) = client.manifest(&reference).map_err(failed)?;
    let mut images = Vec::new();
    let mut known = Vec::new();
    let mut size = bytes.len() as u64;
    if root.media_type.is_index() {
        let index: Index = parse(&reference, &bytes)?;
        for descriptor in &index.manifests {
            let platform = descriptor.platform.as_ref();
            known.extend(platform.map(ToString::to_string));
            if !wanted(&args.platform, platform) {
                continue;
            }
            let at = at(&reference, descriptor.digest);
            let (_, bytes) = client.manifest(&at).map_err(failed)?;
            let image = image(client, &reference, descriptor.clone(), &bytes)?;
            size = size.saturating_add(image.size);
            if size > DOCUMENTS {
                let message = format!("{reference} has documents of more than {DOCUMENTS} bytes");
                let help = Some("name platforms with `--platform`".to_owned());
                report::plain("imgdecl::inspect::size", &message, help);
                return Err(Exit::Remote);
            }
            images.push(image);
        }
    } else {
        images.push(image(client, &reference, root.clone(), &bytes)?);
    }
    if images.is_empty() && !args.platform.is_empty() {
        let help = format!("it has: {}", known.join(", "));
        let message = format!("{reference} has no image for that platform");
        report::plain("imgdecl::inspect::platform", &message, Some(help));
        return Err(Exit::Failed);
    }
    // Some registries let people read images, but not list them.
    let tags = client.tags(&reference).unwrap_or_else(|error| {
        progress.note(&format!("the image tags cannot be listed: {error}"));
        Vec::new()
    });
    print(&match args.format {
        Format::Json => {
            let platforms: Vec<Value> = images.iter().map(as_json).collect();
            let value = json!({
                "reference": reference.to_string(),
                "digest": root.digest,
                "media_type": root.media_type,
                "size": root.size,
                "platforms": platforms,
                "tags": tags,
            });
            format!("{value:#}\n")
        }
        Format::Text => as_text(&reference, &root, &images, &tags),
    })
}

fn wanted(platforms: &[Platform], platform: Option<&Platform>) -> bool {
    match platform {
        Some(platform) if !platforms.is_empty() => {
            platforms.iter().any(|wanted| platform.matches(wanted))
        }
        _ => platforms.is_empty(),
    }
}

fn at(reference: &Reference, digest: Digest) -> Reference {
    Reference {
        tag: None,
        digest: Some(digest),
        ..reference.clone()
    }
}

fn parse<T: serde::de::DeserializeOwned>(reference: &Reference, bytes: &[u8]) -> Result<T, Exit> {
    serde_json::from_slice(bytes).map_err(|error| {
        let message = format!("{reference} cannot be read: {error}");
        report::plain("imgdecl::inspect::document", &message, None);
        Exit::Remote
    })
}

fn image(
    client: &Client,
    reference: &Reference,
    descriptor: Descriptor,
    bytes: &[u8],
) -> Result<Found, Exit> {
    let manifest: Manifest = parse(reference, bytes)?;
    // What is no image, such as an attestation, has a config of another kind.
    let is_attestation = descriptor.platform.as_ref();
    let is_attestation = is_attestation.is_some_and(Platform::is_unknown);
    let mut size = bytes.len() as u64;
    let config = match is_attestation {
        true => None,
        false => {
            size = size.saturating_add(manifest.config.size);
            let bytes = client.document(reference, &manifest.config);
            let bytes = bytes.map_err(report::registry)?;
            Some(parse(reference, &bytes)?)
        }
    };
    Ok(Found {
        descriptor,
        manifest: parse(reference, bytes)?,
        config,
        layers: manifest.layers,
        size,
    })
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

fn platform(found: &Found) -> String {
    let from_config = || {
        let config = found.config.as_ref()?;
        let bytes = serde_json::to_vec(config).ok()?;
        Config::parse(&bytes).ok()?.platform().ok()
    };
    let platform = found.descriptor.platform.clone().or_else(from_config);
    platform.map_or("-".to_owned(), |it| it.to_string())
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
        "platform": platform(found),
        "digest": found.descriptor.digest,
        "size": found.descriptor.size,
        "manifest": found.manifest,
        "config": found.config,
        "layers": layers,
    })
}

fn as_text(reference: &Reference, root: &Descriptor, images: &[Found], tags: &[String]) -> String {
    let mut text = format!(
        "{reference}\n  digest      {}\n  media type  {}\n",
        root.digest,
        root.media_type.as_str()
    );
    for found in images {
        let sizes = found.layers.iter().map(|layer| layer.size);
        let bytes = sizes.fold(0, u64::saturating_add);
        let _ = writeln!(
            text,
            "\n{}\n  manifest    {}\n  layers      {}, {}",
            platform(found),
            found.descriptor.digest,
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
