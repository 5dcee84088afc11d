//! What `inspect` shows to people.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use serde_json::value::RawValue;

use super::inspect_json::Shown;
use super::{size, visible};
use crate::oci::last_of_each;
use crate::shown;
use crate::work::image::{Contents, Listed, Origin};
use crate::work::inspect::{ImageView, LayerView, View, Waste, by_path};

/// How many image tags are shown.
const TAGS: usize = 20;
/// How many hidden files are shown.
const HIDDEN: usize = 20;

/// How many bytes of text are written at once.
const PIECE: usize = 64 << 10;

/// Shows an image to people.
///
/// # Errors
/// When `out` cannot be written.
pub(crate) fn text(out: &mut dyn Write, view: &View, shown: &Shown) -> io::Result<()> {
    let opened = &view.opened;
    let mut text = format!("{}\n", visible(&opened.name));
    if !matches!(opened.origin, Origin::Registry(_)) {
        let _ = writeln!(text, "  source      {}", opened.origin.word());
    }
    if let Some(root) = opened.root.as_ref().map(|root| &root.descriptor) {
        let (digest, kind) = (root.digest, root.media_type.as_str());
        let _ = writeln!(text, "  digest      {digest}\n  media type  {kind}");
    }
    if !opened.others.is_empty() {
        let others = one_line(&opened.others.join(", "));
        let _ = writeln!(text, "  not shown   {others}");
    }
    for it in &view.images {
        image(out, &mut text, shown, it)?;
    }
    if !view.tags.is_empty() {
        let shown: Vec<&str> = view.tags.iter().take(TAGS).map(String::as_str).collect();
        let _ = write!(text, "\nimage tags    {}", shown.join(", "));
        if view.tags.len() > TAGS {
            let _ = write!(text, ", and {} more", view.tags.len() - TAGS);
        }
        text.push('\n');
    }
    write(out, &mut text)
}

/// Writes the lines that were gathered, as they may be shown.
fn write(out: &mut dyn Write, text: &mut String) -> io::Result<()> {
    out.write_all(shown::data(text).as_bytes())?;
    text.clear();
    Ok(())
}

fn image(out: &mut dyn Write, text: &mut String, shown: &Shown, it: &ImageView) -> io::Result<()> {
    let _ = writeln!(text, "\n{}", it.image.platform_name());
    for (word, document) in [
        ("manifest", &it.image.manifest),
        ("config", &it.image.config),
    ] {
        if let Some(found) = document.as_ref().map(|it| &it.descriptor) {
            let _ = writeln!(text, "  {word:<10}  {}  {}", found.digest, size(found.size));
        }
    }
    let blobs = it.layers.iter().filter_map(|layer| layer.piece.expected);
    let packed = blobs.fold(0, |sum: u64, blob| sum.saturating_add(blob.size));
    let read: Option<Vec<&Contents>> = it.layers.iter().map(|it| it.contents.as_deref()).collect();
    let unpacked = read.map(|all| all.iter().map(|it| it.sizes.size).sum::<u64>());
    let _ = write!(text, "  layers      {}, {}", it.layers.len(), size(packed));
    if let Some(unpacked) = unpacked {
        let _ = write!(text, ", {} uncompressed", size(unpacked));
    }
    text.push('\n');
    for layer in &it.layers {
        if shown.layer.is_none_or(|only| only == layer.number) {
            self::layer(text, layer);
            if let (true, Some(contents)) = (shown.files, layer.contents.as_deref()) {
                files(out, text, contents)?;
            }
        }
    }
    if let Some(waste) = &it.waste {
        self::waste(text, shown, waste);
    }
    if shown.layer.is_none() {
        config(text, it);
    }
    Ok(())
}

fn layer(text: &mut String, layer: &LayerView) {
    let contents = layer.contents.as_deref();
    let blob = layer.piece.expected.or(contents.map(|it| it.sizes.blob));
    let _ = match blob {
        Some(blob) => writeln!(
            text,
            "    {}  {}  {}",
            layer.number,
            blob.digest,
            size(blob.size)
        ),
        None => writeln!(text, "    {}  {}", layer.number, visible(&layer.piece.what)),
    };
    let media_type = layer.piece.media_type.as_ref();
    let tar = contents.map(|it| {
        let (count, unpacked) = (it.entries.len(), size(it.sizes.size));
        format!("{unpacked} uncompressed, {count} entries")
    });
    for (word, value) in [
        ("diff_id", layer.diff_id.map(|it| it.to_string())),
        ("type", media_type.map(|it| it.to_string())),
        ("tar", tar),
        ("made by", layer.created_by().map(str::to_owned)),
    ] {
        if let Some(value) = value.filter(|it| !it.is_empty()) {
            let _ = writeln!(text, "       {word:<7}  {}", one_line(&value));
        }
    }
}

