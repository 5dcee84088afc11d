//! What is in the layers of images, and what later layers hide of earlier ones.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::rc::Rc;

use super::{ImageView, Request};
use crate::layer::LayerPath;
use crate::oci::DiffId;
use crate::tar::{Kind, WHITEOUT, Whiteout};
use crate::work::Failed;
use crate::work::image::{Budget, Contents, Listed, Opened, Opener};

/// What later layers hide of earlier ones.
#[derive(Default)]
pub(crate) struct Waste {
    /// The bytes of hidden files, by layer.
    pub(crate) layers: Vec<u64>,
    /// The hidden files: path, layer that has it, layer that hides it (both from 1), size.
    pub(crate) files: Vec<(String, usize, usize, u64)>,
}

impl Waste {
    pub(crate) fn bytes(&self) -> u64 {
        self.layers.iter().sum()
    }
}

/// Reads the layers of images. Returns what cannot be read; the rest can be shown.
pub(super) fn read(
    opener: &Opener<'_>,
    opened: &Opened,
    images: &mut [ImageView],
    request: &Request,
) -> Result<Vec<Failed>, Failed> {
    let (mut unread, stop) = (Vec::new(), &opener.session.stop);
    // Platforms share layers.
    let mut known: BTreeMap<DiffId, Option<Rc<Contents>>> = BTreeMap::new();
    let mut budget = Budget::default();
    for view in images.iter_mut().filter(|view| view.image.is_image()) {
        let layers = opener.layers(opened, &view.image)?;
        for (slot, layer) in view.layers.iter_mut().zip(&layers) {
            // Waste is known of all layers alone.
            if !request.waste && request.layer.is_some_and(|wanted| wanted != slot.number) {
                continue;
            }
            let contents = match known.get(&layer.diff_id) {
                Some(known) => known.clone(),
                None => match Contents::read(
                    stop,
                    layer.piece,
                    layer.diff_id,
                    request.files,
                    &mut budget,
                ) {
                    Ok(contents) => Some(Rc::new(contents)),
                    Err(failed) if failed.is_stopped() => return Err(failed),
                    Err(failed) => {
                        unread.push(failed);
                        None
                    }
                },
            };
            known.insert(layer.diff_id, contents.clone());
            slot.contents = contents;
        }
        let all: Option<Vec<&Contents>> = view
            .layers
            .iter()
            .map(|it| it.contents.as_deref())
            .collect();
        view.waste = all.map(|all| waste(&all));
    }
    Ok(unread)
}

/// Finds what is hidden, by path alone: symlinks are not followed.
fn waste(layers: &[&Contents]) -> Waste {
    let mut seen = Seen::default();
    seen.waste.layers = vec![0; layers.len()];
    for (number, contents) in layers.iter().enumerate() {
        let mut own: Vec<(Cow<'_, str>, u64)> = Vec::new();
        for entry in &contents.entries {
            let Some(place) = LayerPath::clean(&entry.path) else {
                continue;
            };
            match (Whiteout::of(place.name().as_bytes()), place.parent()) {
                (Whiteout::Meaningless | Whiteout::Invalid, _) => {}
                (Whiteout::Opaque, Some(parent)) => seen.hide_below(&parent, number),
                (Whiteout::Name(_), Some(parent)) => {
                    let hidden = place.name().strip_prefix(WHITEOUT).unwrap_or_default();
                    if let Ok(hidden) = parent.join(hidden) {
                        seen.hide(hidden.as_str(), number);
                        seen.hide_below(&hidden, number);
                    }
                }
                _ => {
                    seen.hide(place.as_str(), number);
                    if entry.kind != Kind::Folder {
                        seen.hide_below(&place, number);
                    }
                    if entry.kind == Kind::File {
                        own.push((named(entry, &place), entry.size));
                    }
                }
            }
        }
        for (place, size) in own {
            // A path that stands twice in one layer hides itself.
            seen.hide(&place, number);
            seen.files.insert(place, (number, size));
        }
    }
    let mut waste = seen.waste;
    let key = |it: &(String, usize, usize, u64)| (std::cmp::Reverse(it.3), it.0.clone());
    waste.files.sort_by_key(key);
    waste
}

/// Returns where an entry goes, as text: most paths are written as they are meant, and need no text of their own.
fn named<'a>(entry: &'a Listed, place: &LayerPath) -> Cow<'a, str> {
    let written = entry.path.strip_prefix(b"./").unwrap_or(&entry.path);
    match std::str::from_utf8(written) {
        Ok(written) if written == place.as_str() => Cow::Borrowed(written),
        _ => Cow::Owned(place.as_str().to_owned()),
    }
}

