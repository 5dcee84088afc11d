//! What most commands do first: find the manifest, read it, choose targets, open the cache.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::Spanned;

use super::args::Common;
use super::environment::{RealHost, cache_dir, current_dir};
use super::exit::Exit;
use super::image::Missed;
use super::report;
use crate::index::{Source, SourceError};
use crate::lock::{self, Lock};
use crate::oci::Platform;
use crate::plan::{self, Plan, PlanError, Request};
use crate::rule::{self, RULES};
use crate::spec::{LoadError, MANIFEST, Problems, Spec, Target, TargetId, find_manifest, nearest};
use crate::store::Store;

/// The name of the default output folder, beside the manifest.
const OUT: &str = "imgdecl-out";

/// What the user chose on the command line.
pub(super) struct Choice<'a> {
    /// The manifest, and targets.
    pub(super) words: &'a [String],
    /// Variables.
    pub(super) set: &'a [(String, String)],
    /// Platforms; all if empty.
    pub(super) platforms: &'a [Platform],
}

impl Common {
    pub(super) fn choice(&self) -> Choice<'_> {
        Choice {
            words: &self.words,
            set: &self.set,
            platforms: &self.platform,
        }
    }
}

/// The manifests, and what to build of them.
pub(super) struct Setup {
    pub(super) spec: Spec,
    pub(super) manifest: PathBuf,
    /// The targets that the user named.
    pub(super) targets: Vec<TargetId>,
    platforms: Vec<Platform>,
    /// The user set variables on the command line.
    pub(super) has_set: bool,
    /// Files that are written: never inputs.
    written: Vec<PathBuf>,
    host: RealHost,
}

impl Setup {
    /// Reads the manifests. `written` are paths that commands write, from the working folder.
    pub(super) fn new(choice: &Choice<'_>, written: Vec<PathBuf>) -> Result<Self, Exit> {
        let here = here()?;
        let (manifest, spec, words) = manifest(choice, &here)?;
        let mut targets = Vec::new();
        for word in words {
            let id = spec
                .resolve_typed(word, fits)
                .map_err(|(message, help)| usage("imgdecl::cli::target", &message, help))?;
            targets.push(id);
        }
        let host = RealHost::new();
        let host = host.map_err(|message| usage("imgdecl::cli::environment", &message, None))?;
        Ok(Self {
            spec,
            manifest,
            targets,
            platforms: choice.platforms.to_vec(),
            has_set: !choice.set.is_empty(),
            written,
            host,
        })
    }

