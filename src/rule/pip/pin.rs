//! Pins Python packages: what is asked for becomes wheels, by file name and digest, for each target of Python.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pep440_rs::Version;
use pep508_rs::PackageName;

use super::action::{Folders, fetch};
use super::closed;
use super::errors::{joined, of_input, of_resolve, origin, remote, says_index};
use super::index::Sources;
use super::inputs::Inputs;
use super::pinned::{PipPin, WheelPin, Wheels};
use crate::graph::{ActionError, Context, Failure, WantedWheel};
use crate::lock::Lock;
use crate::python::resolve::{Candidate, Index, IndexError, Question, elsewhere, resolve};
use crate::python::{Locked, Tags, Target, WheelName, without_login};
use crate::rule::Need;
use crate::rule::host::blob_of;
use crate::store::Store;

/// How many files or versions a message names.
const HINTS: usize = 4;

/// How often it is told how far it has come.
const TELL: Duration = Duration::from_millis(200);

/// What a need of the lock carries.
pub(super) struct Payload {
    pub(super) inputs: Arc<Inputs>,
    pub(super) target: Target,
    /// Whether a wheel of the workspace has other bytes than it was locked with.
    pub(super) is_replaced: bool,
    /// What the manifest says against the base, in words.
    pub(super) doubt: Option<String>,
    /// Whether nothing says which C library there is.
    pub(super) is_libc_assumed: bool,
}

/// Brings the pins of a target up to date.
pub(super) fn pin(
    needs: &[&Need],
    update: bool,
    context: &Context<'_>,
    lock: &mut Lock,
) -> Result<(), ActionError> {
    let Some(first) = needs.first() else {
        return Ok(());
    };
    let name = first.target.to_string();
    let payloads = needs
        .iter()
        .filter_map(|need| need.payload.as_ref()?.downcast_ref::<Payload>());
    let payloads: Vec<&Payload> = payloads.collect();
    // The base is locked first; then this comes again.
    let Some(inputs) = payloads.first().map(|it| it.inputs.clone()) else {
        return Ok(());
    };
    let old = lock.get::<PipPin>(&name).cloned();
    let fresh = old.as_ref().filter(|old| inputs.is_of(old) && !update);
    let mut targets: BTreeMap<String, Wheels> = BTreeMap::new();
    // Versions that are pinned stay where they fit, unless they are to move.
    let mut preferences: BTreeMap<PackageName, Version> = BTreeMap::new();
    if let Some(old) = old.as_ref().filter(|_| !update) {
        for file in old.targets.values().flat_map(BTreeMap::keys) {
            if let Ok(wheel) = WheelName::parse(file) {
                preferences.entry(wheel.name).or_insert(wheel.version);
            }
        }
    }
    if !update {
        for (package, version) in commonest(lock, &name) {
            preferences.entry(package).or_insert(version);
        }
    }
    let (mut warnings, mut told) = (BTreeSet::new(), false);
    for payload in payloads {
        let key = payload.target.name();
        if targets.contains_key(&key) {
            continue;
        }
        let known = fresh.filter(|_| !payload.is_replaced);
        if let Some(wheels) = known.and_then(|old| old.targets.get(&key)) {
            targets.insert(key, wheels.clone());
            continue;
        }
        let wheels = wheels(
            &inputs,
            &payload.target,
            &preferences,
            &mut warnings,
            context,
        );
        let wheels = wheels.map_err(|error| match error.origins.is_empty() {
            false => inputs.reach.explain(error),
            true => inputs.reach.explain(error).at(&first.origin),
        })?;
        told |= inputs.reach.said().is_some();
        warnings.extend(inputs.requested.warnings.iter().cloned());
        warnings.extend(payload.doubt.clone());
        if payload.is_libc_assumed && wheels.keys().any(|it| is_native(it)) {
            let libc = payload.target.libc;
            warnings.insert(format!(
                "nothing says which C library the image has: the wheels are for {libc}, until `libc` says another"
            ));
        }
        for file in wheels.keys() {
            if let Ok(wheel) = WheelName::parse(file) {
                preferences.entry(wheel.name).or_insert(wheel.version);
            }
        }
        targets.insert(key, wheels);
    }
    if told && let Some(said) = inputs.reach.news(&targets) {
        (context.note)(&format!("{name}: {said}"));
    }
    warnings
        .iter()
        .for_each(|text| (context.note)(&format!("warning: {name}: {text}")));
    let pin = PipPin {
        inputs: inputs.digest,
        means: Some(inputs.meant.digest()),
        targets,
    };
    lock.put(name, pin);
    Ok(())
}

