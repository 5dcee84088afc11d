//! Compares layers: by digest, then entry by entry, header field by field, and byte by byte.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::mpsc::{Receiver, sync_channel};

use super::{Level, Place, Sink};
use crate::graph::Stop;
use crate::oci::{Digest, is_of_layer};
use crate::source::Piece;
use crate::tar::{Entries, TarError};
use crate::work::Failed;
use crate::work::image::{Budget, Contents, Layer, Listed, Opened, Opener, Single, open_layer};

/// How many bytes of a content are shown from where it differs.
const EXCERPT: usize = 24;
/// How many blocks of a content wait to be compared.
const WAITING: usize = 4;

/// Compares the layers of two images of one platform.
pub(super) fn layers(
    opener: &Opener<'_>,
    (a, of_a): (&Opened, &Single),
    (b, of_b): (&Opened, &Single),
    place: &Place,
    sink: &mut Sink,
) -> Result<(), Failed> {
    if !of_a.is_image() || !of_b.is_image() {
        artifact(of_a, of_b, place, sink);
        return Ok(());
    }
    let said = |image: &Single| {
        let config = image.parsed();
        let diff_ids = config.as_ref().and_then(|it| it.diff_ids().ok());
        let history = config.map(|it| it.history()).unwrap_or_default();
        let layers = history.entries().filter(is_of_layer);
        let made_by = layers.map(|it| it["created_by"].as_str().map(str::to_owned));
        (diff_ids.unwrap_or_default(), made_by.collect::<Vec<_>>())
    };
    let ((ids_a, made_by), (ids_b, _)) = (said(of_a), said(of_b));
    if ids_a.len() != ids_b.len() {
        let place = Place {
            field: Some("number of layers".to_owned()),
            ..place.clone()
        };
        let (count_a, count_b) = (ids_a.len().to_string(), ids_b.len().to_string());
        sink.push(Level::Layer, place, count_a, count_b);
    }
    let stop = &opener.session.stop;
    let mut at_hand: Option<(Vec<Layer<'_>>, Vec<Layer<'_>>)> = None;
    for number in 0..ids_a.len().min(ids_b.len()) {
        if sink.is_full() {
            break;
        }
        let place = Place {
            layer: Some(number + 1),
            made_by: made_by.get(number).cloned().flatten(),
            ..place.clone()
        };
        if ids_a[number] == ids_b[number] {
            let pieces = (of_a.layers.get(number), of_b.layers.get(number));
            if let (Some(a), Some(b)) = pieces {
                compression(a, b, place, sink);
            }
            continue;
        }
        if at_hand.is_none() {
            at_hand = Some((opener.layers(a, of_a)?, opener.layers(b, of_b)?));
        }
        if let Some((a, b)) = &at_hand
            && let (Some(a), Some(b)) = (a.get(number), b.get(number))
        {
            tars(stop, a, b, &place, sink)?;
        }
    }
    Ok(())
}

/// Compares what is no image: by the digests of its layers.
fn artifact(a: &Single, b: &Single, place: &Place, sink: &mut Sink) {
    let digests = |image: &Single| -> Vec<String> {
        let known = image.layers.iter().filter_map(|it| it.expected);
        known.map(|blob| blob.digest.to_string()).collect()
    };
    let (a, b) = (digests(a).join(", "), digests(b).join(", "));
    if a != b {
        sink.push(Level::Layer, place.clone(), a, b);
    }
}

/// Compares layers of the same tar: they may be compressed differently.
fn compression(a: &Piece, b: &Piece, place: Place, sink: &mut Sink) {
    let (Some(blob_a), Some(blob_b)) = (a.expected, b.expected) else {
        return;
    };
    let kind = |piece: &Piece| piece.media_type.as_ref().map(|it| it.to_oci());
    if blob_a == blob_b && kind(a) == kind(b) {
        return;
    }
    let words = |piece: &Piece, digest: Digest, size: u64| {
        let kind = piece.media_type.as_ref();
        let kind = kind.map_or_else(String::new, |it| format!("{it}, "));
        format!("{kind}{digest}, {size} bytes")
    };
    let words_a = words(a, blob_a.digest, blob_a.size);
    let words_b = words(b, blob_b.digest, blob_b.size);
    sink.push(Level::Compression, place, words_a, words_b);
}

/// Entries by path, and by how often the path stood before in the same tar.
fn by_path(contents: &Contents) -> BTreeMap<(&[u8], usize), usize> {
    let mut counts: BTreeMap<&[u8], usize> = BTreeMap::new();
    let entries = contents.entries.iter().enumerate();
    entries
        .map(|(at, entry)| {
            let count = counts.entry(&entry.path).or_default();
            *count += 1;
            ((&entry.path[..], *count), at)
        })
        .collect()
}

