//! Wheels of the tests that can be installed: made in memory, the same bytes each time.

use std::io::{Cursor, Write};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use imgdecl::parts::oci::Digest;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::index::Wheel;

/// What a made wheel is.
#[derive(Clone, Default)]
pub(crate) struct Recipe {
    name: String,
    version: String,
    tag: String,
    requires: Vec<String>,
    extras: Vec<String>,
    scripts: Vec<(String, String)>,
    files: Vec<(String, Vec<u8>)>,
}

impl Recipe {
    /// A pure wheel, with a module of its name.
    pub(crate) fn new(name: &str, version: &str) -> Self {
        let module = name.replace(['-', '.'], "_");
        let text =
            format!("version = '{version}'\n\n\ndef main():\n    print('{name}', version)\n");
        Self {
            name: name.to_owned(),
            version: version.to_owned(),
            tag: "py3-none-any".to_owned(),
            files: vec![(format!("{module}/__init__.py"), text.into_bytes())],
            ..Self::default()
        }
    }

    /// Makes it a wheel for a platform: its files are not pure.
    pub(crate) fn tag(mut self, tag: &str) -> Self {
        self.tag = tag.to_owned();
        self
    }

    /// Needs another package.
    pub(crate) fn requires(mut self, requirement: &str) -> Self {
        self.requires.push(requirement.to_owned());
        self
    }

    /// Has an extra.
    pub(crate) fn extra(mut self, name: &str) -> Self {
        self.extras.push(name.to_owned());
        self
    }

    /// Has a command, as `name` and `module:function`.
    pub(crate) fn script(mut self, name: &str, target: &str) -> Self {
        self.scripts.push((name.to_owned(), target.to_owned()));
        self
    }

    /// Has one more file.
    pub(crate) fn file(mut self, path: &str, content: impl Into<Vec<u8>>) -> Self {
        self.files.push((path.to_owned(), content.into()));
        self
    }

    /// Makes the wheel.
    pub(crate) fn make(&self) -> Wheel {
        let Self { version, tag, .. } = self;
        let stem = format!("{}-{version}", self.name.replace(['-', '.'], "_"));
        let info = format!("{stem}.dist-info");
        let mut metadata = format!(
            "Metadata-Version: 2.1\nName: {}\nVersion: {version}\n",
            self.name
        );
        for extra in &self.extras {
            metadata += &format!("Provides-Extra: {extra}\n");
        }
        for requirement in &self.requires {
            metadata += &format!("Requires-Dist: {requirement}\n");
        }
        let is_pure = tag.ends_with("-any");
        let about = format!(
            "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: {is_pure}\nTag: {tag}\n"
        );
        let mut files = self.files.clone();
        files.push((format!("{info}/METADATA"), metadata.clone().into_bytes()));
        files.push((format!("{info}/WHEEL"), about.into_bytes()));
        if !self.scripts.is_empty() {
            let mut text = "[console_scripts]\n".to_owned();
            for (name, target) in &self.scripts {
                text += &format!("{name} = {target}\n");
            }
            files.push((format!("{info}/entry_points.txt"), text.into_bytes()));
        }
        let mut record = String::new();
        for (path, content) in &files {
            let hash = URL_SAFE_NO_PAD.encode(Digest::of(content).bytes());
            record += &format!("{path},sha256={hash},{}\n", content.len());
        }
        record += &format!("{info}/RECORD,,\n");
        files.push((format!("{info}/RECORD"), record.into_bytes()));

        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::STORE);
        for (path, content) in &files {
            zip.start_file(path.as_str(), options).expect("memory");
            zip.write_all(content).expect("memory");
        }
        Wheel {
            file: format!("{stem}-{tag}.whl"),
            bytes: zip.finish().expect("memory").into_inner(),
            metadata,
            requires_python: None,
            yanked: None,
            listed: None,
        }
    }
}
