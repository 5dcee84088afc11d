//! Installs wheels into trees, and makes the trees of one target go together.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::pinned::WheelPin;
use super::reach::Reach;
use crate::graph::{
    Action, ActionError, Context, KeyWriter, Lane, Origin, Part, Product, TreeProduct, WantedWheel,
};
use crate::layer::{LayerPath, Tree};
use crate::oci::Digest;
use crate::python::wheel::{self, Expected, Scheme, Venv, WheelError};
use crate::python::{Target, WheelName};
use crate::store::{Blob, Blobs, Health, StoreError};

/// Fetches a wheel and lays it out.
pub(super) struct Install {
    pub(super) file: String,
    pub(super) pin: WheelPin,
    pub(super) scheme: Scheme,
    /// What the wheel must run on, if its name does not say where it runs.
    pub(super) runs_on: Option<Target>,
    /// Folders that may hold the wheel.
    pub(super) find_links: Arc<Vec<PathBuf>>,
    /// Where packages come from, as files of the user's say.
    pub(super) reach: Arc<Reach>,
    /// The workspace's root.
    pub(super) root: Arc<Path>,
    pub(super) origin: Origin,
}

impl Action for Install {
    fn name(&self) -> &'static str {
        "wheel"
    }

    fn lane(&self) -> Lane {
        Lane::Net
    }

    fn detail(&self) -> Option<&str> {
        Some(&self.file)
    }

    fn parameters(&self, key: &mut dyn KeyWriter) {
        key.field("wheel", &self.file);
        key.field("digest", &self.pin.sha256.to_string());
        // A path in the workspace leaves no trace in what is installed.
        key.field("url", self.pin.hint().unwrap_or("-"));
        write_scheme(&self.scheme, key);
        if let Some(target) = &self.runs_on {
            key.field("runs on", &target.name());
        }
        // What was laid out without a look at METADATA does not answer for a wheel that is to hold just this one.
        if let Some(metadata) = &self.pin.metadata {
            key.field("metadata", &metadata.to_string());
        }
    }

    fn run(&self, context: &Context<'_>, _: &[Product]) -> Result<Product, ActionError> {
        let fetch = || self.fetch(context).map_err(|error| error.at(&self.origin));
        let mut wheel = fetch()?;
        // One that is damaged unseen is fetched again.
        if context.store.sound(&wheel.digest).is_err() {
            wheel = fetch()?;
            context.store.sound(&wheel.digest)?;
        }
        if let Some(target) = &self.runs_on {
            let path = context.store.local_path(&wheel.digest);
            let (file, digest) = (&self.file, wheel.digest);
            wheel::check_compiled(&path, file, digest, target, context.tick)
                .map_err(|error| explain(&error).at(&self.origin))?;
        }
        let tree = laid_out(wheel, &self.expected()?, &self.scheme, context);
        tree.map_err(|error| error.at(&self.origin))
    }
}

/// Lays a wheel out that is in the store.
pub(super) fn laid_out(
    wheel: Blob,
    expected: &Expected,
    scheme: &Scheme,
    context: &Context<'_>,
) -> Result<Product, ActionError> {
    let path = context.store.local_path(&wheel.digest);
    let tree = wheel::install(&path, expected, scheme, context.tick);
    let tree = tree.map_err(|error| explain(&error))?;
    let kept = TreeProduct::keep(tree, wheel, &expected.file, context.store)?;
    Ok(Product::Tree(kept))
}

/// Writes what decides how a wheel is laid out into a key.
pub(super) fn write_scheme(scheme: &Scheme, key: &mut dyn KeyWriter) {
    let Scheme {
        prefix,
        site,
        platsite,
        interpreter,
        python,
        owner,
    } = scheme;
    key.field("prefix", &format!("/{prefix}"));
    key.field("site", &format!("/{site}"));
    let platsite = platsite.as_ref().map(|path| format!("/{path}"));
    key.field("platsite", platsite.as_deref().unwrap_or("-"));
    key.field("interpreter", interpreter);
    key.field("python", &format!("{}.{}", python.0, python.1));
    key.field("owner", &owner.key_text());
}

