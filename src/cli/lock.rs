//! `lock`, and what `build` does about `image.lock`.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::CANCEL;
use super::args;
use super::build::{print, stopped};
use super::exit::Exit;
use super::export::export;
use super::file::write_file;
use super::net::Net;
use super::report;
use super::setup::{Choice, Setup, usage};
use crate::exec::Memory;
use crate::graph::{Context, Failure, Node, Ports};
use crate::lock::{self, Lock, LockError};
use crate::oci::Digest;
use crate::pin::{PinError, Update, pin};
use crate::plan::Plan;
use crate::rule::{Need, UNPINNED};
use crate::source::read_document;
use crate::spec::{Problem, Problems, Spec, TargetId};
use crate::store::{KeyLock, Store};
use crate::ui::Progress;

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

/// Runs `imgdecl lock`.
pub(super) fn lock(args: &args::Lock) -> Result<Exit, Exit> {
    let words: Vec<String> = args.manifest.iter().cloned().collect();
    let choice = Choice {
        words: &words,
        set: &args.set,
        platforms: &[],
    };
    let setup = Setup::new(&choice, Vec::new())?;
    if let (Some(word), false) = (&args.manifest, setup.targets.is_empty()) {
        let message = format!("`{word}` is no manifest");
        let help =
            "`imgdecl lock` locks all bases, and `imgdecl lock --update NAME` resolves one again";
        return Err(usage("imgdecl::cli::manifest", &message, Some(help.into())));
    }
    let store = setup.store()?;
    let progress = Arc::new(Progress::new(args.progress, &CANCEL));
    let _turn = turn(&setup.spec.root, &store, &progress)?;
    let old = match &args.update {
        None => load(&setup.spec.root)?,
        // What is resolved again need not be right now.
        Some(_) => load_without_edited(&setup.spec.root)?,
    };
    let plan = setup.plan_to_lock(&old)?;
    let update = update(args, &setup, &plan.needs)?;
    let net = Net::of(
        &setup,
        (&args.net, &args.index),
        args.offline,
        &store,
        &progress,
    )?;
    let new = resolve(&setup, plan, &old, update, &store, net.ports(), &progress)?;
    save(&setup.spec.root, &new)?;
    let moved = lock::changes(&old, &new);
    let exported = match args.export {
        None => String::new(),
        Some(args::Export::Pylock) => {
            let plan = setup.plan(&new, false)?;
            let context = Context {
                store: &store,
                ports: net.ports(),
                parts: &Memory::new(&store),
                tick: &|_| !CANCEL.load(Ordering::Relaxed),
                note: &|text| progress.note(text),
            };
            export(args, &setup, &plan.needs, &new, &context)?
        }
    };
    // A lock on stdout is alone there.
    if args.output.as_deref() == Some("-") {
        moved.iter().for_each(|line| progress.note(line));
        return print(&exported);
    }
    let text: String = match (moved.is_empty(), new.is_empty()) {
        (true, true) => {
            "nothing to lock: no base is in a registry, and no packages are asked for\n".to_owned()
        }
        (true, false) => format!("{} is up to date\n", lock::FILE),
        _ => moved.iter().map(|line| format!("{line}\n")).collect(),
    };
    let exit = print(&(text + &exported))?;
    // What does not go together is better told now than by the build.
    setup.plan(&new, false)?;
    Ok(exit)
}

/// Returns what the user wants to be resolved again.
fn update(args: &args::Lock, setup: &Setup, needs: &[Need]) -> Result<Update, Exit> {
    let names = match &args.update {
        None => return Ok(Update::Lacking),
        Some(names) if names.is_empty() => return Ok(Update::All),
        Some(names) => names,
    };
    let mut ids = BTreeSet::new();
    let fits = |id: &TargetId| needs.iter().any(|need| need.target == *id);
    for name in names {
        let id = setup
            .spec
            .resolve_typed(name, |target| fits(&target.id))
            .map_err(|(message, help)| usage("imgdecl::cli::target", &message, help))?;
        if !fits(&id) {
            let message = format!("`{name}` is nothing that {} holds", lock::FILE);
            let help = "name a base with `image`, which an image builds on";
            return Err(usage("imgdecl::cli::target", &message, Some(help.into())));
        }
        ids.insert(id);
    }
    Ok(Update::Targets(ids))
}

