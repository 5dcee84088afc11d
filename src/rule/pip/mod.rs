//! Python packages: wheels for the target platform become layers. No Python is needed on the host.
//!
//! ```toml
//! [pip.deps]
//! requirements = ["requirements.txt"]
//!
//! [pip.tools]
//! packages = ["uvicorn[standard]>=0.30", "boto3"]
//! python   = "3.11"
//! split    = "none"
//! ```
//!
//! What is asked for stands in `requirements` (files in pip's grammar), in `packages`, in `pyproject` (with `extras`
//! and `groups`), or in `project`; `constraints` narrow it. It is resolved once for each platform, to wheels alone, and `image.lock` holds
//! them by file name and digest (targets of a workspace get the same versions, where they fit): a build takes these and
//! nothing else. `image.lock` asks for the same as long as the files mean the same: comments, blank lines, ends of lines and
//! the order of requirements change nothing.
//!
//! `lock` names a lock of another tool, which is taken as it is: versions and digests, never resolved anew. What the file
//! holds says of which tool it is:
//!
//! - uv.lock: the dependencies of one project. Where several share it, `package` says whose; a project that is named so is
//!   installed itself, with those of the workspace that it needs.
//! - pylock.toml (PEP 751), as pip, uv and PDM write it.
//! - poetry.lock, version 1 and 2, with the pyproject.toml beside it: the group `main` and those of `groups`; optional packages
//!   by `extras`. Before version 2.1 it is followed from what the project asks for. A project that asks for what the lock does
//!   not have is an error.
//! - Pipfile.lock: the category `default`, and those of `groups`, as `develop`.
//! - pdm.lock, version 4: the group `default`, and those of `groups` and `extras`. Without the strategy `inherit_metadata` it
//!   is followed from the pyproject.toml beside it.
//!
//! Each is refused for another Python or another platform than its own. Packages from git or from archives of sources are
//! errors; folders are left out with a warning, but for those of a uv.lock with `package`: put them into the image as
//! `[files]`. Where a lock has no wheel that fits, one of that version in `find_links` is taken. A lock that names
//! an index is not asked where to look: the indexes are those of `[index]`, and the digest decides. Requirements with
//! `--hash` are a lock, too, and stay in `requirements`; an environment.yml of conda cannot be taken. `pylock` and `uv_lock`
//! are other words for `lock`.
//!
//! A locked build (`--locked`, or CI) takes what such a lock says by itself, digests and all: where `image.lock` does not hold
//! it yet, that is told, and nothing is written. So a robot that moves the other tool's lock need not know of this one.
//!
//! `project` names the folder of a project, as `"."`: it is installed as a package, with its commands and its metadata, and
//! with what it needs. Its wheel is made without running code, as its back end would make it: hatchling 1.33, setuptools 84
//! (by pyproject.toml or setup.cfg), flit-core 3.12 and 4.2, poetry-core 2.5, uv_build 0.9 to 0.13, in pure Python. So are folders
//! that it leads to: in `[tool.uv.sources]` by `path` or `workspace`, and in requirements files as `./libs/common`, `-e .` or
//! `NAME @ file:…`. What is only known by running code is refused: hooks, a setup.py that does more than call `setup()`,
//! extensions, versions from version control, other back ends. Then a wheel of the project in `find_links` takes its place. The
//! sources are no part of `image.lock`, but what they ask for is. Projects are a layer of their own, above what they need, unless
//! `split` is `"none"`.
//!
//! The other way round, `imgdecl lock --export pylock` writes what is locked as pylock.toml, one file for all platforms of a
//! target: with markers where platforms differ, and with the URLs that the indexes give that day. Projects are not in it.
//!
//! The base says what fits: its interpreter, where packages go, and its C library are found once and kept in `image.lock`.
//! `python` chooses among several interpreters. From scratch, `python` must be said, and `libc` and `prefix` may be. A wheel
//! for another platform or another Python cannot be chosen. On bases of AWS Lambda, packages go to the folder of the
//! function. A package takes the place of what the base has of it in the same folder.
//!
//! Scripts such as `uvicorn` land in `PREFIX/bin`, name the image's interpreter, and run as plain commands. Nothing of the
//! host gets in: `INSTALLER` says imgdecl, `RECORD` is made anew, there is no `__pycache__`.
//!
//! A requirements file is obeyed to the last line, or refused:
//!
//! - `-i`, `--index-url`: the index in the place of the default ones, and of `url` and `extra` of `[index]`. The last one counts.
//! - `--extra-index-url`: one more, before or behind `-i`. All are asked, and the newest version counts, as pip has it; where
//!   several have a package, that is told. `packages` of `[index]` still has its names asked for in one place alone.
//! - `-f`, `--find-links`: a folder, from the folder of the file on, or the URL of a page: beside the indexes.
//! - `--no-index`: no index is asked.
//! - `-r`, `-c`: more files, from the folder of the file on. URLs of files are refused.
//! - `-e`, and paths of folders: projects of the workspace, as `project` has them. Checkouts are refused.
//! - `--hash`, `--require-hashes`: what is installed has hashes, all of it, with its version. What a wheel needs stands there, too.
//! - `--pre`: pre-releases are as good as releases. `--only-binary`, `--prefer-binary`: where the newest version has no wheel, an
//!   older one, or a pre-release, is taken without a warning. `--no-binary NAME` is refused, and so are `--global-option` and the
//!   like.
//! - `--trusted-host`: certificates are checked all the same, and that is told. `--config-settings` is for builds: it is told that
//!   there is none. `--use-feature` is of pip's inside, and changes nothing here.
//! - `${NAME}`: a variable of the environment, which must be there. A password in the URL of an index goes to that host alone,
//!   and neither into `image.lock` nor into a message; it may also stand in `.netrc`.
//!
//! Where a file names an index, `image.lock` says it with each wheel of it, as `index=URL` or `page=URL`, and a build takes the
//! wheel from there alone. An index that cannot be asked is an error.
//!
//! Of a `pyproject`, uv's table is obeyed: `index`, `sources` with an index, `index-url`, `extra-index-url`, `find-links`,
//! `no-index`, `override-dependencies`, `constraint-dependencies`, `prerelease`, `exclude-newer`, and `requires-python` of the project.
//! A package comes from the first of its indexes that has it. What would change the packages otherwise is refused, as `resolution`,
//! `no-binary` and sources by git or URL. An index of Poetry or PDM must be named under `[index]`.
//!
//! `overrides` take the place of requirements on the same packages, wherever these are asked for: also of a checkout that a
//! file names, which is not looked at then.
//!
//! The newest version that has a wheel is taken; a newer one without is told. A pre-release is taken where a requirement names one,
//! or where there is no stable version; that a stable one has no wheel is an error.
//!
//! `find_links` are folders with wheels of one's own; they come before the indexes. A wheel there that is replaced under its
//! name is locked again. A wheel whose index says no digest is fetched when it is locked; from then on the lock decides.
//!
//! A wheel has one reading: an archive that other readers of zip would read otherwise is refused, as are two files of one wheel
//! with one place and different bytes (with the same bytes they are one file), and a RECORD with more than three columns. A
//! version whose wheel cannot be read is left out with a warning; where no other will do, that is the error. `image.lock`
//! holds the digest of the METADATA that an index gave for a wheel, and the wheel must hold just that when it is laid out.
//! Of wheels that another lock names, of those in `find_links`, and of locks made before, no such digest is known, and nothing
//! is compared.
//!
//! `layout = "venv"` makes a virtual environment at `prefix`; its `bin` comes first in the `PATH` of images that hold it,
//! unless their `PATH` names it.
//!
//! `split` says which packages are layers of their own. With `"auto"`, those whose wheel has at least 1 MiB are, and the rest
//! is one layer: targets that have the same wheel at the same place share its layer, and what one target has changes no
//! image of another. `"package"` takes the largest, whatever their size, `"none"` makes one layer, and `"workspace"` one for
//! all that the same targets of the workspace have: fewer layers, but a target that takes up or drops a package cuts those
//! of others anew. There are at most 40 layers; the smallest packages join the rest.
//!
//! In one folder there is one version of a package: two targets of an image that lock different ones for it are an error,
//! unless the later one has `on_conflict = "last"`.

