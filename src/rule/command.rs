//! A step of one's own: a command runs in an image, sealed off, and what it makes becomes a layer.
//!
//! ```toml
//! [command.site]
//! image   = "node"
//! inputs  = [{ files = { src = "web", dest = "/src" } }]
//! workdir = "/src"
//! run     = ["npm", "run", "build"]
//! env     = { NODE_ENV = "production" }
//! outputs = { "/src/dist" = "/srv/www" }
//!
//! [command.version]
//! image   = "node"
//! script  = """
//! node --version > /out/version
//! """
//! outputs = { "/out" = "/etc/node" }
//! ```
//!
//! The root of the command is the `image`, which is a base or an image of the workspace, with the layers of `inputs` on top:
//! the names of layers, or tables with one rule, as in an image. Nothing else of this machine is there: no network, no
//! folders, no devices. `run` is a list of words, or one string that is split into words as a shell would; `script` is for
//! the shell of the image, `/bin/sh -eu`.
//!
//! What lies at the paths of `outputs` when the command has ended becomes the layer, each at the path in the image that
//! follows its `=`: folders with all that is in them, or single files. All else that the command wrote is dropped. Modes are
//! kept; times and owners are not: all is owned by `owner`. A symlink that leads out of its output is told, and so is what no
//! layer can hold, as a socket. An output that is not there is an error, and so is a command that ends with another code than
//! 0: then the last of what it said is shown.
//!
//! The command has the variables of the image and those of `env`, and these, unless they are set there:
//! `SOURCE_DATE_EPOCH=315532800` (1980, the first time that a zip can hold), `TZ=UTC`, `LC_ALL=C.UTF-8`, `PYTHONHASHSEED=0`,
//! `HOME=/tmp`. `PATH` is the image's. The host is called `build`, files are made with the umask 022, and the user is
//! root unless `user` says another. So the same input should give the same output; `imgdecl verify` runs each command
//! again and compares.
//!
//! A command runs when its image, its inputs or its table have changed, and else never: its layer is remembered. A machine
//! needs runc or crun to run one; without root, the user namespaces of the kernel. `platform = "host"` runs it once, in the
//! image for the platform of this machine, for what is the same on all platforms, such as a bundle of scripts; that image must
//! have the platform. `platform` may also be one by its name, as "linux/amd64". For another platform than the machine's, the
//! kernel must know how to run its programs (binfmt_misc, as by the package qemu-user-static).

mod action;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::image::{add_layer, ground, layers};
use super::value::{Collect, fields, image_path, owner};
use super::{Lower, Lowered, Role, Rule};
use crate::graph::NodeId;
use crate::layer::LayerPath;
use crate::oci::{Compression, Platform};
use crate::spec::{Key, Problems, Table, Target, Type, Words};
use action::Run;

const KEYS: &[Key] = &[
    Key::new(
        "image",
        Type::String,
        "",
        "Where it runs: the name of a base or of an image.",
    ),
    Key::new(
        "inputs",
        Type::Layers,
        "[]",
        "The layers on top of it, bottom first: names, or tables with one rule.",
    ),
    Key::new(
        "run",
        Type::Words,
        "",
        "The program and its arguments. A string is split into words as a shell would, and no shell runs.",
    ),
    Key::new(
        "script",
        Type::String,
        "",
        "A script for the image's /bin/sh -eu, in place of `run`.",
    ),
    Key::new(
        "env",
        Type::StringMap,
        "{}",
        "Variables beside those of the image.",
    ),
    Key::new(
        "workdir",
        Type::String,
        "",
        "The folder that it starts in. That of the image, if nothing is said.",
    ),
    Key::new(
        "user",
        Type::String,
        "\"0:0\"",
        "Who it runs as: name or number, with an optional group after a colon.",
    ),
    Key::new(
        "outputs",
        Type::StringMap,
        "",
        "What becomes the layer: path where it was made = path in the image.",
    ),
    Key::new(
        "owner",
        Type::String,
        "\"0:0\"",
        "The numeric owner of all entries, as UID:GID.",
    ),
    Key::new(
        "platform",
        Type::String,
        "\"target\"",
        "For which platform it runs: \"target\", the image's own; \"host\", once for all; or one by its name.",
    ),
    Key::new(
        "timeout",
        Type::String,
        "\"10m\"",
        "How long it may take, as \"30m\".",
    ),
    Key::new(
        "memory",
        Type::String,
        "",
        "The most memory that it may take, as \"2GiB\". As much as there is, if nothing is said.",
    ),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CommandTable {
    image: Spanned<String>,
    run: Option<Words>,
    script: Option<Spanned<String>>,
    #[serde(default)]
    env: BTreeMap<Spanned<String>, String>,
    workdir: Option<Spanned<String>>,
    user: Option<String>,
    outputs: BTreeMap<Spanned<String>, Spanned<String>>,
    owner: Option<Spanned<String>>,
    platform: Option<Spanned<String>>,
    timeout: Option<Spanned<String>>,
    memory: Option<Spanned<String>>,
}

/// How long a command may take where nothing is said.
const TIMEOUT: Duration = Duration::from_secs(600);

/// The variables that every command has, so that the same input gives the same output.
const ENV: [(&str, &str); 5] = [
    ("SOURCE_DATE_EPOCH", "315532800"),
    ("TZ", "UTC"),
    ("LC_ALL", "C.UTF-8"),
    ("PYTHONHASHSEED", "0"),
    ("HOME", "/tmp"),
];

/// The commands that were lowered for a platform, which all platforms of an image share where it is the host's.
type Shared = BTreeMap<(String, Platform), NodeId>;

pub(super) struct Command;

impl Rule for Command {
    fn name(&self) -> &'static str {
        "command"
    }

    fn role(&self) -> Role {
        Role::Layer
    }

    fn summary(&self) -> &'static str {
        "a layer that a command makes"
    }

    fn source(&self) -> &'static str {
        include_str!("command.rs")
    }

    fn keys(&self) -> &'static [Key] {
        KEYS
    }

    fn fields(&self) -> Vec<&'static str> {
        fields::<CommandTable>().to_vec()
    }

    fn lower(&self, target: &Target, lower: &mut Lower<'_>) -> Result<Lowered, Problems> {
        let wants = |key: &str| key != "inputs";
        let vars = lower.vars(target);
        let table: CommandTable = target.table.read_part(KEYS, wants, &vars)?;
        let at = &target.table;
        let mut collect = Collect::default();
        let own = lower.platform().cloned();
        let own = own.unwrap_or_else(|| Platform::new("linux", "amd64"));
        let platform = platform(&table, at, own, lower, &mut collect);
        let run = run(target, &table, &mut collect);
        let run = collect.finish(run)?;
        let key = (target.id.to_string(), platform.clone());
        if let Some(node) = lower.kept::<Shared>().get(&key) {
            return Ok(Lowered::Layer(vec![*node]));
        }
        let mut lower = lower.onto_platform(&platform);
        let node = add(target, &mut lower, &table, run)?;
        lower.kept::<Shared>().insert(key, node);
        Ok(Lowered::Layer(vec![node]))
    }
}

