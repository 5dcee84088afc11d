//! An image: a base, layers on top, and how to run it.
//!
//! ```toml
//! [image.qa-api]
//! base       = "python"                    # a base, another image, or "scratch"
//! layers     = ["qa-api-deps", "qa-api-src"]
//! entrypoint = ["python", "-m", "uvicorn"]
//! cmd        = ["app:app", "--host", "0.0.0.0"]
//! env        = { PYTHONUNBUFFERED = "1", PATH = "/opt/bin:${PATH}" }
//! workdir    = "/app"
//! ports      = [8000]
//! ```
//!
//! `layers` are named bottom first. A layer that no one else needs can be written in place:
//! `layers = [{ files = { src = "bin/hello", dest = "/bin/hello" } }]`.
//!
//! What an image inherits from its base:
//!
//! | field | rule |
//! |---|---|
//! | `env` | merged by name, the base's order first; a name that the base has twice is there once, with its last value |
//! | `labels` | merged by name |
//! | `ports`, `volumes` | the union |
//! | `entrypoint` | replaced; and the base's `cmd` is dropped unless `cmd` is given too |
//! | `cmd`, `workdir`, `user`, `stop_signal`, `healthcheck`, `shell` | replaced where given |
//! | history | kept; one entry follows for each new layer |
//! | every other field of the base's config | kept as it is |
//! | `annotations` | not inherited; `org.opencontainers.image.base.name` and `.base.digest` are added |
//!
//! In the values of `env`, a `${NAME}` that is no variable stands for what the base has under that name: where that is there
//! twice, for the last one, as a process gets it. `${PATH}` is what container runtimes use where the base has none, and
//! `${NAME:-VALUE}` has a value for where the base has no such name. An image that changes no variable leaves the base's as they are written.
//! The `bin` of a virtual environment among the layers comes first in `PATH`, unless it is in there already; where there is
//! no `PATH`, the folders follow that container runtimes use then.
//!
//! An image of one platform is a manifest; an image of several is an index over manifests, in the order of `platforms`.
//! `repository`, `platforms`, `compression`, `media_types` and `created` come from `[defaults]` where the image does not
//! say.
//!
//! `media_types = "docker"` writes manifests, manifest lists, configs and layers with the media types of Docker's image
//! manifest v2, schema 2, for tools that know no others. A base of either kind serves: its layers are named anew, and their
//! bytes and digests stay. Docker's manifests know neither zstd nor annotations: both are errors there, and the
//! annotations about the base are left out.
//!
//! The build looks whether the image can start: its first word is looked for in `PATH` and `workdir`, in all layers and, where
//! its files are known, in the base. A program that is there and cannot be run is an error: no file may be run whose `mode` has
//! no x, that is a folder, that is for another processor, or whose `#!` line ends as on Windows. What is not there, be it the
//! program or what runs it, is a warning, since it may be mounted. A `user` or group by a name that the image does not have is
//! an error; numbers need no name.
//!
//! A health check is a table: `healthcheck = { test = ["CMD", "curl", "-f", "localhost"], interval = "30s" }`, with
//! `timeout`, `start_period`, `start_interval` and `retries`; `test = ["NONE"]` turns the base's off.

mod action;
mod edit;
mod layers;
mod names;
mod start;
mod values;
mod view;

pub(crate) use names::{Names, images, names, platforms};

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use toml::Spanned;

use action::{ImageAction, IndexAction};
use edit::Edit;
pub(super) use layers::layers;
use names::{Where, flavour};
use start::{Check, Start};
use values::{HEALTHCHECK, Healthcheck, Port};

use super::layer::{LayerAction, StackAction};
use super::users::UsersBelow;
use super::value::{Collect, fields};
use super::{BaseNodes, Lower, Lowered, OnUsers, RULES, Role, Rule};
use crate::graph::{NodeId, Origin};
use crate::oci::{Annotations, Compression, Flavour};
use crate::rule::Below;
use crate::rule::ecosystem::{Conflict, Installed};
use crate::spec::{Key, Problem, Problems, Scope, Table, Target, Type, Words};

