//! Makes the tree of a `files` layer: looks at the host, and reads what changed.
//!
//! Looking comes first: which files there are, and their stamps. If all of it is as it was when the tree was made last,
//! the tree's digest is known, and the tree itself is made only if a layer has to be written.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rayon::prelude::*;

use super::host::HostPath;
use super::patterns::Patterns;
use super::walk::{Item, ItemKind, Walk, digests, is_executable, no_file, unreadable};
use crate::graph::{
    Action, ActionError, Context, HashKey, KeyWriter, Origin, Ports, Product, TreeProduct,
};
use crate::layer::{Attrs, Clash, Content, Entry, Kind, LayerPath, Owner, Source, Tree};
use crate::oci::{Digest, Hasher};

/// One tree of a layer, checked.
pub(super) struct TreeSpec {
    pub(super) src: Option<HostPath>,
    pub(super) dest: LayerPath,
    /// Whether `dest` ends in `/`: a file goes into it.
    pub(super) into: bool,
    /// `None` if nothing was written: all is taken.
    pub(super) include: Option<Patterns>,
    pub(super) exclude: Patterns,
    pub(super) gitignore: bool,
    pub(super) allow_empty: bool,
    pub(super) owner: Owner,
    pub(super) mode: Option<u16>,
    pub(super) mtime: i64,
    pub(super) replace: bool,
    /// Entries that the manifest itself holds.
    pub(super) made: Vec<(LayerPath, Kind, Origin)>,
    pub(super) remove: Vec<LayerPath>,
}

impl TreeSpec {
    fn parameters(&self, key: &mut dyn KeyWriter) {
        let list = |patterns: Option<&Patterns>| {
            format!("{:?}", patterns.map(|it| it.texts().collect::<Vec<_>>()))
        };
        // The path of the host may stand here: these parameters tell nodes apart within one build; what is cached
        // depends on the tree that comes out.
        key.field(
            "src",
            &self
                .src
                .as_ref()
                .map_or("-".to_owned(), |src| src.path.display().to_string()),
        );
        key.field("dest", &format!("{:?} {}", self.dest, self.into));
        key.field("include", &list(self.include.as_ref()));
        key.field("exclude", &list(Some(&self.exclude)));
        key.field(
            "flags",
            &format!("{} {} {}", self.gitignore, self.allow_empty, self.replace),
        );
        key.field(
            "attributes",
            &format!("{:?} {:?} {}", self.owner, self.mode, self.mtime),
        );
        for (path, kind, _) in &self.made {
            let kind = match kind {
                Kind::File { attrs, content } => format!("file {attrs:?} {}", content.digest),
                other => format!("{other:?}"),
            };
            key.field("made", &format!("{path:?} {kind}"));
        }
        key.field("remove", &format!("{:?}", self.remove));
    }

    /// Looks at what there is, without reading it.
    fn look(&self, context: &Context<'_>, never: &BTreeSet<PathBuf>) -> Result<Seen, ActionError> {
        let Some(src) = &self.src else {
            return Ok(Seen::Nothing);
        };
        let real = src.real()?;
        let metadata =
            fs::metadata(&real).map_err(|error| unreadable(&real, &error).at(&src.origin))?;
        if !metadata.is_dir() {
            return self.single(src, &real, &metadata, context);
        }
        let items = Walk::new(self, src, never, context).run(&real)?;
        Ok(Seen::Folder(real.into(), items))
    }

    /// Makes the tree of what was seen.
    fn make(&self, seen: &Seen, context: &Context<'_>) -> Result<Tree, ActionError> {
        let mut tree = match (seen, &self.src) {
            (Seen::Folder(root, items), Some(src)) => self.folder(src, root, items, context)?,
            (Seen::File(path, entry), Some(src)) => {
                let mut tree = Tree::default();
                let inserted = tree.insert(path.clone(), entry.clone());
                inserted.map_err(|clash| explain_clash(&clash).at(&src.origin))?;
                tree
            }
            _ => Tree::default(),
        };
        for (path, kind, origin) in &self.made {
            let entry = Entry {
                mtime: self.mtime,
                replace: self.replace,
                ..Entry::new(kind.clone())
            };
            tree.insert(path.clone(), entry)
                .map_err(|clash| explain_clash(&clash).at(origin))?;
        }
        for path in &self.remove {
            tree.remove(path.clone());
        }
        Ok(tree)
    }

