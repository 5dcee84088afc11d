//! `--load`: images go to Docker or podman.

use std::fmt;
use std::sync::{Arc, OnceLock};

use serde_json::json;

use super::attached::left_out;
use super::docker_archive::{DockerArchive, Picked};
use super::{Needs, Output, OutputError, Planned, Report, Sink, Supply};
use crate::daemon::{self, Sent, Settings};
use crate::net::Monitor;
use crate::oci::Platform;

/// The images of Docker or podman on this machine.
pub(crate) struct Daemon {
    settings: Settings,
    monitor: Arc<dyn Monitor>,
    found: OnceLock<daemon::Daemon>,
}

impl Daemon {
    /// The daemon that the settings name, or the first that answers. It is looked for at the first use.
    pub(crate) fn new(settings: Settings, monitor: Arc<dyn Monitor>) -> Self {
        Self {
            settings,
            monitor,
            found: OnceLock::new(),
        }
    }

    fn find(&self) -> Result<&daemon::Daemon, OutputError> {
        if let Some(found) = self.found.get() {
            return Ok(found);
        }
        let found = daemon::Daemon::find(&self.settings, &self.monitor)?;
        Ok(self.found.get_or_init(|| found))
    }
}

impl fmt::Display for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.found.get().map_or("a daemon", |it| it.name()))
    }
}

impl Sink for Daemon {
    fn needs(&self) -> Needs {
        Needs::Bytes
    }

    fn check(&self) -> Result<(), OutputError> {
        self.find().map(drop)
    }

    fn check_images(&self, images: &[Planned<'_>], _: &Platform) -> Result<(), OutputError> {
        Planned::check(images, self.find()?.platform())
    }

    fn write(&self, images: &[Output], supply: &Supply<'_>) -> Result<Vec<Report>, OutputError> {
        let daemon = self.find()?;
        let docker = DockerArchive::new(images, daemon.platform())?;
        if let Some(image) = docker.images.iter().find(|image| image.has_zstd)
            && !daemon.reads_zstd()
        {
            return Err(OutputError::Zstd {
                image: image.target.clone(),
                daemon: daemon.name().to_owned(),
            });
        }
        let what = match &docker.images[..] {
            [image] => image.target.clone(),
            images => format!("{} images", images.len()),
        };
        let go_on = || !supply.stop.is_asked();
        let mut reader = docker.archive.reader(supply.store()?, &go_on);
        daemon.load(&mut reader, docker.archive.size(), &what)?;
        left_out(images, daemon.name(), supply.note);
        let mut reports = Vec::new();
        for (image, picked) in images.iter().zip(docker.images) {
            let image_id = image_id(daemon, &picked)?;
            let (name, names, daemon) = (&image.name, picked.names.join(", "), daemon.name());
            (supply.note)(&format!(
                "loaded  {name} into {daemon} as {names}: {image_id}"
            ));
            let platform = picked.platform.to_string();
            let value = json!({"names": picked.names, "platform": platform, "image_id": image_id});
            reports.push(("load", value));
        }
        Ok(reports)
    }
}

/// Returns the daemon's own name for an image: it must have it, and no other, under each of its names.
fn image_id(daemon: &daemon::Daemon, picked: &Picked) -> Result<String, OutputError> {
    let mut id = String::new();
    let sent = Sent {
        config: picked.config,
        manifest: picked.manifest,
        diff_ids: &picked.diff_ids,
    };
    for name in &picked.names {
        id = daemon
            .image_id(name, sent)?
            .ok_or_else(|| OutputError::Lost {
                name: name.clone(),
                daemon: daemon.name().to_owned(),
            })?;
    }
    Ok(id)
}
