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
use super::left_out::IgnoreFiles;
use super::modes::Modes;
use super::patterns::Patterns;
use super::users::{NewPeople, People, UsersBelow};
use super::value::Belongs;
use super::walk::{Item, ItemKind, Walk, digests, is_executable, no_file, unreadable};
use crate::graph::{Action, ActionError, Context, KeyWriter, Origin, Part, Product, TreeProduct};
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
    pub(super) ignore: IgnoreFiles,
    pub(super) allow_empty: bool,
    /// Whom all belongs to. The owner of what is named is resolved when the scan runs.
    pub(super) belongs: Belongs,
    pub(super) mode: Option<u16>,
    /// The modes of single files.
    pub(super) modes: Modes,
    pub(super) mtime: i64,
    pub(super) replace: bool,
    /// Entries that the manifest itself holds.
    pub(super) made: Vec<(LayerPath, Kind, Origin)>,
    pub(super) remove: Vec<LayerPath>,
}

impl TreeSpec {
    /// Returns the place of the owner's name, if it is written as one.
    pub(super) fn name(&self) -> Option<&Origin> {
        match &self.belongs {
            Belongs::To(_) => None,
            Belongs::Named(_, origin) => Some(origin),
        }
    }

    /// Returns the numbers of the owner.
    fn owner(&self, people: Option<&People>) -> Result<Owner, ActionError> {
        match (&self.belongs, people) {
            (Belongs::To(owner), _) => Ok(*owner),
            (Belongs::Named(name, origin), Some(people)) => people.owner(name, origin),
            (Belongs::Named(..), None) => Err(ActionError::bug("nobody knows an owner")),
        }
    }

    fn write_key(&self, key: &mut dyn KeyWriter) {
        // The path of the host may stand here: these parameters tell nodes apart within one build; what is cached
        // depends on the tree that comes out.
        let src = self.src.as_ref();
        key.field(
            "src",
            &src.map_or("-".to_owned(), |src| src.path.display().to_string()),
        );
        key.field("dest", &format!("/{}", self.dest));
        key.flag("into", self.into);
        match &self.include {
            Some(include) => include.write_key("include", key),
            None => key.field("include", "all"),
        }
        self.exclude.write_key("exclude", key);
        key.flag("dockerignore", self.ignore.docker);
        key.flag("gitignore", self.ignore.git);
        key.flag("allow_empty", self.allow_empty);
        key.flag("replace", self.replace);
        match &self.belongs {
            Belongs::To(owner) => key.field("owner", &owner.key_text()),
            Belongs::Named(name, _) => key.field("owner", name),
        }
        let mode = self.mode.map(|mode| format!("{mode:04o}"));
        key.field("mode", mode.as_deref().unwrap_or("-"));
        self.modes.write_key(key);
        key.field("mtime", &self.mtime.to_string());
        for (path, kind, _) in &self.made {
            key.field("made", &format!("/{path}"));
            key.field("  as", &kind.key_text());
        }
        key.list("remove", self.remove.iter().map(|path| format!("/{path}")));
    }

    /// Looks at what there is, without reading it.
    fn look(&self, context: &Context<'_>, scan: &Scan) -> Result<Seen, ActionError> {
        let Some(src) = &self.src else {
            return Ok(Seen::Nothing);
        };
        let real = src.real()?;
        let metadata =
            fs::metadata(&real).map_err(|error| unreadable(&real, &error).at(&src.origin))?;
        if !metadata.is_dir() {
            return self.single(src, &real, &metadata, context);
        }
        let walk = Walk::new(self, src, &scan.never, &scan.manifests, context);
        let found = walk.run(&real)?;
        if let Some(told) = found.told {
            (context.note)(&format!("files {} of `{}`: {told}", scan.name, src.text));
        }
        self.see_modes(&found.items, &src.text)?;
        Ok(Seen::Folder(real.into(), found.items, found.ignored_by))
    }

    /// Makes sure that each pattern of `modes` matches a file.
    fn see_modes(&self, items: &[Item], src: &str) -> Result<(), ActionError> {
        if self.modes.is_empty() {
            return Ok(());
        }
        for item in items {
            if matches!(item.kind, ItemKind::File { .. }) {
                self.modes.see(&item.path);
            }
        }
        match self.modes.unused() {
            Some((pattern, origin)) if !self.allow_empty => {
                let message =
                    format!("the pattern `{pattern}` of `modes` matches no file of `{src}`");
                let help = "patterns are relative to `src`; `*` stops at a `/`, `**` does not; `dirs` says modes of folders";
                Err(ActionError::new("imgdecl::files::no_mode", message)
                    .at(origin)
                    .help(help))
            }
            _ => Ok(()),
        }
    }

