//! `lock`, and what `build` does about `image.lock`.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::export::{Exported, export};
use super::file::write_file;
use super::net::{Net, Network};
use super::workspace::{Choice, Workspace};
use super::{Blame, Failed, News, NodeFailure, Session};
use crate::exec::Memory;
use crate::graph::{Context, Failure, Ports};
use crate::lock::{self, Lock};
use crate::oci::Digest;
use crate::pin::{PinError, Update, pin};
use crate::plan::Plan;
use crate::rule::{self, Need};
use crate::source::read_document;
use crate::spec::{Problem, Problems, TargetId, suggest};
use crate::store::{KeyLock, Store};

/// What to do where the lock lacks something.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Lacking {
    /// Resolve it, and write the lock.
    Resolve,
    /// Fail: the lock must have all.
    Locked,
    /// Resolve what lies on disk: packages of folders, bases of layouts and archives. Fail where that needs a network.
    Offline,
}

/// How often it is tried to get the turn at the lock.
const WAIT: Duration = Duration::from_millis(50);

/// What is to be locked.
#[derive(Default)]
pub(crate) struct Request {
    /// The manifest or its folder.
    pub(crate) manifest: Option<String>,
    /// Variables.
    pub(crate) set: Vec<(String, String)>,
    /// How the network is reached.
    pub(crate) network: Network,
    /// What is resolved again although it is locked: these, or all if none is named.
    pub(crate) update: Option<Vec<String>>,
    /// Packages that are resolved again, in all targets that have them, while all others stay where they are.
    pub(crate) upgrade: Vec<String>,
    /// What is locked for Python packages is written in the form of another tool, too.
    pub(crate) export: bool,
    /// Where that goes: a file, a folder, or `-` for nowhere: then it is returned.
    pub(crate) output: Option<String>,
}

/// What `lock` did.
pub(crate) struct Locked {
    /// What changed in the lock, a line for each.
    pub(crate) changes: Vec<String>,
    /// The lock holds nothing.
    pub(crate) is_empty: bool,
    /// It was written: something of it is new, though perhaps nothing that is chosen.
    pub(crate) is_written: bool,
    /// What was exported.
    pub(crate) exported: Vec<Exported>,
    /// What does not go together: better told now than by the build.
    pub(crate) unplanned: Option<Failed>,
}

impl Lacking {
    /// Decides what to do: `locked` if the user says it, else what CI systems want.
    pub(super) fn of(session: &Session, locked: Option<bool>, offline: bool) -> Self {
        match locked.unwrap_or(session.environment.is_ci) {
            true => Self::Locked,
            false if offline => Self::Offline,
            false => Self::Resolve,
        }
    }
}

/// Resolves what image.lock lacks, and writes it.
///
/// # Errors
/// When anything of it cannot be done.
pub(crate) fn lock(session: &Session, request: &Request) -> Result<Locked, Failed> {
    let choice = Choice {
        words: request.manifest.iter().cloned().collect(),
        set: request.set.clone(),
        platforms: Vec::new(),
    };
    let workspace = Workspace::new(session, &choice, Vec::new())?;
    if let (Some(word), false) = (&request.manifest, !workspace.is_chosen) {
        let message = format!("`{word}` is no manifest");
        let help =
            "`imgdecl lock` locks all bases, and `imgdecl lock --update NAME` resolves one again";
        let help = Some(help.to_owned());
        return Err(Failed::usage("imgdecl::cli::manifest", message, help));
    }
    let store = workspace.store(session)?;
    let _turn = turn(session, &workspace.spec.root, &store)?;
    let old = match &request.update {
        None => load(&workspace.spec.root)?,
        // What is resolved again need not be right now.
        Some(_) => load_without_edited(&workspace.spec.root)?,
    };
    let mut plan = workspace.plan_to_lock(&old)?;
    let update = update(request, &workspace, &plan.needs)?;
    let start = without(&old, &request.upgrade, &plan.needs)?;
    if !request.upgrade.is_empty() {
        plan = workspace.plan_to_lock(&start)?;
    }
    let network = Network {
        // Who wants what is newest means now.
        is_anew: request.update.is_some() || !request.upgrade.is_empty(),
        ..request.network.clone()
    };
    let net = Net::of(session, &workspace, &network, &store)?;
    let new = resolve(
        session,
        &workspace,
        plan,
        &start,
        update,
        (&store, net.ports()),
    )?;
    let is_written = save(&workspace.spec.root, &new)?;
    let changes = lock::changes(&old, &new);
    if let (Some(_), []) = (request.upgrade.first(), &changes[..]) {
        let names = request.upgrade.join(", ");
        session.note(&format!(
            "{names}: nothing newer goes with what is asked for; where another tool made the lock, it is moved there"
        ));
    }
    let mut exported = Vec::new();
    if request.export {
        let plan = workspace.plan(&new, false)?;
        let context = Context {
            store: &*store,
            folder: &store,
            ports: net.ports(),
            tick: &|_| !session.stop.is_asked(),
            parts: &Memory::new(&*store, &*store),
            note: &|text| session.note(text),
        };
        let to = request.output.as_deref();
        exported = export(session, &workspace, (&plan.needs, &new), to, &context)?;
    }
    Ok(Locked {
        changes,
        is_empty: new.is_empty(),
        is_written,
        exported,
        unplanned: workspace.plan(&new, false).err(),
    })
}

