//! OCI image layouts (image-spec, image-layout.md).

use std::io;
use std::path::{Path, PathBuf};

use super::{
    Blobs, Found, Piece, Place, SourceError, documents, piece, read_document, resolve, select,
};
use crate::oci::{Descriptor, Index, Platform};

/// An OCI image layout in a folder.
pub(crate) struct Layout {
    root: PathBuf,
    index: Index,
}

impl Layout {
    /// Opens the layout in the folder `root`.
    ///
    /// # Errors
    /// When there is no layout.
    pub(crate) fn open(root: &Path) -> Result<Self, SourceError> {
        let fail = |why: String| SourceError::NoLayout {
            path: root.to_owned(),
            why,
        };
        let document = |name: &str| {
            read_document(&root.join(name)).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => fail(format!("it has no {name}")),
                _ => fail(format!("its {name} cannot be read: {error}")),
            })
        };
        check_version(&document("oci-layout")?).map_err(fail)?;
        let index = serde_json::from_slice(&document("index.json")?);
        let index = index.map_err(|error| fail(format!("index.json is damaged: {error}")))?;
        Ok(Self {
            root: root.to_owned(),
            index,
        })
    }

    /// Returns the entry of the index that `reference` names, or the only one.
    ///
    /// # Errors
    /// When there is none, or there are several and no reference.
    pub(crate) fn select(&self, reference: Option<&str>) -> Result<Descriptor, SourceError> {
        select(&self.index, reference, &self.what())
    }

    /// Returns the entries of the index that are documents, and no images.
    pub(crate) fn documents(&self) -> Vec<Descriptor> {
        documents(&self.index)
    }

    /// Finds the image of one platform behind an entry of the index.
    ///
    /// # Errors
    /// When it is not there, or a document on the way is damaged.
    pub(crate) fn find(
        &self,
        root: &Descriptor,
        platform: &Platform,
    ) -> Result<Found, SourceError> {
        resolve(self, root, platform)
    }
}

/// Checks the `oci-layout` file.
pub(super) fn check_version(bytes: &[u8]) -> Result<(), String> {
    let version: Option<serde_json::Value> = serde_json::from_slice(bytes).ok();
    match version
        .as_ref()
        .and_then(|it| it.get("imageLayoutVersion"))
        .and_then(|it| it.as_str())
    {
        Some("1.0.0") => Ok(()),
        Some(other) => Err(format!("its version is {other}, and not 1.0.0")),
        None => Err("its oci-layout file is damaged".to_owned()),
    }
}

impl Blobs for Layout {
    fn what(&self) -> String {
        format!("the layout {}", self.root.display())
    }

    fn piece(&self, descriptor: &Descriptor) -> Result<Piece, SourceError> {
        let path = self.root.join("blobs/sha256").join(descriptor.digest.hex());
        let what = format!("the blob {}", path.display());
        Ok(piece(descriptor, Place::whole(path), what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_is_absent() {
        let version = serde_json::json!({"imageLayoutVersion": "1.0.0", "x": 1});
        crate::oci::assert_null_is_absent(&version, check_version);
    }
}