/// Compares two tars.
fn tars(
    stop: &Stop,
    a: &Layer<'_>,
    b: &Layer<'_>,
    place: &Place,
    sink: &mut Sink,
) -> Result<(), Failed> {
    let before = sink.found.len();
    let mut budget = Budget::default();
    let contents_a = Contents::read(stop, a.piece, a.diff_id, true, &mut budget)?;
    let contents_b = Contents::read(stop, b.piece, b.diff_id, true, &mut budget)?;
    let (paths_a, paths_b) = (by_path(&contents_a), by_path(&contents_b));
    let mut keys: Vec<(&(&[u8], usize), usize)> = paths_a.iter().map(|(k, at)| (k, *at)).collect();
    keys.sort_by_key(|(_, at)| *at);
    for (key, at) in keys {
        if sink.is_full() {
            return Ok(());
        }
        let entry_a = &contents_a.entries[at];
        let place = in_entry(place, &entry_a.path);
        let Some(&at_b) = paths_b.get(key) else {
            sink.push(Level::Entry, place, described(entry_a), "absent");
            continue;
        };
        let entry_b = &contents_b.entries[at_b];
        headers(entry_a, entry_b, &place, sink);
        if entry_a.digest != entry_b.digest && !sink.is_full() {
            content(stop, (a.piece, at), (b.piece, at_b), place, sink)?;
        }
    }
    let mut only_b: Vec<usize> = paths_b
        .iter()
        .filter(|(key, _)| !paths_a.contains_key(*key))
        .map(|(_, at)| *at)
        .collect();
    only_b.sort_unstable();
    for at in only_b {
        let entry = &contents_b.entries[at];
        let place = in_entry(place, &entry.path);
        sink.push(Level::Entry, place, "absent", described(entry));
    }
    if sink.found.len() > before {
        return Ok(());
    }
    let pairs = contents_a.entries.iter().zip(&contents_b.entries);
    let moved = pairs.into_iter().enumerate();
    let moved = moved.into_iter().find(|(_, (a, b))| a.path != b.path);
    if let Some((at, (a, b))) = moved {
        let place = Place {
            field: Some(format!("order of entries, at the {}th", at + 1)),
            ..place.clone()
        };
        sink.push(Level::Tar, place, shown(&a.path), shown(&b.path));
        return Ok(());
    }
    let go_on = || !stop.is_asked();
    let mut of_a = open_layer(a.piece, &go_on)?;
    let mut of_b = open_layer(b.piece, &go_on)?;
    let compared = first(&mut of_a, &mut of_b);
    let (offset, a, b) = compared.map_err(|error| broken(stop, a.piece, error))?;
    let place = Place {
        field: Some("bytes between the entries' contents".to_owned()),
        offset: Some(offset),
        ..place.clone()
    };
    sink.push(Level::Tar, place, a, b);
    Ok(())
}