/// Waits until no other process is about to write the lock of a workspace: each would drop what the other one resolved.
fn turn(root: &Path, store: &Store, progress: &Progress) -> Result<KeyLock, Exit> {
    let real = root.canonicalize().unwrap_or_else(|_| root.to_owned());
    let name = [b"turn at image.lock ", real.as_os_str().as_bytes()].concat();
    let mut is_told = false;
    loop {
        let turn = store.try_lock(&Digest::of(&name)).map_err(|error| {
            let help = "free space, or name another folder with IMGDECL_CACHE_DIR";
            report::error("imgdecl::cache", &error, Some(help.to_owned()));
            Exit::Cache
        })?;
        if let Some(turn) = turn {
            return Ok(turn);
        }
        if CANCEL.load(Ordering::Relaxed) {
            return Err(stopped());
        }
        if !std::mem::replace(&mut is_told, true) {
            progress.note(&format!("another imgdecl is at {}; waiting", lock::FILE));
        }
        std::thread::sleep(WAIT);
    }
}

/// Reads the lock of a workspace; there may be none.
pub(super) fn load(root: &Path) -> Result<Lock, Exit> {
    read(root)?.map_or(Ok(Lock::default()), |text| {
        Lock::parse(&text).map_err(|error| told(&error))
    })
}

fn load_without_edited(root: &Path) -> Result<Lock, Exit> {
    read(root)?.map_or(Ok(Lock::default()), |text| {
        Lock::parse_without_edited(&text).map_err(|error| told(&error))
    })
}

fn told(error: &LockError) -> Exit {
    report::lock(error);
    Exit::Usage
}

fn read(root: &Path) -> Result<Option<String>, Exit> {
    let path = root.join(lock::FILE);
    let bytes = match read_document(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other,
    };
    let text = bytes.and_then(|bytes| String::from_utf8(bytes).map_err(std::io::Error::other));
    text.map(Some).map_err(|error| {
        let message = format!("cannot read {}: {error}", path.display());
        usage("imgdecl::lock::file", &message, None)
    })
}

/// Writes the lock, unless it is as it was, or there is nothing to say.
fn save(root: &Path, lock: &Lock) -> Result<(), Exit> {
    let text = lock.to_text();
    let was = read(root)?;
    if was.as_deref() == Some(&text) || (was.is_none() && lock.is_empty()) {
        return Ok(());
    }
    let path = root.join(lock::FILE);
    write_file(&path, text.as_bytes()).map_err(|error| {
        let help = "the folder must be writable, or the lock complete: commit one, and build with `--locked`";
        report::plain(
            "imgdecl::lock::file",
            &format!("cannot write {}: {error}", path.display()),
            Some(help.into()),
        );
        Exit::Failed
    })
}

/// Makes sure that the lock has all that a build needs. Returns the lock and the plan with it.
pub(super) fn complete(
    setup: &Setup,
    with_bytes: bool,
    lacking: Lacking,
    store: &Arc<Store>,
    net: &Net,
    progress: &Progress,
) -> Result<Plan, Exit> {
    let old = load(&setup.spec.root)?;
    let plan = setup.plan(&old, with_bytes)?;
    if plan.needs.iter().all(|need| need.is_pinned) {
        return Ok(plan);
    }
    let is_refused = match lacking {
        Lacking::Resolve => false,
        Lacking::Locked => true,
        Lacking::Offline => plan.needs.iter().any(needs_registry),
    };
    if is_refused {
        let problems = problems(&plan.needs, lacking, setup.has_set);
        return Err(report::problems(problems));
    }
    let _turn = turn(&setup.spec.root, store, progress)?;
    // Another process may have resolved it meanwhile.
    let old = load(&setup.spec.root)?;
    let plan = setup.plan(&old, with_bytes)?;
    if plan.needs.iter().all(|need| need.is_pinned) {
        return Ok(plan);
    }
    let (update, ports) = (Update::Lacking, net.ports());
    let new = resolve(setup, plan, &old, update, store, ports, progress)?;
    save(&setup.spec.root, &new)?;
    let changes = lock::changes(&old, &new);
    progress.note(&match changes.is_empty() {
        true => format!(
            "{} was brought up to date: nothing else was chosen",
            lock::FILE
        ),
        false => format!("{} was brought up to date:", lock::FILE),
    });
    changes
        .iter()
        .for_each(|line| progress.note(&format!("  {line}")));
    setup.plan(&new, with_bytes)
}

