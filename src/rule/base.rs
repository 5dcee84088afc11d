//! An image to build on.
//!
//! ```toml
//! [base.python]
//! layout = "bases/python"      # a folder with an OCI image layout
//! ref    = "3.11"              # which image of it
//!
//! [base.debian]
//! archive = "debian.tar"       # what `docker save`, `podman save` or `skopeo copy` wrote
//! ```
//!
//! One of `image`, `layout` and `archive` says where the base is. For each platform of the images that build on it, the
//! base must have an image of that platform. `ref` is the image's name in the layout or archive, its full reference, or
//! its digest; it may be left out where there is one image only.
//!
//! The bytes of the base's layers are never changed. Every digest and size on the way is checked.
//!
//! `image` names an image in a registry. This version has no registry client yet, and says so: copy the image into a
//! layout first, as with `skopeo copy --all docker://python:3.11-slim oci:bases/python:3.11`.
//!
//! To start from nothing, an image says `base = "scratch"`, without a target.

use std::io::{self, Read, Write};
use std::sync::Arc;

use serde::Deserialize;
use toml::Spanned;

use super::host::HostPath;
use super::tar::Find;
use super::value::{Collect, fields};
use super::{Lower, Lowered, Rule};
use crate::graph::{Action, ActionError, Base as BaseProduct, Context, KeyWriter, Layer, Product};
use crate::layer::{self, FactsBuilder};
use crate::oci::{Compression, Config, Descriptor, DiffId, Hasher, Platform};
use crate::source::{Archive, Found, Layout, Piece, SourceError};
use crate::spec::{Key, Problems, Target, Type};
use crate::store::{Blob, Health};

const KEYS: &[Key] = &[
    Key::new(
        "image",
        Type::String,
        "",
        "A reference to an image in a registry. Not supported yet.",
    ),
    Key::new(
        "layout",
        Type::String,
        "",
        "A folder with an OCI image layout, relative to the manifest.",
    ),
    Key::new(
        "archive",
        Type::String,
        "",
        "An image archive, relative to the manifest: OCI or docker's, plain or compressed.",
    ),
    Key::new(
        "ref",
        Type::String,
        "",
        "Which image of the layout or archive. Needed where there are several.",
    ),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BaseTable {
    image: Option<Spanned<String>>,
    layout: Option<Spanned<String>>,
    archive: Option<Spanned<String>>,
    r#ref: Option<Spanned<String>>,
}

pub(super) struct Base;

impl Rule for Base {
    fn name(&self) -> &'static str {
        "base"
    }

    fn summary(&self) -> &'static str {
        "an image to build on"
    }

    fn source(&self) -> &'static str {
        include_str!("base.rs")
    }

    fn keys(&self) -> &'static [Key] {
        KEYS
    }

    fn fields(&self) -> Vec<&'static str> {
        fields::<BaseTable>().to_vec()
    }

    fn lower(&self, target: &Target, lower: &mut Lower<'_>) -> Result<Lowered, Problems> {
        let table: BaseTable = lower.read(target, KEYS)?;
        let at = &target.table;
        let mut collect = Collect::default();
        if let Some(image) = &table.image {
            let reference = image.get_ref();
            collect.0.push(
                at.problem("imgdecl::base::registry", image.span(), "registries are not supported yet", "a reference to a registry").help(
                    format!("copy it into a layout first: skopeo copy --all docker://{reference} oci:bases/{}:base; then write layout = \"bases/{}\"", target.id.name, target.id.name),
                ),
            );
        }
        let root = lower.root();
        let mut path = |value: &Option<Spanned<String>>| {
            let value = value.as_ref()?;
            HostPath::new(at, value, &target.folder, &root)
                .map_err(|it| collect.0.push(it))
                .ok()
        };
        let (layout, archive) = (path(&table.layout), path(&table.archive));
        let named = [&table.image, &table.layout, &table.archive]
            .iter()
            .filter(|it| it.is_some())
            .count();
        if named != 1 {
            let label = if named == 0 {
                "nothing says where the base is"
            } else {
                "several say where the base is"
            };
            collect.0.push(at.problem(
                "imgdecl::base::source",
                at.span.clone(),
                "a base needs one of `image`, `layout` and `archive`",
                label,
            ));
        }
        collect.finish(())?;
        let platform = lower
            .platform
            .clone()
            .unwrap_or_else(|| Platform::new("linux", "amd64"));
        let reference = table.r#ref.map(Spanned::into_inner);
        let (find, import) = match (layout, archive) {
            (Some(path), _) => {
                let origin = path.origin.clone();
                let find = lower.add(
                    target,
                    FindLayout {
                        path: path.clone(),
                        reference,
                    },
                    vec![],
                    origin,
                );
                (
                    find,
                    Import {
                        path,
                        reference: None,
                        is_layout: true,
                        platform,
                    },
                )
            }
            (None, Some(path)) => {
                let origin = path.origin.clone();
                let find = lower.add(target, Find(path.clone()), vec![], origin);
                (
                    find,
                    Import {
                        path,
                        reference,
                        is_layout: false,
                        platform,
                    },
                )
            }
            (None, None) => return Err(Problems::default()),
        };
        let origin = import.path.origin.clone();
        Ok(Lowered::Base(lower.add(target, import, vec![find], origin)))
    }
}

