//! `toy:FILE`: a list of what was built, with the user of each image. A toy, for tests alone: it shows what a new sink takes.

use std::fmt;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use super::{Kind, Needs, Output, OutputError, Report, Sink, Supply, fail};
use crate::oci::Config;

/// The kind of sink.
pub(super) const KIND: Kind = Kind {
    word: "toy",
    place: Some("FILE"),
    make: |place| Arc::new(Toy(place.into_path())),
};

/// The line by which a list is known.
const HEAD: &str = "a list of imgdecl\n";

/// A list in a file.
struct Toy(PathBuf);

impl fmt::Display for Toy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "toy:{}", self.0.display())
    }
}

impl Sink for Toy {
    fn paths(&self) -> Vec<PathBuf> {
        vec![self.0.clone()]
    }

    /// Configs are documents of images: they are there whatever is asked for.
    fn needs(&self) -> Needs {
        Needs::Digests
    }

    fn check(&self) -> Result<(), OutputError> {
        match fs::read_to_string(&self.0) {
            Ok(text) if text.starts_with(HEAD) => Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            _ => Err(OutputError::NotOurs(self.0.clone())),
        }
    }

    fn write(&self, images: &[Output], supply: &Supply<'_>) -> Result<Vec<Report>, OutputError> {
        let mut text = HEAD.to_owned();
        let mut reports = Vec::new();
        for image in images {
            let mut lines = 0;
            for (platform, made) in image.images() {
                if supply.stop.is_asked() {
                    return Err(OutputError::Stopped);
                }
                let config = supply.store()?.read_blob(&made.config)?;
                let config = Config::parse(&config).map_err(|error| OutputError::Damaged {
                    path: self.0.clone(),
                    why: error.to_string(),
                })?;
                let user = config.runtime("User").and_then(Value::as_str);
                let user = user.unwrap_or("root");
                let digest = made.manifest.digest;
                text.push_str(&format!("{} {platform} {user} {digest}\n", image.name));
                lines += 1;
            }
            reports.push(("toy", json!({ "lines": lines })));
        }
        // Whole, or not at all.
        let folder = self.0.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(fail(folder))?;
        file.write_all(text.as_bytes()).map_err(fail(&self.0))?;
        let written = file.persist(&self.0);
        written.map_err(|error| fail(&self.0)(error.error))?;
        (supply.note)(&format!("written {self}"));
        Ok(reports)
    }
}
