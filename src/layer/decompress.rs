//! Decompresses layers and archives. What a stream is compressed with is told by its first bytes.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::GzDecoder;

use crate::oci::Compression;

/// How much memory the dictionary of an xz stream may take, in KiB: what the highest level of xz asks for, four times.
const XZ_MEMORY: u32 = 300 << 10;
/// The base-2 logarithm of zstd's largest window, in bytes: what zstd's own tool allows without being asked for more.
const ZSTD_WINDOW: u32 = 27;
/// How many bytes an archive may unpack to, whatever its size.
const GRACE: u64 = 1 << 30;
/// How many times its size an archive may unpack to, beyond that.
const RATIO: u64 = 200;

/// How an archive is compressed. Layers can be compressed as [`Compression`] says, and in no other way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Packing {
    /// As a layer can be, too.
    Layer(Compression),
    /// xz, with any number of streams.
    Xz,
    /// bzip2, with any number of streams.
    Bzip2,
}

/// A reader whose first bytes were looked at.
pub(super) type Peeked<R> = io::Chain<io::Cursor<Vec<u8>>, R>;

impl Packing {
    /// Tells by the first bytes how a stream is compressed, and gives them back.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn detect<R: Read>(mut reader: R) -> io::Result<(Self, Peeked<R>)> {
        let mut magic = Vec::with_capacity(6);
        reader.by_ref().take(6).read_to_end(&mut magic)?;
        let packing = match magic[..] {
            [0x1f, 0x8b, ..] => Self::Layer(Compression::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Layer(Compression::Zstd),
            [0xfd, b'7', b'z', b'X', b'Z', 0] => Self::Xz,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Self::Bzip2,
            _ => Self::Layer(Compression::None),
        };
        Ok((packing, io::Cursor::new(magic).chain(reader)))
    }

    /// Decompresses a stream.
    ///
    /// # Errors
    /// When a zstd decoder cannot be set up.
    pub(crate) fn decoder<'a>(
        self,
        reader: impl Read + Send + 'a,
    ) -> io::Result<Box<dyn Read + Send + 'a>> {
        let buffered = |reader| BufReader::with_capacity(1 << 16, reader);
        Ok(match self {
            Self::Layer(compression) => decoder(compression, reader)?,
            Self::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(
                buffered(reader),
                true,
                XZ_MEMORY,
            )),
            Self::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(buffered(reader))),
        })
    }
}

/// Tells by the first bytes how a layer is compressed, and gives them back.
///
/// # Errors
/// When it cannot be read.
pub fn detect<R: Read>(reader: R) -> io::Result<(Compression, Peeked<R>)> {
    let (packing, peeked) = Packing::detect(reader)?;
    let compression = match packing {
        Packing::Layer(compression) => compression,
        Packing::Xz | Packing::Bzip2 => Compression::None,
    };
    Ok((compression, peeked))
}

/// Decompresses a layer: gzip with any number of members, zstd with any number of frames, or nothing at all.
///
/// # Errors
/// When a zstd decoder cannot be set up.
pub fn decoder<'a>(
    compression: Compression,
    reader: impl Read + Send + 'a,
) -> io::Result<Box<dyn Read + Send + 'a>> {
    Ok(match compression {
        Compression::None => Box::new(reader),
        Compression::Gzip => Box::new(Gzip(Some(GzDecoder::new(BufReader::with_capacity(
            1 << 16,
            reader,
        ))))),
        Compression::Zstd => {
            let mut decoder = zstd::Decoder::new(reader)?;
            decoder.window_log_max(ZSTD_WINDOW)?;
            Box::new(decoder)
        }
    })
}

/// Decompresses the members of a gzip stream (RFC 1952, 2.2). Zeros behind the last one are passed over, as tapes and
/// `dd` leave them: GNU tar and Python do so, too.
struct Gzip<R>(Option<GzDecoder<R>>);

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.0 {
            let count = member.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            let rest = self.0.take().map(GzDecoder::into_inner);
            self.0 = rest.map(next_member).transpose()?.flatten();
        }
        Ok(0)
    }
}

/// Begins the next member; `None` at the end of the stream.
fn next_member<R: BufRead>(mut rest: R) -> io::Result<Option<GzDecoder<R>>> {
    let mut is_padded = false;
    loop {
        let ahead = rest.fill_buf()?;
        let zeros = ahead.iter().take_while(|byte| **byte == 0).count();
        match (ahead.len(), zeros) {
            (0, _) => return Ok(None),
            (_, 0) if is_padded => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "something follows the zeros behind the compressed data",
                ));
            }
            (_, 0) => return Ok(Some(GzDecoder::new(rest))),
            (_, zeros) => rest.consume(zeros),
        }
        is_padded = true;
    }
}

/// How many bytes an archive of `size` bytes may unpack to, with the holes of sparse files: more than any real one does.
/// An archive that is not compressed stays far below it.
pub(crate) fn most_unpacked(size: u64) -> u64 {
    GRACE.max(size.saturating_mul(RATIO))
}

/// Ends a stream, with an error, after so many bytes.
pub(crate) struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R> Bounded<R> {
    /// Lets the archive of `size` bytes unpack to as much as it may.
    pub(crate) fn new(inner: R, size: u64) -> Self {
        Self {
            inner,
            left: most_unpacked(size),
        }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        match self.left.checked_sub(count as u64) {
            Some(left) => self.left = left,
            None => return Err(too_large()),
        }
        Ok(count)
    }
}

/// The error of an archive that unpacks to more than it may.
pub(crate) fn too_large() -> io::Error {
    io::Error::other(format!(
        "it unpacks to more than {RATIO} times its size: no real archive does"
    ))
}

#[cfg(test)]
mod tests {
    use super::super::compress::compress;
    use super::*;

    fn read(packing: Packing, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        packing.decoder(bytes)?.read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn members_frames_and_plain() {
        let data: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
        for compression in [Compression::Gzip, Compression::Zstd, Compression::None] {
            let blob: Vec<u8> = data
                .chunks(70_000)
                .flat_map(|chunk| compress(compression, chunk))
                .collect();
            assert_eq!(detect(&blob[..]).unwrap().0, compression);
            let packing = Packing::Layer(compression);
            assert!(read(packing, &blob).unwrap() == data);
            if compression != Compression::None {
                assert!(read(packing, &blob[..blob.len() - 5]).is_err());
            }
        }
    }

    #[test]
    fn zeros_behind_gzip_are_passed_over() {
        let gzip = Packing::Layer(Compression::Gzip);
        let member = compress(Compression::Gzip, b"abc");
        let padded = [&member[..], &[0; 100_000]].concat();
        assert_eq!(read(gzip, &padded).unwrap(), b"abc");
        for more in [&member[..], b"junk"] {
            assert!(read(gzip, &[&padded, more].concat()).is_err());
        }
        assert!(read(gzip, &[&member[..], b"junk"].concat()).is_err());
    }

    #[test]
    fn what_unpacks_to_far_too_much_is_ended() {
        let mut bounded = Bounded::new(io::repeat(0), 6 << 20);
        let read = io::copy(&mut bounded.by_ref().take(1200 << 20), &mut io::sink());
        assert_eq!(read.unwrap(), 1200 << 20);
        assert!(io::copy(&mut bounded, &mut io::sink()).is_err());
        assert_eq!(most_unpacked(1), 1 << 30);
    }
}
