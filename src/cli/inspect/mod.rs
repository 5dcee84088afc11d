//! `inspect`: what an image is made of. Documents always; layers where they are at hand, or the user asks for them.

mod contents;
mod json;
mod raw;
mod text;

use serde_json::Value;

use super::CANCEL;
use super::args::{self, Format};
use super::build::{print, stopped};
use super::exit::Exit;
use super::image::{Contents, Document, Opened, Opener, Origin, Single};
use super::setup::usage;
use crate::oci::{Config, DiffId, Digest, is_of_layer};
use crate::tar::{Entry, Kind};
use contents::Waste;
use std::sync::atomic::Ordering;

/// An image, and what was found out about it.
struct View<'a> {
    opened: &'a Opened,
    /// The image tags of its repository.
    tags: Vec<String>,
    images: Vec<ImageView<'a>>,
    /// Only this layer, counted from 1.
    layer: Option<usize>,
    with_files: bool,
    with_waste: bool,
}

/// An image of one platform.
struct ImageView<'a> {
    image: &'a Single,
    manifest: Option<Value>,
    layers: Vec<LayerView<'a>>,
    /// What later layers hide of earlier ones, if all layers were read.
    waste: Option<Waste>,
}

/// One layer.
struct LayerView<'a> {
    piece: &'a crate::source::Piece,
    /// Counted from 1, bottom first.
    number: usize,
    diff_id: Option<DiffId>,
    /// The entry of the history that stands for it.
    history: Option<Value>,
    contents: Option<std::rc::Rc<Contents>>,
}

impl LayerView<'_> {
    /// Returns how it came about.
    fn created_by(&self) -> Option<&str> {
        let history = self.history.as_ref()?;
        let text = history["created_by"].as_str().filter(|it| !it.is_empty());
        text.or(history["comment"].as_str())
    }

    /// Returns the rule and the target that made it, of a layer of ours.
    fn made_by(&self) -> Option<(&str, &str)> {
        self.created_by()?.strip_prefix("imgdecl ")?.split_once(' ')
    }
}

pub(super) fn inspect(args: &args::Inspect) -> Result<Exit, Exit> {
    let opener = Opener::new(&args.open)?;
    let opened = opener.open(&args.image)?;
    if args.raw {
        return raw::raw(args, &opener, &opened);
    }
    let mut images: Vec<ImageView<'_>> = opened.images.iter().map(image).collect();
    if let Some(layer) = args.layer {
        check_layer(&opened, layer)?;
    }
    let is_local = matches!(opened.origin, Origin::Layout | Origin::Archive);
    let mut exit = Exit::Done;
    if is_local || args.files || args.waste {
        exit = contents::read(&opener, &opened, &mut images, args)?;
    }
    let tags = opener.tags(&opened);
    opener.progress.close();
    if CANCEL.load(Ordering::Relaxed) {
        return Err(stopped());
    }
    let view = View {
        opened: &opened,
        tags,
        images,
        layer: args.layer,
        with_files: args.files,
        with_waste: args.waste,
    };
    print(&match args.format {
        Format::Json => json::view(&view),
        Format::Text => text::view(&view),
    })?;
    Ok(exit)
}

/// Makes sure that an image has the layer that the user asked for.
fn check_layer(opened: &Opened, layer: usize) -> Result<(), Exit> {
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
    Err(usage("imgdecl::inspect::layer", &message, Some(help)))
}

/// Returns the entries of a layer by path, whatever they are: as `tar -t | sort` has them. Those of one path stay in the
/// order of the tar: the last one counts.
fn by_path(contents: &Contents) -> Vec<&(Entry, Option<Digest>)> {
    let mut entries: Vec<_> = contents.entries.iter().collect();
    entries.sort_by(|a, b| name(&a.0).cmp(name(&b.0)));
    entries
}

/// Returns the bytes of a path. Some tars write folders without the slash.
fn name(entry: &Entry) -> impl Iterator<Item = &u8> {
    let is_bare = entry.kind == Kind::Folder && !entry.path.ends_with(b"/");
    let slash: &[u8] = if is_bare { b"/" } else { b"" };
    entry.path.iter().chain(slash)
}

fn parse(document: Option<&Document>) -> Option<Value> {
    serde_json::from_slice(&document?.bytes).ok()
}

/// Gathers what the documents of an image say.
fn image(image: &Single) -> ImageView<'_> {
    let config = image.parsed();
    let diff_ids = config.as_ref().and_then(|it| it.diff_ids().ok());
    let diff_ids = diff_ids.unwrap_or_default();
    let history = config.as_ref().map(Config::history).unwrap_or_default();
    let mut history = history.entries().filter(is_of_layer);
    let layers = image.layers.iter().enumerate();
    ImageView {
        image,
        manifest: parse(image.manifest.as_ref()),
        layers: layers
            .map(|(at, piece)| LayerView {
                piece,
                number: at + 1,
                diff_id: diff_ids.get(at).copied(),
                history: history.next(),
                contents: None,
            })
            .collect(),
        waste: None,
    }
}

#[cfg(test)]
mod tests {
    use super::contents::tests::contents_of;
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
            .map(|(it, _)| (std::str::from_utf8(&it.path).unwrap(), it.size))
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
