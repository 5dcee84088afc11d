//! An image to build on.
//!
//! ```toml
//! [base.python]
//! image = "docker.io/library/python:3.11-slim"  # in a registry, pinned in image.lock
//!
//! [base.debian]
//! layout = "bases/debian"      # a folder with an OCI image layout
//! ref    = "bookworm"          # which image of it
//!
//! [base.tools]
//! archive = "tools.tar"        # what `docker save`, `podman save` or `skopeo copy` wrote
//! ```
//!
//! One of `image`, `layout` and `archive` says where the base is. For each platform of the images that build on it, the
//! base must have an image of that platform. The bytes of the base's layers are never changed. Every digest and size on
//! the way is checked.
//!
//! `image` is a reference: `[REGISTRY/]REPOSITORY[:IMAGE TAG][@DIGEST]`; `python:3.11` is Docker Hub's. What it names is
//! pinned in `image.lock`, for each platform: a tag that moves changes nothing until `imgdecl lock --update`. The lock
//! also holds the paths of the base that decide the bytes of layers above: symlinks to folders, and folders that are not
//! 0755 0:0. So the base's layers are fetched once to make the lock, and after that only where an output holds them: a
//! push to the same registry moves none. One `image` serves all platforms, so `${arch}` cannot stand in it.
//!
//! Where a layer adds users or groups to the base, or is owned by a name, the lock holds the base's `etc/passwd`,
//! `etc/group`, `etc/shadow` and `etc/gshadow`, too, as texts. Where an image only runs as a user of the base by name, they
//! come into the lock when the base is locked anew.
//!
//! Where packages of a `pip` target are for a base on disk, the lock holds what it says about Python, and the digest of
//! its archive or of the layout's image: a base that was replaced is looked into again.
//!
//! `ref` is the image's name in the layout or archive, its full reference, or its digest; it may be left out where there
//! is one image only.
//!
//! To start from nothing, an image says `base = "scratch"`, without a target.

mod changes;
mod disk;
mod import;
mod look;
mod pinned;
mod remote;
mod users;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use toml::Spanned;

use super::host::HostPath;
use super::tar::Find;
use super::value::{Collect, fields};
use super::{BaseNodes, Below, Cache, Lower, Lowered, Need, Role, Rule};
use crate::graph::{ActionError, Context, NodeId, Origin};
use crate::lock::{Form, FormOf, Lock, Pin};
use crate::oci::{Platform, Reference};
use crate::source::SourceError;
use crate::spec::{Key, Problem, Problems, Target, Type};
use crate::store::StoreError;
pub(crate) use disk::OnDisk;
use disk::{FindLayout, Import};
pub(in crate::rule) use look::{accounts, listed_programs, programs};
use pinned::BasePin;
pub(super) use remote::fetch_bytes;
use remote::{Fetch, Known, Unpinned};
pub(crate) use users::BaseUsers;

