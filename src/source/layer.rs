//! Reads the layer of an image that was found: its tar, uncompressed, with every digest and size checked on the way.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Piece, SourceError};
use crate::layer;
use crate::oci::{Compression, DiffId, Digest, Hasher};
use crate::store::Blob;

/// Reads the uncompressed tar of a layer. Nothing that comes out is to be trusted before [`LayerReader::finish`] agrees.
pub(crate) struct LayerReader<'a> {
    piece: &'a Piece,
    reader: Box<dyn Read + Send + 'a>,
    below: Shared<'a>,
    hasher: Hasher,
    size: u64,
    compression: Compression,
    go_on: Option<&'a dyn Fn() -> bool>,
}

/// What a layer turned out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Sizes {
    /// The blob: digest and size of the bytes as they are kept.
    pub blob: Blob,
    /// The digest of the uncompressed tar.
    pub diff_id: DiffId,
    /// The size of the uncompressed tar, in bytes.
    pub size: u64,
    /// How it is compressed.
    pub compression: Compression,
}

/// What lies below the decoder, which owns its reader: it is shared, so that what the decoder leaves can be read too.
type Shared<'a> = Arc<Mutex<Below<'a>>>;

/// Hashes what goes through.
struct Below<'a> {
    inner: Box<dyn Read + Send + 'a>,
    hasher: Hasher,
    size: u64,
}

impl Read for Below<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.size += count as u64;
        Ok(count)
    }
}

/// Lends what lies below to a decoder.
struct Lent<'a>(Shared<'a>);

impl Read for Lent<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let below = self.0.lock();
        below.unwrap_or_else(PoisonError::into_inner).read(buffer)
    }
}

impl Piece {
    /// Opens the piece as a layer.
    ///
    /// # Errors
    /// When it cannot be read, or has the media type of something else.
    pub(crate) fn open_layer(&self) -> Result<LayerReader<'_>, SourceError> {
        self.open_as_layer().map_err(|error| self.blame(error))
    }

    fn open_as_layer(&self) -> Result<LayerReader<'_>, SourceError> {
        let fail = |error| self.unreadable(error);
        let said = match &self.media_type {
            None => None,
            Some(kind) => Some(kind.compression().ok_or_else(|| SourceError::Document {
                what: self.what.clone(),
                kind: "layer",
                why: format!("its media type is {kind}"),
            })?),
        };
        // A byte more than there should be is enough to see that there are too many.
        let limit = self
            .expected
            .map_or(u64::MAX, |blob| blob.size.saturating_add(1));
        let below = Arc::new(Mutex::new(Below {
            inner: Box::new(self.open()?.take(limit)),
            hasher: Hasher::default(),
            size: 0,
        }));
        let (found, peeked) = layer::detect(Lent(below.clone())).map_err(fail)?;
        let compression = said.unwrap_or(found);
        Ok(LayerReader {
            piece: self,
            reader: layer::decoder(compression, peeked).map_err(fail)?,
            below,
            hasher: Hasher::default(),
            size: 0,
            compression,
            go_on: None,
        })
    }
}

impl Read for LayerReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.go_on.is_some_and(|go_on| !go_on()) {
            return Err(io::Error::other("stopped"));
        }
        let count = self.reader.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.size += count as u64;
        Ok(count)
    }
}

impl<'a> LayerReader<'a> {
    /// Goes on only as long as `go_on` says so: a small blob may hold a very large tar.
    #[must_use]
    pub(crate) fn while_true(self, go_on: &'a dyn Fn() -> bool) -> Self {
        Self {
            go_on: Some(go_on),
            ..self
        }
    }

    /// Reads what is left, and checks the blob's size and digest, and the diff_id if one is expected.
    ///
    /// # Errors
    /// When it cannot be read, or is not what it should be.
    pub(crate) fn finish(self, expected: Option<DiffId>) -> Result<Sizes, SourceError> {
        let piece = self.piece;
        self.check(expected).map_err(|error| piece.blame(error))
    }

    fn check(mut self, expected: Option<DiffId>) -> Result<Sizes, SourceError> {
        let piece = self.piece;
        let document = |why: String| SourceError::Document {
            what: piece.what.clone(),
            kind: "layer",
            why,
        };
        io::copy(&mut self, &mut io::sink()).map_err(|error| document(error.to_string()))?;
        let compression = self.compression;
        let (diff_id, size) = (DiffId(self.hasher.finish()), self.size);
        drop(self.reader);
        let mut below = self.below.lock().unwrap_or_else(PoisonError::into_inner);
        // Decoders stop at the end of what they know: bytes may follow.
        io::copy(&mut *below, &mut io::sink()).map_err(|error| document(error.to_string()))?;
        let blob = Blob {
            digest: below.hasher.clone().finish(),
            size: below.size,
        };
        if let Some(wanted) = piece.expected {
            check(piece, wanted, blob)?;
        }
        match expected {
            Some(expected) if expected != diff_id => Err(document(format!(
                "its diff_id is {diff_id}, and the config says {expected}"
            ))),
            _ => Ok(Sizes {
                blob,
                diff_id,
                size,
                compression,
            }),
        }
    }
}

fn check(piece: &Piece, wanted: Blob, found: Blob) -> Result<(), SourceError> {
    if wanted.size != found.size {
        return Err(SourceError::Document {
            what: piece.what.clone(),
            kind: "layer",
            why: match found.size > wanted.size {
                true => format!("it has more than {} bytes", wanted.size),
                false => format!("it has {} bytes instead of {}", found.size, wanted.size),
            },
        });
    }
    let (expected, found): (Digest, Digest) = (wanted.digest, found.digest);
    match expected == found {
        true => Ok(()),
        false => Err(SourceError::Digest {
            what: piece.what.clone(),
            expected,
            found,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Place, piece};
    use super::*;
    use crate::oci::{Descriptor, MediaType};
    use std::io::Write as _;

    fn kept(bytes: &[u8], as_said: &Descriptor) -> (tempfile::NamedTempFile, Piece) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        let place = Place::whole(file.path().to_owned());
        let made = piece(as_said, place, "a layer".into());
        (file, made)
    }

    #[test]
    fn a_layer_is_checked_to_its_last_byte() {
        let tar = vec![7u8; 100_000];
        let diff_id = DiffId(Digest::of(&tar));
        let zstd = zstd::encode_all(&tar[..], 1).unwrap();
        for (kind, bytes) in [(MediaType::OciLayerZstd, zstd), (MediaType::OciLayer, tar)] {
            let descriptor = Descriptor::of(kind, &bytes);
            let (_file, good) = kept(&bytes, &descriptor);
            let sizes = good.open_layer().unwrap().finish(Some(diff_id)).unwrap();
            assert_eq!(sizes.size, 100_000);
            assert_eq!(sizes.blob, Blob::from(&descriptor));
            let stopped = good.open_layer().unwrap().while_true(&|| false);
            assert!(stopped.finish(None).is_err());
            let other = DiffId(Digest::of(b"other"));
            assert!(good.open_layer().unwrap().finish(Some(other)).is_err());
            for damaged in [&bytes[..bytes.len() - 1], &[&bytes[..], b"x"].concat()] {
                let (_file, bad) = kept(damaged, &descriptor);
                let read = bad.open_layer().and_then(|it| it.finish(None));
                assert!(read.is_err(), "{} bytes", damaged.len());
            }
        }
        let text = Descriptor::of(MediaType::OciConfig, b"{}");
        let (_file, config) = kept(b"{}", &text);
        assert!(config.open_layer().is_err());
    }
}
