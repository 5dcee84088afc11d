//! Files of the host, as rules see them: inside the workspace, hashed once.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::Spanned;

use crate::graph::{ActionError, Context, Origin};
use crate::layer::{Content, ContentError, Stamp, Tick};
use crate::oci::Digest;
use crate::spec::{Problem, Table};
use crate::store::{Blob, Stat, Stats, Store};

/// A path of the host that a manifest names.
#[derive(Clone, Debug)]
pub(super) struct HostPath {
    /// The absolute path. Symlinks in it are followed where it is used.
    pub(super) path: PathBuf,
    /// What the manifest says.
    pub(super) text: String,
    pub(super) origin: Origin,
    /// The workspace's root, which the path must not leave.
    pub(super) root: Arc<Path>,
}

impl HostPath {
    /// Checks a path of a manifest in `folder`: relative, and inside the workspace as far as its text goes.
    pub(super) fn new(
        table: &Table,
        value: &Spanned<String>,
        folder: &Path,
        root: &Arc<Path>,
    ) -> Result<Self, Problem> {
        let text = value.get_ref();
        let problem = |message: String, label: &str| {
            table.problem("imgdecl::value::host_path", value.span(), message, label)
        };
        if text.starts_with("https://") || text.starts_with("http://") {
            let message = format!("`{text}` is a URL, and no path of the host");
            return Err(problem(message, "not a path").help(format!(
                "the rule `http` fetches it, once, by its digest: [http.NAME] with url = \"{text}\""
            )));
        }
        if Path::new(text).is_absolute() {
            return Err(problem(
                format!("`{text}` is an absolute path"),
                "paths of the host are relative to the manifest's folder",
            )
            .help(outside(root)));
        }
        let path = normal(&folder.join(text));
        if !path.starts_with(root) {
            return Err(
                problem(format!("`{text}` leads out of the workspace"), "outside")
                    .help(outside(root)),
            );
        }
        Ok(Self {
            path,
            text: text.clone(),
            origin: table.place(value.span()),
            root: root.clone(),
        })
    }

    /// Follows symlinks, and makes sure that the result exists inside the workspace.
    pub(super) fn real(&self) -> Result<PathBuf, ActionError> {
        let real = self.path.canonicalize().map_err(|error| {
            ActionError::new(
                "imgdecl::host::missing",
                format!("cannot read `{}`", self.text),
            )
            .because(&error)
            .at(&self.origin)
            .help(format!("it was looked for at {}", self.path.display()))
        })?;
        if !real.starts_with(&*self.root) {
            let message = format!(
                "`{}` is a symlink that leads out of the workspace, to {}",
                self.text,
                real.display()
            );
            return Err(ActionError::new("imgdecl::host::outside", message)
                .at(&self.origin)
                .help(outside(&self.root)));
        }
        Ok(real)
    }

    /// Returns the digest and size of the file, from the stat cache if it did not change.
    pub(super) fn content(&self, context: &Context<'_>) -> Result<Content, ActionError> {
        let path = self.real()?;
        let folder: Arc<Path> = path.parent().unwrap_or(&path).into();
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(below) = name else {
            let message = format!("the name of {} is not UTF-8", path.display());
            return Err(ActionError::new("imgdecl::files::name", message).at(&self.origin));
        };
        let unreadable = |error: &dyn std::error::Error| {
            ActionError::new(
                "imgdecl::host::unreadable",
                format!("cannot read `{}`", self.text),
            )
            .because(error)
            .at(&self.origin)
        };
        let metadata = fs::metadata(&path).map_err(|error| unreadable(&error))?;
        if !metadata.is_file() {
            let message = format!("`{}` is no regular file", self.text);
            return Err(ActionError::new("imgdecl::host::kind", message).at(&self.origin));
        }
        let stamp = Stamp::of(&metadata);
        let kept = (context.folder, context.tick);
        content(&folder, below, stamp, kept, Some(&self.origin))
    }
}

/// Says how to get at what lies outside of the workspace.
fn outside(root: &Path) -> String {
    format!(
        "the workspace is {}: copy it there, or put an image.toml with `[workspace]` into a folder above both, with `members` \
         that name this one",
        root.display()
    )
}