const KEYS: &[Key] = &[
    Key::new(
        "base",
        Type::String,
        "",
        "The name of a base or of another image, or \"scratch\".",
    ),
    Key::new(
        "layers",
        Type::Layers,
        "[]",
        "The layers, bottom first: names, or tables with one rule.",
    ),
    Key::new(
        "entrypoint",
        Type::Words,
        "",
        "The program and its first arguments. A string is split into words as a shell would, and no shell runs.",
    ),
    Key::new(
        "cmd",
        Type::Words,
        "",
        "The arguments that a user may replace; the program, where there is no entrypoint. A string is split into words as a shell would.",
    ),
    Key::new("env", Type::StringMap, "{}", "Environment variables.").scope(Scope::Raw),
    Key::new("workdir", Type::String, "", "The folder that it starts in."),
    Key::new(
        "user",
        Type::String,
        "",
        "Who it runs as: name or number, with an optional group after a colon.",
    ),
    Key::new(
        "ports",
        Type::Ports,
        "[]",
        "The ports that it listens on: numbers, or \"53/udp\".",
    ),
    Key::new(
        "volumes",
        Type::Strings,
        "[]",
        "Folders whose content outlives a container.",
    ),
    Key::new("labels", Type::StringMap, "{}", "Labels in the config.").scope(Scope::Stamped),
    Key::new(
        "annotations",
        Type::StringMap,
        "{}",
        "Annotations of the manifests, and of the index.",
    )
    .scope(Scope::Stamped),
    Key::new(
        "stop_signal",
        Type::String,
        "",
        "The signal that stops it, as \"SIGINT\".",
    ),
    Key::new(
        "healthcheck",
        Type::Table(HEALTHCHECK),
        "",
        "How to find out whether it works.",
    ),
    Key::new(
        "shell",
        Type::Strings,
        "",
        "The shell for commands that are written as one string.",
    ),
    Key::new(
        "platforms",
        Type::Strings,
        "[\"linux/amd64\"]",
        "The platforms, in the order of the index. Never guessed from the host.",
    ),
    Key::new("tags", Type::Strings, "[\"latest\"]", "The image tags.").scope(Scope::Stamped),
    Key::new(
        "repository",
        Type::String,
        "",
        "Where the image is kept, as \"registry/team/name\".",
    ),
    Key::new(
        "push",
        Type::Boolean,
        "true",
        "Whether it is pushed. `false` keeps an image of tests or tools out of registries.",
    ),
    Key::new(
        "compression",
        Type::OneOf(&Compression::NAMES),
        "\"gzip\"",
        "How new layers are compressed.",
    ),
    Key::new(
        "media_types",
        Type::OneOf(&Flavour::NAMES),
        "\"oci\"",
        "Whose media types manifests, configs and layers have.",
    ),
    Key::new(
        "created",
        Type::String,
        "\"1970-01-01T00:00:00Z\"",
        "The time in the config (RFC 3339), or \"git\" for that of the commit. SOURCE_DATE_EPOCH overrides it.",
    ),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ImageTable {
    base: Spanned<String>,
    entrypoint: Option<Spanned<Words>>,
    cmd: Option<Spanned<Words>>,
    #[serde(default)]
    env: BTreeMap<Spanned<String>, Spanned<String>>,
    workdir: Option<Spanned<String>>,
    user: Option<Spanned<String>>,
    #[serde(default)]
    ports: Vec<Spanned<Port>>,
    #[serde(default)]
    volumes: Vec<Spanned<String>>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    annotations: Option<Spanned<Annotations>>,
    stop_signal: Option<String>,
    healthcheck: Option<Healthcheck>,
    shell: Option<Vec<String>>,
    compression: Option<Spanned<String>>,
    created: Option<Spanned<String>>,
}

/// The nodes of an image of one platform.
#[derive(Clone, Debug)]
pub struct ImageNodes {
    /// The image.
    pub image: NodeId,
    /// What the image is like to layers above: its topmost layer's stack, or its base.
    pub(super) top: Option<NodeId>,
    /// The nodes whose products have its layers, bottom first: a base, and layers.
    pub(super) layers: Vec<NodeId>,
    /// What its base is to layers.
    below: Below,
    /// The packages that it has.
    packages: Vec<Arc<dyn Installed>>,
    /// The base at its bottom, if there is one.
    base: Option<BaseNodes>,
    /// The stacks of all layers above that, bottom first.
    stacks: Vec<NodeId>,
}

/// Adds what fetches those layers of an image that lie in a registry, where an output holds them.
pub(crate) fn fetch(nodes: &ImageNodes, lower: &mut Lower<'_>) {
    super::base::fetch(&nodes.layers, lower);
}

pub(super) struct Image;

impl Rule for Image {
    fn name(&self) -> &'static str {
        "image"
    }

    fn role(&self) -> Role {
        Role::Image
    }

    fn summary(&self) -> &'static str {
        "an image: a base, layers, and how to run it"
    }

    fn source(&self) -> &'static str {
        include_str!("mod.rs")
    }

    fn keys(&self) -> &'static [Key] {
        KEYS
    }

    fn fields(&self) -> Vec<&'static str> {
        [fields::<ImageTable>(), fields::<Where>()].concat()
    }

    fn lower(&self, target: &Target, lower: &mut Lower<'_>) -> Result<Lowered, Problems> {
        let at = &target.table;
        // All problems count: those of the layers, of the base and of the image's own keys.
        let mut collect = Collect::default();
        let elsewhere = fields::<Where>();
        let wants = |key: &str| !elsewhere.contains(&key);
        let table = target.table.read_part(KEYS, wants, &lower.vars(target));
        let table: Option<ImageTable> = table.map_err(|it| collect.0.extend(it)).ok();
        // Packages in layers depend on the base: it comes first.
        let ground = table.as_ref().map_or_else(
            || Err(Problems::default()),
            |table| {
                let is_taken = lower.is_taken(target, table.base.get_ref());
                let ground = ground(target, lower, &table.base);
                ground.map_err(|it| if is_taken { it.may_follow() } else { it })
            },
        );
        let ground = ground.unwrap_or_else(|problems| {
            collect.0.extend(problems);
            Ground {
                failed: true,
                ..Ground::default()
            }
        });
        let entries = at.layers("layers", &lower.vars(target));
        let is_bare = entries.as_ref().is_ok_and(Vec::is_empty);
        let layers = entries.and_then(|entries| layers(target, lower, entries, &ground.below));
        let mut layers = layers.unwrap_or_else(|problems| {
            collect.0.extend(problems);
            Vec::new()
        });
        let Some(table) = table else {
            return Err(collect.0);
        };
        let (defaults, _) = lower.defaults(target).unwrap_or_else(|problems| {
            collect.0.extend(problems);
            Default::default()
        });
        if is_bare && ground.image.is_none() && !ground.failed {
            let message = format!("`{}` has no layers", target.id.name);
            let label = "from scratch, without layers";
            collect.0.push(
                at.problem("imgdecl::image::empty", table.base.span(), message, label)
                    .help("an image has at least one layer (image-spec, manifest.md): add one"),
            );
        }
        let compression = table.compression.as_ref().map(Spanned::get_ref);
        let compression = compression
            .or(defaults.compression.as_ref())
            .and_then(|name| Compression::from_name(name))
            .unwrap_or_default();
        let mut packages = ground.packages;
        let conflicts = add_packages(&layers, &mut packages);
        if !lower.is_locking {
            collect.0.extend(conflicts);
        }
        let flavour = flavour(target, lower).unwrap_or_else(|problems| {
            collect.0.extend(problems);
            Flavour::default()
        });
        if flavour == Flavour::Docker {
            let zstd = compression == Compression::Zstd && !layers.is_empty();
            for problem in not_dockers(&table, at, zstd) {
                collect.0.push(problem);
            }
        }
        let start = Start::of(&table, at);
        let edit = Edit::new(
            target,
            lower,
            table,
            &defaults,
            ground.name,
            &layers,
            &mut collect,
        );
        let edit = collect.finish(edit)?;

        let mut top = ground.top;
        let mut inputs: Vec<NodeId> = ground.image.into_iter().collect();
        let mut below = ground.layers;
        let (base, mut stacks) = (ground.base, ground.stacks);
        let own = stacks.len();
        for layer in &mut layers {
            if let Some(on_users) = &layer.on_users {
                if let Some(base) = &base {
                    base.users.want(Some(on_users.origin()), lower);
                }
                let below = UsersBelow::new(base.as_ref(), &stacks);
                layer.trees = vec![on_users.add(&below, lower)];
            }
            let (stack, written) = add_layer(layer, top, compression, lower);
            inputs.push(written);
            stacks.push(stack);
            below.push(written);
            top = Some(stack);
        }
        if let (Some(base), true) = (&base, start.has_user_name()) {
            base.users.want(None, lower);
        }
        let action = ImageAction {
            edit,
            has_base: ground.image.is_some(),
            flavour,
        };
        let image = lower.add(target, action, inputs, at.origin());
        let check = Check {
            name: lower.spec.short_name(&target.id),
            start,
            users: UsersBelow::new(base.as_ref(), &stacks),
            lacking: base.as_ref().and_then(|it| it.users.lacking()),
            layers: layers.iter().map(|it| it.label.clone()).collect(),
            below: own,
        };
        if check.has_work() {
            let inputs = [vec![image], check.users.inputs()].concat();
            lower.add(target, check, inputs, at.origin());
        }
        Ok(Lowered::Image(ImageNodes {
            image,
            top,
            layers: below,
            below: ground.below,
            packages,
            base,
            stacks,
        }))
    }
}

