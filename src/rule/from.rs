//! Files out of another image: what the key `from` of the rule `files` becomes. The layers of a base or an image are merged as a
//! runtime would show them, and what was asked for becomes a tree. Knows nothing of how layers are fetched.

mod layers;
mod merge;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use toml::Spanned;

use super::patterns::Patterns;
use super::scan::explain_clash;
use super::value::{Collect, image_path, mode, owner};
use super::{Lower, Lowered, RULES, Role, platforms};
use crate::graph::{
    Action, ActionError, Context, KeyWriter, Lane, NodeId, Origin, Product, TreeProduct,
};
use crate::layer::{
    Attrs, Clash, Content, ContentAt, Entry, Item, ItemKind, Kind, LayerPath, Merged, Owner,
    Source, Tree,
};
use crate::rule::Below;
use crate::spec::{Problem, Target, suggest};
use crate::store::Blob;
use layers::Layers;
use merge::Merge;

/// How many names of a folder a message lists.
const LISTED: usize = 8;

/// What a table of the rule `files` says about a tree out of another image.
pub(super) struct FromTable {
    /// The base or image.
    pub(super) from: Spanned<String>,
    pub(super) src: Option<Spanned<String>>,
    pub(super) dest: Option<Spanned<String>>,
    pub(super) include: Option<Vec<Spanned<String>>>,
    pub(super) exclude: Vec<Spanned<String>>,
    /// Where ignore files are spoken of: there are none in an image.
    pub(super) ignore: Option<Range<usize>>,
    pub(super) allow_empty: bool,
    pub(super) owner: Option<Spanned<String>>,
    pub(super) mode: Option<Spanned<String>>,
    pub(super) mtime: i64,
    pub(super) replace: bool,
}

/// The word that keeps the owners that the image has: the default, as `COPY --from` has it.
pub(super) const KEEP: &str = "keep";

/// Returns the node of all these trees together; there is at least one.
pub(super) fn merged(target: &Target, nodes: Vec<NodeId>, lower: &mut Lower<'_>) -> NodeId {
    match nodes[..] {
        [one] => one,
        _ => {
            let origin = target.table.origin();
            lower.add(target, Merge(origin.clone()), nodes, origin)
        }
    }
}

/// Adds the nodes of a tree out of another image.
///
/// # Errors
/// When its target's problems are noted, or nothing can be lowered from what is written.
pub(super) fn lower(
    target: &Target,
    table: FromTable,
    lower: &mut Lower<'_>,
    collect: &mut Collect,
) -> Option<NodeId> {
    let at = &target.table;
    let nodes = image(target, &table.from, lower);
    let nodes = nodes.map_err(|it| collect.0.push(it)).ok().flatten();
    if let Some(span) = table.ignore {
        let message = "ignore files are of the host: an image of `from` has none";
        let problem = at.problem("imgdecl::files::ignore", span, message, "not needed");
        collect
            .0
            .push(problem.help("`exclude` leaves out what is not wanted"));
    }
    let Some(src) = &table.src else {
        let message = "`from` needs `src`: what to take out of the image";
        let problem = at.problem(
            "imgdecl::files::no_src",
            table.from.span(),
            message,
            "nothing says what to take",
        );
        collect
            .0
            .push(problem.help("write src = \"/PATH\"; src = \"/\" is all of it"));
        return None;
    };
    let path = image_path(at, src.get_ref(), src.span());
    let dest = table.dest.as_ref();
    let kept = |it: &&Spanned<String>| it.get_ref() != KEEP;
    let take = Take {
        image: table.from.get_ref().clone(),
        text: src.get_ref().clone(),
        src: collect.take(path),
        origin: at.place(src.span()),
        dest: dest
            .map(|it| collect.take(image_path(at, it.get_ref(), it.span())))
            .unwrap_or_default(),
        into: dest.is_none_or(|it| it.get_ref().ends_with('/')),
        include: table
            .include
            .as_ref()
            .map(|list| Patterns::new(at, list, collect)),
        exclude: Patterns::new(at, &table.exclude, collect),
        allow_empty: table.allow_empty,
        owner: table
            .owner
            .as_ref()
            .filter(kept)
            .map(|it| collect.take(owner(at, it))),
        mode: table.mode.as_ref().map(|it| collect.take(mode(at, it))),
        mtime: table.mtime,
        replace: table.replace,
    };
    let nodes = nodes.filter(|_| collect.0.is_empty())?;
    Some(lower.add(target, take, nodes, at.place(src.span())))
}