const KEYS: &[Key] = &[
    Key::new(
        "image",
        Type::String,
        "",
        "A reference to an image in a registry, as \"docker.io/library/python:3.11-slim\". Pinned in image.lock.",
    ),
    Key::new(
        "layout",
        Type::String,
        "",
        "A folder with an OCI image layout, relative to the manifest.",
    ),
    Key::new(
        "archive",
        Type::String,
        "",
        "An image archive, relative to the manifest: OCI or docker's, plain or compressed.",
    ),
    Key::new(
        "ref",
        Type::String,
        "",
        "Which image of the layout or archive. Needed where there are several.",
    ),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BaseTable {
    image: Option<Spanned<String>>,
    layout: Option<Spanned<String>>,
    archive: Option<Spanned<String>>,
    r#ref: Option<Spanned<String>>,
}

pub(super) struct Base;

impl Rule for Base {
    fn name(&self) -> &'static str {
        BasePin::RULE
    }

    fn role(&self) -> Role {
        Role::Base
    }

    fn summary(&self) -> &'static str {
        "an image to build on"
    }

    fn source(&self) -> &'static str {
        include_str!("mod.rs")
    }

    fn keys(&self) -> &'static [Key] {
        KEYS
    }

    fn fields(&self) -> Vec<&'static str> {
        fields::<BaseTable>().to_vec()
    }

    fn lower(&self, target: &Target, lower: &mut Lower<'_>) -> Result<Lowered, Problems> {
        let table: BaseTable = lower.read(target, KEYS)?;
        let at = &target.table;
        let mut collect = Collect::default();
        let image = table.image.as_ref().and_then(|image| {
            let found = reference(image, target, lower);
            found.map_err(|it| collect.0.push(it)).ok()
        });
        if let (Some(_), Some(name)) = (&table.image, &table.r#ref) {
            let message = "`ref` chooses from a layout or an archive";
            let problem = at.problem("imgdecl::base::source", name.span(), message, "not needed");
            collect
                .0
                .push(problem.help("`image` says all: the image tag follows `:`"));
        }
        let root = lower.root();
        let mut path = |value: &Option<Spanned<String>>| {
            let value = value.as_ref()?;
            HostPath::new(at, value, &target.folder, &root)
                .map_err(|it| collect.0.push(it))
                .ok()
        };
        let (layout, archive) = (path(&table.layout), path(&table.archive));
        let named = [&table.image, &table.layout, &table.archive]
            .iter()
            .filter(|it| it.is_some())
            .count();
        if named != 1 {
            let label = if named == 0 {
                "nothing says where the base is"
            } else {
                "several say where the base is"
            };
            collect.0.push(at.problem(
                "imgdecl::base::source",
                at.span.clone(),
                "a base needs one of `image`, `layout` and `archive`",
                label,
            ));
        }
        collect.finish(())?;
        let platform = lower
            .platform()
            .cloned()
            .unwrap_or_else(|| Platform::new("linux", "amd64"));
        if let (Some(image), Some(written)) = (image, &table.image) {
            let origin = at.place(written.span());
            return Ok(in_registry(target, lower, image, platform, origin));
        }
        let reference = table.r#ref.map(Spanned::into_inner);
        let in_it = reference.clone();
        let (find, import) = match (layout, archive) {
            (Some(path), _) => {
                let origin = path.origin.clone();
                let find = lower.add(
                    target,
                    FindLayout {
                        path: path.clone(),
                        reference,
                    },
                    vec![],
                    origin,
                );
                (
                    find,
                    Import {
                        path,
                        reference: None,
                        is_layout: true,
                        platform,
                    },
                )
            }
            (None, Some(path)) => {
                let origin = path.origin.clone();
                let find = lower.add(target, Find(path.clone()), vec![], origin);
                (
                    find,
                    Import {
                        path,
                        reference,
                        is_layout: false,
                        platform,
                    },
                )
            }
            (None, None) => return Err(Problems::default()),
        };
        let on_disk = OnDisk {
            target: target.id.clone(),
            rule: target.rule,
            path: import.path.clone(),
            reference: in_it,
            is_layout: import.is_layout,
        };
        let origin = import.path.origin.clone();
        let node = lower.add(target, import, vec![find], origin);
        Ok(Lowered::Base(BaseNodes {
            node,
            below: Below::OnDisk(Arc::new(on_disk)),
            users: BaseUsers::InLayers,
        }))
    }

    fn form(&self) -> Option<&'static dyn Form> {
        Some(FormOf::<BasePin>::FORM)
    }

    fn pin(
        &self,
        needs: &[&Need],
        update: bool,
        context: &Context<'_>,
        lock: &mut Lock,
    ) -> Result<(), ActionError> {
        match needs.first().is_some_and(|need| need.is_reference) {
            true => remote::pin(needs, update, context, lock),
            false => disk::pin(needs, update, context, lock),
        }
    }

    fn lend(&self, lock: &Lock, from: Cache<'_>, to: Cache<'_>) -> Result<(), ActionError> {
        let pins = lock.all::<BasePin>();
        let mut pins = pins.filter_map(|(_, pin)| pin.in_registry());
        pins.try_for_each(|pin| remote::lend(pin, from, to))
    }
}

/// The keys that are the same for all platforms.
#[derive(Deserialize)]
struct Same {
    image: Option<Spanned<String>>,
}