/// Adds the packages of layers to those that lie below. Returns which of them exclude each other.
fn add_packages(layers: &[LayerNodes], packages: &mut Vec<Arc<dyn Installed>>) -> Problems {
    let mut conflicts = Problems::default();
    for layer in layers {
        let Some(own) = &layer.packages else {
            continue;
        };
        let mut below = packages.iter().rev();
        if let Some(conflict) = below.find_map(|below| own.conflict(&**below)) {
            let Conflict {
                code,
                message,
                help,
            } = conflict;
            let problem = Problem::at(code, &layer.origin, message, "this comes second");
            conflicts.push(problem.help(help));
        }
        packages.push(own.clone());
    }
    conflicts
}

/// Adds the nodes of a layer on top of what lies below: its stack, and the layer that is written of it.
pub(super) fn add_layer(
    layer: &LayerNodes,
    below: Option<NodeId>,
    compression: Compression,
    lower: &mut Lower<'_>,
) -> (NodeId, NodeId) {
    let inputs = below.into_iter().chain(layer.trees.iter().copied());
    let (rule, name, origin) = (layer.rule, &layer.label, &layer.origin);
    let action = StackAction {
        pick: layer.pick.clone(),
        has_below: below.is_some(),
    };
    let stack = lower.add_as(rule, name.clone(), action, inputs.collect(), origin.clone());
    let action = LayerAction { compression };
    let written = lower.add_as(rule, name.clone(), action, vec![stack], origin.clone());
    (stack, written)
}

