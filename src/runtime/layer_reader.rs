//! Reads layers on threads of their own: one decompresses, one hashes, and the caller reads the tar. Memory is bounded by
//! the chunks in flight. Knows nothing of what a tar holds.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Scope;

use super::{ApplyError, Limits};
use crate::layer;
use crate::oci::{Compression, DiffId, Hasher};
use crate::source::Piece;

/// How many bytes a chunk has at most.
const CHUNK: usize = 512 << 10;
/// How many chunks wait for each thread at most.
const WAITING: usize = 4;

/// What goes from thread to thread.
enum Message {
    /// Bytes of the tar.
    Bytes(Vec<u8>),
    /// The layer's end, and its diff_id once the tar was hashed.
    End(Option<DiffId>),
    /// It cannot be read.
    Failed(ApplyError),
}

/// The tars of some layers, one after the other.
pub(super) struct LayerReader {
    messages: Receiver<Message>,
    chunk: Vec<u8>,
    at: usize,
    /// The layer was read to its end, and has this diff_id.
    end: Option<DiffId>,
    failed: Option<ApplyError>,
    bytes: u64,
}

impl LayerReader {
    /// Starts to read `layers`, in order.
    pub(super) fn start<'scope>(
        scope: &'scope Scope<'scope, '_>,
        layers: &'scope [Piece],
        limits: Limits,
    ) -> Self {
        let (to_hasher, from_decoder) = sync_channel(WAITING);
        let (to_reader, messages) = sync_channel(WAITING);
        scope.spawn(move || {
            let mut total = 0;
            for (number, layer) in layers.iter().enumerate() {
                let name = name(number, layer);
                let sent = match decompress(&name, layer, &limits, &mut total, &to_hasher) {
                    Ok(true) => to_hasher.send(Message::End(None)),
                    // Nobody listens any more.
                    Ok(false) => return,
                    Err(error) => {
                        let _ = to_hasher.send(Message::Failed(error));
                        return;
                    }
                };
                if sent.is_err() {
                    return;
                }
            }
        });
        scope.spawn(move || {
            let mut hasher = Hasher::default();
            for mut message in from_decoder {
                match &mut message {
                    Message::Bytes(bytes) => hasher.update(bytes),
                    Message::End(diff_id) => {
                        *diff_id = Some(DiffId(std::mem::take(&mut hasher).finish()));
                    }
                    Message::Failed(_) => {}
                }
                if to_reader.send(message).is_err() {
                    return;
                }
            }
        });
        Self {
            messages,
            chunk: Vec::new(),
            at: 0,
            end: None,
            failed: None,
            bytes: 0,
        }
    }

    /// Returns why reading failed, where that was not the tar's fault.
    pub(super) fn failure(&mut self) -> Option<ApplyError> {
        self.failed.take()
    }

    /// Returns how many bytes were read so far.
    pub(super) fn bytes_read(&self) -> u64 {
        self.bytes
    }

    /// Reads the layer to its end, checks its diff_id, and goes on to the next one. Its blob was checked before it ended.
    pub(super) fn finish(
        &mut self,
        name: &str,
        expected: DiffId,
        go_on: &dyn Fn(u64) -> bool,
    ) -> Result<(), ApplyError> {
        let mut rest = vec![0; CHUNK];
        loop {
            match self.read(&mut rest) {
                Ok(0) => break,
                Ok(count) if go_on(count as u64) => {}
                Ok(_) => return Err(ApplyError::Stopped),
                Err(source) => {
                    return Err(self.failure().unwrap_or_else(|| ApplyError::Damaged {
                        layer: name.to_owned(),
                        source,
                    }));
                }
            }
        }
        match self.end.take() {
            Some(found) if found == expected => Ok(()),
            Some(found) => Err(ApplyError::DiffId {
                layer: name.to_owned(),
                expected,
                found,
            }),
            None => Err(ApplyError::Damaged {
                layer: name.to_owned(),
                source: io::Error::other("its end was not read"),
            }),
        }
    }
}

impl Read for LayerReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.chunk.len() {
            if self.end.is_some() || buffer.is_empty() {
                return Ok(0);
            }
            match self.messages.recv() {
                Ok(Message::Bytes(bytes)) => (self.chunk, self.at) = (bytes, 0),
                Ok(Message::End(diff_id)) => self.end = diff_id,
                Ok(Message::Failed(error)) => {
                    let message = error.to_string();
                    self.failed = Some(error);
                    return Err(io::Error::other(message));
                }
                Err(_) => return Err(io::Error::other("reading it ended early")),
            }
        }
        let count = buffer.len().min(self.chunk.len() - self.at);
        buffer[..count].copy_from_slice(&self.chunk[self.at..self.at + count]);
        self.at += count;
        self.bytes += count as u64;
        Ok(count)
    }
}

