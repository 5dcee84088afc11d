//! `inspect --raw`: the exact bytes of a manifest, index, config or layer.

use std::io::Read;

use super::check_layer;
use crate::cli::args;
use crate::cli::build::stopped;
use crate::cli::exit::Exit;
use crate::cli::image::{Document, Opened, Opener, Single, explain};
use crate::cli::setup::usage;
use crate::cli::{CANCEL, report};
use crate::source::{Piece, SourceError};
use crate::ui;
use std::sync::atomic::Ordering;

/// Writes what the user asked for: a layer, a config, or the manifest: that of the platform if one is named, else the root.
pub(super) fn raw(
    args: &args::Inspect,
    opener: &Opener<'_>,
    opened: &Opened,
) -> Result<Exit, Exit> {
    if let Some(layer) = args.layer {
        check_layer(opened, layer)?;
        let image = only(opened, "a layer")?;
        let layers = opener.layers(opened, image)?;
        opener.progress.close();
        let Some(layer) = layers.get(layer - 1) else {
            return Err(Exit::Bug);
        };
        if ui::is_terminal() {
            let message = "a layer is no text: a terminal cannot show it";
            let help = "send it to a file or a program, as `| tar -tvz`";
            return Err(usage("imgdecl::inspect::raw", message, Some(help.into())));
        }
        return blob(layer.piece);
    }
    opener.progress.close();
    let document = match (args.config, args.open.platform.is_empty()) {
        (true, _) => only(opened, "a config")?.config.as_ref(),
        (false, true) => opened.root.as_ref(),
        (false, false) => only(opened, "a manifest")?.manifest.as_ref(),
    };
    let Some(document) = document else {
        let what = if args.config { "config" } else { "manifest" };
        let message = format!("{} has no {what}", opened.name);
        let help = "an archive of `docker save` has configs and layers alone";
        return Err(usage("imgdecl::inspect::raw", &message, Some(help.into())));
    };
    write(document)
}

/// Returns the only image that there is.
fn only<'a>(opened: &'a Opened, what: &str) -> Result<&'a Single, Exit> {
    let images = opened.images.iter().filter(|it| it.is_image());
    let images: Vec<&Single> = images.collect();
    if let [one] = images[..] {
        return Ok(one);
    }
    let message = format!("{} has {} images", opened.name, images.len());
    let have: Vec<String> = images.iter().map(|it| it.platform_name()).collect();
    let help = match have.is_empty() {
        true => None,
        false => Some(format!(
            "say whose {} it is, with `--platform`: {}",
            what.trim_start_matches("a "),
            have.join(", ")
        )),
    };
    Err(usage("imgdecl::inspect::platform", &message, help))
}

fn write(document: &Document) -> Result<Exit, Exit> {
    let written = match ui::is_terminal() {
        // A terminal obeys; whoever reads a pipe wants every byte.
        true => ui::data(&format!("{}\n", String::from_utf8_lossy(&document.bytes))),
        false => ui::bytes(&document.bytes).map(drop),
    };
    written
        .map(|()| Exit::Done)
        .map_err(|error| unwritable(&error))
}

/// Writes a blob as it is kept, checked: a wrong digest is an error, if a late one.
fn blob(piece: &Piece) -> Result<Exit, Exit> {
    let io = |source| {
        explain(&SourceError::Io {
            path: piece.path.clone(),
            source,
        })
    };
    let limit = piece.expected.map_or(u64::MAX, |blob| blob.size);
    let mut reader = piece.open().map_err(|error| explain(&error))?.take(limit);
    let mut hasher = crate::oci::Hasher::default();
    let (mut buffer, mut size) = (vec![0; 1 << 16], 0);
    loop {
        let count = reader.read(&mut buffer).map_err(io)?;
        if CANCEL.load(Ordering::Relaxed) {
            return Err(stopped());
        }
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        size += count as u64;
        if !ui::bytes(&buffer[..count]).map_err(|error| unwritable(&error))? {
            return Ok(Exit::Done);
        }
    }
    let found = hasher.finish();
    match piece.expected {
        Some(blob) if blob.digest != found || blob.size != size => {
            Err(explain(&piece.blame(SourceError::Digest {
                what: piece.what.clone(),
                expected: blob.digest,
                found,
            })))
        }
        _ => Ok(Exit::Done),
    }
}

fn unwritable(error: &std::io::Error) -> Exit {
    report::error("imgdecl::stdout", error, None);
    Exit::Failed
}
