//! `build --load`, and what it has in common with `docker-archive:FILE`: images go to Docker or podman.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::build::{output_error, stopped};
use super::environment::daemons;
use super::exit::Exit;
use super::{CANCEL, report};
use crate::daemon::{Daemon, DaemonError, Sent};
use crate::net::Monitor;
use crate::oci::{Compression, Platform};
use crate::output::{DockerArchive, Loaded, Output, Picked, Planned};
use crate::plan::Plan;
use crate::store::{Damage, Store};
use crate::ui::Progress;

/// Finds a daemon, before anything is built.
pub(super) fn find(progress: &Arc<Progress>) -> Result<Daemon, Exit> {
    let monitor: Arc<dyn Monitor> = progress.clone();
    Daemon::find(&daemons(), &monitor).map_err(|error| failure(&error))
}

/// Makes sure, before anything is built, that Docker can take the images of a plan.
pub(super) fn check(plan: &Plan, tags: &[String], host: &Platform) -> Result<(), Exit> {
    let platforms = plan.images.iter().map(|image| {
        let platforms = image.platforms.iter();
        platforms.map(|(platform, _)| platform.clone()).collect()
    });
    let platforms: Vec<Vec<Platform>> = platforms.collect();
    let planned = plan.images.iter().zip(&platforms);
    let planned = planned.map(|(image, platforms)| Planned {
        target: &image.name,
        repository: image.names.repository.as_deref(),
        tags: match tags {
            [] => &image.names.tags,
            tags => tags,
        },
        platforms,
    });
    let planned: Vec<Planned<'_>> = planned.collect();
    Planned::check(&planned, host).map_err(|error| output_error(&error))
}

/// Warns of layers that an old Docker cannot read.
pub(super) fn note_zstd(outputs: &[Output<'_>], progress: &Progress) {
    for output in outputs {
        let images = output.images().into_iter();
        let mut layers = images.flat_map(|(_, image)| &image.layers);
        if layers.any(|it| it.descriptor.media_type.compression() == Some(Compression::Zstd)) {
            let name = &output.name;
            progress.note(&format!(
                "{name} has layers in zstd, which Docker reads since version 23"
            ));
        }
    }
}

/// Loads images into a daemon, and notes in `outputs` what that did.
pub(super) fn load(
    daemon: &Daemon,
    outputs: &mut [Output<'_>],
    store: &Store,
    progress: &Progress,
) -> Result<(), Exit> {
    let docker = DockerArchive::new(outputs, daemon.platform());
    let docker = docker.map_err(|error| output_error(&error))?;
    if let Some(image) = docker.images.iter().find(|image| image.has_zstd)
        && !daemon.reads_zstd()
    {
        let message = format!(
            "`{}` has layers in zstd, which {} cannot read",
            image.target,
            daemon.name()
        );
        let help = "write compression = \"gzip\", or take Docker 23 or newer".to_owned();
        report::plain("imgdecl::daemon::zstd", &message, Some(help));
        return Err(Exit::Failed);
    }
    let what = match &docker.images[..] {
        [image] => image.target.clone(),
        images => format!("{} images", images.len()),
    };
    let go_on = || !CANCEL.load(Ordering::Relaxed);
    let mut reader = docker.archive.reader(store, &go_on);
    let size = docker.archive.size();
    let loaded = daemon.load(&mut reader, size, &what);
    loaded.map_err(|error| failure(&error))?;
    for (output, picked) in outputs.iter_mut().zip(docker.images) {
        let image_id = image_id(daemon, &picked)?;
        let (name, names) = (&output.name, picked.names.join(", "));
        let daemon = daemon.name();
        progress.note(&format!(
            "loaded  {name} into {daemon} as {names}: {image_id}"
        ));
        output.load = Some(Loaded {
            names: picked.names,
            platform: picked.platform,
            image_id,
        });
    }
    Ok(())
}

/// Returns the daemon's own name for an image: it must have it, and no other, under each of its names.
fn image_id(daemon: &Daemon, picked: &Picked) -> Result<String, Exit> {
    let mut id = String::new();
    let sent = Sent {
        config: picked.config,
        manifest: picked.manifest,
        diff_ids: &picked.diff_ids,
    };
    for name in &picked.names {
        let found = daemon.image_id(name, sent);
        match found.map_err(|error| failure(&error))? {
            Some(found) => id = found,
            None => {
                let message = format!("{} took the images, but has no {name}", daemon.name());
                let help = "its log says more".to_owned();
                report::plain("imgdecl::daemon::lost", &message, Some(help));
                return Err(Exit::Failed);
            }
        }
    }
    Ok(id)
}

fn failure(error: &DaemonError) -> Exit {
    if matches!(error, DaemonError::Stopped) || CANCEL.load(Ordering::Relaxed) {
        return stopped();
    }
    if let DaemonError::Local(source) = error
        && let Some(damage) = Damage::of(source)
    {
        return report::cache(&damage.clone().into());
    }
    let code = match error {
        DaemonError::Differs { .. } => "imgdecl::daemon::differs",
        _ => "imgdecl::daemon",
    };
    report::error(code, error, error.help());
    match error {
        DaemonError::Address { .. } | DaemonError::Context { .. } => Exit::Usage,
        _ => Exit::Failed,
    }
}
