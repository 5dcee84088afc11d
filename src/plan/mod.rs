//! From manifests to a graph: which images, for which platforms, by which actions. Equal input gives an equal plan.
//!
//! Knows nothing of threads or the network.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::graph::{Graph, Node, NodeId};
use crate::lock::Lock;
use crate::oci::{Digest, Platform};
use crate::rule::{self, Draft, Given, Lower, Lowered, Names, Need, Role};
use crate::spec::{Host, Problems, Spec, TargetId};

/// What to plan.
pub struct Request<'a> {
    /// The manifests.
    pub spec: &'a Spec,
    /// The host.
    pub host: &'a dyn Host,
    /// The images and groups; all images of the home manifest, and of its members, if empty.
    pub targets: Vec<TargetId>,
    /// The images and groups that are left out of these.
    pub except: Vec<TargetId>,
    /// The platforms, if the user says so.
    pub platforms: Vec<Platform>,
    /// What names were resolved to.
    pub lock: &'a Lock,
    /// Whether an output holds the bytes of base layers.
    pub with_bytes: bool,
    /// Whether the lock is about to change: what it holds need not go together.
    pub is_locking: bool,
    /// Paths of the host that are never inputs.
    pub never: BTreeSet<PathBuf>,
    /// Which documents about images are wanted.
    pub documents: Vec<&'static str>,
}

impl<'a> Request<'a> {
    /// Returns what targets are lowered from.
    fn given(&self, host: &'a dyn Host) -> Given<'a> {
        Given {
            spec: self.spec,
            host,
            lock: self.lock,
            never: Arc::new(self.never.clone()),
            with_bytes: self.with_bytes,
            is_locking: self.is_locking,
        }
    }
}

/// A graph, and the images that it makes.
pub struct Plan {
    /// The graph.
    pub graph: Graph,
    /// The images, sorted by target.
    pub images: Vec<PlannedImage>,
    /// What all images of the manifests need of the lock, for all platforms: also those that were not asked for.
    pub needs: Vec<Need>,
}

/// An image that a plan makes.
#[derive(Clone, Debug)]
pub struct PlannedImage {
    /// The target.
    pub id: TargetId,
    /// Its name for people, and in layouts.
    pub name: String,
    /// Where it is kept.
    pub names: Names,
    /// The node of each platform's image.
    pub platforms: Vec<(Platform, NodeId)>,
    /// The node of the index, or of the only image.
    pub node: NodeId,
    /// The nodes of documents about the image: those of its platforms, then those of the index.
    pub documents: Vec<NodeId>,
}

/// Why there is no plan.
#[derive(Debug)]
pub enum PlanError {
    /// The manifests are wrong.
    Problems(Problems),
    /// A target that the user named is no image.
    NotAnImage {
        /// The target.
        id: TargetId,
        /// Its rule.
        rule: &'static str,
    },
    /// There is nothing to build.
    NoImages,
    /// All that was chosen is left out again.
    NoneLeft,
    /// No image has a platform that the user asked for.
    Platform {
        /// The platform.
        wanted: String,
        /// The platforms of the images.
        have: Vec<String>,
    },
}

impl From<Problems> for PlanError {
    fn from(problems: Problems) -> Self {
        Self::Problems(problems)
    }
}

/// A host whose git always answers: for targets that are checked but not built.
struct AnyGit<'a>(&'a dyn Host);

impl Host for AnyGit<'_> {
    fn variable(&self, name: &str) -> Option<String> {
        self.0.variable(name)
    }

    fn git(&self, _: &Path, _: &str) -> Result<String, String> {
        Ok("0".into())
    }

    fn source_date_epoch(&self) -> Option<u64> {
        self.0.source_date_epoch()
    }

    fn platform(&self) -> Platform {
        self.0.platform()
    }

    fn digest(&self, path: &Path) -> Result<Digest, String> {
        self.0.digest(path)
    }
}

