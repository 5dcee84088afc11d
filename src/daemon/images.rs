//! What a daemon says of images that it has, and other names for them.

use serde::Deserialize;
use serde_json::Value;

use super::{Answered, Body, Daemon, DaemonError, GREETING, Method, message, printable};
use crate::oci::{DiffId, Digest, Reference};

/// An image as a daemon was sent it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent<'a> {
    /// The digest of the config: the image's ID where a daemon keeps images as Docker always did, and in podman.
    pub config: Digest,
    /// The digest of the manifest: the image's ID where Docker leaves them to containerd.
    pub manifest: Digest,
    /// The diff_ids of the layers, bottom first.
    pub diff_ids: &'a [DiffId],
}

/// An image that a daemon has.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    /// The daemon's own name for it, `sha256:…`.
    pub(crate) id: String,
    /// What it answered about it.
    answer: Value,
}

/// What a list of images says of one.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    id: String,
}

/// How many images a daemon is asked about to find layers that it has.
const MANY: usize = 32;

impl Held {
    /// Returns the diff_ids of its layers, bottom first, as far as they are some.
    pub(crate) fn diff_ids(&self) -> Vec<DiffId> {
        let layers = self.answer.pointer("/RootFS/Layers");
        let layers = layers.and_then(Value::as_array).into_iter().flatten();
        let layers = layers.map_while(|it| it.as_str()?.parse().ok());
        layers.map(DiffId).collect()
    }

    /// Tells whether it is what was, or would be, sent.
    pub(crate) fn is(&self, sent: Sent<'_>) -> bool {
        sent.differs(&self.id, &self.answer).is_none()
    }
}

impl Daemon {
    /// Finds an image by its name or ID; `None` if the daemon has none.
    ///
    /// # Errors
    /// When it cannot be reached, or does not answer as it should.
    pub(crate) fn image(&self, name: &str) -> Result<Option<Held>, DaemonError> {
        let path = format!("images/{name}/json");
        let answered = self.get(&path)?;
        match answered.status {
            200 => {
                let answer: Value = serde_json::from_slice(&answered.body).unwrap_or_default();
                let none = || self.stranger(format!("it does not say the ID of {name}"));
                let id = message(&answer, &["/Id"]).ok_or_else(none)?;
                Ok(Some(Held { id, answer }))
            }
            404 => Ok(None),
            _ => Err(self.refusal(&answered)),
        }
    }

    /// Returns the daemon's own name for an image that it was sent, `sha256:…`; `None` if it has no image of that name.
    ///
    /// # Errors
    /// When it has another image of that name, cannot be reached, or does not answer as it should.
    pub(crate) fn image_id(
        &self,
        name: &str,
        sent: Sent<'_>,
    ) -> Result<Option<String>, DaemonError> {
        let Some(held) = self.image(name)? else {
            return Ok(None);
        };
        match sent.differs(&held.id, &held.answer) {
            None => Ok(Some(held.id)),
            Some(why) => Err(DaemonError::Differs {
                daemon: self.name.clone(),
                name: name.to_owned(),
                why,
            }),
        }
    }

    /// Returns the IDs of the images that it has, as far as there are few, those first that it names first.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub(crate) fn images(&self) -> Result<Vec<String>, DaemonError> {
        let answered = self.get("images/json")?;
        // A socket that lets but some requests through has no list for us: then nothing is known.
        let listed = serde_json::from_slice(&answered.body).ok();
        let listed: Vec<Listed> = listed
            .filter(|_| answered.status == 200)
            .unwrap_or_default();
        let ids = listed.into_iter().map(|it| it.id);
        Ok(ids.take(MANY).collect())
    }

    /// Gives an image that it has one more name.
    ///
    /// # Errors
    /// When it does not, or cannot be reached.
    pub(crate) fn tag(&self, id: &str, name: &Reference) -> Result<(), DaemonError> {
        let (repository, tag) = (name.name(), name.tag.as_deref().unwrap_or("latest"));
        let path = format!("images/{id}/tag?repo={repository}&tag={tag}");
        let wire = self.wire(GREETING);
        let answered = self.ask(&wire, Method::POST, &path, Body::Bytes(&[]))?;
        match answered.status {
            200 | 201 => Ok(()),
            _ => Err(self.refusal(&answered)),
        }
    }

    /// Tells whether it takes an archive without layers that it has. Docker looks for a layer by its chain before it opens
    /// its file, and makes no image of one that is missing; podman looks for it by its digest before it copies it. Where
    /// Docker leaves its images to containerd, what an archive lacks stays lacking, and nobody says so.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub(crate) fn has_own_layers(&self) -> Result<bool, DaemonError> {
        if self.is_podman {
            return Ok(true);
        }
        let answered = self.get("info")?;
        let info: Value = serde_json::from_slice(&answered.body).unwrap_or_default();
        // What says nothing of its driver is none that is known; a socket may let but some requests through.
        let Some(driver) = info.get("Driver").and_then(Value::as_str) else {
            return Ok(false);
        };
        let status = info.get("DriverStatus").map(Value::to_string);
        let is_containerd = status.is_some_and(|it| it.contains("io.containerd.snapshotter"));
        Ok(!driver.is_empty() && !is_containerd)
    }

    /// Tells whether it takes images best one by one, each with one name: podman reads that as an OCI archive, and knows its
    /// layers by their digests later. Of any other archive it wants all, each time.
    pub(crate) fn takes_one(&self) -> bool {
        self.is_podman
    }

    fn get(&self, path: &str) -> Result<Answered, DaemonError> {
        self.ask(&self.wire(GREETING), Method::GET, path, Body::None)
    }
}

impl Sent<'_> {
    /// Says in what an image differs from this one: by its ID, and by what `GET /images/NAME/json` answers.
    pub(super) fn differs(&self, id: &str, answer: &Value) -> Option<String> {
        // An image without layers has no such list.
        let layers = answer.pointer("/RootFS/Layers").and_then(Value::as_array);
        let layers = layers.map(Vec::as_slice).unwrap_or_default();
        let (has, wanted) = (layers.len(), self.diff_ids.len());
        if has != wanted {
            return Some(format!("it has {has} layers instead of {wanted}"));
        }
        for (number, (layer, DiffId(diff_id))) in layers.iter().zip(self.diff_ids).enumerate() {
            let layer = layer.as_str().unwrap_or_default();
            if layer != diff_id.to_string() {
                let (number, layer) = (number + 1, printable(layer));
                return Some(format!(
                    "its layer {number} has the diff_id {layer} instead of {diff_id}"
                ));
            }
        }
        let Self {
            config, manifest, ..
        } = self;
        let bare = id.strip_prefix("sha256:").unwrap_or(id);
        let is_ours = [config, manifest].iter().any(|it| it.hex() == bare);
        (!is_ours).then(|| {
            format!("its layers are the same, but its ID is {id}: not the config's digest {config}, and not the manifest's {manifest}")
        })
    }
}
