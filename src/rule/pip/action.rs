//! Installs wheels into trees, and makes the trees of one target go together.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::graph::{
    Action, ActionError, Context, HashKey, KeyWriter, Lane, Origin, Product, TreeProduct,
    WantedWheel,
};
use crate::layer::{LayerPath, Tick, Tree};
use crate::lock::WheelPin;
use crate::oci::Digest;
use crate::python::WheelName;
use crate::python::wheel::{self, Expected, Part, Scheme, Venv, WheelError};
use crate::store::{Blob, Health, Record, Store, StoreError};

/// Lays a wheel out. Its bytes are fetched where the tree was never made here.
pub(super) struct Install {
    pub(super) file: String,
    pub(super) pin: WheelPin,
    pub(super) scheme: Scheme,
    /// Folders that may hold the wheel.
    pub(super) find_links: Arc<Vec<PathBuf>>,
    /// The workspace's root.
    pub(super) root: Arc<Path>,
    pub(super) origin: Origin,
}

impl Action for Install {
    fn name(&self) -> &'static str {
        "wheel"
    }

    fn is_cached(&self) -> bool {
        false
    }

    fn lane(&self) -> Lane {
        Lane::Net
    }

    fn parameters(&self, key: &mut dyn KeyWriter) {
        let Scheme {
            prefix,
            site,
            platsite,
            interpreter,
            python,
            owner,
        } = &self.scheme;
        key.field("wheel", &self.file);
        key.field("digest", &self.pin.sha256.to_string());
        // A path in the workspace leaves no trace in what is installed.
        let url = self.pin.url.as_deref().filter(|_| !self.pin.is_own());
        key.field("url", url.unwrap_or("-"));
        key.field("prefix", prefix.as_str());
        key.field("site", site.as_str());
        key.field("platsite", platsite.as_ref().map_or("-", |it| it.as_str()));
        key.field("interpreter", interpreter);
        key.field("python", &format!("{}.{}", python.0, python.1));
        key.field("owner", &format!("{}:{}", owner.uid, owner.gid));
        // What was laid out without a look at METADATA does not answer for a wheel that is to hold just this one.
        if let Some(metadata) = &self.pin.metadata {
            key.field("metadata", &metadata.to_string());
        }
    }

    fn run(&self, context: &Context<'_>, _: &[Product]) -> Result<Product, ActionError> {
        let mut key = HashKey::default();
        key.field("install 2", env!("CARGO_PKG_VERSION"));
        self.parameters(&mut key);
        let key = key.finish().0;
        let known = context.store.memo(&key)?;
        let known: Option<(Digest, [Blob; 2])> =
            known.and_then(|it| serde_json::from_value(it).ok());
        let fetched = self.fetch(context);
        let expected = self.expected()?;
        let (scheme, origin) = (self.scheme.clone(), self.origin.clone());
        let (store, digest) = (context.store.clone(), self.pin.sha256);
        let make = move |tick: Tick<'_>| -> Result<Tree, ActionError> {
            store.sound(&digest)?;
            let path = store.blob_path(&digest);
            let tree = wheel::install(&path, &expected, &scheme, tick);
            tree.map_err(|error| explain(&error).at(&origin))
        };
        // A listing that is gone is written anew where the wheel is here.
        let known = known.filter(|(_, [listing, _])| {
            fetched.is_err() || context.store.check(listing) == Health::Whole
        });
        let tree = match (fetched, known) {
            // Nobody may need the wheel: whoever does finds it missing.
            (_, Some((digest, blobs))) => {
                let make = move || make(&|_| true);
                TreeProduct::listed(digest, blobs, &self.file, context.store, make)
            }
            (Err(error), None) => return Err(error.at(&self.origin)),
            (Ok(wheel), None) => {
                // One that is damaged unseen is fetched again.
                let wheel = match context.store.sound(&wheel.digest) {
                    Ok(_) => wheel,
                    Err(_) => self.fetch(context).map_err(|it| it.at(&self.origin))?,
                };
                let tree = TreeProduct::keep(make(context.tick)?, wheel, context.store)?;
                // As long as this is remembered, listing and wheel are not collected.
                let record = Record {
                    blobs: tree.blobs.clone(),
                    product: serde_json::json!((tree.digest, &tree.blobs)),
                };
                context.store.put_record(&key, &record)?;
                tree
            }
        };
        Ok(Product::Tree(tree))
    }
}

impl Install {
    fn fetch(&self, context: &Context<'_>) -> Result<Blob, ActionError> {
        fetch(&self.file, &self.pin, &self.find_links, &self.root, context)
    }