/// Makes the plan.
///
/// # Errors
/// All that is wrong with the manifests, also with targets that were not asked for.
pub fn plan(request: &Request<'_>) -> Result<Plan, PlanError> {
    let needs = check(request)?;
    let given = request.given(request.host);
    let mut draft = Draft::default();
    let ids = chosen(request, &mut Lower::new(&given, &mut draft, None))?;
    if ids.is_empty() {
        return Err(match request.except.is_empty() {
            true => PlanError::NoImages,
            false => PlanError::NoneLeft,
        });
    }
    let mut images = Vec::new();
    let mut have = BTreeSet::new();
    for id in ids {
        let Some(target) = request.spec.target(&id) else {
            continue;
        };
        let lower = Lower::new(&given, &mut draft, None);
        let mut platforms = rule::platforms(target, &lower)?;
        have.extend(platforms.iter().map(ToString::to_string));
        if !request.platforms.is_empty() {
            platforms.retain(|platform| {
                request
                    .platforms
                    .iter()
                    .any(|wanted| platform.matches(wanted))
            });
        }
        if platforms.is_empty() {
            continue;
        }
        let names = rule::image_names(target, &lower)?;
        let mut nodes = Vec::new();
        let mut documents = Vec::new();
        let wanted = &request.documents;
        for platform in platforms {
            let mut lower = Lower::new(&given, &mut draft, Some(platform.clone()));
            if let Some(Lowered::Image(image)) = lower.lower(&id) {
                rule::fetch_layers(&image, &mut lower);
                documents.extend(rule::documents(wanted, target, image.image, &mut lower)?);
                nodes.push((platform, image.image));
            }
        }
        let node = match nodes[..] {
            [(_, one)] => one,
            _ => rule::index(
                target,
                &mut Lower::new(&given, &mut draft, None),
                nodes.iter().map(|(_, node)| *node).collect(),
            )?,
        };
        if nodes.len() > 1 {
            let mut lower = Lower::new(&given, &mut draft, None);
            documents.extend(rule::documents(wanted, target, node, &mut lower)?);
        }
        images.push(PlannedImage {
            name: request.spec.short_name(&id),
            id,
            names,
            platforms: nodes,
            node,
            documents,
        });
    }
    draft.problems.extend(clashes(request.spec, &images));
    if !draft.problems.is_empty() {
        return Err(draft.problems.into());
    }
    if let Some(wanted) = request.platforms.iter().find(|wanted| {
        !images
            .iter()
            .flat_map(|image| &image.platforms)
            .any(|(platform, _)| platform.matches(wanted))
    }) {
        return Err(PlanError::Platform {
            wanted: wanted.to_string(),
            have: have.into_iter().collect(),
        });
    }
    Ok(Plan {
        graph: draft.graph,
        images,
        needs,
    })
}

/// Returns the images that are to be built: those that were named, or all of the home manifest and its members.
fn chosen(request: &Request<'_>, lower: &mut Lower<'_>) -> Result<BTreeSet<TargetId>, PlanError> {
    let mut images_of = |targets: &[TargetId]| -> Result<BTreeSet<TargetId>, PlanError> {
        let mut ids = BTreeSet::new();
        for id in targets {
            let images = rule::images(id, lower).map_err(|rule| PlanError::NotAnImage {
                id: id.clone(),
                rule,
            })?;
            ids.extend(images);
        }
        Ok(ids)
    };
    let mut ids = images_of(&request.targets)?;
    let except = images_of(&request.except)?;
    if request.targets.is_empty() {
        let home = &request.spec.home;
        let images = request
            .spec
            .targets()
            .filter(|target| Role::of(target) == Role::Image);
        ids.extend(
            images
                .filter(|target| home.is_empty() || target.id.member == *home)
                .map(|target| target.id.clone()),
        );
    }
    ids.retain(|id| !except.contains(id));
    Ok(ids)
}

/// Finds images that would take a name in a registry from each other.
fn clashes(spec: &Spec, images: &[PlannedImage]) -> Problems {
    let mut problems = Problems::default();
    let mut references = BTreeMap::new();
    for image in images {
        let Some(repository) = &image.names.repository else {
            continue;
        };
        for tag in image.names.tags.iter().collect::<BTreeSet<_>>() {
            let reference = format!("{repository}:{tag}");
            let Some(first) = references.insert(reference.clone(), &image.name) else {
                continue;
            };
            if let Some(target) = spec.target(&image.id) {
                let message = format!("`{first}` and `{}` are both {reference}", image.name);
                let (table, span) = (&target.table, target.table.span.clone());
                let problem = table.problem("imgdecl::image::reference", span, message, "second");
                let help = "give one of them another `repository`, or other `tags`";
                problems.push(problem.help(help));
            }
        }
    }
    problems
}

