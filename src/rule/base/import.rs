//! Brings an image that was found into the store, checked, and gathers its facts.

use std::io::{self, Read, Write};
use std::sync::Arc;

use super::look;
use crate::graph::{ActionError, Base, Context, Layer, Lazy, Product};
use crate::layer::{self, Facts, Gatherer, LayerPath};
use crate::oci::{Compression, Config, Descriptor, DiffId, Hasher, Reference, last_of_each};
use crate::rule::ecosystem::{Found as FoundInBase, Probes};
use crate::source::{Found, Piece, SourceError};
use crate::store::{Blob, Health, StoreError};

/// Where an image comes from, for messages.
pub(super) trait Source {
    /// Says what is wrong with it.
    fn explain(&self, error: &SourceError) -> ActionError;
    /// Says that it is damaged.
    fn damaged(&self, message: String) -> ActionError;
}

/// Takes each regular file of the layers, whiteouts too: the layer's number, the file's path and content.
pub(super) type Show<'a> = &'a mut dyn FnMut(usize, &LayerPath, &mut dyn Read) -> io::Result<()>;

/// Takes each regular file of one layer.
type ShowOne<'a> = &'a mut dyn FnMut(&LayerPath, &mut dyn Read) -> io::Result<()>;

/// A config, checked against the layers that the manifest names.
struct Checked {
    bytes: Vec<u8>,
    diff_ids: Vec<DiffId>,
}

/// Returns the diff_ids of an image, checked against its manifest.
pub(super) fn diff_ids(found: &Found, source: &dyn Source) -> Result<Vec<DiffId>, ActionError> {
    Ok(check(found, source)?.diff_ids)
}

fn check(found: &Found, source: &dyn Source) -> Result<Checked, ActionError> {
    let bytes = found.config.read().map_err(|it| source.explain(&it))?;
    let config = Config::parse(&bytes).map_err(|error| source.damaged(error.to_string()))?;
    let diff_ids = config
        .diff_ids()
        .map_err(|error| source.damaged(error.to_string()))?;
    if diff_ids.len() != found.layers.len() {
        return Err(source.damaged(format!(
            "the base has {} layers, and its config names {}",
            found.layers.len(),
            diff_ids.len()
        )));
    }
    for piece in &found.layers {
        let is_foreign = |it: &Descriptor| !it.urls.is_empty();
        if piece.descriptor.as_ref().is_some_and(is_foreign) {
            return Err(source.damaged(format!(
                "{} is kept outside of the image; such layers are not supported",
                piece.what
            )));
        }
    }
    Ok(Checked { bytes, diff_ids })
}

/// Imports an image with all its layers.
///
/// `show` is shown each regular file, by its path in the layer.
pub(super) fn import(
    context: &Context<'_>,
    found: &Found,
    source: &dyn Source,
    show: Show<'_>,
) -> Result<Base, ActionError> {
    let checked = check(found, source)?;
    let mut facts = look::builder();
    let mut layers = Vec::new();
    let diff_ids = checked.diff_ids.iter().copied();
    for (number, (piece, diff_id)) in found.layers.iter().zip(diff_ids).enumerate() {
        let blob = copy(context, piece, source)?;
        let show: ShowOne<'_> = &mut |path, content| show(number, path, content);
        let compression = examine(context, &blob, piece, diff_id, (&mut facts, show), source)?;
        layers.push(layer(piece, diff_id, blob, compression));
    }
    let gathered = facts.finish();
    look::remember(context, &checked.diff_ids, &gathered)?;
    let facts = gathered.facts;
    Ok(Base {
        name: found.name.clone(),
        digest: found.digest,
        remote: None,
        config: context.store.put_blob(&checked.bytes)?,
        layers,
        facts_blob: context.store.put_blob(facts.to_text().as_bytes())?,
        facts: Arc::new(Lazy::ready(Arc::new(facts))),
    })
}

/// Imports an image with all its layers, and finds in them what ecosystems look for.
pub(super) fn import_and_probe(
    context: &Context<'_>,
    found: &Found,
    source: &dyn Source,
) -> Result<(Base, FoundInBase), ActionError> {
    let mut probes = Probes::new();
    let base = import(context, found, source, &mut |layer, path, content| {
        probes.look(layer, path, content)
    })?;
    let config = Config::parse(&context.store.read_blob(&base.config)?);
    let env = config.map(|config| last_of_each(config.env()));
    Ok((base, probes.finish(&env.unwrap_or_default())))
}

