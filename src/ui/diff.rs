//! What `diff` and `verify` show: lines for people, and JSON for scripts; see docs/json.md.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::visible;
use crate::work::diff::{Compared, Difference, Level, MOST, Place};
use crate::work::image::Opened;
use crate::work::verify::{Checked, Verified};

/// How long a value may be that is shown to people, in characters.
const LONG: usize = 160;

fn word(level: Level) -> &'static str {
    match level {
        Level::Index => "index",
        Level::Platform => "platform",
        Level::Manifest => "manifest",
        Level::Config => "config",
        Level::Layer => "layer",
        Level::Compression => "compression",
        Level::Entry => "entry",
        Level::Header => "header",
        Level::Content => "content",
        Level::Tar => "tar",
    }
}

/// Shows to people how two images differ.
pub(crate) fn text(compared: &Compared) -> String {
    let Compared { a, b, alone, found } = compared;
    let Some(alone) = alone else {
        return differences(a, b, found);
    };
    let Some(platform) = &alone.platform else {
        return differences(a, b, found);
    };
    let name = visible(&alone.index);
    let said = format!("{name} is an index: its image for {platform} is compared\n");
    match alone.digest.filter(|_| found.is_empty()) {
        Some(digest) => format!("{said}equal: {digest}\n"),
        None => said + &differences(a, b, found),
    }
}

/// Shows differences to people.
fn differences(a: &Opened, b: &Opened, found: &[Difference]) -> String {
    if found.is_empty() {
        let root = a.root.as_ref().or(b.root.as_ref());
        let digest = root.map(|it| format!(" {}", it.descriptor.digest));
        return match (&a.root, &b.root) {
            (Some(a), Some(b)) if a.descriptor.digest == b.descriptor.digest => {
                format!("equal:{}\n", digest.unwrap_or_default())
            }
            _ => "equal: configs and layers are the same; not all has a manifest of its own to compare\n"
                .to_owned(),
        };
    }
    let (name_a, name_b) = (visible(&a.name), visible(&b.name));
    let mut text = format!("a  {name_a}\nb  {name_b}\n");
    for difference in found {
        let _ = writeln!(text, "different: {}", place(difference));
        for (side, value) in [("a", &difference.a), ("b", &difference.b)] {
            let _ = writeln!(text, "  {side}  {}", short(value));
        }
    }
    if found.len() > 1 {
        let more = if found.len() == MOST { " or more" } else { "" };
        let _ = writeln!(text, "{}{more} differences", found.len());
    }
    text
}

/// Says where a difference is, from the top down.
fn place(difference: &Difference) -> String {
    let Place {
        platform,
        layer,
        made_by,
        entry,
        field,
        offset,
    } = &difference.place;
    let mut parts: Vec<String> = platform.iter().map(|it| visible(it)).collect();
    if let Some(layer) = layer {
        let made_by = made_by.as_ref().map(|it| format!(" ({})", short(it)));
        parts.push(format!("layer {layer}{}", made_by.unwrap_or_default()));
    }
    parts.extend(entry.as_ref().map(|it| visible(it)));
    let level = match difference.level {
        Level::Index => Some("index"),
        Level::Platform => Some("the platform itself"),
        Level::Manifest => Some("manifest"),
        Level::Config => Some("config"),
        Level::Layer if field.is_none() => Some("the layers"),
        Level::Compression => Some("the same tar, compressed differently"),
        Level::Entry => Some("the entry itself"),
        Level::Tar => Some("tar"),
        Level::Layer | Level::Header | Level::Content => None,
    };
    parts.extend(level.map(str::to_owned));
    parts.extend(field.as_ref().map(|it| visible(it)));
    let at = offset.map(|offset| format!(", at byte {offset}"));
    parts.join(", ") + &at.unwrap_or_default()
}

fn short(text: &str) -> String {
    let visible = match text.starts_with('"') {
        // Escaped already.
        true => text.to_owned(),
        false => visible(text),
    };
    match visible.chars().count() > LONG {
        true => visible.chars().take(LONG - 1).collect::<String>() + "…",
        false => visible,
    }
}

/// Shows to scripts how two images differ.
pub(crate) fn json(compared: &Compared) -> String {
    let Compared { a, b, alone, found } = compared;
    let side = |it: &Opened| {
        json!({
            "reference": it.name,
            "source": it.origin.word(),
            "digest": it.root.as_ref().map(|root| root.descriptor.digest),
        })
    };
    let differences: Vec<Value> = found.iter().map(one).collect();
    super::json(json!({
        "equal": found.is_empty(),
        "platform": alone.as_ref().and_then(|it| it.platform.clone()),
        "a": side(a),
        "b": side(b),
        "differences": differences,
    }))
}

/// Shows to people what was verified.
pub(crate) fn verified(verified: &Verified) -> String {
    let text = |checked: &Checked| {
        let Checked {
            image,
            other,
            found,
        } = checked;
        if !found.is_empty() {
            return differences(image, other, found);
        }
        let digest = image.root.as_ref();
        let digest = digest.map_or(String::new(), |it| format!(" {}", it.descriptor.digest));
        format!("{} equal{digest}\n", visible(&image.name))
    };
    let mut all: String = verified.checked.iter().map(text).collect();
    if !verified.varied.is_empty() {
        all.push_str(&format!("varied: {}\n", verified.varied.join(", ")));
    }
    all
}

/// Shows to scripts what was verified.
pub(crate) fn verified_json(verified: &Verified) -> String {
    let digest = |it: &Opened| it.root.as_ref().map(|root| root.descriptor.digest);
    let image = |checked: &Checked| {
        json!({
            "name": checked.image.name,
            "equal": checked.found.is_empty(),
            "digest": digest(&checked.image),
            "other": checked.other.name,
            "other_digest": digest(&checked.other),
            "difference": checked.found.first().map(one),
        })
    };
    let images: Vec<Value> = verified.checked.iter().map(image).collect();
    let (is_equal, varied) = (verified.is_equal(), &verified.varied);
    super::json(json!({"equal": is_equal, "varied": varied, "images": images}))
}

/// Shows one difference to scripts.
fn one(difference: &Difference) -> Value {
    let Place {
        platform,
        layer,
        made_by,
        entry,
        field,
        offset,
    } = &difference.place;
    json!({
        "level": word(difference.level),
        "platform": platform,
        "layer": layer,
        "created_by": made_by,
        "entry": entry,
        "field": field,
        "offset": offset,
        "a": difference.a,
        "b": difference.b,
    })
}