    fn expected(&self) -> Result<Expected, ActionError> {
        let name = WheelName::parse(&self.file)
            .map_err(|error| ActionError::of("imgdecl::pip::wheel", &error).at(&self.origin))?;
        Ok(Expected {
            name: name.name,
            version: name.version,
            file: self.file.clone(),
            digest: self.pin.sha256,
            size: self.pin.size,
            url: self.pin.url.clone().filter(|_| !self.pin.is_own()),
            metadata: self.pin.metadata,
        })
    }
}

/// Says what is wrong with a wheel.
fn explain(error: &WheelError) -> ActionError {
    if error.code() == "imgdecl::stopped" {
        return ActionError::stopped();
    }
    ActionError {
        causes: ActionError::of("", &error.problem).causes,
        ..ActionError::new(error.code(), error.to_string())
    }
    .help(error.help())
}

/// Returns a wheel that is in the store, fetched if need be: from a folder of the workspace, or from an index.
pub(super) fn fetch(
    file: &str,
    pin: &WheelPin,
    find_links: &[PathBuf],
    root: &Path,
    context: &Context<'_>,
) -> Result<Blob, ActionError> {
    let store = context.store;
    if let Some(size) = pin.size {
        let digest = pin.sha256;
        let blob = Blob { digest, size };
        if store.check(&blob) == Health::Whole {
            return Ok(blob);
        }
    }
    let named = pin.url.iter().filter(|_| pin.is_own());
    let named = named.map(|path| root.join(path));
    let listed = find_links.iter().map(|folder| folder.join(file));
    for path in named.chain(listed) {
        if let Some(blob) = take(&path, pin, store, context)? {
            return Ok(blob);
        }
    }
    let project = WheelName::parse(file)
        .map_err(|error| ActionError::of("imgdecl::pip::wheel", &error))?
        .name;
    let wanted = WantedWheel {
        project: project.as_ref(),
        file,
        sha256: pin.sha256,
        size: pin.size,
        hint: pin.url.as_deref().filter(|_| !pin.is_own()),
    };
    context.ports.packages.wheel(&wanted, store)
}

/// Takes a wheel of the workspace into the store, if it is there and the right one.
fn take(
    path: &Path,
    pin: &WheelPin,
    store: &Store,
    context: &Context<'_>,
) -> Result<Option<Blob>, ActionError> {
    let Some(size) = std::fs::metadata(path)
        .ok()
        .filter(|it| it.is_file())
        .map(|it| it.len())
    else {
        return Ok(None);
    };
    let unreadable = |error: std::io::Error| {
        let message = format!("cannot read {}", path.display());
        ActionError::new("imgdecl::pip::find_links", message).because(&error)
    };
    let mut source = std::fs::File::open(path).map_err(unreadable)?;
    let mut writer = store.writer()?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = std::io::Read::read(&mut source, &mut buffer).map_err(unreadable)?;
        if count == 0 {
            break;
        }
        std::io::Write::write_all(&mut writer, &buffer[..count])
            .map_err(|error| store.unwritable(error))?;
        if !(context.tick)(count as u64) {
            return Err(ActionError::stopped());
        }
    }
    let expected = Blob {
        digest: pin.sha256,
        size,
    };
    match writer.complete_verified_as(&expected, "the wheel") {
        Ok(blob) => Ok(Some(blob)),
        // Another wheel of this name: the right one may be elsewhere.
        Err(StoreError::Digest { .. } | StoreError::Size { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Makes a virtual environment, without packages.
pub(super) struct Environment(pub(super) Venv);

impl Action for Environment {
    fn name(&self) -> &'static str {
        "venv"
    }

    fn is_cached(&self) -> bool {
        false
    }

    fn parameters(&self, key: &mut dyn KeyWriter) {
        let Venv {
            prefix,
            base,
            python,
            owner,
        } = &self.0;
        key.field("prefix", prefix.as_str());
        key.field("base", base);
        key.field("python", &format!("{python:?}"));
        key.field("owner", &format!("{}:{}", owner.uid, owner.gid));
    }

    fn run(&self, _: &Context<'_>, _: &[Product]) -> Result<Product, ActionError> {
        let tree = self.0.tree();
        let tree = tree.map_err(|error| {
            ActionError::of("imgdecl::wheel::scheme", &error).help(error.help())
        })?;
        Ok(Product::Tree(TreeProduct::new(tree)))
    }
}

/// Removes what the base says of packages that come in another version.
pub(super) struct Displace(pub(super) Vec<LayerPath>);

impl Action for Displace {
    fn name(&self) -> &'static str {
        "displace"
    }

    fn is_cached(&self) -> bool {
        false
    }

    fn parameters(&self, key: &mut dyn KeyWriter) {
        self.0
            .iter()
            .for_each(|path| key.field("remove", path.as_str()));
    }

    fn run(&self, _: &Context<'_>, _: &[Product]) -> Result<Product, ActionError> {
        let mut tree = Tree::default();
        self.0.iter().for_each(|path| tree.remove(path.clone()));
        Ok(Product::Tree(TreeProduct::new(tree)))
    }
}

/// Makes the trees of a target go together: what two wheels bring alike is there once.
pub(super) struct Join {
    /// Whether the last one wins where they differ.
    pub(super) last: bool,
}

impl Action for Join {
    fn name(&self) -> &'static str {
        "join"
    }

    fn is_cached(&self) -> bool {
        false
    }

    fn parameters(&self, key: &mut dyn KeyWriter) {
        key.field("on conflict", if self.last { "last" } else { "error" });
    }

    fn run(&self, context: &Context<'_>, inputs: &[Product]) -> Result<Product, ActionError> {
        let trees = inputs.iter().filter_map(|product| match product {
            Product::Tree(tree) => Some(tree.clone()),
            _ => None,
        });
        let trees: Vec<TreeProduct> = trees.collect();
        let mut text = format!("join 1 {} {}", env!("CARGO_PKG_VERSION"), self.last);
        trees
            .iter()
            .for_each(|tree| text.push_str(&format!(" {}", tree.digest)));
        let key = Digest::of(text.as_bytes());
        let known = context.store.memo(&key)?;
        let known: Option<Vec<Digest>> = known.and_then(|it| serde_json::from_value(it).ok());
        let Some(digests) = known.filter(|digests| digests.len() == trees.len()) else {
            let joined = join(&trees, self.last)?;
            let joined = trees.iter().zip(joined.into_iter().map(TreeProduct::new));
            let joined: Vec<TreeProduct> = joined
                .map(|(before, after)| match before.digest == after.digest {
                    true => before.clone(),
                    false => after,
                })
                .collect();
            let digests: Vec<Digest> = joined.iter().map(|tree| tree.digest).collect();
            context.store.put_memo(&key, serde_json::json!(digests))?;
            return Ok(Product::Trees(Arc::new(joined)));
        };
        let (all, last) = (Arc::new(trees), self.last);
        let product = |(index, digest): (usize, Digest)| {
            if all[index].digest == digest {
                return all[index].clone();
            }
            let all = all.clone();
            TreeProduct::lazy(digest, Vec::new(), move || {
                let mut joined = join(&all, last)?;
                Ok(joined.swap_remove(index))
            })
        };
        let joined = digests.into_iter().enumerate().map(product).collect();
        Ok(Product::Trees(Arc::new(joined)))
    }
}

