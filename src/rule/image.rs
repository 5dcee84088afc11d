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
//! | `env` | merged by name, the base's order first |
//! | `labels` | merged by name |
//! | `ports`, `volumes` | the union |
//! | `entrypoint` | replaced; and the base's `cmd` is dropped unless `cmd` is given too |
//! | `cmd`, `workdir`, `user`, `stop_signal`, `healthcheck`, `shell` | replaced where given |
//! | history | kept; one entry follows for each new layer |
//! | every other field of the base's config | kept as it is |
//! | `annotations` | not inherited; `org.opencontainers.image.base.name` and `.base.digest` are added |
//!
//! In the values of `env`, a `${NAME}` that is no variable stands for what the base has under that name.
//!
//! An image of one platform is a manifest; an image of several is an index over manifests, in the order of `platforms`.
//! `repository`, `platforms`, `compression` and `created` come from `[defaults]` where the image does not say.
//!
//! A health check is a table: `healthcheck = { test = ["CMD", "curl", "-f", "localhost"], interval = "30s" }`, with
//! `timeout`, `start_period`, `start_interval` and `retries`; `test = ["NONE"]` turns the base's off.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};
use toml::Spanned;

use super::layer::{LayerAction, StackAction};
use super::value::{Collect, fields, image_path};
use super::{Lower, Lowered, RULES, Rule};
use crate::graph::{
    Action, ActionError, Context, Image as ImageProduct, Index as IndexProduct, KeyWriter, Layer,
    NodeId, Origin, Product,
};
use crate::oci::{
    Annotations, BASE_DIGEST, BASE_NAME, Compression, Config, Descriptor, Digest,
    Index as OciIndex, Manifest, MediaType, Platform, Reference, check_tag,
};
use crate::spec::{
    Defaults, Key, LayerEntry, Part, Problems, Scope, Table, Target, TargetId, Type,
};
use crate::store::Blob;

