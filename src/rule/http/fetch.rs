//! Fetches a file at a URL, and makes the tree of a layer of it: the file itself, or what an archive holds.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use super::Shape;
use crate::graph::{
    Action, ActionError, Context, KeyWriter, Lane, OTHER_BYTES, Origin, Product, TreeProduct,
    WantedUrl,
};
use crate::layer::{Attrs, Content, ContentError, Entry, Kind, PathError, Source, Tree};
use crate::oci::Digest;
use crate::python::wheel::{self, Unzipped};
use crate::rule::scan::explain_clash;
use crate::rule::tar::{Archive, Unpack};
use crate::store::Blob;

/// Fetches the file where the cache lacks it, and makes the tree of it.
pub(super) struct Fetch {
    pub(super) url: String,
    pub(super) sha256: Digest,
    pub(super) made: Shape,
    pub(super) origin: Origin,
    /// What to do where the server has other bytes, and that is right.
    pub(super) remedy: String,
}

impl Action for Fetch {
    fn name(&self) -> &'static str {
        "http"
    }

    fn lane(&self) -> Lane {
        Lane::Net
    }

    fn parameters(&self, key: &mut dyn KeyWriter) {
        // Wherever it came from, it is the same.
        key.field("digest", &self.sha256.to_string());
        match &self.made {
            Shape::File(path, Attrs { mode, owner }) => {
                key.field("path", &format!("/{path}"));
                key.field("mode", &format!("{mode:04o}"));
                key.field("owner", &owner.key_text());
            }
            Shape::Archive(unpack, mode) => {
                unpack.write_key(key);
                let mode = mode.map(|mode| format!("{mode:04o}"));
                key.field("mode", mode.as_deref().unwrap_or("keep"));
            }
        }
    }

    fn run(&self, context: &Context<'_>, _: &[Product]) -> Result<Product, ActionError> {
        let mut blob = self.fetch(context)?;
        // One that is damaged unseen is fetched again.
        if context.store.sound(&blob.digest).is_err() {
            blob = self.fetch(context)?;
            context.store.sound(&blob.digest)?;
        }
        let path = context.store.local_path(&blob.digest);
        let (place, attrs) = match &self.made {
            Shape::File(place, attrs) => (place, *attrs),
            Shape::Archive(unpack, mode) => {
                let archive = Archive {
                    text: &self.url,
                    origin: &self.origin,
                    path: &path,
                    size: blob.size,
                };
                return self.unpack(&archive, blob, (unpack, *mode), context);
            }
        };
        let content = Content {
            size: blob.size,
            digest: blob.digest,
            source: Source::Range {
                path: path.into(),
                offset: 0,
            },
        };
        let entry = Entry::new(Kind::File { attrs, content });
        let mut tree = Tree::default();
        tree.insert(place.clone(), entry)
            .map_err(|clash| explain_clash(&clash).at(&self.origin))?;
        let kept = TreeProduct::keep(tree, blob, "", context.store)?;
        Ok(Product::Tree(kept))
    }
}

impl Fetch {
    fn fetch(&self, context: &Context<'_>) -> Result<Blob, ActionError> {
        let wanted = WantedUrl {
            url: &self.url,
            sha256: Some(self.sha256),
        };
        let fetched = context.ports.urls().fetch(&wanted, context.store);
        fetched.map_err(|error| {
            let error = match error.code == OTHER_BYTES {
                true => error.help(format!("find out why it was replaced; {}", self.remedy)),
                false => error,
            };
            error.at(&self.origin)
        })
    }

    /// Makes the tree of an archive.
    fn unpack(
        &self,
        archive: &Archive<'_>,
        blob: Blob,
        (unpack, mode): (&Unpack, Option<u16>),
        context: &Context<'_>,
    ) -> Result<Product, ActionError> {
        if is_zip(archive.path) {
            let tree = self.unzip(archive, blob, (unpack, mode), context)?;
            unpack.check_used(archive)?;
            let kept = TreeProduct::keep(tree, blob, archive.text, context.store)?;
            return Ok(Product::Tree(kept));
        }
        let unpacked = unpack.unpack(archive, context)?;
        let unpacked = unpacked.with_tree(|tree| match mode {
            Some(mode) => {
                with_mode(&tree, mode).ok_or_else(|| ActionError::bug("a tree of a tree"))
            }
            None => Ok(tree),
        })?;
        unpack.keep(unpacked, archive, context)
    }