/// Tells whether a wheel is for a platform.
fn is_native(file: &str) -> bool {
    WheelName::parse(file).is_ok_and(|it| it.platform.iter().any(|it| it != "any"))
}

/// Returns the versions that most other targets of the workspace have: what targets share is one layer only where versions
/// are alike.
fn commonest(lock: &Lock, name: &str) -> BTreeMap<PackageName, Version> {
    let mut counts: BTreeMap<PackageName, BTreeMap<Version, usize>> = BTreeMap::new();
    let others = lock.all::<PipPin>().filter(|(other, _)| *other != name);
    for file in others.flat_map(|(_, pin)| pin.targets.values().flat_map(BTreeMap::keys)) {
        if let Ok(wheel) = WheelName::parse(file) {
            let versions = counts.entry(wheel.name).or_default();
            *versions.entry(wheel.version).or_default() += 1;
        }
    }
    let most = |(package, versions): (PackageName, BTreeMap<Version, usize>)| {
        let most = versions.into_iter().max_by_key(|(_, count)| *count);
        most.map(|(version, _)| (package, version))
    };
    counts.into_iter().filter_map(most).collect()
}

/// Finds the wheels for one target of Python.
fn wheels(
    inputs: &Inputs,
    target: &Target,
    preferences: &BTreeMap<PackageName, Version>,
    warnings: &mut BTreeSet<String>,
    context: &Context<'_>,
) -> Result<Wheels, ActionError> {
    let packages = inputs.reach.packages(target, context);
    let packages = packages.get();
    let was_anew = packages.is_anew();
    let mut own = BTreeSet::new();
    let find = |own: &mut BTreeSet<String>| {
        let sources = Sources::new(context, inputs, packages)?;
        wheels_of(inputs, target, preferences, own, (&sources, context))
    };
    let found = match find(&mut own) {
        // What is missing may have come since its page was asked for: that is told only of pages of now.
        Err(error) if error.failure != Failure::Stopped && !was_anew && packages.ask_anew() => {
            own.clear();
            find(&mut own)
        }
        found => found,
    };
    warnings.append(&mut own);
    packages.tell(None);
    found
}

