//! `inspect --raw`: the exact bytes of a manifest, index, config or layer.

use std::io::{self, Read};

use super::{Request, check_layer};
use crate::oci::Hasher;
use crate::source::{Piece, SourceError};
use crate::work::image::{Opened, Opener, Single};
use crate::work::{Blame, Failed, News, Session};

/// Takes bytes; returns whether it takes more.
type Take<'a> = &'a mut dyn FnMut(&[u8]) -> io::Result<bool>;

/// Hands out what the user asked for: a layer, a config, or the manifest: that of the platform if one is named, else the
/// root. `is_terminal` says that whoever takes it shows text alone.
///
/// # Errors
/// When there is no such thing, or it cannot be read or taken.
pub(crate) fn raw(
    session: &Session,
    request: &Request,
    is_terminal: bool,
    take: Take<'_>,
) -> Result<(), Failed> {
    let opener = Opener::new(session, &request.open)?;
    let opened = opener.open(&request.image)?;
    let over = News::Over { only_if_busy: true };
    if let Some(layer) = request.layer {
        check_layer(&opened, layer)?;
        let image = only(&opened, "a layer")?;
        let layers = opener.layers(&opened, image)?;
        session.news(&over);
        let Some(layer) = layers.get(layer - 1) else {
            return Err(Failed::bug("a layer is gone"));
        };
        if is_terminal {
            let message = "a layer is no text: a terminal cannot show it";
            let help = "send it to a file or a program, as `| tar -tvz`".to_owned();
            return Err(Failed::usage("imgdecl::inspect::raw", message, Some(help)));
        }
        return blob(session, layer.piece, take);
    }
    session.news(&over);
    let document = match (request.config, request.open.platforms.is_empty()) {
        (true, _) => only(&opened, "a config")?.config.as_ref(),
        (false, true) => opened.root.as_ref(),
        (false, false) => only(&opened, "a manifest")?.manifest.as_ref(),
    };
    let Some(document) = document else {
        let what = if request.config { "config" } else { "manifest" };
        let message = format!("{} has no {what}", opened.name);
        let help = "an archive of `docker save` has configs and layers alone".to_owned();
        return Err(Failed::usage("imgdecl::inspect::raw", message, Some(help)));
    };
    take(&document.bytes).map(drop).map_err(unwritable)
}

/// Returns the only image that there is.
fn only<'a>(opened: &'a Opened, what: &str) -> Result<&'a Single, Failed> {
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
    Err(Failed::usage("imgdecl::inspect::platform", &message, help))
}

/// Hands out a blob as it is kept, checked: a wrong digest is an error, if a late one.
fn blob(session: &Session, piece: &Piece, take: Take<'_>) -> Result<(), Failed> {
    let io = |error| Failed::from(piece.unreadable(error));
    let limit = piece.expected.map_or(u64::MAX, |blob| blob.size);
    let mut reader = piece.open().map_err(Failed::from)?.take(limit);
    let mut hasher = Hasher::default();
    let (mut buffer, mut size) = (vec![0; 1 << 16], 0);
    loop {
        let count = reader.read(&mut buffer).map_err(io)?;
        session.go_on()?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        size += count as u64;
        if !take(&buffer[..count]).map_err(unwritable)? {
            return Ok(());
        }
    }
    let found = hasher.finish();
    match piece.expected {
        Some(blob) if blob.digest != found || blob.size != size => {
            Err(Failed::from(piece.blame(SourceError::Digest {
                what: piece.what.clone(),
                expected: blob.digest,
                found,
            })))
        }
        _ => Ok(()),
    }
}

fn unwritable(error: io::Error) -> Failed {
    Failed::error(Blame::Build, "imgdecl::stdout", &error, None)
}
