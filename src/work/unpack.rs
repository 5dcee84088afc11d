//! `unpack`: an image as files again, or as a bundle that OCI runtimes run.

use std::path::{Path, PathBuf};

use super::image::{Open, Opener};
use super::{Blame, Failed, News, Session};
use crate::oci::Config;
use crate::runtime::bundle::{self, BundleError, Options, Rootless};
use crate::runtime::{Applied, ApplyError, Image, Limits, StagingFolder, apply};
use crate::source::SourceError;

/// The folder of a bundle that holds the root.
const ROOTFS: &str = "rootfs";

/// What is to be unpacked, and how far.
pub(crate) struct Request {
    /// The image.
    pub(crate) image: String,
    /// How it is found.
    pub(crate) open: Open,
    /// The folder, from the working folder.
    pub(crate) dir: PathBuf,
    /// It becomes a bundle for OCI runtimes.
    pub(crate) bundle: bool,
    /// How many bytes the layers may have, uncompressed.
    pub(crate) max_size: u64,
    /// How many entries the layers may have.
    pub(crate) max_entries: u64,
    /// How many times its compressed size a layer may have.
    pub(crate) max_ratio: u64,
}

/// What was unpacked.
pub(crate) struct Unpacked {
    /// How many entries.
    pub(crate) entries: u64,
    /// How many bytes.
    pub(crate) bytes: u64,
    /// What is not as in the image.
    pub(crate) notes: Vec<String>,
}

/// Unpacks an image into a folder. Nothing stays of one that is damaged.
///
/// # Errors
/// When the image cannot be had or is damaged, or the folder cannot be written.
pub(crate) fn unpack(session: &Session, request: &Request) -> Result<Unpacked, Failed> {
    let opener = Opener::new(session, &request.open)?.for_one();
    let opened = opener.open(&request.image)?;
    let (config, layers) = opener.ready(&opened)?;
    session.news(&News::Over { only_if_busy: true });
    let limits = Limits {
        bytes: request.max_size,
        entries: request.max_entries,
        ratio: request.max_ratio,
        ..Limits::default()
    };
    let image = Image {
        config: &config,
        layers: &layers,
    };
    let target = session.here()?.join(&request.dir);
    let stage = StagingFolder::new(&target).map_err(failed)?;
    let root = match request.bundle {
        true => stage.folder(ROOTFS).map_err(failed)?,
        false => stage.path().to_owned(),
    };
    session.news(&News::Unpacks(&opened.name));
    let go_on = |_| !session.stop.is_asked();
    let applied = apply(&image, &root, &limits, &go_on).map_err(failed)?;
    let mut notes = notes(&applied);
    if request.bundle {
        let spec = spec(&config, &root, &mut notes)?;
        let written = stage.write("config.json", &spec.to_bytes());
        written.map_err(failed)?;
        stage.open_to_all().map_err(failed)?;
        notes.extend(spec.notes);
    }
    session.go_on()?;
    stage.commit().map_err(failed)?;
    Ok(Unpacked {
        entries: applied.entries,
        bytes: applied.bytes,
        notes,
    })
}

/// Makes the `config.json` of a bundle.
fn spec(config: &Config, root: &Path, notes: &mut Vec<String>) -> Result<bundle::Spec, Failed> {
    let user = (rustix::process::geteuid(), rustix::process::getegid());
    let mut options = Options {
        rootless: (!user.0.is_root()).then(|| Rootless {
            uid: user.0.as_raw(),
            gid: user.1.as_raw(),
        }),
        labels: true,
        ..Options::default()
    };
    let made = match bundle::spec(config, root, &options) {
        Err(BundleError::NoCommand) => {
            notes.push("the image says no command: config.json runs `sh`".to_owned());
            options.cmd = Some(vec!["sh".to_owned()]);
            bundle::spec(config, root, &options)
        }
        made => made,
    };
    made.map_err(|error| match error {
        BundleError::Apply(error) => failed(error),
        error => {
            let help = error.help().map(str::to_owned);
            Failed::error(Blame::Build, "imgdecl::unpack::bundle", &error, help)
        }
    })
}

/// Says what is not as in the image.
fn notes(applied: &Applied) -> Vec<String> {
    let mut notes = Vec::new();
    let mut note = |count: u64, one: &str, many: &str, why: &str| match count {
        0 => {}
        1 => notes.push(format!("1 {one}: {why}")),
        count => notes.push(format!("{count} {many}: {why}")),
    };
    let (one, many) = (
        "entry of another owner than root is yours",
        "entries of other owners than root are yours",
    );
    note(applied.owners, one, many, "only root can give files away");
    let (one, many) = ("device is an empty file", "devices are empty files");
    note(applied.devices, one, many, "only root can make devices");
    let (one, many) = (
        "extended attribute is missing",
        "extended attributes are missing",
    );
    note(
        applied.attributes,
        one,
        many,
        "the kernel or the file system does not take them from you",
    );
    let (one, many) = (
        "entry for the root was passed over",
        "entries for the root were passed over",
    );
    note(
        applied.roots,
        one,
        many,
        "the root is a folder, and stays one",
    );
    notes
}

fn failed(error: ApplyError) -> Failed {
    if matches!(error, ApplyError::Stopped) {
        return Failed::Stopped;
    }
    if let ApplyError::Source(SourceError::Cache(damage)) = error {
        return damage.into();
    }
    let blame = match error {
        ApplyError::Exists(_) | ApplyError::Place { .. } => Blame::Usage,
        _ => Blame::Build,
    };
    Failed::error(blame, "imgdecl::unpack", &error, error.help())
}
