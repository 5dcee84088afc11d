//! What most commands do first: find the manifest, read it, choose targets.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::Spanned;

use super::host::RealHost;
use super::{Failed, Session};
use crate::graph::Origin;
use crate::index::{Source, SourceError};
use crate::lock::{self, Lock};
use crate::oci::Platform;
use crate::plan::{self, Plan, Request};
use crate::rule::{self, Role};
use crate::spec::{
    Chosen, LoadError, MANIFEST, Problems, Spec, Target, TargetId, find_manifest, nearest,
};
use crate::store::Store;

/// The name of the default output folder, beside the manifest.
const OUT: &str = "imgdecl-out";

/// What the user chose of a workspace.
#[derive(Clone, Default)]
pub(crate) struct Choice {
    /// The manifest, and targets.
    pub(crate) words: Vec<String>,
    /// Variables.
    pub(crate) set: Vec<(String, String)>,
    /// Platforms; all if empty.
    pub(crate) platforms: Vec<Platform>,
}

/// The manifests, and what to build of them.
pub(crate) struct Workspace {
    pub(super) spec: Spec,
    pub(super) manifest: PathBuf,
    /// The targets that the user chose, or else the workspace's own default.
    pub(super) chosen: Chosen,
    /// Whether the user named any.
    pub(super) is_chosen: bool,
    platforms: Vec<Platform>,
    /// Which documents about the images are wanted, by the names that rules give them.
    pub(super) documents: Vec<&'static str>,
    /// The user set variables on the command line.
    pub(super) has_set: bool,
    /// Files that are written: never inputs.
    written: Vec<PathBuf>,
    host: RealHost,
    /// The cache folder, which is never an input.
    cache: Option<PathBuf>,
}

impl Workspace {
    /// Reads the manifests. `written` are paths that commands write.
    pub(super) fn new(
        session: &Session,
        choice: &Choice,
        written: Vec<PathBuf>,
    ) -> Result<Self, Failed> {
        let (manifest, spec, words) = manifest(choice, session.here()?)?;
        let words = words.iter().map(String::as_str);
        let chosen = spec
            .choose(words, fits, is_image)
            .map_err(|(_, (message, help))| Failed::usage("imgdecl::cli::target", message, help))?;
        let is_chosen = !chosen.targets.is_empty() || !chosen.except.is_empty();
        let chosen = or_default(&spec, chosen)?;
        let host = host(session)?;
        Ok(Self {
            spec,
            manifest,
            chosen,
            is_chosen,
            platforms: choice.platforms.clone(),
            documents: Vec::new(),
            has_set: !choice.set.is_empty(),
            written,
            host,
            cache: session.environment.cache.clone().ok(),
        })
    }

    /// Finds the image or group that a word names in the nearest manifest. A word that is no name of a target asks nothing
    /// of the manifest, which may be wrong then.
    pub(super) fn of_image(
        session: &Session,
        word: &str,
        set: &[(String, String)],
        platforms: &[Platform],
    ) -> Result<Result<Self, Missed>, Failed> {
        let mut missed = Missed {
            manifest: None,
            near: None,
        };
        let Some(path) = find_manifest(session.here()?) else {
            return Ok(Err(missed));
        };
        missed.manifest = Some(path.display().to_string());
        let spec = match Spec::load(&path, &rule::names(), set) {
            Ok(spec) => spec,
            Err(_) if word.contains(['/', '.', ':', '@']) => return Ok(Err(missed)),
            Err(error) => return Err(load_error(error, &path)),
        };
        let Ok(id) = spec.resolve_typed(word, fits) else {
            let names = spec.names_from(&spec.home, |_| true, fits);
            missed.near = nearest(word, &names).map(str::to_owned);
            return Ok(Err(missed));
        };
        let host = host(session)?;
        Ok(Ok(Self {
            spec,
            manifest: path,
            chosen: Chosen::of(vec![id]),
            is_chosen: true,
            platforms: platforms.to_vec(),
            documents: Vec::new(),
            has_set: !set.is_empty(),
            written: Vec::new(),
            host,
            cache: session.environment.cache.clone().ok(),
        }))
    }

    /// Chooses targets, in place of those that were chosen.
    pub(super) fn choose(&mut self, targets: Vec<TargetId>) {
        self.chosen = Chosen::of(targets);
    }

    /// Opens the cache, and has the digests of the host's files remembered there.
    pub(super) fn store(&self, session: &Session) -> Result<Arc<Store>, Failed> {
        let store = session.store()?;
        self.remember(&store);
        Ok(store)
    }

    /// Has the digests of the host's files remembered in the cache.
    pub(super) fn remember(&self, store: &Arc<Store>) {
        self.host.remember(store);
    }

