//! What moved from one lock to another, in words.

use std::collections::{BTreeMap, BTreeSet};

use super::{Lock, WheelPin};
use crate::layer::{Attrs, Fact, Facts, LayerPath};
use crate::oci::Digest;

/// Says what moved from one lock to another, a line for each thing, for people.
pub(crate) fn changes(old: &Lock, new: &Lock) -> Vec<String> {
    let mut lines = Vec::new();
    let names: BTreeSet<&String> = old.bases.keys().chain(new.bases.keys()).collect();
    for name in names {
        let (was, is) = match (old.bases.get(name), new.bases.get(name)) {
            (was, Some(is)) if was == Some(is) => continue,
            (was, Some(is)) => (was, is),
            (Some(was), None) => {
                lines.push(format!("{name}: removed, was {}", was.image));
                continue;
            }
            (None, None) => continue,
        };
        lines.push(match was {
            None => format!("{name}: new, {}", is.image),
            Some(was) if was.image != is.image => {
                format!("{name}: {} → {}", was.image, is.image)
            }
            Some(_) => format!("{name}: {}", is.image),
        });
        let moved = |what: &str, was: Option<Digest>, is: Digest| match was {
            None => format!("  {what}  {is}"),
            Some(was) => format!("  {what}  {was} → {is}"),
        };
        if was.is_none_or(|was| was.digest != is.digest) {
            lines.push(moved("digest", was.map(|was| was.digest), is.digest));
        }
        let none = BTreeMap::new();
        let before = was.map_or(&none, |was| &was.platforms);
        for (platform, pin) in &is.platforms {
            let was = before.get(platform);
            if was == Some(pin) {
                continue;
            }
            lines.push(moved(platform, was.map(|was| was.manifest), pin.manifest));
            if let Some(was) = was {
                lines.extend(facts_changed(&was.facts, &pin.facts));
            }
        }
        let gone = before.keys().filter(|it| !is.platforms.contains_key(*it));
        lines.extend(gone.map(|platform| format!("  {platform}  no longer needed")));
    }
    disks_changed(old, new, &mut lines);
    let names: BTreeSet<&String> = old.pips.keys().chain(new.pips.keys()).collect();
    let none = BTreeMap::new();
    for name in names {
        let targets = |lock: &'_ Lock| lock.pips.get(name).map(|pin| pin.targets.clone());
        let (was, is) = (targets(old), targets(new));
        let (was, is) = (was.unwrap_or_default(), is.unwrap_or_default());
        for target in was.keys().chain(is.keys()).collect::<BTreeSet<_>>() {
            let was = was.get(target).unwrap_or(&none);
            let is = is.get(target).unwrap_or(&none);
            if was == is {
                continue;
            }
            let mut files = Vec::new();
            let gone = was.keys().filter(|file| !is.contains_key(*file));
            files.extend(gone.map(|file| format!("    - {file}")));
            // What else is known of the same bytes is no change.
            let is_same = |file, pin: &WheelPin| {
                let was: Option<&WheelPin> = was.get(file);
                was.is_some_and(|was| (was.sha256, &was.url) == (pin.sha256, &pin.url))
            };
            let come = is.iter().filter(|(file, pin)| !is_same(*file, pin));
            files.extend(come.map(|(file, _)| format!("    + {file}")));
            if !files.is_empty() {
                lines.push(format!("{name}: {target}"));
                lines.extend(files);
            }
        }
    }
    lines
}

fn disks_changed(old: &Lock, new: &Lock, lines: &mut Vec<String>) {
    let names: BTreeSet<&String> = old.disks.keys().chain(new.disks.keys()).collect();
    for name in names {
        let (was, is) = match (old.disks.get(name), new.disks.get(name)) {
            (was, Some(is)) if was != Some(is) => (was, is),
            (Some(_), None) => {
                lines.push(format!("{name}: removed, was on disk"));
                continue;
            }
            _ => continue,
        };
        lines.push(match was {
            None => format!("{name}: new, on disk"),
            Some(_) => format!("{name}: on disk"),
        });
        match was {
            Some(was) if was.digest == is.digest => {}
            Some(was) => lines.push(format!("  digest  {} → {}", was.digest, is.digest)),
            None => lines.push(format!("  digest  {}", is.digest)),
        }
        let before = |platform| was.and_then(|was| was.platforms.get(platform));
        let moved = is.platforms.iter().filter(|(name, is)| {
            let was = before(*name);
            was.is_none() || was != Some(*is)
        });
        for (platform, pythons) in moved {
            let pythons = pythons.interpreters.iter();
            let paths: Vec<String> = pythons
                .map(|it| format!("{} {}", it.path, it.version))
                .collect();
            let paths = match paths.is_empty() {
                true => "no Python".to_owned(),
                false => paths.join(", "),
            };
            lines.push(format!("  {platform}  {paths}"));
        }
    }
}

fn facts_changed(was: &Facts, is: &Facts) -> Vec<String> {
    let line = |sign: char, path: &LayerPath, fact: &Fact| match fact {
        Fact::Folder(Attrs { mode, owner }) => {
            format!(
                "    {sign} /{}  {mode:04o} {}:{}",
                path.as_str(),
                owner.uid,
                owner.gid
            )
        }
        Fact::Link { target, .. } => format!("    {sign} /{} -> {target}", path.as_str()),
    };
    let gone = was
        .iter()
        .filter(|(path, fact)| is.get(path) != Some(fact))
        .map(|(path, fact)| line('-', path, fact));
    let come = is
        .iter()
        .filter(|(path, fact)| was.get(path) != Some(fact))
        .map(|(path, fact)| line('+', path, fact));
    gone.chain(come).collect()
}