/// Finds them in what the indexes are known to have.
fn wheels_of(
    inputs: &Inputs,
    target: &Target,
    preferences: &BTreeMap<PackageName, Version>,
    warnings: &mut BTreeSet<String>,
    (sources, context): (&Sources<'_>, &Context<'_>),
) -> Result<Wheels, ActionError> {
    let store = context.folder;
    let mut pins: Vec<(String, Option<crate::oci::Digest>, WheelPin)> = Vec::new();
    // From where a lock of another tool has its files.
    let mut indexes: BTreeMap<String, String> = BTreeMap::new();
    warnings.extend(inputs.nothing(target));
    inputs.check_paths(target)?;
    match inputs.locked(target).map_err(|error| of_input(&error))? {
        Some(set) => {
            let tags = Arc::new(target.tags());
            warnings.extend(set.warnings.iter().cloned());
            sources.prefetch_pinned(&set.packages, &tags);
            let mut errors = Vec::new();
            let (mut told, count) = (Instant::now(), set.packages.len());
            for (at, locked) in set.packages.iter().enumerate() {
                if told.elapsed() >= TELL {
                    told = Instant::now();
                    sources.tell(&format!("{at} of {count} packages found"));
                }
                match of_lock(locked, inputs, target, &tags, sources, store) {
                    Ok(pinned) => {
                        if let Some(index) = &locked.index {
                            indexes.insert(pinned.0.clone(), index.clone());
                        }
                        pins.push(pinned);
                    }
                    Err(error) if error.failure == Failure::Build => errors.push(error),
                    Err(error) => return Err(error),
                }
            }
            if let Some(error) = joined(errors) {
                return Err(error);
            }
            if inputs.foreign.is_none() {
                let names = set.packages.iter().zip(&pins);
                let named =
                    names.map(|(locked, (file, _, pin))| (&locked.name, (file.as_str(), pin)));
                warnings.extend(closed::check(
                    &set,
                    &named.collect(),
                    inputs,
                    target,
                    sources,
                )?);
            }
        }
        None => {
            let question = Question {
                asked: &inputs.requested.asked,
                constraints: &inputs.requested.constraints,
                overrides: &inputs.requested.overrides,
                only_wheels: &inputs.requested.options.only_wheels,
                target,
                is_pre: inputs.requested.options.is_pre,
                preferences,
            };
            let found = resolve(&question, sources).map_err(|error| of_resolve(&error))?;
            for own in inputs.own(target).map_err(|error| of_input(&error))? {
                if found.packages.contains_key(&own.wheel.name) {
                    let name = &own.wheel.name;
                    let message = format!(
                        "`{name}` is a project of the workspace, and what is needed asks an index for it"
                    );
                    let error = ActionError::new("imgdecl::python::project", message);
                    return Err(error.help("take the requirement out, or build the project's wheel and put it into `find_links`"));
                }
            }
            warnings.extend(found.warnings);
            let all = found.packages.values().map(|it| &it.candidate);
            warnings.extend(inputs.reach.ambiguous(all, sources));
            for resolved in found.packages.values() {
                let candidate = &resolved.candidate;
                let (file, sha256, mut pin) = of_candidate(candidate, sources, store)?;
                pin.metadata = sources.metadata_digest(candidate);
                pins.push((file, sha256, pin));
            }
        }
    }
    let mut wheels = Wheels::new();
    for (file, sha256, pin) in pins {
        if sha256.is_none() {
            let message = format!("nothing gives a digest of {file}");
            return Err(ActionError::new("imgdecl::pip::digest", message).help(
                "write it behind the URL, as `#sha256=…`; or download the wheel into a folder, and name that in `find_links`",
            ));
        }
        wheels.insert(file, pin);
    }
    measure(&mut wheels, inputs, &indexes, context)?;
    Ok(wheels)
}

/// Finds the sizes that nothing said so far: of wheels of the workspace by reading them, of others by asking their servers.
fn measure(
    wheels: &mut Wheels,
    inputs: &Inputs,
    indexes: &BTreeMap<String, String>,
    context: &Context<'_>,
) -> Result<(), ActionError> {
    let names: Vec<(String, WheelName)> = wheels
        .iter()
        .filter(|(_, pin)| pin.size.is_none() && !pin.is_own())
        .filter_map(|(file, _)| Some((file.clone(), WheelName::parse(file).ok()?)))
        .collect();
    let wanted = names.iter().map(|(file, name)| WantedWheel {
        project: name.name.as_ref(),
        file,
        sha256: wheels[file].sha256,
        size: None,
        hint: wheels[file]
            .url
            .as_deref()
            .map(|it| inputs.reach.with_login(it)),
        home: wheels[file].home.as_ref(),
    });
    let wanted: Vec<WantedWheel<'_>> = wanted.collect();
    let sizes = match wanted.is_empty() {
        true => Vec::new(),
        // Those of the indexes of a file, and the others.
        false => {
            let homes = wanted.iter().find_map(|it| it.home);
            let (listed, others): (Vec<WantedWheel<'_>>, Vec<WantedWheel<'_>>) =
                wanted.iter().partition(|it| it.home.is_some());
            let mut sizes = [(listed, homes), (others, None)].map(|(wanted, home)| {
                let packages = inputs.reach.packages_of(home, context);
                packages.get().sizes(&wanted).into_iter()
            });
            let one = |it: &WantedWheel<'_>| {
                let at = usize::from(it.home.is_none());
                sizes[at].next().flatten()
            };
            wanted.iter().map(one).collect()
        }
    };
    for ((file, _), size) in names.iter().zip(sizes) {
        if let Some(pin) = wheels.get_mut(file) {
            pin.size = size;
        }
    }
    for (file, pin) in wheels.iter_mut().filter(|(_, pin)| pin.size.is_none()) {
        // The size is known once it is here.
        let at = Folders {
            find_links: &inputs.find_links,
            root: &inputs.root,
            reach: &inputs.reach,
        };
        let fetched = fetch(file, pin, &at, context).map_err(|mut error| {
            // One that cannot be reached is named.
            let is_named = error.code == "imgdecl::index::transport";
            let index = indexes.get(file).filter(|_| !is_named);
            let own = index.and_then(|url| {
                let wheel = WheelName::parse(file).ok()?;
                Some(says_index(&wheel.name, url))
            });
            let lines: Vec<String> = own.into_iter().chain(error.help.take()).collect();
            error.help = Some(lines.join("\n")).filter(|it| !it.is_empty());
            error
        });
        pin.size = Some(fetched?.size);
    }
    Ok(())
}