/// Makes sure that `lock` would change nothing. Writes nothing, and opens no socket.
///
/// # Errors
/// What image.lock lacks, or holds in vain.
pub(crate) fn check(
    session: &Session,
    manifest: Option<&String>,
    set: &[(String, String)],
) -> Result<(), Failed> {
    let choice = Choice {
        words: manifest.into_iter().cloned().collect(),
        set: set.to_vec(),
        platforms: Vec::new(),
    };
    let workspace = Workspace::new(session, &choice, Vec::new())?;
    let old = load(&workspace.spec.root)?;
    let plan = workspace.plan_to_lock(&old)?;
    let lacking = unlocked(&workspace, &plan.needs);
    if !lacking.is_empty() {
        return Err(Failed::Problems(lacking, Blame::Build));
    }
    let given = given(&plan.needs);
    if !given.is_empty() {
        session.note(&of_other_locks(&given));
        return Ok(());
    }
    let store = workspace.store(session)?;
    let new = resolve(
        session,
        &workspace,
        plan,
        &old,
        Update::Lacking,
        (&store, Ports::OFFLINE),
    )?;
    let changes = lock::changes(&old, &new);
    if changes.is_empty() {
        return Ok(());
    }
    let message = format!(
        "{} holds what nothing needs any more: {}",
        lock::FILE,
        changes.join("; ")
    );
    let help = "run `imgdecl lock`, and commit image.lock".to_owned();
    Err(Failed::build("imgdecl::lock::stale", message, Some(help)))
}

/// Returns what the user wants to be resolved again.
fn update(request: &Request, workspace: &Workspace, needs: &[Need]) -> Result<Update, Failed> {
    let names = match &request.update {
        None => return Ok(Update::Lacking),
        Some(names) if names.is_empty() => return Ok(Update::All),
        Some(names) => names,
    };
    let mut ids = BTreeSet::new();
    let fits = |id: &TargetId| needs.iter().any(|need| need.target == *id);
    for name in names {
        let id = workspace
            .spec
            .resolve_typed(name, |target| fits(&target.id))
            .map_err(|(message, help)| Failed::usage("imgdecl::cli::target", message, help))?;
        if !fits(&id) {
            let message = format!("`{name}` is nothing that {} holds", lock::FILE);
            let help = "name a base with `image`, which an image builds on";
            return Err(Failed::usage(
                "imgdecl::cli::target",
                &message,
                Some(help.into()),
            ));
        }
        ids.insert(id);
    }
    Ok(Update::Targets(ids))
}

/// Returns a lock without some packages, in all targets that have them.
fn without(old: &Lock, packages: &[String], needs: &[Need]) -> Result<Lock, Failed> {
    let mut lock = old.clone();
    let targets: BTreeMap<String, usize> = needs
        .iter()
        .map(|need| (need.target.to_string(), need.rule))
        .collect();
    let all = |lock: &Lock| -> BTreeSet<String> {
        let targets = targets.iter();
        targets
            .flat_map(|(target, rule)| rule::RULES[*rule].packages(lock, target))
            .collect()
    };
    for package in packages {
        let name = normalised(package);
        let known = all(old);
        if !known.contains(&name) {
            let message = format!("{} has no package `{package}`", lock::FILE);
            let near = suggest(&name, known.iter().map(String::as_str));
            let help = near.map(|it| format!("did you mean `{it}`?"));
            let help = help.unwrap_or_else(|| "name a package that is locked".to_owned());
            return Err(Failed::usage("imgdecl::cli::package", &message, Some(help)));
        }
        for (target, rule) in &targets {
            let rule = rule::RULES[*rule];
            if rule.packages(&lock, target).contains(&name) {
                rule.forget(&mut lock, target, &name);
            }
        }
    }
    Ok(lock)
}