/// Reads the reference to an image in a registry. Without an image tag and a digest, it is `latest`.
fn reference(
    image: &Spanned<String>,
    target: &Target,
    lower: &Lower<'_>,
) -> Result<Reference, Problem> {
    let at = &target.table;
    let code = "imgdecl::base::reference";
    // The lock holds one reference: it must not differ from platform to platform.
    let vars = lower.spec.vars(&target.id, None, lower.host);
    let same: Result<Same, Problems> = at.read_part(KEYS, |key| key == "image", &vars);
    let same = same.ok().and_then(|same| same.image);
    if same.as_ref().map(Spanned::get_ref) != Some(image.get_ref()) {
        let message = "`image` is one reference for all platforms";
        let name = &target.id.name;
        return Err(at
            .problem(
                code,
                image.span(),
                message,
                "differs from platform to platform",
            )
            .help(format!(
                "write a base for each, as [base.{name}-amd64], and base = \"{name}-${{arch}}\""
            )));
    }
    let mut reference: Reference =
        image
            .get_ref()
            .parse()
            .map_err(|error: crate::oci::ReferenceError| {
                at.problem(code, image.span(), error.to_string(), "not a reference")
            })?;
    if reference.tag.is_none() && reference.digest.is_none() {
        reference.tag = Some("latest".to_owned());
    }
    Ok(reference)
}

/// Adds the nodes of a base in a registry, as it is pinned.
fn in_registry(
    target: &Target,
    lower: &mut Lower<'_>,
    image: Reference,
    platform: Platform,
    origin: Origin,
) -> Lowered {
    let pinned = lower.lock.get::<BasePin>(&target.id.to_string());
    let pinned = pinned.and_then(BasePin::in_registry).cloned();
    let was = pinned.as_ref().map(|pin| pin.image.to_string());
    let fresh = pinned.filter(|pin| pin.image == image);
    let pin = fresh.and_then(|pin| {
        let platform = pin.platforms.get(&platform.to_string()).cloned();
        platform.map(|platform| (pin.digest, platform))
    });
    let need = Need {
        target: target.id.clone(),
        rule: target.rule,
        platform: platform.clone(),
        wanted: image.to_string(),
        origin: origin.clone(),
        was: was.filter(|was| *was != image.to_string()),
        is_pinned: pin.is_some(),
        waits: false,
        is_reference: true,
        is_given: false,
        payload: None,
    };
    lower.need(need.clone());
    let accounts = pin.as_ref().and_then(|(_, pin)| pin.accounts.clone());
    let users = BaseUsers::locked(accounts, need);
    let Some((digest, pin)) = pin else {
        let node = lower.add(target, Unpinned { image, platform }, vec![], origin);
        return Lowered::Base(BaseNodes {
            node,
            below: Below::Unlocked,
            users,
        });
    };
    let below = Below::Known(pin.found.clone());
    let known = Known {
        image,
        digest,
        pin,
        platform,
        origin: origin.clone(),
        target: target.id.to_string(),
    };
    let base = lower.add(target, known, vec![], origin.clone());
    let name = lower.spec.short_name(&target.id);
    let fetched = lower.kept::<InRegistries>();
    fetched.0.insert(base, (name, origin));
    Lowered::Base(BaseNodes {
        node: base,
        below,
        users,
    })
}

/// The bases in registries, by their nodes: their names for people, and where they are named.
#[derive(Default)]
struct InRegistries(BTreeMap<NodeId, (String, Origin)>);

/// Adds what fetches the layers of the bases among `nodes`, where an output holds them.
pub(super) fn fetch(nodes: &[NodeId], lower: &mut Lower<'_>) {
    if !lower.with_bytes {
        return;
    }
    for node in nodes {
        let known = lower.kept::<InRegistries>().0.get(node).cloned();
        if let Some((name, origin)) = known {
            let fetch = Fetch {
                origin: origin.clone(),
            };
            lower.add_as(BasePin::RULE, name, fetch, vec![*node], origin);
        }
    }
}

const DAMAGED: &str = "the base is damaged: copy it again from where it came";

/// Says what is wrong with a base, and how to mend it.
fn explain(error: &SourceError) -> ActionError {
    if let SourceError::Cache(damage) = error {
        return StoreError::from(damage.clone()).into();
    }
    let (code, help) = match error {
        SourceError::Reference { .. } => {
            ("imgdecl::base::reference", "name one of these with `ref`")
        }
        SourceError::Platform { .. } => (
            "imgdecl::base::platform",
            "leave the platform out of `platforms`, or use a base that has it",
        ),
        SourceError::NoLayout { .. } => (
            "imgdecl::base::layout",
            "`layout` names an OCI image layout, `archive` a tar of one or of `docker save`",
        ),
        SourceError::Io { .. } => (
            "imgdecl::base::unreadable",
            "check that the base is whole and readable",
        ),
        _ => ("imgdecl::base::damaged", DAMAGED),
    };
    ActionError::of(code, error).help(help)
}