    fn folder(
        &self,
        src: &HostPath,
        root: &Arc<Path>,
        items: &[Item],
        context: &Context<'_>,
    ) -> Result<Tree, ActionError> {
        let digests = digests(root, items, context).map_err(|error| error.at(&src.origin))?;
        let place = |(item, digest): (&Item, Option<Digest>)| {
            let path = self.dest.join(&item.path);
            path.map(|path| (path, self.entry(root, item, digest)))
        };
        let entries: Result<Vec<_>, _> = items.par_iter().zip(digests).map(place).collect();
        let entries = entries.map_err(|error| explain_clash(&error.into()).at(&src.origin))?;
        // Paths that are sorted below one folder stay so with the folder's path before each.
        Tree::from_sorted(entries).map_err(|clash| explain_clash(&clash).at(&src.origin))
    }

    fn single(
        &self,
        src: &HostPath,
        real: &Path,
        metadata: &fs::Metadata,
        context: &Context<'_>,
    ) -> Result<Seen, ActionError> {
        let patterns =
            self.include.as_ref().map_or(0, |it| it.texts().count()) + self.exclude.texts().count();
        if patterns > 0 {
            let message = format!(
                "`{}` is a file: there is nothing to include or exclude",
                src.text
            );
            return Err(ActionError::new("imgdecl::files::patterns", message).at(&src.origin));
        }
        if !metadata.is_file() {
            return Err(no_file(real, metadata)
                .at(&src.origin)
                .help("name a file or a folder"));
        }
        let name = Path::new(&src.text)
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let path = if self.into {
            self.dest.join(name)
        } else {
            Ok(self.dest.clone())
        };
        let path = path.map_err(|error| explain_clash(&error.into()).at(&src.origin))?;
        let executable = is_executable(metadata);
        let mode = self.mode.unwrap_or(if executable { 0o755 } else { 0o644 });
        let attrs = Attrs {
            mode,
            owner: self.owner,
        };
        let content = src.content(context)?;
        let entry = Entry {
            mtime: self.mtime,
            replace: self.replace,
            ..Entry::new(Kind::File { attrs, content })
        };
        Ok(Seen::File(path, entry))
    }

    fn entry(&self, root: &Arc<Path>, item: &Item, digest: Option<Digest>) -> Entry {
        let owner = self.owner;
        let kind = match &item.kind {
            ItemKind::Folder => Kind::Folder {
                attrs: Attrs { mode: 0o755, owner },
                firm: false,
            },
            ItemKind::Symlink(target) => Kind::Symlink {
                target: target.clone(),
                owner,
            },
            ItemKind::File { stamp, executable } => {
                let mode = self.mode.unwrap_or(if *executable { 0o755 } else { 0o644 });
                let source = Source::Host {
                    folder: root.clone(),
                    below: item.path.as_str().into(),
                    stamp: *stamp,
                };
                let digest = digest.expect("a file that was seen has a digest");
                Kind::File {
                    attrs: Attrs { mode, owner },
                    content: Content {
                        size: stamp.size,
                        digest,
                        source,
                    },
                }
            }
        };
        Entry {
            mtime: self.mtime,
            replace: self.replace,
            ..Entry::new(kind)
        }
    }
}

/// What is on the host.
enum Seen {
    /// There is no `src`.
    Nothing,
    /// `src` is a file: its place in the image, and its entry.
    File(LayerPath, Entry),
    /// `src` is a folder: the folder, and what is taken from it, sorted by path.
    Folder(Arc<Path>, Vec<Item>),
}

impl Seen {
    /// Returns the digest of all that was seen, stamps and all.
    fn fingerprint(&self) -> Digest {
        match self {
            Self::Nothing => Digest::of(b"nothing"),
            Self::File(path, entry) => Digest::of(format!("file {path} {entry:?}").as_bytes()),
            Self::Folder(root, items) => {
                let chunk = |items: &[Item]| {
                    let mut hasher = Hasher::default();
                    let mut bytes = Vec::new();
                    for item in items {
                        bytes.clear();
                        item.describe(&mut bytes);
                        hasher.update(&bytes);
                    }
                    hasher.finish()
                };
                let chunks: Vec<Digest> = items.par_chunks(1024).map(chunk).collect();
                let mut hasher = Hasher::default();
                hasher.update(format!("folder {}\0", root.display()).as_bytes());
                chunks.iter().for_each(|chunk| hasher.update(chunk.bytes()));
                hasher.finish()
            }
        }
    }

