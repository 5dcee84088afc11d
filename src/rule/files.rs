//! A layer of files: trees of the host, and entries written in the manifest itself.
//!
//! ```toml
//! [files.app]
//! src     = "app"
//! dest    = "/app"
//! include = ["**/*.py", "templates"]
//! exclude = ["tests"]
//! ```
//!
//! A `src` that names a file is copied to `dest`, or into it where `dest` ends in `/`. A `src` that names a folder has
//! its content copied below `dest`. Patterns are relative to `src`; `*` never crosses a `/`, `**` does, and a pattern
//! that matches a folder takes all of it. A pattern of `include` that matches nothing is an error.
//!
//! Files are owned by `owner` and have mode 0755 where the host lets anyone execute them, else 0644. Folders are 0755.
//! `mode` is that of all files; `modes` has patterns as `include`, and the modes of the files that they match: the last
//! one that is written wins, one that matches a folder holds for all files in it, and one that matches no file is an error.
//! `dest` and the folders above it keep what the image below says of them. Nothing else of the host reaches the layer:
//! no times, no names, no umask. Symlinks are copied as they are, and must not lead out of the workspace; links to
//! places in the image are written under `symlinks`. Empty folders are kept.
//!
//! What is seldom meant stays out of a folder: version control (`.git`, `.hg`, `.svn`, `.bzr`, `.jj`, `_darcs`), virtual
//! environments of Python (folders with a `pyvenv.cfg`), caches (`__pycache__`, `*.pyc`, `*.pyo`, `.pytest_cache`,
//! `.mypy_cache`, `.ruff_cache`, `.tox`, `.nox`), `node_modules`, secrets (`.env`, `.env.*`), and the workspace's manifests.
//! So does what the `.dockerignore` at the root of `src` names, in Docker's grammar; with `".gitignore"` in `ignore`, what
//! the .gitignore files in and above `src` name; with `ignore = []` neither counts. The build says what was left out.
//!
//! With `from`, a base or another image, `src` is a path in that image, for the same platform: what `COPY --from` does. All
//! layers count, with what they hide, and symlinks on the way to `src` are followed inside the image. Files, folders, symlinks
//! and hard links keep modes and owners, unless `mode` or `owner` say something else; the extended attributes `user.*` and
//! `security.capability` are kept, and times are `mtime`. Nothing is left out but by `exclude`. Of a base in a registry no more
//! layers are fetched than it takes, once; it is pinned in `image.lock` like any other.
//!
//! ```toml
//! [base.uv]
//! image = "ghcr.io/astral-sh/uv:0.9"
//!
//! [files.tools]
//! from = "uv"
//! src  = "/uv"
//! dest = "/usr/local/bin/"
//! ```
//!
//! What is named is taken all the same: a `src` that is such a file or folder, and what a pattern of `include` names letter
//! for letter, as `include = ["**", ".env", "web/node_modules"]`. An ignore file gives way to a path of `include` without
//! `*`.
//!
//! Users and groups are added to those of the image below, or to root alone where it has none, with the lines that
//! `useradd` writes; the day of the last change of the password stays empty:
//!
//! ```toml
//! [files.people]
//! groups = { data = { gid = 2000 } }
//! users  = { app = { uid = 1000, home = "/srv/app", groups = ["data"] } }
//!
//! [files.code]
//! src   = "app"
//! dest  = "/srv/app"
//! owner = "app"
//! ```
//!
//! The password is locked. `gid` is the number of the user's own group; where it is not written, it is `uid`, and the group
//! has the user's name. The home folder is made with 0700, and is the user's; `dirs` may say another mode of it; a folder of
//! the image below that belongs to somebody, or is not 0755, stays as it is; `create_home = false` makes none. Nothing of
//! `/etc/skel` is copied. Who is there already and is the same stays; another name with the number, or another number with
//! the name, is an error. Several layers may add users, each to those below it; one that replaces `/etc/passwd` and drops
//! users is warned of. `owner` takes the names of users and groups that the image has, or that the layer adds.
//!
//! `image.lock`, the cache, what this build writes, and layouts that earlier builds wrote are never copied.
//!
//! Several trees in one layer are written as `entries`, each a table with the same keys:
//!
//! ```toml
//! [files.web]
//! entries  = [
//!   { src = "html", dest = "/srv/www" },
//!   { src = "nginx.conf", dest = "/etc/nginx/nginx.conf", mode = "0600" },
//! ]
//! symlinks = { "/srv/current" = "www" }
//! dirs     = { "/var/cache/nginx" = "0700" }
//! text     = { "/etc/motd" = "hello\n" }
//! remove   = ["/etc/nginx/conf.d/default.conf"]
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use toml::Spanned;

