//! Differences as lines for people, and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Difference, Level, MOST, Place};
use crate::cli::image::Opened;
use crate::ui;

/// How long a value may be that is shown to people, in characters.
const LONG: usize = 160;

impl Level {
    fn word(self) -> &'static str {
        match self {
            Self::Index => "index",
            Self::Platform => "platform",
            Self::Manifest => "manifest",
            Self::Config => "config",
            Self::Layer => "layer",
            Self::Compression => "compression",
            Self::Entry => "entry",
            Self::Header => "header",
            Self::Content => "content",
            Self::Tar => "tar",
        }
    }
}

/// Shows differences to people.
pub(in crate::cli) fn text(a: &Opened, b: &Opened, found: &[Difference]) -> String {
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
    let (name_a, name_b) = (ui::visible(&a.name), ui::visible(&b.name));
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
    let mut parts: Vec<String> = platform.iter().map(|it| ui::visible(it)).collect();
    if let Some(layer) = layer {
        let made_by = made_by.as_ref().map(|it| format!(" ({})", short(it)));
        parts.push(format!("layer {layer}{}", made_by.unwrap_or_default()));
    }
    parts.extend(entry.as_ref().map(|it| ui::visible(it)));
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
    parts.extend(field.as_ref().map(|it| ui::visible(it)));
    let at = offset.map(|offset| format!(", at byte {offset}"));
    parts.join(", ") + &at.unwrap_or_default()
}

fn short(text: &str) -> String {
    let visible = match text.starts_with('"') {
        // Escaped already.
        true => text.to_owned(),
        false => ui::visible(text),
    };
    match visible.chars().count() > LONG {
        true => visible.chars().take(LONG - 1).collect::<String>() + "…",
        false => visible,
    }
}

/// Shows differences to scripts. `platform` is the one whose images alone were compared.
pub(super) fn json(a: &Opened, b: &Opened, platform: Option<&str>, found: &[Difference]) -> String {
    let side = |it: &Opened| {
        json!({
            "reference": it.name,
            "source": it.origin.word(),
            "digest": it.root.as_ref().map(|root| root.descriptor.digest),
        })
    };
    let differences: Vec<Value> = found.iter().map(one).collect();
    ui::json(json!({
        "equal": found.is_empty(),
        "platform": platform,
        "a": side(a),
        "b": side(b),
        "differences": differences,
    }))
}

/// Shows one difference to scripts.
pub(in crate::cli) fn one(difference: &Difference) -> Value {
    let Place {
        platform,
        layer,
        made_by,
        entry,
        field,
        offset,
    } = &difference.place;
    json!({
        "level": difference.level.word(),
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
