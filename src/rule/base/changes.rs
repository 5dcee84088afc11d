//! What moved from one pin of a base to another, in words.

use std::collections::BTreeMap;

use super::pinned::BasePin;
use crate::layer::{Attrs, Fact, Facts, LayerPath};
use crate::lock::Move;
use crate::oci::Digest;

/// Says what moved: of bases in registries first.
pub(super) fn changes(moves: &[Move<'_, BasePin>]) -> Vec<String> {
    let mut lines = Vec::new();
    for Move {
        target: name,
        was,
        is,
    } in moves
    {
        let (was, is) = match (
            was.and_then(BasePin::in_registry),
            is.and_then(BasePin::in_registry),
        ) {
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
            let before = was.map(|was| was.manifest);
            lines.push(match before == Some(pin.manifest) {
                true => format!("  {platform}"),
                false => moved(platform, before, pin.manifest),
            });
            if let Some(was) = was {
                lines.extend(facts_changed(&was.facts, &pin.facts));
                if was.accounts != pin.accounts {
                    lines.push(match pin.accounts {
                        Some(_) => "    its users and groups".to_owned(),
                        None => "    its users and groups are no longer needed".to_owned(),
                    });
                }
            }
        }
        let gone = before.keys().filter(|it| !is.platforms.contains_key(*it));
        lines.extend(gone.map(|platform| format!("  {platform}  no longer needed")));
    }
    disks_changed(moves, &mut lines);
    lines
}

fn disks_changed(moves: &[Move<'_, BasePin>], lines: &mut Vec<String>) {
    for Move {
        target: name,
        was,
        is,
    } in moves
    {
        let (was, is) = match (
            was.and_then(BasePin::on_disk),
            is.and_then(BasePin::on_disk),
        ) {
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
        for (platform, found) in moved {
            lines.push(format!("  {platform}  {}", found.words()));
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