    /// Returns the place of a target in the manifests.
    pub(super) fn origin(&self, id: &TargetId) -> Option<Origin> {
        self.spec.target(id).map(|target| target.table.origin())
    }

    /// Returns the default output folder.
    pub(super) fn out(&self) -> PathBuf {
        let home = self.spec.members.get(&self.spec.home);
        home.map_or(&self.spec.root, |home| &home.folder).join(OUT)
    }

    /// Returns the package indexes that the manifest names.
    pub(super) fn index(&self) -> Result<Option<Vec<Source>>, Failed> {
        let Some((index, table)) = self.spec.index(&self.host).map_err(Failed::from)? else {
            return Ok(None);
        };
        let mut problems = Problems::default();
        let mut sources = Vec::new();
        let mut take = |text: &Spanned<String>, made: Result<Source, SourceError>| match made {
            Ok(source) => sources.push(source),
            Err(error) => {
                let (code, label) = ("imgdecl::spec::index", "not an index");
                let problem = table.problem(code, text.span(), error.to_string(), label);
                problems.push(problem.help(error.help()));
            }
        };
        for (pattern, url) in &index.packages {
            let source = Source::new(Some(pattern), url.get_ref());
            take(url, source.and_then(|it| it.for_packages(&[pattern])));
        }
        for url in index.extra.iter().chain(&index.url) {
            take(url, Source::new(None, url.get_ref()));
        }
        if let (Some(extra), None) = (index.extra.first(), &index.url) {
            let message = "`extra` goes with `url`, the index that is asked last";
            let problem = table.problem(
                "imgdecl::spec::index",
                extra.span(),
                message,
                "before what?",
            );
            problems.push(problem);
        }
        match problems.is_empty() {
            true => Ok(Some(sources)),
            false => Err(Failed::from(problems)),
        }
    }

    /// Leaves all platforms but one out, if nobody chose and that one is there.
    pub(super) fn for_one(mut self, platform: &Platform) -> Self {
        if self.platforms.is_empty() {
            self.platforms = vec![platform.clone()];
            if plan::plan(&self.request(&Lock::default(), false, true)).is_err() {
                self.platforms.clear();
            }
        }
        self
    }

    /// Makes the plan. `with_bytes` says whether an output holds the bytes of base layers.
    pub(super) fn plan(&self, lock: &Lock, with_bytes: bool) -> Result<Plan, Failed> {
        self.planned(lock, with_bytes, false)
    }

    /// Makes the plan with a lock that is about to change.
    pub(super) fn plan_to_lock(&self, lock: &Lock) -> Result<Plan, Failed> {
        self.planned(lock, false, true)
    }

    fn planned(&self, lock: &Lock, with_bytes: bool, is_locking: bool) -> Result<Plan, Failed> {
        let request = self.request(lock, with_bytes, is_locking);
        plan::plan(&request).map_err(|error| Failed::Plan {
            error: Box::new(error),
            manifest: self.manifest.clone(),
        })
    }

    fn request<'a>(&'a self, lock: &'a Lock, with_bytes: bool, is_locking: bool) -> Request<'a> {
        Request {
            is_locking,
            spec: &self.spec,
            host: &self.host,
            lock,
            with_bytes,
            targets: self.chosen.targets.clone(),
            except: self.chosen.except.clone(),
            platforms: self.platforms.clone(),
            never: self.never(),
            documents: self.documents.clone(),
        }
    }

    /// Returns the paths that are never inputs: outputs, the cache and the lock file.
    pub(super) fn never(&self) -> BTreeSet<PathBuf> {
        let members = self.spec.members.values();
        let outs = members.map(|member| member.folder.join(OUT));
        let written = self.written.iter().cloned().chain(self.cache.clone());
        // Walks are free of symlinks. What is not there yet lies where its folder really lies.
        let real = written.flat_map(|path| {
            let folder = path.parent().and_then(|folder| folder.canonicalize().ok());
            let placed = folder
                .zip(path.file_name())
                .map(|(folder, name)| folder.join(name));
            [path.canonicalize().ok(), placed, Some(path)]
        });
        outs.chain(real.flatten())
            .chain([self.spec.root.join(lock::FILE)])
            .collect()
    }
}

fn host(session: &Session) -> Result<RealHost, Failed> {
    let epoch = session.environment.epoch.clone();
    let epoch = epoch.map_err(|why| Failed::usage("imgdecl::cli::environment", why, None))?;
    let variables = session.environment.variables.clone();
    let platform = session.environment.platform.clone();
    Ok(RealHost::new(epoch, platform, variables, &session.stop))
}

/// What was looked at before a word was found to be no target.
pub(super) struct Missed {
    /// The manifest, if there is one.
    pub(super) manifest: Option<String>,
    /// The target whose name is nearest.
    pub(super) near: Option<String>,
}