/// Normalises the name of a package: lower case, with one `-` for each run of `-`, `_` and `.`.
fn normalised(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    let parts = lower.split(['-', '_', '.']).filter(|it| !it.is_empty());
    parts.collect::<Vec<_>>().join("-")
}

/// Waits until no other process is about to write the lock of a workspace: each would drop what the other one resolved.
fn turn(session: &Session, root: &Path, store: &Store) -> Result<KeyLock, Failed> {
    let real = root.canonicalize().unwrap_or_else(|_| root.to_owned());
    let name = [b"turn at image.lock ", real.as_os_str().as_bytes()].concat();
    let mut is_told = false;
    loop {
        let turn = store.try_lock(&Digest::of(&name)).map_err(|error| {
            let help = "free space, or name another folder with IMGDECL_CACHE_DIR";
            Failed::error(
                Blame::Cache,
                "imgdecl::cache",
                &error,
                Some(help.to_owned()),
            )
        })?;
        if let Some(turn) = turn {
            return Ok(turn);
        }
        session.go_on()?;
        if !std::mem::replace(&mut is_told, true) {
            session.news(&News::LockIsTaken);
        }
        std::thread::sleep(WAIT);
    }
}

/// Reads the lock of a workspace; there may be none.
pub(super) fn load(root: &Path) -> Result<Lock, Failed> {
    read(root)?.map_or(Ok(Lock::default()), |text| {
        Lock::parse(&text, &rule::forms()).map_err(Failed::from)
    })
}

fn load_without_edited(root: &Path) -> Result<Lock, Failed> {
    read(root)?.map_or(Ok(Lock::default()), |text| {
        Lock::parse_without_edited(&text, &rule::forms()).map_err(Failed::from)
    })
}

fn read(root: &Path) -> Result<Option<String>, Failed> {
    let path = root.join(lock::FILE);
    let bytes = match read_document(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other,
    };
    let text = bytes.and_then(|bytes| String::from_utf8(bytes).map_err(std::io::Error::other));
    text.map(Some).map_err(|error| {
        let message = format!("cannot read {}: {error}", path.display());
        Failed::usage("imgdecl::lock::file", &message, None)
    })
}

/// Writes the lock, unless it is as it was, or there is nothing to say. Tells whether it was written.
fn save(root: &Path, lock: &Lock) -> Result<bool, Failed> {
    let text = lock.to_text();
    let was = read(root)?;
    if was.as_deref() == Some(&text) || (was.is_none() && lock.is_empty()) {
        return Ok(false);
    }
    let path = root.join(lock::FILE);
    write_file(&path, text.as_bytes()).map_err(|error| {
        let help = "the folder must be writable, or the lock complete: commit one, and build with `--locked`";
        Failed::build("imgdecl::lock::file",
            format!("cannot write {}: {error}", path.display()),
            Some(help.into()))
    })?;
    Ok(true)
}

/// Makes sure that the lock has all that a build needs. Returns the plan with it.
pub(super) fn complete(
    session: &Session,
    workspace: &Workspace,
    with_bytes: bool,
    lacking: Lacking,
    store: &Arc<Store>,
    net: &Net,
) -> Result<Plan, Failed> {
    let root = &workspace.spec.root;
    let old = load(root)?;
    let plan = workspace.plan(&old, with_bytes)?;
    if plan.needs.iter().all(|need| need.is_pinned) {
        return Ok(plan);
    }
    let to = (store, net.ports());
    if lacking == Lacking::Locked {
        let lacking = unlocked(workspace, &plan.needs);
        if !lacking.is_empty() {
            return Err(lacking.into());
        }
        // It is taken as it is, and nothing is written: whoever changed the other tool's lock need not run this one.
        session.note(&of_other_locks(&given(&plan.needs)));
        let new = resolve(session, workspace, plan, &old, Update::Lacking, to)?;
        return workspace.plan(&new, with_bytes);
    }
    if lacking == Lacking::Offline && plan.needs.iter().any(needs_registry) {
        return Err(problems(&plan.needs, lacking, workspace.has_set).into());
    }
    let _turn = turn(session, root, store)?;
    // Another process may have resolved it meanwhile.
    let old = load(root)?;
    let plan = workspace.plan(&old, with_bytes)?;
    if plan.needs.iter().all(|need| need.is_pinned) {
        return Ok(plan);
    }
    let new = resolve(session, workspace, plan, &old, Update::Lacking, to)?;
    save(root, &new)?;
    session.news(&News::Locked(&lock::changes(&old, &new)));
    workspace.plan(&new, with_bytes)
}

