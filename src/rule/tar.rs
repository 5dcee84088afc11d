//! A layer from an existing archive: tar, plain or compressed with gzip, zstd, xz or bzip2.
//!
//! ```toml
//! [tar.tools]
//! src     = "tools.tar.gz"
//! dest    = "/opt/tools"
//! strip   = 1
//! exclude = ["**/doc"]
//! ```
//!
//! The archive's files, folders, symlinks and hard links are placed below `dest`, after `strip` leading folders of each
//! path are dropped. Patterns in `include` and `exclude` are relative to what is left of the path. How the archive is
//! compressed is told by its first bytes.
//!
//! Modes are the archive's, with setuid, setgid and sticky bits. Owners are 0:0, or what `owner` says, or the archive's
//! own with `owner = "keep"`. Times are 0, or the archive's in whole seconds with `keep_mtime = true`, also before 1970.
//! The extended attributes `user.*` and `security.capability` are kept. Where a path stands in the archive twice, the
//! last one counts. A hard link to a symlink becomes a symlink of its own. Sparse files are filled up.
//!
//! Devices and fifos are errors, and so are names that start with `.wh.`, which runtimes read as deletions. An entry for
//! the archive's own top, `./`, gives `dest` its mode and owner with `owner = "keep"`, where `dest` is not `/`: the root
//! of an image is not a layer's to change. An entry that readers of tar take for different things is an error; so are PAX
//! records for the whole archive, where they say more than a comment, and an archive of no bytes at all, as a failed
//! download leaves it. An archive may unpack to 1 GiB, or to 200 times its size if that is more.

mod listing;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use toml::Spanned;

use super::host::HostPath;
use super::patterns::Patterns;
use super::value::{Collect, fields, image_path, owner};
use super::{Lower, Lowered, Role, Rule};
use crate::graph::{Action, ActionError, Context, KeyWriter, Origin, Product, TreeProduct};
use crate::layer::{Bounded, Content, LayerPath, Owner, Packing, PathError, Tick, Tree};
use crate::oci::{Descriptor, Digest, Hasher, MediaType};
use crate::spec::{Key, Problem, Problems, Table, Target, Type};
use crate::store::Blob;
use crate::tar::{Entries, TarError};
pub(super) use listing::Copy;
use listing::Listing;

const KEYS: &[Key] = &[
    Key::new(
        "src",
        Type::String,
        "",
        "The archive, relative to the manifest.",
    ),
    Key::new(
        "dest",
        Type::String,
        "\"/\"",
        "The folder of the image that it is placed in.",
    ),
    Key::new(
        "strip",
        Type::Integer,
        "0",
        "How many leading folders of each path to drop. Paths with no more than these are left out.",
    ),
    Key::new(
        "include",
        Type::Strings,
        "[\"**\"]",
        "Patterns of what to take.",
    ),
    Key::new(
        "exclude",
        Type::Strings,
        "[]",
        "Patterns of what to leave out. They win over `include`.",
    ),
    Key::new(
        "owner",
        Type::String,
        "\"0:0\"",
        "The numeric owner of all entries, as UID:GID; or \"keep\" for the archive's own.",
    ),
    Key::new(
        "keep_mtime",
        Type::Boolean,
        "false",
        "Keeps the archive's modification times, in whole seconds.",
    ),
    Key::new(
        "allow_empty",
        Type::Boolean,
        "false",
        "Lets patterns match nothing.",
    ),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TarTable {
    src: Spanned<String>,
    dest: Option<Spanned<String>>,
    strip: Option<Spanned<i64>>,
    include: Option<Vec<Spanned<String>>>,
    #[serde(default)]
    exclude: Vec<Spanned<String>>,
    owner: Option<Spanned<String>>,
    #[serde(default)]
    keep_mtime: bool,
    #[serde(default)]
    allow_empty: bool,
}

pub(super) struct Tar;

impl Rule for Tar {
    fn name(&self) -> &'static str {
        "tar"
    }

    fn role(&self) -> Role {
        Role::Layer
    }

    fn summary(&self) -> &'static str {
        "a layer from an existing archive"
    }

    fn source(&self) -> &'static str {
        include_str!("tar.rs")
    }

    fn keys(&self) -> &'static [Key] {
        KEYS
    }

    fn fields(&self) -> Vec<&'static str> {
        fields::<TarTable>().to_vec()
    }

    fn lower(&self, target: &Target, lower: &mut Lower<'_>) -> Result<Lowered, Problems> {
        let table: TarTable = lower.read(target, KEYS)?;
        let at = &target.table;
        let mut collect = Collect::default();
        let root = lower.root();
        let src = HostPath::new(at, &table.src, &target.folder, &root)
            .map_err(|it| collect.0.push(it))
            .ok();
        let unpack = Unpack {
            dest: table
                .dest
                .as_ref()
                .map(|it| collect.take(image_path(at, it.get_ref(), it.span())))
                .unwrap_or_default(),
            strip: collect.take(strip(at, table.strip.as_ref())),
            include: table
                .include
                .as_ref()
                .map(|list| Patterns::new(at, list, &mut collect)),
            exclude: Patterns::new(at, &table.exclude, &mut collect),
            owner: owner_or_keep(at, table.owner.as_ref(), &mut collect),
            keep_mtime: table.keep_mtime,
            allow_empty: table.allow_empty,
        };
        let unpack = UnpackHost {
            unpack,
            src: src.clone(),
        };
        let unpack = collect.finish(unpack)?;
        let Some(src) = src else {
            return Err(Problems::default());
        };
        let origin = src.origin.clone();
        let find = lower.add(target, Find(src), vec![], origin.clone());
        Ok(Lowered::Layer(vec![lower.add(
            target,
            unpack,
            vec![find],
            origin,
        )]))
    }
}