/// What to do with a Dockerfile.
const FROM_DOCKERFILE: &str =
    "write an image.toml in its place: docs/from-dockerfile.md says what each instruction is there";

/// Tells whether a file is a Dockerfile, by its name.
fn is_dockerfile(path: &Path) -> bool {
    let name = path.file_name().and_then(|it| it.to_str());
    let name = name.unwrap_or_default().to_ascii_lowercase();
    let is_it = |word: &str| {
        let is_named = name.strip_prefix(word);
        is_named.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            || name.ends_with(&format!(".{word}"))
    };
    (is_it("dockerfile") || is_it("containerfile")) && !name.ends_with(".toml")
}

/// Tells the manifest from the targets. The first word is a manifest if it ends in `.toml`, has a slash, or is `.` or
/// `..`; a plain name is a target, unless there is no such target, but a folder with a manifest or a file.
fn manifest<'a>(choice: &'a Choice, here: &Path) -> Result<(PathBuf, Spec, &'a [String]), Failed> {
    let load = |path: PathBuf| {
        if is_dockerfile(&path) {
            let message = format!("{} is a Dockerfile: these are not read", path.display());
            let help = Some(FROM_DOCKERFILE.to_owned());
            return Err(Failed::usage("imgdecl::cli::dockerfile", message, help));
        }
        let spec = Spec::load(&path, &rule::names(), &choice.set);
        let spec = spec.map_err(|error| load_error(error, &path))?;
        Ok((path, spec))
    };
    let within = |path: PathBuf| {
        if path.is_dir() {
            path.join(MANIFEST)
        } else {
            path
        }
    };
    let not_found = |message: String| {
        let beside = ["Dockerfile", "Containerfile"].map(|name| here.join(name).is_file());
        let help = Some(match beside.contains(&true) {
            true => FROM_DOCKERFILE.to_owned(),
            false => format!("name a manifest, or write {MANIFEST}"),
        });
        Failed::usage("imgdecl::cli::manifest", &message, help)
    };
    let nearest = || find_manifest(here);
    if let Some((first, rest)) = choice.words.split_first() {
        let path = within(here.join(first));
        let is_path =
            first.ends_with(".toml") || first.contains('/') || first == "." || first == "..";
        if is_path && !path.is_file() && !first.contains(':') {
            return Err(not_found(format!(
                "there is no manifest {}",
                path.display()
            )));
        }
        if is_path && path.is_file() {
            return load(path).map(|(path, spec)| (path, spec, rest));
        }
        if path.is_file() {
            if let Some((nearest, spec)) = nearest().map(load).transpose()?
                && spec.resolve_typed(first, fits).is_ok()
            {
                return Ok((nearest, spec, &choice.words[..]));
            }
            return load(path).map(|(path, spec)| (path, spec, rest));
        }
    }
    let message = || format!("there is no {MANIFEST} in {} or above", here.display());
    let path = nearest().ok_or_else(|| not_found(message()))?;
    load(path).map(|(path, spec)| (path, spec, &choice.words[..]))
}

/// Fills up what the user chose by what the root builds where nothing is named.
fn or_default(spec: &Spec, mut chosen: Chosen) -> Result<Chosen, Failed> {
    let default = spec.default.as_ref().filter(|_| spec.home.is_empty());
    let Some((words, table)) = default.filter(|_| chosen.targets.is_empty()) else {
        return Ok(chosen);
    };
    let problem = |span, message: String, help| {
        let problem = table.problem("imgdecl::spec::default", span, message, "no such images");
        let problems = match help {
            Some(help) => problem.help(help),
            None => problem,
        };
        Failed::from(Problems::from(problems))
    };
    let own = spec.choose(words.iter().map(|it| it.get_ref().as_str()), fits, is_image);
    let own =
        own.map_err(|(number, (message, help))| problem(words[number].span(), message, help))?;
    if own.targets.is_empty() && own.except.is_empty() {
        let help = "name some, or leave it out: then all images are built";
        let message = "`default` is empty".to_owned();
        return Err(problem(table.span.clone(), message, Some(help.to_owned())));
    }
    chosen.targets = own.targets;
    chosen.except.extend(own.except);
    Ok(chosen)
}

/// Tells whether a target is an image: patterns mean these alone.
fn is_image(target: &Target) -> bool {
    Role::of(target) == Role::Image
}

/// Tells whether a target can be built: an image or a group.
fn fits(target: &Target) -> bool {
    matches!(Role::of(target), Role::Image | Role::Group)
}

fn load_error(error: LoadError, manifest: &Path) -> Failed {
    Failed::Load {
        error: Box::new(error),
        manifest: manifest.to_owned(),
    }
}