/// Says what Docker's manifests cannot hold.
fn not_dockers(table: &ImageTable, at: &Table, zstd: bool) -> Vec<Problem> {
    let mut problems = Vec::new();
    if zstd {
        let own = table.compression.as_ref().map(Spanned::span);
        let message = "Docker has no media type for layers in zstd";
        let problem = at.problem(
            "imgdecl::image::media_types",
            own.unwrap_or_else(|| at.span.clone()),
            message,
            "this image has media_types = \"docker\"",
        );
        let help = "write compression = \"gzip\", or leave media_types = \"docker\" out";
        problems.push(problem.help(help));
    }
    if let Some(annotations) = table.annotations.as_ref()
        && !annotations.get_ref().is_empty()
    {
        let problem = at.problem(
            "imgdecl::image::media_types",
            annotations.span(),
            "Docker's manifests have no annotations",
            "this image has media_types = \"docker\"",
        );
        problems.push(problem.help("write them as `labels`, which stand in the config"));
    }
    problems
}

/// A layer of an image.
pub(super) struct LayerNodes {
    trees: Vec<NodeId>,
    /// Which of the trees that one node makes.
    pick: Option<Vec<usize>>,
    rule: &'static str,
    /// The name in its own manifest, for the history.
    name: String,
    /// The name for people.
    label: String,
    origin: Origin,
    /// The packages that begin with this layer.
    packages: Option<Arc<dyn Installed>>,
    /// What makes its tree, where that depends on the users below.
    on_users: Option<Arc<dyn OnUsers>>,
}