mod action;
mod closed;
mod errors;
mod export;
mod foreign;
mod found;
mod index;
mod inputs;
mod installed;
mod meant;
mod own;
mod pin;
mod pinned;
mod projects;
mod reach;
mod scheme;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Deserialize;
use toml::Spanned;

use super::ecosystem::Ecosystem;
use super::value::{Collect, fields, owner};
use super::{Cache, LayerTrees, Lower, Lowered, Need, Role, Rule};
use crate::graph::{ActionError, Context};
use crate::layer::LayerPath;
use crate::lock::{Form, FormOf, Lock, Pin};
use crate::oci::Platform;
use crate::python::WheelName;
use crate::python::wheel::{self, Split, Wheel};
use crate::spec::{Host, Key, Problems, Target, Type};
use crate::store::Blob;
use action::{Install, Join};
use inputs::Inputs;
use installed::Packages;
use pinned::{PipPin, Wheels};
use scheme::Place;

const KEYS: &[Key] = &[
    Key::new(
        "requirements",
        Type::Strings,
        "[]",
        "Requirements files, relative to the manifest.",
    ),
    Key::new(
        "packages",
        Type::Strings,
        "[]",
        "Requirements, as \"uvicorn[standard]>=0.30\".",
    ),
    Key::new(
        "pyproject",
        Type::String,
        "",
        "A pyproject.toml: its dependencies.",
    ),
    Key::new(
        "project",
        Type::String,
        "",
        "The folder of a project, as \".\": it is installed as a package, with what it needs.",
    ),
    Key::new(
        "lock",
        Type::String,
        "",
        "A lock of another tool, which is taken as it is: uv.lock, pylock.toml, poetry.lock, Pipfile.lock or pdm.lock.",
    ),
    Key::new(
        "pylock",
        Type::String,
        "",
        "Another word for `lock`, for a pylock.toml.",
    ),
    Key::new(
        "uv_lock",
        Type::String,
        "",
        "Another word for `lock`, for a uv.lock.",
    ),
    Key::new(
        "package",
        Type::String,
        "",
        "The project of a uv.lock's workspace that is installed. The one of the lock's folder, if nothing is said.",
    ),
    Key::new(
        "constraints",
        Type::Strings,
        "[]",
        "Constraints files: they narrow what is installed anyway.",
    ),
    Key::new(
        "overrides",
        Type::Strings,
        "[]",
        "Requirements that take the place of those on the same packages, wherever these are asked for, as \"six==1.17.0\".",
    ),
    Key::new(
        "extras",
        Type::Strings,
        "[]",
        "Extras of the project, with `pyproject` and `lock`.",
    ),
    Key::new(
        "groups",
        Type::Strings,
        "[]",
        "Dependency groups of the project, likewise, besides what it always needs. Categories of a Pipfile.",
    ),
    Key::new(
        "python",
        Type::String,
        "",
        "The version of Python, as \"3.11\". What the base has, if nothing is said.",
    ),
    Key::new(
        "libc",
        Type::String,
        "",
        "The C library, as \"glibc 2.36\" or \"musl 1.2\". What the base has, or glibc 2.28.",
    ),
    Key::new(
        "prefix",
        Type::String,
        "",
        "Where packages go: \"/usr/local\", or the environment's folder. What the base's Python has, if nothing is said.",
    ),
    Key::new(
        "find_links",
        Type::Strings,
        "[]",
        "Folders with wheels, relative to the manifest. They come before the indexes.",
    ),
    Key::new(
        "layout",
        Type::OneOf(&["prefix", "venv"]),
        "\"prefix\"",
        "Installs for the interpreter itself, or makes a virtual environment.",
    ),
    Key::new(
        "split",
        Type::OneOf(&["none", "package", "auto", "workspace"]),
        "\"auto\"",
        "How packages are split into layers: not, each for itself, large ones for themselves, or by which targets have them.",
    ),
    Key::new(
        "exclude_newer",
        Type::String,
        "",
        "Leaves out files that were uploaded later (RFC 3339).",
    ),
    Key::new(
        "on_conflict",
        Type::OneOf(&["error", "last"]),
        "\"error\"",
        "What to do where two wheels bring different files of one path, or a target below brings another version.",
    ),
    Key::new(
        "owner",
        Type::String,
        "\"0:0\"",
        "The numeric owner, as UID:GID.",
    ),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PipTable {
    #[serde(default)]
    requirements: Vec<Spanned<String>>,
    #[serde(default)]
    packages: Vec<Spanned<String>>,
    pyproject: Option<Spanned<String>>,
    project: Option<Spanned<String>>,
    lock: Option<Spanned<String>>,
    pylock: Option<Spanned<String>>,
    uv_lock: Option<Spanned<String>>,
    package: Option<Spanned<String>>,
    #[serde(default)]
    constraints: Vec<Spanned<String>>,
    #[serde(default)]
    overrides: Vec<Spanned<String>>,
    #[serde(default)]
    extras: Vec<String>,
    #[serde(default)]
    groups: Vec<String>,
    python: Option<Spanned<String>>,
    libc: Option<Spanned<String>>,
    prefix: Option<Spanned<String>>,
    #[serde(default)]
    find_links: Vec<Spanned<String>>,
    layout: Option<String>,
    split: Option<Split>,
    exclude_newer: Option<Spanned<String>>,
    on_conflict: Option<String>,
    owner: Option<Spanned<String>>,
}

/// The key that decides how the wheels of a target are split.
#[derive(Deserialize)]
struct SplitKey {
    #[serde(default)]
    split: Split,
}

pub(super) struct Pip;

impl Rule for Pip {
    fn name(&self) -> &'static str {
        PipPin::RULE
    }

    fn role(&self) -> Role {
        Role::Layer
    }

    fn summary(&self) -> &'static str {
        "layers of Python packages"
    }

    fn source(&self) -> &'static str {
        include_str!("mod.rs")
    }

    fn keys(&self) -> &'static [Key] {
        KEYS
    }

    fn fields(&self) -> Vec<&'static str> {
        fields::<PipTable>().to_vec()
    }

    /// The base says which Python packages are for, and where they go.
    fn looks_below(&self) -> bool {
        true
    }

    fn lower(&self, target: &Target, lower: &mut Lower<'_>) -> Result<Lowered, Problems> {
        let table: PipTable = lower.read(target, KEYS)?;
        let mut collect = Collect::default();
        let owner = table.owner.as_ref();
        let owner = owner.map(|it| collect.take(owner_of(target, it)));
        let inputs = Inputs::read(&table, target, lower).map_err(|problems| {
            collect.0.extend(problems);
        });
        let place = Place::find(&table, target, lower, owner.unwrap_or_default());
        let place = place.unwrap_or_else(|problems| {
            collect.0.extend(problems);
            None
        });
        let is_venv = table.layout.as_deref() == Some("venv");
        if is_venv && table.prefix.is_none() {
            let span = target.table.span.clone();
            let message = "a virtual environment needs a folder";
            let problem = target
                .table
                .problem("imgdecl::pip::venv", span, message, "no `prefix`");
            collect
                .0
                .push(problem.help("write it as prefix = \"/app/.venv\""));
        }
        let (Ok(inputs), true) = (inputs, collect.0.is_empty()) else {
            return Err(collect.0);
        };
        let origin = target.table.origin();
        let platform = lower.platform().cloned();
        let platform = platform.unwrap_or_else(|| Platform::new("linux", "amd64"));
        let mut installed = Packages {
            name: lower.spec.short_name(&target.id),
            commands: commands(&table).filter(|_| is_venv),
            may_replace: table.on_conflict.as_deref() == Some("last"),
            ..Packages::default()
        };
        let pinned = lower.lock.get::<PipPin>(&target.id.to_string());
        let is_stale = pinned.is_some_and(|pin| !inputs.is_of(pin));
        let others = is_stale.then(|| "other requirements".to_owned());
        // The base is not locked yet: what fits it is not known.
        let Some(place) = place else {
            lower.need(Need {
                target: target.id.clone(),
                rule: target.rule,
                platform,
                wanted: inputs.digest.to_string(),
                origin,
                was: others,
                // What was locked for these requirements may well fit: that shows once the base is.
                is_pinned: pinned.is_some() && !is_stale,
                waits: true,
                is_reference: false,
                is_given: inputs.is_locked(),
                payload: None,
            });
            return Ok(unpinned(target, lower, installed));
        };
        let name = place.target.name();
        let own = inputs.own(&place.target);
        let own = own.map_err(|error| inputs::problems(&error))?;
        let wheels = pinned
            .filter(|_| !is_stale)
            .and_then(|pin| pin.targets.get(&name))
            .cloned();
        let replaced = wheels.as_ref();
        let replaced = replaced.and_then(|wheels| replaced_in(wheels, &inputs, lower.host));
        let is_replaced = replaced.is_some();
        let wheels = wheels.filter(|_| !is_replaced);
        let inputs = Arc::new(inputs);
        lower.need(Need {
            target: target.id.clone(),
            rule: target.rule,
            platform,
            wanted: inputs.digest.to_string(),
            origin: origin.clone(),
            was: replaced.or(others),
            is_pinned: wheels.is_some(),
            waits: false,
            is_reference: false,
            is_given: inputs.is_locked(),
            payload: Some(Arc::new(pin::Payload {
                inputs: inputs.clone(),
                target: place.target.clone(),
                is_replaced,
                doubt: place.doubt.clone(),
                is_libc_assumed: place.is_libc_assumed,
            })),
        });
        let Some(wheels) = wheels else {
            return Ok(unpinned(target, lower, installed));
        };
        let scheme = place.scheme(is_venv);
        installed.sites = [Some(scheme.site.clone()), scheme.platsite.clone()]
            .into_iter()
            .flatten()
            .collect();
        let names = wheels.keys().filter_map(|it| WheelName::parse(it).ok());
        installed.versions = names.map(|it| (it.name, it.version)).collect();
        let versions = own.iter().map(|it| &it.wheel);
        installed
            .versions
            .extend(versions.map(|it| (it.name.clone(), it.version.clone())));
        let split = table.split.unwrap_or_default();
        let mut groups = groups(target, split, lower, &name, &wheels);
        let links = Arc::new(inputs.find_links.clone());
        let mut nodes = Vec::new();
        if is_venv && let Some(venv) = place.venv() {
            nodes.push(lower.add(target, action::Environment(venv), vec![], origin.clone()));
        }
        let files: BTreeSet<String> = own.iter().map(|it| it.wheel.file.clone()).collect();
        let displaced = place.displaced(is_venv, wheels.keys().chain(&files));
        if !displaced.is_empty() {
            nodes.push(lower.add(target, action::Displace(displaced), vec![], origin.clone()));
        }
        let before = nodes.len();
        for (file, pin) in wheels {
            let name = WheelName::parse(&file).ok();
            let is_silent = name.is_some_and(|name| wheel::is_silent(&name));
            let install = Install {
                file,
                pin,
                scheme: scheme.clone(),
                runs_on: is_silent.then(|| place.target.clone()),
                find_links: links.clone(),
                reach: inputs.reach.clone(),
                root: lower.root(),
                origin: origin.clone(),
            };
            nodes.push(lower.add(target, install, vec![], origin.clone()));
        }
        let count = nodes.len() - before;
        for one in &own {
            let node = own_wheel(target, lower, one, &inputs, &scheme);
            nodes.push(node);
        }
        let numbers = count..count + own.len();
        match groups.last_mut() {
            // Projects change often: they are a layer of their own, on top.
            Some(last) if split == Split::None || last.is_empty() => {
                last.extend(numbers);
            }
            _ if own.is_empty() => {}
            _ => groups.push(numbers.collect()),
        }
        let join = Join {
            last: installed.may_replace,
        };
        let join = lower.add(target, join, nodes, origin);
        let shifted = groups.into_iter().enumerate().map(|(number, group)| {
            let own = group.into_iter().map(|index| index + before);
            // The environment itself, and what is removed, come with the first layer.
            let first = if number == 0 { before } else { 0 };
            (0..first).chain(own).collect()
        });
        let layers = shifted.map(|pick| LayerTrees { node: join, pick });
        Ok(Lowered::Layers(layers.collect(), Arc::new(installed)))
    }

    fn ecosystem(&self) -> Option<&'static dyn Ecosystem> {
        Some(&found::Python)
    }

    fn form(&self) -> Option<&'static dyn Form> {
        Some(FormOf::<PipPin>::FORM)
    }

    fn pin(
        &self,
        needs: &[&Need],
        update: bool,
        context: &Context<'_>,
        lock: &mut Lock,
    ) -> Result<(), ActionError> {
        pin::pin(needs, update, context, lock)
    }

    fn packages(&self, lock: &Lock, target: &str) -> BTreeSet<String> {
        let pin = lock.get::<PipPin>(target);
        pin.map_or(BTreeSet::new(), PipPin::packages)
    }

    fn forget(&self, lock: &mut Lock, target: &str, package: &str) {
        if let Some(pin) = lock.get::<PipPin>(target) {
            let pin = pin.without(package);
            lock.put(target.to_owned(), pin);
        }
    }

    fn lend(&self, lock: &Lock, from: Cache<'_>, to: Cache<'_>) -> Result<(), ActionError> {
        let wheels = lock
            .all::<PipPin>()
            .flat_map(|(_, pin)| pin.targets.values());
        for wheel in wheels.flat_map(Wheels::values) {
            // Without a size it cannot be told whether the store has it.
            if let Some(size) = wheel.size {
                let digest = wheel.sha256;
                from.0.lend(&Blob { digest, size }, to.0)?;
            }
        }
        Ok(())
    }

    fn exports(&self) -> bool {
        true
    }

    fn export(
        &self,
        needs: &[&Need],
        context: &Context<'_>,
        lock: &Lock,
        folder: &std::path::Path,
    ) -> Result<Option<String>, ActionError> {
        export::export(needs, context, lock, folder)
    }
}

