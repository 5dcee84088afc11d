//! `--load`: images go to Docker or podman. What is there already is not sent: neither an image that the daemon has, nor
//! layers of one that it has, where it takes an image without them.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, OnceLock};

use serde_json::json;

use super::attached::left_out;
use super::docker_archive::{DockerArchive, Picked, lay_out};
use super::{Needs, Output, OutputError, Planned, Report, Sink, Supply};
use crate::daemon::{self, DaemonError, Held, Sent, Settings};
use crate::net::Monitor;
use crate::oci::{DiffId, Digest, Platform};

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
        if let Some(image) = docker.images.iter().find(|image| image.has_zstd())
            && !daemon.reads_zstd()
        {
            return Err(OutputError::Zstd {
                image: image.target.to_owned(),
                daemon: daemon.name().to_owned(),
            });
        }
        let mut chains = Chains::default();
        let (mut lacking, mut there) = (Vec::new(), Vec::new());
        for picked in &docker.images {
            let id = find(daemon, picked, &mut chains)?;
            if id.is_none() {
                lacking.push(picked);
            }
            there.push(id);
        }
        let bytes = |picked: &[&Picked<'_>]| -> u64 {
            let blobs = picked.iter().flat_map(|it| it.blobs());
            blobs
                .collect::<BTreeSet<_>>()
                .iter()
                .map(|it| it.size)
                .sum()
        };
        let all = bytes(&docker.images.iter().collect::<Vec<_>>());
        let mut sent = 0;
        if !lacking.is_empty() {
            let load = Load {
                daemon,
                lacking: &lacking,
                supply,
            };
            sent = load.load(chains)?;
        }
        (supply.unsent)(0, all.saturating_sub(sent));
        left_out(images, daemon.name(), supply.note);
        let mut reports = Vec::new();
        for ((image, picked), there) in images.iter().zip(&docker.images).zip(there) {
            let is_sent = there.is_none();
            let image_id = there.map_or_else(|| image_id(daemon, picked), Ok)?;
            let names = picked.full_names();
            let (name, all, daemon) = (&image.name, names.join(", "), daemon.name());
            (supply.note)(&match is_sent {
                true => format!("loaded  {name} into {daemon} as {all}: {image_id}"),
                false => format!("there   {name} in {daemon} as {all}: {image_id}"),
            });
            let platform = picked.platform.to_string();
            let value = json!({"names": names, "platform": platform, "image_id": image_id});
            reports.push(("load", value));
        }
        Ok(reports)
    }
}

/// What a daemon is to know of an image that it has or gets.
fn sent<'a>(picked: &'a Picked<'_>) -> Sent<'a> {
    Sent {
        config: picked.image.config.digest,
        manifest: picked.image.manifest.digest,
        diff_ids: &picked.diff_ids,
    }
}