fn in_entry(place: &Place, path: &[u8]) -> Place {
    Place {
        entry: Some(shown(path)),
        ..place.clone()
    }
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn described(entry: &Listed) -> String {
    match entry.size {
        0 => entry.kind.word().to_owned(),
        size => format!("{}, {size} bytes", entry.kind.word()),
    }
}

/// Compares the headers of two entries.
fn headers(a: &Listed, b: &Listed, place: &Place, sink: &mut Sink) {
    let optional = |bytes: Option<&[u8]>| bytes.map_or("none".to_owned(), shown);
    let device = |it: &Listed| {
        let numbers = it.device();
        numbers.map_or("none".to_owned(), |(major, minor)| {
            format!("{major},{minor}")
        })
    };
    let both = |of: &dyn Fn(&Listed) -> String| (of(a), of(b));
    let fields = [
        ("type", both(&|it| it.kind.word().to_owned())),
        ("mode", both(&|it| format!("{:04o}", it.mode))),
        ("uid", both(&|it| it.uid.to_string())),
        ("gid", both(&|it| it.gid.to_string())),
        ("user name", both(&|it| format!("{:?}", shown(it.user())))),
        ("group name", both(&|it| format!("{:?}", shown(it.group())))),
        ("mtime", both(&|it| it.mtime.0.to_string())),
        ("link", both(&|it| optional(it.link()))),
        ("device", both(&device)),
    ];
    let mut differ = |field: &str, a: String, b: String| {
        if a != b {
            let place = Place {
                field: Some(field.to_owned()),
                ..place.clone()
            };
            sink.push(Level::Header, place, a, b);
        }
    };
    for (field, (a, b)) in fields {
        differ(field, a, b);
    }
    let only_b = b.records().keys();
    let only_b = only_b.filter(|key| !a.records().contains_key(*key));
    for key in a.records().keys().chain(only_b) {
        let value = |it: &Listed| {
            let value = it.records().get(key);
            value.map_or("absent".to_owned(), |it| shown(it))
        };
        differ(&format!("PAX record {}", shown(key)), value(a), value(b));
    }
}

/// Finds where the contents of two entries differ.
fn content(
    stop: &Stop,
    (a, at_a): (&Piece, usize),
    (b, at_b): (&Piece, usize),
    place: Place,
    sink: &mut Sink,
) -> Result<(), Failed> {
    // Both are read at once: neither can be held, in memory or on disk, as a small layer may have very large contents.
    let mut found = None;
    std::thread::scope(|scope| {
        let (to, from) = sync_channel(WAITING);
        let other = scope.spawn(move || {
            each(stop, a, at_a, &mut |content| {
                loop {
                    let block = block(content)?;
                    // Nobody listens any more once a difference was found.
                    if block.is_empty() || to.send(block).is_err() {
                        return Ok(());
                    }
                }
            })
        });
        let mut of_a = Blocks {
            from,
            block: Vec::new(),
            at: 0,
        };
        let compared = each(stop, b, at_b, &mut |content| {
            found = Some(first(&mut of_a, content)?);
            Ok(())
        });
        drop(of_a);
        let other = other
            .join()
            .unwrap_or_else(|_| Err(Failed::bug("a reader of a layer is gone")));
        other.and(compared)
    })?;
    if let Some((offset, a, b)) = found {
        let place = Place {
            field: Some("content".to_owned()),
            offset: Some(offset),
            ..place
        };
        sink.push(Level::Content, place, a, b);
    }
    Ok(())
}

/// A content that another thread reads.
struct Blocks {
    from: Receiver<Vec<u8>>,
    block: Vec<u8>,
    at: usize,
}

impl Read for Blocks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.block.len() {
            (self.block, self.at) = (self.from.recv().unwrap_or_default(), 0);
        }
        let count = buffer.len().min(self.block.len() - self.at);
        buffer[..count].copy_from_slice(&self.block[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

/// Shows the content of one entry of a layer, by its number.
fn each(
    stop: &Stop,
    piece: &Piece,
    wanted: usize,
    show: &mut dyn FnMut(&mut dyn Read) -> io::Result<()>,
) -> Result<(), Failed> {
    let go_on = || !stop.is_asked();
    let mut reader = open_layer(piece, &go_on)?;
    let mut tar = Entries::new(&mut reader);
    let mut read = || -> Result<(), TarError> {
        for _ in 0..=wanted {
            tar.next_entry()?;
        }
        Ok(show(&mut tar)?)
    };
    read().map_err(|error| broken(stop, piece, io::Error::other(error)))
}

fn broken(stop: &Stop, piece: &Piece, source: io::Error) -> Failed {
    if stop.is_asked() {
        return Failed::Stopped;
    }
    Failed::from(piece.unreadable(source))
}

/// Finds the first byte at which two streams differ, and what follows there.
fn first(a: &mut dyn Read, b: &mut dyn Read) -> io::Result<(u64, String, String)> {
    let mut offset = 0;
    loop {
        let (block_a, block_b) = (block(a)?, block(b)?);
        let equal = block_a.iter().zip(&block_b).take_while(|(a, b)| a == b);
        let equal = equal.count();
        if equal < block_a.len() || equal < block_b.len() || block_a.is_empty() {
            let words = (excerpt(&block_a, equal), excerpt(&block_b, equal));
            return Ok((offset + equal as u64, words.0, words.1));
        }
        offset += equal as u64;
    }
}

/// Reads as much as there is, up to a limit.
fn block(reader: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(1 << 16).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Shows the bytes from an offset on, as text with escapes.
pub(super) fn excerpt(bytes: &[u8], offset: usize) -> String {
    match bytes.get(offset..).unwrap_or_default() {
        [] => "it ends there".to_owned(),
        rest => format!("\"{}\"", rest[..rest.len().min(EXCERPT)].escape_ascii()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_that_differs() {
        let find = |a: &[u8], b: &[u8]| first(&mut &a[..], &mut &b[..]).unwrap();
        let words = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let (offset, a, b) = find(b"same one\n", b"same two\n");
        assert_eq!((offset, (a, b)), (5, words("\"one\\n\"", "\"two\\n\"")));
        let (offset, a, b) = find(b"ab", b"abc");
        assert_eq!((offset, (a, b)), (2, words("it ends there", "\"c\"")));
        let mut long = vec![b'x'; 200_000];
        let other = long.clone();
        long[150_000] = b'y';
        assert_eq!(find(&long, &other).0, 150_000);
    }
}