/// Adds the nodes of a command: its image, its inputs, and the command itself.
fn add(
    target: &Target,
    lower: &mut Lower<'_>,
    table: &CommandTable,
    run: Run,
) -> Result<NodeId, Problems> {
    let at = &target.table;
    let mut problems = Problems::default();
    let ground = ground(target, lower, &table.image).unwrap_or_else(|more| {
        problems.extend(more);
        Default::default()
    });
    let entries = at.layers("inputs", &lower.vars(target));
    let inputs = entries.and_then(|entries| layers(target, lower, entries, &ground.below));
    let inputs = inputs.unwrap_or_else(|more| {
        problems.extend(more);
        Vec::new()
    });
    let (Some(image), true) = (ground.image, problems.is_empty()) else {
        if problems.is_empty() && table.image.get_ref() == "scratch" {
            let message = "nothing can run in `scratch`";
            let label = "there is no program in it";
            let problem = at.problem(
                "imgdecl::command::image",
                table.image.span(),
                message,
                label,
            );
            problems.push(problem.help("name a base, or an image that has what the command needs"));
        }
        return Err(problems);
    };
    let bottom = ground.base.as_ref().map(|it| it.node);
    let bottom = bottom.filter(|it| *it != image);
    let mut top = ground.top;
    let mut nodes = vec![image];
    nodes.extend(bottom);
    for input in &inputs {
        // Nobody keeps them: packing them would be in vain.
        let (stack, written) = add_layer(input, top, Compression::None, lower);
        nodes.push(written);
        top = Some(stack);
    }
    Ok(lower.add(target, run, nodes, at.origin()))
}

/// Reads what is run, and what is wanted of it.
fn run(target: &Target, table: &CommandTable, collect: &mut Collect) -> Run {
    let at = &target.table;
    let args = match (&table.run, &table.script) {
        (Some(words), None) => words.0.clone(),
        (None, Some(script)) => ["/bin/sh", "-euc", script.get_ref()]
            .map(str::to_owned)
            .to_vec(),
        (both, _) => {
            let (message, label) = match both {
                Some(_) => (
                    "`run` and `script` are two commands",
                    "one of them is enough",
                ),
                None => ("nothing says what is run", "no `run`, no `script`"),
            };
            let problem = at.problem("imgdecl::command::run", at.span.clone(), message, label);
            let help =
                "write run = [\"npm\", \"run\", \"build\"], or a `script` for the image's shell";
            collect.0.push(problem.help(help));
            Vec::new()
        }
    };
    if table.run.is_some() && args.is_empty() && table.script.is_none() {
        let (message, label) = ("`run` is empty", "no program");
        let problem = at.problem("imgdecl::command::run", at.span.clone(), message, label);
        collect
            .0
            .push(problem.help("its first word is the program"));
    }
    let mut env: BTreeMap<String, String> = ENV
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    for (name, value) in &table.env {
        let text = name.get_ref();
        if text.is_empty() || text.contains(['=', '\0']) {
            let message = format!("`{text}` is no name of a variable");
            let code = "imgdecl::image::env";
            collect
                .0
                .push(at.problem(code, name.span(), message, "without `=`"));
        }
        env.insert(text.clone(), value.clone());
    }
    let owner_of = |value| owner(at, value);
    Run {
        args,
        is_script: table.script.is_some(),
        env: env.into_iter().collect(),
        workdir: table.workdir.as_ref().map(|it| {
            let path = collect.take(image_path(at, it.get_ref(), it.span()));
            format!("/{path}")
        }),
        user: table.user.clone().unwrap_or_else(|| "0:0".to_owned()),
        outputs: outputs(table, at, collect),
        owner: match &table.owner {
            Some(value) => collect.take(owner_of(value)),
            None => crate::layer::Owner::default(),
        },
        timeout: timeout(table, at, collect),
        memory: memory(table, at, collect),
        origin: at.origin(),
    }
}