const HEALTHCHECK: &[Key] = &[
    Key::new(
        "test",
        Type::Strings,
        "",
        "The command: [\"CMD\", …], [\"CMD-SHELL\", \"…\"], or [\"NONE\"].",
    ),
    Key::new("interval", Type::String, "", "How often, as \"30s\"."),
    Key::new("timeout", Type::String, "", "How long one run may take."),
    Key::new(
        "start_period",
        Type::String,
        "",
        "How long failures do not count after the start.",
    ),
    Key::new(
        "start_interval",
        Type::String,
        "",
        "How often in that time.",
    ),
    Key::new(
        "retries",
        Type::Integer,
        "",
        "How many failures make it unhealthy.",
    ),
];

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
        Type::Strings,
        "",
        "The program and its first arguments.",
    ),
    Key::new(
        "cmd",
        Type::Strings,
        "",
        "The arguments that a user may replace; the program, where there is no entrypoint.",
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
        "compression",
        Type::OneOf(&Compression::NAMES),
        "\"gzip\"",
        "How new layers are compressed.",
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
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    #[serde(default)]
    env: BTreeMap<Spanned<String>, Spanned<String>>,
    workdir: Option<Spanned<String>>,
    user: Option<String>,
    #[serde(default)]
    ports: Vec<Spanned<Port>>,
    #[serde(default)]
    volumes: Vec<Spanned<String>>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: Annotations,
    stop_signal: Option<String>,
    healthcheck: Option<Healthcheck>,
    shell: Option<Vec<String>>,
    platforms: Option<Vec<Spanned<String>>>,
    tags: Option<Vec<Spanned<String>>>,
    repository: Option<Spanned<String>>,
    compression: Option<String>,
    created: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Healthcheck {
    test: Vec<String>,
    interval: Option<Spanned<String>>,
    timeout: Option<Spanned<String>>,
    start_period: Option<Spanned<String>>,
    start_interval: Option<Spanned<String>>,
    retries: Option<u32>,
}

/// A port in a manifest: a number, or a string with a protocol.
struct Port(String);

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl serde::de::Visitor<'_> for Visitor {
            type Value = Port;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port, as 8000 or \"53/udp\"")
            }

            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Port, E> {
                Ok(Port(value.to_string()))
            }

            fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Port, E> {
                Ok(Port(value.to_owned()))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

impl Port {
    /// Returns `PORT/PROTOCOL`, or nothing if it is no port.
    fn full(&self) -> Option<String> {
        let (port, protocol) = self.0.split_once('/').unwrap_or((&self.0, "tcp"));
        let port: u16 = port.parse().ok().filter(|port| *port > 0)?;
        matches!(protocol, "tcp" | "udp" | "sctp").then(|| format!("{port}/{protocol}"))
    }
}

/// The nodes of an image of one platform.
#[derive(Clone, Debug)]
pub struct ImageNodes {
    /// The image.
    pub image: NodeId,
    /// What the image is like to layers above: its topmost layer's stack, or its base.
    top: Option<NodeId>,
}

pub(super) struct Image;

impl Rule for Image {
    fn name(&self) -> &'static str {
        "image"
    }

    fn summary(&self) -> &'static str {
        "an image: a base, layers, and how to run it"
    }

    fn source(&self) -> &'static str {
        include_str!("image.rs")
    }

    fn keys(&self) -> &'static [Key] {
        KEYS
    }

    fn fields(&self) -> &'static [&'static str] {
        fields::<ImageTable>()
    }

    fn lower(&self, target: &Target, lower: &mut Lower<'_>) -> Result<Lowered, Problems> {
        let at = &target.table;
        // The layers come first: their problems are found even where the image's own table is wrong.
        let entries = at.layers("layers", &lower.vars(target));
        let layers = entries.and_then(|entries| layers(target, lower, entries));
        let table: Result<ImageTable, Problems> = lower.read(target, KEYS);
        let (layers, table) = match (layers, table) {
            (Ok(layers), Ok(table)) => (layers, table),
            (Err(mut problems), Err(more)) => {
                problems.extend(more);
                return Err(problems);
            }
            (Err(problems), Ok(table)) => {
                let mut problems = problems;
                if let Err(more) = base(target, lower, &table) {
                    problems.extend(more);
                }
                return Err(problems);
            }
            (Ok(_), Err(problems)) => return Err(problems),
        };
        let mut collect = Collect::default();
        let (defaults, _) = lower.defaults(target)?;
        let below = base(target, lower, &table).unwrap_or_else(|problems| {
            collect.0.extend(problems);
            Below::default()
        });
        let compression = table
            .compression
            .as_deref()
            .or(defaults.compression.as_deref());
        let compression = compression
            .and_then(Compression::from_name)
            .unwrap_or_default();
        let edit = Edit::new(
            target,
            lower,
            table,
            &defaults,
            below.name,
            &layers,
            &mut collect,
        );
        let edit = collect.finish(edit)?;

        let mut top = below.top;
        let mut inputs: Vec<NodeId> = below.image.into_iter().collect();
        for layer in &layers {
            let stack_inputs = top.into_iter().chain(layer.trees.iter().copied()).collect();
            let (rule, name, origin) = (layer.rule, &layer.label, &layer.origin);
            let action = StackAction {
                has_below: top.is_some(),
            };
            let stack = lower.add_as(rule, name.clone(), action, stack_inputs, origin.clone());
            inputs.push(lower.add_as(
                rule,
                name.clone(),
                LayerAction { compression },
                vec![stack],
                origin.clone(),
            ));
            top = Some(stack);
        }
        let action = ImageAction {
            edit,
            has_base: below.image.is_some(),
        };
        let image = lower.add(target, action, inputs, at.origin());
        Ok(Lowered::Image(ImageNodes { image, top }))
    }
}

/// A layer of an image.
struct LayerNodes {
    trees: Vec<NodeId>,
    rule: &'static str,
    /// The name in its own manifest, for the history.
    name: String,
    /// The name for people.
    label: String,
    origin: Origin,
}