/// Finds an image in a layout: the entry of its index.
struct FindLayout {
    path: HostPath,
    reference: Option<String>,
}

impl Action for FindLayout {
    fn name(&self) -> &'static str {
        "find"
    }

    fn is_cached(&self) -> bool {
        false
    }

    fn parameters(&self, key: &mut dyn KeyWriter) {
        key.field("path", &self.path.path.display().to_string());
        key.field("ref", self.reference.as_deref().unwrap_or("-"));
    }

    fn run(&self, _: &Context<'_>, _: &[Product]) -> Result<Product, ActionError> {
        let layout =
            Layout::open(&self.path.real()?).map_err(|error| explain(&error, &self.path))?;
        let found = layout
            .select(self.reference.as_deref())
            .map_err(|error| explain(&error, &self.path))?;
        Ok(Product::Found(found))
    }
}

/// Brings an image into the store, checked, and gathers its facts.
struct Import {
    path: HostPath,
    reference: Option<String>,
    is_layout: bool,
    platform: Platform,
}

impl Action for Import {
    fn name(&self) -> &'static str {
        "base"
    }

    fn parameters(&self, key: &mut dyn KeyWriter) {
        key.field("platform", &self.platform.to_string());
        key.field("ref", self.reference.as_deref().unwrap_or("-"));
    }

    fn run(&self, context: &Context<'_>, inputs: &[Product]) -> Result<Product, ActionError> {
        let [Product::Found(root)] = inputs else {
            return Err(ActionError::new(
                "imgdecl::bug",
                "a base is found before it is read",
            ));
        };
        let explain = |error: SourceError| explain(&error, &self.path);
        let path = self.path.real()?;
        if self.is_layout {
            let layout = Layout::open(&path).map_err(explain)?;
            return self.import(
                context,
                &layout.find(root, &self.platform).map_err(explain)?,
            );
        }
        let archive = Archive::open(&path, context.store.tmp()).map_err(explain)?;
        self.import(
            context,
            &archive
                .find(self.reference.as_deref(), &self.platform)
                .map_err(explain)?,
        )
    }
}

impl Import {
    fn import(&self, context: &Context<'_>, found: &Found) -> Result<Product, ActionError> {
        let explain = |error: SourceError| explain(&error, &self.path);
        let fail = |message: String| {
            ActionError::new("imgdecl::base::damaged", message)
                .at(&self.path.origin)
                .help(DAMAGED)
        };
        let config_bytes = found.config.read().map_err(explain)?;
        let config = Config::parse(&config_bytes).map_err(|error| fail(error.to_string()))?;
        let diff_ids = config.diff_ids().map_err(|error| fail(error.to_string()))?;
        if diff_ids.len() != found.layers.len() {
            return Err(fail(format!(
                "the base has {} layers, and its config names {}",
                found.layers.len(),
                diff_ids.len()
            )));
        }
        let mut facts = FactsBuilder::default();
        let mut layers = Vec::new();
        for (piece, diff_id) in found.layers.iter().zip(diff_ids) {
            let foreign = piece
                .descriptor
                .as_ref()
                .is_some_and(|it| !it.urls.is_empty());
            if foreign {
                return Err(fail(format!(
                    "{} is kept outside of the image; such layers are not supported",
                    piece.what
                )));
            }
            let blob = self.copy(context, piece)?;
            let compression = self.examine(context, &blob, piece, diff_id, &mut facts)?;
            let media_type = piece
                .media_type
                .clone()
                .map_or(compression.layer(), |it| it.to_oci());
            let descriptor = match &piece.descriptor {
                Some(descriptor) => Descriptor {
                    media_type,
                    ..descriptor.clone()
                },
                None => Descriptor::new(media_type, blob.digest, blob.size),
            };
            layers.push(Layer {
                descriptor,
                diff_id,
            });
        }
        let facts = facts.finish();
        Ok(Product::Base(Arc::new(BaseProduct {
            name: found.name.clone(),
            digest: found.digest,
            config: context.store.put_blob(&config_bytes)?,
            layers,
            facts_blob: context.store.put_blob(facts.to_text().as_bytes())?,
            facts: Arc::new(facts),
        })))
    }