/// Lowers a project of the workspace: a look at it, and the wheel that is made of it.
fn own_wheel(
    target: &Target,
    lower: &mut Lower<'_>,
    own: &projects::Own,
    inputs: &Inputs,
    scheme: &crate::python::wheel::Scheme,
) -> crate::graph::NodeId {
    let origin = target.table.origin();
    let gather = own::Gather {
        root: lower.root(),
        folder: own.folder.clone(),
        never: inputs.never.clone(),
        origin: origin.clone(),
    };
    let gather = lower.add(target, gather, vec![], origin.clone());
    let lay = own::Lay {
        file: own.wheel.file.clone(),
        stem: own.wheel.stem.clone(),
        scheme: scheme.clone(),
        origin: origin.clone(),
    };
    lower.add(target, lay, vec![gather], origin)
}

/// Lowers packages that the lock lacks.
fn unpinned(target: &Target, lower: &mut Lower<'_>, installed: Packages) -> Lowered {
    let action = action::Unpinned(target.id.to_string());
    let node = lower.add(target, action, vec![], target.table.origin());
    Lowered::Layers(vec![LayerTrees::all(node)], Arc::new(installed))
}

/// Says which wheel of the workspace has other bytes than those that were locked, if one has. One that is gone may be had
/// from elsewhere.
fn replaced_in(wheels: &Wheels, inputs: &Inputs, host: &dyn Host) -> Option<String> {
    let own = wheels.values().filter(|pin| pin.is_own());
    let mut own = own.filter(|_| !inputs.is_locked());
    own.find_map(|pin| {
        let (path, was) = (pin.url.as_deref()?, pin.sha256);
        let file = inputs.root.join(path);
        // Before it is opened: a fifo would block.
        let is = file.is_file().then(|| host.digest(&file).ok())??;
        (is != was).then(|| format!("{path} {was}, which is {is} now"))
    })
}