/// Tells whether only a registry can say what is needed: a base's reference has no digest yet.
fn needs_registry(need: &Need) -> bool {
    !need.is_pinned && !need.waits && need.payload.is_none()
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

/// Says, after a plan, what would be resolved first.
pub(super) fn note_lacking(needs: &[Need]) {
    let lacking = needs.iter().filter(|need| !need.is_pinned);
    let line = |need: &Need| {
        let (file, target) = (lock::FILE, &need.target);
        match &need.was {
            None => format!("{file} lacks `{target}`: `imgdecl lock` resolves it"),
            Some(was) => {
                // Of what lies on disk, `was` says what it is now.
                let now = needs_registry(need).then(|| format!(", and is {} now", need.wanted));
                let now = now.unwrap_or_default();
                format!(
                    "{file} is stale: `{target}` was resolved from {was}{now}: `imgdecl lock` resolves it again"
                )
            }
        }
    };
    let lines: BTreeSet<String> = lacking.map(line).collect();
    lines.iter().for_each(|line| crate::ui::line(line));
}

/// Says what the lock has in place of what a node of a plan stands for. `None` of a node that needs nothing of the lock, or
/// has it.
pub(super) fn lacking(node: &Node, needs: &[Need], spec: &Spec) -> Option<String> {
    if !UNPINNED.contains(&node.action.name()) {
        return None;
    }
    let label = &node.label;
    let is_its = |need: &&Need| {
        label.platform.as_ref() == Some(&need.platform)
            && label.target == spec.short_name(&need.target)
    };
    let its = || needs.iter().filter(is_its);
    if let Some(was) = its().find_map(|need| need.was.as_ref()) {
        return Some(format!(
            "{} is stale: it was resolved from {was}",
            lock::FILE
        ));
    }
    Some(match its().next() {
        Some(need) if need.is_pinned => "its base is resolved first".to_owned(),
        _ => format!("{} lacks it", lock::FILE),
    })
}

/// How often resolving may show that more is to be resolved: packages wait for their base.
const ROUNDS: usize = 4;

fn resolve(
    setup: &Setup,
    mut plan: Plan,
    old: &Lock,
    mut update: Update,
    store: &Arc<Store>,
    ports: Ports<'_>,
    progress: &Progress,
) -> Result<Lock, Exit> {
    let tick = |_: u64| !CANCEL.load(Ordering::Relaxed);
    let context = Context {
        store,
        ports,
        parts: &Memory::new(store),
        tick: &tick,
        note: &|text| progress.note(text),
    };
    let start = |need: &Need| match need.payload {
        Some(_) => progress.note(&format!("resolving {}", need.target)),
        None => progress.note(&format!("resolving {}", need.wanted)),
    };
    let mut lock = old.clone();
    for _ in 0..ROUNDS {
        let pinned = pin(&setup.spec, &lock, &plan.needs, &update, &context, &start);
        lock = pinned.map_err(|errors| failed(&errors))?;
        plan = setup.plan_to_lock(&lock)?;
        if plan.needs.iter().all(|need| need.is_pinned) {
            break;
        }
        update = Update::Lacking;
    }
    Ok(lock)
}

/// Reports what could not be pinned.
fn failed(errors: &[PinError]) -> Exit {
    if CANCEL.load(Ordering::Relaxed) {
        return stopped();
    }
    let mut worst = Exit::Failed;
    for failed in errors {
        let exit = match failed.error.failure {
            Failure::Stopped => stopped(),
            _ => report::failure(&failed.label, &failed.origin, &failed.error),
        };
        worst = worst.max(exit);
    }
    worst
}
