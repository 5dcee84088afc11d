//! Makes the wheels of projects of the workspace, and lays them out: a look at the host first, then what is cached by what was
//! seen. Knows no back end.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::action::{laid_out, write_scheme};
use super::errors::of_input;
use super::projects::HostFolder;
use crate::graph::{Action, ActionError, Context, KeyWriter, Origin, Product, TreeProduct};
use crate::layer::{Attrs, Content, Entry, Kind, LayerPath, Owner, Source, Stamp, Tree};
use crate::python::WheelName;
use crate::python::project::{Member, Part, archive, wheel};
use crate::python::wheel::{Expected, Scheme};
use crate::rule::host::content_error;
use crate::rule::walk::{Item, ItemKind, digests};
use crate::store::BlobWriter;

/// The code for projects that cannot be taken.
const CODE: &str = "imgdecl::python::project";

/// Looks at a project: what its wheel would hold. Runs each time: it is how changes are found.
pub(super) struct Gather {
    /// The workspace's root.
    pub(super) root: Arc<Path>,
    /// The folder, from there.
    pub(super) folder: String,
    /// Paths that are never inputs.
    pub(super) never: Arc<BTreeSet<PathBuf>>,
    pub(super) origin: Origin,
}

impl Action for Gather {
    fn name(&self) -> &'static str {
        "project"
    }

    fn is_cached(&self) -> bool {
        false
    }

    fn detail(&self) -> Option<&str> {
        Some(if self.folder.is_empty() {
            "."
        } else {
            &self.folder
        })
    }

    fn parameters(&self, key: &mut dyn KeyWriter) {
        // It tells nodes apart within one build; what is cached depends on the tree that comes out.
        key.field("folder", &self.folder);
    }

    fn run(&self, context: &Context<'_>, _: &[Product]) -> Result<Product, ActionError> {
        let host = HostFolder::new(&self.root, &self.folder, &self.never);
        let path = match self.folder.as_str() {
            "" => "pyproject.toml".to_owned(),
            folder => format!("{folder}/pyproject.toml"),
        };
        let wheel = wheel(&host, &path).map_err(|error| of_input(&error))?;
        let folder: Arc<Path> = host.path().into();
        let fail = |path: &str, error: &dyn std::error::Error| {
            let message = format!("cannot read {}", folder.join(path).display());
            ActionError::new("imgdecl::host::unreadable", message)
                .because(error)
                .at(&self.origin)
        };
        let mut items: Vec<(Item, &str)> = Vec::new();
        let mut tree = Tree::default();
        for (to, part) in &wheel.parts {
            match part {
                Part::Text(text) => {
                    self.put(&mut tree, to, false, Content::bytes(text.clone()))?;
                }
                Part::File(path, executable) => {
                    let metadata = std::fs::metadata(folder.join(path));
                    let metadata = metadata.map_err(|error| fail(path, &error))?;
                    let stamp = Stamp::of(&metadata);
                    let kind = ItemKind::File {
                        stamp,
                        executable: *executable,
                    };
                    let path = path.clone();
                    items.push((Item { path, kind }, to));
                }
            }
        }
        items.sort_by(|one, other| one.0.path.cmp(&other.0.path));
        let (items, places): (Vec<Item>, Vec<&str>) = items.into_iter().unzip();
        let found = digests(&folder, &items, context).map_err(|error| error.at(&self.origin))?;
        for ((item, to), digest) in items.iter().zip(places).zip(found) {
            let (ItemKind::File { stamp, executable }, Some(digest)) = (&item.kind, digest) else {
                continue;
            };
            let content = Content {
                size: stamp.size,
                digest,
                source: Source::Host {
                    folder: folder.clone(),
                    below: item.path.as_str().into(),
                    stamp: Box::new(*stamp),
                },
            };
            self.put(&mut tree, to, *executable, content)?;
        }
        Ok(Product::Tree(TreeProduct::new(tree)))
    }
}

impl Gather {
    /// Puts a file of the wheel into the tree that stands for it.
    fn put(
        &self,
        tree: &mut Tree,
        to: &str,
        executable: bool,
        content: Content,
    ) -> Result<(), ActionError> {
        let fail = |error: &dyn std::error::Error| {
            let message = format!("the wheel of `{}` cannot hold {to}", self.folder);
            ActionError::new(CODE, message)
                .because(error)
                .at(&self.origin)
                .help("rename it, or leave it out of the package")
        };
        let path = LayerPath::parse(to).map_err(|error| fail(&error))?;
        let attrs = Attrs {
            mode: if executable { 0o755 } else { 0o644 },
            owner: Owner::default(),
        };
        let entry = Entry::new(Kind::File { attrs, content });
        tree.insert(path, entry).map_err(|error| fail(&error))
    }
}

/// Makes the wheel of what was seen, and lays it out.
pub(super) struct Lay {
    /// The name of the wheel.
    pub(super) file: String,
    /// `NAME-VERSION`, as its dist-info folder has it.
    pub(super) stem: String,
    pub(super) scheme: Scheme,
    pub(super) origin: Origin,
}

impl Action for Lay {
    fn name(&self) -> &'static str {
        "own wheel"
    }

    fn detail(&self) -> Option<&str> {
        Some(&self.file)
    }

    fn parameters(&self, key: &mut dyn KeyWriter) {
        key.field("wheel", &self.file);
        key.field("dist-info", &self.stem);
        write_scheme(&self.scheme, key);
    }

    fn run(&self, context: &Context<'_>, inputs: &[Product]) -> Result<Product, ActionError> {
        let [Product::Tree(tree)] = inputs else {
            return Err(ActionError::new(CODE, "a wheel is made of one tree"));
        };
        let tree = tree.tree.get(context)?;
        let mut writer = context.store.writer()?;
        self.write(&tree, &mut writer, context)
            .map_err(|error| error.at(&self.origin))?;
        let blob = writer.complete()?;
        let name = WheelName::parse(&self.file).map_err(|error| ActionError::of(CODE, &error))?;
        let expected = Expected {
            name: name.name,
            version: name.version,
            file: self.file.clone(),
            digest: blob.digest,
            size: Some(blob.size),
            url: None,
            metadata: None,
        };
        let laid = laid_out(blob, &expected, &self.scheme, context);
        laid.map_err(|error| error.at(&self.origin))
    }
}

impl Lay {
    /// Writes the archive of a tree.
    fn write(
        &self,
        tree: &Tree,
        writer: &mut BlobWriter<'_>,
        context: &Context<'_>,
    ) -> Result<(), ActionError> {
        let mut entries = tree.entries().iter();
        let next = || -> Result<Option<Member>, Failed> {
            let Some((path, entry)) = entries.next() else {
                return Ok(None);
            };
            let Kind::File { attrs, content } = &entry.kind else {
                return Ok(None);
            };
            let length = usize::try_from(content.size).map_err(std::io::Error::other)?;
            let mut bytes = Vec::with_capacity(length);
            let read = content.append(&mut bytes, 0, length);
            read.map_err(|error| Failed(content_error(&error, Some(&self.origin))))?;
            if !(context.tick)(content.size) {
                return Err(Failed(ActionError::stopped()));
            }
            Ok(Some(Member {
                path: path.to_string(),
                executable: attrs.mode & 0o111 != 0,
                bytes,
            }))
        };
        archive(&self.stem, next, writer).map_err(|error| error.0)
    }
}

/// Why an archive could not be written.
struct Failed(ActionError);

impl From<std::io::Error> for Failed {
    fn from(error: std::io::Error) -> Self {
        Self(ActionError::new(CODE, "the wheel cannot be written").because(&error))
    }
}