/// Reads what is wanted of a command: path where it was made, and path in the image.
fn outputs(
    table: &CommandTable,
    at: &Table,
    collect: &mut Collect,
) -> BTreeMap<LayerPath, LayerPath> {
    let code = "imgdecl::command::outputs";
    let mut outputs = BTreeMap::new();
    let mut places = BTreeSet::new();
    for (from, to) in &table.outputs {
        let span = from.span();
        let made = image_path(at, from.get_ref(), span.clone());
        let place = image_path(at, to.get_ref(), to.span());
        let (made, place) = match (made, place) {
            (Ok(made), Ok(place)) => (made, place),
            (made, place) => {
                let wrong = made.err().into_iter().chain(place.err());
                wrong.for_each(|it| collect.0.push(it));
                continue;
            }
        };
        if made.is_root() {
            let problem = at.problem(code, span, "the whole root is no output", "not all of it");
            collect
                .0
                .push(problem.help("name the folders and files that the command makes"));
            continue;
        }
        let around = outputs
            .keys()
            .find(|it: &&LayerPath| it.is_within(&made) || made.is_within(it));
        if let Some(around) = around {
            let message = format!("`/{made}` and `/{around}` lie one in the other");
            collect.0.push(
                at.problem(code, span, message, "twice")
                    .help("name the outer one alone, or two folders beside each other"),
            );
            continue;
        }
        if !places.insert(place.clone()) {
            let message = format!("two outputs become `/{place}`");
            collect
                .0
                .push(at.problem(code, to.span(), message, "second"));
        }
        outputs.insert(made, place);
    }
    if table.outputs.is_empty() {
        let message = "the command has no outputs";
        let problem = at.problem(
            code,
            at.span.clone(),
            message,
            "nothing would be in the layer",
        );
        collect
            .0
            .push(problem.help("write outputs = { \"/where/it/is/made\" = \"/where/it/goes\" }"));
    }
    outputs
}

/// Reads for which platform it runs.
fn platform(
    table: &CommandTable,
    at: &Table,
    own: Platform,
    lower: &Lower<'_>,
    collect: &mut Collect,
) -> Platform {
    let Some(value) = &table.platform else {
        return own;
    };
    match value.get_ref().as_str() {
        "target" => own,
        "host" => lower.host.platform(),
        name => match name.parse::<Platform>() {
            Ok(platform) => platform,
            Err(_) => {
                let message = format!("`{name}` is no platform");
                let label = "expected \"target\", \"host\", or one as \"linux/amd64\"";
                let code = "imgdecl::image::platform";
                collect
                    .0
                    .push(at.problem(code, value.span(), message, label));
                own
            }
        },
    }
}

/// Reads how long it may take.
fn timeout(table: &CommandTable, at: &Table, collect: &mut Collect) -> Duration {
    let Some(value) = &table.timeout else {
        return TIMEOUT;
    };
    match humantime::parse_duration(value.get_ref()) {
        Ok(time) if !time.is_zero() => time,
        _ => {
            let message = format!("`{}` is no duration", value.get_ref());
            let (code, label) = ("imgdecl::value::duration", "expected a time, as \"30m\"");
            collect
                .0
                .push(at.problem(code, value.span(), message, label));
            TIMEOUT
        }
    }
}

/// Reads how much memory it may take, in bytes.
fn memory(table: &CommandTable, at: &Table, collect: &mut Collect) -> Option<u64> {
    let value = table.memory.as_ref()?;
    let text = value.get_ref().trim();
    let digits = text.trim_end_matches(|it: char| it.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "" | "B" => Some(1),
        "KiB" | "K" | "k" => Some(1 << 10),
        "MiB" | "M" | "m" => Some(1 << 20),
        "GiB" | "G" | "g" => Some(1 << 30),
        _ => None,
    };
    let number = digits.trim().parse::<u64>().ok().zip(factor);
    let bytes = number.and_then(|(number, factor): (u64, u64)| number.checked_mul(factor));
    if bytes.is_none_or(|it| it == 0) {
        let message = format!("`{text}` is no amount of memory");
        let (code, label) = ("imgdecl::command::memory", "expected bytes, as \"2GiB\"");
        collect
            .0
            .push(at.problem(code, value.span(), message, label));
        return None;
    }
    bytes
}