/// Lowers every target for every platform, so that all problems come out at once. Returns what the images need of the
/// lock.
fn check(request: &Request<'_>) -> Result<Vec<Need>, Problems> {
    let host = AnyGit(request.host);
    let given = Given {
        with_bytes: false,
        ..request.given(&host)
    };
    let mut draft = Draft::default();
    draft.problems.extend(request.spec.problems.clone());
    let mut used = BTreeSet::new();
    for target in request
        .spec
        .targets()
        .filter(|target| Role::of(target) == Role::Image)
    {
        let lower = Lower::new(&given, &mut draft, None);
        let platforms = rule::platforms(target, &lower);
        let names = rule::image_names(target, &lower);
        let platforms = platforms.unwrap_or_else(|problems| {
            draft.problems.extend(problems);
            Vec::new()
        });
        if let Err(problems) = names {
            draft.problems.extend(problems);
        }
        used.extend(platforms.iter().cloned());
        for platform in platforms {
            Lower::new(&given, &mut draft, Some(platform)).lower(&target.id);
        }
    }
    let needs = std::mem::take(&mut draft.needs);
    // Targets that no image uses have problems too; any platform shows them. For others, one that is not theirs says nothing.
    let any = used.into_iter().next();
    let any = any.unwrap_or_else(|| Platform::new("linux", "amd64"));
    let mut lower = Lower::new(&given, &mut draft, Some(any));
    for target in request.spec.targets() {
        if !lower.is_lowered(&target.id) {
            lower.lower(&target.id);
        }
    }
    if draft.problems.is_empty() {
        Ok(needs)
    } else {
        Err(draft.problems)
    }
}

/// Writes a plan out: each image with its platforms, and under each platform what makes it. `state` says what to add
/// about a node.
pub fn render(plan: &Plan, state: &dyn Fn(NodeId, &Node) -> String) -> String {
    let mut text = String::new();
    for image in &plan.images {
        text.push_str(&image.name);
        if let Some(repository) = &image.names.repository {
            text.push_str(&format!("  {repository}"));
        }
        if image.platforms.len() > 1 {
            text.push_str(&state(image.node, plan.graph.node(image.node)));
        }
        text.push('\n');
        for (platform, node) in &image.platforms {
            text.push_str(&format!("  {platform}\n"));
            let mut shown = BTreeMap::new();
            collect(plan, *node, &mut shown);
            // What only looks at the host is no news, and neither is each wheel of many.
            for (id, node) in shown
                .into_iter()
                .filter(|(_, node)| node.action.is_cached() && node.action.detail().is_none())
            {
                let what = format!("{} {}", node.action.name(), node.label.target);
                text.push_str(&format!("    {what}{}\n", state(id, node)));
            }
        }
        if !image.documents.is_empty() {
            text.push_str("  documents\n");
        }
        for id in &image.documents {
            let node = plan.graph.node(*id);
            let platform = node.label.platform.as_ref();
            let platform = platform.map_or(String::new(), |it| format!(" {it}"));
            let what = format!("{} {}{platform}", node.action.name(), node.label.target);
            text.push_str(&format!("    {what}{}\n", state(*id, node)));
        }
    }
    text
}

/// Gathers a node and all that it needs, inputs first; of other images of the plan only the image.
fn collect<'a>(plan: &'a Plan, id: NodeId, shown: &mut BTreeMap<NodeId, &'a Node>) {
    let node = plan.graph.node(id);
    let is_root = shown.is_empty();
    let mut all = plan.images.iter().flat_map(|image| &image.platforms);
    if shown.insert(id, node).is_none() && (is_root || !all.any(|(_, image)| *image == id)) {
        for input in &node.inputs {
            collect(plan, *input, shown);
        }
    }
}