use super::from::{self, FromTable};
use super::host::HostPath;
use super::left_out::{DOCKERIGNORE, GITIGNORE, IgnoreFiles};
use super::modes::Modes;
use super::new_people::{GROUP, Groups, USER, Users, people};
use super::patterns::Patterns;
use super::scan::{Names, Scan, TreeSpec};
use super::users::{NewPeople, UsersBelow};
use super::value::{Belongs, Collect, belongs, fields, image_path, mode};
use super::{Lower, Lowered, OnUsers, Role, Rule};
use crate::graph::{NodeId, Origin};
use crate::layer::{Attrs, Content, Kind, LayerPath, Owner};
use crate::spec::{Key, Problems, Table, Target, Type};

macro_rules! keys {
    ($($more:expr),*) => {
        &[
            Key::new("from", Type::String, "", "A base or an image: `src` is a path in it, and not of the host."),
            Key::new("src", Type::String, "\".\"", "A file or folder of the host, relative to the manifest. Where only `symlinks`, `dirs`, `text`, `remove`, `entries`, `users` or `groups` are written, there is none."),
            Key::new("dest", Type::String, "\"/\"", "Where it goes in the image."),
            Key::new("include", Type::Strings, "[\"**\"]", "Patterns of what to take from a folder."),
            Key::new("exclude", Type::Strings, "[]", "Patterns of what to leave out. They win over `include`."),
            Key::new("ignore", Type::Strings, "[\".dockerignore\"]", "Which ignore files count, of \".dockerignore\" and \".gitignore\"."),
            Key::new("gitignore", Type::Boolean, "false", "Leaves out what the workspace's .gitignore files name: the same as \".gitignore\" in `ignore`."),
            Key::new("allow_empty", Type::Boolean, "false", "Lets patterns match nothing."),
            Key::new("owner", Type::String, "\"0:0\"", "The owner of all entries, as UID:GID, or as names that the image has or the layer adds. With `from`, \"keep\" is the default: the owners that they have there."),
            Key::new("mode", Type::String, "", "The mode of all files, in octal. By default 0755 for executable files, else 0644; with `from`, as they are there."),
            Key::new("modes", Type::StringMap, "{}", "Modes of single files: pattern, relative to `src` = mode in octal. They win over `mode`."),
            Key::new("mtime", Type::Integer, "0", "The modification time of all entries, in seconds since 1970."),
            Key::new("replace", Type::Boolean, "false", "Lets entries replace folders of the image below, or symlinks to folders."),
            Key::new("symlinks", Type::StringMap, "{}", "Symlinks to make: path in the image = text of the link."),
            Key::new("dirs", Type::StringMap, "{}", "Folders to make: path in the image = mode. Mode and `owner` hold even where the image below has the folder."),
            Key::new("text", Type::StringMap, "{}", "Files to make: path in the image = content."),
            Key::new("remove", Type::Strings, "[]", "Paths of the image below to remove."),
            $($more),*
        ]
    };
}