/// Returns the nodes of the layers of the image that is named, and the one that knows its folders. `None` where its own
/// problems are noted.
fn image(
    target: &Target,
    from: &Spanned<String>,
    lower: &mut Lower<'_>,
) -> Result<Option<Vec<NodeId>>, Problem> {
    let (name, span, at) = (from.get_ref(), from.span(), &target.table);
    let fits = |role| matches!(role, Role::Base | Role::Image);
    let id = lower.resolve_for("from", target, name, span.clone(), fits)?;
    let found = lower.spec.target(&id);
    let rule = found.map_or("", |it| RULES[it.rule].name());
    if let (Some(image), Some(platform)) = (found, lower.platform())
        && Role::of(image) == Role::Image
        && let Ok(has) = platforms(image, lower)
        && !has.iter().any(|it| it == platform)
    {
        let has: Vec<String> = has.iter().map(ToString::to_string).collect();
        let message = format!("`{name}` is not built for {platform}");
        let label = format!("built for {}", has.join(", "));
        let problem = at.problem("imgdecl::files::from_platform", span, message, label);
        return Err(problem.help(format!(
            "add {platform} to `platforms` of `{name}`, or leave it out where its files are taken"
        )));
    }
    match lower.target(&id, target, span.clone(), &Below::Unasked)? {
        Some(Lowered::Base(base)) => Ok(Some(vec![base.node])),
        Some(Lowered::Image(nodes)) => {
            let top = nodes.top.filter(|top| !nodes.layers.contains(top));
            Ok(Some(nodes.layers.into_iter().chain(top).collect()))
        }
        Some(other) => {
            let message = format!("`{name}` is no image");
            let label = format!("a target of rule {rule}");
            let problem = at.problem("imgdecl::files::from", span, message, label);
            Err(problem.help(match other {
                Lowered::Group(_) => "name one base or image: a group has several".to_owned(),
                _ => format!(
                    "files come out of a base or an image; a layer as it is comes by layers = [\"{name}\"]"
                ),
            }))
        }
        None => Ok(None),
    }
}

/// Takes files out of the layers that are its inputs, into a tree whose contents lie in the store.
struct Take {
    /// The name of the image.
    image: String,
    /// What the manifest says of `src`.
    text: String,
    src: LayerPath,
    origin: Origin,
    dest: LayerPath,
    /// Whether a file goes into `dest`.
    into: bool,
    include: Option<Patterns>,
    exclude: Patterns,
    allow_empty: bool,
    /// `None` keeps the image's.
    owner: Option<Owner>,
    /// The mode of all files; `None` keeps the image's.
    mode: Option<u16>,
    mtime: i64,
    replace: bool,
}

impl Action for Take {
    fn name(&self) -> &'static str {
        "from"
    }

    /// Layers of a base may have to be fetched.
    fn lane(&self) -> Lane {
        Lane::Net
    }

    fn parameters(&self, key: &mut dyn KeyWriter) {
        // As it is written: a file keeps the name that its symlink has there.
        key.field("src", &format!("/{}", self.src));
        key.field("dest", &format!("/{}", self.dest));
        key.flag("into", self.into);
        match &self.include {
            Some(include) => include.write_key("include", key),
            None => key.field("include", "all"),
        }
        self.exclude.write_key("exclude", key);
        key.flag("allow_empty", self.allow_empty);
        let owner = self.owner.map(|owner| owner.key_text());
        key.field("owner", owner.as_deref().unwrap_or(KEEP));
        let mode = self.mode.map(|mode| format!("{mode:04o}"));
        key.field("mode", mode.as_deref().unwrap_or(KEEP));
        key.field("mtime", &self.mtime.to_string());
        key.flag("replace", self.replace);
    }

    fn reads(&self, inputs: &[Product]) -> Vec<Blob> {
        Layers::of(inputs, &self.image, &self.origin).here()
    }

    fn run(&self, context: &Context<'_>, inputs: &[Product]) -> Result<Product, ActionError> {
        let layers = Layers::of(inputs, &self.image, &self.origin);
        let is_whole = |it: &Patterns| it.is_empty();
        let is_plain = self.include.as_ref().is_none_or(is_whole) && self.exclude.is_empty();
        // A file that an upper layer has needs none of the layers below it.
        let topmost = match is_plain && !self.src.is_root() {
            true => layers.topmost(&self.src, context)?,
            false => None,
        };
        let items = match topmost {
            Some(item) => BTreeMap::from([(self.file_place()?, item)]),
            None => self.choose(&layers.merge(context)?)?,
        };
        let (ranges, contents) = layers.keep(&wanted(&items), context)?;
        let path: Arc<Path> = context.store.local_path(&contents.digest).into();
        let tree = self.tree(items, &ranges, &path)?;
        let kept = TreeProduct::keep(tree, contents, "", context.store)?;
        Ok(Product::Tree(kept))
    }
}