/// Says what image.lock lacks that no file of the workspace gives, down to the digests; nothing if all is there.
pub(super) fn unlocked(workspace: &Workspace, needs: &[Need]) -> Problems {
    let is_lacking = |need: &&Need| !need.is_pinned && !need.is_given;
    let lacking: Vec<Need> = needs.iter().filter(is_lacking).cloned().collect();
    problems(&lacking, Lacking::Locked, workspace.has_set)
}

/// Returns the targets that image.lock lacks, and that files of the workspace give.
fn given(needs: &[Need]) -> BTreeSet<String> {
    let given = needs.iter().filter(|need| !need.is_pinned && need.is_given);
    given.map(|need| need.target.to_string()).collect()
}

/// Says which targets are as the locks of other tools have them.
fn of_other_locks(targets: &BTreeSet<String>) -> String {
    let names: Vec<&str> = targets.iter().map(String::as_str).collect();
    format!(
        "{}: taken as the lock of another tool has it, which {} does not hold yet",
        names.join(", "),
        lock::FILE
    )
}

/// Tells whether only a registry can say what is needed: a base's reference has no digest yet.
pub(crate) fn needs_registry(need: &Need) -> bool {
    !need.is_pinned && need.is_reference
}

/// Says what the lock lacks.
fn problems(needs: &[Need], lacking: Lacking, has_set: bool) -> Problems {
    let mut platforms: BTreeMap<_, (&Need, BTreeSet<String>)> = BTreeMap::new();
    // What waits for something else is no news beside it.
    let lacking_now = |need: &&Need| !need.is_pinned && !need.waits;
    for need in needs.iter().filter(lacking_now) {
        let known = platforms.entry(&need.target);
        let (_, names) = known.or_insert((need, BTreeSet::new()));
        names.insert(need.platform.to_string());
    }
    let same = match has_set {
        true => " with the same `--set`",
        false => "",
    };
    let help = match lacking {
        Lacking::Offline => format!("run `imgdecl lock`{same} where there is a network"),
        _ => format!("run `imgdecl lock`{same}, and commit image.lock"),
    };
    let mut problems = Problems::default();
    for (target, (need, names)) in platforms {
        let names: Vec<String> = names.into_iter().collect();
        let (code, message, label) = match &need.was {
            Some(was) => (
                "imgdecl::lock::stale",
                format!(
                    "{} is stale: `{target}` was resolved from {was}",
                    lock::FILE
                ),
                "this is not what was locked".to_owned(),
            ),
            None => (
                "imgdecl::lock::missing",
                format!("{} lacks `{target}`", lock::FILE),
                format!("not locked for {}", names.join(", ")),
            ),
        };
        problems.push(Problem::at(code, &need.origin, message, label).help(help.as_str()));
    }
    problems
}

/// How often resolving may show that more is to be resolved: packages wait for their base.
const ROUNDS: usize = 4;

fn resolve(
    session: &Session,
    workspace: &Workspace,
    mut plan: Plan,
    old: &Lock,
    mut update: Update,
    (store, ports): (&Arc<Store>, Ports<'_>),
) -> Result<Lock, Failed> {
    let tick = |_: u64| !session.stop.is_asked();
    let context = Context {
        store: &**store,
        folder: store,
        ports,
        tick: &tick,
        parts: &Memory::new(&**store, &**store),
        note: &|text| session.note(text),
    };
    let start = |need: &Need| session.news(&News::Resolves(need));
    let mut lock = old.clone();
    for _ in 0..ROUNDS {
        let spec = &workspace.spec;
        let pinned = pin(spec, &lock, &plan.needs, &update, &context, &start);
        lock = pinned.map_err(|errors| failed(session, errors))?;
        plan = workspace.plan_to_lock(&lock)?;
        if plan.needs.iter().all(|need| need.is_pinned) {
            break;
        }
        update = Update::Lacking;
    }
    Ok(lock)
}

/// Says what could not be pinned.
fn failed(session: &Session, errors: Vec<PinError>) -> Failed {
    if session.stop.is_asked() {
        return Failed::Stopped;
    }
    let is_stopped = |it: &PinError| it.error.failure == Failure::Stopped;
    let has_stopped = errors.iter().any(is_stopped);
    let others = errors.into_iter().filter(|it| !is_stopped(it));
    let others = others.map(|it| NodeFailure {
        label: it.label,
        origin: it.origin,
        error: it.error,
    });
    match Failed::of_nodes(others.collect(), has_stopped) {
        Err(failed) => failed,
        Ok(()) => Failed::bug("what could not be resolved has no reason"),
    }
}
