//! `build`: plans, resolves what the lock lacks, runs the graph, and hands the images to the sinks.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::file::write_file;
use super::lock::{self, Lacking};
use super::net::{Net, Network};
use super::workspace::{Choice, Workspace};
use super::{Failed, News, NodeFailure, Session};
use crate::exec::{self, Caches, NodeResult, Options};
use crate::graph::{ActionError, Failure, Graph, NodeId, Product};
use crate::oci::{Descriptor, Digest, Reference};
use crate::output::{
    Attached, Daemon, Layout, Needs, Output, OutputError, Place, Planned, Registry, Sink, Supply,
    Word, metadata,
};
use crate::plan::{Plan, PlannedImage};
use crate::registry::Blobs;
use crate::shown;
use crate::source::read_document;
use crate::store::{self, Blob, Health};

/// What is to be built, and where it goes.
#[derive(Default)]
pub(crate) struct Request {
    /// The manifest, and which of its images.
    pub(crate) choice: Choice,
    /// How the network is reached.
    pub(crate) network: Network,
    /// Where images go. If nowhere, and they are neither pushed nor loaded, to the default layout.
    pub(crate) outputs: Vec<Word>,
    /// Images go to their repositories.
    pub(crate) push: bool,
    /// Registries are asked for every blob.
    pub(crate) check: bool,
    /// Images go to Docker or podman.
    pub(crate) load: bool,
    /// What image.lock lacks is an error; where nothing is said, a CI system wants it so.
    pub(crate) locked: Option<bool>,
    /// Image tags in place of the images' own.
    pub(crate) tags: Vec<String>,
    /// Where what scripts may want to know goes, from the working folder.
    pub(crate) metadata_file: Option<Place>,
    /// It is told how keys differ from the last ones.
    pub(crate) explain: bool,
    /// How many actions run at once; the number of CPUs if nothing is said.
    pub(crate) jobs: Option<u16>,
    /// Which documents about the images are made and attached to them, by the names that rules give them.
    pub(crate) documents: Vec<&'static str>,
    /// Other files that are written, and so are no inputs, from the working folder.
    pub(crate) written: Vec<PathBuf>,
}