/// Returns which contents are wanted.
fn wanted(items: &BTreeMap<LayerPath, Item>) -> BTreeSet<ContentAt> {
    let content = |item: &Item| match item.kind {
        ItemKind::File(at) => Some(at),
        _ => None,
    };
    items.values().filter_map(content).collect()
}

/// Where contents were kept.
type Ranges = BTreeMap<ContentAt, Content>;

impl Take {
    fn fail(&self, code: &'static str, message: String) -> ActionError {
        ActionError::new(code, message).at(&self.origin)
    }

    /// Makes the error of a path that no layer can have.
    fn unplaced(&self, error: impl Into<Clash>) -> ActionError {
        explain_clash(&error.into()).at(&self.origin)
    }

    /// Returns where a single file goes.
    fn file_place(&self) -> Result<LayerPath, ActionError> {
        match self.into {
            true => self.dest.join(self.src.name()),
            false => Ok(self.dest.clone()),
        }
        .map_err(|error| self.unplaced(error))
    }

    /// Chooses what is taken, by its place.
    fn choose(&self, merged: &Merged) -> Result<BTreeMap<LayerPath, Item>, ActionError> {
        let (image, text) = (&self.image, &self.text);
        let Some(real) = merged.real(&self.src) else {
            let message = format!("the symlinks of `{text}` in `{image}` lead in circles");
            return Err(self.fail("imgdecl::files::from_missing", message));
        };
        let item = match real.is_root() {
            true => Some(ItemKind::Folder),
            false => merged.get(&real).map(|it| it.kind),
        };
        match item {
            Some(ItemKind::Folder) => self.choose_below(merged, &real),
            Some(_) if self.include.is_some() || !self.exclude.is_empty() => {
                let message = format!(
                    "`{text}` is a file of `{image}`: there is nothing to include or exclude"
                );
                Err(self.fail("imgdecl::files::patterns", message))
            }
            Some(ItemKind::File(..)) => {
                let item = merged.get(&real).unwrap_or_default();
                Ok(BTreeMap::from([(self.file_place()?, item)]))
            }
            Some(ItemKind::Other(word)) => {
                let message = format!("`{text}` in `{image}` is a {word}");
                let error = self.fail("imgdecl::files::from_entry", message);
                Err(error.help("layers hold files, folders and links"))
            }
            Some(ItemKind::Symlink(_)) | None => Err(self.missing(merged, &real)),
        }
    }

    /// Says that there is nothing of that path, and what there is instead.
    fn missing(&self, merged: &Merged, real: &LayerPath) -> ActionError {
        let (image, text) = (&self.image, &self.text);
        let message = match *real == self.src {
            true => format!("there is no `{text}` in `{image}`"),
            false => format!("there is no `{text}` in `{image}`: it leads to /{real} there"),
        };
        let mut folder = real.parent().unwrap_or_default();
        let is_folder = |at: &LayerPath| {
            let kind = merged.get(at).map(|it| it.kind);
            at.is_root() || matches!(kind, Some(ItemKind::Folder))
        };
        while !is_folder(&folder) {
            folder = folder.parent().unwrap_or_default();
        }
        let below = merged.below(&folder);
        let beside: Vec<String> = below
            .iter()
            .filter(|it| it.parent().as_ref() == Some(&folder))
            .map(|it| format!("/{it}"))
            .collect();
        let wanted = format!("/{real}");
        let same_name = || {
            let all = merged.below(&LayerPath::root());
            let found = all.iter().find(|it| it.name() == real.name());
            found.map(|it| format!("/{it}"))
        };
        let near = suggest(&wanted, beside.iter().map(String::as_str)).map(str::to_owned);
        let help = match near.or_else(same_name) {
            Some(near) => format!("did you mean `{near}`?"),
            None if beside.is_empty() => format!("/{folder} is empty there"),
            None => {
                let mut names = beside.iter().take(LISTED).cloned().collect::<Vec<_>>();
                if beside.len() > LISTED {
                    names.push(format!("and {} more", beside.len() - LISTED));
                }
                format!("what there is: {}", names.join(", "))
            }
        };
        self.fail("imgdecl::files::from_missing", message)
            .help(help)
    }