/// Returns the folder of a virtual environment's commands.
fn commands(table: &PipTable) -> Option<String> {
    let prefix = table.prefix.as_ref()?.get_ref();
    let folder = LayerPath::parse(prefix).ok()?.join("bin").ok()?;
    Some(format!("/{}", folder.as_str()))
}

fn owner_of(
    target: &Target,
    value: &Spanned<String>,
) -> Result<crate::layer::Owner, crate::spec::Problem> {
    owner(&target.table, value)
}

/// The layers of each service, bottom first: the numbers of its wheels in the order of their file names.
type Splits = BTreeMap<String, Vec<Vec<usize>>>;

/// The layers of services that share them, by target of Python and platform: made once, since all have a say in it.
type SharedSplits = BTreeMap<(String, Option<Platform>), Splits>;

/// Returns which wheels make a layer together, bottom first: their numbers in the order of their file names.
fn groups(
    target: &Target,
    split: Split,
    lower: &mut Lower<'_>,
    name: &str,
    wheels: &Wheels,
) -> Vec<Vec<usize>> {
    let service = target.id.to_string();
    if split != Split::Workspace {
        let services = BTreeMap::from([(service.clone(), (split, listed(wheels)))]);
        return wheel::split(&services).remove(&service).unwrap_or_default();
    }
    let key = (name.to_owned(), lower.platform().cloned());
    if !lower.kept::<SharedSplits>().contains_key(&key) {
        let made = shared_splits(target, lower, name);
        lower.kept::<SharedSplits>().insert(key.clone(), made);
    }
    let splits = lower.kept::<SharedSplits>().get(&key);
    let own = splits.and_then(|it| it.get(&service)).cloned();
    own.unwrap_or_else(|| vec![(0..wheels.len()).collect()])
}