    /// Makes the tree of what was seen.
    fn make(&self, seen: &Seen, owner: Owner, context: &Context<'_>) -> Result<Tree, ActionError> {
        let mut tree = match (seen, &self.src) {
            (Seen::Folder(root, items, _), Some(src)) => {
                self.folder(src, root, items, owner, context)?
            }
            (Seen::File(path, entry), Some(src)) => {
                let mut tree = Tree::default();
                let mut entry = entry.clone();
                set_owner(&mut entry.kind, owner);
                let inserted = tree.insert(path.clone(), entry);
                inserted.map_err(|clash| explain_clash(&clash).at(&src.origin))?;
                tree
            }
            _ => Tree::default(),
        };
        for (path, kind, origin) in &self.made {
            let mut kind = kind.clone();
            set_owner(&mut kind, owner);
            let entry = Entry {
                mtime: self.mtime,
                replace: self.replace,
                ..Entry::new(kind)
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
        owner: Owner,
        context: &Context<'_>,
    ) -> Result<Tree, ActionError> {
        let digests = digests(root, items, context).map_err(|error| error.at(&src.origin))?;
        let place = |(item, digest): (&Item, Option<Digest>)| {
            let path = self.dest.join(&item.path);
            path.map(|path| (path, Arc::new(self.entry(root, item, owner, digest))))
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
        let is_empty = |patterns: &Patterns| patterns.is_empty();
        if !self.modes.is_empty() {
            let message = format!("`{}` is a file, whose mode `mode` says", src.text);
            let origin = self
                .modes
                .unused()
                .map_or(&src.origin, |(_, origin)| origin);
            return Err(ActionError::new("imgdecl::files::no_mode", message)
                .at(origin)
                .help("write `mode`, without a pattern"));
        }
        if !self.include.as_ref().is_none_or(is_empty) || !self.exclude.is_empty() {
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
        // The owner is put in where the tree is made.
        let owner = Owner::default();
        let attrs = Attrs { mode, owner };
        let content = src.content(context)?;
        let entry = Entry {
            mtime: self.mtime,
            replace: self.replace,
            ..Entry::new(Kind::File { attrs, content })
        };
        Ok(Seen::File(path, entry))
    }

    fn entry(&self, root: &Arc<Path>, item: &Item, owner: Owner, digest: Option<Digest>) -> Entry {
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
                let own = self.modes.of(&item.path).or(self.mode);
                let mode = own.unwrap_or(if *executable { 0o755 } else { 0o644 });
                let source = Source::Host {
                    folder: root.clone(),
                    below: item.path.as_str().into(),
                    stamp: Box::new(*stamp),
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

/// Gives an entry to somebody.
fn set_owner(kind: &mut Kind, to: Owner) {
    match kind {
        Kind::Folder { attrs, .. } | Kind::File { attrs, .. } | Kind::Hardlink { attrs, .. } => {
            attrs.owner = to;
        }
        Kind::Symlink { owner, .. } => *owner = to,
    }
}

/// What is on the host.
enum Seen {
    /// There is no `src`.
    Nothing,
    /// `src` is a file: its place in the image, and its entry.
    File(LayerPath, Entry),
    /// `src` is a folder: the folder, what is taken from it, sorted by path, and what its `.dockerignore` means.
    Folder(Arc<Path>, Vec<Item>, Vec<String>),
}

impl Seen {
    /// Adds all that was seen to a key: of folders a digest of it, stamps and all.
    fn write_key(&self, key: &mut dyn KeyWriter) {
        match self {
            Self::Nothing => key.field("seen", "nothing"),
            Self::File(path, entry) => {
                key.field("seen", &format!("/{path}"));
                key.field("  as", &entry.kind.key_text());
            }
            Self::Folder(root, items, ignored_by) => {
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
                key.field("seen", &hasher.finish().to_string());
                // What is taken stands above. This says why something else is.
                if !ignored_by.is_empty() {
                    key.list("ignored by", ignored_by);
                }
            }
        }
    }

    /// Tells whether some file changed so recently that its stamp cannot be trusted.
    fn is_recent(&self, now: SystemTime) -> bool {
        let recent = |item: &Item| matches!(&item.kind, ItemKind::File { stamp, .. } if stamp.is_recent(now));
        matches!(self, Self::Folder(_, items, _) if items.iter().any(recent))
    }
}

/// Says that entries do not go together.
pub(super) fn explain_clash(clash: &Clash) -> ActionError {
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
    /// The manifests of the workspace: inputs only if they are named.
    manifests: Arc<BTreeSet<PathBuf>>,
    /// What people call the layer.
    name: String,
    /// Who the names of owners are, and who is added; `None` where there are numbers alone.
    names: Option<Arc<Names>>,
}

/// Who the names in a layer are.
pub(super) struct Names {
    /// Where the users below are found.
    pub(super) below: UsersBelow,
    /// Who is added to them.
    pub(super) people: Arc<NewPeople>,
    /// The place of the first name.
    pub(super) origin: Origin,
}

impl Names {
    fn write_key(&self, key: &mut dyn KeyWriter) {
        self.below.write_key(key);
        self.people.write_key(key);
    }
}

impl Scan {
    /// Makes the action for trees that become one, the layer `name`, without the paths that are `never` inputs.
    pub(super) fn new(
        trees: Vec<TreeSpec>,
        name: String,
        never: Arc<BTreeSet<PathBuf>>,
        manifests: Arc<BTreeSet<PathBuf>>,
    ) -> Self {
        Self {
            trees: Arc::new(trees),
            never,
            manifests,
            name,
            names: None,
        }
    }

    /// Makes the same action where names are known: its inputs are those that `names` look at.
    pub(super) fn with_names(&self, names: Names) -> Self {
        Self {
            trees: self.trees.clone(),
            never: self.never.clone(),
            manifests: self.manifests.clone(),
            name: self.name.clone(),
            names: Some(Arc::new(names)),
        }
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
        self.trees.iter().for_each(|tree| tree.write_key(key));
        self.names.iter().for_each(|names| names.write_key(key));
    }

    fn run(&self, context: &Context<'_>, inputs: &[Product]) -> Result<Product, ActionError> {
        // Taken first: what changes from here on must not be remembered.
        #[expect(
            clippy::disallowed_methods,
            reason = "decides what to remember, never a byte"
        )]
        let now = SystemTime::now();
        let looked = self.trees.iter().map(|spec| spec.look(context, self));
        let seen: Vec<Seen> = looked.collect::<Result<_, _>>()?;

        let people = self.names.as_ref().map(|names| {
            let Names {
                below,
                people,
                origin,
            } = &**names;
            People::new(below, people, origin, context, inputs)
        });
        let people = people.transpose()?;
        let owners = self.trees.iter().map(|spec| spec.owner(people.as_ref()));
        let owners: Vec<Owner> = owners.collect::<Result<_, _>>()?;
        let is_recent = seen.iter().any(|seen| seen.is_recent(now));
        let scanned = Scanned {
            trees: self.trees.clone(),
            seen,
            owners,
            people: people.and_then(|it| it.tree),
        };
        if let Some(digest) = context.parts.known(&scanned)? {
            let make = move |context: &Context<'_>| scanned.merge(context);
            return Ok(Product::Tree(TreeProduct::lazy(digest, make)));
        }
        let product = TreeProduct::new(scanned.merge(context)?);
        if !is_recent {
            let blobs = Vec::new();
            context.parts.keep(&scanned, &product.digest, blobs)?;
        }
        Ok(Product::Tree(product))
    }
}

/// The digest of the tree that is made of what was seen.
struct Scanned {
    trees: Arc<Vec<TreeSpec>>,
    seen: Vec<Seen>,
    /// The owner of each tree.
    owners: Vec<Owner>,
    /// The files of users, and their homes.
    people: Option<Tree>,
}

impl Part for Scanned {
    fn name(&self) -> &'static str {
        "scan"
    }

    fn parameters(&self, key: &mut dyn KeyWriter) {
        self.trees.iter().for_each(|tree| tree.write_key(key));
        self.seen.iter().for_each(|seen| seen.write_key(key));
        for (tree, owner) in self.trees.iter().zip(&self.owners) {
            if tree.name().is_some() {
                key.field("owner is", &owner.key_text());
            }
        }
        if let Some(people) = &self.people {
            key.field("users", &people.digest().to_string());
        }
    }
}

impl Scanned {
    /// Makes one tree of all that was seen.
    fn merge(&self, context: &Context<'_>) -> Result<Tree, ActionError> {
        let mut all = Tree::default();
        let seen = self.seen.iter().zip(&self.owners);
        for (spec, (seen, owner)) in self.trees.iter().zip(seen) {
            let made = spec.make(seen, *owner, context)?;
            all.merge(made).map_err(|clash| {
                let error = explain_clash(&clash);
                match &spec.src {
                    Some(src) => error.at(&src.origin),
                    None => error,
                }
            })?;
        }
        if let Some(people) = &self.people {
            let merged = all.merge(people.clone());
            merged.map_err(|clash| explain_clash(&clash))?;
        }
        Ok(all)
    }
}