fn layers(
    target: &Target,
    lower: &mut Lower<'_>,
    entries: Vec<LayerEntry>,
) -> Result<Vec<LayerNodes>, Problems> {
    let at = &target.table;
    let mut problems = Problems::default();
    let mut layers = Vec::new();
    for (number, entry) in (1..).zip(entries) {
        let (lowered, rule, name, label, span) = match entry {
            LayerEntry::Name(name) => {
                let span = name.span();
                let found = lower.resolve(target, name.get_ref(), span.clone());
                let lowered =
                    found.and_then(|id| Ok((lower.target(&id, target, span.clone())?, id)));
                match lowered {
                    Ok((lowered, id)) => {
                        let rule = lower
                            .spec
                            .target(&id)
                            .map_or("", |it| RULES[it.rule].name());
                        let label = lower.spec.short_name(&id);
                        (lowered, rule, id.name, label, span)
                    }
                    Err(problem) => {
                        problems.push(problem);
                        continue;
                    }
                }
            }
            LayerEntry::Inline(rule, table) => {
                let Some(index) = RULES.iter().position(|it| it.name() == rule.get_ref()) else {
                    let names: Vec<&str> = RULES.iter().map(|it| it.name()).collect();
                    let near = crate::spec::suggest(rule.get_ref(), names);
                    problems.push(
                        at.problem(
                            "imgdecl::spec::unknown_rule",
                            rule.span(),
                            format!("unknown rule `{}`", rule.get_ref()),
                            "no such rule",
                        )
                        .did_you_mean(near),
                    );
                    continue;
                };
                match lower.inline(target, index, table, number) {
                    Ok(lowered) => {
                        let name = format!("{}#{number}", target.id.name);
                        let label = format!("{}#{number}", lower.spec.short_name(&target.id));
                        (Some(lowered), RULES[index].name(), name, label, rule.span())
                    }
                    Err(more) => {
                        problems.extend(more);
                        continue;
                    }
                }
            }
        };
        match lowered {
            Some(Lowered::Layer(trees)) => layers.push(LayerNodes {
                trees,
                rule,
                name,
                label,
                origin: at.place(span),
            }),
            // Its own problems are noted.
            None => {}
            Some(_) => problems.push(
                at.problem(
                    "imgdecl::image::not_a_layer",
                    span,
                    format!("`{name}` is no layer"),
                    format!("a target of rule {rule}"),
                )
                .help(match rule {
                    "base" | "image" => format!("write base = \"{name}\" to build on it"),
                    _ => "layers are made by rules such as `files`".to_owned(),
                }),
            ),
        }
    }
    if problems.is_empty() {
        Ok(layers)
    } else {
        Err(problems)
    }
}

/// What an image builds on.
#[derive(Default)]
struct Below {
    /// The base or image, whose config and layers come first.
    image: Option<NodeId>,
    /// What layers see below them.
    top: Option<NodeId>,
    /// The reference of an image of ours that is the base.
    name: Option<String>,
}