/// Makes sure that a daemon which has an image has it under all its names. Returns its own name for it; `None` if it has it
/// not, or takes no name for it.
fn find(
    daemon: &daemon::Daemon,
    picked: &Picked<'_>,
    chains: &mut Chains,
) -> Result<Option<String>, OutputError> {
    let mut held = None;
    let mut unnamed = Vec::new();
    for name in &picked.names {
        match daemon.image(&name.to_string())? {
            Some(image) if image.is(sent(picked)) => held = Some(image),
            other => {
                other.iter().for_each(|it| chains.add(it));
                unnamed.push(name);
            }
        }
    }
    for id in [picked.image.config.digest, picked.image.manifest.digest] {
        if held.is_none() {
            let image = if_it_says(daemon.image(&id.to_string()))?;
            held = image.filter(|it| it.is(sent(picked)));
        }
    }
    let Some(held) = held else { return Ok(None) };
    chains.add(&held);
    for name in unnamed {
        match daemon.tag(&held.id, name) {
            Ok(()) => {}
            Err(DaemonError::Rejected { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Some(held.id))
}

/// Takes an answer that only saves work: a daemon that gives none has no such image.
fn if_it_says(answer: Result<Option<Held>, DaemonError>) -> Result<Option<Held>, DaemonError> {
    match answer {
        Err(DaemonError::Rejected { .. } | DaemonError::Stranger { .. }) => Ok(None),
        answer => answer,
    }
}

/// Layers that a daemon has, by all that lies below them.
#[derive(Default)]
struct Chains(BTreeSet<Digest>);

impl Chains {
    /// Returns the chain ID of each layer (image-spec, config.md, "Layer ChainID").
    fn ids(diff_ids: &[DiffId]) -> Vec<Digest> {
        let mut ids: Vec<Digest> = Vec::new();
        for DiffId(diff_id) in diff_ids {
            ids.push(match ids.last() {
                None => *diff_id,
                Some(below) => Digest::of(format!("{below} {diff_id}").as_bytes()),
            });
        }
        ids
    }

    fn add(&mut self, image: &Held) {
        self.0.extend(Self::ids(&image.diff_ids()));
    }

    fn has_all(&self, picked: &[&Picked<'_>]) -> bool {
        let mut tops = picked.iter().map(|it| Self::ids(&it.diff_ids));
        tops.all(|it| it.last().is_none_or(|top| self.0.contains(top)))
    }

    /// Returns the blobs that none of some images needs to be sent.
    fn there(&self, picked: &[&Picked<'_>]) -> BTreeSet<Digest> {
        let (mut there, mut needed) = (BTreeSet::new(), BTreeSet::new());
        for picked in picked {
            for (layer, chain) in picked.image.layers.iter().zip(Self::ids(&picked.diff_ids)) {
                let digest = layer.descriptor.digest;
                match self.0.contains(&chain) {
                    true => there.insert(digest),
                    false => needed.insert(digest),
                };
            }
        }
        there.difference(&needed).copied().collect()
    }
}

/// Images that a daemon lacks, on their way there.
struct Load<'a> {
    daemon: &'a daemon::Daemon,
    lacking: &'a [&'a Picked<'a>],
    supply: &'a Supply<'a>,
}

impl Load<'_> {
    /// Sends the images, without layers that the daemon has if it takes them so. Returns how many bytes were sent.
    fn load(&self, mut chains: Chains) -> Result<u64, OutputError> {
        let has_layers = self.lacking.iter().any(|it| !it.diff_ids.is_empty());
        if has_layers && self.daemon.has_own_layers()? {
            self.find_layers(&mut chains)?;
            let there = chains.there(self.lacking);
            if !there.is_empty() {
                match self.load_new(&there) {
                    // It lost some meanwhile, or has them in another form.
                    Err(OutputError::Daemon(DaemonError::Rejected { .. }))
                    | Err(OutputError::Daemon(DaemonError::Differs { .. }))
                    | Err(OutputError::Lost { .. }) => {
                        let name = self.daemon.name();
                        let text = format!(
                            "{name} does not take the images without layers that it has: all are sent"
                        );
                        (self.supply.note)(&text);
                    }
                    sent => return sent,
                }
            }
        }
        self.send_all(&BTreeSet::new())
    }

    /// Asks the daemon for other images, until all layers are found or it has no more.
    fn find_layers(&self, chains: &mut Chains) -> Result<(), OutputError> {
        if chains.has_all(self.lacking) {
            return Ok(());
        }
        for id in self.daemon.images()? {
            if let Some(image) = if_it_says(self.daemon.image(&id))? {
                chains.add(&image);
            }
            if chains.has_all(self.lacking) {
                break;
            }
        }
        Ok(())
    }

    /// Sends images without layers that are there, and makes sure that they are whole there.
    fn load_new(&self, there: &BTreeSet<Digest>) -> Result<u64, OutputError> {
        let sent = self.send_all(there)?;
        for picked in self.lacking {
            image_id(self.daemon, picked)?;
        }
        Ok(sent)
    }

    /// Sends all images without some blobs, as the daemon takes them best. Returns how many bytes that were.
    fn send_all(&self, without: &BTreeSet<Digest>) -> Result<u64, OutputError> {
        if !self.daemon.takes_one() {
            return self.send(self.lacking, without);
        }
        let mut sent = 0;
        for picked in self.lacking {
            let one = Picked {
                names: picked.names.iter().take(1).cloned().collect(),
                ..(*picked).clone()
            };
            sent += self.send(&[&one], without)?;
            let id = image_id(self.daemon, &one)?;
            for name in picked.names.iter().skip(1) {
                self.daemon.tag(&id, name)?;
            }
        }
        Ok(sent)
    }

    /// Sends images without some blobs. Returns how many bytes that were.
    fn send(&self, images: &[&Picked<'_>], without: &BTreeSet<Digest>) -> Result<u64, OutputError> {
        let what = match images {
            [image] => image.target.to_owned(),
            images => format!("{} images", images.len()),
        };
        let archive = lay_out(images.iter().copied(), without);
        let stop = self.supply.stop;
        let go_on = || !stop.is_asked();
        let mut reader = archive.reader(self.supply.store()?, &go_on);
        self.daemon.load(&mut reader, archive.size(), &what)?;
        Ok(archive.size())
    }
}

/// Returns the daemon's own name for an image: it must have it, and no other, under each of its names.
fn image_id(daemon: &daemon::Daemon, picked: &Picked<'_>) -> Result<String, OutputError> {
    let mut id = String::new();
    for name in picked.full_names() {
        id = daemon
            .image_id(&name, sent(picked))?
            .ok_or_else(|| OutputError::Lost {
                name,
                daemon: daemon.name().to_owned(),
            })?;
    }
    Ok(id)
}