/// Builds images. Returns them in the order of the manifests.
///
/// # Errors
/// When anything of it cannot be done.
pub(crate) fn build(session: &Session, request: &Request) -> Result<Vec<Output>, Failed> {
    session.news(&News::Phase("read manifests"));
    let here = session.here()?;
    let metadata_file = request.metadata_file.as_ref().map(|it| it.below(here));
    let named = request.outputs.iter().map(|word| word.below(here));
    let named: Vec<Arc<dyn Sink>> = named.collect();
    let written = named.iter().flat_map(|sink| sink.paths());
    let metadata_path = metadata_file.iter().filter_map(Place::path);
    let written = written.chain(metadata_path.map(Path::to_owned));
    let written = written.chain(request.written.iter().map(|path| here.join(path)));
    let mut workspace = Workspace::new(session, &request.choice, written.collect())?;
    workspace.documents.clone_from(&request.documents);
    let layout = Layout(workspace.out());
    let mut sinks: Vec<&dyn Sink> = named.iter().map(|sink| &**sink).collect();
    if sinks.is_empty() && !request.push && !request.load {
        sinks.push(&layout);
    }
    if let Some(place) = &metadata_file {
        check_metadata(place, &sinks)?;
    }
    for sink in &sinks {
        sink.check()?;
    }
    let store = workspace.store(session)?;
    let net = Net::of(session, &workspace, &request.network, &store)?;
    let daemons = session.environment.daemons.clone();
    let daemon = Daemon::new(daemons, session.events.clone());
    let registry = net.client().filter(|_| request.push);
    let registry = registry.map(|client| Registry {
        client,
        is_checked: request.check,
    });
    let mut elsewhere: Vec<&dyn Sink> = Vec::new();
    if request.load {
        daemon.check()?;
        elsewhere.push(&daemon);
    }
    elsewhere.extend(registry.iter().map(|it| it as &dyn Sink));
    let all = || sinks.iter().chain(&elsewhere);
    let needs = all().map(|sink| sink.needs()).max();
    let needs = needs.unwrap_or(Needs::Digests);

    session.news(&News::Phase("plan and lock"));
    let lacking = Lacking::of(session, request.locked, request.network.offline);
    let with_bytes = needs == Needs::Bytes;
    let plan = lock::complete(session, &workspace, with_bytes, lacking, &store, &net)?;
    let images = planned(&workspace, &plan, &request.tags);
    let host = &session.environment.platform;
    if request.push {
        check_pushed(session, &workspace, &plan)?;
    }
    for sink in all() {
        let own = images.iter().filter(|it| sink.takes(it.is_pushed));
        sink.check_images(&own.cloned().collect::<Vec<_>>(), host)?;
    }

    session.news(&News::Phase("run actions"));
    let options = Options {
        want_layers: needs >= Needs::Layers,
        explain: request.explain,
        ..options(&workspace, request.jobs, false)
    };
    let (ports, watch) = (net.ports(), &*session.events);
    let caches = Caches::of(&store);
    let results = exec::run(&plan.graph, caches, ports, &options, watch, &session.stop);
    session.news(&News::Phase("write outputs"));
    let (graph, results) = (&plan.graph, &results[..]);
    session.news(&News::Ran {
        graph,
        results,
        store: &store,
        workspace: &options.workspace,
    });
    if results.iter().any(|result| result.error.is_some()) {
        session.news(&OVER);
    }
    failures(session, graph, results)?;

    let product = |node: NodeId| results[node.0 as usize].product.clone();
    let made = |image: &PlannedImage| {
        let documents = image.documents.iter().filter_map(|it| product(*it));
        let attached = documents.filter_map(|it| match it {
            Product::Document(document) => Attached::of(&document),
            _ => None,
        });
        Some((product(image.node)?, attached.collect()))
    };
    let mut images = outputs(&plan, &request.tags, &made);
    let blobs = Built::new(&*store, results);
    let supply = Supply {
        store: Some(&*store),
        blobs: &blobs,
        host,
        stop: &session.stop,
        note: &|text| session.note(text),
        unsent: &|mounted, there| session.news(&News::Unsent { mounted, there }),
        stdout: &session.stdout,
    };
    for sink in sinks {
        write(session, sink, &mut images, &supply)?;
    }
    if !elsewhere.is_empty() {
        session.news(&News::Phase("load and push"));
    }
    for sink in elsewhere {
        write(session, sink, &mut images, &supply).inspect_err(|_| session.news(&OVER))?;
    }
    session.news(&OVER);
    finish(session, &images, metadata_file.as_ref())?;
    Ok(images)
}

/// The end of a command that builds or pushes.
pub(super) const OVER: News<'static> = News::Over {
    only_if_busy: false,
};

/// Hands images to a sink that are for it, and notes in them what it reports.
pub(super) fn write(
    session: &Session,
    sink: &dyn Sink,
    images: &mut Vec<Output>,
    supply: &Supply<'_>,
) -> Result<(), Failed> {
    let all = std::mem::take(images).into_iter().enumerate();
    let (own, others): (Vec<_>, Vec<_>) = all.partition(|(_, it)| sink.takes(it.is_pushed));
    let (numbers, mut own): (Vec<usize>, Vec<Output>) = own.into_iter().unzip();
    let written = sink.write(&own, supply);
    session.go_on()?;
    for (image, report) in own.iter_mut().zip(written?) {
        image.reports.push(report);
    }
    let mut all: Vec<(usize, Output)> = numbers.into_iter().zip(own).chain(others).collect();
    all.sort_by_key(|(number, _)| *number);
    images.extend(all.into_iter().map(|(_, image)| image));
    Ok(())
}

