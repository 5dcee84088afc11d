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
use crate::graph::{Action, ActionError, Context, KeyWriter, Product, TreeProduct};
use crate::layer::{Bounded, Content, LayerPath, Owner, Packing, Tick};
use crate::oci::{Descriptor, Hasher, MediaType};
use crate::spec::{Key, Problems, Target, Type};
use crate::tar::{Entries, TarError};
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
        let keep_owner = table
            .owner
            .as_ref()
            .is_some_and(|it| it.get_ref() == "keep");
        let strip = table.strip.as_ref().map_or(Ok(0), |strip| {
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
        });
        let unpack = Unpack {
            dest: table
                .dest
                .as_ref()
                .map(|it| collect.take(image_path(at, it.get_ref(), it.span())))
                .unwrap_or_default(),
            strip: collect.take(strip),
            include: table
                .include
                .as_ref()
                .map(|list| Patterns::new(at, list, &mut collect)),
            exclude: Patterns::new(at, &table.exclude, &mut collect),
            owner: match &table.owner {
                Some(value) if !keep_owner => Some(collect.take(owner(at, value))),
                Some(_) => None,
                None => Some(Owner::default()),
            },
            keep_mtime: table.keep_mtime,
            allow_empty: table.allow_empty,
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

/// Reads an archive into a tree whose contents lie in the store.
struct Unpack {
    src: Option<HostPath>,
    dest: LayerPath,
    strip: usize,
    include: Option<Patterns>,
    exclude: Patterns,
    /// `None` keeps the archive's.
    owner: Option<Owner>,
    keep_mtime: bool,
    allow_empty: bool,
}

impl Action for Unpack {
    fn name(&self) -> &'static str {
        "tar"
    }

    fn version(&self) -> u32 {
        3 // folders of V7, repeated headers and sizes that mean nothing are read as other readers do
    }

    fn parameters(&self, key: &mut dyn KeyWriter) {
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

    fn run(&self, context: &Context<'_>, inputs: &[Product]) -> Result<Product, ActionError> {
        let (Some(src), [Product::Found(found)]) = (&self.src, inputs) else {
            return Err(ActionError::bug("an archive is read before it is found"));
        };
        let damaged = |error: &dyn std::error::Error| {
            let message = format!("cannot read the archive `{}`", src.text);
            ActionError::new("imgdecl::tar::damaged", message)
                .because(error)
                .at(&src.origin)
        };
        let unread = |error: &dyn std::error::Error| damaged(error).help(CUT_SHORT);
        let path = src.real()?;
        let mut file = Hashed {
            inner: File::open(&path).map_err(|error| unread(&error))?,
            hasher: Hasher::default(),
            tick: context.tick,
        };
        let (packing, peeked) = Packing::detect(&mut file).map_err(|error| unread(&error))?;
        let decoder = packing.decoder(peeked).map_err(|error| unread(&error))?;
        let mut reader = Bounded::new(decoder, found.size);
        let mut contents = context.store.writer()?;
        let mut listing = Listing::new(self, src, found.size);
        let mut tar = Entries::new(&mut reader);
        loop {
            match tar.next_entry() {
                Ok(Some(entry)) => listing.add(entry, &mut tar, &mut contents, context.tick)?,
                Ok(None) => break,
                Err(error @ TarError::Damaged(_)) => {
                    let what = path_kind(&path);
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
            let message = format!("the archive `{}` is empty", src.text);
            return Err(ActionError::new("imgdecl::tar::blank", message)
                .at(&src.origin)
                .help("not even an end is in it: get it again"));
        }
        listing.check_globals(tar.globals())?;
        drop(tar);
        // What follows the end of the archive decides nothing, but is part of the file's digest.
        io::copy(&mut reader, &mut io::sink()).map_err(|error| unread(&error))?;
        drop(reader);
        io::copy(&mut file, &mut io::sink()).map_err(|error| unread(&error))?;
        if file.hasher.finish() != found.digest {
            let message = format!("`{}` changed while it was read", src.text);
            return Err(ActionError::new("imgdecl::host::changed", message)
                .at(&src.origin)
                .help("run the build again"));
        }
        if let Some((pattern, origin)) = self.include.as_ref().and_then(Patterns::unused)
            && !self.allow_empty
        {
            let message = format!("the pattern `{pattern}` matches nothing in `{}`", src.text);
            return Err(ActionError::new("imgdecl::files::no_match", message)
                .at(origin)
                .help("`*` stops at a `/`, `**` does not"));
        }
        let contents = contents.complete()?;
        let path: Arc<Path> = context.store.local_path(&contents.digest).into();
        let tree = listing.finish(&path, &src.origin)?;
        Ok(Product::Tree(TreeProduct::keep(
            tree,
            contents,
            "",
            context.store,
        )?))
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
