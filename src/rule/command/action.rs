//! Runs a command in its image, and takes what it made.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::graph::{
    Action, ActionError, Base, Command, CommandLimits, Context, End, KeyWriter, Layer, Origin,
    Product, TreeProduct,
};
use crate::layer::{Attrs, Entry, Kind, LayerPath, Owner, Tree, quoted};
use crate::oci::{Config, DiffId, Digest};
use crate::rule::base::fetch_bytes;
use crate::store::Blob;

/// How many of the last lines that a command said are shown where it fails.
const LINES: usize = 40;

/// Runs a command. Its inputs are an image or a base, the base at its bottom where that is another one, and layers.
pub(super) struct Run {
    /// The program and its arguments.
    pub(super) args: Vec<String>,
    /// Whether they are a script for a shell, which no message repeats.
    pub(super) is_script: bool,
    /// The variables beside those of the image, sorted.
    pub(super) env: Vec<(String, String)>,
    /// The folder that it starts in, if not the image's.
    pub(super) workdir: Option<String>,
    /// Who it runs as.
    pub(super) user: String,
    /// What is wanted: path where it was made, and path in the image.
    pub(super) outputs: BTreeMap<LayerPath, LayerPath>,
    /// Whose all of it is in the image.
    pub(super) owner: Owner,
    /// How long it may take.
    pub(super) timeout: Duration,
    /// The most bytes of memory.
    pub(super) memory: Option<u64>,
    pub(super) origin: Origin,
}

/// The root that a command runs in.
struct Root {
    config: Blob,
    layers: Vec<Layer>,
    /// The base whose layers may be in its registry alone.
    base: Option<Arc<Base>>,
}

impl Root {
    /// Finds the root among the inputs of a command.
    fn of(inputs: &[Product]) -> Option<Self> {
        let (first, rest) = inputs.split_first()?;
        let mut root = match first {
            Product::Base(base) => Self {
                config: base.config,
                layers: base.layers.clone(),
                base: Some(base.clone()),
            },
            Product::Image(image) => Self {
                config: image.config,
                layers: image.layers.clone(),
                base: None,
            },
            _ => return None,
        };
        for input in rest {
            match input {
                Product::Base(base) => root.base = Some(base.clone()),
                Product::Layer(layer) => root.layers.push(layer.clone()),
                _ => return None,
            }
        }
        Some(root)
    }

    /// Returns the layers that are in the cache, or can be made again: all but those of a base in a registry.
    fn own(&self) -> Vec<Blob> {
        let remote = self.base.iter().filter(|base| base.remote.is_some());
        let remote: BTreeSet<Digest> = remote
            .flat_map(|base| &base.layers)
            .map(|layer| layer.descriptor.digest)
            .collect();
        let layers = self.layers.iter();
        let own = layers.filter(|it| !remote.contains(&it.descriptor.digest));
        own.map(Layer::blob).collect()
    }
}

