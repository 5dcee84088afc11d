//! What contenders made: the files of a layer, and its size. Shares no code with what wrote them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use globset::{Glob, GlobSet, GlobSetBuilder};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Returns the size of all layers, in bytes.
pub(crate) fn size(result: &Path) -> io::Result<u64> {
    let layers = layers(result)?;
    layers.iter().map(|path| Ok(path.metadata()?.len())).sum()
}

/// Returns all files below `root`, each with the digest of its content.
pub(crate) fn list(
    result: &Path,
    root: &str,
    except: &[String],
) -> io::Result<BTreeMap<String, String>> {
    let except = globs(except)?;
    let mut files = BTreeMap::new();
    for layer in layers(result)? {
        let mut reader = BufReader::new(File::open(&layer)?);
        let magic = io::BufRead::fill_buf(&mut reader)?.to_vec();
        let reader: Box<dyn Read> = match magic[..] {
            [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::Decoder::with_buffer(reader)?),
            _ => Box::new(reader),
        };
        // Some tools end a tar with the last byte of its last file.
        let padded = reader.chain(io::repeat(0).take(1024));
        for entry in tar::Archive::new(padded).entries()? {
            let mut entry = entry?;
            let path = entry.path()?.into_owned();
            let path = path.strip_prefix(".").unwrap_or(&path);
            let path = path.strip_prefix("/").unwrap_or(path);
            let Ok(path) = path.strip_prefix(root) else {
                continue;
            };
            if !entry.header().entry_type().is_file() || except.is_match(path) {
                continue;
            }
            let mut hash = Sha256::new();
            let mut buffer = vec![0; 1 << 16];
            loop {
                match entry.read(&mut buffer)? {
                    0 => break,
                    count => hash.update(&buffer[..count]),
                }
            }
            let digest = hash.finalize();
            let digest = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            files.insert(path.display().to_string(), digest);
        }
    }
    match files.is_empty() {
        true => Err(io::Error::other(format!(
            "{} has no files below `{root}`",
            result.display()
        ))),
        false => Ok(files),
    }
}

/// Returns a path that is not alike in both.
pub(crate) fn difference<'a>(
    one: &'a BTreeMap<String, String>,
    other: &'a BTreeMap<String, String>,
) -> Option<&'a String> {
    let changed = one
        .iter()
        .find(|(path, digest)| other.get(*path) != Some(*digest));
    let added = || other.iter().find(|(path, _)| !one.contains_key(*path));
    changed.or_else(added).map(|(path, _)| path)
}

fn globs(patterns: &[String]) -> io::Result<GlobSet> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        set.add(Glob::new(pattern).map_err(io::Error::other)?);
    }
    set.build().map_err(io::Error::other)
}

/// Returns the layers of a layout's only image, or the one archive.
fn layers(result: &Path) -> io::Result<Vec<std::path::PathBuf>> {
    if result.is_file() {
        return Ok(vec![result.to_owned()]);
    }
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().unwrap_or_default();
        result.join("blobs").join(digest.replace(':', "/"))
    };
    let read =
        |path: &Path| -> io::Result<Value> { Ok(serde_json::from_slice(&std::fs::read(path)?)?) };
    let mut document = read(&result.join("index.json"))?;
    for _ in 0..4 {
        if let Some(layers) = document["layers"].as_array() {
            return Ok(layers.iter().map(blob).collect());
        }
        document = read(&blob(&document["manifests"][0]))?;
    }
    Err(io::Error::other("no manifest"))
}