/// Lists entries.
fn files(out: &mut dyn Write, text: &mut String, contents: &Contents) -> io::Result<()> {
    let owner = |entry: &Listed| format!("{}:{}", entry.uid, entry.gid);
    let entries = || contents.entries.iter();
    let wide = entries().map(|it| owner(it).len()).max().unwrap_or(0);
    let digits = entries().map(|it| it.size).max().unwrap_or(0).to_string();
    let digits = digits.len();
    for entry in by_path(contents) {
        let _ = write!(
            text,
            "       {}{} {:<wide$} {:>digits$} {} {}",
            entry.kind.letter(),
            permissions(entry.mode),
            owner(entry),
            entry.size,
            time(entry.mtime.0),
            visible(&String::from_utf8_lossy(&entry.path)),
        );
        if let Some(link) = entry.link() {
            let link = String::from_utf8_lossy(link);
            let _ = write!(text, " -> {}", visible(&link));
        }
        if let Some((major, minor)) = entry.device() {
            let _ = write!(text, " {major},{minor}");
        }
        for key in entry.records().keys() {
            let _ = write!(text, " [{}]", visible(&String::from_utf8_lossy(key)));
        }
        text.push('\n');
        if text.len() >= PIECE {
            write(out, text)?;
        }
    }
    Ok(())
}

/// Writes a mode as `ls` does.
fn permissions(mode: u32) -> String {
    let mut text = String::with_capacity(9);
    for (shift, special, set, only) in [
        (6, 0o4000, 's', 'S'),
        (3, 0o2000, 's', 'S'),
        (0, 0o1000, 't', 'T'),
    ] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (bits & 1 != 0, mode & special != 0) {
            (true, true) => set,
            (false, true) => only,
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    text
}

fn time(seconds: i64) -> String {
    // The year 9999 is the last one of RFC 3339.
    let after = u64::try_from(seconds).ok();
    let time = after.and_then(|it| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(it)));
    match time.filter(|_| seconds < 253_402_300_800) {
        Some(time) => humantime::format_rfc3339_seconds(time).to_string(),
        None => seconds.to_string(),
    }
}

fn waste(text: &mut String, shown: &Shown, waste: &Waste) {
    let count = waste.files.len();
    if count == 0 {
        if shown.waste {
            text.push_str("  wasted      nothing: no layer hides a file of an earlier one\n");
        }
        return;
    }
    let bytes = size(waste.bytes());
    let _ = writeln!(
        text,
        "  wasted      {bytes} uncompressed, in {count} files that later layers hide"
    );
    if !shown.waste {
        return;
    }
    for (path, layer, by, bytes) in waste.files.iter().take(HIDDEN) {
        let (path, bytes) = (visible(path), size(*bytes));
        let _ = writeln!(
            text,
            "    {bytes:>8}  {path}  of layer {layer}, hidden by {by}"
        );
    }
    if count > HIDDEN {
        let _ = writeln!(text, "    and {} more", count - HIDDEN);
    }
}

fn config(text: &mut String, it: &ImageView) {
    let Some(config) = &it.image.config else {
        return;
    };
    // The history may be a hundred thousand entries, and is not shown.
    let fields: BTreeMap<String, &RawValue> = match serde_json::from_slice(&config.bytes) {
        Ok(fields) => fields,
        Err(_) => return,
    };
    let shown = ["config", "created"].map(|it| (it.to_owned(), fields.get(it)));
    let shown = shown.into_iter().filter_map(|(key, raw)| {
        let value: Value = serde_json::from_str(raw?.get()).ok()?;
        Some((key, value))
    });
    let config: Value = Value::Object(shown.collect());
    // As a process gets it.
    let env = it.image.parsed().map(|it| last_of_each(it.env()));
    let env = env.map_or(Value::Null, Value::from);
    for (word, value) in [
        ("created", &config["created"]),
        ("entrypoint", &config["config"]["Entrypoint"]),
        ("cmd", &config["config"]["Cmd"]),
        ("env", &env),
        ("workdir", &config["config"]["WorkingDir"]),
        ("user", &config["config"]["User"]),
        ("ports", &config["config"]["ExposedPorts"]),
        ("volumes", &config["config"]["Volumes"]),
        ("labels", &config["config"]["Labels"]),
    ] {
        let is_empty = match value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            _ => false,
        };
        if !is_empty {
            let value = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            let _ = writeln!(text, "  {word:<10}  {}", one_line(&value));
        }
    }
    let annotations = it.manifest.as_ref().map(|it| &it["annotations"]);
    if let Some(annotations) = annotations.filter(|it| it.is_object()) {
        let line = one_line(&annotations.to_string());
        let _ = writeln!(text, "  annotations {line}");
    }
}

/// Keeps a text of a registry to one line, and free of what a terminal would obey.
fn one_line(text: &str) -> String {
    const MOST: usize = 159;
    shown::one_line(text, MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_those_of_ls() {
        for (mode, expected) in [
            (0o755, "rwxr-xr-x"),
            (0o4755, "rwsr-xr-x"),
            (0o1777, "rwxrwxrwt"),
            (0o6640, "rwSr-S---"),
            (0o1644, "rw-r--r-T"),
        ] {
            assert_eq!(permissions(mode), expected);
        }
        assert_eq!(time(0), "1970-01-01T00:00:00Z");
        assert_eq!(time(i64::MAX), i64::MAX.to_string());
        assert_eq!(time(-100), "-100");
    }
}