impl Action for Run {
    fn name(&self) -> &'static str {
        "command"
    }

    fn parameters(&self, key: &mut dyn KeyWriter) {
        key.list("run", self.args.iter().map(|it| quoted(it)));
        for (name, value) in &self.env {
            key.field("env", &format!("{}={}", quoted(name), quoted(value)));
        }
        key.field("workdir", self.workdir.as_deref().unwrap_or("the image's"));
        key.field("user", &self.user);
        for (from, to) in &self.outputs {
            key.field(
                "output",
                &format!("{} {}", quoted(from.as_str()), quoted(to.as_str())),
            );
        }
        key.field("owner", &self.owner.key_text());
    }

    fn reads(&self, inputs: &[Product]) -> Vec<Blob> {
        Root::of(inputs).map_or(Vec::new(), |root| root.own())
    }

    fn run(&self, context: &Context<'_>, inputs: &[Product]) -> Result<Product, ActionError> {
        let root = Root::of(inputs);
        let root = root.ok_or_else(|| ActionError::bug("a command takes an image and layers"))?;
        if let Some(base) = &root.base {
            fetch_bytes(base, context).map_err(|error| error.at(&self.origin))?;
        }
        let config = Config::parse(&context.read(&root.config)?);
        let mut config = config
            .map_err(|error| ActionError::of("imgdecl::image::config", &error).at(&self.origin))?;
        let diff_ids: Vec<DiffId> = root.layers.iter().map(|it| it.diff_id).collect();
        config.set_diff_ids(&diff_ids);
        let wanted: BTreeSet<LayerPath> = self.outputs.keys().cloned().collect();
        let command = Command {
            config: &config,
            layers: &root.layers,
            args: &self.args,
            env: &self.env,
            workdir: self.workdir.as_deref(),
            user: Some(&self.user),
            limits: CommandLimits {
                time: self.timeout,
                memory: self.memory,
                ..CommandLimits::default()
            },
            outputs: Some(&wanted),
            keep_mtime: false,
        };
        let mut contents = context.store.writer()?;
        let ran = context.ports.runner.run(&command, &mut contents, context);
        let ran = ran.map_err(|error| error.at(&self.origin))?;
        let Some(make) = ran.tree else {
            return Err(self.failed(ran.end, &ran.words));
        };
        let contents = contents.complete()?;
        let path: Arc<Path> = context.store.local_path(&contents.digest).into();
        let made = make(&path)
            .map_err(|clash| ActionError::new("imgdecl::layer::clash", clash.to_string()))?;
        for line in &ran.left_out {
            (context.note)(&format!("warning: {}: no layer holds {line}", self.label()));
        }
        let tree = self.placed(&made, context)?;
        Ok(Product::Tree(TreeProduct::keep(
            tree,
            contents,
            "",
            context.store,
        )?))
    }
}

impl Run {
    /// Returns what people call the command.
    fn label(&self) -> String {
        match self.is_script {
            true => "the script".to_owned(),
            false => format!("`{}`", self.args.join(" ")),
        }
    }

    /// Says how the command ended, with the last of what it said.
    fn failed(&self, end: End, words: &str) -> ActionError {
        let label = self.label();
        let (message, help) = match end {
            End::Exited(127) => (
                format!("{label} ended with exit code 127: there is no such program"),
                "install it in the image, or name it by its path",
            ),
            End::Exited(code) if code > 128 => (
                format!("{label} was ended by signal {}", code - 128),
                "see what it said",
            ),
            End::Exited(code) => (
                format!("{label} ended with exit code {code}"),
                "there is no network, and nothing of this machine: what it needs comes by `image` and `inputs`",
            ),
            End::OutOfMemory => (
                format!("{label} was killed: it took more memory than it may"),
                "raise `memory`, or take it out",
            ),
            End::Late => (
                format!(
                    "{label} was killed: it took longer than {}",
                    humantime::format_duration(self.timeout)
                ),
                "raise `timeout`, as timeout = \"1h\"",
            ),
        };
        let mut error = ActionError::new("imgdecl::command::failed", message)
            .at(&self.origin)
            .help(help);
        let lines: Vec<&str> = words.trim_end().lines().collect();
        let last = &lines[lines.len().saturating_sub(LINES)..];
        if !last.is_empty() {
            error.causes = vec![format!("it said:\n{}", last.join("\n"))];
        }
        error
    }

    /// Puts what was made to where it goes.
    fn placed(&self, made: &Tree, context: &Context<'_>) -> Result<Tree, ActionError> {
        let mut tree = Tree::default();
        for (from, to) in &self.outputs {
            let mut is_there = false;
            for (path, entry) in made.entries() {
                let Some(place) = moved(path, from, to) else {
                    continue;
                };
                is_there = true;
                // A folder of the output that becomes the root of the image brings what is in it.
                if place.is_root() {
                    continue;
                }
                let entry = self.owned(entry, path, (from, to), context)?;
                tree.insert(place, entry).map_err(|clash| {
                    ActionError::new("imgdecl::layer::clash", clash.to_string()).at(&self.origin)
                })?;
            }
            if !is_there {
                return Err(self.missing(from, made));
            }
        }
        Ok(tree)
    }