const ENTRY: &[Key] = keys!();
const KEYS: &[Key] = keys!(
    Key::new(
        "entries",
        Type::Tables(ENTRY),
        "[]",
        "Several trees for one layer: tables with the keys above."
    ),
    Key::new(
        "users",
        Type::Named(USER),
        "{}",
        "Users to add: name = table of `uid`, `gid`, `home`, `create_home`, `shell`, `comment`, `groups`."
    ),
    Key::new(
        "groups",
        Type::Named(GROUP),
        "{}",
        "Groups to add: name = table of `gid`."
    )
);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FilesTable {
    from: Option<Spanned<String>>,
    src: Option<Spanned<String>>,
    dest: Option<Spanned<String>>,
    include: Option<Vec<Spanned<String>>>,
    #[serde(default)]
    exclude: Vec<Spanned<String>>,
    ignore: Option<Vec<Spanned<String>>>,
    #[serde(default)]
    gitignore: bool,
    #[serde(default)]
    allow_empty: bool,
    owner: Option<Spanned<String>>,
    mode: Option<Spanned<String>>,
    #[serde(default)]
    modes: BTreeMap<Spanned<String>, Spanned<String>>,
    mtime: Option<Spanned<i64>>,
    #[serde(default)]
    replace: bool,
    #[serde(default)]
    symlinks: BTreeMap<Spanned<String>, Spanned<String>>,
    #[serde(default)]
    dirs: BTreeMap<Spanned<String>, Spanned<String>>,
    #[serde(default)]
    text: BTreeMap<Spanned<String>, Spanned<String>>,
    #[serde(default)]
    remove: Vec<Spanned<String>>,
    entries: Option<Vec<FilesTable>>,
    #[serde(default)]
    users: Users,
    #[serde(default)]
    groups: Groups,
}

pub(super) struct Files;

impl Rule for Files {
    fn name(&self) -> &'static str {
        "files"
    }

    fn role(&self) -> Role {
        Role::Layer
    }

    fn summary(&self) -> &'static str {
        "a layer of files"
    }

    fn source(&self) -> &'static str {
        include_str!("files.rs")
    }

    fn keys(&self) -> &'static [Key] {
        KEYS
    }

    fn fields(&self) -> Vec<&'static str> {
        fields::<FilesTable>().to_vec()
    }

    fn lower(&self, target: &Target, lower: &mut Lower<'_>) -> Result<Lowered, Problems> {
        let mut table: FilesTable = lower.read(target, KEYS)?;
        let mut collect = Collect::default();
        let mut trees = Vec::new();
        let nested = table.entries.take();
        let mut people = people(&target.table, &table.users, &table.groups, &mut collect);
        let has_entries = nested.is_some() || !people.is_empty();
        let nested = nested.into_iter().flatten().map(|it| (it, false));
        let mut nodes = Vec::new();
        for (mut table, has_others) in nested.chain([(table, has_entries)]) {
            let from = table.take_from();
            let has_others = has_others || from.is_some();
            if let Some(from) = from {
                nodes.extend(from::lower(target, from, lower, &mut collect));
            }
            trees.push(TreeSpec::new(
                &target.table,
                table,
                has_others,
                target,
                lower,
                &mut collect,
            ));
        }
        let members = lower.spec.members.values();
        let manifests = members.map(|member| member.manifest.clone()).collect();
        let name = lower.spec.short_name(&target.id);
        people.mtime = trees.last().map_or(0, |tree| tree.mtime);
        people.modes = home_modes(&people, &mut trees);
        let names = people.origin().or(trees.iter().find_map(TreeSpec::name));
        let names = names.cloned();
        let is_needed =
            names.is_some() || nodes.is_empty() || trees.iter().any(|tree| !tree.is_empty());
        let scan = Scan::new(trees, name, lower.never.clone(), Arc::new(manifests));
        let scan = collect.finish(scan)?;
        if let Some(origin) = names {
            return Ok(Lowered::OnUsers(Arc::new(OnPeople {
                scan,
                people: Arc::new(people),
                origin,
                target: target.clone(),
                others: nodes,
            })));
        }
        if is_needed {
            nodes.insert(0, lower.add(target, scan, vec![], target.table.origin()));
        }
        Ok(Lowered::Layer(vec![from::merged(target, nodes, lower)]))
    }
}

