//! `inspect`: what an image is made of. Documents always; layers where they are at hand, or the user asks for them.

mod contents;
mod raw;

use serde_json::Value;

use super::image::{Contents, Document, Listed, Open, Opened, Opener, Origin, Single};
use super::{Failed, News, Session};
use crate::oci::{Config, DiffId, is_of_layer};
use crate::source::Piece;
use crate::tar::Kind;
pub(crate) use contents::Waste;
#[cfg(test)]
pub(crate) use contents::tests::contents_of;
pub(crate) use raw::raw;

/// What is to be looked at.
#[derive(Default)]
pub(crate) struct Request {
    /// The image.
    pub(crate) image: String,
    /// How it is found.
    pub(crate) open: Open,
    /// The entries of its layers are wanted.
    pub(crate) files: bool,
    /// What later layers hide is wanted.
    pub(crate) waste: bool,
    /// Only this layer, counted from 1, bottom first.
    pub(crate) layer: Option<usize>,
    /// Of [`raw`]: the config is wanted.
    pub(crate) config: bool,
}

/// An image, and what was found out about it.
pub(crate) struct View {
    /// The image, but for its platforms.
    pub(crate) opened: Opened,
    /// The image tags of its repository.
    pub(crate) tags: Vec<String>,
    /// Its platforms.
    pub(crate) images: Vec<ImageView>,
    /// Layers that cannot be read, and why.
    pub(crate) unread: Vec<Failed>,
}

/// An image of one platform.
pub(crate) struct ImageView {
    /// The image.
    pub(crate) image: Single,
    /// Its manifest.
    pub(crate) manifest: Option<Value>,
    /// Its layers, bottom first.
    pub(crate) layers: Vec<LayerView>,
    /// What later layers hide of earlier ones, if all layers were read.
    pub(crate) waste: Option<Waste>,
}

/// One layer.
pub(crate) struct LayerView {
    /// Where it is.
    pub(crate) piece: Piece,
    /// Counted from 1, bottom first.
    pub(crate) number: usize,
    /// What the config says of it.
    pub(crate) diff_id: Option<DiffId>,
    /// The entry of the history that stands for it.
    pub(crate) history: Option<Value>,
    /// What is in it, if it was read.
    pub(crate) contents: Option<std::rc::Rc<Contents>>,
}

impl LayerView {
    /// Returns how it came about.
    pub(crate) fn created_by(&self) -> Option<&str> {
        let history = self.history.as_ref()?;
        let text = history["created_by"].as_str().filter(|it| !it.is_empty());
        text.or(history["comment"].as_str())
    }

    /// Returns the rule and the target that made it, of a layer of ours.
    pub(crate) fn made_by(&self) -> Option<(&str, &str)> {
        self.created_by()?.strip_prefix("imgdecl ")?.split_once(' ')
    }
}

/// Looks at an image: at its documents always, at its layers where they are at hand, or asked for.
///
/// # Errors
/// When its documents cannot be read. A layer that cannot be read is no error.
pub(crate) fn inspect(session: &Session, request: &Request) -> Result<View, Failed> {
    let opener = Opener::new(session, &request.open)?;
    let mut opened = opener.open(&request.image)?;
    if let Some(layer) = request.layer {
        check_layer(&opened, layer)?;
    }
    let images = std::mem::take(&mut opened.images).into_iter();
    let mut images: Vec<ImageView> = images.map(image).collect();
    let is_local = matches!(opened.origin, Origin::Layout | Origin::Archive);
    let mut unread = Vec::new();
    if is_local || request.files || request.waste {
        unread = contents::read(&opener, &opened, &mut images, request)?;
    }
    let tags = opener.tags(&opened);
    session.news(&News::Over { only_if_busy: true });
    session.go_on()?;
    Ok(View {
        opened,
        tags,
        images,
        unread,
    })
}

/// Makes sure that an image has the layer that the user asked for.
fn check_layer(opened: &Opened, layer: usize) -> Result<(), Failed> {
    let most = opened.images.iter().map(|image| image.layers.len()).max();
    let most = most.unwrap_or(0);
    if (1..=most).contains(&layer) {
        return Ok(());
    }
    let message = format!("{} has no layer {layer}", opened.name);
    let help = match most {
        0 => "it has no layers".to_owned(),
        1 => "it has one layer".to_owned(),
        most => format!("its layers are 1 to {most}, bottom first"),
    };
    Err(Failed::usage(
        "imgdecl::inspect::layer",
        &message,
        Some(help),
    ))
}

/// Returns the entries of a layer by path, whatever they are: as `tar -t | sort` has them. Those of one path stay in the
/// order of the tar: the last one counts.
pub(crate) fn by_path(contents: &Contents) -> Vec<&Listed> {
    let mut entries: Vec<_> = contents.entries.iter().collect();
    entries.sort_by(|a, b| {
        // Nearly all differ here, and bytes in a row are compared at once.
        let both = a.path.len().min(b.path.len());
        let start = a.path[..both].cmp(&b.path[..both]);
        start.then_with(|| name(a, both).cmp(name(b, both)))
    });
    entries
}

/// Returns the bytes of a path after the first ones. Some tars write folders without the slash.
fn name(entry: &Listed, from: usize) -> impl Iterator<Item = &u8> {
    let is_bare = entry.kind == Kind::Folder && !entry.path.ends_with(b"/");
    let slash: &[u8] = if is_bare { b"/" } else { b"" };
    entry.path[from..].iter().chain(slash)
}

pub(crate) fn parse(document: Option<&Document>) -> Option<Value> {
    serde_json::from_slice(&document?.bytes).ok()
}

/// Gathers what the documents of an image say.
fn image(image: Single) -> ImageView {
    let config = image.parsed();
    let diff_ids = config.as_ref().and_then(|it| it.diff_ids().ok());
    let diff_ids = diff_ids.unwrap_or_default();
    let history = config.as_ref().map(Config::history).unwrap_or_default();
    let mut history = history.entries().filter(is_of_layer);
    let layers = image.layers.iter().enumerate();
    let layers = layers.map(|(at, piece)| LayerView {
        piece: piece.clone(),
        number: at + 1,
        diff_id: diff_ids.get(at).copied(),
        history: history.next(),
        contents: None,
    });
    ImageView {
        layers: layers.collect(),
        manifest: parse(image.manifest.as_ref()),
        waste: None,
        image,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_all_kinds_are_in_one_order() {
        use Kind::{File, Folder, Symlink};
        let contents = contents_of(&[
            ("a/", Folder, 0),
            ("b", Folder, 0),
            ("b/x", File, 2),
            ("a/y", File, 0),
            ("a-link", Symlink, 0),
            ("b-file", File, 0),
            ("a/b/", Folder, 0),
            ("b/x", File, 1),
        ]);
        let sorted = by_path(&contents).into_iter();
        let sorted: Vec<(&str, u64)> = sorted
            .map(|it| (std::str::from_utf8(&it.path).unwrap(), it.size))
            .collect();
        assert_eq!(
            sorted,
            [
                ("a-link", 0),
                ("a/", 0),
                ("a/b/", 0),
                ("a/y", 0),
                ("b-file", 0),
                ("b", 0),
                ("b/x", 2),
                ("b/x", 1),
            ]
        );
    }
}