/// What an image builds on.
pub(super) struct Ground {
    /// The base or image, whose config and layers come first.
    pub(super) image: Option<NodeId>,
    /// What layers see below them.
    pub(super) top: Option<NodeId>,
    /// The nodes whose products have the layers below.
    layers: Vec<NodeId>,
    /// The reference of an image of ours that is the base.
    name: Option<String>,
    /// Whether there is a base that could not be lowered.
    failed: bool,
    /// What it is to layers.
    pub(super) below: Below,
    /// The packages that images below have.
    packages: Vec<Arc<dyn Installed>>,
    /// The base at the bottom, if there is one.
    pub(super) base: Option<BaseNodes>,
    /// The stacks of all layers above that, bottom first.
    stacks: Vec<NodeId>,
}

impl Default for Ground {
    fn default() -> Self {
        Self {
            image: None,
            top: None,
            layers: Vec::new(),
            name: None,
            failed: false,
            below: Below::Nothing,
            packages: Vec::new(),
            base: None,
            stacks: Vec::new(),
        }
    }
}

/// Finds what a target names as its base: a base, another image, or scratch.
///
/// # Errors
/// When it is none, or closes a circle. Without problems where its own are noted.
pub(super) fn ground(
    target: &Target,
    lower: &mut Lower<'_>,
    base: &Spanned<String>,
) -> Result<Ground, Problems> {
    let at = &target.table;
    let (name, span) = (base.get_ref(), base.span());
    if name == "scratch" && lower.find(target, name).is_none() {
        return Ok(Ground::default());
    }
    let fits = |role| matches!(role, Role::Base | Role::Image);
    let id = match lower.resolve(target, name, span.clone(), fits) {
        Ok(id) => id,
        Err(problem) if crate::spec::suggest(name, ["scratch"]).is_some() => {
            return Err(problem.did_you_mean(Some("scratch")).into());
        }
        Err(problem) => return Err(problem.into()),
    };
    match lower.target(&id, target, span.clone(), &Below::Unasked)? {
        Some(Lowered::Base(base)) => Ok(Ground {
            image: Some(base.node),
            top: Some(base.node),
            layers: vec![base.node],
            below: base.below.clone(),
            base: Some(base),
            ..Ground::default()
        }),
        Some(Lowered::Image(nodes)) => {
            let name = lower
                .spec
                .target(&id)
                .and_then(|target| names(target, lower).ok())
                .and_then(|names| names.reference());
            Ok(Ground {
                image: Some(nodes.image),
                top: nodes.top,
                layers: nodes.layers,
                name,
                failed: false,
                below: nodes.below,
                packages: nodes.packages,
                base: nodes.base,
                stacks: nodes.stacks,
            })
        }
        Some(_) => {
            let rule = lower
                .spec
                .target(&id)
                .map_or("", |it| RULES[it.rule].name());
            let problem = at.problem(
                "imgdecl::image::not_a_base",
                span,
                format!("`{name}` is no base"),
                format!("a target of rule {rule}"),
            );
            Err(problem
                .help(format!("write layers = [\"{name}\"] to add it as a layer"))
                .into())
        }
        // Its own problems are noted.
        None => Err(Problems::default()),
    }
}

/// Adds the index over an image's platforms.
///
/// # Errors
/// What is wrong with the image's table.
pub(crate) fn index(
    target: &Target,
    lower: &mut Lower<'_>,
    images: Vec<NodeId>,
) -> Result<NodeId, Problems> {
    // An annotation that differs from platform to platform is for the manifests alone.
    let vars = lower.vars(target);
    let annotations = target
        .table
        .expandable("annotations", Scope::Stamped, &vars);
    Ok(lower.add(
        target,
        IndexAction {
            annotations,
            flavour: flavour(target, lower)?,
        },
        images,
        target.table.origin(),
    ))
}