/// Finds an archive: its digest and size.
pub(super) struct Find(pub(super) HostPath);

impl Action for Find {
    fn name(&self) -> &'static str {
        "find"
    }

    fn is_cached(&self) -> bool {
        false
    }

    fn parameters(&self, key: &mut dyn KeyWriter) {
        key.field("path", &self.0.path.display().to_string());
    }

    fn run(&self, context: &Context<'_>, _: &[Product]) -> Result<Product, ActionError> {
        let Content { size, digest, .. } = self.0.content(context)?;
        Ok(Product::Found(Descriptor::new(
            MediaType::Other("application/x-tar".into()),
            digest,
            size,
        )))
    }
}

/// Reads how many folders are dropped.
pub(super) fn strip(at: &Table, strip: Option<&Spanned<i64>>) -> Result<usize, Problem> {
    strip.map_or(Ok(0), |strip| {
        let problem = || {
            at.problem(
                "imgdecl::value::strip",
                strip.span(),
                "`strip` counts folders",
                "from 0 to 255",
            )
        };
        u8::try_from(*strip.get_ref())
            .map(usize::from)
            .map_err(|_| problem())
    })
}

/// Reads the owner of all entries; `None` keeps the archive's.
pub(super) fn owner_or_keep(
    at: &Table,
    value: Option<&Spanned<String>>,
    collect: &mut Collect,
) -> Option<Owner> {
    match value {
        Some(value) if value.get_ref() == "keep" => None,
        Some(value) => Some(collect.take(owner(at, value))),
        None => Some(Owner::default()),
    }
}

/// Reads an archive of the host.
struct UnpackHost {
    src: Option<HostPath>,
    unpack: Unpack,
}

impl Action for UnpackHost {
    fn name(&self) -> &'static str {
        "tar"
    }

    fn version(&self) -> u32 {
        3 // folders of V7, repeated headers and sizes that mean nothing are read as other readers do
    }

    fn parameters(&self, key: &mut dyn KeyWriter) {
        self.unpack.write_key(key);
    }

    fn run(&self, context: &Context<'_>, inputs: &[Product]) -> Result<Product, ActionError> {
        let (Some(src), [Product::Found(found)]) = (&self.src, inputs) else {
            return Err(ActionError::bug("an archive is read before it is found"));
        };
        let archive = Archive {
            text: &src.text,
            origin: &src.origin,
            path: &src.real()?,
            size: found.size,
        };
        let unpacked = self.unpack.unpack(&archive, context)?;
        if unpacked.read != found.digest {
            let message = format!("`{}` changed while it was read", src.text);
            return Err(ActionError::new("imgdecl::host::changed", message)
                .at(&src.origin)
                .help("run the build again"));
        }
        self.unpack.keep(unpacked, &archive, context)
    }
}

/// An archive on this machine.
pub(super) struct Archive<'a> {
    /// What the manifest calls it.
    pub(super) text: &'a str,
    pub(super) origin: &'a Origin,
    pub(super) path: &'a Path,
    /// Its size in bytes.
    pub(super) size: u64,
}

