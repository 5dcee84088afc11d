//! A layer of a file that lies at a URL: the file itself, or what an archive holds.
//!
//! ```toml
//! [http.tini]
//! url  = "https://github.com/krallin/tini/releases/download/v0.19.0/tini-${arch}"
//! dest = "/usr/local/bin/tini"
//! mode = "0755"
//!
//! [http.node]
//! url    = { "linux/amd64" = "https://nodejs.org/dist/v22.11.0/node-v22.11.0-linux-x64.tar.xz" }
//! sha256 = { "linux/amd64" = "83bf07dd343002a26211cf1fcd46a9d9534219aad42ee02847816940bf610a72" }
//! dest   = "/opt/node"
//! unpack = true
//! strip  = 1
//! ```
//!
//! What lies there is pinned, for each platform: by `sha256`, or by digest and size in `image.lock`. It never moves by itself:
//! `imgdecl lock --update NAME` fetches it anew, and a server that has other bytes is an error. The file is fetched where the
//! cache lacks it, and a build whose layer is made fetches nothing. A string stands for all platforms; in `url`, `${arch}` is
//! one for each.
//!
//! The file goes to `dest`, or into it where `dest` ends in `/`, under the last part of the URL's path. Its mode is 0644 unless
//! `mode` says something else: a program needs "0755".
//!
//! With `unpack`, the URL is that of an archive, and `strip`, `include`, `exclude`, `owner`, `keep_mtime` and `allow_empty` are
//! as in the rule `tar`: tar, plain or compressed with gzip, zstd, xz or bzip2; or zip. `mode` is then that of all files. Of a
//! zip archive, files are 0755 where it lets anyone execute them, else 0644, and folders 0755; one with symlinks, or one that
//! readers could take for different things, is an error.
//!
//! Users and passwords come from `.netrc`, by the name of the host, and never stand in the manifest; nobody that a redirect leads
//! to gets them. Proxies and certificate authorities are those of package indexes. A URL of plain `http` needs `sha256`, but on
//! this machine: else whoever is on the way could choose what is pinned.

mod address;
mod fetch;
mod pinned;

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::patterns::Patterns;
use super::tar::{Unpack, owner_or_keep, strip};
use super::value::{Collect, fields, image_path, mode, owner};
use super::{Cache, Lower, Lowered, Need, Role, Rule};
use crate::graph::{ActionError, Context, WantedUrl};
use crate::layer::{Attrs, LayerPath};
use crate::lock::{Form, FormOf, Lock, Pin as _};
use crate::oci::Platform;
use crate::spec::{Key, Problems, Table, Target, Type};
use crate::store::Blob;
use address::{PerPlatform, check_url, digest};
use fetch::{Fetch, Unpinned};
use pinned::{FilePin, HttpPin};