/// The files that are visible so far.
#[derive(Default)]
struct Seen<'a> {
    files: BTreeMap<Cow<'a, str>, (usize, u64)>,
    waste: Waste,
}

impl Seen<'_> {
    fn hide(&mut self, path: &str, by: usize) {
        if let Some((layer, size)) = self.files.remove(path) {
            self.waste.layers[layer] = self.waste.layers[layer].saturating_add(size);
            let path = path.to_owned();
            self.waste.files.push((path, layer + 1, by + 1, size));
        }
    }

    fn hide_below(&mut self, folder: &LayerPath, by: usize) {
        let prefix = match folder.is_root() {
            true => String::new(),
            false => format!("{folder}/"),
        };
        let from = (Bound::Included(prefix.as_str()), Bound::Unbounded);
        let below = self.files.range::<str, _>(from).map(|(path, _)| path);
        let below = below.take_while(|path| path.starts_with(&prefix));
        let below: Vec<String> = below.map(|it| it.clone().into_owned()).collect();
        below.iter().for_each(|path| self.hide(path, by));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::oci::{Compression, Digest};
    use crate::source::Sizes;
    use crate::store::Blob;
    use crate::tar::Entry;

    /// Makes the contents of a layer: paths, kinds and sizes.
    pub(crate) fn contents_of(entries: &[(&str, Kind, u64)]) -> Contents {
        let digest = Digest::of(b"");
        let entries = entries.iter().map(|&(path, kind, size)| {
            let entry = Entry {
                path: path.into(),
                kind,
                mode: 0o644,
                uid: 0,
                gid: 0,
                user: Vec::new(),
                group: Vec::new(),
                mtime: (0, 0),
                size,
                holes: 0,
                link: None,
                device: None,
                records: BTreeMap::new(),
                offset: 0,
            };
            Listed::of(entry, None, &mut Arc::default())
        });
        Contents {
            sizes: Sizes {
                blob: Blob { digest, size: 0 },
                diff_id: DiffId(digest),
                size: 0,
                compression: Compression::None,
            },
            entries: entries.collect(),
        }
    }

    #[test]
    fn what_later_layers_hide_is_counted_once() {
        use Kind::{File, Folder, Symlink};
        let below = contents_of(&[
            ("a", Folder, 0),
            ("a/1", File, 1),
            ("a/2", File, 2),
            ("a-b", File, 4),
            ("b/x/y", File, 8),
            ("kept", File, 16),
            ("gone", File, 32),
        ]);
        let above = contents_of(&[
            ("a", Folder, 0),
            ("a/.wh..wh..opq", File, 0),
            ("a/1", File, 1),
            ("b", Symlink, 0),
            (".wh.gone", File, 0),
            ("twice", File, 64),
            ("twice", File, 128),
        ]);
        let top = contents_of(&[("a/1", File, 1)]);
        let waste = waste(&[&below, &above, &top]);
        assert_eq!(waste.layers, [1 + 2 + 8 + 32, 64 + 1, 0]);
        assert_eq!(waste.bytes(), 108);
        assert_eq!(waste.files[0], ("twice".to_owned(), 2, 2, 64));
        assert_eq!(waste.files.len(), 6);
    }
}