/// How an archive is read into a tree whose contents lie in the store.
pub(super) struct Unpack {
    pub(super) dest: LayerPath,
    pub(super) strip: usize,
    pub(super) include: Option<Patterns>,
    pub(super) exclude: Patterns,
    /// `None` keeps the archive's.
    pub(super) owner: Option<Owner>,
    pub(super) keep_mtime: bool,
    pub(super) allow_empty: bool,
}

/// What was read of an archive.
pub(super) struct Unpacked {
    /// The digest of the bytes that were read: all of the archive.
    pub(super) read: Digest,
    tree: Tree,
    contents: Blob,
}

impl Unpack {
    /// Adds all that decides the tree, besides the archive.
    pub(super) fn write_key(&self, key: &mut dyn KeyWriter) {
        key.field("dest", &format!("/{}", self.dest));
        key.field("strip", &self.strip.to_string());
        match &self.include {
            Some(include) => include.write_key("include", key),
            None => key.field("include", "all"),
        }
        self.exclude.write_key("exclude", key);
        let owner = self.owner.map(|owner| owner.key_text());
        key.field("owner", owner.as_deref().unwrap_or("keep"));
        key.flag("keep_mtime", self.keep_mtime);
        key.flag("allow_empty", self.allow_empty);
    }

    /// Returns where an entry goes; `None` if it is left out.
    ///
    /// # Errors
    /// When no image can have that path.
    pub(super) fn place(&self, name: &LayerPath) -> Result<Option<LayerPath>, PathError> {
        let rest: Vec<&str> = name.as_str().split('/').skip(self.strip).collect();
        let rest = rest.join("/");
        if rest.is_empty() {
            return Ok(None);
        }
        // A pattern that matches a folder takes all of it.
        let any = |patterns: &Patterns| {
            let ends = rest
                .match_indices('/')
                .map(|(at, _)| at)
                .chain([rest.len()]);
            // Each pattern that matches anywhere on the way counts as used: no short cut.
            ends.filter(|&end| patterns.matches(&rest[..end])).count() > 0
        };
        if any(&self.exclude) || !self.include.as_ref().is_none_or(any) {
            return Ok(None);
        }
        self.dest.join(&rest).map(Some)
    }

    /// Reads a tar, plain or compressed, and keeps its contents in the store.
    ///
    /// # Errors
    /// When it cannot be read, or holds what no layer can.
    pub(super) fn unpack(
        &self,
        archive: &Archive<'_>,
        context: &Context<'_>,
    ) -> Result<Unpacked, ActionError> {
        let damaged = |error: &dyn std::error::Error| {
            let message = format!("cannot read the archive `{}`", archive.text);
            ActionError::new("imgdecl::tar::damaged", message)
                .because(error)
                .at(archive.origin)
        };
        let unread = |error: &dyn std::error::Error| damaged(error).help(CUT_SHORT);
        let path = archive.path;
        let mut file = Hashed {
            inner: File::open(path).map_err(|error| unread(&error))?,
            hasher: Hasher::default(),
            tick: context.tick,
        };
        let (packing, peeked) = Packing::detect(&mut file).map_err(|error| unread(&error))?;
        let decoder = packing.decoder(peeked).map_err(|error| unread(&error))?;
        let mut reader = Bounded::new(decoder, archive.size);
        let mut contents = context.store.writer()?;
        let mut listing = Listing::new(self, archive);
        let mut tar = Entries::new(&mut reader);
        loop {
            match tar.next_entry() {
                Ok(Some(entry)) => listing.add(entry, &mut tar, &mut contents, context.tick)?,
                Ok(None) => break,
                Err(error @ TarError::Damaged(_)) => {
                    let what = path_kind(path);
                    let help = what.map_or(CUT_SHORT.to_owned(), |(what, remedy)| {
                        format!(
                            "it is {what}, and no tar: only tar, plain or compressed, can be read{remedy}"
                        )
                    });
                    return Err(damaged(&error).help(help));
                }
                Err(error) => {
                    return Err(damaged(&error).help(
                        "make the archive again with another tool, or tell whoever made it",
                    ));
                }
            }
        }
        if tar.is_blank() {
            let message = format!("the archive `{}` is empty", archive.text);
            return Err(ActionError::new("imgdecl::tar::blank", message)
                .at(archive.origin)
                .help("not even an end is in it: get it again"));
        }
        listing.check_globals(tar.globals())?;
        drop(tar);
        // What follows the end of the archive decides nothing, but is part of the file's digest.
        io::copy(&mut reader, &mut io::sink()).map_err(|error| unread(&error))?;
        drop(reader);
        io::copy(&mut file, &mut io::sink()).map_err(|error| unread(&error))?;
        let contents = contents.complete()?;
        let path: Arc<Path> = context.store.local_path(&contents.digest).into();
        Ok(Unpacked {
            read: file.hasher.finish(),
            tree: listing.finish(&path, archive.origin)?,
            contents,
        })
    }