type Pinned = (String, Option<crate::oci::Digest>, WheelPin);

fn of_candidate(
    candidate: &Candidate,
    sources: &Sources<'_>,
    store: &Store,
) -> Result<Pinned, ActionError> {
    let (mut sha256, mut size) = (candidate.sha256, candidate.size);
    if sha256.is_none() {
        let found = match sources.own(candidate) {
            Some(path) => Some(blob_of(&path, store, sources.tick())?),
            // The index says nothing of it: it is what comes now, and from then on the lock decides.
            None if !candidate.index.is_empty() => Some(sources.unsaid(candidate, store)?),
            // Who names a URL says what is there.
            None => None,
        };
        if let Some(blob) = found {
            (sha256, size) = (Some(blob.digest), Some(blob.size));
        }
    }
    Ok((
        candidate.file.to_string(),
        sha256,
        WheelPin {
            sha256: sha256.unwrap_or_else(|| crate::oci::Digest::of(b"")),
            size,
            // A URL that a requirement names belongs to what is asked for; that of an index does not.
            url: match candidate.index.is_empty() {
                true => Some(without_login(&candidate.url)),
                false => sources.listed_at(candidate),
            },
            home: sources.home(candidate),
            metadata: None,
        },
    ))
}

/// Pins what another lock says.
fn of_lock(
    locked: &Locked,
    inputs: &Inputs,
    target: &Target,
    tags: &Tags,
    sources: &Sources<'_>,
    store: &Store,
) -> Result<Pinned, ActionError> {
    if !locked.wheels.is_empty() || locked.hashes.is_empty() {
        let wheel = match locked.wheel(target, tags) {
            Ok(wheel) => wheel,
            // Where the lock has no wheel that fits, one of the user's own will do.
            Err(error) => {
                let own = sources.own_wheel(&locked.name, &locked.version, tags);
                return match own {
                    Some(candidate) => of_candidate(candidate, sources, store),
                    None => Err(of_input(&error)),
                };
            }
        };
        return Ok((
            wheel.wheel.file.clone(),
            Some(wheel.sha256),
            WheelPin {
                sha256: wheel.sha256,
                size: wheel.size,
                // URLs that the user's own words name stay; those of an index do not.
                url: wheel
                    .url
                    .as_deref()
                    .filter(|url| wheel.is_direct || !url.contains("://"))
                    .map(without_login),
                home: None,
                metadata: None,
            },
        ));
    }
    of_digests(locked, inputs, target, tags, sources, store)
}

/// Returns the files of a package of which only digests are known.
fn files_of(locked: &Locked, sources: &Sources<'_>) -> Result<Vec<Candidate>, ActionError> {
    sources.files(&locked.name).map_err(|error| {
        let at = |message: String| ActionError::new("imgdecl::pip::index", message);
        let error = match error {
            IndexError::NotFound { asked } => {
                let names = sources.similar(&locked.name);
                let near = names.first().map(|it| format!("did you mean `{it}`?"));
                let own = locked.index.as_ref();
                let own = own.map(|it| says_index(&locked.name, it));
                let all = near.into_iter().chain(own).chain([elsewhere(&asked, 1)]);
                let help: Vec<String> = all.collect();
                at(format!("{} is in no index", locked.name)).help(help.join("\n"))
            }
            error => {
                let help = match &error {
                    IndexError::Failed { help, .. } => help.clone(),
                    _ => None,
                };
                let message = format!("{} {} cannot be had: {error}", locked.name, locked.version);
                ActionError {
                    help,
                    ..remote(at(message))
                }
            }
        };
        error.at(&origin(&locked.place))
    })
}