    /// Makes the tree of a zip archive, whose contents stay where they are.
    fn unzip(
        &self,
        archive: &Archive<'_>,
        blob: Blob,
        (unpack, mode): (&Unpack, Option<u16>),
        context: &Context<'_>,
    ) -> Result<Tree, ActionError> {
        let fail =
            |message: String| ActionError::new("imgdecl::http::zip", message).at(&self.origin);
        let url = archive.text;
        if unpack.keep_mtime || unpack.owner.is_none() {
            let message = format!(
                "`{url}` is a zip archive: its times mean nothing elsewhere, and it has no owners"
            );
            return Err(fail(message).help("leave out `keep_mtime`, and say `owner` in numbers"));
        }
        let unzipped = wheel::unzip(archive.path, url, blob.digest, context.tick);
        let Unzipped { files, folders } = unzipped.map_err(|problem| match problem {
            wheel::Problem::Stopped | wheel::Problem::Content(ContentError::Stopped) => {
                ActionError::stopped()
            }
            problem => fail(format!("cannot unpack `{url}`: {}", words(&problem)))
                .help("make a tar of what it holds, or fetch another archive"),
        })?;
        let owner = unpack.owner.unwrap_or_default();
        let unplaced = |error: PathError| fail(error.to_string());
        let mut entries = BTreeMap::new();
        for folder in folders {
            if let Some(place) = unpack.place(&folder).map_err(unplaced)? {
                let attrs = Attrs {
                    owner,
                    ..Attrs::FOLDER
                };
                let kind = Kind::Folder { attrs, firm: true };
                entries.insert(place, Arc::new(Entry::new(kind)));
            }
        }
        for (name, executable, content) in files {
            if let Some(place) = unpack.place(&name).map_err(unplaced)? {
                let own = if executable { 0o755 } else { 0o644 };
                let attrs = Attrs {
                    mode: mode.unwrap_or(own),
                    owner,
                };
                let kind = Kind::File { attrs, content };
                let entry = Arc::new(Entry::new(kind));
                if let Some(other) = entries.insert(place.clone(), entry) {
                    let word = other.kind.word();
                    let message = format!("`{url}` has a file and a {word} for /{place}");
                    return Err(
                        fail(message).help("with another `strip`, or `exclude`, they differ")
                    );
                }
            }
        }
        Tree::from_sorted(entries).map_err(|clash| {
            let error = fail(clash.to_string());
            error.help("leave it out with `exclude`")
        })
    }
}

/// Tells whether a file begins as zip archives do.
fn is_zip(path: &Path) -> bool {
    let mut magic = Vec::new();
    let file = File::open(path).and_then(|file| file.take(4).read_to_end(&mut magic));
    file.is_ok() && matches!(magic[..], [b'P', b'K', 3 | 5 | 6, 4 | 6])
}

/// Says what is wrong with a zip archive that is no wheel.
fn words(problem: &wheel::Problem) -> String {
    use wheel::Problem;
    match problem {
        Problem::Io(error) => format!("it cannot be read: {error}"),
        Problem::Zip(why) => format!("it is not a sound zip archive: {why}"),
        Problem::Directory(size) => {
            format!("its directory of members has {size} bytes, which is too many")
        }
        Problem::Twice(member) => format!("it has two members named `{member}`"),
        Problem::Kind { member, kind } => format!("the member `{member}` is a {kind}"),
        Problem::Method { member, method } => {
            format!("the member `{member}` is compressed with {method}")
        }
        Problem::Bomb { archive, size } => format!("its {archive} bytes would become {size}"),
        other => other.to_string(),
    }
}

/// The same tree, with one mode for all files.
fn with_mode(tree: &Tree, mode: u16) -> Option<Tree> {
    let entries = tree.entries().iter().map(|(path, entry)| {
        let mut entry = Entry::clone(entry);
        match &mut entry.kind {
            Kind::File { attrs, .. } | Kind::Hardlink { attrs, .. } => attrs.mode = mode,
            Kind::Folder { .. } | Kind::Symlink { .. } => {}
        }
        (path.clone(), Arc::new(entry))
    });
    Tree::from_sorted(entries).ok()
}

/// A file that the lock lacks: a plan can show it, and nothing can run it.
pub(super) struct Unpinned(pub(super) String);

impl Action for Unpinned {
    fn name(&self) -> &'static str {
        "resolve"
    }

    fn is_unpinned(&self) -> bool {
        true
    }

    fn parameters(&self, key: &mut dyn KeyWriter) {
        key.field("not in image.lock", &self.0);
    }

    fn run(&self, _: &Context<'_>, _: &[Product]) -> Result<Product, ActionError> {
        let message = format!("`{}` is not in image.lock", self.0);
        Err(ActionError::new("imgdecl::lock::missing", message).help("run `imgdecl lock`"))
    }
}
