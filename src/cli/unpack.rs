//! `unpack`: an image as files again, or as a bundle that OCI runtimes run.

use std::path::Path;
use std::sync::atomic::Ordering;

use super::args;
use super::build::stopped;
use super::exit::Exit;
use super::image::Opener;
use super::setup::here;
use super::{CANCEL, report};
use crate::oci::Config;
use crate::runtime::bundle::{self, BundleError, Options, Rootless};
use crate::runtime::{Applied, ApplyError, Image, Limits, Stage, apply};
use crate::source::SourceError;
use crate::ui;

/// The folder of a bundle that holds the root.
const ROOTFS: &str = "rootfs";

pub(super) fn unpack(args: &args::Unpack) -> Result<Exit, Exit> {
    let opener = Opener::new(&args.open)?.for_one();
    let opened = opener.open(&args.image)?;
    let (config, layers) = opener.ready(&opened)?;
    opener.progress.close();
    let limits = Limits {
        bytes: args.max_size,
        entries: args.max_entries,
        ratio: args.max_ratio,
        ..Limits::default()
    };
    let image = Image {
        config: &config,
        layers: &layers,
    };
    let target = here()?.join(&args.dir);
    let stage = Stage::new(&target).map_err(failed)?;
    let root = match args.bundle {
        true => stage.folder(ROOTFS).map_err(failed)?,
        false => stage.path().to_owned(),
    };
    opener.progress.note(&format!("unpacking {}", opened.name));
    let go_on = |_| !CANCEL.load(Ordering::Relaxed);
    let applied = apply(&image, &root, &limits, &go_on).map_err(failed)?;
    let mut notes = notes(&applied);
    if args.bundle {
        let spec = spec(&config, &root, &mut notes)?;
        stage
            .write("config.json", &spec.to_bytes())
            .map_err(failed)?;
        stage.open_to_all().map_err(failed)?;
        notes.extend(spec.notes);
    }
    if CANCEL.load(Ordering::Relaxed) {
        return Err(failed(ApplyError::Stopped));
    }
    stage.commit().map_err(failed)?;
    notes
        .iter()
        .for_each(|note| ui::line(&format!("note: {note}")));
    let (entries, bytes) = (applied.entries, ui::size(applied.bytes));
    let dir = args.dir.display();
    ui::line(&format!("unpacked {entries} entries, {bytes}, into {dir}"));
    Ok(Exit::Done)
}

/// Makes the `config.json` of a bundle.
fn spec(config: &Config, root: &Path, notes: &mut Vec<String>) -> Result<bundle::Spec, Exit> {
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
            report::error("imgdecl::unpack::bundle", &error, help);
            Exit::Failed
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

fn failed(error: ApplyError) -> Exit {
    if matches!(error, ApplyError::Stopped) {
        return stopped();
    }
    if let ApplyError::Source(SourceError::Cache(damage)) = &error {
        return report::cache(&damage.clone().into());
    }
    let exit = match error {
        ApplyError::Exists(_) | ApplyError::Place { .. } => Exit::Usage,
        _ => Exit::Failed,
    };
    report::error("imgdecl::unpack", &error, error.help());
    exit
}
