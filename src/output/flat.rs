//! `tar:FILE`: the files of one image as a plain tar, without layers, as `docker export` gives those of a container.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::archive::{check_place, paths, write_one};
use super::attached::left_out;
use super::docker_archive::pick;
use super::{
    Kind, Needs, Output, OutputError, Place, Planned, Report, Sink, Supply, check_one, fail, unread,
};
use crate::graph::Image;
use crate::layer::{self, FlatError, FlatRoot};
use crate::oci::Platform;
use crate::store::{Blobs, Damage};
use crate::tar::BLOCK;

/// The kind of sink.
pub(super) const KIND: Kind = Kind {
    word: "tar",
    place: Some("FILE"),
    make: |place| Arc::new(Flat(place)),
};

/// What stands behind the end of the tar, where no reader looks: by it a file is known as ours.
const MARK: &[u8] = b"imgdecl: the files of an image\n";

/// The files of one image as a tar.
struct Flat(Place);

impl fmt::Display for Flat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tar:{}", self.0)
    }
}

impl Sink for Flat {
    fn paths(&self) -> Vec<PathBuf> {
        paths(&self.0)
    }

    fn needs(&self) -> Needs {
        Needs::Bytes
    }

    fn check(&self) -> Result<(), OutputError> {
        check_place(&self.0, check)
    }

    fn check_images(&self, images: &[Planned<'_>], host: &Platform) -> Result<(), OutputError> {
        check_one(self, images)?;
        let mut images = images.iter();
        images.try_for_each(|it| pick(it.target, &it.platforms, host).map(drop))
    }

    fn write(&self, images: &[Output], supply: &Supply<'_>) -> Result<Vec<Report>, OutputError> {
        let Some(output) = images.first() else {
            return Ok(Vec::new());
        };
        let all = output.images();
        let platforms: Vec<Platform> = all.iter().map(|it| it.0.clone()).collect();
        let image = all[pick(&output.name, &platforms, supply.host)?].1;
        left_out(images, &self.to_string(), supply.note);
        let store = supply.store()?;
        let open = |number: usize| open_layer(image, number, store);
        let stop = supply.stop;
        let tick = |_| !stop.is_asked();
        let root = FlatRoot::read(image.layers.len(), &open, &tick);
        let root = root.map_err(|error| failed(&output.name, error, &self.0))?;
        let fill = |out: &mut dyn Write| {
            root.write(&open, out, &tick)?;
            let mut mark = [0; BLOCK];
            mark[..MARK.len()].copy_from_slice(MARK);
            out.write_all(&mark)
        };
        write_one(&self.0, check, &fill, supply)?;
        (supply.note)(&format!("written {self}"));
        Ok(Vec::new())
    }
}

/// Opens a layer of an image, decompressed.
fn open_layer(image: &Image, number: usize, store: &dyn Blobs) -> io::Result<Box<dyn Read + Send>> {
    let blob = store.open_blob(&image.layers[number].blob())?;
    let (compression, blob) = layer::detect(blob)?;
    layer::decoder(compression, blob)
}

/// Says why layers make no root.
fn failed(image: &str, error: FlatError, place: &Place) -> OutputError {
    match error {
        FlatError::Stopped => OutputError::Stopped,
        FlatError::Read { source, .. } if Damage::of(&source).is_some() => {
            unread(Path::new(&place.to_string()))(source)
        }
        source => OutputError::Flat {
            image: image.to_owned(),
            source,
        },
    }
}

/// Makes sure that `path` is such a tar of ours, or not there.
fn check(path: &Path) -> Result<(), OutputError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(fail(path)(error)),
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return Err(OutputError::NotOurs(path.to_owned())),
    }
    match has_mark(path).map_err(fail(path))? {
        true => Ok(()),
        false => Err(OutputError::NotOurs(path.to_owned())),
    }
}

/// Tells whether a file ends with the mark.
fn has_mark(path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    let Some(at) = size.checked_sub(BLOCK as u64) else {
        return Ok(false);
    };
    file.seek(SeekFrom::Start(at))?;
    let mut end = Vec::new();
    file.take(BLOCK as u64).read_to_end(&mut end)?;
    Ok(end
        .strip_prefix(MARK)
        .is_some_and(|it| it.iter().all(|byte| *byte == 0)))
}
