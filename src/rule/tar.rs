//! A layer from an existing archive: tar, tar.gz or tar.zst.
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
//! path are dropped. Patterns in `include` and `exclude` are relative to what is left of the path.
//!
//! Modes are the archive's, with setuid, setgid and sticky bits. Owners are 0:0, or what `owner` says, or the archive's
//! own with `owner = "keep"`. Times are 0, or the archive's in whole seconds with `keep_mtime = true`. The extended
//! attributes `user.*` and `security.capability` are kept. Where a path stands in the archive twice, the last one
//! counts. Devices and fifos are errors, and so are names that start with `.wh.`, which runtimes read as deletions.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use toml::Spanned;

use super::host::HostPath;
use super::patterns::Patterns;
use super::value::{Collect, fields, image_path, owner};
use super::{Lower, Lowered, Rule};
use crate::graph::{Action, ActionError, Context, KeyWriter, Origin, Product, TreeProduct};
use crate::layer::{
    self, Attrs, Clash, Content, Entry, HeaderGuard, Kind, LayerPath, Owner, Source, Tick, Tree,
};
use crate::oci::{Descriptor, Digest, Hasher, MediaType};
use crate::spec::{Key, Problems, Target, Type};

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
        2 // listings have another form than those of 1
    }

    fn parameters(&self, key: &mut dyn KeyWriter) {
        let list = |patterns: Option<&Patterns>| {
            format!("{:?}", patterns.map(|it| it.texts().collect::<Vec<_>>()))
        };
        key.field("dest", &format!("{:?}", self.dest));
        key.field("strip", &self.strip.to_string());
        key.field("include", &list(self.include.as_ref()));
        key.field("exclude", &list(Some(&self.exclude)));
        key.field("owner", &format!("{:?}", self.owner));
        key.field(
            "flags",
            &format!("{} {}", self.keep_mtime, self.allow_empty),
        );
    }

    fn run(&self, context: &Context<'_>, inputs: &[Product]) -> Result<Product, ActionError> {
        let (Some(src), [Product::Found(found)]) = (&self.src, inputs) else {
            return Err(ActionError::new(
                "imgdecl::bug",
                "an archive is found before it is read",
            ));
        };
        let damaged = |error: &dyn std::error::Error| {
            let message = format!("cannot read the archive `{}`", src.text);
            ActionError::new("imgdecl::tar::damaged", message)
                .because(error)
                .at(&src.origin)
                .help("tar, tar.gz and tar.zst can be read; if it is one, it is cut short: get it again")
        };
        let path = src.real()?;
        let mut file = Hashed {
            inner: File::open(&path).map_err(|error| damaged(&error))?,
            hasher: Hasher::default(),
            tick: context.tick,
        };
        let (compression, peeked) = layer::detect(&mut file).map_err(|error| damaged(&error))?;
        let mut reader = layer::decoder(compression, peeked).map_err(|error| damaged(&error))?;
        let mut contents = context.store.writer()?;
        let mut listing = Listing {
            unpack: self,
            files: BTreeMap::new(),
            entries: BTreeMap::new(),
            offset: 0,
        };
        let mut archive = tar::Archive::new(HeaderGuard::new(&mut reader));
        for entry in archive.entries().map_err(|error| damaged(&error))? {
            let mut entry = entry.map_err(|error| damaged(&error))?;
            listing.add(&mut entry, &mut contents, src, context.tick)?;
        }
        // What follows the end of the archive decides nothing, but is part of the file's digest.
        io::copy(&mut reader, &mut io::sink()).map_err(|error| damaged(&error))?;
        drop(reader);
        io::copy(&mut file, &mut io::sink()).map_err(|error| damaged(&error))?;
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
        let path: Arc<Path> = context.store.blob_path(&contents.digest).into();
        let tree = listing.finish(&path, &src.origin)?;
        Ok(Product::Tree(TreeProduct::keep(
            tree,
            contents,
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

/// The content of a file of the archive: offset, size and digest.
type Range = (u64, u64, Digest);

struct Listing<'a> {
    unpack: &'a Unpack,
    /// All files of the archive by their own names, taken or not: hard links may name them.
    files: BTreeMap<LayerPath, (LayerPath, Attrs, Range)>,
    entries: BTreeMap<LayerPath, (Entry, Option<Range>)>,
    offset: u64,
}

impl Listing<'_> {
    fn add<R: Read>(
        &mut self,
        entry: &mut tar::Entry<'_, R>,
        contents: &mut (dyn Write + Send),
        src: &HostPath,
        tick: Tick<'_>,
    ) -> Result<(), ActionError> {
        let fail =
            |message: String| ActionError::new("imgdecl::tar::entry", message).at(&src.origin);
        let damaged = |error: io::Error| {
            fail(format!("an entry of `{}` is damaged", src.text)).because(&error)
        };
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            return Ok(());
        }
        let name = LayerPath::parse_bytes(&entry.path_bytes()).map_err(|error| {
            fail(format!(
                "`{}` holds a path that no image can: {error}",
                src.text
            ))
            .help("leave it out when the archive is made")
        })?;
        let header = entry.header();
        let id = |id: u64| {
            u32::try_from(id).map_err(|_| io::Error::other(format!("the id {id} exceeds 32 bits")))
        };
        let own = Owner {
            uid: id(header.uid().map_err(damaged)?).map_err(damaged)?,
            gid: id(header.gid().map_err(damaged)?).map_err(damaged)?,
        };
        let owner = self.unpack.owner.unwrap_or(own);
        let attrs = Attrs {
            mode: (header.mode().map_err(damaged)? & 0o7777) as u16,
            owner,
        };
        let mtime = if self.unpack.keep_mtime {
            header.mtime().map_err(damaged)?
        } else {
            0
        };
        let link = || -> Result<String, ActionError> {
            let bytes = entry.link_name_bytes().unwrap_or_default();
            let text = String::from_utf8(bytes.into_owned()).ok();
            let fits = |text: &String| (1..=4095).contains(&text.len()) && !text.contains('\0');
            text.filter(fits).ok_or_else(|| {
                let what = "a target that no link can have: empty, too long, or not UTF-8";
                fail(format!("/{name} in `{}` has {what}", src.text))
            })
        };
        let place = self.place(&name).map_err(|error| fail(error.to_string()))?;
        let mut range = None;
        if !(kind.is_file() || kind.is_hard_link()) {
            // A hard link that follows does not mean the file that stood here before.
            self.files.remove(&name);
        }
        let made = if kind.is_dir() {
            Kind::Folder { attrs, firm: true }
        } else if kind.is_symlink() {
            Kind::Symlink {
                target: link()?,
                owner,
            }
        } else if kind.is_hard_link() {
            let target = LayerPath::parse(&link()?).map_err(|error| fail(error.to_string()))?;
            let Some((first, attrs, content)) = self.files.get(&target).cloned() else {
                return Err(fail(format!(
                    "/{name} in `{}` is a hard link to /{target}, which does not stand before it",
                    src.text
                ))
                .help("the archive is not whole, or its order is wrong: make it again"));
            };
            self.files
                .insert(name.clone(), (first.clone(), attrs, content));
            let target = self
                .place(&first)
                .map_err(|error| fail(error.to_string()))?;
            range = Some(content);
            match target.filter(|target| self.entries.contains_key(target)) {
                Some(target) => Kind::Hardlink { target, attrs },
                None => file(attrs, content, None),
            }
        } else if kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse() {
            let mut sink = Copy {
                contents,
                hasher: Hasher::default(),
                tick,
            };
            let size = io::copy(entry, &mut sink).map_err(damaged)?;
            let content = (self.offset, size, sink.hasher.finish());
            self.offset += size;
            self.files
                .insert(name.clone(), (name.clone(), attrs, content));
            range = Some(content);
            file(attrs, content, None)
        } else if place.is_none() {
            return Ok(());
        } else {
            let word = match kind {
                tar::EntryType::Char | tar::EntryType::Block => "a device",
                tar::EntryType::Fifo => "a fifo",
                _ => "of an unknown type",
            };
            return Err(fail(format!("/{name} in `{}` is {word}", src.text))
                .help("layers hold files, folders and links: leave it out with `exclude`"));
        };
        let Some(place) = place.filter(|place| !place.is_root()) else {
            return Ok(());
        };
        let mut entry_out = Entry {
            mtime,
            ..Entry::new(made)
        };
        entry_out.xattrs = xattrs(entry).map_err(damaged)?;
        self.entries.insert(place, (entry_out, range));
        Ok(())
    }

    /// Returns where an entry goes; `None` if it is left out.
    fn place(&self, name: &LayerPath) -> Result<Option<LayerPath>, layer::PathError> {
        let rest: Vec<&str> = name.as_str().split('/').skip(self.unpack.strip).collect();
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
        if any(&self.unpack.exclude) || !self.unpack.include.as_ref().is_none_or(any) {
            return Ok(None);
        }
        self.unpack.dest.join(&rest).map(Some)
    }

    fn finish(self, path: &Arc<Path>, origin: &Origin) -> Result<Tree, ActionError> {
        let mut tree = Tree::default();
        let ranges: BTreeMap<LayerPath, Option<Range>> = self
            .entries
            .iter()
            .map(|(place, (_, range))| (place.clone(), *range))
            .collect();
        for (place, (mut entry, range)) in self.entries {
            match (&entry.kind, range) {
                // Where the path of its file stands in the archive again, with another content, a hard link keeps
                // what it had: it becomes a file of its own.
                (Kind::Hardlink { target, .. }, _) if ranges.get(target) == Some(&range) => {}
                (Kind::File { attrs, .. } | Kind::Hardlink { attrs, .. }, Some(range)) => {
                    entry.kind = file(*attrs, range, Some(path));
                }
                _ => {}
            }
            tree.insert(place, entry).map_err(|clash| {
                let error = ActionError::of("imgdecl::tar::entry", &clash).at(origin);
                match clash {
                    Clash::Whiteout(_) => error.help(
                        "exclude it; `remove` of a files layer deletes paths of the image below",
                    ),
                    _ => error,
                }
            })?;
        }
        Ok(tree)
    }
}

fn file(attrs: Attrs, (offset, size, digest): Range, path: Option<&Arc<Path>>) -> Kind {
    let path = path.cloned().unwrap_or_else(|| Path::new("").into());
    Kind::File {
        attrs,
        content: Content {
            size,
            digest,
            source: Source::Range { path, offset },
        },
    }
}

/// Reads the extended attributes that layers keep.
fn xattrs<R: Read>(entry: &mut tar::Entry<'_, R>) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let mut xattrs = BTreeMap::new();
    let sparse = "it is a sparse file in the form of PAX: make the archive without `--sparse`";
    for record in entry.pax_extensions()?.into_iter().flatten() {
        let record = record?;
        let key = record.key().unwrap_or_default();
        if key.starts_with("GNU.sparse.") {
            return Err(io::Error::other(sparse));
        }
        let Some(name) = key.strip_prefix("SCHILY.xattr.") else {
            continue;
        };
        if name.starts_with("user.") || name == "security.capability" {
            xattrs.insert(name.to_owned(), record.value_bytes().to_vec());
        }
    }
    Ok(xattrs)
}

struct Copy<'a> {
    contents: &'a mut (dyn Write + Send),
    hasher: Hasher,
    tick: Tick<'a>,
}

impl Write for Copy<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !(self.tick)(bytes.len() as u64) {
            return Err(io::Error::other("stopped"));
        }
        self.contents.write_all(bytes)?;
        self.hasher.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