/// Tells which images of a plan are not pushed.
///
/// # Errors
/// When the user named one of these, or none is left.
pub(super) fn check_pushed(
    session: &Session,
    workspace: &Workspace,
    plan: &Plan,
) -> Result<(), Failed> {
    let kept = plan.images.iter().filter(|it| !it.names.is_pushed);
    let kept: Vec<&PlannedImage> = kept.collect();
    let code = "imgdecl::cli::push";
    if let Some(image) = kept
        .iter()
        .find(|it| workspace.chosen.named.contains(&it.id))
    {
        let message = format!("`{}` is never pushed: it has push = false", image.name);
        let help = "leave it out, or take `push = false` off".to_owned();
        return Err(Failed::usage(code, message, Some(help)));
    }
    if kept.len() == plan.images.len() {
        let help = "choose others, or take `push = false` off".to_owned();
        let message = "nothing is pushed: all images that were chosen have push = false";
        return Err(Failed::usage(code, message, Some(help)));
    }
    if !kept.is_empty() {
        let names: Vec<&str> = kept.iter().map(|it| it.name.as_str()).collect();
        session.note(&format!(
            "not pushed, as push = false says: {}",
            names.join(", ")
        ));
    }
    Ok(())
}

/// Says what is known of the images of a plan before they are built.
pub(super) fn planned<'a>(
    workspace: &'a Workspace,
    plan: &'a Plan,
    tags: &'a [String],
) -> Vec<Planned<'a>> {
    let planned = plan.images.iter().map(|image| Planned {
        target: &image.name,
        repository: image.names.repository.as_deref(),
        tags: tags_of(image, tags),
        is_pushed: image.names.is_pushed,
        platforms: image.platforms.iter().map(|it| it.0.clone()).collect(),
        origin: workspace.origin(&image.id),
    });
    planned.collect()
}

/// What is known of an image once it is there: the image, and what is attached to it.
pub(super) type Made = (Product, Vec<Attached>);

/// Makes the outputs of a plan: the one place that does. `made` finds each image; one without is left out.
pub(super) fn outputs(
    plan: &Plan,
    tags: &[String],
    made: &dyn Fn(&PlannedImage) -> Option<Made>,
) -> Vec<Output> {
    let output = |image: &PlannedImage| {
        let (product, attached) = made(image)?;
        Some(Output {
            name: image.name.clone(),
            repository: image.names.repository.clone(),
            tags: tags_of(image, tags).to_vec(),
            is_pushed: image.names.is_pushed,
            product,
            attached,
            reports: Vec::new(),
        })
    };
    plan.images.iter().filter_map(output).collect()
}

/// Returns the image tags that the user named, or else the image's own.
fn tags_of<'a>(image: &'a PlannedImage, tags: &'a [String]) -> &'a [String] {
    match tags {
        [] => &image.names.tags,
        tags => tags,
    }
}

/// Writes what scripts may want to know of images.
pub(super) fn finish(
    session: &Session,
    images: &[Output],
    metadata_file: Option<&Place>,
) -> Result<(), Failed> {
    let Some(place) = metadata_file else {
        return Ok(());
    };
    let text = shown::json_data(metadata(images));
    let written = match place.path().filter(|_| !place.is_stream()) {
        Some(path) => write_file(path, text.as_bytes()).map_err(|source| OutputError::Io {
            path: path.to_owned(),
            source,
        }),
        None => {
            let go_on = || !session.stop.is_asked();
            place.write(text.as_bytes(), &session.stdout, &go_on)
        }
    };
    session.go_on()?;
    Ok(written?)
}

/// Says how a graph is run.
pub(super) fn options(workspace: &Workspace, jobs: Option<u16>, dry: bool) -> Options {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    Options {
        jobs: jobs.map_or(cpus, usize::from),
        want_layers: true,
        dry,
        explain: dry,
        workspace: workspace.spec.root.display().to_string(),
    }
}

/// Gathers all failures of a run.
pub(super) fn failures(
    session: &Session,
    graph: &Graph,
    results: &[NodeResult],
) -> Result<(), Failed> {
    let mut failures = Vec::new();
    let mut told = BTreeSet::new();
    let mut is_stopped = session.stop.is_asked();
    for ((_, node), result) in graph.nodes().zip(results) {
        let Some(error) = &result.error else { continue };
        // Platforms that fail alike are one piece of news.
        if let Some(place) = error.origins.first()
            && !told.insert((
                &error.message,
                &error.causes,
                &place.source.name,
                place.span.start,
            ))
        {
            continue;
        }
        match error.failure {
            Failure::Stopped => is_stopped = true,
            _ => failures.push(NodeFailure {
                label: node.label.clone(),
                origin: node.origin.clone(),
                error: error.clone(),
            }),
        }
    }
    Failed::of_nodes(one_for_many(failures), is_stopped)
}

