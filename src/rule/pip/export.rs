//! Writes what a target is pinned to as pylock.toml.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use super::inputs::Inputs;
use super::pin::Payload;
use super::pinned::{PipPin, WheelPin, Wheels};
use crate::graph::{ActionError, Context, PackageError, PackageFile};
use crate::lock::Lock;
use crate::python::{
    Exported, ExportedWheel, WheelName, WheelPlace, export as written, without_secrets,
};
use crate::rule::Need;
use crate::store::blob_of_file;

const CODE: &str = "imgdecl::pip::export";

/// Writes the pins of one target, for all its platforms; `folder` is where the text will lie. `None` without pins.
pub(super) fn export(
    needs: &[&Need],
    context: &Context<'_>,
    lock: &Lock,
    folder: &Path,
) -> Result<Option<String>, ActionError> {
    let mut targets: BTreeMap<String, (&Payload, &Wheels)> = BTreeMap::new();
    for need in needs {
        let payload = need.payload.as_ref();
        let payload = payload.and_then(|it| it.downcast_ref::<Payload>());
        let pin = lock.get::<PipPin>(&need.target.to_string());
        if let (Some(payload), Some(pin)) = (payload, pin) {
            let name = payload.target.name();
            if let Some(wheels) = pin.targets.get(&name) {
                targets.insert(name, (payload, wheels));
            }
        }
    }
    if targets.is_empty() {
        return Ok(None);
    }
    let own = targets
        .values()
        .flat_map(|(it, _)| it.inputs.own(&it.target).unwrap_or_default());
    let own: BTreeSet<String> = own.map(|it| it.wheel.name.to_string()).collect();
    for name in own {
        let text = format!(
            "warning: `{name}` is a project of the workspace, and not in the exported file"
        );
        (context.note)(&text);
    }
    // All pages at once; each is then waited for.
    for wheel in targets.values().flat_map(|(_, wheels)| wheels.iter()) {
        if let (None, Ok(name)) = (&wheel.1.url, WheelName::parse(wheel.0)) {
            let nothing = Box::new(|_: &[PackageFile]| Vec::new());
            let packages = context.ports.packages();
            // Those of other indexes are asked for one by one.
            if wheel.1.home.is_none() {
                packages.prefetch_project(name.name.as_ref(), nothing);
            }
        }
    }
    let mut all = Vec::new();
    for (payload, wheels) in targets.into_values() {
        let wheels = wheels.iter().map(|(file, pin)| {
            let wheel = WheelName::parse(file).map_err(|error| ActionError::of(CODE, &error))?;
            Ok(ExportedWheel {
                place: place(&wheel, pin, &payload.inputs, context, folder)?,
                wheel,
                sha256: pin.sha256,
                size: pin.size,
            })
        });
        all.push(Exported {
            target: payload.target.clone(),
            wheels: wheels.collect::<Result<_, ActionError>>()?,
        });
    }
    let text = written(&all).map_err(|error| {
        ActionError::of(CODE, &error)
            .help("pin the package to one version that both have, or make a target of each")
    });
    text.map(Some)
}

/// Finds where a wheel is: where the user said, in a folder of the workspace, or where an index has it today.
fn place(
    wheel: &WheelName,
    pin: &WheelPin,
    inputs: &Inputs,
    context: &Context<'_>,
    folder: &Path,
) -> Result<WheelPlace, ActionError> {
    match pin.url.as_deref() {
        Some(url) if url.contains("://") => return Ok(WheelPlace::Url(without_secrets(url))),
        Some(path) => return Ok(WheelPlace::Path(between(folder, &inputs.root.join(path)))),
        None => {}
    }
    for path in inputs.find_links.iter().map(|it| it.join(&wheel.file)) {
        if blob_of_file(&path, context.tick).is_ok_and(|it| it.digest == pin.sha256) {
            return Ok(WheelPlace::Path(between(folder, &path)));
        }
    }
    let packages = inputs.reach.packages_of(pin.home.as_ref(), context);
    let files = packages.get().files(wheel.name.as_ref());
    let files = files.map_err(|error| match error {
        PackageError::Failed(error) => error,
        error => {
            let message = format!("where {} is cannot be said: {error}", wheel.file);
            ActionError::new(CODE, message).help("check which indexes are set")
        }
    })?;
    let is_it =
        |it: &&PackageFile| *it.file == *wheel.file && it.sha256.is_none_or(|it| it == pin.sha256);
    match files.iter().find(is_it) {
        Some(file) => {
            let url = without_secrets(&file.url);
            // What follows the path is for one download, if there is anything.
            let url = url.split(['?', '#']).next().unwrap_or_default();
            Ok(WheelPlace::Url(url.to_owned()))
        }
        None => {
            let message = format!("no index has {} as it is locked", wheel.file);
            Err(ActionError::new(CODE, message)
                .help("run `imgdecl lock --update`: the file is gone, or was replaced"))
        }
    }
}

/// Returns the path from a folder to a file, with `/`.
fn between(folder: &Path, file: &Path) -> String {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let (folder, file) = (real(folder), real(file));
    let parts = |path: &Path| -> Vec<String> {
        let names = path.components().filter_map(|it| match it {
            Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
            _ => None,
        });
        names.collect()
    };
    let (from, to) = (parts(&folder), parts(&file));
    let same = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let up = from.iter().skip(same).map(|_| "..");
    let down = to.iter().skip(same).map(String::as_str);
    let path: PathBuf = up.chain(down).collect();
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_from_the_folder() {
        for (folder, file, expected) in [
            ("/a/b", "/a/b/c.whl", "c.whl"),
            ("/a/b", "/a/w/c.whl", "../w/c.whl"),
            ("/a/b", "/c.whl", "../../c.whl"),
        ] {
            assert_eq!(between(Path::new(folder), Path::new(file)), expected);
        }
    }
}