impl FilesTable {
    /// Takes out what is said about a tree out of another image, if there is one.
    fn take_from(&mut self) -> Option<FromTable> {
        let from = self.from.take()?;
        let ignore = self.ignore.take();
        let first = ignore.as_ref().and_then(|list| list.first());
        let keeps = |it: &Spanned<String>| it.get_ref() == from::KEEP;
        let owner = self.owner.clone();
        self.owner.take_if(|it| keeps(it));
        Some(FromTable {
            ignore: first
                .map(Spanned::span)
                .or_else(|| self.gitignore.then(|| from.span())),
            from,
            src: self.src.take(),
            dest: self.dest.take(),
            include: self.include.take(),
            exclude: std::mem::take(&mut self.exclude),
            allow_empty: self.allow_empty,
            owner,
            mode: self.mode.clone(),
            mtime: self.mtime.as_ref().map_or(0, |it| *it.get_ref()),
            replace: self.replace,
        })
    }
}

/// A layer of files whose owners are named, or that adds users.
struct OnPeople {
    scan: Scan,
    people: Arc<NewPeople>,
    /// The place of the first name.
    origin: Origin,
    target: Target,
    /// The nodes of trees out of other images.
    others: Vec<NodeId>,
}

impl fmt::Debug for OnPeople {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.target.id)
    }
}

impl OnUsers for OnPeople {
    fn origin(&self) -> &Origin {
        &self.origin
    }

    fn add(&self, below: &UsersBelow, lower: &mut Lower<'_>) -> NodeId {
        let names = Names {
            below: below.clone(),
            people: self.people.clone(),
            origin: self.origin.clone(),
        };
        let origin = self.target.table.origin();
        let own = lower.add(
            &self.target,
            self.scan.with_names(names),
            below.inputs(),
            origin,
        );
        let nodes = [own].into_iter().chain(self.others.iter().copied());
        from::merged(&self.target, nodes.collect(), lower)
    }
}

/// Takes folders that are homes of users who are added out of the trees: `dirs` says only which modes they have.
fn home_modes(people: &NewPeople, trees: &mut [TreeSpec]) -> BTreeMap<LayerPath, u16> {
    let homes = people.homes();
    let mut modes = BTreeMap::new();
    for tree in trees {
        tree.made.retain(|(path, kind, _)| match kind {
            Kind::Folder { attrs, .. } if homes.contains(path) => {
                modes.insert(path.clone(), attrs.mode);
                false
            }
            _ => true,
        });
    }
    modes
}

impl TreeSpec {
    /// Tells whether it brings nothing and removes nothing.
    fn is_empty(&self) -> bool {
        self.src.is_none() && self.made.is_empty() && self.remove.is_empty()
    }