    /// Says that an output is not there.
    fn missing(&self, from: &LayerPath, made: &Tree) -> ActionError {
        let message = format!("{} made no /{from}", self.label());
        let mut above = from.parent();
        let mut help = "name what it makes in `outputs`".to_owned();
        while let Some(path) = above {
            if let Some(Kind::Symlink { target, .. }) = made.entries().get(&path).map(|it| &it.kind)
            {
                help = format!("/{path} is a symlink to {target}: name the real path");
                break;
            }
            above = path.parent();
        }
        ActionError::new("imgdecl::command::no_output", message)
            .at(&self.origin)
            .help(help)
    }

    /// Returns an entry as it goes into the image.
    fn owned(
        &self,
        entry: &Entry,
        path: &LayerPath,
        (from, to): (&LayerPath, &LayerPath),
        context: &Context<'_>,
    ) -> Result<Entry, ActionError> {
        let mut entry = entry.clone();
        let own = |attrs: &mut Attrs| attrs.owner = self.owner;
        match &mut entry.kind {
            Kind::Folder { attrs, firm } => {
                own(attrs);
                // The folder that an output becomes may be there; its own attributes are not what was asked for.
                *firm = path != from;
            }
            Kind::File { attrs, .. } => own(attrs),
            Kind::Symlink { target, owner } => {
                *owner = self.owner;
                if leads_out(path, target, from) {
                    (context.note)(&format!(
                        "warning: {}: the symlink /{path} leads to {target}, out of /{from}",
                        self.label()
                    ));
                }
            }
            Kind::Hardlink { target, attrs } => {
                own(attrs);
                let place = self
                    .outputs
                    .iter()
                    .chain([(from, to)])
                    .find_map(|(from, to)| moved(target, from, to));
                *target = place.ok_or_else(|| ActionError::bug("a link out of all outputs"))?;
            }
        }
        Ok(entry)
    }
}

/// Returns where a path goes that was made at `from` or below; `None` where it was made elsewhere.
fn moved(path: &LayerPath, from: &LayerPath, to: &LayerPath) -> Option<LayerPath> {
    if path == from {
        return Some(to.clone());
    }
    let rest = path.is_within(from).then(|| path.as_str())?;
    let rest = rest.strip_prefix(from.as_str())?.strip_prefix('/')?;
    to.join(rest).ok()
}

/// Tells whether a symlink leads out of the folder `from` that it lies in. An absolute one does, wherever it leads.
fn leads_out(path: &LayerPath, target: &str, from: &LayerPath) -> bool {
    if target.starts_with('/') {
        return true;
    }
    let mut at: Vec<&str> = path.as_str().split('/').collect();
    at.pop();
    let top = from.as_str().split('/').count();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                at.pop();
                if at.len() < top {
                    return true;
                }
            }
            name => at.push(name),
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> LayerPath {
        LayerPath::parse(text).unwrap()
    }

    #[test]
    fn paths_move_with_their_output() {
        let moved = |it: &str| moved(&path(it), &path("/src/dist"), &path("/srv"));
        assert_eq!(moved("/src/dist"), Some(path("/srv")));
        assert_eq!(moved("/src/dist/a/b"), Some(path("/srv/a/b")));
        assert_eq!(moved("/src/distant"), None);
        assert_eq!(moved("/src"), None);
    }

    #[test]
    fn links_lead_out_or_do_not() {
        let leads_out = |at: &str, target: &str| leads_out(&path(at), target, &path("/src/dist"));
        for target in ["b", "./b", "../dist/b", "c/../b"] {
            assert_eq!(
                leads_out("/src/dist/a", target),
                target == "../dist/b",
                "{target}"
            );
        }
        assert!(!leads_out("/src/dist/a/b", "../c"));
        assert!(leads_out("/src/dist/a/b", "../../c"));
        assert!(leads_out("/src/dist/a", "/src/dist/b"));
    }
}