impl Install {
    fn fetch(&self, context: &Context<'_>) -> Result<Blob, ActionError> {
        let at = Folders {
            find_links: &self.find_links,
            root: &self.root,
            reach: &self.reach,
        };
        fetch(&self.file, &self.pin, &at, context)
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
            url: self.pin.hint().map(str::to_owned),
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

/// Where wheels of a target may be.
pub(super) struct Folders<'a> {
    /// The folders of the workspace.
    pub(super) find_links: &'a [PathBuf],
    /// The workspace's root.
    pub(super) root: &'a Path,
    /// What files of the user's say.
    pub(super) reach: &'a Reach,
}

/// Returns a wheel that is in the store, fetched if need be: from a folder of the workspace, or from an index.
pub(super) fn fetch(
    file: &str,
    pin: &WheelPin,
    at: &Folders<'_>,
    context: &Context<'_>,
) -> Result<Blob, ActionError> {
    let Folders {
        find_links,
        root,
        reach,
    } = at;
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
        hint: pin.hint().map(|url| reach.with_login(url)),
        home: pin.home.as_ref(),
    };
    let packages = reach.packages_of(pin.home.as_ref(), context);
    packages.get().wheel(&wanted, store)
}

/// Takes a wheel of the workspace into the store, if it is there and the right one.
fn take(
    path: &Path,
    pin: &WheelPin,
    store: &dyn Blobs,
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
        key.field("prefix", &format!("/{prefix}"));
        key.field("base", base);
        key.field("python", &format!("{}.{}", python.0, python.1));
        key.field("owner", &owner.key_text());
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
        key.list("remove", self.0.iter().map(|path| format!("/{path}")));
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
        let together = Together {
            last: self.last,
            trees: trees.iter().map(|tree| tree.digest).collect(),
        };
        let joined: OnceCell<Vec<Tree>> = OnceCell::new();
        let digests: Vec<Digest> = context.recorded(&together, || {
            let made = join(&trees, self.last, context)?;
            Ok(joined
                .get_or_init(|| made)
                .iter()
                .map(Tree::digest)
                .collect())
        })?;
        let mut joined = joined.into_inner().map(Vec::into_iter);
        let (all, last) = (Arc::new(trees), self.last);
        let product = |(index, digest): (usize, Digest)| {
            let before = &all[index];
            let made = joined.as_mut().and_then(Iterator::next);
            if before.digest == digest {
                return before.clone();
            }
            let after = match made {
                Some(tree) => TreeProduct::new(tree),
                None => {
                    let all = all.clone();
                    TreeProduct::lazy(digest, move |context| {
                        let mut joined = join(&all, last, context)?;
                        Ok(joined.swap_remove(index))
                    })
                }
            };
            after.with_contents_of(before)
        };
        let joined = digests.into_iter().take(all.len()).enumerate();
        let joined = joined.map(product).collect();
        Ok(Product::Trees(Arc::new(joined)))
    }
}

/// The digests of trees that were made to go together.
struct Together {
    last: bool,
    trees: Vec<Digest>,
}

impl Part for Together {
    fn name(&self) -> &'static str {
        "join"
    }

    fn parameters(&self, key: &mut dyn KeyWriter) {
        key.field("on conflict", if self.last { "last" } else { "error" });
        key.list("trees", self.trees.iter().map(Digest::to_string));
    }
}

fn join(
    trees: &[TreeProduct],
    last: bool,
    context: &Context<'_>,
) -> Result<Vec<Tree>, ActionError> {
    let parts: Result<Vec<wheel::Part>, ActionError> = trees
        .iter()
        .map(|tree| {
            let tree = Tree::clone(&*tree.tree.get(context)?);
            Ok(wheel::Part {
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

impl Action for Unpinned {
    fn name(&self) -> &'static str {
        "wheels"
    }

    fn is_unpinned(&self) -> bool {
        true
    }

    fn parameters(&self, key: &mut dyn KeyWriter) {
        key.field("not in image.lock", &self.0);
    }

    fn run(&self, _: &Context<'_>, _: &[Product]) -> Result<Product, ActionError> {
        let message = "these packages are not in image.lock";
        Err(ActionError::new("imgdecl::lock::missing", message).help("run `imgdecl lock`"))
    }
}