    /// Copies a layer into the store, checking digest and size where something names them.
    fn copy(&self, context: &Context<'_>, piece: &Piece) -> Result<Blob, ActionError> {
        let explain = |error: SourceError| explain(&error, &self.path);
        if let Some(blob) = piece
            .expected
            .filter(|blob| context.store.check(blob) == Health::Whole)
        {
            return Ok(blob);
        }
        let limit = piece
            .expected
            .map_or(u64::MAX, |blob| blob.size.saturating_add(1));
        let mut reader = piece.open().map_err(explain)?.take(limit);
        let mut writer = context.store.writer()?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            let count = reader.read(&mut buffer).map_err(|source| {
                explain(SourceError::Io {
                    path: piece.path.clone(),
                    source,
                })
            })?;
            if count == 0 {
                break;
            }
            writer
                .write_all(&buffer[..count])
                .map_err(|error| context.store.unwritable(error))?;
            if !(context.tick)(count as u64) {
                return Err(ActionError::stopped());
            }
        }
        let Some(expected) = &piece.expected else {
            return Ok(writer.complete()?);
        };
        writer
            .complete_verified_as(expected, &piece.what)
            .map_err(|error| match error {
                crate::store::StoreError::Io { .. } => error.into(),
                other => ActionError::of("imgdecl::base::damaged", &other)
                    .at(&self.path.origin)
                    .help(DAMAGED),
            })
    }

    /// Reads a layer: checks its diff_id, and adds it to the facts.
    fn examine(
        &self,
        context: &Context<'_>,
        blob: &Blob,
        piece: &Piece,
        diff_id: DiffId,
        facts: &mut FactsBuilder,
    ) -> Result<Compression, ActionError> {
        let fail = |message: String| {
            ActionError::new("imgdecl::base::damaged", message)
                .at(&self.path.origin)
                .help(DAMAGED)
        };
        let damaged = |error: &dyn std::error::Error| {
            fail(format!("cannot read {} as a layer", piece.what)).because(error)
        };
        let (found, peeked) =
            layer::detect(context.store.open_blob(blob)?).map_err(|error| damaged(&error))?;
        let said = piece.media_type.as_ref().map(|it| (it, it.compression()));
        let compression = match said {
            Some((media_type, None)) => {
                return Err(fail(format!(
                    "{} has the media type {media_type}, which is no layer",
                    piece.what
                )));
            }
            Some((_, Some(compression))) => compression,
            None => found,
        };
        let reader = layer::decoder(compression, peeked).map_err(|error| damaged(&error))?;
        let mut reader = Tar {
            reader,
            hasher: Hasher::default(),
            tick: context.tick,
        };
        facts.apply(&mut reader).map_err(|error| damaged(&error))?;
        io::copy(&mut reader, &mut io::sink()).map_err(|error| damaged(&error))?;
        let found = DiffId(reader.hasher.finish());
        match found == diff_id {
            true => Ok(compression),
            false => Err(fail(format!(
                "{} has the diff_id {found} instead of {diff_id}",
                piece.what
            ))),
        }
    }
}

const DAMAGED: &str = "the base is damaged: copy it again from where it came";

fn explain(error: &SourceError, path: &HostPath) -> ActionError {
    let (code, help) = match error {
        SourceError::Reference { .. } => {
            ("imgdecl::base::reference", "name one of these with `ref`")
        }
        SourceError::Platform { .. } => (
            "imgdecl::base::platform",
            "leave the platform out of `platforms`, or use a base that has it",
        ),
        SourceError::NoLayout { .. } => (
            "imgdecl::base::layout",
            "`layout` names an OCI image layout, `archive` a tar of one or of `docker save`",
        ),
        SourceError::Io { .. } => (
            "imgdecl::base::unreadable",
            "check that the base is whole and readable",
        ),
        _ => ("imgdecl::base::damaged", DAMAGED),
    };
    ActionError::of(code, error).at(&path.origin).help(help)
}

/// Hashes the tar of a layer as it is read.
struct Tar<'a, R> {
    reader: R,
    hasher: Hasher,
    tick: crate::layer::Tick<'a>,
}

impl<R: Read> Read for Tar<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        match (self.tick)(0) {
            true => Ok(count),
            false => Err(io::Error::other("stopped")),
        }
    }
}