fn base(target: &Target, lower: &mut Lower<'_>, table: &ImageTable) -> Result<Below, Problems> {
    let at = &target.table;
    let (name, span) = (table.base.get_ref(), table.base.span());
    let id = match lower.resolve(target, name, span.clone()) {
        Ok(id) => id,
        Err(_) if name == "scratch" => return Ok(Below::default()),
        Err(problem) => return Err(problem.into()),
    };
    match lower.target(&id, target, span.clone())? {
        Some(Lowered::Base(node)) => Ok(Below {
            image: Some(node),
            top: Some(node),
            name: None,
        }),
        Some(Lowered::Image(nodes)) => {
            let name = lower
                .spec
                .target(&id)
                .and_then(|target| names(target, lower).ok())
                .and_then(|names| names.reference());
            Ok(Below {
                image: Some(nodes.image),
                top: nodes.top,
                name,
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

/// Where an image is kept.
#[derive(Clone, Debug)]
pub struct Names {
    /// Registry and repository, if the manifest says.
    pub repository: Option<String>,
    /// The image tags.
    pub tags: Vec<String>,
}

impl Names {
    fn reference(&self) -> Option<String> {
        let repository = self.repository.as_ref()?;
        Some(match self.tags.first() {
            Some(tag) => format!("{repository}:{tag}"),
            None => repository.clone(),
        })
    }
}

/// Returns where an image is kept.
///
/// # Errors
/// What is wrong with its repository or image tags.
pub fn names(target: &Target, lower: &Lower<'_>) -> Result<Names, Problems> {
    let at = &target.table;
    let table: ImageTable = lower.read(target, KEYS)?;
    let (defaults, from) = lower.defaults(target)?;
    let mut problems = Problems::default();
    let mut tags = Vec::new();
    for tag in table.tags.iter().flatten() {
        match check_tag(tag.get_ref()) {
            Ok(()) => tags.push(tag.get_ref().clone()),
            Err(error) => problems.push(at.problem(
                "imgdecl::image::tag",
                tag.span(),
                error.to_string(),
                "not an image tag",
            )),
        }
    }
    if table.tags.is_none() {
        tags.push("latest".to_owned());
    }
    let written = defaults_text(&from, &defaults);
    let (text, place) = match (&table.repository, &defaults.repository, &from) {
        (Some(own), _, _) => (Some(own.get_ref().clone()), at.place(own.span())),
        (None, Some(prefix), Some(from)) => {
            let text = prefix.get_ref().trim_end_matches('/');
            let full = if written {
                text.to_owned()
            } else {
                format!("{text}/{}", target.id.name)
            };
            (Some(full), from.place(prefix.span()))
        }
        _ => (None, at.origin()),
    };
    if let Some(text) = &text {
        match text.parse::<Reference>() {
            Ok(reference) if reference.tag.is_none() && reference.digest.is_none() => {}
            Ok(_) => problems.push(
                crate::spec::Problem::at(
                    "imgdecl::image::repository",
                    &place,
                    format!("`{text}` is more than a repository"),
                    "without image tag and digest",
                )
                .help("image tags go into `tags`"),
            ),
            Err(error) => problems.push(crate::spec::Problem::at(
                "imgdecl::image::repository",
                &place,
                error.to_string(),
                "not a repository",
            )),
        }
    }
    match problems.is_empty() {
        true => Ok(Names {
            repository: text,
            tags,
        }),
        false => Err(problems),
    }
}

/// Tells whether the default repository says itself where the name of the target goes.
fn defaults_text(from: &Option<Table>, defaults: &Defaults) -> bool {
    let (Some(from), Some(prefix)) = (from, &defaults.repository) else {
        return false;
    };
    from.source
        .text
        .get(prefix.span())
        .is_some_and(|text| text.contains("${target}"))
}

/// Returns the platforms of an image.
///
/// # Errors
/// What is wrong with them.
pub fn platforms(target: &Target, lower: &Lower<'_>) -> Result<Vec<Platform>, Problems> {
    let table: ImageTable = lower.read(target, KEYS)?;
    let (defaults, from) = lower.defaults(target)?;
    let (list, at) = match (&table.platforms, &defaults.platforms, &from) {
        (Some(own), _, _) => (own, &target.table),
        (None, Some(list), Some(from)) => (list, from),
        _ => return Ok(vec![Platform::new("linux", "amd64")]),
    };
    let mut platforms: Vec<Platform> = Vec::new();
    let mut problems = Problems::default();
    for text in list {
        match text.get_ref().parse::<Platform>() {
            Ok(platform) if platforms.iter().any(|it| it.matches(&platform)) => {
                problems.push(at.problem(
                    "imgdecl::image::platform",
                    text.span(),
                    format!("`{platform}` is named twice"),
                    "second",
                ));
            }
            Ok(platform) => platforms.push(platform),
            Err(error) => problems.push(at.problem(
                "imgdecl::image::platform",
                text.span(),
                error.to_string(),
                "not a platform",
            )),
        }
    }
    if platforms.is_empty() && problems.is_empty() {
        problems.push(at.problem(
            "imgdecl::image::platform",
            at.span.clone(),
            "`platforms` is empty",
            "no platform",
        ));
    }
    if problems.is_empty() {
        Ok(platforms)
    } else {
        Err(problems)
    }
}

/// Adds the index over an image's platforms.
///
/// # Errors
/// What is wrong with the image's table.
pub fn index(
    target: &Target,
    lower: &mut Lower<'_>,
    images: Vec<NodeId>,
) -> Result<NodeId, Problems> {
    let table: ImageTable = lower.read(target, KEYS)?;
    Ok(lower.add(
        target,
        IndexAction {
            annotations: table.annotations,
        },
        images,
        target.table.origin(),
    ))
}

/// Everything that an image changes in the config of its base.
struct Edit {
    platform: Platform,
    base_name: Option<String>,
    created: String,
    annotations: Annotations,
    /// Names, values, and the place for messages.
    env: Vec<(String, Vec<Part>, Origin)>,
    /// Fields that replace the base's.
    replace: BTreeMap<&'static str, Value>,
    /// Fields that are united with the base's.
    unite: BTreeMap<&'static str, BTreeMap<String, Value>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    /// What made each layer, for the history.
    created_by: Vec<String>,
}

impl Edit {
    fn new(
        target: &Target,
        lower: &Lower<'_>,
        table: ImageTable,
        defaults: &Defaults,
        base_name: Option<String>,
        layers: &[LayerNodes],
        collect: &mut Collect,
    ) -> Self {
        let at = &target.table;
        let vars = lower.vars(target);
        let mut env = Vec::new();
        for (name, value) in &table.env {
            let text = name.get_ref();
            if text.is_empty() || text.contains(['=', '\0']) {
                collect.0.push(at.problem(
                    "imgdecl::image::env",
                    name.span(),
                    format!("`{text}` is no name of a variable"),
                    "without `=`",
                ));
            }
            match vars.parts(value.get_ref(), Scope::Plain) {
                Ok(parts) => env.push((text.clone(), parts, at.place(value.span()))),
                Err((message, help)) => {
                    let problem = at.problem("imgdecl::spec::variable", value.span(), message, "");
                    collect.0.push(
                        help.into_iter()
                            .fold(problem, |problem, help| problem.help(help)),
                    );
                }
            }
        }
        let mut replace = BTreeMap::new();
        if let Some(workdir) = &table.workdir {
            let path = collect.take(image_path(at, workdir.get_ref(), workdir.span()));
            replace.insert("WorkingDir", json!(format!("/{}", path.as_str())));
        }
        let text = |value: &Option<String>| value.as_ref().map(|value| json!(value));
        let optional = [
            ("User", text(&table.user)),
            ("StopSignal", text(&table.stop_signal)),
            ("Shell", table.shell.as_ref().map(|shell| json!(shell))),
            (
                "Healthcheck",
                table
                    .healthcheck
                    .as_ref()
                    .map(|check| check.to_json(at, collect)),
            ),
        ];
        replace.extend(
            optional
                .into_iter()
                .filter_map(|(field, value)| Some((field, value?))),
        );
        let mut ports = BTreeMap::new();
        for port in &table.ports {
            match port.get_ref().full() {
                Some(full) => {
                    ports.insert(full, json!({}));
                }
                None => {
                    let message = format!("`{}` is no port", port.get_ref().0);
                    collect.0.push(at.problem(
                        "imgdecl::image::port",
                        port.span(),
                        message,
                        "expected 8000 or \"53/udp\"",
                    ));
                }
            }
        }
        let mut volumes = BTreeMap::new();
        for volume in &table.volumes {
            let path = collect.take(image_path(at, volume.get_ref(), volume.span()));
            volumes.insert(format!("/{}", path.as_str()), json!({}));
        }
        let labels = table
            .labels
            .iter()
            .map(|(name, value)| (name.clone(), json!(value)))
            .collect();
        let created = match (&table.created, &defaults.created) {
            (Some(own), _) => Some((own, at.clone())),
            (None, Some(default)) => lower
                .defaults(target)
                .ok()
                .and_then(|(_, from)| Some((default, from?))),
            _ => None,
        };
        Self {
            platform: lower
                .platform
                .clone()
                .unwrap_or_else(|| Platform::new("linux", "amd64")),
            base_name,
            created: created_at(created, target, lower, collect),
            annotations: table.annotations,
            env,
            replace,
            unite: BTreeMap::from([
                ("ExposedPorts", ports),
                ("Labels", labels),
                ("Volumes", volumes),
            ]),
            entrypoint: table.entrypoint,
            cmd: table.cmd,
            created_by: layers
                .iter()
                .map(|layer| format!("imgdecl {} {}", layer.rule, layer.name))
                .collect(),
        }
    }

    fn apply(&self, config: &mut Config) -> Result<(), ActionError> {
        let mut env = config.env();
        let base = env.clone();
        for (name, parts, origin) in &self.env {
            let mut value = String::new();
            for part in parts {
                match part {
                    Part::Text(text) => value.push_str(text),
                    Part::Base(wanted) => match base.iter().find(|(name, _)| name == wanted) {
                        Some((_, inherited)) => value.push_str(inherited),
                        None => {
                            let message = format!(
                                "`{wanted}` is no variable, and the base has none of that name in its environment"
                            );
                            return Err(ActionError::new("imgdecl::image::env", message)
                                .at(origin)
                                .help(format!("write `$${{{wanted}}}` for the text itself")));
                        }
                    },
                }
            }
            match env.iter_mut().find(|(known, _)| known == name) {
                Some((_, slot)) => *slot = value,
                None => env.push((name.clone(), value)),
            }
        }
        if !env.is_empty() {
            let list: Vec<String> = env
                .into_iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            config.set_runtime("Env", Some(json!(list)));
        }
        for (field, more) in &self.unite {
            let mut all = config
                .runtime(field)
                .and_then(Value::as_object)
                .cloned()
                .unwrap_or_default();
            all.extend(more.clone());
            if !all.is_empty() {
                config.set_runtime(field, Some(Value::Object(all)));
            }
        }
        for (field, value) in &self.replace {
            config.set_runtime(field, Some(value.clone()));
        }
        let list = |list: &[String]| (!list.is_empty()).then(|| json!(list));
        if let Some(entrypoint) = &self.entrypoint {
            config.set_runtime("Entrypoint", list(entrypoint));
            config.set_runtime("Cmd", None);
        }
        if let Some(cmd) = &self.cmd {
            config.set_runtime("Cmd", list(cmd));
        }
        Ok(())
    }
}

impl Healthcheck {
    fn to_json(&self, at: &Table, collect: &mut Collect) -> Value {
        let mut out = serde_json::Map::new();
        out.insert("Test".into(), json!(self.test));
        for (field, value) in [
            ("Interval", &self.interval),
            ("Timeout", &self.timeout),
            ("StartPeriod", &self.start_period),
            ("StartInterval", &self.start_interval),
        ] {
            let Some(value) = value else { continue };
            match humantime::parse_duration(value.get_ref()) {
                Ok(duration) => {
                    out.insert(field.into(), json!(duration.as_nanos() as u64));
                }
                Err(error) => {
                    let message = format!("`{}` is no duration: {error}", value.get_ref());
                    collect.0.push(at.problem(
                        "imgdecl::value::duration",
                        value.span(),
                        message,
                        "expected a time, as \"30s\"",
                    ));
                }
            }
        }
        if let Some(retries) = self.retries {
            out.insert("Retries".into(), json!(retries));
        }
        Value::Object(out)
    }
}

/// Returns the time of the image in RFC 3339.
fn created_at(
    created: Option<(&Spanned<String>, Table)>,
    target: &Target,
    lower: &Lower<'_>,
    collect: &mut Collect,
) -> String {
    let format = |seconds: u64| {
        let time = std::time::SystemTime::UNIX_EPOCH
            + std::time::Duration::from_secs(seconds.min(253_402_300_799));
        humantime::format_rfc3339_seconds(time).to_string()
    };
    let epoch = lower.host.source_date_epoch();
    let Some((text, at)) = created.filter(|_| epoch.is_none()) else {
        return format(epoch.unwrap_or(0));
    };
    let problem = |message: String| at.problem("imgdecl::image::created", text.span(), message, "");
    let seconds = match text.get_ref().as_str() {
        "git" => lower
            .host
            .git(&target.folder, "time")
            .and_then(|time| time.parse().map_err(|_| "git gave no time".to_owned())),
        text => humantime::parse_rfc3339(text)
            .map_err(|error| error.to_string())
            .and_then(|time| {
                time.duration_since(std::time::SystemTime::UNIX_EPOCH)
                    .map_err(|_| "it is before 1970".to_owned())
            })
            .map(|since| since.as_secs()),
    };
    match seconds {
        Ok(seconds) => format(seconds),
        Err(error) => {
            collect.0.push(
                problem(format!("`{}` is no time: {error}", text.get_ref()))
                    .help("write it as \"2026-01-31T12:00:00Z\", or \"git\""),
            );
            String::new()
        }
    }
}

/// Makes the config and the manifest of an image. Inputs: the base or image below, if any, then the layers.
struct ImageAction {
    edit: Edit,
    has_base: bool,
}

impl Action for ImageAction {
    fn name(&self) -> &'static str {
        "image"
    }

    fn parameters(&self, key: &mut dyn KeyWriter) {
        let Edit {
            platform,
            base_name,
            created,
            annotations,
            env,
            replace,
            unite,
            entrypoint,
            cmd,
            created_by,
        } = &self.edit;
        key.field("platform", &platform.to_string());
        key.field("base name", base_name.as_deref().unwrap_or("-"));
        key.field("created", created);
        for (name, value) in annotations {
            key.field("annotation", &format!("{name}={value}"));
        }
        for (name, parts, _) in env {
            key.field("env", &format!("{name}={parts:?}"));
        }
        for (field, value) in replace {
            key.field(field, &value.to_string());
        }
        for (field, values) in unite {
            for (name, value) in values {
                key.field(field, &format!("{name}={value}"));
            }
        }
        key.field("entrypoint", &format!("{entrypoint:?}"));
        key.field("cmd", &format!("{cmd:?}"));
        for created_by in created_by {
            key.field("created by", created_by);
        }
    }

    fn run(&self, context: &Context<'_>, inputs: &[Product]) -> Result<Product, ActionError> {
        let (below, above) = inputs.split_at(usize::from(self.has_base));
        let read = |blob: &Blob| -> Result<Config, ActionError> {
            let bytes = context.store.read_blob(blob)?;
            Config::parse(&bytes).map_err(|error| ActionError::of("imgdecl::image::config", &error))
        };
        let mut annotations = Annotations::new();
        let mut from = |name: &Option<String>, digest: Option<Digest>| {
            let digest = digest.map(|digest| digest.to_string());
            let known = [(BASE_NAME, name.clone()), (BASE_DIGEST, digest)];
            annotations.extend(
                known
                    .into_iter()
                    .filter_map(|(key, value)| Some((key.to_owned(), value?))),
            );
        };
        let (mut config, mut layers) = match below {
            [Product::Base(base)] => {
                from(&base.name, base.digest);
                (read(&base.config)?, base.layers.clone())
            }
            [Product::Image(image)] => {
                from(&self.edit.base_name, Some(image.manifest.digest));
                (read(&image.config)?, image.layers.clone())
            }
            _ => (Config::scratch(&self.edit.platform), Vec::new()),
        };
        annotations.extend(self.edit.annotations.clone());
        self.edit.apply(&mut config)?;
        let mut history = config.history();
        let new = above.iter().filter_map(|product| match product {
            Product::Layer(layer) => Some(layer.clone()),
            _ => None,
        });
        for (layer, created_by) in new.zip(&self.edit.created_by) {
            history.push(json!({"created": self.edit.created, "created_by": created_by}));
            layers.push(layer);
        }
        let diff_ids: Vec<_> = layers.iter().map(|layer: &Layer| layer.diff_id).collect();
        config.set_diff_ids(&diff_ids);
        config.set_history(history);
        config.set_created(&self.edit.created);
        let platform = config
            .platform()
            .map_err(|error| ActionError::of("imgdecl::image::config", &error))?;

        let config = context.store.put_blob(&config.to_bytes())?;
        let descriptor = Descriptor::new(MediaType::OciConfig, config.digest, config.size);
        let descriptors = layers
            .iter()
            .map(|layer| layer.descriptor.clone())
            .collect();
        let manifest = context
            .store
            .put_blob(&Manifest::new(descriptor, descriptors, annotations).to_bytes())?;
        Ok(Product::Image(Arc::new(ImageProduct {
            manifest: Descriptor {
                platform: Some(platform),
                ..Descriptor::new(MediaType::OciManifest, manifest.digest, manifest.size)
            },
            config,
            layers,
        })))
    }
}

/// Makes the index over an image's platforms.
struct IndexAction {
    annotations: Annotations,
}

impl Action for IndexAction {
    fn name(&self) -> &'static str {
        "index"
    }

    fn parameters(&self, key: &mut dyn KeyWriter) {
        for (name, value) in &self.annotations {
            key.field("annotation", &format!("{name}={value}"));
        }
    }

    fn run(&self, context: &Context<'_>, inputs: &[Product]) -> Result<Product, ActionError> {
        let images: Vec<ImageProduct> = inputs
            .iter()
            .filter_map(|product| match product {
                Product::Image(image) => Some(ImageProduct::clone(image)),
                _ => None,
            })
            .collect();
        let manifests = images.iter().map(|image| image.manifest.clone()).collect();
        let index = context
            .store
            .put_blob(&OciIndex::new(manifests, self.annotations.clone()).to_bytes())?;
        let descriptor = Descriptor::new(MediaType::OciIndex, index.digest, index.size);
        Ok(Product::Index(Arc::new(IndexProduct {
            descriptor,
            images,
        })))
    }
}

/// The names of the images that a target stands for.
///
/// # Errors
/// When it stands for none.
pub fn images(id: &TargetId, lower: &mut Lower<'_>) -> Result<Vec<TargetId>, &'static str> {
    let rule = lower
        .spec
        .target(id)
        .map_or("", |target| RULES[target.rule].name());
    match rule {
        "image" => Ok(vec![id.clone()]),
        "group" => match lower.lower(id) {
            Some(Lowered::Group(images)) => Ok(images),
            _ => Ok(Vec::new()),
        },
        other => Err(other),
    }
}
