//! Archives that change under the hands of whoever reads them.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::graph::{Forgetful, Origin, Ports, SourceText};
use crate::oci::MediaType;
use crate::store::Store;
use crate::tar::testing;

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let files = files
        .iter()
        .flat_map(|(path, content)| testing::entry(path, b'0', content));
    files.chain(testing::end()).collect()
}

/// An archive as `docker save` writes it: no digest leads to its layer, only the diff_id in its config.
fn archive(text: &str) -> Vec<u8> {
    let layer = tar(&[("etc/name", text.as_bytes())]);
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": [Digest::of(&layer)] },
    });
    let list = serde_json::json!([{ "Config": "config.json", "Layers": ["layer.tar"] }]);
    tar(&[
        ("config.json", config.to_string().as_bytes()),
        ("layer.tar", &layer),
        ("manifest.json", list.to_string().as_bytes()),
    ])
}

/// A workspace with the archive of an image, and a cache.
struct Place {
    folder: tempfile::TempDir,
    store: Store,
}

impl Place {
    fn new(bytes: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("cache")).unwrap();
        let place = Self { folder, store };
        fs::write(place.path("a.tar"), bytes).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join(name)
    }

    /// Imports what was found as the archive `bytes`; `once` is done in the middle of it, once.
    fn import(&self, bytes: &[u8], once: impl Fn() + Sync) -> Result<Digest, ActionError> {
        let text = SourceText {
            name: "image.toml".to_owned(),
            text: "a.tar".to_owned(),
        };
        let origin = Origin {
            source: Arc::new(text),
            span: 0..5,
        };
        let import = Import {
            path: HostPath {
                path: self.path("a.tar"),
                text: "a.tar".to_owned(),
                origin,
                root: self.path("").into(),
            },
            reference: None,
            is_layout: false,
            platform: Platform::new("linux", "amd64"),
        };
        let is_done = AtomicBool::new(false);
        let tick = |count: u64| {
            // Bytes are counted once some of the layer was read.
            if count > 0 && !is_done.swap(true, Ordering::Relaxed) {
                once();
            }
            true
        };
        let context = Context {
            store: &self.store,
            folder: &self.store,
            ports: Ports::OFFLINE,
            parts: &Forgetful,
            tick: &tick,
            note: &|_| {},
        };
        let found = Descriptor::of(MediaType::Other("application/x-tar".into()), bytes);
        match import.run(&context, &[Product::Found(found)])? {
            Product::Base(base) => Ok(base.layers[0].diff_id.0),
            other => panic!("{other:?}"),
        }
    }
}

fn diff_id(text: &str) -> Digest {
    Digest::of(&tar(&[("etc/name", text.as_bytes())]))
}

#[track_caller]
fn assert_changed(imported: Result<Digest, ActionError>) {
    let error = imported.unwrap_err();
    assert_eq!(error.code, "imgdecl::host::changed", "{error:?}");
    assert_eq!(error.message, "`a.tar` changed while it was read");
}

#[test]
fn an_archive_that_stays_is_imported() {
    let one = archive("one");
    let place = Place::new(&one);
    assert_eq!(place.import(&one, || {}).unwrap(), diff_id("one"));
    // Only its links change.
    let place = Place::new(&one);
    let link = || fs::hard_link(place.path("a.tar"), place.path("b.tar")).unwrap();
    assert_eq!(place.import(&one, link).unwrap(), diff_id("one"));
    assert!(place.path("b.tar").exists());
}

#[test]
fn an_archive_that_is_another_by_now_is_not_imported() {
    let (one, two) = (archive("one"), archive("two"));
    let place = Place::new(&two);
    assert_changed(place.import(&one, || {}));
    assert_eq!(place.import(&two, || {}).unwrap(), diff_id("two"));
}

#[test]
fn an_archive_is_not_replaced_while_it_is_imported() {
    let (one, two) = (archive("one"), archive("two"));
    assert_eq!(one.len(), two.len());
    let place = Place::new(&one);
    assert_changed(place.import(&one, || {
        fs::write(place.path("new.tar"), &two).unwrap();
        fs::rename(place.path("new.tar"), place.path("a.tar")).unwrap();
    }));
    assert!(!place.path("new.tar").exists(), "it was replaced");
    let place = Place::new(&one);
    assert_changed(place.import(&one, || {
        let mut file = fs::File::options();
        let mut file = file.write(true).open(place.path("a.tar")).unwrap();
        file.write_all(&two).unwrap();
    }));
    // What was read of either is not taken for the other.
    assert_eq!(place.import(&two, || {}).unwrap(), diff_id("two"));
}