/// Returns what messages call a layer.
pub(super) fn name(number: usize, layer: &Piece) -> String {
    match &layer.expected {
        Some(blob) => format!("layer {} ({})", number + 1, blob.digest),
        None => format!("layer {} ({})", number + 1, layer.what),
    }
}

/// Counts and hashes what is read.
struct Hashed<R> {
    inner: R,
    hasher: Hasher,
    size: u64,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.size += count as u64;
        Ok(count)
    }
}

/// Lets the count be read while a decoder holds the reader.
struct Shared<'a, R>(&'a std::sync::Mutex<Hashed<R>>);

impl<R: Read> Read for Shared<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.lock() {
            Ok(mut inner) => inner.read(buffer),
            Err(_) => Err(io::Error::other("reading it failed before")),
        }
    }
}

/// Decompresses a layer, and checks its blob. False where nobody listens any more.
fn decompress(
    name: &str,
    layer: &Piece,
    limits: &Limits,
    total: &mut u64,
    to: &SyncSender<Message>,
) -> Result<bool, ApplyError> {
    let said = match &layer.media_type {
        None => None,
        Some(media_type) => Some(media_type.compression().ok_or(ApplyError::MediaType {
            layer: name.to_owned(),
            media_type: media_type.to_string(),
        })?),
    };
    // One more byte than there should be tells a blob that is too long.
    let most = layer
        .expected
        .map_or(u64::MAX, |blob| blob.size.saturating_add(1));
    let blob = std::sync::Mutex::new(Hashed {
        inner: layer.open()?.take(most),
        hasher: Hasher::default(),
        size: 0,
    });
    let sent = send_tar(name, said, &blob, limits, total, to);
    let mut blob = blob.into_inner().map_err(|_| ApplyError::Damaged {
        layer: name.to_owned(),
        source: io::Error::other("reading it failed before"),
    })?;
    if let Ok(false) | Err(ApplyError::Limit { .. }) = sent {
        return sent;
    }
    // What is behind the compressed data counts, too.
    let drained = io::copy(&mut blob, &mut io::sink());
    let (size, found) = (blob.size, blob.hasher.finish());
    // A blob that has other bytes is the better explanation of a tar that cannot be read.
    match layer.expected {
        Some(expected) if drained.is_ok() && (expected.size, expected.digest) != (size, found) => {
            return Err(ApplyError::Digest {
                layer: name.to_owned(),
                expected: expected.digest,
                expected_size: expected.size,
                found,
                size,
            });
        }
        _ => {}
    }
    sent?;
    drained.map_err(|source| ApplyError::Damaged {
        layer: name.to_owned(),
        source,
    })?;
    Ok(true)
}

/// Sends the tar of a blob. False where nobody listens any more.
fn send_tar<R: Read + Send>(
    name: &str,
    said: Option<Compression>,
    blob: &std::sync::Mutex<Hashed<R>>,
    limits: &Limits,
    total: &mut u64,
    to: &SyncSender<Message>,
) -> Result<bool, ApplyError> {
    let damaged = |source| ApplyError::Damaged {
        layer: name.to_owned(),
        source,
    };
    let limit = |what, limit, option| ApplyError::Limit {
        layer: name.to_owned(),
        what,
        limit,
        option,
    };
    let (found, peeked) = layer::detect(Shared(blob)).map_err(damaged)?;
    let mut decoder = layer::decoder(said.unwrap_or(found), peeked).map_err(damaged)?;
    let mut own = 0u64;
    loop {
        let mut chunk = Vec::with_capacity(CHUNK);
        let read = decoder.by_ref().take(CHUNK as u64).read_to_end(&mut chunk);
        let count = read.map_err(damaged)? as u64;
        if count == 0 {
            return Ok(true);
        }
        own += count;
        *total += count;
        if *total > limits.bytes {
            let bytes = format!("{} bytes", limits.bytes);
            let what = "and those below it unpack to more than anyone would expect";
            return Err(limit(what, bytes, "--max-size"));
        }
        let compressed = blob.lock().map_or(0, |blob| blob.size);
        if own > limits.grace && own / limits.ratio.max(1) > compressed {
            let ratio = format!("{} times its compressed size", limits.ratio);
            return Err(limit(
                "unpacks to far more than it is",
                ratio,
                "--max-ratio",
            ));
        }
        if to.send(Message::Bytes(chunk)).is_err() {
            return Ok(false);
        }
    }
}