    /// Refuses a pattern of `include` that matched nothing.
    ///
    /// # Errors
    /// When there is one, and that may not be.
    pub(super) fn check_used(&self, archive: &Archive<'_>) -> Result<(), ActionError> {
        match self.include.as_ref().and_then(Patterns::unused) {
            Some((pattern, origin)) if !self.allow_empty => {
                let text = archive.text;
                let message = format!("the pattern `{pattern}` matches nothing in `{text}`");
                Err(ActionError::new("imgdecl::files::no_match", message)
                    .at(origin)
                    .help("`*` stops at a `/`, `**` does not"))
            }
            _ => Ok(()),
        }
    }

    /// Makes the product of what was read.
    ///
    /// # Errors
    /// When a pattern matched nothing, or the store cannot be written.
    pub(super) fn keep(
        &self,
        unpacked: Unpacked,
        archive: &Archive<'_>,
        context: &Context<'_>,
    ) -> Result<Product, ActionError> {
        self.check_used(archive)?;
        let Unpacked { tree, contents, .. } = unpacked;
        let kept = TreeProduct::keep(tree, contents, "", context.store)?;
        Ok(Product::Tree(kept))
    }
}

impl Unpacked {
    /// The same, with another tree that has the same contents.
    ///
    /// # Errors
    /// What `change` returns.
    pub(super) fn with_tree(
        self,
        change: impl FnOnce(Tree) -> Result<Tree, ActionError>,
    ) -> Result<Self, ActionError> {
        let tree = change(self.tree)?;
        Ok(Self { tree, ..self })
    }
}

/// Hashes what is read.
struct Hashed<'a, R> {
    inner: R,
    hasher: Hasher,
    tick: Tick<'a>,
}

impl<R: Read> Read for Hashed<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !(self.tick)(0) {
            return Err(io::Error::other("stopped"));
        }
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

/// What to do about an archive that ends too early.
const CUT_SHORT: &str = "tar can be read, plain or compressed with gzip, zstd, xz or bzip2; if it is one, it is cut \
                         short: get it again";

/// Says what a file is that is no tar, by its first bytes, and how to get a tar of it, where there is a way.
fn path_kind(path: &Path) -> Option<(&'static str, &'static str)> {
    let mut magic = Vec::new();
    File::open(path)
        .ok()?
        .take(8)
        .read_to_end(&mut magic)
        .ok()?;
    let what = match &magic[..] {
        [b'P', b'K', 3 | 5, 4 | 6, ..] => {
            return Some((
                "a zip archive",
                "; unpack it, and take the folder by `files`",
            ));
        }
        b"!<arch>\n" => {
            let remedy =
                "; `dpkg-deb --fsys-tarfile NAME.deb > NAME.tar` makes a tar of a package's files";
            return Some(("an ar archive, as Debian packages are", remedy));
        }
        [0xed, 0xab, 0xee, 0xdb, ..] => {
            let remedy = "; `rpm2archive NAME.rpm` makes a tar of a package's files";
            return Some(("an RPM package", remedy));
        }
        [b'7', b'z', 0xbc, 0xaf, ..] => "a 7z archive",
        [b'R', b'a', b'r', b'!', ..] => "a RAR archive",
        [b'L', b'Z', b'I', b'P', ..] => "compressed with lzip",
        [0x04, 0x22, 0x4d, 0x18, ..] => "compressed with lz4",
        [0x1f, 0x9d, ..] => "compressed with compress",
        [0x5d, 0, 0, ..] => "compressed with LZMA, the form before xz",
        [b'0', b'7', b'0', b'7', ..] => "a cpio archive",
        [b'<', ..] => "a page of HTML or XML",
        _ => return None,
    };
    Some((what, ""))
}