    /// Chooses what lies below a folder.
    fn choose_below(
        &self,
        merged: &Merged,
        folder: &LayerPath,
    ) -> Result<BTreeMap<LayerPath, Item>, ActionError> {
        let image = &self.image;
        if let Some(name) = merged.unnamed(folder) {
            let name = crate::tar::shown(name);
            let message =
                format!("`{image}` has the path `{name}`, which no layer of ours can hold");
            let error = self.fail("imgdecl::files::from_entry", message);
            return Err(error.help("name a folder with `src` that does not hold it"));
        }
        let mut chosen = BTreeMap::new();
        let mut above = BTreeSet::new();
        for path in merged.below(folder) {
            let rest = path.as_str()[folder.as_str().len()..].trim_start_matches('/');
            if !self.takes(rest) {
                continue;
            }
            let mut parent = path.parent();
            while let Some(at) = parent.filter(|it| it != folder && it.is_within(folder)) {
                parent = at.parent();
                if !above.insert(at) {
                    break;
                }
            }
            self.add(merged, folder, &path, &mut chosen)?;
        }
        // Folders of what is taken keep what they are, whether a pattern names them or not.
        for path in above {
            self.add(merged, folder, &path, &mut chosen)?;
        }
        let unused = self.include.as_ref().and_then(Patterns::unused);
        if let Some((pattern, origin)) = unused
            && !self.allow_empty
        {
            let message = format!(
                "the pattern `{pattern}` matches nothing in `{}` of `{image}`",
                self.text
            );
            return Err(ActionError::new("imgdecl::files::no_match", message)
                .at(origin)
                .help("`*` stops at a `/`, `**` does not"));
        }
        Ok(chosen)
    }

    /// Adds what is at a path below a folder.
    fn add(
        &self,
        merged: &Merged,
        folder: &LayerPath,
        path: &LayerPath,
        chosen: &mut BTreeMap<LayerPath, Item>,
    ) -> Result<(), ActionError> {
        let item = merged.get(path).unwrap_or_default();
        if let ItemKind::Other(word) = item.kind {
            let message = format!("/{path} in `{}` is a {word}", self.image);
            let error = self.fail("imgdecl::files::from_entry", message);
            return Err(
                error.help("layers hold files, folders and links: leave it out with `exclude`")
            );
        }
        let rest = path.as_str()[folder.as_str().len()..].trim_start_matches('/');
        let place = self.dest.join(rest).map_err(|error| self.unplaced(error))?;
        chosen.insert(place, item);
        Ok(())
    }

    /// Tells whether a path below `src` is taken: a pattern that matches a folder takes all of it.
    fn takes(&self, rest: &str) -> bool {
        let any = |patterns: &Patterns| {
            let ends = rest.match_indices('/').map(|(at, _)| at);
            // Each pattern that matches anywhere on the way counts as used: no short cut.
            let ends = ends.chain([rest.len()]);
            ends.filter(|&end| patterns.matches(&rest[..end])).count() > 0
        };
        !any(&self.exclude) && self.include.as_ref().is_none_or(any)
    }

    /// Makes the tree: where a content comes again, it is a hard link to the first file that has it.
    fn tree(
        &self,
        items: BTreeMap<LayerPath, Item>,
        ranges: &Ranges,
        path: &Arc<Path>,
    ) -> Result<Tree, ActionError> {
        let mut first: BTreeMap<ContentAt, LayerPath> = BTreeMap::new();
        let mut entries = Vec::new();
        for (place, item) in items {
            let attrs = item.attrs.unwrap_or(Attrs::FOLDER);
            let owner = self.owner.unwrap_or(attrs.owner);
            let kind = match item.kind {
                ItemKind::Folder => Kind::Folder {
                    attrs: Attrs { owner, ..attrs },
                    firm: true,
                },
                ItemKind::Symlink(target) => Kind::Symlink { target, owner },
                ItemKind::File(at) => {
                    let mode = self.mode.unwrap_or(attrs.mode);
                    let attrs = Attrs { mode, owner };
                    match first.get(&at) {
                        Some(target) => Kind::Hardlink {
                            target: target.clone(),
                            attrs,
                        },
                        None => {
                            first.insert(at, place.clone());
                            let content = ranges.get(&at).cloned();
                            let content = content
                                .ok_or_else(|| ActionError::bug("a content was not kept"))?;
                            Kind::File {
                                attrs,
                                content: moved(content, path),
                            }
                        }
                    }
                }
                ItemKind::Other(_) => continue,
            };
            let xattrs = match kind {
                Kind::Symlink { .. } => None,
                _ => item.xattrs,
            };
            let entry = Entry {
                mtime: self.mtime,
                replace: self.replace,
                xattrs,
                ..Entry::new(kind)
            };
            entries.push((place, Arc::new(entry)));
        }
        Tree::from_sorted(entries).map_err(|clash| self.unplaced(clash))
    }
}

/// The same content, in the file that it was kept in.
fn moved(content: Content, path: &Arc<Path>) -> Content {
    let source = match content.source {
        Source::Range { offset, .. } => Source::Range {
            path: path.clone(),
            offset,
        },
        other => other,
    };
    Content { source, ..content }
}