/// Pins a package of which only digests are known: the index names the files that have them.
fn of_digests(
    locked: &Locked,
    inputs: &Inputs,
    target: &Target,
    tags: &Tags,
    sources: &Sources<'_>,
    store: &Store,
) -> Result<Pinned, ActionError> {
    // Of two builds of one wheel, the later one.
    let rank = |it: &Candidate| {
        let wheel = it.wheel()?;
        Some((tags.rank(&wheel)?, Reverse(wheel.build)))
    };
    let asked = |files: &[Candidate]| -> Option<Candidate> {
        let is_asked = |it: &&Candidate| {
            it.version == locked.version && it.sha256.is_some_and(|it| locked.hashes.contains(&it))
        };
        let fits = files.iter().filter(is_asked);
        let ranked = fits.filter_map(|it| Some((rank(it)?, it)));
        let best = ranked.min_by(|one, other| one.0.cmp(&other.0));
        best.map(|(_, candidate)| candidate.clone())
    };
    // The others of its files are of interest only where none of these does.
    if let Ok(files) = sources.files_with(&locked.name, &locked.hashes)
        && let Some(candidate) = asked(&files)
    {
        return of_candidate(&candidate, sources, store);
    }
    let files = files_of(locked, sources)?;
    if let Some(candidate) = asked(&files) {
        return of_candidate(&candidate, sources, store);
    }
    // Where a lock of another tool has no wheel that fits, one of the user's own will do.
    let is_foreign = inputs.foreign.is_some();
    if is_foreign && let Some(own) = sources.own_wheel(&locked.name, &locked.version, tags) {
        return of_candidate(own, sources, store);
    }
    Err(without_wheel(locked, &files, is_foreign, target, tags))
}

/// Makes the error of a package that has no wheel with one of its digests.
fn without_wheel(
    locked: &Locked,
    files: &[Candidate],
    is_foreign: bool,
    target: &Target,
    tags: &Tags,
) -> ActionError {
    let of_version = files.iter().filter(|it| it.version == locked.version);
    let is_asked = |it: &&Candidate| it.sha256.is_some_and(|it| locked.hashes.contains(&it));
    let fits = |it: &&Candidate| it.wheel().is_some_and(|it| tags.rank(&it).is_some());
    // What has such a digest and does not fit, then what fits and has another one.
    let misfit = of_version.clone().filter(is_asked).map(|it| {
        let words = it.wheel().and_then(|wheel| wheel.misfit(target));
        let words = words.unwrap_or_else(|| "no wheel".to_owned());
        format!("{} has one of them, and is {words}", it.file)
    });
    let other = of_version
        .clone()
        .filter(fits)
        .filter_map(|it| Some(format!("{} has {}", it.file, it.sha256?)));
    let mut help: Vec<String> = misfit.chain(other).take(HINTS).collect();
    help.push(match of_version.clone().next() {
        None => {
            let versions: BTreeSet<&Version> = files.iter().map(|it| &it.version).collect();
            let newest = versions.into_iter().rev().take(HINTS);
            let newest: Vec<String> = newest.map(Version::to_string).collect();
            format!("the newest versions are {}", newest.join(", "))
        }
        Some(_) if is_foreign => {
            "lock again with the tool that made the lock, or build a wheel of this version and point `find_links` at its folder"
                .to_owned()
        }
        Some(_) => {
            "if a file is the right one, add its digest, as `pip-compile --generate-hashes` does; else find out why it changed"
                .to_owned()
        }
    });
    let (name, version) = (&locked.name, &locked.version);
    // No digest could help.
    if of_version.clone().next().is_some() && of_version.clone().all(|it| it.wheel().is_none()) {
        let message = format!("{name} {version} has no wheel, only sources");
        let help = match is_foreign {
            true => format!(
                "build a wheel of {name} for the target, and point `find_links` at its folder"
            ),
            false => format!(
                "build a wheel of {name} for the target, point `find_links` at its folder, and add its digest to the file"
            ),
        };
        let error = ActionError::new("imgdecl::pip::sources", message);
        return error.at(&origin(&locked.place)).help(help);
    }
    let message = match of_version.clone().next() {
        None => format!("there is no {name} {version}"),
        Some(_) => format!(
            "no wheel of {name} {version} for {} has one of the digests that are asked for",
            target.name()
        ),
    };
    let error = ActionError::new("imgdecl::pip::hash", message);
    error.at(&origin(&locked.place)).help(help.join("\n"))
}
