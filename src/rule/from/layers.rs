//! The layers that files are taken out of: fetched as far as they are needed, read in order, and checked.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use super::Ranges;
use crate::graph::{ActionError, Context, Layer, Origin, Product};
use crate::layer::{
    self, Bounded, Content, ContentAt, Facts, Item, LayerPath, Look, Merged, ReadError, Source,
    Topmost,
};
use crate::oci::{Descriptor, DiffId, Hasher, Reference};
use crate::rule::tar::Copy;
use crate::store::{Blob, Health, StoreError};
use crate::tar::Entries;

/// How many symlinks a file may lie behind.
const MAX_LINKS: usize = 40;

/// The layers of an image, bottom first.
pub(super) struct Layers<'a> {
    layers: Vec<(&'a Layer, Option<&'a Reference>)>,
    /// What knows the folders of the image.
    top: Option<&'a Product>,
    /// The name of the image.
    image: &'a str,
    origin: &'a Origin,
}

impl<'a> Layers<'a> {
    /// The layers among the products of nodes.
    pub(super) fn of(inputs: &'a [Product], image: &'a str, origin: &'a Origin) -> Self {
        let mut layers = Vec::new();
        let mut top = None;
        for product in inputs {
            match product {
                Product::Base(base) => {
                    layers.extend(base.layers.iter().map(|it| (it, base.remote.as_ref())));
                    top = Some(product);
                }
                Product::Layer(layer) => {
                    layers.push((layer, None));
                    top = None;
                }
                Product::Stack(_) => top = Some(product),
                _ => {}
            }
        }
        Self {
            layers,
            top,
            image,
            origin,
        }
    }

    /// Returns the blobs of those that other nodes made. What lies in a registry is fetched here.
    pub(super) fn here(&self) -> Vec<Blob> {
        let own = self.layers.iter().filter(|(_, remote)| remote.is_none());
        own.map(|(layer, _)| layer.blob()).collect()
    }

    /// Returns the folders and symlinks of the whole image.
    fn facts(&self, context: &Context<'_>) -> Result<Option<Arc<Facts>>, ActionError> {
        Ok(match self.top {
            Some(Product::Base(base)) => Some(base.facts.get(context)?),
            Some(Product::Stack(stack)) => Some(stack.above.get(context)?),
            _ => None,
        })
    }

    /// Makes sure that layers are in the store: those from number `from` to before `to`.
    fn fetch(&self, from: usize, to: usize, context: &Context<'_>) -> Result<(), ActionError> {
        let mut wanted: Vec<(&Reference, Vec<Descriptor>)> = Vec::new();
        for (layer, remote) in &self.layers[from..to] {
            let Some(remote) = remote else {
                continue;
            };
            // It is about to be read: one that is damaged unseen is found, and fetched anew.
            let _ = context.store.sound(&layer.descriptor.digest);
            match wanted.iter_mut().find(|(it, _)| it == remote) {
                Some((_, list)) => list.push(layer.descriptor.clone()),
                None => wanted.push((remote, vec![layer.descriptor.clone()])),
            }
        }
        for (remote, list) in wanted {
            let pulled = context.ports.registry.pull(remote, &list, context.folder);
            pulled.map_err(|error| error.at(self.origin))?;
        }
        Ok(())
    }