fn join(trees: &[TreeProduct], last: bool) -> Result<Vec<Tree>, ActionError> {
    let parts: Result<Vec<Part>, ActionError> = trees
        .iter()
        .map(|tree| {
            let tree = Tree::clone(&*tree.tree.get()?);
            Ok(Part {
                wheel: dist_info(&tree),
                tree,
            })
        })
        .collect();
    let joined = wheel::join(parts?, last).map_err(|conflicts| {
        let Some(first) = conflicts.first() else {
            return ActionError::new("imgdecl::pip::conflict", "two packages do not go together");
        };
        let mut error = ActionError::of("imgdecl::pip::conflict", first).help(first.help());
        error.causes = conflicts
            .iter()
            .skip(1)
            .take(4)
            .map(ToString::to_string)
            .collect();
        error
    })?;
    Ok(joined.into_iter().map(|part| part.tree).collect())
}

/// Names the package of a tree, by its dist-info folder.
fn dist_info(tree: &Tree) -> String {
    let names = tree.entries().keys().filter_map(|path| {
        let folder = path
            .as_str()
            .split('/')
            .find(|it| it.ends_with(".dist-info"))?;
        folder.strip_suffix(".dist-info").map(str::to_owned)
    });
    let mut names = names;
    names.next().unwrap_or_else(|| "the environment".to_owned())
}

/// Packages of a target that the lock lacks: a plan can show them, and nothing can run them.
pub(super) struct Unpinned(pub(super) String);

/// The name of what stands for packages that the lock lacks.
pub(in crate::rule) const WHEELS: &str = "wheels";

impl Action for Unpinned {
    fn name(&self) -> &'static str {
        WHEELS
    }

    fn parameters(&self, key: &mut dyn KeyWriter) {
        key.field("not in image.lock", &self.0);
    }

    fn run(&self, _: &Context<'_>, _: &[Product]) -> Result<Product, ActionError> {
        let message = "these packages are not in image.lock";
        Err(ActionError::new("imgdecl::lock::missing", message).help("run `imgdecl lock`"))
    }
}