/// Splits the wheels of all services that share layers and have the same target of Python; `target` is one of them.
fn shared_splits(target: &Target, lower: &Lower<'_>, name: &str) -> Splits {
    let pips = lower.spec.targets();
    let pips = pips.filter(|it| it.rule == target.rule);
    let pips: BTreeMap<String, &Target> = pips.map(|it| (it.id.to_string(), it)).collect();
    let mut services = BTreeMap::new();
    for (service, pin) in lower.lock.all::<PipPin>() {
        let Some((other, wheels)) = pips.get(service).zip(pin.targets.get(name)) else {
            continue;
        };
        let key: Result<SplitKey, Problems> =
            other
                .table
                .read_part(KEYS, |key| key == "split", &lower.vars(other));
        let split = key.map(|key| key.split).unwrap_or_default();
        if split == Split::Workspace {
            services.insert(service.clone(), (split, listed(wheels)));
        }
    }
    wheel::split(&services)
}

fn listed(wheels: &Wheels) -> Vec<Wheel> {
    wheels
        .iter()
        .filter_map(|(file, pin)| {
            let name = WheelName::parse(file).ok()?.name;
            let size = pin.size.unwrap_or_default();
            let file = file.clone();
            Some(Wheel { name, file, size })
        })
        .collect()
}