    /// Checks the table of one tree.
    fn new(
        at: &Table,
        table: FilesTable,
        has_entries: bool,
        target: &Target,
        lower: &Lower<'_>,
        collect: &mut Collect,
    ) -> Self {
        let belongs = table
            .owner
            .as_ref()
            .map(|value| collect.take(belongs(at, value)))
            .unwrap_or_default();
        // What is named gets its numbers where the users are known.
        let owner = match belongs {
            Belongs::To(owner) => owner,
            Belongs::Named(..) => Owner::default(),
        };
        let modes = Modes::new(at, &table.modes, collect);
        let file_mode = table
            .mode
            .as_ref()
            .map(|value| collect.take(mode(at, value)));
        let mut made = Vec::new();
        for (path, text) in &table.symlinks {
            let place = collect.take(image_path(at, path.get_ref(), path.span()));
            if text.get_ref().is_empty() {
                collect.0.push(at.problem(
                    "imgdecl::value::path",
                    text.span(),
                    "a symlink needs a target",
                    "empty",
                ));
            }
            made.push((
                place,
                Kind::Symlink {
                    target: text.get_ref().clone(),
                    owner,
                },
                at.place(path.span()),
            ));
        }
        for (path, text) in &table.dirs {
            let place = collect.take(image_path(at, path.get_ref(), path.span()));
            let attrs = Attrs {
                mode: collect.take(mode(at, text)),
                owner,
            };
            made.push((
                place,
                Kind::Folder { attrs, firm: true },
                at.place(path.span()),
            ));
        }
        for (path, text) in &table.text {
            let place = collect.take(image_path(at, path.get_ref(), path.span()));
            let attrs = Attrs {
                mode: file_mode.unwrap_or(0o644),
                owner,
            };
            let content = Content::bytes(text.get_ref().as_bytes());
            made.push((place, Kind::File { attrs, content }, at.place(path.span())));
        }
        for path in table
            .symlinks
            .keys()
            .chain(table.dirs.keys())
            .chain(table.text.keys())
        {
            if path.get_ref().starts_with('/') && path.get_ref().trim_matches('/').is_empty() {
                let message = "the root of the image has no entry";
                collect.0.push(at.problem(
                    "imgdecl::value::path",
                    path.span(),
                    message,
                    "no such entry",
                ));
            }
        }
        let mut remove = Vec::new();
        for path in &table.remove {
            let place = collect.take(image_path(at, path.get_ref(), path.span()));
            if place.is_root() {
                collect.0.push(at.problem(
                    "imgdecl::value::path",
                    path.span(),
                    "the root of the image cannot be removed",
                    "not the root",
                ));
            }
            remove.push(place);
        }
        let only_made = has_entries || !made.is_empty() || !remove.is_empty();
        let default = Spanned::new(at.span.clone(), ".".to_owned());
        let src = match (&table.src, only_made) {
            (Some(src), _) => Some(src),
            (None, true) => None,
            (None, false) => Some(&default),
        };
        let root = lower.root();
        let src = src.and_then(|src| {
            HostPath::new(at, src, &target.folder, &root)
                .map_err(|it| collect.0.push(it))
                .ok()
        });
        for (key, span) in [
            (
                "include",
                table
                    .include
                    .as_ref()
                    .and_then(|list| list.first())
                    .map(Spanned::span),
            ),
            ("exclude", table.exclude.first().map(Spanned::span)),
            (
                "ignore",
                table
                    .ignore
                    .as_ref()
                    .and_then(|list| list.first())
                    .map(Spanned::span),
            ),
            ("modes", table.modes.keys().next().map(Spanned::span)),
            ("dest", table.dest.as_ref().map(Spanned::span)),
        ] {
            if let (Some(span), None, true) = (span, &table.src, only_made) {
                let message = format!("`{key}` says nothing without `src`");
                collect.0.push(
                    at.problem(
                        "imgdecl::files::no_src",
                        span,
                        message,
                        "there is no tree that it applies to",
                    )
                    .help("add `src`"),
                );
            }
        }
        let ignore = ignore_files(at, table.ignore.as_deref(), collect);
        let ignore = IgnoreFiles {
            git: ignore.git || table.gitignore,
            ..ignore
        };
        let dest = table.dest.as_ref();
        let mtime = table.mtime.as_ref().map_or(Ok(0), |value| {
            let problem = || {
                at.problem(
                    "imgdecl::value::mtime",
                    value.span(),
                    "`mtime` is before 1970",
                    "seconds since 1970",
                )
            };
            let seconds = *value.get_ref();
            (seconds >= 0).then_some(seconds).ok_or_else(problem)
        });
        Self {
            src,
            dest: dest
                .map(|dest| collect.take(image_path(at, dest.get_ref(), dest.span())))
                .unwrap_or_default(),
            into: dest.is_none_or(|dest| dest.get_ref().ends_with('/')),
            include: table
                .include
                .as_ref()
                .map(|list| Patterns::new(at, list, collect)),
            exclude: Patterns::new(at, &table.exclude, collect),
            ignore,
            allow_empty: table.allow_empty,
            belongs,
            mode: file_mode,
            modes,
            mtime: collect.take(mtime),
            replace: table.replace,
            made,
            remove,
        }
    }
}

/// Reads which ignore files count.
fn ignore_files(
    at: &Table,
    list: Option<&[Spanned<String>]>,
    collect: &mut Collect,
) -> IgnoreFiles {
    let mut files = IgnoreFiles {
        docker: list.is_none(),
        git: false,
    };
    for name in list.into_iter().flatten() {
        match name.get_ref().as_str() {
            DOCKERIGNORE => files.docker = true,
            GITIGNORE => files.git = true,
            other => {
                let message = format!("`{other}` is no ignore file that is read");
                let problem = at.problem("imgdecl::files::ignore", name.span(), message, "");
                collect.0.push(problem.help(format!(
                    "`{DOCKERIGNORE}` and `{GITIGNORE}` are; patterns go into `exclude`"
                )));
            }
        }
    }
    files
}