    /// Looks for a file from the topmost layer down, and fetches no layer below the one that has it. `None` where it cannot be
    /// told so: it is none, or layers above may have moved it.
    pub(super) fn topmost(
        &self,
        src: &LayerPath,
        context: &Context<'_>,
    ) -> Result<Option<Item>, ActionError> {
        let Some(facts) = self.facts(context)? else {
            return Ok(None);
        };
        let mut path = src.clone();
        'links: for _ in 0..MAX_LINKS {
            let Some(mut topmost) = Topmost::new(&path, &facts) else {
                return Ok(None);
            };
            for number in (0..self.layers.len()).rev() {
                self.fetch(number, number + 1, context)?;
                let mut look = Look::Doubt;
                self.read(number, context, &mut |reader| {
                    look = topmost.look(number, reader, context.tick)?;
                    Ok(())
                })?;
                match look {
                    Look::File(item) => return Ok(Some(item)),
                    Look::Link(to) => {
                        path = to;
                        continue 'links;
                    }
                    Look::Lower => {}
                    Look::Doubt => return Ok(None),
                }
            }
            return Ok(None);
        }
        Ok(None)
    }

    /// Merges all layers.
    pub(super) fn merge(&self, context: &Context<'_>) -> Result<Merged, ActionError> {
        self.fetch(0, self.layers.len(), context)?;
        let mut merged = Merged::default();
        for number in 0..self.layers.len() {
            self.read(number, context, &mut |reader| {
                merged.add(reader, context.tick)
            })?;
        }
        Ok(merged)
    }

    /// Keeps contents in a blob of the store, one after the other.
    pub(super) fn keep(
        &self,
        wanted: &BTreeSet<ContentAt>,
        context: &Context<'_>,
    ) -> Result<(Ranges, Blob), ActionError> {
        let mut contents = context.store.writer()?;
        let mut ranges = Ranges::new();
        let mut offset = 0;
        let nowhere: Arc<Path> = Path::new("").into();
        let mut by_layer: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        for at in wanted {
            by_layer.entry(at.layer).or_default().insert(at.entry);
        }
        for (number, mut entries) in by_layer {
            let mut unwritable = None;
            let read = self.read(number, context, &mut |reader| {
                let mut tar = Entries::new(reader);
                for entry in 0.. {
                    if entries.is_empty() || tar.next_entry()?.is_none() {
                        break;
                    }
                    if !entries.remove(&entry) {
                        continue;
                    }
                    let mut sink = Copy {
                        contents: &mut contents,
                        hasher: Hasher::default(),
                        tick: context.tick,
                    };
                    let size = copy(&mut tar, &mut sink, &mut unwritable)?;
                    let content = Content {
                        size,
                        digest: sink.hasher.finish(),
                        source: Source::Range {
                            path: nowhere.clone(),
                            offset,
                        },
                    };
                    offset += size;
                    let layer = number;
                    ranges.insert(ContentAt { layer, entry }, content);
                }
                Ok(())
            });
            if let Some(error) = unwritable {
                return Err(context.store.unwritable(error).into());
            }
            read?;
        }
        Ok((ranges, contents.complete()?))
    }

    /// Reads the tar of a layer, all of it, and checks that it is the one that the image's config names.
    fn read(
        &self,
        number: usize,
        context: &Context<'_>,
        take: &mut dyn FnMut(&mut dyn Read) -> Result<(), ReadError>,
    ) -> Result<(), ActionError> {
        let (layer, _) = self.layers[number];
        let blob = layer.blob();
        match context.store.check(&blob) {
            Health::Whole => {}
            health => return Err(context.lost(&blob, health)),
        }
        let failed = |error: ReadError| {
            if matches!(error, ReadError::Stopped) || !(context.tick)(0) {
                return ActionError::stopped();
            }
            // What lies in the cache was right when it came there.
            if let Err(StoreError::Damaged(_)) = context.store.sound(&blob.digest) {
                return context.lost(&blob, Health::Damaged);
            }
            let message = format!("cannot read the layer {} of `{}`", blob.digest, self.image);
            let error = self.damaged(message).because(&error);
            error.help("the image holds it like that: use another one")
        };
        let bytes = match context.store.open_blob(&blob) {
            Ok(bytes) => bytes,
            Err(StoreError::Damaged(_)) => return Err(context.lost(&blob, Health::Damaged)),
            Err(error) => return Err(error.into()),
        };
        let packing = layer.descriptor.media_type.compression();
        let opened = layer::detect(bytes)
            .and_then(|(found, peeked)| layer::decoder(packing.unwrap_or(found), peeked));
        let reader = opened.map_err(|error| failed(error.into()))?;
        let mut tar = Hashed {
            reader: Bounded::new(reader, blob.size),
            hasher: Hasher::default(),
            context,
        };
        take(&mut tar).map_err(failed)?;
        io::copy(&mut tar, &mut io::sink()).map_err(|error| failed(error.into()))?;
        let found = DiffId(tar.hasher.finish());
        if found == layer.diff_id {
            return Ok(());
        }
        let (digest, expected) = (blob.digest, layer.diff_id);
        Err(self.damaged(format!(
            "the layer {digest} of `{}` has the diff_id {found} instead of {expected}",
            self.image
        )))
    }

    fn damaged(&self, message: String) -> ActionError {
        ActionError::new("imgdecl::base::damaged", message).at(self.origin)
    }
}

/// Copies a content; a write that fails is told apart from a read that does.
fn copy(
    from: &mut dyn Read,
    to: &mut Copy<'_>,
    unwritable: &mut Option<io::Error>,
) -> io::Result<u64> {
    use io::Write as _;
    let mut buffer = vec![0; 256 << 10];
    let mut size = 0;
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            return Ok(size);
        }
        if let Err(error) = to.write_all(&buffer[..count]) {
            let text = error.to_string();
            *unwritable = Some(error);
            return Err(io::Error::other(text));
        }
        size += count as u64;
    }
}

/// Hashes what is read.
struct Hashed<'a, R> {
    reader: R,
    hasher: Hasher,
    context: &'a Context<'a>,
}

impl<R: Read> Read for Hashed<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !(self.context.tick)(0) {
            return Err(io::Error::other("stopped"));
        }
        let count = self.reader.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}
