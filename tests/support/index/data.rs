//! `index.json` of golden cases: which files a package index has, and what it does wrong.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Cursor, Write};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use imgdecl::parts::oci::Digest;
use serde::Deserialize;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::{Index, Shape, Wheel};

/// An index as a case describes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Data {
    /// What it has.
    #[serde(default)]
    files: Vec<File>,
    /// What it answers in the place of every page.
    status: Option<u16>,
    /// A folder of the case, whose files are at `/served/`.
    served: Option<String>,
}

/// A wheel, or an archive of sources.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    version: String,
    /// The tags of the wheel; `py3-none-any` if nothing is said.
    tags: Option<String>,
    /// It is an archive of sources.
    #[serde(default)]
    sources: bool,
    /// The packages that it needs.
    #[serde(default)]
    requires: Vec<String>,
    requires_python: Option<String>,
    /// Why it was yanked.
    yanked: Option<String>,
    /// The page says the digest of this text in the place of the file's.
    listed: Option<String>,
    /// The files that it installs: path and text.
    #[serde(default)]
    text: BTreeMap<String, String>,
}

impl Data {
    /// Reads the file, and starts the index. `space` is where the case runs; it is returned whether files of it are served.
    pub(crate) fn start(path: &Path, space: &Path) -> (Index, bool) {
        let text = fs::read_to_string(path).expect("index.json");
        let data: Self = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let wheels: Vec<Wheel> = data.files.iter().map(File::make).collect();
        let names = data.files.iter().map(|it| it.name.as_str());
        let index = Index::start(Shape::default(), &names.zip(&wheels).collect::<Vec<_>>());
        if let Some(status) = data.status {
            index.refuse(status);
        }
        if let Some(served) = &data.served {
            index.serve_folder(space.join(served));
        }
        (index, data.served.is_some())
    }
}

impl File {
    fn make(&self) -> Wheel {
        let stem = format!("{}-{}", self.name.replace('-', "_"), self.version);
        let mut metadata = format!(
            "Metadata-Version: 2.1\nName: {}\nVersion: {}\n",
            self.name, self.version
        );
        for needs in self.requires_python.iter() {
            metadata += &format!("Requires-Python: {needs}\n");
        }
        for needs in &self.requires {
            metadata += &format!("Requires-Dist: {needs}\n");
        }
        let tags = self.tags.as_deref().unwrap_or("py3-none-any");
        let head = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true";
        let info = format!("{stem}.dist-info");
        let mut members = self.text.clone();
        members.insert(format!("{info}/METADATA"), metadata.clone());
        members.insert(format!("{info}/WHEEL"), format!("{head}\nTag: {tags}\n"));
        let mut record = String::new();
        for (path, text) in &members {
            let hash = URL_SAFE_NO_PAD.encode(Digest::of(text.as_bytes()).bytes());
            record += &format!("{path},sha256={hash},{}\n", text.len());
        }
        record += &format!("{info}/RECORD,,\n");
        members.insert(format!("{info}/RECORD"), record);
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::STORE);
        for (path, text) in members {
            zip.start_file(path, options).expect("memory");
            zip.write_all(text.as_bytes()).expect("memory");
        }
        Wheel {
            file: match self.sources {
                true => format!("{stem}.tar.gz"),
                false => format!("{stem}-{tags}.whl"),
            },
            bytes: zip.finish().expect("memory").into_inner(),
            metadata,
            requires_python: self.requires_python.clone(),
            yanked: self.yanked.clone(),
            listed: self.listed.as_ref().map(|it| Digest::of(it.as_bytes())),
        }
    }
}