const KEYS: &[Key] = &[
    Key::new(
        "url",
        Type::PerPlatform,
        "",
        "Where the file is: https, without credentials.",
    ),
    Key::new(
        "sha256",
        Type::PerPlatform,
        "",
        "The digest of the file. Without it, it is pinned in image.lock.",
    ),
    Key::new(
        "dest",
        Type::String,
        "\"/\"",
        "Where it goes in the image; with `unpack`, the folder that what it holds is placed in.",
    ),
    Key::new(
        "mode",
        Type::String,
        "",
        "The mode of the file, in octal, by default 0644; with `unpack`, that of all files, by default the archive's.",
    ),
    Key::new(
        "owner",
        Type::String,
        "\"0:0\"",
        "The numeric owner of all entries, as UID:GID; with `unpack`, \"keep\" is the archive's own.",
    ),
    Key::new(
        "unpack",
        Type::Boolean,
        "false",
        "Whether the file is an archive, whose entries become the layer.",
    ),
    Key::new(
        "strip",
        Type::Integer,
        "0",
        "With `unpack`: how many leading folders of each path to drop. Paths with no more than these are left out.",
    ),
    Key::new(
        "include",
        Type::Strings,
        "[\"**\"]",
        "With `unpack`: patterns of what to take.",
    ),
    Key::new(
        "exclude",
        Type::Strings,
        "[]",
        "With `unpack`: patterns of what to leave out. They win over `include`.",
    ),
    Key::new(
        "keep_mtime",
        Type::Boolean,
        "false",
        "With `unpack`: keeps the archive's modification times, in whole seconds.",
    ),
    Key::new(
        "allow_empty",
        Type::Boolean,
        "false",
        "With `unpack`: lets patterns match nothing.",
    ),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HttpTable {
    url: Spanned<PerPlatform>,
    sha256: Option<Spanned<PerPlatform>>,
    dest: Option<Spanned<String>>,
    mode: Option<Spanned<String>>,
    owner: Option<Spanned<String>>,
    #[serde(default)]
    unpack: bool,
    strip: Option<Spanned<i64>>,
    include: Option<Vec<Spanned<String>>>,
    exclude: Option<Vec<Spanned<String>>>,
    keep_mtime: Option<Spanned<bool>>,
    allow_empty: Option<Spanned<bool>>,
}

pub(super) struct Http;

impl Rule for Http {
    fn name(&self) -> &'static str {
        HttpPin::RULE
    }

    fn role(&self) -> Role {
        Role::Layer
    }

    fn summary(&self) -> &'static str {
        "a layer of a file at a URL, or of the archive there"
    }

    fn source(&self) -> &'static str {
        include_str!("mod.rs")
    }

    fn keys(&self) -> &'static [Key] {
        KEYS
    }

    fn fields(&self) -> Vec<&'static str> {
        fields::<HttpTable>().to_vec()
    }

    fn form(&self) -> Option<&'static dyn Form> {
        Some(FormOf::<HttpPin>::FORM)
    }

    fn lower(&self, target: &Target, lower: &mut Lower<'_>) -> Result<Lowered, Problems> {
        let table: HttpTable = lower.read(target, KEYS)?;
        let at = &target.table;
        let mut collect = Collect::default();
        let platform = lower.platform().cloned();
        let platform = platform.unwrap_or_else(|| Platform::new("linux", "amd64"));
        let url = PerPlatform::of(&table.url, "url", &platform, at).and_then(|(text, span)| {
            let is_fixed = table.sha256.is_some();
            check_url(at, text, span.clone(), is_fixed).map(|()| (text.to_owned(), span))
        });
        let url = url.map_err(|it| collect.0.push(it)).ok();
        let fixed = table.sha256.as_ref().map(|value| {
            PerPlatform::of(value, "sha256", &platform, at)
                .and_then(|(text, span)| digest(at, text, span))
        });
        let fixed = fixed.transpose().unwrap_or_else(|it| {
            collect.0.push(it);
            None
        });
        let made = shape(
            at,
            &table,
            url.as_ref().map(|it| it.0.as_str()),
            &mut collect,
        );
        let made = collect.finish(made)?;
        let (Some((url, span)), Some(made)) = (url, made) else {
            return Err(Problems::default());
        };
        let origin = at.place(span);
        let name = target.id.to_string();
        let short = lower.spec.short_name(&target.id);
        let pinned = lower.lock.get::<HttpPin>(&name);
        let pinned = pinned.and_then(|it| it.platforms.get(&platform.to_string()).cloned());
        let was = pinned.as_ref().map(|it| it.url.clone());
        let pinned = pinned.filter(|it| it.url == url);
        if fixed.is_none() {
            lower.need(Need {
                target: target.id.clone(),
                rule: target.rule,
                platform,
                wanted: url.clone(),
                origin: origin.clone(),
                was: was.filter(|was| *was != url),
                is_pinned: pinned.is_some(),
                waits: false,
                is_reference: true,
                is_given: false,
                payload: None,
            });
        }
        let (sha256, remedy) = match (fixed, pinned) {
            (Some(sha256), _) => (
                sha256,
                format!("if that is right, write the new one into `sha256` of `{short}`"),
            ),
            (None, Some(pin)) => (
                pin.digest,
                format!("if that is right: imgdecl lock --update {short}"),
            ),
            (None, None) => {
                let node = lower.add(target, Unpinned(url), vec![], origin);
                return Ok(Lowered::Layer(vec![node]));
            }
        };
        let fetch = Fetch {
            url,
            sha256,
            made,
            origin: origin.clone(),
            remedy,
        };
        Ok(Lowered::Layer(vec![lower.add(
            target,
            fetch,
            vec![],
            origin,
        )]))
    }

    fn pin(
        &self,
        needs: &[&Need],
        update: bool,
        context: &Context<'_>,
        lock: &mut Lock,
    ) -> Result<(), ActionError> {
        let Some(first) = needs.first() else {
            return Ok(());
        };
        let name = first.target.to_string();
        let old = lock.get::<HttpPin>(&name).cloned();
        let mut platforms: BTreeMap<String, FilePin> = BTreeMap::new();
        for need in needs {
            let platform = need.platform.to_string();
            let old = old.as_ref().and_then(|it| it.platforms.get(&platform));
            // Platforms that share a URL share what lies there.
            let same = platforms.values().find(|it| it.url == need.wanted).cloned();
            let kept = old.filter(|it| !update && it.url == need.wanted).cloned();
            let pin = match kept.or(same) {
                Some(pin) => pin,
                None => {
                    let wanted = WantedUrl {
                        url: &need.wanted,
                        sha256: None,
                    };
                    let fetched = context.ports.urls().fetch(&wanted, context.store);
                    let blob = fetched.map_err(|error| error.at(&need.origin))?;
                    FilePin {
                        url: need.wanted.clone(),
                        digest: blob.digest,
                        size: blob.size,
                    }
                }
            };
            platforms.insert(platform, pin);
        }
        lock.put(name, HttpPin { platforms });
        Ok(())
    }

    fn lend(
        &self,
        lock: &Lock,
        (from, _): Cache<'_>,
        (to, _): Cache<'_>,
    ) -> Result<(), ActionError> {
        for (_, pin) in lock.all::<HttpPin>() {
            for FilePin { digest, size, .. } in pin.platforms.values() {
                let (digest, size) = (*digest, *size);
                from.lend(&Blob { digest, size }, to)?;
            }
        }
        Ok(())
    }
}