/// Returns the content of a regular file, from the stat cache if it did not change.
fn content(
    folder: &Arc<Path>,
    below: &str,
    stamp: Stamp,
    (store, tick): (&Store, Tick<'_>),
    origin: Option<&Origin>,
) -> Result<Content, ActionError> {
    let path = folder.join(below);
    if let Some(digest) = known(&path, &stamp, store) {
        let source = crate::layer::Source::Host {
            folder: folder.clone(),
            below: below.into(),
            stamp: Box::new(stamp),
        };
        return Ok(Content {
            size: stamp.size,
            digest,
            source,
        });
    }
    // Taken first: a change while the file is read must not be remembered.
    #[expect(
        clippy::disallowed_methods,
        reason = "decides what to remember, never a byte"
    )]
    let now = std::time::SystemTime::now();
    let content = Content::of_host(folder, below, stamp, tick);
    let content = content.map_err(|error| content_error(&error, origin))?;
    if !stamp.is_recent(now) {
        let stats = Stats(vec![Stat {
            path: "".into(),
            stamp: row(&stamp),
            digest: content.digest,
        }]);
        store.put_stats(&stats_id(&path), &stats)?;
    }
    Ok(content)
}

/// Returns the name under which the stat cache has a file by itself.
fn stats_id(path: &Path) -> Digest {
    Digest::of(format!("file {}", path.display()).as_bytes())
}

/// Returns what the stat cache knows: the digest that the file of a real path had with this stamp.
pub(super) fn known(path: &Path, stamp: &Stamp, store: &Store) -> Option<Digest> {
    match store.stats(&stats_id(path)).0[..] {
        [
            Stat {
                stamp: known,
                digest,
                ..
            },
        ] if known == row(stamp) => Some(digest),
        _ => None,
    }
}

/// Returns the digest of a regular file, from the stat cache of `store` if it did not change.
///
/// # Errors
/// When it cannot be read, or remembered, or `tick` says to stop.
pub(crate) fn digest_of(path: &Path, store: &Store, tick: Tick<'_>) -> Result<Digest, ActionError> {
    blob_of(path, store, tick).map(|blob| blob.digest)
}

/// Returns the digest and the size of a regular file, from the stat cache of `store` if it did not change.
///
/// # Errors
/// When it cannot be read, or remembered, or `tick` says to stop.
pub(super) fn blob_of(path: &Path, store: &Store, tick: Tick<'_>) -> Result<Blob, ActionError> {
    let unreadable = |error: &dyn std::error::Error| {
        let message = format!("cannot read {}", path.display());
        ActionError::new("imgdecl::host::unreadable", message).because(error)
    };
    let path = path.canonicalize().map_err(|error| unreadable(&error))?;
    let metadata = fs::metadata(&path).map_err(|error| unreadable(&error))?;
    let (folder, name) = (path.parent(), path.file_name().and_then(|it| it.to_str()));
    let (Some(folder), Some(name), true) = (folder, name, metadata.is_file()) else {
        let error = std::io::Error::other("it is no regular file, or its name is not UTF-8");
        return Err(unreadable(&error));
    };
    let stamp = Stamp::of(&metadata);
    let Content { digest, size, .. } = content(&folder.into(), name, stamp, (store, tick), None)?;
    Ok(Blob { digest, size })
}

/// The stamp as the stat cache keeps it.
pub(super) fn row(stamp: &Stamp) -> [i64; 5] {
    [
        stamp.size as i64,
        stamp.mtime,
        stamp.ctime,
        stamp.inode as i64,
        stamp.device as i64,
    ]
}

/// Explains an error of content.
pub(super) fn content_error(error: &ContentError, origin: Option<&Origin>) -> ActionError {
    let (code, help) = match error {
        ContentError::Stopped => return ActionError::stopped(),
        ContentError::Changed(_) => (
            "imgdecl::host::changed",
            "run the build again when nothing writes to the file",
        ),
        ContentError::Io { .. } => (
            "imgdecl::host::unreadable",
            "check the file's permissions, or exclude it",
        ),
        ContentError::Damaged { .. } => (
            "imgdecl::archive::damaged",
            "fetch the archive again, or ask whoever made it",
        ),
    };
    let error = ActionError::of(code, error).help(help);
    match origin {
        Some(origin) => error.at(origin),
        None => error,
    }
}

/// Resolves `.` and `..` in the text of a path.
pub(super) fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            std::path::Component::ParentDir => {
                out.pop();
            }
            std::path::Component::CurDir => {}
            other => out.push(other),
        }
    }
    out
}
