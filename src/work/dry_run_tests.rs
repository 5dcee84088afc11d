//! A dry run: a toy rule and a toy ecosystem are locked and built as the true ones are, by the same code.

use std::fs;
use std::io::Read;

use super::build::{self, build};
use super::lock::{self, Locked, lock};
use super::testing::session;
use super::{Choice, Failed, Session};
use crate::layer::{decoder, detect};
use crate::output::Output;
use crate::plan::PlanError;
use crate::store::Blobs as _;

/// A base with a soil, and a manifest that builds on it.
struct Place {
    folder: tempfile::TempDir,
}

const GROUND: &str = r#"
[files.soil]
src  = "soil"
dest = "/etc/soil"

[image.ground]
base   = "scratch"
layers = ["soil"]
"#;

const APP: &str = r#"
[base.ground]
layout = "ground"

[seed.garden]
seeds = ["oak", "elm=1"]

[motd.hello]
text = "welcome"

[image.app]
base   = "ground"
layers = ["garden", "hello"]
"#;

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = Self { folder };
        place.lay("clay\n");
        place
    }

    /// Makes the base, with this soil.
    fn lay(&self, soil: &str) {
        for folder in ["imgdecl-out", "ground"] {
            let _ = fs::remove_dir_all(self.path(folder));
        }
        self.write("soil", soil);
        self.write("image.toml", GROUND);
        self.build(None).unwrap();
        fs::rename(self.path("imgdecl-out"), self.path("ground")).unwrap();
        self.write("image.toml", APP);
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn lock_text(&self) -> String {
        fs::read_to_string(self.path("image.lock")).unwrap()
    }

    fn session(&self) -> Session {
        session(self.folder.path()).0
    }

    fn lock(&self, update: Option<Vec<String>>) -> Result<Locked, Failed> {
        let request = lock::Request {
            update,
            ..lock::Request::default()
        };
        lock(&self.session(), &request)
    }

    fn build(&self, locked: Option<bool>) -> Result<Output, Failed> {
        let request = build::Request {
            choice: Choice::default(),
            locked,
            ..build::Request::default()
        };
        let mut images = build(&self.session(), &request)?;
        assert_eq!(images.len(), 1);
        Ok(images.remove(0))
    }

    /// Returns the bytes of each layer's tar.
    fn layers(&self, output: &Output) -> Vec<Vec<u8>> {
        let store = self.session().store().unwrap();
        let (_, image) = output.images()[0];
        let layers = image.layers.iter().map(|layer| {
            let blob = store.open_blob(&layer.blob()).unwrap();
            let (compression, blob) = detect(blob).unwrap();
            let mut bytes = Vec::new();
            let mut tar = decoder(compression, blob).unwrap();
            tar.read_to_end(&mut bytes).unwrap();
            bytes
        });
        layers.collect()
    }
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|it| it == text.as_bytes())
}

#[test]
fn toys_are_locked_and_built() {
    let place = Place::new();
    let locked = place.lock(None).unwrap();
    assert!(locked.unplanned.is_none());
    let [name, _, platform, seeds] = &locked.changes[..] else {
        panic!("{:?}", locked.changes)
    };
    assert_eq!(name, "ground: new, on disk");
    assert_eq!(platform, "  linux/amd64  no Python; clay");
    assert_eq!(seeds, "garden: seeds for 1 soils");
    let text = place.lock_text();
    let entry = "[base.ground.platform.\"linux/amd64\"]\nsoil = \"clay\"\n";
    assert!(text.contains(entry), "{text}");
    let entry = "[seed.garden.soil.clay]\nelm = \"1\"\noak = \"2\"\n";
    assert!(text.contains(entry), "{text}");

    let output = place.build(Some(true)).unwrap();
    let layers = place.layers(&output);
    let expected = ["clay", "elm 1", "oak 2", "welcome"];
    assert_eq!(layers.len(), expected.len());
    for (layer, text) in layers.iter().zip(expected) {
        assert!(holds(layer, text), "{text}");
    }
    let again = place.build(Some(true)).unwrap();
    assert_eq!(again.descriptor(), output.descriptor());
    assert_eq!(place.lock(None).unwrap().changes, Vec::<String>::new());
    assert_eq!(place.lock_text(), text);
}

#[test]
fn what_a_toy_lacks_is_resolved_by_a_build() {
    let place = Place::new();
    assert!(matches!(place.build(Some(true)), Err(Failed::Problems(..))));
    place.build(None).unwrap();
    let locked = place.lock_text();
    // Another soil is another need.
    place.lay("sand\n");
    place.build(None).unwrap();
    let text = place.lock_text();
    assert_ne!(text, locked);
    assert!(text.contains("[seed.garden.soil.sand]"), "{text}");
    // What nothing needs is dropped.
    let bare = APP.replace("\"garden\", ", "");
    place.write("image.toml", &bare);
    let changes = place.lock(None).unwrap().changes;
    assert_eq!(changes[0], "ground: removed, was on disk");
    assert!(!place.lock_text().contains("seed"));
}

#[test]
fn what_is_wrong_with_a_toy_is_told() {
    let place = Place::new();
    place.write("image.toml", &APP.replace("oak", "cactus"));
    let Err(Failed::Run(failures)) = place.lock(None) else {
        panic!("a cactus grows on clay")
    };
    assert_eq!(failures[0].error.message, "a cactus needs sand");
    assert_eq!(failures[0].label.to_string(), "seed garden");

    place.write("image.toml", APP);
    place.lock(None).unwrap();
    let text = place.lock_text();
    place.write("image.lock", &text.replace("oak = \"2\"", "oak = \"3\""));
    let Err(Failed::Lock(error)) = place.build(None) else {
        panic!("the lock was edited")
    };
    assert!(error.message.contains("`garden` in image.lock was edited"));
    place.write("image.lock", &text.replace("\"clay\"", "\"sand\""));
    let Err(Failed::Lock(error)) = place.build(None) else {
        panic!("the lock was edited")
    };
    assert!(error.message.contains("`ground` in image.lock was edited"));
    place.lock(Some(Vec::new())).unwrap();
    assert_eq!(place.lock_text(), text);

    let twice = APP.replace("[\"garden\", ", "[\"garden\", \"other\", ");
    place.write(
        "image.toml",
        &format!("{twice}\n[seed.other]\nseeds = [\"oak=1\"]\n"),
    );
    let unplanned = place.lock(None).unwrap().unplanned;
    let Some(Failed::Plan { error, .. }) = unplanned else {
        panic!("{unplanned:?}")
    };
    let PlanError::Problems(problems) = *error else {
        panic!("{error:?}")
    };
    let text = format!("{problems:?}");
    assert!(
        text.contains("`garden` and `other` sow oak twice"),
        "{text}"
    );
}