/// What becomes of the file.
enum Shape {
    /// It is there as it is: its path, mode and owner.
    File(LayerPath, Attrs),
    /// It is an archive. The mode is that of all files, if any is given.
    Archive(Unpack, Option<u16>),
}

/// Reads what becomes of the file. `None` where that cannot be said, which is noted.
fn shape(at: &Table, table: &HttpTable, url: Option<&str>, collect: &mut Collect) -> Option<Shape> {
    let dest = table.dest.as_ref();
    let path = dest.map(|it| collect.take(image_path(at, it.get_ref(), it.span())));
    let path = path.unwrap_or_default();
    let set = table.mode.as_ref().map(|it| collect.take(mode(at, it)));
    if table.unpack {
        let unpack = Unpack {
            dest: path,
            strip: collect.take(strip(at, table.strip.as_ref())),
            include: table
                .include
                .as_ref()
                .map(|list| Patterns::new(at, list, collect)),
            exclude: Patterns::new(at, table.exclude.as_deref().unwrap_or_default(), collect),
            owner: owner_or_keep(at, table.owner.as_ref(), collect),
            keep_mtime: table.keep_mtime.as_ref().is_some_and(|it| *it.get_ref()),
            allow_empty: table.allow_empty.as_ref().is_some_and(|it| *it.get_ref()),
        };
        return Some(Shape::Archive(unpack, set));
    }
    let list = |list: &Option<Vec<Spanned<String>>>| {
        list.as_ref()
            .map(|list| list.first().map_or(at.span.clone(), Spanned::span))
    };
    let idle = [
        ("strip", table.strip.as_ref().map(Spanned::span)),
        ("include", list(&table.include)),
        ("exclude", list(&table.exclude)),
        ("keep_mtime", table.keep_mtime.as_ref().map(Spanned::span)),
        ("allow_empty", table.allow_empty.as_ref().map(Spanned::span)),
    ];
    for (key, span) in idle {
        if let Some(span) = span {
            let message = format!("`{key}` says nothing without `unpack`");
            let problem = at.problem("imgdecl::http::no_unpack", span, message, "of archives");
            collect
                .0
                .push(problem.help("write unpack = true where the URL is that of an archive"));
        }
    }
    let owner = table.owner.as_ref().map(|it| collect.take(owner(at, it)));
    let attrs = Attrs {
        mode: set.unwrap_or(0o644),
        owner: owner.unwrap_or_default(),
    };
    if dest.is_some_and(|it| !it.get_ref().ends_with('/')) {
        return Some(Shape::File(path, attrs));
    }
    let end = url?.split(['?', '#']).next().unwrap_or_default();
    let name = end.splitn(4, '/').nth(3).unwrap_or_default();
    let name = name.rsplit('/').next().unwrap_or_default();
    let place = (!name.is_empty() && !name.contains('%')).then(|| path.join(name).ok());
    if let Some(place) = place.flatten() {
        return Some(Shape::File(place, attrs));
    }
    let span = dest.map_or_else(|| table.url.span(), Spanned::span);
    let message = "the URL has no plain name for the file at its end";
    let problem = at.problem("imgdecl::http::dest", span, message, "a folder");
    collect
        .0
        .push(problem.help("write `dest` in full, with the name of the file"));
    None
}