/// How many failures of one kind are told one by one.
const FEW: usize = 3;

/// Makes one failure of many that differ in a name alone: of wheels of a target where there is no network.
fn one_for_many(failures: Vec<NodeFailure>) -> Vec<NodeFailure> {
    let kind = |failure: &NodeFailure| {
        let NodeFailure {
            label,
            origin,
            error,
        } = failure;
        let place = error.origins.first().unwrap_or(origin);
        let place = (place.source.name.clone(), place.span.start);
        let help = error.help.clone();
        (
            error.code,
            label.target.clone(),
            place,
            help,
            error.causes.clone(),
        )
    };
    let mut counts: BTreeMap<_, usize> = BTreeMap::new();
    for failure in &failures {
        *counts.entry(kind(failure)).or_default() += 1;
    }
    let mut out: Vec<NodeFailure> = Vec::new();
    let mut places = BTreeMap::new();
    for failure in failures {
        let kind = kind(&failure);
        let count = counts.get(&kind).copied().unwrap_or_default();
        if count <= FEW {
            out.push(failure);
            continue;
        }
        match places.get(&kind) {
            None => {
                places.insert(kind, out.len());
                let message = &failure.error.message;
                let message = format!("{count} errors of one kind:\n{message}");
                let error = ActionError {
                    message,
                    ..failure.error
                };
                out.push(NodeFailure { error, ..failure });
            }
            Some(&at) => {
                let first: &mut NodeFailure = &mut out[at];
                first.error.message.push('\n');
                first.error.message.push_str(&failure.error.message);
            }
        }
    }
    out
}

/// Makes sure that the metadata overwrites nothing but metadata, and lies in no output.
pub(super) fn check_metadata(place: &Place, sinks: &[&dyn Sink]) -> Result<(), OutputError> {
    let Some(path) = place.path() else {
        return Ok(());
    };
    let not_ours = || OutputError::NotOurs(path.to_owned());
    let mut written = sinks.iter().flat_map(|sink| sink.paths());
    if written.any(|sink| path.starts_with(sink)) {
        return Err(not_ours());
    }
    if place.is_stream() || std::fs::symlink_metadata(path).is_err() {
        return Ok(());
    }
    let bytes = read_document(path).map_err(|_| not_ours())?;
    let known: Option<Vec<serde_json::Value>> = serde_json::from_slice(&bytes).ok();
    let is_ours = |image: &serde_json::Value| {
        image.get("reference").is_some() && image.get("platforms").is_some()
    };
    match bytes.is_empty() || known.is_some_and(|images| images.iter().all(is_ours)) {
        true => Ok(()),
        false => Err(not_ours()),
    }
}

/// The blobs of a build: in the store, and base layers where they came from.
struct Built<'a> {
    store: &'a dyn store::Blobs,
    origins: BTreeMap<Digest, Reference>,
}

impl<'a> Built<'a> {
    fn new(store: &'a dyn store::Blobs, results: &[NodeResult]) -> Self {
        let mut origins = BTreeMap::new();
        for result in results {
            if let Some(Product::Base(base)) = &result.product
                && let Some(remote) = &base.remote
            {
                let digests = base.layers.iter().map(|layer| layer.descriptor.digest);
                origins.extend(digests.map(|digest| (digest, remote.clone())));
            }
        }
        Self { store, origins }
    }
}

impl Blobs for Built<'_> {
    fn open(&self, descriptor: &Descriptor) -> io::Result<Option<Box<dyn Read + Send>>> {
        let blob = Blob::from(descriptor);
        match self.store.check(&blob) {
            Health::Whole => {}
            Health::Missing => return Ok(None),
            // A damaged one is as good as none where it can be had from where it came.
            Health::Damaged if self.origins.contains_key(&blob.digest) => return Ok(None),
            Health::Damaged => {}
        }
        Ok(Some(Box::new(self.store.open_blob(&blob)?)))
    }

    fn origin(&self, digest: &Digest) -> Option<Reference> {
        self.origins.get(digest).cloned()
    }
}