/// Imports an image of a registry without its layers' bytes: `facts` are known already.
pub(super) fn import_remote(
    context: &Context<'_>,
    found: &Found,
    facts: Facts,
    remote: Reference,
    source: &dyn Source,
) -> Result<Product, ActionError> {
    let checked = check(found, source)?;
    let mut layers = Vec::new();
    for (piece, diff_id) in found.layers.iter().zip(checked.diff_ids) {
        let (Some(blob), Some(compression)) = (piece.expected, said(piece, source)?) else {
            return Err(source.damaged(format!("{} has no descriptor", piece.what)));
        };
        layers.push(layer(piece, diff_id, blob, compression));
    }
    Ok(Product::Base(Arc::new(Base {
        name: found.name.clone(),
        digest: found.digest,
        remote: Some(remote),
        config: context.store.put_blob(&checked.bytes)?,
        layers,
        facts_blob: context.store.put_blob(facts.to_text().as_bytes())?,
        facts: Arc::new(Lazy::ready(Arc::new(facts))),
    })))
}

fn layer(piece: &Piece, diff_id: DiffId, blob: Blob, compression: Compression) -> Layer {
    let media_type = piece.media_type.clone();
    let media_type = media_type.map_or(compression.layer(), |it| it.to_oci());
    let descriptor = match &piece.descriptor {
        Some(descriptor) => Descriptor {
            media_type,
            ..descriptor.clone()
        },
        None => Descriptor::new(media_type, blob.digest, blob.size),
    };
    Layer {
        descriptor,
        diff_id,
    }
}

/// Returns how a layer is compressed, as its media type says; `None` if it has none.
fn said(piece: &Piece, source: &dyn Source) -> Result<Option<Compression>, ActionError> {
    let Some(media_type) = &piece.media_type else {
        return Ok(None);
    };
    let known = media_type.compression().map(Some);
    known.ok_or_else(|| {
        source.damaged(format!(
            "{} has the media type {media_type}, which is no layer",
            piece.what
        ))
    })
}

/// Copies a layer into the store, checking digest and size where something names them.
fn copy(context: &Context<'_>, piece: &Piece, source: &dyn Source) -> Result<Blob, ActionError> {
    let explain = |error: SourceError| source.explain(&error);
    if let Some(blob) = piece
        .expected
        .filter(|blob| context.store.check(blob) == Health::Whole)
    {
        match context.store.sound(&blob.digest) {
            Ok(_) => return Ok(blob),
            Err(error) if piece.is_cached() => return Err(error.into()),
            // The base has it still.
            Err(_) => {}
        }
    }
    let limit = piece
        .expected
        .map_or(u64::MAX, |blob| blob.size.saturating_add(1));
    let mut reader = piece.open().map_err(explain)?.take(limit);
    let mut writer = context.store.writer()?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = reader
            .read(&mut buffer)
            .map_err(|error| explain(piece.unreadable(error)))?;
        if count == 0 {
            break;
        }
        writer
            .write_all(&buffer[..count])
            .map_err(|error| context.store.unwritable(error))?;
        if !(context.tick)(count as u64) {
            return Err(ActionError::stopped());
        }
    }
    let Some(expected) = &piece.expected else {
        return Ok(writer.complete()?);
    };
    writer
        .complete_verified_as(expected, &piece.what)
        .map_err(|error| match error {
            StoreError::Io { .. } => error.into(),
            _ if piece.is_cached() => piece.damage().map_or(error, StoreError::from).into(),
            other => source.damaged(other.to_string()),
        })
}

/// Reads a layer: checks its diff_id, and adds it to the facts.
fn examine(
    context: &Context<'_>,
    blob: &Blob,
    piece: &Piece,
    diff_id: DiffId,
    (facts, show): (&mut Gatherer, ShowOne<'_>),
    source: &dyn Source,
) -> Result<Compression, ActionError> {
    let fail = |message: String| source.damaged(message);
    let damaged = |error: &dyn std::error::Error| {
        fail(format!("cannot read {} as a layer", piece.what)).because(error)
    };
    let (found, peeked) =
        layer::detect(context.store.open_blob(blob)?).map_err(|error| damaged(&error))?;
    let compression = said(piece, source)?.unwrap_or(found);
    let reader = layer::decoder(compression, peeked).map_err(|error| damaged(&error))?;
    let mut reader = Tar {
        reader,
        hasher: Hasher::default(),
        tick: context.tick,
    };
    facts
        .apply_and_show(&mut reader, context.tick, show)
        .map_err(|error| damaged(&error))?;
    io::copy(&mut reader, &mut io::sink()).map_err(|error| damaged(&error))?;
    let found = DiffId(reader.hasher.finish());
    match found == diff_id {
        true => Ok(compression),
        false => Err(fail(format!(
            "{} has the diff_id {found} instead of {diff_id}",
            piece.what
        ))),
    }
}

/// Hashes the tar of a layer as it is read.
struct Tar<'a, R> {
    reader: R,
    hasher: Hasher,
    tick: crate::layer::Tick<'a>,
}

impl<R: Read> Read for Tar<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        match (self.tick)(0) {
            true => Ok(count),
            false => Err(io::Error::other("stopped")),
        }
    }
}