    /// Finds the image or group that a word names in the nearest manifest. A word that is no name of a target asks nothing
    /// of the manifest, which may be wrong then.
    pub(super) fn of_image(
        word: &str,
        set: &[(String, String)],
        platforms: &[Platform],
    ) -> Result<Result<Self, Missed>, Exit> {
        let mut missed = Missed {
            manifest: None,
            near: None,
        };
        let Some(path) = find_manifest(&here()?) else {
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
        let host = RealHost::new();
        let host = host.map_err(|message| usage("imgdecl::cli::environment", &message, None))?;
        Ok(Ok(Self {
            spec,
            manifest: path,
            targets: vec![id],
            platforms: platforms.to_vec(),
            has_set: !set.is_empty(),
            written: Vec::new(),
            host,
        }))
    }

    /// Opens the cache, and has the digests of the host's files remembered there.
    pub(super) fn store(&self) -> Result<Arc<Store>, Exit> {
        let store = store()?;
        self.remember(&store);
        Ok(store)
    }

    /// Has the digests of the host's files remembered in the cache.
    pub(super) fn remember(&self, store: &Arc<Store>) {
        self.host.remember(store);
    }

    /// Returns the default output folder.
    pub(super) fn out(&self) -> PathBuf {
        let home = self.spec.members.get(&self.spec.home);
        home.map_or(&self.spec.root, |home| &home.folder).join(OUT)
    }

    /// Returns the package indexes that the manifest names.
    pub(super) fn index(&self) -> Result<Option<Vec<Source>>, Exit> {
        let Some((index, table)) = self.spec.index(&self.host).map_err(report::problems)? else {
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
            false => Err(report::problems(problems)),
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
    pub(super) fn plan(&self, lock: &Lock, with_bytes: bool) -> Result<Plan, Exit> {
        self.planned(lock, with_bytes, false)
    }

    /// Makes the plan with a lock that is about to change.
    pub(super) fn plan_to_lock(&self, lock: &Lock) -> Result<Plan, Exit> {
        self.planned(lock, false, true)
    }

    fn planned(&self, lock: &Lock, with_bytes: bool, is_locking: bool) -> Result<Plan, Exit> {
        let request = self.request(lock, with_bytes, is_locking);
        plan::plan(&request).map_err(|error| plan_error(error, &self.manifest))
    }

    fn request<'a>(&'a self, lock: &'a Lock, with_bytes: bool, is_locking: bool) -> Request<'a> {
        Request {
            is_locking,
            spec: &self.spec,
            host: &self.host,
            lock,
            with_bytes,
            targets: self.targets.clone(),
            platforms: self.platforms.clone(),
            never: self.never(),
        }
    }

    /// Returns the paths that are never inputs: outputs, the cache and the lock file.
    pub(super) fn never(&self) -> BTreeSet<PathBuf> {
        let members = self.spec.members.values();
        let outs = members.map(|member| member.folder.join(OUT));
        let written = self.written.iter().cloned().chain(cache_dir());
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

/// Returns the working folder.
pub(super) fn here() -> Result<PathBuf, Exit> {
    current_dir().map_err(|error| {
        let message = format!("there is no working folder: {error}");
        usage("imgdecl::cli::folder", &message, None)
    })
}

/// Opens the cache.
pub(super) fn store() -> Result<Arc<Store>, Exit> {
    let root = cache_root()?;
    Store::open(&root).map(Arc::new).map_err(|error| {
        report::error(
            "imgdecl::cache",
            &error,
            Some("name another folder with IMGDECL_CACHE_DIR".into()),
        );
        Exit::Failed
    })
}

/// Returns the cache folder.
pub(super) fn cache_root() -> Result<PathBuf, Exit> {
    cache_dir().map_err(|message| {
        usage(
            "imgdecl::cache",
            &message,
            Some("name a folder with IMGDECL_CACHE_DIR".into()),
        )
    })
}

/// Prints an error of the command line.
pub(super) fn usage(code: &str, message: &str, help: Option<String>) -> Exit {
    report::plain(code, message, help);
    Exit::Usage
}

/// Tells the manifest from the targets. The first word is a manifest if it ends in `.toml`, has a slash, or is `.` or
/// `..`; a plain name is a target, unless there is no such target, but a folder with a manifest or a file.
fn manifest<'a>(choice: &Choice<'a>, here: &Path) -> Result<(PathBuf, Spec, &'a [String]), Exit> {
    let load = |path: PathBuf| {
        let spec = Spec::load(&path, &rule::names(), choice.set);
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
        let help = Some(format!("name a manifest, or write {MANIFEST}"));
        usage("imgdecl::cli::manifest", &message, help)
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
                return Ok((nearest, spec, choice.words));
            }
            return load(path).map(|(path, spec)| (path, spec, rest));
        }
    }
    let message = || format!("there is no {MANIFEST} in {} or above", here.display());
    let path = nearest().ok_or_else(|| not_found(message()))?;
    load(path).map(|(path, spec)| (path, spec, choice.words))
}

/// Tells whether a target can be built: an image or a group.
fn fits(target: &Target) -> bool {
    matches!(RULES[target.rule].name(), "image" | "group")
}

fn load_error(error: LoadError, manifest: &Path) -> Exit {
    match error {
        LoadError::Problems(problems) => report::problems(problems),
        LoadError::Io { path, source } => {
            let help = (path != manifest).then(|| format!("needed by {}", manifest.display()));
            usage(
                "imgdecl::cli::manifest",
                &format!("cannot read {}: {source}", path.display()),
                help,
            )
        }
        LoadError::Set { name, near } => {
            let help = near.map_or("variables are declared under [vars]".to_owned(), |near| {
                format!("did you mean `{near}`?")
            });
            usage(
                "imgdecl::cli::set",
                &format!("no manifest has a variable `{name}`"),
                Some(help),
            )
        }
    }
}

fn plan_error(error: PlanError, manifest: &Path) -> Exit {
    match error {
        PlanError::Problems(problems) => report::problems(problems),
        PlanError::NotAnImage { id, rule } => usage(
            "imgdecl::cli::target",
            &format!("`{id}` is no image, but a target of rule {rule}"),
            Some("name an image or a group".into()),
        ),
        PlanError::NoImages => usage(
            "imgdecl::cli::no_images",
            &format!("{} has no image", manifest.display()),
            Some("add one: [image.NAME]".into()),
        ),
        PlanError::Platform { wanted, have } => {
            let help = format!("they have: {}", have.join(", "));
            usage(
                "imgdecl::cli::platform",
                &format!("no image is for {wanted}"),
                Some(help),
            )
        }
    }
}