    /// Tells whether some file changed so recently that its stamp cannot be trusted.
    fn is_recent(&self, now: SystemTime) -> bool {
        let recent = |item: &Item| matches!(&item.kind, ItemKind::File { stamp, .. } if stamp.is_recent(now));
        matches!(self, Self::Folder(_, items) if items.iter().any(recent))
    }
}

fn explain_clash(clash: &Clash) -> ActionError {
    let (code, help) = match clash {
        Clash::Twice { .. } => (
            "imgdecl::layer::clash",
            "keep one of them; `exclude` leaves a path out",
        ),
        Clash::Attrs(_) => ("imgdecl::layer::clash", "write the folder once"),
        Clash::Whiteout(_) => (
            "imgdecl::layer::whiteout",
            "rename it, or exclude it; `remove` deletes paths of the image below",
        ),
        Clash::Path(_) => ("imgdecl::layer::path", "rename it, or exclude it"),
    };
    ActionError::new(code, clash.to_string()).help(help)
}

/// Looks at the host and makes the tree of a layer. Runs each time: it is how changes are found.
pub(super) struct Scan {
    trees: Arc<Vec<TreeSpec>>,
    never: Arc<BTreeSet<PathBuf>>,
}

impl Scan {
    /// Makes the action for trees that become one, without the paths that are `never` inputs.
    pub(super) fn new(trees: Vec<TreeSpec>, never: Arc<BTreeSet<PathBuf>>) -> Self {
        let trees = Arc::new(trees);
        Self { trees, never }
    }
}

impl Action for Scan {
    fn name(&self) -> &'static str {
        "scan"
    }

    fn is_cached(&self) -> bool {
        false
    }

    fn parameters(&self, key: &mut dyn KeyWriter) {
        self.trees.iter().for_each(|tree| tree.parameters(key));
    }

    fn run(&self, context: &Context<'_>, _: &[Product]) -> Result<Product, ActionError> {
        // Taken first: what changes from here on must not be remembered.
        #[expect(
            clippy::disallowed_methods,
            reason = "decides what to remember, never a byte"
        )]
        let now = SystemTime::now();
        let looked = self
            .trees
            .iter()
            .map(|spec| spec.look(context, &self.never));
        let seen: Vec<Seen> = looked.collect::<Result<_, _>>()?;

        let mut key = HashKey::default();
        // Another version of this program may list the same tree in another way.
        key.field("memo", concat!("scan 2 ", env!("CARGO_PKG_VERSION")));
        self.parameters(&mut key);
        seen.iter()
            .for_each(|seen| key.field("seen", &seen.fingerprint().to_string()));
        let key = key.finish().0;
        let known = context.store.memo(&key)?;
        if let Some(digest) = known.and_then(|value| serde_json::from_value(value).ok()) {
            let (trees, store) = (self.trees.clone(), context.store.clone());
            let make = move || {
                let context = Context {
                    ports: Ports::OFFLINE,
                    store: &store,
                    tick: &|_| true,
                    note: &|_| {},
                };
                merge(&trees, &seen, &context)
            };
            return Ok(Product::Tree(TreeProduct::lazy(digest, Vec::new(), make)));
        }
        let product = TreeProduct::new(merge(&self.trees, &seen, context)?);
        if !seen.iter().any(|seen| seen.is_recent(now)) {
            context
                .store
                .put_memo(&key, serde_json::json!(product.digest))?;
        }
        Ok(Product::Tree(product))
    }
}

/// Makes one tree of all that was seen.
fn merge(trees: &[TreeSpec], seen: &[Seen], context: &Context<'_>) -> Result<Tree, ActionError> {
    let mut all = Tree::default();
    for (spec, seen) in trees.iter().zip(seen) {
        all.merge(spec.make(seen, context)?).map_err(|clash| {
            let error = explain_clash(&clash);
            match &spec.src {
                Some(src) => error.at(&src.origin),
                None => error,
            }
        })?;
    }
    Ok(all)
}
